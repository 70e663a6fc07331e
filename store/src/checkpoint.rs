//! The durable copy of the state: one transaction about once a second, changed keys only.
//!
//! The log is durable, so a checkpoint only bounds how much log a restart has to apply again, and how many values are in memory: those
//! that it holds are read from it (`entries.rs`). It also holds the watch history, so that a restarted server still
//! serves resumes.
//!
//! Invariants: a checkpoint names a log position and holds exactly the state after it; it is replaced atomically, by
//! one redb transaction or, for an installed snapshot, by renaming a complete file; nothing is purged from the log that
//! is not in a checkpoint. After one failed transaction no other is tried and the store fails. A file that has grown
//! far beyond what it holds is written anew and replaced, on this thread, while the store goes on.
//! Left to others: purging the log (`raft/tend.rs`).

mod record;

use std::collections::HashMap;
use std::io;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use imbl::Vector;
use parking_lot::Mutex;
use redb::{AccessGuard, Database, ReadableDatabase, ReadableTable, WriteTransaction};
use tokio::sync::{mpsc, oneshot, watch};

use self::record::STATE;
pub(crate) use self::record::{Written, decode_entry, decode_state, encode_entry, encode_state};
use crate::disk::Worker as Thread;
use crate::entries::{Cache, Entries, Mark, Shelf};
use crate::error::{OpenError, storage_io};
use crate::event::Event;
use crate::history::{Kept, Past};
use crate::key::{Entry, Key};
use crate::machine::{Position, State};
use crate::planted::{Bug, planted};
use crate::tables::{self, EVENTS, FORMAT, Identity, InFile, META, OBJECTS, Table};
use crate::volume::Volume;
use crate::watch::{Capture, Hub};

/// Changes that start a checkpoint before its time: it keeps the memory of dirty keys and the replay after a crash small.
pub(crate) const EARLY_BYTES: usize = 16 << 20;

/// redb's page cache for the state, which is written in the order of its keys, so that each page is met once, and read where no
/// cache of a reader has it: the inner pages of some hundred thousand keys. What it misses is in the system's.
const PAGE_CACHE_BYTES: usize = 3 << 20;

/// Requests waiting for the checkpoint thread: one builder, one installer and a nudge or two at a time.
const REQUESTS_MAX: usize = 16;

/// A file is written anew when it is this many times larger than what it holds, and larger than the least size.
const REWRITE_FACTOR: u64 = 4;
const REWRITE_BYTES_MIN: u64 = 64 << 20;

/// What a data folder held at the last checkpoint.
pub(crate) struct Loaded {
    pub state: State,
    pub history: Kept,
}

/// The file before its thread runs.
pub(crate) struct CheckpointFile {
    path: PathBuf,
    identity: Identity,
    volume: Arc<Volume>,
    table: Table,
    cache: Arc<Cache>,
    shelves: Vec<Weak<Shelf>>,
    progress: watch::Sender<Progress>,
}

impl CheckpointFile {
    /// Opens or creates the file and checks all of it. `cache_bytes` is how much of what is read from it later may stay in
    /// memory. Blocks.
    pub(crate) fn open(
        volume: &Arc<Volume>,
        path: &Path,
        identity: &Identity,
        cache_bytes: usize,
    ) -> Result<(Self, Loaded), OpenError> {
        let table = match tables::open(volume, path, identity, PAGE_CACHE_BYTES)? {
            Some(table) => table,
            None => create(volume, path, identity, &State::default())?,
        };
        let (progress, _) = watch::channel(Progress::default());
        let mut file = CheckpointFile {
            path: path.to_owned(),
            identity: identity.clone(),
            volume: Arc::clone(volume),
            table,
            cache: Cache::new(cache_bytes),
            shelves: Vec::new(),
            progress,
        };
        let shelf = file.shelf().map_err(|error| InFile(path).io(error))?;
        let entries = Entries::on(shelf, Arc::clone(&file.cache));
        let loaded = load(&file.table.database, &InFile(path), entries)?;
        Ok((file, loaded))
    }

