//! From JSON to the bytes that Go would write for it.

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};
use weft_api::Quantity;
use weft_api::time::WireTime;

use super::MAGIC;
use super::table::{Field, Form, Many, TABLE, Table};

/// Why an object cannot be written in this form.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    #[error("no kind {kind:?} of version {api_version:?} has a binary form")]
    UnknownKind { api_version: String, kind: String },
    #[error("the field {0} is not what its kind says")]
    Shape(String),
}

impl EncodeError {
    fn below(self, name: &str) -> Self {
        match self {
            Self::Shape(path) if path.is_empty() => Self::Shape(name.to_owned()),
            Self::Shape(path) => Self::Shape(format!("{name}.{path}")),
            other => other,
        }
    }
}

/// Writes an object with its envelope. Fields that its kind does not have are left out.
///
/// # Errors
/// [`EncodeError`] for a kind without a binary form, or a value that is not of its kind.
pub fn encode(object: &Value) -> Result<Vec<u8>, EncodeError> {
    let kind = KindOf::of(object)?;
    let mut writer = Writer::default();
    let raw = writer.open_envelope();
    writer.message(kind.message, object.as_object().unwrap_or(&EMPTY))?;
    writer.close_envelope(&kind, raw);
    Ok(writer.finish())
}

/// Writes an event of a watch as a frame of its stream: its length in four bytes, and the event without an envelope around
/// the object, which has one.
///
/// # Errors
/// As [`encode`].
pub fn encode_watch_frame(event_type: &str, object: &Value) -> Result<Vec<u8>, EncodeError> {
    let object = encode(object)?;
    let mut writer = Writer::default();
    // metav1.WatchEvent{type = 1, object = 2 RawExtension{raw = 1}}
    let raw = writer.start();
    writer.bytes(1, &object);
    writer.close(2, raw);
    writer.bytes(1, event_type.as_bytes());
    let length = u32::try_from(writer.out.len()).unwrap_or(u32::MAX);
    writer.out.extend(length.to_le_bytes());
    Ok(writer.finish())
}

/// How a list is written item by item, so that no more than one item is there as JSON, and, for who knows how long they are together,
/// no more than one is there at all.
pub struct ListEncoder {
    kind: KindOf,
    item: usize,
    number: u32,
}

impl ListEncoder {
    /// # Errors
    /// [`EncodeError::UnknownKind`] for what is no list, or has no binary form.
    pub fn new(api_version: &str, kind: &str) -> Result<Self, EncodeError> {
        let unknown = || EncodeError::UnknownKind {
            api_version: api_version.to_owned(),
            kind: kind.to_owned(),
        };
        let message = TABLE.kind(api_version, kind).ok_or_else(unknown)?;
        let mut fields = TABLE.messages[message].fields.iter();
        let items = fields.find(|field| field.name == "items" && field.many == Many::List);
        match items.map(|field| (field.form, field.number)) {
            Some((Form::Message(item), number)) => Ok(Self {
                kind: KindOf {
                    api_version: api_version.to_owned(),
                    kind: kind.to_owned(),
                    message,
                },
                item,
                number,
            }),
            _ => Err(unknown()),
        }
    }

    /// One item, as it stands in the list.
    ///
    /// # Errors
    /// [`EncodeError::Shape`] for a value that is not of the list's kind.
    pub fn item(&self, item: &Value) -> Result<Vec<u8>, EncodeError> {
        let mut writer = Writer::default();
        let start = writer.start();
        writer.message(self.item, item.as_object().unwrap_or(&EMPTY))?;
        writer.close(self.number, start);
        Ok(writer.finish())
    }

    /// What stands before and behind the items, which take so many bytes; `list` is the list's object, whose items are not looked at.
    ///
    /// # Errors
    /// [`EncodeError::Shape`] for metadata that is none.
    pub fn around(
        &self,
        list: &Value,
        items_bytes: usize,
    ) -> Result<(Vec<u8>, Vec<u8>), EncodeError> {
        let mut head = list.as_object().cloned().unwrap_or_default();
        head.remove("items");
        let mut writer = Writer::default();
        let raw = writer.open_envelope();
        let behind = Writer {
            out: std::mem::take(&mut writer.out),
            ..Writer::default()
        };
        // The items have the highest number of a list's fields, so they stand last.
        writer.elsewhere = behind.out.len() + items_bytes;
        writer.message(self.kind.message, &head)?;
        writer.close_envelope(&self.kind, raw);
        Ok((writer.finish(), behind.finish()))
    }
}

static EMPTY: LazyLock<Map<String, Value>> = LazyLock::new(Map::new);

struct KindOf {
    api_version: String,
    kind: String,
    message: usize,
}

