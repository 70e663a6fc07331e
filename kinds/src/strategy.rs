//! How objects of one kind are treated: what a write may say, what is filled in, what must hold, what deletion waits for.
//!
//! After `rest.RESTCreateStrategy` and its neighbours in k8s.io/apiserver. The write path knows no kind: it asks these hooks, in
//! the order in which they stand here, with the object in its stored spelling. A hook that a kind does not write has the
//! behaviour of most kinds.
//!
//! Invariants: pure; [`Strategy::default`] run twice changes nothing; a claim is held by one object at a time, because the write
//! that stores the object stores its claims, if absent, in the same all-or-nothing step.
//! Left to others: rules of metadata (`crate::validate`), reading the store and writing claims (`weft_apiserver`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Map, Value};
use weft_api::status::StatusError;

use crate::apply::Writable;
use crate::cel::Question;
use crate::lens::{object, put};
use crate::validate::Problems;
use crate::{Kind, KindRef, ServiceRange, StatusMetadata, Subresource};

pub trait Strategy: Send + Sync {
    /// Drops what a client may not say of a new object.
    fn prepare_for_create(&self, kind: &Kind, new: &mut Value) {
        // For all kinds but one the status is the controllers' to write.
        if kind.has(Subresource::Status) {
            put(new, "status", None);
        }
    }

    /// The state that a proposal leads to: only what `part` may change, `None` being the object itself. Metadata that the
    /// server owns is put back by the caller.
    fn prepare_for_update(
        &self,
        kind: &Kind,
        part: Option<Subresource>,
        proposed: Value,
        old: &Value,
    ) -> Value {
        replace_part(kind, part, proposed, old)
    }

    /// Fills what the client left out. Runs on create and on every update.
    fn default(&self, _value: &mut Value) {}

    /// Whether a defaulted object asks for something else than `old`, which counts a generation where a kind counts them.
    fn asks_for_change(&self, next: &Value, old: &Value) -> bool {
        desired_state_differs(next, old)
    }

    /// Drops what is understood and not kept, once it has been seen whether something else is asked for.
    fn drop_unserved(&self, _next: &mut Value) {}

    /// Completes what its fields say of each other, once it is known whose those are: what follows from them is nobody's, and a list without
    /// elements, which somebody may own, is kept as none. Runs on create (`old` is none) and on every update; run twice it changes nothing.
    fn settle(&self, _next: &mut Value, _old: Option<&Value>) {}

    /// Completes or refuses a new object by the cluster that it is to live in.
    ///
    /// # Errors
    /// 403 or 422 for an object that the cluster as it is does not admit.
    fn admit(&self, _new: &mut Value, _around: &dyn Surroundings) -> Result<(), StatusError> {
        Ok(())
    }

    /// The images whose imports [`Strategy::admit`] and [`Strategy::warn`] look at.
    fn images(&self, _value: &Value) -> BTreeSet<String> {
        BTreeSet::new()
    }

    /// What whoever wrote the object is told beside the answer, however strictly fields are looked at: what it asks for and does not get here,
    /// a sentence each.
    fn warn(&self, _value: &Value, _around: &dyn Surroundings) -> Vec<String> {
        Vec::new()
    }

    /// Gives the object the addresses, ports and times it asks for; [`Strategy::claims`] then names them.
    ///
    /// # Errors
    /// 422 for what cannot be given, 500 when nothing is left.
    fn allocate(
        &self,
        _new: &mut Value,
        _old: Option<&Value>,
        _around: &dyn Surroundings,
    ) -> Result<(), StatusError> {
        Ok(())
    }

    /// What only one object of the cluster may hold, and this one does.
    fn claims(&self, _value: &Value) -> BTreeSet<Claim> {
        BTreeSet::new()
    }

    /// Objects of other kinds that are there as long as this one holds what they stand for: stored and removed by the same step.
    fn companions(&self, _value: &Value) -> Vec<Companion> {
        Vec::new()
    }

    /// What can be written of an object through `part`, as its owners see it: what [`Strategy::prepare_for_create`] and
    /// [`Strategy::prepare_for_update`] put back belongs to nobody who says it there.
    fn writable(&self, kind: &Kind, part: Option<Subresource>) -> Writable {
        writable_by(kind, part)
    }

