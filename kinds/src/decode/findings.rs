//! What a value breaks of its structural schema, as far as no expression is needed to say so.
//!
//! What an update leaves as it was is not held against it: neither a value that is equal to the one whose place it takes, nor what is in it; elements
//! take the place of those with the same keys. Of lists that hold something twice, all are forgiven to an object that had one before.
//!
//! Invariants: a bounded number of faults is told, in the order of the fields.
//! Source: k8s.io/apiextensions-apiserver (`validation`, `objectmeta`, `listtype`), with the sentences of k8s.io/kube-openapi's validator.
//! Left to others: metadata, which is Kubernetes' own type in every kind; rules that need an expression (`crate::cel::rules`).

use std::fmt::Write as _;

use serde_json::{Map, Value};
use weft_api::status::Cause;

use super::strfmt;
use crate::cel::correlation::{Keyed, Old};
use crate::schema::{Node, Schema, Shape};

/// Faults that are told of one object.
const FINDINGS_MAX: usize = 100;
const META: [&str; 3] = ["apiVersion", "kind", "metadata"];

/// Every constraint of the schema that an object breaks, as an update of `old` or as a new one.
pub(super) fn validate<'a>(
    schema: Schema<'a>,
    value: &'a Value,
    old: Option<&'a Value>,
) -> Vec<Cause> {
    let mut findings = Findings::default();
    let before = Old::of(schema, value, old, true);
    if let Value::Object(map) = value {
        // Metadata is judged as in every kind.
        for (key, value) in map.iter().filter(|(key, _)| !META.contains(&key.as_str())) {
            if let Some(field) = schema.field(key) {
                findings.path = key.clone();
                findings.check(field, value, before.key(key, field, value));
            }
        }
        findings.path.clear();
        findings.required(schema.target(), map);
        // What is judged of the object as a whole.
        findings.constraints(schema.target(), value);
        findings.resources(schema, value, true);
        let twice = |value: &Value| {
            let mut findings = Findings::default();
            findings.lists(schema, value);
            findings.causes
        };
        let found = twice(value);
        if !found.is_empty() && old.is_none_or(|old| twice(old).is_empty()) {
            for cause in found {
                findings.add(cause);
            }
        }
    }
    findings.causes
}

