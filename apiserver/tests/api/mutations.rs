//! Mutating admission policies and webhooks where they reach further than one object of one version: parts laid over objects, kinds of users, sizes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::definitions::{establish, serving};
use crate::hook::{Hook, Reply};
use crate::world::{Answer, DEPLOYMENTS, World, deployment};

const BASE: &str = "/apis/admissionregistration.k8s.io/v1/mutatingadmissionpolic";

/// A policy with one expression that is laid over what `rule` is about, and its binding.
async fn policy(world: &World, name: &str, rule: Value, expression: &str) {
    let mut rule = rule;
    rule["operations"] = json!(["CREATE", "UPDATE"]);
    let spec = json!({
        "reinvocationPolicy": "Never", "matchConstraints": { "resourceRules": [rule] },
        "mutations": [{ "patchType": "ApplyConfiguration", "applyConfiguration": { "expression": expression } }],
    });
    let body = json!({ "metadata": { "name": name }, "spec": spec });
    let made = world.ask(&format!("POST {BASE}ies"), body).await;
    assert_eq!(made.status, 201, "{}", made.line());
    let body = json!({ "metadata": { "name": name }, "spec": { "policyName": name } });
    let made = world.ask(&format!("POST {BASE}ybindings"), body).await;
    assert_eq!(made.status, 201, "{}", made.line());
}

fn rule(group: &str, version: &str, resource: &str) -> Value {
    json!({ "apiGroups": [group], "apiVersions": [version], "resources": [resource] })
}

#[tokio::test]
async fn a_part_of_an_object_is_laid_over_it() {
    let world = World::new().await;
    let deployments = rule("apps", "v1", "deployments");
    let annotations = "
        Object{
            metadata: Object.metadata{
                annotations: {
                    'mutated-by': 'admission-policy'
                }
            }
        }";
    policy(&world, "annotate", deployments.clone(), annotations).await;
    let size = "Object{spec: Object.spec{replicas: 1337}}";
    policy(&world, "size", deployments.clone(), size).await;
    let made = world
        .ask(&format!("POST {DEPLOYMENTS}"), deployment(1))
        .await;
    assert_eq!(made.status, 201, "{}", made.line());
    assert_eq!(made.body["spec"]["replicas"], 1337);
    assert_eq!(
        made.body["metadata"]["annotations"],
        json!({ "mutated-by": "admission-policy" })
    );
    let path = format!("{DEPLOYMENTS}/web");
    let patch = json!({ "metadata": { "annotations": null }, "spec": { "replicas": 2 } });
    let patched = world.patch(&path, "merge-patch", patch).await;
    assert_eq!(patched.body["spec"]["replicas"], 1337, "{}", patched.line());
    assert!(patched.body["metadata"]["annotations"]["mutated-by"].is_string());
    assert_eq!(patched.body["metadata"]["generation"], 1);

    // What no Deployment can be is refused by the failure policy, and nothing is stored.
    let whole =
        "Object{spec: Object.spec{selector: Object.spec.selector{matchLabels: {'a': 'b'}}}}";
    policy(&world, "whole", deployments, whole).await;
    let mut other = deployment(1);
    other["metadata"]["name"] = "other".into();
    let refused = world.ask(&format!("POST {DEPLOYMENTS}"), other).await;
    assert_eq!(
        refused.line(),
        "403 Invalid: policy 'whole' with binding 'whole' denied request: error applying patch: invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: .spec.selector"
    );
    assert_eq!(world.get(&format!("{DEPLOYMENTS}/other")).await.status, 404);
    // An expression that is no part of an object is refused where it is written.
    let mut bad = world.get(&format!("{BASE}ies/whole")).await.body;
    bad["spec"]["mutations"][0]["applyConfiguration"]["expression"] = "Object.spec{}".into();
    let refused = world.ask(&format!("PUT {BASE}ies/whole"), bad).await;
    assert_eq!(
        refused.line(),
        "422 Invalid: MutatingAdmissionPolicy.admissionregistration.k8s.io \"whole\" is invalid: spec.mutations[0].applyConfiguration.expression: Invalid value: \"Object.spec{}\": must evaluate to Object but got Object.spec"
    );
}

/// A kind of a user in two versions, with a keyed list and a size.
fn boxes() -> Value {
    let spec = json!({ "type": "object", "properties": {
        "size": { "type": "integer", "maximum": 10 }, "class": { "type": "string", "default": "plain" },
        "parts": { "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"], "items": {
            "type": "object", "required": ["name"], "properties": { "name": { "type": "string" }, "count": { "type": "integer" } },
        } },
        "tags": { "type": "array", "items": { "type": "string" } },
    } });
    let version = |name: &str, storage: bool| {
        json!({
            "name": name, "served": true, "storage": storage,
            "schema": { "openAPIV3Schema": { "type": "object", "properties": { "spec": spec } } },
            "subresources": { "scale": { "specReplicasPath": ".spec.size", "statusReplicasPath": ".status.size" } },
        })
    };
    json!({
        "metadata": { "name": "boxes.example.com" },
        "spec": {
            "group": "example.com", "scope": "Cluster", "names": { "plural": "boxes", "singular": "box", "kind": "Box" },
            "versions": [version("v1", true), version("v2", false)],
        },
    })
}

