//! Does what `plan` decided: a worker for each pod, which holds the pod's state and is a value, not a task.
//!
//! ```text
//! sync ──Wish──► Worker ──step──► plan
//!   └──Message──►  ├─► prepare: image → artifact → configuration → identity → Workload
//!     ▲            ├─► mesh.attach / cores.spawn_on(run) / probes
//!     └─children───┴─► status, events, final delete
//! ```
//!
//! A worker never waits. Everything slow is a child task that reports back through the mailbox of [`crate::sync`], which
//! owns the workers; children are ended and awaited by [`Worker::finish`].
//!
//! Invariants: a container is attached to the mesh before its pod is reported ready, and detached before it is stopped; a
//! message of an earlier run of a container is ignored; after the worker ended nothing of its pod is left: no attachment,
//! address, identity, task or log.

use crate::addresses::Addresses;
use crate::bridge::{self, Siblings};
use crate::deletion::delete_after_status;
use crate::events::{Recorder, Severity};
use crate::guest::Guest;
use crate::identity::{Claim, Link, Workloads};
use crate::image::Images;
use crate::logs::{self, Logs};
use crate::plan::{self, Action, Event, ProbeKind};
use crate::pod_state::{Exit, Phase, PodState, Stage, StartFailure, StopReason};
use crate::prepare::{Prepared, Preparing, Refusal, workload_info};
use crate::probes;
use crate::publisher::Publisher;
use crate::registry::{self, ContainerRecord, PodRecord, Registry};
use crate::status;
use crate::topology::Topology;
use crate::translate::{self, NodeFacts, World};
use crate::volumes::Volumes;
use crate::wanted::{Role, Wanted};
use crate::workers::Workers;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, PodCondition};
use parking_lot::Mutex;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use weft_mesh::{LocalWorkload, Mesh, PodAddress};
use weft_runtime::{Cores, Engine, Usage};

/// Longest message of a container that ended; as the kubelet's.
const TERMINATION_MESSAGE_BYTES_MAX: usize = 4096;

/// What every worker of this node uses.
pub struct Node {
    pub facts: NodeFacts,
    pub trust_domain: String,
    pub link: Link,
    pub engine: Engine,
    pub workers: Workers,
    pub cores: Cores,
    pub mesh: Mesh,
    pub images: Images,
    pub logs: Logs,
    pub volumes: Volumes,
    pub recorder: Recorder,
    pub publisher: Publisher,
    pub identities: Workloads,
    pub topology: Topology,
    pub registry: Registry,
    pub addresses: Mutex<Addresses>,
    /// Spreads commands and probes over the cores.
    pub next_core: AtomicUsize,
}

/// What a worker is told from outside.
pub(crate) enum Wish {
    /// The object as it is now.
    Is(Arc<Pod>),
    /// The object no longer exists.
    Gone,
    /// The node shuts down.
    Drain,
}

/// From a worker's children.
pub(crate) enum Message {
    Prepared {
        container: usize,
        run: u64,
        result: Result<Box<Prepared>, Refusal>,
    },
    Exited {
        container: usize,
        run: u64,
        exit: Exit,
    },
    Probed {
        container: usize,
        run: u64,
        report: probes::Report,
    },
}

/// Where the children of one pod report to.
#[derive(Clone)]
struct Mailbox {
    uid: Arc<str>,
    sender: mpsc::Sender<(Arc<str>, Message)>,
}

impl Mailbox {
    async fn send(&self, message: Message) {
        // The other end is gone only when the node is: then nobody needs the answer.
        let _ = self.sender.send((self.uid.clone(), message)).await;
    }
}

/// What a worker holds for a container.
#[derive(Default)]
struct Slot {
    /// Counts runs, so that late messages are recognised.
    run: u64,
    cancel: Option<CancellationToken>,
    running: Option<Running>,
    /// What the runs before have used.
    spent: Option<Box<Usage>>,
}

struct Running {
    workload: Guest,
    /// Where it is attached, if it serves.
    address: Option<PodAddress>,
    log: logs::Writer,
    why: Arc<Mutex<Option<StopReason>>>,
    probes: CancellationToken,
    /// Keeps the certificate of its identity in the mesh.
    _claim: Claim,
}

