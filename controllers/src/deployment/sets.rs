//! The ReplicaSets of a Deployment: their sizes as a pass would have them, and new ones.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};
use weft_api::names;
use weft_api::object::Object;
use weft_api::view::PodTemplateSpec;
use weft_kinds::REPLICA_SET;

use super::want::Want;
use super::{DESIRED_REPLICAS, HASH_LABEL, MAX_REPLICAS, NOT_COPIED, REVISION};
use crate::amount::{count, pods};
use crate::claim::controller_reference;
use crate::indexer::Cached;
use crate::lens::{Deployment, ReplicaSet};
use crate::plus_seconds;
use crate::pod::{self, Pod};
use crate::view::View;
use crate::write::{Note, Write, object};

/// A ReplicaSet with its desired size and annotations as we would have them.
pub struct Set {
    pub row: Arc<Cached<ReplicaSet>>,
    pub size: i64,
    pub annotations: BTreeMap<String, String>,
}

impl Set {
    pub fn of(row: Arc<Cached<ReplicaSet>>) -> Self {
        Self {
            size: size_of(&row),
            annotations: (*row.meta.annotations).clone(),
            row,
        }
    }

    /// The largest number there is counts as none: nothing could come after it, so each look would find the current set
    /// to be too old and write its history on.
    pub fn revision(&self) -> i64 {
        let text = self.row.meta.annotations.get(REVISION);
        let number = text.and_then(|text| text.parse().ok());
        number.filter(|number| *number < i64::MAX).unwrap_or(0)
    }

    pub fn available(&self) -> i64 {
        let status = self.row.body.status.as_ref();
        count(status.and_then(|s| s.available_replicas))
    }

    /// Pods that will still be available once the set has its size.
    ///
    /// What the set reports may be older than its last change of size, and than the last pod that was taken from it: taking it as it is would
    /// have sets shrink twice for the same pods. So its pods are counted, too.
    pub fn dependable(&self, view: &View, now: Timestamp) -> i64 {
        let reported = self.available().min(self.size);
        let min_ready = count(self.row.body.spec.min_ready_seconds);
        let is_available = |pod: &&Arc<Cached<Pod>>| {
            let since = pod.body.ready_since();
            let is_due = since.is_none_or(|since| plus_seconds(since, min_ready) <= now);
            Pod::is_active(pod) && pod.body.is_ready && (min_ready == 0 || is_due)
        };
        let pods = view.list_by(&pod::BY_CONTROLLER, &self.row.meta.uid);
        let available = pods.filter(is_available).count();
        reported.min(i64::try_from(available).unwrap_or(i64::MAX))
    }

    pub fn ready(&self) -> i64 {
        let status = self.row.body.status.as_ref();
        count(status.and_then(|s| s.ready_replicas))
    }

    pub fn actual(&self) -> i64 {
        count(self.row.body.status.as_ref().map(|s| s.replicas))
    }

    pub fn terminating(&self) -> i64 {
        let status = self.row.body.status.as_ref();
        count(status.and_then(|s| s.terminating_replicas))
    }

    pub fn created(&self) -> (Option<Timestamp>, &str) {
        (self.row.meta.creation_timestamp, &*self.row.key.name)
    }

    pub fn annotation_number(&self, key: &str) -> Option<i64> {
        let number: i32 = self.annotations.get(key)?.parse().ok()?;
        Some(i64::from(number))
    }

    /// Sets the size, with the annotations that proportional scaling reads later.
    pub fn scale(&mut self, size: i64, want: &Want<'_>) {
        self.size = i64::from(pods(size));
        self.note_wanted(want);
    }

    pub fn note_wanted(&mut self, want: &Want<'_>) {
        let maximum = want.pods_max();
        self.annotations
            .insert(DESIRED_REPLICAS.into(), want.replicas.to_string());
        self.annotations
            .insert(MAX_REPLICAS.into(), maximum.to_string());
    }
}

pub fn size_of(row: &Cached<ReplicaSet>) -> i64 {
    count(Some(row.body.spec.replicas.unwrap_or(1)))
}

