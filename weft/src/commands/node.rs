//! `weft node`: join a cluster and run its pods.

use std::net::{IpAddr, SocketAddr};
use std::path::{Component, PathBuf};

use tokio::sync::oneshot;
use weft_agent::AgentError;
use weft_agent::heartbeat::{LEASE_EVERY_SECONDS, LEASE_EVERY_SECONDS_MAX};
use weft_api::Quantity;
use weft_mesh::{OpenServices, TRUSTED_HOPS_MAX};
use weft_runtime::CompilerCommand;
use weft_runtime::worker::WorkerCommand;

use super::hollow::{self, Hollow};
use crate::exit::{Chain, Failure};
use crate::kubeconfig::ClientArgs;
use crate::node::{self, NodeConfig, NodeError, NodePorts};
use crate::{data_dir, shutdown, stdout};

/// What a hollow node offers when nothing is said.
const HOLLOW_CPU: &str = "4";
const HOLLOW_MEMORY: &str = "32Gi";

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Name in the cluster [default: this machine's name]
    #[arg(long)]
    name: Option<String>,
    /// URL of the API, as https://10.0.0.1:6443; of several servers with one flag each, though one is enough
    #[arg(long = "server", value_name = "URL", value_parser = https, required_unless_present = "hollow")]
    servers: Vec<String>,
    /// The cluster CA's certificate, `ca.crt` of the server's data folder
    #[arg(long, value_name = "FILE", required_unless_present = "hollow")]
    ca_file: Option<PathBuf>,
    /// Instead of this machine, play so many nodes that report that all of their pods run, and run nothing: to try large clusters.
    /// Shows the credentials of a kubeconfig
    #[arg(long, value_name = "N", conflicts_with_all = ["servers", "ca_file", "token_file"],
        value_parser = clap::value_parser!(u32).range(1..=20_000))]
    hollow: Option<u32>,
    #[command(flatten)]
    client: ClientArgs,
    /// The token to join with, `join-token` of the server's data folder; not needed again after the first start
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Where certificates, images, compiled components and logs are kept [default: /var/lib/weft/node as root, else
    /// ~/.local/share/weft/node]
    #[arg(long, env = "WEFT_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Address that other nodes and the server reach this one at
    #[arg(long, default_value = "127.0.0.1", value_name = "IP")]
    address: IpAddr,
    /// Port of the gateway; 0 picks a free one
    #[arg(long, default_value_t = 8080, value_name = "PORT")]
    gateway_port: u16,
    /// Port for calls from other nodes; 0 picks a free one
    #[arg(long, default_value_t = 15443, value_name = "PORT")]
    mesh_port: u16,
    /// Port for logs and metrics; 0 picks a free one
    #[arg(long, default_value_t = 10250, value_name = "PORT")]
    node_port: u16,
    /// Answer the cluster's names to programs of this machine at this address, as 127.0.0.53:5353
    #[arg(long, value_name = "IP:PORT")]
    dns_address: Option<SocketAddr>,
    /// Ask this server for names that are not of the cluster; up to three, with one flag each [default: they are refused]
    #[arg(long, value_name = "IP[:PORT]", value_parser = dns_server)]
    dns_upstream: Vec<SocketAddr>,
    /// CPU to offer to pods, as 4 or 500m [default: what the machine has]
    #[arg(long, value_name = "QUANTITY", value_parser = quantity)]
    capacity_cpu: Option<Quantity>,
    /// Memory to offer to pods, as 8Gi [default: what the machine has]
    #[arg(long, value_name = "QUANTITY", value_parser = quantity)]
    capacity_memory: Option<Quantity>,
    /// Addresses of this node's pods, as 10.200.0.0/17 [default: the cluster assigns them]
    #[arg(long, value_name = "CIDR")]
    pod_cidr: Option<String>,
    /// How often the node says that it is there, in seconds; 2 in clusters of thousands of nodes. Of one that dies, the server
    /// knows after two of them that did not come
    #[arg(long, default_value_t = LEASE_EVERY_SECONDS, value_name = "SECONDS",
        value_parser = clap::value_parser!(u64).range(1..=LEASE_EVERY_SECONDS_MAX))]
    lease_renewal: u64,
    /// Threads for guests and traffic [default: one a core]
    #[arg(long, value_name = "N")]
    cores: Option<usize>,
    /// Let pods name components in files of this machine, as file:/path
    #[arg(long)]
    allow_file_images: bool,
    /// Lend pods that ask for it this folder of the machine, and what is below it, or this file (hostPath); may be given several times
    #[arg(long, value_name = "FOLDER", value_parser = host_path)]
    allow_host_path: Vec<PathBuf>,
    /// Mirrors, credentials and certificates of image registries, as k3s' registries.yaml
    #[arg(long, value_name = "FILE")]
    private_registry: Option<PathBuf>,
    /// Authorities that hosts outside the cluster may prove themselves by, beside the platform's
    #[arg(long, value_name = "FILE")]
    egress_ca_file: Option<PathBuf>,
    /// Let clients reach services without a route, at SERVICE.NAMESPACE.localhost: those of this machine, or everybody
    #[arg(
        long,
        value_enum,
        value_name = "TO",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "everybody"
    )]
    open_services: Option<OpenTo>,
    /// Believe so many proxies in front of the gateway what they say of where a request came from (x-forwarded-for). Only where nobody
    /// reaches the gateway past them
    #[arg(long, default_value_t = 0, value_name = "N", value_parser = clap::value_parser!(u8).range(..=i64::from(TRUSTED_HOPS_MAX)))]
    trusted_hops: u8,
    /// Ranges of addresses that are this machine's and lead to it, as 192.0.2.0/28,2001:db8::/120: each Gateway gets one of IPv4 and one of
    /// IPv6, each Service of type LoadBalancer one
    #[arg(long, value_name = "CIDRS")]
    service_addresses: Option<String>,
    /// Write the log as JSON
    #[arg(long)]
    pub log_json: bool,
    /// Other nodes on this machine share the gateway port
    #[arg(long, hide = true)]
    share_gateway_port: bool,
    /// The gateway is at this address, too, which the nodes of this machine share
    #[arg(long, hide = true)]
    gateway_address: Option<IpAddr>,
    /// End when stdin ends
    #[arg(long, hide = true)]
    exit_with_parent: bool,
}

