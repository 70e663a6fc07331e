//! The entries of a state: an index in memory, and values where they are.
//!
//! Of every key the index knows its revisions and its weight: some tens of bytes. A value is in memory from its write until a
//! checkpoint has it, then on disk, where a [`Shelf`] reads it; what is asked for often is also in a [`Cache`] of a
//! bounded size. So memory grows with keys and with what is read, not with what is stored.
//!
//! Each checkpoint is a shelf of its own, which shows that checkpoint for as long as somebody looks at it, whatever later ones
//! hold (redb's read transactions). Entries are immutable like the rest of a state: a clone is O(1), and goes on finding each of its values in
//! one of three places, for they change together:
//!
//! ```text
//! written        recent:    values since a checkpoint was last begun
//! begin_flush    flushing:  values that the checkpoint under way is writing
//! flushed        shelf:     every other value
//! ```
//!
//! Invariants: a key of the index has its value, of the revision that the index names, in `recent`, else in `flushing`, else on
//! the shelf; what is found of another revision is an error, never an answer.
//! Left to others: calling the two steps with nothing written in between (`watch.rs`).

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::HashMap;
use std::io;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use imbl::{OrdMap, OrdSet};
use parking_lot::{Mutex, RwLock};
use redb::{Database, ReadOnlyTable, ReadableDatabase};

use crate::checkpoint::decode_entry;
use crate::error::storage_io;
use crate::event::{Event, Previous};
use crate::key::{Entry, Key, Revision};
use crate::planted::{Bug, planted};
use crate::tables::{EVENTS, OBJECTS};

/// What the index knows of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    pub create_revision: Revision,
    pub revision: Revision,
    /// [`Entry::bytes`]
    pub weight: usize,
}

impl Mark {
    pub(crate) fn of(entry: &Entry) -> Self {
        Mark {
            create_revision: entry.create_revision,
            revision: entry.revision,
            weight: entry.bytes(),
        }
    }
}

/// A key and its mark in one buffer: the key, three numbers in seven bits a byte, and how many bytes those take.
#[derive(Clone)]
struct Slot(Arc<[u8]>);

/// Most bytes of a mark: two numbers of 64 bits and one of fewer, and the length.
const MARK_BYTES_MAX: usize = 31;

fn put_number(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn take_number(bytes: &mut &[u8]) -> u64 {
    let (mut number, mut shift) = (0, 0);
    while let Some((byte, rest)) = bytes.split_first() {
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            break;
        }
    }
    number
}

impl Slot {
    fn new(key: &[u8], mark: Mark) -> Self {
        let mut bytes = Vec::with_capacity(key.len() + MARK_BYTES_MAX);
        bytes.extend_from_slice(key);
        put_number(mark.create_revision, &mut bytes);
        // A key that was never written again, as most events, needs one byte for it.
        put_number(mark.revision.wrapping_sub(mark.create_revision), &mut bytes);
        put_number(mark.weight as u64, &mut bytes);
        let length = bytes.len() - key.len();
        bytes.push(u8::try_from(length).expect("three numbers take at most 30 bytes"));
        Slot(bytes.into())
    }

    fn split(&self) -> (&[u8], &[u8]) {
        let (length, rest) = self.0.split_last().expect("a slot ends with a length");
        rest.split_at(rest.len() - usize::from(*length))
    }

    fn key(&self) -> &[u8] {
        self.split().0
    }

    fn mark(&self) -> Mark {
        let mut numbers = self.split().1;
        let create_revision = take_number(&mut numbers);
        Mark {
            create_revision,
            revision: create_revision.wrapping_add(take_number(&mut numbers)),
            weight: usize::try_from(take_number(&mut numbers)).unwrap_or(usize::MAX),
        }
    }
}

impl Borrow<[u8]> for Slot {
    fn borrow(&self) -> &[u8] {
        self.key()
    }
}

