//! What the cluster looks like, for the mesh: services, endpoints, routes, nodes.
//!
//! Five watches keep plain maps; whenever one changed, and after a short pause that gathers what comes together, a new
//! [`Table`] is built from all of them and published. Building is pure ([`table`]); the maps are never seen half filled,
//! because nothing is published before every list that the mesh cannot do without has arrived.
//!
//! Invariants: generations only grow; after a relist the maps hold exactly what was listed; while the server is away the last
//! table stays in force.

use crate::identity::{Chain, Link};
use futures::{Stream, StreamExt, TryStreamExt};
use http::{HeaderName, HeaderValue, Method, StatusCode};
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, ApiResource, DynamicObject};
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch_objects};
use parking_lot::Mutex;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use weft_api::{SpiffeId, annotation, workload};
use weft_mesh::{
    AllowedNamespaces, Backend, BackendTarget, EndpointSpec, Filter, GatewaySpec, HeaderChange,
    ListenerSpec, Locality, Match, Mesh, Parent, PathChange, PathMatch, Redirect, Rewrite,
    RouteSpec, Rule, ServicePortSpec, ServiceSpec, Table, WorkloadInfo,
};

/// How long changes are gathered before a table is built: a rollout touches several objects at once.
const GATHER: Duration = Duration::from_millis(5);
/// A table is built again no sooner than after this many times what the last one took: the table of ten thousand pods takes
/// tens of milliseconds, and they all change while they start.
const REST_SHARE: u32 = 8;
/// Longest such pause: callers wait a second for a newer table when every endpoint they know turned them away.
const REST_MAX: Duration = Duration::from_millis(400);
/// First pause after a broken watch.
const RECONNECT_FIRST: Duration = Duration::from_millis(200);
/// Longest pause after a broken watch: a node must notice a new leader soon.
const RECONNECT_MAX: Duration = Duration::from_secs(3);
/// The `gatewayClassName` that weft's gateway serves.
const GATEWAY_CLASS: &str = "weft";

/// Pauses between attempts to open a watch, doubling, with jitter.
#[derive(Clone, Debug)]
pub struct Reconnect {
    next: Duration,
}

impl Default for Reconnect {
    fn default() -> Self {
        Self {
            next: RECONNECT_FIRST,
        }
    }
}

impl Iterator for Reconnect {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let pause = self.next.mul_f64(0.75 + 0.5 * rand::random::<f64>());
        self.next = (self.next * 2).min(RECONNECT_MAX);
        Some(pause)
    }
}

impl Backoff for Reconnect {
    fn reset(&mut self) {
        self.next = RECONNECT_FIRST;
    }
}

type Key = (String, String);

/// The objects the mesh is made from.
#[derive(Debug, Default)]
struct Cluster {
    services: BTreeMap<Key, Service>,
    slices: BTreeMap<Key, EndpointSlice>,
    nodes: BTreeMap<Key, Node>,
    routes: BTreeMap<Key, DynamicObject>,
    gateways: BTreeMap<Key, DynamicObject>,
    /// Lists that have arrived at least once; services, slices and nodes must.
    arrived: BTreeSet<&'static str>,
}

const NEEDED: [&str; 3] = ["services", "endpointslices", "nodes"];

/// The cluster as this node last saw it. Clones share it.
#[derive(Clone)]
pub struct Topology {
    cluster: Arc<Mutex<Cluster>>,
    changed: Arc<Notify>,
    known: watch::Sender<bool>,
    node: String,
    trust_domain: String,
}

impl Topology {
    /// Nothing known yet.
    pub fn new(node: &str, trust_domain: &str) -> Self {
        Self {
            cluster: Arc::default(),
            changed: Arc::new(Notify::new()),
            known: watch::Sender::new(false),
            node: node.into(),
            trust_domain: trust_domain.into(),
        }
    }

    /// Returns once services, endpoints and nodes have been listed and published.
    pub async fn known(&self) {
        let mut known = self.known.subscribe();
        // The sender lives in `self`, so that waiting cannot fail.
        let _ = known.wait_for(|known| *known).await;
    }

