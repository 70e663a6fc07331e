//! Built-in kinds: JSON read into what Kubernetes' Go types would hold, and written as they would be written.
//!
//! One walk along the schema over any reader of serde (a body's text, a value): a value of the wrong type is told in the words of
//! Go's decoder, unknown and duplicate fields are noted in the order of the text and dropped, and what is left is
//! canonical: nulls and zeros are there exactly where Go writes them, quantities, times and bytes have their one
//! spelling.
//!
//! Source: sigs.k8s.io/json and the `UnmarshalJSON`/`MarshalJSON` methods of k8s.io/apimachinery.
//! Invariants: reading a canonical value changes nothing; nothing is nested deeper than [`DEPTH_MAX`]; what is noted is bounded.

use std::collections::BTreeSet;
use std::fmt::{self, Write as _};

use serde::de::{
    DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor,
};
use serde_json::{Map, Number, Value};

use super::{DEPTH_MAX, DecodeError, Decoded, FAULTS_MAX, scalar};
use crate::schema::{Go, Schema, Shape};

/// The one list of an object that says something when it is empty: that its owners are to be forgotten. It is never stored.
const MANAGED_FIELDS: &str = "managedFields";

/// Reads an object of a kind.
///
/// # Errors
/// The sentence of Go's decoder for the first value that does not fit, or that of serde for text that is no JSON.
pub(super) fn read<'de, D: Deserializer<'de>>(
    schema: Schema<'static>,
    deserializer: D,
) -> Result<Decoded, DecodeError> {
    read_below(schema, "", deserializer)
}

/// Reads a part of an object that stands at `path`.
///
/// # Errors
/// As [`read`].
pub(super) fn read_below<'de, D: Deserializer<'de>>(
    schema: Schema<'static>,
    path: &str,
    deserializer: D,
) -> Result<Decoded, DecodeError> {
    let mut state = State {
        path: path.to_owned(),
        owner: schema.short_name().unwrap_or_default(),
        ..State::default()
    };
    let type_name = format!("v1.{}", state.owner);
    let read = Place {
        schema: Some(schema),
        type_name: &type_name,
        state: &mut state,
    }
    .deserialize(deserializer);
    match (read, state.fatal, state.saved) {
        (Ok(value), None, None) => Ok(Decoded {
            value,
            faults: state.faults,
        }),
        (_, Some(fault), _) | (Ok(_), None, Some(fault)) => Err(DecodeError::Unfit(fault)),
        (Err(error), None, _) => Err(DecodeError::Syntax(error.to_string())),
    }
}

/// Whether reading a value of a kind, or of a part of one, gives this value and finds no fault: nearly all of what is judged was read before, and need not
/// be built anew. What this does not know, it denies.
pub(super) fn is_read(schema: Schema<'static>, value: &Value) -> bool {
    is_read_at(schema, schema.short_name().unwrap_or_default(), value, 1)
}

fn is_read_at(schema: Schema<'static>, type_name: &str, value: &Value, depth: usize) -> bool {
    if depth > DEPTH_MAX {
        return false;
    }
    let type_name = type_name.trim_start_matches('*');
    match (schema.special(), schema.shape(), value) {
        (Some(scalar::Special::IntOrString), _, Value::Number(number)) => number
            .as_i64()
            .is_some_and(|number| i32::try_from(number).is_ok()),
        (Some(special), _, Value::String(text)) => {
            let parsed = || special.parse(text);
            scalar::is_plain(special, text)
                || parsed().is_ok_and(|read| read.as_str() == Some(text))
        }
        (Some(_), _, _) => false,
        // What may be a schema is read as one.
        (None, Shape::Free, Value::Object(_) | Value::Array(_))
            if schema.of_alternative().is_some() =>
        {
            false
        }
        (None, Shape::Free, value) => is_shallow(value, depth),
        (None, Shape::String, Value::String(_))
        | (None, Shape::NumberOrString, Value::String(_) | Value::Number(_))
        | (None, Shape::Number, Value::Number(_))
        | (None, Shape::Boolean, Value::Bool(_)) => true,
        (None, Shape::Integer, Value::Number(number)) => is_integer(schema, type_name, number),
        (None, Shape::List, Value::Array(items)) => {
            let (item, element) = (schema.items(), element_type(type_name));
            item.is_some_and(|item| {
                let mut items = items.iter();
                items.all(|value| is_read_at(item, element, value, depth + 1))
            })
        }
        (None, Shape::Map, Value::Object(map)) => {
            let (value, element) = (schema.additional(), element_type(type_name));
            value.is_some_and(|schema| {
                let mut values = map.values();
                values.all(|value| is_read_at(schema, element, value, depth + 1))
            })
        }
        (None, Shape::Struct, Value::Object(map)) => {
            schema.of_alternative().is_none()
                && map.iter().all(|(name, value)| {
                    let field = schema.property(name).map(|(_, field)| field);
                    let typed = field.and_then(|field| Some((field, field.go()?)));
                    typed.is_some_and(|(field, go)| {
                        is_written(field, go, value)
                            && is_read_at(field, &go.type_name, value, depth + 1)
                            || value.is_null() && is_written_as_null(schema, name)
                    })
                })
                && schema
                    .always_written()
                    .all(|(name, _)| map.contains_key(name))
        }
        _ => false,
    }
}

