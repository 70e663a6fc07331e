//! Taints that are put on devices by what is known of them, from outside of their drivers.

use std::sync::{Arc, LazyLock};

use serde_json::Value;
use weft_api::name;
use weft_api::status::StatusError;
use weft_api::time::rfc3339;

use super::resourceslice::pool_name;
use super::{GROUP, claim};
use crate::columns::{Column, Row};
use crate::conditions::conditions;
use crate::field::Field;
use crate::lens::{member, text, time};
use crate::storage::required_driver_name;
use crate::strategy::{Strategy, Surroundings};
use crate::validate::Problems;
use crate::{Kind, Subresource, unserved};

pub static DEVICE_TAINT_RULE: LazyLock<Arc<Kind>> = LazyLock::new(|| {
    Arc::new(Kind {
        namespaced: false,
        subresources: vec![Subresource::Status],
        columns: vec![
            Column::name(),
            Column::text("Key", key, "The key of the taint."),
            Column::text("Value", value, "The value of the taint."),
            Column::text("Effect", effect, "What it does to pods."),
            Column::text("TimeAdded", added, "Time since the taint has this effect."),
            Column::age(),
        ],
        counts_generations: true,
        strategy: Arc::new(TaintRules),
        ..Kind::new(GROUP, "v1", "DeviceTaintRule", "devicetaintrules")
    })
});

const CONDITIONS_MAX: usize = 8;
const EFFECTS: &[&str] = &["NoExecute", "NoSchedule", "None"];

struct TaintRules;

impl Strategy for TaintRules {
    fn allows_unconditional_update(&self) -> bool {
        false
    }

    fn warn(&self, _: &Value, _: &dyn Surroundings) -> Vec<String> {
        unserved::told_of(GROUP, "DeviceTaintRule")
    }

    /// Since when the taint has its effect: who does not say it means now.
    fn allocate(
        &self,
        new: &mut Value,
        old: Option<&Value>,
        around: &dyn Surroundings,
    ) -> Result<(), StatusError> {
        const ADDED: &str = "/spec/taint/timeAdded";
        const EFFECT: &str = "/spec/taint/effect";
        let given = text(new, ADDED);
        let of_before = old
            .is_some_and(|old| text(old, EFFECT) != text(new, EFFECT) && text(old, ADDED) == given);
        if given.is_empty() || of_before {
            let taint = member(member(new, "spec"), "taint");
            taint["timeAdded"] = rfc3339(around.now()).into();
        }
        Ok(())
    }

    fn validate(&self, new: &Value, problems: &mut Problems) {
        rule(new, None, problems);
    }

    fn validate_update(
        &self,
        new: &Value,
        old: &Value,
        part: Option<Subresource>,
        problems: &mut Problems,
    ) {
        if part == Some(Subresource::Status) {
            let root = Field::root(new);
            let status = root.child("status");
            conditions(&status, problems);
            claim::at_most(&status, "conditions", CONDITIONS_MAX, problems);
        } else {
            rule(new, Some(old), problems);
        }
    }
}

fn rule(new: &Value, old: Option<&Value>, problems: &mut Problems) {
    let root = Field::root(new);
    let selector = root.child("spec.deviceSelector");
    let driver = selector.child("driver");
    if driver.is_set() {
        required_driver_name(&driver, problems);
    }
    let pool = selector.child("pool");
    if pool.is_set() {
        pool_name(&pool, problems);
    }
    let device = selector.child("device");
    if device.is_set() {
        problems.required_rule(&device, name::dns1123_label_faults);
    }
    let taint = root.child("spec.taint");
    problems.rule(&taint.child("key"), name::qualified_name_faults);
    let value = taint.child("value");
    if !value.text().is_empty() {
        problems.rule(&value, name::label_value_faults);
    }
    let effect = taint.child("effect");
    if old.is_none_or(|old| text(old, "/spec/taint/effect") != effect.text()) {
        problems.required_one_of(&effect, EFFECTS);
    }
}

fn key(row: &Row<'_>) -> Value {
    row.text_or("/spec/taint/key", "")
}

fn value(row: &Row<'_>) -> Value {
    row.text_or("/spec/taint/value", "")
}

fn effect(row: &Row<'_>) -> Value {
    row.text_or("/spec/taint/effect", "")
}

fn added(row: &Row<'_>) -> Value {
    match time(row.object, "/spec/taint/timeAdded") {
        None => "".into(),
        added => row.since(added).into(),
    }
}
