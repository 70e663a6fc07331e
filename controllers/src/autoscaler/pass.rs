//! One look of an autoscaler at its target.

use std::sync::Arc;

use k8s_openapi::api::autoscaling::v2::{
    HorizontalPodAutoscalerCondition, HorizontalPodAutoscalerStatus, MetricStatus,
};
use serde_json::json;
use weft_api::quantity::Quantity;
use weft_api::selector::LabelSelector;
use weft_kinds::Subresource;
use weft_kinds::patch::PatchKind;

use super::Autoscaler;
use super::limits::{Sizes, limit};
use super::metric::{Facts, read};
use super::past::Past;
use super::ratio::Tolerances;
use super::target::{Target, find};
use crate::indexer::Cached;
use crate::pod::Pod;
use crate::view::View;
use crate::write::{Note, Write};
use crate::{Context, Outcome, stamp};

/// Kubernetes' `--horizontal-pod-autoscaler-tolerance`.
const TOLERANCE: f64 = 0.1;

const ABLE: &str = "AbleToScale";
const ACTIVE: &str = "ScalingActive";
const LIMITED: &str = "ScalingLimited";
const SCALED_TO_ZERO: &str = "ScaledToZero";

/// The look of one autoscaler.
pub struct Pass<'a> {
    row: &'a Cached<Autoscaler>,
    view: &'a View,
    cx: &'a Context<'a>,
    past: Past,
    status: HorizontalPodAutoscalerStatus,
    notes: Vec<Note>,
}

/// A size, and why.
struct Decision {
    replicas: i64,
    reason: String,
    metrics: Option<Vec<MetricStatus>>,
}

/// What the metrics came to.
enum Measured {
    /// Nothing was read yet at all.
    NotYet,
    /// Nothing can be decided.
    Failed(Option<Vec<MetricStatus>>),
    /// A size, the metric that it is of, and what is told of all.
    Size(i64, String, Vec<MetricStatus>),
}

impl<'a> Pass<'a> {
    pub fn new(
        row: &'a Cached<Autoscaler>,
        view: &'a View,
        cx: &'a Context<'a>,
        past: Past,
    ) -> Self {
        Self {
            row,
            view,
            cx,
            past,
            status: row.body.status.clone(),
            notes: Vec::new(),
        }
    }

    /// `None`: usage is to be read first.
    pub fn run(mut self) -> Option<Outcome> {
        self.past.look(self.cx.now, self.row.meta.generation);
        let target = match find(self.view, self.cx.kinds, self.row) {
            Ok(target) => target,
            Err(why) => {
                self.warn("FailedGetScale", why.clone());
                let message = format!(
                    "the HPA controller was unable to get the target's current scale: {why}"
                );
                self.set(ABLE, false, "FailedGetScale", &message);
                return Some(self.finish(None));
            }
        };
        let message = "the HPA controller was able to get the target's current scale";
        self.set(ABLE, true, "SucceededGetScale", message);
        let current = target.scale.replicas;
        self.past.begin(self.cx.now, current);
        let spec = &self.row.body.spec;
        let (min, max) = (
            i64::from(spec.min_replicas.unwrap_or(1)),
            i64::from(spec.max_replicas),
        );
        let was_emptied = self.holds(SCALED_TO_ZERO);
        let is_woken = was_emptied && current > 0;
        if is_woken {
            self.wake(current);
        }
        let decision = if current == 0 && (!was_emptied || (min == 0 && !self.has_outer_metrics()))
        {
            let message = "scaling is disabled since the replica count of the target is zero";
            self.set(ACTIVE, false, "ScalingDisabled", message);
            Decision {
                replicas: 0,
                reason: String::new(),
                metrics: None,
            }
        } else if current > max {
            self.decide(max, "Current number of replicas above Spec.MaxReplicas")
        } else if current < min && current != 0 {
            self.decide(min, "Current number of replicas below Spec.MinReplicas")
        } else {
            match self.measure(&target) {
                Measured::NotYet => return None,
                Measured::Failed(metrics) => {
                    self.tell_size(current, self.row.body.status.desired_replicas, metrics);
                    return Some(self.finish(None));
                }
                Measured::Size(wanted, metric, metrics) => {
                    let wanted = if is_woken {
                        wanted.max(current)
                    } else {
                        wanted
                    };
                    let reason = match wanted {
                        _ if wanted > current => format!("{metric} above target"),
                        _ if wanted < current => "All metrics below target".to_owned(),
                        _ => String::new(),
                    };
                    let sizes = Sizes {
                        min,
                        max,
                        current,
                        desired: wanted,
                    };
                    let mut decision = self.within_limits(sizes, reason);
                    if current == 0 && min != 0 && was_emptied && decision.replicas < min {
                        let reason = "Current number of replicas below Spec.MinReplicas";
                        if decision.reason.is_empty() {
                            reason.clone_into(&mut decision.reason);
                        }
                        decision.replicas = min;
                    }
                    decision.metrics = Some(metrics);
                    decision
                }
            }
        };
        let rescale = (decision.replicas != current).then(|| self.rescale(&target, &decision, min));
        self.tell_size(current, decision.replicas, decision.metrics);
        Some(self.finish(rescale))
    }

