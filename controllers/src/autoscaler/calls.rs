//! Sizes by what the mesh counts of calls: of the target's pods, or of a Service.
//!
//! The arithmetic is Kubernetes' for metrics of its custom API, which has the same numbers under the same names
//! ([`weft_kinds::autoscaling::calls`]): pods by the average of those that are ready, as `ratio` has it; a Service as a whole, or by
//! its share for each replica. A Service has its value without any pod, so that a target may have none.

use k8s_openapi::api::autoscaling::v2::{
    MetricIdentifier, MetricStatus, MetricTarget, MetricValueStatus, ObjectMetricSource,
    ObjectMetricStatus, PodsMetricSource, PodsMetricStatus,
};
use k8s_openapi::apimachinery::pkg::api::resource;
use weft_api::quantity::Quantity;
use weft_kinds::SERVICE;
use weft_kinds::autoscaling::calls::CallMetric;

use super::metric::{Answer, Facts, Fault, milli, shown_selector};
use super::ratio::{Sample, Samples, Wanted, propose};
use crate::metadata::Key;
use crate::pod::Phase;

const FETCH: &str = "unable to fetch metrics from custom metrics API";
const NONE: &str = "no metrics returned from custom metrics API";
const NO_PODS: &str = "no pods returned by selector while calculating replica count";

/// The size at which each pod has as much as it is to have.
pub(super) fn of_pods(source: &PodsMetricSource, facts: &Facts<'_>) -> Result<Answer, Fault> {
    let name = &source.metric.name;
    let found = by_pods(source, facts).map_err(|why| Fault {
        reason: "FailedGetPodsMetric",
        told: format!("failed to get pods metric value: {why}"),
        message: why,
    })?;
    let (replicas, average) = found;
    Ok(Answer {
        replicas,
        name: format!("pods metric {name}"),
        status: MetricStatus {
            type_: "Pods".to_owned(),
            pods: Some(PodsMetricStatus {
                metric: source.metric.clone(),
                current: MetricValueStatus {
                    average_value: Some(quantity(average)),
                    ..MetricValueStatus::default()
                },
            }),
            ..MetricStatus::default()
        },
    })
}

fn by_pods(source: &PodsMetricSource, facts: &Facts<'_>) -> Result<(i64, i64), String> {
    let name = &source.metric.name;
    let metric = known(&source.metric, "pods *")
        .map_err(|why| format!("unable to get metric {name}: {FETCH}: {why}"))?;
    let mut samples = Samples::new();
    for pod in &facts.pods {
        if let Some(rate) = facts.calls.and_then(|calls| calls.pods.get(&pod.key)) {
            let sample = Sample {
                amount: rate.figures.of(metric),
                at: rate.at,
                window: rate.window,
            };
            samples.insert(pod.key.name.clone(), sample);
        }
    }
    if samples.is_empty() {
        return Err(format!("unable to get metric {name}: {NONE}"));
    }
    let wanted = source.target.average_value.as_ref().and_then(milli);
    let wanted = Wanted::Amount(wanted.unwrap_or_default());
    // No resource: when a pod began does not matter.
    let (pods, tolerances) = (&facts.pods, facts.tolerances);
    let current = facts.replicas;
    let found = propose(current, &samples, pods, "", wanted, tolerances, facts.now)?;
    Ok((found.replicas, found.amount))
}

/// The size at which a Service has as much as it is to have, as a whole or for each replica.
pub(super) fn of_object(source: &ObjectMetricSource, facts: &Facts<'_>) -> Result<Answer, Fault> {
    let (name, object) = (&source.metric.name, &source.described_object);
    let fault = |why: &str, told: &str| Fault {
        reason: "FailedGetObjectMetric",
        told: format!("failed to get object metric value: {told}"),
        message: why.to_owned(),
    };
    let wanted = wanted(&source.target);
    let wanted = wanted.map_err(|why| fault(why, why))?;
    let found = of_service(source, facts).and_then(|usage| match wanted {
        Goal::Whole(wanted) => Ok((by_whole(usage, wanted, facts)?, usage)),
        Goal::Share(wanted) => Ok(by_share(usage, wanted, facts)),
    });
    let (replicas, shown) = found.map_err(|why| match wanted {
        Goal::Whole(_) => fault(&why, &why),
        Goal::Share(_) => fault(&why, &format!("failed to get {name} object metric: {why}")),
    })?;
    let (value, average_value, told) = match wanted {
        Goal::Whole(_) => (
            Some(quantity(shown)),
            None,
            format!("{} metric {name}", object.kind),
        ),
        // As Kubernetes calls it.
        Goal::Share(_) => {
            let selector = shown_selector(source.metric.selector.as_ref());
            let told = format!("external metric {name}({selector})");
            (None, Some(quantity(shown)), told)
        }
    };
    Ok(Answer {
        replicas,
        name: told,
        status: MetricStatus {
            type_: "Object".to_owned(),
            object: Some(ObjectMetricStatus {
                described_object: object.clone(),
                metric: source.metric.clone(),
                current: MetricValueStatus {
                    value,
                    average_value,
                    average_utilization: None,
                },
            }),
            ..MetricStatus::default()
        },
    })
}

