//! What the mesh makes of failures at its edges: a flag for metrics, a sentence for a client, and, when a call is given up, whose failure
//! it was.
//!
//! Kinds, and what is meant by them, are those of [`weft_call`]. Of what fails here nothing is changed on its way but the message.

use http::{HeaderValue, Method, Response, header};
use weft_call::{Failure, FailureKind};

use crate::{Body, deliver};

/// The request breaks a rule that all requests keep; `reason` continues "the request is not acceptable: ".
pub(crate) fn bad_request(reason: &str) -> Failure {
    Failure::new(
        FailureKind::BadRequest,
        format!("the request is not acceptable: {reason}"),
    )
}

pub(crate) fn head_too_large() -> Failure {
    Failure::new(
        FailureKind::HeadTooLarge,
        format!(
            "the request's head is larger than is passed on: {} KiB in {} lines with its URI",
            crate::headers::HEADER_BYTES_MAX >> 10,
            crate::headers::HEADERS_MAX
        ),
    )
}

/// As many requests of one namespace wait for a core as may.
pub(crate) fn no_turn() -> Failure {
    Failure::new(
        FailureKind::Overloaded,
        format!(
            "{} requests of its namespace wait for their turn on this core already",
            weft_turns::WAITING_MAX
        ),
    )
}

/// A policy lets in as many calls as the workload answers in time, and these were there.
pub(crate) fn shed(service: &str) -> Failure {
    Failure::new(
        FailureKind::Overloaded,
        format!("{service} has as many calls as it answers in time, by its MeshPolicy"),
    )
}

pub(crate) fn loop_detected() -> Failure {
    Failure::new(
        FailureKind::LoopDetected,
        format!(
            "the call is nested deeper than {} workloads",
            crate::DEPTH_MAX
        ),
    )
}

/// Nothing lets the caller leave the cluster.
pub(crate) fn denied(authority: &str) -> Failure {
    Failure::new(
        FailureKind::Denied,
        format!("{authority} is outside the cluster and no policy allows it"),
    )
}

/// The time that the caller had is over; of who was at work then, that says nothing.
pub(crate) fn deadline() -> Failure {
    Failure::new(
        FailureKind::Deadline,
        "the call did not finish before its deadline",
    )
}

pub(crate) fn body_broken() -> Failure {
    Failure::new(
        FailureKind::BodyBroken,
        "the request is not acceptable: its body broke off, or is not as long as its content-length says",
    )
}

/// The failure of the last of `attempts` tries at `destination`, as its caller hears of it. What was never taken is one failure more:
/// that nobody could be reached.
pub(crate) fn given_up(failure: Failure, destination: &str, attempts: u32) -> Failure {
    use FailureKind as Kind;
    match failure.kind {
        Kind::TryTimeout | Kind::Deadline => failure.with_message(deadline().message),
        Kind::Overloaded | Kind::NoInstance | Kind::Crowded => {
            let why = failure.message.clone();
            failure
                .with_message(format!("{destination} takes no more calls at the moment"))
                .with_detail(why)
        }
        Kind::Unreachable
        | Kind::NotTaken
        | Kind::NotHere
        | Kind::Stopped
        | Kind::Lost
        | Kind::NotLoaded
        | Kind::NotCallable
            if failure.never_processed() =>
        {
            let why = match &failure.detail {
                Some(detail) => format!("{failure}: {detail}"),
                None => failure.message.to_string(),
            };
            let message =
                format!("no endpoint of {destination} could be reached in {attempts} attempts");
            Failure {
                kind: Kind::Unreachable,
                message: message.into(),
                ..failure
            }
            .with_detail(why)
        }
        Kind::Interrupted => failure.with_message(format!(
            "the connection to {destination} broke before it answered"
        )),
        Kind::Unreachable
        | Kind::NotTaken
        | Kind::NotHere
        | Kind::Stopped
        | Kind::Lost
        | Kind::NotLoaded
        | Kind::NotCallable
        | Kind::Trap
        | Kind::OutOfMemory
        | Kind::Exhausted
        | Kind::NoResponse
        | Kind::GuestError
        | Kind::BadResponse
        | Kind::BodyTooLarge
        | Kind::Failed => {
            let message = format!("{destination} failed before it answered: {failure}");
            failure.with_message(message)
        }
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
        | Kind::NoEndpoints
        | Kind::Malformed => failure,
    }
}

/// Envoy's response flag, for metrics.
pub(crate) fn flag(kind: FailureKind) -> &'static str {
    use FailureKind as Kind;
    match kind {
        Kind::Denied | Kind::NotGranted => "UAEX",
        // Envoy: no DNS record.
        Kind::UnknownHost => "DF",
        Kind::UnknownService | Kind::UnknownPort | Kind::NoRoute | Kind::InvalidBackend => "NR",
        Kind::NoEndpoints => "UH",
        Kind::Unreachable | Kind::NotTaken | Kind::NotHere => "UF",
        Kind::Deadline | Kind::TryTimeout => "UT",
        Kind::Overloaded | Kind::NoInstance | Kind::Crowded | Kind::LimitReached => "UO",
        Kind::LoopDetected
        | Kind::BadRequest
        | Kind::HeadTooLarge
        | Kind::BodyBroken
        | Kind::Malformed => "DPE",
        Kind::Interrupted
        | Kind::Stopped
        | Kind::Lost
        | Kind::NotLoaded
        | Kind::NotCallable
        | Kind::Trap
        | Kind::OutOfMemory
        | Kind::Exhausted
        | Kind::NoResponse
        | Kind::GuestError
        | Kind::BadResponse
        | Kind::BodyTooLarge
        | Kind::Failed => "UC",
    }
}