/// As [`validate`], of a part of an object, which is told of below `path`.
pub(crate) fn validate_part(schema: Schema<'_>, value: &Value, path: &str) -> Vec<Cause> {
    let mut findings = Findings {
        path: path.to_owned(),
        causes: Vec::new(),
    };
    findings.check(schema, value, Old::default());
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

    /// What is found at a place, unless it is there as it was before.
    fn check<'a>(&mut self, schema: Schema<'a>, value: &'a Value, old: Old<'a>) {
        let before = self.causes.len();
        self.look(schema, value, old);
        if self.causes.len() > before && old.is_same() {
            self.causes.truncate(before);
        }
    }

    fn look<'a>(&mut self, schema: Schema<'a>, value: &'a Value, old: Old<'a>) {
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
                        self.check(field, value, old.key(key, field, value));
                        self.path.truncate(length);
                    }
                }
            }
            Value::Array(items) => {
                let Some(item) = schema.items() else { return };
                let known = Keyed::of(schema, old.value());
                for (index, value) in items.iter().enumerate() {
                    // Writing to a String cannot fail.
                    let _ = write!(self.path, "[{index}]");
                    let old = old.element(item, value, known.find(value));
                    self.check(item, value, old);
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
            findings.check(Schema::at(node), value, Old::default());
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
        let name = value.pointer("/metadata/name").and_then(Value::as_str);
        if let Some(name) = name
            && let Err(told) = weft_api::name::path_segment(name)
        {
            let field = format!("{}.metadata.name", self.path);
            self.add(Cause::invalid(&field, &name.into(), &told));
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
    fn each_constraint_is_told_in_its_sentence() {
        let node = node();
        let told = |spec: Value| -> Vec<String> {
            let value = json!({ "metadata": {}, "spec": spec });
            validate(Schema::at(&node), &value, None)
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
        let empty = json!({ "spec": {} });
        let causes = validate(Schema::at(&node), &empty, None);
        assert!(
            unchecked(&causes)
                .unwrap()
                .message
                .starts_with("Invalid value: null: some validation rules")
        );
        let unfit = json!({ "spec": { "class": "" } });
        let causes = validate(Schema::at(&node), &unfit, None);
        assert_eq!(unchecked(&causes), None);
    }

    #[test]
    fn what_stays_as_it_was_is_not_held_against_an_update() {
        let node = Node::parse(&json!({
            "type": "object", "required": ["top"],
            "properties": { "spec": { "type": "object", "required": ["must"], "minProperties": 2, "properties": {
                "size": { "type": "integer", "maximum": 5 },
                "mode": { "type": "string", "enum": ["A"] },
                "other": { "type": "string", "minLength": 2 },
                "map": { "type": "object", "additionalProperties": { "type": "string", "maxLength": 1 } },
                "list": { "type": "array", "maxItems": 1, "items": { "type": "string", "maxLength": 1 } },
                "keyed": { "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"], "items": {
                    "type": "object", "properties": { "k": { "type": "string" }, "v": { "type": "integer", "maximum": 5 } },
                } },
                "set": { "type": "array", "x-kubernetes-list-type": "set", "items": { "type": "string" } },
                "any": { "type": "object", "properties": { "a": { "type": "integer" }, "b": { "type": "string" } }, "not": { "properties": { "a": { "minimum": 5 } } } },
            } } },
        }))
        .unwrap();
        let told = |old: Value, new: Value| -> Vec<String> {
            let object = |spec: Value| json!({ "top": 1, "spec": spec });
            let (old, new) = (object(old), object(new));
            let causes = validate(Schema::at(&node), &new, Some(&old));
            causes.into_iter().map(|cause| cause.field).collect()
        };
        let at = |field: &str, value: Value| {
            let mut spec = json!({ "must": 1, "other": "ok" });
            spec[field] = value;
            spec
        };
        for (field, old, new, expected) in [
            ("size", json!(9), json!(9), &[][..]),
            ("size", json!(9), json!(8), &["spec.size"]),
            ("mode", json!("B"), json!("B"), &[]),
            (
                "map",
                json!({ "a": "xx" }),
                json!({ "a": "xx", "b": "y" }),
                &[],
            ),
            (
                "map",
                json!({ "a": "xx" }),
                json!({ "a": "xx", "b": "yy" }),
                &["spec.map.b"],
            ),
            // Elements of other lists are not known again, and the list is another one.
            ("list", json!(["xx"]), json!(["xx"]), &[]),
            (
                "list",
                json!(["xx"]),
                json!(["xx", "y"]),
                &["spec.list", "spec.list[0]"],
            ),
            (
                "keyed",
                json!([{ "k": "a", "v": 9 }]),
                json!([{ "k": "b", "v": 1 }, { "k": "a", "v": 9 }]),
                &[],
            ),
            (
                "keyed",
                json!([{ "k": "a", "v": 9 }]),
                json!([{ "k": "b", "v": 9 }, { "k": "a", "v": 8 }]),
                &["spec.keyed[0].v", "spec.keyed[1].v"],
            ),
            ("set", json!(["a"]), json!(["a", "a"]), &["spec.set[1]"]),
            ("set", json!(["a", "a"]), json!(["a", "a", "b", "b"]), &[]),
            ("any", json!({ "a": 9 }), json!({ "a": 9 }), &[]),
            (
                "any",
                json!({ "a": 9 }),
                json!({ "a": 9, "b": "x" }),
                &["<nil>"],
            ),
        ] {
            let mut new = at(field, new);
            // Something else changes in any case.
            new["other"] = "changed".into();
            assert_eq!(told(at(field, old), new.clone()), expected, "{new}");
        }
        // What is not there, and how much is, is said of what it is in.
        assert_eq!(told(json!({ "size": 1 }), json!({ "size": 1 })), [""; 0]);
        assert_eq!(
            told(json!({ "size": 1 }), json!({ "size": 2 })),
            ["spec", "spec.must"]
        );
        // An object as a whole is never as it was.
        let old = json!({ "spec": { "must": 1, "size": 1 } });
        assert_eq!(validate(Schema::at(&node), &old, Some(&old)).len(), 1);
    }
}
