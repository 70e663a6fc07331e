//! Drives the scheduler: collects pending pods, plans a batch, binds, and says why the rest waits.
//!
//! A pod that was placed counts on its node from that moment, before the binding is written, so the next batch does not
//! give the room away twice; if the binding is refused the room is free again. A pod that fits nowhere is tried again
//! when something changed, at most once a second, and its story is told when it changes or every [`REMIND`].
//!
//! Invariant: a pod is pending, or counted on a node, never both.

mod volumes;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::Instant;
use tracing::debug;
use weft_api::StatusError;
use weft_api::time::rfc3339;
use weft_api::view::{self, Node};
use weft_apiserver::caller::Caller;
use weft_apiserver::objects::{Binding, Objects, WriteOptions};
use weft_controllers::lens::Service;
use weft_controllers::pod::Pod;
use weft_controllers::{Cached, Change, Key, Note, Reads, Touched, View, Write};
use weft_kinds::{NODE, PERSISTENT_VOLUME, PERSISTENT_VOLUME_CLAIM, POD, SERVICE};
use weft_scheduler::{NodeFacts, Placement as Chosen, Plan, PodFacts, Refusal, Snapshot};
use weft_store::Term;

use super::execute::{Executed, execute};
use super::recorder::Handle;
use crate::exit::Chain;

/// As events and Kubernetes users know it.
pub const COMPONENT: &str = "default-scheduler";
/// Pods planned together: keeps one plan short beside the other work of the loop.
const BATCH: usize = 256;
/// Batches whose bindings may be under way at once.
const ROUNDS_MAX: usize = 4;
/// Bindings of a batch under way at once; they share the store's group commits.
const SIDE_BY_SIDE_MAX: usize = 32;
/// Pods that fit nowhere are looked at again no sooner than this.
const RETRY: Duration = Duration::from_secs(1);
/// An unchanged refusal is told again after this.
const REMIND: Duration = Duration::from_secs(300);

/// A pod that waits for a node.
struct Waiting {
    facts: PodFacts,
    since: Option<Timestamp>,
    /// What its `PodScheduled` condition says.
    condition: Option<Unscheduled>,
    /// What it was last told, and when.
    told: Option<(String, Instant)>,
}

impl Waiting {
    fn key(&self) -> Key {
        Key {
            namespace: Arc::clone(&self.facts.namespace),
            name: Arc::clone(&self.facts.name),
        }
    }
}

/// The condition `PodScheduled=False`, as a pod carries it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Unscheduled {
    reason: String,
    message: String,
    since: Option<Timestamp>,
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

pub struct Placement {
    snapshot: Snapshot,
    nodes: BTreeMap<Arc<str>, NodeFacts>,
    waiting: BTreeMap<Arc<str>, Waiting>,
    /// Those among them that want to stand near others. Nearly always empty, and asked with every change of every pod.
    seeking: BTreeSet<Arc<str>>,
    /// Waiting pods not tried yet, or changed since.
    fresh: BTreeSet<Arc<str>>,
    /// Pods to be told that they are gated, or cannot be read.
    set_aside: BTreeMap<Key, SetAside>,
    /// Something changed that may let a refused pod fit.
    moved: bool,
    /// When everything that waits was last tried.
    tried_at: Option<Instant>,
    rounds: usize,
    seed: u64,
}

/// What a batch decided, to be carried out.
pub struct Batch {
    placements: Vec<(Chosen, Note)>,
    writes: Vec<Write>,
}

/// What came of a batch.
pub struct Round {
    pub changes: Vec<Change>,
    refused: Vec<Chosen>,
}

/// What placement reads of the view.
pub fn reads(reads: &mut Reads) {
    reads.kind::<Pod>().kind::<Node>().kind::<Service>();
    volumes::reads(reads);
}

impl Placement {
    /// The term seeds the choice between equals, so leaders differ and each one's choices can be replayed.
    pub fn new(term: Term) -> Self {
        Self {
            snapshot: Snapshot::default(),
            nodes: BTreeMap::new(),
            waiting: BTreeMap::new(),
            seeking: BTreeSet::new(),
            fresh: BTreeSet::new(),
            set_aside: BTreeMap::new(),
            moved: false,
            tried_at: None,
            rounds: 0,
            seed: term,
        }
    }

