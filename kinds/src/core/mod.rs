//! The group without a name, `v1`.

mod componentstatus;
mod configmap;
mod data;
mod endpoints;
mod event;
mod limitrange;
mod namespace;
mod node;
pub(crate) mod persistentvolume;
pub(crate) mod persistentvolumeclaim;
pub(crate) mod pod;
mod podtemplate;
pub(crate) mod replicationcontroller;
mod resourcequota;
mod secret;
mod service;
mod serviceaccount;

pub use componentstatus::COMPONENT_STATUS;
pub use configmap::CONFIG_MAP;
pub use endpoints::ENDPOINTS;
pub use event::{EVENT, EVENT_V1};
pub use limitrange::LIMIT_RANGE;
pub use namespace::{NAMESPACE, PERMANENT_NAMESPACES};
pub use node::NODE;
pub use persistentvolume::PERSISTENT_VOLUME;
pub use persistentvolumeclaim::PERSISTENT_VOLUME_CLAIM;
pub use pod::POD;
pub use podtemplate::POD_TEMPLATE;
pub use replicationcontroller::REPLICATION_CONTROLLER;
pub use resourcequota::RESOURCE_QUOTA;
pub use secret::SECRET;
pub use service::{
    ADDRESS_MANAGED_BY, ADDRESS_MANAGER, SERVICE, ServiceRange, address_claim, held_address,
};
pub use serviceaccount::SERVICE_ACCOUNT;
