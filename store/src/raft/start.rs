//! The first election after a start.
//!
//! Left alone, openraft lets an election time-out pass and has each server campaign by itself. Of servers that were stopped
//! one after the other only the last one has the whole log, and a candidacy that fails, or meets one that is better placed,
//! costs another time-out. So its own elections are off at first: each server asks the others, as they come up, whether
//! they would vote for it, and their answers say whose turn it is. The longest log goes first, and of equal ones the highest
//! number; at once if all have answered, else after a turn for those who have not.
//!
//! Invariants: asking changes nothing anywhere; a candidacy begins with openraft's own question, so a leader that a majority
//! follows is not disturbed; who is elected is openraft's decision, whosever turn it was; whatever happens, its own
//! elections are on again after [`PATIENCE`].

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt as _};
use openraft::ServerState;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::Fatal;
use openraft::type_config::alias;
use tokio::time::Instant;

use crate::key::{ServerId, Term};
use crate::log::Vote;
use crate::machine::{Members, Position};
use crate::message::{Answer, Ballot, BallotAnswer, Request};
use crate::network::{Lane, Peer};
use crate::raft::ELECTION_MIN_MS;
use crate::raft::peers::Peers;
use crate::raft::vocabulary::{Raft, Types, members, position, vote};

/// How long openraft's own elections stay off: servers that were started together have loaded by then.
const PATIENCE: Duration = Duration::from_secs(2);

/// So long after its answer a server is asked again; the longer one is for later, when nobody can be in a hurry.
const PAUSE: Duration = Duration::from_millis(25);
const PAUSE_LATER: Duration = Duration::from_millis(200);

/// How long whoever comes next leaves to the one before: two round trips and two fsyncs.
const TURN: Duration = Duration::from_millis(100);

/// Longest wait for an answer, and for the end of a candidacy.
const CANDIDACY: Duration = Duration::from_millis(ELECTION_MIN_MS);

/// What a server knows by itself.
#[derive(Debug, Clone)]
pub(super) struct Own {
    me: ServerId,
    vote: Vote,
    last: Option<Position>,
    leads: bool,
    members: Members,
    /// When it last voted or heard of a leader; when it was started, before that.
    touched: Option<alias::InstantOf<Types>>,
}

impl Own {
    pub(super) async fn look(raft: &Raft, me: ServerId) -> Result<Own, Fatal<Types>> {
        raft.with_raft_state(move |state| Own {
            me,
            vote: vote(state.vote_ref()),
            last: state.log_ids.last().map(position),
            leads: state.server_state == ServerState::Leader,
            members: members(state.membership_state.effective().membership()),
            touched: state.vote_last_modified(),
        })
        .await
    }

    pub(super) fn votes_alone(&self) -> bool {
        let me = BTreeSet::from([self.me]);
        self.members.voters.iter().all(|set| *set == me) && !self.members.voters.is_empty()
    }

    /// Who votes beside this server; nobody if it does not vote itself.
    fn others(&self) -> BTreeSet<ServerId> {
        let mut voters: BTreeSet<_> = self.members.voters.iter().flatten().copied().collect();
        match voters.remove(&self.me) {
            true => voters,
            false => BTreeSet::new(),
        }
    }
}

/// By server, what it last said.
type Answers = BTreeMap<ServerId, BallotAnswer>;

/// How many turns a server leaves to others before it campaigns. `None` while no majority would vote for it.
fn turns(own: &Own, answers: &Answers) -> Option<u32> {
    let votes = |server: &&ServerId| {
        **server == own.me || answers.get(server).is_some_and(|answer| answer.granted)
    };
    let voters = &own.members.voters;
    let votes_itself = voters.iter().any(|set| set.contains(&own.me));
    let majority = |set: &BTreeSet<ServerId>| set.iter().filter(votes).count() * 2 > set.len();
    if !votes_itself || !voters.iter().all(majority) {
        return None;
    }
    let better = answers
        .iter()
        .filter(|(server, answer)| (answer.last, **server) > (own.last, own.me));
    // Somebody may be about to be elected by a majority that this one's candidacy would take away again.
    let campaigning = answers.values().any(|answer| {
        let (theirs, ours) = (answer.vote, own.vote);
        !theirs.committed && (theirs.term, theirs.server) > (ours.term, ours.server)
    });
    let missing = answers.len() < own.others().len();
    Some(better.count() as u32 + u32::from(campaigning || missing))
}

