//! EndpointSlices: which pods stand behind a Service, at which ports, and whether they may get traffic.
//!
//! Only Services with a selector: hand-made slices, and ExternalName, are left alone. Pods whose named target ports resolve
//! to different numbers go to different slices. An endpoint stays in its slice while it exists, so a change of
//! one pod rewrites one slice of at most [`SLICE_MAX`] endpoints.
//!
//! A pod that is being deleted is at once not ready, keeps `serving` while its probe passes, and is `terminating`: callers
//! stop choosing it before it stops answering.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::discovery::v1::{EndpointHints, ForNode, ForZone};
use serde_json::json;
use weft_api::names;
use weft_api::view::{
    Endpoint, EndpointConditions, EndpointPort, EndpointSlice, IntOrString, Node, ObjectReference,
    ServicePort, ServiceSpec,
};
use weft_api::{annotation, workload};
use weft_kinds::{ENDPOINT_SLICE, HORIZONTAL_POD_AUTOSCALER, NODE, POD, SERVICE};

use crate::autoscaler::{self, Autoscaler};
use crate::claim::controller_reference;
use crate::indexer::{Cached, Index};
use crate::lens::Service;
use crate::metadata::Key;
use crate::pod::{self, Pod};
use crate::view::{Touched, View};
use crate::write::{Note, Write, object};
use crate::{Context, Controller, Outcome};

pub const CONTROLLER: Controller = Controller {
    name: "endpointslice-controller",
    reads: |reads| {
        reads
            .kind::<Service>()
            .kind::<Node>()
            .kind::<Autoscaler>()
            .index(&BY_SERVICE)
            .index(&pod::BY_NODE);
    },
    keys,
    relieved: |_, _| Vec::new(),
    seeds: |view| view.list::<Service>().map(|row| row.key.clone()).collect(),
    subject: |view, key| Some(view.object_of(&SERVICE, key)?.reference()),
    reconcile,
};

/// Kubernetes' default: small enough that one pod's change stays cheap to send to every node.
const SLICE_MAX: usize = 100;
/// Pods have addresses of this family.
const ADDRESS_TYPE: &str = "IPv4";
pub const HEADLESS: &str = "service.kubernetes.io/headless";
const ZONE: &str = "topology.kubernetes.io/zone";

/// Our slices by namespace and name of the Service; `""`: others' slices.
pub(crate) static BY_SERVICE: Index<EndpointSlice> = Index {
    name: "service",
    of: |slice| service_of(slice).map_or_else(String::new, |service| service.to_string()),
};

fn keys(view: &View, touched: &Touched) -> Vec<Key> {
    let keys: BTreeSet<Key> = if touched.is_of(&SERVICE) {
        BTreeSet::from([touched.key.clone()])
    } else if touched.is_of(&POD) {
        services_of_pod(view, touched)
    } else if touched.is_of(&ENDPOINT_SLICE) {
        let states = touched.states::<EndpointSlice>();
        states.filter_map(service_of).collect()
    } else if touched.is_of(&NODE) && !touched.was_there {
        // A node's zone is part of its endpoints; it hardly ever changes.
        let pods = pod::on_node(view, &touched.key.name);
        let namespaces: BTreeSet<&str> = pods.map(|pod| &*pod.key.namespace).collect();
        let services = namespaces
            .into_iter()
            .flat_map(|namespace| view.list_in::<Service>(namespace));
        services.map(|service| service.key.clone()).collect()
    } else if touched.is_of(&HORIZONTAL_POD_AUTOSCALER) {
        let states = touched.states::<Autoscaler>();
        let names = states.flat_map(|row| &row.body.wakes);
        names.map(|name| touched.key.sibling(name)).collect()
    } else {
        BTreeSet::new()
    };
    keys.into_iter().collect()
}

/// The Services that select a pod that changed, as it was or as it is.
pub fn services_of_pod(view: &View, touched: &Touched) -> BTreeSet<Key> {
    let services = view.list_in::<Service>(&touched.key.namespace);
    let matching = services.filter(|service| {
        let selector = service.body.selector.as_ref();
        selector.is_some_and(|selector| {
            let mut states = touched.states::<Pod>();
            states.any(|pod| selector.matches(&pod.meta.labels))
        })
    });
    matching.map(|service| service.key.clone()).collect()
}

