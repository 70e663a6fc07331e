//! Bugs that can be planted, to prove that the tests would find them.
//!
//! Each place asks [`planted`] whether its bug is there. Outside of tests the answer is a constant, and the bug is not
//! in the program.

/// A bug that a store like this one could have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bug {
    /// A vote is reported durable and not written.
    VoteNotWritten,
    /// A leader that restarts leads on without being elected.
    LeaderRestored,
    /// Entries are reported durable before they are written.
    AckBeforeSync,
    /// A conflicting tail stays on disk when the log is truncated.
    TruncateForgotten,
    /// The log is purged up to what is applied, not to what is in a checkpoint.
    PurgeBeforeCheckpoint,
    /// A checkpoint names a position one entry too early, so that a restart applies that entry again.
    ApplyTwice,
    /// A checkpoint misses deletions.
    CheckpointKeepsDeleted,
    /// The counter of revisions does not move when a key is deleted.
    RevisionReused,
    /// A write is accepted although its fence names another term.
    FenceIgnored,
    /// A precondition on a revision is not looked at.
    PreconditionIgnored,
    /// A write takes effect although a check of another key does not hold.
    CheckIgnored,
    /// A read is answered from memory without asking whether this server still leads.
    ReadWithoutQuorum,
    /// A follower's read does not wait until the follower has applied what the leader named.
    ReadBeforeApply,
    /// A forwarded write is sent again after its answer was lost.
    ForwardTwice,
    /// A forwarded write is answered before this server has applied it.
    AnswerBeforeApply,
    /// A watcher misses an event.
    EventLost,
    /// A watcher gets an event twice.
    EventTwice,
    /// Progress is claimed while events are still queued.
    BookmarkEarly,
    /// A watch is accepted one revision below the kept history.
    HistoryOffByOne,
    /// Watchers are not cut when a snapshot replaces the state.
    WatchSurvivesSnapshot,
    /// A chunk of a snapshot is missing and nobody notices.
    SnapshotChunkLost,
    /// A checkpoint that is done takes values along that were written while it was made.
    FlushTakesNewer,
    /// A value that no checkpoint of before holds is looked for in the one of before.
    ShelfKept,
    /// A snapshot shows values of its own time, and those on disk as they are now.
    ShelfOfNow,
    /// A new file gets its final name before its content is durable.
    RenameBeforeSync,
}

#[cfg(not(test))]
pub(crate) const fn planted(_bug: Bug) -> bool {
    false
}

#[cfg(test)]
pub(crate) use in_tests::{plant, planted};

#[cfg(test)]
mod in_tests {
    use std::cell::Cell;

    use super::Bug;

    thread_local! {
        static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    pub(crate) fn planted(bug: Bug) -> bool {
        PLANTED.get() == Some(bug)
    }

    /// Plants a bug in every store that runs on this thread.
    pub(crate) fn plant(bug: Option<Bug>) {
        PLANTED.set(bug);
    }
}
