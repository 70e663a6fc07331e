//! What a node may do: read what it needs to serve traffic, and change only itself, its lease and the pods bound to it.
//!
//! Invariants: pure; what depends on the object is decided once it is known, by `crate::node_restriction`.

use super::Access;

/// Where nodes keep their leases.
const NODE_LEASES: &str = "kube-node-lease";

/// Whether a node may do it; else the rule that it would break, as half a sentence, and empty where there is none.
pub(super) fn decide(node: &str, access: &Access<'_>) -> Result<(), &'static str> {
    let named = |name: &str| access.name.is_none_or(|asked| asked == name);
    let (allowed, rule) = match (access.group, access.resource, access.subresource) {
        ("", "services" | "namespaces" | "serviceaccounts", None)
        | ("discovery.k8s.io", "endpointslices", None)
        | (
            "gateway.networking.k8s.io",
            "httproutes" | "grpcroutes" | "gateways" | "gatewayclasses" | "listenersets"
            | "backendtlspolicies" | "referencegrants" | "tlsroutes" | "tcproutes" | "udproutes",
            None,
        )
        | ("networking.k8s.io", "networkpolicies", None)
        | (
            "security.istio.io",
            "authorizationpolicies" | "requestauthentications" | "peerauthentications",
            None,
        )
        | (
            "weft.dev",
            "capabilitygrants" | "keyvaluestores" | "meshpolicies" | "faultinjections",
            None,
        ) => (access.reads(), "a node may only read it"),
        // Whether a pod that it names runs there, and is granted the store, is seen on the objects.
        ("weft.dev", "keyvaluestores", Some("data")) => (
            access.verb == "create",
            "a node may only use key-value stores for its pods",
        ),
        ("", "nodes", None) => (
            access.reads() || (matches!(access.verb, "create" | "update" | "patch") && named(node)),
            "a node may only change itself",
        ),
        ("", "nodes", Some("status")) => (
            access.verb == "get" || (matches!(access.verb, "update" | "patch") && named(node)),
            "a node may only change itself",
        ),
        // Whether the pod is bound to this node is seen on the object.
        ("", "pods", None) => (
            access.reads() || access.verb == "delete",
            "a node may only read and delete pods bound to it",
        ),
        ("", "pods", Some("status")) => (
            matches!(access.verb, "get" | "update" | "patch"),
            "a node may only report on pods",
        ),
        ("", "secrets" | "configmaps", None) => (
            access.verb == "get" && access.name.is_some(),
            "a node may only get by name what pods bound to it refer to",
        ),
        ("coordination.k8s.io", "leases", None) => (
            access.namespace == Some(NODE_LEASES)
                && matches!(
                    access.verb,
                    "get" | "create" | "update" | "patch" | "delete"
                )
                && named(node),
            "a node may only hold its own lease in kube-node-lease",
        ),
        ("" | "events.k8s.io", "events", None) => (
            matches!(access.verb, "create" | "update" | "patch"),
            "a node may only write events",
        ),
        ("certificates.k8s.io", "certificatesigningrequests", None) => (
            matches!(access.verb, "create" | "get"),
            "a node may only ask for certificates",
        ),
        ("", "persistentvolumes" | "persistentvolumeclaims", None) => (
            access.verb == "get" && access.name.is_some(),
            "a node may only get by name what its pods mount",
        ),
        ("certificates.k8s.io", "clustertrustbundles", None) => {
            (access.reads(), "a node may only read it")
        }
        // Whether it is for a pod that runs here is seen on the objects.
        ("certificates.k8s.io", "podcertificaterequests", None) => (
            access.verb == "create" || access.reads(),
            "a node may only ask for certificates of its pods",
        ),
        // For which pods and audiences is seen on the objects.
        ("", "serviceaccounts", Some("token")) => (
            access.verb == "create",
            "a node may only ask for tokens of its pods",
        ),
        // Which Service may be woken is seen on its autoscaler.
        ("weft.dev", "activations", None) => (
            access.verb == "create",
            "a node may only ask for replicas of Services that calls wait for",
        ),
        // Whoever calls a node is asked about here.
        ("authentication.k8s.io", "tokenreviews", None)
        | ("authorization.k8s.io", "subjectaccessreviews" | "localsubjectaccessreviews", None) => {
            (access.verb == "create", "a node may only ask about others")
        }
        _ => (false, ""),
    };
    if allowed { Ok(()) } else { Err(rule) }
}
