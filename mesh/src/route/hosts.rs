//! Routes by host: which listener is responsible for a host, and which of its routes a request meets. Pure.

use std::collections::{BTreeMap, HashMap};

use weft_gateway::HostPattern;

use super::{Entry, RouteList, View};

/// Routes by host for all listeners that share one host pattern. The most specific listener alone is responsible
/// for a host, as listener isolation asks.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Listeners {
    exact: HashMap<String, HostRoutes>,
    /// Longest suffix first.
    wildcard: Vec<(String, HostRoutes)>,
    any: Option<HostRoutes>,
}

#[derive(Debug, Default, PartialEq)]
pub(crate) struct HostRoutes {
    exact: HashMap<String, RouteList>,
    wildcard: Vec<(String, RouteList)>,
    any: RouteList,
}

impl Listeners {
    /// Of what is served at listeners.
    pub(crate) fn of(served: &BTreeMap<HostPattern, weft_gateway::HostRoutes>) -> Self {
        let mut listeners = Self::default();
        for (pattern, hosts) in served {
            // Announced even without a route: it answers 404 for its hosts.
            let listener = listeners.listener(pattern);
            for (host, routes) in hosts {
                routes.iter().for_each(|route| {
                    Entry::each(route).for_each(|entry| listener.push(host, entry));
                });
            }
        }
        listeners.sort();
        listeners
    }

    /// The routes of the listeners with this pattern; also announces the listener.
    fn listener(&mut self, pattern: &HostPattern) -> &mut HostRoutes {
        match pattern {
            HostPattern::Any => self.any.get_or_insert_default(),
            HostPattern::Exact(host) => self.exact.entry(host.clone()).or_default(),
            HostPattern::Wildcard(suffix) => slot(&mut self.wildcard, suffix),
        }
    }

    fn sort(&mut self) {
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

    /// Whether somebody published something for this host, by a listener or a route that covers it: then they alone say what
    /// answers there, if only 404.
    pub(crate) fn claims(&self, host: &str) -> bool {
        self.of_host(host)
            .or_else(|| self.any.as_ref().filter(|routes| routes.cover(host)))
            .is_some()
    }

    /// The routes of the most specific listener that names the host, exactly or by a wildcard.
    fn of_host(&self, host: &str) -> Option<&HostRoutes> {
        self.exact.get(host).or_else(|| {
            self.wildcard
                .iter()
                .find(|(suffix, _)| host.len() > suffix.len() && host.ends_with(suffix))
                .map(|(_, routes)| routes)
        })
    }

    /// Whether one listener is responsible for both hosts, if one is for the first.
    pub(crate) fn are_of_one(&self, one: &str, other: &str) -> bool {
        let responsible = |host: &str| self.of_host(host).or(self.any.as_ref());
        match (responsible(one), responsible(other)) {
            (Some(one), Some(other)) => std::ptr::eq(one, other),
            (_, None) => true,
            (None, Some(_)) => false,
        }
    }

    /// What the routes of the listener that is responsible for `host` have for a request; it is in lower case and without port.
    pub(crate) fn select(&self, host: &str, view: View<'_>) -> Option<&Entry> {
        let responsible = self.of_host(host).or(self.any.as_ref());
        responsible?.select(host, view)
    }
}

impl HostRoutes {
    fn push(&mut self, pattern: &HostPattern, entry: Entry) {
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

    /// The lists of the routes that cover the host, most specific first.
    fn lists(&self, host: &str) -> impl Iterator<Item = &RouteList> {
        let exact = self.exact.get(host);
        let wildcard = self
            .wildcard
            .iter()
            .filter(move |(suffix, _)| host.len() > suffix.len() && host.ends_with(suffix))
            .map(|(_, list)| list);
        exact
            .into_iter()
            .chain(wildcard)
            .chain(std::iter::once(&self.any))
    }

    fn cover(&self, host: &str) -> bool {
        self.lists(host).any(|list| !list.is_empty())
    }

    fn select(&self, host: &str, view: View<'_>) -> Option<&Entry> {
        self.lists(host).find_map(|list| list.select(view))
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

#[cfg(test)]
mod tests {
    use weft_gateway::effective_hosts;

    use super::*;
    use crate::route::testing::{attached, prefix, request};

    #[test]
    fn a_host_finds_its_listener_then_its_route() {
        let mut served: BTreeMap<HostPattern, weft_gateway::HostRoutes> = BTreeMap::new();
        let routes: [(&str, &str, &str, &str); 5] = [
            ("", "", "catch-all", "/"),
            ("*.example.com", "", "wildcard", "/"),
            ("*.example.com", "a.example.com", "a", "/only"),
            ("only.example.com", "", "only", "/x"),
            ("*.b.example.com", "", "deeper", "/"),
        ];
        for (listener, host, name, path) in routes {
            let pattern = HostPattern::parse(listener);
            let hosts: Vec<String> = (!host.is_empty())
                .then(|| host.to_owned())
                .into_iter()
                .collect();
            for effective in effective_hosts(&pattern, &hosts) {
                let hosts = served.entry(pattern.clone()).or_default();
                hosts
                    .entry(effective)
                    .or_default()
                    .push(attached(name, vec![prefix(path)]));
            }
        }
        served.insert(HostPattern::parse("empty.org"), Default::default());
        let listeners = Listeners::of(&served);
        for (host, path, expected) in [
            ("other.org", "/", "catch-all"),
            ("empty.org", "/", "no route"),
            ("z.example.com", "/", "wildcard"),
            ("a.example.com", "/only", "a"),
            ("a.example.com", "/", "wildcard"),
            ("z.b.example.com", "/", "deeper"),
            ("only.example.com", "/x", "only"),
            ("only.example.com", "/y", "no route"),
        ] {
            let request = request("GET", path, &[]);
            let found = listeners.select(host, View::new(&request, 80));
            let found = found.map_or("no route", |entry| &*entry.rule.route);
            assert_eq!(found, expected, "{host}{path}");
        }
    }

    #[test]
    fn whoever_published_a_host_alone_says_what_answers_there() {
        let claims = |listener: &str, route: Option<&str>, host: &str| {
            let pattern = HostPattern::parse(listener);
            let mut hosts = weft_gateway::HostRoutes::default();
            if let Some(route) = route {
                let named = Vec::from_iter((!route.is_empty()).then(|| route.to_owned()));
                for effective in effective_hosts(&pattern, &named) {
                    let routes = hosts.entry(effective).or_default();
                    routes.push(attached("r", vec![prefix("/only")]));
                }
            }
            Listeners::of(&BTreeMap::from([(pattern, hosts)])).claims(host)
        };
        let host = "web.vote.localhost";
        for (listener, route, claimed) in [
            // A gateway for all hosts without a route names none.
            ("", None, false),
            ("", Some("shop.example"), false),
            ("", Some(host), true),
            ("", Some("*.vote.localhost"), true),
            ("", Some(""), true),
            ("*.localhost", None, true),
            (host, None, true),
            ("*.example", Some(""), false),
        ] {
            let found = claims(listener, route, host);
            assert_eq!(found, claimed, "{listener} {route:?}");
        }
        assert!(!Listeners::default().claims(host));
    }
}
