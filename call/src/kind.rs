//! The kinds of failures: what each means, whom it is held against, and whether a guest may have seen the request.

use std::{fmt, str::FromStr, time::Duration};

use http::StatusCode;
use serde::{Deserialize, Serialize};

use crate::{Blame, Processed};

/// When a caller that was turned away for want of room may come again. The least that can be said in whole seconds (`Retry-After`):
/// room is a matter of milliseconds, and a client that waits longer would leave it unused.
const ROOM_AFTER: Duration = Duration::from_secs(1);

/// What happened. Closed: whoever makes something else of a failure decides for each of them.
///
/// Blame and processed are what is meant where nobody says otherwise; [`Failure`](crate::Failure) has the last word.
///
/// | kind | blame | processed | status |
/// | --- | --- | --- | --- |
/// | bad-request | caller | no | 400 |
/// | head-too-large | caller | no | 431 |
/// | body-broken | caller | maybe | 400 |
/// | loop-detected | caller | no | 508 |
/// | limit-reached | caller | no | 429 |
/// | denied | policy | no | 403 |
/// | not-granted | policy | no | 403 |
/// | no-route | policy | no | 404 |
/// | invalid-backend | policy | no | 500 |
/// | unknown-service | caller | no | 404 |
/// | unknown-port | caller | no | 404 |
/// | unknown-host | connection | no | 503 |
/// | no-endpoints | endpoint | no | 503 |
/// | unreachable | connection | no | 503 |
/// | not-taken | endpoint | no | 503 |
/// | crowded | endpoint | no | 503 |
/// | malformed | caller | maybe | 400 |
/// | interrupted | connection | maybe | 502 |
/// | not-here | connection | no | 421 |
/// | stopped | connection | no | 503 |
/// | lost | endpoint | maybe | 502 |
/// | not-loaded | connection | no | 503 |
/// | not-callable | connection | no | 502 |
/// | overloaded | endpoint | no | 503 |
/// | no-instance | endpoint | no | 503 |
/// | deadline | endpoint | maybe | 504 |
/// | try-timeout | endpoint | maybe | 504 |
/// | trap | endpoint | yes | 502 |
/// | out-of-memory | endpoint | yes | 502 |
/// | exhausted | endpoint | yes | 502 |
/// | no-response | endpoint | yes | 502 |
/// | guest-error | endpoint | yes | 502 |
/// | bad-response | endpoint | yes | 502 |
/// | body-too-large | endpoint | yes | 502 |
/// | failed | endpoint | yes | 502 |
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailureKind {
    // === The request, and whoever sent it ===
    /// The request is none that can be passed on.
    BadRequest,
    /// Its head is larger than is passed on.
    HeadTooLarge,
    /// Its body broke off, or is not as long as its head says.
    BodyBroken,
    /// It is nested deeper than any call tree that ends.
    LoopDetected,
    /// The caller has as many requests open as it may. (A callee that is full is [`Overloaded`](Self::Overloaded).)
    LimitReached,

    // === Where it goes ===
    /// A policy does not allow it.
    Denied,
    /// It leaves the cluster, and nothing that its caller was granted lets it.
    NotGranted,
    /// There are routes, and none is for this request.
    NoRoute,
    /// Its route leads to a backend that is none.
    InvalidBackend,
    UnknownService,
    /// The service has no such port.
    UnknownPort,
    /// A host outside of the cluster whose name leads nowhere.
    UnknownHost,
    /// The service has nobody to answer.
    NoEndpoints,

    // === The way there ===
    /// No connection, or none to whom it should be.
    Unreachable,
    /// The connection went away before the request was taken.
    NotTaken,
    /// More calls wait for that node than it would ever take at once.
    Crowded,
    /// The protocol on the way does not take the request for one.
    Malformed,
    /// The way broke after the request may have been read.
    Interrupted,
    /// The workload is not where it was looked for.
    NotHere,

    // === Whether the workload takes it ===
    /// The workload is being stopped.
    Stopped,
    /// The process that has the guest is gone.
    Lost,
    /// Its code cannot be had.
    NotLoaded,
    /// It is none that answers HTTP.
    NotCallable,
    /// The workload has as many calls as it takes.
    Overloaded,
    /// The host has no room for an instance.
    NoInstance,

    // === What became of it there ===
    /// Time is up.
    Deadline,
    /// The time of one try is up; there may be time for another.
    TryTimeout,
    /// The guest trapped.
    Trap,
    /// The guest ran out of the memory that it may have.
    OutOfMemory,
    /// The host ran out of what the guest needed to go on.
    Exhausted,
    /// The guest returned without a response.
    NoResponse,
    /// The guest answered with an error code of wasi:http.
    GuestError,
    /// Its response is none that can be passed on.
    BadResponse,
    /// Its response's body is longer than it may be.
    BodyTooLarge,
    /// Anything else.
    Failed,
}

