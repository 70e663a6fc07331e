//! What the agent says of a Service: plain values, as read from Kubernetes' objects.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use ipnet::IpNet;

use weft_api::identity::SpiffeId;

use crate::WorkloadInfo;

/// A Service with its ports.
#[derive(Debug, Clone, Default)]
pub struct ServiceSpec {
    pub namespace: String,
    pub name: String,
    /// None for headless services; their name still balances over the endpoints.
    pub cluster_ip: Option<IpAddr>,
    /// The name that it stands for, if it has no endpoints of its own (`ExternalName`).
    pub alias: Option<String>,
    pub ports: Vec<ServicePortSpec>,
    /// Addresses of its own outside of the cluster, at which its ports are served.
    pub addresses: Vec<IpAddr>,
    /// Who may come from outside to those; everybody where there is none.
    pub source_ranges: Vec<IpNet>,
    /// Who comes from outside to a node is served by that node's endpoints alone (`externalTrafficPolicy: Local`).
    pub external_local: bool,
    /// Where each node tells how many of its endpoints are there (`healthCheckNodePort`).
    pub health_port: Option<u16>,
    /// Workloads that call it by its name or address are served by their own node's endpoints alone (`internalTrafficPolicy: Local`).
    pub internal_local: bool,
    /// How long a client that is known by its address stays with its endpoint (`sessionAffinity: ClientIP`).
    pub affinity: Option<Duration>,
    /// Where the endpoints are that this node's callers prefer, if they do (`trafficDistribution`).
    pub preferred: BTreeSet<IpAddr>,
    /// Where the endpoints are that are in this node's zone.
    pub same_zone: BTreeSet<IpAddr>,
    /// Where it has no endpoint, a call has one made: it is held meanwhile (`hold.rs`).
    pub wakes: bool,
    /// What its slices say for names.
    pub names: Vec<Arc<SliceNames>>,
}

/// What ports are of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    #[default]
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    /// As Kubernetes writes it; what is not written is TCP.
    #[must_use]
    pub fn parse(text: Option<&str>) -> Self {
        match text {
            Some("UDP") => Protocol::Udp,
            Some("SCTP") => Protocol::Sctp,
            _ => Protocol::Tcp,
        }
    }

    /// As it is in names, behind a line: `tcp`.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        }
    }
}

/// A slice of a Service, as far as names go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SliceNames {
    pub ports: Vec<(Option<String>, Protocol, u16)>,
    pub hosts: Vec<HostName>,
}

/// An endpoint of a slice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostName {
    /// Where it has none, it is found by its address.
    pub hostname: Option<String>,
    pub ip: IpAddr,
    pub ready: bool,
}

/// A port of a Service and the endpoints behind it.
#[derive(Debug, Clone, Default)]
pub struct ServicePortSpec {
    pub name: Option<String>,
    pub protocol: Protocol,
    pub port: u16,
    /// HTTP/2 is spoken there, without an upgrade, and nothing else.
    pub speaks_h2: bool,
    /// Its Service says that HTTP is spoken there, in whichever version.
    pub speaks_http: bool,
    /// Where each node serves it, too.
    pub node_port: Option<u16>,
    pub endpoints: Vec<EndpointSpec>,
}

/// A port of a pod.
#[derive(Debug, Clone, PartialEq)]
pub struct EndpointSpec {
    pub pod: String,
    /// Of the pod, in the host's virtual network.
    pub ip: IpAddr,
    pub port: u16,
    pub node: String,
    /// Where that node takes calls of other nodes. Not needed for pods of this node.
    pub node_address: Option<SocketAddr>,
    pub identity: SpiffeId,
    pub workload: WorkloadInfo,
    pub ready: bool,
    /// Still able to answer while it terminates; used only when nothing is ready.
    pub serving: bool,
    /// The cluster itself says that the pod has the address. Who only claims it, in a slice made by hand, is not who a call
    /// to the bare address means.
    pub assigned: bool,
}
