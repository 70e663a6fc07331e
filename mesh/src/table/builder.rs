//! A table that changes by what changed: one service, or the routes.
//!
//! The maps are persistent: a table is made of them at no cost, stays as it was when it was made, and shares with the next whatever is
//! the same there. What one change costs depends on that service's endpoints, not on how many there are.
//!
//! Invariants: the tables of a builder are those that a new builder would make of the same values, in whatever order they came. An
//! address that several services claim for different pods is that of the first, by namespace and name, of those to whose pods the
//! cluster itself gave it, and of the others only where there is none; each of them keeps its own.

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use imbl::ordmap::DiffItem;
use smallvec::SmallVec;
use weft_api::identity::SpiffeId;
use weft_gateway::{NamespacedName, Resilience, Served, ServiceRoutes};

use super::exposure::Behind;
use super::{
    BoundRoutes, Endpoint, EndpointSpec, Exposure, Outside, PodRange, Port, Ready, Service,
    ServiceIndex, ServiceLabels, ServiceSpec, Table, Way, ranges::PodRanges,
};
use crate::{
    WorkloadInfo,
    budget::Budget,
    door::{Door, Guard},
    front::Fronts,
    route::Listeners,
    streams::Streams,
    wire,
};

/// Names that are kept although nobody bears them any more, before they are looked for.
const SPARE_NAMES_MAX: usize = 64;

/// The values of one node's tables, and the table they make.
#[derive(Debug)]
pub struct TableBuilder {
    node: String,
    table: Table,
    served: Served,
    names: Names,
    /// Positions without a service.
    free: Vec<usize>,
    /// What each service claims, by its position.
    claimed: Vec<Claimed>,
    endpoints: Claims<SocketAddr, Arc<Endpoint>>,
    cluster_ips: Claims<IpAddr, ServiceIndex>,
    exposures: Claims<Exposure, Behind>,
    doors: Claims<SocketAddr, Arc<Door>>,
}

#[derive(Debug, Default)]
struct Claimed {
    addresses: Vec<SocketAddr>,
    cluster_ip: Option<IpAddr>,
    exposures: Vec<Exposure>,
    doors: Vec<SocketAddr>,
}

impl TableBuilder {
    pub(super) fn new(node: &str, generation: u64) -> Self {
        Self {
            node: node.to_owned(),
            table: Table::empty(generation),
            served: Served::default(),
            names: Names::default(),
            free: Vec::new(),
            claimed: Vec::new(),
            endpoints: Claims::default(),
            cluster_ips: Claims::default(),
            exposures: Claims::default(),
            doors: Claims::default(),
        }
    }

    /// As [`TableBuilder::set_service`].
    #[must_use]
    pub fn service(mut self, service: ServiceSpec) -> Self {
        self.set_service(service);
        self
    }

    /// As [`TableBuilder::set_service`], for each.
    #[must_use]
    pub fn services(mut self, services: impl IntoIterator<Item = ServiceSpec>) -> Self {
        for service in services {
            self.set_service(service);
        }
        self
    }

    /// As [`TableBuilder::set_routes`].
    #[must_use]
    pub fn routes(mut self, served: &Served) -> Self {
        self.set_routes(served);
        self
    }

    /// Takes in which addresses of pods are which node's, in place of what it was; `identity` is what each node proves to be for a call to a
    /// pod that no service leads to: [`crate::Mesh::gateway_identity`].
    pub fn set_pod_ranges(
        &mut self,
        identity: SpiffeId,
        ranges: impl IntoIterator<Item = PodRange>,
    ) {
        let ranges = PodRanges::new(&self.node, identity, ranges);
        self.table.pods = Some(Arc::new(ranges));
    }

    /// The table of the generation that the builder began with.
    #[must_use]
    pub fn build(self) -> Table {
        self.table
    }

    /// The table as it is now. It costs nothing.
    #[must_use]
    pub fn table(&self, generation: u64) -> Table {
        Table {
            generation,
            ..self.table.clone()
        }
    }

