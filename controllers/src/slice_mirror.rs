//! Slices of Endpoints that somebody made by hand, so that calls are routed by those, too.
//!
//! Of a Service without a selector and the Endpoints of its name: a slice for each subset and family of addresses, owned by the
//! Endpoints, with their labels and annotations. Who makes slices of their own labels the Endpoints so ([`SKIP`]).
//!
//! Invariant: a slice that this controller does not label as its own is never touched.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{self as core, EndpointAddress, Endpoints};
use serde_json::{Value, json};
use weft_api::annotation;
use weft_api::names;
use weft_api::view::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use weft_kinds::{ENDPOINT_SLICE, ENDPOINTS, SERVICE};

use crate::claim::controller_reference;
use crate::endpoints::repacked;
use crate::indexer::{Cached, Index};
use crate::lens::Service;
use crate::metadata::{Key, Texts};
use crate::view::{Touched, View};
use crate::write::{Note, Write, merge_patch, object};
use crate::{Context, Controller, Outcome};

pub const CONTROLLER: Controller = Controller {
    name: "endpoint-slice-mirroring-controller",
    reads: |reads| {
        reads.kind::<Service>().kind::<Endpoints>().index(&MIRRORED);
    },
    keys,
    relieved: |_, _| Vec::new(),
    seeds,
    subject: |view, key| Some(view.object_of(&ENDPOINTS, key)?.reference()),
    reconcile,
};

const MANAGED_BY: &str = "endpointslicemirroring-controller.k8s.io";
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
/// Endpoints that are a lock of somebody's leader election.
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";
/// Annotations that say something of the Endpoints themselves.
const NOT_COPIED: [&str; 2] = [
    "endpoints.kubernetes.io/last-change-trigger-time",
    "kubectl.kubernetes.io/last-applied-configuration",
];
/// Kubernetes' `--mirroring-max-endpoints-per-subset` default.
const ADDRESSES_MAX: usize = 1000;

/// Our slices by namespace and name of the Endpoints; `""`: others' slices.
static MIRRORED: Index<EndpointSlice> = Index {
    name: "mirrored",
    of: |slice| mirrored(slice).map_or_else(String::new, |key| key.to_string()),
};

fn mirrored(slice: &Cached<EndpointSlice>) -> Option<Key> {
    let labels = &slice.meta.labels;
    let name = labels.get(annotation::SERVICE_NAME)?;
    let is_ours = labels.get(annotation::SLICE_MANAGED_BY)? == MANAGED_BY;
    is_ours.then(|| slice.key.sibling(name))
}

fn keys(_: &View, touched: &Touched) -> Vec<Key> {
    if touched.is_of(&ENDPOINTS) || touched.is_of(&SERVICE) {
        return vec![touched.key.clone()];
    }
    let slices = touched.is_of(&ENDPOINT_SLICE);
    let states = slices.then(|| touched.states::<EndpointSlice>());
    let keys: BTreeSet<Key> = states.into_iter().flatten().filter_map(mirrored).collect();
    keys.into_iter().collect()
}

fn seeds(view: &View) -> Vec<Key> {
    let endpoints = view.list::<Endpoints>().map(|row| row.key.clone());
    let slices = view.list::<EndpointSlice>();
    let slices = slices.filter_map(|slice| mirrored(slice));
    let keys: BTreeSet<Key> = endpoints.chain(slices).collect();
    keys.into_iter().collect()
}

fn reconcile(view: &View, key: &Key, _: &Context<'_>) -> Outcome {
    let present: Vec<&Arc<Cached<EndpointSlice>>> = view
        .list_by(&MIRRORED, &key.to_string())
        .filter(|slice| !slice.meta.is_deleting())
        .collect();
    let Some(endpoints) = view.get::<Endpoints>(key).filter(|_| is_by_hand(view, key)) else {
        let all = present.into_iter().map(|slice| Write::delete(slice));
        return Outcome::from_writes(all.collect());
    };
    if !is_mirrored(endpoints) {
        let all = present.into_iter().map(|slice| Write::delete(slice));
        return Outcome::from_writes(all.collect());
    }
    let (wanted, notes) = wanted_slices(endpoints);
    let mut writes = fill(endpoints, &present, wanted);
    if !writes.is_empty() {
        writes.extend(notes.into_iter().map(Write::Event));
    }
    Outcome::from_writes(writes)
}

