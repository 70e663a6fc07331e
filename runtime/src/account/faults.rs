//! How fast a tenant is told that its guests fail.
//!
//! A guest that traps costs its host ten calls: a new instance, a stack that is made readable, lines of log, an event. Who calls it in a loop
//! has that for the asking, as a container has whose process crashes; Kubernetes starts such a container later and later. Here the calls
//! themselves are the starts: those that fail are answered at a rate, beyond a burst that no service has by mistake, and later, those that do
//! not fail as ever.
//!
//! Invariants: a failure is told [`DELAY_MAX`] late at most; what was not told late in its time costs nobody after it. The arithmetic (the
//! generic cell rate algorithm of ITU-T I.371) is a pure function of the time that is handed in.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Failures a second that are told at once, for all workloads of one account together.
pub(crate) const A_SECOND: u32 = 200;
/// And so many more at a time.
pub(crate) const BURST: u32 = 200;
/// A call that fails is not kept for longer. Its client may have others to ask.
pub(crate) const DELAY_MAX: Duration = Duration::from_millis(500);

/// When the next one is due.
#[derive(Debug, Default)]
pub(crate) struct Faults(Mutex<Option<Instant>>);

impl Faults {
    /// A guest has failed; how much later its caller is to be told. None: now.
    pub(crate) fn delay(&self, now: Instant) -> Option<Duration> {
        let mut due = self.0.lock();
        let (next, delay) = next(due.unwrap_or(now), now);
        *due = Some(next);
        Some(delay).filter(|delay| !delay.is_zero())
    }
}

fn next(due: Instant, now: Instant) -> (Instant, Duration) {
    let each = Duration::from_secs(1) / A_SECOND;
    let ahead = due.saturating_duration_since(now) + each;
    // Who is further ahead than anybody is made to wait for owes no more than that.
    let ahead = ahead.min(each * BURST + DELAY_MAX);
    (now + ahead, ahead.saturating_sub(each * BURST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_told_at_a_rate_beyond_a_burst() {
        let (faults, start) = (Faults::default(), Instant::now());
        let at = |millis| start + Duration::from_millis(millis);
        for _ in 0..BURST {
            assert_eq!(faults.delay(start), None);
        }
        let millis = |delay: Option<Duration>| delay.map(|delay| delay.as_millis());
        assert_eq!(millis(faults.delay(start)), Some(5));
        assert_eq!(millis(faults.delay(start)), Some(10));
        for _ in 0..10_000 {
            faults.delay(start);
        }
        assert_eq!(millis(faults.delay(start)), Some(500), "and no later");
        assert_eq!(millis(faults.delay(at(400))), Some(105), "nor is more owed");
        assert_eq!(faults.delay(at(10_000)), None);
    }
}
