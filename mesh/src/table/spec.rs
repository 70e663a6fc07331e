//! What the agent says of a Service: plain values, as read from Kubernetes' objects.

use std::net::{IpAddr, SocketAddr};

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
}

/// A port of a Service and the endpoints behind it.
#[derive(Debug, Clone, Default)]
pub struct ServicePortSpec {
    pub name: Option<String>,
    pub port: u16,
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
