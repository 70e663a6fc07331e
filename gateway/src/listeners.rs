//! Which listeners of a Gateway the nodes answer for, and why not the others. Pure.
//!
//! Where a Gateway has addresses of its own, each of its listeners is served at its port there. Besides, a node has one port for requests
//! from outside, which the HTTP listeners of all Gateways share; their hostnames tell them apart. So of listeners that differ by their
//! port alone only one is served there: that of the real port, else the first. Where there are no other addresses, the others are
//! refused as `PortUnavailable`, as two are never merged into one.
//!
//! Listeners of ListenerSets come after those of their Gateway, and lose what conflicts with one that came before.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use weft_api::selector::LabelSelector;

use crate::addresses::Pool;
use crate::api::{GROUP, GatewayTls, Listener, RouteGroupKind, RouteNamespaces};
use crate::certificates::{self, Referrer, is_own_group};
use crate::hostname::HostPattern;
use crate::name::NamespacedName;
use crate::objects::Objects;
use crate::route::RouteKind;
use crate::served::{ClientValidation, FrontTls};
use crate::status::{Condition, Refusal};

/// Most addresses that a Gateway's status may have.
const ADDRESSES_MAX: usize = 16;

/// The nodes that are ready, as far as gateways go.
pub(crate) struct Nodes {
    pub(crate) count: usize,
    /// Each once, in order.
    pub(crate) addresses: Vec<String>,
    /// Where they listen; empty while none says so.
    pub(crate) ports: BTreeSet<u16>,
    /// Of which Gateways have addresses of their own.
    pub(crate) pool: Pool,
}

impl Nodes {
    pub(crate) fn of(objects: &Objects) -> Self {
        let ready = || {
            let nodes = objects.nodes.values();
            nodes.filter(|node| node.ready_address.is_some())
        };
        let addresses: BTreeSet<&String> = ready()
            .filter_map(|node| node.ready_address.as_ref())
            .collect();
        Self {
            count: ready().count(),
            addresses: addresses.into_iter().take(ADDRESSES_MAX).cloned().collect(),
            ports: ready().filter_map(|node| node.gateway_port).collect(),
            pool: Pool::new(
                ready().flat_map(|node| node.ranges.iter().copied()),
                objects
                    .services
                    .values()
                    .flat_map(|service| service.outside.iter().copied()),
            ),
        }
    }

    /// `port 9080`, or `ports 9080 and 9081`. None while it is not known.
    pub(crate) fn shown_ports(&self) -> Option<String> {
        let ports: Vec<String> = self.ports.iter().map(u16::to_string).collect();
        match ports.as_slice() {
            [] => None,
            [one] => Some(format!("port {one}")),
            [first @ .., last] => Some(format!("ports {} and {last}", first.join(", "))),
        }
    }

    /// `1 node answers`, `3 nodes answer`.
    pub(crate) fn shown_count(&self) -> String {
        match self.count {
            1 => "1 node answers".to_owned(),
            count => format!("{count} nodes answer"),
        }
    }
}

/// Namespaces whose routes may attach.
pub(crate) enum FromNamespaces {
    Same,
    All,
    Selected(LabelSelector),
    Nobody,
}

/// Whose a listener is: the Gateway's own, or a ListenerSet's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Owner<'o> {
    /// Its place in the order of precedence; the Gateway is 0.
    pub(crate) rank: usize,
    pub(crate) name: &'o NamespacedName,
}

impl<'o> Owner<'o> {
    fn refers(self) -> Referrer<'o> {
        Referrer {
            kind: match self.rank {
                0 => "Gateway",
                _ => "ListenerSet",
            },
            namespace: &self.name.namespace,
        }
    }
}

/// A listener of a Gateway of ours, judged.
pub(crate) struct Judged<'o> {
    pub(crate) listener: &'o Listener,
    pub(crate) owner: Owner<'o>,
    pub(crate) hostname: HostPattern,
    pub(crate) from: FromNamespaces,
    pub(crate) supported_kinds: Vec<RouteGroupKind>,
    /// Why the nodes do not answer for it.
    pub(crate) refusal: Option<Refusal>,
    /// Of HTTPS, if it is served.
    pub(crate) tls: Option<Arc<FrontTls>>,
    /// It answers at the port that all Gateways share.
    pub(crate) is_shared: bool,
    accepted: Result<(), Refusal>,
    conflict: Option<Refusal>,
    resolved: Result<(), Refusal>,
}

