//! Where runtime and mesh meet: two adaptors, and what `localhost` means to the containers of a pod.
//!
//! ```text
//! mesh ──► inbound ──► workload.call         the deadline where nobody named one, and who a gateway's caller is: nobody;
//!                                            of a raw call each request that is spoken on it
//! guest ─► outbound ─► mesh.outbound         and what is told of calls that came to nothing
//!             └ localhost:PORT ─► the pod's own container, through the mesh's door as well; or a port of the node
//! ```
//!
//! Contexts, failures and bodies are the same types on both sides and pass as they are. Nothing is spawned: a call stays on the core that
//! makes it.
//!
//! Invariant: who the peer is comes from the mesh only, and of a gateway's call it is nobody.

use crate::failures::{Asked, Failures};
use crate::guest::Guest;
use crate::host_aliases::HostAliases;
use crate::node::Node;
use crate::sockets::heard;
use crate::translate::REQUEST_TIMEOUT_DEFAULT;
use arc_swap::ArcSwap;
use futures::TryFutureExt;
use futures::future::Either;
use http::{Request, Response};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use weft_call::{CallContext, Failure, FailureKind};
use weft_mesh::{PodAddress, Protocol, Raw, WorkloadService, is_gateway};
use weft_runtime::{Body, Network, Outbound};

/// The containers of one pod by port: what `localhost` means to each of them. They are attached to the mesh at these addresses.
#[derive(Clone, Default)]
pub struct Ports {
    by_port: Arc<ArcSwap<BTreeMap<u16, PodAddress>>>,
}

impl Ports {
    pub(crate) fn insert(&self, address: PodAddress) {
        self.by_port.rcu(|map| {
            let mut map = BTreeMap::clone(map);
            map.insert(address.port, address);
            map
        });
    }

    pub(crate) fn remove(&self, port: u16) {
        self.by_port.rcu(|map| {
            let mut map = BTreeMap::clone(map);
            map.remove(&port);
            map
        });
    }
}

/// What the containers of one pod share: their ports, and the network of those that open sockets.
#[derive(Clone, Default)]
pub struct Siblings {
    ports: Ports,
    network: Arc<OnceLock<Network>>,
}

impl Siblings {
    /// Makes the container at `address` reachable at `localhost:port`.
    pub fn insert(&self, address: PodAddress) {
        self.ports.insert(address);
        if let Some(network) = self.network.get() {
            network.serve(address.port);
        }
    }

    /// Whether a container is reachable at `localhost:port`.
    pub fn serves(&self, port: u16) -> bool {
        self.ports.by_port.load().contains_key(&port)
    }

    /// Takes it away.
    pub fn remove(&self, port: u16) {
        self.ports.remove(port);
        if let Some(network) = self.network.get() {
            network.cease(port);
        }
    }

    /// The pod's network, which `make` makes if there is none yet.
    pub(crate) fn network(&self, make: impl FnOnce() -> Network) -> Network {
        let network = self.network.get_or_init(make);
        for port in self.ports.by_port.load().keys() {
            network.serve(*port);
        }
        network.clone()
    }

    /// The pod's network, if there is one.
    pub(crate) fn made(&self) -> Option<Network> {
        self.network.get().cloned()
    }

    /// The ports alone, for whoever is in the network.
    pub(crate) fn ports(&self) -> Ports {
        self.ports.clone()
    }
}

/// The mesh's way into a workload.
pub fn inbound(workload: Guest, failures: Arc<Failures>) -> WorkloadService {
    WorkloadService::from_fn(move |mut request: Request<Body>| {
        let (workload, failures) = (workload.clone(), failures.clone());
        async move {
            if request.extensions().get::<Raw>().is_none() {
                return answered(&workload, &failures, request).await;
            }
            // A guest has connected to it by a socket, and speaks what it will: that is HTTP, or nothing that it understands.
            let context = request.extensions_mut().remove().unwrap_or_default();
            Ok(heard(request.into_body(), context, move |request| {
                let (workload, failures) = (workload.clone(), failures.clone());
                async move { answered(&workload, &failures, request).await }
            }))
        }
    })
}

async fn answered(
    workload: &Guest,
    failures: &Failures,
    mut request: Request<Body>,
) -> Result<Response<Body>, Failure> {
    let context = request.extensions_mut().get_or_insert_default();
    let theirs = told(context, failures.request_timeout(), Instant::now());
    let asked = Asked::of(&request, theirs);
    let answered = workload.call(request).await;
    answered.inspect_err(|failure| failures.record_failure(failure, Some(&asked)))
}

/// A workload's way out.
pub(crate) fn outbound(
    mesh: weft_mesh::Outbound,
    siblings: Siblings,
    aliases: HostAliases,
    failures: Arc<Failures>,
    behind: impl Fn(SocketAddr) -> Option<PodAddress> + Send + Sync + 'static,
) -> Outbound {
    Outbound::from_fn(move |mut request: Request<Body>| {
        aliases.direct(&mut request);
        // What is nobody's of the pod there may be a port of the node.
        let port = localhost_port(&request);
        let is_own = |port: &u16| siblings.serves(*port) || !is_of_node(&mesh, &request, *port);
        let own = port.filter(is_own);
        let own = own.map(|port| siblings.ports.by_port.load().get(&port).copied());
        let address = match own {
            Some(Some(_)) => own,
            _ => asked_address(&request).and_then(&behind).map(Some).or(own),
        };
        let Some(address) = address else {
            let (call, failures) = (mesh.call(request), failures.clone());
            return Either::Left(
                call.inspect_err(move |failure| failures.record_failed_call(failure)),
            );
        };
        let mesh = mesh.clone();
        Either::Right(async move {
            let address = address.ok_or_else(|| Failure::from(FailureKind::Unreachable))?;
            mesh.call_attached(address, request).await
        })
    })
}

