//! What a body may say: the object its URL names, in fields its kind has, at the version it was read at.
//!
//! Pure; every refusal is Kubernetes' sentence.

use serde_json::Value;
use weft_api::gvk::GroupVersionKind;
use weft_api::status::{Cause, Details, StatusError};
use weft_kinds::lens::{items, member, put, text};
use weft_kinds::patch::{self, PatchKind};
use weft_kinds::{KindRef, decode};
use weft_store::Revision;

use super::{Patch, WriteOptions, modified};
use crate::request::ObjectRef;
use crate::stored::Stored;

/// Kind, version, namespace and name of a body must be those of the URL; what is absent is filled in.
pub(super) fn check_identity(
    kind: KindRef<'_>,
    namespace: Option<&str>,
    name: Option<&str>,
    value: &mut Value,
) -> Result<(), StatusError> {
    if !value.is_object() {
        return Err(StatusError::bad_request("the result is not an object"));
    }
    let api_version = kind.api_version();
    for (field, expected) in [("apiVersion", api_version.as_str()), ("kind", &*kind.kind)] {
        match text(value, &format!("/{field}")) {
            "" => value[field] = expected.into(),
            found if found == expected => {}
            _ => {
                return Err(StatusError::bad_request(format!(
                    "the object provided is {}, Kind={}, but this URL takes {api_version}, Kind={}",
                    text(value, "/apiVersion"),
                    text(value, "/kind"),
                    &kind.kind
                )));
            }
        }
    }
    let metadata = member(value, "metadata");
    match namespace {
        Some(namespace) => {
            check_namespace(metadata, namespace)?;
            metadata["namespace"] = namespace.into();
        }
        None => put(metadata, "namespace", None),
    }
    if let Some(name) = name {
        check_name(metadata, name)?;
    }
    // Null and empty say the same as absent, and would be stored as a difference.
    drop_empty_metadata(metadata);
    Ok(())
}

/// 400 for a body that is about another object than the URL, or about none.
pub(super) fn check_name(metadata: &Value, name: &str) -> Result<(), StatusError> {
    match text(metadata, "/name") {
        found if found == name => Ok(()),
        "" => Err(StatusError::bad_request(format!(
            "the name of the object ({name} based on URL) was undeterminable: name must be provided"
        ))),
        found => Err(StatusError::bad_request(format!(
            "the name of the object ({found}) does not match the name on the URL ({name})"
        ))),
    }
}

/// 400 for a body that is about an object in another namespace than that of the URL.
pub(super) fn check_namespace(metadata: &Value, namespace: &str) -> Result<(), StatusError> {
    match text(metadata, "/namespace") {
        found if found.is_empty() || found == namespace => Ok(()),
        _ => Err(StatusError::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        )),
    }
}

/// An object as it may be stored: what does not fit its kind is refused, what the kind does not have is dropped.
pub(super) fn decoded(
    kind: KindRef<'_>,
    value: &Value,
    options: &WriteOptions,
) -> Result<Value, StatusError> {
    let gvk = kind.gvk();
    let decoded = decode::value(kind, value).map_err(|error| undecodable(&gvk, &error))?;
    if options.strict && !decoded.faults.is_empty() {
        return Err(strict_decoding(&gvk, &decoded.faults));
    }
    Ok(decoded.value)
}

/// What a patch makes of an object, judged like a body; but it is the patch that is refused. `gvk` is what is patched: the
/// object's own kind, or what a subresource shows of it as a kind of its own.
pub(super) fn patched(
    object: ObjectRef<'_>,
    gvk: &GroupVersionKind,
    current: &Value,
    patch: Patch<'_>,
    options: &WriteOptions,
) -> Result<Value, StatusError> {
    let ObjectRef { kind, name, .. } = object;
    let result = patch::apply(gvk, current, patch.kind, patch.body)?;
    if !result.is_object() {
        let mut refused = StatusError::invalid("", "", "", Vec::new());
        refused.message =
            "the server rejected our request due to an error in our request: the result is no object"
                .to_owned();
        return Err(refused.with_details(Details::default()));
    }
    let decoded = match patch.kind {
        PatchKind::Strategic => decode::merged(gvk, &result),
        // A part of an object that is a kind of its own has no definition.
        PatchKind::Json | PatchKind::Merge if *gvk == kind.gvk() => decode::value(kind, &result),
        PatchKind::Json | PatchKind::Merge => decode::value(gvk, &result),
    };
    let refuse = |why: &str| {
        let shown = shown_patched(kind, &result);
        // It is the patch that is at fault: Kubernetes names neither kind nor object here.
        let cause = Cause::invalid("patch", &shown.into(), why);
        StatusError::invalid("", "", "", vec![cause])
    };
    let decoded = decoded.map_err(|error| refuse(&error.to_string()))?;
    let mut faults = options.noted.clone();
    faults.extend(decoded.faults);
    if options.strict && !faults.is_empty() {
        let faults = faults.join(", ");
        return Err(refuse(&format!("strict decoding error: {faults}")));
    }
    options.warnings.replace(faults);
    check_name(&decoded.value["metadata"], name)?;
    Ok(decoded.value)
}

