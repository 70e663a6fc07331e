//! Host names as listeners and routes write them, and which hosts two of them have in common. Pure.
//!
//! Invariants: lower case; a wildcard stands for any depth below its suffix, never for the suffix itself.

use std::fmt;

/// A `hostname` of the Gateway API. The order of values is no order of preference; [`HostPattern::specificity`] is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HostPattern {
    Any,
    /// `*.example.com`, kept as `.example.com`.
    Wildcard(String),
    Exact(String),
}

impl HostPattern {
    /// No text and `*` are every host.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let text = text.to_ascii_lowercase();
        match text.strip_prefix('*') {
            Some("") => HostPattern::Any,
            Some(suffix) => HostPattern::Wildcard(suffix.to_owned()),
            None if text.is_empty() => HostPattern::Any,
            None => HostPattern::Exact(text),
        }
    }

    /// `host` is in lower case and without port.
    #[must_use]
    pub fn matches(&self, host: &str) -> bool {
        match self {
            HostPattern::Any => true,
            HostPattern::Wildcard(suffix) => host.len() > suffix.len() && host.ends_with(suffix),
            HostPattern::Exact(exact) => host == exact,
        }
    }

    /// Hosts that both match.
    #[must_use]
    pub fn intersect(&self, other: &Self) -> Option<Self> {
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
    #[must_use]
    pub fn specificity(&self) -> (u8, usize) {
        match self {
            HostPattern::Any => (0, 0),
            HostPattern::Wildcard(suffix) => (1, suffix.len()),
            HostPattern::Exact(host) => (2, host.len()),
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HostPattern::Any => f.write_str("*"),
            HostPattern::Wildcard(suffix) => write!(f, "*{suffix}"),
            HostPattern::Exact(host) => f.write_str(host),
        }
    }
}

/// The hosts under which a route is reached through a listener, most specific first. None: they have none in common.
#[must_use]
pub fn effective_hosts(listener: &HostPattern, route: &[String]) -> Vec<HostPattern> {
    let mut hosts: Vec<HostPattern> = if route.is_empty() {
        vec![listener.clone()]
    } else {
        route
            .iter()
            .filter_map(|host| listener.intersect(&HostPattern::parse(host)))
            .collect()
    };
    hosts.sort_by(|a, b| {
        let by = |host: &HostPattern| std::cmp::Reverse(host.specificity());
        by(a).cmp(&by(b)).then_with(|| a.cmp(b))
    });
    hosts.dedup();
    hosts
}

#[cfg(test)]
mod tests {
    use super::*;

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
            ("a.example.com", "b.example.com", None),
        ] {
            let (listener, route) = (HostPattern::parse(listener), HostPattern::parse(route));
            let expected = expected.map(HostPattern::parse);
            assert_eq!(listener.intersect(&route), expected, "{listener} {route}");
            assert_eq!(route.intersect(&listener), expected, "{route} {listener}");
        }
    }

    #[test]
    fn a_host_that_a_route_names_twice_counts_once() {
        let hosts = ["b.example.com", "*.example.com", "B.example.com", "c.org"];
        let hosts = effective_hosts(
            &HostPattern::parse("*.example.com"),
            &hosts.map(str::to_owned),
        );
        let shown: Vec<String> = hosts.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["b.example.com", "*.example.com"]);
    }
}
