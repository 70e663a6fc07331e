//! Which objects belong to a controller: adopt strays that match its selector, release those that no longer do.

use std::sync::Arc;

use serde_json::{Value, json};
use weft_api::selector::LabelSelector;

use crate::indexer::{Cached, Index, Lens};
use crate::view::View;
use crate::write::Write;

/// The outcome of matching candidates against an owner.
pub struct Claims<T> {
    /// Controlled by the owner and matching.
    pub owned: Vec<Arc<Cached<T>>>,
    /// Adoptions and releases to write first.
    pub writes: Vec<Write>,
}

/// What an index by controller finds an object by: the uid of its controller; for one that nobody controls, and that
/// somebody may adopt, `/` and its namespace. No uid begins so.
pub fn controller_or_namespace<K: Lens>(object: &Cached<K>) -> String {
    match object.meta.controller() {
        Some(owner) => owner.uid.clone(),
        None => format!("/{}", object.key.namespace),
    }
}

/// Sorts the objects that are controlled by `owner`, or in its namespace by nobody, into owned, adoptable and to be
/// released. `index` is by [`controller_or_namespace`].
///
/// An owner that is being deleted adopts nothing; an object that is being deleted is neither adopted nor released.
pub fn claim_objects<O: Lens, T: Lens>(
    view: &View,
    index: &Index<T>,
    owner: &Cached<O>,
    selector: &LabelSelector,
) -> Claims<T> {
    claim_by(view, index, owner, selector, None, |_| true)
}

/// As [`claim_objects`]. What is adopted gets this finalizer, what is released loses it.
pub fn claim_tracked<O: Lens, T: Lens>(
    view: &View,
    index: &Index<T>,
    owner: &Cached<O>,
    selector: &LabelSelector,
    finalizer: Option<&str>,
) -> Claims<T> {
    claim_by(view, index, owner, selector, finalizer, |_| true)
}

/// As [`claim_objects`], of those alone that `fits` says may be the owner's.
pub fn claim_fitting<O: Lens, T: Lens>(
    view: &View,
    index: &Index<T>,
    owner: &Cached<O>,
    selector: &LabelSelector,
    fits: impl Fn(&Cached<T>) -> bool,
) -> Claims<T> {
    claim_by(view, index, owner, selector, None, fits)
}

fn claim_by<O: Lens, T: Lens>(
    view: &View,
    index: &Index<T>,
    owner: &Cached<O>,
    selector: &LabelSelector,
    finalizer: Option<&str>,
    fits: impl Fn(&Cached<T>) -> bool,
) -> Claims<T> {
    let mut claims = Claims {
        owned: Vec::new(),
        writes: Vec::new(),
    };
    // A namespaced object owns within its namespace only, whatever somebody elsewhere claims.
    let owned = view.list_by(index, &owner.meta.uid);
    for object in owned.filter(|object| object.key.namespace == owner.key.namespace) {
        if selector.matches(&object.meta.labels) && fits(object) {
            claims.owned.push(Arc::clone(object));
        } else if !object.meta.is_deleting() && !owner.meta.is_deleting() {
            claims
                .writes
                .push(release(object, &owner.meta.uid, finalizer));
        }
    }
    let strays = format!("/{}", owner.key.namespace);
    for object in view.list_by(index, &strays) {
        let is_free = !object.meta.is_deleting() && !owner.meta.is_deleting();
        if is_free && selector.matches(&object.meta.labels) && fits(object) {
            claims.writes.push(adopt(object, owner, finalizer));
        }
    }
    claims
}

/// The write that makes `owner` the controller of an object of nobody's, and gives it this finalizer.
pub fn adopt<O: Lens, T: Lens>(
    object: &Cached<T>,
    owner: &Cached<O>,
    finalizer: Option<&str>,
) -> Write {
    let mut owners: Vec<Value> = references(object).collect();
    owners.push(controller_reference(owner));
    let mut metadata = json!({ "ownerReferences": owners });
    if let Some(finalizer) = finalizer.filter(|finalizer| !object.meta.has_finalizer(finalizer)) {
        let there = object.meta.finalizers.iter().map(String::as_str);
        let all: Vec<&str> = there.chain([finalizer]).collect();
        metadata["finalizers"] = json!(all);
    }
    Write::patch(object, json!({ "metadata": metadata }))
}

fn release<T: Lens>(object: &Cached<T>, owner_uid: &str, finalizer: Option<&str>) -> Write {
    let owners: Vec<Value> = references(object)
        .filter(|owner| owner["uid"] != owner_uid)
        .collect();
    let owners = if owners.is_empty() {
        Value::Null
    } else {
        Value::Array(owners)
    };
    let mut metadata = json!({ "ownerReferences": owners });
    if let Some(finalizer) = finalizer.filter(|finalizer| object.meta.has_finalizer(finalizer)) {
        let there = object.meta.finalizers.iter();
        let left: Vec<&String> = there.filter(|one| *one != finalizer).collect();
        metadata["finalizers"] = json!(left);
    }
    Write::patch(object, json!({ "metadata": metadata }))
}

fn references<T>(object: &Cached<T>) -> impl Iterator<Item = Value> {
    let owners = object.meta.owner_references.iter();
    owners.filter_map(|owner| serde_json::to_value(owner).ok())
}

/// The owner reference that makes `owner` the controller of another object.
pub fn controller_reference<O: Lens>(owner: &Cached<O>) -> Value {
    let kind = O::kind();
    json!({
        "apiVersion": kind.api_version(),
        "kind": kind.kind,
        "name": &*owner.key.name,
        "uid": &*owner.meta.uid,
        "controller": true,
        "blockOwnerDeletion": true,
    })
}
