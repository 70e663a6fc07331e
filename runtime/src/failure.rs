//! The failures that happen here, each in its words. What is meant by a kind is said in [`weft_call`].
//!
//! Invariant: what a guest may have seen is never said to be unprocessed, whatever the host ran out of meanwhile.

use std::fmt::Display;

use weft_call::{Blame, Failure, FailureKind, Processed};

use crate::account::Refusal;
use crate::limits::Limits;

/// The workload is at its limit of calls, and its queue is full.
pub(crate) fn queue_full() -> Failure {
    Failure::new(
        FailureKind::Overloaded,
        "the workload is at its limit of calls, and its queue is full",
    )
}

/// More calls are on their way to the worker process than one connection carries.
pub(crate) fn lane_full() -> Failure {
    Failure::new(
        FailureKind::Overloaded,
        "the way to the worker process is full",
    )
}

/// Its account has all that it may have.
pub(crate) fn refused(refusal: &Refusal) -> Failure {
    no_instance(refusal)
}

/// The engine has nothing left, or the account may have no more. Nothing was started.
pub(crate) fn no_instance(reason: impl Display) -> Failure {
    Failure::new(
        FailureKind::NoInstance,
        format!("there is no room for an instance: {reason}"),
    )
}

/// Other instances have all the memory that the workload may have. Nothing was started.
pub(crate) fn no_memory_left(limit: u64) -> Failure {
    no_instance(format_args!(
        "those at work have the {limit} bytes of memory that all may have together"
    ))
}

/// The host ran out of what the guest needed to go on. The call was at work, and may have had effects.
pub(crate) fn exhausted(reason: impl Display) -> Failure {
    Failure::new(
        FailureKind::Exhausted,
        format!("the guest could not go on: {reason}"),
    )
}

/// The workload is being stopped, and the call has not begun.
pub(crate) fn stopped() -> Failure {
    FailureKind::Stopped.into()
}

/// The workload is being stopped, and with it the call.
pub(crate) fn stopped_at_work() -> Failure {
    stopped()
        .with_blame(Blame::Endpoint)
        .with_processed(Processed::Maybe)
}

pub(crate) fn deadline() -> Failure {
    FailureKind::Deadline.into()
}

pub(crate) fn body_too_large(limits: &Limits) -> Failure {
    let limit = limits.body_bytes;
    Failure::new(
        FailureKind::BodyTooLarge,
        format!("the response has more than {limit} bytes, the most that a body may have"),
    )
}

/// Less came than the response's head said, or more.
pub(crate) fn body_length() -> Failure {
    FailureKind::BadResponse.into()
}

/// `backtrace`: the guest's stack, one frame a line.
pub(crate) fn trap(message: &str, backtrace: String) -> Failure {
    let failure = Failure::new(FailureKind::Trap, format!("the guest trapped: {message}"));
    match backtrace.is_empty() {
        true => failure,
        false => failure.with_detail(backtrace),
    }
}

pub(crate) fn out_of_memory(limit: u64) -> Failure {
    Failure::new(
        FailureKind::OutOfMemory,
        format!("the guest ran out of memory: its limit is {limit} bytes"),
    )
}

/// The guest itself answered with an error code of wasi:http.
pub(crate) fn guest_error(code: impl Display) -> Failure {
    Failure::new(
        FailureKind::GuestError,
        format!("the guest answered with the error {code}"),
    )
}

pub(crate) fn no_response() -> Failure {
    FailureKind::NoResponse.into()
}

/// The worker process that had the guest is gone: it `reason`.
pub(crate) fn lost(reason: impl Display, processed: Processed) -> Failure {
    let failure = Failure::new(
        FailureKind::Lost,
        format!("the guest's worker process {reason}"),
    );
    match processed {
        // Whoever looks for it there will not find it.
        Processed::No => failure.with_blame(Blame::Connection),
        Processed::Maybe | Processed::Yes => failure,
    }
    .with_processed(processed)
}

/// Its machine code was unloaded for want of calls and cannot be had again. Nothing was started.
pub(crate) fn not_loaded(reason: impl Display) -> Failure {
    Failure::new(
        FailureKind::NotLoaded,
        format!("the component's code cannot be loaded: {reason}"),
    )
}

pub(crate) fn not_callable() -> Failure {
    FailureKind::NotCallable.into()
}

pub(crate) fn bad_request(reason: impl Display) -> Failure {
    Failure::new(
        FailureKind::BadRequest,
        format!("the request cannot be passed to a guest: {reason}"),
    )
}
