//! The devices of a pool, as far as one object holds them.

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

use serde_json::Value;
use weft_api::name;

use super::{GROUP, claim};
use crate::columns::{Column, Row};
use crate::core::pod::node_selector;
use crate::field::Field;
use crate::kind::Selectable;
use crate::lens::{items_mut, put};
use crate::storage::required_driver_name;
use crate::strategy::{Strategy, Surroundings};
use crate::validate::Problems;
use crate::{Kind, Subresource, unserved};

pub static RESOURCE_SLICE: LazyLock<Arc<Kind>> = LazyLock::new(|| {
    Arc::new(Kind {
        namespaced: false,
        columns: vec![
            Column::name(),
            Column::text("Node", node, "Whose devices they are."),
            Column::text("Driver", driver, "Who has them."),
            Column::text("Pool", pool, "Which pool they are of."),
            Column::age(),
        ],
        selectable: vec![
            Selectable::new("spec.nodeName", "/spec/nodeName"),
            Selectable::new("spec.driver", "/spec/driver"),
            Selectable::new("spec.pool.name", "/spec/pool/name"),
        ],
        counts_generations: true,
        strategy: Arc::new(ResourceSlices),
        ..Kind::new(GROUP, "v1", "ResourceSlice", "resourceslices")
    })
});

const POOL_NAME_BYTES_MAX: usize = 253;
const DEVICES_MAX: usize = 128;
/// Of devices with taints or counters, which take an allocator longer.
const INVOLVED_DEVICES_MAX: usize = 64;
const ATTRIBUTES_MAX: usize = 32;
const COUNTER_SETS_MAX: usize = 8;
const COUNTERS_MAX: usize = 32;
const CONSUMED_SETS_MAX: usize = 2;
const TAINTS_MAX: usize = 16;
const VALUE_BYTES_MAX: usize = 64;
const CONDITIONS_MAX: usize = 4;
/// What an attribute can be, one of them.
const VALUES: [&str; 8] = [
    "int", "bool", "string", "version", "ints", "bools", "strings", "versions",
];
/// Those that a cluster without the feature of their own forgets.
const LISTS_OF_VALUES: [&str; 4] = ["ints", "bools", "strings", "versions"];

struct ResourceSlices;

impl Strategy for ResourceSlices {
    fn warn(&self, _: &Value, _: &dyn Surroundings) -> Vec<String> {
        unserved::told_of(GROUP, "ResourceSlice")
    }

    fn drop_unserved(&self, next: &mut Value) {
        for device in items_mut(next, "/spec/devices") {
            let attributes = device.get_mut("attributes").and_then(Value::as_object_mut);
            for attribute in attributes.into_iter().flat_map(|all| all.values_mut()) {
                for list in LISTS_OF_VALUES {
                    put(attribute, list, None);
                }
            }
        }
    }

