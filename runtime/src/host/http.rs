//! Outbound HTTP: every `wasi:http` request of a guest leaves through the workload's [`Outbound`] service, or not at all.
//!
//! The request carries the [`CallContext`] of the inbound call it is made for, so that identity, deadline and trace go
//! on by themselves. A failure becomes an error code of wasi:http here, for the guest to read.
//!
//! Invariants: without an outbound service each request is answered `http-request-denied`; no more than
//! `Limits::outbound_max` requests are open at once, each from its start to the end of its response body; none waits
//! longer than the call it is made for, nor longer between two parts of a response than its guest has asked for.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{Request, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Sleep;
use wasmtime::component::{Accessor, HasData, Linker, Resource};
use wasmtime::{AsContextMut, StoreContextMut};
use wasmtime_wasi::TrappableError;
use wasmtime_wasi::p2::bindings::io::error::Error as IoError;
use wasmtime_wasi_http::p2::add_only_http_to_linker_async;
use wasmtime_wasi_http::p2::bindings::http::{outgoing_handler, types as p2};
use wasmtime_wasi_http::p2::types::{HostFutureIncomingResponse, HostOutgoingRequest};
use wasmtime_wasi_http::p3::bindings::http::{client, types};
use wasmtime_wasi_http::{
    Error as WasiError, RequestOptions, WasiBody, WasiHttp, WasiHttpCtxView, WasiHttpHooks,
    WasiHttpView,
};
use weft_call::{CallContext, CallOptions, CallService, Failure, FailureKind};

use crate::body::{Body, BoxError};
use crate::host::shadow::Shadow;
use crate::host::{self, HostState};
use crate::instance::after;
use crate::limits::Charge;
use crate::workload::Inner;

/// Where a workload's outbound requests go: any `tower` service. What it fails with has an error code of wasi:http each; of
/// [`FailureKind`]s, those that an embedder needs most are `Denied`, `UnknownService`, `Unreachable`, `Deadline` and, with a message
/// that the guest reads, `Failed`.
pub type Outbound = CallService<Body>;

/// The code that a guest reads instead of a response.
fn error_code(failure: Failure) -> WasiError {
    use FailureKind as Kind;
    match failure.kind {
        Kind::Denied | Kind::NotGranted => WasiError::HttpRequestDenied,
        Kind::UnknownService | Kind::UnknownHost | Kind::NoRoute => WasiError::DestinationNotFound,
        Kind::InvalidBackend
        | Kind::NoEndpoints
        | Kind::Overloaded
        | Kind::NoInstance
        | Kind::Crowded => WasiError::DestinationUnavailable,
        Kind::Unreachable
        | Kind::NotTaken
        | Kind::NotHere
        | Kind::NotLoaded
        | Kind::NotCallable
        | Kind::Stopped
        | Kind::Lost
            if failure.never_processed() =>
        {
            WasiError::ConnectionRefused
        }
        Kind::Deadline | Kind::TryTimeout => WasiError::HttpResponseTimeout,
        // Its own: of a callee that is full, it is said that it is unavailable.
        Kind::LimitReached => WasiError::ConnectionLimitReached,
        Kind::LoopDetected => WasiError::LoopDetected,
        Kind::BadRequest | Kind::HeadTooLarge | Kind::BodyBroken | Kind::Malformed => {
            WasiError::HttpProtocolError
        }
        // "Destination not found" has no room for what is there instead.
        Kind::UnknownPort
        | Kind::Unreachable
        | Kind::NotTaken
        | Kind::NotHere
        | Kind::NotLoaded
        | Kind::NotCallable
        | Kind::Stopped
        | Kind::Lost
        | Kind::Interrupted
        | Kind::Trap
        | Kind::OutOfMemory
        | Kind::Exhausted
        | Kind::NoResponse
        | Kind::GuestError
        | Kind::BadResponse
        | Kind::BodyTooLarge
        | Kind::Failed => WasiError::InternalError(Some(failure.message.into_owned())),
    }
}

