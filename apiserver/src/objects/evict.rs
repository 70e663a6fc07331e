//! Evicting a pod: deleting it as far as the budgets of its like allow.
//!
//! Budget and pod are judged on one state, and written by one mutation: an eviction that a budget allowed is counted in it, and
//! one that was counted has happened. So there is nothing to give back, and two servers never spend the same disruption.
//!
//! A budget that was not looked at since it changed allows nothing. Left to others: what budgets allow
//! (`weft_controllers::disruption`), stopping the pod (`weft_agent`).

use jiff::Timestamp;
use serde_json::{Value, json};
use weft_api::selector::LabelSelector;
use weft_api::status::{Cause, StatusError};
use weft_api::time::rfc3339;
use weft_kinds::lens::{integer, items, member, text};
use weft_kinds::{POD_DISRUPTION_BUDGET as BUDGET, Subresource};
use weft_store::{Mutation, Precondition, Snapshot, WriteError};

use super::canonical::{canonicalize, shown};
use super::deletion::{check_preconditions, is_finished, marked_for_deletion};
use super::freshness::{unreadable, write_failed};
use super::{ATTEMPTS_MAX, DeleteOptions, Deleted, Objects, modified};
use crate::authz::Authorized;
use crate::request::ObjectRef;
use crate::stored::{self, Stored};
use crate::{admission, node_restriction};

/// Evictions of one budget that its controller has not confirmed; Kubernetes' `MaxDisruptedPodSize`.
const DISRUPTED_MAX: usize = 2000;

/// What came of an eviction.
#[derive(Clone, Debug)]
pub enum Evicted {
    Deleted(Deleted),
    /// A refusal that Kubernetes answers in the body of a 201.
    Refused(StatusError),
}

/// What the budgets say of one eviction.
enum Verdict {
    /// No budget has a say.
    Free,
    /// The one budget does not count this pod; it has to be as it was.
    Uncounted(Stored),
    /// The one budget, and what is left of it.
    Spent(Stored, Value),
    Several,
}

impl Objects {
    /// Deletes a pod on behalf of someone who empties a node, unless a disruption budget stands against it.
    ///
    /// # Errors
    /// As [`Objects::delete`]; 429 with the cause `DisruptionBudget` while a budget does not allow it.
    pub async fn evict(
        &self,
        asked: &Authorized,
        options: &DeleteOptions,
    ) -> Result<Evicted, StatusError> {
        let (pod, resource) = asked.object("create")?;
        if resource.subresource != Some(Subresource::Eviction) {
            return Err(StatusError::method_not_allowed());
        }
        self.confirmed(&[pod.key()], || self.evict_here(asked, pod, options))
            .await
    }

    async fn evict_here(
        &self,
        asked: &Authorized,
        object: ObjectRef<'_>,
        options: &DeleteOptions,
    ) -> Result<Evicted, StatusError> {
        let ObjectRef { kind, name, .. } = object;
        let key = object.key();
        for _ in 0..ATTEMPTS_MAX {
            let snapshot = self.inner.store.snapshot();
            let found = self.find(&snapshot, object)?;
            found.readable().map_err(unreadable)?;
            let old = found.stored_value();
            node_restriction::admit(asked, Some(&old), None)?;
            self.admit_deletion(asked, object, &snapshot, &old, options)
                .await?;
            let now = self.now();
            let verdict = if is_past_budgets(&old) {
                Verdict::Free
            } else {
                self.ask_budgets(&snapshot, object, &old, now)?
            };
            if matches!(verdict, Verdict::Several) {
                let told = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
                return Ok(Evicted::Refused(StatusError::without_reason(500, told)));
            }
            check_preconditions(kind, name, options, &old, found.revision())?;

            let next = disrupted(&old, now);
            let next = marked_for_deletion(kind, &next, options, now);
            let next = canonicalize(kind, &next)?;
            let gone = is_finished(kind, &next);
            let answer = |value: Value, revision| {
                let object = shown(kind, value, Some(revision))?;
                Ok(Evicted::Deleted(if gone {
                    Deleted::Gone(object)
                } else {
                    Deleted::Marked(object)
                }))
            };
            if options.dry_run {
                return answer(next, found.revision());
            }
            let precondition = Precondition::Revision(found.revision());
            let mut mutations = Vec::new();
            if gone {
                mutations = admission::exchange_claims(kind, Some(&old), None);
                mutations.push(Mutation::delete(key.clone(), precondition));
            } else {
                let value = self.encode(kind, &key, &next).await?;
                mutations.push(Mutation::put(key.clone(), precondition, value));
            }
            match &verdict {
                Verdict::Free | Verdict::Several => {}
                Verdict::Uncounted(budget) => {
                    let at = Precondition::Revision(budget.revision());
                    mutations.push(Mutation::check(budget.key().clone(), at));
                }
                Verdict::Spent(budget, left) => {
                    let at = Precondition::Revision(budget.revision());
                    let value = self.encode(&BUDGET, budget.key(), left).await?;
                    mutations.push(Mutation::put(budget.key().clone(), at, value));
                }
            }
            match self.write(asked.caller(), mutations).await {
                Ok(revision) => return answer(if gone { old } else { next }, revision),
                Err(WriteError::Conflict { .. }) => self.catch_up().await?,
                Err(error) => return Err(write_failed(kind, name, error)),
            }
        }
        Err(modified(kind, name))
    }

