//! The way into the cluster for byte streams and datagrams: Services at addresses of their own (LoadBalancer) and at ports of this node
//! (NodePort), listeners of Gateways for UDP, and what nodes tell who balances before them. Connections to Gateways are taken in `gateway.rs`.
//!
//! ```text
//! a table comes ─► which places there are (table/exposure.rs) ─► one task a place, on a core ─► stream.rs · datagrams.rs ─► as any call
//!                                                                                         └► health.rs
//! ```
//! A place is listened at by one node of a machine: the others try again each second, and have it a second after that one is gone. Whoever
//! comes has no name; the gateway calls under its own identity.
//!
//! Invariants: one task owns the places and joins what it started; a place that cannot be had is said once and tried again; what is let in is
//! judged by the table of that moment; connections, sessions and the bytes on the way are bounded.

mod datagrams;
mod health;
mod stream;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use socket2::{Domain, Socket, Type};
use tokio::{task::JoinHandle, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    Mesh, Outbound,
    table::{Exposure, Protocol, Table},
};

/// How soon a place is tried again that somebody else has: a node of this machine that may be gone by then.
const IN_USE_PAUSE: Duration = Duration::from_secs(1);
/// The same of an address that this machine does not have, or a port that it may not have.
const REFUSED_PAUSE: Duration = Duration::from_secs(30);
/// Places that a node listens at; further ones are not served.
const PLACES_MAX: usize = 8_192;
/// Connections the kernel holds for a listener until they are accepted.
const BACKLOG: i32 = 1024;

/// Runs what listens at a place: on which core is the node's to say.
pub type Spawn = Arc<dyn Fn(BoxFuture<'static, ()>) -> JoinHandle<()> + Send + Sync>;

/// What is done at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    Streams,
    Datagrams,
    Health,
}

/// Where something is listened at.
type Place = (What, SocketAddr);

/// What a listener knows of where it is.
#[derive(Debug, Clone, Copy)]
struct At {
    place: SocketAddr,
    /// The node's own address.
    node: IpAddr,
}

enum Slot {
    Held {
        stop: CancellationToken,
        serving: JoinHandle<()>,
    },
    Waits {
        until: Instant,
        why: io::ErrorKind,
    },
}

impl Mesh {
    /// Serves Services at their addresses outside of the cluster and at this node's, which is `address`, until `shutdown`.
    pub async fn serve_exposed(&self, address: IpAddr, spawn: Spawn, shutdown: CancellationToken) {
        let mut published = self.inner.published.subscribe();
        let mut places: BTreeMap<Place, Slot> = BTreeMap::new();
        let mut ending = Ending::new();
        loop {
            let table = self.inner.table.load_full();
            let wanted = wanted(&table, address);
            drop(table);
            release(&mut places, &wanted, &ending);
            let again = self.take(&mut places, wanted, address, &spawn);
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                Some(result) = ending.next() => ended(result),
                changed = published.changed() => if changed.is_err() { break },
                () = tokio::time::sleep_until(again) => {}
            }
        }
        release(&mut places, &BTreeSet::new(), &ending);
        while let Some(result) = ending.next().await {
            ended(result);
        }
    }

    /// Listens where it does not yet; returns when to try again what could not be had.
    fn take(
        &self,
        places: &mut BTreeMap<Place, Slot>,
        wanted: BTreeSet<Place>,
        node: IpAddr,
        spawn: &Spawn,
    ) -> Instant {
        let now = Instant::now();
        let mut again = now + REFUSED_PAUSE;
        for place in wanted {
            let known = match places.get(&place) {
                Some(Slot::Held { serving, .. }) if !serving.is_finished() => continue,
                Some(Slot::Waits { until, .. }) if *until > now => {
                    again = again.min(*until);
                    continue;
                }
                Some(Slot::Waits { why, .. }) => Some(*why),
                _ => None,
            };
            let slot = match self.listen(place, node, spawn) {
                Ok(slot) => slot,
                Err(error) => {
                    let why = error.kind();
                    let pause = match why {
                        io::ErrorKind::AddrInUse => IN_USE_PAUSE,
                        _ => REFUSED_PAUSE,
                    };
                    if known != Some(why) {
                        let (what, at) = place;
                        tracing::info!(?what, %at, %error, "a place of a Service is not to be had here");
                    }
                    again = again.min(now + pause);
                    Slot::Waits {
                        until: now + pause,
                        why,
                    }
                }
            };
            places.insert(place, slot);
        }
        again
    }

    fn listen(&self, place: Place, node: IpAddr, spawn: &Spawn) -> io::Result<Slot> {
        let (what, at) = place;
        let kind = match what {
            What::Streams | What::Health => Type::STREAM,
            What::Datagrams => Type::DGRAM,
        };
        let socket = Socket::new(Domain::for_address(at), kind, None)?;
        if kind == Type::STREAM {
            // Connections of before may still be on their way out.
            socket.set_reuse_address(true)?;
        }
        socket.bind(&at.into())?;
        socket.set_nonblocking(true)?;
        if kind == Type::STREAM {
            socket.listen(BACKLOG)?;
        }
        let (stop, on) = (CancellationToken::new(), At { place: at, node });
        let outbound = Outbound::of_gateway(self.clone());
        let stopped = stop.clone();
        let serving: BoxFuture<'static, ()> = match what {
            What::Streams => Box::pin(stream::serve(outbound, socket.into(), on, stopped)),
            What::Datagrams => Box::pin(datagrams::serve(outbound, socket.into(), on, stopped)),
            What::Health => Box::pin(health::serve(outbound, socket.into(), on, stopped)),
        };
        Ok(Slot::Held {
            stop,
            serving: spawn(serving),
        })
    }
}

/// Where a node at `address` should listen.
fn wanted(table: &Table, address: IpAddr) -> BTreeSet<Place> {
    let what = |protocol| match protocol {
        Protocol::Tcp => Some(What::Streams),
        Protocol::Udp => Some(What::Datagrams),
        Protocol::Sctp => None,
    };
    let places = table.exposures().filter_map(|exposure| match exposure {
        Exposure::Address(protocol, at) => Some((what(protocol)?, at)),
        Exposure::Node(protocol, port) => Some((what(protocol)?, SocketAddr::new(address, port))),
        Exposure::Health(port) => Some((What::Health, SocketAddr::new(address, port))),
    });
    let datagrams = table.streams.places_of_datagrams();
    let datagrams = datagrams.map(|at| (What::Datagrams, at));
    let mut places: BTreeSet<Place> = places.chain(datagrams).collect();
    while places.len() > PLACES_MAX {
        places.pop_last();
    }
    places
}

/// Places that were let go and may still have connections.
type Ending = FuturesUnordered<JoinHandle<()>>;

/// Lets go what is not wanted any more.
fn release(places: &mut BTreeMap<Place, Slot>, wanted: &BTreeSet<Place>, ending: &Ending) {
    for (_, slot) in places.extract_if(.., |place, _| !wanted.contains(place)) {
        if let Slot::Held { stop, serving } = slot {
            stop.cancel();
            ending.push(serving);
        }
    }
}

fn ended(result: Result<(), tokio::task::JoinError>) {
    if let Err(error) = result
        && !error.is_cancelled()
    {
        tracing::error!(%error, "a place of a Service failed");
    }
}
