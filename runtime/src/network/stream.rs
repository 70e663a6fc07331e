//! One end of a connection in a virtual network, as the host uses it: a byte stream of tokio's kind.
//!
//! Invariant: shutting the stream down ends what the other end reads, and goes on reading here; dropping it ends both.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Held;
use super::pipe::{self, Broken, PIPE_BYTES, Reader, Writer};

/// One end of a connection.
pub struct Stream {
    reader: Reader,
    writer: Writer,
    local: SocketAddr,
    remote: SocketAddr,
    /// What the connection takes of the pod's bounds and of a guest's memory, until both ends are gone.
    held: Option<Arc<Held>>,
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Stream({} to {})", self.local, self.remote)
    }
}

/// A connection between `a` and `b`: the end of `a`, then that of `b`.
pub fn pair(a: SocketAddr, b: SocketAddr) -> (Stream, Stream) {
    held_pair(a, b, None)
}

pub(super) fn held_pair(a: SocketAddr, b: SocketAddr, held: Option<Arc<Held>>) -> (Stream, Stream) {
    let ((to_b, from_a), (to_a, from_b)) = (pipe::pipe(), pipe::pipe());
    let end = |reader, writer, local, remote, held| Stream {
        reader,
        writer,
        local,
        remote,
        held,
    };
    (
        end(from_b, to_b, a, b, held.clone()),
        end(from_a, to_a, b, a, held),
    )
}

impl Stream {
    /// The address of this end.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// The address of the other end.
    pub fn remote(&self) -> SocketAddr {
        self.remote
    }

    /// The two directions, and what the connection holds.
    pub(crate) fn into_parts(self) -> (Reader, Writer, Option<Arc<Held>>) {
        (self.reader, self.writer, self.held)
    }

    /// The same connection, which holds `held` too.
    pub(crate) fn holding(mut self, held: Held) -> Self {
        self.held = Some(Arc::new(held));
        self
    }
}

/// What comes in on a connection, without a copy.
pub struct Incoming {
    reader: Reader,
    _held: Option<Arc<Held>>,
}

impl Incoming {
    /// The next bytes; `None` at the end.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        self.reader.poll_read(cx, PIPE_BYTES)
    }
}

/// What goes out on a connection, without a copy. Dropping it ends what the other end reads.
pub struct Outgoing {
    writer: Writer,
    _held: Option<Arc<Held>>,
}

impl Outgoing {
    /// Ready when bytes may be written, or when nobody reads them: then an error.
    pub fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = self.writer.poll_room(cx);
        polled.map(|room| room.map(drop).map_err(broken))
    }

    /// Ready when nobody will read what is written.
    pub fn poll_broken(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.writer.poll_broken(cx)
    }

    /// Writes all of it, once it was ready for some: a part of a message has a bound of its own.
    ///
    /// # Errors
    /// When nobody reads it.
    pub fn write(&mut self, bytes: Bytes) -> io::Result<()> {
        self.writer.write(bytes).map_err(broken)
    }
}

impl Stream {
    /// The two directions.
    pub fn split(self) -> (Incoming, Outgoing) {
        let Stream {
            reader,
            writer,
            held,
            ..
        } = self;
        let incoming = Incoming {
            reader,
            _held: held.clone(),
        };
        let outgoing = Outgoing {
            writer,
            _held: held,
        };
        (incoming, outgoing)
    }
}

fn broken(_: Broken) -> io::Error {
    io::ErrorKind::BrokenPipe.into()
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        if let Some(bytes) = ready!(self.reader.poll_read(cx, buf.remaining())) {
            buf.put_slice(&bytes);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let room = ready!(self.writer.poll_room(cx)).map_err(broken)?;
        let now = buf.get(..room).unwrap_or(buf);
        self.writer
            .write(Bytes::copy_from_slice(now))
            .map_err(broken)?;
        Poll::Ready(Ok(now.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.writer.finish();
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn an_end_that_has_said_all_still_hears() {
        let (a, b) = ("10.42.0.2:40000", "10.42.0.3:80");
        let (mut a, mut b) = pair(a.parse().unwrap(), b.parse().unwrap());
        assert_eq!((a.remote(), b.remote()), (b.local(), a.local()));
        let asking = async {
            a.write_all(b"GET").await.unwrap();
            a.shutdown().await.unwrap();
            let mut answer = String::new();
            a.read_to_string(&mut answer).await.unwrap();
            answer
        };
        let answering = async {
            let mut asked = String::new();
            b.read_to_string(&mut asked).await.unwrap();
            b.write_all(asked.to_lowercase().as_bytes()).await.unwrap();
            drop(b);
        };
        let (answer, ()) = tokio::join!(asking, answering);
        assert_eq!(answer, "get");
    }

    #[tokio::test]
    async fn a_mebibyte_passes_through_a_pipe_of_less() {
        let at: SocketAddr = "10.42.0.2:1".parse().unwrap();
        let (mut a, mut b) = pair(at, at);
        let sent: Vec<u8> = (0..1 << 20).map(|n: u32| n.to_le_bytes()[1]).collect();
        let sending = async {
            a.write_all(&sent).await.unwrap();
            drop(a);
        };
        let mut found = Vec::new();
        let (read, ()) = tokio::join!(b.read_to_end(&mut found), sending);
        assert_eq!(read.unwrap(), 1 << 20);
        assert_eq!(found, sent);
    }
}