/// Whether a struct that says nothing has a null under this name.
fn is_written_as_null(schema: Schema<'_>, name: &str) -> bool {
    let mut written = schema.always_written();
    written.any(|(known, field)| {
        let go = field.go();
        known == name && go.is_some_and(|go| zero(field, &go.type_name).is_null())
    })
}

/// Whether a value is read to its end: nobody looks at what it is.
fn is_shallow(value: &Value, depth: usize) -> bool {
    depth <= DEPTH_MAX
        && match value {
            Value::Array(items) => items.iter().all(|value| is_shallow(value, depth + 1)),
            Value::Object(map) => map.values().all(|value| is_shallow(value, depth + 1)),
            _ => true,
        }
}

/// Whether a number is one of the Go type.
fn is_integer(schema: Schema<'_>, type_name: &str, number: &Number) -> bool {
    number.as_i64().is_some_and(|number| match type_name {
        "int32" => i32::try_from(number).is_ok(),
        "uint8" => u8::try_from(number).is_ok(),
        _ => schema.format() != Some("int32") || i32::try_from(number).is_ok(),
    })
}

/// What the zero value of a type is in JSON.
fn zero(schema: Schema<'_>, type_name: &str) -> Value {
    if is_nilable(type_name) {
        return Value::Null;
    }
    match schema.shape() {
        Shape::Struct => {
            let mut map = Map::new();
            complete(schema, &mut map);
            Value::Object(map)
        }
        Shape::String => match schema.special() {
            Some(special) => special.zero(),
            None => "".into(),
        },
        Shape::Integer | Shape::Number => 0.into(),
        Shape::Boolean => false.into(),
        Shape::NumberOrString => schema.special().map_or(0.into(), |special| special.zero()),
        Shape::List | Shape::Map | Shape::Free => Value::Null,
    }
}

/// What a struct is written as that says nothing.
pub(super) fn blank(schema: Schema<'_>) -> &Value {
    schema.blank(|| zero(schema, ""))
}

/// Whether the Go type has a nil, which JSON writes as null.
fn is_nilable(type_name: &str) -> bool {
    type_name.starts_with(['*', '[']) || type_name.starts_with("map[")
}

/// Adds the members of a struct that Go always writes.
fn complete(schema: Schema<'_>, map: &mut Map<String, Value>) {
    for (name, field) in schema.always_written() {
        if let Some(go) = field.go()
            && map.get(name).is_none_or(Value::is_null)
        {
            map.insert(name.to_owned(), zero(field, &go.type_name));
        }
    }
}

/// Whether Go writes a member that is there.
fn is_written(field: Schema<'_>, go: &Go, value: &Value) -> bool {
    match value {
        // It says nothing: what is written all the same is added behind all others.
        Value::Null => false,
        _ if go.is_pointer() => true,
        value if field.is_go_struct() => !(go.omit_zero && *value == zero(field, &go.type_name)),
        value => !(go.omit_empty && is_empty(value)) || value.is_array() && go.counts_when_empty(),
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(value) => value.as_f64() == Some(0.0),
        Value::String(value) => value.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
    }
}

