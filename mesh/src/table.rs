//! Services, endpoints and routes of the cluster as one immutable value a generation.
//!
//! The agent translates Kubernetes objects into the plain `…Spec` values of `spec.rs`, and `weft_gateway` routes into what is served;
//! [`TableBuilder`] takes them in one by one and groups endpoints by nearness, so that a call only looks things up. A new state of
//! the cluster is a new table, swapped in whole by [`crate::Mesh::publish`].
//!
//! Invariants: equal input gives an equal table; an endpoint that keeps its address, pod and identity keeps its load and its
//! health across generations, and a service its budget of retries and what is counted of its calls; what one namespace says of an address changes nothing for the services of
//! another; endpoints this node cannot reach are not in it.

mod bound;
mod builder;
mod endpoint;
mod exposure;
mod in_force;
mod policies;
mod ranges;
mod spec;
#[cfg(test)]
pub(crate) mod testing;

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Instant,
};

use foldhash::fast::RandomState;
use http::HeaderValue;
use imbl::{GenericHashMap, shared_ptr::DefaultSharedPtr};
use weft_call::{Failure, FailureKind, counted::ServiceCalls, standing::PortStanding};
use weft_gateway::{Resilience, StreamProtocol, StreamRoute};
use weft_turns::Tenant;

pub(crate) use bound::Bound;
use bound::BoundRoutes;
pub use builder::TableBuilder;
pub use endpoint::Endpoint;
pub(crate) use endpoint::{Port, Way};
pub(crate) use exposure::{Exposure, Outside, Ready};
pub use ranges::PodRange;
pub use spec::{EndpointSpec, HostName, Protocol, ServicePortSpec, ServiceSpec, SliceNames};

use crate::activity::Activity;
use crate::budget::Budget;
use crate::dns::zone::Zone;
use crate::door::{Door, Guard};
use crate::front::Fronts;
use crate::resolve::Target;
use crate::route::{BackendTarget, Listeners};
use crate::streams::Streams;
use crate::wire;

/// A map that shares what two tables have in common, and is asked several times by each call.
type Map<K, V> = GenericHashMap<K, V, RandomState, DefaultSharedPtr>;

/// Position of a service in its table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct ServiceIndex(usize);

/// The state of the cluster as one node sees it. A copy costs nothing.
#[derive(Debug, Clone)]
pub struct Table {
    generation: u64,
    /// The same in all tables of one builder: their endpoints share what is known of them already.
    lineage: Arc<()>,
    services: imbl::Vector<Arc<Service>>,
    /// By namespace, then name.
    by_name: Map<String, Map<String, ServiceIndex>>,
    by_ip: Map<IpAddr, ServiceIndex>,
    endpoints: Map<SocketAddr, Arc<Endpoint>>,
    /// What policies ask of calls to endpoints of this node.
    doors: Map<SocketAddr, Arc<Door>>,
    /// Whose all other addresses of pods are.
    pods: Option<Arc<ranges::PodRanges>>,
    pub(crate) listeners: Arc<Listeners>,
    pub(crate) fronts: Arc<Fronts>,
    pub(crate) streams: Arc<Streams>,
    pub(crate) zone: Zone,
    exposed: Map<Exposure, exposure::Behind>,
    node_addresses: exposure::NodeAddresses,
}

/// A Service with its endpoints and the routes bound to it.
#[derive(Debug, Clone)]
pub struct Service {
    labels: Arc<ServiceLabels>,
    ports: Arc<[Port]>,
    /// None for headless services.
    cluster_ip: Option<IpAddr>,
    /// The name that it stands for.
    alias: Option<Arc<str>>,
    outside: Arc<Outside>,
    routes: Arc<BoundRoutes>,
    /// How it is called; what nobody asks for is not in it.
    resilience: Arc<Resilience>,
    /// How its calls are taken here, where anybody asks for anything.
    guard: Option<Arc<Guard>>,
    budget: Arc<Budget>,
    activity: Arc<Activity>,
    wakes: bool,
}