impl KindOf {
    fn of(object: &Value) -> Result<Self, EncodeError> {
        let api_version = object["apiVersion"].as_str().unwrap_or_default().to_owned();
        let kind = object["kind"].as_str().unwrap_or_default().to_owned();
        match TABLE.kind(&api_version, &kind) {
            Some(message) => Ok(Self {
                api_version,
                kind,
                message,
            }),
            None => Err(EncodeError::UnknownKind { api_version, kind }),
        }
    }
}

/// Writes from the end to the beginning: a length is known when it has to be written, and no byte is moved. `out` is the
/// message backwards.
struct Writer {
    table: &'static Table,
    out: Vec<u8>,
    /// Bytes that stand behind what is here, and count.
    elsewhere: usize,
}

impl Default for Writer {
    fn default() -> Self {
        Self {
            table: &TABLE,
            out: Vec::new(),
            elsewhere: 0,
        }
    }
}

impl Writer {
    fn start(&self) -> usize {
        self.out.len() + self.elsewhere
    }

    fn finish(mut self) -> Vec<u8> {
        self.out.reverse();
        self.out
    }

    fn varint(&mut self, number: u64) {
        let bytes = (64 - (number | 1).leading_zeros()).div_ceil(7);
        for place in (0..bytes).rev() {
            let more = if place + 1 < bytes { 0x80 } else { 0 };
            self.out.push((number >> (7 * place)) as u8 & 0x7f | more);
        }
    }

    /// Ends what was begun at `start`: its length, and before it the number of its field.
    fn close(&mut self, number: u32, start: usize) {
        self.varint((self.start() - start) as u64);
        self.varint(u64::from(number) << 3 | 2);
    }

    fn bytes(&mut self, number: u32, bytes: &[u8]) {
        let start = self.start();
        self.out.extend(bytes.iter().rev());
        self.close(number, start);
    }

    fn number(&mut self, number: u32, value: i64) {
        self.varint(value.cast_unsigned());
        self.varint(u64::from(number) << 3);
    }

    /// Encoding and content type are empty, and stand behind the object.
    fn open_envelope(&mut self) -> usize {
        self.bytes(4, b"");
        self.bytes(3, b"");
        self.start()
    }

    fn close_envelope(&mut self, kind: &KindOf, raw: usize) {
        self.close(2, raw);
        let start = self.start();
        self.bytes(2, kind.kind.as_bytes());
        self.bytes(1, kind.api_version.as_bytes());
        self.close(1, start);
        self.out.extend(MAGIC.iter().rev());
    }

    fn message(&mut self, message: usize, object: &Map<String, Value>) -> Result<(), EncodeError> {
        let table = self.table;
        for field in table.messages[message].fields.iter().rev() {
            if let (Form::Message(inlined), "") = (field.form, field.name) {
                let start = self.start();
                self.message(inlined, object)?;
                self.close(field.number, start);
            } else {
                let value = object.get(field.name).unwrap_or(&Value::Null);
                self.field(field, value)
                    .map_err(|error| error.below(field.name))?;
            }
        }
        Ok(())
    }

    fn field(&mut self, field: &Field, value: &Value) -> Result<(), EncodeError> {
        let unlike = || EncodeError::Shape(String::new());
        match (field.many, value) {
            (Many::One, Value::Null) if field.pointer || field.form == Form::Bytes => Ok(()),
            (Many::One, value) => self.value(field.number, field.form, value),
            (_, Value::Null) => Ok(()),
            (Many::List, Value::Array(items)) => {
                let mut items = items.iter().rev();
                items.try_for_each(|item| self.value(field.number, field.form, item))
            }
            (Many::Map, Value::Object(map)) => map.iter().rev().try_for_each(|(key, value)| {
                let start = self.start();
                if !(value.is_null() && field.form == Form::Bytes) {
                    self.value(2, field.form, value)?;
                }
                self.bytes(1, key.as_bytes());
                self.close(field.number, start);
                Ok(())
            }),
            (Many::Wrapped, Value::Array(items)) => {
                let start = self.start();
                let mut items = items.iter().rev();
                items.try_for_each(|item| self.value(1, field.form, item))?;
                self.close(field.number, start);
                Ok(())
            }
            (Many::MapOfLists, Value::Object(map)) => {
                map.iter().rev().try_for_each(|(key, list)| {
                    let start = self.start();
                    let list_start = self.start();
                    let items = match list {
                        Value::Array(items) => items.as_slice(),
                        Value::Null => &[],
                        _ => return Err(unlike()),
                    };
                    let mut items = items.iter().rev();
                    items.try_for_each(|item| self.value(1, field.form, item))?;
                    self.close(2, list_start);
                    self.bytes(1, key.as_bytes());
                    self.close(field.number, start);
                    Ok(())
                })
            }
            _ => Err(unlike()),
        }
    }

