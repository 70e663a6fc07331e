//! How often calls to a service are tried again, of those that somebody may have processed. Pure but for its atomics.
//!
//! Within an interval there may be a share of the calls of that interval, or so many a second where there are few calls: nothing is saved
//! up, so that when a service cannot keep up, retries add that share to its load and no more, whatever the callers are. How deep they are
//! nested does not matter either: what is made for a further try is not tried again (`CallContext::repeated`), and who hears that its
//! callee's calls were tried as often as may be does not try again itself (`Spent`).
//! A call that is refused a retry ends with the failure that it had. What that comes to is simulated in `budget/simulation.rs`.
//!
//! What never began and goes to an endpoint that is well needs no budget (`call.rs`): it adds nothing to what the service has to do. When a
//! service is down there is no such endpoint.
//!
//! Invariants: no lock; two that ask at once are not both given the last one; a reading of the clock that is a little behind takes nothing
//! away of what others counted.
//! Figures where nobody says others: the Gateway API's `retryConstraint` (20 % in 10 s, 10 a second), which are Finagle's.

use std::time::Duration;

use crate::sync::{AtomicU64, Ordering};

/// Parts of the interval: what is older than the interval is forgotten one part at a time.
const SLOTS: usize = 10;

/// What one service has left. Shared by all callers of a node.
#[derive(Debug)]
pub(crate) struct Budget {
    percent: u64,
    /// Retries of an interval however few calls there are.
    least: u64,
    slot_nanos: u64,
    slots: [Slot; SLOTS],
}

/// Each a count in the low half, and in the high half which part of time it is of.
#[derive(Debug)]
struct Slot {
    calls: AtomicU64,
    retries: AtomicU64,
}

impl Default for Budget {
    /// Of what no policy is for.
    fn default() -> Self {
        Self::new(20, Duration::from_secs(10), 10)
    }
}

impl Budget {
    pub(crate) fn new(percent: u32, interval: Duration, min_per_second: u32) -> Self {
        let nanos = u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX);
        let least = f64::from(min_per_second) * interval.as_secs_f64();
        Self {
            percent: u64::from(percent),
            least: least as u64,
            slot_nanos: (nanos / SLOTS as u64).max(1),
            slots: std::array::from_fn(|_| Slot {
                calls: AtomicU64::new(0),
                retries: AtomicU64::new(0),
            }),
        }
    }

    /// A call begins at `now` (monotonic nanoseconds).
    pub(crate) fn earn(&self, now: u64) {
        let part = self.part(now);
        let count = |packed| {
            let (of, count) = unpack(packed);
            Some(match of < part {
                true => pack(part, 1),
                false => pack(of, count.saturating_add(1)),
            })
        };
        // The closure always returns Some, so the update cannot fail.
        let _ = self
            .slot(part)
            .calls
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, count);
    }

    /// Takes one retry at `now`, if there is one.
    pub(crate) fn take(&self, now: u64) -> bool {
        let part = self.part(now);
        let most = self.sum(part, |slot| &slot.calls) * self.percent / 100;
        let most = most.max(self.least);
        let own = self.slot(part);
        let slots = self.slots.iter();
        let others = slots.filter(|slot| !std::ptr::eq(*slot, own));
        let others = others.map(|slot| self.counted(slot.retries.load(Ordering::Relaxed), part));
        let others: u64 = others.sum();
        let take = |packed| {
            let (of, count) = unpack(packed);
            let count = if of < part { 0 } else { count };
            (others + count < most).then(|| pack(part.max(of), count + 1))
        };
        own.retries
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
            .is_ok()
    }

    /// What of `most` is left at `now`, for those who look.
    pub(crate) fn left(&self, now: u64) -> u64 {
        let part = self.part(now);
        let most = self.sum(part, |slot| &slot.calls) * self.percent / 100;
        let most = most.max(self.least);
        most.saturating_sub(self.sum(part, |slot| &slot.retries))
    }

    fn part(&self, now: u64) -> u64 {
        // The first is not 0, which slots have that nothing was counted in.
        (now / self.slot_nanos + 1) & (u64::MAX >> 32)
    }

    fn slot(&self, part: u64) -> &Slot {
        &self.slots[part as usize % SLOTS]
    }

    fn sum(&self, part: u64, which: impl Fn(&Slot) -> &AtomicU64) -> u64 {
        let slots = self.slots.iter();
        let counts = slots.map(|slot| self.counted(which(slot).load(Ordering::Relaxed), part));
        counts.sum()
    }

    /// What a slot counts, as far as that is of the interval that ends with `part`.
    fn counted(&self, packed: u64, part: u64) -> u64 {
        let (of, count) = unpack(packed);
        let is_of_it = of + SLOTS as u64 > part;
        if is_of_it { count } else { 0 }
    }
}

fn pack(part: u64, count: u64) -> u64 {
    (part << 32) | count.min(u64::MAX >> 32)
}

fn unpack(packed: u64) -> (u64, u64) {
    (packed >> 32, packed & (u64::MAX >> 32))
}

// By its path, as `tests/models` compiles this file from elsewhere.
#[cfg(test)]
#[path = "budget/simulation.rs"]
mod simulation;

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn taken(budget: &Budget, now: u64, wanted: usize) -> usize {
        (0..wanted).filter(|_| budget.take(now)).count()
    }

    #[test]
    fn retries_are_a_fifth_of_the_calls_or_ten_a_second() {
        let budget = Budget::default();
        assert_eq!(taken(&budget, SECOND, 5000), 100, "ten seconds of ten");
        assert_eq!(taken(&budget, 10 * SECOND, 10), 0, "of the same interval");
        assert_eq!(taken(&budget, 11 * SECOND, 5000), 100);
        let budget = Budget::default();
        (0..10_000).for_each(|call| budget.earn(call * SECOND / 1000));
        assert_eq!(
            budget.left(10 * SECOND),
            1800,
            "of what is nine seconds old"
        );
        assert_eq!(taken(&budget, 10 * SECOND, 5000), 1800);
        assert_eq!(budget.left(10 * SECOND), 0);
        assert_eq!(taken(&budget, 10 * SECOND, 100), 0);
        assert_eq!(taken(&budget, 3600 * SECOND, 5000), 100, "nothing is saved");
    }

    #[test]
    fn who_says_none_has_none() {
        let budget = Budget::new(0, Duration::from_secs(1), 0);
        (0..1000).for_each(|_| budget.earn(SECOND));
        assert_eq!(taken(&budget, SECOND, 10), 0);
        let all = Budget::new(100, Duration::from_secs(3600), 0);
        (0..50).for_each(|_| all.earn(SECOND));
        assert_eq!(taken(&all, 3000 * SECOND, 100), 50);
    }
}
