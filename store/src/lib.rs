//! A replicated, revisioned key-value history with watch.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use weft_store::{Config, Mutation, Precondition, Store};
//!
//! let store = Store::open(Config::new("/var/lib/weft/server")).await?;
//! let create = Mutation::put("/core/configmaps/default/a", Precondition::Absent, "{}");
//! let revision = store.write(vec![create], None).await?;
//! let snapshot = store.read().await?;
//! let mut watch = store.watch("/core/configmaps/", revision)?;
//! while let Some(event) = watch.next().await {
//!     println!("{:?}", event?);
//! }
//! # Ok(()) }
//! ```
//!
//! Path of a write: [`Store::write`] queues it; the proposer makes one log entry of what is waiting; `raft.rs` orders
//! it, `log.rs` makes it durable, `machine.rs` decides it, `watch.rs` publishes it; the answer returns. The state lives
//! in memory; `checkpoint.rs` copies it to disk about once a second and `log.rs` holds what came since.
//!
//! Invariants: an acknowledged write survives any crash and is seen by every later [`Store::read`]; a write takes
//! effect as a whole or not at all; each mutation gets its own revision, one higher than the one before.
//! Left to others: what keys and values mean.
//!
//! Runs on the tokio runtime it is opened on, beside two threads of its own for the two files.

pub mod bench;
mod checkpoint;
mod codec;
mod command;
mod error;
mod key;
mod lock;
mod log;
mod machine;
mod raft;
mod snapshot;
mod tables;
mod watch;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use tokio::sync::{Mutex, Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::checkpoint::{CheckpointFile, Checkpointer, Loaded};
use crate::command::{Batch, Command, Outcome};
use crate::lock::FolderLock;
use crate::log::{Log, WriterThread};
use crate::raft::Consensus;
use crate::tables::Identity;
use crate::watch::{Bounds, Hub};

pub use crate::command::{
    COMMAND_BYTES_MAX, COMMAND_MUTATIONS_MAX, Change, Mutation, Precondition,
};
pub use crate::error::{DecodeError, OpenError, ReadError, WatchError, WatchLagged, WriteError};
pub use crate::key::{Entry, Key, Revision, ServerId, Term};
pub use crate::snapshot::Snapshot;
pub use crate::watch::{Event, EventKind, Watch};

/// Writes waiting to be proposed; at a few thousand a second this is a second of delay, and more would only time out.
const WRITES_WAITING_MAX: usize = 8192;

/// Commands in one log entry, and their bytes: large enough to amortise an fsync over every waiting client, small
/// enough for one append request to a peer.
const BATCH_COMMANDS_MAX: usize = 1024;
const BATCH_BYTES_MAX: usize = 2 << 20;

/// Log entries proposed and not yet answered: one in its fsync and one gathering behind it.
const BATCHES_IN_FLIGHT_MAX: usize = 2;

/// How long a shutdown waits for proposed writes: without a majority they are never answered.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// Reads waiting for one confirmation of leadership; they share it, so waiting is short.
const READS_WAITING_MAX: usize = 16_384;

/// Where a store lives and how much it remembers.
#[derive(Debug, Clone)]
pub struct Config {
    /// Folder of its files; created where missing, held by one process at a time.
    pub dir: PathBuf,
    /// This server's number in the cluster. Never give it to another disk.
    pub server_id: ServerId,
    /// Name of the cluster, so that a folder or a peer of another one is refused.
    pub cluster_id: String,
    /// Events kept for watches that resume. 100,000 is minutes of a busy cluster.
    pub history_events_max: usize,
    /// Memory those events may hold, in bytes, counting a replaced value with its event.
    pub history_bytes_max: usize,
    /// Events that may wait for one watcher before it is cut off: a mass update of ten thousand pods fits.
    pub watch_queue_events_max: usize,
    /// Longest time between a change and its checkpoint. It bounds what a restart applies again, not what survives.
    pub checkpoint_interval: Duration,
}

impl Config {
    /// Server 1 of cluster "weft" in `dir`, with the default bounds.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Config {
            dir: dir.into(),
            server_id: 1,
            cluster_id: "weft".to_owned(),
            history_events_max: 100_000,
            history_bytes_max: 64 << 20,
            watch_queue_events_max: 16_384,
            checkpoint_interval: Duration::from_secs(1),
        }
    }
}

