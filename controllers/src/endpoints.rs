//! Endpoints: what stands behind a Service, in the one object of its name that came before EndpointSlices.
//!
//! Only Services with a selector. An address stands once for each set of ports that it serves ([`repacked`]); a pod that is being
//! deleted is left out, unless the Service publishes those that are not ready. Beyond [`ADDRESSES_MAX`] some are left out and an
//! annotation says so: whoever needs all of them reads slices.
//!
//! Invariant: equal pods give equal subsets, whatever order they came in.
//!
//! Left to others: slices (`endpoint_slice`), slices of what is made by hand (`slice_mirror`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints};
use serde_json::{Value, json};
use weft_api::view::{ObjectReference, ServiceSpec};
use weft_kinds::{ENDPOINTS, POD, SERVICE};

use crate::endpoint_slice::{HEADLESS, hostname_of, protocol, services_of_pod, target_port};
use crate::indexer::Cached;
use crate::lens::Service;
use crate::metadata::{Key, Texts};
use crate::pod::Pod;
use crate::view::{Touched, View};
use crate::write::{Note, Reference, Write, merge_patch, object};
use crate::{Context, Controller, Outcome};

pub const CONTROLLER: Controller = Controller {
    name: CONTROLLER_NAME,
    reads: |reads| {
        reads.kind::<Service>().kind::<Pod>().kind::<Endpoints>();
    },
    keys,
    relieved: |_, _| Vec::new(),
    seeds,
    subject: |view, key| Some(view.object_of(&SERVICE, key)?.reference()),
    reconcile,
};

/// Also what its objects are labelled with.
const CONTROLLER_NAME: &str = "endpoint-controller";
const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
/// Kubernetes' bound on the size of one object.
const ADDRESSES_MAX: usize = 1000;

fn keys(view: &View, touched: &Touched) -> Vec<Key> {
    if touched.is_of(&SERVICE) {
        return vec![touched.key.clone()];
    }
    if touched.is_of(&POD) {
        return services_of_pod(view, touched).into_iter().collect();
    }
    // Those without a Service are somebody's own, and stay.
    let served = touched.is_of(&ENDPOINTS) && view.get::<Service>(&touched.key).is_some();
    if served {
        vec![touched.key.clone()]
    } else {
        Vec::new()
    }
}

/// All Services, and ours of Services that went while nobody led.
fn seeds(view: &View) -> Vec<Key> {
    let services = view.list::<Service>().map(|row| &row.key);
    let ours = view.list::<Endpoints>().filter(|row| is_ours(row));
    let keys: BTreeSet<&Key> = services.chain(ours.map(|row| &row.key)).collect();
    keys.into_iter().cloned().collect()
}

fn is_ours(row: &Cached<Endpoints>) -> bool {
    let by = row.meta.labels.get(MANAGED_BY);
    by.is_some_and(|by| by == CONTROLLER_NAME)
}

fn reconcile(view: &View, key: &Key, _: &Context<'_>) -> Outcome {
    let present = view.get::<Endpoints>(key);
    let Some(service) = view.get::<Service>(key) else {
        // Whoever made them: they go with the Service.
        let gone = present.filter(|row| !row.meta.is_deleting());
        return Outcome::from_writes(gone.map(|row| Write::delete(row)).into_iter().collect());
    };
    let (Some(spec), Some(selector)) = (&service.body.spec, &service.body.selector) else {
        return Outcome::default();
    };
    let pods = view
        .list_in::<Pod>(&key.namespace)
        .filter(|pod| selector.matches(&pod.meta.labels));
    let mut subsets = repacked(pods.flat_map(|pod| subsets_of(service, spec, pod)));
    let is_cut = cut_to_capacity(&mut subsets);
    let labels = labels_of(service, spec);
    let subsets = if subsets.is_empty() {
        Value::Null
    } else {
        json!(subsets)
    };
    let over_capacity = is_cut.then_some("truncated");
    let refused = |uid: &Arc<str>, reason, what: &str| {
        let about = Reference {
            kind: Arc::clone(&ENDPOINTS),
            key: key.clone(),
            uid: Arc::clone(uid),
        };
        Note::of_refusal(about, reason, format!("Failed to {what} {key}"))
    };
    let write = match present {
        Some(row) => update(row, &subsets, &labels, over_capacity).map(|write| {
            let told = refused(&row.meta.uid, "FailedToUpdateEndpoint", "update endpoint");
            write.telling(told)
        }),
        None => {
            let what = "create endpoint for service";
            // It has no uid yet.
            let told = refused(&Arc::from(""), "FailedToCreateEndpoint", what);
            Some(create(key, subsets, &labels, over_capacity).telling(told))
        }
    };
    Outcome::from_writes(write.into_iter().collect())
}

