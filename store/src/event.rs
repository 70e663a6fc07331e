//! One mutation that took effect, as watchers are told of it and as the checkpoint keeps it.
//!
//! A put does not read the value that it replaces: its event knows of which revision that was, and where it is. Whoever wants it
//! ([`Event::previous_entry`]) reads it then, from memory, or from the checkpoint that held it when the put was applied. The event's own checkpoint
//! record has both values, so that it can be told for as long as it is in the history.
//!
//! Invariants: what an event says of its previous value is the same on every server and in every checkpoint; its value is found as long as the event is there.
//! Left to others: which events are kept (`history.rs`), and who is told (`watch.rs`).

use std::fmt;
use std::io;
use std::sync::Arc;

use bytes::Bytes;

use crate::codec::{Reader, Writer};
use crate::entries::{Mark, Shelf};
use crate::error::DecodeError;
use crate::key::{ENTRY_OVERHEAD_BYTES, Entry, Key, Revision};
use crate::tables::{FORMAT, PACKED_SINCE, index_context};
use crate::value::Value;

/// What an event did to its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// The key got a value.
    Put,
    /// The key went.
    Delete,
}

/// One mutation that took effect. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its number.
    pub revision: Revision,
    /// What it did.
    pub kind: EventKind,
    /// The entry it wrote; for a delete the last value, under the revision of the deletion.
    pub entry: Arc<Entry>,
    /// The entry it replaced or removed.
    pub previous: Option<Previous>,
}

/// The entry that an event replaced or removed. Two of the same revision are equal: a revision names one mutation.
#[derive(Clone)]
pub struct Previous {
    /// Revision of the mutation that created the key.
    pub create_revision: Revision,
    /// Revision of the mutation that wrote the value.
    pub revision: Revision,
    place: Place,
}

#[derive(Clone)]
enum Place {
    Memory(Arc<Entry>),
    /// The checkpoint that was the newest one when it was replaced.
    Shelf(Arc<Shelf>),
}

impl Previous {
    /// One that is in memory.
    pub(crate) fn held(entry: Arc<Entry>) -> Self {
        Previous {
            create_revision: entry.create_revision,
            revision: entry.revision,
            place: Place::Memory(entry),
        }
    }

    /// One that is on a shelf.
    pub(crate) fn on(shelf: Arc<Shelf>, mark: Mark) -> Self {
        Previous {
            create_revision: mark.create_revision,
            revision: mark.revision,
            place: Place::Shelf(shelf),
        }
    }

    /// The entry, where it is in memory.
    pub(crate) fn in_memory(&self) -> Option<&Arc<Entry>> {
        match &self.place {
            Place::Memory(entry) => Some(entry),
            Place::Shelf(_) => None,
        }
    }
}

impl PartialEq for Previous {
    fn eq(&self, other: &Self) -> bool {
        (self.create_revision, self.revision) == (other.create_revision, other.revision)
    }
}

impl Eq for Previous {}

impl fmt::Debug for Previous {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Previous")
            .field("create_revision", &self.create_revision)
            .field("revision", &self.revision)
            .finish_non_exhaustive()
    }
}

impl Event {
    /// The entry it replaced or removed, with its value. May read the disk.
    ///
    /// Where that fails the entry is there all the same, without its value: [`Entry::is_lost`].
    pub fn previous_entry(&self) -> Option<Arc<Entry>> {
        let previous = self.previous.as_ref()?;
        Some(match &previous.place {
            Place::Memory(entry) => Arc::clone(entry),
            Place::Shelf(shelf) => {
                let (create, revision) = (previous.create_revision, previous.revision);
                shelf.entry(self.entry.key.as_bytes(), create, revision)
            }
        })
    }

