//! `resource.k8s.io`: devices, and who claims them. Kept so that clients find it; nothing allocates devices here, which
//! whoever writes an object is told.
//!
//! Left out of the rules: expressions are not compiled (they are for an allocator to evaluate), and what only an
//! allocator writes is judged by its shape.

mod claim;
mod deviceclass;
mod devicetaintrule;
mod resourceclaim;
mod resourceclaimtemplate;
mod resourceslice;

pub use deviceclass::DEVICE_CLASS;
pub use devicetaintrule::DEVICE_TAINT_RULE;
pub use resourceclaim::RESOURCE_CLAIM;
pub use resourceclaimtemplate::RESOURCE_CLAIM_TEMPLATE;
pub use resourceslice::RESOURCE_SLICE;

const GROUP: &str = "resource.k8s.io";

#[cfg(test)]
mod tests;
