//! The API server under load: `cargo xtask bench api` runs it.
//!
//! `load --dir DIR [--quick]` starts this program once more as the server, over a store in DIR: what `weft server` serves,
//! without controllers and scheduler, which would act on what is written here. Then it is all the clients, over TLS and HTTP/2 on
//! loopback, and prints one line of JSON. Clients and server share the machine, and each of its processors. With `--pid PID --port PORT`
//! instead of `--dir` they ask another server, which is there already (kube-apiserver), the same; the CPU of the process that `--beside PID` names
//! (its etcd) is counted as the server's. `--only PART` leaves out the other parts.
//!
//! What is measured: lists of many pods, their pages, and the memory they take; thousands of watchers that each see one node's
//! pods, and what those cost that are not concerned; a thousand watchers of one object; lease renewals beside clients that
//! do nothing but list; what large values take that nobody asks for again; writes by few and many clients, server-side apply, custom objects
//! under rules; and the server when nobody asks anything. Only when asked for (`--only puts`): the store's bench
//! through the API. Every watcher checks what it is told: one event too
//! many or too few ends the run.

mod client;
#[path = "../../../store/examples/bench/pod.rs"]
mod pod;
mod process;
mod puts;
mod wire;
mod writes;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use base64::Engine as _;
use memchr::memmem;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use weft_apiserver::authn::StaticToken;
use weft_apiserver::ca::Authority;
use weft_apiserver::server::{self, Server};
use weft_store::Store;

use crate::client::{Client, Pool};
use crate::process::Measured;
use crate::wire::Watches;

/// As the product's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Error = Box<dyn std::error::Error + Send + Sync>;

const TOKEN: &str = "bench";
/// As `weft server` has for HTTP, and for raft.
const SERVER_THREADS: usize = 2;
const SERVER_EVENT_INTERVAL: u32 = 7;
const RAFT_THREADS: usize = 2;
const PODS: &str = "/api/v1/namespaces/bench/pods";
const MAPS: &str = "/api/v1/namespaces/bench/configmaps";
const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
/// Writers that fill the store.
const WRITERS: usize = 64;
/// Watches on one connection.
const STREAMS_A_CONNECTION: usize = 100;
/// Clients that list in a loop beside the leases.
const LISTERS: usize = 8;
/// Leases renewed a second: a thousand nodes renew 100.
const RENEWALS_PER_SECOND: u32 = 50;
/// Length of a large value.
const VALUE_BYTES: usize = 4096;
/// After which memory is looked at: a checkpoint or two later.
const REST: Duration = Duration::from_secs(3);
/// How long the last events may take to arrive.
const SETTLE_MAX: Duration = Duration::from_secs(60);

#[derive(Clone, Copy)]
struct Effort {
    pods: usize,
    lists: usize,
    watchers: usize,
    changes_per_second: usize,
    followers: [usize; 2],
    custom: usize,
    updates: usize,
    values: usize,
    puts: usize,
    seconds: f64,
}

const FULL: Effort = Effort {
    pods: 10_000,
    lists: 10,
    watchers: 5_000,
    changes_per_second: 1_000,
    followers: [200, 1_000],
    custom: 5_000,
    updates: 200,
    values: 20_000,
    puts: 300_000,
    seconds: 10.0,
};
const QUICK: Effort = Effort {
    pods: 1_000,
    lists: 3,
    watchers: 500,
    changes_per_second: 300,
    followers: [50, 200],
    custom: 500,
    updates: 40,
    values: 2_000,
    puts: 60_000,
    seconds: 3.0,
};

