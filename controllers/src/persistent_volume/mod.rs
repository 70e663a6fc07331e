//! PersistentVolumes and their claims: which belongs to which, volumes that are made for claims, and what becomes of both.
//!
//! One controller looks at both, as one state: a key with a namespace is a claim (`claim`), one without a volume (`volume`). A look takes
//! one step, and the change that comes of it wakes the next: a claim takes its volume by writing itself into `spec.claimRef`,
//! then names the volume, then is called bound. Which volume fits is `matching`'s; claims that pods bring along are `ephemeral`'s.
//!
//! Volumes of the driver [`FOLDER_DRIVER`] are made here, as objects: a folder of the node that they are bound to, which its agent makes when a pod
//! mounts it, and removes when the object is gone. Where the class waits for a consumer that is the node of the first pod that has one and
//! uses the claim; otherwise the ready node that has the fewest of them.
//!
//! Invariants: a volume is written to one claim only, by a patch that is bound to the state it was found in; a claim in use, and a volume
//! that is bound, stay until they are not. Volumes of other drivers are bound, and never made or removed.
//!
//! Source: kubernetes `pkg/controller/volume/persistentvolume`, `pvcprotection`, `pvprotection`, 1.37.

mod claim;
pub mod ephemeral;
mod matching;
#[cfg(test)]
mod tests;
mod volume;

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::Value;
use weft_api::annotation::FOLDER_DRIVER;
use weft_api::object::{Object, ObjectError};
use weft_api::view::Node;
use weft_kinds::lens::{items, text};
use weft_kinds::{Kind, NODE, PERSISTENT_VOLUME, PERSISTENT_VOLUME_CLAIM, POD, STORAGE_CLASS};

use crate::indexer::{Cached, Index, Lens};
use crate::metadata::{Key, PartialObject};
use crate::view::{Reads, Touched, View};
use crate::{Context, Controller, Outcome};

/// Keeps a claim that pods use.
pub const CLAIM_PROTECTION: &str = "kubernetes.io/pvc-protection";
/// Keeps a volume that is bound.
pub const VOLUME_PROTECTION: &str = "kubernetes.io/pv-protection";

pub(crate) const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
pub(crate) const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
pub(crate) const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
pub(crate) const PROVISIONER: &str = "volume.kubernetes.io/storage-provisioner";
pub(crate) const PROVISIONER_BETA: &str = "volume.beta.kubernetes.io/storage-provisioner";
pub(crate) const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
pub(crate) const BETA_CLASS: &str = "volume.beta.kubernetes.io/storage-class";
/// On the StorageClass that claims without one are given.
const IS_DEFAULT: [&str; 2] = [
    "storageclass.kubernetes.io/is-default-class",
    "storageclass.beta.kubernetes.io/is-default-class",
];
pub(crate) const HOST_NAME: &str = "kubernetes.io/hostname";

pub const CONTROLLER: Controller = Controller {
    name: "persistentvolume-controller",
    reads: |reads| {
        reads
            .kind::<Claim>()
            .kind::<Volume>()
            .kind::<Class>()
            .kind::<Node>()
            .kind::<PodVolumes>()
            .index(&WITH_CLAIMS)
            .index(&CLAIMED);
    },
    keys,
    relieved: |_, _| Vec::new(),
    seeds: |view| {
        let claims = view.list::<Claim>().map(|row| row.key.clone());
        let volumes = view.list::<Volume>().map(|row| row.key.clone());
        claims.chain(volumes).collect()
    },
    subject: |view, key| {
        let kind = match key.namespace.is_empty() {
            true => &PERSISTENT_VOLUME,
            false => &PERSISTENT_VOLUME_CLAIM,
        };
        view.object_of(kind, key).map(PartialObject::reference)
    },
    reconcile,
};

/// A claim, as it is written.
#[derive(Debug)]
pub struct Claim {
    pub spec: Value,
    pub status: Value,
}

