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

/// Bits of [`Activity::open`] that are how many calls there are; those above are a sum of times.
const COUNT_BITS: u32 = u64::BITS - BUSY_MODULUS.trailing_zeros();
const COUNT: u64 = (1 << COUNT_BITS) - 1;

static STARTED: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Microseconds since the first call that was counted here.
fn micros(at: Instant) -> u64 {
    let since = at.saturating_duration_since(*STARTED);
    since.as_secs() * 1_000_000 + u64::from(since.subsec_micros())
}

/// The calls of one workload, or to one service.
#[derive(Debug)]
pub(crate) struct Activity {
    since: u64,
    begun: AtomicU64,
    failed: AtomicU64,
    /// How many calls there are, and the sum of when calls ended less the sum of when they began. Both in one number: what a reader makes
    /// of two that do not belong together would be wrong by as long as the node runs. The sum is above, where it wraps as it may.
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
        let began = (micros(at) << COUNT_BITS).wrapping_neg();
        self.open
            .fetch_add(began.wrapping_add(1), Ordering::Relaxed);
        Ongoing {
            activity: Arc::clone(self),
            ended: None,
        }
    }

    fn end(&self, at: Instant) {
        let ended = (micros(at) << COUNT_BITS).wrapping_sub(1);
        self.open.fetch_add(ended, Ordering::Relaxed);
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
        let until_now = (open & COUNT).wrapping_mul(micros(now));
        let answers = self.answers.get().into_iter().flatten().enumerate();
        Counted {
            since: self.since,
            begun: self.begun.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
            busy_micros: (open >> COUNT_BITS).wrapping_add(until_now) % BUSY_MODULUS,
            answers: answers
                .map(|(index, count)| (bounds(index).1, count.load(Ordering::Relaxed)))
                .filter(|(_, count)| *count > 0)
                .collect(),
        }
    }
}

/// A call that is counted as under way.
#[derive(Debug)]
pub(crate) struct Ongoing {
    activity: Arc<Activity>,
    /// When it ended, if that is another time than when this is dropped.
    ended: Option<Instant>,
}

impl Ongoing {
    /// The head of its response came.
    pub(crate) fn answered(&self, took: Duration) {
        self.activity.answered(took);
    }

    /// It is over.
    pub(crate) fn end(mut self, at: Instant) {
        self.ended = Some(at);
    }
}

impl Drop for Ongoing {
    fn drop(&mut self) {
        self.activity.end(self.ended.unwrap_or_else(Instant::now));
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
