//! The values of cached objects: in memory as far as they fit, over all kinds together, and read from the store where not.
//!
//! A cache knows of every object of its kind the key, the revision and what selections look at. Its value is kept here, compressed (and
//! sealed) as the store has it, until others need the room: those that were asked for since they were last looked at get
//! another turn (a clock, as of page caches), the others go. Whoever asks for one that went gets it from the store, and it is kept again.
//!
//! An object that is replaced cannot be read from the store any more. So the one whose turn it was keeps what the store tells with the
//! change ([`Item::retire`]), for as long as a history, a queue or a list under way holds on to it; those have bounds of their own. Between the
//! store's having the change and the cache's hearing of it, the value is in the store's history.
//!
//! Invariants: what is counted is at most `bytes_max`, but for the one value that is being added; no value goes before its
//! [`Facts`](super::Facts) are read; what is handed out is of the revision that was asked for.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use weft_store::{Entry, Key, Revision, Store, WatchError};

use super::item::Item;

/// Places of items that are gone are cleared away when they are more than half, and this many.
const STALE_MIN: usize = 1024;

/// A value that was replaced a moment ago, and whose cache has not heard of it yet: it can be had again when it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the object was replaced while it was read")]
pub(crate) struct Missed;

/// The values of all caches.
pub(crate) struct Values {
    store: Store,
    bytes_max: usize,
    clock: Mutex<Clock>,
}

#[derive(Default)]
struct Clock {
    /// Items whose value is counted, the next one to be looked at first; and some that are not any more.
    turn: VecDeque<Weak<Item>>,
    stale: usize,
    bytes: usize,
}

impl Values {
    pub(crate) fn new(store: Store, bytes_max: usize) -> Arc<Self> {
        Arc::new(Self {
            store,
            bytes_max,
            clock: Mutex::default(),
        })
    }

    /// Keeps the value of an item, and lets go of others where there is no room.
    pub(super) fn keep(&self, item: &Arc<Item>, entry: &Arc<Entry>) {
        // What may be the last of an item, whose end takes the lock again.
        let mut passed = Vec::new();
        let mut clock = self.clock.lock();
        if !item.count(entry) {
            return;
        }
        clock.bytes += item.weight();
        clock.turn.push_back(Arc::downgrade(item));
        // Each gets one more turn at most.
        for _ in 0..2 * clock.turn.len() {
            if clock.bytes <= self.bytes_max || clock.turn.len() == 1 {
                break;
            }
            let Some(next) = clock.turn.pop_front() else {
                break;
            };
            let Some(next) = next.upgrade() else {
                clock.stale = clock.stale.saturating_sub(1);
                continue;
            };
            match next.let_go() {
                LetGo::Gone => clock.bytes -= next.weight(),
                LetGo::Used => clock.turn.push_back(Arc::downgrade(&next)),
                LetGo::NotCounted => clock.stale = clock.stale.saturating_sub(1),
            }
            passed.push(next);
        }
        drop(clock);
        drop(passed);
    }

    /// Counts the value of an item no more, which goes on holding it; `own` is the value, where it went before.
    pub(super) fn release(&self, item: &Item, own: Option<Arc<Entry>>) {
        let mut passed = Vec::new();
        let mut clock = self.clock.lock();
        if !item.uncount(own) {
            return;
        }
        clock.bytes -= item.weight();
        clock.stale += 1;
        if clock.stale > STALE_MIN.max(clock.turn.len() / 2) {
            clock.stale = 0;
            clock.turn.retain(|item| {
                let item = item.upgrade();
                let counted = item.as_ref().is_some_and(|item| item.is_counted());
                passed.extend(item);
                counted
            });
        }
        drop(clock);
        drop(passed);
    }

    /// The value of a key at a revision that a cache has met. May read the disk.
    ///
    /// # Errors
    /// [`Missed`].
    pub(super) fn read(&self, key: &Key, revision: Revision) -> Result<Arc<Entry>, Missed> {
        let snapshot = self.store.snapshot();
        if snapshot.revision_of(key) == Some(revision)
            && let Some(entry) = snapshot.get(key)
        {
            return Ok(entry);
        }
        self.replaced(key, revision).ok_or(Missed)
    }

    /// The value that a change which the store still knows has taken the place of.
    fn replaced(&self, key: &Key, revision: Revision) -> Option<Arc<Entry>> {
        let prefix = bytes::Bytes::copy_from_slice(key.as_bytes());
        let mut watch = match self.store.watch(prefix.clone(), revision) {
            Ok(watch) => watch,
            Err(WatchError::Compacted { oldest }) => self.store.watch(prefix, oldest).ok()?,
            Err(WatchError::Future { .. }) => return None,
        };
        while let Some(Ok(event)) = watch.try_next() {
            let previous = event.previous.as_ref();
            if event.entry.key == *key
                && previous.is_some_and(|previous| previous.revision == revision)
            {
                return event.previous_entry();
            }
        }
        None
    }

    /// Bytes of the values that are kept here, and how many there are with how many bytes, counted one by one.
    #[cfg(test)]
    pub(crate) fn counted(&self) -> (usize, usize, usize) {
        let clock = self.clock.lock();
        let items: Vec<_> = clock.turn.iter().filter_map(Weak::upgrade).collect();
        let counted = items.iter().filter(|item| item.is_counted());
        let (number, bytes) = counted.fold((0, 0), |(number, bytes), item| {
            (number + 1, bytes + item.weight())
        });
        let told = clock.bytes;
        drop(clock);
        drop(items);
        (told, number, bytes)
    }
}

/// What became of a value whose turn it was.
pub(super) enum LetGo {
    Gone,
    /// It was asked for since its last turn, and stays.
    Used,
    /// It does not count any more.
    NotCounted,
}
