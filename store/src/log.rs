//! The durable raft log: votes and entries in one ordered stream, written by one thread.
//!
//! Callers hand jobs to the writer thread; it takes whatever is waiting, writes it in one redb transaction with one
//! fsync, and then tells everyone. The fsync in flight is the window in which the next group gathers: no timer.
//!
//! Invariants: jobs reach the disk in the order they were submitted, so no entry of a term is durable before the vote
//! for that term; an appended record is readable at once and reported only when durable; after one failed transaction
//! every later job fails, because what the disk holds is then unknown; the log has no hole.
//! Left to others: what the records mean (`machine.rs`), when to purge (`raft.rs`).

mod index;
mod record;

use std::io;
use std::ops::{Bound, RangeBounds};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use redb::{Database, ReadableDatabase, ReadableTable};
use tokio::sync::mpsc;

use self::index::Index;
use self::record::VOTE;
pub(crate) use self::record::{Payload, Record, Vote};
use crate::codec::{Reader, Writer};
use crate::disk::Worker;
use crate::error::{OpenError, storage_io};
use crate::machine::Position;
use crate::planted::{Bug, planted};
use crate::tables::{self, FORMAT, Identity, InFile, LOG, META, Table, meta_context};
use crate::volume::Volume;

/// Jobs waiting for the writer thread; the proposer keeps few entries in flight, so this is only reached by a stalled
/// disk, and then callers wait.
const JOBS_MAX: usize = 1024;

/// Most bytes of records in one transaction: above this a longer fsync costs more than a second one.
const GROUP_BYTES_MAX: usize = 8 << 20;

/// redb's page cache for the log, which is written at its end and read at start only, or by a peer that is far behind.
const PAGE_CACHE_BYTES: usize = 1 << 20;

const PURGED: &str = "purged";
const COMMITTED: &str = "committed";

/// Called once, on the writer thread, when the job is durable or has failed.
pub(crate) type Done = Box<dyn FnOnce(Result<(), io::Error>) + Send>;

enum Job {
    Vote(Vote, Done),
    Append(Vec<Record>, Done),
    Truncate {
        after: Option<u64>,
        done: Done,
    },
    Purge(Position),
    /// Close the file after the jobs before this one.
    Stop,
}

impl Job {
    fn bytes(&self) -> usize {
        match self {
            Job::Append(records, _) => records.iter().map(Record::bytes).sum(),
            Job::Vote(..) | Job::Truncate { .. } | Job::Purge(_) | Job::Stop => 0,
        }
    }
}

struct Shared {
    path: PathBuf,
    volume: Arc<Volume>,
    /// `None` once the writer has stopped: the file is closed then, whoever still holds a [`Log`].
    database: RwLock<Option<Arc<Database>>>,
    index: Mutex<Index>,
}

/// How much the log holds.
pub(crate) struct Extent {
    pub purged: Option<Position>,
    pub last: Option<Position>,
}

/// The log of one server. Clones share it.
#[derive(Clone)]
pub(crate) struct Log {
    shared: Arc<Shared>,
    jobs: mpsc::Sender<Job>,
}

impl Log {
    /// Opens or creates the log at `path`, verifying every record, and starts its writer. Blocks.
    pub(crate) fn open(
        volume: &Arc<Volume>,
        path: &Path,
        identity: &Identity,
    ) -> Result<(Log, Worker), OpenError> {
        let file = InFile(path);
        let table = match tables::open(volume, path, identity, PAGE_CACHE_BYTES)? {
            Some(table) => table,
            None => create(volume, path, identity, None)?,
        };
        let index = load(&table.database, &file)?;
        let written_last = index.last().map(|position| position.index);
        let shared = Arc::new(Shared {
            path: path.to_owned(),
            volume: Arc::clone(volume),
            database: RwLock::new(Some(table.database)),
            index: Mutex::new(index),
        });
        let (jobs, queue) = mpsc::channel(JOBS_MAX);
        let writer = write_groups(Arc::clone(&shared), queue, written_last);
        let worker = volume
            .disk
            .spawn("weft-log", Box::pin(writer))
            .map_err(|error| file.io(error))?;
        Ok((Log { shared, jobs }, worker))
    }

