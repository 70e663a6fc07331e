//! Kubernetes' binary form of objects, read into the JSON that everything else works on, and written from it.
//!
//! Typed clients (client-go, `kubectl create configmap`, Helm) send bodies and ask for answers in it. [`decode`] and
//! [`encode`] walk along a table of the Go types (`schema/protobuf.json`, by `cargo xtask codegen`): each field's number,
//! its JSON name, its form, and whether its zero is left out. There is no Rust type per message.
//!
//! Both are exact: what is read is the JSON that Go would write for the same bytes (a struct that is no pointer is there
//! even when nothing was sent for it; `containers: null`), and what is written is byte for byte what Go would write for the
//! same JSON, whose zeros are on the wire unless a field is a pointer. `tests/fixtures.rs` holds it to Kubernetes' own data.
//!
//! Invariants: pure; bytes from outside never panic; nesting ends at [`DEPTH_MAX`]; a field without a number is named in
//! [`Decoded::unknown`], never dropped in silence; what has no place on the wire is left out by [`encode`].
//! Left to others: rules of fields, canonical forms of what came as JSON.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Map, Value};
use weft_api::Quantity;
use weft_api::time::WireTime;

/// What every body begins with.
pub const MAGIC: &[u8] = b"k8s\0";

/// Deepest nesting of messages; the deepest path of the served kinds has about 15.
const DEPTH_MAX: usize = 32;

/// How many unknown fields of one body are reported, as for JSON.
const UNKNOWN_MAX: usize = 64;

static TABLE: LazyLock<Table> = LazyLock::new(|| {
    let text: TableText<'static> = serde_json::from_str(include_str!("schema/protobuf.json"))
        .expect("the committed table has kinds and types");
    Table::of(&text)
});

#[derive(Deserialize)]
struct TableText<'a> {
    #[serde(borrow)]
    kinds: BTreeMap<&'a str, &'a str>,
    #[serde(borrow)]
    types: BTreeMap<&'a str, Vec<&'a str>>,
}

struct Table {
    /// By `GROUP/VERSION/KIND`.
    kinds: BTreeMap<&'static str, usize>,
    messages: Vec<Message>,
}

/// The fields of a Go struct, by their numbers on the wire.
struct Message {
    fields: Vec<Field>,
}

struct Field {
    number: u32,
    /// In JSON; empty where the fields of the message stand in its parent.
    name: &'static str,
    form: Form,
    many: Many,
    /// Absent and zero differ; absent is left out with `omitempty`, else null.
    pointer: bool,
    /// Go's `omitempty`: zeros of scalars, lists and maps are left out of JSON.
    omit_empty: bool,
    /// Go's `omitzero`: that of structs, too.
    omit_zero: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Many {
    One,
    List,
    Map,
    /// A map of lists, each in a message of its own (authentication's ExtraValue).
    MapOfLists,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Text,
    Bool,
    Int,
    Bytes,
    Time,
    MicroTime,
    Quantity,
    IntOrString,
    /// JSON as bytes.
    Raw,
    /// By its place in the table.
    Message(usize),
}

impl Table {
    fn of(text: &TableText<'static>) -> Self {
        let places: BTreeMap<&str, usize> = text.types.keys().copied().zip(0..).collect();
        let message = |fields: &Vec<&'static str>| {
            let field = |field: &&'static str| Field::of(field, &places);
            let mut fields: Vec<Field> = fields.iter().map(field).collect();
            fields.sort_by_key(|field| field.number);
            Message { fields }
        };
        Self {
            kinds: text
                .kinds
                .iter()
                .map(|(kind, name)| (*kind, places[name]))
                .collect(),
            messages: text.types.values().map(message).collect(),
        }
    }

    /// The message of a kind. Options of requests are of any group.
    fn kind(&self, api_version: &str, kind: &str) -> Option<usize> {
        let slash = if api_version.contains('/') { "" } else { "/" };
        self.kinds
            .get(format!("{slash}{api_version}/{kind}").as_str())
            .copied()
    }
}

