//! What policies ask of calls, as the table has it: at the doors of endpoints here, and of whom something is asked at all.

use std::{collections::HashSet, net::SocketAddr, sync::Arc};

use weft_gateway::Resilience;

use super::{Service, Table, Way};
use crate::door::{Door, Guard};

impl Service {
    /// What policies say of calls to it.
    pub(crate) fn resilience(&self) -> &Arc<Resilience> {
        &self.resilience
    }

    /// What they ask of calls that are taken here.
    pub(crate) fn guard(&self) -> Option<&Guard> {
        self.guard.as_deref()
    }

    /// Where other nodes are that have endpoints of it; some of them several times.
    pub(crate) fn other_nodes(&self) -> impl Iterator<Item = SocketAddr> {
        let endpoints = self.ports.iter().flat_map(|port| &port.all);
        endpoints.filter_map(|endpoint| match endpoint.way {
            Way::Node(address) => Some(address),
            Way::Here => None,
        })
    }
}

impl Table {
    /// What a policy asks of calls to the endpoint at an address of this node.
    pub(crate) fn door(&self, address: SocketAddr) -> Option<&Arc<Door>> {
        // Most nodes have none, and a call is spared the look.
        if self.doors.is_empty() {
            return None;
        }
        self.doors.get(&address)
    }

    /// Services of whose endpoints here a policy asks something.
    pub(crate) fn guarded(&self) -> impl Iterator<Item = &Arc<Service>> {
        let mut seen = HashSet::new();
        let doors = self.doors.values();
        let named = doors.map(|door| &door.labels);
        let once = named.filter(move |labels| seen.insert(Arc::as_ptr(labels)));
        once.filter_map(|labels| self.service(&labels.namespace, &labels.name))
    }

    pub(crate) fn doors(&self) -> impl Iterator<Item = (&SocketAddr, &Arc<Door>)> {
        self.doors.iter()
    }

    /// Services of whom a policy says something.
    pub(crate) fn resilient(&self) -> impl Iterator<Item = &Arc<Service>> {
        let named = self.by_name.values().flat_map(|names| names.values());
        let services = named.filter_map(|index| self.services.get(index.0));
        let nothing = Resilience::default();
        services.filter(move |service| *service.resilience != nothing)
    }

    /// How many endpoints policies have left alone for their answers.
    pub(crate) fn tripped(&self) -> usize {
        let endpoints = self.endpoints.values();
        endpoints
            .filter(|endpoint| endpoint.health().is_tripped())
            .count()
    }
}
