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
//! A cluster has one, three or five servers, each with a [`Store`]; any of them answers any request. They reach each
//! other through a [`Network`] that is handed in, and [`Store::answer`] is where its messages arrive.
//!
//! Path of a write: [`Store::write`] queues it; `proposer.rs` makes one log entry of what is waiting, or passes it on to
//! the leader; `raft/` orders and replicates it, `log.rs` makes it durable, `machine.rs` decides it, `watch.rs` publishes
//! it; the answer returns. About once a second `checkpoint.rs` copies what changed to disk; `log.rs` holds what came since, and
//! memory holds every key, but only values that are new or asked for (`entries.rs`).
//!
//! Invariants: an acknowledged write survives any crash of fewer than half of the servers, or of all if their disks
//! survive, and is seen by every later [`Store::read`] on any server; a write takes effect as a whole or not at all; each
//! mutation gets its own revision, one higher than the one before.
//! Left to others: what keys and values mean.
//!
//! Runs on the tokio runtime it is opened on, beside two threads of its own for the two files.

mod backup;
mod checkpoint;
mod codec;
mod command;
#[cfg(test)]
mod decoders;
mod disk;
mod entries;
mod error;
mod event;
#[cfg(test)]
mod formats;
mod history;
mod key;
mod lock;
mod log;
mod machine;
mod message;
mod network;
mod planted;
mod proposer;
mod raft;
mod reader;
#[cfg(test)]
mod sim;
mod snapshot;
mod stream;
mod tables;
pub mod transport;
mod value;
mod volume;
mod watch;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use crate::checkpoint::{CheckpointFile, Checkpointer, Loaded};
use crate::command::Command;
use crate::disk::{Disk, Held, Machine, Worker};
use crate::log::Log;
use crate::message::{Answer, Denied, MemberChange, Request};
use crate::proposer::{PATIENCE, RETRY_PAUSE, Writes};
use crate::raft::{Consensus, NoAnswer, Parts};
use crate::reader::Reads;
use crate::tables::Identity;
use crate::volume::Volume;
use crate::watch::{Bounds, Hub};

pub use crate::backup::{Backup, restore};
pub use crate::command::{
    COMMAND_BYTES_MAX, COMMAND_MUTATIONS_MAX, Change, Mutation, Precondition,
};
pub use crate::error::{
    BackupError, DecodeError, Ended, MemberError, OpenError, ReadError, WatchError, WatchLagged,
    WriteError,
};
pub use crate::event::{Event, EventKind, Previous};
pub use crate::history::HistoryShare;
pub use crate::key::{Entry, Key, Revision, ServerId, Term};
pub use crate::network::{Alone, Lane, Network, NetworkError, Peer};
pub use crate::raft::Member;
pub use crate::snapshot::Snapshot;
pub use crate::value::Value;
pub use crate::watch::Watch;

/// What becomes of an empty folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// A cluster of this one server.
    Alone,
    /// A server that waits to be found by the leader of a cluster, which has given it its number.
    Joining,
}

/// Where a store lives and how much it remembers.
#[derive(Debug, Clone)]
pub struct Config {
    /// Folder of its files; created where missing, held by one process at a time.
    pub dir: PathBuf,
    /// This server's number in the cluster. Never give it to another disk.
    pub server_id: ServerId,
    /// Name of the cluster, so that a folder or a peer of another one is refused.
    pub cluster_id: String,
    /// Where other servers reach this one; empty for a cluster of one that stays alone.
    pub address: String,
    /// What becomes of an empty folder.
    pub start: Start,
    /// Events kept for watches that resume. 100,000 is minutes of a busy cluster.
    pub history_events_max: usize,
    /// Bytes of those events' keys and values, as they are compressed, and what each takes beside: 6 MiB are some 7,300 changes of
    /// pods of 2.5 KB. It is memory until the next checkpoint and the disk's from then on, which also holds what each
    /// replaced. Watch caches keep histories of their own; this one is for those that begin, or begin again.
    pub history_bytes_max: usize,
    /// Keys that change so often that they get a history of their own, for their changes must not push out all others.
    /// That one is not written down: after a restart it begins anew.
    pub history_shares: Vec<HistoryShare>,
    /// Prefixes of keys that nobody follows: their changes are in no history, and no watcher is told of them. For what changes often
    /// and in bulk, and would push out of queues and histories what is waited for.
    pub unwatched: Vec<Bytes>,
    /// Events that may wait for one watcher before it is cut off: a mass update of ten thousand pods fits.
    pub watch_queue_events_max: usize,
    /// Memory of what waits for one watcher, counted as in the history: such a mass update takes 17 MB, most of which the
    /// history holds as well.
    pub watch_queue_bytes_max: usize,
    /// Memory for values that were read from disk, in bytes of what readers may make of them: 16 MiB are some 2,500 pods of
    /// 2.5 KB. What is asked for more often than it changes belongs into a cache of the reader's own.
    pub value_cache_bytes: usize,
    /// Longest time between a change and its checkpoint. It bounds what a restart applies again, not what survives.
    pub checkpoint_interval: Duration,
    /// Log entries kept behind a checkpoint, so that a server that was away for a moment needs no snapshot.
    pub log_entries_kept: usize,
    /// The newest version of messages it speaks: tests have servers of several.
    #[cfg(test)]
    pub(crate) wire: u8,
}

