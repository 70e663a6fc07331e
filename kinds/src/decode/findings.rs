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

use super::{knows_format, strfmt};
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
        ..Findings::default()
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
    /// How much of the schema was met, as kube-openapi's validator counts it, to tell the alternative that was meant.
    matches: u64,
}

impl Findings {
    fn add(&mut self, cause: Cause) {
        // What several schemas say is told once.
        if self.causes.len() < FINDINGS_MAX && !self.causes.contains(&cause) {
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
            self.matches += 1;
            // One of few values is not nothing, also where that is among them.
            if !node.values.is_empty() {
                self.not_allowed(node, value);
            }
            return;
        }
        if let Some((expected, found)) = mistyped(schema, value) {
            let cause = Cause {
                reason: "FieldValueTypeInvalid".to_owned(),
                message: format!(
                    "Invalid value: {found:?}: {} in body must be of type {expected}: {found:?}",
                    self.path
                ),
                field: self.path.clone(),
            };
            self.add(cause);
            // What is said of any value, and of one of the type that it has, is said all the same.
            match value {
                Value::Null => self.allowed(node, value),
                _ => self.constraints(node, value),
            }
            return;
        }
        if value.is_null() {
            self.matches += 1;
            return self.allowed(node, value);
        }
        let is_typed = schema.kind().is_some() || schema.format().is_some();
        self.matches += if is_typed { 2 } else { 0 };
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
        // A number is one however it is written.
        let is_same =
            |other: &Value| other == value || value.is_number() && other.as_f64() == value.as_f64();
        if !node.values.is_empty() && !node.values.iter().any(is_same) {
            self.not_allowed(node, value);
        }
    }

