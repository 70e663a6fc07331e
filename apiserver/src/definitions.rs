//! The kinds of users, from the CustomResourceDefinitions in this server's store.
//!
//! Each server reads its own store: [`Definitions::show`] brings the registry to what a state of it says. It is called for every change
//! ([`follow`]), and by whoever meets something that the registry does not know while the store may: a request for a resource, an object in
//! the control loop's stream. So who was told that a definition is established finds its kind on any server, however far behind that was.
//! What definitions are told, and what becomes of their objects when they go, is the leader's to do ([`tend`]).
//!
//! Invariants: the registry is replaced whole, and never goes back to an older state; a definition that cannot be served is left out and
//! told, and keeps no other from being served; caches of kinds that are not served any more are ended, with the watches on them.
//! Left to others: what a definition means (`weft_kinds::apiextensions`).

mod follow;
mod gateway_api;
mod tend;

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::watch;
use weft_kinds::apiextensions::{Definition, status};
use weft_kinds::lens::{items_mut, text};
use weft_kinds::{CUSTOM_RESOURCE_DEFINITION, Kind, Registries, Registry};
use weft_store::{Key, Revision, Snapshot, Store};

use crate::encryption::Vault;
use crate::stored::{self, Stored};

/// What this server knows of definitions. Cheap to clone; clones share it.
#[derive(Clone)]
pub(crate) struct Definitions {
    shared: Arc<Shared>,
}

struct Shared {
    vault: Vault,
    registries: Registries,
    known: Mutex<Known>,
    /// The revision of the last state that brought something new.
    news: watch::Sender<Revision>,
}

#[derive(Default)]
struct Known {
    /// Of the store, that was looked at last.
    revision: Revision,
    by_key: BTreeMap<Key, One>,
}

struct One {
    revision: Revision,
    /// Without its schemas, which are many times the rest.
    lean: Arc<Value>,
    kinds: Vec<Arc<Kind>>,
}

impl Definitions {
    /// What `store` has now.
    pub(crate) fn read(store: &Store, vault: &Vault, registries: &Registries) -> Self {
        let definitions = Self {
            shared: Arc::new(Shared {
                vault: vault.clone(),
                registries: registries.clone(),
                known: Mutex::default(),
                news: watch::Sender::new(0),
            }),
        };
        definitions.show(&store.snapshot());
        definitions
    }

    /// Serves what this state says, unless a newer one was shown.
    pub(crate) fn show(&self, snapshot: &Snapshot) {
        let mut known = self.shared.known.lock();
        if snapshot.revision() <= known.revision {
            return;
        }
        known.revision = snapshot.revision();
        let prefix = stored::prefix(&CUSTOM_RESOURCE_DEFINITION, None);
        let now: BTreeMap<Key, Revision> = snapshot.keys(&prefix, None).collect();
        let before = known.by_key.len();
        known.by_key.retain(|key, _| now.contains_key(key));
        let mut changed = known.by_key.len() != before;
        let mut serves = changed;
        for (key, revision) in now {
            let old = known.by_key.get(&key);
            if old.is_some_and(|old| old.revision == revision) {
                continue;
            }
            let Some(entry) = snapshot.get(&key) else {
                continue;
            };
            changed = true;
            let stored = Stored::new(&self.shared.vault, &CUSTOM_RESOURCE_DEFINITION, entry);
            let one = One::read(revision, &stored.value());
            let same = old.is_some_and(|old| old.serves_as(&one));
            let kinds = match old {
                // A kind that stays as it is, stays the same.
                Some(old) if same => old.kinds.clone(),
                _ => {
                    serves = true;
                    one.kinds.clone()
                }
            };
            known.by_key.insert(key, One { kinds, ..one });
        }
        if serves {
            let kinds = known.by_key.values().flat_map(|one| one.kinds.iter());
            let mut kinds: Vec<Arc<Kind>> = kinds.cloned().collect();
            // In the order of groups; versions of a kind stay in theirs.
            kinds.sort_by(|one, other| {
                let order = one.group.cmp(&other.group);
                order.then_with(|| one.resource.cmp(&other.resource))
            });
            let (registry, left_out) = Registry::extended(kinds);
            for kind in left_out {
                tracing::info!(?kind, "a definition names what is served already");
            }
            self.shared.registries.replace(Arc::new(registry));
        }
        if changed {
            self.shared.news.send_replace(snapshot.revision());
        }
    }

    /// Told of each state that brought something new.
    pub(crate) fn news(&self) -> watch::Receiver<Revision> {
        self.shared.news.subscribe()
    }

    /// All definitions, without their schemas, each with its revision.
    pub(crate) fn all(&self) -> Vec<(Revision, Arc<Value>)> {
        let known = self.shared.known.lock();
        let all = known.by_key.values();
        all.map(|one| (one.revision, Arc::clone(&one.lean)))
            .collect()
    }

    /// Whether a definition at a revision takes new objects; none where that revision is not known here.
    pub(crate) fn takes_objects(&self, key: &Key, revision: Revision) -> Option<bool> {
        let known = self.shared.known.lock();
        let one = known
            .by_key
            .get(key)
            .filter(|one| one.revision == revision)?;
        Some(!status::is_ending(&one.lean))
    }

    /// Whether a kind is served in just this state of its definition.
    pub(crate) fn serves(&self, kind: &Kind) -> bool {
        let Some(custom) = &kind.custom else {
            return true;
        };
        let serial = custom.definition().serial();
        let known = self.shared.known.lock();
        let mut kinds = known.by_key.values().flat_map(|one| one.kinds.iter());
        kinds.any(|served| {
            let served = served.custom.as_ref();
            served.is_some_and(|served| served.definition().serial() == serial)
        })
    }
}

impl One {
    fn read(revision: Revision, definition: &Value) -> Self {
        let mut kinds = Vec::new();
        if status::is_served(definition) {
            match Definition::kinds(definition) {
                Ok(served) => kinds = served,
                Err(error) => {
                    let name = text(definition, "/metadata/name");
                    tracing::error!(name, error, "a definition cannot be served");
                }
            }
        }
        let mut lean = json!({
            "metadata": definition["metadata"], "spec": definition["spec"], "status": definition["status"],
        });
        for version in items_mut(&mut lean, "/spec/versions") {
            let version = version.as_object_mut();
            let version = version.map(|version| version.remove("schema"));
            drop(version);
        }
        Self {
            revision,
            lean: Arc::new(lean),
            kinds,
        }
    }

    /// Whether both serve the same in the same way, whatever else is told of them.
    fn serves_as(&self, other: &Self) -> bool {
        let definition = |one: &Self| {
            let custom = one.kinds.first()?.custom.as_ref()?;
            Some(Arc::clone(custom.definition()))
        };
        match (definition(self), definition(other)) {
            (None, None) => true,
            (Some(one), Some(other)) => one.serves_as(&other),
            _ => false,
        }
    }
}
