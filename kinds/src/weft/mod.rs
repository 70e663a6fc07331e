//! `weft.dev`: what Kubernetes has no kind for.

mod admission;
mod capabilitygrant;
mod faultinjection;
mod keyvaluestore;
mod meshpolicy;
mod period;
mod rollout;

pub use admission::{
    Access, granted_store, references_of_outgoing, refers_to, refusal_of_store, store_to_add,
};
pub(crate) use admission::{judge_pod, warnings_of_pods, warnings_of_template};
pub use capabilitygrant::CAPABILITY_GRANT;
pub use faultinjection::FAULT_INJECTION;
pub use keyvaluestore::{KEY_VALUE_STORE, Quota, quota};
pub use meshpolicy::MESH_POLICY;
pub use rollout::ROLLOUT;

use std::sync::Arc;

use crate::Kind;
use crate::strategy::Strategy;

/// A kind of ours, which clients know as a custom resource: its definition has no merge keys.
fn own(kind: &'static str, resource: &'static str, strategy: impl Strategy + 'static) -> Kind {
    Kind {
        counts_generations: true,
        merges_strategically: false,
        strategy: Arc::new(strategy),
        ..Kind::new("weft.dev", "v1alpha1", kind, resource)
    }
}
