//! Kubernetes' binary form of objects, read into the JSON that everything else works on.
//!
//! Typed clients (`kubectl create configmap` since 1.32, client-go, Helm) send their bodies in it and do not fall back to
//! JSON; they take JSON answers. [`decode`] walks the message along the schema of its kind, with the tags that
//! `cargo xtask codegen` derived. There is no Rust type per message.
//!
//! Go writes the zero of every scalar that is no pointer, where its JSON leaves most of them out: a zero is dropped
//! unless the table marks the field. Empty messages are kept: `emptyDir: {}` says something.
//!
//! Invariants: pure; bytes from outside never panic; nesting follows the schema and ends at [`DEPTH_MAX`]; a field without
//! a tag is named in [`Decoded::unknown`], never dropped in silence.
//! Left to others: writing this form (every such client reads JSON), rules of fields (`crate::validate`).

use std::collections::BTreeMap;
use std::sync::LazyLock;

use base64::Engine as _;
use jiff::Timestamp;
use serde_json::{Map, Value};
use weft_api::gvk::GroupVersionKind;
use weft_api::time::{rfc3339, rfc3339_micros};

use crate::schema::{Schema, Shape};

/// What every body begins with.
pub const MAGIC: &[u8] = b"k8s\0";

/// Deepest nesting of messages; the deepest path of the served kinds has about 15.
const DEPTH_MAX: usize = 32;

/// How many unknown fields of one body are reported, as for JSON.
const UNKNOWN_MAX: usize = 64;

static TABLE_TEXT: &str = include_str!("schema/protobuf.json");

static TABLE: LazyLock<BTreeMap<String, Tags>> = LazyLock::new(|| {
    let table: Map<String, Value> =
        serde_json::from_str(TABLE_TEXT).expect("the committed table is a JSON object");
    table
        .into_iter()
        .map(|(name, tags)| (name, Tags::of(tags)))
        .collect()
});

/// The fields of a message by their numbers on the wire.
struct Tags(BTreeMap<u32, Tag>);

enum Tag {
    Field {
        name: String,
        /// Its zero says something.
        keeps_zero: bool,
    },
    /// A message whose fields stand in its parent.
    Inlined(Tags),
}

impl Tags {
    fn of(tags: Value) -> Self {
        let Value::Object(tags) = tags else {
            panic!("the committed table holds tags by definition, not {tags}")
        };
        let tag = |(tag, value): (String, Value)| {
            let tag = tag.parse().expect("the committed table's tags are numbers");
            let value = match value {
                Value::String(mark) => Tag::Field {
                    name: mark.trim_end_matches('*').to_owned(),
                    keeps_zero: mark.ends_with('*'),
                },
                inlined => Tag::Inlined(Self::of(inlined)),
            };
            (tag, value)
        };
        Self(tags.into_iter().map(tag).collect())
    }
}

