//! Drives the scheduler: collects pending pods, plans a batch, binds, and says why the rest waits.
//!
//! A pod that was placed counts on its node from that moment, before the binding is written, so the next batch does not
//! give the room away twice; if the binding is refused the room is free again. A pod that fits nowhere is tried again
//! when something changed, at most once a second, and its story is told when it changes or every [`REMIND`].
//!
//! Invariant: a pod is pending, or counted on a node, never both.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::StreamExt as _;
use jiff::Timestamp;
use tokio::time::Instant;
use tracing::debug;
use weft_api::StatusError;
use weft_api::view::{Node, Pod, PodCondition, Service, Time};
use weft_apiserver::caller::Caller;
use weft_apiserver::objects::{Binding, Objects, WriteOptions};
use weft_controllers::pod::node_of;
use weft_controllers::write::{NODES, PODS, SERVICES};
use weft_controllers::{Change, Key, Note, Reads, Row, Touched, View, Write};
use weft_scheduler::{NodeFacts, Placement as Chosen, Plan, PodFacts, Refusal, Snapshot};
use weft_store::Term;

use super::execute::{Executed, execute};
use super::recorder::Handle;

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
    key: Key,
    since: Option<Timestamp>,
    /// What it was last told, and when.
    told: Option<(String, Instant)>,
}

pub struct Placement {
    snapshot: Snapshot,
    nodes: BTreeMap<String, NodeFacts>,
    waiting: BTreeMap<String, Waiting>,
    /// Those among them that want to stand near others. Nearly always empty, and asked with every change of every pod.
    seeking: BTreeSet<String>,
    /// Waiting pods not tried yet, or changed since.
    fresh: BTreeSet<String>,
    /// Gated pods to be told that they are.
    gated: BTreeSet<Key>,
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
            gated: BTreeSet::new(),
            moved: false,
            tried_at: None,
            rounds: 0,
            seed: term,
        }
    }

    /// Takes a change of the view.
    pub fn notice(&mut self, touched: &Touched) {
        match touched.resource {
            PODS => match touched.after::<Pod>() {
                Some(pod) => self.put_pod(pod),
                // It is there, and on its node it takes what it was known to take; but it cannot be placed.
                _ if touched.unreadable => {
                    self.wait_no_more(&touched.uid);
                    self.fresh.remove(&touched.uid);
                }
                _ => self.forget(&touched.uid),
            },
            NODES => match touched.after::<Node>() {
                Some(node) => {
                    let facts = NodeFacts::of(&node.body);
                    if self.nodes.get(&facts.name) != Some(&facts) {
                        self.nodes.insert(facts.name.clone(), facts.clone());
                        self.snapshot.put_node(facts);
                        self.moved = true;
                    }
                }
                _ => {
                    self.nodes.remove(&touched.key.name);
                    self.snapshot.remove_node(&touched.key.name);
                    self.moved = true;
                }
            },
            SERVICES => match touched.after::<Service>() {
                Some(service) => self.snapshot.put_service(&service.body),
                _ => {
                    let key = &touched.key;
                    self.snapshot.remove_service(&key.namespace, &key.name);
                }
            },
            _ => {}
        }
    }

    fn forget(&mut self, uid: &str) {
        if self.snapshot.node_of(uid).is_some() {
            self.snapshot.remove_pod(uid);
            self.moved = true;
        }
        self.wait_no_more(uid);
        self.fresh.remove(uid);
    }

    fn wait(&mut self, uid: &str, waiting: Waiting) {
        if !waiting.facts.near.is_empty() {
            self.seeking.insert(uid.to_owned());
        }
        self.waiting.insert(uid.to_owned(), waiting);
    }

    fn wait_no_more(&mut self, uid: &str) -> Option<Waiting> {
        self.seeking.remove(uid);
        self.waiting.remove(uid)
    }

    fn put_pod(&mut self, pod: &Row<Pod>) {
        let uid = pod.meta.uid.as_str();
        let spec = pod.body.spec.as_ref();
        let phase = pod.body.status.as_ref().and_then(|s| s.phase.as_deref());
        if matches!(phase, Some("Succeeded" | "Failed")) {
            self.forget(uid);
            return;
        }
        if !node_of(pod).is_empty() {
            self.wait_no_more(uid);
            self.fresh.remove(uid);
            self.snapshot.put_pod(PodFacts::of(&pod.body));
            // Whom a waiting pod wants to stand near may have come.
            self.moved |= !self.seeking.is_empty();
            return;
        }
        let named = spec.and_then(|spec| spec.scheduler_name.as_deref());
        let ours = named.is_none_or(|name| name.is_empty() || name == COMPONENT);
        if pod.meta.is_deleting() || !ours {
            self.forget(uid);
            return;
        }
        let gates = spec.and_then(|spec| spec.scheduling_gates.as_ref());
        if gates.is_some_and(|gates| !gates.is_empty()) {
            self.gated.insert(pod.key.clone());
            return;
        }
        if self.snapshot.node_of(uid).is_some() {
            // Its binding is on the way.
            return;
        }
        let facts = PodFacts::of(&pod.body);
        let known = self.wait_no_more(uid);
        if known.as_ref().is_none_or(|known| known.facts != facts) {
            self.fresh.insert(uid.to_owned());
        }
        let told = known.and_then(|known| known.told);
        let waiting = Waiting {
            facts,
            key: pod.key.clone(),
            since: pod.meta.creation_timestamp,
            told,
        };
        self.wait(uid, waiting);
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
    pub fn next(&mut self, now: Instant, view: &View) -> Option<Batch> {
        if self.rounds >= ROUNDS_MAX {
            return None;
        }
        let writes = self.tell_gated(view);
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
        order.sort_by(|a, b| {
            let priority = b.facts.priority.cmp(&a.facts.priority);
            priority.then_with(|| (a.since, &a.key).cmp(&(b.since, &b.key)))
        });
        let batch: Vec<PodFacts> = order
            .into_iter()
            .take(BATCH)
            .map(|waiting| waiting.facts.clone())
            .collect();
        self.seed = self
            .seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let (plan, planned) = self.decide(&batch);
        for facts in batch.iter().take(planned) {
            self.fresh.remove(&facts.uid);
        }
        let mut placements = Vec::with_capacity(plan.placements.len());
        for chosen in plan.placements {
            let Some(waiting) = self.wait_no_more(&chosen.uid) else {
                continue;
            };
            let mut facts = waiting.facts;
            facts.node = Some(chosen.node.clone());
            self.snapshot.put_pod(facts);
            if let Some(row) = view.get::<Pod>(&waiting.key) {
                let message = format!("Successfully assigned {} to {}", waiting.key, chosen.node);
                let note = Note::normal(row.reference(), "Scheduled", message);
                placements.push((chosen, note));
            } else {
                self.snapshot.remove_pod(&chosen.uid);
            }
        }
        for refusal in &plan.refusals {
            writes.extend(self.tell_refusal(refusal, now, view));
        }
        Batch { placements, writes }
    }

    /// Plans the batch, and says for how many of it. A batch that panics is planned for its first pod only, so that in
    /// the end only those wait whose own plan does.
    fn decide(&self, batch: &[PodFacts]) -> (Plan, usize) {
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
        let Some(waiting) = self.waiting.get_mut(&refusal.uid) else {
            return Vec::new();
        };
        let message = refusal.to_string();
        let told = waiting.told.as_ref();
        if told.is_some_and(|(text, at)| *text == message && now < *at + REMIND) {
            return Vec::new();
        }
        waiting.told = Some((message.clone(), now));
        let Some(row) = view.get::<Pod>(&waiting.key) else {
            return Vec::new();
        };
        let note = Note::warning(row.reference(), "FailedScheduling", message.clone());
        let condition = not_scheduled(row, "Unschedulable", &message);
        condition
            .into_iter()
            .chain(std::iter::once(Write::Event(note)))
            .collect()
    }

    fn tell_gated(&mut self, view: &View) -> Vec<Write> {
        let keys = std::mem::take(&mut self.gated);
        let rows = keys.iter().filter_map(|key| view.get::<Pod>(key));
        let message = "Scheduling is blocked due to non-empty scheduling gates";
        rows.filter_map(|row| not_scheduled(row, "SchedulingGated", message))
            .collect()
    }

    /// Takes back the room of bindings that were refused.
    pub fn finish(&mut self, round: Round, view: &View) {
        self.rounds = self.rounds.saturating_sub(1);
        for chosen in round.refused {
            let row = view.get::<Pod>(&Key::new(&chosen.namespace, &chosen.name));
            let row = row.filter(|row| row.meta.uid == chosen.uid);
            // Bound after all, by somebody else or by an answer that got lost: then it is counted right.
            if row.is_some_and(|row| !node_of(row).is_empty()) {
                continue;
            }
            self.snapshot.remove_pod(&chosen.uid);
            self.moved = true;
            if let Some(row) = row {
                self.put_pod(row);
            }
        }
    }
}

