//! A route by itself, whichever its kind: its rules as the data plane takes them, and what is wrong with them. Pure; done once for each state of
//! the object.
//!
//! A rule with something that is not supported is no rule: it is told, and what it matches is answered with 500, lest a request
//! that a filter was meant for falls to a broader rule without it. A condition that is not supported is never left out.

mod filter;
mod matches;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

use crate::api::{
    GrpcRoute, HttpBackendRef, HttpRoute, HttpRouteFilter, HttpRouteRetry, HttpRouteTimeouts,
    Metadata, ParentReference, SessionPersistence, StreamRoute,
};
use crate::duration;
use crate::name::NamespacedName;
use crate::rule::{Backend, BackendTarget, Filter, Match, Retry, Rule};
use crate::session;
use crate::status::Refusal;
use crate::streams::StreamProtocol;

/// Which kind a route is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RouteKind {
    #[default]
    Http,
    Grpc,
    Tls,
    Tcp,
    Udp,
}

impl RouteKind {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            RouteKind::Http => "HTTPRoute",
            RouteKind::Grpc => "GRPCRoute",
            RouteKind::Tls => "TLSRoute",
            RouteKind::Tcp => "TCPRoute",
            RouteKind::Udp => "UDPRoute",
        }
    }

    /// What it leads on, as Services name it.
    pub(crate) fn transport(self) -> &'static str {
        match self {
            RouteKind::Udp => "UDP",
            RouteKind::Http | RouteKind::Grpc | RouteKind::Tls | RouteKind::Tcp => "TCP",
        }
    }

    /// What it leads on, where that is bytes and not requests.
    pub(crate) fn stream(self) -> Option<StreamProtocol> {
        match self {
            RouteKind::Http | RouteKind::Grpc => None,
            RouteKind::Tls => Some(StreamProtocol::Tls),
            RouteKind::Tcp => Some(StreamProtocol::Tcp),
            RouteKind::Udp => Some(StreamProtocol::Udp),
        }
    }
}

impl fmt::Display for RouteKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A route and what is known of it whatever else is in the cluster.
#[derive(Debug, PartialEq, Eq)]
pub struct Route {
    pub(crate) kind: RouteKind,
    pub(crate) metadata: Metadata,
    pub(crate) parents: Vec<ParentReference>,
    /// Of gateways; services ignore them.
    pub(crate) hostnames: Vec<String>,
    /// How many rules were written.
    written: usize,
    /// Those that can match something.
    pub(crate) rules: Arc<[Arc<Rule>]>,
    /// Rules that are not done, by their position.
    pub(crate) faults: Vec<(usize, Refusal)>,
    /// Fields that have no effect, as paths.
    pub(crate) ignored: Vec<String>,
}

/// A rule as it is written, whichever the kind.
struct Written<'w> {
    name: Option<&'w str>,
    matches: Vec<Result<Match, String>>,
    filters: &'w [HttpRouteFilter],
    backends: &'w [HttpBackendRef],
    timeouts: HttpRouteTimeouts,
    retry: Option<&'w HttpRouteRetry>,
    session: Option<&'w SessionPersistence>,
}

impl Route {
    /// Compiles the rules of an HTTPRoute.
    #[must_use]
    pub fn http(object: HttpRoute) -> Self {
        let spec = object.spec;
        let rules = spec.rules.iter().map(|rule| Written {
            name: rule.name.as_deref(),
            matches: rule.matches.iter().map(matches::http).collect(),
            filters: &rule.filters,
            backends: &rule.backend_refs,
            timeouts: rule.timeouts.clone().unwrap_or_default(),
            retry: rule.retry.as_ref(),
            session: rule.session_persistence.as_ref(),
        });
        let route = Self::compile(RouteKind::Http, object.metadata, rules.collect());
        Self {
            parents: spec.parent_refs,
            hostnames: spec.hostnames,
            ..route
        }
    }

    /// Compiles the rules of a GRPCRoute.
    #[must_use]
    pub fn grpc(object: GrpcRoute) -> Self {
        let spec = object.spec;
        let rules = spec.rules.iter().map(|rule| Written {
            name: rule.name.as_deref(),
            matches: rule.matches.iter().map(matches::grpc).collect(),
            filters: &rule.filters,
            backends: &rule.backend_refs,
            timeouts: HttpRouteTimeouts::default(),
            retry: None,
            session: rule.session_persistence.as_ref(),
        });
        let route = Self::compile(RouteKind::Grpc, object.metadata, rules.collect());
        Self {
            parents: spec.parent_refs,
            hostnames: spec.hostnames,
            ..route
        }
    }

