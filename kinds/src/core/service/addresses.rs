//! The IPAddress of a Service's virtual address: it says whose the address is, and is there as long as that holds.

use std::net::Ipv4Addr;

use serde_json::{Value, json};

use crate::networking::IP_ADDRESS;
use crate::strategy::{Claim, Surroundings};

/// Who gives out addresses of Services, as Kubernetes calls it.
pub const ADDRESS_MANAGER: &str = "ipallocator.k8s.io";
/// The label that names who gave an address out.
pub const ADDRESS_MANAGED_BY: &str = "ipaddress.kubernetes.io/managed-by";

/// What a Service that has an address holds; its key ends with the address, and that of no address is what all of them begin with.
pub fn address_claim(address: impl std::fmt::Display) -> Claim {
    Claim::new("clusterips", address)
}

/// Whether an address is neither a Service's nor said to be somebody else's.
pub(super) fn is_free(address: Ipv4Addr, around: &dyn Surroundings) -> bool {
    let name = address.to_string();
    !around.is_claimed(&address_claim(address)) && !around.has(&IP_ADDRESS, None, &name)
}

/// The object that stands for an address that a Service holds.
pub fn held_address(address: &str, namespace: &str, name: &str) -> Value {
    let family = if address.contains(':') {
        "IPv6"
    } else {
        "IPv4"
    };
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "IPAddress",
        "metadata": {
            "name": address,
            "labels": {
                "ipaddress.kubernetes.io/ip-family": family,
                ADDRESS_MANAGED_BY: ADDRESS_MANAGER,
            },
        },
        "spec": {"parentRef": {"resource": "services", "namespace": namespace, "name": name}},
    })
}