    /// Takes a change of the view.
    pub fn notice(&mut self, touched: &Touched) {
        if touched.is_of(&POD) {
            match touched.after::<Pod>() {
                Some(pod) => self.put_pod(pod, touched),
                // It is there, and on its node it takes what it was known to take; but it cannot be placed.
                _ if touched.unreadable => self.stop_waiting(&touched.uid),
                _ => self.forget_pod(&touched.uid),
            }
        } else if touched.is_of(&NODE) {
            if let Some(node) = touched.after::<Node>() {
                let facts = NodeFacts::of(&node.body);
                if self.nodes.get(&facts.name) != Some(&facts) {
                    let name = Arc::clone(&facts.name);
                    self.nodes.insert(name, facts.clone());
                    self.snapshot.put_node(facts);
                    self.moved = true;
                }
            } else {
                self.nodes.remove(&touched.key.name);
                self.snapshot.remove_node(&touched.key.name);
                self.moved = true;
            }
        } else if touched.is_of(&SERVICE) {
            if let Some(service) = touched.after::<Service>() {
                self.snapshot.put_service(&service.body);
            } else {
                let key = &touched.key;
                self.snapshot.remove_service(&key.namespace, &key.name);
            }
        } else if touched.is_of(&PERSISTENT_VOLUME_CLAIM) || touched.is_of(&PERSISTENT_VOLUME) {
            // A pod may wait for it.
            self.moved = true;
        }
    }

    fn forget_pod(&mut self, uid: &str) {
        self.moved |= self.snapshot.remove_pod(uid).is_some();
        self.stop_waiting(uid);
    }

    fn start_waiting(&mut self, waiting: Waiting) {
        let uid = &waiting.facts.uid;
        if !waiting.facts.near.is_empty() {
            self.seeking.insert(Arc::clone(uid));
        }
        self.waiting.insert(Arc::clone(uid), waiting);
    }

    fn stop_waiting(&mut self, uid: &str) {
        self.take_waiting(uid);
        self.fresh.remove(uid);
    }

    fn take_waiting(&mut self, uid: &str) -> Option<Waiting> {
        self.seeking.remove(uid);
        self.waiting.remove(uid)
    }