impl Config {
    /// Server 1 of cluster "weft" in `dir`, with the default bounds.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Config {
            dir: dir.into(),
            server_id: 1,
            cluster_id: "weft".to_owned(),
            address: String::new(),
            start: Start::Alone,
            history_events_max: 100_000,
            history_bytes_max: 6 << 20,
            history_shares: Vec::new(),
            unwatched: Vec::new(),
            watch_queue_events_max: 16_384,
            watch_queue_bytes_max: 24 << 20,
            value_cache_bytes: 16 << 20,
            checkpoint_interval: Duration::from_secs(1),
            log_entries_kept: 20_000,
            #[cfg(test)]
            wire: message::WIRE,
        }
    }

    #[cfg(test)]
    fn wire(&self) -> u8 {
        self.wire
    }

    #[cfg(not(test))]
    fn wire(&self) -> u8 {
        message::WIRE
    }
}

/// Handle of an open store. Clones share it; it stays open until [`Store::shutdown`].
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    hub: Arc<Hub>,
    consensus: Consensus,
    writes: Writes,
    reads: Reads,
    closing: CancellationToken,
    checkpointer: Checkpointer,
    leadership: tokio::sync::watch::Receiver<Option<Term>>,
    leader: tokio::sync::watch::Receiver<Option<ServerId>>,
    /// Taken by the one who shuts down.
    resources: Mutex<Option<Resources>>,
}

/// What has to end in order.
struct Resources {
    writer: Worker,
    proposer: tokio::task::JoinHandle<()>,
    held: Held,
}

struct Files {
    held: Held,
    volume: Arc<Volume>,
    log: Log,
    writer: Worker,
    /// Opened behind the log, whose writer has to end where this failed.
    state: Result<(CheckpointFile, Loaded), OpenError>,
}

const LOG_FILE: &str = "log.redb";
const STATE_FILE: &str = "state.redb";

fn open_files(config: &Config, disk: Arc<dyn Disk>) -> Result<Files, OpenError> {
    let held = disk.hold(&config.dir)?;
    let identity = Identity {
        cluster_id: config.cluster_id.clone(),
        server_id: config.server_id,
    };
    let log_path = config.dir.join(LOG_FILE);
    let state_path = config.dir.join(STATE_FILE);
    let io = |path: &std::path::Path| {
        let path = path.to_owned();
        move |source| OpenError::Io { path, source }
    };
    let volume = Volume::open(disk, &config.dir).map_err(io(&config.dir))?;
    let exists = |path| volume.disk.exists(path).map_err(io(path));
    // The log is made first. A state without a log has lost its votes: starting it could break a promise.
    if exists(&state_path)? && !exists(&log_path)? {
        return Err(OpenError::Inconsistent {
            path: config.dir.clone(),
            reason: "it has a state but no log".to_owned(),
        });
    }
    let (log, writer) = Log::open(&volume, &log_path, &identity)?;
    let cache_bytes = config.value_cache_bytes;
    let state = CheckpointFile::open(&volume, &state_path, &identity, cache_bytes);
    let state = state.and_then(|(checkpoint, loaded)| {
        if log.extent().purged > loaded.state.applied {
            return Err(OpenError::Inconsistent {
                path: config.dir.clone(),
                reason: "its state is older than the start of its log".to_owned(),
            });
        }
        Ok((checkpoint, loaded))
    });
    Ok(Files {
        held,
        volume,
        log,
        writer,
        state,
    })
}

/// Boxed in a plain function, so that openraft is compiled into this crate and not into each one that opens a store.
fn open_boxed(
    config: Config,
    network: Arc<dyn Network>,
    disk: Arc<dyn Disk>,
) -> BoxFuture<'static, Result<Store, OpenError>> {
    Box::pin(open(config, network, disk))
}

