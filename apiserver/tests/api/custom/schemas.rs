//! What a schema makes of objects: nulls, defaults, what is dropped, what is refused, and what of before is forgiven.

use serde_json::{Value, json};

use super::*;

#[tokio::test]
async fn a_null_that_is_applied_has_to_be_allowed() {
    let inner = |nullable: bool, needs: bool| {
        let mut inner = json!({ "type": "object", "nullable": nullable, "properties": { "a": { "type": "string" }, "b": { "type": "string" } } });
        if needs {
            inner["required"] = json!(["a", "b"]);
        }
        inner
    };
    let mut fields = serde_json::Map::new();
    let mut cases = Vec::new();
    for nullable in [true, false] {
        for (required, needs) in [(false, false), (false, true), (true, false), (true, true)] {
            let name = format!("f{}", cases.len());
            let mut wrapper =
                json!({ "type": "object", "properties": { "inner": inner(nullable, needs) } });
            if required {
                wrapper["required"] = json!(["inner"]);
            }
            fields.insert(name.clone(), wrapper);
            cases.push((name, nullable));
        }
    }
    let schema = json!({ "type": "object", "properties": { "spec": { "type": "object", "properties": fields } } });
    let world = with_foos(schema, json!({})).await;
    for (name, nullable) in cases {
        let path = format!("{FOOS}/{name}");
        let body = |inner: Value| {
            foo(
                &name,
                json!({ "spec": { name.as_str(): { "inner": inner } } }),
            )
        };
        let filled = apply(&world, &path, "", &body(json!({ "a": "1", "b": "2" }))).await;
        assert_eq!(filled.status, 201, "{}", filled.line());
        let cleared = apply(&world, &path, "", &body(Value::Null)).await;
        if nullable {
            assert_eq!(
                cleared.body["spec"][&name],
                json!({ "inner": null }),
                "{}",
                cleared.line()
            );
        } else {
            let expected = format!(
                "422 Invalid: Foo.tests.example.com {name:?} is invalid: spec.{name}.inner: Invalid value: \"null\": spec.{name}.inner in body must be of type object: \"null\""
            );
            assert!(cleared.line().starts_with(&expected), "{}", cleared.line());
        }
    }
}

#[tokio::test]
async fn defaults_come_and_go_with_the_definition() {
    let fields = json!({ "type": "object", "properties": {
        "a": { "type": "string", "default": "A" }, "b": { "type": "string", "default": "B" }, "c": { "type": "string" },
        "replicas": { "type": "integer", "format": "int32", "minimum": 0, "default": 1 },
    } });
    let schema = json!({ "type": "object", "properties": { "spec": fields, "status": fields } });
    let world = with_foos(schema, json!({ "subresources": { "status": {} } })).await;
    let path = format!("{FOOS}/x");
    let created = made(
        &world,
        foo("x", json!({ "spec": { "a": "a" }, "status": { "b": "b" } })),
    )
    .await;
    assert_eq!(
        created["spec"],
        json!({ "a": "a", "b": "B", "replicas": 1 })
    );
    assert_eq!(created.get("status"), None);
    let status = merge(&world, &format!("{path}/status"), json!({ "status": {} })).await;
    let full = json!({ "a": "A", "b": "B", "replicas": 1 });
    assert_eq!(status.body["status"], full, "{}", status.line());
    assert_eq!(world.get(&path).await.body, status.body);
    // A new default is there at once in every read, and nowhere stored.
    let revision = status.body["metadata"]["resourceVersion"].clone();
    let at = |root: &str| {
        format!("/spec/versions/0/schema/openAPIV3Schema/properties/{root}/properties/c/default")
    };
    redefine(
        &world,
        json!([
            { "op": "add", "path": at("spec"), "value": "C" },
            { "op": "add", "path": at("status"), "value": "C" },
        ]),
    )
    .await;
    for seen in [
        until(&world, &path, |answer| answer.body["spec"]["c"] == "C")
            .await
            .body,
        world.get(&format!("{path}?resourceVersion=0")).await.body,
        world.get(FOOS).await.body["items"][0].clone(),
        world.get(&format!("{FOOS}?resourceVersion=0")).await.body["items"][0].clone(),
        world
            .watch(&format!("{FOOS}?watch=true"))
            .await
            .next()
            .await
            .unwrap()["object"]
            .clone(),
    ] {
        assert_eq!(
            (&seen["spec"]["c"], &seen["status"]["c"]),
            (&json!("C"), &json!("C"))
        );
        assert_eq!(seen["metadata"]["resourceVersion"], revision);
    }
    // Who writes the status, stores the default of the status with what was read of the rest.
    let written = merge(
        &world,
        &format!("{path}/status"),
        json!({ "status": { "replicas": 7 } }),
    )
    .await
    .body;
    assert_eq!(written["status"]["c"], "C");
    redefine(
        &world,
        json!([
            { "op": "remove", "path": at("spec") },
            { "op": "remove", "path": at("status") },
        ]),
    )
    .await;
    let seen = world.get(&path).await.body;
    assert_eq!(seen["status"]["c"], "C");
}

