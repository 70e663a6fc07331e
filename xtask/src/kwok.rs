//! `cargo xtask kwok`: a cluster of hundreds of nodes that KWOK plays, and whether all of its pods run and stay.
//!
//! KWOK is another's idea of a node: its leases say 40 s and are renewed every ten, and it tells nothing else of a node for minutes. Once
//! such nodes flapped between Ready and NotReady and lost all of their pods again and again. So after the last pod is Ready
//! the cluster is watched for two lengths of a lease, by watches that see every change: a node that is not Ready for a moment, or a
//! pod that goes, fails the run.
//!
//! KWOK is a Go module, built here into `target/kwok`. Where that cannot be had, this says so and tries nothing; with `CI` set
//! that is a failure.
//!
//! Invariant: only processes started here are ended, and none is left.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use crate::progress::{self, Steps, Waiting};
use crate::{Failure, cluster, process, target};

const MODULE: &str = "sigs.k8s.io/kwok";
const VERSION: &str = "v0.8.0";
/// How KWOK's nodes and pods behave, in its module.
const STAGES: [&str; 5] = [
    "node/fast/node-initialize.yaml",
    "node/heartbeat-with-lease/node-heartbeat-with-lease.yaml",
    "pod/fast/pod-ready.yaml",
    "pod/fast/pod-complete.yaml",
    "pod/fast/pod-delete.yaml",
];
/// As `kwokctl` sets it, and the kubelet's own.
const LEASE_SECONDS: u64 = 40;
/// How long nothing may happen, in lengths of a lease.
const LEASES_HELD: u64 = 2;
/// How long it may be that not one more node or pod becomes ready, on two cores that KWOK has a part of.
const PATIENCE: Duration = Duration::from_secs(300);
const POLL: Duration = Duration::from_millis(500);
/// Between two lists of all nodes: so much of the time is left to those who make them ready.
const POLLS_APART: u32 = 4;
const NAMESPACE: &str = "kwok";
/// Offending lines that a failure shows.
const SHOWN_MAX: usize = 10;

#[derive(clap::Args)]
pub struct Args {
    /// Nodes that KWOK plays
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=5_000))]
    nodes: u32,
    /// Pods of the Deployment that runs on them
    #[arg(long, value_name = "N", default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pods: u32,
    /// Use the weft of this folder instead of building one, such as what `cargo xtask release` leaves
    #[arg(long, value_name = "FOLDER")]
    programs: Option<PathBuf>,
    /// Print one JSON document on stdout instead of a table
    #[arg(short, long)]
    output: Option<Output>,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    Json,
}

