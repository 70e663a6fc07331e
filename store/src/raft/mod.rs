//! Consensus: the only folder that names openraft.
//!
//! [`Consensus`] proposes batches, confirms reads, changes members and follows leadership. Around it: adapters from
//! openraft's storage traits to `log.rs`, `machine.rs` and `checkpoint.rs` (`storage.rs`), its calls to other servers
//! (`peers.rs`) and theirs to this one (`answer.rs`). None of openraft's types reaches the disk or the wire.
//!
//! Invariants: a proposal is answered after it is durable on a majority and applied here; a term is published as ours
//! only after everything earlier is applied here; a server number is never reused (`members.rs`).

mod answer;
mod members;
mod peers;
mod start;
mod storage;
mod tend;
mod vocabulary;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use openraft::errors::{ClientWriteError, LinearizableReadError, RaftError};
use openraft::{BasicNode, ReadPolicy, SnapshotPolicy};
use tokio::sync::{Mutex, Semaphore, watch};
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

use crate::Start;
use crate::checkpoint::Checkpointer;
use crate::command::{Batch, Outcome};
use crate::error::OpenError;
use crate::key::ServerId;
use crate::log::Log;
use crate::message::{Answer, CHECKS_SINCE, Denied, Request};
use crate::network::{Lane, Network, Peer};
use crate::planted::{Bug, planted};
use crate::raft::start::Own;
use crate::raft::storage::{Applier, LogStorage};
use crate::raft::vocabulary::Raft;
use crate::stream::Assembly;
use crate::volume::Volume;
use crate::watch::Hub;

pub use crate::raft::members::Member;
pub(crate) use crate::raft::peers::{NoAnswer, Peers};
pub(crate) use crate::raft::tend::Leads;

// Timers, in milliseconds. Stalls of 40 to 460 ms were measured in fsync on busy disks; openraft's defaults of 50 and
// 150–300 would elect at each of them. A follower elects after the lease (the longer election time-out) and an election
// time-out without a heartbeat: 1.25 to 1.6 s after a leader died, and one split vote later at most 2.4 s. After a start
// nobody waits for a time-out (`start.rs`).
const HEARTBEAT_MS: u64 = 100;
const ELECTION_MIN_MS: u64 = 450;
const ELECTION_MAX_MS: u64 = 800;
/// A leader without a majority goes on probing for it in phases of this length.
const QUORUM_PROBE_MS: u64 = 1600;
const SNAPSHOT_INSTALL_MS: u64 = 60_000;
/// Waits before a peer that could not be reached is sent entries again. Heartbeats do not wait.
const BACKOFF: &str = "50ms 100ms 200ms ...500ms";

/// Requests waiting for openraft; ours are few and large, so this is never the bound that is met.
const API_QUEUE: u64 = 4096;

/// Entries in one append request to a peer.
const PEER_ENTRIES_MAX: u64 = 512;

/// Longest wait for a proposal to commit: past this a leader without a majority says that it does not know.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest wait for the leader's answer to a request that was passed on to it.
const FORWARD_TIMEOUT: Duration = Duration::from_secs(6);

/// Batches of writes from other servers that a leader orders at once; each may be 2 MiB.
const FORWARDED_MAX: usize = 16;

/// How long a sole voter may take to apply its log at start: it reads at most what one checkpoint interval wrote.
const READY_TIMEOUT: Duration = Duration::from_secs(60);

fn config(cluster_id: &str, log_entries_kept: usize) -> openraft::Config {
    openraft::Config {
        cluster_name: cluster_id.to_owned(),
        heartbeat_interval: HEARTBEAT_MS,
        election_timeout_min: ELECTION_MIN_MS,
        election_timeout_max: ELECTION_MAX_MS,
        enable_pre_vote: Some(true),
        // They are on once a leader was heard of, or did not come: `start.rs`.
        enable_elect: false,
        quorum_loss_probe_interval: Some(QUORUM_PROBE_MS),
        install_snapshot_timeout: SNAPSHOT_INSTALL_MS,
        api_channel_size: Some(API_QUEUE),
        max_payload_entries: PEER_ENTRIES_MAX,
        backoff: BACKOFF.to_owned(),
        // A leader that restarts may have lost the end of its log, which others have and committed. openraft's default
        // lets it lead on in the same term: it would give the same log ids to other entries. It has to be elected.
        enable_leader_restore: Some(planted(Bug::LeaderRestored)),
        allow_log_reversion: Some(false),
        // Checkpoints are made by time and bytes, not by entries: `tend_log` says when.
        snapshot_policy: SnapshotPolicy::Never,
        replication_lag_threshold: 2 * log_entries_kept as u64,
        max_in_snapshot_log_to_keep: log_entries_kept as u64,
        ..openraft::Config::default()
    }
}

