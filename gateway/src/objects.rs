//! The objects that statuses and routes are made from, kept up to date one by one.
//!
//! Each is taken in once, when it changes, with all that can be known of it alone ([`Route::new`]). Invariants: what is here depends
//! on the objects, not on the order in which they came; a copy costs nothing and does not change with what it was copied from.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use imbl::OrdMap;

use crate::api::{Gateway, GatewayClass, HttpRoute, Node, ReferenceGrant, Service};
use crate::name::NamespacedName;
use crate::route::Route;

/// Kinds of objects that are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    GatewayClass,
    Gateway,
    HttpRoute,
    ReferenceGrant,
    Service,
    Namespace,
    Node,
}

/// One object, as it is now.
#[derive(Debug, Clone)]
pub enum Object {
    GatewayClass(GatewayClass),
    Gateway(Gateway),
    HttpRoute(HttpRoute),
    ReferenceGrant(ReferenceGrant),
    Service(NamespacedName, Service),
    /// With its labels.
    Namespace(String, BTreeMap<String, String>),
    Node(String, Node),
}

/// See the module's promise. Clones share what they have in common.
#[derive(Debug, Clone, Default)]
pub struct Objects {
    pub(crate) classes: OrdMap<NamespacedName, Arc<GatewayClass>>,
    pub(crate) gateways: OrdMap<NamespacedName, Arc<Gateway>>,
    pub(crate) routes: OrdMap<NamespacedName, Arc<Route>>,
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
            Object::Gateway(new) => put(&mut self.gateways, new.metadata.name.clone(), new),
            Object::HttpRoute(new) => {
                let known = self.routes.get(&new.metadata.name);
                if known.is_some_and(|known| known.object == new) {
                    return false;
                }
                let name = new.metadata.name.clone();
                self.routes.insert(name, Arc::new(Route::new(new)));
                true
            }
            Object::ReferenceGrant(new) => put(&mut self.grants, new.metadata.name.clone(), new),
            Object::Service(name, new) => put(&mut self.services, name, new),
            Object::Namespace(name, labels) => {
                put(&mut self.namespaces, NamespacedName::cluster(name), labels)
            }
            Object::Node(name, new) => put(&mut self.nodes, NamespacedName::cluster(name), new),
        }
    }

    /// Forgets an object; returns whether it was there.
    pub fn delete(&mut self, kind: Kind, name: &NamespacedName) -> bool {
        match kind {
            Kind::GatewayClass => self.classes.remove(name).is_some(),
            Kind::Gateway => self.gateways.remove(name).is_some(),
            Kind::HttpRoute => self.routes.remove(name).is_some(),
            Kind::ReferenceGrant => self.grants.remove(name).is_some(),
            Kind::Service => self.services.remove(name).is_some(),
            Kind::Namespace => self.namespaces.remove(name).is_some(),
            Kind::Node => self.nodes.remove(name).is_some(),
        }
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
            Kind::HttpRoute => self.routes.keys().cloned().collect(),
            Kind::ReferenceGrant => self.grants.keys().cloned().collect(),
            Kind::Service => self.services.keys().cloned().collect(),
            Kind::Namespace => self.namespaces.keys().cloned().collect(),
            Kind::Node => self.nodes.keys().cloned().collect(),
        }
    }

    /// Whether a grant lets HTTPRoutes of `from` refer to the service.
    pub(crate) fn grants_service(&self, from: &str, service: &NamespacedName) -> bool {
        let first = NamespacedName::new(service.namespace.as_str(), "");
        let mut grants = self
            .grants
            .range(first..)
            .take_while(|(name, _)| name.namespace == service.namespace);
        grants.any(|(_, grant)| {
            let from_here = grant.spec.from.iter().any(|who| {
                who.group == crate::api::GROUP && who.kind == "HTTPRoute" && who.namespace == from
            });
            let to_it = grant.spec.to.iter().any(|what| {
                let named = what.name.as_deref().filter(|name| !name.is_empty());
                matches!(&*what.group, "" | "core")
                    && what.kind == "Service"
                    && named.is_none_or(|name| name == service.name)
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