/// The pods that are behind ports of the node, as a pod sees them that is on its network or not: a loopback address is the node's or the pod's.
pub(crate) fn host_ports(
    node: &Arc<Node>,
    on_host: bool,
) -> impl Fn(SocketAddr) -> Option<PodAddress> + Send + Sync + 'static + use<> {
    // The node has the workloads whose way out this is.
    let node = Arc::downgrade(node);
    move |at| {
        let node = node.upgrade()?;
        if at.ip().is_loopback() && !on_host && at.ip() != node.facts.host_ip {
            return None;
        }
        let pod = node.host_ports.behind(Protocol::Tcp, at)?;
        Some(PodAddress {
            ip: pod.ip(),
            port: pod.port(),
        })
    }
}

/// The address that a request is for, where it names one.
fn asked_address<B>(request: &Request<B>) -> Option<SocketAddr> {
    let authority = request.uri().authority()?;
    let port = authority.port_u16().unwrap_or(80);
    let host = authority.host().trim_matches(['[', ']']);
    Some(SocketAddr::new(host.parse().ok()?, port))
}

/// Makes of what the mesh knows of a call what a guest is told. Returns when the caller stops waiting.
fn told(context: &mut CallContext, pods: Option<Duration>, now: Instant) -> Option<Instant> {
    // Behind a gateway is somebody whom nobody identified, and a guest that asks whether it knows its caller is told the truth.
    context.outside = context.peer.as_deref().is_some_and(is_gateway);
    if context.outside {
        context.peer = None;
    }
    let theirs = context.deadline;
    context.deadline = deadline(theirs, pods, now);
    theirs
}

/// When a call has to be over: what its caller or a route says holds; where nobody says anything, the default does. What the pod says is a
/// limit that the runtime holds all calls to.
fn deadline(theirs: Option<Instant>, pods: Option<Duration>, now: Instant) -> Option<Instant> {
    match (theirs, pods) {
        (None, None) => now.checked_add(REQUEST_TIMEOUT_DEFAULT),
        (theirs, _) => theirs,
    }
}

/// Whether a Service is served at this port of the node, whose address is the loopback's.
fn is_of_node<B>(mesh: &weft_mesh::Outbound, request: &Request<B>, port: u16) -> bool {
    let host = request
        .uri()
        .host()
        .and_then(|host| host.parse::<Ipv4Addr>().ok());
    host.is_some_and(|ip| mesh.is_published(Protocol::Tcp, (ip, port).into()))
}

/// The port of a request to the pod itself.
fn localhost_port<B>(request: &Request<B>) -> Option<u16> {
    let authority = request.uri().authority()?;
    matches!(authority.host(), "localhost" | "127.0.0.1" | "[::1]")
        .then(|| authority.port_u16().unwrap_or(80))
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_call::{Peer, Transport};

    #[test]
    fn localhost_is_the_pod_itself() {
        for (uri, port) in [
            ("http://localhost:8080/x", Some(8080)),
            ("http://localhost/", Some(80)),
            ("http://127.0.0.1:9/", Some(9)),
            ("http://voting/", None),
            ("http://localhost.example/", None),
        ] {
            let request = Request::get(uri).body(()).expect("a request");
            assert_eq!(localhost_port(&request), port, "{uri}");
        }
    }

    fn peer(namespace: &str, account: &str) -> Arc<Peer> {
        Arc::new(Peer {
            spiffe_id: format!("spiffe://cluster.local/ns/{namespace}/sa/{account}").into(),
            namespace: namespace.into(),
            service_account: account.into(),
            workload: "w".into(),
            transport: Transport::MutualTls,
        })
    }

    #[test]
    fn whoever_comes_through_a_gateway_is_nobody_to_a_guest() {
        for (namespace, account, known) in [
            ("weft-system", "gateway", None),
            ("vote", "gateway", Some("gateway")),
            ("weft-system", "other", Some("other")),
        ] {
            let mut context = CallContext {
                peer: Some(peer(namespace, account)),
                ..CallContext::default()
            };
            told(&mut context, None, Instant::now());
            let told = context.peer.as_ref().map(|peer| &*peer.service_account);
            assert_eq!(told, known, "{namespace}/{account}");
            assert_eq!(context.outside, known.is_none(), "{namespace}/{account}");
        }
    }

    #[test]
    fn a_routes_minute_is_not_over_after_the_thirty_seconds_that_nobody_wrote_down() {
        let now = Instant::now();
        let after = |seconds| Some(now + Duration::from_secs(seconds));
        let says = |seconds| Some(Duration::from_secs(seconds));
        for (theirs, pods, expected) in [
            (None, None, after(30)),
            (after(60), None, after(60)),
            (after(1), None, after(1)),
            // The pod's own limit is the runtime's to hold.
            (None, says(2), None),
            (after(60), says(2), after(60)),
        ] {
            assert_eq!(deadline(theirs, pods, now), expected, "{theirs:?} {pods:?}");
        }
    }

    #[test]
    fn depth_and_deadline_survive_the_guest() {
        let deadline = Instant::now();
        let context = CallContext {
            deadline: Some(deadline),
            depth: 7,
            attempt: 1,
            ..CallContext::default()
        };
        let mut through = context.clone();
        assert_eq!(told(&mut through, None, deadline), Some(deadline));
        assert_eq!(through, context);
    }
}