    pub(crate) fn vote(&self) -> Option<Vote> {
        self.shared.index.lock().vote
    }

    pub(crate) fn extent(&self) -> Extent {
        let index = self.shared.index.lock();
        Extent {
            purged: index.purged,
            last: index.last(),
        }
    }

    /// Bytes of entries, and the index of the oldest one such that it and all later ones stay within both limits.
    pub(crate) fn keep_from(&self, entries_max: usize, bytes_max: usize) -> (usize, Option<u64>) {
        let index = self.shared.index.lock();
        let mut bytes = 0;
        let kept = index
            .slots
            .iter()
            .rev()
            .take(entries_max)
            .take_while(|slot| {
                bytes += slot.bytes;
                bytes <= bytes_max
            })
            .count();
        let oldest = index.slots.len() - kept;
        (
            index.bytes,
            index.slots.get(oldest).map(|slot| slot.position.index),
        )
    }

    pub(crate) fn len(&self) -> usize {
        self.shared.index.lock().slots.len()
    }

    /// Lets go of the payloads in memory up to a position that a checkpoint covers: it was applied here, and a peer that is further
    /// behind than a checkpoint takes reads the file.
    pub(crate) fn covered(&self, upto: Position) {
        let mut index = self.shared.index.lock();
        while index.evict_next(upto.index) {}
    }

    pub(crate) fn committed(&self) -> Option<Position> {
        self.shared.index.lock().committed
    }

    /// Notes what is committed; it is written along with the next group, for it is only a hint at restart.
    pub(crate) fn note_committed(&self, committed: Option<Position>) {
        self.shared.index.lock().committed = committed;
    }

    /// Lets the writer finish what is queued and close the file. Later jobs fail.
    pub(crate) async fn stop(&self) {
        // A failure means it has stopped already.
        let _ = self.jobs.send(Job::Stop).await;
    }

    async fn submit(&self, job: Job) -> Result<(), io::Error> {
        self.jobs.send(job).await.map_err(|_| closed())
    }

    /// Stores a vote; returns when it is durable.
    pub(crate) async fn save_vote(&self, vote: Vote) -> Result<(), io::Error> {
        let (done, result) = waiter();
        self.submit(Job::Vote(vote, done)).await?;
        result.await.map_err(|_| closed())?
    }

    /// Appends records. They are readable on return and durable when `done` is called.
    pub(crate) async fn append(&self, records: Vec<Record>, done: Done) -> Result<(), io::Error> {
        {
            let mut index = self.shared.index.lock();
            for record in &records {
                index.push(record)?;
            }
        }
        self.submit(Job::Append(records, done)).await
    }

    /// Removes every entry behind `after`; returns when that is durable.
    pub(crate) async fn truncate(&self, after: Option<u64>) -> Result<(), io::Error> {
        self.shared.index.lock().truncate(after);
        let (done, result) = waiter();
        self.submit(Job::Truncate { after, done }).await?;
        result.await.map_err(|_| closed())?
    }

    /// Removes every entry up to `upto`. Not awaited: should a crash undo it, the entries are merely still there.
    pub(crate) async fn purge(&self, upto: Position) -> Result<(), io::Error> {
        self.shared.index.lock().purge(upto);
        self.submit(Job::Purge(upto)).await
    }