/// Sees to the election of a leader, and returns once this server leads or has heard of one since it was `loaded`; or with
/// an error once consensus has stopped.
pub(super) async fn first_election(
    raft: &Raft,
    peers: &Peers,
    loaded: Own,
) -> Result<(), Fatal<Types>> {
    let me = loaded.me;
    let begun = Instant::now();
    let mut metrics = raft.server_metrics();
    let mut answers = Answers::new();
    let mut asking = FuturesUnordered::new();
    for server in loaded.others() {
        asking.push(ask(peers, &loaded, &answers, server, Duration::ZERO));
    }
    let mut elections = false;
    // Since when a majority would vote for this server, and until when a candidacy is left alone.
    let mut electable = None;
    let mut candidate_until = begun;
    loop {
        let own = Own::look(raft, me).await?;
        if own.leads || own.vote.committed && own.touched != loaded.touched {
            tracing::debug!(leader = own.vote.server, after = ?begun.elapsed(), "there is a leader");
            raft.runtime_config().elect(true);
            return Ok(());
        }
        let now = Instant::now();
        if !elections && now >= begun + PATIENCE {
            elections = true;
            raft.runtime_config().elect(true);
        }
        match turns(&own, &answers) {
            None => electable = None,
            Some(turns) => {
                let since = *electable.get_or_insert(now);
                if now >= since + TURN * turns && now >= candidate_until {
                    tracing::info!(turns, log = ?own.last, "this server campaigns");
                    // A sole voter has nobody to ask.
                    let ask = !own.others().is_empty();
                    raft.trigger().elect(ask).await?;
                    // openraft learns of a higher term by its question, and has to be told again then.
                    let behind = newest_term(&answers) > own.vote.term;
                    candidate_until = now + if behind { TURN } else { CANDIDACY };
                }
            }
        }
        let pause = if elections { PAUSE_LATER } else { PAUSE };
        tokio::select! {
            biased;
            Some((server, answer)) = asking.next() => {
                match answer {
                    Some(answer) => answers.insert(server, answer),
                    None => answers.remove(&server),
                };
                asking.push(ask(peers, &own, &answers, server, pause));
            }
            changed = metrics.changed() => changed.map_err(|_| Fatal::Stopped)?,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

fn newest_term(answers: &Answers) -> Term {
    let terms = answers.values().map(|answer| answer.vote.term);
    terms.max().unwrap_or_default()
}

/// Asks another server after a pause whether it would vote for this one.
fn ask(
    peers: &Peers,
    own: &Own,
    answers: &Answers,
    server: ServerId,
    pause: Duration,
) -> impl Future<Output = (ServerId, Option<BallotAnswer>)> + use<> {
    let ballot = Ballot {
        vote: Vote {
            term: own.vote.term.max(newest_term(answers)) + 1,
            server: own.me,
            committed: false,
        },
        last: own.last,
        transfer: false,
    };
    let address = own.members.addresses.get(&server).cloned();
    let peers = peers.clone();
    async move {
        tokio::time::sleep(pause).await;
        let peer = Peer {
            server,
            address: address.unwrap_or_default(),
        };
        let request = Request::PreVote(ballot);
        match peers.ask(&peer, Lane::Control, &request, CANDIDACY).await {
            Ok(Answer::Vote(answer)) => (server, Some(answer)),
            Ok(_) | Err(_) => (server, None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn last(term: u64, index: u64) -> Option<Position> {
        Some(Position {
            term,
            server: 1,
            index,
        })
    }

    fn uncommitted(term: u64, server: ServerId) -> Vote {
        Vote {
            term,
            server,
            committed: false,
        }
    }

    /// Server 2 of three, which ended at entry 10 of term 3.
    fn second() -> Own {
        let voters = BTreeSet::from([1, 2, 3]);
        Own {
            me: 2,
            vote: uncommitted(3, 1),
            last: last(3, 10),
            leads: false,
            members: Members {
                voters: vec![voters],
                addresses: BTreeMap::new(),
            },
            touched: None,
        }
    }

    /// What a server says that has this log, and gave its last vote in that term.
    fn says(granted: bool, log: Option<Position>, vote: Vote) -> BallotAnswer {
        BallotAnswer {
            vote,
            granted,
            last: log,
        }
    }

    #[test]
    fn the_longest_log_goes_first_and_the_others_leave_it_turns() {
        let told = uncommitted(3, 1);
        let (yes, no) = (true, false);
        let cases = [
            ("nobody answers", vec![], None),
            (
                "one has a shorter log, one is away",
                vec![(1, says(yes, last(3, 9), told))],
                Some(1),
            ),
            (
                "both have shorter ones",
                vec![
                    (1, says(yes, last(3, 9), told)),
                    (3, says(yes, last(3, 8), told)),
                ],
                Some(0),
            ),
            (
                "equal ones, and a higher number",
                vec![
                    (1, says(yes, last(3, 10), told)),
                    (3, says(yes, last(3, 10), told)),
                ],
                Some(1),
            ),
            (
                "a majority, and a longer log",
                vec![
                    (1, says(yes, last(3, 9), told)),
                    (3, says(no, last(3, 11), told)),
                ],
                Some(1),
            ),
            (
                "a later term is a longer log",
                vec![
                    (1, says(yes, last(3, 9), told)),
                    (3, says(no, last(4, 1), told)),
                ],
                Some(1),
            ),
            (
                "no majority",
                vec![
                    (1, says(no, last(3, 11), told)),
                    (3, says(no, last(3, 12), told)),
                ],
                None,
            ),
            (
                "somebody campaigns",
                vec![
                    (1, says(yes, last(3, 9), uncommitted(4, 1))),
                    (3, says(yes, last(3, 8), told)),
                ],
                Some(1),
            ),
            (
                "a leader has its lease",
                vec![
                    (1, says(no, last(3, 10), told)),
                    (3, says(no, last(3, 10), told)),
                ],
                None,
            ),
        ];
        for (what, answers, expected) in cases {
            let answers = answers.into_iter().collect();
            assert_eq!(turns(&second(), &answers), expected, "{what}");
        }
    }

    #[test]
    fn both_sets_of_voters_have_to_agree_and_a_learner_never_campaigns() {
        let told = uncommitted(3, 1);
        let shorter = |server| (server, says(true, last(3, 9), told));
        let longer = |server| (server, says(false, last(3, 11), told));
        type Case<'a> = (&'a [&'a [ServerId]], Answers, Option<u32>);
        let cases: [Case<'_>; 5] = [
            (&[&[2]], Answers::new(), Some(0)),
            (&[], Answers::new(), None),
            (&[&[1, 3]], Answers::new(), None),
            (
                &[&[1, 2, 3], &[2, 3, 4]],
                Answers::from([shorter(1), shorter(3), shorter(4)]),
                Some(0),
            ),
            (
                &[&[1, 2, 3], &[2, 4, 5]],
                Answers::from([shorter(1), shorter(3), longer(4), longer(5)]),
                None,
            ),
        ];
        for (voters, answers, expected) in cases {
            let mut own = second();
            let sets = voters.iter().map(|set| set.iter().copied().collect());
            own.members.voters = sets.collect();
            assert_eq!(turns(&own, &answers), expected, "{voters:?}");
        }
    }
}
