//! Reading JSON objects by pointer, with the answer that Kubernetes gives for what is absent.
//!
//! Requests are handled as JSON values, not as structs, so that nothing a client sent is lost. These few
//! functions are how defaults, validation and columns look into them; none of them panics on a wrong type.

use jiff::Timestamp;
use serde_json::{Map, Value};

/// What is at `pointer`: what [`Value::pointer`] gives, without two texts of its own for each step.
pub fn at<'a>(value: &'a Value, pointer: &str) -> Option<&'a Value> {
    let Some(mut rest) = pointer.strip_prefix('/').filter(|_| is_plain(pointer)) else {
        return value.pointer(pointer);
    };
    let mut value = value;
    loop {
        let (step, next) = step(rest);
        value = match value {
            Value::Object(map) => map.get(step)?,
            Value::Array(_) => value.pointer(&format!("/{step}"))?,
            _ => return None,
        };
        match next {
            Some(next) => rest = next,
            None => return Some(value),
        }
    }
}

/// Whether no step is spelled other than it is.
fn is_plain(pointer: &str) -> bool {
    pointer.bytes().all(|byte| byte != b'~')
}

/// The first step of several, and the others. Steps are short: looking at each byte is faster than what finds one in long texts.
fn step(steps: &str) -> (&str, Option<&str>) {
    let end = steps.bytes().position(|byte| byte == b'/');
    match end.and_then(|end| steps.split_at_checked(end)) {
        Some((step, next)) => (step, next.get(1..)),
        None => (steps, None),
    }
}

/// As [`at`], to be changed.
pub fn at_mut<'a>(value: &'a mut Value, pointer: &str) -> Option<&'a mut Value> {
    let Some(mut rest) = pointer.strip_prefix('/').filter(|_| is_plain(pointer)) else {
        return value.pointer_mut(pointer);
    };
    let mut value = value;
    loop {
        let (step, next) = step(rest);
        value = match value {
            Value::Object(map) => map.get_mut(step)?,
            Value::Array(_) => value.pointer_mut(&format!("/{step}"))?,
            _ => return None,
        };
        match next {
            Some(next) => rest = next,
            None => return Some(value),
        }
    }
}

/// The string at `pointer`, or `""`.
pub fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    at(value, pointer).and_then(Value::as_str).unwrap_or("")
}

/// The integer at `pointer`, if there is one.
pub fn integer(value: &Value, pointer: &str) -> Option<i64> {
    at(value, pointer).and_then(Value::as_i64)
}

/// The boolean at `pointer`; absent is false.
pub fn flag(value: &Value, pointer: &str) -> bool {
    at(value, pointer).and_then(Value::as_bool).unwrap_or(false)
}

/// The array at `pointer`; absent is empty.
pub fn items<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    at(value, pointer)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

/// The object at `pointer`, if there is one.
pub fn object<'a>(value: &'a Value, pointer: &str) -> Option<&'a Map<String, Value>> {
    at(value, pointer).and_then(Value::as_object)
}

/// The mutable elements of the array at `pointer`.
pub fn items_mut<'a>(
    value: &'a mut Value,
    pointer: &str,
) -> impl Iterator<Item = &'a mut Value> + use<'a> {
    at_mut(value, pointer)
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
}

/// The RFC 3339 time at `pointer`.
pub fn time(value: &Value, pointer: &str) -> Option<Timestamp> {
    at(value, pointer)
        .and_then(Value::as_str)
        .and_then(|text| text.parse().ok())
}

/// The member `key` as an object, created when absent or of another type.
pub fn member<'a>(value: &'a mut Value, key: &str) -> &'a mut Value {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    let Value::Object(map) = value else {
        unreachable!("it is an object by now");
    };
    // An index that may insert would copy the name each time.
    if !map.get(key).is_some_and(Value::is_object) {
        map.insert(key.to_owned(), Value::Object(Map::new()));
    }
    map.get_mut(key).expect("it is there by now")
}

/// Sets `key` unless it already holds something other than null.
pub fn fill(value: &mut Value, key: &str, default: impl Into<Value>) {
    if let Some(map) = value.as_object_mut() {
        match map.get_mut(key) {
            Some(Value::Null) | None => {
                map.insert(key.to_owned(), default.into());
            }
            Some(_) => {}
        }
    }
}

/// Sets `key`, or removes it for `None`.
pub fn put(value: &mut Value, key: &str, new: Option<Value>) {
    if let Some(map) = value.as_object_mut() {
        match new {
            Some(new) => {
                map.insert(key.to_owned(), new);
            }
            None => {
                map.remove(key);
            }
        }
    }
}

/// Makes a list without elements null, as Kubernetes stores those that it always writes.
pub fn none_when_empty(value: &mut Value, key: &str) {
    if value
        .get(key)
        .and_then(Value::as_array)
        .is_some_and(Vec::is_empty)
    {
        put(value, key, Some(Value::Null));
    }
}

/// Whether a condition of this type has status `True`.
pub fn condition_is_true(value: &Value, kind: &str) -> bool {
    items(value, "/status/conditions")
        .iter()
        .any(|condition| text(condition, "/type") == kind && text(condition, "/status") == "True")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pointer_leads_where_that_of_the_standard_does() {
        let mut value =
            json!({"a": {"b/c": 1, "": {"": 2}, "d~": 3}, "l": [{"x": 4}, 5], "": 6, "0": 7});
        for pointer in [
            "", "/", "//", "/a", "/a/", "/a//", "/a/b~1c", "/a/d~0", "/a/d~", "/l", "/l/0/x",
            "/l/1", "/l/01", "/l/+1", "/l/2", "/l/x", "/l/0/x/y", "a", "/0", "/missing",
        ] {
            let expected = value.pointer(pointer).cloned();
            assert_eq!(at(&value, pointer), expected.as_ref(), "{pointer}");
            let found = at_mut(&mut value, pointer).map(|value| value.clone());
            assert_eq!(found, expected, "{pointer}");
        }
    }
}
