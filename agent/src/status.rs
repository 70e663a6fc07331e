//! What this node says about its pods.
//!
//! [`pod_status`] is pure: from the Pod, its [`PodState`] and the time to the `status` that Kubernetes' kubelet would report,
//! word for word where `kubectl` or a controller reads the word. Left to others: sending it (`publisher`).
//!
//! Invariants: a condition's `lastTransitionTime` moves only when its status does; conditions of others (readiness gates,
//! `DisruptionTarget`) are carried over.

use crate::pod_state::{Ended, PULL_ERROR_SHOWN, Phase, PodState, Stage, StartFailure, later};
use crate::pod_view::PodView;
use crate::resize::{self, Resize};
use crate::wanted::{Role, Wanted};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated,
    ContainerStateWaiting, ContainerStatus, HostIP, Pod, PodCondition, PodIP, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::net::IpAddr;
use std::time::Duration;
use weft_api::Quantity;

/// Conditions this node writes; all others on a pod are somebody else's.
const OWN_CONDITIONS: [&str; 7] = [
    "PodReadyToStartContainers",
    "Initialized",
    "Ready",
    "ContainersReady",
    "PodScheduled",
    resize::PENDING,
    resize::IN_PROGRESS,
];

/// What of a pod's status this node keeps: the conditions that others wrote. What it reports itself it remembers.
pub fn of_others(mut status: PodStatus) -> Option<PodStatus> {
    let mut conditions = status.conditions.take().unwrap_or_default();
    conditions.retain(|condition| !OWN_CONDITIONS.contains(&condition.type_.as_str()));
    (!conditions.is_empty()).then(|| PodStatus {
        conditions: Some(conditions),
        ..PodStatus::default()
    })
}

/// Where a pod is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ips {
    /// None before it has one.
    pub(crate) pod: Option<IpAddr>,
    pub(crate) host: IpAddr,
}

