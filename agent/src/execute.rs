//! Does what `plan` decided: a worker for each pod, which holds the pod's state and is a value, not a task.
//!
//! ```text
//! sync ──Wish──► Worker ──step──► plan
//!   └──Message──►  ├─► prepare: image → artifact → configuration → identity → Workload
//!     ▲            ├─► run: mesh.attach / cores.spawn_on(run) / hooks / probes
//!     └─children───┴─► status, events, final delete
//! ```
//!
//! A worker never waits. Everything slow is a child task that reports back through the mailbox of [`crate::sync`], which
//! owns the workers; children are ended and awaited by [`Worker::finish`].
//!
//! Invariants: a container is attached to the mesh before its pod is reported ready, and detached before it is stopped; a
//! message of an earlier run of a container is ignored; how a pod ended is handed over before the delete of its object; after
//! the worker ended nothing of its pod is left: no attachment, address, identity, task or log.

use crate::bridge::Siblings;
use crate::cgroup::Held;
use crate::deletion::delete_after_status;
use crate::events::Severity;
use crate::fence;
use crate::hooks::{self, Hook};
use crate::host_ports::{self, Taken};
use crate::kept_pod::KeptPod;
use crate::mailbox::{Mailbox, Message, Started};
use crate::node::Node;
use crate::plan::{self, Action, Event, ProbeKind};
use crate::pod_events::{HookKind, PodEvents};
use crate::pod_report::{self, PodReport};
use crate::pod_state::{Phase, PodState, Stage, StartFailure, StopReason, later};
use crate::pod_view::PodView;
use crate::prepare::{Prepared, Preparing};
use crate::probes;
use crate::resize::{self, Change, Decided, Request, Resize};
use crate::run::{self, Home, Launched, PreStop, Slot, Which};
use crate::sockets::Lodging;
use crate::status::{self, Ips};
use crate::sysctl;
use crate::wanted::{Role, Wanted};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

/// How long a pod's children may take to end once its containers have: far above what their stops take.
const CHILDREN_MAX: Duration = Duration::from_secs(60);
/// The same on a node that goes: it does not wait for the server.
const CHILDREN_OF_A_DRAIN_MAX: Duration = Duration::from_secs(1);

/// What a worker is told from outside.
pub(crate) enum Wish {
    /// The object as it is now.
    Is(Arc<Pod>),
    /// The object no longer exists.
    Gone,
    /// The node shuts down.
    Drain,
    /// The node may be taken for lost: the pod has to end now, and may run here again later.
    Fence,
}

/// One pod of this node. See the module's promise.
pub(crate) struct Worker {
    home: Home,
    /// With the amounts that it was given.
    pod: KeptPod,
    /// As it is in the API, where it asks for other amounts.
    asked: Option<Arc<Pod>>,
    resize: Resize,
    /// Containers that are being given other amounts.
    resizing: BTreeSet<usize>,
    /// When there may be room for what is waited for, or what failed may not fail.
    resize_at: Option<Timestamp>,
    wanted: Wanted,
    state: PodState,
    ip: Option<IpAddr>,
    slots: Vec<Slot>,
    told: PodReport,
    /// Containers that are being stopped because their first hook has failed, with what is told of it.
    unhooked: BTreeMap<usize, String>,
    gone: bool,
    draining: bool,
}

impl Worker {
    /// A pod that is to run under this address; nothing happens before the first [`Worker::tick`]. Without an address one can
    /// only end: it must have been deleted.
    pub(crate) fn new(
        node: Arc<Node>,
        pod: Arc<Pod>,
        ip: Option<IpAddr>,
        uid: Arc<str>,
        sender: mpsc::Sender<(Arc<str>, Message)>,
    ) -> Self {
        let wanted = Wanted::from_pod(&pod);
        let mut state = PodState::adopt(&wanted, &pod, Timestamp::now());
        let slots = wanted.containers.iter().map(|_| Slot::default()).collect();
        let told = PodReport::adopt(&pod);
        let resize = Resize::adopt(&pod);
        if state.stage == Stage::Active && !state.is_over() {
            match admit(&node, &uid, &pod) {
                Ok(()) => node
                    .shares
                    .set(&uid, Request::of(&resize.given(pod.clone()))),
                Err((reason, message)) => state.refuse(reason, message),
            }
        }
        let asked = lean(pod);
        let given = resize.given(asked.clone());
        let pod = KeptPod::new(&given);
        let asked = Some(asked).filter(|asked| !Arc::ptr_eq(asked, &given));
        let (siblings, tasks) = (Siblings::default(), TaskTracker::new());
        if let Some(ip) = ip {
            let lodging = Lodging {
                pod: pod.clone(),
                ip,
                siblings: siblings.clone(),
                tasks: tasks.clone(),
                flows: Default::default(),
            };
            node.sockets().house(&node.mesh, &uid, lodging);
        }
        Self {
            home: Home {
                node,
                siblings,
                mailbox: Mailbox { uid, sender },
                tasks,
            },
            pod,
            asked,
            resize,
            resizing: BTreeSet::new(),
            resize_at: None,
            wanted,
            state,
            ip,
            slots,
            told,
            unhooked: BTreeMap::new(),
            gone: false,
            draining: false,
        }
    }

