//! Garbage collection: objects go when the last of their owners is gone.
//!
//! Background: an object none of whose owners exists is deleted. Foreground: an owner with the `foregroundDeletion`
//! finalizer stays until its blocking dependents are gone. Orphan: an owner with the `orphan` finalizer first loses its
//! dependents. A cycle of foreground deletions is broken by no longer letting one of it block.
//!
//! The view knows every object, and an owner is older than whoever names its uid, so one that is not there is gone, or
//! never was. That much is only a suspicion: before anything is deleted for it, the store is asked
//! ([`Write::ConfirmGone`]). An owner of a kind that weft does not serve cannot be looked up; an object with such an owner
//! stays.
//!
//! A namespaced object owns within its namespace only. For an object of another namespace it is as good as absent; an
//! object without a namespace cannot be owned by it at all, and stays. Both are told, in Kubernetes' words.
//!
//! Keys are uids, not names: a namesake is another object.

use serde_json::{Value, json};
use weft_api::gvk::split_api_version;
use weft_api::meta::{FOREGROUND_DELETION, ORPHAN_DEPENDENTS, OwnerReference};

use crate::view::{Entry, Key, Touched, View};
use crate::write::{Note, Propagation, Resource, Write};
use crate::{Context, Controller, Outcome};

pub const CONTROLLER: Controller = Controller {
    name: "garbage-collector",
    reads: |_| {},
    keys,
    seeds: |view| view.uids().map(Key::cluster).collect(),
    subject: |view, key| Some(view.entry(&key.name)?.reference()),
    reconcile,
};

fn keys(view: &View, touched: &Touched) -> Vec<Key> {
    if !touched.ownership_changed {
        return Vec::new();
    }
    let mut keys = vec![Key::cluster(&touched.uid)];
    let ending = view.entry(&touched.uid).is_none_or(|entry| entry.deleting);
    if ending {
        let dependents = view.dependents(&touched.uid);
        keys.extend(dependents.map(|entry| Key::cluster(&entry.uid)));
    }
    // A foreground deletion may wait for this one.
    let owners = touched.owners.iter().filter_map(|uid| view.entry(uid));
    let waiting = owners.filter(|owner| owner.deleting);
    keys.extend(waiting.map(|owner| Key::cluster(&owner.uid)));
    keys
}

/// How an owner stands to its dependents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner<'a> {
    /// There, or impossible to look up.
    Solid,
    /// There, but waits for its dependents to go first.
    Waiting,
    /// Not there, as far as the view knows; this is its kind.
    Gone(&'a Resource),
}

fn reconcile(view: &View, key: &Key, cx: &Context<'_>) -> Outcome {
    let Some(entry) = view.entry(&key.name) else {
        return Outcome::default();
    };
    if entry.deleting {
        return Outcome::of(finish_deletion(view, entry));
    }
    let standings: Vec<(&OwnerReference, Owner<'_>)> = entry
        .owners
        .iter()
        .map(|owner| (owner, standing(view, entry, owner, cx)))
        .collect();
    let mut writes: Vec<Write> = entry
        .owners
        .iter()
        .filter(|owner| is_out_of_reach(view, entry, owner, cx))
        .map(|owner| Write::Event(invalid_namespace(entry, owner)))
        .collect();
    let solid: Vec<&OwnerReference> = standings
        .iter()
        .filter(|(_, standing)| *standing == Owner::Solid)
        .map(|(owner, _)| *owner)
        .collect();
    if solid.len() == standings.len() {
        return Outcome::of(writes);
    }
    for (owner, standing) in &standings {
        if let Owner::Gone(resource) = standing {
            writes.push(Write::ConfirmGone {
                resource: **resource,
                namespace: namespace_of(entry).filter(|_| resource.namespaced),
                name: owner.name.clone(),
                uid: Some(owner.uid.clone()),
            });
        }
    }
    if !solid.is_empty() {
        // Somebody still wants it: only forget the others.
        writes.push(patch(entry, json!({"ownerReferences": solid})));
        return Outcome::of(writes);
    }
    let waiting = standings.iter().any(|(_, s)| *s == Owner::Waiting);
    let has_dependents = view.dependents(&entry.uid).next().is_some();
    let propagation = if entry.has_finalizer(ORPHAN_DEPENDENTS) {
        Propagation::Orphan
    } else if waiting && has_dependents {
        Propagation::Foreground
    } else {
        Propagation::Background
    };
    writes.push(delete(entry, propagation));
    Outcome::of(writes)
}

fn standing<'a>(
    view: &View,
    dependent: &Entry,
    owner: &OwnerReference,
    cx: &Context<'a>,
) -> Owner<'a> {
    if let Some(found) = view.entry(&owner.uid)
        && owns(found, dependent, owner)
    {
        return if found.deleting && found.has_finalizer(FOREGROUND_DELETION) {
            Owner::Waiting
        } else {
            Owner::Solid
        };
    }
    match cx.cluster.kind_of(owner) {
        // No namespace to look for it in.
        Some(resource) if resource.namespaced && dependent.key.namespace.is_empty() => Owner::Solid,
        Some(resource) => Owner::Gone(resource),
        None => Owner::Solid,
    }
}

