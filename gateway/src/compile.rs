//! From objects to what is served and to what their statuses say, in one pass. Pure.
//!
//! ```text
//! classes → gateways, their listeners → routes at each parent → whose a host is → what is served · statuses
//! ```
//! A route is served by a parent exactly if its status says `Accepted` there; what it asks for and does not get is answered with 500
//! and told in the same words.
//!
//! All Gateways share the nodes' addresses and port. So a host belongs to one Gateway, the oldest that has a route for it (then the
//! first by name), and routes of another have no part in it, lest whoever may make a Gateway takes over the paths of a host.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::api::{CONTROLLER_NAME, GROUP, Gateway, GatewayClass, ParentReference};
use crate::hostname::{HostPattern, effective_hosts};
use crate::listeners::{Judged, Nodes, judge};
use crate::name::NamespacedName;
use crate::objects::Objects;
use crate::route::Route;
use crate::rule::{Backend, BackendTarget, Filter, Rule};
use crate::served::{AttachedRoute, Served};
use crate::status::{Condition, GatewayStatus, ListenerStatus, ParentStatus, Refusal, RouteStatus};

/// Everything that objects come to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Compiled {
    pub served: Served,
    /// Conditions of the classes that are ours.
    pub classes: BTreeMap<NamespacedName, Vec<Condition>>,
    /// Of classes that are ours.
    pub gateways: BTreeMap<NamespacedName, GatewayStatus>,
    /// Of every route.
    pub routes: BTreeMap<NamespacedName, RouteStatus>,
}

/// Compiles all objects. Its cost is that of the routes times the listeners of their parents; the rules of a route were compiled
/// when it changed.
#[must_use]
pub fn compile(objects: &Objects) -> Compiled {
    let nodes = Nodes::of(objects);
    let mut compiled = Compiled::default();
    let ours = |class: &&Arc<GatewayClass>| class.spec.controller_name == CONTROLLER_NAME;
    for class in objects.classes.values().filter(ours) {
        let name = class.metadata.name.clone();
        compiled.classes.insert(name, vec![class_condition(class)]);
    }
    let gateways: Vec<OurGateway<'_>> = objects
        .gateways
        .values()
        .filter_map(|gateway| OurGateway::of(gateway, objects, &nodes))
        .collect();
    let gateways = Gateways {
        by_name: gateways
            .iter()
            .map(|ours| (&ours.gateway.metadata.name, ours))
            .collect(),
        objects,
        ports: &nodes.ports,
    };
    // A listener answers 404 for its hosts as long as it has no routes.
    for ours in gateways.by_name.values() {
        for judged in ours.served_listeners() {
            let listeners = &mut compiled.served.listeners;
            listeners.entry(judged.hostname.clone()).or_default();
        }
    }

    let mut attachments: Vec<Attachment<'_>> = Vec::new();
    for (name, route) in &objects.routes {
        let mut status = RouteStatus::default();
        for parent in declared_once(&route.object.spec.parent_refs) {
            match attach(route, parent, &gateways) {
                Attached::To(attachment) => attachments.push(*attachment),
                Attached::Missing(gateway) => status.missing.push(gateway),
                Attached::NotOurs => {}
            }
        }
        compiled.routes.insert(name.clone(), status);
    }
    let hosts = Hosts::of(&attachments);
    let mut attached_routes: BTreeMap<(&NamespacedName, usize), BTreeSet<&NamespacedName>> =
        BTreeMap::new();
    for attachment in attachments {
        if let Place::Gateway { ours, selected, .. } = &attachment.place {
            for index in selected {
                let gateway = &ours.gateway.metadata.name;
                let routes = attached_routes.entry((gateway, *index)).or_default();
                routes.insert(&attachment.route.object.metadata.name);
            }
        }
        let resolved = attachment.resolve(objects);
        let kept = hosts.kept_by(&attachment);
        let conditions = attachment.conditions(&resolved, &kept);
        attachment.serve(&resolved, &kept, &mut compiled.served);
        let name = &attachment.route.object.metadata.name;
        let status = compiled.routes.entry(name.clone()).or_default();
        status.parents.push(ParentStatus {
            parent: attachment.parent.clone(),
            conditions,
        });
    }
    for ours in gateways.by_name.values() {
        let name = &ours.gateway.metadata.name;
        let attached = |index: usize| attached_routes.get(&(name, index)).map_or(0, BTreeSet::len);
        let status = ours.status(&nodes, attached);
        compiled.gateways.insert(name.clone(), status);
    }
    compiled
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

// === Gateways ===

struct Gateways<'o> {
    by_name: BTreeMap<&'o NamespacedName, &'o OurGateway<'o>>,
    objects: &'o Objects,
    /// At which the nodes listen.
    ports: &'o BTreeSet<u16>,
}