    /// Takes in a service, in place of what it was. What is known of endpoints that stay is kept.
    pub fn set_service(&mut self, spec: ServiceSpec) {
        self.table.zone.set(&spec);
        let exposures = Exposure::of(&spec);
        let ready = Ready::of(&spec, &self.node);
        let known = self.table.service_index(&spec.namespace, &spec.name);
        let before = known.map(|index| Arc::clone(&self.table.services[index.0]));
        let labels = match &before {
            Some(before) => Arc::clone(&before.labels),
            None => Arc::new(ServiceLabels::new(&spec.namespace, &spec.name)),
        };
        let routes = match &before {
            Some(before) => Arc::clone(&before.routes),
            None => {
                let name = NamespacedName::new(spec.namespace.as_str(), spec.name.as_str());
                bound(self.served.services.get(&name).map(|routes| &**routes))
            }
        };
        let (resilience, guard) = match &before {
            Some(before) => (Arc::clone(&before.resilience), before.guard.clone()),
            None => {
                let name = NamespacedName::new(spec.namespace.as_str(), spec.name.as_str());
                let resilience = self.served.resilience.get(&name).cloned();
                let resilience = resilience.unwrap_or_default();
                let guard = Guard::of(&resilience);
                (resilience, guard)
            }
        };
        let mut listed = Listed::default();
        let mut ports = Vec::with_capacity(spec.ports.len());
        for port in spec.ports {
            // Terminating pods answer only when nobody else can, as kube-proxy has it.
            let any_ready = port.endpoints.iter().any(|endpoint| endpoint.ready);
            let mut all = Vec::with_capacity(port.endpoints.len());
            let mut outside = None;
            for endpoint in port.endpoints {
                if endpoint.node.is_empty() && endpoint.node_address.is_none() {
                    outside.get_or_insert(SocketAddr::new(endpoint.ip, endpoint.port));
                    continue;
                }
                let in_use = if any_ready {
                    endpoint.ready
                } else {
                    endpoint.serving
                };
                let assigned = endpoint.assigned;
                if let Some(endpoint) = self.endpoint(endpoint, &listed) {
                    if in_use {
                        all.push(Arc::clone(&endpoint));
                    }
                    listed.push(endpoint, assigned);
                }
            }
            let is_near = |endpoint: &&Arc<Endpoint>| endpoint.way == Way::Here;
            let is_preferred =
                |endpoint: &&Arc<Endpoint>| spec.preferred.contains(&endpoint.address.ip());
            let is_in_zone =
                |endpoint: &&Arc<Endpoint>| spec.same_zone.contains(&endpoint.address.ip());
            let mut zone: Vec<_> = all.iter().filter(is_in_zone).cloned().collect();
            if zone.len() == all.len() {
                zone.clear();
            }
            ports.push(Port {
                name: port.name,
                protocol: port.protocol,
                number: port.port,
                speaks_h2: port.speaks_h2,
                speaks_http: port.speaks_http,
                near: all.iter().filter(is_near).cloned().collect(),
                preferred: all.iter().filter(is_preferred).cloned().collect(),
                zone,
                all,
                outside,
            });
        }
        let index = known.unwrap_or_else(|| self.place());
        let service = Service {
            labels: Arc::clone(&labels),
            ports: ports.into(),
            cluster_ip: spec.cluster_ip,
            alias: spec.alias.map(Into::into),
            outside: Arc::new(Outside {
                affinity: spec.affinity,
                local: spec.external_local,
                local_inside: spec.internal_local,
                ready,
                source_ranges: spec.source_ranges,
            }),
            routes,
            wakes: spec.wakes,
            guard,
            activity: before
                .as_ref()
                .map_or_else(Arc::default, |before| Arc::clone(&before.activity)),
            budget: match before {
                Some(before) => Arc::clone(&before.budget),
                None => budget(&resilience),
            },
            resilience,
        };
        self.table.services.set(index.0, Arc::new(service));
        if known.is_none() {
            let namespace = self.table.by_name.entry(spec.namespace).or_default();
            namespace.insert(spec.name, index);
        }
        self.claim(index, &labels, listed, spec.cluster_ip);
        self.claim_exposures(index, &labels, exposures);
        self.claim_doors(index);
    }

    /// Forgets a service, if it is there.
    pub fn remove_service(&mut self, namespace: &str, name: &str) {
        let Some(index) = self.table.service_index(namespace, name) else {
            return;
        };
        self.table.zone.remove(namespace, name);
        let labels = Arc::clone(&self.table.services[index.0].labels);
        self.claim(index, &labels, Listed::default(), None);
        self.claim_exposures(index, &labels, Vec::new());
        if let Some(names) = self.table.by_name.get_mut(namespace) {
            names.remove(name);
            if names.is_empty() {
                self.table.by_name.remove(namespace);
            }
        }
        self.table
            .services
            .set(index.0, Arc::new(Service::nobody()));
        self.withdraw_doors(index, &labels);
        self.free.push(index.0);
    }

