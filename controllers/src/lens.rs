//! Kubernetes' own types as lenses, for controllers that read most of an object.
//!
//! What reads a few fields defines a type of its own beside its reader: see `node::Lease`. Selectors are parsed when an
//! object is read, not each time that somebody asks whom it selects.

use std::ops::Deref;
use std::sync::Arc;

use k8s_openapi::Metadata;
use k8s_openapi::api::apps::v1::{self as apps, ReplicaSetCondition};
use k8s_openapi::api::batch;
use k8s_openapi::api::core::v1 as core;
use serde::de::DeserializeOwned;
use weft_api::object::{Object, ObjectError};
use weft_api::selector::LabelSelector;
use weft_api::view::{
    self, EndpointSlice, Namespace, Node, ObjectMeta, ReplicaSetSpec, ReplicaSetStatus,
};
use weft_kinds::Kind;

use crate::indexer::Lens;

/// The object as its published type.
///
/// # Errors
/// [`ObjectError::View`] when a field has another type.
pub fn typed<T: DeserializeOwned + Metadata<Ty = ObjectMeta>>(
    object: &Object,
) -> Result<T, ObjectError> {
    let mut body: T = object.view()?;
    // Often more than half of an object, and of interest to no reconciler.
    body.metadata_mut().managed_fields = None;
    Ok(body)
}

/// An object that selects others.
#[derive(Debug)]
pub struct Selecting<T> {
    typed: T,
    /// `None`: it selects nobody.
    pub selector: Option<LabelSelector>,
}

impl<T> Deref for Selecting<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.typed
    }
}

pub type Deployment = Selecting<view::Deployment>;
pub type ReplicaSet = Selecting<view::ReplicaSet>;
pub type Job = Selecting<batch::v1::Job>;
pub type StatefulSet = Selecting<apps::StatefulSet>;
pub type DaemonSet = Selecting<apps::DaemonSet>;
pub type Service = Selecting<view::Service>;

/// Kinds that are so many pods of one template.
pub trait Replicated: Lens {
    /// As the younger of them has it.
    fn set(&self) -> &ReplicaSet;

    /// Whether its status has a number of pods that are being deleted.
    const COUNTS_TERMINATING: bool;
}

impl Replicated for ReplicaSet {
    const COUNTS_TERMINATING: bool = true;

    fn set(&self) -> &ReplicaSet {
        self
    }
}

/// What came before ReplicaSets, read as one: its selector is plain labels, and the rest has the same names.
#[derive(Debug)]
pub struct ReplicationController(ReplicaSet);

impl Replicated for ReplicationController {
    const COUNTS_TERMINATING: bool = false;

    fn set(&self) -> &ReplicaSet {
        &self.0
    }
}

/// The template is copied into pods as it was written.
impl Lens for ReplicationController {
    const WHOLE: bool = true;

    fn kind() -> &'static Arc<Kind> {
        &weft_kinds::REPLICATION_CONTROLLER
    }

    fn read(object: &Object) -> Result<Self, ObjectError> {
        let typed: core::ReplicationController = typed(object)?;
        let spec = typed.spec.unwrap_or_default();
        let labels = spec.selector.filter(|labels| !labels.is_empty());
        let selector = labels.map(|labels| {
            let labels = labels.iter().map(|(k, v)| (k.as_str(), v.as_str()));
            LabelSelector::from_labels(labels)
        });
        let condition = |told: core::ReplicationControllerCondition| ReplicaSetCondition {
            last_transition_time: told.last_transition_time,
            message: told.message,
            reason: told.reason,
            status: Some(told.status),
            type_: Some(told.type_),
        };
        let status = typed.status.map(|status| ReplicaSetStatus {
            available_replicas: status.available_replicas,
            conditions: status
                .conditions
                .map(|conditions| conditions.into_iter().map(condition).collect()),
            fully_labeled_replicas: status.fully_labeled_replicas,
            observed_generation: status.observed_generation,
            ready_replicas: status.ready_replicas,
            replicas: status.replicas,
            terminating_replicas: None,
        });
        Ok(Self(ReplicaSet {
            typed: view::ReplicaSet {
                metadata: typed.metadata,
                spec: ReplicaSetSpec {
                    min_ready_seconds: spec.min_ready_seconds,
                    replicas: spec.replicas,
                    template: spec.template,
                    ..ReplicaSetSpec::default()
                },
                status,
            },
            selector,
        }))
    }
}

