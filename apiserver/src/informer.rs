//! The cluster as one ordered stream: what the control loop builds its view from.
//!
//! Flow: [`Change::Reset`], every object of the wanted kinds, [`Change::Synced`], then each change in the
//! order in which it was stored. When the reader falls behind, the stream starts over with a reset by itself.
//!
//! Invariant: between a reset and the next, applying the changes in order gives the store's state at the
//! revision of the last one. Left to others: keeping that state, deciding what follows from it.

use std::collections::VecDeque;
use std::sync::Arc;

use weft_api::object::Object;
use weft_kinds::{Kind, Registries};
use weft_store::{EventKind, Key, Revision, Snapshot, Store, Watch};

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
    wants: fn(&Kind) -> bool,
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
        wants: fn(&Kind) -> bool,
    ) -> Self {
        Self {
            store,
            vault,
            registries,
            wants,
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
                    let registry = self.registries.current();
                    let kind = registry.by_key(event.entry.key.as_bytes());
                    let Some(kind) = kind.filter(|kind| (self.wants)(kind)) else {
                        continue;
                    };
                    let object = Stored::new(&self.vault, kind, event.entry).object();
                    let kind = kind.clone();
                    return Some(match event.kind {
                        EventKind::Put => Change::Upsert { kind, object },
                        EventKind::Delete => Change::Delete { kind, object },
                    });
                }
            }
        }
    }

    fn start(&mut self) {
        loop {
            let snapshot = self.store.snapshot();
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
            for kind in registry.stored().filter(|kind| (self.wants)(kind)) {
                let prefix = stored::prefix(kind, None);
                let found = snapshot.keys(&prefix, None);
                keys.extend(found.map(|(key, _)| (kind.clone(), key)));
            }
            self.listed = Some(Listed { snapshot, keys });
            return;
        }
    }
}