/// One pod of this node. See the module's promise.
pub(crate) struct Worker {
    node: Arc<Node>,
    pod: Arc<Pod>,
    wanted: Wanted,
    state: PodState,
    ip: Option<IpAddr>,
    siblings: Siblings,
    slots: Vec<Slot>,
    mailbox: Mailbox,
    tasks: TaskTracker,
    /// What an earlier process of this node reported, until the first report of this one.
    adopted: Vec<PodCondition>,
    reported: Option<k8s_openapi::api::core::v1::PodStatus>,
    gone: bool,
    draining: bool,
}

impl Worker {
    /// A pod that is to run under this address; nothing happens before the first [`Worker::tick`].
    pub(crate) fn new(
        node: Arc<Node>,
        pod: Arc<Pod>,
        ip: IpAddr,
        uid: Arc<str>,
        sender: mpsc::Sender<(Arc<str>, Message)>,
    ) -> Self {
        let wanted = Wanted::from_pod(&pod);
        let state = PodState::adopt(&wanted, &pod, Timestamp::now());
        let slots = wanted.containers.iter().map(|_| Slot::default()).collect();
        let status = pod.status.as_ref();
        let adopted = status.and_then(|status| status.conditions.clone());
        let adopted = adopted.unwrap_or_default();
        Self {
            node,
            pod: lean(pod),
            wanted,
            state,
            ip: Some(ip),
            siblings: Siblings::default(),
            slots,
            mailbox: Mailbox { uid, sender },
            tasks: TaskTracker::new(),
            adopted,
            reported: None,
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
                self.pod = lean(pod);
                // Container lists are immutable; should they differ all the same, indexes would lie.
                let wanted = Wanted::from_pod(&self.pod);
                if wanted.containers.len() == self.wanted.containers.len() {
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
                self.slots[container].cancel = None;
                match result {
                    Err((failure, message)) => {
                        self.explain(container, failure, &message);
                        self.step(Event::StartFailed {
                            container,
                            failure,
                            message,
                        });
                    }
                    Ok(prepared) if self.state.containers[container].phase != Phase::Starting => {
                        // Told to stop between the last step of preparing and now.
                        prepared.log.close();
                        self.step(Event::StartFailed {
                            container,
                            failure: StartFailure::Create,
                            message: "stopped".into(),
                        });
                    }
                    Ok(prepared) => self.launch(container, *prepared),
                }
            }
            Message::Exited {
                container,
                run,
                exit,
            } if self.is_current(container, run) => {
                if let Some(running) = self.slots[container].running.take() {
                    self.detach(&running);
                    let slot = &mut self.slots[container];
                    running.probes.cancel();
                    running.log.close();
                    let earlier = slot.spent.take().unwrap_or_default();
                    let mut spent = registry::add(running.workload.usage(), &earlier);
                    // Gauges of a run that is over.
                    (spent.memory_bytes, spent.instances) = (0, 0);
                    (spent.in_flight, spent.queued) = (0, 0);
                    slot.spent = Some(Box::new(spent));
                }
                self.step(Event::Ended { container, exit });
            }
            Message::Probed {
                container,
                run,
                report,
            } if self.is_current(container, run) => self.probed(container, report),
            Message::Prepared { .. } | Message::Exited { .. } | Message::Probed { .. } => {}
        }
    }

    /// Out of the mesh, for a container that was not stopped from here.
    fn detach(&self, running: &Running) {
        if let Some(address) = running.address.filter(|_| running.why.lock().is_none()) {
            drop(self.node.mesh.detach(address));
            self.siblings.remove(address.port);
        }
    }

    fn is_current(&self, container: usize, run: u64) -> bool {
        self.slots
            .get(container)
            .is_some_and(|slot| slot.run == run)
    }

    fn step(&mut self, event: Event) {
        let now = Timestamp::now();
        let was = self.state.clone();
        let mut is_over = false;
        for action in plan::step(&mut self.state, &self.wanted, event, now) {
            match action {
                Action::Start { container, restart } => self.start(container, restart),
                Action::Stop {
                    container,
                    grace,
                    reason,
                } => self.stop(container, grace, reason),
                Action::Delete => is_over = true,
            }
        }
        self.tell_of_backoff(&was);
        if self.state.is_over() && self.state.is_idle() {
            self.release_address();
        }
        self.report(now);
        if is_over {
            let node = &self.node;
            let (link, publisher) = (node.link.clone(), node.publisher.clone());
            self.tasks
                .spawn(delete_after_status(link, publisher, self.pod.clone()));
        }
    }

