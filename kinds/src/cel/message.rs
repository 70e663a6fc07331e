//! What expressions of policies build: `Object{spec: Object.spec{replicas: 1}}` and `JSONPatch{op: "add", path: "/spec"}`.
//!
//! An `Object` takes any field with any value: which fields there are is the schema's to say, where it is laid over an object. What is known
//! is its name, which spells the way from the root, so that a part cannot be put into the wrong place unnoticed ([`misnamed`]).
//!
//! Invariants: no message is deeper than the expression that built it. Two messages are equal when name and fields are.
//! Source: k8s.io/apiserver `pkg/cel/mutation`.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::declaration::Decl;
use super::eval::Error;
use super::value::{Key, List, Map, Value};

/// The name of an operation of a JSON patch.
pub(super) const JSON_PATCH: &str = "JSONPatch";

/// The name of a whole object.
pub(super) const OBJECT: &str = "Object";

/// A value with a name and fields.
#[derive(Clone, Debug)]
pub struct Message<'a> {
    pub name: Arc<str>,
    pub fields: BTreeMap<String, Value<'a>>,
}

/// The type of that name, if it is one that expressions of policies may build.
pub(super) fn declared(name: &str) -> Option<Arc<Decl>> {
    let below = name.strip_prefix(OBJECT);
    if name == JSON_PATCH {
        let text = Decl::text;
        let fields = [
            ("op", text()),
            ("path", text()),
            ("from", text()),
            ("value", Decl::any()),
        ];
        return Some(Decl::record(name, &fields));
    }
    let is_object = below.is_some_and(|below| below.is_empty() || below.starts_with('.'));
    is_object.then(|| Decl::open(name))
}

impl<'a> Message<'a> {
    fn is_object(&self) -> bool {
        *self.name != *JSON_PATCH
    }

    /// Whether a field is there; of an operation of a patch, an empty text is none.
    pub(super) fn has(&self, field: &str) -> bool {
        match self.fields.get(field) {
            Some(Value::String(text)) if !self.is_object() && field != "value" => !text.is_empty(),
            found => found.is_some(),
        }
    }

    /// A field; one of an object that was not given is null, one of an operation is empty.
    pub(super) fn field(&self, field: &str) -> Value<'a> {
        match self.fields.get(field) {
            Some(value) => value.clone(),
            None if self.is_object() || field == "value" => Value::Null,
            None => Value::text(""),
        }
    }

    /// # Errors
    /// For an element that cannot be read.
    pub(super) fn equals(&self, other: &Self) -> Result<bool, Error> {
        if self.name != other.name || self.fields.len() != other.fields.len() {
            return Ok(false);
        }
        for (field, value) in &self.fields {
            match other.fields.get(field) {
                Some(other) if value.equals(other)? => {}
                _ => return Ok(false),
            }
        }
        Ok(true)
    }
}

/// Whether a value holds messages under names that are not those of their places, and which: one sentence each.
///
/// A list and a map are passed through, and have no name of their own.
pub fn misnamed(value: &Value<'_>) -> Vec<String> {
    let mut told = Vec::new();
    if let Value::Message(message) = value {
        walk(value, &message.name, &mut told);
    }
    told
}

fn walk(value: &Value<'_>, wanted: &str, told: &mut Vec<String>) {
    match value {
        Value::Message(message) => {
            if *message.name != *wanted {
                told.push(format!(
                    "unexpected type name {:?}, expected {wanted:?}, which matches field name path from root Object type",
                    message.name
                ));
            }
            for (field, value) in &message.fields {
                walk(value, &format!("{wanted}.{field}"), told);
            }
        }
        Value::List(List::Built(items)) => {
            for item in items.iter() {
                walk(item, wanted, told);
            }
        }
        Value::Map(Map::Built(entries)) => {
            for value in entries.values() {
                walk(value, wanted, told);
            }
        }
        _ => {}
    }
}

/// What an expression gave, as JSON; of lists and maps in it, too.
///
/// # Errors
/// For what JSON has no form of.
pub(super) fn to_json(message: &Message<'_>) -> Result<serde_json::Value, Error> {
    let mut map = serde_json::Map::new();
    for (field, value) in &message.fields {
        map.insert(field.clone(), value.to_json()?);
    }
    Ok(map.into())
}

/// The name of a field, as a key has it.
pub(super) fn field_of(key: &Value<'_>) -> Option<String> {
    match key.key()? {
        Key::String(name) => Some(name),
        _ => None,
    }
}
