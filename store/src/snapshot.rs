//! A view of the whole store at one revision.
//!
//! Taking one is O(1) and keeps nothing locked: a LIST of many pages and the checkpoint read side by side with writers.
//! It keeps the values it can see for as long as it lives: those in memory there, and those on disk in the file, which grows by what is
//! written meanwhile.
//!
//! A value that no checkpoint holds yet, or that was read lately, is in memory. Another is read from the file: some microseconds where
//! the system has its page, as long as the disk takes where not. A reader of many values should not do that on a thread that
//! others wait for; keys and revisions ([`Snapshot::keys`]) cost no reading.

use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;

use crate::entries::Entries;
use crate::key::{Entry, Key, Revision};

/// The store as it was at [`Snapshot::revision`]. Cheap to clone.
#[derive(Clone)]
pub struct Snapshot {
    entries: Entries,
    revision: Revision,
}

/// Where a range under a prefix begins.
fn start<'a>(prefix: &'a [u8], after: Option<&'a Key>) -> Bound<&'a [u8]> {
    match after {
        Some(after) if after.as_bytes() >= prefix => Bound::Excluded(after.as_bytes()),
        _ => Bound::Included(prefix),
    }
}

impl Snapshot {
    pub(crate) fn new(entries: Entries, revision: Revision) -> Self {
        Snapshot { entries, revision }
    }

    /// The revision this view shows.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// The entry under `key`. May read the disk.
    ///
    /// Where that fails the entry is there all the same, without its value: [`Entry::is_lost`].
    pub fn get(&self, key: &Key) -> Option<Arc<Entry>> {
        self.entries.get(key.as_bytes())
    }

    /// The revision of the value under `key`. Never reads the disk.
    pub fn revision_of(&self, key: &Key) -> Option<Revision> {
        self.entries.mark(key.as_bytes()).map(|mark| mark.revision)
    }

    /// The entries whose key starts with `prefix`, in key order, from the first one behind `after`. May read the disk for each, as
    /// [`Snapshot::get`].
    pub fn range<'a>(
        &'a self,
        prefix: &'a [u8],
        after: Option<&Key>,
    ) -> impl Iterator<Item = Arc<Entry>> + use<'a> {
        self.entries.range(start(prefix, after), prefix)
    }

    /// The keys that start with `prefix`, in order, from the first one behind `after`, each with the revision of its value. Never
    /// reads the disk.
    pub fn keys<'a>(
        &'a self,
        prefix: &'a [u8],
        after: Option<&Key>,
    ) -> impl Iterator<Item = (Key, Revision)> + use<'a> {
        let marks = self.entries.marks(start(prefix, after), prefix);
        marks.map(|(key, mark)| (Key::new(Bytes::copy_from_slice(key)), mark.revision))
    }

    /// How many keys start with `prefix`. Counts them: linear in the answer. Never reads the disk.
    pub fn len_of(&self, prefix: &[u8]) -> usize {
        self.entries.marks(start(prefix, None), prefix).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_its_prefix_behind_a_key() {
        let mut entries = Entries::default();
        for (revision, key) in (1..).zip(["/a", "/a/1", "/a/2", "/a/3", "/ab", "/b"]) {
            let entry = Entry::new(Key::from(key), Bytes::new().into(), revision, revision);
            entries.insert(Arc::new(entry));
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
            let keys = snapshot.keys(prefix.as_bytes(), after_key.as_ref());
            let keys: Vec<_> = keys.map(|(key, _)| key.to_string()).collect();
            assert_eq!(keys.join(" "), expected, "{prefix} after {after:?}");
        }
        assert_eq!(snapshot.len_of(b"/a"), 5);
        assert_eq!(snapshot.revision_of(&Key::from("/ab")), Some(5));
        assert_eq!(snapshot.revision_of(&Key::from("/c")), None);
    }
}
