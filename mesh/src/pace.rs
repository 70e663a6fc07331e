//! What a client of the gateway may take its time for.
//!
//! A call whose response comes in parts holds its place at a workload until they have been read, so that who reads a byte a minute holds
//! it for hours: some hundred such clients, and the workload is full. (One that is in memory holds none: who does not take it is idle.) Therefore a connection is closed when it is idle, and when whoever reads is too slow.
//! Only the client's time counts: a response that the workload has not made yet may take as long as it likes, and a request that is a
//! conversation (no `content-length`) as well.
//!
//! Invariants: nothing here has a timer of its own but the connection's and that of an upload which waits; deciding is pure, time is handed
//! in as milliseconds since the connection began.

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
use http_body::{Frame, SizeHint};
use parking_lot::Mutex;
use tokio::time::Sleep;

use crate::{Body, BoxError};

/// Bytes a second that a client must read or send on average, once it has had [`RATE_GRACE`]: a tenth of the slowest modem's.
pub(crate) const RATE_MIN: u64 = 240;
pub(crate) const RATE_GRACE: Duration = Duration::from_secs(60);
/// Longest pause of a client who has something to read, or has said that there is more to come.
pub(crate) const STALL_MAX: Duration = Duration::from_secs(60);

/// How a client of one connection keeps up.
pub(crate) struct Pace {
    began: Instant,
    /// Requests whose responses have not been read, at most as many as the connection has streams.
    open: AtomicUsize,
    /// Of those, the responses that come in parts.
    readings: Mutex<Vec<Arc<Reading>>>,
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
    /// Somebody reads too slowly.
    TooSlow,
}

impl Pace {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            began: Instant::now(),
            open: AtomicUsize::new(0),
            readings: Mutex::default(),
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

    /// Judges the connection now; `idle_max` is how long it may be without a request.
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
        let readings = self.readings.lock();
        match readings.iter().any(|reading| reading.is_too_slow(now)) {
            true => Verdict::TooSlow,
            false => Verdict::GoOn,
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

/// How one response is read.
#[derive(Default)]
struct Reading {
    bytes: AtomicU64,
    /// Milliseconds that the client took so far.
    taken: AtomicU64,
    /// One more than the milliseconds since which the client has something to read; 0 while it waits for the workload.
    since: AtomicU64,
}

impl Reading {
    /// The client has something to read, `bytes` more than before.
    fn given(&self, now: u64, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.since.store(now + 1, Ordering::Relaxed);
    }

    /// The client wants more.
    fn wanted(&self, now: u64) {
        if let Some(since) = self.since.swap(0, Ordering::Relaxed).checked_sub(1) {
            let taken = now.saturating_sub(since);
            self.taken.fetch_add(taken, Ordering::Relaxed);
        }
    }

    fn is_too_slow(&self, now: u64) -> bool {
        let Some(since) = self.since.load(Ordering::Relaxed).checked_sub(1) else {
            return false;
        };
        let pause = now.saturating_sub(since);
        let taken = self.taken.load(Ordering::Relaxed) + pause;
        is_too_slow(pause, taken, self.bytes.load(Ordering::Relaxed))
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

/// A response's body, followed until it has been read.
pub(crate) struct Paced {
    body: Body,
    open: Open,
    reading: Arc<Reading>,
}

impl Paced {
    pub(crate) fn new(body: Body, open: Open) -> Self {
        let reading = Arc::new(Reading::default());
        open.0.readings.lock().push(Arc::clone(&reading));
        Self {
            body,
            open,
            reading,
        }
    }
}

impl Drop for Paced {
    fn drop(&mut self) {
        let mut readings = self.open.0.readings.lock();
        readings.retain(|reading| !Arc::ptr_eq(reading, &self.reading));
    }
}

impl http_body::Body for Paced {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.reading.wanted(self.open.0.now());
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            let bytes = frame.data_ref().map_or(0, Bytes::len) as u64;
            self.reading.given(self.open.0.now(), bytes);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
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
    use super::*;

    const SECOND: u64 = 1000;
    const IDLE: Duration = Duration::from_secs(75);

    #[test]
    fn only_the_clients_time_counts() {
        let reading = Reading::default();
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
            let reading = Reading::default();
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

    #[test]
    fn a_connection_without_a_request_is_idle() {
        let pace = Pace::new();
        assert_eq!(pace.judge_at(74 * SECOND, IDLE), Verdict::GoOn);
        assert_eq!(pace.judge_at(75 * SECOND, IDLE), Verdict::Idle);
        let (first, second) = (pace.begin(), Paced::new(crate::empty_body(), pace.begin()));
        assert_eq!(pace.judge_at(9000 * SECOND, IDLE), Verdict::GoOn);
        second.reading.given(0, 5);
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

    #[tokio::test(start_paused = true)]
    async fn an_upload_that_stops_ends() {
        use http_body_util::{BodyExt as _, StreamBody};
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