impl PartialEq for Slot {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Slot {}

impl PartialOrd for Slot {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Slot {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(other.key())
    }
}

/// The tables of one checkpoint, and what keeps their file open.
struct Open {
    objects: ReadOnlyTable<&'static [u8], &'static [u8]>,
    events: ReadOnlyTable<u64, &'static [u8]>,
    database: Arc<Database>,
}

/// The values of one checkpoint, and the events of its history.
pub(crate) struct Shelf {
    /// `None` once the store is closed.
    open: RwLock<Option<Open>>,
    /// Told of what cannot be read.
    failed: Box<dyn Fn(&io::Error) + Send + Sync>,
}

impl Shelf {
    /// The newest checkpoint in a file.
    pub(crate) fn open(
        database: &Arc<Database>,
        failed: impl Fn(&io::Error) + Send + Sync + 'static,
    ) -> io::Result<Arc<Shelf>> {
        let transaction = database.begin_read().map_err(storage_io)?;
        let open = Open {
            objects: transaction.open_table(OBJECTS).map_err(storage_io)?,
            events: transaction.open_table(EVENTS).map_err(storage_io)?,
            database: Arc::clone(database),
        };
        Ok(Arc::new(Shelf {
            open: RwLock::new(Some(open)),
            failed: Box::new(failed),
        }))
    }

    /// Lets go of the file. What is read later is an error.
    pub(crate) fn close(&self) {
        self.open.write().take();
    }

    /// The store ends for what cannot be read, but not for what is read when it has ended.
    fn tell(&self, error: &io::Error) {
        if self.open.read().is_some() {
            (self.failed)(error);
        }
    }

    /// Blocks where the page is in no cache.
    pub(crate) fn read(&self, key: &[u8], revision: Revision) -> io::Result<Entry> {
        let record = {
            let open = self.open.read();
            let open = open.as_ref().ok_or_else(closed)?;
            let record = if planted(Bug::ShelfOfNow) {
                let now = Shelf::open(&open.database, |_| ())?;
                let now = now.open.read();
                let table = now.as_ref().map(|now| now.objects.get(key));
                table.transpose().map_err(storage_io)?.flatten()
            } else {
                open.objects.get(key).map_err(storage_io)?
            };
            record.map(|record| Bytes::copy_from_slice(record.value()))
        };
        let unsound = |reason: String| {
            let key = key.escape_ascii();
            io::Error::other(format!("object {key} of revision {revision}: {reason}"))
        };
        let record = record.ok_or_else(|| unsound("the checkpoint does not hold it".to_owned()))?;
        let entry = decode_entry(Key::new(Bytes::copy_from_slice(key)), record)
            .map_err(|error| unsound(error.to_string()))?;
        if entry.revision != revision && !planted(Bug::ShelfOfNow) {
            return Err(unsound(format!("the checkpoint holds {}", entry.revision)));
        }
        Ok(entry)
    }

    /// As [`Shelf::read`]. What cannot be read is there, with no value, and the store ends for it.
    pub(crate) fn entry(&self, key: &[u8], create: Revision, revision: Revision) -> Arc<Entry> {
        Arc::new(self.read(key, revision).unwrap_or_else(|error| {
            self.tell(&error);
            let key = Key::new(Bytes::copy_from_slice(key));
            Entry::of_lost_value(key, create, revision)
        }))
    }

    /// The record of an event of the history that is written down.
    pub(crate) fn event_record(&self, revision: Revision) -> io::Result<Bytes> {
        let open = self.open.read();
        let open = open.as_ref().ok_or_else(closed)?;
        let record = open.events.get(revision).map_err(storage_io)?;
        let record = record.ok_or_else(|| {
            io::Error::other(format!("event {revision}: the checkpoint does not hold it"))
        })?;
        Ok(Bytes::copy_from_slice(record.value()))
    }

