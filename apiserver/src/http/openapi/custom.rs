//! Schemas of users' kinds as clients are told them: what the definition says, and what every object has.
//!
//! Version 2 of OpenAPI has less to say: what it cannot is left out, so that clients of before take what servers take.
//!
//! Source: k8s.io/apiextensions-apiserver `pkg/controller/openapi`.

use std::sync::LazyLock;

use serde_json::{Map, Value, json};
use weft_kinds::apiextensions::Custom;
use weft_kinds::{Kind, schema};

use super::V3_REFERENCE;

pub(super) const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
pub(super) const LIST_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta";

/// Kinds of Kubernetes' whose schemas say, in its words, what `apiVersion`, `kind` and `metadata` of every object and every list are.
const AN_OBJECT: &str = "io.k8s.api.core.v1.ConfigMap";
const A_LIST: &str = "io.k8s.api.core.v1.ConfigMapList";

static OBJECT: LazyLock<Map<String, Value>> = LazyLock::new(|| properties_of(AN_OBJECT));
static LIST: LazyLock<Map<String, Value>> = LazyLock::new(|| properties_of(A_LIST));

/// `apiVersion`, `kind` and `metadata` of a kind.
fn properties_of(name: &str) -> Map<String, Value> {
    let text = schema::text(name).unwrap_or_default();
    let schema: Value = serde_json::from_str(text).unwrap_or_default();
    let properties = schema["properties"]
        .as_object()
        .cloned()
        .unwrap_or_default();
    let has = |name: &String| matches!(name.as_str(), "apiVersion" | "kind" | "metadata");
    properties
        .into_iter()
        .filter(|(name, _)| has(name))
        .collect()
}

/// Where Kubernetes' descriptions end.
const MORE: &str = "More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md";

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

fn marked(schema: Value, kind: &Kind) -> Value {
    marked_as(schema, kind, &kind.kind)
}

fn marked_as(mut schema: Value, kind: &Kind, name: &str) -> Value {
    schema["x-kubernetes-group-version-kind"] =
        json!([{ "group": kind.group, "version": kind.version, "kind": name }]);
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
    let (list, plural) = (kind.list_kind(), &kind.resource);
    let mut properties = LIST.clone();
    properties.insert(
        "items".to_owned(),
        json!({ "type": "array", "items": reference(item), "description": format!("List of {plural}. {MORE}") }),
    );
    let schema = json!({
        "type": "object", "required": ["items"], "properties": properties,
        "description": format!("{list} is a list of {}", kind.kind),
    });
    marked_as(schema, kind, &list)
}

fn reference(name: &str) -> Value {
    json!({ "allOf": [{ "$ref": format!("{V3_REFERENCE}{name}") }] })
}

/// Says what every object has, here and in those inside.
fn complete(schema: &mut Value, root: bool) {
    let embedded = schema[EMBEDDED] == true;
    if root || embedded {
        if !schema["properties"].is_object() {
            schema["properties"] = json!({});
        }
        if let Some(properties) = schema["properties"].as_object_mut() {
            properties.extend(OBJECT.clone());
        }
    }
    if embedded && !root {
        let properties = &mut schema["properties"];
        properties["apiVersion"]["description"] = format!(
            "apiVersion defines the versioned schema of this representation of an object. {MORE}#resources"
        )
        .into();
        properties["kind"]["description"] = format!(
            "kind is a string value representing the type of this object. In CamelCase. {MORE}#types-kinds"
        )
        .into();
        let mut required = schema["required"].as_array().cloned().unwrap_or_default();
        for name in ["kind", "apiVersion"] {
            if !required.iter().any(|required| required == name) {
                required.push(name.into());
            }
        }
        schema["required"] = required.into();
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