/// Whom services without a route are opened to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum OpenTo {
    ThisMachine,
    Everybody,
}

fn open_services(to: Option<OpenTo>) -> OpenServices {
    match to {
        None => OpenServices::ToNobody,
        Some(OpenTo::ThisMachine) => OpenServices::ToThisMachine,
        Some(OpenTo::Everybody) => OpenServices::ToEverybody,
    }
}

/// A folder that pods may be lent.
pub(super) fn host_path(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    if !path.is_absolute() || path.components().any(|part| part == Component::ParentDir) {
        return Err("it must be an absolute path without ..".to_owned());
    }
    Ok(path)
}

fn quantity(text: &str) -> Result<Quantity, String> {
    let quantity = Quantity::parse(text).map_err(|error| error.to_string())?;
    if quantity.is_zero() || quantity.is_negative() {
        return Err("it must be more than 0".to_owned());
    }
    Ok(quantity)
}

/// # Errors
/// When a port or the data folder is in use, or the cluster refuses the node.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let stop = shutdown::on_signal()?;
    if args.exit_with_parent {
        shutdown::on_stdin_end(stop.clone());
    }
    if let Some(count) = args.hollow {
        let amount = |asked: Option<Quantity>, usual: &str| {
            asked.map_or_else(|| usual.to_owned(), |asked| asked.to_string())
        };
        let hollow = Hollow {
            count,
            name: args.name.unwrap_or_else(|| "hollow".to_owned()),
            cpu: amount(args.capacity_cpu, HOLLOW_CPU),
            memory: amount(args.capacity_memory, HOLLOW_MEMORY),
            version: weft_apiserver::http::discovery::GIT_VERSION.to_owned(),
        };
        return hollow::run(hollow, &args.client, stop).await;
    }
    let name = match args.name {
        Some(name) => name,
        None => std::fs::read_to_string("/proc/sys/kernel/hostname")?
            .trim()
            .to_lowercase(),
    };
    weft_api::name::dns1123_subdomain(&name).map_err(|why| {
        Failure::new(
            format!("{name:?} cannot be a node's name"),
            why,
            "name it with --name",
        )
        .usage()
    })?;
    let clamp = |value: i128| u64::try_from(value).unwrap_or(u64::MAX);
    let config = NodeConfig {
        name,
        servers: args.servers,
        // Without it only hollow nodes are played.
        ca_file: args.ca_file.unwrap_or_default(),
        token_file: args.token_file,
        data_dir: std::path::absolute(
            args.data_dir
                .unwrap_or_else(|| data_dir::default().join("node")),
        )?,
        address: args.address,
        gateway_port: args.gateway_port,
        gateway_port_shared: args.share_gateway_port,
        gateway_address: args.gateway_address,
        open_services: open_services(args.open_services),
        trusted_hops: args.trusted_hops,
        service_addresses: args.service_addresses,
        mesh_port: args.mesh_port,
        node_port: args.node_port,
        dns_address: args.dns_address,
        dns_upstream: args.dns_upstream,
        capacity_cpu_millis: args.capacity_cpu.map(|cpu| clamp(cpu.milli())),
        capacity_memory_bytes: args.capacity_memory.map(|memory| clamp(memory.value())),
        lease_every_seconds: args.lease_renewal,
        pod_cidr: args.pod_cidr,
        allow_file_images: args.allow_file_images,
        host_paths: args.allow_host_path,
        registries_file: args.private_registry,
        egress_ca_file: args.egress_ca_file,
        cores: args.cores,
        compiler: Some(CompilerCommand {
            program: std::env::current_exe()?,
            args: vec!["compile".to_owned()],
        }),
        worker: Some(WorkerCommand {
            program: std::env::current_exe()?,
            args: vec!["worker".to_owned()],
        }),
        version: weft_apiserver::http::discovery::GIT_VERSION.to_owned(),
    };
    let (ready, became_ready) = oneshot::channel();
    let (name, address) = (config.name.clone(), config.address);
    let announce = async {
        // Nothing is sent when the node ends before it is ready; then its error tells.
        if let Ok(ports) = became_ready.await {
            // A node whose output nobody reads any more goes on.
            let _ = stdout::text(&announcement(&name, address, ports));
        }
    };
    let (ended, ()) = tokio::join!(node::run(config, ready, stop), announce);
    ended.map_err(|error| explain(&error))?;
    Ok(())
}

