//! The status of a call of gRPC that says nothing but how it ended, looked for before anything of its answer is passed on.
//!
//! A server that fails without a message says so in a head that is all there is, or in trailers that follow the head. The first frame of a body
//! tells those from the beginning of an answer; it is put back in front.
//!
//! Invariants: no byte is lost, added or held back for longer than [`TRAILERS_WAIT`]; who gives up waiting loses nothing.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::Response;
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt as _;

use crate::{Body, BoxError, measure};

/// How long a head waits for what follows it. A server that failed sends its trailers with it; one that streams may have nothing to say for
/// hours, and whoever listens is to know that it listens.
const TRAILERS_WAIT: Duration = Duration::from_millis(10);

/// The answer, and its status of gRPC if that is all of its body.
pub(crate) async fn status(response: Response<Body>) -> (Response<Body>, Option<u16>) {
    let (head, mut rest) = response.into_parts();
    let Ok(first) = tokio::time::timeout(TRAILERS_WAIT, rest.frame()).await else {
        return (Response::from_parts(head, rest), None);
    };
    let trailers = first
        .as_ref()
        .and_then(|first| first.as_ref().ok()?.trailers_ref());
    let status = trailers.and_then(measure::grpc_status);
    let body = Body::new(Peeked { first, rest });
    (Response::from_parts(head, body), status)
}

/// A body whose first frame was read.
struct Peeked {
    first: Option<Result<Frame<Bytes>, BoxError>>,
    rest: Body,
}

impl http_body::Body for Peeked {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.first.take() {
            Some(first) => Poll::Ready(Some(first)),
            None => Pin::new(&mut self.rest).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let first = self.first.as_ref().and_then(|first| first.as_ref().ok());
        let read = first.and_then(Frame::data_ref);
        let read = read.map_or(0, |data| data.len() as u64);
        let rest = self.rest.size_hint();
        let mut hint = SizeHint::new();
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper.saturating_add(read));
        }
        hint.set_lower(rest.lower().saturating_add(read));
        hint
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use http_body_util::StreamBody;

    use super::*;

    fn trailers(status: &'static str) -> Frame<Bytes> {
        let mut lines = HeaderMap::new();
        lines.insert("grpc-status", http::HeaderValue::from_static(status));
        Frame::trailers(lines)
    }

    fn data(bytes: &'static [u8]) -> Frame<Bytes> {
        Frame::data(Bytes::from_static(bytes))
    }

    #[tokio::test]
    async fn only_trailers_alone_are_known_beforehand_and_nothing_is_lost() {
        let cases = [
            (vec![trailers("14")], Some(14), "", Some("14")),
            (
                vec![data(b"one"), data(b"two"), trailers("14")],
                None,
                "onetwo",
                Some("14"),
            ),
            (vec![data(b"one")], None, "one", None),
            (vec![], None, "", None),
        ];
        for (frames, expected, bytes, ends) in cases {
            let frames = frames.into_iter().map(Ok::<_, BoxError>);
            let body = Body::new(StreamBody::new(futures::stream::iter(frames)));
            let (response, found) = status(Response::new(body)).await;
            assert_eq!(found, expected, "{bytes}");
            let whole = response.into_body().collect().await.expect("a body");
            let told = whole
                .trailers()
                .and_then(|lines| lines.get("grpc-status"))
                .cloned();
            assert_eq!(told.as_ref().and_then(|told| told.to_str().ok()), ends);
            assert_eq!(whole.to_bytes(), bytes);
        }
    }

    /// A client that waits for the head before it says more would wait for ever.
    #[tokio::test(start_paused = true)]
    async fn a_head_does_not_wait_for_a_message_that_does_not_come() {
        let silent = futures::stream::pending::<Result<Frame<Bytes>, BoxError>>();
        let begun = tokio::time::Instant::now();
        let (_, found) = status(Response::new(Body::new(StreamBody::new(silent)))).await;
        assert_eq!((found, begun.elapsed()), (None, TRAILERS_WAIT));
    }
}
