//! Turning a component into machine code, in this process or in a short-lived child.
//!
//! A child reads the component on stdin and writes the result to stdout, a letter for how it is called and then the code; what it refuses it explains in one sentence on
//! stderr, with exit code 2. It limits its own memory and CPU before it reads a byte, seals itself as workers do before it looks at what
//! it read ([`crate::worker`]: no files, sockets or programs), and is killed when it takes too long. It inherits no environment. At most [`COMPILATIONS_MAX`] compilations run at once, whoever asks.
//!
//! Left to others: whether to trust the result. The child is our own program; [`crate::artifact`] authenticates what
//! was stored.

use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use bytes::Bytes;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Semaphore;
use wasmtime::component::Component;

use crate::artifact::{ArtifactError, interfaces};
use crate::engine::{Calls, Engine, compiler_config};
use crate::scheduling::Computing;
use crate::worker::sandbox;

/// A program that calls [`compile_main`], usually the embedder's own: `weft compile`.
#[derive(Clone, Debug)]
pub struct CompilerCommand {
    pub program: PathBuf,
    pub args: Vec<String>,
}

/// How far a compiling child lets itself go.
#[derive(Clone, Copy, Debug)]
pub struct CompileLimits {
    /// Address space of the child.
    pub memory_bytes: u64,
    /// CPU time, over all of the child's threads.
    pub cpu_seconds: u64,
}

impl Default for CompileLimits {
    fn default() -> CompileLimits {
        CompileLimits {
            // A known pathological function takes 6.5 GB; honest components stay under one.
            memory_bytes: 4 << 30,
            cpu_seconds: 120,
        }
    }
}

/// Compilations at the same time. Each uses every core for most of its time, so that more would only need more memory;
/// fewer would let one slow component hold up all others.
const COMPILATIONS_MAX: usize = 4;
/// Wall-clock time of a compiling child, however busy the machine is.
const CHILD_TIMEOUT: Duration = Duration::from_secs(240);
/// Machine code is a few times the size of its component; more than this is not worth reading.
const CODE_BYTES_MAX: u64 = 1 << 30;
/// What is read of a child's complaint.
const COMPLAINT_BYTES_MAX: u64 = 8 << 10;
/// One sentence, generously: names in it come from the component, and may be as long as the component likes.
const SENTENCE_BYTES_MAX: usize = 800;
/// The child's exit code for "this component is not valid".
const EXIT_INVALID: u8 = 2;

/// Where compilation happens.
#[derive(Debug)]
pub(crate) struct Compiler {
    place: Place,
    slots: Semaphore,
}

#[derive(Debug)]
enum Place {
    InProcess,
    Child(CompilerCommand),
}

impl Compiler {
    /// Compiles in a child that runs `command`, or in this process without one.
    pub(crate) fn new(command: Option<CompilerCommand>) -> Compiler {
        Compiler {
            place: command.map_or(Place::InProcess, Place::Child),
            slots: Semaphore::new(COMPILATIONS_MAX),
        }
    }

    pub(crate) async fn compile(
        &self,
        engine: &Engine,
        component: Bytes,
    ) -> Result<Compiled<Vec<u8>>, ArtifactError> {
        // The semaphore is never closed.
        let _slot = self.slots.acquire().await;
        let computing = Computing::new();
        match &self.place {
            Place::InProcess => {
                let engine = engine.clone();
                let compiled = tokio::task::spawn_blocking(move || {
                    // To its end, whoever waits for it.
                    let _computing = computing;
                    let wasm = |calls| &engine.machine(calls).wasm;
                    compile(wasm(Calls::Serial), wasm(Calls::Concurrent), &component).map_err(
                        |error| ArtifactError::Invalid {
                            reason: sentence(&error),
                        },
                    )
                });
                compiled.await.map_err(|error| ArtifactError::Compiler {
                    reason: error.to_string(),
                })?
            }
            Place::Child(command) => {
                match tokio::time::timeout(CHILD_TIMEOUT, in_child(command, component)).await {
                    Ok(result) => result,
                    // Dropped with the future, the child is killed. A busy machine may be the reason as well.
                    Err(_) => Err(ArtifactError::Compiler {
                        reason: format!("it took more than {} seconds", CHILD_TIMEOUT.as_secs()),
                    }),
                }
            }
        }
    }
}

/// Machine code, and for which machine it is.
pub(crate) struct Compiled<T> {
    pub(crate) calls: Calls,
    pub(crate) code: T,
}

/// Compiles for plain calls what knows WASI 0.2 only, and everything else for the event loop.
///
/// With plain calls a call and each call out of it costs less, but neither `async` functions nor WASI 0.3 are to be had.
fn compile(
    serial: &wasmtime::Engine,
    concurrent: &wasmtime::Engine,
    component: &[u8],
) -> wasmtime::Result<Compiled<Vec<u8>>> {
    // What is not valid there may be here, and has its error told by the wider engine.
    if let Ok(component) = Component::new(serial, component)
        && is_serial(&component)
    {
        let code = component.serialize()?;
        let calls = Calls::Serial;
        return Ok(Compiled { calls, code });
    }
    let code = concurrent.precompile_component(component)?;
    let calls = Calls::Concurrent;
    Ok(Compiled { calls, code })
}

