//! What the data plane serves: routes by listener and host, and by the service they are attached to.
//!
//! Equal values are equal routing: lists are in order of the routes' names, precedence is the data plane's to find.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::hostname::HostPattern;
use crate::name::NamespacedName;
use crate::rule::Rule;

/// All routes that have effect.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Served {
    /// By the hostname of a listener; one without routes answers 404 for its hosts.
    pub listeners: BTreeMap<HostPattern, HostRoutes>,
    pub services: BTreeMap<NamespacedName, ServiceRoutes>,
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
}

/// A route at one of its parents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttachedRoute {
    /// `namespace/name`.
    pub route: String,
    /// Seconds since the epoch; the older route wins a tie, then the smaller name.
    pub created: i64,
    pub rules: Arc<[Arc<Rule>]>,
    /// At a service: for calls to this port only.
    pub service_port: Option<u16>,
    /// At a listener: its port, where the nodes really have that. Redirects name it.
    pub listener_port: Option<u16>,
}
