//! The volume claims of a StatefulSet's pods: made before the pod, named after it, and owned by whoever takes them away.
//!
//! Kept by default. Where claims go with the set, the set owns them; where they go when the set shrinks, the pod that is beyond it does, so
//! that garbage collection takes them once the pod is gone. What somebody else controls, or a namesake that is gone, is left alone.

use serde_json::{Value, json};
use weft_api::meta::OwnerReference;
use weft_kinds::{PERSISTENT_VOLUME_CLAIM, POD, STATEFUL_SET};

use super::ordinal_of;
use crate::indexer::Cached;
use crate::lens::StatefulSet;
use crate::metadata::{Key, PartialObject};
use crate::view::View;
use crate::write::{Note, Write, object};

/// What becomes of claims, as the set says it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Retention {
    /// They go with the set.
    pub goes_when_deleted: bool,
    /// They go when their ordinal is beyond the set.
    pub goes_when_scaled: bool,
}

impl Retention {
    pub fn of(set: &Cached<StatefulSet>) -> Self {
        let policy = &set.body.spec.persistent_volume_claim_retention_policy;
        let policy = policy.as_ref();
        let goes = |what: Option<&String>| what.is_some_and(|what| what == "Delete");
        Self {
            goes_when_deleted: goes(policy.and_then(|policy| policy.when_deleted.as_ref())),
            goes_when_scaled: goes(policy.and_then(|policy| policy.when_scaled.as_ref())),
        }
    }

    /// Whether the set and whether the pod is to own the claim.
    fn owners(self, in_range: bool) -> (bool, bool) {
        let by_pod = self.goes_when_scaled && !in_range;
        (self.goes_when_deleted && !by_pod, by_pod)
    }
}

/// Who may own a claim. A pod that is not there yet owns nothing.
pub struct Owners<'a> {
    pub set: &'a Cached<StatefulSet>,
    pub pod: Option<&'a PartialObject>,
    pub in_range: bool,
}

/// The templates of a set's claims, as they were written, with the name of each claim for this ordinal.
pub fn templates(
    set: &Cached<StatefulSet>,
    ordinal: i64,
) -> impl Iterator<Item = (String, &Value)> {
    let object = set.object.as_ref();
    let templates = object.map(|object| &object.as_value()["spec"]["volumeClaimTemplates"]);
    let templates = templates.and_then(Value::as_array).into_iter().flatten();
    templates.filter_map(move |template| {
        let name = template["metadata"]["name"].as_str()?;
        Some((format!("{name}-{}-{ordinal}", set.key.name), template))
    })
}

/// Whether a claim of this name would be one of the set's.
pub fn is_named_for(set: &Cached<StatefulSet>, claim: &str) -> bool {
    let Some((_, ordinal)) = ordinal_of(claim) else {
        return false;
    };
    templates(set, ordinal).any(|(name, _)| name == claim)
}

/// Makes the claims of an ordinal that are missing.
///
/// # Errors
/// The sentence for a claim that is being deleted: its pod has to wait.
pub fn missing(
    view: &View,
    set: &Cached<StatefulSet>,
    ordinal: i64,
    in_range: bool,
) -> Result<Vec<Write>, String> {
    let (set_owns, _) = Retention::of(set).owners(in_range);
    let mut writes = Vec::new();
    for (name, template) in templates(set, ordinal) {
        let key = set.key.sibling(&name);
        match view.object_of(&PERSISTENT_VOLUME_CLAIM, &key) {
            Some(claim) if claim.meta.is_deleting() => {
                return Err(format!("pvc {name} is being deleted"));
            }
            Some(_) => {}
            None => writes.push(create(set, &key, template, ordinal, set_owns)),
        }
    }
    Ok(writes)
}

fn create(
    set: &Cached<StatefulSet>,
    key: &Key,
    template: &Value,
    ordinal: i64,
    set_owns: bool,
) -> Write {
    let mut metadata = template["metadata"].clone();
    metadata["name"] = json!(&*key.name);
    metadata["namespace"] = json!(&*key.namespace);
    let wanted = set.body.spec.selector.match_labels.iter().flatten();
    for (label, value) in wanted {
        if !metadata["labels"].is_object() {
            metadata["labels"] = json!({});
        }
        metadata["labels"][label] = json!(value);
    }
    if set_owns {
        metadata["ownerReferences"] = json!([reference_of_set(set)]);
    }
    let claim = json!({
        "apiVersion": "v1",
        "kind": PERSISTENT_VOLUME_CLAIM.kind,
        "metadata": metadata,
        "spec": template["spec"],
    });
    let message = format!(
        "Create Claim {} Pod {name}-{ordinal} in StatefulSet {name} success",
        key.name,
        name = set.key.name,
    );
    let told = Note::normal(set.reference(), "SuccessfulCreate", message);
    Write::create(&PERSISTENT_VOLUME_CLAIM, object(claim)).telling(told.or_refused("FailedCreate"))
}