    /// The entries in `range`, as far as the log has them; with `bytes_max`, at least one and then no more than fit.
    pub(crate) async fn read(
        &self,
        range: impl RangeBounds<u64>,
        bytes_max: Option<usize>,
    ) -> Result<Vec<Record>, io::Error> {
        let (cold, hot) = {
            let index = self.shared.index.lock();
            let Some(first) = index.first() else {
                return Ok(Vec::new());
            };
            let start = match range.start_bound() {
                Bound::Included(start) => *start,
                Bound::Excluded(start) => start.saturating_add(1),
                Bound::Unbounded => 0,
            };
            let end = match range.end_bound() {
                Bound::Included(end) => end.saturating_add(1),
                Bound::Excluded(end) => *end,
                Bound::Unbounded => u64::MAX,
            };
            let offset = |at: u64| {
                usize::try_from(at.saturating_sub(first))
                    .unwrap_or(usize::MAX)
                    .min(index.slots.len())
            };
            let (from, to) = (offset(start), offset(end));
            if from >= to {
                return Ok(Vec::new());
            }
            let mut budget = bytes_max.unwrap_or(usize::MAX);
            let mut hot = Vec::new();
            let mut cold: Option<(u64, u64)> = None;
            for (nth, slot) in index.slots.range(from..to).enumerate() {
                if nth > 0 && slot.bytes > budget {
                    break;
                }
                budget = budget.saturating_sub(slot.bytes);
                match &slot.payload {
                    Some(payload) => hot.push(Record {
                        position: slot.position,
                        payload: payload.clone(),
                    }),
                    None => {
                        let at = slot.position.index;
                        cold = Some((cold.map_or(at, |(first, _)| first), at));
                    }
                }
            }
            (cold, hot)
        };
        let Some((first, last)) = cold else {
            return Ok(hot);
        };
        // Evicted records are durable, so the disk has them; they lie before the ones in memory.
        let shared = Arc::clone(&self.shared);
        let (answer, records) = tokio::sync::oneshot::channel();
        let read = move || {
            // The reader may be gone.
            let _ = answer.send(read_cold(&shared, first, last));
        };
        self.shared.volume.disk.blocking(Box::new(read)).await;
        let mut records = records.await.map_err(|_| closed())??;
        records.extend(hot);
        Ok(records)
    }
}

/// Makes a log without entries. With a position, everything up to there counts as purged.
pub(crate) fn create(
    volume: &Arc<Volume>,
    path: &Path,
    identity: &Identity,
    purged: Option<Position>,
) -> Result<Table, OpenError> {
    tables::create(volume, path, identity, PAGE_CACHE_BYTES, |transaction| {
        transaction.open_table(LOG)?;
        if let Some(purged) = purged {
            let mut meta = transaction.open_table(META)?;
            put_position(&mut meta, PURGED, purged)?;
        }
        Ok(())
    })
}

fn closed() -> io::Error {
    io::Error::other("the log is closed")
}

fn waiter() -> (Done, tokio::sync::oneshot::Receiver<Result<(), io::Error>>) {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let done = move |result| {
        // The waiter may have been dropped; the job was done all the same.
        let _ = sender.send(result);
    };
    (Box::new(done), receiver)
}

fn read_cold(shared: &Shared, first: u64, last: u64) -> Result<Vec<Record>, io::Error> {
    let database = shared.database.read();
    let database = database.as_ref().ok_or_else(closed)?;
    let transaction = database.begin_read().map_err(storage_io)?;
    let table = transaction.open_table(LOG).map_err(storage_io)?;
    let mut records = Vec::new();
    for item in table.range(first..=last).map_err(storage_io)? {
        let (index, record) = item.map_err(storage_io)?;
        let record = Bytes::copy_from_slice(record.value());
        let index = index.value();
        let record = Record::from_disk(index, record).map_err(|error| {
            let path = shared.path.display();
            io::Error::other(format!("{path} cannot be read: entry {index}: {error}"))
        })?;
        records.push(record);
    }
    Ok(records)
}

