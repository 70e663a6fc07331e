//! One node process: runtime, cores, mesh, gateway and agent, wired together.
//!
//! ```text
//! listeners   gateway and mesh once a core (SO_REUSEPORT: a connection stays on the core that accepted it), node port once
//! up          engine → cores → mesh → agent (identity, registration) → listeners are served → ready
//! down        agent drains its pods → listeners stop → cores stop
//! ```
//!
//! Everything on the way up that can be wrong with this machine (a port in use, a folder that cannot be written) is tried
//! before the cluster hears of the node.
//!
//! Invariants: guests run on cores only, control work on the runtime this is called on; when [`run`] returns, no thread,
//! task or listener of the node is left.

#[cfg(test)]
mod lapsed;
mod places;
mod servers;

use std::fs::File;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use weft_agent::access_log::{AccessLog, AccessLogError};
use weft_agent::heartbeat::{Facts, Machine};
use weft_agent::identity::{IdentityError, Server};
use weft_agent::image::{Registries, RegistriesError};
use weft_agent::otlp::config::{Config as Telemetry, ConfigError as TelemetryError};
use weft_agent::trust::Trust;
use weft_agent::{Agent, AgentError};
use weft_mesh::{DnsConfig, EgressConfig, GatewayConfig, Mesh, OpenServices};
use weft_runtime::worker::WorkerCommand;
use weft_runtime::{BuildError, CompilerCommand, Cores, Engine};

use crate::balancer::Balancer;
use crate::server::CLUSTER_DOMAIN;
use servers::KnownServers;

/// The toolbox that this program was built with (`build.rs`); empty without one.
const TOOLBOX: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/toolbox.wasm"));
/// Connections the kernel holds for a listener until they are accepted.
const BACKLOG: i32 = 1024;
/// What cores may take to finish once listeners and pods have stopped; only connections that idle are left by then.
const CORES_GRACE: Duration = Duration::from_secs(2);
/// How long listeners may take at least to finish what is in flight, once the pods have stopped; what was begun when the node was told to
/// stop has as long as pods may have.
const LISTENERS_GRACE: Duration = Duration::from_secs(5);

/// What `weft node` is told.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    pub name: String,
    /// `https://HOST:PORT` of API servers; one that answers is enough, it tells of the others.
    pub servers: Vec<String>,
    pub ca_file: PathBuf,
    /// Holds the bootstrap token; not needed once the node has its certificate.
    pub token_file: Option<PathBuf>,
    pub data_dir: PathBuf,
    /// What the node listens on and is reached at.
    pub address: IpAddr,
    /// 0 picks a free one, here and below.
    pub gateway_port: u16,
    /// Other nodes on this machine listen on the same gateway port: `weft up` looked before that nobody else does.
    pub gateway_port_shared: bool,
    /// Where the gateway is besides the node's own address, with the other nodes of this machine.
    pub gateway_address: Option<IpAddr>,
    pub open_services: OpenServices,
    /// Proxies in front of the gateway that are believed.
    pub trusted_hops: u8,
    /// Ranges of addresses, apart by commas, that lead to this node: Services and Gateways have addresses of their own there.
    pub service_addresses: Option<String>,
    pub mesh_port: u16,
    pub node_port: u16,
    /// Where the cluster's names are answered for programs of this machine; nowhere when not given. Other nodes of the machine may answer
    /// there, too.
    pub dns_address: Option<SocketAddr>,
    /// Whom names outside of the cluster are asked of; nobody when empty.
    pub dns_upstream: Vec<SocketAddr>,
    /// In thousandths of a core; the machine's when not given.
    pub capacity_cpu_millis: Option<u64>,
    /// In bytes; the machine's when not given.
    pub capacity_memory_bytes: Option<u64>,
    /// How often the node's lease is renewed.
    pub lease_every_seconds: u64,
    /// Asked for at registration; the cluster assigns one when not given.
    pub pod_cidr: Option<String>,
    pub allow_file_images: bool,
    /// Folders that pods may be lent (`hostPath`), with all that is below them.
    pub host_paths: Vec<PathBuf>,
    /// Mirrors, credentials and certificates of registries, see [`weft_agent::image::Registries`]; none when not given.
    pub registries_file: Option<PathBuf>,
    /// Authorities that hosts outside of the cluster are trusted by, in PEM, beside the platform's; only those when not given.
    pub egress_ca_file: Option<PathBuf>,
    /// Threads for guests and traffic; one a core of the machine when not given.
    pub cores: Option<usize>,
    /// The program that compiles components in a child process (`weft compile`); in this process when not given.
    pub compiler: Option<CompilerCommand>,
    /// The program that hosts the guests of a namespace which asks for a process of its own (`weft worker`); such
    /// namespaces are refused when not given.
    pub worker: Option<WorkerCommand>,
    /// `v1.37.x+weft.N`, what the node reports as its version.
    pub version: String,
}

