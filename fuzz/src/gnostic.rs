//! OpenAPI documents in their binary form, which hold what users wrote: what is written is read again, and says of each definition what
//! the document says.

use serde_json::{Map, Value, json};
use weft_apiserver::http::openapi::gnostic;

/// How deep schemas are read again.
const LEVELS_MAX: usize = 120;

/// Members of a schema that are texts, flags and numbers, with their places in the message.
const TEXTS: &[(&str, u64)] = &[
    ("$ref", 1),
    ("format", 2),
    ("title", 3),
    ("description", 4),
    ("pattern", 13),
];
const FLAGS: &[(&str, u64)] = &[
    ("exclusiveMaximum", 8),
    ("exclusiveMinimum", 10),
    ("uniqueItems", 16),
];
const FLOATS: &[(&str, u64)] = &[("multipleOf", 6), ("maximum", 7), ("minimum", 9)];
const INTEGERS: &[(&str, u64)] = &[
    ("maxLength", 11),
    ("minLength", 12),
    ("maxItems", 14),
    ("minItems", 15),
    ("maxProperties", 17),
    ("minProperties", 18),
];

pub fn document(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    let Ok(written) = gnostic::document(text) else {
        return;
    };
    let Ok(sent) = serde_json::from_str::<Value>(text) else {
        return;
    };
    let parts = Message::read(&written).unwrap_or_else(|| panic!("no message"));
    let paths = parts.one(8).unwrap_or_default();
    assert_eq!(
        paths.all(2).count(),
        sent["paths"].as_object().map_or(0, Map::len)
    );
    let definitions = parts.one(9).unwrap_or_default();
    let mut read = Map::new();
    for entry in definitions.all(1) {
        let entry = Message::read(entry).unwrap_or_else(|| panic!("a definition is no message"));
        let schema = entry
            .one(2)
            .and_then(|schema| schema_of(&schema, LEVELS_MAX));
        let schema = schema.unwrap_or_else(|| panic!("{}: no schema", entry.text(1)));
        read.insert(entry.text(1), schema);
    }
    let definitions = sent["definitions"].as_object().into_iter().flatten();
    let said: Map<String, Value> = definitions
        .map(|(name, schema)| (name.clone(), said_by(schema)))
        .collect();
    assert_eq!(read, said);
}

/// What of a schema has a place in the message: members of the right type that say something.
fn said_by(schema: &Value) -> Value {
    let mut said = Map::new();
    let Some(schema) = schema.as_object() else {
        return said.into();
    };
    let says = |name: &str, value: &Value| {
        let named = |table: &[(&str, u64)]| table.iter().any(|(other, _)| *other == name);
        match value {
            Value::String(text) => named(TEXTS) && !text.is_empty(),
            Value::Bool(flag) => named(FLAGS) && *flag,
            Value::Number(number) => {
                (named(FLOATS) && number.as_f64() != Some(0.0))
                    || (named(INTEGERS) && number.as_i64().is_some_and(|number| number != 0))
            }
            _ => false,
        }
    };
    for (name, value) in schema {
        match (name.as_str(), value) {
            (name, value) if says(name, value) => {
                let value = match value.as_f64() {
                    Some(number) if FLOATS.iter().any(|(other, _)| *other == name) => json!(number),
                    _ => value.clone(),
                };
                said.insert(name.to_owned(), value);
            }
            (name, value) if name.starts_with("x-") || matches!(name, "default" | "example") => {
                said.insert(name.to_owned(), value.clone());
            }
            ("enum", Value::Array(values)) if !values.is_empty() => {
                said.insert(name.clone(), value.clone());
            }
            ("required", Value::Array(values)) if !values.is_empty() => {
                said.insert(name.clone(), texts(values));
            }
            ("type", Value::String(text)) if !text.is_empty() => {
                said.insert(name.clone(), json!([text]));
            }
            ("type", Value::Array(values)) if !values.is_empty() => {
                said.insert(name.clone(), texts(values));
            }
            ("additionalProperties", Value::Bool(_)) => {
                said.insert(name.clone(), value.clone());
            }
            ("additionalProperties" | "items", Value::Object(_)) => {
                said.insert(name.clone(), said_by(value));
            }
            ("allOf", Value::Array(parts)) => {
                let parts: Vec<Value> = parts
                    .iter()
                    .filter(|part| part.is_object())
                    .map(said_by)
                    .collect();
                if !parts.is_empty() {
                    said.insert(name.clone(), parts.into());
                }
            }
            ("properties", Value::Object(properties)) => {
                let properties: Map<String, Value> = properties
                    .iter()
                    .filter(|(_, property)| property.is_object())
                    .map(|(name, property)| (name.clone(), said_by(property)))
                    .collect();
                if !properties.is_empty() {
                    said.insert(name.clone(), properties.into());
                }
            }
            _ => {}
        }
    }
    said.into()
}

fn texts(values: &[Value]) -> Value {
    let texts = values
        .iter()
        .map(|value| value.as_str().unwrap_or_default());
    texts.collect()
}

