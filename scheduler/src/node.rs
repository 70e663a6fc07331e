//! What placement knows of a node.

use std::collections::BTreeMap;
use std::sync::Arc;

use ipnet::Ipv4Net;
use weft_api::annotation;
use weft_api::view::{Node, Taint};

use crate::pod::image_name;
use crate::resources::Resources;

/// Kubernetes' default where a node does not say how many pods it takes.
const DEFAULT_PODS: i64 = 110;
/// Addresses of a node's range that no pod gets.
const RESERVED_ADDRESSES: i64 = 3;

#[derive(Debug, Clone, PartialEq)]
pub struct NodeFacts {
    pub name: Arc<str>,
    pub labels: BTreeMap<String, String>,
    pub taints: Vec<Taint>,
    pub unschedulable: bool,
    pub allocatable: Resources,
    /// How many pods it takes: as it says, and no more than its range has addresses.
    pub pods_max: i64,
    /// Images that lie there, with their sizes.
    pub images: BTreeMap<String, i64>,
    /// What its kubelet declares that it can do.
    pub features: Vec<String>,
}

impl NodeFacts {
    pub fn of(node: &Node) -> Self {
        let meta = &node.metadata;
        let name: Arc<str> = meta.name.as_deref().unwrap_or_default().into();
        let spec = node.spec.as_ref();
        let status = node.status.as_ref();
        let mut labels = meta.labels.clone().unwrap_or_default();
        labels
            .entry(annotation::HOSTNAME.to_owned())
            .or_insert_with(|| name.to_string());
        let mut allocatable = Resources::read(status.and_then(|s| s.allocatable.as_ref()));
        let pods_max = allocatable.other.remove("pods");
        let pods_max = pods_max.map(|pods| i64::try_from(pods).unwrap_or(i64::MAX));
        // An amount of zero is not kept, but it was said.
        let said = status.and_then(|s| s.allocatable.as_ref());
        let said = said.is_some_and(|said| said.contains_key("pods"));
        let pods_max = pods_max.unwrap_or(if said { 0 } else { DEFAULT_PODS });
        let range = spec.and_then(|spec| spec.pod_cidr.as_deref());
        let addresses = range.and_then(addresses_in).unwrap_or(i64::MAX);
        let images = status.and_then(|status| status.images.as_ref());
        let images = images.into_iter().flatten().flat_map(|image| {
            let size = image.size_bytes.unwrap_or(0);
            let names = image.names.iter().flatten();
            names.map(move |name| (image_name(name), size))
        });
        Self {
            labels,
            taints: spec.and_then(|s| s.taints.clone()).unwrap_or_default(),
            unschedulable: spec.and_then(|s| s.unschedulable).unwrap_or(false),
            allocatable,
            pods_max: pods_max.min(addresses),
            images: images.collect(),
            features: status
                .and_then(|status| status.declared_features.clone())
                .unwrap_or_default(),
            name,
        }
    }
}

/// Addresses for pods in an IPv4 range: all but the first two and the last, which stand for the network, the node and
/// everybody.
fn addresses_in(cidr: &str) -> Option<i64> {
    let range: Ipv4Net = cidr.parse().ok()?;
    Some(((1_i64 << (32 - range.prefix_len())) - RESERVED_ADDRESSES).max(0))
}