/// What must change on a set, with the event that says so.
pub fn set_patch(owner: &Cached<Deployment>, set: &Set, min_ready: Option<i32>) -> Option<Write> {
    let present = size_of(&set.row);
    let mut patch = json!({});
    if set.size != present {
        patch["spec"]["replicas"] = json!(pods(set.size));
    }
    let had = set.row.body.spec.min_ready_seconds.unwrap_or(0);
    if let Some(seconds) = min_ready.filter(|seconds| *seconds != had) {
        patch["spec"]["minReadySeconds"] = json!(seconds);
    }
    for (key, value) in &set.annotations {
        if set.row.meta.annotations.get(key) != Some(value) {
            patch["metadata"]["annotations"][key] = json!(value);
        }
    }
    if patch.as_object().is_some_and(serde_json::Map::is_empty) {
        return None;
    }
    let write = Write::patch(&set.row, patch);
    if set.size == present {
        return Some(write);
    }
    let direction = if set.size > present { "up" } else { "down" };
    let name = &set.row.key.name;
    let message = format!(
        "Scaled {direction} replica set {name} from {present} to {}",
        set.size
    );
    Some(write.telling(Note::normal(
        owner.reference(),
        "ScalingReplicaSet",
        message,
    )))
}

/// The same pods would come out of it. The hash label is ours and does not count.
pub fn same_template(set: &ReplicaSet, template: &PodTemplateSpec) -> bool {
    let own = set.spec.template.clone();
    let (mut own, mut template) = (own.unwrap_or_default(), template.clone());
    for template in [&mut own, &mut template] {
        let meta = template.metadata.get_or_insert_default();
        meta.creation_timestamp = None;
        if let Some(labels) = &mut meta.labels {
            labels.remove(HASH_LABEL);
        }
        meta.labels = meta.labels.take().filter(|labels| !labels.is_empty());
        meta.annotations = meta.annotations.take().filter(|map| !map.is_empty());
    }
    own == template
}

pub fn template_hash(template: &Value, collisions: i32) -> String {
    let text = template.to_string();
    let hash = names::hash(&[text.as_bytes(), &collisions.to_be_bytes()]);
    names::suffix(hash, 10)
}

/// `{deployment}-{hash}`: ReplicaSets carry subdomain names, so only pods have to fit a label.
pub fn set_name(deployment: &str, hash: &str) -> String {
    format!("{deployment}-{hash}")
}

pub fn new_set(want: &Want<'_>, name: &str, hash: &str, size: i64, revision: &str) -> Object {
    let mut template = want.raw_template.clone();
    if !template["metadata"].is_object() {
        template["metadata"] = json!({});
    }
    if !template["metadata"]["labels"].is_object() {
        template["metadata"]["labels"] = json!({});
    }
    template["metadata"]["labels"][HASH_LABEL] = json!(hash);
    let mut selector = want.raw_selector.clone();
    if !selector["matchLabels"].is_object() {
        selector["matchLabels"] = json!({});
    }
    selector["matchLabels"][HASH_LABEL] = json!(hash);
    let mut annotations: BTreeMap<String, String> = (*want.row.meta.annotations).clone();
    annotations.retain(|key, _| !NOT_COPIED.contains(&key.as_str()));
    annotations.insert(REVISION.into(), revision.to_owned());
    annotations.insert(DESIRED_REPLICAS.into(), want.replicas.to_string());
    let maximum = want.pods_max();
    annotations.insert(MAX_REPLICAS.into(), maximum.to_string());
    let mut value = json!({
        "apiVersion": REPLICA_SET.api_version(),
        "kind": REPLICA_SET.kind,
        "metadata": {
            "name": name,
            "namespace": &*want.row.key.namespace,
            "labels": template["metadata"]["labels"].clone(),
            "annotations": annotations,
            "ownerReferences": [controller_reference(want.row)],
        },
        "spec": {
            "replicas": pods(size),
            "selector": selector,
            "template": template,
        },
    });
    let min_ready = want.spec.min_ready_seconds.unwrap_or(0);
    if min_ready > 0 {
        value["spec"]["minReadySeconds"] = json!(min_ready);
    }
    object(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_follows_the_template() {
        let one = json!({"spec": {"containers": [{"name": "a", "image": "x:1"}]}});
        let two = json!({"spec": {"containers": [{"name": "a", "image": "x:2"}]}});
        assert_eq!(template_hash(&one, 0), template_hash(&one.clone(), 0));
        assert_ne!(template_hash(&one, 0), template_hash(&two, 0));
        assert_ne!(template_hash(&one, 0), template_hash(&one, 1));
    }
}
