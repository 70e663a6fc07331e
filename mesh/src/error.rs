//! Why a call failed, by what the caller can do next.
//!
//! [`DeliverError`] comes from the callee's side and crosses nodes as a header, so that a call fails the same
//! way in memory and over the wire. [`TransportError`] is what the network between nodes did. [`CallError`] is
//! what the caller of the mesh gets; the agent maps it to the runtime's error codes, the gateway to a status.
//! [`Blame`] is who has to bear it: what a caller did wrong is held against nobody else.

use std::{error::Error as StdError, io, net::SocketAddr};

use http::StatusCode;

use crate::BoxError;

/// When a caller that was turned away for want of room may come again, in seconds (`Retry-After`). The least that can be said:
/// room is a matter of milliseconds, and a client that waits longer would leave it unused.
pub(crate) const RETRY_AFTER_SECONDS: u32 = 1;

/// Whose doing a failure was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// The request, or what its caller showed of itself: calls of others would not have failed. Nothing is held against the endpoint.
    Caller,
    /// The callee: it is chosen less often for a while.
    Endpoint,
    /// The way there: it is left alone for a while.
    Connection,
}

/// The callee's side did not produce a response.
#[derive(Debug, thiserror::Error)]
pub enum DeliverError {
    /// No such workload is attached here (any more). Never processed.
    #[error("the workload is not on this node")]
    NotHere,
    /// The workload takes no more calls right now. Never processed.
    #[error("the workload is at its limit of concurrent calls")]
    Overloaded,
    #[error("the deadline passed")]
    Deadline,
    #[error("the call is nested deeper than {} workloads", crate::DEPTH_MAX)]
    LoopDetected,
    #[error("the workload ran out of memory")]
    OutOfMemory,
    /// The workload trapped or ended before it answered.
    #[error("the workload failed: {message}")]
    Failed { message: String },
    /// The request breaks a limit of the mesh.
    #[error("the request was not accepted: {reason}")]
    Rejected { reason: String },
}

impl DeliverError {
    /// Whether the workload provably saw nothing of the call.
    #[must_use]
    pub fn never_processed(&self) -> bool {
        match self {
            DeliverError::NotHere | DeliverError::Overloaded => true,
            DeliverError::Deadline
            | DeliverError::LoopDetected
            | DeliverError::OutOfMemory
            | DeliverError::Failed { .. }
            | DeliverError::Rejected { .. } => false,
        }
    }

    /// Who has to bear it. Of a deadline the callee's own is meant; that of the caller is known to the caller.
    #[must_use]
    pub fn blame(&self) -> Blame {
        match self {
            // Whoever looks for it there will not find it.
            DeliverError::NotHere => Blame::Connection,
            DeliverError::Overloaded
            | DeliverError::Deadline
            | DeliverError::OutOfMemory
            | DeliverError::Failed { .. } => Blame::Endpoint,
            DeliverError::LoopDetected | DeliverError::Rejected { .. } => Blame::Caller,
        }
    }

    /// The word that stands for the variant on the wire.
    pub(crate) fn token(&self) -> &'static str {
        match self {
            DeliverError::NotHere => "not-here",
            DeliverError::Overloaded => "overloaded",
            DeliverError::Deadline => "deadline",
            DeliverError::LoopDetected => "loop",
            DeliverError::OutOfMemory => "out-of-memory",
            DeliverError::Failed { .. } => "failed",
            DeliverError::Rejected { .. } => "rejected",
        }
    }

    /// The variant that a peer's token and text stand for; an unknown word is a failure.
    pub(crate) fn from_wire(token: &str, text: String) -> Self {
        match token {
            "not-here" => DeliverError::NotHere,
            "overloaded" => DeliverError::Overloaded,
            "deadline" => DeliverError::Deadline,
            "loop" => DeliverError::LoopDetected,
            "out-of-memory" => DeliverError::OutOfMemory,
            "rejected" => DeliverError::Rejected { reason: text },
            _ => DeliverError::Failed { message: text },
        }
    }

    pub(crate) fn status(&self) -> StatusCode {
        match self {
            DeliverError::NotHere => StatusCode::MISDIRECTED_REQUEST,
            DeliverError::Overloaded => StatusCode::SERVICE_UNAVAILABLE,
            DeliverError::Deadline => StatusCode::GATEWAY_TIMEOUT,
            DeliverError::LoopDetected => StatusCode::LOOP_DETECTED,
            DeliverError::OutOfMemory | DeliverError::Failed { .. } => StatusCode::BAD_GATEWAY,
            DeliverError::Rejected { .. } => StatusCode::BAD_REQUEST,
        }
    }
}

