//! The virtual network of a pod: what its guests reach by `wasi:sockets`, without a socket of the host.
//!
//! ```text
//! guest ─ bind, listen, accept ─┐             ┌─ connect from elsewhere: the mesh, a port-forward, a probe
//! guest ─ connect 127.0.0.1 ────┴─► Network ◄─┘
//! guest ─ connect anywhere else ──► Beyond: what the embedder says there is outside of the pod
//! ```
//!
//! All guests of a pod share one [`Network`], with one address, `localhost` and one space of ports for each protocol. A connection is two
//! pipes in memory ([`Stream`]); datagrams are put into a mailbox.
//!
//! Invariants: no function here opens anything of the host; a listener that is bound to the loopback is reached from inside the pod, and
//! by who says that it comes from there; listeners, sockets, connections, what waits for each and the bytes on the way are bounded, and
//! charged to the memory of the guest whose they are; a port is free again when its socket is dropped.

mod datagrams;
mod pipe;
mod stream;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wasmtime_wasi::sockets::ErrorCode;

use crate::limits::{Charge, HostBytes};

pub(crate) use datagrams::{DATAGRAM_BYTES_MAX, Mailbox, QUEUE_BYTES};
pub(crate) use pipe::{PIPE_BYTES, Reader, Writer};
pub use stream::{Incoming, Outgoing, Stream, pair};

/// Ports of each protocol that the guests of a pod may have at the same time.
const PORTS_MAX: usize = 256;
/// Connections of a pod's guests at the same time, those that wait to be accepted included.
const CONNECTIONS_MAX: usize = 1024;
/// Connections that wait for one listener; more are refused.
pub(crate) const BACKLOG_MAX: usize = 128;
/// What a connection may hold: a full pipe in each direction.
const CONNECTION_BYTES: u64 = 2 * PIPE_BYTES as u64;
/// Ports that a socket is given when it asks for none, as Linux has them.
const EPHEMERAL: std::ops::RangeInclusive<u16> = 32_768..=60_999;

/// What there is outside of a pod. All of it is told and asked by guests, on their cores: nothing here may block.
pub trait Beyond: Send + Sync + 'static {
    /// A guest listens on `port` of the pod's address from now on.
    fn opened(&self, network: &Network, port: u16);

    /// Nobody does any more.
    fn closed(&self, port: u16);

    /// Connects a guest that is at `from` to `to`, which is not an address of the pod, or is one whose port the embedder serves itself.
    ///
    /// # Errors
    /// `ConnectionRefused`, `PermissionDenied`, `TimedOut`, and `HostUnreachable` for everything else.
    fn connect(&self, from: SocketAddr, to: SocketAddr) -> BoxFuture<'static, io::Result<Stream>>;

    /// Sends a datagram of a guest to an address outside of the pod, or drops it.
    fn send(&self, from: SocketAddr, to: SocketAddr, datagram: Bytes);

    /// Whether something outside of the pod is at `to`, of TCP or of UDP, which is an address of the pod's loopback where none of its guests is:
    /// as ports of a node are at each of its addresses.
    fn is_at(&self, to: SocketAddr, is_udp: bool) -> bool {
        let _ = (to, is_udp);
        false
    }

    /// The addresses that `name` has for the pod.
    ///
    /// # Errors
    /// `NotFound` where there is no such name, `PermissionDenied` where the pod may not ask.
    fn resolve(&self, name: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>>;
}

/// Nothing: the pod is alone.
impl Beyond for () {
    fn opened(&self, _: &Network, _: u16) {}

    fn closed(&self, _: u16) {}

    fn connect(&self, _: SocketAddr, _: SocketAddr) -> BoxFuture<'static, io::Result<Stream>> {
        Box::pin(std::future::ready(Err(
            io::ErrorKind::HostUnreachable.into()
        )))
    }

    fn send(&self, _: SocketAddr, _: SocketAddr, _: Bytes) {}

    fn resolve(&self, _: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        Box::pin(std::future::ready(Err(io::ErrorKind::NotFound.into())))
    }
}

/// From where a connection comes, as far as a listener tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// Inside the pod: every listener is reached.
    Loopback,
    /// The pod's address: a listener that is bound to the loopback is not.
    Address,
}

