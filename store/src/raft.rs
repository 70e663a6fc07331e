//! Consensus: the only file that names openraft.
//!
//! [`Consensus`] proposes batches, answers linearizable reads and follows leadership. Around it: adapters from
//! openraft's storage traits to `log.rs`, `machine.rs` and `checkpoint.rs`, which speak the store's own types; none of
//! openraft's types reaches the disk.
//!
//! Invariants: a proposal is answered after it is durable on a majority and applied here; a term is published as ours
//! only after everything earlier is applied here; a server number is never reused (the caller's promise).
//! Peers: [`Peers`] is where a transport to other servers attaches. With one voter none is ever asked for.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::future::Future;
use std::io;
use std::ops::RangeBounds;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{Stream, StreamExt};
use openraft::async_runtime::watch::WatchReceiver;
use openraft::entry::RaftEntry;
use openraft::errors::{
    ClientWriteError, Fatal, LinearizableReadError, RPCError, RaftError, ReplicationClosed,
    StreamingError, Unreachable,
};
use openraft::network::RPCOption;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
};
use openraft::storage::{EntryResponder, IOFlushed, LogState, RaftLogStorage, RaftStateMachine};
use openraft::type_config::alias;
use openraft::{
    AnyError, BasicNode, EntryPayload, OptionalSend, RaftLogReader, RaftNetworkFactory,
    RaftNetworkV2, RaftSnapshotBuilder, ReadPolicy, ServerState, SnapshotPolicy,
};
use tokio::sync::watch;

use crate::checkpoint::{Checkpointer, EARLY_BYTES};
use crate::command::{Batch, Outcome};
use crate::error::{OpenError, ReadError, WriteError};
use crate::key::{ServerId, Term};
use crate::log::{Log, Payload, Record, Vote};
use crate::machine::{Members, Position, State};
use crate::watch::Hub;

// Timers, in milliseconds. Stalls of 40 to 460 ms were measured in fsync on busy disks; openraft's defaults of 50 and
// 150–300 would elect at each of them.
const HEARTBEAT_MS: u64 = 100;
const ELECTION_MIN_MS: u64 = 600;
const ELECTION_MAX_MS: u64 = 1200;
const QUORUM_PROBE_MS: u64 = 2400;
const SNAPSHOT_INSTALL_MS: u64 = 60_000;

/// Requests waiting for openraft; ours are few and large, so this is never the bound that is met.
const API_QUEUE: u64 = 4096;

/// Entries in one append request to a peer, and their bytes.
const PEER_ENTRIES_MAX: u64 = 512;
const PEER_BYTES_MAX: usize = 4 << 20;

/// Log kept behind a checkpoint so that a peer that was away for a moment needs no snapshot.
const KEEP_ENTRIES: usize = 20_000;
const KEEP_BYTES: usize = 32 << 20;

/// The log may exceed what is kept by this factor's part before a purge is worth its transaction.
const PURGE_SLACK_ENTRIES: usize = 2_000;
const PURGE_SLACK_BYTES: usize = 8 << 20;

/// How long a sole voter may take to apply its log at start: it reads at most what one checkpoint interval wrote.
const READY_TIMEOUT: Duration = Duration::from_secs(60);

openraft::declare_raft_types!(
    /// The store's types, as openraft wants them named.
    pub(crate) Types: D = Batch, R = Outcomes, NodeId = u64, Node = BasicNode
);

type LogId = alias::LogIdOf<Types>;
type LeaderId = alias::LeaderIdOf<Types>;
type RaftEntryOf = alias::EntryOf<Types>;
type StoredMembership = alias::StoredMembershipOf<Types>;
type SnapshotMeta = alias::SnapshotMetaOf<Types>;
type RaftSnapshot = alias::SnapshotOf<Types, State>;
type RaftVote = alias::VoteOf<Types>;
type Raft = openraft::Raft<Types, Applier>;

/// The answers to one batch, in its order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outcomes(Vec<Outcome>);

fn log_id(position: Position) -> LogId {
    let leader = LeaderId {
        term: position.term,
        node_id: position.server,
    };
    LogId::new(leader, position.index)
}

fn position(log_id: &LogId) -> Position {
    let leader = log_id.committed_leader_id();
    Position {
        term: leader.term,
        server: leader.node_id,
        index: log_id.index(),
    }
}

