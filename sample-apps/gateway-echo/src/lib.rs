//! Servers that say what they were asked: what the Gateway API's conformance suite runs behind its gateways and in its meshes.
//!
//! They answer in the format that the suite reads. One speaks HTTP/1.1, HTTP/2 and WebSocket, over TLS too; gRPC, TCP or UDP instead of it
//! where the environment says so, and DNS. The other is a mesh's: a server, and a client that prints what it was answered.
//!
//! ```text
//! http.rs   what is echoed            grpc.rs      the same as messages      tls.rs   what was agreed with a client
//! serve.rs  connections of a port     websocket.rs frames of an upgrade      lines.rs TCP, datagrams.rs UDP, names.rs DNS
//! mesh.rs   text instead of JSON      client.rs    calls by wasi:http
//! ```
//!
//! Invariants: one thread; a connection that fails is nobody else's; what is remembered between requests is bounded.

mod client;
mod datagrams;
mod grpc;
mod http;
mod lines;
mod mesh;
mod names;
mod serve;
mod tls;
mod websocket;

use std::future::Future;
use std::process::ExitCode;

pub use client::client;
pub use mesh::mesh;

/// Why a program ends, in one sentence.
pub type Ended = Result<(), String>;

/// Where the server runs, as the environment has it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) namespace: String,
    pub(crate) ingress: String,
    pub(crate) service: String,
    pub(crate) pod: String,
}

impl Place {
    fn read() -> Self {
        Self {
            namespace: variable("NAMESPACE"),
            ingress: variable("INGRESS_NAME"),
            service: variable("SERVICE_NAME"),
            pod: variable("POD_NAME"),
        }
    }
}

/// Empty where it is not set.
pub(crate) fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_default()
}

/// A port of the environment.
pub(crate) fn port(name: &str, usual: u16) -> Result<u16, String> {
    match variable(name).as_str() {
        "" => Ok(usual),
        text => text
            .parse()
            .map_err(|_| format!("{name} is no port: {text:?}")),
    }
}

/// Runs what `basic` is here: by the environment, a server of HTTP, gRPC, TCP or UDP; of DNS where it is told of a configuration, as a server
/// of that is.
///
/// # Errors
/// When a port is taken or a file cannot be read.
pub fn basic() -> Ended {
    let place = Place::read();
    let is = |name: &str| !variable(name).is_empty();
    let is_dns = std::env::args().any(|argument| argument == "-conf");
    run(async move {
        if is_dns {
            names::run().await
        } else if is("GRPC_ECHO_SERVER") {
            grpc::run(place).await
        } else if is("TCP_ECHO_SERVER") {
            lines::run(place).await
        } else if is("UDP_ECHO_SERVER") {
            datagrams::run(place).await
        } else {
            http::run(place).await
        }
    })
}

pub(crate) fn run(work: impl Future<Output = Ended>) -> Ended {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    tokio::task::LocalSet::new().block_on(&runtime, work)
}

/// The program's end.
pub fn end(ended: Ended) -> ExitCode {
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}
