//! A request body that can be sent again.
//!
//! [`Source`] holds the caller's body; each try gets a [`Source::reader`] that passes frames on as they come and
//! keeps a copy (a reference count, not bytes) while the total stays within [`REPLAY_BYTES_MAX`], and that of all bodies within
//! [`KEPT_BYTES_MAX`]. A body nobody
//! has read yet is replayable whatever its size. Only the newest reader gets frames: an older one, whose try was
//! given up, ends with an error.
//!
//! Nothing waits for the body to be complete, so a callee may answer while the caller is still sending.
//!
//! A body that breaks off, or is not as long as `content-length` said, ends with an error that is known to be its sender's: codecs
//! further on would only say that the stream broke.
//!
//! How long a try waited for the caller is known: it says nothing of whoever answers.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use parking_lot::Mutex;

use crate::{Body, BoxError, headers, messages::Messages};

/// Bodies up to this size are kept for another try; the figure is Linkerd's.
pub(crate) const REPLAY_BYTES_MAX: u64 = 64 << 10;
/// And all of them together on a node: a thousand calls with the longest of them. Beyond it bodies are passed on and not kept.
const KEPT_BYTES_MAX: u64 = 64 << 20;

/// What is kept of all bodies.
static KEPT: AtomicU64 = AtomicU64::new(0);

/// The caller's body, for as many tries as its size allows.
pub(crate) enum Source {
    Empty,
    Stream(Arc<Shared>),
}

pub(crate) struct Shared {
    state: Mutex<State>,
    /// Bytes that the caller has sent so far.
    bytes: AtomicU64,
    /// What `content-length` says.
    declared: Option<u64>,
}

struct State {
    body: Body,
    kept: Vec<Kept>,
    /// Bytes of it, counted in [`KEPT`].
    kept_bytes: u64,
    /// False once the body grew too large to keep.
    keeping: bool,
    ended: bool,
    /// It ended with an error.
    is_broken: bool,
    newest: u32,
    /// Where it is of gRPC.
    messages: Option<Messages>,
    /// Since when the newest reader waits for the caller, and how long it did before that.
    waiting: Option<Instant>,
    waited: Duration,
}

#[derive(Clone)]
enum Kept {
    Data(Bytes),
    Trailers(http::HeaderMap),
}

impl Source {
    /// `declared` is what the message's `content-length` says.
    pub(crate) fn new(body: Body, declared: Option<u64>) -> Self {
        if body.is_end_stream() && declared.unwrap_or(0) == 0 {
            return Source::Empty;
        }
        Source::Stream(Arc::new(Shared {
            state: Mutex::new(State {
                body,
                kept: Vec::new(),
                kept_bytes: 0,
                keeping: true,
                ended: false,
                is_broken: false,
                newest: 0,
                messages: None,
                waiting: None,
                waited: Duration::ZERO,
            }),
            bytes: AtomicU64::new(0),
            declared,
        }))
    }

    /// The same, with its messages counted: it is of gRPC.
    pub(crate) fn of_messages(self) -> Self {
        if let Source::Stream(shared) = &self {
            shared.state.lock().messages = Some(Messages::default());
        }
        self
    }

    /// Whether another try would send the same bytes.
    pub(crate) fn is_replayable(&self) -> bool {
        match self {
            Source::Empty => true,
            Source::Stream(shared) => shared.state.lock().keeping,
        }
    }

    /// Whether it broke off: then whatever failed is its sender's doing.
    pub(crate) fn is_broken(&self) -> bool {
        match self {
            Source::Empty => false,
            Source::Stream(shared) => shared.state.lock().is_broken,
        }
    }

    /// Whether the newest try waits for more of it.
    pub(crate) fn is_waited_for(&self) -> bool {
        match self {
            Source::Empty => false,
            Source::Stream(shared) => {
                let has_all = shared.declared.is_some() && !shared.is_short();
                !has_all && shared.state.lock().waiting.is_some()
            }
        }
    }

