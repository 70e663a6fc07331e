//! Services, endpoints and routes of the cluster as one immutable value a generation.
//!
//! The agent translates Kubernetes objects into the plain `…Spec` values here; [`TableBuilder::build`] resolves
//! references, sorts routes and groups endpoints by nearness, so that a call only looks things up. A new state of
//! the cluster is a new table, swapped in whole by [`crate::Mesh::publish`].
//!
//! Invariants: equal input gives an equal table; an endpoint that keeps its address and pod keeps its measured load
//! across generations; endpoints this node cannot reach are not in it.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    net::{IpAddr, SocketAddr},
    sync::{Arc, OnceLock},
};

use http::HeaderValue;
use weft_api::identity::SpiffeId;

use crate::{
    Transport, WorkloadInfo,
    balance::{self, Load},
    route::{
        Age, BackendTarget, CompiledBackend, CompiledRule, Entry, HostPattern, Listeners, Match,
        RouteList, Rule, effective_hosts,
    },
};

// === What the agent hands in ===

/// A Service with its ports.
#[derive(Debug, Clone, Default)]
pub struct ServiceSpec {
    pub namespace: String,
    pub name: String,
    /// None for headless services; their name still balances over the endpoints.
    pub cluster_ip: Option<IpAddr>,
    pub ports: Vec<ServicePortSpec>,
    pub locality: Locality,
}

/// Which endpoints are preferred.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Locality {
    /// Endpoints of this node first; others when those are busy or failing.
    #[default]
    SameNode,
    /// All endpoints alike.
    Spread,
}

/// A port of a Service and the endpoints behind it.
#[derive(Debug, Clone, Default)]
pub struct ServicePortSpec {
    pub name: Option<String>,
    pub port: u16,
    pub endpoints: Vec<EndpointSpec>,
}

/// A port of a pod.
#[derive(Debug, Clone, PartialEq)]
pub struct EndpointSpec {
    pub pod: String,
    /// Of the pod, in the host's virtual network.
    pub ip: IpAddr,
    pub port: u16,
    pub node: String,
    /// Where that node takes calls of other nodes. Not needed for pods of this node.
    pub node_address: Option<SocketAddr>,
    pub identity: SpiffeId,
    pub workload: WorkloadInfo,
    pub ready: bool,
    /// Still able to answer while it terminates; used only when nothing is ready.
    pub serving: bool,
}

/// An HTTPRoute.
#[derive(Debug, Clone, Default)]
pub struct RouteSpec {
    pub namespace: String,
    pub name: String,
    /// Seconds since the epoch; the older route wins a tie.
    pub created: i64,
    pub parents: Vec<Parent>,
    /// Apply to gateways only; services ignore them.
    pub hostnames: Vec<String>,
    pub rules: Vec<Rule>,
}

/// What a route is attached to.
#[derive(Debug, Clone)]
pub enum Parent {
    Gateway {
        namespace: String,
        name: String,
        /// One listener instead of all.
        section: Option<String>,
        port: Option<u16>,
    },
    /// Calls to a Service. From the Service's own namespace it applies to every caller, from another only to
    /// callers of the route's namespace.
    Service {
        namespace: String,
        name: String,
        port: Option<u16>,
    },
}

/// A Gateway that this node's gateway serves. All its HTTP listeners answer on the node's gateway port; only their
/// host names tell them apart.
#[derive(Debug, Clone, Default)]
pub struct GatewaySpec {
    pub namespace: String,
    pub name: String,
    pub listeners: Vec<ListenerSpec>,
}

#[derive(Debug, Clone, Default)]
pub struct ListenerSpec {
    pub name: String,
    pub port: u16,
    pub hostname: Option<String>,
    pub allowed: AllowedNamespaces,
}

/// Namespaces whose routes may attach to a listener.
#[derive(Debug, Clone, Default)]
pub enum AllowedNamespaces {
    #[default]
    Same,
    All,
    These(BTreeSet<String>),
}

// === What a call looks at ===

/// Position of a service in its table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct ServiceIndex(usize);

