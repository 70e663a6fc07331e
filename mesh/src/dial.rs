//! A connection to an endpoint, as whoever speaks something else than plain HTTP with it needs one: TLS, WebSocket.
//!
//! It is a raw call (`outbound/raw.rs`): balanced, encrypted between nodes and charged as any. What is written waits for the other end.
//!
//! Invariant: of what is written, no more is held than [`WRITES_MAX`] pieces of [`PIECE_BYTES_MAX`].

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Instant,
};

use bytes::{Buf as _, Bytes};
use http::Request;
use http_body::{Body as _, Frame};
use http_body_util::StreamBody;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::mpsc,
};
use tokio_util::sync::PollSender;
use weft_call::{Failure, FailureKind};

use crate::{
    Body, BoxError, CallContext, Inner, Raw,
    call::Destination,
    caller::Caller,
    failure,
    outbound::{Arrival, Begun, send},
    route::{AnsweredBy, Stays},
    table::Table,
};

const WRITES_MAX: usize = 4;
const PIECE_BYTES_MAX: usize = 16 << 10;

/// Both directions of a raw call.
pub(crate) struct Dialed {
    received: Body,
    /// What of it was not read yet.
    rest: Bytes,
    sent: PollSender<Bytes>,
    /// Where it leads, if that was asked for.
    pub(crate) answered_by: Option<AnsweredBy>,
}

/// Connects to an endpoint of `destination`, with `stays` to the one that it names, if that is there.
///
/// # Errors
/// As any call.
pub(crate) async fn dial(
    inner: &Arc<Inner>,
    caller: &Arc<Caller>,
    table: &Arc<Table>,
    destination: Destination,
    context: CallContext,
    stays: Option<Stays>,
) -> Result<Dialed, Failure> {
    let (sent, line) = line();
    let request = Request::post("http://stream/").body(sent);
    let mut request = request.map_err(|_| failure::bad_request("its host is not valid"))?;
    request.extensions_mut().insert(Raw);
    if let Some(stays) = stays {
        request.extensions_mut().insert(stays);
    }
    let at = Instant::now();
    let arrival = Arrival {
        request,
        context,
        at,
        turn: None,
    };
    let filtered = Ok(std::ops::ControlFlow::Continue((
        arrival,
        destination,
        None,
    )));
    let calling = match send(inner, caller, table, filtered, at, None)? {
        Begun::Call(calling) => calling,
        // Only rules answer by themselves, and it met none.
        Begun::Answered(_) => return Err(FailureKind::NoRoute.into()),
    };
    let answered = calling.await?;
    let answered_by = answered.extensions().get::<AnsweredBy>().copied();
    Ok(Dialed {
        answered_by,
        ..line.opened(answered.into_body())
    })
}

/// A raw call that is not answered yet.
pub(crate) struct Line(PollSender<Bytes>);

/// What a raw call sends, and the call itself.
pub(crate) fn line() -> (Body, Line) {
    let (sender, mut pieces) = mpsc::channel::<Bytes>(WRITES_MAX);
    let pieces = futures::stream::poll_fn(move |cx| pieces.poll_recv(cx));
    let pieces = futures::StreamExt::map(pieces, |piece| Ok::<_, BoxError>(Frame::data(piece)));
    let sent = Body::new(StreamBody::new(pieces));
    (sent, Line(PollSender::new(sender)))
}

impl Line {
    /// Both directions, once it is answered.
    pub(crate) fn opened(self, received: Body) -> Dialed {
        Dialed {
            answered_by: None,
            received,
            rest: Bytes::new(),
            sent: self.0,
        }
    }
}

impl AsyncRead for Dialed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.rest.is_empty() {
            let polled = ready!(Pin::new(&mut self.received).poll_frame(cx));
            match polled {
                None => return Poll::Ready(Ok(())),
                Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
                Some(Ok(frame)) => {
                    if let Ok(bytes) = frame.into_data() {
                        self.rest = bytes;
                    }
                }
            }
        }
        let count = self.rest.len().min(buffer.remaining());
        buffer.put_slice(self.rest.get(..count).unwrap_or_default());
        self.rest.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Dialed {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        ready!(self.sent.poll_reserve(cx)).map_err(gone)?;
        let piece = bytes.get(..bytes.len().min(PIECE_BYTES_MAX));
        let piece = piece.unwrap_or_default();
        self.sent
            .send_item(Bytes::copy_from_slice(piece))
            .map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Poll::Ready(Ok(piece.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.sent.close();
        Poll::Ready(Ok(()))
    }
}
