//! What users notice of a cluster to which something happens, for `cargo xtask bench failures`. Told as a line of JSON.
//!
//! ```text
//! failures NAMESPACE GATEWAY PROCESS ROUNDS REQUESTS        Deployments `many` and `one` with their Services, a `weft up` behind that gateway
//! ```
//! A round: a node is killed; a node falls silent; `many` is rolled out again and again; node after node is drained. A node is killed by `SIGKILL`,
//! and silenced by `SIGSTOP`: its connections stay and say nothing, as those to a machine that is cut off. It is the node of `one`, which has one
//! replica, so that nobody else can answer. Measured are the times until `one` is answered again, and until `many` has all of its replicas
//! ready on other nodes, is answered, and nobody on the lost node is among its endpoints.
//!
//! Load is an open loop: [`RATE`] requests a second to `many`, whether they are answered or not, and whatever is no 200 has failed. A drain evicts
//! as `kubectl drain` does: all pods of a node, each again as long as the budget forbids it. After each part the cluster is whole again.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::api::{EvictParams, ListParams};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use weft::kubeconfig::ClientArgs;

/// Requests a second.
const RATE: u32 = 500;
/// Requests that wait for their answer; one more is not sent, and has failed.
const IN_FLIGHT_MAX: usize = 2_000;
/// How long a request of the load may take.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// How long one may take by which somebody looks whether a Service is answered: a silent node's gateway takes connections, too.
const LOOK_MAX: Duration = Duration::from_millis(500);
/// How often that is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(25);
/// How often an eviction that a budget forbids is asked for again.
const EVICT_EVERY: Duration = Duration::from_millis(100);
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(120);

const MANY: &str = "many";
const ONE: &str = "one";

type Http = Client<HttpConnector, Empty<Bytes>>;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Loss {
    Killed,
    Silent,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Change {
    Rolling,
    Drain,
}

fn main() -> Result<()> {
    // Of the two that could be compiled in; a program chooses once.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [namespace, gateway, process, rounds, requests] = &words[..] else {
        bail!("see the first lines of this file for what can be asked");
    };
    let (rounds, requests) = (rounds.parse()?, requests.parse()?);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let told = runtime.block_on(async {
        let world = World::new(namespace, gateway, process.parse()?).await?;
        world.rounds(rounds, requests).await
    })?;
    println!("{told}");
    Ok(())
}

struct World {
    namespace: String,
    /// `ip:port`
    gateway: String,
    /// The `weft up` whose children the nodes are.
    process: u32,
    deployments: Api<Deployment>,
    pods: Api<Pod>,
    slices: Api<EndpointSlice>,
    nodes: Api<Node>,
    http: Http,
}

impl World {
    async fn new(namespace: &str, gateway: &str, process: u32) -> Result<Self> {
        let kubeconfig = std::env::var_os("WEFT_KUBECONFIG").map(Into::into);
        let client = ClientArgs { kubeconfig }.client().await?;
        Ok(Self {
            namespace: namespace.to_owned(),
            gateway: gateway.to_owned(),
            process,
            deployments: Api::namespaced(client.clone(), namespace),
            pods: Api::namespaced(client.clone(), namespace),
            slices: Api::namespaced(client.clone(), namespace),
            nodes: Api::all(client),
            http: Client::builder(TokioExecutor::new()).build_http(),
        })
    }

    async fn rounds(&self, rounds: usize, requests: u64) -> Result<Value> {
        let mut losses = [Vec::new(), Vec::new()];
        let mut changes = [Load::default(), Load::default()];
        for _ in 0..rounds {
            for (loss, seen) in [Loss::Killed, Loss::Silent].into_iter().zip(&mut losses) {
                seen.push(self.lose(loss).await?);
            }
            let share = requests.div_ceil(rounds as u64);
            for (change, seen) in [Change::Rolling, Change::Drain]
                .into_iter()
                .zip(&mut changes)
            {
                seen.add(self.change(change, share).await?);
            }
        }
        let [killed, silent] = losses.map(|seen| quantiles_of(&seen));
        let [rolling, drain] = changes.map(|seen| seen.told());
        Ok(
            json!({"rounds": rounds, "killed": killed, "silent": silent, "rolling": rolling, "drain": drain}),
        )
    }