/// There is a Service, and it leaves it to others what stands behind it.
fn is_by_hand(view: &View, key: &Key) -> bool {
    let service = view.get::<Service>(key);
    let spec = service.and_then(|service| service.body.spec.as_ref());
    spec.is_some_and(|spec| spec.selector.as_ref().is_none_or(BTreeMap::is_empty))
}

fn is_mirrored(endpoints: &Cached<Endpoints>) -> bool {
    let skips = endpoints
        .meta
        .labels
        .get(SKIP)
        .is_some_and(|skip| skip == "true");
    !skips && !endpoints.meta.annotations.contains_key(LEADER)
}

/// A slice as it should be.
struct Wanted {
    family: &'static str,
    ports: Vec<EndpointPort>,
    endpoints: Vec<Endpoint>,
}

/// What is to be mirrored, and what is to be told of the rest.
fn wanted_slices(endpoints: &Cached<Endpoints>) -> (Vec<Wanted>, Vec<Note>) {
    let mut wanted = Vec::new();
    let (mut invalid, mut skipped) = (0, 0);
    for subset in repacked(endpoints.body.subsets.clone().unwrap_or_default()) {
        let ready = subset
            .addresses
            .iter()
            .flatten()
            .map(|address| (address, true));
        let waiting = subset.not_ready_addresses.iter().flatten();
        let all: Vec<(&EndpointAddress, bool)> = ready
            .chain(waiting.map(|address| (address, false)))
            .collect();
        let mut families: BTreeMap<&'static str, Vec<Endpoint>> = BTreeMap::new();
        let mut taken = 0;
        for (address, is_ready) in &all {
            if taken == ADDRESSES_MAX {
                break;
            }
            match address_of(&address.ip) {
                Some(ip) => {
                    let family = if ip.is_ipv4() { "IPv4" } else { "IPv6" };
                    let slice = families.entry(family).or_default();
                    slice.push(endpoint(address, ip, *is_ready));
                    taken += 1;
                }
                None => invalid += 1,
            }
        }
        skipped += all.len() - taken;
        let ports = subset.ports.as_deref().unwrap_or_default();
        let ports: Vec<EndpointPort> = ports.iter().map(port).collect();
        wanted.extend(families.into_iter().map(|(family, endpoints)| Wanted {
            family,
            ports: ports.clone(),
            endpoints,
        }));
    }
    let mut notes = Vec::new();
    let mut tell = |reason, message| {
        notes.push(Note::warning(endpoints.reference(), reason, message));
    };
    if invalid > 0 {
        let message =
            format!("Skipped {invalid} invalid IP addresses when mirroring to EndpointSlices");
        tell("InvalidIPAddress", message);
    }
    if skipped > invalid {
        let message = format!(
            "A max of {ADDRESSES_MAX} addresses can be mirrored to EndpointSlices per Endpoints subset. {skipped} addresses \
             were skipped"
        );
        tell("TooManyAddressesToMirror", message);
    }
    (wanted, notes)
}

/// An address, however it is written: numbers may begin with zeros, and one of IPv4 may be wrapped in one of IPv6.
fn address_of(text: &str) -> Option<IpAddr> {
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Some(ip.to_canonical());
    }
    let numbers = text.split('.').map(|number| {
        let bare = number.trim_start_matches('0');
        if bare.is_empty() && !number.is_empty() {
            "0"
        } else {
            bare
        }
    });
    let bare: Vec<&str> = numbers.collect();
    bare.join(".").parse().ok()
}

fn endpoint(address: &EndpointAddress, ip: IpAddr, ready: bool) -> Endpoint {
    Endpoint {
        addresses: vec![ip.to_string()],
        conditions: Some(EndpointConditions {
            ready: Some(ready),
            ..EndpointConditions::default()
        }),
        hostname: address.hostname.clone().filter(|name| !name.is_empty()),
        node_name: address.node_name.clone(),
        target_ref: address.target_ref.clone(),
        ..Endpoint::default()
    }
}

fn port(port: &core::EndpointPort) -> EndpointPort {
    EndpointPort {
        app_protocol: port.app_protocol.clone(),
        name: Some(port.name.clone().unwrap_or_default()),
        port: Some(port.port),
        protocol: port.protocol.clone(),
    }
}

