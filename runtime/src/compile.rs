//! Turning a component into machine code, in this process or in a short-lived child.
//!
//! A child reads the component on stdin and writes the result to stdout; what it refuses it explains in one sentence on
//! stderr, with exit code 2. It limits its own memory and CPU before it reads a byte, and is killed when it takes too
//! long. It inherits no environment. At most [`COMPILATIONS_MAX`] compilations run at once, whoever asks.
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

use crate::artifact::ArtifactError;
use crate::engine::compiler_config;

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
        engine: &wasmtime::Engine,
        component: Bytes,
    ) -> Result<Vec<u8>, ArtifactError> {
        // The semaphore is never closed.
        let _slot = self.slots.acquire().await;
        match &self.place {
            Place::InProcess => {
                let engine = engine.clone();
                let compiled = tokio::task::spawn_blocking(move || {
                    engine.precompile_component(&component).map_err(|error| {
                        ArtifactError::Invalid {
                            reason: sentence(&error),
                        }
                    })
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

async fn in_child(command: &CompilerCommand, component: Bytes) -> Result<Vec<u8>, ArtifactError> {
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
    let mut code = Vec::new();
    let mut complaint = Vec::new();
    let (_, read, told) = tokio::join!(
        async move {
            // A child that dies early closes the pipe; its exit status says why.
            let _ = input.write_all(&component).await;
            drop(input);
        },
        // Whoever writes more than this loses its pipe, and ends.
        async { output.take(CODE_BYTES_MAX).read_to_end(&mut code).await },
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
        (Some(0), _) => Ok(code),
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
    let engine = match wasmtime::Engine::new(&compiler_config()) {
        Ok(engine) => engine,
        Err(error) => {
            eprintln!("starting the compiler: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    let code = match engine.precompile_component(&component) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{}", sentence(&error));
            return ExitCode::from(EXIT_INVALID);
        }
    };
    let mut output = std::io::stdout().lock();
    match output.write_all(&code).and_then(|()| output.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("writing the code to stdout: {error}");
            ExitCode::FAILURE
        }
    }
}

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
