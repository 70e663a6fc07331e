//! Bodies of requests: bounded in size and time, and the large ones few at a time and out of the way of others.
//!
//! A body of 3 MiB is a tenth of a second of work: it is parsed, merged, judged and written again, all without waiting. On one of the two
//! threads that answer requests it would keep everybody waiting for as long, nodes' leases among them, so what is done with a
//! large body is done beside them ([`Heavy`]).
//!
//! Invariants: no body is read before who sends it was authorised; one that comes too slowly is given up with 408; of large bodies, which
//! cost some thirty times their size once they are values, few are worked on at a time.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::extract::Request;
use bytes::Bytes;
use http::HeaderMap;
use http_body_util::LengthLimitError;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use weft_api::status::StatusError;

use super::negotiate;
use crate::audit::Trail;

/// For the whole body: 3 MiB in this time is what a modem of 1 Mbit/s does.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// Largest request body, as in Kubernetes.
pub const BODY_BYTES_MAX: usize = 3 << 20;
/// Bodies up to this size are worked on without asking.
const LARGE_BODY_BYTES: usize = 256 << 10;
/// Larger ones that are worked on at a time: some 90 MB each at the worst.
const LARGE_BODIES_MAX: usize = 8;

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
    /// Reads a body to its end. What is done with a large one from then on is done beside the threads that others wait for.
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
            let place = Arc::clone(&self.0).acquire_owned().await.ok();
            if let Some(heavy) = parts.extensions.get::<Heavy>() {
                heavy.begin().await;
            }
            place
        } else {
            None
        };
        let trail = parts.extensions.get::<Trail>();
        if let Some(trail) = trail.filter(|trail| trail.wants_body()) {
            trail.sent(&in_json(&parts.headers, &body));
        }
        Ok(Received {
            headers: parts.headers,
            body,
            _large: large,
        })
    }
}

/// A body as the audit log has it. What cannot be read is left as it is.
fn in_json(headers: &HeaderMap, body: &Bytes) -> Bytes {
    match negotiate::media_type(headers) {
        "" | "application/json" => body.clone(),
        _ => negotiate::decode(headers, body).map_or_else(
            |_| body.clone(),
            |decoded| Bytes::from(decoded.value.to_string()),
        ),
    }
}

/// Whether the rest of a request is heavy work. In its extensions; clones are the same request's.
#[derive(Clone, Default)]
pub struct Heavy(Arc<AtomicBool>);

impl Heavy {
    /// From the next step on it is.
    async fn begin(&self) {
        self.0.store(true, Ordering::Relaxed);
        tokio::task::yield_now().await;
    }

    /// Runs the handler of the request. While it is heavy, the other tasks of its thread are given to another one for each of its steps.
    #[allow(clippy::disallowed_methods)] // A handler cannot move to another thread by spawn_blocking; where there is one thread, it stays.
    pub async fn run<F: Future>(&self, handler: F) -> F::Output {
        // A runtime of one thread has none to give them to.
        let has_others = Handle::current().runtime_flavor() == RuntimeFlavor::MultiThread;
        let mut handler = pin!(handler);
        poll_fn(|context| {
            if has_others && self.0.load(Ordering::Relaxed) {
                tokio::task::block_in_place(|| handler.as_mut().poll(context))
            } else {
                handler.as_mut().poll(context)
            }
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use axum::body::Body;
    use tokio::time::Instant;

    use super::*;

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

    /// With one thread, whatever it does in one step keeps all others waiting: unless that step is given a thread of its own.
    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn what_is_done_with_a_large_body_keeps_nobody_waiting() {
        let bodies = LargeBodies::default();
        let heavy = Heavy::default();
        let mut request = Request::new(Body::from(vec![b' '; LARGE_BODY_BYTES + 1]));
        request.extensions_mut().insert(heavy.clone());
        let (begun, begins) = std::sync::mpsc::channel();
        let (answered, answers) = std::sync::mpsc::channel();
        let large = tokio::spawn(async move {
            let handler = async move {
                let _received = bodies.receive(request).await.unwrap();
                begun.send(()).unwrap();
                // Goes on until somebody else was answered.
                answers.recv_timeout(Duration::from_secs(60)).unwrap();
            };
            heavy.run(handler).await;
        });
        tokio::task::spawn_blocking(move || begins.recv().unwrap())
            .await
            .unwrap();
        tokio::spawn(async move { answered.send(()).unwrap() })
            .await
            .unwrap();
        large.await.unwrap();
    }
}
