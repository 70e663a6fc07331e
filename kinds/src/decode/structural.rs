//! Kinds with a structural schema, as the Gateway API's: pruned and defaulted by the schema alone.
//!
//! `prune`, then `default`: each a walk along the schema. Values stay as they were sent: a quantity is a string, and a null that the schema
//! does not allow goes, unless a default takes its place.
//!
//! Source: k8s.io/apiextensions-apiserver (`pruning`, `defaulting`).
//! Left to others: metadata, which is Kubernetes' own type in every kind; what a value may be (`super::findings`).

use std::fmt::Write as _;

use serde_json::Value;

use super::{DecodeError, typed};
use crate::schema::Schema;

/// Unknown fields that are told of one object.
const TOLD_MAX: usize = 100;
/// Unknown fields that are looked at before they are put in order.
const UNKNOWN_MAX: usize = 10_000;
const META: [&str; 3] = ["apiVersion", "kind", "metadata"];

/// Drops what the schema does not name and nulls that it neither allows nor defaults; returns the paths of the unknown, in order.
///
/// # Errors
/// When the metadata of an object inside is none.
pub(super) fn prune(schema: Schema<'_>, value: &mut Value) -> Result<Vec<String>, DecodeError> {
    let mut pruner = Pruner::default();
    pruner.prune(Some(schema), true, value);
    drop_nulls(schema, value);
    pruner.unknown.sort();
    pruner.unknown.truncate(TOLD_MAX);
    match pruner.fault {
        Some(fault) => Err(fault),
        None => Ok(pruner.unknown),
    }
}

/// Writes numbers without a fraction without one, as Go does: `1.0` and `1e0` are `1`.
pub(super) fn shorten_numbers(value: &mut Value) {
    /// 2 to the power of 63, which is no number of 64 bits any more.
    const BEYOND: f64 = 9_223_372_036_854_775_808.0;
    match value {
        Value::Number(number) if number.is_f64() => {
            let whole = number.as_f64().filter(|number| number.fract() == 0.0);
            if let Some(whole) = whole.filter(|whole| whole.abs() < BEYOND) {
                #[allow(clippy::cast_possible_truncation)] // It is whole, and within that.
                let whole = whole as i64;
                *value = whole.into();
            }
        }
        Value::Array(items) => items.iter_mut().for_each(shorten_numbers),
        Value::Object(map) => map.values_mut().for_each(shorten_numbers),
        _ => {}
    }
}

/// Whether a value has nothing that the schema does not name.
pub(crate) fn is_pruned(schema: Schema<'_>, value: &Value) -> bool {
    let mut pruner = Pruner::default();
    pruner.prune(
        Some(schema),
        schema.target().embedded_resource,
        &mut value.clone(),
    );
    pruner.unknown.is_empty()
}

#[derive(Default)]
struct Pruner {
    path: String,
    unknown: Vec<String>,
    fault: Option<DecodeError>,
}

impl Pruner {
    /// `resource`: the value is an object of its own, with a type and a name.
    fn prune(&mut self, schema: Option<Schema<'_>>, resource: bool, value: &mut Value) {
        // What is kept whatever it is called, may have members that are known all the same, and those are pruned.
        let keeps = schema.is_some_and(|schema| schema.preserves_unknown());
        let length = self.path.len();
        match value {
            Value::Object(map) => map.retain(|key, value| {
                if length > 0 {
                    self.path.push('.');
                }
                self.path.push_str(key);
                let kept = self.member(schema, resource, keeps, key, value);
                self.path.truncate(length);
                kept
            }),
            Value::Array(items) => {
                let item = schema.and_then(|schema| schema.items());
                if keeps && item.is_none() {
                    return;
                }
                for (index, value) in items.iter_mut().enumerate() {
                    // Writing to a String cannot fail.
                    let _ = write!(self.path, "[{index}]");
                    let resource = item.is_some_and(|item| item.target().embedded_resource);
                    self.prune(item, resource, value);
                    self.path.truncate(length);
                }
            }
            _ => {}
        }
    }

    fn member(
        &mut self,
        schema: Option<Schema<'_>>,
        resource: bool,
        keeps: bool,
        key: &str,
        value: &mut Value,
    ) -> bool {
        if resource && META.contains(&key) {
            if self.path != key && key == "metadata" {
                self.metadata(value);
            }
            return true;
        }
        if let Some(field) = schema.and_then(|schema| schema.field(key)) {
            self.prune(Some(field), field.target().embedded_resource, value);
            return true;
        }
        if !keeps && self.unknown.len() < UNKNOWN_MAX {
            self.unknown.push(self.path.clone());
        }
        keeps
    }