/// What is to be: thousandths.
#[derive(Clone, Copy)]
enum Goal {
    Whole(i64),
    Share(i64),
}

fn wanted(target: &MetricTarget) -> Result<Goal, &'static str> {
    let value = target.value.as_ref().and_then(milli);
    let average = target.average_value.as_ref().and_then(milli);
    match (&*target.type_, value, average) {
        ("Value", Some(value), _) => Ok(Goal::Whole(value)),
        ("AverageValue", _, Some(average)) => Ok(Goal::Share(average)),
        _ => Err(
            "invalid object metric source: neither a value target nor an average value target was set",
        ),
    }
}

fn of_service(source: &ObjectMetricSource, facts: &Facts<'_>) -> Result<i64, String> {
    let (name, object) = (&source.metric.name, &source.described_object);
    let failed = |why: String| {
        let namespace = facts.namespace;
        let (kind, on) = (&object.kind, &object.name);
        format!("unable to get metric {name} on {kind} {namespace}/{on}: {FETCH}: {why}")
    };
    let of = format!("{} {}", object.kind, object.name);
    let metric = known(&source.metric, &of).map_err(failed)?;
    let is_core = matches!(object.api_version.as_deref(), None | Some("" | "v1"));
    if object.kind != "Service" || !is_core {
        let why = format!(
            "the server could not find the metric {name} for {of}: there are metrics of objects for Services of apiVersion v1"
        );
        return Err(failed(why));
    }
    let key = Key::new(facts.namespace, &object.name);
    if facts.view.object_of(&SERVICE, &key).is_none() {
        let on = &object.name;
        return Err(failed(format!(
            "the server could not find the metric {name} for services {on}"
        )));
    }
    let calls = facts.calls;
    let rate = calls.and_then(|calls| calls.services.get(&key).or(calls.of_others.as_ref()));
    let rate = rate.ok_or_else(|| failed(NONE.to_owned()))?;
    Ok(rate.figures.of(metric))
}

fn by_whole(usage: i64, wanted: i64, facts: &Facts<'_>) -> Result<i64, String> {
    let ratio = usage as f64 / wanted as f64;
    if facts.replicas == 0 {
        return Ok(whole(ratio));
    }
    if facts.tolerances.allow(ratio) {
        return Ok(facts.replicas);
    }
    if facts.pods.is_empty() {
        return Err(format!("unable to calculate ready pods: {NO_PODS}"));
    }
    let pods = facts.pods.iter();
    let ready = pods.filter(|pod| pod.body.phase == Phase::Running && pod.body.is_ready);
    Ok(whole(ratio * ready.count() as f64))
}

/// The size, and what there is for each replica now.
fn by_share(usage: i64, wanted: i64, facts: &Facts<'_>) -> (i64, i64) {
    let there = facts.observed;
    let ratio = usage as f64 / (wanted as f64 * there as f64);
    let replicas = match facts.tolerances.allow(ratio) {
        true => there,
        false => whole(usage as f64 / wanted as f64),
    };
    let share = match there {
        0 => usage,
        there => whole(usage as f64 / there as f64),
    };
    (replicas, share)
}

/// Rounded up, and no more than a size can be.
fn whole(size: f64) -> i64 {
    size.ceil().min(f64::from(i32::MAX)) as i64
}

/// The metric that is meant. Figures of the mesh have no labels to select by.
fn known(metric: &MetricIdentifier, of: &str) -> Result<CallMetric, String> {
    let selects = metric.selector.as_ref().is_some_and(|selector| {
        let labels = selector.match_labels.as_ref();
        let expressions = selector.match_expressions.as_ref();
        labels.is_some_and(|labels| !labels.is_empty())
            || expressions.is_some_and(|expressions| !expressions.is_empty())
    });
    if selects {
        return Err(NONE.to_owned());
    }
    CallMetric::parse(&metric.name).ok_or_else(|| {
        let all = CallMetric::ALL.map(CallMetric::name).join(", ");
        let name = &metric.name;
        format!("the server could not find the metric {name} for {of}: there are {all}")
    })
}

fn quantity(milli: i64) -> resource::Quantity {
    resource::Quantity(Quantity::from_milli(i128::from(milli)).to_string())
}

#[cfg(test)]
mod tests;