/// Each wanted slice takes one with its ports, else one that is left over, else it is new.
fn fill(
    endpoints: &Cached<Endpoints>,
    present: &[&Arc<Cached<EndpointSlice>>],
    wanted: Vec<Wanted>,
) -> Vec<Write> {
    let mut spare: Vec<&Arc<Cached<EndpointSlice>>> = present.to_vec();
    let mut take = |fits: &dyn Fn(&EndpointSlice) -> bool| {
        let at = spare.iter().position(|slice| fits(&slice.body))?;
        Some(spare.remove(at))
    };
    let same_ports: Vec<_> = wanted
        .iter()
        .map(|slice| {
            take(&|body| {
                let ports = body.ports.as_deref().unwrap_or_default();
                body.address_type == slice.family && ports == slice.ports
            })
        })
        .collect();
    let mut writes = Vec::new();
    for (number, (slice, found)) in wanted.into_iter().zip(same_ports).enumerate() {
        // The family of a slice is fixed.
        let found = found.or_else(|| take(&|body| body.address_type == slice.family));
        match found {
            Some(row) => writes.extend(update(endpoints, row, &slice)),
            // What is going gets nothing new.
            None if endpoints.meta.is_deleting() => {}
            None => writes.push(create(endpoints, present, slice, number)),
        }
    }
    writes.extend(spare.into_iter().map(|slice| Write::delete(slice)));
    writes
}

fn labels_of(endpoints: &Cached<Endpoints>) -> Texts {
    let mut labels = (*endpoints.meta.labels).clone();
    let name = endpoints.key.name.to_string();
    labels.insert(annotation::SERVICE_NAME.to_owned(), name);
    labels.insert(
        annotation::SLICE_MANAGED_BY.to_owned(),
        MANAGED_BY.to_owned(),
    );
    labels
}

fn annotations_of(endpoints: &Cached<Endpoints>) -> Texts {
    let all = endpoints.meta.annotations.iter();
    let copied = all.filter(|(key, _)| !NOT_COPIED.contains(&key.as_str()));
    copied
        .map(|(key, text)| (key.clone(), text.clone()))
        .collect()
}

fn update(
    endpoints: &Cached<Endpoints>,
    row: &Cached<EndpointSlice>,
    wanted: &Wanted,
) -> Option<Write> {
    let mut patch = json!({});
    let mut texts = |field: &str, had: &Texts, wanted: &Texts| {
        if let Some(change) = merge_patch(&json!(had), &json!(wanted)) {
            patch["metadata"][field] = change;
        }
    };
    texts("labels", &row.meta.labels, &labels_of(endpoints));
    texts(
        "annotations",
        &row.meta.annotations,
        &annotations_of(endpoints),
    );
    let is_owned = |uid: &str| {
        row.meta
            .owner_references
            .iter()
            .any(|owner| owner.uid == uid)
    };
    if !is_owned(&endpoints.meta.uid) {
        patch["metadata"]["ownerReferences"] = json!([controller_reference(endpoints)]);
    }
    if row.body.ports.as_deref().unwrap_or_default() != wanted.ports {
        patch["ports"] = json!(wanted.ports);
    }
    if row.body.endpoints.as_deref().unwrap_or_default() != wanted.endpoints {
        patch["endpoints"] = json!(wanted.endpoints);
    }
    let changed = patch.as_object().is_some_and(|patch| !patch.is_empty());
    changed.then(|| Write::patch(row, patch))
}

fn create(
    endpoints: &Cached<Endpoints>,
    present: &[&Arc<Cached<EndpointSlice>>],
    wanted: Wanted,
    number: usize,
) -> Write {
    let slices = present.iter().filter_map(|s| s.meta.resource_version);
    let epoch = slices.chain(endpoints.meta.resource_version).max();
    let hash = names::hash(&[
        endpoints.meta.uid.as_bytes(),
        &epoch.unwrap_or(0).to_be_bytes(),
        &number.to_be_bytes(),
        wanted.family.as_bytes(),
    ]);
    let mut metadata = json!({
        "name": names::generated(&endpoints.key.name, &names::suffix(hash, 5)),
        "generateName": names::generate_prefix(&endpoints.key.name),
        "namespace": &*endpoints.key.namespace,
        "labels": labels_of(endpoints),
        "ownerReferences": [controller_reference(endpoints)],
    });
    let annotations = annotations_of(endpoints);
    if !annotations.is_empty() {
        metadata["annotations"] = json!(annotations);
    }
    let slice: Value = json!({
        "apiVersion": ENDPOINT_SLICE.api_version(),
        "kind": ENDPOINT_SLICE.kind,
        "metadata": metadata,
        "addressType": wanted.family,
        "endpoints": wanted.endpoints,
        "ports": wanted.ports,
    });
    Write::create(&ENDPOINT_SLICE, object(slice))
}