    /// As [`Event::previous_entry`], for whoever must not copy what cannot be read.
    fn read_previous(&self) -> io::Result<Option<Arc<Entry>>> {
        let Some(previous) = &self.previous else {
            return Ok(None);
        };
        Ok(Some(match &previous.place {
            Place::Memory(entry) => Arc::clone(entry),
            Place::Shelf(shelf) => {
                Arc::new(shelf.read(self.entry.key.as_bytes(), previous.revision)?)
            }
        }))
    }

    /// Has it hold what it replaced.
    pub(crate) fn hold_previous(&mut self, entry: Arc<Entry>) {
        debug_assert_eq!(
            self.previous.as_ref().map(|previous| previous.revision),
            Some(entry.revision)
        );
        self.previous = Some(Previous::held(entry));
    }

    /// Has it look for what it replaced on a later shelf, which shows that entry unchanged.
    pub(crate) fn move_previous(&mut self, to: &Arc<Shelf>) {
        if let Some(previous) = &mut self.previous
            && matches!(previous.place, Place::Shelf(_))
        {
            previous.place = Place::Shelf(Arc::clone(to));
        }
    }

    /// Memory that its own entry takes.
    pub(crate) fn entry_bytes(&self) -> usize {
        self.entry.bytes() + ENTRY_OVERHEAD_BYTES
    }

    /// Memory this event keeps alive, counting a previous value that is in memory although it may be shared.
    pub(crate) fn bytes(&self) -> usize {
        let previous = self.previous.as_ref().and_then(Previous::in_memory);
        self.entry_bytes() + previous.map_or(0, |entry| entry.bytes() + ENTRY_OVERHEAD_BYTES)
    }

    /// Its record in the checkpoint. `replaced` is what it replaced, where that was met already; else it is read.
    pub(crate) fn to_disk(&self, replaced: Option<&Entry>) -> io::Result<Vec<u8>> {
        let mut writer = Writer::new(FORMAT);
        writer.u8(match self.kind {
            EventKind::Put => 0,
            EventKind::Delete => 1,
        });
        writer.bytes(self.entry.key.as_bytes());
        writer.u64(self.entry.create_revision);
        self.entry.stored_value().encode(&mut writer);
        let wanted = self.previous.as_ref().map(|previous| previous.revision);
        let met = replaced.filter(|entry| Some(entry.revision) == wanted);
        let read = match met {
            Some(_) => None,
            None => self.read_previous()?,
        };
        match met.or(read.as_deref()) {
            None => writer.u8(0),
            Some(previous) => {
                writer.u8(1);
                writer.u64(previous.create_revision);
                writer.u64(previous.revision);
                previous.stored_value().encode(&mut writer);
            }
        }
        Ok(writer.finish(&index_context("events", self.revision)))
    }

    pub(crate) fn from_disk(revision: Revision, record: Bytes) -> Result<Event, DecodeError> {
        let mut reader = Reader::open(record, &index_context("events", revision), FORMAT)?;
        let kind = match reader.u8()? {
            0 => EventKind::Put,
            1 => EventKind::Delete,
            tag => {
                return Err(DecodeError::Tag {
                    what: "event kind",
                    tag,
                });
            }
        };
        let key = Key::new(reader.bytes()?);
        let create_revision = reader.u64()?;
        let value = decode_value(&mut reader)?;
        let entry = Entry::new(key.clone(), value, create_revision, revision);
        let previous = if reader.flag("previous entry")? {
            let create_revision = reader.u64()?;
            let revision = reader.u64()?;
            let value = decode_value(&mut reader)?;
            let entry = Entry::new(key, value, create_revision, revision);
            Some(Previous::held(Arc::new(entry)))
        } else {
            None
        };
        reader.finish()?;
        Ok(Event {
            revision,
            kind,
            entry: Arc::new(entry),
            previous,
        })
    }
}

fn decode_value(reader: &mut Reader) -> Result<Value, DecodeError> {
    if reader.version() < PACKED_SINCE {
        return reader.bytes().map(Value::as_it_is);
    }
    Value::decode(reader)
}
