//! A server that leads, or thinks that it does: the real inbox, view, queues, controllers and placement, each step on its own so that
//! anything may come between two of them. What the control loop does in tasks is here a flight of writes: they are carried out one
//! after the other, by the loop's own code, and their answers are folded in once the last is there.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use weft::control_loop::execute::{Executed, execute};
use weft::control_loop::inbox::Waiting;
use weft::control_loop::placement::{self, Batch, COMPONENT, Placement, Round, carry_out};
use weft::control_loop::queue::Queue;
use weft_apiserver::caller::Caller;
use weft_apiserver::informer::{Change as News, Informer};
use weft_controllers::pod::Pod;
use weft_controllers::{
    CONTROLLERS, Change, Context, Key, Note, Past, Reads, Touched, View, Write,
};
use weft_store::{Revision, Term};

use super::chance::Chance;
use super::cluster::Cluster;
use super::faults::Fault;
use super::planted::{self, Bug};
use super::record::{self, Doer};

/// One write in so many is lost, or its answer is.
const LOSS: usize = 120;
/// One look in so many is made twice, as equal views have to give equal outcomes.
const TWICE: usize = 16;
const UNANSWERED: &str = "the write was not answered in time";

struct Worker {
    queue: Queue<Key>,
    pasts: BTreeMap<Key, Past>,
}

/// What is under way.
enum Flight {
    Key(Box<OfKey>),
    Batch(Batch),
    Round(Round),
}

/// What a look at a key decided.
struct OfKey {
    at: usize,
    key: Key,
    writes: VecDeque<Write>,
    changes: Vec<Change>,
    failure: Option<Option<String>>,
    again: Option<Duration>,
    past: Option<Past>,
}

pub struct Leader {
    pub number: u64,
    fence: Term,
    informer: Informer,
    told: VecDeque<News>,
    /// Up to where the informer told.
    heard: Option<Revision>,
    inbox: Waiting,
    view: View,
    workers: Vec<Worker>,
    placement: Placement,
    flights: Vec<Flight>,
    /// Until when it is told nothing, in milliseconds.
    pub deaf_until: i64,
    /// Of a write of its own it does not know whether it was done: it has to start over.
    pub in_doubt: bool,
    bug: Option<Bug>,
}

fn new_view() -> View {
    let reads = CONTROLLERS.iter().map(|controller| controller.reads);
    View::new(reads.chain(std::iter::once(placement::reads as fn(&mut Reads))))
}

impl Leader {
    /// A server that has come to lead: with nothing but what is stored.
    pub fn new(cluster: &Cluster, number: u64, bug: Option<Bug>) -> Self {
        let worker = || Worker {
            queue: Queue::default(),
            pasts: BTreeMap::new(),
        };
        Self {
            number,
            fence: cluster.term,
            informer: cluster.objects.informer(|_| true),
            told: VecDeque::new(),
            heard: None,
            inbox: Waiting::default(),
            view: new_view(),
            workers: CONTROLLERS.iter().map(|_| worker()).collect(),
            placement: Placement::new(number),
            flights: Vec::new(),
            deaf_until: 0,
            in_doubt: false,
            bug,
        }
    }

    /// Another leads: what this one writes from now on is refused, for it bears an older term.
    pub fn depose(&mut self) {
        if self.bug != Some(Bug::FenceIgnored) {
            self.fence -= 1;
        }
    }

    /// Its watch ends: it lists everything anew.
    pub fn cut_watch(&mut self, cluster: &Cluster) {
        self.informer = cluster.objects.informer(|_| true);
        self.told.clear();
        self.heard = None;
    }

    /// It has heard of everything, has looked at it, and has nothing under way.
    pub fn is_calm(&self) -> bool {
        self.told.is_empty() && self.flights.is_empty() && self.view.is_synced()
    }

    pub fn listen(&mut self, cluster: &Cluster) {
        let revision = cluster.revision();
        if self.heard != Some(revision) {
            self.heard = Some(revision);
            self.told.extend(cluster.listen(&mut self.informer));
        }
    }

