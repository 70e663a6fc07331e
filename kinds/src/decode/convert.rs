//! What Kubernetes says of the result of a strategic merge patch that is no object of its kind.
//!
//! Such a result never becomes JSON there: a map is converted to a Go value field by field, in the order of the struct, with
//! sentences of its own. Only the sentence is made here; whether the result is an object is judged as for all others.
//!
//! Source: k8s.io/apimachinery `pkg/runtime/converter.go`.

use serde_json::Value;

use super::scalar::{self, Special};
use super::typed::element_type;
use crate::schema::{Schema, Shape};

/// The first thing in `value` that cannot be converted.
pub(super) fn fault(schema: Schema<'static>, type_name: &str, value: &Value) -> Option<String> {
    if value.is_null() {
        return None;
    }
    let type_name = type_name.trim_start_matches('*');
    if let Some(special) = schema.special() {
        return special_fault(special, value);
    }
    let given = go_kind(value);
    match schema.shape() {
        Shape::Struct => {
            let Value::Object(map) = value else {
                return Some(format!("cannot restore struct from: {given}"));
            };
            schema
                .properties()
                .find_map(|(name, field)| fault(field, &field.go()?.type_name, map.get(name)?))
        }
        Shape::Map => {
            let Value::Object(map) = value else {
                return Some(format!("cannot restore map from {given}"));
            };
            let field = schema.additional()?;
            map.values()
                .find_map(|value| fault(field, element_type(type_name), value))
        }
        Shape::List => {
            let Value::Array(items) = value else {
                return Some(format!("cannot restore slice from {given}"));
            };
            let item = schema.items()?;
            items
                .iter()
                .find_map(|value| fault(item, element_type(type_name), value))
        }
        Shape::String => match value {
            Value::String(_) => None,
            // Go converts a whole number to the character of that code, so it is refused in other words.
            Value::Number(number) if !number.is_f64() => {
                Some(format!("cannot convert int64 to {type_name}"))
            }
            _ => Some("unrecognized type: string".to_owned()),
        },
        Shape::Integer | Shape::Number => match value {
            Value::Number(number)
                if number.as_f64().is_some_and(|number| number.fract() == 0.0) =>
            {
                None
            }
            Value::Number(_) if schema.shape() == Shape::Number => None,
            Value::Number(_) => Some(format!("cannot convert float64 to {type_name}")),
            _ => Some(format!("unrecognized type: {type_name}")),
        },
        Shape::Boolean => match value {
            Value::Bool(_) => None,
            _ => Some("unrecognized type: bool".to_owned()),
        },
        Shape::Free | Shape::NumberOrString => None,
    }
}

fn special_fault(special: Special, value: &Value) -> Option<String> {
    let given = match value {
        Value::String(text) => {
            let fault = special.parse(text).err()?;
            return Some(match special {
                Special::Bytes => format!("error decoding from json: {fault}"),
                _ => fault,
            });
        }
        Value::Number(number) if special == Special::IntOrString => {
            let whole = number
                .as_i64()
                .and_then(|number| i32::try_from(number).ok());
            return whole.is_none().then(|| {
                format!("json: cannot unmarshal number {number} into Go value of type int32")
            });
        }
        Value::Number(number) if special == Special::Quantity => {
            return scalar::quantity(&number.to_string()).err();
        }
        Value::Null => return None,
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::Array(_) if special == Special::Bytes => return None,
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    Some(match (special, special.decodes_through()) {
        (Special::Bytes, _) => format!("cannot restore slice from {}", go_kind(value)),
        (_, Some(type_name)) => {
            format!("json: cannot unmarshal {given} into Go value of type {type_name}")
        }
        (_, None) => scalar::QUANTITY_FORMAT.to_owned(),
    })
}

/// What Go calls the kind of a value that JSON was parsed into.
fn go_kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "invalid",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "slice",
        Value::Object(_) => "map",
    }
}
