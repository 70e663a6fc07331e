//! Who belongs to the cluster, and how that changes.
//!
//! A server comes in as a learner under a number that was never used before, catches up, and is promoted. A server that
//! lost its disk is replaced by a new number: with the old one it would break promises it no longer remembers. Changes
//! run on the leader, one at a time, through joint consensus.
//!
//! Invariants: a number is given out once; at most [`VOTERS_MAX`] servers vote; a change that would leave too few
//! reachable voters to go on is refused before it begins; a leader hands over before it is removed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{ClientWriteError, RaftError};
use openraft::raft::Precondition;
use openraft::{BasicNode, ChangeMembers, Instant};

use crate::key::ServerId;
use crate::message::{Denied, MemberChange};
use crate::raft::vocabulary::{LogId, Types};
use crate::raft::{Consensus, ELECTION_MAX_MS};

/// Most voters: with five, any two may fail; more make every write slower.
const VOTERS_MAX: usize = 5;

/// A learner this close to the end of the log counts as caught up: it closes the rest within the change itself.
const CAUGHT_UP_ENTRIES: u64 = 100;

/// How long a promotion waits for the learner to catch up, and a change for its two entries to commit.
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(10);
const CHANGE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a change waits for the one before it; shorter than whoever passed it on waits for the answer.
const TURN_TIMEOUT: Duration = Duration::from_secs(3);

/// A transfer is one vote and one entry; past this the target is not there.
const TRANSFER_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a change waits for answers of the servers that it would leave: twenty heartbeats.
const HEARD_TIMEOUT: Duration = Duration::from_secs(2);

/// How often a wait looks again.
const POLL: Duration = Duration::from_millis(20);

/// A server of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its number.
    pub server: ServerId,
    /// Where the other servers reach it.
    pub address: String,
    /// Whether it votes; a learner only follows.
    pub voter: bool,
    /// Whether it leads, as far as the asked server knows.
    pub leader: bool,
    /// Entries it has not acknowledged yet; only the leader knows.
    pub behind: Option<u64>,
}

/// What the leader sees of the cluster.
struct Cluster {
    voters: BTreeSet<ServerId>,
    addresses: BTreeMap<ServerId, String>,
    membership: Option<LogId>,
    last: u64,
    matched: BTreeMap<ServerId, u64>,
    /// Servers that answered a heartbeat of late, this one included.
    reachable: BTreeSet<ServerId>,
}

fn invalid<T>(reason: impl Into<String>) -> Result<T, Denied> {
    Err(Denied::Invalid(reason.into()))
}

impl Consensus {
    /// The members as this server has applied them.
    pub(crate) fn members(&self) -> Vec<Member> {
        let members = self.hub.state().members;
        let leader = self.leads.borrow().leader;
        let seen = (leader == Some(self.me)).then(|| self.cluster());
        let behind = |server: &ServerId| {
            let seen = seen.as_ref()?;
            let matched = match server {
                server if *server == self.me => seen.last,
                server => seen.matched.get(server).copied().unwrap_or(0),
            };
            Some(seen.last.saturating_sub(matched))
        };
        members
            .addresses
            .iter()
            .map(|(server, address)| Member {
                server: *server,
                address: address.clone(),
                voter: members.voters.iter().any(|set| set.contains(server)),
                leader: leader == Some(*server),
                behind: behind(server),
            })
            .collect()
    }

    fn cluster(&self) -> Cluster {
        self.cluster_heard_within(Duration::from_millis(ELECTION_MAX_MS))
    }

    fn cluster_heard_within(&self, time: Duration) -> Cluster {
        let metrics = self.raft.metrics().borrow_watched().clone();
        let heard = metrics.heartbeat.into_iter().flatten();
        let mut reachable: BTreeSet<_> = heard
            .filter(|(_, at)| at.as_ref().is_some_and(|at| at.elapsed() < time))
            .map(|(server, _)| server)
            .collect();
        reachable.insert(self.me);
        let membership = metrics.membership_config;
        Cluster {
            voters: membership.voter_ids().collect(),
            addresses: membership
                .nodes()
                .map(|(server, node)| (*server, node.addr.clone()))
                .collect(),
            membership: *membership.log_id(),
            last: metrics.last_log_index.unwrap_or(0),
            matched: metrics
                .replication
                .into_iter()
                .flatten()
                .filter_map(|(server, matched)| Some((server, matched?.index())))
                .collect(),
            reachable,
        }
    }

