//! Running a command in a container's context, and looking over the shoulder of the one that runs.
//!
//! ```text
//! /exec    ─► Node::exec ────► a component of its own instance, in the container's root and environment, on its limits
//! /attach  ─► Node::attach ──► the running container's own stdio, shared by all who look
//! ```
//!
//! Invariants: a session ends with the future that carries it; what a client does not read waits in bounded channels and holds up
//! its own session only; input that has ended is told to the guest as the end of its input.
//!
//! Left to others: the wire (`http`), which component a command is (`toolbox`), what a container's context is (`context`).

use crate::node::Node;
use bytes::Bytes;
use std::sync::Arc;
use tokio::sync::mpsc;
use weft_api::StatusError;

/// Chunks that wait on one of a session's channels; each is at most [`CHUNK_BYTES_MAX`].
pub(crate) const CHUNKS_MAX: usize = 16;
/// The longest chunk that goes over a channel.
pub(crate) const CHUNK_BYTES_MAX: usize = 32 << 10;

/// The ends of a session that are the client's.
pub(crate) struct Streams {
    /// What the client types; closed is the end of the input.
    pub stdin: Option<mpsc::Receiver<Bytes>>,
    pub stdout: Option<mpsc::Sender<Bytes>>,
    pub stderr: Option<mpsc::Sender<Bytes>>,
    pub resize: Option<mpsc::Receiver<TerminalSize>>,
    /// One terminal instead of two streams: what the guest writes to stderr goes to `stdout`.
    pub tty: bool,
}

/// How large the client's terminal is, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TerminalSize {
    pub width: u16,
    pub height: u16,
}

/// How a session ended.
#[derive(Debug)]
pub(crate) enum SessionEnd {
    /// The command's exit code; 0 for an attachment that came to its end.
    Exited(i32),
    /// Nothing was started.
    Refused(StatusError),
    /// What was started did not come to an end of its own; a sentence.
    Broken(String),
}

/// The container that a session is in.
#[derive(Clone, Debug)]
pub(crate) struct ContainerRef {
    pub namespace: String,
    pub pod: String,
    pub uid: String,
    pub container: String,
}

impl Node {
    /// Runs `command` in the container, to its end.
    pub(crate) async fn exec(
        self: &Arc<Self>,
        target: &ContainerRef,
        command: Vec<String>,
        streams: Streams,
    ) -> SessionEnd {
        let _ = (command, streams);
        SessionEnd::Broken(format!("{} runs no commands yet", target.container))
    }

    /// Connects the client with the container's own stdio, until either ends.
    pub(crate) async fn attach(
        self: &Arc<Self>,
        target: &ContainerRef,
        streams: Streams,
    ) -> SessionEnd {
        let _ = streams;
        SessionEnd::Broken(format!("{} cannot be attached to yet", target.container))
    }
}
