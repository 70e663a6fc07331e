//! A state in transit: cut into chunks by the one who has it, put together by the one who needs it.
//!
//! A chunk is about [`CHUNK_BYTES`]. Every chunk travels in a frame with a checksum of its own, each entry in it is a
//! framed record, and the last chunk carries a checksum over all of them, so that a lost, repeated or mixed-up chunk is
//! noticed before anything is installed. Both ends hold one chunk beside the state itself.
//!
//! Invariants: what [`Assembly::take`] hands out equals what [`Chunks`] was given, or there is an error; a receiver
//! holds at most one unfinished snapshot.

use std::io;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;

use crate::checkpoint::{decode_entry, encode_entry};
use crate::key::{Key, ServerId};
use crate::log::Vote;
use crate::machine::State;
use crate::message::{SnapshotChunk, SnapshotHead};
use crate::planted::{Bug, planted};

/// Size of a chunk. Tests have small states and want many.
const CHUNK_BYTES: usize = if cfg!(test) { 64 } else { 1 << 20 };

fn checksum(sum: u32, key: &[u8], entry: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c_append(sum, key), entry)
}

/// The chunks of a state, in order.
pub(crate) struct Chunks {
    state: State,
    vote: Vote,
    stream: u64,
    /// Of the entries.
    format: u8,
    number: u32,
    after: Option<Key>,
    sum: u32,
    ended: bool,
}

impl Chunks {
    pub(crate) fn new(state: State, vote: Vote, stream: u64, format: u8) -> Self {
        Chunks {
            state,
            vote,
            stream,
            format,
            number: 0,
            after: None,
            sum: 0,
            ended: false,
        }
    }
}

impl Iterator for Chunks {
    /// An error where a value cannot be read: there is no going on then.
    type Item = io::Result<SnapshotChunk>;

    fn next(&mut self) -> Option<io::Result<SnapshotChunk>> {
        // A state that nothing was applied to is no snapshot.
        let applied = self.state.applied?;
        if self.ended {
            return None;
        }
        let after = self.after.take();
        let start = match &after {
            None => Bound::Unbounded,
            Some(after) => Bound::Excluded(after.as_bytes()),
        };
        let mut entries = Vec::new();
        let mut bytes = 0;
        let mut rest = self.state.entries.copy(start);
        while bytes < CHUNK_BYTES
            && let Some(entry) = rest.next()
        {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => return Some(Err(error)),
            };
            let (key, record) = (&entry.key, Bytes::from(encode_entry(&entry, self.format)));
            self.sum = checksum(self.sum, key.as_bytes(), &record);
            bytes += key.as_bytes().len() + record.len();
            entries.push((key.bytes(), record));
            self.after = Some(key.clone());
        }
        self.ended = rest.next().is_none();
        let head = (self.number == 0).then(|| SnapshotHead {
            applied,
            members: self.state.members.clone(),
            members_position: self.state.members_position,
            servers_ever: self.state.servers_ever,
            revision: self.state.revision,
            entries: self.state.entries.len() as u64,
        });
        let chunk = SnapshotChunk {
            vote: self.vote,
            stream: self.stream,
            number: self.number,
            head,
            entries,
            checksum: self.ended.then_some(self.sum),
        };
        self.number += 1;
        Some(Ok(chunk))
    }
}

struct Partial {
    from: ServerId,
    vote: Vote,
    stream: u64,
    next: u32,
    expected: u64,
    sum: u32,
    state: State,
}

/// The snapshot a server is receiving.
#[derive(Default)]
pub(crate) struct Assembly(Option<Partial>);