    /// Compiles the rule of a route of another kind: it has backends, and nothing else.
    #[must_use]
    pub fn stream(kind: RouteKind, object: StreamRoute) -> Self {
        let spec = object.spec;
        let rules = spec.rules.iter().take(1).map(|rule| Written {
            name: None,
            matches: Vec::new(),
            filters: &[],
            backends: &rule.backend_refs,
            timeouts: HttpRouteTimeouts::default(),
            retry: None,
            session: None,
        });
        let route = Self::compile(kind, object.metadata, rules.collect());
        Self {
            parents: spec.parent_refs,
            hostnames: spec.hostnames,
            ..route
        }
    }

    fn compile(kind: RouteKind, metadata: Metadata, all: Vec<Written<'_>>) -> Self {
        let name = metadata.name.to_string();
        let mut rules = Vec::with_capacity(all.len());
        let (mut faults, mut ignored) = (Vec::new(), Vec::new());
        for (number, written) in all.iter().enumerate() {
            // Of versions before, which no definition of now has.
            if written
                .session
                .is_some_and(|session| session.idle_timeout.is_some())
            {
                ignored.push(format!(
                    "spec.rules[{number}].sessionPersistence.idleTimeout"
                ));
            }
            let shown = written
                .name
                .map_or_else(|| number.to_string(), str::to_owned);
            let sessions_of = format!("{kind} {name} {shown}");
            let namespace = &metadata.name.namespace;
            let (mut rule, fault) = compile(&name, namespace, written, &sessions_of);
            if let Some(fault) = fault {
                refuse(&mut rule, &fault.message);
                faults.push((number, fault));
            }
            // All of its conditions are among what is not supported: it must not match everything instead.
            if !rule.matches.is_empty() {
                rules.push(Arc::new(rule));
            }
        }
        Self {
            kind,
            metadata,
            parents: Vec::new(),
            hostnames: Vec::new(),
            written: all.len(),
            rules: rules.into(),
            faults,
            ignored,
        }
    }

    /// Whether it is attached to the Service.
    pub(crate) fn is_of(&self, service: &NamespacedName) -> bool {
        let own = &self.metadata.name.namespace;
        self.parents.iter().any(|parent| {
            let is_service = parent.kind.as_deref() == Some("Service")
                && matches!(parent.group.as_deref(), Some("" | "core"));
            let namespace = parent.namespace.as_ref().unwrap_or(own);
            is_service && parent.name == service.name && *namespace == service.namespace
        })
    }

    /// Whether it leads to the Service.
    pub(crate) fn leads_to(&self, service: &NamespacedName) -> bool {
        let is_it = |backend: &Backend| match &backend.target {
            BackendTarget::Service {
                namespace, name, ..
            } => (namespace, name) == (&service.namespace, &service.name),
            BackendTarget::Invalid { .. } => false,
        };
        let mirrors = |filters: &[Filter]| {
            let mut filters = filters.iter();
            filters.any(|filter| matches!(filter, Filter::Mirror(mirror) if is_it(&mirror.backend)))
        };
        self.rules.iter().any(|rule| {
            let mut backends = rule.backends.iter();
            mirrors(&rule.filters)
                || backends.any(|backend| is_it(backend) || mirrors(&backend.filters))
        })
    }

    /// Nothing that it asks for can be done.
    pub(crate) fn is_refused(&self) -> bool {
        !self.faults.is_empty() && self.faults.len() == self.written
    }
}

/// Whatever the rule matches is answered with 500 and this reason.
fn refuse(rule: &mut Rule, reason: &str) {
    let reason = reason.to_owned();
    rule.filters = vec![Filter::Invalid {
        reason: reason.clone(),
    }];
    rule.backends = vec![Backend::new(BackendTarget::Invalid { reason })];
}

