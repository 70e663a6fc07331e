//! The objects that statuses and routes are made from, kept up to date one by one.
//!
//! Each is taken in once, when it changes, with all that can be known of it alone ([`Route::new`]). Invariants: what is here depends
//! on the objects, not on the order in which they came; a copy costs nothing and does not change with what it was copied from.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use imbl::OrdMap;

use crate::api::{
    BackendTlsPolicy, Bundle, FaultInjection, Gateway, GatewayClass, GrpcRoute, HttpRoute,
    ListenerSet, MeshPolicy, Node, ReferenceGrant, Secret, Service, StreamRoute,
};
use crate::name::NamespacedName;
use crate::route::{Route, RouteKind};

/// Kinds of objects that are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    GatewayClass,
    Gateway,
    HttpRoute,
    GrpcRoute,
    TlsRoute,
    TcpRoute,
    UdpRoute,
    ListenerSet,
    BackendTlsPolicy,
    ReferenceGrant,
    MeshPolicy,
    FaultInjection,
    Service,
    Secret,
    ConfigMap,
    Namespace,
    Node,
}

/// One object, as it is now.
#[derive(Debug, Clone)]
pub enum Object {
    GatewayClass(GatewayClass),
    Gateway(Box<Gateway>),
    HttpRoute(HttpRoute),
    GrpcRoute(GrpcRoute),
    TlsRoute(StreamRoute),
    TcpRoute(StreamRoute),
    UdpRoute(StreamRoute),
    ListenerSet(ListenerSet),
    BackendTlsPolicy(BackendTlsPolicy),
    ReferenceGrant(ReferenceGrant),
    MeshPolicy(Box<MeshPolicy>),
    FaultInjection(FaultInjection),
    Service(NamespacedName, Service),
    Secret(NamespacedName, Secret),
    /// With the authorities in it.
    ConfigMap(NamespacedName, Bundle),
    /// With its labels.
    Namespace(String, BTreeMap<String, String>),
    Node(String, Node),
}

/// See the module's promise. Clones share what they have in common.
#[derive(Debug, Clone, Default)]
pub struct Objects {
    pub(crate) classes: OrdMap<NamespacedName, Arc<GatewayClass>>,
    pub(crate) gateways: OrdMap<NamespacedName, Arc<Gateway>>,
    pub(crate) routes: OrdMap<(RouteKind, NamespacedName), Arc<Route>>,
    pub(crate) listener_sets: OrdMap<NamespacedName, Arc<ListenerSet>>,
    pub(crate) policies: OrdMap<NamespacedName, Arc<BackendTlsPolicy>>,
    pub(crate) secrets: OrdMap<NamespacedName, Arc<Secret>>,
    pub(crate) bundles: OrdMap<NamespacedName, Arc<Bundle>>,
    pub(crate) mesh_policies: OrdMap<NamespacedName, Arc<MeshPolicy>>,
    pub(crate) faults: OrdMap<NamespacedName, Arc<FaultInjection>>,
    pub(crate) grants: OrdMap<NamespacedName, Arc<ReferenceGrant>>,
    pub(crate) services: OrdMap<NamespacedName, Arc<Service>>,
    pub(crate) namespaces: OrdMap<NamespacedName, Arc<BTreeMap<String, String>>>,
    pub(crate) nodes: OrdMap<NamespacedName, Arc<Node>>,
}

impl Objects {
    /// Takes an object in, in place of what it was; returns whether anything could come of it.
    pub fn apply(&mut self, object: Object) -> bool {
        match object {
            Object::GatewayClass(new) => put(&mut self.classes, new.metadata.name.clone(), new),
            Object::Gateway(new) => put(&mut self.gateways, new.metadata.name.clone(), *new),
            Object::HttpRoute(new) => self.put_route(Route::http(new)),
            Object::GrpcRoute(new) => self.put_route(Route::grpc(new)),
            Object::TlsRoute(new) => self.put_route(Route::stream(RouteKind::Tls, new)),
            Object::TcpRoute(new) => self.put_route(Route::stream(RouteKind::Tcp, new)),
            Object::UdpRoute(new) => self.put_route(Route::stream(RouteKind::Udp, new)),
            Object::ListenerSet(new) => {
                put(&mut self.listener_sets, new.metadata.name.clone(), new)
            }
            Object::BackendTlsPolicy(new) => {
                put(&mut self.policies, new.metadata.name.clone(), new)
            }
            Object::Secret(name, new) => put(&mut self.secrets, name, new),
            Object::ConfigMap(name, new) => put(&mut self.bundles, name, new),
            Object::ReferenceGrant(new) => put(&mut self.grants, new.metadata.name.clone(), new),
            Object::MeshPolicy(new) => {
                put(&mut self.mesh_policies, new.metadata.name.clone(), *new)
            }
            Object::FaultInjection(new) => put(&mut self.faults, new.metadata.name.clone(), new),
            Object::Service(name, new) => put(&mut self.services, name, new),
            Object::Namespace(name, labels) => {
                put(&mut self.namespaces, NamespacedName::cluster(name), labels)
            }
            Object::Node(name, new) => put(&mut self.nodes, NamespacedName::cluster(name), new),
        }
    }

    fn put_route(&mut self, route: Route) -> bool {
        let key = (route.kind, route.metadata.name.clone());
        if self.routes.get(&key).is_some_and(|known| **known == route) {
            return false;
        }
        self.routes.insert(key, Arc::new(route));
        true
    }

