//! The agent of one node: makes this node match the pods bound to it.
//!
//! ```text
//! API server ──watch pods──► sync ──► execute (one worker a pod) ──► plan      decides, pure: wanted + pod_state → actions
//!      ▲                                 │          ├► prepare ─────► unsupported, translate, environment: Pod → WorkloadSpec, pure
//!      │                                 │          └► run ──────────► one run of a container: mesh, command, probes, exit
//!      │                                 ├──► image, volumes, logs ─► weft_runtime
//!      │                                 ├──► sockets: what guests listen on and connect to
//!      │                                 └──► bridge ──► weft_mesh ◄── topology ◄──watch services, endpoints, routes── API server
//!      └── status, events, heartbeat, identity (certificate requests)            http ◄── logs, metrics ── API server
//! ```
//!
//! It talks to the cluster only through the public API, as any client would, under the node's own certificate. All of it is
//! control work and runs on the runtime it is called on; guests run on [`weft_runtime::Cores`].
//!
//! Invariants: nothing here is authoritative, a restarted agent takes up what the API says; while the server is away, pods
//! go on as last wished; secrets and keys are never logged.
//!
//! Left to others: opening the listeners of mesh and gateway (`weft::node`), scheduling, endpoints.

pub mod access_log;
pub mod addresses;
pub mod bridge;
mod cgroup;
mod clock;
pub mod config_error;
pub mod configuration;
mod console;
mod context;
mod deletion;
mod downward;
pub mod environment;
pub mod events;
pub mod execute;
mod exit;
pub mod failures;
mod fence;
mod file_work;
pub mod grants;
pub mod guest;
pub mod heartbeat;
mod hooks;
mod host_aliases;
mod host_ports;
pub mod http;
pub mod identity;
pub mod image;
mod kept_pod;
mod last_words;
pub mod logs;
mod mailbox;
mod metrics;
pub mod node;
pub mod node_facts;
pub mod otlp;
pub mod plan;
mod pod_events;
mod pod_facts;
mod pod_names;
mod pod_proxy;
mod pod_report;
pub mod pod_state;
mod pod_stream;
pub mod pod_view;
mod port_forward;
pub mod prepare;
pub mod probes;
#[cfg(test)]
mod properties;
pub mod publisher;
pub mod registry;
mod resize;
mod root_files;
pub mod roots;
mod run;
pub mod session;
mod sighting;
mod socket_probe;
pub mod sockets;
mod spans;
pub mod status;
mod streams;
pub mod sync;
mod sysctl;
mod tap;
pub mod toolbox;
pub mod topology;
pub mod translate;
pub mod trust;
pub mod unsupported;
mod user;
pub mod volumes;
mod wake;
pub mod wanted;
pub mod workers;

use crate::addresses::Addresses;
use crate::events::{Recorder, Severity};
use crate::fence::Fence;
use crate::grants::Grants;
use crate::heartbeat::{Facts, Heartbeat};
use crate::host_ports::HostPorts;
use crate::identity::{Chain, IdentityError, NodeIdentity, Server, Serving, Workloads};
use crate::image::Images;
use crate::logs::Logs;
use crate::node::Node;
use crate::node_facts::NodeFacts;
use crate::publisher::Publisher;
use crate::registry::Registry;
use crate::resize::Shares;
use crate::roots::Roots;
use crate::session::Sessions;
use crate::sockets::Sockets;
use crate::toolbox::Toolbox;
use crate::topology::Topology;
use crate::volumes::Volumes;
use crate::workers::Workers;
use bytes::Bytes;
use parking_lot::Mutex;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use weft_mesh::Mesh;
use weft_runtime::worker::WorkerCommand;
use weft_runtime::{Cores, Engine};

/// How long statuses that are still waiting may take when the node goes.
const FAREWELL_MAX: Duration = Duration::from_secs(1);

/// Code that was not called for this long, and up to twice as long, is unloaded while its pods stay. A call then waits some
/// milliseconds for it: rare enough not to be felt, and a node holds what is in use instead of what it ever ran.
const CODE_COLD_AFTER: Duration = Duration::from_secs(300);

