//! When this node stops what may run in one place only: it has not been able to renew its lease for [`AFTER`].
//!
//! A pod that is annotated `weft.dev/fenced` is stopped then, within [`GRACE`], whoever else is cut off as well; all others go on. The lease says
//! so ([`WITHIN_SECONDS`]), and whoever replaces such a pod waits for that. Once the lease is renewed, what is still bound here runs again.
//!
//! Invariant: the time counts from when the last renewal that succeeded was *asked for*, which is before anybody else saw it. A process that was
//! stopped and goes on finds that its time is over before it does anything else here; what its guests do until then, it cannot undo.

use crate::config_error::ConfigError;
use crate::pod_view::PodView;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use weft_api::annotation;

/// How long after the last renewal such pods are stopped.
pub(crate) const AFTER: Duration = Duration::from_secs(6);
/// How long they may take to end.
pub(crate) const GRACE: Duration = Duration::from_millis(1500);
/// What the lease says: by then nothing of them runs. Half a second for a machine under load.
pub(crate) const WITHIN_SECONDS: u64 = 8;

/// Whether a pod asks for it.
///
/// # Errors
/// It says something else than yes or no.
pub(crate) fn asked(pod: PodView<'_>) -> Result<bool, ConfigError> {
    match pod.annotation(annotation::FENCED) {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(other) => Err(ConfigError::Annotation {
            name: annotation::FENCED,
            value: other.into(),
            why: "is neither \"true\" nor \"false\"",
        }),
    }
}

/// The same; a pod that says neither does not run.
pub(crate) fn is_asked_for(pod: PodView<'_>) -> bool {
    asked(pod).unwrap_or(false)
}

/// Where renewals are told.
pub(crate) struct Renewals(watch::Sender<Instant>);

impl Renewals {
    /// The lease was renewed; the renewal was asked for then.
    pub(crate) fn succeeded(&self, asked_at: Instant) {
        self.0.send_replace(asked_at);
    }
}

/// What happens to fenced pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// They have to stop.
    Closes,
    /// They may run.
    Opens,
}

/// Tells when they have to stop, and when they may run again.
pub(crate) struct Fence {
    renewed: watch::Receiver<Instant>,
    is_closed: bool,
}

impl Fence {
    /// Open, as if the lease had been renewed now.
    pub(crate) fn new() -> (Renewals, Self) {
        let (sender, renewed) = watch::channel(Instant::now());
        let is_closed = false;
        (Renewals(sender), Self { renewed, is_closed })
    }

    /// Waits for the next change. May be dropped at any await.
    pub(crate) async fn changed(&mut self) -> Change {
        loop {
            let due = *self.renewed.borrow_and_update() + AFTER;
            let is_due = due <= Instant::now();
            if is_due != self.is_closed {
                self.is_closed = is_due;
                return if is_due {
                    Change::Closes
                } else {
                    Change::Opens
                };
            }
            let news = async {
                // Nobody renews any more: the node ends, and its pods are stopped as all of them are.
                if self.renewed.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                biased;
                () = news => {}
                () = tokio::time::sleep_until(due), if !is_due => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_closes_when_renewals_fail_and_opens_with_the_next() {
        let start = Instant::now();
        let (renewals, mut fence) = Fence::new();
        let quiet = async |fence: &mut Fence, seconds| {
            let wait = Duration::from_secs(seconds);
            tokio::time::timeout(wait, fence.changed()).await.is_err()
        };
        for _ in 0..20 {
            assert!(quiet(&mut fence, 1).await);
            renewals.succeeded(Instant::now());
        }
        // One that is asked for, and answered four seconds later, counts from before.
        let asked = Instant::now();
        assert!(quiet(&mut fence, 4).await);
        renewals.succeeded(asked);
        assert_eq!(fence.changed().await, Change::Closes);
        assert_eq!(start.elapsed().as_secs(), 20 + AFTER.as_secs());
        assert!(quiet(&mut fence, 3600).await, "it is told once");
        // That it was renewed long ago does not help.
        renewals.succeeded(asked);
        assert!(quiet(&mut fence, 1).await);
        renewals.succeeded(Instant::now());
        assert_eq!(fence.changed().await, Change::Opens);
        assert_eq!(fence.changed().await, Change::Closes);
        drop(renewals);
        assert!(quiet(&mut fence, 3600).await);
    }

    #[test]
    fn what_the_lease_says_is_kept() {
        assert!(AFTER + GRACE < Duration::from_secs(WITHIN_SECONDS));
    }
}
