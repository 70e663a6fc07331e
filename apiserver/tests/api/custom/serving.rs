//! How users' kinds are served: conditions of their definitions, subresources, columns, selectors, versions, formats and limits.

use http::header;
use serde_json::{Value, json};

use super::*;
use crate::definitions::{DEFINITIONS, establish, serving};
use crate::world::Answer;

#[tokio::test]
async fn what_the_server_says_of_a_definition() {
    let world = serving().await;
    // Groups of Kubernetes' own are approved of; others are nobody's to approve.
    let mut own = foos(anything(), json!({}));
    own["metadata"] = json!({ "name": "foos.sigs.k8s.io", "annotations": { "api-approved.kubernetes.io": "https://github.com/kubernetes/kubernetes/pull/79724" } });
    own["spec"]["group"] = "sigs.k8s.io".into();
    establish(&world, own).await;
    let approved = definition_when(&world, "foos.sigs.k8s.io", |definition| {
        condition(definition, "KubernetesAPIApprovalPolicyConformant").is_some()
    })
    .await;
    let approval = condition(&approved, "KubernetesAPIApprovalPolicyConformant").unwrap();
    assert_eq!(
        (
            &approval["status"],
            &approval["reason"],
            &approval["message"]
        ),
        (
            &json!("True"),
            &json!("ApprovedAnnotation"),
            &json!("approved in https://github.com/kubernetes/kubernetes/pull/79724")
        )
    );
    establish(&world, foos(anything(), json!({}))).await;
    let path = format!("{DEFINITIONS}/foos.tests.example.com");
    let definition = world.get(&path).await.body;
    assert_eq!(
        condition(&definition, "KubernetesAPIApprovalPolicyConformant"),
        None
    );
    assert_eq!(condition(&definition, "NonStructuralSchema"), None);
    let told: Vec<Value> = ["NamesAccepted", "Established"]
        .iter()
        .map(|name| {
            let condition = condition(&definition, name).unwrap();
            json!([
                condition["status"],
                condition["reason"],
                condition["message"]
            ])
        })
        .collect();
    assert_eq!(
        told,
        [
            json!(["True", "NoConflicts", "no conflicts found"]),
            json!([
                "True",
                "InitialNamesAccepted",
                "the initial names have been accepted"
            ]),
        ]
    );
    // Its status can be read and patched.
    assert_eq!(world.get(&format!("{path}/status")).await.status, 200);
    let patched = merge(
        &world,
        &format!("{path}/status"),
        json!({ "metadata": { "labels": { "a": "b" } } }),
    )
    .await;
    assert_eq!(patched.status, 200, "{}", patched.line());

    // Names that another definition of the group has are not accepted until they are free.
    let mut other = foos(anything(), json!({}));
    other["metadata"]["name"] = "fuus.tests.example.com".into();
    other["spec"]["names"] = json!({ "plural": "fuus", "singular": "foo", "kind": "Foo", "listKind": "FuuList", "shortNames": ["foos", "fu"] });
    let created = world.ask(&format!("POST {DEFINITIONS}"), other).await;
    assert_eq!(created.status, 201, "{}", created.line());
    let refused = definition_when(&world, "fuus.tests.example.com", |definition| {
        condition(definition, "NamesAccepted")
            .is_some_and(|condition| condition["status"] == "False")
    })
    .await;
    let told = condition(&refused, "NamesAccepted").unwrap();
    let told = json!([told["reason"], told["message"]]);
    assert_eq!(told, json!(["KindConflict", "\"Foo\" is already in use"]));
    assert_eq!(
        condition(&refused, "Established").unwrap()["status"],
        "False"
    );
    assert_eq!(
        world.get("/apis/tests.example.com/v1/fuus").await.status,
        404
    );
    world.ask(&format!("DELETE {path}"), Value::Null).await;
    definition_when(&world, "fuus.tests.example.com", |definition| {
        condition(definition, "Established").is_some_and(|condition| condition["status"] == "True")
    })
    .await;
    until(&world, "/apis/tests.example.com/v1/fuus", |answer| {
        answer.status == 200
    })
    .await;
}

