//! Connections of guests to elsewhere: the bytes of a stream as the two bodies of a call, and back.
//!
//! Invariants: both directions are bounded by the pipes at their ends; when the guest is gone, so is the call.

use bytes::Bytes;
use futures::future::{self, Either};
use http_body_util::BodyExt;
use hyper::body::Frame;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::task::TaskTracker;
use weft_mesh::{Body, BoxError, Failure, FailureKind, Outbound, PodAddress};
use weft_runtime::network::{Incoming, Outgoing, Stream};

/// How long the other end may take to be there.
const CONNECT_MAX: Duration = Duration::from_secs(10);

/// Connects `stream`, the host's end of a connection, to `to`: past services where something of this node is attached there.
pub(super) async fn connect(
    outbound: &Outbound,
    from: SocketAddr,
    to: &str,
    attached: Option<PodAddress>,
    stream: Stream,
    tasks: &TaskTracker,
) -> io::Result<()> {
    let (incoming, outgoing) = stream.split();
    // What is sent is read once somebody is there to read it.
    let (sender, sent) = later();
    let calling = async {
        match attached {
            Some(address) => outbound.connect_attached(address, sent).await,
            None => outbound.connect_from(from.ip(), to, sent).await,
        }
    };
    let called = tokio::time::timeout(CONNECT_MAX, calling).await;
    let called = called.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?;
    let received = called.map_err(|failure| refused(&failure))?;
    // The other end may have failed in between; then what is received ends.
    let _ = sender.send(incoming);
    tasks.spawn(received_by(received, outgoing));
    Ok(())
}

/// What a guest is told of a failed call.
fn refused(failure: &Failure) -> io::Error {
    match failure.kind {
        FailureKind::Denied | FailureKind::NotGranted => io::ErrorKind::PermissionDenied.into(),
        FailureKind::NotHere
        | FailureKind::NoEndpoints
        | FailureKind::Unreachable
        | FailureKind::UnknownPort
        | FailureKind::UnknownService
        | FailureKind::Overloaded
        | FailureKind::NotCallable
        | FailureKind::InvalidBackend
        | FailureKind::Stopped => io::ErrorKind::ConnectionRefused.into(),
        FailureKind::Deadline | FailureKind::TryTimeout => io::ErrorKind::TimedOut.into(),
        _ => io::ErrorKind::HostUnreachable.into(),
    }
}

type Sender = tokio::sync::oneshot::Sender<Incoming>;

/// A body of what will come in on a connection.
fn later() -> (Sender, Body) {
    let (sender, waiting) = tokio::sync::oneshot::channel();
    (sender, Body::new(Sent::Waiting(waiting)))
}

enum Sent {
    Waiting(tokio::sync::oneshot::Receiver<Incoming>),
    Open(Incoming),
    Ended,
}

impl hyper::body::Body for Sent {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        loop {
            match &mut *self {
                Self::Waiting(waiting) => match Pin::new(waiting).poll(cx) {
                    Poll::Ready(Ok(incoming)) => *self = Self::Open(incoming),
                    Poll::Ready(Err(_)) => *self = Self::Ended,
                    Poll::Pending => return Poll::Pending,
                },
                Self::Open(incoming) => {
                    let polled = incoming.poll_next(cx);
                    return polled.map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))));
                }
                Self::Ended => return Poll::Ready(None),
            }
        }
    }
}

/// Gives a guest what comes, until one of both ends it.
async fn received_by(mut received: Body, mut outgoing: Outgoing) {
    loop {
        let next = {
            let broken = pin!(poll_fn(|cx| outgoing.poll_broken(cx)));
            match future::select(broken, pin!(received.frame())).await {
                Either::Left(_) => return,
                Either::Right((next, _)) => next,
            }
        };
        let Some(Ok(frame)) = next else { return };
        let Ok(bytes) = frame.into_data() else {
            continue;
        };
        if poll_fn(|cx| outgoing.poll_ready(cx)).await.is_err() || outgoing.write(bytes).is_err() {
            return;
        }
    }
}

/// Passes bytes on between a guest's connection and one of this machine's, until both directions have ended or the guest is gone.
pub(super) async fn spliced(
    mut stream: Stream,
    mut other: impl AsyncRead + AsyncWrite + Unpin + Send,
) {
    if let Err(error) = tokio::io::copy_bidirectional(&mut stream, &mut other).await {
        tracing::trace!(%error, "a guest's connection ended");
    }
}
