//! Answering other servers.
//!
//! A message is looked at only after its envelope was found to be for this server of this cluster, and from one that was
//! not removed; a removed server is told so, for it may not have heard of it. While the disk is
//! full, entries and snapshots are refused: this server then lags behind, as if it were away, and catches up once there
//! is room. Votes and heartbeats go on.

use bytes::Bytes;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, TransferLeaderError, TransferLeaderRequest,
    VoteRequest,
};

use crate::command::{Batch, Command, Outcome};
use crate::key::ServerId;
use crate::message::{
    Answer, Append, Appended, Ballot, BallotAnswer, Denied, Envelope, Request, SnapshotAnswer,
    SnapshotChunk, Transfer, Transferred,
};
use crate::raft::Consensus;
use crate::raft::vocabulary::{Types, entry, log_id, position, raft_vote, snapshot, vote};

const STOPPED: &str = "this server's consensus has stopped";
const DISK_FULL: &str = "this server's disk is full";

impl Consensus {
    /// Answers a message. `proven` is the server that the connection proved to come from, where it proves one.
    pub(crate) async fn answer(&self, proven: Option<ServerId>, message: Bytes) -> Bytes {
        let mut back = Envelope {
            cluster_id: self.cluster_id.to_string(),
            from: self.me,
            to: proven.unwrap_or_default(),
        };
        let mut version = self.wire;
        let answer = match Request::open(message, self.wire) {
            Err(error) => Answer::Refused(format!("the message is unreadable: {error}")),
            Ok((envelope, body)) => {
                back.to = envelope.from;
                version = body.version();
                match envelope.refuse(&self.cluster_id, self.me, proven) {
                    Some(reason) => Answer::Refused(reason),
                    None if self.hub.removed(envelope.from) => Answer::Removed,
                    None => match body.request() {
                        Err(error) => {
                            Answer::Refused(format!("the message is unreadable: {error}"))
                        }
                        Ok(request) => {
                            self.peers.heard(envelope.from, version);
                            self.serve(envelope.from, request)
                                .await
                                .unwrap_or_else(Answer::Refused)
                        }
                    },
                }
            }
        };
        answer.encode(&back, version)
    }

    async fn serve(&self, from: ServerId, request: Request) -> Result<Answer, String> {
        match request {
            Request::Append(append) => self.append(append).await.map(Answer::Append),
            Request::Vote(ballot) => {
                let response = self.raft.vote(vote_request(ballot)).await;
                response.map(ballot_answer).map_err(|_| STOPPED.to_owned())
            }
            Request::PreVote(ballot) => {
                let response = self.raft.pre_vote(vote_request(ballot)).await;
                response.map(ballot_answer).map_err(|_| STOPPED.to_owned())
            }
            Request::Transfer(transfer) => self.transfer(transfer).await.map(Answer::Transfer),
            Request::Snapshot(chunk) => self.receive(from, chunk).await.map(Answer::Snapshot),
            Request::ReadIndex => Ok(Answer::ReadIndex(self.read_index().await)),
            Request::Write(batch) => Ok(Answer::Write(self.order_for_another(batch).await)),
            Request::Member(change) => Ok(Answer::Member(self.change_members(change).await)),
        }
    }

    async fn append(&self, append: Append) -> Result<Appended, String> {
        if !append.records.is_empty() && self.volume.full() {
            return Err(DISK_FULL.to_owned());
        }
        let entries = append
            .records
            .into_iter()
            .map(entry)
            .collect::<Result<_, _>>()
            .map_err(|error| format!("the entries are unreadable: {error}"))?;
        let request = AppendEntriesRequest {
            vote: raft_vote(append.vote),
            prev_log_id: append.previous.map(log_id),
            entries,
            leader_commit: append.committed.map(log_id),
        };
        match self.raft.append_entries(request).await {
            Ok(AppendEntriesResponse::Success) => Ok(Appended::All),
            Ok(AppendEntriesResponse::PartialSuccess(upto)) => {
                Ok(Appended::Upto(upto.as_ref().map(position)))
            }
            Ok(AppendEntriesResponse::Conflict) => Ok(Appended::Conflict),
            Ok(AppendEntriesResponse::HigherVote(higher)) => {
                Ok(Appended::HigherVote(vote(&higher)))
            }
            Err(_) => Err(STOPPED.to_owned()),
        }
    }

    async fn transfer(&self, transfer: Transfer) -> Result<Transferred, String> {
        let request = TransferLeaderRequest::new(
            raft_vote(transfer.vote),
            transfer.to,
            transfer.last.map(log_id),
        );
        match self.raft.handle_transfer_leader(request).await {
            Ok(Ok(())) => Ok(Transferred::Accepted),
            Ok(Err(TransferLeaderError::VoteChanged { actual, .. })) => {
                Ok(Transferred::VoteChanged {
                    actual: vote(&actual),
                })
            }
            Ok(Err(TransferLeaderError::LogNotFlushed { actual, .. })) => Ok(Transferred::Behind {
                actual: actual.as_ref().map(position),
            }),
            Err(_) => Err(STOPPED.to_owned()),
        }
    }

    async fn receive(
        &self,
        from: ServerId,
        chunk: SnapshotChunk,
    ) -> Result<SnapshotAnswer, String> {
        if self.volume.full() {
            return Err(DISK_FULL.to_owned());
        }
        let leader = chunk.vote;
        let Some(state) = self.assembly.lock().await.take(from, chunk)? else {
            return Ok(SnapshotAnswer::Next);
        };
        // openraft takes a snapshot that no leader of that vote can have for a broken cluster, and panics.
        let owned = state
            .applied
            .is_some_and(|applied| (applied.term, applied.server) <= (leader.term, leader.server));
        if !owned {
            return Err("the snapshot is newer than the leader that sent it".to_owned());
        }
        let snapshot = snapshot(state).map_err(|error| error.to_string())?;
        match self
            .raft
            .install_full_snapshot(raft_vote(leader), snapshot)
            .await
        {
            Ok(response) => Ok(SnapshotAnswer::Vote(vote(&response.vote))),
            Err(_) => Err(STOPPED.to_owned()),
        }
    }

    /// Orders a batch that came to another server.
    async fn order_for_another(&self, batch: Batch) -> Result<(u64, Vec<Outcome>), Denied> {
        let Ok(_slot) = self.forwarded.try_acquire() else {
            return Err(Denied::Overloaded);
        };
        for command in batch.0.iter() {
            if command.fence.is_some() {
                // A fence says "as long as I lead", so only the leader itself can write with one.
                return Err(Denied::Invalid("a fenced write was passed on".to_owned()));
            }
            if let Err(error) = command.check() {
                return Err(Denied::Invalid(error.to_string()));
            }
        }
        if self.volume.full() && batch.0.iter().any(Command::puts) {
            return Err(Denied::DiskFull);
        }
        self.propose(batch).await
    }
}

fn vote_request(ballot: Ballot) -> VoteRequest<Types> {
    VoteRequest {
        vote: raft_vote(ballot.vote),
        last_log_id: ballot.last.map(log_id),
        leadership_transfer: ballot.transfer,
    }
}

fn ballot_answer(response: openraft::raft::VoteResponse<Types>) -> Answer {
    Answer::Vote(BallotAnswer {
        vote: vote(&response.vote),
        granted: response.vote_granted,
        last: response.last_log_id.as_ref().map(position),
    })
}
