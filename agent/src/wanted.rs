//! What a Pod asks for, reduced to what decides its life on this node.
//!
//! Read anew whenever the object changes; whatever else a Pod says is `translate`'s to read, once, when a container starts.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use std::time::Duration;

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
    /// One of `spec.ephemeralContainers`: added to look at the others, run once, and of no weight for the pod.
    Ephemeral,
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
    /// Init containers first, in order; then the main ones; then the ephemeral ones.
    pub containers: Vec<WantedContainer>,
    /// When the last of the grace ends; set once the pod is deleted.
    pub kill_at: Option<Timestamp>,
    pub grace: Duration,
    /// The longest `lifecycle.preStop.sleep` of its containers: so long it goes on serving once it is deleted, within its grace.
    pub pre_stop: Duration,
    pub active_deadline: Option<Duration>,
}

impl Wanted {
    /// Reads the deciding facts from a Pod.
    pub fn from_pod(pod: &Pod) -> Self {
        let nothing = PodSpec::default();
        let spec = pod.spec.as_ref().unwrap_or(&nothing);
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
        let ephemeral = spec.ephemeral_containers.iter().flatten();
        let ephemeral = ephemeral.map(|container| WantedContainer {
            name: container.name.clone(),
            role: Role::Ephemeral,
            has_startup_probe: false,
            has_readiness_probe: false,
        });
        Self {
            restart: match spec.restart_policy.as_deref() {
                Some("Never") => RestartPolicy::Never,
                Some("OnFailure") => RestartPolicy::OnFailure,
                _ => RestartPolicy::Always,
            },
            containers: init.chain(main).chain(ephemeral).collect(),
            kill_at: pod.metadata.deletion_timestamp.as_ref().map(|time| time.0),
            grace: spec
                .termination_grace_period_seconds
                .map_or(GRACE_DEFAULT, |s| {
                    Duration::from_secs(s.max(0).unsigned_abs())
                }),
            pre_stop: {
                let all = spec.init_containers.iter().flatten();
                let sleeps = all.chain(&spec.containers).filter_map(pre_stop_sleep);
                sleeps.max().unwrap_or_default()
            },
            active_deadline: spec
                .active_deadline_seconds
                .map(|s| Duration::from_secs(s.max(0).unsigned_abs())),
        }
    }
}

impl Wanted {
    /// Whether it has the containers of `before` in their places, and perhaps more.
    pub fn continues(&self, before: &Wanted) -> bool {
        let same = |(now, before): (&WantedContainer, &WantedContainer)| {
            now.name == before.name && now.role == before.role
        };
        self.containers.len() >= before.containers.len()
            && self.containers.iter().zip(&before.containers).all(same)
    }
}

/// The pause that a container asks for before its end, in which nothing is done.
pub fn pre_stop_sleep(container: &Container) -> Option<Duration> {
    let hook = container.lifecycle.as_ref()?.pre_stop.as_ref()?;
    let seconds = hook.sleep.as_ref()?.seconds;
    Some(Duration::from_secs(seconds.max(0).unsigned_abs()))
}
