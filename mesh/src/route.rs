//! HTTPRoute semantics of the Gateway API. Pure.
//!
//! Order of preference among everything that matches: most specific host name; then exact path, longest path
//! prefix, a method, most headers, most query parameters; then the oldest route, its `namespace/name`, and the
//! order inside it. Lists are sorted once, when the table is built, so the first match is the right one.
//!
//! Invariants: paths are compared raw, by elements, case-sensitive; the first value of a repeated query
//! parameter counts; a filter is applied or the rule answers 500, never skipped.
//! Source: gateway-api `apis/v1/httproute_types.go`.

use std::{borrow::Cow, collections::HashMap, sync::Arc, time::Duration};

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri,
    uri::{Authority, PathAndQuery, Scheme},
};

use crate::table::ServiceIndex;

// === What the agent hands in ===

/// One rule of an HTTPRoute.
#[derive(Debug, Clone, Default)]
pub struct Rule {
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
#[derive(Debug, Clone, Default)]
pub struct Match {
    pub path: PathMatch,
    pub method: Option<Method>,
    pub headers: Vec<(HeaderName, String)>,
    pub query: Vec<(String, String)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathMatch {
    Exact(String),
    /// By elements: `/abc` matches `/abc` and `/abc/d`, not `/abcd`.
    Prefix(String),
}

impl Default for PathMatch {
    fn default() -> Self {
        PathMatch::Prefix("/".to_owned())
    }
}

/// One `backendRef`.
#[derive(Debug, Clone)]
pub struct Backend {
    /// Share of the requests in proportion to the sum; 0 is none.
    pub weight: u32,
    pub target: BackendTarget,
    pub filters: Vec<Filter>,
}

#[derive(Debug, Clone)]
pub enum BackendTarget {
    Service {
        namespace: String,
        name: String,
        port: u16,
    },
    /// Its share of the requests is answered with 500 and this reason.
    Invalid { reason: String },
}

#[derive(Debug, Clone)]
pub enum Filter {
    RequestHeaders(HeaderChange),
    ResponseHeaders(HeaderChange),
    Redirect(Redirect),
    Rewrite(Rewrite),
    /// A filter that is not known or does not resolve: the rule answers 500 with this reason.
    Invalid {
        reason: String,
    },
}

#[derive(Debug, Clone, Default)]
pub struct HeaderChange {
    pub set: Vec<(HeaderName, HeaderValue)>,
    pub add: Vec<(HeaderName, HeaderValue)>,
    pub remove: Vec<HeaderName>,
}

#[derive(Debug, Clone, Default)]
pub struct Redirect {
    pub scheme: Option<String>,
    pub hostname: Option<String>,
    pub port: Option<u16>,
    pub path: Option<PathChange>,
    /// 302 when not given.
    pub status: Option<StatusCode>,
}

#[derive(Debug, Clone, Default)]
pub struct Rewrite {
    pub hostname: Option<String>,
    pub path: Option<PathChange>,
}

#[derive(Debug, Clone)]
pub enum PathChange {
    Full(String),
    /// Replaces what the rule's path prefix matched.
    Prefix(String),
}

// === What a table holds ===

/// A rule with its backends resolved.
#[derive(Debug)]
pub(crate) struct CompiledRule {
    /// `namespace/name` of the route.
    pub(crate) route: String,
    pub(crate) filters: Vec<Filter>,
    pub(crate) backends: Vec<CompiledBackend>,
    pub(crate) request_timeout: Option<Duration>,
    pub(crate) backend_timeout: Option<Duration>,
}

#[derive(Debug)]
pub(crate) struct CompiledBackend {
    pub(crate) weight: u32,
    pub(crate) target: Result<(ServiceIndex, u16), String>,
    pub(crate) filters: Vec<Filter>,
}

/// One match of one rule, with all that decides its place in a list.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    matches: Match,
    pub(crate) rule: Arc<CompiledRule>,
    /// Only for requests to this port of the parent.
    port: Option<u16>,
    age: Age,
}

/// Breaks ties: older first, then by name, then by position.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Age {
    pub(crate) created: i64,
    pub(crate) route: String,
    pub(crate) rule: usize,
    pub(crate) matched: usize,
}

