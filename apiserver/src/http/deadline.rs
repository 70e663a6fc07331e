//! How long a request may take: to send its body, to be answered, and to read the answer.
//!
//! A place among the requests in flight is worth what it is held for, so each of the three ends by itself: a body that
//! comes too slowly is given up with 408, a handler that takes too long with 504, and an answer that nobody reads
//! loses its place and its memory when its time is over, whatever the client does.
//!
//! Invariants: no body is read before who sends it was authorised; of large bodies, which cost some thirty times their
//! size once they are values, few are worked on at a time. Long-running requests have no deadline but their own.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use bytes::Bytes;
use futures::Stream;
use http::{HeaderMap, HeaderValue, header};
use http_body::{Body as _, Frame};
use http_body_util::{BodyExt as _, LengthLimitError, StreamBody};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use weft_api::status::StatusError;

use super::priority::Place;
use crate::request::Params;

/// From the first byte of a request to the last of its answer, as Kubernetes' `--request-timeout`.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// For the whole body: 3 MiB in this time is what a modem of 1 Mbit/s does.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// Largest request body, as in Kubernetes.
pub const BODY_BYTES_MAX: usize = 3 << 20;
/// Bodies up to this size are worked on without asking.
const LARGE_BODY_BYTES: usize = 256 << 10;
/// Larger ones that are worked on at a time: some 90 MB each at the worst.
const LARGE_BODIES_MAX: usize = 8;
/// What an answer hands on at a time, and what is left of one that nobody reads.
const CHUNK_BYTES: usize = 64 << 10;

/// Places for large bodies.
#[derive(Clone)]
pub struct LargeBodies(Arc<Semaphore>);

impl Default for LargeBodies {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(LARGE_BODIES_MAX)))
    }
}

/// A request with its body read. Keep it until the body's value is no longer needed.
pub struct Received {
    pub headers: HeaderMap,
    pub body: Bytes,
    _large: Option<OwnedSemaphorePermit>,
}

impl LargeBodies {
    /// Reads a body to its end.
    ///
    /// # Errors
    /// 408 for one that does not come in time, 413 for one over [`BODY_BYTES_MAX`], 400 for one that breaks off.
    pub async fn receive(&self, request: Request) -> Result<Received, StatusError> {
        let (parts, body) = request.into_parts();
        let reading = axum::body::to_bytes(body, BODY_BYTES_MAX);
        let body = tokio::time::timeout(BODY_TIMEOUT, reading)
            .await
            .map_err(|_| {
                StatusError::request_timeout(format!(
                    "the request body did not arrive within {} s: send it faster, or in smaller parts",
                    BODY_TIMEOUT.as_secs()
                ))
            })?
            .map_err(|error| {
                let too_large = std::error::Error::source(&error)
                    .is_some_and(|source| source.is::<LengthLimitError>());
                if too_large {
                    StatusError::request_entity_too_large(format!(
                        "Request entity too large: limit is {BODY_BYTES_MAX}"
                    ))
                } else {
                    StatusError::bad_request(format!("the request body could not be read: {error}"))
                }
            })?;
        let large = if body.len() > LARGE_BODY_BYTES {
            // Bounded by the request's own deadline. The semaphore is never closed.
            Arc::clone(&self.0).acquire_owned().await.ok()
        } else {
            None
        };
        Ok(Received {
            headers: parts.headers,
            body,
            _large: large,
        })
    }
}

/// The time a request has: the server's, or less if the client asks for less (`timeout`, as Kubernetes' clients say it).
///
/// # Errors
/// 400 for a timeout that is no duration.
pub fn of(params: &Params) -> Result<Duration, StatusError> {
    let Some(asked) = params.get("timeout") else {
        return Ok(REQUEST_TIMEOUT);
    };
    let asked = asked
        .parse::<jiff::SignedDuration>()
        .ok()
        .and_then(|duration| Duration::try_from(duration).ok())
        .ok_or_else(|| {
            StatusError::bad_request(format!(
                "invalid timeout specified in the request URL: {asked:?} is no duration such as 30s"
            ))
        })?;
    Ok(if asked.is_zero() {
        REQUEST_TIMEOUT
    } else {
        asked.min(REQUEST_TIMEOUT)
    })
}

/// Lets an answer keep its place until the last of it was handed to the connection, or `end` has come.
///
/// A small one goes at once: it costs less than a task to watch over it.
pub fn hold(response: Response, place: Place, end: Instant, tasks: &TaskTracker) -> Response {
    let size = response.body().size_hint().exact();
    if size.is_some_and(|bytes| bytes <= CHUNK_BYTES as u64) {
        drop(place);
        return response;
    }
    let (mut head, body) = response.into_parts();
    if let Some(bytes) = size {
        head.headers
            .entry(header::CONTENT_LENGTH)
            .or_insert_with(|| HeaderValue::from(bytes));
    }
    let (sender, receiver) = mpsc::channel(1);
    tasks.spawn(async move {
        if tokio::time::timeout_at(end, pass_on(body, &sender))
            .await
            .is_err()
        {
            tracing::debug!("an answer was not read in its time");
        }
        drop(place);
    });
    Response::from_parts(head, Body::new(StreamBody::new(frames(receiver))))
}

