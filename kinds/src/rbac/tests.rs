//! Roles and bindings, as tables.

use serde_json::json;

use super::*;
use crate::columns::cells;
use crate::validate::told;

#[test]
fn rules_are_about_resources_or_about_paths() {
    let role = json!({"metadata": {"name": "system:x", "namespace": "n"}, "rules": [
        {"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]},
    ]});
    told::check(
        &ROLE,
        &role,
        &[
            (
                "/metadata/name",
                json!("a/b"),
                &["metadata.name: Invalid value: \"a/b\": may not contain '/'"],
            ),
            (
                "/rules/0",
                json!({}),
                &[
                    "rules[0].apiGroups: Required value: resource rules must supply at least one api group",
                    "rules[0].resources: Required value: resource rules must supply at least one resource",
                    "rules[0].verbs: Required value",
                ],
            ),
            (
                "/rules/0/nonResourceURLs",
                json!(["/x"]),
                &[
                    "rules[0].nonResourceURLs: Invalid value: [\"/x\"]: namespaced rules cannot apply to non-resource URLs",
                    "rules[0].nonResourceURLs: Invalid value: [\"/x\"]: rules cannot apply to both regular resources and non-resource URLs",
                ],
            ),
        ],
    );
    let cluster_role = json!({"metadata": {"name": "x"}, "rules": [
        {"verbs": ["get"], "nonResourceURLs": ["/metrics"]},
    ]});
    told::check(
        &CLUSTER_ROLE,
        &cluster_role,
        &[(
            "/aggregationRule",
            json!({}),
            &[
                "aggregationRule.clusterRoleSelectors: Required value: at least one clusterRoleSelector required if aggregationRule is non-nil",
            ],
        )],
    );
}

#[test]
fn bindings_name_a_role_that_stays_and_sound_subjects() {
    let binding = json!({
        "metadata": {"name": "b", "namespace": "n"},
        "roleRef": {"kind": "Role", "name": "r"},
        "subjects": [
            {"kind": "User", "name": "ann"}, {"kind": "Group", "name": "g"},
            {"kind": "ServiceAccount", "name": "a", "namespace": "n"},
        ],
    });
    let mut defaulted = binding.clone();
    ROLE_BINDING.strategy.default(&mut defaulted);
    assert_eq!(defaulted["roleRef"]["apiGroup"], GROUP);
    assert_eq!(defaulted["subjects"][0]["apiGroup"], GROUP);
    assert_eq!(defaulted["subjects"][2]["apiGroup"], Value::Null);
    told::check(
        &ROLE_BINDING,
        &binding,
        &[
            (
                "/roleRef",
                json!({}),
                &[
                    "roleRef.kind: Unsupported value: \"\": supported values: \"Role\", \"ClusterRole\"",
                    "roleRef.name: Required value",
                ],
            ),
            (
                "/subjects",
                json!([{}, {"kind": "User", "apiGroup": "x"}]),
                &[
                    "subjects[0].kind: Unsupported value: \"\": supported values: \"ServiceAccount\", \"User\", \"Group\"",
                    "subjects[1].apiGroup: Unsupported value: \"x\": supported values: \"rbac.authorization.k8s.io\"",
                    "subjects[0].name: Required value",
                    "subjects[1].name: Required value",
                ],
            ),
        ],
    );
    let of_cluster = told::with(&binding, "/subjects/2/namespace", Value::Null);
    assert_eq!(
        told::of_new(&CLUSTER_ROLE_BINDING, &of_cluster),
        [
            "roleRef.kind: Unsupported value: \"Role\": supported values: \"ClusterRole\"",
            "subjects[2].namespace: Required value",
        ]
    );
    let other = told::with(&binding, "/roleRef/name", json!("s"));
    assert_eq!(
        told::of_update(&ROLE_BINDING, &other, &binding, None),
        [
            "roleRef: Invalid value: {\"APIGroup\":\"rbac.authorization.k8s.io\",\"Kind\":\"Role\",\"Name\":\"s\"}: field is immutable"
        ]
    );
    assert_eq!(
        json!(cells(&ROLE_BINDING, &binding)),
        json!(["b", "Role/r", "10s", "ann", "g", "n/a"])
    );
}