    fn put_pod(&mut self, pod: &Cached<Pod>, touched: &Touched) {
        let uid = &*pod.meta.uid;
        if pod.body.is_finished() {
            self.forget_pod(uid);
            return;
        }
        let is_bound = !pod.body.node.is_empty();
        let is_counted = self.snapshot.node_of(uid) == Some(&*pod.body.node);
        if is_counted
            && touched
                .before()
                .is_some_and(|before| takes_the_same(before, pod))
        {
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
        let facts = PodFacts {
            namespace: Arc::clone(&pod.key.namespace),
            name: Arc::clone(&pod.key.name),
            uid: Arc::clone(&pod.meta.uid),
            ..PodFacts::of(&typed)
        };
        if is_bound {
            self.stop_waiting(uid);
            self.snapshot.put_pod(facts);
            // Whom a waiting pod wants to stand near may have come.
            self.moved |= !self.seeking.is_empty();
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
        let known = self.take_waiting(uid);
        if known.as_ref().is_none_or(|known| known.facts != facts) {
            self.fresh.insert(Arc::clone(&pod.meta.uid));
        }
        self.start_waiting(Waiting {
            facts,
            since: pod.meta.creation_timestamp,
            condition,
            told: known.and_then(|known| known.told),
        });
    }

    /// When there will be something to do; `None`: not before the next change.
    pub fn next_due(&self) -> Option<Instant> {
        let refused = self.waiting.len() > self.fresh.len();
        if self.rounds < ROUNDS_MAX && refused {
            self.retry_at()
        } else {
            None
        }
    }

    /// When the pods that fit nowhere are to be tried again.
    fn retry_at(&self) -> Option<Instant> {
        let pause = if self.moved { RETRY } else { REMIND };
        self.tried_at.map(|at| at + pause)
    }

    /// Plans the next batch, if there is one and room for it.
    pub fn next_batch(&mut self, now: Instant, view: &View) -> Option<Batch> {
        if self.rounds >= ROUNDS_MAX {
            return None;
        }
        let writes = self.tell_set_aside(view);
        if self.retry_at().is_none_or(|at| at <= now) {
            self.moved = false;
            self.tried_at = Some(now);
            self.fresh.extend(self.waiting.keys().cloned());
        }
        if self.fresh.is_empty() && writes.is_empty() {
            return None;
        }
        let batch = self.plan(now, view, writes);
        self.rounds += 1;
        Some(batch)
    }

    fn plan(&mut self, now: Instant, view: &View, mut writes: Vec<Write>) -> Batch {
        let mut order: Vec<&Waiting> = self
            .fresh
            .iter()
            .filter_map(|uid| self.waiting.get(uid))
            .collect();
        let precedes = |a: &&Waiting, b: &&Waiting| {
            let rank = |waiting: &Waiting| {
                let facts = &waiting.facts;
                let name = (Arc::clone(&facts.namespace), Arc::clone(&facts.name));
                (Reverse(facts.priority), waiting.since, name)
            };
            rank(a).cmp(&rank(b))
        };
        // Thousands may wait, and only a batch of them has to be in order.
        if order.len() > BATCH {
            order.select_nth_unstable_by(BATCH, precedes);
            order.truncate(BATCH);
        }
        order.sort_by(precedes);
        let mut held = Vec::new();
        let facts = order.into_iter().filter_map(|waiting| {
            let facts = waiting.facts.clone();
            let constrained = volumes::constrain(view, &waiting.key(), facts);
            constrained
                .map_err(|why| held.push((Arc::clone(&waiting.facts.uid), why)))
                .ok()
        });
        let batch: Vec<PodFacts> = facts.collect();
        for (uid, why) in held {
            self.fresh.remove(&uid);
            let message = format!("0/{} nodes are available: {why}.", self.nodes.len());
            writes.extend(self.tell_waiting(&uid, message, now, view));
        }
        self.seed = self
            .seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let (plan, planned) = self.plan_or_less(&batch);
        for facts in batch.iter().take(planned) {
            self.fresh.remove(&facts.uid);
        }
        let mut placements = Vec::with_capacity(plan.placements.len());
        for chosen in plan.placements {
            let Some(waiting) = self.take_waiting(&chosen.uid) else {
                continue;
            };
            let key = waiting.key();
            let Some(row) = view.get::<Pod>(&key) else {
                continue;
            };
            let message = format!("Successfully assigned {key} to {}", chosen.node);
            let note = Note::normal(row.reference(), "Scheduled", message);
            let node = Some(Arc::clone(&chosen.node));
            placements.push((chosen, note));
            self.snapshot.put_pod(PodFacts {
                node,
                ..waiting.facts
            });
        }
        for refusal in &plan.refusals {
            writes.extend(self.tell_refusal(refusal, now, view));
        }
        Batch { placements, writes }
    }

    /// Plans the batch, and says for how many of it. A batch that panics is planned for its first pod only, so that in
    /// the end only those wait whose own plan does.
    fn plan_or_less(&self, batch: &[PodFacts]) -> (Plan, usize) {
        let planned = |pods: &[PodFacts]| {
            let plan = || weft_scheduler::plan(&self.snapshot, pods, self.seed);
            std::panic::catch_unwind(AssertUnwindSafe(plan)).ok()
        };
        if let Some(plan) = planned(batch) {
            return (plan, batch.len());
        }
        let first = batch.get(..1).unwrap_or_default();
        let plan = planned(first).unwrap_or_else(|| Plan {
            placements: Vec::new(),
            refusals: first.iter().map(Refusal::without_reason).collect(),
        });
        (plan, first.len())
    }

    /// Condition and event for a pod that fits nowhere, unless it has been told so lately.
    fn tell_refusal(&mut self, refusal: &Refusal, now: Instant, view: &View) -> Vec<Write> {
        self.tell_waiting(&refusal.uid, refusal.to_string(), now, view)
    }

    fn tell_waiting(
        &mut self,
        uid: &str,
        message: String,
        now: Instant,
        view: &View,
    ) -> Vec<Write> {
        let Some(waiting) = self.waiting.get_mut(uid) else {
            return Vec::new();
        };
        let told = waiting.told.as_ref();
        if told.is_some_and(|(text, at)| *text == message && now < *at + REMIND) {
            return Vec::new();
        }
        waiting.told = Some((message.clone(), now));
        let Some(row) = view.get::<Pod>(&waiting.key()) else {
            return Vec::new();
        };
        let note = Note::warning(row.reference(), "FailedScheduling", message.clone());
        let before = waiting.condition.as_ref();
        let condition = not_scheduled(row, before, "Unschedulable", &message);
        condition
            .into_iter()
            .chain(std::iter::once(Write::Event(note)))
            .collect()
    }

    fn tell_set_aside(&mut self, view: &View) -> Vec<Write> {
        let all = std::mem::take(&mut self.set_aside);
        let told = all.iter().filter_map(|(key, aside)| {
            let row = view.get::<Pod>(key)?;
            let before = aside.condition.as_ref();
            not_scheduled(row, before, aside.reason, &aside.message)
        });
        told.collect()
    }

    /// Takes back the room of bindings that were refused.
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
            let facts = self.snapshot.remove_pod(&chosen.uid);
            self.moved = true;
            let (Some(row), Some(facts)) = (row, facts) else {
                continue;
            };
            if row.meta.is_deleting() || row.body.is_finished() {
                continue;
            }
            self.fresh.insert(Arc::clone(&facts.uid));
            self.start_waiting(Waiting {
                facts: PodFacts {
                    node: None,
                    ..facts
                },
                since: row.meta.creation_timestamp,
                condition: None,
                told: None,
            });
        }
    }
}