/// A failure as status and one sentence of text.
pub(crate) fn sentence(failure: &Failure, method: &Method) -> Response<Body> {
    let mut response = Response::new(Body::full(format!("{failure}\n")));
    *response.status_mut() = failure.status();
    let lines = response.headers_mut();
    lines.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    if let Some(after) = failure.retry_after {
        // In whole seconds, and never sooner than was said.
        let more = u64::from(after.subsec_nanos() > 0);
        let seconds = after.as_secs().saturating_add(more);
        lines.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    deliver::without_content(method, response)
}

/// The response that the Gateway API prescribes where no rule leads to a backend, or the failure again.
pub(crate) fn answered(failure: Failure, method: &Method) -> Result<Response<Body>, Failure> {
    match failure.kind {
        FailureKind::NoRoute | FailureKind::InvalidBackend => Ok(sentence(&failure, method)),
        _ => Err(failure),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use weft_call::{Blame, Processed};

    use super::*;

    #[test]
    fn who_gives_up_changes_what_is_said_and_nothing_else() {
        for kind in FailureKind::ALL {
            for processed in Processed::ALL {
                let failure = Failure::new(kind, "why")
                    .with_blame(Blame::Endpoint)
                    .with_processed(processed)
                    .with_retry_after(Duration::from_secs(7));
                let told = given_up(failure.clone(), "price.shop", 3);
                let is_same = told.kind == kind
                    || (told.kind == FailureKind::Unreachable && processed == Processed::No);
                assert!(is_same, "{kind} became {}", told.kind);
                assert_eq!(
                    (told.blame, told.processed, told.retry_after),
                    (failure.blame, failure.processed, failure.retry_after),
                    "{kind}"
                );
            }
        }
    }

    #[test]
    fn a_caller_hears_whose_failure_it_was_and_no_address() {
        let mut told = String::new();
        for kind in FailureKind::ALL {
            let failure = Failure::from(kind).with_detail("10.0.0.1:7");
            let failure = given_up(failure, "price.shop", 2);
            told += &format!("{} {} {failure}\n", failure.kind, flag(failure.kind));
        }
        assert!(!told.contains("10.0.0.1"), "{told}");
        insta::assert_snapshot!(told, @r"
        bad-request DPE the request is not acceptable
        head-too-large DPE the request's head is larger than is passed on
        body-broken DPE the request's body broke off
        loop-detected DPE the call is nested too deeply
        limit-reached UO too many requests are open
        denied UAEX policy does not allow this destination
        not-granted UAEX nothing that the caller was granted lets it leave the cluster
        no-route NR no route matches
        invalid-backend NR the route's backend is not valid
        unknown-service NR no such destination
        unknown-port NR the destination has no such port
        unknown-host DF the host's name cannot be resolved
        no-endpoints UH the destination has nobody to answer
        unreachable UF no endpoint of price.shop could be reached in 2 attempts
        unreachable UF no endpoint of price.shop could be reached in 2 attempts
        crowded UO price.shop takes no more calls at the moment
        malformed DPE the other side broke the protocol
        interrupted UC the connection to price.shop broke before it answered
        unreachable UF no endpoint of price.shop could be reached in 2 attempts
        unreachable UF no endpoint of price.shop could be reached in 2 attempts
        lost UC price.shop failed before it answered: the guest's process is gone
        unreachable UF no endpoint of price.shop could be reached in 2 attempts
        unreachable UF no endpoint of price.shop could be reached in 2 attempts
        overloaded UO price.shop takes no more calls at the moment
        no-instance UO price.shop takes no more calls at the moment
        deadline UT the call did not finish before its deadline
        try-timeout UT the call did not finish before its deadline
        trap UC price.shop failed before it answered: the guest trapped
        out-of-memory UC price.shop failed before it answered: the guest ran out of memory
        exhausted UC price.shop failed before it answered: the guest could not go on
        no-response UC price.shop failed before it answered: the guest returned without a response
        guest-error UC price.shop failed before it answered: the guest answered with an error
        bad-response UC price.shop failed before it answered: the response broke the protocol
        body-too-large UC price.shop failed before it answered: the response is too long
        failed UC price.shop failed before it answered: the call failed
        ");
    }

    #[test]
    fn when_to_come_again_is_said_in_whole_seconds() {
        for (millis, seconds) in [(0, "0"), (1, "1"), (1000, "1"), (1001, "2")] {
            let failure = Failure::from(FailureKind::Overloaded);
            let failure = failure.with_retry_after(Duration::from_millis(millis));
            let response = sentence(&failure, &Method::GET);
            assert_eq!(response.headers()[header::RETRY_AFTER], seconds);
        }
    }
}
