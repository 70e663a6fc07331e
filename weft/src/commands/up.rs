//! `weft up`: a whole cluster on this machine.
//!
//! The server runs in this process, each node in a child of the same binary, so that a guest that manages
//! to abort the engine never takes the store with it. With several servers, these are children too. A node that dies is
//! started again, after its pods had time to move. Ctrl-C stops the servers, drains the nodes, and exits 0.
//!
//! In this order, because a cluster that stops as a whole loses no pods: while servers are there, a node that goes is one whose
//! pods others are to take over, and with their pods go their volumes. At the next start everybody is where they were, as after
//! a stop of k3s. A single node that is to be emptied is drained (`kubectl drain`), or ended alone.

mod process;
mod servers;

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ipnet::Ipv4Net;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use kube::api::ListParams;
use serde_json::json;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::process::{Process, tail};
use self::servers::Servers;
use crate::exit::Failure;
use crate::server::ServerConfig;
use crate::{data_dir, server, shutdown, stdout};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// How many nodes to run
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=100))]
    nodes: u16,
    /// How many servers to run: 1, or 3 or 5 of which some may fail
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = odd)]
    servers: u16,
    /// Where everything is kept [default: /var/lib/weft as root, else ~/.local/share/weft]
    #[arg(long, env = "WEFT_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1", value_name = "IP")]
    address: IpAddr,
    /// Addresses of this machine for the nodes, one each, as 127.0.1.0/28, instead of the one above for all: host ports are then each
    /// node's own
    #[arg(long, value_name = "CIDR")]
    node_addresses: Option<Ipv4Net>,
    /// Port of the API; 0 picks a free one
    #[arg(long, default_value_t = 6443, value_name = "PORT")]
    api_port: u16,
    /// Port of the gateway, shared by all nodes; 0 picks a free one
    #[arg(long, default_value_t = 8080, value_name = "PORT")]
    gateway_port: u16,
    /// Believe so many proxies in front of the gateway what they say of where a request came from (x-forwarded-for)
    #[arg(long, default_value_t = 0, value_name = "N", value_parser = clap::value_parser!(u8).range(..=i64::from(weft_mesh::TRUSTED_HOPS_MAX)))]
    trusted_hops: u8,
    /// Ranges of addresses of this machine, of which each Gateway gets one of IPv4 and one of IPv6 [default: of 127.0.0.0/8, by the API's
    /// port]
    #[arg(long, value_name = "CIDRS")]
    service_addresses: Option<String>,
    /// Answer the cluster's names to programs of this machine at this address, as 127.0.0.53:5353
    #[arg(long, value_name = "IP:PORT")]
    dns_address: Option<SocketAddr>,
    /// Ask this server for names that are not of the cluster; up to three, with one flag each [default: they are refused]
    #[arg(long, value_name = "IP[:PORT]", value_parser = super::node::dns_server)]
    dns_upstream: Vec<SocketAddr>,
    /// Let clients on other machines, too, reach services without a route, at SERVICE.NAMESPACE.localhost
    #[arg(long)]
    open_services: bool,
    /// Bearer tokens, a line each: token,user,uid,"group1,group2"
    #[arg(long, value_name = "FILE")]
    token_auth_file: Option<PathBuf>,
    /// Keys that secrets are encrypted with, 32 bytes in base64 a line, the first for new ones; made when missing
    /// [default: pki/encryption.key in the data folder]
    #[arg(long, value_name = "FILE")]
    encryption_key_file: Option<PathBuf>,
    /// Lend pods that ask for it this folder of the machine, and what is below it, or this file (hostPath); may be given several times
    #[arg(long, value_name = "FOLDER", value_parser = super::node::host_path)]
    allow_host_path: Vec<PathBuf>,
    /// Mirrors, credentials and certificates of image registries, as k3s' registries.yaml
    #[arg(long, value_name = "FILE")]
    private_registry: Option<PathBuf>,
    /// Authorities that hosts outside the cluster may prove themselves by, beside the platform's
    #[arg(long, value_name = "FILE")]
    egress_ca_file: Option<PathBuf>,
    /// Threads for guests on each node [default: one a core]
    #[arg(long, value_name = "N")]
    cores: Option<usize>,
    /// Print what is ready as one JSON line
    #[arg(short, long)]
    output: Option<Output>,
    /// Drain and end when stdin ends
    #[arg(long, hide = true)]
    exit_with_parent: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    Json,
}