    /// Takes in all routes, in place of those before; lists that are the same stay.
    pub fn set_routes(&mut self, served: &Served) {
        if served.listeners != self.served.listeners {
            self.table.listeners = Arc::new(Listeners::of(&served.listeners));
        }
        if served.fronts != self.served.fronts {
            let fronts = Fronts::of(&served.fronts, &self.table.fronts);
            self.table.fronts = Arc::new(fronts);
        }
        if served.streams != self.served.streams {
            let streams = Streams::of(&served.streams, &self.table.streams);
            self.table.streams = Arc::new(streams);
        }
        for item in self.served.services.diff(&served.services) {
            let (name, new) = match item {
                DiffItem::Add(name, new)
                | DiffItem::Update {
                    new: (name, new), ..
                } => (name, Some(&**new)),
                DiffItem::Remove(name, _) => (name, None),
            };
            let Some(index) = self.table.service_index(&name.namespace, &name.name) else {
                continue;
            };
            let service = Service {
                routes: bound(new),
                ..Service::clone(&self.table.services[index.0])
            };
            self.table.services.set(index.0, Arc::new(service));
        }
        let changed = self.served.resilience.diff(&served.resilience);
        let changed = changed.map(|item| match item {
            DiffItem::Add(name, new)
            | DiffItem::Update {
                new: (name, new), ..
            } => (name.clone(), Some(Arc::clone(new))),
            DiffItem::Remove(name, _) => (name.clone(), None),
        });
        // Doors are claimed by the builder as a whole.
        let changed: Vec<(NamespacedName, Option<Arc<Resilience>>)> = changed.collect();
        for (name, resilience) in changed {
            let Some(index) = self.table.service_index(&name.namespace, &name.name) else {
                continue;
            };
            let before = Arc::clone(&self.table.services[index.0]);
            let resilience = resilience.unwrap_or_default();
            let guard = before.guard.clone();
            let guard = match guard.filter(|guard| guard.holds_for(&resilience)) {
                Some(guard) => Some(guard),
                None => Guard::of(&resilience),
            };
            let service = Service {
                budget: match before.resilience.budget == resilience.budget {
                    true => Arc::clone(&before.budget),
                    false => budget(&resilience),
                },
                guard,
                resilience,
                ..Service::clone(&before)
            };
            self.table.services.set(index.0, Arc::new(service));
            self.claim_doors(index);
        }
        self.served = served.clone();
    }

    /// A position for a service.
    fn place(&mut self) -> ServiceIndex {
        ServiceIndex(self.free.pop().unwrap_or_else(|| {
            self.table.services.push_back(Arc::new(Service::nobody()));
            self.claimed.push(Claimed::default());
            self.table.services.len() - 1
        }))
    }

    /// Puts the service's claims in place of those it had.
    fn claim(
        &mut self,
        index: ServiceIndex,
        labels: &Arc<ServiceLabels>,
        listed: Listed,
        cluster_ip: Option<IpAddr>,
    ) {
        let before = std::mem::take(&mut self.claimed[index.0]);
        let mut touched: Vec<SocketAddr> = Vec::new();
        for address in before.addresses {
            if !listed.by_address.contains_key(&address) {
                self.endpoints.withdraw(&address, labels);
                touched.push(address);
            }
        }
        let mut addresses = Vec::with_capacity(listed.by_address.len());
        for (address, endpoints) in listed.by_address {
            let assigned = endpoints.iter().find(|(_, assigned)| *assigned);
            let Some((first, assigned)) = assigned.or_else(|| endpoints.first()) else {
                continue;
            };
            addresses.push(address);
            let known = self.endpoints.of(&address, labels);
            let is_known = |known: &Claim<Arc<Endpoint>>| {
                known.assigned == *assigned && Arc::ptr_eq(&known.value, first)
            };
            if !known.is_some_and(is_known) {
                self.endpoints
                    .claim(address, labels, *assigned, Arc::clone(first));
                touched.push(address);
            }
        }
        for address in touched {
            match self.endpoints.winner(&address) {
                Some(endpoint) => {
                    let endpoint = Arc::clone(endpoint);
                    self.table.endpoints.insert(address, endpoint)
                }
                None => self.table.endpoints.remove(&address),
            };
        }
        if let Some(ip) = &before.cluster_ip {
            self.cluster_ips.withdraw(ip, labels);
        }
        if let Some(ip) = cluster_ip {
            self.cluster_ips.claim(ip, labels, true, index);
        }
        for ip in before.cluster_ip.iter().chain(&cluster_ip) {
            match self.cluster_ips.winner(ip) {
                Some(index) => self.table.by_ip.insert(*ip, *index),
                None => self.table.by_ip.remove(ip),
            };
        }
        self.claimed[index.0] = Claimed {
            addresses,
            cluster_ip,
            exposures: before.exposures,
            doors: before.doors,
        };
    }

