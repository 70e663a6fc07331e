//! Drives the scheduler: collects pending pods, plans a batch, binds, makes room, and says why the rest waits.
//!
//! A pod that was placed counts on its node from that moment, before the binding is written, so the next batch does not
//! give the room away twice; if the binding is refused the room is free again. So does a pod for which others have to go, on the node that
//! they leave, until it is bound, gone, or nobody could be made to go. Whose turn it is is [`waiting`]'s; a story is told when it changes or
//! every [`waiting::FLUSH`].
//!
//! Invariant: a pod is pending, or counted on a node, never both.

mod volumes;
mod waiting;

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::StreamExt as _;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::Instant;
use tracing::debug;
use weft_api::StatusError;
use weft_api::object::{Object, ObjectError};
use weft_api::selector::LabelSelector;
use weft_api::time::rfc3339;
use weft_api::view::{self, Namespace, Node};
use weft_apiserver::caller::Caller;
use weft_apiserver::objects::{Binding, Objects, WriteOptions};
use weft_controllers::lens::Service;
use weft_controllers::pod::Pod;
use weft_controllers::{Cached, Change, Key, Lens, Note, Reads, Touched, View, Write};
use weft_kinds::{
    Kind, NAMESPACE, NODE, PERSISTENT_VOLUME, PERSISTENT_VOLUME_CLAIM, POD, POD_DISRUPTION_BUDGET,
    SERVICE, STORAGE_CLASS,
};
use weft_scheduler::{
    Budget, Hints, NodeFacts, Placement as Chosen, Plan, PodFacts, Preemption, Refusal, Snapshot,
    Why,
};
use weft_store::Term;

use super::execute::{Executed, execute};
use super::recorder::Handle;
use crate::exit::Chain;
use waiting::{FLUSH, Queue, Waiting};

/// As events and Kubernetes users know it.
pub const COMPONENT: &str = "default-scheduler";
/// Pods planned together: keeps one plan short beside the other work of the loop.
const BATCH: usize = 256;
/// Batches whose bindings may be under way at once.
const ROUNDS_MAX: usize = 4;
/// Bindings of a batch under way at once; they share the store's group commits.
const SIDE_BY_SIDE_MAX: usize = 64;

/// The condition `PodScheduled=False`, as a pod carries it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unscheduled {
    reason: String,
    message: String,
    since: Option<Timestamp>,
    /// Of the pod that was looked at.
    generation: i64,
}

impl Unscheduled {
    fn of(pod: &Value) -> Option<Self> {
        let mut conditions = pod["status"]["conditions"].as_array()?.iter();
        let condition = conditions.find(|c| c["type"] == "PodScheduled")?;
        let text = |member: &str| condition[member].as_str().unwrap_or_default().to_owned();
        (condition["status"] == "False").then(|| Self {
            reason: text("reason"),
            message: text("message"),
            since: text("lastTransitionTime").parse().ok(),
            generation: condition["observedGeneration"].as_i64().unwrap_or(0),
        })
    }
}

/// A pod that is told why nobody looks for a node for it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct SetAside {
    condition: Option<Unscheduled>,
    reason: &'static str,
    message: String,
}

/// What placement reads of a disruption budget.
#[derive(Debug)]
struct Protection(Budget);

impl Lens for Protection {
    fn kind() -> &'static Arc<Kind> {
        &POD_DISRUPTION_BUDGET
    }

    fn read(object: &Object) -> Result<Self, ObjectError> {
        let value = object.as_value();
        let status = &value["status"];
        let disrupted = status["disruptedPods"].as_object().into_iter().flatten();
        let budget = Budget::new(
            LabelSelector::from_object(&value["spec"]["selector"]).ok(),
            status["disruptionsAllowed"].as_i64().unwrap_or(0),
            disrupted.map(|(name, _)| name.clone()).collect(),
        );
        Ok(Self(budget))
    }
}

pub struct Placement {
    snapshot: Snapshot,
    queue: Queue,
    /// Pods to be told that they are gated, or cannot be read.
    set_aside: BTreeMap<Key, SetAside>,
    /// What changed since pods that were refused were last woken.
    changed: Hints,
    rounds: usize,
    /// Of the batch that is planned.
    at: Timestamp,
}

