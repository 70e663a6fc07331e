//! ReplicaSets.

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

use serde_json::Value;

use super::workload;
use crate::columns::{Column, Row, current_replicas, desired_replicas};
use crate::field::Field;
use crate::kind::Selectable;
use crate::lens::{fill, member};
use crate::strategy::{Strategy, Surroundings};
use crate::validate::Problems;
use crate::{Kind, Subresource, weft};

pub static REPLICA_SET: LazyLock<Arc<Kind>> = LazyLock::new(|| {
    let counts = [
        Column::integer("Desired", desired_replicas, "Pods wanted."),
        Column::integer("Current", current_replicas, "Pods there."),
        Column::integer("Ready", ready, "Pods ready."),
    ];
    Arc::new(Kind {
        selectable: vec![Selectable::or("status.replicas", "/status/replicas", "0")],
        ..workload::kind("ReplicaSet", "replicasets", "rs", counts, ReplicaSets)
    })
});

struct ReplicaSets;

impl Strategy for ReplicaSets {
    fn default(&self, value: &mut Value) {
        workload::default_template(value);
        if let Some(spec) = value.get_mut("spec") {
            fill(spec, "replicas", 1);
        }
        fill(member(value, "status"), "replicas", 0);
    }

    fn images(&self, value: &Value) -> BTreeSet<String> {
        workload::images_of_pods(value)
    }

    fn warn(&self, value: &Value, around: &dyn Surroundings) -> Vec<String> {
        weft::warnings_of_template(value, around)
    }

    fn validate(&self, new: &Value, problems: &mut Problems) {
        let root = Field::root(new);
        let spec = root.child("spec");
        problems.not_negative(&spec.child("replicas"));
        problems.not_negative(&spec.child("minReadySeconds"));
        workload::validate_pods(&spec, problems);
    }

    fn validate_update(
        &self,
        new: &Value,
        old: &Value,
        part: Option<Subresource>,
        problems: &mut Problems,
    ) {
        let parts = ["fullyLabeledReplicas", "readyReplicas", "availableReplicas"];
        workload::validate_update(self, new, old, part, &parts, problems);
    }
}

fn ready(row: &Row<'_>) -> Value {
    row.count("/status/readyReplicas").into()
}
