//! What both ends of a lane agree on: headers, errors inside bodies, limits of the connections.
//!
//! An error ends a body as a trailer, so that it arrives with its type; the protocol itself could only say that the
//! stream was reset.
//!
//! The node trusts a worker with nothing: what it holds for one is bounded at its own end ([`Side::Node`]), whatever the worker's
//! end does.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, Version};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::net::UnixStream;
use tokio::sync::OwnedSemaphorePermit;
use weft_call::{Aside, CallContext, CallOptions, Failure, FailureKind, FrozenContext, Spent};

use crate::body::{Body, BoxError};
use crate::command::Exit;

/// Calls or outbound requests in flight on one lane; the next one is refused as too many.
pub(super) const STREAMS_MAX: usize = 4096;
/// The same, for the protocol: the streams of outputs, runs and stops come on top.
const PROTOCOL_STREAMS_MAX: u32 = 1 << 16;
/// What one body may have under way.
const STREAM_WINDOW_BYTES: u32 = 64 << 10;
const FRAME_BYTES: u32 = 64 << 10;
/// Guests have limits of their own for headers, of 64 KiB; this only has to be above all of them.
const HEADER_BYTES_MAX: u32 = 256 << 10;
/// Streams that were reset a moment ago and may still hear from the other side.
const RESET_STREAMS_MAX: usize = 1 << 16;

/// The end of a connection that is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Node,
    Worker,
}

impl Side {
    /// What all bodies on one connection may have under way towards this side. In a worker streams bound themselves, and one that
    /// nobody reads must not hold up the others. The node holds a thousand such streams of one lane; beyond that, guests of one
    /// worker wait for each other.
    fn connection_window_bytes(self) -> u32 {
        match self {
            Side::Node => 64 << 20,
            Side::Worker => (1 << 31) - 1,
        }
    }

    /// Streams that the other side may open.
    fn streams_max(self) -> u32 {
        match self {
            // Of guests' requests, of which the worker itself opens no more.
            Side::Node => STREAMS_MAX as u32,
            Side::Worker => PROTOCOL_STREAMS_MAX,
        }
    }

    /// Streams that the other side may open and give up before they are looked at. Callers that leave do that, many at once.
    fn given_up_max(self) -> usize {
        match self {
            Side::Node => STREAMS_MAX,
            Side::Worker => RESET_STREAMS_MAX,
        }
    }

    /// Streams that the other side may break the protocol on before the connection ends.
    fn broken_max(self) -> Option<usize> {
        match self {
            Side::Node => Some(1024),
            Side::Worker => None,
        }
    }
}

/// A side that says nothing for this long is asked whether it is there, and then has [`ANSWER_WITHIN`].
const ASK_AFTER: Duration = Duration::from_secs(10);
const ANSWER_WITHIN: Duration = Duration::from_secs(20);
/// Answers that are not bodies of guests: errors with backtraces, of which there may be as many as calls,
pub(super) const ERROR_BYTES_MAX: usize = 256 << 10;
/// and what all workloads use, of which there is one.
pub(super) const USAGE_BYTES_MAX: usize = 4 << 20;

pub(super) const WORKLOAD: HeaderName = HeaderName::from_static("weft-worker-workload");
pub(super) const TASK: HeaderName = HeaderName::from_static("weft-worker-task");
const CHANNEL: HeaderName = HeaderName::from_static("weft-worker-channel");
const CONTEXT: HeaderName = HeaderName::from_static("weft-worker-context");
const FAILED: HeaderName = HeaderName::from_static("weft-worker-failed");
/// What a guest asks for of a request of its own.
const ASKED: HeaderName = HeaderName::from_static("weft-worker-asked");
/// What a guest tells beside its answer.
const ASIDE: HeaderName = HeaderName::from_static("weft-worker-aside");

/// What a request to the worker asks for; `call` when it does not say.
pub(super) const BUILD: &str = "build";
pub(super) const RUN: &str = "run";
/// A run with streams.
pub(super) const SESSION: &str = "session";
pub(super) const RESIZE: &str = "resize";
pub(super) const STOP: &str = "stop";
pub(super) const USAGE: &str = "usage";

/// An answer, and how many bytes the workload had printed by then: whoever reads both sees them in that order.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Told<T> {
    pub(super) what: T,
    pub(super) output: u64,
}

