//! Gateways of classes that are ours, with the ListenerSets that add to them, and what is said of both. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use crate::addresses::{Given, parsed};
use crate::api::{CONTROLLER_NAME, Gateway, GatewayClass, KeyPair, Listener, ListenerSet};
use crate::certificates::{Referrer, is_own_group, key_pair};
use crate::listeners::{FromNamespaces, Judged, Judging, Nodes, Owner, judge};
use crate::name::NamespacedName;
use crate::objects::Objects;
use crate::status::{Condition, GatewayStatus, ListenerSetStatus, ListenerStatus, Refusal};

pub(crate) struct Gateways<'o> {
    pub(crate) by_name: BTreeMap<&'o NamespacedName, OurGateway<'o>>,
    /// To which Gateway of ours a ListenerSet adds, and at which place in its order.
    pub(crate) sets: BTreeMap<&'o NamespacedName, (&'o NamespacedName, usize)>,
}

/// A Gateway of a class that is ours.
pub(crate) struct OurGateway<'o> {
    pub(crate) gateway: &'o Gateway,
    /// Its own, then those of its sets.
    pub(crate) listeners: Vec<Judged<'o>>,
    sets: Vec<OurSet<'o>>,
    /// Why nothing of it is served.
    pub(crate) refusal: Option<Refusal>,
    /// Addresses that it has for itself; none: it answers at those of the nodes.
    pub(crate) own: Vec<IpAddr>,
    /// What it shows to backends, if it says so.
    pub(crate) client: Option<Result<Arc<KeyPair>, Refusal>>,
}

/// A ListenerSet that names a Gateway of ours.
struct OurSet<'o> {
    set: &'o ListenerSet,
    /// Why nothing of it is looked at.
    refusal: Option<Refusal>,
}

impl<'o> Gateways<'o> {
    pub(crate) fn of(objects: &'o Objects, nodes: &'o Nodes) -> Self {
        let ours = objects.gateways.values().filter_map(|gateway| {
            let class = NamespacedName::cluster(gateway.spec.gateway_class_name.as_str());
            let class = objects.classes.get(&class)?;
            (class.spec.controller_name == CONTROLLER_NAME).then_some((gateway, class))
        });
        let ours: Vec<(&'o Arc<Gateway>, &'o Arc<GatewayClass>)> = ours.collect();
        let given = nodes.pool.give(ours.iter().map(|(gateway, _)| *gateway));
        let mut sets_of: BTreeMap<NamespacedName, Vec<&'o ListenerSet>> = BTreeMap::new();
        for set in objects.listener_sets.values() {
            let parent = &set.spec.parent_ref;
            let is_gateway = is_own_group(parent.group.as_deref())
                && parent.kind.as_deref().unwrap_or("Gateway") == "Gateway";
            if is_gateway {
                let own = &set.metadata.name.namespace;
                let namespace = parent.namespace.as_ref().unwrap_or(own);
                let gateway = NamespacedName::new(namespace.as_str(), parent.name.as_str());
                sets_of.entry(gateway).or_default().push(set);
            }
        }
        for sets in sets_of.values_mut() {
            sets.sort_by_key(|set| (set.metadata.created, &set.metadata.name));
        }
        let mut gateways = Self {
            by_name: BTreeMap::new(),
            sets: BTreeMap::new(),
        };
        for (gateway, class) in ours {
            let name = &gateway.metadata.name;
            let sets = sets_of.remove(name).unwrap_or_default();
            for (set, rank) in sets.iter().zip(1..) {
                gateways.sets.insert(&set.metadata.name, (name, rank));
            }
            let ours = OurGateway::of(gateway, class, &sets, &given, objects, nodes);
            gateways.by_name.insert(name, ours);
        }
        gateways
    }
}

