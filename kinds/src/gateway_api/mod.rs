//! `gateway.networking.k8s.io`: how requests come into the cluster, and between what is in it.
//!
//! These kinds are custom kinds, here as elsewhere: [`definitions`] are the CustomResourceDefinitions that a cluster of weft has from its
//! beginning, and users may put others in their place, of whichever version. So nothing here serves them: [`HTTP_ROUTE`] and its neighbours
//! are names, by which the kinds are found in the registry in force, in whichever version objects are stored there.
//!
//! The definitions say what those of the Gateway API's experimental channel say (fields, defaults, patterns, rules and their messages), in
//! words of our own: `kinds/tests/judgements.rs` holds the two together, and rules to what upstream says of objects.
//!
//! Left to others: making them (`weft_apiserver::definitions`), what comes of the objects (`weft_gateway`).

mod definition;
mod gateway;
mod http;
mod mesh;
mod parts;
mod policy;
pub(crate) mod shape;
mod streams;

use std::sync::{Arc, LazyLock};

pub use definition::{BUNDLE_VERSION, definitions};

use crate::Kind;

/// The API group of them.
pub const GROUP: &str = "gateway.networking.k8s.io";
/// The group of what may be in it one day.
pub const EXPERIMENTAL_GROUP: &str = "gateway.networking.x-k8s.io";

pub static GATEWAY_CLASS: LazyLock<Arc<Kind>> = LazyLock::new(|| {
    Arc::new(Kind {
        namespaced: false,
        ..named("GatewayClass", "gatewayclasses")
    })
});

pub static GATEWAY: LazyLock<Arc<Kind>> = LazyLock::new(|| Arc::new(named("Gateway", "gateways")));

pub static HTTP_ROUTE: LazyLock<Arc<Kind>> =
    LazyLock::new(|| Arc::new(named("HTTPRoute", "httproutes")));

pub static GRPC_ROUTE: LazyLock<Arc<Kind>> =
    LazyLock::new(|| Arc::new(named("GRPCRoute", "grpcroutes")));

pub static TLS_ROUTE: LazyLock<Arc<Kind>> =
    LazyLock::new(|| Arc::new(named("TLSRoute", "tlsroutes")));

pub static TCP_ROUTE: LazyLock<Arc<Kind>> =
    LazyLock::new(|| Arc::new(named("TCPRoute", "tcproutes")));

pub static UDP_ROUTE: LazyLock<Arc<Kind>> =
    LazyLock::new(|| Arc::new(named("UDPRoute", "udproutes")));

pub static LISTENER_SET: LazyLock<Arc<Kind>> =
    LazyLock::new(|| Arc::new(named("ListenerSet", "listenersets")));

pub static BACKEND_TLS_POLICY: LazyLock<Arc<Kind>> =
    LazyLock::new(|| Arc::new(named("BackendTLSPolicy", "backendtlspolicies")));

pub static REFERENCE_GRANT: LazyLock<Arc<Kind>> =
    LazyLock::new(|| Arc::new(named("ReferenceGrant", "referencegrants")));

pub static X_MESH: LazyLock<Arc<Kind>> = LazyLock::new(|| {
    Arc::new(Kind {
        namespaced: false,
        merges_strategically: false,
        counts_generations: true,
        ..Kind::new(EXPERIMENTAL_GROUP, "v1alpha1", "XMesh", "xmeshes")
    })
});

/// A kind by its name: without the schema and the rules that its definition gives it.
fn named(kind: &'static str, resource: &'static str) -> Kind {
    Kind {
        merges_strategically: false,
        counts_generations: true,
        ..Kind::new(GROUP, "v1", kind, resource)
    }
}
