//! `policy`: PodDisruptionBudgets. `v1beta1` is a spelling in which an empty selector matches nothing, where in `v1` it matches
//! every pod.

use std::sync::{Arc, LazyLock};

use serde_json::{Value, json};

use crate::apps::amount::{amount_or_percent, at_most_all};
use crate::columns::{Column, Row};
use crate::conditions::conditions;
use crate::field::Field;
use crate::kind::{NameRule, Spelling};
use crate::lens::{items, text};
use crate::strategy::Strategy;
use crate::validate::{Problems, label_selector};
use crate::{Kind, StatusMetadata, Subresource};

pub static POD_DISRUPTION_BUDGET: LazyLock<Arc<Kind>> =
    LazyLock::new(|| Arc::new(kind("v1", false)));

pub static POD_DISRUPTION_BUDGET_V1BETA1: LazyLock<Arc<Kind>> = LazyLock::new(|| {
    Arc::new(Kind {
        listed: false,
        spelling: Some(Spelling {
            of: POD_DISRUPTION_BUDGET.clone(),
            read: to_v1beta1,
            write: from_v1beta1,
        }),
        ..kind("v1beta1", true)
    })
});

fn kind(version: &'static str, legacy: bool) -> Kind {
    Kind {
        short_names: vec!["pdb".into()],
        subresources: vec![Subresource::Status],
        columns: vec![
            Column::name(),
            Column::text(
                "Min Available",
                min_available,
                "Fewest pods that have to stay.",
            ),
            Column::text(
                "Max Unavailable",
                max_unavailable,
                "Most pods that may be away.",
            ),
            Column::integer(
                "Allowed Disruptions",
                allowed,
                "Pods that may be taken away now.",
            ),
            Column::age(),
        ],
        counts_generations: true,
        // Nothing is named after it.
        name_rule: NameRule::PathSegment,
        status_metadata: StatusMetadata::TAKEN,
        strategy: Arc::new(Budgets { legacy }),
        ..Kind::new(
            "policy",
            version,
            "PodDisruptionBudget",
            "poddisruptionbudgets",
        )
    }
}

/// A label that no pod has: how either version says what it has no words for.
const NEVER: &str = "pdb.kubernetes.io/deprecated-v1beta1-empty-selector-match";

fn selector_by(operator: &str) -> Value {
    json!({"matchExpressions": [{"key": NEVER, "operator": operator}]})
}

fn respell(value: &mut Value, version: &str, pairs: [(Value, Value); 2]) {
    value["apiVersion"] = format!("policy/{version}").into();
    if let Some(selector) = value.pointer_mut("/spec/selector") {
        let pair = pairs.into_iter().find(|(from, _)| from == selector);
        if let Some((_, to)) = pair {
            *selector = to;
        }
    }
}

fn to_v1beta1(value: &mut Value) {
    let none = (selector_by("Exists"), json!({}));
    let all = (json!({}), selector_by("DoesNotExist"));
    respell(value, "v1beta1", [none, all]);
}

fn from_v1beta1(value: &mut Value) {
    let none = (json!({}), selector_by("Exists"));
    let all = (selector_by("DoesNotExist"), json!({}));
    respell(value, "v1", [none, all]);
}

const EVICTIONS: &[&str] = &["AlwaysAllow", "IfHealthyBudget"];

struct Budgets {
    /// Whether it came as `v1beta1`, of whose statuses less was asked.
    legacy: bool,
}

impl Strategy for Budgets {
    fn allows_unconditional_update(&self) -> bool {
        false
    }

    /// The label that no pod has is nobody's to ask for, but where it stands for no pod at all.
    fn drop_unserved(&self, next: &mut Value) {
        let Some(selector) = next.pointer_mut("/spec/selector") else {
            return;
        };
        if *selector == selector_by("Exists") {
            return;
        }
        let expressions = items(selector, "/matchExpressions");
        let kept: Vec<Value> = expressions
            .iter()
            .filter(|expression| text(expression, "/key") != NEVER)
            .cloned()
            .collect();
        if kept.len() < expressions.len() {
            let kept = (!kept.is_empty()).then(|| kept.into());
            crate::lens::put(selector, "matchExpressions", kept);
        }
    }