struct Row {
    word: &'static str,
    sentence: &'static str,
    blame: Blame,
    processed: Processed,
    status: StatusCode,
}

impl FailureKind {
    pub const ALL: [Self; 35] = [
        Self::BadRequest,
        Self::HeadTooLarge,
        Self::BodyBroken,
        Self::LoopDetected,
        Self::LimitReached,
        Self::Denied,
        Self::NotGranted,
        Self::NoRoute,
        Self::InvalidBackend,
        Self::UnknownService,
        Self::UnknownPort,
        Self::UnknownHost,
        Self::NoEndpoints,
        Self::Unreachable,
        Self::NotTaken,
        Self::Crowded,
        Self::Malformed,
        Self::Interrupted,
        Self::NotHere,
        Self::Stopped,
        Self::Lost,
        Self::NotLoaded,
        Self::NotCallable,
        Self::Overloaded,
        Self::NoInstance,
        Self::Deadline,
        Self::TryTimeout,
        Self::Trap,
        Self::OutOfMemory,
        Self::Exhausted,
        Self::NoResponse,
        Self::GuestError,
        Self::BadResponse,
        Self::BodyTooLarge,
        Self::Failed,
    ];

    const fn row(self) -> Row {
        use Blame::{Caller, Connection, Endpoint, Policy};
        use Processed::{Maybe, No, Yes};
        use StatusCode as S;
        let (word, blame, processed, status, sentence) = match self {
            Self::BadRequest => (
                "bad-request",
                Caller,
                No,
                S::BAD_REQUEST,
                "the request is not acceptable",
            ),
            Self::HeadTooLarge => {
                let status = S::REQUEST_HEADER_FIELDS_TOO_LARGE;
                (
                    "head-too-large",
                    Caller,
                    No,
                    status,
                    "the request's head is larger than is passed on",
                )
            }
            Self::BodyBroken => (
                "body-broken",
                Caller,
                Maybe,
                S::BAD_REQUEST,
                "the request's body broke off",
            ),
            Self::LoopDetected => (
                "loop-detected",
                Caller,
                No,
                S::LOOP_DETECTED,
                "the call is nested too deeply",
            ),
            Self::LimitReached => (
                "limit-reached",
                Caller,
                No,
                S::TOO_MANY_REQUESTS,
                "too many requests are open",
            ),
            Self::Denied => (
                "denied",
                Policy,
                No,
                S::FORBIDDEN,
                "policy does not allow this destination",
            ),
            Self::NotGranted => (
                "not-granted",
                Policy,
                No,
                S::FORBIDDEN,
                "nothing that the caller was granted lets it leave the cluster",
            ),
            Self::NoRoute => ("no-route", Policy, No, S::NOT_FOUND, "no route matches"),
            Self::InvalidBackend => (
                "invalid-backend",
                Policy,
                No,
                S::INTERNAL_SERVER_ERROR,
                "the route's backend is not valid",
            ),
            Self::UnknownService => (
                "unknown-service",
                Caller,
                No,
                S::NOT_FOUND,
                "no such destination",
            ),
            Self::UnknownPort => (
                "unknown-port",
                Caller,
                No,
                S::NOT_FOUND,
                "the destination has no such port",
            ),
            Self::UnknownHost => (
                "unknown-host",
                Connection,
                No,
                S::SERVICE_UNAVAILABLE,
                "the host's name cannot be resolved",
            ),
            Self::NoEndpoints => (
                "no-endpoints",
                Endpoint,
                No,
                S::SERVICE_UNAVAILABLE,
                "the destination has nobody to answer",
            ),
            Self::Unreachable => (
                "unreachable",
                Connection,
                No,
                S::SERVICE_UNAVAILABLE,
                "the destination refused the connection",
            ),
            Self::NotTaken => {
                let sentence = "the connection closed before the request was taken";
                ("not-taken", Endpoint, No, S::SERVICE_UNAVAILABLE, sentence)
            }
            Self::Crowded => (
                "crowded",
                Endpoint,
                No,
                S::SERVICE_UNAVAILABLE,
                "too many calls wait for the destination",
            ),
            Self::Malformed => (
                "malformed",
                Caller,
                Maybe,
                S::BAD_REQUEST,
                "the other side broke the protocol",
            ),
            Self::Interrupted => (
                "interrupted",
                Connection,
                Maybe,
                S::BAD_GATEWAY,
                "the connection broke before an answer came",
            ),
            Self::NotHere => (
                "not-here",
                Connection,
                No,
                S::MISDIRECTED_REQUEST,
                "the workload is not on this node",
            ),
            Self::Stopped => (
                "stopped",
                Connection,
                No,
                S::SERVICE_UNAVAILABLE,
                "the workload is stopped",
            ),
            Self::Lost => (
                "lost",
                Endpoint,
                Maybe,
                S::BAD_GATEWAY,
                "the guest's process is gone",
            ),
            Self::NotLoaded => (
                "not-loaded",
                Connection,
                No,
                S::SERVICE_UNAVAILABLE,
                "the component's code cannot be loaded",
            ),
            Self::NotCallable => (
                "not-callable",
                Connection,
                No,
                S::BAD_GATEWAY,
                "the component exports no HTTP handler",
            ),
            Self::Overloaded => {
                let sentence = "the workload is at its limit of concurrent calls";
                ("overloaded", Endpoint, No, S::SERVICE_UNAVAILABLE, sentence)
            }
            Self::NoInstance => (
                "no-instance",
                Endpoint,
                No,
                S::SERVICE_UNAVAILABLE,
                "there is no room for an instance",
            ),
            Self::Deadline => (
                "deadline",
                Endpoint,
                Maybe,
                S::GATEWAY_TIMEOUT,
                "the call took longer than it may",
            ),
            Self::TryTimeout => (
                "try-timeout",
                Endpoint,
                Maybe,
                S::GATEWAY_TIMEOUT,
                "the try took longer than it may",
            ),
            Self::Trap => ("trap", Endpoint, Yes, S::BAD_GATEWAY, "the guest trapped"),
            Self::OutOfMemory => (
                "out-of-memory",
                Endpoint,
                Yes,
                S::BAD_GATEWAY,
                "the guest ran out of memory",
            ),
            Self::Exhausted => (
                "exhausted",
                Endpoint,
                Yes,
                S::BAD_GATEWAY,
                "the guest could not go on",
            ),
            Self::NoResponse => (
                "no-response",
                Endpoint,
                Yes,
                S::BAD_GATEWAY,
                "the guest returned without a response",
            ),
            Self::GuestError => (
                "guest-error",
                Endpoint,
                Yes,
                S::BAD_GATEWAY,
                "the guest answered with an error",
            ),
            Self::BadResponse => (
                "bad-response",
                Endpoint,
                Yes,
                S::BAD_GATEWAY,
                "the response broke the protocol",
            ),
            Self::BodyTooLarge => (
                "body-too-large",
                Endpoint,
                Yes,
                S::BAD_GATEWAY,
                "the response is too long",
            ),
            Self::Failed => ("failed", Endpoint, Yes, S::BAD_GATEWAY, "the call failed"),
        };
        Row {
            word,
            sentence,
            blame,
            processed,
            status,
        }
    }

