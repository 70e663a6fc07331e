//! Addresses and node ports: where they come from, who gets which, and that they stay for life.
//!
//! An address is a [`Claim`] of its own, written only if absent, so two concurrent writers cannot hold one address, whichever
//! server they spoke to.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::str::FromStr;

use ipnet::Ipv4Net;
use serde_json::{Value, json};
use weft_api::status::{Cause, StatusError};

use super::addresses::{address_claim, is_free};
use crate::lens::{flag, integer, items, member, put, text};
use crate::strategy::{Claim, Surroundings};

/// Ports a Service of type NodePort may have on every node, as in Kubernetes.
const NODE_PORTS: RangeInclusive<u16> = 30000..=32767;
/// Addresses at the start of the service range that are only given out on request.
pub(super) const RESERVED_ADDRESSES: u32 = 16;

/// The range that virtual service addresses come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceRange(pub(super) Ipv4Net);

impl Default for ServiceRange {
    fn default() -> Self {
        Self(Ipv4Net::new_assert(Ipv4Addr::new(10, 43, 0, 0), 16))
    }
}

impl std::fmt::Display for ServiceRange {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}", self.0)
    }
}

impl ServiceRange {
    /// The first address, which is the API's own.
    pub fn first(self) -> Ipv4Addr {
        Ipv4Addr::from(self.0.network().to_bits().saturating_add(1))
    }

    /// The tenth address, which is that of the cluster's DNS.
    pub fn tenth(self) -> Ipv4Addr {
        Ipv4Addr::from(self.0.network().to_bits().saturating_add(10))
    }

    /// The first and the last address are those of the network.
    pub(super) fn contains(self, address: Ipv4Addr) -> bool {
        let Self(net) = self;
        net.contains(&address) && address != net.network() && address != net.broadcast()
    }

    /// Candidates, every one once: from a place that follows from the name, so that a Service that is deleted
    /// and created again usually gets its old address, and a new one rarely gets that of another.
    pub(super) fn candidates(self, name: &str) -> impl Iterator<Item = Ipv4Addr> {
        let first = self.0.network().to_bits() + RESERVED_ADDRESSES;
        let span = self.0.broadcast().to_bits() - first;
        // A fixed function, because the same name must lead to the same place on every server.
        let start = weft_api::hash::fnv1a_32(name.bytes()) % span;
        (0..span).map(move |step| Ipv4Addr::from(first + (start + step) % span))
    }
}

pub(super) fn port_claim(number: impl std::fmt::Display) -> Claim {
    Claim::new("nodeports", number)
}

fn refused(service: &Value, cause: Cause) -> StatusError {
    StatusError::invalid("Service", "", text(service, "/metadata/name"), vec![cause])
}

pub(super) fn allocate_address(
    new: &mut Value,
    old: Option<&Value>,
    had: &BTreeSet<Claim>,
    around: &dyn Surroundings,
) -> Result<(), StatusError> {
    if text(new, "/spec/type") == "ExternalName" {
        let spec = member(new, "spec");
        for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
            put(spec, field, None);
        }
        return Ok(());
    }
    let wanted = match text(new, "/spec/clusterIP") {
        "" => old.map_or("", |old| text(old, "/spec/clusterIP")),
        wanted => wanted,
    }
    .to_owned();
    let kept = old
        .filter(|old| text(old, "/spec/type") != "ExternalName")
        .map_or("", |old| text(old, "/spec/clusterIP"));
    // An address stays for life: validation refuses another one, whatever it is.
    let changes = !kept.is_empty() && wanted != kept;
    let address = if wanted == "None" || changes {
        wanted
    } else if wanted.is_empty() {
        let namespace = text(new, "/metadata/namespace");
        let owner = format!("{namespace}/{}", text(new, "/metadata/name"));
        around
            .service_range()
            .candidates(&owner)
            .find(|address| is_free(*address, around))
            .ok_or_else(|| StatusError::internal("failed to allocate a serviceIP: range is full"))?
            .to_string()
    } else if let Ok(address) = Ipv4Addr::from_str(&wanted) {
        let claim = address_claim(address);
        let range = around.service_range();
        let outside = format!(
            "the provided IP ({wanted}) is not in the valid range. The range of valid IPs is {range}"
        );
        let refusal = if !range.contains(address) {
            Some(outside.as_str())
        } else if !had.contains(&claim) && !is_free(address, around) {
            Some("provided IP is already allocated")
        } else {
            None
        };
        if let Some(refusal) = refusal {
            let sentence = format!("failed to allocate IP {wanted}: {refusal}");
            let cause = Cause::invalid("spec.clusterIPs", &json!([wanted]), &sentence);
            return Err(refused(new, cause));
        }
        wanted
    } else {
        let sentence =
            format!("failed to allocate IP {wanted}: the provided IP is not in the valid range");
        let cause = Cause::invalid("spec.clusterIPs", &json!([wanted]), &sentence);
        return Err(refused(new, cause));
    };
    let spec = member(new, "spec");
    spec["clusterIPs"] = json!([address.clone()]);
    spec["clusterIP"] = address.into();
    Ok(())
}