/// A Gateway of a class that is ours.
struct OurGateway<'o> {
    gateway: &'o Gateway,
    listeners: Vec<Judged<'o>>,
    /// Why nothing of it is served.
    refusal: Option<Refusal>,
}

impl<'o> OurGateway<'o> {
    fn of(gateway: &'o Gateway, objects: &Objects, nodes: &Nodes) -> Option<Self> {
        let class = NamespacedName::cluster(gateway.spec.gateway_class_name.as_str());
        let class = objects.classes.get(&class)?;
        if class.spec.controller_name != CONTROLLER_NAME {
            return None;
        }
        Some(Self {
            gateway,
            listeners: judge(&gateway.spec.listeners, nodes),
            refusal: Self::refusal(gateway, class),
        })
    }

    fn refusal(gateway: &Gateway, class: &GatewayClass) -> Option<Refusal> {
        if class.spec.parameters_ref.is_some() {
            let message = format!("GatewayClass {} is not accepted.", class.metadata.name);
            return Some(Refusal::new("Pending", message));
        }
        let infrastructure = gateway.spec.infrastructure.as_ref();
        if infrastructure.is_some_and(|infrastructure| infrastructure.parameters_ref.is_some()) {
            let message = "infrastructure.parametersRef is not supported; leave it out.";
            return Some(Refusal::new("InvalidParameters", message));
        }
        let mut addresses = gateway.spec.addresses.iter();
        let other = addresses.find_map(|address| {
            let kind = address.kind.as_deref().unwrap_or("IPAddress");
            (kind != "IPAddress").then_some(kind)
        })?;
        let message = format!("Addresses of type {other} are not supported; IPAddress is.");
        Some(Refusal::new("UnsupportedAddress", message))
    }

    fn served_listeners(&self) -> impl Iterator<Item = &Judged<'o>> {
        let listeners = self.listeners.iter().filter(|one| one.refusal.is_none());
        listeners.filter(|_| self.refusal.is_none())
    }

    /// The older one comes first.
    fn age(&self) -> (i64, &'o NamespacedName) {
        (self.gateway.metadata.created, &self.gateway.metadata.name)
    }

    fn status(&self, nodes: &Nodes, attached: impl Fn(usize) -> usize) -> GatewayStatus {
        let listeners = self.listeners.iter().enumerate();
        let listeners = listeners.map(|(index, judged)| ListenerStatus {
            name: judged.listener.name.clone(),
            supported_kinds: judged.supported_kinds.clone(),
            attached_routes: attached(index),
            conditions: judged.conditions(nodes, self.refusal.as_ref()),
        });
        let accepted = self.accepted();
        let programmed = self.programmed(&accepted, nodes);
        GatewayStatus {
            addresses: nodes.addresses.clone(),
            listeners: listeners.collect(),
            conditions: vec![accepted, programmed],
        }
    }

    fn accepted(&self) -> Condition {
        if let Some(refusal) = &self.refusal {
            return refusal.fails("Accepted");
        }
        let refused = self.listeners.iter().filter(|one| one.refusal.is_some());
        let names: Vec<&str> = refused.map(|one| one.listener.name.as_str()).collect();
        if names.is_empty() {
            return Condition::holds("Accepted", "Accepted", "The gateway is accepted.");
        }
        let message = format!(
            "{} of {} listeners are not valid: {}.",
            names.len(),
            self.listeners.len(),
            names.join(", ")
        );
        match names.len() < self.listeners.len() {
            true => Condition::holds("Accepted", "ListenersNotValid", message),
            false => Condition::fails("Accepted", "ListenersNotValid", message),
        }
    }

    fn programmed(&self, accepted: &Condition, nodes: &Nodes) -> Condition {
        if nodes.addresses.is_empty() {
            let message = "No node is ready to listen.";
            return Condition::fails("Programmed", "AddressNotAssigned", message);
        }
        if !accepted.holds {
            return Condition::fails("Programmed", "Invalid", accepted.message.clone());
        }
        let asked = self.gateway.spec.addresses.iter();
        let mut asked = asked.filter_map(|address| address.value.as_deref());
        let usable = |value: &str| nodes.addresses.iter().any(|address| address == value);
        if let Some(other) = asked.find(|value| !usable(value)) {
            let message = format!("No node has the address {other}.");
            return Condition::fails("Programmed", "AddressNotUsable", message);
        }
        let message = match nodes.shown_ports() {
            Some(ports) => format!("{} at {ports}.", nodes.shown_count()),
            None => format!("{}.", nodes.shown_count()),
        };
        Condition::holds("Programmed", "Programmed", message)
    }
}

