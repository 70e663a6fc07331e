//! The life of one pod on this node, as a function.
//!
//! [`step`] takes what is wanted ([`Wanted`], read from the Pod), what is ([`PodState`]), one [`Event`] and the time, changes
//! the state and answers with the [`Action`]s to carry out. No clock, no I/O, no randomness: equal input, equal plan.
//!
//! ```text
//! container   Waiting → Starting → Running → Stopping → Ended
//!                          │ ↑         └───────┬────────┘
//!                       Retrying           BackingOff → Starting          (restart policy, 10 s doubling to 300 s)
//! pod         Active → Draining → Stopping → Finished                      (deletion: serve on, then stop, then let go)
//!                └───→ Failing → Failed                                    (activeDeadlineSeconds, node drain)
//! ```
//!
//! Invariants: init containers run in order, each to success, before any main container starts; a container is never
//! started twice without having ended in between; after `Draining` begins nothing is started any more; `Delete` is asked
//! for once, when no container runs.
//!
//! Left to others: doing it (`execute`), saying it (`status`), counting probe results (`probes`).

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod};
use std::time::Duration;

/// First pause before a crashed container is started again; as the kubelet.
pub const BACKOFF_FIRST: Duration = Duration::from_secs(10);
/// Longest pause between restarts; as the kubelet.
pub const BACKOFF_MAX: Duration = Duration::from_secs(300);
/// A run at least this long forgets the crashes before it; as the kubelet (twice the longest pause).
pub const BACKOFF_RESET: Duration = Duration::from_secs(600);
/// First pause after a missing ConfigMap or Secret. Short, because the cure is usually a second `kubectl apply`.
pub const CONFIG_RETRY_FIRST: Duration = Duration::from_secs(1);
/// Longest pause after a missing ConfigMap or Secret.
pub const CONFIG_RETRY_MAX: Duration = Duration::from_secs(30);
/// How long a failed pull is shown as `ErrImagePull` before it becomes `ImagePullBackOff`.
pub const PULL_ERROR_SHOWN: Duration = Duration::from_secs(2);
/// How long a deleted pod goes on serving so that every node can learn that its endpoint is gone.
pub const DRAIN: Duration = Duration::from_millis(1500);
/// `terminationGracePeriodSeconds` when a pod says nothing.
pub const GRACE_DEFAULT: Duration = Duration::from_secs(30);

/// `spec.restartPolicy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestartPolicy {
    Always,
    OnFailure,
    Never,
}

/// What a container is to its pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Runs to success before the next one starts.
    Init,
    /// An init container with `restartPolicy: Always`: the next one starts once it is up.
    Sidecar,
    /// One of `spec.containers`.
    Main,
}

/// One container as the Pod asks for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedContainer {
    pub name: String,
    pub role: Role,
    pub has_startup_probe: bool,
    pub has_readiness_probe: bool,
}

/// A pod as its object asks for it, reduced to what decides its life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub restart: RestartPolicy,
    /// Init containers first, in order; then the main ones.
    pub containers: Vec<WantedContainer>,
    /// When the last of the grace ends; set once the pod is deleted.
    pub kill_at: Option<Timestamp>,
    pub grace: Duration,
    pub active_deadline: Option<Duration>,
}

impl Wanted {
    /// Reads the deciding facts from a Pod.
    pub fn from_pod(pod: &Pod) -> Self {
        let spec = pod.spec.clone().unwrap_or_default();
        let wanted = |container: &Container, role| WantedContainer {
            name: container.name.clone(),
            role,
            has_startup_probe: container.startup_probe.is_some(),
            has_readiness_probe: container.readiness_probe.is_some(),
        };
        let init = spec.init_containers.iter().flatten().map(|container| {
            let sidecar = container.restart_policy.as_deref() == Some("Always");
            wanted(container, if sidecar { Role::Sidecar } else { Role::Init })
        });
        let main = spec
            .containers
            .iter()
            .map(|container| wanted(container, Role::Main));
        Self {
            restart: match spec.restart_policy.as_deref() {
                Some("Never") => RestartPolicy::Never,
                Some("OnFailure") => RestartPolicy::OnFailure,
                _ => RestartPolicy::Always,
            },
            containers: init.chain(main).collect(),
            kill_at: pod.metadata.deletion_timestamp.as_ref().map(|time| time.0),
            grace: spec
                .termination_grace_period_seconds
                .map_or(GRACE_DEFAULT, |s| {
                    Duration::from_secs(s.max(0).unsigned_abs())
                }),
            active_deadline: spec
                .active_deadline_seconds
                .map(|s| Duration::from_secs(s.max(0).unsigned_abs())),
        }
    }
}

/// How a container ended, in Kubernetes' words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    pub code: i32,
    /// `Completed`, `Error`, `OOMKilled`, `DeadlineExceeded`, …
    pub reason: String,
    pub message: Option<String>,
}

impl Exit {
    /// Whether restart policies count it as success.
    pub fn succeeded(&self) -> bool {
        self.code == 0
    }
}

/// One finished run of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    pub exit: Exit,
    pub started_at: Option<Timestamp>,
    pub finished_at: Timestamp,
    pub container_id: Option<String>,
}

