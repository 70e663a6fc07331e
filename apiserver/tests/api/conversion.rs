//! Kinds of users whose versions a webhook converts: every verb in every version, and what a webhook may not do.

mod selectors;

use std::time::Duration;

use http::header;
use serde_json::{Value, json};

use crate::definitions::{DEFINITIONS, establish, serving};
use crate::hook::{Hook, Reply};
use crate::world::{Answer, World};

/// In `v1` a gadget has `spec.size`, in `v2` `spec.shape.size`; each version has a default of its own.
fn gadgets(client: &Value, reviews: &Value) -> Value {
    let version = |name: &str, storage: bool, spec: Value, replicas: &str| {
        json!({
            "name": name, "served": true, "storage": storage,
            "schema": { "openAPIV3Schema": { "type": "object", "properties": {
                "spec": spec,
                "status": { "type": "object", "properties": { "replicas": { "type": "integer" } } },
            } } },
            "subresources": { "status": {}, "scale": { "specReplicasPath": replicas, "statusReplicasPath": ".status.replicas" } },
        })
    };
    let flags = |own: &str| {
        let mut flags = json!({ "one": { "type": "boolean" }, "two": { "type": "boolean" }, "note": { "type": "string" } });
        flags[own]["default"] = true.into();
        flags
    };
    let mut old = flags("one");
    old["size"] = json!({ "type": "integer" });
    let mut new = flags("two");
    new["shape"] = json!({ "type": "object", "properties": { "size": { "type": "integer" } } });
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": { "name": "gadgets.example.com" },
        "spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": { "plural": "gadgets", "kind": "Gadget" },
            "versions": [
                version("v1", true, json!({ "type": "object", "properties": old }), ".spec.size"),
                version("v2", false, json!({ "type": "object", "properties": new }), ".spec.shape.size"),
            ],
            "conversion": { "strategy": "Webhook", "webhook": { "clientConfig": client, "conversionReviewVersions": reviews } },
        },
    })
}

/// An object in another version, as a sound webhook makes it.
fn converted(object: &Value, wanted: &str) -> Value {
    let mut made = object.clone();
    let from = object["apiVersion"].as_str().unwrap();
    if let (Some(spec), true) = (made["spec"].as_object_mut(), from != wanted) {
        let moved = match wanted {
            "example.com/v2" => spec
                .remove("size")
                .map(|size| ("shape", json!({ "size": size }))),
            _ => spec
                .remove("shape")
                .map(|mut shape| ("size", shape["size"].take())),
        };
        spec.extend(moved.map(|(name, value)| (name.to_owned(), value)));
    }
    made["apiVersion"] = wanted.into();
    made
}

fn success(objects: Vec<Value>) -> Reply {
    Reply::Says(json!({ "result": { "status": "Success" }, "convertedObjects": objects }))
}

/// An answer in which each object is what `change` leaves of what a sound webhook makes of it.
fn answer(review: &Value, change: impl Fn(&mut Value)) -> Reply {
    let wanted = review["request"]["desiredAPIVersion"].as_str().unwrap();
    let objects = review["request"]["objects"].as_array().unwrap().iter();
    let made = objects.map(|object| {
        let mut made = converted(object, wanted);
        change(&mut made);
        made
    });
    success(made.collect())
}

fn gadget(version: &str, name: &str, spec: Value) -> Value {
    let version = format!("example.com/{version}");
    json!({ "apiVersion": version, "kind": "Gadget", "metadata": { "name": name }, "spec": spec })
}

fn at(version: &str) -> String {
    format!("/apis/example.com/{version}/namespaces/default/gadgets")
}

/// A world with gadgets.
async fn with_gadgets(reply: impl Fn(&Value) -> Reply + Send + Sync + 'static) -> (World, Hook) {
    let hook = Hook::start(&["127.0.0.1"], reply).await;
    let world = serving().await;
    establish(&world, gadgets(&hook.client_config(), &json!(["v1"]))).await;
    (world, hook)
}

async fn made(world: &World, version: &str, name: &str, spec: Value) -> Value {
    let path = format!("POST {}", at(version));
    let made = world.ask(&path, gadget(version, name, spec)).await;
    assert_eq!(made.status, 201, "{}", made.line());
    made.body
}

async fn applied(world: &World, version: &str, manager: &str, body: Value, force: bool) -> Answer {
    let name = body["metadata"]["name"].as_str().unwrap().to_owned();
    let path = format!(
        "PATCH {}/{name}?fieldManager={manager}&force={force}",
        at(version)
    );
    let kind = [(header::CONTENT_TYPE, "application/apply-patch+yaml")];
    world
        .send(world.request(&path, &kind, &body.to_string()))
        .await
}