/// The state of the cluster as one node sees it.
#[derive(Debug)]
pub struct Table {
    generation: u64,
    services: Vec<Service>,
    by_name: HashMap<String, HashMap<String, ServiceIndex>>,
    by_ip: HashMap<IpAddr, ServiceIndex>,
    endpoints: HashMap<SocketAddr, Arc<Endpoint>>,
    pub(crate) listeners: Listeners,
}

/// A Service with its endpoints and the routes bound to it.
#[derive(Debug)]
pub struct Service {
    namespace: String,
    name: String,
    labels: Arc<ServiceLabels>,
    ports: Vec<Port>,
    /// Routes of the service's own namespace.
    producer: RouteList,
    /// Routes of other namespaces, for callers there.
    consumers: HashMap<String, RouteList>,
}

/// Names of a service for metrics and for the wire.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct ServiceLabels {
    pub(crate) name: String,
    pub(crate) namespace: String,
    /// `name.namespace`.
    pub(crate) display: String,
    pub(crate) header: HeaderValue,
}

impl ServiceLabels {
    pub(crate) fn new(namespace: &str, name: &str) -> Self {
        let display = format!("{name}.{namespace}");
        Self {
            name: name.to_owned(),
            namespace: namespace.to_owned(),
            header: HeaderValue::from_str(&display)
                .unwrap_or_else(|_| HeaderValue::from_static("unknown")),
            display,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Port {
    name: Option<String>,
    number: u16,
    /// Endpoints of this node; empty when the service spreads.
    near: Vec<Arc<Endpoint>>,
    all: Vec<Arc<Endpoint>>,
}

/// A port of a pod that calls can be sent to.
#[derive(Debug)]
pub struct Endpoint {
    pub pod: String,
    pub address: SocketAddr,
    pub node: String,
    pub identity: SpiffeId,
    /// `identity` as text.
    pub(crate) spiffe_id: Arc<str>,
    pub(crate) workload: Arc<WorkloadInfo>,
    pub(crate) way: Way,
    /// `address` for the wire.
    pub(crate) header: HeaderValue,
    load: OnceLock<Arc<Load>>,
}

/// How this node reaches an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Here,
    Node(SocketAddr),
}

impl Way {
    pub(crate) fn transport(self) -> Transport {
        match self {
            Way::Here => Transport::InProcess,
            Way::Node(_) => Transport::Mtls,
        }
    }
}

impl PartialEq for Endpoint {
    fn eq(&self, other: &Self) -> bool {
        self.address == other.address && self.pod == other.pod
    }
}

impl Endpoint {
    pub(crate) fn load(&self) -> &Load {
        self.shared_load()
    }

    fn shared_load(&self) -> &Arc<Load> {
        self.load.get_or_init(|| {
            Arc::new(Load::new(match self.way {
                Way::Here => balance::SEED_SAME_NODE,
                Way::Node(_) => balance::SEED_OTHER_NODE,
            }))
        })
    }
}

impl Port {
    /// Chooses an endpoint that is not among `tried`: of this node while those are neither busy nor failing, else
    /// of all. `None` when every endpoint was tried or there is none.
    pub(crate) fn pick(
        &self,
        tried: &[SocketAddr],
        now: u64,
        rng: &mut impl rand::Rng,
    ) -> Option<&Arc<Endpoint>> {
        if let Some(near) = pick(&self.near, tried, now, rng)
            && !near.load().is_ejected(now)
            && near.load().pending() < balance::SPILL_PENDING
        {
            return Some(near);
        }
        pick(&self.all, tried, now, rng)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Whether a call that one endpoint turned away could go to another.
    pub(crate) fn has_choice(&self) -> bool {
        self.all.len() > 1
    }
}

fn pick<'e>(
    set: &'e [Arc<Endpoint>],
    tried: &[SocketAddr],
    now: u64,
    rng: &mut impl rand::Rng,
) -> Option<&'e Arc<Endpoint>> {
    let index = balance::choose(
        set.len(),
        |index| set[index].load(),
        |index| tried.contains(&set[index].address),
        now,
        rng,
    )?;
    set.get(index)
}

impl Service {
    /// `name.namespace`.
    #[must_use]
    pub fn display_name(&self) -> &str {
        &self.labels.display
    }

