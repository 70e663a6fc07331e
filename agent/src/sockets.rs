//! The virtual networks of this node's pods: who listens by `wasi:sockets`, and how one gets there and from there.
//!
//! ```text
//! guest listens ──► Around::opened: attached to the mesh at the pod's address, as a component is at its ports
//! mesh ──► a raw call ───────────────────────────► a connection                     (carried)
//!      └─► an HTTP call, of a probe, a route, … ─► one on a connection of its own   (spoken)
//! guest connects ──► the same door: what is attached here, else a Service or a pod behind one, else the API servers; nothing else
//! guest sends a datagram ──► a pod of this node, by its address or through a Service
//! port-forward ─► Sockets::connect      probe, server ─► the pod's network, from outside of it
//! ```
//! A pod has a network from the moment that one of its containers is prepared that is a command and can open sockets, until it is over.
//!
//! Invariants: no socket of this machine is opened for a guest but to an API server of the cluster, which asks it who it is; a guest reaches
//! another pod under its own identity, and that pod's node knows it; what is opened for a pod ends with it.

mod carried;
mod spoken;

use crate::bridge::{Ports, Siblings};
use crate::host_aliases::HostAliases;
use crate::node::Node;
use crate::pod_view::PodView;
use crate::prepare::workload_info;
use bytes::Bytes;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio_util::task::TaskTracker;
use weft_api::SpiffeId;
use weft_mesh::{CallerInfo, LocalWorkload, Outbound, PodAddress, WorkloadInfo};
use weft_runtime::Network;
use weft_runtime::network::{Beyond, Stream, Via, pair};

pub(crate) use spoken::{heard, spoken};

/// Connections that may be open to one port of a pod. The network has a bound for all of them together.
const CONNECTIONS_MAX: usize = 1024;
/// How long a connection to an API server may take.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// Ways of datagrams through Services that are remembered for a pod, so that an answer comes from where the question went.
const WAYS_MAX: usize = 1024;
/// From where the node itself connects to a pod, as far as the pod sees: never an address of another.
pub(crate) const NODE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// The networks of this node's pods.
#[derive(Default)]
pub struct Sockets {
    pods: Mutex<Pods>,
    /// Connections of servers; each ends with the guest's end of it, or the server's.
    tasks: TaskTracker,
}

#[derive(Default)]
struct Pods {
    by_uid: BTreeMap<String, Lodging>,
    by_ip: BTreeMap<IpAddr, Pod>,
}

/// A pod of this node: what its network is made from, once something of it can open sockets.
pub(crate) struct Lodging {
    pub(crate) pod: Arc<v1::Pod>,
    pub(crate) ip: IpAddr,
    pub(crate) siblings: Siblings,
    /// What is carried for it runs among these.
    pub(crate) tasks: TaskTracker,
}

/// A pod that can be sent datagrams.
struct Pod {
    network: Network,
    /// By which of its own ports and whose address: the Service it was said to.
    ways: BTreeMap<(u16, SocketAddr), SocketAddr>,
}

impl Sockets {
    /// Connects to the guest that listens on `port` of the pod, inside of it: what is bound to its loopback is reached, too. For who was
    /// allowed to forward a port.
    ///
    /// # Errors
    /// `ConnectionRefused` where nobody listens.
    pub(crate) fn connect(&self, uid: &str, port: u16) -> io::Result<Stream> {
        let network = self.network(uid);
        let network = network.ok_or(io::ErrorKind::ConnectionRefused)?;
        network.connect(NODE, Via::Loopback, port)
    }

    /// Where connections of servers are passed on.
    pub(crate) fn tasks(&self) -> &TaskTracker {
        &self.tasks
    }

    /// The pod is here from now on.
    pub(crate) fn house(&self, uid: &str, lodging: Lodging) {
        self.pods.lock().by_uid.insert(uid.to_owned(), lodging);
    }

    /// The pod's object as it is now: the one before is let go.
    pub(crate) fn renew(&self, uid: &str, pod: &Arc<v1::Pod>) {
        if let Some(lodging) = self.pods.lock().by_uid.get_mut(uid) {
            lodging.pod = pod.clone();
        }
    }

    /// The network of a pod, if it has one already.
    pub(crate) fn network(&self, uid: &str) -> Option<Network> {
        self.pods.lock().by_uid.get(uid)?.siblings.made()
    }

    /// The network of a pod of `node`, for something of it that can open sockets; none where the pod is not here.
    pub(crate) fn network_for(node: &Arc<Node>, uid: &str) -> Option<Network> {
        let sockets = node.sockets();
        let mut pods = sockets.pods.lock();
        let lodging = pods.by_uid.get(uid)?;
        let network = lodging.siblings.network(|| lodging.network(node));
        let known = pods.by_ip.get(&network.ip());
        // Whoever had the address before may not be gone yet.
        if known.is_none_or(|pod| !pod.network.is(&network)) {
            let pod = Pod {
                network: network.clone(),
                ways: BTreeMap::new(),
            };
            pods.by_ip.insert(network.ip(), pod);
        }
        Some(network)
    }

