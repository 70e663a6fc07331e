//! `gateway.networking.k8s.io`: how requests come into the cluster.

mod gateway;
mod gatewayclass;
mod httproute;

pub use gateway::GATEWAY;
pub use gatewayclass::GATEWAY_CLASS;
pub use httproute::HTTP_ROUTE;

use crate::Kind;

/// A kind of the Gateway API, which Kubernetes knows as custom resources.
fn custom(kind: &'static str, resource: &'static str) -> Kind {
    Kind {
        categories: vec!["gateway-api".into()],
        counts_generations: true,
        merges_strategically: false,
        ..Kind::new("gateway.networking.k8s.io", "v1", kind, resource)
    }
}
