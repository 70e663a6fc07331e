//! Ports of the node that its pods have: `hostPort`, and all that a pod on the node's network (`hostNetwork`) says.
//!
//! ```text
//! a pod is bound here ─► claim: nobody here has one of them, or the pod is refused (NodePorts), as by a kubelet
//! its first container gets ready ─► open: listens on this machine, or the container waits and says why
//! client ─► a connection, a datagram ─► the pod, at its containerPort
//! guest of this node ─► the same port ─► behind: the pod, without a socket of the machine
//! ```
//! An address that is not said stands for the node's own, which is all that others know it by. A pod on the node's network keeps a virtual
//! network of its own, and shows the node's address instead of its own, unless that is a loopback: it has the ports of the node that it declares,
//! and those of TCP that it listens on.
//!
//! Invariants: a port is one pod's at a time, from its claim until nothing of it runs; connections, clients of UDP and what waits are bounded;
//! who comes has no name, as through the gateway; no socket outlives its pod.
//!
//! Left to others: which node has the port free (the scheduler), what is at a pod's address (`sockets`, the mesh).

use crate::node::Node;
use crate::pod_view::PodView;
use crate::sockets;
use crate::wanted::Role;
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use weft_mesh::{CallerInfo, FlowSender, Mesh, Outbound, Protocol, WorkloadInfo, flow};

/// What the status of a pod says that was bound to a node where another has one of its ports, and the words for it; as a kubelet has them.
pub(crate) const TAKEN: &str = "NodePorts";
pub(crate) const TAKEN_WORDS: &str =
    "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports";

/// Connections at one port; further clients wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 1024;
/// Clients of one port of UDP at a time; datagrams of further ones are dropped until one has been silent for long.
const CLIENTS_MAX: usize = 1024;
/// The largest datagram.
const DATAGRAM_BYTES_MAX: usize = 65_507;
/// Waits after an error of a socket that does not go away at once.
const ERROR_PAUSE: Duration = Duration::from_millis(50);

/// A place of the node.
type Place = (Protocol, SocketAddr);

/// A port of the node that a pod asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct HostPort {
    protocol: Protocol,
    /// None: the node's own, which stands for all that it has.
    ip: Option<IpAddr>,
    port: u16,
    /// The pod's own port behind it.
    to: u16,
}

impl HostPort {
    /// As the scheduler sees it.
    fn clashes(&self, other: &Self) -> bool {
        let is_same = self.ip == other.ip || self.ip.is_none() || other.ip.is_none();
        self.protocol == other.protocol && self.port == other.port && is_same
    }

    fn place(&self, node: IpAddr) -> Place {
        let ip = self.ip.unwrap_or(node);
        (self.protocol, SocketAddr::new(ip, self.port))
    }
}

/// Another pod of the node has one of the ports.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Taken;

/// The node's ports. See the module's promise.
#[derive(Default)]
pub(crate) struct HostPorts {
    inner: Mutex<Inner>,
    /// What listens; each ends when its place is let go.
    tasks: TaskTracker,
}

#[derive(Default)]
struct Inner {
    /// By uid.
    claims: BTreeMap<Arc<str>, Vec<HostPort>>,
    open: BTreeMap<Place, Open>,
}

/// A place that is listened at.
struct Open {
    uid: Arc<str>,
    /// The pod's address behind it.
    to: SocketAddr,
    _stop: DropGuard,
}

impl HostPorts {
    /// Keeps what a pod asks for from others.
    ///
    /// # Errors
    /// [`Taken`]; then it has none of them.
    pub(crate) fn claim(&self, uid: &Arc<str>, pod: PodView<'_>) -> Result<(), Taken> {
        let wanted = wanted(pod);
        if wanted.is_empty() {
            return Ok(());
        }
        let mut inner = self.inner.lock();
        let others = inner.claims.iter().filter(|(other, _)| *other != uid);
        let mut taken = others.flat_map(|(_, ports)| ports);
        if taken.any(|taken| wanted.iter().any(|port| port.clashes(taken))) {
            return Err(Taken);
        }
        inner.claims.insert(uid.clone(), wanted);
        Ok(())
    }