impl Field {
    fn of(text: &'static str, places: &BTreeMap<&str, usize>) -> Self {
        let mut parts = text.split('|');
        let mut part = || {
            parts
                .next()
                .expect("a field of the committed table has four parts")
        };
        let number = part().parse().expect("the first part is a number");
        let (name, form, flags) = (part(), part(), part());
        let (many, form) = match (form.strip_prefix("[]"), form.strip_prefix("{}")) {
            (Some(form), _) => (Many::List, form),
            (_, Some(form)) if flags.contains('w') => (Many::MapOfLists, form),
            (_, Some(form)) => (Many::Map, form),
            (None, None) => (Many::One, form),
        };
        Self {
            number,
            name,
            form: match form {
                "string" => Form::Text,
                "bool" => Form::Bool,
                "int" => Form::Int,
                "bytes" => Form::Bytes,
                "time" => Form::Time,
                "microtime" => Form::MicroTime,
                "quantity" => Form::Quantity,
                "intorstring" => Form::IntOrString,
                "raw" => Form::Raw,
                message => Form::Message(places[message]),
            },
            many,
            pointer: flags.contains('p'),
            omit_empty: flags.contains('e'),
            omit_zero: flags.contains('z'),
        }
    }

    /// Whether Go keeps a struct here, which `omitempty` never leaves out.
    fn is_struct(&self) -> bool {
        self.many == Many::One
            && match self.form {
                Form::Text | Form::Bool | Form::Int | Form::Bytes => false,
                Form::Time | Form::MicroTime | Form::Quantity | Form::IntOrString | Form::Raw => {
                    true
                }
                Form::Message(_) => true,
            }
    }

    /// Whether the zero of this field is left out of JSON.
    fn omits_zero(&self) -> bool {
        self.omit_zero || (self.omit_empty && !self.is_struct())
    }

    /// What Go writes as JSON for this field when nothing was read for it; `None`: nothing.
    fn absent(&self, table: &Table) -> Option<Value> {
        if self.omits_zero() || (self.pointer && self.omit_empty) {
            return None;
        }
        if self.pointer {
            return Some(Value::Null);
        }
        Some(match (self.many, self.form) {
            (Many::List | Many::Map | Many::MapOfLists, _) => Value::Null,
            (Many::One, Form::Text) => "".into(),
            (Many::One, Form::Bool) => false.into(),
            (Many::One, Form::Int | Form::IntOrString) => 0.into(),
            (Many::One, Form::Quantity) => "0".into(),
            (Many::One, Form::Bytes | Form::Time | Form::MicroTime | Form::Raw) => Value::Null,
            (Many::One, Form::Message(message)) => table.zero(message).into(),
        })
    }
}

impl Table {
    /// What Go writes as JSON for an empty struct.
    fn zero(&self, message: usize) -> Map<String, Value> {
        let mut object = Map::new();
        self.complete(message, &mut object);
        object
    }

    /// Adds what Go's JSON has although nothing was read for it.
    fn complete(&self, message: usize, object: &mut Map<String, Value>) {
        for field in &self.messages[message].fields {
            match field.form {
                Form::Message(inlined) if field.name.is_empty() => self.complete(inlined, object),
                _ if object.contains_key(field.name) => {}
                _ => {
                    let absent = field.absent(self);
                    object.extend(absent.map(|value| (field.name.to_owned(), value)));
                }
            }
        }
    }
}

/// A decoded body.
#[derive(Debug)]
pub struct Decoded {
    pub value: Value,
    /// Fields that no number is known for, as paths.
    pub unknown: Vec<String>,
}

/// Why a body is no object in this form.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("it does not begin with the four bytes of Kubernetes' envelope")]
    NoEnvelope,
    #[error("it ends in the middle of a field")]
    Truncated,
    #[error("the field {0} has another wire type than its kind says")]
    WireType(String),
    #[error("the field {0} is not UTF-8")]
    NotText(String),
    #[error("the field {0} is out of range")]
    OutOfRange(String),
    #[error("it is nested deeper than {DEPTH_MAX} messages")]
    TooDeep,
    #[error("no kind {kind:?} of version {api_version:?} is registered")]
    UnknownKind { api_version: String, kind: String },
    #[error("its content is {0}, not protobuf")]
    Content(String),
}

/// Whether objects of this kind have a binary form: those of Kubernetes' own groups do.
pub fn has_form(api_version: &str, kind: &str) -> bool {
    TABLE.kind(api_version, kind).is_some()
}

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
            Wire::Fixed => false,
        };
        if !is_zero && self.unknown.len() < UNKNOWN_MAX {
            let dot = if self.path.is_empty() { "" } else { "." };
            self.unknown.push(format!("{}{dot}#{number}", self.path));
        }
    }
}

/// The value of one field as it stands on the wire.
enum Wire<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    /// Four or eight bytes; no served field is written so.
    Fixed,
}