/// The error a body ended with, as the guest is going to read it.
pub(crate) fn body_error(error: BoxError) -> WasiError {
    use FailureKind as Kind;
    let failure = match error.downcast::<Failure>() {
        Ok(failure) => *failure,
        Err(error) => return WasiError::InternalError(Some(error.to_string())),
    };
    match failure.kind {
        Kind::BadResponse => WasiError::HttpProtocolError,
        // Another guest's response, or the way of it, which broke off.
        Kind::Stopped
        | Kind::Lost
        | Kind::Interrupted
        | Kind::Trap
        | Kind::OutOfMemory
        | Kind::Exhausted
        | Kind::NoResponse
        | Kind::GuestError
        | Kind::BodyTooLarge => WasiError::HttpResponseIncomplete,
        _ => error_code(failure),
    }
}

/// The longest an outbound request may wait for its response head when nothing shorter was asked for.
pub(crate) const HEAD_TIMEOUT: Duration = Duration::from_secs(60);
/// The largest chunk that a guest writes at once. The host holds two for each body of WASI 0.2 and one for each of 0.3, charged to
/// the guest's memory.
pub(crate) const CHUNK_BYTES: usize = 64 << 10;
/// Chunks that wait beside the one that is being read; the interface's functions want at least one.
const CHUNKS_WAITING: usize = 1;

/// The host's side of a store's outbound requests.
pub(crate) struct Hooks {
    workload: Arc<Inner>,
    /// The inbound call that the next request belongs to.
    pub(crate) context: Option<Arc<CallContext>>,
    /// What the guest asks for of the next request.
    asked: CallOptions,
    /// The chunk that the body of the next request may hold.
    chunk: Option<Charge>,
}

impl Hooks {
    pub(crate) fn new(workload: &Arc<Inner>) -> Hooks {
        Hooks {
            workload: workload.clone(),
            context: None,
            asked: CallOptions::default(),
            chunk: None,
        }
    }
}

type Verdict = Box<dyn Future<Output = Result<(), WasiError>> + Send>;

impl WasiHttpHooks for Hooks {
    fn send_request(
        &mut self,
        request: Request<WasiBody>,
        options: Option<RequestOptions>,
        _verdict: Verdict,
    ) -> Box<dyn Future<Output = Result<(Response<WasiBody>, Verdict), WasiError>> + Send> {
        let (chunk, asked) = (self.chunk.take(), std::mem::take(&mut self.asked));
        let Some(outbound) = self.workload.outbound() else {
            return Box::new(std::future::ready(Err(WasiError::HttpRequestDenied)));
        };
        let Ok(permit) = self.workload.outbound_permits().clone().try_acquire_owned() else {
            return Box::new(std::future::ready(Err(WasiError::ConnectionLimitReached)));
        };
        self.workload
            .counters()
            .outbound_requests
            .fetch_add(1, Relaxed);
        let (mut context, now) = (
            self.context.as_deref().cloned().unwrap_or_default(),
            Instant::now(),
        );
        asked.bound(&mut context, now);
        let patience = patience(options.as_ref(), context.deadline, now);
        let between = options.and_then(|options| options.between_bytes_timeout);
        let (mut parts, body) = request.into_parts();
        parts.extensions.insert(context);
        if asked != CallOptions::default() {
            parts.extensions.insert(asked);
        }
        let sent = Sent {
            body,
            bytes: 0,
            _chunk: chunk,
        };
        let request = Request::from_parts(parts, Body::new(sent));
        let sending = outbound.answer(request);
        Box::new(async move {
            let response = tokio::time::timeout(patience, sending)
                .await
                .map_err(|_| WasiError::HttpResponseTimeout)?
                .map_err(error_code)?;
            let response = response.map(|body| {
                Held {
                    body,
                    between,
                    timer: None,
                    _permit: permit,
                }
                .boxed_unsync()
            });
            Ok((response, Box::new(std::future::ready(Ok(()))) as Verdict))
        })
    }