/// What a batch decided, to be carried out: which pod goes where, what is told, and who has to go.
pub struct Batch {
    pub placements: Vec<(Chosen, Note)>,
    pub writes: Vec<Write>,
    pub evictions: Vec<Eviction>,
}

/// Pods that have to go for another one.
pub struct Eviction {
    preemption: Preemption,
    /// First of each victim why, then that; all of one victim together.
    writes: Vec<Vec<Write>>,
}

/// What came of a batch.
pub struct Round {
    pub changes: Vec<Change>,
    pub refused: Vec<Chosen>,
    /// For whom somebody could not be made to go.
    failed: Vec<Preemption>,
    /// Of something it is not known whether it was done.
    pub in_doubt: bool,
}

/// What placement reads of the view.
pub fn reads(reads: &mut Reads) {
    reads.kind::<Pod>().kind::<Node>().kind::<Service>();
    reads.kind::<Namespace>().kind::<Protection>();
    volumes::reads(reads);
}

impl Placement {
    /// The term seeds the choice between equals, so leaders differ and each one's choices can be replayed.
    pub fn new(term: Term) -> Self {
        Self {
            snapshot: Snapshot::new(term),
            queue: Queue::default(),
            set_aside: BTreeMap::new(),
            changed: Hints::NONE,
            rounds: 0,
            at: Timestamp::UNIX_EPOCH,
        }
    }

    /// Takes a change of the view.
    pub fn notice(&mut self, touched: &Touched) {
        let key = &touched.key;
        if touched.is_of(&POD) {
            match touched.after::<Pod>() {
                Some(pod) => self.put_pod(pod, touched),
                // It is there, and on its node it takes what it was known to take; but it cannot be placed.
                _ if touched.unreadable => self.stop_waiting(&touched.uid),
                _ => self.forget_pod(&touched.uid),
            }
        } else if touched.is_of(&NODE) {
            if let Some(node) = touched.after::<Node>() {
                if self.snapshot.put_node(NodeFacts::of(&node.body)) {
                    self.changed |= Hints::NODE;
                }
            } else {
                self.snapshot.remove_node(&key.name);
                self.changed |= Hints::NODE;
            }
        } else if touched.is_of(&SERVICE) {
            if let Some(service) = touched.after::<Service>() {
                self.snapshot.put_service(&service.body);
            } else {
                self.snapshot.remove_service(&key.namespace, &key.name);
            }
        } else if touched.is_of(&NAMESPACE) {
            if let Some(namespace) = touched.after::<Namespace>() {
                if self.snapshot.put_namespace(&namespace.body) {
                    self.changed |= Hints::LABELS;
                }
            } else {
                self.snapshot.remove_namespace(&key.name);
            }
        } else if touched.is_of(&POD_DISRUPTION_BUDGET) {
            if let Some(budget) = touched.after::<Protection>() {
                let budget = budget.body.0.clone();
                self.snapshot.put_budget(&key.namespace, &key.name, budget);
            } else {
                self.snapshot.remove_budget(&key.namespace, &key.name);
            }
        } else if [&PERSISTENT_VOLUME_CLAIM, &PERSISTENT_VOLUME, &STORAGE_CLASS]
            .into_iter()
            .any(|kind| touched.is_of(kind))
        {
            self.changed |= Hints::VOLUMES;
        }
    }

    fn forget_pod(&mut self, uid: &str) {
        if self.snapshot.remove_pod(uid) {
            self.changed |= Hints::LESS;
        }
        self.stop_waiting(uid);
    }

    fn stop_waiting(&mut self, uid: &str) {
        self.queue.take(uid);
        if self.snapshot.nominated_node(uid).is_some() {
            self.snapshot.denominate(uid);
            self.changed |= Hints::LESS;
        }
    }