/// A decoded body.
#[derive(Debug)]
pub struct Decoded {
    pub value: Value,
    /// Fields that no tag is known for, as paths.
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

/// Reads an enveloped object.
///
/// # Errors
/// Whatever makes it no object of a known kind.
pub fn decode(body: &[u8]) -> Result<Decoded, DecodeError> {
    let envelope = body.strip_prefix(MAGIC).ok_or(DecodeError::NoEnvelope)?;
    // runtime.Unknown{typeMeta = 1 {apiVersion = 1, kind = 2}, raw = 2, contentEncoding = 3, contentType = 4}
    let (mut api_version, mut kind) = (String::new(), String::new());
    let mut raw: &[u8] = &[];
    for field in Fields(envelope) {
        let (tag, wire) = field?;
        match tag {
            1 => {
                for field in Fields(wire.bytes("typeMeta")?) {
                    match field? {
                        (1, wire) => wire.text("apiVersion")?.clone_into(&mut api_version),
                        (2, wire) => wire.text("kind")?.clone_into(&mut kind),
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
    let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
    let gvk = GroupVersionKind::new(group, version, &kind);
    let known = Schema::of(&gvk).and_then(|schema| Some((schema, tags_of(schema)?)));
    let Some((schema, tags)) = known else {
        return Err(DecodeError::UnknownKind { api_version, kind });
    };
    let mut reader = Reader {
        path: String::new(),
        unknown: Vec::new(),
        depth: 0,
    };
    let mut object = Map::new();
    reader.message(schema, tags, raw, &mut object)?;
    object.insert("apiVersion".to_owned(), api_version.into());
    object.insert("kind".to_owned(), kind.into());
    Ok(Decoded {
        value: Value::Object(object),
        unknown: reader.unknown,
    })
}

fn tags_of(schema: Schema) -> Option<&'static Tags> {
    TABLE.get(schema.name()?)
}

/// Where the walk is, and what it could not name.
struct Reader {
    path: String,
    unknown: Vec<String>,
    depth: usize,
}

impl Reader {
    fn message(
        &mut self,
        schema: Schema,
        tags: &'static Tags,
        bytes: &[u8],
        into: &mut Map<String, Value>,
    ) -> Result<(), DecodeError> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(DecodeError::TooDeep);
        }
        for field in Fields(bytes) {
            let (tag, wire) = field?;
            match tags.0.get(&tag) {
                None => self.unknown_tag(tag, &wire),
                Some(Tag::Inlined(tags)) => {
                    let bytes = wire.bytes(&self.path)?;
                    self.message(schema, tags, bytes, into)?;
                }
                Some(Tag::Field { name, keeps_zero }) => {
                    let length = self.path.len();
                    if length > 0 {
                        self.path.push('.');
                    }
                    self.path.push_str(name);
                    // The table's fields are those of the schema (a test holds it).
                    if let Some(field) = schema.field(name) {
                        self.field(field, name, *keeps_zero, &wire, into)?;
                    }
                    self.path.truncate(length);
                }
            }
        }
        self.depth -= 1;
        Ok(())
    }

    fn field(
        &mut self,
        schema: Schema,
        name: &str,
        keeps_zero: bool,
        wire: &Wire<'_>,
        into: &mut Map<String, Value>,
    ) -> Result<(), DecodeError> {
        match schema.shape() {
            Shape::List => {
                let Some(item) = schema.items() else {
                    return Ok(());
                };
                let list = into.entry(name).or_insert_with(|| Value::Array(Vec::new()));
                let Value::Array(list) = list else {
                    return Ok(());
                };
                let length = self.path.len();
                self.path.push_str(&format!("[{}]", list.len()));
                match (item.shape(), wire) {
                    // Numbers may come packed, though Kubernetes' clients do not pack them.
                    (Shape::Integer | Shape::Boolean, Wire::Bytes(packed)) => {
                        let mut rest = *packed;
                        while !rest.is_empty() {
                            let number = Wire::Varint(varint(&mut rest)?);
                            list.push(self.scalar(item, &number)?);
                        }
                    }
                    _ => list.push(self.value(item, wire)?),
                }
                self.path.truncate(length);
            }
            Shape::Map => {
                let (mut key, mut value) = (String::new(), None);
                for field in Fields(wire.bytes(&self.path)?) {
                    match field? {
                        (1, wire) => wire.text(&self.path)?.clone_into(&mut key),
                        (2, wire) => value = Some(wire),
                        _ => {}
                    }
                }
                let Some(schema) = schema.field(&key) else {
                    return Ok(());
                };
                // An entry without a value has the empty one.
                let value = self.value(schema, &value.unwrap_or(Wire::Bytes(&[])))?;
                let map = into
                    .entry(name)
                    .or_insert_with(|| Value::Object(Map::new()));
                if let Value::Object(map) = map {
                    map.insert(key, value);
                }
            }
            _ => {
                let value = self.value(schema, wire)?;
                let says_nothing = match &value {
                    Value::Null => true,
                    Value::Bool(value) => !value && !keeps_zero,
                    Value::Number(value) => value.as_i64() == Some(0) && !keeps_zero,
                    Value::String(value) => value.is_empty() && !keeps_zero,
                    Value::Array(_) | Value::Object(_) => false,
                };
                if !says_nothing {
                    into.insert(name.to_owned(), value);
                }
            }
        }
        Ok(())
    }

    fn value(&mut self, schema: Schema, wire: &Wire<'_>) -> Result<Value, DecodeError> {
        let name = schema.name().and_then(|name| name.rsplit('.').next());
        match (schema.shape(), name) {
            (Shape::String, Some("Time")) => self.time(wire, rfc3339),
            (Shape::String, Some("MicroTime")) => self.time(wire, rfc3339_micros),
            (_, Some("Quantity")) => {
                let mut text = "";
                for field in Fields(wire.bytes(&self.path)?) {
                    if let (1, wire) = field? {
                        text = wire.text(&self.path)?;
                    }
                }
                Ok(text.into())
            }
            (_, Some("IntOrString")) => {
                let (mut is_text, mut number, mut text) = (false, 0, "");
                for field in Fields(wire.bytes(&self.path)?) {
                    match field? {
                        (1, wire) => is_text = wire.number(&self.path)? != 0,
                        (2, wire) => number = wire.number(&self.path)?,
                        (3, wire) => text = wire.text(&self.path)?,
                        _ => {}
                    }
                }
                // A zero port or percentage is a value of its own where the field is set at all.
                Ok(if is_text { text.into() } else { number.into() })
            }
            (_, Some("FieldsV1")) => {
                let mut raw: &[u8] = b"null";
                for field in Fields(wire.bytes(&self.path)?) {
                    if let (1, wire) = field? {
                        raw = wire.bytes(&self.path)?;
                    }
                }
                serde_json::from_slice(raw).map_err(|_| DecodeError::OutOfRange(self.path.clone()))
            }
            // A list inside a map is a message around it (authentication's ExtraValue).
            (Shape::List, _) => {
                let Some(item) = schema.items() else {
                    return Ok(Value::Array(Vec::new()));
                };
                let mut list = Vec::new();
                for field in Fields(wire.bytes(&self.path)?) {
                    if let (1, wire) = field? {
                        list.push(self.scalar(item, &wire)?);
                    }
                }
                Ok(list.into())
            }
            (Shape::Struct, _) => {
                let mut object = Map::new();
                let bytes = wire.bytes(&self.path)?;
                match tags_of(schema) {
                    Some(tags) => self.message(schema, tags, bytes, &mut object)?,
                    None if bytes.is_empty() => {}
                    None => self.unknown_here(),
                }
                Ok(Value::Object(object))
            }
            _ => self.scalar(schema, wire),
        }
    }

    fn scalar(&mut self, schema: Schema, wire: &Wire<'_>) -> Result<Value, DecodeError> {
        match schema.shape() {
            Shape::Boolean => Ok((wire.number(&self.path)? != 0).into()),
            Shape::Integer => Ok(wire.number(&self.path)?.into()),
            Shape::String if schema.is_bytes() => Ok(base64::engine::general_purpose::STANDARD
                .encode(wire.bytes(&self.path)?)
                .into()),
            Shape::String => Ok(wire.text(&self.path)?.into()),
            Shape::Number
            | Shape::Struct
            | Shape::Map
            | Shape::Free
            | Shape::List
            | Shape::NumberOrString => {
                self.unknown_here();
                Ok(Value::Null)
            }
        }
    }

    fn time(
        &self,
        wire: &Wire<'_>,
        written: fn(Timestamp) -> String,
    ) -> Result<Value, DecodeError> {
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
        i32::try_from(nanos)
            .ok()
            .and_then(|nanos| Timestamp::new(seconds, nanos).ok())
            .map(|time| written(time).into())
            .ok_or_else(|| DecodeError::OutOfRange(self.path.clone()))
    }

    /// A field of a newer Kubernetes. Its zero is on the wire whether the client knows it or not.
    fn unknown_tag(&mut self, tag: u32, wire: &Wire<'_>) {
        let is_zero = match wire {
            Wire::Varint(number) => *number == 0,
            Wire::Bytes(bytes) => bytes.is_empty(),
            Wire::Fixed => false,
        };
        if !is_zero && self.unknown.len() < UNKNOWN_MAX {
            let dot = if self.path.is_empty() { "" } else { "." };
            self.unknown.push(format!("{}{dot}#{tag}", self.path));
        }
    }

    fn unknown_here(&mut self) {
        if self.unknown.len() < UNKNOWN_MAX {
            self.unknown.push(self.path.clone());
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
    let tag = u32::try_from(key >> 3).map_err(|_| DecodeError::Truncated)?;
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
        _ => return Err(DecodeError::WireType(format!("#{tag}"))),
    };
    Ok((tag, wire))
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
    fn every_tag_names_a_field_of_the_schema() {
        fn check(schema: Schema, tags: &Tags, name: &str) {
            for tag in tags.0.values() {
                match tag {
                    Tag::Field { name: field, .. } => {
                        assert!(schema.field(field).is_some(), "{name} has no {field}");
                    }
                    Tag::Inlined(tags) => check(schema, tags, name),
                }
            }
        }
        for (name, tags) in TABLE.iter() {
            check(Schema::named(name).expect(name), tags, name);
        }
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
                "spec": {
                    "replicas": 0,
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
