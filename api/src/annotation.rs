//! Names of the annotations and labels that weft itself reads or writes.

/// On a Node: `ip:port` of its listener for mutual-TLS calls from other nodes.
pub const MESH_ADDRESS: &str = "weft.dev/mesh-address";
/// On a Node: which authority of the cluster all of its certificates are of, the start of its digest.
pub const ROOT: &str = "weft.dev/root";
/// On a node's Lease: how often the node renews it, in seconds.
pub const RENEWED_EVERY: &str = "weft.dev/renewed-every";
/// On a node's Lease: so many seconds after the last renewal, at the latest, nothing runs on the node any more of pods that ask for [`FENCED`].
pub const FENCES_WITHIN: &str = "weft.dev/fences-within";
/// On a Pod: `true` has its node stop it when the node cannot renew its lease, so that it can be replaced elsewhere and still runs once only.
pub const FENCED: &str = "weft.dev/fenced";
/// On a Node: the port on which it takes requests from outside of the cluster.
pub const GATEWAY_PORT: &str = "weft.dev/gateway-port";
/// On a Node: ranges of addresses that it has for Services and Gateways, apart by commas; absent where it has its own address only.
pub const SERVICE_ADDRESSES: &str = "weft.dev/service-addresses";
/// On a Node: the lowest port that it may listen at; 0 where it may listen at any.
pub const LOWEST_PORT: &str = "weft.dev/lowest-port";
/// The class of the Services that stand for Gateways: these have their addresses of those.
pub const GATEWAY_SERVICE_CLASS: &str = "weft.dev/gateway";
/// On a Pod: `per-request` or `pooled`; how instances of its components are reused.
pub const ISOLATION: &str = "weft.dev/isolation";
/// On a Namespace, as a label: `true` gives its guests a process of their own on each node.
pub const ISOLATE_PROCESS: &str = "weft.dev/isolate-process";
/// On a Namespace, as a label: `off` keeps the node's toolbox out of its containers; what is executed there is their own component.
pub const TOOLBOX: &str = "weft.dev/toolbox";
/// On a Pod: how many requests one instance serves before it is replaced (1 to 1,000,000).
pub const MAX_REQUESTS_PER_INSTANCE: &str = "weft.dev/max-requests-per-instance";
/// On a Pod: how many requests one instance serves at once (1 to 1,000; WASI 0.3 components only above 1).
pub const MAX_CONCURRENT_REQUESTS: &str = "weft.dev/max-concurrent-requests";
/// On a Pod: wall-clock limit of one request, as `500ms`, `30s` or `2m`.
pub const REQUEST_TIMEOUT: &str = "weft.dev/request-timeout";
/// On a Pod: the largest body of a request or a response, as `10Mi` or `2Gi`.
pub const MAX_BODY_SIZE: &str = "weft.dev/max-body-size";
/// On a Pod: how many files, folders and links each of its volumes may hold (1 to 1,000,000).
pub const MAX_VOLUME_INODES: &str = "weft.dev/max-volume-inodes";
/// On a Pod: `http` or `command`, for a component that exports both worlds.
pub const WORLD: &str = "weft.dev/world";

/// The driver of volumes that are folders of nodes, and who makes them for claims.
pub const FOLDER_DRIVER: &str = "folder.weft.dev";

/// On what is shown of an object whose stored form cannot be opened: why. Such an object shows no uid.
pub const UNREADABLE: &str = "weft.dev/unreadable";

/// On a CustomResourceDefinition that the cluster has from its beginning: the generation in which it is as the cluster made it. In any other it
/// is as somebody else has it, and stays so.
pub const MADE_GENERATION: &str = "weft.dev/made-generation";

/// On an EndpointSlice: the Service it belongs to.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// On an EndpointSlice, as a label: who keeps it.
pub const SLICE_MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// As [`SLICE_MANAGED_BY`]: the cluster itself, which corrects whatever else is written into such a slice.
pub const SLICE_CONTROLLER: &str = "endpointslice-controller.k8s.io";
/// On an EndpointSlice: a JSON object from pod name to ServiceAccount name, for the pods that do not run as
/// `default`. A slice has no field for it, and nodes need it to know whose certificate to expect.
pub const ENDPOINT_SERVICE_ACCOUNTS: &str = "weft.dev/service-accounts";
/// On an EndpointSlice: a JSON object from pod name to workload, for the pods whose name does not tell it.
pub const ENDPOINT_WORKLOADS: &str = "weft.dev/workloads";
/// On an EndpointSlice: the HorizontalPodAutoscaler that brings pods back when the Service has none and is called. Nodes hold calls meanwhile.
pub const SCALED_FROM_ZERO_BY: &str = "weft.dev/scaled-from-zero-by";
/// On a ReplicaSet of a Rollout: when its pods go, unless calls are led to them again. RFC 3339.
pub const SCALE_DOWN_AT: &str = "weft.dev/scale-down-at";
/// On a ReplicaSet of a Rollout: the number of its revision, counted from 1.
pub const ROLLOUT_REVISION: &str = "weft.dev/revision";
/// On what was made of an object in another mesh's words: the digest of what it was made as.
pub const MADE_OF: &str = "weft.dev/made-of";
/// On a Node: its host name, the topology key for spreading by node.
pub const HOSTNAME: &str = "kubernetes.io/hostname";
/// On a Namespace: its own name, so that selectors can name it.
pub const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";
/// On Pods and ReplicaSets of a Deployment: the hash of the pod template.
pub const POD_TEMPLATE_HASH: &str = "pod-template-hash";
/// On a Pod: the container that `kubectl logs` shows when none is named.
pub const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";
/// On Deployments and ReplicaSets: the revision `kubectl rollout history` lists.
pub const DEPLOYMENT_REVISION: &str = "deployment.kubernetes.io/revision";
