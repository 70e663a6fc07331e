//! An HTTPRoute by itself: its rules as the data plane takes them, and what is wrong with them. Pure; done once for each state of
//! the object.
//!
//! A rule with something that is not supported is no rule: it is told, and what it matches is answered with 500, lest a request
//! that a filter was meant for falls to a broader rule without it. A condition that is not supported is never left out.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method, StatusCode};

use crate::api::{
    HeaderLine, HeaderModifier, HttpBackendRef, HttpRoute, HttpRouteFilter, HttpRouteMatch,
    HttpRouteRule, NamedMatch, PathModifier, RequestRedirect,
};
use crate::duration;
use crate::rule::{
    Backend, BackendTarget, Filter, HeaderChange, Match, PathChange, PathMatch, Redirect, Rewrite,
    Rule,
};
use crate::status::Refusal;

/// An HTTPRoute and what is known of it whatever else is in the cluster.
#[derive(Debug, PartialEq, Eq)]
pub struct Route {
    pub(crate) object: HttpRoute,
    /// Those that can match something.
    pub(crate) rules: Arc<[Arc<Rule>]>,
    /// Rules that are not done, by their position.
    pub(crate) faults: Vec<(usize, Refusal)>,
    /// Fields that have no effect, as paths.
    pub(crate) ignored: Vec<String>,
}

impl Route {
    /// Compiles the rules.
    #[must_use]
    pub fn new(object: HttpRoute) -> Self {
        let name = object.metadata.name.to_string();
        let mut rules = Vec::with_capacity(object.spec.rules.len());
        let (mut faults, mut ignored) = (Vec::new(), Vec::new());
        for (number, written) in object.spec.rules.iter().enumerate() {
            let of = |field: &str| format!("spec.rules[{number}].{field}");
            for (field, is_there) in [
                ("retry", written.retry.is_some()),
                ("sessionPersistence", written.session_persistence.is_some()),
            ] {
                ignored.extend(is_there.then(|| of(field)));
            }
            let (mut rule, fault) = compile(&name, &object.metadata.name.namespace, written);
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
            object,
            rules: rules.into(),
            faults,
            ignored,
        }
    }

    /// Nothing that it asks for can be done.
    pub(crate) fn is_refused(&self) -> bool {
        !self.faults.is_empty() && self.faults.len() == self.object.spec.rules.len()
    }
}

/// Whatever the rule matches is answered with 500 and this reason.
fn refuse(rule: &mut Rule, reason: &str) {
    let reason = reason.to_owned();
    rule.filters = vec![Filter::Invalid {
        reason: reason.clone(),
    }];
    rule.backends = vec![Backend {
        weight: 1,
        target: BackendTarget::Invalid { reason },
        filters: Vec::new(),
    }];
}

