//! Where a pod may run: affinity, spreading, tolerations, gates.

use std::collections::BTreeSet;

use serde_json::Value;
use weft_api::name;

use crate::field::Field;
use crate::lens::put;
use crate::validate::{Problems, label_selector};

const WEIGHTS: std::ops::RangeInclusive<i64> = 1..=100;
const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

pub(super) fn affinity(affinity: &Field<'_, '_>, problems: &mut Problems) {
    let nodes = affinity.child("nodeAffinity");
    let required = nodes.child(REQUIRED);
    if required.is_set() {
        node_selector(&required, problems);
    }
    for term in nodes.items(PREFERRED) {
        weight(&term, problems);
        node_selector_term(&term.child("preference"), false, problems);
    }
    for pods in ["podAffinity", "podAntiAffinity"] {
        let pods = affinity.child(pods);
        for term in pods.items(REQUIRED) {
            pod_term(&term, problems);
        }
        for term in pods.items(PREFERRED) {
            weight(&term, problems);
            pod_term(&term.child("podAffinityTerm"), problems);
        }
    }
}

fn weight(term: &Field<'_, '_>, problems: &mut Problems) {
    let weight = term.child("weight");
    let value = weight.integer().unwrap_or(0);
    if !WEIGHTS.contains(&value) {
        problems.invalid(&weight, value, "must be in the range 1-100");
    }
}

pub(crate) fn node_selector(selector: &Field<'_, '_>, problems: &mut Problems) {
    let terms = selector.child("nodeSelectorTerms");
    if terms.list().is_empty() {
        return problems.required(&terms, "must have at least one node selector term");
    }
    for term in selector.items("nodeSelectorTerms") {
        node_selector_term(&term, true, problems);
    }
}

