//! Calls to other nodes: HTTP/2 over mutual TLS 1.3, one stream a request, from a pool of connections.
//!
//! A connection belongs to one caller identity, one callee identity and one node, because TLS proves exactly
//! those. Each thread has its own pool, so a request stays on the core it started on. A connection is opened by
//! the first call that needs it while later ones wait for the same attempt; more are opened when one is crowded.
//!
//! Invariants: a request goes out only on a connection whose peer proved the identity that the table names; a
//! request reported as never taken was not processed by the peer; connections older than [`AGE_MAX`] or made under
//! other roots take no new request and end when their last stream does.

use std::{
    collections::HashMap,
    error::Error as StdError,
    io,
    net::SocketAddr,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures::{FutureExt, channel::oneshot, future::Shared};
use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::client::conn::http2;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use smallvec::SmallVec;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use weft_api::identity::SpiffeId;
use weft_call::{Blame, Failure, FailureKind};

use crate::{
    Body, connection,
    identity::{self, Identities},
    shard::{self, SHARDS},
    table::Endpoint,
};

/// Nodes of a cluster are near: one that does not answer a SYN within a second is down.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Two signatures and a key exchange take a millisecond; a peer that is swamped gets some more.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(2);

/// Streams on one connection before another is opened beside it.
const STREAMS_MAX: usize = 100;
/// Connections a thread keeps to one peer; streams beyond what they carry queue in h2.
const CONNECTIONS_MAX: usize = 4;
/// Streams on one connection, those that wait included: twice what the peer serves at a time. A call that would be behind all of them
/// finds another endpoint sooner.
const STREAMS_WAITING_MAX: usize = 512;

/// A connection without a request for this long is closed.
const IDLE_MAX: Duration = Duration::from_secs(300);
/// Old connections make way, so that renewed certificates and moved load take effect.
pub(crate) const AGE_MAX: Duration = Duration::from_secs(3600);
const SWEEP_INTERVAL: Duration = Duration::from_secs(30);

/// Flow control on both ends: a stream may fill a fast link within a data centre, a connection several streams.
pub(crate) const STREAM_WINDOW_BYTES: u32 = 256 << 10;
pub(crate) const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;
pub(crate) const FRAME_BYTES_MAX: u32 = 32 << 10;
pub(crate) const SEND_BUFFER_BYTES: usize = 256 << 10;
/// A peer whose process does not answer is given up after the sum of both. It may be swamped, so that this is long.
pub(crate) const PING_INTERVAL: Duration = Duration::from_secs(10);
pub(crate) const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// A machine that is gone acknowledges nothing, however swamped its processes were: the kernel asks it after a second of silence and gives it
/// up after three more, with what was sent to it. Calls to a node that lost its power fail over by then.
const VANISHED_ASK: Duration = Duration::from_secs(1);
const VANISHED_MAX: Duration = Duration::from_secs(4);

type Dialed = Result<Arc<Connection>, Failure>;
type Dial = Shared<oneshot::Receiver<Dialed>>;

/// Connections to other nodes, by thread.
pub(crate) struct Pool {
    identities: Arc<Identities>,
    shards: [Mutex<HashMap<Key, Arc<Slot>>>; SHARDS],
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    source: Arc<str>,
    destination: Arc<str>,
    node: SocketAddr,
}

/// The connections for one key.
struct Slot {
    node: SocketAddr,
    source: SpiffeId,
    destination: SpiffeId,
    state: Mutex<SlotState>,
}

#[derive(Default)]
struct SlotState {
    connections: SmallVec<[Arc<Connection>; 1]>,
    dialing: Option<Dial>,
}

struct Connection {
    sender: http2::SendRequest<Body>,
    streams: AtomicUsize,
    opened: Instant,
    /// Milliseconds after `opened` of the last request.
    used: AtomicU64,
    roots_generation: u64,
}

/// A stream of a connection; counts until dropped.
pub(crate) struct Stream(Arc<Connection>);

impl Stream {
    fn begin(connection: &Arc<Connection>) -> Self {
        connection.streams.fetch_add(1, Ordering::Relaxed);
        let used = connection.opened.elapsed().as_millis() as u64;
        connection.used.store(used, Ordering::Relaxed);
        Self(Arc::clone(connection))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Connection {
    fn usable(&self, roots_generation: u64) -> bool {
        !self.sender.is_closed()
            && self.roots_generation == roots_generation
            && self.opened.elapsed() < AGE_MAX
    }

    fn idle(&self) -> bool {
        let used = Duration::from_millis(self.used.load(Ordering::Relaxed));
        self.streams.load(Ordering::Relaxed) == 0
            && self.opened.elapsed().saturating_sub(used) > IDLE_MAX
    }
}

impl Pool {
    pub(crate) fn new(identities: Arc<Identities>) -> Self {
        Self {
            identities,
            shards: std::array::from_fn(|_| Mutex::default()),
        }
    }

    /// Sends one request on behalf of `source` to the node of `endpoint` at `node`.
    pub(crate) async fn send(
        &self,
        source: &SpiffeId,
        source_text: &Arc<str>,
        endpoint: &Endpoint,
        node: SocketAddr,
        request: Request<Body>,
    ) -> Result<(Response<Body>, Stream), Failure> {
        let destination = (&endpoint.identity, &endpoint.spiffe_id);
        self.send_to(source, source_text, destination, node, request)
            .await
    }

    /// The same to whoever has an identity there.
    pub(crate) async fn send_to(
        &self,
        source: &SpiffeId,
        source_text: &Arc<str>,
        destination: (&SpiffeId, &Arc<str>),
        node: SocketAddr,
        mut request: Request<Body>,
    ) -> Result<(Response<Body>, Stream), Failure> {
        let slot = self.slot(source, source_text, destination, node);
        // A pooled connection may turn out closed just when it is used; the second one is then fresh.
        for last in [false, true] {
            let connection = slot.connection(&self.identities).await?;
            let stream = Stream::begin(&connection);
            let mut error = match connection.sender.clone().try_send_request(request).await {
                Ok(response) => {
                    let response = response.map(|body| Body::new(body.map_err(Into::into)));
                    return Ok((response, stream));
                }
                Err(error) => error,
            };
            slot.forget_closed();
            match error.take_message() {
                Some(unsent) if !last => request = unsent,
                Some(_) => break,
                None if not_taken(error.error()) => break,
                None => return Err(broken(node, error.error())),
            }
        }
        Err(not_taken_by(node))
    }

    fn slot(
        &self,
        source: &SpiffeId,
        source_text: &Arc<str>,
        (destination, destination_text): (&SpiffeId, &Arc<str>),
        node: SocketAddr,
    ) -> Arc<Slot> {
        let key = Key {
            source: Arc::clone(source_text),
            destination: Arc::clone(destination_text),
            node,
        };
        let mut slots = self.shards[shard::current(SHARDS)].lock();
        if let Some(slot) = slots.get(&key) {
            return Arc::clone(slot);
        }
        // New peers are rare: a good moment to drop the slots of those that are gone.
        slots.retain(|_, slot| !slot.is_empty());
        let slot = Arc::new(Slot {
            node,
            source: source.clone(),
            destination: destination.clone(),
            state: Mutex::default(),
        });
        slots.insert(key, Arc::clone(&slot));
        slot
    }
}

impl Slot {
    fn is_empty(&self) -> bool {
        let state = self.state.lock();
        state.connections.is_empty() && state.dialing.is_none()
    }

    fn forget_closed(&self) {
        self.state
            .lock()
            .connections
            .retain(|connection| !connection.sender.is_closed());
    }

    fn sweep(&self, roots_generation: u64) {
        self.state
            .lock()
            .connections
            .retain(|connection| connection.usable(roots_generation) && !connection.idle());
    }

    /// The least used connection, or the one being opened.
    async fn connection(
        self: &Arc<Self>,
        identities: &Arc<Identities>,
    ) -> Result<Arc<Connection>, Failure> {
        let dial = {
            let mut state = self.state.lock();
            let generation = identities.roots_generation();
            state
                .connections
                .retain(|connection| connection.usable(generation));
            let best = state
                .connections
                .iter()
                .min_by_key(|connection| connection.streams.load(Ordering::Relaxed))
                .cloned();
            if let Some(connection) = best {
                let streams = connection.streams.load(Ordering::Relaxed);
                if streams >= STREAMS_WAITING_MAX {
                    let failure = Failure::from(FailureKind::Crowded);
                    return Err(failure.with_detail(self.node.to_string()));
                }
                let crowded = streams >= STREAMS_MAX;
                if crowded && state.connections.len() < CONNECTIONS_MAX && state.dialing.is_none() {
                    state.dialing = Some(self.dial(identities));
                }
                return Ok(connection);
            }
            match &state.dialing {
                Some(dial) => dial.clone(),
                None => {
                    let dial = self.dial(identities);
                    state.dialing = Some(dial.clone());
                    dial
                }
            }
        };
        // The dialling task always answers; if its runtime went away, so did the connection.
        dial.await.unwrap_or_else(|_| Err(not_taken_by(self.node)))
    }

    /// Opens a connection in a task of its own, so that the caller who asked first may give up.
    fn dial(self: &Arc<Self>, identities: &Arc<Identities>) -> Dial {
        let (done, dial) = oneshot::channel();
        let slot = Arc::clone(self);
        let identities = Arc::clone(identities);
        tokio::spawn(async move {
            let dialed = slot.open(&identities).await;
            {
                let mut state = slot.state.lock();
                state.dialing = None;
                if let Ok(connection) = &dialed {
                    state.connections.push(Arc::clone(connection));
                }
            }
            if let Err(error) = &dialed {
                let why = error.detail.as_deref().unwrap_or_default();
                tracing::debug!(node = %slot.node, to = %slot.destination, %error, why, "no connection");
            }
            // Nobody may be waiting any more.
            let _ = done.send(dialed);
        });
        dial.shared()
    }

    async fn open(self: &Arc<Self>, identities: &Arc<Identities>) -> Dialed {
        let address = self.node;
        let roots_generation = identities.roots_generation();
        let config = identities.client_config(&self.source)?;
        let name = identity::server_name(&self.destination)?;
        let connect = |error| not_connected(address, &error);
        let tls_failed = |error| no_tls(address, &error);
        let too_slow = |_| {
            let detail = format!("connecting to {address} took longer than the limit");
            Failure::from(FailureKind::Unreachable).with_detail(detail)
        };

        let tcp = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address))
            .await
            .map_err(too_slow)?
            .map_err(connect)?;
        tcp.set_nodelay(true).map_err(connect)?;
        notice_vanished(&tcp).map_err(connect)?;
        let handshake = TlsConnector::from(config).connect(name, tcp);
        let tls = tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake)
            .await
            .map_err(too_slow)?
            .map_err(tls_failed)?;
        if tls.get_ref().1.alpn_protocol() != Some(identity::ALPN) {
            return Err(tls_failed(io::Error::other(
                "the peer does not speak weft's protocol",
            )));
        }
        let (sender, driver) = connection::http2()
            .initial_max_send_streams(STREAMS_MAX)
            .handshake::<_, Body>(TokioIo::new(tls))
            .await
            .map_err(|error| tls_failed(io::Error::other(error)))?;
        tokio::spawn(drive(
            driver,
            Arc::downgrade(self),
            Arc::downgrade(identities),
        ));
        Ok(Arc::new(Connection {
            sender,
            streams: AtomicUsize::new(0),
            opened: Instant::now(),
            used: AtomicU64::new(0),
            roots_generation,
        }))
    }
}