    /// The values of the newest checkpoint.
    fn shelf(&mut self) -> Result<Arc<Shelf>, io::Error> {
        let (path, progress) = (self.path.clone(), self.progress.clone());
        let failed = move |error: &io::Error| note_failure(&progress, &path, error);
        let shelf = Shelf::open(&self.table.database, failed)?;
        self.shelves.retain(|shelf| shelf.strong_count() > 0);
        self.shelves.push(Arc::downgrade(&shelf));
        Ok(shelf)
    }

    /// Starts the checkpoint thread and, on the runtime this is called on, its clock.
    pub(crate) fn run(self, hub: Arc<Hub>, interval: Duration) -> io::Result<Checkpointer> {
        let state = hub.state();
        let (requests, queue) = mpsc::channel(REQUESTS_MAX);
        self.progress
            .send_modify(|progress| progress.applied = state.applied);
        let shared = Arc::new(Shared {
            durable: Mutex::new(state),
            progress: self.progress.clone(),
            early: AtomicBool::new(false),
        });
        let disk = Arc::clone(&self.volume.disk);
        let worker = Worker {
            file: self,
            hub,
            shared: Arc::clone(&shared),
            idle: None,
        };
        let thread = disk.spawn("weft-checkpoint", Box::pin(worker.run(queue)))?;
        tokio::spawn(tick(requests.downgrade(), interval));
        Ok(Checkpointer {
            requests,
            shared,
            thread: Arc::new(Mutex::new(Some(thread))),
        })
    }
}

/// Asks for a checkpoint at each interval, as long as there is anyone to ask.
async fn tick(requests: mpsc::WeakSender<Request>, interval: Duration) {
    loop {
        tokio::time::sleep(interval).await;
        let Some(requests) = requests.upgrade() else {
            return;
        };
        match requests.try_send(Request::Tick) {
            // A full queue has a checkpoint coming anyway.
            Ok(()) | Err(mpsc::error::TrySendError::Full(_)) => {}
            Err(mpsc::error::TrySendError::Closed(_)) => return,
        }
    }
}

/// How far the checkpoint is, for whoever purges the log or must stop with it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    pub applied: Option<Position>,
    pub failed: Option<String>,
}

struct Shared {
    /// The state as it lies on disk; a clone is O(1).
    durable: Mutex<State>,
    progress: watch::Sender<Progress>,
    /// An early checkpoint was asked for and not begun.
    early: AtomicBool,
}

enum Request {
    /// The interval is over.
    Tick,
    /// Something changed a lot: do not wait for the interval.
    Early,
    Now(oneshot::Sender<Result<State, io::Error>>),
    Install(Box<State>, oneshot::Sender<Result<State, io::Error>>),
    Stop,
}

/// Handle of the checkpoint thread. Clones share it.
#[derive(Clone)]
pub(crate) struct Checkpointer {
    requests: mpsc::Sender<Request>,
    shared: Arc<Shared>,
    thread: Arc<Mutex<Option<Thread>>>,
}

impl Checkpointer {
    /// The state of the last durable checkpoint.
    pub(crate) fn durable(&self) -> State {
        self.shared.durable.lock().clone()
    }

    pub(crate) fn progress(&self) -> watch::Receiver<Progress> {
        self.shared.progress.subscribe()
    }

    /// Asks for a checkpoint soon. Never waits: a full queue has a checkpoint coming anyway.
    pub(crate) fn early(&self) {
        if self.shared.early.swap(true, Ordering::Relaxed) {
            return;
        }
        if self.requests.try_send(Request::Early).is_err() {
            self.shared.early.store(false, Ordering::Relaxed);
        }
    }

    /// Makes a checkpoint of the newest state and returns what is durable then.
    pub(crate) async fn now(&self) -> Result<State, io::Error> {
        let (answer, result) = oneshot::channel();
        self.send(Request::Now(answer)).await?;
        result.await.map_err(|_| closed())?
    }