    /// The services whose variables a container in `namespace` sees.
    pub fn services_for(&self, namespace: &str) -> Vec<Service> {
        let cluster = self.cluster.lock();
        let own = cluster
            .services
            .range((namespace.to_owned(), String::new())..)
            .take_while(|((of, _), _)| of == namespace)
            .map(|(_, service)| service);
        let kubernetes = cluster
            .services
            .get(&("default".to_owned(), "kubernetes".to_owned()))
            .filter(|_| namespace != "default");
        own.chain(kubernetes).cloned().collect()
    }

    /// Watches and publishes until `shutdown`.
    pub async fn run(self, link: Link, mesh: Mesh, shutdown: CancellationToken) {
        let gateway_api = |kind: &str, plural: &str| ApiResource {
            group: "gateway.networking.k8s.io".into(),
            version: "v1".into(),
            api_version: "gateway.networking.k8s.io/v1".into(),
            kind: kind.into(),
            plural: plural.into(),
        };
        let (routes, gateways) = (
            gateway_api("HTTPRoute", "httproutes"),
            gateway_api("Gateway", "gateways"),
        );
        let watching = async {
            tokio::join!(
                self.follow(&link, "services", Api::<Service>::all, |cluster| {
                    &mut cluster.services
                }),
                self.follow(
                    &link,
                    "endpointslices",
                    Api::<EndpointSlice>::all,
                    |cluster| &mut cluster.slices
                ),
                self.follow(&link, "nodes", Api::<Node>::all, |cluster| &mut cluster
                    .nodes),
                self.follow(
                    &link,
                    "httproutes",
                    |client| Api::all_with(client, &routes),
                    |cluster| &mut cluster.routes
                ),
                self.follow(
                    &link,
                    "gateways",
                    |client| Api::all_with(client, &gateways),
                    |cluster| &mut cluster.gateways
                ),
                self.publish(&mesh),
            )
        };
        tokio::select! {
            biased;
            () = shutdown.cancelled() => {}
            _ = watching => {}
        }
    }

    async fn publish(&self, mesh: &Mesh) {
        let mut generation = 0;
        let mut rested = tokio::time::Instant::now();
        loop {
            self.changed.notified().await;
            tokio::time::sleep_until(rested.max(tokio::time::Instant::now() + GATHER)).await;
            let begun = tokio::time::Instant::now();
            let table = {
                let cluster = self.cluster.lock();
                if !NEEDED.iter().all(|list| cluster.arrived.contains(list)) {
                    continue;
                }
                generation += 1;
                table(&cluster, &self.node, &self.trust_domain, generation)
            };
            mesh.publish(table);
            rested = tokio::time::Instant::now() + (begun.elapsed() * REST_SHARE).min(REST_MAX);
            self.known.send_replace(true);
        }
    }

    /// Keeps one map equal to what the server lists.
    async fn follow<K>(
        &self,
        link: &Link,
        list: &'static str,
        api: impl Fn(kube::Client) -> Api<K>,
        map: impl Fn(&mut Cluster) -> &mut BTreeMap<Key, K>,
    ) where
        K: kube::Resource + Clone + std::fmt::Debug + Send + serde::de::DeserializeOwned + 'static,
    {
        let mut link = link.clone();
        loop {
            let mut events =
                std::pin::pin!(reconnecting(api(link.client()), watcher::Config::default()));
            let mut relist: Option<BTreeMap<Key, K>> = None;
            loop {
                let event = tokio::select! {
                    biased;
                    event = events.next() => event,
                    // A renewed certificate: watch anew under it.
                    () = link.renewed() => None,
                };
                let Some(event) = event else { break };
                match event {
                    Ok(Event::Init) => {
                        relist = Some(BTreeMap::new());
                        continue;
                    }
                    Ok(Event::InitApply(object)) => {
                        relist.get_or_insert_default().insert(key(&object), object);
                        continue;
                    }
                    // Only what arrived completely is worth a table.
                    Ok(Event::InitDone) => {
                        let mut cluster = self.cluster.lock();
                        *map(&mut cluster) = relist.take().unwrap_or_default();
                        cluster.arrived.insert(list);
                    }
                    Ok(Event::Apply(object)) => {
                        map(&mut self.cluster.lock()).insert(key(&object), object);
                    }
                    Ok(Event::Delete(object)) => {
                        map(&mut self.cluster.lock()).remove(&key(&object));
                    }
                    Err(error) => {
                        tracing::debug!(list, error = %Chain(&error), "watch broken, will be opened again");
                        continue;
                    }
                }
                self.changed.notify_one();
            }
        }
    }
}