    /// What the budgets of the pod's namespace say in this state.
    fn ask_budgets(
        &self,
        snapshot: &Snapshot,
        pod: ObjectRef<'_>,
        value: &Value,
        now: Timestamp,
    ) -> Result<Verdict, StatusError> {
        let prefix = stored::prefix(&BUDGET, pod.namespace);
        let budgets = snapshot.range(&prefix, None).map(|entry| {
            let budget = Stored::new(&self.inner.vault, &BUDGET, entry);
            let value = budget.stored_value();
            (budget, value)
        });
        let labels = member_texts(value);
        let mut matching = budgets.filter(|(_, budget)| {
            let selector = LabelSelector::from_object(&budget["spec"]["selector"]);
            selector.is_ok_and(|selector| selector.matches(&labels))
        });
        let Some((budget, said)) = matching.next() else {
            return Ok(Verdict::Free);
        };
        if matching.next().is_some() {
            return Ok(Verdict::Several);
        }
        budget.readable().map_err(unreadable)?;
        if !is_ready(value) && spares_unhealthy(&said) {
            return Ok(Verdict::Uncounted(budget));
        }
        let left = spent(&said, pod.name, now)?;
        let left = canonicalize(&BUDGET, &left)?;
        Ok(Verdict::Spent(budget, left))
    }
}

fn member_texts(value: &Value) -> std::collections::BTreeMap<String, String> {
    let labels = value["metadata"]["labels"]
        .as_object()
        .into_iter()
        .flatten();
    let texts = labels.filter_map(|(key, text)| Some((key.clone(), text.as_str()?.to_owned())));
    texts.collect()
}

/// It disturbs nobody any more, or does not yet.
fn is_past_budgets(pod: &Value) -> bool {
    let phase = text(pod, "/status/phase");
    matches!(phase, "Pending" | "Succeeded" | "Failed")
        || !text(pod, "/metadata/deletionTimestamp").is_empty()
}

