//! Asking other servers: openraft's outgoing calls, and the requests this server passes on to the leader.
//!
//! Every request leaves in an envelope and every answer is believed only if it comes back in the matching one. What is
//! sent on which lane, in which version and how long it may take is decided here.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use openraft::errors::{
    NetworkError as RaftNetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable,
};
use openraft::network::RPCOption;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderError,
    TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{BasicNode, OptionalSend, RaftNetworkFactory, RaftNetworkV2};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::disk::Disk;
use crate::error::Ended;
use crate::key::ServerId;
use crate::machine::State;
use crate::message::{
    Answer, Append, Appended, Ballot, BallotAnswer, Envelope, Request, SnapshotAnswer, Transfer,
    Transferred, entry_format,
};
use crate::network::{Lane, Network, NetworkError, Peer};
use crate::raft::vocabulary::{
    RaftSnapshot, RaftVote, Types, log_id, position, raft_vote, record, vote,
};
use crate::stream::Chunks;

/// Longest wait for a follower to make entries durable: an fsync of 460 ms was measured on a busy disk, and a request
/// carries up to 4 MiB.
const APPEND_TIMEOUT: Duration = Duration::from_secs(3);

/// Longest wait for one chunk of a snapshot; the last one waits for the installed file to be durable.
const CHUNK_TIMEOUT: Duration = Duration::from_secs(60);

/// Why another server gave no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoAnswer {
    /// It certainly did not act on the request.
    #[error("{0}")]
    NotTaken(String),
    /// It may have acted on it.
    #[error("{0}")]
    Lost(String),
}

/// The way to the other servers. Clones share it.
#[derive(Clone)]
pub(crate) struct Peers {
    network: Arc<dyn Network>,
    /// Where the values of snapshots are read.
    disk: Arc<dyn Disk>,
    cluster_id: Arc<str>,
    me: ServerId,
    /// Numbers the snapshots this server sends.
    streams: Arc<AtomicU64>,
    /// Cancelled once another server says that this one was removed.
    removed: CancellationToken,
    /// The newest version of messages that this server speaks.
    wire: u8,
    /// Servers that speak an older one only.
    older: Arc<Mutex<BTreeMap<ServerId, u8>>>,
}

impl Peers {
    pub(crate) fn new(
        network: Arc<dyn Network>,
        disk: Arc<dyn Disk>,
        cluster_id: &str,
        me: ServerId,
        removed: CancellationToken,
        wire: u8,
    ) -> Self {
        Peers {
            network,
            disk,
            cluster_id: cluster_id.into(),
            me,
            streams: Arc::new(AtomicU64::new(0)),
            removed,
            wire,
            older: Arc::default(),
        }
    }

    /// What a server is spoken to in: the newest version, unless it is known to speak an older one only.
    pub(crate) fn version_for(&self, server: ServerId) -> u8 {
        let older = self.older.lock().get(&server).copied();
        older.unwrap_or(self.wire)
    }

    /// Takes note that a request in this version came from a server: it was replaced by a newer program, perhaps. One in an
    /// older version says nothing, for the sender may not know yet that this server was replaced.
    pub(crate) fn heard(&self, server: ServerId, version: u8) {
        if version > self.version_for(server) {
            self.speak(server, version);
        }
    }

    fn speak(&self, server: ServerId, version: u8) {
        tracing::info!(
            server,
            version,
            newest = self.wire,
            "messages to another server have this version now"
        );
        let mut older = self.older.lock();
        if version < self.wire {
            older.insert(server, version);
        } else {
            older.remove(&server);
        }
    }

    /// Sends a request and waits for its answer, at most `timeout`.
    pub(crate) async fn ask(
        &self,
        peer: &Peer,
        lane: Lane,
        request: &Request,
        timeout: Duration,
    ) -> Result<Answer, NoAnswer> {
        let version = self.version_for(peer.server);
        match self.ask_in(version, peer, lane, request, timeout).await {
            // It did not look at the request, and says which version it would have.
            Err((NoAnswer::NotTaken(_), Some(older))) if older < version => {
                self.speak(peer.server, older);
                let again = self.ask_in(older, peer, lane, request, timeout).await;
                again.map_err(|(error, _)| error)
            }
            answer => answer.map_err(|(error, _)| error),
        }
    }

