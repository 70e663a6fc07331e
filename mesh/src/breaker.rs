//! Whether an endpoint is to be left alone for what it answers. Pure but for its atomics.
//!
//! What counts is said by a policy (`weft_gateway::Breaker`): so many failures in a row, or too small a share of good answers in an
//! interval. How long it is left alone, and that one call tries it then, is its health's to know (`health.rs`); how many of a Service's
//! endpoints may be left alone at once, its port's ([`crate::table::Port::may_trip`]).
//!
//! Invariants: no lock; an endpoint of no policy is never looked at; a good answer of one that answers well writes one word.
//! Source of the two rules: Linkerd's failure accrual and Envoy's outlier detection, which Linkerd 2 and Istio have one each of.

use http::StatusCode;
use weft_gateway::Breaker;

use crate::sync::{AtomicU32, AtomicU64, Ordering};

/// Statuses of gRPC that are failures of whoever answers: unknown, deadline exceeded, resource exhausted, internal, unavailable, data loss.
/// That something was refused or is not there is an answer.
const GRPC_FAILURES: [u16; 6] = [2, 4, 8, 13, 14, 15];

/// Bits of each count of [`Outcomes::window`].
const COUNT_BITS: u32 = 20;
const COUNT_MAX: u64 = (1 << COUNT_BITS) - 1;

/// What an endpoint answered of late.
#[derive(Debug)]
pub(crate) struct Outcomes {
    /// Failures in a row.
    row: AtomicU32,
    /// Which interval it is, then how many good answers and how many failures there were in it.
    window: AtomicU64,
}

impl Outcomes {
    pub(crate) fn new() -> Self {
        Self {
            row: AtomicU32::new(0),
            window: AtomicU64::new(0),
        }
    }

    pub(crate) fn good(&self, rule: &Breaker, now: u64) {
        if self.row.load(Ordering::Relaxed) > 0 {
            self.row.store(0, Ordering::Relaxed);
        }
        if rule.success_percent > 0 {
            self.count(rule, now, 1, 0);
        }
    }

    /// A failure. Whether the rule has enough of it.
    pub(crate) fn bad(&self, rule: &Breaker, now: u64) -> bool {
        let row = self.row.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        let (good, bad) = self.count(rule, now, 0, 1);
        let all = good + bad;
        let is_low = all >= u64::from(rule.min_requests)
            && good * 100 < all * u64::from(rule.success_percent);
        row >= rule.consecutive_failures || is_low
    }

    /// It is left alone for it: what it answers when it is tried again is looked at anew.
    pub(crate) fn forget(&self) {
        self.row.store(0, Ordering::Relaxed);
        self.window.store(0, Ordering::Relaxed);
    }

    /// Counts, and says what is counted with it.
    fn count(&self, rule: &Breaker, now: u64, good: u64, bad: u64) -> (u64, u64) {
        let interval = u64::try_from(rule.interval.as_nanos()).unwrap_or(u64::MAX);
        // The first is not 0, which nothing was counted in.
        let interval = (now / interval.max(1) + 1) & (u64::MAX >> (2 * COUNT_BITS));
        let mut counted = (0, 0);
        let next = |packed: u64| {
            let is_same = packed >> (2 * COUNT_BITS) == interval;
            let (old_good, old_bad) = match is_same {
                true => ((packed >> COUNT_BITS) & COUNT_MAX, packed & COUNT_MAX),
                false => (0, 0),
            };
            counted = (
                (old_good + good).min(COUNT_MAX),
                (old_bad + bad).min(COUNT_MAX),
            );
            Some((interval << (2 * COUNT_BITS)) | (counted.0 << COUNT_BITS) | counted.1)
        };
        // The closure always returns Some, so the update cannot fail.
        let _ = self
            .window
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        counted
    }
}

/// Whether an answer is a failure of whoever gave it.
pub(crate) fn is_failure(status: StatusCode, grpc: Option<u16>) -> bool {
    status.is_server_error() || grpc.is_some_and(|status| GRPC_FAILURES.contains(&status))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// After how many of the answers (`+` and `-`, ten a second) the rule has enough.
    fn trips(rule: &Breaker, answers: &str) -> Option<usize> {
        let outcomes = Outcomes::new();
        let mut answers = answers.chars().enumerate();
        answers.find_map(|(number, answer)| {
            let now = number as u64 * SECOND / 10;
            match answer {
                '+' => {
                    outcomes.good(rule, now);
                    None
                }
                _ => outcomes.bad(rule, now).then_some(number + 1),
            }
        })
    }

    #[test]
    fn a_row_or_a_share_is_enough() {
        let row = Breaker {
            success_percent: 0,
            ..Breaker::default()
        };
        let share = Breaker {
            consecutive_failures: 1000,
            ..Breaker::default()
        };
        for (rule, answers, after) in [
            (&row, "-------", Some(7)),
            (&row, "------+------+", None),
            (&share, "----", None),
            (&share, "-----", Some(5)),
            (&share, "++++-", None),
            (&share, "++++--", Some(6)),
            (&share, "++++++++++--", None),
        ] {
            assert_eq!(trips(rule, answers), after, "{answers}");
        }
        // What was in another interval does not count.
        let short = Breaker {
            interval: Duration::from_millis(300),
            ..share
        };
        assert_eq!(trips(&short, "---------"), None);
    }

    #[test]
    fn whose_failure_an_answer_is() {
        for (status, grpc, failed) in [
            (200, None, false),
            (404, None, false),
            (429, None, false),
            (500, None, true),
            (503, None, true),
            (200, Some(0), false),
            (200, Some(5), false),
            (200, Some(7), false),
            (200, Some(13), true),
            (200, Some(14), true),
        ] {
            let status = StatusCode::from_u16(status).expect("a status");
            assert_eq!(is_failure(status, grpc), failed, "{status} {grpc:?}");
        }
    }
}
