//! Turning a component into machine code, in this process or in a short-lived child.
//!
//! A child reads the component on stdin and writes the result to stdout; what it refuses it explains in one sentence on
//! stderr, with exit code 2. It limits its own memory and CPU before it reads a byte, and is killed when it takes too
//! long. It inherits no environment.
//!
//! Left to others: whether to trust the result. The child is our own program; [`crate::artifact`] authenticates what
//! was stored.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use bytes::Bytes;
use nix::sys::resource::{Resource, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::artifact::ArtifactError;
use crate::engine::compiler_config;

/// A program that calls [`compile_main`], usually the embedder's own: `weft compile`.
#[derive(Clone, Debug)]
pub struct CompilerCommand {
    pub program: PathBuf,
    pub args: Vec<String>,
}

/// Address space of a compiling child. A known pathological function takes 6.5 GB; honest components stay under one.
const CHILD_MEMORY_BYTES: u64 = 4 << 30;
/// CPU of a compiling child, over all of its threads.
const CHILD_CPU_SECONDS: u64 = 120;
/// Wall-clock time of a compiling child, however busy the machine is.
const CHILD_TIMEOUT: Duration = Duration::from_secs(240);
/// Machine code is a few times the size of its component; more than this is not worth reading.
const CODE_BYTES_MAX: u64 = 1 << 30;
/// One sentence, generously.
const REASON_BYTES_MAX: u64 = 8 << 10;
/// The child's exit code for "this component is not valid".
const EXIT_INVALID: u8 = 2;

/// Where compilation happens.
#[derive(Clone, Debug)]
pub(crate) enum Compiler {
    InProcess,
    Child(CompilerCommand),
}

impl Compiler {
    pub(crate) async fn compile(
        &self,
        engine: &wasmtime::Engine,
        component: Bytes,
    ) -> Result<Vec<u8>, ArtifactError> {
        match self {
            Compiler::InProcess => {
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
            Compiler::Child(command) => {
                match tokio::time::timeout(CHILD_TIMEOUT, in_child(command, component)).await {
                    Ok(result) => result,
                    Err(_) => Err(ArtifactError::CompileLimit {
                        seconds: CHILD_TIMEOUT.as_secs(),
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
    let mut reason = Vec::new();
    let mut output = output.take(CODE_BYTES_MAX);
    let mut errors = errors.take(REASON_BYTES_MAX);
    let (_, read, told) = tokio::join!(
        async move {
            // A child that dies early closes the pipe; its exit status says why.
            let _ = input.write_all(&component).await;
            drop(input);
        },
        output.read_to_end(&mut code),
        errors.read_to_end(&mut reason),
    );
    read.map_err(|error| failed("reading from", error))?;
    told.map_err(|error| failed("reading from", error))?;
    let status = child
        .wait()
        .await
        .map_err(|error| failed("waiting for", error))?;
    let reason = String::from_utf8_lossy(&reason).trim().to_owned();
    match status.code() {
        Some(0) => Ok(code),
        Some(exit) if exit == i32::from(EXIT_INVALID) => Err(ArtifactError::Invalid { reason }),
        // Killed by a signal (out of CPU time), or aborted because an allocation failed.
        None => Err(ArtifactError::CompileLimit {
            seconds: CHILD_CPU_SECONDS,
        }),
        Some(exit) => Err(ArtifactError::Compiler {
            reason: format!("it exited with code {exit}: {reason}"),
        }),
    }
}

/// The whole of a compiling child's `main`: stdin to stdout under limits of its own.
///
/// Call it first thing, before other threads exist: limits are per process, and memory already reserved counts.
pub fn compile_main() -> ExitCode {
    for (resource, limit) in [
        (Resource::RLIMIT_AS, CHILD_MEMORY_BYTES),
        (Resource::RLIMIT_CPU, CHILD_CPU_SECONDS),
        (Resource::RLIMIT_CORE, 0),
        (Resource::RLIMIT_FSIZE, 0),
    ] {
        if let Err(error) = setrlimit(resource, limit, limit) {
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

/// An error and its causes on one line.
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
        text.extend(cause.chars().map(|c| if c.is_control() { ' ' } else { c }));
    }
    text
}
