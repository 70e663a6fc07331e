//! Schemas and levels, as tables.

use serde_json::json;

use super::*;
use crate::columns::cells;
use crate::validate::told;

fn kind_of(object: &Value) -> &'static crate::Kind {
    match object["kind"].as_str() {
        Some("FlowSchema") => &FLOW_SCHEMA,
        _ => &PRIORITY_LEVEL_CONFIGURATION,
    }
}

#[test]
fn what_every_cluster_has_is_sound_complete_and_fixed() {
    for object in bootstrap::mandatory() {
        let kind = kind_of(&object);
        let name = object["metadata"]["name"].as_str().unwrap();
        assert_eq!(told::of_new(kind, &object), [""; 0], "{name}");
        let mut defaulted = object.clone();
        kind.strategy.default(&mut defaulted);
        assert_eq!(defaulted["spec"], object["spec"], "{name}");
    }
    let schema = bootstrap::mandatory().pop().unwrap();
    let other = told::with(&schema, "/spec/matchingPrecedence", json!(7));
    let found = told::of_update(&FLOW_SCHEMA, &other, &schema, None);
    assert_eq!(found.len(), 1);
    assert!(found[0].ends_with("spec of 'catch-all' must equal the fixed value"));
    assert!(found[0].starts_with("spec: Invalid value: {\"DistinguisherMethod\""));
    let level = bootstrap::mandatory().remove(0);
    let shared = json!({"nominalConcurrencyShares": 3, "lendablePercent": 1});
    let shared = told::with(&level, "/spec/exempt", shared);
    let found = told::of_update(&PRIORITY_LEVEL_CONFIGURATION, &shared, &level, None);
    assert_eq!(found, [""; 0]);
}

#[test]
fn schemas_say_whose_requests_for_what() {
    let schema = json!({"metadata": {"name": "s"}, "spec": {
        "priorityLevelConfiguration": {"name": "p"},
        "rules": [{
            "subjects": [{"kind": "User", "user": {"name": "u"}}],
            "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/healthz"]}],
        }],
    }});
    let rule = "/spec/rules/0";
    told::check(
        &FLOW_SCHEMA,
        &schema,
        &[
            (
                "/spec/matchingPrecedence",
                json!(1),
                &[
                    "spec.matchingPrecedence: Invalid value: 1: only the schema named 'exempt' may have matchingPrecedence 1",
                ],
            ),
            (
                "/spec/distinguisherMethod",
                json!({"type": "x"}),
                &[
                    "spec.distinguisherMethod.type: Unsupported value: {\"Type\":\"x\"}: supported values: \"ByNamespace\", \"ByUser\"",
                ],
            ),
            (
                rule,
                json!({}),
                &[
                    "spec.rules[0].subjects: Required value: subjects must contain at least one value",
                    "spec.rules[0]: Required value: at least one of resourceRules and nonResourceRules has to be non-empty",
                ],
            ),
            (
                "/spec/rules/0/subjects/0",
                json!({"kind": "ServiceAccount", "serviceAccount": {"name": "*"}, "group": {"name": "g"}}),
                &[
                    "spec.rules[0].subjects[0].serviceAccount.namespace: Required value: must specify namespace for service account",
                    "spec.rules[0].subjects[0].group: Forbidden: group is forbidden when subject kind is not 'Group'",
                ],
            ),
            (
                "/spec/rules/0/resourceRules",
                json!([{"verbs": ["get", "*"], "apiGroups": ["*"], "resources": ["*", "a"]}]),
                &[
                    "spec.rules[0].resourceRules[0].verbs: Invalid value: [\"get\",\"*\"]: if '*' is present, must not specify other verbs",
                    "spec.rules[0].resourceRules[0].resources: Invalid value: [\"*\",\"a\"]: if '*' is present, must not specify other resources",
                    "spec.rules[0].resourceRules[0].namespaces: Required value: resource rules that are not cluster scoped must supply at least one namespace",
                ],
            ),
            (
                "/spec/rules/0/nonResourceRules/0/nonResourceURLs/0",
                json!("/a*"),
                &[
                    "spec.rules[0].nonResourceRules[0].nonResourceURLs[0]: Invalid value: \"/a*\": wildcard can only do suffix matching",
                ],
            ),
        ],
    );
    assert_eq!(
        json!(cells(&FLOW_SCHEMA, &schema)),
        json!(["s", "p", 0, "<none>", "10s", "?"])
    );
}

#[test]
fn levels_have_what_goes_with_their_type() {
    let level = json!({"metadata": {"name": "l"}, "spec": {
        "type": "Limited", "limited": {"limitResponse": {"type": "Queue", "queuing": {}}},
    }});
    told::check(
        &PRIORITY_LEVEL_CONFIGURATION,
        &level,
        &[
            ("/spec", json!({}), &["spec.type: Required value"]),
            ("/spec/exempt", json!({}), &["spec.exempt: Forbidden"]),
            (
                "/spec/limited/limitResponse",
                json!({"queuing": {}}),
                &[
                    "spec.limited.limitResponse.queuing: Forbidden",
                    "spec.limited.limitResponse.type: Required value",
                ],
            ),
            (
                "/spec/limited/limitResponse/queuing",
                json!({"queues": 4, "handSize": 5, "queueLengthLimit": -1}),
                &[
                    "spec.limited.limitResponse.queuing.queueLengthLimit: Invalid value: -1: must be positive",
                    "spec.limited.limitResponse.queuing.handSize: Invalid value: 5: should not be greater than queues (4)",
                ],
            ),
            (
                "/spec/limited/limitResponse/queuing",
                json!({"queues": 1024, "handSize": 8}),
                &[
                    "spec.limited.limitResponse.queuing.handSize: Invalid value: 8: required entropy bits of deckSize 1024 and handSize 8 should not be greater than 60",
                ],
            ),
        ],
    );
    let mut shown = level;
    PRIORITY_LEVEL_CONFIGURATION.strategy.default(&mut shown);
    assert_eq!(
        json!(cells(&PRIORITY_LEVEL_CONFIGURATION, &shown)),
        json!(["l", "Limited", 30, 64, 8, 50, "10s"])
    );
}