    // Inside a cluster, plain names are the rule; the mesh encrypts between nodes on its own.
    fn default_scheme(&mut self) -> Option<http::uri::Scheme> {
        Some(http::uri::Scheme::HTTP)
    }

    fn p2_outgoing_body_buffer_chunks(&mut self) -> usize {
        CHUNKS_WAITING
    }

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        CHUNK_BYTES
    }

    fn p3_outgoing_body_chunk_size(&mut self) -> usize {
        CHUNK_BYTES
    }
}

/// How long to wait for the response head: what the guest asked for, but never beyond the call it works on.
fn patience(options: Option<&RequestOptions>, deadline: Option<Instant>, now: Instant) -> Duration {
    let asked = options.map(|options| {
        options
            .connect_timeout
            .unwrap_or_default()
            .saturating_add(options.first_byte_timeout.unwrap_or(HEAD_TIMEOUT))
    });
    let left = deadline.map_or(HEAD_TIMEOUT, |deadline| {
        deadline.saturating_duration_since(now)
    });
    asked.map_or(left, |asked| asked.min(left))
}

/// A request body on its way out of a guest. One that is shorter than its content-length breaks: wasmtime 48 keeps count, but
/// loses the error when the last chunk has not been read yet.
struct Sent {
    body: WasiBody,
    bytes: u64,
    _chunk: Option<Charge>,
}

