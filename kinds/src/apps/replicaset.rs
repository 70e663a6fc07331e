//! ReplicaSets.

use std::sync::{Arc, LazyLock};

use serde_json::Value;

use super::workload;
use crate::columns::{Column, Row, current_replicas, desired_replicas};
use crate::field::Field;
use crate::kind::Selectable;
use crate::lens::{fill, member};
use crate::strategy::Strategy;
use crate::validate::Problems;
use crate::{Kind, Subresource};

pub static REPLICA_SET: LazyLock<Arc<Kind>> = LazyLock::new(|| {
    let mut columns = vec![
        Column::name(),
        Column::integer("Desired", desired_replicas, "Pods wanted."),
        Column::integer("Current", current_replicas, "Pods there."),
        Column::integer("Ready", ready, "Pods ready."),
        Column::age(),
    ];
    columns.extend(workload::columns());
    Arc::new(Kind {
        short_names: vec!["rs".into()],
        categories: vec!["all".into()],
        subresources: vec![Subresource::Status, Subresource::Scale],
        columns,
        selectable: vec![Selectable::or("status.replicas", "/status/replicas", "0")],
        counts_generations: true,
        strategy: Arc::new(ReplicaSets),
        ..Kind::new("apps", "v1", "ReplicaSet", "replicasets")
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
        let (root, before) = (Field::root(new), Field::root(old));
        if part == Some(Subresource::Status) {
            let parts = ["fullyLabeledReplicas", "readyReplicas", "availableReplicas"];
            workload::validate_counts(&root.child("status"), &parts, problems);
            return;
        }
        self.validate(new, problems);
        let (selector, kept) = (root.child("spec.selector"), before.child("spec.selector"));
        problems.immutable(&selector, &kept);
    }
}

fn ready(row: &Row<'_>) -> Value {
    row.count("/status/readyReplicas").into()
}
