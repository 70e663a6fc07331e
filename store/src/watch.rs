//! The published state: what readers see, and the news that watchers follow.
//!
//! The [`Hub`] holds the newest applied [`State`], the history (`history.rs`) and one bounded queue per watcher. State and
//! history change under one lock, for as long as it takes to put the new ones there. Then, with only the watchers locked,
//! the events go to the queues, and at last the revision is published as dispatched. A watch that begins after revision R
//! excludes that for a moment, to be entered and to take the history as it is, and so meets exactly the events R+1, R+2, …:
//! first those of the history, which it looks through with nothing locked, then those of its queue.
//!
//! Invariants: a watcher sees no gap and no duplicate, in revision order; whoever was handed an event also reads a
//! state at least as new; a watcher that does not keep up is cut off and never slows the writers down; the
//! queues stay within their bounds.
//! Left to others: persisting the history (`checkpoint.rs`), deciding what an event means (the API server).

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use imbl::Vector;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, watch};

use crate::entries::{Cache, Shelf};
use crate::error::{WatchError, WatchLagged};
use crate::event::{Event, EventKind, Previous};
use crate::history::{History, HistoryShare, Kept, Past};
use crate::key::{Key, Revision, ServerId};
use crate::machine::State;
use crate::planted::{Bug, planted};
use crate::snapshot::Snapshot;

/// Bounds of the history and of the watchers' queues.
#[derive(Debug, Clone)]
pub(crate) struct Bounds {
    pub history_events_max: usize,
    pub history_bytes_max: usize,
    pub history_shares: Vec<HistoryShare>,
    /// Prefixes of keys whose events go nowhere.
    pub unwatched: Vec<Bytes>,
    pub queue_events_max: usize,
    /// A queue keeps events alive that the history has given up.
    pub queue_bytes_max: usize,
}

impl Bounds {
    /// Whether anybody may want to know of a change of this key.
    pub(crate) fn watches(&self, key: &[u8]) -> bool {
        !self.unwatched.iter().any(|prefix| key.starts_with(prefix))
    }
}

struct Queue {
    events: VecDeque<Event>,
    bytes: usize,
    end: Option<End>,
}

/// Why a queue gets no more events.
#[derive(Clone, Copy)]
enum End {
    Lagged,
    Closed,
}

struct Watcher {
    id: u64,
    prefix: Bytes,
    queue: Mutex<Queue>,
    wake: Notify,
}

impl Watcher {
    fn end(&self, end: End) {
        let mut queue = self.queue.lock();
        if queue.end.is_none() {
            if matches!(end, End::Lagged) {
                // What it cannot have completely it need not have at all.
                queue.events.clear();
                queue.bytes = 0;
            }
            queue.end = Some(end);
        }
        drop(queue);
        self.wake.notify_one();
    }
}

/// The watchers, found from a key by its prefixes of the lengths in use.
#[derive(Default)]
struct Registry {
    groups: HashMap<Bytes, Vec<Arc<Watcher>>>,
    lengths: BTreeMap<usize, usize>,
    next_id: u64,
    closed: bool,
}

impl Registry {
    fn add(&mut self, prefix: Bytes) -> Arc<Watcher> {
        self.next_id += 1;
        let watcher = Arc::new(Watcher {
            id: self.next_id,
            prefix: prefix.clone(),
            queue: Mutex::new(Queue {
                events: VecDeque::new(),
                bytes: 0,
                end: self.closed.then_some(End::Closed),
            }),
            wake: Notify::new(),
        });
        *self.lengths.entry(prefix.len()).or_default() += 1;
        self.groups
            .entry(prefix)
            .or_default()
            .push(Arc::clone(&watcher));
        watcher
    }

    fn remove(&mut self, watcher: &Watcher) {
        let Some(group) = self.groups.get_mut(&watcher.prefix) else {
            return;
        };
        let before = group.len();
        group.retain(|other| other.id != watcher.id);
        if group.len() == before {
            return;
        }
        if group.is_empty() {
            self.groups.remove(&watcher.prefix);
        }
        let length = watcher.prefix.len();
        if let Some(count) = self.lengths.get_mut(&length) {
            *count -= 1;
            if *count == 0 {
                self.lengths.remove(&length);
            }
        }
    }

