//! Balancing: power of two choices over peak-EWMA latency, nearest tier first. Pure but for its atomics.
//!
//! Time comes in as monotonic nanoseconds, chance as an `Rng`. A [`Load`] is shared by every thread and lives
//! as long as its endpoint keeps its pod, through any number of tables. Cost of an endpoint = estimated latency,
//! decayed to now, times (calls in flight + 1): a slow answer counts at once, a fast one slowly, and an endpoint
//! nobody has asked for a while looks cheaper again, so that it is tried.
//!
//! Invariants: no lock, no allocation; an ejected endpoint is used only when no other is left; reading never writes.
//! Sources: Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", IEEE TPDS 2001; the peak-EWMA of
//! Finagle and tower.

use std::{
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
    time::Duration,
};

use rand::Rng;

/// Latency halves its weight in about 7 s, so a bad second is forgotten in a minute.
const DECAY_NANOS: f32 = 10e9;

/// First guess for an endpoint in this process; a low guess lets a new local endpoint take part at once.
pub(crate) const SEED_SAME_NODE: Duration = Duration::from_millis(1);
/// First guess for an endpoint of another node.
pub(crate) const SEED_OTHER_NODE: Duration = Duration::from_millis(5);

/// What a failed try counts as, so that the fastest way to fail does not attract all calls.
pub(crate) const PENALTY: Duration = Duration::from_secs(5);

/// How long an endpoint that refused a connection is left alone.
pub(crate) const EJECTION: Duration = Duration::from_secs(5);

/// Calls in flight at the chosen endpoint of the near tier beyond which all tiers are considered.
pub(crate) const SPILL_PENDING: u32 = 180;

/// One tick of the timestamp packed into [`Load::estimate`], about a millisecond; 32 bits of them are 52 days.
const TICK_SHIFT: u32 = 20;

/// What this node knows about how busy an endpoint is.
#[derive(Debug)]
pub struct Load {
    pending: AtomicU32,
    /// High half: estimated latency in nanoseconds as `f32` bits. Low half: tick of the last sample.
    estimate: AtomicU64,
    /// Monotonic nanoseconds until which the endpoint is left alone.
    ejected_until: AtomicU64,
}

impl Load {
    pub(crate) fn new(seed: Duration) -> Self {
        Self {
            pending: AtomicU32::new(0),
            estimate: AtomicU64::new(pack(seed.as_nanos() as f32, 0)),
            ejected_until: AtomicU64::new(0),
        }
    }

    pub(crate) fn begin(&self) {
        self.pending.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn end(&self) {
        self.pending.fetch_sub(1, Ordering::Relaxed);
    }

    pub(crate) fn pending(&self) -> u32 {
        self.pending.load(Ordering::Relaxed)
    }

    /// Takes a sample: at once when it is worse than the estimate, decaying towards it when better.
    pub(crate) fn record(&self, latency: Duration, now: u64) {
        let sample = latency.as_nanos() as f32;
        let tick = tick(now);
        let step = |packed| {
            let (estimate, last) = unpack(packed);
            let weight = decay(last, tick);
            let next = if sample > estimate {
                sample
            } else {
                sample + (estimate - sample) * weight
            };
            Some(pack(next, tick))
        };
        // The closure always returns Some, so the update cannot fail.
        let _ = self
            .estimate
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, step);
    }

    pub(crate) fn eject(&self, now: u64) {
        self.ejected_until
            .store(now + EJECTION.as_nanos() as u64, Ordering::Relaxed);
    }

    /// An answer came: whatever the endpoint was ejected for is over.
    pub(crate) fn reinstate(&self) {
        if self.ejected_until.load(Ordering::Relaxed) != 0 {
            self.ejected_until.store(0, Ordering::Relaxed);
        }
    }

    pub(crate) fn is_ejected(&self, now: u64) -> bool {
        self.ejected_until.load(Ordering::Relaxed) > now
    }

    /// Nanoseconds times calls: what choosing this endpoint would cost.
    pub(crate) fn cost(&self, now: u64) -> f32 {
        let (estimate, last) = unpack(self.estimate.load(Ordering::Relaxed));
        estimate * decay(last, tick(now)) * (self.pending() as f32 + 1.0)
    }
}

fn tick(now: u64) -> u32 {
    (now >> TICK_SHIFT) as u32
}

fn decay(last: u32, now: u32) -> f32 {
    // A thread may come with a slightly older clock reading: that is no time passed, not 52 days.
    let ticks = now.wrapping_sub(last);
    if ticks == 0 || ticks > u32::MAX / 2 {
        return 1.0;
    }
    let nanos = ticks as f32 * (1u64 << TICK_SHIFT) as f32;
    (-nanos / DECAY_NANOS).exp()
}

fn pack(estimate: f32, tick: u32) -> u64 {
    (u64::from(estimate.to_bits()) << 32) | u64::from(tick)
}

fn unpack(packed: u64) -> (f32, u32) {
    (f32::from_bits((packed >> 32) as u32), packed as u32)
}

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
