//! The objects of one kind at one revision, and the ways to find them.
//!
//! A [`View`] is a persistent map: cloning it is O(1), and views of neighbouring revisions share all that did not change. Beside
//! the objects by key it keeps what makes an answer cost what it carries: some fields as an index, totals a namespace, and,
//! where a namespace may hold only so many, their age.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use imbl::OrdMap;
use weft_store::{Key, Revision};

use super::item::Item;
use crate::encryption::Vault;
use weft_kinds::{Kind, KindRef};

/// Fields that clients select one of many by, and so are worth an index in every kind that offers them: agents ask for the
/// pods of a node, `kubectl describe` for the events about an object.
const INDEXED: [&str; 2] = ["/spec/nodeName", "/involvedObject/name"];

/// What one namespace may hold of a kind whose objects are a story, not state: the oldest give way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Quota {
    pub objects: usize,
    /// As the store holds them, compressed.
    pub bytes: usize,
}

/// Events of a namespace: with an hour to live, three a second; a rollout of 2,500 pods tells that much. At their usual size
/// that is 4 MB, and the second bound is for large ones.
const EVENTS_MAX: Quota = Quota {
    objects: 10_000,
    bytes: 16 << 20,
};
/// Kinds with a quota, by the prefix of their keys.
const QUOTAS: [(&str, Quota); 1] = [("/core/events/", EVENTS_MAX)];

/// What a namespace may hold of a kind.
pub(crate) fn quota_of(kind: KindRef<'_>) -> Option<Quota> {
    let prefix = kind.key_prefix();
    let found = QUOTAS.iter().find(|(of, _)| *of == prefix);
    found.map(|(_, quota)| *quota)
}

/// How a kind is indexed.
#[derive(Clone)]
pub(crate) struct Plan {
    pub kind: Arc<Kind>,
    /// Places in what is looked at of the kind.
    pub fields: Vec<usize>,
    pub quota: Option<Quota>,
}

impl Plan {
    pub(crate) fn of(kind: KindRef<'_>) -> Self {
        let kind = kind.stored();
        let mut fields: Vec<usize> = Vec::new();
        let looked_at = kind.looked_at();
        for (index, selectable) in looked_at.iter().enumerate() {
            let pointer = &*selectable.pointer;
            let known = fields
                .iter()
                .any(|known| looked_at[*known].pointer == pointer);
            if INDEXED.contains(&pointer) && !known {
                fields.push(index);
            }
        }
        Self {
            kind: kind.clone(),
            fields,
            quota: quota_of(kind),
        }
    }

    /// The index that answers for a field of `kind`, which may be another spelling of the stored kind.
    pub(crate) fn index_of(&self, kind: KindRef<'_>, field: &str) -> Option<usize> {
        let selectable = kind.selectable.iter().find(|s| s.field == field)?;
        let looked_at = self.kind.looked_at();
        let same = |index: &&usize| looked_at[**index].pointer == selectable.pointer;
        self.fields.iter().find(same).copied()
    }
}

/// The same text gives the same number in this process; two texts may share one.
pub(crate) fn digest(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}