/// Why a container could not be started; decides the words and the pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartFailure {
    /// The image could not be fetched: `ErrImagePull`, later `ImagePullBackOff`.
    Image,
    /// The image reference is malformed: `InvalidImageName`.
    ImageName,
    /// `imagePullPolicy: Never` and not here: `ErrImageNeverPull`.
    ImageNever,
    /// A ConfigMap, Secret or field it needs is missing: `CreateContainerConfigError`.
    Config,
    /// The image is no component, or imports something not granted: `CreateContainerError`.
    Create,
}

/// Where one container stands; each phase holds its own facts only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Its turn has not come.
    Waiting,
    /// `execute` works on it.
    Starting,
    /// The last attempt to start failed.
    Retrying {
        failure: StartFailure,
        message: String,
        attempt: u32,
        failed_at: Timestamp,
        until: Timestamp,
    },
    Running {
        since: Timestamp,
        serving: bool,
        started: bool,
        ready: bool,
    },
    /// Told to stop; `reason` says why.
    Stopping {
        since: Timestamp,
        reason: StopReason,
    },
    /// Ended and will be started again.
    BackingOff {
        until: Timestamp,
        pause: Duration,
        ended: Ended,
    },
    /// Ended for good.
    Ended(Ended),
}

/// Why a running container is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopReason {
    PodDeleted,
    Liveness,
    Startup,
    DeadlineExceeded,
    NodeDrain,
    /// A sidecar whose main containers are done.
    MainsDone,
}

/// One container as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerState {
    pub phase: Phase,
    pub restarts: u32,
    /// Crashes in a row that the pause grows with.
    pub crashes: u32,
    /// Starts that failed in a row, likewise.
    pub failed_starts: u32,
    /// The run before the current one.
    pub last: Option<Ended>,
    pub image_id: String,
    pub container_id: Option<String>,
}

impl ContainerState {
    fn new() -> Self {
        Self {
            phase: Phase::Waiting,
            restarts: 0,
            crashes: 0,
            failed_starts: 0,
            last: None,
            image_id: String::new(),
            container_id: None,
        }
    }

    fn busy(&self) -> bool {
        matches!(
            self.phase,
            Phase::Starting | Phase::Running { .. } | Phase::Stopping { .. }
        )
    }
}

/// Where the pod as a whole stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stage {
    Active,
    /// Deleted, still serving what arrives until the mesh has forgotten it.
    Draining {
        until: Timestamp,
    },
    /// Containers are told to stop.
    Stopping,
    /// Stopping because the pod itself failed.
    Failing {
        reason: &'static str,
        message: String,
    },
    /// Failed as a whole; nothing runs.
    Failed {
        reason: &'static str,
        message: String,
    },
    /// Nothing runs and the API server has been asked to let go.
    Finished,
}

/// One pod as it is on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodState {
    pub stage: Stage,
    pub started_at: Timestamp,
    /// One for each of [`Wanted::containers`], in that order.
    pub containers: Vec<ContainerState>,
    /// Whether [`Action::Delete`] has been given out.
    pub delete_asked: bool,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The wish changed, or time passed.
    Tick,
    Started {
        container: usize,
        serving: bool,
        image_id: String,
        container_id: String,
    },
    StartFailed {
        container: usize,
        failure: StartFailure,
        message: String,
    },
    Ended {
        container: usize,
        exit: Exit,
    },
    /// A probe crossed its threshold.
    Probed {
        container: usize,
        probe: ProbeKind,
        healthy: bool,
    },
    /// This node shuts down.
    NodeDrain,
}

/// Which of the three probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProbeKind {
    Startup,
    Liveness,
    Readiness,
}

impl std::fmt::Display for ProbeKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Startup => "Startup",
            Self::Liveness => "Liveness",
            Self::Readiness => "Readiness",
        })
    }
}

/// What to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    Start {
        container: usize,
        restart: u32,
    },
    Stop {
        container: usize,
        grace: Duration,
        reason: StopReason,
    },
    /// Every container is gone: remove the Pod object, grace 0.
    Delete,
}

impl PodState {
    /// A pod this node sees for the first time.
    pub fn new(wanted: &Wanted, now: Timestamp) -> Self {
        Self {
            stage: Stage::Active,
            started_at: now,
            containers: wanted
                .containers
                .iter()
                .map(|_| ContainerState::new())
                .collect(),
            delete_asked: false,
        }
    }

    /// A pod that this node ran before it was itself restarted, taken up from what it last reported.
    ///
    /// Ended containers stay ended; the ones that ran are started again at once and count as restarted.
    pub fn adopt(wanted: &Wanted, pod: &Pod, now: Timestamp) -> Self {
        let mut state = Self::new(wanted, now);
        let Some(status) = &pod.status else {
            return state;
        };
        if let Some(start) = &status.start_time {
            state.started_at = start.0;
        }
        if status.phase.as_deref() == Some("Failed")
            && status.reason.as_deref() == Some("DeadlineExceeded")
        {
            let message = status.message.clone().unwrap_or_default();
            state.stage = Stage::Failed {
                reason: "DeadlineExceeded",
                message,
            };
        }
        let reported: Vec<&ContainerStatus> = status
            .init_container_statuses
            .iter()
            .flatten()
            .chain(status.container_statuses.iter().flatten())
            .collect();
        for (container, wanted_container) in state.containers.iter_mut().zip(&wanted.containers) {
            if let Some(reported) = reported
                .iter()
                .find(|status| status.name == wanted_container.name)
            {
                adopt_container(
                    container,
                    wanted_container.role,
                    wanted.restart,
                    reported,
                    now,
                );
            }
        }
        state
    }

