//! Whether a failed try may be repeated on another endpoint. Pure.
//!
//! Two classes. *Never processed*: the request provably reached no workload (no connection, stream refused, the
//! workload is not there or full): safe for any method. *No answer*: the connection broke after the request may
//! have been read: only for idempotent methods. Whatever a workload answered is an answer and is passed on.
//! Answers are asked for again where a rule lists them; of gRPC, whose calls are all POST, one that is listed is the owner's word that such a call
//! may be made twice. The wrong choice here executes a payment twice, so doubt means no.

use std::time::Duration;

use http::{Method, StatusCode};

use crate::{Blame, Failure, FailureKind, Processed};

/// Further tries after the first. Two more endpoints ride out a dying node; more would multiply load when
/// everything is down.
pub const RETRIES_MAX: u32 = 2;

/// How long a call waits for a newer table when every endpoint it knows turned it away unprocessed: the
/// withdrawal of a pod is sometimes seen at its node before the news reaches the caller's.
pub(crate) const NEWER_TABLE_WAIT: Duration = Duration::from_millis(1000);

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

/// Whether the same request would get the same elsewhere, or nobody may find out.
fn is_final(failure: &Failure) -> bool {
    use FailureKind as Kind;
    if failure.processed == Processed::Yes || failure.blame == Blame::Policy {
        return true;
    }
    match failure.kind {
        Kind::BadRequest
        | Kind::HeadTooLarge
        | Kind::BodyBroken
        | Kind::LoopDetected
        | Kind::LimitReached
        | Kind::Denied
        | Kind::NotGranted
        | Kind::NoRoute
        | Kind::InvalidBackend
        | Kind::UnknownService
        | Kind::UnknownPort
        | Kind::UnknownHost
        | Kind::Malformed
        // All that the caller has, or all that the callee ever takes: there is no more of it elsewhere.
        | Kind::Deadline => true,
        // A request that took a process or a workload with it is not shown to the next one.
        Kind::Stopped | Kind::Lost => !failure.never_processed(),
        Kind::NoEndpoints
        | Kind::Unreachable
        | Kind::NotTaken
        | Kind::Crowded
        | Kind::Interrupted
        | Kind::NotHere
        | Kind::NotLoaded
        | Kind::NotCallable
        | Kind::Overloaded
        | Kind::NoInstance
        | Kind::TryTimeout
        | Kind::Trap
        | Kind::OutOfMemory
        | Kind::Exhausted
        | Kind::NoResponse
        | Kind::GuestError
        | Kind::BadResponse
        | Kind::BodyTooLarge
        | Kind::Failed => false,
    }
}

/// Whether a caller may find somebody else who answers it, whatever its method.
pub(crate) fn may_go_elsewhere(failure: &Failure) -> bool {
    failure.never_processed() && !is_final(failure)
}

/// Whether only another endpoint can help.
pub(crate) fn is_of_one_endpoint(kind: FailureKind) -> bool {
    matches!(
        kind,
        FailureKind::Overloaded | FailureKind::NoInstance | FailureKind::Crowded
    )
}

/// What a rule says of tries that a call may make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Asked<'r> {
    /// None: nothing.
    pub(crate) rule: Option<&'r weft_gateway::Retry>,
    /// Its caller says that it may be made twice, whatever its method is: it has an `Idempotency-Key`.
    pub(crate) keyed: bool,
    /// Its caller says that it is not to be made twice, whatever else holds.
    pub(crate) once: bool,
}

