//! Deployments: roll a ReplicaSet for the current pod template up and the older ones down.
//!
//! The arithmetic is Kubernetes': `maxSurge` rounds up, `maxUnavailable` down, both zero means one unavailable; unhealthy
//! pods of old sets go first; scaling in the middle of a rollout is shared out in proportion. Annotations and conditions
//! carry what `kubectl rollout status|history|undo` read.
//!
//! Numbers of pods are `i64` here: each is an `i32` that somebody wrote, so sums and products of them stay far below, and
//! what is written is cut to an `i32` again ([`pods`]). An owner of a ReplicaSet that cannot be read does nothing: it would
//! count wrong.
//!
//! The reconciler works on copies of the replica sets' desired sizes and annotations ([`Set`]) and turns what changed
//! into patches at the end, so every rule below is plain arithmetic.
//!
//! Invariants: the sets' sizes never sum up to more than `replicas + maxSurge` by our doing; old sets shrink only by what
//! is available above `replicas - maxUnavailable`, or was not available anyway.
//! Left to others: pods (`replicaset`), collecting the sets of a deleted deployment (`garbage`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use weft_api::meta::Meta;
use weft_api::object::Object;
use weft_api::selector::LabelSelector;
use weft_api::view::{
    Deployment, DeploymentCondition, DeploymentSpec, DeploymentStatus, IntOrString,
    PodTemplateSpec, ReplicaSet,
};

use crate::claim::{claim, controller_reference};
use crate::names;
use crate::pod;
use crate::replicaset::is_replica_failure;
use crate::table::Row;
use crate::view::{Key, Touched, View};
use crate::write::{DEPLOYMENTS, Note, PODS, REPLICA_SETS, Write, object};
use crate::{Context, Controller, Outcome, plus_seconds, stamp, until};

pub const CONTROLLER: Controller = Controller {
    name: "deployment-controller",
    reads: |reads| {
        reads
            .kind::<Deployment>()
            .kind::<ReplicaSet>()
            .index(&pod::BY_CONTROLLER);
    },
    keys,
    seeds: |view| {
        view.rows::<Deployment>()
            .map(|row| row.key.clone())
            .collect()
    },
    subject: |view, key| Some(view.entry_of(DEPLOYMENTS, key)?.reference()),
    reconcile,
};

const REVISION: &str = weft_api::annotation::DEPLOYMENT_REVISION;
const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
const DESIRED_REPLICAS: &str = "deployment.kubernetes.io/desired-replicas";
const MAX_REPLICAS: &str = "deployment.kubernetes.io/max-replicas";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
const HASH_LABEL: &str = weft_api::annotation::POD_TEMPLATE_HASH;
/// Annotations of a Deployment that do not describe its ReplicaSets.
const NOT_COPIED: &[&str] = &[
    LAST_APPLIED,
    REVISION,
    REVISION_HISTORY,
    DESIRED_REPLICAS,
    MAX_REPLICAS,
];
/// Old ReplicaSets kept for `rollout undo` when the spec does not say.
const DEFAULT_HISTORY_LIMIT: i32 = 10;
/// `progressDeadlineSeconds` of Kubernetes' defaulting; this large means "no deadline".
const NO_DEADLINE: i32 = i32::MAX;

fn keys(view: &View, touched: &Touched) -> Vec<Key> {
    match touched.resource {
        DEPLOYMENTS => vec![touched.key.clone()],
        REPLICA_SETS => {
            let mut keys: Vec<Key> = touched
                .owners
                .iter()
                .filter_map(|uid| view.entry(uid))
                .filter(|entry| entry.resource == DEPLOYMENTS)
                .map(|entry| entry.key.clone())
                .collect();
            if let Some(row) = touched.after::<ReplicaSet>()
                && row.meta.controller().is_none()
            {
                let namespace = &row.key.namespace;
                let matching = view.rows_in::<Deployment>(namespace).filter(|d| {
                    selector_of(&d.body).is_some_and(|selector| selector.matches(&row.meta.labels))
                });
                keys.extend(matching.map(|d| d.key.clone()));
            }
            keys
        }
        // Recreate waits for the last pod of the old sets.
        PODS if !touched.is_there => touched
            .owners
            .iter()
            .flat_map(|uid| view.entry(uid))
            .flat_map(|set| &set.owners)
            .filter_map(|owner| view.entry(&owner.uid))
            .filter(|entry| entry.resource == DEPLOYMENTS)
            .map(|entry| entry.key.clone())
            .collect(),
        _ => Vec::new(),
    }
}