    /// Replaces everything, on disk and then in the hub, by `state`.
    pub(crate) async fn install(&self, state: State) -> Result<(), io::Error> {
        let (answer, result) = oneshot::channel();
        self.send(Request::Install(Box::new(state), answer)).await?;
        result.await.map_err(|_| closed())?.map(drop)
    }

    async fn send(&self, request: Request) -> Result<(), io::Error> {
        self.requests.send(request).await.map_err(|_| closed())
    }

    /// Makes a last checkpoint, closes the file and ends the thread.
    pub(crate) async fn stop(&self) {
        // A failure means it has stopped already.
        let _ = self.send(Request::Stop).await;
        let thread = self.thread.lock().take();
        if let Some(thread) = thread {
            thread.join("weft-checkpoint").await;
        }
    }
}

fn closed() -> io::Error {
    io::Error::other("the checkpoint is closed")
}

struct Worker {
    file: CheckpointFile,
    hub: Arc<Hub>,
    shared: Arc<Shared>,
    /// Ticks since the last large checkpoint was made; `None` once the machine rests.
    idle: Option<u32>,
}

/// A checkpoint of so many bytes is a large one, after which the machine is told to rest.
const LARGE_BYTES: usize = 1 << 20;

/// It is told at so many ticks: twice, for the first may come too early for what was freed last.
const IDLE_TICKS: u32 = 2;

impl Worker {
    async fn run(mut self, mut queue: mpsc::Receiver<Request>) {
        loop {
            let request = queue.recv().await.unwrap_or(Request::Stop);
            self.file.volume.disk.pace().await;
            self.shared.early.store(false, Ordering::Relaxed);
            let (result, answer, stop) = match request {
                Request::Tick => (self.tick().await, None, false),
                Request::Early => (self.checkpoint().await, None, false),
                Request::Now(answer) => (self.checkpoint().await, Some(answer), false),
                Request::Install(state, answer) => (self.install(*state), Some(answer), false),
                Request::Stop => (self.checkpoint().await, None, true),
            };
            let result = result.map_err(|error| self.fail(&error));
            if let Some(answer) = answer {
                // The asker may be gone; the checkpoint is made all the same.
                let _ = answer.send(result.map(|()| self.shared.durable.lock().clone()));
            }
            if stop {
                for shelf in self.file.shelves.iter().filter_map(Weak::upgrade) {
                    shelf.close();
                }
                return;
            }
        }
    }

    async fn tick(&mut self) -> Result<(), io::Error> {
        self.file.volume.recover()?;
        self.idle = self.idle.map(|ticks| ticks + 1);
        self.checkpoint().await?;
        if let Some(ticks) = self.idle.filter(|ticks| *ticks > 0) {
            self.file.volume.disk.rest();
            self.idle = (ticks < IDLE_TICKS).then_some(ticks);
        }
        Ok(())
    }

    fn fail(&self, error: &io::Error) -> io::Error {
        note_failure(&self.shared.progress, &self.file.path, error);
        io::Error::other(error.to_string())
    }

    fn check_failed(&self) -> Result<(), io::Error> {
        match &self.shared.progress.borrow().failed {
            None => Ok(()),
            Some(reason) => Err(io::Error::other(reason.clone())),
        }
    }

    /// A checkpoint of what was captured last is durable.
    fn made(&mut self, mut state: State) -> Result<(), io::Error> {
        let shelf = self.file.shelf()?;
        self.hub.flushed(state.revision, &shelf, &self.file.cache);
        state.entries.flushed(shelf, Arc::clone(&self.file.cache));
        self.note_made(state);
        Ok(())
    }

    fn note_made(&self, state: State) {
        let applied = state.applied;
        let before = std::mem::replace(&mut *self.shared.durable.lock(), state);
        drop(before); // outside of the lock
        self.shared
            .progress
            .send_modify(|progress| progress.applied = applied);
    }

