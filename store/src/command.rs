//! What travels through the log: commands, their batches, and their outcomes.
//!
//! A [`Command`] is one caller's all-or-nothing write. A [`Batch`] is one log entry: the commands that were waiting
//! when the proposer looked. Its encoding is versioned by the record that holds it (`log.rs`); the layout is
//! `count ‖ (fence, count ‖ (key, precondition, change))`, integers little endian, byte strings with a u32 length.
//! Outcomes are never stored: they answer the proposer, which may be on another server.
//!
//! Invariants: encode then decode is the identity; decoding arbitrary bytes is an error, never a panic.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::codec::{Reader, Writer};
use crate::error::{DecodeError, WriteError};
use crate::key::{Key, Revision, Term};
use crate::machine::State;
use crate::value::Value;

/// What must hold about a key for the whole write to take effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precondition {
    /// Nothing.
    None,
    /// The key does not exist.
    Absent,
    /// The key's value was written at this revision.
    Revision(Revision),
}

/// What happens to a key.
#[derive(Clone, PartialEq, Eq)]
pub enum Change {
    /// It gets this value.
    Put(Value),
    /// It goes. Deleting a key that is absent is allowed without a precondition, and then changes nothing.
    Delete,
    /// It stays as it is: the rest of the write depends on the precondition.
    Check,
}

impl fmt::Debug for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::Put(value) => write!(f, "Put({} bytes)", value.len()),
            Change::Delete => write!(f, "Delete"),
            Change::Check => write!(f, "Check"),
        }
    }
}

/// One change of one key, or a look at one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mutation {
    /// The key.
    pub key: Key,
    /// What must hold, seen after the earlier mutations of the same write.
    pub precondition: Precondition,
    /// What to do.
    pub change: Change,
}

impl Mutation {
    /// Writes `value` under `key`.
    pub fn put(
        key: impl Into<Key>,
        precondition: Precondition,
        value: impl Into<Value>,
    ) -> Mutation {
        Mutation {
            key: key.into(),
            precondition,
            change: Change::Put(value.into()),
        }
    }

    /// Removes `key`.
    pub fn delete(key: impl Into<Key>, precondition: Precondition) -> Mutation {
        Mutation {
            key: key.into(),
            precondition,
            change: Change::Delete,
        }
    }

    /// Leaves `key` alone, and has the whole write refused where the precondition does not hold of it. It takes no revision.
    ///
    /// While a server of before this was known is in the cluster, a check of a revision writes the same value once more: it
    /// takes a revision then, and of two writes with the same check the second is refused.
    pub fn check(key: impl Into<Key>, precondition: Precondition) -> Mutation {
        Mutation {
            key: key.into(),
            precondition,
            change: Change::Check,
        }
    }
}

/// A mutation that is never refused and changes nothing: the deletion of a key that nobody has.
fn nothing() -> Mutation {
    Mutation::delete(Key::new(vec![0; Key::BYTES_MAX]), Precondition::None)
}

/// One caller's write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Command {
    /// The term the caller acts in, when it acts as the leader.
    pub fence: Option<Term>,
    pub mutations: Vec<Mutation>,
}

/// Largest command in bytes of keys and values: four Kubernetes objects of etcd's 1.5 MiB limit, or one registry chunk.
pub const COMMAND_BYTES_MAX: usize = 6 << 20;

/// The shortest encodings: a mutation has the length of its key, a precondition and a change, a command a flag and a count.
const MUTATION_BYTES_MIN: usize = 6;
const COMMAND_BYTES_MIN: usize = 5;

/// Most mutations in one command; a collection is deleted in pages of this size at most.
pub const COMMAND_MUTATIONS_MAX: usize = 1024;

impl Command {
    /// Checks the limits that keep a log entry and its encoding in bounds.
    pub(crate) fn check(&self) -> Result<(), WriteError> {
        if self.mutations.len() > COMMAND_MUTATIONS_MAX {
            return Err(WriteError::TooLarge {
                what: "mutations",
                bytes: self.mutations.len(),
                max: COMMAND_MUTATIONS_MAX,
            });
        }
        for mutation in &self.mutations {
            let bytes = mutation.key.as_bytes().len();
            if bytes > Key::BYTES_MAX {
                return Err(WriteError::TooLarge {
                    what: "key",
                    bytes,
                    max: Key::BYTES_MAX,
                });
            }
        }
        let bytes = self.sum(Value::len);
        if bytes > COMMAND_BYTES_MAX {
            return Err(WriteError::TooLarge {
                what: "keys and values",
                bytes,
                max: COMMAND_BYTES_MAX,
            });
        }
        Ok(())
    }