    fn validate(&self, new: &Value, problems: &mut Problems) {
        let root = Field::root(new);
        let spec = root.child("spec");
        let (min, max) = (spec.child("minAvailable"), spec.child("maxUnavailable"));
        let selector = spec.child("selector");
        let policy = spec.child("unhealthyPodEvictionPolicy");
        if min.is_set() && max.is_set() {
            // As Go has it.
            let shown = format!(
                "{{\"MinAvailable\":{},\"Selector\":{},\"MaxUnavailable\":{},\"UnhealthyPodEvictionPolicy\":{}}}",
                min.shown(),
                selector.shown(),
                max.shown(),
                policy.shown()
            );
            let sentence = "minAvailable and maxUnavailable cannot be both set";
            problems.invalid_in_go(&spec, &shown, sentence);
        }
        for amount in [&min, &max] {
            amount_or_percent(amount, problems);
            at_most_all(amount, problems);
        }
        label_selector(&selector, problems);
        problems.one_of(&policy, EVICTIONS);
    }

    fn validate_update(
        &self,
        new: &Value,
        _: &Value,
        part: Option<Subresource>,
        problems: &mut Problems,
    ) {
        if part != Some(Subresource::Status) {
            return self.validate(new, problems);
        }
        let root = Field::root(new);
        let status = root.child("status");
        conditions(&status, problems);
        if self.legacy {
            return;
        }
        for names in [
            "disruptionsAllowed",
            "currentHealthy",
            "desiredHealthy",
            "expectedPods",
        ] {
            problems.not_negative(&status.child(names));
        }
    }
}

fn amount(row: &Row<'_>, pointer: &str) -> Value {
    match row.object.pointer(pointer) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) => number.to_string(),
        _ => "N/A".to_owned(),
    }
    .into()
}

fn min_available(row: &Row<'_>) -> Value {
    amount(row, "/spec/minAvailable")
}

fn max_unavailable(row: &Row<'_>) -> Value {
    amount(row, "/spec/maxUnavailable")
}

