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

/// The objects of an answer, each with the metadata of the one that it was made from.
///
/// # Errors
/// Why the answer is none, or is one to another question.
pub fn converted(
    version: &str,
    uid: &str,
    api_version: &str,
    objects: &[Value],
    answer: &Value,
) -> Result<Vec<Value>, String> {
    if version == "v1" {
        let expected = "apiextensions.k8s.io/v1, Kind=ConversionReview";
        let found = format!(
            "{}, Kind={}",
            text(answer, "/apiVersion"),
            text(answer, "/kind")
        );
        if found != expected {
            return Err(format!(
                "expected webhook response of {expected}, got {found}"
            ));
        }
    }
    let response = answer
        .get("response")
        .filter(|response| response.is_object());
    let response = response.ok_or("no response provided")?;
    let found = text(response, "/uid");
    if version == "v1" && found != uid {
        return Err(format!("expected response.uid={uid:?}, got {found:?}"));
    }
    let status = text(response, "/result/status");
    if status != "Success" {
        let message = text(response, "/result/message");
        return Err(match message {
            "" => format!("response.result.status was '{status}', not 'Success'"),
            message => message.to_owned(),
        });
    }
    let made = items(response, "/convertedObjects");
    if made.len() != objects.len() {
        return Err(format!(
            "returned {} objects, expected {}",
            made.len(),
            objects.len()
        ));
    }
    let pairs = objects.iter().zip(made).enumerate();
    pairs
        .map(|(index, (before, after))| {
            one(api_version, before, after)
                .map_err(|why| format!("returned invalid converted object at index {index}: {why}"))
        })
        .collect()
}

fn one(api_version: &str, before: &Value, after: &Value) -> Result<Value, String> {
    let found = text(after, "/apiVersion");
    if found != api_version {
        return Err(format!(
            "invalid groupVersion (expected {api_version}, received {found})"
        ));
    }
    for (what, pointer) in [
        ("kind", "/kind"),
        ("name", "/metadata/name"),
        ("namespace", "/metadata/namespace"),
        ("UID", "/metadata/uid"),
    ] {
        let (was, is) = (text(before, pointer), text(after, pointer));
        if was != is {
            return Err(format!("must have the same {what}: {was} != {is}"));
        }
    }
    let mut made = after.clone();
    let metadata = after.get("metadata").and_then(Value::as_object);
    let metadata = metadata.ok_or("missing metadata in converted object")?;
    let mut kept: Map<String, Value> = before
        .get("metadata")
        .and_then(Value::as_object)
        .cloned()
        .unwrap_or_default();
    for field in ["labels", "annotations"] {
        match metadata.get(field) {
            None | Some(Value::Null) => {
                kept.remove(field);
            }
            Some(Value::Object(map)) => {
                if let Some((key, value)) = map.iter().find(|(_, value)| !value.is_string()) {
                    return Err(format!(
                        "metadata.{field}[{key}] must be a string, but is {value} in converted object"
                    ));
                }
                kept.insert(field.to_owned(), map.clone().into());
            }
            Some(_) => return Err(format!("invalid metadata.{field} in converted object")),
        }
    }
    made["metadata"] = kept.into();
    if let Some(cause) = metadata_causes(&made).into_iter().next() {
        return Err(format!("{}: {}", cause.field, cause.message));
    }
    Ok(made)
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
                "invalid groupVersion (expected example.com/v2, received example.com/v3)",
            ),
            (
                "/kind",
                json!("Other"),
                "must have the same kind: Widget != Other",
            ),
            (
                "/metadata/name",
                json!("z"),
                "must have the same name: a != z",
            ),
            (
                "/metadata/uid",
                json!("z"),
                "must have the same UID: u != z",
            ),
            ("/metadata", json!(1), "must have the same name: a != "),
            (
                "/metadata/labels",
                json!([]),
                "invalid metadata.labels in converted object",
            ),
        ] {
            let expected = format!("returned invalid converted object at index 0: {expected}");
            assert_eq!(changed(pointer, value), expected);
        }
        for (answer, expected) in [
            (
                json!({}),
                "expected webhook response of apiextensions.k8s.io/v1, Kind=ConversionReview, got , Kind=",
            ),
            (
                json!({ "apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview" }),
                "no response provided",
            ),
            (
                json!({ "apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview", "response": { "uid": "z" } }),
                "expected response.uid=\"q\", got \"z\"",
            ),
            (
                json!({ "apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview", "response": { "uid": "q", "result": { "status": "Failure", "message": "no" } } }),
                "no",
            ),
            (
                json!({ "apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview", "response": { "uid": "q", "result": { "status": "Success" } } }),
                "returned 0 objects, expected 1",
            ),
        ] {
            assert_eq!(ask(&answer).unwrap_err(), expected);
        }
    }
}