    /// When, after `now`, [`step`] must next be called with [`Event::Tick`] though nothing happens.
    pub fn next_wake(&self, wanted: &Wanted, now: Timestamp) -> Option<Timestamp> {
        let containers = self
            .containers
            .iter()
            .filter_map(|container| match &container.phase {
                Phase::Retrying {
                    failure: StartFailure::Image,
                    attempt: 1,
                    failed_at,
                    until,
                    ..
                } => {
                    // The word changes once; then only the next attempt is waited for.
                    let shown = later(*failed_at, PULL_ERROR_SHOWN);
                    Some(if now < shown && shown < *until {
                        shown
                    } else {
                        *until
                    })
                }
                Phase::Retrying { until, .. } | Phase::BackingOff { until, .. } => Some(*until),
                _ => None,
            });
        let stage = match &self.stage {
            Stage::Draining { until } => Some(*until),
            Stage::Active => wanted
                .active_deadline
                .filter(|_| !self.is_over())
                .map(|deadline| later(self.started_at, deadline)),
            _ => None,
        };
        match self.stage {
            Stage::Active => containers.chain(stage).min(),
            _ => stage,
        }
    }

    /// Whether every main container ended for good, or the pod failed.
    pub fn is_over(&self) -> bool {
        matches!(self.stage, Stage::Failed { .. } | Stage::Finished)
            || self.containers.iter().all(|c| {
                !c.busy()
                    && !matches!(
                        c.phase,
                        Phase::Waiting | Phase::Retrying { .. } | Phase::BackingOff { .. }
                    )
            })
    }

    /// Whether nothing of this pod runs.
    pub fn is_idle(&self) -> bool {
        self.containers.iter().all(|container| !container.busy())
    }
}

fn adopt_container(
    container: &mut ContainerState,
    role: Role,
    policy: RestartPolicy,
    reported: &ContainerStatus,
    now: Timestamp,
) {
    container.restarts = u32::try_from(reported.restart_count).unwrap_or(0);
    container.image_id = reported.image_id.clone();
    container.container_id = reported.container_id.clone();
    let terminated = |state: &k8s_openapi::api::core::v1::ContainerState| {
        state.terminated.as_ref().map(|terminated| Ended {
            exit: Exit {
                code: terminated.exit_code,
                reason: terminated.reason.clone().unwrap_or_default(),
                message: terminated.message.clone(),
            },
            started_at: terminated.started_at.as_ref().map(|time| time.0),
            finished_at: terminated.finished_at.as_ref().map_or(now, |time| time.0),
            container_id: terminated.container_id.clone(),
        })
    };
    container.last = reported.last_state.as_ref().and_then(terminated);
    let Some(state) = &reported.state else { return };
    if let Some(ended) = terminated(state) {
        container.phase = if restarts(role, policy, &ended.exit) {
            Phase::BackingOff {
                until: now,
                pause: Duration::ZERO,
                ended,
            }
        } else {
            Phase::Ended(ended)
        };
    } else if let Some(running) = &state.running {
        let exit = Exit {
            code: 137,
            reason: "ContainerStatusUnknown".into(),
            message: Some("the node was restarted while the container ran".into()),
        };
        let ended = Ended {
            exit,
            started_at: running.started_at.as_ref().map(|time| time.0),
            finished_at: now,
            container_id: reported.container_id.clone(),
        };
        container.phase = if restarts(role, policy, &ended.exit) {
            Phase::BackingOff {
                until: now,
                pause: Duration::ZERO,
                ended,
            }
        } else {
            Phase::Ended(ended)
        };
    }
}

/// Takes one event, then advances everything that is due at `now`.
pub fn step(state: &mut PodState, wanted: &Wanted, event: Event, now: Timestamp) -> Vec<Action> {
    let mut actions = Vec::new();
    apply(state, wanted, event, now, &mut actions);
    advance(state, wanted, now, &mut actions);
    actions
}