pub(super) type RunEnd = Told<Exit>;
pub(super) type Refused = Told<Failure>;

pub(super) type Sender = hyper::client::conn::http2::SendRequest<Outward>;

/// Opens the asking end of a connection; what it returns drives it, and ends with it. Call it on the core to be used, with a
/// socket that does not block.
pub(super) async fn ask(
    socket: std::os::unix::net::UnixStream,
    side: Side,
) -> Result<(Sender, impl Future<Output = hyper::Result<()>>), BoxError> {
    let io = TokioIo::new(UnixStream::from_std(socket)?);
    let connected = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(side.connection_window_bytes())
        .max_frame_size(FRAME_BYTES)
        .max_header_list_size(HEADER_BYTES_MAX)
        .max_send_buf_size(STREAM_WINDOW_BYTES as usize)
        .max_concurrent_reset_streams(RESET_STREAMS_MAX)
        .max_local_error_reset_streams(side.broken_max())
        .keep_alive_interval(ASK_AFTER)
        .keep_alive_timeout(ANSWER_WITHIN)
        .handshake(io)
        .await?;
    Ok(connected)
}

/// The answering end, until the connection ends. The socket does not block.
pub(super) async fn answer<S>(
    socket: std::os::unix::net::UnixStream,
    side: Side,
    service: S,
) -> Result<(), BoxError>
where
    S: hyper::service::Service<
            Request<Incoming>,
            Response = Response<Outward>,
            Error = std::convert::Infallible,
        >,
    S::Future: Send + 'static,
{
    let io = TokioIo::new(UnixStream::from_std(socket)?);
    hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(side.connection_window_bytes())
        .max_frame_size(FRAME_BYTES)
        .max_header_list_size(HEADER_BYTES_MAX)
        .max_send_buf_size(STREAM_WINDOW_BYTES as usize)
        .max_concurrent_streams(side.streams_max())
        .max_pending_accept_reset_streams(side.given_up_max())
        .max_local_error_reset_streams(side.broken_max())
        // What the guest did not say is not said for it.
        .auto_date_header(false)
        .serve_connection(io, service)
        .await?;
    Ok(())
}

/// Makes a request of `workload` ready for the lane.
pub(super) fn dress(
    request: Request<Body>,
    workload: u64,
    context: CallContext,
    now: Instant,
) -> Result<Request<Outward>, BoxError> {
    let mut context = HeaderValue::from_bytes(&serde_json::to_vec(&context.freeze(now))?)?;
    // Each is different: remembering them for compression would only push out what repeats.
    context.set_sensitive(true);
    let (mut parts, body) = request.into_parts();
    let asked = parts.extensions.remove::<CallOptions>();
    parts.extensions.clear();
    parts.version = Version::HTTP_2;
    for name in [TASK, CHANNEL, FAILED, ASKED, ASIDE] {
        parts.headers.remove(name);
    }
    parts.headers.insert(WORKLOAD, workload.into());
    parts.headers.insert(CONTEXT, context);
    if let Some(asked) = asked {
        let asked = serde_json::to_vec(&asked)?;
        parts
            .headers
            .insert(ASKED, HeaderValue::from_bytes(&asked)?);
    }
    Ok(Request::from_parts(parts, Outward::new(body)))
}

/// Takes the request out of what came over the lane.
pub(super) fn undress(request: Request<Incoming>, now: Instant) -> (Request<Body>, CallContext) {
    let (mut parts, body) = request.into_parts();
    parts.version = Version::HTTP_11;
    parts.headers.remove(WORKLOAD);
    let context = parts.headers.remove(CONTEXT);
    let context = context
        .and_then(|context| serde_json::from_slice::<FrozenContext>(context.as_bytes()).ok())
        .map(|context| context.thaw(now));
    let asked = parts.headers.remove(ASKED);
    if let Some(asked) = asked
        && let Ok(asked) = serde_json::from_slice::<CallOptions>(asked.as_bytes())
    {
        parts.extensions.insert(asked);
    }
    let request = Request::from_parts(
        parts,
        Body::new(Inward::new(body, (), |error| error.into())),
    );
    (request, context.unwrap_or_default())
}

