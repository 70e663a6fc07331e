//! A request body that can be sent again.
//!
//! [`Source`] holds the caller's body; each try gets a [`Source::reader`] that passes frames on as they come and
//! keeps a copy (a reference count, not bytes) while the total stays within [`REPLAY_BYTES_MAX`]. A body nobody
//! has read yet is replayable whatever its size. Only the newest reader gets frames: an older one, whose try was
//! given up, ends with an error.
//!
//! Nothing waits for the body to be complete, so a callee may answer while the caller is still sending.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use parking_lot::Mutex;

use crate::{Body, BoxError, empty_body};

/// Bodies up to this size are kept for another try; the figure is Linkerd's.
pub(crate) const REPLAY_BYTES_MAX: u64 = 64 << 10;

/// The caller's body, for as many tries as its size allows.
pub(crate) enum Source {
    Empty,
    Stream(Arc<Shared>),
}

pub(crate) struct Shared {
    state: Mutex<State>,
    /// Bytes that the caller has sent so far.
    bytes: AtomicU64,
}

struct State {
    body: Body,
    kept: Vec<Kept>,
    /// False once the body grew too large to keep.
    keeping: bool,
    ended: bool,
    newest: u32,
}

#[derive(Clone)]
enum Kept {
    Data(Bytes),
    Trailers(http::HeaderMap),
}

impl Source {
    pub(crate) fn new(body: Body) -> Self {
        if body.is_end_stream() {
            return Source::Empty;
        }
        Source::Stream(Arc::new(Shared {
            state: Mutex::new(State {
                body,
                kept: Vec::new(),
                keeping: true,
                ended: false,
                newest: 0,
            }),
            bytes: AtomicU64::new(0),
        }))
    }

    /// Whether another try would send the same bytes.
    pub(crate) fn is_replayable(&self) -> bool {
        match self {
            Source::Empty => true,
            Source::Stream(shared) => shared.state.lock().keeping,
        }
    }

    /// The body for the next try; readers handed out earlier get no further frame.
    pub(crate) fn reader(&self) -> Body {
        match self {
            Source::Empty => empty_body(),
            Source::Stream(shared) => {
                let mut state = shared.state.lock();
                state.newest += 1;
                let hint = if state.kept.is_empty() && !state.ended {
                    state.body.size_hint()
                } else {
                    SizeHint::default()
                };
                Body::new(Reader {
                    shared: Arc::clone(shared),
                    number: state.newest,
                    position: 0,
                    hint,
                })
            }
        }
    }

    /// A counter of the bytes sent, if there are any to come.
    pub(crate) fn counter(&self) -> Option<Arc<Shared>> {
        match self {
            Source::Empty => None,
            Source::Stream(shared) => Some(Arc::clone(shared)),
        }
    }
}

impl Shared {
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

struct Reader {
    shared: Arc<Shared>,
    number: u32,
    position: usize,
    hint: SizeHint,
}

#[derive(Debug, thiserror::Error)]
#[error("the request body was handed to another try")]
struct Superseded;

impl http_body::Body for Reader {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        let mut state = this.shared.state.lock();
        if state.newest != this.number {
            return Poll::Ready(Some(Err(Superseded.into())));
        }
        if let Some(kept) = state.kept.get(this.position).cloned() {
            this.position += 1;
            return Poll::Ready(Some(Ok(match kept {
                Kept::Data(bytes) => Frame::data(bytes),
                Kept::Trailers(trailers) => Frame::trailers(trailers),
            })));
        }
        if state.ended {
            return Poll::Ready(None);
        }
        let Poll::Ready(frame) = Pin::new(&mut state.body).poll_frame(context) else {
            return Poll::Pending;
        };
        match &frame {
            None => state.ended = true,
            // What the caller failed to send cannot be sent again.
            Some(Err(_)) => {
                state.keeping = false;
                state.ended = true;
            }
            Some(Ok(frame)) => {
                let total = match frame.data_ref() {
                    Some(data) => {
                        let sent = data.len() as u64;
                        this.shared.bytes.fetch_add(sent, Ordering::Relaxed) + sent
                    }
                    None => this.shared.bytes(),
                };
                if total > REPLAY_BYTES_MAX {
                    state.keeping = false;
                    state.kept = Vec::new();
                    this.position = 0;
                }
                if state.keeping {
                    if let Some(data) = frame.data_ref() {
                        state.kept.push(Kept::Data(data.clone()));
                        this.position += 1;
                    } else if let Some(trailers) = frame.trailers_ref() {
                        state.kept.push(Kept::Trailers(trailers.clone()));
                        this.position += 1;
                    }
                }
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        let state = self.shared.state.lock();
        state.newest == self.number
            && self.position == state.kept.len()
            && (state.ended || state.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        // Asked by codecs before the first frame, to choose between a length and chunks.
        if self.position == 0 {
            self.hint
        } else {
            SizeHint::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;
    use http_body_util::{BodyExt, StreamBody};

    use super::*;

    fn body(chunks: &[usize]) -> Body {
        let frames: Vec<Result<Frame<Bytes>, BoxError>> = chunks
            .iter()
            .map(|&length| Ok(Frame::data(Bytes::from(vec![b'x'; length]))))
            .collect();
        Body::new(StreamBody::new(futures::stream::iter(frames).fuse()))
    }

    async fn read(body: Body) -> Result<usize, BoxError> {
        Ok(body.collect().await?.to_bytes().len())
    }

    #[tokio::test]
    async fn a_small_body_is_sent_as_often_as_needed() {
        let source = Source::new(body(&[10, 20]));
        for _ in 0..3 {
            assert_eq!(read(source.reader()).await.expect("readable"), 30);
            assert!(source.is_replayable());
        }
        assert_eq!(source.counter().expect("a stream").bytes(), 30);
    }

    #[tokio::test]
    async fn a_try_given_up_halfway_leaves_the_rest_to_the_next() {
        let source = Source::new(body(&[10, 20]));
        let mut first = source.reader();
        first.frame().await.expect("a frame").expect("data");
        assert_eq!(read(source.reader()).await.expect("readable"), 30);
        let error = first
            .frame()
            .await
            .expect("an end")
            .expect_err("taken over");
        assert_eq!(
            error.to_string(),
            "the request body was handed to another try"
        );
    }

    #[tokio::test]
    async fn a_large_body_passes_once_and_is_replayable_until_touched() {
        let source = Source::new(body(&[40 << 10, 40 << 10, 5]));
        drop(source.reader());
        assert!(source.is_replayable());
        assert_eq!(
            read(source.reader()).await.expect("readable"),
            (80 << 10) + 5
        );
        assert!(!source.is_replayable());
    }

    #[test]
    fn an_empty_body_stays_empty() {
        let source = Source::new(empty_body());
        assert!(matches!(source, Source::Empty));
        assert!(source.reader().is_end_stream());
    }
}
