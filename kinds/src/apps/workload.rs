//! What workloads share: size, selector, template, and the columns that show them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;
use weft_api::selector::LabelSelector;

use crate::columns::{Column, Row, labels_text, or_none};
use crate::core::pod;
use crate::field::Field;
use crate::lens::{items, member, text};
use crate::strategy::Strategy;
use crate::validate::{Problems, label_selector};
use crate::{Kind, StatusMetadata, Subresource};

/// A kind of workload, with what all of them have beside the columns that count its pods.
pub(crate) fn kind(
    kind: &'static str,
    resource: &'static str,
    short_name: &'static str,
    counts: [Column; 3],
    strategy: impl Strategy + 'static,
) -> Kind {
    let first = std::iter::once(Column::name()).chain(counts);
    let last = std::iter::once(Column::age()).chain(columns());
    Kind {
        short_names: vec![short_name.into()],
        categories: vec!["all".into()],
        subresources: vec![Subresource::Scale, Subresource::Status],
        columns: first.chain(last).collect(),
        counts_generations: true,
        status_metadata: StatusMetadata::TAKEN,
        strategy: Arc::new(strategy),
        ..Kind::new("apps", "v1", kind, resource)
    }
}

/// The columns about the template that workloads show with `-o wide`.
pub(crate) fn columns() -> [Column; 3] {
    [
        Column::text("Containers", containers, "Names of the containers.").wide(),
        Column::text("Images", images, "Images of the containers.").wide(),
        Column::text("Selector", selector, "Labels of the pods.").wide(),
    ]
}

pub(crate) fn default_template(value: &mut Value) {
    default_template_of(member(value, "spec"));
}

/// The template of whatever holds one.
pub(crate) fn default_template_of(holder: &mut Value) {
    // A template without a spec has an empty one, so that what it lacks is told of and nothing else.
    let template = member(holder, "template");
    pod::default_spec(member(template, "spec"));
}

/// The images of a workload's pods.
pub(crate) fn images_of_pods(value: &Value) -> BTreeSet<String> {
    pod::images_of(value, "/spec/template/spec")
}

/// Selector and template; what is fixed about a workload's pods.
pub(crate) fn validate_pods(spec: &Field<'_, '_>, problems: &mut Problems) {
    let selector = spec.child("selector");
    let parsed = if selector.is_set() {
        label_selector(&selector, problems);
        let parsed = LabelSelector::from_object(&selector.shown()).ok();
        if parsed.as_ref().is_some_and(LabelSelector::is_everything) {
            let sentence = "empty selector is invalid for deployment";
            problems.invalid(&selector, selector.shown(), sentence);
        }
        parsed
    } else {
        problems.required(&selector, "");
        // Matches nothing, and is told of with the labels.
        None
    };
    let template = spec.child("template");
    if selector.is_set() && parsed.is_none() {
        problems.invalid(&selector, selector.shown(), "invalid label selector");
        return;
    }
    labels_match(parsed.as_ref(), &template, problems);
    pod::validate_template(&template, problems);
    keeps_running(&template, "ReplicaSet", problems);
}

/// Pods that are to run for ever are started again, and have no deadline.
pub(crate) fn keeps_running(template: &Field<'_, '_>, kind: &str, problems: &mut Problems) {
    let restart = template.child("spec.restartPolicy");
    if restart.text() != "Always" {
        problems.one_of_as(&restart, restart.text(), &["Always"]);
    }
    let deadline = template.child("spec.activeDeadlineSeconds");
    if deadline.is_set() {
        let sentence = format!("activeDeadlineSeconds in {kind} is not Supported");
        problems.forbidden(&deadline, &sentence);
    }
}

/// Whether the labels of a template are those that a selector, which may be absent, asks for.
pub(crate) fn labels_match(
    selector: Option<&LabelSelector>,
    template: &Field<'_, '_>,
    problems: &mut Problems,
) {
    let of_pods: BTreeMap<String, String> = template
        .entries("metadata.labels")
        .map(|(key, value)| (key.to_owned(), value.text().to_owned()))
        .collect();
    let matched = selector.is_some_and(|asked| asked.is_everything() || asked.matches(&of_pods));
    if !matched {
        let labels = template.child("metadata.labels");
        let sentence = "`selector` does not match template `labels`";
        problems.invalid(&labels, labels.shown(), sentence);
    }
}

