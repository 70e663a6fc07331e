//! The cluster as one ordered stream: what the control loop builds its view from.
//!
//! Flow: [`Change::Reset`], every object of the wanted kinds, [`Change::Synced`], then each change in the
//! order in which it was stored. When the reader falls behind, the stream starts over with a reset by itself.
//!
//! Invariant: between a reset and the next, applying the changes in order gives the store's state at the
//! revision of the last one. Left to others: keeping that state, deciding what follows from it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use weft_api::object::Object;
use weft_kinds::{CUSTOM_RESOURCE_DEFINITION, Kind, Registries};
use weft_store::{EventKind, Key, Revision, Snapshot, Store, Watch};

use crate::definitions::Definitions;
use crate::encryption::Vault;
use crate::stored::{self, Stored};

/// One step of the stream.
#[derive(Clone, Debug)]
pub enum Change {
    /// Forget everything: a full list follows.
    Reset,
    Upsert {
        kind: Arc<Kind>,
        object: Object,
    },
    /// The object is gone; this is its last state, under the revision of the deletion.
    Delete {
        kind: Arc<Kind>,
        object: Object,
    },
    /// The list is complete; what follows is news.
    Synced {
        revision: Revision,
    },
}

/// A running stream of [`Change`]s.
pub struct Informer {
    store: Store,
    vault: Vault,
    registries: Registries,
    definitions: Definitions,
    wants: fn(&Kind) -> bool,
    /// The kinds of users that objects were told of, by the prefix of their keys: the objects of a kind that goes, go before it, and may be
    /// heard of after it.
    told: BTreeMap<String, Arc<Kind>>,
    /// The rest of the list; `None` once the live part began.
    listed: Option<Listed>,
    synced: Option<Revision>,
    watch: Option<Watch>,
}

/// A list under way: what it is read from, and the kinds and keys that are still to come.
struct Listed {
    snapshot: Snapshot,
    keys: VecDeque<(Arc<Kind>, Key)>,
}

impl Informer {
    pub(crate) fn new(
        store: Store,
        vault: Vault,
        registries: Registries,
        definitions: Definitions,
        wants: fn(&Kind) -> bool,
    ) -> Self {
        Self {
            store,
            vault,
            registries,
            definitions,
            wants,
            told: BTreeMap::new(),
            listed: None,
            synced: None,
            watch: None,
        }
    }

    /// The next change; `None` once the store is closed. Cancel safe.
    pub async fn next(&mut self) -> Option<Change> {
        loop {
            if let Some(Listed { snapshot, keys }) = &mut self.listed {
                // Read one by one: all of them at once would be all that is stored.
                let next = keys.pop_front();
                let next = next.map(|(kind, key)| (snapshot.get(&key), kind));
                match next {
                    Some((Some(entry), kind)) => {
                        let object = Stored::new(&self.vault, &kind, entry).object();
                        return Some(Change::Upsert { kind, object });
                    }
                    Some((None, _)) => continue,
                    None => self.listed = None,
                }
            }
            if let Some(revision) = self.synced.take() {
                return Some(Change::Synced { revision });
            }
            let Some(watch) = &mut self.watch else {
                self.start();
                return Some(Change::Reset);
            };
            match watch.next().await {
                None => return None,
                Some(Err(lagged)) => {
                    tracing::warn!(%lagged, "the control loop fell behind and lists again");
                    self.watch = None;
                }
                Some(Ok(event)) => {
                    if self.brings_objects(&event.entry.key, event.entry.revision) {
                        tracing::info!(
                            key = %event.entry.key,
                            "objects were there before their definition: all are told of, from the beginning"
                        );
                        self.watch = None;
                        continue;
                    }
                    let Some(kind) = self.kind_of(&event.entry.key) else {
                        continue;
                    };
                    if self.is_seen_otherwise(&kind) {
                        tracing::info!(
                            ?kind,
                            "objects are told of in another version, from the beginning"
                        );
                        self.watch = None;
                        continue;
                    }
                    let object = Stored::new(&self.vault, &kind, event.entry).object();
                    return Some(match event.kind {
                        EventKind::Put => Change::Upsert { kind, object },
                        EventKind::Delete => Change::Delete { kind, object },
                    });
                }
            }
        }
    }

    /// The kind that an object is told of as, if it is wanted.
    fn kind_of(&self, key: &Key) -> Option<Arc<Kind>> {
        let find = || {
            let registry = self.registries.current();
            registry.by_key(key.as_bytes()).cloned()
        };
        let found = find().or_else(|| {
            // Only users' kinds come and go. The definition of this one was stored before it.
            let prefix = prefix_of(key).filter(|prefix| is_of_users(prefix))?;
            self.definitions.show(&self.store.snapshot());
            find().or_else(|| self.told.get(prefix).cloned())
        });
        found.filter(|kind| (self.wants)(kind))
    }

    /// Whether a change of a definition, at this revision, has a kind served of which there are older objects that nobody was told of: as
    /// where a definition takes the place of what was compiled in.
    fn brings_objects(&self, key: &Key, revision: Revision) -> bool {
        if !key
            .as_bytes()
            .starts_with(&stored::prefix(&CUSTOM_RESOURCE_DEFINITION, None))
        {
            return false;
        }
        let snapshot = self.store.snapshot();
        self.definitions.show(&snapshot);
        let registry = self.registries.current();
        let wants = self.wants;
        let untold = registry.stored().filter(|kind| {
            kind.custom.is_some() && wants(kind) && !self.told.contains_key(&kind.key_prefix())
        });
        let mut prefixes = untold.map(|kind| stored::prefix(kind, None));
        prefixes.any(|prefix| {
            let mut objects = snapshot.keys(&prefix, None);
            objects.any(|(_, written)| written < revision)
        })
    }

    /// Whether objects of the same definition were told of as another kind. Remembers what they are told of as.
    fn is_seen_otherwise(&mut self, kind: &Arc<Kind>) -> bool {
        if kind.custom.is_none() {
            return false;
        }
        let before = self.told.insert(kind.key_prefix(), Arc::clone(kind));
        before.is_some_and(|before| before != *kind)
    }

    fn start(&mut self) {
        self.told.clear();
        loop {
            let snapshot = self.store.snapshot();
            self.definitions.show(&snapshot);
            // One watch over every key keeps the order between kinds.
            let Ok(watch) = self
                .store
                .watch(bytes::Bytes::from_static(b"/"), snapshot.revision())
            else {
                // Between the two calls the history moved past the snapshot: take a newer one.
                continue;
            };
            self.watch = Some(watch);
            self.synced = Some(snapshot.revision());
            let registry = self.registries.current();
            let mut keys = VecDeque::new();
            let wants = self.wants;
            for kind in registry.stored().filter(|kind| wants(kind)) {
                self.is_seen_otherwise(kind);
                let prefix = stored::prefix(kind, None);
                let found = snapshot.keys(&prefix, None);
                keys.extend(found.map(|(key, _)| (kind.clone(), key)));
            }
            self.listed = Some(Listed { snapshot, keys });
            return;
        }
    }
}

/// The part of a key that all objects of its kind share.
fn prefix_of(key: &Key) -> Option<&str> {
    let text = std::str::from_utf8(key.as_bytes()).ok()?;
    let end = text.match_indices('/').nth(2)?.0;
    text.get(..=end)
}

/// Whether keys with a prefix can be those of users' kinds, as against what servers keep for themselves.
fn is_of_users(prefix: &str) -> bool {
    let group = prefix.trim_start_matches('/').split('/').next();
    group.is_some_and(|group| group.contains('.') && group != "weft.dev")
}