    /// Asks in a version. With a refusal comes the version that it is in.
    async fn ask_in(
        &self,
        version: u8,
        peer: &Peer,
        lane: Lane,
        request: &Request,
        timeout: Duration,
    ) -> Result<Answer, (NoAnswer, Option<u8>)> {
        let envelope = Envelope {
            cluster_id: self.cluster_id.to_string(),
            from: self.me,
            to: peer.server,
        };
        let Some(bytes) = request.encode(&envelope, version) else {
            let reason = format!("version {version} has no words for it; use a newer weft there");
            return Err((NoAnswer::NotTaken(reason), None));
        };
        let call = self.network.call(peer.clone(), lane, bytes);
        let lost = |reason| (NoAnswer::Lost(reason), None);
        let bytes = match tokio::time::timeout(timeout, call).await {
            Ok(Ok(bytes)) => bytes,
            Ok(Err(NetworkError::Unreachable(reason))) => {
                return Err((NoAnswer::NotTaken(reason), None));
            }
            Ok(Err(NetworkError::Broken(reason))) => return Err(lost(reason)),
            Err(_) => {
                let reason = format!("no answer within {} ms", timeout.as_millis());
                return Err(lost(reason));
            }
        };
        let server = peer.server;
        let unreadable = |error| {
            lost(format!(
                "the answer of server {server} is unreadable: {error}"
            ))
        };
        let (found, body) = Answer::open(bytes, self.wire).map_err(unreadable)?;
        let version = Some(body.version());
        if let Some(reason) = found.refuse(&self.cluster_id, self.me, Some(server)) {
            return Err((NoAnswer::NotTaken(reason), version));
        }
        match body.answer().map_err(unreadable)? {
            Answer::Refused(reason) => Err((NoAnswer::NotTaken(reason), version)),
            Answer::Removed => {
                self.removed.cancel();
                Err((NoAnswer::NotTaken(Ended::Removed.to_string()), None))
            }
            answer => Ok(answer),
        }
    }
}

impl RaftNetworkFactory<Types> for Peers {
    type Network = Follower;

    async fn new_client(&mut self, server: ServerId, node: &BasicNode) -> Follower {
        Follower {
            peers: self.clone(),
            peer: Peer {
                server,
                address: node.addr.clone(),
            },
        }
    }
}

/// Another server, as openraft calls it.
pub(crate) struct Follower {
    peers: Peers,
    peer: Peer,
}

fn rpc_error(error: NoAnswer) -> RPCError<Types> {
    match error {
        NoAnswer::NotTaken(reason) => RPCError::Unreachable(Unreachable::from_string(reason)),
        NoAnswer::Lost(reason) => RPCError::Network(RaftNetworkError::from_string(reason)),
    }
}

fn unexpected(answer: &Answer) -> NoAnswer {
    NoAnswer::Lost(format!("an answer to something else: {answer:?}"))
}

impl Follower {
    async fn ask(
        &self,
        lane: Lane,
        request: Request,
        timeout: Duration,
    ) -> Result<Answer, NoAnswer> {
        self.peers.ask(&self.peer, lane, &request, timeout).await
    }

    async fn ballot(
        &self,
        request: VoteRequest<Types>,
        timeout: Duration,
        kind: fn(Ballot) -> Request,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        let ballot = Ballot {
            vote: vote(&request.vote),
            last: request.last_log_id.as_ref().map(position),
            transfer: request.leadership_transfer,
        };
        match self.ask(Lane::Control, kind(ballot), timeout).await {
            Ok(Answer::Vote(BallotAnswer {
                vote,
                granted,
                last,
            })) => Ok(VoteResponse::new(
                raft_vote(vote),
                last.map(log_id),
                granted,
            )),
            Ok(other) => Err(rpc_error(unexpected(&other))),
            Err(error) => Err(rpc_error(error)),
        }
    }

