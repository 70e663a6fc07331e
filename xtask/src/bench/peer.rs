//! kube-apiserver with its etcd, to be measured beside.
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

/// The folder with the binaries.
pub fn found() -> Option<PathBuf> {
    let named = std::env::var_os("WEFT_ORACLE").map(PathBuf::from);
    let dir = named.unwrap_or_else(|| PathBuf::from("../.oracle"));
    let has = |name: &str| dir.join(name).is_file();
    (has("kube-apiserver") && has("etcd")).then_some(dir)
}

/// A kube-apiserver and its etcd, ended with this.
pub struct Peer {
    pub port: u16,
    children: Vec<Child>,
}

impl Peer {
    /// One whose clients show `token`.
    pub fn start(binaries: &Path, dir: &Path, token: &str) -> Result<Self> {
        // Freed at once: what listens there next is what is started here.
        let free = || -> Result<u16> { Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port()) };
        let (client, peer, port) = (free()?, free()?, free()?);
        let text = |path: PathBuf| path.display().to_string();
        let key = dir.join("sa.key");
        let made = Command::new("openssl")
            .args(["genrsa", "-out", &text(key.clone()), "2048"])
            .stderr(Stdio::null())
            .status()
            .context("starting openssl")?;
        ensure!(made.success(), "openssl made no key");
        fs::write(
            dir.join("tokens.csv"),
            format!("{token},bench,1,system:masters\n"),
        )?;
        let mut started = Self {
            port,
            children: Vec::new(),
        };
        let etcd = format!("http://127.0.0.1:{client}");
        let peers = format!("http://127.0.0.1:{peer}");
        started.run(
            dir,
            &binaries.join("etcd"),
            &[
                &format!("--data-dir={}", text(dir.join("etcd"))),
                &format!("--listen-client-urls={etcd}"),
                &format!("--advertise-client-urls={etcd}"),
                &format!("--listen-peer-urls={peers}"),
                &format!("--initial-advertise-peer-urls={peers}"),
                &format!("--initial-cluster=default={peers}"),
            ],
        )?;
        started.run(
            dir,
            &binaries.join("kube-apiserver"),
            &[
                &format!("--etcd-servers={etcd}"),
                &format!("--secure-port={port}"),
                "--bind-address=127.0.0.1",
                &format!("--cert-dir={}", text(dir.join("certs"))),
                &format!("--token-auth-file={}", text(dir.join("tokens.csv"))),
                "--authorization-mode=RBAC",
                // Nobody makes service accounts here, and pods are bound when they are made.
                "--disable-admission-plugins=ServiceAccount",
                "--service-account-issuer=https://127.0.0.1",
                &format!("--service-account-key-file={}", text(key.clone())),
                &format!("--service-account-signing-key-file={}", text(key)),
                "--service-cluster-ip-range=10.43.0.0/16",
                "--endpoint-reconciler-type=none",
            ],
        )?;
        let until = Instant::now() + START_TIMEOUT;
        while !started.is_ready(token) {
            if Instant::now() > until {
                bail!(
                    "kube-apiserver does not become ready: read {}",
                    dir.join("kube-apiserver.log").display()
                );
            }
            std::thread::sleep(Duration::from_millis(500));
        }
        Ok(started)
    }

    fn run(&mut self, dir: &Path, program: &Path, args: &[&str]) -> Result<()> {
        let name = program.file_name().unwrap_or_default().to_string_lossy();
        let log = fs::File::create(dir.join(format!("{name}.log")))?;
        let child = Command::new(program)
            .args(args)
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("starting {}", program.display()))?;
        self.children.push(child);
        Ok(())
    }

    /// Whether it serves the namespaces that it makes itself, the last of which is that of leases.
    fn is_ready(&self, token: &str) -> bool {
        let url = format!(
            "https://127.0.0.1:{}/api/v1/namespaces/kube-node-lease",
            self.port
        );
        let header = format!("Authorization: Bearer {token}");
        let asked = Command::new("curl")
            .args(["-sfk", "-o", "/dev/null", "-H", &header, &url])
            .status();
        asked.is_ok_and(|status| status.success())
    }

    /// The process of kube-apiserver.
    pub fn pid(&self) -> u32 {
        self.children.last().map_or(0, Child::id)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        for child in self.children.iter_mut().rev() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