/// What consensus is started with.
pub(crate) struct Parts {
    pub server_id: ServerId,
    pub cluster_id: String,
    pub address: String,
    pub start: Start,
    pub log_entries_kept: usize,
    pub network: Arc<dyn Network>,
    pub volume: Arc<Volume>,
    pub log: Log,
    pub hub: Arc<Hub>,
    pub checkpointer: Checkpointer,
    /// The newest version of messages that it speaks.
    pub wire: u8,
}

/// One server's part in the consensus. Clones share it.
#[derive(Clone)]
pub(crate) struct Consensus {
    raft: Raft,
    me: ServerId,
    cluster_id: Arc<str>,
    peers: Peers,
    log: Log,
    hub: Arc<Hub>,
    volume: Arc<Volume>,
    leads: watch::Receiver<Leads>,
    failure: watch::Receiver<Option<String>>,
    removed: CancellationToken,
    wire: u8,
    /// One change of members at a time.
    changing: Arc<Mutex<()>>,
    /// The snapshot that is being received.
    assembly: Arc<Mutex<Assembly>>,
    forwarded: Arc<Semaphore>,
}

fn failed(reason: impl std::fmt::Display) -> OpenError {
    OpenError::Consensus {
        reason: reason.to_string(),
    }
}

impl Consensus {
    /// Starts with what log and hub hold. Where this server is the only voter, it returns as the leader, with its whole
    /// log applied.
    pub(crate) async fn start(parts: Parts) -> Result<Consensus, OpenError> {
        let me = parts.server_id;
        let config = config(&parts.cluster_id, parts.log_entries_kept)
            .validate()
            .map_err(failed)?;
        let removed = CancellationToken::new();
        if parts.hub.removed(me) {
            removed.cancel();
        }
        let applier = Applier {
            hub: Arc::clone(&parts.hub),
            checkpointer: parts.checkpointer.clone(),
            me,
            removed: removed.clone(),
        };
        let peers = Peers::new(
            parts.network,
            Arc::clone(&parts.volume.disk),
            &parts.cluster_id,
            me,
            removed.clone(),
            parts.wire,
        );
        let storage = LogStorage(parts.log.clone());
        let raft = Raft::new(me, Arc::new(config), peers.clone(), storage, applier)
            .await
            .map_err(failed)?;

        let initialized = raft.is_initialized().await.map_err(failed)?;
        if !initialized && parts.start == Start::Alone {
            let node = BasicNode::new(&parts.address);
            raft.initialize(BTreeMap::from([(me, node)]))
                .await
                .map_err(failed)?;
        }
        let loaded = Own::look(&raft, me).await.map_err(failed)?;
        let sole_voter = loaded.votes_alone();

        let (leading, leads) = watch::channel(Leads::default());
        let (failing, failure) = watch::channel(None);
        tokio::spawn({
            let (raft, peers) = (raft.clone(), peers.clone());
            async move {
                // Nothing is told of the leader that the stored vote names: it may be gone. Where consensus has stopped,
                // the next line says why.
                let _ = start::first_election(&raft, &peers, loaded).await;
                tend::follow_leadership(raft, leading, failing).await;
            }
        });
        tokio::spawn(tend::tend_log(
            raft.clone(),
            parts.log.clone(),
            parts.checkpointer,
            parts.log_entries_kept,
        ));
        let mut consensus = Consensus {
            raft,
            me,
            cluster_id: parts.cluster_id.into(),
            peers,
            log: parts.log,
            hub: parts.hub,
            volume: parts.volume,
            leads,
            failure,
            removed,
            wire: parts.wire,
            changing: Arc::default(),
            assembly: Arc::default(),
            forwarded: Arc::new(Semaphore::new(FORWARDED_MAX)),
        };
        if sole_voter {
            consensus.wait_ready().await?;
            consensus.correct_address(&parts.address).await;
        }
        Ok(consensus)
    }

