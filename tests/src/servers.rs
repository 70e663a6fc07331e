//! `weft server` as processes of their own, for tests of servers as a group.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use anyhow::{Context as _, bail};
use serde_json::Value;

use crate::cluster::{eventually, success, weft};

/// One server process; dropping it kills it.
pub struct ServerProcess {
    process: Child,
    pub dir: PathBuf,
    /// What it said of itself when it was ready.
    pub said: Value,
}

impl ServerProcess {
    /// Starts a server in `dir` on ports of its own and waits until it is ready.
    ///
    /// # Errors
    /// What it printed when it did not become ready.
    pub fn start(dir: &Path, arguments: &[&str]) -> anyhow::Result<Self> {
        let mut server = Self::spawn(dir, arguments)?;
        server.wait_ready()?;
        Ok(server)
    }

    /// Starts a server without waiting for it: one of several that come back needs the others to be ready.
    ///
    /// # Errors
    /// When the process cannot be started.
    pub fn spawn(dir: &Path, arguments: &[&str]) -> anyhow::Result<Self> {
        let own = ["--api-port", "0"];
        Self::launch(Command::new(weft()), dir, &[&own[..], arguments].concat())
    }

    /// Starts a server by a command that is, or becomes, the weft binary; it says itself where it listens.
    ///
    /// # Errors
    /// When the process cannot be started.
    pub fn launch(mut weft: Command, dir: &Path, arguments: &[&str]) -> anyhow::Result<Self> {
        let log = dir.with_extension("log");
        let process = weft
            .args(["server", "--output", "json", "--data-dir"])
            .arg(dir)
            .args(arguments)
            .arg("--exit-with-parent")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(
                std::fs::File::options()
                    .create(true)
                    .append(true)
                    .open(&log)?,
            )
            .spawn()?;
        Ok(Self {
            process,
            dir: dir.to_owned(),
            said: Value::Null,
        })
    }

    /// Waits until it says that it is ready.
    ///
    /// # Errors
    /// What it printed when it did not become ready.
    pub fn wait_ready(&mut self) -> anyhow::Result<()> {
        let stdout = self.process.stdout.take().context("stdout is piped")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let Ok(said) = serde_json::from_str(&line) else {
            bail!(
                "{} did not become ready: {}",
                self.dir.display(),
                self.log()
            );
        };
        self.said = said;
        Ok(())
    }

    /// Starts a server in `dir` that joins this one's cluster, and waits until it is ready.
    ///
    /// # Errors
    /// What it printed when it did not become ready.
    pub fn join(&self, dir: &Path, arguments: &[&str]) -> anyhow::Result<Self> {
        Self::start(dir, &[&self.to_join()[..], arguments].concat())
    }

    /// What another server is started with to join this one's cluster.
    pub fn to_join(&self) -> [&str; 6] {
        let text = |key: &str| self.said[key].as_str().unwrap_or_default();
        [
            "--join",
            text("api"),
            "--ca-file",
            text("caFile"),
            "--token-file",
            text("serverTokenFile"),
        ]
    }

    /// Its number in the cluster.
    pub fn id(&self) -> u64 {
        self.said["id"].as_u64().unwrap_or_default()
    }

    /// The process.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Sends it a signal, as `-STOP`.
    ///
    /// # Errors
    /// What the system answers.
    pub fn signal(&self, signal: &str) -> anyhow::Result<()> {
        let pid = self.process.id().to_string();
        let sent = Command::new("kill").args([signal, &pid]).status()?;
        anyhow::ensure!(sent.success(), "`kill {signal} {pid}` failed");
        Ok(())
    }

    /// `kill -9`.
    ///
    /// # Errors
    /// What the system answers.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.process.kill()?;
        self.process.wait()?;
        Ok(())
    }

    /// Waits until it ends by itself, and gives its exit code.
    ///
    /// # Errors
    /// When it does not end in time.
    pub fn ended(&mut self) -> anyhow::Result<Option<i32>> {
        let ended = eventually("its end", || Ok(self.process.try_wait()?));
        Ok(ended?.code())
    }

    /// What it has logged, here and when it ran before.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.with_extension("log")).unwrap_or_default()
    }

    /// Tells it to end, and gives its exit code.
    ///
    /// # Errors
    /// What the system answers.
    pub fn terminate(&mut self) -> anyhow::Result<Option<i32>> {
        // wait() would close it, and its end means at once.
        let _stdin = self.process.stdin.take();
        let pid = self.process.id().to_string();
        Command::new("kill").arg(&pid).status()?;
        Ok(self.process.wait()?.code())
    }

    /// A size that the kernel counts for it, as `VmRSS`; 0 once it has ended.
    pub fn status_bytes(&self, what: &str) -> u64 {
        let path = format!("/proc/{}/status", self.process.id());
        let status = std::fs::read_to_string(path).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix(what));
        let kilobytes = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
        kilobytes.unwrap_or(0) * 1024
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.said["kubeconfig"].as_str().unwrap_or_default().into()
    }

    /// Runs the weft binary with this server's kubeconfig.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn weft(&self, args: &[&str]) -> anyhow::Result<Output> {
        Ok(Command::new(weft())
            .args(args)
            .env("WEFT_KUBECONFIG", self.kubeconfig())
            .output()?)
    }

    /// The servers of the cluster, as this one tells.
    ///
    /// # Errors
    /// What the command printed when it failed.
    pub fn members(&self) -> anyhow::Result<Vec<Member>> {
        let text = success(self.weft(&["server", "members", "-o", "json"])?)?;
        members(&text)
    }
}

/// One server, as `weft server members` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    pub id: u64,
    pub url: String,
    pub voter: bool,
    pub leader: bool,
}

/// Reads what `weft server members -o json` printed.
///
/// # Errors
/// When it is no JSON.
pub fn members(text: &str) -> anyhow::Result<Vec<Member>> {
    let list: Value = serde_json::from_str(text)?;
    let servers = list["servers"].as_array().into_iter().flatten();
    Ok(servers
        .map(|server| Member {
            id: server["id"].as_u64().unwrap_or_default(),
            url: server["url"].as_str().unwrap_or_default().to_owned(),
            voter: server["voter"] == true,
            leader: server["leader"] == true,
        })
        .collect())
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- {} ---\n{}", self.dir.display(), self.log());
        }
        // No effect on one that has ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
