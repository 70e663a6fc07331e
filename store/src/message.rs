//! What servers say to each other, as bytes.
//!
//! A request and its answer each are one framed record (`codec.rs`): checksum, wire version, then an [`Envelope`] and a
//! body. The envelope names the cluster, the sender and the receiver, so that a message that strayed (a reused address,
//! a restored backup, a misrouted connection) is refused instead of believed. openraft's types never get here.
//!
//! Invariants: encode then decode is the identity; decoding arbitrary bytes is an error, never a panic; a message of an
//! unknown version, of another cluster or for another server is refused before its body is looked at.

use bytes::Bytes;

use crate::codec::{Reader, Writer};
use crate::command::{Batch, Outcome};
use crate::error::DecodeError;
use crate::key::{Revision, ServerId};
use crate::log::{Payload, Record, Vote};
use crate::machine::{Members, Position};
use crate::tables;

/// Newest version of messages that this program sends and reads; it goes up with every change of a body, and of the records
/// within (entries of the log and of the state travel as they lie on disk).
///
/// Two servers speak the newest version that both know, so that the servers of a cluster can be replaced one after the
/// other: a request is in the newest version that its sender knows; an answer is in the version of its request; a request in
/// an unknown version is refused in the newest one known, which its sender then takes, until it gets a request in a newer
/// one (`raft/peers.rs`).
pub(crate) const WIRE: u8 = 3;

/// The first in which values may be compressed. To who speaks an older one they are sent as they were given.
const PACKED_SINCE: u8 = 2;

/// The first in which a write may check. While a member of the cluster speaks an older one, checks are proposed in other words
/// ([`Batch::without_checks`]), and to who speaks an older one an entry with checks is never sent.
pub(crate) const CHECKS_SINCE: u8 = 3;

/// The format of an entry within a message of this version.
pub(crate) fn entry_format(version: u8) -> u8 {
    match version {
        ..PACKED_SINCE => tables::PACKED_SINCE - 1,
        PACKED_SINCE..CHECKS_SINCE => tables::PACKED_SINCE,
        CHECKS_SINCE.. => tables::FORMAT,
    }
}

const REQUEST: &[u8] = b"request";
const ANSWER: &[u8] = b"answer";

/// Between whom a message travels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Envelope {
    pub cluster_id: String,
    pub from: ServerId,
    pub to: ServerId,
}

impl Envelope {
    fn encode(&self, writer: &mut Writer) {
        writer.bytes(self.cluster_id.as_bytes());
        writer.u64(self.from);
        writer.u64(self.to);
    }

    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Envelope {
            cluster_id: String::from_utf8_lossy(&reader.bytes()?).into_owned(),
            from: reader.u64()?,
            to: reader.u64()?,
        })
    }

    /// Why a message in this envelope is not for `me`, if so. `proven` is what the connection proved about its sender.
    pub(crate) fn refuse(
        &self,
        cluster_id: &str,
        me: ServerId,
        proven: Option<ServerId>,
    ) -> Option<String> {
        if self.cluster_id != cluster_id {
            let theirs = &self.cluster_id;
            return Some(format!(
                "the message is for cluster {theirs}, this server belongs to {cluster_id}"
            ));
        }
        if self.to != me {
            let to = self.to;
            return Some(format!(
                "the message is for server {to}, this is server {me}"
            ));
        }
        match proven {
            Some(proven) if proven != self.from => {
                let from = self.from;
                Some(format!(
                    "the message says it is from server {from}, its certificate is of server {proven}"
                ))
            }
            _ => None,
        }
    }
}

/// Entries for a follower's log; none in a heartbeat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Append {
    pub vote: Vote,
    pub previous: Option<Position>,
    pub committed: Option<Position>,
    pub records: Vec<Record>,
}

/// What a follower made of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Appended {
    All,
    Upto(Option<Position>),
    Conflict,
    HigherVote(Vote),
}

/// A candidate asks for a vote, or whether it would get one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ballot {
    pub vote: Vote,
    pub last: Option<Position>,
    pub transfer: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BallotAnswer {
    pub vote: Vote,
    pub granted: bool,
    pub last: Option<Position>,
}