fn is_ready(pod: &Value) -> bool {
    let mut conditions = items(pod, "/status/conditions").iter();
    conditions.any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

/// Whether a pod that is not ready may go without being counted: always, where the budget says so, and else while enough others are well.
fn spares_unhealthy(budget: &Value) -> bool {
    if text(budget, "/spec/unhealthyPodEvictionPolicy") == "AlwaysAllow" {
        return true;
    }
    let desired = integer(budget, "/status/desiredHealthy").unwrap_or(0);
    desired > 0 && integer(budget, "/status/currentHealthy").unwrap_or(0) >= desired
}

/// The budget with one disruption less.
///
/// # Errors
/// 429 where it allows none, 403 where its status makes no sense.
fn spent(budget: &Value, pod: &str, now: Timestamp) -> Result<Value, StatusError> {
    let name = text(budget, "/metadata/name");
    let status = |field: &str| integer(budget, &format!("/status/{field}")).unwrap_or(0);
    let generation = integer(budget, "/metadata/generation").unwrap_or(0);
    let allowed = status("disruptionsAllowed");
    if status("observedGeneration") < generation {
        let why = format!("The disruption budget {name} is still being processed by the server.");
        return Err(too_many(why, Some(10)));
    }
    if allowed < 0 {
        let why = "pdb disruptions allowed is negative";
        return Err(senseless(name, why, why));
    }
    let disrupted = budget["status"]["disruptedPods"].as_object();
    if disrupted.is_some_and(|pods| pods.len() > DISRUPTED_MAX) {
        let why = "DisruptedPods map too big - too many evictions not confirmed by PDB controller";
        let told = "too many pending evictions not confirmed by PDB controller";
        return Err(senseless(name, why, told));
    }
    if allowed == 0 {
        return Err(too_many(why_none(budget, name), None));
    }
    let mut next = budget.clone();
    let observed = status("observedGeneration");
    let status = member(&mut next, "status");
    status["disruptionsAllowed"] = (allowed - 1).into();
    status["disruptedPods"][pod] = rfc3339(now).into();
    if allowed == 1 {
        let was = items(status, "/conditions");
        let (mut conditions, kept): (Vec<Value>, Vec<Value>) = was
            .iter()
            .cloned()
            .partition(|condition| condition["type"] != ALLOWED);
        let kept = kept.iter().find(|condition| condition["status"] == "False");
        let since = kept.map_or_else(
            || rfc3339(now).into(),
            |old| old["lastTransitionTime"].clone(),
        );
        conditions.push(json!({
            "type": ALLOWED, "status": "False", "reason": "InsufficientPods", "message": "",
            "observedGeneration": observed, "lastTransitionTime": since,
        }));
        status["conditions"] = conditions.into();
    }
    Ok(next)
}

const ALLOWED: &str = "DisruptionAllowed";

/// Why a budget that was looked at allows nothing.
fn why_none(budget: &Value, name: &str) -> String {
    let status = |field: &str| integer(budget, &format!("/status/{field}")).unwrap_or(0);
    let (current, desired) = (status("currentHealthy"), status("desiredHealthy"));
    let mut conditions = items(budget, "/status/conditions").iter();
    let told = conditions.find(|condition| {
        condition["type"] == ALLOWED
            && condition["status"] == "False"
            && !text(condition, "/message").is_empty()
    });
    let told = told.map(|told| (text(told, "/reason"), text(told, "/message")));
    let prefix = format!("The disruption budget {name} does not allow evicting pods currently");
    match told {
        Some(("SyncFailed", message)) => format!("{prefix} because it failed sync: {message}"),
        _ if current <= desired => format!(
            "The disruption budget {name} needs {desired} healthy pods and has {current} currently"
        ),
        Some((reason, message)) => format!("{prefix} ({reason}): {message}"),
        None => prefix,
    }
}

fn because(message: String) -> Cause {
    Cause {
        reason: "DisruptionBudget".to_owned(),
        message,
        field: String::new(),
    }
}

fn too_many(why: String, retry_after_seconds: Option<u32>) -> StatusError {
    let message = "Cannot evict pod as it would violate the pod's disruption budget.";
    let mut error = StatusError::too_many_requests(message, 0);
    let details = error.details.get_or_insert_default();
    details.retry_after_seconds = retry_after_seconds;
    details.causes.push(because(why));
    error
}

fn senseless(name: &str, why: &str, told: &str) -> StatusError {
    let mut error = StatusError::forbidden("poddisruptionbudget", "policy", name, why);
    let details = error.details.get_or_insert_default();
    details.causes.push(because(format!(
        "The disruption budget {name} does not allow evicting pods currently: {told}"
    )));
    error
}

/// The pod with the condition that says why it ends.
fn disrupted(pod: &Value, now: Timestamp) -> Value {
    const TARGET: &str = "DisruptionTarget";
    let mut next = pod.clone();
    let status = member(&mut next, "status");
    let was = items(status, "/conditions").to_vec();
    let kept = was
        .iter()
        .find(|condition| condition["type"] == TARGET && condition["status"] == "True");
    let since = kept.map_or_else(
        || rfc3339(now).into(),
        |old| old["lastTransitionTime"].clone(),
    );
    let told = json!({
        "type": TARGET, "status": "True", "reason": "EvictionByEvictionAPI",
        "message": "Eviction API: evicting", "lastProbeTime": null, "lastTransitionTime": since,
    });
    let mut conditions = was;
    match conditions
        .iter_mut()
        .find(|condition| condition["type"] == TARGET)
    {
        Some(condition) => *condition = told,
        None => conditions.push(told),
    }
    status["conditions"] = conditions.into();
    next
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(status: Value) -> Value {
        json!({"metadata": {"name": "b", "generation": 3}, "spec": {}, "status": status})
    }

    #[test]
    fn each_refusal_has_its_words() {
        let condition = |reason: &str, message: &str| json!([{"type": ALLOWED, "status": "False", "reason": reason, "message": message}]);
        let many: serde_json::Map<String, Value> = (0..2001)
            .map(|n| (n.to_string(), json!("2026-01-01T00:00:00Z")))
            .collect();
        for (status, code, retry, cause) in [
            (
                json!({"observedGeneration": 2, "disruptionsAllowed": 1}),
                429,
                Some(10),
                "The disruption budget b is still being processed by the server.",
            ),
            (
                json!({"observedGeneration": 3, "disruptionsAllowed": -1}),
                403,
                None,
                "The disruption budget b does not allow evicting pods currently: pdb disruptions allowed is negative",
            ),
            (
                json!({"observedGeneration": 3, "disruptionsAllowed": 1, "disruptedPods": many}),
                403,
                None,
                "The disruption budget b does not allow evicting pods currently: too many pending evictions not confirmed by PDB controller",
            ),
            (
                json!({"observedGeneration": 3, "currentHealthy": 2, "desiredHealthy": 3}),
                429,
                None,
                "The disruption budget b needs 3 healthy pods and has 2 currently",
            ),
            (
                json!({"observedGeneration": 3, "conditions": condition("SyncFailed", "found no controllers")}),
                429,
                None,
                "The disruption budget b does not allow evicting pods currently because it failed sync: found no controllers",
            ),
            (
                json!({"observedGeneration": 3, "currentHealthy": 4, "desiredHealthy": 3, "conditions": condition("Odd", "why")}),
                429,
                None,
                "The disruption budget b does not allow evicting pods currently (Odd): why",
            ),
            (
                json!({"observedGeneration": 3, "currentHealthy": 4, "desiredHealthy": 3}),
                429,
                None,
                "The disruption budget b does not allow evicting pods currently",
            ),
        ] {
            let error = spent(&budget(status), "p", Timestamp::UNIX_EPOCH).unwrap_err();
            let details = error.details.clone().unwrap();
            assert_eq!(
                (error.code, details.retry_after_seconds),
                (code, retry),
                "{error}"
            );
            assert_eq!(details.causes, [because(cause.to_owned())]);
        }
    }

    #[test]
    fn the_last_disruption_is_told_in_the_condition() {
        let two = budget(
            json!({"observedGeneration": 3, "disruptionsAllowed": 2, "currentHealthy": 5,
            "desiredHealthy": 3, "conditions": [{"type": ALLOWED, "status": "True", "reason": "SufficientPods",
            "message": "", "lastTransitionTime": "1969-12-31T00:00:00Z"}]}),
        );
        let one = spent(&two, "p", Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(one["status"]["conditions"][0]["status"], "True");
        let none = spent(&one, "q", Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(none["status"]["disruptionsAllowed"], 0);
        let now = "1970-01-01T00:00:00Z";
        assert_eq!(none["status"]["disruptedPods"], json!({"p": now, "q": now}));
        let condition = &none["status"]["conditions"][0];
        assert_eq!(condition["reason"], "InsufficientPods");
        assert_eq!(condition["lastTransitionTime"], now);
    }
}
