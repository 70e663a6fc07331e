//! A connection inside of the binary messages of a WebSocket: where messages begin and end means nothing.
//!
//! Invariant: what is read or written is held once, as the message that it is.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::extract::ws::{Message, WebSocket};
use bytes::{Buf as _, Bytes};
use futures::{Sink as _, Stream as _};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The bytes of a socket.
pub(super) struct Tunnel {
    socket: WebSocket,
    /// Of the last message, what is not read yet.
    rest: Bytes,
}

impl Tunnel {
    pub(super) fn new(socket: WebSocket) -> Self {
        Self {
            socket,
            rest: Bytes::new(),
        }
    }
}

fn broken(error: axum::Error) -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, error)
}

impl AsyncRead for Tunnel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.rest.is_empty() {
            match ready!(Pin::new(&mut self.socket).poll_next(context)) {
                Some(Ok(Message::Binary(bytes))) => self.rest = bytes,
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(Message::Text(_))) => {
                    let told = "a message of text inside of which there can be no connection";
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, told)));
                }
                Some(Ok(Message::Close(_))) | None => return Poll::Ready(Ok(())),
                Some(Err(error)) => return Poll::Ready(Err(broken(error))),
            }
        }
        let part = self.rest.len().min(buffer.remaining());
        let (taken, _) = self.rest.split_at(part);
        buffer.put_slice(taken);
        self.rest.advance(part);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut socket = Pin::new(&mut self.socket);
        ready!(socket.as_mut().poll_ready(context)).map_err(broken)?;
        let message = Message::Binary(Bytes::copy_from_slice(bytes));
        socket.start_send(message).map_err(broken)?;
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket)
            .poll_flush(context)
            .map_err(broken)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket)
            .poll_close(context)
            .map_err(broken)
    }
}
