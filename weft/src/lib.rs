//! weft as a program: its commands, and the wiring of a server and of a node.
//!
//! - [`server`] wires store, API server and control loop into one process.
//! - [`node`] wires runtime, mesh and agent into another; `weft up` starts it as a child.
//! - [`control_loop`] is the one driver of controllers and scheduler.
//! - [`session`] is the client's end of what runs in a container, and [`terminal`] where somebody looks at it.
//! - [`commands`] holds a file for each command: its arguments, its work, its output.
//!
//! Guest code, raft and HTTP never share a tokio runtime: a server has one for raft and one for HTTP, a
//! node has one for control work and one a core for guests.

pub mod balancer;
pub mod cli;
pub mod commands;
pub mod control_loop;
pub mod data_dir;
pub mod exit;
pub mod kubeconfig;
pub mod node;
pub mod server;
pub mod session;
pub mod shutdown;
pub mod stdout;
pub mod telemetry;
pub mod terminal;