    fn put_pod(&mut self, pod: &Cached<Pod>, touched: &Touched) {
        let uid = &*pod.meta.uid;
        if pod.body.is_finished() {
            self.forget_pod(uid);
            return;
        }
        let is_bound = !pod.body.node.is_empty();
        let is_counted = self.snapshot.node_of(uid) == Some(&*pod.body.node);
        let before = touched.before::<Pod>();
        if is_counted && let Some(before) = before.filter(|before| takes_the_same(before, pod)) {
            if before.body.started != pod.body.started {
                let started = pod.body.started.map(Timestamp::as_second);
                self.snapshot.set_started(uid, started);
            }
            return;
        }
        let typed: view::Pod = match touched.object.view() {
            Ok(typed) => typed,
            Err(error) => {
                self.stop_waiting(uid);
                if !is_bound {
                    let condition = Unscheduled::of(touched.object.as_value());
                    let aside = SetAside {
                        condition,
                        reason: "SchedulerError",
                        message: format!("the pod cannot be read: {}", Chain(&error)),
                    };
                    self.set_aside.insert(pod.key.clone(), aside);
                }
                return;
            }
        };
        let spec = typed.spec.as_ref();
        let mut facts = PodFacts {
            namespace: Arc::clone(&pod.key.namespace),
            name: Arc::clone(&pod.key.name),
            uid: Arc::clone(&pod.meta.uid),
            ..PodFacts::of(&typed)
        };
        if is_bound {
            self.stop_waiting(uid);
            self.changed |= Hints::MORE;
            if is_counted {
                // On its way out it does not count for spreading; with other labels it is another one to others.
                self.changed |= Hints::LESS | Hints::LABELS;
            }
            self.snapshot.put_pod(facts);
            return;
        }
        let named = spec.and_then(|spec| spec.scheduler_name.as_deref());
        let ours = named.is_none_or(|name| name.is_empty() || name == COMPONENT);
        if pod.meta.is_deleting() || !ours {
            self.forget_pod(uid);
            return;
        }
        let condition = Unscheduled::of(touched.object.as_value());
        let gates = spec.and_then(|spec| spec.scheduling_gates.as_ref());
        if gates.is_some_and(|gates| !gates.is_empty()) {
            let aside = SetAside {
                condition,
                reason: "SchedulingGated",
                message: "Scheduling is blocked due to non-empty scheduling gates".to_owned(),
            };
            self.set_aside.insert(pod.key.clone(), aside);
            return;
        }
        if self.snapshot.node_of(uid).is_some() {
            // Its binding is on the way.
            return;
        }
        self.snapshot.share_needs(&mut facts);
        if let Some(node) = &facts.nominated
            && self.snapshot.nominated_node(uid).is_none()
        {
            self.snapshot.nominate(&facts, node);
        }
        // What it claims is the snapshot's to know: that it is told of it is no other pod.
        facts.nominated = None;
        let since = pod.meta.creation_timestamp;
        self.queue.put(Waiting::new(facts, since, condition));
    }

    /// When there will be something to do; `None`: not before the next change.
    pub fn next_due(&self) -> Option<Instant> {
        if self.rounds < ROUNDS_MAX {
            self.queue.next_due()
        } else {
            None
        }
    }

    /// Plans the next batch, if there is one and room for it. `at` is what conditions say of the time.
    pub fn next_batch(&mut self, now: Instant, at: Timestamp, view: &View) -> Option<Batch> {
        self.at = at;
        if self.rounds >= ROUNDS_MAX {
            return None;
        }
        let writes = self.tell_set_aside(view);
        self.queue.wake(std::mem::take(&mut self.changed), now);
        let next = self.queue.next(now, BATCH);
        if next.is_empty() && writes.is_empty() {
            return None;
        }
        let batch = self.plan(next, now, view, writes);
        self.rounds += 1;
        Some(batch)
    }