/// The status of `pod` at `now`.
///
/// `conditions` are those last reported, the source of transition times.
pub(crate) fn pod_status(
    pod: &Pod,
    wanted: &Wanted,
    state: &PodState,
    resize: &Resize,
    conditions: &[PodCondition],
    ips: Ips,
    now: Timestamp,
) -> PodStatus {
    let containers = PodView(pod).containers();
    let mut init_statuses = Vec::new();
    let mut main_statuses = Vec::new();
    let mut ephemeral_statuses = Vec::new();
    let initialized = initialized(wanted, state);
    let (phase, reason, message) = phase(wanted, state);
    for (index, (container, role)) in containers.iter().enumerate() {
        let Some(current) = state.containers.get(index) else {
            break;
        };
        let mut status = container_status(pod, container, *role, current, initialized, now);
        resize.tell(&container.name, &mut status);
        if *role == Role::Main && phase == "Failed" && initialized {
            never_ran(&mut status);
        }
        match role {
            Role::Main => main_statuses.push(status),
            Role::Init | Role::Sidecar => init_statuses.push(status),
            Role::Ephemeral => ephemeral_statuses.push(status),
        }
    }
    let draining = !matches!(state.stage, Stage::Active) && wanted.kill_at.is_none();
    let over = matches!(phase, "Succeeded" | "Failed");
    let unready: Vec<&str> = main_statuses
        .iter()
        .filter(|status| !status.ready)
        .map(|status| status.name.as_str())
        .collect();
    let unstarted: Vec<&str> = unfinished_init(wanted, state);

    let gates = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.readiness_gates.as_deref())
        .unwrap_or_default();
    let carried: Vec<PodCondition> = pod
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten())
        .filter(|condition| !OWN_CONDITIONS.contains(&condition.type_.as_str()))
        .cloned()
        .collect();
    let closed_gate = gates.iter().find(|gate| {
        !carried
            .iter()
            .any(|condition| condition.type_ == gate.condition_type && condition.status == "True")
    });

    let verdict = |good: bool, reason: &str, message: String| {
        if good {
            (true, None, None)
        } else {
            (false, Some(reason.to_owned()), Some(message))
        }
    };
    let containers_ready = match phase {
        "Succeeded" => (false, Some("PodCompleted".to_owned()), None),
        "Failed" => (false, Some("PodFailed".to_owned()), None),
        _ if draining => (
            false,
            Some("NodeShutdown".to_owned()),
            Some("the node is shutting down".to_owned()),
        ),
        _ => verdict(
            unready.is_empty() && initialized,
            "ContainersNotReady",
            format!("containers with unready status: [{}]", unready.join(" ")),
        ),
    };
    let ready = match (&containers_ready, closed_gate) {
        ((true, ..), Some(gate)) => (
            false,
            Some("ReadinessGatesNotReady".to_owned()),
            Some(format!(
                "corresponding condition of pod readiness gate \"{}\" does not exist or is not \"True\".",
                gate.condition_type
            )),
        ),
        _ => containers_ready.clone(),
    };
    let initialized = match phase {
        "Succeeded" => (true, Some("PodCompleted".to_owned()), None),
        _ => verdict(
            initialized,
            "ContainersNotInitialized",
            format!(
                "containers with incomplete status: [{}]",
                unstarted.join(" ")
            ),
        ),
    };
    let verdicts = [
        (
            "PodReadyToStartContainers",
            (ips.pod.is_some() && !over, None, None),
        ),
        ("Initialized", initialized),
        ("Ready", ready),
        ("ContainersReady", containers_ready),
        ("PodScheduled", (true, None, None)),
    ];
    let mut next: Vec<PodCondition> = verdicts
        .into_iter()
        .map(|(type_, (good, reason, message))| {
            let status = if good { "True" } else { "False" };
            let since = conditions
                .iter()
                .chain(
                    pod.status
                        .iter()
                        .flat_map(|status| status.conditions.iter().flatten()),
                )
                .find(|condition| condition.type_ == type_)
                .filter(|condition| condition.status == status)
                .and_then(|condition| condition.last_transition_time.clone())
                .unwrap_or(Time(now));
            PodCondition {
                type_: type_.into(),
                status: status.into(),
                reason,
                message,
                last_transition_time: Some(since),
                last_probe_time: None,
                observed_generation: pod.metadata.generation,
            }
        })
        .collect();
    next.extend(resize.conditions());
    next.extend(carried);
    let (ip, host_ip) = (ips.pod.map(|ip| ip.to_string()), ips.host);
    PodStatus {
        phase: Some(phase.into()),
        reason,
        message,
        conditions: Some(next),
        observed_generation: pod.metadata.generation,
        host_ip: Some(host_ip.to_string()),
        host_ips: Some(vec![HostIP {
            ip: host_ip.to_string(),
        }]),
        pod_ip: ip.clone(),
        pod_ips: ip.map(|ip| vec![PodIP { ip }]),
        start_time: Some(Time(state.started_at)),
        qos_class: Some(qos_class(pod).into()),
        init_container_statuses: (!init_statuses.is_empty()).then_some(init_statuses),
        container_statuses: Some(main_statuses),
        ephemeral_container_statuses: (!ephemeral_statuses.is_empty())
            .then_some(ephemeral_statuses),
        ..PodStatus::default()
    }
}

/// Of a pod that failed as a whole nothing waits any more: the kubelet's word for a container that it never saw end.
fn never_ran(status: &mut ContainerStatus) {
    if let Some(state) = &mut status.state
        && state.waiting.take().is_some()
    {
        state.terminated = Some(ContainerStateTerminated {
            exit_code: 137,
            reason: Some("ContainerStatusUnknown".into()),
            message: Some("The container could not be located when the pod was terminated".into()),
            ..ContainerStateTerminated::default()
        });
    }
}

fn initialized(wanted: &Wanted, state: &PodState) -> bool {
    unfinished_init(wanted, state).is_empty()
}