impl Lens for Claim {
    fn kind() -> &'static Arc<Kind> {
        &PERSISTENT_VOLUME_CLAIM
    }

    fn read(object: &Object) -> Result<Self, ObjectError> {
        let (spec, status) = parts(object);
        Ok(Self { spec, status })
    }
}

/// A volume, as it is written.
#[derive(Debug)]
pub struct Volume {
    pub spec: Value,
    pub status: Value,
}

impl Lens for Volume {
    fn kind() -> &'static Arc<Kind> {
        &PERSISTENT_VOLUME
    }

    fn read(object: &Object) -> Result<Self, ObjectError> {
        let (spec, status) = parts(object);
        Ok(Self { spec, status })
    }
}

fn parts(object: &Object) -> (Value, Value) {
    let value = object.as_value();
    (value["spec"].clone(), value["status"].clone())
}

/// What claims are made by.
#[derive(Debug)]
pub struct Class {
    pub provisioner: String,
    pub reclaim: String,
    pub waits: bool,
    pub grows: bool,
    /// For claims that name no class.
    pub is_default: bool,
    pub mount_options: Value,
}

impl Lens for Class {
    fn kind() -> &'static Arc<Kind> {
        &STORAGE_CLASS
    }

    fn read(object: &Object) -> Result<Self, ObjectError> {
        let class = object.as_value();
        Ok(Self {
            provisioner: text(class, "/provisioner").to_owned(),
            reclaim: text(class, "/reclaimPolicy").to_owned(),
            waits: text(class, "/volumeBindingMode") == "WaitForFirstConsumer",
            grows: class["allowVolumeExpansion"] == Value::Bool(true),
            is_default: IS_DEFAULT
                .iter()
                .any(|name| class["metadata"]["annotations"][*name] == "true"),
            mount_options: class["mountOptions"].clone(),
        })
    }
}

/// What a pod has to do with claims. Nothing is kept of one that uses none.
#[derive(Debug, PartialEq, Eq)]
pub struct PodVolumes(pub Option<Box<Uses>>);

/// Of a pod that uses claims.
#[derive(Debug, PartialEq, Eq)]
pub struct Uses {
    pub node: String,
    pub is_finished: bool,
    /// By name, with the name of the volume; those that it brings along after their pod and volume.
    pub claims: Vec<(String, Brought)>,
}

/// Whether a pod brings a claim along.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Brought {
    No,
    /// With this template.
    Along(Value),
}

impl Lens for PodVolumes {
    fn kind() -> &'static Arc<Kind> {
        &POD
    }

    fn read(object: &Object) -> Result<Self, ObjectError> {
        let pod = object.as_value();
        let volumes = items(pod, "/spec/volumes").iter();
        let claims: Vec<(String, Brought)> = volumes
            .filter_map(|volume| {
                let named = text(volume, "/persistentVolumeClaim/claimName");
                if !named.is_empty() {
                    return Some((named.to_owned(), Brought::No));
                }
                let template = volume.pointer("/ephemeral/volumeClaimTemplate")?;
                let (pod, volume) = (text(pod, "/metadata/name"), text(volume, "/name"));
                Some((format!("{pod}-{volume}"), Brought::Along(template.clone())))
            })
            .collect();
        let uses = (!claims.is_empty()).then(|| {
            Box::new(Uses {
                node: text(pod, "/spec/nodeName").to_owned(),
                is_finished: matches!(text(pod, "/status/phase"), "Succeeded" | "Failed"),
                claims,
            })
        });
        Ok(Self(uses))
    }
}

/// Pods that use claims, by their namespace; `""`: all others.
pub(crate) static WITH_CLAIMS: Index<PodVolumes> = Index {
    name: "with-claims",
    of: |pod| match pod.body.0 {
        Some(_) => pod.key.namespace.to_string(),
        None => String::new(),
    },
};

/// What [`users`] reads.
pub fn read_users(reads: &mut Reads) {
    reads.kind::<PodVolumes>().index(&WITH_CLAIMS);
}