impl Via {
    fn of(to: IpAddr) -> Via {
        match is_loopback(to) {
            true => Via::Loopback,
            false => Via::Address,
        }
    }
}

/// The network of one pod. Clones share it.
#[derive(Clone)]
pub struct Network(Arc<Inner>);

struct Inner {
    ip: IpAddr,
    beyond: Box<dyn Beyond>,
    ports: Mutex<Ports>,
    connections: Arc<Semaphore>,
}

#[derive(Default)]
struct Ports {
    tcp: BTreeMap<u16, Use>,
    udp: BTreeMap<u16, (IpAddr, Arc<Mailbox>)>,
    /// Counts the ephemeral ports that were given out.
    turn: u16,
}

/// Who has a port of TCP.
enum Use {
    /// The embedder, for something that is not a guest's socket.
    Served,
    /// A guest, which does not listen there.
    Bound,
    Listening(IpAddr, Arc<Queue>),
}

/// What a connection takes: one of the pod's connections, and memory of a guest.
pub(crate) struct Held {
    _place: OwnedSemaphorePermit,
    _charge: Charge,
}

impl std::fmt::Debug for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Network({})", self.0.ip)
    }
}

impl Network {
    /// A pod's network, at `ip`.
    pub fn new(ip: IpAddr, beyond: impl Beyond) -> Network {
        Network(Arc::new(Inner {
            ip,
            beyond: Box::new(beyond),
            ports: Mutex::default(),
            connections: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
        }))
    }

    /// The pod's address.
    pub fn ip(&self) -> IpAddr {
        self.0.ip
    }

    /// Whether the two are one.
    pub fn is(&self, other: &Network) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Keeps `port` of TCP from guests: the embedder serves it. Connections of guests to it go to [`Beyond::connect`]. False where a guest
    /// has it.
    pub fn serve(&self, port: u16) -> bool {
        let mut ports = self.0.ports.lock();
        match ports.tcp.get(&port) {
            Some(Use::Bound | Use::Listening(..)) => false,
            Some(Use::Served) | None => {
                ports.tcp.insert(port, Use::Served);
                true
            }
        }
    }

    /// The embedder serves `port` no longer.
    pub fn cease(&self, port: u16) {
        let mut ports = self.0.ports.lock();
        if let Some(Use::Served) = ports.tcp.get(&port) {
            ports.tcp.remove(&port);
        }
    }

    /// Whether a guest listens on `port` for who comes that way.
    pub fn listens(&self, port: u16, via: Via) -> bool {
        match self.0.ports.lock().tcp.get(&port) {
            Some(Use::Listening(at, _)) => via == Via::Loopback || !is_loopback(*at),
            _ => false,
        }
    }

    /// Whether a guest has `port` of UDP for who comes that way.
    pub fn receives(&self, port: u16, via: Via) -> bool {
        let ports = self.0.ports.lock();
        let bound = ports.udp.get(&port);
        bound.is_some_and(|(at, _)| via == Via::Loopback || !is_loopback(*at))
    }

    /// Whether a guest listens on any port.
    pub fn serves_any(&self) -> bool {
        let ports = self.0.ports.lock();
        let mut uses = ports.tcp.values();
        uses.any(|used| matches!(used, Use::Listening(..))) || !ports.udp.is_empty()
    }

    /// Connects somebody at `from` to the guest that listens on `port`: the somebody's end of it.
    ///
    /// # Errors
    /// `ConnectionRefused` where nobody listens, too many wait already, or the guest has no memory for another connection.
    pub fn connect(&self, from: SocketAddr, via: Via, port: u16) -> io::Result<Stream> {
        let queue = match self.0.ports.lock().tcp.get(&port) {
            Some(Use::Listening(at, queue)) if via == Via::Loopback || !is_loopback(*at) => {
                queue.clone()
            }
            _ => return Err(io::ErrorKind::ConnectionRefused.into()),
        };
        let ip = match (via, from.ip()) {
            (Via::Address, _) => self.0.ip,
            (Via::Loopback, IpAddr::V4(_)) => Ipv4Addr::LOCALHOST.into(),
            (Via::Loopback, IpAddr::V6(_)) => Ipv6Addr::LOCALHOST.into(),
        };
        let arrived = self
            .hold(&queue.host)
            .and_then(|held| queue.arrive(from, SocketAddr::new(ip, port), held));
        arrived.ok_or_else(|| io::ErrorKind::ConnectionRefused.into())
    }