fn main() -> Result<(), Error> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let value = |name: &str| {
        let at = words.iter().position(|word| word == name)?;
        words.get(at + 1).map(String::as_str)
    };
    let dir = value("--dir").map(PathBuf::from);
    if words.first().is_some_and(|word| word == "serve") {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(SERVER_THREADS)
            .event_interval(SERVER_EVENT_INTERVAL)
            .enable_all()
            .build()?;
        let raft = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(RAFT_THREADS)
            .enable_all()
            .build()?;
        let dir = dir.ok_or("--dir DIR is missing")?;
        return runtime.block_on(serve(&dir, raft.handle()));
    }
    let effort = if words.iter().any(|word| word == "--quick") {
        QUICK
    } else {
        FULL
    };
    let (server, pool) = match (value("--pid"), value("--port")) {
        (Some(pid), Some(port)) => {
            let beside = value("--beside").map(str::parse).transpose()?;
            let beside = beside.into_iter().collect();
            let server = Measured::found(pid.parse()?, beside, port.parse()?);
            let pool = Pool::new(server.port, None)?;
            (server, pool)
        }
        _ => {
            let dir = dir.ok_or("--dir DIR is missing, or --pid PID and --port PORT")?;
            let server = Measured::start(&dir)?;
            let authority = Authority::open_or_create(&dir.join("pki"), "cluster.local")?;
            let pool = Pool::new(server.port, Some(&authority))?;
            (server, pool)
        }
    };
    let runtime = tokio::runtime::Runtime::new()?;
    let only = value("--only");
    println!(
        "{}",
        runtime.block_on(measure(server, &pool, effort, only))?
    );
    Ok(())
}

/// Serves until standard input ends.
async fn serve(dir: &Path, raft: &tokio::runtime::Handle) -> Result<(), Error> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let port = listener.local_addr()?.port();
    let config = weft_store::Config::new(dir.join("store"));
    let store = raft.spawn(Store::open(config)).await??;
    let groups = vec!["system:masters".to_owned()];
    let server = Server::new(server::Config {
        listener,
        store: store.clone(),
        authority: Authority::open_or_create(&dir.join("pki"), "cluster.local")?,
        cluster_id: "bench".to_owned(),
        server_id: 1,
        peer_address: None,
        scratch_dir: dir.to_owned(),
        url: format!("https://127.0.0.1:{port}"),
        names: vec!["127.0.0.1".to_owned()],
        registry_dir: dir.join("registry"),
        tokens: vec![StaticToken::new(TOKEN, "bench", None, groups)],
        key_file: dir.join("none"),
        authentication: None,
        audit: None,
        keys: None,
    })?;
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(server.run(shutdown.clone()));
    println!("{}", json!({"port": port}));
    tokio::task::spawn_blocking(|| std::io::copy(&mut std::io::stdin(), &mut std::io::sink()))
        .await??;
    shutdown.cancel();
    running.await?;
    store.shutdown().await;
    Ok(())
}

async fn measure(
    server: Measured,
    pool: &Pool,
    effort: Effort,
    only: Option<&str>,
) -> Result<Value, Error> {
    let wanted = |part: &str| only.is_none_or(|only| only == part);
    let client = pool.connect().await?;
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "bench"}});
    client.create("/api/v1/namespaces", &namespace).await?;

    let mut document = json!({});
    if only == Some("puts") {
        // Alone, on an empty store: the store's bench runs it beside its own.
        document["puts"] = puts::measure(pool, &server, effort).await?;
        server.stop()?;
        return Ok(document);
    }
    if wanted("idle") {
        document["idle"] = idle(&server, effort).await?;
    }
    if wanted("writes") {
        document["writes"] = writes::measure(pool, &server, effort).await?;
    }
    document["pods"] = fill(pool, effort.pods, effort.watchers).await?;
    if wanted("lists") {
        document["lists"] = lists(pool, &server, effort).await?;
    }
    if wanted("leases") {
        document["leases"] = leases(pool, &server, effort).await?;
    }
    if wanted("watches_by_node") {
        let mut nodes = Vec::new();
        // Concerned and not: the cost of a change is that of the first number alone.
        let few = effort.watchers / 10;
        for (concerned, idle) in [(few, 0), (few, effort.watchers - few), (effort.watchers, 0)] {
            nodes.push(watch_nodes(pool, &server, effort, concerned, idle).await?);
        }
        document["watches_by_node"] = nodes.into();
    }
    if wanted("one_object") {
        let mut rows = Vec::new();
        for followers in effort.followers {
            rows.push(follow_one(pool, &server, effort, followers).await?);
        }
        document["one_object"] = rows.into();
    }
    if wanted("values") {
        document["values"] = values(pool, &server, effort).await?;
    }
    let memory = server.memory()?;
    document["resident_bytes"] = memory.resident.into();
    document["peak_bytes"] = memory.peak.into();
    document["resident_bytes_beside"] = server.resident_beside()?.into();
    server.stop()?;
    Ok(document)
}

