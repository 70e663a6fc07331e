//! One look at a StatefulSet: what is there by ordinal, and what is done about it.
//!
//! The number of replicas is whatever somebody wrote, so nothing is made as long as that: pods that are there are gone through, and
//! missing ones one by one until something stands in the way or enough are under way.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{StatefulSetSpec, StatefulSetStatus};
use serde_json::{Value, json};
use weft_kinds::POD;

use super::ordinal_of;
use super::volume_claim::{self, Owners};
use crate::amount::{count, pods, pods_of};
use crate::indexer::Cached;
use crate::lens::StatefulSet;
use crate::pod::{Phase, Pod};
use crate::revision::{History, REVISION_LABEL, Update, kept_of};
use crate::template::pod_from;
use crate::view::View;
use crate::write::{Note, Write, object};
use crate::{Context, Outcome, plus_seconds, until};

const NAME_LABEL: &str = "statefulset.kubernetes.io/pod-name";
const INDEX_LABEL: &str = "apps.kubernetes.io/pod-index";
/// Pods made in one pass where they need not wait for each other; bounds what one refusal can waste.
const BURST: usize = 500;
/// Pods of one set that wait for a node; no more are made meanwhile, as of a ReplicaSet.
const UNPLACED_MAX: usize = 2000;

type Row = Arc<Cached<Pod>>;

/// Whether what comes next in the pass may still be done.
#[derive(Debug, PartialEq)]
enum Step {
    Continue,
    /// Something has to happen first, and will wake us.
    Wait,
}

pub struct Pass<'a> {
    view: &'a View,
    set: &'a Cached<StatefulSet>,
    spec: &'a StatefulSetSpec,
    history: &'a History,
    owned: &'a [Row],
    cx: &'a Context<'a>,
    /// The revision that is asked for, and the one that it comes from.
    update: Update,
    current: String,
    update_template: Value,
    current_template: Value,
    /// The first ordinal, and how many there are to be.
    start: i64,
    replicas: i64,
    in_range: BTreeMap<i64, &'a Row>,
    /// By ordinal.
    condemned: BTreeMap<i64, &'a Row>,
    one_by_one: bool,
    /// Pods that were taken away for the update in this pass.
    updating: i64,
    outcome: Outcome,
}

impl<'a> Pass<'a> {
    pub fn new(
        view: &'a View,
        set: &'a Cached<StatefulSet>,
        history: &'a History,
        owned: &'a [Row],
        template: &Value,
        cx: &'a Context<'a>,
    ) -> Self {
        let spec = &set.body.spec;
        let status = set.body.status.as_ref();
        let collisions = status
            .and_then(|status| status.collision_count)
            .unwrap_or(0);
        let update = history.update(view, set, template, collisions);
        let current = status.and_then(|status| status.current_revision.as_deref());
        let current = current.and_then(|name| history.named(name));
        let current_template = current.map_or_else(|| template.clone(), |row| row.body.template());
        let start = count(spec.ordinals.as_ref().and_then(|ordinals| ordinals.start));
        let replicas = count(Some(spec.replicas.unwrap_or(1)));
        let mut in_range = BTreeMap::new();
        let mut condemned = BTreeMap::new();
        for pod in owned {
            let Some((_, ordinal)) = ordinal_of(&pod.key.name) else {
                continue;
            };
            if ordinal >= start && ordinal < start + replicas {
                in_range.insert(ordinal, pod);
            } else {
                condemned.insert(ordinal, pod);
            }
        }
        Self {
            view,
            set,
            spec,
            history,
            owned,
            cx,
            current: current.map_or_else(|| update.name.clone(), |row| row.key.name.to_string()),
            update,
            update_template: template.clone(),
            current_template,
            start,
            replicas,
            in_range,
            condemned,
            one_by_one: spec.pod_management_policy.as_deref() != Some("Parallel"),
            updating: 0,
            outcome: Outcome::default(),
        }
    }

    pub fn run(mut self) -> Outcome {
        // What it owns is being collected: one more revision would be, too, and the next look would make it anew.
        let write = self.update.write.take();
        let is_deleting = self.set.meta.is_deleting();
        self.outcome.writes.extend(write.filter(|_| !is_deleting));
        if !self.set.meta.is_deleting()
            && self.fill() == Step::Continue
            && self.shrink() == Step::Continue
        {
            self.roll();
        }
        self.note_readiness();
        self.write_status();
        let mut live: BTreeSet<&str> = BTreeSet::from([&*self.current, &*self.update.name]);
        live.extend(self.owned.iter().filter_map(|pod| revision_of(pod)));
        let spent = self
            .history
            .spent(|revision| live.contains(&*revision.key.name));
        let limit = self.spec.revision_history_limit;
        let excess = spent.len().saturating_sub(kept_of(limit));
        let excess = spent.into_iter().take(excess);
        self.outcome
            .writes
            .extend(excess.map(|revision| Write::delete(&**revision)));
        self.outcome
    }