/// The ports a node really has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodePorts {
    pub gateway: u16,
    pub mesh: u16,
    pub node: u16,
}

/// Why a node could not run.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    #[error("the {what} port {address} cannot be listened on")]
    Listen {
        what: &'static str,
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
    #[error("preparing {path}")]
    Folder {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the data folder {path} is in use")]
    FolderInUse { path: PathBuf },
    #[error("reading the bootstrap token {path}")]
    Token {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Registries(#[from] RegistriesError),
    #[error("reading what the environment says of telemetry")]
    Telemetry(#[from] TelemetryError),
    #[error("reading WEFT_ACCESS_LOG")]
    AccessLog(#[from] AccessLogError),
    #[error("listening on this machine for the way to the servers")]
    Balancer(#[source] io::Error),
    #[error("connecting to the cluster")]
    Identity(#[from] IdentityError),
    #[error("building the engine")]
    Engine(#[from] BuildError),
    #[error("starting the cores")]
    Cores(#[source] io::Error),
    #[error("running the agent")]
    Agent(#[from] AgentError),
}

/// Runs a node until `shutdown`, then drains it. `ready` gets the ports once the node can serve.
///
/// Call it on a multi-thread runtime with all of tokio enabled.
///
/// # Errors
/// [`NodeError`], in one sentence with its causes in `source`.
pub async fn run(
    config: NodeConfig,
    ready: oneshot::Sender<NodePorts>,
    shutdown: CancellationToken,
) -> Result<(), NodeError> {
    // A second provider in the process would make rustls ask which one is meant; the first one wins and is the same.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();

    let registries = match &config.registries_file {
        None => Registries::default(),
        Some(path) => Registries::read(path)?,
    };
    let extra_roots = match &config.egress_ca_file {
        None => Vec::new(),
        Some(path) => weft_agent::identity::read_authority(path)?,
    };
    let telemetry = Telemetry::of(|name| std::env::var(name).ok(), &config.name)?;
    let access_log = std::env::var("WEFT_ACCESS_LOG").ok();
    let access_log = access_log.filter(|said| !said.is_empty());
    let access_log = access_log
        .map(|said| said.parse::<AccessLog>())
        .transpose()?;
    let _lock = lock(&config.data_dir)?;
    let servers = KnownServers::load(&config.data_dir, &config.servers);
    let authority = weft_agent::identity::read_authority(&config.ca_file)?;
    let trust = Trust::taken_up(&config.data_dir.join("pki"), authority);
    let judged = trust.clone();
    let trusted = Arc::new(move || judged.now().authorities.clone());
    let balancer = Balancer::start(&servers.addresses(), trusted)
        .await
        .map_err(NodeError::Balancer)?;
    let server = Server::new(&format!("https://{}", balancer.address()), trust)?;
    let token = match &config.token_file {
        None => None,
        Some(path) => Some(
            std::fs::read_to_string(path).map_err(|source| NodeError::Token {
                path: path.clone(),
                source,
            })?,
        ),
    };
    let count = config
        .cores
        .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from))
        .max(1);
    let sharing = if config.gateway_port_shared {
        Sharing::Nodes
    } else {
        Sharing::Cores
    };
    let gateways = listen_each(
        "gateway",
        config.address,
        config.gateway_port,
        count,
        sharing,
    )?;
    let port_of_gateway = port(&gateways[0]);
    let shared = config
        .gateway_address
        .map(|address| listen_each("gateway", address, port_of_gateway, count, Sharing::Nodes));
    let shared = shared.transpose()?.unwrap_or_default();
    let inbound = listen_each(
        "mesh",
        config.address,
        config.mesh_port,
        count,
        Sharing::Cores,
    )?;
    let node_listener = listen("node", config.address, config.node_port, false)?;
    let dns = match config.dns_address {
        None => None,
        Some(address) => Some(listen_dns(address)?),
    };
    let ports = NodePorts {
        gateway: port_of_gateway,
        mesh: port(&inbound[0]),
        node: port(&node_listener),
    };

    let places = places(raise_descriptors(), count);

    let mut engine = Engine::builder().cache_dir(config.data_dir.join("compiled"));
    if let Some(compiler) = config.compiler.clone() {
        engine = engine.compiler(compiler);
    }
    let engine = engine.build()?;
    let cores = Cores::start(count).map_err(NodeError::Cores)?;
    let mesh = Mesh::builder(config.name.clone(), CLUSTER_DOMAIN)
        .cluster_domain(CLUSTER_DOMAIN)
        .gateway(GatewayConfig {
            open_services: config.open_services,
            trusted_hops: config.trusted_hops,
            connections_max: places.gateway,
            ..GatewayConfig::default()
        })
        .inbound_connections_max(places.inbound)
        .dns(DnsConfig {
            upstream: config.dns_upstream.clone(),
        })
        .egress(EgressConfig {
            extra_roots,
            ..EgressConfig::default()
        })
        .sampling(
            telemetry
                .as_ref()
                .map(|telemetry| telemetry.sampling)
                .unwrap_or_default(),
        )
        .build();

    // Served before the node says that it is ready; stopped after it has said that it is not.
    let traffic = CancellationToken::new();
    let mut serving = tokio::task::JoinSet::new();
    for (core, (gateway, inbound)) in gateways.into_iter().zip(inbound).enumerate() {
        let (on_gateway, on_inbound) = (mesh.clone(), mesh.clone());
        let (stop_gateway, stop_inbound) = (traffic.clone(), traffic.clone());
        serving.spawn(watched(
            "gateway",
            cores.spawn_on(core, async move {
                on_gateway.serve_gateway(gateway, stop_gateway).await
            }),
        ));
        serving.spawn(watched(
            "mesh",
            cores.spawn_on(core, async move {
                on_inbound.serve_inbound(inbound, stop_inbound).await
            }),
        ));
    }

    for (core, gateway) in shared.into_iter().enumerate() {
        let (on_gateway, stop) = (mesh.clone(), traffic.clone());
        serving.spawn(watched(
            "gateway",
            cores.spawn_on(core, async move {
                on_gateway.serve_gateway(gateway, stop).await
            }),
        ));
    }
    serving.spawn(places::follow(
        mesh.clone(),
        cores.clone(),
        count,
        traffic.clone(),
    ));

    if let Some((datagrams, listener)) = dns {
        let (on_dns, stop) = (mesh.clone(), traffic.clone());
        serving.spawn(watched(
            "dns",
            tokio::spawn(async move { on_dns.serve_dns(datagrams, listener, stop).await }),
        ));
    }

    let turn = AtomicUsize::new(0);
    let on_cores = cores.clone();
    let spawn: weft_mesh::Spawn = Arc::new(move |serving| {
        // A place is served by one core; each by the next.
        let core = turn.fetch_add(1, Ordering::Relaxed) % count;
        on_cores.spawn_on(core, serving)
    });
    let (on_exposed, stop) = (mesh.clone(), traffic.clone());
    let address = config.address;
    serving.spawn(watched(
        "services",
        tokio::spawn(async move {
            on_exposed.serve_exposed(address, spawn, stop).await;
            Ok(())
        }),
    ));

    let machine = Machine::detect();
    let agent = Agent::start(
        weft_agent::Config {
            server,
            bootstrap_token: token,
            trust_domain: CLUSTER_DOMAIN.to_owned(),
            facts: Facts {
                name: config.name.clone(),
                address: config.address,
                mesh_address: SocketAddr::new(config.address, ports.mesh),
                gateway_port: ports.gateway,
                service_addresses: config.service_addresses.clone(),
                node_port: ports.node,
                cpu_millis: config.capacity_cpu_millis.unwrap_or(machine.cpu_millis),
                memory_bytes: config.capacity_memory_bytes.unwrap_or(machine.memory_bytes),
                lease_every_seconds: config.lease_every_seconds,
                pod_cidr: config.pod_cidr.clone(),
                version: config.version.clone(),
                data_dir: config.data_dir.clone(),
            },
            data_dir: config.data_dir.clone(),
            file_images_allowed: config.allow_file_images,
            host_paths: config.host_paths.clone(),
            registries,
            worker: config.worker.clone(),
            toolbox: bytes::Bytes::from_static(TOOLBOX),
            telemetry,
            access_log,
        },
        engine,
        cores.clone(),
        mesh,
        node_listener,
        &shutdown,
    )
    .await;
    // One time for all that was begun: pods, and calls that pass through here to pods of other nodes.
    let mut drained_by = tokio::time::Instant::now();
    let result = match agent {
        Ok(agent) => {
            tracing::info!(node = %config.name, gateway = ports.gateway, mesh = ports.mesh, port = ports.node, "node is up");
            // Whoever started us may not care.
            let _ = ready.send(ports);
            let link = agent.node().link.clone();
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = servers.follow(link, &balancer) => {}
            }
            tracing::info!(node = %config.name, "draining");
            drained_by = tokio::time::Instant::now() + weft_agent::sync::DRAIN_MAX;
            agent.stop().await;
            Ok(())
        }
        // Asked to stop while waiting for the server: that is what happened.
        Err(AgentError::Stopped) => Ok(()),
        Err(error) => Err(error.into()),
    };

    traffic.cancel();
    let finished = async { while serving.join_next().await.is_some() {} };
    let least = tokio::time::Instant::now() + LISTENERS_GRACE;
    if tokio::time::timeout_at(drained_by.max(least), finished)
        .await
        .is_err()
    {
        tracing::debug!("connections were still busy and are cut off");
    }
    cores.shutdown(CORES_GRACE).await;
    balancer.stop().await;
    result
}

/// Lets this process have as many open files as it may, and says how many that are: the usual soft limit of 1,024 is a thousand idle
/// clients, after which there is no file for a log, an image or the way to the servers.
fn raise_descriptors() -> u64 {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return DESCRIPTORS_USUAL;
    };
    let wanted = hard.min(DESCRIPTORS_MAX).max(soft);
    if wanted == soft {
        return soft;
    }
    match setrlimit(Resource::RLIMIT_NOFILE, wanted, hard) {
        Ok(()) => wanted,
        Err(error) => {
            tracing::warn!(%error, soft, "the limit of open files stays as it is");
            soft
        }
    }
}

/// What a process gets where nobody raises it.
const DESCRIPTORS_USUAL: u64 = 1024;
/// More are not asked for: a limit of billions makes programs slow that close all they could have.
const DESCRIPTORS_MAX: u64 = 1 << 20;
/// Left to logs, images, volumes, workers and the way to the servers.
const DESCRIPTORS_KEPT: u64 = 512;

/// Connections that one listener holds.
#[derive(Debug, PartialEq, Eq)]
struct Places {
    gateway: usize,
    inbound: usize,
}

/// Shares `descriptors` out to the listeners of `cores` cores: half to clients, a quarter to other nodes, the rest to connections that this
/// node opens. A core whose places are taken leaves further clients in the kernel's queue.
fn places(descriptors: u64, cores: usize) -> Places {
    let cores = u64::try_from(cores).unwrap_or(u64::MAX).max(1);
    let left = descriptors.saturating_sub(DESCRIPTORS_KEPT);
    let share = |part: u64, most: usize| {
        let places = usize::try_from(part / cores).unwrap_or(usize::MAX);
        places.clamp(PLACES_MIN, most)
    };
    Places {
        gateway: share(left / 2, GatewayConfig::default().connections_max),
        inbound: share(left / 4, INBOUND_MAX),
    }
}

/// Below this a listener could not serve its own node.
const PLACES_MIN: usize = 16;
/// Connections of other nodes at 100 KB each.
const INBOUND_MAX: usize = 8192;

/// Says so when a listener ends before its time; the others go on.
async fn watched(what: &'static str, serving: tokio::task::JoinHandle<io::Result<()>>) {
    match serving.await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::error!(what, %error, "a listener ended"),
        Err(error) if error.is_cancelled() => {}
        Err(error) => tracing::error!(what, %error, "a listener failed"),
    }
}

fn port(listener: &TcpListener) -> u16 {
    listener.local_addr().map_or(0, |address| address.port())
}

/// Who may listen on the same port.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sharing {
    /// The cores of this node only.
    Cores,
    /// Other nodes of this machine too.
    Nodes,
}

/// One listener a core on one port; the kernel spreads connections over them.
fn listen_each(
    what: &'static str,
    address: IpAddr,
    port: u16,
    count: usize,
    sharing: Sharing,
) -> Result<Vec<TcpListener>, NodeError> {
    let mut port = port;
    if sharing == Sharing::Cores {
        // Sharing works among all processes of a user, so that a port in use must be noticed without it first.
        port = self::port(&listen(what, address, port, false)?);
    }
    let mut listeners = Vec::with_capacity(count);
    for _ in 0..count {
        let listener = listen(what, address, port, true)?;
        port = self::port(&listener);
        listeners.push(listener);
    }
    Ok(listeners)
}

fn listen(
    what: &'static str,
    address: IpAddr,
    port: u16,
    shared: bool,
) -> Result<TcpListener, NodeError> {
    let address = SocketAddr::new(address, port);
    let open = || -> io::Result<TcpListener> {
        let socket = Socket::new(
            Domain::for_address(address),
            Type::STREAM,
            Some(Protocol::TCP),
        )?;
        socket.set_reuse_address(true)?;
        if shared {
            socket.set_reuse_port(true)?;
        }
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        Ok(socket.into())
    };
    open().map_err(|source| NodeError::Listen {
        what,
        address,
        source,
    })
}

/// Sockets for questions of DNS, which nodes of one machine share.
fn listen_dns(address: SocketAddr) -> Result<(UdpSocket, TcpListener), NodeError> {
    let open = || -> io::Result<UdpSocket> {
        let domain = Domain::for_address(address);
        let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_reuse_port(true)?;
        socket.bind(&address.into())?;
        socket.set_nonblocking(true)?;
        Ok(socket.into())
    };
    let datagrams = open().map_err(|source| NodeError::Listen {
        what: "dns",
        address,
        source,
    })?;
    let listener = listen("dns", address.ip(), address.port(), true)?;
    Ok((datagrams, listener))
}

/// Takes the data folder for this process; the lock goes with it, however it ends.
fn lock(folder: &Path) -> Result<File, NodeError> {
    let failed = |source| NodeError::Folder {
        path: folder.to_owned(),
        source,
    };
    std::fs::create_dir_all(folder).map_err(failed)?;
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(folder.join("node.lock"))
        .map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(NodeError::FolderInUse {
            path: folder.to_owned(),
        }),
        Err(std::fs::TryLockError::Error(source)) => Err(failed(source)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[test]
    fn a_port_in_use_is_refused_though_cores_share_theirs() {
        let mine = listen_each("mesh", HERE, 0, 2, Sharing::Cores).expect("free ports exist");
        assert_eq!(port(&mine[0]), port(&mine[1]));
        let error = listen_each("mesh", HERE, port(&mine[0]), 2, Sharing::Cores);
        assert!(matches!(error, Err(NodeError::Listen { what: "mesh", .. })));
    }

    #[test]
    fn connections_leave_files_to_the_rest_of_the_node() {
        for (descriptors, cores, gateway, inbound) in [
            (1 << 20, 8, 10_000, 8192),
            (65_536, 8, 4064, 2032),
            (1024, 1, 256, 128),
            (1024, 2, 128, 64),
            // Nothing is left to share out, but a node is of no use without.
            (256, 2, 16, 16),
        ] {
            let found = places(descriptors, cores);
            assert_eq!(found, Places { gateway, inbound }, "{descriptors} {cores}");
        }
        assert!(raise_descriptors() >= 256);
    }

    #[test]
    fn nodes_share_the_gateway_with_each_other_and_with_nobody_else() {
        let mine = listen_each("gateway", HERE, 0, 2, Sharing::Nodes).expect("free ports exist");
        assert!(listen_each("gateway", HERE, port(&mine[0]), 2, Sharing::Nodes).is_ok());
        let other = TcpListener::bind((HERE, 0)).expect("free ports exist");
        assert!(listen_each("gateway", HERE, port(&other), 1, Sharing::Nodes).is_err());
    }

    #[test]
    fn a_data_folder_belongs_to_one_node() {
        let folder = std::env::temp_dir().join(format!("weft-node-lock-{}", std::process::id()));
        let first = lock(&folder).expect("taken");
        assert!(matches!(lock(&folder), Err(NodeError::FolderInUse { .. })));
        drop(first);
        assert!(lock(&folder).is_ok());
        std::fs::remove_dir_all(&folder).expect("removed");
    }
}