fn node(number: usize) -> String {
    format!("node-{number:05}")
}

/// The text of [`pod`] under another name, made at a tenth of the cost: clients share the processors with the server.
fn pod_text(name: &str, number: usize, nodes: usize) -> String {
    let app = number % 100;
    let (hash, team) = (app * 7919, app % 10);
    let node = number % nodes;
    format!(
        r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"annotations":{{"bench/sent":"0"}},"labels":{{"app":"app-{app}","pod-template-hash":"{hash:x}","team":"team-{team}"}},"name":"{name}"}},"spec":{{"automountServiceAccountToken":false,"containers":[{{"env":[{{"name":"LOG_LEVEL","value":"info"}},{{"name":"POD_NUMBER","value":"{number}"}}],"image":"registry.example/team/app-{app}:v1.{number}","name":"app","ports":[{{"containerPort":8080,"protocol":"TCP"}}],"readinessProbe":{{"httpGet":{{"path":"/healthz","port":8080}},"periodSeconds":5}},"resources":{{"limits":{{"memory":"64Mi"}},"requests":{{"cpu":"10m","memory":"16Mi"}}}}}}],"nodeName":"node-{node:05}","serviceAccountName":"default"}}}}"#
    )
}

fn pod(number: usize, nodes: usize) -> Value {
    let app = number % 100;
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": format!("app-{app}-{number:06}"),
            "labels": {"app": format!("app-{app}"), "pod-template-hash": format!("{:x}", app * 7919), "team": format!("team-{}", app % 10)},
            "annotations": {"bench/sent": "0"},
        },
        "spec": {
            "nodeName": node(number % nodes),
            "serviceAccountName": "default",
            // Both servers then store the same: kube-apiserver runs without what mounts tokens.
            "automountServiceAccountToken": false,
            "containers": [{
                "name": "app", "image": format!("registry.example/team/app-{app}:v1.{number}"),
                "ports": [{"containerPort": 8080, "protocol": "TCP"}],
                "env": [{"name": "LOG_LEVEL", "value": "info"}, {"name": "POD_NUMBER", "value": number.to_string()}],
                "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"memory": "64Mi"}},
                "readinessProbe": {"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 5},
            }],
        },
    })
}

/// Makes the pods.
async fn fill(pool: &Pool, pods: usize, nodes: usize) -> Result<Value, Error> {
    let next = Arc::new(AtomicUsize::new(0));
    let begun = Instant::now();
    let mut writers = JoinSet::new();
    for _ in 0..WRITERS {
        let (client, next) = (pool.connect().await?, Arc::clone(&next));
        writers.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= pods {
                    return Ok::<_, Error>(());
                }
                client.create(PODS, &pod(number, nodes)).await?;
            }
        });
    }
    while let Some(writer) = writers.join_next().await {
        writer??;
    }
    Ok(json!({
        "created": pods,
        "creates_per_second": pods as f64 / begun.elapsed().as_secs_f64(),
    }))
}