async fn open(
    config: Config,
    network: Arc<dyn Network>,
    disk: Arc<dyn Disk>,
) -> Result<Store, OpenError> {
    let files = {
        let config = config.clone();
        let (answer, files) = tokio::sync::oneshot::channel();
        let work = {
            let disk = Arc::clone(&disk);
            move || {
                let _ = answer.send(open_files(&config, disk));
            }
        };
        disk.blocking(Box::new(work)).await;
        files.await.map_err(|error| OpenError::Consensus {
            reason: error.to_string(),
        })??
    };
    let bounds = Bounds {
        history_events_max: config.history_events_max,
        history_bytes_max: config.history_bytes_max,
        history_shares: config.history_shares.clone(),
        unwatched: config.unwatched.clone(),
        queue_events_max: config.watch_queue_events_max,
        queue_bytes_max: config.watch_queue_bytes_max,
    };
    let state = files.state.and_then(|(checkpoint, loaded)| {
        let hub = Arc::new(Hub::new(loaded.state, loaded.history, bounds));
        let checkpointer = checkpoint.run(Arc::clone(&hub), config.checkpoint_interval);
        let checkpointer = checkpointer.map_err(|source| OpenError::Io {
            path: config.dir.clone(),
            source,
        })?;
        Ok((hub, checkpointer))
    });
    let (hub, checkpointer) = match state {
        Ok(state) => state,
        Err(error) => {
            // Whoever hears that it failed may open the files again.
            files.log.stop().await;
            files.writer.join("weft-log").await;
            return Err(error);
        }
    };
    let started = Consensus::start(Parts {
        wire: config.wire(),
        server_id: config.server_id,
        cluster_id: config.cluster_id,
        address: config.address,
        start: config.start,
        log_entries_kept: config.log_entries_kept,
        network,
        volume: files.volume,
        log: files.log.clone(),
        hub: Arc::clone(&hub),
        checkpointer: checkpointer.clone(),
    })
    .await;
    let consensus = match started {
        Ok(consensus) => consensus,
        Err(error) => {
            files.log.stop().await;
            checkpointer.stop().await;
            files.writer.join("weft-log").await;
            // What failed is the start; that is what the caller hears.
            return Err(error);
        }
    };

    let closing = CancellationToken::new();
    let (writes, proposer) = proposer::queue(consensus.clone(), closing.clone());
    let proposer = tokio::spawn(proposer.run());
    let reads = Reads::start(consensus.clone(), closing.clone());
    tokio::spawn(close_on_failure(
        consensus.clone(),
        checkpointer.clone(),
        closing.clone(),
    ));
    let leads = *consensus.leads().borrow();
    let (term, leadership) = tokio::sync::watch::channel(leads.term);
    let (server, leader) = tokio::sync::watch::channel(leads.leader);
    tokio::spawn(split_leads(consensus.leads(), term, server));
    Ok(Store {
        inner: Arc::new(Inner {
            hub,
            consensus,
            writes,
            reads,
            closing,
            checkpointer,
            leadership,
            leader,
            resources: Mutex::new(Some(Resources {
                writer: files.writer,
                proposer,
                held: files.held,
            })),
        }),
    })
}

impl Store {
    /// Opens or creates the store of a cluster of one in `config.dir`: it reaches no other server.
    ///
    /// It returns as the leader, with everything applied that the log holds.
    ///
    /// # Errors
    /// [`OpenError`]: the folder is in use, foreign, damaged or from a newer program. Nothing is changed then.
    pub async fn open(config: Config) -> Result<Store, OpenError> {
        Store::open_with(config, Arc::new(Alone)).await
    }

    /// Opens or creates the store in `config.dir`, as one of the servers that `network` reaches.
    ///
    /// With a sole voter it returns as the leader, else at once; [`Store::leader`] tells when one is found. Whoever
    /// receives messages for this server hands them to [`Store::answer`] from now on.
    ///
    /// # Errors
    /// Those of [`Store::open`].
    pub async fn open_with(config: Config, network: Arc<dyn Network>) -> Result<Store, OpenError> {
        open_boxed(config, network, Arc::new(Machine)).await
    }