impl Entry {
    pub(crate) fn new(
        mut matches: Match,
        rule: Arc<CompiledRule>,
        port: Option<u16>,
        age: Age,
    ) -> Self {
        if let PathMatch::Prefix(prefix) = &mut matches.path {
            prefix.truncate(prefix.trim_end_matches('/').len());
        }
        Self {
            matches,
            rule,
            port,
            age,
        }
    }

    /// Smaller sorts first.
    fn precedence(&self) -> impl Ord + use<'_> {
        let (exact, length) = match &self.matches.path {
            PathMatch::Exact(path) => (true, path.len()),
            PathMatch::Prefix(prefix) => (false, prefix.len()),
        };
        (
            std::cmp::Reverse((
                exact,
                length,
                self.matches.method.is_some(),
                self.matches.headers.len(),
                self.matches.query.len(),
            )),
            &self.age,
        )
    }

    /// What the rule's path prefix is, for filters that replace it.
    pub(crate) fn prefix(&self) -> &str {
        match &self.matches.path {
            PathMatch::Exact(path) => path,
            PathMatch::Prefix(prefix) => prefix,
        }
    }
}

/// The part of a request that routing looks at.
#[derive(Clone, Copy)]
pub(crate) struct View<'r> {
    pub(crate) method: &'r Method,
    pub(crate) path: &'r str,
    pub(crate) query: Option<&'r str>,
    pub(crate) headers: &'r HeaderMap,
    /// Port of the parent that was addressed.
    pub(crate) port: u16,
}

impl<'r> View<'r> {
    pub(crate) fn new<B>(request: &'r http::Request<B>, port: u16) -> Self {
        Self {
            method: request.method(),
            path: match request.uri().path() {
                "" => "/",
                path => path,
            },
            query: request.uri().query(),
            headers: request.headers(),
            port,
        }
    }
}

/// Matches sorted by precedence.
#[derive(Debug, Default)]
pub(crate) struct RouteList {
    entries: Vec<Entry>,
}

impl RouteList {
    pub(crate) fn push(&mut self, entry: Entry) {
        self.entries.push(entry);
    }

    pub(crate) fn sort(&mut self) {
        self.entries
            .sort_by(|a, b| a.precedence().cmp(&b.precedence()));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether any route is bound to `port` of the parent.
    pub(crate) fn covers(&self, port: u16) -> bool {
        self.entries
            .iter()
            .any(|entry| entry.port.is_none_or(|bound| bound == port))
    }

    pub(crate) fn select(&self, view: View<'_>) -> Option<&Entry> {
        self.entries.iter().find(|entry| {
            entry.port.is_none_or(|port| port == view.port) && matches(&entry.matches, view)
        })
    }
}

fn matches(wanted: &Match, view: View<'_>) -> bool {
    path_matches(&wanted.path, view.path)
        && wanted
            .method
            .as_ref()
            .is_none_or(|method| method == view.method)
        && wanted
            .headers
            .iter()
            .all(|(name, value)| header_matches(view.headers, name, value))
        && wanted
            .query
            .iter()
            .all(|(name, value)| query_matches(view.query, name, value))
}

fn path_matches(wanted: &PathMatch, path: &str) -> bool {
    match wanted {
        PathMatch::Exact(exact) => path == exact,
        // The prefix carries no slash at its end, so "/" is the empty prefix.
        PathMatch::Prefix(prefix) => path
            .strip_prefix(prefix.as_str())
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
    }
}

fn header_matches(headers: &HeaderMap, name: &HeaderName, wanted: &str) -> bool {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => false,
        (Some(only), None) => only.as_bytes() == wanted.as_bytes(),
        (Some(first), Some(second)) => {
            // Repeated lines mean the same as one line joined by commas.
            let mut joined = first.as_bytes().to_vec();
            for value in std::iter::once(second).chain(values) {
                joined.push(b',');
                joined.extend_from_slice(value.as_bytes());
            }
            joined == wanted.as_bytes()
        }
    }
}