async fn create(world: &World, version: &str, name: &str, spec: Value) -> Answer {
    let object = json!({ "apiVersion": format!("example.com/{version}"), "kind": "Box", "metadata": { "name": name }, "spec": spec });
    let path = format!("POST /apis/example.com/{version}/boxes");
    world.ask(&path, object).await
}

#[tokio::test]
async fn kinds_of_users_are_changed_by_their_schemas_in_any_version() {
    let world = serving().await;
    establish(&world, boxes()).await;
    // It is about v2, and so about the same objects in v1.
    let part = "Object{spec: Object.spec{parts: [Object.spec.parts{name: 'b', count: size(object.apiVersion)}]}}";
    policy(&world, "part", rule("example.com", "v2", "boxes"), part).await;
    for version in ["v1", "v2"] {
        let parts = json!([{ "name": "a", "count": 1 }]);
        let made = create(&world, version, version, json!({ "parts": parts })).await;
        assert_eq!(made.status, 201, "{}", made.line());
        assert_eq!(made.body["apiVersion"], format!("example.com/{version}"));
        assert_eq!(
            made.body["spec"],
            json!({ "class": "plain", "parts": [{ "name": "a", "count": 1 }, { "name": "b", "count": 14 }] })
        );
    }
    for (name, expression, told) in [
        (
            "tags",
            "Object{spec: Object.spec{tags: ['x']}}",
            "403 Invalid: policy 'tags' with binding 'tags' denied request: error applying patch: invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: .spec.tags",
        ),
        (
            "field",
            "Object{spec: Object.spec{none: 1}}",
            "403 Invalid: policy 'field' with binding 'field' denied request: error applying patch: failed to convert patch object to typed object: .spec.none: field not declared in schema",
        ),
        // What it makes is judged as what a client sent is.
        (
            "size",
            "Object{spec: Object.spec{size: 11}}",
            "422 Invalid: Box.example.com \"x\" is invalid: spec.size: Invalid value: 11: spec.size in body should be less than or equal to 10",
        ),
    ] {
        policy(&world, name, rule("example.com", "v1", "boxes"), expression).await;
        let refused = create(&world, "v1", "x", json!({})).await;
        assert_eq!(refused.line(), told);
        for path in ["ies", "ybindings"] {
            let deleted = world
                .ask(&format!("DELETE {BASE}{path}/{name}"), Value::Null)
                .await;
            assert_eq!(deleted.status, 200);
        }
    }
}

#[tokio::test]
async fn what_a_size_is_set_to_can_be_changed() {
    let world = serving().await;
    establish(&world, boxes()).await;
    let half = "Object{spec: Object.spec{replicas: object.spec.replicas / 2}}";
    policy(
        &world,
        "half",
        rule("apps", "v1", "deployments/scale"),
        half,
    )
    .await;
    let made = world
        .ask(&format!("POST {DEPLOYMENTS}"), deployment(3))
        .await;
    assert_eq!(made.body["spec"]["replicas"], 3, "{}", made.line());
    let scale = json!({ "spec": { "replicas": 8 } });
    let path = format!("{DEPLOYMENTS}/web/scale");
    let scaled = world.patch(&path, "merge-patch", scale.clone()).await;
    assert_eq!(scaled.body["spec"]["replicas"], 4, "{}", scaled.line());

    let hook = Hook::start(&["127.0.0.1"], |review| {
        let size = review["request"]["object"]["spec"]["replicas"].as_i64().unwrap();
        let patch = json!([{ "op": "replace", "path": "/spec/replicas", "value": size + 1 }]);
        Reply::Says(json!({ "allowed": true, "patchType": "JSONPatch", "patch": STANDARD.encode(patch.to_string()) }))
    })
    .await;
    let mut rule = rule("example.com", "*", "boxes/scale");
    rule["operations"] = json!(["UPDATE"]);
    let hooks = json!([{
        "name": "a.example.com", "clientConfig": hook.client_config(), "sideEffects": "None", "admissionReviewVersions": ["v1"], "rules": [rule],
    }]);
    let configurations = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";
    let body = json!({ "metadata": { "name": "m" }, "webhooks": hooks });
    let configured = world.ask(&format!("POST {configurations}"), body).await;
    assert_eq!(configured.status, 201, "{}", configured.line());
    let made = create(&world, "v1", "a", json!({ "size": 1 })).await;
    assert_eq!(made.status, 201, "{}", made.line());
    let path = "/apis/example.com/v2/boxes/a/scale";
    let scaled = world.patch(path, "merge-patch", scale).await;
    assert_eq!(scaled.body["spec"]["replicas"], 9, "{}", scaled.line());
    let asked = hook.asked.lock().last().cloned().unwrap();
    assert_eq!(
        json!([
            asked["request"]["kind"],
            asked["request"]["subResource"],
            asked["request"]["oldObject"]["spec"]["replicas"]
        ]),
        json!([{ "group": "autoscaling", "version": "v1", "kind": "Scale" }, "scale", 1])
    );
    // It is held to what a size may be.
    let refused = world
        .patch(path, "merge-patch", json!({ "spec": { "replicas": 10 } }))
        .await;
    assert_eq!(refused.status, 422, "{}", refused.line());
}
