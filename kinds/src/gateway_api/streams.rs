//! TCPRoute, UDPRoute and TLSRoute: connections that are led on as they are.

use super::parts::{
    default_gateways, host, labels_with_dots, parents, root, route_status, section,
    weighted_backend, with_unique_names,
};
use super::shape::{Fields, Shape, list, object};

/// As the first versions had it: several rules, of which nothing tells which connection each is for.
const RULES_ONCE: u64 = 16;
const HOSTS_MAX: u64 = 1024;

pub(super) fn stream_route() -> Shape {
    of_streams("Where connections that come to a port are led.", rules())
}

pub(super) fn stream_route_of_before() -> Shape {
    let words = "Where connections that come to a port are led, as it was written before.";
    of_streams(words, rules_of_before())
}

pub(super) fn tls_route() -> Shape {
    let pattern = format!(r"^({})$", labels_with_dots()).replace('\\', r"\\");
    let hosts = list(host())
        .length(1, HOSTS_MAX)
        .rule("!self.exists(h, isIP(h))", "Hostnames cannot contain an IP")
        .rule(
            format!("self.all(h, h.contains('*') || h.matches('{pattern}'))"),
            "Hostnames must be valid based on RFC-1123",
        )
        .rule(
            format!(
                "self.all(h, !h.contains('*') || (h.startsWith('*.') && h.substring(2).matches('{pattern}')))"
            ),
            "Wildcards on hostnames must be the first label, and the rest of hostname must be valid based on RFC-1123",
        );
    let words = "Where connections that ask for some hosts by TLS are led.";
    route(words, vec![("hostnames!", hosts)], rules())
}

pub(super) fn tls_route_of_before() -> Shape {
    let hosts = list(host()).at_most(HOSTS_MAX);
    let words =
        "Where connections that ask for some hosts by TLS are led, as it was written before.";
    route(words, vec![("hostnames", hosts)], rules_of_before())
}

fn of_streams(words: &str, rules: Shape) -> Shape {
    route(words, Vec::new(), rules)
}

fn route(words: &str, hosts: Fields, rules: Shape) -> Shape {
    let mut fields = vec![
        ("parentRefs", parents()),
        ("useDefaultGateways", default_gateways()),
    ];
    fields.extend(hosts);
    fields.push(("rules!", rules));
    root(words, object(fields), Some(route_status()))
}

fn rule() -> Shape {
    object([
        ("name", section()),
        (
            "backendRefs!",
            list(weighted_backend(Vec::new())).length(1, 16),
        ),
    ])
}

fn rules() -> Shape {
    list(rule()).length(1, 1)
}

fn rules_of_before() -> Shape {
    with_unique_names(list(rule()).length(1, RULES_ONCE))
}