    /// Whether replacing an object that is not there makes it. Of most kinds it does not.
    fn creates_on_update(&self) -> bool {
        false
    }

    /// Whether a new object without a name is given one, another uid. Of most kinds it is refused.
    fn names_new(&self) -> bool {
        false
    }

    /// Whether an object may be replaced by whoever has not read it first. Most may.
    fn allows_unconditional_update(&self) -> bool {
        true
    }

    /// Whether a finalizer may have a name without a prefix that is not Kubernetes' own, as only objects of definitions may.
    fn takes_any_finalizer(&self) -> bool {
        false
    }

    /// Judges a defaulted object that is to be created.
    fn validate(&self, _new: &Value, _problems: &mut Problems) {}

    /// Judges a defaulted object that is to take the place of `old`, after a write of `part`.
    fn validate_update(
        &self,
        new: &Value,
        _old: &Value,
        _part: Option<Subresource>,
        problems: &mut Problems,
    ) {
        self.validate(new, problems);
    }

    /// Judges a sound object by who writes it, and when; `old` is absent at its creation.
    ///
    /// # Errors
    /// 403 or 422 for what somebody else might write.
    fn judge(
        &self,
        _new: &Value,
        _old: Option<&Value>,
        _part: Option<Subresource>,
        _around: &dyn Surroundings,
    ) -> Result<(), StatusError> {
        Ok(())
    }

    /// What becomes of what an object owns when a deletion does not say.
    fn dependents(&self) -> Dependents {
        Dependents::Go
    }

    /// Why the object of this name may never be deleted, if so.
    fn refuses_deletion(&self, _name: &str) -> Option<&'static str> {
        None
    }

    /// Seconds that an object in deletion is given to stop; `None` for kinds that nothing runs for.
    fn grace_seconds(&self, _old: &Value, _asked: Option<i64>) -> Option<i64> {
        None
    }

    /// For a kind whose deletion is an update of its own, which gives neither a grace period nor a new generation: the first words of its
    /// refusal of a precondition.
    fn deletes_by_update(&self) -> Option<&'static str> {
        None
    }

    /// What else a deletion leaves behind, beyond deadline and finalizers.
    fn mark_deleted(&self, _value: &mut Value) {}

    /// Whether an object in deletion has nothing of its own kind left to wait for.
    fn is_released(&self, _value: &Value) -> bool {
        true
    }
}

/// What becomes of what an object owns when its deletion does not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dependents {
    /// It goes after its owner.
    Go,
    /// It stays: so it is with the oldest kinds. Where not everybody expects that, whoever deletes is told.
    Stay(Option<&'static str>),
    /// Objects of the kind own nothing, and what a deletion says of it is passed over.
    None,
}

/// Whether anything differs that a client asks for, as against what is reported or administered.
pub fn desired_state_differs(next: &Value, old: &Value) -> bool {
    let desired = |value: &Value| -> Map<String, Value> {
        object(value, "")
            .into_iter()
            .flatten()
            .filter(|(member, _)| {
                !matches!(
                    member.as_str(),
                    "metadata" | "status" | "apiVersion" | "kind"
                )
            })
            .map(|(member, value)| (member.clone(), value.clone()))
            .collect()
    };
    desired(next) != desired(old)
}

/// For kinds whose metadata is all there is to judge.
pub struct MetadataOnly;

impl Strategy for MetadataOnly {}

/// What a write of `part` makes of `old`, for kinds without rules of their own.
pub(crate) fn replace_part(
    kind: &Kind,
    part: Option<Subresource>,
    proposed: Value,
    old: &Value,
) -> Value {
    match part {
        None => {
            let mut next = proposed;
            if kind.has(Subresource::Status) {
                put(&mut next, "status", old.get("status").cloned());
            }
            next
        }
        Some(Subresource::Status) => {
            let mut next = old.clone();
            put(&mut next, "status", proposed.get("status").cloned());
            if let StatusMetadata::TakenBut(kept) = kind.status_metadata {
                let mut metadata = proposed.get("metadata").cloned().unwrap_or_default();
                for field in kept {
                    put(&mut metadata, field, old["metadata"].get(*field).cloned());
                }
                next["metadata"] = metadata;
            }
            next
        }
        // Made by the server from what it was asked.
        Some(Subresource::Scale | Subresource::Binding) => proposed,
        // Not written through.
        Some(_) => old.clone(),
    }
}

