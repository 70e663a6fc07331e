//! `gateway.networking.k8s.io`: how requests come into the cluster.

mod gateway;
mod gatewayclass;
mod httproute;
mod referencegrant;

pub use gateway::GATEWAY;
pub use gatewayclass::GATEWAY_CLASS;
pub use httproute::HTTP_ROUTE;
pub use referencegrant::REFERENCE_GRANT;

use std::sync::Arc;

use crate::Kind;
use crate::strategy::Strategy;

/// A custom resource without rules beyond those of its schema.
struct BySchema;

impl Strategy for BySchema {
    fn allows_unconditional_update(&self) -> bool {
        false
    }
}

/// A kind of the Gateway API, which Kubernetes knows as custom resources.
fn custom(kind: &'static str, resource: &'static str) -> Kind {
    Kind {
        categories: vec!["gateway-api".into()],
        counts_generations: true,
        merges_strategically: false,
        strategy: Arc::new(BySchema),
        ..Kind::new("gateway.networking.k8s.io", "v1", kind, resource)
    }
}
