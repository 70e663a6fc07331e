//! The replicated state, and the one function that changes it.
//!
//! [`State::apply`] is pure and total: no clock, no randomness, no I/O; equal state and equal commands give an equal
//! state, equal outcomes and equal events on every server. Every refusal is a value. Cloning a state is O(1).
//!
//! Invariants: `revision` grows by one for each mutation that takes effect and by nothing else; a command takes effect
//! as a whole or not at all; a command whose fence is not the term it was ordered in never takes effect.
//! Left to others: where values are (`entries.rs`), durability (`log.rs`, `checkpoint.rs`) and telling watchers (`watch.rs`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::codec::{Reader, Writer};
use crate::command::{Batch, Change, Command, Outcome, Precondition};
use crate::entries::{Entries, Mark};
use crate::error::DecodeError;
use crate::event::{Event, EventKind, Previous};
use crate::key::{Entry, Key, Revision, ServerId, Term};
use crate::planted::{Bug, planted};

/// A place in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position {
    pub term: Term,
    pub server: ServerId,
    pub index: u64,
}

impl Position {
    pub(crate) fn encode(self, writer: &mut Writer) {
        writer.u64(self.term);
        writer.u64(self.server);
        writer.u64(self.index);
    }

    pub(crate) fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Position {
            term: reader.u64()?,
            server: reader.u64()?,
            index: reader.u64()?,
        })
    }

    pub(crate) fn encode_option(position: Option<Position>, writer: &mut Writer) {
        match position {
            None => writer.u8(0),
            Some(position) => {
                writer.u8(1);
                position.encode(writer);
            }
        }
    }

    pub(crate) fn decode_option(reader: &mut Reader) -> Result<Option<Self>, DecodeError> {
        if reader.flag("position")? {
            Ok(Some(Position::decode(reader)?))
        } else {
            Ok(None)
        }
    }
}

/// The servers of the cluster, as one log entry names them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Members {
    /// Sets of voters; two while the membership is changing (joint consensus).
    pub voters: Vec<BTreeSet<ServerId>>,
    /// Address of every server, learners included.
    pub addresses: BTreeMap<ServerId, String>,
}

impl Members {
    /// The highest number among the servers.
    pub(crate) fn highest(&self) -> ServerId {
        self.addresses.keys().next_back().copied().unwrap_or(0)
    }

    pub(crate) fn encode(&self, writer: &mut Writer) {
        writer.count(self.voters.len());
        for set in &self.voters {
            writer.count(set.len());
            for server in set {
                writer.u64(*server);
            }
        }
        writer.count(self.addresses.len());
        for (server, address) in &self.addresses {
            writer.u64(*server);
            writer.bytes(address.as_bytes());
        }
    }

    pub(crate) fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        let mut members = Members::default();
        for _ in 0..reader.count(4)? {
            let mut set = BTreeSet::new();
            for _ in 0..reader.count(8)? {
                set.insert(reader.u64()?);
            }
            members.voters.push(set);
        }
        for _ in 0..reader.count(12)? {
            let server = reader.u64()?;
            let address = String::from_utf8_lossy(&reader.bytes()?).into_owned();
            members.addresses.insert(server, address);
        }
        Ok(members)
    }
}

/// Everything the cluster agrees on, after some prefix of the log.
#[derive(Clone, Default)]
pub(crate) struct State {
    pub entries: Entries,
    pub revision: Revision,
    pub applied: Option<Position>,
    pub members: Members,
    pub members_position: Option<Position>,
    /// The highest server number that was ever a member: no later member gets one up to it.
    pub servers_ever: ServerId,
    /// Bytes of all keys and values.
    pub bytes: usize,
}

impl State {
    /// Records that the log entry at `position` was applied.
    pub(crate) fn advance(&mut self, position: Position) {
        debug_assert!(self.applied.is_none_or(|applied| applied < position));
        self.applied = Some(position);
    }

    /// Whether a server was a member once and is none any more, which is for ever: numbers are given out once.
    pub(crate) fn removed(&self, server: ServerId) -> bool {
        server <= self.servers_ever && !self.members.addresses.contains_key(&server)
    }

    /// Applies a membership entry.
    pub(crate) fn set_members(&mut self, position: Position, members: Members) {
        self.advance(position);
        self.servers_ever = self.servers_ever.max(members.highest());
        self.members = members;
        self.members_position = Some(position);
    }

    /// Applies a batch: one outcome a command, in order; the events of those that took effect go to `events`.
    pub(crate) fn apply(
        &mut self,
        position: Position,
        batch: &Batch,
        events: &mut Vec<Event>,
    ) -> Vec<Outcome> {
        self.advance(position);
        batch
            .0
            .iter()
            .map(|command| self.run(position.term, command, events))
            .collect()
    }