fn labels_of(service: &Cached<Service>, spec: &ServiceSpec) -> Texts {
    let mut labels = (*service.meta.labels).clone();
    if is_headless(spec) {
        labels.insert(HEADLESS.to_owned(), String::new());
    } else {
        labels.remove(HEADLESS);
    }
    labels.insert(MANAGED_BY.to_owned(), CONTROLLER_NAME.to_owned());
    labels
}

fn is_headless(spec: &ServiceSpec) -> bool {
    spec.cluster_ip.as_deref() == Some("None")
}

fn create(key: &Key, subsets: Value, labels: &Texts, over_capacity: Option<&str>) -> Write {
    let mut value = json!({
        "apiVersion": ENDPOINTS.api_version(),
        "kind": ENDPOINTS.kind,
        "metadata": {"name": &*key.name, "namespace": &*key.namespace, "labels": labels},
        "subsets": subsets,
    });
    if let Some(told) = over_capacity {
        value["metadata"]["annotations"] = json!({ OVER_CAPACITY: told });
    }
    Write::create(&ENDPOINTS, object(value))
}

fn update(
    row: &Cached<Endpoints>,
    subsets: &Value,
    labels: &Texts,
    over_capacity: Option<&str>,
) -> Option<Write> {
    let mut patch = json!({});
    let had = row.body.subsets.as_ref().filter(|had| !had.is_empty());
    if json!(had) != *subsets {
        patch["subsets"] = subsets.clone();
    }
    if let Some(change) = merge_patch(&json!(*row.meta.labels), &json!(labels)) {
        patch["metadata"]["labels"] = change;
    }
    if row.meta.annotations.get(OVER_CAPACITY).map(String::as_str) != over_capacity {
        patch["metadata"]["annotations"] = json!({ OVER_CAPACITY: over_capacity });
    }
    let changed = patch.as_object().is_some_and(|patch| !patch.is_empty());
    changed.then(|| Write::patch(row, patch))
}

/// A subset for each port of the Service that the pod has.
fn subsets_of(
    service: &Cached<Service>,
    spec: &ServiceSpec,
    pod: &Cached<Pod>,
) -> Vec<EndpointSubset> {
    let publishes_all = spec.publish_not_ready_addresses == Some(true);
    let is_told = !pod.body.address.is_empty()
        && !pod.body.is_finished()
        && (publishes_all || !pod.meta.is_deleting());
    if !is_told {
        return Vec::new();
    }
    let address = EndpointAddress {
        hostname: hostname_of(service, pod),
        ip: pod.body.address.to_string(),
        node_name: Some(pod.body.node.to_string()),
        target_ref: Some(ObjectReference {
            kind: Some(POD.kind.to_string()),
            namespace: Some(pod.key.namespace.to_string()),
            name: Some(pod.key.name.to_string()),
            uid: Some(pod.meta.uid.to_string()),
            ..ObjectReference::default()
        }),
    };
    let subset = |port: Option<EndpointPort>| {
        let (ready, waiting) = if publishes_all || pod.body.is_ready {
            (Some(vec![address.clone()]), None)
        } else {
            (None, Some(vec![address.clone()]))
        };
        EndpointSubset {
            addresses: ready,
            not_ready_addresses: waiting,
            ports: port.map(|port| vec![port]),
        }
    };
    let ports = spec.ports.as_deref().unwrap_or_default();
    if ports.is_empty() {
        // One without an address of its own may do without ports.
        return if is_headless(spec) {
            vec![subset(None)]
        } else {
            Vec::new()
        };
    }
    let ports = ports.iter().filter_map(|port| {
        Some(EndpointPort {
            app_protocol: port.app_protocol.clone(),
            name: port.name.clone().filter(|name| !name.is_empty()),
            port: target_port(port, &pod.body)?,
            protocol: Some(protocol(port.protocol.as_deref()).to_owned()),
        })
    });
    ports.map(|port| subset(Some(port))).collect()
}

/// An address and whose it is: pods of one node's network share an address.
type Holder = (String, Option<String>);

/// Addresses, and whether each is ready.
type Holders = Vec<(Holder, bool)>;