fn apply(
    state: &mut PodState,
    wanted: &Wanted,
    event: Event,
    now: Timestamp,
    actions: &mut Vec<Action>,
) {
    match event {
        Event::Tick => {}
        Event::NodeDrain => {
            if state.stage == Stage::Active {
                state.stage = Stage::Draining {
                    until: later(now, drain_time(state, wanted, now)),
                };
            }
        }
        Event::Started {
            container,
            serving,
            image_id,
            container_id,
        } => {
            let (Some(current), Some(wish)) = (
                state.containers.get_mut(container),
                wanted.containers.get(container),
            ) else {
                return;
            };
            // A container told to stop while it was starting reports `Ended` later; the start is old news.
            if current.phase == Phase::Starting {
                let started = !wish.has_startup_probe;
                current.phase = Phase::Running {
                    since: now,
                    serving,
                    started,
                    ready: started && !wish.has_readiness_probe,
                };
                current.failed_starts = 0;
                current.image_id = image_id;
                current.container_id = Some(container_id);
            }
        }
        Event::StartFailed {
            container,
            failure,
            message,
        } => {
            let Some(current) = state.containers.get_mut(container) else {
                return;
            };
            if matches!(current.phase, Phase::Stopping { .. }) {
                current.phase = Phase::Waiting;
            } else if current.phase == Phase::Starting {
                let attempt = current.failed_starts.saturating_add(1);
                current.failed_starts = attempt;
                let pause = match failure {
                    StartFailure::Config => backoff(CONFIG_RETRY_FIRST, CONFIG_RETRY_MAX, attempt),
                    _ => backoff(BACKOFF_FIRST, BACKOFF_MAX, attempt),
                };
                current.phase = Phase::Retrying {
                    failure,
                    message,
                    attempt,
                    failed_at: now,
                    until: later(now, pause),
                };
            }
        }
        Event::Ended { container, exit } => ended(state, wanted, container, exit, now),
        Event::Probed {
            container,
            probe,
            healthy,
        } => probed(state, wanted, container, probe, healthy, actions),
    }
}

fn ended(state: &mut PodState, wanted: &Wanted, container: usize, exit: Exit, now: Timestamp) {
    // A pod that a shutting-down node stops is not over: the node takes it up again, or another replaces it.
    let node_drains =
        matches!(state.stage, Stage::Draining { .. } | Stage::Stopping) && wanted.kill_at.is_none();
    let lives_on = state.stage == Stage::Active || node_drains;
    let (Some(current), Some(wish)) = (
        state.containers.get_mut(container),
        wanted.containers.get(container),
    ) else {
        return;
    };
    let (since, for_good) = match &current.phase {
        Phase::Running { since, .. } => (Some(*since), false),
        Phase::Stopping { since, reason } => (Some(*since), *reason == StopReason::MainsDone),
        Phase::Starting => (None, false),
        Phase::Waiting | Phase::Retrying { .. } | Phase::BackingOff { .. } | Phase::Ended(_) => {
            return;
        }
    };
    let ended = Ended {
        exit,
        started_at: since,
        finished_at: now,
        container_id: current.container_id.clone(),
    };
    if !lives_on || for_good || !restarts(wish.role, wanted.restart, &ended.exit) {
        current.phase = Phase::Ended(ended);
        return;
    }
    if node_drains {
        current.phase = Phase::BackingOff {
            until: now,
            pause: Duration::ZERO,
            ended,
        };
        return;
    }
    if since.is_some_and(|since| later(since, BACKOFF_RESET) <= now) {
        current.crashes = 0;
    }
    let pause = backoff(BACKOFF_FIRST, BACKOFF_MAX, current.crashes);
    current.crashes = current.crashes.saturating_add(1);
    current.phase = Phase::BackingOff {
        until: later(now, pause),
        pause,
        ended,
    };
}

fn probed(
    state: &mut PodState,
    wanted: &Wanted,
    container: usize,
    probe: ProbeKind,
    healthy: bool,
    actions: &mut Vec<Action>,
) {
    let (Some(current), Some(wish)) = (
        state.containers.get_mut(container),
        wanted.containers.get(container),
    ) else {
        return;
    };
    let Phase::Running {
        since,
        started,
        ready,
        ..
    } = &mut current.phase
    else {
        return;
    };
    let since = *since;
    match (probe, healthy) {
        (ProbeKind::Startup, true) => {
            *started = true;
            *ready = !wish.has_readiness_probe;
        }
        (ProbeKind::Readiness, healthy) => *ready = *started && healthy,
        (ProbeKind::Liveness, true) => {}
        (ProbeKind::Startup | ProbeKind::Liveness, false) => {
            let reason = if probe == ProbeKind::Startup {
                StopReason::Startup
            } else {
                StopReason::Liveness
            };
            current.phase = Phase::Stopping { since, reason };
            actions.push(Action::Stop {
                container,
                grace: wanted.grace,
                reason,
            });
        }
    }
}