/// `sessions_of`: whose its sessions are.
fn compile(
    route: &str,
    namespace: &str,
    written: &Written<'_>,
    sessions_of: &str,
) -> (Rule, Option<Refusal>) {
    let mut unsupported: Vec<String> = Vec::new();
    let mut told = |reason: String| unsupported.push(reason);
    let mut matches = Vec::with_capacity(written.matches.len().max(1));
    for one in &written.matches {
        match one {
            Ok(one) => matches.push(one.clone()),
            Err(reason) => told(reason.clone()),
        }
    }
    if written.matches.is_empty() {
        matches.push(Match::default());
    }
    let mut filters = |written: &[HttpRouteFilter]| -> Vec<Filter> {
        let filters = written.iter().filter_map(|one| {
            let filter = filter::filter(namespace, one);
            filter.map_err(&mut told).ok()
        });
        filters.collect()
    };
    let own = filters(written.filters);
    let mut backends = Vec::with_capacity(written.backends.len());
    for reference in written.backends {
        backends.push(Backend {
            weight: reference.weight.unwrap_or(1),
            filters: filters(&reference.filters),
            ..Backend::new(target(namespace, reference))
        });
    }
    let mut limit = |text: &Option<String>| match text.as_deref().map(duration::parse) {
        None => None,
        Some(Ok(Duration::ZERO)) => Some(duration::UNLIMITED),
        Some(Ok(limit)) => Some(limit),
        Some(Err(reason)) => {
            told(reason);
            None
        }
    };
    let request_timeout = limit(&written.timeouts.request);
    let backend_timeout = limit(&written.timeouts.backend_request);
    let retry = written.retry.map(|retry| retried(retry, &mut told));
    let session = written.session.and_then(|session| {
        let session = session::read(session, sessions_of);
        session.map_err(&mut told).ok()
    });
    let incompatible = incompatible_filters(&own, !backends.is_empty());
    let fault = match (unsupported.is_empty(), incompatible) {
        (false, _) => Some(Refusal::new("UnsupportedValue", unsupported.join("; "))),
        (true, Some(reason)) => Some(Refusal::new("IncompatibleFilters", reason)),
        (true, None) => None,
    };
    let rule = Rule {
        route: route.to_owned(),
        matches,
        filters: own,
        backends,
        name: written.name.map(str::to_owned),
        request_timeout,
        backend_timeout,
        retry,
        hedge_after: None,
        session,
    };
    (rule, fault)
}

/// Further tries of a rule that does not say how many.
const ATTEMPTS_USUAL: u32 = 1;

fn retried(written: &HttpRouteRetry, told: &mut impl FnMut(String)) -> Retry {
    let codes = written.codes.iter().filter_map(|code| {
        let status = StatusCode::from_u16(*code);
        status
            .map_err(|_| told(format!("{code} is no status")))
            .ok()
    });
    let codes = codes.collect();
    let backoff = written.backoff.as_deref().map(duration::parse);
    Retry {
        codes,
        grpc: Vec::new(),
        attempts: written.attempts.unwrap_or(ATTEMPTS_USUAL),
        backoff: backoff.and_then(|parsed| parsed.map_err(told).ok()),
    }
}

/// What validation refuses too, and what got past it.
fn incompatible_filters(filters: &[Filter], has_backends: bool) -> Option<&'static str> {
    let redirects = filters.iter().filter(|f| matches!(f, Filter::Redirect(_)));
    let rewrites = filters.iter().filter(|f| matches!(f, Filter::Rewrite(_)));
    match (redirects.count(), rewrites.count()) {
        (0 | 1, 0) | (0, 1) => {
            let redirects = filters.iter().any(|f| matches!(f, Filter::Redirect(_)));
            (redirects && has_backends)
                .then_some("a RequestRedirect leaves nothing for backendRefs to answer")
        }
        (0, _) => Some("there is more than one URLRewrite"),
        (_, 0) => Some("there is more than one RequestRedirect"),
        (_, _) => Some("RequestRedirect and URLRewrite exclude each other"),
    }
}

/// Which service a backendRef means, whoever may refer to it.
pub(crate) fn target(namespace: &str, reference: &HttpBackendRef) -> BackendTarget {
    let invalid = |reason| BackendTarget::Invalid { reason };
    let kind = reference.kind.as_deref().unwrap_or("Service");
    let group = reference.group.as_deref().unwrap_or("");
    match (group, kind, reference.port) {
        ("" | "core", "Service", Some(port)) => BackendTarget::Service {
            namespace: reference
                .namespace
                .as_deref()
                .unwrap_or(namespace)
                .to_owned(),
            name: reference.name.clone(),
            port,
        },
        ("" | "core", "Service", None) => invalid(format!(
            "backend {} names no port, and a Service needs one",
            reference.name
        )),
        _ => invalid(format!(
            "backend {} is a {kind}; only Services are supported",
            reference.name
        )),
    }
}
