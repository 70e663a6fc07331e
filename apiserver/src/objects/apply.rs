//! Server-side apply: a configuration laid over an object, which is made where there is none.
//!
//! Invariants: what somebody else owns changes only when it is forced; an apply that changes nothing stores nothing; who may
//! apply and not create makes nothing. Left to others: what comes of a configuration (`weft_kinds::apply`), the loop that every change
//! goes through ([`super::update`]).

use serde_json::Value;
use weft_api::gvk::GroupVersionKind;
use weft_api::status::StatusError;
use weft_kinds::lens::text;
use weft_kinds::{Subresource, decode};

use super::body::{check_identity, keep_uid};
use super::owners::Ownership;
use super::{ATTEMPTS_MAX, Objects, WriteOptions, Written, modified};
use crate::authz::Authorized;
use crate::request::ObjectRef;

impl Objects {
    /// Applies a configuration to an object, to its status or to its scale; an object that is not there is made.
    ///
    /// # Errors
    /// 409 for fields of others, unless it is forced; 400 and 500 for what is no configuration; else as [`Objects::update`] and
    /// [`Objects::create`].
    pub async fn apply(
        &self,
        asked: &Authorized,
        config: &Value,
        force: bool,
        options: &WriteOptions,
    ) -> Result<Written, StatusError> {
        let (object, resource) = asked.object("patch")?;
        let part = resource.subresource;
        match part {
            None
            | Some(
                Subresource::Status
                | Subresource::Approval
                | Subresource::EphemeralContainers
                | Subresource::Resize,
            ) => {}
            Some(Subresource::Scale) => {
                let scale = self
                    .apply_scale(asked, object, config, force, options)
                    .await?;
                return Ok(Written::changed(scale));
            }
            Some(_) => return Err(StatusError::method_not_allowed()),
        }
        let ObjectRef { kind, name, .. } = object;
        let owners = || self.owners(asked.caller(), kind, part, options);
        for _ in 0..ATTEMPTS_MAX {
            let change = |current: &Value| {
                let next = owners().applied(Some(current), config, force)?;
                refuse_nulls(object, &next, Some(current))?;
                let next = applied_state(object, config, &next)?;
                keep_uid(kind, name, current, &next)?;
                Ok(next)
            };
            match self
                .rewrite(asked, object, part, options, Ownership::Said, change)
                .await
            {
                Err(error) if part.is_none() && error.is_not_found() => {}
                changed => return changed.map(Written::changed),
            }
            let new = owners().applied(None, config, force)?;
            refuse_nulls(object, &new, None)?;
            let new = applied_state(object, config, &new)?;
            refuse_uid(object, &new)?;
            match self
                .create_at(asked, object, new, options, Ownership::Said)
                .await
            {
                // Somebody else made it meanwhile, so it is there to be applied to.
                Err(error) if error.is_already_exists() => {}
                created => return created.map(Written::created),
            }
        }
        Err(modified(kind, name))
    }
}

/// 422 for a null that an apply leaves where the schema of a user's kind allows none: only what is read from outside loses it.
fn refuse_nulls(
    object: ObjectRef<'_>,
    applied: &Value,
    live: Option<&Value>,
) -> Result<(), StatusError> {
    let ObjectRef { kind, name, .. } = object;
    if kind.custom.is_none() || !decode::has_unfit_null(kind, applied) {
        return Ok(());
    }
    let mut causes = Vec::new();
    decode::violations(kind, applied, live, &mut causes);
    match causes.is_empty() {
        true => Ok(()),
        false => Err(StatusError::invalid(&kind.kind, &kind.group, name, causes)),
    }
}

/// What an apply made, as an object of its kind and of its place.
fn applied_state(
    object: ObjectRef<'_>,
    config: &Value,
    applied: &Value,
) -> Result<Value, StatusError> {
    let mut value = converted(&object.kind.gvk(), config, applied)?;
    check_identity(object.kind, object.namespace, Some(object.name), &mut value)?;
    Ok(value)
}

/// What an apply of `config` made, read as its kind.
///
/// # Errors
/// 500 in the words of Kubernetes' converter, for a value that only the schema of its kind lets pass.
pub(super) fn converted(
    gvk: &GroupVersionKind,
    config: &Value,
    applied: &Value,
) -> Result<Value, StatusError> {
    match decode::merged(gvk, applied) {
        Ok(decoded) => Ok(decoded.value),
        Err(fault) => {
            let (version, kind) = (gvk.api_version(), &gvk.kind);
            Err(StatusError::unknown(format!(
                "failed to convert new object ({}/{}; {version}, Kind={kind}) to proper version: unable to convert \
                 unstructured object to {version}, Kind={kind}: {fault}",
                text(config, "/metadata/namespace"),
                text(config, "/metadata/name"),
            )))
        }
    }
}

/// 409 for who means one certain object, where there is none.
fn refuse_uid(object: ObjectRef<'_>, new: &Value) -> Result<(), StatusError> {
    let ObjectRef { kind, name, .. } = object;
    match text(new, "/metadata/uid") {
        "" => Ok(()),
        uid => {
            let detail = format!(
                "uid mismatch: the provided object specified uid {uid}, and no existing object was found"
            );
            Err(StatusError::conflict(
                &kind.resource,
                &kind.group,
                name,
                &detail,
            ))
        }
    }
}