    fn offer(&self, event: &Event, bounds: &Bounds) {
        let key = event.entry.key.as_bytes();
        let bytes = event.bytes();
        for length in self
            .lengths
            .keys()
            .take_while(|length| **length <= key.len())
        {
            let Some(group) = self.groups.get(&key[..*length]) else {
                continue;
            };
            for watcher in group {
                let mut queue = watcher.queue.lock();
                if queue.end.is_some() {
                    continue;
                }
                // One event always fits, however large.
                let room = queue.events.is_empty()
                    || (queue.events.len() < bounds.queue_events_max
                        && queue.bytes + bytes <= bounds.queue_bytes_max);
                if !room {
                    drop(queue);
                    watcher.end(End::Lagged);
                    continue;
                }
                let was_empty = queue.events.is_empty();
                if planted(Bug::EventLost) && event.revision.is_multiple_of(29) {
                    continue;
                }
                queue.bytes += bytes;
                queue.events.push_back(event.clone());
                if planted(Bug::EventTwice) && event.revision.is_multiple_of(29) {
                    queue.events.push_back(event.clone());
                }
                drop(queue);
                if was_empty {
                    watcher.wake.notify_one();
                }
            }
        }
    }

    fn end_all(&self, end: End) {
        for watcher in self.groups.values().flatten() {
            watcher.end(end);
        }
    }
}

struct Published {
    state: State,
    history: History,
    /// Keys deleted since the last capture.
    removed: BTreeSet<Key>,
    dirty_bytes: usize,
}

/// What a checkpoint has to write.
pub(crate) struct Capture {
    /// The values to be written are those that its entries are flushing.
    pub state: State,
    /// Keys that were deleted, and may be there again.
    pub removed: BTreeSet<Key>,
    /// Events of the history's common part above the revision asked for, as far as it still holds them.
    pub events: Vector<Past>,
    /// Where that part begins, and how many events it holds.
    pub compacted: Revision,
    pub kept: usize,
    /// The prefixes whose events are not in it.
    pub without: Vec<Bytes>,
    /// Of all values that were written since the last capture.
    pub bytes: usize,
}

/// The newest state, its history and its watchers.
pub(crate) struct Hub {
    bounds: Bounds,
    /// Held while a state's successor is made, for where its values are must not change meanwhile. Locked first of all.
    applying: Mutex<()>,
    /// Locked before `published`, where both are.
    watchers: Mutex<Registry>,
    published: RwLock<Published>,
    /// The revision up to which events are in the queues: what bookmarks may name.
    dispatched: watch::Sender<Revision>,
    /// Index of the last log entry that is in the state, and those who wait for a later one.
    applied: AtomicU64,
    advanced: Notify,
}

fn applied_index(state: &State) -> u64 {
    state.applied.map_or(0, |position| position.index)
}

impl Hub {
    pub(crate) fn new(state: State, kept: Kept, bounds: Bounds) -> Self {
        let history = History::new(&bounds, kept, state.revision);
        Hub {
            bounds,
            applying: Mutex::default(),
            watchers: Mutex::default(),
            dispatched: watch::channel(state.revision).0,
            applied: AtomicU64::new(applied_index(&state)),
            advanced: Notify::new(),
            published: RwLock::new(Published {
                state,
                history,
                removed: BTreeSet::new(),
                dirty_bytes: 0,
            }),
        }
    }

    pub(crate) fn state(&self) -> State {
        self.published.read().state.clone()
    }

    /// Whether a server was removed from the cluster, as far as this one has applied it.
    pub(crate) fn removed(&self, server: ServerId) -> bool {
        self.published.read().state.removed(server)
    }

