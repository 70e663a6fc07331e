//! Drivers on a node: what each calls the node, and how many volumes it takes there.

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

use serde_json::{Value, json};
use weft_api::name;

use super::{GROUP, required_driver_name};
use crate::columns::{Column, Row};
use crate::conditions;
use crate::core::persistentvolumeclaim::ACCESS_MODES;
use crate::field::Field;
use crate::lens::{items, items_mut, member, none_when_empty, put, text};
use crate::strategy::{Strategy, Surroundings};
use crate::validate::Problems;
use crate::{Kind, Subresource, unserved};

pub static CSI_NODE: LazyLock<Arc<Kind>> = LazyLock::new(|| {
    Arc::new(Kind {
        namespaced: false,
        subresources: vec![Subresource::Status],
        columns: vec![
            Column::name(),
            Column::integer("Drivers", drivers, "Number of drivers on the node."),
            Column::age(),
        ],
        strategy: Arc::new(CsiNodes),
        ..Kind::new(GROUP, "v1", "CSINode", "csinodes")
    })
});

const NODE_ID_BYTES_MAX: usize = 256;
const CONDITIONS_MAX: usize = 16;
const REASON_BYTES_MAX: usize = 256;
const MESSAGE_BYTES_MAX: usize = 1024;

struct CsiNodes;

impl Strategy for CsiNodes {
    fn settle(&self, next: &mut Value, _: Option<&Value>) {
        let spec = member(next, "spec");
        none_when_empty(spec, "drivers");
        for driver in items_mut(spec, "/drivers") {
            none_when_empty(driver, "topologyKeys");
        }
    }

    fn allows_unconditional_update(&self) -> bool {
        false
    }

    fn warn(&self, _: &Value, _: &dyn Surroundings) -> Vec<String> {
        unserved::told_of(GROUP, "CSINode")
    }

    fn validate(&self, new: &Value, problems: &mut Problems) {
        let root = Field::root(new);
        let mut seen = BTreeSet::new();
        for driver in root.items("spec.drivers") {
            let own_name = driver.child("name");
            required_driver_name(&own_name, problems);
            let id = driver.child("nodeID");
            problems.required_text(&id);
            if id.text().len() > NODE_ID_BYTES_MAX {
                let sentence = format!("must be {NODE_ID_BYTES_MAX} characters or less");
                problems.invalid(&id, id.text(), &sentence);
            }
            problems.not_negative(&driver.child("allocatable.count"));
            if !seen.insert(own_name.text()) {
                problems.duplicate(&own_name, own_name.text());
            }
            topology_keys(&driver, problems);
        }
    }

    fn validate_update(
        &self,
        new: &Value,
        old: &Value,
        part: Option<Subresource>,
        problems: &mut Problems,
    ) {
        let root = Field::root(new);
        if part == Some(Subresource::Status) {
            return health(&root, problems);
        }
        self.validate(new, problems);
        let all = root.child("spec.drivers");
        let without_count = |driver: &Value| {
            let mut driver = driver.clone();
            put(&mut driver, "allocatable", None);
            driver
        };
        for kept in items(old, "/spec/drivers") {
            for driver in items(new, "/spec/drivers") {
                let same = text(driver, "/name") == text(kept, "/name");
                if same && without_count(driver) != without_count(kept) {
                    let member = |name: &str| driver.get(name).unwrap_or(&Value::Null);
                    let (id, keys) = (json!(text(driver, "/nodeID")), member("topologyKeys"));
                    let shown = format!(
                        "{{\"Name\":{},\"NodeID\":{id},\"TopologyKeys\":{keys},\"Allocatable\":null}}",
                        member("name")
                    );
                    problems.invalid_in_go(&all, &shown, "field is immutable");
                }
            }
        }
    }
}

fn topology_keys(driver: &Field<'_, '_>, problems: &mut Problems) {
    let mut seen = BTreeSet::new();
    for key in driver.items("topologyKeys") {
        if key.text().is_empty() {
            problems.required(driver, "");
        }
        if !seen.insert(key.text()) {
            problems.duplicate(driver, key.text());
        }
        for fault in name::qualified_name_faults(key.text()) {
            problems.invalid(driver, key.text(), &fault);
        }
    }
}

/// What drivers report of the storage behind them.
fn health(root: &Field<'_, '_>, problems: &mut Problems) {
    let mut seen = BTreeSet::new();
    for health in root.items("status.storageHealth") {
        let own_name = health.child("name");
        if !seen.insert(own_name.text()) {
            problems.duplicate(&health, own_name.text());
        }
        required_driver_name(&own_name, problems);
        let conditions = health.child("healthConditions");
        if conditions.list().len() > CONDITIONS_MAX {
            problems.too_many(&conditions, conditions.list().len(), CONDITIONS_MAX);
            continue;
        }
        for condition in health.items("healthConditions") {
            self::condition(&condition, problems);
        }
    }
}

fn condition(condition: &Field<'_, '_>, problems: &mut Problems) {
    let status = condition.child("status");
    problems.one_of_as(
        &status,
        status.text(),
        &["StorageDegraded", "StorageUnreachable"],
    );
    let reason = condition.child("reason");
    if reason.text().is_empty() {
        problems.required(&reason, "");
    } else {
        problems.rule(&reason, conditions::reason_faults);
        if reason.text().len() > REASON_BYTES_MAX {
            problems.too_long(&reason, REASON_BYTES_MAX);
        }
    }
    let message = condition.child("message");
    if message.text().len() > MESSAGE_BYTES_MAX {
        problems.too_long(&message, MESSAGE_BYTES_MAX);
    }
    problems.one_of(&condition.child("accessMode"), ACCESS_MODES);
    problems.one_of(&condition.child("volumeMode"), &["Filesystem", "Block"]);
}

fn drivers(row: &Row<'_>) -> Value {
    items(row.object, "/spec/drivers").len().into()
}
