//! The one body type of requests and responses, on both sides of a guest.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
pub use weft_call::{Body, BoxError};

/// Takes what is ready of a response's body: a body of one chunk comes out complete.
///
/// A server then writes head and body to the socket at once, and says the length instead of sending chunks. A guest that
/// has returned its response's head may need its turn before there is a chunk, and another one before there is an
/// end: up to `rounds` times, the tasks that are ready now go first. Nothing is waited for beyond that.
pub(crate) async fn gather<B>(mut body: B, rounds: u32) -> Gathered<B>
where
    B: http_body::Body<Data = Bytes, Error = BoxError> + Unpin,
{
    let (mut first, mut next) = (None, None);
    let mut rounds_left = rounds;
    while !body.is_end_stream() {
        let polled = poll_fn(|cx| Poll::Ready(Pin::new(&mut body).poll_frame(cx))).await;
        match polled {
            Poll::Ready(Some(Ok(frame))) if first.is_none() && frame.is_data() => {
                first = Some(frame)
            }
            Poll::Ready(frame) => {
                next = Some(frame);
                break;
            }
            Poll::Pending if rounds_left == 0 => break,
            Poll::Pending => {
                rounds_left -= 1;
                after_others().await;
            }
        }
    }
    Gathered { first, next, body }
}

/// Lets the tasks run that are ready now.
async fn after_others() {
    let mut waited = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut waited, true) {
            return Poll::Ready(());
        }
        // Not tokio's `yield_now`, which would look for I/O first.
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// A body of which some was taken already.
pub(crate) struct Gathered<B> {
    first: Option<Frame<Bytes>>,
    /// What came after it, its end included.
    next: Option<Option<Result<Frame<Bytes>, BoxError>>>,
    body: B,
}

impl<B> Gathered<B>
where
    B: http_body::Body<Data = Bytes, Error = BoxError>,
{
    /// All of the body's bytes, if they are here.
    pub(crate) fn whole(&self) -> Option<Bytes> {
        let is_whole = match &self.next {
            Some(next) => next.is_none(),
            None => self.body.is_end_stream(),
        };
        let first = self.first.as_ref().and_then(Frame::data_ref);
        is_whole.then(|| first.cloned().unwrap_or_default())
    }
}

impl<B> http_body::Body for Gathered<B>
where
    B: http_body::Body<Data = Bytes, Error = BoxError> + Unpin,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Some(frame) = self.first.take() {
            return Poll::Ready(Some(Ok(frame)));
        }
        match &mut self.next {
            // An end stays an end, however often it is asked for.
            Some(None) => Poll::Ready(None),
            Some(_) => Poll::Ready(self.next.take().flatten()),
            None => Pin::new(&mut self.body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none()
            && match &self.next {
                Some(next) => next.is_none(),
                None => self.body.is_end_stream(),
            }
    }

    fn size_hint(&self) -> SizeHint {
        let data = |frame: &Frame<Bytes>| frame.data_ref().map_or(0, Bytes::len) as u64;
        let first = self.first.as_ref().map_or(0, data);
        match &self.next {
            Some(None) => SizeHint::with_exact(first),
            Some(Some(Ok(frame))) => {
                let mut hint = SizeHint::new();
                hint.set_lower(first + data(frame));
                hint
            }
            Some(Some(Err(_))) => SizeHint::new(),
            None => {
                let rest = self.body.size_hint();
                let mut hint = SizeHint::new();
                hint.set_lower(first.saturating_add(rest.lower()));
                if let Some(upper) = rest.upper() {
                    hint.set_upper(first.saturating_add(upper));
                }
                hint
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use http_body::Body as _;
    use http_body_util::BodyExt as _;

    use super::*;

    /// A body that is a script: none is a moment when nothing is ready.
    struct Script(VecDeque<Option<Result<Frame<Bytes>, BoxError>>>);

    impl http_body::Body for Script {
        type Data = Bytes;
        type Error = BoxError;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
            match self.0.pop_front() {
                None => Poll::Ready(None),
                Some(None) => {
                    cx.waker().wake_by_ref();
                    Poll::Pending
                }
                Some(Some(frame)) => Poll::Ready(Some(frame)),
            }
        }
    }

    fn script(text: &str) -> Body {
        let steps = text.chars().map(|step| match step {
            '.' => None,
            '!' => Some(Err("broken".into())),
            't' => Some(Ok(Frame::trailers(http::HeaderMap::new()))),
            other => Some(Ok(Frame::data(Bytes::from(other.to_string())))),
        });
        Body::new(Script(steps.collect()))
    }

    /// Which frames come out, `t` for trailers and `!` for an error.
    async fn frames<B>(mut body: B) -> String
    where
        B: http_body::Body<Data = Bytes, Error = BoxError> + Unpin,
    {
        let mut text = String::new();
        while let Some(frame) = body.frame().await {
            match frame.map(Frame::into_data) {
                Ok(Ok(data)) => text += std::str::from_utf8(&data).unwrap(),
                Ok(Err(_)) => text.push('t'),
                Err(_) => text.push('!'),
            }
        }
        text
    }

    #[tokio::test]
    async fn what_is_ready_is_taken_and_nothing_is_lost() {
        for (steps, rounds, length, whole) in [
            ("", 3, Some(0), ""),
            ("a", 0, Some(1), "a"),
            (".a.", 3, Some(1), "a"),
            ("..a..", 3, None, "a"),
            (".a", 0, None, "a"),
            ("ab", 3, None, "ab"),
            ("at", 3, None, "at"),
            ("t", 3, None, "t"),
            ("a!", 3, None, "a!"),
            ("!", 3, None, "!"),
            ("a.b.c", 3, None, "abc"),
        ] {
            let body = gather(script(steps), rounds).await;
            assert_eq!(body.size_hint().exact(), length, "{steps}");
            let all = body.whole().map(|bytes| bytes.len() as u64);
            assert_eq!(all, length, "{steps}");
            assert_eq!(frames(body).await, whole, "{steps}");
        }
    }

    #[tokio::test]
    async fn a_whole_body_ends_with_its_first_frame() {
        let mut body = gather(script("a"), 0).await;
        assert!(!body.is_end_stream());
        assert!(body.frame().await.unwrap().unwrap().is_data());
        assert!(body.is_end_stream());
        assert!(body.frame().await.is_none());
        assert!(body.frame().await.is_none());
    }
}
