//! The queue of writes, and what becomes of them: log entries here, or a request to the leader.
//!
//! What gathers while entries are in flight becomes the next entry. A server that does not lead passes its batch on and
//! answers once it has applied the leader's entry itself, so that whoever was answered also reads what it wrote here.
//! While nobody leads a batch waits, as long as nothing was proposed; once it may have been, it is never sent again.
//!
//! Invariants: the queue is bounded in writes and in bytes, and no write waits longer than [`PATIENCE`] for its turn; a
//! fenced write is never passed on.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::command::{Batch, Command, Outcome};
use crate::error::WriteError;
use crate::key::{Revision, ServerId};
use crate::message::{Answer, Denied, Request};
use crate::network::Lane;
use crate::planted::{Bug, planted};
use crate::raft::{Consensus, NoAnswer};

/// Writes waiting to be proposed; at a few thousand a second this is a second of delay, and more would only time out.
const WRITES_WAITING_MAX: usize = 8192;

/// And their bytes: a full queue of large objects must not take the memory of the machine.
const BYTES_WAITING_MAX: usize = 64 << 20;

/// Commands in one log entry, and their bytes: large enough to amortise an fsync over every waiting client, small
/// enough for one append request to a peer.
const BATCH_COMMANDS_MAX: usize = 1024;
const BATCH_BYTES_MAX: usize = 2 << 20;

/// Log entries proposed and not yet answered: one in its fsync and one gathering behind it.
const BATCHES_IN_FLIGHT_MAX: usize = 2;

/// How long a write may wait for a leader: an election takes two seconds, and one more may follow.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// How long to wait before the leader is asked again.
pub(crate) const RETRY_PAUSE: Duration = Duration::from_millis(25);

/// How long a shutdown waits for proposed writes: without a majority they are never answered.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

struct Waiting {
    command: Command,
    bytes: usize,
    since: Instant,
    answer: Answering,
}

type Answering = oneshot::Sender<Result<Revision, WriteError>>;

/// The way into the queue. Clones share it.
#[derive(Clone)]
pub(crate) struct Writes {
    queue: mpsc::Sender<Waiting>,
    bytes: Arc<AtomicUsize>,
}

/// The other end of the queue.
pub(crate) struct Proposer {
    queue: mpsc::Receiver<Waiting>,
    bytes: Arc<AtomicUsize>,
    consensus: Consensus,
    closing: CancellationToken,
}

/// Makes the queue.
pub(crate) fn queue(consensus: Consensus, closing: CancellationToken) -> (Writes, Proposer) {
    let (sender, receiver) = mpsc::channel(WRITES_WAITING_MAX);
    let bytes = Arc::<AtomicUsize>::default();
    let writes = Writes {
        queue: sender,
        bytes: Arc::clone(&bytes),
    };
    let proposer = Proposer {
        queue: receiver,
        bytes,
        consensus,
        closing,
    };
    (writes, proposer)
}

impl Writes {
    /// Queues a command that was checked, and waits for its outcome.
    pub(crate) async fn write(&self, command: Command) -> Result<Revision, WriteError> {
        let bytes = command.bytes();
        let waiting = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        // A single large write is let in to an empty queue.
        if waiting > 0 && waiting + bytes > BYTES_WAITING_MAX {
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
            return Err(WriteError::Overloaded);
        }
        let (answer, outcome) = oneshot::channel();
        let waiting = Waiting {
            command,
            bytes,
            since: Instant::now(),
            answer,
        };
        if let Err(error) = self.queue.try_send(waiting) {
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
            return Err(match error {
                mpsc::error::TrySendError::Full(_) => WriteError::Overloaded,
                mpsc::error::TrySendError::Closed(_) => WriteError::Closed,
            });
        }
        outcome.await.map_err(|_| WriteError::Unknown)?
    }
}

impl Proposer {
    /// Runs until the store closes.
    pub(crate) async fn run(mut self) {
        let slots = Arc::new(Semaphore::new(BATCHES_IN_FLIGHT_MAX));
        loop {
            // The slot first: until there is one, writes gather in the queue.
            let slot = tokio::select! {
                biased;
                () = self.closing.cancelled() => break,
                slot = Arc::clone(&slots).acquire_owned() => slot,
            };
            let Ok(slot) = slot else { break };
            let first = tokio::select! {
                biased;
                () = self.closing.cancelled() => break,
                first = self.queue.recv() => first,
            };
            let Some(first) = first else { break };
            let batch = self.gather(first);
            if batch.is_empty() {
                continue;
            }
            let consensus = self.consensus.clone();
            tokio::spawn(async move {
                order(&consensus, batch).await;
                drop(slot);
            });
        }
        self.queue.close();
        while let Ok(refused) = self.queue.try_recv() {
            let _ = refused.answer.send(Err(WriteError::Closed));
        }
        // All slots free means every proposal is answered.
        let all = u32::try_from(BATCHES_IN_FLIGHT_MAX).unwrap_or(u32::MAX);
        if tokio::time::timeout(DRAIN_TIMEOUT, slots.acquire_many(all))
            .await
            .is_err()
        {
            tracing::warn!("writes under way were not answered in time");
        }
    }

