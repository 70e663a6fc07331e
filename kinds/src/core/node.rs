//! Nodes: they register with their status, and keep their address range for life.

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

use serde_json::{Value, json};
use weft_api::name;

use crate::columns::{Column, Row, or_none};
use crate::field::Field;
use crate::kind::Selectable;
use crate::lens::{flag, items, items_mut, member, none_when_empty, object, text};
use crate::strategy::Strategy;
use crate::validate::Problems;
use crate::{Kind, StatusMetadata, Subresource};

pub static NODE: LazyLock<Arc<Kind>> = LazyLock::new(|| {
    Arc::new(Kind {
        short_names: vec!["no".into()],
        namespaced: false,
        subresources: vec![Subresource::Status, Subresource::Proxy],
        columns: vec![
            Column::name(),
            Column::text("Status", status, "The status of the node"),
            Column::text("Roles", roles, "The roles of the node"),
            Column::age(),
            Column::text("Version", version, "Version of the node agent."),
            Column::text("Internal-IP", internal_ip, "Address inside the cluster.").wide(),
            Column::text("External-IP", external_ip, "Address outside the cluster.").wide(),
            Column::text("OS-Image", os_image, "Operating system of the node.").wide(),
            Column::text("Kernel-Version", kernel, "Kernel of the node.").wide(),
            Column::text("Container-Runtime", runtime, "Runtime of the node.").wide(),
        ],
        selectable: vec![Selectable::or(
            "spec.unschedulable",
            "/spec/unschedulable",
            "false",
        )],
        status_metadata: StatusMetadata::TAKEN,
        strategy: Arc::new(Nodes),
        ..Kind::new("", "v1", "Node", "nodes")
    })
});

struct Nodes;

impl Strategy for Nodes {
    /// Nodes register with their status.
    fn prepare_for_create(&self, _: &Kind, _: &mut Value) {}

    /// The one range and the list of them say the same.
    fn default(&self, value: &mut Value) {
        let range = text(value, "/spec/podCIDR").to_owned();
        let first = items(value, "/spec/podCIDRs").first().cloned();
        match first {
            Some(first) if range.is_empty() => member(value, "spec")["podCIDR"] = first,
            None if !range.is_empty() => member(value, "spec")["podCIDRs"] = json!([range]),
            _ => {}
        }
    }

    fn settle(&self, next: &mut Value, _: Option<&Value>) {
        for image in items_mut(next, "/status/images") {
            none_when_empty(image, "names");
        }
    }

    fn validate(&self, new: &Value, problems: &mut Problems) {
        let root = Field::root(new);
        taints(&root, problems);
        amounts(&root, problems);
        for range in root.items("spec.podCIDRs") {
            problems.address_range(&range);
        }
        let ranges = root.child("spec.podCIDRs");
        let v6 = |range: &Value| range.as_str().is_some_and(|range| range.contains(':'));
        let list = ranges.list();
        if list.len() > 2 || (list.len() == 2 && v6(&list[0]) == v6(&list[1])) {
            let sentence = "may specify no more than one CIDR for each IP family";
            problems.invalid(&ranges, ranges.shown(), sentence);
        }
    }

    fn validate_update(
        &self,
        new: &Value,
        old: &Value,
        _: Option<Subresource>,
        problems: &mut Problems,
    ) {
        let (root, before) = (Field::root(new), Field::root(old));
        amounts(&root, problems);
        let addresses = root.child("status.addresses").list();
        for (index, address) in root.items("status.addresses").enumerate() {
            if addresses[..index].contains(&addresses[index]) {
                problems.duplicate(&address, address.shown());
            }
        }
        // A node keeps its address range for life: pods hold addresses from it.
        let ranges = root.child("spec.podCIDRs");
        let kept = before.child("spec.podCIDRs");
        let (range, kept_range) = (root.child("spec.podCIDR"), before.child("spec.podCIDR"));
        let moved = (!kept.list().is_empty() && kept.list() != ranges.list())
            || (!kept_range.text().is_empty() && kept_range.text() != range.text());
        if moved {
            let sentence = "node updates may not change podCIDR except from \"\" to valid";
            problems.forbidden(&ranges, sentence);
        }
        let (provider, kept) = (
            root.child("spec.providerID"),
            before.child("spec.providerID"),
        );
        if !kept.text().is_empty() && kept.text() != provider.text() {
            let sentence = if provider.text().is_empty() {
                "field cannot be cleared once set"
            } else {
                "field cannot be modified once set"
            };
            problems.invalid(&provider, Value::Null, sentence);
        }
        taints(&root, problems);
        let (external, kept) = (
            root.child("spec.externalID"),
            before.child("spec.externalID"),
        );
        if external.text() != kept.text() {
            problems.forbidden(&external, "may not be updated");
        }
    }
}

