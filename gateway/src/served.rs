//! What the data plane serves: routes by listener and host, and by the service they are attached to.
//!
//! Equal values are equal routing: lists are in order of the routes' names, precedence is the data plane's to find.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

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
    pub services: BTreeMap<NamespacedName, ServiceRoutes>,
    /// How calls to Services are made and taken, of those of whom a policy says something.
    pub resilience: BTreeMap<NamespacedName, Arc<Resilience>>,
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
