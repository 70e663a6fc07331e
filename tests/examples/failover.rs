//! What calls notice of a node that is lost, and of what is done to a cluster on purpose: three servers, five nodes, one service on all of them.
//!
//! ```text
//! failover killed|silent [--trials N]          from the loss of a node to as many ready pods as before, all on others, and an answer of the service
//! failover rolling|drain [--requests N]        500 requests a second through the gateway meanwhile: how many failed
//! ```
//! A node is lost by `kill -9`, or falls silent: it is stopped (`SIGSTOP`), so that its connections stay and say nothing, as those to a
//! machine that is cut off. Each run prints one line of JSON. `weft up` runs all of it on this machine; a node that comes back is waited for.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use clap::{Parser, ValueEnum};
use http_body_util::{BodyExt as _, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Api;
use kube::api::{EvictParams, ListParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use weft_tests::cluster::{Cluster, success};

#[derive(Parser)]
struct Args {
    what: What,
    #[arg(long, default_value_t = 5)]
    trials: usize,
    #[arg(long, default_value_t = 100_000)]
    requests: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    Killed,
    Silent,
    Rolling,
    Drain,
}

const NODES: u16 = 5;
const REPLICAS: usize = 10;
const HOST: &str = "probe.default.localhost";
/// Requests a second.
const RATE: u64 = 500;
/// Requests that wait for their answer; beyond that the load is not what it is said to be.
const IN_FLIGHT_MAX: usize = 2000;
const REQUEST_MAX: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(120);
const LOOK_EVERY: Duration = Duration::from_millis(50);

type Http = Client<HttpConnector, Empty<Bytes>>;

#[tokio::main(worker_threads = 2)]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    // The one provider of this process: nobody else can have installed another.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let world = World::start().await?;
    let told = match args.what {
        What::Killed | What::Silent => world.lose(args.what, args.trials).await?,
        What::Rolling | What::Drain => world.under_load(args.what, args.requests).await?,
    };
    println!("{told}");
    Ok(())
}

struct World {
    cluster: Cluster,
    pods: Api<Pod>,
    nodes: Api<Node>,
    http: Http,
}

fn manifest(image: &str) -> String {
    format!(
        r"
apiVersion: apps/v1
kind: Deployment
metadata: {{name: probe, namespace: default}}
spec:
  replicas: {REPLICAS}
  strategy: {{rollingUpdate: {{maxSurge: 2, maxUnavailable: 0}}}}
  selector: {{matchLabels: {{app: probe}}}}
  template:
    metadata: {{labels: {{app: probe}}}}
    spec:
      topologySpreadConstraints:
      - {{maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: ScheduleAnyway, labelSelector: {{matchLabels: {{app: probe}}}}}}
      containers:
      - name: probe
        image: {image}
        ports: [{{containerPort: 8080}}]
        readinessProbe: {{httpGet: {{path: /hello, port: 8080}}, periodSeconds: 1}}
---
apiVersion: v1
kind: Service
metadata: {{name: probe, namespace: default}}
spec: {{selector: {{app: probe}}, ports: [{{port: 80, targetPort: 8080}}]}}
"
    )
}

impl World {
    async fn start() -> anyhow::Result<Self> {
        let cluster = Cluster::start_with(NODES, &["--servers", "3"])?;
        cluster.push("probe", "probe:1")?;
        cluster.push("probe", "probe:2")?;
        let kubeconfig = Kubeconfig::read_from(&cluster.kubeconfig)?;
        let options = KubeConfigOptions::default();
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await?;
        let client = kube::Client::try_from(config)?;
        let world = Self {
            cluster,
            pods: Api::namespaced(client.clone(), "default"),
            nodes: Api::all(client),
            http: Client::builder(TokioExecutor::new()).build_http(),
        };
        world.apply("probe:1")?;
        world.rolled_out().await?;
        Ok(world)
    }

    fn apply(&self, image: &str) -> anyhow::Result<()> {
        let path = self.cluster.data_dir().join("failover.yaml");
        std::fs::write(&path, manifest(image))?;
        let path = path.display().to_string();
        success(self.cluster.weft(&["apply", "-f", &path])?).map(drop)
    }

    async fn rolled_out(&self) -> anyhow::Result<()> {
        until("the Deployment is rolled out", async || {
            let text = self
                .cluster
                .weft(&["get", "deployment", "probe", "-o", "json"])?;
            let found: Value = serde_json::from_str(&success(text)?)?;
            let status = &found["status"];
            let counts = ["replicas", "updatedReplicas", "availableReplicas"];
            let mut counts = counts.iter().map(|count| status[count].as_u64());
            Ok(
                status["observedGeneration"] == found["metadata"]["generation"]
                    && counts.all(|count| count == Some(REPLICAS as u64)),
            )
        })
        .await
        .map(drop)
    }

    /// Nodes of pods that are ready and stay.
    async fn serving(&self) -> anyhow::Result<Vec<String>> {
        let list = self.pods.list(&ListParams::default().labels("app=probe"));
        let ready = |pod: &Pod| {
            let conditions = pod.status.as_ref()?.conditions.as_ref()?;
            let is_ready = conditions
                .iter()
                .any(|one| one.type_ == "Ready" && one.status == "True");
            let stays = is_ready && pod.metadata.deletion_timestamp.is_none();
            pod.spec.as_ref()?.node_name.clone().filter(|_| stays)
        };
        Ok(list.await?.items.iter().filter_map(ready).collect())
    }

    async fn answers(&self) -> bool {
        matches!(self.get().await, Ok(200))
    }

    async fn get(&self) -> anyhow::Result<u16> {
        get(&self.http, &self.cluster.gateway).await
    }

    /// Loses one node after the other, and has each back before the next.
    async fn lose(&self, how: What, trials: usize) -> anyhow::Result<Value> {
        let (signal, name) = match how {
            What::Silent => ("-STOP", "silent"),
            _ => ("-KILL", "killed"),
        };
        let mut seconds = Vec::new();
        for _ in 0..trials {
            let victim = self.serving().await?.pop().context("nobody serves")?;
            let process = self.cluster.node_process(&victim)?;
            send(signal, process)?;
            let begun = Instant::now();
            until("its pods serve elsewhere", async || {
                let serving = self.serving().await?;
                let elsewhere = serving.iter().filter(|node| **node != victim).count();
                Ok(elsewhere >= REPLICAS && self.answers().await)
            })
            .await?;
            seconds.push(begun.elapsed().as_secs_f64());
            if how == What::Silent {
                send("-CONT", process)?;
            }
            until("the node is back", async || {
                Ok(self.ready_nodes().await? == usize::from(NODES))
            })
            .await?;
            self.rolled_out().await?;
        }
        seconds.sort_by(f64::total_cmp);
        Ok(json!({
            "what": name, "trials": seconds,
            "median_seconds": seconds.get(seconds.len() / 2), "longest_seconds": seconds.last(),
        }))
    }

    async fn ready_nodes(&self) -> anyhow::Result<usize> {
        let nodes = self.nodes.list(&ListParams::default()).await?;
        let is_ready = |node: &&Node| {
            let conditions = node.status.as_ref().and_then(|one| one.conditions.as_ref());
            let mut conditions = conditions.into_iter().flatten();
            conditions.any(|one| one.type_ == "Ready" && one.status == "True")
        };
        Ok(nodes.items.iter().filter(is_ready).count())
    }

    /// Sends requests at a steady rate while the Deployment is rolled out anew, or one node after the other is drained.
    async fn under_load(&self, what: What, requests: u64) -> anyhow::Result<Value> {
        let sending = tokio::spawn(load(
            self.http.clone(),
            self.cluster.gateway.clone(),
            requests,
        ));
        let mut rounds = 0_usize;
        while !sending.is_finished() {
            if what == What::Rolling {
                self.apply(["probe:2", "probe:1"][rounds % 2])?;
            } else {
                let nodes = self.nodes.list(&ListParams::default()).await?.items;
                let node = nodes.get(rounds % nodes.len().max(1));
                let node = node.and_then(|node| node.metadata.name.clone());
                self.drain(&node.context("a node's name")?).await?;
            }
            self.rolled_out().await?;
            rounds += 1;
        }
        let answers = sending.await??;
        let total: u64 = answers.values().sum();
        let failed = total - answers.get("200").copied().unwrap_or(0);
        let name = if what == What::Rolling {
            "rolling"
        } else {
            "drain"
        };
        Ok(json!({
            "what": name, "rounds": rounds, "requests": total, "failed": failed, "answers": answers,
        }))
    }

    async fn drain(&self, node: &str) -> anyhow::Result<()> {
        self.nodes.cordon(node).await?;
        let on_it = ListParams::default().fields(&format!("spec.nodeName={node}"));
        for pod in self.pods.list(&on_it).await?.items {
            let name = pod.metadata.name.unwrap_or_default();
            self.pods.evict(&name, &EvictParams::default()).await?;
            // As `kubectl drain` with a budget would have it: the next once there are as many as before.
            self.rolled_out().await?;
        }
        self.nodes.uncordon(node).await?;
        Ok(())
    }
}

fn send(signal: &str, process: u32) -> anyhow::Result<()> {
    let sent = Command::new("kill")
        .args([signal, &process.to_string()])
        .status()?;
    ensure!(sent.success(), "there is no process {process}");
    Ok(())
}

async fn until(
    what: &str,
    mut is_so: impl AsyncFnMut() -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    let begun = Instant::now();
    loop {
        match is_so().await {
            Ok(true) => return Ok(()),
            Err(error) if begun.elapsed() > PATIENCE => return Err(error.context(what.to_owned())),
            _ => ensure!(
                begun.elapsed() <= PATIENCE,
                "{what}: not so after {PATIENCE:?}"
            ),
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn get(http: &Http, gateway: &str) -> anyhow::Result<u16> {
    let request = http::Request::get(format!("{gateway}/hello"))
        .header(http::header::HOST, HOST)
        .body(Empty::new())?;
    let exchange = async {
        let response = http.request(request).await?;
        let status = response.status().as_u16();
        response.into_body().collect().await?;
        anyhow::Ok(status)
    };
    tokio::time::timeout(REQUEST_MAX, exchange).await?
}

/// So many requests, [`RATE`] a second, whether they are answered or not; how many got which answer.
async fn load(http: Http, gateway: String, requests: u64) -> anyhow::Result<BTreeMap<String, u64>> {
    let places = Arc::new(Semaphore::new(IN_FLIGHT_MAX));
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / u32::try_from(RATE)?);
    let mut sent = JoinSet::new();
    let mut answers = BTreeMap::new();
    for _ in 0..requests {
        ticks.tick().await;
        let place = places.clone().try_acquire_owned();
        let place = place.context("too many requests wait for their answer")?;
        let (http, gateway) = (http.clone(), gateway.clone());
        sent.spawn(async move {
            let _place = place;
            match get(&http, &gateway).await {
                Ok(status) => status.to_string(),
                Err(error) => format!("{error:#}"),
            }
        });
        while let Some(answer) = sent.try_join_next() {
            *answers.entry(answer?).or_default() += 1;
        }
    }
    while let Some(answer) = sent.join_next().await {
        *answers.entry(answer?).or_default() += 1;
    }
    Ok(answers)
}
