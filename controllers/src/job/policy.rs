//! What a Job says of failures of its pods and of its success: `podFailurePolicy` and `successPolicy`.

use k8s_openapi::api::batch::v1::{
    PodFailurePolicy, PodFailurePolicyOnExitCodesRequirement,
    PodFailurePolicyOnPodConditionsPattern, SuccessPolicy,
};

use super::end::End;
use super::indexes::Indexes;
use crate::metadata::Key;

/// What is to be done about a pod that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It counts towards the limit of failures.
    Count,
    /// It does not.
    Ignore,
    /// Its index has failed for good.
    FailIndex,
    /// The whole Job has, with this message.
    FailJob(String),
}

/// By the first rule that the pod matches; without one it counts.
pub fn verdict(policy: Option<&PodFailurePolicy>, pod: &Key, end: &End) -> Verdict {
    let rules = policy.map_or(&[][..], |policy| &policy.rules);
    for (index, rule) in rules.iter().enumerate() {
        let matched = if let Some(codes) = &rule.on_exit_codes {
            matching_exit(codes, end).map(|(container, code)| {
                format!("Container {container} for pod {pod} failed with exit code {code}")
            })
        } else {
            let patterns = rule.on_pod_conditions.as_deref().unwrap_or_default();
            matching_condition(patterns, end)
                .map(|condition| format!("Pod {pod} has condition {condition}"))
        };
        let Some(told) = matched else { continue };
        let action = &*rule.action;
        match action {
            "Ignore" => return Verdict::Ignore,
            "FailIndex" => return Verdict::FailIndex,
            "Count" => return Verdict::Count,
            "FailJob" => {
                let message = format!("{told} matching {action} rule at index {index}");
                return Verdict::FailJob(message);
            }
            // Of a release after this one.
            _ => {}
        }
    }
    Verdict::Count
}

fn matching_exit<'a>(
    wanted: &PodFailurePolicyOnExitCodesRequirement,
    end: &'a End,
) -> Option<(&'a str, i64)> {
    let matches = |(container, code): &&(String, i64)| {
        let listed = wanted.values.iter().any(|value| i64::from(*value) == *code);
        let by_name = wanted.container_name.as_ref();
        by_name.is_none_or(|name| name == container)
            && match &*wanted.operator {
                "In" => listed,
                "NotIn" => !listed,
                _ => false,
            }
    };
    let (container, code) = end.failures.iter().find(matches)?;
    Some((container, *code))
}

fn matching_condition<'a>(
    patterns: &[PodFailurePolicyOnPodConditionsPattern],
    end: &'a End,
) -> Option<&'a str> {
    let matches = |(kind, status): &&(String, String)| {
        let mut patterns = patterns.iter();
        patterns.any(|pattern| pattern.type_ == *kind && pattern.status.as_ref() == Some(status))
    };
    end.conditions
        .iter()
        .find(matches)
        .map(|(kind, _)| kind.as_str())
}

/// The message of the first rule by which a Job whose pods of these indexes succeeded has succeeded.
pub fn success(
    policy: Option<&SuccessPolicy>,
    completions: i64,
    succeeded: &Indexes,
) -> Option<String> {
    if succeeded.is_empty() {
        return None;
    }
    let met = policy?.rules.iter().position(|rule| {
        let enough = |count: i64| rule.succeeded_count.is_some_and(|n| count >= i64::from(n));
        match &rule.succeeded_indexes {
            None => enough(succeeded.total()),
            Some(text) => {
                let wanted = Indexes::parse(text, completions);
                let there = wanted.common(succeeded);
                !wanted.is_empty() && (there == wanted.total() || enough(there))
            }
        }
    })?;
    Some(format!("Matched rules at index {met}"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn the_first_rule_that_matches_decides() {
        let end = End {
            failures: vec![("main".into(), 3), ("init".into(), 5)],
            conditions: vec![("DisruptionTarget".into(), "True".into())],
            ..End::default()
        };
        let codes = |action: &str, operator: &str, values: &[i32], container: Value| {
            json!({"action": action, "onExitCodes": {"operator": operator, "values": values,
                "containerName": container}})
        };
        let conditions = |action: &str, kind: &str, status: &str| json!({"action": action, "onPodConditions": [{"type": kind, "status": status}]});
        let fail = |message: &str| Verdict::FailJob(message.to_owned());
        for (rules, expected) in [
            (json!([]), Verdict::Count),
            (
                json!([codes("Ignore", "In", &[1, 3], Value::Null)]),
                Verdict::Ignore,
            ),
            (
                json!([codes("Ignore", "In", &[1], Value::Null)]),
                Verdict::Count,
            ),
            (
                json!([codes("Ignore", "In", &[5], json!("main"))]),
                Verdict::Count,
            ),
            (
                json!([codes("FailIndex", "In", &[5], json!("init"))]),
                Verdict::FailIndex,
            ),
            (
                json!([codes("FailIndex", "NotIn", &[3], json!("main"))]),
                Verdict::Count,
            ),
            (
                json!([codes("FailJob", "NotIn", &[3], Value::Null)]),
                fail(
                    "Container init for pod default/p failed with exit code 5 matching FailJob rule at index 0",
                ),
            ),
            (
                json!([
                    codes("Count", "In", &[9], Value::Null),
                    conditions("FailJob", "DisruptionTarget", "True")
                ]),
                fail(
                    "Pod default/p has condition DisruptionTarget matching FailJob rule at index 1",
                ),
            ),
            (
                json!([conditions("Ignore", "DisruptionTarget", "False")]),
                Verdict::Count,
            ),
            (
                json!([
                    codes("Count", "In", &[3], Value::Null),
                    codes("Ignore", "In", &[3], Value::Null)
                ]),
                Verdict::Count,
            ),
        ] {
            let policy = serde_json::from_value(json!({ "rules": rules })).unwrap();
            let found = verdict(Some(&policy), &Key::new("default", "p"), &end);
            assert_eq!(found, expected, "{rules}");
        }
        assert_eq!(
            verdict(None, &Key::new("default", "p"), &end),
            Verdict::Count
        );
    }

    #[test]
    fn success_by_indexes_by_count_and_by_both() {
        for (rules, succeeded, met) in [
            (json!([{"succeededCount": 2}]), "0", None),
            (json!([{"succeededCount": 2}]), "0,4", Some(0)),
            (json!([{"succeededIndexes": "0-2"}]), "0,2", None),
            (json!([{"succeededIndexes": "0-2"}]), "0-3", Some(0)),
            (
                json!([{"succeededIndexes": "0-2", "succeededCount": 2}]),
                "0,2",
                Some(0),
            ),
            (
                json!([{"succeededIndexes": "0-2", "succeededCount": 2}]),
                "0,3-4",
                None,
            ),
            (
                json!([{"succeededIndexes": "9"}, {"succeededCount": 1}]),
                "0",
                Some(1),
            ),
            (json!([{"succeededCount": 0}]), "", None),
        ] {
            let policy = serde_json::from_value(json!({ "rules": rules })).unwrap();
            let found = success(Some(&policy), 5, &Indexes::parse(succeeded, 5));
            let expected = met.map(|index: i32| format!("Matched rules at index {index}"));
            assert_eq!(found, expected, "{rules} {succeeded}");
        }
        assert_eq!(success(None, 5, &Indexes::parse("0-4", 5)), None);
    }
}