/// The leader hands over to `to`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Transfer {
    pub vote: Vote,
    pub to: ServerId,
    pub last: Option<Position>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Transferred {
    Accepted,
    VoteChanged { actual: Vote },
    Behind { actual: Option<Position> },
}

/// What a snapshot is of: sent with its first chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SnapshotHead {
    pub applied: Position,
    pub members: Members,
    pub members_position: Option<Position>,
    pub servers_ever: ServerId,
    pub revision: Revision,
    pub entries: u64,
}

/// A part of a snapshot: entries as `(key, framed entry)`, in key order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SnapshotChunk {
    pub vote: Vote,
    /// Tells one sending from another.
    pub stream: u64,
    /// 0, 1, 2, …
    pub number: u32,
    pub head: Option<SnapshotHead>,
    pub entries: Vec<(Bytes, Bytes)>,
    /// With the last chunk: the checksum over all entries of all chunks.
    pub checksum: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SnapshotAnswer {
    /// Send the next chunk.
    Next,
    /// It is installed, or refused because of a higher vote.
    Vote(Vote),
}

/// A change of the cluster's members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum MemberChange {
    Add { address: String },
    Promote { server: ServerId },
    Remove { server: ServerId },
    Swap { old: ServerId, new: ServerId },
    Move { server: ServerId, address: String },
    Transfer { to: Option<ServerId> },
}

/// Why a request was not served by the leader it was sent to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Denied {
    /// Nothing happened: it does not lead. The one that does, where known.
    NotLeader(Option<ServerId>),
    /// Nothing happened: it cannot reach a majority.
    NoQuorum,
    /// Nothing happened: too much waits there.
    Overloaded,
    /// Nothing happened: its disk is full.
    DiskFull,
    /// It may have happened.
    Unknown,
    /// Nothing happened, for this reason.
    Invalid(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Request {
    Append(Append),
    Vote(Ballot),
    PreVote(Ballot),
    Transfer(Transfer),
    Snapshot(SnapshotChunk),
    /// Up to where does a server have to apply to see every acknowledged write?
    ReadIndex,
    Write(Batch),
    Member(MemberChange),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    Append(Appended),
    Vote(BallotAnswer),
    Transfer(Transferred),
    Snapshot(SnapshotAnswer),
    ReadIndex(Result<u64, Denied>),
    /// The index of the entry, and the outcomes in the batch's order.
    Write(Result<(u64, Vec<Outcome>), Denied>),
    /// The server it was about.
    Member(Result<ServerId, Denied>),
    /// The message was not looked at, for this reason.
    Refused(String),
    /// The message was not looked at: the sender was removed from the cluster.
    Removed,
}

fn text(reader: &mut Reader) -> Result<String, DecodeError> {
    Ok(String::from_utf8_lossy(&reader.bytes()?).into_owned())
}

fn tag<T>(what: &'static str, tag: u8) -> Result<T, DecodeError> {
    Err(DecodeError::Tag { what, tag })
}

fn encode_ballot(ballot: &Ballot, writer: &mut Writer) {
    ballot.vote.encode(writer);
    Position::encode_option(ballot.last, writer);
    writer.u8(u8::from(ballot.transfer));
}

fn decode_ballot(reader: &mut Reader) -> Result<Ballot, DecodeError> {
    Ok(Ballot {
        vote: Vote::decode(reader)?,
        last: Position::decode_option(reader)?,
        transfer: reader.flag("transfer")?,
    })
}

impl SnapshotChunk {
    fn encode(&self, writer: &mut Writer) {
        self.vote.encode(writer);
        writer.u64(self.stream);
        writer.u32(self.number);
        match &self.head {
            None => writer.u8(0),
            Some(head) => {
                writer.u8(1);
                head.applied.encode(writer);
                head.members.encode(writer);
                Position::encode_option(head.members_position, writer);
                writer.u64(head.servers_ever);
                writer.u64(head.revision);
                writer.u64(head.entries);
            }
        }
        writer.count(self.entries.len());
        for (key, entry) in &self.entries {
            writer.bytes(key);
            writer.bytes(entry);
        }
        writer.u8(u8::from(self.checksum.is_some()));
        writer.u32(self.checksum.unwrap_or_default());
    }

    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        let vote = Vote::decode(reader)?;
        let stream = reader.u64()?;
        let number = reader.u32()?;
        let head = if reader.flag("snapshot head")? {
            Some(SnapshotHead {
                applied: Position::decode(reader)?,
                members: Members::decode(reader)?,
                members_position: Position::decode_option(reader)?,
                servers_ever: reader.u64()?,
                revision: reader.u64()?,
                entries: reader.u64()?,
            })
        } else {
            None
        };
        let count = reader.count(8)?;
        let entries = (0..count)
            .map(|_| Ok((reader.bytes()?, reader.bytes()?)))
            .collect::<Result<_, DecodeError>>()?;
        let last = reader.flag("snapshot end")?;
        let checksum = reader.u32()?;
        Ok(SnapshotChunk {
            vote,
            stream,
            number,
            head,
            entries,
            checksum: last.then_some(checksum),
        })
    }
}