/// Lists everything, one client and then several at once; and pages at the front and at the end.
async fn lists(pool: &Pool, server: &Measured, effort: Effort) -> Result<Value, Error> {
    let client = pool.connect().await?;
    // The first one makes the cache.
    let bytes = client.drain(PODS).await?;
    let before = server.memory()?.resident;
    server.forget_peak()?;
    let (mut times, cpu) = (Vec::new(), server.cpu()?);
    for _ in 0..effort.lists {
        let begun = Instant::now();
        if client.drain(PODS).await? != bytes {
            return Err("two lists of one state differ in length".into());
        }
        times.push(begun.elapsed());
    }
    let cpu = (server.cpu()? - cpu) / effort.lists as f64;
    let one_peak = server.memory()?.peak;
    server.forget_peak()?;
    let begun = Instant::now();
    let mut listers = JoinSet::new();
    for _ in 0..LISTERS {
        let client = pool.connect().await?;
        listers.spawn(async move { client.drain(PODS).await });
    }
    while let Some(lister) = listers.join_next().await {
        lister??;
    }
    let together = begun.elapsed();
    let all_peak = server.memory()?.peak;

    // Through all pages once; then the first and the last of them over and over.
    let limit = effort.pods / 20;
    let mut tokens = vec![String::new()];
    loop {
        let token = tokens.last().cloned().unwrap_or_default();
        let page = client.get(&page_path(limit, &token)).await?;
        match page["metadata"]["continue"].as_str() {
            Some(token) => tokens.push(token.to_owned()),
            None => break,
        }
    }
    let mut pages = Vec::new();
    for token in [
        &tokens[0],
        &tokens[tokens.len() / 2],
        &tokens[tokens.len() - 1],
    ] {
        let mut times = Vec::new();
        for _ in 0..effort.lists * 5 {
            let begun = Instant::now();
            client.drain(&page_path(limit, token)).await?;
            times.push(begun.elapsed());
        }
        pages.push(milliseconds(at(times, 0.5)));
    }
    let middle = at(times.clone(), 0.5);
    Ok(json!({
        "pods": effort.pods, "bytes": bytes,
        "seconds": middle.as_secs_f64(),
        "bytes_per_second": bytes as f64 / middle.as_secs_f64(),
        "server_cpu_seconds": cpu,
        "clients_at_once": LISTERS,
        "bytes_per_second_at_once": (bytes * LISTERS) as f64 / together.as_secs_f64(),
        "resident_bytes_before": before,
        "peak_bytes_one": one_peak, "peak_bytes_at_once": all_peak,
        "page_objects": limit,
        "page_ms": {"first": pages[0], "middle": pages[1], "last": pages[2]},
    }))
}

fn page_path(limit: usize, token: &str) -> String {
    format!("{PODS}?limit={limit}&continue={token}")
}

/// Renews leases, alone and beside clients that list everything in a loop.
async fn leases(pool: &Pool, server: &Measured, effort: Effort) -> Result<Value, Error> {
    let client = pool.connect().await?;
    let lease = json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "bench"},
        "spec": {"holderIdentity": "bench", "leaseDurationSeconds": 40, "renewTime": "2026-01-01T00:00:00.000000Z"},
    });
    client.create(LEASES, &lease).await?;
    let mut rows = Vec::new();
    for listers in [0, LISTERS] {
        let over = Arc::new(AtomicBool::new(false));
        let lists = Arc::new(AtomicUsize::new(0));
        let mut running = JoinSet::new();
        for _ in 0..listers {
            let (client, over, lists) = (pool.connect().await?, over.clone(), lists.clone());
            running.spawn(async move {
                while !over.load(Ordering::Relaxed) {
                    client.drain(PODS).await?;
                    lists.fetch_add(1, Ordering::Relaxed);
                }
                Ok::<_, Error>(())
            });
        }
        let pool = pool.clone();
        let cpu = server.cpu()?;
        // On a thread of its own: what is measured is the server, not who waits for whom in this process.
        let renewed = tokio::task::spawn_blocking(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(renew(&pool, effort.seconds))
        });
        let times = renewed.await??;
        over.store(true, Ordering::Relaxed);
        while let Some(lister) = running.join_next().await {
            lister??;
        }
        rows.push(json!({
            "listers": listers, "renewals": times.len(), "lists": lists.load(Ordering::Relaxed),
            "p50_ms": milliseconds(at(times.clone(), 0.5)),
            "p99_ms": milliseconds(at(times.clone(), 0.99)),
            "max_ms": milliseconds(at(times, 1.0)),
            "server_cores": (server.cpu()? - cpu) / effort.seconds,
        }));
    }
    Ok(rows.into())
}