    /// Applies `mutations` as one: all take effect, in order, or none does.
    ///
    /// Returns the revision of the last mutation once everything is durable on a majority and applied on this server.
    /// Deleting an absent key takes no revision; where nothing changed, the store's revision is returned. With a `fence`
    /// the write takes effect only if this server leads in that term; without one it is passed on to the leader where
    /// this server is not. While there is no leader it waits for one, for a few seconds. Dropping the future does not
    /// take the write back.
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
        if self.inner.consensus.volume().full() && command.puts() {
            return Err(WriteError::DiskFull);
        }
        self.inner.writes.write(command).await
    }

    /// What this server has applied: O(1), and possibly behind other servers.
    pub fn snapshot(&self) -> Snapshot {
        self.inner.hub.snapshot()
    }

    /// A snapshot that shows every write acknowledged before the call, by any server.
    ///
    /// # Errors
    /// [`ReadError`] where that cannot be confirmed within a few seconds.
    pub async fn read(&self) -> Result<Snapshot, ReadError> {
        if self.inner.closing.is_cancelled() {
            return Err(ReadError::Closed);
        }
        self.inner.reads.confirm().await?;
        Ok(self.snapshot())
    }

    /// Every event under `prefix` with a revision above `after`: in order, each once, none missing.
    ///
    /// # Errors
    /// [`WatchError`] when `after` is before the kept history, or has not happened on this server yet; a
    /// [`Store::read`] first makes sure of what another server acknowledged.
    pub fn watch(&self, prefix: impl Into<Bytes>, after: Revision) -> Result<Watch, WatchError> {
        self.inner.hub.watch(prefix.into(), after)
    }

    /// The newest revision whose events every watch has in its queue, as it grows: it is waited for by whoever must know
    /// that a watch is as new as a revision although nothing happens under its prefix. See [`Watch::try_next`] and
    /// [`Watch::progress`].
    pub fn dispatched(&self) -> tokio::sync::watch::Receiver<Revision> {
        self.inner.hub.dispatched()
    }

    /// `Some(term)` while this server leads: the fence for writes that must not outlive its leadership.
    pub fn leadership(&self) -> tokio::sync::watch::Receiver<Option<Term>> {
        self.inner.leadership.clone()
    }

    /// The server that leads, as far as this one knows.
    pub fn leader(&self) -> tokio::sync::watch::Receiver<Option<ServerId>> {
        self.inner.leader.clone()
    }

    /// Whether the disk is full, so that only deletes are taken.
    pub fn disk_full(&self) -> bool {
        self.inner.consensus.volume().full()
    }

    /// The servers of the cluster, as this one has applied them.
    pub fn members(&self) -> Vec<Member> {
        self.inner.consensus.members()
    }

    /// Adds a server that listens, or will listen, at `address`, as a learner. Returns the number it has to be opened
    /// with ([`Start::Joining`]).
    ///
    /// # Errors
    /// [`MemberError`], as for every change of the members.
    pub async fn add_learner(&self, address: impl Into<String>) -> Result<ServerId, MemberError> {
        let address = address.into();
        self.change_members(MemberChange::Add { address }).await
    }

    /// Lets a learner vote, once it has caught up.
    ///
    /// # Errors
    /// [`MemberError`]
    pub async fn promote(&self, server: ServerId) -> Result<(), MemberError> {
        let change = MemberChange::Promote { server };
        self.change_members(change).await.map(drop)
    }

    /// Removes a server for ever: its number never returns.
    ///
    /// # Errors
    /// [`MemberError`]
    pub async fn remove(&self, server: ServerId) -> Result<(), MemberError> {
        let change = MemberChange::Remove { server };
        self.change_members(change).await.map(drop)
    }

    /// Replaces the voter `old`, which may be gone for good, by the learner `new`, in one step.
    ///
    /// # Errors
    /// [`MemberError`]
    pub async fn replace(&self, old: ServerId, new: ServerId) -> Result<(), MemberError> {
        let change = MemberChange::Swap { old, new };
        self.change_members(change).await.map(drop)
    }

    /// Tells the cluster that a server listens at another address.
    ///
    /// # Errors
    /// [`MemberError`]
    pub async fn relocate(
        &self,
        server: ServerId,
        address: impl Into<String>,
    ) -> Result<(), MemberError> {
        let address = address.into();
        let change = MemberChange::Move { server, address };
        self.change_members(change).await.map(drop)
    }

    /// Hands leadership over to `to`, or to the voter that is closest behind. Returns the new leader.
    ///
    /// # Errors
    /// [`MemberError`]
    pub async fn transfer(&self, to: Option<ServerId>) -> Result<ServerId, MemberError> {
        self.change_members(MemberChange::Transfer { to }).await
    }

    async fn change_members(&self, change: MemberChange) -> Result<ServerId, MemberError> {
        if self.inner.closing.is_cancelled() {
            return Err(MemberError::Closed);
        }
        let consensus = &self.inner.consensus;
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let leader = consensus.leader();
            let changed = match leader {
                Some(leader) if leader != consensus.me() => {
                    let request = Request::Member(change.clone());
                    match consensus.ask_leader(leader, Lane::Control, &request).await {
                        Ok(Answer::Member(changed)) => changed,
                        Ok(_) | Err(NoAnswer::Lost(_)) => Err(Denied::Unknown),
                        Err(NoAnswer::NotTaken(_)) => Err(Denied::NotLeader(None)),
                    }
                }
                _ => consensus.change_members(change.clone()).await,
            };
            let error = match changed {
                Ok(server) => return Ok(server),
                Err(Denied::Invalid(reason)) => return Err(MemberError::Invalid { reason }),
                Err(Denied::NotLeader(leader)) => MemberError::NotLeader { leader },
                Err(Denied::NoQuorum) => MemberError::NoQuorum,
                Err(Denied::Overloaded) => return Err(MemberError::Busy),
                Err(Denied::Unknown | Denied::DiskFull) => return Err(MemberError::Unknown),
            };
            if tokio::time::Instant::now() >= deadline {
                return Err(error);
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    /// Writes everything that was acknowledged so far to `path`, in place of a file that may be there. See [`restore`].
    ///
    /// # Errors
    /// [`BackupError`]; the file that was there is untouched then.
    pub async fn backup(&self, path: impl Into<PathBuf>) -> Result<Backup, BackupError> {
        self.read().await.map_err(BackupError::Read)?;
        let path = path.into();
        let (state, cluster_id) = (self.inner.hub.state(), self.inner.consensus.cluster_id());
        let (answer, written) = tokio::sync::oneshot::channel();
        let work = {
            let path = path.clone();
            move || {
                // The asker may be gone; the backup is made all the same.
                let _ = answer.send(backup::write(&path, &state, &cluster_id));
            }
        };
        let disk = &self.inner.consensus.volume().disk;
        disk.blocking(Box::new(work)).await;
        written.await.map_err(|error| BackupError::Io {
            path,
            source: std::io::Error::other(error),
        })?
    }

    /// Answers a message of another server. `proven` is the server that the connection proved it comes from; without a
    /// proof the message is believed, so a network that others can reach must give one.
    pub async fn answer(&self, proven: Option<ServerId>, message: Bytes) -> Bytes {
        self.inner.consensus.answer(proven, message).await
    }

    /// Waits until the store cannot go on, and says why. The process should end then. Never returns after a
    /// [`Store::shutdown`].
    pub async fn ended(&self) -> Ended {
        ended(&self.inner.consensus, &self.inner.checkpointer).await
    }

    /// Ends the store: finishes the writes under way, makes a last checkpoint, closes the files and lets go of the
    /// folder. Watches end. Later calls are refused; calling it again waits for the first. A leader of several should
    /// [`Store::transfer`] first.
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
        inner.checkpointer.stop().await;
        resources.writer.join("weft-log").await;
        drop(resources.held);
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.closing.cancel();
    }
}