    /// Whatever the pod has is free from now on.
    pub(crate) fn release(&self, uid: &str) {
        let mut inner = self.inner.lock();
        inner.claims.remove(uid);
        inner.open.retain(|_, open| &*open.uid != uid);
    }

    /// The pod's address behind a place, if it is a port of a pod of this node.
    pub(crate) fn behind(&self, protocol: Protocol, at: SocketAddr) -> Option<SocketAddr> {
        let inner = self.inner.lock();
        inner.open.get(&(protocol, at)).map(|open| open.to)
    }

    /// Listens at what the pod at `ip` has claimed, where it does not yet.
    ///
    /// # Errors
    /// A sentence when a port is not to be had on this machine.
    pub(crate) fn open(node: &Arc<Node>, uid: &str, ip: IpAddr) -> Result<(), String> {
        let claimed: Vec<HostPort> = {
            let inner = node.host_ports.inner.lock();
            inner.claims.get(uid).cloned().unwrap_or_default()
        };
        for port in claimed {
            let to = SocketAddr::new(ip, port.to);
            Self::listen(node, uid, port.place(node.facts.host_ip), to)?;
        }
        Ok(())
    }

    /// Listens at the port of the node that a guest of a pod on its network has begun to listen on. Whether that can be had is said once, in an
    /// event.
    pub(crate) fn follow(node: &Arc<Node>, pod: PodView<'_>, to: SocketAddr) {
        let place = (
            Protocol::Tcp,
            SocketAddr::new(node.facts.host_ip, to.port()),
        );
        if let Err(why) = Self::listen(node, pod.uid(), place, to) {
            let severity = crate::events::Severity::Warning;
            node.recorder
                .pod(pod.0, None, severity, "FailedHostPort", why);
        }
    }

    fn listen(node: &Arc<Node>, uid: &str, place: Place, to: SocketAddr) -> Result<(), String> {
        let (protocol, at) = place;
        let mut inner = node.host_ports.inner.lock();
        match inner.open.get(&place) {
            Some(open) if &*open.uid == uid => return Ok(()),
            Some(_) => return Err(unavailable(place, "another pod of this node has it")),
            None => {}
        }
        let failed = |error: io::Error| unavailable(place, &why(&error));
        let stop = CancellationToken::new();
        let (here, stopped) = (Arc::downgrade(node), stop.clone());
        let core = node.next_core.fetch_add(1, Ordering::Relaxed);
        let serving = match protocol {
            Protocol::Tcp => {
                let listener = TcpListener::bind(at).map_err(failed)?;
                listener.set_nonblocking(true).map_err(failed)?;
                let serving = streams(here, listener, to, stopped);
                node.cores.spawn_on(core, serving)
            }
            Protocol::Udp => {
                let socket = UdpSocket::bind(at).map_err(failed)?;
                socket.set_nonblocking(true).map_err(failed)?;
                let serving = datagrams(here, socket, to, stopped);
                node.cores.spawn_on(core, serving)
            }
            Protocol::Sctp => return Err(unavailable(place, "a node has no SCTP")),
        };
        let open = Open {
            uid: uid.into(),
            to,
            _stop: stop.drop_guard(),
        };
        inner.open.insert(place, open);
        drop(inner);
        node.host_ports.tasks.spawn(async move {
            if let Err(error) = serving.await
                && !error.is_cancelled()
            {
                tracing::error!(%at, %error, "a port of a pod failed");
            }
        });
        Ok(())
    }
}