    /// An event of the history that is written down. The store ends where it cannot be read.
    pub(crate) fn event(&self, revision: Revision) -> io::Result<Event> {
        let event = self.event_record(revision).and_then(|record| {
            Event::from_disk(revision, record)
                .map_err(|error| io::Error::other(format!("event {revision}: {error}")))
        });
        event.inspect_err(|error| self.tell(error))
    }
}

fn closed() -> io::Error {
    io::Error::other("the store is closed")
}

/// Entries that were read from a shelf, as far as they fit: the older half goes when the newer one is full.
pub(crate) struct Cache {
    bytes_max: usize,
    halves: Mutex<Halves>,
}

#[derive(Default)]
struct Halves {
    newer: HashMap<Key, Arc<Entry>>,
    newer_bytes: usize,
    older: HashMap<Key, Arc<Entry>>,
}

/// What an entry takes beside its key and its value, in the cache.
const CACHED_OVERHEAD_BYTES: usize = 256;

impl Cache {
    pub(crate) fn new(bytes_max: usize) -> Arc<Cache> {
        Arc::new(Cache {
            bytes_max,
            halves: Mutex::default(),
        })
    }

    fn get(&self, key: &[u8], revision: Revision) -> Option<Arc<Entry>> {
        let mut halves = self.halves.lock();
        let current = |entry: &&Arc<Entry>| entry.revision == revision;
        if let Some(entry) = halves.newer.get(key).filter(current) {
            return Some(Arc::clone(entry));
        }
        let entry = halves.older.get(key).filter(current).map(Arc::clone)?;
        self.put_into(&mut halves, &entry);
        Some(entry)
    }

    fn put(&self, entry: &Arc<Entry>) {
        self.put_into(&mut self.halves.lock(), entry);
    }