/// A namespace's part of a key: everything up to the name.
pub(crate) fn namespace_part(key: &Key) -> &[u8] {
    let bytes = key.as_bytes();
    let end = bytes.iter().rposition(|byte| *byte == b'/');
    &bytes[..end.map_or(0, |end| end + 1)]
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct IndexKey {
    field: usize,
    /// Digest of the value: who shares it is told apart by the selection.
    value: u64,
    key: Key,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Total {
    pub objects: usize,
    pub bytes: usize,
}

/// The objects of a kind at a revision.
#[derive(Clone)]
pub(crate) struct View {
    revision: Revision,
    items: OrdMap<Key, Arc<Item>>,
    index: OrdMap<IndexKey, Arc<Item>>,
    /// By namespace, as a part of keys.
    totals: OrdMap<Vec<u8>, Total>,
    /// By namespace and revision, where there is a quota.
    ages: OrdMap<(u64, Revision), Arc<Item>>,
}

impl View {
    pub(crate) fn new(revision: Revision) -> Self {
        Self {
            revision,
            items: OrdMap::new(),
            index: OrdMap::new(),
            totals: OrdMap::new(),
            ages: OrdMap::new(),
        }
    }

    pub(crate) fn revision(&self) -> Revision {
        self.revision
    }

    /// Says that nothing happened up to this revision, or how far it was taken back.
    pub(crate) fn set_revision(&mut self, revision: Revision) {
        self.revision = revision;
    }

    /// Takes an object in, and returns the one that it replaces.
    pub(crate) fn put(
        &mut self,
        plan: &Plan,
        vault: &Vault,
        item: &Arc<Item>,
    ) -> Option<Arc<Item>> {
        let key = item.key();
        let replaced = self.items.insert(key.clone(), Arc::clone(item));
        if let Some(replaced) = &replaced {
            self.forget(plan, vault, replaced);
        }
        for field in &plan.fields {
            let value = digest(item.facts(&plan.kind, vault).field(*field).as_bytes());
            let at = IndexKey {
                field: *field,
                value,
                key: key.clone(),
            };
            self.index.insert(at, Arc::clone(item));
        }
        let namespace = namespace_part(key);
        let total = match self.totals.get_mut(namespace) {
            Some(total) => total,
            None => self.totals.entry(namespace.to_vec()).or_default(),
        };
        total.objects += 1;
        total.bytes += item.weight();
        if plan.quota.is_some() {
            self.ages
                .insert((digest(namespace), item.revision()), Arc::clone(item));
        }
        replaced
    }

    /// Lets go of the object under `key`.
    pub(crate) fn remove(&mut self, plan: &Plan, vault: &Vault, key: &Key) -> Option<Arc<Item>> {
        let removed = self.items.remove(key)?;
        self.forget(plan, vault, &removed);
        Some(removed)
    }

    fn forget(&mut self, plan: &Plan, vault: &Vault, item: &Item) {
        let key = item.key();
        for field in &plan.fields {
            let value = digest(item.facts(&plan.kind, vault).field(*field).as_bytes());
            self.index.remove(&IndexKey {
                field: *field,
                value,
                key: key.clone(),
            });
        }
        let namespace = namespace_part(key);
        if let Some(total) = self.totals.get_mut(namespace) {
            total.objects -= 1;
            total.bytes -= item.weight();
            if total.objects == 0 {
                self.totals.remove(namespace);
            }
        }
        if plan.quota.is_some() {
            self.ages.remove(&(digest(namespace), item.revision()));
        }
    }

    pub(crate) fn get(&self, key: &Key) -> Option<&Arc<Item>> {
        self.items.get(key)
    }

    /// The objects below `prefix`, in the order of their keys, from the first one behind `after`.
    pub(crate) fn range(
        &self,
        prefix: Bytes,
        after: Option<&Key>,
    ) -> impl Iterator<Item = &Arc<Item>> + use<'_> {
        self.items
            .range((first(&prefix, after), Bound::Unbounded))
            .take_while(move |(key, _)| key.as_bytes().starts_with(&prefix))
            .map(|(_, item)| item)
    }

    /// As [`View::range`], of those that have `value` in an indexed field, and maybe some others.
    pub(crate) fn range_with(
        &self,
        field: usize,
        value: &str,
        prefix: Bytes,
        after: Option<&Key>,
    ) -> impl Iterator<Item = &Arc<Item>> + use<'_> {
        let value = digest(value.as_bytes());
        let at = |key| IndexKey { field, value, key };
        let start = match first(&prefix, after) {
            Bound::Excluded(key) => Bound::Excluded(at(key)),
            Bound::Included(key) => Bound::Included(at(key)),
            Bound::Unbounded => Bound::Unbounded,
        };
        self.index
            .range((start, Bound::Unbounded))
            .take_while(move |(found, _)| {
                found.field == field
                    && found.value == value
                    && found.key.as_bytes().starts_with(&prefix)
            })
            .map(|(_, item)| item)
    }

    /// How many objects there are in a namespace, or of the kind.
    pub(crate) fn count(&self, namespace: Option<&[u8]>) -> usize {
        match namespace {
            None => self.items.len(),
            Some(part) => self.totals.get(part).map_or(0, |total| total.objects),
        }
    }

    /// The oldest objects of a namespace that have to go before one more of `bytes` fits into its quota. At most `most`.
    pub(crate) fn excess(
        &self,
        plan: &Plan,
        namespace: &[u8],
        bytes: usize,
        most: usize,
    ) -> Vec<Key> {
        let Some(quota) = plan.quota else {
            return Vec::new();
        };
        let mut total = self.totals.get(namespace).copied().unwrap_or_default();
        let begin = (digest(namespace), 0);
        let end = (digest(namespace), Revision::MAX);
        let oldest = self.ages.range(begin..=end).map(|(_, item)| item);
        oldest
            .filter(|item| namespace_part(item.key()) == namespace)
            .take_while(|item| {
                let full = total.objects + 1 > quota.objects || total.bytes + bytes > quota.bytes;
                total.objects = total.objects.saturating_sub(1);
                total.bytes = total.bytes.saturating_sub(item.weight());
                full
            })
            .take(most)
            .map(|item| item.key().clone())
            .collect()
    }
}

fn first(prefix: &Bytes, after: Option<&Key>) -> Bound<Key> {
    match after {
        Some(after) if after.as_bytes() >= &prefix[..] => Bound::Excluded(after.clone()),
        _ => Bound::Included(Key::new(prefix.clone())),
    }
}
