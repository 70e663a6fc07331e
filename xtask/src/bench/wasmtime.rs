//! `wasmtime serve`, the peer that benches compare with, when it is on PATH.

use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::load::{Case, Server, Target};
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

/// `wasmtime serve` of the sample component `guest`, a new one for each round.
pub fn case(
    name: &'static str,
    guest: &'static str,
    arguments: Vec<&'static str>,
) -> Case<'static> {
    Case {
        name,
        peers: Vec::new(),
        serve: Box::new(move || {
            let (server, port) = start(guest, &arguments)?;
            let address = format!("127.0.0.1:{port}");
            Ok(Target {
                url: format!("http://{address}/"),
                connect: address,
                process: server.id(),
                server: Some(server),
            })
        }),
    }
}

fn start(guest: &str, arguments: &[&str]) -> Result<(Server, u16)> {
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
    let mut server = Server::new(process);
    let started = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        if started.elapsed() > PATIENCE || server.has_ended() {
            bail!("wasmtime serve {} does not listen", arguments.join(" "));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok((server, port))
}
