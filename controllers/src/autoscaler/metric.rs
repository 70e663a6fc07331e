//! From a metric of an autoscaler to a size.
//!
//! Usage is read here, what is counted of calls in [`super::calls`]. Metrics of the external API, which no server of this cluster offers, are told
//! to be missing as they are in a cluster without an adapter for them.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v2::{
    ContainerResourceMetricStatus, MetricSpec, MetricStatus, MetricTarget, MetricValueStatus,
    ResourceMetricStatus,
};
use k8s_openapi::apimachinery::pkg::api::resource;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use weft_api::quantity::Quantity;

use super::calls;
use super::ratio::{Proposal, Tolerances, Wanted, propose, samples};
use crate::indexer::Cached;
use crate::pod::Pod;
use crate::usage::{Calls, Usage};
use crate::view::View;

/// What sizes are made from.
pub struct Facts<'a> {
    pub namespace: &'a str,
    /// Wanted of the target.
    pub replicas: i64,
    /// There, as the target's status has it.
    pub observed: i64,
    /// Those that the target selects.
    pub pods: Vec<Arc<Cached<Pod>>>,
    pub usage: &'a Usage,
    pub calls: Option<&'a Calls>,
    pub view: &'a View,
    pub tolerances: Tolerances,
    pub now: Timestamp,
}

/// What a metric asks for.
pub struct Answer {
    pub replicas: i64,
    /// As events and conditions call the metric.
    pub name: String,
    pub status: MetricStatus,
}

/// A metric that says nothing.
#[derive(Debug, PartialEq, Eq)]
pub struct Fault {
    /// Of the event and of the condition.
    pub reason: &'static str,
    pub message: String,
    /// The same as a part of a longer sentence.
    pub told: String,
}

/// Reads a metric.
///
/// # Errors
/// [`Fault`] in Kubernetes' words.
pub fn read(metric: &MetricSpec, facts: &Facts<'_>) -> Result<Answer, Fault> {
    match &*metric.type_ {
        "Resource" if let Some(source) = &metric.resource => {
            let name = &source.name;
            let found = of_usage(name, None, &source.target, facts);
            let (proposal, shown) = found.map_err(|why| Fault {
                reason: "FailedGetResourceMetric",
                told: format!("failed to get {name} resource metric value: {why}"),
                message: why,
            })?;
            let percent = "utilization (percentage of request)";
            Ok(Answer {
                replicas: proposal.replicas,
                name: match proposal.percent {
                    Some(_) => format!("{name} resource {percent}"),
                    None => format!("{name} resource"),
                },
                status: MetricStatus {
                    type_: metric.type_.clone(),
                    resource: Some(ResourceMetricStatus {
                        name: name.clone(),
                        current: shown,
                    }),
                    ..MetricStatus::default()
                },
            })
        }
        "ContainerResource" if let Some(source) = &metric.container_resource => {
            let (name, container) = (&source.name, &source.container);
            let found = of_usage(name, Some(container), &source.target, facts);
            let (proposal, shown) = found.map_err(|why| Fault {
                reason: "FailedGetContainerResourceMetric",
                told: format!("failed to get {container} container metric value: {why}"),
                message: why,
            })?;
            let percent = "utilization (percentage of request)";
            Ok(Answer {
                replicas: proposal.replicas,
                name: match proposal.percent {
                    Some(_) => format!("{name} container resource {percent}"),
                    None => format!("{name} resource"),
                },
                status: MetricStatus {
                    type_: metric.type_.clone(),
                    container_resource: Some(ContainerResourceMetricStatus {
                        name: name.clone(),
                        container: container.clone(),
                        current: shown,
                    }),
                    ..MetricStatus::default()
                },
            })
        }
        "Pods" if let Some(source) = &metric.pods => calls::of_pods(source, facts),
        "Object" if let Some(source) = &metric.object => calls::of_object(source, facts),
        _ => Err(elsewhere(metric, facts.namespace)),
    }
}

/// In thousandths.
pub(super) fn milli(amount: &resource::Quantity) -> Option<i64> {
    let quantity: Quantity = amount.0.parse().ok()?;
    i64::try_from(quantity.milli()).ok()
}

