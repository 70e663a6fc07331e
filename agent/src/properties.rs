//! How properties of this crate are tried. Cases are the same in every run; `WEFT_SEED=17` tries others, and a failure prints the
//! seed and the smallest input.

use proptest::test_runner::{Config, RngSeed};

/// Enough to meet each branch of a reader some hundred times, in a second.
const CASES: u32 = 2000;

pub(crate) fn config() -> Config {
    let seed = std::env::var("WEFT_SEED").ok();
    let seed = seed.and_then(|seed| seed.parse().ok()).unwrap_or(1);
    println!("WEFT_SEED={seed}");
    Config {
        cases: CASES,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(seed),
        ..Config::default()
    }
}
