//! The body of a response from outside, and what its call holds until it has been read.
//!
//! Who reads a body may stop at any frame without a word, so that a task watches each: it ends the body where nothing came from the host
//! for a while, and where nobody read what came.
//!
//! Invariants: place and connection are given back when the body ends, is dropped or runs out of time, whichever is first; a connection
//! serves another call only after all of the response was read.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use parking_lot::Mutex;
use tokio::{task::AbortHandle, time::Instant};

use super::pool::{Exclusive, Permits, Place, Stream};
use crate::BoxError;

/// A body of which nothing comes for this long, while somebody waits for it, or nothing is read, is over.
const STALL_MAX: Duration = Duration::from_secs(300);

/// The connection that a response comes on.
pub(super) enum Connection {
    Exclusive(Exclusive),
    Shared(#[expect(dead_code, reason = "held for what dropping it does")] Stream),
}

/// What a call has until its response was read.
pub(super) struct Using {
    pub(super) connection: Connection,
    pub(super) place: Arc<Place>,
    #[expect(dead_code, reason = "held for what dropping it does")]
    pub(super) permits: Option<Permits>,
}

/// The body of a response from outside.
pub(super) struct Held {
    reading: Arc<Mutex<Reading>>,
    watch: Option<AbortHandle>,
}

struct Reading {
    /// None once it has ended.
    open: Option<(Incoming, Using)>,
    /// Who waits for the next frame, which the host has yet to send; nobody, while the last one is being read.
    waiting: Option<Waker>,
    since: Instant,
    /// Why it is over, until somebody was told.
    over: Option<OutOfTime>,
}

#[derive(Debug, Clone, Copy, thiserror::Error)]
enum OutOfTime {
    #[error("nothing came from the host for {} seconds", STALL_MAX.as_secs())]
    Stalled,
    #[error("nothing of the response was read for {} seconds", STALL_MAX.as_secs())]
    Unread,
}

impl Held {
    pub(super) fn new(body: Incoming, using: Using) -> Self {
        let is_over = body.is_end_stream();
        let mut reading = Reading {
            open: Some((body, using)),
            waiting: None,
            since: Instant::now(),
            over: None,
        };
        if is_over {
            reading.finish();
        }
        let reading = Arc::new(Mutex::new(reading));
        let watch = (!is_over).then(|| tokio::spawn(watch(Arc::clone(&reading))).abort_handle());
        Self { reading, watch }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.reading.lock().open = None;
        if let Some(watch) = &self.watch {
            watch.abort();
        }
    }
}

/// Ends the body when its time is up.
async fn watch(reading: Arc<Mutex<Reading>>) {
    loop {
        let until = reading.lock().since + STALL_MAX;
        tokio::time::sleep_until(until).await;
        if reading.lock().is_over(Instant::now()) {
            return;
        }
    }
}

impl Reading {
    fn is_over(&mut self, now: Instant) -> bool {
        if self.open.is_some() && now.duration_since(self.since) >= STALL_MAX {
            self.open = None;
            self.over = Some(match self.waiting.take() {
                Some(waiting) => {
                    waiting.wake();
                    OutOfTime::Stalled
                }
                None => OutOfTime::Unread,
            });
        }
        self.open.is_none()
    }

    /// All was read: the connection may serve another call.
    fn finish(&mut self) {
        let Some((_, using)) = self.open.take() else {
            return;
        };
        if let Connection::Exclusive(connection) = using.connection {
            using.place.give_back(connection);
        }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Some((body, _)) = &mut self.open else {
            return Poll::Ready(self.over.take().map(|over| Err(over.into())));
        };
        let polled = Pin::new(&mut *body).poll_frame(context);
        let has_ended = body.is_end_stream();
        match polled {
            Poll::Pending => {
                if self.waiting.replace(context.waker().clone()).is_none() {
                    self.since = Instant::now();
                }
                return Poll::Pending;
            }
            Poll::Ready(Some(Ok(_))) if !has_ended => {
                self.waiting = None;
                self.since = Instant::now();
            }
            Poll::Ready(Some(Ok(_)) | None) => self.finish(),
            Poll::Ready(Some(Err(_))) => self.open = None,
        }
        polled.map_err(Into::into)
    }
}

impl http_body::Body for Held {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.reading.lock().poll(context)
    }

    fn is_end_stream(&self) -> bool {
        let reading = self.reading.lock();
        match &reading.open {
            Some((body, _)) => body.is_end_stream(),
            None => reading.over.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        let reading = self.reading.lock();
        match &reading.open {
            Some((body, _)) => body.size_hint(),
            None if reading.over.is_some() => SizeHint::default(),
            None => SizeHint::with_exact(0),
        }
    }
}