    fn validate(&self, new: &Value, problems: &mut Problems) {
        const ONE: &str = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
        let root = Field::root(new);
        let spec = root.child("spec");
        required_driver_name(&spec.child("driver"), problems);
        pool_rules(&spec.child("pool"), problems);
        let own_nodes = nodes(
            &spec,
            &[
                "nodeName",
                "nodeSelector",
                "allNodes",
                "perDeviceNodeSelection",
            ],
            problems,
        );
        match own_nodes.as_slice() {
            [] => problems.required(&spec, ONE),
            [_] => {}
            several => {
                let shown = format!("{{{}}}", several.join(", "));
                let sentence = format!("{ONE}, but multiple fields are set");
                problems.invalid(&spec, shown, &sentence);
            }
        }
        if !spec.child("sharedCounters").is_empty() && !spec.child("devices").is_empty() {
            let sentence = "only one of `sharedCounters` or `devices` is allowed";
            problems.invalid(&spec, "", sentence);
        }
        devices(&spec, problems);
        claim::at_most(&spec, "sharedCounters", COUNTER_SETS_MAX, problems);
        let mut seen = BTreeSet::new();
        for set in spec.items("sharedCounters") {
            let own_name = set.child("name");
            problems.required_rule(&own_name, name::dns1123_label_faults);
            counters(&set, problems);
            if !seen.insert(own_name.text()) {
                problems.duplicate(&set, own_name.text());
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
        self.validate(new, problems);
        let (root, before) = (Field::root(new), Field::root(old));
        for member in ["spec.pool.name", "spec.driver"] {
            problems.immutable_text(&root.child(member), &before.child(member));
        }
        problems.immutable(&root.child("spec.nodeName"), &before.child("spec.nodeName"));
    }
}

/// The name of a pool, which has to be there.
pub(super) fn pool_name(field: &Field<'_, '_>, problems: &mut Problems) {
    if field.text().is_empty() {
        return problems.required(field, "");
    }
    if field.text().len() > POOL_NAME_BYTES_MAX {
        problems.too_long(field, POOL_NAME_BYTES_MAX);
    }
    for part in field.text().split('/') {
        for fault in name::dns1123_subdomain_faults(part) {
            problems.invalid(field, part, &fault);
        }
    }
}

fn pool_rules(pool: &Field<'_, '_>, problems: &mut Problems) {
    pool_name(&pool.child("name"), problems);
    let (slices, generation) = (pool.child("resourceSliceCount"), pool.child("generation"));
    let count = slices.integer().unwrap_or(0);
    if count <= 0 {
        problems.invalid(&slices, count, "must be greater than zero");
    }
    let number = generation.integer().unwrap_or(0);
    if number < 0 {
        problems.invalid(&generation, number, "must be greater than or equal to zero");
    }
}

/// Which of the ways to say where devices are is used, as messages name them.
fn nodes(of: &Field<'_, '_>, ways: &[&'static str], problems: &mut Problems) -> Vec<String> {
    let mut used = Vec::new();
    for way in ways {
        let field = of.child(way);
        if !field.is_set() {
            continue;
        }
        match *way {
            "nodeName" if field.text().is_empty() => {
                let sentence = "must be either unset or set to a non-empty string";
                problems.invalid(&field, "", sentence);
                continue;
            }
            "nodeName" => problems.rule(&field, name::dns1123_subdomain_faults),
            "nodeSelector" => {
                node_selector(&field, problems);
                let terms = field.child("nodeSelectorTerms");
                if terms.list().len() != 1 {
                    let sentence = "must have exactly one node selector term";
                    problems.invalid(&terms, terms.shown(), sentence);
                }
            }
            _ if !field.flag() => {
                let sentence = "must be either unset or set to true";
                problems.invalid(&field, false, sentence);
                continue;
            }
            _ => {}
        }
        used.push(format!("`{way}`"));
    }
    used
}

fn devices(spec: &Field<'_, '_>, problems: &mut Problems) {
    let involved = spec.items("devices").any(|device| {
        !device.child("taints").is_empty() || !device.child("consumesCounters").is_empty()
    });
    let max = match involved {
        true => INVOLVED_DEVICES_MAX,
        false => DEVICES_MAX,
    };
    claim::at_most(spec, "devices", max, problems);
    let each = spec.child("perDeviceNodeSelection").flag();
    let mut seen = BTreeSet::new();
    for device in spec.items("devices") {
        self::device(&device, each, problems);
        let own_name = device.child("name").text();
        if !seen.insert(own_name) {
            problems.duplicate(&device, own_name);
        }
    }
}

/// One device; `each` when every device says where it is.
fn device(device: &Field<'_, '_>, each: bool, problems: &mut Problems) {
    const WAYS: [&str; 3] = ["nodeName", "nodeSelector", "allNodes"];
    const ONE: &str = "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when `perDeviceNodeSelection` is set to true in the ResourceSlice spec";
    problems.rule(&device.child("name"), name::dns1123_label_faults);
    let length = |member: &str| device.child(member).map().map_or(0, serde_json::Map::len);
    let total = length("attributes") + length("capacity");
    if total > ATTRIBUTES_MAX {
        let sentence = format!(
            "the total number of attributes and capacities must not exceed {ATTRIBUTES_MAX}"
        );
        problems.invalid(device, total, &sentence);
    }
    for (key, attribute) in device.entries("attributes") {
        claim::attribute_name(&device.child("attributes"), key, problems);
        self::attribute(&attribute, problems);
    }
    let shared = device.child("allowMultipleAllocations").flag();
    for (key, capacity) in device.entries("capacity") {
        claim::attribute_name(&device.child("capacity"), key, problems);
        let policy = capacity.child("requestPolicy");
        if policy.is_set() && !shared {
            problems.forbidden(&policy, "allowMultipleAllocations must be true");
        }
    }
    claim::at_most(device, "taints", TAINTS_MAX, problems);
    for taint in device.items("taints") {
        problems.rule(&taint.child("key"), name::qualified_name_faults);
        let value = taint.child("value");
        if !value.text().is_empty() {
            problems.rule(&value, name::label_value_faults);
        }
        problems.required_one_of(&taint.child("effect"), &["NoExecute", "NoSchedule", "None"]);
    }
    claim::at_most(device, "consumesCounters", CONSUMED_SETS_MAX, problems);
    for consumed in device.items("consumesCounters") {
        problems.required_rule(&consumed.child("counterSet"), name::dns1123_label_faults);
        counters(&consumed, problems);
    }
    if each {
        match nodes(device, &WAYS, problems).as_slice() {
            [] => problems.required(device, ONE),
            [_] => {}
            several => {
                let shown = format!("{{{}}}", several.join(", "));
                problems.invalid(device, shown, ONE);
            }
        }
    } else if WAYS.iter().any(|way| device.child(way).is_set()) {
        let sentence = "`nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to true in the ResourceSlice spec";
        problems.invalid(device, Value::Null, sentence);
    }
    conditions(device, problems);
}

/// What a device waits for before a pod is bound, and what ends that: both or none.
fn conditions(device: &Field<'_, '_>, problems: &mut Problems) {
    const BINDING: &str = "bindingConditions";
    const FAILURE: &str = "bindingFailureConditions";
    for list in [BINDING, FAILURE] {
        claim::at_most(device, list, CONDITIONS_MAX, problems);
        for condition in device.items(list) {
            problems.rule(&condition, name::qualified_name_faults);
        }
    }
    let named = |list: &'static str| -> BTreeSet<&str> {
        device.items(list).map(|one| one.text()).collect()
    };
    let waited_for = named(BINDING);
    for list in [BINDING, FAILURE] {
        let mut seen = BTreeSet::new();
        for condition in device.items(list) {
            if !seen.insert(condition.text()) {
                problems.duplicate(&condition, condition.text());
            }
            if list == FAILURE && waited_for.contains(condition.text()) {
                let sentence = "bindingFailureConditions must not overlap with bindingConditions";
                problems.invalid(&condition, condition.text(), sentence);
            }
        }
    }
    for (list, other) in [(BINDING, FAILURE), (FAILURE, BINDING)] {
        let missing = device.child(list);
        if missing.is_empty() && !device.child(other).is_empty() {
            let sentence = format!("{list} are required to use {other}");
            problems.invalid(&missing, Value::Null, &sentence);
        }
    }
}

/// An attribute has one value.
fn attribute(attribute: &Field<'_, '_>, problems: &mut Problems) {
    let said = VALUES
        .iter()
        .filter(|value| attribute.child(value).is_set());
    let said: Vec<&str> = said.copied().collect();
    let values = VALUES.map(|value| format!("`{value}`")).join(", ");
    match said.as_slice() {
        [] => {
            let sentence = format!("must specify one of: {values}");
            problems.invalid(attribute, "", &sentence);
        }
        [_] => {}
        several => {
            let shown = format!("{{{}}}", several.join(", "));
            let sentence = format!("must specify exactly one of: {values}");
            problems.invalid(attribute, shown, &sentence);
        }
    }
    for member in ["string", "version"] {
        let value = attribute.child(member);
        if member == "version" && value.is_set() && !is_version(value.text()) {
            let sentence = "must be a string compatible with semver.org spec 2.0.0";
            problems.invalid(&value, value.text(), sentence);
        }
        if value.text().len() > VALUE_BYTES_MAX {
            problems.too_long(&value, VALUE_BYTES_MAX);
        }
    }
}

/// Whether a text is a version as semver.org has it, numbers of any length: `1.2.3-alpha.1+build.5`.
fn is_version(text: &str) -> bool {
    let is_number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        digits && (text == "0" || !text.starts_with('0'))
    };
    let is_identifier = |text: &str| {
        let letters = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        !text.is_empty() && text.bytes().all(letters)
    };
    let all_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let (text, build) = match text.split_once('+') {
        Some((text, build)) => (text, Some(build)),
        None => (text, None),
    };
    let (numbers, release) = match text.split_once('-') {
        Some((numbers, release)) => (numbers, Some(release)),
        None => (text, None),
    };
    let of_release = |part: &str| is_identifier(part) && (!all_digits(part) || is_number(part));
    numbers.split('.').count() == 3
        && numbers.split('.').all(is_number)
        && release.is_none_or(|release| release.split('.').all(of_release))
        && build.is_none_or(|build| build.split('.').all(is_identifier))
}

fn counters(of: &Field<'_, '_>, problems: &mut Problems) {
    let all = of.child("counters");
    let found = all.map().map_or(0, serde_json::Map::len);
    if found == 0 {
        problems.required(&all, "");
    } else if found > COUNTERS_MAX {
        problems.too_many(&all, found, COUNTERS_MAX);
    }
    for (key, _) in of.entries("counters") {
        for fault in name::dns1123_label_faults(key) {
            problems.invalid(&all, key, &fault);
        }
    }
}

fn node(row: &Row<'_>) -> Value {
    row.text_or("/spec/nodeName", "")
}

fn driver(row: &Row<'_>) -> Value {
    row.text_or("/spec/driver", "")
}

fn pool(row: &Row<'_>) -> Value {
    row.text_or("/spec/pool/name", "")
}