    /// Seconds until `one` is answered again, and until all of `many` is on other nodes.
    async fn lose(&self, loss: Loss) -> Result<[f64; 2]> {
        self.is_whole().await?;
        let victim = self.ready(ONE).await?;
        let victim = victim.first().context("nobody serves `one`")?;
        let process = self.node_process(victim)?;
        let replicas = self.ready(MANY).await?.len();
        let signal = match loss {
            Loss::Killed => Signal::SIGKILL,
            Loss::Silent => Signal::SIGSTOP,
        };
        kill(process, signal).with_context(|| format!("signalling {victim}"))?;
        let begun = Instant::now();
        let answered = async {
            until("`one` is answered", async || Ok(self.answers(ONE).await)).await?;
            anyhow::Ok(begun.elapsed().as_secs_f64())
        };
        let moved =
            async {
                until("`many` serves elsewhere", async || {
                    let ready = self.ready(MANY).await?;
                    let elsewhere = ready.iter().filter(|node| *node != victim).count();
                    let endpoints = self.endpoints(MANY).await?;
                    Ok(elsewhere >= replicas
                        && !endpoints.contains(victim)
                        && self.answers(MANY).await)
                })
                .await?;
                anyhow::Ok(begun.elapsed().as_secs_f64())
            };
        let seen = tokio::try_join!(answered, moved);
        if loss == Loss::Silent {
            kill(process, Signal::SIGCONT)?;
        }
        let (answered, moved) = seen?;
        // It was not away only for somebody who looked too late.
        let still = self.ready(ONE).await?;
        ensure!(!still.contains(victim), "{victim} was lost and serves");
        self.is_whole().await?;
        Ok([answered, moved])
    }

    /// So many requests while `many` is rolled out anew, or one node after the other is drained.
    async fn change(&self, change: Change, requests: u64) -> Result<Load> {
        self.is_whole().await?;
        let is_over = Cell::new(false);
        let sending = async {
            let answers = send(self.http.clone(), self.uri(MANY)?, requests).await;
            is_over.set(true);
            answers
        };
        let changing = async {
            let mut changes = 0;
            // What was begun is brought to its end, so that the next part finds the cluster whole.
            while !is_over.get() {
                match change {
                    Change::Rolling => self.roll().await?,
                    Change::Drain => self.drain(changes).await?,
                }
                changes += 1;
            }
            anyhow::Ok(changes)
        };
        let (answers, changes) = tokio::try_join!(sending, changing)?;
        Ok(Load { changes, answers })
    }

    /// Rolls `many` out once more, as `kubectl rollout restart` does.
    async fn roll(&self) -> Result<()> {
        let restarted = self.deployments.restart(MANY).await;
        restarted.context("rolling out")?;
        self.is_rolled_out(MANY).await
    }

