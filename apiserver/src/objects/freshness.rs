//! How old the state may be that a request is judged on.
//!
//! Any server answers any request, and a follower may be some milliseconds behind. A write is judged on what this server
//! has: its preconditions see to it that it takes effect on that state or not at all. A refusal has no precondition, so one
//! that rests on the state is only told after the leader confirmed that nothing newer says otherwise.

use weft_api::status::StatusError;
use weft_kinds::KindRef;
use weft_store::{ReadError, Revision, Snapshot, WriteError};

use super::{Objects, modified};

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

    /// Repeats a write that was refused on a state that turns out to be old.
    pub(super) async fn confirmed<T, F>(&self, attempt: impl Fn() -> F) -> Result<T, StatusError>
    where
        F: Future<Output = Result<T, StatusError>>,
    {
        let judged_on = self.inner.store.snapshot().revision();
        let refused = match attempt().await {
            Err(error) if rests_on_state(&error) => error,
            other => return other,
        };
        if self.newest(None).await?.revision() == judged_on {
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
    error.reason = "InsufficientStorage";
    error
}

pub(super) fn write_failed(kind: KindRef, name: &str, error: WriteError) -> StatusError {
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
