//! Claims of devices, and what was allocated to them.

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

use serde_json::Value;

use super::{GROUP, claim};
use crate::columns::{Column, Row};
use crate::field::Field;
use crate::lens::{items, member, object, text};
use crate::strategy::{Strategy, Surroundings, replace_part};
use crate::validate::Problems;
use crate::{Kind, Subresource, unserved};

pub static RESOURCE_CLAIM: LazyLock<Arc<Kind>> = LazyLock::new(|| {
    Arc::new(Kind {
        subresources: vec![Subresource::Status],
        columns: vec![
            Column::name(),
            Column::text("State", state, "What became of it."),
            Column::age(),
        ],
        strategy: Arc::new(ResourceClaims),
        ..Kind::new(GROUP, "v1", "ResourceClaim", "resourceclaims")
    })
});

const CONSUMERS_MAX: usize = 256;

struct ResourceClaims;

impl Strategy for ResourceClaims {
    fn settle(&self, next: &mut Value, _: Option<&Value>) {
        claim::settle(next.get_mut("spec"));
    }

    /// What was said of devices that the claim does not have any more goes with them.
    fn prepare_for_update(
        &self,
        kind: &Kind,
        part: Option<Subresource>,
        proposed: Value,
        old: &Value,
    ) -> Value {
        let mut next = replace_part(kind, part, proposed, old);
        if part != Some(Subresource::Status) {
            return next;
        }
        let device = |of: &Value| -> [Value; 4] {
            ["driver", "pool", "device", "shareID"].map(|member| of[member].clone())
        };
        let held = |claim: &Value| -> Vec<[Value; 4]> {
            let results = items(claim, "/status/allocation/devices/results");
            results.iter().map(device).collect()
        };
        let kept = held(&next);
        let mut gone = held(old);
        gone.retain(|device| !kept.contains(device));
        if let Some(Value::Array(devices)) = next.pointer_mut("/status/devices") {
            devices.retain(|one| !gone.contains(&device(one)));
        }
        next
    }

    fn default(&self, value: &mut Value) {
        claim::default(member(member(value, "spec"), "devices"));
    }

    fn warn(&self, _: &Value, _: &dyn Surroundings) -> Vec<String> {
        unserved::told_of(GROUP, "ResourceClaim")
    }

    fn validate(&self, new: &Value, problems: &mut Problems) {
        claim::validate(&Field::root(new).child("spec.devices"), problems);
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
            status(&root.child("status"), &before.child("status"), problems);
        } else {
            problems.declared_immutable(&root.child("spec"), &before.child("spec"));
        }
    }
}

/// Who may use what was allocated, which does not change.
fn status(status: &Field<'_, '_>, before: &Field<'_, '_>, problems: &mut Problems) {
    claim::at_most(status, "reservedFor", CONSUMERS_MAX, problems);
    let mut seen = BTreeSet::new();
    for consumer in status.items("reservedFor") {
        for member in ["resource", "name", "uid"] {
            problems.required_text(&consumer.child(member));
        }
        let uid = consumer.child("uid");
        if !seen.insert(uid.text()) {
            problems.duplicate(&consumer, uid.text());
        }
    }
    let (allocation, kept) = (status.child("allocation"), before.child("allocation"));
    let consumers = status.child("reservedFor");
    if !consumers.is_empty() && !allocation.is_set() {
        let sentence = "may not be specified when `allocated` is not set";
        problems.forbidden(&consumers, sentence);
    }
    if allocation.is_set() && kept.is_set() {
        problems.declared_immutable(&allocation, &kept);
    }
}

fn state(row: &Row<'_>) -> Value {
    let deleted = !text(row.object, "/metadata/deletionTimestamp").is_empty();
    let allocated = object(row.object, "/status/allocation").is_some();
    let reserved = !items(row.object, "/status/reservedFor").is_empty();
    let states = [
        (deleted, "deleted"),
        (!deleted && !allocated, "pending"),
        (allocated, "allocated"),
        (allocated && reserved, "reserved"),
    ];
    let states = states.iter().filter(|(holds, _)| *holds);
    let states: Vec<&str> = states.map(|(_, state)| *state).collect();
    states.join(",").into()
}
