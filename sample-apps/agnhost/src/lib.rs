//! The servers and clients that Kubernetes' own tests run in pods, under the names that they call them by.
//!
//! A program with many subcommands, in the manner of upstream's `agnhost`: what the tests read is said to the letter, everything else is this
//! crate's own. It runs as a component by `wasi:sockets`, and natively, which is how it is tested.
//!
//! ```text
//! main ──► command::run ──► one file a subcommand ──► server, client, tcp, tls, flags, log, machine
//! ```
//!
//! Invariants: one thread, and no process is started; a body is read to a bound; without a subcommand it is `pause`, as the image is.

mod applets;
pub mod client;
pub mod command;
mod connect;
mod converter;
mod discovery;
mod flags;
mod git_server;
mod grpc_health;
mod guestbook;
mod in_cluster;
mod json;
mod liveness;
mod log;
mod logs_generator;
mod machine;
mod mount_test;
mod mtls;
mod net_exec;
mod net_test;
mod pause;
mod porter;
mod resolver;
mod serve_hostname;
mod server;
pub mod tcp;
pub mod tls;
mod web_server;
mod webhook;

/// A command's verdict: its exit code.
pub type Code = i32;