    /// It asks to be stopped where its node may be taken for lost.
    pub(crate) fn is_fenced(&self) -> bool {
        fence::is_asked_for(PodView(&self.pod.read()))
    }

    /// Whether nothing runs and nothing is to run: time for [`Worker::finish`].
    pub(crate) fn is_done(&self) -> bool {
        self.state.is_idle()
            && (self.gone
                || (self.draining && (self.state.stage == Stage::Finished || self.state.is_over())))
    }

    /// When [`Worker::tick`] is due though nothing happens.
    pub(crate) fn next_wake(&self, now: Timestamp) -> Option<Timestamp> {
        let wake = self.state.next_wake(&self.wanted, now);
        wake.into_iter().chain(self.resize_at).min()
    }

    pub(crate) fn tick(&mut self) {
        if self.resize_at.is_some_and(|at| at <= Timestamp::now()) {
            self.reconsider();
        }
        self.step(Event::Tick);
    }

    pub(crate) fn wish(&mut self, wish: Wish) {
        match wish {
            Wish::Is(pod) => {
                let is_written = self.home.node.publisher.has_sent(PodView(&pod).uid());
                self.told.compare(&pod, is_written);
                let asked = lean(pod);
                let given = self.resize.given(asked.clone());
                self.pod.set(&given);
                self.asked = Some(asked).filter(|asked| !Arc::ptr_eq(asked, &given));
                self.reconsider();
                let pod = self.pod.read();
                let (node, uid) = (&self.home.node, &self.home.mailbox.uid);
                node.sockets().renew(&node.mesh, uid, &pod);
                // Ephemeral containers come to those that there are. The other lists are immutable; should they differ all the
                // same, indexes would lie.
                let wanted = Wanted::from_pod(&pod);
                if wanted.continues(&self.wanted) {
                    self.state.grow(&wanted);
                    self.slots
                        .resize_with(wanted.containers.len(), Slot::default);
                    self.wanted = wanted;
                }
                self.step(Event::Tick);
            }
            Wish::Gone if self.gone => {}
            Wish::Gone => {
                self.gone = true;
                // Deleted with force, or behind our back: nothing is left to be graceful for, nor to be deleted.
                self.wanted.kill_at = Some(Timestamp::now());
                self.state.delete_asked = true;
                self.step(Event::Tick);
            }
            Wish::Drain if self.draining => {}
            Wish::Drain => {
                self.draining = true;
                self.step(Event::NodeDrain);
            }
            Wish::Fence => {
                self.draining = true;
                self.wanted.grace = self.wanted.grace.min(fence::GRACE);
                self.step(Event::NodeFenced);
            }
        }
    }

