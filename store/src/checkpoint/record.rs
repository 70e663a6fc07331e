//! A state and its entries, as they are written down.

use bytes::Bytes;

use crate::codec::{Reader, Writer};
use crate::error::DecodeError;
use crate::history::Kept;
use crate::key::{Entry, Key, Revision};
use crate::machine::{Members, Position, State};
use crate::tables::{FORMAT, PACKED_SINCE, SHARES_SINCE, context, meta_context};
use crate::value::Value;

pub(super) const STATE: &str = "state";

/// What is written down of a history: where it begins, how many events there are, and which keys' are left out.
pub(crate) struct Written<'a> {
    pub compacted: Revision,
    pub kept: usize,
    pub without: &'a [Bytes],
}

pub(crate) fn encode_state(state: &State, written: &Written<'_>) -> Vec<u8> {
    let mut writer = Writer::new(FORMAT);
    writer.u64(state.revision);
    writer.u64(written.compacted);
    Position::encode_option(state.applied, &mut writer);
    Position::encode_option(state.members_position, &mut writer);
    state.members.encode(&mut writer);
    writer.u64(state.servers_ever);
    writer.u64(written.kept as u64);
    writer.count(written.without.len());
    for prefix in written.without {
        writer.bytes(prefix);
    }
    writer.finish(&meta_context(STATE))
}

/// The state without its entries, the history without its events, and how many those are.
pub(crate) fn decode_state(record: Bytes) -> Result<(State, Kept, u64), DecodeError> {
    let mut reader = Reader::open(record, &meta_context(STATE), FORMAT)?;
    let revision = reader.u64()?;
    let compacted = reader.u64()?;
    let mut state = State {
        revision,
        applied: Position::decode_option(&mut reader)?,
        members_position: Position::decode_option(&mut reader)?,
        members: Members::decode(&mut reader)?,
        ..State::default()
    };
    state.servers_ever = if reader.version() < 2 {
        state.members.highest()
    } else {
        reader.u64()?
    };
    let mut kept = Kept::nothing(compacted);
    let mut events = revision.saturating_sub(compacted);
    if reader.version() >= SHARES_SINCE {
        events = reader.u64()?;
        for _ in 0..reader.count(4)? {
            kept.without.push(reader.bytes()?);
        }
    }
    reader.finish()?;
    Ok((state, kept, events))
}

/// In a format that its reader knows.
pub(crate) fn encode_entry(entry: &Entry, format: u8) -> Vec<u8> {
    let mut writer = Writer::new(format);
    writer.u64(entry.create_revision);
    writer.u64(entry.revision);
    if format < PACKED_SINCE {
        writer.tail(&entry.value());
    } else {
        entry.stored_value().encode(&mut writer);
    }
    writer.finish(&context("objects", entry.key.as_bytes()))
}

pub(crate) fn decode_entry(key: Key, record: Bytes) -> Result<Entry, DecodeError> {
    let mut reader = Reader::open(record, &context("objects", key.as_bytes()), FORMAT)?;
    let create_revision = reader.u64()?;
    let revision = reader.u64()?;
    let value = if reader.version() < PACKED_SINCE {
        Value::as_it_is(reader.tail())
    } else {
        let value = Value::decode(&mut reader)?;
        reader.finish()?;
        value
    };
    Ok(Entry::new(key, value, create_revision, revision))
}