#[derive(Default)]
struct State {
    /// Where the walk is, as unknown fields are named: `spec.containers[0].image`.
    path: String,
    /// Where it is as Go's decoding errors name it: fields only, with embedded structs.
    fields: Vec<&'static str>,
    /// The struct that holds the field.
    owner: &'static str,
    depth: usize,
    /// The first value of a wrong type. Reading goes on: a later fault may end it at once, and is then the one told.
    saved: Option<String>,
    fatal: Option<String>,
    faults: Vec<String>,
    noted: BTreeSet<String>,
    /// How many fields with a reader of their own the walk is in: Go's strict decoder does not look into those.
    unseen: usize,
}

impl State {
    fn note(&mut self, what: &str, path: &str) {
        if self.unseen > 0 {
            return;
        }
        let fault = format!("{what} field {path:?}");
        if self.faults.len() < FAULTS_MAX && self.noted.insert(fault.clone()) {
            self.faults.push(fault);
        }
    }

    fn cannot_unmarshal(&self, given: &str, type_name: &str) -> String {
        if self.fields.is_empty() {
            return format!("json: cannot unmarshal {given} into Go value of type {type_name}");
        }
        format!(
            "json: cannot unmarshal {given} into Go struct field {}.{} of type {type_name}",
            self.owner,
            self.fields.join(".")
        )
    }

    fn end<E: serde::de::Error, T>(&mut self, fault: String) -> Result<T, E> {
        self.fatal = Some(fault);
        Err(E::custom("ended"))
    }
}

/// A place to be read; without a schema, one whose content is dropped.
struct Place<'a> {
    schema: Option<Schema<'static>>,
    /// The Go type, for messages and zeros.
    type_name: &'a str,
    state: &'a mut State,
}

impl<'de> DeserializeSeed<'de> for Place<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        let Some(schema) = self.schema else {
            // Bounded by the reader itself.
            return deserializer
                .deserialize_ignored_any(IgnoredAny)
                .map(|_| Value::Null);
        };
        self.state.depth += 1;
        if self.state.depth > DEPTH_MAX {
            return self.state.end(format!("exceeded max depth of {DEPTH_MAX}"));
        }
        let read = deserializer.deserialize_any(Reader {
            schema,
            type_name: self.type_name.trim_start_matches('*'),
            state: &mut *self.state,
        });
        self.state.depth -= 1;
        read
    }
}

struct Reader<'a> {
    schema: Schema<'static>,
    type_name: &'a str,
    state: &'a mut State,
}