/// What is only preferred may name values that no label can have: that never kept a pod from running.
fn node_selector_term(term: &Field<'_, '_>, sound_values: bool, problems: &mut Problems) {
    for expression in term.items("matchExpressions") {
        let operator = expression.child("operator");
        let values = expression.child("values");
        let count = values.list().len();
        match operator.text() {
            "In" | "NotIn" if count == 0 => {
                let sentence = "must be specified when `operator` is 'In' or 'NotIn'";
                problems.required(&values, sentence);
            }
            "Exists" | "DoesNotExist" if count > 0 => {
                let sentence = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                problems.forbidden(&values, sentence);
            }
            "Gt" | "Lt" if count != 1 => {
                let sentence = "must be specified single value when `operator` is 'Lt' or 'Gt'";
                problems.required(&values, sentence);
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
            other => problems.invalid(&operator, other, "not a valid selector operator"),
        }
        problems.rule(&expression.child("key"), name::qualified_name_faults);
        if sound_values {
            for value in expression.items("values") {
                problems.rule(&value, name::label_value_faults);
            }
        }
    }
    for expression in term.items("matchFields") {
        let operator = expression.child("operator");
        match operator.text() {
            "In" | "NotIn" => {
                let values = expression.child("values");
                if values.list().len() != 1 {
                    let sentence = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector";
                    problems.required(&values, sentence);
                }
            }
            other => problems.invalid(&operator, other, "not a valid selector operator"),
        }
        let key = expression.child("key");
        if key.text() == "metadata.name" {
            for value in expression.items("values") {
                problems.rule(&value, name::dns1123_subdomain_faults);
            }
        } else {
            problems.invalid(&key, key.text(), "not a valid field selector key");
        }
    }
}

fn pod_term(term: &Field<'_, '_>, problems: &mut Problems) {
    label_selector(&term.child("labelSelector"), problems);
    label_selector(&term.child("namespaceSelector"), problems);
    for namespace in term.items("namespaces") {
        for fault in name::dns1123_label_faults(namespace.text()) {
            problems.invalid(&term.child("namespace"), namespace.text(), &fault);
        }
    }
    label_keys(term, problems);
    let key = term.child("topologyKey");
    if key.text().is_empty() {
        problems.required(&key, "can not be empty");
    }
    problems.rule(&key, name::qualified_name_faults);
}

/// Keys of labels whose values a pod has in common with others, or has not.
fn label_keys(of: &Field<'_, '_>, problems: &mut Problems) {
    let selector = of.child("labelSelector");
    for list in ["matchLabelKeys", "mismatchLabelKeys"] {
        let keys = of.child(list);
        if keys.list().is_empty() {
            continue;
        }
        if !selector.is_set() {
            let sentence = "must not be specified when labelSelector is not set";
            problems.forbidden(&keys, sentence);
            continue;
        }
        for key in of.items(list) {
            problems.rule(&key, name::qualified_name_faults);
        }
    }
    let matched: Vec<Field<'_, '_>> = of.items("matchLabelKeys").collect();
    let mut selected: BTreeSet<&str> = selector
        .entries("matchLabels")
        .map(|(key, _)| key)
        .collect();
    for expression in selector.items("matchExpressions") {
        let key = expression.child("key").text();
        let place = matched.iter().rposition(|matched| matched.text() == key);
        if let Some(index) = place
            && selected.contains(key)
        {
            let sentence = "exists in both matchLabelKeys and labelSelector";
            problems.invalid_at(&format!("{of}[{index}]"), key, sentence);
        }
        selected.insert(expression.child("key").text());
    }
    let mismatched = of.child("mismatchLabelKeys").list();
    for key in matched
        .iter()
        .filter(|key| mismatched.iter().any(|other| other == key.text()))
    {
        let sentence = "exists in both matchLabelKeys and mismatchLabelKeys";
        problems.invalid(key, key.text(), sentence);
    }
}

pub(super) fn spread(spec: &Field<'_, '_>, problems: &mut Problems) {
    const LIST: &str = "topologySpreadConstraints";
    let pairs: Vec<(&str, &str)> = spec
        .child(LIST)
        .list()
        .iter()
        .map(|constraint| {
            let text = |member: &str| constraint.get(member).and_then(Value::as_str).unwrap_or("");
            (text("topologyKey"), text("whenUnsatisfiable"))
        })
        .collect();
    for (index, constraint) in spec.items(LIST).enumerate() {
        problems.positive(&constraint.child("maxSkew"));
        let key = constraint.child("topologyKey");
        if key.text().is_empty() {
            problems.required(&key, "can not be empty");
        }
        let action = constraint.child("whenUnsatisfiable");
        problems.one_of_as(&action, action.text(), &["DoNotSchedule", "ScheduleAnyway"]);
        let pair = pairs[index];
        if pairs[index + 1..].contains(&pair) {
            let field = constraint.child_as("topologyKey", "{topologyKey, whenUnsatisfiable}");
            problems.duplicate(&field, format!("{{{}, {}}}", pair.0, pair.1));
        }
        let domains = constraint.child("minDomains");
        if domains.is_set() {
            problems.positive(&domains);
            if action.text() != "DoNotSchedule" {
                let sentence = format!(
                    "can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {}",
                    action.text()
                );
                problems.invalid(&domains, domains.shown(), &sentence);
            }
        }
        for policy in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            problems.one_of(&constraint.child(policy), &["Honor", "Ignore"]);
        }
        label_keys(&constraint, problems);
        label_selector(&constraint.child("labelSelector"), problems);
    }
}

pub(crate) fn tolerations(spec: &Field<'_, '_>, problems: &mut Problems) {
    for toleration in spec.items("tolerations") {
        let key = toleration.child("key");
        let operator = toleration.child("operator");
        let effect = toleration.child("effect");
        let value = toleration.child("value").text();
        if !key.text().is_empty() {
            problems.rule(&key, name::qualified_name_faults);
        } else if operator.text() != "Exists" {
            let sentence = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            problems.invalid(&operator, operator.text(), sentence);
        }
        if toleration.child("tolerationSeconds").is_set() && effect.text() != "NoExecute" {
            let sentence = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            problems.invalid(&effect, effect.text(), sentence);
        }
        match operator.text() {
            "" | "Equal" => {
                let faults = name::label_value_faults(value);
                if !faults.is_empty() {
                    problems.invalid(&operator, value, &faults.join(";"));
                }
            }
            "Exists" if value.is_empty() => {}
            "Exists" => {
                let sentence = "value must be empty when `operator` is 'Exists'";
                problems.invalid(&operator, value, sentence);
            }
            "Lt" | "Gt" => {
                problems.one_of_as(&operator, operator.text(), &["Equal", "Exists", "Lt", "Gt"])
            }
            _ => problems.one_of(&operator, &["Equal", "Exists"]),
        }
        if !effect.text().is_empty() {
            problems.one_of(&effect, &["NoSchedule", "PreferNoSchedule", "NoExecute"]);
        }
    }
}