    /// Somebody who called it brought the target back. That is a size that was wanted, though no metric may tell of it yet.
    fn wake(&mut self, current: i64) {
        self.past.recommend(self.cx.now, current);
        if self.row.body.spec.behavior.is_some() {
            self.past.rescale(self.cx.now, 0, current);
        }
        self.status.last_scale_time = Some(stamp(self.cx.now));
        let message = "the HPA controller did not scale the workload to zero";
        self.set(SCALED_TO_ZERO, false, "NotScaledToZero", message);
    }

    fn decide(&self, replicas: i64, reason: &str) -> Decision {
        Decision {
            replicas,
            reason: reason.to_owned(),
            metrics: None,
        }
    }

    fn within_limits(&mut self, sizes: Sizes, reason: String) -> Decision {
        let behavior = self.row.body.spec.behavior.as_ref();
        let found = limit(behavior, sizes, &mut self.past, self.cx.now);
        self.set(ABLE, true, found.able.0, found.able.1);
        let (holds, (why, message)) = found.limited;
        self.set(LIMITED, holds, why, message);
        Decision {
            replicas: found.replicas,
            reason,
            metrics: None,
        }
    }

    /// Makes a size of the metrics: the largest. One that fails keeps the target from being shrunk.
    fn measure(&mut self, target: &Target<'_>) -> Measured {
        let Some(pods) = self.selected(target) else {
            return Measured::Failed(None);
        };
        let Some(usage) = self.cx.usage else {
            return Measured::NotYet;
        };
        if self.cx.calls.is_none() && self.row.body.goes_by_calls() {
            return Measured::NotYet;
        }
        let facts = Facts {
            namespace: &self.row.key.namespace,
            replicas: target.scale.replicas,
            observed: target.scale.observed,
            pods,
            usage,
            calls: self.cx.calls,
            view: self.view,
            tolerances: self.tolerances(),
            now: self.cx.now,
        };
        let metrics = self.row.body.spec.metrics.as_deref().unwrap_or_default();
        let mut largest: Option<(i64, String)> = None;
        let mut statuses = Vec::with_capacity(metrics.len());
        let mut faults = Vec::new();
        for metric in metrics {
            match read(metric, &facts) {
                Ok(answer) => {
                    if largest
                        .as_ref()
                        .is_none_or(|(size, _)| *size == 0 || answer.replicas > *size)
                    {
                        largest = Some((answer.replicas, answer.name));
                    }
                    statuses.push(answer.status);
                }
                Err(fault) => {
                    self.warn(fault.reason, fault.message.clone());
                    statuses.push(MetricStatus::default());
                    faults.push(fault);
                }
            }
        }
        let size = largest.as_ref().map_or(0, |(size, _)| *size);
        if let Some(first) = faults.first()
            && (faults.len() >= metrics.len() || size < target.scale.replicas)
        {
            let message = format!(
                "the HPA was unable to compute the replica count: {}",
                first.message
            );
            self.set(ACTIVE, false, first.reason, &message);
            self.warn(
                "FailedComputeMetricsReplicas",
                format!(
                    "invalid metrics ({} invalid out of {}), first error is: {}",
                    faults.len(),
                    metrics.len(),
                    first.told
                ),
            );
            return Measured::Failed(Some(statuses));
        }
        let name = largest.map(|(_, name)| name).unwrap_or_default();
        let message =
            format!("the HPA was able to successfully calculate a replica count from {name}");
        self.set(ACTIVE, true, "ValidMetricFound", &message);
        Measured::Size(size, name, statuses)
    }

