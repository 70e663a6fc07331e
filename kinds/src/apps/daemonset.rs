//! DaemonSets: a pod on each node.

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

use serde_json::Value;
use weft_api::selector::LabelSelector;
use weft_api::status::StatusError;

use super::amount::{amount_of, amount_or_percent, at_most_all};
use super::workload;
use crate::columns::{Column, Row, labels_text, or_none};
use crate::core::pod;
use crate::field::Field;
use crate::lens::{fill, member, text};
use crate::strategy::{Strategy, Surroundings};
use crate::validate::{Problems, label_selector};
use crate::{Kind, StatusMetadata, Subresource, weft};

pub static DAEMON_SET: LazyLock<Arc<Kind>> = LazyLock::new(|| {
    let mut columns = vec![
        Column::name(),
        Column::integer("Desired", desired, "Nodes that should have a pod."),
        Column::integer("Current", current, "Nodes that have one."),
        Column::integer("Ready", number_ready, "Nodes with a ready pod."),
        Column::integer(
            "Up-to-date",
            updated,
            "Nodes with a pod of the newest template.",
        ),
        Column::integer(
            "Available",
            available,
            "Nodes with a pod ready for long enough.",
        ),
        Column::text("Node Selector", node_selector, "Labels of the nodes."),
        Column::age(),
    ];
    columns.extend(workload::columns());
    Arc::new(Kind {
        short_names: vec!["ds".into()],
        categories: vec!["all".into()],
        subresources: vec![Subresource::Status],
        columns,
        counts_generations: true,
        status_metadata: StatusMetadata::TAKEN,
        strategy: Arc::new(DaemonSets),
        ..Kind::new("apps", "v1", "DaemonSet", "daemonsets")
    })
});

/// Where `apps/v1` shows how often the template changed: a field of versions before it.
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

struct DaemonSets;

impl Strategy for DaemonSets {
    fn default(&self, value: &mut Value) {
        workload::default_template(value);
        // Whoever writes a DaemonSet owns the number, which the server counts.
        fill(
            member(member(value, "metadata"), "annotations"),
            TEMPLATE_GENERATION,
            "0",
        );
        let spec = member(value, "spec");
        fill(spec, "revisionHistoryLimit", 10);
        let strategy = member(spec, "updateStrategy");
        fill(strategy, "type", "RollingUpdate");
        if text(strategy, "/type") == "RollingUpdate" {
            let rolling = member(strategy, "rollingUpdate");
            fill(rolling, "maxUnavailable", 1);
            fill(rolling, "maxSurge", 0);
        }
    }

    fn images(&self, value: &Value) -> BTreeSet<String> {
        workload::images_of_pods(value)
    }

    fn warn(&self, value: &Value, around: &dyn Surroundings) -> Vec<String> {
        weft::warnings_of_template(value, around)
    }

    /// The number of its template, which nobody but the server counts.
    fn allocate(
        &self,
        new: &mut Value,
        old: Option<&Value>,
        _: &dyn Surroundings,
    ) -> Result<(), StatusError> {
        let number = match old {
            None => template_generation(new),
            Some(old) => {
                let template = |set: &Value| set.pointer("/spec/template").cloned();
                let changed = template(new) != template(old);
                template_generation(old).saturating_add(i64::from(changed))
            }
        };
        let annotations = member(member(new, "metadata"), "annotations");
        annotations[TEMPLATE_GENERATION] = number.to_string().into();
        Ok(())
    }

    fn validate(&self, new: &Value, problems: &mut Problems) {
        judge(&Field::root(new).child("spec"), problems);
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
            for names in [
                "status.currentNumberScheduled",
                "status.numberMisscheduled",
                "status.desiredNumberScheduled",
                "status.numberReady",
                "status.observedGeneration",
                "status.updatedNumberScheduled",
                "status.numberAvailable",
                "status.numberUnavailable",
                "status.collisionCount",
            ] {
                problems.not_negative(&root.child(names));
            }
            workload::collisions_only_grow(new, old, problems);
            return;
        }
        problems.immutable(&root.child("spec.selector"), &before.child("spec.selector"));
        judge(&root.child("spec"), problems);
    }
}

fn template_generation(set: &Value) -> i64 {
    let annotations = set.pointer("/metadata/annotations");
    let said = annotations.and_then(|all| all.get(TEMPLATE_GENERATION)?.as_str()?.parse().ok());
    said.filter(|number| *number >= 1).unwrap_or(1)
}