    pub(crate) fn labels(&self) -> &Arc<ServiceLabels> {
        &self.labels
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

    pub(crate) fn port(&self, number: u16) -> Option<&Port> {
        self.ports.iter().find(|port| port.number == number)
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

    /// The routes that replace default routing for a caller in `namespace`, if any are bound to `port`.
    pub(crate) fn routes(&self, namespace: &str, port: u16) -> Option<&RouteList> {
        let consumer = self.consumers.get(namespace);
        consumer
            .filter(|list| list.covers(port))
            .or_else(|| (!self.producer.is_empty()).then_some(&self.producer))
            .filter(|list| list.covers(port))
    }
}

impl Table {
    /// Starts the table that `node` sees at `generation`.
    #[must_use]
    pub fn builder(node: &str, generation: u64) -> TableBuilder {
        TableBuilder {
            node: node.to_owned(),
            generation,
            services: Vec::new(),
            routes: Vec::new(),
            gateways: Vec::new(),
        }
    }

    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Number of services, for status pages.
    #[must_use]
    pub fn services_len(&self) -> usize {
        self.services.len()
    }

    pub(crate) fn service(&self, index: ServiceIndex) -> &Service {
        &self.services[index.0]
    }

    pub(crate) fn service_index(&self, namespace: &str, name: &str) -> Option<ServiceIndex> {
        self.by_name.get(namespace)?.get(name).copied()
    }

    pub(crate) fn service_by_ip(&self, ip: IpAddr) -> Option<ServiceIndex> {
        self.by_ip.get(&ip).copied()
    }

    /// Whether any service lives in `namespace`.
    pub(crate) fn has_namespace(&self, namespace: &str) -> bool {
        self.by_name.contains_key(namespace)
    }

    pub(crate) fn endpoint(&self, address: SocketAddr) -> Option<&Arc<Endpoint>> {
        self.endpoints.get(&address)
    }

    /// Takes over what is known about the load of endpoints that stay. Called before the table is shared.
    pub(crate) fn inherit(&self, previous: &Table) {
        for (address, endpoint) in &self.endpoints {
            if let Some(old) = previous.endpoints.get(address)
                && old == endpoint
            {
                // Set only once; a table that is published twice keeps what it has.
                let _ = endpoint.load.set(Arc::clone(old.shared_load()));
            }
        }
    }
}

/// Collects the values of one generation.
#[derive(Debug, Clone)]
pub struct TableBuilder {
    node: String,
    generation: u64,
    services: Vec<ServiceSpec>,
    routes: Vec<RouteSpec>,
    gateways: Vec<GatewaySpec>,
}

impl TableBuilder {
    #[must_use]
    pub fn service(mut self, service: ServiceSpec) -> Self {
        self.services.push(service);
        self
    }

    #[must_use]
    pub fn services(mut self, services: impl IntoIterator<Item = ServiceSpec>) -> Self {
        self.services.extend(services);
        self
    }

    #[must_use]
    pub fn routes(mut self, routes: impl IntoIterator<Item = RouteSpec>) -> Self {
        self.routes.extend(routes);
        self
    }

    #[must_use]
    pub fn gateways(mut self, gateways: impl IntoIterator<Item = GatewaySpec>) -> Self {
        self.gateways.extend(gateways);
        self
    }

    /// Resolves and sorts everything.
    #[must_use]
    pub fn build(self) -> Table {
        let mut table = Table {
            generation: self.generation,
            services: Vec::with_capacity(self.services.len()),
            by_name: HashMap::new(),
            by_ip: HashMap::new(),
            endpoints: HashMap::new(),
            listeners: Listeners::default(),
        };
        let mut names = Names::default();
        for service in self.services {
            add_service(&mut table, &mut names, &self.node, service);
        }
        for gateway in &self.gateways {
            for listener in &gateway.listeners {
                // Announced even without a route: it answers 404 for its hosts.
                table.listeners.listener(&pattern(listener));
            }
        }
        for route in self.routes {
            add_route(&mut table, &self.gateways, route);
        }
        table.listeners.sort();
        for service in &mut table.services {
            service.producer.sort();
            service.consumers.values_mut().for_each(RouteList::sort);
        }
        table
    }
}

fn pattern(listener: &ListenerSpec) -> HostPattern {
    HostPattern::parse(listener.hostname.as_deref().unwrap_or_default())
}

/// What the endpoints of a workload have in common, once each: ten thousand pods are few workloads, and a call is charged to
/// those, found by their addresses.
#[derive(Default)]
struct Names {
    workloads: HashSet<Arc<WorkloadInfo>>,
    principals: HashMap<SpiffeId, Arc<str>>,
}

impl Names {
    fn workload(&mut self, info: WorkloadInfo) -> Arc<WorkloadInfo> {
        if let Some(known) = self.workloads.get(&info) {
            return Arc::clone(known);
        }
        let info = Arc::new(info);
        self.workloads.insert(Arc::clone(&info));
        info
    }

    fn principal(&mut self, identity: &SpiffeId) -> Arc<str> {
        if let Some(known) = self.principals.get(identity) {
            return Arc::clone(known);
        }
        let text: Arc<str> = identity.to_string().into();
        self.principals.insert(identity.clone(), Arc::clone(&text));
        text
    }
}

fn add_service(table: &mut Table, names: &mut Names, node: &str, spec: ServiceSpec) {
    let index = ServiceIndex(table.services.len());
    let ports = spec
        .ports
        .into_iter()
        .map(|port| add_port(table, names, node, spec.locality, port))
        .collect();
    if let Some(ip) = spec.cluster_ip {
        table.by_ip.insert(ip, index);
    }
    table
        .by_name
        .entry(spec.namespace.clone())
        .or_default()
        .insert(spec.name.clone(), index);
    table.services.push(Service {
        labels: Arc::new(ServiceLabels::new(&spec.namespace, &spec.name)),
        namespace: spec.namespace,
        name: spec.name,
        ports,
        producer: RouteList::default(),
        consumers: HashMap::new(),
    });
}

fn add_port(
    table: &mut Table,
    names: &mut Names,
    node: &str,
    locality: Locality,
    spec: ServicePortSpec,
) -> Port {
    // Terminating pods answer only when nobody else can, as kube-proxy has it.
    let any_ready = spec.endpoints.iter().any(|endpoint| endpoint.ready);
    let mut all = Vec::new();
    for endpoint in spec.endpoints {
        let in_use = if any_ready {
            endpoint.ready
        } else {
            endpoint.serving
        };
        let way = match endpoint.node_address {
            _ if endpoint.node == node => Way::Here,
            Some(address) => Way::Node(address),
            None => continue,
        };
        let address = SocketAddr::new(endpoint.ip, endpoint.port);
        let built = Arc::new(Endpoint {
            pod: endpoint.pod,
            address,
            node: endpoint.node,
            spiffe_id: names.principal(&endpoint.identity),
            identity: endpoint.identity,
            workload: names.workload(endpoint.workload),
            way,
            header: HeaderValue::from_str(&address.to_string())
                .unwrap_or_else(|_| HeaderValue::from_static("")),
            load: OnceLock::new(),
        });
        // One pod behind several services is one endpoint with one load.
        let known = table.endpoints.entry(address).or_insert(Arc::clone(&built));
        if in_use {
            let same = **known == *built && known.way == built.way;
            all.push(if same { Arc::clone(known) } else { built });
        }
    }
    let near = match locality {
        Locality::SameNode => all
            .iter()
            .filter(|endpoint| endpoint.way == Way::Here)
            .cloned()
            .collect(),
        Locality::Spread => Vec::new(),
    };
    Port {
        name: spec.name,
        number: spec.port,
        near,
        all,
    }
}

fn add_route(table: &mut Table, gateways: &[GatewaySpec], spec: RouteSpec) {
    let name = format!("{}/{}", spec.namespace, spec.name);
    for (rule_number, rule) in spec.rules.into_iter().enumerate() {
        let compiled = Arc::new(CompiledRule {
            route: name.clone(),
            filters: rule.filters,
            backends: rule
                .backends
                .into_iter()
                .map(|backend| CompiledBackend {
                    weight: backend.weight,
                    target: resolve_backend(table, backend.target),
                    filters: backend.filters,
                })
                .collect(),
            request_timeout: rule.request_timeout,
            backend_timeout: rule.backend_timeout,
        });
        let matches = if rule.matches.is_empty() {
            vec![Match::default()]
        } else {
            rule.matches
        };
        for (match_number, matched) in matches.into_iter().enumerate() {
            let entry = |port| {
                let age = Age {
                    created: spec.created,
                    route: name.clone(),
                    rule: rule_number,
                    matched: match_number,
                };
                Entry::new(matched.clone(), Arc::clone(&compiled), port, age)
            };
            for parent in &spec.parents {
                bind(
                    table,
                    gateways,
                    &spec.namespace,
                    &spec.hostnames,
                    parent,
                    entry,
                );
            }
        }
    }
}

fn bind(
    table: &mut Table,
    gateways: &[GatewaySpec],
    namespace: &str,
    hostnames: &[String],
    parent: &Parent,
    entry: impl Fn(Option<u16>) -> Entry,
) {
    match parent {
        Parent::Gateway {
            namespace: of,
            name,
            section,
            port,
        } => {
            let listeners = gateways
                .iter()
                .filter(|gateway| gateway.namespace == *of && gateway.name == *name)
                .flat_map(|gateway| &gateway.listeners)
                .filter(|listener| section.as_ref().is_none_or(|name| *name == listener.name))
                .filter(|listener| port.is_none_or(|port| port == listener.port))
                .filter(|listener| match &listener.allowed {
                    AllowedNamespaces::Same => namespace == of,
                    AllowedNamespaces::All => true,
                    AllowedNamespaces::These(these) => these.contains(namespace),
                });
            for listener in listeners {
                let pattern = pattern(listener);
                for host in effective_hosts(&pattern, hostnames) {
                    // The listener's port is not the node's gateway port, so it decides nothing here.
                    table.listeners.listener(&pattern).push(&host, entry(None));
                }
            }
        }
        Parent::Service {
            namespace: of,
            name,
            port,
        } => {
            let Some(index) = table.service_index(of, name) else {
                return;
            };
            let service = &mut table.services[index.0];
            let list = if namespace == of {
                &mut service.producer
            } else {
                service.consumers.entry(namespace.to_owned()).or_default()
            };
            list.push(entry(*port));
        }
    }
}

fn resolve_backend(table: &Table, target: BackendTarget) -> Result<(ServiceIndex, u16), String> {
    match target {
        BackendTarget::Invalid { reason } => Err(reason),
        BackendTarget::Service {
            namespace,
            name,
            port,
        } => {
            let index = table
                .service_index(&namespace, &name)
                .ok_or_else(|| format!("there is no service {name}.{namespace}"))?;
            match table.service(index).port(port) {
                Some(_) => Ok((index, port)),
                None => Err(format!("service {name}.{namespace} has no port {port}")),
            }
        }
    }
}

impl std::fmt::Display for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.name, self.namespace)
    }
}

