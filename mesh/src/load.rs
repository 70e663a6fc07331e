//! How busy an endpoint is, as peak-EWMA latency and calls in flight. Pure but for its atomics.
//!
//! Time comes in as monotonic nanoseconds. A [`Load`] is shared by every thread and lives as long as its endpoint keeps its pod, through
//! any number of tables. Cost of an endpoint = estimated latency, decayed to now, times (calls in flight + 1): a slow answer counts at
//! once, a fast one slowly, and an endpoint nobody has asked for a while looks cheaper again, so that it is tried. Whether it can be
//! called at all is its health's to say (`health.rs`).
//!
//! Invariants: no lock; every sample is a time that a call took; what was not answered makes no endpoint look faster; no sample is lost
//! to another that comes at the same time; reading never writes.
//! Source: the peak-EWMA of Finagle and tower.

use std::time::Duration;

use crate::sync::{AtomicU32, AtomicU64, Ordering};

/// Latency halves its weight in about 7 s, so a bad second is forgotten in a minute.
const DECAY_NANOS: f32 = 10e9;

/// One tick of the timestamp packed into [`Load::estimate`], about a millisecond; 32 bits of them are 52 days.
const TICK_SHIFT: u32 = 20;

/// What this node knows about how busy an endpoint is.
#[derive(Debug)]
pub struct Load {
    pending: AtomicU32,
    /// High half: estimated latency in nanoseconds as `f32` bits. Low half: tick of the last sample.
    estimate: AtomicU64,
}

impl Load {
    pub(crate) fn new(seed: Duration) -> Self {
        Self {
            pending: AtomicU32::new(0),
            estimate: AtomicU64::new(pack(seed.as_nanos() as f32, 0)),
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

    /// Takes the time that an answer took: at once when it is worse than the estimate, decaying towards it when better.
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

    /// A call took this long and was not answered, so that an answer would have taken longer.
    pub(crate) fn at_least(&self, latency: Duration, now: u64) {
        let sample = latency.as_nanos() as f32;
        let tick = tick(now);
        let step = |packed| {
            let (estimate, last) = unpack(packed);
            (sample > estimate * decay(last, tick)).then(|| pack(sample, tick))
        };
        // Refused where it says nothing new.
        let _ = self
            .estimate
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, step);
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
