//! Garbage collection: objects go when the last of their owners is gone.
//!
//! Background: an object none of whose owners exists is deleted. Foreground: an owner with the `foregroundDeletion`
//! finalizer stays until the dependents with `blockOwnerDeletion` are gone; one that another owner keeps loses this owner
//! instead. Orphan: an owner with the `orphan` finalizer first loses its dependents. A cycle of foreground deletions is
//! broken by no longer letting one of it block.
//!
//! The view knows every object of every kind that is served, those that were registered at run time among them, and an owner
//! is older than whoever names its uid, so one that is not there is gone, or never was. That much is only a suspicion: before
//! anything is deleted for it, the store is asked ([`Write::ConfirmGone`]), and the object has to be as it was seen: one that another
//! owner joined meanwhile stays. An owner of a kind that is not served cannot be
//! looked up; an object with such an owner stays.
//!
//! A namespaced object owns within its namespace only. For an object of another namespace it is as good as absent; an
//! object without a namespace cannot be owned by it at all, and stays. Both are told, in Kubernetes' words.
//!
//! Keys are uids, not names: a namesake is another object.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::json;
use weft_api::gvk::split_api_version;
use weft_api::meta::{FOREGROUND_DELETION, ORPHAN_DEPENDENTS, OwnerReference};
use weft_kinds::{Kind, Served};

use crate::metadata::{Key, PartialObject};
use crate::view::{Touched, View};
use crate::write::{Note, Propagation, Write};
use crate::{Context, Controller, Outcome};

pub const CONTROLLER: Controller = Controller {
    name: "garbage-collector",
    reads: |_| {},
    keys,
    relieved: |_, _| Vec::new(),
    seeds: |view| view.uids().map(|uid| Key::cluster(uid)).collect(),
    subject: |view, key| Some(view.object(&key.name)?.reference()),
    reconcile,
};

fn keys(view: &View, touched: &Touched) -> Vec<Key> {
    if !touched.ownership_changed {
        return Vec::new();
    }
    let mut keys = vec![Key::cluster(&touched.uid)];
    let object = view.object(&touched.uid);
    let ending = object.is_none_or(|object| object.meta.is_deleting());
    if ending {
        let dependents = view.dependents(&touched.uid);
        keys.extend(dependents.map(|object| Key::cluster(&object.meta.uid)));
    }
    // A foreground deletion may wait for this one.
    let owners = touched.owners.iter().filter_map(|uid| view.object(uid));
    let waiting = owners.filter(|owner| owner.meta.is_deleting());
    keys.extend(waiting.map(|owner| Key::cluster(&owner.meta.uid)));
    keys
}

/// How an owner stands to its dependents, in the words of Kubernetes' `classifyReferences`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OwnerState<'a> {
    /// There, or impossible to look up.
    Solid,
    /// There, but in a foreground deletion.
    WaitingForDependentsDeletion,
    /// Not there, as far as the view knows; this is its kind.
    Dangling(&'a Arc<Kind>),
}

fn reconcile(view: &View, key: &Key, cx: &Context<'_>) -> Outcome {
    let Some(object) = view.object(&key.name) else {
        return Outcome::default();
    };
    if object.meta.is_deleting() {
        return Outcome::from_writes(finish_deletion(view, object));
    }
    let owners = &object.meta.owner_references;
    let states: Vec<(&OwnerReference, OwnerState<'_>)> = owners
        .iter()
        .map(|owner| (owner, owner_state(view, object, owner, cx)))
        .collect();
    let mut writes: Vec<Write> = owners
        .iter()
        .filter(|owner| is_out_of_reach(view, object, owner, cx))
        .map(|owner| Write::Event(invalid_namespace(object, owner)))
        .collect();
    let solid: Vec<&OwnerReference> = states
        .iter()
        .filter(|(_, state)| *state == OwnerState::Solid)
        .map(|(owner, _)| *owner)
        .collect();
    if solid.len() == states.len() {
        return Outcome::from_writes(writes);
    }
    for (owner, state) in &states {
        if let OwnerState::Dangling(kind) = state {
            let namespace = if kind.namespaced {
                &*object.key().namespace
            } else {
                ""
            };
            writes.push(Write::ConfirmGone {
                kind: Arc::clone(kind),
                key: Key::new(namespace, &owner.name),
                uid: Some(owner.uid.as_str().into()),
            });
        }
    }
    if !solid.is_empty() {
        // A solid owner keeps the object: only the other references go.
        let metadata = json!({ "ownerReferences": solid });
        writes.push(Write::patch_metadata(object, metadata));
        return Outcome::from_writes(writes);
    }
    let waiting = OwnerState::WaitingForDependentsDeletion;
    let is_awaited = states.iter().any(|(_, state)| *state == waiting);
    let has_dependents = view.dependents(&object.meta.uid).next().is_some();
    let propagation = if object.meta.has_finalizer(ORPHAN_DEPENDENTS) {
        Propagation::Orphan
    } else if is_awaited && has_dependents {
        Propagation::Foreground
    } else {
        Propagation::Background
    };
    // Another owner may have joined, of which the view has not heard.
    writes.push(Write::delete_object(object, propagation).as_seen(object));
    Outcome::from_writes(writes)
}

/// The kind that an owner reference names, if its objects can be looked up.
fn kind_of<'a>(owner: &OwnerReference, cx: &Context<'a>) -> Option<&'a Arc<Kind>> {
    let (group, version) = split_api_version(&owner.api_version);
    let kind = cx.kinds.by_kind(group, version, &owner.kind);
    kind.filter(|kind| kind.served == Served::Stored)
}

