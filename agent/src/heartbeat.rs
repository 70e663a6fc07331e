//! This node's own object: registration, conditions, lease.
//!
//! ```text
//! start      create or adopt the Node, wait for its pod CIDR
//! every 1 s  renew the Lease in kube-node-lease                    (the server calls the node lost after 8 s without, and after
//!            two that did not come once its connections have ended: a renewal says that it only went to another server; pods that
//!            ask for it are stopped here before that: `fence`)
//! every 10 s look whether memory, disk or processes run short, and whether the servers say of the node what it said last: one that could
//!            not see the renewals in time has said that nobody knows how it is
//! every 5 m  and on change: write status.conditions
//! shutdown   Ready=False, so that endpoints leave before the listeners do
//! ```
//!
//! Invariants: only the fields a kubelet owns are written; the Ready condition is never reported before the node can
//! serve; a lost connection changes nothing but the age of the lease.

use crate::fence::{self, Renewals};
use crate::identity::{Chain, Link};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::{
    DaemonEndpoint, Node, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeSpec, NodeStatus,
    NodeSystemInfo,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference, Time};
use kube::api::{Api, Patch, PatchParams, PostParams};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use weft_api::annotation;

/// How often the lease is renewed when nobody says otherwise.
pub const LEASE_EVERY_SECONDS: u64 = 1;
/// The longest pause that still leaves two renewals, lost ones, within the lease.
pub const LEASE_EVERY_SECONDS_MAX: u64 = 2;
/// What the lease claims: the time after which the node counts as lost.
pub const LEASE_SECONDS: i32 = 8;
/// How long one renewal, or one report, may take: half of the lease, so that one which is lost leaves time for another.
const RENEWAL_MAX: Duration = Duration::from_secs(4);
/// How often conditions are written though nothing changed; as the kubelet.
const STATUS_EVERY: Duration = Duration::from_secs(300);
/// How often memory and disk are looked at, and what the servers say of the node; as the kubelet.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// How long the servers may take for the latter: the lease waits meanwhile.
const LOOK_MAX: Duration = Duration::from_secs(1);
/// How often the pod CIDR is asked for while it is missing.
const CIDR_EVERY: Duration = Duration::from_millis(100);
/// Longest pause between two attempts to register.
const REGISTER_PAUSE_MAX: Duration = Duration::from_secs(5);
/// Most pods on a node. A pod whose HTTP component is idle is a record of a few kilobytes.
pub const PODS_MAX: u32 = 20_000;
/// Free memory below this is MemoryPressure; the kubelet's `memory.available<100Mi`.
const MEMORY_FREE_MIN: u64 = 100 << 20;
/// Free disk below this is DiskPressure: room for a few images and their machine code.
const DISK_FREE_MIN: u64 = 200 << 20;
/// Processes this node may still start below which it reports PIDPressure.
const PIDS_FREE_MIN: u64 = 64;

/// What a node says about itself.
#[derive(Clone, Debug)]
pub struct Facts {
    pub name: String,
    pub address: IpAddr,
    pub mesh_address: SocketAddr,
    /// Where it takes requests from outside of the cluster.
    pub gateway_port: u16,
    /// Ranges of addresses that it has for Services and Gateways, apart by commas.
    pub service_addresses: Option<String>,
    pub node_port: u16,
    pub cpu_millis: u64,
    pub memory_bytes: u64,
    /// How often the lease is renewed: 1 or 2, [`LEASE_EVERY_SECONDS_MAX`] at most.
    pub lease_every_seconds: u64,
    /// Asked for by flag; otherwise the node controller assigns one.
    pub pod_cidr: Option<String>,
    /// `v1.37.x+weft.N`, as the server's `/version`.
    pub version: String,
    /// Where images and logs live; its file system decides DiskPressure.
    pub data_dir: PathBuf,
}

/// What the machine has, for nodes that are not told by flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Machine {
    pub cpu_millis: u64,
    pub memory_bytes: u64,
}

impl Machine {
    /// Asks the operating system, cgroup limits included.
    pub fn detect() -> Self {
        let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get) as u64;
        let physical = memory_info("MemTotal:").unwrap_or(1 << 30);
        let limit = std::fs::read_to_string("/sys/fs/cgroup/memory.max")
            .ok()
            .and_then(|text| text.trim().parse::<u64>().ok());
        Self {
            cpu_millis: cpus * 1000,
            memory_bytes: limit.map_or(physical, |limit| limit.min(physical)),
        }
    }
}

