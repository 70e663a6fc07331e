//! What a client of the gateway may take its time for.
//!
//! A call whose response comes in parts holds its place at a workload until they have been read, so that who reads a byte a minute holds
//! it for hours: some hundred such clients, and the workload is full. (One that is in memory holds none: who does not take it is idle.)
//! Therefore a connection is closed when it is idle, and a response that is read too slowly is cut off: over HTTP/2 that one alone, before
//! it with its connection.
//! Only the client's time counts: a response that the workload has not made yet may take as long as it likes, and a request that is a
//! conversation (no `content-length`) as well.
//!
//! Nobody polls a body that its client does not read, so that it cannot notice by itself: whoever looks at the connection takes it away.
//! Its stream ends once the client takes what was sent to it before, or with the connection, to which it is no reason to stay.
//!
//! Invariants: nothing here has a timer of its own but the connection's and that of an upload which waits; deciding is pure, time is handed
//! in as milliseconds since the connection began; a response that was cut off holds nothing of the workload's, and is no open request.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::Version;
use http_body::{Frame, SizeHint};
use parking_lot::Mutex;
use tokio::time::Sleep;

use crate::{Body, BoxError};

/// Bytes a second that a client must read or send on average, once it has had [`RATE_GRACE`]: a tenth of the slowest modem's.
pub(crate) const RATE_MIN: u64 = 240;
pub(crate) const RATE_GRACE: Duration = Duration::from_secs(60);
/// Longest pause of a client who has something to read, or has said that there is more to come.
pub(crate) const STALL_MAX: Duration = Duration::from_secs(60);
/// Streams of responses that were cut off, and whose client does not even take what was sent before: the codec holds a piece of each.
const LYING_MAX: usize = 8;

/// How a client of one connection keeps up.
pub(crate) struct Pace {
    began: Instant,
    /// Requests whose responses have not been read, at most as many as the connection has streams.
    open: AtomicUsize,
    /// Of those, the responses that come in parts.
    responses: Mutex<Vec<Arc<Shared>>>,
    /// Milliseconds after `began` since which no request was open; [`NOT_SEEN`] if nobody has looked since the last one.
    quiet_since: AtomicU64,
}

const NOT_SEEN: u64 = u64::MAX;

/// What to do with a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    GoOn,
    /// Nobody asked for anything in a while.
    Idle,
    /// Somebody reads too slowly, and the connection has to go with the response.
    TooSlow,
    /// Of its responses, those that are read too slowly were cut off.
    Cut,
}

impl Pace {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            began: Instant::now(),
            open: AtomicUsize::new(0),
            responses: Mutex::default(),
            quiet_since: AtomicU64::new(0),
        })
    }

    fn now(&self) -> u64 {
        millis(self.began.elapsed())
    }

    /// A request came; it is open until the result is dropped.
    pub(crate) fn begin(self: &Arc<Self>) -> Open {
        self.open.fetch_add(1, Ordering::Relaxed);
        self.quiet_since.store(NOT_SEEN, Ordering::Relaxed);
        Open(Arc::clone(self))
    }

    /// Judges the connection now, and cuts off what is read too slowly; `idle_max` is how long it may be without a request.
    pub(crate) fn judge(&self, idle_max: Duration) -> Verdict {
        self.judge_at(self.now(), idle_max)
    }

    fn judge_at(&self, now: u64, idle_max: Duration) -> Verdict {
        if self.open.load(Ordering::Relaxed) == 0 {
            // Counted from the first look after the last request: that costs a request no look at the clock.
            let seen = self.quiet_since.compare_exchange(
                NOT_SEEN,
                now,
                Ordering::Relaxed,
                Ordering::Relaxed,
            );
            let since = seen.map_or_else(|since| since, |_| now);
            return match now.saturating_sub(since) >= millis(idle_max) {
                true => Verdict::Idle,
                false => Verdict::GoOn,
            };
        }
        // Dropped without any lock: what is below a body has ways of its own.
        let mut cut = Vec::new();
        let mut lying = 0;
        for response in self.responses.lock().iter() {
            let mut response = response.lock();
            let slow = response
                .as_ref()
                .filter(|response| response.reading.is_too_slow(now));
            match slow.map(|slow| slow.ends_alone) {
                None => {}
                Some(false) => return Verdict::TooSlow,
                Some(true) => cut.extend(response.take()),
            }
            lying += usize::from(response.is_none());
            if lying > LYING_MAX {
                return Verdict::TooSlow;
            }
        }
        match cut.is_empty() {
            true => Verdict::GoOn,
            false => Verdict::Cut,
        }
    }
}

