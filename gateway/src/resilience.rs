//! What MeshPolicies and FaultInjections ask of the data plane for the calls to one Service, as values. Pure.
//!
//! What nobody asks for is `None` or empty, and costs a call nothing. Left to others: doing it (`weft_mesh`), and which policy holds
//! (`mesh_policies.rs`).

use std::time::Duration;

use http::{HeaderName, HeaderValue, StatusCode};

use crate::rule::Retry;

/// How calls to a Service are made, and taken.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resilience {
    /// Where a route's rule says nothing of it.
    pub retry: Option<Retry>,
    /// The whole call, where a rule says nothing of it.
    pub request_timeout: Option<Duration>,
    /// One try, where a rule says nothing of it.
    pub attempt_timeout: Option<Duration>,
    pub budget: RetryBudget,
    pub breaker: Option<Breaker>,
    /// A call that may be made twice and has no body is made a second time, elsewhere, if it is not answered after so long.
    pub hedge_after: Option<Duration>,
    pub concurrency: Option<Concurrency>,
    /// All of them hold.
    pub rate_limits: Vec<RateLimit>,
    /// In the order of their names.
    pub faults: Vec<Fault>,
}

impl Resilience {
    /// Whether the node that has the endpoints has anything to do.
    #[must_use]
    pub fn guards(&self) -> bool {
        self.concurrency.is_some() || !self.rate_limits.is_empty()
    }
}

/// How many tries beyond the first the callers of one node may make, of what may have been processed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryBudget {
    /// Of the calls of the interval.
    pub percent: u32,
    pub interval: Duration,
    /// As many there may be, however few calls there are.
    pub min_per_second: u32,
}

impl Default for RetryBudget {
    /// The Gateway API's (GEP-3388), which are Finagle's and Linkerd's.
    fn default() -> Self {
        Self {
            percent: 20,
            interval: Duration::from_secs(10),
            min_per_second: 10,
        }
    }
}

/// When an endpoint is left alone for what it answers (5xx, or failures of gRPC that are not the caller's).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Breaker {
    pub consecutive_failures: u32,
    /// Below this share of answers that are none of failure; 0: whatever it is.
    pub success_percent: u32,
    /// That share is looked at of no fewer answers.
    pub min_requests: u32,
    /// And of those of an interval as long as this.
    pub interval: Duration,
    /// For how long first; twice as long each time that the call which tries it fails, too.
    pub ejection: Duration,
    pub ejection_max: Duration,
    /// Of the endpoints of a port; one always may be, the last never is.
    pub ejected_percent_max: u32,
}

impl Default for Breaker {
    /// Linkerd's seven in a row, and Envoy's tenth of the endpoints.
    fn default() -> Self {
        Self {
            consecutive_failures: 7,
            success_percent: 80,
            min_requests: 5,
            interval: Duration::from_secs(10),
            ejection: Duration::from_secs(1),
            ejection_max: Duration::from_secs(60),
            ejected_percent_max: 10,
        }
    }
}

/// How many calls are with an endpoint at once: as many as it answers in the time that it takes when little is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Concurrency {
    pub min: u32,
    pub max: u32,
    /// Calls that wait for their turn.
    pub queue_max: u32,
    /// Whose calls are turned away last.
    pub critical: Vec<Account>,
}

impl Default for Concurrency {
    fn default() -> Self {
        Self {
            min: 20,
            max: 1000,
            queue_max: 100,
            critical: Vec::new(),
        }
    }
}

/// A ServiceAccount.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Account {
    pub namespace: String,
    pub name: String,
}

/// How many calls each caller may make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit {
    pub by: LimitedBy,
    pub requests: u32,
    pub per: Duration,
    /// How many of them at once.
    pub burst: u32,
    pub across: Across,
}

/// Over which endpoints of its Service a limit is counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Across {
    /// Those of a node.
    #[default]
    Node,
    /// All of them: nodes tell each other what they let in.
    Cluster,
}

/// Who shares a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitedBy {
    ServiceAccount,
    Namespace,
    Everyone,
}

/// What is done wrong on purpose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// `namespace/name` of who asks for it.
    pub name: String,
    /// Seconds since the epoch; from then on nothing is done.
    pub until: i64,
    /// For whose calls; everybody's where there is none.
    pub callers: Vec<Account>,
    /// For calls with just these lines, all of them; whatever lines they have where there is none.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// How long, and for how many of a hundred calls.
    pub delay: Option<(Duration, u32)>,
    /// With what, and how many of a hundred calls.
    pub abort: Option<(StatusCode, u32)>,
}