    fn plan(
        &mut self,
        next: Vec<PodFacts>,
        now: Instant,
        view: &View,
        mut writes: Vec<Write>,
    ) -> Batch {
        let mut batch = Vec::with_capacity(next.len());
        for facts in next {
            let (key, uid) = (waiting::key_of(&facts), Arc::clone(&facts.uid));
            let yields = facts.yields;
            match volumes::constrain(view, &key, facts) {
                Ok(facts) => batch.push(facts),
                Err(why) => {
                    self.queue.refuse(&uid, Hints::VOLUMES, now);
                    let message = Why::held(self.snapshot.len(), &why, yields).to_string();
                    writes.extend(self.tell_waiting(&uid, message, None, now, view));
                }
            }
        }
        let (plan, planned) = self.plan_or_less(&batch);
        for facts in batch.iter().skip(planned) {
            self.queue.activate(&facts.uid);
        }
        let mut placements = Vec::with_capacity(plan.placements.len());
        for chosen in plan.placements {
            let waiting = self.queue.take(&chosen.uid);
            let row = waiting.and_then(|waiting| view.get::<Pod>(&waiting.key()));
            let Some(row) = row else {
                self.snapshot.remove_pod(&chosen.uid);
                continue;
            };
            let message = format!("Successfully assigned {} to {}", row.key, chosen.node);
            let note = Note::normal(row.reference(), "Scheduled", message);
            placements.push((chosen, note));
            self.changed |= Hints::MORE;
        }
        let mut evictions = Vec::new();
        for refusal in &plan.refusals {
            let mut preempted = plan.preemptions.iter();
            let preempted = preempted.find(|preemption| preemption.uid == refusal.uid);
            // Its node is free when those who go are gone, which wakes it as any room does.
            let hints = refusal.why.hints | preempted.map_or(Hints::NONE, |_| Hints::LESS);
            let waiting = self
                .queue
                .get_mut(&refusal.uid)
                .map(|waiting| waiting.key());
            let hints = if refusal.why.nodes == 0 {
                Hints::ALL
            } else if waiting.is_some_and(|key| volumes::has_claims(view, &key)) {
                // Its volumes may say otherwise where it may go.
                hints | Hints::VOLUMES
            } else {
                hints
            };
            self.queue.refuse(&refusal.uid, hints, now);
            writes.extend(self.tell_refusal(refusal, preempted, now, view));
        }
        for preemption in plan.preemptions {
            writes.extend(displaced(&preemption, &mut self.queue, view));
            let victims = preemption.victims.iter().filter(|victim| !victim.is_ending);
            let victims = victims.filter_map(|victim| {
                let key = Key {
                    namespace: Arc::clone(&victim.namespace),
                    name: Arc::clone(&victim.name),
                };
                let row = view.get::<Pod>(&key)?;
                (row.meta.uid == victim.uid).then(|| drive_off(row, &preemption, self.at))
            });
            let writes = victims.collect();
            evictions.push(Eviction { preemption, writes });
        }
        Batch {
            placements,
            writes,
            evictions,
        }
    }

    /// Plans the batch, and says for how many of it. A batch that panics is planned for its first pod only, so that in
    /// the end only those wait whose own plan does.
    fn plan_or_less(&mut self, batch: &[PodFacts]) -> (Plan, usize) {
        if let Some(plan) = self.planned(batch) {
            return (plan, batch.len());
        }
        let first = batch.get(..1).unwrap_or_default();
        let plan = self.planned(first).unwrap_or_else(|| Plan {
            refusals: first.iter().map(Refusal::without_reason).collect(),
            ..Plan::default()
        });
        (plan, first.len())
    }

    /// `None`: that panicked, and nothing was decided.
    fn planned(&mut self, pods: &[PodFacts]) -> Option<Plan> {
        let plan = || self.snapshot.plan(pods);
        let planned = std::panic::catch_unwind(AssertUnwindSafe(plan)).ok();
        if planned.is_none() {
            // Whatever was left half done is counted anew.
            self.snapshot.recount();
            for pod in pods {
                self.snapshot.remove_pod(&pod.uid);
                self.snapshot.denominate(&pod.uid);
            }
        }
        planned
    }

    fn tell_refusal(
        &mut self,
        refusal: &Refusal,
        preempted: Option<&Preemption>,
        now: Instant,
        view: &View,
    ) -> Vec<Write> {
        let message = refusal.to_string();
        self.tell_waiting(&refusal.uid, message, preempted, now, view)
    }

    /// Condition and event for a pod that can go nowhere, unless it has been told so lately.
    fn tell_waiting(
        &mut self,
        uid: &str,
        message: String,
        preempted: Option<&Preemption>,
        now: Instant,
        view: &View,
    ) -> Vec<Write> {
        let Some(waiting) = self.queue.get_mut(uid) else {
            return Vec::new();
        };
        let told = waiting.told.as_ref();
        if told.is_some_and(|(text, at)| *text == message && now < *at + FLUSH) {
            return Vec::new();
        }
        waiting.told = Some((message.clone(), now));
        let Some(row) = view.get::<Pod>(&waiting.key()) else {
            return Vec::new();
        };
        let note = Note::warning(row.reference(), "FailedScheduling", message.clone());
        let before = waiting.condition.as_ref();
        let mut status =
            not_scheduled(row, before, "Unschedulable", &message, self.at).unwrap_or_default();
        if let Some(preemption) = preempted {
            status["nominatedNodeName"] = json!(&*preemption.node);
        }
        let told = (!status.is_null()).then(|| Write::status_fields(row, &status));
        told.into_iter()
            .chain(std::iter::once(Write::Event(note)))
            .collect()
    }

