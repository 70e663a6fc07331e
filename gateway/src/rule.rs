//! What a rule of a route asks of the data plane, as values: conditions, filters, backends by name and weight, times. Pure.
//!
//! Invariants: what cannot be done is said where it would be done ([`Filter::Invalid`], [`BackendTarget::Invalid`]), so that it
//! is answered with 500 and its reason, and never skipped. Backends are names: a rule outlives any state of the cluster.
//! Left to others: matching and filtering (`weft_mesh`), and which rule a request meets first.

use std::time::Duration;

use http::{HeaderName, HeaderValue, Method, StatusCode};

/// One rule of an HTTPRoute.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rule {
    /// `namespace/name` of the route.
    pub route: String,
    /// Any of these; none at all matches every request.
    pub matches: Vec<Match>,
    /// In the order of the manifest.
    pub filters: Vec<Filter>,
    pub backends: Vec<Backend>,
    /// `timeouts.request`: the whole call, retries included.
    pub request_timeout: Option<Duration>,
    /// `timeouts.backendRequest`: one try.
    pub backend_timeout: Option<Duration>,
}

/// All of the conditions that are given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Match {
    pub path: PathMatch,
    pub method: Option<Method>,
    /// Name and value; equal is what matches.
    pub headers: Vec<(HeaderName, String)>,
    pub query: Vec<(String, String)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathMatch {
    Exact(String),
    /// By elements: `/abc` matches `/abc` and `/abc/d`, not `/abcd`. A slash at its end means nothing.
    Prefix(String),
}

impl Default for PathMatch {
    /// Every path.
    fn default() -> Self {
        PathMatch::Prefix(String::new())
    }
}

/// One `backendRef`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backend {
    /// Share of the requests in proportion to the sum; 0 is none.
    pub weight: u32,
    pub target: BackendTarget,
    pub filters: Vec<Filter>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BackendTarget {
    /// Whether there is such a service with such a port is seen when it is called.
    Service {
        namespace: String,
        name: String,
        port: u16,
    },
    /// Its share of the requests is answered with 500 and this reason.
    Invalid { reason: String },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Filter {
    RequestHeaders(HeaderChange),
    ResponseHeaders(HeaderChange),
    Redirect(Redirect),
    Rewrite(Rewrite),
    /// A filter that is not known: the rule answers 500 with this reason.
    Invalid {
        reason: String,
    },
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeaderChange {
    pub set: Vec<(HeaderName, HeaderValue)>,
    pub add: Vec<(HeaderName, HeaderValue)>,
    pub remove: Vec<HeaderName>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Redirect {
    pub scheme: Option<String>,
    pub hostname: Option<String>,
    pub port: Option<u16>,
    pub path: Option<PathChange>,
    /// 302 when not given.
    pub status: Option<StatusCode>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rewrite {
    pub hostname: Option<String>,
    pub path: Option<PathChange>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathChange {
    Full(String),
    /// Replaces what the rule's path prefix matched.
    Prefix(String),
}