    /// The same of the places where it is served for who comes from outside.
    fn claim_exposures(
        &mut self,
        index: ServiceIndex,
        labels: &Arc<ServiceLabels>,
        exposures: Vec<(Exposure, u16)>,
    ) {
        let before = std::mem::take(&mut self.claimed[index.0].exposures);
        for exposure in &before {
            self.exposures.withdraw(exposure, labels);
        }
        for (exposure, port) in &exposures {
            let behind = Behind {
                service: index,
                port: *port,
            };
            self.exposures.claim(*exposure, labels, true, behind);
        }
        let now: Vec<Exposure> = exposures
            .into_iter()
            .map(|(exposure, _)| exposure)
            .collect();
        for exposure in before.iter().chain(&now) {
            match self.exposures.winner(exposure) {
                Some(behind) => self.table.exposed.insert(*exposure, *behind),
                None => self.table.exposed.remove(exposure),
            };
        }
        self.claimed[index.0].exposures = now;
    }

    /// Puts the doors of the service's endpoints here in place of those it had.
    fn claim_doors(&mut self, index: ServiceIndex) {
        let service = Arc::clone(&self.table.services[index.0]);
        let labels = Arc::clone(&service.labels);
        let Some(guard) = &service.guard else {
            return self.withdraw_doors(index, &labels);
        };
        let near = service.ports.iter().flat_map(|port| &port.near);
        let addresses: HashSet<SocketAddr> = near.map(|endpoint| endpoint.address).collect();
        let before = std::mem::take(&mut self.claimed[index.0].doors);
        let gone = before.iter().filter(|address| !addresses.contains(address));
        for address in gone {
            self.doors.withdraw(address, &labels);
        }
        for address in &addresses {
            let known = self.doors.of(address, &labels);
            // What it counts stays.
            if !known.is_some_and(|known| Arc::ptr_eq(&known.value.guard, guard)) {
                let door = Door::new(&labels, guard);
                self.doors.claim(*address, &labels, true, door);
            }
        }
        self.show_doors(before.iter().chain(&addresses));
        self.claimed[index.0].doors = addresses.into_iter().collect();
    }

    fn withdraw_doors(&mut self, index: ServiceIndex, labels: &Arc<ServiceLabels>) {
        let before = std::mem::take(&mut self.claimed[index.0].doors);
        for address in &before {
            self.doors.withdraw(address, labels);
        }
        self.show_doors(before.iter());
    }

    /// Whose door is at each of these addresses.
    fn show_doors<'a>(&mut self, addresses: impl Iterator<Item = &'a SocketAddr>) {
        for address in addresses {
            match self.doors.winner(address) {
                Some(door) => self.table.doors.insert(*address, Arc::clone(door)),
                None => self.table.doors.remove(address),
            };
        }
    }

    /// Takes in where the nodes are, each of them once, in place of what was known.
    pub fn set_node_addresses(&mut self, addresses: impl IntoIterator<Item = IpAddr>) {
        let mut counted = std::collections::BTreeMap::new();
        for address in addresses {
            *counted.entry(address.to_canonical()).or_insert(0) += 1;
        }
        if *self.table.node_addresses != counted {
            self.table.node_addresses = Arc::new(counted);
        }
    }

    /// The endpoint, shared with whoever knows the very same; `None` when this node cannot reach it. `listed`: those of the service
    /// that is being made.
    fn endpoint(&mut self, spec: EndpointSpec, listed: &Listed) -> Option<Arc<Endpoint>> {
        let way = match spec.node_address {
            _ if spec.node == self.node => Way::Here,
            Some(address) => Way::Node(address),
            None => return None,
        };
        let address = SocketAddr::new(spec.ip, spec.port);
        let mut endpoint = Endpoint {
            key: Endpoint::key_of(&spec.pod, address),
            pod: spec.pod,
            address,
            node: spec.node,
            spiffe_id: self.names.principal(&spec.identity),
            identity: spec.identity,
            workload: self.names.workload(spec.workload),
            way,
            header: wire::destination_line(address),
            standing: Arc::new(way.first_standing()),
        };
        let known = self.endpoints.all(&address);
        let listed = listed.by_address.get(&address).into_iter().flatten();
        let mut standing = None;
        for known in known.chain(listed.map(|(known, _)| known)) {
            if known.is_identical(&endpoint) {
                return Some(Arc::clone(known));
            }
            if **known == endpoint {
                standing.get_or_insert(&known.standing);
            }
        }
        if let Some(standing) = standing {
            endpoint.standing = Arc::clone(standing);
        }
        Some(Arc::new(endpoint))
    }
}

