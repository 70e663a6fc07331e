//! Kinds that are never stored: reviews, which answer a question, and usage and metrics, which are computed when they are read.

use std::sync::Arc;

use crate::autoscaling::calls;
use crate::{Kind, Served};

/// Questions about the caller, and about others. They have no short names and no columns of their own.
pub(crate) fn reviews() -> Vec<Arc<Kind>> {
    let review_in = |group, kind, resource, namespaced| {
        Arc::new(Kind {
            namespaced,
            served: Served::Review,
            ..Kind::new(group, "v1", kind, resource)
        })
    };
    let review = |group, kind, resource| review_in(group, kind, resource, false);
    vec![
        review_in(
            "authorization.k8s.io",
            "LocalSubjectAccessReview",
            "localsubjectaccessreviews",
            true,
        ),
        review(
            "authentication.k8s.io",
            "SelfSubjectReview",
            "selfsubjectreviews",
        ),
        review("authentication.k8s.io", "TokenReview", "tokenreviews"),
        review(
            "authorization.k8s.io",
            "SubjectAccessReview",
            "subjectaccessreviews",
        ),
        review(
            "authorization.k8s.io",
            "SelfSubjectAccessReview",
            "selfsubjectaccessreviews",
        ),
        review(
            "authorization.k8s.io",
            "SelfSubjectRulesReview",
            "selfsubjectrulesreviews",
        ),
        // Who calls a Service that nobody answers for asks for a replica.
        Arc::new(Kind {
            namespaced: true,
            served: Served::Review,
            listed: false,
            ..Kind::new("weft.dev", "v1alpha1", "Activation", "activations")
        }),
    ]
}

/// Usage of nodes and pods, for `kubectl top`. In discovery after the kinds of the same names, so that those are meant
/// where no group is named.
pub(crate) fn usage() -> Vec<Arc<Kind>> {
    let usage = |kind, resource, namespaced| {
        Arc::new(Kind {
            namespaced,
            served: Served::Computed,
            // As the metrics server lists them.
            singular: "".into(),
            ..Kind::new("metrics.k8s.io", "v1beta1", kind, resource)
        })
    };
    vec![
        usage("NodeMetrics", "nodes", false),
        usage("PodMetrics", "pods", true),
    ]
}

/// What is measured of pods and Services, by the name of the metric.
pub(crate) fn metrics() -> Vec<Arc<Kind>> {
    // Both are told as `MetricValueList`, which is no name for two.
    let metrics = |kind, resource| {
        Arc::new(Kind {
            namespaced: true,
            served: Served::Measured,
            singular: "".into(),
            ..Kind::new(calls::GROUP, calls::VERSION, kind, resource)
        })
    };
    vec![
        metrics("PodMetricValueList", "pods"),
        metrics("ServiceMetricValueList", "services"),
    ]
}