    /// Bytes of keys and values, as they are held.
    pub(crate) fn bytes(&self) -> usize {
        self.sum(|value| value.held().len())
    }

    fn sum(&self, value: impl Fn(&Value) -> usize) -> usize {
        self.mutations
            .iter()
            .map(|mutation| {
                let value = match &mutation.change {
                    Change::Put(plain_or_packed) => value(plain_or_packed),
                    Change::Delete | Change::Check => 0,
                };
                mutation.key.as_bytes().len() + value
            })
            .sum()
    }

    /// Whether it needs room: a full disk takes only commands that do not.
    pub(crate) fn puts(&self) -> bool {
        let mut mutations = self.mutations.iter();
        mutations.any(|mutation| matches!(mutation.change, Change::Put(_)))
    }

    /// Whether it says something that a program of before checks cannot read.
    pub(crate) fn checks(&self) -> bool {
        let mut mutations = self.mutations.iter();
        mutations.any(|mutation| matches!(mutation.change, Change::Check))
    }

    /// Each check as another mutation that has the whole write refused in the same cases.
    ///
    /// That a key is absent is said by its deletion. A revision is asked for by writing the value that it had once more; a key
    /// that is past this revision never comes back to it, so what would be written then does not matter.
    fn without_checks(&self, state: &State) -> Option<Command> {
        let mut mutations = Vec::with_capacity(self.mutations.len());
        for (nth, mutation) in self.mutations.iter().enumerate() {
            let Mutation {
                key,
                precondition,
                change,
            } = mutation;
            mutations.push(match (change, *precondition) {
                (Change::Put(_) | Change::Delete, _) => mutation.clone(),
                (Change::Check, Precondition::Absent) => {
                    Mutation::delete(key.clone(), Precondition::Absent)
                }
                (Change::Check, Precondition::None) => nothing(),
                (Change::Check, Precondition::Revision(asked)) if asked > state.revision => {
                    return None;
                }
                (Change::Check, Precondition::Revision(asked)) => {
                    let mut later = self.mutations[nth + 1..].iter();
                    let found = state.entries.mark(key.as_bytes());
                    if later.any(|later| (&later.key, &later.precondition) == (key, precondition)) {
                        // That one asks the same, and would find what was written here.
                        nothing()
                    } else if let Some(found) = found.filter(|mark| mark.revision == asked) {
                        let entry = state.entries.take(key.as_bytes(), found);
                        if entry.is_lost() {
                            return None;
                        }
                        Mutation::put(key.clone(), *precondition, entry.stored_value().clone())
                    } else {
                        Mutation::put(key.clone(), *precondition, Bytes::new())
                    }
                }
            });
        }
        Some(Command {
            fence: self.fence,
            mutations,
        })
    }

    fn encode(&self, writer: &mut Writer) {
        match self.fence {
            None => writer.u8(0),
            Some(term) => {
                writer.u8(1);
                writer.u64(term);
            }
        }
        writer.count(self.mutations.len());
        for mutation in &self.mutations {
            writer.bytes(mutation.key.as_bytes());
            match mutation.precondition {
                Precondition::None => writer.u8(0),
                Precondition::Absent => writer.u8(1),
                Precondition::Revision(revision) => {
                    writer.u8(2);
                    writer.u64(revision);
                }
            }
            match &mutation.change {
                Change::Put(value) if writer.packs() => {
                    writer.u8(2);
                    value.encode(writer);
                }
                Change::Put(value) => {
                    writer.u8(0);
                    writer.bytes(&value.plain());
                }
                Change::Delete => writer.u8(1),
                Change::Check => writer.u8(3),
            }
        }
    }

    fn decode(reader: &mut Reader) -> Result<Command, DecodeError> {
        let fence = if reader.flag("fence")? {
            Some(reader.u64()?)
        } else {
            None
        };
        let count = reader.count(MUTATION_BYTES_MIN)?;
        let mut mutations = Vec::with_capacity(count.min(COMMAND_MUTATIONS_MAX));
        for _ in 0..count {
            let key = Key::new(reader.bytes()?);
            let precondition = match reader.u8()? {
                0 => Precondition::None,
                1 => Precondition::Absent,
                2 => Precondition::Revision(reader.u64()?),
                tag => {
                    return Err(DecodeError::Tag {
                        what: "precondition",
                        tag,
                    });
                }
            };
            let change = match reader.u8()? {
                // From before values were compressed.
                0 => Change::Put(Value::as_it_is(reader.bytes()?)),
                1 => Change::Delete,
                // Unknown to a program that knows only the first version of messages.
                2 if reader.version() > 1 => Change::Put(Value::decode(reader)?),
                // And to one that knows only the second.
                3 if reader.version() > 2 => Change::Check,
                tag => {
                    return Err(DecodeError::Tag {
                        what: "change",
                        tag,
                    });
                }
            };
            mutations.push(Mutation {
                key,
                precondition,
                change,
            });
        }
        Ok(Command { fence, mutations })
    }
}

