//! Where Services are reached from outside: at addresses of their own, and at ports of every node.
//!
//! Invariant: an exposure is of one Service; of several that claim it, the first by namespace and name has it ([`super::builder`]).

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use ipnet::IpNet;

use super::{Protocol, Service, ServiceIndex, ServiceSpec, Table};

/// A place where a port of a Service is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Exposure {
    Address(Protocol, SocketAddr),
    /// At each node's address.
    Node(Protocol, u16),
    /// The same, and there it is only told how many endpoints are ready.
    Health(u16),
}

impl Exposure {
    /// All of a Service, with the port of it that each serves.
    pub(super) fn of(spec: &ServiceSpec) -> Vec<(Exposure, u16)> {
        let ports = spec.ports.iter().flat_map(|port| {
            let own = spec.addresses.iter();
            let own = own.map(|ip| {
                let at = SocketAddr::new(ip.to_canonical(), port.port);
                Exposure::Address(port.protocol, at)
            });
            let node = port
                .node_port
                .map(|number| Exposure::Node(port.protocol, number));
            own.chain(node).map(|exposure| (exposure, port.port))
        });
        // That is none of its ports.
        let health = spec.health_port.map(|number| (Exposure::Health(number), 0));
        ports.chain(health).collect()
    }
}

/// How many endpoints of a Service are ready, each pod once.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Ready {
    pub(crate) all: usize,
    /// On this node.
    pub(crate) here: usize,
}

impl Ready {
    /// Of a Service that tells it to nobody nothing is counted.
    pub(super) fn of(spec: &ServiceSpec, node: &str) -> Self {
        if spec.health_port.is_none() {
            return Self::default();
        }
        let endpoints = spec.ports.iter().flat_map(|port| &port.endpoints);
        let ready = endpoints.filter(|endpoint| endpoint.ready);
        let all: BTreeMap<IpAddr, &str> = ready
            .map(|endpoint| (endpoint.ip, endpoint.node.as_str()))
            .collect();
        Self {
            here: all.values().filter(|on| **on == node).count(),
            all: all.len(),
        }
    }
}

/// How a Service is called by who has an address, and from outside.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Outside {
    pub(crate) affinity: Option<Duration>,
    /// Who comes from outside is served by the endpoints of the node that he comes to.
    pub(crate) local: bool,
    /// The same of workloads that call it.
    pub(crate) local_inside: bool,
    pub(crate) ready: Ready,
    pub(super) source_ranges: Vec<IpNet>,
}

impl Outside {
    /// Whether a client from there is let in.
    pub(crate) fn admits(&self, client: IpAddr) -> bool {
        let client = client.to_canonical();
        self.source_ranges.is_empty()
            || self
                .source_ranges
                .iter()
                .any(|range| range.contains(&client))
    }
}

/// The port of a Service that an exposure serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Behind {
    pub(super) service: ServiceIndex,
    pub(super) port: u16,
}

/// How many nodes have an address: those of one machine may share theirs.
pub(super) type NodeAddresses = Arc<BTreeMap<IpAddr, usize>>;

impl Table {
    /// The Service that is served at an address from outside, and which port of it.
    pub(crate) fn behind(
        &self,
        protocol: Protocol,
        at: SocketAddr,
    ) -> Option<(&Arc<Service>, u16)> {
        let ip = at.ip().to_canonical();
        let own = Exposure::Address(protocol, SocketAddr::new(ip, at.port()));
        let node = || {
            let is_node = self.node_addresses.contains_key(&ip);
            is_node.then_some(Exposure::Node(protocol, at.port()))
        };
        let found = self.exposed.get(&own);
        let behind = found.or_else(|| self.exposed.get(&node()?))?;
        Some((self.services.get(behind.service.0)?, behind.port))
    }

    /// The Service whose endpoints are told at this port of the nodes.
    pub(crate) fn checked(&self, port: u16) -> Option<&Arc<Service>> {
        let behind = self.exposed.get(&Exposure::Health(port))?;
        self.services.get(behind.service.0)
    }

    /// All exposures, in no order.
    pub(crate) fn exposures(&self) -> impl Iterator<Item = Exposure> {
        self.exposed.keys().copied()
    }

    /// Whether several nodes have this address.
    pub(crate) fn is_shared(&self, address: IpAddr) -> bool {
        let nodes = self.node_addresses.get(&address.to_canonical());
        nodes.is_some_and(|nodes| *nodes > 1)
    }
}