    /// Carries out a change on the leader. Returns the server it was about.
    pub(crate) async fn change_members(&self, change: MemberChange) -> Result<ServerId, Denied> {
        let leads = *self.leads.borrow();
        if leads.term.is_none() {
            return Err(self.not_leader(leads.leader));
        }
        let turn = tokio::time::timeout(TURN_TIMEOUT, self.changing.lock()).await;
        let Ok(_one) = turn else {
            return Err(Denied::Overloaded);
        };
        match change {
            MemberChange::Add { address } => self.add(address).await,
            MemberChange::Promote { server } => self.promote(server).await,
            MemberChange::Remove { server } => self.remove(server).await,
            MemberChange::Swap { old, new } => self.swap(old, new).await,
            MemberChange::Move { server, address } => self.relocate(server, address).await,
            MemberChange::Transfer { to } => self.hand_over(to).await,
        }
    }

    async fn add(&self, address: String) -> Result<ServerId, Denied> {
        let cluster = self.cluster();
        if let Some((server, _)) = cluster.addresses.iter().find(|(_, at)| **at == address) {
            return invalid(format!("server {server} has the address {address} already"));
        }
        let known = cluster.addresses.keys().next_back().copied().unwrap_or(0);
        let server = self.hub.state().servers_ever.max(known) + 1;
        let node = BTreeMap::from([(server, BasicNode::new(address))]);
        self.change(&cluster, ChangeMembers::AddNodes(node)).await?;
        Ok(server)
    }

    async fn promote(&self, server: ServerId) -> Result<ServerId, Denied> {
        let cluster = self.cluster();
        if !cluster.addresses.contains_key(&server) {
            return invalid(format!("there is no server {server}; add it first"));
        }
        if cluster.voters.contains(&server) {
            return Ok(server);
        }
        if cluster.voters.len() >= VOTERS_MAX {
            return invalid(format!(
                "{VOTERS_MAX} servers vote already; remove one first"
            ));
        }
        self.wait_caught_up(server).await?;
        let change = ChangeMembers::AddVoterIds(BTreeSet::from([server]));
        self.change(&self.cluster(), change).await?;
        Ok(server)
    }

    async fn remove(&self, server: ServerId) -> Result<ServerId, Denied> {
        let cluster = self.cluster();
        if !cluster.addresses.contains_key(&server) {
            return invalid(format!("there is no server {server}"));
        }
        let one = BTreeSet::from([server]);
        if !cluster.voters.contains(&server) {
            self.change(&cluster, ChangeMembers::RemoveNodes(one))
                .await?;
            return Ok(server);
        }
        let cluster = self.enough_remain(|voters| voters - &one).await?;
        if server == self.me {
            // Whoever asked asks again there.
            return Err(Denied::NotLeader(Some(self.hand_over(None).await?)));
        }
        self.change(&cluster, ChangeMembers::RemoveVoters(one))
            .await?;
        Ok(server)
    }

    /// The cluster, once the voters that a change would leave have shown that they could go on by themselves: enough of them
    /// have answered since the call. Without them the change would never end, and nothing else could be changed.
    ///
    /// # Errors
    /// Why they could not.
    async fn enough_remain(
        &self,
        remaining: impl Fn(&BTreeSet<ServerId>) -> BTreeSet<ServerId>,
    ) -> Result<Cluster, Denied> {
        let began = tokio::time::Instant::now();
        loop {
            let cluster = self.cluster_heard_within(began.elapsed());
            match cluster.check_remaining(remaining(&cluster.voters)) {
                Ok(()) => return Ok(cluster),
                Err(denied) if began.elapsed() >= HEARD_TIMEOUT => return Err(denied),
                Err(_) => tokio::time::sleep(POLL).await,
            }
        }
    }

    async fn swap(&self, old: ServerId, new: ServerId) -> Result<ServerId, Denied> {
        let cluster = self.cluster();
        if !cluster.voters.contains(&old) {
            return invalid(format!("server {old} does not vote"));
        }
        if !cluster.addresses.contains_key(&new) || cluster.voters.contains(&new) {
            return invalid(format!("server {new} is not a learner; add it first"));
        }
        self.wait_caught_up(new).await?;
        let (out, into) = (BTreeSet::from([old]), BTreeSet::from([new]));
        let cluster = self
            .enough_remain(|voters| &(voters - &out) | &into)
            .await?;
        let change = ChangeMembers::Batch(vec![
            ChangeMembers::AddVoterIds(into),
            ChangeMembers::RemoveVoters(out),
        ]);
        self.change(&cluster, change).await?;
        Ok(new)
    }