/// How long nodes may take to become ready: far above the usual second, for a machine under load.
const READY_TIMEOUT: Duration = Duration::from_secs(60);
/// How often the nodes are asked after while they start.
const READY_POLL: Duration = Duration::from_millis(25);
/// A dead node comes back after its pods were moved to others (its connections end, its lease is shortened to 2 s, and pods
/// tolerate 2 s more), so that whatever killed it does not take them along again. Enough for a machine that hangs, too: 8 and 2 s.
const RESTART_DELAY: Duration = Duration::from_secs(15);
/// How long nodes may drain: the default grace period of a pod, and some seconds to report.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(40);

/// How long nodes of a weft that was killed may take to end: they drain, as they would have been told to.
const ORPHANS_MAX: Duration = DRAIN_TIMEOUT;
/// What a server holds in its data folder as long as it runs.
const STORE_LOCK: &str = "store/lock";
/// How often they are looked after.
const ORPHANS_POLL: Duration = Duration::from_millis(50);

/// An even number of servers survives no more failures than one less.
fn odd(text: &str) -> Result<u16, String> {
    match text.parse() {
        Ok(servers @ (1 | 3 | 5)) => Ok(servers),
        _ => Err("it must be 1, 3 or 5".to_owned()),
    }
}

/// # Errors
/// When a port or the data folder is in use, or a node does not become ready.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let started = Instant::now();
    let stop = shutdown::on_signal()?;
    if args.exit_with_parent {
        shutdown::on_stdin_end(stop.clone());
    }
    let dir = args.data_dir.clone().unwrap_or_else(data_dir::default);
    let dir = std::path::absolute(&dir)?;
    let registries_file = args.private_registry.as_deref().map(std::path::absolute);
    let registries_file = registries_file.transpose()?;
    if let Some(file) = &registries_file {
        // Each node reads it for itself; what is wrong with it is said once, before anything is started.
        weft_agent::image::Registries::read(file).map_err(|error| {
            Failure::new("cannot use the registries", error, "correct the file").usage()
        })?;
    }
    let egress_ca_file = args.egress_ca_file.as_deref().map(std::path::absolute);
    let egress_ca_file = egress_ca_file.transpose()?;
    if let Some(file) = &egress_ca_file {
        weft_agent::identity::read_authority(file).map_err(|error| {
            Failure::new(
                "cannot use the authorities of hosts outside",
                error,
                "correct the file",
            )
            .usage()
        })?;
    }
    if let Some(range) = args.node_addresses
        && range.hosts().count() < usize::from(args.nodes)
    {
        return Err(Failure::new(
            format!("cannot give {} nodes addresses of {range}", args.nodes),
            format!("it has {}", range.hosts().count()),
            "give a larger range with --node-addresses",
        )
        .usage()
        .into());
    }
    if tokio::time::timeout(ORPHANS_MAX, orphans_gone(&dir, &stop))
        .await
        .is_err()
    {
        tracing::warn!("nodes of a weft that was killed are still there");
    }
    let gateway = free_port(SocketAddr::new(args.address, args.gateway_port), "gateway")?;
    let address = SocketAddr::new(args.address, args.api_port);
    let config = ServerConfig {
        token_auth_file: args.token_auth_file.clone(),
        encryption_key_file: args.encryption_key_file.clone(),
        ..ServerConfig::alone(dir.clone(), address)
    };
    let Some(servers) = Servers::start(config, args.servers, &stop).await? else {
        return Ok(());
    };
    let cluster = Cluster {
        dir,
        gateway,
        node_addresses: args.node_addresses,
        nodes: args.nodes,
        cores: args.cores,
        trusted_hops: args.trusted_hops,
        service_addresses: args.service_addresses,
        services_open: args.open_services,
        dns_address: args.dns_address,
        dns_upstream: args.dns_upstream,
        registries_file,
        egress_ca_file,
        host_paths: args.allow_host_path.clone(),
    };
    let mut nodes = Nodes::default();
    let result = cluster
        .serve(&servers, &mut nodes, &stop, started, args.output)
        .await;
    let stopped = servers.stop().await;
    nodes.stop().await;
    result?;
    Ok(stopped?)
}

