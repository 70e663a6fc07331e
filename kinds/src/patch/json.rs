//! JSON patch, RFC 6902, as the server of Kubernetes runs it: on a copy, operation by operation.
//!
//! Where the RFC leaves room, and where it is not followed there, github.com/evanphx/json-patch decides: a member that is not there
//! equals null, is copied as null and can be replaced, and an index below zero counts from the end.
//!
//! Invariants: no state between two operations is nested deeper than [`DEPTH_MAX`], whatever was moved where; copies
//! are bounded in bytes, and looking for depth is bounded in nodes, so that neither memory nor time follows from anything
//! but the size of the request. Nothing here recurses into a value that was not measured.

use serde_json::{Map, Value};
use weft_api::status::{Details, StatusError};

use super::OPERATIONS_MAX;
use crate::decode::{DEPTH_MAX, is_within};

/// Bytes that all `copy` operations of one JSON patch may duplicate. Thirty copies of the root into itself would
/// otherwise make a gigabyte; Kubernetes allows as much as a request body.
const COPY_BYTES_MAX: usize = 3 << 20;

/// Values that are looked at to learn how deep what is added, moved and copied reaches: the largest object some dozen
/// times, which takes tenths of a second. Elements that make place in a list count [`SHIFTED_PER_LOOK`] to one.
const MEASURED_MAX: usize = 10_000_000;
const SHIFTED_PER_LOOK: usize = 32;

/// Applies a patch to a copy of `current`.
///
/// # Errors
/// 400 for what is no list of operations, 413 for too many, 422 for an operation that does not fit or makes too much.
pub(super) fn apply(current: &Value, patch: &Value) -> Result<Value, StatusError> {
    let Value::Array(items) = patch else {
        return Err(undecodable("it is not a list of operations"));
    };
    if items.len() > OPERATIONS_MAX {
        return Err(StatusError::request_entity_too_large(format!(
            "Request entity too large: The allowed maximum operations in a JSON patch is {OPERATIONS_MAX}, got {}",
            items.len()
        )));
    }
    let operations: Vec<&Map<String, Value>> = items
        .iter()
        .map(|item| {
            item.as_object()
                .ok_or_else(|| undecodable("an operation is not an object"))
        })
        .collect::<Result<_, _>>()?;
    let mut state = State {
        document: current.clone(),
        copied: 0,
        measured: 0,
    };
    for (index, operation) in operations.into_iter().enumerate() {
        state.step(operation).map_err(|fault| match fault {
            Fault::Unfit(why) => unfit(index, operation, why),
            Fault::Bound(what) => rejected(&what),
        })?;
    }
    Ok(state.document)
}

fn undecodable(why: &str) -> StatusError {
    StatusError::bad_request(format!("error decoding patch: {why}"))
}

/// 422 for an operation that does not fit the object it is applied to.
fn unfit(index: usize, operation: &Map<String, Value>, why: &str) -> StatusError {
    let member = |name: &str| operation.get(name).and_then(Value::as_str).unwrap_or("");
    let (path, op) = (member("path"), member("op"));
    let done = match op {
        "test" => "testing value at",
        op => op,
    };
    rejected(&format!(
        "operation '/{index}' failed at path '{path}': {why}: {done} {path}"
    ))
}

/// 422 in Kubernetes' words, with ours behind them.
fn rejected(why: &str) -> StatusError {
    // kubectl prints the message only where there are no causes.
    let mut refused = StatusError::invalid("", "", "", Vec::new());
    refused.message =
        format!("the server rejected our request due to an error in our request: {why}");
    refused.with_details(Details::default())
}

