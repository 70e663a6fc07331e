//! Connections of a port: TLS where it is asked for, then HTTP/1.1 or HTTP/2, as the client begins.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use agnhost::tcp::Listener;
use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming};
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::tls::{Acceptor, Agreed};

/// Whom a request came from.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    pub(crate) remote: SocketAddr,
    /// The port that it came to.
    pub(crate) port: u16,
    pub(crate) tls: Option<Rc<Agreed>>,
}

/// A message and its trailers.
#[derive(Debug, Default)]
pub(crate) struct Reply {
    pub(crate) bytes: Option<Bytes>,
    pub(crate) trailers: Option<HeaderMap>,
}

impl From<String> for Reply {
    fn from(text: String) -> Self {
        Self {
            bytes: Some(text.into()),
            trailers: None,
        }
    }
}

impl Body for Reply {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(bytes) = self.bytes.take() {
            return std::task::Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        let trailers = self.trailers.take();
        std::task::Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_none() && self.trailers.is_none()
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        let length = self.bytes.as_ref().map_or(0, Bytes::len);
        hyper::body::SizeHint::with_exact(length as u64)
    }
}

/// Where HTTP/2 puts what it does on the side: this thread.
#[derive(Clone, Copy)]
pub(crate) struct Here;

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for Here {
    fn execute(&self, work: F) {
        tokio::task::spawn_local(work);
    }
}

/// Listens on every address.
///
/// # Errors
/// When the port is taken.
pub(crate) fn listen(port: u16) -> Result<Listener, String> {
    let bound = Listener::bind(SocketAddr::from(([0, 0, 0, 0], port)));
    bound.map_err(|error| format!("failed to listen on port {port}: {error}"))
}

/// Serves a port until the process ends. Where `answer` fails, the connection ends without a response.
///
/// # Errors
/// When the port is taken.
pub(crate) async fn serve<F, R>(port: u16, tls: Option<Acceptor>, answer: F) -> Result<(), String>
where
    F: Fn(Request<Incoming>, Peer) -> R + 'static,
    R: Future<Output = io::Result<Response<Reply>>> + 'static,
{
    let listener = listen(port)?;
    let answer = Rc::new(answer);
    loop {
        let Ok((stream, remote)) = listener.accept().await else {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            continue;
        };
        let (tls, answer) = (tls.clone(), answer.clone());
        tokio::task::spawn_local(async move {
            let peer = |tls| Peer { remote, port, tls };
            match tls {
                None => speak(stream, peer(None), answer).await,
                Some(tls) => match tls.accept(stream).await {
                    Ok((stream, agreed)) => {
                        speak(stream, peer(Some(Rc::new(agreed))), answer).await;
                    }
                    Err(error) => println!("TLS handshake error from {remote}: {error}"),
                },
            }
        });
    }
}

async fn speak<F, R>(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: Peer,
    answer: Rc<F>,
) where
    F: Fn(Request<Incoming>, Peer) -> R + 'static,
    R: Future<Output = io::Result<Response<Reply>>> + 'static,
{
    let service = service_fn(move |request| (answer)(request, peer.clone()));
    let mut http = auto::Builder::new(Here);
    http.http1().half_close(true).title_case_headers(false);
    let served = http.serve_connection_with_upgrades(TokioIo::new(stream), service);
    // Whoever breaks off, and whoever is broken off, is nobody's failure.
    let _ = served.await;
}
