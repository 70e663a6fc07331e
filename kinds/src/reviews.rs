//! Kinds that are never stored: reviews, which answer a question, and usage, which is computed when it is read.

use std::sync::Arc;

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