#[cfg(test)]
mod tests {
    use weft_api::object::Object;

    use super::*;
    use crate::metadata::SharedMetadata;

    fn endpoints(subsets: Value) -> Cached<Endpoints> {
        let object = Object::from_value(json!({
            "metadata": {"name": "web", "namespace": "d", "uid": "u", "resourceVersion": "7",
                "labels": {"app": "web"},
                "annotations": {"note": "kept", "kubectl.kubernetes.io/last-applied-configuration": "{}"}},
            "subsets": subsets,
        }))
        .unwrap();
        let key = Key::new("d", "web");
        let meta = SharedMetadata::default().metadata(&key, &"u".into(), object.meta());
        Cached {
            key,
            meta: Arc::new(meta),
            body: crate::Lens::read(&object).unwrap(),
            object: None,
        }
    }

    #[test]
    fn a_slice_for_each_subset_and_family() {
        let many: Vec<Value> = (0..1003)
            .map(|n| json!({"ip": format!("10.1.{}.{}", n / 256, n % 256)}))
            .collect();
        for (subsets, expected, told) in [
            (json!(null), vec![], vec![]),
            (
                json!([{"addresses": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}],
                    "notReadyAddresses": [{"ip": "10.0.0.2"}], "ports": [{"port": 80, "protocol": "TCP"}]}]),
                vec![("IPv4", vec![80], 2), ("IPv6", vec![80], 1)],
                vec![],
            ),
            (
                json!([{"addresses": [{"ip": "010.000.0.01"}, {"ip": "::ffff:10.0.0.2"}], "ports": [{"port": 80}]}]),
                vec![("IPv4", vec![80], 2)],
                vec![],
            ),
            (
                json!([{"addresses": [{"ip": "10.0.0.1"}], "ports": [{"port": 80}]},
                    {"addresses": [{"ip": "nowhere"}, {"ip": "10.0.0.3"}], "ports": [{"port": 81}]}]),
                vec![("IPv4", vec![80], 1), ("IPv4", vec![81], 1)],
                vec!["Skipped 1 invalid IP addresses when mirroring to EndpointSlices"],
            ),
            (
                json!([{"addresses": many, "ports": [{"port": 80}]}]),
                vec![("IPv4", vec![80], 1000)],
                vec![
                    "A max of 1000 addresses can be mirrored to EndpointSlices per Endpoints subset. 3 addresses were skipped",
                ],
            ),
        ] {
            let (wanted, notes) = wanted_slices(&endpoints(subsets));
            let shown: Vec<(&str, Vec<i32>, usize)> = wanted
                .iter()
                .map(|slice| {
                    let ports = slice.ports.iter().filter_map(|port| port.port);
                    (slice.family, ports.collect(), slice.endpoints.len())
                })
                .collect();
            assert_eq!(shown, expected);
            let notes: Vec<&str> = notes.iter().map(|note| &*note.message).collect();
            assert_eq!(notes, told);
        }
    }

    #[test]
    fn labels_and_annotations_are_copied() {
        let endpoints = endpoints(json!([]));
        let labels = labels_of(&endpoints);
        let labels: Vec<(&str, &str)> = labels.iter().map(|(k, v)| (&**k, &**v)).collect();
        assert_eq!(
            labels,
            [
                ("app", "web"),
                ("endpointslice.kubernetes.io/managed-by", MANAGED_BY),
                ("kubernetes.io/service-name", "web"),
            ]
        );
        let annotations = annotations_of(&endpoints);
        assert_eq!(annotations.into_keys().collect::<Vec<_>>(), ["note"]);
    }
}
