//! What is kept of every object, whatever its kind: who it is, whose it is, and what keeps it from going.
//!
//! Kubernetes' `PartialObjectMetadata`. Garbage collection and namespace deletion need no more, and what reads more has it
//! beside its own row ([`crate::indexer::Cached`]).
//!
//! Ten thousand pods of a hundred ReplicaSets have a hundred different sets of labels: equal ones are kept once
//! ([`Shared`]).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use weft_api::meta::{Meta, OwnerReference};
use weft_kinds::Kind;

use crate::write::Reference;

/// Namespace and name; the namespace is empty for cluster-scoped objects. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    pub namespace: Arc<str>,
    pub name: Arc<str>,
}

impl Key {
    pub fn new(namespace: &str, name: &str) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    /// The key of a cluster-scoped object.
    pub fn cluster(name: &str) -> Self {
        Self::new("", name)
    }

    /// The namespace as the verbs take it: `None` for cluster-scoped objects.
    pub fn scope(&self) -> Option<&str> {
        (!self.namespace.is_empty()).then_some(&*self.namespace)
    }

    /// The key of another object in the same namespace.
    pub fn sibling(&self, name: &str) -> Self {
        Self {
            namespace: Arc::clone(&self.namespace),
            name: name.into(),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.scope() {
            Some(namespace) => write!(f, "{namespace}/{}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

/// Labels or annotations.
pub type Texts = BTreeMap<String, String>;

/// The metadata of an object, once for all who look at it.
#[derive(Debug, Clone, PartialEq)]
pub struct Metadata {
    pub key: Key,
    pub uid: Arc<str>,
    pub resource_version: Option<u64>,
    pub generation: i64,
    pub labels: Arc<Texts>,
    pub annotations: Arc<Texts>,
    pub owner_references: Arc<[OwnerReference]>,
    pub finalizers: Arc<[String]>,
    pub creation_timestamp: Option<Timestamp>,
    pub deletion_timestamp: Option<Timestamp>,
}

impl Metadata {
    /// The owner that manages this object, if any.
    pub fn controller(&self) -> Option<&OwnerReference> {
        let mut owners = self.owner_references.iter();
        owners.find(|owner| owner.controller == Some(true))
    }

    /// Deletion has been asked for and waits for a grace period or finalizers.
    pub fn is_deleting(&self) -> bool {
        self.deletion_timestamp.is_some()
    }

    pub fn has_finalizer(&self, name: &str) -> bool {
        self.finalizers.iter().any(|finalizer| finalizer == name)
    }

    /// Owners, finalizers, deletion: what garbage collection decides on.
    pub fn has_ownership_of(&self, other: &Self) -> bool {
        self.owner_references == other.owner_references
            && self.finalizers == other.finalizers
            && self.is_deleting() == other.is_deleting()
    }
}

/// An object as garbage collection and namespace deletion see it.
#[derive(Debug, Clone, PartialEq)]
pub struct PartialObject {
    pub kind: Arc<Kind>,
    pub meta: Arc<Metadata>,
    /// Why the object has no row, if it should have one.
    pub unreadable: Option<Arc<str>>,
}

impl PartialObject {
    pub fn key(&self) -> &Key {
        &self.meta.key
    }

    /// For events about this object.
    pub fn reference(&self) -> Reference {
        Reference {
            kind: Arc::clone(&self.kind),
            key: self.meta.key.clone(),
            uid: Arc::clone(&self.meta.uid),
        }
    }
}

/// Values that many objects have in common, each kept once. What nobody holds any more is let go of whenever the number of
/// values has doubled, so there are at most twice as many as in use, and [`SWEEP_MIN`].
#[derive(Debug)]
pub(crate) struct Shared<T: ?Sized> {
    values: BTreeSet<Arc<T>>,
    sweep_at: usize,
}

/// Fewer values than this are not looked through for those that nobody holds.
const SWEEP_MIN: usize = 256;

impl<T: Ord + ?Sized> Default for Shared<T> {
    fn default() -> Self {
        Self {
            values: BTreeSet::new(),
            sweep_at: SWEEP_MIN,
        }
    }
}

impl<T: Ord + ?Sized> Shared<T> {
    /// The value that is equal to this one, if there is one already.
    pub fn share(&mut self, value: Arc<T>) -> Arc<T> {
        if let Some(known) = self.values.get(&value) {
            return Arc::clone(known);
        }
        if self.values.len() >= self.sweep_at {
            self.values.retain(|value| Arc::strong_count(value) > 1);
            self.sweep_at = (2 * self.values.len()).max(SWEEP_MIN);
        }
        self.values.insert(Arc::clone(&value));
        value
    }
}

/// What the metadata of all objects has in common.
#[derive(Debug, Default)]
pub(crate) struct SharedMetadata {
    texts: Shared<Texts>,
    owners: Shared<[OwnerReference]>,
    finalizers: Shared<[String]>,
    namespaces: Shared<str>,
}

impl SharedMetadata {
    /// `uid`: see [`crate::View`]; an object may show none.
    pub fn metadata(&mut self, key: &Key, uid: &Arc<str>, meta: Meta) -> Metadata {
        Metadata {
            key: Key {
                namespace: self.namespaces.share(Arc::clone(&key.namespace)),
                name: Arc::clone(&key.name),
            },
            uid: Arc::clone(uid),
            resource_version: meta.resource_version,
            generation: meta.generation,
            labels: self.texts.share(Arc::new(meta.labels)),
            annotations: self.texts.share(Arc::new(meta.annotations)),
            owner_references: self.owners.share(meta.owner_references.into()),
            finalizers: self.finalizers.share(meta.finalizers.into()),
            creation_timestamp: meta.creation_timestamp,
            deletion_timestamp: meta.deletion_timestamp,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_equal_is_kept_once_and_what_nobody_holds_is_let_go_of() {
        let mut shared = Shared::<str>::default();
        let one = shared.share("web".into());
        assert!(Arc::ptr_eq(&one, &shared.share("web".into())));
        for number in 0..10 * SWEEP_MIN {
            shared.share(number.to_string().into());
            assert!(shared.values.len() <= SWEEP_MIN + 1);
        }
        assert!(Arc::ptr_eq(&one, &shared.share("web".into())));
        let held: Vec<Arc<str>> = (0..4 * SWEEP_MIN)
            .map(|number| shared.share(number.to_string().into()))
            .collect();
        assert!(shared.values.len() > held.len());
        drop(held);
        for number in 0..10 * SWEEP_MIN {
            shared.share(format!("next {number}").into());
        }
        assert!(shared.values.len() <= 8 * SWEEP_MIN);
    }
}