/// A watch that opens itself again, with [`Reconnect`]'s pauses.
pub fn reconnecting<K>(
    api: Api<K>,
    config: watcher::Config,
) -> impl Stream<Item = watcher::Result<Event<K>>>
where
    K: kube::Resource + Clone + std::fmt::Debug + Send + serde::de::DeserializeOwned + 'static,
{
    watch_objects(api, config)
        .backoff(Reconnect::default())
        .into_stream()
}

fn key<K: kube::Resource>(object: &K) -> Key {
    let meta = object.meta();
    (
        meta.namespace.clone().unwrap_or_default(),
        meta.name.clone().unwrap_or_default(),
    )
}

/// The mesh's table of a cluster. Pure.
fn table(cluster: &Cluster, node: &str, trust_domain: &str, generation: u64) -> Table {
    let mut slices: BTreeMap<(&str, &str), Vec<&EndpointSlice>> = BTreeMap::new();
    for slice in cluster.slices.values() {
        let namespace = slice.metadata.namespace.as_deref().unwrap_or_default();
        if let Some(service) = slice
            .metadata
            .labels
            .as_ref()
            .and_then(|labels| labels.get(annotation::SERVICE_NAME))
        {
            slices.entry((namespace, service)).or_default().push(slice);
        }
    }
    let mesh_addresses: BTreeMap<&str, SocketAddr> = cluster
        .nodes
        .iter()
        .filter_map(|((_, name), node)| {
            let address = node
                .metadata
                .annotations
                .as_ref()?
                .get(annotation::MESH_ADDRESS)?
                .parse()
                .ok()?;
            Some((name.as_str(), address))
        })
        .collect();
    let services = cluster.services.iter().map(|((namespace, name), service)| {
        let slices = slices
            .get(&(namespace.as_str(), name.as_str()))
            .map(Vec::as_slice)
            .unwrap_or_default();
        service_spec(
            namespace,
            name,
            service,
            slices,
            &mesh_addresses,
            trust_domain,
        )
    });
    let routes = cluster
        .routes
        .iter()
        .map(|((namespace, name), route)| route_spec(namespace, name, route));
    let gateways = cluster
        .gateways
        .iter()
        .filter_map(|((namespace, name), gateway)| gateway_spec(namespace, name, gateway));
    Table::builder(node, generation)
        .services(services)
        .routes(routes)
        .gateways(gateways)
        .build()
}

fn service_spec(
    namespace: &str,
    name: &str,
    service: &Service,
    slices: &[&EndpointSlice],
    mesh_addresses: &BTreeMap<&str, SocketAddr>,
    trust_domain: &str,
) -> ServiceSpec {
    let spec = service.spec.clone().unwrap_or_default();
    let ports = spec.ports.iter().flatten().filter_map(|port| {
        let number = u16::try_from(port.port).ok().filter(|number| *number > 0)?;
        let endpoints = slices
            .iter()
            .flat_map(|slice| {
                endpoints(
                    namespace,
                    slice,
                    port.name.as_deref(),
                    mesh_addresses,
                    trust_domain,
                )
            })
            .collect();
        Some(ServicePortSpec {
            name: port.name.clone(),
            port: number,
            endpoints,
        })
    });
    ServiceSpec {
        namespace: namespace.into(),
        name: name.into(),
        cluster_ip: spec.cluster_ip.as_deref().and_then(|ip| ip.parse().ok()),
        ports: ports.collect(),
        locality: Locality::default(),
    }
}

