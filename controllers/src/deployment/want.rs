//! What a Deployment asks for, resolved into numbers of pods.

use serde_json::Value;
use weft_api::view::{DeploymentSpec, IntOrString, PodTemplateSpec};

use crate::amount::{count, pods_of};
use crate::indexer::Cached;
use crate::lens::Deployment;

/// `progressDeadlineSeconds` of Kubernetes' defaulting; this large means "no deadline".
const NO_DEADLINE: i32 = i32::MAX;

/// The Deployment's wishes, resolved.
pub struct Want<'a> {
    pub row: &'a Cached<Deployment>,
    pub spec: &'a DeploymentSpec,
    pub replicas: i64,
    pub rolling: bool,
    /// Pods allowed above `replicas`; 0 for Recreate.
    pub surge: i64,
    /// Pods allowed to be missing; never above `replicas`.
    pub unavailable: i64,
    pub paused: bool,
    /// `None`: no deadline.
    pub deadline_seconds: Option<i64>,
    pub template: &'a PodTemplateSpec,
    /// The template as it was written, for copying without loss.
    pub raw_template: &'a Value,
    /// The selector as it was written.
    pub raw_selector: &'a Value,
}

impl<'a> Want<'a> {
    pub fn of(row: &'a Cached<Deployment>) -> Option<Self> {
        let spec = &row.body.spec;
        let raw = &row.object.as_ref()?.as_value()["spec"];
        let replicas = count(Some(spec.replicas.unwrap_or(1)));
        let strategy = spec.strategy.as_ref();
        let rolling = strategy.and_then(|s| s.type_.as_deref()) != Some("Recreate");
        let (surge, unavailable) = if rolling {
            let rolling = strategy.and_then(|s| s.rolling_update.as_ref());
            resolve_fences(
                rolling.and_then(|r| r.max_surge.as_ref()),
                rolling.and_then(|r| r.max_unavailable.as_ref()),
                replicas,
            )
        } else {
            (0, 0)
        };
        let deadline = spec.progress_deadline_seconds.unwrap_or(NO_DEADLINE);
        Some(Self {
            row,
            spec,
            replicas,
            rolling,
            surge,
            unavailable: unavailable.min(replicas),
            paused: spec.paused.unwrap_or(false),
            deadline_seconds: (deadline != NO_DEADLINE).then_some(i64::from(deadline)),
            template: &spec.template,
            raw_template: &raw["template"],
            raw_selector: &raw["selector"],
        })
    }

    /// Pods at most while a rollout lasts, as an `i32` can say it.
    pub fn pods_max(&self) -> i64 {
        (self.replicas + self.surge).min(i64::from(i32::MAX))
    }
}

/// `(maxSurge, maxUnavailable)` in pods: percentages of `replicas` round up and down; both zero means one unavailable,
/// since a rollout could never move otherwise.
fn resolve_fences(
    surge: Option<&IntOrString>,
    unavailable: Option<&IntOrString>,
    replicas: i64,
) -> (i64, i64) {
    let default = IntOrString::String("25%".into());
    let surge = pods_of(surge.unwrap_or(&default), replicas, true);
    let unavailable = pods_of(unavailable.unwrap_or(&default), replicas, false);
    if surge == 0 && unavailable == 0 {
        (0, 1)
    } else {
        (surge, unavailable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fences_round_like_kubernetes() {
        let percent = |text: &str| IntOrString::String(text.into());
        for (surge, unavailable, replicas, expected) in [
            (percent("25%"), percent("25%"), 10, (3, 2)),
            (percent("25%"), percent("25%"), 1, (1, 0)),
            (percent("25%"), percent("25%"), 3, (1, 0)),
            (percent("0%"), percent("10%"), 5, (0, 1)),
            (IntOrString::Int(0), IntOrString::Int(0), 5, (0, 1)),
            (IntOrString::Int(2), percent("100%"), 5, (2, 5)),
        ] {
            assert_eq!(
                resolve_fences(Some(&surge), Some(&unavailable), replicas),
                expected,
                "{surge:?} {unavailable:?} of {replicas}"
            );
        }
    }
}