impl<'o> OurGateway<'o> {
    fn of(
        gateway: &'o Gateway,
        class: &GatewayClass,
        sets: &[&'o ListenerSet],
        given: &Given<'_>,
        objects: &'o Objects,
        nodes: &'o Nodes,
    ) -> Self {
        let name = &gateway.metadata.name;
        let own = given.get(name).cloned().unwrap_or_default();
        let sets = sets.iter().map(|set| OurSet {
            set,
            refusal: Self::refuses(gateway, set, objects),
        });
        let sets: Vec<OurSet<'o>> = sets.collect();
        let owner = Owner { rank: 0, name };
        let mut listeners: Vec<(Owner<'o>, &'o Listener)> = gateway
            .spec
            .listeners
            .iter()
            .map(|listener| (owner, listener))
            .collect();
        for (ours, rank) in sets.iter().zip(1..) {
            let name = &ours.set.metadata.name;
            let owner = Owner { rank, name };
            if ours.refusal.is_none() {
                let all = ours.set.spec.listeners.iter();
                listeners.extend(all.map(|listener| (owner, listener)));
            }
        }
        let judging = Judging {
            objects,
            nodes,
            tls: gateway.spec.tls.as_ref(),
            gateway: name,
            has_own: !own.is_empty(),
        };
        Self {
            gateway,
            listeners: judge(&listeners, &judging),
            sets,
            refusal: Self::refusal(gateway, class),
            own,
            client: Self::client(gateway, objects),
        }
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

    /// Why a ListenerSet may not add to the Gateway.
    fn refuses(gateway: &Gateway, set: &ListenerSet, objects: &Objects) -> Option<Refusal> {
        let name = &gateway.metadata.name;
        let allowed = gateway.spec.allowed_listeners.as_ref();
        let namespaces = allowed.and_then(|allowed| allowed.namespaces.as_ref());
        let from = namespaces.map(|namespaces| FromNamespaces::read(namespaces, "None"));
        let namespace = &set.metadata.name.namespace;
        match from {
            Some(Ok(from)) if from.admits(objects, &name.namespace, namespace) => None,
            Some(Err(why)) => {
                let message = format!("allowedListeners.namespaces of Gateway {name} {why}.");
                Some(Refusal::new("NotAllowed", message))
            }
            _ => {
                let message = format!("Gateway {name} allows no ListenerSets of {namespace}.");
                Some(Refusal::new("NotAllowed", message))
            }
        }
    }

    fn client(gateway: &Gateway, objects: &Objects) -> Option<Result<Arc<KeyPair>, Refusal>> {
        let tls = gateway.spec.tls.as_ref()?.backend.as_ref()?;
        let from = Referrer {
            kind: "Gateway",
            namespace: &gateway.metadata.name.namespace,
        };
        let reference = tls.client_certificate_ref.as_ref()?;
        let wrong = "InvalidClientCertificateRef";
        Some(key_pair(from, reference, wrong, objects))
    }

    pub(crate) fn served_listeners(&self) -> impl Iterator<Item = &Judged<'o>> {
        let listeners = self.listeners.iter().filter(|one| one.refusal.is_none());
        listeners.filter(|_| self.refusal.is_none())
    }

    /// The listeners of one owner, with their places in the order of all.
    pub(crate) fn listeners_of(&self, rank: usize) -> impl Iterator<Item = (usize, &Judged<'o>)> {
        let all = self.listeners.iter().enumerate();
        all.filter(move |(_, one)| one.owner.rank == rank)
    }

    /// Why the set at this place in the order is not looked at, if it is not.
    pub(crate) fn refuses_set(&self, rank: usize) -> Option<&Refusal> {
        let set = self.sets.get(rank.checked_sub(1)?)?;
        set.refusal.as_ref()
    }

    /// The older one comes first.
    pub(crate) fn age(&self) -> (i64, &'o NamespacedName) {
        (self.gateway.metadata.created, &self.gateway.metadata.name)
    }

    /// `attached`: how many routes are at the listener at a place.
    pub(crate) fn status(
        &self,
        nodes: &Nodes,
        attached: &impl Fn(usize) -> usize,
    ) -> (
        GatewayStatus,
        BTreeMap<&'o NamespacedName, ListenerSetStatus>,
    ) {
        let accepted = self.accepted();
        let programmed = self.programmed(&accepted, nodes);
        let sets = self.sets.iter().zip(1..);
        let sets: BTreeMap<&'o NamespacedName, ListenerSetStatus> = sets
            .map(|(ours, rank)| {
                let status = self.set_status(ours, rank, nodes, attached);
                (&ours.set.metadata.name, status)
            })
            .collect();
        let is_accepted = |status: &&ListenerSetStatus| {
            let first = status.conditions.first();
            first.is_some_and(|accepted| accepted.holds)
        };
        let attached_sets = sets.values().filter(is_accepted).count();
        let mut conditions = vec![accepted, programmed];
        match &self.client {
            None => {}
            Some(Ok(_)) => conditions.push(Condition::holds(
                "ResolvedRefs",
                "ResolvedRefs",
                "All references hold.",
            )),
            Some(Err(refusal)) => conditions.push(refusal.fails("ResolvedRefs")),
        }
        let tls = self.gateway.spec.tls.as_ref();
        if tls.is_some_and(crate::api::GatewayTls::falls_back) {
            conditions.push(Condition::holds(
                "InsecureFrontendValidationMode",
                "ConfigurationChanged",
                "Clients are let in whether or not they prove themselves.",
            ));
        }
        let status = GatewayStatus {
            addresses: match self.own.as_slice() {
                [] => nodes.addresses.clone(),
                own => own.iter().map(ToString::to_string).collect(),
            },
            is_apart: !self.own.is_empty(),
            listeners: self.listener_statuses(0, nodes, attached),
            conditions,
            attached_sets,
        };
        (status, sets)
    }

    fn listener_statuses(
        &self,
        rank: usize,
        nodes: &Nodes,
        attached: &impl Fn(usize) -> usize,
    ) -> Vec<ListenerStatus> {
        let listeners = self.listeners_of(rank);
        let listeners = listeners.map(|(index, judged)| ListenerStatus {
            name: judged.listener.name.clone(),
            supported_kinds: judged.supported_kinds.clone(),
            attached_routes: attached(index),
            conditions: judged.conditions(nodes, &self.own, self.refusal.as_ref()),
        });
        listeners.collect()
    }

    fn set_status(
        &self,
        ours: &OurSet<'_>,
        rank: usize,
        nodes: &Nodes,
        attached: &impl Fn(usize) -> usize,
    ) -> ListenerSetStatus {
        let both = |reason: &'static str, message: String| {
            let fails = |kind| Condition::fails(kind, reason, message.clone());
            vec![fails("Accepted"), fails("Programmed")]
        };
        if let Some(refusal) = &ours.refusal {
            return ListenerSetStatus {
                conditions: both(refusal.reason, refusal.message.clone()),
                listeners: Vec::new(),
            };
        }
        let refused = self.listeners_of(rank);
        let refused = refused.filter(|(_, one)| one.refusal.is_some());
        let names: Vec<&str> = refused.map(|(_, one)| one.listener.name.as_str()).collect();
        let count = self.listeners_of(rank).count();
        let shown = || {
            let (few, names) = (names.len(), names.join(", "));
            format!("{few} of {count} listeners are not valid: {names}.")
        };
        let conditions = if let Some(refusal) = &self.refusal {
            let message = format!("Its Gateway is not accepted: {}", refusal.message);
            both("ParentNotAccepted", message)
        } else if names.len() == count {
            both("ListenersNotValid", shown())
        } else {
            let accepted = match names.is_empty() {
                true => Condition::holds("Accepted", "Accepted", "The listeners are accepted."),
                false => Condition::holds("Accepted", "ListenersNotValid", shown()),
            };
            let programmed = match nodes.count {
                0 => Condition::fails("Programmed", "Pending", "No node is ready to listen."),
                _ => Condition::holds("Programmed", "Programmed", "The nodes listen."),
            };
            vec![accepted, programmed]
        };
        ListenerSetStatus {
            conditions,
            listeners: self.listener_statuses(rank, nodes, attached),
        }
    }

