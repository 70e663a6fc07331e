//! A disk in memory that loses what was not synced.
//!
//! A killed process leaves what it wrote (the page cache survives); a power cut keeps of the writes since the last sync
//! an arbitrary part, in sectors: each may be lost, kept or torn, whatever their order was. The power may go in the
//! middle of a write. A full disk refuses every write as long as the store holds its reserve.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use redb::StorageBackend;

use super::image::Image;
use super::random::Random;
use crate::disk::{Disk, Held, Worker};
use crate::error::OpenError;

/// A device writes sectors whole or not at all.
const SECTOR_BYTES: usize = 512;

#[derive(Debug, Clone)]
enum Change {
    Write(usize, Bytes),
    Length(usize),
}

impl Change {
    fn apply(&self, image: &mut Image) {
        match self {
            Change::Write(offset, data) => image.write(*offset, data),
            Change::Length(length) => image.set_length(*length),
        }
    }
}

/// Something that happened to a disk, for whoever wants to stop it at each point.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    Create(PathBuf),
    Change(PathBuf),
    Sync(PathBuf),
    Rename(PathBuf, PathBuf),
    /// A mark of the script's own.
    Mark(usize),
}

#[derive(Debug, Default, Clone)]
struct Content {
    /// What a reader sees.
    current: Image,
    /// What a power cut leaves at least.
    durable: Image,
    /// What lies between.
    unsynced: Vec<Change>,
}

impl Content {
    fn change(&mut self, change: Change) {
        change.apply(&mut self.current);
        self.unsynced.push(change);
    }

    fn sync(&mut self) {
        for change in self.unsynced.drain(..) {
            change.apply(&mut self.durable);
        }
    }

    fn cut_power(&mut self, random: &mut Random) {
        // Most often nothing, everything, or any part of it arrived.
        let style = random.below(4);
        for change in self.unsynced.drain(..) {
            let kept = match style {
                0 => false,
                1 => true,
                _ => random.chance(1, 2),
            };
            match change {
                Change::Write(offset, data) if style == 3 => {
                    for (nth, sector) in data.chunks(SECTOR_BYTES).enumerate() {
                        if random.chance(1, 2) {
                            self.durable.write(offset + nth * SECTOR_BYTES, sector);
                        }
                    }
                }
                change if kept => change.apply(&mut self.durable),
                _ => {}
            }
        }
        self.current = self.durable.clone();
    }
}

type File = Arc<Mutex<Content>>;

#[derive(Debug)]
struct State {
    files: BTreeMap<PathBuf, File>,
    /// Files that only take space.
    fills: BTreeMap<PathBuf, u64>,
    random: Random,
    /// Counts the processes that used the disk: one that was killed touches nothing any more.
    process: u64,
    /// Writes and syncs until the power goes.
    cut_in: Option<u64>,
    cut: bool,
    full: bool,
    /// Added to the time each transaction takes, in milliseconds.
    slow_ms: u64,
    /// Writes and syncs so far.
    operations: u64,
    journal: Option<Vec<(Step, Option<Change>)>>,
}

impl State {
    /// The name a file has now.
    fn name(&self, file: &File) -> Option<PathBuf> {
        let mut files = self.files.iter();
        let found = files.find(|(_, other)| Arc::ptr_eq(other, file));
        found.map(|(path, _)| path.clone())
    }

    fn record(&mut self, step: impl FnOnce(&State) -> Option<Step>, change: Option<Change>) {
        if self.journal.is_none() {
            return;
        }
        let step = step(self);
        if let (Some(journal), Some(step)) = (&mut self.journal, step) {
            journal.push((step, change));
        }
    }
}

/// One server's disk. Clones are the same disk.
#[derive(Debug, Clone)]
pub(crate) struct SimDisk {
    state: Arc<Mutex<State>>,
    process: u64,
}

fn power_is_gone() -> io::Error {
    io::Error::other("simulated: the power is gone")
}

impl SimDisk {
    pub(crate) fn new(seed: u64, name: u64) -> Self {
        SimDisk {
            state: Arc::new(Mutex::new(State {
                files: BTreeMap::new(),
                fills: BTreeMap::new(),
                random: Random::new(seed, name),
                process: 0,
                cut_in: None,
                cut: false,
                full: false,
                slow_ms: 0,
                operations: 0,
                journal: None,
            })),
            process: 0,
        }
    }

