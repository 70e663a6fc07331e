//! `coordination.k8s.io`: Leases, by which nodes say that they are alive.

use std::sync::{Arc, LazyLock};

use serde_json::Value;
use weft_api::name;

use crate::Kind;
use crate::columns::{Column, Row};
use crate::field::Field;
use crate::strategy::Strategy;
use crate::validate::Problems;

pub static LEASE: LazyLock<Arc<Kind>> = LazyLock::new(|| {
    Arc::new(Kind {
        columns: vec![
            Column::name(),
            Column::text("Holder", holder, "Who holds the lease."),
            Column::age(),
        ],
        strategy: Arc::new(Leases),
        ..Kind::new("coordination.k8s.io", "v1", "Lease", "leases")
    })
});

struct Leases;

impl Strategy for Leases {
    fn creates_on_update(&self) -> bool {
        true
    }

    // Two who believe that they hold it must not overwrite each other unseen.
    fn allows_unconditional_update(&self) -> bool {
        false
    }

    fn validate(&self, new: &Value, problems: &mut Problems) {
        let root = Field::root(new);
        let spec = root.child("spec");
        let duration = spec.child("leaseDurationSeconds");
        if duration.is_set() {
            problems.positive(&duration);
        }
        problems.not_negative(&spec.child("leaseTransitions"));
        let strategy = spec.child("strategy");
        if strategy.is_set() {
            // Kubernetes writes the member twice.
            let shown = spec.child_as("strategy", "strategy.strategy");
            if strategy.text().contains('/') {
                problems.rule(&shown, name::qualified_name_faults);
            } else {
                problems.one_of(&shown, &["OldestEmulationVersion"]);
            }
        }
        let holder = spec.child("preferredHolder");
        if !holder.text().is_empty() && strategy.text().is_empty() {
            let sentence = "may only be specified if `strategy` is defined";
            problems.forbidden(&holder, sentence);
        }
    }
}

fn holder(row: &Row<'_>) -> Value {
    row.text_or("/spec/holderIdentity", "")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::validate::told;

    #[test]
    fn a_lease_lasts() {
        let lease =
            |spec: Value| json!({"metadata": {"name": "l", "namespace": "n"}, "spec": spec});
        for (spec, expected) in [
            (json!({}), vec![]),
            (
                json!({"leaseDurationSeconds": 0, "leaseTransitions": -1, "preferredHolder": "a"}),
                vec![
                    "spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0",
                    "spec.leaseTransitions: Invalid value: -1: must be greater than or equal to 0",
                    "spec.preferredHolder: Forbidden: may only be specified if `strategy` is defined",
                ],
            ),
        ] {
            assert_eq!(told::of_new(&LEASE, &lease(spec)), expected);
        }
    }
}