    /// Drains one node, and gives it back once nothing is left there.
    async fn drain(&self, number: usize) -> Result<()> {
        let nodes = self.nodes.list(&ListParams::default()).await?.items;
        let node = nodes.get(number % nodes.len().max(1));
        let node = node.and_then(|node| node.metadata.name.as_deref());
        let node = node.context("a node without a name")?;
        self.nodes.cordon(node).await?;
        until("the node is empty", async || {
            let on_it = ListParams::default().fields(&format!("spec.nodeName={node}"));
            let pods = self.pods.list(&on_it).await?.items;
            for pod in &pods {
                let name = pod.metadata.name.as_deref().unwrap_or_default();
                if pod.metadata.deletion_timestamp.is_some() {
                    continue;
                }
                match self.pods.evict(name, &EvictParams::default()).await {
                    Ok(_) => {}
                    // The budget forbids it as yet; or it is gone.
                    Err(kube::Error::Api(status)) if matches!(status.code, 404 | 429) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            if !pods.is_empty() {
                tokio::time::sleep(EVICT_EVERY).await;
            }
            Ok(pods.is_empty())
        })
        .await?;
        self.nodes.uncordon(node).await?;
        Ok(())
    }

    /// Every node is ready, and every Deployment rolled out and answered.
    async fn is_whole(&self) -> Result<()> {
        until("every node is ready", async || {
            let nodes = self.nodes.list(&ListParams::default()).await?.items;
            let is_ready = |node: &Node| {
                let status = node.status.as_ref();
                let conditions = status.and_then(|status| status.conditions.as_ref());
                let mut conditions = conditions.into_iter().flatten();
                let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_ref());
                let is_tainted = taints.is_some_and(|taints| !taints.is_empty());
                !is_tainted && conditions.any(|one| one.type_ == "Ready" && one.status == "True")
            };
            Ok(nodes.iter().all(is_ready))
        })
        .await?;
        for deployment in [MANY, ONE] {
            self.is_rolled_out(deployment).await?;
            until("it is answered", async || {
                Ok(self.answers(deployment).await)
            })
            .await?;
        }
        Ok(())
    }

    async fn is_rolled_out(&self, name: &str) -> Result<()> {
        until("the Deployment is rolled out", async || {
            let found = self.deployments.get(name).await?;
            let wanted = found.spec.replicas;
            let status = found.status.context("no status yet")?;
            let counts = [
                status.replicas,
                status.updated_replicas,
                status.available_replicas,
            ];
            Ok(status.observed_generation == found.metadata.generation
                && counts.iter().all(|count| *count == wanted))
        })
        .await
    }

    /// The nodes of a Deployment's pods that are ready and stay.
    async fn ready(&self, deployment: &str) -> Result<Vec<String>> {
        let chosen = ListParams::default().labels(&format!("app={deployment}"));
        let stays = |pod: Pod| {
            let status = pod.status?;
            let mut conditions = status.conditions.into_iter().flatten();
            let is_ready = conditions.any(|one| one.type_ == "Ready" && one.status == "True");
            let stays = is_ready && pod.metadata.deletion_timestamp.is_none();
            pod.spec?.node_name.filter(|_| stays)
        };
        let pods = self.pods.list(&chosen).await?.items;
        Ok(pods.into_iter().filter_map(stays).collect())
    }

    /// The nodes that calls of a Service are sent to.
    async fn endpoints(&self, service: &str) -> Result<Vec<String>> {
        let chosen = format!("kubernetes.io/service-name={service}");
        let slices = self
            .slices
            .list(&ListParams::default().labels(&chosen))
            .await?;
        let endpoints = slices.items.into_iter().filter_map(|slice| slice.endpoints);
        let endpoints = endpoints.flatten();
        let serving = endpoints.filter(|endpoint| {
            let conditions = endpoint.conditions.as_ref();
            conditions.and_then(|conditions| conditions.ready) != Some(false)
        });
        Ok(serving.filter_map(|endpoint| endpoint.node_name).collect())
    }

    async fn answers(&self, service: &str) -> bool {
        // A connection of its own each time, as a client has that was not there before.
        let http: Http = Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(0)
            .build_http();
        let Ok(uri) = self.uri(service) else {
            return false;
        };
        let answer = tokio::time::timeout(LOOK_MAX, get(&http, &uri)).await;
        matches!(answer, Ok(Ok(200)))
    }

    /// Names under `.localhost` are this machine, which not every resolver knows: the gateway is told who is meant by its port.
    fn uri(&self, service: &str) -> Result<Target> {
        Ok(Target {
            uri: format!("http://{}/hello", self.gateway).parse()?,
            host: format!("{service}.{}.localhost", self.namespace).parse()?,
        })
    }

    /// The process of a node, by its command line.
    fn node_process(&self, name: &str) -> Result<Pid> {
        let own = format!("PPid:\t{}", self.process);
        let processes = std::fs::read_dir("/proc")?.flatten();
        let is_it = |pid: &u32| {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status"));
            let is_child = status.is_ok_and(|status| status.lines().any(|line| line == own));
            let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let words: Vec<&[u8]> = words.split(|byte| *byte == 0).collect();
            let named = [b"--name".as_slice(), name.as_bytes()];
            is_child && words.windows(2).any(|pair| pair == named)
        };
        let mut ids = processes.filter_map(|process| process.file_name().to_str()?.parse().ok());
        let id: u32 = ids
            .find(is_it)
            .with_context(|| format!("{} has no process of {name}", self.process))?;
        Ok(Pid::from_raw(i32::try_from(id)?))
    }
}

/// Where a request goes, and for whom it is.
#[derive(Clone)]
struct Target {
    uri: http::Uri,
    host: http::HeaderValue,
}

async fn get(http: &Http, target: &Target) -> Result<u16> {
    let mut request = http::Request::get(target.uri.clone()).body(Empty::new())?;
    let headers = request.headers_mut();
    headers.insert(http::header::HOST, target.host.clone());
    let response = http.request(request).await?;
    let status = response.status().as_u16();
    response.into_body().collect().await?;
    Ok(status)
}

/// What requests were answered while something changed.
#[derive(Default)]
struct Load {
    /// Rollouts, or drained nodes.
    changes: usize,
    /// How many were answered how.
    answers: BTreeMap<String, u64>,
}

impl Load {
    fn add(&mut self, other: Self) {
        self.changes += other.changes;
        for (answer, count) in other.answers {
            *self.answers.entry(answer).or_default() += count;
        }
    }