    /// Forgets an object; returns whether it was there.
    pub fn delete(&mut self, kind: Kind, name: &NamespacedName) -> bool {
        match kind {
            Kind::GatewayClass => self.classes.remove(name).is_some(),
            Kind::Gateway => self.gateways.remove(name).is_some(),
            Kind::HttpRoute => self.delete_route(RouteKind::Http, name),
            Kind::GrpcRoute => self.delete_route(RouteKind::Grpc, name),
            Kind::TlsRoute => self.delete_route(RouteKind::Tls, name),
            Kind::TcpRoute => self.delete_route(RouteKind::Tcp, name),
            Kind::UdpRoute => self.delete_route(RouteKind::Udp, name),
            Kind::ListenerSet => self.listener_sets.remove(name).is_some(),
            Kind::BackendTlsPolicy => self.policies.remove(name).is_some(),
            Kind::Secret => self.secrets.remove(name).is_some(),
            Kind::ConfigMap => self.bundles.remove(name).is_some(),
            Kind::ReferenceGrant => self.grants.remove(name).is_some(),
            Kind::MeshPolicy => self.mesh_policies.remove(name).is_some(),
            Kind::FaultInjection => self.faults.remove(name).is_some(),
            Kind::Service => self.services.remove(name).is_some(),
            Kind::Namespace => self.namespaces.remove(name).is_some(),
            Kind::Node => self.nodes.remove(name).is_some(),
        }
    }

    fn delete_route(&mut self, kind: RouteKind, name: &NamespacedName) -> bool {
        self.routes.remove(&(kind, name.clone())).is_some()
    }

    fn route_names(&self, kind: RouteKind) -> Vec<NamespacedName> {
        let all = self.routes.keys().filter(|(of, _)| *of == kind);
        all.map(|(_, name)| name.clone()).collect()
    }

    /// Forgets all objects of a kind but these, after a new list of them; returns whether there were any.
    pub fn retain(&mut self, kind: Kind, listed: &BTreeSet<NamespacedName>) -> bool {
        let mut gone = self.names(kind);
        gone.retain(|name| !listed.contains(name));
        for name in &gone {
            self.delete(kind, name);
        }
        !gone.is_empty()
    }

    /// Names of the objects of a kind, in order.
    #[must_use]
    pub fn names(&self, kind: Kind) -> Vec<NamespacedName> {
        match kind {
            Kind::GatewayClass => self.classes.keys().cloned().collect(),
            Kind::Gateway => self.gateways.keys().cloned().collect(),
            Kind::HttpRoute => self.route_names(RouteKind::Http),
            Kind::GrpcRoute => self.route_names(RouteKind::Grpc),
            Kind::TlsRoute => self.route_names(RouteKind::Tls),
            Kind::TcpRoute => self.route_names(RouteKind::Tcp),
            Kind::UdpRoute => self.route_names(RouteKind::Udp),
            Kind::ListenerSet => self.listener_sets.keys().cloned().collect(),
            Kind::BackendTlsPolicy => self.policies.keys().cloned().collect(),
            Kind::Secret => self.secrets.keys().cloned().collect(),
            Kind::ConfigMap => self.bundles.keys().cloned().collect(),
            Kind::ReferenceGrant => self.grants.keys().cloned().collect(),
            Kind::MeshPolicy => self.mesh_policies.keys().cloned().collect(),
            Kind::FaultInjection => self.faults.keys().cloned().collect(),
            Kind::Service => self.services.keys().cloned().collect(),
            Kind::Namespace => self.namespaces.keys().cloned().collect(),
            Kind::Node => self.nodes.keys().cloned().collect(),
        }
    }

    /// Whether nothing but routes and Services is otherwise. Clones that were not changed are known to be the same; what was put back as it was
    /// may not be.
    pub(crate) fn has_same_but_routes_and_services(&self, other: &Self) -> bool {
        let Self {
            classes,
            gateways,
            routes: _,
            listener_sets,
            policies,
            secrets,
            bundles,
            mesh_policies,
            faults,
            grants,
            services: _,
            namespaces,
            nodes,
        } = self;
        classes.ptr_eq(&other.classes)
            && gateways.ptr_eq(&other.gateways)
            && listener_sets.ptr_eq(&other.listener_sets)
            && policies.ptr_eq(&other.policies)
            && secrets.ptr_eq(&other.secrets)
            && bundles.ptr_eq(&other.bundles)
            && mesh_policies.ptr_eq(&other.mesh_policies)
            && faults.ptr_eq(&other.faults)
            && grants.ptr_eq(&other.grants)
            && namespaces.ptr_eq(&other.namespaces)
            && nodes.ptr_eq(&other.nodes)
    }

    /// Whether a grant lets objects of a kind of the Gateway API in the namespace `from` refer to a core object of kind `what`.
    pub(crate) fn grants(&self, kind: &str, from: &str, what: &str, name: &NamespacedName) -> bool {
        let first = NamespacedName::new(name.namespace.as_str(), "");
        let mut grants = self
            .grants
            .range(first..)
            .take_while(|(grant, _)| grant.namespace == name.namespace);
        grants.any(|(_, grant)| {
            let from_here = grant.spec.from.iter().any(|who| {
                who.group == crate::api::GROUP && who.kind == kind && who.namespace == from
            });
            let to_it = grant.spec.to.iter().any(|to| {
                let named = to.name.as_deref().filter(|name| !name.is_empty());
                matches!(&*to.group, "" | "core")
                    && to.kind == what
                    && named.is_none_or(|named| named == name.name)
            });
            from_here && to_it
        })
    }
}

fn put<T: PartialEq>(
    map: &mut OrdMap<NamespacedName, Arc<T>>,
    name: NamespacedName,
    new: T,
) -> bool {
    if map.get(&name).is_some_and(|known| **known == new) {
        return false;
    }
    map.insert(name, Arc::new(new));
    true
}
