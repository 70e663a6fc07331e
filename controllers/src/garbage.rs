//! Garbage collection: objects go when the last of their owners is gone.
//!
//! Background: an object none of whose owners exists is deleted. Foreground: an owner with the `foregroundDeletion`
//! finalizer stays until its blocking dependents are gone. Orphan: an owner with the `orphan` finalizer first loses its
//! dependents. A cycle of foreground deletions is broken by no longer letting one of it block.
//!
//! The view is in revision order over all kinds, and an owner is older than whoever names its uid, so an owner that is
//! not there is gone (or never was). An owner of a kind that weft does not serve cannot be looked up; an object
//! with such an owner stays.
//!
//! Keys are uids, not names: a namesake is another object.

use serde_json::{Value, json};
use weft_api::meta::OwnerReference;

use crate::view::{Entry, Key, Touched, View};
use crate::write::{
    CONFIG_MAPS, DEPLOYMENTS, ENDPOINT_SLICES, GATEWAY_CLASSES, GATEWAYS, HTTP_ROUTES, LEASES,
    NAMESPACES, NODES, PODS, Propagation, REPLICA_SETS, Resource, SECRETS, SERVICE_ACCOUNTS,
    SERVICES, Write,
};
use crate::{Context, Controller, Outcome};

pub const CONTROLLER: Controller = Controller {
    name: "garbage-collector",
    keys,
    seeds: |view| view.uids().map(Key::cluster).collect(),
    reconcile,
};

const FOREGROUND: &str = "foregroundDeletion";
const ORPHAN: &str = "orphan";
/// Kinds that can be looked up as owners.
const SERVED: &[Resource] = &[
    PODS,
    NODES,
    NAMESPACES,
    SERVICES,
    CONFIG_MAPS,
    SECRETS,
    SERVICE_ACCOUNTS,
    DEPLOYMENTS,
    REPLICA_SETS,
    ENDPOINT_SLICES,
    LEASES,
    GATEWAY_CLASSES,
    GATEWAYS,
    HTTP_ROUTES,
];

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
enum Owner {
    /// There, or impossible to look up.
    Solid,
    /// There, but waits for its dependents to go first.
    Waiting,
    Gone,
}

fn reconcile(view: &View, key: &Key, _: &Context<'_>) -> Outcome {
    let Some(entry) = view.entry(&key.name) else {
        return Outcome::default();
    };
    if entry.deleting {
        return Outcome::of(finish_deletion(view, entry));
    }
    if entry.owners.is_empty() {
        return Outcome::default();
    }
    let standings: Vec<(&OwnerReference, Owner)> = entry
        .owners
        .iter()
        .map(|owner| (owner, standing(view, entry, owner)))
        .collect();
    let solid: Vec<&OwnerReference> = standings
        .iter()
        .filter(|(_, standing)| *standing == Owner::Solid)
        .map(|(owner, _)| *owner)
        .collect();
    if solid.len() == standings.len() {
        return Outcome::default();
    }
    if !solid.is_empty() {
        // Somebody still wants it: only forget the others.
        return Outcome::of(vec![patch(entry, json!({"ownerReferences": solid}))]);
    }
    let waiting = standings.iter().any(|(_, s)| *s == Owner::Waiting);
    let has_dependents = view.dependents(&entry.uid).next().is_some();
    let propagation = if entry.has_finalizer(ORPHAN) {
        Propagation::Orphan
    } else if waiting && has_dependents {
        Propagation::Foreground
    } else {
        Propagation::Background
    };
    Outcome::of(vec![delete(entry, propagation)])
}

fn standing(view: &View, dependent: &Entry, owner: &OwnerReference) -> Owner {
    if let Some(found) = view.entry(&owner.uid) {
        // A namespaced owner only owns within its namespace.
        let in_reach =
            found.key.namespace.is_empty() || found.key.namespace == dependent.key.namespace;
        let same = found.resource.kind == owner.kind && found.key.name == owner.name;
        return if !in_reach || !same {
            Owner::Gone
        } else if found.deleting && found.has_finalizer(FOREGROUND) {
            Owner::Waiting
        } else {
            Owner::Solid
        };
    }
    let (group, _) = weft_api::gvk::split_api_version(&owner.api_version);
    let served = SERVED
        .iter()
        .any(|resource| resource.group == group && resource.kind == owner.kind);
    if served { Owner::Gone } else { Owner::Solid }
}

/// What an object that is being deleted still needs from us.
fn finish_deletion(view: &View, entry: &Entry) -> Vec<Write> {
    let mut writes = Vec::new();
    if entry.has_finalizer(ORPHAN) {
        for dependent in view.dependents(&entry.uid) {
            let left: Vec<&OwnerReference> = dependent
                .owners
                .iter()
                .filter(|owner| owner.uid != entry.uid)
                .collect();
            writes.push(patch(dependent, json!({"ownerReferences": left})));
        }
        if writes.is_empty() {
            writes.push(without_finalizer(entry, ORPHAN));
        }
        return writes;
    }
    if !entry.has_finalizer(FOREGROUND) {
        return writes;
    }
    let blocking: Vec<&Entry> = view
        .dependents(&entry.uid)
        .filter(|dependent| dependent.uid != entry.uid && blocks(dependent, &entry.uid))
        .collect();
    if blocking.is_empty() {
        return vec![without_finalizer(entry, FOREGROUND)];
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

fn blocks(dependent: &Entry, owner: &str) -> bool {
    let owners = dependent.owners.iter();
    let mut of_it = owners.filter(|reference| reference.uid == owner);
    of_it.any(|reference| reference.block_owner_deletion == Some(true))
}

/// `entry` is in a foreground deletion that, over blocking dependents, comes to wait for `target`.
fn waits_for(view: &View, entry: &Entry, target: &str) -> bool {
    let mut seen = std::collections::BTreeSet::new();
    let mut open = vec![entry];
    while let Some(entry) = open.pop() {
        if !entry.has_finalizer(FOREGROUND) || !seen.insert(entry.uid.as_str()) {
            continue;
        }
        for dependent in view.dependents(&entry.uid) {
            if blocks(dependent, &entry.uid) {
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
