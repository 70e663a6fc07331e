//! Where a pod stands on this node: the state that `plan` moves on.
//!
//! Each phase holds its own facts only. A pod that the node ran before it was itself restarted is taken up from the status
//! it last reported ([`PodState::adopt`]); what a moment of waiting ends with is [`PodState::next_wake`]'s to say.
//!
//! Left to others: every transition (`plan`), the words that others read (`status`).

use crate::host_ports;
use crate::sysctl;
use crate::wanted::{RestartPolicy, Role, Wanted};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use std::time::Duration;

/// How long a failed pull is shown as `ErrImagePull` before it becomes `ImagePullBackOff`.
pub const PULL_ERROR_SHOWN: Duration = Duration::from_secs(2);

/// Why pods fail as a whole.
const REASONS: [&str; 3] = ["DeadlineExceeded", host_ports::TAKEN, sysctl::FORBIDDEN];

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
    /// The component imports something that its ServiceAccount is not granted: `CapabilityNotGranted`.
    NotGranted,
    /// The image is no component: `CreateContainerError`.
    Create,
    /// It started, and what it wanted done then has failed: `PostStartHookError`.
    PostStart,
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
        /// When it started to run; none if it was stopped before.
        since: Option<Timestamp>,
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
    /// What it wanted done once it runs has failed.
    PostStart,
    DeadlineExceeded,
    NodeDrain,
    /// It was given other amounts, and comes to them by a restart.
    Resize,
    /// A sidecar whose main containers are done.
    MainsDone,
}

/// One container as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerState {
    /// It is an ephemeral one, which decides nothing about its pod.
    pub aside: bool,
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
    pub(crate) fn new(role: Role) -> Self {
        Self {
            aside: role == Role::Ephemeral,
            phase: Phase::Waiting,
            restarts: 0,
            crashes: 0,
            failed_starts: 0,
            last: None,
            image_id: String::new(),
            container_id: None,
        }
    }

    /// The restart whose log is the one to show: what is preparing has not written yet.
    pub(crate) fn log_to_show(&self) -> u32 {
        match self.phase {
            Phase::Starting | Phase::Retrying { .. } => {
                self.restarts.saturating_sub(u32::from(self.last.is_some()))
            }
            _ => self.restarts,
        }
    }

    /// Whether there was no run of it yet, as far as anybody knows.
    pub(crate) fn never_ran(&self) -> bool {
        self.last.is_none() && !matches!(self.phase, Phase::BackingOff { .. })
    }

    pub(crate) fn busy(&self) -> bool {
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
    /// Set once all of it is to end.
    pub leaving: Option<Leaving>,
    /// Whether [`Action::Delete`] has been given out.
    pub delete_asked: bool,
}

/// How a pod ends of which one container ends after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaving {
    /// When its grace is over.
    pub until: Timestamp,
    /// What the last ones have in any case.
    pub least: Duration,
    pub reason: StopReason,
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
                .map(|wanted| ContainerState::new(wanted.role))
                .collect(),
            leaving: None,
            delete_asked: false,
        }
    }

    /// Has a state for each container that `wanted` has, those that were added to it included.
    pub fn grow(&mut self, wanted: &Wanted) {
        let more = wanted.containers.iter().skip(self.containers.len());
        self.containers
            .extend(more.map(|wanted| ContainerState::new(wanted.role)));
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
        let known = REASONS.into_iter();
        let mut known = known.filter(|reason| status.reason.as_deref() == Some(reason));
        if status.phase.as_deref() == Some("Failed")
            && let Some(reason) = known.next()
        {
            let message = status.message.clone().unwrap_or_default();
            state.stage = Stage::Failed { reason, message };
        }
        let reported: Vec<&ContainerStatus> = status
            .init_container_statuses
            .iter()
            .flatten()
            .chain(status.container_statuses.iter().flatten())
            .chain(status.ephemeral_container_statuses.iter().flatten())
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

    /// The node does not take the pod.
    pub(crate) fn refuse(&mut self, reason: &'static str, why: String) {
        let message = format!("Pod was rejected: {why}");
        self.stage = Stage::Failed { reason, message };
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
            || self.containers.iter().filter(|c| !c.aside).all(|c| {
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

/// Whether a container that ended so is started again.
pub(crate) fn restarts(role: Role, policy: RestartPolicy, exit: &Exit) -> bool {
    match (role, policy) {
        (Role::Sidecar, _) | (Role::Main, RestartPolicy::Always) => true,
        (Role::Init, RestartPolicy::Always | RestartPolicy::OnFailure)
        | (Role::Main, RestartPolicy::OnFailure) => !exit.succeeded(),
        (Role::Init | Role::Main, RestartPolicy::Never) | (Role::Ephemeral, _) => false,
    }
}

/// `time` moved by `by`, held at the end of time.
pub(crate) fn later(time: Timestamp, by: Duration) -> Timestamp {
    jiff::SignedDuration::try_from(by)
        .ok()
        .and_then(|by| time.checked_add(by).ok())
        .unwrap_or(Timestamp::MAX)
}