/// Whether a component is called through WASI 0.2. A plug-in is not: how it is called is its embedder's affair.
fn is_serial(component: &Component) -> bool {
    let (imports, exports) = interfaces(component);
    let newer = |name: &String| name.starts_with("wasi:") && name.contains("@0.3");
    let entries = ["wasi:http/incoming-handler@0.2", "wasi:cli/run@0.2"];
    exports
        .iter()
        .any(|name| entries.iter().any(|entry| name.starts_with(entry)))
        && !imports.iter().chain(&exports).any(newer)
}

/// The letter that precedes code of each kind in a child's output.
const LETTERS: [(u8, Calls); 2] = [(b's', Calls::Serial), (b'c', Calls::Concurrent)];

async fn in_child(
    command: &CompilerCommand,
    component: Bytes,
) -> Result<Compiled<Vec<u8>>, ArtifactError> {
    let failed = |what: &str, error: std::io::Error| ArtifactError::Compiler {
        reason: format!("{what} {}: {error}", command.program.display()),
    };
    let mut child = tokio::process::Command::new(&command.program)
        .args(&command.args)
        .env_clear()
        .env("RUST_LIB_BACKTRACE", "0")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| failed("starting", error))?;
    let (Some(mut input), Some(output), Some(errors)) =
        (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        return Err(ArtifactError::Compiler {
            reason: "the compiling child has no pipes".into(),
        });
    };
    let (mut letter, mut code) = (Vec::new(), Vec::new());
    let mut complaint = Vec::new();
    let (_, read, told) = tokio::join!(
        async move {
            // A child that dies early closes the pipe; its exit status says why.
            let _ = input.write_all(&component).await;
            drop(input);
        },
        // Whoever writes more than this loses its pipe, and ends.
        async {
            let mut output = output.take(CODE_BYTES_MAX);
            (&mut output).take(1).read_to_end(&mut letter).await?;
            output.read_to_end(&mut code).await
        },
        async {
            let mut errors = errors.take(COMPLAINT_BYTES_MAX);
            let told = errors.read_to_end(&mut complaint).await;
            // Whoever complains at greater length must not wait for a reader.
            tokio::io::copy(&mut errors.into_inner(), &mut tokio::io::sink()).await?;
            told
        },
    );
    read.map_err(|error| failed("reading from", error))?;
    told.map_err(|error| failed("reading from", error))?;
    let status = child
        .wait()
        .await
        .map_err(|error| failed("waiting for", error))?;
    let complaint = one_line(&String::from_utf8_lossy(&complaint));
    match (status.code(), status.signal()) {
        (Some(0), _) => match LETTERS.iter().find(|(known, _)| letter == [*known]) {
            Some((_, calls)) => Ok(Compiled {
                calls: *calls,
                code,
            }),
            None => Err(ArtifactError::Compiler {
                reason: format!("what {} wrote is no code", command.program.display()),
            }),
        },
        (Some(exit), _) if exit == i32::from(EXIT_INVALID) => {
            Err(ArtifactError::Invalid { reason: complaint })
        }
        (Some(exit), _) => Err(ArtifactError::Compiler {
            reason: format!("it exited with code {exit}: {complaint}"),
        }),
        (None, signal) => Err(ended_by(
            signal.and_then(|signal| Signal::try_from(signal).ok()),
            complaint,
        )),
    }
}

/// What a signal says about the component, or about the machine.
fn ended_by(signal: Option<Signal>, complaint: String) -> ArtifactError {
    match signal {
        Some(Signal::SIGXCPU) => ArtifactError::CompileLimit {
            what: "processor time",
        },
        // What Rust does when an allocation fails.
        Some(Signal::SIGABRT) if complaint.contains("memory allocation") => {
            ArtifactError::CompileLimit { what: "memory" }
        }
        // Somebody else's doing, or a fault in the compiler.
        signal => {
            let signal = signal.map_or("a signal", Signal::as_str);
            let colon = if complaint.is_empty() { "" } else { ": " };
            ArtifactError::Compiler {
                reason: format!("it was ended by {signal}{colon}{complaint}"),
            }
        }
    }
}