/// Names of a service for metrics and for the wire.
#[derive(Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ServiceLabels {
    pub(crate) name: String,
    pub(crate) namespace: String,
    /// Whose it is.
    pub(crate) tenant: Tenant,
    /// `name.namespace`.
    pub(crate) display: String,
    /// The same for the wire.
    pub(crate) header: HeaderValue,
}

impl ServiceLabels {
    pub(crate) fn new(namespace: &str, name: &str) -> Self {
        let display = format!("{name}.{namespace}");
        Self {
            name: name.to_owned(),
            namespace: namespace.to_owned(),
            tenant: Tenant::named(namespace),
            header: wire::service_line(name, namespace),
            display,
        }
    }
}

impl Service {
    /// `name.namespace`.
    #[must_use]
    pub fn display_name(&self) -> &str {
        &self.labels.display
    }

    /// In the place of a service that is gone.
    fn nobody() -> Self {
        Self {
            labels: Arc::new(ServiceLabels::new("", "")),
            ports: Arc::default(),
            cluster_ip: None,
            alias: None,
            outside: Arc::default(),
            routes: Arc::default(),
            resilience: Arc::default(),
            guard: None,
            budget: Arc::default(),
            activity: Arc::default(),
            wakes: false,
        }
    }

    /// Nothing about them differs but what was measured.
    fn is_identical(&self, other: &Self) -> bool {
        self.labels == other.labels
            && self.cluster_ip == other.cluster_ip
            && self.alias == other.alias
            && self.outside == other.outside
            && self.routes == other.routes
            && self.resilience == other.resilience
            && self.wakes == other.wakes
            && self.ports.len() == other.ports.len()
            && self
                .ports
                .iter()
                .zip(&*other.ports)
                .all(|(a, b)| a.is_identical(b))
    }

    /// How often calls to it may be tried again.
    pub(crate) fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    /// What is counted of calls to it.
    pub(crate) fn activity(&self) -> &Arc<Activity> {
        &self.activity
    }

    /// Whether a call has an endpoint made where there is none.
    pub(crate) fn wakes(&self) -> bool {
        self.wakes
    }

    pub(crate) fn labels(&self) -> &Arc<ServiceLabels> {
        &self.labels
    }

    pub(crate) fn outside(&self) -> &Outside {
        &self.outside
    }

    /// The name that calls to it are meant for, if it is not itself.
    pub(crate) fn alias(&self) -> Option<&str> {
        self.alias.as_deref()
    }

    /// `80, 443`, or `none`.
    pub(crate) fn shown_ports(&self) -> String {
        let numbers: Vec<String> = self
            .ports
            .iter()
            .map(|port| port.number.to_string())
            .collect();
        if numbers.is_empty() {
            return "none".to_owned();
        }
        numbers.join(", ")
    }

    /// Its port for calls and streams.
    pub(crate) fn port(&self, number: u16) -> Option<&Port> {
        self.port_of(Protocol::Tcp, number)
    }

    pub(crate) fn port_of(&self, protocol: Protocol, number: u16) -> Option<&Port> {
        let mut ports = self.ports.iter();
        ports.find(|port| (port.protocol, port.number) == (protocol, number))
    }

    /// Where a caller that names no port goes: 80, else the port called `http`, else the first.
    pub(crate) fn default_port(&self) -> Option<u16> {
        let by_name = || {
            self.ports
                .iter()
                .find(|port| port.name.as_deref() == Some("http"))
        };
        self.port(80)
            .or_else(by_name)
            .or_else(|| self.ports.first())
            .map(|port| port.number)
    }

    /// What replaces the way straight to its endpoints at `port`, for a caller in `namespace`.
    pub(crate) fn bound(
        &self,
        namespace: &str,
        protocol: StreamProtocol,
        port: u16,
    ) -> Option<Bound<'_>> {
        self.routes.bound(namespace, protocol, port)
    }
}

impl Table {
    /// Starts the tables that `node` sees, the first of them of `generation`.
    #[must_use]
    pub fn builder(node: &str, generation: u64) -> TableBuilder {
        TableBuilder::new(node, generation)
    }

