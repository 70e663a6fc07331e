//! A response's body on its way from the guest to whoever called it.
//!
//! Invariants: a body is no longer than it may be, pauses no longer than it may, and breaks off with the reason; the instance learns
//! at once that its caller is done, however that comes about.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Method, Response, StatusCode, header};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::Sleep;
use weft_call::Failure;

use crate::body::{BoxError, Gathered};
use crate::events::{CallEnd, CallReport};
use crate::failure;
use crate::instance::{self, CallSlot, GuestBody, Phase};
use crate::limits::Charge;
use crate::workload::Inner;

/// Tells the instance when its caller is done, however that comes about.
pub(crate) struct CallerGuard {
    pub(crate) slot: Arc<CallSlot>,
    pub(crate) phase: Phase,
    /// Of a call that was answered.
    pub(crate) report: Option<CallReport>,
}

impl Drop for CallerGuard {
    fn drop(&mut self) {
        if let Some(report) = &mut self.report
            && self.phase == Phase::Delivered
            && let CallEnd::BrokenOff(status) = report.end
        {
            report.end = CallEnd::Answered(status);
        }
        self.slot.close(self.phase);
    }
}

/// A response's body on its way to the caller.
pub(crate) struct Delivery {
    workload: Arc<Inner>,
    body: Gathered<GuestBody>,
    caller: CallerGuard,
    /// Bytes still to come, when that is known: whoever reads them does not ask for an end.
    left: Option<u64>,
    /// Bytes that may still come.
    allowed: u64,
    timer: Option<Pin<Box<Sleep>>>,
    /// What the host holds of it meanwhile.
    _chunk: Option<Charge>,
}

impl Delivery {
    /// `left` bytes, as far as that is known, of which the caller gets as many as a body may have.
    pub(crate) fn new(
        workload: Arc<Inner>,
        body: Gathered<GuestBody>,
        caller: CallerGuard,
        left: Option<u64>,
        chunk: Option<Charge>,
    ) -> Delivery {
        Delivery {
            allowed: workload.limits().body_bytes,
            workload,
            body,
            caller,
            left,
            timer: None,
            _chunk: chunk,
        }
    }

    /// The guest has gone too far with this response, and gets no further.
    fn break_off(&mut self, fault: Failure) -> Result<Frame<Bytes>, BoxError> {
        self.caller.phase = Phase::Expired;
        self.caller.slot.overrun(&self.workload, &fault);
        // At once: who holds a body that broke off holds nothing else.
        self.caller.slot.close(Phase::Expired);
        Err(Box::new(fault))
    }
}

impl HttpBody for Delivery {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.caller.slot.read();
        match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(frame) => {
                self.timer = None;
                if frame.is_none() && self.left.is_some_and(|left| left > 0) {
                    // Less than its head promised.
                    return Poll::Ready(Some(Err(Box::new(failure::body_length()))));
                }
                if let Some(Ok(frame)) = &frame {
                    let bytes = frame.data_ref().map_or(0, Bytes::len) as u64;
                    let Some(allowed) = self.allowed.checked_sub(bytes) else {
                        let fault = failure::body_too_large(self.workload.limits());
                        return Poll::Ready(Some(self.break_off(fault)));
                    };
                    self.allowed = allowed;
                    if let Some(left) = &mut self.left {
                        *left = left.saturating_sub(bytes);
                    }
                }
                if frame.is_none() || self.left == Some(0) || self.body.is_end_stream() {
                    self.caller.phase = Phase::Delivered;
                }
                Poll::Ready(frame)
            }
            Poll::Pending => {
                let idle = self.workload.limits().body_idle_timeout;
                let timer = self.timer.get_or_insert_with(|| {
                    Box::pin(tokio::time::sleep_until(instance::after(idle)))
                });
                if timer.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
                Poll::Ready(Some(self.break_off(failure::deadline())))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// How long the body will be, as far as the head tells.
pub(crate) fn body_bytes<B>(method: &Method, response: &Response<B>) -> Option<u64> {
    let none = [StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED];
    if *method == Method::HEAD || none.contains(&response.status()) {
        return Some(0);
    }
    response
        .headers()
        .get(header::CONTENT_LENGTH)?
        .to_str()
        .ok()?
        .parse()
        .ok()
}