/// A port as it is ordered: name, number, protocol, application protocol.
type Port = (Option<String>, i32, Option<String>, Option<String>);

/// The canonical form of subsets: addresses that serve the same ports are one subset, and each port is in one subset only.
/// An address that is told both as ready and not is not.
pub fn repacked(subsets: impl IntoIterator<Item = EndpointSubset>) -> Vec<EndpointSubset> {
    let mut addresses: BTreeMap<Holder, EndpointAddress> = BTreeMap::new();
    // `None`: no port at all.
    let mut by_port: BTreeMap<Option<Port>, BTreeMap<Holder, bool>> = BTreeMap::new();
    for subset in subsets {
        let ports = subset.ports.unwrap_or_default().into_iter();
        let mut ports: Vec<Option<Port>> = ports
            .map(|port| Some((port.name, port.port, port.protocol, port.app_protocol)))
            .collect();
        if ports.is_empty() {
            ports.push(None);
        }
        let ready = subset.addresses.unwrap_or_default().into_iter();
        let waiting = subset.not_ready_addresses.unwrap_or_default().into_iter();
        let all = ready.map(|address| (address, true));
        for (address, is_ready) in all.chain(waiting.map(|address| (address, false))) {
            let owner = address.target_ref.as_ref();
            let holder = (
                address.ip.clone(),
                owner.map(|owner| owner.uid.clone().unwrap_or_default()),
            );
            for port in &ports {
                let holders = by_port.entry(port.clone()).or_default();
                let was_ready = holders.entry(holder.clone()).or_insert(true);
                *was_ready &= is_ready;
            }
            addresses.entry(holder).or_insert(address);
        }
    }
    let mut by_holders: BTreeMap<Holders, Vec<Port>> = BTreeMap::new();
    for (port, holders) in by_port {
        let ports = by_holders.entry(holders.into_iter().collect()).or_default();
        ports.extend(port);
    }
    let mut packed: Vec<(Vec<Port>, Holders)> = by_holders
        .into_iter()
        .map(|(holders, ports)| (ports, holders))
        .collect();
    packed.sort();
    let some = |addresses: Vec<EndpointAddress>| (!addresses.is_empty()).then_some(addresses);
    packed
        .into_iter()
        .map(|(ports, holders)| {
            let (ready, waiting): (Vec<_>, Vec<_>) =
                holders.into_iter().partition(|(_, is_ready)| *is_ready);
            let whole = |holders: Vec<(Holder, bool)>| -> Vec<EndpointAddress> {
                let found = holders
                    .iter()
                    .filter_map(|(holder, _)| addresses.get(holder));
                found.cloned().collect()
            };
            let ports: Vec<EndpointPort> = ports
                .into_iter()
                .map(|(name, port, protocol, app_protocol)| EndpointPort {
                    app_protocol,
                    name,
                    port,
                    protocol,
                })
                .collect();
            EndpointSubset {
                addresses: some(whole(ready)),
                not_ready_addresses: some(whole(waiting)),
                ports: (!ports.is_empty()).then_some(ports),
            }
        })
        .collect()
}

/// Leaves out what is too much: first of those that are not ready, and of each subset in proportion. True: something was.
fn cut_to_capacity(subsets: &mut [EndpointSubset]) -> bool {
    let len = |addresses: &Option<Vec<EndpointAddress>>| addresses.as_ref().map_or(0, Vec::len);
    let ready: usize = subsets.iter().map(|subset| len(&subset.addresses)).sum();
    let waiting: usize = subsets
        .iter()
        .map(|subset| len(&subset.not_ready_addresses))
        .sum();
    if ready + waiting <= ADDRESSES_MAX {
        return false;
    }
    let cuts_ready = ready > ADDRESSES_MAX;
    let (room, total) = if cuts_ready {
        (ADDRESSES_MAX, ready)
    } else {
        (ADDRESSES_MAX - ready, waiting)
    };
    let mut left = room;
    for subset in subsets {
        let cut = if cuts_ready {
            subset.not_ready_addresses = None;
            &mut subset.addresses
        } else {
            &mut subset.not_ready_addresses
        };
        let share = (len(cut) * room).div_ceil(total).min(left);
        if let Some(addresses) = cut {
            addresses.truncate(share);
            left -= addresses.len();
        }
        if len(cut) == 0 {
            *cut = None;
        }
    }
    true
}