    fn empty(generation: u64) -> Self {
        Self {
            generation,
            lineage: Arc::default(),
            services: imbl::Vector::new(),
            by_name: Map::default(),
            by_ip: Map::default(),
            endpoints: Map::default(),
            doors: Map::default(),
            pods: None,
            listeners: Arc::default(),
            fronts: Arc::default(),
            streams: Arc::default(),
            zone: Zone::default(),
            exposed: Map::default(),
            node_addresses: Arc::default(),
        }
    }

    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Number of services, for status pages.
    #[must_use]
    pub fn services_len(&self) -> usize {
        self.by_name.values().map(|names| names.len()).sum()
    }

    pub(crate) fn service(&self, namespace: &str, name: &str) -> Option<&Arc<Service>> {
        self.service_index(namespace, name)
            .map(|index| &self.services[index.0])
    }

    pub(crate) fn service_by_ip(&self, ip: IpAddr) -> Option<&Arc<Service>> {
        self.by_ip.get(&ip).map(|index| &self.services[index.0])
    }

    fn service_index(&self, namespace: &str, name: &str) -> Option<ServiceIndex> {
        self.by_name.get(namespace)?.get(name).copied()
    }

    /// Whether any service lives in `namespace`.
    pub(crate) fn has_namespace(&self, namespace: &str) -> bool {
        self.by_name.contains_key(namespace)
    }

    pub(crate) fn endpoint(&self, address: SocketAddr) -> Option<&Arc<Endpoint>> {
        self.endpoints.get(&address)
    }

    /// The pod at an address that no service leads to, as far as an address is some node's.
    pub(crate) fn pod_at(&self, address: SocketAddr) -> Option<Arc<Endpoint>> {
        self.pods.as_ref()?.endpoint(address)
    }

    /// What was counted of calls to services, of those that were called.
    pub(crate) fn counted(&self, now: Instant) -> Vec<ServiceCalls> {
        let named = self.by_name.values().flat_map(|names| names.values());
        let services = named.filter_map(|index| self.services.get(index.0));
        let counted = services.map(|service| ServiceCalls {
            namespace: service.labels.namespace.clone(),
            name: service.labels.name.clone(),
            calls: service.activity.counted(now),
        });
        counted.filter(|service| service.calls.begun > 0).collect()
    }

    /// The ports of a service as this node sees them at `now`; none of one that it does not know.
    pub(crate) fn standing(&self, namespace: &str, name: &str, now: u64) -> Vec<PortStanding> {
        let Some(service) = self.service(namespace, name) else {
            return Vec::new();
        };
        let ports = service.ports.iter().map(|port| {
            let protocol = StreamProtocol::Tcp;
            let routed = service.bound(namespace, protocol, port.number).is_some();
            port.standing(now, routed)
        });
        ports.collect()
    }

    pub(crate) fn endpoints_len(&self) -> usize {
        self.endpoints.len()
    }

    /// How many endpoints are left alone at `now`.
    pub(crate) fn ejected(&self, now: u64) -> usize {
        let endpoints = self.endpoints.values();
        endpoints
            .filter(|endpoint| endpoint.health().is_ejected(now))
            .count()
    }