fn taints(root: &Field<'_, '_>, problems: &mut Problems) {
    // Kubernetes names them as if they were metadata.
    let metadata = root.child("metadata");
    let mut seen = BTreeSet::new();
    for (index, taint) in root.items("spec.taints").enumerate() {
        let place = metadata.item("taints", index);
        let taint = taint.moved_to(&place);
        let (key, effect) = (taint.child("key"), taint.child("effect"));
        problems.rule(&key, name::qualified_name_faults);
        let value = taint.child("value");
        let faults = name::label_value_faults(value.text());
        if !faults.is_empty() {
            problems.invalid(&value, value.text(), &faults.join(";"));
        }
        let effects = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
        problems.required_one_of(&effect, &effects);
        if !seen.insert((key.text(), effect.text())) {
            let sentence = "taints must be unique by key and effect pair";
            problems.duplicate_because(&taint, taint.shown(), sentence);
        }
    }
}

/// What the node has, and gives to pods.
fn amounts(root: &Field<'_, '_>, problems: &mut Problems) {
    for side in ["capacity", "allocatable"] {
        let status = root.child("status");
        for (resource, field) in status.entries(side) {
            if field.quantity().is_some_and(|amount| amount.is_negative()) {
                let sentence = "must be greater than or equal to 0";
                let path = format!("status.{side}.{resource}");
                problems.invalid_at(&path, field.text(), sentence);
            }
        }
    }
}

fn status(row: &Row<'_>) -> Value {
    let mut shown = match row.condition("Ready") {
        Some("True") => "Ready".to_owned(),
        Some(_) => "NotReady".to_owned(),
        None => "Unknown".to_owned(),
    };
    if flag(row.object, "/spec/unschedulable") {
        shown.push_str(",SchedulingDisabled");
    }
    shown.into()
}

fn roles(row: &Row<'_>) -> Value {
    let roles: Vec<&str> = object(row.object, "/metadata/labels")
        .into_iter()
        .flatten()
        .filter_map(
            |(key, value)| match key.strip_prefix("node-role.kubernetes.io/") {
                Some(role) => Some(role),
                None if key == "kubernetes.io/role" => value.as_str(),
                None => None,
            },
        )
        .filter(|role| !role.is_empty())
        .collect();
    or_none(roles.join(","))
}

fn version(row: &Row<'_>) -> Value {
    row.text_or("/status/nodeInfo/kubeletVersion", "")
}

fn address(row: &Row<'_>, kind: &str) -> Value {
    let found = items(row.object, "/status/addresses")
        .iter()
        .find(|address| text(address, "/type") == kind)
        .map_or("", |address| text(address, "/address"));
    or_none(found.to_owned())
}

fn internal_ip(row: &Row<'_>) -> Value {
    address(row, "InternalIP")
}

fn external_ip(row: &Row<'_>) -> Value {
    address(row, "ExternalIP")
}

fn os_image(row: &Row<'_>) -> Value {
    row.text_or("/status/nodeInfo/osImage", "<unknown>")
}

fn kernel(row: &Row<'_>) -> Value {
    let kernel = row.text_or("/status/nodeInfo/kernelVersion", "<unknown>");
    match text(row.object, "/status/nodeInfo/architecture") {
        "" => kernel,
        architecture => format!("{} ({architecture})", kernel.as_str().unwrap_or("")).into(),
    }
}

fn runtime(row: &Row<'_>) -> Value {
    row.text_or("/status/nodeInfo/containerRuntimeVersion", "<unknown>")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::validate::told;

    #[test]
    fn taints_are_unique_and_ranges_stay() {
        let node = json!({"metadata": {"name": "n"}, "spec": {"podCIDR": "10.0.0.0/24", "podCIDRs": ["10.0.0.0/24"]}});
        let taint = json!({"key": "a", "effect": "NoSchedule"});
        let twice = told::with(&node, "/spec/taints", json!([taint, taint, {"key": "b"}]));
        assert_eq!(
            told::of_new(&NODE, &twice),
            [
                "metadata.taints[1]: Duplicate value: {\"effect\":\"NoSchedule\",\"key\":\"a\"}: taints must be unique by key and effect pair",
                "metadata.taints[2].effect: Required value",
            ]
        );
        let moved = told::with(&node, "/spec/podCIDRs/0", json!("10.0.1.0/24"));
        assert_eq!(
            told::of_update(&NODE, &moved, &node, None),
            [
                "spec.podCIDRs: Forbidden: node updates may not change podCIDR except from \"\" to valid"
            ]
        );
        let wrong = told::with(&node, "/spec/podCIDRs/0", json!("10.0.1.0"));
        assert_eq!(
            told::of_new(&NODE, &wrong),
            [
                "spec.podCIDRs[0]: Invalid value: \"10.0.1.0\": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"
            ]
        );
    }
}
