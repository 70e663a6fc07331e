//! Connections from outside to a port of a Service: bytes in, bytes out.
//!
//! Invariants: what one side does not take holds the other up; a client that has said all still hears the answer; a connection on which
//! nothing passes for [`IDLE_MAX`] is closed, and one that nobody answers is reset, as where nothing listens.

use std::{
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures::Stream;
use http_body_util::BodyExt;
use hyper::body::Frame;
use socket2::SockRef;
use tokio::{
    io::AsyncWriteExt,
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    time::timeout,
};
use tokio_util::{io::ReaderStream, sync::CancellationToken};
use weft_call::{Failure, FailureKind};

use super::At;
use crate::{
    Body, BoxError, Outbound,
    accept::accept_loop,
    outbound::Client,
    table::{Protocol, Table},
};

/// Connections at one place; further clients wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 10_000;
/// How long the other end may take to be there.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// Longest time that nothing passes in either direction.
const IDLE_MAX: Duration = Duration::from_secs(3600);
/// Bytes that are read at once.
const READ_BYTES: usize = 16 << 10;

pub(super) async fn serve(
    outbound: Outbound,
    listener: std::net::TcpListener,
    at: At,
    stop: CancellationToken,
) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(at = %at.place, %error, "a place of a Service is not served");
            return;
        }
    };
    accept_loop(listener, stop, CONNECTIONS_MAX, move |stream, client, _| {
        let outbound = outbound.clone();
        async move {
            if let Err(failure) = connection(&outbound, at, stream, client).await {
                tracing::debug!(%client, at = %at.place, %failure, "a connection came to nothing");
            }
        }
    })
    .await;
}

async fn connection(
    outbound: &Outbound,
    at: At,
    stream: TcpStream,
    client: SocketAddr,
) -> Result<(), Failure> {
    // Until somebody answers, closing it says that nobody does.
    let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
    let table = outbound.table();
    let (authority, said) = meant(&table, at, client).ok_or(FailureKind::NotHere)?;
    drop(table);
    let passed = Arc::new(AtomicU64::new(0));
    let (read, write) = stream.into_split();
    let sent = Body::new(Sent {
        read: ReaderStream::with_capacity(read, READ_BYTES),
        passed: Arc::clone(&passed),
    });
    let opening = outbound.connect_for(&authority, sent, said);
    let received = timeout(CONNECT_MAX, opening).await;
    let received = match received.unwrap_or_else(|_| Err(FailureKind::TryTimeout.into())) {
        Ok(received) => received,
        Err(failure) => {
            // An end of what is said would reach the client first, as if somebody had answered nothing.
            write.forget();
            return Err(failure);
        }
    };
    let _ = SockRef::from(write.as_ref()).set_linger(None);
    returned(received, write, &passed).await;
    Ok(())
}

/// The Service that is meant by a client at a place, by its full name, and how it is called.
fn meant(table: &Table, at: At, client: SocketAddr) -> Option<(String, Client)> {
    let (service, port) = table.behind(Protocol::Tcp, at.place)?;
    let outside = service.outside();
    if !outside.admits(client.ip()) {
        return None;
    }
    let labels = service.labels();
    let (namespace, name) = (&labels.namespace, &labels.name);
    let said = Client {
        ip: client.ip().to_canonical(),
        // Nodes that share an address cannot be told apart by it.
        only_here: outside.local && !table.is_shared(at.node),
    };
    Some((format!("{name}.{namespace}.svc:{port}"), said))
}

/// Passes on what comes back, until one side ends it.
async fn returned(mut received: Body, mut write: OwnedWriteHalf, passed: &AtomicU64) {
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
        let Some(Ok(frame)) = next else { break };
        if let Ok(bytes) = frame.into_data()
            && !matches!(timeout(IDLE_MAX, write.write_all(&bytes)).await, Ok(Ok(())))
        {
            return;
        }
    }
    // Whoever is gone hears nothing.
    let _ = write.shutdown().await;
}

/// What a client sends, read as it is taken.
struct Sent {
    read: ReaderStream<OwnedReadHalf>,
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
        let polled = Pin::new(&mut self.read).poll_next(cx);
        if polled.is_ready() {
            self.passed.fetch_add(1, Ordering::Relaxed);
        }
        polled.map(|read| read.map(|read| read.map(Frame::data).map_err(Into::into)))
    }
}
