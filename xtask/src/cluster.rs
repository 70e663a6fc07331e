//! A weft cluster on this machine for as long as a command needs it.
//!
//! Starts `weft up`, speaks to it through weft's own commands, and drains it at the end, also when the command fails or
//! is interrupted. However this process ends, the cluster ends with it.

use std::fs::{File, TryLockError};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::progress::{self, Waiting};
use crate::{Failure, interrupts, target};

/// How long pods may take to become available: components are compiled first, which takes seconds on a slow machine.
pub const ROLLOUT_PATIENCE: Duration = Duration::from_secs(120);
const ROLLOUT_POLL: Duration = Duration::from_millis(200);
/// How long the cluster may take to drain: more than its own limit of 40 s.
const STOP_PATIENCE: Duration = Duration::from_secs(60);
/// How much of the log a failure shows.
const LOG_TAIL_LINES: usize = 12;
/// How long the gateway may take for one answer of [`Cluster::fetch`].
const FETCH_PATIENCE: Duration = Duration::from_secs(10);

/// Connections in a row that must be served, times the nodes: the kernel spreads them, so that each node is asked with all
/// but certainty (with three nodes, it misses one of them once in 5,000 times).
const ANSWERS_A_NODE: usize = 8;
/// Folders for clusters of one name that are tried: more than anybody runs at the same time on one machine.
const FOLDERS_MAX: usize = 9;

pub struct Cluster {
    /// What it is a cluster of, and what speaks to it.
    program: PathBuf,
    process: Child,
    log: PathBuf,
    pub kubeconfig: String,
    pub api: String,
    /// As `http://127.0.0.1:8080`.
    pub gateway: String,
    pub nodes: Vec<String>,
    /// From the start of the process until all nodes were ready.
    pub ready_seconds: f64,
    /// What else it prints on stdout; kept open, or a write there would fail.
    _stdout: BufReader<ChildStdout>,
    /// The cluster ends when this is closed.
    _lifeline: Option<ChildStdin>,
    _folder: Folder,
}

/// The program that [`build`] left.
pub fn program() -> PathBuf {
    target().join("debug").join("weft")
}

/// Builds the program with the features that the whole workspace asks of its dependencies, as the tests do, so that neither
/// builds anything again.
pub fn build() -> Result<()> {
    progress::run(
        &mut progress::cargo(["build", "--workspace", "--bin", "weft"]),
        "read the compiler's messages above",
    )
}

impl Cluster {
    /// Starts an empty cluster whose data and log go to `target/NAME` and `target/NAME.log`, or to `target/NAME-2` and so on
    /// while another cluster uses them.
    ///
    /// With `fixed_ports` the usual ports are taken where they are free; otherwise, and where not, any free ones.
    pub fn start(name: &str, nodes: u16, fixed_ports: bool) -> Result<Self> {
        Self::start_program(&program(), name, nodes, fixed_ports)
    }

    /// The same of a given build of weft.
    pub fn start_program(
        program: &Path,
        name: &str,
        nodes: u16,
        fixed_ports: bool,
    ) -> Result<Self> {
        let port = |usual: u16| {
            if fixed_ports && TcpListener::bind(("127.0.0.1", usual)).is_ok() {
                usual
            } else {
                0
            }
        };
        let ports = (port(6443), port(8080));
        Self::start_at(program, name, nodes, ports, &[])
    }

    /// The same with the API at a port that the caller found free, and further arguments.
    pub fn start_with(name: &str, nodes: u16, api_port: u16, arguments: &[String]) -> Result<Self> {
        Self::start_at(&program(), name, nodes, (api_port, 0), arguments)
    }

    /// The same of a given build, with the API and the gateway at given ports, or, where one is 0, at any, and further arguments.
    pub fn start_at(
        program: &Path,
        name: &str,
        nodes: u16,
        ports: (u16, u16),
        arguments: &[String],
    ) -> Result<Self> {
        Self::start_saying(program, name, nodes, ports, arguments, &[])
    }

