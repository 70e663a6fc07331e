//! The one body type of requests and responses, on both sides of a guest and on both sides of the mesh.
//!
//! Most bodies are a few bytes that are there when their head is. Such a body is [whole](Body::is_whole): it costs no allocation of
//! its own, and whoever follows a call to its end knows that this is the end.
//!
//! Invariant: a whole body has no trailers and no failure.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

/// What can go wrong in the middle of a body.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

type Streamed = Pin<Box<dyn http_body::Body<Data = Bytes, Error = BoxError> + Send>>;

/// A body. It is polled by one task at a time and may move between threads.
pub struct Body(Kind);

enum Kind {
    /// What is left of it.
    Whole(Bytes),
    Streamed(Streamed),
}

impl Body {
    /// A body that comes in its own time.
    pub fn new<B>(body: B) -> Self
    where
        B: http_body::Body<Data = Bytes, Error = BoxError> + Send + 'static,
    {
        Self(Kind::Streamed(Box::pin(body)))
    }

    /// A body without bytes.
    #[must_use]
    pub const fn empty() -> Self {
        Self(Kind::Whole(Bytes::new()))
    }

    /// A body that is already complete.
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        Self(Kind::Whole(bytes.into()))
    }

    /// How many bytes it has if all of it is in memory: who reads it waits for nobody. None of one that comes in its own time,
    /// even if its length is known.
    #[must_use]
    pub fn is_whole(&self) -> Option<u64> {
        match &self.0 {
            Kind::Whole(bytes) => Some(bytes.len() as u64),
            Kind::Streamed(_) => None,
        }
    }

    /// Its bytes, if it is whole.
    ///
    /// # Errors
    /// The body as it was, if it comes in its own time.
    pub fn into_whole(self) -> Result<Bytes, Self> {
        match self.0 {
            Kind::Whole(bytes) => Ok(bytes),
            streamed @ Kind::Streamed(_) => Err(Self(streamed)),
        }
    }
}

impl Default for Body {
    fn default() -> Self {
        Self::empty()
    }
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.is_whole() {
            Some(bytes) => write!(f, "Body({bytes} bytes)"),
            None => f.write_str("Body(streamed)"),
        }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut self.0 {
            Kind::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Kind::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Kind::Streamed(body) => body.as_mut().poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Whole(bytes) => bytes.is_empty(),
            Kind::Streamed(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Streamed(body) => body.size_hint(),
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body::Body as _;

    use super::*;

    /// The frames of a body that waits for nothing: bytes of data, `t` for trailers.
    fn frames(mut body: Body) -> String {
        let mut context = Context::from_waker(std::task::Waker::noop());
        let mut text = String::new();
        while let Poll::Ready(Some(Ok(frame))) = Pin::new(&mut body).poll_frame(&mut context) {
            text += &frame
                .data_ref()
                .map_or("t ".to_owned(), |data| format!("{} ", data.len()));
        }
        text + if body.is_end_stream() { "end" } else { "open" }
    }

    /// Two frames, the second of which are trailers.
    struct Trailing(u8);

    impl http_body::Body for Trailing {
        type Data = Bytes;
        type Error = BoxError;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
            self.0 += 1;
            Poll::Ready(match self.0 {
                1 => Some(Ok(Frame::data(Bytes::from_static(b"abc")))),
                2 => Some(Ok(Frame::trailers(http::HeaderMap::new()))),
                _ => None,
            })
        }

        fn is_end_stream(&self) -> bool {
            self.0 > 1
        }

        fn size_hint(&self) -> SizeHint {
            SizeHint::with_exact(3)
        }
    }

    #[test]
    fn a_body_says_whether_there_is_anything_to_wait_for() {
        for (body, whole, exact, read) in [
            (Body::empty(), Some(0), Some(0), "end"),
            (Body::default(), Some(0), Some(0), "end"),
            (Body::full(""), Some(0), Some(0), "end"),
            (Body::full("hello"), Some(5), Some(5), "5 end"),
            (Body::new(Body::full("hello")), None, Some(5), "5 end"),
            (Body::new(Trailing(0)), None, Some(3), "3 t end"),
        ] {
            let shown = format!("{body:?}");
            assert_eq!(body.is_whole(), whole, "{shown}");
            assert_eq!(body.size_hint().exact(), exact, "{shown}");
            assert_eq!(frames(body), read, "{shown}");
        }
    }
}