    /// Puts a datagram of somebody at `from` outside of the pod into the mailbox of `port`, or drops it.
    pub fn deliver(&self, from: SocketAddr, port: u16, datagram: Bytes) {
        self.put(from, Via::Address, port, datagram);
    }

    fn put(&self, from: SocketAddr, via: Via, port: u16, datagram: Bytes) {
        let found = match self.0.ports.lock().udp.get(&port) {
            Some((at, mailbox)) if via == Via::Loopback || !is_loopback(*at) => mailbox.clone(),
            _ => return,
        };
        found.put(from, datagram);
    }

    /// A place and memory for a connection of the guest of `host`.
    fn hold(&self, host: &Arc<HostBytes>) -> Option<Held> {
        Some(Held {
            _place: self.0.connections.clone().try_acquire_owned().ok()?,
            _charge: host.try_charge(CONNECTION_BYTES)?,
        })
    }

    /// Whether the address is one of the pod's own.
    fn is_own(&self, ip: IpAddr) -> bool {
        is_loopback(ip) || ip.to_canonical() == self.0.ip
    }

    /// From which of the pod's addresses something to `to` is sent.
    pub(crate) fn source(&self, to: IpAddr) -> IpAddr {
        match self.is_own(to) {
            true => to,
            false => self.0.ip,
        }
    }

    // === For guests ===

    /// Takes a port of TCP; 0 is one that is free.
    pub(crate) fn bind(&self, address: SocketAddr) -> Result<Bound, ErrorCode> {
        self.is_bindable(address.ip())?;
        let mut ports = self.0.ports.lock();
        if ports.tcp.len() >= PORTS_MAX {
            return Err(ErrorCode::OutOfMemory);
        }
        let Ports { tcp, turn, .. } = &mut *ports;
        let port = free_port(address.port(), turn, |port| !tcp.contains_key(&port))?;
        tcp.insert(port, Use::Bound);
        Ok(Bound {
            network: self.clone(),
            local: SocketAddr::new(address.ip(), port),
        })
    }

    /// Takes a port of UDP, with a mailbox.
    pub(crate) fn bind_udp(
        &self,
        address: SocketAddr,
        host: &Arc<HostBytes>,
    ) -> Result<BoundUdp, ErrorCode> {
        self.is_bindable(address.ip())?;
        let charge = host.try_charge(QUEUE_BYTES as u64);
        let charge = charge.ok_or(ErrorCode::OutOfMemory)?;
        let mut ports = self.0.ports.lock();
        if ports.udp.len() >= PORTS_MAX {
            return Err(ErrorCode::OutOfMemory);
        }
        let Ports { udp, turn, .. } = &mut *ports;
        let port = free_port(address.port(), turn, |port| !udp.contains_key(&port))?;
        let mailbox = Arc::<Mailbox>::default();
        udp.insert(port, (address.ip(), mailbox.clone()));
        Ok(BoundUdp {
            network: self.clone(),
            local: SocketAddr::new(address.ip(), port),
            mailbox,
            _charge: charge,
        })
    }

    fn is_bindable(&self, ip: IpAddr) -> Result<(), ErrorCode> {
        match ip.is_unspecified() || self.is_own(ip) {
            true => Ok(()),
            false => Err(ErrorCode::AddressNotBindable),
        }
    }

