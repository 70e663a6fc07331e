//! How busy something is: calls that began, how many there are at once, how long answers take; and of services, how many failed. Autoscalers
//! and rollouts go by it.
//!
//! A workload of this node has one, for what came through its door (`deliver.rs`), and so has a service, for what this node calls it for:
//! from the call's first layer to the end of its response, with the time in which nobody could answer (`hold.rs`).
//!
//! Invariants: counting takes no lock; what nobody calls costs four words; the time that calls took is exact at any moment, those
//! that are under way included.

use std::{
    sync::{
        Arc, LazyLock, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use weft_call::counted::{BUCKETS, BUSY_MODULUS, Counted, bounds, bucket};

/// Bits of [`Activity::open`] that are a sum of times; the others are how many calls there are.
const SUM_BITS: u32 = BUSY_MODULUS.trailing_zeros();
const SUM: u64 = BUSY_MODULUS - 1;

static STARTED: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Microseconds since the first call that was counted here.
fn micros(at: Instant) -> u64 {
    let since = at.saturating_duration_since(*STARTED);
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// The calls of one workload, or to one service.
#[derive(Debug)]
pub(crate) struct Activity {
    since: u64,
    begun: AtomicU64,
    failed: AtomicU64,
    /// How many calls there are, and the sum of when calls ended less the sum of when they began. Both in one number: what a reader makes
    /// of two that do not belong together would be wrong by as long as the node runs.
    open: AtomicU64,
    /// Answers by how long they took; there once there was one.
    answers: OnceLock<Box<[AtomicU64]>>,
}

impl Default for Activity {
    fn default() -> Self {
        // Of the calendar, so that no two runs of a node have the same.
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let since = since.unwrap_or_default().as_micros();
        Self {
            since: u64::try_from(since).unwrap_or_default(),
            begun: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            open: AtomicU64::new(0),
            answers: OnceLock::new(),
        }
    }
}

impl Activity {
    /// A call begins; it ends when what is returned is dropped.
    pub(crate) fn begin(self: &Arc<Self>, at: Instant) -> Ongoing {
        self.begun.fetch_add(1, Ordering::Relaxed);
        self.turn(1, micros(at).wrapping_neg());
        Ongoing(Arc::clone(self))
    }

    fn turn(&self, calls: u64, time: u64) {
        let next = |open: u64| {
            let count = (open >> SUM_BITS).wrapping_add(calls) << SUM_BITS;
            Some(count | (open.wrapping_add(time) & SUM))
        };
        let _ = self
            .open
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
    }

    /// A call ended in a failure of whoever was called.
    pub(crate) fn failed(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    /// An answer's head came.
    pub(crate) fn answered(&self, took: Duration) {
        let answers = self
            .answers
            .get_or_init(|| (0..BUCKETS).map(|_| AtomicU64::new(0)).collect());
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        if let Some(count) = answers.get(bucket(took)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// All that was counted up to now.
    pub(crate) fn counted(&self, now: Instant) -> Counted {
        let open = self.open.load(Ordering::Relaxed);
        let until_now = (open >> SUM_BITS).wrapping_mul(micros(now));
        let answers = self.answers.get().into_iter().flatten().enumerate();
        Counted {
            since: self.since,
            begun: self.begun.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
            busy_micros: open.wrapping_add(until_now) & SUM,
            answers: answers
                .map(|(index, count)| (bounds(index).1, count.load(Ordering::Relaxed)))
                .filter(|(_, count)| *count > 0)
                .collect(),
        }
    }
}

/// A call that is counted as under way.
#[derive(Debug)]
pub(crate) struct Ongoing(Arc<Activity>);

impl Ongoing {
    /// The head of its response came.
    pub(crate) fn answered(&self, took: Duration) {
        self.0.answered(took);
    }
}

impl Drop for Ongoing {
    fn drop(&mut self) {
        // One less, as numbers of this width go.
        self.0.turn(u64::MAX, micros(Instant::now()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_counts_for_each_call_that_there_is() {
        let activity = Arc::<Activity>::default();
        let begun = Instant::now();
        let after = |seconds| begun + Duration::from_secs(seconds);
        assert_eq!(activity.counted(after(9)).begun, 0);
        assert_eq!(activity.counted(after(9)).busy_micros, 0);
        let first = activity.begin(after(1));
        let second = activity.begin(after(3));
        // Five seconds of one, three of the other.
        let counted = activity.counted(after(6));
        assert_eq!((counted.begun, counted.busy_micros), (2, 8_000_000));
        assert_eq!(activity.counted(after(7)).busy_micros, 10_000_000);
        first.answered(Duration::from_millis(1));
        // Whoever ends does so by the clock: before it began, here, which takes away what it had.
        drop((first, second));
        let counted = activity.counted(after(9));
        let later = activity.counted(after(99));
        assert_eq!(counted.busy_micros, later.busy_micros, "nobody is there");
        assert_eq!(counted.answers, [(1024, 1)].into());
        assert_eq!(counted.after(Some(&later)).answers, [].into());
    }
}
