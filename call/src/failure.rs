//! Why a call came to nothing.

use std::{borrow::Cow, error::Error, fmt, time::Duration};

use http::StatusCode;
use serde::{Deserialize, Serialize};

use crate::FailureKind;

/// Whose doing a failure was, and so what it is held against.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Blame {
    /// The request, or what its caller showed of itself: calls of others would not have failed. Nothing is held against the callee.
    Caller,
    /// The callee: it is left alone for a moment, and longer each time that it fails again.
    Endpoint,
    /// The way there: the callee is left alone for a while.
    Connection,
    /// A rule of the cluster: nobody has failed, and the same call fails anywhere until the rule is another.
    Policy,
}

impl Blame {
    pub const ALL: [Self; 4] = [Self::Caller, Self::Endpoint, Self::Connection, Self::Policy];

    /// Its word between nodes.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Caller => "caller",
            Self::Endpoint => "endpoint",
            Self::Connection => "connection",
            Self::Policy => "policy",
        }
    }
}

/// Whether a guest saw the request, so that it may have had effects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Processed {
    /// Certainly not: it may be made elsewhere, whatever it is.
    No,
    /// It cannot be known. Only what may be done twice may be done again.
    Maybe,
    Yes,
}

impl Processed {
    pub const ALL: [Self; 3] = [Self::No, Self::Maybe, Self::Yes];

    /// Its word between nodes.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::No => "no",
            Self::Maybe => "maybe",
            Self::Yes => "yes",
        }
    }
}

/// Why a call came to nothing.
///
/// ```
/// use weft_call::{Failure, FailureKind, Processed};
///
/// let plain: Failure = FailureKind::Denied.into();
/// assert_eq!(plain.to_string(), "policy does not allow this destination");
/// let failure = Failure::new(FailureKind::Lost, "the worker process was killed").with_processed(Processed::No);
/// assert!(failure.never_processed());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    pub kind: FailureKind,
    pub blame: Blame,
    pub processed: Processed,
    /// When it may be tried again, as far as whoever refused it can tell.
    pub retry_after: Option<Duration>,
    /// One sentence, for the caller.
    pub message: Cow<'static, str>,
    /// What only those who run the two ends are told: a guest's stack, the address that did not answer. Never sent to another node,
    /// never part of a response.
    pub detail: Option<Box<str>>,
}

impl Failure {
    /// A failure of `kind`, with the blame and the rest that [`FailureKind`] says.
    #[must_use]
    pub fn new(kind: FailureKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            kind,
            blame: kind.blame(),
            processed: kind.processed(),
            retry_after: kind.retry_after(),
            message: message.into(),
            detail: None,
        }
    }

    #[must_use]
    pub fn with_blame(self, blame: Blame) -> Self {
        Self { blame, ..self }
    }

    #[must_use]
    pub fn with_processed(self, processed: Processed) -> Self {
        Self { processed, ..self }
    }

    #[must_use]
    pub fn with_retry_after(self, after: Duration) -> Self {
        Self {
            retry_after: Some(after),
            ..self
        }
    }

    #[must_use]
    pub fn with_detail(self, detail: impl Into<Box<str>>) -> Self {
        Self {
            detail: Some(detail.into()),
            ..self
        }
    }

    /// The same failure in other words: those of somebody who knows whose it was.
    #[must_use]
    pub fn with_message(self, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            message: message.into(),
            ..self
        }
    }

    /// Whether a guest certainly never saw the request.
    #[must_use]
    pub fn never_processed(&self) -> bool {
        self.processed == Processed::No
    }

    /// The status that a gateway answers with.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match (self.kind, self.processed) {
            // What was not begun may be made again; what was cut off is not said to be.
            (FailureKind::Lost | FailureKind::Stopped, Processed::No) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            (FailureKind::Lost | FailureKind::Stopped, _) => StatusCode::BAD_GATEWAY,
            (kind, _) => kind.status(),
        }
    }
}

impl From<FailureKind> for Failure {
    /// In the kind's own words.
    fn from(kind: FailureKind) -> Self {
        Self::new(kind, kind.sentence())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for Failure {}