/// A ReplicaSet with its desired size and annotations as we would have them.
#[derive(Clone)]
struct Set {
    row: Arc<Row<ReplicaSet>>,
    size: i64,
    annotations: BTreeMap<String, String>,
}

impl Set {
    fn of(row: Arc<Row<ReplicaSet>>) -> Self {
        Self {
            size: size_of(&row),
            annotations: row.meta.annotations.clone(),
            row,
        }
    }

    /// The largest number there is counts as none: nothing could come after it, so each look would find the current set
    /// to be too old and write its history on.
    fn revision(&self) -> i64 {
        let text = self.row.meta.annotations.get(REVISION);
        let number = text.and_then(|text| text.parse().ok());
        number.filter(|number| *number < i64::MAX).unwrap_or(0)
    }

    fn available(&self) -> i64 {
        let status = self.row.body.status.as_ref();
        count(status.and_then(|s| s.available_replicas))
    }

    /// Pods that will still be available once the set has its size. The report may be older than the last change of
    /// size; taking it as it is would shrink old sets twice for the same pods.
    fn dependable(&self) -> i64 {
        self.available().min(self.size)
    }

    fn ready(&self) -> i64 {
        let status = self.row.body.status.as_ref();
        count(status.and_then(|s| s.ready_replicas))
    }

    fn actual(&self) -> i64 {
        count(self.row.body.status.as_ref().map(|s| s.replicas))
    }

    fn terminating(&self) -> i64 {
        let status = self.row.body.status.as_ref();
        count(status.and_then(|s| s.terminating_replicas))
    }

    fn created(&self) -> (Option<Timestamp>, &str) {
        (self.row.meta.creation_timestamp, &self.row.meta.name)
    }

    fn annotation_number(&self, key: &str) -> Option<i64> {
        let number: i32 = self.annotations.get(key)?.parse().ok()?;
        Some(i64::from(number))
    }

    /// Sets the size, with the annotations that proportional scaling reads later.
    fn scale(&mut self, size: i64, want: &Want<'_>) {
        self.size = i64::from(pods(size));
        self.note_wanted(want);
    }

    fn note_wanted(&mut self, want: &Want<'_>) {
        let maximum = want.most();
        self.annotations
            .insert(DESIRED_REPLICAS.into(), want.replicas.to_string());
        self.annotations
            .insert(MAX_REPLICAS.into(), maximum.to_string());
    }
}

/// The Deployment's wishes, resolved.
struct Want<'a> {
    row: &'a Row<Deployment>,
    spec: &'a DeploymentSpec,
    replicas: i64,
    rolling: bool,
    /// Pods allowed above `replicas`; 0 for Recreate.
    surge: i64,
    /// Pods allowed to be missing; never above `replicas`.
    unavailable: i64,
    paused: bool,
    /// `None`: no deadline.
    deadline_seconds: Option<i64>,
    template: &'a PodTemplateSpec,
    /// The template as it was written, for copying without loss.
    raw_template: &'a Value,
    /// The selector as it was written.
    raw_selector: &'a Value,
}

impl<'a> Want<'a> {
    fn of(row: &'a Row<Deployment>) -> Option<Self> {
        let spec = &row.body.spec;
        let raw = &row.object.as_ref()?.as_value()["spec"];
        let replicas = count(Some(spec.replicas.unwrap_or(1)));
        let strategy = spec.strategy.as_ref();
        let rolling = strategy.and_then(|s| s.type_.as_deref()) != Some("Recreate");
        let (surge, unavailable) = if rolling {
            let rolling = strategy.and_then(|s| s.rolling_update.as_ref());
            resolve_fences(
                rolling.and_then(|r| r.max_surge.as_ref()),
                rolling.and_then(|r| r.max_unavailable.as_ref()),
                replicas,
            )
        } else {
            (0, 0)
        };
        let deadline = spec.progress_deadline_seconds.unwrap_or(NO_DEADLINE);
        Some(Self {
            row,
            spec,
            replicas,
            rolling,
            surge,
            unavailable: unavailable.min(replicas),
            paused: spec.paused.unwrap_or(false),
            deadline_seconds: (deadline != NO_DEADLINE).then_some(i64::from(deadline)),
            template: &spec.template,
            raw_template: &raw["template"],
            raw_selector: &raw["selector"],
        })
    }

    /// Pods at most while a rollout lasts, as an `i32` can say it.
    fn most(&self) -> i64 {
        (self.replicas + self.surge).min(i64::from(i32::MAX))
    }
}