/// The schema that a message is, as JSON; none for what is no message.
fn schema_of(message: &Message<'_>, levels: usize) -> Option<Value> {
    let levels = levels.checked_sub(1)?;
    let mut said = Map::new();
    for (name, number) in TEXTS {
        if message.all(*number).next().is_some() {
            said.insert((*name).to_owned(), message.text(*number).into());
        }
    }
    for (name, number) in FLAGS {
        if message.varint(*number) == Some(1) {
            said.insert((*name).to_owned(), true.into());
        }
    }
    for (name, number) in FLOATS {
        if let Some(bytes) = message.all(*number).next() {
            let number = f64::from_le_bytes(bytes.try_into().ok()?);
            said.insert((*name).to_owned(), number.into());
        }
    }
    for (name, number) in INTEGERS {
        if let Some(number) = message.varint(*number) {
            said.insert((*name).to_owned(), number.cast_signed().into());
        }
    }
    let any = |bytes| serde_json::from_str(&Message::read(bytes)?.text(2)).ok();
    for (name, number) in [("default", 5), ("example", 30)] {
        if let Some(bytes) = message.all(number).next() {
            said.insert(name.to_owned(), any(bytes)?);
        }
    }
    let mut list = |name: &str, values: Option<Vec<Value>>| {
        let values = values?;
        if !values.is_empty() {
            said.insert(name.to_owned(), values.into());
        }
        Some(())
    };
    let text = |bytes: &[u8]| Some(String::from_utf8(bytes.to_vec()).ok()?.into());
    list("required", message.all(19).map(text).collect())?;
    list("enum", message.all(20).map(any).collect())?;
    if let Some(kinds) = message.one(22) {
        list("type", kinds.all(1).map(text).collect())?;
    }
    let part = |bytes| schema_of(&Message::read(bytes)?, levels);
    list("allOf", message.all(24).map(part).collect())?;
    if let Some(held) = message.one(21) {
        let held = match (held.one(1), held.varint(2)) {
            (Some(schema), _) => schema_of(&schema, levels)?,
            (None, flag) => (flag? == 1).into(),
        };
        said.insert("additionalProperties".to_owned(), held);
    }
    if let Some(items) = message.one(23) {
        said.insert("items".to_owned(), schema_of(&items.one(1)?, levels)?);
    }
    let named = |message: &Message<'_>, number, value: &dyn Fn(&Message<'_>) -> Option<Value>| {
        let entries = message.all(number).map(|entry| {
            let entry = Message::read(entry)?;
            Some((entry.text(1), value(&entry)?))
        });
        entries.collect::<Option<Map<String, Value>>>()
    };
    if let Some(properties) = message.one(25) {
        let value = |entry: &Message<'_>| schema_of(&entry.one(2)?, levels);
        let properties = named(&properties, 1, &value)?;
        if !properties.is_empty() {
            said.insert("properties".to_owned(), properties.into());
        }
    }
    let value = |entry: &Message<'_>| serde_json::from_str(&entry.one(2)?.text(2)).ok();
    said.extend(named(message, 31, &value)?);
    Some(said.into())
}

/// The fields of a message, with the bytes of each.
#[derive(Default)]
struct Message<'a>(Vec<(u64, &'a [u8])>);

impl<'a> Message<'a> {
    /// `None` for what is none.
    fn read(mut bytes: &'a [u8]) -> Option<Self> {
        let mut fields = Vec::new();
        while !bytes.is_empty() {
            let key = varint(&mut bytes)?;
            let before = bytes;
            let payload = match key & 7 {
                0 => {
                    varint(&mut bytes)?;
                    &before[..before.len() - bytes.len()]
                }
                1 => bytes.split_off(..8)?,
                2 => {
                    let length = usize::try_from(varint(&mut bytes)?).ok()?;
                    bytes.split_off(..length)?
                }
                _ => return None,
            };
            fields.push((key >> 3, payload));
        }
        Some(Self(fields))
    }

    fn all(&self, number: u64) -> impl Iterator<Item = &'a [u8]> + '_ {
        let fields = self.0.iter();
        fields.filter_map(move |(found, bytes)| (*found == number).then_some(*bytes))
    }

    fn one(&self, number: u64) -> Option<Message<'a>> {
        Self::read(self.all(number).next()?)
    }

    fn text(&self, number: u64) -> String {
        let bytes = self.all(number).next().unwrap_or_default();
        String::from_utf8_lossy(bytes).into_owned()
    }

    fn varint(&self, number: u64) -> Option<u64> {
        varint(&mut self.all(number).next()?)
    }
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let first = bytes.split_off_first()?;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

pub fn document_seeds() -> Vec<Vec<u8>> {
    let schema = json!({
        "type": "object", "description": "d", "required": ["a"], "properties": {
            "a": {"type": "string", "format": "byte", "default": "x", "enum": ["x", 1], "maxLength": 3, "pattern": "^x"},
            "b": {"type": "array", "items": {"$ref": "#/definitions/B"}, "x-kubernetes-list-type": "map"},
            "c": {"additionalProperties": {"type": "integer", "minimum": 1.5, "exclusiveMinimum": true}, "type": ["object", "null"]},
            "d": {"allOf": [{"$ref": "#/definitions/B"}], "readOnly": true, "example": {"x": [null]}},
        }, "x-kubernetes-group-version-kind": [{"group": "", "kind": "A", "version": "v1"}],
    });
    let operation = json!({
        "operationId": "readA", "consumes": ["*/*"], "produces": ["application/json"], "schemes": ["https"], "tags": ["a"], "description": "d",
        "parameters": [{"name": "p", "in": "query", "type": "string", "uniqueItems": true}, {"name": "body", "in": "body", "required": true, "schema": {"$ref": "#/definitions/A"}}],
        "responses": {"200": {"description": "OK", "schema": {"$ref": "#/definitions/A"}}, "default": {"description": "no"}},
        "x-kubernetes-action": "get",
    });
    let document = json!({
        "swagger": "2.0", "info": {"title": "t", "version": "v"},
        "paths": {"/a": {"get": operation, "patch": operation, "parameters": [{"name": "n", "in": "path", "type": "string", "required": true}]}},
        "definitions": {"A": schema, "B": {"type": "object"}},
    });
    vec![document.to_string().into_bytes()]
}
