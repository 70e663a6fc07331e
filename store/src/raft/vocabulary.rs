//! openraft's types, and the store's own beside them.
//!
//! Everything that is written or sent uses the store's types; the functions here translate.

use std::collections::BTreeMap;
use std::io;

use openraft::entry::RaftEntry;
use openraft::type_config::alias;
use openraft::{BasicNode, EntryPayload};

use crate::command::{Batch, Outcome};
use crate::log::{Payload, Record, Vote};
use crate::machine::{Members, Position, State};
use crate::raft::storage::Applier;

#[cfg(not(test))]
type Runtime = openraft::impls::TokioRuntime;
#[cfg(test)]
type Runtime = crate::sim::runtime::Runtime;

openraft::declare_raft_types!(
    /// The store's types, as openraft wants them named.
    pub(crate) Types:
        D = Batch,
        R = Outcomes,
        NodeId = u64,
        Node = BasicNode,
        AsyncRuntime = Runtime
);

pub(super) type LogId = alias::LogIdOf<Types>;
pub(super) type LeaderId = alias::LeaderIdOf<Types>;
pub(super) type RaftEntryOf = alias::EntryOf<Types>;
pub(super) type StoredMembership = alias::StoredMembershipOf<Types>;
pub(super) type SnapshotMeta = alias::SnapshotMetaOf<Types>;
pub(super) type RaftSnapshot = alias::SnapshotOf<Types, State>;
pub(super) type RaftVote = alias::VoteOf<Types>;
pub(super) type Raft = openraft::Raft<Types, Applier>;

/// The answers to one batch, in its order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outcomes(pub(super) Vec<Outcome>);

pub(super) fn log_id(position: Position) -> LogId {
    let leader = LeaderId {
        term: position.term,
        node_id: position.server,
    };
    LogId::new(leader, position.index)
}

pub(super) fn position(log_id: &LogId) -> Position {
    let leader = log_id.committed_leader_id();
    Position {
        term: leader.term,
        server: leader.node_id,
        index: log_id.index(),
    }
}

pub(super) fn raft_vote(vote: Vote) -> RaftVote {
    RaftVote {
        leader_id: LeaderId {
            term: vote.term,
            node_id: vote.server,
        },
        committed: vote.committed,
    }
}

pub(super) fn vote(vote: &RaftVote) -> Vote {
    Vote {
        term: vote.leader_id.term,
        server: vote.leader_id.node_id,
        committed: vote.committed,
    }
}

pub(super) fn members(membership: &openraft::Membership<u64, BasicNode>) -> Members {
    Members {
        voters: membership.get_joint_config().clone(),
        addresses: membership
            .nodes()
            .map(|(server, node)| (*server, node.addr.clone()))
            .collect(),
    }
}

pub(super) fn membership(
    members: &Members,
) -> Result<openraft::Membership<u64, BasicNode>, io::Error> {
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

pub(super) fn record(entry: &RaftEntryOf) -> Record {
    Record {
        position: position(&entry.log_id),
        payload: match &entry.payload {
            EntryPayload::Blank => Payload::Blank,
            EntryPayload::Normal(batch) => Payload::Batch(batch.clone()),
            EntryPayload::Membership(membership) => Payload::Members(members(membership)),
        },
    }
}

pub(super) fn entry(record: Record) -> Result<RaftEntryOf, io::Error> {
    let payload = match record.payload {
        Payload::Blank => EntryPayload::Blank,
        Payload::Batch(batch) => EntryPayload::Normal(batch),
        Payload::Members(members) => EntryPayload::Membership(membership(&members)?),
    };
    Ok(RaftEntryOf::new(log_id(record.position), payload))
}

pub(super) fn snapshot(state: State) -> Result<RaftSnapshot, io::Error> {
    let (last_log_id, last_membership) = applied(&state)?;
    Ok(RaftSnapshot {
        meta: SnapshotMeta {
            last_log_id,
            last_membership,
        },
        snapshot: state,
    })
}

pub(super) fn applied(state: &State) -> Result<(Option<LogId>, StoredMembership), io::Error> {
    let stored = StoredMembership::new(
        state.members_position.map(log_id),
        membership(&state.members)?,
    );
    Ok((state.applied.map(log_id), stored))
}
