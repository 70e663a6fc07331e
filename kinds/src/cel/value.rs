//! Values while an expression runs.
//!
//! What an object holds is borrowed from its JSON and read where it is looked at; what an expression makes is shared by
//! reference counting. Equality is CEL's: numbers compare by amount, lists that are sets or maps compare without order.
//!
//! Invariants: no value is deeper than the JSON or the expression that it came from, both of which are bounded.
//! Source: k8s.io/apiserver `pkg/cel/common/valuesunstructured.go`, cel-go `common/types`.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::ops::Deref;
use std::sync::Arc;

use base64::Engine as _;
use ipnet::IpNet;
use serde_json::Value as Json;
use weft_api::quantity::Quantity;

use super::declaration::{Decl, ListKind, Shape};
use super::eval::Error;
use super::functions::authorizer::Authority;
use super::functions::format::Format;
use super::functions::semver::Semver;
use super::functions::url::Url;
use super::message::{self, Message};
use super::time::{self, Time};

#[derive(Clone, Debug)]
pub enum Value<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    String(Text<'a>),
    Bytes(Arc<[u8]>),
    /// In nanoseconds.
    Duration(i64),
    Timestamp(Time),
    List(List<'a>),
    Map(Map<'a>),
    Optional(Option<Arc<Value<'a>>>),
    /// A type, by its name.
    Type(Arc<str>),
    Quantity(Quantity),
    Ip(IpAddr),
    Cidr(IpNet),
    Url(Arc<Url>),
    Semver(Arc<Semver>),
    Format(&'static Format),
    /// A question of who may do what, as far as it is put, or its answer.
    Authority(Arc<Authority>),
    /// What a policy builds: a part of an object, or an operation of a patch.
    Message(Arc<Message<'a>>),
}

/// A text of the object, or one that was made.
#[derive(Clone, Debug)]
pub enum Text<'a> {
    Borrowed(&'a str),
    Shared(Arc<str>),
}

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        match self {
            Self::Borrowed(text) => text,
            Self::Shared(text) => text,
        }
    }
}

#[derive(Clone, Debug)]
pub enum List<'a> {
    Built(Arc<Vec<Value<'a>>>),
    /// The sum of a set or of a list that is a map, which is one, too.
    Merged(Arc<Vec<Value<'a>>>, Arc<Decl>),
    Json(&'a [Json], Arc<Decl>),
}

#[derive(Clone, Debug)]
pub enum Map<'a> {
    Built(Arc<BTreeMap<Key, Value<'a>>>),
    /// An object, or a map with free keys.
    Json(&'a serde_json::Map<String, Json>, Arc<Decl>),
}

/// A key of a map. Integers of either sign are one key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    Bool(bool),
    Int(i64),
    /// Beyond what `Int` holds, and what was written so.
    Uint(u64),
    String(String),
}

impl<'a> Value<'a> {
    pub fn text(text: impl Into<String>) -> Self {
        Self::String(Text::Shared(Arc::from(text.into())))
    }

    pub fn list(items: Vec<Value<'a>>) -> Self {
        Self::List(List::Built(Arc::new(items)))
    }

    pub fn some(value: Value<'a>) -> Self {
        Self::Optional(Some(Arc::new(value)))
    }

    /// What stands at a place of an object.
    ///
    /// # Errors
    /// For what does not fit its schema, which has not been judged in every case where a rule runs.
    pub fn of(json: &'a Json, decl: &Arc<Decl>) -> Result<Self, Error> {
        let unfit = |expected: &str| Err(Error::new(format!("invalid data, expected {expected}")));
        let unfit_scalar = |expected: &str| {
            let found = match json {
                Json::Null => "<nil>",
                Json::Bool(_) => "bool",
                Json::Number(number) if number.is_f64() => "float64",
                Json::Number(_) => "int64",
                Json::String(_) => "string",
                Json::Array(_) => "[]interface {}",
                Json::Object(_) => "map[string]interface {}",
            };
            let told = format!("invalid data, expected {expected}, got {found}");
            Err(Error::new(told))
        };
        Ok(match (&decl.shape, json) {
            (_, Json::Null) if decl.nullable => Self::Null,
            (_, Json::Null) => {
                return Err(Error::new(
                    "invalid data, got null for schema with nullable=false",
                ));
            }
            (Shape::Any, Json::Bool(flag)) => Self::Bool(*flag),
            (Shape::Any, Json::Number(number)) => match number.as_i64() {
                Some(number) => Self::Int(number),
                None => Self::Double(number.as_f64().unwrap_or(f64::NAN)),
            },
            (Shape::Any, Json::Array(items)) => Self::List(List::Json(items, Arc::clone(decl))),
            (Shape::Any, Json::Object(map)) => Self::Map(Map::Json(map, Arc::clone(decl))),
            (Shape::IntOrString | Shape::String | Shape::Any, Json::String(text)) => {
                Self::String(Text::Borrowed(text))
            }
            (Shape::IntOrString | Shape::Int, Json::Number(number)) => match integer(number) {
                Some(number) => Self::Int(number),
                None => return unfit_scalar("int"),
            },
            (Shape::Double, Json::Number(number)) => match number.as_f64() {
                Some(number) => Self::Double(number),
                None => return unfit_scalar("float"),
            },
            (Shape::Bool, Json::Bool(flag)) => Self::Bool(*flag),
            (Shape::Bytes, Json::String(text)) => match crate::decode::url_bytes(text) {
                Ok(bytes) => Self::Bytes(bytes.into()),
                Err(error) => {
                    let sentence = format!("Invalid byte formatted string {text}: {error}");
                    return Err(Error::new(sentence));
                }
            },
            (Shape::Duration, Json::String(text)) => match time::loose_duration(text) {
                Ok(nanos) => Self::Duration(nanos),
                Err(error) => return Err(Error::new(format!("Invalid duration {text}: {error}"))),
            },
            (Shape::Date, Json::String(text)) => match time::date(text) {
                Ok(time) => Self::Timestamp(time),
                Err(_) => return Err(Error::new(format!("Invalid date formatted string {text}"))),
            },
            (Shape::DateTime, Json::String(text)) => match time::date_time(text) {
                Ok(time) => Self::Timestamp(time),
                Err(_) => {
                    let sentence = format!("Invalid date-time formatted string {text}");
                    return Err(Error::new(sentence));
                }
            },
            (Shape::List(..), Json::Array(items)) => {
                Self::List(List::Json(items, Arc::clone(decl)))
            }
            (Shape::Object(_) | Shape::Map(_), Json::Object(map)) => {
                Self::Map(Map::Json(map, Arc::clone(decl)))
            }
            (Shape::List(..), _) => {
                return unfit("an array for the provided schema with type=array");
            }
            (Shape::Object(_) | Shape::Map(_), _) => {
                return unfit("a map for the provided schema with type=object");
            }
            (Shape::IntOrString, _) => {
                return unfit("XIntOrString value to be either a string or integer");
            }
            (Shape::Bool, _) => return unfit_scalar("bool"),
            (Shape::Int, _) => return unfit_scalar("int"),
            (Shape::Double, _) => return unfit_scalar("float"),
            _ => return unfit_scalar("string"),
        })
    }

    /// What `type()` says of it.
    pub(super) fn type_name(&self) -> &str {
        match self {
            Self::Null => "null_type",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Uint(_) => "uint",
            Self::Double(_) => "double",
            Self::String(_) => "string",
            Self::Bytes(_) => "bytes",
            Self::Duration(_) => "google.protobuf.Duration",
            Self::Timestamp(_) => "google.protobuf.Timestamp",
            Self::List(_) => "list",
            Self::Map(_) => "map",
            Self::Optional(_) => "optional_type",
            Self::Type(_) => "type",
            Self::Quantity(_) => "kubernetes.Quantity",
            Self::Ip(_) => "net.IP",
            Self::Cidr(..) => "net.CIDR",
            Self::Url(_) => "kubernetes.URL",
            Self::Semver(_) => "kubernetes.Semver",
            Self::Format(_) => "kubernetes.NamedFormat",
            Self::Authority(authority) => authority.type_name(),
            Self::Message(message) => &message.name,
        }
    }

    /// What a traversal of it is counted as: characters, bytes, elements, entries.
    pub(super) fn size(&self) -> Option<u64> {
        Some(match self {
            Self::String(text) => text.chars().count() as u64,
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::List(list) => list.len() as u64,
            Self::Map(map) => map.len() as u64,
            Self::Cidr(net) => u64::from(net.prefix_len().div_ceil(8)),
            Self::Ip(ip) => {
                if ip.is_ipv4() {
                    4
                } else {
                    16
                }
            }
            _ => return None,
        })
    }

    /// Whether the two are equal; values of different types are not.
    ///
    /// # Errors
    /// For an element that cannot be read.
    pub(super) fn equals(&self, other: &Self) -> Result<bool, Error> {
        Ok(match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Bool(a), Self::Bool(b)) => a == b,
            (
                Self::Int(_) | Self::Uint(_) | Self::Double(_),
                Self::Int(_) | Self::Uint(_) | Self::Double(_),
            ) => compare_numbers(self, other) == Some(Ordering::Equal),
            (Self::String(a), Self::String(b)) => **a == **b,
            (Self::Bytes(a), Self::Bytes(b)) => a == b,
            (Self::Duration(a), Self::Duration(b)) => a == b,
            (Self::Timestamp(a), Self::Timestamp(b)) => a == b,
            (Self::List(a), Self::List(b)) => a.equals(b)?,
            (Self::Map(a), Self::Map(b)) => a.equals(b)?,
            (Self::Optional(a), Self::Optional(b)) => match (a, b) {
                (Some(a), Some(b)) => a.equals(b)?,
                (a, b) => a.is_none() && b.is_none(),
            },
            (Self::Type(a), Self::Type(b)) => a == b,
            (Self::Quantity(a), Self::Quantity(b)) => a == b,
            (Self::Ip(a), Self::Ip(b)) => a == b,
            (Self::Cidr(a), Self::Cidr(b)) => a == b,
            (Self::Url(a), Self::Url(b)) => a == b,
            (Self::Semver(a), Self::Semver(b)) => a == b,
            (Self::Format(a), Self::Format(b)) => a.name == b.name,
            (Self::Message(a), Self::Message(b)) => a.equals(b)?,
            _ => false,
        })
    }

    /// Which comes first; none for values that have no order.
    pub(super) fn compare(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Bool(a), Self::Bool(b)) => Some(a.cmp(b)),
            (Self::String(a), Self::String(b)) => Some((**a).cmp(&**b)),
            (Self::Bytes(a), Self::Bytes(b)) => Some(a.cmp(b)),
            (Self::Duration(a), Self::Duration(b)) => Some(a.cmp(b)),
            (Self::Timestamp(a), Self::Timestamp(b)) => Some(a.cmp(b)),
            _ => compare_numbers(self, other),
        }
    }

    /// Whether values of its type have an order.
    pub(super) fn is_ordered(&self) -> bool {
        matches!(
            self,
            Self::Bool(_)
                | Self::Int(_)
                | Self::Uint(_)
                | Self::Double(_)
                | Self::String(_)
                | Self::Bytes(_)
                | Self::Duration(_)
                | Self::Timestamp(_)
        )
    }

    /// What stands for nothing of its type: what `optional.ofNonZeroValue` leaves out.
    pub(super) fn is_zero(&self) -> bool {
        match self {
            Self::Null => true,
            Self::Bool(flag) => !flag,
            Self::Int(number) => *number == 0,
            Self::Uint(number) => *number == 0,
            Self::Double(number) => *number == 0.0,
            Self::String(text) => text.is_empty(),
            Self::Bytes(bytes) => bytes.is_empty(),
            Self::Duration(nanos) => *nanos == 0,
            Self::Timestamp(time) => time.is_zero(),
            Self::List(list) => list.len() == 0,
            Self::Map(map) => map.len() == 0,
            Self::Optional(value) => value.is_none(),
            Self::Message(message) => message.fields.is_empty(),
            _ => false,
        }
    }

    /// As JSON, which a patch is made of.
    ///
    /// # Errors
    /// For what JSON has no form of.
    pub fn to_json(&self) -> Result<Json, Error> {
        Ok(match self {
            Self::Null | Self::Optional(None) => Json::Null,
            Self::Bool(flag) => (*flag).into(),
            Self::Int(number) => (*number).into(),
            Self::Uint(number) => (*number).into(),
            Self::Double(number) => (*number).into(),
            Self::String(text) => Json::from(&**text),
            Self::Bytes(bytes) => base64::engine::general_purpose::STANDARD
                .encode(bytes)
                .into(),
            Self::Optional(Some(value)) => value.to_json()?,
            Self::List(List::Json(items, _)) => Json::Array(items.to_vec()),
            Self::Map(Map::Json(map, _)) => Json::Object((*map).clone()),
            Self::List(list) => list
                .iter()
                .map(|item| item?.to_json())
                .collect::<Result<Vec<_>, _>>()?
                .into(),
            Self::Map(Map::Built(entries)) => {
                let mut map = serde_json::Map::new();
                for (key, value) in entries.iter() {
                    let Key::String(key) = key else {
                        return Err(Error::new("JSON has no keys but strings"));
                    };
                    map.insert(key.clone(), value.to_json()?);
                }
                map.into()
            }
            Self::Message(message) => message::to_json(message)?,
            Self::Quantity(_) | Self::Duration(_) | Self::Timestamp(_) => self.to_string().into(),
            other => {
                let told = format!("cannot convert {} to JSON", other.type_name());
                return Err(Error::new(told));
            }
        })
    }

    pub(super) fn key(&self) -> Option<Key> {
        Some(match self {
            Self::Bool(flag) => Key::Bool(*flag),
            Self::Int(number) => Key::Int(*number),
            Self::Uint(number) => Key::Uint(*number),
            Self::Double(number) => whole(*number)?,
            Self::String(text) => Key::String((**text).to_owned()),
            _ => return None,
        })
    }
}

/// As messages show it.
impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(flag) => flag.fmt(f),
            Self::Int(number) => number.fmt(f),
            Self::Uint(number) => number.fmt(f),
            Self::Double(number) => f.write_str(&double_text(*number)),
            Self::String(text) => f.write_str(text),
            Self::Bytes(bytes) => f.write_str(&String::from_utf8_lossy(bytes)),
            Self::Duration(nanos) => f.write_str(&time::duration_text(*nanos)),
            Self::Timestamp(time) => f.write_str(&time::timestamp_text(*time)),
            Self::Type(name) => f.write_str(name),
            Self::Quantity(quantity) => quantity.fmt(f),
            Self::Ip(ip) => ip.fmt(f),
            Self::Cidr(net) => net.fmt(f),
            other => f.write_str(other.type_name()),
        }
    }
}

