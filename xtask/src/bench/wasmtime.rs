//! `wasmtime serve`, the peer that benches compare with.

use std::net::TcpListener;
use std::process::Stdio;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::load::{Case, Server, Target};
use super::peers::{self, Program};
use crate::{guests, progress};

/// What makes it comparable to weft's own settings: pooling, pages kept, those of stacks too, dirty pages found by the kernel.
pub const TUNED: [&str; 10] = [
    "-O",
    "pooling-allocator=y",
    "-O",
    "pooling-memory-keep-resident=1048576",
    "-O",
    "pooling-table-keep-resident=65536",
    "-O",
    "pooling-pagemap-scan=y",
    "-O",
    "pooling-async-stack-keep-resident=262144",
];
/// Instances reused, on top of [`TUNED`].
pub const REUSED: [&str; 2] = ["--max-instance-reuse-count", "1000000"];
/// A new instance for each request, which those of WASI 0.3 are not by default.
pub const FRESH: [&str; 2] = ["--max-instance-reuse-count", "1"];
/// How long it may take to listen: it compiles first.
const PATIENCE: Duration = Duration::from_secs(30);

/// The program, and what it says to `--version`; none when there is none and none could be made.
pub fn found() -> Option<&'static (Program, String)> {
    static FOUND: OnceLock<Option<(Program, String)>> = OnceLock::new();
    let find = || {
        let program = peers::wasmtime()?;
        let text = progress::read(program.command().arg("--version")).ok()?;
        Some((program, text.trim().to_owned()))
    };
    FOUND.get_or_init(find).as_ref()
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
                host: None,
                server: Some(server),
            })
        }),
    }
}

fn start(guest: &str, arguments: &[&str]) -> Result<(Server, u16)> {
    // Free now; nobody else on this machine is after it in the next milliseconds.
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let (program, _) = found().context("there is no wasmtime")?;
    let process = program
        .command()
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
    if !server.listens(port, PATIENCE) {
        bail!("wasmtime serve {} does not listen", arguments.join(" "));
    }
    Ok((server, port))
}
