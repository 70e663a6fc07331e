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

#[cfg(test)]
mod tests {
    use serde_json::json;
    use weft_store::{Config, Mutation, Precondition, Store};

    use super::*;

    #[tokio::test]
    async fn each_state_of_a_namespace_is_what_its_snapshot_says() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(Config::new(dir.path())).await.unwrap();
        let vault = Vault::new(store.clone(), None);
        let key = |name: &str| stored::key(&NAMESPACE, None, name);
        let put = |name: &str, label: &str| {
            let namespace = json!({
                "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {label: "x"}},
            });
            let value = stored::encode(&namespace).unwrap();
            Mutation::put(key(name), Precondition::None, value)
        };
        let namespaces = Namespaces::default();
        let labelled = |snapshot: &Snapshot, label: &str| {
            let found = namespaces.find(&vault, snapshot, "n");
            found.map(|found| found.has_label(|key| key == label))
        };
        assert_eq!(labelled(&store.snapshot(), "a"), None);
        store.write(vec![put("n", "a")], None).await.unwrap();
        let before = store.snapshot();
        assert_eq!(labelled(&before, "a"), Some(true));
        assert_eq!(labelled(&before, "a"), Some(true));
        store.write(vec![put("n", "b")], None).await.unwrap();
        let after = store.snapshot();
        for _ in 0..2 {
            assert_eq!(labelled(&after, "a"), Some(false));
            assert_eq!(labelled(&before, "a"), Some(true));
        }
        let many = (0..=KEPT_MAX).map(|number| put(&format!("n{number}"), "a"));
        store.write(many.collect(), None).await.unwrap();
        let full = store.snapshot();
        for number in 0..=KEPT_MAX {
            let found = namespaces.find(&vault, &full, &format!("n{number}"));
            assert!(found.is_some(), "{number}");
        }
        assert!(namespaces.kept.lock().len() <= KEPT_MAX);
        let gone = Mutation::delete(key("n"), Precondition::None);
        store.write(vec![gone], None).await.unwrap();
        assert_eq!(labelled(&store.snapshot(), "b"), None);
    }
}