impl Judged<'_> {
    pub(crate) fn takes(&self, kind: RouteKind) -> bool {
        self.supported_kinds
            .iter()
            .any(|known| known.kind == kind.name())
    }

    /// Whether routes of the namespace may attach to the listener.
    pub(crate) fn admits(&self, objects: &Objects, namespace: &str) -> bool {
        self.from
            .admits(objects, &self.owner.name.namespace, namespace)
    }

    /// `gateway_refused`: why nothing of its Gateway is served. `own`: the addresses that its Gateway has for itself.
    pub(crate) fn conditions(
        &self,
        nodes: &Nodes,
        own: &[IpAddr],
        gateway_refused: Option<&Refusal>,
    ) -> Vec<Condition> {
        let accepted = match &self.accepted {
            Ok(()) => Condition::holds("Accepted", "Accepted", "The listener is accepted."),
            Err(refusal) => refusal.fails("Accepted"),
        };
        let conflicted = match &self.conflict {
            None => Condition::fails("Conflicted", "NoConflicts", "No conflicts."),
            Some(refusal) => {
                Condition::holds("Conflicted", refusal.reason, refusal.message.clone())
            }
        };
        let resolved = match &self.resolved {
            Ok(()) => Condition::holds("ResolvedRefs", "ResolvedRefs", "All references hold."),
            Err(refusal) => refusal.fails("ResolvedRefs"),
        };
        let programmed = if let Some(refusal) = gateway_refused.or(self.refusal.as_ref()) {
            let message = format!("The listener is not served: {}", refusal.message);
            let is_told = |conflict: &&Refusal| {
                gateway_refused.is_none() && self.refusal.as_ref() == Some(*conflict)
            };
            let conflict = self.conflict.as_ref().filter(is_told);
            let reason = conflict.map_or("Invalid", |conflict| conflict.reason);
            Condition::fails("Programmed", reason, message)
        } else if nodes.count == 0 {
            Condition::fails("Programmed", "Pending", "No node is ready to listen.")
        } else {
            Condition::holds("Programmed", "Programmed", self.shown_place(nodes, own))
        };
        vec![accepted, conflicted, resolved, programmed]
    }

    /// Where requests for it really arrive.
    fn shown_place(&self, nodes: &Nodes, own: &[IpAddr]) -> String {
        let wanted = self.listener.port;
        if !own.is_empty() {
            let places: Vec<String> = own
                .iter()
                .map(|address| std::net::SocketAddr::new(*address, wanted).to_string())
                .collect();
            return format!("The nodes listen at {}.", places.join(", "));
        }
        match nodes.shown_ports() {
            None => "The nodes listen.".to_owned(),
            Some(ports) if nodes.ports.contains(&wanted) => format!("The nodes listen at {ports}."),
            Some(ports) => format!(
                "The nodes answer for it at {ports}, not at {wanted}: a node has one port for its gateway, \
                which its flag --gateway-port sets."
            ),
        }
    }
}

/// What listeners of one Gateway are judged by.
pub(crate) struct Judging<'o> {
    pub(crate) objects: &'o Objects,
    pub(crate) nodes: &'o Nodes,
    pub(crate) tls: Option<&'o GatewayTls>,
    /// Of the Gateway, for references to authorities.
    pub(crate) gateway: &'o NamespacedName,
    /// Whether the Gateway has addresses of its own.
    pub(crate) has_own: bool,
}

