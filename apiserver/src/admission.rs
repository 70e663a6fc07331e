//! What a write depends on besides the object itself: the cluster as it is, and the address ranges.
//!
//! Runs between defaulting and validation, inside the write loop, on the snapshot that the write is based on.
//! It may change the object, refuse it, or add mutations that are stored in the same all-or-nothing write:
//! a Service address is a key of its own (`/weft.dev/clusterips/-/10.43.0.7`), written only if absent, so two
//! concurrent writers cannot hold one address, whichever server they spoke to.
//!
//! Left to others: the rules of the object alone (`weft_kinds::validate`), who may write (`crate::authz`).

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::str::FromStr;

use bytes::Bytes;
use serde_json::{Value, json};
use weft_api::status::{Cause, StatusError};
use weft_kinds::KindRef;
use weft_kinds::lens::{fill, flag, integer, items, items_mut, member, put, text};
use weft_store::{Key, Mutation, Precondition, Snapshot};

use crate::caller::Caller;
use crate::stored;

/// Seconds a pod stays bound to a node that is not ready or not reachable, unless it says otherwise. Kubernetes' 300
/// were chosen for containers; a component starts elsewhere in milliseconds, so waiting costs more than moving.
const TOLERATION_SECONDS: i64 = 2;
/// Ports a Service of type NodePort may have on every node, as in Kubernetes.
const NODE_PORTS: RangeInclusive<u16> = 30000..=32767;
/// Addresses at the start of the service range that are only given out on request.
const RESERVED_ADDRESSES: u32 = 16;
const ADDRESS_PREFIX: &str = "/weft.dev/clusterips/-/";
const PORT_PREFIX: &str = "/weft.dev/nodeports/-/";

/// The range that virtual service addresses come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceRange {
    base: u32,
    size: u32,
}

impl Default for ServiceRange {
    /// 10.43.0.0/16.
    fn default() -> Self {
        Self {
            base: u32::from(Ipv4Addr::new(10, 43, 0, 0)),
            size: 1 << 16,
        }
    }
}

impl ServiceRange {
    fn contains(self, address: Ipv4Addr) -> bool {
        let address = u32::from(address);
        // The first and the last address are those of the network.
        address > self.base && address < self.base + self.size - 1
    }

    /// Candidates, every one once: from a place that follows from the name, so that a Service that is deleted
    /// and created again usually gets its old address, and a new one rarely gets that of another.
    fn candidates(self, name: &str) -> impl Iterator<Item = Ipv4Addr> {
        let span = self.size - 1 - RESERVED_ADDRESSES;
        let start = fnv(name) % span;
        (0..span)
            .map(move |step| Ipv4Addr::from(self.base + RESERVED_ADDRESSES + (start + step) % span))
    }
}

/// FNV-1a: a fixed function, because the same name must lead to the same place on every server.
fn fnv(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    })
}

/// Completes an object that is being created, and says what must be stored with it.
///
/// # Errors
/// 403, 404 or 422 for an object that the cluster as it is does not admit.
pub fn create(
    kind: KindRef,
    value: &mut Value,
    caller: &Caller,
    snapshot: &Snapshot,
    range: ServiceRange,
) -> Result<Vec<Mutation>, StatusError> {
    if *kind == weft_kinds::POD {
        pod(value, snapshot)?;
    } else if *kind == weft_kinds::SERVICE {
        return service(value, None, snapshot, range);
    } else if *kind == weft_kinds::CERTIFICATE_SIGNING_REQUEST {
        let spec = member(value, "spec");
        spec["username"] = caller.user().into();
        spec["groups"] = json!(caller.groups());
        put(spec, "uid", caller.uid().map(Value::from));
    }
    Ok(Vec::new())
}

/// As [`create`], for an update of `old`.
///
/// # Errors
/// 422 for addresses that cannot be given.
pub fn update(
    kind: KindRef,
    value: &mut Value,
    old: &Value,
    snapshot: &Snapshot,
    range: ServiceRange,
) -> Result<Vec<Mutation>, StatusError> {
    if *kind == weft_kinds::SERVICE {
        return service(value, Some(old), snapshot, range);
    }
    Ok(Vec::new())
}

/// What must be stored with the deletion of `old`: its addresses are free again.
pub fn delete(kind: KindRef, old: &Value) -> Vec<Mutation> {
    if *kind != weft_kinds::SERVICE {
        return Vec::new();
    }
    held(old).into_iter().map(release).collect()
}

fn pod(value: &mut Value, snapshot: &Snapshot) -> Result<(), StatusError> {
    let name = text(value, "/metadata/name").to_owned();
    let namespace = text(value, "/metadata/namespace").to_owned();
    let account = text(value, "/spec/serviceAccountName").to_owned();
    // The namespace controller makes `default` moments after the namespace: not worth refusing a pod for.
    if account != "default" {
        let key = stored::key(&weft_kinds::SERVICE_ACCOUNT, Some(&namespace), &account);
        if snapshot.get(&key).is_none() {
            return Err(StatusError::forbidden(
                "pods",
                "",
                &name,
                &format!(
                    "error looking up service account {namespace}/{account}: serviceaccount {account:?} not found"
                ),
            ));
        }
    }
    let spec = member(value, "spec");
    for condition in ["not-ready", "unreachable"] {
        let key = format!("node.kubernetes.io/{condition}");
        let covered = items(spec, "/tolerations").iter().any(|toleration| {
            let named = text(toleration, "/key");
            let effect = text(toleration, "/effect");
            (named == key || named.is_empty()) && matches!(effect, "" | "NoExecute")
        });
        if !covered {
            fill(spec, "tolerations", json!([]));
            if let Some(tolerations) = spec["tolerations"].as_array_mut() {
                tolerations.push(json!({
                    "key": key,
                    "operator": "Exists",
                    "effect": "NoExecute",
                    "tolerationSeconds": TOLERATION_SECONDS,
                }));
            }
        }
    }
    Ok(())
}

