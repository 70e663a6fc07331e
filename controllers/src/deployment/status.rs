//! What a Deployment is told of itself: counts, conditions, and the progress deadline.

use std::time::Duration;

use weft_api::view::{DeploymentCondition, DeploymentStatus};

use super::pass::Pass;
use super::sets::{Set, size_of};
use crate::amount::{count, pods};
use crate::replicaset::is_replica_failure;
use crate::{plus_seconds, stamp, until};

impl Pass<'_> {
    pub(super) fn condition(&self, kind: &str) -> Option<&DeploymentCondition> {
        let conditions = self.status.conditions.iter().flatten();
        conditions
            .into_iter()
            .find(|c| c.type_.as_deref() == Some(kind))
    }

    /// Sets a condition. The same status and reason leave it alone; the same status keeps its transition time.
    pub(super) fn set_condition(
        &mut self,
        kind: &str,
        status: &str,
        reason: &str,
        message: String,
    ) {
        let old = self.condition(kind);
        if old.is_some_and(|c| {
            c.status.as_deref() == Some(status) && c.reason.as_deref() == Some(reason)
        }) {
            return;
        }
        self.replace_condition(kind, status, reason, message);
    }

    /// As [`Pass::set_condition`], but always renews `lastUpdateTime`, which the progress deadline counts from.
    fn replace_condition(&mut self, kind: &str, status: &str, reason: &str, message: String) {
        let now = stamp(self.now);
        let kept = self
            .condition(kind)
            .filter(|old| old.status.as_deref() == Some(status))
            .and_then(|old| old.last_transition_time.clone());
        let conditions = self.status.conditions.get_or_insert_default();
        conditions.retain(|c| c.type_.as_deref() != Some(kind));
        conditions.push(DeploymentCondition {
            type_: Some(kind.into()),
            status: Some(status.into()),
            reason: Some(reason.into()),
            message: Some(message),
            last_transition_time: Some(kept.unwrap_or_else(|| now.clone())),
            last_update_time: Some(now),
        });
    }

    fn remove_condition(&mut self, kind: &str) {
        if let Some(conditions) = &mut self.status.conditions {
            conditions.retain(|c| c.type_.as_deref() != Some(kind));
        }
    }

    pub(super) fn note_pause(&mut self) {
        if self.want.deadline_seconds.is_none() {
            return;
        }
        let reason = self
            .condition("Progressing")
            .and_then(|c| c.reason.as_deref());
        if reason == Some("ProgressDeadlineExceeded") {
            return;
        }
        let was_paused = reason == Some("DeploymentPaused");
        if self.want.paused && !was_paused {
            let message = "Deployment is paused".to_owned();
            self.set_condition("Progressing", "Unknown", "DeploymentPaused", message);
        } else if !self.want.paused && was_paused {
            let message = "Deployment is resumed".to_owned();
            self.set_condition("Progressing", "Unknown", "DeploymentResumed", message);
        }
    }

    /// Replicas and conditions as the sets report them, and what the progress deadline says about it.
    pub(super) fn update_status(&mut self) -> Option<Duration> {
        let before = self.want.row.body.status.clone().unwrap_or_default();
        let all = || self.old.iter().chain(&self.new);
        let some = |number: i64| (number != 0).then(|| pods(number));
        let available: i64 = all().map(Set::available).sum();
        let replicas: i64 = all().map(Set::actual).sum();
        let ready: i64 = all().map(Set::ready).sum();
        let terminating: i64 = all().map(Set::terminating).sum();
        let sizes: i64 = all().map(|set| size_of(&set.row)).sum();
        let updated = self.new.as_ref().map_or(0, Set::actual);
        self.status.observed_generation = Some(self.want.row.meta.generation);
        self.status.replicas = some(replicas);
        self.status.updated_replicas = some(updated);
        self.status.ready_replicas = some(ready);
        self.status.available_replicas = some(available);
        self.status.unavailable_replicas = some((sizes - available).max(0));
        self.status.terminating_replicas = some(terminating);
        if available >= self.want.replicas - self.want.unavailable {
            let message = "Deployment has minimum availability.".to_owned();
            self.set_condition("Available", "True", "MinimumReplicasAvailable", message);
        } else {
            let message = "Deployment does not have minimum availability.".to_owned();
            self.set_condition("Available", "False", "MinimumReplicasUnavailable", message);
        }
        self.note_failure();
        self.note_progress(&before)
    }

    /// Carries a set's refusal to create pods up to the Deployment.
    fn note_failure(&mut self) {
        let failure = self
            .new
            .iter()
            .chain(&self.old)
            .filter_map(|set| set.row.body.status.as_ref())
            .flat_map(|status| status.conditions.iter().flatten())
            .find(|c| is_replica_failure(c) && c.status.as_deref() == Some("True"));
        match failure {
            Some(failure) => {
                let reason = failure.reason.clone().unwrap_or_default();
                let message = failure.message.clone().unwrap_or_default();
                self.set_condition("ReplicaFailure", "True", &reason, message);
            }
            None => self.remove_condition("ReplicaFailure"),
        }
    }

    fn note_progress(&mut self, before: &DeploymentStatus) -> Option<Duration> {
        let Some(deadline) = self.want.deadline_seconds else {
            self.remove_condition("Progressing");
            return None;
        };
        if self.want.row.meta.is_deleting() || self.want.paused {
            return None;
        }
        let subject = match &self.new {
            Some(set) => format!("ReplicaSet \"{}\"", set.row.key.name),
            None => format!("Deployment \"{}\"", self.want.row.key.name),
        };
        let reason = self
            .condition("Progressing")
            .and_then(|c| c.reason.clone())
            .unwrap_or_default();
        let number = count;
        let now = &self.status;
        let complete = number(now.updated_replicas) == self.want.replicas
            && number(now.replicas) == self.want.replicas
            && number(now.available_replicas) == self.want.replicas;
        if complete {
            // Finished once: pods that come and go later are not a rollout.
            if reason != "NewReplicaSetAvailable" || self.progressing_message_differs(&subject) {
                let message = format!("{subject} has successfully progressed.");
                self.replace_condition("Progressing", "True", "NewReplicaSetAvailable", message);
            }
            return None;
        }
        let finished = reason == "NewReplicaSetAvailable"
            && number(now.replicas) == number(now.updated_replicas);
        if finished {
            return None;
        }
        let old_now = number(now.replicas) - number(now.updated_replicas);
        let old_before = number(before.replicas) - number(before.updated_replicas);
        let progressed = number(now.updated_replicas) > number(before.updated_replicas)
            || old_now < old_before
            || number(now.ready_replicas) > number(before.ready_replicas)
            || number(now.available_replicas) > number(before.available_replicas);
        if progressed {
            let message = format!("{subject} is progressing.");
            self.replace_condition("Progressing", "True", "ReplicaSetUpdated", message);
        }
        let condition = self.condition("Progressing")?;
        let reason = condition.reason.as_deref();
        if let Some("ProgressDeadlineExceeded" | "NewReplicaSetAvailable") = reason {
            return None;
        }
        let since = condition.last_update_time.as_ref()?.0;
        let due = plus_seconds(since, deadline);
        if due < self.now {
            let message = format!("{subject} has timed out progressing.");
            self.set_condition("Progressing", "False", "ProgressDeadlineExceeded", message);
            return None;
        }
        Some(until(due, self.now) + Duration::from_secs(1))
    }

    /// The condition still names another set than the one that is complete now.
    fn progressing_message_differs(&self, subject: &str) -> bool {
        let message = self
            .condition("Progressing")
            .and_then(|c| c.message.as_deref());
        message.is_some_and(|message| !message.starts_with(subject))
    }
}