fn query_matches(query: Option<&str>, name: &str, wanted: &str) -> bool {
    query
        .unwrap_or_default()
        .split('&')
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .find(|(found, _)| decoded(found) == name)
        .is_some_and(|(_, value)| decoded(value) == wanted)
}

/// Percent-decoding as in forms; text without an escape is borrowed, broken escapes stay as they are.
fn decoded(text: &str) -> Cow<'_, str> {
    if !text.contains(['%', '+']) {
        return Cow::Borrowed(text);
    }
    let hex = |byte: u8| (byte as char).to_digit(16).map(|digit| digit as u8);
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escape = match bytes[at..] {
            [b'%', high, low, ..] => hex(high).zip(hex(low)),
            _ => None,
        };
        match (escape, bytes[at]) {
            (Some((high, low)), _) => {
                out.push(high << 4 | low);
                at += 3;
            }
            (None, b'+') => {
                out.push(b' ');
                at += 1;
            }
            (None, byte) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    Cow::Owned(String::from_utf8_lossy(&out).into_owned())
}

// === Hosts ===

/// A host name as listeners and routes write it. Lower case.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum HostPattern {
    Any,
    /// `*.example.com`, kept as `.example.com`; matches any depth below, not the name itself.
    Wildcard(String),
    Exact(String),
}

impl HostPattern {
    pub(crate) fn parse(text: &str) -> Self {
        let text = text.to_ascii_lowercase();
        match text.strip_prefix('*') {
            Some("") => HostPattern::Any,
            Some(suffix) => HostPattern::Wildcard(suffix.to_owned()),
            None if text.is_empty() => HostPattern::Any,
            None => HostPattern::Exact(text),
        }
    }

    pub(crate) fn matches(&self, host: &str) -> bool {
        match self {
            HostPattern::Any => true,
            HostPattern::Wildcard(suffix) => host.len() > suffix.len() && host.ends_with(suffix),
            HostPattern::Exact(exact) => host == exact,
        }
    }

    /// Hosts that both match.
    pub(crate) fn intersect(&self, other: &Self) -> Option<Self> {
        use HostPattern::{Any, Exact, Wildcard};
        match (self, other) {
            (Any, pattern) | (pattern, Any) => Some(pattern.clone()),
            (Exact(a), Exact(b)) => (a == b).then(|| self.clone()),
            (Exact(host), pattern @ Wildcard(_)) | (pattern @ Wildcard(_), Exact(host)) => {
                pattern.matches(host).then(|| Exact(host.clone()))
            }
            (Wildcard(a), Wildcard(b)) if a.ends_with(b.as_str()) => Some(self.clone()),
            (Wildcard(a), Wildcard(b)) if b.ends_with(a.as_str()) => Some(other.clone()),
            (Wildcard(_), Wildcard(_)) => None,
        }
    }

    /// Larger is more specific: exact, then the longer wildcard, then any.
    fn specificity(&self) -> (u8, usize) {
        match self {
            HostPattern::Any => (0, 0),
            HostPattern::Wildcard(suffix) => (1, suffix.len()),
            HostPattern::Exact(host) => (2, host.len()),
        }
    }
}

/// What the gateway decided about a host and a request.
#[derive(Debug)]
pub(crate) enum Selection<'t> {
    Entry(&'t Entry),
    /// A listener is responsible for the host, and none of its routes matches.
    NoRoute,
    /// No listener is responsible for the host.
    NoListener,
}

/// Routes by host for all listeners that share one host pattern. The most specific listener alone is responsible
/// for a host, as listener isolation asks.
#[derive(Debug, Default)]
pub(crate) struct Listeners {
    exact: HashMap<String, HostRoutes>,
    /// Longest suffix first.
    wildcard: Vec<(String, HostRoutes)>,
    any: Option<HostRoutes>,
}