/// The endpoints of one slice behind the service port called `port`.
fn endpoints(
    namespace: &str,
    slice: &EndpointSlice,
    port: Option<&str>,
    mesh_addresses: &BTreeMap<&str, SocketAddr>,
    trust_domain: &str,
) -> Vec<EndpointSpec> {
    fn named(name: Option<&str>) -> Option<&str> {
        name.filter(|name| !name.is_empty())
    }
    let number = slice
        .ports
        .iter()
        .flatten()
        .find(|candidate| named(candidate.name.as_deref()) == named(port))
        .and_then(|port| port.port);
    let Some(number) = number.and_then(|number| u16::try_from(number).ok()) else {
        return Vec::new();
    };
    let annotations = slice.metadata.annotations.as_ref();
    let by_pod = |key: &str| -> BTreeMap<String, String> {
        let text = annotations.and_then(|annotations| annotations.get(key));
        let named = text.and_then(|text| serde_json::from_str(text).ok());
        named.unwrap_or_default()
    };
    let accounts = by_pod(annotation::ENDPOINT_SERVICE_ACCOUNTS);
    let workloads = by_pod(annotation::ENDPOINT_WORKLOADS);
    let labels = slice.metadata.labels.clone().unwrap_or_default();
    let mut found = Vec::new();
    for endpoint in slice.endpoints.iter().flatten() {
        let Some(ip) = endpoint
            .addresses
            .first()
            .and_then(|ip| ip.parse::<IpAddr>().ok())
        else {
            continue;
        };
        let pod = endpoint
            .target_ref
            .as_ref()
            .and_then(|target| target.name.clone())
            .unwrap_or_else(|| ip.to_string());
        let node = endpoint.node_name.clone().unwrap_or_default();
        let conditions = endpoint.conditions.clone().unwrap_or_default();
        // As EndpointSlice says: what is unknown counts as ready, and serving follows ready.
        let ready = conditions.ready.unwrap_or(true);
        let account = accounts.get(&pod).map_or("default", String::as_str);
        let workload = workloads.get(&pod).map(String::as_str);
        let workload = workload.unwrap_or_else(|| workload::of_pod_name(&pod));
        found.push(EndpointSpec {
            ip,
            port: number,
            node_address: mesh_addresses.get(node.as_str()).copied(),
            node,
            identity: SpiffeId::new(trust_domain, namespace, account),
            workload: WorkloadInfo::from_labels(workload, namespace, &labels),
            ready,
            serving: conditions.serving.unwrap_or(ready),
            pod,
        });
    }
    found
}

fn text<'a>(value: &'a Value, pointer: &str) -> Option<&'a str> {
    value.pointer(pointer)?.as_str()
}

fn list<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value
        .pointer(pointer)
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default()
}

fn number(value: &Value, pointer: &str) -> Option<u16> {
    value
        .pointer(pointer)?
        .as_u64()
        .and_then(|number| u16::try_from(number).ok())
}

fn gateway_spec(namespace: &str, name: &str, gateway: &DynamicObject) -> Option<GatewaySpec> {
    let data = &gateway.data;
    if text(data, "/spec/gatewayClassName") != Some(GATEWAY_CLASS) {
        return None;
    }
    let listeners = list(data, "/spec/listeners")
        .iter()
        .filter(|listener| text(listener, "/protocol").is_none_or(|protocol| protocol == "HTTP"))
        .map(|listener| ListenerSpec {
            name: text(listener, "/name").unwrap_or_default().into(),
            port: number(listener, "/port").unwrap_or(80),
            hostname: text(listener, "/hostname")
                .filter(|host| !host.is_empty())
                .map(Into::into),
            allowed: match text(listener, "/allowedRoutes/namespaces/from") {
                Some("All") => AllowedNamespaces::All,
                // A selector needs the namespaces' labels, which the mesh's inputs do not hold: the safe reading is the narrow one.
                _ => AllowedNamespaces::Same,
            },
        });
    Some(GatewaySpec {
        namespace: namespace.into(),
        name: name.into(),
        listeners: listeners.collect(),
    })
}