enum Fault {
    /// What the operation asks for cannot be done to this object.
    Unfit(&'static str),
    Bound(String),
}

type Step<T = ()> = Result<T, Fault>;

const MISSING: Fault = Fault::Unfit("there is nothing at the path");
const NO_INDEX: Fault = Fault::Unfit("the path does not name an element of the list");

struct State {
    document: Value,
    copied: usize,
    measured: usize,
}

impl State {
    fn step(&mut self, operation: &Map<String, Value>) -> Step {
        let text = |name: &str| {
            let value = operation.get(name).and_then(Value::as_str);
            value.ok_or(Fault::Unfit("a member is missing or is not a string"))
        };
        let path = Pointer::parse(text("path")?)?;
        self.within_measure()?;
        match text("op")? {
            "add" => self.add(&path, value_of(operation).clone()),
            "remove" => self.remove(&path).map(drop),
            "replace" => self.replace(&path, value_of(operation).clone()),
            "move" => {
                let from = Pointer::parse(text("from")?)?;
                if path.0.starts_with(&from.0) && path.0.len() > from.0.len() {
                    return Err(Fault::Unfit("a value cannot be moved into itself"));
                }
                let value = self.remove(&from)?;
                self.add(&path, value)
            }
            "copy" => {
                let from = Pointer::parse(text("from")?)?;
                let source = found(&self.document, &from)?;
                self.copied += source.to_string().len();
                if self.copied > COPY_BYTES_MAX {
                    return Err(Fault::Bound(format!(
                        "the copy operations of the JSON patch duplicate more than {COPY_BYTES_MAX} bytes"
                    )));
                }
                let value = source.clone();
                self.add(&path, value)
            }
            "test" => match found(&self.document, &path)? == value_of(operation) {
                true => Ok(()),
                false => Err(Fault::Unfit("value did not match")),
            },
            _ => Err(Fault::Unfit("unknown operation")),
        }
    }

    fn add(&mut self, path: &Pointer, value: Value) -> Step {
        self.measure(path, &value)?;
        let Some((last, parents)) = path.0.split_last() else {
            self.document = value;
            return Ok(());
        };
        match find_mut(&mut self.document, parents).ok_or(MISSING)? {
            Value::Object(map) => {
                map.insert(last.clone(), value);
                Ok(())
            }
            Value::Array(items) => {
                let at = match last.as_str() {
                    "-" => items.len(),
                    // One place more than there are elements.
                    last => index(last, items.len() + 1).ok_or(NO_INDEX)?,
                };
                self.measured += (items.len() - at) / SHIFTED_PER_LOOK;
                items.insert(at, value);
                Ok(())
            }
            _ => Err(MISSING),
        }
    }

    fn replace(&mut self, path: &Pointer, value: Value) -> Step {
        self.measure(path, &value)?;
        let Some((last, parents)) = path.0.split_last() else {
            if !value.is_object() && !value.is_array() {
                return Err(Fault::Unfit("the value is no object and no list"));
            }
            self.document = value;
            return Ok(());
        };
        match find_mut(&mut self.document, parents).ok_or(MISSING)? {
            Value::Object(map) => {
                map.insert(last.clone(), value);
            }
            Value::Array(items) => {
                let at = index(last, items.len()).ok_or(NO_INDEX)?;
                *items.get_mut(at).ok_or(NO_INDEX)? = value;
            }
            _ => return Err(MISSING),
        }
        Ok(())
    }

    fn remove(&mut self, path: &Pointer) -> Step<Value> {
        let Some((last, parents)) = path.0.split_last() else {
            return Ok(self.document.take());
        };
        match find_mut(&mut self.document, parents).ok_or(MISSING)? {
            Value::Object(map) => map.remove(last).ok_or(MISSING),
            Value::Array(items) => {
                let at = index(last, items.len()).ok_or(NO_INDEX)?;
                self.measured += (items.len() - at) / SHIFTED_PER_LOOK;
                Ok(items.remove(at))
            }
            _ => Err(MISSING),
        }
    }

    fn within_measure(&self) -> Step {
        match self.measured > MEASURED_MAX {
            true => Err(Fault::Bound(
                "the operations of the JSON patch move too much".to_owned(),
            )),
            false => Ok(()),
        }
    }

    /// Refuses a value that would reach too deep at this place.
    fn measure(&mut self, path: &Pointer, value: &Value) -> Step {
        let levels = DEPTH_MAX.checked_sub(path.0.len());
        let fits = levels.is_some_and(|levels| is_within(value, levels, &mut self.measured));
        self.within_measure()?;
        match fits {
            true => Ok(()),
            false => Err(Fault::Bound(format!(
                "the JSON patch nests values deeper than {DEPTH_MAX}"
            ))),
        }
    }
}

/// The operand; one that is absent is null to the library that decides.
fn value_of(operation: &Map<String, Value>) -> &Value {
    operation.get("value").unwrap_or(&Value::Null)
}

/// The unescaped tokens of a JSON pointer.
struct Pointer(Vec<String>);

impl Pointer {
    fn parse(text: &str) -> Step<Self> {
        if text.is_empty() {
            return Ok(Self(Vec::new()));
        }
        let tokens = text
            .strip_prefix('/')
            .ok_or(Fault::Unfit("the path does not begin with a slash"))?;
        Ok(Self(
            tokens
                .split('/')
                .map(|token| token.replace("~1", "/").replace("~0", "~"))
                .collect(),
        ))
    }
}

/// What is at a place. A member that is not there is null to the server of Kubernetes, and its clients build on it; but what
/// should hold it must be there.
fn found<'a>(document: &'a Value, path: &Pointer) -> Step<&'a Value> {
    let Some((last, parents)) = path.0.split_last() else {
        return Ok(document);
    };
    match find(document, parents).ok_or(MISSING)? {
        Value::Object(map) => Ok(map.get(last).unwrap_or(&Value::Null)),
        Value::Array(items) => {
            let at = index(last, items.len()).ok_or(NO_INDEX)?;
            items.get(at).ok_or(NO_INDEX)
        }
        _ => Err(MISSING),
    }
}

