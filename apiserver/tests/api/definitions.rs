//! Kinds of users, from the definition to the last of their objects.

use std::time::Duration;

use http::header;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::world::*;

pub const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const WIDGETS: &str = "/apis/example.com/v1/namespaces/default/widgets";
const OLD_WIDGETS: &str = "/apis/example.com/v1beta1/namespaces/default/widgets";

/// A kind with most of what a definition can say, in two versions.
fn widgets() -> Value {
    let spec = json!({
        "type": "object", "required": ["size"],
        "x-kubernetes-validations": [
            { "rule": "self.size <= self.most", "message": "size is above most" },
            { "rule": "self.class == oldSelf.class", "message": "class stays" },
        ],
        "properties": {
            "size": { "type": "integer", "minimum": 0 },
            "most": { "type": "integer", "default": 10 },
            "class": { "type": "string", "maxLength": 20, "default": "plain" },
            "port": { "x-kubernetes-int-or-string": true },
            "note": { "type": "string", "nullable": true },
            "free": { "type": "object", "x-kubernetes-preserve-unknown-fields": true },
            "template": { "type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true },
            "parts": {
                "type": "array", "maxItems": 10, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                "items": { "type": "object", "required": ["name"], "properties": {
                    "name": { "type": "string", "maxLength": 20 }, "count": { "type": "integer", "default": 1 },
                } },
            },
        },
    });
    let status = json!({
        "type": "object",
        "properties": {
            "replicas": { "type": "integer" }, "selector": { "type": "string" },
            "conditions": { "type": "array", "items": { "type": "object", "properties": { "type": { "type": "string" }, "status": { "type": "string" } } } },
        },
    });
    let schema = |spec: &Value| {
        json!({ "openAPIV3Schema": {
        "type": "object", "properties": { "spec": spec, "status": status },
    } })
    };
    let mut old = spec.clone();
    old["properties"]["legacy"] = json!({ "type": "string" });
    let mut new = spec.clone();
    new["properties"]["modern"] = json!({ "type": "string" });
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": { "name": "widgets.example.com" },
        "spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": { "plural": "widgets", "kind": "Widget", "shortNames": ["wd"], "categories": ["all"] },
            "versions": [
                {
                    "name": "v1beta1", "served": true, "storage": false, "deprecated": true, "schema": schema(&old),
                    "subresources": { "status": {} },
                },
                {
                    "name": "v1", "served": true, "storage": true, "schema": schema(&new),
                    "subresources": {
                        "status": {},
                        "scale": { "specReplicasPath": ".spec.size", "statusReplicasPath": ".status.replicas", "labelSelectorPath": ".status.selector" },
                    },
                    "selectableFields": [{ "jsonPath": ".spec.class" }],
                    "additionalPrinterColumns": [
                        { "name": "Size", "type": "integer", "jsonPath": ".spec.size" },
                        { "name": "Ready", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Ready\")].status" },
                        { "name": "Parts", "type": "string", "jsonPath": ".spec.parts[*].name", "priority": 1 },
                    ],
                },
            ],
        },
    })
}

fn widget(name: &str, spec: Value) -> Value {
    json!({ "apiVersion": "example.com/v1", "kind": "Widget", "metadata": { "name": name }, "spec": spec })
}

/// A server that follows definitions, and leads.
pub async fn serving() -> World {
    let world = World::new().await;
    let closing = CancellationToken::new();
    tokio::spawn(world.objects.clone().follow_definitions(closing.clone()));
    tokio::spawn(world.objects.clone().tend_definitions(closing));
    world
}

