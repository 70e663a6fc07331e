//! Votes and entries of the log, as they are written down.

use bytes::Bytes;

use crate::codec::{Reader, Writer};
use crate::command::Batch;
use crate::error::DecodeError;
use crate::key::{ServerId, Term};
use crate::machine::{Members, Position};
use crate::tables::{FORMAT, index_context, meta_context};

pub(super) const VOTE: &str = "vote";

/// A promise not to follow older leaders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Vote {
    pub term: Term,
    pub server: ServerId,
    pub committed: bool,
}

impl Vote {
    pub(crate) fn encode(&self, writer: &mut Writer) {
        writer.u64(self.term);
        writer.u64(self.server);
        writer.u8(u8::from(self.committed));
    }

    pub(crate) fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Vote {
            term: reader.u64()?,
            server: reader.u64()?,
            committed: reader.flag("vote state")?,
        })
    }

    pub(crate) fn to_disk(self) -> Vec<u8> {
        let mut writer = Writer::new(FORMAT);
        self.encode(&mut writer);
        writer.finish(&meta_context(VOTE))
    }

    pub(crate) fn from_disk(record: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::open(record, &meta_context(VOTE), FORMAT)?;
        let vote = Vote::decode(&mut reader)?;
        reader.finish()?;
        Ok(vote)
    }
}

/// What a log entry carries. Cheap to clone, except for the rare membership.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Payload {
    Blank,
    Batch(Batch),
    Members(Members),
}

/// One log entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    pub position: Position,
    pub payload: Payload,
}

impl Record {
    pub(crate) fn encode(&self, writer: &mut Writer) {
        self.position.encode(writer);
        match &self.payload {
            Payload::Blank => writer.u8(0),
            Payload::Batch(batch) => {
                writer.u8(1);
                batch.encode(writer);
            }
            Payload::Members(members) => {
                writer.u8(2);
                members.encode(writer);
            }
        }
    }

    pub(crate) fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        let position = Position::decode(reader)?;
        let payload = match reader.u8()? {
            0 => Payload::Blank,
            1 => Payload::Batch(Batch::decode(reader)?),
            2 => Payload::Members(Members::decode(reader)?),
            tag => {
                return Err(DecodeError::Tag {
                    what: "log payload",
                    tag,
                });
            }
        };
        Ok(Record { position, payload })
    }

    pub(super) fn to_disk(&self) -> Vec<u8> {
        let mut writer = Writer::new(FORMAT);
        self.encode(&mut writer);
        writer.finish(&index_context("log", self.position.index))
    }

    pub(crate) fn from_disk(index: u64, record: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::open(record, &index_context("log", index), FORMAT)?;
        let record = Record::decode(&mut reader)?;
        reader.finish()?;
        Ok(record)
    }

    /// Memory and disk this record takes, roughly.
    pub(crate) fn bytes(&self) -> usize {
        const OVERHEAD: usize = 64;
        let payload = match &self.payload {
            Payload::Blank | Payload::Members(_) => 0,
            Payload::Batch(batch) => batch.bytes(),
        };
        payload + OVERHEAD
    }
}