    /// Connects a guest, whose memory `host` is, to `to`. The port that it is bound to, if any, is its own.
    pub(crate) fn dial(
        &self,
        bound: Option<&Bound>,
        to: SocketAddr,
        host: &Arc<HostBytes>,
    ) -> Dialing {
        let port = match bound {
            Some(bound) => bound.local.port(),
            None => self.0.ports.lock().ephemeral(),
        };
        let (ip, port_to) = (to.ip().to_canonical(), to.port());
        if self.is_own(ip) {
            let known = self.0.ports.lock();
            let is_served = matches!(known.tcp.get(&port_to), Some(Use::Served));
            let is_free = !known.tcp.contains_key(&port_to);
            drop(known);
            let at = SocketAddr::new(ip, port_to);
            if is_free && is_loopback(ip) && self.0.beyond.is_at(at, false) {
                return self.dial_beyond(port, at, host);
            }
            if !is_served {
                let from = SocketAddr::new(to.ip(), port);
                // Both ends are in the pod, and pay once: the one who listens does.
                let reached = self.connect(from, Via::of(ip), port_to);
                return Dialing::Done(reached.map_err(|error| code(&error)));
            }
        }
        let to = match is_loopback(ip) {
            true => SocketAddr::new(self.0.ip, port_to),
            false => SocketAddr::new(ip, port_to),
        };
        self.dial_beyond(port, to, host)
    }

    fn dial_beyond(&self, port: u16, to: SocketAddr, host: &Arc<HostBytes>) -> Dialing {
        let Some(held) = self.hold(host) else {
            return Dialing::Done(Err(ErrorCode::OutOfMemory));
        };
        let from = SocketAddr::new(self.0.ip, port);
        let connecting = self.0.beyond.connect(from, to);
        Dialing::Waiting(Box::pin(async move {
            let stream = connecting.await.map_err(|error| code(&error))?;
            Ok(stream.holding(held))
        }))
    }

    /// The addresses of a name: those that are addresses already, `localhost`, and what is known beyond.
    pub(crate) fn resolve(&self, name: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        let known = match name.parse::<IpAddr>() {
            Ok(ip) => Some(vec![ip]),
            Err(_) => {
                let is_local = name.trim_end_matches('.').eq_ignore_ascii_case("localhost");
                is_local.then(|| vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()])
            }
        };
        match known {
            Some(known) => Box::pin(std::future::ready(Ok(known))),
            None => self.0.beyond.resolve(name),
        }
    }
}

/// A connection that is being made.
pub(crate) enum Dialing {
    Done(Result<Stream, ErrorCode>),
    Waiting(BoxFuture<'static, Result<Stream, ErrorCode>>),
}

impl Ports {
    /// A port for a connection; it is not taken, since nobody else can be mistaken for it.
    fn ephemeral(&mut self) -> u16 {
        next_ephemeral(&mut self.turn)
    }
}

fn next_ephemeral(turn: &mut u16) -> u16 {
    let count = EPHEMERAL.end() - EPHEMERAL.start() + 1;
    let port = EPHEMERAL.start() + *turn % count;
    *turn = (*turn + 1) % count;
    port
}

/// The port that was asked for, if it is free, or any that is.
fn free_port(wanted: u16, turn: &mut u16, is_free: impl Fn(u16) -> bool) -> Result<u16, ErrorCode> {
    if wanted != 0 {
        let free = is_free(wanted).then_some(wanted);
        return free.ok_or(ErrorCode::AddressInUse);
    }
    // There are more than `PORTS_MAX`, so that one of so many is free.
    let mut candidates = (0..=PORTS_MAX).map(|_| next_ephemeral(turn));
    let found = candidates.find(|port| is_free(*port));
    found.ok_or(ErrorCode::AddressInUse)
}

fn is_loopback(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}

/// What a guest is told of an error.
pub(crate) fn code(error: &io::Error) -> ErrorCode {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => ErrorCode::ConnectionRefused,
        io::ErrorKind::PermissionDenied => ErrorCode::AccessDenied,
        io::ErrorKind::TimedOut => ErrorCode::Timeout,
        io::ErrorKind::ConnectionReset => ErrorCode::ConnectionReset,
        io::ErrorKind::OutOfMemory => ErrorCode::OutOfMemory,
        _ => ErrorCode::RemoteUnreachable,
    }
}

/// A port of TCP that a guest has.
pub(crate) struct Bound {
    network: Network,
    local: SocketAddr,
}

impl Bound {
    pub(crate) fn local(&self) -> SocketAddr {
        self.local
    }

