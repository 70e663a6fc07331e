//! How often pods of a DaemonSet failed on a node, so that one that always fails is not made anew all the time.

use std::collections::BTreeMap;

use jiff::Timestamp;
use weft_kinds::{DAEMON_SET, POD};

use crate::plus_seconds;
use crate::pod::{Phase, Pod};
use crate::view::{Touched, Track};

/// The longest pause between two failures that are answered, in seconds.
const PAUSE_MAX: i64 = 900;

/// By the uid of the DaemonSet and the node.
#[derive(Debug, Default)]
pub struct Failures(BTreeMap<(String, String), Failed>);

#[derive(Debug, Default)]
struct Failed {
    times: u32,
    before: Timestamp,
    last: Timestamp,
}

impl Track for Failures {
    fn notice(&mut self, touched: &Touched, news: bool, now: Timestamp) {
        if touched.is_of(&DAEMON_SET) && !touched.is_there {
            self.0.retain(|(uid, _), _| **uid != *touched.uid);
        }
        if !news || !touched.is_of(&POD) {
            return;
        }
        let Some(pod) = touched.after::<Pod>() else {
            return;
        };
        let failed = |phase: Phase| phase == Phase::Failed;
        let was = touched
            .before::<Pod>()
            .is_some_and(|pod| failed(pod.body.phase));
        let owner = pod.meta.controller();
        let owner = owner.filter(|owner| owner.kind == *DAEMON_SET.kind);
        if let Some(owner) = owner.filter(|_| failed(pod.body.phase) && !was) {
            self.note(&owner.uid, &pod.body.node, now);
        }
    }
}

impl Failures {
    fn note(&mut self, set: &str, node: &str, now: Timestamp) {
        let key = (set.to_owned(), node.to_owned());
        let failed = self.0.entry(key).or_default();
        // Twice the longest pause without one: that trouble is over.
        if plus_seconds(failed.last, 2 * PAUSE_MAX) < now {
            failed.times = 0;
        }
        failed.times = failed.times.saturating_add(1);
        failed.before = failed.last;
        failed.last = now;
    }

    /// When the last failure may be answered with a new pod; the first may at once.
    pub fn due(&self, set: &str, node: &str) -> Timestamp {
        let failed = self.0.get(&(set.to_owned(), node.to_owned()));
        let Some(failed) = failed.filter(|failed| failed.times > 1) else {
            return Timestamp::UNIX_EPOCH;
        };
        let doublings = (failed.times - 2).min(10);
        plus_seconds(failed.before, (1_i64 << doublings).min(PAUSE_MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_further_failure_waits_twice_as_long() {
        let at = |second: i64| Timestamp::from_second(1_000_000 + second).unwrap();
        let mut failures = Failures::default();
        assert_eq!(failures.due("u", "n0"), Timestamp::UNIX_EPOCH);
        failures.note("u", "n0", at(0));
        assert_eq!(failures.due("u", "n0"), Timestamp::UNIX_EPOCH);
        for (now, due) in [(10, 1), (20, 12), (30, 24), (40, 38)] {
            failures.note("u", "n0", at(now));
            assert_eq!(failures.due("u", "n0"), at(due), "{now}");
        }
        assert_eq!(
            failures.due("u", "n1"),
            Timestamp::UNIX_EPOCH,
            "another node"
        );
        failures.note("u", "n0", at(10_000));
        assert_eq!(failures.due("u", "n0"), Timestamp::UNIX_EPOCH, "long ago");
    }
}