/// Volumes by the claim that they are written to, as `NAMESPACE/NAME`; `""`: those of nobody.
static CLAIMED: Index<Volume> = Index {
    name: "claimed",
    of: |volume| owner(volume).map_or_else(String::new, |key| key.to_string()),
};

/// The claim that a volume is written to.
fn owner(volume: &Cached<Volume>) -> Option<Key> {
    let (namespace, name) = (
        text(&volume.body.spec, "/claimRef/namespace"),
        text(&volume.body.spec, "/claimRef/name"),
    );
    (!name.is_empty()).then(|| Key::new(namespace, name))
}

/// The class that a claim or a volume names.
fn class_of<K: Lens>(row: &Cached<K>, spec: &Value) -> String {
    let beta = row.meta.annotations.get(BETA_CLASS);
    beta.cloned()
        .unwrap_or_else(|| text(spec, "/storageClassName").to_owned())
}

/// Whether the volume is a folder of a node, which is made and removed here.
fn is_folder(volume: &Cached<Volume>) -> bool {
    text(&volume.body.spec, "/csi/driver") == FOLDER_DRIVER
}

fn keys(view: &View, touched: &Touched) -> Vec<Key> {
    let mut keys = BTreeSet::new();
    let unbound = |keys: &mut BTreeSet<Key>| {
        let claims = view.list::<Claim>();
        let waiting = claims.filter(|claim| text(&claim.body.status, "/phase") != "Bound");
        keys.extend(waiting.map(|claim| claim.key.clone()));
    };
    if touched.is_of(&PERSISTENT_VOLUME_CLAIM) {
        keys.insert(touched.key.clone());
        let volumes = view.list_by(&CLAIMED, &touched.key.to_string());
        keys.extend(volumes.map(|volume| volume.key.clone()));
        for claim in touched.states::<Claim>() {
            let named = text(&claim.body.spec, "/volumeName");
            if !named.is_empty() {
                keys.insert(Key::new("", named));
            }
        }
    } else if touched.is_of(&PERSISTENT_VOLUME) {
        keys.insert(touched.key.clone());
        let owners = touched.states::<Volume>().filter_map(owner);
        keys.extend(owners.collect::<Vec<_>>());
        let is_free = |volume: &Cached<Volume>| owner(volume).is_none();
        if touched.after::<Volume>().is_some_and(is_free) || !touched.is_there {
            unbound(&mut keys);
        }
    } else if touched.is_of(&STORAGE_CLASS) || touched.is_of(&NODE) {
        // Nodes report all the time; whether one is there or not is what counts.
        if touched.is_of(&STORAGE_CLASS) || touched.was_there != touched.is_there {
            unbound(&mut keys);
        }
    } else if touched.is_of(&POD) {
        let (before, after) = (
            touched.before::<PodVolumes>(),
            touched.after::<PodVolumes>(),
        );
        let same =
            matches!((before, after), (Some(before), Some(after)) if before.body == after.body);
        if !same {
            for pod in touched.states::<PodVolumes>() {
                let uses = pod.body.0.iter();
                let claims = uses.flat_map(|uses| uses.claims.iter());
                keys.extend(claims.map(|(claim, _)| pod.key.sibling(claim)));
            }
        }
    }
    keys.into_iter().collect()
}

/// The pods that use a claim. Needs [`read_users`].
pub fn users<'a>(
    view: &'a View,
    claim: &'a Key,
) -> impl Iterator<Item = (&'a Cached<PodVolumes>, &'a Uses)> {
    let pods = view.list_by(&WITH_CLAIMS, &claim.namespace);
    pods.filter_map(move |pod| {
        let uses = pod.body.0.as_deref()?;
        let uses_it = uses.claims.iter().any(|(name, _)| **name == *claim.name);
        uses_it.then_some((&**pod, uses))
    })
}

fn reconcile(view: &View, key: &Key, cx: &Context<'_>) -> Outcome {
    match key.namespace.is_empty() {
        true => volume::reconcile(view, key),
        false => claim::reconcile(view, key, cx),
    }
}
