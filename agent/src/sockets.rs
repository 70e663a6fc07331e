//! The virtual networks of this node's pods: who listens by `wasi:sockets`, and how one gets there and from there.
//!
//! ```text
//! guest listens ──► Around::opened: attached to the mesh at the pod's address, as a component is at its ports
//! mesh ──► a raw call ───────────────────────────► a connection                     (carried)
//!      └─► an HTTP call, of a probe, a route, … ─► one on a connection of its own   (spoken)
//! guest connects ──► the same door: what is attached here, else a Service or a pod, else the API servers; nothing else
//!                └─► where routes of requests lead what it says: each request a call (weft_mesh)
//! guest asks the cluster's DNS ──► the node itself
//! guest sends a datagram ──► a pod of this node, by its address or through a Service; else a flow to another node (datagrams)
//! port-forward ─► Sockets::connect      probe, server ─► the pod's network, from outside of it
//! ```
//! A pod has a network from the moment that one of its containers is prepared that is a command and can open sockets, until it is over.
//!
//! Invariants: no socket of this machine is opened for a guest but to an API server of the cluster, which asks it who it is; a guest reaches
//! another pod under its own identity, and that pod's node knows it; what is opened for a pod ends with it.

mod carried;
mod datagrams;
mod spoken;

use self::datagrams::Flows;
use crate::bridge::{Ports, Siblings};
use crate::downward::Downward;
use crate::host_ports::{self, HostPorts};
use crate::kept_pod::KeptPod;
use crate::node::Node;
use crate::pod_facts;
use crate::pod_names::{self, Resolver};
use crate::pod_view::PodView;
use crate::prepare::workload_info;
use crate::root_files;
use bytes::Bytes;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio_util::task::TaskTracker;
use weft_api::SpiffeId;
use weft_mesh::{
    Answering, CallerInfo, LocalWorkload, Mesh, Outbound, Over, PodAddress, Protocol, Search,
    WorkloadInfo,
};
use weft_runtime::Network;
use weft_runtime::network::{Beyond, Stream, Via, pair};
use weft_turns::Tenant;

pub(crate) use spoken::heard;

/// Connections that may be open to one port of a pod. The network has a bound for all of them together.
const CONNECTIONS_MAX: usize = 1024;
/// How long a connection to an API server may take.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// Where calls of datagrams to a pod go: no port of TCP ([`weft_mesh::Datagrams::door`]).
const DOOR: u16 = 0;
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
    /// Whose an address is: who had it before may not be gone yet.
    owners: BTreeMap<IpAddr, String>,
}

/// A pod of this node: what its network is made from, once something of it can open sockets.
pub(crate) struct Lodging {
    pub(crate) pod: KeptPod,
    pub(crate) ip: IpAddr,
    pub(crate) siblings: Siblings,
    /// What is carried for it runs among these.
    pub(crate) tasks: TaskTracker,
    pub(crate) flows: Flows,
}

/// A pod that can be sent datagrams.
struct Pod {
    network: Network,
    /// By which of its own ports and whose address: the Service it was said to.
    ways: BTreeMap<(u16, SocketAddr), SocketAddr>,
    /// By which of its own ports it has sent to whom: what comes back from there is an answer. Noted where pods are isolated.
    spoken: BTreeSet<(u16, SocketAddr)>,
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
    pub(crate) fn house(&self, mesh: &Mesh, uid: &str, lodging: Lodging) {
        let mut pods = self.pods.lock();
        mesh.set_pod(
            lodging.ip,
            Some(pod_facts::of(PodView(&lodging.pod.read()))),
        );
        pods.owners.insert(lodging.ip, uid.to_owned());
        pods.by_uid.insert(uid.to_owned(), lodging);
    }

    /// The pod's object is another: policies judge by its labels.
    pub(crate) fn renew(&self, mesh: &Mesh, uid: &str, pod: &v1::Pod) {
        let pods = self.pods.lock();
        let Some(lodging) = pods.by_uid.get(uid) else {
            return;
        };
        let ip = lodging.ip;
        if pods.owners.get(&ip).is_some_and(|owner| owner == uid) {
            mesh.set_pod(ip, Some(pod_facts::of(PodView(pod))));
        }
    }

    /// Whether a datagram answers one that the receiver has sent.
    fn is_answer(&self, from: SocketAddr, to: SocketAddr) -> bool {
        let pods = self.pods.lock();
        let receiver = pods.by_ip.get(&to.ip());
        receiver.is_some_and(|pod| pod.spoken.contains(&(to.port(), from)))
    }