fn announcement(name: &str, address: IpAddr, ports: NodePorts) -> String {
    let at = |port| SocketAddr::new(address, port);
    format!(
        "weft node {name} is ready.\n\n  \
         gateway            http://{}\n  \
         other nodes        {}\n  \
         logs and metrics   https://{}\n",
        at(ports.gateway),
        at(ports.mesh),
        at(ports.node)
    )
}

/// The server must be who it says it is, so that plain HTTP would be no way to join.
/// A server of DNS, at its usual port where none is said.
pub(super) fn dns_server(text: &str) -> Result<SocketAddr, String> {
    const PORT: u16 = 53;
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    match (text.parse(), bare.parse()) {
        (Ok(address), _) => Ok(address),
        (_, Ok(ip)) => Ok(SocketAddr::new(ip, PORT)),
        _ => Err("it must be an address, as 192.0.2.53 or 192.0.2.53:5353".to_owned()),
    }
}

fn https(text: &str) -> Result<String, String> {
    let refused = |why: &str| format!("{why}; write it as https://10.0.0.1:6443");
    let uri: http::Uri = text.parse().map_err(|error| refused(&format!("{error}")))?;
    if uri.scheme_str() != Some("https") || uri.host().is_none_or(str::is_empty) {
        return Err(refused("it is no https:// address"));
    }
    Ok(text.trim_end_matches('/').to_owned())
}