    /// Bytes of the state and of the history, as they are written down: there an event has what it replaced beside it.
    pub(crate) fn held_bytes(&self) -> usize {
        let published = self.published.read();
        published.state.bytes + 2 * published.history.common_bytes()
    }

    /// The revision up to which watchers were told everything, as it grows.
    pub(crate) fn dispatched(&self) -> watch::Receiver<Revision> {
        self.dispatched.subscribe()
    }

    fn advance(&self, index: u64) {
        self.applied.store(index, Ordering::Release);
        self.advanced.notify_waiters();
    }

    /// Waits until the log entry with this index is in the state.
    pub(crate) async fn wait_applied(&self, index: u64) {
        loop {
            let mut advanced = std::pin::pin!(self.advanced.notified());
            // Before looking, so that no advance falls between looking and waiting.
            advanced.as_mut().enable();
            if self.applied.load(Ordering::Acquire) >= index {
                return;
            }
            advanced.await;
        }
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        let published = self.published.read();
        Snapshot::new(published.state.entries.clone(), published.state.revision)
    }

    /// Has `apply` make the newest state's successor, and hands out the events that lie between. Returns the bytes of
    /// changes that no checkpoint has captured yet.
    ///
    /// # Errors
    /// When a value that is deleted could not be read: nothing is published then.
    pub(crate) fn apply(
        &self,
        apply: impl FnOnce(&mut State, &mut Vec<Event>),
    ) -> io::Result<usize> {
        let _applying = self.applying.lock();
        let mut state = self.state();
        let mut events = Vec::new();
        apply(&mut state, &mut events);
        self.complete(&mut events);
        let previous = events.iter().filter_map(|event| event.previous.as_ref());
        let mut previous = previous.filter_map(Previous::in_memory);
        if let Some(lost) = previous.find(|previous| previous.is_lost()) {
            let key = &lost.key;
            return Err(io::Error::other(format!("the value of {key} was not read")));
        }
        Ok(self.publish(state, events))
    }

    /// Has events hold what they replaced, where no checkpoint will: those of keys that have a history of their own. There the
    /// event before is in memory, but for the first one of a key.
    fn complete(&self, events: &mut [Event]) {
        if self.bounds.history_shares.is_empty() {
            return;
        }
        for event in events {
            let cold = |previous: &Previous| previous.in_memory().is_none();
            if !event.previous.as_ref().is_some_and(cold) {
                continue;
            }
            let kept = self.published.read().history.share_of(event);
            if let Some(entry) = kept.and_then(|kept| kept.or_else(|| event.previous_entry())) {
                event.hold_previous(entry);
            }
        }
    }

    fn publish(&self, state: State, events: Vec<Event>) -> usize {
        let revision = state.revision;
        let index = applied_index(&state);
        let watchers = self.watchers.lock();
        let mut published = self.published.write();
        let old = std::mem::replace(&mut published.state, state);
        for event in &events {
            published.dirty_bytes += event.entry.bytes();
            if event.kind == EventKind::Delete {
                published.removed.insert(event.entry.key.clone());
            }
            match self.bounds.watches(event.entry.key.as_bytes()) {
                true => published.history.push(event.clone()),
                false => published.history.pass(event.revision),
            }
        }
        let dirty_bytes = published.dirty_bytes;
        drop(published);
        self.advance(index);
        for event in &events {
            if self.bounds.watches(event.entry.key.as_bytes()) {
                watchers.offer(event, &self.bounds);
            }
        }
        drop(watchers); // before the next line, which waits for whoever looks at the revision now
        self.dispatched.send_replace(revision);
        drop((old, events)); // outside of the locks: they may be the last holders of many nodes
        dirty_bytes
    }

    /// Replaces the state by one that did not come from applying: watchers cannot follow and are cut.
    pub(crate) fn reset(&self, state: State) {
        let revision = state.revision;
        let index = applied_index(&state);
        let _applying = self.applying.lock();
        let watchers = self.watchers.lock();
        let mut published = self.published.write();
        published.history.restart(revision);
        published.state = state;
        published.removed.clear();
        published.dirty_bytes = 0;
        drop(published);
        if !planted(Bug::WatchSurvivesSnapshot) {
            watchers.end_all(End::Lagged);
        }
        drop(watchers);
        self.dispatched.send_replace(revision);
        self.advance(index);
    }