/// Characters of a patched object that its refusal shows.
const SHOWN_MAX: usize = 4 << 10;

/// What a refusal shows of a patched object. Whoever may patch need not be one who may read, so nothing of what is kept
/// encrypted is shown.
fn shown_patched(kind: KindRef<'_>, result: &Value) -> String {
    if kind.sealed {
        return "<secret>".to_owned();
    }
    let mut text = result.to_string();
    if let Some((end, _)) = text.char_indices().nth(SHOWN_MAX) {
        text.truncate(end);
        text.push('…');
    }
    text
}

/// 400 for a body whose fields do not fit the kind.
pub(crate) fn undecodable(gvk: &GroupVersionKind, detail: &dyn std::fmt::Display) -> StatusError {
    let GroupVersionKind { kind, version, .. } = gvk;
    StatusError::bad_request(format!(
        "{kind} in version {version:?} cannot be handled as a {kind}: {detail}"
    ))
}

/// 400 for unknown and duplicate fields under `fieldValidation=Strict`.
pub(crate) fn strict_decoding(gvk: &GroupVersionKind, problems: &[String]) -> StatusError {
    undecodable(
        gvk,
        &format!("strict decoding error: {}", problems.join(", ")),
    )
}

/// Removes members of metadata that say nothing. An empty list of owners does.
pub(super) fn drop_empty_metadata(metadata: &mut Value) {
    if let Some(map) = metadata.as_object_mut() {
        map.retain(|name, value| match value {
            Value::Null => false,
            Value::Array(_) if name == "managedFields" => true,
            Value::Object(map) => !map.is_empty(),
            Value::Array(items) => !items.is_empty(),
            Value::String(text) => !text.is_empty(),
            Value::Bool(_) | Value::Number(_) => true,
        });
    }
}

pub(super) fn check_version(
    kind: KindRef<'_>,
    name: &str,
    found: &Stored,
    proposed: &Value,
) -> Result<(), StatusError> {
    match text(proposed, "/metadata/resourceVersion") {
        "" | "0" if kind.stored().strategy.allows_unconditional_update() => Ok(()),
        "" | "0" => {
            let cause = Cause::invalid(
                "metadata.resourceVersion",
                &0.into(),
                "must be specified for an update",
            );
            let causes = vec![cause];
            Err(StatusError::invalid(
                &kind.resource,
                &kind.group,
                name,
                causes,
            ))
        }
        version if version == found.revision().to_string() => Ok(()),
        version if version.parse::<Revision>().is_err() => Err(StatusError::invalid(
            &kind.kind,
            &kind.group,
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
    kind: KindRef<'_>,
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
        &kind.resource,
        &kind.group,
        name,
        &detail,
    ))
}

/// 422 for a patch that makes an object another one.
pub(super) fn keep_uid(
    kind: KindRef<'_>,
    name: &str,
    current: &Value,
    next: &Value,
) -> Result<(), StatusError> {
    let uid = text(next, "/metadata/uid");
    if uid.is_empty() || uid == text(current, "/metadata/uid") {
        return Ok(());
    }
    let cause = Cause::invalid("metadata.uid", &uid.into(), "field is immutable");
    Err(StatusError::invalid(
        &kind.kind,
        &kind.group,
        name,
        vec![cause],
    ))
}

pub(super) fn refuse_new_finalizers(
    kind: KindRef<'_>,
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
        &kind.kind,
        &kind.group,
        text(old, "/metadata/name"),
        vec![Cause::forbidden(
            "metadata.finalizers",
            &format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers {added:?}"
            ),
        )],
    ))
}
