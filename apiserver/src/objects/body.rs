//! What a body may say: the object its URL names, in fields its kind has, at the version it was read at.
//!
//! Pure; every refusal is Kubernetes' sentence.

use serde_json::Value;
use weft_api::status::{Cause, StatusError};
use weft_kinds::lens::{items, member, put, text};
use weft_kinds::schema;
use weft_kinds::{Kind, KindRef};
use weft_store::Revision;

use super::{WriteOptions, modified};
use crate::stored::Stored;

/// Kind, version, namespace and name of a body must be those of the URL; what is absent is filled in.
pub(super) fn check_identity(
    kind: KindRef,
    namespace: Option<&str>,
    name: Option<&str>,
    value: &mut Value,
) -> Result<(), StatusError> {
    // A JSON patch may have replaced the root by anything.
    if !value.is_object() {
        return Err(StatusError::bad_request("the result is not an object"));
    }
    let api_version = kind.api_version();
    for (field, expected) in [("apiVersion", api_version.as_str()), ("kind", kind.kind)] {
        match text(value, &format!("/{field}")) {
            "" => value[field] = expected.into(),
            found if found == expected => {}
            _ => {
                return Err(StatusError::bad_request(format!(
                    "the object provided is {}, Kind={}, but this URL takes {api_version}, Kind={}",
                    text(value, "/apiVersion"),
                    text(value, "/kind"),
                    kind.kind
                )));
            }
        }
    }
    let metadata = member(value, "metadata");
    match namespace {
        Some(namespace) => match text(metadata, "/namespace") {
            "" => metadata["namespace"] = namespace.into(),
            found if found == namespace => {}
            _ => {
                return Err(StatusError::bad_request(
                    "the namespace of the provided object does not match the namespace sent on the request",
                ));
            }
        },
        None => put(metadata, "namespace", None),
    }
    if let Some(name) = name {
        match text(metadata, "/name") {
            "" => metadata["name"] = name.into(),
            found if found == name => {}
            found => return Err(other_name(found, name)),
        }
    }
    // Null and empty say the same as absent, and would be stored as a difference.
    drop_empty_metadata(metadata);
    Ok(())
}

/// 400 for a body that is about another object than the URL.
pub(super) fn other_name(found: &str, name: &str) -> StatusError {
    StatusError::bad_request(format!(
        "the name of the object ({found}) does not match the name on the URL ({name})"
    ))
}

/// Wrong types are always refused; unknown fields only when asked, and only those that `current` lacks.
pub(super) fn check_schema(
    kind: KindRef,
    value: &Value,
    current: Option<&Value>,
    options: &WriteOptions,
) -> Result<(), StatusError> {
    let gvk = kind.gvk();
    if let Some(first) = schema::type_errors(&gvk, value).into_iter().next() {
        return Err(undecodable(kind, &first));
    }
    if options.strict {
        let known = current
            .map(|current| schema::unknown_fields(&gvk, current))
            .unwrap_or_default();
        let unknown: Vec<String> = schema::unknown_fields(&gvk, value)
            .into_iter()
            .filter(|field| !known.contains(field))
            .map(|field| format!("unknown field {field:?}"))
            .collect();
        if !unknown.is_empty() {
            return Err(strict_decoding(kind, &unknown));
        }
    }
    Ok(())
}

/// 400 for a body whose fields do not fit the kind.
fn undecodable(kind: KindRef, detail: &str) -> StatusError {
    let Kind { kind, version, .. } = kind;
    StatusError::bad_request(format!(
        "{kind} in version {version:?} cannot be handled as a {kind}: {detail}"
    ))
}

/// 400 for unknown and duplicate fields under `fieldValidation=Strict`.
pub(crate) fn strict_decoding(kind: KindRef, problems: &[String]) -> StatusError {
    undecodable(
        kind,
        &format!("strict decoding error: {}", problems.join(", ")),
    )
}

/// Removes members of metadata that say nothing.
pub(super) fn drop_empty_metadata(metadata: &mut Value) {
    if let Some(map) = metadata.as_object_mut() {
        map.retain(|_, value| match value {
            Value::Null => false,
            Value::Object(map) => !map.is_empty(),
            Value::Array(items) => !items.is_empty(),
            Value::String(text) => !text.is_empty(),
            Value::Bool(_) | Value::Number(_) => true,
        });
    }
}

pub(super) fn check_version(
    kind: KindRef,
    name: &str,
    found: &Stored,
    proposed: &Value,
) -> Result<(), StatusError> {
    match text(proposed, "/metadata/resourceVersion") {
        "" | "0" => Ok(()),
        version if version == found.revision().to_string() => Ok(()),
        version if version.parse::<Revision>().is_err() => Err(StatusError::invalid(
            kind.kind,
            kind.group,
            name,
            vec![Cause::invalid(
                "metadata.resourceVersion",
                &version.into(),
                "must be a number that this server gave",
            )],
        )),
        _ => Err(modified(kind, name)),
    }
}

pub(super) fn check_uid(
    kind: KindRef,
    name: &str,
    current: &Value,
    expected: &str,
) -> Result<(), StatusError> {
    let actual = text(current, "/metadata/uid");
    if expected.is_empty() || expected == actual {
        return Ok(());
    }
    let detail = format!(
        "Precondition failed: UID in precondition: {expected}, UID in object meta: {actual}"
    );
    Err(StatusError::conflict(
        kind.resource,
        kind.group,
        name,
        &detail,
    ))
}

pub(super) fn refuse_new_finalizers(
    kind: KindRef,
    old: &Value,
    next: &Value,
) -> Result<(), StatusError> {
    let kept = items(old, "/metadata/finalizers");
    let added: Vec<&str> = items(next, "/metadata/finalizers")
        .iter()
        .filter(|finalizer| !kept.contains(finalizer))
        .filter_map(Value::as_str)
        .collect();
    if added.is_empty() {
        return Ok(());
    }
    Err(StatusError::invalid(
        kind.kind,
        kind.group,
        text(old, "/metadata/name"),
        vec![Cause::forbidden(
            "metadata.finalizers",
            &format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers {added:?}"
            ),
        )],
    ))
}