fn judge(spec: &Field<'_, '_>, problems: &mut Problems) {
    let selector = spec.child("selector");
    label_selector(&selector, problems);
    let template = spec.child("template");
    if let Ok(parsed) = LabelSelector::from_object(&selector.shown()) {
        workload::labels_match(Some(&parsed), &template, problems);
    }
    let is_empty =
        selector.child("matchLabels").is_empty() && selector.child("matchExpressions").is_empty();
    if selector.is_set() && is_empty {
        let sentence = "empty selector is invalid for daemonset";
        problems.invalid(&selector, selector.shown(), sentence);
    }
    pod::validate_template(&template, problems);
    workload::keeps_running(&template, "DaemonSet", problems);
    problems.not_negative(&spec.child("minReadySeconds"));
    strategy(&spec.child("updateStrategy"), problems);
    problems.not_negative(&spec.child("revisionHistoryLimit"));
}

fn strategy(strategy: &Field<'_, '_>, problems: &mut Problems) {
    let rolling = strategy.child("rollingUpdate");
    match strategy.child("type").text() {
        "OnDelete" => {}
        "RollingUpdate" => rolling_update(&rolling, problems),
        kind => {
            let within = match rolling.is_set() {
                true => format!(
                    "{{\"MaxUnavailable\":{},\"MaxSurge\":{}}}",
                    rolling.child("maxUnavailable").shown(),
                    rolling.child("maxSurge").shown()
                ),
                false => "null".to_owned(),
            };
            let kind = Value::from(kind);
            // As Go has it.
            let message = format!(
                "Unsupported value: {{\"Type\":{kind},\"RollingUpdate\":{within}}}: supported values: \"RollingUpdate\", \"OnDelete\""
            );
            problems.tell(strategy, "FieldValueNotSupported", message);
        }
    }
}

/// A node is either without a pod for a while, or has two.
fn rolling_update(rolling: &Field<'_, '_>, problems: &mut Problems) {
    let unavailable = rolling.child("maxUnavailable");
    let surge = rolling.child("maxSurge");
    for amount in [&unavailable, &surge] {
        amount_or_percent(amount, problems);
    }
    for amount in [&unavailable, &surge] {
        at_most_all(amount, problems);
    }
    match (amount_of(&unavailable) != 0, amount_of(&surge) != 0) {
        (true, true) => {
            let sentence = "may not be set when maxUnavailable is non-zero";
            problems.invalid(&surge, surge.shown(), sentence);
        }
        (false, false) => problems.required(&unavailable, "cannot be 0 when maxSurge is 0"),
        _ => {}
    }
}

fn desired(row: &Row<'_>) -> Value {
    row.count("/status/desiredNumberScheduled").into()
}

fn current(row: &Row<'_>) -> Value {
    row.count("/status/currentNumberScheduled").into()
}

fn number_ready(row: &Row<'_>) -> Value {
    row.count("/status/numberReady").into()
}

fn updated(row: &Row<'_>) -> Value {
    row.count("/status/updatedNumberScheduled").into()
}

fn available(row: &Row<'_>) -> Value {
    row.count("/status/numberAvailable").into()
}