impl<'a> Wire<'a> {
    /// What stands for nothing in the place of such a value.
    fn empty(form: Form) -> Self {
        match form {
            Form::Bool | Form::Int => Self::Varint(0),
            _ => Self::Bytes(&[]),
        }
    }

    fn bytes(&self, path: &str) -> Result<&'a [u8], DecodeError> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            Self::Varint(_) | Self::Fixed => Err(DecodeError::WireType(path.to_owned())),
        }
    }

    fn text(&self, path: &str) -> Result<&'a str, DecodeError> {
        std::str::from_utf8(self.bytes(path)?).map_err(|_| DecodeError::NotText(path.to_owned()))
    }

    /// Signed numbers are written as the 64 bits of their two's complement.
    fn number(&self, path: &str) -> Result<i64, DecodeError> {
        match self {
            Self::Varint(number) => Ok(number.cast_signed()),
            Self::Bytes(_) | Self::Fixed => Err(DecodeError::WireType(path.to_owned())),
        }
    }
}

/// The fields of a message in their order on the wire; an error is the last item.
struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, Wire<'a>), DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = field(&mut self.0);
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

fn field<'a>(rest: &mut &'a [u8]) -> Result<(u32, Wire<'a>), DecodeError> {
    let key = varint(rest)?;
    let number = u32::try_from(key >> 3).map_err(|_| DecodeError::Truncated)?;
    let wire = match key & 7 {
        0 => Wire::Varint(varint(rest)?),
        1 => {
            take(rest, 8)?;
            Wire::Fixed
        }
        2 => {
            let length = usize::try_from(varint(rest)?).map_err(|_| DecodeError::Truncated)?;
            Wire::Bytes(take(rest, length)?)
        }
        5 => {
            take(rest, 4)?;
            Wire::Fixed
        }
        _ => return Err(DecodeError::WireType(format!("#{number}"))),
    };
    Ok((number, wire))
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Result<&'a [u8], DecodeError> {
    let (head, tail) = rest
        .split_at_checked(length)
        .ok_or(DecodeError::Truncated)?;
    *rest = tail;
    Ok(head)
}

/// Seven bits a byte, least first; ten bytes at most.
fn varint(rest: &mut &[u8]) -> Result<u64, DecodeError> {
    let mut number = 0_u64;
    for shift in (0..70).step_by(7) {
        let (first, tail) = rest.split_first().ok_or(DecodeError::Truncated)?;
        *rest = tail;
        // The tenth byte has room for one bit; what is beyond it is cut off, as in Go.
        number |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(DecodeError::Truncated)
}

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
    let mut writer = Writer {
        table: &TABLE,
        out: Vec::new(),
    };
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
    let mut writer = Writer {
        table: &TABLE,
        out: Vec::new(),
    };
    // metav1.WatchEvent{type = 1, object = 2 RawExtension{raw = 1}}
    let raw = writer.start();
    writer.bytes(1, &object);
    writer.close(2, raw);
    writer.bytes(1, event_type.as_bytes());
    let length = u32::try_from(writer.out.len()).unwrap_or(u32::MAX);
    writer.out.extend(length.to_le_bytes());
    Ok(writer.finish())
}

/// A list that is written item by item, so that no more than one item is there as JSON.
pub struct ListEncoder {
    kind: KindOf,
    item: usize,
    number: u32,
    items: Vec<u8>,
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
                items: Vec::new(),
            }),
            _ => Err(unknown()),
        }
    }

    /// # Errors
    /// [`EncodeError::Shape`] for a value that is not of the list's kind.
    pub fn push(&mut self, item: &Value) -> Result<(), EncodeError> {
        let mut writer = Writer {
            table: &TABLE,
            out: Vec::new(),
        };
        let start = writer.start();
        writer.message(self.item, item.as_object().unwrap_or(&EMPTY))?;
        writer.close(self.number, start);
        self.items.extend(writer.out.iter().rev());
        Ok(())
    }

    /// How many bytes the items have so far.
    pub fn len_bytes(&self) -> usize {
        self.items.len()
    }

    /// The whole list; `list` is its object, whose items are not looked at.
    ///
    /// # Errors
    /// [`EncodeError::Shape`] for metadata that is none.
    pub fn finish(self, list: &Value) -> Result<Vec<u8>, EncodeError> {
        let mut head = list.as_object().cloned().unwrap_or_default();
        head.remove("items");
        let mut writer = Writer {
            table: &TABLE,
            out: Vec::with_capacity(self.items.len() + 256),
        };
        let raw = writer.open_envelope();
        // The items have the highest number of a list's fields, so they stand last.
        writer.out.extend(self.items.iter().rev());
        writer.message(self.kind.message, &head)?;
        writer.close_envelope(&self.kind, raw);
        Ok(writer.finish())
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
}