    fn tell_set_aside(&mut self, view: &View) -> Vec<Write> {
        let all = std::mem::take(&mut self.set_aside);
        let told = all.iter().filter_map(|(key, aside)| {
            let row = view.get::<Pod>(key)?;
            let before = aside.condition.as_ref();
            let status = not_scheduled(row, before, aside.reason, &aside.message, self.at)?;
            Some(Write::status_fields(row, &status))
        });
        told.collect()
    }

    /// Takes back the room of bindings that were refused, and the claims for which nobody went.
    pub fn finish_round(&mut self, round: Round, view: &View) {
        self.rounds = self.rounds.saturating_sub(1);
        for chosen in round.refused {
            let key = Key {
                namespace: chosen.namespace,
                name: chosen.name,
            };
            let row = view.get::<Pod>(&key);
            let row = row.filter(|row| row.meta.uid == chosen.uid);
            // Bound after all, by somebody else or by an answer that got lost: then it is counted right.
            if row.is_some_and(|row| !row.body.node.is_empty()) {
                continue;
            }
            let facts = self.snapshot.take_pod(&chosen.uid);
            self.changed |= Hints::LESS;
            let (Some(row), Some(facts)) = (row, facts) else {
                continue;
            };
            if row.meta.is_deleting() || row.body.is_finished() {
                continue;
            }
            let since = row.meta.creation_timestamp;
            self.queue.put(Waiting::new(facts, since, None));
        }
        for preemption in round.failed {
            self.snapshot.denominate(&preemption.uid);
            for victim in &preemption.victims {
                self.snapshot.spare(&victim.uid);
            }
            self.changed |= Hints::LESS;
            self.queue.activate(&preemption.uid);
        }
    }
}

/// Pods that had a claim on the node, and have none any more, are told so, and looked at anew.
fn displaced(preemption: &Preemption, queue: &mut Queue, view: &View) -> Vec<Write> {
    let told = preemption.displaced.iter().filter_map(|uid| {
        let key = queue.get_mut(uid)?.key();
        queue.activate(uid);
        let row = view.get::<Pod>(&key)?;
        let none = json!({"nominatedNodeName": null});
        Some(Write::status_fields(row, &none))
    });
    told.collect()
}

/// Tells a pod why, and lets it go in its own time.
fn drive_off(row: &Cached<Pod>, preemption: &Preemption, at: Timestamp) -> Vec<Write> {
    let condition = json!({
        "type": "DisruptionTarget",
        "status": "True",
        "reason": "PreemptionByScheduler",
        "message": format!("{COMPONENT}: preempting to accommodate a higher priority pod"),
        "observedGeneration": row.meta.generation,
        "lastTransitionTime": rfc3339(at),
    });
    let message = format!(
        "Preempted by pod {} on node {}",
        preemption.uid, preemption.node
    );
    let note = Note::normal(row.reference(), "Preempted", message);
    vec![
        Write::condition(row, &condition),
        Write::delete(row).telling(note),
    ]
}

/// Only the status of a bound pod changed, or it got the node that it is counted on: it takes what it took, so there is no need to read
/// it again.
fn takes_the_same(before: &Cached<Pod>, after: &Cached<Pod>) -> bool {
    before.meta.generation == after.meta.generation
        && before.meta.labels == after.meta.labels
        && before.meta.is_deleting() == after.meta.is_deleting()
        && before.body.given == after.body.given
        && (before.body.node == after.body.node || before.body.node.is_empty())
}

/// A status with `PodScheduled=False`, if that is not what the pod says already.
fn not_scheduled(
    row: &Cached<Pod>,
    before: Option<&Unscheduled>,
    reason: &str,
    message: &str,
    at: Timestamp,
) -> Option<Value> {
    let generation = row.meta.generation;
    if before.is_some_and(|before| {
        before.reason == reason && before.message == message && before.generation == generation
    }) {
        return None;
    }
    let since = before.and_then(|before| before.since);
    let condition = json!({
        "type": "PodScheduled",
        "status": "False",
        "reason": reason,
        "message": message,
        "observedGeneration": generation,
        "lastTransitionTime": rfc3339(since.unwrap_or(at)),
    });
    Some(json!({"conditions": [condition]}))
}