#[derive(Debug, Default)]
pub(crate) struct HostRoutes {
    exact: HashMap<String, RouteList>,
    wildcard: Vec<(String, RouteList)>,
    any: RouteList,
}

impl Listeners {
    /// The routes of the listeners with this pattern; also announces the listener.
    pub(crate) fn listener(&mut self, pattern: &HostPattern) -> &mut HostRoutes {
        match pattern {
            HostPattern::Any => self.any.get_or_insert_default(),
            HostPattern::Exact(host) => self.exact.entry(host.clone()).or_default(),
            HostPattern::Wildcard(suffix) => slot(&mut self.wildcard, suffix),
        }
    }

    pub(crate) fn sort(&mut self) {
        self.wildcard
            .sort_by_key(|(suffix, _)| std::cmp::Reverse(suffix.len()));
        let wildcard = self.wildcard.iter_mut().map(|(_, routes)| routes);
        for routes in self
            .exact
            .values_mut()
            .chain(wildcard)
            .chain(self.any.as_mut())
        {
            routes.sort();
        }
    }

    /// Whether some route names exactly this host, so that the fallback host must not answer for it.
    pub(crate) fn names_host(&self, host: &str) -> bool {
        let wildcard = self.wildcard.iter().map(|(_, routes)| routes);
        self.exact
            .values()
            .chain(wildcard)
            .chain(&self.any)
            .any(|routes| routes.exact.contains_key(host))
    }

    /// `host` is in lower case and without port.
    pub(crate) fn select(&self, host: &str, view: View<'_>) -> Selection<'_> {
        let responsible = self
            .exact
            .get(host)
            .or_else(|| {
                self.wildcard
                    .iter()
                    .find(|(suffix, _)| host.len() > suffix.len() && host.ends_with(suffix))
                    .map(|(_, routes)| routes)
            })
            .or(self.any.as_ref());
        match responsible {
            None => Selection::NoListener,
            Some(routes) => routes
                .select(host, view)
                .map_or(Selection::NoRoute, Selection::Entry),
        }
    }
}

impl HostRoutes {
    pub(crate) fn push(&mut self, pattern: &HostPattern, entry: Entry) {
        match pattern {
            HostPattern::Any => self.any.push(entry),
            HostPattern::Exact(host) => self.exact.entry(host.clone()).or_default().push(entry),
            HostPattern::Wildcard(suffix) => slot(&mut self.wildcard, suffix).push(entry),
        }
    }

    fn sort(&mut self) {
        self.wildcard
            .sort_by_key(|(suffix, _)| std::cmp::Reverse(suffix.len()));
        self.exact.values_mut().for_each(RouteList::sort);
        self.wildcard.iter_mut().for_each(|(_, list)| list.sort());
        self.any.sort();
    }

    fn select(&self, host: &str, view: View<'_>) -> Option<&Entry> {
        let exact = self.exact.get(host);
        let wildcard = self
            .wildcard
            .iter()
            .filter(|(suffix, _)| host.len() > suffix.len() && host.ends_with(suffix))
            .map(|(_, list)| list);
        exact
            .into_iter()
            .chain(wildcard)
            .chain(std::iter::once(&self.any))
            .find_map(|list| list.select(view))
    }
}

fn slot<'l, T: Default>(list: &'l mut Vec<(String, T)>, key: &str) -> &'l mut T {
    let index = match list.iter().position(|(found, _)| found == key) {
        Some(index) => index,
        None => {
            list.push((key.to_owned(), T::default()));
            list.len() - 1
        }
    };
    &mut list[index].1
}

/// The host patterns under which a route is reachable through a listener, most specific first.
pub(crate) fn effective_hosts(listener: &HostPattern, route: &[String]) -> Vec<HostPattern> {
    let mut hosts: Vec<HostPattern> = if route.is_empty() {
        vec![listener.clone()]
    } else {
        route
            .iter()
            .filter_map(|host| listener.intersect(&HostPattern::parse(host)))
            .collect()
    };
    hosts.sort_by_key(|host| std::cmp::Reverse(host.specificity()));
    hosts.dedup();
    hosts
}