/// Runs the command.
///
/// # Errors
/// When nodes or pods do not become ready in time, when one does not stay so, and, with `CI` set, when KWOK cannot be had.
pub fn run(args: &Args) -> Result<()> {
    let mut steps = Steps::new(5);
    let kwok = match steps.step("fetch and build KWOK", Kwok::fetch) {
        Ok(kwok) => kwok,
        Err(error) if std::env::var_os("CI").is_some() => return Err(error),
        Err(error) => {
            eprintln!("SKIPPED: KWOK {VERSION} cannot be had, and nothing was tried: {error:#}");
            return Ok(());
        }
    };
    let program = match &args.programs {
        Some(folder) => std::path::absolute(folder)?.join("weft"),
        None => target().join("debug").join("weft"),
    };
    steps.step("build weft", || match args.programs {
        Some(_) => Ok(()),
        None => cluster::build(),
    })?;
    let dir = target().join(format!("kwok/run-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    let document = play(&mut steps, &kwok, args, program, &dir)?;
    // What a failed run leaves is there to be read.
    std::fs::remove_dir_all(&dir)?;
    match args.output {
        Some(Output::Json) => println!("{document}"),
        None => print!("{}", render(&document)),
    }
    Ok(())
}

fn play(
    steps: &mut Steps,
    kwok: &Kwok,
    args: &Args,
    program: PathBuf,
    dir: &Path,
) -> Result<Value> {
    let server = Server::start(program, dir)?;
    let player = kwok.start(&server.kubeconfig, dir)?;
    let nodes_seconds = steps.step(&format!("{} nodes", args.nodes), || {
        server.apply(&nodes(args.nodes))?;
        wait("nodes", args.nodes, || server.ready_nodes())
    })?;
    // From here on each change of a node is seen.
    let mut node_watch = Watch::start(&server, &["nodes"], args.nodes, |words| {
        words.get(1).is_some_and(|status| *status == "Ready")
    })?;
    let pods_seconds = steps.step(&format!("{} pods", args.pods), || {
        server.apply(&deployment(args.pods))?;
        wait("pods", args.pods, || server.ready_pods())
    })?;
    let before = server.pod_names()?;
    ensure!(
        before.len() == args.pods as usize,
        "there are {} pods, and not {}",
        before.len(),
        args.pods
    );
    let at_rest = process::memory(server.process.0.id());
    let held = Duration::from_secs(LEASE_SECONDS * LEASES_HELD);
    steps.step(
        &format!("nothing may happen for {} s", held.as_secs()),
        || {
            let mut pod_watch =
                Watch::start(&server, &["pods", "-n", NAMESPACE], args.pods, |words| {
                    words
                        .get(1..3)
                        .is_some_and(|state| state == ["1/1", "Running"])
                })?;
            let until = Instant::now() + held;
            while let Some(left) = until.checked_duration_since(Instant::now()) {
                std::thread::sleep(left.min(POLL));
                node_watch.check("a node was not Ready")?;
                pod_watch.check("a pod was not Running and Ready")?;
            }
            let after = server.pod_names()?;
            let lost = before.difference(&after).count();
            ensure!(
                lost == 0,
                "{lost} of {} pods are gone, and others are in their place",
                before.len()
            );
            Ok(())
        },
    )?;
    Ok(json!({
        "nodes": args.nodes, "pods": args.pods,
        "nodes_ready_seconds": nodes_seconds, "pods_ready_seconds": pods_seconds,
        "pods_per_second": f64::from(args.pods) / pods_seconds,
        "held_seconds": held.as_secs(),
        "server": process::memory(server.process.0.id()), "server_before_hold": at_rest,
        "kwok": process::memory(player.0.id()),
    }))
}

fn render(document: &Value) -> String {
    let number = |pointer: &str| {
        let value = document.pointer(pointer).and_then(Value::as_f64);
        value.unwrap_or(f64::NAN)
    };
    let mb = |pointer: &str| number(pointer) / 1e6;
    format!(
        "\n{:.0} nodes of KWOK {VERSION} Ready after {:.1} s\n\
         {:.0} pods Running and Ready after {:.1} s, {:.0} a second\n\
         {:.0} s without a node that flapped or a pod that went\n\
         memory of the server: {:.0} MB before these, {:.0} MB after, {:.0} MB at most; of KWOK {:.0} MB\n",
        number("/nodes"),
        number("/nodes_ready_seconds"),
        number("/pods"),
        number("/pods_ready_seconds"),
        number("/pods_per_second"),
        number("/held_seconds"),
        mb("/server_before_hold/resident_bytes"),
        mb("/server/resident_bytes"),
        mb("/server/peak_bytes"),
        mb("/kwok/resident_bytes"),
    )
}

/// Nodes that exist nowhere.
fn nodes(count: u32) -> Vec<Value> {
    let node = |number: u32| {
        let name = format!("kwok-{number:04}");
        json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {
                "name": name,
                "annotations": {"kwok.x-k8s.io/node": "fake"},
                "labels": {"kubernetes.io/hostname": name, "type": "kwok"},
            },
            "status": {
                "allocatable": {"cpu": "32", "memory": "256Gi", "pods": "110"},
                "capacity": {"cpu": "32", "memory": "256Gi", "pods": "110"},
            },
        })
    };
    (0..count).map(node).collect()
}

fn deployment(replicas: u32) -> Vec<Value> {
    vec![
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}),
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "web", "namespace": NAMESPACE},
            "spec": {
                "replicas": replicas,
                "selector": {"matchLabels": {"app": "web"}},
                "template": {
                    "metadata": {"labels": {"app": "web"}},
                    "spec": {"containers": [{
                        "name": "web", "image": "example/web:1",
                        "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}},
                    }]},
                },
            },
        }),
    ]
}

/// KWOK on this machine.
struct Kwok {
    program: PathBuf,
    /// The folder of its module.
    module: PathBuf,
}

