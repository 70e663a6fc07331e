//! Bytes from a disk or from another server that are not what they should be: every decoder, under a sound frame.
//!
//! A checksum keeps out what was damaged on its way (`codec.rs`). What gets past it was written like that, by a program with a bug
//! or by somebody who means harm. So each decoder here gets bodies that nobody wrote, and bodies of ours that were cut, flipped, spliced
//! and stretched: it answers with an error or with something that says itself again in the same words, and what it makes is
//! bounded by what it was given.

use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;

use crate::checkpoint::{Written, decode_entry, decode_state, encode_entry, encode_state};
use crate::codec::{Reader, Writer};
use crate::command::{Batch, COMMAND_BYTES_MAX, Change, Command, Mutation, Outcome, Precondition};
use crate::error::DecodeError;
use crate::event::{Event, EventKind, Previous};
use crate::key::{Entry, Key};
use crate::log::{Payload, Record, Vote};
use crate::machine::{Members, Position, State};
use crate::message::{
    Answer, Append, Appended, Ballot, BallotAnswer, Denied, Envelope, MemberChange, Request,
    SnapshotChunk, SnapshotHead, Transfer, WIRE,
};
use crate::stream::Assembly;
use crate::tables::{FORMAT, Identity, context, index_context, meta_context};
use crate::value::Value;

/// Length of the frame before a body: a checksum and a version.
const FRAME_BYTES: usize = 5;
const INDEX: u64 = 7;
const KEY: &[u8] = b"/core/pods/shop/web";

/// A decoder, with what its records are framed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Record,
    Vote,
    Identity,
    State,
    Entry,
    Event,
    Request,
    Answer,
}

const KINDS: [Kind; 8] = [
    Kind::Record,
    Kind::Vote,
    Kind::Identity,
    Kind::State,
    Kind::Entry,
    Kind::Event,
    Kind::Request,
    Kind::Answer,
];

impl Kind {
    fn context(self) -> Vec<u8> {
        match self {
            Kind::Record => index_context("log", INDEX),
            Kind::Vote => meta_context("vote"),
            Kind::Identity => meta_context("identity"),
            Kind::State => meta_context("state"),
            Kind::Entry => context("objects", KEY),
            Kind::Event => index_context("events", INDEX),
            Kind::Request => b"request".to_vec(),
            Kind::Answer => b"answer".to_vec(),
        }
    }

    /// Newest version of its bodies.
    fn newest(self) -> u8 {
        match self {
            Kind::Request | Kind::Answer => WIRE,
            _ => FORMAT,
        }
    }

    /// Decodes a framed record, and says it again in the newest version.
    fn again(self, record: Bytes) -> Result<Vec<u8>, DecodeError> {
        Ok(match self {
            Kind::Record => {
                let record = Record::from_disk(INDEX, record)?;
                check_values(&record);
                let mut writer = Writer::new(FORMAT);
                record.encode(&mut writer);
                writer.finish(&self.context())
            }
            Kind::Vote => Vote::from_disk(record)?.to_disk(),
            Kind::Identity => Identity::decode(record)?.encode(),
            Kind::State => {
                let (state, kept, events) = decode_state(record)?;
                let written = Written {
                    compacted: kept.compacted,
                    kept: usize::try_from(events).expect("64 bits"),
                    without: &kept.without,
                };
                encode_state(&state, &written)
            }
            Kind::Entry => {
                let entry = decode_entry(Key::new(KEY), record)?;
                check_value(entry.stored_value());
                encode_entry(&entry, FORMAT)
            }
            Kind::Event => {
                let event = Event::from_disk(INDEX, record)?;
                check_value(event.entry.stored_value());
                event.to_disk(None).expect("in memory")
            }
            Kind::Request => {
                let (envelope, body) = Request::open(record, WIRE)?;
                let request = body.request()?;
                if let Request::Append(append) = &request {
                    append.records.iter().for_each(check_values);
                }
                let said = request.encode(&envelope, WIRE);
                said.expect("in the newest version").to_vec()
            }
            Kind::Answer => {
                let (envelope, body) = Answer::open(record, WIRE)?;
                body.answer()?.encode(&envelope, WIRE).to_vec()
            }
        })
    }