fn of_usage(
    resource: &str,
    container: Option<&str>,
    target: &MetricTarget,
    facts: &Facts<'_>,
) -> Result<(Proposal, MetricValueStatus), String> {
    let wanted = target.average_value.as_ref().and_then(milli);
    let percent = target.average_utilization.map(i64::from);
    let what = match (wanted, percent) {
        (Some(_), _) => "usage",
        (None, Some(_)) => "utilization",
        (None, None) => {
            let why = "invalid resource metric source: neither an average utilization target nor an average value (usage) target was set";
            return Err(why.to_owned());
        }
    };
    let found = proposal(resource, container, wanted, percent.unwrap_or(0), facts);
    let found = found.map_err(|why| format!("failed to get {resource} {what}: {why}"))?;
    let shown = MetricValueStatus {
        average_utilization: found
            .percent
            .and_then(|percent| i32::try_from(percent).ok()),
        average_value: Some(resource::Quantity(shown(resource, found.amount))),
        value: None,
    };
    Ok((found, shown))
}

fn proposal(
    resource: &str,
    container: Option<&str>,
    wanted: Option<i64>,
    percent: i64,
    facts: &Facts<'_>,
) -> Result<Proposal, String> {
    let missing = |why: &str| format!("unable to get metrics for resource {resource}: {why}");
    let pods = &facts.pods;
    if !pods.iter().any(|pod| facts.usage.contains_key(&pod.key)) {
        return Err(missing("no metrics returned from resource metrics API"));
    }
    let samples = samples(facts.usage, pods, resource, container);
    let wanted = match wanted {
        Some(amount) => Wanted::Amount(amount),
        None => Wanted::Percent(percent, container),
    };
    propose(
        facts.replicas,
        &samples,
        pods,
        resource,
        wanted,
        facts.tolerances,
        facts.now,
    )
}

/// As the metrics API tells amounts of this resource.
fn shown(resource: &str, milli: i64) -> String {
    if resource == "memory"
        && milli % 1000 == 0
        && let Ok(bytes) = u64::try_from(milli / 1000)
    {
        return Quantity::from_bytes(bytes).to_string();
    }
    Quantity::from_milli(i128::from(milli)).to_string()
}

/// What is said of a metric of an API that is not there.
fn elsewhere(metric: &MetricSpec, namespace: &str) -> Fault {
    if let ("External", Some(source)) = (&*metric.type_, &metric.external) {
        let name = &source.metric.name;
        let selector = shown_selector(source.metric.selector.as_ref());
        let message = format!(
            "unable to get external metric {namespace}/{name}/{selector}: unable to fetch metrics from external metrics API: the server could not find the requested resource (get {name}.external.metrics.k8s.io)"
        );
        let told = match source.target.average_value {
            Some(_) => format!("failed to get {name} external metric: {message}"),
            None => format!("failed to get external metric {name}: {message}"),
        };
        return Fault {
            reason: "FailedGetExternalMetric",
            told: format!("failed to get {name} external metric value: {told}"),
            message,
        };
    }
    let message = format!("unknown metric source type {:?}", metric.type_);
    Fault {
        reason: "InvalidMetricSourceType",
        told: message.clone(),
        message,
    }
}

/// As Go shows one in a sentence.
pub(super) fn shown_selector(selector: Option<&LabelSelector>) -> String {
    let Some(selector) = selector else {
        return "nil".to_owned();
    };
    let labels = selector.match_labels.iter().flatten();
    let labels: String = labels
        .map(|(key, value)| format!("{key}: {value},"))
        .collect();
    let expressions = selector.match_expressions.iter().flatten();
    let expressions: String = expressions
        .map(|one| {
            let values = one
                .values
                .iter()
                .flatten()
                .cloned()
                .collect::<Vec<_>>()
                .join(" ");
            format!(
                "LabelSelectorRequirement{{Key:{},Operator:{},Values:[{values}],}},",
                one.key, one.operator
            )
        })
        .collect();
    format!(
        "&LabelSelector{{MatchLabels:map[string]string{{{labels}}},MatchExpressions:[]LabelSelectorRequirement{{{expressions}}},}}"
    )
}