async fn renew(pool: &Pool, seconds: f64) -> Result<Vec<Duration>, Error> {
    let client = pool.connect().await?;
    let path = format!("{LEASES}/bench");
    let mut times = Vec::new();
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / RENEWALS_PER_SECOND);
    let begun = Instant::now();
    while begun.elapsed().as_secs_f64() < seconds {
        // From when it was due: one that is late because the one before was counts with its whole wait.
        let due = ticks.tick().await;
        let micros = begun.elapsed().as_micros() % 1_000_000;
        let patch = json!({"spec": {"renewTime": format!("2026-01-01T00:00:01.{micros:06}Z")}});
        client.patch(&path, &patch).await?;
        times.push(due.elapsed());
    }
    Ok(times)
}

/// What the watchers of one run were told.
struct Heard {
    /// For each watcher, how many events.
    counts: Vec<AtomicUsize>,
    ages: parking_lot::Mutex<Vec<Duration>>,
    total: AtomicUsize,
    wrong: AtomicUsize,
    begun: Instant,
}

impl Heard {
    fn new(watchers: usize) -> Arc<Self> {
        Arc::new(Self {
            counts: (0..watchers).map(|_| AtomicUsize::new(0)).collect(),
            ages: parking_lot::Mutex::default(),
            total: AtomicUsize::new(0),
            wrong: AtomicUsize::new(0),
            begun: Instant::now(),
        })
    }

    /// When the write that the line tells of was sent: the clock is this process's.
    fn hear(&self, watcher: usize, line: &[u8], belongs: &str) {
        const SENT: &[u8] = b"\"bench/sent\":\"";
        let sent = memmem::find(line, SENT).and_then(|at| {
            let rest = line.get(at + SENT.len()..)?;
            let digits = rest.get(..memchr::memchr(b'"', rest)?)?;
            std::str::from_utf8(digits).ok()?.parse::<u64>().ok()
        });
        let is_own = || memmem::find(line, belongs.as_bytes()).is_some();
        let Some(sent) = sent.filter(|_| is_own()) else {
            self.wrong.fetch_add(1, Ordering::Relaxed);
            return;
        };
        let age = self
            .begun
            .elapsed()
            .saturating_sub(Duration::from_micros(sent));
        self.counts[watcher].fetch_add(1, Ordering::Relaxed);
        self.ages.lock().push(age);
        self.total.fetch_add(1, Ordering::Relaxed);
    }

    fn stamp(&self) -> Value {
        json!({"metadata": {"annotations": {"bench/sent": self.begun.elapsed().as_micros().to_string()}}})
    }

