//! Messages between servers over HTTP/2 and mutual TLS.
//!
//! One connection a peer and [`Lane`], made when it is needed; a request is one stream, so that a heartbeat never waits
//! behind entries, and neither behind a snapshot. Who is who is proven twice: the dialled server's certificate has to
//! carry its name, and the caller's certificate names the server that [`Store::answer`] compares with the message.
//!
//! Certificates are the caller's business ([`LinkTls`]). The ALPN protocol is our own, so a port of another kind is
//! noticed at the handshake.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::Mutex;
use rustls::{ClientConfig, ServerConfig};
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tokio_util::sync::CancellationToken;

use crate::Store;
use crate::key::ServerId;
use crate::network::{Lane, Network, NetworkError, Peer};

const ALPN: &[u8] = b"weft-store/1";

/// Largest message: an append request of 4 MiB, or a single entry of one full batch and one full command, encoded.
const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// A handshake within a cluster takes milliseconds.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection whose other end is silent for this long is given up: a machine that vanished sends no goodbye.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_millis(500);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(1);

/// Connections from peers at once: five servers and three lanes, and as many again that are being replaced.
const CONNECTIONS_MAX: usize = 64;

/// Bytes under way before the receiver has to say that it wants more.
const STREAM_WINDOW_BYTES: u32 = 8 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 32 << 20;

/// Which server a verified certificate belongs to; `None` for one that is no server's.
pub type Identify = Arc<dyn Fn(&CertificateDer<'_>) -> Option<ServerId> + Send + Sync>;

/// The name that a server's certificate has to carry.
pub type NameOf = Arc<dyn Fn(ServerId) -> String + Send + Sync>;

/// One end's TLS, as it is now: asked for at each connection, so that certificates may change.
pub type Tls<T> = Arc<dyn Fn() -> Arc<T> + Send + Sync>;

/// Certificates for the links between servers.
#[derive(Clone)]
pub struct LinkTls {
    /// Shows this server's certificate and trusts the cluster's authority only.
    pub client: Tls<ClientConfig>,
    /// Shows this server's certificate and requires one of the cluster's authority.
    pub server: Tls<ServerConfig>,
    /// The name that a server's certificate has to carry.
    pub name_of: NameOf,
    /// Which server a client's certificate belongs to.
    pub identify: Identify,
}

type Sender = SendRequest<Full<Bytes>>;
type Slot = Arc<tokio::sync::Mutex<Option<Sender>>>;

/// The network of servers that listen with [`serve`].
pub struct Link {
    tls: Tls<ClientConfig>,
    name_of: NameOf,
    connections: Mutex<HashMap<(Peer, Lane), Slot>>,
}

fn unreachable(error: impl std::fmt::Display) -> NetworkError {
    NetworkError::Unreachable(error.to_string())
}

impl Link {
    /// A network that proves itself with `tls`.
    pub fn new(tls: &LinkTls) -> Link {
        Link {
            tls: Arc::clone(&tls.client),
            name_of: Arc::clone(&tls.name_of),
            connections: Mutex::default(),
        }
    }
}

async fn connect(
    tls: Tls<ClientConfig>,
    address: String,
    name: String,
) -> Result<Sender, NetworkError> {
    let connecting = async {
        let stream = TcpStream::connect(&address).await.map_err(unreachable)?;
        stream.set_nodelay(true).map_err(unreachable)?;
        let name = ServerName::try_from(name).map_err(unreachable)?;
        let mut client = ClientConfig::clone(&tls());
        client.alpn_protocols = vec![ALPN.to_vec()];
        let connector = TlsConnector::from(Arc::new(client));
        let stream = connector.connect(name, stream).await.map_err(unreachable)?;
        if stream.get_ref().1.alpn_protocol() != Some(ALPN) {
            return Err(unreachable("no server of a store listens there"));
        }
        let (sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(unreachable)?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(address, %error, "a connection to another server ended");
            }
        });
        Ok(sender)
    };
    match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
        Ok(result) => result,
        Err(_) => Err(unreachable("no connection in time")),
    }
}

impl Network for Link {
    fn call(
        &self,
        peer: Peer,
        lane: Lane,
        request: Bytes,
    ) -> BoxFuture<'static, Result<Bytes, NetworkError>> {
        let tls = Arc::clone(&self.tls);
        let name = (self.name_of)(peer.server);
        let address = peer.address.clone();
        let slot = Arc::clone(self.connections.lock().entry((peer, lane)).or_default());
        Box::pin(async move {
            let mut sender = {
                let mut held = slot.lock().await;
                match held.as_ref() {
                    Some(sender) if !sender.is_closed() => sender.clone(),
                    _ => held.insert(connect(tls, address, name).await?).clone(),
                }
            };
            sender.ready().await.map_err(unreachable)?;
            let broken = |error: &dyn std::fmt::Display| NetworkError::Broken(error.to_string());
            let request = Request::post("/")
                .body(Full::new(request))
                .map_err(unreachable)?;
            let response = sender
                .send_request(request)
                .await
                .map_err(|error| broken(&error))?;
            if response.status() != StatusCode::OK {
                return Err(broken(&response.status()));
            }
            let body = Limited::new(response.into_body(), MESSAGE_BYTES_MAX);
            let body = body.collect().await.map_err(|error| broken(&error))?;
            Ok(body.to_bytes())
        })
    }
}

/// Hands what other servers send to `store`, until `stop`.
pub async fn serve(listener: TcpListener, tls: &LinkTls, store: Store, stop: CancellationToken) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection from another server was not accepted");
                // Out of descriptors, most likely: give some time to be closed.
                tokio::time::sleep(KEEP_ALIVE_INTERVAL).await;
                continue;
            }
        };
        let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else {
            tracing::warn!("too many connections from other servers; one was closed");
            continue;
        };
        let mut server = ServerConfig::clone(&(tls.server)());
        server.alpn_protocols = vec![ALPN.to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(server));
        let identify = Arc::clone(&tls.identify);
        let (store, stop) = (store.clone(), stop.clone());
        tokio::spawn(async move {
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                served = serve_peer(stream, acceptor, identify, store) => {
                    if let Err(reason) = served {
                        tracing::debug!(reason, "a connection from another server ended");
                    }
                }
            }
            drop(slot);
        });
    }
}

async fn serve_peer(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    identify: Identify,
    store: Store,
) -> Result<(), String> {
    stream
        .set_nodelay(true)
        .map_err(|error| error.to_string())?;
    let stream = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream))
        .await
        .map_err(|_| "no handshake in time".to_owned())?
        .map_err(|error| error.to_string())?;
    let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let peer = certificates
        .first()
        .and_then(|certificate| identify(certificate))
        .ok_or("its certificate is not of a server")?;
    let service = service_fn(move |request: Request<Incoming>| {
        let store = store.clone();
        async move {
            let body = Limited::new(request.into_body(), MESSAGE_BYTES_MAX);
            let response = match body.collect().await {
                Ok(body) => {
                    Response::new(Full::new(store.answer(Some(peer), body.to_bytes()).await))
                }
                Err(error) => {
                    let mut response = Response::new(Full::from(error.to_string()));
                    *response.status_mut() = StatusCode::BAD_REQUEST;
                    response
                }
            };
            Ok::<_, Infallible>(response)
        }
    });
    hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service)
        .await
        .map_err(|error| error.to_string())
}