fn unfinished_init<'a>(wanted: &'a Wanted, state: &PodState) -> Vec<&'a str> {
    wanted
        .containers
        .iter()
        .zip(&state.containers)
        .filter(|(wish, container)| match wish.role {
            Role::Main | Role::Ephemeral => false,
            Role::Init => {
                !matches!(&container.phase, Phase::Ended(ended) if ended.exit.succeeded())
            }
            Role::Sidecar => {
                !matches!(
                    container.phase,
                    Phase::Running { started: true, .. } | Phase::Stopping { .. } | Phase::Ended(_)
                ) && container.last.is_none()
            }
        })
        .map(|(wish, _)| wish.name.as_str())
        .collect()
}

/// The pod's phase with the reason and message that go with it.
fn phase(wanted: &Wanted, state: &PodState) -> (&'static str, Option<String>, Option<String>) {
    if let Stage::Failed { reason, message } = &state.stage {
        return ("Failed", Some((*reason).to_owned()), Some(message.clone()));
    }
    let phase = phase_of_containers(wanted, state);
    // A pod that was deleted and of which nothing runs any more has ended, however far it came; as with the kubelet, one that
    // did not succeed has failed.
    let ended = state.stage == Stage::Finished && wanted.kill_at.is_some();
    match phase {
        "Pending" | "Running" if ended => ("Failed", None, None),
        phase => (phase, None, None),
    }
}

fn phase_of_containers(wanted: &Wanted, state: &PodState) -> &'static str {
    let mut running = false;
    let mut waiting = false;
    let mut failed = false;
    let mut open = false;
    for (wish, container) in wanted.containers.iter().zip(&state.containers) {
        match (&container.phase, wish.role) {
            (Phase::Ended(ended), Role::Init) if !ended.exit.succeeded() => {
                return "Failed";
            }
            (Phase::Ended(_), Role::Init) | (_, Role::Sidecar | Role::Ephemeral) => {}
            (_, Role::Init) => return "Pending",
            (Phase::Ended(ended), Role::Main) => failed |= !ended.exit.succeeded(),
            (
                Phase::Running { .. }
                | Phase::Stopping { since: Some(_), .. }
                | Phase::BackingOff { .. },
                Role::Main,
            ) => {
                running = true;
                open = true;
            }
            (
                Phase::Waiting
                | Phase::Starting
                | Phase::Stopping { since: None, .. }
                | Phase::Retrying { .. },
                Role::Main,
            ) => {
                open = true;
                if container.last.is_some() {
                    running = true;
                } else {
                    waiting = true;
                }
            }
        }
    }
    match (waiting, running, open, failed) {
        (true, ..) => "Pending",
        (false, true, ..) => "Running",
        (false, false, true, _) => "Pending",
        (false, false, false, true) => "Failed",
        (false, false, false, false) => "Succeeded",
    }
}

/// Why a container waits, as `status` says.
pub(crate) fn waiting(status: &PodStatus, container: &str) -> Option<String> {
    let init = status.init_container_statuses.iter().flatten();
    let ephemeral = status.ephemeral_container_statuses.iter().flatten();
    let main = status.container_statuses.iter().flatten();
    let mut all = init.chain(main).chain(ephemeral);
    let reported = all.find(|reported| reported.name == container)?;
    reported.state.as_ref()?.waiting.as_ref()?.reason.clone()
}

