//! TCP and UDP for tools: the standard library's sockets, which are `wasi:sockets` in a component.
//!
//! Sockets do not block; one that has nothing is tried again after a pause of [`PAUSE_LEAST`] to [`PAUSE_MOST`], in which other tasks
//! run. Only opening a connection blocks, for as long as its limit says.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use crate::clock;

const PAUSE_LEAST: Duration = Duration::from_millis(1);
const PAUSE_MOST: Duration = Duration::from_millis(16);
/// How long a connection may take to open unless a tool says otherwise.
const CONNECT_MOST: Duration = Duration::from_secs(60);

/// Tries until it is neither too early nor interrupted.
async fn patiently<T>(mut step: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let mut pause = PAUSE_LEAST;
    loop {
        match step() {
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
            {
                clock::sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MOST);
            }
            done => return done,
        }
    }
}

pub struct Tcp(TcpStream);

impl Tcp {
    pub fn connect(to: SocketAddr, limit: Option<Duration>) -> io::Result<Tcp> {
        let limit = limit
            .unwrap_or(CONNECT_MOST)
            .clamp(PAUSE_LEAST, CONNECT_MOST);
        let stream = TcpStream::connect_timeout(&to, limit)?;
        stream.set_nonblocking(true)?;
        Ok(Tcp(stream))
    }

    pub async fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        patiently(|| (&self.0).read(buf)).await
    }

    pub async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match patiently(|| (&self.0).write(bytes)).await? {
                0 => return Err(ErrorKind::WriteZero.into()),
                count => bytes = bytes.get(count..).unwrap_or_default(),
            }
        }
        Ok(())
    }

    /// Tells the other side that nothing more comes.
    pub fn finish(&self) {
        // The other side may have gone already.
        let _ = self.0.shutdown(Shutdown::Write);
    }
}

pub struct Listener(TcpListener);

impl Listener {
    pub fn bind(at: SocketAddr) -> io::Result<Listener> {
        let listener = TcpListener::bind(at)?;
        listener.set_nonblocking(true)?;
        Ok(Listener(listener))
    }

    pub async fn accept(&self) -> io::Result<(Tcp, SocketAddr)> {
        let (stream, from) = patiently(|| self.0.accept()).await?;
        stream.set_nonblocking(true)?;
        Ok((Tcp(stream), from))
    }
}

pub struct Udp(UdpSocket);

impl Udp {
    pub fn bind(at: SocketAddr) -> io::Result<Udp> {
        let socket = UdpSocket::bind(at)?;
        socket.set_nonblocking(true)?;
        Ok(Udp(socket))
    }

    /// A socket that talks to one address.
    pub fn connect(to: SocketAddr) -> io::Result<Udp> {
        let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let any = any
            .parse()
            .map_err(|_| io::Error::from(ErrorKind::InvalidInput))?;
        let socket = Udp::bind(any)?;
        socket.0.connect(to)?;
        Ok(socket)
    }

    /// Takes the address that the first datagram comes from as the one to talk to.
    pub fn answer(&self, to: SocketAddr) -> io::Result<()> {
        self.0.connect(to)
    }

    pub async fn send(&self, bytes: &[u8]) -> io::Result<()> {
        patiently(|| self.0.send(bytes)).await.map(drop)
    }

    pub async fn receive(&self, buf: &mut [u8]) -> io::Result<usize> {
        patiently(|| self.0.recv(buf)).await
    }

    pub async fn receive_from(&self, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        patiently(|| self.0.recv_from(buf)).await
    }
}
