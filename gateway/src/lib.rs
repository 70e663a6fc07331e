//! The Gateway API, compiled: from objects to what the data plane serves and to what their statuses say, in one pass.
//!
//! [`Objects`] holds GatewayClasses, Gateways, ListenerSets, HTTPRoutes, GRPCRoutes, BackendTLSPolicies and ReferenceGrants, weft's own
//! MeshPolicies and FaultInjections (`mesh_policies.rs`, to `resilience.rs`; of routes `route_policies.rs`), and of Services,
//! Secrets, ConfigMaps, Namespaces and Nodes what matters to them; [`compile`] makes a [`Compiled`] of it. The controllers publish its
//! statuses, every node serves its routes.
//!
//! ```text
//! watch → api.rs → objects.rs, route.rs: once for each change of an object
//!                  └► compile.rs: ours.rs (addresses.rs · listeners.rs · certificates.rs) → attach.rs (hostname.rs · precedence.rs · backends.rs · policies.rs)
//!                                 ─► served.rs → weft_mesh      status.rs → weft_controllers
//!     compiler.rs: what is served, when a few routes changed
//! ```
//! Invariants: equal objects give an equal result, in whatever order they came; a route is served where its status says that it is
//! accepted, and nowhere else; nothing that is not understood is skipped. No clock, no I/O.
//! Left to others: matching requests and filtering them (`weft_mesh`), writing statuses (`weft_controllers`).

mod addresses;
pub mod api;
mod attach;
mod backends;
mod certificates;
mod compile;
mod compiler;
mod duration;
mod features;
mod hostname;
mod listeners;
mod mesh_policies;
mod name;
mod objects;
mod ours;
mod policies;
mod precedence;
mod resilience;
mod route;
mod route_policies;
mod rule;
mod served;
mod session;
mod status;
mod streams;

pub use certificates::Wanted;
pub use compile::{Compiled, compile};
pub use compiler::Compiler;
pub use duration::UNLIMITED;
pub use features::{FEATURES, MESH_FEATURES};
pub use hostname::{HostPattern, effective_hosts};
pub use mesh_policies::FaultStatus;
pub use name::NamespacedName;
pub use objects::{Kind, Object, Objects};
pub use resilience::{
    Account, Across, Breaker, Concurrency, Fault, LimitedBy, RateLimit, Resilience, RetryBudget,
};
pub use route::{Route, RouteKind};
pub use rule::{
    Allowed, Backend, BackendTarget, BackendTls, Carried, CertificateName, Cors, Filter,
    HeaderChange, Match, Mirror, Origin, PathChange, PathMatch, Pattern, Protocol, Redirect, Retry,
    Rewrite, Rule, Session,
};
pub use served::{
    AttachedRoute, ClientValidation, Front, FrontTls, HostRoutes, Served, ServiceRoutes,
};
pub use status::{
    AncestorStatus, Condition, GatewayStatus, ListenerSetStatus, ListenerStatus, ParentStatus,
    RouteStatus,
};
pub use streams::{
    PortStreams, ServiceStreams, StreamFront, StreamListener, StreamProtocol, StreamRoute,
};