/// The commands of one log entry, in order. Cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Batch(pub Arc<[Command]>);

impl Batch {
    pub(crate) fn bytes(&self) -> usize {
        self.0.iter().map(Command::bytes).sum()
    }

    pub(crate) fn checks(&self) -> bool {
        self.0.iter().any(Command::checks)
    }

    /// The same without checks, for servers that know none; `None` where `state` has not come to a revision that is asked for.
    pub(crate) fn without_checks(&self, state: &State) -> Option<Batch> {
        let commands = self.0.iter().map(|command| command.without_checks(state));
        Some(Batch(commands.collect::<Option<_>>()?))
    }

    pub(crate) fn encode(&self, writer: &mut Writer) {
        writer.count(self.0.len());
        for command in self.0.iter() {
            command.encode(writer);
        }
    }

    pub(crate) fn decode(reader: &mut Reader) -> Result<Batch, DecodeError> {
        let count = reader.count(COMMAND_BYTES_MIN)?;
        let commands = (0..count)
            .map(|_| Command::decode(reader))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Batch(commands.into()))
    }
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} commands", self.0.len())
    }
}

/// What became of one command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It took effect; the store's revision after it.
    Done(Revision),
    /// The mutation with this index met a key in another condition.
    Conflict {
        mutation: usize,
        found: Option<Revision>,
    },
    /// It was ordered in this term, not in the one its fence names.
    Fenced { term: Term },
}

impl Outcome {
    pub(crate) fn encode(&self, writer: &mut Writer) {
        match self {
            Outcome::Done(revision) => {
                writer.u8(0);
                writer.u64(*revision);
            }
            Outcome::Conflict { mutation, found } => {
                writer.u8(1);
                writer.count(*mutation);
                writer.u8(u8::from(found.is_some()));
                writer.u64(found.unwrap_or_default());
            }
            Outcome::Fenced { term } => {
                writer.u8(2);
                writer.u64(*term);
            }
        }
    }

