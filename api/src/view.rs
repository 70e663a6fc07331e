//! Typed lenses over objects, for code that needs fields. Never written back over a stored object:
//! a typed struct drops what it does not know.

pub use k8s_openapi::api::apps::v1::{
    Deployment, DeploymentCondition, DeploymentSpec, DeploymentStatus, ReplicaSet, ReplicaSetSpec,
    ReplicaSetStatus, RollingUpdateDeployment,
};
pub use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestSpec,
};
pub use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
pub use k8s_openapi::api::core::v1::{
    ConfigMap, Container, ContainerState, ContainerStateRunning, ContainerStateTerminated,
    ContainerStateWaiting, ContainerStatus, EnvVar, Event, Namespace, Node, NodeAddress,
    NodeCondition, NodeSpec, NodeStatus, ObjectReference, Pod, PodCondition, PodIP, PodSpec,
    PodStatus, PodTemplateSpec, Probe, ResourceRequirements, Secret, Service, ServiceAccount,
    ServicePort, ServiceSpec, Taint, Toleration,
};
pub use k8s_openapi::api::discovery::v1::{
    Endpoint, EndpointConditions, EndpointPort, EndpointSlice,
};
pub use k8s_openapi::apimachinery::pkg::apis::meta::v1::{
    LabelSelector as LabelSelectorView, MicroTime, ObjectMeta,
    OwnerReference as OwnerReferenceView, Time,
};
pub use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
