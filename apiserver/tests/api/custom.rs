//! Objects of users' kinds, situation by situation.

mod schemas;
mod serving;

use std::time::Duration;

use http::header;
use serde_json::{Value, json};

use crate::definitions::{DEFINITIONS, establish, serving as following};
use crate::world::{Answer, World};

/// A kind `Foo` of the cluster in one version, with this schema and whatever else its version says.
fn foos(schema: Value, more: Value) -> Value {
    let mut version = json!({ "name": "v1", "served": true, "storage": true, "schema": { "openAPIV3Schema": schema } });
    for (key, value) in more.as_object().into_iter().flatten() {
        version[key] = value.clone();
    }
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": { "name": "foos.tests.example.com" },
        "spec": {
            "group": "tests.example.com", "scope": "Cluster",
            "names": { "plural": "foos", "singular": "foo", "kind": "Foo", "listKind": "FooList" },
            "versions": [version],
        },
    })
}

const FOOS: &str = "/apis/tests.example.com/v1/foos";

fn foo(name: &str, more: Value) -> Value {
    let mut object = json!({ "apiVersion": "tests.example.com/v1", "kind": "Foo", "metadata": { "name": name } });
    for (key, value) in more.as_object().into_iter().flatten() {
        object[key] = value.clone();
    }
    object
}

fn anything() -> Value {
    json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true })
}

/// A world with Foos.
async fn with_foos(schema: Value, more: Value) -> World {
    let world = following().await;
    establish(&world, foos(schema, more)).await;
    world
}

async fn create(world: &World, body: Value) -> Answer {
    world.ask(&format!("POST {FOOS}"), body).await
}

async fn made(world: &World, body: Value) -> Value {
    let made = create(world, body).await;
    assert_eq!(made.status, 201, "{}", made.line());
    made.body
}

async fn merge(world: &World, path: &str, body: Value) -> Answer {
    world.patch(path, "merge-patch", body).await
}

async fn apply(world: &World, path: &str, query: &str, body: &Value) -> Answer {
    let kind = [(header::CONTENT_TYPE, "application/apply-patch+yaml")];
    let line = format!("PATCH {path}?fieldManager=m{query}");
    world
        .send(world.request(&line, &kind, &body.to_string()))
        .await
}

/// Asks until an answer is as wanted: what follows a definition does so in a moment.
async fn until(world: &World, path: &str, wanted: impl Fn(&Answer) -> bool) -> Answer {
    for _ in 0..400 {
        let answer = world.get(path).await;
        if wanted(&answer) {
            return answer;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never: {}", world.get(path).await.body);
}

/// Changes the definition, and waits until the server goes by it.
async fn redefine(world: &World, patch: Value) {
    let path = format!("{DEFINITIONS}/foos.tests.example.com");
    let changed = world.patch(&path, "json-patch", patch).await;
    assert_eq!(changed.status, 200, "{}", changed.line());
    tokio::time::sleep(Duration::from_millis(200)).await;
}

fn condition<'a>(definition: &'a Value, name: &str) -> Option<&'a Value> {
    let conditions = definition["status"]["conditions"].as_array();
    let mut conditions = conditions.into_iter().flatten();
    conditions.find(|condition| condition["type"] == name)
}

async fn definition_when(world: &World, name: &str, is: impl Fn(&Value) -> bool) -> Value {
    let path = format!("{DEFINITIONS}/{name}");
    until(world, &path, |answer| is(&answer.body)).await.body
}
