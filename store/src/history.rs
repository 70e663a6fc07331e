//! The last events, for watches that resume.
//!
//! Events of the keys under a [`HistoryShare`] have a ring of their own, all others share one: what changes every second (the
//! leases of thousands of nodes) does not push out what changes once an hour. Looking at a history is O(1) and keeps
//! nothing locked: [`History::since`] hands out rings that stay as they are.
//!
//! An event of the common ring is in memory until a checkpoint holds it. From then on the ring knows its revision and its key, and
//! whoever asks for it reads it from there: that is rare, for caches have histories of their own.
//!
//! Invariants: each ring holds the newest events of its keys without a gap, in revision order, within its bounds; what is handed out
//! is all that happened under a prefix after a revision, or the revision from which on it would be.
//! Left to others: writing the common ring down (`checkpoint.rs`). The others are not: they are as short as a restart.

use std::cmp::Ordering;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use imbl::Vector;

use crate::entries::Shelf;
use crate::event::Event;
use crate::key::{Entry, Revision};
use crate::planted::{Bug, planted};
use crate::watch::Bounds;

/// A part of the history, for keys that change so often that they get one of their own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryShare {
    /// Of its keys. Where several fit, the longest counts.
    pub prefix: Bytes,
    /// Events kept.
    pub events_max: usize,
    /// Memory those may hold, in bytes, counted as in [`crate::Config::history_bytes_max`].
    pub bytes_max: usize,
}

/// An event as a ring keeps it.
#[derive(Clone)]
pub(crate) enum Past {
    /// No checkpoint holds it yet, or never will.
    Here(Event),
    /// The newest checkpoint holds it.
    Written {
        revision: Revision,
        key: Arc<[u8]>,
        bytes: usize,
    },
}

impl Past {
    /// One that is on disk.
    pub(crate) fn written(event: &Event) -> Past {
        Past::Written {
            revision: event.revision,
            key: event.entry.key.as_bytes().into(),
            bytes: event.entry_bytes(),
        }
    }

    pub(crate) fn revision(&self) -> Revision {
        match self {
            Past::Here(event) => event.revision,
            Past::Written { revision, .. } => *revision,
        }
    }

    pub(crate) fn key(&self) -> &[u8] {
        match self {
            Past::Here(event) => event.entry.key.as_bytes(),
            Past::Written { key, .. } => key,
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Past::Here(event) => event.entry_bytes(),
            Past::Written { bytes, .. } => *bytes,
        }
    }
}

/// The newest events of some keys.
#[derive(Clone)]
struct Ring {
    share: HistoryShare,
    events: Vector<Past>,
    bytes: usize,
    /// Everything of its keys up to here is gone: the smallest revision that a watch of them may start after.
    compacted: Revision,
}

impl Ring {
    fn new(share: HistoryShare, compacted: Revision) -> Self {
        Ring {
            share,
            events: Vector::new(),
            bytes: 0,
            compacted,
        }
    }

    fn push(&mut self, event: Past) {
        self.bytes += event.bytes();
        self.events.push_back(event);
        while self.events.len() > self.share.events_max || self.bytes > self.share.bytes_max {
            let Some(event) = self.events.pop_front() else {
                break;
            };
            self.bytes -= event.bytes();
            self.compacted = event.revision();
        }
    }

    /// The entry that was written at a revision.
    fn entry(&self, revision: Revision) -> Option<&Arc<Entry>> {
        let at = self.events.binary_search_by_key(&revision, Past::revision);
        match self.events.get(at.ok()?)? {
            Past::Here(event) => Some(&event.entry),
            Past::Written { .. } => None,
        }
    }
}

/// What a file held of a history.
pub(crate) struct Kept {
    /// Everything up to here is not in it.
    pub compacted: Revision,
    /// Oldest first, and all of them but those of keys under the prefixes.
    pub events: Vec<Past>,
    pub without: Vec<Bytes>,
}

impl Kept {
    /// Nothing of what happened up to a revision.
    pub(crate) fn nothing(revision: Revision) -> Self {
        Kept {
            compacted: revision,
            events: Vec::new(),
            without: Vec::new(),
        }
    }
}