/// Whether nodes tell whoever balances before them how many endpoints they have.
pub(super) fn is_health_checked(service: &Value) -> bool {
    text(service, "/spec/type") == "LoadBalancer"
        && text(service, "/spec/externalTrafficPolicy") == "Local"
}

/// The port that nodes tell it at, if there is one.
pub(super) fn health_port(service: &Value) -> Option<i64> {
    integer(service, "/spec/healthCheckNodePort").filter(|number| *number > 0)
}

/// Gives out that port, unless the ports that are `taken` by the same Service are all there is. What it was it stays.
fn allocate_health_port(
    new: &mut Value,
    old: Option<&Value>,
    taken: &BTreeSet<u16>,
    free: impl Fn(u16) -> bool,
) -> Result<(), StatusError> {
    if !is_health_checked(new) {
        return Ok(());
    }
    let kept = old.filter(|old| is_health_checked(old));
    let kept = kept.and_then(health_port);
    let number = match (health_port(new), kept) {
        // Another one is refused, as what cannot be changed.
        (Some(_), Some(_)) => return Ok(()),
        (None, Some(kept)) => kept,
        (Some(wanted), None) => {
            let in_range = u16::try_from(wanted)
                .ok()
                .filter(|number| NODE_PORTS.contains(number));
            let refusal = match in_range {
                Some(number) if free(number) && !taken.contains(&number) => return Ok(()),
                Some(_) => "provided port is already allocated",
                None => {
                    "provided port is not in the valid range. The range of valid ports is 30000-32767"
                }
            };
            return Err(StatusError::internal(format!(
                "failed to allocate requested HealthCheck NodePort {wanted}: {refusal}"
            )));
        }
        (None, None) => NODE_PORTS
            .clone()
            .find(|number| free(*number) && !taken.contains(number))
            .ok_or_else(|| {
                StatusError::internal("failed to allocate a HealthCheck NodePort 0: range is full")
            })?
            .into(),
    };
    put(
        member(new, "spec"),
        "healthCheckNodePort",
        Some(number.into()),
    );
    Ok(())
}

pub(super) fn allocate_ports(
    new: &mut Value,
    old: Option<&Value>,
    had: &BTreeSet<Claim>,
    around: &dyn Surroundings,
) -> Result<(), StatusError> {
    let kind = text(new, "/spec/type").to_owned();
    let gives_ports = kind == "NodePort"
        || (kind == "LoadBalancer" && flag(new, "/spec/allocateLoadBalancerNodePorts"));
    let free = |number: u16| {
        let claim = port_claim(number);
        had.contains(&claim) || !around.is_claimed(&claim)
    };
    let old_ports = old.map_or(&[][..], |old| items(old, "/spec/ports"));
    let mut ports = items(new, "/spec/ports").to_vec();
    let mut taken = BTreeSet::new();
    for (index, port) in ports.iter_mut().enumerate() {
        if !gives_ports && kind != "LoadBalancer" {
            put(port, "nodePort", None);
            continue;
        }
        let same = |other: &&Value| {
            other.get("port") == port.get("port") && other.get("protocol") == port.get("protocol")
        };
        let kept = || integer(old_ports.iter().find(same)?, "/nodePort");
        let wanted = integer(port, "/nodePort")
            .filter(|number| *number > 0)
            .or_else(|| kept().filter(|_| gives_ports));
        let number = match wanted {
            Some(wanted) => {
                let in_range = u16::try_from(wanted)
                    .ok()
                    .filter(|number| NODE_PORTS.contains(number));
                let refusal = match in_range {
                    Some(number) if free(number) => None,
                    Some(_) => Some("provided port is already allocated"),
                    None => Some(
                        "provided port is not in the valid range. The range of valid ports is 30000-32767",
                    ),
                };
                if let Some(refusal) = refusal {
                    let field = format!("spec.ports[{index}].nodePort");
                    return Err(refused(
                        new,
                        Cause::invalid(&field, &wanted.into(), refusal),
                    ));
                }
                in_range
            }
            None if !gives_ports => continue,
            None => NODE_PORTS
                .clone()
                .find(|number| free(*number) && !taken.contains(number)),
        };
        let Some(number) = number else {
            return Err(StatusError::internal(
                "failed to allocate a nodePort: range is full",
            ));
        };
        taken.insert(number);
        put(port, "nodePort", Some(number.into()));
    }
    if let Some(slot) = new.pointer_mut("/spec/ports") {
        *slot = ports.into();
    }
    allocate_health_port(new, old, &taken, free)
}