/// Lets objects be stored in another version from now on.
async fn store_in(world: &World, version: &str) {
    let place = usize::from(version == "v2");
    let definition = format!("{DEFINITIONS}/gadgets.example.com");
    let patch = json!([
        { "op": "replace", "path": format!("/spec/versions/{}/storage", 1 - place), "value": false },
        { "op": "replace", "path": format!("/spec/versions/{place}/storage"), "value": true },
    ]);
    let changed = world.patch(&definition, "json-patch", patch).await;
    assert_eq!(changed.status, 200, "{}", changed.line());
    // Who follows definitions has heard of it once the status tells it, and a moment later.
    let told = async || {
        let stored = world.get(&definition).await.body["status"]["storedVersions"].clone();
        stored.as_array().unwrap().contains(&json!(version))
    };
    while !told().await {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
}

/// The questions since the last time, as `FROM,FROM>TO`.
fn questions(hook: &Hook) -> Vec<String> {
    let asked = std::mem::take(&mut *hook.asked.lock());
    let shown = asked.iter().map(|review| {
        let short = |version: &Value| version.as_str().unwrap().replace("example.com/", "");
        let objects = review["request"]["objects"].as_array().unwrap().iter();
        let from: Vec<String> = objects.map(|object| short(&object["apiVersion"])).collect();
        let to = short(&review["request"]["desiredAPIVersion"]);
        format!("{}>{to}", from.join(","))
    });
    shown.collect()
}

#[tokio::test]
async fn every_verb_speaks_every_version() {
    let (world, hook) = with_gadgets(|review| answer(review, |_| {})).await;
    // What is stored has the defaults of the version that it came in; what is read, those of the version that it is stored in, too.
    let old = made(&world, "v1", "old", json!({ "size": 1 })).await;
    assert_eq!(old["spec"], json!({ "size": 1, "one": true }));
    assert_eq!(questions(&hook), [""; 0]);
    let new = made(&world, "v2", "new", json!({ "shape": { "size": 2 } })).await;
    assert_eq!(
        new["spec"],
        json!({ "shape": { "size": 2 }, "one": true, "two": true })
    );
    assert_eq!(questions(&hook), ["v2>v1", "v1>v2"]);
    let first = |review: &Value| review["apiVersion"] == "apiextensions.k8s.io/v1";
    assert!(hook.asked.lock().iter().all(first));

    let spec = async |version: &str, name: &str| {
        let found = world.get(&format!("{}/{name}", at(version))).await.body;
        assert_eq!(found["apiVersion"], format!("example.com/{version}"));
        found["spec"].clone()
    };
    assert_eq!(
        spec("v2", "old").await,
        json!({ "shape": { "size": 1 }, "one": true })
    );
    assert_eq!(
        spec("v1", "new").await,
        json!({ "size": 2, "one": true, "two": true })
    );
    // A list is one question; what is in the right version already is in none.
    questions(&hook);
    let listed = world.get(&at("v2")).await;
    assert_eq!(listed.line(), "200 GadgetList [new old]");
    assert_eq!(listed.body["items"][1]["spec"]["shape"]["size"], 1);
    assert_eq!(questions(&hook), ["v1,v1>v2"]);
    assert_eq!(world.get(&at("v1")).await.status, 200);
    assert_eq!(questions(&hook), [""; 0]);
    let table = world.table(&at("v2")).await;
    assert_eq!(table.body["rows"].as_array().unwrap().len(), 2);

    // Watches tell their own version.
    let mut watched = world.watch(&format!("{}?watch=true", at("v2"))).await;
    for size in [2, 1] {
        let event = watched.next().await.unwrap();
        assert_eq!(event["object"]["spec"]["shape"]["size"], size);
    }
    let body = json!({ "spec": { "shape": { "size": 5 } } });
    let patched = world
        .patch(&format!("{}/old", at("v2")), "merge-patch", body)
        .await;
    assert_eq!(patched.status, 200, "{}", patched.line());
    assert_eq!(patched.body["spec"]["shape"]["size"], 5);
    let event = watched.next().await.unwrap();
    assert_eq!(
        (&event["type"], &event["object"]["spec"]["shape"]["size"]),
        (&json!("MODIFIED"), &json!(5))
    );
    assert_eq!(spec("v1", "old").await["size"], 5);

    let mut body = world.get(&format!("{}/old", at("v2"))).await.body;
    body["spec"]["shape"]["size"] = 6.into();
    let updated = world.ask(&format!("PUT {}/old", at("v2")), body).await;
    assert_eq!(updated.status, 200, "{}", updated.line());
    assert_eq!(spec("v1", "old").await["size"], 6);

    // Subresources, too.
    let status = json!({ "status": { "replicas": 3 } });
    let path = format!("{}/old/status", at("v2"));
    let written = world.patch(&path, "merge-patch", status).await;
    assert_eq!(written.status, 200, "{}", written.line());
    let path = format!("{}/old/scale", at("v2"));
    let scale = world.get(&path).await.body;
    assert_eq!(
        (&scale["spec"]["replicas"], &scale["status"]["replicas"]),
        (&json!(6), &json!(3))
    );
    let scaled = world
        .patch(&path, "merge-patch", json!({ "spec": { "replicas": 7 } }))
        .await;
    assert_eq!(scaled.body["spec"]["replicas"], 7, "{}", scaled.line());
    assert_eq!(spec("v1", "old").await["size"], 7);

    // And deletions show what they deleted.
    let mut deletion = world
        .watch(&format!(
            "{}?watch=true&fieldSelector=metadata.name=old",
            at("v2")
        ))
        .await;
    assert_eq!(deletion.told(1).await, "ADDED old");
    let gone = world
        .ask(&format!("DELETE {}/old", at("v2")), Value::Null)
        .await;
    assert_eq!(gone.status, 200, "{}", gone.line());
    let event = deletion.next().await.unwrap();
    assert_eq!(
        (&event["type"], &event["object"]["spec"]["shape"]["size"]),
        (&json!("DELETED"), &json!(7))
    );
    let gone = world
        .ask(&format!("DELETE {}", at("v2")), Value::Null)
        .await;
    assert_eq!(gone.status, 200, "{}", gone.line());
    assert_eq!(world.get(&at("v1")).await.line(), "200 GadgetList []");
}

#[tokio::test]
async fn objects_of_several_versions_are_one_list() {
    let (world, hook) = with_gadgets(|review| answer(review, |_| {})).await;
    made(&world, "v1", "a", json!({ "size": 1 })).await;
    store_in(&world, "v2").await;
    made(&world, "v1", "b", json!({ "size": 2 })).await;
    questions(&hook);
    for (version, asked, pointer) in [
        ("v1", "v2>v1", "/spec/size"),
        ("v2", "v1>v2", "/spec/shape/size"),
    ] {
        let listed = world.get(&at(version)).await;
        assert_eq!(listed.line(), "200 GadgetList [a b]");
        assert_eq!(questions(&hook), [asked]);
        let items = listed.body["items"].as_array().unwrap();
        let sizes: Vec<&Value> = items
            .iter()
            .filter_map(|item| item.pointer(pointer))
            .collect();
        assert_eq!(sizes, [&json!(1), &json!(2)]);
    }
    // Whoever writes what is there already moves it to the version that objects are stored in now.
    let path = format!("{}/a", at("v1"));
    let before = world.get(&path).await.body;
    let after = world.ask(&format!("PUT {path}"), before.clone()).await.body;
    assert_eq!(after["spec"]["size"], 1);
    assert_ne!(
        after["metadata"]["resourceVersion"],
        before["metadata"]["resourceVersion"]
    );
    questions(&hook);
    world.get(&at("v2")).await;
    assert_eq!(questions(&hook), [""; 0]);
    // The defaults of the version that it is stored in now came with that, and are written once.
    let put = format!("PUT {path}");
    let with_defaults = world.ask(&put, after).await.body;
    let again = world.ask(&put, with_defaults.clone()).await.body;
    assert_eq!(again, with_defaults);
    // Versions that objects may be stored in are kept account of.
    let definition = world
        .get(&format!("{DEFINITIONS}/gadgets.example.com"))
        .await
        .body;
    assert_eq!(definition["status"]["storedVersions"], json!(["v1", "v2"]));
}

#[tokio::test]
async fn many_objects_are_several_questions() {
    let (world, hook) = with_gadgets(|review| answer(review, |_| {})).await;
    for number in 0..510 {
        made(
            &world,
            "v1",
            &format!("g{number}"),
            json!({ "size": number }),
        )
        .await;
    }
    questions(&hook);
    let listed = world.get(&at("v2")).await.body;
    let items = listed["items"].as_array().unwrap();
    let sized = |item: &&Value| {
        let name = item["metadata"]["name"].as_str().unwrap();
        *name == *format!("g{}", item["spec"]["shape"]["size"])
    };
    assert_eq!(items.iter().filter(sized).count(), 510);
    let counts: Vec<usize> = questions(&hook)
        .iter()
        .map(|question| question.matches("v1").count())
        .collect();
    assert_eq!(counts, [500, 10]);
    // A page asks about what is on it.
    world.get(&format!("{}?limit=3", at("v2"))).await;
    assert_eq!(questions(&hook), ["v1,v1,v1>v2"]);
}

#[tokio::test]
async fn of_the_metadata_a_webhook_changes_labels_and_annotations_alone() {
    let (world, _hook) = with_gadgets(|review| {
        answer(review, |made| {
            let wanted = made["apiVersion"].as_str().unwrap().replace('/', ".");
            let metadata = &mut made["metadata"];
            metadata["labels"] = json!({ "to": wanted });
            metadata["annotations"] = json!({ "to": wanted });
            metadata["finalizers"] = json!(["example.com/other"]);
            metadata["generation"] = 42.into();
            metadata["resourceVersion"] = "42".into();
            metadata["ownerReferences"] =
                json!([{ "apiVersion": "v1", "kind": "Node", "name": "n", "uid": "1" }]);
            metadata["garbage"] = "x".into();
            made["garbage"] = "x".into();
        })
    })
    .await;
    let old = made(&world, "v1", "old", json!({ "size": 1 })).await;
    assert_eq!(old["metadata"].get("labels"), None);
    let seen = world.get(&format!("{}/old", at("v2"))).await.body;
    let mut expected = old["metadata"].clone();
    expected["labels"] = json!({ "to": "example.com.v2" });
    expected["annotations"] = json!({ "to": "example.com.v2" });
    assert_eq!(seen["metadata"], expected);
    assert_eq!(seen.get("garbage"), None);
    // Of what is written, they are stored.
    let new = made(&world, "v2", "new", json!({})).await;
    assert_eq!(new["metadata"]["labels"], json!({ "to": "example.com.v2" }));
    let stored = world.get(&format!("{}/new", at("v1"))).await.body;
    assert_eq!(
        stored["metadata"]["labels"],
        json!({ "to": "example.com.v1" })
    );
    assert_eq!(stored["metadata"].get("finalizers"), None);
}

#[tokio::test]
async fn what_is_not_converted_is_neither_shown_nor_stored() {
    let (world, hook) = with_gadgets(|review| {
        let name = review["request"]["objects"][0]["metadata"]["name"].clone();
        let put = |pointer: &'static str, value: Value| {
            answer(review, move |made| {
                *made.pointer_mut(pointer).unwrap() = value.clone();
            })
        };
        match name.as_str().unwrap() {
            "empty" => success(Vec::new()),
            "says" => {
                Reply::Says(json!({ "result": { "status": "Failure", "message": "not today" } }))
            }
            "silent" => Reply::Says(json!({ "result": { "status": "Failure" } })),
            "other-uid" => Reply::Says(json!({ "uid": "x", "result": { "status": "Success" } })),
            "no-review" => Reply::Raw(200, br#"{"apiVersion":"v1","kind":"List"}"#.to_vec()),
            "unfit" => Reply::Raw(422, b"no".to_vec()),
            "broken" => Reply::Raw(500, b"oh".to_vec()),
            "text" => Reply::Raw(200, b"hello".to_vec()),
            "huge" => Reply::Raw(200, vec![b' '; 17 << 20]),
            "version" => put("/apiVersion", json!("example.com/v3")),
            "kind" => put("/kind", json!("Other")),
            "named" => put("/metadata/name", json!("z")),
            "moved" => put("/metadata/namespace", json!("z")),
            "uid" => put("/metadata/uid", json!("z")),
            "labels" => put("/metadata/labels", json!({ "a": 1 })),
            "label" => put("/metadata/labels", json!({ "a": "-" })),
            _ => answer(review, |_| {}),
        }
    })
    .await;
    let names = [
        "empty", "says", "silent", "unfit", "broken", "huge", "version", "kind", "named", "moved",
        "labels",
    ];
    let mut told = Vec::new();
    for name in names {
        let mut body = gadget("v1", name, json!({}));
        body["metadata"]["labels"] = json!({ "a": "b" });
        let path = format!("POST {}", at("v1"));
        assert_eq!(world.ask(&path, body).await.status, 201);
        let line = world.get(&format!("{}/{name}", at("v2"))).await.line();
        told.push(line.replace(&hook.port.to_string(), "PORT"));
    }
    insta::assert_snapshot!(told.join("\n"), @r#"
    500 : conversion webhook for example.com/v1, Kind=Gadget returned 0 objects, expected 1
    500 : conversion webhook for example.com/v1, Kind=Gadget failed: not today
    500 : conversion webhook for example.com/v1, Kind=Gadget failed: response.result.status was 'Failure', not 'Success'
    500 : conversion webhook for example.com/v1, Kind=Gadget failed: the server rejected our request due to an error in our request
    500 : conversion webhook for example.com/v1, Kind=Gadget failed: an error on the server ("oh") has prevented the request from succeeding
    500 : conversion webhook for example.com/v1, Kind=Gadget failed: Post "https://127.0.0.1:PORT/ask?timeout=30s": the answer is larger than 16777216 bytes
    500 : conversion webhook for example.com/v1, Kind=Gadget returned invalid object at index 0: invalid groupVersion (expected example.com/v2, received example.com/v3)
    500 : conversion webhook for example.com/v1, Kind=Gadget returned invalid object at index 0: invalid kind (expected Gadget, received Other)
    500 : conversion webhook for example.com/v1, Kind=Gadget returned invalid object: must have the same name: named != z
    500 : conversion webhook for example.com/v1, Kind=Gadget returned invalid object: must have the same namespace: default != z
    500 : conversion webhook for example.com/v1, Kind=Gadget returned invalid metadata: metadata.labels[a] must be a string, but is int64 in converted object
    "#);
    for (name, part) in [
        ("other-uid", "failed: expected response.uid=\""),
        (
            "no-review",
            "failed: expected webhook response of apiextensions.k8s.io/v1, Kind=ConversionReview, got /v1, Kind=List",
        ),
        (
            "text",
            "failed: couldn't get version/kind; json parse error",
        ),
        ("uid", "returned invalid object: must have the same UID: "),
        (
            "label",
            "returned invalid metadata: metadata.labels: Invalid value: \"-\"",
        ),
    ] {
        let mut body = gadget("v1", name, json!({}));
        body["metadata"]["labels"] = json!({ "a": "b" });
        world.ask(&format!("POST {}", at("v1")), body).await;
        let line = world.get(&format!("{}/{name}", at("v2"))).await.line();
        assert!(line.contains(part), "{line}");
    }
    // Whatever is asked for in that version, and nothing comes of it.
    let path = format!("{}/says", at("v2"));
    let before = world.get(&format!("{}/says", at("v1"))).await.body;
    let body = |version: &str| gadget(version, "says", json!({}));
    let annotate = json!({ "metadata": { "annotations": { "a": "b" } } });
    let scale = json!({ "apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": { "name": "says" }, "spec": { "replicas": 4 } });
    let mut told = Vec::new();
    for answer in [
        world.get(&path).await,
        world.get(&at("v2")).await,
        world.ask(&format!("PUT {path}"), body("v2")).await,
        world.patch(&path, "merge-patch", annotate.clone()).await,
        applied(&world, "v2", "m", body("v2"), false).await,
        world.ask(&format!("DELETE {path}"), Value::Null).await,
        world
            .ask(&format!("DELETE {}", at("v2")), Value::Null)
            .await,
        world.get(&format!("{path}/status")).await,
        world.ask(&format!("PUT {path}/status"), body("v2")).await,
        world
            .patch(&format!("{path}/status"), "merge-patch", annotate.clone())
            .await,
        world.get(&format!("{path}/scale")).await,
        world.ask(&format!("PUT {path}/scale"), scale).await,
        world
            .patch(&format!("{path}/scale"), "merge-patch", annotate)
            .await,
    ] {
        told.push(answer.status);
        let line = answer.line();
        assert!(
            line.contains("conversion webhook for example.com/v1, Kind=Gadget "),
            "{line}"
        );
    }
    assert_eq!(told, [500; 13]);
    assert_eq!(world.get(&format!("{}/says", at("v1"))).await.body, before);
    // Nor is there a new one.
    let path = format!("POST {}", at("v2"));
    let refused = world.ask(&path, gadget("v2", "empty", json!({}))).await;
    assert_eq!(refused.status, 409);
    world
        .ask(&format!("DELETE {}/empty", at("v1")), Value::Null)
        .await;
    let refused = world.ask(&path, gadget("v2", "empty", json!({}))).await;
    assert_eq!(
        refused.line(),
        "500 : conversion webhook for example.com/v2, Kind=Gadget returned 0 objects, expected 1"
    );
    assert_eq!(world.get(&format!("{}/empty", at("v1"))).await.status, 404);
    // A watch that comes to one ends with the reason.
    let mut watched = world
        .watch(&format!(
            "{}?watch=true&fieldSelector=metadata.name=says",
            at("v2")
        ))
        .await;
    let event = watched.next().await.unwrap();
    assert_eq!(
        (&event["type"], &event["object"]["message"]),
        (
            &json!("ERROR"),
            &json!("conversion webhook for example.com/v1, Kind=Gadget failed: not today")
        )
    );
    // In the version that is stored, nobody is asked.
    questions(&hook);
    assert_eq!(world.get(&at("v1")).await.status, 200);
    assert_eq!(questions(&hook), [""; 0]);
}

#[tokio::test]
async fn a_webhook_of_before_is_understood() {
    let hook = Hook::start(&["127.0.0.1"], |review| {
        // It tells neither kind nor uid.
        let Reply::Says(response) = answer(review, |_| {}) else {
            unreachable!()
        };
        let body = json!({ "response": response });
        Reply::Raw(200, body.to_string().into_bytes())
    })
    .await;
    let world = serving().await;
    let definition = gadgets(&hook.client_config(), &json!(["v9", "v1beta1", "v1"]));
    establish(&world, definition).await;
    made(&world, "v1", "a", json!({ "size": 1 })).await;
    let seen = world.get(&format!("{}/a", at("v2"))).await;
    assert_eq!(seen.body["spec"]["shape"]["size"], 1, "{}", seen.line());
    let asked = hook.asked.lock().first().cloned().unwrap();
    assert_eq!(asked["apiVersion"], "apiextensions.k8s.io/v1beta1");
}

#[tokio::test]
async fn who_owns_a_field_owns_it_in_every_version() {
    let (world, _hook) = with_gadgets(|review| answer(review, |_| {})).await;
    let old = gadget("v1", "a", json!({ "size": 1, "note": "x" }));
    let made = applied(&world, "v1", "old", old, false).await;
    assert_eq!(made.status, 201, "{}", made.line());
    // What another version calls otherwise is the same.
    let new = gadget("v2", "a", json!({ "shape": { "size": 2 } }));
    let refused = applied(&world, "v2", "new", new.clone(), false).await;
    assert_eq!(
        refused.line(),
        "409 Conflict: Apply failed with 1 conflict: conflict with \"old\": .spec.size"
    );
    let same = gadget("v2", "a", json!({ "shape": { "size": 1 } }));
    let shared = applied(&world, "v2", "new", same, false).await;
    assert_eq!(shared.status, 200, "{}", shared.line());
    let forced = applied(&world, "v2", "new", new, true).await;
    assert_eq!(forced.status, 200, "{}", forced.line());
    let owners = |object: &Value| {
        let entries = object["metadata"]["managedFields"].as_array().unwrap();
        let shown = entries.iter().map(|entry| {
            json!([
                entry["manager"],
                entry["apiVersion"],
                entry["fieldsV1"]["f:spec"]
            ])
        });
        Value::from(shown.collect::<Vec<_>>())
    };
    let object = world.get(&format!("{}/a", at("v1"))).await.body;
    assert_eq!(object["spec"]["size"], 2);
    assert_eq!(
        owners(&object),
        json!([
            ["new", "example.com/v2", { "f:shape": { "f:size": {} } }],
            ["old", "example.com/v1", { "f:note": {} }],
        ])
    );
    // What an update in one version changes, who applied it in another loses.
    let body = json!({ "spec": { "size": 3 } });
    let path = format!("{}/a?fieldManager=hand", at("v1"));
    world.patch(&path, "merge-patch", body).await;
    let object = world.get(&format!("{}/a", at("v2"))).await.body;
    assert_eq!(
        owners(&object),
        json!([
            ["old", "example.com/v1", { "f:note": {} }],
            ["hand", "example.com/v1", { "f:size": {} }],
        ])
    );
    // What is applied no more goes, whatever version it is applied in.
    let none = gadget("v1", "a", json!({}));
    let left = applied(&world, "v1", "old", none, false).await;
    assert_eq!(left.body["spec"].get("note"), None, "{}", left.line());
    assert_eq!(left.body["spec"]["size"], 3);
}