// === Routes ===

/// A route at one parent.
struct Attachment<'o> {
    route: &'o Arc<Route>,
    parent: &'o ParentReference,
    place: Place<'o>,
    /// Why the parent does not take it.
    refusal: Option<Refusal>,
}

enum Place<'o> {
    Gateway {
        ours: &'o OurGateway<'o>,
        /// Listeners that the parentRef means and that allow the route, served or not.
        selected: Vec<usize>,
        /// Hostname of a listener and host, of those that are served.
        claims: Vec<Claim>,
    },
    Service {
        service: NamespacedName,
        port: Option<u16>,
    },
}

/// A host of a listener.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Claim {
    listener: HostPattern,
    host: HostPattern,
    listener_port: Option<u16>,
}

enum Attached<'o> {
    To(Box<Attachment<'o>>),
    /// There is no such Gateway.
    Missing(NamespacedName),
    /// Of another controller, or of a kind that others know.
    NotOurs,
}

fn attach<'o>(
    route: &'o Arc<Route>,
    parent: &'o ParentReference,
    gateways: &Gateways<'o>,
) -> Attached<'o> {
    let group = parent.group.as_deref().unwrap_or(GROUP);
    let kind = parent.kind.as_deref().unwrap_or("Gateway");
    let own = &route.object.metadata.name.namespace;
    let namespace = parent.namespace.as_ref().unwrap_or(own);
    let name = NamespacedName::new(namespace.as_str(), parent.name.as_str());
    let (place, refusal) = match (group, kind) {
        (GROUP, "Gateway") => match gateways.by_name.get(&name) {
            Some(ours) => attach_to_gateway(route, parent, ours, gateways),
            None if gateways.objects.gateways.contains_key(&name) => return Attached::NotOurs,
            None => return Attached::Missing(name),
        },
        ("" | "core", "Service") => attach_to_service(parent, name, gateways.objects),
        _ => return Attached::NotOurs,
    };
    Attached::To(Box::new(Attachment {
        route,
        parent,
        place,
        refusal,
    }))
}