    /// Some of what waits is told, all of it together. False: there is nothing.
    pub fn deliver(&mut self, cluster: &Cluster, chance: &mut Chance) -> bool {
        if self.told.is_empty() || cluster.millis() < self.deaf_until {
            return false;
        }
        let some = match self.view.is_synced() {
            true => 1 + chance.below(self.told.len()),
            false => self.told.len(),
        };
        let now = cluster.now();
        for news in self.told.drain(..some) {
            if self.bug == Some(Bug::NewsLost)
                && matches!(news, News::Upsert { .. })
                && self.view.is_synced()
                && chance.is(8)
            {
                continue;
            }
            self.inbox.push_news(news, now);
        }
        for (news, at) in self.inbox.take() {
            let change = match news {
                News::Reset => {
                    self.view = new_view();
                    self.placement = Placement::new(self.number);
                    continue;
                }
                News::Synced { revision } => {
                    self.view.set_synced(revision);
                    for (worker, controller) in self.workers.iter_mut().zip(CONTROLLERS) {
                        for key in (controller.seeds)(&self.view) {
                            worker.queue.add(key, cluster.instant());
                        }
                    }
                    continue;
                }
                News::Upsert { kind, object } => Change::Upsert(kind, object),
                News::Delete { kind, object } => Change::Delete(kind, object),
            };
            if let Some(touched) = self.view.apply(change, at) {
                self.notice(cluster, &touched);
            }
        }
        true
    }

    fn notice(&mut self, cluster: &Cluster, touched: &Touched) {
        let is_bound = || {
            touched
                .after::<Pod>()
                .is_some_and(|pod| !pod.body.node.is_empty())
        };
        if self.bug != Some(Bug::RoomGivenTwice) || !is_bound() {
            self.placement.notice(touched);
        }
        if !self.view.is_synced() {
            return;
        }
        for (worker, controller) in self.workers.iter_mut().zip(CONTROLLERS) {
            for key in (controller.keys)(&self.view, touched) {
                worker.queue.add(key, cluster.instant());
            }
            for key in (controller.relieved)(&self.view, touched) {
                worker.queue.relieve(key);
            }
        }
    }

    /// Some controller looks at a key that is due. False: there is none.
    pub fn look(&mut self, cluster: &mut Cluster, chance: &mut Chance) -> bool {
        if !self.view.is_synced() {
            return false;
        }
        let first = chance.below(self.workers.len());
        let now = cluster.instant();
        let count = self.workers.len();
        let all = (0..count).map(|at| (first + at) % count);
        let mut due = None;
        for at in all {
            if let Some(key) = self.workers[at].queue.pop(now) {
                due = Some((at, key));
                break;
            }
        }
        let Some((at, key)) = due else { return false };
        self.reconcile(cluster, chance, at, key);
        true
    }

    fn reconcile(&mut self, cluster: &mut Cluster, chance: &mut Chance, at: usize, key: Key) {
        let controller = &CONTROLLERS[at];
        let worker = &mut self.workers[at];
        let kinds = cluster.registries.current();
        let nothing = Past::default();
        let around = weft_controllers::Cluster {
            ca_pem: "PEM".into(),
        };
        let context = Context {
            now: cluster.now(),
            cluster: &around,
            kinds: &kinds,
            last_failure: worker.queue.last_failure(&key),
            usage: None,
            calls: cluster.calls.read.is_some().then_some(&cluster.calls),
            past: worker.pasts.get(&key).unwrap_or(&nothing),
        };
        let mut outcome = (controller.reconcile)(&self.view, &key, &context);
        if chance.below(TWICE) == 0 {
            let again = (controller.reconcile)(&self.view, &key, &context);
            if outcome != again {
                let name = controller.name;
                cluster.breaks(format!("equal views give equal outcomes: {name} {key}"));
            }
        }
        if let Some(bug) = self.bug {
            let writes = &mut outcome.writes;
            planted::plant(bug, controller.name, &self.view, &key, writes, chance);
        }
        let flight = OfKey {
            at,
            key,
            writes: outcome.writes.into(),
            changes: Vec::new(),
            failure: None,
            again: outcome.requeue_after,
            past: outcome.past,
        };
        if flight.writes.is_empty() {
            self.land(cluster, flight);
        } else {
            self.flights.push(Flight::Key(Box::new(flight)));
        }
    }

