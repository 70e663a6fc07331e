//! `weft server`: API, store, scheduler and controllers in one process; and what concerns the servers as a group.

mod backup;
mod members;
mod rewrap;
mod signers;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::Subcommand;
use serde_json::json;
use weft_apiserver::audit::log::LogConfig;
use weft_apiserver::audit::webhook::BatchConfig;

use crate::server::{self, AuditConfig, JoinConfig, ServerConfig};
use crate::{data_dir, shutdown, stdout};

#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    action: Option<Action>,
    #[command(flatten)]
    run: RunArgs,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show the servers of the cluster
    Members(members::ListArgs),
    /// Remove a server from the cluster for ever
    Remove(members::RemoveArgs),
    /// Hand leadership over to another server
    Transfer(members::TransferArgs),
    /// Write everything the cluster keeps into a file
    Backup(backup::BackupArgs),
    /// Make the data folder of a new cluster from a backup
    Restore(backup::RestoreArgs),
    /// Encrypt every Secret anew, under a new key
    Rewrap(rewrap::RewrapArgs),
    /// Show the keys that tokens of ServiceAccounts are signed with, add one, or remove one
    Keys(signers::KeysArgs),
    /// Show the authorities that certificates are signed by, let another follow, or forget one
    Roots(signers::RootsArgs),
}

#[derive(Debug, clap::Args)]
struct RunArgs {
    /// Where the store, the certificates and the registry are kept [default: /var/lib/weft as root, else
    /// ~/.local/share/weft]
    #[arg(long, env = "WEFT_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1", value_name = "IP")]
    address: IpAddr,
    /// Port of the API; 0 picks a free one
    #[arg(long, default_value_t = 6443, value_name = "PORT")]
    api_port: u16,
    /// Port for the other servers; 0 picks a free one [default: 6444, or 0 with --api-port 0]
    #[arg(long, value_name = "PORT")]
    peer_port: Option<u16>,
    /// Address that clients and the other servers reach this one at [default: --address]
    #[arg(long, value_name = "IP")]
    advertise_address: Option<IpAddr>,
    /// HOST:PORT under which clients reach all servers, such as a load balancer
    #[arg(long, value_name = "HOST:PORT")]
    control_plane_endpoint: Option<String>,
    /// Join the cluster of a running server, as https://10.0.0.1:6443; ignored once this one belongs to a cluster
    #[arg(long, value_name = "URL", requires_all = ["ca_file", "token_file"])]
    join: Option<String>,
    /// The cluster CA's certificate, `ca.crt` of the running server's data folder
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// The token to join with, `server-token` of the running server's data folder
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Take the place of a server that is gone for good
    #[arg(long, value_name = "ID", requires = "join")]
    replace: Option<u64>,
    /// Bearer tokens, a line each: token,user,uid,"group1,group2"
    #[arg(long, value_name = "FILE")]
    token_auth_file: Option<PathBuf>,
    /// Keys that secrets are encrypted with, 32 bytes in base64 a line, the first for new ones; made when missing
    /// [default: pki/encryption.key in the data folder]
    #[arg(long, value_name = "FILE")]
    encryption_key_file: Option<PathBuf>,
    /// Whose tokens are believed beside this cluster's: an AuthenticationConfiguration of apiserver.config.k8s.io/v1
    #[arg(long, value_name = "FILE")]
    authentication_config: Option<PathBuf>,
    /// Which requests are written down, and how much of each: a Policy of audit.k8s.io/v1
    #[arg(long, value_name = "FILE")]
    audit_policy_file: Option<PathBuf>,
    /// Where they are written down; - is the standard output
    #[arg(long, value_name = "FILE", requires = "audit_policy_file")]
    audit_log_path: Option<PathBuf>,
    /// Megabytes of that file before another one is begun
    #[arg(long, default_value_t = 100, value_name = "MB")]
    audit_log_maxsize: u64,
    /// Old files of it that are kept; 0 is all of them
    #[arg(long, default_value_t = 0, value_name = "COUNT")]
    audit_log_maxbackup: usize,
    /// Days for which old files are kept; 0 is for ever
    #[arg(long, default_value_t = 0, value_name = "DAYS")]
    audit_log_maxage: u64,
    /// A kubeconfig of whoever is sent them as well, or instead: events of audit.k8s.io/v1, in batches
    #[arg(long, value_name = "FILE", requires = "audit_policy_file")]
    audit_webhook_config_file: Option<PathBuf>,
    /// Events that wait to be sent; further ones are lost, and counted
    #[arg(long, default_value_t = 10_000, value_name = "COUNT")]
    audit_webhook_batch_buffer_size: usize,
    /// Events of a batch
    #[arg(long, default_value_t = 400, value_name = "COUNT")]
    audit_webhook_batch_max_size: usize,
    /// How long an event waits for others to go with
    #[arg(long, default_value = "30s", value_name = "DURATION", value_parser = duration)]
    audit_webhook_batch_max_wait: Duration,
    /// Whether batches are held to a rate
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, value_name = "BOOL")]
    audit_webhook_batch_throttle_enable: bool,
    /// Batches a second
    #[arg(long, default_value_t = 10.0, value_name = "COUNT")]
    audit_webhook_batch_throttle_qps: f64,
    /// Batches at once after a pause
    #[arg(long, default_value_t = 15, value_name = "COUNT")]
    audit_webhook_batch_throttle_burst: u32,
    /// How long a batch waits before it is tried again
    #[arg(long, default_value = "10s", value_name = "DURATION", value_parser = duration)]
    audit_webhook_initial_backoff: Duration,
    /// Write the log as JSON
    #[arg(long)]
    log_json: bool,
    /// Print what is ready as one JSON line
    #[arg(short, long)]
    output: Option<Output>,
    /// End when stdin ends
    #[arg(long, hide = true)]
    exit_with_parent: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    Json,
}

