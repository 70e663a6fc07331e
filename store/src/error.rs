//! What can go wrong, told by what the caller can do next.
//!
//! One enum per verb of the store. A `Display` text is one sentence and leaves the cause to `source()`.

use std::path::PathBuf;

use crate::key::{Key, Revision, ServerId, Term};

/// A record on disk that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The record ends before its content does.
    #[error("it is cut short")]
    Truncated,
    /// The bytes are not those that were written, or lie under another key.
    #[error("its checksum does not match its content")]
    Checksum,
    /// Written by a newer program.
    #[error(
        "it has format {found}, and this program reads formats up to {supported}; use a newer weft"
    )]
    Version {
        /// Format of the record.
        found: u8,
        /// Newest format this program reads.
        supported: u8,
    },
    /// A byte that selects a variant selects none.
    #[error("it has no {what} numbered {tag}")]
    Tag {
        /// What the byte selects.
        what: &'static str,
        /// The byte.
        tag: u8,
    },
    /// The record goes on after its content.
    #[error("it has {bytes} bytes too many")]
    Trailing {
        /// How many.
        bytes: usize,
    },
}

/// Why a data folder could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process holds the folder: stop it, or use another folder.
    #[error("data folder {} is in use by process {process}", dir.display())]
    InUse {
        /// The folder.
        dir: PathBuf,
        /// The holder as it wrote itself down, or "unknown".
        process: String,
    },
    /// The file system refused.
    #[error("cannot use {}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The database file could not be opened.
    #[error("cannot open {}", path.display())]
    Database {
        /// The file.
        path: PathBuf,
        /// What redb said.
        #[source]
        source: Box<redb::Error>,
    },
    /// A record is damaged or from a newer program. The server must not start with it.
    #[error("{} cannot be read: {record}: {source}", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// Which record.
        record: String,
        /// What is wrong with it.
        source: DecodeError,
    },
    /// The files contradict each other or themselves.
    #[error("{} cannot be used: {reason}", path.display())]
    Inconsistent {
        /// The file or folder.
        path: PathBuf,
        /// One clause.
        reason: String,
    },
    /// The folder belongs to another cluster or server.
    #[error("data folder {} belongs to {found}, not to {expected}", dir.display())]
    Foreign {
        /// The folder.
        dir: PathBuf,
        /// Who wrote it.
        found: String,
        /// Who asks.
        expected: String,
    },
    /// The consensus library refused to start or did not become ready.
    #[error("consensus did not start: {reason}")]
    Consensus {
        /// What it said.
        reason: String,
    },
}

/// Why a write was not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// A precondition did not hold; nothing was changed. Read again and decide anew.
    #[error("{key} is {}, which is not what the write expected", found_text(.found))]
    Conflict {
        /// The key whose precondition failed.
        key: Key,
        /// Its revision, or `None` when it does not exist.
        found: Option<Revision>,
    },
    /// The writer's term is over; nothing was changed. Stop acting as the leader.
    #[error("the write belongs to term {fence}, and the log is in term {term}")]
    Fenced {
        /// The term the writer believes in.
        fence: Term,
        /// The term in which the write was ordered.
        term: Term,
    },
    /// Nothing was proposed: no leader was found in time, or the write is fenced and another server leads.
    #[error("{}", leader_text(.leader))]
    NotLeader {
        /// The leader, where known.
        leader: Option<ServerId>,
    },
    /// Nothing was proposed: the leader cannot reach a majority now. Retry with a delay.
    #[error("a majority of the servers cannot be reached")]
    NoQuorum,
    /// Nothing was proposed: too many writes wait, here or at the leader. Retry with a delay.
    #[error("too many writes are waiting")]
    Overloaded,
    /// Nothing was proposed: the disk is full. Reads and deletes go on; puts do once there is room.
    #[error("the disk of the store is full, so only deletes are taken; free some space")]
    DiskFull,
    /// Nothing was proposed: the command is over a limit.
    #[error("the write has {bytes} bytes of {what}, the limit is {max}")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// Its size.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// Nothing was proposed: the store is closed, or stopped after a storage fault.
    #[error("the store is closed")]
    Closed,
    /// It is not known whether the write took effect: leadership or storage was lost meanwhile. Read before retrying.
    #[error("the write may or may not have been stored")]
    Unknown,
}

