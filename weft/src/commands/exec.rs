//! `weft exec`: run a command in a container.

use crate::kubeconfig::ClientArgs;
use crate::session::{self, Wanted};

use super::pods;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Name of the pod, or KIND/NAME of what owns pods, such as deployment/web: then its first pod
    #[arg(value_name = "POD")]
    pod: String,
    /// In this namespace [default: the one of the kubeconfig]
    #[arg(short, long)]
    namespace: Option<String>,
    /// The container, where the pod has several
    #[arg(short, long)]
    container: Option<String>,
    /// With what this program reads
    #[arg(short = 'i', long)]
    stdin: bool,
    /// In a terminal
    #[arg(short, long)]
    tty: bool,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
    #[command(flatten)]
    client: ClientArgs,
}

/// # Errors
/// When it did not run, and with its exit code when that is not 0.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let client = args.client.client().await?;
    let namespace = args.namespace.as_deref();
    let namespace = namespace.unwrap_or_else(|| client.default_namespace());
    let cannot = format!("cannot run the command in {}", args.pod);
    let pod = pods::one(&client, namespace, &args.pod, &cannot).await?;
    let container = pods::container(&pod, args.container.as_deref());
    let wanted = Wanted {
        namespace,
        pod: pod.metadata.name.as_deref().unwrap_or_default(),
        container: &container,
        command: Some(&args.command),
        stdin: args.stdin,
        tty: session::terminal_for(args.tty, args.stdin),
    };
    session::at_hand(&client, &wanted, &cannot).await
}