    async fn checkpoint(&mut self) -> Result<(), io::Error> {
        self.check_failed()?;
        let (applied, revision) = {
            let durable = self.shared.durable.lock();
            (durable.applied, durable.revision)
        };
        if self.hub.state().applied == applied {
            return Ok(());
        }
        if self.is_sparse() {
            return self.rewrite().await;
        }
        let capture = self.hub.capture(revision);
        if capture.bytes >= LARGE_BYTES {
            self.idle = Some(0);
        }
        // Others write on meanwhile.
        self.file.volume.disk.pace().await;
        let mut transaction = self.file.table.database.begin_write().map_err(storage_io)?;
        transaction.set_quick_repair(true);
        write_changes(&transaction, &capture).map_err(storage_io)?;
        transaction.commit().map_err(storage_io)?;
        self.made(capture.state)
    }

    /// Whether the file is mostly free space. A full disk has better uses for its last bytes than a second file.
    fn is_sparse(&self) -> bool {
        let length = self.file.table.length.bytes();
        length >= REWRITE_BYTES_MIN
            && length / REWRITE_FACTOR > self.hub.held_bytes() as u64
            && !self.file.volume.full()
    }

    /// Makes the checkpoint as a new file, without the free space of the old one.
    async fn rewrite(&mut self) -> Result<(), io::Error> {
        let capture = self.hub.capture(0);
        self.file.volume.disk.pace().await;
        let before = self.file.table.length.bytes();
        let file = &self.file;
        let written = create_with(
            &file.volume,
            &file.path,
            &file.identity,
            &capture.state,
            &capture.written(),
            &capture.events,
        );
        match written {
            Ok(table) => self.file.table = table,
            Err(error) if file.volume.full() => {
                // The old file is as good as before; what was to be written goes into it next time.
                tracing::warn!(%error, "no room to write the checkpoint anew");
                self.hub.give_back(capture);
                return Ok(());
            }
            Err(error) => return Err(io::Error::other(error)),
        }
        let after = self.file.table.length.bytes();
        tracing::info!(before, after, "the checkpoint was written anew");
        self.made(capture.state)
    }

    fn install(&mut self, mut state: State) -> Result<(), io::Error> {
        self.check_failed()?;
        self.file.table = create(
            &self.file.volume,
            &self.file.path,
            &self.file.identity,
            &state,
        )
        .map_err(io::Error::other)?;
        state.entries.begin_flush();
        let shelf = self.file.shelf()?;
        state.entries.flushed(shelf, Arc::clone(&self.file.cache));
        self.hub.reset(state.clone());
        self.note_made(state);
        Ok(())
    }
}

/// Nothing more is written or read: the store ends.
fn note_failure(progress: &watch::Sender<Progress>, path: &Path, error: &io::Error) {
    progress.send_if_modified(|progress| {
        let first = progress.failed.is_none();
        if first {
            let reason = error.to_string();
            tracing::error!(path = %path.display(), error = reason, "the checkpoint failed");
            progress.failed = Some(reason);
        }
        first
    });
}

fn write_changes(transaction: &WriteTransaction, capture: &Capture) -> Result<(), redb::Error> {
    // What events replaced that is in the file only: it is met again where it is replaced here.
    let mut replaced: HashMap<&[u8], Option<Entry>> = HashMap::new();
    for past in &capture.events {
        if let Past::Here(event) = past
            && let Some(previous) = &event.previous
            && previous.in_memory().is_none()
        {
            replaced.insert(event.entry.key.as_bytes(), None);
        }
    }
    let mut keep = |key: &Key, record: Option<AccessGuard<'_, &'static [u8]>>| {
        if let Some(record) = record
            && let Some(kept) = replaced.get_mut(key.as_bytes())
        {
            let record = Bytes::copy_from_slice(record.value());
            // One that is damaged is read once more for its event, which says so.
            *kept = decode_entry(key.clone(), record).ok();
        }
    };
    {
        let mut objects = transaction.open_table(OBJECTS)?;
        let entries = &capture.state.entries;
        for key in &capture.removed {
            if entries.mark(key.as_bytes()).is_none() && !planted(Bug::CheckpointKeepsDeleted) {
                keep(key, objects.remove(key.as_bytes())?);
            }
        }
        for entry in entries.flushing() {
            let record = encode_entry(entry, FORMAT);
            keep(
                &entry.key,
                objects.insert(entry.key.as_bytes(), record.as_slice())?,
            );
        }
    }
    {
        let mut events = transaction.open_table(EVENTS)?;
        events.retain_in(..=capture.compacted, |_, _| false)?;
        for past in &capture.events {
            let Past::Here(event) = past else { continue };
            let met = replaced.get(event.entry.key.as_bytes());
            let record = event.to_disk(met.and_then(Option::as_ref));
            let record = record.map_err(redb::StorageError::Io)?;
            events.insert(event.revision, record.as_slice())?;
        }
    }
    let mut meta = transaction.open_table(META)?;
    let mut state = capture.state.clone();
    if planted(Bug::ApplyTwice)
        && let Some(applied) = &mut state.applied
        && applied.index > 2
    {
        applied.index -= 1;
    }
    meta.insert(STATE, encode_state(&state, &capture.written()).as_slice())?;
    Ok(())
}