/// What an agent is told.
pub struct Config {
    pub server: Server,
    pub bootstrap_token: Option<String>,
    pub trust_domain: String,
    pub facts: Facts,
    pub data_dir: PathBuf,
    pub file_images_allowed: bool,
    /// Folders of the node that pods may be lent with all that is below them (`hostPath`).
    pub host_paths: Vec<PathBuf>,
    /// What the node's owner says of registries elsewhere.
    pub registries: image::Registries,
    /// What starts the worker process of a namespace that asks for one; without it, such namespaces are refused.
    pub worker: Option<WorkerCommand>,
    /// The component that commands are run by which a container's own does not know. Empty where there is none.
    pub toolbox: Bytes,
    /// Traces, metrics and logs of calls, and whither they are sent.
    pub telemetry: Option<otlp::config::Config>,
    pub access_log: Option<access_log::AccessLog>,
}

/// Why an agent could not start.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    #[error("obtaining this node's identity")]
    Identity(#[from] IdentityError),
    #[error("the node's pod CIDR is unusable")]
    Cidr(#[from] addresses::CidrError),
    #[error("preparing {path}")]
    Folder {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("serving the node port")]
    Serve(#[from] http::ServeError),
    /// Asked to stop before the node was registered.
    #[error("stopped before the node was registered")]
    Stopped,
}

/// A running agent.
pub struct Agent {
    node: Arc<Node>,
    /// Ends with the pods drained.
    pods: JoinHandle<()>,
    /// Everything that must outlive the pods: statuses, events, renewals, the node port.
    rest: TaskTracker,
    heartbeat: JoinHandle<()>,
    stop_pods: CancellationToken,
    stop_rest: CancellationToken,
}

impl Agent {
    /// Registers the node and starts to run its pods. Returns once the node can serve; it reports ready right after.
    ///
    /// `listener` is the node port's; mesh and gateway listeners must be served by then.
    ///
    /// # Errors
    /// [`AgentError`]; an unreachable server is waited for, not an error, once the node has a certificate.
    pub async fn start(
        config: Config,
        engine: Engine,
        cores: Cores,
        mesh: Mesh,
        listener: TcpListener,
        shutdown: &CancellationToken,
    ) -> Result<Self, AgentError> {
        let Config {
            server,
            bootstrap_token,
            trust_domain,
            facts,
            data_dir,
            file_images_allowed,
            host_paths,
            registries,
            worker,
            toolbox,
            telemetry,
            access_log,
        } = config;
        let trust = server.trust.clone();
        let authority = trust.now().authorities.clone();
        let pki = data_dir.join("pki");
        let token = bootstrap_token.as_deref();
        let (own, link) = answered(shutdown, || {
            NodeIdentity::obtain(server.clone(), &facts.name, &pki, token)
        })
        .await?;
        mesh.identities()
            .set_roots(&authority)
            .map_err(|error| IdentityError::Mesh {
                identity: "the trust bundle".into(),
                reason: error.to_string(),
            })?;
        // A node that joined before comes this far without the server, and serves what it knew.
        let identities = Workloads::new(link.clone(), mesh.clone(), &pki);
        let known: Vec<u8> = authority.iter().flat_map(|one| one.to_vec()).collect();
        let topology = Topology::new(&facts.name, &trust_domain);
        let topology = topology.taken_up(&data_dir.join("known"), &known, &mesh);
        let serving = answered(shutdown, || {
            Serving::obtain(&link, &facts.name, facts.address)
        })
        .await?;
        let grants = Grants::new(link.clone(), mesh.clone());
        let gateway = answered(shutdown, || identities.claim(mesh.gateway_identity())).await?;

        let folder = |name: &str| data_dir.join(name);
        let at = |path: &Path| {
            let path = path.to_owned();
            move |source| AgentError::Folder { path, source }
        };
        let logs = Logs::open(&folder("logs")).map_err(at(&folder("logs")))?;
        let images = Images::open(
            link.clone(),
            &folder("images"),
            file_images_allowed,
            registries,
            toolbox.clone(),
        )
        .map_err(at(&folder("images")))?;
        let volumes = Volumes::open(&folder("volumes"), host_paths);
        let volumes = volumes.map_err(at(&folder("volumes")))?;
        let roots = Roots::open(&folder("roots")).map_err(at(&folder("roots")))?;
        let (recorder, writing) = Recorder::new(&facts.name);
        if let Some(ended) = own.lapsed() {
            let message = format!(
                "the node was away for longer than its certificate was good, which was over at {ended}; it has a new one"
            );
            recorder.node(&facts.name, Severity::Normal, "CertificateRenewed", message);
        }
        let publisher = Publisher::new();

        let (stop_pods, stop_rest) = (CancellationToken::new(), CancellationToken::new());
        // Whatever ends this function early ends what it started.
        let unless_started = stop_rest.clone().drop_guard();
        let rest = TaskTracker::new();
        rest.spawn(
            topology
                .clone()
                .run(link.clone(), mesh.clone(), stop_rest.clone()),
        );
        rest.spawn(wake::run(mesh.clone(), link.clone(), stop_rest.clone()));
        rest.spawn(mesh.clone().share_limits(stop_rest.clone()));
        rest.spawn(publisher.clone().run(link.clone(), stop_rest.clone()));
        rest.spawn(writing.run(link.clone(), stop_rest.clone()));
        rest.spawn(clock::watch(
            link.clone(),
            recorder.clone(),
            facts.name.clone(),
            stop_rest.clone(),
        ));
        rest.spawn(own.keep(stop_rest.clone()));
        rest.spawn(serving.clone().keep(
            link.clone(),
            facts.name.clone(),
            facts.address,
            trust.clone(),
            stop_rest.clone(),
        ));
        rest.spawn({
            let (identities, trust) = (identities.clone(), trust.clone());
            let stop = stop_rest.clone();
            async move {
                // The gateway's identity is held as long as identities are kept at all.
                let _gateway = gateway;
                identities.keep(trust, stop).await;
            }
        });

        rest.spawn({
            let (grants, stop) = (grants.clone(), stop_rest.clone());
            async move {
                stop.cancelled().await;
                grants.stop().await;
            }
        });

        let telemetry_counts = Arc::<otlp::Counts>::default();
        let printing = telemetry.as_ref().and_then(otlp::Lines::wanted);
        let (lines, printed) = printing.unzip();
        if let Some(telemetry) = telemetry {
            let counts = telemetry_counts.clone();
            rest.spawn(otlp::run(
                telemetry,
                mesh.clone(),
                printed,
                counts,
                stop_rest.clone(),
            ));
        }

        if let Some(access_log) = access_log {
            rest.spawn(access_log.run(mesh.clone(), data_dir.clone(), stop_rest.clone()));
        }

        let registered = Heartbeat::register(facts.clone(), link.clone(), shutdown).await;
        let Some((heartbeat, cidr)) = registered else {
            return Err(AgentError::Stopped);
        };
        let node = Arc::new(Node {
            facts: NodeFacts {
                name: facts.name.clone(),
                host_ip: facts.address,
                allocatable_cpu_millis: facts.cpu_millis,
                allocatable_memory_bytes: facts.memory_bytes,
            },
            api_server: mesh.outbound(pod_proxy::api_server(&trust_domain)),
            trust_domain,
            link,
            toolbox: Toolbox::new(toolbox, engine.clone(), cores.clone()),
            engine,
            workers: Workers::new(worker, cores.clone()),
            cores,
            mesh,
            images,
            logs,
            volumes,
            roots,
            sessions: Sessions::default(),
            recorder: recorder.clone(),
            publisher,
            identities,
            grants,
            resolv_conf: std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default(),
            hosts: std::fs::read_to_string("/etc/hosts").unwrap_or_default(),
            topology,
            registry: Registry::default(),
            sockets: Sockets::default(),
            addresses: Mutex::new(Addresses::new(&cidr)?),
            shares: Shares::default(),
            host_ports: HostPorts::default(),
            spans: spans::Spans::default(),
            telemetry: telemetry_counts,
            lines,
            next_core: AtomicUsize::new(0),
        });
        rest.spawn({
            let (node, trust, stop) = (node.clone(), trust.clone(), stop_rest.clone());
            async move {
                if let Err(error) = http::serve(node, listener, serving, trust, stop).await {
                    tracing::error!(error = %Chain(&error), "the node port is not served");
                }
            }
        });
        rest.spawn(unload_cold(node.engine.clone(), stop_rest.clone()));
        rest.spawn(node.volumes.clone().tend(stop_rest.clone()));
        rest.spawn(node.volumes.clone().keep_fresh(
            node.link.clone(),
            node.facts.clone(),
            stop_rest.clone(),
        ));
        // Once there is a Node to say it in.
        rest.spawn(trust.run(
            node.link.clone(),
            node.mesh.clone(),
            facts.name.clone(),
            stop_rest.clone(),
        ));
        recorder.node(
            &facts.name,
            events::Severity::Normal,
            "Starting",
            format!("Starting weft on {}", facts.name),
        );
        let (renewals, fence) = Fence::new();
        let pods = tokio::spawn(sync::run(node.clone(), fence, stop_pods.clone()));
        let heartbeat = tokio::spawn(heartbeat.run(renewals, stop_pods.clone()));
        unless_started.disarm();
        Ok(Self {
            node,
            pods,
            rest,
            heartbeat,
            stop_pods,
            stop_rest,
        })
    }

    /// The node's readers, for embedders.
    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// Reports the node as not ready, drains its pods, says goodbye.
    pub async fn stop(self) {
        let Self {
            node,
            pods,
            rest,
            heartbeat,
            stop_pods,
            stop_rest,
        } = self;
        stop_pods.cancel();
        for task in [heartbeat, pods] {
            if let Err(error) = task.await {
                tracing::error!(%error, "a part of the agent failed");
            }
        }
        let sent = async {
            while !node.publisher.is_drained() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        if tokio::time::timeout(FAREWELL_MAX, sent).await.is_err() {
            tracing::debug!("the last statuses could not be sent");
        }
        stop_rest.cancel();
        rest.close();
        if tokio::time::timeout(FAREWELL_MAX, rest.wait())
            .await
            .is_err()
        {
            tracing::debug!("left a part of the agent behind");
        }
    }
}

/// Unloads code that nobody calls until `stop`.
async fn unload_cold(engine: Engine, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(CODE_COLD_AFTER);
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let engine = engine.clone();
        // Unmapping is a system call or two for each.
        match tokio::task::spawn_blocking(move || engine.unload_cold()).await {
            Ok(0) => {}
            Ok(count) => tracing::info!(count, "unloaded components that nobody calls"),
            Err(error) => tracing::error!(%error, "unloading components failed"),
        }
    }
}

/// Whether the server may answer otherwise in a moment: it is not there yet, or has no leader yet.
fn passes(error: &kube::Error) -> bool {
    match error {
        kube::Error::Api(status) => matches!(status.code, 429 | 503 | 504 | 507),
        _ => true,
    }
}

/// Repeats what needs the server until it answers: nodes and servers start in any order.
async fn answered<T, F>(
    shutdown: &CancellationToken,
    mut ask: impl FnMut() -> F,
) -> Result<T, AgentError>
where
    F: Future<Output = Result<T, IdentityError>>,
{
    let mut pause = Duration::from_millis(100);
    loop {
        match ask().await {
            Ok(answer) => return Ok(answer),
            Err(IdentityError::Sign { signer, source }) if passes(&source) => {
                let error = IdentityError::Sign { signer, source };
                tracing::warn!(error = %Chain(&error), "the API server cannot be reached yet");
            }
            Err(error) => return Err(error.into()),
        }
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return Err(AgentError::Stopped),
            () = tokio::time::sleep(pause) => {}
        }
        pause = (pause * 2).min(Duration::from_secs(3));
    }
}