    /// The pod is over.
    pub(crate) fn remove(&self, uid: &str) {
        let mut pods = self.pods.lock();
        let Some(lodging) = pods.by_uid.remove(uid) else {
            return;
        };
        let gone = lodging.siblings.made().and_then(|network| {
            let is_its = |pod: &Pod| pod.network.is(&network);
            let found = pods.by_ip.get(&network.ip()).is_some_and(is_its);
            found.then(|| pods.by_ip.remove(&network.ip())).flatten()
        });
        drop(pods);
        // Outside of the lock: what it held may be the last of it.
        drop((gone, lodging));
    }

    /// Puts a datagram of the pod at `from` into a mailbox of this node, through `service` if it was said to one; or drops it.
    fn send(&self, from: SocketAddr, to: SocketAddr, service: Option<SocketAddr>, datagram: Bytes) {
        let mut pods = self.pods.lock();
        if let Some(service) = service
            && let Some(sender) = pods.by_ip.get_mut(&from.ip())
        {
            if sender.ways.len() >= WAYS_MAX {
                sender.ways.clear();
            }
            sender.ways.insert((from.port(), to), service);
        }
        let Some(receiver) = pods.by_ip.get(&to.ip()) else {
            return;
        };
        // Whoever asked a Service hears from that Service.
        let known = receiver.ways.get(&(to.port(), from)).copied();
        let network = receiver.network.clone();
        drop(pods);
        network.deliver(known.unwrap_or(from), to.port(), datagram);
    }

    /// Which of `endpoints` a datagram from `from` to `service` is for: the one that the last went to, else one of this node; the others
    /// are out of reach.
    fn endpoint(
        &self,
        from: SocketAddr,
        service: SocketAddr,
        endpoints: &[SocketAddr],
    ) -> Option<SocketAddr> {
        let pods = self.pods.lock();
        if let Some(sender) = pods.by_ip.get(&from.ip()) {
            let mut ways = sender.ways.iter();
            let found = ways.find(|((port, _), said)| *port == from.port() && **said == service);
            if let Some(((_, to), _)) = found
                && endpoints.contains(to)
            {
                return Some(*to);
            }
        }
        let here = endpoints.iter().copied();
        let here: Vec<SocketAddr> = here
            .filter(|endpoint| pods.by_ip.contains_key(&endpoint.ip()))
            .collect();
        let chosen = usize::from(from.port()).checked_rem(here.len())?;
        here.get(chosen).copied()
    }
}

impl Lodging {
    fn network(&self, node: &Arc<Node>) -> Network {
        let pod = PodView(&self.pod);
        let (namespace, account) = (pod.namespace(), pod.service_account());
        let identity = SpiffeId::new(&node.trust_domain, namespace, account);
        let workload = workload_info(pod);
        let around = Around {
            ip: self.ip,
            outbound: node.mesh.outbound(CallerInfo {
                identity: identity.clone(),
                workload: workload.clone(),
            }),
            node: Arc::downgrade(node),
            identity,
            workload,
            siblings: self.siblings.ports(),
            aliases: HostAliases::of(pod),
            tasks: self.tasks.clone(),
        };
        Network::new(self.ip, around)
    }
}

/// What there is around a pod.
struct Around {
    ip: IpAddr,
    /// The node has its networks.
    node: Weak<Node>,
    outbound: Outbound,
    identity: SpiffeId,
    workload: WorkloadInfo,
    siblings: Ports,
    aliases: HostAliases,
    tasks: TaskTracker,
}

impl Beyond for Around {
    fn opened(&self, network: &Network, port: u16) {
        let Some(node) = self.node.upgrade() else {
            return;
        };
        let address = PodAddress { ip: self.ip, port };
        node.mesh.attach(
            address,
            LocalWorkload {
                identity: self.identity.clone(),
                workload: self.workload.clone(),
                service: spoken::service(network.clone(), port),
                in_flight_max: CONNECTIONS_MAX,
            },
        );
        self.siblings.insert(address);
    }

    fn closed(&self, port: u16) {
        self.siblings.remove(port);
        if let Some(node) = self.node.upgrade() {
            // Connections that were made go on.
            drop(node.mesh.detach(PodAddress { ip: self.ip, port }));
        }
    }

