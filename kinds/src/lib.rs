//! What is known of each kind: names, schema, defaults, validation, allocation, deletion, patches, Table columns.
//!
//! A kind is a file in the folder of its group ([`core`], [`apps`], …) with its [`Kind`], its [`strategy::Strategy`], its
//! columns and their tests; to add one, write the file and name it in the list below. Router, discovery, OpenAPI, tables,
//! selectors, informer, garbage collection, encryption and admission find kinds in a [`Registry`], which can be replaced
//! while the server runs.
//!
//! Invariants: pure functions over JSON values; nothing outside a kind's own file asks which kind it deals with.
//! Left to others: the verbs (`weft_apiserver::objects`), what controllers make of objects (`weft_controllers`).

mod address;
pub mod admission;
pub mod admissionregistration;
pub mod apiextensions;
pub mod apiregistration;
pub mod apply;
pub mod apps;
pub mod autoscaling;
pub mod batch;
pub mod cel;
pub mod certificates;
pub mod columns;
mod conditions;
pub mod coordination;
pub mod core;
pub mod decode;
mod default_class;
pub mod discovery;
mod field;
pub mod flowcontrol;
pub mod furniture;
pub mod gateway_api;
pub mod istio;
mod kind;
pub mod lens;
pub mod mesh;
pub mod networking;
pub mod node;
mod node_labels;
pub mod patch;
pub mod policy;
pub mod protobuf;
pub mod rbac;
mod registry;
pub mod resource;
mod reviews;
pub mod scale;
pub mod scheduling;
pub mod schema;
pub mod storage;
mod storagemigration;
pub mod strategy;
mod unserved;
pub mod validate;
pub mod walk;
pub mod weft;

use std::sync::Arc;

use serde_json::Value;
use weft_api::quantity::Quantity;

pub use self::core::{
    COMPONENT_STATUS, CONFIG_MAP, ENDPOINTS, EVENT, EVENT_V1, LIMIT_RANGE, NAMESPACE, NODE,
    PERSISTENT_VOLUME, PERSISTENT_VOLUME_CLAIM, POD, POD_TEMPLATE, REPLICATION_CONTROLLER,
    RESOURCE_QUOTA, SECRET, SERVICE, SERVICE_ACCOUNT, ServiceRange,
};
pub use admissionregistration::{
    MUTATING_ADMISSION_POLICY, MUTATING_ADMISSION_POLICY_BINDING, MUTATING_WEBHOOK_CONFIGURATION,
    VALIDATING_ADMISSION_POLICY, VALIDATING_ADMISSION_POLICY_BINDING,
    VALIDATING_WEBHOOK_CONFIGURATION,
};
pub use apiextensions::CUSTOM_RESOURCE_DEFINITION;
pub use apiregistration::API_SERVICE;
pub use apps::{CONTROLLER_REVISION, DAEMON_SET, DEPLOYMENT, REPLICA_SET, STATEFUL_SET};
pub use autoscaling::{HORIZONTAL_POD_AUTOSCALER, HORIZONTAL_POD_AUTOSCALER_V1};
pub use batch::{CRON_JOB, CRON_JOB_V1BETA1, JOB};
pub use certificates::{
    CERTIFICATE_SIGNING_REQUEST, CLUSTER_TRUST_BUNDLE, POD_CERTIFICATE_REQUEST,
};
pub use columns::{Column, Row};
pub use coordination::LEASE;
pub use discovery::ENDPOINT_SLICE;
pub use flowcontrol::{FLOW_SCHEMA, PRIORITY_LEVEL_CONFIGURATION};
pub use gateway_api::{
    BACKEND_TLS_POLICY, GATEWAY, GATEWAY_CLASS, GRPC_ROUTE, HTTP_ROUTE, LISTENER_SET,
    REFERENCE_GRANT, TCP_ROUTE, TLS_ROUTE, UDP_ROUTE, X_MESH,
};
pub use istio::{AUTHORIZATION_POLICY, PEER_AUTHENTICATION, REQUEST_AUTHENTICATION};
pub use kind::{
    AnyVersion, Kind, Name, NameRule, Selectable, Served, Spelling, StatusMetadata, Subresource,
};
pub use networking::{INGRESS, INGRESS_CLASS, IP_ADDRESS, NETWORK_POLICY, SERVICE_CIDR};
pub use node::RUNTIME_CLASS;
pub use policy::{POD_DISRUPTION_BUDGET, POD_DISRUPTION_BUDGET_V1BETA1};
pub use rbac::{CLUSTER_ROLE, CLUSTER_ROLE_BINDING, ROLE, ROLE_BINDING};
pub use registry::{Registries, Registry};
pub use resource::{
    DEVICE_CLASS, DEVICE_TAINT_RULE, RESOURCE_CLAIM, RESOURCE_CLAIM_TEMPLATE, RESOURCE_SLICE,
};
pub use scheduling::PRIORITY_CLASS;
pub use storage::{
    CSI_DRIVER, CSI_NODE, CSI_STORAGE_CAPACITY, STORAGE_CLASS, VOLUME_ATTACHMENT,
    VOLUME_ATTRIBUTES_CLASS,
};
pub use storagemigration::STORAGE_VERSION_MIGRATION;
pub use weft::{CAPABILITY_GRANT, FAULT_INJECTION, KEY_VALUE_STORE, MESH_POLICY, ROLLOUT};