/// The kept events.
pub(crate) struct History {
    common: Ring,
    shares: Vec<Ring>,
    /// Prefixes of keys whose events are in no ring.
    unwatched: Vec<Bytes>,
    /// The newest revision, whose event may be gone already.
    newest: Revision,
}

impl History {
    /// A history within bounds, of what was kept until `newest`.
    pub(crate) fn new(bounds: &Bounds, kept: Kept, newest: Revision) -> Self {
        let common = HistoryShare {
            prefix: Bytes::new(),
            events_max: bounds.history_events_max,
            bytes_max: bounds.history_bytes_max,
        };
        let mut shares = bounds.history_shares.clone();
        // The longest first: the first that fits counts.
        shares.sort_by_key(|share| std::cmp::Reverse(share.prefix.len()));
        let shared = |key: &[u8]| {
            let mut shares = shares.iter();
            shares.any(|share| key.starts_with(&share.prefix)) || !bounds.watches(key)
        };
        // Where something was not written down that belongs into the common ring now, that would have a gap.
        let whole = kept.without.iter().all(|prefix| shared(prefix));
        let mut common = Ring::new(common, if whole { kept.compacted } else { newest });
        if whole {
            let events = kept.events.into_iter();
            // A key that has got a share since: its later events were not written down.
            for event in events.filter(|event| !shared(event.key())) {
                common.push(event);
            }
        }
        let ring = |share| Ring::new(share, newest);
        History {
            common,
            shares: shares.into_iter().map(ring).collect(),
            unwatched: bounds.unwatched.clone(),
            newest,
        }
    }

    /// The same bounds, and nothing that happened up to `revision`.
    pub(crate) fn restart(&mut self, revision: Revision) {
        for ring in self.shares.iter_mut().chain([&mut self.common]) {
            *ring = Ring::new(ring.share.clone(), revision);
        }
        self.newest = revision;
    }

    /// Takes note of the next revision, whose event nobody will ask for.
    pub(crate) fn pass(&mut self, revision: Revision) {
        let next = self.newest + 1;
        assert_eq!(revision, next, "history must not have a gap");
        self.newest = revision;
    }

    /// Takes the event of the next revision; anything else is a history with a gap.
    pub(crate) fn push(&mut self, event: Event) {
        self.pass(event.revision);
        let key = event.entry.key.as_bytes();
        let mut shares = self.shares.iter_mut();
        let share = shares.find(|ring| key.starts_with(&ring.share.prefix));
        let ring = share.unwrap_or(&mut self.common);
        ring.push(Past::Here(event));
    }

    /// Whether the event belongs into a ring that is not written down, and if so, what it replaced, where that is in the ring.
    ///
    /// Such an event has to hold what it replaced: no checkpoint will.
    pub(crate) fn share_of(&self, event: &Event) -> Option<Option<Arc<Entry>>> {
        let key = event.entry.key.as_bytes();
        let mut shares = self.shares.iter();
        let ring = shares.find(|ring| key.starts_with(&ring.share.prefix))?;
        let previous = event.previous.as_ref()?;
        Some(ring.entry(previous.revision).map(Arc::clone))
    }

    /// What the common ring becomes once a checkpoint of `revision` is made, which `shelf` shows.
    pub(crate) fn settled(&self, revision: Revision, shelf: &Arc<Shelf>) -> Settled {
        let mut events = self.common.events.clone();
        // What is on disk comes first.
        let unsettled = events.binary_search_by(|past| match past {
            Past::Written { .. } => Ordering::Less,
            Past::Here(_) => Ordering::Greater,
        });
        let unsettled = events.split_off(unsettled.unwrap_or_else(|at| at));
        events.extend(unsettled.into_iter().map(|past| match past {
            Past::Here(event) if event.revision <= revision => Past::written(&event),
            Past::Here(mut event) => {
                // What it replaced was not written since, so the later checkpoint shows it as well.
                event.move_previous(shelf);
                Past::Here(event)
            }
            past @ Past::Written { .. } => past,
        }));
        Settled(events)
    }