fn advance(state: &mut PodState, wanted: &Wanted, now: Timestamp, actions: &mut Vec<Action>) {
    settle(state);
    if let (Stage::Active | Stage::Failed { .. }, Some(_)) = (&state.stage, wanted.kill_at) {
        state.stage = Stage::Draining {
            until: later(now, drain_time(state, wanted, now)),
        };
    }
    if state.stage == Stage::Active
        && let Some(deadline) = wanted.active_deadline
        && later(state.started_at, deadline) <= now
        && !state.is_over()
    {
        let message = "Pod was active on the node longer than the specified deadline".to_owned();
        state.stage = Stage::Failing {
            reason: "DeadlineExceeded",
            message,
        };
        stop_all(
            state,
            wanted.grace,
            StopReason::DeadlineExceeded,
            now,
            actions,
        );
    }
    match &state.stage {
        Stage::Active => advance_containers(state, wanted, now, actions),
        Stage::Draining { until } if *until <= now => {
            let reason = if wanted.kill_at.is_some() {
                StopReason::PodDeleted
            } else {
                StopReason::NodeDrain
            };
            state.stage = Stage::Stopping;
            stop_all(state, remaining_grace(wanted, now), reason, now, actions);
        }
        Stage::Draining { .. }
        | Stage::Stopping
        | Stage::Failing { .. }
        | Stage::Failed { .. }
        | Stage::Finished => {}
    }
    settle(state);
    // A pod stopped by a node drain stays in the API until its owner or the node lifecycle deletes it.
    if state.stage == Stage::Finished && wanted.kill_at.is_some() && !state.delete_asked {
        state.delete_asked = true;
        actions.push(Action::Delete);
    }
}

/// A pod that was being stopped and of which nothing runs any more has come to its end.
fn settle(state: &mut PodState) {
    if !state.is_idle() {
        return;
    }
    match &state.stage {
        Stage::Stopping => state.stage = Stage::Finished,
        Stage::Failing { reason, message } => {
            state.stage = Stage::Failed {
                reason,
                message: message.clone(),
            };
        }
        Stage::Active | Stage::Draining { .. } | Stage::Failed { .. } | Stage::Finished => {}
    }
}

fn advance_containers(
    state: &mut PodState,
    wanted: &Wanted,
    now: Timestamp,
    actions: &mut Vec<Action>,
) {
    let mut may_start = true;
    for index in 0..state.containers.len() {
        let Some(wish) = wanted.containers.get(index) else {
            break;
        };
        if may_start || wish.role == Role::Main && started_before(&state.containers[index]) {
            start_if_due(&mut state.containers[index], index, now, actions);
        }
        let container = &state.containers[index];
        may_start &= match wish.role {
            Role::Init => matches!(&container.phase, Phase::Ended(ended) if ended.exit.succeeded()),
            Role::Sidecar => {
                matches!(container.phase, Phase::Running { started: true, .. })
                    || started_before(container)
            }
            Role::Main => true,
        };
    }
    let is = |role: Role| {
        move |(container, wish): (usize, &WantedContainer)| (wish.role == role).then_some(container)
    };
    let mut mains = wanted
        .containers
        .iter()
        .enumerate()
        .filter_map(is(Role::Main))
        .peekable();
    let mains_done = mains.peek().is_some()
        && mains.all(|main| matches!(state.containers[main].phase, Phase::Ended(_)));
    if mains_done {
        // Sidecars leave last and in reverse order; they share one grace.
        for sidecar in wanted
            .containers
            .iter()
            .enumerate()
            .rev()
            .filter_map(is(Role::Sidecar))
        {
            stop(
                &mut state.containers[sidecar],
                sidecar,
                wanted.grace,
                StopReason::MainsDone,
                now,
                actions,
            );
        }
    }
}

fn started_before(container: &ContainerState) -> bool {
    container.last.is_some() || matches!(container.phase, Phase::BackingOff { .. })
}

fn start_if_due(
    container: &mut ContainerState,
    index: usize,
    now: Timestamp,
    actions: &mut Vec<Action>,
) {
    match &container.phase {
        Phase::Waiting => {}
        Phase::Retrying { until, .. } if *until <= now => {}
        Phase::BackingOff { until, ended, .. } if *until <= now => {
            container.last = Some(ended.clone());
            container.restarts = container.restarts.saturating_add(1);
        }
        Phase::Starting
        | Phase::Retrying { .. }
        | Phase::Running { .. }
        | Phase::Stopping { .. }
        | Phase::BackingOff { .. }
        | Phase::Ended(_) => return,
    }
    container.phase = Phase::Starting;
    actions.push(Action::Start {
        container: index,
        restart: container.restarts,
    });
}

fn stop_all(
    state: &mut PodState,
    grace: Duration,
    reason: StopReason,
    now: Timestamp,
    actions: &mut Vec<Action>,
) {
    for (index, container) in state.containers.iter_mut().enumerate().rev() {
        stop(container, index, grace, reason, now, actions);
    }
}

fn stop(
    container: &mut ContainerState,
    index: usize,
    grace: Duration,
    reason: StopReason,
    now: Timestamp,
    actions: &mut Vec<Action>,
) {
    match &container.phase {
        Phase::Running { since, .. } => {
            container.phase = Phase::Stopping {
                since: *since,
                reason,
            }
        }
        Phase::Starting => container.phase = Phase::Stopping { since: now, reason },
        // Told to stop for a reason that would start it again: now it is for good.
        Phase::Stopping { since, .. } => {
            container.phase = Phase::Stopping {
                since: *since,
                reason,
            };
            return;
        }
        Phase::BackingOff { .. } if reason == StopReason::NodeDrain => return,
        Phase::BackingOff { ended, .. } => {
            container.phase = Phase::Ended(ended.clone());
            return;
        }
        Phase::Waiting | Phase::Retrying { .. } | Phase::Ended(_) => return,
    }
    actions.push(Action::Stop {
        container: index,
        grace,
        reason,
    });
}