/// Waits until nodes have ended that a weft left behind in this folder: they notice that it was killed, and hold the
/// gateway's port and their folders until they have drained. Nodes of a weft that runs are no such.
async fn orphans_gone(dir: &Path, stop: &CancellationToken) {
    if is_locked(&dir.join(STORE_LOCK)) {
        return;
    }
    let mut told = false;
    for node in std::fs::read_dir(dir.join("nodes")).into_iter().flatten() {
        let Ok(node) = node else { continue };
        while is_locked(&node.path().join("node.lock")) && !stop.is_cancelled() {
            if !told {
                tracing::info!("waiting for nodes of a weft that was killed");
                told = true;
            }
            tokio::time::sleep(ORPHANS_POLL).await;
        }
    }
}

fn is_locked(file: &Path) -> bool {
    let Ok(file) = std::fs::File::open(file) else {
        return false;
    };
    matches!(file.try_lock(), Err(std::fs::TryLockError::WouldBlock))
}

/// Checks that nobody listens there, and finds a port when none is named.
///
/// The nodes share the gateway's port with `SO_REUSEPORT`, which would also share it with a weft that is
/// already there: binding it once without tells.
fn free_port(address: SocketAddr, what: &str) -> Result<SocketAddr, Failure> {
    let listener =
        TcpListener::bind(address).map_err(|error| server::cannot_listen(what, address, &error))?;
    listener
        .local_addr()
        .map_err(|error| server::cannot_listen(what, address, &error))
}

/// Addresses that only this machine has, all of which lead to it: 254 that no other weft on it has, as it has another port.
fn loopback_range(address: IpAddr, api: &str) -> Option<String> {
    let port: u16 = api.rsplit_once(':')?.1.trim_end_matches('/').parse().ok()?;
    let [high, low] = port.to_be_bytes();
    // 127.0.0.0/24 is what others mean by this machine.
    let is_usable = address.is_loopback() && address.is_ipv4() && port > 255;
    is_usable.then(|| format!("127.{high}.{low}.0/24"))
}

/// The nodes' processes. They outlive the servers.
#[derive(Default)]
struct Nodes {
    supervised: JoinSet<()>,
    stop: CancellationToken,
}

impl Nodes {
    /// Drains them, and waits until they have ended.
    async fn stop(mut self) {
        self.stop.cancel();
        while self.supervised.join_next().await.is_some() {}
    }
}

struct Cluster {
    dir: PathBuf,
    gateway: SocketAddr,
    /// Of which each node has one for itself.
    node_addresses: Option<Ipv4Net>,
    nodes: u16,
    cores: Option<usize>,
    trusted_hops: u8,
    service_addresses: Option<String>,
    services_open: bool,
    dns_address: Option<SocketAddr>,
    dns_upstream: Vec<SocketAddr>,
    registries_file: Option<PathBuf>,
    egress_ca_file: Option<PathBuf>,
    host_paths: Vec<PathBuf>,
}

impl Cluster {
    async fn serve(
        &self,
        server: &Servers,
        nodes: &mut Nodes,
        stop: &CancellationToken,
        started: Instant,
        output: Option<Output>,
    ) -> Result<(), Failure> {
        let born = Timestamp::now();
        let failed = CancellationToken::new();
        for number in 1..=self.nodes {
            let process = self.node(number, server)?;
            let supervised = process.supervise(nodes.stop.clone(), failed.clone());
            nodes.supervised.spawn(supervised);
        }
        let ready = tokio::select! {
            ready = self.ready(server, born) => ready,
            () = failed.cancelled() => Err(self.node_failure()),
            () = stop.cancelled() => Ok(()),
        };
        ready?;
        if !stop.is_cancelled() {
            let seconds = started.elapsed().as_secs_f64();
            let dashboard = server.dashboard().await;
            self.announce(server, seconds, &dashboard, output);
        }
        tokio::select! {
            () = stop.cancelled() => {
                tracing::info!("stopping the servers, then the nodes; a second Ctrl-C stops at once");
                Ok(())
            }
            failure = server.failed() => Err(failure),
        }
    }

    fn names(&self) -> impl Iterator<Item = String> + use<> {
        (1..=self.nodes).map(|number| format!("node-{number}"))
    }