fn find<'a>(mut value: &'a Value, tokens: &[String]) -> Option<&'a Value> {
    for token in tokens {
        value = match value {
            Value::Object(map) => map.get(token)?,
            Value::Array(items) => items.get(index(token, items.len())?)?,
            _ => return None,
        };
    }
    Some(value)
}

fn find_mut<'a>(mut value: &'a mut Value, tokens: &[String]) -> Option<&'a mut Value> {
    for token in tokens {
        value = match value {
            Value::Object(map) => map.get_mut(token)?,
            Value::Array(items) => {
                let at = index(token, items.len())?;
                items.get_mut(at)?
            }
            _ => return None,
        };
    }
    Some(value)
}

/// The place that a token names among so many.
fn index(token: &str, length: usize) -> Option<usize> {
    let (digits, from_end) = match token.strip_prefix('-') {
        Some(digits) => (digits, true),
        None => (token, false),
    };
    let sound = digits.bytes().all(|byte| byte.is_ascii_digit())
        && (digits.len() == 1 || !digits.starts_with('0'));
    let number: usize = digits.parse().ok().filter(|_| sound)?;
    let at = match from_end {
        true => length.checked_sub(number)?,
        false => number,
    };
    (at < length).then_some(at)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn patched(current: Value, patch: Value) -> Result<Value, u16> {
        apply(&current, &patch).map_err(|error| error.code)
    }

    #[test]
    fn operations_do_what_the_library_of_kubernetes_does() {
        let list = || json!({ "a": [1, 2], "o": { "x/y": 1, "~": 2 } });
        for (patch, expected) in [
            (
                json!([{ "op": "add", "path": "/a/-", "value": 3 }]),
                Ok(json!({ "a": [1, 2, 3], "o": { "x/y": 1, "~": 2 } })),
            ),
            (
                json!([{ "op": "add", "path": "/a/2", "value": 3 }]),
                Ok(json!({ "a": [1, 2, 3], "o": { "x/y": 1, "~": 2 } })),
            ),
            (
                json!([{ "op": "add", "path": "/a/3", "value": 3 }]),
                Err(422),
            ),
            (json!([{ "op": "remove", "path": "/a/01" }]), Err(422)),
            (
                json!([{ "op": "remove", "path": "/o/x~1y" }, { "op": "replace", "path": "/o/~0", "value": 3 }]),
                Ok(json!({ "a": [1, 2], "o": { "~": 3 } })),
            ),
            (
                json!([{ "op": "copy", "from": "/a", "path": "/b" }, { "op": "move", "from": "/o", "path": "/b/0" }]),
                Ok(json!({ "a": [1, 2], "b": [{ "x/y": 1, "~": 2 }, 1, 2] })),
            ),
            (
                json!([{ "op": "move", "from": "/o", "path": "/o/x" }]),
                Err(422),
            ),
            (
                json!([{ "op": "replace", "path": "/o", "value": 3 }, { "op": "replace", "path": "/b", "value": 3 }]),
                Ok(json!({ "a": [1, 2], "o": 3, "b": 3 })),
            ),
            (
                json!([{ "op": "replace", "path": "/b/c", "value": 3 }]),
                Err(422),
            ),
            (
                json!([{ "op": "replace", "path": "/a/2", "value": 3 }]),
                Err(422),
            ),
            (
                json!([{ "op": "copy", "from": "/b", "path": "/o" }]),
                Ok(json!({ "a": [1, 2], "o": null })),
            ),
            (
                json!([{ "op": "move", "from": "/b", "path": "/o" }]),
                Err(422),
            ),
            (
                json!([{ "op": "replace", "path": "", "value": [1.5] }]),
                Ok(json!([1.5])),
            ),
            (
                json!([{ "op": "replace", "path": "", "value": 1.5 }]),
                Err(422),
            ),
            (json!([{ "op": "add", "path": "x", "value": 3 }]), Err(422)),
            (json!([{ "op": "explode", "path": "/x" }]), Err(422)),
            (json!([{ "path": "/x" }]), Err(422)),
            (json!([1]), Err(400)),
            (json!({}), Err(400)),
        ] {
            assert_eq!(patched(list(), patch.clone()), expected, "{patch}");
        }
    }

    #[test]
    fn a_member_that_is_not_there_equals_null_in_a_test() {
        let add_first = json!([
            { "op": "test", "path": "/metadata/finalizers", "value": null },
            { "op": "add", "path": "/metadata/finalizers", "value": ["x.dev/f"] },
        ]);
        let once = patched(json!({ "metadata": {} }), add_first.clone()).unwrap();
        assert_eq!(once, json!({ "metadata": { "finalizers": ["x.dev/f"] } }));
        assert_eq!(patched(once, add_first), Err(422));
        for (path, value, fits) in [
            ("/nothing", json!(null), true),
            ("/metadata/none", json!(null), true),
            ("/no/such/thing", json!(null), false),
            ("/name/none", json!(null), false),
            ("/list/0", json!(1), true),
            ("/list/1", json!(null), false),
            ("/no/such/thing", json!(""), false),
            ("/metadata", json!(null), false),
        ] {
            let test = json!([{ "op": "test", "path": path, "value": value }]);
            assert_eq!(
                patched(json!({ "metadata": {}, "name": "x", "list": [1] }), test).is_ok(),
                fits,
                "{path}"
            );
        }
        let without_value = json!([{ "op": "test", "path": "/x" }]);
        assert!(patched(json!({}), without_value).is_ok());
    }

    fn nested(levels: usize) -> Value {
        (0..levels).fold(json!(1), |inner, _| json!({ "x": inner }))
    }

    fn down(levels: usize) -> String {
        "/x".repeat(levels)
    }

    #[test]
    fn moves_cannot_build_depth_that_a_body_could_not_have() {
        // Three operations make sixty levels more; ten thousand would overflow any stack.
        let mut operations = Vec::new();
        for _ in 0..3_000 {
            operations.push(json!({ "op": "add", "path": "/b", "value": nested(60) }));
            operations
                .push(json!({ "op": "move", "from": "/a", "path": format!("/b{}", down(60)) }));
            operations.push(json!({ "op": "move", "from": "/b", "path": "/a" }));
        }
        assert_eq!(
            patched(json!({ "a": 1 }), Value::Array(operations)),
            Err(422)
        );
        let deepest = json!([{ "op": "add", "path": "/a", "value": nested(DEPTH_MAX - 1) }]);
        assert!(patched(json!({}), deepest).is_ok());
        let deeper = json!([{ "op": "add", "path": "/a", "value": nested(DEPTH_MAX) }]);
        assert_eq!(patched(json!({}), deeper), Err(422));
        let copied = json!([{ "op": "copy", "from": "", "path": "/a/x" }]);
        assert_eq!(
            patched(json!({ "a": nested(DEPTH_MAX - 1) }), copied),
            Err(422)
        );
        let long = json!([{ "op": "test", "path": down(100_000), "value": null }]);
        assert_eq!(patched(json!({}), long), Err(422));
    }

    #[test]
    fn what_is_moved_about_is_bounded() {
        let many: Vec<Value> = (0..100_000).map(|_| json!(1)).collect();
        let mut operations = Vec::new();
        for _ in 0..1_000 {
            operations.push(json!({ "op": "move", "from": "/a", "path": "/b" }));
            operations.push(json!({ "op": "move", "from": "/b", "path": "/a" }));
        }
        assert_eq!(
            patched(json!({ "a": many }), Value::Array(operations)),
            Err(422)
        );
        let bomb: Vec<Value> = (0..40)
            .map(|i| json!({ "op": "copy", "from": "", "path": format!("/x{i}") }))
            .collect();
        assert_eq!(
            patched(json!({ "a": "long enough to grow" }), Value::Array(bomb)),
            Err(422)
        );
    }
}