    /// Lets connections come, of which up to `backlog` wait; what they hold is charged to `host`.
    pub(crate) fn listen(self, backlog: usize, host: &Arc<HostBytes>) -> Listener {
        let queue = Arc::new(Queue {
            host: host.clone(),
            state: Mutex::new(Waiting {
                most: backlog.clamp(1, BACKLOG_MAX),
                ..Waiting::default()
            }),
        });
        let (network, port) = (&self.network, self.local.port());
        let listening = Use::Listening(self.local.ip(), queue.clone());
        network.0.ports.lock().tcp.insert(port, listening);
        if !is_loopback(self.local.ip()) {
            network.0.beyond.opened(network, port);
        }
        Listener { bound: self, queue }
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        // Dropped after the lock is let go: connections that wait go with it.
        let was = self.network.0.ports.lock().tcp.remove(&self.local.port());
        drop(was);
    }
}

/// A guest's socket that listens.
pub(crate) struct Listener {
    bound: Bound,
    queue: Arc<Queue>,
}

impl Listener {
    pub(crate) fn local(&self) -> SocketAddr {
        self.bound.local
    }

    pub(crate) fn set_backlog(&self, backlog: usize) {
        self.queue.state.lock().most = backlog.clamp(1, BACKLOG_MAX);
    }

    /// The connection that has waited for longest.
    pub(crate) fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<Stream> {
        let mut state = self.queue.state.lock();
        match state.streams.pop_front() {
            Some(stream) => Poll::Ready(stream),
            None => {
                state.accepting = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    /// Ready when one waits.
    pub(crate) fn poll_any(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.queue.state.lock();
        if !state.streams.is_empty() {
            return Poll::Ready(());
        }
        state.accepting = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let waiting = {
            let mut state = self.queue.state.lock();
            state.closed = true;
            std::mem::take(&mut state.streams)
        };
        drop(waiting);
        if !is_loopback(self.bound.local.ip()) {
            self.bound.network.0.beyond.closed(self.bound.local.port());
        }
    }
}

/// Connections that wait to be accepted.
struct Queue {
    host: Arc<HostBytes>,
    state: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    streams: VecDeque<Stream>,
    most: usize,
    closed: bool,
    accepting: Option<Waker>,
}

impl Queue {
    /// The end of who connects; none where too many wait.
    fn arrive(&self, from: SocketAddr, to: SocketAddr, held: Held) -> Option<Stream> {
        let (theirs, ours) = stream::held_pair(from, to, Some(Arc::new(held)));
        let accepting = {
            let mut state = self.state.lock();
            if state.closed || state.streams.len() >= state.most {
                return None;
            }
            state.streams.push_back(ours);
            state.accepting.take()
        };
        if let Some(waker) = accepting {
            waker.wake();
        }
        Some(theirs)
    }
}

/// A guest's socket of UDP.
pub(crate) struct BoundUdp {
    network: Network,
    local: SocketAddr,
    mailbox: Arc<Mailbox>,
    _charge: Charge,
}

impl BoundUdp {
    pub(crate) fn local(&self) -> SocketAddr {
        self.local
    }

    pub(crate) fn mailbox(&self) -> &Arc<Mailbox> {
        &self.mailbox
    }

    /// Sends a datagram, which may be lost.
    pub(crate) fn send(&self, to: SocketAddr, datagram: Bytes) {
        let network = &self.network;
        let (ip, port) = (to.ip().to_canonical(), self.local.port());
        let at = SocketAddr::new(ip, to.port());
        let is_beyond = is_loopback(ip)
            && !network.receives(to.port(), Via::Loopback)
            && network.0.beyond.is_at(at, true);
        if network.is_own(ip) && !is_beyond {
            let from = SocketAddr::new(to.ip(), port);
            network.put(from, Via::of(ip), to.port(), datagram);
        } else {
            let (from, to) = (network.0.ip, SocketAddr::new(ip, to.port()));
            let beyond = &network.0.beyond;
            beyond.send(SocketAddr::new(from, port), to, datagram);
        }
    }
}

impl Drop for BoundUdp {
    fn drop(&mut self) {
        self.network.0.ports.lock().udp.remove(&self.local.port());
    }
}

#[cfg(test)]
mod tests;
