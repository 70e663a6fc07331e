//! The servers of the campaign: real processes, each where its network has it.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde_json::Value;
use weft_tests::cluster::weft;
use weft_tests::servers::ServerProcess;

use super::client::connect;
use super::fault::{Fault, Kind};
use super::network::Network;

/// An election takes 1.25 to 1.6 s, twice that after a split vote; far beyond is a cluster that does not come back.
const LEADER_MAX: Duration = Duration::from_secs(60);
const ANSWER_MAX: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(100);
const API_PORT: &str = "6443";
const PEER_PORT: &str = "6444";

pub struct Servers {
    // Before the network, which has to outlive them.
    processes: Vec<ServerProcess>,
    pub clients: Vec<kube::Client>,
    urls: Vec<String>,
    kubeconfig: PathBuf,
    pub network: Network,
}

impl Servers {
    /// Starts as many servers as the network has room for, as one cluster.
    ///
    /// # Errors
    /// What a server that did not become ready printed.
    pub async fn start(dir: &Path, network: Network, count: usize) -> anyhow::Result<Self> {
        let mut servers = Self {
            processes: Vec::new(),
            clients: Vec::new(),
            urls: Vec::new(),
            kubeconfig: PathBuf::new(),
            network,
        };
        for server in 0..count {
            let dir = dir.join(format!("server-{}", server + 1));
            let mut process = match servers.processes.first() {
                None => servers.launch(server, &dir, &[])?,
                Some(first) => servers.launch(server, &dir, &first.to_join())?,
            };
            process.wait_ready()?;
            let url = process.said["api"].as_str().context("a server's URL")?;
            servers.urls.push(url.to_owned());
            if server == 0 {
                servers.kubeconfig = process.kubeconfig();
            }
            servers.processes.push(process);
            servers.clients.push(servers.client(server).await?);
        }
        Ok(servers)
    }

    fn launch(&self, server: usize, dir: &Path, join: &[&str]) -> anyhow::Result<ServerProcess> {
        let address = self.network.address(server).to_string();
        let listen = [
            "--address",
            &address,
            "--api-port",
            API_PORT,
            "--peer-port",
            PEER_PORT,
        ];
        let command = self.network.command(server, &weft());
        ServerProcess::launch(command, dir, &[&listen[..], join].concat())
    }

    /// A client with connections of its own.
    ///
    /// # Errors
    /// When the kubeconfig cannot be read.
    pub async fn client(&self, server: usize) -> anyhow::Result<kube::Client> {
        connect(&self.kubeconfig, &self.urls[server]).await
    }

    /// Who leads, as the first one says that knows; while nothing is broken.
    ///
    /// # Errors
    /// When nobody knows for a minute.
    pub async fn leader(&self) -> anyhow::Result<usize> {
        let deadline = Instant::now() + LEADER_MAX;
        loop {
            for client in &self.clients {
                let request = http::Request::get("/weft/v1/servers").body(Vec::new())?;
                let answer =
                    tokio::time::timeout(ANSWER_MAX, client.request::<Value>(request)).await;
                let Ok(Ok(list)) = answer else { continue };
                let servers = list["servers"].as_array().into_iter().flatten();
                let mut leaders = servers.filter(|server| server["leader"] == true);
                let leader = leaders.next().and_then(|leader| leader["id"].as_u64());
                // The first one made the cluster and has number 1, the others joined in order.
                let index = leader.and_then(|id| usize::try_from(id).ok()?.checked_sub(1));
                if let Some(index) = index.filter(|index| *index < self.processes.len()) {
                    return Ok(index);
                }
            }
            if Instant::now() > deadline {
                bail!(
                    "no server leads {} s after everything was healed",
                    LEADER_MAX.as_secs()
                );
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Which servers' processes a fault is about.
    fn concerned(&self, fault: &Fault) -> std::ops::Range<usize> {
        match fault.kind {
            Kind::KillAll => 0..self.processes.len(),
            _ => fault.server..fault.server + 1,
        }
    }

    /// # Errors
    /// What the system answers.
    pub fn strike(&mut self, fault: &Fault) -> anyhow::Result<()> {
        let concerned = self.concerned(fault);
        match fault.kind {
            Kind::KillLeader | Kind::KillFollower | Kind::KillAll => {
                // All of them at once, before the first is waited for.
                for process in &self.processes[concerned.clone()] {
                    process.signal("-KILL")?;
                }
                for process in &mut self.processes[concerned] {
                    process.kill()?;
                }
            }
            Kind::PauseLeader | Kind::PauseFollower => {
                self.processes[fault.server].signal("-STOP")?;
            }
            Kind::CutLeader
            | Kind::CutFollower
            | Kind::MuteLeader
            | Kind::DeafLeader
            | Kind::Split => {
                for (from, to) in fault.cuts(self.processes.len()) {
                    self.network.cut(from, to)?;
                }
            }
        }
        Ok(())
    }

    /// # Errors
    /// What the system answers.
    pub fn heal(&mut self, fault: &Fault) -> anyhow::Result<()> {
        match fault.kind {
            Kind::KillLeader | Kind::KillFollower | Kind::KillAll => {
                for server in self.concerned(fault) {
                    let dir = self.processes[server].dir.clone();
                    self.processes[server] = self.launch(server, &dir, &[])?;
                }
            }
            Kind::PauseLeader | Kind::PauseFollower => {
                self.processes[fault.server].signal("-CONT")?;
            }
            Kind::CutLeader
            | Kind::CutFollower
            | Kind::MuteLeader
            | Kind::DeafLeader
            | Kind::Split => self.network.heal()?,
        }
        Ok(())
    }
}
