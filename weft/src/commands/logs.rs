//! `weft logs`: show what a pod's component printed.

use futures::{AsyncBufReadExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::Pod;
use kube::api::LogParams;
use tokio::io::AsyncWriteExt as _;

use crate::exit::Failure;
use crate::kubeconfig::{ClientArgs, api_failure};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Name of the pod
    pod: String,
    #[arg(short, long)]
    namespace: Option<String>,
    #[arg(short, long)]
    container: Option<String>,
    /// Go on with what it prints from now on
    #[arg(short, long)]
    follow: bool,
    /// Of the run before the last restart
    #[arg(short, long)]
    previous: bool,
    /// Only the last lines
    #[arg(long, value_name = "LINES")]
    tail: Option<i64>,
    /// Only from this many seconds ago on
    #[arg(long, value_name = "SECONDS")]
    since: Option<i64>,
    /// With the time of each line
    #[arg(long)]
    timestamps: bool,
    #[command(flatten)]
    client: ClientArgs,
}

/// # Errors
/// When the pod is not there, has no such container, or its node does not answer.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let client = args.client.client().await?;
    let api: kube::Api<Pod> = match &args.namespace {
        Some(namespace) => kube::Api::namespaced(client, namespace),
        None => kube::Api::default_namespaced(client),
    };
    let params = LogParams {
        container: args.container,
        follow: args.follow,
        previous: args.previous,
        tail_lines: args.tail,
        since_seconds: args.since,
        timestamps: args.timestamps,
        ..LogParams::default()
    };
    let failed = |error: &kube::Error| {
        api_failure(format!("cannot show the log of pod {}", args.pod), error)
    };
    let stream = api
        .log_stream(&args.pod, &params)
        .await
        .map_err(|e| failed(&e))?;
    let mut lines = stream.lines();
    let mut out = tokio::io::stdout();
    loop {
        let line = lines.try_next().await.map_err(|error| {
            Failure::new(
                format!("the log of pod {} ended early", args.pod),
                error,
                "run the command again; --since limits it to what is new",
            )
        })?;
        let Some(line) = line else { break };
        out.write_all(line.as_bytes()).await?;
        out.write_all(b"\n").await?;
        out.flush().await?;
    }
    Ok(())
}
