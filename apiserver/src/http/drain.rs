//! Reading what a refused request still sends.
//!
//! An answer that comes before its request was read makes HTTP/2 reset the stream. That is allowed, and the answer must
//! not be lost by it, but widespread clients (curl up to 7.88 among them) lose it every other time: the user sees an
//! empty reply where a sentence was sent. So what a handler left unread is read here, and thrown away.
//!
//! Invariant: never more than [`DRAIN_BYTES_MAX`] or longer than [`DRAIN_TIME_MAX`]; beyond that the stream is reset.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use http_body_util::BodyExt as _;
use hyper::body::{Frame, SizeHint};
use parking_lot::Mutex;

/// Most that is read of a body that nobody wants, as in Go's HTTP server.
const DRAIN_BYTES_MAX: usize = 256 << 10;
/// Longest wait for it; a client that sends slower is not waiting for our answer either.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(1);

/// The rest of a request's body, wherever the handler has got to.
pub struct Rest(Arc<Mutex<Body>>);

/// Splits a body into what the handler reads from and what is left when it answered.
pub fn split(body: Body) -> (Body, Rest) {
    let shared = Arc::new(Mutex::new(body));
    (Body::new(Shared(shared.clone())), Rest(shared))
}

impl Rest {
    /// Reads what is left. Errors end it: they are the client's, and it has its answer.
    pub async fn drain(self) {
        let mut body = Shared(self.0);
        let reading = async {
            let mut seen = 0;
            while seen < DRAIN_BYTES_MAX
                && !body.is_end_stream()
                && let Some(Ok(frame)) = body.frame().await
            {
                seen += frame.data_ref().map_or(0, Bytes::len);
            }
        };
        // Too slow is as good as read.
        let _ = tokio::time::timeout(DRAIN_TIME_MAX, reading).await;
    }
}

struct Shared(Arc<Mutex<Body>>);

impl HttpBody for Shared {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut *self.0.lock()).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.0.lock().is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.lock().size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::StreamExt as _;

    use super::*;

    /// A body of so many chunks of 64 KiB that counts the ones it was asked for.
    fn counted(chunks: usize) -> (Body, Arc<AtomicUsize>) {
        let asked = Arc::new(AtomicUsize::new(0));
        let counter = asked.clone();
        let stream = futures::stream::iter(0..chunks).map(move |_| {
            counter.fetch_add(1, Ordering::Relaxed);
            Ok::<_, std::io::Error>(Bytes::from_static(&[0; 64 << 10]))
        });
        (Body::from_stream(stream), asked)
    }

    #[tokio::test]
    async fn what_a_handler_left_is_read_up_to_the_limit() {
        for (chunks, taken, read) in [(3, 0, 3), (3, 1, 3), (3, 3, 3), (100, 0, 4), (0, 0, 0)] {
            let (body, asked) = counted(chunks);
            let (mut body, rest) = split(body);
            for _ in 0..taken {
                body.frame().await.unwrap().unwrap();
            }
            drop(body);
            rest.drain().await;
            assert_eq!(
                asked.load(Ordering::Relaxed),
                read,
                "{taken} of {chunks} taken"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_never_comes_is_given_up() {
        let (_, rest) = split(Body::from_stream(futures::stream::pending::<
            Result<Bytes, std::io::Error>,
        >()));
        rest.drain().await;
    }
}
