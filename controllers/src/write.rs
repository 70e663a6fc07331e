//! What a reconciler asks to be done: writes as values.
//!
//! Invariants: an update or delete names the uid it was decided for; a merge patch is one of RFC 7386, so `null`
//! removes a member and lists are replaced whole; a strategic merge patch changes single elements of lists.

use std::sync::Arc;

use serde::Serialize;
use serde_json::{Map, Value, json};
use weft_api::object::Object;
use weft_kinds::patch::PatchKind;
use weft_kinds::{Kind, Subresource};

use crate::indexer::{Cached, Lens};
use crate::metadata::{Key, PartialObject};

/// One change to the cluster.
#[derive(Debug, Clone, PartialEq)]
pub enum Write {
    Create {
        kind: Arc<Kind>,
        key: Key,
        object: Object,
        /// Recorded once the write is done, or with its refusal as a warning.
        note: Option<Note>,
    },
    Patch {
        kind: Arc<Kind>,
        key: Key,
        /// `status`, `finalize`, or the object itself.
        subresource: Option<Subresource>,
        patch_kind: PatchKind,
        patch: Value,
        /// Precondition: the object is still the one the decision was made for.
        uid: Option<Arc<str>>,
        /// Precondition: nothing changed since. Set where lists that others also edit are replaced.
        resource_version: Option<u64>,
        note: Option<Note>,
    },
    Delete {
        kind: Arc<Kind>,
        key: Key,
        /// Precondition.
        uid: Arc<str>,
        /// Precondition: nothing changed since. Set where what the object says of its owners is the reason.
        resource_version: Option<u64>,
        /// `None`: the object's own grace period; `Some(0)`: at once.
        grace_seconds: Option<i64>,
        propagation: Propagation,
        note: Option<Note>,
    },
    /// Only tell; change nothing.
    Event(Note),
    /// Change nothing, but refuse what follows if this object is there after all, by a read of the store that nothing
    /// newer escapes. Stands before whatever is done to others because it is gone.
    ConfirmGone {
        kind: Arc<Kind>,
        key: Key,
        /// One that cannot be read shows no uid, and counts as this one. `None`: whichever bears the name.
        uid: Option<Arc<str>>,
    },
}

/// What becomes of an object's dependents when it is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Propagation {
    /// The object goes at once, its dependents are collected after.
    #[default]
    Background,
    /// The dependents go first.
    Foreground,
    /// The dependents stay and lose the owner reference.
    Orphan,
}

/// What to tell the user, as an Event on an object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Note {
    pub about: Reference,
    pub warning: bool,
    /// CamelCase, as users know it from Kubernetes.
    pub reason: &'static str,
    pub message: String,
    /// The reason to use, as a warning with the error's text, when the write this belongs to is refused.
    pub refused_reason: Option<&'static str>,
    /// What stands before the error's text then, where that is not just `Error creating` or the like.
    pub refused_words: Option<String>,
    /// That the write was done is no story.
    pub only_refused: bool,
}

/// Which object an event is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reference {
    pub kind: Arc<Kind>,
    pub key: Key,
    pub uid: Arc<str>,
}

impl Note {
    pub fn normal(about: Reference, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            about,
            warning: false,
            reason,
            message: message.into(),
            refused_reason: None,
            refused_words: None,
            only_refused: false,
        }
    }

    /// Tells of a refusal alone, in these words and the error's.
    pub fn of_refusal(about: Reference, reason: &'static str, words: impl Into<String>) -> Self {
        let mut note = Self::warning(about, reason, String::new());
        note.only_refused = true;
        note.or_refused_saying(reason, words)
    }

    pub fn warning(about: Reference, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            warning: true,
            ..Self::normal(about, reason, message)
        }
    }

    /// Also tells of a refusal, under this reason.
    #[must_use]
    pub fn or_refused(mut self, reason: &'static str) -> Self {
        self.refused_reason = Some(reason);
        self
    }

    /// As [`Note::or_refused`], in these words and the error's.
    #[must_use]
    pub fn or_refused_saying(mut self, reason: &'static str, words: impl Into<String>) -> Self {
        self.refused_words = Some(words.into());
        self.or_refused(reason)
    }
}

impl Write {
    /// A new object of this kind, in the place that its metadata names.
    pub fn create(kind: &Arc<Kind>, object: Object) -> Self {
        Self::Create {
            kind: Arc::clone(kind),
            key: Key::new(object.namespace().unwrap_or(""), object.name()),
            object,
            note: None,
        }
    }

    /// A merge patch of `row` itself, decided on exactly its present state.
    pub fn patch<T: Lens>(row: &Cached<T>, patch: Value) -> Self {
        Self::Patch {
            kind: Arc::clone(T::kind()),
            key: row.key.clone(),
            subresource: None,
            patch_kind: PatchKind::Merge,
            patch,
            uid: Some(Arc::clone(&row.meta.uid)),
            resource_version: row.meta.resource_version,
            note: None,
        }
    }

    /// As [`Write::patch`], of an object of which only the metadata is known.
    pub fn patch_metadata(object: &PartialObject, metadata: Value) -> Self {
        Self::Patch {
            kind: Arc::clone(&object.kind),
            key: object.key().clone(),
            subresource: None,
            patch_kind: PatchKind::Merge,
            patch: json!({ "metadata": metadata }),
            uid: Some(Arc::clone(&object.meta.uid)),
            resource_version: object.meta.resource_version,
            note: None,
        }
    }