    fn node(&self, number: u16, server: &Servers) -> Result<Process, Failure> {
        let name = format!("node-{number}");
        let dir = self.dir.join("nodes").join(&name);
        data_dir::create_private(&dir)?;
        let program = std::env::current_exe().map_err(|error| {
            Failure::new("cannot start a node", error, "run weft by its full path")
        })?;
        let share = |total: u64| (total / u64::from(self.nodes)).max(1);
        let machine = weft_agent::heartbeat::Machine::detect();
        let mut arguments = vec!["node".to_owned()];
        let own = self
            .node_addresses
            .and_then(|range| range.hosts().nth(usize::from(number) - 1))
            .map(IpAddr::from);
        if own.is_some() {
            let shared = self.gateway.ip().to_string();
            arguments.extend(["--gateway-address".to_owned(), shared]);
        }
        let address = own.unwrap_or(self.gateway.ip());
        let options = [
            ("--name", name.clone()),
            ("--server", server.url.clone()),
            ("--ca-file", server.ca_file.display().to_string()),
            ("--token-file", server.join_token_file.display().to_string()),
            ("--data-dir", dir.display().to_string()),
            ("--address", address.to_string()),
            ("--gateway-port", self.gateway.port().to_string()),
            ("--mesh-port", "0".into()),
            ("--node-port", "0".into()),
            ("--trusted-hops", self.trusted_hops.to_string()),
            ("--capacity-cpu", format!("{}m", share(machine.cpu_millis))),
            ("--capacity-memory", share(machine.memory_bytes).to_string()),
        ];
        arguments.extend(
            options
                .into_iter()
                .flat_map(|(flag, value)| [flag.to_owned(), value]),
        );
        arguments.extend(
            [
                "--allow-file-images",
                "--share-gateway-port",
                "--exit-with-parent",
            ]
            .map(str::to_owned),
        );
        let ranges = self.service_addresses.clone();
        if let Some(ranges) = ranges.or_else(|| loopback_range(self.gateway.ip(), &server.url)) {
            arguments.extend(["--service-addresses".to_owned(), ranges]);
        }
        // Whoever tries weft here calls its services without a route; what others send is for routes.
        let open_to = if self.services_open {
            "everybody"
        } else {
            "this-machine"
        };
        arguments.push(format!("--open-services={open_to}"));
        if let Some(address) = self.dns_address {
            arguments.extend(["--dns-address".to_owned(), address.to_string()]);
        }
        for server in &self.dns_upstream {
            arguments.extend(["--dns-upstream".to_owned(), server.to_string()]);
        }
        if let Some(file) = &self.registries_file {
            arguments.extend(["--private-registry".to_owned(), file.display().to_string()]);
        }
        if let Some(file) = &self.egress_ca_file {
            arguments.extend(["--egress-ca-file".to_owned(), file.display().to_string()]);
        }
        for folder in &self.host_paths {
            arguments.extend(["--allow-host-path".to_owned(), folder.display().to_string()]);
        }
        if let Some(cores) = self.cores {
            arguments.extend(["--cores".to_owned(), cores.to_string()]);
        }
        Ok(Process {
            name,
            program,
            arguments,
            log: dir.join("node.log"),
            restart_delay: RESTART_DELAY,
            drain_timeout: DRAIN_TIMEOUT,
            start_timeout: READY_TIMEOUT / 4,
        })
    }

    /// Waits until every node has said since `born` that it is ready.
    async fn ready(&self, server: &Servers, born: Timestamp) -> Result<(), Failure> {
        let api: kube::Api<Node> = kube::Api::all(server.client().await?);
        let all_ready = async {
            loop {
                // The API may not answer in its first milliseconds; the time-out is the judge.
                if let Ok(nodes) = api.list(&ListParams::default()).await {
                    let ready = |name: String| {
                        let mut nodes = nodes.items.iter();
                        nodes.any(|node| {
                            node.metadata.name.as_ref() == Some(&name) && is_ready(node, born)
                        })
                    };
                    if self.names().all(ready) {
                        return;
                    }
                }
                tokio::time::sleep(READY_POLL).await;
            }
        };
        tokio::time::timeout(READY_TIMEOUT, all_ready)
            .await
            .map_err(|_| {
                Failure::new(
                    "the nodes did not become ready",
                    format!("{} s passed", READY_TIMEOUT.as_secs()),
                    format!("read their logs in {}", self.dir.join("nodes").display()),
                )
            })
    }