    pub(crate) fn decode(reader: &mut Reader) -> Result<Outcome, DecodeError> {
        Ok(match reader.u8()? {
            0 => Outcome::Done(reader.u64()?),
            1 => {
                let mutation = reader.u32()? as usize;
                let known = reader.flag("revision")?;
                let found = reader.u64()?;
                Outcome::Conflict {
                    mutation,
                    found: known.then_some(found),
                }
            }
            2 => Outcome::Fenced {
                term: reader.u64()?,
            },
            tag => {
                return Err(DecodeError::Tag {
                    what: "outcome",
                    tag,
                });
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Position;
    use crate::tables::FORMAT;

    fn sample() -> Batch {
        Batch(
            vec![
                Command {
                    fence: None,
                    mutations: vec![],
                },
                Command {
                    fence: Some(9),
                    mutations: vec![
                        Mutation::put("/a", Precondition::Absent, "1"),
                        Mutation::put("/b", Precondition::Revision(7), ""),
                        Mutation::delete("/c", Precondition::None),
                        Mutation::check("/d", Precondition::Revision(8)),
                        Mutation::check("/e", Precondition::Absent),
                    ],
                },
            ]
            .into(),
        )
    }

    #[test]
    fn a_batch_survives_its_encoding_and_every_cut_is_an_error() {
        let mut writer = Writer::new(FORMAT);
        sample().encode(&mut writer);
        let record = Bytes::from(writer.finish(b""));
        let mut reader = Reader::open(record.clone(), b"", FORMAT).expect("frame");
        assert_eq!(Batch::decode(&mut reader).expect("decodes"), sample());
        reader.finish().expect("nothing left");

        let body = record.slice(5..);
        for length in 0..body.len() {
            let mut writer = Writer::new(FORMAT);
            writer.tail(&body[..length]);
            let cut = Bytes::from(writer.finish(b""));
            let mut reader = Reader::open(cut, b"", FORMAT).expect("frame");
            assert!(Batch::decode(&mut reader).is_err(), "length {length}");
        }
    }

    #[test]
    fn a_put_from_before_values_were_compressed_is_read() {
        let mut writer = Writer::new(2);
        writer.count(1);
        writer.u8(0);
        writer.count(1);
        writer.bytes(b"/a");
        writer.u8(0);
        writer.u8(0);
        let old = "default-scheduler".repeat(20);
        writer.bytes(old.as_bytes());
        let record = Bytes::from(writer.finish(b""));
        let mut reader = Reader::open(record, b"", 3).expect("frame");
        let batch = Batch::decode(&mut reader).expect("decodes");
        reader.finish().expect("nothing left");
        match &batch.0[0].mutations[0].change {
            Change::Put(value) => assert_eq!(value.plain(), old),
            Change::Delete | Change::Check => panic!("it was a put"),
        }
    }

    #[test]
    fn a_check_is_unknown_to_a_program_of_before() {
        let mut writer = Writer::new(2);
        sample().encode(&mut writer);
        let record = Bytes::from(writer.finish(b""));
        let mut reader = Reader::open(record, b"", 2).expect("frame");
        assert!(matches!(
            Batch::decode(&mut reader),
            Err(DecodeError::Tag {
                what: "change",
                tag: 3
            })
        ));
    }

    /// What comes of a write is the same whether it checks or says so in the words of before, but for revisions taken.
    #[test]
    fn a_check_can_be_said_to_servers_that_know_none() {
        use Precondition::{Absent, None as Any, Revision as At};
        let at = |index| Position {
            term: 1,
            server: 1,
            index,
        };
        let batch = |mutations| {
            Batch(
                vec![Command {
                    fence: None,
                    mutations,
                }]
                .into(),
            )
        };
        let mut seeded = State::default();
        let seed = batch(vec![
            Mutation::put("a", Absent, "1"),
            Mutation::put("b", Absent, "2"),
            Mutation::put("b", At(2), "3"),
            Mutation::put("gone", Absent, "4"),
            Mutation::delete("gone", At(4)),
        ]);
        seeded.apply(at(1), &seed, &mut Vec::new());
        for (case, checks, holds) in [
            ("as it was", vec![Mutation::check("a", At(1))], true),
            ("written since", vec![Mutation::check("b", At(2))], false),
            ("as it is", vec![Mutation::check("b", At(3))], true),
            ("gone", vec![Mutation::check("gone", At(4))], false),
            ("never there", vec![Mutation::check("z", At(3))], false),
            ("absent", vec![Mutation::check("z", Absent)], true),
            ("not absent", vec![Mutation::check("a", Absent)], false),
            ("anything", vec![Mutation::check("a", Any)], true),
            (
                "twice",
                vec![Mutation::check("a", At(1)), Mutation::check("a", At(1))],
                true,
            ),
            (
                "and written",
                vec![Mutation::check("a", At(1)), Mutation::put("a", At(1), "x")],
                true,
            ),
            (
                "written first",
                vec![Mutation::put("a", At(1), "x"), Mutation::check("a", At(1))],
                false,
            ),
        ] {
            let mut mutations = checks;
            mutations.push(Mutation::put("c", Absent, "new"));
            let checking = batch(mutations);
            let old = checking.without_checks(&seeded).expect("known");
            assert!(checking.checks() && !old.checks(), "{case}");
            let run = |batch: &Batch| {
                let mut state = seeded.clone();
                let mut outcomes = state.apply(at(2), batch, &mut Vec::new());
                let outcome = outcomes.pop().expect("one");
                let entries: Vec<_> = state
                    .entries
                    .all()
                    .iter()
                    .map(|entry| (entry.key.clone(), entry.value()))
                    .collect();
                let done = matches!(outcome, Outcome::Done(_));
                (done, entries)
            };
            assert_eq!(run(&checking), run(&old), "{case}");
            assert_eq!(run(&checking).0, holds, "{case}");
        }
        let ahead = batch(vec![Mutation::check("a", At(6))]);
        assert_eq!(ahead.without_checks(&seeded), None);
    }

    #[test]
    fn limits_are_checked_before_anything_is_proposed() {
        let command = |mutations| Command {
            fence: None,
            mutations,
        };
        let long_key = Key::new(vec![b'k'; Key::BYTES_MAX + 1]);
        for (case, mutations, what) in [
            (
                "key",
                vec![Mutation::delete(long_key, Precondition::None)],
                "key",
            ),
            (
                "value",
                vec![Mutation::put(
                    "k",
                    Precondition::None,
                    vec![0; COMMAND_BYTES_MAX],
                )],
                "keys and values",
            ),
            (
                "count",
                vec![Mutation::delete("k", Precondition::None); COMMAND_MUTATIONS_MAX + 1],
                "mutations",
            ),
        ] {
            match command(mutations).check() {
                Err(WriteError::TooLarge { what: found, .. }) => assert_eq!(found, what, "{case}"),
                other => panic!("{case}: {other:?}"),
            }
        }
    }
}