fn explain(error: &NodeError) -> Failure {
    let check =
        "check --server, --ca-file and --token-file; a server makes a new join-token at each start";
    let correct = "correct what the message names and start the node again";
    let (what, why, next) = match error {
        NodeError::Listen {
            what,
            address,
            source,
        } => {
            return crate::server::cannot_listen(what, *address, source);
        }
        NodeError::FolderInUse { .. } => {
            let next = "stop that node, or name another folder with --data-dir";
            return Failure::new(error.to_string(), "another node runs with it", next);
        }
        NodeError::Token { source, .. } => (error.to_string(), source.to_string(), check),
        NodeError::Identity(cause) | NodeError::Agent(AgentError::Identity(cause)) => {
            let what = "the node cannot join the cluster".to_owned();
            (what, Chain(cause).to_string(), check)
        }
        NodeError::Agent(cause) => {
            let what = "the node cannot run".to_owned();
            (what, Chain(cause).to_string(), correct)
        }
        other => {
            let chain = Chain(other).to_string();
            let (what, why) = chain
                .split_once(": ")
                .unwrap_or(("the node cannot run", &chain));
            (what.to_owned(), why.to_owned(), correct)
        }
    };
    Failure::new(what, why, next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_are_opened_to_nobody_unless_it_is_said() {
        #[derive(Debug, clap::Parser)]
        struct Program {
            #[command(flatten)]
            args: Args,
        }
        let parse = |flags: &[&str]| {
            let usual = [
                "weft",
                "--server",
                "https://10.0.0.1:6443",
                "--ca-file",
                "ca.crt",
            ];
            let line = usual.iter().chain(flags);
            let parsed = <Program as clap::Parser>::try_parse_from(line).expect("known flags");
            open_services(parsed.args.open_services)
        };
        assert_eq!(parse(&[]), OpenServices::ToNobody);
        assert_eq!(parse(&["--open-services"]), OpenServices::ToEverybody);
        let here = parse(&["--open-services=this-machine"]);
        assert_eq!(here, OpenServices::ToThisMachine);
    }

    #[test]
    fn a_server_is_named_by_its_https_address() {
        for (text, read) in [
            ("https://10.0.0.1:6443", Some("https://10.0.0.1:6443")),
            ("https://[::1]:6443/", Some("https://[::1]:6443")),
            ("http://10.0.0.1:6443", None),
            ("10.0.0.1:6443", None),
            ("https://", None),
        ] {
            assert_eq!(https(text).ok().as_deref(), read, "{text}");
        }
    }

    #[test]
    fn each_failure_says_what_to_do() {
        let folder = NodeError::FolderInUse {
            path: "/data".into(),
        };
        let token = NodeError::Token {
            path: "/token".into(),
            source: std::io::ErrorKind::NotFound.into(),
        };
        let cidr = weft_agent::addresses::Addresses::new("nonsense")
            .map(drop)
            .unwrap_err();
        let cidr = AgentError::Cidr(cidr);
        for (error, shown, next) in [
            (
                folder,
                "the data folder /data is in use: another node runs with it",
                "--data-dir",
            ),
            (
                token,
                "reading the bootstrap token /token: entity not found",
                "--token-file",
            ),
            (
                NodeError::Agent(cidr),
                "the node cannot run: the node's pod CIDR is unusable",
                "start the node again",
            ),
        ] {
            let failure = explain(&error);
            assert!(failure.to_string().starts_with(shown), "{failure}");
            assert!(failure.next.contains(next), "{}", failure.next);
        }
    }
}