fn leader_text(leader: &Option<ServerId>) -> String {
    match leader {
        Some(leader) => format!("server {leader} is the leader, not this one"),
        None => "no server is known to lead now".to_owned(),
    }
}

fn found_text(found: &Option<Revision>) -> String {
    match found {
        Some(revision) => format!("at revision {revision}"),
        None => "absent".to_owned(),
    }
}

/// Why a linearizable read was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// No leader answered in time. Retry with a delay.
    #[error("{}", leader_text(.leader))]
    NotLeader {
        /// The leader, where known.
        leader: Option<ServerId>,
    },
    /// This server did not catch up with the leader in time. Retry with a delay, or ask another server.
    #[error("this server has not caught up with the leader")]
    Behind,
    /// The leader cannot reach a majority now. Retry with a delay.
    #[error("a majority of the servers cannot be reached")]
    NoQuorum,
    /// Too many reads are waiting. Retry with a delay.
    #[error("too many reads are waiting")]
    Overloaded,
    /// The store is closed, or stopped after a storage fault.
    #[error("the store is closed")]
    Closed,
}

/// Why a backup was not made or not used.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The state to be saved could not be confirmed.
    #[error("the newest state cannot be read")]
    Read(#[source] ReadError),
    /// The file system refused.
    #[error("cannot use {}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The backup is damaged, or from a newer program.
    #[error("{} is not a sound backup: {source}", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: DecodeError,
    },
    /// It cannot be restored like this.
    #[error("{} cannot be restored: {reason}", path.display())]
    Invalid {
        /// The file or folder.
        path: PathBuf,
        /// One clause.
        reason: String,
    },
    /// The new folder could not be written.
    #[error("the restored store was not written")]
    Write(#[source] OpenError),
}

/// Why a change of the members did not take effect.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MemberError {
    /// Nothing was changed, for this reason.
    #[error("{reason}")]
    Invalid {
        /// One sentence.
        reason: String,
    },
    /// Nothing was changed: no leader answered. Retry with a delay.
    #[error("{}", leader_text(.leader))]
    NotLeader {
        /// The leader, where known.
        leader: Option<ServerId>,
    },
    /// Nothing was changed: the leader cannot reach a majority.
    #[error("a majority of the servers cannot be reached")]
    NoQuorum,
    /// Nothing was changed: another change is under way. Retry with a delay.
    #[error("another change of the members is under way; try again after it")]
    Busy,
    /// It is not known whether the change took effect: list the members before retrying.
    #[error("the change may or may not have taken effect; list the members")]
    Unknown,
    /// The store is closed.
    #[error("the store is closed")]
    Closed,
}

/// Why a store cannot go on. Its process should end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Ended {
    /// The server was removed, for ever: its number is never given out again.
    #[error("this server was removed from the cluster")]
    Removed,
    /// Consensus or the disk failed, for this reason. What the disk holds is only known after a restart.
    #[error("{0}")]
    Failed(String),
}

/// Why a watch cannot start where it was asked to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WatchError {
    /// Events after that revision are no longer kept: list, then watch from the list's revision.
    #[error("history before revision {oldest} is no longer kept")]
    Compacted {
        /// The smallest revision a watch may start after.
        oldest: Revision,
    },
    /// The revision has not happened on this server.
    #[error("revision {asked} is in the future, the store is at {current}")]
    Future {
        /// The revision asked for.
        asked: Revision,
        /// The newest revision.
        current: Revision,
    },
}

/// The watcher fell too far behind and was cut off: list, then watch again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the watch fell behind and was ended after revision {delivered}")]
pub struct WatchLagged {
    /// Everything up to here was delivered.
    pub delivered: Revision,
}

/// Turns any redb error into an `io::Error`, the type the consensus library speaks.
pub(crate) fn storage_io(error: impl Into<redb::Error>) -> std::io::Error {
    match error.into() {
        redb::Error::Io(error) => error,
        other => std::io::Error::other(other),
    }
}