/// A number of pods as somebody wrote it: absent or negative counts as none.
fn count(number: Option<i32>) -> i64 {
    i64::from(number.unwrap_or(0).max(0))
}

/// A number of pods as the API carries it.
fn pods(number: i64) -> i32 {
    i32::try_from(number.max(0)).unwrap_or(i32::MAX)
}

/// `(maxSurge, maxUnavailable)` in pods: percentages of `replicas` round up and down; both zero means one unavailable,
/// since a rollout could never move otherwise.
fn resolve_fences(
    surge: Option<&IntOrString>,
    unavailable: Option<&IntOrString>,
    replicas: i64,
) -> (i64, i64) {
    let default = IntOrString::String("25%".into());
    let surge = resolve(surge.unwrap_or(&default), replicas, true);
    let unavailable = resolve(unavailable.unwrap_or(&default), replicas, false);
    if surge == 0 && unavailable == 0 {
        (0, 1)
    } else {
        (surge, unavailable)
    }
}

/// Validation refuses other strings than percentages; such a one counts as zero here.
fn resolve(value: &IntOrString, total: i64, round_up: bool) -> i64 {
    match value {
        IntOrString::Int(number) => count(Some(*number)),
        IntOrString::String(text) => {
            let percent: i64 = text
                .strip_suffix('%')
                .and_then(|number| number.parse().ok())
                .unwrap_or(0);
            let product = percent.max(0).saturating_mul(total);
            let pods = if round_up {
                product.saturating_add(99) / 100
            } else {
                product / 100
            };
            pods.min(i64::from(i32::MAX))
        }
    }
}

fn selector_of(deployment: &Deployment) -> Option<LabelSelector> {
    let selector = &deployment.spec.selector;
    let selector = LabelSelector::from_object(&serde_json::to_value(selector).ok()?).ok()?;
    // An empty selector would claim every set of the namespace; validation refuses it.
    (!selector.is_everything()).then_some(selector)
}

fn size_of(row: &Row<ReplicaSet>) -> i64 {
    count(Some(row.body.spec.replicas.unwrap_or(1)))
}

/// The pass over one Deployment.
struct Pass<'a> {
    want: Want<'a>,
    now: Timestamp,
    /// The set of the current template, if it exists.
    new: Option<Set>,
    /// The others, oldest first.
    old: Vec<Set>,
    /// Annotations of the Deployment as we would have them.
    revision: Option<String>,
    status: DeploymentStatus,
    writes: Vec<Write>,
}

fn reconcile(view: &View, key: &Key, cx: &Context<'_>) -> Outcome {
    let Some(row) = view.get::<Deployment>(key) else {
        return Outcome::default();
    };
    let (Some(want), Some(selector)) = (Want::of(row), selector_of(&row.body)) else {
        return Outcome::default();
    };
    let mut unreadable = view.unreadable_of(REPLICA_SETS, &row.meta.uid);
    if unreadable.next().is_some() {
        return Outcome::default();
    }
    let candidates = view.rows_in::<ReplicaSet>(&key.namespace).cloned();
    let claims = claim(DEPLOYMENTS, &row.meta, &selector, candidates);
    if !claims.writes.is_empty() {
        // Ownership first: the next pass counts the adopted sets.
        return Outcome::of(claims.writes);
    }
    let mut sets: Vec<Set> = claims.owned.into_iter().map(Set::of).collect();
    sets.sort_by(|a, b| a.created().cmp(&b.created()));
    // By the hash first: it names the template this set was made from, however the server has spelled it since.
    let collisions = row.body.status.as_ref().and_then(|s| s.collision_count);
    let hash = template_hash(want.raw_template, collisions.unwrap_or(0));
    let made = |set: &Set| set.row.meta.labels.get(HASH_LABEL) == Some(&hash);
    let position = sets.iter().position(made).or_else(|| {
        let same = |set: &Set| same_template(&set.row.body, want.template);
        sets.iter().position(same)
    });
    let new = position.map(|at| sets.remove(at));
    let status = row.body.status.clone().unwrap_or_default();
    let mut pass = Pass {
        want,
        now: cx.now,
        new,
        old: sets,
        revision: row.meta.annotations.get(REVISION).cloned(),
        status,
        writes: Vec::new(),
    };
    pass.run(view);
    pass.finish()
}