pub(crate) fn service_of(slice: &Cached<EndpointSlice>) -> Option<Key> {
    let managed =
        slice.meta.labels.get(annotation::SLICE_MANAGED_BY)? == annotation::SLICE_CONTROLLER;
    let service = slice.meta.labels.get(annotation::SERVICE_NAME)?;
    managed.then(|| slice.key.sibling(service))
}

fn reconcile(view: &View, key: &Key, _: &Context<'_>) -> Outcome {
    let Some(service) = view.get::<Service>(key) else {
        return Outcome::default();
    };
    let (Some(spec), Some(selector)) = (&service.body.spec, &service.body.selector) else {
        return Outcome::default();
    };
    if service.meta.is_deleting() {
        return Outcome::default();
    }
    let (present, others): (Vec<_>, Vec<_>) = view
        .list_by(&BY_SERVICE, &key.to_string())
        .filter(|slice| !slice.meta.is_deleting())
        .partition(|slice| is_of(slice, service));
    let selected: Vec<&Arc<Cached<Pod>>> = view
        .list_in::<Pod>(&key.namespace)
        .filter(|pod| !pod.body.address.is_empty() && !pod.body.is_finished())
        .filter(|pod| selector.matches(&pod.meta.labels))
        .collect();
    let wanted = wanted_endpoints(view, spec, service, &selected);
    let beside = Beside {
        of_pods: facts_beside(&selected),
        waker: autoscaler::waker(view, key),
    };
    let mut writes = fill_slices(service, spec, &present, wanted, &beside);
    writes.extend(others.into_iter().map(|slice| Write::delete(slice)));
    let writes = writes.into_iter().map(|write| {
        let words = refused_words(&write, key);
        let reason = "FailedToUpdateEndpointSlices";
        write.telling(Note::of_refusal(service.reference(), reason, words))
    });
    Outcome::from_writes(writes.collect())
}

/// What the Service is told of a write that is refused.
fn refused_words(write: &Write, service: &Key) -> String {
    let (done, slice) = match write {
        Write::Patch { key, .. } => ("update", format!("{} ", key.name)),
        Write::Delete { key, .. } => ("delete", format!("{} ", key.name)),
        Write::Create { .. } | Write::Event(_) | Write::ConfirmGone { .. } => {
            ("create", String::new())
        }
    };
    format!(
        "Error updating Endpoint Slices for Service {service}: failed to {done} {slice}EndpointSlice for Service {service}"
    )
}

/// A slice of just this Service: not of one before it with its name, nor of another family.
fn is_of(slice: &Cached<EndpointSlice>, service: &Cached<Service>) -> bool {
    let mut owners = slice.meta.owner_references.iter();
    slice.body.address_type == ADDRESS_TYPE && owners.any(|owner| *owner.uid == *service.meta.uid)
}

/// What nodes must know and a slice has no field for.
struct Beside {
    of_pods: BesidePods,
    /// The autoscaler that brings pods back when the Service is called.
    waker: Option<String>,
}

