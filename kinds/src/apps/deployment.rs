//! Deployments.

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

use serde_json::Value;

use super::amount::{amount_of, amount_or_percent, at_most_all};
use super::workload;
use crate::columns::{Column, Row};
use crate::field::Field;
use crate::lens::{fill, member, text};
use crate::strategy::{Strategy, Surroundings};
use crate::validate::Problems;
use crate::{Kind, StatusMetadata, Subresource, weft};

pub static DEPLOYMENT: LazyLock<Arc<Kind>> = LazyLock::new(|| {
    let counts = [
        Column::text("Ready", ready, "Ready pods of desired pods."),
        Column::text("Up-to-date", up_to_date, "Pods of the newest template."),
        Column::text("Available", available, "Pods ready for long enough."),
    ];
    Arc::new(Kind {
        status_metadata: StatusMetadata::TakenBut(&["labels"]),
        ..workload::kind("Deployment", "deployments", "deploy", counts, Deployments)
    })
});

struct Deployments;

impl Strategy for Deployments {
    fn default(&self, value: &mut Value) {
        workload::default_template(value);
        let Some(spec) = value.get_mut("spec") else {
            return;
        };
        fill(spec, "replicas", 1);
        fill(spec, "revisionHistoryLimit", 10);
        fill(spec, "progressDeadlineSeconds", 600);
        let strategy = member(spec, "strategy");
        fill(strategy, "type", "RollingUpdate");
        if text(strategy, "/type") == "RollingUpdate" {
            let rolling = member(strategy, "rollingUpdate");
            fill(rolling, "maxUnavailable", "25%");
            fill(rolling, "maxSurge", "25%");
        }
    }

    fn images(&self, value: &Value) -> BTreeSet<String> {
        workload::images_of_pods(value)
    }

    fn warn(&self, value: &Value, around: &dyn Surroundings) -> Vec<String> {
        weft::warnings_of_template(value, around)
    }

    fn validate(&self, new: &Value, problems: &mut Problems) {
        let root = Field::root(new);
        let spec = root.child("spec");
        problems.not_negative(&spec.child("replicas"));
        workload::validate_pods(&spec, problems);
        strategy(&spec.child("strategy"), problems);
        problems.not_negative(&spec.child("minReadySeconds"));
        problems.not_negative(&spec.child("revisionHistoryLimit"));
        let deadline = spec.child("progressDeadlineSeconds");
        problems.not_negative(&deadline);
        let min_ready = spec.child("minReadySeconds").integer().unwrap_or(0);
        if let Some(seconds) = deadline.integer().filter(|seconds| *seconds <= min_ready) {
            let sentence = "must be greater than minReadySeconds";
            problems.invalid(&deadline, seconds, sentence);
        }
    }

    fn validate_update(
        &self,
        new: &Value,
        old: &Value,
        part: Option<Subresource>,
        problems: &mut Problems,
    ) {
        let parts = [
            "updatedReplicas",
            "readyReplicas",
            "availableReplicas",
            "unavailableReplicas",
        ];
        workload::validate_update(self, new, old, part, &parts, problems);
        if part == Some(Subresource::Status) {
            workload::collisions_only_grow(new, old, problems);
        }
    }
}

fn strategy(strategy: &Field<'_, '_>, problems: &mut Problems) {
    let rolling = strategy.child("rollingUpdate");
    match strategy.child("type").text() {
        "Recreate" => {
            if rolling.is_set() {
                let sentence = "may not be specified when strategy `type` is 'Recreate'";
                problems.forbidden(&rolling, sentence);
            }
        }
        "RollingUpdate" => {
            if rolling.is_set() {
                rolling_update(&rolling, problems);
            } else {
                let sentence = "this should be defaulted and never be nil";
                problems.required(&rolling, sentence);
            }
        }
        _ => {
            let supported = ["Recreate", "RollingUpdate"];
            problems.not_supported(strategy, strategy.shown(), &supported);
        }
    }
}

fn rolling_update(rolling: &Field<'_, '_>, problems: &mut Problems) {
    let unavailable = rolling.child("maxUnavailable");
    let surge = rolling.child("maxSurge");
    amount_or_percent(&unavailable, problems);
    amount_or_percent(&surge, problems);
    if amount_of(&unavailable) == 0 && amount_of(&surge) == 0 {
        let sentence = "may not be 0 when `maxSurge` is 0";
        problems.invalid(&unavailable, unavailable.shown(), sentence);
    }
    at_most_all(&unavailable, problems);
}

fn ready(row: &Row<'_>) -> Value {
    format!(
        "{}/{}",
        row.count("/status/readyReplicas"),
        row.count("/spec/replicas")
    )
    .into()
}