impl crate::Lens for Endpoints {
    fn kind() -> &'static Arc<weft_kinds::Kind> {
        &ENDPOINTS
    }

    fn read(object: &weft_api::object::Object) -> Result<Self, weft_api::object::ObjectError> {
        crate::lens::typed(object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subset(value: Value) -> EndpointSubset {
        serde_json::from_value(value).unwrap()
    }

    fn shown(subsets: &[EndpointSubset]) -> Vec<String> {
        let addresses = |all: &Option<Vec<EndpointAddress>>| {
            let all = all.iter().flatten();
            all.map(|address| address.ip.clone())
                .collect::<Vec<_>>()
                .join(",")
        };
        let shown = subsets.iter().map(|subset| {
            let ports = subset.ports.iter().flatten();
            let ports: Vec<String> = ports.map(|port| port.port.to_string()).collect();
            format!(
                "{} | {} @ {}",
                addresses(&subset.addresses),
                addresses(&subset.not_ready_addresses),
                ports.join(",")
            )
        });
        shown.collect()
    }

    #[test]
    fn equal_holders_share_their_ports() {
        let port = |number: i32| json!([{"port": number, "protocol": "TCP"}]);
        let ip = |ip: &str| json!([{"ip": ip}]);
        for (subsets, expected) in [
            (vec![], vec![]),
            (
                vec![
                    json!({"addresses": ip("10.0.0.2"), "ports": port(80)}),
                    json!({"addresses": ip("10.0.0.1"), "ports": port(80)}),
                    json!({"addresses": ip("10.0.0.1"), "ports": port(81)}),
                    json!({"addresses": ip("10.0.0.2"), "ports": port(81)}),
                ],
                vec!["10.0.0.1,10.0.0.2 |  @ 80,81"],
            ),
            (
                vec![
                    json!({"addresses": ip("10.0.0.1"), "ports": port(80)}),
                    json!({"notReadyAddresses": ip("10.0.0.2"), "ports": port(80)}),
                    json!({"addresses": ip("10.0.0.1"), "ports": port(81)}),
                ],
                vec!["10.0.0.1 | 10.0.0.2 @ 80", "10.0.0.1 |  @ 81"],
            ),
            // Not ready is the stronger word.
            (
                vec![
                    json!({"addresses": ip("10.0.0.1"), "notReadyAddresses": ip("10.0.0.1"), "ports": port(80)}),
                ],
                vec![" | 10.0.0.1 @ 80"],
            ),
            // Without ports.
            (
                vec![json!({"addresses": ip("10.0.0.1")})],
                vec!["10.0.0.1 |  @ "],
            ),
        ] {
            let packed = repacked(subsets.into_iter().map(subset));
            assert_eq!(shown(&packed), expected);
            assert_eq!(
                repacked(packed.clone()),
                packed,
                "repacking changes nothing more"
            );
        }
    }

    #[test]
    fn what_is_too_much_is_left_out_in_proportion() {
        let many = |from: usize, count: usize| -> Value {
            let all = (from..from + count)
                .map(|n| json!({"ip": format!("10.{}.{}.{}", n / 65536, n / 256 % 256, n % 256)}));
            if count == 0 {
                Value::Null
            } else {
                all.collect()
            }
        };
        for (sizes, expected, is_cut) in [
            (vec![(600, 400)], vec![(600, 400)], false),
            (vec![(600, 401)], vec![(600, 400)], true),
            (vec![(1001, 5)], vec![(1000, 0)], true),
            (vec![(1000, 1)], vec![(1000, 0)], true),
            (vec![(1500, 0), (500, 7)], vec![(750, 0), (250, 0)], true),
            (
                vec![(400, 600), (400, 300)],
                vec![(400, 134), (400, 66)],
                true,
            ),
        ] {
            let mut subsets: Vec<EndpointSubset> = sizes
                .iter()
                .map(|(ready, waiting)| {
                    subset(json!({"addresses": many(0, *ready), "notReadyAddresses": many(70_000, *waiting)}))
                })
                .collect();
            assert_eq!(cut_to_capacity(&mut subsets), is_cut, "{sizes:?}");
            let left: Vec<(usize, usize)> = subsets
                .iter()
                .map(|subset| {
                    let len = |all: &Option<Vec<EndpointAddress>>| all.as_ref().map_or(0, Vec::len);
                    (len(&subset.addresses), len(&subset.not_ready_addresses))
                })
                .collect();
            assert_eq!(left, expected, "{sizes:?}");
        }
    }
}