#[tokio::test]
async fn objects_inside_of_objects_have_sound_metadata() {
    let embedded = |more: Value| {
        let mut schema = json!({ "type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true });
        for (key, value) in more.as_object().into_iter().flatten() {
            schema[key] = value.clone();
        }
        schema
    };
    let pruned = json!({ "type": "object", "x-kubernetes-embedded-resource": true, "properties": { "specified": { "type": "string" } } });
    let schema = json!({ "type": "object", "properties": {
        "embedded": embedded(json!({})),
        "pruned": pruned,
        "plain": { "type": "object", "x-kubernetes-preserve-unknown-fields": true },
        "nested": embedded(json!({ "properties": { "embedded": embedded(json!({})) } })),
        "defaulted": embedded(json!({ "default": { "apiVersion": "v1", "kind": "Pod", "labels": { "foo": "bar" } } })),
        "named": { "type": "object", "x-kubernetes-embedded-resource": true, "properties": {
            "apiVersion": { "type": "string", "default": "foos/v1" }, "kind": { "type": "string", "default": "Foo" },
            "metadata": { "type": "object", "properties": { "name": { "type": "string", "default": "bar" } } },
        } },
    } });
    let world = with_foos(schema, json!({})).await;
    let inner = || json!({ "apiVersion": "foo/v1", "kind": "Foo", "metadata": { "name": "foo", "unspecified": "bar" }, "specified": "x", "other": "y" });
    let mut nested = inner();
    nested["embedded"] = inner();
    let sent = json!({ "embedded": inner(), "pruned": inner(), "plain": inner(), "nested": nested, "named": { "metadata": {} } });
    let created = made(&world, foo("a", sent.clone())).await;
    let kept = |more: bool| {
        let mut kept = json!({ "apiVersion": "foo/v1", "kind": "Foo", "metadata": { "name": "foo" }, "specified": "x" });
        if more {
            kept["other"] = "y".into();
        }
        kept
    };
    let mut nested = kept(true);
    nested["embedded"] = kept(true);
    for (field, expected) in [
        ("embedded", kept(true)),
        ("pruned", kept(false)),
        ("plain", inner()),
        ("nested", nested),
        (
            "defaulted",
            json!({ "apiVersion": "v1", "kind": "Pod", "labels": { "foo": "bar" } }),
        ),
        (
            "named",
            json!({ "apiVersion": "foos/v1", "kind": "Foo", "metadata": { "name": "bar" } }),
        ),
    ] {
        assert_eq!(created[field], expected, "{field}");
    }
    let bad = || json!({ "apiVersion": "foo/v1", "kind": "%", "metadata": { "name": ".." } });
    let mut nested = bad();
    nested["embedded"] = bad();
    let invalid = json!({ "metadata": { "name": "b", "labels": { "foo": "x y" } }, "embedded": bad(), "nested": nested });
    let wrong = json!({ "embedded": { "apiVersion": "foo/v1", "kind": "Foo", "metadata": { "name": "i", "namespace": 42 } } });
    let mut update = world.get(&format!("{FOOS}/a")).await.body;
    for key in ["embedded", "nested"] {
        update[key] = invalid[key].clone();
    }
    update["metadata"]["labels"] = json!({ "foo": "x y" });
    let told = [
        create(&world, foo("b", invalid)).await,
        world.ask(&format!("PUT {FOOS}/a"), update).await,
        create(&world, foo("b", wrong)).await,
    ];
    for answer in &told[..2] {
        for part in [
            "metadata.labels: Invalid value: \"x y\"",
            " embedded.kind: Invalid value: \"%\"",
            " embedded.metadata.name: Invalid value: \"..\"",
            " nested.kind: Invalid value: \"%\"",
            " nested.metadata.name: Invalid value: \"..\"",
            " nested.embedded.kind: Invalid value: \"%\"",
            " nested.embedded.metadata.name: Invalid value: \"..\"",
        ] {
            assert!(answer.line().contains(part), "{part}: {}", answer.line());
        }
    }
    let told = told[2].line();
    assert!(
        told.starts_with("400 BadRequest: ") && told.contains("ObjectMeta.namespace"),
        "{told}"
    );
}

#[tokio::test]
async fn what_is_not_specified_is_dropped_where_nothing_keeps_it() {
    let keeps = |keeps: bool| {
        let mut schema = json!({ "type": "object", "properties": { "pruning": { "type": "object" }, "preserving": anything() } });
        if keeps {
            schema["x-kubernetes-preserve-unknown-fields"] = true.into();
        }
        schema
    };
    let mut schema = anything();
    schema["properties"] = json!({ "alpha": { "type": "string" }, "pruning": keeps(false), "preserving": keeps(true) });
    let world = with_foos(schema, json!({})).await;
    let part = json!({
        "unspecified": "bar", "unspecifiedObject": { "unspecified": "bar" },
        "pruning": { "unspecified": "bar" }, "preserving": { "unspecified": "bar" },
    });
    let sent = json!({ "unspecified": "bar", "alpha": "abc", "beta": 42.0, "pruning": part, "preserving": part });
    let created = made(&world, foo("a", sent)).await;
    assert_eq!(created["unspecified"], "bar");
    assert_eq!(
        created["pruning"],
        json!({ "pruning": {}, "preserving": { "unspecified": "bar" } })
    );
    let mut kept = part;
    kept["pruning"] = json!({});
    assert_eq!(created["preserving"], kept);
    // A patch brings nothing in, either; and what a later schema does not have is not shown.
    let patched = merge(
        &world,
        &format!("{FOOS}/a"),
        json!({ "pruning": { "x": 1, "preserving": { "y": 1 } } }),
    )
    .await;
    assert_eq!(
        patched.body["pruning"],
        json!({ "pruning": {}, "preserving": { "unspecified": "bar", "y": 1 } })
    );
    redefine(&world, json!([
        { "op": "remove", "path": "/spec/versions/0/schema/openAPIV3Schema/x-kubernetes-preserve-unknown-fields" },
        { "op": "remove", "path": "/spec/versions/0/schema/openAPIV3Schema/properties/preserving" },
    ]))
    .await;
    let seen = until(&world, &format!("{FOOS}/a"), |answer| {
        answer.body.get("beta").is_none()
    })
    .await
    .body;
    assert_eq!(
        (seen.get("preserving"), &seen["alpha"]),
        (None, &json!("abc"))
    );
    let listed = world.get(FOOS).await.body["items"][0].clone();
    assert_eq!(listed.get("preserving"), None);
    assert_eq!(listed["pruning"], seen["pruning"]);
}

#[tokio::test]
async fn lists_hold_nothing_twice() {
    let keyed = json!({ "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["a", "b"], "items": {
        "type": "object", "required": ["a", "b"], "properties": { "a": { "type": "integer" }, "b": { "type": "integer" } },
    } });
    let set = json!({ "type": "array", "x-kubernetes-list-type": "set", "items": { "type": "object", "x-kubernetes-map-type": "atomic", "additionalProperties": { "type": "integer" } } });
    let schema = json!({ "type": "object", "properties": { "map": keyed, "set": set, "badMap": keyed, "badSet": set } });
    let world = with_foos(schema, json!({})).await;
    let map = json!([{ "a": 1, "b": 1 }, { "a": 1, "b": 2 }]);
    let set = json!([{ "a": 1, "b": 1 }, { "a": 1 }]);
    let twice = |list: &Value| {
        let mut list = list.as_array().unwrap().clone();
        list.push(list[0].clone());
        Value::from(list)
    };
    let refused = create(
        &world,
        foo(
            "a",
            json!({ "map": map, "set": set, "badMap": twice(&map), "badSet": twice(&set) }),
        ),
    )
    .await;
    let line = refused.line();
    for part in ["badMap[2]: Duplicate value", "badSet[2]: Duplicate value"] {
        assert!(line.contains(part), "{line}");
    }
    assert!(!line.contains(" map[") && !line.contains(" set["), "{line}");
    made(&world, foo("a", json!({ "map": map, "set": set }))).await;
    let path = format!("{FOOS}/a");
    let refused = merge(
        &world,
        &path,
        json!({ "map": twice(&map), "set": twice(&set) }),
    )
    .await;
    assert!(
        refused.line().contains("map[2]: Duplicate value")
            && refused.line().contains("set[2]: Duplicate value"),
        "{}",
        refused.line()
    );
    // With a key less, the object has something twice; what it had before is not held against it.
    redefine(&world, json!([{ "op": "replace", "path": "/spec/versions/0/schema/openAPIV3Schema/properties/map/x-kubernetes-list-map-keys", "value": ["a"] }])).await;
    let refused = create(&world, foo("b", json!({ "map": map }))).await;
    assert_eq!(refused.status, 422, "{}", refused.line());
    let labelled = merge(
        &world,
        &path,
        json!({ "metadata": { "labels": { "x": "y" } } }),
    )
    .await;
    assert_eq!(labelled.status, 200, "{}", labelled.line());
    let more = merge(&world, &path, json!({ "set": twice(&set) })).await;
    assert_eq!(more.status, 200, "{}", more.line());
}

#[tokio::test]
async fn a_schema_that_becomes_stricter_holds_what_changes() {
    let entries = json!({ "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"], "items": {
        "type": "object", "required": ["name"], "properties": { "name": { "type": "string" }, "port": { "type": "integer" } },
    } });
    let schema = json!({ "type": "object", "properties": {
        "spec": { "type": "object", "properties": { "size": { "type": "integer" }, "text": { "type": "string" }, "entries": entries } },
    } });
    let world = with_foos(schema, json!({})).await;
    made(
        &world,
        foo(
            "a",
            json!({ "spec": { "size": 9, "text": "ab", "entries": [{ "name": "x", "port": 9 }] } }),
        ),
    )
    .await;
    let at = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties";
    redefine(&world, json!([
        { "op": "add", "path": format!("{at}/size/maximum"), "value": 5 },
        { "op": "add", "path": format!("{at}/text/pattern"), "value": "^x" },
        { "op": "add", "path": format!("{at}/entries/items/properties/port/maximum"), "value": 5 },
        { "op": "add", "path": format!("{at}/size/x-kubernetes-validations"), "value": [{ "rule": "self < 5" }] },
    ]))
    .await;
    let path = format!("{FOOS}/a");
    let mut told = Vec::new();
    for patch in [
        json!({ "metadata": { "labels": { "a": "b" } } }),
        json!({ "spec": { "size": 8 } }),
        json!({ "spec": { "text": "abc" } }),
        json!({ "spec": { "entries": [{ "name": "new", "port": 1 }, { "name": "x", "port": 9 }] } }),
        json!({ "spec": { "entries": [{ "name": "new", "port": 7 }, { "name": "x", "port": 9 }] } }),
        json!({ "spec": { "size": 4 } }),
    ] {
        told.push(merge(&world, &path, patch).await.status);
    }
    assert_eq!(told, [200, 422, 422, 200, 422, 200]);
}
