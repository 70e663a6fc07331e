//! The objects that the mesh's tables are made from, and what of a table has to change when one of them did. Pure.
//!
//! Each object is read once, when it changes. A node that reports itself, a slice that says what it said before and labels that no
//! listener asks for change nothing.
//!
//! Invariants: what [`Cluster::take_change`] gave, one after the other, makes the table that all objects of now would make at once
//! ([`Change::apply`]); what is changed while a change is applied is in the next.

use super::nearness::Here;
use super::slice::{Slice, service_spec};
use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Namespace, Node, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;
use kube::api::DynamicObject;
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use weft_api::{SpiffeId, annotation};
use weft_gateway::{Compiler, Kind, NamespacedName, Object, Objects, Wanted, api};
use weft_mesh::{OwnAddresses, PodRange, TableBuilder};
use weft_policy::{Policies, PolicyKind, PolicyName};

/// See the module's promise.
#[derive(Debug, Default)]
pub(super) struct Cluster {
    trust_domain: String,
    here: Here,
    services: BTreeMap<NamespacedName, Arc<Service>>,
    slices: BTreeMap<NamespacedName, Arc<Slice>>,
    /// Slices by their service.
    slices_of: BTreeMap<NamespacedName, BTreeSet<NamespacedName>>,
    nodes: Arc<BTreeMap<String, NodeFacts>>,
    nodes_changed: bool,
    /// Of the Gateway API.
    objects: Objects,
    changed_services: BTreeSet<NamespacedName>,
    routes_changed: bool,
    /// By node: where it is, and where its pods are.
    own: BTreeMap<String, Vec<(IpNet, &'static str)>>,
    own_changed: bool,
    ranges_changed: bool,
    policies: Policies,
    policies_changed: bool,
    /// ServiceAccounts that there are, and those that were there.
    accounts: BTreeSet<NamespacedName>,
    gone_accounts: BTreeSet<NamespacedName>,
    gone_changed: bool,
}

/// ServiceAccounts that are remembered for having been there. What they proved themselves by is good for a day at most.
const GONE_MAX: usize = 10_000;

/// A node as far as its endpoints go.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct NodeFacts {
    /// Where it takes calls of other nodes.
    pub(super) mesh_address: Option<SocketAddr>,
    /// Where it is reached from outside of the cluster.
    pub(super) address: Option<IpAddr>,
    /// What its pods have their addresses of, as the cluster gave it out.
    pub(super) pod_range: Option<IpNet>,
}

impl NodeFacts {
    fn read(node: &Node) -> Self {
        let address = node.annotations().get(annotation::MESH_ADDRESS);
        let range = node.spec.as_ref().and_then(|spec| spec.pod_cidr.as_ref());
        let status = node.status.iter();
        let mut addresses = status.flat_map(|status| status.addresses.iter().flatten());
        let internal = addresses.find(|address| address.type_ == "InternalIP");
        Self {
            address: internal.and_then(|internal| internal.address.parse().ok()),
            mesh_address: address.and_then(|address| address.parse().ok()),
            pod_range: range.and_then(|range| range.parse().ok()),
        }
    }

    /// Whether the address is one of its range.
    pub(super) fn gives(&self, ip: IpAddr) -> bool {
        self.pod_range.is_some_and(|range| range.contains(&ip))
    }
}

/// A Service with all its slices.
#[derive(Debug)]
struct Parts {
    service: Arc<Service>,
    slices: Vec<Arc<Slice>>,
}

/// What of a table has to change.
#[derive(Debug)]
pub(super) struct Change {
    /// None: it is gone.
    services: Vec<(NamespacedName, Option<Parts>)>,
    here: Here,
    nodes: Arc<BTreeMap<String, NodeFacts>>,
    nodes_changed: bool,
    /// All routes, if one of them did.
    routes: Option<Objects>,
    /// All addresses of the cluster's own, if one of them did.
    own: Option<OwnAddresses>,
    /// Which pods are whose, if that changed.
    ranges: Option<Vec<PodRange>>,
    /// All policies, if one of them did.
    policies: Option<Arc<Policies>>,
    /// All accounts that are gone, if one of them came or went.
    gone: Option<BTreeSet<SpiffeId>>,
}

