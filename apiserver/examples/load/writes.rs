//! Writes: pods made by few and many clients, server-side apply, and custom objects that rules judge.
//!
//! Each client has a connection of its own and waits for an answer before it asks again; a rate is what all of them had answered in the
//! time, and a percentile is of single requests. What is made stays in a namespace of its own, so that lists of the other parts are the same.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::client::{Client, Pool};
use crate::process::{self, Measured};
use crate::wire::Wire;
use crate::{Effort, Error, at, milliseconds, pod as a_pod, pod_text};

/// Clients that write at once, in turn.
const CLIENTS: [usize; 3] = [1, 16, 128];
/// Those of what is applied and of custom objects.
const SOME: usize = 16;
/// Objects that are applied over and over.
const APPLIED: usize = 200;
/// How long a definition may take until it is served.
const SERVED_MAX: Duration = Duration::from_secs(30);

/// Where pods are made, and on how many nodes.
const PODS_MADE: &str = "/api/v1/namespaces/bench-writes/pods";
const NODES: usize = 50;

const WIDGETS: &str = "/apis/bench.example.com/v1/namespaces/bench-writes/widgets";

/// All of it.
pub async fn measure(pool: &Pool, server: &Measured, effort: Effort) -> Result<Value, Error> {
    let client = pool.connect().await?;
    let namespace =
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "bench-writes"}});
    client.create("/api/v1/namespaces", &namespace).await?;
    let seconds = Duration::from_secs_f64(effort.seconds / 2.0);
    let mut creates = Vec::new();
    for clients in CLIENTS {
        creates.push(made(pool, server, clients, seconds).await?);
    }
    Ok(json!({
        "creates": creates,
        "applies": applies(pool, server, seconds).await?,
        "custom": custom(pool, server, effort).await?,
    }))
}

/// Pods made in a time by so many connections, on a thread of its own that does nothing else.
async fn made(
    pool: &Pool,
    server: &Measured,
    clients: usize,
    time: Duration,
) -> Result<Value, Error> {
    let name = |number: usize| format!("made-{clients}-{number}");
    let mut pod = a_pod(CLIENTS[2], NODES);
    pod["metadata"]["name"] = name(0).into();
    if pod != serde_json::from_str::<Value>(&pod_text(&name(0), CLIENTS[2], NODES))? {
        return Err("the pods that are made are others than those of the other parts".into());
    }
    let (server_cpu, own_cpu) = (server.cpu()?, process::own_cpu()?);
    let pool = pool.clone();
    let making = tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(make(&pool, clients, time))
    });
    let (times, elapsed) = making.await??;
    let count = times.len();
    let each = |cpu: f64| cpu * 1e6 / count.max(1) as f64;
    Ok(json!({
        "clients": clients,
        "per_second": count as f64 / elapsed.as_secs_f64(),
        "p50_ms": milliseconds(at(times.clone(), 0.5)),
        "p99_ms": milliseconds(at(times, 0.99)),
        "server_cpu_us_each": each(server.cpu()? - server_cpu),
        "clients_cpu_us_each": each(process::own_cpu()? - own_cpu),
    }))
}

async fn make(
    pool: &Pool,
    clients: usize,
    time: Duration,
) -> Result<(Vec<Duration>, Duration), Error> {
    let mut wires = Vec::new();
    for _ in 0..clients {
        wires.push(Wire::open(pool, PODS_MADE).await?);
    }
    let next = Arc::new(AtomicUsize::new(0));
    let mut running = JoinSet::new();
    let start = Instant::now();
    for mut wire in wires {
        let next = Arc::clone(&next);
        running.spawn(async move {
            let mut times = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let name = format!("made-{clients}-{number}");
                let pod = pod_text(&name, number, NODES);
                let begun = Instant::now();
                if begun.duration_since(start) >= time {
                    return Ok::<_, Error>(times);
                }
                wire.create(pod.as_bytes()).await?;
                times.push(begun.elapsed());
            }
        });
    }
    let mut times = Vec::new();
    while let Some(done) = running.join_next().await {
        times.extend(done??);
    }
    Ok((times, start.elapsed()))
}