    fn run(&mut self, term: Term, command: &Command, events: &mut Vec<Event>) -> Outcome {
        if command.fence.is_some_and(|fence| fence != term) && !planted(Bug::FenceIgnored) {
            return Outcome::Fenced { term };
        }
        // One mutation either takes effect or touches nothing; only several need a way back.
        let before = (command.mutations.len() > 1)
            .then(|| (self.entries.clone(), self.revision, self.bytes));
        let events_before = events.len();
        for (index, mutation) in command.mutations.iter().enumerate() {
            let found = self.entries.mark(mutation.key.as_bytes());
            let found_revision = found.map(|mark| mark.revision);
            let holds = match mutation.precondition {
                Precondition::None => true,
                Precondition::Absent => found.is_none(),
                Precondition::Revision(revision) => {
                    found_revision == Some(revision) || planted(Bug::PreconditionIgnored)
                }
            } || mutation.change == Change::Check && planted(Bug::CheckIgnored);
            if !holds {
                if let Some((entries, revision, bytes)) = before {
                    self.entries = entries;
                    self.revision = revision;
                    self.bytes = bytes;
                }
                events.truncate(events_before);
                return Outcome::Conflict {
                    mutation: index,
                    found: found_revision,
                };
            }
            self.mutate(&mutation.key, &mutation.change, found, events);
        }
        Outcome::Done(self.revision)
    }