    /// Placement plans a batch. False: there is nobody to place.
    pub fn place(&mut self, cluster: &Cluster) -> bool {
        if !self.view.is_synced() {
            return false;
        }
        let batch = self
            .placement
            .next_batch(cluster.instant(), cluster.now(), &self.view);
        let found = batch.is_some();
        self.flights.extend(batch.map(Flight::Batch));
        found
    }

    /// The next step of something that is under way. False: nothing is.
    pub fn carry(&mut self, cluster: &mut Cluster, chance: &mut Chance) -> bool {
        if self.flights.is_empty() {
            return false;
        }
        let at = chance.below(self.flights.len());
        match self.flights.swap_remove(at) {
            Flight::Key(mut flight) => {
                if flight.failure.is_some() || flight.writes.is_empty() {
                    self.land(cluster, *flight);
                } else {
                    self.write(cluster, chance, &mut flight);
                    self.flights.push(Flight::Key(flight));
                }
            }
            Flight::Batch(batch) => self.bind(cluster, chance, batch),
            Flight::Round(mut round) => {
                self.fold(cluster, std::mem::take(&mut round.changes));
                self.placement.finish_round(round, &self.view);
            }
        }
        true
    }

    /// What was under way when the leader ended: some of it was stored.
    pub fn end(&mut self, cluster: &mut Cluster, chance: &mut Chance) {
        for flight in std::mem::take(&mut self.flights) {
            match flight {
                Flight::Key(mut flight) => {
                    for _ in 0..chance.below(3) {
                        if flight.failure.is_none() && !flight.writes.is_empty() {
                            self.write(cluster, chance, &mut flight);
                        }
                    }
                }
                Flight::Batch(batch) if chance.is(50) => self.bind(cluster, chance, batch),
                Flight::Batch(_) | Flight::Round(_) => {}
            }
        }
        self.flights.clear();
    }

    fn write(&mut self, cluster: &mut Cluster, chance: &mut Chance, flight: &mut OfKey) {
        let Some(write) = flight.writes.pop_front() else {
            return;
        };
        let name = CONTROLLERS[flight.at].name;
        let fate = chance.below(LOSS * 2);
        let is_news = !matches!(write, Write::Event(_) | Write::ConfirmGone { .. });
        let lost = is_news && fate == 0 && cluster.faults.strikes(Fault::WriteLost);
        let unanswered = is_news && fate == 1 && cluster.faults.strikes(Fault::AnswerLost);
        let told = render(&write);
        let executed = if lost {
            Executed::default()
        } else {
            let caller = Caller::system(name, Some(self.fence));
            let handle = cluster.handle(name);
            cluster.carry(Doer::Controller(name), async |objects| {
                execute(objects, &caller, &handle, vec![write]).await
            })
        };
        let came = match &executed.failure {
            _ if lost => " … LOST".to_owned(),
            _ if unanswered => " … done, ANSWER LOST".to_owned(),
            Some(failure) => format!(" … {}", failure.message),
            None => String::new(),
        };
        if is_news {
            let number = self.number;
            cluster.tell(&format!(
                "server {number} {name} {}: {told}{came}",
                flight.key
            ));
        }
        if lost || unanswered {
            self.in_doubt = self.bug != Some(Bug::DoubtForgotten);
            flight.failure = Some(Some(UNANSWERED.to_owned()));
            return;
        }
        flight.changes.extend(executed.changes);
        if let Some(failure) = executed.failure {
            self.in_doubt |= failure.in_doubt;
            flight.failure = Some((!failure.expected).then_some(failure.message));
        }
    }

    /// The last write of a look was answered.
    fn land(&mut self, cluster: &Cluster, flight: OfKey) {
        self.fold(cluster, flight.changes);
        let worker = &mut self.workers[flight.at];
        let now = cluster.instant();
        match flight.failure {
            Some(told) => worker.queue.fail(flight.key, told, now),
            None => {
                if let Some(past) = flight.past {
                    worker.pasts.insert(flight.key.clone(), past);
                }
                worker.queue.succeed(flight.key, flight.again, now);
            }
        }
    }