    fn put_into(&self, halves: &mut Halves, entry: &Arc<Entry>) {
        // What readers hang on it is about as long as the value, unpacked.
        let bytes = entry.bytes() + entry.stored_value().len() + CACHED_OVERHEAD_BYTES;
        if bytes > self.bytes_max / 2 {
            return;
        }
        if halves.newer_bytes + bytes > self.bytes_max / 2 {
            halves.older = std::mem::take(&mut halves.newer);
            halves.newer_bytes = 0;
        }
        halves.newer_bytes += bytes;
        halves.newer.insert(entry.key.clone(), Arc::clone(entry));
    }
}

/// Values by the revisions that wrote them. Those of one write lie side by side, whatever their keys are: a batch that is applied to a
/// state that others look at copies one leaf of it, where an index of keys would have it copy one for each.
type Values = OrdMap<Revision, Arc<Entry>>;

/// The keys of a state, and the way to their values. A clone is O(1).
#[derive(Clone, Default)]
pub(crate) struct Entries {
    index: OrdSet<Slot>,
    recent: Values,
    flushing: Values,
    shelf: Option<Arc<Shelf>>,
    cache: Option<Arc<Cache>>,
}

impl Entries {
    /// What a shelf holds, as far as it is put in with [`Entries::index`].
    pub(crate) fn on(shelf: Arc<Shelf>, cache: Arc<Cache>) -> Self {
        Entries {
            shelf: Some(shelf),
            cache: Some(cache),
            ..Entries::default()
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.index.len()
    }

    pub(crate) fn mark(&self, key: &[u8]) -> Option<Mark> {
        self.index.get(key).map(Slot::mark)
    }

    /// Puts an entry that is on the shelf into the index.
    pub(crate) fn index(&mut self, key: &[u8], mark: Mark) {
        self.index.insert(Slot::new(key, mark));
    }

    pub(crate) fn insert(&mut self, entry: Arc<Entry>) {
        let slot = Slot::new(entry.key.as_bytes(), Mark::of(&entry));
        let before = self.index.insert(slot);
        self.forget(before);
        self.recent.insert(entry.revision, entry);
    }

    pub(crate) fn remove(&mut self, key: &[u8]) {
        let before = self.index.remove(key);
        self.forget(before);
    }

    /// What was written and replaced between two checkpoints is in none.
    fn forget(&mut self, slot: Option<Slot>) {
        let revision = slot.map(|slot| slot.mark().revision);
        // A look first, for a removal copies what it passes.
        if let Some(revision) = revision.filter(|revision| self.recent.contains_key(revision)) {
            self.recent.remove(&revision);
        }
    }

    /// Where values are that are not in memory.
    pub(crate) fn shelf(&self) -> Option<&Arc<Shelf>> {
        self.shelf.as_ref()
    }

    fn in_memory(&self, revision: Revision) -> Option<Arc<Entry>> {
        let found = self.recent.get(&revision);
        let found = found.or_else(|| self.flushing.get(&revision));
        found.map(Arc::clone)
    }

    fn read_shelf(&self, key: &[u8], revision: Revision) -> io::Result<Arc<Entry>> {
        let shelf = self.shelf.as_ref().ok_or_else(closed)?;
        shelf.read(key, revision).map(Arc::new)
    }

    /// The entry under a key, as a reader wants it. May read the disk.
    pub(crate) fn get(&self, key: &[u8]) -> Option<Arc<Entry>> {
        let slot = self.index.get(key)?;
        Some(self.entry(slot))
    }

    fn entry(&self, slot: &Slot) -> Arc<Entry> {
        let (key, mark) = (slot.key(), slot.mark());
        let cached = || {
            let cache = self.cache.as_ref()?;
            cache.get(key, mark.revision)
        };
        if let Some(entry) = self.in_memory(mark.revision).or_else(cached) {
            return entry;
        }
        let entry = self.on_shelf(key, mark);
        if let Some(cache) = &self.cache
            && !entry.is_lost()
        {
            cache.put(&entry);
        }
        entry
    }

    fn on_shelf(&self, key: &[u8], mark: Mark) -> Arc<Entry> {
        let (create, revision) = (mark.create_revision, mark.revision);
        match &self.shelf {
            Some(shelf) => shelf.entry(key, create, revision),
            None => {
                let key = Key::new(Bytes::copy_from_slice(key));
                Arc::new(Entry::of_lost_value(key, create, revision))
            }
        }
    }

    /// The entry under a key of this mark that is about to go, so that it is not worth to be cached. May read the disk.
    pub(crate) fn take(&self, key: &[u8], mark: Mark) -> Arc<Entry> {
        let held = self.in_memory(mark.revision);
        held.unwrap_or_else(|| self.on_shelf(key, mark))
    }

    /// The entry under a key of this mark that is about to be replaced, wherever it is. Never reads the disk.
    pub(crate) fn previous(&self, key: &[u8], mark: Mark) -> Previous {
        match (self.in_memory(mark.revision), &self.shelf) {
            (None, Some(shelf)) => Previous::on(Arc::clone(shelf), mark),
            (Some(entry), _) => Previous::held(entry),
            (None, None) => Previous::held(self.on_shelf(key, mark)),
        }
    }

    fn slots<'a>(&'a self, start: Bound<&[u8]>) -> impl Iterator<Item = &'a Slot> + use<'a> {
        self.index.range::<_, [u8]>((start, Bound::Unbounded))
    }

