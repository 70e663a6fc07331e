//! Copies of requests for backends whose answers nobody hears.
//!
//! A copy's body is what its original's callee reads, while it reads it: nothing is read for the copy alone, and a backend that is slow to
//! take it loses it rather than to hold the original up.
//!
//! Invariants: at most [`MIRRORS_MAX`] copies are under way, further ones are left out; each ends within [`MIRROR_MAX`]; nothing that
//! becomes of one is seen by the caller.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt as _;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::task::TaskTracker;

use crate::{Body, BoxError, outbound::Calling};

const MIRRORS_MAX: usize = 1024;
const MIRROR_MAX: Duration = Duration::from_secs(30);
/// Pieces of a body that a copy may be behind.
const PIECES_MAX: usize = 64;

/// All copies of a node that are under way.
pub(crate) struct Mirrors {
    places: Arc<Semaphore>,
    tasks: TaskTracker,
}

impl Default for Mirrors {
    fn default() -> Self {
        Self {
            places: Arc::new(Semaphore::new(MIRRORS_MAX)),
            tasks: TaskTracker::new(),
        }
    }
}

impl Mirrors {
    /// Makes a call, and hears its answer to the end.
    pub(crate) fn begin(&self, calling: Calling) {
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            tracing::debug!("a copy of a request is left out, there are as many as may be");
            return;
        };
        self.tasks.spawn(async move {
            let heard = async {
                let mut body = calling.await.ok()?.into_body();
                while let Some(frame) = body.frame().await {
                    frame.ok()?;
                }
                Some(())
            };
            // Whether it took too long is nobody's concern.
            let _ = tokio::time::timeout(MIRROR_MAX, heard).await;
            drop(place);
        });
    }
}

enum Piece {
    Data(Bytes),
    End,
}

/// The body, and `count` copies of it.
pub(crate) fn tee(body: Body, count: usize) -> (Body, Vec<Body>) {
    if body.is_end_stream() {
        return (body, (0..count).map(|_| Body::empty()).collect());
    }
    let (sinks, copies) = (0..count)
        .map(|_| {
            let (sink, pieces) = mpsc::channel(PIECES_MAX);
            (
                sink,
                Body::new(Copy {
                    pieces,
                    ended: false,
                }),
            )
        })
        .unzip();
    (Body::new(Tee { body, sinks }), copies)
}

/// A body that is copied as it is read.
struct Tee {
    body: Body,
    sinks: Vec<mpsc::Sender<Piece>>,
}

impl http_body::Body for Tee {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        match &polled {
            Poll::Pending => {}
            Poll::Ready(None) => self.sinks.retain(|sink| sink.try_send(Piece::End).is_ok()),
            Poll::Ready(Some(Err(_))) => self.sinks.clear(),
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    let data = data.clone();
                    self.sinks
                        .retain(|sink| sink.try_send(Piece::Data(data.clone())).is_ok());
                }
                if self.body.is_end_stream() {
                    self.sinks.retain(|sink| sink.try_send(Piece::End).is_ok());
                }
            }
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

struct Copy {
    pieces: mpsc::Receiver<Piece>,
    ended: bool,
}

impl http_body::Body for Copy {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        self.pieces.poll_recv(cx).map(|piece| match piece {
            Some(Piece::Data(data)) => Some(Ok(Frame::data(data))),
            Some(Piece::End) => {
                self.ended = true;
                None
            }
            None => {
                self.ended = true;
                Some(Err("the original broke off, or was too fast".into()))
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::StreamBody;

    use super::*;

    fn body(parts: Vec<Result<&'static str, BoxError>>) -> Body {
        let frames = parts
            .into_iter()
            .map(|part| part.map(|part| Frame::data(Bytes::from_static(part.as_bytes()))));
        Body::new(StreamBody::new(futures::stream::iter(frames)))
    }

    #[tokio::test]
    async fn copies_have_what_the_original_had_or_break_off_as_it_did() {
        let (original, copies) = tee(body(vec![Ok("a"), Ok("b")]), 2);
        assert_eq!(original.collect().await.expect("bytes").to_bytes(), "ab");
        for copy in copies {
            assert_eq!(copy.collect().await.expect("bytes").to_bytes(), "ab");
        }
        let (original, copies) = tee(body(vec![Ok("a"), Err("it broke".into())]), 1);
        assert!(original.collect().await.is_err());
        for copy in copies {
            assert!(copy.collect().await.is_err());
        }
    }

    #[tokio::test]
    async fn a_slow_copy_holds_nobody_up() {
        let parts = (0..=PIECES_MAX).map(|_| Ok("a")).collect();
        let (original, copies) = tee(body(parts), 1);
        let read = original.collect().await.expect("bytes").to_bytes();
        assert_eq!(read.len(), PIECES_MAX + 1);
        for copy in copies {
            assert!(copy.collect().await.is_err());
        }
    }
}