/// How long a toleration holds may change, the rest of it not.
pub(super) fn tolerations_only_added(
    new: &Field<'_, '_>,
    old: &Field<'_, '_>,
    problems: &mut Problems,
) {
    let lasting = |toleration: &Value| {
        let mut toleration = toleration.clone();
        put(&mut toleration, "tolerationSeconds", None);
        toleration
    };
    let all = new.child("tolerations");
    let now: Vec<Value> = all.list().iter().map(lasting).collect();
    let kept = old.child("tolerations").list().iter().map(lasting);
    if !kept.into_iter().all(|toleration| now.contains(&toleration)) {
        let sentence = "existing toleration can not be modified except its tolerationSeconds";
        problems.forbidden(&all, sentence);
    }
}

pub(super) fn gates(spec: &Field<'_, '_>, problems: &mut Problems) {
    let mut seen = BTreeSet::new();
    for gate in spec.items("schedulingGates") {
        let own_name = gate.child("name").text();
        for fault in name::qualified_name_faults(own_name) {
            problems.invalid(&gate, own_name, &fault);
        }
        if !seen.insert(own_name) {
            problems.duplicate(&gate, own_name);
        }
    }
}

pub(super) fn gates_only_deleted(
    new: &Field<'_, '_>,
    old: &Field<'_, '_>,
    problems: &mut Problems,
) {
    let known = old.child("schedulingGates").list();
    for gate in new.items("schedulingGates") {
        let own_name = gate.child("name");
        if !known
            .iter()
            .any(|known| known.get("name") == own_name.value())
        {
            let sentence = format!(
                "only deletion is allowed, but found new scheduling gate '{}'",
                own_name.text()
            );
            problems.forbidden(&own_name, &sentence);
        }
    }
}

/// A pod behind a gate may only be held to fewer nodes.
pub(super) fn only_narrowed(new: &Field<'_, '_>, old: &Field<'_, '_>, problems: &mut Problems) {
    let selector = new.child("nodeSelector");
    let kept = old.entries("nodeSelector").all(|(key, value)| {
        let map = selector.map();
        map.and_then(|map| map.get(key)) == value.value()
    });
    if !kept {
        let sentence =
            "only additions to spec.nodeSelector are allowed (no mutations or deletions)";
        problems.invalid(&selector, selector.shown(), sentence);
    }
    let (new, old) = (
        new.child("affinity.nodeAffinity"),
        old.child("affinity.nodeAffinity"),
    );
    let (new, old) = (new.child(REQUIRED), old.child(REQUIRED));
    if !old.is_set() {
        return;
    }
    let (before, after) = (
        old.child("nodeSelectorTerms"),
        new.child("nodeSelectorTerms"),
    );
    if before.list().is_empty() {
        return;
    }
    if before.list().len() != after.list().len() {
        let sentence = "no additions/deletions to non-empty NodeSelectorTerms list are allowed";
        return problems.invalid(&after, after.shown(), sentence);
    }
    for (before, after) in old
        .items("nodeSelectorTerms")
        .zip(new.items("nodeSelectorTerms"))
    {
        let empty = |term: &Field<'_, '_>| {
            term.child("matchExpressions").list().is_empty()
                && term.child("matchFields").list().is_empty()
        };
        let keeps = |list: &str| {
            after
                .child(list)
                .list()
                .starts_with(before.child(list).list())
        };
        let only_additions =
            (!empty(&before) || empty(&after)) && keeps("matchExpressions") && keeps("matchFields");
        if !only_additions {
            let sentence = "only additions are allowed (no mutations or deletions)";
            problems.invalid(&after, after.shown(), sentence);
        }
    }
}
