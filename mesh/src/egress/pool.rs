//! Connections to hosts outside of the cluster, and how many calls there may be.
//!
//! ```text
//! identity (Account) ── host, port and proof (Place) ── connections: idle ones of HTTP/1.1, shared ones of HTTP/2
//! ```
//! A connection is used by the identity that opened it and by no other: hosts remember connections (cookies, TLS sessions, quotas), and so
//! one tenant would be taken for another. It is used again only for calls to the same scheme, host and port that show the same certificate, and only while its address is
//! one that the call may be connected to.
//!
//! Each call holds a place of its node, its namespace, its identity and its host until its response has been read; who finds none waits in line, or is
//! turned away where the line is full. Connections are as many as calls, and those that idle: they are closed when they have idled
//! for long or their host makes way for another.
//!
//! Invariants: the numbers below hold for connections and calls; nothing is shared between identities but the totals of namespace and node.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use hyper::client::conn::{http1, http2};
use parking_lot::Mutex;
use rustls::ClientConfig;
use smallvec::SmallVec;
use tokio::sync::{Mutex as AsyncMutex, OnceCell, OwnedSemaphorePermit, Semaphore};

use super::connect::Failed;
use super::{destination::Destination, manner::Key, names};
use crate::{Body, budget::Budget, connection};

/// Calls under way of all identities of this node: each may hold a connection of a kilobyte in the kernel, 100 KB here with TLS.
const CALLS_MAX: usize = 4096;
/// Of these for the identities of one namespace.
const CALLS_OF_NAMESPACE_MAX: usize = 1024;
/// Of these for one identity.
const CALLS_OF_ONE_MAX: usize = 512;
/// Of these to one host: as many connections, where it speaks HTTP/1.1 only.
const CALLS_TO_ONE_MAX: usize = 128;
/// Calls of one identity that wait for a place.
const WAITING_MAX: usize = 1024;
/// Connections of one identity that idle; further ones are closed when their call is over, those of HTTP/2 at the next sweep.
const IDLE_OF_ONE_MAX: usize = 64;
/// Of these to one host by HTTP/1.1. By HTTP/2 two have room for all calls that one host may have.
const IDLE_TO_ONE_MAX: usize = 16;
/// A connection without a call for this long is closed: many servers and the tables of address translators keep them for a minute.
const IDLE_MAX: Duration = Duration::from_secs(50);
/// Old connections make way, so that hosts that moved are found at their new place.
const AGE_MAX: Duration = Duration::from_secs(600);
/// Calls on one connection of HTTP/2 before another is opened beside it.
const STREAMS_MAX: usize = 64;
/// Hosts that one identity has called lately; a rule with a wildcard has as many as somebody makes up.
const PLACES_MAX: usize = 256;

/// The calls of all identities.
pub(crate) struct Pool {
    calls: Arc<Semaphore>,
    /// By namespace, as long as an identity of it has rules or calls.
    namespaces: Mutex<HashMap<String, Weak<Semaphore>>>,
}

impl Default for Pool {
    fn default() -> Self {
        Self {
            calls: Arc::new(Semaphore::new(CALLS_MAX)),
            namespaces: Mutex::default(),
        }
    }
}

impl Pool {
    /// What a new identity of `namespace` has outside.
    pub(crate) fn account(&self, namespace: &str) -> Account {
        let mut namespaces = self.namespaces.lock();
        let known = namespaces.get(namespace).and_then(Weak::upgrade);
        let shared = known.unwrap_or_else(|| {
            namespaces.retain(|_, calls| calls.strong_count() > 0);
            let calls = Arc::new(Semaphore::new(CALLS_OF_NAMESPACE_MAX));
            namespaces.insert(namespace.to_owned(), Arc::downgrade(&calls));
            calls
        });
        Account {
            calls_of_namespace: shared,
            ..Account::default()
        }
    }
}

/// What one identity has outside.
pub(crate) struct Account {
    calls: Arc<Semaphore>,
    calls_of_namespace: Arc<Semaphore>,
    waiting: AtomicUsize,
    idle: Arc<AtomicUsize>,
    places: Mutex<HashMap<(Destination, Key), Arc<Place>>>,
    pub(crate) lookups: names::Share,
    pub(crate) tls: OnceCell<Arc<ClientConfig>>,
}

impl Default for Account {
    fn default() -> Self {
        Self {
            calls: Arc::new(Semaphore::new(CALLS_OF_ONE_MAX)),
            calls_of_namespace: Arc::new(Semaphore::new(CALLS_OF_NAMESPACE_MAX)),
            waiting: AtomicUsize::new(0),
            idle: Arc::default(),
            places: Mutex::default(),
            lookups: names::Share::default(),
            tls: OnceCell::new(),
        }
    }
}

