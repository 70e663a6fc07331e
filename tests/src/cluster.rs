//! A running weft for a test: the real binary, its own data folder, free ports.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde_json::Value;

use crate::clients::target_dir;

/// The weft binary that this build made.
pub fn weft() -> PathBuf {
    let path = target_dir().join("debug").join("weft");
    assert!(
        path.exists(),
        "{} is missing: run `cargo build --workspace` or `cargo xtask test`",
        path.display()
    );
    path
}

/// A guest component that `cargo xtask guests` made.
pub fn guest(name: &str) -> PathBuf {
    let path = target_dir().join("guests").join(format!("{name}.wasm"));
    assert!(
        path.exists(),
        "{} is missing: run `cargo xtask guests`",
        path.display()
    );
    path
}

/// The root of the repository.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("tests/ is a folder of the workspace")
        .to_owned()
}

/// How long a cluster may take to be ready or to drain on a machine that also builds and tests.
const PATIENCE: Duration = Duration::from_secs(90);

/// Starts the binary and reads its one line of JSON; what else it prints goes to `up.log` in the folder.
fn spawn(
    arguments: &[String],
    environment: &[(&'static str, String)],
    dir: &Path,
) -> anyhow::Result<(Child, Value)> {
    let log = dir.join("up.log");
    let mut process = Command::new(weft())
        .args(arguments)
        .envs(environment.iter().cloned())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(
            std::fs::File::options()
                .create(true)
                .append(true)
                .open(&log)?,
        )
        .spawn()?;
    let mut line = String::new();
    let stdout = process.stdout.take().context("stdout is piped")?;
    BufReader::new(stdout).read_line(&mut line)?;
    match serde_json::from_str(&line) {
        Ok(ready) => Ok((process, ready)),
        Err(_) => {
            let _ = process.kill();
            let _ = process.wait();
            bail!(
                "weft up did not become ready: {}",
                std::fs::read_to_string(&log)?
            );
        }
    }
}

/// One cluster at a time: two would share the cores and time each other out.
static TURN: Mutex<()> = Mutex::new(());

/// `weft up`, ready. Dropping it interrupts it and waits until it is gone.
pub struct Cluster {
    process: Child,
    arguments: Vec<String>,
    environment: Vec<(&'static str, String)>,
    dir: tempfile::TempDir,
    pub kubeconfig: PathBuf,
    pub api: String,
    /// `http://127.0.0.1:PORT`
    pub gateway: String,
    _turn: MutexGuard<'static, ()>,
}

impl Cluster {
    /// Starts a cluster with so many nodes and waits until they are ready.
    ///
    /// # Errors
    /// What the binary printed when it did not become ready.
    pub fn start(nodes: u16) -> anyhow::Result<Self> {
        Self::start_with(nodes, &[])
    }

    /// As [`Cluster::start`], with further arguments for `weft up`.
    ///
    /// # Errors
    /// What the binary printed when it did not become ready.
    pub fn start_with(nodes: u16, arguments: &[&str]) -> anyhow::Result<Self> {
        Self::begin(nodes, arguments, Vec::new(), |_| Ok(()))
    }

    /// As [`Cluster::start`], with variables of the environment.
    ///
    /// # Errors
    /// What the binary printed when it did not become ready.
    pub fn start_in(nodes: u16, environment: Vec<(&'static str, String)>) -> anyhow::Result<Self> {
        Self::begin(nodes, &[], environment, |_| Ok(()))
    }

    /// As [`Cluster::start`], after something was done to the path of its data folder.
    ///
    /// # Errors
    /// What the binary printed when it did not become ready.
    pub fn start_prepared(
        nodes: u16,
        prepare: impl FnOnce(&Path) -> std::io::Result<()>,
    ) -> anyhow::Result<Self> {
        Self::begin(nodes, &[], Vec::new(), prepare)
    }

    fn begin(
        nodes: u16,
        arguments: &[&str],
        environment: Vec<(&'static str, String)>,
        prepare: impl FnOnce(&Path) -> std::io::Result<()>,
    ) -> anyhow::Result<Self> {
        // A test that failed while it had its turn is over all the same.
        let turn = TURN
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let dir = tempfile::tempdir()?;
        prepare(&dir.path().join("data"))?;
        let mut all: Vec<String> = ["up", "--output", "json", "--api-port", "0"]
            .map(str::to_owned)
            .to_vec();
        all.extend(["--gateway-port", "0", "--nodes"].map(str::to_owned));
        all.push(nodes.to_string());
        all.extend(arguments.iter().map(|&argument| argument.to_owned()));
        all.push("--data-dir".to_owned());
        all.push(dir.path().join("data").display().to_string());
        let (process, ready) = spawn(&all, &environment, dir.path())?;
        let text = |key: &str| ready[key].as_str().unwrap_or_default().to_owned();
        Ok(Self {
            process,
            arguments: all,
            environment,
            dir,
            kubeconfig: text("kubeconfig").into(),
            api: text("api"),
            gateway: text("gateway"),
            _turn: turn,
        })
    }

    /// Starts it again, as it was started first, after it ended.
    ///
    /// # Errors
    /// What the binary printed when it did not become ready.
    pub fn restart(&mut self) -> anyhow::Result<()> {
        let (process, ready) = spawn(&self.arguments, &self.environment, self.dir.path())?;
        self.process = process;
        for (key, field) in [("api", &mut self.api), ("gateway", &mut self.gateway)] {
            *field = ready[key].as_str().unwrap_or_default().to_owned();
        }
        Ok(())
    }

    /// Ends the server at once, as `kill -9` does.
    ///
    /// # Errors
    /// What the system answers.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.process.kill()?;
        self.process.wait()?;
        Ok(())
    }

    /// Sends the server a signal, as `-STOP`; the nodes, which are processes of their own, get none.
    ///
    /// # Errors
    /// What the system answers.
    pub fn signal(&self, signal: &str) -> anyhow::Result<()> {
        let pid = self.process.id().to_string();
        let sent = Command::new("kill").args([signal, &pid]).status()?;
        anyhow::ensure!(sent.success(), "`kill {signal} {pid}` failed");
        Ok(())
    }

    /// The processes that it started itself.
    pub fn children(&self) -> Vec<u32> {
        let own = format!("PPid:\t{}", self.process.id());
        let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        processes
            .filter_map(|process| {
                let pid = process.file_name().to_str()?.parse().ok()?;
                let status = std::fs::read_to_string(process.path().join("status")).ok()?;
                status.lines().any(|line| line == own).then_some(pid)
            })
            .collect()
    }

    /// The process of one of its nodes.
    ///
    /// # Errors
    /// When none of its children is that node.
    pub fn node_process(&self, name: &str) -> anyhow::Result<u32> {
        let is_it = |pid: &u32| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
            words
                .windows(2)
                .any(|pair| pair == [b"--name".as_slice(), name.as_bytes()])
        };
        let mut children = self.children().into_iter();
        children
            .find(is_it)
            .with_context(|| format!("the cluster has no process of node {name}"))
    }

    /// Closes the pipe that is its stdin.
    pub fn close_stdin(&mut self) {
        drop(self.process.stdin.take());
    }

    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// What a node printed, by its number.
    ///
    /// # Errors
    /// When there is no such file.
    pub fn node_log(&self, node: u16) -> anyhow::Result<String> {
        let path = self.data_dir().join(format!("nodes/node-{node}/node.log"));
        std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
    }

    /// Runs the weft binary against this cluster.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn weft(&self, args: &[&str]) -> anyhow::Result<Output> {
        Ok(Command::new(weft())
            .args(args)
            .env("WEFT_KUBECONFIG", &self.kubeconfig)
            .output()?)
    }

    /// Runs a kubectl against this cluster.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn kubectl(&self, kubectl: &Path, args: &[&str]) -> anyhow::Result<Output> {
        Ok(Command::new(kubectl)
            .args(args)
            .env("KUBECONFIG", &self.kubeconfig)
            // Discovery caches of one cluster would speak of another at the same port.
            .env("KUBECACHEDIR", self.dir.path().join("kubecache"))
            .output()?)
    }

    /// Pushes a guest into the cluster's registry.
    ///
    /// # Errors
    /// What the command printed when it failed.
    pub fn push(&self, guest_name: &str, image: &str) -> anyhow::Result<()> {
        let file = guest(guest_name);
        success(self.weft(&["push", &file.display().to_string(), image])?).map(drop)
    }

    /// Interrupts it, as Ctrl-C does, and waits for its exit code.
    ///
    /// # Errors
    /// When it does not end in time.
    pub fn interrupt(&mut self) -> anyhow::Result<Option<i32>> {
        let pid = self.process.id().to_string();
        Command::new("kill").args(["-INT", &pid]).status()?;
        self.ended()
    }

    /// Waits for its exit code.
    ///
    /// # Errors
    /// When it does not end in time.
    pub fn ended(&mut self) -> anyhow::Result<Option<i32>> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.process.try_wait()? {
                return Ok(status.code());
            }
            if Instant::now() > deadline {
                bail!("weft up did not end within {} s", PATIENCE.as_secs());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Everything the cluster's processes logged, for the message of a failed test.
    pub fn logs(&self) -> String {
        let mut text = std::fs::read_to_string(self.dir.path().join("up.log")).unwrap_or_default();
        let nodes = std::fs::read_dir(self.data_dir().join("nodes"));
        for node in nodes.into_iter().flatten().flatten() {
            text.push_str(&format!("--- {}\n", node.file_name().display()));
            text.push_str(
                &std::fs::read_to_string(node.path().join("node.log")).unwrap_or_default(),
            );
        }
        text
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.logs());
        }
        if matches!(self.process.try_wait(), Ok(None)) && self.interrupt().is_err() {
            let _ = self.process.kill();
            let _ = self.process.wait();
        }
    }
}

/// The standard output of a command that succeeded.
///
/// # Errors
/// Its standard error when it failed.
pub fn success(output: Output) -> anyhow::Result<String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if !output.status.success() {
        bail!(
            "{}: {}{}",
            output.status,
            text(&output.stderr),
            text(&output.stdout)
        );
    }
    Ok(text(&output.stdout))
}

/// Asks until the answer is `Some`, or fails with what was waited for.
///
/// # Errors
/// When it did not come true in [`PATIENCE`].
pub fn eventually<T>(
    what: &str,
    mut ask: impl FnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match ask() {
            Ok(Some(answer)) => return Ok(answer),
            Ok(None) if Instant::now() > deadline => {
                bail!("{what} did not come true within {} s", PATIENCE.as_secs())
            }
            Err(error) if Instant::now() > deadline => return Err(error.context(what.to_owned())),
            _ => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}
