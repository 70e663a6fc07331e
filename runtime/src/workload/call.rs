//! A call: admission, the wait for CPU, the instance, and the deadline over all of it.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};

use http::uri::{Authority, PathAndQuery, Scheme, Uri};
use http::{Request, Response, header};
use tokio::time::Instant;
use weft_call::{CallContext, Calling, Failure, FailureKind};

use super::Workload;
use crate::artifact::Wasi;
use crate::body::{self, Body};
use crate::delivery::{CallerGuard, Delivery, body_bytes};
use crate::events::{CallEnd, CallReport};
use crate::failure;
use crate::host::http::CHUNK_BYTES;
use crate::instance::{self, CallSlot, Job, Phase};
use crate::limits::Charge;

impl Workload {
    /// Has the guest answer `request`, on the current thread's runtime.
    ///
    /// A [`CallContext`] among the request's extensions says who calls and until when. Dropping the future, or the
    /// response's body before its end, cancels the call.
    ///
    /// # Errors
    /// Everything that keeps the guest from answering; see [`FailureKind`].
    pub async fn call(&self, request: Request<Body>) -> Result<Response<Body>, Failure> {
        let mut report = self.inner.events().map(CallReport::new);
        let answered = self.answer(request, &mut report).await;
        if let (Some(report), Err(error)) = (&mut report, &answered) {
            report.end = CallEnd::Failed(error.clone());
        }
        answered
    }

    /// A response takes the report with it.
    async fn answer(
        &self,
        request: Request<Body>,
        report: &mut Option<CallReport>,
    ) -> Result<Response<Body>, Failure> {
        let inner = &self.inner;
        if inner.artifact.kind().http.is_none() {
            return Err(failure::not_callable());
        }
        let mut request = absolute(request)?;
        let mut context = request
            .extensions_mut()
            .remove::<CallContext>()
            .unwrap_or_default();
        let ours = instance::after(inner.limits().request_timeout).into_std();
        let deadline = context.deadline.map_or(ours, |theirs| theirs.min(ours));
        context.deadline = Some(deadline);
        inner.counters.requests.fetch_add(1, Relaxed);
        let method = request.method().clone();

        let (slot, answer) = CallSlot::new(Arc::new(context));
        let mut caller = CallerGuard {
            slot,
            phase: Phase::Left,
            report: None,
        };
        let answering = async {
            let permit = self.admit().await?;
            if let Some(debt) = inner.cpu.debt() {
                tokio::time::sleep(debt).await;
            }
            instance::submit(
                inner,
                Job {
                    request,
                    slot: caller.slot.clone(),
                    permit,
                },
            );
            // The other end is gone only if the runtime is being shut down.
            answer
                .await
                .unwrap_or_else(|_| Err(failure::stopped_at_work()))
        };
        match within(deadline.into(), answering).await {
            Some(Ok(response)) => {
                let (head, body) = response.into_parts();
                let body = body::gather(body, inner.gather_rounds).await;
                let response = Response::from_parts(head, body);
                let left = body_bytes(&method, &response);
                let whole = response.body().whole();
                let is_streamed = whole.is_none();
                let whole = whole.filter(|bytes| {
                    let length = bytes.len() as u64;
                    length <= inner.limits().body_bytes && left.is_none_or(|left| left == length)
                });
                let mut chunk = None;
                if is_streamed {
                    caller.slot.stream();
                    chunk = self.chunk(&mut caller)?;
                }
                caller.report = report.take().map(|mut report| {
                    report.end = CallEnd::BrokenOff(response.status());
                    report
                });
                if left == Some(0) || whole.is_some() {
                    caller.phase = Phase::Delivered;
                }
                Ok(response.map(|body| match whole {
                    // Nobody has to wait for any of it.
                    Some(bytes) => Body::full(bytes),
                    None => Body::new(Delivery::new(inner.clone(), body, caller, left, chunk)),
                }))
            }
            Some(Err(error)) => {
                caller.phase = Phase::Delivered;
                match error.kind {
                    FailureKind::Deadline => {
                        inner.counters.deadlines.fetch_add(1, Relaxed);
                    }
                    FailureKind::Trap
                    | FailureKind::OutOfMemory
                    | FailureKind::Exhausted
                    | FailureKind::NoResponse => {
                        if let Some(delay) = inner.account.delay_of_fault() {
                            let until = instance::after(delay).min(deadline.into());
                            tokio::time::sleep_until(until).await;
                        }
                    }
                    _ => {}
                }
                Err(error)
            }
            None => {
                caller.phase = Phase::Expired;
                inner.counters.deadlines.fetch_add(1, Relaxed);
                Err(failure::deadline())
            }
        }
    }

