//! OpenAPI 2 as protobuf, in gnostic's messages: the form that kubectl before 1.29 and Argo CD ask for.
//!
//! Written from the JSON document, so that both say the same; path by path and definition by definition, so that no more than
//! one of them is there as values. What the messages have no field for is left out: combinations of schemas, which version 2
//! does not know.
//!
//! Invariant: pure. Left to others: what the document says (`super`), how long its bytes are kept (`super::kept`).

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

/// The document's parts, as text until each is written.
#[derive(Deserialize)]
struct Outline<'a> {
    swagger: &'a str,
    info: Value,
    #[serde(borrow)]
    paths: BTreeMap<String, &'a RawValue>,
    #[serde(borrow)]
    definitions: BTreeMap<String, &'a RawValue>,
}

/// The binary form of a document.
///
/// # Errors
/// For text that is no OpenAPI 2 document in JSON.
pub fn document(json: &str) -> Result<Vec<u8>, serde_json::Error> {
    let outline: Outline<'_> = serde_json::from_str(json)?;
    let mut out = Writer(Vec::with_capacity(json.len()));
    out.text(1, outline.swagger);
    let info = out.begin(2);
    out.text_of(1, &outline.info["title"]);
    out.text_of(2, &outline.info["version"]);
    out.end(info);
    let paths = out.begin(8);
    for (path, text) in outline.paths {
        let item: Map<String, Value> = serde_json::from_str(text.get())?;
        let named = out.begin(2);
        out.text(1, &path);
        out.path_item(2, &item);
        out.end(named);
    }
    out.end(paths);
    let definitions = out.begin(9);
    for (name, text) in outline.definitions {
        let schema: Map<String, Value> = serde_json::from_str(text.get())?;
        out.named_schema(1, &name, &schema);
    }
    out.end(definitions);
    Ok(out.0)
}

/// Writes messages one into the other. A length is put before what was written when that is complete, which moves it: a definition is
/// moved some five times.
struct Writer(Vec<u8>);

/// Where a message begins that is not complete.
struct Open {
    number: u32,
    start: usize,
}