impl Capture {
    fn written(&self) -> Written<'_> {
        Written {
            compacted: self.compacted,
            kept: self.kept,
            without: &self.without,
        }
    }
}

/// Writes a complete file that holds `state` and no history.
pub(crate) fn create(
    volume: &Arc<Volume>,
    path: &Path,
    identity: &Identity,
    state: &State,
) -> Result<Table, OpenError> {
    let written = Written {
        compacted: state.revision,
        kept: 0,
        without: &[],
    };
    create_with(volume, path, identity, state, &written, &Vector::new())
}

fn create_with(
    volume: &Arc<Volume>,
    path: &Path,
    identity: &Identity,
    state: &State,
    written: &Written<'_>,
    history: &Vector<Past>,
) -> Result<Table, OpenError> {
    tables::create(volume, path, identity, PAGE_CACHE_BYTES, |transaction| {
        {
            let mut objects = transaction.open_table(OBJECTS)?;
            for entry in state.entries.copy(Bound::Unbounded) {
                let entry = entry.map_err(redb::StorageError::Io)?;
                let record = encode_entry(&entry, FORMAT);
                objects.insert(entry.key.as_bytes(), record.as_slice())?;
            }
        }
        {
            let mut events = transaction.open_table(EVENTS)?;
            for past in history {
                let record = match (past, state.entries.shelf()) {
                    (Past::Here(event), _) => event.to_disk(None).map(Bytes::from),
                    (Past::Written { revision, .. }, Some(shelf)) => shelf.event_record(*revision),
                    (Past::Written { .. }, None) => Err(closed()),
                };
                let record = record.map_err(redb::StorageError::Io)?;
                events.insert(past.revision(), &*record)?;
            }
        }
        let mut meta = transaction.open_table(META)?;
        meta.insert(STATE, encode_state(state, written).as_slice())?;
        Ok(())
    })
}

