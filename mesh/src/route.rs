//! Routes as the data plane looks them up: every match of every rule as an [`Entry`], in order of precedence. Pure.
//!
//! ```text
//! weft_gateway: Rule (what is asked)     matching.rs (does a request meet it)     exchange.rs (what is done then, and when)
//! policy.rs, cors.rs: how     session.rs: where a client stays     hosts.rs: which routes are looked at for a host of the gateway
//! ```
//! Order of preference among everything that matches: most specific host name; then exact path, longest path
//! prefix, a method, most headers, most query parameters; then the oldest route, its `namespace/name`, and the
//! order inside it. Lists are sorted once, when a table is made, so the first match is the right one.
//!
//! Invariant: entries share the rules that they were made from; nothing here depends on what else is in a table.

mod cors;
mod exchange;
mod hosts;
mod matching;
mod policy;
mod session;

use std::{cmp::Reverse, sync::Arc};

use weft_turns::Tenant;

pub(crate) use exchange::{Exchange, Mirrored};
pub(crate) use hosts::Listeners;
pub(crate) use matching::View;
pub(crate) use session::{AnsweredBy, Stays, Sticky};
pub use weft_gateway::{
    AttachedRoute, Backend, BackendTarget, BackendTls, CertificateName, ClientValidation, Filter,
    Front, FrontTls, HeaderChange, HostPattern, Match, Mirror, NamespacedName, PathChange,
    PathMatch, Redirect, Retry, Rewrite, Rule, Served, ServiceRoutes,
};

use matching::elements;

/// What a rule without conditions asks of a request: nothing.
static EVERYTHING: Match = Match {
    path: PathMatch::Prefix(String::new()),
    method: None,
    headers: Vec::new(),
    query: Vec::new(),
    header_patterns: Vec::new(),
    query_patterns: Vec::new(),
};

/// One match of one rule, with all that decides its place in a list.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    pub(crate) rule: Arc<Rule>,
    age: Age,
    /// Whose route it is.
    pub(crate) tenant: Tenant,
    /// Only for requests to this port of the parent.
    port: Option<u16>,
    /// Of the listener, where it is also the node's.
    pub(crate) listener_port: Option<u16>,
    /// Whose listener it is at; none at a Service.
    pub(crate) gateways: Arc<[NamespacedName]>,
}

/// Breaks ties: older first, then by name, then by position.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Age {
    created: i64,
    route: Arc<str>,
    rule: usize,
    matched: usize,
}

impl Entry {
    /// All that a route at a parent comes to.
    pub(crate) fn each(attached: &AttachedRoute) -> impl Iterator<Item = Self> + use<'_> {
        let route: Arc<str> = attached.route.as_str().into();
        let namespace = route.split_once('/').map_or("", |(namespace, _)| namespace);
        let tenant = Tenant::named(namespace);
        let gateways: Arc<[NamespacedName]> = attached.gateways.as_slice().into();
        let rules = attached.rules.iter().enumerate();
        rules.flat_map(move |(number, rule)| {
            let (route, gateways) = (Arc::clone(&route), Arc::clone(&gateways));
            (0..rule.matches.len().max(1)).map(move |matched| Self {
                rule: Arc::clone(rule),
                age: Age {
                    created: attached.created,
                    route: Arc::clone(&route),
                    rule: number,
                    matched,
                },
                tenant,
                port: attached.service_port,
                listener_port: attached.listener_port,
                gateways: Arc::clone(&gateways),
            })
        })
    }

    fn matches(&self) -> &Match {
        self.rule
            .matches
            .get(self.age.matched)
            .unwrap_or(&EVERYTHING)
    }

    /// Smaller sorts first.
    fn precedence(&self) -> impl Ord + use<'_> {
        let matches = self.matches();
        let (exact, length) = match &matches.path {
            PathMatch::Exact(path) => (true, path.len()),
            PathMatch::Prefix(prefix) => (false, elements(prefix).len()),
            PathMatch::Method(_) => (false, 0),
            PathMatch::Pattern(pattern) => (false, pattern.as_str().len()),
        };
        let is_of_method = matches!(matches.path, PathMatch::Method(_));
        (
            Reverse((
                exact,
                length,
                is_of_method || matches.method.is_some(),
                matches.headers.len() + matches.header_patterns.len(),
                matches.query.len() + matches.query_patterns.len(),
            )),
            &self.age,
        )
    }

    /// What the rule's path prefix is, for filters that replace it.
    pub(crate) fn prefix(&self) -> &str {
        match &self.matches().path {
            PathMatch::Exact(path) => path,
            PathMatch::Prefix(prefix) => elements(prefix),
            PathMatch::Method(_) | PathMatch::Pattern(_) => "",
        }
    }
}

/// Matches sorted by precedence.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct RouteList {
    entries: Vec<Entry>,
}

impl RouteList {
    /// Of what is attached to one parent.
    pub(crate) fn of(routes: &[AttachedRoute]) -> Self {
        let mut list = Self {
            entries: routes.iter().flat_map(Entry::each).collect(),
        };
        list.sort();
        list
    }

