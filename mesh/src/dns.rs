//! The cluster's DNS: names of Services, endpoints and pods, for guests and for whoever asks at an address of this machine.
//!
//! ```text
//! message ─► answer.rs ─► zone.rs, of the table in force ─► answer
//!                │ not of the cluster
//!                └──────► upstream.rs, where one is named ─► answer; else REFUSED
//! ```
//! Guests ask by datagrams and streams of their pod's network (`weft_agent`), others by sockets of this machine (`listener.rs`).
//!
//! Invariants: nothing is forwarded unless the node's owner named where to; no more than [`upstream::PLACES_MAX`] questions wait for others,
//! whoever asked; a connection that says nothing is closed; what is answered is of one table.

pub(crate) mod answer;
mod listener;
mod upstream;
pub(crate) mod zone;

#[cfg(test)]
mod tests;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use futures::future::BoxFuture;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, UdpSocket},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

pub use self::answer::Over;
use self::{answer::Reply, upstream::Upstream};
use crate::{Inner, Mesh};

/// How long a connection may say or take nothing.
const IDLE_MAX: Duration = Duration::from_secs(10);
/// Questions that are read of one connection, after which it has to be opened anew.
const QUESTIONS_MAX: usize = 1_000;

/// Where names are asked for that are not of the cluster.
#[derive(Debug, Clone, Default)]
pub struct DnsConfig {
    /// In this order; nothing is forwarded where there is none.
    pub upstream: Vec<SocketAddr>,
}

/// The answer to a message.
pub enum Answering {
    /// None: the message was no question.
    Now(Option<Vec<u8>>),
    /// Others are asked; they have some seconds.
    Later(BoxFuture<'static, Vec<u8>>),
}

impl Answering {
    async fn done(self) -> Option<Vec<u8>> {
        match self {
            Answering::Now(answer) => answer,
            Answering::Later(answer) => Some(answer.await),
        }
    }
}

/// What a node has for DNS beside its table.
pub(crate) struct Dns {
    upstream: Option<Arc<Upstream>>,
}

impl Dns {
    pub(crate) fn new(config: DnsConfig) -> Self {
        let upstream = Upstream::new(config.upstream);
        Self {
            upstream: upstream.map(Arc::new),
        }
    }
}

impl Mesh {
    /// The answer to a message of DNS, which came by `over`, without what stands in front of one by TCP.
    #[must_use]
    pub fn dns_answer(&self, message: &[u8], over: Over) -> Answering {
        answering(&self.inner, message, over)
    }

    /// Answers the questions of a stream, one after the other, until it ends or says nothing for ten seconds.
    pub async fn serve_dns_stream(&self, stream: impl AsyncRead + AsyncWrite + Unpin) {
        serve_stream(&self.inner, stream).await;
    }

    /// Answers questions by UDP and TCP at sockets of this machine until `shutdown`.
    ///
    /// # Errors
    /// When a socket cannot be registered with the runtime.
    pub async fn serve_dns(
        &self,
        datagrams: std::net::UdpSocket,
        listener: std::net::TcpListener,
        shutdown: CancellationToken,
    ) -> std::io::Result<()> {
        datagrams.set_nonblocking(true)?;
        listener.set_nonblocking(true)?;
        let datagrams = UdpSocket::from_std(datagrams)?;
        let listener = TcpListener::from_std(listener)?;
        tokio::join!(
            listener::datagrams(Arc::clone(&self.inner), datagrams, shutdown.clone()),
            listener::connections(Arc::clone(&self.inner), listener, shutdown),
        );
        Ok(())
    }
}

fn answering(inner: &Arc<Inner>, message: &[u8], over: Over) -> Answering {
    let table = inner.table.load();
    let upstream = inner.dns.upstream.as_ref();
    let forwards = upstream.is_some();
    match answer::reply(&table.zone, &inner.cluster_domain, message, over, forwards) {
        Reply::Silence => Answering::Now(None),
        Reply::Answer(answer) => Answering::Now(Some(answer)),
        Reply::Elsewhere(elsewhere) => match upstream.cloned() {
            None => Answering::Now(Some(elsewhere.unasked())),
            Some(upstream) => Answering::Later(Box::pin(async move {
                let heard = upstream.ask(&elsewhere.query).await;
                elsewhere.heard(heard)
            })),
        },
    }
}

async fn serve_stream(inner: &Arc<Inner>, mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    for _ in 0..QUESTIONS_MAX {
        let Some(message) = message_of(&mut stream).await else {
            return;
        };
        let Some(answer) = answering(inner, &message, Over::Tcp).done().await else {
            return;
        };
        let Ok(length) = u16::try_from(answer.len()) else {
            return;
        };
        let framed = [&length.to_be_bytes()[..], &answer].concat();
        let written = timeout(IDLE_MAX, stream.write_all(&framed)).await;
        if !matches!(written, Ok(Ok(()))) {
            return;
        }
    }
}

/// The next message of a stream.
async fn message_of(stream: &mut (impl AsyncRead + Unpin)) -> Option<Vec<u8>> {
    let reading = async {
        let length = stream.read_u16().await.ok()?;
        let mut message = vec![0; usize::from(length)];
        stream.read_exact(&mut message).await.ok()?;
        Some(message)
    };
    timeout(IDLE_MAX, reading).await.ok().flatten()
}