    /// The entries under a prefix from a key on, in key order, as a reader wants them. May read the disk.
    pub(crate) fn range<'a>(
        &'a self,
        start: Bound<&[u8]>,
        prefix: &'a [u8],
    ) -> impl Iterator<Item = Arc<Entry>> + use<'a> {
        let slots = self.slots(start);
        slots
            .take_while(move |slot| slot.key().starts_with(prefix))
            .map(|slot| self.entry(slot))
    }

    /// The keys under a prefix from one on, in their order, with what is known without a value.
    pub(crate) fn marks<'a>(
        &'a self,
        start: Bound<&[u8]>,
        prefix: &'a [u8],
    ) -> impl Iterator<Item = (&'a [u8], Mark)> + use<'a> {
        let slots = self.slots(start);
        slots
            .take_while(move |slot| slot.key().starts_with(prefix))
            .map(|slot| (slot.key(), slot.mark()))
    }

    /// All entries from a key on, for whoever copies them and must not copy what cannot be read.
    pub(crate) fn copy<'a>(
        &'a self,
        start: Bound<&[u8]>,
    ) -> impl Iterator<Item = io::Result<Arc<Entry>>> + use<'a> {
        self.slots(start).map(|slot| {
            let (key, revision) = (slot.key(), slot.mark().revision);
            match self.in_memory(revision) {
                Some(entry) => Ok(entry),
                None => self.read_shelf(key, revision),
            }
        })
    }

    /// From here on `recent` is what a checkpoint that begins now does not write.
    pub(crate) fn begin_flush(&mut self) {
        let recent = std::mem::take(&mut self.recent);
        if self.flushing.is_empty() {
            self.flushing = recent;
        } else {
            // The last checkpoint was not made.
            self.flushing.extend(recent);
        }
    }

    /// What that checkpoint has to write, in the order of their keys: entries that are still in the state.
    pub(crate) fn flushing(&self) -> Vec<&Arc<Entry>> {
        let current = self.flushing.values().filter(|entry| {
            let mark = self.mark(entry.key.as_bytes());
            mark.is_some_and(|mark| mark.revision == entry.revision)
        });
        let mut entries: Vec<_> = current.collect();
        entries.sort_unstable_by(|one, other| one.key.cmp(&other.key));
        entries
    }

    /// The checkpoint was made, and `shelf` shows it.
    pub(crate) fn flushed(&mut self, shelf: Arc<Shelf>, cache: Arc<Cache>) {
        self.flushing = Values::new();
        if planted(Bug::FlushTakesNewer) {
            self.recent = Values::new();
        }
        if planted(Bug::ShelfKept) && self.shelf.is_some() {
            return;
        }
        self.shelf = Some(shelf);
        self.cache = Some(cache);
    }

    /// How many values are in memory.
    #[cfg(test)]
    pub(crate) fn held(&self) -> usize {
        self.recent.len() + self.flushing.len()
    }

    /// All entries.
    #[cfg(test)]
    pub(crate) fn all(&self) -> Vec<Arc<Entry>> {
        let entries = self.copy(Bound::Unbounded);
        entries.collect::<io::Result<_>>().expect("readable")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::checkpoint::encode_entry;
    use crate::tables::FORMAT;
    use crate::value::Value;

    fn entry(key: &str, revision: Revision) -> Arc<Entry> {
        let value = Value::as_it_is(Bytes::from(format!("{key}@{revision}")));
        Arc::new(Entry::new(Key::from(key), value, revision, revision))
    }

    #[test]
    fn a_slot_tells_what_it_was_given() {
        for (key, create_revision, revision, weight) in [
            (b"".as_slice(), 0, 0, 0),
            (b"/core/pods/shop/web-1".as_slice(), 1, 1, 127),
            (b"/core/pods/shop/web-1".as_slice(), 127, 128, 128),
            (b"\xff\x00".as_slice(), 1 << 40, u64::MAX, usize::MAX),
            (&[7; Key::BYTES_MAX][..], u64::MAX, u64::MAX, 6 << 20),
        ] {
            let mark = Mark {
                create_revision,
                revision,
                weight,
            };
            let slot = Slot::new(key, mark);
            assert_eq!((slot.key(), slot.mark()), (key, mark));
        }
    }

    #[test]
    fn a_cache_keeps_what_is_asked_for_and_its_size() {
        let each = entry("/k/000", 1).bytes() + entry("/k/000", 1).stored_value().len();
        let cache = Cache::new(10 * (each + CACHED_OVERHEAD_BYTES));
        for n in 0..100 {
            let key = format!("/k/{n:03}");
            cache.put(&entry(&key, 1));
            // Asked for all the time, and so kept all the time.
            let first = cache.get(b"/k/000", 1);
            assert!(first.is_some(), "after {n}");
            let halves = cache.halves.lock();
            assert!(halves.newer.len() + halves.older.len() <= 10, "after {n}");
        }
        assert!(cache.get(b"/k/099", 1).is_some());
        assert!(cache.get(b"/k/099", 2).is_none(), "of another revision");
        assert!(cache.get(b"/k/050", 1).is_none());
        let none = Cache::new(0);
        none.put(&entry("/k/000", 1));
        assert!(none.get(b"/k/000", 1).is_none());
    }

    #[test]
    fn what_cannot_be_read_is_there_and_is_told() {
        let backend = redb::backends::InMemoryBackend::new();
        let database = Database::builder().create_with_backend(backend);
        let database = Arc::new(database.expect("creates"));
        let written = entry("/a", 7);
        let transaction = database.begin_write().expect("begins");
        {
            let record = encode_entry(&written, FORMAT);
            let mut objects = transaction.open_table(OBJECTS).expect("opens");
            let (key, record) = (written.key.as_bytes(), record.as_slice());
            objects.insert(key, record).expect("inserts");
            transaction.open_table(EVENTS).expect("opens");
        }
        transaction.commit().expect("commits");

        let told = Arc::new(Mutex::new(Vec::new()));
        let tell = {
            let told = Arc::clone(&told);
            move |error: &io::Error| told.lock().push(error.to_string())
        };
        let shelf = Shelf::open(&database, tell).expect("opens");
        let on = |key: &[u8], revision| {
            let mut entries = Entries::on(Arc::clone(&shelf), Cache::new(0));
            let mark = Mark {
                revision,
                ..Mark::of(&written)
            };
            entries.index(key, mark);
            entries.get(key).expect("there")
        };
        let whole = on(b"/a", 7);
        assert_eq!((&*whole, whole.is_lost()), (&*written, false));
        for (key, revision, reason) in [
            ("/a", 8, "object /a of revision 8: the checkpoint holds 7"),
            (
                "/b",
                7,
                "object /b of revision 7: the checkpoint does not hold it",
            ),
        ] {
            let lost = on(key.as_bytes(), revision);
            assert_eq!((lost.is_lost(), lost.revision), (true, revision), "{key}");
            assert_eq!(told.lock().pop().as_deref(), Some(reason));
        }
        // A store that is closed does not fail for it.
        shelf.close();
        assert!(on(b"/a", 7).is_lost());
        assert_eq!(*told.lock(), Vec::<String>::new());
    }

    #[derive(Debug, Clone)]
    enum Step {
        Put(u8),
        Remove(u8),
        BeginFlush,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => (0..20_u8).prop_map(Step::Put),
            2 => (0..20_u8).prop_map(Step::Remove),
            1 => Just(Step::BeginFlush),
        ];
        proptest::collection::vec(step, 0..80)
    }

    proptest! {
        /// Checkpoints that are begun and not made lose nothing, and a clone is not touched by what follows.
        #[test]
        fn entries_behave_like_a_map(steps in steps()) {
            let mut entries = Entries::default();
            let mut model = BTreeMap::new();
            let mut clones = Vec::new();
            for (revision, step) in (1..).zip(steps) {
                match step {
                    Step::Put(key) => {
                        let entry = entry(&format!("/k/{key:03}"), revision);
                        model.insert(entry.key.clone(), Arc::clone(&entry));
                        entries.insert(entry);
                    }
                    Step::Remove(key) => {
                        let key = Key::from(format!("/k/{key:03}"));
                        model.remove(&key);
                        entries.remove(key.as_bytes());
                    }
                    Step::BeginFlush => entries.begin_flush(),
                }
                clones.push((entries.clone(), model.clone()));
            }
            for (entries, model) in clones {
                let expected: Vec<_> = model.values().map(Arc::clone).collect();
                prop_assert_eq!(entries.all(), expected);
                prop_assert_eq!(entries.len(), model.len());
                for (key, entry) in &model {
                    prop_assert_eq!(entries.mark(key.as_bytes()), Some(Mark::of(entry)));
                }
                for entry in entries.flushing() {
                    prop_assert_eq!(model.get(&entry.key), Some(entry));
                }
            }
        }
    }
}