/// Gives the claims of an ordinal that are there to whoever is to own them.
pub fn owned(view: &View, owners: &Owners<'_>, ordinal: i64) -> Vec<Write> {
    let mut writes = Vec::new();
    for (name, _) in templates(owners.set, ordinal) {
        let key = owners.set.key.sibling(&name);
        let Some(claim) = view.object_of(&PERSISTENT_VOLUME_CLAIM, &key) else {
            continue;
        };
        let Some(references) = wanted_references(&claim.meta.owner_references, owners) else {
            continue;
        };
        let references = if references.is_empty() {
            Value::Null
        } else {
            json!(references)
        };
        let patch = json!({ "ownerReferences": references });
        writes.push(Write::patch_metadata(claim, patch));
    }
    writes
}

/// Whether a claim of this ordinal was given to a pod of this name that is gone: it goes as well, and must not be used again.
pub fn is_stale(view: &View, set: &Cached<StatefulSet>, ordinal: i64, pod: &str) -> bool {
    if !Retention::of(set).goes_when_scaled {
        return false;
    }
    templates(set, ordinal).any(|(name, _)| {
        let claim = view.object_of(&PERSISTENT_VOLUME_CLAIM, &set.key.sibling(&name));
        claim.is_some_and(|claim| {
            let mut references = claim.meta.owner_references.iter();
            references.any(|reference| names_pod(reference, pod))
        })
    })
}

fn names_pod(reference: &OwnerReference, pod: &str) -> bool {
    reference.api_version == "v1" && *reference.kind == *POD.kind && reference.name == pod
}

fn names_set(reference: &OwnerReference, set: &str) -> bool {
    reference.api_version == STATEFUL_SET.api_version()
        && *reference.kind == *STATEFUL_SET.kind
        && reference.name == set
}

/// The owner references that a claim should have; `None`: those that it has.
fn wanted_references(
    present: &[OwnerReference],
    owners: &Owners<'_>,
) -> Option<Vec<OwnerReference>> {
    let retention = Retention::of(owners.set);
    let set = (&*owners.set.key.name, &*owners.set.meta.uid);
    let pod = owners.pod.map(|pod| (&*pod.key().name, &*pod.meta.uid));
    let is_of_set = |reference: &OwnerReference| names_set(reference, set.0);
    let is_of_pod = |reference: &OwnerReference| pod.is_some_and(|pod| names_pod(reference, pod.0));
    let is_stale = |reference: &OwnerReference| {
        (is_of_set(reference) && reference.uid != set.1)
            || (is_of_pod(reference) && pod.is_some_and(|pod| reference.uid != pod.1))
    };
    if present.iter().any(is_stale) {
        return None;
    }
    let is_ours = |reference: &OwnerReference| is_of_set(reference) || is_of_pod(reference);
    let keeps_all = !retention.goes_when_deleted && !retention.goes_when_scaled;
    let is_others = !keeps_all
        && present
            .iter()
            .any(|reference| !is_ours(reference) && reference.controller == Some(true));
    let (by_set, by_pod) = match is_others {
        // Somebody else controls it: whatever we said of it is taken back.
        true => (false, false),
        false => retention.owners(owners.in_range),
    };
    let mut wanted: Vec<OwnerReference> = present
        .iter()
        .filter(|reference| !is_ours(reference))
        .cloned()
        .collect();
    let ours = present.iter().filter(|reference| is_ours(reference));
    let mut kept = Vec::new();
    if by_set {
        kept.push(reference_of_set(owners.set));
    }
    if let Some(pod) = owners.pod.filter(|_| by_pod) {
        kept.push(reference_of_pod(pod));
    }
    let is_same = |a: &OwnerReference, b: &OwnerReference| {
        a.uid == b.uid && a.controller == Some(true) && b.controller == Some(true)
    };
    let ours: Vec<&OwnerReference> = ours.collect();
    let is_right =
        ours.len() == kept.len() && ours.iter().all(|a| kept.iter().any(|b| is_same(a, b)));
    if is_right {
        return None;
    }
    wanted.extend(kept);
    Some(wanted)
}

fn reference_of_set(set: &Cached<StatefulSet>) -> OwnerReference {
    OwnerReference {
        api_version: STATEFUL_SET.api_version().to_string(),
        kind: STATEFUL_SET.kind.to_string(),
        name: set.key.name.to_string(),
        uid: set.meta.uid.to_string(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

fn reference_of_pod(pod: &PartialObject) -> OwnerReference {
    OwnerReference {
        api_version: "v1".to_owned(),
        kind: POD.kind.to_string(),
        name: pod.key().name.to_string(),
        uid: pod.meta.uid.to_string(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}
