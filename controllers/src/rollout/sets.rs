//! The ReplicaSets of a Rollout: one a revision, as large as its part in the calls.
//!
//! Names, hashes and templates are a Deployment's ([`crate::deployment::sets`]). What no calls are led to any more keeps its pods for a while, since
//! nodes hear of that a moment later, and since somebody may want to go back; until when stands on the set.
//!
//! Invariant: the stable revision's set is never made smaller than what is asked for, and a set is only deleted without pods.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};
use weft_api::annotation::{ROLLOUT_REVISION, SCALE_DOWN_AT};
use weft_api::time::rfc3339;
use weft_kinds::REPLICA_SET;

use super::Rollout;
use super::status::Status;
use super::step;
use crate::amount::{count, pods};
use crate::claim::controller_reference;
use crate::deployment::sets::{same_template, set_name, size_of, template_hash};
use crate::deployment::{HASH_LABEL, NOT_COPIED};
use crate::indexer::Cached;
use crate::lens::ReplicaSet;
use crate::view::View;
use crate::write::{Note, Write, object};
use crate::{Outcome, plus_seconds, until};

/// A set.
type Row = Arc<Cached<ReplicaSet>>;

/// The sets of one Rollout.
pub struct Sets<'a> {
    row: &'a Cached<Rollout>,
    owned: Vec<Row>,
    /// Of the template.
    current: String,
    collisions: Option<i32>,
}

impl<'a> Sets<'a> {
    pub fn of(row: &'a Cached<Rollout>, owned: Vec<Row>, collisions: Option<i32>) -> Self {
        let mut sets = Self {
            row,
            owned,
            current: String::new(),
            collisions,
        };
        let hash = template_hash(sets.template(), collisions.unwrap_or(0));
        // By the hash first: it names the template that a set was made from, however the server has spelled it since.
        sets.current = match sets.set(&hash) {
            Some(_) => hash,
            None => {
                let typed = serde_json::from_value(sets.template().clone());
                let like = typed.ok().and_then(|template| {
                    let mut all = sets.owned.iter();
                    all.find(|set| same_template(&set.body, &template))
                });
                let label = like
                    .and_then(|set| set.meta.labels.get(HASH_LABEL))
                    .cloned();
                label.unwrap_or(hash)
            }
        };
        sets
    }