/// The lowest port that this process may listen at; 0 where it may listen at any.
fn lowest_port() -> u16 {
    /// `CAP_NET_BIND_SERVICE`.
    const MAY_BIND: u64 = 1 << 10;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let held = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let held = held.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    if held.is_some_and(|held| held & MAY_BIND != 0) {
        return 0;
    }
    let start = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    let start = start.ok().and_then(|text| text.trim().parse().ok());
    start.unwrap_or(1024)
}

/// What this process has used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProcessUsage {
    /// CPU time of all threads since the start.
    pub cpu_nanos: u64,
    /// Resident memory.
    pub memory_bytes: u64,
}

/// Asks the operating system; zero where it does not tell.
pub fn process_usage() -> ProcessUsage {
    // `utime` and `stime` count in these, on every Linux of today.
    const TICK_NANOS: u64 = 10_000_000;
    let cpu = || -> Option<u64> {
        let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
        // The name, in parentheses, may contain spaces.
        let mut fields = stat.rsplit_once(") ")?.1.split(' ').skip(11);
        let mut next = || fields.next()?.parse::<u64>().ok();
        Some((next()? + next()?) * TICK_NANOS)
    };
    let memory = || -> Option<u64> {
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))?;
        let kilobytes = line.trim().strip_suffix("kB")?.trim();
        Some(kilobytes.parse::<u64>().ok()? << 10)
    };
    ProcessUsage {
        cpu_nanos: cpu().unwrap_or_default(),
        memory_bytes: memory().unwrap_or_default(),
    }
}

/// Keeps the Node and its Lease.
pub struct Heartbeat {
    facts: Facts,
    link: Link,
    uid: String,
    conditions: Vec<NodeCondition>,
}