    /// Room for what the host holds of a response of WASI 0.3 that comes in parts. (Those of 0.2 are charged as they are written.)
    fn chunk(&self, caller: &mut CallerGuard) -> Result<Option<Charge>, Failure> {
        let inner = &self.inner;
        if inner.artifact.kind().http != Some(Wasi::P3) {
            return Ok(None);
        }
        match inner.host_bytes.charge(CHUNK_BYTES as u64) {
            Ok(chunk) => Ok(Some(chunk)),
            Err(_) => {
                inner.counters.out_of_memory.fetch_add(1, Relaxed);
                caller.phase = Phase::Expired;
                Err(failure::out_of_memory(inner.memory_limit()))
            }
        }
    }

    pub(crate) async fn admit(&self) -> Result<tokio::sync::OwnedSemaphorePermit, Failure> {
        let inner = &self.inner;
        if inner.draining.is_cancelled() {
            return Err(failure::stopped());
        }
        if let Ok(permit) = inner.places.clone().try_acquire_owned() {
            return Ok(permit);
        }
        let queued = Queued::join(&inner.counters.queued, inner.limits().queued_max);
        let Some(_queued) = queued else {
            inner.counters.overloaded.fetch_add(1, Relaxed);
            return Err(failure::queue_full());
        };
        tokio::select! {
            biased;
            () = inner.draining.cancelled() => Err(failure::stopped()),
            permit = inner.places.clone().acquire_owned() => permit.map_err(|_| failure::stopped()),
        }
    }

    /// The workload as a `tower` service.
    pub fn service(&self) -> WorkloadService {
        WorkloadService {
            workload: self.clone(),
        }
    }
}

/// A place in the queue.
struct Queued<'a>(&'a AtomicU64);

impl<'a> Queued<'a> {
    fn join(queued: &'a AtomicU64, max: usize) -> Option<Queued<'a>> {
        let joined = queued.fetch_update(Relaxed, Relaxed, |queued| {
            (queued < max as u64).then_some(queued + 1)
        });
        joined.is_ok().then(|| Queued(queued))
    }
}

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// The output of `work`, or none when `deadline` comes first. Most calls wait for nothing, and have no timer.
async fn within<T>(deadline: Instant, work: impl Future<Output = T>) -> Option<T> {
    let mut work = pin!(work);
    let first = poll_fn(|cx| Poll::Ready(work.as_mut().poll(cx))).await;
    match first {
        Poll::Ready(output) => Some(output),
        Poll::Pending => tokio::time::timeout_at(deadline, work).await.ok(),
    }
}

/// Guests are told scheme and authority, so a request in origin form gets them from its `Host` header.
pub(crate) fn absolute(request: Request<Body>) -> Result<Request<Body>, Failure> {
    if request.uri().scheme().is_some() && request.uri().authority().is_some() {
        return Ok(request);
    }
    let (mut parts, body) = request.into_parts();
    let mut uri = std::mem::take(&mut parts.uri).into_parts();
    let bad = |reason: String| failure::bad_request(reason);
    if uri.authority.is_none() {
        let authority = match parts.headers.get(header::HOST) {
            Some(host) if !host.is_empty() => Authority::try_from(host.as_bytes())
                .map_err(|error| bad(format!("its Host header is not valid: {error}")))?,
            _ => Authority::from_static("localhost"),
        };
        uri.authority = Some(authority);
    }
    uri.scheme.get_or_insert(Scheme::HTTP);
    uri.path_and_query
        .get_or_insert(PathAndQuery::from_static("/"));
    parts.uri = Uri::from_parts(uri).map_err(|error| bad(error.to_string()))?;
    Ok(Request::from_parts(parts, body))
}

/// A [`Workload`] as a `tower` service. Always ready: admission is part of the call.
#[derive(Clone, Debug)]
pub struct WorkloadService {
    workload: Workload,
}

impl tower::Service<Request<Body>> for WorkloadService {
    type Response = Response<Body>;
    type Error = Failure;
    type Future = Calling<Body>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let workload = self.workload.clone();
        Box::pin(async move { workload.call(request).await })
    }
}
