//! Time as the applets see it: waiting without keeping others from running.

use std::time::{Duration, Instant};

use crate::executor;

/// The longest sleep that is told from for ever: what a deadline can be without running over.
const LONGEST: Duration = Duration::from_secs(60 * 60 * 24 * 365 * 30);

/// Waits for at least that long; other tasks run meanwhile. Dropping the future ends the wait.
pub async fn sleep(time: Duration) {
    executor::sleep_until(Instant::now() + time.min(LONGEST)).await;
}
