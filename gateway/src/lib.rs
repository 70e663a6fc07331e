//! The Gateway API, compiled: from objects to what the data plane serves and to what their statuses say, in one pass.
//!
//! [`Objects`] holds GatewayClasses, Gateways, HTTPRoutes and ReferenceGrants, and of Services, Namespaces and Nodes what matters
//! to them; [`compile`] makes a [`Compiled`] of it. The controllers publish its statuses, every node serves its routes.
//!
//! ```text
//! watch → api.rs → objects.rs, route.rs: once for each change of an object
//!                  └► compile.rs: listeners.rs · hostname.rs ─► served.rs → weft_mesh      status.rs → weft_controllers
//! ```
//! Invariants: equal objects give an equal result, in whatever order they came; a route is served where its status says that it is
//! accepted, and nowhere else; nothing that is not understood is skipped. No clock, no I/O.
//! Left to others: matching requests and filtering them (`weft_mesh`), writing statuses (`weft_controllers`).

pub mod api;
mod compile;
mod duration;
mod features;
mod hostname;
mod listeners;
mod name;
mod objects;
mod route;
mod rule;
mod served;
mod status;

pub use compile::{Compiled, compile};
pub use duration::UNLIMITED;
pub use features::FEATURES;
pub use hostname::{HostPattern, effective_hosts};
pub use name::NamespacedName;
pub use objects::{Kind, Object, Objects};
pub use route::Route;
pub use rule::{
    Backend, BackendTarget, Filter, HeaderChange, Match, PathChange, PathMatch, Redirect, Rewrite,
    Rule,
};
pub use served::{AttachedRoute, HostRoutes, Served, ServiceRoutes};
pub use status::{Condition, GatewayStatus, ListenerStatus, ParentStatus, RouteStatus};