    fn node_failure(&self) -> Failure {
        let dir = self.dir.join("nodes");
        let mut printed = String::new();
        for number in 1..=self.nodes {
            let log = dir.join(format!("node-{number}")).join("node.log");
            if log.exists() {
                printed = tail(&log);
            }
        }
        Failure::new(
            "a node ended before it was ready",
            if printed.is_empty() {
                "it printed nothing".to_owned()
            } else {
                printed
            },
            format!("read the logs in {}", dir.display()),
        )
    }

    /// Says what is ready. A cluster whose output nobody reads any more goes on.
    fn announce(&self, server: &Servers, seconds: f64, dashboard: &str, output: Option<Output>) {
        let kubeconfig = server.kubeconfig.display().to_string();
        let gateway = format!("http://{}", self.gateway);
        if output == Some(Output::Json) {
            let nodes: Vec<String> = self.names().collect();
            let _ = stdout::line(
                json!({"kubeconfig": kubeconfig, "api": server.url, "gateway": gateway, "dashboard": dashboard, "servers": server.urls, "nodes": nodes, "ready_seconds": seconds}),
            );
            return;
        }
        let plural = if self.nodes == 1 { "" } else { "s" };
        let _ = stdout::text(&format!(
            "weft is ready after {seconds:.1} s, with {servers}{nodes} node{plural}.\n\n  \
             kubeconfig  {kubeconfig}\n  \
             API         {api}\n  \
             gateway     {gateway}  (http://SERVICE.NAMESPACE.localhost:{port})\n  \
             dashboard   {dashboard}\n              \
             (signs in once, within five minutes; `weft dash` makes another link)\n\n  \
             export KUBECONFIG={kubeconfig}\n\n\
             Ctrl-C stops it; pods and data stay in {dir}, and go on with the next start.\n",
            servers = match server.urls.len() {
                1 => String::new(),
                several => format!("{several} servers and "),
            },
            nodes = self.nodes,
            api = server.url,
            port = self.gateway.port(),
            dir = self.dir.display(),
        ));
    }
}

/// The node has said since `born` that it is ready. What a cluster said that ran before in the same folder, and was
/// killed, is no news of this one.
fn is_ready(node: &Node, born: Timestamp) -> bool {
    let conditions = node
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|condition| {
        let heard = condition.last_heartbeat_time.as_ref();
        condition.type_ == "Ready"
            && condition.status == "True"
            // Times in objects are in whole seconds.
            && heard.is_some_and(|time| time.0.as_second() >= born.as_second())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_start_waits_for_nodes_that_a_killed_weft_left_behind() {
        let dir = tempfile::tempdir().unwrap();
        let stop = CancellationToken::new();
        // Nothing there, and nothing that runs.
        orphans_gone(dir.path(), &stop).await;
        let node = dir.path().join("nodes/node-1");
        std::fs::create_dir_all(&node).unwrap();
        let lock = std::fs::File::create(node.join("node.lock")).unwrap();
        orphans_gone(dir.path(), &stop).await;
        lock.lock().unwrap();
        let mut waiting = std::pin::pin!(orphans_gone(dir.path(), &stop));
        assert!(futures::poll!(waiting.as_mut()).is_pending());
        // Of a weft that runs, they are nobody's to wait for; it says itself that the folder is in use.
        std::fs::create_dir(dir.path().join("store")).unwrap();
        let server = std::fs::File::create(dir.path().join(STORE_LOCK)).unwrap();
        server.lock().unwrap();
        orphans_gone(dir.path(), &stop).await;
        drop(server);
        drop(lock);
        waiting.await;
    }

    #[test]
    fn a_node_is_ready_when_it_said_so_since_the_start() {
        let node = |status: &str, heard: &str| -> Node {
            let condition = json!({"type": "Ready", "status": status, "lastHeartbeatTime": heard});
            serde_json::from_value(json!({"status": {"conditions": [condition]}})).unwrap()
        };
        let born: Timestamp = "2026-01-01T12:00:00.7Z".parse().unwrap();
        for (status, heard, ready) in [
            ("True", "2026-01-01T12:00:01Z", true),
            ("True", "2026-01-01T12:00:00Z", true),
            ("False", "2026-01-01T12:00:01Z", false),
            ("True", "2026-01-01T11:59:58Z", false),
        ] {
            assert_eq!(
                is_ready(&node(status, heard), born),
                ready,
                "{status} {heard}"
            );
        }
        assert!(!is_ready(&Node::default(), born));
    }
}
