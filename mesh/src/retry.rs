//! Whether a failed try may be repeated on another endpoint. Pure.
//!
//! Two classes. *Never processed*: the request provably reached no workload (no connection, stream refused, the
//! workload is not there or full): safe for any method. *No answer*: the connection broke after the request may
//! have been read: only for idempotent methods. Whatever a workload answered is an answer and is passed on.
//! The wrong choice here executes a payment twice, so doubt means no.

use std::time::Duration;

use http::Method;

use crate::{Blame, DeliverError, TransportError};

/// Further tries after the first. Two more endpoints ride out a dying node; more would multiply load when
/// everything is down.
pub const RETRIES_MAX: u32 = 2;

/// How long a call waits for a newer table when every endpoint it knows turned it away unprocessed: the
/// withdrawal of a pod is sometimes seen at its node before the news reaches the caller's.
pub(crate) const NEWER_TABLE_WAIT: Duration = Duration::from_millis(1000);

/// One try that produced no response.
#[derive(Debug)]
pub enum Failure {
    Deliver(DeliverError),
    Transport(TransportError),
    /// The route's per-try timeout ran out.
    TryTimeout,
    /// The request's own body broke off, and with it the try.
    RequestBroken,
}

/// Why a failed try stays failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The callee may have acted on the request, and the method is not idempotent.
    NotIdempotent,
    /// The callee answered, if only with a failure.
    Final,
    /// Part of the request body is gone.
    BodySpent,
    /// [`RETRIES_MAX`] is reached.
    Exhausted,
    /// The service was given its share of retries; more would keep it from recovering.
    OverBudget,
    /// It is full, and there is no other endpoint: the same one again is more of the same.
    NoneElsewhere,
}

/// What to do after a failed try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Retry,
    GiveUp(Refusal),
}

impl Failure {
    /// Whether the workload provably saw nothing.
    #[must_use]
    pub fn never_processed(&self) -> bool {
        match self {
            Failure::Deliver(error) => error.never_processed(),
            Failure::Transport(error) => error.never_left(),
            Failure::TryTimeout | Failure::RequestBroken => false,
        }
    }

    /// Who has to bear it.
    #[must_use]
    pub fn blame(&self) -> Blame {
        match self {
            Failure::Deliver(error) => error.blame(),
            Failure::Transport(error) => error.blame(),
            Failure::TryTimeout => Blame::Endpoint,
            Failure::RequestBroken => Blame::Caller,
        }
    }

    /// Whether the same request would get the same elsewhere.
    fn is_final(&self) -> bool {
        match self {
            Failure::Deliver(error) => !error.never_processed(),
            Failure::Transport(error) => matches!(error, TransportError::Malformed { .. }),
            Failure::RequestBroken => true,
            Failure::TryTimeout => false,
        }
    }

    /// Whether only another endpoint can help.
    fn is_of_one_endpoint(&self) -> bool {
        matches!(
            self,
            Failure::Deliver(DeliverError::Overloaded)
                | Failure::Transport(TransportError::Crowded { .. })
        )
    }

    /// The word for metrics.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Failure::Deliver(error) => error.token(),
            Failure::Transport(TransportError::Broken { .. }) => "broken",
            Failure::Transport(TransportError::NotTaken { .. }) => "not-taken",
            Failure::Transport(TransportError::Malformed { .. }) => "malformed",
            Failure::Transport(TransportError::Crowded { .. }) => "crowded",
            Failure::Transport(_) => "connect",
            Failure::TryTimeout => "try-timeout",
            Failure::RequestBroken => "request-broken",
        }
    }
}

/// Decides after try number `retries` (0 = the first) of a call with `method` failed. `elsewhere`: an endpoint is left that this call
/// has not tried.
#[must_use]
pub fn decide(
    failure: &Failure,
    method: &Method,
    retries: u32,
    replayable: bool,
    elsewhere: bool,
) -> Verdict {
    if failure.is_final() {
        return Verdict::GiveUp(Refusal::Final);
    }
    if !failure.never_processed() && !is_idempotent(method) {
        return Verdict::GiveUp(Refusal::NotIdempotent);
    }
    if !replayable {
        return Verdict::GiveUp(Refusal::BodySpent);
    }
    if retries >= RETRIES_MAX {
        return Verdict::GiveUp(Refusal::Exhausted);
    }
    if failure.is_of_one_endpoint() && !elsewhere {
        return Verdict::GiveUp(Refusal::NoneElsewhere);
    }
    Verdict::Retry
}

/// RFC 9110 §9.2.2.
fn is_idempotent(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused() -> Failure {
        Failure::Transport(TransportError::Connect {
            address: ([127, 0, 0, 1], 1).into(),
            source: std::sync::Arc::new(std::io::ErrorKind::ConnectionRefused.into()),
        })
    }

    #[test]
    fn what_is_repeated_and_what_is_not() {
        use Refusal::*;
        use Verdict::*;
        let failed = || {
            Failure::Deliver(DeliverError::Failed {
                message: "trap".to_owned(),
            })
        };
        let not_here = || Failure::Deliver(DeliverError::NotHere);
        let table = [
            ("POST, refused", refused(), Method::POST, 0, true, Retry),
            ("POST, not here", not_here(), Method::POST, 1, true, Retry),
            (
                "POST, full",
                Failure::Deliver(DeliverError::Overloaded),
                Method::POST,
                0,
                true,
                Retry,
            ),
            (
                "GET, third retry",
                not_here(),
                Method::GET,
                2,
                true,
                GiveUp(Exhausted),
            ),
            (
                "POST, body gone",
                not_here(),
                Method::POST,
                0,
                false,
                GiveUp(BodySpent),
            ),
            ("GET, trap", failed(), Method::GET, 0, true, GiveUp(Final)),
            (
                "GET, slow try",
                Failure::TryTimeout,
                Method::GET,
                0,
                true,
                Retry,
            ),
            (
                "POST, slow try",
                Failure::TryTimeout,
                Method::POST,
                0,
                true,
                GiveUp(NotIdempotent),
            ),
            (
                "PATCH, slow try",
                Failure::TryTimeout,
                Method::PATCH,
                0,
                true,
                GiveUp(NotIdempotent),
            ),
            (
                "GET, deadline at the callee",
                Failure::Deliver(DeliverError::Deadline),
                Method::GET,
                0,
                true,
                GiveUp(Final),
            ),
        ];
        for (name, failure, method, retries, replayable, verdict) in table {
            assert_eq!(
                decide(&failure, &method, retries, replayable, true),
                verdict,
                "{name}"
            );
        }
    }

    #[test]
    fn where_there_is_nowhere_else_only_what_passes_is_tried_again() {
        use Refusal::NoneElsewhere;
        let overloaded = Failure::Deliver(DeliverError::Overloaded);
        let address = ([127, 0, 0, 1], 1).into();
        let crowded = Failure::Transport(TransportError::Crowded { address });
        let cases = [
            ("full", overloaded, Verdict::GiveUp(NoneElsewhere)),
            ("a queue", crowded, Verdict::GiveUp(NoneElsewhere)),
            ("refused", refused(), Verdict::Retry),
            (
                "not here",
                Failure::Deliver(DeliverError::NotHere),
                Verdict::Retry,
            ),
            (
                "the request's own fault",
                Failure::RequestBroken,
                Verdict::GiveUp(Refusal::Final),
            ),
        ];
        for (name, failure, verdict) in cases {
            let found = decide(&failure, &Method::GET, 0, true, false);
            assert_eq!(found, verdict, "{name}");
        }
    }
}
