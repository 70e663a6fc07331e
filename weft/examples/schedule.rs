//! Asks a server to place pods, and measures how fast: the same for weft and for kube-scheduler, through the API alone.
//!
//! `schedule --kubeconfig FILE --case CASE [--nodes N] [--pods N]` makes Node objects by hand, makes what has to be there before, then the
//! pods, and ends when all of them have a node. Prints one JSON document. Cases are those of Kubernetes' own scheduler_perf: nodes of 4 CPUs
//! and 32 GiB in three zones; pods of 100m and 500 MiB. Each node has a lease that holds for the whole run: nobody is there to renew it, and
//! a server that watches over its nodes would give them up.
//!
//! With `--curve` there are nodes already, and somebody who plays them: pods are made no faster than they are bound, but for
//! [`AHEAD_MAX`], and of each tenth of them it is told how fast they were bound, how long each waited, and what the server's process held.
//!
//! Invariant: a run ends with every pod bound, or fails.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::Parser;
use futures::stream::BoxStream;
use futures::{AsyncBufReadExt as _, StreamExt as _};
use http::Request;
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

/// Clients that make objects at once.
const SIDE_BY_SIDE: usize = 64;
/// How long all may be without one more pod bound.
const PATIENCE: Duration = Duration::from_secs(300);
/// Before a watch that ended is begun anew.
const PAUSE: Duration = Duration::from_millis(100);
/// Pods that are made and not bound, at most, with `--curve`.
const AHEAD_MAX: usize = 1_000;
/// Parts that `--curve` tells of.
const SLICES: usize = 10;
/// Longer than any run.
const LEASE_SECONDS: u32 = 24 * 60 * 60;
const METADATA_ONLY: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
const PODS: &str = "/api/v1/namespaces/default/pods";
const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";

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
    /// Nodes are there; tell of each tenth of the pods, and of the memory of this process of the server
    #[arg(long, value_name = "PID")]
    curve: Option<u32>,
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

fn requests(cpu: &str, memory: &str) -> Value {
    json!([{"name": "pause", "image": "registry.k8s.io/pause:3.10",
        "resources": {"requests": {"cpu": cpu, "memory": memory}}}])
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
            Self::Preemption => {
                json!({"containers": requests("3", "500Mi"), "priorityClassName": "urgent"})
            }
        }
    }

    /// Pods that are there before, as many on each node.
    fn before(self) -> Option<(usize, Value)> {
        (self == Self::Preemption).then(|| (4, json!({"containers": requests("900m", "500Mi")})))
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
    if args.curve.is_none() {
        make(&client, LEASES, (0..args.nodes).map(lease)).await?;
        make(&client, "/api/v1/nodes", (0..args.nodes).map(node)).await?;
    }
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
    if let Some((each, spec)) = args.case.before() {
        let run = Run::new("before", args.nodes * each, None);
        run.drive(&client, &spec).await?;
    }
    let mut spec = args.case.spec();
    if args.curve.is_some() {
        spec["containers"] = requests("10m", "10Mi");
    }
    let run = Run::new("measured", args.pods, args.curve);
    let begun = Instant::now();
    let made = run.drive(&client, &spec).await?;
    let bound = run.bound.into_inner();
    let took = bound.last().map_or(Duration::ZERO, |last| *last - begun);
    let half = bound.get(args.pods / 2).map_or(took, |half| *half - begun);
    let document = json!({
        "nodes": args.nodes, "pods": args.pods,
        "seconds": took.as_secs_f64(),
        "made_seconds": made.as_secs_f64(),
        "binds_per_second": rate(args.pods, took),
        "last_half_per_second": rate(args.pods - args.pods / 2, took.saturating_sub(half)),
        "curve": args.curve.map(|_| run.slices.into_inner()),
    });
    println!("{document}");
    Ok(())
}

