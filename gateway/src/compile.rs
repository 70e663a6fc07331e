//! From objects to what is served and to what their statuses say, in one pass. Pure.
//!
//! ```text
//! classes → gateways, their listeners → routes at each parent → whose a host is, which kind a port has → what is served · statuses
//! ```
//! A route is served by a parent exactly if its status says `Accepted` there; what it asks for and does not get is answered with 500
//! and told in the same words.
//!
//! At the nodes' own addresses and port, all Gateways are served together. There a host belongs to one Gateway, the oldest that has a route
//! for it (then the first by name), and routes of another have no part in it, lest whoever may make a Gateway takes over the paths of a
//! host. At an address of its own a Gateway is alone.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use crate::api::{CONTROLLER_NAME, GatewayClass, ParentReference};
use crate::attach::{Attached, Attachment, Hosts, Place, attach};
use crate::listeners::Nodes;
use crate::mesh_policies::{FaultStatus, MeshPolicies};
use crate::name::NamespacedName;
use crate::objects::Objects;
use crate::ours::Gateways;
use crate::policies::Policies;
use crate::precedence::Precedence;
use crate::route::{Route, RouteKind};
use crate::route_policies::RoutePolicies;
use crate::served::Served;
use crate::status::{
    AncestorStatus, Condition, GatewayStatus, ListenerSetStatus, ParentStatus, RouteStatus,
};
use crate::streams::StreamProtocol;

/// Everything that objects come to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Compiled {
    pub served: Served,
    /// Conditions of the classes that are ours.
    pub classes: BTreeMap<NamespacedName, Vec<Condition>>,
    /// Of classes that are ours.
    pub gateways: BTreeMap<NamespacedName, GatewayStatus>,
    /// Of those that name a Gateway of ours.
    pub listener_sets: BTreeMap<NamespacedName, ListenerSetStatus>,
    /// Of every HTTPRoute.
    pub routes: BTreeMap<NamespacedName, RouteStatus>,
    /// Of every GRPCRoute.
    pub grpc_routes: BTreeMap<NamespacedName, RouteStatus>,
    /// Of every TLSRoute, TCPRoute and UDPRoute.
    pub tls_routes: BTreeMap<NamespacedName, RouteStatus>,
    pub tcp_routes: BTreeMap<NamespacedName, RouteStatus>,
    pub udp_routes: BTreeMap<NamespacedName, RouteStatus>,
    /// Of every BackendTLSPolicy, at the Gateways from which its Services are reached.
    pub policies: BTreeMap<NamespacedName, Vec<AncestorStatus>>,
    /// Of every MeshPolicy.
    pub mesh_policies: BTreeMap<NamespacedName, Vec<Condition>>,
    /// Of every FaultInjection.
    pub faults: BTreeMap<NamespacedName, FaultStatus>,
}

impl Compiled {
    fn routes_of(&mut self, kind: RouteKind) -> &mut BTreeMap<NamespacedName, RouteStatus> {
        match kind {
            RouteKind::Http => &mut self.routes,
            RouteKind::Grpc => &mut self.grpc_routes,
            RouteKind::Tls => &mut self.tls_routes,
            RouteKind::Tcp => &mut self.tcp_routes,
            RouteKind::Udp => &mut self.udp_routes,
        }
    }
}

/// Compiles all objects. Its cost is that of the routes times the listeners of their parents; the rules of a route were compiled
/// when it changed.
#[must_use]
pub fn compile(objects: &Objects) -> Compiled {
    let nodes = Nodes::of(objects);
    let gateways = Gateways::of(objects, &nodes);
    let mut compiled = routed(objects, &nodes, &gateways, objects.routes.values());
    let ours = |class: &&Arc<GatewayClass>| class.spec.controller_name == CONTROLLER_NAME;
    for class in objects.classes.values().filter(ours) {
        let name = class.metadata.name.clone();
        compiled.classes.insert(name, vec![class_condition(class)]);
    }
    let resilience = MeshPolicies::of(objects);
    compiled.served.resilience = resilience.served;
    compiled.mesh_policies = resilience.policies;
    compiled.faults = resilience.faults;
    compiled
}