// === Backends and filters ===

/// Chooses a backend by weight and says its position. `None` when no backend has any weight.
pub(crate) fn choose_backend(
    backends: &[CompiledBackend],
    rng: &mut impl rand::Rng,
) -> Option<usize> {
    if let [only] = backends {
        return (only.weight > 0).then_some(0);
    }
    let total: u64 = backends
        .iter()
        .map(|backend| u64::from(backend.weight))
        .sum();
    if total == 0 {
        return None;
    }
    let mut ticket = rng.random_range(0..total);
    backends.iter().position(|backend| {
        let weight = u64::from(backend.weight);
        let mine = ticket < weight;
        ticket = ticket.saturating_sub(weight);
        mine
    })
}

/// Applies the filters that change a request, in order. The error is the reason to answer 500.
pub(crate) fn filter_request(
    filters: &[Filter],
    prefix: &str,
    uri: &mut Uri,
    headers: &mut HeaderMap,
) -> Result<(), String> {
    for filter in filters {
        match filter {
            Filter::RequestHeaders(change) => change.apply(headers),
            Filter::Rewrite(rewrite) => {
                *uri = rewritten(uri, rewrite, prefix).ok_or("the rewrite gives no valid URI")?;
            }
            Filter::Invalid { reason } => return Err(reason.clone()),
            Filter::ResponseHeaders(_) | Filter::Redirect(_) => {}
        }
    }
    Ok(())
}

/// Applies the filters that change a response, in order.
pub(crate) fn filter_response(filters: &[Filter], headers: &mut HeaderMap) {
    for filter in filters {
        if let Filter::ResponseHeaders(change) = filter {
            change.apply(headers);
        }
    }
}

/// Status and `location` when a filter redirects.
pub(crate) fn redirect(
    filters: &[Filter],
    prefix: &str,
    uri: &Uri,
) -> Option<(StatusCode, String)> {
    let redirect = filters.iter().find_map(|filter| match filter {
        Filter::Redirect(redirect) => Some(redirect),
        _ => None,
    })?;
    let old_scheme = uri.scheme_str().unwrap_or("http");
    let scheme = redirect.scheme.as_deref().unwrap_or(old_scheme);
    let host = redirect
        .hostname
        .as_deref()
        .or_else(|| uri.host())
        .unwrap_or_default();
    // Explicit port, else that of an explicit scheme, else the one the client used.
    let port = match (redirect.port, &redirect.scheme) {
        (Some(port), _) => Some(port),
        (None, Some(_)) => None,
        (None, None) => uri.port_u16(),
    };
    let well_known = match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    };
    let path = match &redirect.path {
        Some(change) => changed_path(uri.path(), change, prefix),
        None => Cow::Borrowed(uri.path()),
    };
    let mut location = format!("{scheme}://{host}");
    if let Some(port) = port.filter(|port| Some(*port) != well_known) {
        location.push(':');
        location.push_str(&port.to_string());
    }
    location.push_str(&path);
    if let Some(query) = uri.query() {
        location.push('?');
        location.push_str(query);
    }
    Some((redirect.status.unwrap_or(StatusCode::FOUND), location))
}

impl HeaderChange {
    fn apply(&self, headers: &mut HeaderMap) {
        for (name, value) in &self.set {
            headers.insert(name.clone(), value.clone());
        }
        for (name, value) in &self.add {
            headers.append(name.clone(), value.clone());
        }
        for name in &self.remove {
            headers.remove(name);
        }
    }
}

