//! A network namespace for each server, on a bridge of their own, with nftables between them.
//!
//! The clients stay outside and reach every server whatever is cut: a server without the others must not answer as if
//! it had them. Where namespaces cannot be made the servers listen on addresses of the loopback interface, and nothing is
//! cut. Dropping the network takes it down.

use std::net::Ipv4Addr;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};

/// Drops what arrives from another server; empty while nothing is cut.
const TABLE: &str = "inet chaos";

pub struct Network {
    /// Empty where there are no namespaces.
    spaces: Vec<String>,
    bridge: String,
    addresses: Vec<Ipv4Addr>,
}

impl Network {
    /// Namespaces for `servers` servers.
    ///
    /// # Errors
    /// What is missing: root, `ip`, `nft`, or the kernel's support for them.
    pub fn cut_off(servers: u8) -> anyhow::Result<Self> {
        let user = Command::new("id").arg("-u").output();
        if user.context("running id")?.stdout.trim_ascii() != b"0" {
            bail!("it needs root");
        }
        run("nft", "--version")?;
        // Names and addresses that a run beside this one does not have; an interface's name has at most 15 letters.
        let process = std::process::id();
        let [low, ..] = process.to_le_bytes();
        let address = |host: u8| Ipv4Addr::new(10, 231, low, host);
        let mut network = Self {
            spaces: Vec::new(),
            bridge: format!("wc{process}"),
            addresses: (1..=servers).map(address).collect(),
        };
        let bridge = network.bridge.clone();
        ip(&format!("link add {bridge} type bridge"))?;
        ip(&format!("addr add {}/24 dev {bridge}", address(254)))?;
        ip(&format!("link set {bridge} up"))?;
        for server in 1..=servers {
            let space = format!("weft-chaos-{process}-{server}");
            ip(&format!("netns add {space}"))?;
            network.spaces.push(space.clone());
            let port = format!("{bridge}p{server}");
            ip(&format!(
                "link add {port} type veth peer name eth0 netns {space}"
            ))?;
            ip(&format!("link set {port} master {bridge} up"))?;
            ip(&format!(
                "-n {space} addr add {}/24 dev eth0",
                address(server)
            ))?;
            ip(&format!("-n {space} link set eth0 up"))?;
            ip(&format!("-n {space} link set lo up"))?;
            inside(&space, &format!("nft add table {TABLE}"))?;
            inside(
                &space,
                &format!("nft add chain {TABLE} in {{ type filter hook input priority 0 ; }}"),
            )?;
        }
        Ok(network)
    }

    /// Addresses of the loopback interface; nothing can be cut.
    pub fn loopback(servers: u8) -> Self {
        Self {
            spaces: Vec::new(),
            bridge: String::new(),
            addresses: (1..=servers)
                .map(|server| Ipv4Addr::new(127, 83, 0, server))
                .collect(),
        }
    }

    pub fn cuts(&self) -> bool {
        !self.spaces.is_empty()
    }

    pub fn address(&self, server: usize) -> Ipv4Addr {
        self.addresses[server]
    }

    /// How a program is started where a server is.
    pub fn command(&self, server: usize, program: &Path) -> Command {
        let mut command = match self.spaces.get(server) {
            None => Command::new(program),
            Some(space) => {
                // It becomes the program: a signal to its process reaches it.
                let mut command = Command::new("ip");
                command.args(["netns", "exec", space]).arg(program);
                command
            }
        };
        // A Ctrl-C is for the campaign: the servers are still asked what is there at the end.
        command.process_group(0);
        command
    }

    /// Lets nothing through from one server to another, without a word to either.
    ///
    /// # Errors
    /// What `nft` says.
    pub fn cut(&self, from: usize, to: usize) -> anyhow::Result<()> {
        let space = self
            .spaces
            .get(to)
            .context("there are no namespaces to cut")?;
        let from = self.address(from);
        inside(
            space,
            &format!("nft add rule {TABLE} in ip saddr {from} drop"),
        )
    }

    /// Lets everything through again.
    ///
    /// # Errors
    /// What `nft` says.
    pub fn heal(&self) -> anyhow::Result<()> {
        for space in &self.spaces {
            inside(space, &format!("nft flush chain {TABLE} in"))?;
        }
        Ok(())
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // The links end with the namespaces; what is left is named in what `ip` says.
        for space in &self.spaces {
            if let Err(error) = ip(&format!("netns del {space}")) {
                eprintln!("warning: {error:#}");
            }
        }
        if !self.bridge.is_empty()
            && let Err(error) = ip(&format!("link del {}", self.bridge))
        {
            eprintln!("warning: {error:#}");
        }
    }
}

fn ip(arguments: &str) -> anyhow::Result<()> {
    run("ip", arguments)
}

fn inside(space: &str, command: &str) -> anyhow::Result<()> {
    ip(&format!("netns exec {space} {command}"))
}

fn run(program: &str, arguments: &str) -> anyhow::Result<()> {
    let output = Command::new(program)
        .args(arguments.split(' '))
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {program}"))?;
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr);
        bail!("`{program} {arguments}` failed: {}", error.trim());
    }
    Ok(())
}