impl Writer {
    fn start(&self) -> usize {
        self.out.len()
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
        self.varint((self.out.len() - start) as u64);
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
            (Form::Message(message), Value::Object(_) | Value::Null) => {
                let start = self.start();
                self.message(message, value.as_object().unwrap_or(&EMPTY))?;
                self.close(number, start);
            }
            _ => return Err(unlike()),
        }
        Ok(())
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Writes what Go writes: numbers as varints, everything else with its length.
    #[derive(Default)]
    struct Message(Vec<u8>);

    impl Message {
        fn number(mut self, tag: u32, number: i64) -> Self {
            self.varint(u64::from(tag) << 3);
            self.varint(number.cast_unsigned());
            self
        }

        fn bytes(mut self, tag: u32, bytes: &[u8]) -> Self {
            self.varint(u64::from(tag) << 3 | 2);
            self.varint(bytes.len() as u64);
            self.0.extend_from_slice(bytes);
            self
        }

        fn text(self, tag: u32, text: &str) -> Self {
            self.bytes(tag, text.as_bytes())
        }

        fn message(self, tag: u32, message: Message) -> Self {
            self.bytes(tag, &message.0)
        }

        fn varint(&mut self, mut number: u64) {
            while number >= 0x80 {
                self.0.push((number & 0x7f) as u8 | 0x80);
                number >>= 7;
            }
            self.0.push(number as u8);
        }

        fn enveloped(self, api_version: &str, kind: &str) -> Vec<u8> {
            let type_meta = message().text(1, api_version).text(2, kind);
            let envelope = message()
                .message(1, type_meta)
                .bytes(2, &self.0)
                .text(3, "")
                .text(4, "");
            [MAGIC, &envelope.0].concat()
        }
    }

    fn message() -> Message {
        Message::default()
    }

    #[test]
    fn a_config_map_as_kubectl_sends_it() {
        let metadata = message()
            .text(1, "settings")
            .text(2, "")
            .text(3, "shop")
            .text(4, "")
            .text(5, "")
            .text(6, "")
            .number(7, 0)
            .message(8, message())
            .message(11, message().text(1, "tier").text(2, "front"));
        let body = message()
            .message(1, metadata)
            .message(2, message().text(1, "colour").text(2, "blue"))
            .message(2, message().text(1, "empty"))
            .message(3, message().text(1, "logo").bytes(2, &[0xff, 0x00]))
            .enveloped("v1", "ConfigMap");
        let decoded = decode(&body).unwrap();
        assert_eq!(
            decoded.value,
            json!({
                "apiVersion": "v1", "kind": "ConfigMap",
                "metadata": {"name": "settings", "namespace": "shop", "labels": {"tier": "front"}},
                "data": {"colour": "blue", "empty": ""},
                "binaryData": {"logo": "/wA="},
            })
        );
        assert_eq!(decoded.unknown, [""; 0]);
    }