#[tokio::test]
async fn a_webhook_that_cannot_be_trusted_keeps_a_definition_from_being_established() {
    let world = serving().await;
    let conversion = |bundle: Value| {
        let mut definition = foos(anything(), json!({}));
        definition["spec"]["conversion"] = json!({ "strategy": "Webhook", "webhook": {
            "clientConfig": { "service": { "namespace": "default", "name": "example" }, "caBundle": bundle },
            "conversionReviewVersions": ["v1beta1"],
        } });
        definition
    };
    // Base64 of `garbage`.
    let body = conversion(json!("Z2FyYmFnZQ=="));
    let created = world.ask(&format!("POST {DEFINITIONS}"), body).await;
    assert_eq!(created.status, 201, "{}", created.line());
    let refused = definition_when(&world, "foos.tests.example.com", |definition| {
        condition(definition, "Established")
            .is_some_and(|condition| condition["reason"] == "InvalidCABundle")
    })
    .await;
    assert_eq!(
        condition(&refused, "Established").unwrap()["status"],
        "False"
    );
    // Without one, what the machine trusts counts.
    redefine(
        &world,
        json!([{ "op": "remove", "path": "/spec/conversion/webhook/clientConfig/caBundle" }]),
    )
    .await;
    definition_when(&world, "foos.tests.example.com", |definition| {
        condition(definition, "Established").is_some_and(|condition| condition["status"] == "True")
    })
    .await;
}

#[tokio::test]
async fn what_is_no_object_is_refused_and_numbers_are_kept() {
    let world = with_foos(anything(), json!({})).await;
    let told = [
        create(&world, json!({ "apiVersion": "tests.example.com/v1", "kind": "Foo" })).await,
        create(&world, json!({ "apiVersion": "tests.example.com/v1", "kind": "Bar", "metadata": { "name": "a" } })).await,
        create(&world, foo("a", json!({ "metadata": { "name": "a", "labels": { "a": 42 } } }))).await,
        create(&world, foo("a", json!({ "metadata": { "name": "a", "labels": { "a": "x y" } } }))).await,
    ];
    assert_eq!(told.map(|answer| answer.status), [422, 400, 400, 422]);
    // What metadata does not have is dropped, and a null is nothing.
    let metadata =
        json!({ "name": "a", "unknown": 42, "generation": null, "labels": { "bar": "abc" } });
    let number = 9_223_372_036_854_775_807_i64;
    let before = made(
        &world,
        foo(
            "a",
            json!({ "metadata": metadata, "num": { "big": number, "half": 0.5 } }),
        ),
    )
    .await;
    assert_eq!(before["metadata"].get("unknown"), None);
    assert_eq!(before["metadata"]["generation"], 1);
    let path = format!("{FOOS}/a");
    let changed = merge(&world, &path, json!({ "num": { "small": 999 } }))
        .await
        .body;
    assert_eq!(
        changed["num"],
        json!({ "big": number, "half": 0.5, "small": 999 })
    );
    // What changes nothing is no new revision.
    for patch in [json!({ "num": { "small": 999 } }), json!({})] {
        assert_eq!(merge(&world, &path, patch).await.body, changed);
    }
}