    /// The body for the next try; readers handed out earlier get no further frame.
    pub(crate) fn reader(&self) -> Body {
        match self {
            Source::Empty => Body::empty(),
            Source::Stream(shared) => {
                let mut state = shared.state.lock();
                state.newest += 1;
                (state.waiting, state.waited) = (None, Duration::ZERO);
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

    /// Messages that the caller has sent so far; none where it is not of gRPC.
    pub(crate) fn messages(&self) -> u64 {
        let state = self.state.lock();
        state.messages.as_ref().map_or(0, Messages::count)
    }

    /// Whether its sender has nothing more to do.
    pub(crate) fn is_complete(&self) -> bool {
        let state = self.state.lock();
        !state.is_broken && (state.ended || (state.body.is_end_stream() && !self.is_short()))
    }

    /// How long the newest try waited for what came of the caller in the end. While it waits, somebody else may be at work: that is
    /// not counted.
    pub(crate) fn waited(&self) -> Duration {
        self.state.lock().waited
    }

    /// Whether less came than was declared.
    fn is_short(&self) -> bool {
        self.declared
            .is_some_and(|declared| self.bytes() < declared)
    }

    /// Counts a frame, or the end, against what was declared. Lines at its end may say no more than those at its beginning.
    fn check(
        &self,
        mut frame: Option<Result<Frame<Bytes>, BoxError>>,
    ) -> Option<Result<Frame<Bytes>, BoxError>> {
        let is_last = match &mut frame {
            Some(Err(_)) => return frame,
            Some(Ok(frame)) => {
                if let Some(trailers) = frame.trailers_mut() {
                    headers::strip_forged(trailers);
                    headers::strip_hop_by_hop(trailers);
                }
                let sent = frame.data_ref().map_or(0, Bytes::len) as u64;
                self.bytes.fetch_add(sent, Ordering::Relaxed);
                frame.is_trailers()
            }
            None => true,
        };
        let (sent, Some(declared)) = (self.bytes(), self.declared) else {
            return frame;
        };
        if sent > declared || (is_last && sent < declared) {
            return Some(Err(Mismatch { declared, sent }.into()));
        }
        frame
    }
}

impl State {
    /// Whether so many bytes more may be kept; if so, they are counted.
    fn keep(&mut self, more: u64) -> bool {
        let all = KEPT.fetch_add(more, Ordering::Relaxed).saturating_add(more);
        self.kept_bytes += more;
        all <= KEPT_BYTES_MAX
    }

    fn let_go(&mut self) {
        let bytes = std::mem::take(&mut self.kept_bytes);
        KEPT.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Drop for State {
    fn drop(&mut self) {
        self.let_go();
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

#[derive(Debug, thiserror::Error)]
#[error("the request body has {sent} bytes where content-length says {declared}")]
struct Mismatch {
    declared: u64,
    sent: u64,
}

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
            this.hint = SizeHint::default();
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
            state.waiting.get_or_insert_with(Instant::now);
            return Poll::Pending;
        };
        // What is there when it is asked for costs no look at the clock.
        if let Some(since) = state.waiting.take() {
            state.waited = state.waited.saturating_add(since.elapsed());
        }
        // What was said before the first frame is not true of the rest.
        this.hint = SizeHint::default();
        let frame = this.shared.check(frame);
        match &frame {
            None => state.ended = true,
            // What the caller failed to send cannot be sent again.
            Some(Err(_)) => {
                state.keeping = false;
                state.ended = true;
                state.is_broken = true;
            }
            Some(Ok(frame)) => {
                if let (Some(messages), Some(data)) = (&mut state.messages, frame.data_ref()) {
                    messages.pass(data);
                }
                let total = this.shared.bytes();
                let more = frame.data_ref().map_or(0, Bytes::len) as u64;
                if state.keeping && (total > REPLAY_BYTES_MAX || !state.keep(more)) {
                    state.keeping = false;
                    state.kept = Vec::new();
                    state.let_go();
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
            && (state.ended || (state.body.is_end_stream() && !self.shared.is_short()))
    }

    fn size_hint(&self) -> SizeHint {
        // Asked by codecs before the first frame, to choose between a length and chunks.
        self.hint
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
        let source = Source::new(body(&[10, 20]), None);
        for _ in 0..3 {
            assert_eq!(read(source.reader()).await.expect("readable"), 30);
            assert!(source.is_replayable());
        }
        assert_eq!(source.counter().expect("a stream").bytes(), 30);
    }

    /// Tests run beside each other, so that only what one body adds is known of the sum.
    #[tokio::test]
    async fn what_is_kept_of_all_bodies_is_counted_until_they_are_gone() {
        let source = Source::new(body(&[10, 20]), None);
        let kept = |source: &Source| match source {
            Source::Empty => 0,
            Source::Stream(shared) => shared.state.lock().kept_bytes,
        };
        read(source.reader()).await.expect("readable");
        assert_eq!(kept(&source), 30);
        read(source.reader()).await.expect("readable");
        assert_eq!(kept(&source), 30, "it is kept once");
        let long = Source::new(body(&[10, 64 << 10]), None);
        read(long.reader()).await.expect("readable");
        assert_eq!(kept(&long), 0);
        let Source::Stream(shared) = &source else {
            panic!("a stream");
        };
        assert!(
            !shared.state.lock().keep(KEPT_BYTES_MAX),
            "there is no room"
        );
    }

    #[tokio::test]
    async fn a_try_given_up_halfway_leaves_the_rest_to_the_next() {
        let source = Source::new(body(&[10, 20]), None);
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
        let source = Source::new(body(&[40 << 10, 40 << 10, 5]), None);
        drop(source.reader());
        assert!(source.is_replayable());
        assert_eq!(
            read(source.reader()).await.expect("readable"),
            (80 << 10) + 5
        );
        assert!(!source.is_replayable());
    }

    #[tokio::test]
    async fn a_body_is_as_long_as_it_says_or_its_sender_is_to_blame() {
        for (chunks, declared, expected) in [
            (&[10, 20][..], Some(30), Ok(30)),
            (&[10, 20], None, Ok(30)),
            (
                &[10, 20],
                Some(29),
                Err("the request body has 30 bytes where content-length says 29"),
            ),
            (
                &[10, 20],
                Some(31),
                Err("the request body has 30 bytes where content-length says 31"),
            ),
            (
                &[],
                Some(1),
                Err("the request body has 0 bytes where content-length says 1"),
            ),
            (&[], Some(0), Ok(0)),
        ] {
            let source = Source::new(body(chunks), declared);
            let found = read(source.reader())
                .await
                .map_err(|error| error.to_string());
            assert_eq!(
                found,
                expected.map_err(str::to_owned),
                "{chunks:?} {declared:?}"
            );
            assert_eq!(
                source.is_broken(),
                expected.is_err(),
                "{chunks:?} {declared:?}"
            );
            assert_eq!(source.is_replayable(), expected.is_ok());
            let complete = source.counter().is_none_or(|shared| shared.is_complete());
            assert_eq!(complete, expected.is_ok(), "{chunks:?} {declared:?}");
        }
        // A codec that asks whether this is the end before it asks for the next frame.
        let short = Source::new(Body::empty(), Some(5));
        assert!(!short.reader().is_end_stream());
    }

    #[tokio::test]
    async fn a_try_waits_for_the_caller_in_its_own_time_only() {
        let pause = Duration::from_millis(20);
        let parts = futures::stream::iter(1..=2).then(move |number| async move {
            tokio::time::sleep(pause).await;
            Ok::<_, BoxError>(Frame::data(Bytes::from(vec![b'x'; number])))
        });
        let source = Source::new(Body::new(StreamBody::new(parts)), None);
        let waited = || source.counter().expect("a stream").waited();
        let mut first = source.reader();
        first.frame().await.expect("a frame").expect("data");
        assert!(waited() >= pause / 2);
        let mut second = source.reader();
        second.frame().await.expect("a frame").expect("data");
        assert_eq!(waited(), Duration::ZERO, "it was kept");
        second.frame().await.expect("a frame").expect("data");
        assert!(waited() >= pause / 2);
    }

    /// A rule's time for one try ran out while the caller was sending, and the endpoint was ejected for it.
    #[tokio::test]
    async fn a_try_that_waits_for_the_caller_is_known() {
        let never = futures::stream::pending::<Result<Frame<Bytes>, BoxError>>();
        let source = Source::new(Body::new(StreamBody::new(never)), None);
        let mut reader = source.reader();
        assert!(!source.is_waited_for(), "nobody has asked for it yet");
        assert!(futures::poll!(reader.frame()).is_pending());
        assert!(source.is_waited_for());
        let _again = source.reader();
        assert!(!source.is_waited_for(), "the next try has not");
    }

    #[test]
    fn an_empty_body_stays_empty() {
        let source = Source::new(Body::empty(), None);
        assert!(matches!(source, Source::Empty));
        assert!(source.reader().is_end_stream());
    }
}