/// Reads the file, and puts the keys into `entries`, which are on it.
fn load(database: &Database, file: &InFile<'_>, mut entries: Entries) -> Result<Loaded, OpenError> {
    let transaction = database
        .begin_read()
        .map_err(|error| file.database(error))?;
    let meta = transaction
        .open_table(META)
        .map_err(|error| file.database(error))?;
    let record = meta
        .get(STATE)
        .map_err(|error| file.database(error))?
        .ok_or_else(|| file.inconsistent("it holds no state"))?;
    let (mut state, mut history, expected) = decode_state(Bytes::copy_from_slice(record.value()))
        .map_err(|error| file.record(STATE, error))?;

    let objects = transaction
        .open_table(OBJECTS)
        .map_err(|error| file.database(error))?;
    for item in objects.iter().map_err(|error| file.database(error))? {
        let (key, record) = item.map_err(|error| file.database(error))?;
        let key = Key::new(Bytes::copy_from_slice(key.value()));
        let entry = decode_entry(key.clone(), Bytes::copy_from_slice(record.value()))
            .map_err(|error| file.record(format!("object {key}"), error))?;
        if entry.revision > state.revision {
            let reason = format!("object {key} is newer than the state");
            return Err(file.inconsistent(reason));
        }
        state.bytes += entry.bytes();
        entries.index(entry.key.as_bytes(), Mark::of(&entry));
    }
    state.entries = entries;

    let mut counted = 0;
    let mut last = history.compacted;
    let events = transaction
        .open_table(EVENTS)
        .map_err(|error| file.database(error))?;
    for item in events.iter().map_err(|error| file.database(error))? {
        let (revision, record) = item.map_err(|error| file.database(error))?;
        let revision = revision.value();
        let event = Event::from_disk(revision, Bytes::copy_from_slice(record.value()))
            .map_err(|error| file.record(format!("event {revision}"), error))?;
        if revision <= last || revision > state.revision {
            return Err(file.inconsistent(format!("event {revision} does not belong there")));
        }
        last = revision;
        let key = event.entry.key.as_bytes();
        if history.without.iter().any(|prefix| key.starts_with(prefix)) {
            // From before its events were left out.
            continue;
        }
        counted += 1;
        history.events.push(Past::written(&event));
    }
    if counted != expected {
        let reason = format!("it holds {counted} events, {expected} were written");
        return Err(file.inconsistent(reason));
    }
    Ok(Loaded { state, history })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{Batch, Command, Mutation, Precondition};
    use crate::disk::Disk;
    use crate::key::Revision;
    use crate::sim::disk::SimDisk;
    use crate::snapshot::Snapshot;
    use crate::watch::Bounds;

    /// Applies writes of one key each: to a value, or to nothing.
    fn apply(hub: &Hub, writes: &[(&str, Option<&str>)]) {
        let applied = hub.state().applied;
        let position = Position {
            term: 1,
            server: 1,
            index: applied.map_or(1, |position| position.index + 1),
        };
        let mutations = writes.iter().map(|(key, value)| match value {
            Some(value) => Mutation::put(*key, Precondition::None, (*value).to_owned()),
            None => Mutation::delete(*key, Precondition::None),
        });
        let command = Command {
            fence: None,
            mutations: mutations.collect(),
        };
        let batch = Batch(vec![command].into());
        let applied = hub.apply(|state, events| drop(state.apply(position, &batch, events)));
        applied.expect("readable");
    }

    fn shown(snapshot: &Snapshot) -> String {
        let entries = snapshot.range(b"", None).map(|entry| {
            let lost = if entry.is_lost() { "lost " } else { "" };
            let value = entry.value();
            format!(
                "{lost}{}={}@{}",
                entry.key,
                value.escape_ascii(),
                entry.revision
            )
        });
        entries.collect::<Vec<_>>().join(" ")
    }

    #[tokio::test(start_paused = true)]
    async fn a_snapshot_shows_its_own_values_whatever_checkpoints_go_over_it() {
        let disk = SimDisk::new(1, 0).next_process();
        let dir = Path::new("/sim");
        let path = dir.join("state.redb");
        let volume = Volume::open(Arc::new(disk), dir).expect("a volume opens");
        let identity = Identity {
            cluster_id: "test".to_owned(),
            server_id: 1,
        };
        let (file, loaded) =
            CheckpointFile::open(&volume, &path, &identity, 0).expect("the file opens");
        let bounds = Bounds {
            history_events_max: 0,
            history_bytes_max: 0,
            history_shares: Vec::new(),
            unwatched: Vec::new(),
            queue_events_max: 10,
            queue_bytes_max: 1 << 20,
        };
        let hub = Arc::new(Hub::new(loaded.state, loaded.history, bounds));
        let checkpointer = file
            .run(Arc::clone(&hub), Duration::from_secs(3600))
            .expect("the thread runs");

        apply(
            &hub,
            &[("/a", Some("1")), ("/b", Some("2")), ("/c", Some("3"))],
        );
        checkpointer.now().await.expect("made");
        assert_eq!(hub.state().entries.held(), 0, "every value is on disk");
        // One value of it on disk, one in memory, one gone.
        apply(&hub, &[("/b", Some("4")), ("/c", None)]);
        let old = hub.snapshot();
        let expected = "/a=1@1 /b=4@4";
        assert_eq!(shown(&old), expected);
        for round in 0..3 {
            apply(&hub, &[("/a", Some("x")), ("/b", None), ("/c", Some("y"))]);
            checkpointer.now().await.expect("made");
            assert_eq!(shown(&old), expected, "after {} checkpoints", round + 2);
        }
        let new = "/a=x@11 /c=y@12";
        assert_eq!(shown(&hub.snapshot()), new);

        // A state that comes from elsewhere takes a file of its own; who looks at the old one goes on.
        let other = State {
            applied: hub.state().applied,
            revision: 40,
            ..State::default()
        };
        let kept = hub.snapshot();
        checkpointer.install(other).await.expect("installed");
        assert_eq!((&*shown(&kept), &*shown(&hub.snapshot())), (new, ""));
        assert_eq!(shown(&old), expected);

        // A store that is closed has let go of its file.
        apply(&hub, &[("/d", Some("5"))]);
        let last = hub.snapshot();
        assert_eq!(shown(&last), "/d=5@41");
        checkpointer.now().await.expect("made");
        let closed = hub.snapshot();
        checkpointer.stop().await;
        assert_eq!(shown(&last), "/d=5@41");
        assert_eq!(shown(&closed), "lost /d=@41");
        assert_eq!(checkpointer.progress().borrow().failed, None);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_loaded_is_on_disk_until_it_is_asked_for() {
        let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(1, 0).next_process());
        let dir = Path::new("/sim");
        let path = dir.join("state.redb");
        let volume = Volume::open(disk, dir).expect("a volume opens");
        let identity = Identity {
            cluster_id: "test".to_owned(),
            server_id: 1,
        };
        let open =
            || CheckpointFile::open(&volume, &path, &identity, 1 << 20).expect("the file opens");
        let (file, loaded) = open();
        let bounds = Bounds {
            history_events_max: 10,
            history_bytes_max: 1 << 20,
            history_shares: Vec::new(),
            unwatched: Vec::new(),
            queue_events_max: 10,
            queue_bytes_max: 1 << 20,
        };
        let hub = Arc::new(Hub::new(loaded.state, loaded.history, bounds.clone()));
        let checkpointer = file
            .run(Arc::clone(&hub), Duration::from_secs(3600))
            .expect("the thread runs");
        let position = Position {
            term: 1,
            server: 1,
            index: 1,
        };
        let mutations = vec![
            Mutation::put("/a", Precondition::None, "1"),
            Mutation::put("/a", Precondition::None, "2"),
            Mutation::delete("/a", Precondition::None),
            Mutation::put("/a", Precondition::None, "3"),
        ];
        let commands = vec![Command {
            fence: None,
            mutations,
        }];
        let batch = Batch(commands.into());
        let applied = hub.apply(|state, events| drop(state.apply(position, &batch, events)));
        applied.expect("nothing to read");
        checkpointer.stop().await;

        let (_file, Loaded { state, history }) = open();
        let written = |past: &Past| matches!(past, Past::Written { .. });
        assert!(history.events.iter().all(written));
        // And of the state no value at all.
        assert_eq!((state.entries.len(), state.entries.held()), (1, 0));
        let hub = Arc::new(Hub::new(state, history, bounds));
        let mut watch = hub.watch(Bytes::from_static(b"/"), 0).expect("kept");
        let mut told = Vec::new();
        while let Some(event) = watch.try_next() {
            told.push(event.expect("no end"));
        }
        let values = told.iter().map(|event| {
            let previous = event.previous_entry();
            let previous = previous.map(|entry| (entry.revision, entry.value()));
            (event.revision, event.entry.value(), previous)
        });
        let values: Vec<_> = values.collect();
        let one = |text: &'static str| Bytes::from_static(text.as_bytes());
        let expected = [
            (1, one("1"), None),
            (2, one("2"), Some((1, one("1")))),
            (3, one("2"), Some((2, one("2")))),
            (4, one("3"), None),
        ];
        assert_eq!(values, expected);
        let entry = hub.state().entries.get(b"/a");
        assert_eq!(entry.as_deref(), Some(&*told[3].entry));
    }

    /// Each event with the values that it told and replaced.
    fn told(hub: &Arc<Hub>, after: Revision) -> String {
        let mut watch = hub.watch(Bytes::new(), after).expect("kept");
        let mut told = Vec::new();
        while let Some(event) = watch.try_next() {
            let event = event.expect("no end");
            let before = event.previous_entry().map_or(String::new(), |entry| {
                assert!(!entry.is_lost(), "of {event:?}");
                format!(" was {}@{}", entry.value().escape_ascii(), entry.revision)
            });
            told.push(format!(
                "{}={}@{}{before}",
                event.entry.key,
                event.entry.value().escape_ascii(),
                event.revision
            ));
        }
        told.join(", ")
    }

    #[tokio::test(start_paused = true)]
    async fn an_event_finds_what_it_replaced_wherever_that_is() {
        let disk = SimDisk::new(1, 0).next_process();
        let dir = Path::new("/sim");
        let path = dir.join("state.redb");
        let volume = Volume::open(Arc::new(disk), dir).expect("a volume opens");
        let identity = Identity {
            cluster_id: "test".to_owned(),
            server_id: 1,
        };
        let (file, loaded) =
            CheckpointFile::open(&volume, &path, &identity, 0).expect("the file opens");
        let bounds = Bounds {
            history_events_max: 6,
            history_bytes_max: 1 << 20,
            history_shares: vec![crate::HistoryShare {
                prefix: Bytes::from_static(b"/lease"),
                events_max: 2,
                bytes_max: 1 << 20,
            }],
            unwatched: Vec::new(),
            queue_events_max: 10,
            queue_bytes_max: 1 << 20,
        };
        let hub = Arc::new(Hub::new(loaded.state, loaded.history, bounds));
        let checkpointer = file
            .run(Arc::clone(&hub), Duration::from_secs(3600))
            .expect("the thread runs");
        apply(&hub, &[("/a", Some("1")), ("/b", Some("1"))]);
        apply(&hub, &[("/lease", Some("1"))]);
        checkpointer.now().await.expect("made");

        // Told as it happens, the value of before is read where it is: on disk. No put waits for that.
        let mut live = hub.watch(Bytes::new(), 3).expect("kept");
        apply(&hub, &[("/a", Some("2")), ("/lease", Some("2"))]);
        checkpointer.now().await.expect("made");
        apply(&hub, &[("/a", Some("3")), ("/a", Some("4")), ("/b", None)]);
        checkpointer.now().await.expect("made");
        let live: Vec<_> = std::iter::from_fn(|| live.try_next())
            .map(|event| event.expect("no end").previous_entry().expect("replaced"))
            .map(|entry| (entry.value(), entry.revision))
            .collect();
        let before = ["1", "1", "2", "3", "1"];
        let revisions = [1, 3, 4, 6, 2];
        let before = before.map(|text| Bytes::from_static(text.as_bytes()));
        assert_eq!(live, before.into_iter().zip(revisions).collect::<Vec<_>>());

        let all = "/a=1@1, /b=1@2, /a=2@4 was 1@1, /a=3@6 was 2@4, /a=4@7 was 3@6, /b=1@8 was 1@2";
        let shown = |told: &str| {
            told.replace("/lease=1@3, ", "")
                .replace("/lease=2@5 was 1@3, ", "")
        };
        assert_eq!(shown(&told(&hub, 0)), all);
        // What a value was before the oldest event that is kept is still known.
        apply(&hub, &[("/c", Some("1")), ("/c", Some("2"))]);
        assert_eq!(told(&hub, 8), "/c=1@9, /c=2@10 was 1@9");
        checkpointer.now().await.expect("made");
        let rest = "/a=2@4 was 1@1, /lease=2@5 was 1@3, /a=3@6 was 2@4, /a=4@7 was 3@6, /b=1@8 was 1@2, /c=1@9, /c=2@10 was 1@9";
        assert_eq!(told(&hub, 3), rest);
        checkpointer.stop().await;
    }
}
