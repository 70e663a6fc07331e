//! Balancing: who can be called, then power of two choices over peak-EWMA latency, nearest tier first. Pure but for the atomics.
//!
//! Time comes in as monotonic nanoseconds, chance as an `Rng`. Whether an endpoint can be called is its [`Health`]'s to say, and what
//! that would cost its [`Load`]'s.
//!
//! Invariants: no lock, no allocation; an ejected endpoint is used only when no other is left, and then the one that promises most;
//! nobody is turned away because all are ejected; reading never writes.
//! Source: Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", IEEE TPDS 2001.

use std::time::Duration;

use rand::Rng;

use crate::{breaker::Outcomes, health::Health, load::Load};

/// First guess for an endpoint in this process; a low guess lets a new local endpoint take part at once.
pub(crate) const SEED_SAME_NODE: Duration = Duration::from_millis(1);
/// First guess for an endpoint of another node.
pub(crate) const SEED_OTHER_NODE: Duration = Duration::from_millis(5);

/// Calls in flight at the chosen endpoint of the near tier beyond which all tiers are considered.
pub(crate) const SPILL_PENDING: u32 = 180;

/// What this node knows of an endpoint. A cache line of its own: a choice looks at one for each endpoint, and a call to another one does
/// not take it away.
#[derive(Debug)]
#[repr(align(64))]
pub struct Standing {
    pub(crate) load: Load,
    pub(crate) health: Health,
    pub(crate) outcomes: Outcomes,
}

impl Standing {
    pub(crate) fn new(seed: Duration) -> Self {
        Self {
            load: Load::new(seed),
            health: Health::new(),
            outcomes: Outcomes::new(),
        }
    }
}

/// Chooses among one tier. `standing(i)` and `tried(i)` describe endpoint `i` of `count`.
///
/// Two distinct draws; the cheaper usable one wins. When neither is usable (ejected, or tried before by this
/// call) the whole tier is searched: by health first, then by cost. `None` when all were tried.
pub(crate) fn choose<'a>(
    count: usize,
    standing: impl Fn(usize) -> &'a Standing,
    tried: impl Fn(usize) -> bool,
    now: u64,
    rng: &mut impl Rng,
) -> Option<usize> {
    let cost = |index: usize| standing(index).load.cost(now);
    let rank = |index: usize| standing(index).health.rank(now);
    let usable = |index: usize| !tried(index) && rank(index) == 0;
    let (first, second) = match count {
        0 => return None,
        1 => return (!tried(0)).then_some(0),
        2 => (0, 1),
        _ => {
            let first = rng.random_range(0..count);
            let second = (first + rng.random_range(1..count)) % count;
            (first, second)
        }
    };
    match (usable(first), usable(second)) {
        (true, true) => {
            let (a, b) = (cost(first), cost(second));
            // Equal costs must not always fall on the lower index.
            let take_first = if a == b { rng.random() } else { a < b };
            Some(if take_first { first } else { second })
        }
        (true, false) => Some(first),
        (false, true) => Some(second),
        (false, false) => (0..count).filter(|&index| !tried(index)).min_by(|&a, &b| {
            let by_health = rank(a).cmp(&rank(b));
            by_health.then_with(|| cost(a).total_cmp(&cost(b)))
        }),
    }
}

#[cfg(test)]
mod simulation;

#[cfg(test)]
mod tests {
    use rand::{SeedableRng, rngs::SmallRng};

    use super::*;
    use crate::health::Fault;

    const SECOND: u64 = 1_000_000_000;

    fn standings(costs: &[(u64, u32)]) -> Vec<Standing> {
        costs
            .iter()
            .map(|&(millis, pending)| {
                let standing = Standing::new(Duration::from_millis(millis));
                (0..pending).for_each(|_| standing.load.begin());
                standing
            })
            .collect()
    }

    fn share(set: &[Standing], tried: &[usize], now: u64) -> Vec<u32> {
        let mut rng = SmallRng::seed_from_u64(7);
        let mut hits = vec![0; set.len()];
        for _ in 0..1000 {
            if let Some(index) = choose(
                set.len(),
                |i| &set[i],
                |i| tried.contains(&i),
                now,
                &mut rng,
            ) {
                hits[index] += 1;
            }
        }
        hits
    }

    #[test]
    fn a_worse_sample_counts_at_once_and_a_better_one_slowly() {
        let load = Load::new(Duration::from_millis(1));
        load.record(Duration::from_millis(50), SECOND);
        assert!((load.cost(SECOND) / 50e6 - 1.0).abs() < 0.01);
        load.record(Duration::from_millis(1), SECOND);
        assert!(
            load.cost(SECOND) > 49e6,
            "no time passed, nothing is forgotten"
        );
        load.record(Duration::from_millis(1), 11 * SECOND);
        let expected = 1e6 + 49e6 * (-1.0f32).exp();
        assert!((load.cost(11 * SECOND) / expected - 1.0).abs() < 0.01);
    }