fn compile(route: &str, namespace: &str, written: &HttpRouteRule) -> (Rule, Option<Refusal>) {
    let mut unsupported: Vec<String> = Vec::new();
    let mut told = |reason: String| unsupported.push(reason);
    let mut matches = Vec::with_capacity(written.matches.len().max(1));
    for one in &written.matches {
        match route_match(one) {
            Ok(one) => matches.push(one),
            Err(reason) => told(reason),
        }
    }
    if written.matches.is_empty() {
        matches.push(Match::default());
    }
    let mut filters = |written: &[HttpRouteFilter], of_backend: bool| -> Vec<Filter> {
        let filters = written.iter().filter_map(|one| match filter(one) {
            Ok(Filter::Redirect(_)) if of_backend => {
                told("a RequestRedirect of a backendRef is not supported".to_owned());
                None
            }
            Ok(filter) => Some(filter),
            Err(reason) => {
                told(reason);
                None
            }
        });
        filters.collect()
    };
    let own = filters(&written.filters, false);
    let mut backends = Vec::with_capacity(written.backend_refs.len());
    for reference in &written.backend_refs {
        backends.push(Backend {
            weight: reference.weight.unwrap_or(1),
            target: target(namespace, reference),
            filters: filters(&reference.filters, true),
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
    let timeouts = written.timeouts.clone().unwrap_or_default();
    let request_timeout = limit(&timeouts.request);
    let backend_timeout = limit(&timeouts.backend_request);
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
        request_timeout,
        backend_timeout,
    };
    (rule, fault)
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

fn route_match(one: &HttpRouteMatch) -> Result<Match, String> {
    let path = one.path.clone().unwrap_or_default();
    let value = path.value.unwrap_or_else(|| "/".to_owned());
    let path = match path.kind.as_deref().unwrap_or("PathPrefix") {
        "Exact" => PathMatch::Exact(value),
        "PathPrefix" => PathMatch::Prefix(value),
        other => return Err(format!("a path match of type {other} is not supported")),
    };
    let exact = |of: &str, one: &NamedMatch| match one.kind.as_deref().unwrap_or("Exact") {
        "Exact" => Ok(one.value.clone()),
        other => Err(format!("a {of} match of type {other} is not supported")),
    };
    let mut headers: Vec<(HeaderName, String)> = Vec::with_capacity(one.headers.len());
    for entry in &one.headers {
        let value = exact("header", entry)?;
        let name = header_name(&entry.name)?;
        // Of entries with one name the first counts.
        if headers.iter().all(|(known, _)| *known != name) {
            headers.push((name, value));
        }
    }
    let mut query: Vec<(String, String)> = Vec::with_capacity(one.query_params.len());
    for entry in &one.query_params {
        let value = exact("query parameter", entry)?;
        if query.iter().all(|(known, _)| *known != entry.name) {
            query.push((entry.name.clone(), value));
        }
    }
    let method = one.method.as_ref().map(|method| {
        let parsed = method.parse::<Method>();
        parsed.map_err(|_| format!("{method:?} is no method"))
    });
    Ok(Match {
        path,
        method: method.transpose()?,
        headers,
        query,
    })
}

fn header_name(name: &str) -> Result<HeaderName, String> {
    name.parse()
        .map_err(|_| format!("{name:?} is no header name"))
}

/// Which service a backendRef means, whoever may refer to it.
fn target(namespace: &str, reference: &HttpBackendRef) -> BackendTarget {
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

fn filter(filter: &HttpRouteFilter) -> Result<Filter, String> {
    let kind = filter.kind.as_str();
    let lacks = || format!("filter {kind} lacks its settings");
    match kind {
        "RequestHeaderModifier" => {
            let change = filter.request_header_modifier.as_ref().ok_or_else(lacks)?;
            header_change(change).map(Filter::RequestHeaders)
        }
        "ResponseHeaderModifier" => {
            let change = filter.response_header_modifier.as_ref().ok_or_else(lacks)?;
            header_change(change).map(Filter::ResponseHeaders)
        }
        "RequestRedirect" => {
            redirect(filter.request_redirect.as_ref().ok_or_else(lacks)?).map(Filter::Redirect)
        }
        "URLRewrite" => {
            let rewrite = filter.url_rewrite.as_ref().ok_or_else(lacks)?;
            Ok(Filter::Rewrite(Rewrite {
                hostname: rewrite.hostname.clone(),
                path: rewrite.path.as_ref().map(path_change).transpose()?,
            }))
        }
        other => Err(format!("filter {other} is not supported")),
    }
}

fn header_change(written: &HeaderModifier) -> Result<HeaderChange, String> {
    let pairs = |lines: &[HeaderLine]| -> Result<Vec<(HeaderName, HeaderValue)>, String> {
        let pairs = lines.iter().map(|line| {
            let value = line.value.parse();
            let bad = |_| format!("the value of {:?} cannot be in a header", line.name);
            Ok((header_name(&line.name)?, value.map_err(bad)?))
        });
        pairs.collect()
    };
    let remove = written.remove.iter().map(|name| header_name(name));
    Ok(HeaderChange {
        set: pairs(&written.set)?,
        add: pairs(&written.add)?,
        remove: remove.collect::<Result<_, _>>()?,
    })
}

fn redirect(written: &RequestRedirect) -> Result<Redirect, String> {
    let status = written.status_code.map(|code| {
        let status = StatusCode::from_u16(code).ok();
        let status = status.filter(StatusCode::is_redirection);
        status.ok_or_else(|| format!("{code} is no status code of a redirect"))
    });
    Ok(Redirect {
        scheme: written.scheme.clone(),
        hostname: written.hostname.clone(),
        port: written.port,
        path: written.path.as_ref().map(path_change).transpose()?,
        status: status.transpose()?,
    })
}

fn path_change(written: &PathModifier) -> Result<PathChange, String> {
    let slash = |path: &Option<String>| path.clone().unwrap_or_else(|| "/".to_owned());
    match &*written.kind {
        "ReplaceFullPath" => Ok(PathChange::Full(slash(&written.replace_full_path))),
        "ReplacePrefixMatch" => Ok(PathChange::Prefix(slash(&written.replace_prefix_match))),
        other => Err(format!("a path change of type {other} is not supported")),
    }
}