/// Where servers expect each other: the port beside the API's.
const PEER_PORT: u16 = 6444;

impl Args {
    /// Whether this process is a server; then how it logs.
    pub fn serves(&self) -> Option<bool> {
        self.action.is_none().then_some(self.run.log_json)
    }
}

/// A time as Go's flags have it: `30s`, `1m30s`, `500ms`.
fn duration(text: &str) -> Result<Duration, String> {
    let failed = || format!("{text:?} is no duration such as 30s");
    let read: jiff::SignedDuration = text.parse().map_err(|_| failed())?;
    Duration::try_from(read).map_err(|_| failed())
}

/// # Errors
/// When the port or the data folder is in use, or the cluster refuses what is asked.
pub async fn run(args: Args) -> anyhow::Result<()> {
    match args.action {
        None => serve(args.run).await,
        Some(Action::Members(args)) => members::list(args).await,
        Some(Action::Remove(args)) => members::remove(args).await,
        Some(Action::Transfer(args)) => members::transfer(args).await,
        Some(Action::Backup(args)) => backup::backup(args).await,
        Some(Action::Restore(args)) => backup::restore(&args),
        Some(Action::Rewrap(args)) => rewrap::rewrap(args).await,
        Some(Action::Keys(args)) => signers::keys(args).await,
        Some(Action::Roots(args)) => signers::roots(args).await,
    }
}

async fn serve(args: RunArgs) -> anyhow::Result<()> {
    let stop = shutdown::on_signal()?;
    if args.exit_with_parent {
        shutdown::on_stdin_end(stop.clone());
    }
    let dir = std::path::absolute(args.data_dir.clone().unwrap_or_else(data_dir::default))?;
    let picked = if args.api_port == 0 { 0 } else { PEER_PORT };
    let join = match (args.join, args.ca_file, args.token_file) {
        (Some(server), Some(ca_file), Some(token_file)) => Some(JoinConfig {
            server,
            ca_file,
            token_file,
            replaces: args.replace,
        }),
        _ => None,
    };
    let log = args.audit_log_path.map(|path| LogConfig {
        file_bytes_max: args.audit_log_maxsize.saturating_mul(1 << 20),
        files_max: args.audit_log_maxbackup,
        age_max: match args.audit_log_maxage {
            0 => None,
            days => Some(Duration::from_secs(days.saturating_mul(24 * 60 * 60))),
        },
        ..LogConfig::new(path)
    });
    let rate = (
        args.audit_webhook_batch_throttle_qps,
        args.audit_webhook_batch_throttle_burst,
    );
    let batch = BatchConfig {
        buffer_max: args.audit_webhook_batch_buffer_size,
        events_max: args.audit_webhook_batch_max_size,
        wait_max: args.audit_webhook_batch_max_wait,
        throttle: args.audit_webhook_batch_throttle_enable.then_some(rate),
        initial_backoff: args.audit_webhook_initial_backoff,
    };
    let webhook = args.audit_webhook_config_file.map(|file| (file, batch));
    let audit = args.audit_policy_file.map(|policy_file| AuditConfig {
        policy_file,
        log,
        webhook,
    });
    let config = ServerConfig {
        peer_port: Some(args.peer_port.unwrap_or(picked)),
        advertise_address: args.advertise_address,
        control_plane_endpoint: args.control_plane_endpoint,
        join,
        token_auth_file: args.token_auth_file,
        encryption_key_file: args.encryption_key_file,
        authentication_file: args.authentication_config,
        audit,
        ..ServerConfig::alone(dir, SocketAddr::new(args.address, args.api_port))
    };
    let mut server = server::start(config, &stop).await?;
    let ready = tokio::select! {
        biased;
        ready = server.ready() => Some(ready),
        () = stop.cancelled() => None,
    };
    let result = match ready {
        // Told to stop while it waited for the others.
        None => Ok(()),
        Some(Err(failure)) => Err(failure),
        Some(Ok(())) => {
            announce(&server, args.output);
            tokio::select! {
                () = stop.cancelled() => Ok(()),
                failure = server.failed() => Err(failure),
            }
        }
    };
    let stopped = server.stop().await;
    result?;
    Ok(stopped?)
}

/// Says what is ready. A server whose output nobody reads any more goes on.
fn announce(server: &server::Server, output: Option<Output>) {
    let file = |path: &PathBuf| path.display().to_string();
    if output == Some(Output::Json) {
        let _ = stdout::line(json!({
            "id": server.id,
            "api": server.url,
            "peerAddress": server.peer_address,
            "kubeconfig": file(&server.kubeconfig),
            "caFile": file(&server.ca_file),
            "joinTokenFile": file(&server.join_token_file),
            "serverTokenFile": file(&server.server_token_file),
        }));
        return;
    }
    let _ = stdout::text(&format!(
        "weft server is ready.\n\n  \
         kubeconfig  {}\n  \
         API         {}\n\n\
         Join a node, with the two files copied to it:\n  \
         weft node --server {} --ca-file {} --token-file {}\n\n\
         Join another server, with the two files copied to it:\n  \
         weft server --join {} --ca-file {} --token-file {}\n",
        file(&server.kubeconfig),
        server.url,
        server.client_url,
        file(&server.ca_file),
        file(&server.join_token_file),
        server.url,
        file(&server.ca_file),
        file(&server.server_token_file),
    ));
}