impl MemberChange {
    fn encode(&self, writer: &mut Writer) {
        match self {
            MemberChange::Add { address } => {
                writer.u8(0);
                writer.bytes(address.as_bytes());
            }
            MemberChange::Promote { server } => {
                writer.u8(1);
                writer.u64(*server);
            }
            MemberChange::Remove { server } => {
                writer.u8(2);
                writer.u64(*server);
            }
            MemberChange::Swap { old, new } => {
                writer.u8(3);
                writer.u64(*old);
                writer.u64(*new);
            }
            MemberChange::Transfer { to } => {
                writer.u8(4);
                writer.u8(u8::from(to.is_some()));
                writer.u64(to.unwrap_or_default());
            }
            MemberChange::Move { server, address } => {
                writer.u8(5);
                writer.u64(*server);
                writer.bytes(address.as_bytes());
            }
        }
    }

    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(match reader.u8()? {
            0 => MemberChange::Add {
                address: text(reader)?,
            },
            1 => MemberChange::Promote {
                server: reader.u64()?,
            },
            2 => MemberChange::Remove {
                server: reader.u64()?,
            },
            3 => MemberChange::Swap {
                old: reader.u64()?,
                new: reader.u64()?,
            },
            4 => {
                let named = reader.flag("transfer target")?;
                let server = reader.u64()?;
                MemberChange::Transfer {
                    to: named.then_some(server),
                }
            }
            5 => MemberChange::Move {
                server: reader.u64()?,
                address: text(reader)?,
            },
            other => return tag("member change", other),
        })
    }
}

impl Denied {
    fn encode(&self, writer: &mut Writer) {
        match self {
            Denied::NotLeader(leader) => {
                writer.u8(0);
                writer.u8(u8::from(leader.is_some()));
                writer.u64(leader.unwrap_or_default());
            }
            Denied::NoQuorum => writer.u8(1),
            Denied::Overloaded => writer.u8(2),
            Denied::DiskFull => writer.u8(3),
            Denied::Unknown => writer.u8(4),
            Denied::Invalid(reason) => {
                writer.u8(5);
                writer.bytes(reason.as_bytes());
            }
        }
    }

    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(match reader.u8()? {
            0 => {
                let known = reader.flag("leader")?;
                let leader = reader.u64()?;
                Denied::NotLeader(known.then_some(leader))
            }
            1 => Denied::NoQuorum,
            2 => Denied::Overloaded,
            3 => Denied::DiskFull,
            4 => Denied::Unknown,
            5 => Denied::Invalid(text(reader)?),
            other => return tag("denial", other),
        })
    }
}

fn encode_result<T>(
    result: &Result<T, Denied>,
    writer: &mut Writer,
    encode: impl FnOnce(&T, &mut Writer),
) {
    match result {
        Ok(value) => {
            writer.u8(1);
            encode(value, writer);
        }
        Err(denied) => {
            writer.u8(0);
            denied.encode(writer);
        }
    }
}

fn decode_result<T>(
    reader: &mut Reader,
    decode: impl FnOnce(&mut Reader) -> Result<T, DecodeError>,
) -> Result<Result<T, Denied>, DecodeError> {
    if reader.flag("result")? {
        decode(reader).map(Ok)
    } else {
        Denied::decode(reader).map(Err)
    }
}

