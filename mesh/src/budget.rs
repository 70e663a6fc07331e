//! How often calls to a service are tried again. Pure but for its atomics.
//!
//! Each call earns a fifth of a retry and each second ten, up to [`MOST`]; a retry takes one. While little fails nobody notices; when a
//! service cannot keep up, retries add a fifth to its load and no more, whatever the callers are and however deep they are nested.
//! A call that is refused a retry ends with the failure that it had.
//!
//! Figures: Linkerd's and the Gateway API's `retryConstraint` (20 %, 10 a second). [`MOST`] is not theirs: a node that dies takes some
//! hundred calls in flight along at once, and each of them may be tried again.

use crate::sync::{AtomicI64, AtomicU64, Ordering};

/// In thousandths of a retry.
const PER_CALL: i64 = 200;
const PER_SECOND: i64 = 10_000;
const RETRY: i64 = 1000;
/// What can be saved up.
const MOST: i64 = 1000 * RETRY;

/// What one service has left. Shared by all callers of a node.
#[derive(Debug)]
pub(crate) struct Budget {
    left: AtomicI64,
    /// Monotonic milliseconds until which [`PER_SECOND`] was added.
    filled: AtomicU64,
}

impl Default for Budget {
    /// Full, so that a service which nobody called yet may fail over.
    fn default() -> Self {
        Self {
            left: AtomicI64::new(MOST),
            filled: AtomicU64::new(0),
        }
    }
}

impl Budget {
    /// A call begins. Writes nothing while nothing is missing.
    pub(crate) fn earn(&self) {
        if self.left.load(Ordering::Relaxed) < MOST {
            self.add(PER_CALL);
        }
    }

    /// Takes one retry at `now` (monotonic nanoseconds), if there is one.
    pub(crate) fn take(&self, now: u64) -> bool {
        let now = now / 1_000_000;
        let before = self.filled.fetch_max(now, Ordering::Relaxed);
        let passed = i64::try_from(now.saturating_sub(before)).unwrap_or(i64::MAX);
        if passed > 0 {
            self.add(passed.saturating_mul(PER_SECOND / 1000));
        }
        let take = |left: i64| (left >= RETRY).then_some(left - RETRY);
        self.left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
            .is_ok()
    }

    fn add(&self, amount: i64) {
        let add = |left: i64| Some(left.saturating_add(amount).min(MOST));
        // The closure always returns Some, so the update cannot fail.
        let _ = self
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn taken(budget: &Budget, now: u64, wanted: usize) -> usize {
        (0..wanted).filter(|_| budget.take(now)).count()
    }

    #[test]
    fn retries_are_a_fifth_of_the_calls_and_ten_a_second() {
        let budget = Budget::default();
        assert_eq!(taken(&budget, SECOND, 5000), 1000, "what was saved up");
        assert_eq!(taken(&budget, SECOND, 10), 0);
        (0..100).for_each(|_| budget.earn());
        assert_eq!(taken(&budget, SECOND, 100), 20, "a fifth");
        assert_eq!(taken(&budget, 3 * SECOND, 100), 20, "two seconds");
        // A thread with an older reading of the clock adds nothing.
        assert_eq!(taken(&budget, 2 * SECOND, 100), 0);
        assert_eq!(
            taken(&budget, 3600 * SECOND, 5000),
            1000,
            "no more than can be saved"
        );
    }
}