fn node_selector(row: &Row<'_>) -> Value {
    or_none(labels_text(row.object, "/spec/template/spec/nodeSelector"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::columns::{cells, shapes};
    use crate::strategy::small::Cluster;
    use crate::validate::told;

    fn set() -> Value {
        json!({
            "metadata": {"name": "log", "namespace": "n"},
            "spec": {
                "selector": {"matchLabels": {"app": "log"}},
                "template": {
                    "metadata": {"labels": {"app": "log"}},
                    "spec": {"containers": [{"name": "c", "image": "shop/log:1"}]},
                },
            },
        })
    }

    #[test]
    fn each_rule_is_told_of_by_itself() {
        const PERCENT: &str = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')";
        let no_percent =
            format!("spec.updateStrategy.rollingUpdate.maxSurge: Invalid value: \"-1\": {PERCENT}");
        told::check(
            &DAEMON_SET,
            &set(),
            &[
                (
                    "/spec/selector",
                    Value::Null,
                    &[
                        "spec.template.metadata.labels: Invalid value: {\"app\":\"log\"}: `selector` does not match template `labels`",
                    ],
                ),
                (
                    "/spec/selector",
                    json!({}),
                    &["spec.selector: Invalid value: {}: empty selector is invalid for daemonset"],
                ),
                (
                    "/spec/template/spec/restartPolicy",
                    json!("Never"),
                    &[
                        "spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\"",
                    ],
                ),
                (
                    "/spec/template/spec/activeDeadlineSeconds",
                    json!(5),
                    &[
                        "spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in DaemonSet is not Supported",
                    ],
                ),
                (
                    "/spec/minReadySeconds",
                    json!(-1),
                    &[
                        "spec.minReadySeconds: Invalid value: -1: must be greater than or equal to 0",
                    ],
                ),
                (
                    "/spec/revisionHistoryLimit",
                    json!(-1),
                    &[
                        "spec.revisionHistoryLimit: Invalid value: -1: must be greater than or equal to 0",
                    ],
                ),
                ("/spec/updateStrategy", json!({"type": "OnDelete"}), &[]),
                (
                    "/spec/updateStrategy",
                    json!({"type": "X"}),
                    &[
                        "spec.updateStrategy: Unsupported value: {\"Type\":\"X\",\"RollingUpdate\":null}: supported values: \"RollingUpdate\", \"OnDelete\"",
                    ],
                ),
                (
                    "/spec/updateStrategy/rollingUpdate",
                    json!({"maxUnavailable": 1, "maxSurge": 1}),
                    &[
                        "spec.updateStrategy.rollingUpdate.maxSurge: Invalid value: 1: may not be set when maxUnavailable is non-zero",
                    ],
                ),
                (
                    "/spec/updateStrategy/rollingUpdate",
                    json!({"maxUnavailable": 0, "maxSurge": 0}),
                    &[
                        "spec.updateStrategy.rollingUpdate.maxUnavailable: Required value: cannot be 0 when maxSurge is 0",
                    ],
                ),
                (
                    "/spec/updateStrategy/rollingUpdate",
                    json!({"maxUnavailable": "101%", "maxSurge": "-1"}),
                    &[
                        &no_percent,
                        "spec.updateStrategy.rollingUpdate.maxUnavailable: Invalid value: \"101%\": must not be greater than 100%",
                        "spec.updateStrategy.rollingUpdate.maxSurge: Invalid value: \"-1\": may not be set when maxUnavailable is non-zero",
                    ],
                ),
            ],
        );
        let old = set();
        let other = json!({"matchLabels": {"c": "d"}});
        let moved = told::with(&old, "/spec/selector", other);
        assert_eq!(
            told::of_update(&DAEMON_SET, &moved, &old, None),
            [
                "spec.selector: Invalid value: {\"matchLabels\":{\"c\":\"d\"}}: field is immutable",
                "spec.template.metadata.labels: Invalid value: {\"app\":\"log\"}: `selector` does not match template `labels`",
            ]
        );
        let reported = told::with(
            &old,
            "/status",
            json!({"numberReady": -1, "collisionCount": -1}),
        );
        assert_eq!(
            told::of_update(&DAEMON_SET, &reported, &old, Some(Subresource::Status)),
            [
                "status.numberReady: Invalid value: -1: must be greater than or equal to 0",
                "status.collisionCount: Invalid value: -1: must be greater than or equal to 0",
            ]
        );
    }

    #[test]
    fn the_server_counts_the_templates() {
        let numbered = |new: &Value, old: Option<&Value>| {
            let mut new = new.clone();
            DAEMON_SET
                .strategy
                .allocate(&mut new, old, &Cluster::default())
                .unwrap();
            new
        };
        let annotated = |number: &str| {
            let all = json!({TEMPLATE_GENERATION: number});
            told::with(&set(), "/metadata/annotations", all)
        };
        for (said, number) in [("7", 7), ("0", 1), ("x", 1)] {
            let new = numbered(&annotated(said), None);
            assert_eq!(template_generation(&new), number);
        }
        let first = numbered(&set(), None);
        assert_eq!(template_generation(&first), 1);
        let said = numbered(&annotated("9"), Some(&first));
        assert_eq!(template_generation(&said), 1);
        let image = "/spec/template/spec/containers/0/image";
        let second = told::with(&set(), image, json!("shop/log:2"));
        let second = numbered(&second, Some(&first));
        assert_eq!(template_generation(&second), 2);
    }

    #[test]
    fn a_row_counts_nodes() {
        let mut set = told::with(
            &set(),
            "/status",
            json!({"desiredNumberScheduled": 5, "currentNumberScheduled": 4, "numberReady": 3, "updatedNumberScheduled": 2, "numberAvailable": 1}),
        );
        set["spec"]["template"]["spec"]["nodeSelector"] = json!({"disk": "ssd"});
        assert_eq!(
            cells(&DAEMON_SET, &set),
            [
                json!("log"),
                json!(5),
                json!(4),
                json!(3),
                json!(2),
                json!(1),
                json!("disk=ssd"),
                json!("10s"),
                json!("c"),
                json!("shop/log:1"),
                json!("app=log"),
            ]
        );
        assert_eq!(
            shapes(&DAEMON_SET)[5..8],
            ["Available: integer", "Node Selector: string", "Age: string"]
        );
    }
}
