//! From bytes to the JSON that Go would write for them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};
use weft_api::Quantity;
use weft_api::time::WireTime;

use super::table::{Field, Form, Many, TABLE, Table};
use super::wire::{Fields, Wire, varint};
use super::{DEPTH_MAX, DecodeError, Decoded, MAGIC, UNKNOWN_MAX};

/// Every whole number below is one in a double.
const WHOLE_MAX: f64 = 9_007_199_254_740_992.0;

/// Reads an enveloped object.
///
/// # Errors
/// Whatever makes it no object of a known kind.
pub fn decode(body: &[u8]) -> Result<Decoded, DecodeError> {
    let mut reader = Reader {
        table: &TABLE,
        path: String::new(),
        unknown: Vec::new(),
        depth: 0,
    };
    Ok(Decoded {
        value: reader.enveloped(body)?,
        unknown: reader.unknown,
    })
}

/// Where the walk is, and what it could not name.
struct Reader {
    table: &'static Table,
    path: String,
    unknown: Vec<String>,
    depth: usize,
}

impl Reader {
    fn enveloped(&mut self, body: &[u8]) -> Result<Value, DecodeError> {
        let envelope = body.strip_prefix(MAGIC).ok_or(DecodeError::NoEnvelope)?;
        // runtime.Unknown{typeMeta = 1 {apiVersion = 1, kind = 2}, raw = 2, contentEncoding = 3, contentType = 4}
        let (mut api_version, mut kind) = ("", "");
        let mut raw: &[u8] = &[];
        for field in Fields(envelope) {
            let (number, wire) = field?;
            match number {
                1 => {
                    for field in Fields(wire.bytes("typeMeta")?) {
                        match field? {
                            (1, wire) => api_version = wire.text("apiVersion")?,
                            (2, wire) => kind = wire.text("kind")?,
                            _ => {}
                        }
                    }
                }
                2 => raw = wire.bytes("raw")?,
                3 | 4 => match wire.text("contentType")? {
                    "" | "application/vnd.kubernetes.protobuf" => {}
                    other => return Err(DecodeError::Content(other.to_owned())),
                },
                _ => {}
            }
        }
        let Some(message) = self.table.kind(api_version, kind) else {
            return Err(DecodeError::UnknownKind {
                api_version: api_version.to_owned(),
                kind: kind.to_owned(),
            });
        };
        let mut object = Map::new();
        self.message(message, raw, &mut object)?;
        object.insert("apiVersion".to_owned(), api_version.into());
        object.insert("kind".to_owned(), kind.into());
        Ok(Value::Object(object))
    }