#[tokio::test]
async fn spec_and_status_are_written_apart() {
    let numbers = json!({ "type": "object", "properties": { "num": { "type": "integer", "maximum": 10 }, "replicas": { "type": "integer" }, "selector": { "type": "string" } } });
    let schema = json!({ "type": "object", "properties": { "spec": numbers, "status": numbers } });
    let more = json!({ "subresources": { "status": {}, "scale": {
        "specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas", "labelSelectorPath": ".status.selector",
    } } });
    let world = with_foos(schema, more).await;
    let path = format!("{FOOS}/x");
    let created = made(
        &world,
        foo(
            "x",
            json!({ "spec": { "num": 10, "replicas": 3 }, "status": { "num": 10 } }),
        ),
    )
    .await;
    assert_eq!(
        (created.get("status"), &created["metadata"]["generation"]),
        (None, &json!(1))
    );
    // Of a write of the status, the spec is not looked at.
    let mut body = created.clone();
    body["spec"]["num"] = 15.into();
    body["status"] = json!({ "num": 9, "selector": "bar", "replicas": 2 });
    let status = world.ask(&format!("PUT {path}/status"), body.clone()).await;
    assert_eq!(status.body["spec"]["num"], 10, "{}", status.line());
    assert_eq!(status.body["status"]["num"], 9);
    assert_eq!(status.body["metadata"]["generation"], 1);
    body["metadata"] = status.body["metadata"].clone();
    body["status"]["num"] = 15.into();
    let refused = world.ask(&format!("PUT {path}/status"), body).await;
    assert_eq!(
        refused.line(),
        "422 Invalid: Foo.tests.example.com \"x\" is invalid: status.num: Invalid value: 15: num in body should be less than or equal to 10"
    );
    // And of a write of the rest, the status is not.
    let mut body = status.body.clone();
    body["spec"]["num"] = 5.into();
    body["status"]["num"] = 1.into();
    let updated = world.ask(&format!("PUT {path}"), body).await.body;
    assert_eq!(
        (&updated["spec"]["num"], &updated["status"]["num"]),
        (&json!(5), &json!(9))
    );
    assert_eq!(updated["metadata"]["generation"], 2);
    // A scale is of both, and changes the size alone.
    let mut scale = world.get(&format!("{path}/scale")).await.body;
    assert_eq!(scale["spec"]["replicas"], 3);
    assert_eq!(scale["status"], json!({ "replicas": 2, "selector": "bar" }));
    scale["spec"]["replicas"] = 5.into();
    scale["status"]["selector"] = "baz".into();
    let scaled = world.ask(&format!("PUT {path}/scale"), scale).await;
    assert_eq!(scaled.body["spec"]["replicas"], 5, "{}", scaled.line());
    assert_eq!(scaled.body["status"]["selector"], "bar");
    let object = world.get(&path).await.body;
    assert_eq!(
        (
            &object["spec"]["replicas"],
            &object["metadata"]["generation"]
        ),
        (&json!(5), &json!(3))
    );
    let told = [
        merge(&world, &path, json!({ "spec": { "replicas": i64::MAX } })).await,
        merge(&world, &path, json!({ "spec": { "replicas": -1 } })).await,
        merge(
            &world,
            &format!("{path}/scale"),
            json!({ "spec": { "replicas": -1 } }),
        )
        .await,
    ];
    let told: Vec<String> = told.iter().map(Answer::line).collect();
    insta::assert_snapshot!(told.join("\n"), @r#"
    422 Invalid: Foo.tests.example.com "x" is invalid: .spec.replicas: Invalid value: 9223372036854775807: should be less than or equal to 2147483647
    422 Invalid: Foo.tests.example.com "x" is invalid: .spec.replicas: Invalid value: -1: should be a non-negative integer
    422 Invalid: Scale.autoscaling "x" is invalid: spec.replicas: Invalid value: -1: must be greater than or equal to 0
    "#);
    // Who has no size, has no scale.
    merge(&world, &path, json!({ "spec": { "replicas": null } })).await;
    let none = world.get(&format!("{path}/scale")).await;
    assert_eq!(
        none.line(),
        "500 InternalError: Internal error occurred: the spec replicas field \".spec.replicas\" does not exist"
    );
}

#[tokio::test]
async fn columns_show_what_their_type_takes() {
    let column = |name: &str, kind: &str, path: &str| json!({ "name": name, "type": kind, "jsonPath": path });
    let mut beta = column("Beta", "integer", ".spec.beta");
    beta["description"] = "the beta field".into();
    beta["format"] = "int64".into();
    beta["priority"] = 42.into();
    let columns = json!([
        column("Age", "date", ".metadata.creationTimestamp"),
        column("Alpha", "string", ".spec.alpha"),
        beta,
        column("Gamma", "integer", ".spec.alpha"),
        column("Epsilon", "string", ".spec.epsilon"),
        column("Half", "number", ".spec.half"),
        column("Cut", "integer", ".spec.half"),
        column("On", "boolean", ".spec.on"),
        column("When", "date", ".spec.when"),
        column("Never", "date", ".spec.alpha"),
        column("None", "string", ".spec.none"),
        column("Deep", "string", ".spec.list[?(@.name==\"b\")].value"),
        column("Map", "string", ".spec.map"),
    ]);
    let world = with_foos(anything(), json!({ "additionalPrinterColumns": columns })).await;
    let spec = json!({
        "alpha": "foo_123", "beta": 10, "epsilon": [1, 2, 3], "half": 2.5, "on": true, "when": "1970-01-01T00:00:00Z",
        "list": [{ "name": "a", "value": 1 }, { "name": "b", "value": 2 }], "map": { "k": "v" },
    });
    made(&world, foo("a", json!({ "spec": spec }))).await;
    let table = world.table(FOOS).await.body;
    let defined = &table["columnDefinitions"];
    assert_eq!(
        defined[2],
        json!({ "name": "Alpha", "type": "string", "format": "", "description": "Custom resource definition column (in JSONPath format): .spec.alpha", "priority": 0 })
    );
    assert_eq!(
        defined[3],
        json!({ "name": "Beta", "type": "integer", "format": "int64", "description": "the beta field", "priority": 42 })
    );
    let cells = table["rows"][0]["cells"].as_array().unwrap();
    assert!(cells[1].as_str().unwrap().ends_with('s'), "{cells:?}");
    assert!(cells[9].as_str().unwrap().ends_with('y'), "{cells:?}");
    let mut rest = cells.clone();
    rest.remove(9);
    rest.remove(1);
    assert_eq!(
        Value::from(rest),
        json!([
            "a",
            "foo_123",
            10,
            null,
            "[1,2,3]",
            2.5,
            2,
            true,
            "<invalid>",
            null,
            "2",
            "{\"k\":\"v\"}"
        ])
    );
}

#[tokio::test]
async fn selectable_fields_are_told_and_followed() {
    let schema = json!({ "type": "object", "properties": { "spec": { "type": "object", "properties": {
        "color": { "type": "string", "default": "blue" }, "quantity": { "type": "integer" }, "size": { "type": "string", "enum": ["S", "M"] }, "branded": { "type": "boolean" },
    } } } });
    let fields = ["color", "quantity", "size", "branded"]
        .map(|field| json!({ "jsonPath": format!(".spec.{field}") }));
    let world = with_foos(schema, json!({ "selectableFields": fields })).await;
    let mut watched = world
        .watch(&format!("{FOOS}?watch=true&fieldSelector=spec.color=blue"))
        .await;
    for (name, spec) in [
        (
            "one",
            json!({ "quantity": 2, "size": "S", "branded": true }),
        ),
        (
            "two",
            json!({ "color": "blue", "quantity": 3, "size": "M", "branded": false }),
        ),
        (
            "three",
            json!({ "color": "green", "quantity": 2, "branded": false }),
        ),
    ] {
        made(&world, foo(name, json!({ "spec": spec }))).await;
    }
    for (selector, expected) in [
        ("spec.color=blue", "200 FooList [one two]"),
        ("spec.quantity=2", "200 FooList [one three]"),
        ("spec.size=M", "200 FooList [two]"),
        ("spec.branded=false", "200 FooList [three two]"),
        ("spec.color=blue,spec.quantity=2", "200 FooList [one]"),
        ("spec.color!=blue", "200 FooList [three]"),
        (
            "spec.nosuchfield=xyz",
            "400 BadRequest: field label not supported: spec.nosuchfield",
        ),
    ] {
        assert_eq!(
            world
                .get(&format!("{FOOS}?fieldSelector={selector}"))
                .await
                .line(),
            expected
        );
    }
    merge(
        &world,
        &format!("{FOOS}/two"),
        json!({ "spec": { "color": "green" } }),
    )
    .await;
    world
        .ask(
            &format!("DELETE {FOOS}?fieldSelector=spec.size=S"),
            Value::Null,
        )
        .await;
    assert_eq!(
        watched.told(4).await,
        "ADDED one, ADDED two, DELETED two, DELETED one"
    );
    let index = world.get("/openapi/v3").await.body;
    let url = index["paths"]["apis/tests.example.com/v1"]["serverRelativeURL"].clone();
    let document = world.get(url.as_str().unwrap()).await.body;
    assert_eq!(
        document["components"]["schemas"]["com.example.tests.v1.Foo"]["x-kubernetes-selectable-fields"],
        json!([{ "fieldPath": "spec.color" }, { "fieldPath": "spec.quantity" }, { "fieldPath": "spec.size" }, { "fieldPath": "spec.branded" }])
    );
}

#[tokio::test]
async fn nothing_is_made_of_a_kind_that_is_on_its_way_out() {
    let world = serving().await;
    establish(&world, foos(anything(), json!({}))).await;
    // It goes when the last object of it has gone.
    let held = json!({ "name": "held", "finalizers": ["tests.example.com/hold"] });
    made(&world, foo("held", json!({ "metadata": held }))).await;
    let path = format!("{DEFINITIONS}/foos.tests.example.com");
    let deleted = world.ask(&format!("DELETE {path}"), Value::Null).await;
    assert_eq!(deleted.status, 200, "{}", deleted.line());
    definition_when(&world, "foos.tests.example.com", |definition| {
        condition(definition, "Terminating").is_some_and(|condition| condition["status"] == "True")
    })
    .await;
    for query in ["&dryRun=All", ""] {
        let refused = apply(&world, &format!("{FOOS}/a"), query, &foo("a", json!({}))).await;
        assert_eq!(
            refused.line(),
            "403 Forbidden: foos.tests.example.com \"a\" is forbidden: create not allowed while custom resource definition is terminating"
        );
    }
    merge(&world, &path, json!({ "metadata": { "finalizers": null } })).await;
    until(&world, &path, |answer| answer.status == 404).await;
}

#[tokio::test]
async fn what_nests_too_deep_or_is_too_large_is_refused() {
    let world = with_foos(anything(), json!({})).await;
    made(&world, foo("a", json!({}))).await;
    let nested = |bytes: usize| "[".repeat(bytes / 2) + &"]".repeat(bytes / 2);
    let near = (3 << 20) - 2000;
    let whole = |values: &str| {
        format!(
            r#"{{"apiVersion":"tests.example.com/v1","kind":"Foo","metadata":{{"name":"b"}},"values":{values}}}"#
        )
    };
    let post = format!("POST {FOOS}");
    let patch = format!("PATCH {FOOS}/a");
    let apply = format!("PATCH {FOOS}/b?fieldManager=m");
    let mut told = Vec::new();
    for (line, kind, body) in [
        (&post, "application/json", whole(&nested(4 << 20))),
        (&post, "application/json", whole(&nested(near))),
        (&post, "application/json", whole(&"[".repeat(near))),
        (&post, "application/yaml", whole(&nested(near))),
        (
            &patch,
            "application/json-patch+json",
            format!(r#"[{{"op":"add","path":"/foo","value":{}}}]"#, nested(near)),
        ),
        (
            &patch,
            "application/merge-patch+json",
            format!(r#"{{"value":{}}}"#, nested(near)),
        ),
        (&apply, "application/apply-patch+yaml", whole(&nested(near))),
    ] {
        let headers = [(header::CONTENT_TYPE, kind)];
        let answer = world.send(world.request(line, &headers, &body)).await;
        told.push(answer.status);
    }
    assert_eq!(told, [413, 400, 400, 400, 400, 400, 400]);
}

#[tokio::test]
async fn versions_are_served_and_stored_as_the_definition_says() {
    let world = serving().await;
    let mut definition = foos(anything(), json!({}));
    let version = |name: &str, served: bool, storage: bool| json!({ "name": name, "served": served, "storage": storage, "schema": { "openAPIV3Schema": anything() } });
    definition["spec"]["versions"] = json!([
        version("v1", true, true),
        version("v2", true, false),
        version("v3", false, false)
    ]);
    establish(&world, definition).await;
    let at = |version: &str| format!("/apis/tests.example.com/{version}/foos");
    made(&world, foo("a", json!({ "spec": 1 }))).await;
    assert_eq!(
        world.get(&format!("{}/a", at("v2"))).await.body["apiVersion"],
        "tests.example.com/v2"
    );
    assert_eq!(world.get(&at("v3")).await.status, 404);
    let wrong = world
        .ask(&format!("POST {}", at("v2")), foo("b", json!({})))
        .await;
    assert_eq!(wrong.status, 400, "{}", wrong.line());
    redefine(
        &world,
        json!([
            { "op": "replace", "path": "/spec/versions/0/storage", "value": false },
            { "op": "replace", "path": "/spec/versions/2/storage", "value": true },
            { "op": "replace", "path": "/spec/versions/1/served", "value": false },
        ]),
    )
    .await;
    until(&world, &at("v2"), |answer| answer.status == 404).await;
    let definition = definition_when(&world, "foos.tests.example.com", |definition| {
        definition["status"]["storedVersions"]
            .as_array()
            .is_some_and(|stored| stored.len() == 2)
    })
    .await;
    assert_eq!(definition["status"]["storedVersions"], json!(["v1", "v3"]));
    // Objects of a version that is not served are seen in those that are.
    made(&world, foo("b", json!({ "spec": 2 }))).await;
    assert_eq!(world.get(FOOS).await.line(), "200 FooList [a b]");
    let groups = world.get("/apis/tests.example.com").await.body;
    assert_eq!(groups["versions"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn objects_are_read_and_written_as_yaml() {
    let world = with_foos(anything(), json!({ "subresources": { "status": {} } })).await;
    let body = "apiVersion: tests.example.com/v1\nkind: Foo\nmetadata:\n  name: a\nvalues:\n  numVal: 1\n  boolVal: true\n  stringVal: \"1\"\n";
    let yaml = [
        (header::CONTENT_TYPE, "application/yaml"),
        (header::ACCEPT, "application/yaml"),
    ];
    let created = world
        .send(world.request(&format!("POST {FOOS}"), &yaml, body))
        .await;
    assert_eq!(created.status, 201);
    let text = created.body.as_str().unwrap();
    assert!(
        text.contains("numVal: 1\n") && text.contains("stringVal: \"1\""),
        "{text}"
    );
    let seen = world.get(&format!("{FOOS}/a")).await.body;
    assert_eq!(
        seen["values"],
        json!({ "numVal": 1, "boolVal": true, "stringVal": "1" })
    );
    for path in [
        format!("{FOOS}/a"),
        format!("{FOOS}/a/status"),
        FOOS.to_owned(),
    ] {
        let accept = [(header::ACCEPT, "application/yaml")];
        let read = world
            .send(world.request(&format!("GET {path}"), &accept, ""))
            .await;
        assert!(
            read.body
                .as_str()
                .is_some_and(|text| text.contains("boolVal: true")),
            "{path}"
        );
    }
    // Kinds of users have no binary form.
    let accept = [(header::ACCEPT, "application/vnd.kubernetes.protobuf")];
    let refused = world
        .send(world.request(&format!("GET {FOOS}"), &accept, ""))
        .await;
    assert_eq!(refused.status, 406, "{}", refused.line());
}
