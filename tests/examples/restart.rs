//! How long a cluster with many objects takes to serve again, after `kill -9` of all its servers and after a clean stop.
//!
//! `cargo xtask bench store` runs it. It fills real servers over their API, ends and starts them, and asks each of them from
//! the start on, as a client does that was there before: for an object, for a page of a list, for a write. It prints one
//! line of JSON.

use std::future::Future;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::Parser;
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};
use weft_tests::servers::ServerProcess;

#[derive(Parser)]
struct Args {
    #[arg(long, default_value_t = 1)]
    servers: usize,
    #[arg(long, default_value_t = 100_000)]
    objects: usize,
}

/// With its metadata, an object is about 2 KB.
const VALUE_BYTES: usize = 1_700;
/// Requests under way while the cluster is filled.
const FILLING: usize = 64;
/// As many as kubectl asks for at once.
const PAGE: u32 = 500;
/// Longer than any start that is worth waiting for.
const PATIENCE: Duration = Duration::from_secs(120);
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(2);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    // The one provider of this process: nobody else can have installed another.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let dir = tempfile::tempdir().context("cannot make a folder for the servers")?;
    let mut cluster = Cluster::start(dir.path(), args.servers)?;
    fill(&cluster.maps(0).await?, args.objects).await?;
    for server in &cluster.processes {
        server.signal("-KILL")?;
    }
    let killed = cluster.again("killed", args.objects).await?;
    for server in &mut cluster.processes {
        server.terminate()?;
    }
    let stopped = cluster.again("stopped", args.objects).await?;
    println!(
        "{}",
        json!({
            "servers": args.servers, "objects": args.objects,
            "killed": killed, "stopped": stopped,
        })
    );
    Ok(())
}

struct Cluster {
    processes: Vec<ServerProcess>,
}

impl Cluster {
    fn start(dir: &Path, servers: usize) -> anyhow::Result<Self> {
        let mut processes = vec![ServerProcess::start(&dir.join("server-1"), &[])?];
        for server in 2..=servers {
            let joined = processes[0].join(&dir.join(format!("server-{server}")), &[])?;
            processes.push(joined);
        }
        Ok(Self { processes })
    }

    /// A client of one of them, with a connection of its own.
    async fn maps(&self, server: usize) -> anyhow::Result<Api<ConfigMap>> {
        let server = &self.processes[server];
        let kubeconfig = Kubeconfig::read_from(server.kubeconfig())?;
        let options = KubeConfigOptions::default();
        let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await?;
        let url = server.said["api"].as_str().context("a server's URL")?;
        config.cluster_url = url.parse()?;
        config.proxy_url = None;
        config.default_retry = false;
        Ok(Api::namespaced(kube::Client::try_from(config)?, "default"))
    }

    /// Starts servers that have ended, at the addresses they had, and asks each until it answers.
    async fn again(&mut self, how: &str, objects: usize) -> anyhow::Result<Value> {
        let mut maps = Vec::new();
        for server in 0..self.processes.len() {
            maps.push(self.maps(server).await?);
        }
        for server in &mut self.processes {
            server.kill()?;
        }
        let begun = Instant::now();
        for server in &mut self.processes {
            let said = server.said.take();
            *server = ServerProcess::spawn(&server.dir.clone(), &[])?;
            server.said = said;
        }
        let asked = maps.iter().enumerate().map(|(server, maps)| {
            // One that changes nothing would be answered from memory.
            answered(
                maps,
                begun,
                objects,
                json!({"data": {how: server.to_string()}}),
            )
        });
        let answered = futures::future::try_join_all(asked).await?;
        let mut resident = Vec::new();
        let mut folder = Vec::new();
        for server in &mut self.processes {
            server.wait_ready()?;
            resident.push(json!({
                "now_bytes": server.status_bytes("VmRSS"), "peak_bytes": server.status_bytes("VmHWM"),
            }));
            folder.push(bytes(&server.dir.join("store"))?);
        }
        Ok(json!({ "servers": answered, "resident": resident, "folder_bytes": folder }))
    }
}

/// When a server first answered what, in seconds since `begun`.
async fn answered(
    maps: &Api<ConfigMap>,
    begun: Instant,
    objects: usize,
    change: Value,
) -> anyhow::Result<Value> {
    let name = name(objects / 2);
    let list = ListParams::default().limit(PAGE);
    let change = Patch::Merge(change);
    let parameters = PatchParams::default();
    let (read, page, write) = tokio::try_join!(
        until(begun, || maps.get(&name)),
        until(begun, || maps.list(&list)),
        until(begun, || maps.patch("object-0", &parameters, &change)),
    )?;
    Ok(json!({
        "read_seconds": read.as_secs_f64(), "page_seconds": page.as_secs_f64(),
        "write_seconds": write.as_secs_f64(),
    }))
}

async fn until<T, F: Future<Output = kube::Result<T>>>(
    begun: Instant,
    ask: impl Fn() -> F,
) -> anyhow::Result<Duration> {
    loop {
        let answer = tokio::time::timeout(ANSWER_MAX, ask()).await;
        let elapsed = begun.elapsed();
        match answer {
            Ok(Ok(_)) => return Ok(elapsed),
            Ok(Err(error)) if elapsed > PATIENCE => return Err(error.into()),
            Err(_) if elapsed > PATIENCE => bail!("no answer for {} s", PATIENCE.as_secs()),
            _ => tokio::time::sleep(PAUSE).await,
        }
    }
}

fn name(object: usize) -> String {
    format!("object-{object}")
}

async fn fill(maps: &Api<ConfigMap>, objects: usize) -> anyhow::Result<()> {
    let post = PostParams::default();
    futures::stream::iter((0..objects).map(|object| {
        let post = &post;
        async move {
            let map: ConfigMap = serde_json::from_value(json!({
                "metadata": {"name": name(object)},
                "data": {"value": weft_tests::noise(object, VALUE_BYTES)},
            }))?;
            maps.create(post, &map).await?;
            anyhow::Ok(())
        }
    }))
    .buffer_unordered(FILLING)
    .try_collect()
    .await
}

/// What a folder's files take on disk.
fn bytes(folder: &Path) -> anyhow::Result<u64> {
    use std::os::unix::fs::MetadataExt as _;
    let mut bytes = 0;
    for file in std::fs::read_dir(folder)? {
        bytes += file?.metadata()?.blocks() * 512;
    }
    Ok(bytes)
}
