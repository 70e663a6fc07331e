//! Which listeners of a Gateway the nodes answer for, and why not the others. Pure.
//!
//! A node has one port for requests from outside, which all HTTP listeners of all Gateways share; their hostnames tell them apart.
//! So of listeners that differ by their port alone only one is served: that of the real port, else the first. The others are
//! refused as `PortUnavailable`, as two are never merged into one.

use std::collections::{BTreeMap, BTreeSet};

use weft_api::selector::LabelSelector;

use crate::api::{GROUP, Listener, RouteGroupKind};
use crate::hostname::HostPattern;
use crate::objects::Objects;
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

/// A listener of a Gateway of ours, judged.
pub(crate) struct Judged<'o> {
    pub(crate) listener: &'o Listener,
    pub(crate) hostname: HostPattern,
    pub(crate) from: FromNamespaces,
    pub(crate) supported_kinds: Vec<RouteGroupKind>,
    /// Why the nodes do not answer for it.
    pub(crate) refusal: Option<Refusal>,
    accepted: Result<(), Refusal>,
    conflict: Option<Refusal>,
    resolved: Result<(), Refusal>,
}

impl Judged<'_> {
    pub(crate) fn takes_http_routes(&self) -> bool {
        !self.supported_kinds.is_empty()
    }

    /// Whether routes of the namespace may attach to the listener of a Gateway in `own`.
    pub(crate) fn admits(&self, objects: &Objects, own: &str, namespace: &str) -> bool {
        match &self.from {
            FromNamespaces::Same => own == namespace,
            FromNamespaces::All => true,
            FromNamespaces::Nobody => false,
            FromNamespaces::Selected(selector) => {
                let name = crate::name::NamespacedName::cluster(namespace);
                let labels = objects.namespaces.get(&name);
                labels.is_some_and(|labels| selector.matches(labels))
            }
        }
    }

    /// `gateway_refused`: why nothing of its Gateway is served.
    pub(crate) fn conditions(
        &self,
        nodes: &Nodes,
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
            Condition::fails("Programmed", "Invalid", message)
        } else if nodes.count == 0 {
            Condition::fails("Programmed", "Pending", "No node is ready to listen.")
        } else {
            Condition::holds("Programmed", "Programmed", self.shown_place(nodes))
        };
        vec![accepted, conflicted, resolved, programmed]
    }

    /// Where requests for it really arrive.
    fn shown_place(&self, nodes: &Nodes) -> String {
        let wanted = self.listener.port;
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

/// Judges the listeners of one Gateway, in their order.
pub(crate) fn judge<'o>(listeners: &'o [Listener], nodes: &Nodes) -> Vec<Judged<'o>> {
    let mut judged: Vec<Judged<'o>> = listeners
        .iter()
        .enumerate()
        .map(|(index, listener)| judge_one(index, listener, listeners))
        .collect();
    let mut by_hostname: BTreeMap<&HostPattern, Vec<usize>> = BTreeMap::new();
    for (index, one) in judged.iter().enumerate() {
        if one.refusal.is_none() {
            by_hostname.entry(&one.hostname).or_default().push(index);
        }
    }
    let mut unavailable: Vec<(usize, Refusal)> = Vec::new();
    for candidates in by_hostname.values() {
        let is_real = |index: &&usize| nodes.ports.contains(&judged[**index].listener.port);
        let served = candidates.iter().find(is_real).or(candidates.first());
        let Some(served) = served.copied() else {
            continue;
        };
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
    for (index, refusal) in unavailable {
        judged[index].accepted = Err(refusal.clone());
        judged[index].refusal = Some(refusal);
    }
    judged
}