    /// The service and port that a backend of a rule means. The error is the reason to answer 500.
    pub(crate) fn backend(&self, target: &BackendTarget) -> Result<Target<'_>, String> {
        match target {
            BackendTarget::Invalid { reason } => Err(reason.clone()),
            BackendTarget::Service {
                namespace,
                name,
                port,
            } => {
                let service = self
                    .service(namespace, name)
                    .ok_or_else(|| format!("there is no service {name}.{namespace}"))?;
                let port = *port;
                match service.port(port) {
                    Some(_) => Ok(Target::Service { service, port }),
                    None => Err(format!("service {name}.{namespace} has no port {port}")),
                }
            }
        }
    }

    /// Where a route of streams or datagrams leads one; `number` is any, and says to which share.
    ///
    /// # Errors
    /// When that share leads to nobody, or there is none.
    pub(crate) fn led(&self, route: &StreamRoute, number: u64) -> Result<Target<'_>, Failure> {
        let backend = route.backend(number);
        let target = match backend {
            Some(backend) => self.backend(&backend.target),
            None => Err("all of its shares are nothing".to_owned()),
        };
        target.map_err(|reason| {
            let route = &route.route;
            let told = format!("route {route} leads to nobody: {reason}");
            Failure::new(FailureKind::InvalidBackend, told)
        })
    }

    /// This table, with what is known of endpoints that stay. Costs nothing between tables of one builder, whose endpoints
    /// share it; otherwise as much as there are endpoints.
    #[must_use]
    pub(crate) fn inheriting(mut self, previous: &Table) -> Self {
        if Arc::ptr_eq(&self.lineage, &previous.lineage) || previous.by_name.is_empty() {
            return self;
        }
        // Who has an address is one of those that claim it; each of them keeps what is known of its own pod.
        let mut known: HashMap<SocketAddr, Vec<&Arc<Endpoint>>> = HashMap::new();
        let ports = previous.services.iter().flat_map(|service| &*service.ports);
        let used = ports.flat_map(|port| &port.all);
        for endpoint in previous.endpoints.values().chain(used) {
            known.entry(endpoint.address).or_default().push(endpoint);
        }
        let renewed = |endpoint: &Arc<Endpoint>| {
            let mut old = known.get(&endpoint.address).into_iter().flatten();
            old.find(|old| ***old == *endpoint).map_or_else(
                || Arc::clone(endpoint),
                |old| endpoint.with_standing_of(old),
            )
        };
        let endpoints = self.endpoints.iter();
        self.endpoints = endpoints
            .map(|(address, endpoint)| (*address, renewed(endpoint)))
            .collect();
        let services = self.services.iter().map(|service| {
            let ports = service.ports.iter().map(|port| port.map(renewed));
            let labels = service.labels();
            let old = previous.service(&labels.namespace, &labels.name);
            Arc::new(Service {
                ports: ports.collect(),
                budget: {
                    let of_same =
                        |old: &&Arc<Service>| old.resilience.budget == service.resilience.budget;
                    Arc::clone(&old.filter(of_same).unwrap_or(service).budget)
                },
                activity: Arc::clone(&old.unwrap_or(service).activity),
                ..Service::clone(service)
            })
        });
        self.services = services.collect();
        self
    }
}

/// The same services, endpoints and routes, whatever their positions, generation and load.
impl PartialEq for Table {
    fn eq(&self, other: &Self) -> bool {
        let named = self.by_name.values().flat_map(|names| names.values());
        let mut services = named.map(|index| &self.services[index.0]);
        self.services_len() == other.services_len()
            && services.all(|service| {
                let ServiceLabels {
                    namespace, name, ..
                } = &*service.labels;
                let theirs = other.service(namespace, name);
                theirs.is_some_and(|theirs| theirs.is_identical(service))
            })
            && self.by_ip.len() == other.by_ip.len()
            && self.by_ip.keys().all(|ip| {
                let labels = |table: &Self| {
                    table
                        .service_by_ip(*ip)
                        .map(|found| Arc::clone(&found.labels))
                };
                labels(self) == labels(other)
            })
            && self.endpoints.len() == other.endpoints.len()
            && self.endpoints.iter().all(|(address, endpoint)| {
                let theirs = other.endpoint(*address);
                theirs.is_some_and(|theirs| theirs.is_identical(endpoint))
            })
            && self.pods == other.pods
            && self.listeners == other.listeners
            && self.fronts == other.fronts
            && self.streams == other.streams
            && self.zone == other.zone
            && self.node_addresses == other.node_addresses
            && self.exposed.len() == other.exposed.len()
            && self.exposed.iter().all(|(exposure, behind)| {
                let at = |table: &Self, behind: &exposure::Behind| {
                    let service = table.services.get(behind.service.0)?;
                    Some((Arc::clone(&service.labels), behind.port))
                };
                let theirs = other.exposed.get(exposure);
                theirs.is_some_and(|theirs| at(self, behind) == at(other, theirs))
            })
    }
}