    fn value(&mut self, number: u32, form: Form, value: &Value) -> Result<(), EncodeError> {
        let unlike = || EncodeError::Shape(String::new());
        match (form, value) {
            (Form::Text, Value::Null) => self.bytes(number, b""),
            (Form::Text, Value::String(text)) => self.bytes(number, text.as_bytes()),
            (Form::Bool, Value::Null) => self.number(number, 0),
            (Form::Bool, Value::Bool(value)) => self.number(number, i64::from(*value)),
            (Form::Int, Value::Null) => self.number(number, 0),
            (Form::Int, Value::Number(value)) => {
                self.number(number, value.as_i64().ok_or_else(unlike)?);
            }
            (Form::Bytes, Value::Null) => self.bytes(number, b""),
            (Form::Bytes, Value::String(text)) => {
                // Go's decoder skips line breaks.
                let text = text.replace(['\r', '\n'], "");
                let bytes = STANDARD.decode(text).map_err(|_| unlike())?;
                self.bytes(number, &bytes);
            }
            (Form::Time | Form::MicroTime, Value::Null) => self.bytes(number, b""),
            (Form::Time | Form::MicroTime, Value::String(text)) => {
                let time = match form {
                    Form::Time => WireTime::parse(text),
                    _ => WireTime::parse_micro(text),
                };
                let time = time.map_err(|_| unlike())?;
                let start = self.start();
                if !time.is_zero() {
                    self.number(2, i64::from(time.nanos));
                    self.number(1, time.seconds);
                }
                self.close(number, start);
            }
            (Form::Quantity, Value::Null) => self.quantity(number, "0"),
            (Form::Quantity, Value::String(text)) => {
                self.quantity(number, &Quantity::canonical(text).map_err(|_| unlike())?);
            }
            (Form::Quantity, Value::Number(value)) => {
                let text = value.to_string();
                self.quantity(number, &Quantity::canonical(&text).map_err(|_| unlike())?);
            }
            (Form::IntOrString, Value::Null) => self.int_or_string(number, 0, 0, ""),
            (Form::IntOrString, Value::String(text)) => self.int_or_string(number, 1, 0, text),
            (Form::IntOrString, Value::Number(value)) => {
                self.int_or_string(number, 0, value.as_i64().ok_or_else(unlike)?, "");
            }
            (Form::Raw, value) => {
                let start = self.start();
                if !value.is_null() {
                    self.bytes(1, value.to_string().as_bytes());
                }
                self.close(number, start);
            }
            (Form::Double, Value::Null) => self.double(number, 0.0),
            (Form::Double, Value::Number(value)) => {
                self.double(number, value.as_f64().ok_or_else(unlike)?);
            }
            (Form::SchemaOrList(_) | Form::SchemaOrNames(_), Value::Null) => {
                self.bytes(number, b"");
            }
            (Form::SchemaOrList(schema) | Form::SchemaOrNames(schema), Value::Object(_)) => {
                let start = self.start();
                self.value(1, Form::Message(schema), value)?;
                self.close(number, start);
            }
            (Form::SchemaOrList(schema), Value::Array(items)) => {
                let (start, form) = (self.start(), Form::Message(schema));
                let mut items = items.iter().rev();
                items.try_for_each(|item| self.value(2, form, item))?;
                self.close(number, start);
            }
            (Form::SchemaOrNames(_), Value::Array(items)) => {
                let start = self.start();
                let mut items = items.iter().rev();
                items.try_for_each(|item| self.value(2, Form::Text, item))?;
                self.close(number, start);
            }
            (Form::SchemaOrFlag(_), Value::Null | Value::Bool(_)) => {
                let start = self.start();
                self.number(1, i64::from(value.as_bool() == Some(true)));
                self.close(number, start);
            }
            (Form::SchemaOrFlag(schema), Value::Object(_)) => {
                let start = self.start();
                self.value(2, Form::Message(schema), value)?;
                // A schema allows what it fits.
                self.number(1, 1);
                self.close(number, start);
            }
            (Form::Message(message), Value::Object(_) | Value::Null) => {
                let start = self.start();
                self.message(message, value.as_object().unwrap_or(&EMPTY))?;
                self.close(number, start);
            }
            _ => return Err(unlike()),
        }
        Ok(())
    }

    fn double(&mut self, number: u32, value: f64) {
        self.out.extend(value.to_le_bytes().iter().rev());
        self.varint(u64::from(number) << 3 | 1);
    }

    fn quantity(&mut self, number: u32, text: &str) {
        let start = self.start();
        self.bytes(1, text.as_bytes());
        self.close(number, start);
    }

    fn int_or_string(&mut self, number: u32, is_text: i64, value: i64, text: &str) {
        let start = self.start();
        self.bytes(3, text.as_bytes());
        self.number(2, value);
        self.number(1, is_text);
        self.close(number, start);
    }
}