/// Only the status of a bound pod changed: it takes what it took, so there is no need to read it again.
fn takes_the_same(before: &Cached<Pod>, after: &Cached<Pod>) -> bool {
    before.meta.generation == after.meta.generation
        && before.meta.labels == after.meta.labels
        && before.meta.is_deleting() == after.meta.is_deleting()
        && before.body.node == after.body.node
}

/// `PodScheduled=False`, if that is not what the pod says already.
fn not_scheduled(
    row: &Cached<Pod>,
    before: Option<&Unscheduled>,
    reason: &str,
    message: &str,
) -> Option<Write> {
    if before.is_some_and(|before| before.reason == reason && before.message == message) {
        return None;
    }
    let since = before.and_then(|before| before.since);
    let condition = json!({
        "type": "PodScheduled",
        "status": "False",
        "reason": reason,
        "message": message,
        "lastTransitionTime": rfc3339(since.unwrap_or_else(Timestamp::now)),
    });
    Some(Write::condition(row, &condition))
}

/// Writes the bindings and the refusals of a batch.
pub async fn carry_out(
    objects: &Objects,
    caller: &Caller,
    recorder: &Handle,
    batch: Batch,
) -> Round {
    let bindings = futures::stream::iter(batch.placements)
        .map(|(chosen, note)| bind(objects, caller, recorder, chosen, note))
        .buffer_unordered(SIDE_BY_SIDE_MAX);
    let refused: Vec<Option<Chosen>> = bindings.collect().await;
    // One pod's conflict is not the next one's: each write is a list of its own.
    let told = futures::stream::iter(batch.writes)
        .map(|write| execute(objects, caller, recorder, vec![write]))
        .buffer_unordered(SIDE_BY_SIDE_MAX);
    let told: Vec<Executed> = told.collect().await;
    let mut changes = Vec::new();
    for executed in told {
        changes.extend(executed.changes);
        if let Some(failure) = executed.failure {
            debug!(error = failure.message, "a pod was not told why it waits");
        }
    }
    Round {
        changes,
        refused: refused.into_iter().flatten().collect(),
    }
}