fn load(database: &Database, file: &InFile<'_>) -> Result<Index, OpenError> {
    let mut index = Index::default();
    let transaction = database
        .begin_read()
        .map_err(|error| file.database(error))?;
    let meta = transaction
        .open_table(META)
        .map_err(|error| file.database(error))?;
    let get = |key: &str| -> Result<Option<Bytes>, OpenError> {
        let record = meta.get(key).map_err(|error| file.database(error))?;
        Ok(record.map(|record| Bytes::copy_from_slice(record.value())))
    };
    let position = |key: &'static str| -> Result<Option<Position>, OpenError> {
        let Some(record) = get(key)? else {
            return Ok(None);
        };
        let decode = || {
            let mut reader = Reader::open(record, &meta_context(key), FORMAT)?;
            let position = Position::decode(&mut reader)?;
            reader.finish()?;
            Ok(position)
        };
        decode().map(Some).map_err(|error| file.record(key, error))
    };
    index.vote = get(VOTE)?
        .map(Vote::from_disk)
        .transpose()
        .map_err(|error| file.record(VOTE, error))?;
    index.purged = position(PURGED)?;
    index.committed = position(COMMITTED)?;

    let log = transaction
        .open_table(LOG)
        .map_err(|error| file.database(error))?;
    for item in log.iter().map_err(|error| file.database(error))? {
        let (at, record) = item.map_err(|error| file.database(error))?;
        let at = at.value();
        let record = Record::from_disk(at, Bytes::copy_from_slice(record.value()))
            .map_err(|error| file.record(format!("entry {at}"), error))?;
        if record.position.index != at {
            return Err(file.inconsistent(format!("entry {at} says it is another")));
        }
        index
            .push(&record)
            .map_err(|error| file.inconsistent(error.to_string()))?;
        index.durable = Some(at);
        index.evict();
    }
    Ok(index)
}

/// The writer: groups of jobs, one transaction each, until it is stopped.
async fn write_groups(
    shared: Arc<Shared>,
    mut queue: mpsc::Receiver<Job>,
    mut written_last: Option<u64>,
) {
    let mut failed: Option<String> = None;
    let mut stopping = false;
    while let Some(job) = queue.recv().await {
        shared.volume.disk.pace().await;
        let mut bytes = job.bytes();
        let mut group = vec![job];
        while bytes < GROUP_BYTES_MAX
            && let Ok(job) = queue.try_recv()
        {
            bytes += job.bytes();
            group.push(job);
        }
        if failed.is_none()
            && let Err(error) = write_group(&shared, &group, &mut written_last)
        {
            tracing::error!(path = %shared.path.display(), %error, "writing the log failed");
            failed = Some(error.to_string());
        }
        if failed.is_none() {
            note_durable(&shared, &group);
        }
        for job in group {
            let result = match &failed {
                None => Ok(()),
                Some(reason) => Err(io::Error::other(reason.clone())),
            };
            match job {
                Job::Vote(_, done) | Job::Append(_, done) | Job::Truncate { done, .. } => {
                    done(result);
                }
                Job::Purge(_) => {}
                Job::Stop => stopping = true,
            }
        }
        if stopping {
            break;
        }
    }
    shared.database.write().take();
}

fn write_group(
    shared: &Shared,
    group: &[Job],
    written_last: &mut Option<u64>,
) -> Result<(), io::Error> {
    let database = shared.database.read();
    let database = database.as_ref().ok_or_else(closed)?;
    // Immediate durability is redb's default: commit returns after the fsync.
    let transaction = database.begin_write().map_err(storage_io)?;
    {
        let mut meta = transaction.open_table(META).map_err(storage_io)?;
        let mut log = transaction.open_table(LOG).map_err(storage_io)?;
        for job in group {
            match job {
                Job::Vote(..) if planted(Bug::VoteNotWritten) => {}
                Job::Vote(vote, _) => {
                    meta.insert(VOTE, vote.to_disk().as_slice())
                        .map_err(storage_io)?;
                }
                Job::Append(records, _) => {
                    for record in records {
                        let index = record.position.index;
                        log.insert(index, record.to_disk().as_slice())
                            .map_err(storage_io)?;
                        *written_last = Some(index);
                    }
                }
                Job::Truncate { .. } if planted(Bug::TruncateForgotten) => {}
                Job::Truncate { after, .. } => {
                    let from = after.map_or(0, |after| after.saturating_add(1));
                    log.retain_in(from.., |_, _| false).map_err(storage_io)?;
                    *written_last = *after;
                }
                Job::Purge(upto) => {
                    log.retain_in(..=upto.index, |_, _| false)
                        .map_err(storage_io)?;
                    put_position(&mut meta, PURGED, *upto).map_err(storage_io)?;
                    *written_last = (*written_last).max(Some(upto.index));
                }
                Job::Stop => {}
            }
        }
        // Never claim more committed than this stream has written so far.
        let committed = shared.index.lock().committed;
        if let Some(committed) = committed
            && Some(committed.index) <= *written_last
        {
            put_position(&mut meta, COMMITTED, committed).map_err(storage_io)?;
        }
    }
    transaction.commit().map_err(storage_io)
}

