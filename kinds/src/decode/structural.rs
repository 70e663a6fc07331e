//! Kinds with a structural schema, as the Gateway API's: pruned, defaulted and validated by the schema alone.
//!
//! `prune`, then `default`, then `validate`: each a walk along the schema. Values stay as they were sent: a quantity is a
//! string, and a null that the schema does not allow goes, unless a default takes its place.
//!
//! Source: k8s.io/apiextensions-apiserver (`pruning`, `defaulting`, `validation`, `listtype`), with the sentences of
//! k8s.io/kube-openapi's validator.
//! Left to others: metadata, which is Kubernetes' own type in every kind; rules that need an expression (`crate::cel::rules`).

use std::fmt::Write as _;

use serde_json::{Map, Value};
use weft_api::status::Cause;

use super::{DecodeError, strfmt, typed};
use crate::schema::{Node, Schema, Shape};

/// Faults that are told of one object.
const FINDINGS_MAX: usize = 100;
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
    pruner.unknown.truncate(FINDINGS_MAX);
    match pruner.fault {
        Some(fault) => Err(fault),
        None => Ok(pruner.unknown),
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

/// Every constraint of the schema that the object breaks, in the order of its fields.
pub(super) fn validate(schema: Schema<'_>, value: &Value) -> Vec<Cause> {
    let mut findings = Findings::default();
    if let Value::Object(map) = value {
        // Metadata is judged as in every kind.
        for (key, value) in map.iter().filter(|(key, _)| !META.contains(&key.as_str())) {
            if let Some(field) = schema.field(key) {
                findings.path = key.clone();
                findings.check(field, value);
            }
        }
        findings.path.clear();
        findings.required(schema.target(), map);
        // What is judged of the object as a whole.
        findings.constraints(schema.target(), value);
        findings.resources(schema, value, true);
        findings.lists(schema, value);
    }
    findings.causes
}

/// As [`validate`], of a part of an object, which is told of below `path`.
pub(crate) fn validate_part(schema: Schema<'_>, value: &Value, path: &str) -> Vec<Cause> {
    let mut findings = Findings {
        path: path.to_owned(),
        causes: Vec::new(),
    };
    findings.check(schema, value);
    findings.resources(schema, value, false);
    findings.causes
}

/// What is told beside causes that keep rules with expressions from being judged; `None` where none does.
pub(super) fn unchecked(causes: &[Cause]) -> Option<Cause> {
    let blocking = |cause: &Cause| {
        matches!(
            cause.reason.as_str(),
            "FieldValueNotSupported"
                | "FieldValueRequired"
                | "FieldValueTooLong"
                | "FieldValueTooMany"
                | "FieldValueTypeInvalid"
        )
    };
    causes.iter().any(blocking).then(|| {
        Cause::invalid(
            "<nil>",
            &Value::Null,
            "some validation rules were not checked because the object was invalid; correct the existing errors to complete validation",
        )
    })
}

#[derive(Default)]
struct Findings {
    path: String,
    causes: Vec<Cause>,
}

impl Findings {
    fn add(&mut self, cause: Cause) {
        if self.causes.len() < FINDINGS_MAX {
            self.causes.push(cause);
        }
    }

    fn invalid(&mut self, value: &Value, sentence: &str) {
        let detail = format!("{} in body {sentence}", self.path);
        self.add(Cause::invalid(&self.path.clone(), value, &detail));
    }

    fn too_many(&mut self, found: usize, max: usize) {
        self.add(Cause {
            reason: "FieldValueTooMany".to_owned(),
            message: format!("Too many: {found}: must have at most {max} items"),
            field: self.path.clone(),
        });
    }

    fn required(&mut self, node: &Node, map: &Map<String, Value>) {
        for name in &node.required {
            if !map.contains_key(name) {
                let field = match self.path.as_str() {
                    "" => name.clone(),
                    path => format!("{path}.{name}"),
                };
                self.add(Cause::required(&field, ""));
            }
        }
    }

    fn check(&mut self, schema: Schema<'_>, value: &Value) {
        let node = schema.target();
        if value.is_null() && node.nullable {
            return;
        }
        if let Some(expected) = mistyped(schema, value) {
            let found = type_name(value);
            let cause = Cause {
                reason: "FieldValueTypeInvalid".to_owned(),
                message: format!(
                    "Invalid value: {found:?}: {} in body must be of type {expected}: {found:?}",
                    self.path
                ),
                field: self.path.clone(),
            };
            self.add(cause);
            self.allowed(node, value);
            return;
        }
        self.constraints(node, value);
        let length = self.path.len();
        match value {
            Value::Object(map) => {
                self.required(node, map);
                for (key, value) in map {
                    if let Some(field) = schema.field(key) {
                        self.path.push('.');
                        self.path.push_str(key);
                        self.check(field, value);
                        self.path.truncate(length);
                    }
                }
            }
            Value::Array(items) => {
                for (index, value) in items.iter().enumerate() {
                    let Some(item) = schema.items() else { break };
                    // Writing to a String cannot fail.
                    let _ = write!(self.path, "[{index}]");
                    self.check(item, value);
                    self.path.truncate(length);
                }
            }
            _ => {}
        }
    }

    fn allowed(&mut self, node: &Node, value: &Value) {
        if node.values.is_empty() || node.values.contains(value) {
            return;
        }
        let allowed: Vec<String> = node
            .values
            .iter()
            .map(|value| {
                value
                    .as_str()
                    .map_or_else(|| value.to_string(), str::to_owned)
            })
            .collect();
        let allowed: Vec<&str> = allowed.iter().map(String::as_str).collect();
        self.add(Cause::not_supported(&self.path.clone(), value, &allowed));
    }

    /// What a node says about the value itself; schemas that are combined say it in parts.
    fn constraints(&mut self, node: &Node, value: &Value) {
        self.allowed(node, value);
        match value {
            Value::String(text) => self.text(node, value, text),
            Value::Number(number) => self.number(node, value, number.as_f64().unwrap_or_default()),
            Value::Array(items) => {
                if let Some(min) = node.min_items.filter(|min| items.len() < *min) {
                    self.invalid(
                        &items.len().into(),
                        &format!("should have at least {min} items"),
                    );
                }
                if let Some(max) = node.max_items.filter(|max| items.len() > *max) {
                    self.too_many(items.len(), max);
                }
            }
            Value::Object(map) => {
                if let Some(min) = node.min_properties.filter(|min| map.len() < *min) {
                    let sentence = format!("should have at least {min} properties");
                    self.invalid(&map.len().into(), &sentence);
                }
                if let Some(max) = node.max_properties.filter(|max| map.len() > *max) {
                    self.too_many(map.len(), max);
                }
            }
            Value::Null | Value::Bool(_) => {}
        }
        self.combined(node, value);
    }

    fn text(&mut self, node: &Node, value: &Value, text: &str) {
        let length = text.chars().count();
        if let Some(max) = node.max_length.filter(|max| length > *max) {
            self.add(Cause::too_long(&self.path.clone(), max));
        } else if let Some(min) = node.min_length.filter(|min| length < *min) {
            self.invalid(value, &format!("should be at least {min} chars long"));
        } else if let Some((pattern, matcher)) = node.pattern()
            && !matcher.is_match(text)
        {
            self.invalid(value, &format!("should match '{pattern}'"));
        }
        if let Some(format) = Schema::at(node).format()
            && strfmt::is(format, text) == Some(false)
        {
            let cause = Cause {
                reason: "FieldValueTypeInvalid".to_owned(),
                message: format!(
                    "Invalid value: {value}: {} in body must be of type {format}: {value}",
                    self.path
                ),
                field: self.path.clone(),
            };
            self.add(cause);
        }
    }

    fn number(&mut self, node: &Node, value: &Value, number: f64) {
        if let Some(of) = node.multiple_of.filter(|of| *of > 0.0)
            && (number / of).fract() != 0.0
        {
            self.invalid(value, &format!("should be a multiple of {of}"));
        }
        if let Some(max) = node.maximum {
            let (broken, words) = match node.exclusive_maximum {
                true => (number >= max, "less than"),
                false => (number > max, "less than or equal to"),
            };
            if broken {
                self.invalid(value, &format!("should be {words} {max}"));
            }
        }
        if let Some(min) = node.minimum {
            let (broken, words) = match node.exclusive_minimum {
                true => (number <= min, "greater than"),
                false => (number < min, "greater than or equal to"),
            };
            if broken {
                self.invalid(value, &format!("should be {words} {min}"));
            }
        }
    }

    fn combined(&mut self, node: &Node, value: &Value) {
        let matches = |node: &Node| {
            let mut findings = Findings::default();
            findings.check(Schema::at(node), value);
            findings.causes.is_empty()
        };
        let path = self.path.clone();
        let quoted = |sentence: &str| format!("{path:?} {sentence}");
        for node in &node.all_of {
            self.constraints(node, value);
        }
        if !node.any_of.is_empty() && !node.any_of.iter().any(matches) {
            let sentence = quoted("must validate at least one schema (anyOf)");
            self.add(Cause::invalid("<nil>", &"".into(), &sentence));
        }
        let alternatives = node.one_of.iter().filter(|node| matches(node)).count();
        if !node.one_of.is_empty() && alternatives != 1 {
            let found = match alternatives {
                0 => "Found none valid".to_owned(),
                many => format!("Found {many} valid alternatives"),
            };
            let sentence = quoted(&format!(
                "must validate one and only one schema (oneOf). {found}"
            ));
            self.add(Cause::invalid("<nil>", &"".into(), &sentence));
        }
        if node.not.as_deref().is_some_and(matches) {
            let sentence = quoted("must not validate the schema (not)");
            self.add(Cause::invalid("<nil>", &"".into(), &sentence));
        }
    }

    /// Objects inside of others have a type, and sound metadata.
    fn resources(&mut self, schema: Schema<'_>, value: &Value, root: bool) {
        let length = self.path.len();
        match value {
            Value::Object(map) => {
                if schema.target().embedded_resource && !root {
                    self.resource(map, value);
                }
                for (key, value) in map {
                    let Some(field) = schema.field(key) else {
                        continue;
                    };
                    if length > 0 {
                        self.path.push('.');
                    }
                    self.path.push_str(key);
                    self.resources(field, value, false);
                    self.path.truncate(length);
                }
            }
            Value::Array(items) => {
                let Some(item) = schema.items() else { return };
                for (index, value) in items.iter().enumerate() {
                    // Writing to a String cannot fail.
                    let _ = write!(self.path, "[{index}]");
                    self.resources(item, value, false);
                    self.path.truncate(length);
                }
            }
            _ => {}
        }
    }

    fn resource(&mut self, map: &Map<String, Value>, value: &Value) {
        for name in ["apiVersion", "kind"] {
            let field = format!("{}.{name}", self.path);
            match map.get(name) {
                None => self.add(Cause::required(&field, "")),
                Some(Value::String(text)) if text.is_empty() => {
                    self.add(Cause::invalid(&field, &"".into(), "must not be empty"));
                }
                Some(Value::String(text)) if name == "apiVersion" => {
                    if text.matches('/').count() > 1 {
                        let told = format!("unexpected GroupVersion string: {text}");
                        self.add(Cause::invalid(&field, &text.as_str().into(), &told));
                    }
                }
                Some(Value::String(text)) => {
                    let faults = weft_api::name::dns1035_label_faults(&text.to_lowercase());
                    if !faults.is_empty() {
                        let told = format!(
                            "may have mixed case, but should otherwise match: {}",
                            faults.join(",")
                        );
                        self.add(Cause::invalid(&field, &text.as_str().into(), &told));
                    }
                }
                Some(other) => self.add(Cause::invalid(&field, other, "must be a string")),
            }
        }
        if map.contains_key("metadata") {
            for mut cause in crate::validate::metadata_causes(value) {
                cause.field = format!("{}.{}", self.path, cause.field);
                self.add(cause);
            }
        }
    }

    /// Lists that are sets, or maps by keys, hold nothing twice.
    fn lists(&mut self, schema: Schema<'_>, value: &Value) {
        let length = self.path.len();
        match value {
            Value::Object(map) => {
                for (key, value) in map {
                    let Some(field) = schema.field(key) else {
                        continue;
                    };
                    if length == 0 && META.contains(&key.as_str()) {
                        continue;
                    }
                    if length > 0 {
                        self.path.push('.');
                    }
                    self.path.push_str(key);
                    self.lists(field, value);
                    self.path.truncate(length);
                }
            }
            Value::Array(items) => {
                let keys = schema.list_map_keys();
                let item = schema.items();
                let identity = |value: &Value| match schema.list_type() {
                    Some("set") => Some(value.clone()),
                    Some("map") => {
                        let key = |key: &String| {
                            let default = || item?.field(key)?.default();
                            let value = value.get(key).or_else(default)?;
                            Some((key.clone(), value.clone()))
                        };
                        value
                            .is_object()
                            .then(|| keys.iter().filter_map(key).collect())
                    }
                    _ => None,
                };
                let mut seen = std::collections::BTreeSet::new();
                let mut told = std::collections::BTreeSet::new();
                for (index, value) in items.iter().enumerate() {
                    // Writing to a String cannot fail.
                    let _ = write!(self.path, "[{index}]");
                    if schema.list_type() == Some("map") && !value.is_object() && !value.is_null() {
                        let detail = "must be an object for an array of list-type map";
                        self.add(Cause::invalid(&self.path.clone(), value, detail));
                    }
                    if let Some(identity) = identity(value) {
                        let text = identity.to_string();
                        if !seen.insert(text.clone()) && told.insert(text) {
                            self.add(Cause::duplicate(&self.path.clone(), &identity));
                        }
                    }
                    if let Some(item) = item {
                        self.lists(item, value);
                    }
                    self.path.truncate(length);
                }
            }
            _ => {}
        }
    }
}

/// The type that belongs here, if the value has another one.
fn mistyped<'a>(schema: Schema<'a>, value: &Value) -> Option<&'a str> {
    if schema.shape() == Shape::NumberOrString {
        let fits = value.is_string() || value.is_i64() || value.is_u64();
        return (!fits).then_some("integer,string");
    }
    let expected = schema.kind()?;
    let fits = match expected {
        "string" => value.is_string(),
        "integer" => {
            value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|n| n.fract() == 0.0)
        }
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => true,
    };
    (!fits).then_some(expected)
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

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
        assert_eq!(validate(Schema::at(&node), &value), []);
    }

    #[test]
    fn each_constraint_is_told_in_its_sentence() {
        let node = node();
        let told = |spec: Value| -> Vec<String> {
            let value = json!({ "metadata": {}, "spec": spec });
            validate(Schema::at(&node), &value)
                .into_iter()
                .map(|cause| format!("{}: {}", cause.field, cause.message))
                .collect()
        };
        for (spec, expected) in [
            (json!({}), "spec.class: Required value"),
            (
                json!({ "class": "" }),
                "spec.class: Invalid value: \"\": spec.class in body should be at least 1 chars long",
            ),
            (
                json!({ "class": "abcdef" }),
                "spec.class: Too long: may not be more than 5 bytes",
            ),
            (
                json!({ "class": "A" }),
                "spec.class: Invalid value: \"A\": spec.class in body should match '^[a-z]*$'",
            ),
            (
                json!({ "class": 1 }),
                "spec.class: Invalid value: \"integer\": spec.class in body must be of type string: \"integer\"",
            ),
            (
                json!({ "class": null }),
                "spec.class: Invalid value: \"null\": spec.class in body must be of type string: \"null\"",
            ),
            (
                json!({ "class": "a", "size": 0 }),
                "spec.size: Invalid value: 0: spec.size in body should be greater than or equal to 1",
            ),
            (
                json!({ "class": "a", "size": 10 }),
                "spec.size: Invalid value: 10: spec.size in body should be less than or equal to 9",
            ),
            (
                json!({ "class": "a", "mode": "C" }),
                "spec.mode: Unsupported value: \"C\": supported values: \"A\", \"B\"",
            ),
            (
                json!({ "class": "a", "list": [] }),
                "spec.list: Invalid value: 0: spec.list in body should have at least 1 items",
            ),
            (
                json!({ "class": "a", "list": [{}] }),
                "spec.list[0].name: Required value",
            ),
            (
                json!({ "class": "a", "list": [{ "name": "x", "port": 80 }, { "name": "x" }] }),
                "spec.list[1]: Duplicate value: {\"name\":\"x\",\"port\":80}",
            ),
            (
                json!({ "class": "a", "list": [{ "name": "x", "port": 1 }, { "name": "x", "port": 2 }, { "name": "y" }, { "name": "z" }] }),
                "spec.list: Too many: 4: must have at most 3 items",
            ),
        ] {
            assert_eq!(told(spec.clone()), [expected], "{spec}");
        }
        let both = told(json!({ "class": "a", "mode": ["x"], "list": [7] }));
        assert_eq!(
            both,
            [
                "spec.list[0]: Invalid value: \"integer\": spec.list[0] in body must be of type object: \"integer\"",
                "spec.mode: Invalid value: \"array\": spec.mode in body must be of type string: \"array\"",
                "spec.mode: Unsupported value: [\"x\"]: supported values: \"A\", \"B\"",
                "spec.list[0]: Invalid value: 7: must be an object for an array of list-type map",
            ]
        );
        let causes = validate(Schema::at(&node), &json!({ "spec": {} }));
        assert!(
            unchecked(&causes)
                .unwrap()
                .message
                .starts_with("Invalid value: null: some validation rules")
        );
        let causes = validate(Schema::at(&node), &json!({ "spec": { "class": "" } }));
        assert_eq!(unchecked(&causes), None);
    }
}
