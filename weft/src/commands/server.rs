//! `weft server`: API, store, scheduler and controllers in one process.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use crate::exit::Failure;
use crate::server::{self, ServerConfig};
use crate::{data_dir, shutdown, stdout};

#[derive(Debug, clap::Args)]
pub struct Args {
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
    /// Bearer tokens, a line each: token,user,uid,"group1,group2"
    #[arg(long, value_name = "FILE")]
    token_auth_file: Option<PathBuf>,
    /// Keys that secrets are encrypted with, 32 bytes in base64 a line, the first for new ones; made when missing
    /// [default: pki/encryption.key in the data folder]
    #[arg(long, value_name = "FILE")]
    encryption_key_file: Option<PathBuf>,
    /// Write the log as JSON
    #[arg(long)]
    pub log_json: bool,
}

/// # Errors
/// When the port or the data folder is in use.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let stop = shutdown::on_signal()?;
    let dir = std::path::absolute(args.data_dir.unwrap_or_else(data_dir::default))?;
    let server = server::start(ServerConfig {
        data_dir: dir,
        address: SocketAddr::new(args.address, args.api_port),
        token_auth_file: args.token_auth_file.clone(),
        encryption_key_file: args.encryption_key_file.clone(),
    })
    .await?;
    // A server whose output nobody reads any more goes on.
    let _ = stdout::text(&format!(
        "weft server is ready.\n\n  \
         kubeconfig  {}\n  \
         API         {}\n\n\
         Join a node, with the two files copied to it:\n  \
         weft node --server {} --ca-file {} --token-file {}\n",
        server.kubeconfig.display(),
        server.url,
        server.url,
        server.ca_file.display(),
        server.join_token_file.display()
    ));
    let failed = tokio::select! {
        () = stop.cancelled() => None,
        reason = server.failed() => Some(reason),
    };
    let stopped = server.stop().await;
    if let Some(reason) = failed {
        return Err(broken(&reason).into());
    }
    Ok(stopped?)
}

/// The server cannot go on, and why.
pub fn broken(reason: &str) -> Failure {
    Failure::new(
        "the server stopped itself",
        reason,
        "look at the disk and at the log above; no acknowledged write is lost",
    )
}