    /// Its word in metrics and between nodes.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        self.row().word
    }

    /// What is said of it where nobody knows more.
    #[must_use]
    pub const fn sentence(self) -> &'static str {
        self.row().sentence
    }

    #[must_use]
    pub const fn blame(self) -> Blame {
        self.row().blame
    }

    #[must_use]
    pub const fn processed(self) -> Processed {
        self.row().processed
    }

    /// The status that a gateway answers with.
    #[must_use]
    pub const fn status(self) -> StatusCode {
        self.row().status
    }

    /// When room is to be expected, where it is room that was missing.
    #[must_use]
    pub const fn retry_after(self) -> Option<Duration> {
        match self {
            Self::Overloaded | Self::NoInstance | Self::Crowded | Self::LimitReached => {
                Some(ROOM_AFTER)
            }
            _ => None,
        }
    }
}

impl fmt::Display for FailureKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// No kind has this word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnknownKind;

impl FromStr for FailureKind {
    type Err = UnknownKind;

    fn from_str(word: &str) -> Result<Self, UnknownKind> {
        let mut all = Self::ALL.into_iter();
        all.find(|kind| kind.as_str() == word).ok_or(UnknownKind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_the_docs_is_what_holds() {
        let documented: Vec<_> = include_str!("kind.rs")
            .lines()
            .filter_map(|line| line.strip_prefix("/// | "))
            .skip(2)
            .collect();
        let found = FailureKind::ALL.map(|kind| {
            format!(
                "{kind} | {} | {} | {} |",
                kind.blame().as_str(),
                kind.processed().as_str(),
                kind.status().as_u16()
            )
        });
        assert_eq!(documented, found);
    }

    #[test]
    fn each_word_is_found_again_and_is_the_one_of_serde() {
        for (place, kind) in FailureKind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, place, "{kind}");
            assert_eq!(kind.as_str().parse(), Ok(kind));
            let json = serde_json::to_string(&kind).expect("a word");
            assert_eq!(json, format!("\"{kind}\""));
        }
        assert_eq!("none".parse::<FailureKind>(), Err(UnknownKind));
    }

    #[test]
    fn whoever_is_sent_to_somebody_else_was_not_served() {
        for kind in FailureKind::ALL {
            // Neither a caller nor a rule is to blame for what a guest did.
            if matches!(kind.blame(), Blame::Caller | Blame::Policy) {
                assert_ne!(kind.processed(), Processed::Yes, "{kind}");
            }
            if kind.retry_after().is_some() {
                assert_eq!(kind.processed(), Processed::No, "{kind}");
            }
        }
    }
}
