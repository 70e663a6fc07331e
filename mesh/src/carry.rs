//! A client's connection, carried to a Service: bytes in, bytes out.
//!
//! Invariants: what one side does not take holds the other up; a client that has said all still hears the answer; nothing is read of it
//! before somebody is there to hear it; a connection on which nothing passes for [`IDLE_MAX`] is closed. One that nobody answers is reset, as
//! where nothing listens, and one whose answer breaks off is cut off, so that no client takes a part for the whole.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use futures::Stream as _;
use http_body_util::BodyExt;
use hyper::body::Frame;
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf},
    net::{TcpStream, tcp::OwnedWriteHalf},
    sync::oneshot,
    time::timeout,
};
use tokio_rustls::server::TlsStream;
use tokio_util::io::ReaderStream;
use weft_call::{Failure, FailureKind};
use weft_gateway::BackendTls;

use crate::{
    Body, BoxError, Outbound,
    dial::line,
    hello::{Begun, BegunRead},
    outbound::Client,
};

/// How long the other end may take to be there.
pub(crate) const CONNECT_MAX: Duration = Duration::from_secs(10);
/// Longest time that nothing passes in either direction.
const IDLE_MAX: Duration = Duration::from_secs(3600);
/// Bytes that are read at once.
const READ_BYTES: usize = 16 << 10;

/// Where a connection goes.
pub(crate) struct Way {
    /// The full name of a Service, and its port.
    pub(crate) authority: String,
    pub(crate) client: Client,
    /// How its endpoints prove themselves, if they have to.
    pub(crate) tls: Option<Arc<BackendTls>>,
}

/// A client's end, whatever its bytes come in.
pub(crate) trait End: Send + 'static {
    type Read: AsyncRead + Send + Unpin + 'static;
    type Write: Cut + Send + Unpin;

    fn socket(&self) -> &TcpStream;

    fn split(self) -> (Self::Read, Self::Write);
}

/// What a client hears by.
pub(crate) trait Cut: AsyncWrite {
    /// Ends it such that the client can tell it from an end of what was said.
    fn cut(self);
}

impl End for Begun {
    type Read = BegunRead;
    type Write = OwnedWriteHalf;

    fn socket(&self) -> &TcpStream {
        self.stream()
    }

    fn split(self) -> (Self::Read, Self::Write) {
        Begun::split(self)
    }
}

impl End for TlsStream<Begun> {
    type Read = ReadHalf<Self>;
    type Write = WriteHalf<Self>;

    fn socket(&self) -> &TcpStream {
        self.get_ref().0.stream()
    }

    fn split(self) -> (Self::Read, Self::Write) {
        tokio::io::split(self)
    }
}

impl Cut for OwnedWriteHalf {
    fn cut(self) {
        reset_at_end(self.as_ref());
        self.forget();
    }
}

impl Cut for WriteHalf<TlsStream<Begun>> {
    /// An end without a word is not one of TLS.
    fn cut(self) {}
}

