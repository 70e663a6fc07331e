//! How many calls should be with a workload at once, by how long they take. Pure: a function of the samples.
//!
//! While calls take about as long as they did over the last hundreds, more are let in; when they take longer, because they wait for each
//! other, fewer. What is measured is the workload's own time, from the request to the head of its response.
//!
//! Invariants: never below `min` or above `max`; the limit does not grow while less than half of it is used, or a quiet hour would make
//! room for anything.
//! Source: Netflix' concurrency-limits, `Gradient2Limit` (smoothing 0.2, tolerance 1.5, a long average of 600 samples), but for what the long
//! average learns of busy times.

use std::time::Duration;

/// Samples that make one step: a single one says little.
const STEP_SAMPLES: u32 = 10;
/// Steps over which the long average is taken, so that it is one of 600 samples.
const LONG_STEPS: f64 = 60.0;
/// And of steps in which the limit was used and calls took longer: what is slow because there is much to do would become usual, and the limit
/// creep up with it. A workload that is slower for good is known for that after 60,000 calls.
const BUSY_STEPS: f64 = 6000.0;
/// Calls may take so much longer than usual before there are too many.
const TOLERANCE: f64 = 1.5;
/// Room that is tried beyond what is known to be good.
const SPARE: f64 = 4.0;
const SMOOTHING: f64 = 0.2;
/// A step takes away half at most.
const GRADIENT_MIN: f64 = 0.5;

#[derive(Debug)]
pub(crate) struct Gradient {
    min: f64,
    max: f64,
    limit: f64,
    /// Nanoseconds; none before the first step.
    long: Option<f64>,
    sum: f64,
    samples: u32,
}

impl Gradient {
    /// Begins with the least.
    pub(crate) fn new(min: u32, max: u32) -> Self {
        Self {
            min: f64::from(min),
            max: f64::from(max),
            limit: f64::from(min),
            long: None,
            sum: 0.0,
            samples: 0,
        }
    }

    pub(crate) fn limit(&self) -> u32 {
        self.limit as u32
    }

    /// An answer took so long, and `inside` calls were there.
    pub(crate) fn sample(&mut self, took: Duration, inside: u32) {
        self.sum += took.as_nanos().max(1) as f64;
        self.samples += 1;
        if self.samples < STEP_SAMPLES {
            return;
        }
        let short = self.sum / f64::from(self.samples);
        (self.sum, self.samples) = (0.0, 0);
        let is_used = f64::from(inside) >= self.limit / 2.0;
        let mut long = match self.long {
            Some(long) if is_used && short > long => long + (short - long) / BUSY_STEPS,
            Some(long) => long + (short - long) / LONG_STEPS,
            None => short,
        };
        if long > 2.0 * short {
            // What was slow is over.
            long *= 0.95;
        }
        self.long = Some(long);
        if !is_used {
            return;
        }
        let gradient = (TOLERANCE * long / short).clamp(GRADIENT_MIN, 1.0);
        let next = self.limit * gradient + SPARE;
        let next = self.limit * (1.0 - SMOOTHING) + next * SMOOTHING;
        self.limit = next.clamp(self.min, self.max);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The limit after `steps` samples of a workload that answers `room` calls at once in 10 ms, and lets the others wait, with as many
    /// calls as it lets in.
    fn settled(gradient: &mut Gradient, room: u32, samples: u32) -> u32 {
        for _ in 0..samples {
            let inside = gradient.limit();
            let share = f64::from(inside.max(room)) / f64::from(room);
            gradient.sample(Duration::from_millis(10).mul_f64(share), inside);
        }
        gradient.limit()
    }

    #[test]
    fn it_finds_what_a_workload_answers_and_follows_it() {
        let mut gradient = Gradient::new(20, 1000);
        assert_eq!(gradient.limit(), 20);
        let found = settled(&mut gradient, 100, 20_000);
        assert!((100..400).contains(&found), "{found}");
        // It has a tenth of the room now: calls take ten times as long at first.
        let fewer = settled(&mut gradient, 10, 200);
        assert!(fewer < found, "{fewer} of {found}");
    }

    #[test]
    fn it_stays_within_its_bounds_and_does_not_grow_unused() {
        let mut gradient = Gradient::new(5, 50);
        for _ in 0..10_000 {
            gradient.sample(Duration::from_millis(1), 1);
        }
        assert_eq!(gradient.limit(), 5, "nobody needs more");
        for _ in 0..10_000 {
            gradient.sample(Duration::from_millis(1), 50);
        }
        assert_eq!(gradient.limit(), 50);
        let mut millis = 1.0;
        for _ in 0..1000 {
            millis *= 1.2;
            gradient.sample(Duration::from_secs_f64(f64::min(millis, 1e9) / 1e3), 50);
        }
        assert!(gradient.limit() >= 5);
    }
}