fn rewritten(uri: &Uri, rewrite: &Rewrite, prefix: &str) -> Option<Uri> {
    let mut parts = uri.clone().into_parts();
    if let Some(hostname) = &rewrite.hostname {
        parts.authority = Some(hostname.parse::<Authority>().ok()?);
        parts.scheme.get_or_insert(Scheme::HTTP);
    }
    if let Some(change) = &rewrite.path {
        let path = changed_path(uri.path(), change, prefix);
        let text = match uri.query() {
            Some(query) => format!("{path}?{query}"),
            None => path.into_owned(),
        };
        parts.path_and_query = Some(text.parse::<PathAndQuery>().ok()?);
    }
    Uri::from_parts(parts).ok()
}

fn changed_path<'p>(path: &'p str, change: &'p PathChange, prefix: &str) -> Cow<'p, str> {
    match change {
        PathChange::Full(full) if full.is_empty() => Cow::Borrowed("/"),
        PathChange::Full(full) => Cow::Borrowed(full),
        PathChange::Prefix(replacement) => {
            let rest = path
                .strip_prefix(prefix.trim_end_matches('/'))
                .unwrap_or(path);
            let replacement = replacement.trim_end_matches('/');
            match (replacement, rest) {
                ("", "") => Cow::Borrowed("/"),
                ("", rest) => Cow::Borrowed(rest),
                (replacement, rest) => Cow::Owned(format!("{replacement}{rest}")),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng, rngs::SmallRng};

    use super::*;

    fn entry(name: &str, matches: Match) -> Entry {
        let rule = CompiledRule {
            route: name.to_owned(),
            filters: Vec::new(),
            backends: Vec::new(),
            request_timeout: None,
            backend_timeout: None,
        };
        let age = Age {
            created: 0,
            route: name.to_owned(),
            rule: 0,
            matched: 0,
        };
        Entry::new(matches, Arc::new(rule), None, age)
    }

    fn exact(path: &str) -> Match {
        Match {
            path: PathMatch::Exact(path.to_owned()),
            ..Match::default()
        }
    }

    fn prefix(path: &str) -> Match {
        Match {
            path: PathMatch::Prefix(path.to_owned()),
            ..Match::default()
        }
    }

    fn request(method: &str, uri: &str, headers: &[(&str, &str)]) -> http::Request<()> {
        let mut builder = http::Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        builder.body(()).expect("a request")
    }

    #[test]
    fn the_most_specific_match_wins() {
        let with = |mut base: Match, edit: fn(&mut Match)| {
            edit(&mut base);
            base
        };
        let mut list = RouteList::default();
        for entry in [
            entry("any", Match::default()),
            entry("v", prefix("/v")),
            entry("v/two", prefix("/v/two/")),
            entry("exact", exact("/v/two")),
            entry("get", with(prefix("/v"), |m| m.method = Some(Method::GET))),
            entry(
                "canary",
                with(prefix("/v"), |m| {
                    m.headers = vec![(HeaderName::from_static("x-v"), "1".to_owned())];
                }),
            ),
            entry(
                "query",
                with(prefix("/v"), |m| {
                    m.query = vec![("who".to_owned(), "a b".to_owned())];
                }),
            ),
        ] {
            list.push(entry);
        }
        list.sort();
        for (method, uri, headers, expected) in [
            ("POST", "/", &[][..], "any"),
            ("POST", "/va", &[], "any"),
            ("POST", "/v", &[], "v"),
            ("POST", "/v/", &[], "v"),
            ("POST", "/v/one", &[], "v"),
            ("POST", "/v/two", &[], "exact"),
            ("POST", "/v/two/", &[], "v/two"),
            ("POST", "/V/two", &[], "any"),
            ("GET", "/v/one", &[("x-v", "1")], "get"),
            ("POST", "/v/one", &[("X-V", "1")], "canary"),
            ("POST", "/v/one", &[("x-v", "2")], "v"),
            ("POST", "/v?x=1&who=a%20b&who=c", &[], "query"),
            ("POST", "/v?who=c&who=a+b", &[], "v"),
        ] {
            let request = request(method, uri, headers);
            let found = list
                .select(View::new(&request, 80))
                .map(|entry| entry.rule.route.as_str());
            assert_eq!(found, Some(expected), "{method} {uri} {headers:?}");
        }
    }

    #[test]
    fn equal_matches_go_to_the_oldest_route_then_by_name() {
        let mut list = RouteList::default();
        for (name, created) in [("b/b", 1), ("a/a", 2), ("a/c", 1)] {
            let mut entry = entry(name, prefix("/"));
            entry.age.created = created;
            list.push(entry);
        }
        list.sort();
        let order: Vec<_> = list
            .entries
            .iter()
            .map(|entry| entry.rule.route.as_str())
            .collect();
        assert_eq!(order, ["a/c", "b/b", "a/a"]);
    }

    #[test]
    fn hosts_intersect_as_the_gateway_api_says() {
        for (listener, route, expected) in [
            ("", "a.example.com", Some("a.example.com")),
            ("*.example.com", "a.b.example.com", Some("a.b.example.com")),
            ("*.example.com", "example.com", None),
            ("a.example.com", "*.example.com", Some("a.example.com")),
            ("*.example.com", "*.b.example.com", Some("*.b.example.com")),
            ("*.b.example.com", "*.example.com", Some("*.b.example.com")),
            ("*.example.com", "*.example.org", None),
            ("A.example.com", "a.EXAMPLE.com", Some("a.example.com")),
        ] {
            let both = HostPattern::parse(listener).intersect(&HostPattern::parse(route));
            assert_eq!(both, expected.map(HostPattern::parse), "{listener} {route}");
        }
    }

    #[test]
    fn a_host_finds_its_listener_then_its_route() {
        let mut listeners = Listeners::default();
        let routes: [(&str, &str, &str, Match); 5] = [
            ("", "", "catch-all", prefix("/")),
            ("*.example.com", "", "wildcard", prefix("/")),
            ("*.example.com", "a.example.com", "a", prefix("/only")),
            ("only.example.com", "", "only", prefix("/x")),
            ("*.b.example.com", "", "deeper", prefix("/")),
        ];
        for (listener, host, name, matches) in routes {
            let pattern = HostPattern::parse(listener);
            let hosts = if host.is_empty() {
                vec![]
            } else {
                vec![host.to_owned()]
            };
            for effective in effective_hosts(&pattern, &hosts) {
                listeners
                    .listener(&pattern)
                    .push(&effective, entry(name, matches.clone()));
            }
        }
        listeners.sort();
        for (host, path, expected) in [
            ("other.org", "/", "catch-all"),
            ("z.example.com", "/", "wildcard"),
            ("a.example.com", "/only", "a"),
            ("a.example.com", "/", "wildcard"),
            ("z.b.example.com", "/", "deeper"),
            ("only.example.com", "/x", "only"),
            ("only.example.com", "/y", "no route"),
        ] {
            let request = request("GET", path, &[]);
            let found = match listeners.select(host, View::new(&request, 80)) {
                Selection::Entry(entry) => entry.rule.route.clone(),
                Selection::NoRoute => "no route".to_owned(),
                Selection::NoListener => "no listener".to_owned(),
            };
            assert_eq!(found, expected, "{host}{path}");
        }
        assert!(listeners.names_host("a.example.com"));
        assert!(!listeners.names_host("z.example.com"));
    }

    #[test]
    fn prefixes_are_replaced_as_the_gateway_api_tabulates() {
        for (path, prefix, replacement, expected) in [
            ("/foo/bar", "/foo", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/foo", "/xyz/", "/xyz/bar"),
            ("/foo/bar", "/foo/", "/xyz", "/xyz/bar"),
            ("/foo", "/foo", "/xyz", "/xyz"),
            ("/foo/", "/foo", "/xyz", "/xyz/"),
            ("/foo/bar", "/foo", "", "/bar"),
            ("/foo/", "/foo", "", "/"),
            ("/foo", "/foo", "", "/"),
            ("/foo/", "/foo", "/", "/"),
            ("/foo", "/foo", "/", "/"),
            ("/a", "/", "/x", "/x/a"),
        ] {
            let change = PathChange::Prefix(replacement.to_owned());
            assert_eq!(
                changed_path(path, &change, prefix),
                expected,
                "{path} {prefix} {replacement}"
            );
        }
    }

    #[test]
    fn redirects_name_the_port_only_when_it_is_not_the_usual_one() {
        let to = |redirect: Redirect, uri: &str| {
            let uri: Uri = uri.parse().expect("a URI");
            super::redirect(&[Filter::Redirect(redirect)], "/old", &uri).expect("a redirect")
        };
        let base = Redirect::default;
        let text = [
            to(
                Redirect {
                    hostname: Some("example.org".to_owned()),
                    ..base()
                },
                "http://a:8080/old/p?q=1",
            ),
            to(
                Redirect {
                    scheme: Some("https".to_owned()),
                    status: Some(StatusCode::MOVED_PERMANENTLY),
                    ..base()
                },
                "http://a:8080/old",
            ),
            to(
                Redirect {
                    port: Some(80),
                    path: Some(PathChange::Prefix("/new".to_owned())),
                    ..base()
                },
                "http://a:8080/old/x",
            ),
            to(
                Redirect {
                    scheme: Some("https".to_owned()),
                    port: Some(8443),
                    path: Some(PathChange::Full("/".to_owned())),
                    ..base()
                },
                "http://a/old/x",
            ),
        ]
        .map(|(status, location)| format!("{} {location}", status.as_u16()))
        .join("\n");
        insta::assert_snapshot!(text, @r"
        302 http://example.org:8080/old/p?q=1
        301 https://a/old
        302 http://a/new/x
        302 https://a:8443/
        ");
    }

    #[test]
    fn filters_change_requests_in_order() {
        let name = HeaderName::from_static;
        let value = HeaderValue::from_static;
        let filters = [
            Filter::RequestHeaders(HeaderChange {
                set: vec![(name("a"), value("set"))],
                add: vec![(name("b"), value("two"))],
                remove: vec![name("c")],
            }),
            Filter::Rewrite(Rewrite {
                hostname: Some("other.example".to_owned()),
                path: Some(PathChange::Prefix("/new".to_owned())),
            }),
        ];
        let mut uri: Uri = "http://host:8080/old/x?q=1".parse().expect("a URI");
        let mut headers: HeaderMap = [("a", "old"), ("b", "one"), ("c", "gone")]
            .into_iter()
            .map(|(n, v)| (name(n), value(v)))
            .collect();
        filter_request(&filters, "/old", &mut uri, &mut headers).expect("valid filters");
        assert_eq!(uri, "http://other.example/new/x?q=1");
        let lines: Vec<_> = headers
            .iter()
            .map(|(n, v)| format!("{n}: {}", v.to_str().expect("text")))
            .collect();
        assert_eq!(lines, ["a: set", "b: one", "b: two"]);

        let broken = [Filter::Invalid {
            reason: "no such filter".to_owned(),
        }];
        let error = filter_request(&broken, "", &mut uri, &mut headers);
        assert_eq!(error, Err("no such filter".to_owned()));
    }

    #[test]
    fn weights_are_shares_and_zero_is_none() {
        let backends = |weights: &[u32]| -> Vec<CompiledBackend> {
            weights
                .iter()
                .map(|&weight| CompiledBackend {
                    weight,
                    target: Err(weight.to_string()),
                    filters: Vec::new(),
                })
                .collect()
        };
        let mut rng = SmallRng::seed_from_u64(3);
        let set = backends(&[70, 0, 30]);
        let mut hits = HashMap::new();
        for _ in 0..1000 {
            let chosen = choose_backend(&set, &mut rng).expect("a backend");
            *hits.entry(set[chosen].weight).or_insert(0) += 1;
        }
        assert!((650..750).contains(&hits[&70]), "{hits:?}");
        assert_eq!(hits[&70] + hits[&30], 1000);
        for none in [&[][..], &[0], &[0, 0]] {
            assert!(choose_backend(&backends(none), &mut rng).is_none());
        }
    }
}