    /// Takes what changed since the last capture; `after` is the newest revision whose event is already persisted.
    pub(crate) fn capture(&self, after: Revision) -> Capture {
        let _applying = self.applying.lock();
        let mut published = self.published.write();
        let bytes = std::mem::take(&mut published.dirty_bytes);
        published.state.entries.begin_flush();
        let (events, compacted) = published.history.common(after);
        Capture {
            state: published.state.clone(),
            removed: std::mem::take(&mut published.removed),
            events,
            compacted,
            kept: published.history.common_len(),
            without: published.history.without().cloned().collect(),
            bytes,
        }
    }

    /// Takes back a capture that was not written.
    pub(crate) fn give_back(&self, capture: Capture) {
        self.published.write().removed.extend(capture.removed);
    }

    /// What was captured last, at `revision`, is on disk, and can be read from there.
    pub(crate) fn flushed(&self, revision: Revision, shelf: &Arc<Shelf>, cache: &Arc<Cache>) {
        let applying = self.applying.lock();
        let settled = self.published.read().history.settled(revision, shelf);
        let mut published = self.published.write();
        let settled = published.history.settle(settled);
        let entries = &mut published.state.entries;
        let old = entries.clone();
        entries.flushed(Arc::clone(shelf), Arc::clone(cache));
        drop(published);
        drop(applying);
        drop((old, settled)); // outside of the locks: they may be the last holders of many values
    }

    pub(crate) fn watch(
        self: &Arc<Self>,
        prefix: Bytes,
        after: Revision,
    ) -> Result<Watch, WatchError> {
        let mut watchers = self.watchers.lock();
        let published = self.published.read();
        let current = published.state.revision;
        if after > current {
            return Err(WatchError::Future {
                asked: after,
                current,
            });
        }
        let shelf = published.state.entries.shelf();
        let since = published.history.since(&prefix, after, shelf);
        let since = since.map_err(|oldest| WatchError::Compacted { oldest })?;
        drop(published);
        let watcher = watchers.add(prefix);
        drop(watchers);
        let mut watch = Watch {
            hub: Arc::clone(self),
            watcher,
            ready: VecDeque::new(),
            delivered: after,
            ended: false,
        };
        // With nothing locked: it may read the disk. Where that fails the store ends, and so nothing older is there any more.
        let events = since.events();
        watch.ready = events
            .map_err(|_| WatchError::Compacted { oldest: current })?
            .into();
        Ok(watch)
    }

    /// Ends every watch, now and later.
    pub(crate) fn close(&self) {
        let mut watchers = self.watchers.lock();
        watchers.closed = true;
        watchers.end_all(End::Closed);
    }
}

/// A stream of the events under a prefix, from a revision on.
///
/// It holds at most the history's events at the start, and then at most twice the queue bound.
pub struct Watch {
    hub: Arc<Hub>,
    watcher: Arc<Watcher>,
    ready: VecDeque<Event>,
    delivered: Revision,
    ended: bool,
}

impl Watch {
    /// The next event, in revision order.
    ///
    /// `None` once the store is closed or after an error. Cancel safe: an event is lost only if it was returned.
    ///
    /// # Errors
    /// [`WatchLagged`] when this watcher did not keep up; the watch is over then.
    pub async fn next(&mut self) -> Option<Result<Event, WatchLagged>> {
        loop {
            match self.try_next() {
                Some(next) => return Some(next),
                None if self.ended => return None,
                None => self.watcher.wake.notified().await,
            }
        }
    }