/// How functions are handed a kind.
pub type KindRef<'a> = &'a Arc<Kind>;

/// The groups of Kubernetes' own, in the order that its aggregator lists them in; those of others come after them.
const GROUPS: &[&str] = &[
    "",
    "apiregistration.k8s.io",
    "apps",
    "events.k8s.io",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "autoscaling",
    "batch",
    "certificates.k8s.io",
    "networking.k8s.io",
    "policy",
    "rbac.authorization.k8s.io",
    "storage.k8s.io",
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "scheduling.k8s.io",
    "coordination.k8s.io",
    "node.k8s.io",
    "discovery.k8s.io",
    "resource.k8s.io",
    "flowcontrol.apiserver.k8s.io",
    "storagemigration.k8s.io",
];

/// The kinds that are compiled in, in the order of discovery: groups as Kubernetes lists them, their kinds by plural, and of a
/// kind with several versions the preferred one first, as below. `kubectl get all` prints in this order too.
fn builtin() -> Vec<Arc<Kind>> {
    let stored = [
        &POD,
        &SERVICE,
        &NAMESPACE,
        &NODE,
        &CONFIG_MAP,
        &SECRET,
        &SERVICE_ACCOUNT,
        &LIMIT_RANGE,
        &RESOURCE_QUOTA,
        &EVENT,
        &POD_TEMPLATE,
        &REPLICATION_CONTROLLER,
        &COMPONENT_STATUS,
        &ENDPOINTS,
        &PERSISTENT_VOLUME,
        &PERSISTENT_VOLUME_CLAIM,
        &STORAGE_CLASS,
        &VOLUME_ATTACHMENT,
        &CSI_DRIVER,
        &CSI_NODE,
        &CSI_STORAGE_CAPACITY,
        &VOLUME_ATTRIBUTES_CLASS,
        &INGRESS,
        &INGRESS_CLASS,
        &NETWORK_POLICY,
        &IP_ADDRESS,
        &SERVICE_CIDR,
        &ROLE,
        &CLUSTER_ROLE,
        &ROLE_BINDING,
        &CLUSTER_ROLE_BINDING,
        &FLOW_SCHEMA,
        &PRIORITY_LEVEL_CONFIGURATION,
        &RESOURCE_CLAIM,
        &RESOURCE_CLAIM_TEMPLATE,
        &DEVICE_CLASS,
        &RESOURCE_SLICE,
        &DEVICE_TAINT_RULE,
        &STORAGE_VERSION_MIGRATION,
        &DEPLOYMENT,
        &REPLICA_SET,
        &STATEFUL_SET,
        &DAEMON_SET,
        &CONTROLLER_REVISION,
        &HORIZONTAL_POD_AUTOSCALER,
        &HORIZONTAL_POD_AUTOSCALER_V1,
        &JOB,
        &CRON_JOB,
        &CRON_JOB_V1BETA1,
        &POD_DISRUPTION_BUDGET,
        &POD_DISRUPTION_BUDGET_V1BETA1,
        &PRIORITY_CLASS,
        &RUNTIME_CLASS,
        &ENDPOINT_SLICE,
        &EVENT_V1,
        &LEASE,
        &CERTIFICATE_SIGNING_REQUEST,
        &POD_CERTIFICATE_REQUEST,
        &CLUSTER_TRUST_BUNDLE,
        &VALIDATING_WEBHOOK_CONFIGURATION,
        &MUTATING_WEBHOOK_CONFIGURATION,
        &VALIDATING_ADMISSION_POLICY,
        &VALIDATING_ADMISSION_POLICY_BINDING,
        &MUTATING_ADMISSION_POLICY,
        &MUTATING_ADMISSION_POLICY_BINDING,
        &CUSTOM_RESOURCE_DEFINITION,
        &API_SERVICE,
        &CAPABILITY_GRANT,
        &KEY_VALUE_STORE,
        &MESH_POLICY,
        &FAULT_INJECTION,
        &ROLLOUT,
    ];
    let stored = stored.into_iter().map(|kind| Arc::clone(kind));
    let mut kinds: Vec<Arc<Kind>> = stored
        .chain(reviews::reviews())
        .chain(mesh::kinds())
        .chain(reviews::usage())
        .chain(reviews::metrics())
        .collect();
    let place = |kind: &Kind| {
        let group = GROUPS.iter().position(|group| *group == kind.group);
        (
            group.unwrap_or(GROUPS.len()),
            group.map(|_| kind.resource.clone()),
        )
    };
    // Stable: others stay as they stand above.
    kinds.sort_by_key(|kind| place(kind));
    kinds
}

/// A quantity as clients write it: text, or a bare number.
pub(crate) fn quantity_of(value: &Value) -> Option<Quantity> {
    match value {
        Value::String(text) => Quantity::parse(text).ok(),
        Value::Number(number) => Quantity::parse(&number.to_string()).ok(),
        _ => None,
    }
}