fn members(membership: &openraft::Membership<u64, BasicNode>) -> Members {
    Members {
        voters: membership.get_joint_config().clone(),
        addresses: membership
            .nodes()
            .map(|(server, node)| (*server, node.addr.clone()))
            .collect(),
    }
}

fn membership(members: &Members) -> Result<openraft::Membership<u64, BasicNode>, io::Error> {
    if members.voters.is_empty() && members.addresses.is_empty() {
        return Ok(openraft::Membership::default());
    }
    let nodes: BTreeMap<u64, BasicNode> = members
        .addresses
        .iter()
        .map(|(server, address)| (*server, BasicNode::new(address)))
        .collect();
    openraft::Membership::new(members.voters.clone(), nodes).map_err(io::Error::other)
}

fn record(entry: &RaftEntryOf) -> Record {
    Record {
        position: position(&entry.log_id),
        payload: match &entry.payload {
            EntryPayload::Blank => Payload::Blank,
            EntryPayload::Normal(batch) => Payload::Batch(batch.clone()),
            EntryPayload::Membership(membership) => Payload::Members(members(membership)),
        },
    }
}

fn entry(record: Record) -> Result<RaftEntryOf, io::Error> {
    let payload = match record.payload {
        Payload::Blank => EntryPayload::Blank,
        Payload::Batch(batch) => EntryPayload::Normal(batch),
        Payload::Members(members) => EntryPayload::Membership(membership(&members)?),
    };
    Ok(RaftEntryOf::new(log_id(record.position), payload))
}

fn snapshot(state: State) -> Result<RaftSnapshot, io::Error> {
    let (last_log_id, last_membership) = applied(&state)?;
    Ok(RaftSnapshot {
        meta: SnapshotMeta {
            last_log_id,
            last_membership,
        },
        snapshot: state,
    })
}

fn applied(state: &State) -> Result<(Option<LogId>, StoredMembership), io::Error> {
    let stored = StoredMembership::new(
        state.members_position.map(log_id),
        membership(&state.members)?,
    );
    Ok((state.applied.map(log_id), stored))
}

/// The log, as openraft sees it.
#[derive(Clone)]
struct LogStorage(Log);

impl RaftLogReader<Types> for LogStorage {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<RaftEntryOf>, io::Error> {
        let bounds = (range.start_bound().cloned(), range.end_bound().cloned());
        let records = self.0.read(bounds, None).await?;
        records.into_iter().map(entry).collect()
    }

    async fn read_vote(&mut self) -> Result<Option<RaftVote>, io::Error> {
        Ok(self.0.vote().map(|vote| RaftVote {
            leader_id: LeaderId {
                term: vote.term,
                node_id: vote.server,
            },
            committed: vote.committed,
        }))
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<RaftEntryOf>, io::Error> {
        let records = self.0.read(start..end, Some(PEER_BYTES_MAX)).await?;
        records.into_iter().map(entry).collect()
    }
}

impl RaftLogStorage<Types> for LogStorage {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, io::Error> {
        let extent = self.0.extent();
        Ok(LogState {
            last_purged_log_id: extent.purged.map(log_id),
            last_log_id: extent.last.map(log_id),
        })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &RaftVote) -> Result<(), io::Error> {
        let vote = Vote {
            term: vote.leader_id.term,
            server: vote.leader_id.node_id,
            committed: vote.committed,
        };
        self.0.save_vote(vote).await
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        self.0.note_committed(committed.as_ref().map(position));
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(self.0.committed().map(log_id))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = RaftEntryOf> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let records = entries.into_iter().map(|entry| record(&entry)).collect();
        let done = Box::new(|result| callback.io_completed(result));
        self.0.append(records, done).await
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        self.0.truncate(last.map(|last| last.index())).await
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), io::Error> {
        self.0.purge(position(&upto)).await
    }
}

/// Runs committed entries through the machine and publishes the result.
struct Applier {
    hub: Arc<Hub>,
    checkpointer: Checkpointer,
}

/// Makes a checkpoint of the newest state and hands out that.
struct SnapshotBuilder(Checkpointer);

impl RaftSnapshotBuilder<Types> for SnapshotBuilder {
    type SnapshotData = State;

