//! Calls to a Deployment without a replica, for `cargo xtask bench wake`: how long each waits for its answer, and for what. Told as a line of JSON.
//!
//! ```text
//! wake NAMESPACE NAME GATEWAY ROUNDS        a Deployment, a Service and a HorizontalPodAutoscaler of that name, behind that gateway
//! ```
//! A round has the Deployment scaled to zero and its autoscaler believe that it did that; once nobody is behind the Service any more, a request is
//! sent over a connection that is open already. Stages are told by watches, so that each is the time at which a client hears of it. A round in which
//! the autoscaler was faster is made again. The kubeconfig is the one of `WEFT_KUBECONFIG`.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use futures::TryStreamExt as _;
use kube::api::{Api, ApiResource, DynamicObject, Patch, PatchParams, WatchEvent, WatchParams};
use kube::core::GroupVersionKind;
use serde_json::{Map, Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use weft::kubeconfig::ClientArgs;

/// Until statuses of the pod that went are through.
const SETTLE: Duration = Duration::from_millis(400);
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// Rounds that are made again because somebody else scaled meanwhile.
const SPOILT_MAX: usize = 1000;
/// Events that wait to be read.
const EVENTS_MAX: usize = 4096;

const STAGES: [&str; 7] = [
    "scaled",
    "set_scaled",
    "created",
    "bound",
    "started",
    "ready",
    "published",
];

fn main() -> Result<()> {
    // Of the two that could be compiled in; a program chooses once.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [namespace, name, gateway, rounds] = &words[..] else {
        bail!("see the first lines of this file for what can be asked");
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let told = runtime.block_on(wake(namespace, name, gateway, rounds.parse()?))?;
    println!("{told}");
    Ok(())
}

/// What a watch told, and when.
struct Told {
    at: Instant,
    kind: &'static str,
    is_there: bool,
    object: Value,
}

async fn wake(namespace: &str, name: &str, gateway: &str, rounds: usize) -> Result<Value> {
    let kubeconfig = std::env::var_os("WEFT_KUBECONFIG").map(Into::into);
    let client = ClientArgs { kubeconfig }.client().await?;
    let (sender, mut told) = mpsc::channel(EVENTS_MAX);
    let mut watches = JoinSet::new();
    for (group, version, kind) in [
        ("apps", "v1", "Deployment"),
        ("apps", "v1", "ReplicaSet"),
        ("", "v1", "Pod"),
        ("discovery.k8s.io", "v1", "EndpointSlice"),
    ] {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        let api = Api::namespaced_with(client.clone(), namespace, &resource);
        watches.spawn(follow(api, kind, sender.clone()));
    }
    let resource = |group: &str, kind: &str| {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, "v2", kind));
        Api::<DynamicObject>::namespaced_with(client.clone(), namespace, &resource)
    };
    let autoscalers = resource("autoscaling", "HorizontalPodAutoscaler");
    let apps = ApiResource::from_gvk(&GroupVersionKind::gvk("apps", "v1", "Deployment"));
    let deployments: Api<DynamicObject> = Api::namespaced_with(client, namespace, &apps);
    let host = format!("{name}.{namespace}.localhost");

    let mut state = State::default();
    let (mut answers, mut stages) = (Vec::new(), Map::new());
    let mut spoilt = 0;
    while answers.len() < rounds {
        let zero = json!({"spec": {"replicas": 0}});
        let merge = PatchParams::default();
        deployments
            .patch_scale(name, &merge, &Patch::Merge(&zero))
            .await
            .context("scaling to zero")?;
        let emptied = async {
            while !state.is_empty(name) {
                let told = told.recv().await.context("the watches ended")?;
                state.take(&told);
            }
            anyhow::Ok(())
        };
        tokio::time::timeout(PATIENCE, emptied)
            .await
            .context("the last pod does not go")??;
        let conditions = json!({"status": {"conditions": [{
            "type": "ScaledToZero", "status": "True", "reason": "ScaledToZero",
            "message": "the HPA controller scaled the workload to zero",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }]}});
        autoscalers
            .patch_status(name, &merge, &Patch::Merge(&conditions))
            .await
            .context("having the autoscaler believe it")?;
        let mut stream = BufReader::new(TcpStream::connect(gateway).await?);
        stream.get_ref().set_nodelay(true)?;
        tokio::time::sleep(SETTLE).await;
        while let Ok(told) = told.try_recv() {
            state.take(&told);
        }
        if !state.is_empty(name) || state.replicas != 0 {
            spoilt += 1;
            ensure!(spoilt < SPOILT_MAX, "somebody else scales it all the time");
            continue;
        }
        state.seen.clear();
        let request = format!("GET /hello HTTP/1.1\r\nHost: {host}\r\n\r\n");
        let begun = Instant::now();
        stream.get_mut().write_all(request.as_bytes()).await?;
        let mut line = String::new();
        let head = stream.read_line(&mut line);
        tokio::time::timeout(PATIENCE, head)
            .await
            .context("no answer")??;
        let took = begun.elapsed();
        ensure!(line.contains(" 200 "), "{}", line.trim_end());
        tokio::time::sleep(SETTLE).await;
        while let Ok(told) = told.try_recv() {
            state.take(&told);
        }
        answers.push(millis(took));
        for stage in STAGES {
            if let Some(at) = state.seen.get(stage) {
                let after = at.saturating_duration_since(begun);
                let all = stages.entry(stage).or_insert_with(|| json!([]));
                if let Some(all) = all.as_array_mut() {
                    all.push(json!(millis(after)));
                }
            }
        }
    }
    let stages: Map<String, Value> = stages
        .into_iter()
        .map(|(stage, all)| {
            let all = all.as_array().into_iter().flatten();
            let all = all.filter_map(Value::as_f64).collect();
            (stage, quantiles(all))
        })
        .collect();
    Ok(
        json!({"rounds": rounds, "made_again": spoilt, "answer_ms": quantiles(answers), "stages_ms": stages}),
    )
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn quantiles(mut all: Vec<f64>) -> Value {
    all.sort_by(f64::total_cmp);
    let at = |part: f64| {
        let index = (all.len().saturating_sub(1) as f64 * part).round() as usize;
        all.get(index).copied().unwrap_or_default()
    };
    json!({"p50": at(0.5), "p90": at(0.9), "p99": at(0.99), "max": at(1.0)})
}