struct WaitingWrite {
    command: Command,
    answer: oneshot::Sender<Result<Outcome, WriteError>>,
}

type WaitingRead = oneshot::Sender<Result<(), ReadError>>;

/// Handle of an open store. Clones share it; it stays open until [`Store::shutdown`].
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    hub: Arc<Hub>,
    consensus: Consensus,
    writes: mpsc::Sender<WaitingWrite>,
    reads: mpsc::Sender<WaitingRead>,
    closing: CancellationToken,
    checkpointer: Checkpointer,
    /// Taken by the one who shuts down.
    resources: Mutex<Option<Resources>>,
}

/// What has to end in order.
struct Resources {
    writer: WriterThread,
    proposer: tokio::task::JoinHandle<()>,
    lock: FolderLock,
}

struct Files {
    lock: FolderLock,
    log: Log,
    writer: WriterThread,
    checkpoint: CheckpointFile,
    loaded: Loaded,
}

fn open_files(config: &Config) -> Result<Files, OpenError> {
    let lock = FolderLock::take(&config.dir)?;
    let identity = Identity {
        cluster_id: config.cluster_id.clone(),
        server_id: config.server_id,
    };
    let log_path = config.dir.join("log.redb");
    let state_path = config.dir.join("state.redb");
    let exists = |path: &std::path::Path| {
        path.try_exists().map_err(|source| OpenError::Io {
            path: path.to_owned(),
            source,
        })
    };
    // The log is made first. A state without a log has lost its votes: starting it could break a promise.
    if exists(&state_path)? && !exists(&log_path)? {
        return Err(OpenError::Inconsistent {
            path: config.dir.clone(),
            reason: "it has a state but no log".to_owned(),
        });
    }
    let (log, writer) = Log::open(&log_path, &identity)?;
    let (checkpoint, loaded) = CheckpointFile::open(&state_path, &identity)?;
    let purged = log.extent().purged;
    if purged > loaded.state.applied {
        return Err(OpenError::Inconsistent {
            path: config.dir.clone(),
            reason: "its state is older than the start of its log".to_owned(),
        });
    }
    Ok(Files {
        lock,
        log,
        writer,
        checkpoint,
        loaded,
    })
}

/// Boxed in a plain function, so that openraft is compiled into this crate and not into each one that opens a store.
fn open_boxed(config: Config) -> BoxFuture<'static, Result<Store, OpenError>> {
    Box::pin(open(config))
}

async fn open(config: Config) -> Result<Store, OpenError> {
    let files = {
        let config = config.clone();
        tokio::task::spawn_blocking(move || open_files(&config))
            .await
            .map_err(|error| OpenError::Consensus {
                reason: error.to_string(),
            })??
    };
    let bounds = Bounds {
        history_events_max: config.history_events_max,
        history_bytes_max: config.history_bytes_max,
        queue_events_max: config.watch_queue_events_max,
    };
    let hub = Arc::new(Hub::new(files.loaded.state, files.loaded.history, bounds));
    let checkpointer = files
        .checkpoint
        .run(Arc::clone(&hub), config.checkpoint_interval)
        .map_err(|source| OpenError::Io {
            path: config.dir.clone(),
            source,
        })?;
    let started = Consensus::start(
        config.server_id,
        &config.cluster_id,
        files.log.clone(),
        Arc::clone(&hub),
        checkpointer.clone(),
    )
    .await;
    let consensus = match started {
        Ok(consensus) => consensus,
        Err(error) => {
            files.log.stop().await;
            let stop = move || {
                checkpointer.stop();
                files.writer.join();
            };
            // What failed is the start; that is what the caller hears.
            let _ = tokio::task::spawn_blocking(stop).await;
            return Err(error);
        }
    };

    let closing = CancellationToken::new();
    let (writes, waiting_writes) = mpsc::channel(WRITES_WAITING_MAX);
    let (reads, waiting_reads) = mpsc::channel(READS_WAITING_MAX);
    let proposer = tokio::spawn(propose(consensus.clone(), waiting_writes, closing.clone()));
    tokio::spawn(confirm_reads(
        consensus.clone(),
        waiting_reads,
        closing.clone(),
    ));
    tokio::spawn(close_on_failure(
        consensus.clone(),
        checkpointer.clone(),
        closing.clone(),
    ));
    Ok(Store {
        inner: Arc::new(Inner {
            hub,
            consensus,
            writes,
            reads,
            closing,
            checkpointer,
            resources: Mutex::new(Some(Resources {
                writer: files.writer,
                proposer,
                lock: files.lock,
            })),
        }),
    })
}

