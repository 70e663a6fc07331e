//! A route at one of its parents: whether it is accepted there, for which hosts, and what of it is served. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use crate::api::{GROUP, ParentReference};
use crate::backends::Resolving;
use crate::hostname::{HostPattern, effective_hosts};
use crate::listeners::{Judged, Nodes};
use crate::name::NamespacedName;
use crate::objects::Objects;
use crate::ours::{Gateways, OurGateway};
use crate::policies::Policies;
use crate::precedence::KeptPorts;
use crate::route::{Route, RouteKind};
use crate::route_policies::RoutePolicies;
use crate::rule::{BackendTarget, Rule};
use crate::served::{AttachedRoute, Cell, HostRoutes, Served};
use crate::status::{Condition, Refusal};
use crate::streams::{StreamProtocol, StreamRoute};

/// A route at one parent.
pub(crate) struct Attachment<'o> {
    pub(crate) route: &'o Arc<Route>,
    pub(crate) parent: &'o ParentReference,
    pub(crate) place: Place<'o>,
    /// Why the parent does not take it.
    refusal: Option<Refusal>,
}

pub(crate) enum Place<'o> {
    Gateway {
        ours: &'o OurGateway<'o>,
        /// Listeners that the parentRef means and that allow the route, served or not.
        selected: Vec<usize>,
        /// Of those that are served.
        claims: Vec<Claim>,
    },
    Service {
        service: NamespacedName,
        /// The one that the parentRef names.
        port: Option<u16>,
        /// All that it means.
        ports: Vec<u16>,
    },
}

/// A host of a listener.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Claim {
    listener: HostPattern,
    host: HostPattern,
    /// At the port that all Gateways share: the listener's, where that is also the node's.
    shared_port: Option<u16>,
    is_shared: bool,
    port: u16,
}

pub(crate) enum Attached<'o> {
    To(Box<Attachment<'o>>),
    /// There is no such Gateway.
    Missing(NamespacedName),
    /// Of another controller, or of a kind that others know.
    NotOurs,
}