impl Assembly {
    /// Takes the next chunk; `Some` with the whole state after the last one.
    ///
    /// An error means that the sender has to begin again.
    pub(crate) fn take(
        &mut self,
        from: ServerId,
        chunk: SnapshotChunk,
    ) -> Result<Option<State>, String> {
        if let Some(head) = chunk.head {
            self.0 = Some(Partial {
                from,
                vote: chunk.vote,
                stream: chunk.stream,
                next: 0,
                expected: head.entries,
                sum: 0,
                state: State {
                    revision: head.revision,
                    applied: Some(head.applied),
                    members: head.members,
                    members_position: head.members_position,
                    servers_ever: head.servers_ever,
                    ..State::default()
                },
            });
        }
        // Put back only if the chunk fits.
        let mut partial = self
            .0
            .take_if(|partial| {
                (partial.from, partial.vote, partial.stream, partial.next)
                    == (from, chunk.vote, chunk.stream, chunk.number)
            })
            .ok_or("the snapshot's chunks do not follow one another")?;
        partial.next += 1;
        let lost = planted(Bug::SnapshotChunkLost) && chunk.number == 1;
        for (key, record) in chunk.entries {
            partial.sum = checksum(partial.sum, &key, &record);
            let key = Key::new(key);
            let entry = decode_entry(key, record)
                .map_err(|error| format!("an entry of the snapshot: {error}"))?;
            if entry.revision > partial.state.revision {
                let key = &entry.key;
                return Err(format!("entry {key} is newer than the snapshot"));
            }
            if lost {
                continue;
            }
            partial.state.bytes += entry.bytes();
            partial.state.entries.insert(Arc::new(entry));
        }
        let Some(checksum) = chunk.checksum else {
            self.0 = Some(partial);
            return Ok(None);
        };
        let complete = partial.state.entries.len() as u64 == partial.expected
            || planted(Bug::SnapshotChunkLost);
        if checksum != partial.sum || !complete {
            return Err("the snapshot's checksum does not match its content".to_owned());
        }
        Ok(Some(partial.state))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{Batch, Command, Mutation, Precondition};
    use crate::machine::Position;
    use crate::tables::{FORMAT, PACKED_SINCE};

    fn state(keys: usize) -> State {
        let mut state = State::default();
        let mutations = (0..keys)
            .map(|key| Mutation::put(format!("/{key:04}"), Precondition::None, vec![7; key % 90]))
            .collect();
        let command = Command {
            fence: None,
            mutations,
        };
        let position = Position {
            term: 2,
            server: 1,
            index: 9,
        };
        state.apply(position, &Batch(vec![command].into()), &mut Vec::new());
        state
    }

    fn vote() -> Vote {
        Vote {
            term: 2,
            server: 1,
            committed: true,
        }
    }

    fn chunks_of(state: &State, stream: u64, format: u8) -> Vec<SnapshotChunk> {
        let chunks = Chunks::new(state.clone(), vote(), stream, format);
        chunks.collect::<io::Result<_>>().expect("readable")
    }

    #[test]
    fn a_state_arrives_as_it_was_sent() {
        for keys in [0, 1, 200] {
            let sent = state(keys);
            let mut assembly = Assembly::default();
            let mut chunks = 0;
            let mut arrived = None;
            for chunk in chunks_of(&sent, 1, FORMAT) {
                assert!(arrived.is_none(), "a chunk behind the last one");
                arrived = assembly.take(1, chunk).expect("fits");
                chunks += 1;
            }
            let arrived = arrived.expect("complete");
            assert!(keys < 200 || chunks > 5, "{keys} keys in {chunks} chunks");
            assert_eq!(arrived.entries.all(), sent.entries.all());
            assert_eq!(
                (arrived.revision, arrived.applied, arrived.bytes),
                (sent.revision, sent.applied, sent.bytes)
            );
        }
    }

    #[test]
    fn a_server_of_before_gets_values_that_it_can_read() {
        let mut sent = State::default();
        let plain = "default-scheduler ".repeat(40);
        let put = Mutation::put("/long", Precondition::None, plain.clone());
        let batch = Batch(
            vec![Command {
                fence: None,
                mutations: vec![put],
            }]
            .into(),
        );
        let position = Position {
            term: 2,
            server: 1,
            index: 5,
        };
        sent.apply(position, &batch, &mut Vec::new());
        let old = PACKED_SINCE - 1;
        for (format, bytes) in [(FORMAT, 0..200), (old, plain.len()..plain.len() + 50)] {
            let mut assembly = Assembly::default();
            let mut arrived = None;
            for chunk in chunks_of(&sent, 1, format) {
                let record = &chunk.entries[0].1;
                assert_eq!(record[4], format, "the record's format");
                assert!(bytes.contains(&record.len()), "{} bytes", record.len());
                arrived = assembly.take(1, chunk).expect("fits");
            }
            let entry = arrived.expect("complete").entries.get(b"/long");
            assert_eq!(entry.expect("there").value(), plain);
        }
    }

    #[test]
    fn a_missing_repeated_or_foreign_chunk_is_refused() {
        let chunks = chunks_of(&state(200), 1, FORMAT);
        let other = chunks_of(&state(200), 2, FORMAT);
        let feed = |order: &[&SnapshotChunk]| {
            let mut assembly = Assembly::default();
            let mut result = Ok(None);
            for chunk in order {
                result = assembly
                    .take(1, (*chunk).clone())
                    .map(|state| state.map(|_| ()));
                if result.is_err() {
                    break;
                }
            }
            result
        };
        let (first, second, third) = (&chunks[0], &chunks[1], &chunks[2]);
        assert!(feed(&[first, second, third]).is_ok());
        assert!(feed(&[second]).is_err(), "no beginning");
        assert!(feed(&[first, third]).is_err(), "one missing");
        assert!(feed(&[first, second, second]).is_err(), "one twice");
        assert!(feed(&[first, &other[1]]).is_err(), "of another sending");
        let mut early = chunks.last().expect("some").clone();
        early.number = 1;
        assert!(feed(&[first, &early]).is_err(), "too short");
        // A sender that begins again is welcome at any time.
        assert!(feed(&[first, second, &other[0], &other[1]]).is_ok());
    }
}