impl Pass<'_> {
    fn run(&mut self, view: &View) {
        if self.want.row.meta.is_deleting() {
            return;
        }
        self.note_pause();
        if self.want.paused || self.is_scaling() {
            self.adopt_revision();
            self.scale_in_proportion();
            if self.want.paused {
                self.drop_history();
            }
        } else if self.want.rolling {
            self.roll(view);
        } else {
            self.recreate(view);
        }
    }

    /// One step of a rolling update: first up, then, in a later pass, down.
    fn roll(&mut self, view: &View) {
        if !self.ensure_new(view) {
            return;
        }
        if self.grow_new() || self.shrink_old() {
            return;
        }
        if self.is_complete() {
            self.drop_history();
        }
    }

    /// Recreate: nothing new before the last old pod is gone.
    fn recreate(&mut self, view: &View) {
        self.adopt_revision();
        let mut shrunk = false;
        for set in self.old.iter_mut().filter(|set| set.size > 0) {
            set.scale(0, &self.want);
            shrunk = true;
        }
        if shrunk || self.old_pods_run(view) {
            return;
        }
        if !self.ensure_new(view) {
            return;
        }
        self.grow_new();
        if self.is_complete() {
            self.drop_history();
        }
    }

    fn old_pods_run(&self, view: &View) -> bool {
        self.old
            .iter()
            .flat_map(|set| view.by(&pod::BY_CONTROLLER, &set.row.meta.uid))
            .any(|pod| !pod::is_finished(pod))
    }

    /// Makes sure the set of the current template exists and carries the newest revision. False: it was only now asked for.
    fn ensure_new(&mut self, view: &View) -> bool {
        if self.new.is_some() {
            self.adopt_revision();
            return true;
        }
        let newest = self.old.iter().map(Set::revision).max().unwrap_or(0);
        let mut collisions = self.status.collision_count.unwrap_or(0);
        let namespace = &self.want.row.key.namespace;
        let hash = template_hash(self.want.raw_template, collisions);
        let name = set_name(&self.want.row.meta.name, &hash);
        if view
            .entry_of(REPLICA_SETS, &Key::new(namespace, &name))
            .is_some()
        {
            // The name is taken by a set that is not ours or has another template: hash again next time.
            collisions = collisions.checked_add(1).unwrap_or(0);
            self.status.collision_count = Some(collisions);
            return false;
        }
        let size = self.size_for_new(0);
        let revision = newest.saturating_add(1).to_string();
        let set = new_set(&self.want, &name, &hash, size, &revision);
        let told = Note::normal(
            self.want.row.reference(),
            "ScalingReplicaSet",
            format!("Scaled up replica set {name} from 0 to {size}"),
        );
        let note = (size > 0).then_some(told);
        self.writes.push(Write::Create {
            resource: REPLICA_SETS,
            namespace: Some(namespace.clone()),
            object: set,
            note: note.map(|note| note.or_refused("ReplicaSetCreateError")),
        });
        self.revision = Some(revision);
        if self.want.deadline_seconds.is_some() {
            self.set_condition(
                "Progressing",
                "True",
                "NewReplicaSetCreated",
                format!("Created new replica set \"{name}\""),
            );
        }
        false
    }

    /// Gives the current set the newest revision, as after `rollout undo`, and the Deployment the same.
    fn adopt_revision(&mut self) {
        let newest_old = self.old.iter().map(Set::revision).max().unwrap_or(0);
        let Some(new) = &mut self.new else {
            return;
        };
        for (key, value) in &self.want.row.meta.annotations {
            if !NOT_COPIED.contains(&key.as_str()) {
                new.annotations.insert(key.clone(), value.clone());
            }
        }
        let mine = new.revision();
        if mine <= newest_old {
            if mine > 0 {
                let history = new.annotations.entry(REVISION_HISTORY.into()).or_default();
                let separator = if history.is_empty() { "" } else { "," };
                *history = format!("{history}{separator}{mine}");
            }
            let next = newest_old.saturating_add(1).to_string();
            new.annotations.insert(REVISION.into(), next);
        }
        self.revision = new.annotations.get(REVISION).cloned();
        let message = format!("Found new replica set \"{}\"", new.row.meta.name);
        if self.want.deadline_seconds.is_some() && self.condition("Progressing").is_none() {
            self.set_condition("Progressing", "True", "FoundNewReplicaSet", message);
        }
    }

    fn total(&self) -> i64 {
        let old: i64 = self.old.iter().map(|set| set.size).sum();
        old + self.new.as_ref().map_or(0, |set| set.size)
    }

    /// How large the current set, `present` pods large now, may be.
    fn size_for_new(&self, present: i64) -> i64 {
        if !self.want.rolling {
            return self.want.replicas;
        }
        let room = self.want.replicas + self.want.surge - self.total();
        if room <= 0 {
            return present;
        }
        present + room.min(self.want.replicas - present)
    }

    /// True when the current set changed size.
    fn grow_new(&mut self) -> bool {
        let Some(present) = self.new.as_ref().map(|set| set.size) else {
            return false;
        };
        let size = if present > self.want.replicas {
            self.want.replicas
        } else {
            self.size_for_new(present)
        };
        if size == present {
            return false;
        }
        if let Some(new) = &mut self.new {
            new.scale(size, &self.want);
        }
        true
    }

    /// True when an old set changed size.
    fn shrink_old(&mut self) -> bool {
        let floor = self.want.replicas - self.want.unavailable;
        let new_unavailable = self
            .new
            .as_ref()
            .map_or(0, |set| set.size - set.dependable());
        let spare = self.total() - floor - new_unavailable;
        if spare <= 0 || self.old.iter().all(|set| set.size == 0) {
            return false;
        }
        let mut shrunk = 0;
        // First what serves nobody anyway …
        for set in self.old.iter_mut().filter(|set| set.size > 0) {
            let unhealthy = (set.size - set.available()).max(0);
            let by = unhealthy.min(spare - shrunk);
            if by > 0 {
                set.scale(set.size - by, &self.want);
                shrunk += by;
            }
        }
        // … then what is available above the floor, oldest first.
        let available: i64 = self.old.iter().chain(&self.new).map(Set::dependable).sum();
        let mut spare = available - floor;
        for set in self.old.iter_mut().filter(|set| set.size > 0) {
            let by = set.size.min(spare);
            if by > 0 {
                set.scale(set.size - by, &self.want);
                spare -= by;
                shrunk += by;
            }
        }
        shrunk > 0
    }

    /// `spec.replicas` changed since the sets were last sized.
    fn is_scaling(&self) -> bool {
        let active = self.old.iter().chain(&self.new).filter(|set| set.size > 0);
        active
            .filter_map(|set| set.annotation_number(DESIRED_REPLICAS))
            .any(|desired| desired != self.want.replicas)
    }

    fn scale_in_proportion(&mut self) {
        let want = &self.want;
        let active = self.old.iter().chain(&self.new).filter(|set| set.size > 0);
        match active.count() {
            0 | 1 => {
                // The only active set, else the current one, else the newest.
                let mut sets: Vec<&mut Set> = self.old.iter_mut().chain(&mut self.new).collect();
                let only = sets.iter().position(|set| set.size > 0);
                let at = only.or_else(|| sets.len().checked_sub(1));
                if let Some(set) = at.map(|at| &mut sets[at]) {
                    set.scale(want.replicas, want);
                }
                return;
            }
            _ => {}
        }
        let saturated = self.new.as_ref().is_some_and(|set| {
            set.size == want.replicas
                && set.annotation_number(DESIRED_REPLICAS) == Some(want.replicas)
                && set.available() == want.replicas
        });
        if saturated {
            for set in self.old.iter_mut().filter(|set| set.size > 0) {
                set.scale(0, want);
            }
            return;
        }
        if !want.rolling {
            // Recreate empties the old sets by itself once the change of size is noted.
            for set in self.old.iter_mut().chain(&mut self.new) {
                set.note_wanted(want);
            }
            return;
        }
        let reported = count(self.status.replicas);
        let mut sets: Vec<&mut Set> = self.old.iter_mut().chain(&mut self.new).collect();
        sets.retain(|set| set.size > 0);
        let total: i64 = sets.iter().map(|set| set.size).sum();
        let allowed = if want.replicas > 0 {
            want.replicas + want.surge
        } else {
            0
        };
        let to_add = allowed - total;
        // Growing favours the larger and newer, shrinking the larger and older.
        if to_add > 0 {
            sets.sort_by(|a, b| (b.size, b.created()).cmp(&(a.size, a.created())));
        } else {
            sets.sort_by(|a, b| b.size.cmp(&a.size).then(a.created().cmp(&b.created())));
        }
        let mut added = 0;
        let mut sizes: Vec<i64> = Vec::with_capacity(sets.len());
        for set in &sets {
            let share = if to_add == 0 || to_add == added {
                0
            } else {
                let wished = proportion(set, want, reported);
                if to_add > 0 {
                    wished.min(to_add - added)
                } else {
                    wished.max(to_add - added)
                }
            };
            added += share;
            sizes.push(set.size + share);
        }
        if let Some(first) = sizes.first_mut() {
            *first = (*first + to_add - added).max(0);
        }
        for (set, size) in sets.into_iter().zip(sizes) {
            set.scale(size, want);
        }
    }

    fn is_complete(&self) -> bool {
        let updated = self.new.as_ref();
        let all: i64 = self.old.iter().chain(&self.new).map(Set::actual).sum();
        let available: i64 = self.old.iter().chain(&self.new).map(Set::available).sum();
        updated.map_or(0, Set::actual) == self.want.replicas
            && all == self.want.replicas
            && available == self.want.replicas
    }

    /// Deletes the oldest empty sets beyond `revisionHistoryLimit`.
    fn drop_history(&mut self) {
        let limit = self.want.spec.revision_history_limit;
        let limit = usize::try_from(limit.unwrap_or(DEFAULT_HISTORY_LIMIT)).unwrap_or(0);
        let mut kept: Vec<&Set> = self
            .old
            .iter()
            .filter(|set| !set.row.meta.is_deleting())
            .collect();
        kept.sort_by_key(|set| set.revision());
        let excess = kept.len().saturating_sub(limit);
        for set in kept.into_iter().take(excess) {
            let status = set.row.body.status.as_ref();
            let observed = status.and_then(|s| s.observed_generation).unwrap_or(0);
            let idle = set.actual() == 0 && set.size == 0 && size_of(&set.row) == 0;
            if idle && set.row.meta.generation <= observed {
                self.writes.push(Write::delete(&set.row));
            }
        }
    }

    fn condition(&self, kind: &str) -> Option<&DeploymentCondition> {
        let conditions = self.status.conditions.iter().flatten();
        conditions
            .into_iter()
            .find(|c| c.type_.as_deref() == Some(kind))
    }

    /// Sets a condition. The same status and reason leave it alone; the same status keeps its transition time.
    fn set_condition(&mut self, kind: &str, status: &str, reason: &str, message: String) {
        let old = self.condition(kind);
        if old.is_some_and(|c| {
            c.status.as_deref() == Some(status) && c.reason.as_deref() == Some(reason)
        }) {
            return;
        }
        self.replace_condition(kind, status, reason, message);
    }

    /// As [`Pass::set_condition`], but always renews `lastUpdateTime`, which the progress deadline counts from.
    fn replace_condition(&mut self, kind: &str, status: &str, reason: &str, message: String) {
        let now = stamp(self.now);
        let kept = self
            .condition(kind)
            .filter(|old| old.status.as_deref() == Some(status))
            .and_then(|old| old.last_transition_time.clone());
        let conditions = self.status.conditions.get_or_insert_default();
        conditions.retain(|c| c.type_.as_deref() != Some(kind));
        conditions.push(DeploymentCondition {
            type_: Some(kind.into()),
            status: Some(status.into()),
            reason: Some(reason.into()),
            message: Some(message),
            last_transition_time: Some(kept.unwrap_or_else(|| now.clone())),
            last_update_time: Some(now),
        });
    }

    fn remove_condition(&mut self, kind: &str) {
        if let Some(conditions) = &mut self.status.conditions {
            conditions.retain(|c| c.type_.as_deref() != Some(kind));
        }
    }

    fn note_pause(&mut self) {
        if self.want.deadline_seconds.is_none() {
            return;
        }
        let reason = self
            .condition("Progressing")
            .and_then(|c| c.reason.as_deref());
        if reason == Some("ProgressDeadlineExceeded") {
            return;
        }
        let was_paused = reason == Some("DeploymentPaused");
        if self.want.paused && !was_paused {
            let message = "Deployment is paused".to_owned();
            self.set_condition("Progressing", "Unknown", "DeploymentPaused", message);
        } else if !self.want.paused && was_paused {
            let message = "Deployment is resumed".to_owned();
            self.set_condition("Progressing", "Unknown", "DeploymentResumed", message);
        }
    }

    /// Replicas and conditions as the sets report them, and what the progress deadline says about it.
    fn update_status(&mut self) -> Option<Duration> {
        let before = self.want.row.body.status.clone().unwrap_or_default();
        let all = || self.old.iter().chain(&self.new);
        let some = |number: i64| (number != 0).then(|| pods(number));
        let available: i64 = all().map(Set::available).sum();
        let replicas: i64 = all().map(Set::actual).sum();
        let ready: i64 = all().map(Set::ready).sum();
        let terminating: i64 = all().map(Set::terminating).sum();
        let sizes: i64 = all().map(|set| size_of(&set.row)).sum();
        let updated = self.new.as_ref().map_or(0, Set::actual);
        self.status.observed_generation = Some(self.want.row.meta.generation);
        self.status.replicas = some(replicas);
        self.status.updated_replicas = some(updated);
        self.status.ready_replicas = some(ready);
        self.status.available_replicas = some(available);
        self.status.unavailable_replicas = some((sizes - available).max(0));
        self.status.terminating_replicas = some(terminating);
        if available >= self.want.replicas - self.want.unavailable {
            let message = "Deployment has minimum availability.".to_owned();
            self.set_condition("Available", "True", "MinimumReplicasAvailable", message);
        } else {
            let message = "Deployment does not have minimum availability.".to_owned();
            self.set_condition("Available", "False", "MinimumReplicasUnavailable", message);
        }
        self.note_failure();
        self.note_progress(&before)
    }

    /// Carries a set's refusal to create pods up to the Deployment.
    fn note_failure(&mut self) {
        let failure = self
            .new
            .iter()
            .chain(&self.old)
            .filter_map(|set| set.row.body.status.as_ref())
            .flat_map(|status| status.conditions.iter().flatten())
            .find(|c| is_replica_failure(c) && c.status.as_deref() == Some("True"));
        match failure {
            Some(failure) => {
                let reason = failure.reason.clone().unwrap_or_default();
                let message = failure.message.clone().unwrap_or_default();
                self.set_condition("ReplicaFailure", "True", &reason, message);
            }
            None => self.remove_condition("ReplicaFailure"),
        }
    }

    fn note_progress(&mut self, before: &DeploymentStatus) -> Option<Duration> {
        let Some(deadline) = self.want.deadline_seconds else {
            self.remove_condition("Progressing");
            return None;
        };
        if self.want.row.meta.is_deleting() || self.want.paused {
            return None;
        }
        let subject = match &self.new {
            Some(set) => format!("ReplicaSet \"{}\"", set.row.meta.name),
            None => format!("Deployment \"{}\"", self.want.row.meta.name),
        };
        let reason = self
            .condition("Progressing")
            .and_then(|c| c.reason.clone())
            .unwrap_or_default();
        let number = count;
        let now = &self.status;
        let complete = number(now.updated_replicas) == self.want.replicas
            && number(now.replicas) == self.want.replicas
            && number(now.available_replicas) == self.want.replicas;
        if complete {
            // Finished once: pods that come and go later are not a rollout.
            if reason != "NewReplicaSetAvailable" || self.progressing_message_differs(&subject) {
                let message = format!("{subject} has successfully progressed.");
                self.replace_condition("Progressing", "True", "NewReplicaSetAvailable", message);
            }
            return None;
        }
        let finished = reason == "NewReplicaSetAvailable"
            && number(now.replicas) == number(now.updated_replicas);
        if finished {
            return None;
        }
        let old_now = number(now.replicas) - number(now.updated_replicas);
        let old_before = number(before.replicas) - number(before.updated_replicas);
        let progressed = number(now.updated_replicas) > number(before.updated_replicas)
            || old_now < old_before
            || number(now.ready_replicas) > number(before.ready_replicas)
            || number(now.available_replicas) > number(before.available_replicas);
        if progressed {
            let message = format!("{subject} is progressing.");
            self.replace_condition("Progressing", "True", "ReplicaSetUpdated", message);
        }
        let condition = self.condition("Progressing")?;
        let reason = condition.reason.as_deref();
        if let Some("ProgressDeadlineExceeded" | "NewReplicaSetAvailable") = reason {
            return None;
        }
        let since = condition.last_update_time.as_ref()?.0;
        let due = plus_seconds(since, deadline);
        if due < self.now {
            let message = format!("{subject} has timed out progressing.");
            self.set_condition("Progressing", "False", "ProgressDeadlineExceeded", message);
            return None;
        }
        Some(until(due, self.now) + Duration::from_secs(1))
    }

    /// The condition still names another set than the one that is complete now.
    fn progressing_message_differs(&self, subject: &str) -> bool {
        let message = self
            .condition("Progressing")
            .and_then(|c| c.message.as_deref());
        message.is_some_and(|message| !message.starts_with(subject))
    }

    /// Turns what changed into writes.
    fn finish(mut self) -> Outcome {
        let requeue_after = self.update_status();
        let want = &self.want;
        let mut writes = Vec::new();
        let revision = want.row.meta.annotations.get(REVISION);
        if let Some(new) = self.revision.as_ref().filter(|r| Some(*r) != revision) {
            let patch = json!({"metadata": {"annotations": {REVISION: new}}});
            writes.push(Write::patch(want.row, patch));
        }
        let min_ready = want.spec.min_ready_seconds.unwrap_or(0);
        for (set, current) in self
            .new
            .iter()
            .map(|set| (set, true))
            .chain(self.old.iter().map(|set| (set, false)))
        {
            writes.extend(set_patch(want.row, set, current.then_some(min_ready)));
        }
        // A set that was only now asked for, or an old one to be dropped, after the rest.
        writes.append(&mut self.writes);
        let before = want.row.body.status.clone().unwrap_or_default();
        // The annotation patch above moves the revision; and nobody else writes this status.
        writes.extend(Write::status(want.row, &before, &self.status).map(Write::unbound));
        Outcome {
            writes,
            requeue_after,
        }
    }
}

