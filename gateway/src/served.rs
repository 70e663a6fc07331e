//! What the data plane serves: routes by listener and host, and by the service they are attached to.
//!
//! Equal values are equal routing: lists are in order of the routes' names, precedence is the data plane's to find.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use imbl::OrdMap;

use crate::api::KeyPair;
use crate::hostname::HostPattern;
use crate::name::NamespacedName;
use crate::resilience::Resilience;
use crate::route::RouteKind;
use crate::rule::Rule;
use crate::streams::{ServiceStreams, StreamFront, StreamProtocol};

/// All routes that have effect.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Served {
    /// At the one port that each node has for all Gateways, by the hostname of a listener; one without routes answers 404 for its hosts.
    pub listeners: BTreeMap<HostPattern, HostRoutes>,
    /// At addresses that Gateways have for themselves, by address and port.
    pub fronts: BTreeMap<SocketAddr, Front>,
    /// The same of what is no HTTP.
    pub streams: BTreeMap<(StreamProtocol, SocketAddr), StreamFront>,
    pub services: OrdMap<NamespacedName, Arc<ServiceRoutes>>,
    /// How calls to Services are made and taken, of those of whom a policy says something.
    pub resilience: OrdMap<NamespacedName, Arc<Resilience>>,
}

/// A part of what is served that depends on no other: it is made of the routes that want to be in it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Cell {
    /// The routes of a Service.
    Service(NamespacedName),
    /// At the port that all Gateways share, by the hostname of a listener: those of a host.
    Shared(HostPattern, HostPattern),
    /// The same at a place that a Gateway has for itself.
    Front(SocketAddr, HostPattern, HostPattern),
    Stream(StreamProtocol, SocketAddr, HostPattern, HostPattern),
}

impl Cell {
    /// The host that it is for, at a listener.
    pub(crate) fn host(&self) -> Option<&HostPattern> {
        match self {
            Cell::Service(_) => None,
            Cell::Shared(_, host) | Cell::Front(_, _, host) | Cell::Stream(_, _, _, host) => {
                Some(host)
            }
        }
    }
}

impl Served {
    /// Makes a part what it is in `other`. Which listeners there are has to be the same in both.
    pub(crate) fn take(&mut self, cell: Cell, other: &Self) {
        match cell {
            Cell::Service(name) => {
                match other.services.get(&name) {
                    Some(routes) => self.services.insert(name, Arc::clone(routes)),
                    None => self.services.remove(&name),
                };
            }
            Cell::Shared(listener, host) => {
                let new = other.listeners.get(&listener);
                let new = new.and_then(|hosts| hosts.get(&host)).cloned();
                put(self.listeners.get_mut(&listener), host, new);
            }
            Cell::Front(place, listener, host) => {
                let new = other.fronts.get(&place);
                let new = new.and_then(|front| front.listeners.get(&listener)?.get(&host));
                let hosts = self.fronts.get_mut(&place);
                let hosts = hosts.and_then(|front| front.listeners.get_mut(&listener));
                put(hosts, host, new.cloned());
            }
            Cell::Stream(protocol, place, listener, host) => {
                let at = (protocol, place);
                let new = other.streams.get(&at);
                let new = new.and_then(|front| front.listeners.get(&listener)?.hosts.get(&host));
                let hosts = self.streams.get_mut(&at);
                let hosts = hosts.and_then(|front| front.listeners.get_mut(&listener));
                put(
                    hosts.map(|listener| &mut listener.hosts),
                    host,
                    new.cloned(),
                );
            }
        }
    }
}

fn put<V>(hosts: Option<&mut BTreeMap<HostPattern, V>>, host: HostPattern, new: Option<V>) {
    match (hosts, new) {
        (Some(hosts), Some(new)) => hosts.insert(host, new),
        (Some(hosts), None) => hosts.remove(&host),
        (None, _) => None,
    };
}

/// The listeners of one address and port, by hostname.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Front {
    pub listeners: BTreeMap<HostPattern, HostRoutes>,
    /// Of HTTPS: what listeners show and ask for. Empty: it is plain HTTP.
    pub tls: BTreeMap<HostPattern, Arc<FrontTls>>,
}

/// What a listener shows its clients, and what it asks them for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FrontTls {
    /// At least one; the first that is for the name that is asked for, else the first.
    pub certificates: Vec<Arc<KeyPair>>,
    pub clients: Option<ClientValidation>,
}

/// Who may be a client.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientValidation {
    /// In DER.
    pub roots: Vec<Vec<u8>>,
    /// Clients without a certificate, and with one of others, are let in.
    pub falls_back: bool,
}

/// Routes of a listener, by the hosts that they and the listener have in common.
pub type HostRoutes = BTreeMap<HostPattern, Vec<AttachedRoute>>;

/// Routes of a Service. They replace the way straight to its endpoints.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServiceRoutes {
    /// Of the service's own namespace, for every caller.
    pub producer: Vec<AttachedRoute>,
    /// Of other namespaces, for callers there.
    pub consumers: BTreeMap<String, Vec<AttachedRoute>>,
    /// What leads streams and datagrams on. A port for the same callers has these or those.
    pub streams: ServiceStreams,
}

/// A route at one of its parents.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AttachedRoute {
    pub kind: RouteKind,
    /// `namespace/name`.
    pub route: String,
    /// Seconds since the epoch; the older route wins a tie, then the smaller name.
    pub created: i64,
    pub rules: Arc<[Arc<Rule>]>,
    /// At a service: for calls to this port only.
    pub service_port: Option<u16>,
    /// At a listener: its port, where the nodes really have that. Redirects name it.
    pub listener_port: Option<u16>,
    /// At a listener: the Gateways whose it is. They are several where a route is attached to more than one that have the host at the port that they share.
    pub gateways: Vec<NamespacedName>,
}