    pub(crate) fn receive(&mut self, message: Message) {
        match message {
            Message::Prepared {
                container,
                run,
                result,
            } if self.is_current(container, run) => {
                self.slots[container].prepared();
                match result {
                    Err((failure, message)) => self.not_started(container, failure, message),
                    Ok(prepared) if self.state.containers[container].phase != Phase::Starting => {
                        // Told to stop between the last step of preparing and now.
                        prepared.log.close();
                        self.not_started(container, StartFailure::Create, "stopped".into());
                    }
                    Ok(prepared) => self.launch(Which { container, run }, *prepared),
                }
            }
            Message::Exited {
                container,
                run,
                exit,
            } if self.is_current(container, run) => {
                self.slots[container].ended(&self.home);
                self.resizing.remove(&container);
                let name = self.wanted.containers.get(container);
                if let Some(wanted) = name {
                    self.resize.ended(&wanted.name);
                }
                match self.unhooked.remove(&container) {
                    // It was stopped because its hook has failed: that is what is told.
                    Some(message) => {
                        let failure = StartFailure::PostStart;
                        self.step(Event::StartFailed {
                            container,
                            failure,
                            message,
                        });
                    }
                    None => self.step(Event::Ended { container, exit }),
                }
            }
            Message::Hooked {
                container,
                run,
                started,
                result,
            } if self.is_current(container, run) => {
                self.hooked(Which { container, run }, *started, result);
            }
            Message::Probed {
                container,
                run,
                report,
            } if self.is_current(container, run) => self.probed(container, report),
            Message::Resized {
                container,
                run,
                amounts,
                result,
            } if self.is_current(container, run) => self.resized(container, *amounts, result),
            Message::Prepared { .. }
            | Message::Resized { .. }
            | Message::Exited { .. }
            | Message::Hooked { .. }
            | Message::Probed { .. } => {}
        }
    }

    fn is_current(&self, container: usize, run: u64) -> bool {
        let slot = self.slots.get(container);
        slot.is_some_and(|slot| slot.is_current(run))
    }

    fn step(&mut self, event: Event) {
        // Read once for all that follows.
        let _pod = self.pod.read();
        let now = Timestamp::now();
        let was = self.state.clone();
        let mut ends = self.act(event, now);
        for container in self.due_restarts() {
            ends |= self.act(Event::Resized { container }, now);
        }
        self.resize_in_place();
        self.settle_resize();
        self.events().backing_off(&was, &self.state);
        if self.state.is_over() && self.state.is_idle() {
            self.release();
        }
        self.report(now);
        if ends {
            let node = &self.home.node;
            let (link, publisher) = (node.link.clone(), node.publisher.clone());
            let deletion = delete_after_status(link, publisher, self.pod.read());
            self.home.tasks.spawn(deletion);
        }
    }

    /// Takes one event; whether the pod's object is to go.
    fn act(&mut self, event: Event, now: Timestamp) -> bool {
        let mut ends = false;
        for action in plan::step(&mut self.state, &self.wanted, event, now) {
            match action {
                Action::Start { container, restart } => self.start(container, restart),
                Action::Stop {
                    container,
                    grace,
                    reason,
                } => self.stop(container, grace, reason),
                // After the report.
                Action::Delete => ends = true,
            }
        }
        ends
    }

    /// Gives the pod what it asks for, if there is room, and says what came of it.
    fn reconsider(&mut self) {
        self.resize_at = None;
        if self.state.stage != Stage::Active || self.state.is_over() {
            return;
        }
        let (node, uid) = (&self.home.node, &self.home.mailbox.uid);
        let capacity = Request {
            cpu_millis: node.facts.allocatable_cpu_millis,
            memory_bytes: node.facts.allocatable_memory_bytes,
        };
        let (room, now) = (node.shares.room(uid, capacity), Timestamp::now());
        let asked = self.asked();
        let decided = self.resize.decide(&asked, room, now);
        let (severity, reason, words) = match decided {
            Decided::Nothing => {
                self.look_again(now);
                return;
            }
            Decided::Allocated => {
                node.shares.set(uid, Request::of(&asked));
                self.pod.set(&asked);
                self.asked = None;
                (Severity::Normal, "ResizeStarted", "Pod resize started")
            }
            Decided::Deferred => (Severity::Warning, "ResizeDeferred", "Pod resize Deferred"),
            Decided::Infeasible => (
                Severity::Warning,
                "ResizeInfeasible",
                "Pod resize Infeasible",
            ),
        };
        let error = match decided {
            Decided::Allocated => "",
            _ => self.resize.lacks().unwrap_or_default(),
        };
        let words = format!("{words}: {}", resize::summary(&asked, error));
        self.events().resized(severity, reason, words);
        self.look_again(now);
    }

    /// As it is in the API.
    fn asked(&self) -> Arc<Pod> {
        self.asked.clone().unwrap_or_else(|| self.pod.read())
    }

    fn look_again(&mut self, now: Timestamp) {
        if self.resize.waits() || self.resize.failure().is_some() {
            self.resize_at = Some(later(now, resize::AGAIN_AFTER));
        }
    }

