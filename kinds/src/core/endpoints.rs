//! Endpoints: the addresses behind a Service in the form that came before EndpointSlices.

use std::sync::{Arc, LazyLock};

use serde_json::Value;
use weft_api::name;

use crate::address::{address_faults, loose, remark_on_address};
use crate::columns::{Column, Row};
use crate::field::Field;
use crate::lens::{fill, integer, items, items_mut, text};
use crate::strategy::{Strategy, Surroundings};
use crate::validate::Problems;
use crate::{Kind, Subresource};

pub static ENDPOINTS: LazyLock<Arc<Kind>> = LazyLock::new(|| {
    Arc::new(Kind {
        short_names: vec!["ep".into()],
        columns: vec![
            Column::name(),
            Column::text("Endpoints", shown, "Addresses and ports."),
            Column::age(),
        ],
        deprecated: Some(
            "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice".into(),
        ),
        strategy: Arc::new(EndpointsRules),
        ..Kind::new("", "v1", "Endpoints", "endpoints")
    })
});

const ADDRESSES: [&str; 2] = ["addresses", "notReadyAddresses"];

struct EndpointsRules;

impl Strategy for EndpointsRules {
    fn creates_on_update(&self) -> bool {
        true
    }

    fn default(&self, value: &mut Value) {
        for subset in items_mut(value, "/subsets") {
            for port in items_mut(subset, "/ports") {
                fill(port, "protocol", "TCP");
            }
        }
    }

    fn warn(&self, value: &Value, _: &dyn Surroundings) -> Vec<String> {
        let mut told = Vec::new();
        let root = Field::root(value);
        for subset in root.items("subsets") {
            for list in ADDRESSES {
                for address in subset.items(list) {
                    let ip = address.child("ip");
                    told.extend(remark_on_address(&ip.to_string(), ip.text()));
                }
            }
        }
        told
    }

    fn validate(&self, new: &Value, problems: &mut Problems) {
        for subset in Field::root(new).items("subsets") {
            if ADDRESSES.iter().all(|list| subset.child(list).is_empty()) {
                let sentence = "must specify `addresses` or `notReadyAddresses`";
                problems.required(&subset, sentence);
            }
            for list in ADDRESSES {
                for address in subset.items(list) {
                    self::address(&address, problems);
                }
            }
            let several = subset.child("ports").list().len() > 1;
            for port in subset.items("ports") {
                self::port(&port, several, problems);
            }
        }
    }

    fn validate_update(
        &self,
        new: &Value,
        old: &Value,
        _: Option<Subresource>,
        problems: &mut Problems,
    ) {
        // What was there before these rules may stay as it is.
        if new.get("subsets") != old.get("subsets") {
            self.validate(new, problems);
        }
    }
}

fn address(address: &Field<'_, '_>, problems: &mut Problems) {
    let ip = address.child("ip");
    problems.rule(&ip, address_faults);
    let host = address.child("hostname");
    if !host.text().is_empty() {
        problems.rule(&host, name::dns1123_label_faults);
    }
    let node = address.child("nodeName");
    if node.is_set() {
        problems.rule(&node, name::dns1123_subdomain_faults);
    }
    match loose(ip.text()) {
        None => problems.invalid(&ip, ip.text(), "must be a valid IP address"),
        Some(parsed) => problems.ordinary_address(&ip, parsed),
    }
}

fn port(port: &Field<'_, '_>, named: bool, problems: &mut Problems) {
    let own_name = port.child("name");
    if !own_name.text().is_empty() {
        problems.rule(&own_name, name::dns1123_label_faults);
    } else if named {
        problems.required(&own_name, "");
    }
    problems.port(&port.child("port"));
    problems.required_one_of(&port.child("protocol"), &["SCTP", "TCP", "UDP"]);
    let application = port.child("appProtocol");
    if application.is_set() {
        problems.rule(&application, name::qualified_name_faults);
    }
}

/// How many endpoints a cell names before it says how many more there are.
const NAMED_IN_CELL: usize = 3;

fn shown(row: &Row<'_>) -> Value {
    let subsets = items(row.object, "/subsets");
    if subsets.is_empty() {
        return "<none>".into();
    }
    let mut all = Vec::new();
    for subset in subsets {
        let addresses = || items(subset, "/addresses").iter();
        let addresses = || addresses().map(|address| text(address, "/ip"));
        // A headless Service may have no ports.
        if items(subset, "/ports").is_empty() {
            all.extend(addresses().map(str::to_owned));
        }
        for port in items(subset, "/ports") {
            let number = integer(port, "/port").unwrap_or(0);
            all.extend(addresses().map(|address| match address.contains(':') {
                true => format!("[{address}]:{number}"),
                false => format!("{address}:{number}"),
            }));
        }
    }
    let more = all.len().saturating_sub(NAMED_IN_CELL);
    all.truncate(NAMED_IN_CELL);
    let joined = all.join(",");
    match more {
        0 => joined.into(),
        more => format!("{joined} + {more} more...").into(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::columns::cells;
    use crate::validate::told;

    #[test]
    fn subsets_have_addresses_and_ports_that_can_be_called() {
        let endpoints = json!({"metadata": {"name": "e", "namespace": "n"}, "subsets": [
            {"addresses": [{"ip": "10.0.0.1", "nodeName": "a"}], "ports": [{"port": 80}]},
        ]});
        told::check(
            &ENDPOINTS,
            &endpoints,
            &[
                (
                    "/subsets/0",
                    json!({}),
                    &[
                        "subsets[0]: Required value: must specify `addresses` or `notReadyAddresses`",
                    ],
                ),
                (
                    "/subsets/0/addresses/0/ip",
                    json!(""),
                    &[
                        "subsets[0].addresses[0].ip: Invalid value: \"\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
                        "subsets[0].addresses[0].ip: Invalid value: \"\": must be a valid IP address",
                    ],
                ),
                (
                    "/subsets/0/addresses/0/ip",
                    json!("127.0.0.1"),
                    &[
                        "subsets[0].addresses[0].ip: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)",
                    ],
                ),
                (
                    "/subsets/0/ports",
                    json!([{"port": 0, "name": "a"}, {"port": 1}]),
                    &[
                        "subsets[0].ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
                        "subsets[0].ports[1].name: Required value",
                    ],
                ),
            ],
        );
    }

    #[test]
    fn a_cell_names_three_and_counts_the_rest() {
        for (subsets, expected) in [
            (json!([]), "<none>"),
            (json!([{"addresses": [{"ip": "10.0.0.1"}]}]), "10.0.0.1"),
            (
                json!([{"addresses": [{"ip": "::2"}, {"ip": "10.0.0.1"}], "ports": [{"port": 1}, {"port": 2}]}]),
                "[::2]:1,10.0.0.1:1,[::2]:2 + 1 more...",
            ),
        ] {
            let endpoints = json!({"metadata": {"name": "e"}, "subsets": subsets});
            assert_eq!(
                json!(cells(&ENDPOINTS, &endpoints)),
                json!(["e", expected, "10s"])
            );
        }
    }
}
