//! What clients and watchers saw, in one order: the simulation runs one thing at a time, so a counter is a clock.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::command::{Change, Mutation, Precondition};
use crate::error::WriteError;
use crate::event::{Event, EventKind};
use crate::key::{Key, Revision, ServerId};
use crate::snapshot::Snapshot;

/// A moment of the whole simulation.
pub(crate) type Moment = u64;

/// What a client asked for.
#[derive(Debug, Clone)]
pub(crate) enum Ask {
    Write { mutations: Vec<Mutation> },
    Read,
}

/// One entry of a snapshot: value, revision of its creation, revision.
pub(crate) type Seen = BTreeMap<Key, (String, Revision, Revision)>;

/// What became of it.
#[derive(Debug, Clone)]
pub(crate) enum Told {
    Done(Revision),
    Conflict {
        key: Key,
        found: Option<Revision>,
    },
    /// It certainly did not happen.
    Nothing,
    /// It may have happened.
    Unknown,
    View {
        revision: Revision,
        entries: Seen,
    },
}

/// One request of a client.
#[derive(Debug, Clone)]
pub(crate) struct Operation {
    pub server: ServerId,
    pub ask: Ask,
    pub asked: Moment,
    /// `None` if the server died with it.
    pub told: Option<(Moment, Told)>,
}

/// An event without what is shared in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fact {
    pub key: Key,
    pub put: bool,
    pub value: String,
    pub created: Revision,
    pub previous: Option<Revision>,
}

impl Fact {
    pub(crate) fn of(event: &Event) -> Fact {
        Fact {
            key: event.entry.key.clone(),
            put: event.kind == EventKind::Put,
            value: text(&event.entry.value()),
            created: event.entry.create_revision,
            previous: event.previous.as_ref().map(|entry| entry.revision),
        }
    }
}

pub(crate) fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value).into_owned()
}

/// All of a snapshot; `None` where the disk has gone, which the reader does not survive.
pub(crate) fn seen(snapshot: &Snapshot) -> Option<Seen> {
    let entries = snapshot.range(b"", None).map(|entry| {
        let parts = (text(&entry.value()), entry.create_revision, entry.revision);
        (!entry.is_lost()).then(|| (entry.key.clone(), parts))
    });
    entries.collect()
}

/// Everything that was seen.
#[derive(Default)]
pub(crate) struct History {
    clock: Moment,
    pub operations: Vec<Operation>,
    /// The event of each revision, as the first watcher got it.
    pub facts: BTreeMap<Revision, Fact>,
    /// Whether servers of before checks were known took part: a check may show as the same value written once more.
    pub rewords: bool,
    /// What broke a promise.
    pub violations: Vec<String>,
    values: u64,
    /// What happened, in words, for whoever looks for the reason of a violation.
    pub log: Vec<String>,
}

pub(crate) type SharedHistory = Arc<Mutex<History>>;

impl History {
    pub(crate) fn moment(&mut self) -> Moment {
        self.clock += 1;
        self.clock
    }

    /// A value that no other write has.
    pub(crate) fn value(&mut self) -> String {
        self.values += 1;
        // Some long enough to be compressed.
        let rest = " default-scheduler".repeat(self.values as usize % 3 * 6);
        format!("v{}{rest}", self.values)
    }

    pub(crate) fn asked(&mut self, server: ServerId, ask: Ask) -> usize {
        let asked = self.moment();
        self.operations.push(Operation {
            server,
            ask,
            asked,
            told: None,
        });
        self.operations.len() - 1
    }

    pub(crate) fn told(&mut self, operation: usize, told: Told) {
        let at = self.moment();
        self.operations[operation].told = Some((at, told));
    }

    /// Whether this event is how a check was said to a server of before.
    pub(crate) fn is_reworded(&self, fact: &Fact) -> bool {
        let previous = fact.previous.and_then(|previous| self.facts.get(&previous));
        self.rewords && fact.put && previous.is_some_and(|previous| previous.value == fact.value)
    }

    pub(crate) fn violation(&mut self, what: String) {
        // One bug shows itself a thousand times.
        if self.violations.len() < 20 {
            self.violations.push(what);
        }
    }

    /// A watcher got an event: every server has to tell the same story.
    pub(crate) fn fact(&mut self, server: ServerId, event: &Event) {
        let fact = Fact::of(event);
        let revision = event.revision;
        if event.entry.revision != revision {
            let found = event.entry.revision;
            self.violation(format!("event {revision} carries an entry of {found}"));
        }
        // What it replaced is what was written then; a server whose disk has gone says that it cannot tell.
        if let Some(previous) = event.previous_entry().filter(|entry| !entry.is_lost())
            && let Some(known) = self.facts.get(&previous.revision)
            && known.value != text(&previous.value())
        {
            let told = format!("event {revision} on server {server} replaced another value");
            self.violation(told);
        }
        match self.facts.get(&revision) {
            None => {
                self.facts.insert(revision, fact);
            }
            Some(known) if *known == fact => {}
            Some(known) => {
                let known = known.clone();
                self.violation(format!(
                    "server {server} says {fact:?} of revision {revision}, another said {known:?}"
                ));
            }
        }
    }
}

/// What a refusal means for whoever keeps the books.
pub(crate) fn refused(error: WriteError) -> Told {
    match error {
        WriteError::Conflict { key, found } => Told::Conflict { key, found },
        WriteError::Unknown => Told::Unknown,
        WriteError::Fenced { .. }
        | WriteError::NotLeader { .. }
        | WriteError::NoQuorum
        | WriteError::Overloaded
        | WriteError::DiskFull
        | WriteError::TooLarge { .. }
        | WriteError::Closed => Told::Nothing,
    }
}

/// The value a mutation writes; `None` for a delete or a check.
pub(crate) fn written(mutation: &Mutation) -> Option<String> {
    match &mutation.change {
        Change::Put(value) => Some(text(&value.plain())),
        Change::Delete | Change::Check => None,
    }
}

/// Whether a key in this condition meets a precondition.
pub(crate) fn holds(precondition: Precondition, found: Option<Revision>) -> bool {
    match precondition {
        Precondition::None => true,
        Precondition::Absent => found.is_none(),
        Precondition::Revision(revision) => found == Some(revision),
    }
}