    /// Remembers whom a pod has sent to.
    fn note(&self, from: SocketAddr, to: SocketAddr) {
        if let Some(pod) = self.pods.lock().by_ip.get_mut(&from.ip()) {
            if pod.spoken.len() >= WAYS_MAX {
                pod.spoken.clear();
            }
            pod.spoken.insert((from.port(), to));
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
            lodging.open_to_datagrams(node, &network);
            let pod = Pod {
                network: network.clone(),
                ways: BTreeMap::new(),
                spoken: BTreeSet::new(),
            };
            pods.by_ip.insert(network.ip(), pod);
        }
        Some(network)
    }

    /// The pod is over.
    pub(crate) fn remove(&self, mesh: &Mesh, uid: &str) {
        let mut pods = self.pods.lock();
        let Some(lodging) = pods.by_uid.remove(uid) else {
            return;
        };
        if pods
            .owners
            .get(&lodging.ip)
            .is_some_and(|owner| owner == uid)
        {
            pods.owners.remove(&lodging.ip);
            mesh.set_pod(lodging.ip, None);
        }
        let gone = lodging.siblings.made().and_then(|network| {
            let is_its = |pod: &Pod| pod.network.is(&network);
            let found = pods.by_ip.get(&network.ip()).is_some_and(is_its);
            found.then(|| pods.by_ip.remove(&network.ip())).flatten()
        });
        drop(pods);
        if let Some(pod) = &gone {
            let ip = pod.network.ip();
            drop(mesh.detach(PodAddress { ip, port: DOOR }));
        }
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

    fn is_here(&self, ip: IpAddr) -> bool {
        self.pods.lock().by_ip.contains_key(&ip)
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
    /// Lets flows of other nodes and from outside reach the pod.
    fn open_to_datagrams(&self, node: &Node, network: &Network) {
        let pod = self.pod.read();
        let pod = PodView(&pod);
        let (namespace, account) = (pod.namespace(), pod.service_account());
        let address = PodAddress {
            ip: network.ip(),
            port: DOOR,
        };
        node.mesh.attach(
            address,
            LocalWorkload {
                identity: SpiffeId::new(&node.trust_domain, namespace, account),
                workload: workload_info(pod),
                service: datagrams::service(network.clone(), self.flows.clone()),
                in_flight_max: datagrams::FLOWS_MAX,
            },
        );
    }

    fn network(&self, node: &Arc<Node>) -> Network {
        let object = self.pod.read();
        let pod = PodView(&object);
        let (namespace, account) = (pod.namespace(), pod.service_account());
        let identity = SpiffeId::new(&node.trust_domain, namespace, account);
        let workload = workload_info(pod);
        let around = Around {
            ip: self.ip,
            outbound: node.mesh.outbound_of_pod(
                CallerInfo {
                    identity: identity.clone(),
                    workload: workload.clone(),
                },
                self.ip,
            ),
            node: Arc::downgrade(node),
            identity,
            workload,
            names: Names::of(pod, self.ip, node),
            flows: self.flows.clone(),
            siblings: self.siblings.ports(),
            tasks: self.tasks.clone(),
            on_host: host_ports::is_on_host(pod).then(|| object.clone()),
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
    names: Names,
    flows: Flows,
    siblings: Ports,
    tasks: TaskTracker,
    /// The pod, if it is on the node's network.
    on_host: Option<Arc<v1::Pod>>,
}

impl Beyond for Around {
    fn opened(&self, network: &Network, port: u16) {
        let Some(node) = self.node.upgrade() else {
            return;
        };
        let address = PodAddress { ip: self.ip, port };
        let mut addresses = vec![address];
        if let Some(pod) = &self.on_host {
            // Others know it by where the node is.
            let of_node = host_ports::address(PodView(pod), node.facts.host_ip);
            addresses.extend(of_node.map(|ip| PodAddress { ip, port }));
            HostPorts::follow(&node, PodView(pod), address.into());
        }
        node.mesh.attach_at(
            &addresses,
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
            if let Some(pod) = &self.on_host
                && let Some(ip) = host_ports::address(PodView(pod), node.facts.host_ip)
            {
                drop(node.mesh.detach(PodAddress { ip, port }));
            }
        }
    }

    fn connect(&self, from: SocketAddr, to: SocketAddr) -> BoxFuture<'static, io::Result<Stream>> {
        let Some(node) = self.node.upgrade() else {
            return Box::pin(std::future::ready(Err(
                io::ErrorKind::HostUnreachable.into()
            )));
        };
        let (here, there) = pair(from, to);
        if node.topology.is_dns(to) {
            let (mesh, tasks) = (node.mesh.clone(), self.tasks.clone());
            return Box::pin(async move {
                tasks.spawn(async move { mesh.serve_dns_stream(there).await });
                Ok(here)
            });
        }
        let (outbound, tasks) = (self.outbound.clone(), self.tasks.clone());
        if let Some(mut servers) = node.topology.api_servers(to) {
            servers.retain(|server| node.mesh.admits(self.ip, *server, Protocol::Tcp).is_ok());
            return Box::pin(async move {
                let server = api_server(&servers).await?;
                tasks.spawn(carried::spliced(there, server));
                Ok(here)
            });
        }
        let to = node.host_ports.behind(Protocol::Tcp, to).unwrap_or(to);
        if outbound.reads_requests(to) {
            return Box::pin(async move {
                tasks.spawn(async move { outbound.serve_requests(to, there).await });
                Ok(here)
            });
        }
        let attached = attached(&node, to);
        Box::pin(async move {
            carried::connect(&outbound, from, &to.to_string(), attached, there, &tasks).await?;
            Ok(here)
        })
    }

    fn send(&self, from: SocketAddr, to: SocketAddr, datagram: Bytes) {
        let Some(node) = self.node.upgrade() else {
            return;
        };
        if node.topology.is_dns(to) {
            self.ask(&node, from, to, &datagram);
            return;
        }
        if self.flows.answer((from.port(), to), &datagram) {
            return;
        }
        if let Some(pod) = node.host_ports.behind(Protocol::Udp, to) {
            self.pass(&node, from, pod, Some(to), datagram);
            return;
        }
        let endpoints = self.outbound.endpoints(from, to);
        if let Some(endpoint) = node.sockets.endpoint(from, to, &endpoints) {
            self.pass(&node, from, endpoint, Some(to), datagram);
        } else if node.sockets.is_here(to.ip()) {
            self.pass(&node, from, to, None, datagram);
        } else {
            let chosen = usize::from(from.port()).checked_rem(endpoints.len());
            let chosen = chosen.and_then(|chosen| endpoints.get(chosen));
            self.carry(from, to, chosen.copied().unwrap_or(to), datagram);
        }
    }

    fn is_at(&self, to: SocketAddr, is_udp: bool) -> bool {
        let protocol = match is_udp {
            true => Protocol::Udp,
            false => Protocol::Tcp,
        };
        let Some(node) = self.node.upgrade() else {
            return false;
        };
        // Other addresses of the machine are those of the node's own network.
        let sees = self.on_host.is_some() || to.ip() == node.facts.host_ip;
        node.mesh.is_published(protocol, to)
            || (sees && node.host_ports.behind(protocol, to).is_some())
    }

    fn resolve(&self, name: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        let found = match self.node.upgrade() {
            Some(node) => match pod_names::of_hosts(&self.names.hosts, &name) {
                found if found.is_empty() => node.mesh.addresses(&self.names.search, &name),
                found => found,
            },
            None => Vec::new(),
        };
        let found = match found.is_empty() {
            true => Err(io::ErrorKind::NotFound.into()),
            false => Ok(found),
        };
        Box::pin(std::future::ready(found))
    }
}

impl Around {
    /// Gives a datagram to a pod of this node, if the two may speak with each other.
    fn pass(
        &self,
        node: &Node,
        from: SocketAddr,
        to: SocketAddr,
        service: Option<SocketAddr>,
        datagram: Bytes,
    ) {
        if node.mesh.isolates() {
            let may_send = || node.mesh.admits(from.ip(), to, Protocol::Udp).is_ok();
            if !node.sockets.is_answer(from, to) && !may_send() {
                return;
            }
            node.sockets.note(from, to);
        }
        node.sockets.send(from, to, service, datagram);
    }

    /// Sends a datagram to the endpoint of another node that stands for `to`.
    fn carry(&self, from: SocketAddr, to: SocketAddr, endpoint: SocketAddr, datagram: Bytes) {
        let Some(sent) = self.flows.send((from.port(), to), datagram) else {
            return;
        };
        let (outbound, node) = (self.outbound.clone(), self.node.clone());
        self.tasks.spawn(async move {
            let received = |datagram| {
                if let Some(node) = node.upgrade() {
                    node.sockets.send(to, from, None, datagram);
                }
            };
            let carried = outbound.carry_datagrams(endpoint, from, sent, received);
            if let Err(failure) = carried.await {
                tracing::trace!(%to, %failure, "datagrams were not carried");
            }
        });
    }

    /// Answers a question of a guest to the cluster's DNS.
    fn ask(&self, node: &Arc<Node>, from: SocketAddr, to: SocketAddr, question: &[u8]) {
        weft_turns::charge(Tenant::named(&self.workload.namespace), weft_turns::REQUEST);
        match node.mesh.dns_answer(question, Over::Udp) {
            Answering::Now(None) => {}
            Answering::Now(Some(answer)) => node.sockets.send(to, from, None, answer.into()),
            Answering::Later(answer) => {
                let node = self.node.clone();
                self.tasks.spawn(async move {
                    let answer = answer.await;
                    if let Some(node) = node.upgrade() {
                        node.sockets.send(to, from, None, answer.into());
                    }
                });
            }
        }
    }
}

/// How names are looked up in a pod.
struct Names {
    hosts: String,
    search: Search,
}

impl Names {
    fn of(pod: PodView<'_>, ip: IpAddr, node: &Node) -> Self {
        let around = node.names();
        let at = Downward {
            pod,
            pod_ip: ip,
            node: &node.facts,
        };
        Self {
            hosts: pod_names::hosts(pod, ip, &root_files::hostname(at), around),
            search: Resolver::of(pod, around).search(),
        }
    }
}

/// Connects to `authority` as whoever `outbound` is of.
///
/// # Errors
/// As [`Beyond::connect`].
pub(crate) async fn dial(
    node: &Arc<Node>,
    outbound: &Outbound,
    authority: &str,
) -> io::Result<Stream> {
    let (here, there) = pair(NODE, NODE);
    let to: Option<SocketAddr> = authority.parse().ok();
    let attached = to.and_then(|to| attached(node, to));
    let tasks = node.sockets().tasks();
    carried::connect(outbound, NODE, authority, attached, there, tasks).await?;
    Ok(here)
}

/// Passes a connection of this machine's on to the guest or component of this node that is at `to`. One that nobody takes is reset, as where
/// nothing listens.
///
/// # Errors
/// As [`Beyond::connect`].
pub(crate) async fn pass_on(
    node: Arc<Node>,
    outbound: &Outbound,
    to: SocketAddr,
    stream: tokio::net::TcpStream,
) -> io::Result<()> {
    // What cannot be set is no reason to go without.
    let _ = stream.set_nodelay(true);
    let linger = |time| {
        let _ = socket2::SockRef::from(&stream).set_linger(time);
    };
    linger(Some(Duration::ZERO));
    let guest = dial(&node, outbound, &to.to_string()).await?;
    linger(None);
    drop(node);
    carried::spliced(guest, stream).await;
    Ok(())
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
    fn house(sockets: &Sockets, mesh: &Mesh, uid: &str, ip: &str) -> Network {
        let ip = at(&format!("{ip}:1")).ip();
        let siblings = Siblings::default();
        let network = siblings.network(|| Network::new(ip, ()));
        let pod = Pod {
            network: network.clone(),
            ways: BTreeMap::new(),
            spoken: BTreeSet::new(),
        };
        sockets.pods.lock().by_ip.insert(ip, pod);
        let lodging = Lodging {
            pod: KeptPod::new(&Arc::default()),
            ip,
            siblings,
            tasks: TaskTracker::new(),
            flows: Flows::default(),
        };
        sockets.house(mesh, uid, lodging);
        network
    }

    #[test]
    fn a_pod_that_is_over_has_no_network_and_its_address_may_be_anothers() {
        let sockets = Sockets::default();
        let mesh = Mesh::builder("a", "cluster.local").build();
        house(&sockets, &mesh, "old", "10.42.0.2");
        house(&sockets, &mesh, "new", "10.42.0.2");
        house(&sockets, &mesh, "other", "10.42.0.3");
        sockets.remove(&mesh, "old");
        sockets.remove(&mesh, "nobody");
        assert!(sockets.network("old").is_none() && sockets.network("new").is_some());
        let ip = at("10.42.0.2:1").ip();
        assert!(sockets.pods.lock().by_ip.contains_key(&ip));
        sockets.remove(&mesh, "new");
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
        let mesh = Mesh::builder("a", "cluster.local").build();
        house(&sockets, &mesh, "client", "10.42.0.2");
        house(&sockets, &mesh, "one", "10.42.0.3");
        house(&sockets, &mesh, "two", "10.42.0.4");
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

    /// Whether a guest had connected its socket or names the address with each datagram: what is no pod of this node hears nothing. The number
    /// is that of `docs/attacks.md`.
    #[test]
    fn attack_52_datagrams_leave_for_nobody_but_pods() {
        let sockets = Sockets::default();
        let mesh = Mesh::builder("a", "cluster.local").build();
        house(&sockets, &mesh, "client", "10.42.0.2");
        let host = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
        host.set_nonblocking(true).expect("set");
        let port = host.local_addr().expect("its address").port();
        let from = at("10.42.0.2:40000");
        for ip in [
            "127.0.0.1",
            "0.0.0.0",
            "127.255.255.255",
            "255.255.255.255",
            "224.0.0.1",
            "[::1]",
            "[::ffff:127.0.0.1]",
            "10.42.0.99",
        ] {
            let to = at(&format!("{ip}:{port}"));
            sockets.send(from, to, None, Bytes::from_static(b"x"));
            sockets.send(from, to, Some(at("10.43.0.7:53")), Bytes::from_static(b"x"));
        }
        let heard = host.recv(&mut [0; 1]).map_err(|error| error.kind());
        assert_eq!(heard, Err(io::ErrorKind::WouldBlock));
    }
}