impl Reader<'_> {
    fn special(&self) -> Option<scalar::Special> {
        self.schema.special()
    }

    /// Notes a value of the wrong type; reading goes on as if it were not there.
    fn mistyped(&mut self, given: &str) -> Value {
        let fault = self.state.cannot_unmarshal(given, self.type_name);
        self.state.saved.get_or_insert(fault);
        Value::Null
    }

    /// Ends reading at a value that a type with a reader of its own does not take.
    fn refused<E: serde::de::Error>(
        self,
        special: scalar::Special,
        given: &str,
    ) -> Result<Value, E> {
        let fault = match special.decodes_through() {
            Some(type_name) => self.state.cannot_unmarshal(given, type_name),
            None => scalar::QUANTITY_FORMAT.to_owned(),
        };
        self.state.end(fault)
    }

    fn parsed<E: serde::de::Error>(self, read: Result<Value, String>) -> Result<Value, E> {
        match read {
            Ok(value) => Ok(value),
            Err(fault) => self.state.end(fault),
        }
    }

    fn number<E: serde::de::Error>(mut self, number: Number) -> Result<Value, E> {
        match (self.special(), self.schema.shape()) {
            (Some(scalar::Special::Quantity), _) => {
                self.parsed(scalar::quantity(&number.to_string()))
            }
            (Some(special @ scalar::Special::IntOrString), _) => {
                let whole = number
                    .as_i64()
                    .and_then(|number| i32::try_from(number).ok());
                match whole {
                    Some(whole) => Ok(whole.into()),
                    None => self.refused(special, &format!("number {number}")),
                }
            }
            (Some(special), _) if special.is_struct() => self.refused(special, "number"),
            (_, Shape::Integer) => match is_integer(self.schema, self.type_name, &number) {
                true => Ok(Value::Number(number)),
                false => Ok(self.mistyped(&format!("number {number}"))),
            },
            (_, Shape::Number | Shape::Free | Shape::NumberOrString) => Ok(Value::Number(number)),
            _ => Ok(self.mistyped("number")),
        }
    }

    fn structure<'de, A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let Self { schema, state, .. } = self;
        let mut map = Map::new();
        // Those that were there, and are not written.
        let mut unwritten: Vec<&str> = Vec::new();
        let mut resets = false;
        let (owner, depth) = (state.owner, state.fields.len());
        let own = schema.short_name().unwrap_or_default();
        while let Some(key) = entries.next_key::<String>()? {
            let length = push_key(&mut state.path, &key);
            let field = schema
                .property(&key)
                .and_then(|(name, field)| Some((name, field, field.go()?)));
            match field {
                Some((name, field, go)) => {
                    let is_seen = map.contains_key(name);
                    if is_seen || unwritten.contains(&name) {
                        let path = state.path.clone();
                        state.note("duplicate", &path);
                    }
                    state.fields.extend(go.via.iter().map(String::as_str));
                    state.fields.push(name);
                    state.owner = own;
                    let value = entries.next_value_seed(Place {
                        schema: Some(field),
                        type_name: &go.type_name,
                        state: &mut *state,
                    })?;
                    state.fields.truncate(depth);
                    state.owner = owner;
                    resets |= name == MANAGED_FIELDS
                        && state.path == "metadata.managedFields"
                        && matches!(&value, Value::Array(list) if list.is_empty());
                    if is_written(field, go, &value) {
                        map.insert(key, value);
                    } else {
                        // The last one wins.
                        if is_seen {
                            map.remove(name);
                        }
                        unwritten.push(name);
                    }
                }
                None => {
                    let path = state.path.clone();
                    state.note("unknown", &path);
                    entries.next_value::<IgnoredAny>()?;
                }
            }
            state.path.truncate(length);
        }
        complete(schema, &mut map);
        if resets {
            map.insert(MANAGED_FIELDS.to_owned(), Value::Array(Vec::new()));
        }
        Ok(Value::Object(map))
    }

    fn free_keys<'de, A: MapAccess<'de>>(
        self,
        value: Schema<'static>,
        mut entries: A,
    ) -> Result<Value, A::Error> {
        let mut map = Map::new();
        let element = element_type(self.type_name);
        let state = self.state;
        while let Some(key) = entries.next_key::<String>()? {
            let length = push_key(&mut state.path, &key);
            if map.contains_key(&key) {
                let path = state.path.clone();
                state.note("duplicate", &path);
            }
            let read = entries.next_value_seed(Place {
                schema: Some(value),
                type_name: element,
                state: &mut *state,
            })?;
            state.path.truncate(length);
            let read = match (&read, value.special()) {
                // No bytes are written as none, in a map.
                (Value::Null, Some(scalar::Special::Bytes)) => "".into(),
                _ => or_zero(read, value, element),
            };
            map.insert(key, read);
        }
        Ok(Value::Object(map))
    }

    fn bytes_of_list<'de, A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut bytes = Vec::new();
        while let Some(value) = list.next_element::<Value>()? {
            let given = match &value {
                Value::Null => {
                    bytes.push(0);
                    continue;
                }
                Value::Number(number) => {
                    if let Some(byte) = number.as_u64().and_then(|number| u8::try_from(number).ok())
                    {
                        bytes.push(byte);
                        continue;
                    }
                    format!("number {number}")
                }
                Value::Bool(_) => "bool".to_owned(),
                Value::String(_) => "string".to_owned(),
                Value::Array(_) => "array".to_owned(),
                Value::Object(_) => "object".to_owned(),
            };
            let fault = self.state.cannot_unmarshal(&given, "uint8");
            self.state.saved.get_or_insert(fault);
        }
        Ok(scalar::base64(&bytes))
    }
}

/// The Go type of the elements of a list or a map; none for a named type, whose elements have no nil.
pub(super) fn element_type(type_name: &str) -> &str {
    match type_name.strip_prefix("[]") {
        Some(element) => element,
        None => type_name.split_once(']').map_or("", |(_, value)| value),
    }
}

/// Null stands for the zero value in a list or a map.
fn or_zero(value: Value, schema: Schema<'_>, type_name: &str) -> Value {
    match value {
        Value::Null => zero(schema, type_name),
        value => value,
    }
}

