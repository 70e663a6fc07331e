//! Ranges of pod addresses: each node gets one (`spec.podCIDR`) that no other node's touches.
//!
//! As Kubernetes' node IPAM controller, but with ranges that get smaller as the cluster grows ([`TIERS`]): the first 128 nodes
//! get as many addresses as a node can have pods, the next 512 still 4,093, 4,096 more the 253 that Kubernetes' default of
//! `/24` gives, and another 8,192 the 125 that still hold Kubernetes' default of 110 pods. So 12,928 nodes have a range. A node without one is told `CIDRNotAvailable`: none of its pods can start.
//!
//! A range that a node has stays, whoever gave it: `--pod-cidr`, an earlier version, or a node that cannot be read. The
//! scheduler places no more pods on a node than its range has addresses (`weft_scheduler::NodeFacts`).

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use serde_json::json;
use weft_api::view::Node;
use weft_kinds::NODE;

use crate::indexer::Cached;
use crate::metadata::Key;
use crate::view::View;
use crate::write::{Note, Write};
use crate::{Context, Controller, Outcome};

pub const CONTROLLER: Controller = Controller {
    name: "node-ipam-controller",
    reads: |reads| {
        reads.kind::<Node>();
    },
    // One key for all nodes, so no two passes can choose the same range.
    keys: |_, touched| {
        let wakes = touched.is_of(&NODE) && touched.ownership_changed;
        if wakes { vec![all_nodes()] } else { Vec::new() }
    },
    relieved: |_, _| Vec::new(),
    seeds: |_| vec![all_nodes()],
    subject: |_, _| None,
    reconcile,
};

fn all_nodes() -> Key {
    Key::cluster("nodes")
}

/// First and last address.
type Range = (u32, u32);

/// Where ranges come from, and the bits of each: `10.128.0.0/9`. Below lie the ranges of Services and of nodes of earlier
/// versions, which gave `/17` everywhere.
const TIERS: &[(Ipv4Net, u8)] = &[
    // 128 nodes of 32,765 pods; a node reports room for 20,000.
    (Ipv4Net::new_assert(Ipv4Addr::new(10, 128, 0, 0), 10), 17),
    // 512 nodes of 4,093 pods.
    (Ipv4Net::new_assert(Ipv4Addr::new(10, 192, 0, 0), 11), 20),
    // 4,096 nodes of 253 pods.
    (Ipv4Net::new_assert(Ipv4Addr::new(10, 224, 0, 0), 12), 24),
    // 8,192 nodes of 125 pods.
    (Ipv4Net::new_assert(Ipv4Addr::new(10, 240, 0, 0), 12), 25),
];

fn bounds(range: Ipv4Net) -> Range {
    (range.network().to_bits(), range.broadcast().to_bits())
}

/// The ranges a node may get, best first.
fn candidates() -> impl Iterator<Item = Ipv4Net> {
    let tiers = TIERS.iter();
    tiers.flat_map(|(range, bits)| range.subnets(*bits).into_iter().flatten())
}

/// Ranges in order, each with the last address of it and all before: whether something touches one of them is then two
/// comparisons after a binary search.
struct Taken(Vec<(u32, u32)>);

impl Taken {
    fn new(mut ranges: Vec<Range>) -> Self {
        ranges.sort_unstable();
        let mut furthest = 0;
        for (_, last) in &mut ranges {
            furthest = furthest.max(*last);
            *last = furthest;
        }
        Self(ranges)
    }

    fn touches(&self, range: Range) -> bool {
        let before = self.0.partition_point(|(first, _)| *first <= range.1);
        before > 0 && self.0[before - 1].1 >= range.0
    }
}

fn range_of(node: &Cached<Node>) -> Option<&str> {
    let cidr = node.body.spec.as_ref()?.pod_cidr.as_deref()?;
    (!cidr.is_empty()).then_some(cidr)
}

/// Gives each node without a range the best one that is free.
fn reconcile(view: &View, _: &Key, _: &Context<'_>) -> Outcome {
    let readable = view.list::<Node>().filter_map(|node| range_of(node));
    let unreadable = view
        .unreadable()
        .filter(|(object, _)| *object.kind == **NODE);
    let unreadable = unreadable.filter_map(|(_, node)| node.as_value()["spec"]["podCIDR"].as_str());
    let ranges = readable.chain(unreadable);
    let ranges = ranges.filter_map(|cidr| cidr.parse().ok());
    let taken = Taken::new(ranges.map(bounds).collect());
    let mut free = candidates().filter(|range| !taken.touches(bounds(*range)));
    let mut writes = Vec::new();
    for node in view.list::<Node>() {
        if range_of(node).is_some() || node.meta.is_deleting() {
            continue;
        }
        let Some(range) = free.next() else {
            let message = format!(
                "Node {} status is now: CIDRNotAvailable: all ranges of 10.128.0.0/9 are given to other nodes. \
                 Delete nodes that are gone, or start this one with --pod-cidr and a free range",
                node.key.name
            );
            let told = Note::warning(node.reference(), "CIDRNotAvailable", message);
            writes.push(Write::Event(told));
            continue;
        };
        let cidr = range.to_string();
        let patch = json!({"spec": {"podCIDR": cidr, "podCIDRs": [cidr]}});
        // Bound to the uid only: the node's own heartbeats must not make it lose its range.
        writes.push(Write::patch(node, patch).unbound());
    }
    Outcome::from_writes(writes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str) -> Ipv4Net {
        text.parse().unwrap()
    }

    #[test]
    fn there_are_ranges_for_a_large_cluster_and_none_touches_another() {
        let all: Vec<Ipv4Net> = candidates().collect();
        assert_eq!(all.len(), 128 + 512 + 4096 + 8192);
        assert_eq!(all[0], range("10.128.0.0/17"));
        assert_eq!(all[128], range("10.192.0.0/20"));
        assert_eq!(*all.last().unwrap(), range("10.255.255.128/25"));
        for pair in all.windows(2) {
            assert!(bounds(pair[0]).1 < bounds(pair[1]).0, "{pair:?}");
        }
    }

    #[test]
    fn a_range_inside_of_another_is_touched_whichever_begins_first() {
        let ranges = ["10.0.0.0/8", "10.128.200.0/22", "11.0.0.0/24"];
        let taken = Taken::new(ranges.map(|cidr| bounds(range(cidr))).to_vec());
        for (cidr, touched) in [
            ("10.255.0.0/24", true),
            ("10.128.200.0/24", true),
            ("11.0.0.0/16", true),
            ("11.0.1.0/24", false),
            ("9.0.0.0/8", false),
            ("0.0.0.0/0", true),
        ] {
            assert_eq!(taken.touches(bounds(range(cidr))), touched, "{cidr}");
        }
        assert_eq!(bounds(range("0.0.0.0/0")), (0, u32::MAX));
        assert_eq!(
            bounds(range("10.0.0.9/30")).0,
            u32::from_be_bytes([10, 0, 0, 8])
        );
        assert!(!Taken::new(Vec::new()).touches((0, u32::MAX)));
    }
}