    /// The same with further variables of its environment.
    pub fn start_saying(
        program: &Path,
        name: &str,
        nodes: u16,
        (api_port, gateway_port): (u16, u16),
        arguments: &[String],
        environment: &[(&str, String)],
    ) -> Result<Self> {
        let folder = Folder::take(&target(), name)?;
        let log = folder.path.with_extension("log");
        let errors = File::create(&log).with_context(|| format!("creating {}", log.display()))?;
        let mut waiting = Waiting::new();
        waiting.show(format!(
            "starting a server and {nodes} node{}",
            if nodes == 1 { "" } else { "s" }
        ));
        let started = Instant::now();
        let mut command = Command::new(program);
        command
            .args([
                "up",
                "--output",
                "json",
                "--exit-with-parent",
                "--nodes",
                &nodes.to_string(),
                "--data-dir",
            ])
            .arg(&folder.path);
        command.args([
            "--api-port",
            &api_port.to_string(),
            "--gateway-port",
            &gateway_port.to_string(),
        ]);
        command.args(arguments);
        command.envs(environment.iter().map(|(name, value)| (name, value)));
        progress::clean_environment(&mut command);
        interrupts::watch()?;
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(errors)
            // Ctrl-C reaches only this process, which passes it on: twice would end the cluster without draining it.
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        interrupts::reach(process.id());
        // wait() would close it, and the cluster ends with it.
        let lifeline = process.stdin.take();
        let mut stdout = BufReader::new(process.stdout.take().context("its output is piped")?);
        let mut line = String::new();
        stdout
            .read_line(&mut line)
            .context("reading what weft up prints")?;
        let Ok(ready) = serde_json::from_str::<Value>(&line) else {
            // It ends by itself; its log tells why.
            let _ = process.wait();
            interrupts::forget(process.id());
            return Err(Failure::new(
                format!("weft up did not become ready:\n  {}", tail(&log)),
                "end what uses the port or the folder that it names, or read the log in target/",
            )
            .into());
        };
        let text = |key: &str| {
            ready[key]
                .as_str()
                .map(str::to_owned)
                .with_context(|| format!("weft up told no {key}"))
        };
        let nodes = ready["nodes"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .map(str::to_owned);
        let cluster = Self {
            program: program.to_owned(),
            kubeconfig: text("kubeconfig")?,
            api: text("api")?,
            gateway: text("gateway")?,
            nodes: nodes.collect(),
            ready_seconds: started.elapsed().as_secs_f64(),
            process,
            log,
            _stdout: stdout,
            _lifeline: lifeline,
            _folder: folder,
        };
        Ok(cluster)
    }

    /// A command of weft that talks to this cluster.
    pub fn weft<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(arguments)
            .env("WEFT_KUBECONFIG", &self.kubeconfig);
        progress::clean_environment(&mut command);
        command
    }

    /// Puts a component into the registry.
    pub fn push(&self, component: &Path, image: &str) -> Result<()> {
        progress::read(self.weft(["push"]).arg(component).arg(image)).map(drop)
    }

    /// The same with files besides it, which pods can mount.
    pub fn push_with_files(&self, component: &Path, files: &Path, image: &str) -> Result<()> {
        let mut push = self.weft(["push", "--files"]);
        progress::read(push.arg(files).arg(component).arg(image)).map(drop)
    }

    pub fn apply_file(&self, path: &Path) -> Result<()> {
        progress::read(self.weft(["apply", "-f"]).arg(path)).map(drop)
    }

