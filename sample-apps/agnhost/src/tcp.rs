//! TCP by tokio, where the C library of components is not what tokio takes it for.
//!
//! Until wasi-sdk 31 it knows no `fcntl(F_SETFL)` of a socket, by which tokio's own `accept` fails ("Invalid argument") and drops the connection that it
//! has just taken; and its `writev` waits for the reader, whatever was said of the socket, and everything else with it.
//!
//! Invariants: a connection is taken by `accept` alone, and the standard library says that it does not block, as it can everywhere; what is
//! written is never written as vectors.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::task::{Context, Poll};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

/// Takes connections.
pub struct Listener {
    /// It listens. tokio lets one wait for a stream, and for a listener in its own way only.
    socket: TcpStream,
}

impl Listener {
    /// Listens on an address. To be called on a runtime.
    ///
    /// # Errors
    /// When the port is taken or may not be.
    pub fn bind(address: SocketAddr) -> io::Result<Listener> {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let socket = std::net::TcpStream::from(OwnedFd::from(listener));
        let socket = TcpStream::from_std(socket)?;
        Ok(Listener { socket })
    }

    /// The next connection and whose it is. Nothing is lost where it is not waited for to the end.
    ///
    /// # Errors
    /// What the system says of it.
    pub async fn accept(&self) -> io::Result<(Stream, SocketAddr)> {
        let accept = || SockRef::from(&self.socket).accept_raw();
        let (accepted, from) = self.socket.async_io(Interest::READABLE, accept).await?;
        let accepted = std::net::TcpStream::from(accepted);
        accepted.set_nonblocking(true)?;
        let from = from.as_socket().ok_or(io::ErrorKind::InvalidData)?;
        Ok((Stream(TcpStream::from_std(accepted)?), from))
    }
}

/// A connection.
pub struct Stream(TcpStream);

impl Stream {
    pub(crate) async fn connect(address: SocketAddr) -> io::Result<Stream> {
        TcpStream::connect(address).await.map(Stream)
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_read(cx, buffer)
    }
}

/// Without vectors, as the trait is by default.
impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().0).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_shutdown(cx)
    }
}