/// Writes the bindings and the refusals of a batch, and has those go who are in the way.
pub async fn carry_out(
    objects: &Objects,
    caller: &Caller,
    recorder: &Handle,
    batch: Batch,
) -> Round {
    let bindings = futures::stream::iter(batch.placements)
        .map(|(chosen, note)| bind(objects, caller, recorder, chosen, note))
        .buffer_unordered(SIDE_BY_SIDE_MAX);
    let bound: Vec<Bound> = bindings.collect().await;
    let mut in_doubt = false;
    let mut refused = Vec::new();
    for bound in bound {
        match bound {
            Bound::Done => {}
            Bound::Refused(chosen) => refused.push(chosen),
            Bound::InDoubt => in_doubt = true,
        }
    }
    // One pod's conflict is not the next one's: each write is a list of its own.
    let told = futures::stream::iter(batch.writes)
        .map(|write| execute(objects, caller, recorder, vec![write]))
        .buffer_unordered(SIDE_BY_SIDE_MAX);
    let told: Vec<Executed> = told.collect().await;
    let mut changes = Vec::new();
    for executed in told {
        changes.extend(executed.changes);
        if let Some(failure) = executed.failure {
            in_doubt |= failure.in_doubt;
            debug!(error = failure.message, "a pod was not told why it waits");
        }
    }
    let evictions = futures::stream::iter(batch.evictions)
        .map(|eviction| evict(objects, caller, recorder, eviction))
        .buffer_unordered(SIDE_BY_SIDE_MAX);
    let evictions: Vec<Evicted> = evictions.collect().await;
    let mut failed = Vec::new();
    for evicted in evictions {
        changes.extend(evicted.changes);
        failed.extend(evicted.failed);
        in_doubt |= evicted.in_doubt;
    }
    Round {
        changes,
        refused,
        failed,
        in_doubt,
    }
}

/// What came of making room.
#[derive(Default)]
struct Evicted {
    changes: Vec<Change>,
    /// One of the victims did not go.
    failed: Option<Preemption>,
    in_doubt: bool,
}

/// Has a pod's victims go; the preemption comes back if one of them does not.
async fn evict(
    objects: &Objects,
    caller: &Caller,
    recorder: &Handle,
    eviction: Eviction,
) -> Evicted {
    let mut evicted = Evicted::default();
    let mut has_failed = false;
    for writes in eviction.writes {
        let executed = execute(objects, caller, recorder, writes).await;
        evicted.changes.extend(executed.changes);
        if let Some(failure) = executed.failure {
            debug!(error = failure.message, "a pod was not driven off");
            evicted.in_doubt |= failure.in_doubt;
            has_failed = true;
        }
    }
    evicted.failed = has_failed.then_some(eviction.preemption);
    evicted
}

/// What came of a binding.
enum Bound {
    Done,
    Refused(Chosen),
    /// It was not answered in time.
    InDoubt,
}

/// Gives the pod its node; the choice comes back if that was refused.
async fn bind(
    objects: &Objects,
    caller: &Caller,
    recorder: &Handle,
    chosen: Chosen,
    note: Note,
) -> Bound {
    let options = WriteOptions::default();
    // Bound to the uid the decision was made for, as a namesake is another pod. Not to the revision: what somebody tells
    // about the pod meanwhile changes nothing of the decision.
    let binding = Binding {
        pod: &chosen.name,
        node: &chosen.node,
        uid: &chosen.uid,
        resource_version: "",
    };
    // The node may hear of it before we do.
    let begun = Timestamp::now();
    let bound: Result<(), StatusError> = objects
        .client(caller)
        .bind(&chosen.namespace, binding, &options)
        .await;
    match bound {
        Ok(()) => {
            recorder.tell_of(note, begun);
            Bound::Done
        }
        Err(error) if error.is_timeout() => Bound::InDoubt,
        Err(error) => {
            debug!(pod = %note.about.key, error = error.message, "a binding was refused");
            Bound::Refused(chosen)
        }
    }
}

#[cfg(test)]
mod tests;
