//! What choosing by health and cost comes to: calls arrive by chance, take what their endpoint takes, and fail as it does.
//!
//! The clock is a number. Worlds are the same in every run; `WEFT_SEED=17` tries another one, and a failure prints the seed.

use std::{collections::BTreeMap, time::Duration};

use rand::{Rng, SeedableRng, rngs::SmallRng};

use super::{SEED_SAME_NODE, Standing, choose};
use crate::health::Fault;

const SECOND: u64 = 1_000_000_000;
const WORLDS: u64 = 4;
/// Calls a second.
const RATES: [u32; 3] = [10, 100, 1000];

/// How long an endpoint takes for a call, and what is wrong with it then; it has that many in flight.
type Behaviour = fn(&mut SmallRng, u32) -> (Duration, Option<Fault>);

fn well(_: &mut SmallRng, _: u32) -> (Duration, Option<Fault>) {
    (Duration::from_millis(10), None)
}

fn is_slow(_: &mut SmallRng, _: u32) -> (Duration, Option<Fault>) {
    (Duration::from_millis(200), None)
}

fn fails_fast(_: &mut SmallRng, _: u32) -> (Duration, Option<Fault>) {
    (Duration::from_micros(100), Some(Fault::Failed))
}

fn fails_slowly(_: &mut SmallRng, _: u32) -> (Duration, Option<Fault>) {
    (Duration::from_millis(50), Some(Fault::Failed))
}

/// Until it is given up.
fn hangs(_: &mut SmallRng, _: u32) -> (Duration, Option<Fault>) {
    (Duration::from_secs(1), Some(Fault::Unreachable))
}

fn refuses_fast(_: &mut SmallRng, _: u32) -> (Duration, Option<Fault>) {
    let retry_after = Some(Duration::from_secs(1));
    (
        Duration::from_micros(100),
        Some(Fault::Overloaded { retry_after }),
    )
}

fn fails_now_and_then(rng: &mut SmallRng, pending: u32) -> (Duration, Option<Fault>) {
    match rng.random_range(0..100) {
        0 => fails_fast(rng, pending),
        _ => well(rng, pending),
    }
}

fn fails_every_other_time(rng: &mut SmallRng, pending: u32) -> (Duration, Option<Fault>) {
    match rng.random_range(0..2) {
        0 => fails_fast(rng, pending),
        _ => well(rng, pending),
    }
}

/// Five at once: five hundred a second.
fn has_little_room(rng: &mut SmallRng, pending: u32) -> (Duration, Option<Fault>) {
    match pending {
        0..5 => well(rng, pending),
        _ => refuses_fast(rng, pending),
    }
}

/// What became of the calls to one endpoint.
#[derive(Debug, Clone, Copy, Default)]
struct Count {
    answered: u32,
    failed: u32,
}

impl Count {
    fn calls(self) -> u32 {
        self.answered + self.failed
    }
}

struct InFlight {
    index: usize,
    began: u64,
    fault: Option<Fault>,
}

struct World {
    rng: SmallRng,
    endpoints: Vec<Standing>,
    now: u64,
    begun: u64,
    /// By when each ends, then by number.
    in_flight: BTreeMap<(u64, u64), InFlight>,
}

impl World {
    fn new(seed: u64, endpoints: usize) -> Self {
        let standing = |_| Standing::new(SEED_SAME_NODE);
        Self {
            rng: SmallRng::seed_from_u64(seed),
            endpoints: (0..endpoints).map(standing).collect(),
            now: 0,
            begun: 0,
            in_flight: BTreeMap::new(),
        }
    }

    fn run(&mut self, behaviours: &[Behaviour], rate: u32, seconds: u64) -> Vec<Count> {
        let mut counts = vec![Count::default(); behaviours.len()];
        let until = self.now + seconds * SECOND;
        loop {
            let pause = -(1.0 - self.rng.random::<f64>()).ln() / f64::from(rate);
            let now = self.now + (pause * SECOND as f64) as u64;
            if now > until {
                break;
            }
            self.advance(now);
            let index = choose(
                self.endpoints.len(),
                |index| &self.endpoints[index],
                |_| false,
                now,
                &mut self.rng,
            );
            let index = index.expect("somebody is chosen, however they are");
            let Standing { load, health, .. } = &self.endpoints[index];
            let (takes, fault) = behaviours[index](&mut self.rng, load.pending());
            load.begin();
            health.begin(now);
            match fault {
                Some(_) => counts[index].failed += 1,
                None => counts[index].answered += 1,
            }
            self.begun += 1;
            let ends = now + takes.as_nanos() as u64;
            let call = InFlight {
                index,
                began: now,
                fault,
            };
            self.in_flight.insert((ends, self.begun), call);
        }
        self.advance(until);
        counts
    }

