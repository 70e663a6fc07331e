//! `wasi:clocks` and `wasi:random`.

use wasip2::clocks::{monotonic_clock, wall_clock};
use wasip2::io::poll::poll;
use wasip2::random::{insecure, insecure_seed, random};

const MILLISECOND: u64 = 1_000_000;

pub fn clock(row: &str) -> Option<String> {
    Some(match row {
        "monotonic" => {
            let reads: Vec<u64> = (0..10_000).map(|_| monotonic_clock::now()).collect();
            format!(
                "goes back: {}, ticks: {}",
                !reads.is_sorted(),
                monotonic_clock::resolution() > 0
            )
        }
        "wall" => {
            let (now, tick) = (wall_clock::now(), wall_clock::resolution());
            let sane = now.nanoseconds < 1_000_000_000 && tick.nanoseconds < 1_000_000_000;
            format!("after 2020: {}, sane: {sane}", now.seconds > 1_600_000_000)
        }
        "subscribe-duration" => {
            let started = monotonic_clock::now();
            let timer = monotonic_clock::subscribe_duration(20 * MILLISECOND);
            let early = timer.ready();
            timer.block();
            let waited = monotonic_clock::now() - started;
            let (ready, enough) = (timer.ready(), waited >= 20 * MILLISECOND);
            format!("early: {early}, ready: {ready}, long enough: {enough}")
        }
        "subscribe-instant" => {
            let when = monotonic_clock::now() + 20 * MILLISECOND;
            let timer = monotonic_clock::subscribe_instant(when);
            timer.block();
            format!("long enough: {}", monotonic_clock::now() >= when)
        }
        "subscribe-now" => {
            let past = monotonic_clock::subscribe_instant(0);
            let none = monotonic_clock::subscribe_duration(0);
            past.block();
            none.block();
            format!("{} {}", past.ready(), none.ready())
        }
        "subscribe-never" => {
            let never = monotonic_clock::subscribe_instant(u64::MAX);
            let long = monotonic_clock::subscribe_duration(u64::MAX);
            let soon = monotonic_clock::subscribe_duration(MILLISECOND);
            format!("{:?}", poll(&[&never, &long, &soon]))
        }
        "poll-both" => {
            let one = monotonic_clock::subscribe_duration(0);
            let two = monotonic_clock::subscribe_duration(0);
            one.block();
            two.block();
            format!("{:?}", poll(&[&one, &two, &one]))
        }
        "poll-nothing" => format!("{:?}", poll(&[])),
        _ => return None,
    })
}

pub fn random(row: &str) -> Option<String> {
    Some(match row {
        "lengths" => {
            let lengths = [0, 1, 17, 65_536].map(|length| random::get_random_bytes(length).len());
            let insecure =
                [0, 1, 17, 65_536].map(|length| insecure::get_insecure_random_bytes(length).len());
            format!("{lengths:?} {insecure:?}")
        }
        "fresh" => format!(
            "repeats: {} {} {}",
            random::get_random_bytes(16) == random::get_random_bytes(16),
            random::get_random_u64() == random::get_random_u64(),
            insecure::get_insecure_random_u64() == insecure::get_insecure_random_u64()
        ),
        "seed" => format!("nothing: {}", insecure_seed::insecure_seed() == (0, 0)),
        "too-much" => format!("{}", random::get_random_bytes(u64::MAX).len()),
        _ => return None,
    })
}