/// What is passed on of a body; its end is said, so that one that was given up does not look like a short one.
enum Part {
    Frame(Frame<Bytes>),
    Failed(axum::Error),
    End,
}

async fn pass_on(mut body: Body, sender: &mpsc::Sender<Part>) {
    // A receiver that is gone wants nothing more; the sends that fail then are the end of this.
    while let Some(frame) = body.frame().await {
        let sent = match frame.map(Frame::into_data) {
            Ok(Ok(mut data)) => loop {
                let chunk = data.split_to(data.len().min(CHUNK_BYTES));
                let sent = sender.send(Part::Frame(Frame::data(chunk))).await;
                if sent.is_err() || data.is_empty() {
                    break sent;
                }
            },
            Ok(Err(trailers)) => sender.send(Part::Frame(trailers)).await,
            Err(error) => {
                let _ = sender.send(Part::Failed(error)).await;
                return;
            }
        };
        if sent.is_err() {
            return;
        }
    }
    let _ = sender.send(Part::End).await;
}

fn frames(
    receiver: mpsc::Receiver<Part>,
) -> impl Stream<Item = Result<Frame<Bytes>, axum::Error>> + Send {
    futures::stream::unfold(Some(receiver), |receiver| async {
        let mut receiver = receiver?;
        match receiver.recv().await {
            Some(Part::Frame(frame)) => Some((Ok(frame), Some(receiver))),
            Some(Part::Failed(error)) => Some((Err(error), None)),
            Some(Part::End) => None,
            None => {
                let late = std::io::Error::new(
                    std::io::ErrorKind::TimedOut,
                    "the answer was not read in the time that a request has",
                );
                Some((Err(axum::Error::new(late)), None))
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;
    use crate::http::priority::{Level, Places};

    #[tokio::test(start_paused = true)]
    async fn a_body_that_comes_too_slowly_is_given_up() {
        // A byte a second would go on for weeks; each byte alone is in time.
        let drops = futures::stream::unfold((), |()| async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            Some((Ok::<_, Infallible>(Bytes::from_static(b" ")), ()))
        });
        let began = Instant::now();
        let request = Request::new(Body::from_stream(drops));
        let refused = LargeBodies::default().receive(request).await.err().unwrap();
        assert_eq!(refused.code, 408);
        assert_eq!(began.elapsed(), BODY_TIMEOUT);
    }

    #[tokio::test(start_paused = true)]
    async fn large_bodies_are_worked_on_a_few_at_a_time() {
        let bodies = LargeBodies::default();
        let request = |bytes: usize| Request::new(Body::from(vec![b' '; bytes]));
        let mut held = Vec::new();
        for _ in 0..LARGE_BODIES_MAX {
            held.push(bodies.receive(request(LARGE_BODY_BYTES + 1)).await.unwrap());
        }
        assert!(bodies.receive(request(LARGE_BODY_BYTES)).await.is_ok());
        let next = bodies.receive(request(LARGE_BODY_BYTES + 1));
        let waits = tokio::time::timeout(Duration::from_secs(1), next).await;
        assert!(waits.is_err());
        held.pop();
        assert!(bodies.receive(request(BODY_BYTES_MAX)).await.is_ok());
        let refused = bodies.receive(request(BODY_BYTES_MAX + 1)).await;
        assert_eq!(refused.err().unwrap().code, 413);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_nobody_reads_gives_its_place_back() {
        let places = Places::default();
        let tasks = TaskTracker::new();
        for (bytes, held) in [(CHUNK_BYTES, false), (CHUNK_BYTES * 10, true)] {
            let place = places.take(Level::CatchAll, "a", true).await.unwrap();
            let response = Response::new(Body::from(vec![b'x'; bytes]));
            let end = Instant::now() + REQUEST_TIMEOUT;
            let response = hold(response, place, end, &tasks);
            assert_eq!(
                places.held(Level::CatchAll, true),
                usize::from(held),
                "{bytes}"
            );
            tokio::time::sleep(REQUEST_TIMEOUT * 2).await;
            assert_eq!(places.held(Level::CatchAll, true), 0, "{bytes}");
            // What it reads then is not the whole, and says so.
            let outcome = response.into_body().collect().await;
            assert_eq!(outcome.is_err(), held, "{bytes}");
        }
    }
}