    fn runs(&self, index: usize) -> bool {
        let state = self.state.containers.get(index);
        state.is_some_and(|state| matches!(state.phase, Phase::Running { .. }))
    }

    fn due(&self) -> Vec<(usize, Change)> {
        if self.state.stage != Stage::Active {
            return Vec::new();
        }
        let pod = self.pod.read();
        let containers = PodView(&pod).containers().into_iter().enumerate();
        let due = containers.filter(|(index, _)| self.runs(*index));
        due.filter_map(|(index, (container, _))| Some((index, self.resize.due(&container)?)))
            .collect()
    }

    fn due_restarts(&self) -> Vec<usize> {
        let due = self.due().into_iter();
        due.filter(|(_, change)| *change == Change::Restart)
            .map(|(index, _)| index)
            .collect()
    }

    /// Has containers that run come to what they were given.
    fn resize_in_place(&mut self) {
        // What failed is tried again when its time has come.
        if self.resize_at.is_some() && self.resize.failure().is_some() {
            return;
        }
        for (index, change) in self.due() {
            let Change::InPlace(amounts) = change else {
                continue;
            };
            if self.resizing.contains(&index) {
                continue;
            }
            let (Some(context), Some((container, _))) =
                (self.slots[index].context(), self.container(index))
            else {
                continue;
            };
            let node = self.home.node.clone();
            let held = Held::of(&node.facts, &container).map_err(|error| error.to_string());
            let root = node.roots.of(&self.home.mailbox.uid, &container.name);
            let (mailbox, run) = (self.home.mailbox.clone(), self.slots[index].run());
            self.resizing.insert(index);
            self.home.tasks.spawn(async move {
                let result = match held {
                    Ok(held) => context.resize(held, root).await,
                    Err(why) => Err(why),
                };
                mailbox
                    .send(Message::Resized {
                        container: index,
                        run,
                        amounts: Box::new(amounts),
                        result,
                    })
                    .await;
            });
        }
    }

    fn resized(&mut self, index: usize, amounts: ResourceRequirements, result: Result<(), String>) {
        self.resizing.remove(&index);
        let Some(name) = self.wanted.containers.get(index) else {
            return;
        };
        let name = name.name.clone();
        let before = self.resize.failure().map(str::to_owned);
        self.resize.applied(&name, amounts, result);
        if let Some(error) = self.resize.failure()
            && before.as_deref() != Some(error)
        {
            let words = resize::summary(&self.asked(), error);
            let words = format!("Pod resize error: {words}");
            self.events()
                .resized(Severity::Warning, "ResizeError", words);
        }
        self.look_again(Timestamp::now());
        self.step(Event::Tick);
    }

    /// Says so when all that was given is there.
    fn settle_resize(&mut self) {
        let mut containers = self.state.containers.iter();
        let is_between = containers
            .any(|container| matches!(container.phase, Phase::Starting | Phase::Stopping { .. }));
        if !is_between && self.resize.settle() {
            let words = resize::summary(&self.pod.read(), "");
            let words = format!("Pod resize completed: {words}");
            self.events()
                .resized(Severity::Normal, "ResizeCompleted", words);
        }
    }