fn unavailable((protocol, at): Place, why: &str) -> String {
    let protocol = match protocol {
        Protocol::Tcp => "TCP",
        Protocol::Udp => "UDP",
        Protocol::Sctp => "SCTP",
    };
    format!(
        "hostPort {} of {protocol} cannot be had at {}: {why}; free it there, or give the pod another",
        at.port(),
        at.ip()
    )
}

fn why(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => "something of this machine is at it".to_owned(),
        io::ErrorKind::AddrNotAvailable => "this machine has no such address".to_owned(),
        io::ErrorKind::PermissionDenied => "the node may not listen at it".to_owned(),
        _ => error.to_string(),
    }
}

/// The address of the node that a pod on its network is known by instead of its own. None: one that only its own machine can reach says nothing to
/// others, and the API takes it for no endpoint.
pub(crate) fn address(pod: PodView<'_>, node: IpAddr) -> Option<IpAddr> {
    (is_on_host(pod) && !node.is_loopback()).then_some(node)
}

/// Whether the pod is on the node's network.
pub(crate) fn is_on_host(pod: PodView<'_>) -> bool {
    let spec = pod.spec();
    spec.is_some_and(|spec| spec.host_network == Some(true))
}

/// The ports of the node that a pod asks for.
fn wanted(pod: PodView<'_>) -> Vec<HostPort> {
    let containers = pod.containers().into_iter();
    let lasting = containers.filter(|(_, role)| matches!(role, Role::Main | Role::Sidecar));
    let ports = lasting.flat_map(|(container, _)| container.ports.clone().unwrap_or_default());
    let number = |number: i32| u16::try_from(number).ok().filter(|number| *number > 0);
    let wanted = ports.filter_map(|port| {
        let ip: Option<IpAddr> = port.host_ip.as_deref().and_then(|ip| ip.parse().ok());
        Some(HostPort {
            protocol: match port.protocol.as_deref() {
                Some("UDP") => Protocol::Udp,
                Some("SCTP") => Protocol::Sctp,
                _ => Protocol::Tcp,
            },
            ip: ip.filter(|ip| !ip.is_unspecified()),
            port: number(port.host_port?)?,
            to: number(port.container_port)?,
        })
    });
    wanted.collect()
}

/// As whom what comes from outside reaches a pod: nobody that anybody knows.
fn outbound(mesh: &Mesh) -> Outbound {
    let identity = mesh.gateway_identity();
    let (name, namespace) = (&identity.service_account, &identity.namespace);
    let workload = WorkloadInfo::from_labels(name, namespace, &BTreeMap::new());
    mesh.outbound(CallerInfo { identity, workload })
}

/// Takes connections until `stop`, and passes each on to the pod.
async fn streams(node: Weak<Node>, listener: TcpListener, to: SocketAddr, stop: CancellationToken) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%to, %error, "a port of a pod is not served"),
    };
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let accepted = async {
            let place = places.clone().acquire_owned().await;
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => continue,
            accepted = accepted => accepted,
        };
        let (stream, node) = match (accepted, node.upgrade()) {
            (Ok((stream, _)), Some(node)) => (stream, node),
            (_, None) => break,
            (Err(error), _) => {
                tracing::debug!(%to, %error, "accepting at a port of a pod");
                tokio::time::sleep(ERROR_PAUSE).await;
                continue;
            }
        };
        connections.spawn(async move {
            let _place = place;
            let outbound = outbound(&node.mesh);
            if let Err(error) = sockets::pass_on(node, &outbound, to, stream).await {
                tracing::debug!(%to, %error, "a connection came to nothing");
            }
        });
    }
    connections.shutdown().await;
}