/// What can be written through `part`, for kinds without rules of their own.
pub(crate) fn writable_by(kind: &Kind, part: Option<Subresource>) -> Writable {
    match part {
        None if kind.has(Subresource::Status) => Writable::except_status(),
        Some(Subresource::Status) => match kind.status_metadata {
            StatusMetadata::Kept => Writable::only_status(),
            StatusMetadata::TakenBut(kept) => {
                let kept = kept.iter().map(|field| vec!["metadata", field]);
                let fields: Vec<Vec<&str>> = kept.chain([vec!["spec"]]).collect();
                Writable::except(&fields.iter().map(Vec::as_slice).collect::<Vec<_>>())
            }
        },
        _ => Writable::All,
    }
}

/// The cluster as a write sees it.
pub trait Surroundings {
    fn requester(&self) -> Requester<'_>;

    /// Whether who asks for the write may do something else.
    fn allows(&self, question: &Question) -> bool;

    fn now(&self) -> Timestamp;

    /// Whether there is such an object.
    fn has(&self, kind: &Kind, namespace: Option<&str>, name: &str) -> bool;

    /// An object as it is stored.
    fn object(&self, kind: KindRef<'_>, namespace: Option<&str>, name: &str) -> Option<Value>;

    /// All objects of a kind, or those in a namespace, as they are stored.
    fn objects(&self, kind: KindRef<'_>, namespace: Option<&str>) -> Vec<Value>;

    /// What the component of an image imports: `wasi:keyvalue/store@0.2.0-draft2`. None where that is not known here: of an
    /// image that is elsewhere, the node finds out.
    fn imports(&self, image: &str) -> Option<Arc<[String]>>;

    fn is_claimed(&self, claim: &Claim) -> bool;

    /// Where virtual addresses of Services come from.
    fn service_range(&self) -> ServiceRange;
}

/// Who asks for a write.
#[derive(Clone, Copy, Debug)]
pub struct Requester<'a> {
    pub user: &'a str,
    pub groups: &'a [String],
    pub uid: Option<&'a str>,
    /// What else is known of him.
    pub extra: Option<&'a BTreeMap<String, Vec<String>>>,
}

/// An object that is there as long as another one holds something.
pub struct Companion {
    pub kind: KindRef<'static>,
    pub object: Value,
}

/// Something that only one object of the cluster may hold, as the store key that stands for it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Claim(String);

impl Claim {
    pub(crate) fn new(sort: &str, what: impl std::fmt::Display) -> Self {
        Self(format!("/weft.dev/{sort}/-/{what}"))
    }

    /// The key whose presence says that it is held; its value names the holder.
    pub fn key(&self) -> &str {
        &self.0
    }
}

/// A cluster for tests: the objects that it is made with, and the claims that those hold.
#[cfg(test)]
pub(crate) mod small {
    use super::*;

    #[derive(Default)]
    pub struct Cluster {
        /// What whoever asks may not do.
        refused: Option<&'static str>,
        objects: Vec<(Arc<Kind>, Value)>,
        claims: BTreeSet<Claim>,
    }

    impl Cluster {
        /// Without the right to a verb.
        pub fn refusing(verb: &'static str) -> Self {
            Self {
                refused: Some(verb),
                ..Self::default()
            }
        }

        pub fn with(mut self, kind: KindRef<'_>, object: Value) -> Self {
            self.claims.extend(kind.strategy.claims(&object));
            self.objects.push((Arc::clone(kind), object));
            self
        }

        fn of<'a>(&'a self, kind: &'a Kind) -> impl Iterator<Item = &'a Value> {
            let objects = self.objects.iter().filter(move |(of, _)| **of == *kind);
            objects.map(|(_, object)| object)
        }
    }

    impl Surroundings for Cluster {
        fn requester(&self) -> Requester<'_> {
            Requester {
                user: "",
                groups: &[],
                uid: None,
                extra: None,
            }
        }

        fn allows(&self, question: &Question) -> bool {
            self.refused != Some(question.verb.as_str())
        }

