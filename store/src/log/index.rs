//! What the log holds, in memory: positions and sizes of all entries, and the newest of their payloads.
//!
//! Invariants: the log has no hole; a payload goes only once it is durable.

use std::collections::VecDeque;
use std::io;

use super::record::{Payload, Record, Vote};
use crate::machine::Position;

/// Records kept in memory after they are durable, in bytes, so that applying and replicating need no disk read: twice what
/// a peer is sent at once. One that is further behind reads the file.
pub(super) const CACHE_BYTES_MAX: usize = 4 << 20;

pub(super) struct Slot {
    pub position: Position,
    pub bytes: usize,
    /// `None` once evicted; then it is durable.
    pub payload: Option<Payload>,
}

#[derive(Default)]
pub(super) struct Index {
    pub vote: Option<Vote>,
    pub purged: Option<Position>,
    pub committed: Option<Position>,
    /// The entries of the log, without a hole.
    pub slots: VecDeque<Slot>,
    pub bytes: usize,
    /// Slots at the front without payload.
    pub evicted: usize,
    pub cached_bytes: usize,
    /// Highest index reported durable since it was last truncated.
    pub durable: Option<u64>,
}

impl Index {
    pub(super) fn first(&self) -> Option<u64> {
        self.slots.front().map(|slot| slot.position.index)
    }

    pub(super) fn last(&self) -> Option<Position> {
        self.slots.back().map(|slot| slot.position).or(self.purged)
    }

    pub(super) fn push(&mut self, record: &Record) -> Result<(), io::Error> {
        let index = record.position.index;
        if let Some(last) = self.last()
            && index != last.index + 1
        {
            return Err(io::Error::other(format!(
                "entry {index} does not follow entry {}",
                last.index
            )));
        }
        let bytes = record.bytes();
        self.bytes += bytes;
        self.cached_bytes += bytes;
        self.slots.push_back(Slot {
            position: record.position,
            bytes,
            payload: Some(record.payload.clone()),
        });
        Ok(())
    }

    pub(super) fn evict(&mut self) {
        while self.cached_bytes > CACHE_BYTES_MAX && self.evict_next(u64::MAX) {}
    }

    /// Lets go of the oldest payload in memory, if it is durable and not behind `upto`.
    pub(super) fn evict_next(&mut self, upto: u64) -> bool {
        let last = self.durable.map(|durable| durable.min(upto));
        let Some(slot) = self.slots.get_mut(self.evicted) else {
            return false;
        };
        if last.is_none_or(|last| slot.position.index > last) {
            return false;
        }
        if slot.payload.take().is_some() {
            self.cached_bytes -= slot.bytes;
        }
        self.evicted += 1;
        true
    }

    fn forget(&mut self, slot: &Slot) {
        self.bytes -= slot.bytes;
        if slot.payload.is_some() {
            self.cached_bytes -= slot.bytes;
        }
    }

    pub(super) fn truncate(&mut self, after: Option<u64>) {
        while let Some(slot) = self.slots.back()
            && after.is_none_or(|after| slot.position.index > after)
        {
            let slot = self.slots.pop_back().expect("just seen");
            self.forget(&slot);
        }
        self.evicted = self.evicted.min(self.slots.len());
        self.durable = match (self.durable, after) {
            (Some(durable), Some(after)) => Some(durable.min(after)),
            _ => None,
        };
    }

    pub(super) fn purge(&mut self, upto: Position) {
        while let Some(slot) = self.slots.front()
            && slot.position.index <= upto.index
        {
            let slot = self.slots.pop_front().expect("just seen");
            self.evicted = self.evicted.saturating_sub(1);
            self.forget(&slot);
        }
        self.purged = Some(upto);
    }
}
