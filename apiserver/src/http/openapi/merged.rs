//! OpenAPI version 2 of all that is served: this server's document with those of others.
//!
//! Paths that are there stay as they are. A definition that means something else than one of the same name gets a name of its own, `NAME_v2` and so on,
//! wherever its document refers to it.
//!
//! Source: k8s.io/kube-openapi `pkg/aggregator`.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value};

use crate::aggregation::V2;

const REFERENCE: &str = "#/definitions/";

/// The document of this server with what others tell.
pub(super) fn document(own: &str, others: &[Arc<V2>]) -> Result<String, serde_json::Error> {
    let mut document: Value = serde_json::from_str(own)?;
    for other in others {
        merge(&mut document, other);
    }
    serde_json::to_string(&document)
}

fn merge(document: &mut Value, other: &V2) {
    let mut renamed: BTreeMap<&str, String> = BTreeMap::new();
    if let Some(known) = document.get("definitions").and_then(Value::as_object) {
        for (name, definition) in &other.definitions {
            // The same thing under the same name: most of what they have is Kubernetes' own.
            if known.get(name).is_some_and(|known| known != definition) {
                renamed.insert(name, free_name(known, other, name));
            }
        }
    }
    let moved = |value: &Value| {
        let mut value = value.clone();
        refer(&mut value, &renamed);
        value
    };
    if let Some(known) = members(document, "definitions") {
        for (name, definition) in &other.definitions {
            let name = renamed.get(name.as_str()).unwrap_or(name).clone();
            known.entry(name).or_insert_with(|| moved(definition));
        }
    }
    if let Some(known) = members(document, "paths") {
        for (path, operations) in &other.paths {
            known
                .entry(path.clone())
                .or_insert_with(|| moved(operations));
        }
    }
}

fn members<'v>(document: &'v mut Value, name: &str) -> Option<&'v mut Map<String, Value>> {
    document.get_mut(name)?.as_object_mut()
}

fn free_name(known: &Map<String, Value>, other: &V2, name: &str) -> String {
    let mut number = 2_u32;
    loop {
        let free = format!("{name}_v{number}");
        if !known.contains_key(&free) && !other.definitions.contains_key(&free) {
            return free;
        }
        number += 1;
    }
}

/// Has references lead to where definitions are now.
fn refer(value: &mut Value, renamed: &BTreeMap<&str, String>) {
    match value {
        Value::Object(members) => {
            for (key, value) in members {
                let to = value.as_str().filter(|_| key == "$ref");
                let to = to.and_then(|to| renamed.get(to.strip_prefix(REFERENCE)?));
                match to {
                    Some(to) => *value = format!("{REFERENCE}{to}").into(),
                    None => refer(value, renamed),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| refer(item, renamed)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_means_something_else_gets_a_name_of_its_own() {
        let own = json!({
            "swagger": "2.0", "paths": {"/a": {"own": true}},
            "definitions": {"Meta": {"type": "object"}, "X": {"type": "string"}, "X_v2": {}},
        });
        let other = V2::of(
            json!({
                "/a": {"own": false},
                "/apis/g/v1/xs": {"get": {"schema": {"$ref": "#/definitions/X"}}},
            }),
            json!({
                "Meta": {"type": "object"},
                "X": {"properties": {"meta": {"$ref": "#/definitions/Meta"}, "self": {"$ref": "#/definitions/X"}}},
            }),
        );
        let merged = document(&own.to_string(), &[Arc::new(other)]).unwrap();
        let merged: Value = serde_json::from_str(&merged).unwrap();
        assert_eq!(
            merged,
            json!({
                "swagger": "2.0",
                "paths": {
                    "/a": {"own": true},
                    "/apis/g/v1/xs": {"get": {"schema": {"$ref": "#/definitions/X_v3"}}},
                },
                "definitions": {
                    "Meta": {"type": "object"}, "X": {"type": "string"}, "X_v2": {},
                    "X_v3": {"properties": {"meta": {"$ref": "#/definitions/Meta"}, "self": {"$ref": "#/definitions/X_v3"}}},
                },
            })
        );
    }
}