/// Gives the pod its node; the choice comes back if that was refused.
async fn bind(
    objects: &Objects,
    caller: &Caller,
    recorder: &Handle,
    chosen: Chosen,
    note: Note,
) -> Option<Chosen> {
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
            None
        }
        Err(error) => {
            debug!(pod = %note.about.key, error = error.message, "a binding was refused");
            Some(chosen)
        }
    }
}

#[cfg(test)]
mod tests {
    use weft_api::Object;

    use super::*;

    /// A view with placement beside it, and a time that is handed in.
    struct World {
        view: View,
        placement: Placement,
        now: Instant,
        revision: u64,
    }

    impl World {
        fn new() -> Self {
            let mut view = View::new([reads as fn(&mut Reads)]);
            view.set_synced(0);
            Self {
                view,
                placement: Placement::new(1),
                now: Instant::now(),
                revision: 0,
            }
        }

        fn put(&mut self, kind: weft_kinds::KindRef<'_>, mut value: Value) {
            self.revision += 1;
            value["metadata"]["uid"] = value["metadata"]["name"].clone();
            value["metadata"]["resourceVersion"] = json!(self.revision.to_string());
            let object = Object::from_value(value).unwrap();
            let change = Change::Upsert(Arc::clone(kind), object);
            let touched = self.view.apply(change, Timestamp::UNIX_EPOCH).unwrap();
            self.placement.notice(&touched);
        }

        fn put_node(&mut self, name: &str, pods: &str) {
            self.put(
                &NODE,
                json!({"metadata": {"name": name}, "status": {"allocatable": {"pods": pods}}}),
            );
        }

        fn put_pod(&mut self, name: &str, spec: &Value, conditions: &Value) {
            self.put(
                &POD,
                json!({"metadata": {"name": name, "namespace": "d"}, "spec": spec,
                    "status": {"phase": "Pending", "conditions": conditions}}),
            );
        }

        fn wait(&mut self, name: &str) {
            self.put_pod(name, &spec(), &json!([]));
        }

        /// What the next batch does, one line each.
        fn next(&mut self) -> String {
            let Some(batch) = self.placement.next_batch(self.now, &self.view) else {
                return "nothing".to_owned();
            };
            let placed = batch.placements.iter();
            let placed = placed.map(|(chosen, _)| format!("{} -> {}", chosen.name, chosen.node));
            let told = batch.writes.iter().map(|write| match write {
                Write::Event(note) => format!("{} {}", note.about.key.name, note.reason),
                Write::Patch { key, patch, .. } => {
                    let condition = &patch["status"]["conditions"][0];
                    format!("{} is {}", key.name, condition["reason"].as_str().unwrap())
                }
                other => format!("{other:?}"),
            });
            let lines: Vec<String> = placed.chain(told).collect();
            lines.join(", ")
        }

        /// The last batch is carried out; these bindings are refused.
        fn finish(&mut self, refused: &[(&str, &str)]) {
            let refused = refused.iter().map(|(name, node)| Chosen {
                namespace: "d".into(),
                name: (*name).into(),
                uid: (*name).into(),
                node: (*node).into(),
            });
            let round = Round {
                changes: Vec::new(),
                refused: refused.collect(),
            };
            self.placement.finish_round(round, &self.view);
        }
    }

    fn spec() -> Value {
        json!({"containers": [{"name": "main", "image": "x:1"}]})
    }

