//! `weft up`: a whole cluster on this machine.
//!
//! The server runs in this process, each node in a child of the same binary, so that a guest that manages
//! to abort the engine never takes the store with it. With several servers, these are children too. A node that dies is
//! started again, after its pods had time to move. Ctrl-C drains the nodes, then the servers, and exits 0.

mod process;
mod servers;

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::time::{Duration, Instant};

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
    /// Port of the API; 0 picks a free one
    #[arg(long, default_value_t = 6443, value_name = "PORT")]
    api_port: u16,
    /// Port of the gateway, shared by all nodes; 0 picks a free one
    #[arg(long, default_value_t = 8080, value_name = "PORT")]
    gateway_port: u16,
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
/// A dead node comes back after its pods were moved to others (lease 8 s, toleration 2 s), so that whatever
/// killed it does not take them along again.
const RESTART_DELAY: Duration = Duration::from_secs(15);
/// How long nodes may drain: the default grace period of a pod, and some seconds to report.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(40);

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
        nodes: args.nodes,
        cores: args.cores,
        services_open: args.open_services,
    };
    let result = cluster.serve(&servers, &stop, started, args.output).await;
    let stopped = servers.stop().await;
    result?;
    Ok(stopped?)
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

struct Cluster {
    dir: PathBuf,
    gateway: SocketAddr,
    nodes: u16,
    cores: Option<usize>,
    services_open: bool,
}

impl Cluster {
    async fn serve(
        &self,
        server: &Servers,
        stop: &CancellationToken,
        started: Instant,
        output: Option<Output>,
    ) -> Result<(), Failure> {
        let born = Timestamp::now();
        let mut supervised = JoinSet::new();
        let failed = CancellationToken::new();
        for number in 1..=self.nodes {
            let process = self.node(number, server)?;
            supervised.spawn(process.supervise(stop.clone(), failed.clone()));
        }
        let ready = tokio::select! {
            ready = self.ready(server, born) => ready,
            () = failed.cancelled() => Err(self.node_failure()),
            () = stop.cancelled() => Ok(()),
        };
        let result = match ready {
            Ok(()) => {
                if !stop.is_cancelled() {
                    self.announce(server, started, output);
                }
                tokio::select! {
                    () = stop.cancelled() => {
                        tracing::info!("draining the nodes; a second Ctrl-C stops at once");
                        Ok(())
                    }
                    failure = server.failed() => {
                        stop.cancel();
                        Err(failure)
                    }
                }
            }
            Err(failure) => {
                stop.cancel();
                Err(failure)
            }
        };
        while supervised.join_next().await.is_some() {}
        result
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
        let options = [
            ("--name", name.clone()),
            ("--server", server.url.clone()),
            ("--ca-file", server.ca_file.display().to_string()),
            ("--token-file", server.join_token_file.display().to_string()),
            ("--data-dir", dir.display().to_string()),
            ("--address", self.gateway.ip().to_string()),
            ("--gateway-port", self.gateway.port().to_string()),
            ("--mesh-port", "0".into()),
            ("--node-port", "0".into()),
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
        if self.services_open {
            arguments.push("--open-services".to_owned());
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
    fn announce(&self, server: &Servers, started: Instant, output: Option<Output>) {
        let seconds = started.elapsed().as_secs_f64();
        let kubeconfig = server.kubeconfig.display().to_string();
        let gateway = format!("http://{}", self.gateway);
        if output == Some(Output::Json) {
            let nodes: Vec<String> = self.names().collect();
            let _ = stdout::line(
                json!({"kubeconfig": kubeconfig, "api": server.url, "gateway": gateway, "servers": server.urls, "nodes": nodes, "ready_seconds": seconds}),
            );
            return;
        }
        let plural = if self.nodes == 1 { "" } else { "s" };
        let _ = stdout::text(&format!(
            "weft is ready after {seconds:.1} s, with {servers}{nodes} node{plural}.\n\n  \
             kubeconfig  {kubeconfig}\n  \
             API         {api}\n  \
             gateway     {gateway}  (http://SERVICE.NAMESPACE.localhost:{port})\n\n  \
             export KUBECONFIG={kubeconfig}\n\n\
             Ctrl-C drains it and stops it; the data stays in {dir}.\n",
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