    fn framed(self, version: u8, body: &[u8]) -> Bytes {
        let mut writer = Writer::new(version);
        writer.tail(body);
        Bytes::from(writer.finish(&self.context()))
    }
}

/// No reader of a value is made to take more memory than the value could have been packed from.
fn check_value(value: &Value) {
    let plain = value.plain();
    assert!(plain.len() <= COMMAND_BYTES_MAX.max(value.held().len()));
    assert!(value.len() <= 255 * (value.held().len() + 1));
}

fn check_values(record: &Record) {
    let Payload::Batch(batch) = &record.payload else {
        return;
    };
    for command in batch.0.iter() {
        for mutation in &command.mutations {
            if let Change::Put(value) = &mutation.change {
                check_value(value);
            }
        }
    }
}

/// What any bytes give: an error, or something that reads the same when it is said again.
fn holds(kind: Kind, version: u8, body: &[u8]) -> Result<(), TestCaseError> {
    let record = kind.framed(version, body);
    let given = record.len();
    if let Ok(said) = kind.again(record) {
        // A byte that is no text becomes three, a value of before gets a byte that says how it is held.
        prop_assert!(said.len() <= 3 * given + 64, "{} of {}", said.len(), given);
        let again = kind.again(Bytes::from(said.clone()));
        prop_assert_eq!(again.expect("what was said is read"), said);
    }
    Ok(())
}

fn position() -> impl Strategy<Value = Position> {
    let number = || prop_oneof![0..9_u64, any::<u64>()];
    (number(), number(), number()).prop_map(|(term, server, index)| Position {
        term,
        server,
        index,
    })
}

fn vote() -> impl Strategy<Value = Vote> {
    (any::<u64>(), any::<u64>(), any::<bool>()).prop_map(|(term, server, committed)| Vote {
        term,
        server,
        committed,
    })
}

fn bytes() -> impl Strategy<Value = Bytes> {
    proptest::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from)
}

fn text() -> impl Strategy<Value = String> {
    "[a-zé:0-9.]{0,12}"
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        bytes().prop_map(Value::new),
        // Long and alike enough to be compressed.
        "(default-scheduler|\"kind\":\"Pod\"|[a-c]){0,40}".prop_map(Value::new),
    ]
}

fn precondition() -> impl Strategy<Value = Precondition> {
    prop_oneof![
        Just(Precondition::None),
        Just(Precondition::Absent),
        any::<u64>().prop_map(Precondition::Revision),
    ]
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let change = prop_oneof![
        value().prop_map(Change::Put),
        Just(Change::Delete),
        Just(Change::Check),
    ];
    (bytes(), precondition(), change).prop_map(|(key, precondition, change)| Mutation {
        key: Key::new(key),
        precondition,
        change,
    })
}

fn batch() -> impl Strategy<Value = Batch> {
    let mutations = proptest::collection::vec(mutation(), 0..4);
    let command = (proptest::option::of(any::<u64>()), mutations);
    let commands = proptest::collection::vec(command, 0..4);
    commands.prop_map(|commands| {
        let commands = commands.into_iter();
        let commands = commands.map(|(fence, mutations)| Command { fence, mutations });
        Batch(commands.collect())
    })
}

fn members() -> impl Strategy<Value = Members> {
    let set = proptest::collection::btree_set(any::<u64>(), 0..4);
    let addresses = proptest::collection::btree_map(any::<u64>(), text(), 0..4);
    (proptest::collection::vec(set, 0..3), addresses)
        .prop_map(|(voters, addresses)| Members { voters, addresses })
}

fn record() -> impl Strategy<Value = Record> {
    let payload = prop_oneof![
        1 => Just(Payload::Blank),
        4 => batch().prop_map(Payload::Batch),
        1 => members().prop_map(Payload::Members),
    ];
    (position(), payload).prop_map(|(position, payload)| Record { position, payload })
}

