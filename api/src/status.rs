//! The one error of the API: `metav1.Status`, worded as Kubernetes words it.
//!
//! client-go switches on `reason`, kubectl prints `Error from server (Reason): message`, so both are exact.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// A refusal or failure, ready to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusError {
    /// HTTP status code.
    pub code: u16,
    /// As Kubernetes knows it, or as whoever refused said it; empty where nobody did.
    pub reason: Cow<'static, str>,
    pub message: String,
    /// Boxed: errors travel in every `Result`, and most of them have none.
    pub details: Option<Box<Details>>,
    /// `metadata.continue` of an expired list, so that a client can go on inconsistently.
    pub continue_token: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Details {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// The resource or kind; Kubernetes puts either here.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub kind: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<Cause>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_seconds: Option<u32>,
}

/// One of several reasons of a refusal: which field, and what is wrong with it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cause {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub field: String,
}

/// A value as JSON. A selector of labels has its members in the order of Go's struct.
fn shown(value: &Value) -> String {
    let labels = value.get("matchLabels");
    match (labels, value.get("matchExpressions"), value.as_object()) {
        (Some(labels), Some(expressions), Some(map)) if map.len() == 2 => {
            format!(r#"{{"matchLabels":{labels},"matchExpressions":{expressions}}}"#)
        }
        _ => value.to_string(),
    }
}

impl Cause {
    pub fn required(field: &str, detail: &str) -> Self {
        let message = match detail {
            "" => "Required value".to_owned(),
            detail => format!("Required value: {detail}"),
        };
        Self {
            reason: "FieldValueRequired".into(),
            message,
            field: field.into(),
        }
    }

    /// `value` is shown as JSON, as Kubernetes shows it.
    pub fn invalid(field: &str, value: &Value, detail: &str) -> Self {
        Self {
            reason: "FieldValueInvalid".into(),
            message: format!("Invalid value: {}: {detail}", shown(value)),
            field: field.into(),
        }
    }

    pub fn not_supported(field: &str, value: &Value, supported: &[&str]) -> Self {
        let list = supported
            .iter()
            .map(|s| format!("{s:?}"))
            .collect::<Vec<_>>()
            .join(", ");
        Self {
            reason: "FieldValueNotSupported".into(),
            message: format!("Unsupported value: {value}: supported values: {list}"),
            field: field.into(),
        }
    }

    pub fn duplicate(field: &str, value: &Value) -> Self {
        Self {
            reason: "FieldValueDuplicate".into(),
            message: format!("Duplicate value: {value}"),
            field: field.into(),
        }
    }

    pub fn forbidden(field: &str, detail: &str) -> Self {
        Self {
            reason: "FieldValueForbidden".into(),
            message: format!("Forbidden: {detail}"),
            field: field.into(),
        }
    }

    pub fn not_found(field: &str, value: &Value) -> Self {
        Self {
            reason: "FieldValueNotFound".into(),
            message: format!("Not found: {value}"),
            field: field.into(),
        }
    }

    pub fn too_long(field: &str, max_bytes: usize) -> Self {
        Self {
            reason: "FieldValueTooLong".into(),
            message: format!("Too long: may not be more than {max_bytes} bytes"),
            field: field.into(),
        }
    }
}

/// `deployments.apps`, or `pods` in the core group.
fn qualified(resource: &str, group: &str) -> String {
    if group.is_empty() {
        resource.into()
    } else {
        format!("{resource}.{group}")
    }
}

impl StatusError {
    fn new(code: u16, reason: &'static str, message: String) -> Self {
        Self {
            code,
            reason: Cow::Borrowed(reason),
            message,
            details: None,
            continue_token: None,
        }
    }

    #[must_use]
    pub fn with_details(mut self, details: Details) -> Self {
        self.details = Some(Box::new(details));
        self
    }

    fn about(self, resource: &str, group: &str, name: &str) -> Self {
        self.with_details(Details {
            name: name.into(),
            group: group.into(),
            kind: resource.into(),
            ..Details::default()
        })
    }

    pub fn not_found(resource: &str, group: &str, name: &str) -> Self {
        let message = format!("{} {name:?} not found", qualified(resource, group));
        Self::new(404, "NotFound", message).about(resource, group, name)
    }

    /// For a URL that names nothing this server serves.
    pub fn unknown_path() -> Self {
        let message = "the server could not find the requested resource".to_owned();
        Self::new(404, "NotFound", message).with_details(Details::default())
    }

    pub fn already_exists(resource: &str, group: &str, name: &str) -> Self {
        let message = format!("{} {name:?} already exists", qualified(resource, group));
        Self::new(409, "AlreadyExists", message).about(resource, group, name)
    }

    /// `detail` is the sentence behind the colon.
    pub fn conflict(resource: &str, group: &str, name: &str, detail: &str) -> Self {
        let message = format!(
            "Operation cannot be fulfilled on {} {name:?}: {detail}",
            qualified(resource, group)
        );
        Self::new(409, "Conflict", message).about(resource, group, name)
    }

    /// The object changed since it was read.
    pub fn modified(resource: &str, group: &str, name: &str) -> Self {
        let detail = "the object has been modified; please apply your changes to the latest version and try again";
        Self::conflict(resource, group, name, detail)
    }

    /// The object breaks rules of its kind; `causes` name each field.
    pub fn invalid(kind: &str, group: &str, name: &str, causes: Vec<Cause>) -> Self {
        let mut seen = BTreeSet::new();
        let list: Vec<String> = causes
            .iter()
            .map(|c| match c.field.as_str() {
                "" => c.message.clone(),
                field => format!("{field}: {}", c.message),
            })
            // What was found twice is told once; the causes have both.
            .filter(|told| seen.insert(told.clone()))
            .collect();
        let list = match list.as_slice() {
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        let message = format!("{} {name:?} is invalid: {list}", qualified(kind, group));
        Self::new(422, "Invalid", message).with_details(Details {
            name: name.into(),
            group: group.into(),
            kind: kind.into(),
            causes,
            ..Details::default()
        })
    }

    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message.into())
    }

    pub fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized".into())
    }

    /// `detail` is the sentence behind `is forbidden: `.
    pub fn forbidden(resource: &str, group: &str, name: &str, detail: &str) -> Self {
        let subject = match name {
            "" => qualified(resource, group),
            name => format!("{} {name:?}", qualified(resource, group)),
        };
        Self::new(
            403,
            "Forbidden",
            format!("{subject} is forbidden: {detail}"),
        )
        .about(resource, group, name)
    }

    /// A refusal that is about no resource, such as a path.
    pub fn forbidden_message(message: impl Into<String>) -> Self {
        Self::new(403, "Forbidden", message.into()).with_details(Details::default())
    }

    pub fn method_not_allowed() -> Self {
        let message = "the server does not allow this method on the requested resource".to_owned();
        Self::new(405, "MethodNotAllowed", message).with_details(Details::default())
    }

    pub fn not_acceptable(accepted: &str) -> Self {
        let message = format!("only the following media types are accepted: {accepted}");
        Self::new(406, "NotAcceptable", message)
    }

    pub fn unsupported_media_type(message: impl Into<String>) -> Self {
        Self::new(415, "UnsupportedMediaType", message.into())
    }

    pub fn request_entity_too_large(message: impl Into<String>) -> Self {
        Self::new(413, "RequestEntityTooLarge", message.into())
    }

    /// A resourceVersion or continue token older than the kept history.
    pub fn gone_expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message.into())
    }

    pub fn too_many_requests(message: impl Into<String>, retry_after_seconds: u32) -> Self {
        Self::new(429, "TooManyRequests", message.into()).with_details(Details {
            retry_after_seconds: Some(retry_after_seconds),
            ..Details::default()
        })
    }

    /// A failure that Kubernetes has no word for, only a sentence.
    pub fn without_reason(code: u16, message: impl Into<String>) -> Self {
        Self::new(code, "", message.into())
    }

    pub fn internal(message: impl fmt::Display) -> Self {
        let message = format!("Internal error occurred: {message}");
        Self::new(500, "InternalError", message)
    }

    /// 500 without a reason: what Kubernetes makes of an error that it has no status for.
    pub fn unknown(message: impl Into<String>) -> Self {
        Self::new(500, "", message.into())
    }

    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(503, "ServiceUnavailable", message.into())
    }

    /// Nothing was done, and the same request may be sent again after so many seconds: 503 with `Retry-After`.
    pub fn try_again(message: impl Into<String>, retry_after_seconds: u32) -> Self {
        Self::unavailable(message).with_details(Details {
            retry_after_seconds: Some(retry_after_seconds),
            ..Details::default()
        })
    }

    /// 409 in words of our own, for what is no object.
    pub fn conflict_message(message: impl Into<String>) -> Self {
        Self::new(409, "Conflict", message.into())
    }

    pub fn timeout(message: impl Into<String>) -> Self {
        Self::new(504, "Timeout", message.into())
    }

    /// 408: the client was too slow in saying what it wants; nothing was done.
    pub fn request_timeout(message: impl Into<String>) -> Self {
        Self::new(408, "Timeout", message.into())
    }

    /// It was not answered in time: whether it was done is not known.
    pub fn is_timeout(&self) -> bool {
        self.reason == "Timeout"
    }

    pub fn is_not_found(&self) -> bool {
        self.reason == "NotFound"
    }

    pub fn is_conflict(&self) -> bool {
        self.reason == "Conflict"
    }

    pub fn is_already_exists(&self) -> bool {
        self.reason == "AlreadyExists"
    }

    /// The `metav1.Status` object.
    pub fn to_value(&self) -> Value {
        let mut metadata = json!({});
        if let Some(token) = &self.continue_token {
            metadata["continue"] = json!(token);
        }
        let mut status = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": metadata,
            "status": "Failure",
            "message": self.message,
            "code": self.code,
        });
        if !self.reason.is_empty() {
            status["reason"] = json!(self.reason);
        }
        if let Some(details) = &self.details {
            status["details"] = json!(details);
        }
        status
    }
}

