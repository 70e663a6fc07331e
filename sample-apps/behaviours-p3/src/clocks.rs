//! `wasi:clocks` and `wasi:random`.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

use wasip3::clocks::{monotonic_clock, system_clock};
use wasip3::random::{insecure, insecure_seed, random};

const MILLISECOND: u64 = 1_000_000;

pub async fn clock(row: &str) -> Option<String> {
    Some(match row {
        "monotonic" => {
            let reads: Vec<u64> = (0..10_000).map(|_| monotonic_clock::now()).collect();
            format!(
                "goes back: {}, ticks: {}",
                !reads.is_sorted(),
                monotonic_clock::get_resolution() > 0
            )
        }
        "system" => {
            let now = system_clock::now();
            let sane = now.nanoseconds < 1_000_000_000 && system_clock::get_resolution() > 0;
            format!("after 2020: {}, sane: {sane}", now.seconds > 1_600_000_000)
        }
        "wait-for" => {
            let started = monotonic_clock::now();
            monotonic_clock::wait_for(20 * MILLISECOND).await;
            let waited = monotonic_clock::now() - started;
            format!("long enough: {}", waited >= 20 * MILLISECOND)
        }
        "wait-until" => {
            let when = monotonic_clock::now() + 20 * MILLISECOND;
            monotonic_clock::wait_until(when).await;
            format!("long enough: {}", monotonic_clock::now() >= when)
        }
        "wait-for-nothing" => {
            monotonic_clock::wait_for(0).await;
            monotonic_clock::wait_until(0).await;
            "done".to_owned()
        }
        "wait-for-ever" => {
            let mut never = pin!(monotonic_clock::wait_until(u64::MAX));
            let mut long = pin!(monotonic_clock::wait_for(u64::MAX));
            let mut soon = pin!(monotonic_clock::wait_for(MILLISECOND));
            poll_fn(|cx| {
                let over = (
                    never.as_mut().poll(cx).is_ready(),
                    long.as_mut().poll(cx).is_ready(),
                );
                soon.as_mut().poll(cx).map(|()| format!("over: {over:?}"))
            })
            .await
        }
        "wait-in-any-order" => {
            let mut order = Vec::new();
            let mut late = pin!(monotonic_clock::wait_for(40 * MILLISECOND));
            let mut early = pin!(monotonic_clock::wait_for(MILLISECOND));
            poll_fn(|cx| {
                if !order.contains(&"early") && early.as_mut().poll(cx).is_ready() {
                    order.push("early");
                }
                if late.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
                order.push("late");
                Poll::Ready(())
            })
            .await;
            order.join(", ")
        }
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
        "seed" => format!("nothing: {}", insecure_seed::get_insecure_seed() == (0, 0)),
        "too-much" => {
            let (some, more) = (
                random::get_random_bytes(u64::MAX).len(),
                insecure::get_insecure_random_bytes(u64::MAX).len(),
            );
            format!("{some} {more}")
        }
        _ => return None,
    })
}
