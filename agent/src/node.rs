//! What every part of a node's agent uses: its facts, its links, what it keeps.
//!
//! Wiring only. Each field is the door to one noun, and whoever is handed a [`Node`] should say which of them it opens.

use crate::addresses::Addresses;
use crate::events::Recorder;
use crate::grants::Grants;
use crate::host_ports::HostPorts;
use crate::identity::{Link, Workloads};
use crate::image::Images;
use crate::logs::Logs;
use crate::node_facts::NodeFacts;
use crate::otlp;
use crate::pod_names;
use crate::publisher::Publisher;
use crate::registry::Registry;
use crate::resize::Shares;
use crate::roots::Roots;
use crate::session::Sessions;
use crate::sockets::Sockets;
use crate::spans::Spans;
use crate::toolbox::Toolbox;
use crate::topology::Topology;
use crate::volumes::Volumes;
use crate::workers::Workers;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use weft_mesh::{Mesh, Outbound};
use weft_runtime::{Cores, Engine};

/// A node's parts.
pub struct Node {
    pub facts: NodeFacts,
    pub trust_domain: String,
    pub link: Link,
    pub engine: Engine,
    pub workers: Workers,
    pub cores: Cores,
    pub mesh: Mesh,
    /// The API server's way to the pods of this node.
    pub api_server: Outbound,
    pub images: Images,
    pub logs: Logs,
    pub volumes: Volumes,
    pub roots: Roots,
    pub toolbox: Toolbox,
    pub sessions: Sessions,
    pub recorder: Recorder,
    pub publisher: Publisher,
    pub identities: Workloads,
    pub grants: Grants,
    pub topology: Topology,
    /// What this machine's `resolv.conf` said when the node started.
    pub(crate) resolv_conf: String,
    /// And its `hosts`.
    pub(crate) hosts: String,
    pub registry: Registry,
    pub(crate) sockets: Sockets,
    pub addresses: Mutex<Addresses>,
    /// What its pods were given of its CPU and memory.
    pub(crate) shares: Shares,
    /// Ports of its own that its pods have.
    pub(crate) host_ports: HostPorts,
    /// Calls that servers remember to show them as traces.
    pub(crate) spans: Spans,
    /// What became of the telemetry that it sends.
    pub(crate) telemetry: Arc<otlp::Counts>,
    /// Where what its containers print is sent, where that is asked for.
    pub(crate) lines: Option<otlp::Lines>,
    /// Spreads commands and probes over the cores.
    pub next_core: AtomicUsize,
}

impl Node {
    /// What the names of its pods depend on.
    pub(crate) fn names(&self) -> pod_names::Around<'_> {
        pod_names::Around {
            domain: &self.trust_domain,
            server: self.topology.dns(),
            of_node: &self.resolv_conf,
            hosts_of_node: &self.hosts,
        }
    }

    /// The networks of its pods' sockets.
    pub(crate) fn sockets(&self) -> &Sockets {
        &self.sockets
    }
}