/// What `clients` get done in a time, each asking one thing after the other.
async fn rate<F, Done>(
    pool: &Pool,
    server: &Measured,
    clients: usize,
    time: Duration,
    ask: F,
) -> Result<Value, Error>
where
    F: Fn(Client, usize) -> Done + Clone + Send + 'static,
    Done: Future<Output = Result<(), Error>> + Send,
{
    let mut connected = Vec::new();
    for _ in 0..clients {
        connected.push(pool.connect().await?);
    }
    let next = Arc::new(AtomicUsize::new(0));
    let mut running = JoinSet::new();
    let cpu = server.cpu()?;
    let start = Instant::now();
    for client in connected {
        let (next, ask) = (Arc::clone(&next), ask.clone());
        running.spawn(async move {
            let mut times = Vec::new();
            loop {
                let begun = Instant::now();
                if begun.duration_since(start) >= time {
                    return Ok::<_, Error>(times);
                }
                ask(client.clone(), next.fetch_add(1, Ordering::Relaxed)).await?;
                times.push(begun.elapsed());
            }
        });
    }
    let mut times = Vec::new();
    while let Some(done) = running.join_next().await {
        times.extend(done??);
    }
    let elapsed = start.elapsed().as_secs_f64();
    let count = times.len();
    Ok(json!({
        "clients": clients,
        "per_second": count as f64 / elapsed,
        "p50_ms": milliseconds(at(times.clone(), 0.5)),
        "p99_ms": milliseconds(at(times, 0.99)),
        "server_cpu_us_each": (server.cpu()? - cpu) * 1e6 / count.max(1) as f64,
    }))
}

/// Deployments that two managers apply by turns, each its own fields: every one is merged, and changes something.
async fn applies(pool: &Pool, server: &Measured, time: Duration) -> Result<Value, Error> {
    rate(pool, server, SOME, time, |client, number| async move {
        let (name, turn) = (format!("web-{}", number % APPLIED), number / APPLIED);
        let path = format!("/apis/apps/v1/namespaces/bench-writes/deployments/{name}");
        let mut object = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}});
        if turn % 2 == 0 {
            object["spec"] = json!({
                "selector": {"matchLabels": {"app": "web"}},
                "template": {
                    "metadata": {"labels": {"app": "web"}, "annotations": {"bench/turn": turn.to_string()}},
                    "spec": {"containers": [{
                        "name": "app", "image": "registry.example/web:v1",
                        "env": [{"name": "TURN", "value": turn.to_string()}, {"name": "LEVEL", "value": "info"}],
                        "ports": [{"containerPort": 8080}, {"containerPort": 9090}],
                    }]},
                },
            });
            return client.apply(&path, "deployer", &object).await;
        }
        object["spec"] = json!({"replicas": turn});
        client.apply(&path, "scaler", &object).await
    })
    .await
}