/// The whole of a compiling child's `main`: stdin to stdout under limits of its own.
///
/// Call it first thing, before other threads exist: limits are per process, and memory already reserved counts.
pub fn compile_main(limits: CompileLimits) -> ExitCode {
    let cpu = limits.cpu_seconds;
    for (resource, soft, hard) in [
        (
            Resource::RLIMIT_AS,
            limits.memory_bytes,
            limits.memory_bytes,
        ),
        // The soft limit ends the process with a signal that says why; the hard one would not.
        (Resource::RLIMIT_CPU, cpu, cpu.saturating_add(1)),
        (Resource::RLIMIT_CORE, 0, 0),
        (Resource::RLIMIT_FSIZE, 0, 0),
    ] {
        if let Err(error) = setrlimit(resource, soft, hard) {
            eprintln!("limiting the compiling process: {error}");
            return ExitCode::FAILURE;
        }
    }
    let mut component = Vec::new();
    if let Err(error) = std::io::stdin().lock().read_to_end(&mut component) {
        eprintln!("reading the component from stdin: {error}");
        return ExitCode::FAILURE;
    }
    let engine = |calls| wasmtime::Engine::new(&compiler_config(calls));
    let (serial, concurrent) = match (engine(Calls::Serial), engine(Calls::Concurrent)) {
        (Ok(serial), Ok(concurrent)) => (serial, concurrent),
        (Err(error), _) | (_, Err(error)) => {
            eprintln!("starting the compiler: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    // Its threads are started, and look up what they want to know of the machine, while they still can.
    if let Err(error) = serial.precompile_component(SMALLEST) {
        eprintln!("starting the compiler: {error:#}");
        return ExitCode::FAILURE;
    }
    if let Err(error) = sandbox::seal() {
        eprintln!("sealing the compiling process: {error}");
        return ExitCode::FAILURE;
    }
    let Compiled { calls, code } = match compile(&serial, &concurrent, &component) {
        Ok(compiled) => compiled,
        Err(error) => {
            eprintln!("{}", sentence(&error));
            return ExitCode::from(EXIT_INVALID);
        }
    };
    let mut output = std::io::stdout().lock();
    let letter = LETTERS.iter().filter(|(_, known)| *known == calls);
    let head: Vec<u8> = letter.map(|(letter, _)| *letter).collect();
    let written = output
        .write_all(&head)
        .and_then(|()| output.write_all(&code))
        .and_then(|()| output.flush());
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("writing the code to stdout: {error}");
            ExitCode::FAILURE
        }
    }
}

/// `(component (core module (func)))`.
const SMALLEST: &[u8] = b"\0asm\x0d\0\x01\0\x01\x18\0asm\x01\0\0\0\x01\x04\x01\x60\0\0\x03\x02\x01\0\x0a\x04\x01\x02\0\x0b";

/// An error and its causes on one line of bounded length.
pub(crate) fn sentence(error: &wasmtime::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        let cause = cause.trim();
        // wasmtime repeats inner messages in outer ones here and there.
        if cause.is_empty() || text.contains(cause) {
            continue;
        }
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(cause);
    }
    one_line(&text)
}

/// The start of `text`, without line breaks and other control characters.
pub(crate) fn one_line(text: &str) -> String {
    let text = text.trim();
    let end = text.floor_char_boundary(SENTENCE_BYTES_MAX);
    let mut line: String = text[..end]
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if end < text.len() {
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_knows_wasi_0_2_only_is_compiled_for_plain_calls() {
        let run = r#"(core module $m (func (export "run") (result i32) (i32.const 0)))
            (core instance $i (instantiate $m))
            (func $run (result (result)) (canon lift (core func $i "run")))
            (instance $c (export "run" (func $run)))"#;
        let random = r#"(instance (export "get-random-u64" (func (result u64))))"#;
        let engine = |calls| wasmtime::Engine::new(&compiler_config(calls)).unwrap();
        let (serial, concurrent) = (engine(Calls::Serial), engine(Calls::Concurrent));
        for (what, text, expected) in [
            (
                "a command",
                format!(r#"{run} (export "wasi:cli/run@0.2.0" (instance $c))"#),
                Some(Calls::Serial),
            ),
            (
                "a command of 0.3",
                format!(r#"{run} (export "wasi:cli/run@0.3.0" (instance $c))"#),
                Some(Calls::Concurrent),
            ),
            (
                "one that imports 0.3",
                format!(
                    r#"(import "wasi:random/random@0.3.0" {random})
                    {run} (export "wasi:cli/run@0.2.0" (instance $c))"#
                ),
                Some(Calls::Concurrent),
            ),
            (
                "one that imports the same of 0.2",
                format!(
                    r#"(import "wasi:random/random@0.2.0" {random})
                    {run} (export "wasi:cli/run@0.2.0" (instance $c))"#
                ),
                Some(Calls::Serial),
            ),
            (
                "one that imports something async",
                format!(
                    r#"(import "acme:slow/work" (instance (export "work" (func async))))
                    {run} (export "wasi:cli/run@0.2.0" (instance $c))"#
                ),
                Some(Calls::Concurrent),
            ),
            (
                "a plug-in",
                format!(r#"{run} (export "acme:shop/price" (instance $c))"#),
                Some(Calls::Concurrent),
            ),
            (
                "none that is valid",
                r#"(export "x" (func 7))"#.into(),
                None,
            ),
        ] {
            let text = format!("(component {text})");
            let compiled = compile(&serial, &concurrent, &wat::parse_str(text).unwrap());
            assert_eq!(
                compiled.ok().map(|compiled| compiled.calls),
                expected,
                "{what}"
            );
        }
    }
}