/// The keys of the addresses and ports that a Service holds.
fn held(service: &Value) -> BTreeSet<Key> {
    let mut keys = BTreeSet::new();
    let address = text(service, "/spec/clusterIP");
    if Ipv4Addr::from_str(address).is_ok() {
        keys.insert(Key::from(format!("{ADDRESS_PREFIX}{address}")));
    }
    for port in items(service, "/spec/ports") {
        if let Some(number) = integer(port, "/nodePort").filter(|number| *number > 0) {
            keys.insert(Key::from(format!("{PORT_PREFIX}{number}")));
        }
    }
    keys
}

fn release(key: Key) -> Mutation {
    Mutation::delete(key, Precondition::None)
}

fn service(
    value: &mut Value,
    old: Option<&Value>,
    snapshot: &Snapshot,
    range: ServiceRange,
) -> Result<Vec<Mutation>, StatusError> {
    let name = text(value, "/metadata/name").to_owned();
    let owner = format!("{}/{name}", text(value, "/metadata/namespace"));
    let had = old.map(held).unwrap_or_default();
    let kind = text(value, "/spec/type").to_owned();
    let invalid = |cause| StatusError::invalid("Service", "", &name, vec![cause]);

    if kind == "ExternalName" {
        let spec = member(value, "spec");
        for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
            put(spec, field, None);
        }
    } else {
        let wanted = match text(value, "/spec/clusterIP") {
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
            range
                .candidates(&owner)
                .find(|address| {
                    let key = Key::from(format!("{ADDRESS_PREFIX}{address}"));
                    snapshot.get(&key).is_none()
                })
                .ok_or_else(|| {
                    StatusError::internal("failed to allocate a serviceIP: range is full")
                })?
                .to_string()
        } else if let Ok(address) = Ipv4Addr::from_str(&wanted) {
            let key = Key::from(format!("{ADDRESS_PREFIX}{address}"));
            let refusal = if !range.contains(address) {
                Some("the provided IP is not in the valid range")
            } else if !had.contains(&key) && snapshot.get(&key).is_some() {
                Some("provided IP is already allocated")
            } else {
                None
            };
            if let Some(refusal) = refusal {
                return Err(invalid(Cause::invalid(
                    "spec.clusterIPs",
                    &json!([wanted]),
                    &format!("failed to allocate IP {wanted}: {refusal}"),
                )));
            }
            wanted
        } else {
            // Not an address at all: validation says so.
            wanted
        };
        let spec = member(value, "spec");
        spec["clusterIPs"] = json!([address.clone()]);
        spec["clusterIP"] = address.into();
    }

    let with_ports = kind == "NodePort"
        || (kind == "LoadBalancer" && flag(value, "/spec/allocateLoadBalancerNodePorts"));
    let mut taken = BTreeSet::new();
    let old_ports: Vec<Value> = old
        .map(|old| items(old, "/spec/ports").to_vec())
        .unwrap_or_default();
    for port in items_mut(value, "/spec/ports") {
        if !with_ports {
            if kind != "LoadBalancer" {
                put(port, "nodePort", None);
            }
            continue;
        }
        let same = |other: &&Value| {
            other.get("port") == port.get("port") && other.get("protocol") == port.get("protocol")
        };
        let wanted = integer(port, "/nodePort")
            .filter(|number| *number > 0)
            .or_else(|| integer(old_ports.iter().find(same)?, "/nodePort"));
        let free = |number: u16| {
            let key = Key::from(format!("{PORT_PREFIX}{number}"));
            had.contains(&key) || snapshot.get(&key).is_none()
        };
        let number = match wanted {
            Some(wanted) => match u16::try_from(wanted)
                .ok()
                .filter(|n| NODE_PORTS.contains(n))
            {
                Some(number) if free(number) => Some(number),
                Some(_) => {
                    return Err(invalid(Cause::invalid(
                        "spec.ports[0].nodePort",
                        &wanted.into(),
                        "provided port is already allocated",
                    )));
                }
                None => {
                    return Err(invalid(Cause::invalid(
                        "spec.ports[0].nodePort",
                        &wanted.into(),
                        "provided port is not in the valid range. The range of valid ports is 30000-32767",
                    )));
                }
            },
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

    let holds = held(value);
    let mut mutations: Vec<Mutation> = had.difference(&holds).cloned().map(release).collect();
    mutations.extend(holds.difference(&had).map(|key| {
        Mutation::put(
            key.clone(),
            Precondition::Absent,
            Bytes::from(owner.clone()),
        )
    }));
    Ok(mutations)
}

/// Whether a conflict on this key is about an address, so that another one may be tried.
pub(crate) fn is_allocation(key: &Key) -> bool {
    key.as_bytes().starts_with(ADDRESS_PREFIX.as_bytes())
        || key.as_bytes().starts_with(PORT_PREFIX.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidates_cover_the_range_once_and_never_its_ends() {
        let range = ServiceRange {
            base: u32::from(Ipv4Addr::new(10, 0, 0, 0)),
            size: 64,
        };
        let all: BTreeSet<_> = range.candidates("a/b").collect();
        assert_eq!(all.len(), 64 - 1 - RESERVED_ADDRESSES as usize);
        assert!(all.iter().all(|address| range.contains(*address)));
    }
}