impl Asked<'_> {
    /// Further tries of what may have been processed.
    fn most(self) -> u32 {
        self.rule.map_or(RETRIES_MAX, |rule| rule.attempts)
    }

    /// Whether an answer with `status` is one that is asked for again.
    pub(crate) fn lists(self, status: StatusCode) -> bool {
        self.rule.is_some_and(|rule| rule.codes.contains(&status))
    }

    /// Whether what may have been processed may be made once more.
    pub(crate) fn may_repeat(self, method: &Method) -> bool {
        !self.once && (self.keyed || is_idempotent(method))
    }

    /// Whether a call that a workload answered with `status` is to be tried again: as the rule says, and never what may be done only once.
    pub(crate) fn wants_again(
        self,
        status: StatusCode,
        method: &Method,
        retries: u32,
        replayable: bool,
    ) -> bool {
        self.lists(status) && retries < self.most() && replayable && self.may_repeat(method)
    }

    /// The same of a call of gRPC that ended with `status` before there was any answer. Whoever lists it says that it may be made twice.
    pub(crate) fn wants_grpc_again(self, status: u16, retries: u32, replayable: bool) -> bool {
        self.lists_grpc(status) && retries < self.most() && replayable
    }

    /// Whether a status of gRPC is one that is asked for again.
    pub(crate) fn lists_grpc(self, status: u16) -> bool {
        self.rule.is_some_and(|rule| rule.grpc.contains(&status))
    }

    /// Whether a call of gRPC may be made again for its status.
    pub(crate) fn looks_at_grpc(self, retries: u32) -> bool {
        self.rule.is_some_and(|rule| !rule.grpc.is_empty()) && retries < self.most()
    }

    /// Whether one more try than `retries` may be made at all.
    pub(crate) fn may_go_on(self, retries: u32) -> bool {
        self.rule.is_some() && retries < self.most()
    }
}