impl Heartbeat {
    /// Registers the node, not ready yet, and returns its pod CIDR once it has one.
    ///
    /// Repeats while the server cannot be reached; returns `None` only on `shutdown`.
    pub async fn register(
        facts: Facts,
        link: Link,
        shutdown: &CancellationToken,
    ) -> Option<(Self, String)> {
        let mut heartbeat = Self {
            facts,
            link,
            uid: String::new(),
            conditions: Vec::new(),
        };
        let mut pause = Duration::from_millis(100);
        loop {
            match heartbeat.register_once().await {
                Ok(Some(cidr)) => return Some((heartbeat, cidr)),
                Ok(None) => pause = CIDR_EVERY,
                Err(error) => {
                    tracing::warn!(node = %heartbeat.facts.name, error = %Chain(&error), "registering the node failed, will be repeated");
                    pause = (pause * 2).min(REGISTER_PAUSE_MAX);
                }
            }
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return None,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    async fn register_once(&mut self) -> Result<Option<String>, kube::Error> {
        let api: Api<Node> = Api::all(self.link.client());
        if self.uid.is_empty() {
            let node = node_object(&self.facts);
            let known = match api.create(&PostParams::default(), &node).await {
                Ok(created) => created,
                Err(kube::Error::Api(status)) if status.code == 409 => {
                    // Ours from before a restart: bring labels and addresses up to date, keep what others added.
                    let patch = serde_json::json!({"metadata": {"labels": node.metadata.labels, "annotations": node.metadata.annotations}});
                    api.patch(
                        &self.facts.name,
                        &PatchParams::default(),
                        &Patch::Merge(&patch),
                    )
                    .await?
                }
                Err(error) => return Err(error),
            };
            self.conditions = known
                .status
                .as_ref()
                .and_then(|status| status.conditions.clone())
                .unwrap_or_default();
            self.uid = known.metadata.uid.clone().unwrap_or_default();
            self.write_status(Some(("KubeletNotReady", "the node is starting")))
                .await?;
            if let Err(error) = self.renew_lease().await {
                tracing::debug!(error = %Chain(&error), "first lease not written yet");
            }
            if let Some(cidr) = pod_cidr(&known) {
                return Ok(Some(cidr));
            }
        }
        Ok(pod_cidr(&api.get(&self.facts.name).await?))
    }

    /// Reports ready, then renews until `shutdown`, then reports not ready.
    pub(crate) async fn run(mut self, renewals: Renewals, shutdown: CancellationToken) {
        let mut unready: Option<(&str, &str)> = None;
        let mut written: Option<tokio::time::Instant> = None;
        let mut pressure = self.pressure();
        let mut looked = tokio::time::Instant::now();
        let every = self.facts.lease_every_seconds;
        let every = every.clamp(1, LEASE_EVERY_SECONDS_MAX);
        let mut ticks = tokio::time::interval(Duration::from_secs(every));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut renewed = (looked, Timestamp::now());
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                _ = ticks.tick() => {}
            }
            if was_silent(renewed.0.elapsed(), renewed.1, Timestamp::now()) {
                written = None;
            }
            if looked.elapsed() >= LOOK_EVERY {
                looked = tokio::time::Instant::now();
                let now = self.pressure();
                if now != pressure {
                    pressure = now;
                    written = None;
                }
                let told = tokio::time::timeout(LOOK_MAX, self.told()).await;
                if let Ok(Ok(told)) = told
                    && !says_all_of(&told, &self.conditions)
                {
                    // What changes back has changed now.
                    self.conditions = told;
                    written = None;
                }
            }
            if written.is_none_or(|at| at.elapsed() >= STATUS_EVERY) {
                match tokio::time::timeout(RENEWAL_MAX, self.write_status(unready)).await {
                    Ok(Ok(())) => written = Some(tokio::time::Instant::now()),
                    // Deleted by somebody: come back as a new object.
                    Ok(Err(kube::Error::Api(status))) if status.code == 404 => {
                        self.uid.clear();
                        if let Err(error) = self.register_once().await {
                            tracing::warn!(error = %Chain(&error), "registering the node again failed, will be repeated");
                        }
                    }
                    Ok(Err(error)) => {
                        tracing::debug!(error = %Chain(&error), "node status not written, will be repeated")
                    }
                    Err(_) => tracing::debug!("node status not written in time, will be repeated"),
                }
            }
            let asked_at = tokio::time::Instant::now();
            let asked = (asked_at, Timestamp::now());
            match tokio::time::timeout(RENEWAL_MAX, self.renew_lease()).await {
                Ok(Ok(())) => {
                    renewals.succeeded(asked_at);
                    renewed = asked;
                    continue;
                }
                Ok(Err(error)) => {
                    tracing::debug!(error = %Chain(&error), "lease not renewed, will be repeated");
                }
                Err(_) => tracing::debug!("lease not renewed in time, will be repeated"),
            }
            // Whoever takes over may have marked this node lost in the meantime; say again how it is.
            written = None;
        }
        unready = Some(("NodeShutdown", "the node is shutting down"));
        // The server may be going down with us; it is not worth waiting for.
        let goodbye =
            tokio::time::timeout(Duration::from_secs(1), self.write_status(unready)).await;
        if !matches!(goodbye, Ok(Ok(()))) {
            tracing::debug!("could not report that the node is shutting down");
        }
    }

    async fn renew_lease(&self) -> Result<(), kube::Error> {
        let api: Api<Lease> = Api::namespaced(self.link.client(), "kube-node-lease");
        let now = MicroTime(Timestamp::now());
        let every = self.facts.lease_every_seconds.to_string();
        let annotations = BTreeMap::from([
            (annotation::RENEWED_EVERY.to_owned(), every),
            (
                annotation::FENCES_WITHIN.to_owned(),
                fence::WITHIN_SECONDS.to_string(),
            ),
        ]);
        let patch = serde_json::json!({"metadata": {"annotations": annotations}, "spec": {"holderIdentity": self.facts.name, "leaseDurationSeconds": LEASE_SECONDS, "renewTime": now}});
        match api
            .patch(
                &self.facts.name,
                &PatchParams::default(),
                &Patch::Merge(&patch),
            )
            .await
        {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 => {
                let lease = Lease {
                    metadata: ObjectMeta {
                        name: Some(self.facts.name.clone()),
                        namespace: Some("kube-node-lease".into()),
                        annotations: Some(annotations),
                        owner_references: Some(vec![OwnerReference {
                            api_version: "v1".into(),
                            kind: "Node".into(),
                            name: self.facts.name.clone(),
                            uid: self.uid.clone(),
                            ..OwnerReference::default()
                        }]),
                        ..ObjectMeta::default()
                    },
                    spec: Some(LeaseSpec {
                        holder_identity: Some(self.facts.name.clone()),
                        lease_duration_seconds: Some(LEASE_SECONDS),
                        renew_time: Some(now),
                        ..LeaseSpec::default()
                    }),
                };
                api.create(&PostParams::default(), &lease).await.map(|_| ())
            }
            Err(error) => Err(error),
        }
    }