/// The way to another node failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TransportError {
    #[error("this node holds no certificate for {identity}")]
    NoIdentity { identity: String },
    #[error("{identity} cannot be expressed as a TLS server name")]
    ServerName { identity: String },
    #[error("connecting to {address} took longer than the limit")]
    ConnectTimeout { address: SocketAddr },
    #[error("connecting to {address}")]
    Connect {
        address: SocketAddr,
        #[source]
        source: std::sync::Arc<std::io::Error>,
    },
    #[error("TLS with {address}")]
    Tls {
        address: SocketAddr,
        #[source]
        source: std::sync::Arc<std::io::Error>,
    },
    /// The connection went away before the request was written to it, or the peer said it did not look at it.
    #[error("the connection to {address} closed before the request was taken")]
    NotTaken { address: SocketAddr },
    /// More calls wait for that node than it would ever take at once.
    #[error("too many calls wait for {address}")]
    Crowded { address: SocketAddr },
    /// The peer's HTTP/2 refused the request as malformed.
    #[error("{address} does not take the request for one of HTTP/2")]
    Malformed {
        address: SocketAddr,
        #[source]
        source: std::sync::Arc<hyper::Error>,
    },
    /// The connection broke after the request may have been read.
    #[error("the connection to {address} broke before an answer came")]
    Broken {
        address: SocketAddr,
        #[source]
        source: std::sync::Arc<hyper::Error>,
    },
}

impl TransportError {
    /// Whether the peer provably did not process the request.
    #[must_use]
    pub fn never_left(&self) -> bool {
        !matches!(
            self,
            TransportError::Broken { .. } | TransportError::Malformed { .. }
        )
    }

    /// Who has to bear it.
    #[must_use]
    pub fn blame(&self) -> Blame {
        match self {
            TransportError::NoIdentity { .. }
            | TransportError::ServerName { .. }
            | TransportError::Malformed { .. } => Blame::Caller,
            TransportError::NotTaken { .. } | TransportError::Crowded { .. } => Blame::Endpoint,
            TransportError::ConnectTimeout { .. } | TransportError::Connect { .. } => {
                Blame::Connection
            }
            TransportError::Tls { source, .. } => blame_of_cause(&**source),
            TransportError::Broken { source, .. } => blame_of_cause(&**source),
        }
    }
}

/// What lies below a broken connection: a stream that one end reset says nothing of the other streams, and a peer that refuses this
/// caller's certificate with an alert serves others.
fn blame_of_cause(error: &(dyn StdError + 'static)) -> Blame {
    let mut cause = Some(error);
    while let Some(error) = cause {
        cause = error.source();
        if let Some(error) = error.downcast_ref::<h2::Error>() {
            if error.is_reset() {
                return Blame::Endpoint;
            }
            if error.get_io().is_some_and(is_alert) {
                return Blame::Caller;
            }
        }
        if error.downcast_ref::<io::Error>().is_some_and(is_alert) {
            return Blame::Caller;
        }
    }
    Blame::Connection
}

fn is_alert(error: &io::Error) -> bool {
    error
        .get_ref()
        .is_some_and(|inner| matches!(inner.downcast_ref(), Some(rustls::Error::AlertReceived(_))))
}

/// What a caller of the mesh gets instead of a response.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The destination is not part of the cluster, and nothing lets the caller leave it.
    #[error("{authority} is outside the cluster and no policy allows it")]
    Denied { authority: String },
    #[error("there is no service {service}")]
    UnknownService { service: String },
    #[error("service {service} has no port {port}; it has {served}")]
    UnknownPort {
        service: String,
        port: u16,
        /// Its ports, as text.
        served: String,
    },
    /// Routes exist for the destination and none of them matches.
    #[error("no route matches {what}")]
    NoRoute { what: String },
    #[error("route {route} sends this request to a backend that is not valid: {reason}")]
    InvalidBackend { route: String, reason: String },
    #[error("service {service} has no ready endpoint")]
    NoEndpoints { service: String },
    /// Every try failed before a workload saw the request.
    #[error("no endpoint of {service} could be reached in {attempts} attempts")]
    Unreachable {
        service: String,
        attempts: u32,
        #[source]
        source: BoxError,
    },
    /// The connection broke when the callee may have seen the request.
    #[error("the connection to {service} broke before it answered")]
    Interrupted {
        service: String,
        #[source]
        source: BoxError,
    },
    #[error("the call did not finish before its deadline")]
    Deadline,
    #[error("{service} takes no more calls at the moment")]
    Overloaded { service: String },
    #[error("the call is nested deeper than {} workloads", crate::DEPTH_MAX)]
    LoopDetected,
    /// The callee ended without answering.
    #[error("{service} failed before it answered: {message}")]
    Failed { service: String, message: String },
    #[error("the request is not acceptable: {reason}")]
    BadRequest { reason: String },
    #[error(
        "the request's head is larger than is passed on: {} KiB in {} lines with its URI",
        crate::headers::HEADER_BYTES_MAX >> 10,
        crate::headers::HEADERS_MAX
    )]
    HeadTooLarge,
}