    /// As it was written.
    fn template(&self) -> &'a Value {
        let whole = self.row.object.as_ref().map(|object| object.as_value());
        whole.map_or(&Value::Null, |whole| &whole["spec"]["template"])
    }

    pub fn current_revision(&self) -> &str {
        &self.current
    }

    pub fn collisions(&self) -> Option<i32> {
        self.collisions
    }

    fn set(&self, revision: &str) -> Option<&Row> {
        let is_of =
            |set: &&Row| set.meta.labels.get(HASH_LABEL).map(String::as_str) == Some(revision);
        self.owned.iter().find(is_of)
    }

    /// Pods of a revision that are available, of those that its set is to have.
    pub fn available(&self, revision: &str) -> i64 {
        let set = self.set(revision);
        set.map_or(0, |set| {
            let status = set.body.status.as_ref();
            count(status.and_then(|status| status.available_replicas)).min(size_of(set))
        })
    }

    /// Whether a revision has no pod, and is to have none.
    pub fn is_empty(&self, revision: &str) -> bool {
        self.set(revision)
            .is_none_or(|set| size_of(set) == 0 && there(set) == 0)
    }

    /// Makes what is missing, and has each set as large as it is to be.
    pub fn fit(&mut self, view: &View, status: &Status, now: Timestamp, outcome: &mut Outcome) {
        let asked = &self.row.body.asked;
        let wanted = step::size(status, asked);
        let is_back = status.is_rolled_back();
        if self.set(&self.current).is_none() && !is_back {
            self.make(view, wanted, &mut outcome.writes);
        }
        for set in &self.owned {
            let revision = set.meta.labels.get(HASH_LABEL).map(String::as_str);
            let is_stable = revision.is_some() && revision == status.stable_revision.as_deref();
            let is_current = revision == Some(&*self.current) && !is_back;
            let size = match (is_stable, is_current) {
                (true, _) => Some(asked.replicas),
                (_, true) => Some(wanted),
                _ => None,
            };
            let mut patch = json!({});
            let present = size_of(set);
            let due = set.meta.annotations.get(SCALE_DOWN_AT);
            let due: Option<Timestamp> = due.and_then(|due| due.parse().ok());
            let next = match (size, due) {
                (Some(size), _) => {
                    if set.meta.annotations.contains_key(SCALE_DOWN_AT) {
                        patch["metadata"]["annotations"][SCALE_DOWN_AT] = Value::Null;
                    }
                    size
                }
                (None, _) if present == 0 => 0,
                (None, Some(due)) if due <= now => 0,
                (None, Some(due)) => {
                    outcome.again_after(until(due, now));
                    present
                }
                (None, None) => {
                    let due = plus_seconds(now, asked.delay_seconds);
                    patch["metadata"]["annotations"][SCALE_DOWN_AT] = json!(rfc3339(due));
                    present
                }
            };
            if next != present {
                patch["spec"]["replicas"] = json!(pods(next));
            }
            let had = set.body.spec.min_ready_seconds.unwrap_or(0);
            if is_current && had != asked.min_ready {
                patch["spec"]["minReadySeconds"] = json!(asked.min_ready);
            }
            if patch == json!({}) {
                continue;
            }
            let mut write = Write::patch(set, patch);
            if next != present {
                let direction = if next > present { "up" } else { "down" };
                let name = &set.key.name;
                let message =
                    format!("Scaled {direction} replica set {name} from {present} to {next}");
                let about = self.row.reference();
                write = write.telling(Note::normal(about, "ScalingReplicaSet", message));
            }
            outcome.writes.push(write);
        }
        self.drop_history(status, &mut outcome.writes);
    }

    /// What is counted of all of them.
    pub fn count(&self, status: &mut Status) {
        let sum = |of: fn(&Row) -> i64| pods(self.owned.iter().map(of).sum());
        status.replicas = sum(there);
        status.ready_replicas = sum(|set| {
            let status = set.body.status.as_ref();
            count(status.and_then(|status| status.ready_replicas))
        });
        let available = sum(|set| {
            let status = set.body.status.as_ref();
            count(status.and_then(|status| status.available_replicas))
        });
        status.available_replicas = available.min(status.ready_replicas);
        status.updated_replicas = pods(self.set(&self.current).map_or(0, there));
    }

    fn make(&mut self, view: &View, size: i64, writes: &mut Vec<Write>) {
        let name = set_name(&self.row.key.name, &self.current);
        let key = self.row.key.sibling(&name);
        if view.object_of(&REPLICA_SET, &key).is_some() {
            // The name is taken by a set that is not ours or has another template: it is hashed again.
            let next = self.collisions.unwrap_or(0).checked_add(1).unwrap_or(0);
            self.collisions = Some(next);
            return;
        }
        let set = self.new_set(&name, size);
        let message = format!("Scaled up replica set {name} from 0 to {size}");
        let note = Note::normal(self.row.reference(), "ScalingReplicaSet", message);
        let write = Write::create(&REPLICA_SET, object(set));
        writes.push(write.telling(note.or_refused("ReplicaSetCreateError")));
    }

    fn new_set(&self, name: &str, size: i64) -> Value {
        let mut template = self.template().clone();
        template["metadata"]["labels"][HASH_LABEL] = json!(self.current);
        let whole = self.row.object.as_ref().map(|object| object.as_value());
        let mut selector = whole.map_or(Value::Null, |whole| whole["spec"]["selector"].clone());
        selector["matchLabels"][HASH_LABEL] = json!(self.current);
        let mut annotations = (*self.row.meta.annotations).clone();
        annotations.retain(|key, _| !NOT_COPIED.contains(&key.as_str()));
        let newest = self.owned.iter().map(number).max().unwrap_or(0);
        annotations.insert(
            ROLLOUT_REVISION.to_owned(),
            newest.saturating_add(1).to_string(),
        );
        json!({
            "apiVersion": REPLICA_SET.api_version(),
            "kind": REPLICA_SET.kind,
            "metadata": {
                "name": name,
                "namespace": &*self.row.key.namespace,
                "labels": template["metadata"]["labels"].clone(),
                "annotations": annotations,
                "ownerReferences": [controller_reference(self.row)],
            },
            "spec": {
                "replicas": pods(size),
                "minReadySeconds": self.row.body.asked.min_ready,
                "selector": selector,
                "template": template,
            },
        })
    }

    /// Deletes the oldest sets without pods, beyond those that are kept.
    fn drop_history(&self, status: &Status, writes: &mut Vec<Write>) {
        let is_used = |set: &Row| {
            let revision = set.meta.labels.get(HASH_LABEL);
            revision == status.stable_revision.as_ref() || revision == Some(&self.current)
        };
        let old = self.owned.iter().filter(|set| !is_used(set));
        let mut old: Vec<&Row> = old.filter(|set| !set.meta.is_deleting()).collect();
        old.sort_by_key(|set| number(set));
        let excess = old.len().saturating_sub(self.row.body.asked.history);
        for set in old.into_iter().take(excess) {
            let observed = set.body.status.as_ref().and_then(|s| s.observed_generation);
            let is_seen = set.meta.generation <= observed.unwrap_or(0);
            if size_of(set) == 0 && there(set) == 0 && is_seen {
                writes.push(Write::delete(set));
            }
        }
    }
}

/// Pods that there are.
fn there(set: &Row) -> i64 {
    count(set.body.status.as_ref().map(|status| status.replicas))
}

/// Which revision it is, counted from 1.
fn number(set: &Row) -> i64 {
    let text = set.meta.annotations.get(ROLLOUT_REVISION);
    let number = text.and_then(|text| text.parse().ok());
    number.filter(|number| *number < i64::MAX).unwrap_or(0)
}