fn state() -> impl Strategy<Value = Vec<u8>> {
    let positions = (
        proptest::option::of(position()),
        proptest::option::of(position()),
    );
    let numbers = (any::<u64>(), any::<u64>(), any::<u64>(), any::<u32>());
    let without = proptest::collection::vec(bytes(), 0..3);
    (positions, numbers, members(), without).prop_map(|(positions, numbers, members, without)| {
        let state = State {
            revision: numbers.0,
            applied: positions.0,
            members,
            members_position: positions.1,
            servers_ever: numbers.1,
            ..State::default()
        };
        let written = Written {
            compacted: numbers.2,
            kept: numbers.3 as usize,
            without: &without,
        };
        encode_state(&state, &written)
    })
}

fn event() -> impl Strategy<Value = Event> {
    let previous = proptest::option::of((any::<u64>(), any::<u64>(), value()));
    (any::<bool>(), bytes(), any::<u64>(), value(), previous).prop_map(
        |(put, key, create_revision, value, previous)| {
            let key = Key::new(key);
            let previous = previous.map(|(create, revision, value)| {
                Previous::held(Arc::new(Entry::new(key.clone(), value, create, revision)))
            });
            Event {
                revision: INDEX,
                kind: if put {
                    EventKind::Put
                } else {
                    EventKind::Delete
                },
                entry: Arc::new(Entry::new(key, value, create_revision, INDEX)),
                previous,
            }
        },
    )
}

fn chunk() -> impl Strategy<Value = SnapshotChunk> {
    let head = (position(), members(), any::<u64>(), any::<u64>()).prop_map(
        |(applied, members, revision, entries)| SnapshotHead {
            applied,
            members,
            members_position: Some(applied),
            servers_ever: 3,
            revision,
            entries,
        },
    );
    let entry = (bytes(), value(), 0..9_u64).prop_map(|(key, value, revision)| {
        let entry = Entry::new(Key::new(key.clone()), value, revision, revision);
        (key, Bytes::from(encode_entry(&entry, FORMAT)))
    });
    let entries = proptest::collection::vec(entry, 0..4);
    (
        vote(),
        0..3_u64,
        0..3_u32,
        proptest::option::of(head),
        entries,
        proptest::option::of(any::<u32>()),
    )
        .prop_map(
            |(vote, stream, number, head, entries, checksum)| SnapshotChunk {
                vote,
                stream,
                number,
                head,
                entries,
                checksum,
            },
        )
}

fn request() -> impl Strategy<Value = Request> {
    let append = (
        vote(),
        proptest::option::of(position()),
        proptest::option::of(position()),
        proptest::collection::vec(record(), 0..4),
    )
        .prop_map(|(vote, previous, committed, records)| {
            Request::Append(Append {
                vote,
                previous,
                committed,
                records,
            })
        });
    let ballot = (vote(), proptest::option::of(position()), any::<bool>())
        .prop_map(|(vote, last, transfer)| Ballot {
            vote,
            last,
            transfer,
        })
        .boxed();
    let transfer = (vote(), any::<u64>(), proptest::option::of(position()))
        .prop_map(|(vote, to, last)| Request::Transfer(Transfer { vote, to, last }));
    let change = prop_oneof![
        text().prop_map(|address| MemberChange::Add { address }),
        any::<u64>().prop_map(|server| MemberChange::Promote { server }),
        (any::<u64>(), text()).prop_map(|(server, address)| MemberChange::Move { server, address }),
        proptest::option::of(any::<u64>()).prop_map(|to| MemberChange::Transfer { to }),
    ];
    prop_oneof![
        append,
        ballot.clone().prop_map(Request::Vote),
        ballot.prop_map(Request::PreVote),
        transfer,
        chunk().prop_map(Request::Snapshot),
        Just(Request::ReadIndex),
        batch().prop_map(Request::Write),
        change.prop_map(Request::Member),
    ]
}

