//! From one version of a user's kind to another, by a webhook of the definition's: what it is asked, and what is made of its answer.
//!
//! Pure: calling it is for others. What the webhook may change of the metadata is labels and annotations; all else is as it was.
//!
//! Source: k8s.io/apiextensions-apiserver `pkg/apiserver/conversion/webhook_converter.go`.

use serde_json::{Map, Value, json};

use crate::lens::{items, text};
use crate::validate::metadata_causes;

/// How objects of a definition come from one version to another.
#[derive(Clone, Debug, PartialEq)]
pub enum Conversion {
    /// All versions have the same fields.
    None,
    Webhook {
        /// Where it is: `url` or `service`, and `caBundle`, as the definition has them.
        client: Value,
        /// The version of the review that it understands.
        review: &'static str,
    },
}

impl Conversion {
    pub(super) fn read(spec: &Value) -> Self {
        let webhook = spec.pointer("/conversion/webhook");
        let Some(webhook) = webhook.filter(|_| text(spec, "/conversion/strategy") == "Webhook")
        else {
            return Self::None;
        };
        let known = items(webhook, "/conversionReviewVersions").iter();
        let review = known
            .filter_map(Value::as_str)
            .find_map(|version| match version {
                "v1" => Some("v1"),
                "v1beta1" => Some("v1beta1"),
                _ => None,
            });
        Self::Webhook {
            client: webhook.get("clientConfig").cloned().unwrap_or_default(),
            review: review.unwrap_or("v1"),
        }
    }
}

/// What a webhook is asked: these objects, in this version.
pub fn review(version: &str, uid: &str, api_version: &str, objects: &[Value]) -> Value {
    json!({
        "kind": "ConversionReview",
        "apiVersion": format!("apiextensions.k8s.io/{version}"),
        "request": { "uid": uid, "desiredAPIVersion": api_version, "objects": objects },
    })
}

/// The objects of an answer, each with the metadata of the one that it was made from. An answer to a question about nothing is none.
///
/// # Errors
/// Why the answer is none, or is one to another question: the whole sentence.
pub fn converted(
    version: &str,
    uid: &str,
    api_version: &str,
    objects: &[Value],
    answer: &Value,
) -> Result<Vec<Value>, String> {
    let Some(first) = objects.first() else {
        return Ok(Vec::new());
    };
    let failed = |why: &str| failure(first, why);
    if version == "v1" {
        let expected = "apiextensions.k8s.io/v1, Kind=ConversionReview";
        let found = gvk(answer);
        if found != expected {
            let told = format!("expected webhook response of {expected}, got {found}");
            return Err(failed(&told));
        }
    }
    let response = answer
        .get("response")
        .filter(|response| response.is_object());
    let response = response.ok_or_else(|| failed("no response provided"))?;
    let found = text(response, "/uid");
    if version == "v1" && found != uid {
        let told = format!("expected response.uid={uid:?}, got {found:?}");
        return Err(failed(&told));
    }
    let status = text(response, "/result/status");
    if status != "Success" {
        let message = text(response, "/result/message");
        return Err(match message {
            "" => failed(&format!(
                "response.result.status was '{status}', not 'Success'"
            )),
            message => failed(message),
        });
    }
    let made = items(response, "/convertedObjects");
    if made.len() != objects.len() {
        return Err(format!(
            "conversion webhook for {} returned {} objects, expected {}",
            gvk(first),
            made.len(),
            objects.len()
        ));
    }
    let pairs = objects.iter().zip(made);
    pairs
        .map(|(before, after)| {
            one(api_version, before, after)
                .map_err(|why| format!("conversion webhook for {} returned {why}", gvk(before)))
        })
        .collect()
}

/// That a webhook did not convert an object.
pub fn failure(object: &Value, why: &str) -> String {
    format!("conversion webhook for {} failed: {why}", gvk(object))
}

/// Group, version and kind as Go prints them.
fn gvk(object: &Value) -> String {
    let version = text(object, "/apiVersion");
    let slash = if version.contains('/') { "" } else { "/" };
    format!("{slash}{version}, Kind={}", text(object, "/kind"))
}

fn one(api_version: &str, before: &Value, after: &Value) -> Result<Value, String> {
    let found = text(after, "/apiVersion");
    if found != api_version {
        return Err(format!(
            "invalid object at index 0: invalid groupVersion (expected {api_version}, received {found})"
        ));
    }
    let (was, is) = (text(before, "/kind"), text(after, "/kind"));
    if was != is {
        return Err(format!(
            "invalid object at index 0: invalid kind (expected {was}, received {is})"
        ));
    }
    for (what, pointer) in [
        ("name", "/metadata/name"),
        ("namespace", "/metadata/namespace"),
        ("UID", "/metadata/uid"),
    ] {
        let (was, is) = (text(before, pointer), text(after, pointer));
        if was != is {
            return Err(format!(
                "invalid object: must have the same {what}: {was} != {is}"
            ));
        }
    }
    let metadata = restored(before, after).map_err(|why| format!("invalid metadata: {why}"))?;
    let mut made = after.clone();
    made["metadata"] = metadata;
    Ok(made)
}

