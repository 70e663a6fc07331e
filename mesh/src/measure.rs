//! Following a response to its end, so that durations, sizes and gRPC statuses are those of the whole call.
//!
//! [`finish`] wraps the body; when it ends, fails or is dropped, the edges are charged once and whatever counts
//! the call as in flight is released. A response whose body is in memory, or has none, is charged at once and passes unwrapped.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Instant, SystemTime},
};

use bytes::Bytes;
use http::{HeaderMap, Response};
use http_body::{Body as _, Frame, SizeHint};
use smallvec::{SmallVec, smallvec};

use crate::{
    Body, BoxError, Transport,
    activity::{Activity, Ongoing},
    admission::Admitted,
    attempt::Pending,
    headers::GRPC_STATUS,
    messages::Messages,
    metrics::{Edge, Outcome, Took},
    replay,
    sighting::{Ended, Seen},
    transport::Stream,
};

/// Whoever reads an answer went away first: Envoy's "downstream connection termination".
const GONE: &str = "DC";

/// gRPC's UNKNOWN, for calls that end without a status.
const GRPC_UNKNOWN: u16 = 2;

/// Size of a request, known now or counted while it is sent.
pub(crate) enum RequestBytes {
    Known(u64),
    Counted(Arc<replay::Shared>),
}

/// What keeps a call counted as in flight until its response is in memory or has been read.
#[derive(Default)]
#[expect(dead_code, reason = "held for what dropping them does")]
pub(crate) struct Holds {
    pub(crate) pending: Option<Pending>,
    pub(crate) admitted: Option<Admitted>,
    pub(crate) stream: Option<Stream>,
    pub(crate) ongoing: Option<Ongoing>,
}

impl Holds {
    /// The call was over when its answer came: nobody has to look at the clock again.
    fn end(self, at: Instant) {
        if let Some(ongoing) = self.ongoing {
            ongoing.end(at);
        }
        if let Some(admitted) = self.admitted {
            admitted.end(at);
        }
    }
}

/// Where a finished call is charged.
pub(crate) struct Charge {
    pub(crate) edges: SmallVec<[Arc<Edge>; 2]>,
    pub(crate) started: Instant,
    pub(crate) grpc: bool,
    pub(crate) request_bytes: RequestBytes,
    /// Set where the caller's side finishes the call: it also counts by transport.
    pub(crate) by_transport: Option<(Arc<crate::Inner>, Transport)>,
    /// It is a connection, and no request.
    pub(crate) tcp: bool,
    /// Set where somebody watches it.
    pub(crate) seen: Option<Arc<Seen>>,
    /// Set there, too: what counts the failures of the service that was called.
    pub(crate) activity: Option<Arc<Activity>>,
}

impl Charge {
    /// Of what went to nobody.
    pub(crate) fn of_nobody(edge: Arc<Edge>, started: Instant, seen: Option<Arc<Seen>>) -> Self {
        Self {
            edges: smallvec![edge],
            started,
            grpc: false,
            request_bytes: RequestBytes::Known(0),
            by_transport: None,
            tcp: false,
            seen,
            activity: None,
        }
    }

    /// Charges the call. `grpc_status` is what headers or trailers said.
    pub(crate) fn settle(
        &self,
        code: u16,
        grpc_status: Option<u16>,
        flag: &'static str,
        response_bytes: u64,
    ) {
        let response = Passed::whole(response_bytes);
        self.settle_at(code, grpc_status, flag, response, Instant::now());
    }

    fn settle_at(
        &self,
        code: u16,
        grpc_status: Option<u16>,
        flag: &'static str,
        response: Passed,
        now: Instant,
    ) {
        let duration = now.saturating_duration_since(self.started);
        let outcome = Outcome {
            code,
            grpc: self.grpc.then(|| grpc_status.unwrap_or(GRPC_UNKNOWN)),
            flag,
            tcp: self.tcp,
        };
        let (request_bytes, request_messages) = match &self.request_bytes {
            RequestBytes::Known(bytes) => (*bytes, 0),
            RequestBytes::Counted(shared) if self.grpc => (shared.bytes(), shared.messages()),
            RequestBytes::Counted(shared) => (shared.bytes(), 0),
        };
        if let Some(activity) = self.activity.as_ref().filter(|_| outcome.is_failure()) {
            activity.failed();
        }
        let took = Took::from(duration);
        for edge in &self.edges {
            edge.record(outcome, took, request_bytes, response.bytes, now);
            if self.grpc {
                edge.messages(outcome, request_messages, response.messages);
            }
        }
        if let Some(seen) = &self.seen {
            let ended = Ended {
                outcome,
                // It may have ended a while ago.
                began: SystemTime::now()
                    .checked_sub(self.started.elapsed())
                    .unwrap_or(SystemTime::UNIX_EPOCH),
                took: duration,
                request_bytes,
                response_bytes: response.bytes,
            };
            for edge in &self.edges {
                seen.tell(edge, &ended);
            }
        }
        if let Some((inner, transport)) = &self.by_transport {
            inner.metrics.call(*transport, duration);
        }
    }
}