/// What the watches have told so far.
#[derive(Default)]
struct State {
    replicas: i64,
    pods: std::collections::BTreeSet<String>,
    endpoints: std::collections::BTreeMap<String, usize>,
    /// When each stage was first seen, since that was last forgotten.
    seen: std::collections::BTreeMap<&'static str, Instant>,
}

impl State {
    /// Nobody is there, and nobody is behind the Service.
    fn is_empty(&self, name: &str) -> bool {
        let mut ours = self
            .endpoints
            .iter()
            .filter(|(slice, _)| slice.starts_with(name));
        self.pods.is_empty() && ours.all(|(_, endpoints)| *endpoints == 0)
    }

    fn take(&mut self, told: &Told) {
        let object = &told.object;
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let replicas = object["spec"]["replicas"].as_i64().unwrap_or_default();
        let mut saw = |stage: &'static str, is_so: bool| {
            if is_so {
                self.seen.entry(stage).or_insert(told.at);
            }
        };
        match told.kind {
            "Deployment" => {
                saw("scaled", replicas == 1);
                self.replicas = replicas;
            }
            "ReplicaSet" => saw("set_scaled", replicas == 1),
            "Pod" if told.is_there => {
                saw("created", true);
                saw("bound", object["spec"]["nodeName"].is_string());
                let conditions = object["status"]["conditions"].as_array();
                let holds = |kind: &str| {
                    conditions
                        .into_iter()
                        .flatten()
                        .any(|one| one["type"] == kind && one["status"] == "True")
                };
                saw("started", object["status"]["phase"] == "Running");
                saw("ready", holds("Ready"));
                self.pods.insert(name.to_owned());
            }
            "Pod" => {
                self.pods.remove(name);
            }
            _ => {
                let endpoints = object["endpoints"].as_array();
                let endpoints = endpoints.into_iter().flatten();
                let ready = endpoints
                    .clone()
                    .any(|one| one["conditions"]["ready"] == true);
                saw("published", ready);
                let count = if told.is_there { endpoints.count() } else { 0 };
                self.endpoints.insert(name.to_owned(), count);
            }
        }
    }
}

/// Tells what a watch tells, for ever.
async fn follow(api: Api<DynamicObject>, kind: &'static str, sender: mpsc::Sender<Told>) {
    loop {
        let Ok(events) = api.watch(&WatchParams::default(), "0").await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let mut events = std::pin::pin!(events);
        while let Ok(Some(event)) = events.try_next().await {
            let at = Instant::now();
            let (is_there, object) = match event {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => (true, object),
                WatchEvent::Deleted(object) => (false, object),
                WatchEvent::Bookmark(_) | WatchEvent::Error(_) => continue,
            };
            let Ok(object) = serde_json::to_value(&object) else {
                continue;
            };
            let told = Told {
                at,
                kind,
                is_there,
                object,
            };
            if sender.send(told).await.is_err() {
                return;
            }
        }
    }
}
