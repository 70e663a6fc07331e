//! The table of kinds. To add a kind, write one `static` and name it in [`ALL`].

use crate::columns::*;
use crate::{Column, Kind, KindRef, NameRule, Selectable, Subresource, View};
use crate::{defaults, validate};

const fn text(
    name: &'static str,
    priority: i32,
    cell: fn(&Row<'_>) -> serde_json::Value,
    description: &'static str,
) -> Column {
    Column {
        name,
        kind: "string",
        format: "",
        description,
        priority,
        cell,
    }
}

const fn integer(
    name: &'static str,
    cell: fn(&Row<'_>) -> serde_json::Value,
    description: &'static str,
) -> Column {
    Column {
        name,
        kind: "integer",
        format: "",
        description,
        priority: 0,
        cell,
    }
}

const NAME: Column = Column {
    name: "Name",
    kind: "string",
    format: "name",
    description: "Name must be unique within a namespace.",
    priority: 0,
    cell: name,
};
const AGE: Column = text("Age", 0, age, "Time since the object was created.");

const fn field(field: &'static str, pointer: &'static str) -> Selectable {
    Selectable {
        field,
        pointer,
        absent: "",
    }
}

const fn field_or(field: &'static str, pointer: &'static str, absent: &'static str) -> Selectable {
    Selectable {
        field,
        pointer,
        absent,
    }
}

pub static NAMESPACE: Kind = Kind {
    group: "",
    version: "v1",
    kind: "Namespace",
    resource: "namespaces",
    singular: "namespace",
    short_names: &["ns"],
    categories: &[],
    namespaced: false,
    subresources: &[Subresource::Status, Subresource::Finalize],
    columns: &[
        NAME,
        text("Status", 0, phase, "The status of the namespace"),
        AGE,
    ],
    selectable: &[field("status.phase", "/status/phase")],
    counts_generations: false,
    name_rule: NameRule::Label,
    defaults: defaults::namespace,
    validate: validate::namespace,
    view: None,
};

pub static NODE: Kind = Kind {
    group: "",
    version: "v1",
    kind: "Node",
    resource: "nodes",
    singular: "node",
    short_names: &["no"],
    categories: &[],
    namespaced: false,
    subresources: &[Subresource::Status, Subresource::Proxy],
    columns: &[
        NAME,
        text("Status", 0, node_status, "The status of the node"),
        text("Roles", 0, node_roles, "The roles of the node"),
        AGE,
        text("Version", 0, node_version, "Version of the node agent."),
        text(
            "Internal-IP",
            1,
            node_internal_ip,
            "Address inside the cluster.",
        ),
        text(
            "External-IP",
            1,
            node_external_ip,
            "Address outside the cluster.",
        ),
        text(
            "OS-Image",
            1,
            node_os_image,
            "Operating system of the node.",
        ),
        text("Kernel-Version", 1, node_kernel, "Kernel of the node."),
        text("Container-Runtime", 1, node_runtime, "Runtime of the node."),
    ],
    selectable: &[field_or(
        "spec.unschedulable",
        "/spec/unschedulable",
        "false",
    )],
    counts_generations: false,
    name_rule: NameRule::Subdomain,
    defaults: defaults::nothing,
    validate: validate::node,
    view: None,
};

pub static POD: Kind = Kind {
    group: "",
    version: "v1",
    kind: "Pod",
    resource: "pods",
    singular: "pod",
    short_names: &["po"],
    categories: &["all"],
    namespaced: true,
    subresources: &[
        Subresource::Status,
        Subresource::Binding,
        Subresource::Eviction,
        Subresource::Log,
    ],
    columns: &[
        NAME,
        text("Ready", 0, pod_ready, "Ready containers of all containers."),
        text(
            "Status",
            0,
            pod_status,
            "The aggregate status of the containers in this pod.",
        ),
        text(
            "Restarts",
            0,
            pod_restarts,
            "How often containers of this pod were restarted.",
        ),
        AGE,
        text("IP", 1, pod_ip, "Address of the pod."),
        text("Node", 1, pod_node, "Node the pod is bound to."),
        text(
            "Nominated Node",
            1,
            pod_nominated_node,
            "Node reserved for the pod by preemption.",
        ),
        text(
            "Readiness Gates",
            1,
            pod_readiness_gates,
            "Passed readiness gates of all.",
        ),
    ],
    selectable: &[
        field("spec.nodeName", "/spec/nodeName"),
        field("spec.host", "/spec/nodeName"),
        field("spec.restartPolicy", "/spec/restartPolicy"),
        field("spec.schedulerName", "/spec/schedulerName"),
        field("spec.serviceAccountName", "/spec/serviceAccountName"),
        field_or("spec.hostNetwork", "/spec/hostNetwork", "false"),
        field("status.phase", "/status/phase"),
        field("status.podIP", "/status/podIP"),
        field("status.podIPs", "/status/podIP"),
        field("status.nominatedNodeName", "/status/nominatedNodeName"),
    ],
    counts_generations: true,
    name_rule: NameRule::Subdomain,
    defaults: defaults::pod,
    validate: validate::pod,
    view: None,
};

pub static SERVICE: Kind = Kind {
    group: "",
    version: "v1",
    kind: "Service",
    resource: "services",
    singular: "service",
    short_names: &["svc"],
    categories: &["all"],
    namespaced: true,
    subresources: &[Subresource::Status],
    columns: &[
        NAME,
        text("Type", 0, service_type, "How the service is exposed."),
        text(
            "Cluster-IP",
            0,
            service_cluster_ip,
            "Virtual address of the service.",
        ),
        text(
            "External-IP",
            0,
            service_external_ip,
            "Addresses outside the cluster.",
        ),
        text("Port(s)", 0, service_ports, "Ports the service exposes."),
        AGE,
        text(
            "Selector",
            1,
            service_selector,
            "Labels of the pods behind the service.",
        ),
    ],
    selectable: &[
        field("spec.clusterIP", "/spec/clusterIP"),
        field("spec.type", "/spec/type"),
    ],
    counts_generations: false,
    name_rule: NameRule::Dns1035Label,
    defaults: defaults::service,
    validate: validate::service,
    view: None,
};

pub static ENDPOINT_SLICE: Kind = Kind {
    group: "discovery.k8s.io",
    version: "v1",
    kind: "EndpointSlice",
    resource: "endpointslices",
    singular: "endpointslice",
    short_names: &[],
    categories: &[],
    namespaced: true,
    subresources: &[],
    columns: &[
        NAME,
        text(
            "AddressType",
            0,
            slice_address_type,
            "Type of the addresses.",
        ),
        text("Ports", 0, slice_ports, "Ports of the endpoints."),
        text(
            "Endpoints",
            0,
            slice_endpoints,
            "Addresses of the endpoints.",
        ),
        AGE,
    ],
    selectable: &[],
    counts_generations: true,
    name_rule: NameRule::Subdomain,
    defaults: defaults::endpoint_slice,
    validate: validate::endpoint_slice,
    view: None,
};

pub static CONFIG_MAP: Kind = Kind {
    group: "",
    version: "v1",
    kind: "ConfigMap",
    resource: "configmaps",
    singular: "configmap",
    short_names: &["cm"],
    categories: &[],
    namespaced: true,
    subresources: &[],
    columns: &[
        NAME,
        integer("Data", config_map_data, "Number of entries."),
        AGE,
    ],
    selectable: &[],
    counts_generations: false,
    name_rule: NameRule::Subdomain,
    defaults: defaults::nothing,
    validate: validate::config_map,
    view: None,
};

pub static SECRET: Kind = Kind {
    group: "",
    version: "v1",
    kind: "Secret",
    resource: "secrets",
    singular: "secret",
    short_names: &[],
    categories: &[],
    namespaced: true,
    subresources: &[],
    columns: &[
        NAME,
        text("Type", 0, secret_type, "What the secret is for."),
        integer("Data", secret_data, "Number of entries."),
        AGE,
    ],
    selectable: &[field("type", "/type")],
    counts_generations: false,
    name_rule: NameRule::Subdomain,
    defaults: defaults::secret,
    validate: validate::secret,
    view: None,
};

pub static SERVICE_ACCOUNT: Kind = Kind {
    group: "",
    version: "v1",
    kind: "ServiceAccount",
    resource: "serviceaccounts",
    singular: "serviceaccount",
    short_names: &["sa"],
    categories: &[],
    namespaced: true,
    subresources: &[],
    columns: &[
        NAME,
        integer(
            "Secrets",
            service_account_secrets,
            "Number of secrets named by the account.",
        ),
        AGE,
    ],
    selectable: &[],
    counts_generations: false,
    name_rule: NameRule::Subdomain,
    defaults: defaults::nothing,
    validate: validate::nothing,
    view: None,
};

const EVENT_COLUMNS: &[Column] = &[
    text("Last Seen", 0, event_last_seen, "When it was last seen."),
    text("Type", 0, event_type, "Normal or Warning."),
    text("Reason", 0, event_reason, "Why, in one word."),
    text("Object", 0, event_object, "What it is about."),
    text("Subobject", 1, event_subobject, "Which part of the object."),
    text("Source", 1, event_source, "Who reported it."),
    text("Message", 0, event_message, "What happened."),
    text("First Seen", 1, event_first_seen, "When it was first seen."),
    text("Count", 1, event_count, "How often it happened."),
    Column {
        name: "Name",
        kind: "string",
        format: "name",
        description: "Name of the event.",
        priority: 1,
        cell: name,
    },
];

pub static EVENT: Kind = Kind {
    group: "",
    version: "v1",
    kind: "Event",
    resource: "events",
    singular: "event",
    short_names: &["ev"],
    categories: &[],
    namespaced: true,
    subresources: &[],
    columns: EVENT_COLUMNS,
    selectable: &[
        field("involvedObject.kind", "/involvedObject/kind"),
        field("involvedObject.namespace", "/involvedObject/namespace"),
        field("involvedObject.name", "/involvedObject/name"),
        field("involvedObject.uid", "/involvedObject/uid"),
        field("involvedObject.apiVersion", "/involvedObject/apiVersion"),
        field(
            "involvedObject.resourceVersion",
            "/involvedObject/resourceVersion",
        ),
        field("involvedObject.fieldPath", "/involvedObject/fieldPath"),
        field("reason", "/reason"),
        field("reportingComponent", "/reportingComponent"),
        field("source", "/source/component"),
        field("type", "/type"),
    ],
    counts_generations: false,
    name_rule: NameRule::Subdomain,
    defaults: defaults::event,
    validate: validate::event,
    view: None,
};

pub static EVENT_V1: Kind = Kind {
    group: "events.k8s.io",
    version: "v1",
    kind: "Event",
    resource: "events",
    singular: "event",
    short_names: &["ev"],
    categories: &[],
    namespaced: true,
    subresources: &[],
    columns: EVENT_COLUMNS,
    selectable: &[
        field("regarding.kind", "/involvedObject/kind"),
        field("regarding.namespace", "/involvedObject/namespace"),
        field("regarding.name", "/involvedObject/name"),
        field("regarding.uid", "/involvedObject/uid"),
        field("regarding.apiVersion", "/involvedObject/apiVersion"),
        field(
            "regarding.resourceVersion",
            "/involvedObject/resourceVersion",
        ),
        field("regarding.fieldPath", "/involvedObject/fieldPath"),
        field("reason", "/reason"),
        field("reportingController", "/reportingComponent"),
        field("type", "/type"),
    ],
    counts_generations: false,
    name_rule: NameRule::Subdomain,
    defaults: defaults::event,
    validate: validate::event,
    view: Some(View {
        of: &EVENT,
        read: defaults::event_to_v1,
        write: defaults::event_from_v1,
    }),
};

pub static LEASE: Kind = Kind {
    group: "coordination.k8s.io",
    version: "v1",
    kind: "Lease",
    resource: "leases",
    singular: "lease",
    short_names: &[],
    categories: &[],
    namespaced: true,
    subresources: &[],
    columns: &[
        NAME,
        text("Holder", 0, lease_holder, "Who holds the lease."),
        AGE,
    ],
    selectable: &[],
    counts_generations: false,
    name_rule: NameRule::Subdomain,
    defaults: defaults::nothing,
    validate: validate::lease,
    view: None,
};

pub static DEPLOYMENT: Kind = Kind {
    group: "apps",
    version: "v1",
    kind: "Deployment",
    resource: "deployments",
    singular: "deployment",
    short_names: &["deploy"],
    categories: &["all"],
    namespaced: true,
    subresources: &[Subresource::Status, Subresource::Scale],
    columns: &[
        NAME,
        text("Ready", 0, deployment_ready, "Ready pods of desired pods."),
        text(
            "Up-to-date",
            0,
            deployment_up_to_date,
            "Pods of the newest template.",
        ),
        text(
            "Available",
            0,
            deployment_available,
            "Pods ready for long enough.",
        ),
        AGE,
        text(
            "Containers",
            1,
            template_containers,
            "Names of the containers.",
        ),
        text("Images", 1, template_images, "Images of the containers."),
        text("Selector", 1, workload_selector, "Labels of the pods."),
    ],
    selectable: &[],
    counts_generations: true,
    name_rule: NameRule::Subdomain,
    defaults: defaults::deployment,
    validate: validate::deployment,
    view: None,
};

pub static REPLICA_SET: Kind = Kind {
    group: "apps",
    version: "v1",
    kind: "ReplicaSet",
    resource: "replicasets",
    singular: "replicaset",
    short_names: &["rs"],
    categories: &["all"],
    namespaced: true,
    subresources: &[Subresource::Status, Subresource::Scale],
    columns: &[
        NAME,
        integer("Desired", replica_set_desired, "Pods wanted."),
        integer("Current", replica_set_current, "Pods there."),
        integer("Ready", replica_set_ready, "Pods ready."),
        AGE,
        text(
            "Containers",
            1,
            template_containers,
            "Names of the containers.",
        ),
        text("Images", 1, template_images, "Images of the containers."),
        text("Selector", 1, workload_selector, "Labels of the pods."),
    ],
    selectable: &[field_or("status.replicas", "/status/replicas", "0")],
    counts_generations: true,
    name_rule: NameRule::Subdomain,
    defaults: defaults::replica_set,
    validate: validate::replica_set,
    view: None,
};

/// The columns of a Scale, which the workloads' `scale` subresource shows.
pub static SCALE_COLUMNS: &[Column] = &[
    NAME,
    integer("Desired", replica_set_desired, "Pods wanted."),
    integer("Available", replica_set_current, "Pods there."),
    AGE,
];

pub static HTTP_ROUTE: Kind = Kind {
    group: "gateway.networking.k8s.io",
    version: "v1",
    kind: "HTTPRoute",
    resource: "httproutes",
    singular: "httproute",
    short_names: &[],
    categories: &["gateway-api"],
    namespaced: true,
    subresources: &[Subresource::Status],
    columns: &[
        NAME,
        text(
            "Hostnames",
            0,
            route_hostnames,
            "Hosts the route answers for.",
        ),
        AGE,
    ],
    selectable: &[],
    counts_generations: true,
    name_rule: NameRule::Subdomain,
    defaults: defaults::http_route,
    validate: validate::http_route,
    view: None,
};

pub static GATEWAY: Kind = Kind {
    group: "gateway.networking.k8s.io",
    version: "v1",
    kind: "Gateway",
    resource: "gateways",
    singular: "gateway",
    short_names: &["gtw"],
    categories: &["gateway-api"],
    namespaced: true,
    subresources: &[Subresource::Status],
    columns: &[
        NAME,
        text("Class", 0, gateway_class, "Class of the gateway."),
        text("Address", 0, gateway_address, "Addresses of the gateway."),
        text("Programmed", 0, gateway_programmed, "Whether it serves."),
        AGE,
    ],
    selectable: &[],
    counts_generations: true,
    name_rule: NameRule::Subdomain,
    defaults: defaults::gateway,
    validate: validate::gateway,
    view: None,
};

pub static GATEWAY_CLASS: Kind = Kind {
    group: "gateway.networking.k8s.io",
    version: "v1",
    kind: "GatewayClass",
    resource: "gatewayclasses",
    singular: "gatewayclass",
    short_names: &["gc"],
    categories: &["gateway-api"],
    namespaced: false,
    subresources: &[Subresource::Status],
    columns: &[
        NAME,
        text(
            "Controller",
            0,
            class_controller,
            "Who implements the class.",
        ),
        text(
            "Accepted",
            0,
            class_accepted,
            "Whether the controller took it.",
        ),
        AGE,
        text(
            "Description",
            1,
            class_description,
            "What the class is for.",
        ),
    ],
    selectable: &[],
    counts_generations: true,
    name_rule: NameRule::Subdomain,
    defaults: defaults::nothing,
    validate: validate::gateway_class,
    view: None,
};

pub static CERTIFICATE_SIGNING_REQUEST: Kind = Kind {
    group: "certificates.k8s.io",
    version: "v1",
    kind: "CertificateSigningRequest",
    resource: "certificatesigningrequests",
    singular: "certificatesigningrequest",
    short_names: &["csr"],
    categories: &[],
    namespaced: false,
    subresources: &[Subresource::Status, Subresource::Approval],
    columns: &[
        NAME,
        AGE,
        text("SignerName", 0, csr_signer, "Who is asked to sign."),
        text("Requestor", 0, csr_requestor, "Who asks."),
        text("RequestedDuration", 0, csr_duration, "For how long."),
        text("Condition", 0, csr_condition, "What became of it."),
    ],
    selectable: &[field("spec.signerName", "/spec/signerName")],
    counts_generations: false,
    name_rule: NameRule::PathSegment,
    defaults: defaults::nothing,
    validate: validate::certificate_signing_request,
    view: None,
};

/// Every kind, in the order of discovery; `kubectl get all` prints in this order too.
pub(crate) static ALL: &[KindRef] = &[
    &POD,
    &SERVICE,
    &NAMESPACE,
    &NODE,
    &CONFIG_MAP,
    &SECRET,
    &SERVICE_ACCOUNT,
    &EVENT,
    &DEPLOYMENT,
    &REPLICA_SET,
    &ENDPOINT_SLICE,
    &EVENT_V1,
    &LEASE,
    &CERTIFICATE_SIGNING_REQUEST,
    &HTTP_ROUTE,
    &GATEWAY,
    &GATEWAY_CLASS,
];
