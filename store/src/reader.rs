//! Linearizable reads: one confirmation for all that wait.
//!
//! The leader confirms that it still leads (ReadIndex); any other server asks the leader up to where it has to apply,
//! and then answers from its own memory. Readers that come while a confirmation is under way share the next one, for
//! the one under way may have begun before a write that they must see.

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::error::ReadError;
use crate::message::{Answer, Denied, Request};
use crate::network::Lane;
use crate::planted::{Bug, planted};
use crate::proposer::{PATIENCE, RETRY_PAUSE};
use crate::raft::{Consensus, NoAnswer};

/// Reads waiting for one confirmation; they share it, so waiting is short.
const READS_WAITING_MAX: usize = 16_384;

type Waiting = oneshot::Sender<Result<(), ReadError>>;

/// The way into the queue of readers. Clones share it.
#[derive(Clone)]
pub(crate) struct Reads(mpsc::Sender<Waiting>);

impl Reads {
    /// Starts the task that confirms, until the store closes.
    pub(crate) fn start(consensus: Consensus, closing: CancellationToken) -> Reads {
        let (sender, receiver) = mpsc::channel(READS_WAITING_MAX);
        tokio::spawn(confirm_all(consensus, receiver, closing));
        Reads(sender)
    }

    /// Returns once everything that was acknowledged by any server before the call is applied here.
    pub(crate) async fn confirm(&self) -> Result<(), ReadError> {
        let (answer, confirmed) = oneshot::channel();
        self.0.try_send(answer).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => ReadError::Overloaded,
            mpsc::error::TrySendError::Closed(_) => ReadError::Closed,
        })?;
        confirmed.await.map_err(|_| ReadError::Closed)?
    }
}

async fn confirm_all(
    consensus: Consensus,
    mut waiting: mpsc::Receiver<Waiting>,
    closing: CancellationToken,
) {
    let mut readers = Vec::new();
    loop {
        let more = tokio::select! {
            biased;
            () = closing.cancelled() => 0,
            more = waiting.recv_many(&mut readers, READS_WAITING_MAX) => more,
        };
        if more == 0 {
            return;
        }
        let confirmed = tokio::select! {
            biased;
            () = closing.cancelled() => Err(ReadError::Closed),
            confirmed = confirm(&consensus) => confirmed,
        };
        for reader in readers.drain(..) {
            let _ = reader.send(confirmed.clone());
        }
    }
}

async fn confirm(consensus: &Consensus) -> Result<(), ReadError> {
    if planted(Bug::ReadWithoutQuorum) {
        return Ok(());
    }
    let deadline = Instant::now() + PATIENCE;
    loop {
        let error = match read_index(consensus).await {
            Ok(index) => {
                if planted(Bug::ReadBeforeApply) {
                    return Ok(());
                }
                let applied = consensus.hub().wait_applied(index);
                return match tokio::time::timeout_at(deadline, applied).await {
                    Ok(()) => Ok(()),
                    Err(_) => Err(ReadError::Behind),
                };
            }
            Err(Denied::NotLeader(leader)) => ReadError::NotLeader { leader },
            Err(_) => ReadError::NoQuorum,
        };
        if Instant::now() >= deadline {
            return Err(error);
        }
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}

async fn read_index(consensus: &Consensus) -> Result<u64, Denied> {
    let leader = match consensus.leader() {
        Some(leader) if leader != consensus.me() => leader,
        _ => return consensus.read_index().await,
    };
    let mut leads = consensus.leads();
    let asked = tokio::select! {
        biased;
        asked = consensus.ask_leader(leader, Lane::Control, &Request::ReadIndex) => asked,
        // A leader that is gone may never answer; the next one does.
        _ = leads.wait_for(|leads| leads.leader != Some(leader)) => {
            return Err(Denied::NotLeader(None));
        }
    };
    match asked {
        Ok(Answer::ReadIndex(index)) => index,
        // A read has no effect, so it is asked again however it was lost.
        Ok(_) | Err(NoAnswer::Lost(_) | NoAnswer::NotTaken(_)) => Err(Denied::NotLeader(None)),
    }
}