    /// What the servers say of the node.
    async fn told(&self) -> Result<Vec<NodeCondition>, kube::Error> {
        let api: Api<Node> = Api::all(self.link.client());
        let node = api.get(&self.facts.name).await?;
        Ok(node
            .status
            .and_then(|status| status.conditions)
            .unwrap_or_default())
    }

    async fn write_status(&mut self, unready: Option<(&str, &str)>) -> Result<(), kube::Error> {
        let now = Timestamp::now();
        let conditions = conditions(&self.conditions, self.pressure(), unready, now);
        let mut status = node_status(&self.facts);
        status.conditions = Some(conditions.clone());
        let api: Api<Node> = Api::all(self.link.client());
        let patch = serde_json::json!({ "status": status });
        api.patch_status(
            &self.facts.name,
            &PatchParams::default(),
            &Patch::Merge(&patch),
        )
        .await?;
        self.conditions = conditions;
        Ok(())
    }

    fn pressure(&self) -> Pressure {
        Pressure {
            memory: memory_info("MemAvailable:").is_some_and(|free| free < MEMORY_FREE_MIN),
            disk: disk_free(&self.facts.data_dir).is_some_and(|free| free < DISK_FREE_MIN),
            pids: pids_free().is_some_and(|free| free < PIDS_FREE_MIN),
        }
    }
}

/// Whether `told` has each condition that the node wrote with the status that it gave it; those of others are theirs.
fn says_all_of(told: &[NodeCondition], written: &[NodeCondition]) -> bool {
    written.iter().all(|own| {
        told.iter()
            .any(|told| told.type_ == own.type_ && told.status == own.status)
    })
}