/// The metadata of an object with the labels and annotations that it was given.
fn restored(before: &Value, after: &Value) -> Result<Value, String> {
    let given = after
        .get("metadata")
        .ok_or("missing metadata in converted object")?;
    let Some(given) = given.as_object() else {
        return Err(format!(
            "invalid metadata of type {} in converted object",
            go_type(given)
        ));
    };
    let kept = before.get("metadata").and_then(Value::as_object);
    let mut kept: Map<String, Value> = kept.cloned().unwrap_or_default();
    for field in ["labels", "annotations"] {
        match given.get(field) {
            None | Some(Value::Null) => {
                kept.remove(field);
            }
            Some(Value::Object(map)) => {
                if let Some((key, value)) = map.iter().find(|(_, value)| !value.is_string()) {
                    return Err(format!(
                        "metadata.{field}[{key}] must be a string, but is {} in converted object",
                        go_type(value)
                    ));
                }
                if kept.get(field).and_then(Value::as_object) != Some(map) {
                    sound(field, map)?;
                }
                kept.insert(field.to_owned(), map.clone().into());
            }
            Some(other) => {
                return Err(format!(
                    "invalid metadata.{field} of type {} in converted object",
                    go_type(other)
                ));
            }
        }
    }
    Ok(kept.into())
}

/// Whether labels or annotations are such that an object may have.
fn sound(field: &str, map: &Map<String, Value>) -> Result<(), String> {
    let object = json!({ "metadata": { "name": "x", field: map } });
    let causes = metadata_causes(&object);
    let told = causes
        .iter()
        .filter(|cause| cause.field.starts_with(&format!("metadata.{field}")));
    let told: Vec<String> = told
        .map(|cause| format!("{}: {}", cause.field, cause.message))
        .collect();
    match told.is_empty() {
        true => Ok(()),
        false => Err(crate::admission::aggregate(told)),
    }
}

/// The Go type of a value that was read from JSON.
fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_changes_fields_labels_and_annotations_alone() {
        let before = json!({
            "apiVersion": "example.com/v1", "kind": "Widget",
            "metadata": { "name": "a", "namespace": "b", "uid": "u", "labels": { "x": "1" }, "finalizers": ["f/g"] },
            "spec": { "size": 3 },
        });
        let after = json!({
            "apiVersion": "example.com/v2", "kind": "Widget",
            "metadata": { "name": "a", "namespace": "b", "uid": "u", "labels": { "x": "2" }, "generation": 99 },
            "spec": { "sizes": [3] },
        });
        let objects = [before];
        let answer = |made: Value| {
            json!({
                "apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview",
                "response": { "uid": "q", "result": { "status": "Success" }, "convertedObjects": [made] },
            })
        };
        let ask = |answer: &Value| converted("v1", "q", "example.com/v2", &objects, answer);
        assert_eq!(
            ask(&answer(after.clone())).unwrap(),
            [json!({
                "apiVersion": "example.com/v2", "kind": "Widget",
                "metadata": { "name": "a", "namespace": "b", "uid": "u", "labels": { "x": "2" }, "finalizers": ["f/g"] },
                "spec": { "sizes": [3] },
            })]
        );
        let changed = |pointer: &str, value: Value| {
            let mut after = after.clone();
            *after.pointer_mut(pointer).unwrap() = value;
            ask(&answer(after)).unwrap_err()
        };
        for (pointer, value, expected) in [
            (
                "/apiVersion",
                json!("example.com/v3"),
                "invalid object at index 0: invalid groupVersion (expected example.com/v2, received example.com/v3)",
            ),
            (
                "/kind",
                json!("Other"),
                "invalid object at index 0: invalid kind (expected Widget, received Other)",
            ),
            (
                "/metadata/name",
                json!("z"),
                "invalid object: must have the same name: a != z",
            ),
            (
                "/metadata/uid",
                json!("z"),
                "invalid object: must have the same UID: u != z",
            ),
            (
                "/metadata",
                json!(1),
                "invalid object: must have the same name: a != ",
            ),
            (
                "/metadata/labels",
                json!([]),
                "invalid metadata: invalid metadata.labels of type []interface {} in converted object",
            ),
            (
                "/metadata/labels",
                json!({ "a": 1 }),
                "invalid metadata: metadata.labels[a] must be a string, but is int64 in converted object",
            ),
            (
                "/metadata/labels",
                json!({ "a": "-" }),
                "invalid metadata: metadata.labels: Invalid value: \"-\": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')",
            ),
        ] {
            let expected =
                format!("conversion webhook for example.com/v1, Kind=Widget returned {expected}");
            assert_eq!(changed(pointer, value), expected);
        }
        for (answer, expected) in [
            (
                json!({}),
                "failed: expected webhook response of apiextensions.k8s.io/v1, Kind=ConversionReview, got /, Kind=",
            ),
            (
                json!({ "apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview" }),
                "failed: no response provided",
            ),
            (
                json!({ "apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview", "response": { "uid": "z" } }),
                "failed: expected response.uid=\"q\", got \"z\"",
            ),
            (
                json!({ "apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview", "response": { "uid": "q", "result": { "status": "Failure", "message": "no" } } }),
                "failed: no",
            ),
            (
                json!({ "apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview", "response": { "uid": "q", "result": { "status": "Success" } } }),
                "returned 0 objects, expected 1",
            ),
        ] {
            let start = "conversion webhook for example.com/v1, Kind=Widget";
            assert_eq!(ask(&answer).unwrap_err(), format!("{start} {expected}"));
        }
    }
}