    fn mutate(&mut self, key: &Key, change: &Change, found: Option<Mark>, events: &mut Vec<Event>) {
        match (change, found) {
            (Change::Delete, None) | (Change::Check, _) => {}
            (Change::Delete, Some(mark)) => {
                let previous = self.entries.take(key.as_bytes(), mark);
                self.revision += u64::from(!planted(Bug::RevisionReused));
                self.bytes -= mark.weight;
                self.entries.remove(key.as_bytes());
                let entry = Entry::new(
                    previous.key.clone(),
                    previous.stored_value().clone(),
                    previous.create_revision,
                    self.revision,
                );
                events.push(Event {
                    revision: self.revision,
                    kind: EventKind::Delete,
                    entry: Arc::new(entry),
                    previous: Some(Previous::held(previous)),
                });
            }
            (Change::Put(value), found) => {
                let previous = found.map(|mark| self.entries.previous(key.as_bytes(), mark));
                self.revision += 1;
                let create = found.map_or(self.revision, |mark| mark.create_revision);
                let entry = Arc::new(Entry::compact(key, value, create, self.revision));
                self.bytes += entry.bytes();
                self.bytes -= found.map_or(0, |mark| mark.weight);
                self.entries.insert(Arc::clone(&entry));
                events.push(Event {
                    revision: self.revision,
                    kind: EventKind::Put,
                    entry,
                    previous,
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Mutation;

    fn at(term: Term, index: u64) -> Position {
        Position {
            term,
            server: 1,
            index,
        }
    }

    fn one(fence: Option<Term>, mutations: Vec<Mutation>) -> Batch {
        Batch(vec![Command { fence, mutations }].into())
    }

    /// `a` at revision 1, `b` created at 2 and written at 3.
    fn seeded() -> State {
        let mut state = State::default();
        let batch = one(
            None,
            vec![
                Mutation::put("a", Precondition::Absent, "1"),
                Mutation::put("b", Precondition::Absent, "2"),
                Mutation::put("b", Precondition::Revision(2), "3"),
            ],
        );
        let outcomes = state.apply(at(1, 1), &batch, &mut Vec::new());
        assert_eq!(outcomes, [Outcome::Done(3)]);
        state
    }

    fn text(state: &State) -> String {
        let entries: Vec<_> = state
            .entries
            .all()
            .iter()
            .map(|entry| {
                format!(
                    "{}={}@{}/{}",
                    entry.key,
                    entry.value().escape_ascii(),
                    entry.create_revision,
                    entry.revision
                )
            })
            .collect();
        format!("{} | {}", state.revision, entries.join(" "))
    }

    #[test]
    fn preconditions_fences_and_revisions() {
        use Precondition::{Absent, None as Any, Revision as At};
        let conflict = |mutation, found| Outcome::Conflict { mutation, found };
        let unchanged = "3 | a=1@1/1 b=3@2/3";
        let table = [
            (
                "put anew",
                None,
                vec![Mutation::put("c", Absent, "x")],
                Outcome::Done(4),
                "4 | a=1@1/1 b=3@2/3 c=x@4/4",
            ),
            (
                "put over",
                None,
                vec![Mutation::put("a", At(1), "x")],
                Outcome::Done(4),
                "4 | a=x@1/4 b=3@2/3",
            ),
            (
                "put blind",
                None,
                vec![Mutation::put("b", Any, "x")],
                Outcome::Done(4),
                "4 | a=1@1/1 b=x@2/4",
            ),
            (
                "put on existing",
                None,
                vec![Mutation::put("b", Absent, "x")],
                conflict(0, Some(3)),
                unchanged,
            ),
            (
                "put on old revision",
                None,
                vec![Mutation::put("b", At(2), "x")],
                conflict(0, Some(3)),
                unchanged,
            ),
            (
                "put on absent",
                None,
                vec![Mutation::put("c", At(2), "x")],
                conflict(0, None),
                unchanged,
            ),
            (
                "delete",
                None,
                vec![Mutation::delete("a", At(1))],
                Outcome::Done(4),
                "4 | b=3@2/3",
            ),
            (
                "delete old",
                None,
                vec![Mutation::delete("b", At(2))],
                conflict(0, Some(3)),
                unchanged,
            ),
            (
                "delete absent",
                None,
                vec![Mutation::delete("c", Any)],
                Outcome::Done(3),
                unchanged,
            ),
            (
                "delete then create",
                None,
                vec![Mutation::delete("a", Any), Mutation::put("a", Absent, "x")],
                Outcome::Done(5),
                "5 | a=x@5/5 b=3@2/3",
            ),
            (
                "all or nothing",
                None,
                vec![
                    Mutation::put("a", Any, "x"),
                    Mutation::put("z", Any, "y"),
                    Mutation::delete("b", At(2)),
                ],
                conflict(2, Some(3)),
                unchanged,
            ),
            ("nothing", None, vec![], Outcome::Done(3), unchanged),
            (
                "check alone",
                None,
                vec![Mutation::check("b", At(3)), Mutation::check("c", Absent)],
                Outcome::Done(3),
                unchanged,
            ),
            (
                "check, then put",
                None,
                vec![Mutation::check("b", At(3)), Mutation::put("c", Absent, "x")],
                Outcome::Done(4),
                "4 | a=1@1/1 b=3@2/3 c=x@4/4",
            ),
            (
                "check of an old revision",
                None,
                vec![Mutation::put("c", Absent, "x"), Mutation::check("b", At(2))],
                conflict(1, Some(3)),
                unchanged,
            ),
            (
                "check that something is absent",
                None,
                vec![Mutation::check("a", Absent), Mutation::delete("b", Any)],
                conflict(0, Some(1)),
                unchanged,
            ),
            (
                "check of what is gone",
                None,
                vec![Mutation::check("c", At(2)), Mutation::delete("b", Any)],
                conflict(0, None),
                unchanged,
            ),
            (
                "check after a write of the same",
                None,
                vec![Mutation::delete("a", Any), Mutation::check("a", Absent)],
                Outcome::Done(4),
                "4 | b=3@2/3",
            ),
            (
                "own term",
                Some(7),
                vec![Mutation::delete("a", Any)],
                Outcome::Done(4),
                "4 | b=3@2/3",
            ),
            (
                "old term",
                Some(6),
                vec![Mutation::delete("a", Any)],
                Outcome::Fenced { term: 7 },
                unchanged,
            ),
            (
                "later term",
                Some(8),
                vec![Mutation::delete("a", Any)],
                Outcome::Fenced { term: 7 },
                unchanged,
            ),
        ];
        for (case, fence, mutations, outcome, after) in table {
            let mut state = seeded();
            let mut events = Vec::new();
            let outcomes = state.apply(at(7, 2), &one(fence, mutations), &mut events);
            assert_eq!(outcomes, [outcome], "{case}");
            assert_eq!(text(&state), after, "{case}");
            let revisions: Vec<_> = events.iter().map(|event| event.revision).collect();
            let expected: Vec<_> = (4..=state.revision).collect();
            assert_eq!(revisions, expected, "{case}: one event a revision");
        }
    }

    #[test]
    fn a_refused_command_does_not_disturb_its_batch() {
        let mut state = seeded();
        let command = |mutations| Command {
            fence: None,
            mutations,
        };
        let batch = Batch(
            vec![
                command(vec![Mutation::put("a", Precondition::Revision(1), "x")]),
                command(vec![Mutation::put("a", Precondition::Revision(1), "y")]),
                command(vec![Mutation::put("a", Precondition::Revision(4), "z")]),
            ]
            .into(),
        );
        let outcomes = state.apply(at(1, 2), &batch, &mut Vec::new());
        assert_eq!(
            outcomes,
            [
                Outcome::Done(4),
                Outcome::Conflict {
                    mutation: 0,
                    found: Some(4)
                },
                Outcome::Done(5)
            ]
        );
    }

    #[test]
    fn a_delete_event_carries_the_last_value_under_the_revision_of_the_deletion() {
        let mut state = seeded();
        let mut events = Vec::new();
        let batch = one(None, vec![Mutation::delete("b", Precondition::None)]);
        state.apply(at(1, 2), &batch, &mut events);
        let event = events.pop().expect("one event");
        assert_eq!(event.kind, EventKind::Delete);
        assert_eq!((event.entry.revision, event.entry.create_revision), (4, 2));
        assert_eq!(event.entry.value(), "3");
        assert_eq!(event.previous.expect("was there").revision, 3);
    }

    #[test]
    fn members_survive_their_encoding() {
        let members = Members {
            voters: vec![BTreeSet::from([1]), BTreeSet::from([1, 2, 3])],
            addresses: (1..=4).map(|id| (id, format!("host{id}:7000"))).collect(),
        };
        let mut writer = Writer::new(1);
        members.encode(&mut writer);
        let record = bytes::Bytes::from(writer.finish(b""));
        let mut reader = Reader::open(record, b"", 1).expect("frame");
        assert_eq!(Members::decode(&mut reader).expect("decodes"), members);
    }
}
