//! `flowcontrol.apiserver.k8s.io`: whose requests come before whose, as objects. Left to others: ordering requests by them
//! (`weft_apiserver::flow_control`).

mod bootstrap;
mod flowschema;
mod prioritylevelconfiguration;

pub use bootstrap::{is_left_over, mandatory, pieces};
pub use flowschema::FLOW_SCHEMA;
pub use prioritylevelconfiguration::PRIORITY_LEVEL_CONFIGURATION;

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use crate::field::Field;
use crate::validate::Problems;

const GROUP: &str = "flowcontrol.apiserver.k8s.io";

/// Conditions have a type, each another.
fn validate_conditions(root: &Field<'_, '_>, problems: &mut Problems) {
    let mut seen = BTreeSet::new();
    for condition in root.items("status.conditions") {
        let kind = condition.child("type");
        if !seen.insert(kind.text()) {
            problems.duplicate(&kind, kind.text());
        }
        problems.required_text(&kind);
    }
}

/// A value as Kubernetes' messages show what is in their own types: names of fields begin with a capital.
fn in_go_names(value: &Value) -> Value {
    match value {
        Value::Object(members) => Value::Object(
            members
                .iter()
                .map(|(name, value)| {
                    let mut letters = name.chars();
                    let first = letters.next().map(|letter| letter.to_ascii_uppercase());
                    let name = first.into_iter().chain(letters).collect();
                    (name, in_go_names(value))
                })
                .collect::<Map<String, Value>>(),
        ),
        Value::Array(elements) => elements.iter().map(in_go_names).collect(),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests;
