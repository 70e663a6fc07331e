//! How long a Job waits after failures before it makes pods again: ten seconds, twice as long after each further failure,
//! at most ten minutes; a success ends it.
//!
//! A failed pod can be gone long before the pause is over, so this does not show in any one state of the cluster: [`Streaks`] keeps
//! for each Job when its latest pods failed that were counted; of those that were not, their objects tell. Under a new
//! leader only these are known, as after a restart of Kubernetes' controller.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use weft_kinds::JOB;

use super::TRACKING;
use crate::pod::{Phase, Pod};
use crate::until;
use crate::view::{Touched, Track};

const FIRST: Duration = Duration::from_secs(10);
const MAX: Duration = Duration::from_secs(600);
/// Failures after which the pause grows no more: no others are remembered.
const FAILURES_MAX: usize = 7;

/// Failures in a row.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Streak {
    /// In order, at most [`FAILURES_MAX`] of them.
    failures: Vec<Timestamp>,
    succeeded: Option<Timestamp>,
}

impl Streak {
    pub fn fail(&mut self, at: Timestamp) {
        if self.succeeded.is_some_and(|succeeded| at < succeeded) {
            return;
        }
        let place = self.failures.partition_point(|failure| *failure <= at);
        self.failures.insert(place, at);
        if self.failures.len() > FAILURES_MAX {
            self.failures.remove(0);
        }
    }

    pub fn succeed(&mut self, at: Timestamp) {
        self.failures.retain(|failure| *failure > at);
        self.succeeded = self.succeeded.max(Some(at));
    }

    /// What is left of the pause.
    pub fn left(&self, now: Timestamp) -> Duration {
        let Some(last) = self.failures.last() else {
            return Duration::ZERO;
        };
        left_after(self.failures.len(), *last, now)
    }
}

/// What is left of the pause after so many failures, the last of which was at `last`.
pub fn left_after(failures: usize, last: Timestamp, now: Timestamp) -> Duration {
    let Some(doublings) = failures.checked_sub(1) else {
        return Duration::ZERO;
    };
    let doublings = u32::try_from(doublings).unwrap_or(u32::MAX);
    let pause = FIRST
        .saturating_mul(2_u32.saturating_pow(doublings))
        .min(MAX);
    pause.saturating_sub(until(now, last))
}

/// The streak of each Job there is, by its uid.
#[derive(Debug, Default)]
pub struct Streaks(BTreeMap<String, Streak>);

impl Streaks {
    pub fn of(&self, job: &str) -> Streak {
        self.0.get(job).cloned().unwrap_or_default()
    }
}

impl Track for Streaks {
    fn notice(&mut self, touched: &Touched, _: bool, now: Timestamp) {
        if touched.is_of(&JOB) {
            if touched.is_there {
                self.0.entry(touched.uid.to_string()).or_default();
            } else {
                self.0.remove(&*touched.uid);
            }
            return;
        }
        // A pod that ended is counted when the finalizer is taken from it; one that is let go before it ended never was.
        let Some(before) = touched.before::<Pod>() else {
            return;
        };
        let Some(end) = &before.body.end else { return };
        let after = touched.after::<Pod>();
        if after.is_some_and(|pod| pod.meta.has_finalizer(TRACKING)) {
            return;
        }
        let job = before.meta.controller();
        let Some(streak) = job.and_then(|job| self.0.get_mut(&job.uid)) else {
            return;
        };
        let at = end.at.unwrap_or(now);
        if before.body.phase == Phase::Succeeded {
            streak.succeed(at);
        } else {
            streak.fail(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn pauses_double_up_to_ten_minutes() {
        for (failures, seconds) in [
            (0, 0),
            (1, 10),
            (2, 20),
            (3, 40),
            (6, 320),
            (7, 600),
            (8, 600),
            (usize::MAX, 600),
        ] {
            let left = left_after(failures, at(1000), at(1000));
            assert_eq!(left.as_secs(), seconds, "{failures}");
        }
        for (now, left) in [(1000, 20), (1019, 1), (1020, 0), (9999, 0), (990, 20)] {
            assert_eq!(left_after(2, at(1000), at(now)).as_secs(), left, "{now}");
        }
    }

    #[test]
    fn a_success_ends_the_failures_before_it() {
        let mut streak = Streak::default();
        assert_eq!(streak.left(at(0)), Duration::ZERO);
        for second in [30, 10, 20] {
            streak.fail(at(second));
        }
        assert_eq!(streak.left(at(30)).as_secs(), 40);
        streak.succeed(at(20));
        assert_eq!(streak.left(at(30)).as_secs(), 10);
        streak.fail(at(15));
        assert_eq!(streak.left(at(30)).as_secs(), 10, "it was before");
        streak.fail(at(20));
        assert_eq!(streak.left(at(30)).as_secs(), 20, "in the same second");
        streak.succeed(at(40));
        assert_eq!(streak.left(at(40)), Duration::ZERO);
        for second in 50..70 {
            streak.fail(at(second));
        }
        assert_eq!(streak.failures.len(), FAILURES_MAX);
        assert_eq!(streak.left(at(69)).as_secs(), 600);
    }
}