    /// Puts that in place; nothing was pushed since. Returns what was there, to be dropped elsewhere.
    pub(crate) fn settle(&mut self, settled: Settled) -> Settled {
        debug_assert_eq!(settled.0.len(), self.common.events.len());
        Settled(std::mem::replace(&mut self.common.events, settled.0))
    }

    /// The prefixes of the keys that have rings of their own.
    fn shares(&self) -> impl Iterator<Item = &Bytes> {
        self.shares.iter().map(|ring| &ring.share.prefix)
    }

    /// The prefixes whose events are not in the common ring.
    pub(crate) fn without(&self) -> impl Iterator<Item = &Bytes> {
        self.shares().chain(&self.unwatched)
    }

    /// The events of the common ring after a revision, and from which revision on it has all.
    pub(crate) fn common(&self, after: Revision) -> (Vector<Past>, Revision) {
        (behind(&self.common.events, after), self.common.compacted)
    }

    /// How many events the common ring holds.
    pub(crate) fn common_len(&self) -> usize {
        self.common.events.len()
    }

    /// Bytes of the common ring.
    pub(crate) fn common_bytes(&self) -> usize {
        self.common.bytes
    }

    /// What happened under `prefix` after a revision. O(1). What is written down is on `shelf`.
    ///
    /// # Errors
    /// The revision after which everything is kept, where that is later.
    pub(crate) fn since(
        &self,
        prefix: &Bytes,
        after: Revision,
        shelf: Option<&Arc<Shelf>>,
    ) -> Result<Since, Revision> {
        // A share that is for all of these keys, or for more: nothing of them is elsewhere, but in one that is for fewer.
        let covered = self.shares().any(|share| prefix.starts_with(share));
        let common = (!covered).then_some(&self.common);
        let shares = self.shares.iter().filter(|ring| {
            let share = &ring.share.prefix;
            share.starts_with(prefix) || prefix.starts_with(share)
        });
        let mut rings = Vec::new();
        let mut oldest = 0;
        for ring in shares.chain(common) {
            oldest = oldest.max(ring.compacted);
            rings.push(ring.events.clone());
        }
        if after + u64::from(planted(Bug::HistoryOffByOne)) < oldest {
            return Err(oldest);
        }
        Ok(Since {
            rings,
            prefix: prefix.clone(),
            after,
            shelf: shelf.map(Arc::clone),
        })
    }
}

/// A common ring with what a checkpoint holds of it left on disk.
pub(crate) struct Settled(Vector<Past>);

/// The events of a ring behind a revision.
fn behind(events: &Vector<Past>, after: Revision) -> Vector<Past> {
    let older = match events.binary_search_by_key(&after, Past::revision) {
        Ok(at) => at + 1,
        Err(at) => at,
    };
    events.clone().split_off(older)
}

/// What happened under a prefix after a revision, as it was kept when it was asked for.
pub(crate) struct Since {
    rings: Vec<Vector<Past>>,
    prefix: Bytes,
    after: Revision,
    shelf: Option<Arc<Shelf>>,
}