/// Shortest decimal text, as Go's `%g` prints it: with an exponent from a million on.
pub(super) fn double_text(number: f64) -> String {
    if number.is_nan() {
        return "NaN".to_owned();
    }
    if number.is_infinite() {
        return if number > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    let exponent = format!("{number:e}");
    let power: i32 = exponent
        .split_once('e')
        .and_then(|(_, power)| power.parse().ok())
        .unwrap_or(0);
    if number != 0.0 && !(-4..6).contains(&power) {
        let (digits, _) = exponent.split_once('e').unwrap_or((&exponent, ""));
        let sign = if power < 0 { '-' } else { '+' };
        return format!("{digits}e{sign}{:02}", power.abs());
    }
    number.to_string()
}

fn integer(number: &serde_json::Number) -> Option<i64> {
    number.as_i64().or_else(|| {
        let number = number.as_f64()?;
        let fits = number.fract() == 0.0 && number.abs() < 9_007_199_254_740_992.0;
        fits.then_some(number as i64)
    })
}

/// The integer that a floating-point number stands for.
pub(super) fn lossless(number: f64) -> Option<i64> {
    // The upper bound is the first that is none.
    let fits = number.fract() == 0.0 && (i64::MIN as f64..-(i64::MIN as f64)).contains(&number);
    fits.then_some(number as i64)
}

/// The integer key that a floating-point number stands for.
fn whole(number: f64) -> Option<Key> {
    if let Some(number) = lossless(number) {
        return Some(Key::Int(number));
    }
    let fits = number.fract() == 0.0 && (0.0..18_446_744_073_709_551_616.0).contains(&number);
    fits.then_some(Key::Uint(number as u64))
}

pub(super) fn compare_numbers(a: &Value<'_>, b: &Value<'_>) -> Option<Ordering> {
    fn exact(value: &Value<'_>) -> Option<i128> {
        match value {
            Value::Int(number) => Some(i128::from(*number)),
            Value::Uint(number) => Some(i128::from(*number)),
            _ => None,
        }
    }
    // As upstream compares them: the integer as the nearest number with a fraction.
    fn against(number: i128, double: f64) -> Option<Ordering> {
        (number as f64).partial_cmp(&double)
    }
    match (a, b) {
        (Value::Double(a), Value::Double(b)) => a.partial_cmp(b),
        (Value::Double(a), b) => against(exact(b)?, *a).map(Ordering::reverse),
        (a, Value::Double(b)) => against(exact(a)?, *b),
        (a, b) => Some(exact(a)?.cmp(&exact(b)?)),
    }
}

impl<'a> List<'a> {
    pub fn len(&self) -> usize {
        match self {
            Self::Built(items) | Self::Merged(items, _) => items.len(),
            Self::Json(items, _) => items.len(),
        }
    }

    pub(super) fn get(&self, index: usize) -> Option<Result<Value<'a>, Error>> {
        match self {
            Self::Built(items) | Self::Merged(items, _) => items.get(index).cloned().map(Ok),
            Self::Json(items, decl) => Some(Value::of(items.get(index)?, item_of(decl)?)),
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = Result<Value<'a>, Error>> + '_ {
        (0..self.len()).filter_map(|index| self.get(index))
    }

    /// Whether an element equals the value.
    pub(super) fn contains(&self, value: &Value<'a>) -> Result<bool, Error> {
        for item in self.iter() {
            if item?.equals(value)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn kind(&self) -> &ListKind {
        match self {
            Self::Json(_, decl) | Self::Merged(_, decl) => match &decl.shape {
                Shape::List(_, kind) => kind,
                _ => &ListKind::Atomic,
            },
            Self::Built(_) => &ListKind::Atomic,
        }
    }

    pub(super) fn equals(&self, other: &Self) -> Result<bool, Error> {
        if self.len() != other.len() {
            return Ok(false);
        }
        match self.kind() {
            ListKind::Atomic => {
                for (a, b) in self.iter().zip(other.iter()) {
                    if !a?.equals(&b?)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            // Canonical texts stand for elements, so that large sets are compared in their own time.
            ListKind::Set => Ok(self.texts(None)? == other.texts(None)?),
            ListKind::Map(keys) => {
                let mine = self.by_keys(keys)?;
                let theirs = other.by_keys(keys)?;
                if mine.len() != theirs.len() {
                    return Ok(false);
                }
                for (key, value) in &mine {
                    match theirs.get(key) {
                        Some(other) if value.equals(other)? => {}
                        _ => return Ok(false),
                    }
                }
                Ok(true)
            }
        }
    }

    fn texts(&self, keys: Option<&[String]>) -> Result<BTreeSet<String>, Error> {
        self.iter().map(|item| identity(&item?, keys)).collect()
    }

    fn by_keys(&self, keys: &[String]) -> Result<BTreeMap<String, Value<'a>>, Error> {
        self.iter()
            .map(|item| {
                let item = item?;
                Ok((identity(&item, Some(keys))?, item))
            })
            .collect()
    }

    /// `a + b`: of sets their union, of maps by keys the elements of `b` over those of `a`.
    pub(super) fn concat(&self, other: &Self) -> Result<Self, Error> {
        let mut items: Vec<Value<'a>> = self.iter().collect::<Result<_, _>>()?;
        let (keys, decl) = match (self.kind(), self) {
            (ListKind::Set, Self::Json(_, decl) | Self::Merged(_, decl)) => (None, decl),
            (ListKind::Map(keys), Self::Json(_, decl) | Self::Merged(_, decl)) => {
                (Some(keys.as_slice()), decl)
            }
            _ => {
                for item in other.iter() {
                    items.push(item?);
                }
                return Ok(Self::Built(Arc::new(items)));
            }
        };
        let mut places = BTreeMap::new();
        for (index, item) in items.iter().enumerate() {
            places.insert(identity(item, keys)?, index);
        }
        for item in other.iter() {
            let item = item?;
            let end = items.len();
            match *places.entry(identity(&item, keys)?).or_insert(end) {
                index if index < end => items[index] = item,
                _ => items.push(item),
            }
        }
        Ok(Self::Merged(Arc::new(items), Arc::clone(decl)))
    }
}

/// What an element is known by in a set, or by its keys in a list that is a map.
fn identity(value: &Value<'_>, keys: Option<&[String]>) -> Result<String, Error> {
    let mut text = String::new();
    match (keys, value) {
        (None, Value::List(_) | Value::Map(_)) => {
            let told = "listSet operations are only supported on lists of scalar values";
            return Err(Error::new(told));
        }
        (Some(keys), Value::Map(map)) => {
            for key in keys {
                let mut member = map.find(&Key::String(key.clone()))?;
                if let (None, Map::Json(map, _)) = (&member, map) {
                    // A member whose name cannot be written is one nevertheless.
                    member = map.get(key).map(|json| Value::text(json.to_string()));
                }
                write_identity(member.as_ref(), &mut text);
            }
        }
        (_, value) => write_identity(Some(value), &mut text),
    }
    Ok(text)
}

fn write_identity(value: Option<&Value<'_>>, text: &mut String) {
    use fmt::Write as _;
    // Writing to a String cannot fail.
    let _ = match value {
        None => write!(text, "-;"),
        Some(Value::String(value)) => write!(text, "{:?};", &**value),
        Some(value) => write!(text, "{}:{value};", value.type_name()),
    };
}

fn item_of(decl: &Arc<Decl>) -> Option<&Arc<Decl>> {
    match &decl.shape {
        Shape::List(item, _) => Some(item),
        Shape::Any => Some(decl),
        _ => None,
    }
}

impl<'a> Map<'a> {
    pub fn len(&self) -> usize {
        match self {
            Self::Built(entries) => entries.len(),
            Self::Json(map, _) => map.len(),
        }
    }

    /// The value under a key, with fields of objects by their escaped names. A null field of an object is absent.
    pub(super) fn find(&self, key: &Key) -> Result<Option<Value<'a>>, Error> {
        match self {
            Self::Built(entries) => {
                let other = match key {
                    Key::Int(number) => u64::try_from(*number).ok().map(Key::Uint),
                    Key::Uint(number) => i64::try_from(*number).ok().map(Key::Int),
                    _ => None,
                };
                let found = entries.get(key);
                Ok(found.or_else(|| entries.get(&other?)).cloned())
            }
            Self::Json(map, decl) => {
                let Key::String(key) = key else {
                    return Err(Error::no_such_overload());
                };
                match &decl.shape {
                    Shape::Map(values) => {
                        map.get(key).map(|json| Value::of(json, values)).transpose()
                    }
                    Shape::Any => map.get(key).map(|json| Value::of(json, decl)).transpose(),
                    _ => {
                        let Some((name, field)) = decl.field(key) else {
                            return Ok(None);
                        };
                        match map.get(name) {
                            None | Some(Json::Null) => Ok(None),
                            Some(json) => Value::of(json, field).map(Some),
                        }
                    }
                }
            }
        }
    }

    /// The keys that rules see.
    pub(super) fn keys(&self) -> Vec<Value<'a>> {
        match self {
            Self::Built(entries) => entries
                .keys()
                .map(|key| match key {
                    Key::Bool(flag) => Value::Bool(*flag),
                    Key::Int(number) => Value::Int(*number),
                    Key::Uint(number) => Value::Uint(*number),
                    Key::String(text) => Value::text(text.as_str()),
                })
                .collect(),
            Self::Json(map, decl) => {
                let shown = |name: &'a str| match &decl.shape {
                    Shape::Object(_) => {
                        let escaped = super::declaration::escape(name)?;
                        decl.field(&escaped)?;
                        Some(match escaped == name {
                            true => Value::String(Text::Borrowed(name)),
                            false => Value::text(escaped),
                        })
                    }
                    _ => Some(Value::String(Text::Borrowed(name))),
                };
                map.keys().filter_map(|name| shown(name)).collect()
            }
        }
    }

    fn equals(&self, other: &Self) -> Result<bool, Error> {
        if self.len() != other.len() {
            return Ok(false);
        }
        if let (Self::Json(mine, decl), Self::Json(theirs, _)) = (self, other) {
            // What rules do not see is compared as JSON.
            let seen = |name: &String| match &decl.shape {
                Shape::Object(fields) => fields.get(name).is_some_and(|field| field.decl.is_some()),
                _ => true,
            };
            for (name, value) in mine.iter().filter(|(name, _)| !seen(name)) {
                if theirs.get(name).is_some_and(|other| other != value) {
                    return Ok(false);
                }
            }
        }
        for key in self.keys() {
            let Some(key) = key.key() else { continue };
            match (self.find(&key)?, other.find(&key)?) {
                (Some(a), Some(b)) if a.equals(&b)? => {}
                (None, None) => {}
                _ => return Ok(false),
            }
        }
        Ok(true)
    }
}