impl Change {
    /// Whether anything of the Gateway API is otherwise.
    pub(super) fn has_routes(&self) -> bool {
        self.routes.is_some()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.services.is_empty() && self.routes.is_none() && !self.nodes_changed
    }

    /// Whether other pods are whose than before.
    pub(super) fn has_ranges(&self) -> bool {
        self.ranges.is_some()
    }

    /// The addresses that calls out of the cluster do not lead to, if they are others than before.
    pub(super) fn take_own(&mut self) -> Option<OwnAddresses> {
        self.own.take()
    }

    /// Which addresses are pods of which node, if that is another than before.
    pub(super) fn take_ranges(&mut self) -> Option<Vec<PodRange>> {
        self.ranges.take()
    }

    /// Who may call whom, if that is otherwise than before.
    pub(super) fn take_policies(&mut self) -> Option<Arc<Policies>> {
        self.policies.take()
    }

    /// Whom nobody is to believe any more, if they are others than before.
    pub(super) fn take_gone(&mut self) -> Option<BTreeSet<SpiffeId>> {
        self.gone.take()
    }

    /// Brings the builder's table up to date, and what the compiler serves.
    pub(super) fn apply(self, builder: &mut TableBuilder, compiler: &mut Compiler) {
        for (name, parts) in self.services {
            match parts {
                Some(Parts { service, slices }) => {
                    let mut spec = service_spec(name, &service, &slices, &self.nodes);
                    spec.preferred = self.here.preferred(&slices);
                    spec.same_zone = self.here.same_zone(&slices);
                    builder.set_service(spec);
                }
                None => builder.remove_service(&name.namespace, &name.name),
            }
        }
        builder.set_node_addresses(self.nodes.values().filter_map(|node| node.address));
        if let Some(objects) = self.routes {
            builder.set_routes(compiler.served(&objects));
        }
    }
}

/// Where a node says in which zone it is.
const ZONE: &str = "topology.kubernetes.io/zone";

/// The Service of the API servers.
fn api_servers() -> NamespacedName {
    NamespacedName::new("default", "kubernetes")
}

/// The Service of the cluster's DNS.
fn dns_service() -> NamespacedName {
    NamespacedName::new("kube-system", "kube-dns")
}

/// Where a node is, and where its pods are.
fn own_of(node: &Node) -> Vec<(IpNet, &'static str)> {
    let addresses = node
        .status
        .iter()
        .flat_map(|status| status.addresses.iter().flatten());
    let addresses = addresses.filter_map(|address| address.address.parse::<IpAddr>().ok());
    let spec = node.spec.as_ref();
    let ranges = spec.into_iter().flat_map(|spec| {
        let all = spec.pod_cidrs.iter().flatten();
        all.chain(&spec.pod_cidr)
            .filter_map(|range| range.parse::<IpNet>().ok())
    });
    let mut own: Vec<_> = addresses
        .map(|address| (address.to_canonical().into(), "an address of a node"))
        .chain(ranges.map(|range| (range.trunc(), "an address of a pod")))
        .collect();
    own.sort_unstable();
    own.dedup();
    own
}

pub(super) fn name_of<K: kube::Resource>(object: &K) -> NamespacedName {
    let meta = object.meta();
    NamespacedName::new(
        meta.namespace.clone().unwrap_or_default(),
        meta.name.clone().unwrap_or_default(),
    )
}

impl Cluster {
    pub(super) fn new(trust_domain: &str) -> Self {
        Self {
            trust_domain: trust_domain.into(),
            policies: Policies::new(trust_domain),
            ..Self::default()
        }
    }

    /// As the node of this name sees it.
    pub(super) fn seen_from(mut self, node: &str) -> Self {
        node.clone_into(&mut self.here.node);
        self
    }

