//! `weft logs`: show what a pod's component printed.

use futures::{AsyncBufReadExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, LogParams};
use tokio::io::AsyncWriteExt as _;

use super::{get, manifest};
use crate::exit::Failure;
use crate::kubeconfig::{ClientArgs, api_failure};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Name of the pod, or KIND/NAME of what owns pods, such as deployment/web: then its first pod
    #[arg(value_name = "POD")]
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
    let namespace = args
        .namespace
        .clone()
        .unwrap_or_else(|| client.default_namespace().to_owned());
    let api: kube::Api<Pod> = kube::Api::namespaced(client.clone(), &namespace);
    let pod = match args.pod.split_once('/') {
        None => args.pod.clone(),
        Some((kind, name)) => first_pod(&client, &api, &namespace, kind, name).await?,
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
    let failed =
        |error: &kube::Error| api_failure(format!("cannot show the log of pod {pod}"), error);
    let stream = api
        .log_stream(&pod, &params)
        .await
        .map_err(|e| failed(&e))?;
    let mut lines = stream.lines();
    let mut out = tokio::io::stdout();
    loop {
        let line = lines.try_next().await.map_err(|error| {
            Failure::new(
                format!("the log of pod {pod} ended early"),
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

/// The first pod, by name, that the selector of an owner matches; a pod itself when the kind is pods.
async fn first_pod(
    client: &kube::Client,
    pods: &kube::Api<Pod>,
    namespace: &str,
    kind: &str,
    name: &str,
) -> Result<String, Failure> {
    let (resource, scope) = get::find(client, kind).await?;
    if resource.kind == "Pod" {
        return Ok(name.to_owned());
    }
    let what = || format!("cannot show the log of {kind}/{name}");
    let owner = manifest::api(client, &resource, &scope, Some(namespace))
        .get(name)
        .await
        .map_err(|error| api_failure(what(), &error))?;
    let labels = owner.data["spec"]["selector"]["matchLabels"].as_object();
    let selector: Vec<String> = labels
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| Some(format!("{key}={}", value.as_str()?)))
        .collect();
    if selector.is_empty() {
        let why = format!("a {} selects no pods by label", resource.kind);
        return Err(Failure::new(what(), why, "name a pod; `weft get pods` lists them").usage());
    }
    let found = pods
        .list(&ListParams::default().labels(&selector.join(",")))
        .await
        .map_err(|error| api_failure(what(), &error))?;
    let names = found.items.into_iter().filter_map(|pod| pod.metadata.name);
    names.min().ok_or_else(|| {
        Failure::new(
            what(),
            "it has no pods",
            format!("see why with `weft get {kind} {name} -o yaml`"),
        )
    })
}