/// Has a connection be reset when it is dropped.
pub(crate) fn reset_at_end(stream: &TcpStream) {
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

/// Passes on what is said, in both directions, until both have ended.
///
/// # Errors
/// When nobody is there; the client is reset.
pub(crate) async fn carry(outbound: &Outbound, way: Way, io: impl End) -> Result<(), Failure> {
    let Way {
        authority,
        client,
        tls,
    } = way;
    match tls {
        None => {
            let passed = Arc::new(AtomicU64::new(0));
            let (reader, sent) = later(Arc::clone(&passed));
            let opening = outbound.connect_for(&authority, sent, client);
            let received = in_time(opening, &io).await?;
            let (read, write) = io.split();
            // The other end may have gone in between; then what is received ends.
            let _ = reader.send(Box::new(read));
            returned(received, write, &passed).await;
        }
        Some(tls) => {
            let opening = async {
                let (sent, line) = line();
                let received = outbound.connect_for(&authority, sent, client).await?;
                outbound.proven(&tls, line.opened(received)).await
            };
            let backend = in_time(opening, &io).await?;
            exchanged(backend, io).await;
        }
    }
    Ok(())
}

async fn in_time<T>(
    opening: impl Future<Output = Result<T, Failure>>,
    io: &impl End,
) -> Result<T, Failure> {
    let opened = timeout(CONNECT_MAX, opening).await;
    let opened = opened.unwrap_or_else(|_| Err(FailureKind::TryTimeout.into()));
    opened.inspect_err(|_| reset_at_end(io.socket()))
}

/// Passes on what comes back, until one side ends it.
async fn returned(mut received: Body, mut write: impl Cut + Unpin, passed: &AtomicU64) {
    let mut known = 0;
    loop {
        let next = match timeout(IDLE_MAX, received.frame()).await {
            Ok(next) => next,
            Err(_) => match passed.load(Ordering::Relaxed) {
                same if same == known => return,
                more => {
                    known = more;
                    continue;
                }
            },
        };
        let bytes = match next {
            None => break,
            Some(Err(_)) => return write.cut(),
            Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
        };
        if !matches!(timeout(IDLE_MAX, write.write_all(&bytes)).await, Ok(Ok(()))) {
            return;
        }
    }
    // Whoever is gone hears nothing.
    let _ = write.shutdown().await;
}

/// The same with a backend that is spoken to over TLS.
async fn exchanged(backend: impl AsyncRead + AsyncWrite + Send, io: impl End) {
    let passed = AtomicU64::new(0);
    let (mut read, mut write) = io.split();
    let (mut back, mut forth) = tokio::io::split(backend);
    let ended = {
        let both = async {
            tokio::try_join!(
                pass(&mut read, &mut forth, &passed),
                pass(&mut back, &mut write, &passed),
            )
        };
        let idle = async {
            let mut known = 0;
            loop {
                tokio::time::sleep(IDLE_MAX).await;
                let now = passed.load(Ordering::Relaxed);
                if now == known {
                    break;
                }
                known = now;
            }
        };
        tokio::select! {
            biased;
            ended = both => ended.is_ok(),
            () = idle => true,
        }
    };
    if !ended {
        write.cut();
    }
}

async fn pass(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    passed: &AtomicU64,
) -> io::Result<()> {
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let count = from.read(&mut buffer).await?;
        passed.fetch_add(1, Ordering::Relaxed);
        if count == 0 {
            return to.shutdown().await;
        }
        let bytes = buffer.get(..count).unwrap_or_default();
        to.write_all(bytes).await?;
        to.flush().await?;
    }
}

type Read = Box<dyn AsyncRead + Send + Unpin>;

/// A body of what will be read.
fn later(passed: Arc<AtomicU64>) -> (oneshot::Sender<Read>, Body) {
    let (sender, waiting) = oneshot::channel();
    let read = Sending::Waiting(waiting);
    (sender, Body::new(Sent { read, passed }))
}

enum Sending {
    Waiting(oneshot::Receiver<Read>),
    Open(ReaderStream<Read>),
    Ended,
}

/// What a client sends, read as it is taken.
struct Sent {
    read: Sending,
    /// Counts what came.
    passed: Arc<AtomicU64>,
}

impl hyper::body::Body for Sent {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        loop {
            match &mut self.read {
                Sending::Waiting(waiting) => {
                    self.read = match ready!(Pin::new(waiting).poll(cx)) {
                        Ok(read) => Sending::Open(ReaderStream::with_capacity(read, READ_BYTES)),
                        Err(_) => Sending::Ended,
                    };
                }
                Sending::Open(read) => {
                    let polled = ready!(Pin::new(read).poll_next(cx));
                    self.passed.fetch_add(1, Ordering::Relaxed);
                    let frame = polled.map(|read| read.map(Frame::data).map_err(Into::into));
                    return Poll::Ready(frame);
                }
                Sending::Ended => return Poll::Ready(None),
            }
        }
    }
}