fn answer() -> impl Strategy<Value = Answer> {
    let outcome = prop_oneof![
        any::<u64>().prop_map(Outcome::Done),
        (0..9_usize, proptest::option::of(any::<u64>()))
            .prop_map(|(mutation, found)| Outcome::Conflict { mutation, found }),
        any::<u64>().prop_map(|term| Outcome::Fenced { term }),
    ];
    let outcomes = proptest::collection::vec(outcome, 0..5);
    prop_oneof![
        proptest::option::of(position()).prop_map(|upto| Answer::Append(Appended::Upto(upto))),
        vote().prop_map(|vote| Answer::Append(Appended::HigherVote(vote))),
        (vote(), any::<bool>()).prop_map(|(vote, granted)| Answer::Vote(BallotAnswer {
            vote,
            granted,
            last: None
        })),
        (any::<u64>(), outcomes).prop_map(|written| Answer::Write(Ok(written))),
        text().prop_map(|reason| Answer::Write(Err(Denied::Invalid(reason)))),
        text().prop_map(Answer::Refused),
        Just(Answer::Removed),
    ]
}

fn envelope() -> Envelope {
    Envelope {
        cluster_id: "c".to_owned(),
        from: 1,
        to: 2,
    }
}

/// A record as this program writes it.
fn sound() -> impl Strategy<Value = (Kind, Vec<u8>)> {
    prop_oneof![
        record().prop_map(|record| {
            let mut writer = Writer::new(FORMAT);
            record.encode(&mut writer);
            (Kind::Record, writer.finish(&Kind::Record.context()))
        }),
        vote().prop_map(|vote| (Kind::Vote, vote.to_disk())),
        (text(), any::<u64>()).prop_map(|(cluster_id, server_id)| {
            let identity = Identity {
                cluster_id,
                server_id,
            };
            (Kind::Identity, identity.encode())
        }),
        state().prop_map(|state| (Kind::State, state)),
        (value(), any::<u64>(), any::<u64>()).prop_map(|(value, create, revision)| {
            let entry = Entry::new(Key::new(KEY), value, create, revision);
            (Kind::Entry, encode_entry(&entry, FORMAT))
        }),
        event().prop_map(|event| (Kind::Event, event.to_disk(None).expect("in memory"))),
        request().prop_map(|request| {
            let said = request.encode(&envelope(), WIRE).expect("said");
            (Kind::Request, said.to_vec())
        }),
        answer().prop_map(|answer| (Kind::Answer, answer.encode(&envelope(), WIRE).to_vec())),
    ]
}

/// What happens to a body on its way past a checksum.
#[derive(Debug, Clone)]
enum Harm {
    Flip(prop::sample::Index, u8),
    Cut(prop::sample::Index),
    /// The largest number that a length, a count or a tag can be.
    Stretch(prop::sample::Index),
    /// A part of it once more.
    Repeat(prop::sample::Index, prop::sample::Index),
    Grow(Vec<u8>),
}

fn harm() -> impl Strategy<Value = Harm> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        (index(), any::<u8>()).prop_map(|(at, to)| Harm::Flip(at, to)),
        index().prop_map(Harm::Cut),
        index().prop_map(Harm::Stretch),
        (index(), index()).prop_map(|(from, to)| Harm::Repeat(from, to)),
        proptest::collection::vec(any::<u8>(), 1..9).prop_map(Harm::Grow),
    ]
}