    async fn build_snapshot(&mut self) -> Result<RaftSnapshot, io::Error> {
        snapshot(self.0.now().await?)
    }
}

impl RaftStateMachine<Types> for Applier {
    type SnapshotData = State;
    type SnapshotBuilder = SnapshotBuilder;

    /// Asked at start only, when the newest state is the checkpoint's and thus durable.
    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        applied(&self.hub.state())
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<Types>, io::Error>> + Unpin + OptionalSend,
    {
        let mut state = self.hub.state();
        let mut events = Vec::new();
        let mut answers = Vec::new();
        while let Some(item) = entries.next().await {
            let (entry, responder) = item?;
            let position = position(&entry.log_id);
            let outcomes = match &entry.payload {
                EntryPayload::Blank => {
                    state.advance(position);
                    Vec::new()
                }
                EntryPayload::Normal(batch) => state.apply(position, batch, &mut events),
                EntryPayload::Membership(membership) => {
                    state.set_members(position, members(membership));
                    Vec::new()
                }
            };
            if let Some(responder) = responder {
                answers.push((responder, outcomes));
            }
        }
        let dirty_bytes = self.hub.publish(state, events);
        if dirty_bytes > EARLY_BYTES {
            self.checkpointer.early();
        }
        // Only now: whoever is answered also reads what it wrote.
        for (responder, outcomes) in answers {
            responder.send(Outcomes(outcomes));
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        SnapshotBuilder(self.checkpointer.clone())
    }

    async fn install_snapshot(
        &mut self,
        _meta: &SnapshotMeta,
        snapshot: State,
    ) -> Result<(), io::Error> {
        self.checkpointer.install(snapshot).await
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<RaftSnapshot>, io::Error> {
        let state = self.checkpointer.durable();
        if state.applied.is_none() {
            return Ok(None);
        }
        snapshot(state).map(Some)
    }
}

/// The way to the other servers. There is none yet: every peer is unreachable, which raft takes for a partition.
struct Peers;

/// One peer.
struct Peer {
    server: ServerId,
}

impl Peer {
    fn unreachable(&self) -> Unreachable<Types> {
        let reason = format!("this server has no connection to server {}", self.server);
        Unreachable::new(&AnyError::error(reason))
    }
}

impl RaftNetworkFactory<Types> for Peers {
    type Network = Peer;

    async fn new_client(&mut self, server: ServerId, _node: &BasicNode) -> Peer {
        Peer { server }
    }
}

impl RaftNetworkV2<Types> for Peer {
    type SnapshotData = State;

    async fn append_entries(
        &mut self,
        _request: AppendEntriesRequest<Types>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        Err(RPCError::Unreachable(self.unreachable()))
    }

    async fn vote(
        &mut self,
        _request: VoteRequest<Types>,
        _option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        Err(RPCError::Unreachable(self.unreachable()))
    }

    async fn pre_vote(
        &mut self,
        _request: VoteRequest<Types>,
        _option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        Err(RPCError::Unreachable(self.unreachable()))
    }

    async fn full_snapshot(
        &mut self,
        _vote: RaftVote,
        _snapshot: RaftSnapshot,
        _cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        Err(StreamingError::Unreachable(self.unreachable()))
    }
}

fn config(cluster_id: &str) -> openraft::Config {
    openraft::Config {
        cluster_name: cluster_id.to_owned(),
        heartbeat_interval: HEARTBEAT_MS,
        election_timeout_min: ELECTION_MIN_MS,
        election_timeout_max: ELECTION_MAX_MS,
        enable_pre_vote: Some(true),
        quorum_loss_probe_interval: Some(QUORUM_PROBE_MS),
        install_snapshot_timeout: SNAPSHOT_INSTALL_MS,
        api_channel_size: Some(API_QUEUE),
        max_payload_entries: PEER_ENTRIES_MAX,
        // Checkpoints are made by time and bytes, not by entries: `tend_log` says when.
        snapshot_policy: SnapshotPolicy::Never,
        replication_lag_threshold: 2 * KEEP_ENTRIES as u64,
        max_in_snapshot_log_to_keep: KEEP_ENTRIES as u64,
        ..openraft::Config::default()
    }
}

/// One server's part in the consensus. Clones share it.
#[derive(Clone)]
pub(crate) struct Consensus {
    raft: Raft,
    log: Log,
    leadership: watch::Receiver<Option<Term>>,
    failure: watch::Receiver<Option<String>>,
}

impl Consensus {
    /// Starts with what log and hub hold. An empty folder becomes a cluster of this one server. Where this server is the
    /// only voter, it returns as the leader, with its whole log applied.
    pub(crate) async fn start(
        server_id: ServerId,
        cluster_id: &str,
        log: Log,
        hub: Arc<Hub>,
        checkpointer: Checkpointer,
    ) -> Result<Consensus, OpenError> {
        let failed = |reason: &dyn std::fmt::Display| OpenError::Consensus {
            reason: reason.to_string(),
        };
        let config = config(cluster_id)
            .validate()
            .map_err(|error| failed(&error))?;
        let applier = Applier {
            hub: Arc::clone(&hub),
            checkpointer: checkpointer.clone(),
        };
        let storage = LogStorage(log.clone());
        let raft = Raft::new(server_id, Arc::new(config), Peers, storage, applier)
            .await
            .map_err(|error| failed(&error))?;

        let initialized = raft
            .is_initialized()
            .await
            .map_err(|error| failed(&error))?;
        if !initialized {
            let members = BTreeMap::from([(server_id, BasicNode::default())]);
            raft.initialize(members)
                .await
                .map_err(|error| failed(&error))?;
        }
        // Asked of the core itself: its metrics may not have heard of the first membership yet.
        let sole_voter = raft
            .with_raft_state(move |state| {
                let membership = state.membership_state.effective();
                membership.voter_ids().eq([server_id])
            })
            .await
            .map_err(|error| failed(&error))?;
        if sole_voter && initialized {
            // Nobody else can lead, so there is nothing to wait an election timeout for.
            raft.trigger()
                .elect(false)
                .await
                .map_err(|error| failed(&error))?;
        }

        let (leading, leadership) = watch::channel(None);
        let (failing, failure) = watch::channel(None);
        tokio::spawn(follow_leadership(raft.clone(), leading, failing));
        tokio::spawn(tend_log(raft.clone(), log.clone(), checkpointer));
        let mut consensus = Consensus {
            raft,
            log,
            leadership,
            failure,
        };
        if sole_voter {
            let ready = consensus.leadership.wait_for(Option::is_some);
            match tokio::time::timeout(READY_TIMEOUT, ready).await {
                Ok(Ok(_)) => {}
                Ok(Err(_)) => {
                    let reason = consensus.failure.borrow().clone();
                    return Err(failed(&reason.as_deref().unwrap_or("it stopped")));
                }
                Err(_) => return Err(failed(&"its log was not applied in time")),
            }
        }
        Ok(consensus)
    }

    /// Orders a batch and waits until it is durable on a majority and applied here.
    pub(crate) async fn propose(&self, batch: Batch) -> Result<Vec<Outcome>, WriteError> {
        match self.raft.client_write(batch).await {
            Ok(response) => Ok(response.data.0),
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(forward))) => {
                Err(WriteError::NotLeader {
                    leader: forward.leader_id,
                })
            }
            // The entry was appended here and then given up, or the server stopped with it under way.
            Err(RaftError::APIError(_) | RaftError::Fatal(_)) => Err(WriteError::Unknown),
        }
    }