/// What must change on a set, with the event that says so.
fn set_patch(owner: &Row<Deployment>, set: &Set, min_ready: Option<i32>) -> Option<Write> {
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
    let name = &set.row.meta.name;
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

/// What `set` would gain (or lose) so that it keeps its share of the new total.
fn proportion(set: &Set, want: &Want<'_>, reported: i64) -> i64 {
    if want.replicas == 0 {
        return -set.size;
    }
    let total = want.replicas + want.surge;
    // Without the annotation the set predates us: its share is of what the Deployment last reported.
    let annotated = set
        .annotation_number(MAX_REPLICAS)
        .filter(|number| *number > 0)
        .unwrap_or(reported);
    if annotated <= 0 {
        return 0;
    }
    // Twice the product of two numbers of pods needs a bit more than an i64 has.
    let (size, total, annotated) = (
        i128::from(set.size),
        i128::from(total),
        i128::from(annotated),
    );
    let rounded = (2 * size * total + annotated) / (2 * annotated);
    i64::try_from(rounded).unwrap_or(i64::MAX) - set.size
}

/// The same pods would come out of it. The hash label is ours and does not count.
fn same_template(set: &ReplicaSet, template: &PodTemplateSpec) -> bool {
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

fn template_hash(template: &Value, collisions: i32) -> String {
    let text = template.to_string();
    let hash = names::hash(&[text.as_bytes(), &collisions.to_be_bytes()]);
    names::suffix(hash, 10)
}

/// `{deployment}-{hash}`: ReplicaSets carry subdomain names, so only pods have to fit a label.
fn set_name(deployment: &str, hash: &str) -> String {
    format!("{deployment}-{hash}")
}

fn new_set(want: &Want<'_>, name: &str, hash: &str, size: i64, revision: &str) -> Object {
    let meta: &Meta = &want.row.meta;
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
    let mut annotations: BTreeMap<String, String> = meta.annotations.clone();
    annotations.retain(|key, _| !NOT_COPIED.contains(&key.as_str()));
    annotations.insert(REVISION.into(), revision.to_owned());
    annotations.insert(DESIRED_REPLICAS.into(), want.replicas.to_string());
    let maximum = want.most();
    annotations.insert(MAX_REPLICAS.into(), maximum.to_string());
    let mut value = json!({
        "apiVersion": REPLICA_SETS.api_version(),
        "kind": REPLICA_SETS.kind,
        "metadata": {
            "name": name,
            "namespace": meta.namespace,
            "labels": template["metadata"]["labels"].clone(),
            "annotations": annotations,
            "ownerReferences": [controller_reference(DEPLOYMENTS, meta)],
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
    fn fences_round_like_kubernetes() {
        let percent = |text: &str| IntOrString::String(text.into());
        for (surge, unavailable, replicas, expected) in [
            (percent("25%"), percent("25%"), 10, (3, 2)),
            (percent("25%"), percent("25%"), 1, (1, 0)),
            (percent("25%"), percent("25%"), 3, (1, 0)),
            (percent("0%"), percent("10%"), 5, (0, 1)),
            (IntOrString::Int(0), IntOrString::Int(0), 5, (0, 1)),
            (IntOrString::Int(2), percent("100%"), 5, (2, 5)),
        ] {
            assert_eq!(
                resolve_fences(Some(&surge), Some(&unavailable), replicas),
                expected,
                "{surge:?} {unavailable:?} of {replicas}"
            );
        }
    }

    #[test]
    fn the_hash_follows_the_template() {
        let one = json!({"spec": {"containers": [{"name": "a", "image": "x:1"}]}});
        let two = json!({"spec": {"containers": [{"name": "a", "image": "x:2"}]}});
        assert_eq!(template_hash(&one, 0), template_hash(&one.clone(), 0));
        assert_ne!(template_hash(&one, 0), template_hash(&two, 0));
        assert_ne!(template_hash(&one, 0), template_hash(&one, 1));
    }
}