/// Whether a container that ended so is started again.
fn restarts(role: Role, policy: RestartPolicy, exit: &Exit) -> bool {
    match (role, policy) {
        (Role::Sidecar, _) | (Role::Main, RestartPolicy::Always) => true,
        (Role::Init, RestartPolicy::Always | RestartPolicy::OnFailure)
        | (Role::Main, RestartPolicy::OnFailure) => !exit.succeeded(),
        (Role::Init | Role::Main, RestartPolicy::Never) => false,
    }
}

/// The pause before attempt number `failures + 1`: none at first, then `first` doubling up to `max`.
fn backoff(first: Duration, max: Duration, failures: u32) -> Duration {
    match failures {
        0 => Duration::ZERO,
        n => first
            .saturating_mul(1u32.checked_shl(n - 1).unwrap_or(u32::MAX))
            .min(max),
    }
}

/// How long a leaving pod goes on serving: none if nothing of it serves.
fn drain_time(state: &PodState, wanted: &Wanted, now: Timestamp) -> Duration {
    let serves = state.containers.iter().any(|container| {
        matches!(
            container.phase,
            Phase::Running {
                serving: true,
                ready: true,
                ..
            }
        )
    });
    if serves {
        DRAIN.min(remaining_grace(wanted, now))
    } else {
        Duration::ZERO
    }
}

fn remaining_grace(wanted: &Wanted, now: Timestamp) -> Duration {
    match wanted.kill_at {
        Some(kill_at) => Duration::try_from(kill_at.duration_since(now)).unwrap_or(Duration::ZERO),
        None => wanted.grace,
    }
}