    /// Returns once this server has applied everything that was acknowledged anywhere before the call.
    pub(crate) async fn linearize(&self) -> Result<(), ReadError> {
        match self.raft.ensure_linearizable(ReadPolicy::ReadIndex).await {
            Ok(_) => Ok(()),
            Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(forward))) => {
                Err(ReadError::NotLeader {
                    leader: forward.leader_id,
                })
            }
            Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(_))) => {
                Err(ReadError::NoQuorum)
            }
            Err(RaftError::Fatal(_)) => Err(ReadError::Closed),
        }
    }

    /// `Some(term)` while this server leads and has applied everything before its term.
    pub(crate) fn leadership(&self) -> watch::Receiver<Option<Term>> {
        self.leadership.clone()
    }

    /// `Some(reason)` once consensus has stopped for good. The channel closes when it stops as it was told to.
    pub(crate) fn failure(&self) -> watch::Receiver<Option<String>> {
        self.failure.clone()
    }

    /// Stops consensus and then the log. Boxed for the same reason as the opening of the store.
    pub(crate) fn shutdown(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            if let Err(error) = self.raft.shutdown().await {
                tracing::warn!(%error, "consensus did not stop cleanly");
            }
            self.log.stop().await;
        })
    }
}

/// Publishes the term while this server leads, and the reason when consensus fails.
async fn follow_leadership(
    raft: Raft,
    leading: watch::Sender<Option<Term>>,
    failing: watch::Sender<Option<String>>,
) {
    let mut metrics = raft.server_metrics();
    loop {
        let (leader, term) = {
            let metrics = metrics.borrow_watched();
            (
                metrics.state == ServerState::Leader,
                metrics.vote.leader_id.term,
            )
        };
        let ready = if leader {
            // A leader's first entry commits, and with it everything earlier, before this returns.
            raft.ensure_linearizable(ReadPolicy::ReadIndex)
                .await
                .is_ok()
        } else {
            true
        };
        let now = (leader && ready).then_some(term);
        leading.send_if_modified(|published| {
            let changed = *published != now;
            *published = now;
            changed
        });
        if ready {
            if metrics.changed().await.is_err() {
                break;
            }
        } else if tokio::time::timeout(Duration::from_millis(HEARTBEAT_MS), metrics.changed())
            .await
            .is_ok_and(|changed| changed.is_err())
        {
            break;
        }
    }
    leading.send_replace(None);
    let ended = raft.metrics().borrow_watched().running_state.clone();
    match ended {
        Ok(()) | Err(Fatal::Stopped) => {}
        Err(error) => {
            failing.send_replace(Some(error.to_string()));
        }
    }
}

