//! Which of a few copies of a structure the current thread should use.
//!
//! Data-plane work stays on the core that accepted it, so a copy a thread means no contention: connection
//! pools and counters are split this way. Two threads may share an index ([`current`]); that costs speed, never correctness.
//!
//! A thread that counts all the time gets copies that it alone writes ([`place`]): adding to them is a load and a store, which take a
//! quarter of what an addition takes that other threads may make, too. All others share the last copy.
//!
//! Invariant: at most one thread at a time has a number, and what it wrote is visible to who has it next.

use std::{
    cell::Cell,
    sync::atomic::{AtomicU32, AtomicUsize, Ordering},
};

/// More threads than this share copies.
pub(crate) const SHARDS: usize = 16;

/// Uses after which a thread asks for a number of its own: who counts something now and then needs none.
const USES: u32 = 64;
/// Numbers that there are: with the copy that all others share, as many as there are copies.
const NUMBERS: u32 = SHARDS as u32 - 1;
const NONE: usize = usize::MAX;

static NEXT: AtomicUsize = AtomicUsize::new(0);
/// A bit for each number that a thread has.
static TAKEN: AtomicU32 = AtomicU32::new(0);

thread_local! {
    static INDEX: usize = NEXT.fetch_add(1, Ordering::Relaxed);
    static OWN: Own = const { Own { uses: Cell::new(0), number: Cell::new(NONE) } };
}

/// The copy for this thread, below `of`.
pub(crate) fn current(of: usize) -> usize {
    INDEX.with(|index| index % of.max(1))
}

/// A copy to count in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) index: usize,
    /// No other thread writes it.
    pub(crate) alone: bool,
}

/// The copy for what this thread counts, of so many.
pub(crate) fn place(of: usize) -> Place {
    let shared = of.saturating_sub(1);
    // A thread that ends has none any more.
    let number = OWN.try_with(Own::number).unwrap_or(NONE);
    match number < shared {
        true => Place {
            index: number,
            alone: true,
        },
        false => Place {
            index: shared,
            alone: false,
        },
    }
}

/// What a thread has of numbers.
struct Own {
    uses: Cell<u32>,
    number: Cell<usize>,
}

impl Own {
    fn number(&self) -> usize {
        if self.number.get() == NONE {
            let uses = self.uses.get().wrapping_add(1);
            self.uses.set(uses);
            if uses.is_multiple_of(USES) {
                self.number.set(take());
            }
        }
        self.number.get()
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        if let Ok(number @ 0..NUMBERS) = u32::try_from(self.number.get()) {
            TAKEN.fetch_and(!(1 << number), Ordering::Release);
        }
    }
}

/// The least number that nobody has.
fn take() -> usize {
    let free = |taken: u32| {
        let number = taken.trailing_ones();
        (number < NUMBERS).then_some(taken | (1 << number))
    };
    let taken = TAKEN.fetch_update(Ordering::AcqRel, Ordering::Relaxed, free);
    taken.map_or(NONE, |before| before.trailing_ones() as usize)
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    #[test]
    fn who_counts_all_the_time_is_alone_and_no_two_are() {
        let threads = 2 * SHARDS;
        let barrier = Barrier::new(threads);
        let count = || {
            assert!(!place(SHARDS).alone, "its first");
            for _ in 0..USES {
                place(SHARDS);
            }
            // All are here at the same time.
            barrier.wait();
            let place = place(SHARDS);
            barrier.wait();
            place
        };
        let places: Vec<Place> = std::thread::scope(|scope| {
            let all: Vec<_> = (0..threads).map(|_| scope.spawn(count)).collect();
            let all = all.into_iter();
            all.map(|one| one.join().expect("no panic")).collect()
        });
        let mut alone: Vec<usize> = places
            .iter()
            .filter(|place| place.alone)
            .map(|place| place.index)
            .collect();
        let found = alone.len();
        // Other tests' threads may have some.
        assert!(found > 0 && found < SHARDS, "{found}");
        alone.sort_unstable();
        alone.dedup();
        assert_eq!(alone.len(), found);
        let shared = places.iter().filter(|place| !place.alone);
        assert!(shared.clone().count() > SHARDS);
        assert!(shared.clone().all(|place| place.index == SHARDS - 1));
        // With one copy there is nobody who is alone.
        assert_eq!((place(1).index, place(1).alone), (0, false));
    }
}
