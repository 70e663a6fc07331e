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
    error::Error as _,
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
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::Mutex;
use smallvec::SmallVec;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use weft_api::identity::SpiffeId;

use crate::{
    Body, TransportError,
    headers::HEADER_LIST_BYTES_MAX,
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

type Dialed = Result<Arc<Connection>, TransportError>;
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
        mut request: Request<Body>,
    ) -> Result<(Response<Body>, Stream), TransportError> {
        let slot = self.slot(source, source_text, endpoint, node);
        let address = node;
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
                None => {
                    let is_malformed = is_malformed(error.error());
                    let source = Arc::new(error.into_error());
                    return Err(if is_malformed {
                        TransportError::Malformed { address, source }
                    } else {
                        TransportError::Broken { address, source }
                    });
                }
            }
        }
        Err(TransportError::NotTaken { address })
    }

    fn slot(
        &self,
        source: &SpiffeId,
        source_text: &Arc<str>,
        endpoint: &Endpoint,
        node: SocketAddr,
    ) -> Arc<Slot> {
        let key = Key {
            source: Arc::clone(source_text),
            destination: Arc::clone(&endpoint.spiffe_id),
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
            destination: endpoint.identity.clone(),
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
    ) -> Result<Arc<Connection>, TransportError> {
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
                    return Err(TransportError::Crowded { address: self.node });
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
        dial.await
            .unwrap_or(Err(TransportError::NotTaken { address: self.node }))
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
                tracing::debug!(node = %slot.node, to = %slot.destination, %error, "no connection");
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
        let connect = |source| TransportError::Connect {
            address,
            source: Arc::new(source),
        };
        let tls_failed = |source| TransportError::Tls {
            address,
            source: Arc::new(source),
        };

        let tcp = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address))
            .await
            .map_err(|_| TransportError::ConnectTimeout { address })?
            .map_err(connect)?;
        tcp.set_nodelay(true).map_err(connect)?;
        notice_vanished(&tcp).map_err(connect)?;
        let handshake = TlsConnector::from(config).connect(name, tcp);
        let tls = tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake)
            .await
            .map_err(|_| TransportError::ConnectTimeout { address })?
            .map_err(tls_failed)?;
        if tls.get_ref().1.alpn_protocol() != Some(identity::ALPN) {
            return Err(tls_failed(std::io::Error::other(
                "the peer does not speak weft's protocol",
            )));
        }
        let (sender, driver) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_frame_size(FRAME_BYTES_MAX)
            .max_send_buf_size(SEND_BUFFER_BYTES)
            .max_header_list_size(HEADER_LIST_BYTES_MAX)
            .initial_max_send_streams(STREAMS_MAX)
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .handshake::<_, Body>(TokioIo::new(tls))
            .await
            .map_err(|error| tls_failed(std::io::Error::other(error)))?;
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

/// Runs a connection to its end. The end comes when the pool has let go of it and no stream is open.
async fn drive(
    driver: impl Future<Output = Result<(), hyper::Error>>,
    slot: Weak<Slot>,
    identities: Weak<Identities>,
) {
    let mut driver = std::pin::pin!(driver);
    let mut sweep = tokio::time::interval(SWEEP_INTERVAL);
    sweep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            ended = &mut driver => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "connection to a node ended");
                }
                break;
            }
            _ = sweep.tick() => {
                if let (Some(slot), Some(identities)) = (slot.upgrade(), identities.upgrade()) {
                    slot.sweep(identities.roots_generation());
                }
            }
        }
    }
    if let Some(slot) = slot.upgrade() {
        slot.forget_closed();
    }
}

/// Lets the kernel end a connection whose other machine is gone.
pub(crate) fn notice_vanished(stream: &TcpStream) -> std::io::Result<()> {
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

/// Whether the peer's HTTP/2 refused the stream for what the request is.
fn is_malformed(error: &hyper::Error) -> bool {
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
fn not_taken(error: &hyper::Error) -> bool {
    h2_error(error).is_some_and(|error| {
        let refused = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
        let went_away = error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR);
        error.is_remote() && (refused || went_away)
    })
}
