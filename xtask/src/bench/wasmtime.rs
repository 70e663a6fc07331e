//! `wasmtime serve`, the peer that benches compare with, when it is on PATH.

use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::{guests, progress};

/// What makes it comparable to weft's own settings: pooling, pages kept, dirty pages found by the kernel.
pub const TUNED: [&str; 8] = [
    "-O",
    "pooling-allocator=y",
    "-O",
    "pooling-memory-keep-resident=1048576",
    "-O",
    "pooling-table-keep-resident=65536",
    "-O",
    "pooling-pagemap-scan=y",
];
/// Instances reused, on top of [`TUNED`].
pub const REUSED: [&str; 2] = ["--max-instance-reuse-count", "1000000"];
/// How long it may take to listen: it compiles first.
const PATIENCE: Duration = Duration::from_secs(30);

/// What `wasmtime --version` says; none when there is none.
pub fn version() -> Option<String> {
    let text = progress::read(Command::new("wasmtime").arg("--version")).ok()?;
    Some(text.trim().to_owned())
}

/// One server, ended when dropped.
pub struct Wasmtime {
    process: Child,
    port: u16,
}

impl Wasmtime {
    /// Serves the sample component `guest`.
    pub fn start(guest: &str, arguments: &[&str]) -> Result<Self> {
        // Free now; nobody else on this machine is after it in the next milliseconds.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let process = Command::new("wasmtime")
            // The components read their environment, as Rust's standard library does at start.
            .args(["serve", "-S", "cli"])
            .args(arguments)
            .args(["--addr", &format!("127.0.0.1:{port}")])
            .arg(guests::path(guest))
            // Captured stacks would cost it a third of its requests.
            .env("RUST_BACKTRACE", "0")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start wasmtime serve")?;
        let mut serve = Self { process, port };
        let started = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if started.elapsed() > PATIENCE || !matches!(serve.process.try_wait(), Ok(None)) {
                bail!("wasmtime serve {} does not listen", arguments.join(" "));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(serve)
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub fn process(&self) -> u32 {
        self.process.id()
    }
}

impl Drop for Wasmtime {
    fn drop(&mut self) {
        // Either fails only when it has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