/// Publishes the two halves of what is known about leadership, each when it changes.
async fn split_leads(
    mut leads: tokio::sync::watch::Receiver<raft::Leads>,
    term: tokio::sync::watch::Sender<Option<Term>>,
    leader: tokio::sync::watch::Sender<Option<ServerId>>,
) {
    let publish = |leads: raft::Leads| {
        term.send_if_modified(|known| std::mem::replace(known, leads.term) != leads.term);
        leader.send_if_modified(|known| std::mem::replace(known, leads.leader) != leads.leader);
    };
    loop {
        publish(*leads.borrow_and_update());
        if leads.changed().await.is_err() {
            publish(raft::Leads::default());
            return;
        }
    }
}

/// Why consensus or the checkpoint cannot go on; pending while they can, and for ever once they were told to stop.
async fn ended(consensus: &Consensus, checkpointer: &Checkpointer) -> Ended {
    let (mut failure, mut checkpoint) = (consensus.failure(), checkpointer.progress());
    let failure = async {
        match failure.wait_for(Option::is_some).await {
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
        () = consensus.removed() => Ended::Removed,
        Some(reason) = failure => Ended::Failed(reason),
        Some(reason) = checkpoint => Ended::Failed(reason),
    }
}

/// Refuses writes and reads from the moment the store cannot go on.
async fn close_on_failure(
    consensus: Consensus,
    checkpointer: Checkpointer,
    closing: CancellationToken,
) {
    tokio::select! {
        biased;
        () = closing.cancelled() => {}
        reason = ended(&consensus, &checkpointer) => {
            tracing::error!(%reason, "the store cannot go on and takes no more requests");
            closing.cancel();
        }
    }
}
