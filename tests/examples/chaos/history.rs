//! What happened, as clients and watchers saw it from outside: the input of the checker.
//!
//! Moments are nanoseconds since the campaign began, on one clock. A value is written by one operation only, and tells
//! which. A revision is the `resourceVersion` of an object or a list.

use std::collections::BTreeMap;

/// Nanoseconds since the campaign began.
pub type Moment = u64;
pub type Revision = u64;
/// Number of an object: `chaos-7` is 7.
pub type Key = u16;
/// Unique among all writes.
pub type Value = u64;

/// What a client asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    Create {
        key: Key,
        value: Value,
    },
    /// On condition that the object is still at `base`.
    Update {
        key: Key,
        value: Value,
        base: Revision,
    },
    /// On condition that the object is still at `base`.
    Delete {
        key: Key,
        base: Revision,
    },
    Get {
        key: Key,
    },
    List,
}

/// What it was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// A create or update took effect at this revision.
    Written(Revision),
    /// A delete took effect; the answer does not say at which revision.
    Deleted,
    /// 409: the object is there already, or not at the revision that was named.
    Conflict,
    /// 404.
    NotFound,
    Found(Revision, Value),
    Listed(Revision, BTreeMap<Key, (Revision, Value)>),
    /// No answer, or one that leaves open whether it happened; and why.
    Unknown(Unknown),
}

/// Why nobody knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unknown {
    /// No answer in time.
    TimedOut,
    /// The connection was refused or broke.
    Disconnected,
    /// The server answered with this status.
    Status(u16),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// Index of the server that was asked.
    pub server: usize,
    pub asked: Moment,
    pub answered: Moment,
    pub ask: Ask,
    pub told: Told,
}

impl Operation {
    /// Whether a write was acknowledged.
    pub fn acknowledged(&self) -> bool {
        matches!(self.told, Told::Written(_) | Told::Deleted)
    }

    /// The value it writes, if it writes one.
    pub fn value(&self) -> Option<Value> {
        match self.ask {
            Ask::Create { value, .. } | Ask::Update { value, .. } => Some(value),
            Ask::Delete { .. } | Ask::Get { .. } | Ask::List => None,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    Added,
    Modified,
    Deleted,
}

/// What a watcher was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    Object {
        change: Change,
        key: Key,
        value: Value,
        revision: Revision,
    },
    /// Everything up to this revision was told.
    Bookmark(Revision),
}

impl Event {
    pub fn revision(&self) -> Revision {
        match self {
            Self::Object { revision, .. } | Self::Bookmark(revision) => *revision,
        }
    }
}

/// A watch and its resumes, across servers and their restarts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Watch {
    /// It was asked for what comes after this.
    pub after: Revision,
    pub events: Vec<Event>,
    /// It was given up when a server refused the resume because its history does not reach back that far: it need not
    /// have told of the end.
    pub given_up: bool,
}

#[derive(Debug, Default)]
pub struct History {
    pub operations: Vec<Operation>,
    pub watches: Vec<Watch>,
    /// What was there when everything was healed and quiet, and the revision of that list.
    pub last: (Revision, BTreeMap<Key, (Revision, Value)>),
}