    /// Tells endpoints what came of the calls that have ended by then.
    fn advance(&mut self, to: u64) {
        self.now = to;
        while let Some(first) = self.in_flight.first_entry()
            && first.key().0 <= to
        {
            let (ended, call) = (first.key().0, first.remove());
            let Standing { load, health, .. } = &self.endpoints[call.index];
            load.end();
            match call.fault {
                Some(fault) => health.failed(fault, call.began, ended),
                None => {
                    load.record(Duration::from_nanos(ended - call.began), ended);
                    health.answered(call.began, ended);
                }
            }
        }
    }
}

/// Does something in several worlds, or in the one that is asked for.
fn each_seed(check: impl Fn(u64)) {
    let asked = std::env::var("WEFT_SEED").ok();
    let seeds = match asked.and_then(|seed| seed.parse().ok()) {
        Some(seed) => seed..seed + 1,
        None => 0..WORLDS,
    };
    for seed in seeds {
        println!("WEFT_SEED={seed}");
        check(seed);
    }
}

#[test]
fn the_fastest_way_to_fail_attracts_few_calls_and_heals_within_the_backoff() {
    // A minute has room for thirteen backoffs. At each end of one those calls fail that are made until it is known.
    let cases: [(&str, Behaviour, u32); 4] = [
        ("fast", fails_fast, 40),
        ("slowly", fails_slowly, 400),
        ("hangs", hangs, 400),
        // A backoff of a second at most.
        ("refused", refuses_fast, 120),
    ];
    for (name, broken, failed_max) in cases {
        for rate in RATES {
            each_seed(|seed| {
                let mut world = World::new(seed, 2);
                let counts = world.run(&[well, broken], rate, 60);
                let failed = counts[1].failed;
                println!("{name}, {rate}/s: {failed} of {}", rate * 60);
                assert!(failed > 0, "{name}, {rate}/s");
                assert!(failed <= failed_max, "{name}, {rate}/s: {failed}");
                // The longest backoff, and one call that finds it over.
                let counts = world.run(&[well, well], rate, 11);
                assert!(counts[1].answered > 0, "{name}, {rate}/s: not asked again");
                let counts = world.run(&[well, well], rate, 60);
                let [one, other] = [counts[0].calls(), counts[1].calls()];
                println!("healed: {one} {other}");
                assert!(
                    one.max(other) < 2 * one.min(other),
                    "{name}, {rate}/s: {counts:?}"
                );
            });
        }
    }
}

/// Ninety-nine of a hundred calls take what they take where all endpoints are well.
#[test]
fn one_of_ten_that_is_slow_gets_less_than_a_hundredth_of_the_calls() {
    for rate in RATES {
        each_seed(|seed| {
            let mut world = World::new(seed, 10);
            let mut behaviours: [Behaviour; 10] = [well; 10];
            behaviours[3] = is_slow;
            let counts = world.run(&behaviours, rate, 60);
            let all: u32 = counts.iter().map(|count| count.calls()).sum();
            let slow = counts[3].calls();
            println!("{rate}/s: {slow} of {all}");
            assert!(slow * 100 < all, "{rate}/s: {slow} of {all}");
        });
    }
}

#[test]
fn who_fails_now_and_then_is_not_missed() {
    for rate in RATES {
        each_seed(|seed| {
            let mut world = World::new(seed, 2);
            let counts = world.run(&[well, fails_now_and_then], rate, 60);
            let [whole, flaky] = [counts[0].calls(), counts[1].calls()];
            println!("{rate}/s: {whole} {flaky}");
            assert!(flaky * 3 > whole, "{rate}/s: {counts:?}");
        });
    }
}

#[test]
fn where_nobody_is_well_the_best_is_used() {
    for rate in RATES {
        each_seed(|seed| {
            let mut world = World::new(seed, 3);
            let behaviours: [Behaviour; 3] = [fails_fast, fails_every_other_time, fails_fast];
            let counts = world.run(&behaviours, rate, 60);
            println!("{rate}/s: {counts:?}");
            let worse = counts[0].calls() + counts[2].calls();
            assert!(counts[1].calls() > 2 * worse, "{rate}/s: {counts:?}");
        });
    }
}

#[test]
fn who_has_little_room_is_used_as_far_as_it_goes() {
    each_seed(|seed| {
        let mut world = World::new(seed, 2);
        let counts = world.run(&[well, has_little_room], 1500, 60);
        println!("one: {counts:?}");
        // Now and then more calls come than it has room for, and a backoff is over as often.
        assert!(counts[1].failed * 100 < 1500 * 60, "{counts:?}");
        assert!(counts[1].answered > 60, "{counts:?}");
        // All of them are full: what they can do is done all the same.
        let mut world = World::new(seed, 4);
        let full: [Behaviour; 4] = [has_little_room; 4];
        let counts = world.run(&full, 2200, 60);
        println!("all: {counts:?}");
        let answered: u32 = counts.iter().map(|count| count.answered).sum();
        assert!(answered > 1650 * 60, "{counts:?}");
    });
}