impl Request {
    fn checks(&self) -> bool {
        match self {
            Request::Append(append) => append.records.iter().any(|record| match &record.payload {
                Payload::Batch(batch) => batch.checks(),
                Payload::Blank | Payload::Members(_) => false,
            }),
            Request::Write(batch) => batch.checks(),
            Request::Vote(_)
            | Request::PreVote(_)
            | Request::Transfer(_)
            | Request::Snapshot(_)
            | Request::ReadIndex
            | Request::Member(_) => false,
        }
    }

    /// `None` where it cannot be said in this version.
    pub(crate) fn encode(&self, envelope: &Envelope, version: u8) -> Option<Bytes> {
        if version < CHECKS_SINCE && self.checks() {
            return None;
        }
        let mut writer = if version < PACKED_SINCE {
            Writer::unpacking(version)
        } else {
            Writer::new(version)
        };
        envelope.encode(&mut writer);
        match self {
            Request::Append(append) => {
                writer.u8(0);
                append.vote.encode(&mut writer);
                Position::encode_option(append.previous, &mut writer);
                Position::encode_option(append.committed, &mut writer);
                writer.count(append.records.len());
                for record in &append.records {
                    record.encode(&mut writer);
                }
            }
            Request::Vote(ballot) => {
                writer.u8(1);
                encode_ballot(ballot, &mut writer);
            }
            Request::PreVote(ballot) => {
                writer.u8(2);
                encode_ballot(ballot, &mut writer);
            }
            Request::Transfer(transfer) => {
                writer.u8(3);
                transfer.vote.encode(&mut writer);
                writer.u64(transfer.to);
                Position::encode_option(transfer.last, &mut writer);
            }
            Request::Snapshot(chunk) => {
                writer.u8(4);
                chunk.encode(&mut writer);
            }
            Request::ReadIndex => writer.u8(5),
            Request::Write(batch) => {
                writer.u8(6);
                batch.encode(&mut writer);
            }
            Request::Member(change) => {
                writer.u8(7);
                change.encode(&mut writer);
            }
        }
        Some(Bytes::from(writer.finish(REQUEST)))
    }

    /// The envelope, and the body once the envelope was found good. `newest` is the newest version that is read.
    pub(crate) fn open(message: Bytes, newest: u8) -> Result<(Envelope, Body), DecodeError> {
        let mut reader = Reader::open(message, REQUEST, newest)?;
        let envelope = Envelope::decode(&mut reader)?;
        Ok((envelope, Body(reader)))
    }
}

/// The rest of a message whose envelope was read.
pub(crate) struct Body(Reader);

impl Body {
    /// The version it was written in.
    pub(crate) fn version(&self) -> u8 {
        self.0.version()
    }

    pub(crate) fn request(self) -> Result<Request, DecodeError> {
        let mut reader = self.0;
        let request = match reader.u8()? {
            0 => {
                let vote = Vote::decode(&mut reader)?;
                let previous = Position::decode_option(&mut reader)?;
                let committed = Position::decode_option(&mut reader)?;
                let count = reader.count(25)?;
                let records = (0..count)
                    .map(|_| Record::decode(&mut reader))
                    .collect::<Result<_, _>>()?;
                Request::Append(Append {
                    vote,
                    previous,
                    committed,
                    records,
                })
            }
            1 => Request::Vote(decode_ballot(&mut reader)?),
            2 => Request::PreVote(decode_ballot(&mut reader)?),
            3 => Request::Transfer(Transfer {
                vote: Vote::decode(&mut reader)?,
                to: reader.u64()?,
                last: Position::decode_option(&mut reader)?,
            }),
            4 => Request::Snapshot(SnapshotChunk::decode(&mut reader)?),
            5 => Request::ReadIndex,
            6 => Request::Write(Batch::decode(&mut reader)?),
            7 => Request::Member(MemberChange::decode(&mut reader)?),
            other => return tag("request", other),
        };
        reader.finish()?;
        Ok(request)
    }

