//! Pods by their addresses alone: which node has an address that no service leads to.
//!
//! Who such a pod is, only its node knows. So the call is made to the node, whose gateway's identity it proves, and the node hands it to what is
//! attached at the address. What it is charged to is one workload without a name: callers may try any address, and none of them is remembered.
//!
//! Invariant: an address leads to the node whose range has it, and to no other.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use ipnet::IpNet;
use weft_api::identity::SpiffeId;

use super::{Endpoint, Way};
use crate::{WorkloadInfo, wire};

/// A node and the addresses of its pods.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodRange {
    pub range: IpNet,
    pub node: String,
    /// Where it takes calls of other nodes.
    pub node_address: Option<SocketAddr>,
}

#[derive(Debug)]
pub(super) struct PodRanges {
    identity: SpiffeId,
    spiffe_id: Arc<str>,
    workload: Arc<WorkloadInfo>,
    /// In the order of their addresses; no two overlap.
    ranges: Vec<(IpNet, String, Way)>,
}

impl PartialEq for PodRanges {
    fn eq(&self, other: &Self) -> bool {
        self.identity == other.identity && self.ranges == other.ranges
    }
}

impl PodRanges {
    /// `identity`: what every node proves to be for a call of that kind. `here`: this node.
    pub(super) fn new(
        here: &str,
        identity: SpiffeId,
        ranges: impl IntoIterator<Item = PodRange>,
    ) -> Self {
        let reached = ranges.into_iter().filter_map(|range| {
            let way = match range.node_address {
                _ if range.node == here => Way::Here,
                Some(address) => Way::Node(address),
                None => return None,
            };
            Some((range.range.trunc(), range.node, way))
        });
        let mut ranges: Vec<_> = reached.collect();
        ranges.sort_by(|(a, one, _), (b, other, _)| (a, one).cmp(&(b, other)));
        // Where two nodes claim an address, the first has it.
        ranges.dedup_by(|(later, ..), (first, ..)| first.contains(&later.network()));
        Self {
            spiffe_id: identity.to_string().into(),
            identity,
            workload: Arc::default(),
            ranges,
        }
    }

    /// The pod at an address, if a node has it in its range; whether there is one, the node knows.
    pub(super) fn endpoint(&self, address: SocketAddr) -> Option<Arc<Endpoint>> {
        let ip: IpAddr = address.ip();
        let behind = self
            .ranges
            .partition_point(|(range, ..)| range.network() <= ip);
        let (range, node, way) = self.ranges.get(behind.checked_sub(1)?)?;
        range.contains(&ip).then(|| {
            let pod = ip.to_string();
            Arc::new(Endpoint {
                key: Endpoint::key_of(&pod, address),
                pod,
                address,
                node: node.clone(),
                identity: self.identity.clone(),
                spiffe_id: Arc::clone(&self.spiffe_id),
                workload: Arc::clone(&self.workload),
                way: *way,
                header: wire::destination_line(address),
                standing: Arc::new(way.first_standing()),
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_of_the_node_whose_range_has_it() {
        let range = |range: &str, node: &str, address: Option<&str>| PodRange {
            range: range.parse().expect("a range"),
            node: node.to_owned(),
            node_address: address.map(|address| address.parse().expect("an address")),
        };
        let identity = SpiffeId::new("cluster.local", "weft-system", "gateway");
        let ranges = PodRanges::new(
            "a",
            identity,
            [
                range("10.128.1.0/24", "b", Some("192.0.2.2:7000")),
                range("10.128.0.0/24", "a", None),
                range("10.128.3.0/24", "c", None),
                range("10.128.1.128/25", "d", Some("192.0.2.4:7000")),
                range("fd00:1::/64", "b", Some("192.0.2.2:7000")),
            ],
        );
        for (address, expected) in [
            ("10.128.0.9:80", Some(("a", None))),
            ("10.128.1.9:80", Some(("b", Some("192.0.2.2:7000")))),
            ("10.128.1.200:80", Some(("b", Some("192.0.2.2:7000")))),
            ("10.128.3.1:80", None),
            ("10.127.255.255:80", None),
            ("10.128.2.1:80", None),
            ("[fd00:1::7]:80", Some(("b", Some("192.0.2.2:7000")))),
            ("[fd00:2::7]:80", None),
        ] {
            let found = ranges.endpoint(address.parse().expect("an address"));
            let found = found.as_ref().map(|endpoint| {
                let way = match endpoint.way {
                    Way::Here => None,
                    Way::Node(address) => Some(address.to_string()),
                };
                (endpoint.node.as_str(), way)
            });
            let found = found.as_ref().map(|(node, way)| (*node, way.as_deref()));
            assert_eq!(found, expected, "{address}");
        }
    }
}