    async fn relocate(&self, server: ServerId, address: String) -> Result<ServerId, Denied> {
        let cluster = self.cluster();
        match cluster.addresses.get(&server) {
            None => return invalid(format!("there is no server {server}")),
            Some(known) if *known == address => return Ok(server),
            Some(_) => {}
        }
        let node = BTreeMap::from([(server, BasicNode::new(address))]);
        self.change(&cluster, ChangeMembers::SetNodes(node)).await?;
        Ok(server)
    }

    /// Puts the address right under which a sole voter is known: it may have been opened without one before.
    pub(super) async fn correct_address(&self, address: &str) {
        if address.is_empty() {
            return;
        }
        if let Err(reason) = self.relocate(self.me, address.to_owned()).await {
            tracing::warn!(?reason, "this server's own address was not corrected");
        }
    }

    async fn hand_over(&self, to: Option<ServerId>) -> Result<ServerId, Denied> {
        let cluster = self.cluster();
        let others = cluster.voters.iter().filter(|server| **server != self.me);
        let to = match to {
            Some(to) if to == self.me => return Ok(to),
            Some(to) if !cluster.voters.contains(&to) => {
                return invalid(format!("server {to} does not vote"));
            }
            Some(to) => to,
            None => {
                let best = others
                    .filter(|server| cluster.reachable.contains(*server))
                    .max_by_key(|server| cluster.matched.get(*server));
                match best {
                    Some(best) => *best,
                    None => return invalid("there is no other voter that answers"),
                }
            }
        };
        if self.raft.trigger().transfer_leader(to).await.is_err() {
            return Err(Denied::NotLeader(None));
        }
        let mut leads = self.leads.clone();
        let moved = leads.wait_for(|leads| leads.leader == Some(to));
        match tokio::time::timeout(TRANSFER_TIMEOUT, moved).await {
            Ok(Ok(_)) => Ok(to),
            Ok(Err(_)) => Err(Denied::NotLeader(None)),
            Err(_) => invalid(format!("server {to} did not take over in time")),
        }
    }

    async fn wait_caught_up(&self, server: ServerId) -> Result<(), Denied> {
        let deadline = tokio::time::Instant::now() + CATCH_UP_TIMEOUT;
        loop {
            let cluster = self.cluster();
            let behind = match cluster.matched.get(&server) {
                Some(matched) => cluster.last.saturating_sub(*matched),
                None => cluster.last + CAUGHT_UP_ENTRIES,
            };
            if behind <= CAUGHT_UP_ENTRIES {
                return Ok(());
            }
            if tokio::time::Instant::now() >= deadline {
                return invalid(format!(
                    "server {server} is still {behind} entries behind; see that it runs and try again"
                ));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Proposes a change that was decided on what `seen` shows.
    async fn change(
        &self,
        seen: &Cluster,
        change: ChangeMembers<u64, BasicNode>,
    ) -> Result<(), Denied> {
        let unchanged = Precondition::<Types>::LastMembershipLogId {
            last_membership_log_id: seen.membership,
        };
        let change = self.raft.change_membership_if(change, false, [unchanged]);
        let Ok(changed) = tokio::time::timeout(CHANGE_TIMEOUT, change).await else {
            return Err(Denied::Unknown);
        };
        match changed {
            Ok(_) => Ok(()),
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(forward))) => {
                Err(self.not_leader(forward.leader_id))
            }
            Err(RaftError::APIError(ClientWriteError::LogEntryDiscarded(_))) => {
                Err(Denied::Unknown)
            }
            Err(RaftError::APIError(error)) => invalid(error.to_string()),
            Err(RaftError::Fatal(_)) => Err(Denied::Unknown),
        }
    }
}

impl Cluster {
    /// Whether these voters could go on by themselves.
    fn check_remaining(&self, voters: BTreeSet<ServerId>) -> Result<(), Denied> {
        if voters.is_empty() {
            return invalid(
                "it is the only server that votes, and without it there is no cluster; join another one first, or stop it",
            );
        }
        let reachable = voters.intersection(&self.reachable).count();
        if reachable * 2 <= voters.len() {
            return invalid(format!(
                "{reachable} of the {} voters that would remain {}, which is no majority; bring back one that is down, or \
                 remove that one instead",
                voters.len(),
                if reachable == 1 { "answers" } else { "answer" },
            ));
        }
        Ok(())
    }
}