fn route_spec(namespace: &str, name: &str, route: &DynamicObject) -> RouteSpec {
    let data = &route.data;
    let parents = list(data, "/spec/parentRefs").iter().filter_map(|parent| {
        let of = text(parent, "/namespace").unwrap_or(namespace).to_owned();
        let name = text(parent, "/name")?.to_owned();
        match (
            text(parent, "/group").unwrap_or("gateway.networking.k8s.io"),
            text(parent, "/kind").unwrap_or("Gateway"),
        ) {
            ("gateway.networking.k8s.io", "Gateway") => Some(Parent::Gateway {
                namespace: of,
                name,
                section: text(parent, "/sectionName").map(Into::into),
                port: number(parent, "/port"),
            }),
            ("" | "core", "Service") => Some(Parent::Service {
                namespace: of,
                name,
                port: number(parent, "/port"),
            }),
            _ => None,
        }
    });
    RouteSpec {
        namespace: namespace.into(),
        name: name.into(),
        created: route
            .metadata
            .creation_timestamp
            .as_ref()
            .map_or(0, |time| time.0.as_second()),
        parents: parents.collect(),
        hostnames: list(data, "/spec/hostnames")
            .iter()
            .filter_map(Value::as_str)
            .map(Into::into)
            .collect(),
        rules: list(data, "/spec/rules")
            .iter()
            .filter_map(|rule| self::rule(namespace, rule))
            .collect(),
    }
}

/// `None` when the rule has conditions and none of them can be kept: it must not match everything instead.
fn rule(namespace: &str, rule: &Value) -> Option<Rule> {
    let duration = |pointer: &str| {
        text(rule, pointer)
            .and_then(|text| weft_api::time::parse_duration(text).ok())
            .filter(|limit| !limit.is_zero())
    };
    let asked = list(rule, "/matches");
    let matches: Vec<Match> = asked
        .iter()
        .filter_map(|one| {
            route_match(one)
                .inspect_err(|reason| {
                    tracing::warn!(namespace, reason, "a condition of an HTTPRoute is left out")
                })
                .ok()
        })
        .collect();
    if matches.is_empty() && !asked.is_empty() {
        return None;
    }
    Some(Rule {
        matches,
        filters: list(rule, "/filters").iter().map(filter).collect(),
        backends: list(rule, "/backendRefs")
            .iter()
            .map(|reference| backend(namespace, reference))
            .collect(),
        request_timeout: duration("/timeouts/request"),
        backend_timeout: duration("/timeouts/backendRequest"),
    })
}

fn route_match(one: &Value) -> Result<Match, String> {
    let value = text(one, "/path/value").unwrap_or("/").to_owned();
    let path = match text(one, "/path/type").unwrap_or("PathPrefix") {
        "Exact" => PathMatch::Exact(value),
        "PathPrefix" => PathMatch::Prefix(value),
        other => return Err(format!("path match {other} is not supported")),
    };
    let exact = |entry: &Value| match text(entry, "/type").unwrap_or("Exact") {
        "Exact" => Ok(text(entry, "/value").unwrap_or_default().to_owned()),
        other => Err(format!("match type {other} is not supported")),
    };
    let mut headers = Vec::new();
    for entry in list(one, "/headers") {
        let name = text(entry, "/name").unwrap_or_default();
        headers.push((
            name.parse::<HeaderName>()
                .map_err(|_| format!("\"{name}\" is not a header name"))?,
            exact(entry)?,
        ));
    }
    let mut query = Vec::new();
    for entry in list(one, "/queryParams") {
        query.push((
            text(entry, "/name").unwrap_or_default().to_owned(),
            exact(entry)?,
        ));
    }
    let method = match text(one, "/method") {
        None => None,
        Some(method) => Some(
            method
                .parse::<Method>()
                .map_err(|_| format!("\"{method}\" is not a method"))?,
        ),
    };
    Ok(Match {
        path,
        method,
        headers,
        query,
    })
}

