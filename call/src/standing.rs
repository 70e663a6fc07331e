//! How the mesh of a node stands: what it goes by, who is left alone, whose certificates end when. `/stats/mesh` at the node's port.

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeMesh {
    pub node: String,
    /// Of the table of services in force.
    pub table_generation: u64,
    pub services: usize,
    pub endpoints: usize,
    /// Endpoints that are left alone at the moment.
    pub ejected: usize,
    /// Edges that are counted apart, and how many may be.
    pub edges: usize,
    pub edges_limit: usize,
    /// How often there was no room for one.
    pub edges_overflowed: u64,
    /// Connections of other nodes that proved nothing.
    pub handshakes_failed: u64,
    /// Calls out of the cluster that were denied.
    pub denied: u64,
    /// How many watch calls.
    pub watches: usize,
    /// Certificates, in the order of their names.
    pub identities: Vec<IdentityStanding>,
    /// Of the Service that was asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<PortStanding>,
    /// Spans, points and records that were dropped instead of exported.
    #[serde(default)]
    pub telemetry_dropped: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IdentityStanding {
    pub identity: String,
    /// Seconds until its certificate ends; below 0 it has.
    pub ends_in_seconds: i64,
}

/// A port of a Service, as a node sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PortStanding {
    pub port: u16,
    /// Whether routes are bound to it.
    pub routed: bool,
    pub endpoints: Vec<EndpointStanding>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointStanding {
    pub pod: String,
    pub address: String,
    pub node: String,
    pub ejected: bool,
    /// Calls of this node that it has not answered.
    pub pending: u32,
}