fn up_to_date(row: &Row<'_>) -> Value {
    row.count("/status/updatedReplicas").into()
}

fn available(row: &Row<'_>) -> Value {
    row.count("/status/availableReplicas").into()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::validate::told;

    fn deployment() -> Value {
        json!({
            "metadata": {"name": "d", "namespace": "default"},
            "spec": {
                "selector": {"matchLabels": {"app": "d"}},
                "template": {
                    "metadata": {"labels": {"app": "d"}},
                    "spec": {"containers": [{"name": "c", "image": "shop/web:1"}]},
                },
            },
        })
    }

    #[test]
    fn each_rule_is_told_of_by_itself() {
        told::check(
            &DEPLOYMENT,
            &deployment(),
            &[
                (
                    "/spec/replicas",
                    json!(-1),
                    &["spec.replicas: Invalid value: -1: must be greater than or equal to 0"],
                ),
                (
                    "/spec/selector",
                    Value::Null,
                    &[
                        "spec.selector: Required value",
                        "spec.template.metadata.labels: Invalid value: {\"app\":\"d\"}: `selector` does not match template `labels`",
                    ],
                ),
                (
                    "/spec/selector/matchLabels",
                    Value::Null,
                    &["spec.selector: Invalid value: {}: empty selector is invalid for deployment"],
                ),
                (
                    "/spec/template/spec/restartPolicy",
                    json!("Never"),
                    &[
                        "spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\"",
                    ],
                ),
                (
                    "/spec/template/metadata/labels/b",
                    json!("-"),
                    &[
                        "spec.template.labels: Invalid value: \"-\": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')",
                    ],
                ),
                (
                    "/spec/progressDeadlineSeconds",
                    json!(0),
                    &[
                        "spec.progressDeadlineSeconds: Invalid value: 0: must be greater than minReadySeconds",
                    ],
                ),
                (
                    "/spec/strategy",
                    json!({"type": "Recreate", "rollingUpdate": {}}),
                    &[
                        "spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'",
                    ],
                ),
                (
                    "/spec/strategy",
                    json!({"type": "Canary"}),
                    &[
                        "spec.strategy: Unsupported value: {\"type\":\"Canary\"}: supported values: \"Recreate\", \"RollingUpdate\"",
                    ],
                ),
            ],
        );
    }

    /// Sizes that a rollout adds to each other: shares are shares, amounts are numbers of pods.
    #[test]
    fn amounts_and_percents_are_bounded() {
        const PERCENT: &str = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')";
        for (unavailable, surge, expected) in [
            (json!("25%"), json!(1), vec![]),
            (json!("100%"), json!("300%"), vec![]),
            (
                json!("101%"),
                json!(0),
                vec!["maxUnavailable: Invalid value: \"101%\": must not be greater than 100%".to_owned()],
            ),
            (
                json!("99999999999999999999%"),
                json!(0),
                vec!["maxUnavailable: Invalid value: \"99999999999999999999%\": must not be greater than 100%".to_owned()],
            ),
            (
                json!("half"),
                json!("-1%"),
                vec![
                    format!("maxUnavailable: Invalid value: \"half\": {PERCENT}"),
                    format!("maxSurge: Invalid value: \"-1%\": {PERCENT}"),
                    "maxUnavailable: Invalid value: \"half\": may not be 0 when `maxSurge` is 0".to_owned(),
                ],
            ),
            (
                json!(-1),
                json!(1),
                vec!["maxUnavailable: Invalid value: -1: must be greater than or equal to 0".to_owned()],
            ),
            (
                json!(0),
                json!("0%"),
                vec!["maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0".to_owned()],
            ),
        ] {
            let rolling = json!({"maxUnavailable": unavailable, "maxSurge": surge});
            let new = told::with(&deployment(), "/spec/strategy/rollingUpdate", rolling);
            let found: Vec<String> = told::of_new(&DEPLOYMENT, &new)
                .iter()
                .map(|line| line.replace("spec.strategy.rollingUpdate.", ""))
                .collect();
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn selectors_stay_and_counts_add_up() {
        let old = deployment();
        let other = told::with(&old, "/spec/selector/matchLabels/app", json!("e"));
        let other = told::with(&other, "/spec/template/metadata/labels/app", json!("e"));
        assert_eq!(
            told::of_update(&DEPLOYMENT, &other, &old, None),
            ["spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"e\"}}: field is immutable"]
        );
        let status = json!({"replicas": 1, "readyReplicas": 2, "availableReplicas": 0});
        let reported = told::with(&old, "/status", status);
        assert_eq!(
            told::of_update(&DEPLOYMENT, &reported, &old, Some(Subresource::Status)),
            ["status.readyReplicas: Invalid value: 2: cannot be greater than status.replicas"]
        );
    }
}