    pub(crate) fn answer(self) -> Result<Answer, DecodeError> {
        let mut reader = self.0;
        let answer = match reader.u8()? {
            0 => Answer::Append(match reader.u8()? {
                0 => Appended::All,
                1 => Appended::Upto(Position::decode_option(&mut reader)?),
                2 => Appended::Conflict,
                3 => Appended::HigherVote(Vote::decode(&mut reader)?),
                other => return tag("append answer", other),
            }),
            1 => Answer::Vote(BallotAnswer {
                vote: Vote::decode(&mut reader)?,
                granted: reader.flag("vote")?,
                last: Position::decode_option(&mut reader)?,
            }),
            2 => Answer::Transfer(match reader.u8()? {
                0 => Transferred::Accepted,
                1 => Transferred::VoteChanged {
                    actual: Vote::decode(&mut reader)?,
                },
                2 => Transferred::Behind {
                    actual: Position::decode_option(&mut reader)?,
                },
                other => return tag("transfer answer", other),
            }),
            3 => Answer::Snapshot(match reader.u8()? {
                0 => SnapshotAnswer::Next,
                1 => SnapshotAnswer::Vote(Vote::decode(&mut reader)?),
                other => return tag("snapshot answer", other),
            }),
            4 => Answer::ReadIndex(decode_result(&mut reader, Reader::u64)?),
            5 => Answer::Write(decode_result(&mut reader, |reader| {
                let index = reader.u64()?;
                let count = reader.count(9)?;
                let outcomes = (0..count)
                    .map(|_| Outcome::decode(reader))
                    .collect::<Result<_, _>>()?;
                Ok((index, outcomes))
            })?),
            6 => Answer::Member(decode_result(&mut reader, Reader::u64)?),
            7 => Answer::Refused(text(&mut reader)?),
            8 => Answer::Removed,
            other => return tag("answer", other),
        };
        reader.finish()?;
        Ok(answer)
    }
}

impl Answer {
    pub(crate) fn encode(&self, envelope: &Envelope, version: u8) -> Bytes {
        let mut writer = Writer::new(version);
        envelope.encode(&mut writer);
        match self {
            Answer::Append(appended) => {
                writer.u8(0);
                match appended {
                    Appended::All => writer.u8(0),
                    Appended::Upto(position) => {
                        writer.u8(1);
                        Position::encode_option(*position, &mut writer);
                    }
                    Appended::Conflict => writer.u8(2),
                    Appended::HigherVote(vote) => {
                        writer.u8(3);
                        vote.encode(&mut writer);
                    }
                }
            }
            Answer::Vote(answer) => {
                writer.u8(1);
                answer.vote.encode(&mut writer);
                writer.u8(u8::from(answer.granted));
                Position::encode_option(answer.last, &mut writer);
            }
            Answer::Transfer(transferred) => {
                writer.u8(2);
                match transferred {
                    Transferred::Accepted => writer.u8(0),
                    Transferred::VoteChanged { actual } => {
                        writer.u8(1);
                        actual.encode(&mut writer);
                    }
                    Transferred::Behind { actual } => {
                        writer.u8(2);
                        Position::encode_option(*actual, &mut writer);
                    }
                }
            }
            Answer::Snapshot(answer) => {
                writer.u8(3);
                match answer {
                    SnapshotAnswer::Next => writer.u8(0),
                    SnapshotAnswer::Vote(vote) => {
                        writer.u8(1);
                        vote.encode(&mut writer);
                    }
                }
            }
            Answer::ReadIndex(result) => {
                writer.u8(4);
                encode_result(result, &mut writer, |index, writer| writer.u64(*index));
            }
            Answer::Write(result) => {
                writer.u8(5);
                encode_result(result, &mut writer, |(index, outcomes), writer| {
                    writer.u64(*index);
                    writer.count(outcomes.len());
                    for outcome in outcomes {
                        outcome.encode(writer);
                    }
                });
            }
            Answer::Member(result) => {
                writer.u8(6);
                encode_result(result, &mut writer, |server, writer| writer.u64(*server));
            }
            Answer::Refused(reason) => {
                writer.u8(7);
                writer.bytes(reason.as_bytes());
            }
            Answer::Removed => writer.u8(8),
        }
        Bytes::from(writer.finish(ANSWER))
    }

    pub(crate) fn open(message: Bytes, newest: u8) -> Result<(Envelope, Body), DecodeError> {
        let mut reader = Reader::open(message, ANSWER, newest)?;
        let envelope = Envelope::decode(&mut reader)?;
        Ok((envelope, Body(reader)))
    }
}

#[cfg(test)]
mod tests;