fn container_status(
    pod: &Pod,
    container: &Container,
    role: Role,
    current: &crate::pod_state::ContainerState,
    initialized: bool,
    now: Timestamp,
) -> ContainerStatus {
    let waiting = |reason: &str, message: Option<String>| ContainerState {
        waiting: Some(ContainerStateWaiting {
            reason: Some(reason.into()),
            message,
        }),
        ..ContainerState::default()
    };
    let image = container.image.clone().unwrap_or_default();
    let not_yet = match role {
        Role::Main if !initialized => "PodInitializing",
        Role::Main | Role::Ephemeral => "ContainerCreating",
        Role::Init | Role::Sidecar => "PodInitializing",
    };
    let mut last = current.last.clone();
    let mut ready = false;
    let mut started = false;
    let state = match &current.phase {
        Phase::Waiting => waiting(not_yet, None),
        Phase::Starting | Phase::Stopping { since: None, .. } => match &current.last {
            // Between two runs the kubelet shows the one that ended.
            Some(ended) => terminated(ended),
            None => waiting(
                if matches!(role, Role::Main | Role::Ephemeral) {
                    "ContainerCreating"
                } else {
                    "PodInitializing"
                },
                None,
            ),
        },
        Phase::Retrying {
            failure,
            message,
            attempt,
            failed_at,
            ..
        } => {
            let settled = *attempt > 1 || later(*failed_at, PULL_ERROR_SHOWN) <= now;
            match failure {
                StartFailure::Image if settled => waiting(
                    "ImagePullBackOff",
                    Some(format!(
                        "Back-off pulling image \"{image}\": ErrImagePull: {message}"
                    )),
                ),
                StartFailure::Image => waiting("ErrImagePull", Some(message.clone())),
                StartFailure::ImageName => waiting("InvalidImageName", Some(message.clone())),
                StartFailure::ImageNever => waiting("ErrImageNeverPull", Some(message.clone())),
                StartFailure::Config => {
                    waiting("CreateContainerConfigError", Some(message.clone()))
                }
                StartFailure::NotGranted => waiting("CapabilityNotGranted", Some(message.clone())),
                StartFailure::Create => waiting("CreateContainerError", Some(message.clone())),
                StartFailure::PostStart => waiting("PostStartHookError", Some(message.clone())),
            }
        }
        Phase::Running {
            since,
            started: up,
            ready: is_ready,
            ..
        } => {
            ready = *is_ready && !matches!(role, Role::Init | Role::Ephemeral);
            started = *up;
            ContainerState {
                running: Some(ContainerStateRunning {
                    started_at: Some(Time(*since)),
                }),
                ..ContainerState::default()
            }
        }
        Phase::Stopping {
            since: Some(since), ..
        } => ContainerState {
            running: Some(ContainerStateRunning {
                started_at: Some(Time(*since)),
            }),
            ..ContainerState::default()
        },
        Phase::BackingOff { pause, ended, .. } if pause.is_zero() => terminated(ended),
        Phase::BackingOff { pause, ended, .. } => {
            last = Some(ended.clone());
            let message = format!(
                "back-off {} restarting failed container={} pod={}",
                go_duration(*pause),
                container.name,
                PodView(pod).full_name()
            );
            waiting("CrashLoopBackOff", Some(message))
        }
        Phase::Ended(ended) => {
            ready = role == Role::Init && ended.exit.succeeded();
            terminated(ended)
        }
    };
    ContainerStatus {
        name: container.name.clone(),
        image,
        image_id: current.image_id.clone(),
        container_id: current.container_id.clone(),
        ready,
        restart_count: i32::try_from(current.restarts).unwrap_or(i32::MAX),
        started: Some(started),
        state: Some(state),
        last_state: Some(last.as_ref().map(terminated).unwrap_or_default()),
        ..ContainerStatus::default()
    }
}

fn terminated(ended: &Ended) -> ContainerState {
    ContainerState {
        terminated: Some(ContainerStateTerminated {
            exit_code: ended.exit.code,
            reason: Some(ended.exit.reason.clone()),
            message: ended.exit.message.clone(),
            started_at: ended.started_at.map(Time),
            finished_at: Some(Time(ended.finished_at)),
            container_id: ended.container_id.clone(),
            signal: None,
        }),
        ..ContainerState::default()
    }
}

/// `10s`, `1m20s`, `5m0s`: as Go prints a duration of whole seconds.
fn go_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    if seconds < 60 {
        format!("{seconds}s")
    } else {
        format!("{}m{}s", seconds / 60, seconds % 60)
    }
}