/// What a service of this policy has for further tries.
fn budget(resilience: &Resilience) -> Arc<Budget> {
    let asked = resilience.budget;
    let budget = Budget::new(asked.percent, asked.interval, asked.min_per_second);
    Arc::new(budget)
}

/// Endpoints at one address, each with whether the cluster gave it that. More than one only where a hand-made list says so.
type AtAddress = SmallVec<[(Arc<Endpoint>, bool); 1]>;

/// The endpoints of a service that is being made, those it does not use among them.
#[derive(Default)]
struct Listed {
    by_address: HashMap<SocketAddr, AtAddress>,
}

impl Listed {
    fn push(&mut self, endpoint: Arc<Endpoint>, assigned: bool) {
        let known = self.by_address.entry(endpoint.address).or_default();
        // Two ports of a service may lead to the same port of a pod.
        let mut same = known.iter_mut();
        match same.find(|(known, _)| Arc::ptr_eq(known, &endpoint)) {
            Some((_, known)) => *known |= assigned,
            None => known.push((endpoint, assigned)),
        }
    }
}

fn bound(routes: Option<&ServiceRoutes>) -> Arc<BoundRoutes> {
    routes
        .map(|routes| Arc::new(BoundRoutes::of(routes)))
        .unwrap_or_default()
}

/// What several services may claim: the first by namespace and name has it, of those whose claim is the cluster's own word if any is.
#[derive(Debug)]
struct Claims<K, V>(HashMap<K, SmallVec<[Claim<V>; 1]>>);

#[derive(Debug)]
struct Claim<V> {
    assigned: bool,
    by: Arc<ServiceLabels>,
    value: V,
}

impl<V> Claim<V> {
    fn rank(&self) -> impl Ord + '_ {
        (!self.assigned, &*self.by.namespace, &*self.by.name)
    }
}

impl<K, V> Default for Claims<K, V> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: std::hash::Hash + Eq, V> Claims<K, V> {
    /// In place of what the service claimed there before.
    fn claim(&mut self, key: K, by: &Arc<ServiceLabels>, assigned: bool, value: V) {
        let claims = self.0.entry(key).or_default();
        claims.retain(|known| known.by != *by);
        let claim = Claim {
            assigned,
            by: Arc::clone(by),
            value,
        };
        let place = claims.partition_point(|known| known.rank() < claim.rank());
        claims.insert(place, claim);
    }

    fn of(&self, key: &K, by: &Arc<ServiceLabels>) -> Option<&Claim<V>> {
        let mut claims = self.0.get(key)?.iter();
        claims.find(|known| known.by == *by)
    }

    fn withdraw(&mut self, key: &K, by: &Arc<ServiceLabels>) {
        if let Some(claims) = self.0.get_mut(key) {
            claims.retain(|known| known.by != *by);
            if claims.is_empty() {
                self.0.remove(key);
            }
        }
    }

    fn winner(&self, key: &K) -> Option<&V> {
        self.all(key).next()
    }

    fn all(&self, key: &K) -> impl Iterator<Item = &V> {
        let claims = self.0.get(key).into_iter().flatten();
        claims.map(|known| &known.value)
    }
}

/// What the endpoints of a workload have in common, once each: ten thousand pods are few workloads, and a call is charged to
/// those, found by their addresses.
#[derive(Debug, Default)]
struct Names {
    workloads: HashSet<Arc<WorkloadInfo>>,
    principals: HashMap<SpiffeId, Arc<str>>,
    /// As many as were in use when they were last looked through.
    in_use: usize,
}

impl Names {
    fn workload(&mut self, info: WorkloadInfo) -> Arc<WorkloadInfo> {
        if let Some(known) = self.workloads.get(&info) {
            return Arc::clone(known);
        }
        self.forget_unused();
        let info = Arc::new(info);
        self.workloads.insert(Arc::clone(&info));
        info
    }

    fn principal(&mut self, identity: &SpiffeId) -> Arc<str> {
        if let Some(known) = self.principals.get(identity) {
            return Arc::clone(known);
        }
        self.forget_unused();
        let text: Arc<str> = identity.to_string().into();
        self.principals.insert(identity.clone(), Arc::clone(&text));
        text
    }

    /// Now and then, so that pods that come and go for years leave nothing behind.
    fn forget_unused(&mut self) {
        if self.workloads.len() + self.principals.len() < 2 * self.in_use + SPARE_NAMES_MAX {
            return;
        }
        self.workloads.retain(|info| Arc::strong_count(info) > 1);
        self.principals
            .retain(|_, text| Arc::strong_count(text) > 1);
        self.in_use = self.workloads.len() + self.principals.len();
    }
}