/// A message to the node's half of a capability.
pub(super) fn message(
    workload: u64,
    capability: &str,
    method: &str,
    message: Body,
) -> Result<Request<Outward>, BoxError> {
    let mut request = Request::post("http://node/").body(Outward::new(message))?;
    let headers = request.headers_mut();
    headers.insert(WORKLOAD, workload.into());
    headers.insert(CHANNEL, format!("{capability} {method}").parse()?);
    Ok(request)
}

/// The capability and the method that a message is for; none for a request of HTTP.
pub(super) fn channel_of(headers: &HeaderMap) -> Option<(String, String)> {
    let channel = headers.get(CHANNEL)?.to_str().unwrap_or_default();
    let (capability, method) = channel.split_once(' ').unwrap_or_default();
    Some((capability.to_owned(), method.to_owned()))
}

/// The body of a message, whose other end is not trusted.
pub(super) fn body_of(message: Request<Incoming>) -> Body {
    Body::new(Inward::new(message.into_body(), (), Into::into))
}

/// The workload a request is about.
pub(super) fn workload_of(headers: &HeaderMap) -> Option<u64> {
    headers.get(WORKLOAD)?.to_str().ok()?.parse().ok()
}

pub(super) fn task_of(headers: &HeaderMap) -> Option<&str> {
    headers.get(TASK)?.to_str().ok()
}

/// A response of the guest's or the network's, for the lane; it holds its `places` until its body is done with.
pub(super) fn delivered(
    response: Response<Body>,
    places: Vec<OwnedSemaphorePermit>,
) -> Response<Outward> {
    let mut response = response.map(|body| Outward {
        _places: places,
        ..Outward::new(body)
    });
    for name in [FAILED, ASIDE] {
        response.headers_mut().remove(name);
    }
    response
}

/// Says on an answer what its guest has told beside it.
pub(super) fn tell_aside(told: &Spent, lines: &mut HeaderMap) {
    let aside = told.aside();
    let aside = aside.and_then(|aside| serde_json::to_string(&aside).ok());
    // A value that is no ASCII is told as JSON escapes it, or not at all.
    let aside = aside.map(|aside| escaped(&aside));
    if let Some(aside) = aside.and_then(|aside| HeaderValue::from_str(&aside).ok()) {
        lines.insert(ASIDE, aside);
    }
}

/// JSON without a byte that no header can have.
fn escaped(json: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(json.len());
    for char in json.chars() {
        if matches!(char, ' '..='~') {
            out.push(char);
            continue;
        }
        for unit in char.encode_utf16(&mut [0; 2]) {
            // Writing to a String cannot fail.
            let _ = write!(out, "\\u{unit:04x}");
        }
    }
    out
}

/// Tells here what a worker's guest has told there, as far as a guest may.
pub(super) fn take_aside(lines: &mut HeaderMap, told: Option<&Spent>) {
    let aside = lines.remove(ASIDE);
    let aside = aside.and_then(|aside| serde_json::from_slice::<Aside>(aside.as_bytes()).ok());
    if let (Some(aside), Some(told)) = (aside, told) {
        told.told(&aside);
    }
}

/// Instead of a response.
pub(super) fn failed(error: &impl Serialize) -> Response<Outward> {
    let mut response = said(error);
    response
        .headers_mut()
        .insert(FAILED, HeaderValue::from_static("1"));
    response
}

/// An answer that is a document.
pub(super) fn said(document: &impl Serialize) -> Response<Outward> {
    // Plain data with names as keys is always representable.
    let text = serde_json::to_vec(document).unwrap_or_default();
    Response::new(Outward::new(Body::full(text)))
}

pub(super) fn has_failed<B>(response: &Response<B>) -> bool {
    response.headers().contains_key(FAILED)
}

/// The document in an answer, of at most `bytes_max`.
pub(super) async fn read<T: DeserializeOwned>(
    response: Response<Incoming>,
    bytes_max: usize,
) -> Result<T, BoxError> {
    let body = http_body_util::Limited::new(response.into_body(), bytes_max);
    Ok(serde_json::from_slice(&body.collect().await?.to_bytes())?)
}

