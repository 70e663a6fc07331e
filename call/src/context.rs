//! What is known about one call.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use http::HeaderValue;
use serde::{Deserialize, Serialize};

use crate::{
    Spent, TraceContext,
    trace::{state_of_text, state_to_text},
};

/// What the host knows about one call: an extension of each request that a workload receives, and of each that it sends while it
/// works on the call. There it is the context of the call being served.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CallContext {
    /// Who calls; none when nobody was identified.
    pub peer: Option<Arc<Peer>>,
    /// It came through a gateway: whoever called is outside of the cluster, and nobody identified them.
    pub outside: bool,
    /// The whole call, retries included, is over by then. Whoever passes it on may bring it forward, never push it back.
    pub deadline: Option<Instant>,
    pub trace: Option<TraceContext>,
    /// How many workloads are above this one in the call tree; what judges it is the way out, not the workload.
    pub depth: u32,
    /// 0 for the first try of a call, counted up by retries. (The guest's interface counts from 1.)
    pub attempt: u32,
    /// At which of its ports the workload is called; none where that is not known.
    pub port: Option<u16>,
    /// How much it matters that it is answered. Whoever passes the call on may lower it, never raise it.
    pub priority: Priority,
    /// It, or a call that it is part of, is a further try of another: what is made for it is not tried again itself, or each level of the
    /// tree would multiply the tries of the one above.
    pub repeated: bool,
    /// What is told of the call beside its answer; none where nobody asks.
    pub spent: Option<Spent>,
    /// What applications say of the call to all that come of it, as its request had it.
    pub baggage: Option<HeaderValue>,
}

/// How much it matters that a call is answered, where not all can be: what is less urgent is turned away first.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Priority {
    Critical,
    #[default]
    Usual,
    Low,
    /// Nobody minds.
    Sheddable,
}

impl Priority {
    /// The first is what is answered first.
    pub const ALL: [Self; 4] = [Self::Critical, Self::Usual, Self::Low, Self::Sheddable];

    /// Its word between nodes.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::Usual => "usual",
            Self::Low => "low",
            Self::Sheddable => "sheddable",
        }
    }

    /// The one of this urgency (RFC 9218): 0 is the most urgent, 7 the least, 3 what is usual.
    #[must_use]
    pub const fn of_urgency(urgency: u8) -> Self {
        match urgency {
            0 | 1 => Self::Critical,
            2 | 3 => Self::Usual,
            4 | 5 => Self::Low,
            _ => Self::Sheddable,
        }
    }

    /// The less urgent of both.
    #[must_use]
    pub fn lowered_to(self, other: Self) -> Self {
        self.max(other)
    }
}

/// Who calls, as the host knows it (same node) or as a verified certificate says (another node).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`.
    pub spiffe_id: Arc<str>,
    pub namespace: Arc<str>,
    pub service_account: Arc<str>,
    /// Name of the calling workload (its Deployment, Job, …); descriptive, vouched for by its node.
    pub workload: Arc<str>,
    pub transport: Transport,
}

/// How a call reached the callee.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Transport {
    /// Handed over in the memory of the same node.
    InProcess,
    /// From another node, over mutual TLS.
    MutualTls,
}

impl Transport {
    /// The word in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Transport::InProcess => "in-process",
            Transport::MutualTls => "mtls",
        }
    }
}

/// A [`CallContext`] on its way between processes, which share no clock that can be named: of the deadline, it has what is left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrozenContext {
    peer: Option<Arc<Peer>>,
    #[serde(default)]
    outside: bool,
    left_nanos: Option<u64>,
    trace: Option<TraceContext>,
    depth: u32,
    attempt: u32,
    port: Option<u16>,
    #[serde(default)]
    priority: Priority,
    #[serde(default)]
    repeated: bool,
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        serialize_with = "state_to_text",
        deserialize_with = "state_of_text"
    )]
    baggage: Option<HeaderValue>,
}

impl CallContext {
    /// What is passed on at `now`; what the way takes is lost.
    #[must_use]
    pub fn freeze(self, now: Instant) -> FrozenContext {
        let left = |deadline: Instant| {
            let left = deadline.saturating_duration_since(now).as_nanos();
            u64::try_from(left).unwrap_or(u64::MAX)
        };
        FrozenContext {
            left_nanos: self.deadline.map(left),
            peer: self.peer,
            outside: self.outside,
            trace: self.trace,
            depth: self.depth,
            attempt: self.attempt,
            port: self.port,
            priority: self.priority,
            repeated: self.repeated,
            baggage: self.baggage,
        }
    }
}

impl FrozenContext {
    /// What arrived at `now`. A deadline that no clock reaches is none.
    #[must_use]
    pub fn thaw(self, now: Instant) -> CallContext {
        CallContext {
            deadline: self
                .left_nanos
                .and_then(|nanos| now.checked_add(Duration::from_nanos(nanos))),
            peer: self.peer,
            outside: self.outside,
            trace: self.trace,
            depth: self.depth,
            attempt: self.attempt,
            port: self.port,
            priority: self.priority,
            repeated: self.repeated,
            // Of another process, where nobody asks.
            spent: None,
            baggage: self.baggage,
        }
    }
}