fn backend(namespace: &str, reference: &Value) -> Backend {
    let kind = (
        text(reference, "/group").unwrap_or(""),
        text(reference, "/kind").unwrap_or("Service"),
    );
    let of = text(reference, "/namespace").unwrap_or(namespace);
    let target = match (kind, text(reference, "/name"), number(reference, "/port")) {
        (("" | "core", "Service"), Some(name), Some(port)) if of == namespace => {
            BackendTarget::Service {
                namespace: of.into(),
                name: name.into(),
                port,
            }
        }
        (("" | "core", "Service"), Some(name), Some(_)) => BackendTarget::Invalid {
            reason: format!(
                "no ReferenceGrant lets namespace {namespace} refer to service {of}/{name}"
            ),
        },
        (("" | "core", "Service"), Some(_), None) => BackendTarget::Invalid {
            reason: "a Service backend needs a port".into(),
        },
        ((_, kind), ..) => BackendTarget::Invalid {
            reason: format!("backends of kind {kind} are not supported"),
        },
    };
    let weight = reference
        .pointer("/weight")
        .and_then(Value::as_u64)
        .map_or(1, |weight| u32::try_from(weight).unwrap_or(u32::MAX));
    Backend {
        weight,
        target,
        filters: list(reference, "/filters").iter().map(filter).collect(),
    }
}

fn filter(filter: &Value) -> Filter {
    let parsed = match text(filter, "/type").unwrap_or_default() {
        "RequestHeaderModifier" => {
            header_change(filter, "/requestHeaderModifier").map(Filter::RequestHeaders)
        }
        "ResponseHeaderModifier" => {
            header_change(filter, "/responseHeaderModifier").map(Filter::ResponseHeaders)
        }
        "RequestRedirect" => redirect(filter).map(Filter::Redirect),
        "URLRewrite" => Ok(Filter::Rewrite(Rewrite {
            hostname: text(filter, "/urlRewrite/hostname").map(Into::into),
            path: path_change(filter, "/urlRewrite/path"),
        })),
        other => Err(format!("filter {other} is not supported")),
    };
    parsed.unwrap_or_else(|reason| Filter::Invalid { reason })
}

fn header_change(filter: &Value, at: &str) -> Result<HeaderChange, String> {
    let pairs = |which: &str| -> Result<Vec<(HeaderName, HeaderValue)>, String> {
        list(filter, &format!("{at}/{which}"))
            .iter()
            .map(|entry| {
                let (name, value) = (
                    text(entry, "/name").unwrap_or_default(),
                    text(entry, "/value").unwrap_or_default(),
                );
                let bad = || format!("\"{name}\" or its value cannot be in a header");
                Ok((
                    name.parse().map_err(|_| bad())?,
                    value.parse().map_err(|_| bad())?,
                ))
            })
            .collect()
    };
    let remove = list(filter, &format!("{at}/remove"))
        .iter()
        .filter_map(Value::as_str)
        .map(|name| {
            name.parse()
                .map_err(|_| format!("\"{name}\" is not a header name"))
        });
    Ok(HeaderChange {
        set: pairs("set")?,
        add: pairs("add")?,
        remove: remove.collect::<Result<_, _>>()?,
    })
}

fn redirect(filter: &Value) -> Result<Redirect, String> {
    let status = match number(filter, "/requestRedirect/statusCode") {
        None => None,
        Some(code) => {
            Some(StatusCode::from_u16(code).map_err(|_| format!("{code} is not a status code"))?)
        }
    };
    Ok(Redirect {
        scheme: text(filter, "/requestRedirect/scheme").map(Into::into),
        hostname: text(filter, "/requestRedirect/hostname").map(Into::into),
        port: number(filter, "/requestRedirect/port"),
        path: path_change(filter, "/requestRedirect/path"),
        status,
    })
}

fn path_change(filter: &Value, at: &str) -> Option<PathChange> {
    match text(filter, &format!("{at}/type"))? {
        "ReplaceFullPath" => Some(PathChange::Full(
            text(filter, &format!("{at}/replaceFullPath"))
                .unwrap_or("/")
                .to_owned(),
        )),
        "ReplacePrefixMatch" => Some(PathChange::Prefix(
            text(filter, &format!("{at}/replacePrefixMatch"))
                .unwrap_or("/")
                .to_owned(),
        )),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