/// There are too many calls already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Crowded;

/// The right to one call; counts until dropped.
#[expect(dead_code, reason = "held for what dropping them does")]
pub(crate) struct Permits {
    host: OwnedSemaphorePermit,
    identity: OwnedSemaphorePermit,
    namespace: OwnedSemaphorePermit,
    node: OwnedSemaphorePermit,
}

/// Counts a call that waits.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Account {
    /// What the identity has at one host and port, by one way to prove itself there.
    pub(crate) fn place(&self, to: &Destination, key: Key) -> Result<Arc<Place>, Crowded> {
        let mut places = self.places.lock();
        let at = (to.clone(), key);
        if let Some(place) = places.get(&at) {
            return Ok(Arc::clone(place));
        }
        if places.len() >= PLACES_MAX {
            places.retain(|_, place| !place.is_unused());
        }
        if places.len() >= PLACES_MAX {
            // Connections that idle go with their place.
            places.retain(|_, place| Arc::strong_count(place) > 1);
        }
        if places.len() >= PLACES_MAX {
            return Err(Crowded);
        }
        let place = Arc::new(Place {
            calls: Arc::new(Semaphore::new(CALLS_TO_ONE_MAX)),
            budget: Budget::default(),
            dialing: AsyncMutex::default(),
            idle_of_account: Arc::clone(&self.idle),
            state: Mutex::default(),
        });
        places.insert(at, Arc::clone(&place));
        Ok(place)
    }

    /// Waits for the right to make a call to `place`.
    pub(crate) async fn enter(&self, pool: &Pool, place: &Place) -> Result<Permits, Crowded> {
        let before = self.waiting.fetch_add(1, Ordering::Relaxed);
        let _waiting = Waiting(&self.waiting);
        if before >= WAITING_MAX {
            return Err(Crowded);
        }
        // The host's first: who waits for a slow one takes nothing from calls to others. No semaphore is ever closed.
        let host = Arc::clone(&place.calls).acquire_owned().await;
        let identity = Arc::clone(&self.calls).acquire_owned().await;
        let namespace = Arc::clone(&self.calls_of_namespace).acquire_owned().await;
        let node = Arc::clone(&pool.calls).acquire_owned().await;
        Ok(Permits {
            host: host.map_err(|_| Crowded)?,
            identity: identity.map_err(|_| Crowded)?,
            namespace: namespace.map_err(|_| Crowded)?,
            node: node.map_err(|_| Crowded)?,
        })
    }

    /// Connections of this identity that idle, for tests.
    #[cfg(test)]
    fn idle(&self) -> usize {
        self.idle.load(Ordering::Relaxed)
    }
}

/// What one identity has at one host and port.
pub(crate) struct Place {
    calls: Arc<Semaphore>,
    pub(crate) budget: Budget,
    /// Held while the first connection is opened, and each while the host speaks HTTP/2: callers that come together share one.
    pub(crate) dialing: AsyncMutex<()>,
    idle_of_account: Arc<AtomicUsize>,
    state: Mutex<PlaceState>,
}

#[derive(Default)]
struct PlaceState {
    /// The last used last.
    idle: Vec<Idle>,
    shared: SmallVec<[Arc<Shared>; 1]>,
    speaks: Speaks,
    /// When a connection could last not be opened that several calls waited for, and why.
    failed: Option<(Instant, Failed)>,
}

/// What is known of the host's protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Speaks {
    #[default]
    Unknown,
    Http1,
    Http2,
}

struct Idle {
    connection: Exclusive,
    since: Instant,
    _counted: Counted,
}