/// What came of a response.
#[derive(Clone, Copy, Default)]
struct Passed {
    bytes: u64,
    /// Of gRPC.
    messages: u64,
}

impl Passed {
    fn whole(bytes: u64) -> Self {
        Self { bytes, messages: 0 }
    }
}

/// A call of another node that is being served. Dropped before it is [`answered`](Self::answered), it is charged as one that its
/// caller gave up on.
pub(crate) struct Unanswered(Option<Charge>);

impl Unanswered {
    pub(crate) fn new(charge: Charge) -> Self {
        Self(Some(charge))
    }

    /// From here on the charge is whoever's who calls this.
    pub(crate) fn answered(&mut self) -> Option<Charge> {
        self.0.take()
    }
}

impl Drop for Unanswered {
    fn drop(&mut self) {
        if let Some(charge) = self.0.take() {
            charge.settle(0, None, "DC", 0);
        }
    }
}

/// Whether a message's content is gRPC.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    headers
        .get(http::header::CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

/// Charges the call when `response` has been read, or now if there is nothing to read; its head came at `answered`.
pub(crate) fn finish(
    response: Response<Body>,
    charge: Charge,
    holds: Holds,
    answered: Instant,
) -> Response<Body> {
    let code = response.status().as_u16();
    let grpc_status = grpc_status(response.headers());
    // Nobody has to wait for any of it: the call is over.
    if let Some(bytes) = response.body().is_whole() {
        // What has messages also has a status behind them, and is not whole.
        charge.settle_at(code, grpc_status, "-", Passed::whole(bytes), answered);
        holds.end(answered);
        return response;
    }
    if response.body().is_end_stream() {
        charge.settle_at(code, grpc_status, "-", Passed::default(), answered);
        holds.end(answered);
        return response;
    }
    response.map(|body| {
        Body::new(Measured {
            body,
            bytes: 0,
            messages: charge.grpc.then(Messages::default),
            code,
            grpc_status,
            open: Some((charge, holds)),
        })
    })
}

/// The status of a call of gRPC, in a head or in trailers.
pub(crate) fn grpc_status(headers: &HeaderMap) -> Option<u16> {
    headers.get(GRPC_STATUS)?.to_str().ok()?.parse().ok()
}

struct Measured {
    body: Body,
    bytes: u64,
    messages: Option<Messages>,
    code: u16,
    grpc_status: Option<u16>,
    /// None once the call is settled.
    open: Option<(Charge, Holds)>,
}

impl Measured {
    fn settle(&mut self, flag: &'static str) {
        if let Some((charge, mut holds)) = self.open.take() {
            let passed = Passed {
                bytes: self.bytes,
                messages: self.messages.as_ref().map_or(0, Messages::count),
            };
            let now = Instant::now();
            charge.settle_at(self.code, self.grpc_status, flag, passed, now);
            // Of who went away itself nothing is known.
            if let Some(pending) = holds.pending.as_mut().filter(|_| flag != GONE) {
                pending.ended(self.grpc_status, now);
            }
        }
    }
}

impl http_body::Body for Measured {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) else {
            return Poll::Pending;
        };
        match &frame {
            None => self.settle("-"),
            Some(Err(_)) => self.settle("UC"),
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    self.bytes += data.len() as u64;
                    if let Some(messages) = &mut self.messages {
                        messages.pass(data);
                    }
                } else if let Some(trailers) = frame.trailers_ref() {
                    self.grpc_status = grpc_status(trailers).or(self.grpc_status);
                }
                // Codecs that know the length stop reading before the end is said.
                if self.body.is_end_stream() {
                    self.settle("-");
                }
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Measured {
    fn drop(&mut self) {
        self.settle(GONE);
    }
}
