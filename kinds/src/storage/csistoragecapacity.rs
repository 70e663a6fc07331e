//! How much a driver has left where, for one class of volumes.

use std::sync::{Arc, LazyLock};

use serde_json::Value;
use weft_api::name;

use super::GROUP;
use crate::columns::Column;
use crate::field::Field;
use crate::node_labels::deprecated;
use crate::strategy::{Strategy, Surroundings};
use crate::validate::{Problems, label_selector};
use crate::{Kind, Subresource, unserved};

pub static CSI_STORAGE_CAPACITY: LazyLock<Arc<Kind>> = LazyLock::new(|| {
    Arc::new(Kind {
        columns: vec![Column::name(), Column::created_at()],
        strategy: Arc::new(Capacities),
        ..Kind::new(GROUP, "v1", "CSIStorageCapacity", "csistoragecapacities")
    })
});

struct Capacities;

impl Strategy for Capacities {
    fn allows_unconditional_update(&self) -> bool {
        false
    }

    fn warn(&self, value: &Value, _: &dyn Surroundings) -> Vec<String> {
        let mut told = unserved::told_of(GROUP, "CSIStorageCapacity");
        let root = Field::root(value);
        let nodes = root.child("nodeTopology");
        for expression in nodes.items("matchExpressions") {
            let key = expression.child("key");
            let label = key.text();
            told.extend(deprecated(label).map(|message| format!("{key}: {label} is {message}")));
        }
        for label in nodes.child("matchLabels").map().into_iter().flatten() {
            let label = label.0;
            let message = deprecated(label);
            told.extend(message.map(|message| format!("{nodes}.matchLabels.{label}: {message}")));
        }
        told
    }

    fn validate(&self, new: &Value, problems: &mut Problems) {
        let root = Field::root(new);
        label_selector(&root.child("nodeTopology"), problems);
        problems.rule(
            &root.child("storageClassName"),
            name::dns1123_subdomain_faults,
        );
        let capacity = root.child("capacity");
        if capacity.quantity().is_some_and(|left| left.is_negative()) {
            let sentence = "must be greater than or equal to 0";
            problems.invalid(&capacity, capacity.shown(), sentence);
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
        let (nodes, kept) = (root.child("nodeTopology"), before.child("nodeTopology"));
        if nodes.value() != kept.value() {
            problems.invalid_in_go(&nodes, &in_order(&nodes), "field is immutable");
        }
        problems.immutable_text(
            &root.child("storageClassName"),
            &before.child("storageClassName"),
        );
    }
}

/// A selector with its members in the order of Kubernetes' messages.
fn in_order(selector: &Field<'_, '_>) -> String {
    let Some(members) = selector.map() else {
        return Value::Null.to_string();
    };
    let shown = ["matchLabels", "matchExpressions"]
        .into_iter()
        .filter_map(|name| {
            let value = members.get(name)?;
            Some(format!("\"{name}\":{value}"))
        });
    format!("{{{}}}", shown.collect::<Vec<_>>().join(","))
}