/// `Guaranteed`, `Burstable` or `BestEffort`, by Kubernetes' rule.
pub fn qos_class(pod: &Pod) -> &'static str {
    let mut any = false;
    let mut guaranteed = true;
    for (container, role) in PodView(pod).containers() {
        if role == Role::Ephemeral {
            continue;
        }
        for resource in ["cpu", "memory"] {
            let amount = |map: &Option<
                std::collections::BTreeMap<
                    String,
                    k8s_openapi::apimachinery::pkg::api::resource::Quantity,
                >,
            >| {
                map.as_ref()
                    .and_then(|map| map.get(resource))
                    .and_then(|text| Quantity::parse(&text.0).ok())
                    .filter(|amount| !amount.is_zero())
            };
            let limit = container
                .resources
                .as_ref()
                .and_then(|resources| amount(&resources.limits));
            let request = container
                .resources
                .as_ref()
                .and_then(|resources| amount(&resources.requests))
                .or(limit);
            any |= limit.is_some() || request.is_some();
            guaranteed &= limit.is_some() && limit == request;
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Event, step};
    use crate::pod_state::Exit;
    use serde_json::json;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + seconds).expect("in range")
    }

    fn pod(spec: serde_json::Value) -> Pod {
        serde_json::from_value(
            json!({"metadata": {"name": "web-1", "namespace": "vote", "uid": "u"}, "spec": spec}),
        )
        .expect("a pod")
    }

    /// The status as `kubectl get pod` would show it, with the true conditions.
    fn show(pod: &Pod, state: &PodState, now: i64) -> String {
        let wanted = Wanted::from_pod(pod);
        let ip = "10.42.0.5".parse().ok();
        let status = pod_status(
            pod,
            &wanted,
            state,
            &Resize::adopt(pod),
            &[],
            Ips {
                pod: ip,
                host: "127.0.0.1".parse().expect("an address"),
            },
            at(now),
        );
        let containers: Vec<String> = status
            .init_container_statuses
            .iter()
            .flatten()
            .chain(status.container_statuses.iter().flatten())
            .chain(status.ephemeral_container_statuses.iter().flatten())
            .map(|container| {
                let state = container.state.clone().unwrap_or_default();
                let word = match (state.waiting, state.running, state.terminated) {
                    (Some(waiting), ..) => waiting.reason.unwrap_or_default(),
                    (_, Some(_), _) => "running".into(),
                    (.., Some(ended)) => {
                        format!("{}({})", ended.reason.unwrap_or_default(), ended.exit_code)
                    }
                    _ => "?".into(),
                };
                format!(
                    "{} {word} x{}{}",
                    container.name,
                    container.restart_count,
                    if container.ready { " ready" } else { "" }
                )
            })
            .collect();
        let good: Vec<String> = status
            .conditions
            .iter()
            .flatten()
            .filter(|c| c.status == "True")
            .map(|c| c.type_.clone())
            .collect();
        format!(
            "{} [{}] {}",
            status.phase.unwrap_or_default(),
            containers.join(", "),
            good.join(" ")
        )
    }

    fn play(pod: &Pod, script: Vec<(i64, Event)>) -> String {
        let wanted = Wanted::from_pod(pod);
        let mut state = PodState::new(&wanted, at(0));
        let mut lines = vec![show(pod, &state, 0)];
        for (second, event) in script {
            step(&mut state, &wanted, event, at(second));
            lines.push(show(pod, &state, second));
        }
        lines.join("\n")
    }

    fn started(container: usize) -> Event {
        Event::Started {
            container,
            serving: true,
            image_id: "i".into(),
            container_id: "c".into(),
        }
    }

    fn ended(container: usize, code: i32, reason: &str) -> Event {
        Event::Ended {
            container,
            exit: Exit {
                code,
                reason: reason.into(),
                message: None,
            },
        }
    }

    #[test]
    fn a_service_comes_up_crashes_and_backs_off() {
        let pod = pod(json!({"containers": [{"name": "web", "image": "vote/web:1"}]}));
        let text = play(
            &pod,
            vec![
                (0, Event::Tick),
                (1, started(0)),
                (2, ended(0, 137, "OOMKilled")),
                (3, started(0)),
                (4, ended(0, 134, "Error")),
                (14, Event::Tick),
                (15, started(0)),
            ],
        );
        insta::assert_snapshot!(text, @r"
        Pending [web ContainerCreating x0] PodReadyToStartContainers Initialized PodScheduled
        Pending [web ContainerCreating x0] PodReadyToStartContainers Initialized PodScheduled
        Running [web running x0 ready] PodReadyToStartContainers Initialized Ready ContainersReady PodScheduled
        Running [web OOMKilled(137) x1] PodReadyToStartContainers Initialized PodScheduled
        Running [web running x1 ready] PodReadyToStartContainers Initialized Ready ContainersReady PodScheduled
        Running [web CrashLoopBackOff x1] PodReadyToStartContainers Initialized PodScheduled
        Running [web Error(134) x2] PodReadyToStartContainers Initialized PodScheduled
        Running [web running x2 ready] PodReadyToStartContainers Initialized Ready ContainersReady PodScheduled
        ");
    }

    #[test]
    fn who_looks_at_a_pod_has_no_weight_in_it() {
        let pod = pod(json!({
            "containers": [{"name": "web", "image": "vote/web:1"}],
            "ephemeralContainers": [{"name": "look", "image": "toolbox", "targetContainerName": "web"}],
        }));
        let text = play(
            &pod,
            vec![
                (0, Event::Tick),
                (1, started(0)),
                (2, started(1)),
                (3, ended(1, 1, "Error")),
            ],
        );
        insta::assert_snapshot!(text, @r"
        Pending [web ContainerCreating x0, look ContainerCreating x0] PodReadyToStartContainers Initialized PodScheduled
        Pending [web ContainerCreating x0, look ContainerCreating x0] PodReadyToStartContainers Initialized PodScheduled
        Running [web running x0 ready, look ContainerCreating x0] PodReadyToStartContainers Initialized Ready ContainersReady PodScheduled
        Running [web running x0 ready, look running x0] PodReadyToStartContainers Initialized Ready ContainersReady PodScheduled
        Running [web running x0 ready, look Error(1) x0] PodReadyToStartContainers Initialized Ready ContainersReady PodScheduled
        ");
    }

    #[test]
    fn a_hook_that_fails_is_told_while_its_container_waits() {
        let pod = pod(json!({"containers": [{"name": "web", "image": "vote/web:1"}]}));
        let failed = Event::StartFailed {
            container: 0,
            failure: StartFailure::PostStart,
            message: "Exec lifecycle hook ([false])".into(),
        };
        let text = play(
            &pod,
            vec![
                (0, Event::Tick),
                (1, failed),
                (11, Event::Tick),
                (12, started(0)),
            ],
        );
        insta::assert_snapshot!(text, @r"
        Pending [web ContainerCreating x0] PodReadyToStartContainers Initialized PodScheduled
        Pending [web ContainerCreating x0] PodReadyToStartContainers Initialized PodScheduled
        Pending [web PostStartHookError x0] PodReadyToStartContainers Initialized PodScheduled
        Pending [web ContainerCreating x0] PodReadyToStartContainers Initialized PodScheduled
        Running [web running x0 ready] PodReadyToStartContainers Initialized Ready ContainersReady PodScheduled
        ");
    }

    #[test]
    fn a_job_with_an_init_container_succeeds() {
        let pod = pod(json!({
            "restartPolicy": "Never",
            "initContainers": [{"name": "prepare", "image": "a"}],
            "containers": [{"name": "work", "image": "b"}],
        }));
        let text = play(
            &pod,
            vec![
                (0, Event::Tick),
                (1, started(0)),
                (2, ended(0, 0, "Completed")),
                (3, started(1)),
                (4, ended(1, 0, "Completed")),
            ],
        );
        insta::assert_snapshot!(text, @r"
        Pending [prepare PodInitializing x0, work PodInitializing x0] PodReadyToStartContainers PodScheduled
        Pending [prepare PodInitializing x0, work PodInitializing x0] PodReadyToStartContainers PodScheduled
        Pending [prepare running x0, work PodInitializing x0] PodReadyToStartContainers PodScheduled
        Pending [prepare Completed(0) x0 ready, work ContainerCreating x0] PodReadyToStartContainers Initialized PodScheduled
        Running [prepare Completed(0) x0 ready, work running x0 ready] PodReadyToStartContainers Initialized Ready ContainersReady PodScheduled
        Succeeded [prepare Completed(0) x0 ready, work Completed(0) x0] Initialized PodScheduled
        ");
    }

    #[test]
    fn a_missing_image_is_an_error_first_and_a_back_off_after() {
        let pod = pod(json!({"containers": [{"name": "web", "image": "vote/nope:1"}]}));
        let failed = || Event::StartFailed {
            container: 0,
            failure: StartFailure::Image,
            message: "not found".into(),
        };
        let text = play(
            &pod,
            vec![
                (0, Event::Tick),
                (1, failed()),
                (4, Event::Tick),
                (11, Event::Tick),
                (12, failed()),
            ],
        );
        insta::assert_snapshot!(text, @r"
        Pending [web ContainerCreating x0] PodReadyToStartContainers Initialized PodScheduled
        Pending [web ContainerCreating x0] PodReadyToStartContainers Initialized PodScheduled
        Pending [web ErrImagePull x0] PodReadyToStartContainers Initialized PodScheduled
        Pending [web ImagePullBackOff x0] PodReadyToStartContainers Initialized PodScheduled
        Pending [web ContainerCreating x0] PodReadyToStartContainers Initialized PodScheduled
        Pending [web ImagePullBackOff x0] PodReadyToStartContainers Initialized PodScheduled
        ");
    }

    #[test]
    fn nothing_waits_in_a_pod_that_failed_before_it_started() {
        let pod = pod(json!({
            "activeDeadlineSeconds": 5,
            "containers": [{"name": "web", "image": "vote/web:1"}, {"name": "log", "image": "vote/log:1"}],
        }));
        let text = play(
            &pod,
            vec![
                (0, Event::Tick),
                (1, started(0)),
                (5, Event::Tick),
                (
                    6,
                    Event::StartFailed {
                        container: 1,
                        failure: StartFailure::Create,
                        message: "stopped before it started".into(),
                    },
                ),
                (7, ended(0, 143, "Error")),
            ],
        );
        insta::assert_snapshot!(text, @r"
        Pending [web ContainerCreating x0, log ContainerCreating x0] PodReadyToStartContainers Initialized PodScheduled
        Pending [web ContainerCreating x0, log ContainerCreating x0] PodReadyToStartContainers Initialized PodScheduled
        Pending [web running x0 ready, log ContainerCreating x0] PodReadyToStartContainers Initialized PodScheduled
        Pending [web running x0, log ContainerCreating x0] PodReadyToStartContainers Initialized PodScheduled
        Pending [web running x0, log ContainerCreating x0] PodReadyToStartContainers Initialized PodScheduled
        Failed [web Error(143) x0, log ContainerStatusUnknown(137) x0] Initialized PodScheduled
        ");
    }

    #[test]
    fn quality_of_service() {
        for (resources, class) in [
            (json!({}), "BestEffort"),
            (json!({"requests": {"cpu": "1"}}), "Burstable"),
            (
                json!({"limits": {"cpu": "1", "memory": "1Gi"}}),
                "Guaranteed",
            ),
            (
                json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}}),
                "Burstable",
            ),
        ] {
            assert_eq!(
                qos_class(&pod(
                    json!({"containers": [{"name": "a", "resources": resources}]})
                )),
                class,
                "{resources}"
            );
        }
    }

    #[test]
    fn a_transition_time_moves_only_with_its_status() {
        let pod = pod(json!({"containers": [{"name": "web"}]}));
        let wanted = Wanted::from_pod(&pod);
        let mut state = PodState::new(&wanted, at(0));
        let status = |state: &PodState, before: &[PodCondition], now| {
            pod_status(
                &pod,
                &wanted,
                state,
                &Resize::adopt(&pod),
                before,
                Ips {
                    pod: None,
                    host: "127.0.0.1".parse().expect("an address"),
                },
                at(now),
            )
            .conditions
            .unwrap_or_default()
        };
        let since = |conditions: &[PodCondition], type_: &str| {
            conditions
                .iter()
                .find(|c| c.type_ == type_)
                .and_then(|c| c.last_transition_time.clone())
                .map(|time| time.0)
        };
        let first = status(&state, &[], 0);
        step(&mut state, &wanted, Event::Tick, at(5));
        step(&mut state, &wanted, started(0), at(5));
        let second = status(&state, &first, 5);
        assert_eq!(since(&second, "Initialized"), Some(at(0)));
        assert_eq!(since(&second, "Ready"), Some(at(5)));
    }

    #[test]
    fn a_deleted_pod_ends_with_a_phase_and_exit_codes_however_far_it_came() {
        let spec =
            json!({"containers": [{"name": "web", "image": "i"}, {"name": "log", "image": "i"}]});
        let mut pod = pod(spec);
        let alive = Wanted::from_pod(&pod);
        pod.metadata.deletion_timestamp = Some(Time(at(5)));
        let wanted = Wanted::from_pod(&pod);
        let started = |container| Event::Started {
            container,
            serving: false,
            image_id: "i".into(),
            container_id: "c".into(),
        };
        let ended = |container| Event::Ended {
            container,
            exit: Exit {
                code: 0,
                reason: "Completed".into(),
                message: None,
            },
        };
        let missing = |container| Event::StartFailed {
            container,
            failure: StartFailure::Image,
            message: "m".into(),
        };
        // What happened before it was deleted, and what after.
        let lives = [
            (vec![], vec![]),
            (vec![Event::Tick], vec![missing(0), missing(1)]),
            (vec![Event::Tick, missing(0), missing(1)], vec![]),
            (
                vec![Event::Tick, started(0), started(1)],
                vec![ended(0), ended(1)],
            ),
            (vec![Event::Tick, started(0), missing(1)], vec![ended(0)]),
        ];
        let told: Vec<String> = lives
            .into_iter()
            .map(|(before, after)| {
                let mut state = PodState::new(&alive, at(0));
                for event in before {
                    step(&mut state, &alive, event, at(1));
                }
                let after = std::iter::once(Event::Tick).chain(after);
                let mut actions = Vec::new();
                for event in after {
                    actions.extend(step(&mut state, &wanted, event, at(6)));
                }
                assert_eq!(actions.last(), Some(&crate::plan::Action::Delete));
                show(&pod, &state, 6)
            })
            .collect();
        insta::assert_snapshot!(told.join("\n"), @r"
        Failed [web ContainerStatusUnknown(137) x0, log ContainerStatusUnknown(137) x0] Initialized PodScheduled
        Failed [web ContainerStatusUnknown(137) x0, log ContainerStatusUnknown(137) x0] Initialized PodScheduled
        Failed [web ContainerStatusUnknown(137) x0, log ContainerStatusUnknown(137) x0] Initialized PodScheduled
        Succeeded [web Completed(0) x0, log Completed(0) x0] Initialized PodScheduled
        Failed [web Completed(0) x0, log ContainerStatusUnknown(137) x0] Initialized PodScheduled
        ");
    }
}