    #[test]
    fn a_deployment_keeps_the_zeros_that_say_something() {
        let probe = message()
            .message(
                1,
                message().message(
                    2,
                    message()
                        .text(1, "/ready")
                        .message(2, message().number(1, 1).number(2, 0).text(3, "http")),
                ),
            )
            .number(2, 0)
            .number(3, 2);
        let container = message()
            .text(1, "web")
            .text(2, "shop/web:1")
            .text(5, "")
            .message(
                6,
                message()
                    .text(1, "http")
                    .number(2, 0)
                    .number(3, 80)
                    .text(4, "TCP")
                    .text(5, ""),
            )
            .message(
                8,
                message().message(
                    1,
                    message()
                        .text(1, "cpu")
                        .message(2, message().text(1, "250m")),
                ),
            )
            .message(11, probe)
            .message(15, message().number(2, 0))
            .number(16, 0);
        let pod = message()
            .message(
                1,
                message()
                    .text(1, "tmp")
                    .message(2, message().message(2, message())),
            )
            .message(2, container)
            .number(4, 0)
            .number(11, 0);
        let surge = message().number(1, 0).number(2, 0).text(3, "");
        let share = message().number(1, 1).number(2, 0).text(3, "25%");
        let spec = message()
            .number(1, 0)
            .message(3, message().message(1, message()).message(2, pod))
            .message(
                4,
                message()
                    .text(1, "RollingUpdate")
                    .message(2, message().message(1, share).message(2, surge)),
            )
            .number(5, 0)
            .number(7, 0);
        let body = message()
            .message(2, spec)
            .enveloped("apps/v1", "Deployment");
        assert_eq!(
            decode(&body).unwrap().value,
            json!({
                "apiVersion": "apps/v1", "kind": "Deployment",
                "metadata": {}, "status": {},
                "spec": {
                    "replicas": 0,
                    "selector": null,
                    "strategy": {
                        "type": "RollingUpdate",
                        "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": 0},
                    },
                    "template": {
                        "metadata": {},
                        "spec": {
                            "volumes": [{"name": "tmp", "emptyDir": {}}],
                            "terminationGracePeriodSeconds": 0,
                            "containers": [{
                                "name": "web", "image": "shop/web:1",
                                "ports": [{"name": "http", "containerPort": 80, "protocol": "TCP"}],
                                "resources": {"limits": {"cpu": "250m"}},
                                "readinessProbe": {
                                    "httpGet": {"path": "/ready", "port": "http"},
                                    "timeoutSeconds": 2,
                                },
                                "securityContext": {"privileged": false},
                            }],
                        },
                    },
                },
            })
        );
    }

    #[test]
    fn times_negative_numbers_and_lists_in_maps() {
        let lease = message()
            .message(1, message().text(1, "l"))
            .message(
                2,
                message()
                    .text(1, "")
                    .number(2, -1)
                    .message(3, message().number(1, 1_700_000_000).number(2, 5_000)),
            )
            .enveloped("coordination.k8s.io/v1", "Lease");
        assert_eq!(
            decode(&lease).unwrap().value["spec"],
            json!({
                "holderIdentity": "", "leaseDurationSeconds": -1,
                "acquireTime": "2023-11-14T22:13:20.000005Z",
            })
        );
        let extra = message()
            .text(1, "scopes")
            .message(2, message().text(1, "a").text(1, "b"));
        let review = message()
            .message(2, message().text(3, "jane").message(5, extra))
            .enveloped("authorization.k8s.io/v1", "SubjectAccessReview");
        assert_eq!(
            decode(&review).unwrap().value["spec"],
            json!({"user": "jane", "extra": {"scopes": ["a", "b"]}})
        );
        let options = message().number(1, 0).enveloped("apps/v1", "DeleteOptions");
        assert_eq!(
            decode(&options).unwrap().value["gracePeriodSeconds"],
            json!(0)
        );
    }

    #[test]
    fn a_field_of_a_newer_version_is_named_unless_it_is_zero() {
        let pod = message()
            .message(
                2,
                message()
                    .message(2, message().text(1, "a").number(97, 0).text(98, "x"))
                    .number(99, 1),
            )
            .enveloped("v1", "Pod");
        assert_eq!(
            decode(&pod).unwrap().unknown,
            ["spec.containers[0].#98", "spec.#99"]
        );
    }

    #[test]
    fn broken_bodies_are_refused_and_never_panic() {
        let whole = message()
            .message(1, message().text(1, "a"))
            .message(2, message().text(1, "k").text(2, "v"))
            .enveloped("v1", "ConfigMap");
        assert!(decode(&whole).is_ok());
        for length in 0..whole.len() {
            // Cut anywhere: an error, or the shorter object it happens to be.
            let _ = decode(&whole[..length]);
            for byte in [0x00, 0x7f, 0x80, 0xff] {
                let mut changed = whole.clone();
                changed[length] = byte;
                let _ = decode(&changed);
            }
        }
        for (body, error) in [
            (&b"{}"[..], DecodeError::NoEnvelope),
            (b"k8s\0\x0a", DecodeError::Truncated),
            (
                &message().enveloped("v1", "Thing"),
                DecodeError::UnknownKind {
                    api_version: "v1".to_owned(),
                    kind: "Thing".to_owned(),
                },
            ),
            (
                &message().number(1, 3).enveloped("v1", "ConfigMap"),
                DecodeError::WireType("metadata".to_owned()),
            ),
            (
                &message()
                    .message(2, message().text(1, "k").bytes(2, &[0xff]))
                    .enveloped("v1", "ConfigMap"),
                DecodeError::NotText("data".to_owned()),
            ),
        ] {
            assert_eq!(decode(body).unwrap_err(), error);
        }
    }
}