/// Takes datagrams until `stop`, and has the pod's answers sent back to whoever sent them.
async fn datagrams(node: Weak<Node>, socket: UdpSocket, to: SocketAddr, stop: CancellationToken) {
    let socket = match tokio::net::UdpSocket::from_std(socket) {
        Ok(socket) => Arc::new(socket),
        Err(error) => return tracing::error!(%to, %error, "a port of a pod is not served"),
    };
    let mut clients: HashMap<SocketAddr, FlowSender> = HashMap::new();
    let mut carrying = JoinSet::new();
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        let received = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(_) = carrying.join_next() => continue,
            received = socket.recv_from(&mut buffer) => received,
        };
        let Ok((bytes, client)) = received else {
            // Of an answer that a client did not take, for one.
            tokio::time::sleep(ERROR_PAUSE).await;
            continue;
        };
        let datagram = Bytes::copy_from_slice(buffer.get(..bytes).unwrap_or_default());
        if let Some(known) = clients.get(&client)
            && known.send(datagram.clone())
        {
            continue;
        }
        clients.retain(|_, known| !known.is_ended());
        let Some(node) = node.upgrade().filter(|_| clients.len() < CLIENTS_MAX) else {
            continue;
        };
        let (sender, sent) = flow();
        sender.send(datagram);
        clients.insert(client, sender);
        let (outbound, socket) = (outbound(&node.mesh), socket.clone());
        carrying.spawn(async move {
            let received = |datagram: Bytes| {
                // Where the kernel has no room, it is lost as any.
                let _ = socket.try_send_to(&datagram, client);
            };
            let carried = outbound.carry_datagrams(to, client, sent, received);
            if let Err(failure) = carried.await {
                tracing::debug!(%client, %to, %failure, "datagrams came to nothing");
            }
        });
    }
    drop(clients);
    carrying.shutdown().await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::{Value, json};

    const NODE: &str = "10.0.0.1";

    fn pod(ports: Value) -> Pod {
        let spec = json!({
            "initContainers": [{"name": "first", "ports": [{"containerPort": 9, "hostPort": 9}]}],
            "containers": [{"name": "web", "ports": ports}],
        });
        serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).expect("a pod")
    }

    fn port(host: u16, ip: &str, protocol: &str) -> Value {
        json!([{"containerPort": 80, "hostPort": host, "hostIP": ip, "protocol": protocol}])
    }

    #[test]
    fn a_port_is_one_pods_where_address_and_protocol_are_the_same() {
        for (other, clashes) in [
            (port(54_323, "127.0.0.1", "TCP"), true),
            (port(54_323, "127.0.0.2", "TCP"), false),
            (port(54_323, "", "TCP"), true),
            (port(54_323, "0.0.0.0", "TCP"), true),
            (port(54_323, NODE, "TCP"), false),
            (port(54_323, "127.0.0.1", "UDP"), false),
            (port(54_324, "127.0.0.1", "TCP"), false),
            (json!([{"containerPort": 54_323}]), false),
        ] {
            let ports = HostPorts::default();
            let (first, second) = (Arc::from("first"), Arc::from("second"));
            let held = pod(port(54_323, "127.0.0.1", "TCP"));
            assert_eq!(ports.claim(&first, PodView(&held)), Ok(()));
            assert_eq!(ports.claim(&first, PodView(&held)), Ok(()), "its own");
            let other_pod = pod(other.clone());
            let claimed = ports.claim(&second, PodView(&other_pod));
            assert_eq!(claimed.is_err(), clashes, "{other}");
            ports.release("first");
            assert_eq!(ports.claim(&second, PodView(&other_pod)), Ok(()));
        }
    }

    #[test]
    fn a_place_is_where_the_pod_says_or_the_nodes_own() {
        let node: IpAddr = NODE.parse().expect("an address");
        for (ip, expected) in [
            ("", "10.0.0.1:5"),
            ("0.0.0.0", "10.0.0.1:5"),
            ("::1", "[::1]:5"),
        ] {
            let pod = pod(port(5, ip, "UDP"));
            let [wanted] = wanted(PodView(&pod))[..] else {
                panic!("one port");
            };
            assert_eq!(
                wanted.place(node),
                (Protocol::Udp, expected.parse().expect("one"))
            );
            assert_eq!(wanted.to, 80);
        }
    }
}
