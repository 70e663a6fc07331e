//! How servers reach each other: the seam between consensus and whatever carries its bytes.
//!
//! [`Network`] takes one request to a peer and brings one answer back. What the bytes mean is the store's business
//! (`message.rs`); they name cluster, sender, receiver and version, so a network only has to deliver. Implementations:
//! HTTP/2 over mutual TLS (`transport.rs`), and a simulated one in the tests.

use bytes::Bytes;
use futures::future::BoxFuture;

use crate::key::ServerId;

/// Where a request goes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Peer {
    /// The server that must answer.
    pub server: ServerId,
    /// Where it listens, as it was added to the cluster.
    pub address: String,
}

/// Which stream of traffic a request belongs to. A network keeps them apart, so that none waits behind a larger one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// Votes, heartbeats and reads: small, and late is as bad as lost.
    Control,
    /// Log entries and forwarded writes: up to a few MiB.
    Log,
    /// Snapshots: many MiB.
    Bulk,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// The request was certainly not delivered.
    #[error("the server cannot be reached: {0}")]
    Unreachable(String),
    /// The request may have been delivered.
    #[error("the connection broke: {0}")]
    Broken(String),
}

/// Carries requests to peers and their answers back.
pub trait Network: Send + Sync + 'static {
    /// Sends `request` to `peer` and waits for the answer. Dropping the future gives up on the answer; deadlines are the
    /// caller's.
    fn call(
        &self,
        peer: Peer,
        lane: Lane,
        request: Bytes,
    ) -> BoxFuture<'static, Result<Bytes, NetworkError>>;
}

/// No network: every peer is unreachable. For a cluster of one.
#[derive(Debug, Clone, Copy)]
pub struct Alone;

impl Network for Alone {
    fn call(
        &self,
        peer: Peer,
        _lane: Lane,
        _request: Bytes,
    ) -> BoxFuture<'static, Result<Bytes, NetworkError>> {
        let reason = format!(
            "this server was opened without a way to server {}",
            peer.server
        );
        Box::pin(std::future::ready(Err(NetworkError::Unreachable(reason))))
    }
}