    /// Reads a message into an object, which may hold an earlier part of it already.
    fn message(
        &mut self,
        message: usize,
        bytes: &[u8],
        into: &mut Map<String, Value>,
    ) -> Result<(), DecodeError> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(DecodeError::TooDeep);
        }
        let table = self.table;
        let fields = &table.messages[message].fields;
        for read in Fields(bytes) {
            let (number, wire) = read?;
            let known = fields.binary_search_by_key(&number, |field| field.number);
            let Some(field) = known.ok().map(|place| &fields[place]) else {
                self.unknown_number(number, &wire);
                continue;
            };
            match field.form {
                Form::Message(inlined) if field.name.is_empty() => {
                    let bytes = wire.bytes(&self.path)?;
                    self.message(inlined, bytes, into)?;
                }
                _ => {
                    let length = self.path.len();
                    if length > 0 {
                        self.path.push('.');
                    }
                    self.path.push_str(field.name);
                    self.field(field, &wire, into)?;
                    self.path.truncate(length);
                }
            }
        }
        table.complete(message, into);
        self.depth -= 1;
        Ok(())
    }

    fn field(
        &mut self,
        field: &Field,
        wire: &Wire<'_>,
        into: &mut Map<String, Value>,
    ) -> Result<(), DecodeError> {
        match field.many {
            Many::List => {
                let list = match into.entry(field.name).or_insert(Value::Null) {
                    Value::Array(list) => list,
                    // Nothing but lists is put here, and the null of an earlier part of the message.
                    other => {
                        *other = Value::Array(Vec::new());
                        let Value::Array(list) = other else {
                            return Ok(());
                        };
                        list
                    }
                };
                let length = self.path.len();
                self.path.push_str(&format!("[{}]", list.len()));
                match (field.form, wire) {
                    // Numbers may come packed, though Kubernetes' clients do not pack them.
                    (Form::Int | Form::Bool, Wire::Bytes(packed)) => {
                        let mut rest = *packed;
                        while !rest.is_empty() {
                            let number = Wire::Varint(varint(&mut rest)?);
                            list.push(self.value(field.form, &number, None)?);
                        }
                    }
                    _ => list.push(self.value(field.form, wire, None)?),
                }
                self.path.truncate(length);
            }
            Many::Map | Many::MapOfLists => {
                let (mut key, mut value) = ("", None);
                for entry in Fields(wire.bytes(&self.path)?) {
                    match entry? {
                        (1, wire) => key = wire.text(&self.path)?,
                        (2, wire) => value = Some(wire),
                        _ => {}
                    }
                }
                let value = match (value, field.many, field.form) {
                    (Some(wire), Many::MapOfLists, _) => self.wrapped_list(field.form, &wire)?,
                    // An entry without a value has the empty one.
                    (None, Many::MapOfLists, _) | (None, _, Form::Bytes) => Value::Null,
                    (None, _, Form::Quantity) => "0".into(),
                    (None, _, form) => self.value(form, &Wire::empty(form), None)?,
                    (Some(wire), _, form) => self.value(form, &wire, None)?,
                };
                let map = match into.entry(field.name).or_insert(Value::Null) {
                    Value::Object(map) => map,
                    other => {
                        *other = Value::Object(Map::new());
                        let Value::Object(map) = other else {
                            return Ok(());
                        };
                        map
                    }
                };
                map.insert(key.to_owned(), value);
            }
            Many::Wrapped => {
                let list = self.wrapped_list(field.form, wire)?;
                into.insert(field.name.to_owned(), list);
            }
            Many::One => {
                let earlier = into.remove(field.name);
                let value = self.value(field.form, wire, earlier)?;
                let is_left_out = match &value {
                    Value::Null => field.pointer || field.omits_zero(),
                    _ if field.pointer || !field.omits_zero() => false,
                    Value::Bool(value) => !value,
                    Value::Number(value) => value.as_i64() == Some(0),
                    Value::String(text) => match field.form {
                        Form::Quantity => text == "0",
                        // Only what was not sent at all is nil.
                        Form::Bytes => false,
                        _ => text.is_empty(),
                    },
                    Value::Array(_) => false,
                    Value::Object(object) => match field.form {
                        Form::Message(message) => *object == self.table.zero(message),
                        _ => false,
                    },
                };
                if !is_left_out {
                    into.insert(field.name.to_owned(), value);
                }
            }
        }
        Ok(())
    }

    fn wrapped_list(&mut self, form: Form, wire: &Wire<'_>) -> Result<Value, DecodeError> {
        let mut list = Vec::new();
        for item in Fields(wire.bytes(&self.path)?) {
            if let (1, wire) = item? {
                list.push(self.value(form, &wire, None)?);
            }
        }
        Ok(list.into())
    }

    fn value(
        &mut self,
        form: Form,
        wire: &Wire<'_>,
        earlier: Option<Value>,
    ) -> Result<Value, DecodeError> {
        match form {
            Form::Text => Ok(wire.text(&self.path)?.into()),
            Form::Bool => Ok((wire.number(&self.path)? != 0).into()),
            Form::Int => Ok(wire.number(&self.path)?.into()),
            Form::Bytes => Ok(STANDARD.encode(wire.bytes(&self.path)?).into()),
            Form::Time => self.time(wire, WireTime::rfc3339),
            Form::MicroTime => self.time(wire, WireTime::rfc3339_micros),
            Form::Quantity => {
                let mut text = "0";
                for field in Fields(wire.bytes(&self.path)?) {
                    if let (1, wire) = field? {
                        text = wire.text(&self.path)?;
                    }
                }
                // Kept as it came where it is none: what is wrong with it is told as for JSON.
                Ok(Quantity::canonical(text).unwrap_or(text.into()).into())
            }
            Form::IntOrString => {
                let (mut is_text, mut number, mut text) = (false, 0, "");
                for field in Fields(wire.bytes(&self.path)?) {
                    match field? {
                        (1, wire) => is_text = wire.number(&self.path)? != 0,
                        (2, wire) => number = wire.number(&self.path)?,
                        (3, wire) => text = wire.text(&self.path)?,
                        _ => {}
                    }
                }
                Ok(if is_text { text.into() } else { number.into() })
            }
            Form::Raw => {
                let mut raw: &[u8] = b"null";
                for field in Fields(wire.bytes(&self.path)?) {
                    if let (1, wire) = field? {
                        raw = wire.bytes(&self.path)?;
                    }
                }
                if raw.starts_with(MAGIC) {
                    self.depth += 1;
                    if self.depth > DEPTH_MAX {
                        return Err(DecodeError::TooDeep);
                    }
                    let object = self.enveloped(raw)?;
                    self.depth -= 1;
                    return Ok(object);
                }
                serde_json::from_slice(raw).map_err(|_| DecodeError::OutOfRange(self.path.clone()))
            }
            Form::Double => {
                let number = wire.double(&self.path)?;
                // Go writes a whole number without a point.
                let whole = number.trunc() == number && number.abs() < WHOLE_MAX;
                let value = if whole {
                    (number as i64).into()
                } else {
                    Value::from(number)
                };
                match value {
                    Value::Null => Err(DecodeError::OutOfRange(self.path.clone())),
                    value => Ok(value),
                }
            }
            Form::SchemaOrList(schema) => {
                let (mut one, mut many) = (Value::Null, Vec::new());
                for field in Fields(wire.bytes(&self.path)?) {
                    match field? {
                        (1, wire) => one = self.value(Form::Message(schema), &wire, Some(one))?,
                        (2, wire) => many.push(self.value(Form::Message(schema), &wire, None)?),
                        _ => {}
                    }
                }
                Ok(if many.is_empty() { one } else { many.into() })
            }
            Form::SchemaOrFlag(schema) => {
                let (mut one, mut allows) = (Value::Null, false);
                for field in Fields(wire.bytes(&self.path)?) {
                    match field? {
                        (1, wire) => allows = wire.number(&self.path)? != 0,
                        (2, wire) => one = self.value(Form::Message(schema), &wire, Some(one))?,
                        _ => {}
                    }
                }
                Ok(if one.is_null() { allows.into() } else { one })
            }
            Form::SchemaOrNames(schema) => {
                let (mut one, mut names) = (Value::Null, Vec::new());
                for field in Fields(wire.bytes(&self.path)?) {
                    match field? {
                        (1, wire) => one = self.value(Form::Message(schema), &wire, Some(one))?,
                        (2, wire) => names.push(Value::from(wire.text(&self.path)?)),
                        _ => {}
                    }
                }
                Ok(if names.is_empty() { one } else { names.into() })
            }
            Form::Message(message) => {
                let mut object = match earlier {
                    Some(Value::Object(object)) => object,
                    _ => Map::new(),
                };
                self.message(message, wire.bytes(&self.path)?, &mut object)?;
                Ok(Value::Object(object))
            }
        }
    }

    fn time(&self, wire: &Wire<'_>, written: fn(WireTime) -> String) -> Result<Value, DecodeError> {
        let bytes = wire.bytes(&self.path)?;
        // Go's zero time is an empty message, and null in JSON.
        if bytes.is_empty() {
            return Ok(Value::Null);
        }
        let (mut seconds, mut nanos) = (0, 0);
        for field in Fields(bytes) {
            match field? {
                (1, wire) => seconds = wire.number(&self.path)?,
                (2, wire) => nanos = wire.number(&self.path)?,
                _ => {}
            }
        }
        let out_of_range = || DecodeError::OutOfRange(self.path.clone());
        let nanos = u32::try_from(nanos).map_err(|_| out_of_range())?;
        let time = WireTime { seconds, nanos };
        match time.is_in_range() {
            true if time.is_zero() => Ok(Value::Null),
            true => Ok(written(time).into()),
            false => Err(out_of_range()),
        }
    }

    /// A field of a newer Kubernetes. Its zero is on the wire whether the client knows it or not.
    fn unknown_number(&mut self, number: u32, wire: &Wire<'_>) {
        let is_zero = match wire {
            Wire::Varint(number) => *number == 0,
            Wire::Bytes(bytes) => bytes.is_empty(),
            Wire::Double(number) => *number == 0.0,
            Wire::Fixed => false,
        };
        if !is_zero && self.unknown.len() < UNKNOWN_MAX {
            let dot = if self.path.is_empty() { "" } else { "." };
            self.unknown.push(format!("{}{dot}#{number}", self.path));
        }
    }
}