impl HttpBody for Sent {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(frame) = &polled {
            let missing = self.body.size_hint().exact().is_some_and(|left| left > 0);
            let over = match frame {
                Some(Ok(frame)) => !frame.is_data(),
                Some(Err(_)) => false,
                None => true,
            };
            if over && missing {
                let short = WasiError::HttpRequestBodySize(Some(self.bytes));
                return Poll::Ready(Some(Err(Box::new(short))));
            }
            if let Some(Ok(frame)) = frame {
                self.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
            }
        }
        polled.map_err(|error| Box::new(error) as BoxError)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A response body that holds its request's place until it is done with, and breaks off when it pauses for too long.
struct Held {
    body: Body,
    /// The longest pause that the guest waits for.
    between: Option<Duration>,
    timer: Option<Pin<Box<Sleep>>>,
    _permit: OwnedSemaphorePermit,
}

impl HttpBody for Held {
    type Data = Bytes;
    type Error = WasiError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, WasiError>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx).map_err(body_error);
        let Some(between) = self.between else {
            return polled;
        };
        if polled.is_ready() {
            self.timer = None;
            return polled;
        }
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(after(between))));
        let paused = timer.as_mut().poll(cx);
        paused.map(|()| Some(Err(WasiError::ConnectionReadTimeout)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// `wasi:http/client` of WASI 0.3, which first finds out for which inbound call the guest is sending.
struct Client;

impl HasData for Client {
    type Data<'a> = WasiHttpCtxView<'a>;
}

impl client::HostWithStore<HostState> for Client {
    async fn send(
        accessor: &Accessor<HostState, Self>,
        request: Resource<types::Request>,
    ) -> Result<Resource<types::Response>, TrappableError<types::ErrorCode>> {
        accessor
            .with(|mut access| {
                let mut store = access.as_context_mut();
                let task = host::task(&mut store)?;
                let state = store.data_mut();
                state.hooks.context = state.call_of(task);
                state.hooks.asked = state.take_options(task);
                state.hooks.chunk = Some(state.memory.host().charge(CHUNK_BYTES as u64)?);
                let request = store.data_mut().table_mut().get_mut(&request)?;
                if request.authority.is_some() {
                    let path = &mut request.path_with_query;
                    path.get_or_insert_with(|| PathAndQuery::from_static(NO_PATH));
                }
                Ok(())
            })
            .map_err(|error: wasmtime::Error| TrappableError::trap(error))?;
        // The hook runs in the first poll, before another task of this store can change the context.
        let accessor = accessor.with_getter::<WasiHttp>(HostState::http);
        <WasiHttp as client::HostWithStore<HostState>>::send(&accessor, request).await
    }
}

/// An empty path, as it has to be written in a request.
const NO_PATH: &str = "/";

/// `wasi:http` of WASI 0.2, with two functions of ours that do what the interface says where wasmtime 48 does not.
pub(super) fn link_p2(linker: &mut Linker<HostState>) -> wasmtime::Result<()> {
    add_only_http_to_linker_async(linker)?;
    Shadow::new(linker, "wasi:http/outgoing-handler@0.2.12").func_wrap("handle", handle_p2)?;
    Shadow::new(linker, "wasi:http/types@0.2.12").func_wrap("http-error-code", error_code_p2)
}

/// "When `none`, this represents an empty Path and empty Query": not a request that cannot be sent.
fn handle_p2(
    mut store: StoreContextMut<'_, HostState>,
    (request, options): (
        Resource<HostOutgoingRequest>,
        Option<Resource<RequestOptions>>,
    ),
) -> wasmtime::Result<(Result<Resource<HostFutureIncomingResponse>, p2::ErrorCode>,)> {
    let task = host::task(&mut store)?;
    let state = store.data_mut();
    if !state.is_serial() {
        // A component of WASI 0.3 may send by this interface, too.
        state.hooks.context = state.call_of(task);
    }
    state.hooks.asked = state.take_options(task);
    let mut view = store.data_mut().http();
    let asked = view.table.get_mut(&request)?;
    if asked.authority.is_some() {
        asked
            .path_with_query
            .get_or_insert_with(|| NO_PATH.to_owned());
    }
    Ok((
        match outgoing_handler::Host::handle(&mut view, request, options) {
            Ok(response) => Ok(response),
            Err(error) => Err(error.downcast()?),
        },
    ))
}

/// The error that a body ended with. (wasmtime looks for a type that its streams stopped carrying in 48.)
fn error_code_p2(
    mut store: StoreContextMut<'_, HostState>,
    (error,): (Resource<IoError>,),
) -> wasmtime::Result<(Option<p2::ErrorCode>,)> {
    let error = store.data_mut().table_mut().get(&error)?;
    let code = error.downcast_ref().map(|error| match error {
        WasiError::HttpRequestDenied => p2::ErrorCode::HttpRequestDenied,
        WasiError::DestinationNotFound => p2::ErrorCode::DestinationNotFound,
        WasiError::DestinationUnavailable => p2::ErrorCode::DestinationUnavailable,
        WasiError::ConnectionRefused => p2::ErrorCode::ConnectionRefused,
        WasiError::HttpResponseTimeout => p2::ErrorCode::HttpResponseTimeout,
        WasiError::ConnectionReadTimeout => p2::ErrorCode::ConnectionReadTimeout,
        WasiError::ConnectionLimitReached => p2::ErrorCode::ConnectionLimitReached,
        WasiError::LoopDetected => p2::ErrorCode::LoopDetected,
        WasiError::HttpProtocolError => p2::ErrorCode::HttpProtocolError,
        WasiError::HttpResponseIncomplete => p2::ErrorCode::HttpResponseIncomplete,
        WasiError::HttpRequestBodySize(bytes) => p2::ErrorCode::HttpRequestBodySize(*bytes),
        other => p2::ErrorCode::InternalError(Some(other.to_string())),
    });
    Ok((code,))
}

pub(super) fn link_p3(linker: &mut Linker<HostState>) -> wasmtime::Result<()> {
    client::add_to_linker::<HostState, Client>(linker, HostState::http)?;
    types::add_to_linker::<HostState, WasiHttp>(linker, HostState::http)
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;

    use super::*;

    #[test]
    fn a_request_never_outlives_the_call_it_is_made_for() {
        let now = Instant::now();
        let seconds = Duration::from_secs;
        let options = |first_byte| RequestOptions {
            connect_timeout: Some(seconds(1)),
            first_byte_timeout: first_byte,
            between_bytes_timeout: None,
        };
        for (asked, deadline, expected) in [
            (None, None, HEAD_TIMEOUT),
            (None, Some(now + seconds(5)), seconds(5)),
            (None, Some(now), Duration::ZERO),
            (
                Some(options(Some(seconds(2)))),
                Some(now + seconds(5)),
                seconds(3),
            ),
            (
                Some(options(Some(seconds(9)))),
                Some(now + seconds(5)),
                seconds(5),
            ),
            (Some(options(Some(Duration::MAX))), None, HEAD_TIMEOUT),
            (Some(options(None)), None, HEAD_TIMEOUT),
        ] {
            assert_eq!(
                patience(asked.as_ref(), deadline, now),
                expected,
                "{asked:?} {deadline:?}"
            );
        }
    }

    #[test]
    fn what_a_guest_reads_of_a_failure() {
        use FailureKind as Kind;
        use weft_call::Processed;
        let lost = |processed| Failure::from(Kind::Lost).with_processed(processed);
        let port = "service links.short has no port 8081; it has 80";
        for (failure, code) in [
            (Kind::Denied.into(), "HttpRequestDenied"),
            (Kind::UnknownService.into(), "DestinationNotFound"),
            // WASI's "destination not found" has no room for what is there instead.
            (
                Failure::new(Kind::UnknownPort, port),
                "InternalError(Some(\"service links.short has no port 8081; it has 80\"))",
            ),
            (Kind::Unreachable.into(), "ConnectionRefused"),
            (lost(Processed::No), "ConnectionRefused"),
            (
                lost(Processed::Maybe),
                "InternalError(Some(\"the guest's process is gone\"))",
            ),
            (Kind::Deadline.into(), "HttpResponseTimeout"),
            (Kind::LoopDetected.into(), "LoopDetected"),
            (Kind::Malformed.into(), "HttpProtocolError"),
            // Who is full is another thing than who has too many requests open.
            (Kind::Overloaded.into(), "DestinationUnavailable"),
            (Kind::LimitReached.into(), "ConnectionLimitReached"),
        ] {
            let kind = failure.kind;
            assert_eq!(format!("{:?}", error_code(failure)), code, "{kind}");
        }
        for (kind, code) in [
            (Kind::Trap, "HttpResponseIncomplete"),
            (Kind::Interrupted, "HttpResponseIncomplete"),
            (Kind::BadResponse, "HttpProtocolError"),
            (Kind::Deadline, "HttpResponseTimeout"),
        ] {
            let error = body_error(Box::new(Failure::from(kind)));
            assert_eq!(format!("{error:?}"), code, "a body that ended: {kind}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_response_that_pauses_longer_than_its_guest_waits_breaks_off() {
        let place = Arc::new(tokio::sync::Semaphore::new(2));
        let held = |between: Option<Duration>| {
            let frames = futures::stream::iter([Ok(Frame::data(Bytes::from_static(b"a")))]);
            let body = http_body_util::StreamBody::new(frames.chain(futures::stream::pending()));
            Held {
                body: Body::new(body),
                between,
                timer: None,
                _permit: place.clone().try_acquire_owned().expect("there is a place"),
            }
        };
        let mut patient = held(None);
        assert!(patient.frame().await.expect("a frame").is_ok());
        assert!(futures::poll!(patient.frame()).is_pending());
        let mut body = held(Some(Duration::from_secs(5)));
        assert!(body.frame().await.expect("a frame").is_ok());
        let since = tokio::time::Instant::now();
        let error = body.frame().await.expect("no end").expect_err("a pause");
        assert!(
            matches!(error, WasiError::ConnectionReadTimeout),
            "{error:?}"
        );
        assert_eq!(since.elapsed().as_secs(), 5);
    }
}