/// The selector of a workload. An empty one would claim everything in the namespace; validation refuses it.
fn selector_of_workload(object: &Object) -> Option<LabelSelector> {
    let selector = LabelSelector::from_object(&object.as_value()["spec"]["selector"]).ok()?;
    (!selector.is_everything()).then_some(selector)
}

/// The selector of a Service whose endpoints are made from it.
fn selector_of_service(service: &view::Service) -> Option<LabelSelector> {
    let spec = service.spec.as_ref()?;
    let selector = spec.selector.as_ref().filter(|labels| !labels.is_empty())?;
    if spec.type_.as_deref() == Some("ExternalName") {
        return None;
    }
    let labels = selector.iter().map(|(k, v)| (k.as_str(), v.as_str()));
    Some(LabelSelector::from_labels(labels))
}

impl Lens for Node {
    fn kind() -> &'static Arc<Kind> {
        &weft_kinds::NODE
    }

    fn read(object: &Object) -> Result<Self, ObjectError> {
        typed(object)
    }
}

impl Lens for Namespace {
    fn kind() -> &'static Arc<Kind> {
        &weft_kinds::NAMESPACE
    }

    fn read(object: &Object) -> Result<Self, ObjectError> {
        typed(object)
    }
}

impl Lens for EndpointSlice {
    fn kind() -> &'static Arc<Kind> {
        &weft_kinds::ENDPOINT_SLICE
    }

    fn read(object: &Object) -> Result<Self, ObjectError> {
        typed(object)
    }
}

impl Lens for Service {
    fn kind() -> &'static Arc<Kind> {
        &weft_kinds::SERVICE
    }

    fn read(object: &Object) -> Result<Self, ObjectError> {
        let typed = typed(object)?;
        Ok(Self {
            selector: selector_of_service(&typed),
            typed,
        })
    }
}

/// The template and the selector are copied into sets as they were written.
impl Lens for Deployment {
    const WHOLE: bool = true;

    fn kind() -> &'static Arc<Kind> {
        &weft_kinds::DEPLOYMENT
    }

    fn read(object: &Object) -> Result<Self, ObjectError> {
        Ok(Self {
            typed: typed(object)?,
            selector: selector_of_workload(object),
        })
    }
}

/// The template is copied into pods as it was written.
impl Lens for ReplicaSet {
    const WHOLE: bool = true;

    fn kind() -> &'static Arc<Kind> {
        &weft_kinds::REPLICA_SET
    }

    fn read(object: &Object) -> Result<Self, ObjectError> {
        Ok(Self {
            typed: typed(object)?,
            selector: selector_of_workload(object),
        })
    }
}

/// As a ReplicaSet's.
impl Lens for Job {
    const WHOLE: bool = true;

    fn kind() -> &'static Arc<Kind> {
        &weft_kinds::JOB
    }

    fn read(object: &Object) -> Result<Self, ObjectError> {
        Ok(Self {
            typed: typed(object)?,
            selector: selector_of_workload(object),
        })
    }
}

/// The template is kept in revisions, and copied into pods, as it was written.
impl Lens for StatefulSet {
    const WHOLE: bool = true;

    fn kind() -> &'static Arc<Kind> {
        &weft_kinds::STATEFUL_SET
    }

    fn read(object: &Object) -> Result<Self, ObjectError> {
        Ok(Self {
            typed: typed(object)?,
            selector: selector_of_workload(object),
        })
    }
}

/// As of a StatefulSet.
impl Lens for DaemonSet {
    const WHOLE: bool = true;

    fn kind() -> &'static Arc<Kind> {
        &weft_kinds::DAEMON_SET
    }

    fn read(object: &Object) -> Result<Self, ObjectError> {
        Ok(Self {
            typed: typed(object)?,
            selector: selector_of_workload(object),
        })
    }
}
