//! What the endpoints of a Service are, read once from each of its EndpointSlices. Pure.

use super::cluster::NodeFacts;
use super::nearness::Hints;
use ipnet::IpNet;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use weft_api::{SpiffeId, annotation, workload};
use weft_gateway::NamespacedName;
use weft_mesh::{
    EndpointSpec, HostName, Protocol, ServicePortSpec, ServiceSpec, SliceNames, WorkloadInfo,
};

/// An EndpointSlice, as far as the mesh goes.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Slice {
    /// The Service it belongs to.
    pub(super) service: Option<NamespacedName>,
    /// The cluster's controller made it, of the pods that the Service selects.
    made_by_cluster: bool,
    /// A call has pods made where there are none.
    wakes: bool,
    ports: Vec<(Option<String>, u16)>,
    endpoints: Vec<Pod>,
    /// The same for names.
    names: Arc<SliceNames>,
}

/// An endpoint of a slice, behind each of its ports.
#[derive(Debug, PartialEq)]
struct Pod {
    name: String,
    ip: IpAddr,
    node: String,
    identity: SpiffeId,
    /// Nobody said whose it is who knows: it is where the range of its address is.
    by_address: bool,
    workload: WorkloadInfo,
    ready: bool,
    serving: bool,
    hints: Hints,
    zone: Option<String>,
}