    async fn settle(&self, expected: usize) -> Result<(), Error> {
        let deadline = Instant::now() + SETTLE_MAX;
        while self.total.load(Ordering::Relaxed) < expected {
            if Instant::now() > deadline {
                let total = self.total.load(Ordering::Relaxed);
                return Err(format!("{total} of {expected} events arrived").into());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // Those that should not come would come now.
        tokio::time::sleep(Duration::from_millis(200)).await;
        let (total, wrong) = (
            self.total.load(Ordering::Relaxed),
            self.wrong.load(Ordering::Relaxed),
        );
        if total != expected || wrong != 0 {
            return Err(format!("{total} events instead of {expected}, {wrong} wrong ones").into());
        }
        Ok(())
    }
}

/// Opens `count` watches, and hands each line to `heard`.
async fn open_watches(
    pool: &Pool,
    watches: &mut JoinSet<Result<(), Error>>,
    heard: &Arc<Heard>,
    targets: Vec<(usize, String, String)>,
) -> Result<(), Error> {
    for group in targets.chunks(STREAMS_A_CONNECTION) {
        let paths = group.iter().map(|(_, path, _)| path.as_str());
        let opened = Watches::open(pool, paths).await?;
        let (heard, group) = (Arc::clone(heard), group.to_vec());
        watches.spawn(opened.run(move |number, line| {
            if let Some((watcher, _, belongs)) = group.get(number) {
                heard.hear(*watcher, line, belongs);
            }
        }));
    }
    Ok(())
}

/// Watchers that each see the pods of a node. Pods of the first `concerned` nodes change, at a fixed rate; `idle` watchers see
/// other nodes.
async fn watch_nodes(
    pool: &Pool,
    server: &Measured,
    effort: Effort,
    concerned: usize,
    idle: usize,
) -> Result<Value, Error> {
    let client = pool.connect().await?;
    let revision = client.revision(PODS).await?;
    let heard = Heard::new(concerned + idle);
    let targets = (0..concerned + idle)
        .map(|number| {
            let name = node(number);
            let path = format!(
                "{PODS}?watch=1&resourceVersion={revision}&fieldSelector=spec.nodeName%3D{name}"
            );
            (number, path, format!("\"nodeName\":\"{name}\""))
        })
        .collect();
    let mut watches = JoinSet::new();
    open_watches(pool, &mut watches, &heard, targets).await?;
    let resident = server.memory()?.resident;

    let changes = (effort.changes_per_second as f64 * effort.seconds) as usize;
    // Pods whose node is among those concerned.
    let pods: Vec<usize> = (0..effort.pods)
        .filter(|number| number % effort.watchers < concerned)
        .collect();
    let cpu = server.cpu()?;
    let begun = Instant::now();
    let mut writers = JoinSet::new();
    let next = Arc::new(AtomicUsize::new(0));
    for _ in 0..WRITERS {
        let (client, next, heard) = (pool.connect().await?, next.clone(), heard.clone());
        let pods = pods.clone();
        let rate = effort.changes_per_second as f64;
        writers.spawn(async move {
            loop {
                let turn = next.fetch_add(1, Ordering::Relaxed);
                if turn >= changes {
                    return Ok::<_, Error>(());
                }
                let due = begun + Duration::from_secs_f64(turn as f64 / rate);
                tokio::time::sleep_until(due.into()).await;
                let number = pods[turn % pods.len()];
                let path = format!("{PODS}/app-{}-{number:06}", number % 100);
                client.patch(&path, &heard.stamp()).await?;
            }
        });
    }
    while let Some(writer) = writers.join_next().await {
        writer??;
    }
    let seconds = begun.elapsed().as_secs_f64();
    heard.settle(changes).await?;
    let cpu = server.cpu()? - cpu;
    let mut expected = vec![0; concerned + idle];
    for turn in 0..changes {
        expected[pods[turn % pods.len()] % effort.watchers] += 1;
    }
    for (watcher, expected) in expected.into_iter().enumerate() {
        let told = heard.counts[watcher].load(Ordering::Relaxed);
        if told != expected {
            return Err(format!("watcher {watcher} was told {told} of {expected} changes").into());
        }
    }
    watches.shutdown().await;
    let ages = heard.ages.lock().clone();
    Ok(json!({
        "concerned": concerned, "idle": idle, "changes": changes,
        "changes_per_second": changes as f64 / seconds,
        "p50_ms": milliseconds(at(ages.clone(), 0.5)),
        "p99_ms": milliseconds(at(ages, 0.99)),
        "server_cpu_us_per_change": cpu * 1e6 / changes as f64,
        "resident_bytes": resident,
    }))
}

/// Watchers of one ConfigMap that is updated as fast as one client can.
async fn follow_one(
    pool: &Pool,
    server: &Measured,
    effort: Effort,
    followers: usize,
) -> Result<Value, Error> {
    let client = pool.connect().await?;
    let name = format!("watched-{followers}");
    let map = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name, "annotations": {"bench/sent": "0"}},
        "data": {"settings": "x".repeat(512)},
    });
    client.create(MAPS, &map).await?;
    let revision = client.revision(MAPS).await?;
    let heard = Heard::new(followers);
    let path =
        format!("{MAPS}?watch=1&resourceVersion={revision}&fieldSelector=metadata.name%3D{name}");
    let targets = (0..followers).map(|number| (number, path.clone(), format!("\"{name}\"")));
    let mut watches = JoinSet::new();
    open_watches(pool, &mut watches, &heard, targets.collect()).await?;
    let resident = server.memory()?.resident;
    let cpu = server.cpu()?;
    let begun = Instant::now();
    for _ in 0..effort.updates {
        client
            .patch(&format!("{MAPS}/{name}"), &heard.stamp())
            .await?;
    }
    let seconds = begun.elapsed().as_secs_f64();
    let events = effort.updates * followers;
    heard.settle(events).await?;
    let cpu = server.cpu()? - cpu;
    watches.shutdown().await;
    let ages = heard.ages.lock().clone();
    Ok(json!({
        "watchers": followers, "updates": effort.updates,
        "updates_per_second": effort.updates as f64 / seconds,
        "p50_ms": milliseconds(at(ages.clone(), 0.5)),
        "p99_ms": milliseconds(at(ages, 0.99)),
        "server_cpu_us_per_event": cpu * 1e6 / events as f64,
        "resident_bytes": resident,
    }))
}

