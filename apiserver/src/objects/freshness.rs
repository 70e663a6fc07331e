//! How old the state may be that a request is judged on.
//!
//! Any server answers any request, and a follower may be some milliseconds behind. A write is judged on what this server
//! has: its preconditions see to it that it takes effect on that state or not at all. What stores nothing has no
//! precondition: a refusal that rests on the state, and a write that finds everything as it wants it, are only told after
//! the leader confirmed that nothing newer says otherwise.

use weft_api::status::StatusError;
use weft_store::{Key, ReadError, Revision, Snapshot, WriteError};

use super::{Objects, modified};
use crate::encryption::EncryptionError;
use weft_kinds::KindRef;

/// Seconds after which a request that found no leader is worth another try: an election takes about that.
const RETRY_AFTER_SECONDS: u32 = 1;

impl Objects {
    /// The state for a read: the newest that anyone was acknowledged, or one that is not older than `version`.
    pub(super) async fn newest(&self, version: Option<Revision>) -> Result<Snapshot, StatusError> {
        let here = self.inner.store.snapshot();
        match version {
            Some(version) if version <= here.revision() => Ok(here),
            _ => self.inner.store.read().await.map_err(read_failed),
        }
    }

    /// Takes in what others wrote, before a write that met it is judged again.
    pub(super) async fn catch_up(&self) -> Result<(), StatusError> {
        self.newest(None).await.map(drop)
    }

    /// Whether an object is still at the revision it was judged at, as far as anyone was acknowledged.
    pub(super) async fn is_newest(
        &self,
        key: &Key,
        revision: Revision,
    ) -> Result<bool, StatusError> {
        let newest = self.newest(None).await?;
        Ok(newest
            .get(key)
            .is_some_and(|entry| entry.revision == revision))
    }

    /// Repeats a write that was refused on a state that turns out to be old. `about` are the keys of what it is about.
    pub(super) async fn confirmed<T, F>(
        &self,
        about: &[Key],
        attempt: impl Fn() -> F,
    ) -> Result<T, StatusError>
    where
        F: Future<Output = Result<T, StatusError>>,
    {
        let judged_on = self.inner.store.snapshot();
        let refused = match attempt().await {
            Err(error) if rests_on_state(&error) => error,
            other => return other,
        };
        let newest = self.newest(None).await?;
        let same = |key: &Key| {
            let revision = |snapshot: &Snapshot| snapshot.get(key).map(|entry| entry.revision);
            revision(&newest) == revision(&judged_on)
        };
        // That something is not there, or is at another version, depends on nothing else: on a busy cluster the state as a
        // whole is always another one by now.
        let unchanged = newest.revision() == judged_on.revision()
            || (matches!(refused.code, 404 | 409) && about.iter().all(same));
        if unchanged {
            return Err(refused);
        }
        attempt().await
    }
}

/// Whether a newer state could have brought another answer.
fn rests_on_state(error: &StatusError) -> bool {
    matches!(error.code, 403 | 404 | 409 | 422)
}

pub(crate) fn read_failed(error: ReadError) -> StatusError {
    let text = error.to_string();
    match error {
        ReadError::Overloaded => StatusError::too_many_requests(text, RETRY_AFTER_SECONDS),
        ReadError::NotLeader { .. } | ReadError::NoQuorum | ReadError::Behind => {
            StatusError::try_again(text, RETRY_AFTER_SECONDS)
        }
        ReadError::Closed => StatusError::unavailable(text),
    }
}

/// 507: it is of no use to send it again before somebody made room. Not 503, which clients repeat for minutes.
fn no_room(text: String) -> StatusError {
    let mut error = StatusError::unavailable(text);
    error.code = 507;
    error.reason = "InsufficientStorage".into();
    error
}

/// 500 for a write to an object of which this server sees only that it is there: it would take the place of what is stored.
pub(super) fn unreadable(error: EncryptionError) -> StatusError {
    StatusError::internal(format!(
        "the stored object cannot be read here, so it is not overwritten: {error}"
    ))
}

pub(crate) fn write_failed(kind: KindRef<'_>, name: &str, error: WriteError) -> StatusError {
    let text = error.to_string();
    match error {
        WriteError::Conflict { .. } => modified(kind, name),
        WriteError::Overloaded => StatusError::too_many_requests(text, RETRY_AFTER_SECONDS),
        WriteError::TooLarge { .. } => StatusError::request_entity_too_large(text),
        WriteError::Unknown => StatusError::timeout(text),
        // Nothing was proposed: clients that see Retry-After send it again.
        WriteError::NotLeader { .. } | WriteError::NoQuorum => {
            StatusError::try_again(text, RETRY_AFTER_SECONDS)
        }
        WriteError::DiskFull => no_room(text),
        WriteError::Fenced { .. } | WriteError::Closed => StatusError::unavailable(text),
    }
}