/// `PodScheduled=False`, if that is not what the pod says already.
fn not_scheduled(row: &Row<Pod>, reason: &str, message: &str) -> Option<Write> {
    let before = row.body.status.clone().unwrap_or_default();
    let mut after = before.clone();
    let conditions = after.conditions.get_or_insert_default();
    let old = conditions.iter().position(|c| c.type_ == "PodScheduled");
    let old = old.map(|at| conditions.remove(at));
    let since = old
        .filter(|old| old.status == "False")
        .and_then(|old| old.last_transition_time);
    let now = Timestamp::now();
    let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
    conditions.push(PodCondition {
        type_: "PodScheduled".into(),
        status: "False".into(),
        reason: Some(reason.into()),
        message: Some(message.into()),
        last_transition_time: Some(since.unwrap_or(Time(now))),
        ..PodCondition::default()
    });
    Write::status(row, &before, &after)
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
    let (namespace, name) = (chosen.namespace.as_str(), chosen.name.as_str());
    let options = WriteOptions::default();
    // Bound to the uid the decision was made for, as a namesake is another pod. Not to the revision: what somebody tells
    // about the pod meanwhile changes nothing of the decision.
    let binding = Binding {
        node: &chosen.node,
        uid: &chosen.uid,
        resource_version: "",
    };
    let bound: Result<(), StatusError> = objects
        .bind(caller, namespace, name, binding, &options)
        .await;
    match bound {
        Ok(()) => {
            recorder.tell(note);
            None
        }
        Err(error) => {
            debug!(pod = %note.about.name, error = error.message, "a binding was refused");
            Some(chosen)
        }
    }
}