    fn connect(&self, from: SocketAddr, to: SocketAddr) -> BoxFuture<'static, io::Result<Stream>> {
        let Some(node) = self.node.upgrade() else {
            return Box::pin(std::future::ready(Err(
                io::ErrorKind::HostUnreachable.into()
            )));
        };
        let (here, there) = pair(from, to);
        let (outbound, tasks) = (self.outbound.clone(), self.tasks.clone());
        if let Some(servers) = node.topology.api_servers(to) {
            return Box::pin(async move {
                let server = api_server(&servers).await?;
                tasks.spawn(carried::spliced(there, server));
                Ok(here)
            });
        }
        let attached = attached(&node, to);
        Box::pin(async move {
            carried::connect(&outbound, &to.to_string(), attached, there, &tasks).await?;
            Ok(here)
        })
    }

    fn send(&self, from: SocketAddr, to: SocketAddr, datagram: Bytes) {
        let Some(node) = self.node.upgrade() else {
            return;
        };
        let endpoints = node.mesh.endpoints(to);
        match node.sockets.endpoint(from, to, &endpoints) {
            Some(endpoint) => node.sockets.send(from, endpoint, Some(to), datagram),
            None => node.sockets.send(from, to, None, datagram),
        }
    }

    fn resolve(&self, name: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        let mut found = self.aliases.addresses(&name);
        if found.is_empty()
            && let Some(node) = self.node.upgrade()
        {
            found = node.mesh.addresses(&self.workload.namespace, &name);
        }
        let found = match found.is_empty() {
            true => Err(io::ErrorKind::NotFound.into()),
            false => Ok(found),
        };
        Box::pin(std::future::ready(found))
    }
}

/// Connects to `authority` as a server of the cluster does: for what a node asks of a pod on its own account.
///
/// # Errors
/// As [`Beyond::connect`].
pub(crate) async fn dial(node: &Arc<Node>, authority: &str) -> io::Result<Stream> {
    let (here, there) = pair(NODE, NODE);
    let to: Option<SocketAddr> = authority.parse().ok();
    let attached = to.and_then(|to| attached(node, to));
    let tasks = node.sockets().tasks();
    carried::connect(&node.api_server, authority, attached, there, tasks).await?;
    Ok(here)
}

/// What of this node is at an address.
fn attached(node: &Node, to: SocketAddr) -> Option<PodAddress> {
    let (ip, port) = (to.ip(), to.port());
    let address = PodAddress { ip, port };
    node.mesh.is_attached(address).then_some(address)
}

/// A connection to the first of the servers that takes one.
async fn api_server(servers: &[SocketAddr]) -> io::Result<tokio::net::TcpStream> {
    let mut last = io::Error::from(io::ErrorKind::ConnectionRefused);
    for server in servers {
        let connecting = tokio::net::TcpStream::connect(server);
        match tokio::time::timeout(CONNECT_MAX, connecting).await {
            Ok(Ok(stream)) => {
                // What is small does not wait; that it cannot be said is no reason to go without.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Ok(Err(error)) => last = error,
            Err(_) => last = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    /// A pod whose network was made.
    fn house(sockets: &Sockets, uid: &str, ip: &str) -> Network {
        let ip = at(&format!("{ip}:1")).ip();
        let siblings = Siblings::default();
        let network = siblings.network(|| Network::new(ip, ()));
        let pod = Pod {
            network: network.clone(),
            ways: BTreeMap::new(),
        };
        sockets.pods.lock().by_ip.insert(ip, pod);
        let lodging = Lodging {
            pod: Arc::default(),
            ip,
            siblings,
            tasks: TaskTracker::new(),
        };
        sockets.house(uid, lodging);
        network
    }

    #[test]
    fn a_pod_that_is_over_has_no_network_and_its_address_may_be_anothers() {
        let sockets = Sockets::default();
        house(&sockets, "old", "10.42.0.2");
        house(&sockets, "new", "10.42.0.2");
        house(&sockets, "other", "10.42.0.3");
        sockets.remove("old");
        sockets.remove("nobody");
        assert!(sockets.network("old").is_none() && sockets.network("new").is_some());
        let ip = at("10.42.0.2:1").ip();
        assert!(sockets.pods.lock().by_ip.contains_key(&ip));
        sockets.remove("new");
        assert!(!sockets.pods.lock().by_ip.contains_key(&ip));
        for uid in ["old", "other"] {
            let found = sockets.connect(uid, 80).map(|_| "connected");
            let found = found.map_err(|error| error.kind());
            assert_eq!(found, Err(io::ErrorKind::ConnectionRefused), "{uid}");
        }
    }

    #[test]
    fn a_question_to_a_service_stays_with_its_endpoint() {
        let sockets = Sockets::default();
        house(&sockets, "client", "10.42.0.2");
        house(&sockets, "one", "10.42.0.3");
        house(&sockets, "two", "10.42.0.4");
        let (client, service) = (at("10.42.0.2:40000"), at("10.43.0.7:53"));
        let (one, two) = (at("10.42.0.3:5353"), at("10.42.0.4:5353"));
        let elsewhere = at("10.42.1.9:5353");
        let chosen = |from, endpoints: &[SocketAddr]| sockets.endpoint(from, service, endpoints);
        assert_eq!(chosen(client, &[elsewhere]), None);
        assert_eq!(chosen(client, &[elsewhere, one, two]), Some(one));
        sockets.send(client, two, Some(service), Bytes::from_static(b"x"));
        assert_eq!(chosen(client, &[one, two]), Some(two), "it stays there");
        assert_eq!(chosen(client, &[one]), Some(one), "it is gone");
        assert_eq!(chosen(at("10.42.0.2:40002"), &[one, two]), Some(one));
    }
}