    fn not_allowed(&mut self, node: &Node, value: &Value) {
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
        self.combined(node, value);
        self.allowed(node, value);
        // Whether it is one of few values, and all of it; what is said of its sort.
        self.matches += 2;
        self.matches += match value {
            Value::String(_) => 1 + u64::from(Schema::at(node).format().is_some()),
            Value::Number(_) | Value::Array(_) => 2,
            Value::Object(_) => 1,
            Value::Null | Value::Bool(_) => 0,
        };
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
        let schema = Schema::at(node);
        if schema.kind() == Some("integer") {
            let format = schema
                .format()
                .filter(|format| knows_format("integer", format));
            let whole = whole_number(value);
            let fits = whole.is_some_and(|whole| match format {
                Some("int32") => i32::try_from(whole).is_ok(),
                _ => true,
            });
            if !fits {
                let words = match format {
                    Some(format) => format!("with format {format}"),
                    None => "(default format)".to_owned(),
                };
                let sentence = format!(
                    "Checked value must be of type integer {words} in {}",
                    self.path
                );
                self.add(Cause::invalid("<nil>", &"".into(), &sentence));
            }
        }
        // Of the formats of numbers, one is narrower than all of them.
        if schema.kind() == Some("number")
            && schema.format() == Some("float")
            && number.abs() > f64::from(f32::MAX)
        {
            let sentence = format!(
                "Checked value must be of type number with format float in {}",
                self.path
            );
            self.add(Cause::invalid("<nil>", &"".into(), &sentence));
        }
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

    /// What schemas that are combined say: of alternatives, which none or several of are met, the faults of the one that is met most.
    fn combined(&mut self, node: &Node, value: &Value) {
        self.matches += 2;
        let path = self.path.clone();
        let judged = |node: &Node| {
            let mut findings = Findings {
                path: path.clone(),
                ..Findings::default()
            };
            findings.look(Schema::at(node), value, Old::default());
            findings
        };
        let refusal = |sentence: &str| {
            let sentence = format!("{path:?} {sentence}");
            Cause::invalid("<nil>", &"".into(), &sentence)
        };
        let best = |all: Vec<Findings>| {
            // The first of those that fit as well.
            let all = all.into_iter().rev();
            all.max_by_key(|findings| findings.matches)
        };
        let mut failed = Vec::new();
        let mut met = None;
        for node in &node.any_of {
            let found = judged(node);
            if found.causes.is_empty() {
                met = Some(found);
                break;
            }
            failed.push(found);
        }
        if met.is_none() && !node.any_of.is_empty() {
            self.add(refusal("must validate at least one schema (anyOf)"));
        }
        self.merge(met.or_else(|| best(failed)));
        let all = node.one_of.iter().map(judged);
        let (mut met, failed): (Vec<Findings>, Vec<Findings>) =
            all.partition(|found| found.causes.is_empty());
        if met.len() == 1 {
            self.merge(met.pop());
        } else if !node.one_of.is_empty() {
            let found = match met.len() {
                0 => "Found none valid".to_owned(),
                many => format!("Found {many} valid alternatives"),
            };
            self.add(refusal(&format!(
                "must validate one and only one schema (oneOf). {found}"
            )));
            self.merge(met.is_empty().then(|| best(failed)).flatten());
        }
        let mut broken = 0;
        for node in &node.all_of {
            let found = judged(node);
            broken += usize::from(!found.causes.is_empty());
            self.merge(Some(found));
        }
        if broken > 0 {
            let none = match broken == node.all_of.len() {
                true => ". None validated",
                false => "",
            };
            self.add(refusal(&format!(
                "must validate all the schemas (allOf){none}"
            )));
        }
        if let Some(node) = &node.not
            && judged(node).causes.is_empty()
        {
            self.add(refusal("must not validate the schema (not)"));
        }
    }

    fn merge(&mut self, found: Option<Findings>) {
        let Some(found) = found else { return };
        self.matches += found.matches;
        for cause in found.causes {
            self.add(cause);
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

/// Whether a number beyond those of 64 bits has no fraction that anybody could tell.
fn is_whole(value: &Value) -> bool {
    const EXACT: f64 = 9_007_199_254_740_991.0;
    let number = value.as_f64();
    number.is_some_and(|number| number.fract() == 0.0 && number.abs() <= EXACT)
}

/// A number without a fraction, as a validator of Go reads it.
fn whole_number(value: &Value) -> Option<i64> {
    let whole = value.as_i64();
    whole.or_else(|| {
        let number = value.as_f64()?;
        // Exactly as far as such numbers are whole one by one.
        let exact = number.fract() == 0.0 && number.abs() <= 9_007_199_254_740_992.0;
        #[allow(clippy::cast_possible_truncation)] // It is whole, and within that.
        exact.then_some(number as i64)
    })
}

/// The type that belongs here and the one that is found, if the value has another one. A schema with a format calls numbers by theirs, and all
/// that has none by nothing.
fn mistyped<'a>(schema: Schema<'a>, value: &Value) -> Option<(&'a str, &'static str)> {
    if schema.shape() == Shape::NumberOrString {
        let fits = value.is_string() || value.is_i64() || value.is_u64();
        return (!fits).then_some(("integer,string", type_name(value)));
    }
    let Some(expected) = schema.kind() else {
        // An alternative names a format without a type.
        let format = schema.format().filter(|format| knows_format("", format))?;
        let judged = matches!(value, Value::Number(_) | Value::Bool(_) | Value::Object(_));
        return judged.then_some((format, format_name(value)));
    };
    let fits = match expected {
        "string" => value.is_string(),
        "integer" => value.is_i64() || is_whole(value),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => true,
    };
    if fits {
        return None;
    }
    let plain = value.is_null() || value.is_string() || value.is_array();
    let format = schema.format().filter(|_| !plain);
    Some(
        match format.filter(|format| knows_format(expected, format)) {
            Some(format) => (format, format_name(value)),
            None => (expected, type_name(value)),
        },
    )
}

fn format_name(value: &Value) -> &'static str {
    match value {
        Value::Number(number) if !number.is_i64() => "float64",
        Value::Number(_) => "int64",
        _ => "",
    }
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if !number.is_i64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

#[cfg(test)]
mod tests;