fn harmed(mut body: Vec<u8>, harm: &Harm) -> Vec<u8> {
    if body.is_empty() {
        return body;
    }
    let length = body.len();
    match harm {
        Harm::Flip(at, to) => body[at.index(length)] ^= to | 1,
        Harm::Cut(at) => body.truncate(at.index(length)),
        Harm::Stretch(at) => {
            let at = at.index(length);
            let end = (at + 4).min(length);
            body[at..end].fill(0xff);
        }
        Harm::Repeat(from, to) => {
            let (from, to) = (from.index(length), to.index(length));
            let part = body[from.min(to)..from.max(to)].to_vec();
            body.splice(from..from, part);
        }
        Harm::Grow(more) => body.extend_from_slice(more),
    }
    body
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn bytes_that_nobody_wrote_are_an_error_or_something_that_can_be_said(
        body in proptest::collection::vec(prop_oneof![Just(0), Just(1), 0..8_u8, any::<u8>()], 0..200),
        version in 1..=FORMAT,
    ) {
        for kind in KINDS {
            holds(kind, version.min(kind.newest()), &body)?;
        }
    }

    #[test]
    fn what_was_written_comes_back_and_harm_to_it_is_an_error_or_something_that_can_be_said(
        (kind, record) in sound(),
        harms in proptest::collection::vec(harm(), 1..4),
        version in 1..=FORMAT,
    ) {
        let again = kind.again(Bytes::from(record.clone()));
        prop_assert_eq!(again.expect("sound"), &record[..]);
        let mut body = record[FRAME_BYTES..].to_vec();
        for harm in &harms {
            body = harmed(body, harm);
            holds(kind, kind.newest(), &body)?;
            // And as if a program of before had written it.
            holds(kind, version.min(kind.newest()), &body)?;
        }
    }

    #[test]
    fn what_was_damaged_on_its_way_is_an_error(
        (kind, record) in sound(),
        bit in any::<prop::sample::Index>(),
        length in any::<prop::sample::Index>(),
    ) {
        let cut = Bytes::copy_from_slice(&record[..length.index(record.len())]);
        prop_assert!(kind.again(cut).is_err());
        let mut flipped = record;
        let bit = bit.index(flipped.len() * 8);
        flipped[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(kind.again(Bytes::from(flipped)).is_err());
    }

    /// Chunks of a snapshot in any order, of any content: what comes of them is whole, or nothing.
    #[test]
    fn a_snapshot_of_chunks_that_do_not_fit_is_refused(chunks in proptest::collection::vec(chunk(), 1..6)) {
        let mut assembly = Assembly::default();
        for chunk in chunks {
            let head = chunk.head.clone();
            if let Ok(Some(state)) = assembly.take(1, chunk) {
                let head = head.expect("of one chunk: no checksum of several was guessed");
                prop_assert_eq!(state.entries.len() as u64, head.entries);
            }
        }
    }
}

#[test]
fn a_count_of_more_than_there_is_room_for_is_found_before_anything_is_made() {
    // A batch of one command that says it has a mutation for each byte that follows.
    let mut writer = Writer::new(FORMAT);
    writer.count(1);
    writer.u8(0);
    writer.count(1000);
    writer.tail(&[0; 1000]);
    let record = Bytes::from(writer.finish(b""));
    let mut reader = Reader::open(record, b"", FORMAT).expect("frame");
    assert!(matches!(
        Batch::decode(&mut reader),
        Err(DecodeError::Truncated)
    ));
    // A value that says it was larger than anything so small can have been.
    let mut writer = Writer::new(FORMAT);
    writer.u8(1);
    writer.u32(1 << 20);
    writer.bytes(&[0; 16]);
    let record = Bytes::from(writer.finish(b""));
    let mut reader = Reader::open(record, b"", FORMAT).expect("frame");
    assert!(matches!(
        Value::decode(&mut reader),
        Err(DecodeError::Truncated)
    ));
}

/// What a backup is read from is a file that was somewhere else: cut, flipped or from another program.
#[tokio::test]
async fn a_backup_that_was_harmed_is_refused() {
    use crate::{Config, Store};

    let dir = tempfile::tempdir().expect("tempdir");
    let store = Store::open(Config::new(dir.path().join("from"))).await;
    let store = store.expect("opens");
    let puts = (0..20).map(|n| Mutation::put(format!("/k/{n}"), Precondition::None, "v"));
    store.write(puts.collect(), None).await.expect("written");
    let backup = dir.path().join("backup");
    store.backup(&backup).await.expect("backed up");
    store.shutdown().await;
    let sound = std::fs::read(&backup).expect("read");
    let config = Config {
        cluster_id: "restored".to_owned(),
        ..Config::new(dir.path().join("to"))
    };
    let refused = |bytes: &[u8], how: &str| {
        std::fs::write(&backup, bytes).expect("written");
        let restored = crate::restore(&backup, &config);
        assert!(restored.is_err(), "{how}");
    };
    for length in 0..sound.len() {
        refused(&sound[..length], &format!("cut at {length}"));
    }
    for byte in 0..sound.len() {
        let mut flipped = sound.clone();
        flipped[byte] ^= 0x80;
        refused(&flipped, &format!("flipped at {byte}"));
    }
    std::fs::write(&backup, &sound).expect("written");
    crate::restore(&backup, &config).expect("as it was");
}