    /// The next event that is there already. `None` where [`Watch::next`] would wait, or is over.
    ///
    /// After [`crate::Store::dispatched`] named a revision, this hands out everything up to it before it says `None`.
    ///
    /// # Errors
    /// As of [`Watch::next`].
    pub fn try_next(&mut self) -> Option<Result<Event, WatchLagged>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                self.delivered = event.revision;
                return Some(Ok(event));
            }
            if self.ended {
                return None;
            }
            let mut queue = self.watcher.queue.lock();
            if !queue.events.is_empty() {
                std::mem::swap(&mut queue.events, &mut self.ready);
                queue.bytes = 0;
                continue;
            }
            let end = queue.end?;
            self.ended = true;
            return match end {
                End::Closed => None,
                End::Lagged => Some(Err(WatchLagged {
                    delivered: self.delivered,
                })),
            };
        }
    }

    /// The revision up to which everything under the prefix was delivered: what a bookmark may name.
    ///
    /// It grows with the whole store while nothing is waiting for this watcher.
    pub fn progress(&self) -> Revision {
        // Read before looking at the queue: events up to this revision were queued before it was set.
        let revision = *self.hub.dispatched.borrow();
        let queue = self.watcher.queue.lock();
        if planted(Bug::BookmarkEarly) {
            return revision;
        }
        if self.ready.is_empty() && queue.events.is_empty() && queue.end.is_none() {
            revision.max(self.delivered)
        } else {
            self.delivered
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.hub.watchers.lock().remove(&self.watcher);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;
    use crate::command::{Batch, Command, Mutation, Precondition};
    use crate::key::ENTRY_OVERHEAD_BYTES;
    use crate::machine::Position;

    const BOUNDS: Bounds = Bounds {
        history_events_max: 4,
        history_bytes_max: 1 << 20,
        history_shares: Vec::new(),
        unwatched: Vec::new(),
        queue_events_max: 3,
        queue_bytes_max: 1 << 20,
    };

    fn hub(bounds: Bounds) -> Arc<Hub> {
        Arc::new(Hub::new(State::default(), Kept::nothing(0), bounds))
    }

    fn put(hub: &Hub, keys: &[&str]) {
        let applied = hub.state().applied;
        let index = applied.map_or(1, |position| position.index + 1);
        let position = Position {
            term: 1,
            server: 1,
            index,
        };
        let mutations = keys
            .iter()
            .map(|key| Mutation::put(*key, Precondition::None, "v"))
            .collect();
        let batch = Batch(
            vec![Command {
                fence: None,
                mutations,
            }]
            .into(),
        );
        let applied = hub.apply(|state, events| drop(state.apply(position, &batch, events)));
        applied.expect("nothing to read");
    }

    /// Everything that can be had without waiting.
    fn drain(watch: &mut Watch) -> Vec<String> {
        let mut seen = Vec::new();
        while let Some(next) = watch.next().now_or_never() {
            match next {
                Some(Ok(event)) => seen.push(format!("{}@{}", event.entry.key, event.revision)),
                Some(Err(error)) => seen.push(error.to_string()),
                None => {
                    seen.push("end".to_owned());
                    break;
                }
            }
        }
        seen
    }

    #[test]
    fn a_watch_resumes_from_every_kept_revision_without_gap_or_duplicate() {
        let hub = hub(BOUNDS);
        put(&hub, &["a1", "b1", "a2"]);
        put(&hub, &["b2", "a3", "b3"]); // revisions 3 to 6 are kept
        for (after, expected) in [
            (2, vec!["a2@3", "a3@5", "a4@7"]),
            (3, vec!["a3@5", "a4@7"]),
            (4, vec!["a3@5", "a4@7"]),
            (5, vec!["a4@7"]),
            (6, vec!["a4@7"]),
        ] {
            let (events, compacted) = hub.published.read().history.common(0);
            let kept = Kept {
                compacted,
                events: events.into_iter().collect(),
                without: Vec::new(),
            };
            let fresh = Arc::new(Hub::new(hub.state(), kept, BOUNDS));
            let mut watch = fresh.watch(Bytes::from_static(b"a"), after).expect("kept");
            put(&fresh, &["a4", "b4"]);
            assert_eq!(drain(&mut watch), expected, "after {after}");
            assert_eq!(watch.progress(), 8, "after {after}");
        }
        assert_eq!(
            hub.watch(Bytes::new(), 1).err(),
            Some(WatchError::Compacted { oldest: 2 })
        );
        assert_eq!(
            hub.watch(Bytes::new(), 7).err(),
            Some(WatchError::Future {
                asked: 7,
                current: 6
            })
        );
    }

    #[test]
    fn a_quiet_watcher_is_not_cut_by_the_noise_of_others() {
        let hub = hub(BOUNDS);
        let mut quiet = hub.watch(Bytes::from_static(b"quiet"), 0).expect("kept");
        for _ in 0..20 {
            put(&hub, &["noise"]);
        }
        put(&hub, &["quiet"]);
        assert_eq!(quiet.progress(), 0, "an event is waiting");
        assert_eq!(drain(&mut quiet), ["quiet@21"]);
        assert_eq!(quiet.progress(), 21);
    }

    #[test]
    fn a_lagging_watcher_is_cut_and_others_go_on() {
        let hub = hub(BOUNDS);
        let mut slow = hub.watch(Bytes::new(), 0).expect("kept");
        put(&hub, &["a"]);
        assert_eq!(drain(&mut slow), ["a@1"]);
        for key in ["b", "c", "d", "e"] {
            put(&hub, &[key]);
        }
        assert_eq!(
            drain(&mut slow),
            [
                "the watch fell behind and was ended after revision 1",
                "end"
            ]
        );
        assert_eq!(slow.progress(), 1);
        drop(slow);
        assert!(hub.watchers.lock().groups.is_empty());
        assert!(hub.watchers.lock().lengths.is_empty());
    }

    #[test]
    fn a_watcher_that_holds_too_many_bytes_is_cut() {
        let hub = hub(Bounds {
            history_events_max: 1000,
            history_bytes_max: 1 << 20,
            history_shares: Vec::new(),
            unwatched: Vec::new(),
            queue_events_max: 1000,
            // Each event is 4 bytes of entry and 4 of the one before it, the first one 4, and what five entries take.
            queue_bytes_max: 20 + 5 * ENTRY_OVERHEAD_BYTES,
        });
        let mut slow = hub.watch(Bytes::new(), 0).expect("kept");
        let mut quick = hub.watch(Bytes::new(), 0).expect("kept");
        for revision in 1..=3 {
            put(&hub, &["key"]);
            assert_eq!(drain(&mut quick), [format!("key@{revision}")]);
        }
        put(&hub, &["key"]);
        assert_eq!(drain(&mut quick), ["key@4"]);
        assert_eq!(
            drain(&mut slow),
            [
                "the watch fell behind and was ended after revision 0",
                "end"
            ]
        );
    }

    #[test]
    fn whoever_waits_for_a_revision_then_finds_every_event_up_to_it() {
        let hub = hub(BOUNDS);
        let mut watch = hub.watch(Bytes::from_static(b"a"), 0).expect("kept");
        let mut dispatched = hub.dispatched();
        assert!(dispatched.wait_for(|at| *at >= 3).now_or_never().is_none());
        put(&hub, &["a1", "b1"]);
        put(&hub, &["b2"]);
        let reached = dispatched.wait_for(|at| *at >= 3).now_or_never();
        assert_eq!(*reached.expect("reached").expect("open"), 3);
        let first = watch.try_next().expect("there").expect("no end");
        assert_eq!((first.revision, watch.progress()), (1, 3));
        // Nothing of its own happened since, and yet it is known to be as new as that.
        assert!(watch.try_next().is_none());
        put(&hub, &["b3"]);
        assert!(watch.try_next().is_none());
        assert_eq!(watch.progress(), 4);
    }

    #[test]
    fn a_watch_of_what_changes_often_has_a_history_of_its_own() {
        let share = HistoryShare {
            prefix: Bytes::from_static(b"lease/"),
            events_max: 2,
            bytes_max: 1 << 20,
        };
        let hub = hub(Bounds {
            history_shares: vec![share],
            ..BOUNDS
        });
        put(&hub, &["pod/a", "lease/a", "pod/b"]);
        for _ in 0..20 {
            put(&hub, &["lease/a"]);
        }
        let mut pods = hub.watch(Bytes::from_static(b"pod/"), 1).expect("kept");
        assert_eq!(drain(&mut pods), ["pod/b@3"]);
        let mut leases = hub.watch(Bytes::from_static(b"lease/"), 22).expect("kept");
        put(&hub, &["lease/b"]);
        assert_eq!(drain(&mut leases), ["lease/a@23", "lease/b@24"]);
        assert_eq!(
            hub.watch(Bytes::from_static(b"lease/"), 21).err(),
            Some(WatchError::Compacted { oldest: 22 })
        );
    }

    #[test]
    fn what_nobody_follows_is_in_no_history_and_told_to_nobody() {
        let hub = hub(Bounds {
            unwatched: vec![Bytes::from_static(b"data/")],
            ..BOUNDS
        });
        let mut all = hub.watch(Bytes::new(), 0).expect("kept");
        put(&hub, &["pod/a"]);
        for _ in 0..20 {
            put(&hub, &["data/a", "data/b"]);
        }
        put(&hub, &["pod/b"]);
        assert_eq!(drain(&mut all), ["pod/a@1", "pod/b@42"]);
        // A watch goes on from any revision of what it is not told about.
        for after in [1, 7, 41] {
            let mut watch = hub.watch(Bytes::from_static(b"pod/"), after).expect("kept");
            assert_eq!(drain(&mut watch), ["pod/b@42"], "{after}");
        }
        assert_eq!(hub.snapshot().len_of(b"data/"), 2);
        let captured = hub.capture(0);
        assert_eq!((captured.events.len(), captured.kept), (2, 2));
        assert_eq!(captured.without, [Bytes::from_static(b"data/")]);
        // The next server that opens it knows that nothing is missing.
        let kept = Kept {
            compacted: captured.compacted,
            events: captured.events.iter().cloned().collect(),
            without: captured.without.clone(),
        };
        let later = Arc::new(Hub::new(captured.state, kept, hub.bounds.clone()));
        let mut watch = later.watch(Bytes::new(), 1).expect("kept");
        assert_eq!(drain(&mut watch), ["pod/b@42"]);
    }

    #[test]
    fn a_reset_state_cuts_watchers_and_closing_ends_them() {
        let hub = hub(BOUNDS);
        let mut cut = hub.watch(Bytes::new(), 0).expect("kept");
        let state = State {
            revision: 40,
            ..State::default()
        };
        hub.reset(state);
        assert_eq!(drain(&mut cut).len(), 2);
        let mut watch = hub.watch(Bytes::new(), 40).expect("kept");
        put(&hub, &["a"]);
        hub.close();
        assert_eq!(drain(&mut watch), ["a@41", "end"]);
        let mut late = hub.watch(Bytes::new(), 41).expect("kept");
        assert_eq!(drain(&mut late), ["end"]);
    }

    #[test]
    fn the_history_keeps_its_byte_bound() {
        let hub = hub(Bounds {
            history_events_max: 1000,
            history_bytes_max: 40 + 10 * ENTRY_OVERHEAD_BYTES,
            history_shares: Vec::new(),
            unwatched: Vec::new(),
            queue_events_max: 1,
            queue_bytes_max: 1 << 20,
        });
        for _ in 0..100 {
            put(&hub, &["key"]);
        }
        let published = hub.published.read();
        assert!(published.history.common_bytes() <= hub.bounds.history_bytes_max);
        // Every event is 4 bytes of entry and what an entry takes; what it replaced does not count.
        assert_eq!(published.history.common_len(), 10);
        assert_eq!(published.history.common(0).1, 90);
    }
}
