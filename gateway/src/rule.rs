//! What a rule of a route asks of the data plane, as values: conditions, filters, backends by name and weight, times. Pure.
//!
//! Invariants: what cannot be done is said where it would be done ([`Filter::Invalid`], [`BackendTarget::Invalid`]), so that it
//! is answered with 500 and its reason, and never skipped. Backends are names: a rule outlives any state of the cluster.
//! Left to others: matching and filtering (`weft_mesh`), and which rule a request meets first.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method, StatusCode};
use regex::Regex;

use crate::api::KeyPair;

/// One rule of an HTTPRoute or a GRPCRoute.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rule {
    /// `namespace/name` of the route.
    pub route: String,
    /// The rule's own, among those of its route.
    pub name: Option<String>,
    /// Any of these; none at all matches every request.
    pub matches: Vec<Match>,
    /// In the order of the manifest.
    pub filters: Vec<Filter>,
    pub backends: Vec<Backend>,
    /// `timeouts.request`: the whole call, retries included.
    pub request_timeout: Option<Duration>,
    /// `timeouts.backendRequest`: one try.
    pub backend_timeout: Option<Duration>,
    /// None: as the data plane does by itself.
    pub retry: Option<Retry>,
    /// A call that may be made twice is, elsewhere, if it is not answered after so long. None: as the policy of its Service says.
    pub hedge_after: Option<Duration>,
    /// None: each request goes wherever it is answered best.
    pub session: Option<Session>,
}

/// That the requests of one client stay with the endpoint that answered its first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    pub carried: Carried,
    /// Since its first answer; for as long as the client keeps it when not given.
    pub lifetime: Option<Duration>,
    /// What tells its tokens from those of all other rules.
    pub scope: u64,
}

/// How a client says which session is his.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Carried {
    Cookie {
        name: String,
        /// The client is told the lifetime, and may keep the cookie for longer than it runs.
        is_permanent: bool,
    },
    Header(HeaderName),
}

/// When and how often an answer is asked for again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Retry {
    /// Statuses of answers that are tried again.
    pub codes: Vec<StatusCode>,
    /// The same of gRPC, whatever the method: whoever names one says that such a call may be made twice.
    pub grpc: Vec<u16>,
    /// Most further tries.
    pub attempts: u32,
    /// Least pause before one; none when not given.
    pub backoff: Option<Duration>,
}

/// All of the conditions that are given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Match {
    pub path: PathMatch,
    pub method: Option<Method>,
    /// Name and value; equal is what matches.
    pub headers: Vec<(HeaderName, String)>,
    pub query: Vec<(String, String)>,
    /// As `headers`, where the value is a pattern.
    pub header_patterns: Vec<(HeaderName, Pattern)>,
    /// As `query`, where the value is a pattern.
    pub query_patterns: Vec<(String, Pattern)>,
}

/// A regular expression that a text has to match as a whole. Equal patterns are equal texts.
#[derive(Debug, Clone)]
pub struct Pattern {
    text: String,
    regex: Regex,
}

impl Pattern {
    /// # Errors
    /// When the text is no expression, or one that would take too much memory.
    pub fn new(text: &str) -> Result<Self, String> {
        let mut builder = regex::RegexBuilder::new(&format!("^(?:{text})$"));
        let regex = builder.size_limit(PATTERN_BYTES_MAX).build();
        let regex = regex.map_err(|_| format!("{text:?} is no regular expression"))?;
        Ok(Self {
            text: text.to_owned(),
            regex,
        })
    }

    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        self.regex.is_match(text)
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Pattern {}

/// Most memory of a compiled pattern: those of routes are short, and there may be hundreds of thousands.
const PATTERN_BYTES_MAX: usize = 256 << 10;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathMatch {
    Exact(String),
    /// By elements: `/abc` matches `/abc` and `/abc/d`, not `/abcd`. A slash at its end means nothing.
    Prefix(String),
    /// Any `/service/METHOD` of gRPC with this method.
    Method(String),
    Pattern(Pattern),
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
    /// What is spoken with it, where that is not HTTP/1.1 or what the request asks for.
    pub protocol: Protocol,
    /// It is called over TLS of its own.
    pub tls: Option<Arc<BackendTls>>,
}

impl Backend {
    /// One that all requests of a rule go to.
    #[must_use]
    pub fn new(target: BackendTarget) -> Self {
        Self {
            weight: 1,
            target,
            filters: Vec::new(),
            protocol: Protocol::default(),
            tls: None,
        }
    }
}

/// What a backend speaks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// As the request is: HTTP/1.1, or HTTP/2 where it is gRPC.
    #[default]
    AsAsked,
    /// HTTP/2 without an upgrade.
    H2c,
}

impl Protocol {
    /// What is spoken at a port of a Service, by the name that its `appProtocol` has for it. Most names say nothing of that.
    #[must_use]
    pub fn named(name: Option<&str>) -> Self {
        match name {
            Some("kubernetes.io/h2c" | "h2c" | "http2" | "grpc") => Protocol::H2c,
            _ => Protocol::AsAsked,
        }
    }

    /// Whether the name says that requests in the clear are spoken, in whichever version. WebSocket is another protocol.
    #[must_use]
    pub fn is_http(name: Option<&str>) -> bool {
        name == Some("http") || Self::named(name) == Protocol::H2c
    }
}

/// How a backend proves itself, and what it is shown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BackendTls {
    /// Whom it is asked for, and whose certificate it has to have where no names are given.
    pub hostname: String,
    /// Any of these instead.
    pub names: Vec<CertificateName>,
    /// In DER; none: those that the machine trusts.
    pub roots: Option<Arc<Vec<Vec<u8>>>>,
    /// Shown to it.
    pub client: Option<Arc<KeyPair>>,
}

/// A name that a certificate is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CertificateName {
    Host(String),
    Uri(String),
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
    Mirror(Mirror),
    Cors(Arc<Cors>),
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

/// A copy of a share of the requests goes to another backend, whose answers nobody hears.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    pub backend: Backend,
    /// So many of `of` requests.
    pub share: u32,
    pub of: u32,
}

/// Which pages of other origins may read the answers. Source: the Fetch standard.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cors {
    pub origins: Vec<Origin>,
    pub credentials: bool,
    pub methods: Allowed,
    pub headers: Allowed,
    /// A list for `access-control-expose-headers`.
    pub exposed: Option<HeaderValue>,
    pub max_age_seconds: u32,
}

/// An origin that is allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    Any,
    Exact(String),
    /// What is before and after `*`.
    Wildcard(String, String),
}

/// Names that are allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Allowed {
    /// `*`
    All,
    /// A list as the value of a line; none is said where it is empty.
    Listed(Option<HeaderValue>),
}

impl Default for Allowed {
    fn default() -> Self {
        Allowed::Listed(None)
    }
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