fn varint(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

impl Writer {
    fn begin(&mut self, number: u32) -> Open {
        Open {
            number,
            start: self.0.len(),
        }
    }

    fn end(&mut self, Open { number, start }: Open) {
        let mut before = Vec::with_capacity(8);
        varint(u64::from(number) << 3 | 2, &mut before);
        varint((self.0.len() - start) as u64, &mut before);
        self.0.splice(start..start, before);
    }

    fn bytes(&mut self, number: u32, bytes: &[u8]) {
        varint(u64::from(number) << 3 | 2, &mut self.0);
        varint(bytes.len() as u64, &mut self.0);
        self.0.extend_from_slice(bytes);
    }

    fn text(&mut self, number: u32, text: &str) {
        if !text.is_empty() {
            self.bytes(number, text.as_bytes());
        }
    }

    fn text_of(&mut self, number: u32, value: &Value) {
        self.text(number, value.as_str().unwrap_or_default());
    }

    fn texts_of(&mut self, number: u32, value: &Value) {
        for text in value.as_array().into_iter().flatten() {
            // An empty one counts in a list.
            self.bytes(number, text.as_str().unwrap_or_default().as_bytes());
        }
    }

    fn integer_of(&mut self, number: u32, value: &Value) {
        if let Some(value) = value.as_i64().filter(|value| *value != 0) {
            varint(u64::from(number) << 3, &mut self.0);
            varint(value.cast_unsigned(), &mut self.0);
        }
    }

    fn flag_of(&mut self, number: u32, value: &Value) {
        if value.as_bool() == Some(true) {
            varint(u64::from(number) << 3, &mut self.0);
            self.0.push(1);
        }
    }

    fn float_of(&mut self, number: u32, value: &Value) {
        if let Some(value) = value.as_f64().filter(|value| *value != 0.0) {
            varint(u64::from(number) << 3 | 1, &mut self.0);
            self.0.extend_from_slice(&value.to_le_bytes());
        }
    }

    /// Any value, which these messages have as text.
    fn any(&mut self, number: u32, value: &Value) {
        let any = self.begin(number);
        self.text(2, &value.to_string());
        self.end(any);
    }

    /// The members that OpenAPI leaves to others.
    fn extensions(&mut self, number: u32, members: &Map<String, Value>) {
        for (name, value) in members.iter().filter(|(name, _)| name.starts_with("x-")) {
            let named = self.begin(number);
            self.text(1, name);
            self.any(2, value);
            self.end(named);
        }
    }

    fn path_item(&mut self, number: u32, item: &Map<String, Value>) {
        let open = self.begin(number);
        for (method, number) in [
            ("get", 2),
            ("put", 3),
            ("post", 4),
            ("delete", 5),
            ("options", 6),
            ("head", 7),
            ("patch", 8),
        ] {
            if let Some(Value::Object(operation)) = item.get(method) {
                self.operation(number, operation);
            }
        }
        self.parameters(9, item.get("parameters"));
        self.extensions(10, item);
        self.end(open);
    }

    fn operation(&mut self, number: u32, operation: &Map<String, Value>) {
        let of = |member: &str| operation.get(member).unwrap_or(&Value::Null);
        let open = self.begin(number);
        self.texts_of(1, of("tags"));
        self.text_of(3, of("description"));
        self.text_of(5, of("operationId"));
        self.texts_of(6, of("produces"));
        self.texts_of(7, of("consumes"));
        self.parameters(8, operation.get("parameters"));
        let responses = self.begin(9);
        for (code, response) in of("responses").as_object().into_iter().flatten() {
            let named = self.begin(1);
            self.text(1, code);
            // A ResponseValue, which holds a Response.
            let value = self.begin(2);
            let inner = self.begin(1);
            self.text_of(1, &response["description"]);
            if let Some(schema) = response["schema"].as_object() {
                let item = self.begin(2);
                self.schema(1, schema);
                self.end(item);
            }
            self.end(inner);
            self.end(value);
            self.end(named);
        }
        self.end(responses);
        self.flag_of(11, of("deprecated"));
        self.extensions(13, operation);
        self.end(open);
    }

    fn parameters(&mut self, number: u32, parameters: Option<&Value>) {
        for parameter in parameters.and_then(Value::as_array).into_iter().flatten() {
            let Some(members) = parameter.as_object() else {
                continue;
            };
            let of = |member: &str| members.get(member).unwrap_or(&Value::Null);
            // A ParametersItem, which holds a Parameter, which holds the one or the other kind.
            let item = self.begin(number);
            let held = self.begin(1);
            if of("in") == "body" {
                let body = self.begin(1);
                self.text_of(1, of("description"));
                self.text_of(2, of("name"));
                self.text_of(3, of("in"));
                self.flag_of(4, of("required"));
                if let Some(schema) = of("schema").as_object() {
                    self.schema(5, schema);
                }
                self.extensions(6, members);
                self.end(body);
            } else {
                // Those of the query may be empty, which moves what follows by one.
                let (place, shift) = match of("in").as_str() {
                    Some("path") => (4, 0),
                    Some("header") => (1, 0),
                    _ => (3, 1),
                };
                let other = self.begin(2);
                let inner = self.begin(place);
                self.flag_of(1, of("required"));
                self.text_of(2, of("in"));
                self.text_of(3, of("description"));
                self.text_of(4, of("name"));
                self.text_of(5 + shift, of("type"));
                self.text_of(6 + shift, of("format"));
                self.flag_of(19 + shift, of("uniqueItems"));
                self.extensions(22 + shift, members);
                self.end(inner);
                self.end(other);
            }
            self.end(held);
            self.end(item);
        }
    }

    fn named_schema(&mut self, number: u32, name: &str, schema: &Map<String, Value>) {
        let named = self.begin(number);
        self.text(1, name);
        self.schema(2, schema);
        self.end(named);
    }

    fn schema(&mut self, number: u32, schema: &Map<String, Value>) {
        let of = |member: &str| schema.get(member).unwrap_or(&Value::Null);
        let open = self.begin(number);
        self.text_of(1, of("$ref"));
        self.text_of(2, of("format"));
        self.text_of(3, of("title"));
        self.text_of(4, of("description"));
        if let Some(default) = schema.get("default") {
            self.any(5, default);
        }
        self.float_of(6, of("multipleOf"));
        self.float_of(7, of("maximum"));
        self.flag_of(8, of("exclusiveMaximum"));
        self.float_of(9, of("minimum"));
        self.flag_of(10, of("exclusiveMinimum"));
        self.integer_of(11, of("maxLength"));
        self.integer_of(12, of("minLength"));
        self.text_of(13, of("pattern"));
        self.integer_of(14, of("maxItems"));
        self.integer_of(15, of("minItems"));
        self.flag_of(16, of("uniqueItems"));
        self.integer_of(17, of("maxProperties"));
        self.integer_of(18, of("minProperties"));
        self.texts_of(19, of("required"));
        for value in of("enum").as_array().into_iter().flatten() {
            self.any(20, value);
        }
        match of("additionalProperties") {
            Value::Object(held) => {
                let item = self.begin(21);
                self.schema(1, held);
                self.end(item);
            }
            Value::Bool(any) => {
                let item = self.begin(21);
                // A flag that is the choice itself is there when it is false, too.
                self.0.extend([2 << 3, u8::from(*any)]);
                self.end(item);
            }
            _ => {}
        }
        let kinds = of("type");
        if kinds.is_string() || kinds.is_array() {
            let item = self.begin(22);
            self.text_of(1, kinds);
            self.texts_of(1, kinds);
            self.end(item);
        }
        if let Some(items) = of("items").as_object() {
            let item = self.begin(23);
            self.schema(1, items);
            self.end(item);
        }
        for part in of("allOf").as_array().into_iter().flatten() {
            if let Some(part) = part.as_object() {
                self.schema(24, part);
            }
        }
        if let Some(properties) = of("properties").as_object() {
            let all = self.begin(25);
            for (name, property) in properties {
                if let Some(property) = property.as_object() {
                    self.named_schema(1, name, property);
                }
            }
            self.end(all);
        }
        if let Some(example) = schema.get("example") {
            self.any(30, example);
        }
        self.extensions(31, schema);
        self.end(open);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A message as its fields; a message in it is read when it is asked for.
    struct Message<'a>(Vec<(u32, &'a [u8])>);

    fn number(rest: &mut &[u8]) -> u64 {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (first, tail) = rest.split_first().unwrap();
            *rest = tail;
            value |= u64::from(first & 0x7f) << shift;
            if first & 0x80 == 0 {
                break;
            }
        }
        value
    }

    fn message_of(mut rest: &[u8]) -> Message<'_> {
        let mut fields = Vec::new();
        while !rest.is_empty() {
            let key = number(&mut rest);
            let bytes = match key & 7 {
                0 => {
                    let before = rest;
                    number(&mut rest);
                    &before[..before.len() - rest.len()]
                }
                1 => rest.split_off(..8).unwrap(),
                2 => {
                    let length = usize::try_from(number(&mut rest)).unwrap();
                    rest.split_off(..length).unwrap()
                }
                other => panic!("wire type {other}"),
            };
            fields.push((u32::try_from(key >> 3).unwrap(), bytes));
        }
        Message(fields)
    }

    impl<'a> Message<'a> {
        fn all(&self, number: u32) -> impl Iterator<Item = &'a [u8]> + '_ {
            let fields = self.0.iter();
            fields.filter_map(move |(found, bytes)| (*found == number).then_some(*bytes))
        }

        fn one(&self, number: u32) -> Message<'a> {
            message_of(self.all(number).next().unwrap_or_default())
        }

        fn text(&self, number: u32) -> &'a str {
            std::str::from_utf8(self.all(number).next().unwrap_or_default()).unwrap()
        }

        /// The value of an entry of a map by name.
        fn named(&self, number: u32, name: &str) -> Message<'a> {
            let mut entries = self.all(number).map(message_of);
            let found = entries.find(|entry| entry.text(1) == name);
            found.unwrap_or_else(|| panic!("no {name}")).one(2)
        }
    }

    #[test]
    fn a_document_has_everything_in_its_place() {
        let json = json!({
            "swagger": "2.0",
            "info": {"title": "T", "version": "v1"},
            "paths": {"/a/{name}": {
                "patch": {
                    "operationId": "patchA",
                    "consumes": ["application/json"],
                    "parameters": [
                        {"in": "query", "name": "dryRun", "type": "string", "uniqueItems": true},
                        {"in": "body", "name": "body", "required": true, "schema": {"$ref": "#/definitions/A"}},
                    ],
                    "responses": {"200": {"description": "OK", "schema": {"$ref": "#/definitions/A"}}},
                    "x-kubernetes-action": "patch",
                },
                "parameters": [{"in": "path", "name": "name", "required": true, "type": "string", "uniqueItems": true}],
            }},
            "definitions": {"A": {
                "type": "object",
                "required": ["n"],
                "properties": {
                    "n": {"type": "integer", "format": "int32", "minimum": -1.5, "maxLength": 3, "default": 0},
                    "m": {"additionalProperties": {"type": "string"}, "type": "object"},
                    "l": {"items": {"$ref": "#/definitions/A"}, "type": "array", "enum": ["a", 1]},
                    "any": {"additionalProperties": false, "oneOf": [{"type": "string"}]},
                },
                "x-kubernetes-group-version-kind": [{"group": "", "version": "v1", "kind": "A"}],
            }},
        });
        let bytes = document(&json.to_string()).unwrap();
        let read = message_of(&bytes);
        assert_eq!((read.text(1), read.one(2).text(1)), ("2.0", "T"));
        let path = read.one(8).named(2, "/a/{name}");
        let of_path = path.one(9).one(1).one(2).one(4);
        assert_eq!((of_path.text(4), of_path.text(5)), ("name", "string"));
        assert_eq!(of_path.all(19).next(), Some(&[1][..]));
        let patch = path.one(8);
        assert_eq!(
            (patch.text(5), patch.text(7)),
            ("patchA", "application/json")
        );
        let parameters: Vec<_> = patch.all(8).map(|item| message_of(item).one(1)).collect();
        let query = parameters[0].one(2).one(3);
        assert_eq!((query.text(4), query.text(6)), ("dryRun", "string"));
        assert_eq!(parameters[1].one(1).one(5).text(1), "#/definitions/A");
        let answer = patch.one(9).named(1, "200").one(1);
        assert_eq!(answer.one(2).one(1).text(1), "#/definitions/A");
        assert_eq!(patch.named(13, "x-kubernetes-action").text(2), "\"patch\"");
        let a = read.one(9).named(1, "A");
        assert_eq!((a.one(22).text(1), a.text(19)), ("object", "n"));
        let marks = a.named(31, "x-kubernetes-group-version-kind");
        assert_eq!(
            serde_json::from_str::<Value>(marks.text(2)).unwrap()[0]["kind"],
            "A"
        );
        let properties = a.one(25);
        let n = properties.named(1, "n");
        assert_eq!((n.text(2), n.one(5).text(2)), ("int32", "0"));
        assert_eq!(n.all(9).next(), Some(&(-1.5_f64).to_le_bytes()[..]));
        assert_eq!(n.all(11).next(), Some(&[3][..]));
        assert_eq!(
            properties.named(1, "m").one(21).one(1).one(22).text(1),
            "string"
        );
        let l = properties.named(1, "l");
        assert_eq!(l.one(23).one(1).text(1), "#/definitions/A");
        let values: Vec<&str> = l.all(20).map(|any| message_of(any).text(2)).collect();
        assert_eq!(values, ["\"a\"", "1"]);
        let any = properties.named(1, "any");
        assert_eq!(any.one(21).all(2).next(), Some(&[0][..]));
        assert_eq!(any.0.len(), 1, "version 2 has no combinations");
    }

    /// Of the built-in kinds: as many paths and definitions as in JSON, and every reference resolves.
    #[test]
    fn the_document_of_all_kinds_is_whole() {
        let json = super::super::document_v2(&weft_kinds::Registry::builtin());
        let told: Value = serde_json::from_str(&json).unwrap();
        let bytes = document(&json).unwrap();
        let read = message_of(&bytes);
        let count = |member: &str| told[member].as_object().unwrap().len();
        assert_eq!(read.one(8).all(2).count(), count("paths"));
        let definitions = read.one(9);
        let names: std::collections::BTreeSet<&str> = definitions
            .all(1)
            .map(|entry| message_of(entry).text(1))
            .collect();
        assert_eq!(names.len(), count("definitions"));
        fn follow(schema: &Message<'_>, names: &std::collections::BTreeSet<&str>) -> usize {
            let reference = schema.text(1);
            let mut seen = usize::from(!reference.is_empty());
            if seen == 1 {
                let name = reference.strip_prefix("#/definitions/").unwrap();
                assert!(names.contains(name), "{name}");
            }
            let properties = schema.one(25);
            let properties = properties.all(1).map(|entry| message_of(entry).one(2));
            let items: Vec<_> = schema.one(23).all(1).map(message_of).collect();
            let values: Vec<_> = schema.one(21).all(1).map(message_of).collect();
            for inner in properties.chain(items).chain(values) {
                seen += follow(&inner, names);
            }
            seen
        }
        let entries = definitions.all(1).map(|entry| message_of(entry).one(2));
        let seen: usize = entries.map(|schema| follow(&schema, &names)).sum();
        assert!(seen > 200, "{seen}");
    }
}
