//! `weft attach`: look at what runs in a container, and speak to it.

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
    #[command(flatten)]
    client: ClientArgs,
}

/// # Errors
/// When it cannot be looked at.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let cannot = format!("cannot attach to {}", args.pod);
    args.session(None, &cannot).await
}

impl Args {
    /// The name that was given.
    pub(super) fn pod(&self) -> &str {
        &self.pod
    }

    /// A session in the container, of a command or of what runs there.
    ///
    /// # Errors
    /// `cannot` and why, and a command's exit code when that is not 0.
    pub(super) async fn session(
        &self,
        command: Option<&[String]>,
        cannot: &str,
    ) -> anyhow::Result<()> {
        let client = self.client.client().await?;
        let namespace = self.namespace.as_deref();
        let namespace = namespace.unwrap_or_else(|| client.default_namespace());
        let pod = pods::one(&client, namespace, &self.pod, cannot).await?;
        let container = pods::container(&pod, self.container.as_deref());
        let tty = session::terminal_for(self.tty, self.stdin);
        if command.is_none() && self.stdin && tty {
            eprintln!("If you don't see a command prompt, try pressing enter.");
        }
        let wanted = Wanted {
            namespace,
            pod: pod.metadata.name.as_deref().unwrap_or_default(),
            container: &container,
            command,
            stdin: self.stdin,
            tty,
        };
        session::at_hand(&client, &wanted, cannot).await
    }
}
