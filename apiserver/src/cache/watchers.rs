//! Who is told of a change, found without asking everybody.
//!
//! Each watcher waits in one bucket, the narrowest that its selection names: one object, one value of an indexed field, one
//! namespace, or the whole kind. A change is offered to the buckets of what the object was and of what it became, so its cost
//! does not depend on how many watch something else.
//!
//! Invariants: a watcher is told of every change of its selection, in order, or is cut off; one that does not keep up costs the
//! others nothing.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;
use weft_store::Revision;

use super::Bounds;
use super::history::Change;
use super::item::Item;
use super::lines::Lines;
use super::view::{Plan, digest, namespace_part};
use crate::encryption::Vault;
use crate::listing::Selection;
use weft_kinds::{Kind, KindRef};

/// Where a watcher waits; texts by their digest, as who shares one is told apart by the selection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Bucket {
    All,
    Namespace(u64),
    Name(u64),
    Field(usize, u64),
}

/// How a change looks through a selection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Added,
    Modified,
    Deleted,
    /// It changed so that it no longer matches: told is the last state that did.
    Left,
}

/// A change on its way to one watcher.
pub(crate) struct Told {
    pub what: What,
    pub change: Arc<Change>,
    pub lines: Arc<Lines>,
}

impl Told {
    fn bytes(&self) -> usize {
        self.change.bytes() + self.change.item.weight()
    }
}

/// Why a queue gets no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Lagged,
    Closed,
}

#[derive(Default)]
pub(crate) struct Queue {
    pub told: VecDeque<Told>,
    pub bytes: usize,
    pub end: Option<End>,
}

/// One watch of the kind.
pub(crate) struct Watcher {
    id: u64,
    bucket: Bucket,
    pub kind: Arc<Kind>,
    /// Of the keys that are meant.
    prefix: Bytes,
    selection: Selection,
    pub queue: Mutex<Queue>,
    pub wake: Notify,
}

impl Watcher {
    /// How this change looks from here.
    pub(crate) fn sees(&self, vault: &Vault, change: &Change) -> Option<What> {
        if !change.item.key().as_bytes().starts_with(&self.prefix) {
            return None;
        }
        let matches = |item: &Item| self.selection.matches_item(&self.kind, vault, item);
        let before = change.previous.as_deref().is_some_and(matches);
        let now = change.put && matches(&change.item);
        match (before, now) {
            (false, true) => Some(What::Added),
            (true, true) => Some(What::Modified),
            (true, false) if change.put => Some(What::Left),
            (true, false) => Some(What::Deleted),
            (false, false) => None,
        }
    }

    fn offer(&self, told: Told, bounds: &Bounds) {
        let mut queue = self.queue.lock();
        if queue.end.is_some() {
            return;
        }
        let bytes = told.bytes();
        // One change always fits, however large.
        let room = queue.told.is_empty()
            || (queue.told.len() < bounds.queue_changes_max
                && queue.bytes + bytes <= bounds.queue_bytes_max);
        if !room {
            drop(queue);
            self.end(End::Lagged);
            return;
        }
        let was_empty = queue.told.is_empty();
        queue.bytes += bytes;
        queue.told.push_back(told);
        drop(queue);
        if was_empty {
            self.wake.notify_one();
        }
    }

    fn end(&self, end: End) {
        let mut queue = self.queue.lock();
        if queue.end.is_none() {
            if end == End::Lagged {
                // What it cannot have completely it need not have at all.
                queue.told.clear();
                queue.bytes = 0;
            }
            queue.end = Some(end);
        }
        drop(queue);
        self.wake.notify_one();
    }
}

/// All watchers of a kind.
#[derive(Default)]
pub(crate) struct Watchers {
    buckets: HashMap<Bucket, BTreeMap<u64, Arc<Watcher>>>,
    next_id: u64,
    end: Option<End>,
    /// Watchers that were looked at for a change: what an index is there to keep low.
    #[cfg(test)]
    pub asked: usize,
}

impl Watchers {
    pub(crate) fn add(
        &mut self,
        plan: &Plan,
        kind: KindRef<'_>,
        namespace: Option<&str>,
        selection: Selection,
    ) -> Arc<Watcher> {
        let prefix = crate::stored::prefix(kind, namespace);
        let indexed = || {
            selection.fields.requirements().iter().find_map(|wanted| {
                let index = plan
                    .index_of(kind, &wanted.field)
                    .filter(|_| wanted.equal)?;
                Some(Bucket::Field(index, digest(wanted.value.as_bytes())))
            })
        };
        let bucket = match selection.fields.exact("metadata.name") {
            Some(name) => Bucket::Name(digest(name.as_bytes())),
            None => indexed().unwrap_or(match namespace {
                Some(_) => Bucket::Namespace(digest(&prefix)),
                None => Bucket::All,
            }),
        };
        self.next_id += 1;
        let watcher = Arc::new(Watcher {
            id: self.next_id,
            bucket,
            kind: kind.clone(),
            prefix,
            selection,
            queue: Mutex::new(Queue {
                end: self.end,
                ..Queue::default()
            }),
            wake: Notify::new(),
        });
        self.buckets
            .entry(bucket)
            .or_default()
            .insert(self.next_id, Arc::clone(&watcher));
        watcher
    }

    pub(crate) fn remove(&mut self, watcher: &Watcher) {
        if let Some(bucket) = self.buckets.get_mut(&watcher.bucket) {
            bucket.remove(&watcher.id);
            if bucket.is_empty() {
                self.buckets.remove(&watcher.bucket);
            }
        }
    }

    /// Tells everybody concerned.
    pub(crate) fn dispatch(
        &mut self,
        plan: &Plan,
        vault: &Vault,
        bounds: &Bounds,
        change: &Arc<Change>,
    ) {
        let key = change.item.key();
        let namespace = namespace_part(key);
        let name = &key.as_bytes()[namespace.len()..];
        let mut concerned = vec![
            Bucket::All,
            Bucket::Namespace(digest(namespace)),
            Bucket::Name(digest(name)),
        ];
        for field in &plan.fields {
            for item in std::iter::once(&change.item).chain(&change.previous) {
                let value = item.facts(&plan.kind, vault).field(*field);
                let bucket = Bucket::Field(*field, digest(value.as_bytes()));
                if !concerned.contains(&bucket) {
                    concerned.push(bucket);
                }
            }
        }
        let mut lines = None;
        for bucket in concerned {
            for watcher in self
                .buckets
                .get(&bucket)
                .into_iter()
                .flat_map(BTreeMap::values)
            {
                #[cfg(test)]
                {
                    self.asked += 1;
                }
                let Some(what) = watcher.sees(vault, change) else {
                    continue;
                };
                let lines = lines.get_or_insert_with(|| change.lines());
                let told = Told {
                    what,
                    change: Arc::clone(change),
                    lines: Arc::clone(lines),
                };
                watcher.offer(told, bounds);
            }
        }
    }

    /// Ends every watch, now and later.
    pub(crate) fn end_all(&mut self, end: End) {
        self.end = Some(end);
        for watcher in self.buckets.values().flat_map(BTreeMap::values) {
            watcher.end(end);
        }
    }
}

/// The revision up to which a watcher that read everything was told: for bookmarks.
pub(crate) fn progress(watcher: &Watcher, ready: bool, told: Revision, view: Revision) -> Revision {
    let queue = watcher.queue.lock();
    if !ready && queue.told.is_empty() && queue.end.is_none() {
        view.max(told)
    } else {
        told
    }
}