/// What these routes come to, in the order of their kinds and names, and the Gateways with them.
pub(crate) fn routed<'o>(
    objects: &'o Objects,
    nodes: &'o Nodes,
    gateways: &'o Gateways<'o>,
    routes: impl Iterator<Item = &'o Arc<Route>>,
) -> Compiled {
    let mut compiled = Compiled::default();
    let policies = Policies::of(objects);
    let resilience = RoutePolicies::of(objects);
    announce(gateways, &mut compiled.served);

    let mut attachments: Vec<Attachment<'_>> = Vec::new();
    for route in routes {
        let (kind, name) = (route.kind, &route.metadata.name);
        let mut status = RouteStatus::default();
        for parent in declared_once(&route.parents) {
            match attach(route, parent, gateways, objects, nodes) {
                Attached::To(attachment) => attachments.push(*attachment),
                Attached::Missing(gateway) => status.missing.push(gateway),
                Attached::NotOurs => {}
            }
        }
        compiled.routes_of(kind).insert(name.clone(), status);
    }
    let hosts = Hosts::of(&attachments);
    let precedence = Precedence::of(&attachments);
    let mut attached_routes: BTreeMap<
        (&NamespacedName, usize),
        BTreeSet<(RouteKind, &NamespacedName)>,
    > = BTreeMap::new();
    let mut reached: BTreeMap<NamespacedName, BTreeSet<&NamespacedName>> = BTreeMap::new();
    for attachment in &attachments {
        let (kind, name) = (attachment.route.kind, &attachment.route.metadata.name);
        if let Place::Gateway { ours, selected, .. } = &attachment.place {
            let gateway = &ours.gateway.metadata.name;
            for index in selected {
                let routes = attached_routes.entry((gateway, *index)).or_default();
                routes.insert((kind, name));
            }
            for service in attachment.services() {
                reached.entry(service).or_default().insert(gateway);
            }
        }
        let resolved = attachment.resolve(objects, &policies, &resilience);
        let kept = hosts.kept_by(attachment);
        let ports = precedence.kept_by(attachment);
        let conditions = attachment.conditions(&resolved, &kept, &ports);
        attachment.serve(&resolved, &kept, &ports, &mut compiled.served);
        let statuses = compiled.routes_of(kind);
        let status = statuses.entry(name.clone()).or_default();
        status.parents.push(ParentStatus {
            parent: attachment.parent.clone(),
            conditions,
        });
    }
    for (name, ours) in &gateways.by_name {
        let attached = |index: usize| {
            attached_routes
                .get(&(*name, index))
                .map_or(0, BTreeSet::len)
        };
        let (status, sets) = ours.status(nodes, &attached);
        compiled.gateways.insert((*name).clone(), status);
        for (name, status) in sets {
            compiled.listener_sets.insert(name.clone(), status);
        }
    }
    compiled.policies = policies.statuses(&reached);
    compiled
}

/// A listener answers 404 for its hosts as long as it has no routes.
fn announce(gateways: &Gateways<'_>, served: &mut Served) {
    for ours in gateways.by_name.values() {
        for judged in ours.served_listeners() {
            let hostname = &judged.hostname;
            if judged.is_shared {
                served.listeners.entry(hostname.clone()).or_default();
            }
            for address in &ours.own {
                let place = SocketAddr::new(*address, judged.listener.port);
                if let Some(protocol) = StreamProtocol::of(&judged.listener.protocol) {
                    let front = served.streams.entry((protocol, place)).or_default();
                    let listener = front.listeners.entry(hostname.clone()).or_default();
                    listener.tls = judged.tls.clone();
                    continue;
                }
                let front = served.fronts.entry(place).or_default();
                front.listeners.entry(hostname.clone()).or_default();
                if let Some(tls) = &judged.tls {
                    front.tls.insert(hostname.clone(), Arc::clone(tls));
                }
            }
        }
    }
}

/// A parentRef that stands twice is one.
fn declared_once(parents: &[ParentReference]) -> impl Iterator<Item = &ParentReference> {
    let parents_once = parents.iter().enumerate();
    let parents_once = parents_once.filter(|(index, parent)| !parents[..*index].contains(parent));
    parents_once.map(|(_, parent)| parent)
}

fn class_condition(class: &GatewayClass) -> Condition {
    match class.spec.parameters_ref {
        None => Condition::holds(
            "Accepted",
            "Accepted",
            "Gateways of this class are served on every node.",
        ),
        Some(_) => Condition::fails(
            "Accepted",
            "InvalidParameters",
            "parametersRef is not supported; leave it out.",
        ),
    }
}