impl Kwok {
    fn fetch() -> Result<Self> {
        let dir = target().join("kwok");
        std::fs::create_dir_all(&dir)?;
        let go = |arguments: &[&str]| {
            let mut go = Command::new("go");
            progress::clean_environment(&mut go);
            go.args(arguments)
                .env("GOBIN", &dir)
                .env("CGO_ENABLED", "0");
            go
        };
        let module = format!("{MODULE}@{VERSION}");
        let told = progress::read(&mut go(&["mod", "download", "-json", &module]))?;
        let told: Value = serde_json::from_str(&told).context("reading what go tells")?;
        let module = told["Dir"].as_str().context("go tells no folder")?;
        let package = format!("{MODULE}/cmd/kwok@{VERSION}");
        progress::read(&mut go(&["install", &package]))?;
        Ok(Self {
            program: dir.join("kwok"),
            module: PathBuf::from(module),
        })
    }

    /// Lets it play every node that says it is its.
    fn start(&self, kubeconfig: &str, dir: &Path) -> Result<Ended> {
        let log = File::create(dir.join("kwok.log"))?;
        let mut kwok = Command::new(&self.program);
        progress::clean_environment(&mut kwok);
        kwok.args(["--kubeconfig", kubeconfig])
            .arg("--manage-all-nodes=false")
            .arg("--manage-nodes-with-annotation-selector=kwok.x-k8s.io/node=fake")
            .arg(format!("--node-lease-duration-seconds={LEASE_SECONDS}"));
        for stage in STAGES {
            let file = self.module.join("kustomize/stage").join(stage);
            ensure!(file.is_file(), "{} is not there", file.display());
            kwok.arg("--config").arg(file);
        }
        let process = kwok
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("starting {}", self.program.display()))?;
        Ok(Ended(process))
    }
}

/// A process that ends with this.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// One server, without a node of its own. It ends when its input is closed, as it is however this process ends.
struct Server {
    program: PathBuf,
    process: Ended,
    kubeconfig: String,
}