    /// The pods of the target, unless somebody else scales some of them.
    fn selected(&mut self, target: &Target<'_>) -> Option<Vec<Arc<Cached<Pod>>>> {
        let text = &target.scale.selector;
        let refuse =
            |pass: &mut Self, event: &'static str, reason: &str, message: String, shown: String| {
                pass.warn(event, shown.clone());
                pass.set(ACTIVE, false, reason, &message);
                pass.warn("FailedComputeMetricsReplicas", shown);
            };
        if text.is_empty() {
            let message = "the HPA target's scale is missing a selector".to_owned();
            refuse(
                self,
                "SelectorRequired",
                "InvalidSelector",
                message,
                "selector is required".to_owned(),
            );
            return None;
        }
        let selector = match LabelSelector::parse(text) {
            Ok(selector) => selector,
            Err(why) => {
                let shown = format!(
                    "couldn't convert selector into a corresponding internal selector object: {why}"
                );
                refuse(
                    self,
                    "InvalidSelector",
                    "InvalidSelector",
                    shown.clone(),
                    shown,
                );
                return None;
            }
        };
        let pods = self.view.list_in::<Pod>(&self.row.key.namespace);
        let pods: Vec<Arc<Cached<Pod>>> = pods
            .filter(|pod| selector.matches(&pod.meta.labels))
            .cloned()
            .collect();
        let rivals = self.rivals(&pods);
        if let [first, second, ..] = rivals.as_slice() {
            let namespace = &self.row.key.namespace;
            let shown = format!(
                "pods by selector {text} are controlled by more than one HPA (e.g. [{{{first} {namespace}}} {{{second} {namespace}}}])"
            );
            refuse(
                self,
                "AmbiguousSelector",
                "AmbiguousSelector",
                shown.clone(),
                shown,
            );
            return None;
        }
        Some(pods)
    }

    /// Names of the autoscalers whose targets select one of these pods: this one, and no other.
    fn rivals(&self, pods: &[Arc<Cached<Pod>>]) -> Vec<Arc<str>> {
        let all = self.view.list_in::<Autoscaler>(&self.row.key.namespace);
        let selects = |row: &Cached<Autoscaler>| {
            let target = find(self.view, self.cx.kinds, row).ok()?;
            let selector = LabelSelector::parse(&target.scale.selector).ok()?;
            let is_empty = target.scale.selector.is_empty();
            let mut pods = pods.iter();
            Some(!is_empty && pods.any(|pod| selector.matches(&pod.meta.labels)))
        };
        all.filter(|row| selects(row) == Some(true))
            .map(|row| Arc::clone(&row.key.name))
            .take(2)
            .collect()
    }

    fn tolerances(&self) -> Tolerances {
        let behavior = self.row.body.spec.behavior.as_ref();
        let of = |rules: Option<&k8s_openapi::api::autoscaling::v2::HPAScalingRules>| {
            let quantity: Option<Quantity> = rules
                .and_then(|rules| rules.tolerance.as_ref())
                .and_then(|tolerance| tolerance.0.parse().ok());
            quantity.map_or(TOLERANCE, Quantity::as_f64)
        };
        Tolerances {
            down: of(behavior.and_then(|behavior| behavior.scale_down.as_ref())),
            up: of(behavior.and_then(|behavior| behavior.scale_up.as_ref())),
        }
    }

    /// Metrics that there can be without any pod.
    fn has_outer_metrics(&self) -> bool {
        let mut metrics = self.row.body.spec.metrics.iter().flatten();
        metrics.any(|metric| matches!(&*metric.type_, "Object" | "External"))
    }

    fn rescale(&mut self, target: &Target<'_>, decision: &Decision, min: i64) -> Write {
        let (current, replicas) = (target.scale.replicas, decision.replicas);
        let told = format!("New size: {replicas}; reason: {}", decision.reason);
        if let Some(why) = self.cx.last_failure {
            let message =
                format!("the HPA controller was unable to update the target scale: {why}");
            self.set(ABLE, false, "FailedUpdateScale", &message);
        } else {
            let message =
                format!("the HPA controller was able to update the target scale to {replicas}");
            self.set(ABLE, true, "SucceededRescale", &message);
            self.status.last_scale_time = Some(stamp(self.cx.now));
            if current > 0 && replicas == 0 && min == 0 && self.has_outer_metrics() {
                let message = "the HPA controller scaled the workload to zero";
                self.set(SCALED_TO_ZERO, true, "ScaledToZero", message);
            } else {
                let message = "the HPA controller did not scale the workload to zero";
                self.set(SCALED_TO_ZERO, false, "NotScaledToZero", message);
            }
        }
        if self.row.body.spec.behavior.is_some() {
            self.past.rescale(self.cx.now, current, replicas);
        }
        let note = Note::normal(self.row.reference(), "SuccessfulRescale", told.clone());
        Write::Patch {
            kind: Arc::clone(&target.kind),
            key: self
                .row
                .key
                .sibling(&self.row.body.spec.scale_target_ref.name),
            subresource: Some(Subresource::Scale),
            patch_kind: PatchKind::Merge,
            patch: json!({"spec": {"replicas": replicas}}),
            uid: Some(Arc::clone(&target.uid)),
            resource_version: None,
            note: Some(note.or_refused_saying("FailedRescale", format!("{told}; error"))),
        }
    }

    fn tell_size(
        &mut self,
        current: i64,
        desired: impl Into<i64>,
        metrics: Option<Vec<MetricStatus>>,
    ) {
        let clamp = |number: i64| i32::try_from(number).unwrap_or(i32::MAX);
        self.status.current_replicas = (current != 0).then(|| clamp(current));
        self.status.desired_replicas = clamp(desired.into());
        self.status.current_metrics = metrics;
        self.status.observed_generation = Some(self.row.meta.generation);
    }

    fn warn(&mut self, reason: &'static str, message: String) {
        let note = Note::warning(self.row.reference(), reason, message);
        self.notes.push(note);
    }

    fn holds(&self, kind: &str) -> bool {
        let mut all = self.status.conditions.iter().flatten();
        all.any(|one| one.type_ == kind && one.status == "True")
    }

    fn set(&mut self, kind: &str, holds: bool, reason: &str, message: &str) {
        let now = stamp(self.cx.now);
        let status = if holds { "True" } else { "False" };
        let all = self.status.conditions.get_or_insert_default();
        let at = all.iter().position(|one| one.type_ == kind);
        let at = at.unwrap_or_else(|| {
            all.push(HorizontalPodAutoscalerCondition {
                type_: kind.to_owned(),
                ..HorizontalPodAutoscalerCondition::default()
            });
            all.len() - 1
        });
        if let Some(one) = all.get_mut(at) {
            if one.status != status {
                one.last_transition_time = Some(now);
                status.clone_into(&mut one.status);
            }
            one.reason = Some(reason.to_owned());
            one.message = Some(message.to_owned());
        }
    }

    /// `rescale` comes first, so that the status tells what is done. After a refusal the status comes first, to tell of that.
    fn finish(self, rescale: Option<Write>) -> Outcome {
        let before = &self.row.body.status;
        let told = Write::status(self.row, before, &self.status);
        let notes = self.notes.into_iter().map(Write::Event);
        let mut writes: Vec<Write> = told.into_iter().chain(notes).collect();
        let at = match self.cx.last_failure {
            Some(_) => writes.len(),
            None => 0,
        };
        if let Some(rescale) = rescale {
            writes.insert(at, rescale);
        }
        Outcome {
            writes,
            past: Some(crate::Past::Autoscaler(self.past)),
            ..Outcome::default()
        }
    }
}