/// Objects of a definition with rules, made, changed (which asks the rules of both states), and listed.
async fn custom(pool: &Pool, server: &Measured, effort: Effort) -> Result<Value, Error> {
    let client = pool.connect().await?;
    let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    client.create(path, &definition()).await?;
    let asked = Instant::now();
    while client.get(WIDGETS).await.is_err() {
        if asked.elapsed() > SERVED_MAX {
            return Err("the definition is not served".into());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let served_after = asked.elapsed();
    let made = all(pool, server, effort.custom, |client, number| async move {
        client.create(WIDGETS, &widget(number, 1)).await
    });
    let made = made.await?;
    let changed = all(pool, server, effort.custom, |client, number| async move {
        let patch =
            json!({"spec": {"size": 2, "parts": widget(number, 2)["spec"]["parts"].clone()}});
        client
            .patch(&format!("{WIDGETS}/widget-{number:05}"), &patch)
            .await
    });
    let changed = changed.await?;
    let mut times = Vec::new();
    let bytes = client.drain(WIDGETS).await?;
    for _ in 0..effort.lists {
        let begun = Instant::now();
        if client.drain(WIDGETS).await? != bytes {
            return Err("two lists of one state differ in length".into());
        }
        times.push(begun.elapsed());
    }
    Ok(json!({
        "objects": effort.custom, "served_after_ms": milliseconds(served_after),
        "made": made, "changed": changed,
        "listed_ms": milliseconds(at(times, 0.5)), "listed_bytes": bytes,
    }))
}

/// As [`rate`], until so many things are done.
async fn all<F, Done>(pool: &Pool, server: &Measured, count: usize, ask: F) -> Result<Value, Error>
where
    F: Fn(Client, usize) -> Done + Clone + Send + 'static,
    Done: Future<Output = Result<(), Error>> + Send,
{
    let next = Arc::new(AtomicUsize::new(0));
    let mut running = JoinSet::new();
    let cpu = server.cpu()?;
    let start = Instant::now();
    for _ in 0..SOME {
        let (client, next, ask) = (pool.connect().await?, Arc::clone(&next), ask.clone());
        running.spawn(async move {
            let mut times = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    return Ok::<_, Error>(times);
                }
                let begun = Instant::now();
                ask(client.clone(), number).await?;
                times.push(begun.elapsed());
            }
        });
    }
    let mut times = Vec::new();
    while let Some(done) = running.join_next().await {
        times.extend(done??);
    }
    Ok(json!({
        "clients": SOME,
        "per_second": count as f64 / start.elapsed().as_secs_f64(),
        "p99_ms": milliseconds(at(times, 0.99)),
        "server_cpu_us_each": (server.cpu()? - cpu) * 1e6 / count.max(1) as f64,
    }))
}

fn widget(number: usize, size: usize) -> Value {
    let parts = (0..8).map(
        |part| json!({"name": format!("part-{part}"), "weight": part + size, "tags": ["a", "b"]}),
    );
    json!({
        "apiVersion": "bench.example.com/v1", "kind": "Widget",
        "metadata": {"name": format!("widget-{number:05}"), "labels": {"shelf": format!("s{}", number % 10)}},
        "spec": {"size": size, "owner": format!("team-{}", number % 10), "parts": parts.collect::<Vec<_>>()},
    })
}

/// A schema as published ones are: lists by key, patterns, rules over lists and over what was before.
fn definition() -> Value {
    let part = json!({
        "type": "object", "required": ["name"],
        "properties": {
            "name": {"type": "string", "maxLength": 63, "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"},
            "weight": {"type": "integer", "format": "int32", "minimum": 0, "default": 1},
            "tags": {"type": "array", "maxItems": 8, "items": {"type": "string", "maxLength": 32}},
        },
        "x-kubernetes-validations": [{"rule": "self.weight < 100 || self.name.startsWith('heavy-')", "message": "too heavy"}],
    });
    let spec = json!({
        "type": "object", "required": ["size", "owner"],
        "properties": {
            "size": {"type": "integer", "minimum": 1, "maximum": 100},
            "owner": {"type": "string", "maxLength": 63},
            "parts": {
                "type": "array", "maxItems": 16, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                "items": part,
            },
        },
        "x-kubernetes-validations": [
            {"rule": "self.owner == oldSelf.owner", "message": "owner is immutable"},
            {"rule": "self.size >= oldSelf.size || self.size == 1", "message": "grows, or begins anew"},
            {"rule": "self.parts.all(p, p.tags.all(t, t != p.name))", "message": "a tag is no name"},
            {"rule": "self.parts.map(p, p.weight).sum() <= 100 * self.size", "messageExpression": "self.size < 100 ? 'too heavy for its size' : 'too heavy'"},
        ],
    });
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.bench.example.com"},
        "spec": {
            "group": "bench.example.com", "scope": "Namespaced",
            "names": {"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList"},
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "required": ["spec"], "properties": {"spec": spec}}},
                "additionalPrinterColumns": [{"name": "Size", "type": "integer", "jsonPath": ".spec.size"}],
            }],
        },
    })
}