/// `time` moved by `by`, held at the end of time.
pub(crate) fn later(time: Timestamp, by: Duration) -> Timestamp {
    jiff::SignedDuration::try_from(by)
        .ok()
        .and_then(|by| time.checked_add(by).ok())
        .unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + seconds).expect("in range")
    }

    fn main(name: &str) -> WantedContainer {
        WantedContainer {
            name: name.into(),
            role: Role::Main,
            has_startup_probe: false,
            has_readiness_probe: false,
        }
    }

    fn wanted(restart: RestartPolicy, containers: Vec<WantedContainer>) -> Wanted {
        Wanted {
            restart,
            containers,
            kill_at: None,
            grace: GRACE_DEFAULT,
            active_deadline: None,
        }
    }

    fn started(container: usize, serving: bool) -> Event {
        Event::Started {
            container,
            serving,
            image_id: "i".into(),
            container_id: "c".into(),
        }
    }

    fn crashed(container: usize) -> Event {
        Event::Ended {
            container,
            exit: Exit {
                code: 134,
                reason: "Error".into(),
                message: None,
            },
        }
    }

    fn completed(container: usize) -> Event {
        Event::Ended {
            container,
            exit: Exit {
                code: 0,
                reason: "Completed".into(),
                message: None,
            },
        }
    }

    /// Plays events through `step` and writes one line for each that led to an action or asks to be woken.
    fn play(wanted: &mut Wanted, script: Vec<(i64, Event)>) -> String {
        let mut state = PodState::new(wanted, at(0));
        let mut transcript = String::new();
        for (second, event) in script {
            let name = format!("{event:?}")
                .split([' ', '{'])
                .next()
                .unwrap_or_default()
                .to_owned();
            let actions = step(&mut state, wanted, event, at(second));
            let wake = state
                .next_wake(wanted, at(second))
                .map(|wake| wake.duration_since(at(0)).as_millis());
            let actions: Vec<String> = actions
                .iter()
                .map(|action| match action {
                    Action::Start { container, restart } => {
                        format!("start {} #{restart}", wanted.containers[*container].name)
                    }
                    Action::Stop {
                        container,
                        grace,
                        reason,
                    } => {
                        format!(
                            "stop {} {}s {reason:?}",
                            wanted.containers[*container].name,
                            grace.as_secs()
                        )
                    }
                    Action::Delete => "delete".to_owned(),
                })
                .collect();
            let wake = wake.map_or_else(String::new, |ms| format!(" (wake {ms}ms)"));
            writeln!(
                transcript,
                "{second:>4} {name}: {}{wake}",
                actions.join(", ")
            )
            .expect("a string");
        }
        transcript
    }

    #[test]
    fn backoff_doubles_then_caps() {
        for (failures, seconds) in [
            (0, 0),
            (1, 10),
            (2, 20),
            (5, 160),
            (6, 300),
            (40, 300),
            (u32::MAX, 300),
        ] {
            assert_eq!(
                backoff(BACKOFF_FIRST, BACKOFF_MAX, failures).as_secs(),
                seconds,
                "after {failures}"
            );
        }
    }

    #[test]
    fn a_crashing_container_backs_off_and_a_long_run_forgives() {
        let mut wanted = wanted(RestartPolicy::Always, vec![main("web")]);
        let transcript = play(
            &mut wanted,
            vec![
                (0, Event::Tick),
                (1, started(0, false)),
                (2, crashed(0)),
                (3, started(0, false)),
                (4, crashed(0)),
                (13, Event::Tick),
                (14, Event::Tick),
                (15, started(0, false)),
                (16, crashed(0)),
                (36, Event::Tick),
                (37, started(0, false)),
                (700, crashed(0)),
            ],
        );
        insta::assert_snapshot!(transcript, @r"
           0 Tick: start web #0
           1 Started: 
           2 Ended: start web #1
           3 Started: 
           4 Ended:  (wake 14000ms)
          13 Tick:  (wake 14000ms)
          14 Tick: start web #2
          15 Started: 
          16 Ended:  (wake 36000ms)
          36 Tick: start web #3
          37 Started: 
         700 Ended: start web #4
        ");
    }

    #[test]
    fn init_containers_run_in_order_then_the_mains_together() {
        let init = |name: &str| WantedContainer {
            role: Role::Init,
            ..main(name)
        };
        let mut wanted = wanted(
            RestartPolicy::OnFailure,
            vec![init("migrate"), init("warm"), main("a"), main("b")],
        );
        let transcript = play(
            &mut wanted,
            vec![
                (0, Event::Tick),
                (1, started(0, false)),
                (2, crashed(0)),
                (3, started(0, false)),
                (4, completed(0)),
                (5, started(1, false)),
                (6, completed(1)),
                (7, started(2, true)),
                (8, started(3, false)),
                (9, completed(3)),
            ],
        );
        insta::assert_snapshot!(transcript, @r"
           0 Tick: start migrate #0
           1 Started: 
           2 Ended: start migrate #1
           3 Started: 
           4 Ended: start warm #0
           5 Started: 
           6 Ended: start a #0, start b #0
           7 Started: 
           8 Started: 
           9 Ended: 
        ");
    }

    #[test]
    fn a_deleted_pod_serves_on_then_stops_then_goes() {
        let mut wanted = wanted(RestartPolicy::Always, vec![main("web")]);
        let mut state = PodState::new(&wanted, at(0));
        step(&mut state, &wanted, Event::Tick, at(0));
        step(&mut state, &wanted, started(0, true), at(1));
        wanted.kill_at = Some(at(40));
        assert_eq!(step(&mut state, &wanted, Event::Tick, at(10)), []);
        assert_eq!(state.next_wake(&wanted, at(10)), Some(later(at(10), DRAIN)));
        assert_eq!(
            step(&mut state, &wanted, Event::Tick, at(12)),
            [Action::Stop {
                container: 0,
                grace: Duration::from_secs(28),
                reason: StopReason::PodDeleted
            }]
        );
        assert_eq!(
            step(&mut state, &wanted, completed(0), at(13)),
            [Action::Delete]
        );
    }

    #[test]
    fn a_deleted_pod_that_serves_nothing_goes_at_once() {
        let mut wanted = wanted(RestartPolicy::Always, vec![main("web")]);
        wanted.kill_at = Some(at(30));
        let mut state = PodState::new(&wanted, at(0));
        assert_eq!(
            step(&mut state, &wanted, Event::Tick, at(0)),
            [Action::Delete]
        );
    }

    #[test]
    fn a_pod_deleted_while_starting_waits_for_the_start_to_be_cancelled() {
        let mut wanted = wanted(RestartPolicy::Always, vec![main("web")]);
        let mut state = PodState::new(&wanted, at(0));
        step(&mut state, &wanted, Event::Tick, at(0));
        wanted.kill_at = Some(at(30));
        assert!(matches!(
            step(&mut state, &wanted, Event::Tick, at(1))[..],
            [Action::Stop { .. }]
        ));
        let cancelled = Event::StartFailed {
            container: 0,
            failure: StartFailure::Create,
            message: "cancelled".into(),
        };
        assert_eq!(
            step(&mut state, &wanted, cancelled, at(2)),
            [Action::Delete]
        );
    }

    #[test]
    fn failed_liveness_stops_and_restarts_and_failed_readiness_does_not() {
        let mut web = main("web");
        web.has_readiness_probe = true;
        let wanted = wanted(RestartPolicy::Always, vec![web]);
        let mut state = PodState::new(&wanted, at(0));
        step(&mut state, &wanted, Event::Tick, at(0));
        step(&mut state, &wanted, started(0, true), at(1));
        assert!(matches!(
            state.containers[0].phase,
            Phase::Running { ready: false, .. }
        ));
        step(
            &mut state,
            &wanted,
            Event::Probed {
                container: 0,
                probe: ProbeKind::Readiness,
                healthy: true,
            },
            at(2),
        );
        assert!(matches!(
            state.containers[0].phase,
            Phase::Running { ready: true, .. }
        ));
        assert_eq!(
            step(
                &mut state,
                &wanted,
                Event::Probed {
                    container: 0,
                    probe: ProbeKind::Readiness,
                    healthy: false
                },
                at(3)
            ),
            []
        );
        let stop = step(
            &mut state,
            &wanted,
            Event::Probed {
                container: 0,
                probe: ProbeKind::Liveness,
                healthy: false,
            },
            at(4),
        );
        assert!(matches!(
            stop[..],
            [Action::Stop {
                reason: StopReason::Liveness,
                ..
            }]
        ));
        assert_eq!(
            step(&mut state, &wanted, completed(0), at(5)),
            [Action::Start {
                container: 0,
                restart: 1
            }]
        );
    }

    #[test]
    fn a_pod_past_its_deadline_fails_and_stays_failed() {
        let mut wanted = wanted(RestartPolicy::Always, vec![main("job")]);
        wanted.active_deadline = Some(Duration::from_secs(60));
        let transcript = play(
            &mut wanted,
            vec![
                (0, Event::Tick),
                (1, started(0, false)),
                (60, Event::Tick),
                (61, crashed(0)),
                (99, Event::Tick),
            ],
        );
        insta::assert_snapshot!(transcript, @r"
           0 Tick: start job #0 (wake 60000ms)
           1 Started:  (wake 60000ms)
          60 Tick: stop job 30s DeadlineExceeded
          61 Ended: 
          99 Tick: 
        ");
    }

    #[test]
    fn a_node_that_drains_leaves_its_pods_to_live_on() {
        let mut wanted = wanted(RestartPolicy::Always, vec![main("web")]);
        let mut state = PodState::new(&wanted, at(0));
        step(&mut state, &wanted, Event::Tick, at(0));
        step(&mut state, &wanted, started(0, true), at(1));
        assert_eq!(step(&mut state, &wanted, Event::NodeDrain, at(5)), []);
        let stop = step(&mut state, &wanted, Event::Tick, at(7));
        assert!(matches!(
            stop[..],
            [Action::Stop {
                reason: StopReason::NodeDrain,
                ..
            }]
        ));
        assert_eq!(step(&mut state, &wanted, completed(0), at(8)), []);
        assert_eq!(state.stage, Stage::Finished);
        assert!(matches!(
            state.containers[0].phase,
            Phase::BackingOff { .. }
        ));
        // Deleted in the meantime all the same.
        wanted.kill_at = Some(at(30));
        assert_eq!(
            step(&mut state, &wanted, Event::Tick, at(9)),
            [Action::Delete]
        );
        assert_eq!(step(&mut state, &wanted, Event::Tick, at(10)), []);
    }

    #[test]
    fn a_pod_deleted_while_it_fails_goes_as_well() {
        let mut wanted = wanted(RestartPolicy::Always, vec![main("job")]);
        wanted.active_deadline = Some(Duration::from_secs(5));
        let mut state = PodState::new(&wanted, at(0));
        step(&mut state, &wanted, Event::Tick, at(0));
        step(&mut state, &wanted, started(0, false), at(1));
        step(&mut state, &wanted, Event::Tick, at(6));
        wanted.kill_at = Some(at(40));
        assert_eq!(step(&mut state, &wanted, Event::Tick, at(7)), []);
        assert_eq!(
            step(&mut state, &wanted, crashed(0), at(8)),
            [Action::Delete]
        );
    }

    #[test]
    fn restart_policies() {
        for (policy, code, again) in [
            (RestartPolicy::Always, 0, true),
            (RestartPolicy::Always, 1, true),
            (RestartPolicy::OnFailure, 0, false),
            (RestartPolicy::OnFailure, 1, true),
            (RestartPolicy::Never, 0, false),
            (RestartPolicy::Never, 1, false),
        ] {
            let exit = Exit {
                code,
                reason: String::new(),
                message: None,
            };
            assert_eq!(
                restarts(Role::Main, policy, &exit),
                again,
                "{policy:?} after {code}"
            );
        }
    }

    #[test]
    fn a_failed_pull_wakes_its_pod_once_to_change_the_word_and_then_to_try_again() {
        let mut wanted = wanted(RestartPolicy::Always, vec![main("web")]);
        let failed = || Event::StartFailed {
            container: 0,
            failure: StartFailure::Image,
            message: "not found".into(),
        };
        let transcript = play(
            &mut wanted,
            vec![
                (0, Event::Tick),
                (1, failed()),
                (3, Event::Tick),
                (11, Event::Tick),
                (12, failed()),
            ],
        );
        insta::assert_snapshot!(transcript, @r"
           0 Tick: start web #0
           1 StartFailed:  (wake 3000ms)
           3 Tick:  (wake 11000ms)
          11 Tick: start web #0
          12 StartFailed:  (wake 32000ms)
        ");
    }

    #[test]
    fn missing_configuration_is_tried_again_sooner_than_an_image() {
        let wanted = wanted(RestartPolicy::Always, vec![main("web")]);
        for (failure, second) in [(StartFailure::Config, 1), (StartFailure::Image, 10)] {
            let mut state = PodState::new(&wanted, at(0));
            step(&mut state, &wanted, Event::Tick, at(0));
            step(
                &mut state,
                &wanted,
                Event::StartFailed {
                    container: 0,
                    failure,
                    message: String::new(),
                },
                at(0),
            );
            let Phase::Retrying { until, .. } = state.containers[0].phase else {
                panic!("{:?}", state.containers[0])
            };
            assert_eq!(until, at(second), "{failure:?}");
        }
    }
}