    fn fold(&mut self, cluster: &Cluster, changes: Vec<Change>) {
        if self.bug == Some(Bug::AnswersForgotten) {
            return;
        }
        for change in changes {
            if let Some(touched) = self.view.fold(change, cluster.now()) {
                self.notice(cluster, &touched);
            }
        }
    }

    fn bind(&mut self, cluster: &mut Cluster, chance: &mut Chance, mut batch: Batch) {
        let mut lost = Vec::new();
        let mut unanswered = Vec::new();
        let mut kept: Vec<(weft_scheduler::Placement, Note)> = Vec::new();
        for (chosen, note) in std::mem::take(&mut batch.placements) {
            let fate = chance.below(LOSS * 2);
            if fate == 0 && cluster.faults.strikes(Fault::WriteLost) {
                lost.push(chosen);
                continue;
            }
            if fate == 1 && cluster.faults.strikes(Fault::AnswerLost) {
                unanswered.push(chosen.clone());
            }
            kept.push((chosen, note));
        }
        let number = self.number;
        for (chosen, _) in &kept {
            let answer = match unanswered.contains(chosen) {
                true => " … ANSWER LOST",
                false => "",
            };
            let (pod, node) = (&chosen.name, &chosen.node);
            cluster.tell(&format!("server {number} places {pod} on {node}{answer}"));
        }
        for chosen in &lost {
            let (pod, node) = (&chosen.name, &chosen.node);
            cluster.tell(&format!("server {number} places {pod} on {node} … LOST"));
        }
        let chosen: Vec<weft_scheduler::Placement> =
            kept.iter().map(|(chosen, _)| chosen.clone()).collect();
        batch.placements = kept;
        let caller = Caller::system(COMPONENT, Some(self.fence));
        let handle = cluster.handle(COMPONENT);
        let mut round = cluster.carry(Doer::Scheduler, async |objects| {
            carry_out(objects, &caller, &handle, batch).await
        });
        unanswered.retain(|chosen| !round.refused.contains(chosen));
        if !(lost.is_empty() && unanswered.is_empty()) {
            self.in_doubt = self.bug != Some(Bug::DoubtForgotten);
        }
        round.refused.extend(lost);
        round.refused.extend(unanswered);
        if self.bug == Some(Bug::BoundTwice)
            && let Some(chosen) = chosen.first()
        {
            bind_elsewhere(cluster, chosen);
        }
        self.flights.push(Flight::Round(round));
    }
}

/// The pod moves to another node.
fn bind_elsewhere(cluster: &mut Cluster, chosen: &weft_scheduler::Placement) {
    let key = Key {
        namespace: Arc::clone(&chosen.namespace),
        name: Arc::clone(&chosen.name),
    };
    let nodes = cluster.record.all("Node").map(|(key, _)| key.name.clone());
    let other = nodes.into_iter().find(|node| *node != chosen.node);
    if let (Some(other), Some(pod)) = (other, cluster.record.get("Pod", &key)) {
        let mut pod = pod.clone();
        if record::node_of(&pod).is_empty() {
            return;
        }
        pod["spec"]["nodeName"] = json!(&*other);
        cluster.corrupt_pod(Doer::Scheduler, &key, &pod);
    }
}

fn render(write: &Write) -> String {
    match write {
        Write::Create { kind, key, .. } => format!("create {} {key}", kind.resource),
        Write::Patch {
            kind,
            key,
            subresource,
            patch,
            ..
        } => {
            let part = subresource.map(|part| format!("/{}", part.name()));
            let part = part.unwrap_or_default();
            let size = patch["spec"]["replicas"].as_i64();
            let size = size.map(|size| format!(" to {size}")).unwrap_or_default();
            format!("patch {}{part} {key}{size}", kind.resource)
        }
        Write::Delete {
            kind,
            key,
            grace_seconds,
            ..
        } => {
            let now = if *grace_seconds == Some(0) {
                " now"
            } else {
                ""
            };
            format!("delete {} {key}{now}", kind.resource)
        }
        Write::ConfirmGone { key, .. } => format!("confirm that {key} is gone"),
        Write::Event(note) => format!("event {}", note.reason),
    }
}