fn put_position(
    meta: &mut redb::Table<'_, &str, &[u8]>,
    key: &'static str,
    position: Position,
) -> Result<(), redb::StorageError> {
    let mut writer = Writer::new(FORMAT);
    position.encode(&mut writer);
    meta.insert(key, writer.finish(&meta_context(key)).as_slice())?;
    Ok(())
}

fn note_durable(shared: &Shared, group: &[Job]) {
    let mut index = shared.index.lock();
    for job in group {
        match job {
            Job::Vote(vote, _) => index.vote = Some(*vote),
            Job::Append(records, _) => {
                // A truncation submitted since may have taken the record back; then it is not the durable end.
                if let Some(last) = records.last()
                    && let Some(first) = index.first()
                    && last.position.index >= first
                    && let Ok(nth) = usize::try_from(last.position.index - first)
                    && index.slots.get(nth).map(|slot| slot.position) == Some(last.position)
                {
                    index.durable = index.durable.max(Some(last.position.index));
                }
            }
            Job::Truncate { .. } | Job::Purge(_) | Job::Stop => {}
        }
    }
    index.evict();
}

#[cfg(test)]
mod tests {
    use super::index::CACHE_BYTES_MAX;
    use super::*;
    use crate::command::{Batch, Command, Mutation, Precondition};
    use crate::disk::Machine;
    use crate::key::Term;
    use crate::value::Value;

    fn identity() -> Identity {
        Identity {
            cluster_id: "test".to_owned(),
            server_id: 1,
        }
    }

    fn open(path: &Path, identity: &Identity) -> Result<(Log, Worker), OpenError> {
        let dir = path.parent().expect("in a folder");
        let volume = Volume::open(Arc::new(Machine), dir).expect("volume");
        Log::open(&volume, path, identity)
    }

    fn record(term: Term, index: u64, value_bytes: usize) -> Record {
        let value = Value::as_it_is(vec![7; value_bytes].into());
        let command = Command {
            fence: Some(term),
            mutations: vec![Mutation::put("k", Precondition::None, value)],
        };
        Record {
            position: Position {
                term,
                server: 1,
                index,
            },
            payload: Payload::Batch(Batch(vec![command].into())),
        }
    }

    async fn append(log: &Log, records: Vec<Record>) {
        let (done, result) = waiter();
        log.append(records, done).await.expect("queued");
        result.await.expect("answered").expect("durable");
    }

    #[tokio::test]
    async fn what_was_written_is_there_after_reopening() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("log.redb");
        let (log, writer) = open(&path, &identity()).expect("opens");
        let vote = Vote {
            term: 3,
            server: 1,
            committed: true,
        };
        log.save_vote(vote).await.expect("stored");
        append(&log, (1..=9).map(|index| record(3, index, 10)).collect()).await;
        log.truncate(Some(7)).await.expect("stored");
        append(&log, vec![record(4, 8, 10)]).await;
        log.note_committed(Some(record(3, 5, 0).position));
        log.purge(record(3, 2, 0).position).await.expect("queued");
        log.stop().await;
        writer.join("log").await;