    /// What changed since the last call.
    pub(super) fn take_change(&mut self) -> Change {
        let services = std::mem::take(&mut self.changed_services);
        let services = services.into_iter().map(|name| {
            let service = self.services.get(&name).map(|service| {
                let slices = self.slices_of.get(&name).into_iter().flatten();
                let slices = slices.filter_map(|slice| self.slices.get(slice).cloned());
                Parts {
                    service: Arc::clone(service),
                    slices: slices.collect(),
                }
            });
            (name, service)
        });
        let services = services.collect();
        let routes_changed = std::mem::take(&mut self.routes_changed);
        Change {
            services,
            here: self.here.clone(),
            nodes: Arc::clone(&self.nodes),
            nodes_changed: std::mem::take(&mut self.nodes_changed),
            routes: routes_changed.then(|| self.objects.clone()),
            own: std::mem::take(&mut self.own_changed).then(|| self.own_addresses()),
            ranges: std::mem::take(&mut self.ranges_changed).then(|| self.ranges()),
            policies: std::mem::take(&mut self.policies_changed)
                .then(|| Arc::new(self.policies.clone())),
            gone: std::mem::take(&mut self.gone_changed).then(|| self.gone()),
        }
    }

    fn ranges(&self) -> Vec<PodRange> {
        let ranges = self.nodes.iter().filter_map(|(node, facts)| {
            Some(PodRange {
                range: facts.pod_range?,
                node: node.clone(),
                node_address: facts.mesh_address,
            })
        });
        ranges.collect()
    }

    /// The services whose variables a container in `namespace` sees.
    pub(super) fn services_for(&self, namespace: &str) -> Vec<Service> {
        let own = self
            .services
            .range(NamespacedName::new(namespace, "")..)
            .take_while(|(name, _)| name.namespace == namespace)
            .map(|(_, service)| service);
        let kubernetes = self
            .services
            .get(&NamespacedName::new("default", "kubernetes"))
            .filter(|_| namespace != "default");
        own.chain(kubernetes)
            .map(|service| Service::clone(service))
            .collect()
    }

    /// Where the API servers are, if `to` is the address of their Service; or the one of them that `to` is.
    pub(super) fn api_servers(&self, to: SocketAddr) -> Option<Vec<SocketAddr>> {
        let spec = self.services.get(&api_servers())?.spec.as_ref()?;
        let ip: IpAddr = spec.cluster_ip.as_ref()?.parse().ok()?;
        for port in spec.ports.iter().flatten() {
            let slices = self.slices_of.get(&api_servers()).into_iter().flatten();
            let slices = slices.filter_map(|slice| self.slices.get(slice));
            let servers = slices.flat_map(|slice| slice.sockets(port.name.as_deref()));
            let servers: Vec<SocketAddr> = servers.collect();
            if ip == to.ip() && u16::try_from(port.port) == Ok(to.port()) {
                return Some(servers);
            }
            if servers.contains(&to) {
                return Some(vec![to]);
            }
        }
        None
    }

    /// The address of the cluster's DNS, and whether nodes answer there: nobody else does where its Service selects no pods.
    pub(super) fn dns(&self) -> Option<(IpAddr, bool)> {
        let service = self.services.get(&dns_service())?;
        let spec = service.spec.as_ref()?;
        let ip = spec.cluster_ip.as_ref()?.parse().ok()?;
        let selects = spec
            .selector
            .as_ref()
            .is_some_and(|selector| !selector.is_empty());
        Some((ip, !selects && !self.slices_of.contains_key(&dns_service())))
    }

    fn own_addresses(&self) -> OwnAddresses {
        let mut own = OwnAddresses::default();
        for (net, what) in self.own.values().flatten() {
            own.add(*net, what);
        }
        let servers = self.slices_of.get(&api_servers()).into_iter().flatten();
        let servers = servers.filter_map(|slice| self.slices.get(slice));
        for address in servers.flat_map(|slice| slice.addresses()) {
            own.add(address.into(), "an address of an API server");
        }
        own
    }

