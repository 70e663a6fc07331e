//! Guests in a process of their own: one trust domain, one process, locked down before it sees a guest.
//!
//! ```text
//! this process                                          the worker, a child of it
//!   Worker::start ── stdin: control socket ───────────►  worker_main: close, limit, build engine, seal ── Ready
//!   Worker::build ── control: compiled code, as a file ►  adopt
//!                 ── lane: settings ───────────────────►  Workload::builder   ◄── what the guest prints
//!   RemoteWorkload::call ── lane: the request itself ──►  Workload::call
//!   RemoteWorkload::session ── lane: stdin, stdout ────►  Workload::session
//!   Outbound      ◄── lane: the guest's own requests ──   host::http
//!   Capability::serve ◄── lane: channels ──────────────   what Capability::unpack has made
//! ```
//!
//! A channel is a stream of a lane: a message one way, an answer the other, each in as many parts as it likes. It names the capability
//! and the method; HTTP is the one that is not named.
//!
//! A lane is a pair of HTTP/2 connections over inherited sockets, one for each direction, between core `i` here and core
//! `i` there; a call stays on its two cores. A request is passed as it is, with the workload and the [`CallContext`] in
//! headers that guests never see; bodies stream with the protocol's own flow control; dropping a call resets its stream,
//! which drops the call there. A workload lives there as long as the stream that carries its output.
//!
//! Invariants: the worker gets no path, key or address, only sockets and code that this process has verified; what it
//! sends is at most a claim about its own guests; when it ends, each call in flight fails ([`Lost`]), and
//! nobody else notices.
//!
//! Left to others: which workloads share a worker, and when to start the next one after one was lost.
//!
//! [`CallContext`]: crate::CallContext
//! [`Lost`]: crate::FailureKind::Lost

mod client;
mod control;
mod output;
pub(crate) mod sandbox;
mod server;
mod session;
mod way;
mod wire;

pub use client::{Ended, RemoteWorkload, WeakWorker, Worker, WorkerCommand, WorkerError};
pub use sandbox::self_test;
pub use server::worker_main;
