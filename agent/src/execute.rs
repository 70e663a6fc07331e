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
use crate::deletion::delete_after_status;
use crate::hooks::{self, Hook};
use crate::mailbox::{Mailbox, Message, Started};
use crate::node::Node;
use crate::plan::{self, Action, Event, ProbeKind};
use crate::pod_events::{HookKind, PodEvents};
use crate::pod_report::{self, PodReport};
use crate::pod_state::{Phase, PodState, Stage, StartFailure, StopReason};
use crate::pod_view::PodView;
use crate::prepare::{Prepared, Preparing};
use crate::probes;
use crate::run::{self, Home, Launched, PreStop, Slot, Which};
use crate::sockets::Lodging;
use crate::status;
use crate::wanted::{Role, Wanted};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};
use std::borrow::Cow;
use std::collections::BTreeMap;
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
}

/// One pod of this node. See the module's promise.
pub(crate) struct Worker {
    home: Home,
    pod: Arc<Pod>,
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
        let state = PodState::adopt(&wanted, &pod, Timestamp::now());
        let slots = wanted.containers.iter().map(|_| Slot::default()).collect();
        let told = PodReport::adopt(&pod);
        let pod = lean(pod);
        let (siblings, tasks) = (Siblings::default(), TaskTracker::new());
        if let Some(ip) = ip {
            let lodging = Lodging {
                pod: pod.clone(),
                ip,
                siblings: siblings.clone(),
                tasks: tasks.clone(),
                flows: Default::default(),
            };
            node.sockets().house(&uid, lodging);
        }
        Self {
            home: Home {
                node,
                siblings,
                mailbox: Mailbox { uid, sender },
                tasks,
            },
            pod,
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

    /// Whether nothing runs and nothing is to run: time for [`Worker::finish`].
    pub(crate) fn is_done(&self) -> bool {
        self.state.is_idle()
            && (self.gone
                || (self.draining && (self.state.stage == Stage::Finished || self.state.is_over())))
    }

    /// When [`Worker::tick`] is due though nothing happens.
    pub(crate) fn next_wake(&self, now: Timestamp) -> Option<Timestamp> {
        self.state.next_wake(&self.wanted, now)
    }

    pub(crate) fn tick(&mut self) {
        self.step(Event::Tick);
    }

    pub(crate) fn wish(&mut self, wish: Wish) {
        match wish {
            Wish::Is(pod) => {
                let is_written = self.home.node.publisher.has_sent(PodView(&pod).uid());
                self.told.compare(&pod, is_written);
                self.pod = lean(pod);
                let (node, uid) = (&self.home.node, PodView(&self.pod).uid());
                node.sockets().renew(uid, &self.pod);
                node.volumes.pod_changed(&self.pod);
                // Ephemeral containers come to those that there are. The other lists are immutable; should they differ all the
                // same, indexes would lie.
                let wanted = Wanted::from_pod(&self.pod);
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
            Message::Prepared { .. }
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
        let now = Timestamp::now();
        let was = self.state.clone();
        let mut ends = false;
        for action in plan::step(&mut self.state, &self.wanted, event, now) {
            match action {
                Action::Start { container, restart } => self.start(container, restart),
                Action::Stop {
                    container,
                    grace,
                    reason,
                } => self.stop(container, grace, reason),
                // After the report below.
                Action::Delete => ends = true,
            }
        }
        self.events().backing_off(&was, &self.state);
        if self.state.is_over() && self.state.is_idle() {
            self.release_address();
        }
        self.report(now);
        if ends {
            let node = &self.home.node;
            let (link, publisher) = (node.link.clone(), node.publisher.clone());
            let deletion = delete_after_status(link, publisher, self.pod.clone());
            self.home.tasks.spawn(deletion);
        }
    }

    fn events(&self) -> PodEvents<'_> {
        PodEvents {
            pod: PodView(&self.pod),
            recorder: &self.home.node.recorder,
        }
    }

    fn container(&self, index: usize) -> Option<(Cow<'_, Container>, Role)> {
        PodView(&self.pod).containers().into_iter().nth(index)
    }

    fn start(&mut self, index: usize, restart: u32) {
        let Some((container, role)) = self.container(index) else {
            return;
        };
        let container = container.into_owned();
        let target = PodView(&self.pod).target_of(&container.name).cloned();
        let (run, cancel) = self.slots[index].begin();
        let Some(ip) = self.ip else { return };
        let preparing = Preparing {
            node: self.home.node.clone(),
            pod: self.pod.clone(),
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
        let launched = run::launch(&self.home, PodView(&self.pod), ip, which, prepared);
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
        let started = Started {
            serving,
            image_id,
            container_id,
        };
        let Some((container, _)) = self.container(index) else {
            return;
        };
        let container = container.into_owned();
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
            &self.pod,
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
        let container = container.into_owned();
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
                let (pod, recorder) = (PodView(&pod), &recorder);
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
        let (node, pod) = (&self.home.node, &self.pod);
        let host_ip = node.facts.host_ip;
        let told = &mut self.told;
        let status = told.status(pod, &self.wanted, &self.state, self.ip, host_ip, now);
        let record = pod_report::record(PodView(pod), &self.state, &self.slots, self.ip, &status);
        node.registry.set(PodView(pod), record);
        if !self.gone && told.is_news(&status) {
            node.publisher.publish(pod, status);
        }
    }

    fn release_address(&mut self) {
        if let Some(ip) = self.ip.take() {
            self.home.node.addresses.lock().release(ip);
        }
    }

    /// Ends what is left of the pod on this node, and waits for it.
    pub(crate) async fn finish(mut self: Box<Self>) {
        for slot in &mut self.slots {
            slot.cut_off(&self.home).await;
        }
        // Before its address can be another's.
        let node = &self.home.node;
        node.sockets().remove(&node.mesh, PodView(&self.pod).uid());
        self.release_address();
        let (node, pod) = (&self.home.node, PodView(&self.pod));
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

/// A pod without its status, which would be the larger part of an idle one and is known here better.
fn lean(mut pod: Arc<Pod>) -> Arc<Pod> {
    if pod.status.is_some() {
        let pod = Arc::make_mut(&mut pod);
        pod.status = pod.status.take().and_then(status::of_others);
    }
    pod
}