    /// Running, ready, and that for long enough.
    fn is_available(&self, pod: &Cached<Pod>) -> bool {
        let min_ready = count(self.spec.min_ready_seconds);
        let Some(since) = pod.body.ready_since() else {
            return pod.body.is_ready && min_ready == 0;
        };
        min_ready == 0 || plus_seconds(since, min_ready) <= self.cx.now
    }

    fn is_unavailable(&self, pod: &Cached<Pod>) -> bool {
        !self.is_available(pod) || pod.meta.is_deleting()
    }

    /// Each ordinal of the set, from the first one up.
    fn fill(&mut self) -> Step {
        let at_once = if self.cx.last_failure.is_some() {
            1
        } else {
            BURST
        };
        let unplaced = self.owned.iter().filter(|pod| pod.body.node.is_empty());
        let mut room = at_once.min(UNPLACED_MAX.saturating_sub(unplaced.count()));
        let mut ordinals = self.start..self.start + self.replicas;
        while room > 0
            && let Some(ordinal) = ordinals.next()
        {
            let step = match self.in_range.get(&ordinal).copied() {
                Some(pod) => self.keep(ordinal, pod),
                None => {
                    room -= 1;
                    self.make(ordinal)
                }
            };
            if self.one_by_one && step == Step::Wait {
                return Step::Wait;
            }
        }
        // Nothing more is made in this pass; what is there is kept.
        let rest = self.in_range.range(ordinals).map(|(at, pod)| (*at, *pod));
        for (ordinal, pod) in rest.collect::<Vec<_>>() {
            if self.keep(ordinal, pod) == Step::Wait && self.one_by_one {
                return Step::Wait;
            }
        }
        Step::Continue
    }

    /// A pod that is there: what stands in the way of those behind it, and what it lacks.
    fn keep(&mut self, ordinal: i64, pod: &'a Row) -> Step {
        if pod.body.is_finished() {
            if !pod.meta.is_deleting() {
                self.delete(pod);
            }
            return Step::Wait;
        }
        if pod.body.phase == Phase::Pending {
            match volume_claim::missing(self.view, self.set, ordinal, true) {
                Ok(writes) => self.outcome.writes.extend(writes),
                Err(_) => return Step::Wait,
            }
        }
        if self.one_by_one {
            let is_running = pod.body.phase == Phase::Running && pod.body.is_ready;
            if pod.meta.is_deleting() || !is_running || !self.is_available(pod) {
                return Step::Wait;
            }
        }
        self.own_claims(ordinal, pod, true);
        let labels = &pod.meta.labels;
        if labels
            .get(NAME_LABEL)
            .is_none_or(|name| **name != *pod.key.name)
        {
            let labels = identity(&pod.key.name, ordinal);
            let patch = Write::patch(&**pod, json!({"metadata": {"labels": labels}}));
            let told = self.told("Update", &pod.key.name);
            self.outcome.writes.push(patch.telling(told));
        }
        Step::Continue
    }

    fn own_claims(&mut self, ordinal: i64, pod: &Cached<Pod>, in_range: bool) {
        let owners = Owners {
            set: self.set,
            pod: self.view.object(&pod.meta.uid),
            in_range,
        };
        let writes = volume_claim::owned(self.view, &owners, ordinal);
        self.outcome.writes.extend(writes);
    }

    /// A pod that is missing, after its claims.
    fn make(&mut self, ordinal: i64) -> Step {
        let name = format!("{}-{ordinal}", self.set.key.name);
        let key = self.set.key.sibling(&name);
        // Somebody else's pod of this name, or one that cannot be read: it has to go first.
        if self.view.object_of(&POD, &key).is_some()
            || volume_claim::is_stale(self.view, self.set, ordinal, &name)
        {
            return Step::Wait;
        }
        match volume_claim::missing(self.view, self.set, ordinal, true) {
            Ok(writes) => self.outcome.writes.extend(writes),
            Err(why) => {
                let message = format!(
                    "Create Pod {name} in StatefulSet {} failed error: {why}",
                    self.set.key.name
                );
                let told = Note::warning(self.set.reference(), "FailedCreate", message);
                self.outcome.writes.push(Write::Event(told));
                return Step::Wait;
            }
        }
        let pod = self.new_pod(ordinal, &name);
        let told = self.told("Create", &name);
        let write = Write::create(&POD, object(pod)).telling(told.or_refused("FailedCreate"));
        self.outcome.writes.push(write);
        Step::Wait
    }