#[allow(clippy::cast_precision_loss)]
fn rate(pods: usize, took: Duration) -> f64 {
    pods as f64 / took.as_secs_f64()
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

fn lease(number: usize) -> Value {
    let name = format!("node-{number}");
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%6fZ");
    json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": name, "namespace": "kube-node-lease"},
        "spec": {"holderIdentity": name, "leaseDurationSeconds": LEASE_SECONDS, "renewTime": now.to_string()},
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

/// Pods of one label, on their way to nodes.
struct Run {
    label: &'static str,
    count: usize,
    /// Whose memory is told.
    server: Option<u32>,
    /// When each was sent.
    sent: RefCell<Vec<Instant>>,
    /// When one more was seen to be bound.
    bound: RefCell<Vec<Instant>>,
    ahead: Semaphore,
    slices: RefCell<Vec<Value>>,
}

impl Run {
    fn new(label: &'static str, count: usize, server: Option<u32>) -> Self {
        let ahead = if server.is_some() { AHEAD_MAX } else { count };
        Self {
            label,
            count,
            server,
            sent: RefCell::new(vec![Instant::now(); count]),
            bound: RefCell::new(Vec::with_capacity(count)),
            ahead: Semaphore::new(ahead),
            slices: RefCell::new(Vec::new()),
        }
    }

    /// Makes the pods, and waits until all of them have a node; how long it took to make them.
    async fn drive(&self, client: &kube::Client, spec: &Value) -> Result<Duration> {
        let lines = self.watch(client).await?;
        let begun = Instant::now();
        let made = async {
            self.make(client, spec).await?;
            Ok::<Duration, anyhow::Error>(begun.elapsed())
        };
        let (made, ()) = tokio::try_join!(made, self.follow(client, lines))?;
        Ok(made)
    }

    async fn make(&self, client: &kube::Client, spec: &Value) -> Result<()> {
        let made = futures::stream::iter(0..self.count).map(|number| async move {
            // Given back by whoever sees it bound.
            self.ahead.acquire().await?.forget();
            let name = format!("{}-{number}", self.label);
            let body = pod(&name, self.label, spec.clone()).to_string();
            if let Some(sent) = self.sent.borrow_mut().get_mut(number) {
                *sent = Instant::now();
            }
            let request = Request::post(PODS).header("content-type", "application/json");
            let request = request.body(body.into_bytes())?;
            client.request::<Value>(request).await?;
            Ok::<(), anyhow::Error>(())
        });
        let mut made = made.buffer_unordered(SIDE_BY_SIDE);
        while let Some(one) = made.next().await {
            one.context("making a pod")?;
        }
        Ok(())
    }

    /// Pods with a node, those that have one already first.
    async fn watch(
        &self,
        client: &kube::Client,
    ) -> Result<BoxStream<'static, std::io::Result<String>>> {
        let path = format!(
            "/api/v1/pods?watch=true&labelSelector=bench%3D{}&fieldSelector=spec.nodeName!%3D",
            self.label
        );
        let request = Request::get(path)
            .header("accept", METADATA_ONLY)
            .body(Vec::new())?;
        Ok(client.request_stream(request).await?.lines().boxed())
    }

    /// Sees each pod bound. A server lets a client go that falls behind: it looks again then.
    async fn follow(
        &self,
        client: &kube::Client,
        mut lines: BoxStream<'static, std::io::Result<String>>,
    ) -> Result<()> {
        let mut seen = BTreeSet::new();
        let mut waited: Vec<Duration> = Vec::new();
        let mut begun = Instant::now();
        let mut last = begun;
        while seen.len() < self.count {
            if last.elapsed() > PATIENCE {
                bail!(
                    "{} of {} pods have a node, and no more",
                    seen.len(),
                    self.count
                );
            }
            let Ok(line) = tokio::time::timeout(PATIENCE, lines.next()).await else {
                continue;
            };
            let Some(Ok(line)) = line else {
                tokio::time::sleep(PAUSE).await;
                lines = self.watch(client).await?;
                continue;
            };
            let event: Value = serde_json::from_str(&line)?;
            let name = event["object"]["metadata"]["name"].as_str();
            let number = name.and_then(|name| name.rsplit('-').next()?.parse::<usize>().ok());
            let Some(number) = number.filter(|number| seen.insert(*number)) else {
                continue;
            };
            last = Instant::now();
            self.bound.borrow_mut().push(last);
            self.ahead.add_permits(1);
            waited.extend(self.sent.borrow().get(number).map(Instant::elapsed));
            if let Some(server) = self.server
                && waited.len() >= self.count.div_ceil(SLICES)
            {
                let slice = slice(
                    seen.len(),
                    std::mem::take(&mut waited),
                    begun.elapsed(),
                    server,
                );
                self.slices.borrow_mut().push(slice);
                begun = Instant::now();
            }
        }
        Ok(())
    }
}

/// What is told of a part of the pods.
fn slice(bound: usize, mut waited: Vec<Duration>, took: Duration, server: u32) -> Value {
    waited.sort_unstable();
    let at = |part: usize| {
        let waited = waited.get(waited.len() * part / 100);
        waited.map(|waited| waited.as_secs_f64() * 1e3)
    };
    let status = std::fs::read_to_string(format!("/proc/{server}/status")).unwrap_or_default();
    let bytes = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
        Some(kib << 10)
    };
    let row = json!({
        "bound": bound,
        "binds_per_second": rate(waited.len(), took),
        "p50_ms": at(50), "p99_ms": at(99),
        "server_resident_bytes": bytes("VmRSS:"), "server_anonymous_bytes": bytes("RssAnon:"),
    });
    eprintln!("{row}");
    row
}
