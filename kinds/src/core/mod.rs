//! The group without a name, `v1`.

mod configmap;
mod data;
mod event;
mod namespace;
mod node;
pub(crate) mod pod;
mod secret;
mod service;
mod serviceaccount;

pub use configmap::CONFIG_MAP;
pub use event::{EVENT, EVENT_V1};
pub use namespace::{NAMESPACE, PERMANENT_NAMESPACES};
pub use node::NODE;
pub use pod::POD;
pub use secret::SECRET;
pub use service::{SERVICE, ServiceRange};
pub use serviceaccount::SERVICE_ACCOUNT;