    /// A patch of the status of `row` that turns `old` into `new`; nothing if they are equal.
    ///
    /// Bound to the revision it was computed from: conditions are one list that several writers share.
    pub fn status<T: Lens, S: Serialize>(row: &Cached<T>, old: &S, new: &S) -> Option<Self> {
        let old = serde_json::to_value(old).unwrap_or(Value::Null);
        let new = serde_json::to_value(new).unwrap_or(Value::Null);
        let patch = merge_patch(&old, &new)?;
        let mut write = Self::patch(row, json!({ "status": patch }));
        if let Self::Patch { subresource, .. } = &mut write {
            *subresource = Some(Subresource::Status);
        }
        Some(write)
    }

    /// Sets one condition in the status of `row` and leaves the others as they are: a strategic merge patch, so it need
    /// not be bound to a revision, and nobody has to remember the other conditions.
    pub fn condition<T: Lens>(row: &Cached<T>, condition: &Value) -> Self {
        Self::status_fields(row, &json!({ "conditions": [condition] }))
    }

    /// The same of several fields of the status, conditions among them.
    pub fn status_fields<T: Lens>(row: &Cached<T>, status: &Value) -> Self {
        Self::Patch {
            kind: Arc::clone(T::kind()),
            key: row.key.clone(),
            subresource: Some(Subresource::Status),
            patch_kind: PatchKind::Strategic,
            patch: json!({ "status": status }),
            uid: Some(Arc::clone(&row.meta.uid)),
            resource_version: None,
            note: None,
        }
    }

    /// A delete of exactly this object, after its own grace period.
    pub fn delete<T: Lens>(row: &Cached<T>) -> Self {
        Self::Delete {
            kind: Arc::clone(T::kind()),
            key: row.key.clone(),
            uid: Arc::clone(&row.meta.uid),
            resource_version: None,
            grace_seconds: None,
            propagation: Propagation::Background,
            note: None,
        }
    }

    /// As [`Write::delete`], of an object of which only the metadata is known.
    pub fn delete_object(object: &PartialObject, propagation: Propagation) -> Self {
        Self::Delete {
            kind: Arc::clone(&object.kind),
            key: object.key().clone(),
            uid: Arc::clone(&object.meta.uid),
            resource_version: None,
            grace_seconds: None,
            propagation,
            note: None,
        }
    }

    /// Tells `note` when the write is done.
    #[must_use]
    pub fn telling(mut self, told: Note) -> Self {
        match &mut self {
            Self::Create { note, .. } | Self::Patch { note, .. } | Self::Delete { note, .. } => {
                *note = Some(told);
            }
            Self::Event(note) => *note = told,
            Self::ConfirmGone { .. } => {}
        }
        self
    }

    /// Drops the revision a patch is bound to: for members that nobody else writes.
    #[must_use]
    pub fn unbound(mut self) -> Self {
        if let Self::Patch {
            resource_version, ..
        } = &mut self
        {
            *resource_version = None;
        }
        self
    }

    /// Binds a delete to the state of `object` that it was decided on. No effect on other writes.
    #[must_use]
    pub fn as_seen(mut self, object: &PartialObject) -> Self {
        if let Self::Delete {
            resource_version, ..
        } = &mut self
        {
            *resource_version = object.meta.resource_version;
        }
        self
    }

    /// Deletes at once instead of gracefully. No effect on other writes.
    #[must_use]
    pub fn forced(mut self) -> Self {
        if let Self::Delete { grace_seconds, .. } = &mut self {
            *grace_seconds = Some(0);
        }
        self
    }
}

/// An object from a `json!` literal; anything else than a JSON object reads as empty.
pub fn object(value: Value) -> Object {
    match value {
        Value::Object(map) => Object::from_map(map),
        _ => Object::from_map(Map::new()),
    }
}

/// The smallest JSON merge patch that turns `old` into `new`; `None` if nothing differs.
pub fn merge_patch(old: &Value, new: &Value) -> Option<Value> {
    let (Value::Object(old), Value::Object(new)) = (old, new) else {
        return (old != new).then(|| new.clone());
    };
    let mut patch = Map::new();
    for key in old.keys().filter(|key| !new.contains_key(*key)) {
        patch.insert(key.clone(), Value::Null);
    }
    for (key, value) in new {
        match old.get(key) {
            Some(before) => {
                if let Some(change) = merge_patch(before, value) {
                    patch.insert(key.clone(), change);
                }
            }
            None => {
                patch.insert(key.clone(), value.clone());
            }
        }
    }
    (!patch.is_empty()).then_some(Value::Object(patch))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merge_patches_are_minimal() {
        for (old, new, patch) in [
            (json!({"a":1}), json!({"a":1}), None),
            (
                json!({"a":1,"b":2}),
                json!({"b":2}),
                Some(json!({"a":null})),
            ),
            (
                json!({"a":{"x":1,"y":2}}),
                json!({"a":{"x":1,"y":3},"c":[]}),
                Some(json!({"a":{"y":3},"c":[]})),
            ),
            (json!({"l":[1,2]}), json!({"l":[2]}), Some(json!({"l":[2]}))),
            (Value::Null, json!({"l":1}), Some(json!({"l":1}))),
        ] {
            assert_eq!(merge_patch(&old, &new), patch, "{old} -> {new}");
        }
    }
}