    fn events(&self) -> PodEvents<'_> {
        PodEvents {
            pod: self.pod.read(),
            recorder: &self.home.node.recorder,
        }
    }

    fn container(&self, index: usize) -> Option<(Container, Role)> {
        let pod = self.pod.read();
        let (container, role) = PodView(&pod).containers().into_iter().nth(index)?;
        Some((container.into_owned(), role))
    }

    fn start(&mut self, index: usize, restart: u32) {
        let Some((container, role)) = self.container(index) else {
            return;
        };
        let pod = self.pod.read();
        let target = PodView(&pod).target_of(&container.name).cloned();
        let (run, cancel) = self.slots[index].begin();
        let Some(ip) = self.ip else { return };
        let preparing = Preparing {
            node: self.home.node.clone(),
            pod,
            kept: self.pod.clone(),
            container,
            role,
            target,
            restart,
            ip,
            siblings: self.home.siblings.clone(),
        };
        let mailbox = self.home.mailbox.clone();
        self.home.tasks.spawn(async move {
            let result = tokio::select! {
                biased;
                () = cancel.cancelled() => Err((StartFailure::Create, "stopped before it started".to_owned())),
                result = preparing.prepare() => result,
            };
            let result = result.map(Box::new);
            mailbox.send(Message::Prepared { container: index, run, result }).await;
        });
    }

    fn not_started(&mut self, index: usize, failure: StartFailure, message: String) {
        if self.state.containers[index].phase == Phase::Starting
            && let Some((container, _)) = self.container(index)
        {
            self.events().not_started(&container, failure, &message);
        }
        self.step(Event::StartFailed {
            container: index,
            failure,
            message,
        });
    }

    fn launch(&mut self, which: Which, prepared: Prepared) {
        let index = which.container;
        let Some(ip) = self.ip else { return };
        let as_prepared = prepared.container.clone();
        let pod = self.pod.read();
        let launched = run::launch(&self.home, PodView(&pod), ip, which, prepared);
        let Launched {
            running,
            serving,
            post_start,
            image_id,
            container_id,
        } = match launched {
            Ok(launched) => launched,
            Err(why) => return self.not_started(index, StartFailure::Config, why),
        };
        self.slots[index].started(running);
        self.resize.started(&as_prepared);
        let started = Started {
            serving,
            image_id,
            container_id,
        };
        let Some((container, _)) = self.container(index) else {
            return;
        };
        self.events().started(&container);
        let place = self.place(index, &container);
        let (Some(hook), Some(place)) = (post_start, place) else {
            return self.started(which, started);
        };
        let mailbox = self.home.mailbox.clone();
        let stop = self.slots[index].stopped();
        self.home.tasks.spawn(async move {
            let result = tokio::select! {
                biased;
                // Its end is told by others.
                () = stop.cancelled() => return,
                result = hook.run(&place) => result,
            };
            let Which { container, run } = which;
            let started = Box::new(started);
            mailbox
                .send(Message::Hooked {
                    container,
                    run,
                    started,
                    result,
                })
                .await;
        });
    }

    /// Where a hook of the container is carried out, while it runs.
    fn place(&self, index: usize, container: &Container) -> Option<hooks::Place> {
        let context = self.slots[index].context()?;
        let node = &self.home.node;
        Some(hooks::Place::new(
            node,
            &context,
            &container.name,
            &self.pod.read(),
            self.ip?,
        ))
    }

    fn hooked(&mut self, which: Which, started: Started, result: Result<(), String>) {
        let index = which.container;
        let Err(message) = result else {
            return self.started(which, started);
        };
        // Whoever stopped it meanwhile had a reason, too.
        if self.state.containers[index].phase != Phase::Starting {
            return;
        }
        if let Some((container, _)) = self.container(index) {
            self.events().hook_failed(&container, HookKind::PostStart);
        }
        self.unhooked.insert(index, message);
        let grace = self.wanted.grace;
        self.stop(index, grace, StopReason::PostStart);
    }

    /// The run counts as started.
    fn started(&mut self, which: Which, started: Started) {
        let Started {
            serving,
            image_id,
            container_id,
        } = started;
        self.slots[which.container].begin_probes(&self.home, which);
        self.step(Event::Started {
            container: which.container,
            serving,
            image_id,
            container_id,
        });
    }

    fn stop(&mut self, index: usize, grace: Duration, reason: StopReason) {
        let slot = &mut self.slots[index];
        slot.cancel();
        let run = slot.run();
        let Some(running) = self.slots[index].running() else {
            return;
        };
        let Some((container, _)) = self.container(index) else {
            return;
        };
        self.events().killing(&container, reason);
        let which = Which {
            container: index,
            run,
        };
        let hook = running.pre_stop().filter(|hook| match hook {
            // The pod has slept before its containers were told to stop.
            Hook::Sleep(_) => !matches!(reason, StopReason::PodDeleted | StopReason::NodeDrain),
            _ => true,
        });
        let place = self.place(index, &container);
        let hook = hook.cloned().zip(place).map(|(hook, place)| {
            let (recorder, pod) = (self.home.node.recorder.clone(), self.pod.clone());
            let failed = move || {
                let (pod, recorder) = (pod.read(), &recorder);
                PodEvents { pod, recorder }.hook_failed(&container, HookKind::PreStop);
            };
            PreStop {
                hook,
                place,
                failed: Box::new(failed),
            }
        });
        running.stop(&self.home, which, grace, reason, hook);
    }

    fn probed(&mut self, index: usize, report: probes::Report) {
        match report {
            probes::Report::Failed { kind, message } => {
                if let Some((container, _)) = self.container(index) {
                    self.events().unhealthy(&container, kind, &message);
                }
            }
            probes::Report::Errored { kind, message } => {
                if let Some((container, _)) = self.container(index) {
                    self.events().probe_errored(&container, kind, &message);
                }
            }
            probes::Report::Verdict { kind, healthy } => {
                // A pod on its way out keeps the readiness it has: whoever still comes is served.
                if self.state.stage == Stage::Active || kind == ProbeKind::Readiness {
                    self.step(Event::Probed {
                        container: index,
                        probe: kind,
                        healthy,
                    });
                }
            }
        }
    }

    /// Tells the API server and the node's readers how the pod is, if that is news.
    fn report(&mut self, now: Timestamp) {
        let reported_ip = self.reported_ip();
        let (node, pod) = (&self.home.node, &self.pod.read());
        let told = &mut self.told;
        let ips = Ips {
            pod: reported_ip,
            host: node.facts.host_ip,
        };
        let status = told.status(pod, &self.wanted, &self.state, &self.resize, ips, now);
        let record = pod_report::record(PodView(pod), &self.state, &self.slots, self.ip, &status);
        node.registry.set(PodView(pod), record);
        if !self.gone && told.is_news(&status) {
            node.publisher.publish(pod, status);
        }
    }

    /// What others know the pod by: on the node's network it is where the node is.
    fn reported_ip(&self) -> Option<IpAddr> {
        let node = self.home.node.facts.host_ip;
        let of_node = host_ports::address(PodView(&self.pod.read()), node);
        self.ip.map(|ip| of_node.unwrap_or(ip))
    }

    /// What it has of the node is for others from now on.
    fn release(&mut self) {
        let (node, uid) = (&self.home.node, &self.home.mailbox.uid);
        node.shares.remove(uid);
        node.host_ports.release(uid);
        node.volumes.let_go(uid);
        if let Some(ip) = self.ip.take() {
            node.addresses.lock().release(ip);
        }
    }

    /// Ends what is left of the pod on this node, and waits for it.
    pub(crate) async fn finish(mut self: Box<Self>) {
        for slot in &mut self.slots {
            slot.cut_off(&self.home).await;
        }
        // Before its address can be another's.
        let node = &self.home.node;
        node.sockets().remove(&node.mesh, &self.home.mailbox.uid);
        self.release();
        let pod = self.pod.read();
        let (node, pod) = (&self.home.node, PodView(&pod));
        node.registry.remove(pod);
        if self.gone {
            node.publisher.forget(pod.uid());
            node.logs.remove_pod(pod.namespace(), pod.name(), pod.uid());
        }
        // Children end by themselves now: each was cancelled, or waits only for a stop that has happened. The one that
        // deletes the object ends when the object is gone.
        self.home.tasks.close();
        let children = self.home.tasks.wait();
        let most = match self.draining {
            true => CHILDREN_OF_A_DRAIN_MAX,
            false => CHILDREN_MAX,
        };
        if tokio::time::timeout(most, children).await.is_err() {
            tracing::debug!(pod = pod.name(), "left a task of a pod behind");
        }
        if self.gone {
            node.volumes.remove_pod(pod).await;
        }
        // The containers of a pod that is taken up again are started anew.
        node.roots.remove_pod(pod.uid()).await;
    }
}

/// Whether the node takes a pod that was bound to it, and if not, why: a reason, and words.
fn admit(node: &Node, uid: &Arc<str>, pod: &Pod) -> Result<(), (&'static str, String)> {
    let view = PodView(pod);
    let refused = match sysctl::refused(view) {
        Some(why) => (sysctl::FORBIDDEN, why),
        None => match node.host_ports.claim(uid, view) {
            Ok(()) => return Ok(()),
            Err(Taken) => (host_ports::TAKEN, host_ports::TAKEN_WORDS.to_owned()),
        },
    };
    let (reason, words) = &refused;
    node.recorder
        .pod(pod, None, Severity::Warning, reason, words.clone());
    Err(refused)
}

/// A pod without its status, which would be the larger part of an idle one and is known here better.
fn lean(mut pod: Arc<Pod>) -> Arc<Pod> {
    if pod.status.is_some() {
        let pod = Arc::make_mut(&mut pod);
        pod.status = pod.status.take().and_then(status::of_others);
    }
    pod
}
