//! The namespaces that writes are made in, read once for each of their revisions.
//!
//! Nearly every write asks what its namespace says: whether it takes new objects, and what its labels ask of pods. It is the same
//! as a moment before, nearly always, and then nothing of it is read again.
//!
//! Invariants: what is found is at the revision that the snapshot has; no more than [`KEPT_MAX`] are kept.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use weft_kinds::NAMESPACE;
use weft_store::{Key, Snapshot};

use crate::encryption::Vault;
use crate::stored::{self, Stored};

/// Namespaces that are kept: more than are written to within the same second, and a few hundred KB at most where they are as small as they
/// are everywhere.
const KEPT_MAX: usize = 256;

/// Those that were asked for.
#[derive(Default)]
pub(crate) struct Namespaces {
    kept: Mutex<BTreeMap<Key, Stored>>,
}

impl Namespaces {
    /// A namespace as a snapshot has it; none where it has none.
    pub(crate) fn find(&self, vault: &Vault, snapshot: &Snapshot, name: &str) -> Option<Stored> {
        let key = stored::key(&NAMESPACE, None, name);
        let revision = snapshot.revision_of(&key)?;
        let known = self.kept.lock().get(&key).cloned();
        if let Some(known) = known.filter(|known| known.revision() == revision) {
            return Some(known);
        }
        let entry = snapshot.get(&key)?;
        let is_lost = entry.is_lost();
        let found = Stored::new(vault, &NAMESPACE, entry);
        if is_lost {
            // It may come back.
            return Some(found);
        }
        let mut kept = self.kept.lock();
        if kept.len() >= KEPT_MAX && !kept.contains_key(&key) {
            kept.clear();
        }
        kept.insert(key, found.clone());
        Some(found)
    }
}