    fn accepted(&self) -> Condition {
        if let Some(refusal) = &self.refusal {
            return refusal.fails("Accepted");
        }
        let refused = self.listeners_of(0);
        let refused = refused.filter(|(_, one)| one.refusal.is_some());
        let names: Vec<&str> = refused.map(|(_, one)| one.listener.name.as_str()).collect();
        if names.is_empty() {
            return Condition::holds("Accepted", "Accepted", "The gateway is accepted.");
        }
        let count = self.listeners_of(0).count();
        let message = format!(
            "{} of {count} listeners are not valid: {}.",
            names.len(),
            names.join(", ")
        );
        match names.len() < count {
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
        let is_there = |value: &str| {
            let wanted = parsed(value);
            let nodes = || nodes.addresses.iter().filter_map(|address| parsed(address));
            wanted.is_some_and(|wanted| match self.own.as_slice() {
                [] => nodes().any(|address| address == wanted),
                own => own.contains(&wanted),
            })
        };
        if let Some(other) = asked.find(|value| !is_there(value)) {
            let message = match nodes.pool.is_empty() {
                true => format!("No node has the address {other}."),
                false => format!("The address {other} is not to be had."),
            };
            return Condition::fails("Programmed", "AddressNotUsable", message);
        }
        let places = match self.own.as_slice() {
            [] => nodes.shown_ports(),
            own => {
                let own: Vec<String> = own.iter().map(ToString::to_string).collect();
                Some(own.join(", "))
            }
        };
        let message = match places {
            Some(places) => format!("{} at {places}.", nodes.shown_count()),
            None => format!("{}.", nodes.shown_count()),
        };
        Condition::holds("Programmed", "Programmed", message)
    }
}
