//! What the events of a pod on this node say, in the kubelet's words.

use crate::events::{Recorder, Severity};
use crate::plan::ProbeKind;
use crate::pod_state::{Phase, PodState, StartFailure, StopReason};
use crate::pod_view::PodView;
use k8s_openapi::api::core::v1::{Container, Pod};
use std::sync::Arc;

/// Which of a container's hooks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HookKind {
    PostStart,
    PreStop,
}

/// Tells of one pod.
pub(crate) struct PodEvents<'a> {
    pub(crate) pod: Arc<Pod>,
    pub(crate) recorder: &'a Recorder,
}

impl PodEvents<'_> {
    fn tell(
        &self,
        container: &Container,
        severity: Severity,
        reason: &'static str,
        words: impl Into<String>,
    ) {
        let name = Some(container.name.as_str());
        self.recorder.pod(&self.pod, name, severity, reason, words);
    }

    pub(crate) fn started(&self, container: &Container) {
        let words = format!("Started container {}", container.name);
        self.tell(container, Severity::Normal, "Started", words);
    }

    pub(crate) fn killing(&self, container: &Container, reason: StopReason) {
        let name = &container.name;
        let words = match reason {
            StopReason::Liveness => {
                format!("Container {name} failed liveness probe, will be restarted")
            }
            StopReason::Startup => {
                format!("Container {name} failed startup probe, will be restarted")
            }
            StopReason::PostStart => "FailedPostStartHook".to_owned(),
            StopReason::Resize => format!("Container {name} resize requires restart"),
            StopReason::PodDeleted
            | StopReason::DeadlineExceeded
            | StopReason::NodeDrain
            | StopReason::MainsDone => format!("Stopping container {name}"),
        };
        self.tell(container, Severity::Normal, "Killing", words);
    }

    pub(crate) fn unhealthy(&self, container: &Container, kind: ProbeKind, message: &str) {
        let words = format!("{kind} probe failed: {message}");
        self.tell(container, Severity::Warning, "Unhealthy", words);
    }

    /// Its result is thrown away: whether the container is well is not known by it.
    pub(crate) fn probe_errored(&self, container: &Container, kind: ProbeKind, message: &str) {
        let words = format!("{kind} probe errored and resulted in unknown state: {message}");
        self.tell(container, Severity::Warning, "Unhealthy", words);
    }

    /// Without what it said, which may be a secret.
    pub(crate) fn hook_failed(&self, container: &Container, hook: HookKind) {
        let (reason, words) = match hook {
            HookKind::PostStart => ("FailedPostStartHook", "PostStartHook failed"),
            HookKind::PreStop => ("FailedPreStopHook", "PreStopHook failed"),
        };
        self.tell(container, Severity::Warning, reason, words);
    }

    pub(crate) fn not_started(&self, container: &Container, failure: StartFailure, why: &str) {
        let image = container.image.as_deref().unwrap_or_default();
        let (reason, words) = match failure {
            StartFailure::Image => ("Failed", format!("Failed to pull image \"{image}\": {why}")),
            StartFailure::ImageName => (
                "InspectFailed",
                format!("Failed to apply default image tag: {why}"),
            ),
            StartFailure::ImageNever => ("ErrImageNeverPull", why.to_owned()),
            StartFailure::NotGranted => ("CapabilityNotGranted", why.to_owned()),
            // The hook's own event has said it.
            StartFailure::PostStart => return,
            StartFailure::Config | StartFailure::Create => ("Failed", format!("Error: {why}")),
        };
        self.tell(container, Severity::Warning, reason, words);
    }

    /// A resize of the pod came that far.
    pub(crate) fn resized(&self, severity: Severity, reason: &'static str, words: String) {
        self.recorder.pod(&self.pod, None, severity, reason, words);
    }

    /// Of containers that wait for their next run since `before`.
    pub(crate) fn backing_off(&self, before: &PodState, after: &PodState) {
        let states = before.containers.iter().zip(&after.containers);
        let pod = PodView(&self.pod);
        let containers = pod.containers();
        for ((before, after), (container, _)) in states.zip(containers) {
            let Phase::BackingOff { pause, .. } = &after.phase else {
                continue;
            };
            if pause.is_zero() || matches!(before.phase, Phase::BackingOff { .. }) {
                continue;
            }
            let words = format!(
                "Back-off restarting failed container {} in pod {}",
                container.name,
                pod.full_name()
            );
            self.tell(&container, Severity::Warning, "BackOff", words);
        }
    }
}