    fn container(&self, index: usize) -> Option<(Container, Role)> {
        translate::containers(&self.pod)
            .get(index)
            .map(|(container, role)| ((*container).clone(), *role))
    }

    fn start(&mut self, index: usize, restart: u32) {
        let Some((container, role)) = self.container(index) else {
            return;
        };
        let slot = &mut self.slots[index];
        slot.run += 1;
        let (run, cancel) = (slot.run, CancellationToken::new());
        slot.cancel = Some(cancel.clone());
        let Some(ip) = self.ip else { return };
        let preparing = Preparing {
            node: self.node.clone(),
            pod: self.pod.clone(),
            container,
            role,
            restart,
            ip,
            siblings: self.siblings.clone(),
        };
        let mailbox = self.mailbox.clone();
        self.tasks.spawn(async move {
            let result = tokio::select! {
                biased;
                () = cancel.cancelled() => Err((StartFailure::Create, "stopped before it started".to_owned())),
                result = preparing.prepare() => result,
            };
            let result = result.map(Box::new);
            mailbox.send(Message::Prepared { container: index, run, result }).await;
        });
    }

    /// Starts a prepared container; from here on it can be reached.
    fn launch(&mut self, index: usize, prepared: Prepared) {
        let Some((container, _)) = self.container(index) else {
            return;
        };
        let Some(ip) = self.ip else { return };
        let Prepared {
            spec,
            workload,
            world,
            probes: probe_specs,
            image_id,
            log,
            failures,
            siblings,
            identity,
            claim,
        } = prepared;
        if world == World::Http && siblings.serves(spec.port) {
            log.close();
            let message = format!(
                "port {} is served by another container of this pod; give this one a containerPort of its own",
                spec.port
            );
            self.explain(index, StartFailure::Config, &message);
            self.step(Event::StartFailed {
                container: index,
                failure: StartFailure::Config,
                message,
            });
            return;
        }
        let run = self.slots[index].run;
        let core = self.node.next_core.fetch_add(1, Ordering::Relaxed);
        let why = Arc::new(Mutex::new(None));
        let stop = CancellationToken::new();
        let address = match world {
            World::Http => {
                let service = bridge::inbound(workload.clone(), failures);
                let address = PodAddress {
                    ip,
                    port: spec.port,
                };
                siblings.insert(spec.port, service.clone());
                let limits = workload.limits();
                let in_flight_max = limits.in_flight_max + limits.queued_max;
                self.node.mesh.attach(
                    address,
                    LocalWorkload {
                        identity,
                        workload: workload_info(&self.pod),
                        service,
                        in_flight_max,
                    },
                );
                self.watch(index, run, workload.clone(), stop.clone());
                Some(address)
            }
            World::Command => {
                let (mailbox, why, ran) = (self.mailbox.clone(), why.clone(), workload.clone());
                let log = log.clone();
                let running = self
                    .node
                    .cores
                    .spawn_on(core, async move { ran.run().await });
                self.tasks.spawn(async move {
                    let exit = match running.await {
                        Ok(exit) => {
                            if let weft_runtime::Exit::Trap { message, backtrace } = &exit {
                                log.write_note(&format!(
                                    "weft: the component trapped: {message}\n{backtrace}"
                                ));
                            }
                            command_exit(&exit, *why.lock())
                        }
                        Err(_) => Exit {
                            code: 137,
                            reason: "Error".into(),
                            message: Some("the node shut down".into()),
                        },
                    };
                    mailbox
                        .send(Message::Exited {
                            container: index,
                            run,
                            exit,
                        })
                        .await;
                });
                None
            }
        };
        if !probe_specs.is_empty() {
            let target = probes::Target {
                workload: address.is_some().then(|| workload.clone()),
                ip,
                port: spec.port,
                cores: self.node.cores.clone(),
                core,
            };
            let (mailbox, stop) = (self.mailbox.clone(), stop.clone());
            self.tasks.spawn(async move {
                let report = |report| {
                    let mailbox = mailbox.clone();
                    async move {
                        mailbox
                            .send(Message::Probed {
                                container: index,
                                run,
                                report,
                            })
                            .await;
                    }
                };
                probes::run(probe_specs, target, report, stop).await;
            });
        }
        self.slots[index].running = Some(Running {
            workload,
            address,
            log,
            why,
            probes: stop,
            _claim: claim,
        });
        self.node.recorder.pod(
            &self.pod,
            Some(&container.name),
            Severity::Normal,
            "Started",
            format!("Started container {}", container.name),
        );
        let container_id = format!(
            "wasmtime://{:032x}{:032x}",
            rand::random::<u128>(),
            rand::random::<u128>()
        );
        self.step(Event::Started {
            container: index,
            serving: address.is_some(),
            image_id,
            container_id,
        });
    }

