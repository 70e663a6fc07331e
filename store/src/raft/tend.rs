//! The tasks beside consensus: publishing who leads, and purging the log behind checkpoints.

use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::Fatal;
use openraft::{ReadPolicy, ServerState};
use tokio::sync::watch;

use crate::checkpoint::Checkpointer;
use crate::key::{ServerId, Term};
use crate::log::Log;
use crate::planted::{Bug, planted};
use crate::raft::vocabulary::{Raft, log_id};
use crate::raft::{HEARTBEAT_MS, SNAPSHOT_INSTALL_MS};

/// Log kept behind a checkpoint so that a peer that was away for a moment needs no snapshot; entries are bounded by
/// `Config::log_entries_kept`, too.
const KEEP_BYTES: usize = 32 << 20;

/// The log may exceed what is kept by this much before a purge is worth its transaction.
const PURGE_SLACK_BYTES: usize = 8 << 20;
const PURGE_SLACK_PART: usize = 10;

/// What a server knows about leadership. It changes together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Leads {
    /// The leader this server follows, itself included.
    pub leader: Option<ServerId>,
    /// `Some` while this server leads and has applied everything before its term.
    pub term: Option<Term>,
}

/// Publishes who leads, and the reason when consensus fails.
pub(super) async fn follow_leadership(
    raft: Raft,
    leading: watch::Sender<Leads>,
    failing: watch::Sender<Option<String>>,
) {
    let mut metrics = raft.server_metrics();
    loop {
        let (leads, leader, term) = {
            let metrics = metrics.borrow_and_update();
            (
                metrics.state == ServerState::Leader,
                metrics.current_leader,
                metrics.vote.leader_id.term,
            )
        };
        let publish = |now: Leads| {
            leading.send_if_modified(|published| {
                let changed = *published != now;
                *published = now;
                changed
            });
        };
        if !leads {
            publish(Leads { leader, term: None });
            if metrics.changed().await.is_err() {
                break;
            }
            continue;
        }
        // A leader's first entry commits, and with it everything earlier, before this returns.
        let ready = raft
            .ensure_linearizable(ReadPolicy::ReadIndex)
            .await
            .is_ok();
        publish(Leads {
            leader,
            term: ready.then_some(term),
        });
        let pause = Duration::from_millis(HEARTBEAT_MS);
        let changed = if ready {
            metrics.changed().await
        } else {
            match tokio::time::timeout(pause, metrics.changed()).await {
                Ok(changed) => changed,
                Err(_) => Ok(()),
            }
        };
        if changed.is_err() {
            break;
        }
    }
    leading.send_replace(Leads::default());
    let ended = raft.metrics().borrow_watched().running_state.clone();
    match ended {
        Ok(()) | Err(Fatal::Stopped) => {}
        Err(error) => {
            failing.send_replace(Some(error.to_string()));
        }
    }
}

/// Purges the log behind checkpoints, within what is kept for peers, and lets go of what memory holds of it behind them.
pub(super) async fn tend_log(raft: Raft, log: Log, checkpointer: Checkpointer, keep: usize) {
    let mut progress = checkpointer.progress();
    let slack = keep / PURGE_SLACK_PART;
    while progress.changed().await.is_ok() {
        let covered = progress.borrow_and_update().applied;
        if let Some(covered) = covered {
            log.covered(covered);
        }
        let (bytes, oldest) = log.keep_from(keep, KEEP_BYTES);
        let Some(oldest) = oldest else { continue };
        if log.len() < keep + slack && bytes < KEEP_BYTES + PURGE_SLACK_BYTES {
            continue;
        }
        // openraft purges only what its last snapshot covers, so it has to hear of a newer checkpoint first.
        let covered = checkpointer.durable().applied.map(log_id);
        if raft.trigger().snapshot().await.is_err() {
            return;
        }
        let noticed = raft
            .wait(Some(Duration::from_millis(SNAPSHOT_INSTALL_MS)))
            .metrics(|metrics| metrics.snapshot >= covered, "checkpoint noticed")
            .await;
        if noticed.is_err() {
            tracing::warn!("consensus did not notice a checkpoint; the log grows");
            continue;
        }
        let mut upto = oldest.saturating_sub(1);
        if planted(Bug::PurgeBeforeCheckpoint) {
            upto = log.extent().last.map_or(upto, |last| last.index);
        }
        if raft.trigger().purge_log(upto).await.is_err() {
            return;
        }
    }
}