impl std::fmt::Display for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.labels.display)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rand::{SeedableRng, rngs::SmallRng};
    use weft_gateway::{AttachedRoute, Backend, NamespacedName, Rule, Served, ServiceRoutes};

    use super::{
        testing::{endpoint, service},
        *,
    };
    use crate::{
        balance,
        route::{
            RouteList, View,
            testing::{attached, attached_rules, prefix},
        },
    };

    fn picked(table: &Table, tried: &[&str]) -> Vec<String> {
        let service = table.service("vote", "web").expect("the service");
        let port = service.port(80).expect("the port");
        let tried: Vec<SocketAddr> = tried
            .iter()
            .map(|ip| format!("{ip}:8080").parse().expect("an address"))
            .collect();
        let mut rng = SmallRng::seed_from_u64(1);
        let mut pods = BTreeSet::new();
        for _ in 0..100 {
            if let Some(endpoint) = port.pick(&tried, 0, &mut rng) {
                pods.insert(endpoint.pod.clone());
            }
        }
        pods.into_iter().collect()
    }

    fn three() -> Vec<EndpointSpec> {
        vec![
            endpoint("vote", "web-0", "10.42.0.1", "a"),
            endpoint("vote", "web-1", "10.42.1.1", "b"),
            endpoint("vote", "web-2", "10.42.2.1", "c"),
        ]
    }

    #[test]
    fn the_same_node_comes_first_and_spills_when_busy_or_tried() {
        let table = testing::table("a")
            .service(service("vote", "web").endpoints(three()).build())
            .build();
        assert_eq!(picked(&table, &[]), ["web-0"]);
        assert_eq!(picked(&table, &["10.42.0.1"]), ["web-1", "web-2"]);
        assert!(picked(&table, &["10.42.0.1", "10.42.1.1", "10.42.2.1"]).is_empty());
        let near = table
            .endpoint("10.42.0.1:8080".parse().expect("an address"))
            .expect("the endpoint");
        (0..balance::SPILL_PENDING).for_each(|_| near.load().begin());
        assert_eq!(picked(&table, &[]), ["web-1", "web-2"]);
    }

    #[test]
    fn endpoints_that_are_not_ready_are_for_last() {
        // Asked from a fourth node, so that all are as far.
        let mut unready = three();
        unready[1].ready = false;
        let table = Table::builder("d", 1)
            .service(service("vote", "web").endpoints(unready).build())
            .build();
        assert_eq!(picked(&table, &[]), ["web-0", "web-2"]);

        let mut last = three();
        last.iter_mut().for_each(|endpoint| endpoint.ready = false);
        last[0].serving = false;
        let table = Table::builder("d", 1)
            .service(service("vote", "web").endpoints(last).build())
            .build();
        assert_eq!(picked(&table, &[]), ["web-1", "web-2"]);

        let mut unreachable = three();
        unreachable[1].node_address = None;
        let table = Table::builder("d", 1)
            .service(service("vote", "web").endpoints(unreachable).build())
            .build();
        assert_eq!(picked(&table, &[]), ["web-0", "web-2"]);
    }

    #[test]
    fn a_new_table_inherits_the_load_of_pods_that_stay() {
        let make = |pods: Vec<EndpointSpec>, generation| {
            Table::builder("a", generation)
                .service(service("vote", "web").endpoints(pods).build())
                .build()
        };
        let load = |table: &Table, ip: &str| {
            let address = format!("{ip}:8080").parse().expect("an address");
            table
                .endpoint(address)
                .expect("the endpoint")
                .load()
                .pending()
        };
        let old = make(three(), 1);
        let address = "10.42.1.1:8080".parse().expect("an address");
        old.endpoint(address).expect("web-1").load().begin();
        let mut pods = three();
        pods[2].pod = "web-3".to_owned();
        let new = make(pods, 2).inheriting(&old);
        assert_eq!(load(&new, "10.42.1.1"), 1);
        assert_eq!(load(&new, "10.42.2.1"), 0);
        let budget = |table: &Table| {
            let service = table.service("vote", "web").expect("the service");
            Arc::clone(service.budget())
        };
        assert!(Arc::ptr_eq(&budget(&new), &budget(&old)));
    }

    #[test]
    fn the_next_table_of_a_builder_keeps_load_and_what_did_not_change() {
        let mut builder = testing::table("a");
        builder.set_service(service("vote", "web").endpoints(three()).build());
        builder.set_service(service("vote", "other").build());
        let first = builder.table(1);
        let address = "10.42.1.1:8080".parse().expect("an address");
        first.endpoint(address).expect("web-1").load().begin();
        let mut pods = three();
        // Elsewhere and not ready: still the pod of which that much is known.
        pods[1].node_address = Some(([127, 0, 0, 1], 15555).into());
        pods[2].pod = "web-3".to_owned();
        builder.set_service(service("vote", "web").endpoints(pods).build());
        let second = builder.table(2);
        assert_eq!(second.endpoint(address).expect("web-1").load().pending(), 1);
        let other =
            |table: &Table| Arc::clone(table.service("vote", "other").expect("the service"));
        assert!(Arc::ptr_eq(&other(&first), &other(&second)));
        let budget = |table: &Table| {
            let service = table.service("vote", "web").expect("the service");
            Arc::clone(service.budget())
        };
        assert!(Arc::ptr_eq(&budget(&first), &budget(&second)));
        let web = first.service("vote", "web").expect("the service");
        assert_eq!(web.ports[0].all[2].pod, "web-2");
        assert!(first != second);
    }

    #[test]
    fn who_claims_the_address_of_anothers_pod_gets_neither_it_nor_its_load() {
        // The same address and name of a pod, in a slice of a namespace that sorts first.
        let mallory = endpoint("mallory", "web-0", "10.42.0.1", "a");
        let build = |order: [&str; 2]| {
            let mut builder = testing::table("a");
            for namespace in order {
                let endpoints = match namespace {
                    "mallory" => vec![mallory.clone()],
                    _ => vec![endpoint("vote", "web-0", "10.42.0.1", "a")],
                };
                builder.set_service(service(namespace, "web").endpoints(endpoints).build());
            }
            builder
        };
        for order in [["mallory", "vote"], ["vote", "mallory"]] {
            let mut builder = build(order);
            let table = builder.table(1);
            let of = |namespace: &str| {
                let service = table.service(namespace, "web").expect("the service");
                Arc::clone(&service.ports[0].all[0])
            };
            assert_eq!(of("vote").identity.namespace, "vote", "{order:?}");
            of("mallory").load().begin();
            assert_eq!(of("vote").load().pending(), 0, "{order:?}");
            assert!(table == build(["mallory", "vote"]).table(7), "{order:?}");
            builder.remove_service("mallory", "web");
            let after = builder.table(2);
            let address = "10.42.0.1:8080".parse().expect("an address");
            let left = after.endpoint(address).expect("the pod of vote");
            assert_eq!(left.identity.namespace, "vote", "{order:?}");
            // Made anew, by whoever has nothing of the old: each still finds its own.
            of("vote").load().begin();
            let anew = testing::table("a")
                .service(service("vote", "web").build())
                .build()
                .inheriting(&table);
            let found = anew.endpoint(address).expect("the pod of vote");
            assert_eq!(found.load().pending(), 1, "{order:?}");
        }
    }

    #[test]
    fn a_bare_address_means_the_pod_that_has_it_whatever_others_claim() {
        let mut claimed = endpoint("mallory", "web-0", "10.42.0.1", "a");
        claimed.assigned = false;
        let theirs = service("mallory", "web").endpoints(vec![claimed]).build();
        // Within one service, too: a slice beside those that its selector makes.
        let mut beside = endpoint("vote", "other", "10.42.0.1", "a");
        beside.assigned = false;
        let own = endpoint("vote", "web-0", "10.42.0.1", "a");
        let ours = service("vote", "web").endpoints(vec![beside, own]).build();
        let address = "10.42.0.1:8080".parse().expect("an address");
        let found = |builder: &TableBuilder| {
            let table = builder.table(1);
            let endpoint = table.endpoint(address).expect("somebody has it");
            format!("{}/{}", endpoint.identity.namespace, endpoint.pod)
        };
        for order in [[&theirs, &ours], [&ours, &theirs]] {
            let mut builder = testing::table("a").services(order.map(Clone::clone));
            assert_eq!(found(&builder), "vote/web-0");
            // Where nobody has it, who claims it is called, as before.
            builder.remove_service("vote", "web");
            assert_eq!(found(&builder), "mallory/web-0");
            builder.set_service(ours.clone());
            assert_eq!(found(&builder), "vote/web-0");
        }
    }

    fn route(namespace: &str, path: &str) -> AttachedRoute {
        let backend = |name: &str| {
            Backend::new(BackendTarget::Service {
                namespace: "vote".to_owned(),
                name: name.to_owned(),
                port: 80,
            })
        };
        let name = format!("{namespace}/r");
        let rule = Rule {
            route: name.clone(),
            matches: vec![prefix(path)],
            backends: vec![backend("web"), backend("gone")],
            ..Rule::default()
        };
        AttachedRoute {
            service_port: Some(80),
            ..attached_rules(&name, vec![rule])
        }
    }

    fn requests<'t>(service: &'t Service, namespace: &str) -> &'t RouteList {
        match service.bound(namespace, StreamProtocol::Tcp, 80) {
            Some(Bound::Requests(list)) => list,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn service_routes_apply_to_all_or_to_one_namespace() {
        let routes = ServiceRoutes {
            producer: vec![route("vote", "/producer")],
            consumers: [("shop".to_owned(), vec![route("shop", "/consumer")])].into(),
            ..ServiceRoutes::default()
        };
        let served = Served {
            services: std::iter::once((NamespacedName::new("vote", "web"), Arc::new(routes)))
                .collect(),
            ..Served::default()
        };
        // Whichever comes first.
        let table = testing::table("a")
            .service(service("vote", "web").build())
            .routes(&served)
            .build();
        let again = testing::table("a").routes(&served);
        assert!(table == again.service(service("vote", "web").build()).build());
        let service = table.service("vote", "web").expect("the service");
        for (namespace, path, found) in [
            ("vote", "/producer", Some("vote/r")),
            ("other", "/producer", Some("vote/r")),
            ("shop", "/producer", None),
            ("shop", "/consumer", Some("shop/r")),
        ] {
            let request = http::Request::get(path).body(()).expect("a request");
            let list = requests(service, namespace);
            let entry = list.select(View::new(&request, 80));
            assert_eq!(
                entry.map(|entry| entry.rule.route.as_str()),
                found,
                "{namespace} {path}"
            );
        }
        let tcp = StreamProtocol::Tcp;
        assert!(service.bound("vote", tcp, 81).is_none());
        assert!(service.bound("vote", StreamProtocol::Udp, 80).is_none());
        let list = requests(service, "vote");
        let request = http::Request::get("/producer").body(()).expect("a request");
        let rule = &list.select(View::new(&request, 80)).expect("a rule").rule;
        let backend = |number: usize| table.backend(&rule.backends[number].target);
        let found = backend(0).expect("the service");
        assert!(
            matches!(found, Target::Service { service: found, port: 80 } if Arc::ptr_eq(found, service))
        );
        let gone = backend(1).expect_err("nobody");
        assert_eq!(gone, "there is no service gone.vote");
    }

    #[test]
    fn a_route_to_a_service_that_comes_back_is_its_route_again() {
        let routes = ServiceRoutes {
            producer: vec![attached("vote/r", vec![prefix("/")])],
            ..ServiceRoutes::default()
        };
        let served = Served {
            services: std::iter::once((NamespacedName::new("vote", "web"), Arc::new(routes)))
                .collect(),
            ..Served::default()
        };
        let mut builder = testing::table("a").routes(&served);
        builder.set_service(service("vote", "web").build());
        builder.set_service(service("vote", "other").build());
        builder.remove_service("vote", "web");
        builder.set_service(service("shop", "cart").build());
        assert!(builder.table(2).service("vote", "web").is_none());
        builder.set_service(service("vote", "web").build());
        let table = builder.table(3);
        let web = table.service("vote", "web").expect("the service");
        assert!(web.bound("shop", StreamProtocol::Tcp, 80).is_some());
        let cart = table.service("shop", "cart").expect("the service");
        assert!(cart.bound("shop", StreamProtocol::Tcp, 80).is_none());
        assert_eq!(table.services_len(), 3);
    }
}