impl fmt::Display for StatusError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for StatusError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_those_of_kubernetes() {
        for (error, code, message) in [
            (
                StatusError::not_found("pods", "", "x"),
                404,
                r#"pods "x" not found"#,
            ),
            (
                StatusError::already_exists("deployments", "apps", "web"),
                409,
                r#"deployments.apps "web" already exists"#,
            ),
            (
                StatusError::modified("deployments", "apps", "web"),
                409,
                r#"Operation cannot be fulfilled on deployments.apps "web": the object has been modified; please apply your changes to the latest version and try again"#,
            ),
            (
                StatusError::invalid(
                    "Deployment",
                    "apps",
                    "web",
                    vec![Cause::invalid(
                        "spec.replicas",
                        &json!(-1),
                        "must be greater than or equal to 0",
                    )],
                ),
                422,
                r#"Deployment.apps "web" is invalid: spec.replicas: Invalid value: -1: must be greater than or equal to 0"#,
            ),
            (
                StatusError::forbidden("pods", "", "", r#"User "u" cannot list resource "pods""#),
                403,
                r#"pods is forbidden: User "u" cannot list resource "pods""#,
            ),
        ] {
            assert_eq!((error.code, error.message.as_str()), (code, message));
            assert_eq!(error.to_value()["status"], "Failure");
        }
    }
}
