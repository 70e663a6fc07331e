//! `discovery.k8s.io`: EndpointSlices.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Arc, LazyLock};

use serde_json::Value;
use weft_api::name;

use crate::columns::{Column, Row};
use crate::field::Field;
use crate::lens::{fill, integer, items, items_mut, none_when_empty, object, put, text};
use crate::strategy::{Strategy, desired_state_differs};
use crate::validate::Problems;
use crate::{Kind, Subresource};

/// Bounds of a slice, as in Kubernetes: watchers get a slice whole with each change of one endpoint.
const ENDPOINTS_MAX: usize = 1000;
const PORTS_MAX: usize = 20_000;
const ADDRESSES_MAX: usize = 100;
const HINTS_MAX: usize = 8;

pub static ENDPOINT_SLICE: LazyLock<Arc<Kind>> = LazyLock::new(|| {
    Arc::new(Kind {
        columns: vec![
            Column::name(),
            Column::text("AddressType", address_type, "Type of the addresses."),
            Column::text("Ports", ports, "Ports of the endpoints."),
            Column::text("Endpoints", endpoints, "Addresses of the endpoints."),
            Column::age(),
        ],
        counts_generations: true,
        strategy: Arc::new(EndpointSlices),
        ..Kind::new("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices")
    })
});

struct EndpointSlices;

impl Strategy for EndpointSlices {
    fn default(&self, value: &mut Value) {
        for port in items_mut(value, "/ports") {
            fill(port, "name", "");
            fill(port, "protocol", "TCP");
        }
    }

    fn settle(&self, next: &mut Value, _: Option<&Value>) {
        none_when_empty(next, "endpoints");
        none_when_empty(next, "ports");
    }

    /// Labels say whose endpoints these are. A topology of before `v1` asks for something, too, although it is not kept.
    fn asks_for_change(&self, next: &Value, old: &Value) -> bool {
        let labels = |slice: &Value| {
            object(slice, "/metadata/labels")
                .cloned()
                .unwrap_or_default()
        };
        desired_state_differs(next, old) || labels(next) != labels(old)
    }

    fn drop_unserved(&self, next: &mut Value) {
        for endpoint in items_mut(next, "/endpoints") {
            put(endpoint, "deprecatedTopology", None);
        }
    }

    fn validate(&self, new: &Value, problems: &mut Problems) {
        let root = Field::root(new);
        let kind = root.child("addressType");
        problems.required_one_of(&kind, &["FQDN", "IPv4", "IPv6"]);
        validate_ports(&root, problems);
        let endpoints = root.child("endpoints");
        if endpoints.list().len() > ENDPOINTS_MAX {
            return problems.too_many(&endpoints, endpoints.list().len(), ENDPOINTS_MAX);
        }
        for endpoint in root.items("endpoints") {
            validate_endpoint(&endpoint, kind.text(), problems);
        }
    }

    fn validate_update(
        &self,
        new: &Value,
        old: &Value,
        _: Option<Subresource>,
        problems: &mut Problems,
    ) {
        self.validate(new, problems);
        let (root, before) = (Field::root(new), Field::root(old));
        let (kind, kept) = (root.child("addressType"), before.child("addressType"));
        if kind.text() != kept.text() {
            problems.invalid(&kind, Value::Null, "field is immutable");
        }
    }
}

fn validate_ports(slice: &Field<'_, '_>, problems: &mut Problems) {
    let all = slice.child("ports");
    if all.list().len() > PORTS_MAX {
        return problems.too_many(&all, all.list().len(), PORTS_MAX);
    }
    let mut names = BTreeSet::new();
    for port in slice.items("ports") {
        let own_name = port.child("name");
        if !own_name.text().is_empty() {
            problems.rule(&own_name, name::dns1123_label_faults);
        }
        if !names.insert(own_name.text()) {
            problems.duplicate(&own_name, own_name.text());
        }
        problems.required_one_of(&port.child("protocol"), &["SCTP", "TCP", "UDP"]);
        let application = port.child("appProtocol");
        if application.is_set() {
            problems.rule(&application, name::qualified_name_faults);
        }
    }
}

fn validate_endpoint(endpoint: &Field<'_, '_>, kind: &str, problems: &mut Problems) {
    let all = endpoint.child("addresses");
    if all.list().is_empty() {
        problems.required(&all, "");
    } else if all.list().len() > ADDRESSES_MAX {
        problems.too_many(&all, all.list().len(), ADDRESSES_MAX);
    }
    for address in endpoint.items("addresses") {
        match kind {
            "IPv4" | "IPv6" => {
                let Ok(parsed) = address.text().parse::<IpAddr>() else {
                    problems.ip_address(&address);
                    continue;
                };
                if parsed.is_ipv4() != (kind == "IPv4") {
                    let sentence = format!("must be an {kind} address");
                    problems.invalid(&all, address.text(), &sentence);
                }
                problems.ordinary_address(&address, parsed);
            }
            "FQDN" => domain(&address, problems),
            _ => {}
        }
    }
    let node = endpoint.child("nodeName");
    if node.is_set() {
        problems.rule(&node, name::dns1123_subdomain_faults);
    }
    let host = endpoint.child("hostname");
    if host.is_set() {
        problems.rule(&host, name::dns1123_label_faults);
    }
    validate_hints(&endpoint.child("hints"), problems);
}