/// Purges the log behind checkpoints, within what is kept for peers.
async fn tend_log(raft: Raft, log: Log, checkpointer: Checkpointer) {
    let mut progress = checkpointer.progress();
    while progress.changed().await.is_ok() {
        let (bytes, oldest) = log.keep_from(KEEP_ENTRIES, KEEP_BYTES);
        let Some(oldest) = oldest else { continue };
        if log.len() < KEEP_ENTRIES + PURGE_SLACK_ENTRIES && bytes < KEEP_BYTES + PURGE_SLACK_BYTES
        {
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
        let upto = oldest.saturating_sub(1);
        if raft.trigger().purge_log(upto).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use openraft::StorageError;
    use openraft::testing::log::{StoreBuilder, Suite};

    use super::*;
    use crate::checkpoint::CheckpointFile;
    use crate::log::WriterThread;
    use crate::tables::Identity;
    use crate::watch::Bounds;

    /// Real files in a folder of their own for each test of the suite.
    struct OnDisk;

    struct Guard {
        checkpointer: Checkpointer,
        writer: std::sync::Mutex<Option<WriterThread>>,
        _dir: tempfile::TempDir,
    }

    impl Drop for Guard {
        fn drop(&mut self) {
            self.checkpointer.stop();
            // The log's thread ends with the suite's handles; the folder may go before it.
            self.writer.lock().expect("not poisoned").take();
        }
    }

    impl StoreBuilder<Types, LogStorage, Applier, Guard> for OnDisk {
        async fn build(&self) -> Result<(Guard, LogStorage, Applier), StorageError<Types>> {
            let dir = tempfile::tempdir().expect("tempdir");
            let identity = Identity {
                cluster_id: "suite".to_owned(),
                server_id: 0,
            };
            let (log, writer) =
                Log::open(&dir.path().join("log.redb"), &identity).expect("log opens");
            let (file, loaded) = CheckpointFile::open(&dir.path().join("state.redb"), &identity)
                .expect("state opens");
            let bounds = Bounds {
                history_events_max: 100,
                history_bytes_max: 1 << 20,
                queue_events_max: 100,
            };
            let hub = Arc::new(Hub::new(loaded.state, loaded.history, bounds));
            let checkpointer = file
                .run(Arc::clone(&hub), Duration::from_secs(3600))
                .expect("thread");
            let guard = Guard {
                checkpointer: checkpointer.clone(),
                writer: std::sync::Mutex::new(Some(writer)),
                _dir: dir,
            };
            Ok((guard, LogStorage(log), Applier { hub, checkpointer }))
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn openrafts_own_storage_suite_passes_on_real_files() {
        Suite::test_all(OnDisk).await.expect("suite");
    }
}