    /// Metadata is Kubernetes' own type in every object, inside of others too.
    fn metadata(&mut self, value: &mut Value) {
        let Some(meta) = Schema::named(super::OBJECT_META).filter(|_| !value.is_null()) else {
            return;
        };
        match typed::read_below(meta, &self.path, &*value) {
            Ok(decoded) => {
                *value = decoded.value;
                let faults = decoded.faults.iter();
                let paths = faults.filter_map(|fault| fault.strip_prefix("unknown field \""));
                self.unknown
                    .extend(paths.map(|path| path.trim_end_matches('"').to_owned()));
            }
            Err(fault) => {
                self.fault.get_or_insert(fault);
            }
        }
    }
}

fn drop_nulls(schema: Schema<'_>, value: &mut Value) {
    match value {
        Value::Object(map) => map.retain(|key, value| match schema.field(key) {
            Some(field) if value.is_null() => field.target().nullable || field.default().is_some(),
            Some(field) => {
                drop_nulls(field, value);
                true
            }
            None => true,
        }),
        Value::Array(items) => {
            if let Some(item) = schema.items() {
                items.iter_mut().for_each(|value| drop_nulls(item, value));
            }
        }
        _ => {}
    }
}

/// Whether a value has a null that the schema neither allows nor replaces by a default.
pub(super) fn has_unfit_null(schema: Schema<'_>, value: &Value) -> bool {
    match value {
        Value::Object(map) => map.iter().any(|(key, value)| match schema.field(key) {
            Some(field) if value.is_null() => !field.target().nullable && field.default().is_none(),
            Some(field) => has_unfit_null(field, value),
            None => false,
        }),
        Value::Array(items) => schema.items().is_some_and(|item| {
            let mut items = items.iter();
            items.any(|value| has_unfit_null(item, value))
        }),
        _ => false,
    }
}

/// Fills in the defaults of the schema.
pub(crate) fn default(schema: Schema<'_>, value: &mut Value) {
    let fills = |value: Option<&Value>, schema: Schema<'_>| match value {
        None => true,
        Some(Value::Null) => !schema.target().nullable,
        Some(_) => false,
    };
    match value {
        Value::Object(map) => {
            for (name, field) in schema.properties() {
                if let Some(default) = field.default().filter(|_| fills(map.get(name), field)) {
                    map.insert(name.to_owned(), default.clone());
                }
            }
            for (key, value) in map {
                if let Some(field) = schema.field(key) {
                    self::default(field, value);
                }
            }
        }
        Value::Array(items) => {
            let Some(item) = schema.items() else { return };
            for value in items {
                if let Some(default) = item.default().filter(|_| fills(Some(value), item)) {
                    *value = default.clone();
                }
                self::default(item, value);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::schema::Node;

    fn node() -> Node {
        Node::parse(&json!({
            "type": "object", "required": ["spec"],
            "properties": {
                "spec": {
                    "type": "object", "required": ["class"],
                    "properties": {
                        "class": { "type": "string", "minLength": 1, "maxLength": 5, "pattern": "^[a-z]*$" },
                        "size": { "type": "integer", "minimum": 1, "maximum": 9, "default": 3 },
                        "mode": { "type": "string", "enum": ["A", "B"] },
                        "note": { "type": "string", "nullable": true },
                        "any": { "type": "object", "x-kubernetes-preserve-unknown-fields": true },
                        "list": {
                            "type": "array", "minItems": 1, "maxItems": 3, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name", "port"],
                            "items": { "type": "object", "required": ["name"], "properties": {
                                "name": { "type": "string" }, "port": { "type": "integer", "default": 80 },
                            } },
                        },
                    },
                },
            },
        }))
        .unwrap()
    }

    #[test]
    fn pruned_and_defaulted() {
        let node = node();
        let mut value = json!({
            "apiVersion": "x/v1", "kind": "X", "metadata": { "name": "a" }, "extra": 1,
            "spec": { "class": "a", "size": null, "mode": null, "note": null, "any": { "x": { "y": null } }, "list": [{ "name": "a", "zz": 1 }], "b": {} },
        });
        assert_eq!(
            prune(Schema::at(&node), &mut value).unwrap(),
            ["extra", "spec.b", "spec.list[0].zz"]
        );
        default(Schema::at(&node), &mut value);
        assert_eq!(
            value,
            json!({
                "apiVersion": "x/v1", "kind": "X", "metadata": { "name": "a" },
                "spec": { "class": "a", "size": 3, "note": null, "any": { "x": { "y": null } }, "list": [{ "name": "a", "port": 80 }] },
            })
        );
        assert!(!has_unfit_null(Schema::at(&node), &value));
        value["spec"]["class"] = Value::Null;
        assert!(has_unfit_null(Schema::at(&node), &value));
    }
}
