//! openraft's storage traits over `log.rs`, `machine.rs` and `checkpoint.rs`.
//!
//! Invariants: votes and entries go to the log in the order openraft gives them; an entry is reported durable when it
//! is; a proposal is answered after its effect is published here.

use std::fmt::Debug;
use std::io;
use std::ops::RangeBounds;
use std::sync::Arc;

use futures::{Stream, StreamExt};
use openraft::storage::{EntryResponder, IOFlushed, LogState, RaftLogStorage, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend, RaftLogReader, RaftSnapshotBuilder};
use tokio_util::sync::CancellationToken;

use crate::checkpoint::{Checkpointer, EARLY_BYTES};
use crate::key::ServerId;
use crate::log::Log;
use crate::machine::State;
use crate::planted::{Bug, planted};
use crate::raft::vocabulary::{
    self, LogId, Outcomes, RaftEntryOf, RaftSnapshot, RaftVote, SnapshotMeta, StoredMembership,
    Types, applied, entry, log_id, members, position, raft_vote, record, snapshot,
};
use crate::watch::Hub;

/// Bytes of entries read at once to be sent to a peer.
const PEER_BYTES_MAX: usize = 2 << 20;

/// The log, as openraft sees it.
#[derive(Clone)]
pub(super) struct LogStorage(pub(super) Log);

impl RaftLogReader<Types> for LogStorage {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<RaftEntryOf>, io::Error> {
        let bounds = (range.start_bound().cloned(), range.end_bound().cloned());
        let records = self.0.read(bounds, None).await?;
        records.into_iter().map(entry).collect()
    }

    async fn read_vote(&mut self) -> Result<Option<RaftVote>, io::Error> {
        Ok(self.0.vote().map(raft_vote))
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<RaftEntryOf>, io::Error> {
        let records = self.0.read(start..end, Some(PEER_BYTES_MAX)).await?;
        records.into_iter().map(entry).collect()
    }
}

impl RaftLogStorage<Types> for LogStorage {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, io::Error> {
        let extent = self.0.extent();
        Ok(LogState {
            last_purged_log_id: extent.purged.map(log_id),
            last_log_id: extent.last.map(log_id),
        })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &RaftVote) -> Result<(), io::Error> {
        self.0.save_vote(vocabulary::vote(vote)).await
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        self.0.note_committed(committed.as_ref().map(position));
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(self.0.committed().map(log_id))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = RaftEntryOf> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let records = entries.into_iter().map(|entry| record(&entry)).collect();
        if planted(Bug::AckBeforeSync) {
            self.0.append(records, Box::new(|_| {})).await?;
            callback.io_completed(Ok(()));
            return Ok(());
        }
        let done = Box::new(|result| callback.io_completed(result));
        self.0.append(records, done).await
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        self.0.truncate(last.map(|last| last.index())).await
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), io::Error> {
        self.0.purge(position(&upto)).await
    }
}

/// Runs committed entries through the machine and publishes the result.
pub(crate) struct Applier {
    pub(super) hub: Arc<Hub>,
    pub(super) checkpointer: Checkpointer,
    pub(super) me: ServerId,
    /// Cancelled once what was applied says that this server was removed.
    pub(super) removed: CancellationToken,
}

impl Applier {
    fn look_for_myself(&self) {
        if self.hub.removed(self.me) {
            self.removed.cancel();
        }
    }
}

/// Makes a checkpoint of the newest state and hands out that.
pub(crate) struct SnapshotBuilder {
    hub: Arc<Hub>,
    checkpointer: Checkpointer,
}

impl RaftSnapshotBuilder<Types> for SnapshotBuilder {
    type SnapshotData = State;

    async fn build_snapshot(&mut self) -> Result<RaftSnapshot, io::Error> {
        if planted(Bug::PurgeBeforeCheckpoint) {
            return snapshot(self.hub.state());
        }
        snapshot(self.checkpointer.now().await?)
    }
}

impl RaftStateMachine<Types> for Applier {
    type SnapshotData = State;
    type SnapshotBuilder = SnapshotBuilder;