pub(crate) fn attach<'o>(
    route: &'o Arc<Route>,
    parent: &'o ParentReference,
    gateways: &'o Gateways<'o>,
    objects: &'o Objects,
    nodes: &Nodes,
) -> Attached<'o> {
    let group = parent.group.as_deref().unwrap_or(GROUP);
    let kind = parent.kind.as_deref().unwrap_or("Gateway");
    let own = &route.metadata.name.namespace;
    let namespace = parent.namespace.as_ref().unwrap_or(own);
    let name = NamespacedName::new(namespace.as_str(), parent.name.as_str());
    let to_gateway = |ours: &'o OurGateway<'o>, rank: usize| {
        attach_to_gateway(route, parent, ours, rank, objects, nodes)
    };
    let (place, refusal) = match (group, kind) {
        (GROUP, "Gateway") => match gateways.by_name.get(&name) {
            Some(ours) => to_gateway(ours, 0),
            None if objects.gateways.contains_key(&name) => return Attached::NotOurs,
            None => return Attached::Missing(name),
        },
        (GROUP, "ListenerSet") => {
            let Some((gateway, rank)) = gateways.sets.get(&name) else {
                return Attached::NotOurs;
            };
            match gateways.by_name.get(*gateway) {
                Some(ours) => to_gateway(ours, *rank),
                None => return Attached::NotOurs,
            }
        }
        ("" | "core", "Service") => attach_to_service(route.kind, parent, name, objects),
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
    rank: usize,
    objects: &Objects,
    nodes: &Nodes,
) -> (Place<'o>, Option<Refusal>) {
    let namespace = &route.metadata.name.namespace;
    let is_meant = |judged: &Judged<'_>| {
        let listener = judged.listener;
        let section = parent.section_name.as_ref();
        section.is_none_or(|name| *name == listener.name)
            && parent.port.is_none_or(|port| port == listener.port)
    };
    let all = ours.listeners_of(rank);
    let meant: Vec<(usize, &Judged<'_>)> = all.filter(|(_, one)| is_meant(one)).collect();
    let allowed = meant
        .iter()
        .filter(|(_, one)| one.takes(route.kind) && one.admits(objects, namespace));
    let allowed: Vec<(usize, &Judged<'_>)> = allowed.copied().collect();
    let selected = allowed
        .iter()
        .map(|(index, one)| {
            let hosts = effective_hosts(&one.hostname, &route.hostnames);
            (*index, *one, hosts)
        })
        .filter(|(_, _, hosts)| !hosts.is_empty());
    let selected: Vec<(usize, &Judged<'_>, Vec<HostPattern>)> = selected.collect();
    let mut claims = Vec::new();
    for (_, judged, hosts) in &selected {
        if judged.refusal.is_none() && ours.refusal.is_none() {
            let port = judged.listener.port;
            claims.extend(hosts.iter().map(|host| Claim {
                listener: judged.hostname.clone(),
                host: host.clone(),
                shared_port: nodes.ports.contains(&port).then_some(port),
                is_shared: judged.is_shared,
                port,
            }));
        }
    }
    claims.sort();
    claims.dedup();
    let refusal = if meant.is_empty() {
        let listeners = ours.listeners_of(rank);
        let names: Vec<&str> = listeners
            .map(|(_, one)| one.listener.name.as_str())
            .collect();
        let message = match (ours.refuses_set(rank), rank) {
            (Some(refusal), _) => format!("The ListenerSet is not accepted: {}", refusal.message),
            (None, 0) => format!(
                "The gateway has no such listener; it has {}.",
                names.join(", ")
            ),
            (None, _) => format!("The set has no such listener; it has {}.", names.join(", ")),
        };
        Some(Refusal::new("NoMatchingParent", message))
    } else if allowed.is_empty() {
        let message = match meant.iter().any(|(_, one)| one.takes(route.kind)) {
            true => format!("No listener allows routes of namespace {namespace}."),
            false => format!("No listener allows {}s.", route.kind),
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
    kind: RouteKind,
    parent: &ParentReference,
    service: NamespacedName,
    objects: &Objects,
) -> (Place<'o>, Option<Refusal>) {
    let meant = meant_ports(kind, parent, &service, objects);
    let (ports, refusal) = match meant {
        Ok(ports) => (ports, None),
        Err(message) => (Vec::new(), Some(Refusal::new("NoMatchingParent", message))),
    };
    let is_one = parent.port.is_some() || parent.section_name.is_some();
    let port = ports.first().copied().filter(|_| is_one);
    let place = Place::Service {
        service,
        port,
        ports,
    };
    (place, refusal)
}

/// The ports of a Service that a parentRef of a route of this kind means: at least one.
fn meant_ports(
    kind: RouteKind,
    parent: &ParentReference,
    service: &NamespacedName,
    objects: &Objects,
) -> Result<Vec<u16>, String> {
    let Some(found) = objects.services.get(service) else {
        return Err(format!("There is no Service {service}."));
    };
    if found.external_name.is_some() {
        return Err(format!(
            "Service {service} is an ExternalName: nobody is called by its name."
        ));
    }
    if found.is_headless {
        return Err(format!(
            "Service {service} is headless: its pods are called, and routes have no part in that."
        ));
    }
    let is_meant = |(name, number): &&(Option<String>, u16)| {
        let section = parent.section_name.as_ref();
        section.is_none_or(|section| name.as_ref() == Some(section))
            && parent.port.is_none_or(|port| port == *number)
    };
    let named: Vec<u16> = found
        .ports
        .iter()
        .filter(is_meant)
        .map(|(_, number)| *number)
        .collect();
    if named.is_empty() {
        return Err(format!(
            "Service {service} has no such port; it has {}.",
            found.shown_ports()
        ));
    }
    let spoken = kind.transport();
    let mut ports = named;
    ports.retain(|number| found.speaks(*number, spoken));
    // A number may stand for TCP and for UDP.
    ports.sort_unstable();
    ports.dedup();
    match ports.is_empty() {
        true => Err(format!(
            "Service {service} has no such port for {spoken}, which is what {kind}s lead on."
        )),
        false => Ok(ports),
    }
}

/// To which Gateway each host belongs at the port that all of them share.
pub(crate) struct Hosts<'o>(BTreeMap<(HostPattern, HostPattern), (i64, &'o NamespacedName)>);

/// Which of its claims an attachment keeps.
#[derive(Default)]
pub(crate) struct Kept<'o> {
    /// At the port that all Gateways share.
    shared: Vec<Claim>,
    /// Host and Gateway that it belongs to.
    lost: Vec<(HostPattern, &'o NamespacedName)>,
}

impl<'o> Hosts<'o> {
    pub(crate) fn of(attachments: &[Attachment<'o>]) -> Self {
        let mut owners: BTreeMap<(HostPattern, HostPattern), (i64, &NamespacedName)> =
            BTreeMap::new();
        for attachment in attachments {
            let Place::Gateway { ours, claims, .. } = &attachment.place else {
                continue;
            };
            for claim in claims.iter().filter(|claim| claim.is_shared) {
                let host = (claim.listener.clone(), claim.host.clone());
                let owner = owners.entry(host).or_insert_with(|| ours.age());
                *owner = (*owner).min(ours.age());
            }
        }
        Self(owners)
    }

    pub(crate) fn kept_by(&self, attachment: &Attachment<'o>) -> Kept<'o> {
        let mut kept = Kept::default();
        let Place::Gateway { ours, claims, .. } = &attachment.place else {
            return kept;
        };
        for claim in claims.iter().filter(|claim| claim.is_shared) {
            let owner = self.0.get(&(claim.listener.clone(), claim.host.clone()));
            match owner {
                Some((_, owner)) if **owner != ours.gateway.metadata.name => {
                    kept.lost.push((claim.host.clone(), *owner));
                }
                _ => kept.shared.push(claim.clone()),
            }
        }
        kept
    }
}

/// The rules of a route as its parent sees them, and what of their references does not hold.
pub(crate) struct Resolved {
    rules: Arc<[Arc<Rule>]>,
    /// For what is passed on as it comes: who is spoken to proves itself to the client.
    whole: Arc<[Arc<Rule>]>,
    faults: Vec<Refusal>,
}

impl Attachment<'_> {
    /// Of what is served, all that it may have a part in, whether or not it has.
    pub(crate) fn cells(&self) -> Vec<Cell> {
        let (ours, claims) = match &self.place {
            Place::Service { service, .. } => return vec![Cell::Service(service.clone())],
            Place::Gateway { ours, claims, .. } => (ours, claims),
        };
        let stream = self.route.kind.stream();
        let mut cells = Vec::new();
        for claim in claims {
            let (listener, host) = (&claim.listener, &claim.host);
            if claim.is_shared && stream.is_none() {
                cells.push(Cell::Shared(listener.clone(), host.clone()));
            }
            for address in &ours.own {
                let place = SocketAddr::new(*address, claim.port);
                let (listener, host) = (listener.clone(), host.clone());
                cells.push(match stream {
                    None => Cell::Front(place, listener, host),
                    Some(protocol) => Cell::Stream(protocol, place, listener, host),
                });
            }
        }
        cells
    }

    /// The Services that its rules lead to.
    pub(crate) fn services(&self) -> impl Iterator<Item = NamespacedName> + use<'_> {
        let backends = self.route.rules.iter().flat_map(|rule| &rule.backends);
        backends.filter_map(|backend| match &backend.target {
            BackendTarget::Service {
                namespace, name, ..
            } => Some(NamespacedName::new(namespace.as_str(), name.as_str())),
            BackendTarget::Invalid { .. } => None,
        })
    }

    /// Which references hold, and how what they mean is called. A route to a service goes where its callers may go themselves, so it needs no
    /// grants, and its callers prove nothing to backends but who they are.
    pub(crate) fn resolve(
        &self,
        objects: &Objects,
        policies: &Policies<'_>,
        resilience: &RoutePolicies<'_>,
    ) -> Resolved {
        let outside = match &self.place {
            Place::Gateway { ours, .. } => {
                let client = ours.client.as_ref();
                let client = client.and_then(|client| client.as_ref().ok()).cloned();
                Some((policies, client))
            }
            Place::Service { .. } => None,
        };
        let resolving = |outside| Resolving {
            objects,
            kind: self.route.kind,
            own: &self.route.metadata.name.namespace,
            needs_grants: matches!(self.place, Place::Gateway { .. }),
            outside,
            said: resilience.of_route(self.route),
        };
        let mut faults = Vec::new();
        // Datagrams prove nothing.
        let outside = outside.filter(|_| self.route.kind != RouteKind::Udp);
        let rules = self.resolved(&resolving(outside), &mut faults);
        let whole = match self.route.kind {
            RouteKind::Tls => self.resolved(&resolving(None), &mut Vec::new()),
            _ => Arc::clone(&rules),
        };
        Resolved {
            rules,
            whole,
            faults,
        }
    }

    fn resolved(&self, resolving: &Resolving<'_>, faults: &mut Vec<Refusal>) -> Arc<[Arc<Rule>]> {
        let mut is_changed = false;
        let rules = self.route.rules.iter();
        let rules: Vec<Arc<Rule>> = rules
            .map(|rule| match resolving.rule(rule, faults) {
                Some(rule) => {
                    is_changed = true;
                    Arc::new(rule)
                }
                None => Arc::clone(rule),
            })
            .collect();
        match is_changed {
            true => rules.into(),
            false => Arc::clone(&self.route.rules),
        }
    }

    /// At a Service: whose calls it leads, if not everybody's.
    pub(crate) fn callers(&self) -> Option<&str> {
        let own = &self.route.metadata.name.namespace;
        match &self.place {
            Place::Service { service, .. } => (service.namespace != *own).then_some(own.as_str()),
            Place::Gateway { .. } => None,
        }
    }

    /// Why it is not accepted at this parent, if it is not.
    fn refused(&self, kept: &Kept<'_>, ports: &KeptPorts) -> Option<Refusal> {
        if let Some(refusal) = &self.refusal {
            return Some(refusal.clone());
        }
        if ports.kept.is_empty() && !ports.lost.is_empty() {
            return Some(Refusal::new("Conflicted", self.shown_lost_ports(ports)));
        }
        if !self.is_apart() && kept.shared.is_empty() && !kept.lost.is_empty() {
            return Some(Refusal::new("HostnameConflict", shown_lost(&kept.lost)));
        }
        None
    }

    /// Whether its parent is a Gateway with addresses of its own.
    fn is_apart(&self) -> bool {
        match &self.place {
            Place::Gateway { ours, .. } => !ours.own.is_empty(),
            Place::Service { .. } => false,
        }
    }

    fn shown_lost_ports(&self, ports: &KeptPorts) -> String {
        let told = ports.lost.iter().map(|(port, winner)| {
            let own = self.route.kind;
            format!("At port {port}, {winner}s go before {own}s.")
        });
        told.collect::<Vec<_>>().join(" ")
    }

    pub(crate) fn conditions(
        &self,
        resolved: &Resolved,
        kept: &Kept<'_>,
        ports: &KeptPorts,
    ) -> Vec<Condition> {
        let route = &**self.route;
        let mut conditions = Vec::with_capacity(3);
        let dropped = || {
            let faults = route.faults.iter();
            let faults = faults.map(|(rule, why)| format!("spec.rules[{rule}]: {}", why.message));
            faults.collect::<Vec<_>>().join("; ")
        };
        conditions.push(if let Some(refusal) = self.refused(kept, ports) {
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
            if !kept.lost.is_empty() && !self.is_apart() {
                message.push(' ');
                message.push_str(&shown_lost(&kept.lost));
            }
            if !ports.lost.is_empty() {
                message.push(' ');
                message.push_str(&self.shown_lost_ports(ports));
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

    fn serve_stream(
        &self,
        protocol: StreamProtocol,
        resolved: &Resolved,
        ports: &KeptPorts,
        served: &mut Served,
    ) {
        let metadata = &self.route.metadata;
        let route = |rules: &[Arc<Rule>]| StreamRoute {
            route: metadata.name.to_string(),
            created: metadata.created,
            gateway: match &self.place {
                Place::Gateway { ours, .. } => Some(ours.gateway.metadata.name.clone()),
                Place::Service { .. } => None,
            },
            backends: rules
                .iter()
                .flat_map(|rule| &rule.backends)
                .cloned()
                .collect(),
        };
        let (ours, claims) = match &self.place {
            Place::Gateway { ours, claims, .. } => (ours, claims),
            Place::Service { service, .. } => {
                let routes = served.services.entry(service.clone()).or_default();
                let routes = Arc::make_mut(routes);
                for port in &ports.kept {
                    let new = route(&resolved.rules);
                    routes.streams.put(self.callers(), protocol, *port, new);
                }
                return;
            }
        };
        let (opened, whole) = (route(&resolved.rules), route(&resolved.whole));
        for address in &ours.own {
            for claim in claims {
                let place = (protocol, SocketAddr::new(*address, claim.port));
                let front = served.streams.entry(place).or_default();
                let listener = front.listeners.entry(claim.listener.clone()).or_default();
                let route = match (protocol, &listener.tls) {
                    (StreamProtocol::Tls, None) => &whole,
                    _ => &opened,
                };
                listener.put(claim.host.clone(), route.clone());
            }
        }
    }

    pub(crate) fn serve(
        &self,
        resolved: &Resolved,
        kept: &Kept<'_>,
        ports: &KeptPorts,
        served: &mut Served,
    ) {
        if self.refused(kept, ports).is_some() || resolved.rules.is_empty() {
            return;
        }
        if let Some(protocol) = self.route.kind.stream() {
            return self.serve_stream(protocol, resolved, ports, served);
        }
        let metadata = &self.route.metadata;
        let attached = |service_port, listener_port| AttachedRoute {
            kind: self.route.kind,
            route: metadata.name.to_string(),
            created: metadata.created,
            rules: Arc::clone(&resolved.rules),
            service_port,
            listener_port,
            gateways: match &self.place {
                Place::Gateway { ours, .. } => vec![ours.gateway.metadata.name.clone()],
                Place::Service { .. } => Vec::new(),
            },
        };
        let put = |hosts: &mut HostRoutes, claim: &Claim, new: AttachedRoute| {
            let routes = hosts.entry(claim.host.clone()).or_default();
            // By way of two parentRefs it is the same route.
            let is_same =
                |known: &AttachedRoute| (known.kind, &known.route) == (new.kind, &new.route);
            match routes.iter_mut().find(|known| is_same(known)) {
                None => routes.push(new),
                Some(known) => {
                    let gateways = new.gateways.into_iter();
                    let further: Vec<_> = gateways
                        .filter(|gateway| !known.gateways.contains(gateway))
                        .collect();
                    known.gateways.extend(further);
                }
            }
        };
        match &self.place {
            Place::Gateway { ours, claims, .. } => {
                for claim in &kept.shared {
                    let hosts = served.listeners.entry(claim.listener.clone()).or_default();
                    put(hosts, claim, attached(None, claim.shared_port));
                }
                for address in &ours.own {
                    for claim in claims {
                        let place = SocketAddr::new(*address, claim.port);
                        let front = served.fronts.entry(place).or_default();
                        let hosts = front.listeners.entry(claim.listener.clone()).or_default();
                        put(hosts, claim, attached(None, Some(claim.port)));
                    }
                }
            }
            Place::Service { service, port, .. } => {
                let routes = served.services.entry(service.clone()).or_default();
                let routes = Arc::make_mut(routes);
                let list = match self.callers() {
                    None => &mut routes.producer,
                    Some(callers) => routes.consumers.entry(callers.to_owned()).or_default(),
                };
                let named = ports.kept.iter().copied().map(Some);
                let own: Vec<Option<u16>> = match ports.lost.is_empty() {
                    true => vec![*port],
                    false => named.collect(),
                };
                for port in own {
                    let new = attached(port, None);
                    if !list.contains(&new) {
                        list.push(new);
                    }
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