/// A name of two or more labels, with a dot behind it or not. The first fault is told.
fn domain(address: &Field<'_, '_>, problems: &mut Problems) {
    let text = address.text();
    if text.is_empty() {
        return problems.required(address, "");
    }
    let name = text.strip_suffix('.').unwrap_or(text);
    let faults = name::dns1123_subdomain_faults(name);
    if !faults.is_empty() {
        return problems.invalid(address, name, &faults.join(","));
    }
    if !name.contains('.') {
        let sentence = "should be a domain with at least two segments separated by dots";
        return problems.invalid(address, name, sentence);
    }
    for label in name.split('.') {
        let faults = name::dns1123_label_faults(label);
        if !faults.is_empty() {
            return problems.invalid(address, label, &faults.join(","));
        }
    }
}

fn validate_hints(hints: &Field<'_, '_>, problems: &mut Problems) {
    for list in ["forZones", "forNodes"] {
        let all = hints.child(list);
        if all.list().len() > HINTS_MAX {
            return problems.too_many(&all, all.list().len(), HINTS_MAX);
        }
        let mut seen = BTreeSet::new();
        for hint in hints.items(list) {
            let own_name = hint.child("name");
            if !seen.insert(own_name.text()) {
                problems.duplicate(&own_name, own_name.text());
            }
            match list {
                "forZones" => problems.rule(&own_name, name::label_value_faults),
                _ => problems.rule(&own_name, name::dns1123_subdomain_faults),
            }
        }
    }
}

/// How many endpoints or ports a cell names before it says how many more there are.
const NAMED_IN_CELL: usize = 3;

fn some_of(mut all: Vec<String>) -> Value {
    let more = all.len().saturating_sub(NAMED_IN_CELL);
    all.truncate(NAMED_IN_CELL);
    let joined = all.join(",");
    if more > 0 {
        return format!("{joined} + {more} more...").into();
    }
    Value::from(if joined.is_empty() {
        "<unset>".to_owned()
    } else {
        joined
    })
}

fn address_type(row: &Row<'_>) -> Value {
    row.text_or("/addressType", "")
}

fn ports(row: &Row<'_>) -> Value {
    let ports = items(row.object, "/ports")
        .iter()
        .map(|port| match integer(port, "/port") {
            Some(number) => number.to_string(),
            None => text(port, "/name").to_owned(),
        })
        .collect();
    some_of(ports)
}

fn endpoints(row: &Row<'_>) -> Value {
    let addresses = items(row.object, "/endpoints")
        .iter()
        .flat_map(|endpoint| items(endpoint, "/addresses"))
        .filter_map(|address| address.as_str().map(str::to_owned))
        .collect();
    some_of(addresses)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::validate::told;

    #[test]
    fn labels_and_a_topology_that_is_not_kept_count_a_generation() {
        let strategy = &ENDPOINT_SLICE.strategy;
        let old = json!({"metadata": {"name": "s", "annotations": {"a": "b"}},
            "endpoints": [{"addresses": ["10.0.0.1"]}], "ports": null});
        for (pointer, changed, counts) in [
            ("/metadata", json!({"name": "s", "labels": {}}), false),
            (
                "/metadata",
                json!({"name": "s", "labels": {"a": "b"}}),
                true,
            ),
            ("/ports", json!([{"port": 1}]), true),
            (
                "/endpoints/0",
                json!({"addresses": ["10.0.0.1"], "deprecatedTopology": {"a": "b"}}),
                true,
            ),
        ] {
            let mut next = told::with(&old, pointer, changed);
            assert_eq!(strategy.asks_for_change(&next, &old), counts, "{next}");
            strategy.drop_unserved(&mut next);
            assert_eq!(next.pointer("/endpoints/0/deprecatedTopology"), None);
        }
    }

    #[test]
    fn addresses_are_of_their_type() {
        let slice = |kind: &str, addresses: Value| {
            json!({"metadata": {"name": "s", "namespace": "n"}, "addressType": kind,
                "endpoints": [{"addresses": addresses}], "ports": [{"port": 80}]})
        };
        for (kind, addresses, expected) in [
            ("IPv4", json!(["10.0.0.1"]), vec![]),
            (
                "",
                json!([]),
                vec![
                    "addressType: Required value",
                    "endpoints[0].addresses: Required value",
                ],
            ),
            (
                "IPv4",
                json!(["::2"]),
                vec!["endpoints[0].addresses: Invalid value: \"::2\": must be an IPv4 address"],
            ),
            (
                "IPv4",
                json!(["169.254.0.1"]),
                vec![
                    "endpoints[0].addresses[0]: Invalid value: \"169.254.0.1\": may not be in the link-local range (169.254.0.0/16, fe80::/10)",
                ],
            ),
            (
                "FQDN",
                json!(["host"]),
                vec![
                    "endpoints[0].addresses[0]: Invalid value: \"host\": should be a domain with at least two segments separated by dots",
                ],
            ),
        ] {
            assert_eq!(
                told::of_new(&ENDPOINT_SLICE, &slice(kind, addresses)),
                expected,
                "{kind}"
            );
        }
    }
}