    fn set_own(&mut self, node: &str, own: Vec<(IpNet, &'static str)>) {
        if self.own.get(node).is_some_and(|known| *known == own) {
            return;
        }
        self.own_changed = true;
        match own.is_empty() {
            true => self.own.remove(node),
            false => self.own.insert(node.to_owned(), own),
        };
    }

    // === Services and their endpoints ===

    pub(super) fn services(&self) -> Vec<NamespacedName> {
        self.services.keys().cloned().collect()
    }

    pub(super) fn apply_service(&mut self, service: Service) {
        let name = name_of(&service);
        self.take_object(Object::Service(name.clone(), (&service).into()));
        self.changed_services.insert(name.clone());
        self.services.insert(name, Arc::new(service));
    }

    pub(super) fn delete_service(&mut self, name: &NamespacedName) {
        self.forget_object(Kind::Service, name);
        if self.services.remove(name).is_some() {
            self.changed_services.insert(name.clone());
        }
    }

    pub(super) fn slices(&self) -> Vec<NamespacedName> {
        self.slices.keys().cloned().collect()
    }

    pub(super) fn apply_slice(&mut self, slice: EndpointSlice) {
        let name = name_of(&slice);
        let slice = Slice::read(&slice, &self.trust_domain);
        if self.slices.get(&name).is_some_and(|known| **known == slice) {
            return;
        }
        self.delete_slice(&name);
        if let Some(service) = &slice.service {
            self.own_changed |= *service == api_servers();
            let slices = self.slices_of.entry(service.clone()).or_default();
            slices.insert(name.clone());
            self.changed_services.insert(service.clone());
        }
        self.slices.insert(name, Arc::new(slice));
    }

    pub(super) fn delete_slice(&mut self, name: &NamespacedName) {
        let slice = self.slices.remove(name);
        let Some(service) = slice.and_then(|slice| slice.service.clone()) else {
            return;
        };
        self.own_changed |= service == api_servers();
        if let Some(slices) = self.slices_of.get_mut(&service) {
            slices.remove(name);
            if slices.is_empty() {
                self.slices_of.remove(&service);
            }
        }
        self.changed_services.insert(service);
    }

    pub(super) fn nodes(&self) -> Vec<NamespacedName> {
        self.objects.names(Kind::Node)
    }

    pub(super) fn apply_node(&mut self, node: Node) {
        let name = node.metadata.name.clone().unwrap_or_default();
        self.set_own(&name, own_of(&node));
        if name == self.here.node {
            self.set_zone(node.labels().get(ZONE).cloned());
        }
        let facts = api::Node::read(node.status.as_ref(), node.annotations());
        self.take_object(Object::Node(name.clone(), facts));
        self.set_node(&name, NodeFacts::read(&node));
    }

    pub(super) fn delete_node(&mut self, name: &NamespacedName) {
        self.forget_object(Kind::Node, name);
        self.set_own(&name.name, Vec::new());
        self.set_node(&name.name, NodeFacts::default());
    }

    /// Whom this node's callers prefer may be others now.
    fn set_zone(&mut self, zone: Option<String>) {
        if self.here.zone != zone {
            self.here.zone = zone;
            self.changed_services.extend(self.slices_of.keys().cloned());
        }
    }

    fn set_node(&mut self, node: &str, facts: NodeFacts) {
        if self.nodes.get(node).copied().unwrap_or_default() == facts {
            return;
        }
        self.ranges_changed = true;
        self.nodes_changed = true;
        let nodes = Arc::make_mut(&mut self.nodes);
        if facts == NodeFacts::default() {
            nodes.remove(node);
        } else {
            nodes.insert(node.to_owned(), facts);
        }
        let there = self.slices.values().filter(|slice| slice.is_on(node));
        let services = there.filter_map(|slice| slice.service.clone());
        self.changed_services.extend(services);
    }

    // === The Gateway API ===

    pub(super) fn names(&self, kind: Kind) -> Vec<NamespacedName> {
        self.objects.names(kind)
    }

    pub(super) fn apply_namespace(&mut self, namespace: Namespace) {
        let name = namespace.metadata.name.unwrap_or_default();
        let labels = namespace.metadata.labels.unwrap_or_default();
        self.policies_changed |= self.policies.set_namespace(&name, Some(&labels));
        self.take_object(Object::Namespace(name, labels));
    }

    pub(super) fn delete_namespace(&mut self, name: &NamespacedName) {
        self.policies_changed |= self.policies.set_namespace(&name.name, None);
        self.forget_object(Kind::Namespace, name);
    }

    // === Who is nobody any more ===

    fn gone(&self) -> BTreeSet<SpiffeId> {
        let gone = self.gone_accounts.iter();
        let of = |account: &NamespacedName| {
            SpiffeId::new(&self.trust_domain, &account.namespace, &account.name)
        };
        gone.map(of).collect()
    }

    pub(super) fn accounts(&self) -> Vec<NamespacedName> {
        self.accounts.iter().cloned().collect()
    }

    pub(super) fn apply_account(&mut self, account: &ServiceAccount) {
        let name = name_of(account);
        self.gone_changed |= self.gone_accounts.remove(&name);
        self.accounts.insert(name);
    }

    /// One that was never seen here is not known to be gone: it may be about to come.
    pub(super) fn delete_account(&mut self, name: &NamespacedName) {
        if !self.accounts.remove(name) {
            return;
        }
        if self.gone_accounts.len() >= GONE_MAX {
            self.gone_accounts.pop_first();
        }
        self.gone_changed |= self.gone_accounts.insert(name.clone());
    }

    // === Who may call whom ===

    pub(super) fn policy_names(&self, kind: PolicyKind) -> Vec<NamespacedName> {
        let names = self.policies.names(kind).into_iter();
        names
            .map(|policy| NamespacedName::new(policy.namespace, policy.name))
            .collect()
    }

    pub(super) fn apply_policy(
        &mut self,
        kind: PolicyKind,
        metadata: &ObjectMeta,
        spec: &serde_json::Value,
    ) {
        let object = weft_policy::Object {
            kind,
            namespace: metadata.namespace.as_deref().unwrap_or_default(),
            name: metadata.name.as_deref().unwrap_or_default(),
            annotations: metadata.annotations.as_ref(),
            spec,
        };
        // What is wrong with it, its status tells.
        self.policies_changed |= self.policies.apply(&object).0;
    }

    pub(super) fn delete_policy(&mut self, kind: PolicyKind, name: &NamespacedName) {
        self.policies_changed |= self.policies.delete(&PolicyName {
            namespace: name.namespace.clone(),
            name: name.name.clone(),
            kind,
        });
    }

    /// Where keys of tokens are.
    pub(super) fn key_places(&self) -> Vec<String> {
        let places = self.policies.key_places().into_iter();
        places.map(str::to_owned).collect()
    }

    /// An object of the Gateway API, or of weft's own beside it. One that cannot be read is as good as not there.
    pub(super) fn apply_gateway_api<S: DeserializeOwned + Default>(
        &mut self,
        kind: Kind,
        object: &DynamicObject,
        wrap: impl FnOnce(api::Object<S>) -> Object,
    ) {
        let spec = object.data.get("spec").unwrap_or(&serde_json::Value::Null);
        match api::Object::read(&object.metadata, spec) {
            Ok(object) => self.take_object(wrap(object)),
            Err(error) => {
                let name = name_of(object);
                tracing::warn!(?kind, %name, %error, "an object cannot be read and is left out");
                self.forget_object(kind, &name);
            }
        }
    }

    /// Which objects hold the certificates that are referred to.
    pub(super) fn wanted(&self) -> Wanted {
        Wanted::of(&self.objects)
    }

    /// A Secret that holds a certificate, as it is now; none where it is not there, or may not be read. Whether that is news.
    pub(super) fn set_secret(
        &mut self,
        name: &NamespacedName,
        secret: Option<api::Secret>,
    ) -> bool {
        let is_news = match secret {
            Some(secret) => self.objects.apply(Object::Secret(name.clone(), secret)),
            None => self.objects.delete(Kind::Secret, name),
        };
        self.routes_changed |= is_news;
        is_news
    }

    /// The same of a ConfigMap that holds authorities.
    pub(super) fn set_bundle(
        &mut self,
        name: &NamespacedName,
        bundle: Option<api::Bundle>,
    ) -> bool {
        let is_news = match bundle {
            Some(bundle) => self.objects.apply(Object::ConfigMap(name.clone(), bundle)),
            None => self.objects.delete(Kind::ConfigMap, name),
        };
        self.routes_changed |= is_news;
        is_news
    }

    fn take_object(&mut self, object: Object) {
        self.routes_changed |= self.objects.apply(object);
    }

    pub(super) fn forget_object(&mut self, kind: Kind, name: &NamespacedName) {
        self.routes_changed |= self.objects.delete(kind, name);
    }
}
