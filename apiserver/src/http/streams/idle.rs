//! How long a connection that became streams may be without a word: the kubelet's four hours.
//!
//! A client that waits for something is not gone, and one that is gone without a word is the kernel's to notice (`crate::server`) or a ping's; this is the
//! bound for whatever neither of them ends.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// `streamingConnectionIdleTimeout` of a kubelet that is told nothing else.
pub(super) const IDLE_MAX: Duration = Duration::from_secs(4 * 60 * 60);

/// When something was last heard or told.
pub(super) struct Idle(Mutex<Instant>);

impl Idle {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Instant::now()))
    }

    /// Something is heard or told now.
    pub(super) fn touch(&self) {
        *self.0.lock() = Instant::now();
    }

    /// Comes once nothing was for too long.
    pub(super) async fn over(&self) {
        loop {
            let end = *self.0.lock() + IDLE_MAX;
            if Instant::now() >= end {
                return;
            }
            tokio::time::sleep_until(end).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_is_over_four_hours_after_the_last_word() {
        let (idle, began) = (Idle::new(), Instant::now());
        let talk = async {
            tokio::time::sleep(IDLE_MAX / 2).await;
            idle.touch();
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = talk => {}
            () = idle.over() => {}
        }
        assert_eq!(began.elapsed().as_secs(), IDLE_MAX.as_secs() * 3 / 2);
    }
}