/// Judges all listeners of one Gateway, in their order.
pub(crate) fn judge<'o>(
    listeners: &[(Owner<'o>, &'o Listener)],
    judging: &Judging<'_>,
) -> Vec<Judged<'o>> {
    let standing = conflicts(listeners);
    let mut judged: Vec<Judged<'o>> = listeners
        .iter()
        .zip(standing)
        .map(|((owner, listener), conflict)| judge_one(*owner, listener, conflict, judging))
        .collect();
    let nodes = judging.nodes;
    let mut by_hostname: BTreeMap<&HostPattern, Vec<usize>> = BTreeMap::new();
    for (index, one) in judged.iter().enumerate() {
        if one.refusal.is_none() && one.listener.protocol == "HTTP" {
            by_hostname.entry(&one.hostname).or_default().push(index);
        }
    }
    let mut shared: Vec<usize> = Vec::new();
    let mut unavailable: Vec<(usize, Refusal)> = Vec::new();
    for candidates in by_hostname.values() {
        let is_real = |index: &&usize| nodes.ports.contains(&judged[**index].listener.port);
        let served = candidates.iter().find(is_real).or(candidates.first());
        let Some(served) = served.copied() else {
            continue;
        };
        shared.push(served);
        let winner = judged[served].listener;
        for index in candidates.iter().copied().filter(|index| *index != served) {
            let message = format!(
                "Port {} is not available: all listeners answer at the one port that a node's gateway has, and listener {} \
                (port {}) answers there for the same hosts; only another hostname tells them apart.",
                judged[index].listener.port, winner.name, winner.port
            );
            unavailable.push((index, Refusal::new("PortUnavailable", message)));
        }
    }
    for index in shared {
        judged[index].is_shared = true;
    }
    for (index, refusal) in unavailable {
        if !judging.has_own {
            judged[index].accepted = Err(refusal.clone());
            judged[index].refusal = Some(refusal);
        }
    }
    judged
}

/// What can be attached to a listener of a protocol; nothing of one that is not served.
fn kinds_of(protocol: &str, has_own: bool) -> &'static [&'static str] {
    match protocol {
        "HTTP" => &["HTTPRoute", "GRPCRoute"],
        "HTTPS" if has_own => &["HTTPRoute", "GRPCRoute"],
        // Bytes have no host that would tell Gateways apart at an address that they share.
        "TLS" if has_own => &["TLSRoute"],
        "TCP" if has_own => &["TCPRoute"],
        "UDP" if has_own => &["UDPRoute"],
        _ => &[],
    }
}

fn judge_one<'o>(
    owner: Owner<'o>,
    listener: &'o Listener,
    conflict: Option<Refusal>,
    judging: &Judging<'_>,
) -> Judged<'o> {
    let protocol = &listener.protocol;
    let known = kinds_of(protocol, judging.has_own);
    let (from, from_refused) = FromNamespaces::of_routes(listener);
    let asked = listener
        .allowed_routes
        .as_ref()
        .map(|allowed| &allowed.kinds);
    let asked = asked.map(Vec::as_slice).unwrap_or_default();
    let is_known = |kind: &RouteGroupKind| {
        is_own_group(kind.group.as_deref()) && known.contains(&kind.kind.as_str())
    };
    let supported_kinds: Vec<RouteGroupKind> = known
        .iter()
        .filter(|kind| {
            let mut asked_known = asked.iter().filter(|asked| is_known(asked));
            asked.is_empty() || asked_known.any(|asked| asked.kind == **kind)
        })
        .map(|kind| RouteGroupKind {
            group: Some(GROUP.to_owned()),
            kind: (*kind).to_owned(),
        })
        .collect();
    let mut resolved = match asked.iter().find(|kind| !is_known(kind)) {
        None => Ok(()),
        Some(kind) => Err(Refusal::new(
            "InvalidRouteKinds",
            format!(
                "Routes of kind {} cannot attach; {} can.",
                kind.kind,
                match known {
                    [] => "none".to_owned(),
                    known => known
                        .iter()
                        .map(|kind| format!("{kind}s"))
                        .collect::<Vec<_>>()
                        .join(" and "),
                }
            ),
        )),
    };
    let mut accepted = if let (None, Some(conflict)) = (&from_refused, &conflict) {
        Err(conflict.clone())
    } else if known.is_empty() {
        let others = if judging.has_own {
            "HTTP, HTTPS, TLS, TCP and UDP are"
        } else {
            "HTTP is"
        };
        let message = format!("Protocol {protocol} is not supported; {others}.");
        Err(Refusal::new("UnsupportedProtocol", message))
    } else {
        from_refused.map_or(Ok(()), Err)
    };
    let mut tls = None;
    let is_passed = protocol == "TLS" && is_passed_through(listener);
    let has_tls = matches!(protocol.as_str(), "HTTPS" | "TLS") && !is_passed;
    if has_tls && !known.is_empty() {
        let front = front_tls(owner, listener, judging);
        if let Some(refusal) = front.unresolved {
            resolved = resolved.and(Err(refusal));
        }
        if let Some(refusal) = front.refused {
            accepted = accepted.and(Err(refusal));
        }
        tls = front.tls;
    }
    let lacks_tls = has_tls && tls.is_none();
    let refusal = accepted.clone().err().or_else(|| {
        let unresolved = resolved.clone().err();
        unresolved.filter(|_| supported_kinds.is_empty() || lacks_tls)
    });
    Judged {
        listener,
        owner,
        hostname: HostPattern::parse(listener.hostname.as_deref().unwrap_or_default()),
        from,
        supported_kinds,
        refusal,
        tls,
        is_shared: false,
        accepted,
        conflict,
        resolved,
    }
}