    /// Keeps a journal from now on.
    pub(crate) fn keep_journal(&self) {
        self.state.lock().journal = Some(Vec::new());
    }

    /// Puts a mark into the journal.
    pub(crate) fn mark(&self, mark: usize) {
        self.state.lock().record(|_| Some(Step::Mark(mark)), None);
    }

    /// The journal, to be gone through on an empty disk.
    pub(crate) fn replay(&self) -> Replay {
        let journal = self.state.lock().journal.take().unwrap_or_default();
        Replay {
            disk: SimDisk::new(0, 0),
            journal: journal.into_iter(),
        }
    }

    /// What is left if the power goes now; chance decides about what was not synced.
    pub(crate) fn after_power_cut(&self, seed: u64) -> SimDisk {
        let left = SimDisk::new(seed, 1);
        {
            let state = self.state.lock();
            let mut other = left.state.lock();
            for (path, file) in &state.files {
                let copy = Arc::new(Mutex::new(file.lock().clone()));
                other.files.insert(path.clone(), copy);
            }
        }
        left.cut_power();
        left.next_process()
    }

    /// The disk as a new process finds it; older ones lose their hold on it.
    pub(crate) fn next_process(&self) -> SimDisk {
        let mut state = self.state.lock();
        state.process += 1;
        state.cut = false;
        state.cut_in = None;
        SimDisk {
            state: Arc::clone(&self.state),
            process: state.process,
        }
    }

    /// Ends the process that uses the disk. What it wrote stays.
    pub(crate) fn kill(&self) {
        self.state.lock().process += 1;
    }

    /// Loses what was not synced.
    pub(crate) fn cut_power(&self) {
        let mut state = self.state.lock();
        state.process += 1;
        let state = &mut *state;
        for file in state.files.values() {
            file.lock().cut_power(&mut state.random);
        }
    }

    /// Lets the power go after so many more writes and syncs.
    pub(crate) fn cut_power_in(&self, operations: u64) {
        self.state.lock().cut_in = Some(operations);
    }

    /// Takes back what [`SimDisk::cut_power_in`] announced.
    pub(crate) fn keep_power(&self) {
        self.state.lock().cut_in = None;
    }

    /// Whether the power went in the middle of something.
    pub(crate) fn is_cut(&self) -> bool {
        self.state.lock().cut
    }

    pub(crate) fn set_full(&self, full: bool) {
        self.state.lock().full = full;
    }

    pub(crate) fn set_slow(&self, milliseconds: u64) {
        self.state.lock().slow_ms = milliseconds;
    }

    pub(crate) fn operations(&self) -> u64 {
        self.state.lock().operations
    }

    /// Loses everything, as a new disk in the same server.
    pub(crate) fn wipe(&self) {
        let mut state = self.state.lock();
        state.files.clear();
        state.fills.clear();
    }