/// A change of a workload: of its status, in which `parts` are counts of its pods, or of all of it, whose selector stays.
pub(crate) fn validate_update(
    strategy: &impl Strategy,
    new: &Value,
    old: &Value,
    part: Option<Subresource>,
    parts: &[&str],
    problems: &mut Problems,
) {
    let (root, before) = (Field::root(new), Field::root(old));
    if part == Some(Subresource::Status) {
        validate_counts(&root.child("status"), parts, problems);
        return;
    }
    strategy.validate(new, problems);
    let (selector, kept) = (root.child("spec.selector"), before.child("spec.selector"));
    problems.immutable(&selector, &kept);
}

/// Counts of pods that controllers report: no part of them is more than all of them.
fn validate_counts(status: &Field<'_, '_>, parts: &[&str], problems: &mut Problems) {
    for names in ["observedGeneration", "replicas"].iter().chain(parts) {
        problems.not_negative(&status.child(names));
    }
    for names in ["terminatingReplicas", "collisionCount"] {
        problems.not_negative(&status.child(names));
    }
    let within = parts
        .iter()
        .filter(|names| **names != "unavailableReplicas");
    no_part_is_more(status, within, "readyReplicas", problems);
}

/// Whether no count of pods is more than that of all of them, and available ones are ready; `ready` is how a message names those.
pub(crate) fn no_part_is_more<'a>(
    status: &Field<'_, '_>,
    parts: impl Iterator<Item = &'a &'a str>,
    ready: &str,
    problems: &mut Problems,
) {
    let count = |names: &str| status.child(names).integer().unwrap_or(0);
    for names in parts {
        if count(names) > count("replicas") {
            let sentence = "cannot be greater than status.replicas";
            problems.invalid(&status.child(names), count(names), sentence);
        }
    }
    if count("availableReplicas") > count("readyReplicas") {
        let sentence = format!("cannot be greater than {ready}");
        let available = status.child("availableReplicas");
        problems.invalid(&available, count("availableReplicas"), &sentence);
    }
}

/// What a controller counts to tell names apart never goes down.
pub(crate) fn collisions_only_grow(new: &Value, old: &Value, problems: &mut Problems) {
    let (root, before) = (Field::root(new), Field::root(old));
    let count = root.child("status.collisionCount");
    let counted = before.child("status.collisionCount");
    let Some(before) = counted.integer() else {
        return;
    };
    if count.integer().is_none_or(|now| now < before) {
        let now = count.integer().unwrap_or(0);
        problems.invalid(&count, now, "cannot be decremented");
    }
}

/// A text of each container of the list at a pointer.
pub(crate) fn of_containers(row: &Row<'_>, list: &str, pointer: &str) -> Value {
    items(row.object, list)
        .iter()
        .map(|container| text(container, pointer))
        .collect::<Vec<_>>()
        .join(",")
        .into()
}

const CONTAINERS: &str = "/spec/template/spec/containers";

pub(crate) fn containers(row: &Row<'_>) -> Value {
    of_containers(row, CONTAINERS, "/name")
}

pub(crate) fn images(row: &Row<'_>) -> Value {
    of_containers(row, CONTAINERS, "/image")
}

pub(crate) fn selector(row: &Row<'_>) -> Value {
    selector_text(row, "/spec/selector")
}

/// The label selector at a pointer, as it is written on a command line.
pub(crate) fn selector_text(row: &Row<'_>, pointer: &str) -> Value {
    let Some(selector) = row.object.pointer(pointer) else {
        return or_none(String::new());
    };
    let mut parts = Vec::new();
    let labels = labels_text(selector, "/matchLabels");
    if !labels.is_empty() {
        parts.push(labels);
    }
    for expression in items(selector, "/matchExpressions") {
        let key = text(expression, "/key");
        let values = items(expression, "/values")
            .iter()
            .filter_map(Value::as_str)
            .collect::<Vec<_>>()
            .join(",");
        parts.push(match text(expression, "/operator") {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "Exists" => key.to_owned(),
            _ => format!("!{key}"),
        });
    }
    or_none(parts.join(","))
}
