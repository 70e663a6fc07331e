//! Schemas of users' kinds as clients are told them: what the definition says, and what every object has.
//!
//! Version 2 of OpenAPI has less to say: what it cannot is left out, so that clients of before take what servers take.
//!
//! Source: k8s.io/apiextensions-apiserver `pkg/controller/openapi`.

use serde_json::{Value, json};
use weft_kinds::Kind;
use weft_kinds::apiextensions::Custom;

use super::V3_REFERENCE;

pub(super) const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
pub(super) const LIST_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta";

const EMBEDDED: &str = "x-kubernetes-embedded-resource";
const PRESERVES: &str = "x-kubernetes-preserve-unknown-fields";

/// The name of a definition: `com.example.v1.Widget`.
pub(super) fn name(kind: &Kind, of: &str) -> String {
    let mut parts: Vec<&str> = kind.group.split('.').collect();
    parts.reverse();
    format!("{}.{}.{of}", parts.join("."), kind.version)
}

pub(super) fn schema_v3(kind: &Kind, custom: &Custom) -> Value {
    let mut schema = read(custom);
    complete(&mut schema, true);
    marked(schema, kind)
}

pub(super) fn schema_v2(kind: &Kind, custom: &Custom) -> Value {
    let mut schema = read(custom);
    if schema[PRESERVES] == true {
        // Whoever is told some fields takes those for all there are.
        return marked(json!({ "type": "object" }), kind);
    }
    reduce(&mut schema);
    complete(&mut schema, true);
    marked(schema, kind)
}

fn read(custom: &Custom) -> Value {
    let schema = serde_json::from_str(custom.schema());
    schema.unwrap_or_else(|_| json!({ "type": "object" }))
}

fn marked(mut schema: Value, kind: &Kind) -> Value {
    schema["x-kubernetes-group-version-kind"] =
        json!([{ "group": kind.group, "version": kind.version, "kind": kind.kind }]);
    let selectable = kind.selectable.iter();
    let selectable: Vec<Value> = selectable
        .map(|selectable| json!({ "fieldPath": selectable.field }))
        .collect();
    if !selectable.is_empty() {
        schema["x-kubernetes-selectable-fields"] = selectable.into();
    }
    schema
}

/// The list of a kind with a definition of that name.
pub(super) fn list_schema(kind: &Kind, item: &str) -> Value {
    json!({
        "type": "object", "required": ["items"],
        "description": format!("A list of {}.", kind.kind),
        "properties": {
            "apiVersion": { "type": "string" },
            "kind": { "type": "string" },
            "items": { "type": "array", "items": reference(item) },
            "metadata": reference(LIST_META),
        },
        "x-kubernetes-group-version-kind": [
            { "group": kind.group, "version": kind.version, "kind": kind.list_kind() },
        ],
    })
}

fn reference(name: &str) -> Value {
    json!({ "allOf": [{ "$ref": format!("{V3_REFERENCE}{name}") }] })
}

/// Says what every object has, here and in those inside.
fn complete(schema: &mut Value, root: bool) {
    if root || schema[EMBEDDED] == true {
        if !schema["properties"].is_object() {
            schema["properties"] = json!({});
        }
        let properties = &mut schema["properties"];
        properties["apiVersion"] = json!({ "type": "string" });
        properties["kind"] = json!({ "type": "string" });
        properties["metadata"] = reference(OBJECT_META);
    }
    for member in ["items", "additionalProperties"] {
        if let Some(child) = schema.get_mut(member).filter(|child| child.is_object()) {
            complete(child, false);
        }
    }
    if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) {
        properties
            .values_mut()
            .for_each(|child| complete(child, false));
    }
}

/// Leaves out what version 2 has no words for.
fn reduce(schema: &mut Value) {
    let Some(map) = schema.as_object_mut() else {
        return;
    };
    for combination in ["allOf", "anyOf", "oneOf", "not"] {
        map.remove(combination);
    }
    let nullable = map.remove("nullable") == Some(true.into());
    let free = map.get(PRESERVES) == Some(&true.into());
    if nullable || free {
        // Null, and what nobody named, are of no type.
        for member in ["type", "items", "properties", "additionalProperties"] {
            map.remove(member);
        }
    }
    map.remove("default");
    for member in ["items", "additionalProperties"] {
        if let Some(child) = map.get_mut(member) {
            reduce(child);
        }
    }
    if let Some(Value::Object(properties)) = map.get_mut("properties") {
        properties.values_mut().for_each(reduce);
    }
}