/// Makes a definition, and waits until it is established, as a client does: through a watch.
pub async fn establish(world: &World, definition: Value) {
    let name = definition["metadata"]["name"].as_str().unwrap().to_owned();
    let path = format!("{DEFINITIONS}?watch=true&fieldSelector=metadata.name={name}");
    let made = world.ask(&format!("POST {DEFINITIONS}"), definition).await;
    assert_eq!(made.status, 201, "{}", made.line());
    let mut told = world.watch(&path).await;
    loop {
        let event = told.next().await.expect("an event");
        let conditions = event["object"]["status"]["conditions"].as_array().cloned();
        let established =
            |condition: &Value| condition["type"] == "Established" && condition["status"] == "True";
        if conditions.into_iter().flatten().any(|c| established(&c)) {
            return;
        }
    }
}

#[tokio::test]
async fn a_definition_is_a_kind_from_the_moment_it_is_established() {
    let world = serving().await;
    assert_eq!(world.get(WIDGETS).await.status, 404);
    establish(&world, widgets()).await;
    assert_eq!(world.get(WIDGETS).await.line(), "200 WidgetList []");

    let group = world.get("/apis/example.com").await.body;
    assert_eq!(group["preferredVersion"]["version"], "v1");
    assert_eq!(group["versions"][1]["version"], "v1beta1");
    let resources = world.get("/apis/example.com/v1").await.body["resources"].clone();
    assert_eq!(
        resources[0],
        json!({
            "name": "widgets", "singularName": "widget", "namespaced": true, "kind": "Widget",
            "verbs": ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"],
            "shortNames": ["wd"], "categories": ["all"],
        })
    );
    assert_eq!(resources[1]["name"], "widgets/status");
    assert_eq!(resources[2]["kind"], "Scale");

    let index = world.get("/openapi/v3").await.body;
    let url = index["paths"]["apis/example.com/v1"]["serverRelativeURL"].clone();
    let document = world.get(url.as_str().unwrap()).await.body;
    let schema = &document["components"]["schemas"]["com.example.v1.Widget"];
    assert_eq!(
        schema["properties"]["spec"]["properties"]["most"]["default"],
        10
    );
    assert_eq!(
        schema["x-kubernetes-group-version-kind"],
        json!([{ "group": "example.com", "version": "v1", "kind": "Widget" }])
    );
    assert_references_resolve(&document);
    let explained = |schema: &Value| {
        for (member, begins) in [
            ("apiVersion", "APIVersion defines the versioned schema"),
            (
                "kind",
                "Kind is a string value representing the REST resource",
            ),
            ("metadata", "Standard object's metadata."),
        ] {
            let told = schema["properties"][member]["description"].as_str();
            assert!(
                told.is_some_and(|told| told.starts_with(begins)),
                "{member}: {told:?}"
            );
        }
    };
    explained(schema);
    let document = world.get("/openapi/v2").await.body;
    let list = &document["definitions"]["com.example.v1.WidgetList"];
    assert_eq!(list["description"], "WidgetList is a list of Widget");
    explained(&document["definitions"]["com.example.v1.Widget"]);
    assert_references_resolve(&document);

    let definition = world
        .get(&format!("{DEFINITIONS}/widgets.example.com"))
        .await
        .body;
    assert_eq!(definition["status"]["storedVersions"], json!(["v1"]));
    assert_eq!(
        definition["status"]["acceptedNames"]["listKind"],
        "WidgetList"
    );
    assert_eq!(
        definition["spec"]["conversion"],
        json!({ "strategy": "None" })
    );
    assert_eq!(definition["metadata"]["generation"], 1);
}

