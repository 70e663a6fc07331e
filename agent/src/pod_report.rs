//! What of a pod is said next, and what of it is news.
//!
//! Statuses are compared with the last one that was handed over, so that a pod at rest costs no write; conditions of an earlier
//! process of this node count as said. What others wrote over it in the meantime is said again: the node controller takes the
//! readiness from pods of a node that it takes for lost, and nobody but the node can give it back.

use crate::pod_state::PodState;
use crate::pod_view::PodView;
use crate::registry::{ContainerRecord, PodRecord};
use crate::resize::Resize;
use crate::run::Slot;
use crate::status::{self, Ips};
use crate::wanted::Wanted;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodCondition, PodStatus};
use std::net::IpAddr;

/// What was said of one pod.
pub(crate) struct PodReport {
    /// By an earlier process of this node, until the first report of this one.
    adopted: Vec<PodCondition>,
    /// As JSON: of a pod at rest nobody looks at it.
    told: Option<Box<[u8]>>,
    /// It is to be said again though it is no other.
    again: bool,
}

impl PodReport {
    /// Goes on with what `pod` says that was reported.
    pub(crate) fn adopt(pod: &Pod) -> Self {
        let status = pod.status.as_ref();
        let adopted = status.and_then(|status| status.conditions.clone());
        Self {
            adopted: adopted.unwrap_or_default(),
            told: None,
            again: false,
        }
    }

    /// Looks at the object as it is now; `is_written`: what was said has reached it.
    pub(crate) fn compare(&mut self, pod: &Pod, is_written: bool) {
        let Some(told) = self.told() else { return };
        let conditions = |status: &PodStatus| status.conditions.clone().unwrap_or_default();
        let told = conditions(&told);
        let shown = pod.status.as_ref().map(conditions).unwrap_or_default();
        let contradicts = |shown: &PodCondition| {
            let mut told = told.iter();
            told.any(|told| told.type_ == shown.type_ && told.status != shown.status)
        };
        self.again |= is_written && shown.iter().any(contradicts);
    }

    /// The status of the pod now. An address that it has given back is still the one it had.
    pub(crate) fn status(
        &self,
        pod: &Pod,
        wanted: &Wanted,
        state: &PodState,
        resize: &Resize,
        ips: Ips,
        now: Timestamp,
    ) -> PodStatus {
        let told = self.told();
        let before = told.as_ref();
        let before = before.and_then(|status| status.conditions.as_deref());
        let ips = Ips {
            pod: ips
                .pod
                .or_else(|| told.as_ref()?.pod_ip.as_deref()?.parse().ok()),
            ..ips
        };
        let before = before.unwrap_or(&self.adopted);
        status::pod_status(pod, wanted, state, resize, before, ips, now)
    }

    /// Takes `status` for said; whether it was anything new.
    pub(crate) fn is_news(&mut self, status: &PodStatus) -> bool {
        let again = std::mem::take(&mut self.again);
        let json = serde_json::to_vec(status).ok().map(Vec::into_boxed_slice);
        if self.told == json && json.is_some() && !again {
            return false;
        }
        self.adopted = Vec::new();
        self.told = json;
        true
    }

    fn told(&self) -> Option<PodStatus> {
        serde_json::from_slice(self.told.as_ref()?).ok()
    }
}

/// The pod as this node's readers see it.
pub(crate) fn record(
    pod: PodView<'_>,
    state: &PodState,
    slots: &[Slot],
    ip: Option<IpAddr>,
    status: &PodStatus,
) -> PodRecord {
    let states = state.containers.iter().zip(slots);
    let containers = pod.containers().into_iter().zip(states);
    let containers = containers.map(|((container, _), (state, slot))| ContainerRecord {
        name: container.name.clone(),
        restart: state.log_to_show(),
        waiting: status::waiting(status, &container.name).filter(|_| state.never_ran()),
        workload: slot.workload(),
        context: slot.context(),
        spent: slot.spent(),
    });
    PodRecord {
        uid: pod.uid().into(),
        ip,
        containers: containers.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn showing(ready: &str) -> Pod {
        let condition = |kind: &str, status: &str| json!({"type": kind, "status": status});
        serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u"},
            "status": {"conditions": [condition("Ready", ready), condition("theirs", "False")]},
        }))
        .expect("a pod")
    }

    #[test]
    fn what_others_wrote_over_a_status_is_said_again_once() {
        let pod = showing("True");
        let status = pod.status.clone().expect("a status");
        let mut report = PodReport::adopt(&showing("False"));
        assert!(report.is_news(&status));
        assert!(!report.is_news(&status), "a pod at rest");
        report.compare(&pod, true);
        assert!(!report.is_news(&status), "the object says the same");
        // What is still on its way will be there in a moment.
        report.compare(&showing("False"), false);
        assert!(!report.is_news(&status));
        // The node was taken for lost, and its pods with it.
        report.compare(&showing("False"), true);
        assert!(report.is_news(&status));
        assert!(!report.is_news(&status));
    }
}