    async fn wait_ready(&mut self) -> Result<(), OpenError> {
        let ready = self.leads.wait_for(|leads| leads.term.is_some());
        match tokio::time::timeout(READY_TIMEOUT, ready).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => {
                let reason = self.failure.borrow().clone();
                Err(failed(reason.as_deref().unwrap_or("it stopped")))
            }
            Err(_) => Err(failed("its log was not applied in time")),
        }
    }

    pub(crate) fn me(&self) -> ServerId {
        self.me
    }

    pub(crate) fn cluster_id(&self) -> Arc<str> {
        Arc::clone(&self.cluster_id)
    }

    pub(crate) fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }

    pub(crate) fn volume(&self) -> &Arc<Volume> {
        &self.volume
    }

    /// A batch in words that all of these servers know.
    fn worded_for(
        &self,
        batch: Batch,
        mut servers: impl Iterator<Item = ServerId>,
    ) -> Result<Batch, Denied> {
        let know = |version| version >= CHECKS_SINCE;
        if !batch.checks() || know(self.wire) && servers.all(|id| know(self.peers.version_for(id)))
        {
            return Ok(batch);
        }
        // Where this server is behind the one that was asked, it is asked again in a moment.
        let reworded = batch.without_checks(&self.hub.state());
        reworded.ok_or(Denied::NotLeader(None))
    }

    /// A batch as it can be passed on to the leader.
    pub(crate) fn worded_for_leader(
        &self,
        leader: ServerId,
        batch: Batch,
    ) -> Result<Batch, Denied> {
        self.worded_for(batch, std::iter::once(leader))
    }

    /// Orders a batch and waits until it is durable on a majority and applied here. Returns the index of its entry.
    pub(crate) async fn propose(&self, batch: Batch) -> Result<(u64, Vec<Outcome>), Denied> {
        let members = self.hub.state().members;
        let batch = self.worded_for(batch, members.addresses.into_keys())?;
        let write = self.raft.client_write(batch);
        let Ok(written) = tokio::time::timeout(COMMIT_TIMEOUT, write).await else {
            return Err(Denied::Unknown);
        };
        match written {
            Ok(response) => Ok((response.log_id.index(), response.data.0)),
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(forward))) => {
                Err(self.not_leader(forward.leader_id))
            }
            // The entry was appended here and then given up, or the server stopped with it under way.
            Err(RaftError::APIError(_) | RaftError::Fatal(_)) => Err(Denied::Unknown),
        }
    }

    /// The index up to which a server has to apply to see everything that was acknowledged before the call.
    pub(crate) async fn read_index(&self) -> Result<u64, Denied> {
        match self.raft.get_read_linearizer(ReadPolicy::ReadIndex).await {
            Ok(linearizer) => Ok(linearizer.read_log_id().index()),
            Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(forward))) => {
                Err(self.not_leader(forward.leader_id))
            }
            Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(_))) => {
                Err(Denied::NoQuorum)
            }
            Err(RaftError::Fatal(_)) => Err(Denied::NotLeader(None)),
        }
    }

    fn not_leader(&self, leader: Option<ServerId>) -> Denied {
        match leader {
            // It leads and refuses: its majority has not been heard of for a lease, or it is handing over.
            Some(leader) if leader == self.me => Denied::NoQuorum,
            leader => Denied::NotLeader(leader),
        }
    }

    /// Passes a request on to the leader.
    pub(crate) async fn ask_leader(
        &self,
        leader: ServerId,
        lane: Lane,
        request: &Request,
    ) -> Result<Answer, NoAnswer> {
        let address = self.hub.state().members.addresses.get(&leader).cloned();
        let Some(address) = address else {
            let reason = format!("this server does not know the address of server {leader} yet");
            return Err(NoAnswer::NotTaken(reason));
        };
        let peer = Peer {
            server: leader,
            address,
        };
        self.peers.ask(&peer, lane, request, FORWARD_TIMEOUT).await
    }

    /// The leader this server follows, itself included.
    pub(crate) fn leader(&self) -> Option<ServerId> {
        self.leads.borrow().leader
    }

    /// Who leads, as far as this server knows.
    pub(crate) fn leads(&self) -> watch::Receiver<Leads> {
        self.leads.clone()
    }

    /// `Some(reason)` once consensus has stopped for good. The channel closes when it stops as it was told to.
    pub(crate) fn failure(&self) -> watch::Receiver<Option<String>> {
        self.failure.clone()
    }

    /// Comes once this server knows that it was removed from the cluster.
    pub(crate) fn removed(&self) -> WaitForCancellationFuture<'_> {
        self.removed.cancelled()
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