    async fn send(&self, vote: RaftVote, state: State) -> Result<RaftVote, NoAnswer> {
        let stream = self.peers.streams.fetch_add(1, Ordering::Relaxed);
        let vote = crate::raft::vocabulary::vote(&vote);
        // Who turns out to read no more than an older version gets it from the start when openraft tries again.
        let format = entry_format(self.peers.version_for(self.peer.server));
        let mut chunks = Chunks::new(state, vote, stream, format);
        loop {
            let (answer, made) = tokio::sync::oneshot::channel();
            let make = move || {
                let chunk = chunks.next();
                // The sending may have been given up.
                let _ = answer.send((chunks, chunk));
            };
            self.peers.disk.blocking(Box::new(make)).await;
            let unmade = |reason: String| NoAnswer::NotTaken(reason);
            let (rest, chunk) = made.await.map_err(|error| unmade(error.to_string()))?;
            chunks = rest;
            let Some(chunk) = chunk else { break };
            let chunk = chunk.map_err(|error| unmade(error.to_string()))?;
            let last = chunk.checksum.is_some();
            let answer = self
                .ask(Lane::Bulk, Request::Snapshot(chunk), CHUNK_TIMEOUT)
                .await?;
            match answer {
                Answer::Snapshot(SnapshotAnswer::Next) if !last => {}
                Answer::Snapshot(SnapshotAnswer::Vote(vote)) => return Ok(raft_vote(vote)),
                other => return Err(unexpected(&other)),
            }
        }
        Err(NoAnswer::Lost(
            "the snapshot ended without an answer".to_owned(),
        ))
    }
}

impl RaftNetworkV2<Types> for Follower {
    type SnapshotData = State;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        let (lane, timeout) = if request.entries.is_empty() {
            (Lane::Control, option.hard_ttl())
        } else {
            (Lane::Log, APPEND_TIMEOUT)
        };
        let append = Append {
            vote: vote(&request.vote),
            previous: request.prev_log_id.as_ref().map(position),
            committed: request.leader_commit.as_ref().map(position),
            records: request.entries.iter().map(record).collect(),
        };
        match self.ask(lane, Request::Append(append), timeout).await {
            Ok(Answer::Append(appended)) => Ok(match appended {
                Appended::All => AppendEntriesResponse::Success,
                Appended::Upto(position) => {
                    AppendEntriesResponse::PartialSuccess(position.map(log_id))
                }
                Appended::Conflict => AppendEntriesResponse::Conflict,
                Appended::HigherVote(vote) => AppendEntriesResponse::HigherVote(raft_vote(vote)),
            }),
            Ok(other) => Err(rpc_error(unexpected(&other))),
            Err(error) => Err(rpc_error(error)),
        }
    }

    async fn vote(
        &mut self,
        request: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        self.ballot(request, option.hard_ttl(), Request::Vote).await
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        self.ballot(request, option.hard_ttl(), Request::PreVote)
            .await
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<Types>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, RPCError<Types>> {
        let transfer = Transfer {
            vote: vote(request.from_leader()),
            to: *request.to_node_id(),
            last: request.last_log_id().map(position),
        };
        let answer = self
            .ask(
                Lane::Control,
                Request::Transfer(transfer),
                option.hard_ttl(),
            )
            .await;
        match answer {
            Ok(Answer::Transfer(transferred)) => Ok(match transferred {
                Transferred::Accepted => Ok(()),
                Transferred::VoteChanged { actual } => Err(TransferLeaderError::VoteChanged {
                    expected: *request.from_leader(),
                    actual: raft_vote(actual),
                }),
                Transferred::Behind { actual } => Err(TransferLeaderError::LogNotFlushed {
                    expected: request.last_log_id().copied(),
                    actual: actual.map(log_id),
                }),
            }),
            Ok(other) => Err(rpc_error(unexpected(&other))),
            Err(error) => Err(rpc_error(error)),
        }
    }

    async fn full_snapshot(
        &mut self,
        vote: RaftVote,
        snapshot: RaftSnapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        tokio::select! {
            biased;
            closed = cancel => Err(StreamingError::Closed(closed)),
            sent = self.send(vote, snapshot.snapshot) => match sent {
                Ok(vote) => Ok(SnapshotResponse::new(vote)),
                Err(error) => Err(rpc_error(error).into()),
            },
        }
    }
}