fn allowed(row: &Row<'_>) -> Value {
    row.count("/status/disruptionsAllowed").into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::columns::{cells, shapes};
    use crate::validate::told;

    fn budget() -> Value {
        json!({"metadata": {"name": "web", "namespace": "n"},
            "spec": {"minAvailable": 1, "selector": {"matchLabels": {"a": "b"}}}})
    }

    #[test]
    fn each_rule_is_told_of_by_itself() {
        told::check(
            &POD_DISRUPTION_BUDGET,
            &budget(),
            &[
                (
                    "/spec/maxUnavailable",
                    json!(1),
                    &[
                        "spec: Invalid value: {\"MinAvailable\":1,\"Selector\":{\"matchLabels\":{\"a\":\"b\"}},\"MaxUnavailable\":1,\"UnhealthyPodEvictionPolicy\":null}: minAvailable and maxUnavailable cannot be both set",
                    ],
                ),
                (
                    "/spec/minAvailable",
                    json!(-1),
                    &["spec.minAvailable: Invalid value: -1: must be greater than or equal to 0"],
                ),
                (
                    "/spec/minAvailable",
                    json!("101%"),
                    &["spec.minAvailable: Invalid value: \"101%\": must not be greater than 100%"],
                ),
                (
                    "/spec/selector",
                    json!({"matchExpressions": [{"key": "a", "operator": "X"}]}),
                    &[
                        "spec.selector.matchExpressions[0].operator: Invalid value: \"X\": not a valid selector operator",
                    ],
                ),
                (
                    "/spec/unhealthyPodEvictionPolicy",
                    json!("X"),
                    &[
                        "spec.unhealthyPodEvictionPolicy: Unsupported value: \"X\": supported values: \"AlwaysAllow\", \"IfHealthyBudget\"",
                    ],
                ),
                ("/metadata/name", json!("A B"), &[]),
            ],
        );
    }

    #[test]
    fn a_status_is_judged_by_the_version_that_it_comes_in() {
        let old = budget();
        let status = json!({"disruptionsAllowed": -1, "expectedPods": -1, "conditions": [
            {"type": "", "status": "X", "reason": "", "message": ""},
            {"type": "A", "status": "True", "reason": "R_1,a:b", "lastTransitionTime": "2026-01-01T00:00:00Z"},
            {"type": "A", "status": "True", "reason": "r", "lastTransitionTime": "2026-01-01T00:00:00Z", "observedGeneration": -1},
        ]});
        let new = told::with(&old, "/status", status);
        let of_conditions = [
            "status.conditions[0].type: Required value: is required",
            "status.conditions[0].status: Unsupported value: \"X\": supported values: \"False\", \"True\", \"Unknown\"",
            "status.conditions[0].lastTransitionTime: Required value",
            "status.conditions[0].reason: Required value",
            "status.conditions[2]: Duplicate value: \"A\"",
            "status.conditions[2].observedGeneration: Invalid value: -1: must be greater than or equal to zero",
        ];
        let of_counts = [
            "status.disruptionsAllowed: Invalid value: -1: must be greater than or equal to 0",
            "status.expectedPods: Invalid value: -1: must be greater than or equal to 0",
        ];
        let part = Some(Subresource::Status);
        let told = told::of_update(&POD_DISRUPTION_BUDGET, &new, &old, part);
        assert_eq!(told, [&of_conditions[..], &of_counts].concat());
        let told = told::of_update(&POD_DISRUPTION_BUDGET_V1BETA1, &new, &old, part);
        assert_eq!(told, of_conditions);
    }

    /// kubectl before 1.22 sends `v1beta1`, where an empty selector is a budget for no pod.
    #[test]
    fn an_empty_selector_means_the_opposite_in_v1beta1() {
        for (old, new) in [
            (json!({}), selector_by("Exists")),
            (selector_by("DoesNotExist"), json!({})),
            (
                json!({"matchLabels": {"a": "b"}}),
                json!({"matchLabels": {"a": "b"}}),
            ),
        ] {
            let mut value = json!({"apiVersion": "policy/v1beta1", "spec": {"selector": old}});
            let sent = value.clone();
            from_v1beta1(&mut value);
            POD_DISRUPTION_BUDGET.strategy.drop_unserved(&mut value);
            assert_eq!(
                value,
                json!({"apiVersion": "policy/v1", "spec": {"selector": new}})
            );
            to_v1beta1(&mut value);
            assert_eq!(value, sent);
        }
        let mut asks = json!({"spec": {"selector": {"matchExpressions": [
            {"key": NEVER, "operator": "Exists"}, {"key": "a", "operator": "Exists"},
        ]}}});
        POD_DISRUPTION_BUDGET.strategy.drop_unserved(&mut asks);
        assert_eq!(
            asks["spec"]["selector"],
            json!({"matchExpressions": [{"key": "a", "operator": "Exists"}]})
        );
    }

    #[test]
    fn a_row_shows_what_may_be_taken() {
        assert_eq!(
            shapes(&POD_DISRUPTION_BUDGET),
            [
                "Name: string/name",
                "Min Available: string",
                "Max Unavailable: string",
                "Allowed Disruptions: integer",
                "Age: string",
            ]
        );
        let mut budget = told::with(&budget(), "/spec", json!({"maxUnavailable": "25%"}));
        budget["status"] = json!({"disruptionsAllowed": 2});
        assert_eq!(
            cells(&POD_DISRUPTION_BUDGET, &budget),
            [
                json!("web"),
                json!("N/A"),
                json!("25%"),
                json!(2),
                json!("10s")
            ]
        );
    }
}