/// A request that is being answered.
pub(crate) struct Open(Arc<Pace>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A response, for who reads it and for who judges that. None once it was cut off.
type Shared = Mutex<Option<Response>>;

struct Response {
    body: Body,
    reading: Reading,
    /// Whether its connection goes on without it.
    ends_alone: bool,
    _open: Open,
}

/// How one response is read.
#[derive(Default)]
struct Reading {
    bytes: u64,
    /// Milliseconds that the client took so far.
    taken: u64,
    /// Since when the client has something to read; none while it waits for the workload.
    since: Option<u64>,
}

impl Reading {
    /// The client has something to read, `bytes` more than before.
    fn given(&mut self, now: u64, bytes: u64) {
        self.bytes += bytes;
        self.since = Some(now);
    }

    /// The client wants more.
    fn wanted(&mut self, now: u64) {
        if let Some(since) = self.since.take() {
            self.taken += now.saturating_sub(since);
        }
    }

    fn is_too_slow(&self, now: u64) -> bool {
        self.since.is_some_and(|since| {
            let pause = now.saturating_sub(since);
            is_too_slow(pause, self.taken + pause, self.bytes)
        })
    }
}

/// Judges milliseconds of the last pause and of all, and bytes.
fn is_too_slow(pause: u64, taken: u64, bytes: u64) -> bool {
    let wanted = RATE_MIN.saturating_mul(taken / 1000);
    pause >= millis(STALL_MAX) || (taken >= millis(RATE_GRACE) && bytes < wanted)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[derive(Debug, thiserror::Error)]
#[error("the client reads the response too slowly")]
struct CutOff;

/// A response's body, followed until it has been read.
pub(crate) struct Paced {
    pace: Arc<Pace>,
    response: Arc<Shared>,
}

impl Paced {
    /// The response to a request of that version.
    pub(crate) fn new(body: Body, open: Open, version: Version) -> Self {
        let pace = Arc::clone(&open.0);
        let response = Arc::new(Mutex::new(Some(Response {
            body,
            reading: Reading::default(),
            ends_alone: version >= Version::HTTP_2,
            _open: open,
        })));
        pace.responses.lock().push(Arc::clone(&response));
        Self { pace, response }
    }
}

impl Drop for Paced {
    fn drop(&mut self) {
        let mut responses = self.pace.responses.lock();
        responses.retain(|response| !Arc::ptr_eq(response, &self.response));
    }
}

impl http_body::Body for Paced {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let mut response = self.response.lock();
        let Some(Response { body, reading, .. }) = &mut *response else {
            return Poll::Ready(Some(Err(CutOff.into())));
        };
        reading.wanted(self.pace.now());
        let polled = Pin::new(body).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            let bytes = frame.data_ref().map_or(0, Bytes::len) as u64;
            reading.given(self.pace.now(), bytes);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        let response = self.response.lock();
        response
            .as_ref()
            .is_some_and(|response| response.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let response = self.response.lock();
        response
            .as_ref()
            .map_or_else(SizeHint::default, |response| response.body.size_hint())
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the client sends its request too slowly")]
struct TooSlow;

/// The body of a request that said how long it is, held to the pace.
pub(crate) struct Upload {
    body: Body,
    bytes: u64,
    /// Spent waiting for the client before the pause that lasts.
    taken: Duration,
    /// Since when the client is waited for, and until when.
    pause: Option<(Instant, Pin<Box<Sleep>>)>,
}

impl Upload {
    pub(crate) fn new(body: Body) -> Self {
        Self {
            body,
            bytes: 0,
            taken: Duration::ZERO,
            pause: None,
        }
    }
}

impl http_body::Body for Upload {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        match Pin::new(&mut this.body).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => {
                this.bytes += frame.data_ref().map_or(0, Bytes::len) as u64;
                if let Some((since, _)) = this.pause.take() {
                    let pause = since.elapsed();
                    this.taken = this.taken.saturating_add(pause);
                    if is_too_slow(millis(pause), millis(this.taken), this.bytes) {
                        return Poll::Ready(Some(Err(TooSlow.into())));
                    }
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Pending => {
                let (_, end) = this.pause.get_or_insert_with(|| {
                    let end = tokio::time::sleep(STALL_MAX);
                    (Instant::now(), Box::pin(end))
                });
                match end.as_mut().poll(context) {
                    Poll::Ready(()) => Poll::Ready(Some(Err(TooSlow.into()))),
                    Poll::Pending => Poll::Pending,
                }
            }
            other => other,
        }
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

    use http::Request;
    use http_body_util::{BodyExt as _, StreamBody};
    use hyper::{
        body::Incoming, client::conn as client, server::conn as server, service::service_fn,
    };
    use hyper_util::rt::{TokioExecutor, TokioIo};

    use super::*;

    const SECOND: u64 = 1000;
    const IDLE: Duration = Duration::from_secs(75);

    #[test]
    fn only_the_clients_time_counts() {
        let mut reading = Reading::default();
        assert!(!reading.is_too_slow(3600 * SECOND), "the workload computes");
        reading.given(3600 * SECOND, 10);
        assert!(!reading.is_too_slow(3659 * SECOND));
        assert!(reading.is_too_slow(3660 * SECOND), "a pause of a minute");
        reading.wanted(3659 * SECOND);
        assert!(!reading.is_too_slow(9000 * SECOND), "the workload computes");
    }

    #[test]
    fn a_byte_now_and_then_is_too_slow_and_a_slow_link_is_not() {
        // Seconds between two parts, bytes in each, and after how many of them it ends, if at all.
        for (every, bytes, ends_at) in [
            (50, 1, Some(2)),
            (59, 240, Some(2)),
            (1, 239, Some(60)),
            (1, 240, None),
            (30, 64 << 10, None),
            (59, 64 << 10, None),
        ] {
            let mut reading = Reading::default();
            let mut now = 0;
            let ended = (1..200).find(|_| {
                reading.given(now, bytes);
                now += every * SECOND;
                let is_over = reading.is_too_slow(now);
                reading.wanted(now);
                is_over
            });
            assert_eq!(ended, ends_at, "{bytes} bytes every {every} s");
        }
    }

    fn paced(pace: &Arc<Pace>, version: Version) -> Paced {
        Paced::new(Body::full("hello"), pace.begin(), version)
    }

    fn given(paced: &Paced, now: u64) {
        let mut response = paced.response.lock();
        response
            .as_mut()
            .expect("not cut off")
            .reading
            .given(now, 5);
    }

    #[test]
    fn a_connection_without_a_request_is_idle() {
        let pace = Pace::new();
        assert_eq!(pace.judge_at(74 * SECOND, IDLE), Verdict::GoOn);
        assert_eq!(pace.judge_at(75 * SECOND, IDLE), Verdict::Idle);
        let (first, second) = (pace.begin(), paced(&pace, Version::HTTP_11));
        assert_eq!(pace.judge_at(9000 * SECOND, IDLE), Verdict::GoOn);
        given(&second, 0);
        assert_eq!(pace.judge_at(9000 * SECOND, IDLE), Verdict::TooSlow);
        drop(second);
        assert_eq!(pace.judge_at(9000 * SECOND, IDLE), Verdict::GoOn);
        drop(first);
        // Since the first look after it ended.
        assert_eq!(pace.judge_at(9000 * SECOND, IDLE), Verdict::GoOn);
        assert_eq!(pace.judge_at(9074 * SECOND, IDLE), Verdict::GoOn);
        assert_eq!(pace.judge_at(9075 * SECOND, IDLE), Verdict::Idle);
        drop(pace.begin());
        assert_eq!(pace.judge_at(9999 * SECOND, IDLE), Verdict::GoOn);
    }

    #[tokio::test]
    async fn over_http2_who_reads_too_slowly_loses_that_response_alone() {
        let pace = Pace::new();
        let (mut slow, mut fast) = (paced(&pace, Version::HTTP_2), paced(&pace, Version::HTTP_2));
        given(&slow, 0);
        given(&fast, 30 * SECOND);
        assert_eq!(pace.judge_at(59 * SECOND, IDLE), Verdict::GoOn);
        assert_eq!(pace.judge_at(60 * SECOND, IDLE), Verdict::Cut);
        assert_eq!(pace.judge_at(61 * SECOND, IDLE), Verdict::GoOn, "once");
        let error = slow.frame().await.expect("an end").expect_err("cut off");
        assert_eq!(
            error.to_string(),
            "the client reads the response too slowly"
        );
        let frame = fast.frame().await.expect("a frame").expect("data");
        assert_eq!(frame.into_data().expect("data"), "hello");
        // What was cut off is still there, and is no reason to keep the connection.
        drop(fast);
        assert_eq!(pace.judge_at(70 * SECOND, IDLE), Verdict::GoOn);
        assert_eq!(pace.judge_at(145 * SECOND, IDLE), Verdict::Idle);
        drop(slow);
        assert!(pace.responses.lock().is_empty());
    }

    #[test]
    fn a_client_that_lets_many_responses_lie_loses_its_connection() {
        let pace = Pace::new();
        let lying: Vec<_> = (0..=LYING_MAX)
            .map(|_| paced(&pace, Version::HTTP_2))
            .collect();
        for paced in &lying[..LYING_MAX] {
            given(paced, 0);
        }
        assert_eq!(pace.judge_at(60 * SECOND, IDLE), Verdict::Cut);
        given(&lying[LYING_MAX], 0);
        assert_eq!(pace.judge_at(60 * SECOND, IDLE), Verdict::TooSlow);
    }

    /// As above, with the codec: it does not ask for more while its client's window is full.
    #[tokio::test]
    async fn a_response_that_nobody_reads_gives_its_place_back_and_others_go_on() {
        let (near, far) = tokio::io::duplex(64 << 10);
        let (pace, place) = (Pace::new(), Arc::new(()));
        let service = {
            let (pace, place) = (Arc::clone(&pace), Arc::clone(&place));
            service_fn(move |request: Request<Incoming>| {
                let body = match request.uri().path() {
                    "/endless" => {
                        let body = endless(Arc::clone(&place));
                        Body::new(Paced::new(body, pace.begin(), request.version()))
                    }
                    _ => Body::full("hello"),
                };
                std::future::ready(Ok::<_, Infallible>(http::Response::new(body)))
            })
        };
        let serving = server::http2::Builder::new(TokioExecutor::new())
            .serve_connection(TokioIo::new(far), service);
        tokio::spawn(serving);
        let (mut sender, driver) = client::http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(65_535)
            .handshake::<_, Body>(TokioIo::new(near))
            .await
            .expect("a connection");
        tokio::spawn(driver);
        let get = |path: &str| {
            let request = Request::get(format!("http://a.test{path}")).body(Body::empty());
            request.expect("a request")
        };

        let slow = sender.send_request(get("/endless")).await;
        let slow = slow.expect("a response");
        let is_held = || Arc::strong_count(&place) > 2;
        assert!(is_held());
        let later = pace.now() + 61 * SECOND;
        assert_eq!(pace.judge_at(later, IDLE), Verdict::Cut);
        assert!(!is_held(), "though nobody polls it");

        let other = sender.send_request(get("/")).await.expect("a response");
        let other = other.into_body().collect().await.expect("a body");
        assert_eq!(other.to_bytes(), "hello");
        let error = slow.into_body().collect().await.err();
        assert!(
            error.is_some(),
            "its stream ends once what was sent is read"
        );
        let again = sender.send_request(get("/")).await;
        assert!(again.is_ok(), "and nothing else does");
    }

    /// A body that holds a place, and is always ahead of who reads it.
    fn endless(place: Arc<()>) -> Body {
        let parts = futures::stream::unfold(place, |place| async move {
            let part = Frame::data(Bytes::from_static(&[0; 64 << 10]));
            Some((Ok::<_, BoxError>(part), place))
        });
        Body::new(StreamBody::new(parts))
    }

    #[tokio::test(start_paused = true)]
    async fn an_upload_that_stops_ends() {
        let (mut sender, receiver) =
            futures::channel::mpsc::channel::<Result<Frame<Bytes>, BoxError>>(1);
        let mut upload = Upload::new(Body::new(StreamBody::new(receiver)));
        let part = Frame::data(Bytes::from_static(b"part"));
        futures::SinkExt::send(&mut sender, Ok(part))
            .await
            .expect("room");
        let first = upload.frame().await.expect("a frame").expect("data");
        assert_eq!(first.into_data().expect("data"), "part");
        let error = upload.frame().await.expect("an end").expect_err("too slow");
        assert_eq!(error.to_string(), "the client sends its request too slowly");
    }
}