    /// Reports the end of a served container that shares the fate of its process; `stop` ends with its run.
    fn watch(&self, index: usize, run: u64, guest: Guest, stop: CancellationToken) {
        if matches!(guest, Guest::Here(_)) {
            return;
        }
        let mailbox = self.mailbox.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                reason = guest.lost() => {
                    let exit = lost_exit(&reason);
                    let container = index;
                    mailbox.send(Message::Exited { container, run, exit }).await;
                }
            }
        });
    }

    fn stop(&mut self, index: usize, grace: Duration, reason: StopReason) {
        let Some((container, _)) = self.container(index) else {
            return;
        };
        let slot = &mut self.slots[index];
        if let Some(cancel) = slot.cancel.take() {
            cancel.cancel();
        }
        let Some(running) = &slot.running else { return };
        let words = match reason {
            StopReason::Liveness => format!(
                "Container {} failed liveness probe, will be restarted",
                container.name
            ),
            StopReason::Startup => format!(
                "Container {} failed startup probe, will be restarted",
                container.name
            ),
            _ => format!("Stopping container {}", container.name),
        };
        self.node.recorder.pod(
            &self.pod,
            Some(&container.name),
            Severity::Normal,
            "Killing",
            words,
        );
        *running.why.lock() = Some(reason);
        let workload = running.workload.clone();
        let Some(address) = running.address else {
            // A command: its own task reports the exit.
            self.tasks.spawn(async move { workload.stop(grace).await });
            return;
        };
        // Out of the mesh first: nothing new arrives, what is in flight has the grace to end.
        let detached = self.node.mesh.detach(address);
        self.siblings.remove(address.port);
        let (mailbox, run, probes) = (self.mailbox.clone(), slot.run, running.probes.clone());
        self.tasks.spawn(async move {
            let begun = tokio::time::Instant::now();
            // Elapsed: the rest is cut off by the stop below.
            let _ = tokio::time::timeout(grace, detached.drained()).await;
            workload.stop(grace.saturating_sub(begun.elapsed())).await;
            probes.cancel();
            let exit = served_exit(reason);
            mailbox
                .send(Message::Exited {
                    container: index,
                    run,
                    exit,
                })
                .await;
        });
    }

    fn probed(&mut self, index: usize, report: probes::Report) {
        let Some((container, _)) = self.container(index) else {
            return;
        };
        match report {
            probes::Report::Failed { kind, message } => {
                self.node.recorder.pod(
                    &self.pod,
                    Some(&container.name),
                    Severity::Warning,
                    "Unhealthy",
                    format!("{kind} probe failed: {message}"),
                );
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

    /// The event that goes with a failed start.
    fn explain(&self, index: usize, failure: StartFailure, message: &str) {
        let Some((container, _)) = self.container(index) else {
            return;
        };
        if self.state.containers[index].phase != Phase::Starting {
            return;
        }
        let (reason, words) = match failure {
            StartFailure::Image => (
                "Failed",
                format!(
                    "Failed to pull image \"{}\": {message}",
                    container.image.as_deref().unwrap_or_default()
                ),
            ),
            StartFailure::ImageName => (
                "InspectFailed",
                format!("Failed to apply default image tag: {message}"),
            ),
            StartFailure::ImageNever => ("ErrImageNeverPull", message.to_owned()),
            StartFailure::Config | StartFailure::Create => ("Failed", format!("Error: {message}")),
        };
        self.node.recorder.pod(
            &self.pod,
            Some(&container.name),
            Severity::Warning,
            reason,
            words,
        );
    }

    fn tell_of_backoff(&self, was: &PodState) {
        for (index, (before, after)) in was
            .containers
            .iter()
            .zip(&self.state.containers)
            .enumerate()
        {
            let Phase::BackingOff { pause, .. } = &after.phase else {
                continue;
            };
            if pause.is_zero() || matches!(before.phase, Phase::BackingOff { .. }) {
                continue;
            }
            if let Some((container, _)) = self.container(index) {
                let (name, namespace, uid) = (
                    translate::pod_name(&self.pod),
                    translate::namespace(&self.pod),
                    translate::uid(&self.pod),
                );
                let words = format!(
                    "Back-off restarting failed container {} in pod {name}_{namespace}({uid})",
                    container.name
                );
                self.node.recorder.pod(
                    &self.pod,
                    Some(&container.name),
                    Severity::Warning,
                    "BackOff",
                    words,
                );
            }
        }
    }

    /// Tells the API server and the node's readers how the pod is, if that is news.
    fn report(&mut self, now: Timestamp) {
        let ip = self.ip.or_else(|| {
            self.reported
                .as_ref()
                .and_then(|status| status.pod_ip.as_deref())
                .and_then(|ip| ip.parse().ok())
        });
        let reported = self.reported.as_ref();
        let before = reported.and_then(|status| status.conditions.as_deref());
        let status = status::pod_status(
            &self.pod,
            &self.wanted,
            &self.state,
            before.unwrap_or(&self.adopted),
            ip,
            self.node.facts.host_ip,
            now,
        );
        let mut containers = Vec::new();
        for (index, (container, _)) in translate::containers(&self.pod).iter().enumerate() {
            let Some(state) = self.state.containers.get(index) else {
                break;
            };
            let waiting = status
                .init_container_statuses
                .iter()
                .flatten()
                .chain(status.container_statuses.iter().flatten())
                .find(|reported| reported.name == container.name)
                .and_then(|reported| reported.state.as_ref()?.waiting.as_ref()?.reason.clone());
            containers.push(ContainerRecord {
                name: container.name.clone(),
                restart: match state.phase {
                    // What is preparing has not written yet; the log to show is that of the run before.
                    Phase::Starting | Phase::Retrying { .. } => state
                        .restarts
                        .saturating_sub(u32::from(state.last.is_some())),
                    _ => state.restarts,
                },
                waiting: waiting.filter(|_| {
                    state.last.is_none() && !matches!(state.phase, Phase::BackingOff { .. })
                }),
                workload: self.slots[index]
                    .running
                    .as_ref()
                    .map(|running| running.workload.clone()),
                spent: self.slots[index].spent.clone(),
            });
        }
        self.node.registry.set(
            &self.pod,
            PodRecord {
                uid: translate::uid(&self.pod).into(),
                containers,
            },
        );
        if self.reported.as_ref() != Some(&status) && !self.gone {
            self.adopted = Vec::new();
            self.reported = Some(status.clone());
            self.node.publisher.publish(&self.pod, status);
        }
    }

    fn release_address(&mut self) {
        if let Some(ip) = self.ip.take() {
            self.node.addresses.lock().release(ip);
        }
    }

    /// Ends what is left of the pod on this node, and waits for it.
    pub(crate) async fn finish(mut self: Box<Self>) {
        for slot in &mut self.slots {
            if let Some(cancel) = slot.cancel.take() {
                cancel.cancel();
            }
            if let Some(running) = slot.running.take() {
                if let Some(address) = running.address {
                    drop(self.node.mesh.detach(address));
                }
                running.probes.cancel();
                running.log.close();
                running.workload.stop(Duration::ZERO).await;
            }
        }
        self.release_address();
        self.node.registry.remove(&self.pod);
        if self.gone {
            let (namespace, name, uid) = (
                translate::namespace(&self.pod),
                translate::pod_name(&self.pod),
                translate::uid(&self.pod),
            );
            self.node.publisher.forget(uid);
            self.node.logs.remove_pod(namespace, name, uid);
        }
        // Children end by themselves now: each was cancelled, or waits only for a stop that has happened. The one that
        // deletes the object ends when the object is gone; a draining node does not wait for the server.
        self.tasks.close();
        let children = self.tasks.wait();
        let most = if self.draining {
            Duration::from_secs(1)
        } else {
            Duration::from_secs(60)
        };
        if tokio::time::timeout(most, children).await.is_err() {
            tracing::debug!(
                pod = translate::pod_name(&self.pod),
                "left a task of a pod behind"
            );
        }
        if self.gone {
            self.node.volumes.remove_pod(&self.pod).await;
        }
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

/// How a served container ended: it never ends by itself.
fn served_exit(reason: StopReason) -> Exit {
    let (code, word, message) = match reason {
        StopReason::PodDeleted | StopReason::NodeDrain | StopReason::MainsDone => {
            (0, "Completed", None)
        }
        StopReason::Liveness => (137, "Error", Some("failed its liveness probe")),
        StopReason::Startup => (137, "Error", Some("failed its startup probe")),
        StopReason::DeadlineExceeded => (143, "Error", None),
    };
    Exit {
        code,
        reason: word.into(),
        message: message.map(Into::into),
    }
}

/// Why, and where: the guest's stack below the reason, cut at a line where it is longer than a status may be.
fn trapped(message: &str, backtrace: &str) -> String {
    let mut text = message.to_owned();
    for frame in backtrace.lines() {
        if text.len() + 1 + frame.len() > TERMINATION_MESSAGE_BYTES_MAX {
            break;
        }
        text.push('\n');
        text.push_str(frame);
    }
    text
}

/// How a container ended whose process did.
fn lost_exit(reason: &str) -> Exit {
    Exit {
        code: 137,
        reason: "Error".into(),
        message: Some(format!("the worker process of its namespace {reason}")),
    }
}

/// How a command ended, in Kubernetes' words.
fn command_exit(exit: &weft_runtime::Exit, why: Option<StopReason>) -> Exit {
    use weft_runtime::Exit as Ran;
    if let Ran::Lost { reason } = exit {
        return lost_exit(reason);
    }
    let (reason, message) = match exit {
        Ran::Success => ("Completed", None),
        Ran::Failed(_) => ("Error", None),
        Ran::Trap { message, backtrace } => ("Trapped", Some(trapped(message, backtrace))),
        Ran::OutOfMemory { limit_bytes } => (
            "OOMKilled",
            Some(format!(
                "it needed more than its limit of {limit_bytes} bytes"
            )),
        ),
        Ran::Deadline => ("DeadlineExceeded", None),
        Ran::Stopped | Ran::Lost { .. } => ("Error", None),
        Ran::NotRunnable => (
            "Error",
            Some("the component does not export wasi:cli/run".to_owned()),
        ),
    };
    let code = match (exit, why) {
        // A sidecar that is told to go has done its work.
        (Ran::Stopped, Some(StopReason::MainsDone)) => 0,
        (Ran::Stopped, Some(StopReason::Liveness | StopReason::Startup)) => 137,
        _ => exit.code(),
    };
    Exit {
        code,
        reason: if code == 0 { "Completed" } else { reason }.into(),
        message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trap_is_told_with_as_much_of_its_stack_as_a_status_holds() {
        let frames = "    0: abort\n    1: main\n";
        assert_eq!(
            trapped("unreachable", frames),
            "unreachable\n    0: abort\n    1: main"
        );
        let deep = "    9: recurse\n".repeat(1000);
        let told = trapped("call stack exhausted", &deep);
        assert!(told.len() <= TERMINATION_MESSAGE_BYTES_MAX);
        assert!(told.ends_with("\n    9: recurse"), "whole lines only");
    }

    #[test]
    fn commands_end_in_kubernetes_words() {
        use weft_runtime::Exit as Ran;
        let trap = Ran::Trap {
            message: "unreachable".into(),
            backtrace: String::new(),
        };
        for (exit, why, expected) in [
            (Ran::Success, None, "0 Completed"),
            (Ran::Failed(3), None, "3 Error"),
            (trap, None, "134 Trapped"),
            (Ran::OutOfMemory { limit_bytes: 1 }, None, "137 OOMKilled"),
            (Ran::Stopped, Some(StopReason::PodDeleted), "143 Error"),
            (Ran::Stopped, Some(StopReason::MainsDone), "0 Completed"),
            (Ran::Stopped, Some(StopReason::Liveness), "137 Error"),
        ] {
            let ended = command_exit(&exit, why);
            assert_eq!(
                format!("{} {}", ended.code, ended.reason),
                expected,
                "{exit:?}"
            );
        }
    }
}