/// Runs a connection to its end.
async fn drive(
    driver: impl Future<Output = Result<(), hyper::Error>>,
    slot: Weak<Slot>,
    identities: Weak<Identities>,
) {
    let sweep = || {
        if let (Some(slot), Some(identities)) = (slot.upgrade(), identities.upgrade()) {
            slot.sweep(identities.roots_generation());
        }
    };
    if let Err(error) = connection::run(driver, SWEEP_INTERVAL, sweep).await {
        tracing::debug!(%error, "connection to a node ended");
    }
    if let Some(slot) = slot.upgrade() {
        slot.forget_closed();
    }
}

/// Lets the kernel end a connection whose other machine is gone.
pub(crate) fn notice_vanished(stream: &TcpStream) -> io::Result<()> {
    let socket = SockRef::from(stream);
    let keepalive = TcpKeepalive::new()
        .with_time(VANISHED_ASK)
        .with_interval(VANISHED_ASK);
    socket.set_tcp_keepalive(&keepalive)?;
    // Of what is sent and of the questions alike; only Linux has it, elsewhere the pings have to do.
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(VANISHED_MAX))?;
    Ok(())
}

/// Nobody is there.
fn not_connected(node: SocketAddr, error: &io::Error) -> Failure {
    Failure::from(FailureKind::Unreachable).with_detail(format!("connecting to {node}: {error}"))
}