        let (log, writer) = open(&path, &identity()).expect("opens again");
        assert_eq!(log.vote(), Some(vote));
        assert_eq!(log.committed(), Some(record(3, 5, 0).position));
        let extent = log.extent();
        assert_eq!(extent.purged, Some(record(3, 2, 0).position));
        assert_eq!(extent.last, Some(record(4, 8, 0).position));
        let records = log.read(.., None).await.expect("readable");
        let mut expected: Vec<_> = (3..=7).map(|index| record(3, index, 10)).collect();
        expected.push(record(4, 8, 10));
        assert_eq!(records, expected);
        log.stop().await;
        writer.join("log").await;
    }

    #[tokio::test]
    async fn records_beyond_the_cache_are_read_from_disk() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("log.redb");
        let (log, writer) = open(&path, &identity()).expect("opens");
        let size = CACHE_BYTES_MAX / 8;
        for index in 1..=12 {
            append(&log, vec![record(1, index, size)]).await;
        }
        assert!(log.shared.index.lock().evicted >= 4);
        let indices = |records: Vec<Record>| -> Vec<u64> {
            records.iter().map(|record| record.position.index).collect()
        };
        let all = log.read(2..12, None).await.expect("readable");
        assert_eq!(all[0], record(1, 2, size));
        assert_eq!(indices(all), (2..12).collect::<Vec<_>>());
        let some = log
            .read(3..12, Some(2 * size + 1000))
            .await
            .expect("readable");
        assert_eq!(indices(some), [3, 4]);
        let one = log.read(3..12, Some(1)).await.expect("readable");
        assert_eq!(indices(one), [3]);
        assert_eq!(log.keep_from(100, 3 * size + 1000).1, Some(10));
        assert_eq!(log.keep_from(2, usize::MAX).1, Some(11));
        log.stop().await;
        writer.join("log").await;
    }

    #[tokio::test]
    async fn what_a_checkpoint_covers_leaves_memory_and_stays_readable() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("log.redb");
        let (log, writer) = open(&path, &identity()).expect("opens");
        let written: Vec<_> = (1..=6).map(|index| record(1, index, 1000)).collect();
        append(&log, written.clone()).await;
        let held = |log: &Log| {
            let index = log.shared.index.lock();
            let held = index.slots.iter().filter(|slot| slot.payload.is_some());
            (held.count(), index.evicted, index.cached_bytes > 0)
        };
        for (covered, expected) in [(4, (2, 4, true)), (2, (2, 4, true)), (99, (0, 6, false))] {
            log.covered(record(1, covered, 0).position);
            assert_eq!(held(&log), expected, "up to {covered}");
            assert_eq!(log.read(.., None).await.expect("readable"), written);
        }
        // What comes after is held again, and a truncation of it is no confusion.
        append(&log, vec![record(1, 7, 10)]).await;
        log.truncate(Some(5)).await.expect("stored");
        append(&log, vec![record(2, 6, 10)]).await;
        assert_eq!(held(&log), (1, 5, true));
        let all = log.read(5.., None).await.expect("readable");
        assert_eq!(all, [record(1, 5, 1000), record(2, 6, 10)]);
        log.stop().await;
        writer.join("log").await;
    }

    #[tokio::test]
    async fn a_hole_is_refused_and_a_damaged_record_stops_the_start() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("log.redb");
        let (log, writer) = open(&path, &identity()).expect("opens");
        append(&log, vec![record(1, 1, 10)]).await;
        let error = log
            .append(vec![record(1, 3, 10)], Box::new(|_| {}))
            .await
            .expect_err("hole");
        assert_eq!(error.to_string(), "entry 3 does not follow entry 1");
        log.stop().await;
        writer.join("log").await;

        let database = Database::open(&path).expect("opens");
        let transaction = database.begin_write().expect("begins");
        {
            let mut table = transaction.open_table(LOG).expect("table");
            let mut bytes = record(1, 1, 10).to_disk();
            *bytes.last_mut().expect("not empty") ^= 1;
            table.insert(1, bytes.as_slice()).expect("inserts");
        }
        transaction.commit().expect("commits");
        drop(database);
        let error = open(&path, &identity()).err().expect("refused");
        let expected = format!(
            "{} cannot be read: entry 1: its checksum does not match its content",
            path.display()
        );
        assert_eq!(error.to_string(), expected);
    }

    #[tokio::test]
    async fn another_servers_log_is_refused() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("log.redb");
        let (log, writer) = open(&path, &identity()).expect("opens");
        log.stop().await;
        writer.join("log").await;
        let other = Identity {
            cluster_id: "test".to_owned(),
            server_id: 2,
        };
        let error = open(&path, &other).err().expect("refused");
        let expected = format!(
            "data folder {} belongs to server 1 of cluster test, not to server 2 of cluster test",
            dir.path().display()
        );
        assert_eq!(error.to_string(), expected);
    }
}
