//! Which calls pods may make and take.

use std::sync::{Arc, LazyLock};

use serde_json::{Value, json};
use weft_api::name;

use super::GROUP;
use crate::Kind;
use crate::address::{range, range_faults, remarks_on_range};
use crate::columns::{Column, Row, selector_text};
use crate::field::Field;
use crate::lens::{fill, items, items_mut, put};
use crate::strategy::{Strategy, Surroundings};
use crate::validate::{Problems, label_selector};

pub static NETWORK_POLICY: LazyLock<Arc<Kind>> = LazyLock::new(|| {
    Arc::new(Kind {
        short_names: vec!["netpol".into()],
        columns: vec![
            Column::name(),
            Column::text("Pod-Selector", pods, "Labels of the pods it is about."),
            Column::age(),
        ],
        counts_generations: true,
        strategy: Arc::new(NetworkPolicies),
        ..Kind::new(GROUP, "v1", "NetworkPolicy", "networkpolicies")
    })
});

/// The two directions, and what each calls the other side.
const DIRECTIONS: [(&str, &str); 2] = [("ingress", "from"), ("egress", "to")];

struct NetworkPolicies;

impl Strategy for NetworkPolicies {
    fn default(&self, value: &mut Value) {
        for (direction, _) in DIRECTIONS {
            for rule in items_mut(value, &format!("/spec/{direction}")) {
                for port in items_mut(rule, "/ports") {
                    fill(port, "protocol", "TCP");
                }
            }
        }
        let egress = !items(value, "/spec/egress").is_empty();
        if items(value, "/spec/policyTypes").is_empty()
            && let Some(spec) = value.get_mut("spec")
        {
            let types = match egress {
                true => json!(["Ingress", "Egress"]),
                false => json!(["Ingress"]),
            };
            put(spec, "policyTypes", Some(types));
        }
    }

    fn warn(&self, value: &Value, _: &dyn Surroundings) -> Vec<String> {
        let mut told = Vec::new();
        let root = Field::root(value);
        let spec = root.child("spec");
        for (direction, side) in DIRECTIONS {
            for rule in spec.items(direction) {
                for peer in rule.items(side) {
                    let block = peer.child("ipBlock");
                    let whole = block.child("cidr");
                    told.extend(remarks_on_range(&whole.to_string(), whole.text()));
                    for hole in block.items("except") {
                        told.extend(remarks_on_range(&hole.to_string(), hole.text()));
                    }
                }
            }
        }
        told
    }

    fn validate(&self, new: &Value, problems: &mut Problems) {
        let root = Field::root(new);
        let spec = root.child("spec");
        label_selector(&spec.child("podSelector"), problems);
        for (direction, side) in DIRECTIONS {
            for rule in spec.items(direction) {
                for port in rule.items("ports") {
                    self::port(&port, problems);
                }
                for peer in rule.items(side) {
                    self::peer(&peer, problems);
                }
            }
        }
        let types = spec.child("policyTypes");
        if types.list().len() > DIRECTIONS.len() {
            let sentence = "may not specify more than two policyTypes";
            problems.invalid(&types, types.shown(), sentence);
        } else {
            for one in spec.items("policyTypes") {
                problems.one_of(&one, &["Ingress", "Egress"]);
            }
        }
        // Kubernetes tells of these last.
        for (direction, side) in DIRECTIONS {
            for rule in spec.items(direction) {
                for peer in rule.items(side) {
                    let block = peer.child("ipBlock");
                    if block.is_set() {
                        problems.required_text(&block.child("cidr"));
                    }
                }
            }
        }
    }
}

fn port(port: &Field<'_, '_>, problems: &mut Problems) {
    problems.one_of(&port.child("protocol"), &["TCP", "UDP", "SCTP"]);
    let (first, last) = (port.child("port"), port.child("endPort"));
    match first.value() {
        None => {
            if let Some(last_port) = last.integer() {
                let sentence = "may not be specified when `port` is not specified";
                problems.invalid(&last, last_port, sentence);
            }
        }
        Some(Value::String(_)) => {
            if let Some(last_port) = last.integer() {
                let sentence = "may not be specified when `port` is non-numeric";
                problems.invalid(&last, last_port, sentence);
            }
            problems.rule(&first, name::port_name_faults);
        }
        Some(_) => {
            problems.port(&first);
            if let Some(last_port) = last.integer() {
                if last_port < first.integer().unwrap_or(0) {
                    let sentence = "must be greater than or equal to `port`";
                    problems.invalid(&last, last_port, sentence);
                }
                problems.port(&last);
            }
        }
    }
}

fn peer(peer: &Field<'_, '_>, problems: &mut Problems) {
    let mut selects = false;
    for member in ["podSelector", "namespaceSelector"] {
        let selector = peer.child(member);
        if selector.is_set() {
            selects = true;
            label_selector(&selector, problems);
        }
    }
    let block = peer.child("ipBlock");
    match (selects, block.is_set()) {
        (false, false) => return problems.required(peer, "must specify a peer"),
        (_, true) => addresses(&block, problems),
        (true, false) => {}
    }
    if selects && block.is_set() {
        let sentence = "may not specify both ipBlock and another peer";
        problems.forbidden(peer, sentence);
    }
}

fn addresses(block: &Field<'_, '_>, problems: &mut Problems) {
    let whole = block.child("cidr");
    if whole.text().is_empty() {
        return;
    }
    problems.rule(&whole, range_faults);
    let Some(range_of_all) = range(whole.text()) else {
        return;
    };
    for hole in block.items("except") {
        problems.rule(&hole, range_faults);
        let Some(range) = range(hole.text()) else {
            continue;
        };
        let within = range_of_all.contains(&range.network());
        if !within || range_of_all.prefix_len() >= range.prefix_len() {
            let sentence = "must be a strict subset of `cidr`";
            problems.invalid(&hole, hole.text(), sentence);
        }
    }
}

fn pods(row: &Row<'_>) -> Value {
    selector_text(row.object, "/spec/podSelector").into()
}
