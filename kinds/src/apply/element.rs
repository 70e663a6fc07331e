//! One step on the way to a field, its spelling in `FieldsV1` and in messages, and values that tell elements of a list apart.
//!
//! Invariant: order is that of structured-merge-diff (names, keys, values, indexes; numbers by size) and total.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use serde_json::{Number, Value};

use super::FieldsError;

/// Up to here, the whole part of a floating point number is exact as an `i128`.
const WHOLE_MAX: f64 = 1e38;

/// One step from what holds something to what it holds. Cloning is cheap: it is named once for each set that it is in.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Element {
    /// A member of a struct or map.
    Field(Arc<str>),
    /// The element of a list whose members have these values, sorted by name.
    Key(Arc<[(String, Plain)]>),
    /// The element of a set that is this value.
    Value(Plain),
    /// The element at this place of a list.
    Index(i64),
}

impl Element {
    pub fn field(name: &str) -> Self {
        Self::Field(name.into())
    }

    /// None for what a later version of the format may know: it is passed over.
    pub(super) fn parse(text: &str) -> Result<Option<Self>, FieldsError> {
        let fault = || FieldsError::Element(text.to_owned());
        let json = |text: &str| serde_json::from_str::<Value>(text).map_err(|_| fault());
        let mut letters = text.chars();
        let (Some(letter), Some(':')) = (letters.next(), letters.next()) else {
            return Err(fault());
        };
        let rest = letters.as_str();
        Ok(Some(match letter {
            'f' => Self::field(rest),
            'v' => Self::Value(Plain(json(rest)?)),
            'i' => Self::Index(rest.parse().map_err(|_| fault())?),
            'k' => match json(rest)? {
                Value::Object(keys) => Self::key(keys),
                _ => return Err(fault()),
            },
            _ => return Ok(None),
        }))
    }

    pub(super) fn key(keys: impl IntoIterator<Item = (String, Value)>) -> Self {
        let mut keys: Vec<_> = keys
            .into_iter()
            .map(|(name, value)| (name, Plain(value)))
            .collect();
        keys.sort();
        Self::Key(keys.into())
    }

    /// A member, as it stands in `FieldsV1`.
    pub(super) fn spelled_field(name: &str) -> String {
        ["f:", name].concat()
    }

    /// As it stands in `FieldsV1`.
    pub(super) fn spelled(&self) -> String {
        match self {
            Self::Field(name) => Self::spelled_field(name),
            Self::Key(keys) => {
                let member = |(name, value): &(String, Plain)| {
                    format!("{}:{}", go_json(&name.as_str().into()), go_json(&value.0))
                };
                let members: Vec<String> = keys.iter().map(member).collect();
                format!("k:{{{}}}", members.join(","))
            }
            Self::Value(value) => format!("v:{}", go_json(&value.0)),
            Self::Index(index) => format!("i:{index}"),
        }
    }
}

/// As messages write it: `.spec`, `[name="a",port=80]`, `[="a"]`, `[3]`.
impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(name) => write!(f, ".{name}"),
            Self::Key(keys) => {
                f.write_str("[")?;
                for (place, (name, value)) in keys.iter().enumerate() {
                    let comma = if place > 0 { "," } else { "" };
                    write!(f, "{comma}{name}={value}")?;
                }
                f.write_str("]")
            }
            Self::Value(value) => write!(f, "[={value}]"),
            Self::Index(index) => write!(f, "[{index}]"),
        }
    }
}

/// A value that tells elements apart: a scalar, unless somebody wrote otherwise into managedFields.
#[derive(Clone, Debug)]
pub struct Plain(pub(super) Value);

impl Plain {
    fn rank(&self) -> u8 {
        match self.0 {
            Value::Number(_) => 0,
            Value::String(_) => 1,
            Value::Bool(_) => 2,
            Value::Array(_) => 3,
            Value::Object(_) => 4,
            Value::Null => 5,
        }
    }
}

impl Ord for Plain {
    fn cmp(&self, other: &Self) -> Ordering {
        match (&self.0, &other.0) {
            (Value::Number(a), Value::Number(b)) => order(a, b),
            (Value::String(a), Value::String(b)) => a.cmp(b),
            (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
            (a, b) => {
                let ranks = self.rank().cmp(&other.rank());
                ranks.then_with(|| go_json(a).cmp(&go_json(b)))
            }
        }
    }
}

impl PartialOrd for Plain {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Plain {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Plain {}

impl fmt::Display for Plain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Value::String(text) => write!(f, "{text:?}"),
            value => f.write_str(&go_json(value)),
        }
    }
}

/// Numbers by size, however they are written: `1` and `1.0` are the same.
fn order(a: &Number, b: &Number) -> Ordering {
    /// The whole part and the rest; beyond what a whole part can be, the number itself is the rest.
    fn parts(number: &Number) -> (i128, f64) {
        if let Some(whole) = number.as_i64() {
            return (whole.into(), 0.0);
        }
        if let Some(whole) = number.as_u64() {
            return (whole.into(), 0.0);
        }
        let float = number.as_f64().unwrap_or_default();
        let whole = float.floor();
        let rest = if whole.abs() < WHOLE_MAX {
            float - whole
        } else {
            float
        };
        // A cast saturates.
        (whole as i128, rest)
    }
    let ((a, a_rest), (b, b_rest)) = (parts(a), parts(b));
    a.cmp(&b).then_with(|| a_rest.total_cmp(&b_rest))
}

/// Whether two values say the same: as `==`, with numbers by size.
pub(super) fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => order(a, b).is_eq(),
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            let member = |(name, a): (&String, &Value)| b.get(name).is_some_and(|b| same(a, b));
            a.len() == b.len() && a.iter().all(member)
        }
        (a, b) => a == b,
    }
}

/// JSON as Go writes it: whole numbers without a fraction, and what HTML could trip over escaped.
pub(super) fn go_json(value: &Value) -> String {
    match value {
        Value::Number(number) if number.is_f64() => {
            let float = number.as_f64().unwrap_or_default();
            match float.abs() {
                0.0 => "0".to_owned(),
                1e-6..1e21 => float.to_string(),
                _ => number.to_string(),
            }
        }
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(go_json).collect();
            format!("[{}]", items.join(","))
        }
        Value::Object(map) => {
            let member = |(name, value): (&String, &Value)| {
                format!("{}:{}", go_json(&name.as_str().into()), go_json(value))
            };
            let members: Vec<String> = map.iter().map(member).collect();
            format!("{{{}}}", members.join(","))
        }
        value => {
            let mut text = value.to_string();
            for (sign, escape) in [
                ('<', "\\u003c"),
                ('>', "\\u003e"),
                ('&', "\\u0026"),
                ('\u{2028}', "\\u2028"),
                ('\u{2029}', "\\u2029"),
            ] {
                if text.contains(sign) {
                    text = text.replace(sign, escape);
                }
            }
            text
        }
    }
}

/// Where a field is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Path(pub Vec<Element>);

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|element| element.fmt(f))
    }
}