/// Somebody is there, and is not who it should be, or says so of us.
fn no_tls(node: SocketAddr, error: &io::Error) -> Failure {
    Failure::from(FailureKind::Unreachable)
        .with_blame(blame_of_cause(error))
        .with_detail(format!("TLS with {node}: {error}"))
}

/// The connection went away before the request was written to it, or the peer said that it did not look at it.
fn not_taken_by(node: SocketAddr) -> Failure {
    Failure::from(FailureKind::NotTaken).with_detail(node.to_string())
}

/// The stream ended when the request may have been read.
fn broken(node: SocketAddr, error: &hyper::Error) -> Failure {
    if is_malformed(error) {
        return Failure::new(
            FailureKind::Malformed,
            "the request is not acceptable: the other node does not take it for one of HTTP/2",
        )
        .with_detail(format!("{node}: {error}"));
    }
    Failure::from(FailureKind::Interrupted)
        .with_blame(blame_of_cause(error))
        .with_detail(format!("{node}: {error}"))
}

/// Whose doing it is, by what lies below: a stream that one end reset says nothing of the other streams, and a peer that refuses this
/// caller's certificate with an alert serves others.
fn blame_of_cause(error: &(dyn StdError + 'static)) -> Blame {
    let mut cause = Some(error);
    while let Some(error) = cause {
        cause = error.source();
        if let Some(error) = error.downcast_ref::<h2::Error>() {
            if error.is_reset() {
                return Blame::Endpoint;
            }
            if error.get_io().is_some_and(is_alert) {
                return Blame::Caller;
            }
        }
        if error.downcast_ref::<io::Error>().is_some_and(is_alert) {
            return Blame::Caller;
        }
    }
    Blame::Connection
}

fn is_alert(error: &io::Error) -> bool {
    error
        .get_ref()
        .is_some_and(|inner| matches!(inner.downcast_ref(), Some(rustls::Error::AlertReceived(_))))
}

/// Whether the peer's HTTP/2 refused the stream for what the request is.
pub(crate) fn is_malformed(error: &hyper::Error) -> bool {
    h2_error(error).is_some_and(|error| {
        error.is_reset() && error.is_remote() && error.reason() == Some(h2::Reason::PROTOCOL_ERROR)
    })
}

fn h2_error(error: &hyper::Error) -> Option<&h2::Error> {
    let mut cause = error.source();
    while let Some(source) = cause {
        if let Some(error) = source.downcast_ref::<h2::Error>() {
            return Some(error);
        }
        cause = source.source();
    }
    None
}

/// Whether HTTP/2 itself says that the peer did not process the stream: refused, or beyond the last stream of a
/// graceful GOAWAY.
pub(crate) fn not_taken(error: &hyper::Error) -> bool {
    h2_error(error).is_some_and(|error| {
        let refused = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
        let went_away = error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR);
        error.is_remote() && (refused || went_away)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_bears_what() {
        let node = ([127, 0, 0, 1], 1).into();
        let tls = |error: rustls::Error| {
            let error = io::Error::new(io::ErrorKind::InvalidData, error);
            no_tls(node, &error).blame
        };
        let table = [
            (
                "nobody listens",
                not_connected(node, &io::ErrorKind::ConnectionRefused.into()).blame,
                Blame::Connection,
            ),
            (
                "it does not say who it is",
                tls(rustls::Error::NoCertificatesPresented),
                Blame::Connection,
            ),
            (
                "it does not believe who we are",
                tls(rustls::Error::AlertReceived(
                    rustls::AlertDescription::CertificateExpired,
                )),
                Blame::Caller,
            ),
            (
                "it did not take it",
                not_taken_by(node).blame,
                Blame::Endpoint,
            ),
        ];
        for (what, found, expected) in table {
            assert_eq!(found, expected, "{what}");
        }
    }

    #[test]
    fn whoever_has_no_certificate_bears_it_alone() {
        let identities = Arc::new(Identities::new("cluster.local".to_owned()));
        let source = SpiffeId::new("cluster.local", "vote", "web");
        let failure = identities.client_config(&source).expect_err("it has none");
        assert_eq!(failure.blame, Blame::Caller);
        assert!(failure.never_processed());
    }
}