/// Whether so much time has passed since the lease was renewed that the servers may have said of the node that nobody knows how it is.
/// A process that was stopped, or a machine that slept, has seen no renewal fail, and a machine's own time stands still while it sleeps.
fn was_silent(passed: Duration, renewed: Timestamp, now: Timestamp) -> bool {
    let by_the_clock = Duration::try_from(now.duration_since(renewed)).unwrap_or_default();
    passed.max(by_the_clock) >= RENEWAL_MAX
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Pressure {
    memory: bool,
    disk: bool,
    pids: bool,
}

fn pod_cidr(node: &Node) -> Option<String> {
    node.spec
        .as_ref()
        .and_then(|spec| spec.pod_cidr.clone())
        .filter(|cidr| !cidr.is_empty())
}

/// The Node as it is first created.
fn node_object(facts: &Facts) -> Node {
    let labels = [
        (annotation::HOSTNAME, facts.name.as_str()),
        ("kubernetes.io/arch", architecture()),
        ("kubernetes.io/os", std::env::consts::OS),
        ("beta.kubernetes.io/arch", architecture()),
        ("beta.kubernetes.io/os", std::env::consts::OS),
        ("weft.dev/runtime", "wasmtime"),
    ];
    let owned = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
    Node {
        metadata: ObjectMeta {
            name: Some(facts.name.clone()),
            labels: Some(labels.map(owned).into()),
            annotations: Some(
                [
                    (annotation::MESH_ADDRESS, facts.mesh_address.to_string()),
                    (annotation::GATEWAY_PORT, facts.gateway_port.to_string()),
                    (annotation::LOWEST_PORT, lowest_port().to_string()),
                ]
                .into_iter()
                .chain(
                    facts
                        .service_addresses
                        .iter()
                        .map(|ranges| (annotation::SERVICE_ADDRESSES, ranges.clone())),
                )
                .map(|(key, value)| (key.to_owned(), value))
                .collect(),
            ),
            ..ObjectMeta::default()
        },
        spec: facts.pod_cidr.as_ref().map(|cidr| NodeSpec {
            pod_cidr: Some(cidr.clone()),
            pod_cidrs: Some(vec![cidr.clone()]),
            ..NodeSpec::default()
        }),
        status: Some(node_status(facts)),
    }
}

fn node_status(facts: &Facts) -> NodeStatus {
    let resources: BTreeMap<String, Quantity> = [
        (
            "cpu",
            weft_api::Quantity::from_milli(i128::from(facts.cpu_millis)).to_string(),
        ),
        ("memory", format!("{}Ki", facts.memory_bytes / 1024)),
        ("pods", PODS_MAX.to_string()),
    ]
    .map(|(name, amount)| (name.to_owned(), Quantity(amount)))
    .into();
    let machine_id = std::fs::read_to_string("/etc/machine-id")
        .unwrap_or_default()
        .trim()
        .to_owned();
    let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .unwrap_or_default()
        .trim()
        .to_owned();
    let kernel_version = std::fs::read_to_string("/proc/sys/kernel/osrelease")
        .unwrap_or_default()
        .trim()
        .to_owned();
    let os_image = std::fs::read_to_string("/etc/os-release")
        .unwrap_or_default()
        .lines()
        .find_map(|line| {
            line.strip_prefix("PRETTY_NAME=")
                .map(|name| name.trim_matches('"').to_owned())
        })
        .unwrap_or_else(|| std::env::consts::OS.to_owned());
    NodeStatus {
        capacity: Some(resources.clone()),
        allocatable: Some(resources),
        addresses: Some(vec![
            NodeAddress {
                type_: "InternalIP".into(),
                address: facts.address.to_string(),
            },
            NodeAddress {
                type_: "Hostname".into(),
                address: facts.name.clone(),
            },
        ]),
        daemon_endpoints: Some(NodeDaemonEndpoints {
            kubelet_endpoint: Some(DaemonEndpoint {
                port: i32::from(facts.node_port),
            }),
        }),
        node_info: Some(NodeSystemInfo {
            architecture: architecture().to_owned(),
            system_uuid: machine_id.clone(),
            machine_id,
            boot_id,
            kernel_version,
            os_image,
            operating_system: std::env::consts::OS.to_owned(),
            container_runtime_version: format!("wasmtime://{RUNTIME_VERSION}"),
            kubelet_version: facts.version.clone(),
            kube_proxy_version: String::new(),
            ..NodeSystemInfo::default()
        }),
        ..NodeStatus::default()
    }
}

/// The engine behind `containerRuntimeVersion`; pinned with the workspace's wasmtime.
pub const RUNTIME_VERSION: &str = "48.0.8";

/// Kubernetes' name of this machine's architecture.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn conditions(
    before: &[NodeCondition],
    pressure: Pressure,
    unready: Option<(&str, &str)>,
    now: Timestamp,
) -> Vec<NodeCondition> {
    let verdict = |bad: bool,
                   bad_words: (&'static str, &'static str),
                   good_words: (&'static str, &'static str)| {
        let (reason, message) = if bad { bad_words } else { good_words };
        (
            if bad { "True" } else { "False" },
            reason.to_owned(),
            message.to_owned(),
        )
    };
    let memory = verdict(
        pressure.memory,
        (
            "KubeletHasInsufficientMemory",
            "the machine is short of memory",
        ),
        (
            "KubeletHasSufficientMemory",
            "the machine has sufficient memory available",
        ),
    );
    let disk = verdict(
        pressure.disk,
        ("KubeletHasDiskPressure", "the disk is nearly full"),
        ("KubeletHasNoDiskPressure", "the disk has room"),
    );
    let pids = verdict(
        pressure.pids,
        (
            "KubeletHasInsufficientPID",
            "the machine is short of process ids",
        ),
        (
            "KubeletHasSufficientPID",
            "the machine has sufficient process ids available",
        ),
    );
    let ready = match unready {
        Some((reason, message)) => ("False", reason.to_owned(), message.to_owned()),
        None => (
            "True",
            "KubeletReady".to_owned(),
            "weft is posting ready status".to_owned(),
        ),
    };
    [
        ("MemoryPressure", memory),
        ("DiskPressure", disk),
        ("PIDPressure", pids),
        ("Ready", ready),
    ]
    .into_iter()
    .map(|(type_, (status, reason, message))| {
        let since = before
            .iter()
            .find(|condition| condition.type_ == type_ && condition.status == status)
            .and_then(|condition| condition.last_transition_time.clone());
        NodeCondition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: Some(reason),
            message: Some(message),
            last_heartbeat_time: Some(Time(now)),
            last_transition_time: Some(since.unwrap_or(Time(now))),
        }
    })
    .collect()
}

/// A line of `/proc/meminfo`, in bytes.
fn memory_info(field: &str) -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(field))?;
    line.trim()
        .strip_suffix(" kB")?
        .trim()
        .parse::<u64>()
        .ok()
        .map(|kib| kib * 1024)
}

fn disk_free(path: &Path) -> Option<u64> {
    let stats = nix::sys::statvfs::statvfs(path).ok()?;
    Some(stats.blocks_available() * stats.fragment_size())
}