impl Since {
    /// The events, in order. Linear in what the rings hold after the revision. May read the disk.
    ///
    /// # Errors
    /// When that fails; the store ends for it.
    pub(crate) fn events(&self) -> io::Result<Vec<Event>> {
        let mut found: Vec<Past> = Vec::new();
        for ring in &self.rings {
            let events = behind(ring, self.after).into_iter();
            found.extend(events.filter(|event| event.key().starts_with(&self.prefix)));
        }
        if self.rings.len() > 1 {
            found.sort_unstable_by_key(Past::revision);
        }
        let read = found.into_iter().map(|past| match past {
            Past::Here(event) => Ok(event),
            Past::Written { revision, .. } => {
                let shelf = self.shelf.as_ref();
                let shelf = shelf.ok_or_else(|| io::Error::other("no checkpoint was made"))?;
                shelf.event(revision)
            }
        });
        read.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::EventKind;
    use crate::key::Key;
    use crate::value::Value;

    fn event(revision: Revision, key: &str) -> Event {
        let value = Value::as_it_is(Bytes::from_static(b"v"));
        Event {
            revision,
            kind: EventKind::Put,
            entry: Arc::new(Entry::new(Key::from(key), value, revision, revision)),
            previous: None,
        }
    }

    fn share(prefix: &'static str, events_max: usize) -> HistoryShare {
        HistoryShare {
            prefix: Bytes::from_static(prefix.as_bytes()),
            events_max,
            bytes_max: 1 << 20,
        }
    }

    fn bounds(history_events_max: usize, history_shares: Vec<HistoryShare>) -> Bounds {
        Bounds {
            history_events_max,
            history_bytes_max: 1 << 20,
            history_shares,
            unwatched: Vec::new(),
            queue_events_max: 1,
            queue_bytes_max: 1 << 20,
        }
    }

    fn told(history: &History, prefix: &'static str, after: Revision) -> String {
        match history.since(&Bytes::from_static(prefix.as_bytes()), after, None) {
            Ok(since) => {
                let events = since.events().expect("all in memory");
                let told = events.iter().map(|event| event.revision.to_string());
                told.collect::<Vec<_>>().join(" ")
            }
            Err(oldest) => format!("from {oldest}"),
        }
    }

    #[test]
    fn what_changes_often_pushes_out_nothing_else() {
        let bounds = bounds(3, vec![share("/lease/", 2), share("/lease/node/", 1)]);
        let mut history = History::new(&bounds, Kept::nothing(0), 0);
        let keys = [
            "/pod/a",        // 1
            "/lease/a",      // 2
            "/lease/b",      // 3
            "/lease/c",      // 4
            "/lease/node/a", // 5
            "/lease/node/b", // 6
            "/pod/b",        // 7
        ];
        for (revision, key) in (1..).zip(keys) {
            history.push(event(revision, key));
        }
        for (prefix, after, expected) in [
            ("/pod/", 0, "1 7"),
            ("/pod/", 1, "7"),
            ("/lease/", 1, "from 5"),
            ("/lease/", 5, "6"),
            ("/lease/a", 1, "from 2"),
            ("/lease/a", 2, ""),
            ("/lease/c", 3, "4"),
            ("/lease/node/", 5, "6"),
            ("/lease/node/", 4, "from 5"),
            ("/", 4, "from 5"),
            ("/", 5, "6 7"),
            ("", 6, "7"),
            ("/q", 0, ""),
        ] {
            assert_eq!(told(&history, prefix, after), expected, "{prefix} {after}");
        }
        history.push(event(8, "/pod/c"));
        history.push(event(9, "/pod/d"));
        assert_eq!(told(&history, "/pod/", 0), "from 1");
        assert_eq!(told(&history, "/pod/", 1), "7 8 9");
        assert_eq!(told(&history, "/lease/node/", 5), "6");

        history.restart(20);
        assert_eq!(told(&history, "/pod/", 19), "from 20");
        assert_eq!(told(&history, "/lease/", 20), "");
    }

    #[test]
    fn what_is_loaded_is_the_common_part() {
        let bounds = bounds(10, vec![share("/lease/", 2)]);
        let kept = |without| Kept {
            compacted: 2,
            // A lease from before it had a share: its successors were never written down.
            events: [(3, "/pod/a"), (4, "/lease/a"), (7, "/pod/b")]
                .map(|(revision, key)| Past::Here(event(revision, key)))
                .into(),
            without,
        };
        // One that has no share any more: what happened to its keys is not known.
        let gap = History::new(&bounds, kept(vec![Bytes::from_static(b"/event/")]), 8);
        assert_eq!(told(&gap, "/pod/", 7), "from 8");
        let without = vec![Bytes::from_static(b"/lease/")];
        let mut history = History::new(&bounds, kept(without), 8);
        assert_eq!(told(&history, "/pod/", 1), "from 2");
        assert_eq!(told(&history, "/pod/", 2), "3 7");
        assert_eq!(told(&history, "/lease/", 7), "from 8");
        assert_eq!(told(&history, "/", 8), "");
        history.push(event(9, "/lease/a"));
        assert_eq!(told(&history, "/", 8), "9");
        assert_eq!((history.common_len(), history.common(3).0.len()), (2, 1));
    }
}