impl Slice {
    /// Where its endpoints are.
    pub(super) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.endpoints.iter().map(|pod| pod.ip.to_canonical())
    }

    /// Where its endpoints take connections to the port of this name, those that are ready.
    pub(super) fn sockets(&self, port: Option<&str>) -> impl Iterator<Item = SocketAddr> {
        let mut ports = self.ports.iter();
        let number = ports.find(|(name, _)| name.as_deref() == named(port));
        let number = number.map(|(_, number)| *number);
        number.into_iter().flat_map(|number| {
            let ready = self.endpoints.iter().filter(|pod| pod.ready);
            ready.map(move |pod| SocketAddr::new(pod.ip.to_canonical(), number))
        })
    }

    pub(super) fn read(slice: &EndpointSlice, trust_domain: &str) -> Self {
        let namespace = slice.metadata.namespace.as_deref().unwrap_or_default();
        let labels = slice.metadata.labels.clone().unwrap_or_default();
        let service = labels.get(annotation::SERVICE_NAME);
        let manager = labels.get(annotation::SLICE_MANAGED_BY);
        let made_by_cluster = manager.is_some_and(|by| by == annotation::SLICE_CONTROLLER);
        let annotations = slice.metadata.annotations.as_ref();
        let by_pod = |key: &str| -> BTreeMap<String, String> {
            let text = annotations.and_then(|annotations| annotations.get(key));
            let named = text.and_then(|text| serde_json::from_str(text).ok());
            named.unwrap_or_default()
        };
        let accounts = by_pod(annotation::ENDPOINT_SERVICE_ACCOUNTS);
        let workloads = by_pod(annotation::ENDPOINT_WORKLOADS);
        let mut endpoints = Vec::new();
        let mut hosts = Vec::new();
        for endpoint in slice.endpoints.iter().flatten() {
            let Some(ip) = endpoint
                .addresses
                .first()
                .and_then(|ip| ip.parse::<IpAddr>().ok())
            else {
                continue;
            };
            let name = endpoint
                .target_ref
                .as_ref()
                .and_then(|target| target.name.clone())
                .unwrap_or_else(|| ip.to_string());
            let conditions = endpoint.conditions.clone().unwrap_or_default();
            // As EndpointSlice says: what is unknown counts as ready, and serving follows ready.
            let ready = conditions.ready.unwrap_or(true);
            hosts.push(HostName {
                hostname: endpoint.hostname.clone(),
                ip,
                ready,
            });
            // Whoever wrote it by hand may know an address alone: nobody says whose pod that is, and it is called by that.
            let account = accounts.get(&name).map(String::as_str);
            let is_named = account.is_some() || endpoint.target_ref.is_some();
            let by_address = !is_named && !made_by_cluster;
            let identity = match by_address {
                true => weft_mesh::gateway_identity(trust_domain),
                false => SpiffeId::new(trust_domain, namespace, account.unwrap_or("default")),
            };
            let hinted = endpoint.hints.clone().unwrap_or_default();
            let workload = workloads.get(&name).map(String::as_str);
            let workload = workload.unwrap_or_else(|| workload::of_pod_name(&name));
            endpoints.push(Pod {
                ip,
                node: endpoint.node_name.clone().unwrap_or_default(),
                identity,
                by_address,
                workload: WorkloadInfo::from_labels(workload, namespace, &labels),
                ready,
                serving: conditions.serving.unwrap_or(ready),
                hints: Hints {
                    nodes: hinted
                        .for_nodes
                        .into_iter()
                        .flatten()
                        .map(|node| node.name)
                        .collect(),
                    zones: hinted
                        .for_zones
                        .into_iter()
                        .flatten()
                        .map(|zone| zone.name)
                        .collect(),
                },
                zone: endpoint.zone.clone(),
                name,
            });
        }
        let ports = slice.ports.iter().flatten().filter_map(|port| {
            let number = port.port.and_then(|number| u16::try_from(number).ok())?;
            let name = named(port.name.as_deref()).map(str::to_owned);
            Some((name, Protocol::parse(port.protocol.as_deref()), number))
        });
        let named_ports: Vec<(Option<String>, Protocol, u16)> = ports.collect();
        Self {
            service: service.map(|service| NamespacedName::new(namespace, service.as_str())),
            made_by_cluster,
            wakes: made_by_cluster
                && annotations.is_some_and(|all| all.contains_key(annotation::SCALED_FROM_ZERO_BY)),
            ports: named_ports
                .iter()
                .map(|(name, _, number)| (name.clone(), *number))
                .collect(),
            endpoints,
            names: Arc::new(SliceNames {
                ports: named_ports,
                hosts,
            }),
        }
    }

    /// Its endpoints that are ready, and for whom each is meant.
    pub(super) fn hinted(&self) -> impl Iterator<Item = (IpAddr, &Hints)> {
        let ready = self.endpoints.iter().filter(|pod| pod.ready);
        ready.map(|pod| (pod.ip, &pod.hints))
    }

    /// Where its endpoints in a zone are.
    pub(super) fn in_zone(&self, zone: &str) -> impl Iterator<Item = IpAddr> {
        let pods = self.endpoints.iter();
        let pods = pods.filter(move |pod| pod.zone.as_deref() == Some(zone));
        pods.map(|pod| pod.ip)
    }

    /// Whether any of its pods is on the node, or may be: of some only the address is known.
    pub(super) fn is_on(&self, node: &str) -> bool {
        let is_on = |pod: &Pod| pod.node == node || pod.by_address;
        self.endpoints.iter().any(is_on)
    }

    /// Its endpoints behind the service port of this name. `selects`: whether the Service chooses pods by their labels.
    pub(super) fn behind(
        &self,
        port: Option<&str>,
        selects: bool,
        nodes: &BTreeMap<String, NodeFacts>,
    ) -> impl Iterator<Item = EndpointSpec> {
        let chosen = self.made_by_cluster && selects;
        let mut ports = self.ports.iter();
        let number = ports.find(|(name, _)| name.as_deref() == named(port));
        let number = number.map(|(_, number)| *number);
        number.into_iter().flat_map(move |number| {
            self.endpoints.iter().map(move |pod| {
                let found = match pod.by_address {
                    true => nodes.iter().find(|(_, node)| node.gives(pod.ip)),
                    false => nodes.get_key_value(&pod.node),
                };
                let node = found.map(|(_, node)| node);
                EndpointSpec {
                    pod: pod.name.clone(),
                    ip: pod.ip,
                    port: number,
                    node_address: node.and_then(|node| node.mesh_address),
                    node: match found {
                        Some((name, _)) => name.clone(),
                        None if pod.by_address => String::new(),
                        None => pod.node.clone(),
                    },
                    identity: pod.identity.clone(),
                    workload: pod.workload.clone(),
                    ready: pod.ready,
                    serving: pod.serving,
                    // A node says itself which addresses its pods have, and may say so of its own range only.
                    assigned: chosen && node.is_some_and(|node| node.gives(pod.ip)),
                }
            })
        })
    }
}

/// The only port of a Service may have no name, which is written in two ways.
fn named(name: Option<&str>) -> Option<&str> {
    name.filter(|name| !name.is_empty())
}