impl CallError {
    /// The status a client of the gateway sees.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self {
            CallError::Denied { .. } => StatusCode::FORBIDDEN,
            CallError::UnknownService { .. }
            | CallError::UnknownPort { .. }
            | CallError::NoRoute { .. } => StatusCode::NOT_FOUND,
            CallError::InvalidBackend { .. } => StatusCode::INTERNAL_SERVER_ERROR,
            CallError::NoEndpoints { .. }
            | CallError::Unreachable { .. }
            | CallError::Overloaded { .. } => StatusCode::SERVICE_UNAVAILABLE,
            CallError::Interrupted { .. } | CallError::Failed { .. } => StatusCode::BAD_GATEWAY,
            CallError::Deadline => StatusCode::GATEWAY_TIMEOUT,
            CallError::LoopDetected => StatusCode::LOOP_DETECTED,
            CallError::BadRequest { .. } => StatusCode::BAD_REQUEST,
            CallError::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        }
    }

    /// What a client is told about when to come again.
    pub(crate) fn retry_after_seconds(&self) -> Option<u32> {
        matches!(self, CallError::Overloaded { .. }).then_some(RETRY_AFTER_SECONDS)
    }

    /// Envoy's response flag, for metrics.
    pub(crate) fn flag(&self) -> &'static str {
        match self {
            CallError::Denied { .. } => "UAEX",
            CallError::UnknownService { .. }
            | CallError::UnknownPort { .. }
            | CallError::NoRoute { .. }
            | CallError::InvalidBackend { .. } => "NR",
            CallError::NoEndpoints { .. } => "UH",
            CallError::Unreachable { .. } => "UF",
            CallError::Interrupted { .. } | CallError::Failed { .. } => "UC",
            CallError::Deadline => "UT",
            CallError::Overloaded { .. } => "UO",
            CallError::LoopDetected | CallError::BadRequest { .. } | CallError::HeadTooLarge => {
                "DPE"
            }
        }
    }

    /// Whether the Gateway API prescribes a response where this happened on a routed call.
    pub(crate) fn is_answer(&self) -> bool {
        matches!(
            self,
            CallError::NoRoute { .. } | CallError::InvalidBackend { .. }
        )
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn who_bears_what() {
        let address = ([127, 0, 0, 1], 1).into();
        let tls = |error: rustls::Error| TransportError::Tls {
            address,
            source: Arc::new(io::Error::new(io::ErrorKind::InvalidData, error)),
        };
        let table = [
            (
                "nobody listens",
                TransportError::Connect {
                    address,
                    source: Arc::new(io::ErrorKind::ConnectionRefused.into()),
                }
                .blame(),
                Blame::Connection,
            ),
            (
                "it does not say who it is",
                tls(rustls::Error::NoCertificatesPresented).blame(),
                Blame::Connection,
            ),
            (
                "it does not believe who we are",
                tls(rustls::Error::AlertReceived(
                    rustls::AlertDescription::CertificateExpired,
                ))
                .blame(),
                Blame::Caller,
            ),
            (
                "we have no certificate",
                TransportError::NoIdentity {
                    identity: String::new(),
                }
                .blame(),
                Blame::Caller,
            ),
            (
                "a pod that left",
                DeliverError::NotHere.blame(),
                Blame::Connection,
            ),
            (
                "a trap",
                DeliverError::Failed {
                    message: String::new(),
                }
                .blame(),
                Blame::Endpoint,
            ),
            ("a loop", DeliverError::LoopDetected.blame(), Blame::Caller),
            (
                "a head that is too large",
                DeliverError::Rejected {
                    reason: String::new(),
                }
                .blame(),
                Blame::Caller,
            ),
        ];
        for (what, found, expected) in table {
            assert_eq!(found, expected, "{what}");
        }
    }
}