impl Store {
    /// Opens or creates the store in `config.dir`.
    ///
    /// With a sole voter it returns as the leader, with everything applied that the log holds.
    ///
    /// # Errors
    /// [`OpenError`]: the folder is in use, foreign, damaged or from a newer program. Nothing is changed then.
    pub async fn open(config: Config) -> Result<Store, OpenError> {
        open_boxed(config).await
    }

    /// Applies `mutations` as one: all take effect, in order, or none does.
    ///
    /// Returns the revision of the last mutation once everything is durable and applied. Deleting an absent key takes
    /// no revision; where nothing changed, the store's revision is returned. With a `fence` the write takes effect only
    /// if it is ordered in that term. Dropping the future does not take the write back.
    ///
    /// # Errors
    /// [`WriteError`] says whether nothing happened or whether that is unknown.
    pub async fn write(
        &self,
        mutations: Vec<Mutation>,
        fence: Option<Term>,
    ) -> Result<Revision, WriteError> {
        let command = Command { fence, mutations };
        command.check()?;
        if self.inner.closing.is_cancelled() {
            return Err(WriteError::Closed);
        }
        // Keys are cheap to clone, and only a conflict needs one back.
        let keys: Vec<Key> = command
            .mutations
            .iter()
            .map(|mutation| mutation.key.clone())
            .collect();
        let (answer, outcome) = oneshot::channel();
        let waiting = WaitingWrite { command, answer };
        self.inner
            .writes
            .try_send(waiting)
            .map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => WriteError::Busy,
                mpsc::error::TrySendError::Closed(_) => WriteError::Closed,
            })?;
        match outcome.await.map_err(|_| WriteError::Unknown)?? {
            Outcome::Done(revision) => Ok(revision),
            Outcome::Conflict { mutation, found } => Err(WriteError::Conflict {
                key: keys[mutation].clone(),
                found,
            }),
            Outcome::Fenced { term } => Err(WriteError::Fenced {
                fence: fence.unwrap_or_default(),
                term,
            }),
        }
    }

    /// What this server has applied: O(1), and possibly behind other servers.
    pub fn snapshot(&self) -> Snapshot {
        self.inner.hub.snapshot()
    }

    /// A snapshot that shows every write acknowledged before the call, by any server.
    ///
    /// # Errors
    /// [`ReadError`] where that cannot be confirmed.
    pub async fn read(&self) -> Result<Snapshot, ReadError> {
        if self.inner.closing.is_cancelled() {
            return Err(ReadError::Closed);
        }
        let (answer, confirmed) = oneshot::channel();
        self.inner
            .reads
            .try_send(answer)
            .map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => ReadError::Busy,
                mpsc::error::TrySendError::Closed(_) => ReadError::Closed,
            })?;
        confirmed.await.map_err(|_| ReadError::Closed)??;
        Ok(self.snapshot())
    }

    /// Every event under `prefix` with a revision above `after`: in order, each once, none missing.
    ///
    /// # Errors
    /// [`WatchError`] when `after` is before the kept history or in the future.
    pub fn watch(&self, prefix: impl Into<Bytes>, after: Revision) -> Result<Watch, WatchError> {
        self.inner.hub.watch(prefix.into(), after)
    }

    /// `Some(term)` while this server leads: the fence for writes that must not outlive its leadership.
    pub fn leadership(&self) -> tokio::sync::watch::Receiver<Option<Term>> {
        self.inner.consensus.leadership()
    }

    /// Waits until the store cannot go on, and says why. The process should end then: what the disk holds is only known
    /// after a restart. Never returns after a [`Store::shutdown`].
    pub async fn failed(&self) -> String {
        failure(&self.inner.consensus, &self.inner.checkpointer).await
    }

    /// Ends the store: finishes the writes under way, makes a last checkpoint, closes the files and lets go of the
    /// folder. Watches end. Later calls are refused; calling it again waits for the first.
    pub async fn shutdown(&self) {
        let inner = &self.inner;
        inner.closing.cancel();
        let mut resources = inner.resources.lock().await;
        let Some(resources) = resources.take() else {
            return;
        };
        if let Err(error) = resources.proposer.await {
            tracing::error!(%error, "the proposer ended badly");
        }
        inner.consensus.shutdown().await;
        inner.hub.close();
        let checkpointer = inner.checkpointer.clone();
        let stop = move || {
            checkpointer.stop();
            resources.writer.join();
            drop(resources.lock);
        };
        if let Err(error) = tokio::task::spawn_blocking(stop).await {
            tracing::error!(%error, "closing the files ended badly");
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.closing.cancel();
    }
}

