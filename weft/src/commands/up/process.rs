//! A child of `weft up`: a server or a node as a process of the same binary, kept running until it is told to end.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tokio_util::sync::CancellationToken;

use crate::exit::CODE_REMOVED;

/// How much of a dead child's log is shown.
const LOG_TAIL_LINES: usize = 12;

/// What it takes to start a child, and to start it again.
pub(super) struct Process {
    /// `node-1`
    pub name: String,
    pub program: PathBuf,
    /// The subcommand and its arguments.
    pub arguments: Vec<String>,
    pub log: PathBuf,
    /// Pause before it is started again.
    pub restart_delay: Duration,
    /// How long it may take to end after it was told to.
    pub drain_timeout: Duration,
    /// An end sooner than this after the first start is a failure of the start.
    pub start_timeout: Duration,
}

impl Process {
    /// Keeps the child running until `stop`, then ends it. Cancels `failed` when the first start fails.
    pub async fn supervise(self, stop: CancellationToken, failed: CancellationToken) {
        self.supervise_from(None, stop, failed).await;
    }

    /// As [`Process::supervise`], with a child that was started already.
    pub async fn supervise_from(
        self,
        mut started: Option<Child>,
        stop: CancellationToken,
        failed: CancellationToken,
    ) {
        let mut first = started.is_none();
        loop {
            let born = Instant::now();
            let child = match started.take() {
                Some(child) => Ok(child),
                None => self.spawn(false),
            };
            match child {
                Ok(child) => match self.run(child, &stop).await {
                    None => return,
                    Some(status) if status.code() == Some(i32::from(CODE_REMOVED)) => {
                        tracing::warn!(process = self.name, log = %self.log.display(), "it was removed from the cluster and is not started again");
                        return;
                    }
                    Some(status) => {
                        tracing::warn!(process = self.name, %status, log = %self.log.display(), "it ended");
                    }
                },
                Err(error) => tracing::error!(process = self.name, %error, "it did not start"),
            }
            if first && born.elapsed() < self.start_timeout {
                failed.cancel();
            }
            first = false;
            tokio::select! {
                () = tokio::time::sleep(self.restart_delay) => {}
                () = stop.cancelled() => return,
            }
            tracing::info!(process = self.name, "starting it again");
        }
    }

    /// Starts the child and reads the first line that it prints; `None` where it ends without one.
    pub async fn first_line(&self) -> std::io::Result<(Child, Option<String>)> {
        let mut child = self.spawn(true)?;
        let Some(stdout) = child.stdout.take() else {
            return Ok((child, None));
        };
        let mut lines = BufReader::new(stdout).lines();
        let line = lines.next_line().await?;
        if line.is_some() {
            tokio::spawn(drain(lines));
        }
        Ok((child, line))
    }

    fn spawn(&self, read: bool) -> std::io::Result<Child> {
        let log = open_log(&self.log)?;
        let stdout = match read {
            true => Stdio::piped(),
            false => log.try_clone()?.into(),
        };
        Command::new(&self.program)
            .args(&self.arguments)
            // The child lives as long as this pipe is open.
            .stdin(Stdio::piped())
            .stdout(stdout)
            .stderr(log)
            // Captured stacks of wasmtime's errors would cost a third of the requests per second.
            .env("RUST_LIB_BACKTRACE", "0")
            // Ctrl-C reaches only this process, which then ends its children in order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
    }

    /// Waits for the child to end by itself, or ends it; `None` when it was told to.
    async fn run(&self, mut child: Child, stop: &CancellationToken) -> Option<ExitStatus> {
        // wait() would close it, and the child ends with it.
        let _lifeline = child.stdin.take();
        tokio::select! {
            status = child.wait() => return status.ok(),
            () = stop.cancelled() => {}
        }
        if let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()) {
            let pid = nix::unistd::Pid::from_raw(pid);
            // It may have ended a moment ago; wait() below tells.
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        }
        if tokio::time::timeout(self.drain_timeout, child.wait())
            .await
            .is_err()
        {
            tracing::warn!(process = self.name, "it did not end in time and is killed");
            let _ = child.kill().await;
        }
        None
    }
}

/// Whatever else it prints is nobody's; a full pipe would stop it.
async fn drain(mut lines: tokio::io::Lines<BufReader<ChildStdout>>) {
    while let Ok(Some(_)) = lines.next_line().await {}
}

/// The end of a log, indented as in a failure's text; empty where there is none.
pub(super) fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let last = &lines[lines.len().saturating_sub(LOG_TAIL_LINES)..];
    last.join("\n       ")
}

fn open_log(path: &Path) -> std::io::Result<std::fs::File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path)
}