    #[test]
    fn room_is_given_away_once_and_comes_back_with_a_refused_binding() {
        let mut world = World::new();
        world.put_node("n", "1");
        world.wait("a");
        assert_eq!(world.next(), "a -> n");
        world.wait("b");
        assert_eq!(world.next(), "b is Unschedulable, b FailedScheduling");
        world.finish(&[]);
        world.finish(&[("a", "n")]);
        // Both wait for the room that is back: the one whose binding was refused, and whoever it had been refused to.
        assert_eq!(world.next(), "a -> n");
        world.finish(&[]);
        world.now += RETRY;
        assert_eq!(world.next(), "", "it was told so a second ago");
        world.finish(&[]);
        // Bound and gone: what it took is free.
        let mut bound = spec();
        bound["nodeName"] = json!("n");
        world.put_pod("a", &bound, &json!([]));
        assert_eq!(world.next(), "nothing");
        world.put(
            &POD,
            json!({"metadata": {"name": "a", "namespace": "d"}, "spec": bound,
                "status": {"phase": "Succeeded"}}),
        );
        world.now += RETRY;
        assert_eq!(world.next(), "b -> n");
    }

    #[test]
    fn an_unchanged_refusal_is_told_again_after_a_while_only() {
        let mut world = World::new();
        world.put_node("n", "0");
        world.wait("a");
        assert_eq!(world.next(), "a is Unschedulable, a FailedScheduling");
        world.finish(&[]);
        assert_eq!(world.placement.next_due(), Some(world.now + REMIND));
        // Something changes each second, and nothing for this pod.
        for number in 0..10 {
            world.put_node(&format!("full-{number}"), "0");
            world.now += RETRY;
            let told = world.next();
            assert!(
                told.contains("FailedScheduling"),
                "another number of nodes: {told}"
            );
            world.finish(&[]);
        }
        world.put_node("full-0", "0");
        world.placement.moved = true;
        world.now += RETRY;
        assert_eq!(world.next(), "");
        world.finish(&[]);
        world.now += REMIND;
        assert_eq!(world.next(), "a is Unschedulable, a FailedScheduling");
    }

    #[test]
    fn pods_that_nobody_may_place_are_told_so_once() {
        let mut world = World::new();
        world.put_node("n", "9");
        let mut gated = spec();
        gated["schedulingGates"] = json!([{"name": "example.com/wait"}]);
        let mut broken = spec();
        broken["priority"] = json!("high");
        let mut others = spec();
        others["schedulerName"] = json!("mine");
        world.put_pod("gated", &gated, &json!([]));
        world.put_pod("broken", &broken, &json!([]));
        world.put_pod("others", &others, &json!([]));
        assert_eq!(
            world.next(),
            "broken is SchedulerError, gated is SchedulingGated"
        );
        world.finish(&[]);
        // The same again, with what they were told.
        let said = json!([{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated",
            "message": "Scheduling is blocked due to non-empty scheduling gates"}]);
        world.put_pod("gated", &gated, &said);
        assert_eq!(world.next(), "nothing");
        // The gate is lifted, the shape corrected.
        world.put_pod("gated", &spec(), &said);
        world.put_pod("broken", &spec(), &json!([]));
        assert_eq!(world.next(), "broken -> n, gated -> n");
    }

    #[test]
    fn what_is_bound_and_cannot_be_read_any_more_keeps_its_room() {
        let mut world = World::new();
        world.put_node("n", "1");
        let mut bound = spec();
        bound["nodeName"] = json!("n");
        world.put_pod("a", &bound, &json!([]));
        bound["priority"] = json!("high");
        world.put_pod("a", &bound, &json!([]));
        bound["nodeName"] = json!(7);
        world.put_pod("a", &bound, &json!([]));
        world.wait("b");
        assert_eq!(world.next(), "b is Unschedulable, b FailedScheduling");
    }

    #[test]
    fn a_batch_has_a_bound_and_the_rest_comes_next() {
        let mut world = World::new();
        world.put_node("n", "10000");
        for number in 0..BATCH + 1 {
            world.wait(&format!("p{number:04}"));
        }
        assert_eq!(world.next().split(", ").count(), BATCH);
        assert_eq!(world.next(), format!("p{BATCH:04} -> n"));
        // So have the batches under way.
        for _ in 2..ROUNDS_MAX {
            world.wait("more");
            assert_eq!(world.next(), "more -> n");
            world.placement.forget_pod("more");
        }
        world.wait("late");
        assert_eq!(world.next(), "nothing");
        world.finish(&[]);
        assert_eq!(world.next(), "late -> n");
    }
}