    /// Asked at start only, when the newest state is the checkpoint's and thus durable.
    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        applied(&self.hub.state())
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<Types>, io::Error>> + Unpin + OptionalSend,
    {
        let mut all = Vec::new();
        while let Some(item) = entries.next().await {
            all.push(item?);
        }
        let mut answers = Vec::new();
        let dirty_bytes = self.hub.apply(|state, events| {
            for (entry, responder) in all {
                let position = position(&entry.log_id);
                let outcomes = match &entry.payload {
                    EntryPayload::Blank => {
                        state.advance(position);
                        Vec::new()
                    }
                    EntryPayload::Normal(batch) => state.apply(position, batch, events),
                    EntryPayload::Membership(membership) => {
                        state.set_members(position, members(membership));
                        Vec::new()
                    }
                };
                if let Some(responder) = responder {
                    answers.push((responder, outcomes));
                }
            }
        })?;
        self.look_for_myself();
        if dirty_bytes > EARLY_BYTES {
            self.checkpointer.early();
        }
        // Only now: whoever is answered also reads what it wrote.
        for (responder, outcomes) in answers {
            responder.send(Outcomes(outcomes));
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        SnapshotBuilder {
            hub: Arc::clone(&self.hub),
            checkpointer: self.checkpointer.clone(),
        }
    }

    async fn install_snapshot(
        &mut self,
        _meta: &SnapshotMeta,
        snapshot: State,
    ) -> Result<(), io::Error> {
        self.checkpointer.install(snapshot).await?;
        self.look_for_myself();
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<RaftSnapshot>, io::Error> {
        let state = self.checkpointer.durable();
        if state.applied.is_none() {
            return Ok(None);
        }
        snapshot(state).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use openraft::StorageError;
    use openraft::testing::log::{StoreBuilder, Suite};
    use tokio::sync::Mutex;

    use super::*;
    use crate::checkpoint::CheckpointFile;
    use crate::disk::{Disk, Machine, Worker};
    use crate::sim::disk::SimDisk;
    use crate::tables::Identity;
    use crate::volume::Volume;
    use crate::watch::Bounds;

    fn identity() -> Identity {
        Identity {
            cluster_id: "suite".to_owned(),
            server_id: 0,
        }
    }

    fn open_log(disk: Arc<dyn Disk>, dir: &Path) -> (Log, Worker) {
        let volume = Volume::open(disk, dir).expect("volume");
        Log::open(&volume, &dir.join("log.redb"), &identity()).expect("log opens")
    }

    fn open_applier(disk: Arc<dyn Disk>, dir: &Path) -> Applier {
        let volume = Volume::open(disk, dir).expect("volume");
        let path = dir.join("state.redb");
        let (file, loaded) =
            CheckpointFile::open(&volume, &path, &identity(), 1 << 20).expect("state opens");
        let bounds = Bounds {
            history_events_max: 100,
            history_bytes_max: 1 << 20,
            history_shares: Vec::new(),
            unwatched: Vec::new(),
            queue_events_max: 100,
            queue_bytes_max: 1 << 20,
        };
        let hub = Arc::new(Hub::new(loaded.state, loaded.history, bounds));
        let checkpointer = file
            .run(Arc::clone(&hub), Duration::from_secs(3600))
            .expect("thread");
        Applier {
            hub,
            checkpointer,
            me: 1,
            removed: CancellationToken::new(),
        }
    }

    /// Real files in a folder of their own for each test of the suite. The threads end with the suite's handles; the
    /// folder may go before them.
    struct OnDisk;

    impl StoreBuilder<Types, LogStorage, Applier, tempfile::TempDir> for OnDisk {
        async fn build(
            &self,
        ) -> Result<(tempfile::TempDir, LogStorage, Applier), StorageError<Types>> {
            let dir = tempfile::tempdir().expect("tempdir");
            let (log, _) = open_log(Arc::new(Machine), dir.path());
            let applier = open_applier(Arc::new(Machine), dir.path());
            Ok((dir, LogStorage(log), applier))
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn openrafts_own_storage_suite_passes_on_real_files() {
        Suite::test_all(OnDisk).await.expect("suite");
    }

    /// A log that loses its power and is opened again before every call.
    #[derive(Clone)]
    struct Unlucky(Arc<Mutex<Opened>>);

    struct Opened {
        disk: SimDisk,
        log: Log,
        worker: Option<Worker>,
    }

    const DIR: &str = "/suite";

    impl Unlucky {
        async fn reopen(&self) -> LogStorage {
            let mut opened = self.0.lock().await;
            // What was answered is durable, and a purge that was not may be lost.
            let committed = opened.log.committed();
            opened.log.stop().await;
            if let Some(worker) = opened.worker.take() {
                worker.join("log").await;
            }
            opened.disk.cut_power();
            opened.disk = opened.disk.next_process();
            let (log, worker) = open_log(Arc::new(opened.disk.clone()), Path::new(DIR));
            // Only a hint, so it may be lost; the suite wants it back.
            log.note_committed(committed);
            opened.log = log.clone();
            opened.worker = Some(worker);
            LogStorage(log)
        }
    }

    impl RaftLogReader<Types> for Unlucky {
        async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
            &mut self,
            range: RB,
        ) -> Result<Vec<RaftEntryOf>, io::Error> {
            self.reopen().await.try_get_log_entries(range).await
        }

        async fn read_vote(&mut self) -> Result<Option<RaftVote>, io::Error> {
            self.reopen().await.read_vote().await
        }
    }

    impl RaftLogStorage<Types> for Unlucky {
        type LogReader = Self;

        async fn get_log_state(&mut self) -> Result<LogState<Types>, io::Error> {
            self.reopen().await.get_log_state().await
        }

        async fn get_log_reader(&mut self) -> Self {
            self.clone()
        }

        async fn save_vote(&mut self, vote: &RaftVote) -> Result<(), io::Error> {
            self.reopen().await.save_vote(vote).await
        }

        async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
            self.reopen().await.save_committed(committed).await
        }

        async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
            self.reopen().await.read_committed().await
        }

        async fn append<I>(
            &mut self,
            entries: I,
            callback: IOFlushed<Types>,
        ) -> Result<(), io::Error>
        where
            I: IntoIterator<Item = RaftEntryOf> + OptionalSend,
            I::IntoIter: OptionalSend,
        {
            self.reopen().await.append(entries, callback).await
        }

        async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
            self.reopen().await.truncate_after(last).await
        }

        async fn purge(&mut self, upto: LogId) -> Result<(), io::Error> {
            self.reopen().await.purge(upto).await
        }
    }

    struct OnUnluckyDisk;

    impl StoreBuilder<Types, Unlucky, Applier, ()> for OnUnluckyDisk {
        async fn build(&self) -> Result<((), Unlucky, Applier), StorageError<Types>> {
            let disk = SimDisk::new(1, 1).next_process();
            let (log, worker) = open_log(Arc::new(disk.clone()), Path::new(DIR));
            // The state has a disk of its own: its power stays.
            let other = SimDisk::new(1, 2).next_process();
            let applier = open_applier(Arc::new(other), Path::new(DIR));
            let opened = Opened {
                disk,
                log,
                worker: Some(worker),
            };
            Ok(((), Unlucky(Arc::new(Mutex::new(opened))), applier))
        }
    }

    #[tokio::test]
    async fn openrafts_own_storage_suite_passes_with_a_power_cut_before_every_call() {
        Suite::test_all(OnUnluckyDisk).await.expect("suite");
    }
}
