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
//! for once, when no container runs; a sidecar is stopped when the main containers have ended, and the sidecars after it.
//!
//! Left to others: doing it (`execute`), saying it (`status`), counting probe results (`probes`).

use crate::pod_state::{
    ContainerState, Ended, Exit, Leaving, Phase, PodState, Stage, StartFailure, StopReason, later,
    restarts,
};
use crate::wanted::{Role, Wanted};
use jiff::Timestamp;
use std::time::Duration;

/// First pause before a crashed container is started again; as the kubelet.
pub const BACKOFF_FIRST: Duration = Duration::from_secs(10);
/// Longest pause between restarts; as the kubelet.
pub const BACKOFF_MAX: Duration = Duration::from_secs(300);
/// A run at least this long forgets the crashes before it; as the kubelet (twice the longest pause).
pub const BACKOFF_RESET: Duration = Duration::from_secs(600);
/// What a sidecar has whose turn comes when the grace of its pod is over; the kubelet's minimum. Not where all of it has less, such as pods
/// that a fence stops, of which by a certain time nothing may run.
const GRACE_LEAST: Duration = Duration::from_secs(2);
/// First pause after a missing ConfigMap or Secret. Short, because the cure is usually a second `kubectl apply`.
pub const CONFIG_RETRY_FIRST: Duration = Duration::from_secs(1);
/// Longest pause after a missing ConfigMap or Secret.
pub const CONFIG_RETRY_MAX: Duration = Duration::from_secs(30);
/// Longest pause where a grant is missing: whoever adds it waits for it, and a look costs nothing, as image and code are here.
pub const NOT_GRANTED_RETRY_MAX: Duration = Duration::from_secs(4);
/// How long a deleted pod goes on serving so that every node can learn that its endpoint is gone.
pub const DRAIN: Duration = Duration::from_millis(1500);

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
    /// The container was given other amounts, which take a restart.
    Resized {
        container: usize,
    },
    /// This node shuts down.
    NodeDrain,
    /// This node may be taken for lost, and the pod may run in one place only.
    NodeFenced,
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
        // Whoever calls it gets no answer at once: it is not waited for them.
        Event::NodeFenced => {
            if let Stage::Active | Stage::Draining { .. } = state.stage {
                state.stage = Stage::Draining { until: now };
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
                    StartFailure::NotGranted => {
                        backoff(CONFIG_RETRY_FIRST, NOT_GRANTED_RETRY_MAX, attempt)
                    }
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
        Event::Resized { container } => {
            if state.stage == Stage::Active
                && let Some(current) = state.containers.get_mut(container)
                && let Phase::Running { .. } = current.phase
            {
                let (grace, reason) = (wanted.grace, StopReason::Resize);
                stop(current, container, grace, reason, actions);
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
    let (since, why) = match &current.phase {
        Phase::Running { since, .. } => (Some(*since), None),
        Phase::Stopping { since, reason } => (*since, Some(*reason)),
        Phase::Starting => (None, None),
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
    let for_good = why == Some(StopReason::MainsDone);
    // However it ended, and whatever the pod says of its restarts.
    let is_resized = why == Some(StopReason::Resize) && lives_on;
    let restarts = is_resized || restarts(wish.role, wanted.restart, &ended.exit);
    if !lives_on || for_good || !restarts {
        current.phase = Phase::Ended(ended);
        return;
    }
    if node_drains || is_resized {
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
            let since = Some(since);
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
        leave(
            state,
            wanted,
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
            leave(
                state,
                wanted,
                remaining_grace(wanted, now),
                reason,
                now,
                actions,
            );
        }
        Stage::Stopping | Stage::Failing { .. } => {
            stop_next_sidecar(state, wanted, now, actions);
        }
        Stage::Draining { .. } | Stage::Failed { .. } | Stage::Finished => {}
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
    let mains_done = mains_done(state, wanted);
    for index in 0..state.containers.len() {
        let Some(wish) = wanted.containers.get(index) else {
            break;
        };
        if wish.role == Role::Ephemeral {
            // It waits for nobody, and nothing is left to look at once the others are done.
            match mains_done {
                true => give_up(&mut state.containers[index]),
                false => start_if_due(&mut state.containers[index], index, now, actions),
            }
            continue;
        }
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
            Role::Main | Role::Ephemeral => true,
        };
    }
    if mains_done {
        leave(
            state,
            wanted,
            wanted.grace,
            StopReason::MainsDone,
            now,
            actions,
        );
    }
}

/// Whether every main container has ended for good.
fn mains_done(state: &PodState, wanted: &Wanted) -> bool {
    let all = wanted.containers.iter().zip(&state.containers);
    let mut mains = all
        .filter(|(wish, _)| wish.role == Role::Main)
        .map(|(_, container)| container)
        .peekable();
    mains.peek().is_some() && mains.all(|main| matches!(main.phase, Phase::Ended(_)))
}

/// Has one that could not be started wait for ever.
fn give_up(container: &mut ContainerState) {
    if matches!(container.phase, Phase::Retrying { .. }) {
        container.phase = Phase::Waiting;
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

/// Has everything end: what is no sidecar at once, then one sidecar after the other, the last first; they share one grace.
fn leave(
    state: &mut PodState,
    wanted: &Wanted,
    grace: Duration,
    reason: StopReason,
    now: Timestamp,
    actions: &mut Vec<Action>,
) {
    let begun = state.leaving.filter(|leaving| leaving.reason == reason);
    state.leaving = begun.or(Some(Leaving {
        until: later(now, grace),
        least: match grace > GRACE_LEAST {
            true => GRACE_LEAST,
            false => Duration::ZERO,
        },
        reason,
    }));
    let all = wanted.containers.iter().zip(&mut state.containers);
    for (index, (wish, container)) in all.enumerate().rev() {
        // One that only waits to run is not waited for.
        if wish.role != Role::Sidecar || !container.busy() {
            stop(container, index, grace, reason, actions);
        }
    }
    stop_next_sidecar(state, wanted, now, actions);
}

/// Has the last sidecar end that runs yet, once all that it is there for have ended: the main containers, and the sidecars after it.
fn stop_next_sidecar(
    state: &mut PodState,
    wanted: &Wanted,
    now: Timestamp,
    actions: &mut Vec<Action>,
) {
    let Some(Leaving {
        until,
        least,
        reason,
    }) = state.leaving
    else {
        return;
    };
    let all = wanted.containers.iter().zip(&mut state.containers);
    let mut busy = all
        .enumerate()
        .rev()
        .filter(|(_, (wish, container))| container.busy() && wish.role != Role::Ephemeral);
    // Sidecars stand before the main containers, so that any of those would be first.
    let Some((index, (wish, container))) = busy.next() else {
        return;
    };
    let others = busy.any(|(_, (wish, _))| wish.role != Role::Sidecar);
    if wish.role != Role::Sidecar || others || matches!(container.phase, Phase::Stopping { .. }) {
        return;
    }
    let until = wanted.kill_at.map_or(until, |kill_at| kill_at.min(until));
    let left = Duration::try_from(until.duration_since(now)).unwrap_or(Duration::ZERO);
    stop(container, index, left.max(least), reason, actions);
}

fn stop(
    container: &mut ContainerState,
    index: usize,
    grace: Duration,
    reason: StopReason,
    actions: &mut Vec<Action>,
) {
    match &container.phase {
        Phase::Running { since, .. } => {
            container.phase = Phase::Stopping {
                since: Some(*since),
                reason,
            }
        }
        Phase::Starting => {
            container.phase = Phase::Stopping {
                since: None,
                reason,
            }
        }
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

/// The pause before attempt number `failures + 1`: none at first, then `first` doubling up to `max`.
fn backoff(first: Duration, max: Duration, failures: u32) -> Duration {
    match failures {
        0 => Duration::ZERO,
        n => first
            .saturating_mul(1u32.checked_shl(n - 1).unwrap_or(u32::MAX))
            .min(max),
    }
}

/// How long a leaving pod goes on: as long as others need to forget it if it serves, and as long as it asks to if it runs.
fn drain_time(state: &PodState, wanted: &Wanted, now: Timestamp) -> Duration {
    let any = |is: fn(&Phase) -> bool| {
        let mut containers = state.containers.iter();
        containers.any(|container| is(&container.phase))
    };
    let serves = any(|phase| {
        matches!(
            phase,
            Phase::Running {
                serving: true,
                ready: true,
                ..
            }
        )
    });
    let mut drain = Duration::ZERO;
    if serves {
        drain = DRAIN;
    }
    if any(|phase| matches!(phase, Phase::Running { .. })) {
        drain = drain.max(wanted.pre_stop);
    }
    drain.min(remaining_grace(wanted, now))
}

fn remaining_grace(wanted: &Wanted, now: Timestamp) -> Duration {
    match wanted.kill_at {
        Some(kill_at) => Duration::try_from(kill_at.duration_since(now)).unwrap_or(Duration::ZERO),
        None => wanted.grace,
    }
}

#[cfg(test)]
mod tests;