impl<'de> Visitor<'de> for Reader<'_> {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("any JSON value")
    }

    /// Null leaves a value as it is: nil or zero, which the holder makes of it.
    fn visit_unit<E: serde::de::Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E: serde::de::Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: serde::de::Error>(mut self, value: bool) -> Result<Value, E> {
        match (self.special(), self.schema.shape()) {
            (Some(special), _) if special.is_struct() => self.refused(special, "bool"),
            (_, Shape::Boolean | Shape::Free) => Ok(value.into()),
            _ => Ok(self.mistyped("bool")),
        }
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Value, E> {
        self.number(value.into())
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Value, E> {
        self.number(value.into())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        match Number::from_f64(value) {
            Some(number) => self.number(number),
            None => Err(E::custom("a number that is not finite")),
        }
    }

    fn visit_str<E: serde::de::Error>(mut self, text: &str) -> Result<Value, E> {
        if let Some(special) = self.special() {
            return match special.parse(text) {
                // Wrong base64 does not end reading, unlike what a type's own reader refuses.
                Err(fault) if !special.is_struct() => {
                    self.state.saved.get_or_insert(fault);
                    Ok(Value::Null)
                }
                read => self.parsed(read),
            };
        }
        match self.schema.shape() {
            Shape::String | Shape::Free | Shape::NumberOrString => Ok(text.into()),
            _ => Ok(self.mistyped("string")),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<Value, A::Error> {
        let drain = |mut list: A| -> Result<(), A::Error> {
            while list.next_element::<IgnoredAny>()?.is_some() {}
            Ok(())
        };
        match (self.special(), self.schema.shape()) {
            (Some(scalar::Special::Bytes), _) => self.bytes_of_list(list),
            (Some(special), _) => self.refused(special, "array"),
            (None, Shape::List) => {
                let Some(item) = self.schema.items() else {
                    drain(list)?;
                    return Ok(Value::Null);
                };
                let element = element_type(self.type_name);
                let state = self.state;
                let length = state.path.len();
                let mut items = Vec::new();
                loop {
                    // Writing to a String cannot fail.
                    let _ = write!(state.path, "[{}]", items.len());
                    let read = list.next_element_seed(Place {
                        schema: Some(item),
                        type_name: element,
                        state: &mut *state,
                    })?;
                    state.path.truncate(length);
                    match read {
                        Some(value) => items.push(or_zero(value, item, element)),
                        None => return Ok(Value::Array(items)),
                    }
                }
            }
            (None, Shape::Free) => {
                let mut items = Vec::new();
                while let Some(value) = list.next_element_seed(Place {
                    schema: Some(self.schema),
                    type_name: self.type_name,
                    state: &mut *self.state,
                })? {
                    items.push(value);
                }
                Ok(Value::Array(items))
            }
            _ => {
                drain(list)?;
                Ok(self.mistyped("array"))
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut entries: A) -> Result<Value, A::Error> {
        if let Some(schema) = self.schema.of_alternative() {
            self.state.unseen += 1;
            let reader = Reader {
                schema,
                type_name: "v1.JSONSchemaProps",
                state: &mut *self.state,
            };
            let read = reader.structure(entries);
            self.state.unseen -= 1;
            return read;
        }
        match (self.special(), self.schema.shape()) {
            (Some(special), _) if special.is_struct() => self.refused(special, "object"),
            (None, Shape::Struct) => self.structure(entries),
            (None, Shape::Map) => match self.schema.additional() {
                Some(value) => self.free_keys(value, entries),
                None => Err(A::Error::custom("a map without a value type")),
            },
            (None, Shape::Free) => {
                let mut map = Map::new();
                while let Some(key) = entries.next_key::<String>()? {
                    let value = entries.next_value_seed(Place {
                        schema: Some(self.schema),
                        type_name: self.type_name,
                        state: &mut *self.state,
                    })?;
                    map.insert(key, value);
                }
                Ok(Value::Object(map))
            }
            _ => {
                while entries.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(self.mistyped("object"))
            }
        }
    }
}

/// Appends `.key` (or `key` at the root) and returns the length to cut back to.
fn push_key(path: &mut String, key: &str) -> usize {
    let length = path.len();
    if length > 0 {
        path.push('.');
    }
    path.push_str(key);
    length
}