    /// The first write and those that wait behind it, within the bounds of an entry.
    fn gather(&mut self, first: Waiting) -> Vec<Waiting> {
        let oldest = Instant::now().checked_sub(PATIENCE);
        let mut batch = Vec::new();
        let mut bytes = 0;
        let mut next = Some(first);
        while let Some(waiting) = next.take() {
            self.bytes.fetch_sub(waiting.bytes, Ordering::Relaxed);
            if oldest.is_some_and(|oldest| waiting.since < oldest) {
                // Its caller has waited long enough to be told.
                let _ = waiting.answer.send(Err(WriteError::Overloaded));
            } else {
                bytes += waiting.bytes;
                batch.push(waiting);
            }
            if batch.len() < BATCH_COMMANDS_MAX && bytes < BATCH_BYTES_MAX {
                next = self.queue.try_recv().ok();
            }
        }
        batch
    }
}

/// What a caller is told of what became of its command.
fn told(command: &Command, outcome: Outcome) -> Result<Revision, WriteError> {
    match outcome {
        Outcome::Done(revision) => Ok(revision),
        Outcome::Conflict { mutation, found } => match command.mutations.get(mutation) {
            Some(mutation) => Err(WriteError::Conflict {
                key: mutation.key.clone(),
                found,
            }),
            // Only a leader of another kind counts like that.
            None => Err(WriteError::Unknown),
        },
        Outcome::Fenced { term } => Err(WriteError::Fenced {
            fence: command.fence.unwrap_or_default(),
            term,
        }),
    }
}

/// The commands of an entry, and who waits for each.
struct Ordered {
    entry: Batch,
    answers: Vec<Answering>,
}

impl Ordered {
    fn new(batch: Vec<Waiting>) -> Self {
        let parts = batch.into_iter();
        let (commands, answers): (Vec<_>, Vec<_>) = parts
            .map(|waiting| (waiting.command, waiting.answer))
            .unzip();
        Ordered {
            entry: Batch(commands.into()),
            answers,
        }
    }

    fn answer_all(self, error: &WriteError) {
        for answer in self.answers {
            // An answer nobody waits for any more is dropped.
            let _ = answer.send(Err(error.clone()));
        }
    }

    /// A fence says "as long as I lead": such a write is over with the leadership of this server.
    fn refuse_fenced(&mut self, leader: Option<ServerId>) {
        if self.entry.0.iter().all(|command| command.fence.is_none()) {
            return;
        }
        let commands = self.entry.0.iter().zip(std::mem::take(&mut self.answers));
        let mut kept = Vec::new();
        for (command, answer) in commands {
            if command.fence.is_some() {
                let _ = answer.send(Err(WriteError::NotLeader { leader }));
            } else {
                kept.push(command.clone());
                self.answers.push(answer);
            }
        }
        self.entry = Batch(kept.into());
    }
}

/// Gets a batch ordered, here or by the leader, and answers it.
async fn order(consensus: &Consensus, batch: Vec<Waiting>) {
    let deadline = Instant::now() + PATIENCE;
    let mut batch = Ordered::new(batch);
    loop {
        let leader = consensus.leader();
        let elsewhere = leader.filter(|leader| *leader != consensus.me());
        if elsewhere.is_some() {
            batch.refuse_fenced(leader);
        }
        if batch.answers.is_empty() {
            return;
        }
        let entry = batch.entry.clone();
        let ordered = match elsewhere {
            Some(leader) => pass_on(consensus, leader, entry).await,
            None => match consensus.propose(entry).await {
                Ok((_, outcomes)) => Ok(outcomes),
                Err(denied) => Err(denied),
            },
        };
        let error = match ordered {
            Ok(outcomes) if outcomes.len() == batch.answers.len() => {
                let answers = batch.entry.0.iter().zip(batch.answers);
                for ((command, answer), outcome) in answers.zip(outcomes) {
                    let _ = answer.send(told(command, outcome));
                }
                return;
            }
            // What this server checked no other refuses; if one does, nothing is certain.
            Ok(_) | Err(Denied::Unknown | Denied::Invalid(_)) => {
                return batch.answer_all(&WriteError::Unknown);
            }
            Err(Denied::Overloaded) => return batch.answer_all(&WriteError::Overloaded),
            Err(Denied::DiskFull) => return batch.answer_all(&WriteError::DiskFull),
            Err(Denied::NoQuorum) => WriteError::NoQuorum,
            Err(Denied::NotLeader(leader)) => {
                batch.refuse_fenced(leader);
                WriteError::NotLeader { leader }
            }
        };
        if Instant::now() >= deadline {
            return batch.answer_all(&error);
        }
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}

/// Has the leader order a batch, and waits until its entry is applied here.
async fn pass_on(
    consensus: &Consensus,
    leader: ServerId,
    entry: Batch,
) -> Result<Vec<Outcome>, Denied> {
    let request = Request::Write(consensus.worded_for_leader(leader, entry)?);
    let mut asked = consensus.ask_leader(leader, Lane::Log, &request).await;
    if matches!(asked, Err(NoAnswer::Lost(_))) && planted(Bug::ForwardTwice) {
        asked = consensus.ask_leader(leader, Lane::Log, &request).await;
    }
    match asked {
        Ok(Answer::Write(Ok((index, outcomes)))) => {
            if planted(Bug::AnswerBeforeApply) {
                return Ok(outcomes);
            }
            // Committed it is; but a server that cannot apply it cannot promise that it is read here.
            let applied = consensus.hub().wait_applied(index);
            match tokio::time::timeout(PATIENCE, applied).await {
                Ok(()) => Ok(outcomes),
                Err(_) => Err(Denied::Unknown),
            }
        }
        Ok(Answer::Write(Err(denied))) => Err(denied),
        Ok(_) | Err(NoAnswer::Lost(_)) => Err(Denied::Unknown),
        Err(NoAnswer::NotTaken(reason)) => {
            tracing::debug!(leader, reason, "the leader did not take a write");
            Err(Denied::NotLeader(None))
        }
    }
}