fn judge_one<'o>(index: usize, listener: &'o Listener, all: &'o [Listener]) -> Judged<'o> {
    let protocol = &listener.protocol;
    let is_supported = protocol == "HTTP";
    let (from, from_refused) = read_from(listener);
    let kinds = listener
        .allowed_routes
        .as_ref()
        .map(|allowed| &allowed.kinds);
    let kinds = kinds.map(Vec::as_slice).unwrap_or_default();
    let takes_http_routes = is_supported && (kinds.is_empty() || kinds.iter().any(is_http_route));
    let supported_kinds = takes_http_routes.then(|| RouteGroupKind {
        group: Some(GROUP.to_owned()),
        kind: "HTTPRoute".to_owned(),
    });
    let resolved = match kinds.iter().find(|kind| !is_http_route(kind)) {
        None => Ok(()),
        Some(kind) => Err(Refusal::new(
            "InvalidRouteKinds",
            format!(
                "Routes of kind {} cannot attach; HTTPRoutes can.",
                kind.kind
            ),
        )),
    };
    let conflict = conflict(index, listener, all);
    let accepted = if !is_supported {
        let message = format!("Protocol {protocol} is not supported; HTTP is.");
        Err(Refusal::new("UnsupportedProtocol", message))
    } else {
        match (from_refused, &conflict) {
            (Some(refusal), _) => Err(refusal),
            (None, Some(conflict)) => Err(conflict.clone()),
            (None, None) => Ok(()),
        }
    };
    let refusal = accepted.clone().err().or_else(|| {
        let lacks_kinds = resolved.clone().err();
        lacks_kinds.filter(|_| !takes_http_routes)
    });
    Judged {
        listener,
        hostname: HostPattern::parse(listener.hostname.as_deref().unwrap_or_default()),
        from,
        supported_kinds: supported_kinds.into_iter().collect(),
        refusal,
        accepted,
        conflict,
        resolved,
    }
}

fn is_http_route(kind: &RouteGroupKind) -> bool {
    kind.group.as_deref().unwrap_or(GROUP) == GROUP && kind.kind == "HTTPRoute"
}

fn read_from(listener: &Listener) -> (FromNamespaces, Option<Refusal>) {
    let allowed = listener.allowed_routes.as_ref();
    let Some(namespaces) = allowed.and_then(|allowed| allowed.namespaces.as_ref()) else {
        return (FromNamespaces::Same, None);
    };
    let unsupported = |why: String| {
        let message = format!("allowedRoutes.namespaces {why}; no route can attach.");
        (
            FromNamespaces::Nobody,
            Some(Refusal::new("UnsupportedValue", message)),
        )
    };
    match namespaces.from.as_deref().unwrap_or("Same") {
        "Same" => (FromNamespaces::Same, None),
        "All" => (FromNamespaces::All, None),
        "Selector" => {
            let selector = namespaces.selector.clone().unwrap_or_default();
            match LabelSelector::from_object(&selector) {
                Ok(selector) => (FromNamespaces::Selected(selector), None),
                Err(error) => unsupported(format!("has a selector that cannot be read ({error})")),
            }
        }
        other => unsupported(format!("is from {other}, which is not known")),
    }
}

/// Of listeners in conflict none is served.
fn conflict(index: usize, listener: &Listener, all: &[Listener]) -> Option<Refusal> {
    let others = || {
        let others = all
            .iter()
            .enumerate()
            .filter(move |(other, _)| *other != index);
        others
            .map(|(_, other)| other)
            .filter(move |other| other.port == listener.port)
    };
    // What can be told apart on one port: TLS by its names, datagrams from connections.
    let family = |protocol: &str| match protocol {
        "HTTP" => Some("HTTP"),
        "HTTPS" | "TLS" => Some("TLS"),
        "TCP" => Some("TCP"),
        _ => None,
    };
    let own = family(&listener.protocol);
    let excludes = |other: &&Listener| {
        let other = family(&other.protocol);
        own.is_some() && other.is_some() && own != other
    };
    if let Some(other) = others().find(excludes) {
        let message = format!(
            "Listener {} has the same port for protocol {}.",
            other.name, other.protocol
        );
        return Some(Refusal::new("ProtocolConflict", message));
    }
    let host =
        |listener: &Listener| HostPattern::parse(listener.hostname.as_deref().unwrap_or_default());
    let same =
        |other: &&Listener| other.protocol == listener.protocol && host(other) == host(listener);
    let other = others().find(same)?;
    let message = format!(
        "Listener {} has the same port, protocol and hostname.",
        other.name
    );
    Some(Refusal::new("HostnameConflict", message))
}