/// Large values that cannot be compressed: written, listed twice, and then left alone.
async fn values(pool: &Pool, server: &Measured, effort: Effort) -> Result<Value, Error> {
    let before = server.memory()?.resident;
    let next = Arc::new(AtomicUsize::new(0));
    let mut writers = JoinSet::new();
    for _ in 0..WRITERS {
        let (client, next) = (pool.connect().await?, Arc::clone(&next));
        writers.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= effort.values {
                    return Ok::<_, Error>(());
                }
                let noise: [u8; VALUE_BYTES / 4 * 3] = rand::random();
                let map = json!({
                    "apiVersion": "v1", "kind": "ConfigMap",
                    "metadata": {"name": format!("value-{number:06}"), "labels": {"large": "yes"}},
                    "data": {"noise": base64::engine::general_purpose::STANDARD.encode(noise)},
                });
                client.create(MAPS, &map).await?;
            }
        });
    }
    while let Some(writer) = writers.join_next().await {
        writer??;
    }
    let client = pool.connect().await?;
    let path = format!("{MAPS}?labelSelector=large");
    let bytes = client.drain(&path).await?;
    let (mut times, cpu) = (Vec::new(), server.cpu()?);
    for _ in 0..effort.lists {
        let begun = Instant::now();
        if client.drain(&path).await? != bytes {
            return Err("two lists of one state differ in length".into());
        }
        times.push(begun.elapsed());
    }
    let cpu = (server.cpu()? - cpu) / effort.lists as f64;
    tokio::time::sleep(REST).await;
    let after = server.memory()?.resident;
    let middle = at(times, 0.5);
    Ok(json!({
        "objects": effort.values, "bytes": bytes,
        "seconds": middle.as_secs_f64(),
        "bytes_per_second": bytes as f64 / middle.as_secs_f64(),
        "server_cpu_seconds": cpu,
        "resident_bytes_before": before, "resident_bytes": after,
    }))
}

/// What the server takes while nobody asks anything.
async fn idle(server: &Measured, effort: Effort) -> Result<Value, Error> {
    tokio::time::sleep(REST).await;
    let (cpu, begun) = (server.cpu()?, Instant::now());
    tokio::time::sleep(Duration::from_secs_f64(effort.seconds)).await;
    Ok(json!({
        "cores": (server.cpu()? - cpu) / begun.elapsed().as_secs_f64(),
        "resident_bytes": server.memory()?.resident,
    }))
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// The value below which this part of them lies.
fn at(mut times: Vec<Duration>, part: f64) -> Duration {
    times.sort_unstable();
    let nth = (times.len() as f64 * part) as usize;
    times
        .get(nth.min(times.len().saturating_sub(1)))
        .copied()
        .unwrap_or_default()
}

/// For the clients of this program, which only ask what exists.
impl Client {
    async fn revision(&self, path: &str) -> Result<String, Error> {
        let page = self.get(&format!("{path}?limit=1")).await?;
        let revision = page["metadata"]["resourceVersion"].as_str();
        Ok(revision.ok_or("a list without a revision")?.to_owned())
    }
}