    fn told(&self) -> Value {
        let requests: u64 = self.answers.values().sum();
        let failed = requests - self.answers.get("200").copied().unwrap_or_default();
        json!({"changes": self.changes, "requests": requests, "failed": failed, "answers": self.answers})
    }
}

/// So many requests, [`RATE`] a second.
async fn send(http: Http, target: Target, requests: u64) -> Result<BTreeMap<String, u64>> {
    let places = Arc::new(Semaphore::new(IN_FLIGHT_MAX));
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / RATE);
    let mut sent = JoinSet::new();
    let mut answers = BTreeMap::new();
    let mut count = |answer: String| *answers.entry(answer).or_default() += 1;
    for _ in 0..requests {
        ticks.tick().await;
        match places.clone().try_acquire_owned() {
            Err(_) => count("not sent".to_owned()),
            Ok(place) => {
                let (http, target) = (http.clone(), target.clone());
                sent.spawn(async move {
                    let _place = place;
                    match tokio::time::timeout(ANSWER_MAX, get(&http, &target)).await {
                        Ok(Ok(status)) => status.to_string(),
                        Ok(Err(error)) => format!("{error:#}"),
                        Err(_) => "no answer in time".to_owned(),
                    }
                });
            }
        }
        while let Some(answer) = sent.try_join_next() {
            count(answer?);
        }
    }
    while let Some(answer) = sent.join_next().await {
        count(answer?);
    }
    Ok(answers)
}

async fn until(what: &str, mut is_so: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
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

/// Of the two times of each loss.
fn quantiles_of(seen: &[[f64; 2]]) -> Value {
    let of = |which: usize| {
        let mut all: Vec<f64> = seen.iter().map(|times| times[which]).collect();
        all.sort_by(f64::total_cmp);
        let middle = all.get(all.len().saturating_sub(1) / 2);
        json!({"p50": middle, "max": all.last(), "all": all})
    };
    json!({"answered_seconds": of(0), "replaced_seconds": of(1)})
}