    fn new_pod(&self, ordinal: i64, name: &str) -> Value {
        let (template, revision) = if self.keeps_current(ordinal) {
            (&self.current_template, &self.current)
        } else {
            (&self.update_template, &self.update.name)
        };
        let mut pod = pod_from(template, self.set, name);
        if !pod["metadata"]["labels"].is_object() {
            pod["metadata"]["labels"] = json!({});
        }
        for (label, value) in identity(name, ordinal) {
            pod["metadata"]["labels"][label] = json!(value);
        }
        pod["metadata"]["labels"][REVISION_LABEL] = json!(revision);
        pod["spec"]["hostname"] = json!(name);
        let service = self.spec.service_name.as_deref();
        if let Some(service) = service.filter(|service| !service.is_empty()) {
            pod["spec"]["subdomain"] = json!(service);
        } else if let Some(spec) = pod["spec"].as_object_mut() {
            spec.remove("subdomain");
        }
        let mut volumes = Vec::new();
        let mut claimed = BTreeSet::new();
        for (claim, template) in volume_claim::templates(self.set, ordinal) {
            let volume = &template["metadata"]["name"];
            claimed.insert(volume.to_string());
            volumes.push(json!({"name": volume, "persistentVolumeClaim": {"claimName": claim}}));
        }
        if !volumes.is_empty() {
            let written = pod["spec"]["volumes"].as_array().into_iter().flatten();
            let kept = written.filter(|volume| !claimed.contains(&volume["name"].to_string()));
            volumes.extend(kept.cloned().collect::<Vec<Value>>());
            pod["spec"]["volumes"] = json!(volumes);
        }
        pod
    }

    /// Whether a pod that is made now is made as those were that the update has not come to.
    fn keeps_current(&self, ordinal: i64) -> bool {
        let strategy = self.spec.update_strategy.as_ref();
        let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
        match rolling {
            Some(rolling) => ordinal < self.start + count(rolling.partition),
            None => {
                let status = self.set.body.status.as_ref();
                let current = count(status.and_then(|status| status.current_replicas));
                self.is_rolling() && ordinal < self.start + current
            }
        }
    }

    fn is_rolling(&self) -> bool {
        let strategy = self.spec.update_strategy.as_ref();
        let kind = strategy.and_then(|strategy| strategy.type_.as_deref());
        kind.is_none_or(|kind| kind == "RollingUpdate")
    }