/// Decides after try number `retries` (0 = the first) of a call with `method` failed. `elsewhere`: an endpoint is left that this call
/// has not tried.
#[must_use]
pub(crate) fn decide(
    failure: &Failure,
    method: &Method,
    retries: u32,
    replayable: bool,
    elsewhere: bool,
    asked: Asked<'_>,
) -> Verdict {
    if is_final(failure) {
        return Verdict::GiveUp(Refusal::Final);
    }
    if !failure.never_processed() && !asked.may_repeat(method) {
        return Verdict::GiveUp(Refusal::NotIdempotent);
    }
    if !replayable {
        return Verdict::GiveUp(Refusal::BodySpent);
    }
    // What never began goes elsewhere as often as always, whatever a rule says of answers.
    let most = match failure.never_processed() {
        true => asked.most().max(RETRIES_MAX),
        false => asked.most(),
    };
    if retries >= most {
        return Verdict::GiveUp(Refusal::Exhausted);
    }
    if is_of_one_endpoint(failure.kind) && !elsewhere {
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

    const NOTHING: Asked<'static> = Asked {
        rule: None,
        keyed: false,
        once: false,
    };

    #[test]
    fn a_rule_says_which_answers_are_tried_again_and_how_often() {
        let rule = weft_gateway::Retry {
            codes: vec![StatusCode::BAD_GATEWAY],
            grpc: vec![14],
            attempts: 3,
            backoff: None,
        };
        let asked = Asked {
            rule: Some(&rule),
            keyed: false,
            once: false,
        };
        let again = |status, method, retries, replayable| {
            asked.wants_again(status, &method, retries, replayable)
        };
        let (bad, other) = (StatusCode::BAD_GATEWAY, StatusCode::INTERNAL_SERVER_ERROR);
        assert!(again(bad, Method::GET, 2, true));
        assert!(!again(bad, Method::GET, 3, true), "three are enough");
        assert!(!again(other, Method::GET, 0, true), "not named");
        assert!(!again(bad, Method::GET, 0, false), "its body is gone");
        assert!(
            !again(bad, Method::POST, 0, true),
            "it may have had effects"
        );
        let keyed = Asked {
            keyed: true,
            ..asked
        };
        assert!(
            keyed.wants_again(bad, &Method::POST, 0, true),
            "its caller says that it may be made twice"
        );
        let grpc = |status, retries| asked.wants_grpc_again(status, retries, true);
        assert!(grpc(14, 2) && !grpc(14, 3) && !grpc(13, 0));
        assert!(!asked.wants_grpc_again(14, 0, false), "its body is gone");
        let once = Asked {
            once: true,
            ..keyed
        };
        assert!(
            !once.wants_again(bad, &Method::GET, 0, true),
            "its caller says that it may not"
        );
        let elsewhere = decide(&refused(), &Method::GET, 0, true, true, once);
        assert_eq!(elsewhere, Verdict::Retry, "nobody has seen it");
        let broke = Failure::from(FailureKind::Interrupted);
        let decided = |retries| decide(&broke, &Method::GET, retries, true, false, asked);
        assert_eq!(decided(2), Verdict::Retry);
        assert_eq!(decided(3), Verdict::GiveUp(Refusal::Exhausted));
    }

    fn refused() -> Failure {
        FailureKind::Unreachable.into()
    }

    #[test]
    fn what_is_repeated_and_what_is_not() {
        use Refusal::*;
        use Verdict::*;
        let failed = || Failure::from(FailureKind::Trap);
        let not_here = || Failure::from(FailureKind::NotHere);
        let lost = |processed| Failure::from(FailureKind::Lost).with_processed(processed);
        let table = [
            ("POST, refused", refused(), Method::POST, 0, true, Retry),
            ("POST, not here", not_here(), Method::POST, 1, true, Retry),
            (
                "POST, full",
                FailureKind::Overloaded.into(),
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
                FailureKind::TryTimeout.into(),
                Method::GET,
                0,
                true,
                Retry,
            ),
            (
                "POST, slow try",
                FailureKind::TryTimeout.into(),
                Method::POST,
                0,
                true,
                GiveUp(NotIdempotent),
            ),
            (
                "PATCH, slow try",
                FailureKind::TryTimeout.into(),
                Method::PATCH,
                0,
                true,
                GiveUp(NotIdempotent),
            ),
            (
                "GET, deadline at the callee",
                FailureKind::Deadline.into(),
                Method::GET,
                0,
                true,
                GiveUp(Final),
            ),
            (
                "POST, a worker that was gone before",
                lost(Processed::No),
                Method::POST,
                0,
                true,
                Retry,
            ),
            (
                "GET, a worker that it may have taken with it",
                lost(Processed::Maybe),
                Method::GET,
                0,
                true,
                GiveUp(Final),
            ),
            (
                "GET, a rule",
                refused().with_blame(Blame::Policy),
                Method::GET,
                0,
                true,
                GiveUp(Final),
            ),
        ];
        for (name, failure, method, retries, replayable, verdict) in table {
            assert_eq!(
                decide(&failure, &method, retries, replayable, true, NOTHING),
                verdict,
                "{name}"
            );
        }
    }

    #[test]
    fn where_there_is_nowhere_else_only_what_passes_is_tried_again() {
        use Refusal::NoneElsewhere;
        let overloaded = FailureKind::Overloaded.into();
        let crowded = FailureKind::Crowded.into();
        let cases = [
            ("full", overloaded, Verdict::GiveUp(NoneElsewhere)),
            ("a queue", crowded, Verdict::GiveUp(NoneElsewhere)),
            ("refused", refused(), Verdict::Retry),
            ("not here", FailureKind::NotHere.into(), Verdict::Retry),
            (
                "the request's own fault",
                FailureKind::BodyBroken.into(),
                Verdict::GiveUp(Refusal::Final),
            ),
        ];
        for (name, failure, verdict) in cases {
            let found = decide(&failure, &Method::GET, 0, true, false, NOTHING);
            assert_eq!(found, verdict, "{name}");
        }
    }

    #[test]
    fn only_what_never_started_may_be_tried_elsewhere() {
        for kind in FailureKind::ALL {
            for blame in Blame::ALL {
                for processed in Processed::ALL {
                    let failure = Failure::from(kind)
                        .with_blame(blame)
                        .with_processed(processed);
                    // A guest that has begun has had effects, whatever the host ran out of: no POST is sent again for that.
                    let verdict = decide(&failure, &Method::POST, 0, true, true, NOTHING);
                    assert!(
                        verdict != Verdict::Retry || processed == Processed::No,
                        "{failure:?}"
                    );
                    assert!(!may_go_elsewhere(&failure) || verdict == Verdict::Retry);
                }
            }
        }
    }
}
