//! What an autoscaler has to know of its last looks: which sizes were recommended, and by how much the target was changed.
//!
//! Invariant: nothing older than the longest window there can be is kept, and no more than [`ENTRIES_MAX`] of a sort.

use std::sync::Arc;

use jiff::Timestamp;

use super::Autoscaler;
use crate::indexer::Cached;
use crate::plus_seconds;

/// Longest window of stabilisation and longest period of a policy; validation allows no more.
const WINDOW_MAX_SECONDS: i64 = 3600;
/// Looks of an hour, and as many again for changes of the object in between.
const ENTRIES_MAX: usize = 480;

/// A number and when it was.
pub type Entry = (Timestamp, i64);

/// The past of one autoscaler.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Past {
    uid: Option<Arc<str>>,
    looked: Option<(Timestamp, i64)>,
    /// Sizes before they were kept within any bounds.
    recommended: Vec<Entry>,
    grown: Vec<Entry>,
    shrunk: Vec<Entry>,
}

impl Past {
    /// The past of this object. A namesake's is not.
    pub(super) fn of(row: &Cached<Autoscaler>, known: &crate::Past) -> Self {
        if let crate::Past::Autoscaler(past) = known
            && past.uid.as_ref() == Some(&row.meta.uid)
        {
            return past.clone();
        }
        Self {
            uid: Some(Arc::clone(&row.meta.uid)),
            ..Self::default()
        }
    }

    /// When the object was last looked at as it is.
    pub(super) fn looked_at(&self, generation: i64) -> Option<Timestamp> {
        let (at, seen) = self.looked?;
        (seen == generation).then_some(at)
    }

    pub(super) fn look(&mut self, now: Timestamp, generation: i64) {
        self.looked = Some((now, generation));
        for entries in [&mut self.recommended, &mut self.grown, &mut self.shrunk] {
            let oldest = plus_seconds(now, -WINDOW_MAX_SECONDS);
            entries.retain(|(at, _)| *at >= oldest);
            let excess = entries.len().saturating_sub(ENTRIES_MAX);
            entries.drain(..excess);
        }
    }

    /// The size that a target has when it is first met counts as recommended.
    pub(super) fn begin(&mut self, now: Timestamp, replicas: i64) {
        if self.recommended.is_empty() {
            self.recommend(now, replicas);
        }
    }

    pub(super) fn recommend(&mut self, now: Timestamp, replicas: i64) {
        self.recommended.push((now, replicas));
    }

    pub(super) fn recommended(&self) -> &[Entry] {
        &self.recommended
    }

    pub(super) fn rescale(&mut self, now: Timestamp, from: i64, to: i64) {
        if to > from {
            self.grown.push((now, to - from));
        } else {
            self.shrunk.push((now, from - to));
        }
    }

    /// By how much the target grew, less by how much it shrank, in the last seconds.
    pub(super) fn growth(&self, now: Timestamp, seconds: i64) -> i64 {
        let since = plus_seconds(now, -seconds);
        let sum = |entries: &[Entry]| -> i64 {
            let recent = entries.iter().filter(|(at, _)| *at > since);
            recent.map(|(_, change)| change).sum()
        };
        sum(&self.grown) - sum(&self.shrunk)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn the_past_is_bounded() {
        let mut past = Past::default();
        for second in 0..10_000 {
            past.recommend(at(second), second);
            past.rescale(at(second), 1, 2);
            past.look(at(second), 1);
        }
        assert_eq!(past.recommended.len(), ENTRIES_MAX);
        assert_eq!(past.recommended.last(), Some(&(at(9999), 9999)));
        past.look(at(9_999 + WINDOW_MAX_SECONDS + 1), 1);
        assert!(past.recommended.is_empty() && past.grown.is_empty());
    }

    #[test]
    fn growth_is_of_the_last_seconds() {
        let mut past = Past::default();
        past.rescale(at(10), 4, 8);
        past.rescale(at(20), 8, 7);
        for (now, seconds, growth) in [(20, 60, 3), (30, 20, -1), (30, 10, 0), (25, 16, 3)] {
            assert_eq!(past.growth(at(now), seconds), growth, "{now} {seconds}");
        }
        assert_eq!(past.looked_at(1), None);
        past.look(at(30), 1);
        assert_eq!((past.looked_at(1), past.looked_at(2)), (Some(at(30)), None));
    }
}