    /// Pods beyond the set, from the last one down.
    fn shrink(&mut self) -> Step {
        let condemned: Vec<(i64, &'a Row)> = self
            .condemned
            .iter()
            .rev()
            .map(|(ordinal, pod)| (*ordinal, *pod))
            .collect();
        for (ordinal, pod) in &condemned {
            self.own_claims(*ordinal, pod, false);
        }
        let first_unavailable = self.first_unavailable();
        for (_, pod) in condemned {
            if pod.meta.is_deleting() {
                if self.one_by_one {
                    return Step::Wait;
                }
                continue;
            }
            let is_well =
                pod.body.phase == Phase::Running && pod.body.is_ready && self.is_available(pod);
            let is_first = first_unavailable.as_ref() == Some(&pod.meta.uid);
            if self.one_by_one && !is_well && !is_first {
                return Step::Wait;
            }
            self.delete(pod);
            if self.one_by_one {
                return Step::Wait;
            }
        }
        Step::Continue
    }

    /// The uid of the first pod that is not available: those of the set come before those beyond it. A missing one has none.
    fn first_unavailable(&self) -> Option<Arc<str>> {
        for ordinal in self.start..self.start + self.replicas {
            match self.in_range.get(&ordinal) {
                None => return None,
                Some(pod) if self.is_unavailable(pod) => return Some(Arc::clone(&pod.meta.uid)),
                Some(_) => {}
            }
        }
        let mut beyond = self.condemned.values();
        let first = beyond.find(|pod| self.is_unavailable(pod));
        first.map(|pod| Arc::clone(&pod.meta.uid))
    }

    /// Takes away pods of other revisions than the one that is asked for, as many as may be missing.
    fn roll(&mut self) {
        if !self.is_rolling() {
            return;
        }
        let strategy = self.spec.update_strategy.as_ref();
        let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
        let partition = count(rolling.and_then(|rolling| rolling.partition));
        let most = rolling.and_then(|rolling| rolling.max_unavailable.as_ref());
        let most = most.map_or(1, |most| pods_of(most, self.replicas, false).max(1));
        let well = self
            .in_range
            .values()
            .filter(|pod| !self.is_unavailable(pod));
        let unavailable = self.replicas - i64::try_from(well.count()).unwrap_or(i64::MAX);
        let old: Vec<&'a Row> = self
            .in_range
            .range(self.start + partition..)
            .rev()
            .map(|(_, pod)| *pod)
            .filter(|pod| revision_of(pod) != Some(&self.update.name) && !pod.meta.is_deleting())
            .collect();
        let mut room = most - unavailable;
        let mut taken = Vec::new();
        if self.one_by_one {
            taken.extend(old.into_iter().take(usize::try_from(room).unwrap_or(0)));
        } else {
            // Those that serve nobody cost nothing; of the others as many as are left.
            let (idle, serving): (Vec<_>, Vec<_>) =
                old.into_iter().partition(|pod| !self.is_available(pod));
            taken.extend(idle);
            for pod in serving {
                if room <= 0 {
                    break;
                }
                room -= 1;
                taken.push(pod);
            }
        }
        for pod in taken {
            self.delete(pod);
            self.updating += i64::from(revision_of(pod) == Some(&self.current));
        }
    }

    fn delete(&mut self, pod: &Cached<Pod>) {
        let told = self.told("Delete", &pod.key.name);
        let write = Write::delete(pod).telling(told.or_refused("FailedDelete"));
        self.outcome.writes.push(write);
    }

    fn told(&self, verb: &str, pod: &str) -> Note {
        let reason = match verb {
            "Create" => "SuccessfulCreate",
            "Update" => "SuccessfulUpdate",
            _ => "SuccessfulDelete",
        };
        let set = &self.set.key.name;
        let message = format!("{verb} Pod {pod} in StatefulSet {set} successful");
        Note::normal(self.set.reference(), reason, message)
    }

    /// Looks again when the next pod has been ready for long enough.
    fn note_readiness(&mut self) {
        let min_ready = count(self.spec.min_ready_seconds);
        let due = self
            .owned
            .iter()
            .filter_map(|pod| Some(plus_seconds(pod.body.ready_since()?, min_ready)))
            .filter(|due| *due > self.cx.now)
            .min();
        if let Some(due) = due {
            self.outcome.again_after(until(due, self.cx.now));
        }
    }

    fn write_status(&mut self) {
        let before = self.set.body.status.clone().unwrap_or_default();
        let after = self.status(&before);
        if before != after
            && let Some(write) = Write::status(self.set, &before, &after)
        {
            // What was refused ends the list, and what is there is to be told all the same.
            let at = match self.cx.last_failure {
                Some(_) => 0,
                None => self.outcome.writes.len(),
            };
            self.outcome.writes.insert(at, write);
        }
    }

    fn status(&self, before: &StatefulSetStatus) -> StatefulSetStatus {
        let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        let all = || self.in_range.values().chain(self.condemned.values());
        let of = |revision: &str| {
            let pods = all().filter(|pod| !pod.meta.is_deleting());
            number(
                pods.filter(|pod| revision_of(pod) == Some(revision))
                    .count(),
            )
        };
        let ready = || all().filter(|pod| pod.body.phase == Phase::Running && pod.body.is_ready);
        let available = ready().filter(|pod| self.is_available(pod)).count();
        let ready = number(ready().count());
        let there = number(all().count());
        let updated = of(&self.update.name);
        let mut current = (of(&self.current) - self.updating).max(0);
        let mut current_revision = &self.current;
        if [updated, ready, there] == [self.replicas; 3] {
            current = updated;
            current_revision = &self.update.name;
        }
        let some = |number: i64| (number != 0).then(|| pods(number));
        StatefulSetStatus {
            available_replicas: Some(pods(number(available))),
            collision_count: Some(self.update.collisions),
            conditions: before.conditions.clone(),
            current_replicas: some(current),
            current_revision: Some(current_revision.clone()),
            observed_generation: Some(self.set.meta.generation),
            ready_replicas: some(ready),
            replicas: pods(there),
            update_revision: Some(self.update.name.clone()),
            updated_replicas: some(updated),
        }
    }
}

fn revision_of(pod: &Cached<Pod>) -> Option<&str> {
    pod.meta.labels.get(REVISION_LABEL).map(String::as_str)
}

/// The labels that say which pod of its set one is.
fn identity(name: &str, ordinal: i64) -> [(&'static str, String); 2] {
    [
        (NAME_LABEL, name.to_owned()),
        (INDEX_LABEL, ordinal.to_string()),
    ]
}