/// The furthest refusal is the one told.
fn attach_to_gateway<'o>(
    route: &Route,
    parent: &ParentReference,
    ours: &'o OurGateway<'o>,
    gateways: &Gateways<'_>,
) -> (Place<'o>, Option<Refusal>) {
    let own = &ours.gateway.metadata.name.namespace;
    let (namespace, hostnames) = (
        &route.object.metadata.name.namespace,
        &route.object.spec.hostnames,
    );
    let is_meant = |judged: &Judged<'_>| {
        let listener = judged.listener;
        let section = parent.section_name.as_ref();
        section.is_none_or(|name| *name == listener.name)
            && parent.port.is_none_or(|port| port == listener.port)
    };
    let all = ours.listeners.iter().enumerate();
    let meant: Vec<(usize, &Judged<'_>)> = all.filter(|(_, one)| is_meant(one)).collect();
    let allowed = meant
        .iter()
        .filter(|(_, one)| one.takes_http_routes() && one.admits(gateways.objects, own, namespace));
    let allowed: Vec<(usize, &Judged<'_>)> = allowed.copied().collect();
    let selected = allowed
        .iter()
        .map(|(index, one)| (*index, *one, effective_hosts(&one.hostname, hostnames)))
        .filter(|(_, _, hosts)| !hosts.is_empty());
    let selected: Vec<(usize, &Judged<'_>, Vec<HostPattern>)> = selected.collect();
    let mut claims = Vec::new();
    for (_, judged, hosts) in &selected {
        if judged.refusal.is_none() && ours.refusal.is_none() {
            let port = judged.listener.port;
            claims.extend(hosts.iter().map(|host| Claim {
                listener: judged.hostname.clone(),
                host: host.clone(),
                listener_port: gateways.ports.contains(&port).then_some(port),
            }));
        }
    }
    claims.sort();
    claims.dedup_by(|a, b| (&a.listener, &a.host) == (&b.listener, &b.host));
    let refusal = if meant.is_empty() {
        let listeners = ours.listeners.iter();
        let names: Vec<&str> = listeners.map(|one| one.listener.name.as_str()).collect();
        let message = format!(
            "The gateway has no such listener; it has {}.",
            names.join(", ")
        );
        Some(Refusal::new("NoMatchingParent", message))
    } else if allowed.is_empty() {
        let message = match meant.iter().any(|(_, one)| one.takes_http_routes()) {
            true => format!("No listener allows routes of namespace {namespace}."),
            false => "No listener allows HTTPRoutes.".to_owned(),
        };
        Some(Refusal::new("NotAllowedByListeners", message))
    } else if selected.is_empty() {
        let message = "No listener has a hostname in common with the route.";
        Some(Refusal::new("NoMatchingListenerHostname", message))
    } else if claims.is_empty() {
        let of_listener = selected.iter().find_map(|(_, one, _)| one.refusal.as_ref());
        let why = ours.refusal.as_ref().or(of_listener);
        let why = why.map_or("", |refusal| refusal.message.as_str());
        let message = format!("No listener that allows the route is served: {why}");
        Some(Refusal::new("NoReadyListeners", message))
    } else {
        None
    };
    let selected = selected.into_iter().map(|(index, _, _)| index).collect();
    let place = Place::Gateway {
        ours,
        selected,
        claims,
    };
    (place, refusal)
}

fn attach_to_service<'o>(
    parent: &ParentReference,
    service: NamespacedName,
    objects: &Objects,
) -> (Place<'o>, Option<Refusal>) {
    let found = objects.services.get(&service);
    let none = |message: String| Err(Refusal::new("NoMatchingParent", message));
    let port = match found {
        None => none(format!("There is no Service {service}.")),
        Some(found) if found.external_name.is_some() => none(format!(
            "Service {service} is an ExternalName: nobody is called by its name."
        )),
        Some(found) if found.is_headless => none(format!(
            "Service {service} is headless: its pods are called, and routes have no part in that."
        )),
        Some(found) => {
            let meant = |(name, number): &&(Option<String>, u16)| {
                let section = parent.section_name.as_ref();
                section.is_none_or(|section| name.as_ref() == Some(section))
                    && parent.port.is_none_or(|port| port == *number)
            };
            match found.ports.iter().find(meant) {
                Some(_) if parent.section_name.is_none() => Ok(parent.port),
                Some((_, number)) => Ok(Some(*number)),
                None => none(format!(
                    "Service {service} has no such port; it has {}.",
                    found.shown_ports()
                )),
            }
        }
    };
    let (port, refusal) = match port {
        Ok(port) => (port, None),
        Err(refusal) => (None, Some(refusal)),
    };
    (Place::Service { service, port }, refusal)
}

/// To which Gateway each host belongs.
struct Hosts<'o>(BTreeMap<(HostPattern, HostPattern), (i64, &'o NamespacedName)>);

/// Which of its claims an attachment keeps.
#[derive(Default)]
struct Kept<'o> {
    claims: Vec<Claim>,
    /// Host and Gateway that it belongs to.
    lost: Vec<(HostPattern, &'o NamespacedName)>,
}