/// Why consensus or the checkpoint cannot go on; pending while they can, and for ever once they were told to stop.
async fn failure(consensus: &Consensus, checkpointer: &Checkpointer) -> String {
    let (mut consensus, mut checkpoint) = (consensus.failure(), checkpointer.progress());
    let consensus = async {
        match consensus.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone(),
            Err(_) => None,
        }
    };
    let checkpoint = async {
        match checkpoint
            .wait_for(|progress| progress.failed.is_some())
            .await
        {
            Ok(progress) => progress.failed.clone(),
            Err(_) => None,
        }
    };
    tokio::select! {
        biased;
        Some(reason) = consensus => reason,
        Some(reason) = checkpoint => reason,
        else => std::future::pending().await,
    }
}

/// Refuses writes and reads from the moment the store has failed.
async fn close_on_failure(
    consensus: Consensus,
    checkpointer: Checkpointer,
    closing: CancellationToken,
) {
    tokio::select! {
        biased;
        () = closing.cancelled() => {}
        reason = failure(&consensus, &checkpointer) => {
            tracing::error!(reason, "the store failed and takes no more requests");
            closing.cancel();
        }
    }
}

/// Makes log entries of waiting writes. What gathers while entries are in flight becomes the next entry.
async fn propose(
    consensus: Consensus,
    mut waiting: mpsc::Receiver<WaitingWrite>,
    closing: CancellationToken,
) {
    let slots = Arc::new(Semaphore::new(BATCHES_IN_FLIGHT_MAX));
    loop {
        // The slot first: until there is one, writes gather in the queue.
        let slot = tokio::select! {
            biased;
            () = closing.cancelled() => break,
            slot = Arc::clone(&slots).acquire_owned() => slot,
        };
        let Ok(slot) = slot else { break };
        let first = tokio::select! {
            biased;
            () = closing.cancelled() => break,
            first = waiting.recv() => first,
        };
        let Some(first) = first else { break };
        let mut bytes = first.command.bytes();
        let mut commands = vec![first.command];
        let mut answers = vec![first.answer];
        while commands.len() < BATCH_COMMANDS_MAX
            && bytes < BATCH_BYTES_MAX
            && let Ok(next) = waiting.try_recv()
        {
            bytes += next.command.bytes();
            commands.push(next.command);
            answers.push(next.answer);
        }
        let consensus = consensus.clone();
        tokio::spawn(async move {
            let result = consensus.propose(Batch(commands.into())).await;
            drop(slot);
            // An answer nobody waits for any more is dropped with its write done.
            match result {
                Ok(outcomes) => {
                    debug_assert_eq!(outcomes.len(), answers.len());
                    for (answer, outcome) in answers.into_iter().zip(outcomes) {
                        let _ = answer.send(Ok(outcome));
                    }
                }
                Err(error) => {
                    for answer in answers {
                        let _ = answer.send(Err(error.clone()));
                    }
                }
            }
        });
    }
    waiting.close();
    while let Ok(refused) = waiting.try_recv() {
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

/// Confirms leadership once for all the reads that were waiting when it began.
async fn confirm_reads(
    consensus: Consensus,
    mut waiting: mpsc::Receiver<WaitingRead>,
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
        let confirmed = consensus.linearize().await;
        for reader in readers.drain(..) {
            let _ = reader.send(confirmed.clone());
        }
    }
}