    #[test]
    fn what_was_not_answered_makes_nobody_look_faster() {
        let load = Load::new(Duration::from_millis(10));
        load.record(Duration::from_millis(10), SECOND);
        load.at_least(Duration::from_millis(1), SECOND);
        assert!((load.cost(SECOND) / 10e6 - 1.0).abs() < 0.01);
        load.at_least(Duration::from_millis(50), SECOND);
        assert!((load.cost(SECOND) / 50e6 - 1.0).abs() < 0.01);
        // More than is left of the estimate by then.
        load.at_least(Duration::from_millis(20), 11 * SECOND);
        assert!((load.cost(11 * SECOND) / 20e6 - 1.0).abs() < 0.01);
    }

    #[test]
    fn reading_projects_without_writing() {
        let load = Load::new(Duration::from_millis(10));
        load.record(Duration::from_millis(10), SECOND);
        let later = load.cost(11 * SECOND);
        assert!((later / 10e6 - (-1.0f32).exp()).abs() < 0.01);
        assert!((load.cost(SECOND) / 10e6 - 1.0).abs() < 0.01);
    }

    #[test]
    fn an_older_clock_reading_is_harmless() {
        let load = Load::new(Duration::from_millis(10));
        load.record(Duration::from_millis(10), 5 * SECOND);
        assert!((load.cost(4 * SECOND) / 10e6 - 1.0).abs() < 0.01);
    }

    #[test]
    fn the_cheaper_of_two_wins() {
        for (costs, winner) in [
            ([(1, 0), (10, 0)], 0),
            ([(1, 20), (10, 0)], 1),
            ([(5, 3), (5, 2)], 1),
        ] {
            let hits = share(&standings(&costs), &[], 0);
            assert_eq!(hits[winner], 1000, "{costs:?}");
        }
    }

    #[test]
    fn equals_share_evenly_and_the_worst_of_many_is_avoided() {
        let even = share(&standings(&[(1, 0), (1, 0), (1, 0), (1, 0)]), &[], 0);
        assert!(
            even.iter().all(|hits| (200..300).contains(hits)),
            "{even:?}"
        );
        let hits = share(&standings(&[(1, 0), (1, 0), (100, 0)]), &[], 0);
        assert_eq!(hits[2], 0);
    }

    #[test]
    fn tried_and_ejected_endpoints_come_last() {
        let set = standings(&[(1, 0), (1, 0), (50, 0)]);
        assert_eq!(share(&set, &[0, 1], 0), [0, 0, 1000]);
        set[0].health.failed(Fault::Unreachable, 0, 0);
        set[1].health.failed(Fault::Unreachable, 0, 0);
        assert_eq!(share(&set, &[], SECOND), [0, 0, 1000]);
        // All others were tried: an ejected endpoint is better than none.
        let hits = share(&set, &[2], SECOND);
        assert_eq!(hits[0] + hits[1], 1000);
        // Time heals, and so does an answer.
        assert!(!set[0].health.is_ejected(6 * SECOND));
        set[1].health.answered(SECOND, SECOND);
        assert!(!set[1].health.is_ejected(SECOND));
        assert_eq!(share(&set, &[0, 1, 2], 0), [0, 0, 0]);
    }

    #[test]
    fn when_all_are_ejected_the_most_hopeful_is_used_whatever_it_costs() {
        let set = standings(&[(1, 0), (50, 9), (50, 0), (1, 0)]);
        let fails = |index: usize, fault, times| {
            (0..times).for_each(|time| {
                set[index]
                    .health
                    .failed(fault, time * SECOND, time * SECOND)
            });
        };
        fails(0, Fault::Failed, 3);
        (1..3).for_each(|index| fails(index, Fault::Failed, 1));
        fails(3, Fault::Unreachable, 1);
        let then = 2 * SECOND + 1;
        assert_eq!(share(&set, &[], SECOND / 20), [0, 0, 1000, 0]);
        let order = |tried: &[usize]| share(&set, tried, then).iter().position(|hits| *hits > 0);
        // The backoff of the middle ones is over.
        assert_eq!(order(&[2]), Some(1));
        assert_eq!(order(&[1, 2]), Some(0));
        assert_eq!(order(&[0, 1, 2]), Some(3));
    }

    #[test]
    fn nothing_to_choose_from() {
        assert_eq!(share(&[], &[], 0), Vec::<u32>::new());
        assert_eq!(share(&standings(&[(1, 0)]), &[], 0), [1000]);
    }
}