fn assert_references_resolve(document: &Value) {
    fn walk<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
        match value {
            Value::Object(map) => {
                found.extend(map.get("$ref").and_then(Value::as_str));
                map.values().for_each(|value| walk(value, found));
            }
            Value::Array(items) => items.iter().for_each(|item| walk(item, found)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    walk(document, &mut found);
    assert!(found.len() > 10);
    for reference in found {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference}");
    }
}

#[tokio::test]
async fn objects_are_pruned_defaulted_and_judged() {
    let world = serving().await;
    establish(&world, widgets()).await;
    let sent = widget(
        "a",
        json!({
            "size": 3, "port": "http", "note": null, "free": { "x": { "y": null } }, "unknown": 1, "most": null,
            "parts": [{ "name": "p", "zz": 1 }],
            "template": { "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "t", "zz": 1 }, "data": {} },
        }),
    );
    let made = world.ask(&format!("POST {WIDGETS}"), sent.clone()).await;
    assert_eq!(made.status, 201, "{}", made.line());
    assert_eq!(
        made.body["spec"],
        json!({
            "size": 3, "port": "http", "note": null, "free": { "x": { "y": null } }, "most": 10, "class": "plain",
            "parts": [{ "name": "p", "count": 1 }],
            "template": { "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "t" }, "data": {} },
        })
    );
    let warnings: Vec<&str> = made
        .headers
        .get_all(header::WARNING)
        .iter()
        .map(|warning| warning.to_str().unwrap())
        .collect();
    assert_eq!(
        warnings,
        [
            "299 - \"unknown field \\\"spec.parts[0].zz\\\"\"",
            "299 - \"unknown field \\\"spec.template.metadata.zz\\\"\"",
            "299 - \"unknown field \\\"spec.unknown\\\"\"",
        ]
    );
    let strict = format!("POST {WIDGETS}?fieldValidation=Strict");
    let twice = r#"{"apiVersion":"example.com/v1","kind":"Widget","metadata":{"name":"b"},"spec":{"size":1,"size":2}}"#;
    let mut told = vec![
        world.ask(&strict, sent).await.line(),
        world.send(world.request(&strict, &[], twice)).await.line(),
    ];
    for spec in [
        json!({}),
        json!({ "size": "3" }),
        json!({ "size": -1 }),
        json!({ "size": 11 }),
        json!({ "size": 1, "parts": [{ "name": "p" }, { "name": "p" }] }),
        json!({ "size": 1, "port": true }),
        json!({ "size": 1, "template": { "metadata": {} } }),
    ] {
        let path = format!("POST {WIDGETS}");
        told.push(world.ask(&path, widget("b", spec)).await.line());
    }
    let path = format!("{WIDGETS}/a");
    for (kind, body) in [
        ("merge-patch", json!({ "spec": { "size": 4 } })),
        ("merge-patch", json!({ "spec": { "class": "other" } })),
        (
            "json-patch",
            json!([{ "op": "replace", "path": "/spec/size", "value": 20 }]),
        ),
        ("strategic-merge-patch", json!({})),
    ] {
        told.push(world.patch(&path, kind, body).await.line());
    }
    insta::assert_snapshot!(told.join("\n"), @r#"
    400 BadRequest: Widget in version "v1" cannot be handled as a Widget: strict decoding error: unknown field "spec.parts[0].zz", unknown field "spec.template.metadata.zz", unknown field "spec.unknown"
    400 BadRequest: Widget in version "v1" cannot be handled as a Widget: strict decoding error: duplicate field "spec.size"
    422 Invalid: Widget.example.com "b" is invalid: [spec.size: Required value, <nil>: Invalid value: null: some validation rules were not checked because the object was invalid; correct the existing errors to complete validation]
    422 Invalid: Widget.example.com "b" is invalid: [spec.size: Invalid value: "string": spec.size in body must be of type integer: "string", <nil>: Invalid value: null: some validation rules were not checked because the object was invalid; correct the existing errors to complete validation]
    422 Invalid: Widget.example.com "b" is invalid: [spec.size: Invalid value: -1: spec.size in body should be greater than or equal to 0, .spec.size: Invalid value: -1: should be a non-negative integer]
    422 Invalid: Widget.example.com "b" is invalid: spec: Invalid value: size is above most
    422 Invalid: Widget.example.com "b" is invalid: spec.parts[1]: Duplicate value: {"name":"p"}
    422 Invalid: Widget.example.com "b" is invalid: [spec.port: Invalid value: "boolean": spec.port in body must be of type integer,string: "boolean", <nil>: Invalid value: null: some validation rules were not checked because the object was invalid; correct the existing errors to complete validation]
    422 Invalid: Widget.example.com "b" is invalid: [spec.template.apiVersion: Required value, spec.template.kind: Required value, <nil>: Invalid value: null: some validation rules were not checked because the object was invalid; correct the existing errors to complete validation]
    200 Widget a
    422 Invalid: Widget.example.com "a" is invalid: spec: Invalid value: class stays
    422 Invalid: Widget.example.com "a" is invalid: spec: Invalid value: size is above most
    415 UnsupportedMediaType: the body of the request was in an unknown format - accepted media types include: application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml
    "#);
    let now = world.get(&path).await.body;
    assert_eq!(now["metadata"]["generation"], 2);
}

#[tokio::test]
async fn a_rule_that_comes_later_is_not_held_against_what_stays_as_it_is() {
    let world = serving().await;
    establish(&world, widgets()).await;
    let made = world
        .ask(
            &format!("POST {WIDGETS}"),
            widget("a", json!({ "size": 7 })),
        )
        .await;
    assert_eq!(made.status, 201);
    let path = format!("{DEFINITIONS}/widgets.example.com");
    let stricter = json!([{ "op": "add", "path": "/spec/versions/1/schema/openAPIV3Schema/properties/spec/properties/size/maximum", "value": 5 }]);
    let changed = world.patch(&path, "json-patch", stricter).await;
    assert_eq!(changed.status, 200, "{}", changed.line());
    // The registry of this server follows in a moment.
    for _ in 0..100 {
        let refused = world
            .ask(
                &format!("POST {WIDGETS}?dryRun=All"),
                widget("b", json!({ "size": 7 })),
            )
            .await;
        if refused.status == 422 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let mut told = Vec::new();
    for body in [
        json!({ "metadata": { "labels": { "a": "b" } } }),
        json!({ "spec": { "note": "other" } }),
        json!({ "spec": { "size": 6 } }),
        json!({ "spec": { "size": 5 } }),
    ] {
        let path = format!("{WIDGETS}/a");
        told.push(world.patch(&path, "merge-patch", body).await.line());
    }
    insta::assert_snapshot!(told.join("\n"), @r#"
    200 Widget a
    200 Widget a
    422 Invalid: Widget.example.com "a" is invalid: spec.size: Invalid value: 6: spec.size in body should be less than or equal to 5
    200 Widget a
    "#);
}

#[tokio::test]
async fn each_version_shows_what_it_knows() {
    let world = serving().await;
    establish(&world, widgets()).await;
    let mut old = widget("a", json!({ "size": 1, "legacy": "x", "modern": "y" }));
    old["apiVersion"] = "example.com/v1beta1".into();
    let made = world.ask(&format!("POST {OLD_WIDGETS}"), old).await;
    assert_eq!(made.status, 201, "{}", made.line());
    // It is stored in v1, which does not know the field.
    assert_eq!(made.body["apiVersion"], "example.com/v1beta1");
    assert_eq!(
        made.body["spec"],
        json!({ "size": 1, "most": 10, "class": "plain" })
    );
    let told = &made.headers[header::WARNING];
    assert!(!told.is_empty());
    let deprecated: Vec<&str> = made
        .headers
        .get_all(header::WARNING)
        .iter()
        .map(|warning| warning.to_str().unwrap())
        .filter(|warning| warning.contains("deprecated"))
        .collect();
    assert_eq!(
        deprecated,
        ["299 - \"example.com/v1beta1 Widget is deprecated; use example.com/v1 Widget\""]
    );
    let new = world.get(&format!("{WIDGETS}/a")).await.body;
    assert_eq!(new["apiVersion"], "example.com/v1");

    let mut watched = world.watch(&format!("{OLD_WIDGETS}?watch=true")).await;
    assert_eq!(
        watched.next().await.unwrap()["object"]["apiVersion"],
        "example.com/v1beta1"
    );
    let body = json!({ "spec": { "modern": "z" } });
    let patched = world
        .patch(&format!("{WIDGETS}/a"), "merge-patch", body)
        .await;
    assert_eq!(patched.body["spec"]["modern"], "z");
    let event = watched.next().await.unwrap();
    assert_eq!(event["type"], "MODIFIED");
    assert_eq!(event["object"]["spec"].get("modern"), None);
    let listed = world.get(OLD_WIDGETS).await.body;
    assert_eq!(listed["items"][0]["apiVersion"], "example.com/v1beta1");
    // What the old version does not know is gone once it is written through it, as with upstream's conversion None.
    let body = json!({ "spec": { "size": 2 } });
    world
        .patch(&format!("{OLD_WIDGETS}/a"), "merge-patch", body)
        .await;
    let new = world.get(&format!("{WIDGETS}/a")).await.body;
    assert_eq!(new["spec"]["size"], 2);
    assert_eq!(new["spec"].get("modern"), None);
}

#[tokio::test]
async fn status_scale_columns_and_selectors() {
    let world = serving().await;
    establish(&world, widgets()).await;
    for (name, class) in [("a", "plain"), ("b", "fancy")] {
        let mut sent = widget(
            name,
            json!({ "size": 3, "class": class, "parts": [{ "name": "p" }, { "name": "q" }] }),
        );
        sent["status"] = json!({ "replicas": 9 });
        let made = world.ask(&format!("POST {WIDGETS}"), sent).await;
        assert_eq!(made.body.get("status"), None, "{}", made.line());
    }
    let path = format!("{WIDGETS}/a");
    let status = json!({
        "metadata": { "labels": { "no": "change" } }, "spec": { "size": 99 },
        "status": { "replicas": 2, "selector": "app=a", "conditions": [{ "type": "Ready", "status": "True" }] },
    });
    let written = world
        .patch(&format!("{path}/status"), "merge-patch", status)
        .await;
    assert_eq!(written.status, 200, "{}", written.line());
    assert_eq!(written.body["spec"]["size"], 3);
    assert_eq!(written.body["metadata"].get("labels"), None);
    assert_eq!(written.body["metadata"]["generation"], 1);
    let refused = json!({ "status": { "replicas": -1 } });
    let mut told = vec![
        world
            .patch(&format!("{path}/status"), "merge-patch", refused)
            .await
            .line(),
    ];

    let scale = world.get(&format!("{path}/scale")).await.body;
    assert_eq!(
        (&scale["spec"], &scale["status"]),
        (
            &json!({ "replicas": 3 }),
            &json!({ "replicas": 2, "selector": "app=a" })
        )
    );
    let body = json!({ "spec": { "replicas": 5 } });
    let scaled = world
        .patch(&format!("{path}/scale"), "merge-patch", body)
        .await;
    assert_eq!(scaled.body["spec"]["replicas"], 5, "{}", scaled.line());
    let now = world.get(&path).await.body;
    assert_eq!(
        (&now["spec"]["size"], &now["metadata"]["generation"]),
        (&json!(5), &json!(2))
    );
    assert_eq!(
        world.get(&format!("{OLD_WIDGETS}/a/scale")).await.status,
        404
    );

    let table = world.table(WIDGETS).await;
    let names: Vec<&str> = table.body["columnDefinitions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|column| column["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["Name", "Size", "Ready", "Parts"]);
    told.push(table.line());
    for selector in ["spec.class=fancy", "spec.class!=fancy", "spec.size=3"] {
        told.push(
            world
                .get(&format!("{WIDGETS}?fieldSelector={selector}"))
                .await
                .line(),
        );
    }
    let old = format!("{OLD_WIDGETS}?fieldSelector=spec.class=fancy");
    told.push(world.get(&old).await.line());
    insta::assert_snapshot!(told.join("\n"), @r#"
    422 Invalid: Widget.example.com "a" is invalid: .status.replicas: Invalid value: -1: should be a non-negative integer
    200 ["a",5,"True","p"] ["b",3,null,"p"]
    200 WidgetList [b]
    200 WidgetList [a]
    400 BadRequest: field label not supported: spec.size
    400 BadRequest: field label not supported: spec.class
    "#);
}

#[tokio::test]
async fn a_definition_goes_after_its_objects() {
    let world = serving().await;
    establish(&world, widgets()).await;
    let mut held = widget("held", json!({ "size": 1 }));
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    for sent in [held, widget("free", json!({ "size": 1 }))] {
        assert_eq!(
            world.ask(&format!("POST {WIDGETS}"), sent).await.status,
            201
        );
    }
    let mut watched = world.watch(&format!("{WIDGETS}?watch=true")).await;
    assert_eq!(watched.told(2).await, "ADDED free, ADDED held");
    let path = format!("{DEFINITIONS}/widgets.example.com");
    let deleted = world.ask(&format!("DELETE {path}"), Value::Null).await;
    assert_eq!(deleted.status, 200, "{}", deleted.line());
    let create = format!("POST {WIDGETS}");
    let told = world.ask(&create, widget("late", json!({ "size": 1 })));
    assert_eq!(
        told.await.line(),
        "403 Forbidden: widgets.example.com \"late\" is forbidden: create not allowed while custom resource definition is terminating"
    );
    // They go side by side.
    let mut ends = [watched.told(1).await, watched.told(1).await];
    ends.sort();
    assert_eq!(ends, ["DELETED free", "MODIFIED held"]);
    let waiting = world.get(&path).await.body;
    assert_eq!(
        waiting["metadata"]["finalizers"],
        json!(["customresourcecleanup.apiextensions.k8s.io"])
    );
    let verbs = world.get("/apis/example.com/v1").await.body["resources"][0]["verbs"].clone();
    assert!(
        !verbs.as_array().unwrap().contains(&json!("create")),
        "{verbs}"
    );

    let freed = json!({ "metadata": { "finalizers": null } });
    world
        .patch(&format!("{WIDGETS}/held"), "merge-patch", freed)
        .await;
    assert_eq!(watched.told(1).await, "DELETED held");
    for _ in 0..200 {
        if world.get(&path).await.status == 404 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(world.get(&path).await.status, 404);
    assert_eq!(watched.next().await, None);
    for _ in 0..200 {
        if world.get(WIDGETS).await.status == 404 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(world.get(WIDGETS).await.status, 404);
    assert_eq!(world.get("/apis/example.com").await.status, 404);
    // Its names are free again, and nothing of before is there.
    establish(&world, widgets()).await;
    assert_eq!(world.get(WIDGETS).await.line(), "200 WidgetList []");
}

#[tokio::test]
async fn what_is_served_already_is_not_served_otherwise() {
    let world = serving().await;
    let mut leases = widgets();
    leases["metadata"]["name"] = "leases.coordination.k8s.io".into();
    leases["metadata"]["annotations"] =
        json!({ "api-approved.kubernetes.io": "unapproved, a test" });
    leases["spec"]["group"] = "coordination.k8s.io".into();
    leases["spec"]["names"] = json!({ "plural": "leases", "kind": "Lease" });
    establish(&world, leases).await;
    let path = "/apis/coordination.k8s.io/v1/namespaces/default/leases";
    let lease = json!({ "metadata": { "name": "a" }, "spec": { "holderIdentity": "x" } });
    assert_eq!(world.ask(&format!("POST {path}"), lease).await.status, 201);
    assert_eq!(world.get(&path.replace("v1", "v1beta1")).await.status, 404);
    // And its end is not theirs.
    let definition = format!("{DEFINITIONS}/leases.coordination.k8s.io");
    world
        .ask(&format!("DELETE {definition}"), Value::Null)
        .await;
    for _ in 0..200 {
        if world.get(&definition).await.status == 404 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(world.get(&definition).await.status, 404);
    assert_eq!(world.get(&format!("{path}/a")).await.status, 200);
}

#[tokio::test]
async fn rules_that_there_are_not_are_not_missed() {
    let world = serving().await;
    let missing = "some validation rules were not checked";
    for (plural, rules) in [
        ("plains", json!(null)),
        ("ruleds", json!([{ "rule": "self.b > 0" }])),
    ] {
        let spec = json!({
            "type": "object", "required": ["a"], "x-kubernetes-validations": rules,
            "properties": { "a": { "type": "string" }, "b": { "type": "integer" } },
        });
        let definition = json!({
            "metadata": { "name": format!("{plural}.example.com") },
            "spec": {
                "group": "example.com", "scope": "Namespaced", "names": { "plural": plural, "kind": plural },
                "versions": [{
                    "name": "v1", "served": true, "storage": true,
                    "schema": { "openAPIV3Schema": { "type": "object", "properties": { "spec": spec } } },
                }],
            },
        });
        establish(&world, definition).await;
        let object = json!({
            "apiVersion": "example.com/v1", "kind": plural, "metadata": { "name": "x" }, "spec": { "b": 1 },
        });
        let path = format!("POST /apis/example.com/v1/namespaces/default/{plural}");
        let told = world.ask(&path, object).await.line();
        assert!(told.contains("spec.a: Required value"), "{told}");
        assert_eq!(told.contains(missing), !rules.is_null(), "{told}");
    }
}

#[tokio::test]
async fn what_every_object_has_is_explained_of_those_of_users_too() {
    let world = serving().await;
    establish(&world, widgets()).await;
    let told = world.get("/openapi/v3/apis/example.com/v1").await.body;
    let schemas = &told["components"]["schemas"];
    let says = |place: &str| {
        let text = schemas.pointer(place).and_then(Value::as_str);
        text.unwrap_or_else(|| panic!("nothing at {place}"))
            .to_owned()
    };
    let widget = "/com.example.v1.Widget/properties";
    for (place, begins) in [
        (
            format!("{widget}/apiVersion/description"),
            "APIVersion defines the versioned schema",
        ),
        (
            format!("{widget}/kind/description"),
            "Kind is a string value representing the REST resource",
        ),
        (
            format!("{widget}/metadata/description"),
            "Standard object's metadata.",
        ),
        (
            format!("{widget}/spec/properties/template/properties/kind/description"),
            "kind is a string value representing the type of this object.",
        ),
        (
            "/com.example.v1.WidgetList/description".to_owned(),
            "WidgetList is a list of Widget",
        ),
        (
            "/com.example.v1.WidgetList/properties/items/description".to_owned(),
            "List of widgets. More info:",
        ),
    ] {
        let text = says(&place);
        assert!(text.starts_with(begins), "{place}: {text}");
    }
    let template = format!("{widget}/spec/properties/template/required");
    assert_eq!(
        schemas.pointer(&template),
        Some(&json!(["kind", "apiVersion"]))
    );
}

#[tokio::test]
async fn below_an_object_of_a_users_kind_it_is_the_object_that_is_not_found() {
    let world = serving().await;
    establish(&world, widgets()).await;
    for (path, expected) in [
        (
            format!("{WIDGETS}/a/nothing"),
            "404 NotFound: widgets.example.com \"a\" not found",
        ),
        (
            format!("{OLD_WIDGETS}/a/scale"),
            "404 NotFound: widgets.example.com \"a\" not found",
        ),
        (
            format!("{WIDGETS}/a/status/nothing"),
            "404 NotFound: widgets.example.com \"a\" not found",
        ),
        (
            format!("{PODS}/a/nothing"),
            "404 NotFound: the server could not find the requested resource",
        ),
    ] {
        assert_eq!(world.get(&path).await.line(), expected, "{path}");
    }
}