/// Counts an idle connection of an identity until dropped.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    /// None where there are as many as there may be.
    fn one_of(idle: &Arc<AtomicUsize>) -> Option<Self> {
        let counted = Self(Arc::clone(idle));
        (idle.fetch_add(1, Ordering::Relaxed) < IDLE_OF_ONE_MAX).then_some(counted)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A connection of HTTP/1.1, which one call has at a time.
pub(crate) struct Exclusive {
    pub(crate) sender: http1::SendRequest<Body>,
    pub(crate) address: SocketAddr,
    pub(crate) opened: Instant,
}

impl Exclusive {
    fn usable(&self) -> bool {
        !self.sender.is_closed() && self.opened.elapsed() < AGE_MAX
    }
}

/// A connection of HTTP/2.
pub(crate) struct Shared {
    pub(crate) sender: http2::SendRequest<Body>,
    pub(crate) address: SocketAddr,
    opened: Instant,
    idle_of_account: Arc<AtomicUsize>,
    usage: Mutex<Usage>,
}

enum Usage {
    Streams(usize),
    Idle {
        since: Instant,
        _counted: Counted,
    },
    /// It would be one too many that idles.
    Surplus,
}

impl Shared {
    fn usable(&self) -> bool {
        !self.sender.is_closed() && self.opened.elapsed() < AGE_MAX
    }

    fn streams(&self) -> usize {
        match &*self.usage.lock() {
            Usage::Streams(streams) => *streams,
            Usage::Idle { .. } | Usage::Surplus => 0,
        }
    }

    /// Whether it is kept though nobody uses it, or somebody does.
    fn is_kept(&self) -> bool {
        match &*self.usage.lock() {
            Usage::Streams(_) => true,
            Usage::Idle { since, .. } => since.elapsed() <= IDLE_MAX,
            Usage::Surplus => false,
        }
    }
}

/// A stream of a shared connection; counts until dropped.
pub(crate) struct Stream {
    pub(crate) connection: Arc<Shared>,
}

impl Stream {
    fn begin(connection: Arc<Shared>) -> Self {
        {
            let mut usage = connection.usage.lock();
            *usage = match &*usage {
                Usage::Streams(streams) => Usage::Streams(streams + 1),
                Usage::Idle { .. } | Usage::Surplus => Usage::Streams(1),
            };
        }
        Self { connection }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let mut usage = self.connection.usage.lock();
        *usage = match &*usage {
            Usage::Streams(streams @ 2..) => Usage::Streams(streams - 1),
            _ => match Counted::one_of(&self.connection.idle_of_account) {
                Some(counted) => Usage::Idle {
                    since: Instant::now(),
                    _counted: counted,
                },
                None => Usage::Surplus,
            },
        };
    }
}

/// A connection that a call may have.
pub(crate) enum Open {
    Exclusive(Exclusive),
    Shared(Stream),
}

impl Place {
    fn is_unused(self: &Arc<Self>) -> bool {
        let state = self.state.lock();
        Arc::strong_count(self) == 1 && state.idle.is_empty() && state.shared.is_empty()
    }

    pub(crate) fn speaks(&self) -> Speaks {
        self.state.lock().speaks
    }

    /// A connection that is open, to one of `addresses`.
    pub(crate) fn take(&self, addresses: &[IpAddr]) -> Option<Open> {
        let mut state = self.state.lock();
        state.shared.retain(|connection| connection.usable());
        let shared = state.shared.iter().filter(|connection| {
            addresses.contains(&connection.address.ip()) && connection.streams() < STREAMS_MAX
        });
        if let Some(best) = shared.min_by_key(|shared| shared.streams()) {
            return Some(Open::Shared(Stream::begin(Arc::clone(best))));
        }
        state
            .idle
            .retain(|idle| idle.connection.usable() && idle.since.elapsed() < IDLE_MAX);
        let at = state
            .idle
            .iter()
            .rposition(|idle| addresses.contains(&idle.connection.address.ip()))?;
        Some(Open::Exclusive(state.idle.remove(at).connection))
    }

    /// A connection of HTTP/1.1 has nothing to do any more.
    pub(crate) fn give_back(&self, connection: Exclusive) {
        if !connection.usable() {
            return;
        }
        let mut state = self.state.lock();
        state.idle.retain(|idle| idle.connection.usable());
        if state.idle.len() < IDLE_TO_ONE_MAX
            && let Some(counted) = Counted::one_of(&self.idle_of_account)
        {
            state.idle.push(Idle {
                connection,
                since: Instant::now(),
                _counted: counted,
            });
        }
    }

    /// Nobody who waits for the connection now has to try for itself.
    pub(crate) fn fail(&self, error: Failed) {
        self.state.lock().failed = Some((Instant::now(), error));
    }

    /// Why the connection could not be opened that was waited for since then.
    pub(crate) fn failed(&self, since: Instant) -> Option<Failed> {
        let state = self.state.lock();
        let (_, error) = state.failed.as_ref().filter(|(at, _)| *at >= since)?;
        Some(error.clone())
    }

    pub(crate) fn learn(&self, speaks: Speaks) {
        self.state.lock().speaks = speaks;
    }

    /// Takes in a connection of HTTP/2, and begins a call on it.
    pub(crate) fn share(&self, sender: http2::SendRequest<Body>, address: SocketAddr) -> Stream {
        let connection = Arc::new(Shared {
            sender,
            address,
            opened: Instant::now(),
            idle_of_account: Arc::clone(&self.idle_of_account),
            usage: Mutex::new(Usage::Streams(0)),
        });
        let stream = Stream::begin(Arc::clone(&connection));
        self.state.lock().shared.push(connection);
        stream
    }

    fn sweep(&self) {
        let mut state = self.state.lock();
        state
            .idle
            .retain(|idle| idle.connection.usable() && idle.since.elapsed() < IDLE_MAX);
        state
            .shared
            .retain(|connection| connection.usable() && connection.is_kept());
    }
}

/// How often connections that idle are looked at.
const SWEEP_INTERVAL: Duration = Duration::from_secs(10);

/// Runs a connection to its end.
pub(crate) async fn drive(
    driver: impl Future<Output = Result<(), hyper::Error>>,
    place: Weak<Place>,
) {
    let sweep = || {
        if let Some(place) = place.upgrade() {
            place.sweep();
        }
    };
    if let Err(error) = connection::run(driver, SWEEP_INTERVAL, sweep).await {
        tracing::debug!(%error, "a connection to a host outside ended");
    }
    sweep();
}

#[cfg(test)]
mod tests {
    use hyper_util::rt::{TokioExecutor, TokioIo};

    use super::*;

    fn to(host: &str) -> Destination {
        let uri = format!("https://{host}/").parse().expect("a URI");
        Destination::of(&uri).expect("a destination")
    }

    #[tokio::test(start_paused = true)]
    async fn calls_are_bounded_by_host_and_identity_and_those_that_wait_too() {
        let (pool, account) = (Pool::default(), Account::default());
        let place = account.place(&to("a.example"), None).expect("room");
        let mut held = Vec::new();
        for _ in 0..CALLS_TO_ONE_MAX {
            held.push(account.enter(&pool, &place).await.expect("room"));
        }
        let waits = Duration::from_secs(1);
        let further = tokio::time::timeout(waits, account.enter(&pool, &place));
        assert!(further.await.is_err(), "one host is full");
        assert_eq!(
            account.waiting.load(Ordering::Relaxed),
            0,
            "and gave up its place in line"
        );

        let mut number = 0;
        while held.len() < CALLS_OF_ONE_MAX {
            number += 1;
            let other = account
                .place(&to(&format!("{number}.example")), None)
                .expect("room");
            for _ in 0..CALLS_TO_ONE_MAX.min(CALLS_OF_ONE_MAX - held.len()) {
                held.push(account.enter(&pool, &other).await.expect("room"));
            }
        }
        let other = account.place(&to("last.example"), None).expect("room");
        let further = tokio::time::timeout(waits, account.enter(&pool, &other));
        assert!(further.await.is_err(), "one identity is full");
        let neighbour = Account::default();
        let theirs = neighbour.place(&to("a.example"), None).expect("room");
        assert!(
            neighbour.enter(&pool, &theirs).await.is_ok(),
            "and no other"
        );
        held.pop();
        assert!(account.enter(&pool, &other).await.is_ok());
        account.waiting.store(WAITING_MAX, Ordering::Relaxed);
        assert!(account.enter(&pool, &other).await.is_err());
    }

    #[tokio::test]
    async fn connections_that_idle_are_bounded_by_http2_too() {
        let account = Account::default();
        let address = SocketAddr::from(([127, 0, 0, 2], 443));
        let (mut places, mut ends) = (Vec::new(), Vec::new());
        for number in 0..IDLE_OF_ONE_MAX + 8 {
            let place = account.place(&to(&format!("{number}.example")), None);
            let place = place.expect("room");
            let (near, far) = tokio::io::duplex(64 << 10);
            let opened = http2::Builder::new(TokioExecutor::new())
                .handshake::<_, Body>(TokioIo::new(near))
                .await;
            let (sender, driver) = opened.expect("somebody to write to");
            ends.push((driver, far));
            drop(place.share(sender, address));
            places.push(place);
        }
        assert_eq!(account.idle(), IDLE_OF_ONE_MAX);
        places.iter().for_each(|place| place.sweep());
        let is_open = |place: &&Arc<Place>| !place.state.lock().shared.is_empty();
        assert_eq!(places.iter().filter(is_open).count(), IDLE_OF_ONE_MAX);
        // A call takes one of them, and gives it back.
        let taken = places[0].take(&[address.ip()]);
        assert!(matches!(taken, Some(Open::Shared(_))));
        assert_eq!(account.idle(), IDLE_OF_ONE_MAX - 1);
        drop(taken);
        assert_eq!(account.idle(), IDLE_OF_ONE_MAX);
    }

    #[test]
    fn hosts_that_are_made_up_are_bounded() {
        let account = Account::default();
        let first = account.place(&to("first.example"), None);
        for number in 0..2 * PLACES_MAX {
            assert!(
                account
                    .place(&to(&format!("{number}.example")), None)
                    .is_ok()
            );
        }
        assert!(account.places.lock().len() <= PLACES_MAX);
        assert!(
            account
                .places
                .lock()
                .contains_key(&(to("first.example"), None)),
            "it is in use"
        );
        drop(first);
        assert_eq!(account.idle(), 0);
    }
}