/// A response as whoever sent the request expects it; `held` lives as long as its body, and `broken` says what it means
/// when that ends without an end.
pub(super) fn arrived<T: Send + Unpin + 'static>(
    response: Response<Incoming>,
    held: T,
    broken: fn(hyper::Error) -> BoxError,
) -> Response<Body> {
    let mut response = response.map(|body| Body::new(Inward::new(body, held, broken)));
    *response.version_mut() = Version::HTTP_11;
    response
}

/// Why a body ended early; of what is none of ours, the text.
fn failure_of(error: BoxError) -> Failure {
    match error.downcast::<Failure>() {
        Ok(failure) => *failure,
        Err(error) => Failure::new(FailureKind::Failed, error.to_string()),
    }
}

/// A body on its way into the lane.
pub(super) struct Outward {
    body: Body,
    ended: bool,
    _places: Vec<OwnedSemaphorePermit>,
}

impl Outward {
    pub(super) fn new(body: Body) -> Outward {
        Outward {
            body,
            ended: false,
            _places: Vec::new(),
        }
    }
}

impl HttpBody for Outward {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        Pin::new(&mut self.body).poll_frame(cx).map(|frame| {
            let error = match frame? {
                Ok(mut frame) => {
                    // Only this end says so, of no body.
                    if let Some(lines) = frame.trailers_mut() {
                        lines.remove(FAILED);
                    }
                    return Some(Ok(frame));
                }
                Err(error) => failure_of(error),
            };
            self.ended = true;
            let text = serde_json::to_vec(&error).unwrap_or_default();
            // What no header can hold is not understood there, and ends the body as well.
            let text = HeaderValue::from_bytes(&text).unwrap_or(HeaderValue::from_static("{}"));
            Some(Ok(Frame::trailers(HeaderMap::from_iter([(FAILED, text)]))))
        })
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A body on its way out of the lane.
struct Inward<T> {
    body: Incoming,
    broken: fn(hyper::Error) -> BoxError,
    _held: T,
}

impl<T> Inward<T> {
    fn new(body: Incoming, held: T, broken: fn(hyper::Error) -> BoxError) -> Inward<T> {
        Inward {
            body,
            broken,
            _held: held,
        }
    }
}

impl<T: Unpin> HttpBody for Inward<T> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Pin::new(&mut self.body).poll_frame(cx).map(|frame| {
            let frame = match frame? {
                Ok(frame) => frame,
                Err(error) => return Some(Err((self.broken)(error))),
            };
            let failure = frame.trailers_ref().and_then(|map| map.get(FAILED));
            Some(match failure {
                None => Ok(frame),
                Some(text) => Err(serde_json::from_slice::<Failure>(text.as_bytes())
                    .unwrap_or_else(|error| Failure::new(FailureKind::Failed, error.to_string()))
                    .into()),
            })
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http_body_util::StreamBody;
    use hyper::service::service_fn;
    use weft_call::TraceContext;

    use super::*;

    fn script(frames: Vec<Result<Frame<Bytes>, BoxError>>) -> Body {
        Body::new(StreamBody::new(futures::stream::iter(frames)))
    }

    fn trailers(name: &'static str) -> Frame<Bytes> {
        let name = HeaderName::from_static(name);
        Frame::trailers(HeaderMap::from_iter([(name, "1".parse().unwrap())]))
    }

    async fn frames(mut body: Body) -> Vec<String> {
        let mut seen = Vec::new();
        while let Some(frame) = body.frame().await {
            seen.push(match frame.map(Frame::into_data) {
                // How an end may come over HTTP/2.
                Ok(Ok(data)) if data.is_empty() => continue,
                Ok(Ok(data)) => String::from_utf8_lossy(&data).into_owned(),
                Ok(Err(frame)) => format!("{:?}", frame.into_trailers().unwrap()),
                Err(error) => format!("error: {error}"),
            });
        }
        seen
    }

    /// A lane whose other end answers with what it got, and with the depth of the call.
    async fn lane() -> Sender {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        for socket in [&ours, &theirs] {
            socket.set_nonblocking(true).unwrap();
        }
        tokio::spawn(answer(
            theirs,
            Side::Worker,
            service_fn(async |request| {
                assert_eq!(
                    workload_of(http::Request::<Incoming>::headers(&request)),
                    Some(7)
                );
                let (request, context) = undress(request, Instant::now());
                let depth = context.depth.into();
                let mut response = Response::new(request.into_body());
                response.headers_mut().insert("depth", depth);
                Ok::<_, Infallible>(delivered(response, Vec::new()))
            }),
        ));
        let (sender, connection) = ask(ours, Side::Node).await.unwrap();
        tokio::spawn(connection);
        sender
    }

    async fn echo(sender: &Sender, body: Body) -> Response<Body> {
        let request = Request::post("http://guest/").body(body).unwrap();
        let context = CallContext {
            depth: 3,
            ..CallContext::default()
        };
        let request = dress(request, 7, context, Instant::now()).unwrap();
        let response = sender.clone().send_request(request).await.unwrap();
        arrived(response, (), Into::into)
    }

    #[tokio::test]
    async fn bodies_arrive_with_their_trailers_or_with_what_broke_them() {
        let sender = lane().await;
        let data = |text: &'static str| Ok(Frame::data(Bytes::from(text)));
        for (body, expected) in [
            (vec![], vec![]),
            (vec![data("a")], vec!["a"]),
            (
                vec![data("a"), Ok(trailers("checksum"))],
                vec!["a", "{\"checksum\": \"1\"}"],
            ),
            (
                vec![data("a"), Err(Failure::from(FailureKind::Deadline).into())],
                vec!["a", "error: the call took longer than it may"],
            ),
            (
                vec![Err(Failure::from(FailureKind::NoEndpoints).into())],
                vec!["error: the destination has nobody to answer"],
            ),
            (vec![Err("other".into())], vec!["error: other"]),
        ] {
            let response = echo(&sender, script(body)).await;
            assert_eq!(response.headers()["depth"], "3");
            assert_eq!(response.version(), Version::HTTP_11);
            assert_eq!(frames(response.into_body()).await, expected);
        }
    }

    #[tokio::test]
    async fn an_error_keeps_its_type_inside_a_body() {
        let sender = lane().await;
        let response = echo(
            &sender,
            script(vec![Err(Failure::from(FailureKind::Deadline).into())]),
        )
        .await;
        let error = response.into_body().collect().await.unwrap_err();
        assert_eq!(
            *error.downcast::<Failure>().unwrap(),
            FailureKind::Deadline.into()
        );
    }

    #[test]
    fn a_context_keeps_everything_but_its_clock() {
        let now = Instant::now();
        let context = CallContext {
            peer: None,
            outside: true,
            deadline: Some(now + Duration::from_millis(1500)),
            trace: Some(TraceContext {
                trace_id: u128::MAX - 1,
                span_id: u64::MAX,
                flags: 1,
                state: HeaderValue::from_bytes("vendor=ü".as_bytes()).ok(),
            }),
            attempt: 2,
            depth: 9,
            port: Some(8080),
            priority: weft_call::Priority::Low,
            repeated: true,
            spent: None,
            baggage: Some(HeaderValue::from_static("user=7")),
        };
        let request = Request::new(Body::empty());
        let dressed = dress(request, 1, context.clone(), now).unwrap();
        let text = dressed.headers()[CONTEXT].as_bytes();
        let wire: FrozenContext = serde_json::from_slice(text).unwrap();
        assert_eq!(wire.thaw(now), context);
    }

    #[test]
    fn what_a_guest_tells_beside_its_answer_arrives_within_its_bounds() {
        let there = Spent::default();
        there.tell();
        there.rest(Duration::from_secs(7));
        there
            .set("greeting", "gr\u{fc}\u{df} \u{1f600}\n\"x\"")
            .unwrap();
        let mut lines = HeaderMap::new();
        tell_aside(&there, &mut lines);
        let here = Spent::default();
        take_aside(&mut lines, Some(&here));
        assert_eq!(here.aside(), there.aside());
        assert!(lines.is_empty(), "nobody else is told");
        tell_aside(&Spent::default(), &mut lines);
        assert!(lines.is_empty());
        let lie = r#"{"rest_millis":18446744073709551615,"attributes":[["a b","x"]]}"#;
        lines.insert(ASIDE, HeaderValue::from_static(lie));
        let here = Spent::default();
        take_aside(&mut lines, Some(&here));
        assert_eq!(here.rests(), Some(weft_call::REST_MAX));
        assert!(here.attributes().is_empty());
    }
}