fn pids_free() -> Option<u64> {
    let number = |path: &str| {
        std::fs::read_to_string(path)
            .ok()?
            .trim()
            .parse::<u64>()
            .ok()
    };
    let most = number("/sys/fs/cgroup/pids.max").or_else(|| number("/proc/sys/kernel/pid_max"))?;
    let used = number("/sys/fs/cgroup/pids.current").or_else(|| {
        let load = std::fs::read_to_string("/proc/loadavg").ok()?;
        load.split_whitespace()
            .nth(3)?
            .split('/')
            .nth(1)?
            .parse()
            .ok()
    })?;
    Some(most.saturating_sub(used))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Such a node renewed its lease at once and was not ready for five minutes.
    #[test]
    fn who_was_stopped_or_slept_says_anew_how_it_is() {
        let at = |second| Timestamp::from_second(second).unwrap();
        for (passed, renewed, now, expected) in [
            (1, 100, 101, false),
            (3, 100, 103, false),
            // Stopped, with the lease of eight seconds or without its end.
            (4, 100, 104, true),
            (600, 100, 700, true),
            // Asleep: only the clock went on.
            (1, 100, 700, true),
            // A clock that was put back says nothing.
            (1, 100, 50, false),
            (9, 100, 50, true),
        ] {
            let passed = Duration::from_secs(passed);
            let found = was_silent(passed, at(renewed), at(now));
            assert_eq!(found, expected, "{passed:?} {renewed} {now}");
        }
    }

    /// A leader that stood still for as long as a lease lasts found it run out: the node, which knew of nothing, was not ready for five minutes.
    #[test]
    fn what_the_servers_say_of_a_node_is_what_it_said() {
        let said = |text: &str| -> Vec<NodeCondition> {
            let pairs = text
                .split_whitespace()
                .filter_map(|pair| pair.split_once('='));
            let condition = |(name, status): (&str, &str)| NodeCondition {
                type_: name.into(),
                status: status.into(),
                ..NodeCondition::default()
            };
            pairs.map(condition).collect()
        };
        for (told, written, expected) in [
            (
                "Ready=True DiskPressure=False",
                "Ready=True DiskPressure=False",
                true,
            ),
            (
                "DiskPressure=False Ready=True",
                "Ready=True DiskPressure=False",
                true,
            ),
            (
                "Ready=Unknown DiskPressure=Unknown",
                "Ready=True DiskPressure=False",
                false,
            ),
            (
                "Ready=True DiskPressure=Unknown",
                "Ready=True DiskPressure=False",
                false,
            ),
            ("", "Ready=True", false),
            // Of somebody else, such as a problem detector.
            ("Ready=True KernelDeadlock=True", "Ready=True", true),
            // Not even registered.
            ("Ready=Unknown", "", true),
        ] {
            let found = says_all_of(&said(told), &said(written));
            assert_eq!(found, expected, "{told} / {written}");
        }
    }

    #[test]
    fn a_condition_keeps_its_time_while_its_status_stays() {
        let at = |second| Timestamp::from_second(second).expect("in range");
        let first = conditions(
            &[],
            Pressure::default(),
            Some(("KubeletNotReady", "the node is starting")),
            at(1),
        );
        let second = conditions(
            &first,
            Pressure {
                memory: true,
                ..Pressure::default()
            },
            None,
            at(2),
        );
        let text: Vec<String> = second
            .iter()
            .map(|c| {
                format!(
                    "{}={} {} since {}",
                    c.type_,
                    c.status,
                    c.reason.as_deref().unwrap_or("-"),
                    c.last_transition_time
                        .as_ref()
                        .map_or(0, |t| t.0.as_second())
                )
            })
            .collect();
        insta::assert_snapshot!(text.join("\n"), @r"
        MemoryPressure=True KubeletHasInsufficientMemory since 2
        DiskPressure=False KubeletHasNoDiskPressure since 1
        PIDPressure=False KubeletHasSufficientPID since 1
        Ready=True KubeletReady since 2
        ");
    }

    #[test]
    fn a_process_uses_something() {
        let used = process_usage();
        assert!(used.memory_bytes > 1 << 20, "{used:?}");
    }

    #[test]
    fn the_machine_has_something_to_offer() {
        let machine = Machine::detect();
        assert!(
            machine.cpu_millis >= 1000 && machine.memory_bytes > 64 << 20,
            "{machine:?}"
        );
    }
}