    fn push(&mut self, entry: Entry) {
        self.entries.push(entry);
    }

    fn sort(&mut self) {
        self.entries
            .sort_by(|a, b| a.precedence().cmp(&b.precedence()));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Their rules, in order of precedence; one that has several matches comes as often.
    pub(crate) fn rules(&self) -> impl Iterator<Item = &Arc<Rule>> {
        self.entries.iter().map(|entry| &entry.rule)
    }

    /// Whether any route is bound to `port` of the parent.
    pub(crate) fn covers(&self, port: u16) -> bool {
        self.entries
            .iter()
            .any(|entry| entry.port.is_none_or(|bound| bound == port))
    }

    pub(crate) fn select(&self, view: View<'_>) -> Option<&Entry> {
        self.entries.iter().find(|entry| {
            entry.port.is_none_or(|port| port == view.port)
                && matching::matches(entry.matches(), view)
        })
    }
}

/// Short ways to make routes in tests.
#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    pub(crate) fn exact(path: &str) -> Match {
        Match {
            path: PathMatch::Exact(path.to_owned()),
            ..Match::default()
        }
    }

    pub(crate) fn prefix(path: &str) -> Match {
        Match {
            path: PathMatch::Prefix(path.to_owned()),
            ..Match::default()
        }
    }

    /// A route each, called by its number in three digits.
    pub(crate) fn list(matches: &[Match]) -> RouteList {
        let routes = matches.iter().enumerate();
        let routes: Vec<_> = routes
            .map(|(number, matched)| attached(&format!("{number:03}"), vec![matched.clone()]))
            .collect();
        RouteList::of(&routes)
    }

    /// A route of this name with one rule, which does nothing.
    pub(crate) fn attached(name: &str, matches: Vec<Match>) -> AttachedRoute {
        let rule = Rule {
            route: name.to_owned(),
            matches,
            ..Rule::default()
        };
        attached_rules(name, vec![rule])
    }

    pub(crate) fn attached_rules(name: &str, rules: Vec<Rule>) -> AttachedRoute {
        AttachedRoute {
            route: name.to_owned(),
            created: 0,
            rules: rules.into_iter().map(Arc::new).collect(),
            ..AttachedRoute::default()
        }
    }

    /// What `filter`, of a rule for the path `prefix`, makes of a request to `uri`: its URI, or its answer.
    fn filtered(
        filter: Filter,
        prefix: &str,
        uri: &http::Uri,
    ) -> Result<http::Uri, Box<http::Response<crate::Body>>> {
        let backend = Backend::new(BackendTarget::Invalid {
            reason: String::new(),
        });
        let rule = Rule {
            filters: vec![filter],
            backends: vec![backend],
            matches: vec![self::prefix(prefix)],
            ..Rule::default()
        };
        let attached = attached_rules("route", vec![rule]);
        let entry = Entry::each(&attached).next().expect("an entry");
        let mut request = http::Request::new(());
        *request.uri_mut() = uri.clone();
        match Exchange::begin(&entry, &mut request, None, &mut rand::rng()).expect("a valid filter")
        {
            std::ops::ControlFlow::Continue(_) => Ok(std::mem::take(request.uri_mut())),
            std::ops::ControlFlow::Break(response) => Err(Box::new(response)),
        }
    }

    pub(crate) fn rewritten(filter: Filter, prefix: &str, uri: http::Uri) -> http::Uri {
        filtered(filter, prefix, &uri).expect("no answer")
    }

    pub(crate) fn redirected(
        filter: Filter,
        prefix: &str,
        uri: &http::Uri,
    ) -> (http::StatusCode, String) {
        let response = filtered(filter, prefix, uri).expect_err("an answer");
        let location = response.headers()[http::header::LOCATION]
            .to_str()
            .expect("text");
        (response.status(), location.to_owned())
    }

    pub(crate) fn request(method: &str, uri: &str, headers: &[(&str, &str)]) -> http::Request<()> {
        let mut builder = http::Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        builder.body(()).expect("a request")
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, Method};

    use super::{
        testing::{attached, exact, prefix, request},
        *,
    };

    #[test]
    fn the_most_specific_match_wins() {
        let with = |mut base: Match, edit: fn(&mut Match)| {
            edit(&mut base);
            base
        };
        let entry = |name: &str, matches: Match| attached(name, vec![matches]);
        let list = RouteList::of(&[
            attached("any", Vec::new()),
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
        ]);
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
        let routes = [("b/b", 1), ("a/a", 2), ("a/c", 1)].map(|(name, created)| AttachedRoute {
            created,
            ..attached(name, vec![prefix("/"), exact("/x")])
        });
        let list = RouteList::of(&routes);
        let order: Vec<_> = list
            .entries
            .iter()
            .map(|entry| (entry.rule.route.as_str(), entry.age.matched))
            .collect();
        let expected = [1, 0].map(|matched| ["a/c", "b/b", "a/a"].map(|name| (name, matched)));
        assert_eq!(order, expected.concat());
    }
}