/// `owner` is a reference of `dependent` to `found`, and one that holds.
fn owns(found: &Entry, dependent: &Entry, owner: &OwnerReference) -> bool {
    let (group, _) = split_api_version(&owner.api_version);
    (found.key.namespace.is_empty() || found.key.namespace == dependent.key.namespace)
        && found.resource.group == group
        && found.resource.kind == owner.kind
        && found.key.name == owner.name
}

/// The reference names a namespaced object that is not in the dependent's namespace, or has none to be in.
fn is_out_of_reach(
    view: &View,
    dependent: &Entry,
    owner: &OwnerReference,
    cx: &Context<'_>,
) -> bool {
    let elsewhere = view.entry(&owner.uid).is_some_and(|found| {
        !found.key.namespace.is_empty() && found.key.namespace != dependent.key.namespace
    });
    let namespaced = || {
        cx.cluster
            .kind_of(owner)
            .is_some_and(|kind| kind.namespaced)
    };
    elsewhere || (dependent.key.namespace.is_empty() && namespaced())
}

fn invalid_namespace(dependent: &Entry, owner: &OwnerReference) -> Note {
    let namespace = &dependent.key.namespace;
    let message = format!(
        "ownerRef [{}/{}, namespace: {namespace}, name: {}, uid: {}] does not exist in namespace {namespace:?}",
        owner.api_version, owner.kind, owner.name, owner.uid
    );
    Note::warning(dependent.reference(), "OwnerRefInvalidNamespace", message)
}

/// What an object that is being deleted still needs from us.
fn finish_deletion(view: &View, entry: &Entry) -> Vec<Write> {
    let mut writes = Vec::new();
    if entry.has_finalizer(ORPHAN_DEPENDENTS) {
        for dependent in view.dependents(&entry.uid) {
            let left: Vec<&OwnerReference> = dependent
                .owners
                .iter()
                .filter(|owner| owner.uid != entry.uid)
                .collect();
            writes.push(patch(dependent, json!({"ownerReferences": left})));
        }
        if writes.is_empty() {
            writes.push(without_finalizer(entry, ORPHAN_DEPENDENTS));
        }
        return writes;
    }
    if !entry.has_finalizer(FOREGROUND_DELETION) {
        return writes;
    }
    let blocking: Vec<&Entry> = view
        .dependents(&entry.uid)
        .filter(|dependent| dependent.uid != entry.uid && blocks(dependent, entry))
        .collect();
    if blocking.is_empty() {
        return vec![without_finalizer(entry, FOREGROUND_DELETION)];
    }
    for dependent in blocking {
        if !dependent.deleting {
            let propagation = if view.dependents(&dependent.uid).next().is_some() {
                Propagation::Foreground
            } else {
                Propagation::Background
            };
            writes.push(delete(dependent, propagation));
        } else if waits_for(view, dependent, &entry.uid) {
            // Each waits for the other: this one stops blocking.
            let owners: Vec<OwnerReference> = dependent
                .owners
                .iter()
                .cloned()
                .map(|mut owner| {
                    if owner.uid == entry.uid {
                        owner.block_owner_deletion = Some(false);
                    }
                    owner
                })
                .collect();
            writes.push(patch(dependent, json!({"ownerReferences": owners})));
        }
    }
    writes
}

fn blocks(dependent: &Entry, entry: &Entry) -> bool {
    dependent.owners.iter().any(|owner| {
        owner.uid == entry.uid
            && owner.block_owner_deletion == Some(true)
            && owns(entry, dependent, owner)
    })
}

/// `entry` is in a foreground deletion that, over blocking dependents, comes to wait for `target`.
fn waits_for(view: &View, entry: &Entry, target: &str) -> bool {
    let mut seen = std::collections::BTreeSet::new();
    let mut open = vec![entry];
    while let Some(entry) = open.pop() {
        if !entry.has_finalizer(FOREGROUND_DELETION) || !seen.insert(entry.uid.as_str()) {
            continue;
        }
        for dependent in view.dependents(&entry.uid) {
            if blocks(dependent, entry) {
                if dependent.uid == target {
                    return true;
                }
                open.push(dependent);
            }
        }
    }
    false
}

impl Entry {
    fn has_finalizer(&self, name: &str) -> bool {
        self.finalizers.iter().any(|finalizer| finalizer == name)
    }
}

fn patch(entry: &Entry, metadata: Value) -> Write {
    Write::Patch {
        resource: entry.resource,
        namespace: namespace_of(entry),
        name: entry.key.name.clone(),
        subresource: None,
        patch: json!({"metadata": metadata}),
        uid: Some(entry.uid.clone()),
        revision: entry.revision,
        note: None,
    }
}

fn without_finalizer(entry: &Entry, name: &str) -> Write {
    let left: Vec<&String> = entry.finalizers.iter().filter(|f| *f != name).collect();
    patch(entry, json!({"finalizers": left}))
}

fn delete(entry: &Entry, propagation: Propagation) -> Write {
    Write::Delete {
        resource: entry.resource,
        namespace: namespace_of(entry),
        name: entry.key.name.clone(),
        uid: entry.uid.clone(),
        grace_seconds: None,
        propagation,
        note: None,
    }
}

fn namespace_of(entry: &Entry) -> Option<String> {
    let namespace = &entry.key.namespace;
    (!namespace.is_empty()).then(|| namespace.clone())
}
