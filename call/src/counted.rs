//! What was counted of calls: how many began, how many failed, how many there were at once, how long answers took; and what that says of the time
//! between two looks.
//!
//! A node counts (`mesh/src/activity.rs`), a server asks it from time to time and makes rates of it: both say it with these values.
//!
//! Invariants: pure; what began to count anew in between, is taken for all new; answers of all nodes can be put together before a
//! quantile is read from them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// In which [`Counted::busy_micros`] is counted: 203 days, of one call at a time.
pub const BUSY_MODULUS: u64 = 1 << 44;

/// Groups of times that answers are counted in: four to each doubling, from 16 µs to four minutes.
pub const BUCKETS: usize = 97;
/// Times below this, as a power of two of microseconds, are one group.
const FIRST: u32 = 4;

/// The group of a time.
#[must_use]
pub fn bucket(micros: u64) -> usize {
    if micros >> FIRST == 0 {
        return 0;
    }
    let doublings = micros.ilog2();
    let quarter = (micros >> (doublings - 2)) & 3;
    let index = 1 + (doublings - FIRST) as usize * 4 + quarter as usize;
    index.min(BUCKETS - 1)
}

/// Where a group begins and where it ends, in microseconds.
#[must_use]
pub fn bounds(bucket: usize) -> (u64, u64) {
    let Some(index) = bucket.min(BUCKETS - 1).checked_sub(1) else {
        return (0, 1 << FIRST);
    };
    let (doublings, quarter) = (FIRST as usize + index / 4, (index % 4) as u64);
    let unit = doublings - 2;
    ((4 + quarter) << unit, (5 + quarter) << unit)
}

/// What was counted of the calls of a pod, or to a Service.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Counted {
    /// When that began, by a clock of the node's own. What began at another time is another count.
    pub since: u64,
    pub begun: u64,
    /// Those that ended in a failure of whoever was called: an answer of 500 or above, the same in gRPC, or none. What its caller gave up is none.
    #[serde(default)]
    pub failed: u64,
    /// For how long there was a call, summed over all of them, in microseconds; modulo [`BUSY_MODULUS`].
    pub busy_micros: u64,
    /// Answers by the end of their group of times, in microseconds. Only groups that have any.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub answers: BTreeMap<u64, u64>,
}

impl Counted {
    /// What is new since `earlier`.
    #[must_use]
    pub fn after(&self, earlier: Option<&Self>) -> Self {
        let same =
            earlier.filter(|earlier| earlier.since == self.since && earlier.begun <= self.begun);
        let Some(earlier) = same else {
            return self.clone();
        };
        let answers = self.answers.iter().filter_map(|(end, count)| {
            let before = earlier.answers.get(end).copied().unwrap_or_default();
            let new = count.saturating_sub(before);
            (new > 0).then_some((*end, new))
        });
        Self {
            since: self.since,
            begun: self.begun - earlier.begun,
            failed: self.failed.saturating_sub(earlier.failed),
            busy_micros: self.busy_micros.wrapping_sub(earlier.busy_micros) % BUSY_MODULUS,
            answers: answers.collect(),
        }
    }

    /// Takes up what was counted elsewhere of the same.
    pub fn add(&mut self, other: &Self) {
        self.begun = self.begun.saturating_add(other.begun);
        self.failed = self.failed.saturating_add(other.failed);
        self.busy_micros = self.busy_micros.wrapping_add(other.busy_micros) % BUSY_MODULUS;
        for (end, count) in &other.answers {
            let sum = self.answers.entry(*end).or_default();
            *sum = sum.saturating_add(*count);
        }
    }

    /// The time within which so many thousandths of all answers came, in microseconds; 0 where there was none. Within a group, answers
    /// are taken to be spread evenly.
    #[must_use]
    pub fn quantile_micros(&self, thousandths: u64) -> u64 {
        let total: u64 = self.answers.values().copied().fold(0, u64::saturating_add);
        let rank = u128::from(total) * u128::from(thousandths.min(1000));
        let mut below = 0_u128;
        for (end, count) in &self.answers {
            let here = u128::from(*count) * 1000;
            if below + here >= rank && here > 0 {
                let (begin, _) = bounds(bucket(end.saturating_sub(1)));
                let width = u128::from(end.saturating_sub(begin));
                let within = width * rank.saturating_sub(below) / here;
                return begin.saturating_add(u64::try_from(within).unwrap_or(u64::MAX));
            }
            below += here;
        }
        0
    }
}

/// What a node has counted, as it tells a server: `/stats/calls` at the node's port.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeCalls {
    /// When it was read, by the node's clock: RFC 3339.
    pub time: String,
    /// What reached its pods.
    pub pods: Vec<PodCalls>,
    /// What its pods and its gateway have called Services for, waits and further tries included. Only those that were called.
    pub services: Vec<ServiceCalls>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodCalls {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub calls: Counted,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceCalls {
    pub namespace: String,
    pub name: String,
    pub calls: Counted,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_follow_each_other_without_a_gap() {
        let mut end = 0;
        for index in 0..BUCKETS {
            let (begins, ends) = bounds(index);
            assert_eq!(begins, end, "{index}");
            assert_eq!((bucket(begins), bucket(ends - 1)), (index, index));
            // Narrow enough that a quantile means something.
            assert!(index == 0 || (ends - begins) * 4 <= begins, "{index}");
            end = ends;
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
        assert!(end > 4 * 60 * 1_000_000, "{end}");
    }

    fn counted(since: u64, begun: u64, busy_micros: u64, answers: &[(u64, u64)]) -> Counted {
        let answers = answers.iter();
        Counted {
            since,
            begun,
            failed: begun / 5,
            busy_micros,
            answers: answers
                .map(|(micros, count)| (bounds(bucket(*micros)).1, *count))
                .collect(),
        }
    }

    #[test]
    fn between_two_looks_is_what_came_in_between() {
        let earlier = counted(7, 10, BUSY_MODULUS - 5, &[(100, 4), (1000, 1)]);
        let later = counted(7, 15, 20, &[(100, 4), (1000, 3), (5000, 1)]);
        let new = counted(7, 5, 25, &[(1000, 2), (5000, 1)]);
        assert_eq!(later.after(Some(&earlier)), new);
        assert_eq!(later.after(None), later);
        // A pod that began anew, and a node that did.
        for other in [counted(8, 1, 1, &[]), counted(7, 16, 1, &[])] {
            assert_eq!(later.after(Some(&other)), later);
        }
    }

    #[test]
    fn quantiles_of_what_all_nodes_saw() {
        for (answers, thousandths, expected) in [
            (&[][..], 950, 0),
            (&[(100, 1)], 950, 111),
            (&[(0, 100)], 500, 8),
            // 1000 µs are in the group from 896 to 1024.
            (&[(100, 95), (1000, 5)], 950, 112),
            (&[(100, 90), (1000, 10)], 950, 960),
            (&[(100, 90), (1000, 10)], 1000, 1024),
            (&[(u64::MAX, 1)], 1000, 268_435_456),
        ] {
            let found = counted(0, 0, 0, answers).quantile_micros(thousandths);
            assert_eq!(found, expected, "{answers:?} {thousandths}");
        }
        let mut all = counted(0, 1, 5, &[(100, 90)]);
        all.add(&counted(0, 2, 6, &[(1000, 10)]));
        assert_eq!(
            (all.begun, all.busy_micros, all.quantile_micros(950)),
            (3, 11, 960)
        );
    }
}
