//! Watchers who are told the same all at once, woken at a pace.
//!
//! Waking one and sending it a record of a few hundred bytes costs some microseconds, whatever it is told. Where hundreds follow one
//! object that changes faster than all of them can be told, each being woken for each change, the server is busy with nothing else, and who
//! changes it waits. What a crowd is told together is sent in waves, and a wave has all that happened since the last.
//!
//! Invariants: fewer than [`CROWD_MIN`] are woken at once; nobody waits longer than [`PACE`] for a wave; each is in it once, so that
//! what waits is bounded by how many watch. No clock: time is handed in.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::watchers::Watcher;

/// From how many on those whom one change concerns are a crowd: below, waking all of them is cheaper than the change was.
pub(crate) const CROWD_MIN: usize = 64;

/// From one wave to the next.
pub(crate) const PACE: Duration = Duration::from_millis(1);

/// Those who are to be woken with the next wave.
#[derive(Default)]
pub(crate) struct Crowd {
    waiting: Vec<Arc<Watcher>>,
    last: Option<Instant>,
}

impl Crowd {
    /// These have something to read since now.
    pub(crate) fn tell(&mut self, watchers: Vec<Arc<Watcher>>) {
        if watchers.len() < CROWD_MIN {
            watchers
                .iter()
                .for_each(|watcher| watcher.wake.notify_one());
        } else {
            self.waiting.extend(watchers);
        }
    }

    /// Wakes them if it is time; if not, says when it will be.
    pub(crate) fn wave(&mut self, now: Instant) -> Option<Instant> {
        if self.waiting.is_empty() {
            return None;
        }
        let due = self.last.map(|last| last + PACE);
        if let Some(due) = due.filter(|due| *due > now) {
            return Some(due);
        }
        self.last = Some(now);
        for watcher in std::mem::take(&mut self.waiting) {
            watcher.wake.notify_one();
        }
        None
    }
}