impl Server {
    fn start(program: PathBuf, dir: &Path) -> Result<Self> {
        let log = File::create(dir.join("server.log"))?;
        let mut weft = Command::new(&program);
        progress::clean_environment(&mut weft);
        let process = weft
            .args(["server", "--output", "json", "--exit-with-parent"])
            .args(["--api-port", "0", "--data-dir"])
            .arg(dir.join("server"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .context("starting weft server")?;
        let mut process = Ended(process);
        let mut line = String::new();
        let stdout = process.0.stdout.take().context("its output is piped")?;
        BufReader::new(stdout).read_line(&mut line)?;
        let told = serde_json::from_str::<Value>(&line).ok();
        let kubeconfig = told.as_ref().and_then(|told| told["kubeconfig"].as_str());
        let Some(kubeconfig) = kubeconfig else {
            bail!(
                "weft server did not become ready: read {}",
                dir.join("server.log").display()
            );
        };
        Ok(Self {
            program,
            kubeconfig: kubeconfig.to_owned(),
            process,
        })
    }

    fn weft(&self, arguments: &[&str]) -> Command {
        let mut weft = Command::new(&self.program);
        progress::clean_environment(&mut weft);
        weft.args(arguments)
            .env("WEFT_KUBECONFIG", &self.kubeconfig);
        weft
    }

    fn apply(&self, objects: &[Value]) -> Result<()> {
        let mut child = self
            .weft(&["apply", "-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("starting weft apply")?;
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
        let mut stdin = child.stdin.take().context("its input is piped")?;
        stdin.write_all(list.to_string().as_bytes())?;
        drop(stdin);
        let output = child.wait_with_output()?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "weft apply: {}", errors.trim());
        Ok(())
    }

    fn items(&self, arguments: &[&str]) -> Result<Vec<Value>> {
        let arguments = [&["get", "-o", "json"][..], arguments].concat();
        let text = progress::read(&mut self.weft(&arguments))?;
        let mut list: Value = serde_json::from_str(&text).context("reading a list")?;
        Ok(match list["items"].take() {
            Value::Array(items) => items,
            _ => Vec::new(),
        })
    }

    fn ready_nodes(&self) -> Result<u64> {
        let nodes = self.items(&["nodes"])?;
        let ready = nodes.iter().filter(|node| is_ready(node)).count();
        Ok(ready as u64)
    }

    /// As the Deployment counts them: asking for all pods twice a second would be load of its own.
    fn ready_pods(&self) -> Result<u64> {
        let deployments = self.items(&["deployments", "-n", NAMESPACE])?;
        let ready = deployments
            .first()
            .map(|web| &web["status"]["readyReplicas"]);
        Ok(ready.and_then(Value::as_u64).unwrap_or(0))
    }

    /// A pod that takes the place of another one has another name. As a table, which is a fraction of what they are whole.
    fn pod_names(&self) -> Result<BTreeSet<String>> {
        let arguments = ["get", "pods", "-n", NAMESPACE, "--no-headers"];
        let text = progress::read(&mut self.weft(&arguments))?;
        let names = text
            .lines()
            .filter_map(|line| line.split_whitespace().next());
        Ok(names.map(str::to_owned).collect())
    }
}

/// Waits until so many are ready; how many seconds that took.
fn wait(what: &str, wanted: u32, ready: impl Fn() -> Result<u64>) -> Result<f64> {
    let begun = Instant::now();
    let mut waiting = Waiting::new();
    let (mut most, mut since) = (0, begun);
    loop {
        let asked = Instant::now();
        let there = ready()?;
        if there >= u64::from(wanted) {
            return Ok(begun.elapsed().as_secs_f64());
        }
        waiting.show(format!("{there} of {wanted} {what} are ready"));
        if there > most {
            (most, since) = (there, Instant::now());
        }
        if since.elapsed() > PATIENCE {
            let text = format!(
                "{most} of {wanted} {what} became ready, and no more in {} s",
                PATIENCE.as_secs()
            );
            return Err(Failure::new(text, "read the logs in target/kwok").into());
        }
        std::thread::sleep(POLL.max(asked.elapsed() * POLLS_APART));
    }
}

fn is_ready(node: &Value) -> bool {
    let conditions = node["status"]["conditions"].as_array();
    let mut conditions = conditions.into_iter().flatten();
    conditions.any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

/// `weft get --watch`, which sees every change; whose lines are all to be good.
struct Watch {
    process: Ended,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    lines: u64,
    bad: Vec<String>,
}

impl Watch {
    /// Begins, and waits until what is there was told.
    fn start(
        server: &Server,
        what: &[&str],
        there: u32,
        is_good: impl Fn(&[&str]) -> bool + Send + 'static,
    ) -> Result<Self> {
        let arguments = [&["get", "--watch", "--no-headers"][..], what].concat();
        let process = server
            .weft(&arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting weft get --watch")?;
        let mut process = Ended(process);
        let stdout = process.0.stdout.take().context("its output is piped")?;
        let seen = Arc::new(Mutex::new(Seen::default()));
        let told = Arc::clone(&seen);
        // It ends with the process.
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let words: Vec<&str> = line.split_whitespace().collect();
                let good = is_good(&words);
                let mut seen = told.lock().unwrap_or_else(PoisonError::into_inner);
                seen.lines += 1;
                if !good && seen.bad.len() < SHOWN_MAX {
                    seen.bad.push(line);
                }
            }
        });
        let mut watch = Self { process, seen };
        let until = Instant::now() + PATIENCE;
        while watch.lines() < u64::from(there) {
            ensure!(
                Instant::now() < until,
                "a watch does not tell what is there"
            );
            ensure!(watch.process.0.try_wait()?.is_none(), "a watch ended");
            std::thread::sleep(POLL);
        }
        Ok(watch)
    }

    fn lines(&self) -> u64 {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.lines
    }

    /// # Errors
    /// When one of the lines so far was not good, or no more will come.
    fn check(&mut self, what: &str) -> Result<()> {
        ensure!(self.process.0.try_wait()?.is_none(), "a watch ended");
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        ensure!(seen.bad.is_empty(), "{what}:\n  {}", seen.bad.join("\n  "));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_seen_is_told() {
        let document = json!({
            "nodes": 500, "pods": 5000, "nodes_ready_seconds": 1.5, "pods_ready_seconds": 50.0, "pods_per_second": 100.0,
            "held_seconds": 80, "server": {"resident_bytes": 2e8, "peak_bytes": 3e8},
            "server_before_hold": {"resident_bytes": 1e8}, "kwok": {"resident_bytes": 4e8},
        });
        let text = render(&document);
        assert!(
            text.contains("5000 pods Running and Ready after 50.0 s, 100 a second"),
            "{text}"
        );
        assert!(
            text.contains("100 MB before these, 200 MB after, 300 MB at most; of KWOK 400 MB"),
            "{text}"
        );
    }

    #[test]
    fn a_node_is_ready_by_its_condition() {
        let node = |status: &str| json!({"status": {"conditions": [{"type": "MemoryPressure", "status": "True"}, {"type": "Ready", "status": status}]}});
        assert!(is_ready(&node("True")));
        assert!(!is_ready(&node("Unknown")));
        assert!(!is_ready(&json!({"status": {}})));
    }
}
