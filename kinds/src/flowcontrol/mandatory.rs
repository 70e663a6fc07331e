//! The schemas and levels that every cluster has, and whose content is fixed: for administrators, and for what no other schema
//! takes up.

use serde_json::{Value, json};

use super::GROUP;

/// The levels, then the schemas that name them, as they are created.
pub fn mandatory() -> Vec<Value> {
    let object = |kind: &str, name: &str, spec: Value| {
        json!({
            "apiVersion": format!("{GROUP}/v1"), "kind": kind,
            "metadata": {
                "name": name,
                "annotations": {"apf.kubernetes.io/autoupdate-spec": "true"},
            },
            "spec": spec,
        })
    };
    let everything = |groups: &[&str]| {
        let subjects: Vec<Value> = groups
            .iter()
            .map(|group| json!({"kind": "Group", "group": {"name": group}}))
            .collect();
        json!([{
            "subjects": subjects,
            "resourceRules": [{
                "verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "clusterScope": true, "namespaces": ["*"],
            }],
            "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
        }])
    };
    vec![
        object(
            "PriorityLevelConfiguration",
            "exempt",
            json!({"type": "Exempt", "exempt": {"nominalConcurrencyShares": 0, "lendablePercent": 0}}),
        ),
        object(
            "PriorityLevelConfiguration",
            "catch-all",
            json!({"type": "Limited", "limited": {
                "nominalConcurrencyShares": 5, "lendablePercent": 0, "limitResponse": {"type": "Reject"},
            }}),
        ),
        object(
            "FlowSchema",
            "exempt",
            json!({
                "priorityLevelConfiguration": {"name": "exempt"}, "matchingPrecedence": 1,
                "rules": everything(&["system:masters"]),
            }),
        ),
        object(
            "FlowSchema",
            "catch-all",
            json!({
                "priorityLevelConfiguration": {"name": "catch-all"}, "matchingPrecedence": 10_000,
                "distinguisherMethod": {"type": "ByUser"},
                "rules": everything(&["system:unauthenticated", "system:authenticated"]),
            }),
        ),
    ]
}

/// The fixed spec of the object of this kind and name, if it has one.
pub(super) fn spec_of(kind: &str, name: &str) -> Option<Value> {
    let found = mandatory()
        .into_iter()
        .find(|object| object["kind"] == kind && object["metadata"]["name"] == name);
    found.map(|mut object| object["spec"].take())
}
