//! Balancing: power of two choices over peak-EWMA latency, nearest tier first. Pure but for the loads' atomics.
//!
//! Time comes in as monotonic nanoseconds, chance as an `Rng`. What an endpoint costs is its [`Load`]'s to say.
//!
//! Invariants: no lock, no allocation; an ejected endpoint is used only when no other is left; reading never writes.
//! Source: Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", IEEE TPDS 2001.

use std::time::Duration;

use rand::Rng;

use crate::load::Load;

/// First guess for an endpoint in this process; a low guess lets a new local endpoint take part at once.
pub(crate) const SEED_SAME_NODE: Duration = Duration::from_millis(1);
/// First guess for an endpoint of another node.
pub(crate) const SEED_OTHER_NODE: Duration = Duration::from_millis(5);

/// What a failed try counts as, so that the fastest way to fail does not attract all calls.
pub(crate) const PENALTY: Duration = Duration::from_secs(5);

/// Calls in flight at the chosen endpoint of the near tier beyond which all tiers are considered.
pub(crate) const SPILL_PENDING: u32 = 180;

/// Chooses among one tier. `load(i)` and `tried(i)` describe endpoint `i` of `count`.
///
/// Two distinct draws; the cheaper usable one wins. When neither is usable (ejected, or tried before by this
/// call) the whole tier is searched: usable first, then ejected but untried. `None` when all were tried.
pub(crate) fn choose<'a>(
    count: usize,
    load: impl Fn(usize) -> &'a Load,
    tried: impl Fn(usize) -> bool,
    now: u64,
    rng: &mut impl Rng,
) -> Option<usize> {
    let usable = |index: usize| !tried(index) && !load(index).is_ejected(now);
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
            let (a, b) = (load(first).cost(now), load(second).cost(now));
            // Equal costs must not always fall on the lower index.
            let take_first = if a == b { rng.random() } else { a < b };
            Some(if take_first { first } else { second })
        }
        (true, false) => Some(first),
        (false, true) => Some(second),
        (false, false) => {
            let cheapest = |accept: &dyn Fn(usize) -> bool| {
                (0..count)
                    .filter(|&index| accept(index))
                    .min_by(|&a, &b| load(a).cost(now).total_cmp(&load(b).cost(now)))
            };
            cheapest(&usable).or_else(|| cheapest(&|index| !tried(index)))
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng, rngs::SmallRng};

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn loads(costs: &[(u64, u32)]) -> Vec<Load> {
        costs
            .iter()
            .map(|&(millis, pending)| {
                let load = Load::new(Duration::from_millis(millis));
                (0..pending).for_each(|_| load.begin());
                load
            })
            .collect()
    }

    fn share(loads: &[Load], tried: &[usize], now: u64) -> Vec<u32> {
        let mut rng = SmallRng::seed_from_u64(7);
        let mut hits = vec![0; loads.len()];
        for _ in 0..1000 {
            if let Some(index) = choose(
                loads.len(),
                |i| &loads[i],
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
            let hits = share(&loads(&costs), &[], 0);
            assert_eq!(hits[winner], 1000, "{costs:?}");
        }
    }

    #[test]
    fn equals_share_evenly_and_the_worst_of_many_is_avoided() {
        let even = share(&loads(&[(1, 0), (1, 0), (1, 0), (1, 0)]), &[], 0);
        assert!(
            even.iter().all(|hits| (200..300).contains(hits)),
            "{even:?}"
        );
        let hits = share(&loads(&[(1, 0), (1, 0), (100, 0)]), &[], 0);
        assert_eq!(hits[2], 0);
    }

    #[test]
    fn tried_and_ejected_endpoints_come_last() {
        let set = loads(&[(1, 0), (1, 0), (50, 0)]);
        assert_eq!(share(&set, &[0, 1], 0), [0, 0, 1000]);
        set[0].eject(0);
        set[1].eject(0);
        assert_eq!(share(&set, &[], SECOND), [0, 0, 1000]);
        // All others were tried: an ejected endpoint is better than none.
        let hits = share(&set, &[2], SECOND);
        assert_eq!(hits[0] + hits[1], 1000);
        // Time heals, and so does an answer.
        assert!(!set[0].is_ejected(6 * SECOND));
        set[1].reinstate();
        assert!(!set[1].is_ejected(SECOND));
        assert_eq!(share(&set, &[0, 1, 2], 0), [0, 0, 0]);
    }

    #[test]
    fn nothing_to_choose_from() {
        assert_eq!(share(&[], &[], 0), Vec::<u32>::new());
        assert_eq!(share(&loads(&[(1, 0)]), &[], 0), [1000]);
    }
}
