//! DeleteOptions, from a body or from the query.

use serde_json::{Value, json};
use weft_api::status::{Cause, StatusError};
use weft_kinds::lens::{fill, integer, text};

use crate::http::large::Received;
use crate::http::negotiate;
use crate::objects::{DeleteOptions, Propagation};
use crate::request::Params;

/// The DeleteOptions in a body; none where it is empty.
pub(super) fn sent_options(received: &Received) -> Result<Option<Value>, StatusError> {
    let Received { headers, body, .. } = received;
    if body.is_empty() {
        return Ok(None);
    }
    let sent = negotiate::decode(headers, body)?.value;
    if !sent.is_object() {
        let found = go_type(&sent);
        return Err(StatusError::bad_request(format!(
            "couldn't get version/kind; json parse error: json: cannot unmarshal {found} into Go value of type struct {{ APIVersion string \"json:\\\"apiVersion,omitempty\\\"\"; Kind string \"json:\\\"kind,omitempty\\\"\" }}"
        )));
    }
    // Options of something else are none: what was meant as a try would delete.
    let kind = text(&sent, "/kind");
    if !matches!(kind, "" | "DeleteOptions") {
        return Err(StatusError::bad_request(format!(
            "no kind {kind:?} is registered for version {:?} in scheme \"pkg/runtime/scheme.go:111\"",
            text(&sent, "/apiVersion")
        )));
    }
    for (field, of, is) in [
        (
            "gracePeriodSeconds",
            "int64",
            Value::is_i64 as fn(&Value) -> bool,
        ),
        ("propagationPolicy", "DeletionPropagation", Value::is_string),
        ("orphanDependents", "bool", Value::is_boolean),
        ("dryRun", "[]string", Value::is_array),
    ] {
        let value = &sent[field];
        if !value.is_null() && !is(value) {
            let found = go_type(value);
            return Err(StatusError::bad_request(format!(
                "json: cannot unmarshal {found} into Go struct field DeleteOptions.{field} of type {of}"
            )));
        }
    }
    Ok(Some(sent))
}

/// What Go's reader of JSON calls a value.
fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::String(_) => "string",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Deletion options from the body, where clients of today put them; from the query only where there is no body.
pub(super) fn delete_options(
    params: &Params,
    sent: Option<Value>,
) -> Result<DeleteOptions, StatusError> {
    let none = Params::default();
    let params = if sent.is_some() { &none } else { params };
    let mut sent = sent.unwrap_or_else(|| json!({}));
    if let Some(seconds) = params.number("gracePeriodSeconds")? {
        fill(&mut sent, "gracePeriodSeconds", seconds);
    }
    if let Some(policy) = params.get("propagationPolicy") {
        fill(&mut sent, "propagationPolicy", policy);
    }
    let orphan = params
        .flag("orphanDependents")
        .or_else(|| sent.get("orphanDependents").and_then(Value::as_bool));
    let mut faults = Vec::new();
    let policy = text(&sent, "/propagationPolicy");
    if orphan.is_some() && !policy.is_empty() {
        faults.push(Cause::invalid(
            "propagationPolicy",
            &policy.into(),
            "orphanDependents and deletionPropagation cannot be both set",
        ));
    }
    let propagation = match (policy, orphan) {
        ("", None) => None,
        ("", Some(false)) | ("Background", _) => Some(Propagation::Background),
        ("Foreground", _) => Some(Propagation::Foreground),
        ("", Some(true)) | ("Orphan", _) => Some(Propagation::Orphan),
        (other, _) => {
            faults.push(Cause::not_supported(
                "propagationPolicy",
                &other.into(),
                &["Foreground", "Background", "Orphan", "nil"],
            ));
            None
        }
    };
    let tried = sent.get("dryRun").and_then(Value::as_array);
    let tried = tried.filter(|values| !values.is_empty());
    let dry_run = match tried {
        None => params.dry_run(),
        Some(values) if values.iter().all(|value| value == "All") => Ok(true),
        Some(values) => Err(Cause::not_supported("dryRun", &json!(values), &["All"])),
    };
    let dry_run = dry_run.unwrap_or_else(|fault| {
        faults.push(fault);
        false
    });
    if !faults.is_empty() {
        return Err(StatusError::invalid(
            "DeleteOptions",
            "meta.k8s.io",
            "",
            faults,
        ));
    }
    let version = text(&sent, "/preconditions/resourceVersion");
    Ok(DeleteOptions {
        dry_run,
        grace_period_seconds: integer(&sent, "/gracePeriodSeconds"),
        propagation,
        uid: Some(text(&sent, "/preconditions/uid").to_owned()).filter(|uid| !uid.is_empty()),
        resource_version: match version {
            "" => None,
            version => Some(version.parse().map_err(|_| {
                StatusError::bad_request(format!(
                    "preconditions.resourceVersion must be a number that this server gave, not {version:?}"
                ))
            })?),
        },
        ..DeleteOptions::default()
    })
}