        fn now(&self) -> Timestamp {
            Timestamp::UNIX_EPOCH
        }

        fn has(&self, kind: &Kind, _: Option<&str>, name: &str) -> bool {
            self.of(kind)
                .any(|object| object["metadata"]["name"] == name)
        }

        fn object(&self, kind: KindRef<'_>, _: Option<&str>, name: &str) -> Option<Value> {
            let mut objects = self.of(kind);
            objects
                .find(|object| object["metadata"]["name"] == name)
                .cloned()
        }

        fn objects(&self, kind: KindRef<'_>, _: Option<&str>) -> Vec<Value> {
            self.of(kind).cloned().collect()
        }

        fn imports(&self, _: &str) -> Option<Arc<[String]>> {
            None
        }

        fn is_claimed(&self, claim: &Claim) -> bool {
            self.claims.contains(claim)
        }

        fn service_range(&self) -> ServiceRange {
            ServiceRange::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Registry;

    /// As the strategies of Kubernetes 1.37 have it; kinds that are not named keep their metadata.
    #[test]
    fn metadata_in_the_body_of_a_status_is_taken_where_kubernetes_takes_it() {
        let registry = Registry::builtin();
        let kinds = registry
            .stored()
            .filter(|kind| kind.has(Subresource::Status));
        let mut taken: Vec<String> = kinds
            .filter_map(|kind| match kind.status_metadata {
                StatusMetadata::Kept => None,
                StatusMetadata::TakenBut([]) => Some(kind.kind.to_string()),
                StatusMetadata::TakenBut(kept) => {
                    Some(format!("{} but {}", kind.kind, kept.join(" ")))
                }
            })
            .collect();
        taken.sort();
        assert_eq!(
            taken,
            [
                "CertificateSigningRequest",
                "CronJob",
                "CustomResourceDefinition",
                "DaemonSet",
                "Deployment but labels",
                "HorizontalPodAutoscaler",
                "Ingress",
                "Job",
                "Namespace",
                "Node",
                "PersistentVolume",
                "PersistentVolumeClaim",
                "Pod but deletionTimestamp ownerReferences",
                "PodDisruptionBudget",
                "ReplicaSet",
                "ReplicationController",
                "ResourceQuota",
                "Service",
                "StatefulSet",
            ]
        );
    }

    #[test]
    fn a_replacement_makes_what_is_not_there_where_it_does_in_kubernetes() {
        let registry = Registry::builtin();
        let kinds = registry
            .stored()
            .filter(|kind| kind.strategy.creates_on_update());
        let mut makers: Vec<&str> = kinds.map(|kind| &*kind.kind).collect();
        makers.sort_unstable();
        assert_eq!(
            makers,
            [
                "ClusterRole",
                "ClusterRoleBinding",
                "Endpoints",
                "Event",
                "Lease",
                "LimitRange",
                "Role",
                "RoleBinding",
                "RuntimeClass",
                "Service",
            ]
        );
    }

    #[test]
    fn who_replaces_without_having_read_is_refused_where_it_is_in_kubernetes() {
        let registry = Registry::builtin();
        let of_others = ["gateway.networking.k8s.io", "weft.dev"];
        let kinds = registry.stored().filter(|kind| {
            !of_others.contains(&&*kind.group) && !kind.strategy.allows_unconditional_update()
        });
        let mut strict: Vec<&str> = kinds.map(|kind| &*kind.kind).collect();
        strict.sort_unstable();
        assert_eq!(
            strict,
            [
                "APIService",
                "CSIDriver",
                "CSINode",
                "CSIStorageCapacity",
                "ClusterTrustBundle",
                "CustomResourceDefinition",
                "DeviceTaintRule",
                "Lease",
                "MutatingAdmissionPolicy",
                "MutatingAdmissionPolicyBinding",
                "MutatingWebhookConfiguration",
                "PodCertificateRequest",
                "PodDisruptionBudget",
                "RuntimeClass",
                "StorageVersionMigration",
                "ValidatingAdmissionPolicy",
                "ValidatingAdmissionPolicyBinding",
                "ValidatingWebhookConfiguration",
                "VolumeAttachment",
            ]
        );
    }
}