/// Of the pods behind it: annotation, and texts by pod name.
type BesidePods = [(&'static str, BTreeMap<String, String>); 2];

/// The ServiceAccounts of the pods that do not run as `default`, and the workloads of those whose name does not tell it.
fn facts_beside(pods: &[&Arc<Cached<Pod>>]) -> BesidePods {
    let accounts = pods.iter().filter_map(|pod| {
        let account = &*pod.body.template.service_account;
        (!account.is_empty()).then(|| (pod.key.name.to_string(), account.to_owned()))
    });
    let workloads = pods.iter().filter_map(|pod| {
        let hash = pod.meta.labels.get(annotation::POD_TEMPLATE_HASH);
        let hash = hash.map_or("", String::as_str);
        let name = match pod.meta.controller() {
            Some(owner) => workload::of_owner(&owner.kind, &owner.name, hash),
            None => &*pod.key.name,
        };
        let is_told = workload::of_pod_name(&pod.key.name) == name;
        (!is_told).then(|| (pod.key.name.to_string(), name.to_owned()))
    });
    [
        (annotation::ENDPOINT_SERVICE_ACCOUNTS, accounts.collect()),
        (annotation::ENDPOINT_WORKLOADS, workloads.collect()),
    ]
}

/// The annotations of a slice with these endpoints; `None`: it needs none of that sort.
fn annotations<'a>(
    endpoints: &'a [Endpoint],
    beside: &'a Beside,
) -> impl Iterator<Item = (&'static str, Option<String>)> + use<'a> {
    let of_pods = beside.of_pods.iter().map(|(key, by_pod)| {
        let names = endpoints
            .iter()
            .filter_map(|endpoint| endpoint.target_ref.as_ref()?.name.as_ref());
        let named: BTreeMap<&String, &String> = names
            .filter_map(|name| Some((name, by_pod.get(name)?)))
            .collect();
        (*key, (!named.is_empty()).then(|| json!(named).to_string()))
    });
    let waker = (annotation::SCALED_FROM_ZERO_BY, beside.waker.clone());
    of_pods.chain([waker])
}

/// Resolved ports of an endpoint; what its slice is chosen by.
#[derive(Debug, Clone, PartialEq)]
struct PortSet(Vec<EndpointPort>);

impl PortSet {
    fn order(&self) -> Vec<(Option<&str>, Option<i32>, Option<&str>)> {
        let ports = self.0.iter();
        ports
            .map(|p| (p.name.as_deref(), p.port, p.protocol.as_deref()))
            .collect()
    }
}

impl Eq for PortSet {}

impl PartialOrd for PortSet {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for PortSet {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.order().cmp(&other.order())
    }
}

/// Endpoints by address-holder (the pod's uid), grouped by resolved ports.
type Wanted = BTreeMap<PortSet, BTreeMap<String, Endpoint>>;

fn wanted_endpoints(
    view: &View,
    spec: &ServiceSpec,
    service: &Cached<Service>,
    pods: &[&Arc<Cached<Pod>>],
) -> Wanted {
    let mut wanted = Wanted::new();
    for pod in pods {
        let endpoint = endpoint_of(view, spec, service, pod);
        let endpoints = wanted.entry(ports_of(spec, &pod.body)).or_default();
        endpoints.insert(pod.meta.uid.to_string(), endpoint);
    }
    wanted
}

fn endpoint_of(
    view: &View,
    spec: &ServiceSpec,
    service: &Cached<Service>,
    pod: &Cached<Pod>,
) -> Endpoint {
    let serving = pod.body.is_ready;
    let terminating = pod.meta.is_deleting();
    let publishes_all = spec.publish_not_ready_addresses == Some(true);
    let ready = publishes_all || (serving && !terminating);
    let node = &*pod.body.node;
    let zone = view
        .get::<Node>(&Key::cluster(node))
        .and_then(|node| node.meta.labels.get(ZONE).cloned());
    Endpoint {
        hints: hints(spec, ready, zone.as_deref(), node),
        addresses: vec![pod.body.address.to_string()],
        conditions: Some(EndpointConditions {
            ready: Some(ready),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hostname: hostname_of(service, pod),
        node_name: (!node.is_empty()).then(|| node.to_owned()),
        target_ref: Some(ObjectReference {
            kind: Some(POD.kind.to_string()),
            namespace: Some(pod.key.namespace.to_string()),
            name: Some(pod.key.name.to_string()),
            uid: Some(pod.meta.uid.to_string()),
            ..ObjectReference::default()
        }),
        zone,
        ..Endpoint::default()
    }
}

/// Who should prefer this endpoint, where the Service asks for near ones. One that is not ready is nobody's.
fn hints(spec: &ServiceSpec, ready: bool, zone: Option<&str>, node: &str) -> Option<EndpointHints> {
    let wanted = spec.traffic_distribution.as_deref()?;
    let (by_zone, by_node) = match wanted {
        "PreferClose" | "PreferSameZone" => (true, false),
        "PreferSameNode" => (true, true),
        _ => return None,
    };
    let zone = zone.filter(|zone| by_zone && !zone.is_empty());
    let zone = zone.map(|zone| ForZone {
        name: zone.to_owned(),
    });
    let node = (by_node && !node.is_empty()).then(|| ForNode {
        name: node.to_owned(),
    });
    let any = ready && (zone.is_some() || node.is_some());
    any.then(|| EndpointHints {
        for_zones: zone.map(|zone| vec![zone]),
        for_nodes: node.map(|node| vec![node]),
    })
}

/// The name of a pod below the Service that it says it belongs to.
pub fn hostname_of(service: &Cached<Service>, pod: &Cached<Pod>) -> Option<String> {
    let template = &pod.body.template;
    let is_named = template.subdomain.as_deref() == Some(&*service.key.name);
    let hostname = template.hostname.clone();
    hostname.filter(|name| is_named && !name.is_empty())
}

/// The service's ports as this pod has them. A named target port that the pod lacks is left out.
fn ports_of(spec: &ServiceSpec, pod: &Pod) -> PortSet {
    let ports = spec.ports.iter().flatten();
    let resolved = ports.filter_map(|port| {
        Some(EndpointPort {
            name: Some(port.name.clone().unwrap_or_default()),
            port: Some(target_port(port, pod)?),
            protocol: Some(protocol(port.protocol.as_deref()).to_owned()),
            app_protocol: port.app_protocol.clone(),
        })
    });
    PortSet(resolved.collect())
}

pub fn target_port(port: &ServicePort, pod: &Pod) -> Option<i32> {
    let name = match &port.target_port {
        None => return Some(port.port),
        Some(IntOrString::Int(0)) => return Some(port.port),
        Some(IntOrString::Int(number)) => return Some(*number),
        Some(IntOrString::String(name)) => name,
    };
    let wanted = protocol(port.protocol.as_deref());
    let mut ports = pod.template.ports.iter();
    let found = ports.find(|port| port.name == *name && port.protocol == wanted)?;
    Some(found.container_port)
}

pub fn protocol(protocol: Option<&str>) -> &str {
    protocol.unwrap_or("TCP")
}

/// Distributes the endpoints over the slices that are there, and new ones for the rest.
fn fill_slices(
    service: &Cached<Service>,
    spec: &ServiceSpec,
    present: &[&Arc<Cached<EndpointSlice>>],
    wanted: Wanted,
    beside: &Beside,
) -> Vec<Write> {
    let labels = slice_labels(service, spec);
    let mut writes = Vec::new();
    let mut kept: BTreeSet<&str> = BTreeSet::new();
    let mut new: Vec<(PortSet, Vec<Endpoint>)> = Vec::new();
    for (ports, mut endpoints) in wanted {
        let slices: Vec<&&Arc<Cached<EndpointSlice>>> = present
            .iter()
            .filter(|slice| {
                let theirs = PortSet(slice.body.ports.clone().unwrap_or_default());
                theirs.order() == ports.order()
            })
            .collect();
        // Each slice keeps those of its endpoints that are still wanted, in its order …
        let mut filled: Vec<Vec<Endpoint>> = slices
            .iter()
            .map(|slice| {
                let uids = slice.body.endpoints.iter().flatten().filter_map(uid_of);
                uids.filter_map(|uid| endpoints.remove(uid)).collect()
            })
            .collect();
        // … then takes new ones while there is room.
        let mut rest = endpoints.into_values().peekable();
        for slice in &mut filled {
            while slice.len() < SLICE_MAX {
                let Some(endpoint) = rest.next() else { break };
                slice.push(endpoint);
            }
        }
        for (slice, endpoints) in slices.iter().zip(&filled) {
            if !endpoints.is_empty() {
                kept.insert(&*slice.meta.uid);
                writes.extend(update_slice(slice, &ports, endpoints, &labels, beside));
            }
        }
        while rest.peek().is_some() {
            let chunk = rest.by_ref().take(SLICE_MAX).collect();
            new.push((ports.clone(), chunk));
        }
    }
    if kept.is_empty() && new.is_empty() {
        // One empty slice says "nobody", as against "not looked at yet".
        new.push((PortSet(Vec::new()), Vec::new()));
    }
    // What is new takes the place of what is left over, before anything is made or removed.
    let mut spare = present
        .iter()
        .filter(|slice| !kept.contains(&*slice.meta.uid));
    for (number, (ports, endpoints)) in new.iter().enumerate() {
        match spare.next() {
            Some(slice) => writes.extend(update_slice(slice, ports, endpoints, &labels, beside)),
            None => writes.push(create_slice(
                service, ports, endpoints, &labels, present, number, beside,
            )),
        }
    }
    // Last, so that an endpoint that moves is never nowhere.
    writes.extend(spare.map(|slice| Write::delete(slice)));
    writes
}

fn uid_of(endpoint: &Endpoint) -> Option<&str> {
    endpoint.target_ref.as_ref()?.uid.as_deref()
}

/// The service's own labels, and those that say whose slice this is.
fn slice_labels(service: &Cached<Service>, spec: &ServiceSpec) -> BTreeMap<String, String> {
    let mut labels = (*service.meta.labels).clone();
    labels.insert(
        annotation::SERVICE_NAME.to_owned(),
        service.key.name.to_string(),
    );
    labels.insert(
        annotation::SLICE_MANAGED_BY.to_owned(),
        annotation::SLICE_CONTROLLER.to_owned(),
    );
    if spec.cluster_ip.as_deref() == Some("None") {
        labels.insert(HEADLESS.to_owned(), String::new());
    } else {
        labels.remove(HEADLESS);
    }
    labels
}

fn update_slice(
    slice: &Cached<EndpointSlice>,
    ports: &PortSet,
    endpoints: &[Endpoint],
    labels: &BTreeMap<String, String>,
    beside: &Beside,
) -> Option<Write> {
    let mut patch = json!({});
    for (key, text) in annotations(endpoints, beside) {
        if slice.meta.annotations.get(key) != text.as_ref() {
            patch["metadata"]["annotations"][key] = json!(text);
        }
    }
    let had = slice.body.endpoints.as_deref().unwrap_or_default();
    if had != endpoints {
        patch["endpoints"] = json!(endpoints);
    }
    if slice.body.ports.as_deref().unwrap_or_default() != ports.0 {
        patch["ports"] = json!(ports.0);
    }
    for (key, value) in labels {
        if slice.meta.labels.get(key) != Some(value) {
            patch["metadata"]["labels"][key] = json!(value);
        }
    }
    for key in slice
        .meta
        .labels
        .keys()
        .filter(|k| !labels.contains_key(*k))
    {
        patch["metadata"]["labels"][key] = serde_json::Value::Null;
    }
    let changed = patch.as_object().is_some_and(|patch| !patch.is_empty());
    changed.then(|| Write::patch(slice, patch))
}

fn create_slice(
    service: &Cached<Service>,
    ports: &PortSet,
    endpoints: &[Endpoint],
    labels: &BTreeMap<String, String>,
    present: &[&Arc<Cached<EndpointSlice>>],
    number: usize,
    beside: &Beside,
) -> Write {
    let annotations: BTreeMap<&str, String> = annotations(endpoints, beside)
        .filter_map(|(key, text)| Some((key, text?)))
        .collect();
    let slices = present.iter().filter_map(|s| s.meta.resource_version);
    let epoch = slices.chain(service.meta.resource_version).max();
    let shape = json!(ports.0).to_string();
    let name = names::generated(
        &service.key.name,
        &names::suffix(
            names::hash(&[
                service.meta.uid.as_bytes(),
                &epoch.unwrap_or(0).to_be_bytes(),
                &number.to_be_bytes(),
                shape.as_bytes(),
            ]),
            5,
        ),
    );
    let slice = json!({
        "apiVersion": ENDPOINT_SLICE.api_version(),
        "kind": ENDPOINT_SLICE.kind,
        "metadata": {
            "name": name,
            "generateName": names::generate_prefix(&service.key.name),
            "namespace": &*service.key.namespace,
            "labels": labels,
            "annotations": annotations,
            "ownerReferences": [controller_reference(service)],
        },
        "addressType": ADDRESS_TYPE,
        "endpoints": endpoints,
        "ports": ports.0,
    });
    Write::create(&ENDPOINT_SLICE, object(slice))
}