    fn alive(&self) -> io::Result<parking_lot::MutexGuard<'_, State>> {
        let state = self.state.lock();
        if state.process != self.process || state.cut {
            return Err(power_is_gone());
        }
        Ok(state)
    }

    /// Counts a write or sync; an error once the power is gone.
    fn operate(&self) -> io::Result<()> {
        let mut state = self.alive()?;
        state.operations += 1;
        match &mut state.cut_in {
            Some(0) => {
                state.cut = true;
                Err(power_is_gone())
            }
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn room(&self) -> io::Result<()> {
        let state = self.alive()?;
        if state.full && !state.fills.is_empty() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    fn handle(&self, file: &File) -> Box<dyn StorageBackend> {
        Box::new(SimFile {
            disk: self.clone(),
            file: Arc::clone(file),
        })
    }
}

/// A disk on which a journal happens again, step by step.
pub(crate) struct Replay {
    pub(crate) disk: SimDisk,
    journal: std::vec::IntoIter<(Step, Option<Change>)>,
}

impl Replay {
    /// Does the next step.
    pub(crate) fn step(&mut self) -> Option<Step> {
        let (step, change) = self.journal.next()?;
        let mut state = self.disk.state.lock();
        match &step {
            Step::Create(path) => {
                state.files.insert(path.clone(), File::default());
            }
            Step::Change(path) => {
                if let (Some(file), Some(change)) = (state.files.get(path), change) {
                    file.lock().change(change);
                }
            }
            Step::Sync(path) => {
                if let Some(file) = state.files.get(path) {
                    file.lock().sync();
                }
            }
            Step::Rename(from, to) => {
                if let Some(file) = state.files.remove(from) {
                    state.files.insert(to.clone(), file);
                }
            }
            Step::Mark(_) => {}
        }
        Some(step)
    }
}

impl Disk for SimDisk {
    fn hold(&self, _dir: &Path) -> Result<Held, OpenError> {
        Ok(Box::new(()))
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        let state = self.alive()?;
        Ok(state.files.contains_key(path) || state.fills.contains_key(path))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn StorageBackend>> {
        let state = self.alive()?;
        let file = state.files.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(self.handle(file))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn StorageBackend>> {
        let mut state = self.alive()?;
        let file = File::default();
        state.files.insert(path.to_owned(), Arc::clone(&file));
        state.record(|_| Some(Step::Create(path.to_owned())), None);
        Ok(self.handle(&file))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.operate()?;
        let mut state = self.alive()?;
        let file = state.files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.files.insert(to.to_owned(), file);
        state.record(|_| Some(Step::Rename(from.to_owned(), to.to_owned())), None);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.alive()?;
        state.files.remove(path);
        state.fills.remove(path);
        Ok(())
    }

    fn fill(&self, path: &Path, bytes: u64) -> io::Result<()> {
        let mut state = self.alive()?;
        if state.full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        state.fills.insert(path.to_owned(), bytes);
        Ok(())
    }

    fn spawn(&self, _name: &'static str, work: BoxFuture<'static, ()>) -> io::Result<Worker> {
        let (done, worker) = Worker::pair();
        tokio::spawn(async move {
            work.await;
            let _ = done.send(());
        });
        Ok(worker)
    }

    fn blocking(&self, work: Box<dyn FnOnce() + Send>) -> BoxFuture<'static, ()> {
        work();
        Box::pin(std::future::ready(()))
    }

    fn pace(&self) -> BoxFuture<'static, ()> {
        let mut state = self.state.lock();
        // A millisecond or two, sometimes a stall.
        let mut milliseconds = state.random.below(3);
        if state.random.chance(1, 50) {
            milliseconds += state.random.below(60);
        }
        let slow = state.slow_ms;
        milliseconds += state.random.below(slow + 1);
        Box::pin(tokio::time::sleep(Duration::from_millis(milliseconds)))
    }
}

#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    file: File,
}

impl SimFile {
    fn change(&self, change: Change) {
        let mut state = self.disk.state.lock();
        let copy = state.journal.is_some().then(|| change.clone());
        state.record(|state| Some(Step::Change(state.name(&self.file)?)), copy);
        self.file.lock().change(change);
    }
}

impl StorageBackend for SimFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.lock().current.length() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let _alive = self.disk.alive()?;
        let file = self.file.lock();
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        file.current
            .read(start, out)
            .ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.disk.room()?;
        self.disk.operate()?;
        let length = usize::try_from(length).map_err(io::Error::other)?;
        self.change(Change::Length(length));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.disk.operate()?;
        let mut state = self.disk.state.lock();
        state.record(|state| Some(Step::Sync(state.name(&self.file)?)), None);
        self.file.lock().sync();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.disk.room()?;
        let offset = usize::try_from(offset).map_err(io::Error::other)?;
        if let Err(error) = self.disk.operate() {
            // The power went in the middle: a part of this write may have left the process.
            if self.disk.is_cut() && self.disk.state.lock().process == self.disk.process {
                let half = data.len() / 2;
                let part = Change::Write(offset, Bytes::copy_from_slice(&data[..half]));
                self.file.lock().unsynced.push(part);
            }
            return Err(error);
        }
        self.change(Change::Write(offset, Bytes::copy_from_slice(data)));
        Ok(())
    }
}