impl<'o> Hosts<'o> {
    fn of(attachments: &[Attachment<'o>]) -> Self {
        let mut owners: BTreeMap<(HostPattern, HostPattern), (i64, &NamespacedName)> =
            BTreeMap::new();
        for attachment in attachments {
            let Place::Gateway { ours, claims, .. } = &attachment.place else {
                continue;
            };
            for claim in claims {
                let host = (claim.listener.clone(), claim.host.clone());
                let owner = owners.entry(host).or_insert_with(|| ours.age());
                *owner = (*owner).min(ours.age());
            }
        }
        Self(owners)
    }

    fn kept_by(&self, attachment: &Attachment<'o>) -> Kept<'o> {
        let mut kept = Kept::default();
        let Place::Gateway { ours, claims, .. } = &attachment.place else {
            return kept;
        };
        for claim in claims {
            let owner = self.0.get(&(claim.listener.clone(), claim.host.clone()));
            match owner {
                Some((_, owner)) if **owner != ours.gateway.metadata.name => {
                    kept.lost.push((claim.host.clone(), *owner));
                }
                _ => kept.claims.push(claim.clone()),
            }
        }
        kept
    }
}

/// The rules of a route as its parent sees them, and what of their references does not hold.
struct Resolved {
    rules: Arc<[Arc<Rule>]>,
    faults: Vec<Refusal>,
}

impl Attachment<'_> {
    /// Which references hold. A route to a service goes where its callers may go themselves, so it needs no grants.
    fn resolve(&self, objects: &Objects) -> Resolved {
        let needs_grants = matches!(self.place, Place::Gateway { .. });
        let own = &self.route.object.metadata.name.namespace;
        let mut faults = Vec::new();
        let mut closed: BTreeMap<(usize, usize), String> = BTreeMap::new();
        // What a rule that is not done refers to is no fault of a reference.
        let is_done = |rule: &Rule| !matches!(rule.filters.first(), Some(Filter::Invalid { .. }));
        let rules = self.route.rules.iter().enumerate();
        for (number, rule) in rules.filter(|(_, rule)| is_done(rule)) {
            for (position, backend) in rule.backends.iter().enumerate() {
                let (fault, is_closed) = match reference(backend, own, needs_grants, objects) {
                    Ok(()) => continue,
                    Err(fault) => fault,
                };
                if is_closed {
                    closed.insert((number, position), fault.message.clone());
                }
                faults.push(fault);
            }
        }
        if closed.is_empty() {
            let rules = Arc::clone(&self.route.rules);
            return Resolved { rules, faults };
        }
        let rules = self.route.rules.iter().enumerate().map(|(number, rule)| {
            let is_changed = closed.keys().any(|(of, _)| *of == number);
            if !is_changed {
                return Arc::clone(rule);
            }
            let mut rule = Rule::clone(rule);
            for (position, backend) in rule.backends.iter_mut().enumerate() {
                if let Some(reason) = closed.get(&(number, position)) {
                    let reason = reason.trim_end_matches('.').to_owned();
                    backend.target = BackendTarget::Invalid { reason };
                }
            }
            Arc::new(rule)
        });
        Resolved {
            rules: rules.collect(),
            faults,
        }
    }

    /// Why it is not accepted at this parent, if it is not.
    fn refused(&self, kept: &Kept<'_>) -> Option<Refusal> {
        if let Some(refusal) = &self.refusal {
            return Some(refusal.clone());
        }
        if kept.claims.is_empty() && !kept.lost.is_empty() {
            return Some(Refusal::new("HostnameConflict", shown_lost(&kept.lost)));
        }
        None
    }

    fn conditions(&self, resolved: &Resolved, kept: &Kept<'_>) -> Vec<Condition> {
        let route = &**self.route;
        let mut conditions = Vec::with_capacity(3);
        let dropped = || {
            let faults = route.faults.iter();
            let faults = faults.map(|(rule, why)| format!("spec.rules[{rule}]: {}", why.message));
            faults.collect::<Vec<_>>().join("; ")
        };
        conditions.push(if let Some(refusal) = self.refused(kept) {
            refusal.fails("Accepted")
        } else if let (true, Some((_, first))) = (route.is_refused(), route.faults.first()) {
            let message = format!(
                "{}. What the route matches is answered with 500.",
                dropped()
            );
            Condition::fails("Accepted", first.reason, message)
        } else {
            let mut message = "The route is accepted.".to_owned();
            if !route.ignored.is_empty() {
                let ignored = route.ignored.join(", ");
                message.push_str(&format!(" Not supported and without effect: {ignored}."));
            }
            if !kept.lost.is_empty() {
                message.push(' ');
                message.push_str(&shown_lost(&kept.lost));
            }
            Condition::holds("Accepted", "Accepted", message)
        });
        conditions.push(match resolved.faults.split_first() {
            None => Condition::holds("ResolvedRefs", "ResolvedRefs", "All references hold."),
            Some((first, others)) => {
                let others = others.iter().map(|fault| fault.message.as_str());
                let mut told: Vec<&str> = std::iter::once(first.message.as_str())
                    .chain(others)
                    .collect();
                let mut seen = BTreeSet::new();
                told.retain(|message| seen.insert(*message));
                Condition::fails("ResolvedRefs", first.reason, told.join(" "))
            }
        });
        if !route.faults.is_empty() && !route.is_refused() {
            let first = route
                .faults
                .first()
                .map_or("UnsupportedValue", |(_, why)| why.reason);
            let message = format!(
                "Dropped Rule {}. What it matches is answered with 500.",
                dropped()
            );
            conditions.push(Condition::holds("PartiallyInvalid", first, message));
        }
        conditions
    }

    fn serve(&self, resolved: &Resolved, kept: &Kept<'_>, served: &mut Served) {
        if self.refused(kept).is_some() || resolved.rules.is_empty() {
            return;
        }
        let metadata = &self.route.object.metadata;
        let attached = |service_port, listener_port| AttachedRoute {
            route: metadata.name.to_string(),
            created: metadata.created,
            rules: Arc::clone(&resolved.rules),
            service_port,
            listener_port,
        };
        match &self.place {
            Place::Gateway { .. } => {
                for claim in &kept.claims {
                    let hosts = served.listeners.entry(claim.listener.clone()).or_default();
                    let routes = hosts.entry(claim.host.clone()).or_default();
                    let new = attached(None, claim.listener_port);
                    // By way of two parentRefs it is the same route.
                    if routes.iter().all(|known| known.route != new.route) {
                        routes.push(new);
                    }
                }
            }
            Place::Service { service, port } => {
                let routes = served.services.entry(service.clone()).or_default();
                let is_producer = service.namespace == metadata.name.namespace;
                let list = match is_producer {
                    true => &mut routes.producer,
                    false => {
                        let callers = metadata.name.namespace.clone();
                        routes.consumers.entry(callers).or_default()
                    }
                };
                let new = attached(*port, None);
                if !list.contains(&new) {
                    list.push(new);
                }
            }
        }
    }
}

fn shown_lost(lost: &[(HostPattern, &NamespacedName)]) -> String {
    let told = lost.iter().map(|(host, owner)| {
        format!("Host {host} belongs to Gateway {owner}, which is older: all Gateways share the nodes' addresses.")
    });
    told.collect::<Vec<_>>().join(" ")
}

/// Whether a backend can be called. The flag of a fault: its share is to be answered with 500 although there may be such a service.
fn reference(
    backend: &Backend,
    own: &str,
    needs_grants: bool,
    objects: &Objects,
) -> Result<(), (Refusal, bool)> {
    let (namespace, name, port) = match &backend.target {
        BackendTarget::Service {
            namespace,
            name,
            port,
        } => (namespace, name, port),
        BackendTarget::Invalid { reason } => {
            return Err((Refusal::new("InvalidKind", sentence(reason)), false));
        }
    };
    let service = NamespacedName::new(namespace.as_str(), name.as_str());
    if needs_grants && namespace != own && !objects.grants_service(own, &service) {
        let message = format!(
            "No ReferenceGrant in {namespace} lets HTTPRoutes of {own} refer to Service {service}."
        );
        return Err((Refusal::new("RefNotPermitted", message), true));
    }
    match objects.services.get(&service) {
        None => {
            let message = format!("There is no Service {service}.");
            Err((Refusal::new("BackendNotFound", message), false))
        }
        Some(found) if found.external_name.is_some() => {
            let message =
                format!("Service {service} is an ExternalName, which routes cannot lead to.");
            Err((Refusal::new("InvalidKind", message), true))
        }
        Some(found) if !found.has_port(*port) => {
            let ports = found.shown_ports();
            let message = format!("Service {service} has no port {port}; it has {ports}.");
            Err((Refusal::new("BackendNotFound", message), false))
        }
        Some(_) => Ok(()),
    }
}

/// A reason as a sentence of its own.
fn sentence(reason: &str) -> String {
    let mut letters = reason.chars();
    let first = letters.next().map(|letter| letter.to_ascii_uppercase());
    format!(
        "{}{}.",
        first.into_iter().collect::<String>(),
        letters.as_str()
    )
}