    /// Applies objects that were made here.
    pub fn apply(&self, objects: &[Value]) -> Result<()> {
        let mut command = self.weft(["apply", "-f", "-"]);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start weft apply")?;
        let list = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": objects});
        child
            .stdin
            .take()
            .context("its input is piped")?
            .write_all(list.to_string().as_bytes())?;
        let output = child.wait_with_output()?;
        if output.status.success() {
            return Ok(());
        }
        bail!(
            "weft apply: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        )
    }

    pub fn get(&self, namespace: &str, kind: &str) -> Result<Vec<Value>> {
        let text = progress::read(&mut self.weft(["get", kind, "-n", namespace, "-o", "json"]))?;
        let mut list: Value =
            serde_json::from_str(&text).with_context(|| format!("reading {kind}"))?;
        Ok(match list["items"].take() {
            Value::Array(items) => items,
            _ => Vec::new(),
        })
    }

    /// The metrics of one node, in Prometheus' text format.
    pub fn metrics(&self, node: &str) -> Result<String> {
        progress::read(&mut self.weft([
            "get",
            "--raw",
            &format!("/api/v1/nodes/{node}/proxy/metrics"),
        ]))
    }

    /// Waits until every replica of every Deployment in the namespace is available.
    pub fn wait_for_rollout(&self, namespace: &str) -> Result<()> {
        let started = Instant::now();
        let mut waiting = Waiting::new();
        loop {
            let deployments = self.get(namespace, "deployments")?;
            let missing: Vec<String> = deployments.iter().filter_map(unfinished).collect();
            if missing.is_empty() && !deployments.is_empty() {
                return Ok(());
            }
            waiting.show(format!("waiting for {}", missing.join(", ")));
            if started.elapsed() > ROLLOUT_PATIENCE {
                drop(waiting);
                let pods =
                    progress::read(&mut self.weft(["get", "pods", "-n", namespace, "-o", "wide"]))?;
                let events = progress::read(&mut self.weft(["get", "events", "-n", namespace]))
                    .unwrap_or_default();
                eprintln!("{pods}\n{events}");
                return Err(Failure::new(
                    format!("{} did not become available in {} s", missing.join(", "), ROLLOUT_PATIENCE.as_secs()),
                    "read the pods' states and events above, and the nodes' logs in the data folder",
                )
                .into());
            }
            std::thread::sleep(ROLLOUT_POLL);
        }
    }

    /// `host:port` of the gateway.
    pub fn gateway_address(&self) -> &str {
        self.gateway.trim_start_matches("http://")
    }

    /// The URL under which the gateway serves `host`.
    pub fn url(&self, host: &str, path: &str) -> String {
        let port = self.gateway.rsplit(':').next().unwrap_or("8080");
        format!("http://{host}:{port}{path}")
    }

    /// One GET through the gateway: status and body.
    pub fn fetch(&self, host: &str, path: &str) -> Result<(u16, String)> {
        let mut stream = TcpStream::connect(self.gateway_address())?;
        stream.set_read_timeout(Some(FETCH_PATIENCE))?;
        write!(
            stream,
            "GET {path} HTTP/1.0\r\nHost: {host}\r\nConnection: close\r\n\r\n"
        )?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        let answer = String::from_utf8_lossy(&answer);
        let (head, body) = answer
            .split_once("\r\n\r\n")
            .context("the gateway's answer is no HTTP")?;
        let status = head
            .split(' ')
            .nth(1)
            .and_then(|code| code.parse().ok())
            .context("the answer has no status")?;
        Ok((status, body.to_owned()))
    }

    /// Waits until GETs through the gateway answer 200, one after the other: every node has a gateway on that port, and
    /// routes and endpoints reach each of them a moment after the pods are ready.
    pub fn wait_for_answer(&self, host: &str, path: &str) -> Result<()> {
        let started = Instant::now();
        let mut left = self.nodes.len() * ANSWERS_A_NODE;
        loop {
            let last = match self.fetch(host, path) {
                Ok((200, _)) => {
                    left -= 1;
                    if left == 0 {
                        return Ok(());
                    }
                    continue;
                }
                Ok((status, body)) => format!("{status} {}", body.trim()),
                Err(error) => error.to_string(),
            };
            left = self.nodes.len() * ANSWERS_A_NODE;
            if started.elapsed() > FETCH_PATIENCE {
                bail!("the gateway does not serve http://{host}{path}: {last}");
            }
            std::thread::sleep(ROLLOUT_POLL / 4);
        }
    }

    /// Sends load through the gateway; the result is `weft load`'s JSON document.
    pub fn load(&self, url: &str, arguments: &[&str]) -> Result<Load> {
        send_load(&self.program, url, self.gateway_address(), arguments)
    }

    /// The process that was started; the nodes are its children.
    pub fn process(&self) -> u32 {
        self.process.id()
    }

    /// Drains the cluster and waits for its end.
    pub fn stop(mut self) -> Result<()> {
        self.interrupt();
        let started = Instant::now();
        while started.elapsed() < STOP_PATIENCE {
            if let Some(status) = self.process.try_wait()? {
                if status.success() {
                    return Ok(());
                }
                bail!("weft up ended with {status}:\n  {}", tail(&self.log));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        bail!(
            "the cluster did not drain in {} s:\n  {}",
            STOP_PATIENCE.as_secs(),
            tail(&self.log)
        )
    }

    /// Waits until the cluster ends by itself, as it does on Ctrl-C.
    pub fn wait(mut self) -> Result<()> {
        let status = self.process.wait()?;
        if status.success() {
            Ok(())
        } else {
            bail!("weft up ended with {status}:\n  {}", tail(&self.log))
        }
    }

    fn interrupt(&self) {
        if !interrupts::came() {
            interrupts::send(self.process.id());
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if matches!(self.process.try_wait(), Ok(None)) {
            self.interrupt();
            let started = Instant::now();
            while started.elapsed() < STOP_PATIENCE && matches!(self.process.try_wait(), Ok(None)) {
                std::thread::sleep(Duration::from_millis(20));
            }
            // No effect on one that has ended.
            let _ = self.process.kill();
            let _ = self.process.wait();
        }
        interrupts::forget(self.process.id());
    }
}

/// An empty data folder that no other cluster uses, for as long as this lives. What an earlier cluster left would hide
/// what changed since: pods go on with the component they have when only what a tag means has changed.
struct Folder {
    path: PathBuf,
    _lock: File,
}

impl Folder {
    fn take(target: &Path, name: &str) -> Result<Self> {
        std::fs::create_dir_all(target)
            .with_context(|| format!("creating {}", target.display()))?;
        for number in 1..=FOLDERS_MAX {
            let path = match number {
                1 => target.join(name),
                _ => target.join(format!("{name}-{number}")),
            };
            // Ours keeps off another command that is about to start a cluster there, the store's a cluster that is left.
            let Some(taken) = lock(&path.with_extension("lock"))? else {
                continue;
            };
            let store = path.join("store").join("lock");
            if store.exists() && lock(&store)?.is_none() {
                continue;
            }
            if path.exists() {
                std::fs::remove_dir_all(&path)
                    .with_context(|| format!("emptying {}", path.display()))?;
            }
            return Ok(Self { path, _lock: taken });
        }
        Err(Failure::new(
            format!("{FOLDERS_MAX} clusters are running in {}", target.display()),
            "end one of them with Ctrl-C",
        )
        .into())
    }
}

/// Takes a lock file, which the system gives back when this process ends; `None` when another process has it.
fn lock(path: &Path) -> Result<Option<File>> {
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .with_context(|| format!("opening {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("locking {}", path.display()))
        }
    }
}

/// Sends load to `connect`, an `ip:port`, whatever host the URL names.
pub fn send_load(program: &Path, url: &str, connect: &str, arguments: &[&str]) -> Result<Load> {
    let mut command = Command::new(program);
    command
        .args([
            "load",
            "--output",
            "json",
            "--connect",
            connect,
            "--url",
            url,
        ])
        .args(arguments);
    progress::clean_environment(&mut command);
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start weft load")?;
    Ok(Load(child))
}

/// A load that is being sent.
pub struct Load(Child);

impl Load {
    /// Waits for its end; a load that got no answer at all is a failure.
    pub fn finish(self) -> Result<Value> {
        let output = self.0.wait_with_output()?;
        if !output.status.success() {
            bail!(
                "weft load: {}",
                String::from_utf8_lossy(&output.stderr)
                    .trim()
                    .replace('\n', "; ")
            );
        }
        serde_json::from_slice(&output.stdout).context("reading what weft load measured")
    }
}

/// `name 1/2` for a Deployment that is not there yet.
fn unfinished(deployment: &Value) -> Option<String> {
    let number = |pointer: &str| deployment.pointer(pointer).and_then(Value::as_i64);
    let wanted = number("/spec/replicas").unwrap_or(1);
    let available = number("/status/availableReplicas").unwrap_or(0);
    let updated = number("/status/updatedReplicas").unwrap_or(0);
    let all = number("/status/replicas").unwrap_or(0);
    let seen = number("/status/observedGeneration").unwrap_or(0)
        >= number("/metadata/generation").unwrap_or(0);
    let done = seen && available == wanted && updated == wanted && all == wanted;
    let name = deployment
        .pointer("/metadata/name")
        .and_then(Value::as_str)
        .unwrap_or("?");
    (!done).then(|| format!("{name} {available}/{wanted}"))
}

fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    match lines.len() {
        0 => "it printed nothing".to_owned(),
        count => lines[count.saturating_sub(LOG_TAIL_LINES)..].join("\n  "),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{FOLDERS_MAX, Folder, lock, unfinished};

    #[test]
    fn clusters_of_one_name_at_the_same_time_have_folders_of_their_own() {
        let target = std::env::temp_dir().join(format!("xtask-folders-{}", std::process::id()));
        let name = |folder: &Folder| folder.path.file_name().unwrap().to_owned();
        let first = Folder::take(&target, "demo").unwrap();
        assert_eq!(name(&first), "demo");
        assert_eq!(name(&Folder::take(&target, "demo").unwrap()), "demo-2");

        // The command was killed, and its cluster still drains.
        std::fs::create_dir_all(first.path.join("store")).unwrap();
        let cluster = lock(&first.path.join("store").join("lock")).unwrap();
        drop(first);
        assert_eq!(name(&Folder::take(&target, "demo").unwrap()), "demo-2");
        drop(cluster);
        let first = Folder::take(&target, "demo").unwrap();
        assert_eq!(name(&first), "demo");
        assert!(!first.path.exists(), "what an earlier one left is gone");

        let others: Vec<Folder> = (1..FOLDERS_MAX)
            .map(|_| Folder::take(&target, "demo").unwrap())
            .collect();
        let error = Folder::take(&target, "demo").err().unwrap();
        assert!(error.to_string().contains("9 clusters"), "{error}");
        drop((first, others));
        std::fs::remove_dir_all(&target).unwrap();
    }

    #[test]
    fn a_rollout_is_over_when_every_number_agrees() {
        let deployment = |generation: i64, replicas: i64, updated: i64, available: i64| {
            json!({"metadata": {"name": "web", "generation": generation}, "spec": {"replicas": 2}, "status": {
                "observedGeneration": 3, "replicas": replicas, "updatedReplicas": updated, "availableReplicas": available}})
        };
        for (object, left) in [
            (deployment(3, 2, 2, 2), None),
            (deployment(4, 2, 2, 2), Some("web 2/2")),
            (deployment(3, 3, 2, 2), Some("web 2/2")),
            (deployment(3, 2, 2, 1), Some("web 1/2")),
            (json!({"metadata": {"name": "new"}}), Some("new 0/1")),
        ] {
            assert_eq!(unfinished(&object).as_deref(), left, "{object}");
        }
    }
}
