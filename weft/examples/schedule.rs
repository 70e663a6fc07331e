//! Asks a server to place pods, and measures how fast: the same for weft and for kube-scheduler, through the API alone.
//!
//! `schedule --kubeconfig FILE --case CASE [--nodes N] [--pods N]` makes Node objects by hand, makes what has to be there before, then the
//! pods, and ends when all of them have a node. Prints one JSON document. Cases are those of Kubernetes' own scheduler_perf: nodes of 4 CPUs
//! and 32 GiB in three zones; pods of 100m and 500 MiB.
//!
//! Invariant: a run ends with every pod bound, or fails.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::Parser;
use futures::{AsyncBufReadExt as _, StreamExt as _};
use http::Request;
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};

/// Clients that make objects at once.
const SIDE_BY_SIDE: usize = 64;
/// How long the last pod may take.
const PATIENCE: Duration = Duration::from_secs(600);
const METADATA_ONLY: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";

#[derive(Debug, Parser)]
struct Args {
    #[arg(long)]
    kubeconfig: PathBuf,
    #[arg(long, value_enum)]
    case: Case,
    #[arg(long, default_value_t = 5_000)]
    nodes: usize,
    #[arg(long, default_value_t = 10_000)]
    pods: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Case {
    Plain,
    /// A hard constraint over zones, with a skew of 5.
    Spread,
    /// Required anti-affinity by node.
    Apart,
    /// Every node is full of pods that are less urgent; no grace.
    Preemption,
}

fn pod(name: &str, label: &str, spec: Value) -> Value {
    let mut whole = json!({"containers": [{"name": "pause", "image": "registry.k8s.io/pause:3.10",
        "resources": {"requests": {"cpu": "100m", "memory": "500Mi"}}}],
        // Nobody runs them, and nobody has a token for them.
        "terminationGracePeriodSeconds": 0, "automountServiceAccountToken": false});
    for (key, value) in spec.as_object().into_iter().flatten() {
        whole[key] = value.clone();
    }
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default",
        "labels": {"color": "green", "bench": label}}, "spec": whole})
}

fn requests(cpu: &str) -> Value {
    json!([{"name": "pause", "image": "registry.k8s.io/pause:3.10",
        "resources": {"requests": {"cpu": cpu, "memory": "500Mi"}}}])
}

impl Case {
    fn spec(self) -> Value {
        let green = json!({"matchLabels": {"color": "green"}});
        match self {
            Self::Plain => json!({}),
            Self::Spread => {
                json!({"topologySpreadConstraints": [{"maxSkew": 5, "whenUnsatisfiable": "DoNotSchedule",
                "topologyKey": "topology.kubernetes.io/zone", "labelSelector": green}]})
            }
            Self::Apart => json!({"affinity": {"podAntiAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": [
                    {"topologyKey": "kubernetes.io/hostname", "labelSelector": green}]}}}),
            Self::Preemption => json!({"containers": requests("3"), "priorityClassName": "urgent"}),
        }
    }

    /// Pods that are there before, as many on each node.
    fn before(self) -> Option<(usize, Value)> {
        (self == Self::Preemption).then(|| (4, json!({"containers": requests("900m")})))
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let args = Args::parse();
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let file = Kubeconfig::read_from(&args.kubeconfig)?;
    let mut config =
        kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
    config.read_timeout = None;
    let client = kube::Client::try_from(config)?;
    make(&client, "/api/v1/nodes", (0..args.nodes).map(node)).await?;
    if args.case == Case::Preemption {
        let class = json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass",
            "metadata": {"name": "urgent"}, "value": 10});
        make(
            &client,
            "/apis/scheduling.k8s.io/v1/priorityclasses",
            std::iter::once(class),
        )
        .await?;
    }
    let pods = "/api/v1/namespaces/default/pods";
    if let Some((each, spec)) = args.case.before() {
        let count = args.nodes * each;
        let before =
            (0..count).map(|number| pod(&format!("before-{number}"), "before", spec.clone()));
        timed(&client, "before", count, make(&client, pods, before)).await?;
    }
    let spec = args.case.spec();
    let measured =
        (0..args.pods).map(|number| pod(&format!("pod-{number}"), "measured", spec.clone()));
    let (took, made, halves) = timed(
        &client,
        "measured",
        args.pods,
        make(&client, pods, measured),
    )
    .await?;
    #[allow(clippy::cast_precision_loss)]
    let rate = |pods: usize, took: Duration| pods as f64 / took.as_secs_f64();
    let document = json!({
        "nodes": args.nodes, "pods": args.pods,
        "seconds": took.as_secs_f64(),
        "made_seconds": made.as_secs_f64(),
        "binds_per_second": rate(args.pods, took),
        "last_half_per_second": rate(args.pods - args.pods / 2, took.saturating_sub(halves)),
    });
    println!("{document}");
    Ok(())
}

fn node(number: usize) -> Value {
    let name = format!("node-{number}");
    let room = json!({"cpu": "4", "memory": "32Gi", "pods": "110"});
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name,
            "topology.kubernetes.io/zone": format!("moon-{}", number % 3)}},
        "status": {"capacity": room, "allocatable": room,
            "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}]},
    })
}

/// Makes objects, many at a time.
async fn make(
    client: &kube::Client,
    path: &str,
    objects: impl Iterator<Item = Value>,
) -> Result<()> {
    let made = futures::stream::iter(objects).map(|object| async move {
        let request = Request::post(path).header("content-type", "application/json");
        client
            .request::<Value>(request.body(object.to_string().into_bytes())?)
            .await?;
        Ok::<(), anyhow::Error>(())
    });
    let mut made = made.buffer_unordered(SIDE_BY_SIDE);
    while let Some(one) = made.next().await {
        one.with_context(|| format!("making an object of {path}"))?;
    }
    Ok(())
}

/// How long until so many pods of a label have a node, from when `made` begins; how long that takes itself, and when half of them had.
async fn timed(
    client: &kube::Client,
    label: &str,
    count: usize,
    made: impl Future<Output = Result<()>>,
) -> Result<(Duration, Duration, Duration)> {
    let path = format!(
        "/api/v1/pods?watch=true&labelSelector=bench%3D{label}&fieldSelector=spec.nodeName!%3D"
    );
    let request = Request::get(path)
        .header("accept", METADATA_ONLY)
        .body(Vec::new())?;
    let mut lines = std::pin::pin!(client.request_stream(request).await?.lines());
    let begun = Instant::now();
    let made = async {
        made.await?;
        Ok::<Duration, anyhow::Error>(begun.elapsed())
    };
    let bound = async {
        let mut names: BTreeSet<String> = BTreeSet::new();
        let mut half = Duration::ZERO;
        while names.len() < count {
            let Some(line) = lines.next().await else {
                bail!("the watch ended with {} of {count} pods bound", names.len());
            };
            let event: Value = serde_json::from_str(&line?)?;
            if let Some(name) = event["object"]["metadata"]["name"].as_str() {
                names.insert(name.to_owned());
            }
            if half.is_zero() && names.len() * 2 >= count {
                half = begun.elapsed();
            }
        }
        Ok::<_, anyhow::Error>((begun.elapsed(), half))
    };
    let both = async { tokio::try_join!(made, bound) };
    let ended = tokio::time::timeout(PATIENCE, both).await;
    let (made, (bound, half)) = ended.context("not all pods have a node after ten minutes")??;
    Ok((bound, made, half))
}
