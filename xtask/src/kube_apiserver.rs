//! kube-apiserver with its etcd, to be asked or measured beside weft.
//!
//! Both run on loopback ports of their own, with their files in one folder, and end with this. What takes part is what is found:
//! the folder that `WEFT_ORACLE` names, else `.oracle` beside the checkout, with the binaries kube-apiserver and etcd.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

/// kube-apiserver needs some ten seconds on an idle machine.
const START_TIMEOUT: Duration = Duration::from_secs(180);
/// Between two looks whether it serves.
const PAUSE: Duration = Duration::from_millis(500);
/// It serves the namespaces that it makes itself; that of leases is the last of them.
const READY_PATH: &str = "/api/v1/namespaces/kube-node-lease";

/// The folder with the binaries.
pub fn found() -> Option<PathBuf> {
    let named = std::env::var_os("WEFT_ORACLE").map(PathBuf::from);
    let dir = named.unwrap_or_else(|| PathBuf::from("../.oracle"));
    let has = |name: &str| dir.join(name).is_file();
    (has("kube-apiserver") && has("etcd")).then_some(dir)
}

/// What differs from one use to another.
pub struct Setup<'a> {
    /// What its clients show: they are `system:masters`.
    pub token: &'a str,
    pub etcd_flags: &'a [&'a str],
    pub flags: &'a [&'a str],
}

/// A kube-apiserver and its etcd, ended with this.
pub struct KubeApiserver {
    pub port: u16,
    token: String,
    /// etcd first.
    children: Vec<Child>,
}

impl KubeApiserver {
    /// Starts both, and waits until it serves.
    ///
    /// # Errors
    /// When one does not start, or it is not ready after some minutes.
    pub fn start(binaries: &Path, dir: &Path, setup: &Setup<'_>) -> Result<Self> {
        // Freed at once: what listens there next is what is started here.
        let free = || -> Result<u16> { Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port()) };
        let (client, peer, port) = (free()?, free()?, free()?);
        let path = |name: &str| dir.join(name).display().to_string();
        let made = Command::new("openssl")
            .args(["genrsa", "-out", &path("sa.key"), "2048"])
            .stderr(Stdio::null())
            .status()
            .context("starting openssl")?;
        ensure!(made.success(), "openssl made no key");
        let token = setup.token;
        fs::write(
            dir.join("tokens.csv"),
            format!("{token},admin,1,system:masters\n"),
        )?;
        let mut started = Self {
            port,
            token: token.to_owned(),
            children: Vec::new(),
        };
        let etcd = format!("http://127.0.0.1:{client}");
        let peers = format!("http://127.0.0.1:{peer}");
        let own = [
            format!("--data-dir={}", path("etcd")),
            format!("--listen-client-urls={etcd}"),
            format!("--advertise-client-urls={etcd}"),
            format!("--listen-peer-urls={peers}"),
            format!("--initial-advertise-peer-urls={peers}"),
            format!("--initial-cluster=default={peers}"),
        ];
        started.run(dir, &binaries.join("etcd"), &own, setup.etcd_flags)?;
        let own = [
            format!("--etcd-servers={etcd}"),
            format!("--secure-port={port}"),
            "--bind-address=127.0.0.1".to_owned(),
            format!("--cert-dir={}", path("certs")),
            format!("--token-auth-file={}", path("tokens.csv")),
            "--service-account-issuer=https://127.0.0.1".to_owned(),
            format!("--service-account-key-file={}", path("sa.key")),
            format!("--service-account-signing-key-file={}", path("sa.key")),
            "--service-cluster-ip-range=10.43.0.0/16".to_owned(),
            "--endpoint-reconciler-type=none".to_owned(),
        ];
        started.run(dir, &binaries.join("kube-apiserver"), &own, setup.flags)?;
        let until = Instant::now() + START_TIMEOUT;
        while !started.is_ready() {
            if Instant::now() > until {
                bail!(
                    "kube-apiserver does not become ready: read {}",
                    dir.join("kube-apiserver.log").display()
                );
            }
            std::thread::sleep(PAUSE);
        }
        Ok(started)
    }

    fn run(&mut self, dir: &Path, program: &Path, own: &[String], flags: &[&str]) -> Result<()> {
        let name = program.file_name().unwrap_or_default().to_string_lossy();
        let log = fs::File::create(dir.join(format!("{name}.log")))?;
        let child = Command::new(program)
            .args(own)
            .args(flags)
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("starting {}", program.display()))?;
        self.children.push(child);
        Ok(())
    }

    /// The URL of a path.
    pub fn url(&self, path: &str) -> String {
        format!("https://127.0.0.1:{}{path}", self.port)
    }

    /// The header that its clients show.
    pub fn authorization(&self) -> String {
        format!("Authorization: Bearer {}", self.token)
    }

    fn is_ready(&self) -> bool {
        let asked = Command::new("curl")
            .args(["-sfk", "-o", "/dev/null", "-H", &self.authorization()])
            .arg(self.url(READY_PATH))
            .status();
        asked.is_ok_and(|status| status.success())
    }

    /// The process of etcd.
    pub fn etcd_pid(&self) -> u32 {
        self.children.first().map_or(0, Child::id)
    }

    /// The process of kube-apiserver.
    pub fn pid(&self) -> u32 {
        self.children.last().map_or(0, Child::id)
    }
}

impl Drop for KubeApiserver {
    fn drop(&mut self) {
        for child in self.children.iter_mut().rev() {
            // It may have ended by itself, which is what is wanted.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
