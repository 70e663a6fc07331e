//! The one form that equal states of an object have, and how a stored state is told.
//!
//! Pure. What is stored, compared and counted is canonical, with the defaults of this release: a default that came with a
//! release is no change that a client made. What is no object where one was promised is a fault of ours, told as such.

use serde_json::Value;
use weft_api::object::Object;
use weft_api::status::StatusError;
use weft_kinds::lens::{member, put};
use weft_kinds::{KindRef, decode};
use weft_store::Revision;

use super::body::undecodable;

/// A state of a stored kind with its defaults, in the one form that equal states have.
pub(super) fn canonicalize(kind: KindRef<'_>, value: &Value) -> Result<Value, StatusError> {
    canonicalized(kind, value.clone())
}

/// As [`canonicalize`], of a value that is given away: nothing of it is copied where it has that form.
pub(super) fn canonicalized(kind: KindRef<'_>, value: Value) -> Result<Value, StatusError> {
    let canonical = |value: Value| {
        let decoded = decode::owned(kind, value);
        let decoded = decoded.map_err(|error| undecodable(&kind.gvk(), &error))?;
        Ok(decoded.value)
    };
    let mut value = canonical(value)?;
    decode::fill(kind, &mut value);
    kind.strategy.default(&mut value);
    canonical(value)
}

/// As [`canonicalized`], of what had that form before the server changed it: defaults go by what is there now, and what they and the server
/// wrote is brought into the form once.
pub(super) fn completed(kind: KindRef<'_>, mut value: Value) -> Result<Value, StatusError> {
    decode::fill(kind, &mut value);
    kind.strategy.default(&mut value);
    let decoded = decode::owned(kind, value);
    let decoded = decoded.map_err(|error| undecodable(&kind.gvk(), &error))?;
    Ok(decoded.value)
}

/// A stored state in the kind's own spelling, with its resourceVersion.
///
/// # Errors
/// 500 for what is no object: it was built or checked before.
pub(super) fn shown(
    kind: KindRef<'_>,
    mut value: Value,
    revision: Option<Revision>,
) -> Result<Object, StatusError> {
    let version = revision.map(|revision| revision.to_string().into());
    put(member(&mut value, "metadata"), "resourceVersion", version);
    if let Some(spelling) = &kind.spelling {
        (spelling.read)(&mut value);
    }
    object_of(value)
}

/// What was made here, as an object.
///
/// # Errors
/// 500 for what is none.
pub(super) fn object_of(value: Value) -> Result<Object, StatusError> {
    Object::from_value(value).map_err(StatusError::internal)
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use weft_kinds::strategy::desired_state_differs;
    use weft_kinds::validate;

    use super::*;

    #[test]
    fn a_default_that_came_with_a_release_is_no_change_of_an_old_object() {
        // As an older server stored it: without defaults, in forms that are not written any more.
        let stored = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "p", "namespace": "default", "uid": "u", "resourceVersion": "5", "unknown": 1},
            "spec": {"containers": [{"name": "c", "image": "i:1", "env": null, "resources": {"limits": {"cpu": 0.5}}}]},
        });
        let old = canonicalize(&weft_kinds::POD, &stored).unwrap();
        let mut next = old.clone();
        next["metadata"]["labels"] = json!({"a": "b"});
        let next = canonicalize(&weft_kinds::POD, &next).unwrap();
        assert!(!desired_state_differs(&next, &old));
        validate::updated(&weft_kinds::POD, &next, &old, None).unwrap();
        assert_eq!(canonicalize(&weft_kinds::POD, &old).unwrap(), old);
        assert_eq!(
            old["spec"]["containers"][0]["resources"]["limits"]["cpu"],
            "500m"
        );
        assert_eq!(old["metadata"].get("unknown"), None);
    }

    #[test]
    fn what_is_no_object_is_told_as_a_fault_and_not_as_an_empty_one() {
        assert_eq!(object_of(json!([1])).unwrap_err().code, 500);
    }
}