fn is_passed_through(listener: &Listener) -> bool {
    let mode = listener.tls.as_ref().and_then(|tls| tls.mode.as_deref());
    mode == Some("Passthrough")
}

/// What came of what a listener says of TLS.
#[derive(Default)]
struct Front {
    tls: Option<Arc<FrontTls>>,
    /// A reference that does not hold.
    unresolved: Option<Refusal>,
    /// Why it cannot be served at all.
    refused: Option<Refusal>,
}

fn front_tls(owner: Owner<'_>, listener: &Listener, judging: &Judging<'_>) -> Front {
    let mut front = Front::default();
    let tls = listener.tls.clone().unwrap_or_default();
    if tls.mode.as_deref().unwrap_or("Terminate") != "Terminate" {
        let message = "HTTPS cannot be passed through; a TLS listener can.";
        front.refused = Some(Refusal::new("UnsupportedValue", message));
        return front;
    }
    let mut certificates = Vec::new();
    for reference in &tls.certificate_refs {
        let found = certificates::key_pair(
            owner.refers(),
            reference,
            "InvalidCertificateRef",
            judging.objects,
        );
        match found {
            Ok(pair) => certificates.push(pair),
            Err(refusal) => {
                front.unresolved.get_or_insert(refusal);
            }
        }
    }
    if tls.certificate_refs.is_empty() {
        let protocol = &listener.protocol;
        let message = format!(
            "A listener of {protocol} that terminates needs a certificate, and tls.certificateRefs names none."
        );
        front.unresolved = Some(Refusal::new("InvalidCertificateRef", message));
    }
    let validation = judging.tls.and_then(|tls| tls.validation(listener.port));
    let clients = validation.map(|validation| {
        let gateway = Referrer {
            kind: "Gateway",
            namespace: &judging.gateway.namespace,
        };
        let (roots, wrong) = certificates::client_roots(gateway, validation, judging.objects);
        if let Some(wrong) = wrong {
            if roots.is_empty() {
                let message = format!("No authority of clients is to be had: {}", wrong.message);
                front.refused = Some(Refusal::new("NoValidCACertificate", message));
            }
            front.unresolved = Some(wrong);
        }
        ClientValidation {
            roots,
            falls_back: validation.falls_back(),
        }
    });
    if !certificates.is_empty() && front.refused.is_none() {
        front.tls = Some(Arc::new(FrontTls {
            certificates,
            clients,
        }));
    }
    front
}

impl FromNamespaces {
    fn of_routes(listener: &Listener) -> (Self, Option<Refusal>) {
        let allowed = listener.allowed_routes.as_ref();
        let namespaces = allowed.and_then(|allowed| allowed.namespaces.as_ref());
        match namespaces.map(|namespaces| Self::read(namespaces, "Same")) {
            None => (Self::Same, None),
            Some(Ok(from)) => (from, None),
            Some(Err(why)) => {
                let message = format!("allowedRoutes.namespaces {why}; no route can attach.");
                (
                    Self::Nobody,
                    Some(Refusal::new("UnsupportedValue", message)),
                )
            }
        }
    }

