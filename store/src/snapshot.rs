//! A view of the whole store at one revision.
//!
//! Taking one is O(1) and keeps nothing locked: a LIST of many pages and the checkpoint read side by side with writers.
//! It keeps the entries it can see alive for as long as it lives.

use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use imbl::OrdMap;

use crate::key::{Entry, Key, Revision};

/// The store as it was at [`Snapshot::revision`]. Cheap to clone.
#[derive(Clone)]
pub struct Snapshot {
    entries: OrdMap<Key, Arc<Entry>>,
    revision: Revision,
}

impl Snapshot {
    pub(crate) fn new(entries: OrdMap<Key, Arc<Entry>>, revision: Revision) -> Self {
        Snapshot { entries, revision }
    }

    /// The revision this view shows.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// The entry under `key`.
    pub fn get(&self, key: &Key) -> Option<Arc<Entry>> {
        self.entries.get(key.as_bytes()).cloned()
    }

    /// The entries whose key starts with `prefix`, in key order, from the first one behind `after`.
    pub fn range<'a>(
        &'a self,
        prefix: &'a [u8],
        after: Option<&Key>,
    ) -> impl Iterator<Item = Arc<Entry>> + 'a {
        let start = match after {
            Some(after) if after.as_bytes() >= prefix => Bound::Excluded(after.clone()),
            _ => Bound::Included(Key::new(Bytes::copy_from_slice(prefix))),
        };
        self.entries
            .range((start, Bound::Unbounded))
            .take_while(move |(key, _)| key.as_bytes().starts_with(prefix))
            .map(|(_, entry)| Arc::clone(entry))
    }

    /// How many keys start with `prefix`. Counts them: linear in the answer.
    pub fn len_of(&self, prefix: &[u8]) -> usize {
        self.range(prefix, None).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_its_prefix_behind_a_key() {
        let mut entries = OrdMap::new();
        for (revision, key) in (1..).zip(["/a", "/a/1", "/a/2", "/a/3", "/ab", "/b"]) {
            let key = Key::from(key);
            let entry = Entry::new(key.clone(), Bytes::new().into(), revision, revision);
            entries.insert(key, Arc::new(entry));
        }
        let snapshot = Snapshot::new(entries, 6);
        for (prefix, after, expected) in [
            ("/a/", None, "/a/1 /a/2 /a/3"),
            ("/a/", Some("/a/1"), "/a/2 /a/3"),
            ("/a/", Some("/a/1x"), "/a/2 /a/3"),
            ("/a/", Some("/a/3"), ""),
            ("/a/", Some("/"), "/a/1 /a/2 /a/3"),
            ("/a/", Some("/z"), ""),
            ("", None, "/a /a/1 /a/2 /a/3 /ab /b"),
            ("/c", None, ""),
        ] {
            let after_key = after.map(Key::from);
            let found: Vec<_> = snapshot
                .range(prefix.as_bytes(), after_key.as_ref())
                .map(|entry| entry.key.to_string())
                .collect();
            assert_eq!(found.join(" "), expected, "{prefix} after {after:?}");
        }
        assert_eq!(snapshot.len_of(b"/a"), 5);
    }
}