fn owner_state<'a>(
    view: &View,
    dependent: &PartialObject,
    owner: &OwnerReference,
    cx: &Context<'a>,
) -> OwnerState<'a> {
    if let Some(found) = view.object(&owner.uid)
        && owns(found, dependent, owner)
    {
        return if found.meta.is_deleting() && found.meta.has_finalizer(FOREGROUND_DELETION) {
            OwnerState::WaitingForDependentsDeletion
        } else {
            OwnerState::Solid
        };
    }
    match kind_of(owner, cx) {
        // No namespace to look for it in.
        Some(kind) if kind.namespaced && dependent.key().scope().is_none() => OwnerState::Solid,
        Some(kind) => OwnerState::Dangling(kind),
        None => OwnerState::Solid,
    }
}

/// `owner` is a reference of `dependent` to `found`, and one that holds.
fn owns(found: &PartialObject, dependent: &PartialObject, owner: &OwnerReference) -> bool {
    let (group, _) = split_api_version(&owner.api_version);
    let namespace = found.key().scope();
    namespace.is_none_or(|namespace| dependent.key().scope() == Some(namespace))
        && found.kind.group == group
        && found.kind.kind == owner.kind
        && *found.key().name == *owner.name
}

/// The reference names a namespaced object that is not in the dependent's namespace, or has none to be in.
fn is_out_of_reach(
    view: &View,
    dependent: &PartialObject,
    owner: &OwnerReference,
    cx: &Context<'_>,
) -> bool {
    let namespace = dependent.key().scope();
    let elsewhere = view.object(&owner.uid).is_some_and(|found| {
        let found = found.key().scope();
        found.is_some() && found != namespace
    });
    let is_namespaced = || kind_of(owner, cx).is_some_and(|kind| kind.namespaced);
    elsewhere || (namespace.is_none() && is_namespaced())
}

fn invalid_namespace(dependent: &PartialObject, owner: &OwnerReference) -> Note {
    let namespace = &*dependent.key().namespace;
    let message = format!(
        "ownerRef [{}/{}, namespace: {namespace}, name: {}, uid: {}] does not exist in namespace {namespace:?}",
        owner.api_version, owner.kind, owner.name, owner.uid
    );
    Note::warning(dependent.reference(), "OwnerRefInvalidNamespace", message)
}

/// What an object that is being deleted still needs from us.
fn finish_deletion(view: &View, object: &PartialObject) -> Vec<Write> {
    let mut writes = Vec::new();
    let uid = &*object.meta.uid;
    if object.meta.has_finalizer(ORPHAN_DEPENDENTS) {
        for dependent in view.dependents(uid) {
            let owners = dependent.meta.owner_references.iter();
            let left: Vec<&OwnerReference> = owners.filter(|o| *o.uid != *uid).collect();
            let metadata = json!({ "ownerReferences": left });
            writes.push(Write::patch_metadata(dependent, metadata));
        }
        if writes.is_empty() {
            writes.push(remove_finalizer(object, ORPHAN_DEPENDENTS));
        }
        return writes;
    }
    if !object.meta.has_finalizer(FOREGROUND_DELETION) {
        return writes;
    }
    let mut blocking = view
        .dependents(uid)
        .filter(|dependent| dependent.meta.uid != object.meta.uid && blocks(dependent, object))
        .peekable();
    if blocking.peek().is_none() {
        return vec![remove_finalizer(object, FOREGROUND_DELETION)];
    }
    // One that is not in deletion yet is looked at by itself: whether it goes depends on its other owners, too.
    let waiting = |dependent: &&PartialObject| {
        dependent.meta.is_deleting() && waits_for(view, dependent, uid)
    };
    for dependent in blocking.filter(waiting) {
        // Each waits for the other: this one stops blocking.
        let mut owners = dependent.meta.owner_references.to_vec();
        for owner in owners.iter_mut().filter(|owner| *owner.uid == *uid) {
            owner.block_owner_deletion = Some(false);
        }
        let metadata = json!({ "ownerReferences": owners });
        writes.push(Write::patch_metadata(dependent, metadata));
    }
    writes
}

/// `dependent` sets `blockOwnerDeletion` for `owner`.
fn blocks(dependent: &PartialObject, owner: &PartialObject) -> bool {
    dependent.meta.owner_references.iter().any(|reference| {
        *reference.uid == *owner.meta.uid
            && reference.block_owner_deletion == Some(true)
            && owns(owner, dependent, reference)
    })
}

/// `object` is in a foreground deletion that, over blocking dependents, comes to wait for `target`.
fn waits_for(view: &View, object: &PartialObject, target: &str) -> bool {
    let mut seen = BTreeSet::new();
    let mut open = vec![object];
    while let Some(object) = open.pop() {
        if !object.meta.has_finalizer(FOREGROUND_DELETION) || !seen.insert(&object.meta.uid) {
            continue;
        }
        for dependent in view.dependents(&object.meta.uid) {
            if blocks(dependent, object) {
                if *dependent.meta.uid == *target {
                    return true;
                }
                open.push(dependent);
            }
        }
    }
    false
}

fn remove_finalizer(object: &PartialObject, name: &str) -> Write {
    let finalizers = object.meta.finalizers.iter();
    let left: Vec<&String> = finalizers.filter(|f| *f != name).collect();
    Write::patch_metadata(object, json!({ "finalizers": left }))
}