    /// `usual` is what counts where nothing is said. The error is the end of a sentence.
    pub(crate) fn read(namespaces: &RouteNamespaces, usual: &str) -> Result<Self, String> {
        match namespaces.from.as_deref().unwrap_or(usual) {
            "Same" => Ok(Self::Same),
            "All" => Ok(Self::All),
            "None" => Ok(Self::Nobody),
            "Selector" => {
                let selector = namespaces.selector.clone().unwrap_or_default();
                let selector = LabelSelector::from_object(&selector);
                let bad = |error| format!("has a selector that cannot be read ({error})");
                selector.map(Self::Selected).map_err(bad)
            }
            other => Err(format!("is from {other}, which is not known")),
        }
    }

    /// Whether they are `namespace`, where `own` is that of who admits.
    pub(crate) fn admits(&self, objects: &Objects, own: &str, namespace: &str) -> bool {
        match self {
            FromNamespaces::Same => own == namespace,
            FromNamespaces::All => true,
            FromNamespaces::Nobody => false,
            FromNamespaces::Selected(selector) => {
                let name = NamespacedName::cluster(namespace);
                let labels = objects.namespaces.get(&name);
                labels.is_some_and(|labels| selector.matches(labels))
            }
        }
    }
}

/// What is against each listener: of those of one owner that are in conflict none is served, and what came before, and is served, goes before
/// all of them. What lost to that is in nobody's way.
fn conflicts(all: &[(Owner<'_>, &Listener)]) -> Vec<Option<Refusal>> {
    let mut found: Vec<Option<Refusal>> = vec![None; all.len()];
    let ranks: BTreeSet<usize> = all.iter().map(|(owner, _)| owner.rank).collect();
    for rank in ranks {
        for against_own in [false, true] {
            let standing: Vec<bool> = found.iter().map(Option::is_none).collect();
            for (index, (_, listener)) in all.iter().enumerate() {
                if all[index].0.rank != rank || !standing[index] {
                    continue;
                }
                let others = all.iter().enumerate().filter(|(other, (whose, _))| {
                    let is_meant = match against_own {
                        true => whose.rank == rank,
                        false => whose.rank < rank,
                    };
                    is_meant && *other != index && standing[*other]
                });
                let others: Vec<&Listener> = others.map(|(_, (_, other))| *other).collect();
                found[index] = conflict(listener, &others);
            }
        }
    }
    found
}

fn conflict(listener: &Listener, others: &[&Listener]) -> Option<Refusal> {
    let at_port = || others.iter().filter(|other| other.port == listener.port);
    // What can be told apart on one port: TLS by its names, datagrams from connections.
    let family = |protocol: &str| match protocol {
        "HTTP" => Some("HTTP"),
        "HTTPS" | "TLS" => Some("TLS"),
        "TCP" => Some("TCP"),
        _ => None,
    };
    let host =
        |listener: &Listener| HostPattern::parse(listener.hostname.as_deref().unwrap_or_default());
    let own = family(&listener.protocol);
    let excludes = |other: &&&Listener| {
        let is_apart = match family(&other.protocol) {
            Some("TLS") if own == Some("TLS") => {
                other.protocol == listener.protocol || host(other) != host(listener)
            }
            other => own.is_none() || other.is_none() || own == other,
        };
        !is_apart
    };
    if let Some(other) = at_port().find(excludes) {
        let hostname = match family(&other.protocol) == own {
            true => " and hostname",
            false => "",
        };
        let message = format!(
            "Listener {} has the same port{hostname} for protocol {}.",
            other.name, other.protocol
        );
        return Some(Refusal::new("ProtocolConflict", message));
    }
    let same =
        |other: &&&Listener| other.protocol == listener.protocol && host(other) == host(listener);
    let other = at_port().find(same)?;
    let message = format!(
        "Listener {} has the same port, protocol and hostname.",
        other.name
    );
    Some(Refusal::new("HostnameConflict", message))
}