/// A Service and the endpoints in its slices, as the mesh takes it.
pub(super) fn service_spec(
    name: NamespacedName,
    service: &Service,
    slices: &[Arc<Slice>],
    nodes: &BTreeMap<String, NodeFacts>,
) -> ServiceSpec {
    let spec = service.spec.as_ref();
    let selector = spec.and_then(|spec| spec.selector.as_ref());
    let selects = selector.is_some_and(|selector| !selector.is_empty());
    let ports = spec.and_then(|spec| spec.ports.as_ref());
    let ports = ports.into_iter().flatten().filter_map(|port| {
        let number = u16::try_from(port.port).ok().filter(|number| *number > 0)?;
        let endpoints = slices
            .iter()
            .flat_map(|slice| slice.behind(port.name.as_deref(), selects, nodes));
        Some(ServicePortSpec {
            name: port.name.clone(),
            protocol: Protocol::parse(port.protocol.as_deref()),
            port: number,
            speaks_h2: weft_gateway::Protocol::named(port.app_protocol.as_deref())
                == weft_gateway::Protocol::H2c,
            speaks_http: weft_gateway::Protocol::is_http(port.app_protocol.as_deref()),
            node_port: port
                .node_port
                .and_then(|port| u16::try_from(port).ok())
                .filter(|port| *port > 0),
            endpoints: endpoints.collect(),
        })
    });
    let cluster_ip = spec.and_then(|spec| spec.cluster_ip.as_deref());
    let is_alias = spec.and_then(|spec| spec.type_.as_deref()) == Some("ExternalName");
    let alias = spec.and_then(|spec| spec.external_name.clone());
    ServiceSpec {
        alias: alias.filter(|name| is_alias && !name.is_empty()),
        ports: ports.collect(),
        cluster_ip: cluster_ip.and_then(|ip| ip.parse().ok()),
        namespace: name.namespace,
        name: name.name,
        addresses: addresses(service),
        source_ranges: source_ranges(service),
        external_local: spec.and_then(|spec| spec.external_traffic_policy.as_deref())
            == Some("Local"),
        health_port: health_port(service),
        internal_local: spec.and_then(|spec| spec.internal_traffic_policy.as_deref())
            == Some("Local"),
        affinity: affinity(service),
        preferred: BTreeSet::new(),
        same_zone: BTreeSet::new(),
        wakes: slices.iter().any(|slice| slice.wakes),
        names: slices
            .iter()
            .map(|slice| Arc::clone(&slice.names))
            .collect(),
    }
}

/// Where it is served for who comes from outside.
fn addresses(service: &Service) -> Vec<IpAddr> {
    let is_balanced = service.spec.as_ref().and_then(|spec| spec.type_.as_deref());
    let class = service
        .spec
        .as_ref()
        .and_then(|spec| spec.load_balancer_class.as_deref());
    // What stands for a Gateway is served as that.
    if is_balanced != Some("LoadBalancer") || class == Some(annotation::GATEWAY_SERVICE_CLASS) {
        return Vec::new();
    }
    let status = service.status.as_ref();
    let balancer = status.and_then(|status| status.load_balancer.as_ref());
    let ingress = balancer.and_then(|balancer| balancer.ingress.as_ref());
    let addresses = ingress
        .into_iter()
        .flatten()
        .filter_map(|one| one.ip.as_ref());
    addresses.filter_map(|ip| ip.parse().ok()).collect()
}

/// Where each node tells how many of its endpoints are there.
fn health_port(service: &Service) -> Option<u16> {
    let spec = service.spec.as_ref()?;
    let is_balanced = spec.type_.as_deref() == Some("LoadBalancer")
        && spec.external_traffic_policy.as_deref() == Some("Local");
    let number = spec.health_check_node_port.filter(|_| is_balanced)?;
    u16::try_from(number).ok().filter(|number| *number > 0)
}

/// Who may come there; what cannot be read lets nobody in.
fn source_ranges(service: &Service) -> Vec<IpNet> {
    let spec = service.spec.as_ref();
    let ranges = spec.and_then(|spec| spec.load_balancer_source_ranges.as_ref());
    let nobody = IpNet::from(IpAddr::from([0, 0, 0, 0]));
    let ranges = ranges.into_iter().flatten();
    ranges
        .map(|range| range.trim().parse().unwrap_or(nobody))
        .collect()
}

/// How long a client stays with its endpoint, where it does.
fn affinity(service: &Service) -> Option<Duration> {
    /// Three hours, as Kubernetes has it.
    const DEFAULT_SECONDS: u64 = 10_800;
    let spec = service.spec.as_ref()?;
    if spec.session_affinity.as_deref() != Some("ClientIP") {
        return None;
    }
    let config = spec.session_affinity_config.as_ref();
    let client = config.and_then(|config| config.client_ip.as_ref());
    let seconds = client.and_then(|client| client.timeout_seconds);
    let seconds = seconds.and_then(|seconds| u64::try_from(seconds).ok());
    Some(Duration::from_secs(seconds.unwrap_or(DEFAULT_SECONDS)))
}