/// Short ways to make tables in tests.
#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    pub(crate) fn table(node: &str) -> TableBuilder {
        Table::builder(node, 1)
    }

    pub(crate) struct ServiceMaker(ServiceSpec);

    /// A service on port 80 with the pod `<name>-0` at 10.42.0.1:8080 of node `a`.
    pub(crate) fn service(namespace: &str, name: &str) -> ServiceMaker {
        ServiceMaker(ServiceSpec {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            cluster_ip: None,
            ports: vec![ServicePortSpec {
                name: None,
                port: 80,
                endpoints: vec![endpoint(namespace, &format!("{name}-0"), "10.42.0.1", "a")],
            }],
            locality: Locality::SameNode,
        })
    }

    impl ServiceMaker {
        pub(crate) fn cluster_ip(mut self, ip: &str) -> Self {
            self.0.cluster_ip = Some(ip.parse().expect("an address"));
            self
        }

        pub(crate) fn port(mut self, port: u16) -> Self {
            self.0.ports[0].port = port;
            self
        }

        pub(crate) fn endpoints(mut self, endpoints: Vec<EndpointSpec>) -> Self {
            self.0.ports[0].endpoints = endpoints;
            self
        }

        pub(crate) fn build(self) -> ServiceSpec {
            self.0
        }
    }

    pub(crate) fn endpoint(namespace: &str, pod: &str, ip: &str, node: &str) -> EndpointSpec {
        EndpointSpec {
            pod: pod.to_owned(),
            ip: ip.parse().expect("an address"),
            port: 8080,
            node: node.to_owned(),
            node_address: Some(([127, 0, 0, 1], 15443).into()),
            identity: SpiffeId::new("cluster.local", namespace, "default"),
            workload: WorkloadInfo::default(),
            ready: true,
            serving: true,
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng, rngs::SmallRng};

    use super::{
        testing::{endpoint, service},
        *,
    };
    use crate::route::{Backend, PathMatch, View};

    fn picked(table: &Table, tried: &[&str]) -> Vec<String> {
        let index = table.service_index("vote", "web").expect("the service");
        let port = table.service(index).port(80).expect("the port");
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
    fn spreading_and_unready_endpoints() {
        let mut spread = service("vote", "web").endpoints(three()).build();
        spread.locality = Locality::Spread;
        spread.ports[0].endpoints[1].ready = false;
        // Remote estimates start higher: make the others equal by asking from a fourth node.
        let table = Table::builder("d", 1).service(spread).build();
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
        let new = make(pods, 2);
        new.inherit(&old);
        assert_eq!(load(&new, "10.42.1.1"), 1);
        assert_eq!(load(&new, "10.42.2.1"), 0);
    }

    fn route(namespace: &str, parent: Parent, path: &str) -> RouteSpec {
        RouteSpec {
            namespace: namespace.to_owned(),
            name: "r".to_owned(),
            created: 0,
            parents: vec![parent],
            hostnames: Vec::new(),
            rules: vec![Rule {
                matches: vec![Match {
                    path: PathMatch::Prefix(path.to_owned()),
                    ..Match::default()
                }],
                backends: vec![
                    Backend {
                        weight: 1,
                        target: BackendTarget::Service {
                            namespace: "vote".to_owned(),
                            name: "web".to_owned(),
                            port: 80,
                        },
                        filters: Vec::new(),
                    },
                    Backend {
                        weight: 1,
                        target: BackendTarget::Service {
                            namespace: "vote".to_owned(),
                            name: "gone".to_owned(),
                            port: 80,
                        },
                        filters: Vec::new(),
                    },
                ],
                ..Rule::default()
            }],
        }
    }

    #[test]
    fn service_routes_apply_to_all_or_to_one_namespace() {
        let parent = || Parent::Service {
            namespace: "vote".to_owned(),
            name: "web".to_owned(),
            port: Some(80),
        };
        let table = testing::table("a")
            .service(service("vote", "web").build())
            .routes([
                route("vote", parent(), "/producer"),
                route("shop", parent(), "/consumer"),
            ])
            .build();
        let index = table.service_index("vote", "web").expect("the service");
        let service = table.service(index);
        for (namespace, path, found) in [
            ("vote", "/producer", Some("vote/r")),
            ("other", "/producer", Some("vote/r")),
            ("shop", "/producer", None),
            ("shop", "/consumer", Some("shop/r")),
        ] {
            let request = http::Request::get(path).body(()).expect("a request");
            let list = service.routes(namespace, 80).expect("routes");
            let entry = list.select(View::new(&request, 80));
            assert_eq!(
                entry.map(|entry| entry.rule.route.as_str()),
                found,
                "{namespace} {path}"
            );
        }
        assert!(service.routes("vote", 81).is_none());
        let list = service.routes("vote", 80).expect("routes");
        let request = http::Request::get("/producer").body(()).expect("a request");
        let rule = &list.select(View::new(&request, 80)).expect("a rule").rule;
        assert_eq!(
            rule.backends[1].target,
            Err("there is no service gone.vote".to_owned())
        );
    }
}
