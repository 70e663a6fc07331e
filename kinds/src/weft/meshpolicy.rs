//! MeshPolicies: how calls to Services are made and taken.
//!
//! Counts, types and enumerations are the schema's; here is how long times may be, and what two fields may not say together.

use std::sync::{Arc, LazyLock};

use serde_json::Value;
use weft_api::name;

use super::period::{judge, parse};
use crate::columns::{Column, Row, or_none};
use crate::field::Field;
use crate::lens::{integer, items, text};
use crate::strategy::Strategy;
use crate::validate::Problems;
use crate::{Kind, Subresource};

pub static MESH_POLICY: LazyLock<Arc<Kind>> = LazyLock::new(|| {
    Arc::new(Kind {
        short_names: vec!["mp".into()],
        subresources: vec![Subresource::Status],
        columns: vec![
            Column::name(),
            Column::text("Targets", targets, "The Services or routes that it is for."),
            Column::text("Parts", parts, "What it says something of."),
            Column::text("Accepted", accepted, "Whether it holds for all of them."),
            Column::age(),
        ],
        ..super::own("MeshPolicy", "meshpolicies", MeshPolicies)
    })
});

/// What a policy may say something of, as columns show it.
const PARTS: [&str; 6] = [
    "timeouts",
    "retry",
    "circuitBreaker",
    "concurrency",
    "rateLimits",
    "hedging",
];

struct MeshPolicies;

impl Strategy for MeshPolicies {
    fn allows_unconditional_update(&self) -> bool {
        false
    }

    fn validate(&self, new: &Value, problems: &mut Problems) {
        let root = Field::root(new);
        let spec = root.child("spec");
        target_refs(&spec, problems);
        of_routes(&spec, problems);
        let (retry, breaker) = (spec.child("retry"), spec.child("circuitBreaker"));
        judge(&retry.child("backoff"), "1ms"..="1h", problems);
        judge(&retry.child("budget.interval"), "1s"..="1h", problems);
        judge(&breaker.child("interval"), "1s"..="1h", problems);
        let (first, longest) = (breaker.child("ejection"), breaker.child("maxEjection"));
        judge(&first, "100ms"..="1h", problems);
        judge(&longest, "100ms"..="1h", problems);
        if parse(first.text()) > parse(longest.text()) {
            problems.invalid(&longest, longest.text(), "must not be less than ejection");
        }
        let concurrency = spec.child("concurrency");
        if integer(new, "/spec/concurrency/min") > integer(new, "/spec/concurrency/max") {
            let most = concurrency.child("max");
            problems.invalid(&most, most.shown(), "must not be less than min");
        }
        for caller in concurrency.items("criticalCallers") {
            account(&caller, problems);
        }
        for limit in spec.items("rateLimits") {
            judge(&limit.child("per"), "1ms"..="24h", problems);
        }
        judge(&spec.child("hedging.after"), "1ms"..="1h", problems);
    }
}

/// What may be said of targets: of routes not what is counted of a Service and its endpoints.
fn of_routes(spec: &Field<'_, '_>, problems: &mut Problems) {
    let mut is_any = false;
    for target in spec.items("targetRefs") {
        let (group, kind) = (target.child("group"), target.child("kind"));
        let (is_route, expected) = match kind.text() {
            "Service" => (false, ""),
            "HTTPRoute" | "GRPCRoute" => (true, ROUTES_GROUP),
            // None that is taken.
            _ => continue,
        };
        is_any |= is_route;
        if group.text() != expected {
            let told = format!("must be {expected:?} for kind {}", kind.text());
            problems.invalid(&group, group.text(), &told);
        }
        if !is_route && target.child("sectionName").is_set() {
            let section = target.child("sectionName");
            problems.forbidden(&section, "a Service is a target as a whole");
        }
    }
    if !is_any {
        return;
    }
    let why = "may not be set where targetRefs names a route: it is of a Service";
    let parts = [
        "circuitBreaker",
        "concurrency",
        "rateLimits",
        "retry.budget",
    ];
    for part in parts {
        let part = spec.child(part);
        if part.is_set() {
            problems.forbidden(&part, why);
        }
    }
}

/// The group of routes.
const ROUTES_GROUP: &str = "gateway.networking.k8s.io";

/// Names of Services.
pub(super) fn target_refs(spec: &Field<'_, '_>, problems: &mut Problems) {
    for target in spec.items("targetRefs") {
        problems.rule(&target.child("name"), name::dns1123_subdomain_faults);
    }
}

/// A ServiceAccount that calls.
pub(super) fn account(caller: &Field<'_, '_>, problems: &mut Problems) {
    let account = caller.child("serviceAccountName");
    problems.rule(&account, name::dns1123_subdomain_faults);
    let namespace = caller.child("namespace");
    if namespace.is_set() {
        problems.rule(&namespace, name::dns1123_subdomain_faults);
    }
}

/// `*` stands for every Service of the namespace.
pub(super) fn targets(row: &Row<'_>) -> Value {
    let refs = items(row.object, "/spec/targetRefs");
    if refs.is_empty() {
        return "*".into();
    }
    let names: Vec<&str> = refs.iter().map(|target| text(target, "/name")).collect();
    names.join(",").into()
}

fn parts(row: &Row<'_>) -> Value {
    let said = PARTS.into_iter().filter(|part| {
        let part = row.object.pointer(&format!("/spec/{part}"));
        part.is_some_and(|part| part.as_array().is_none_or(|list| !list.is_empty()))
    });
    or_none(said.collect::<Vec<_>>().join(","))
}

pub(super) fn accepted(row: &Row<'_>) -> Value {
    row.condition("Accepted").unwrap_or("").into()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::decode;
    use crate::validate::told;

    fn policy() -> Value {
        json!({
            "apiVersion": "weft.dev/v1alpha1", "kind": "MeshPolicy",
            "metadata": {"name": "price", "namespace": "shop"},
            "spec": {
                "targetRefs": [{"group": "", "kind": "Service", "name": "price"}],
                "timeouts": {"request": "2s", "attempt": "0s"},
                "retry": {"attempts": 2, "statusCodes": [503], "backoff": "25ms", "budget": {"interval": "10s"}},
                "circuitBreaker": {"ejection": "1s", "maxEjection": "60s", "interval": "10s"},
                "concurrency": {"min": 5, "max": 50, "criticalCallers": [{"serviceAccountName": "checkout"}]},
                "rateLimits": [{"by": "ServiceAccount", "requests": 100, "per": "1s"}],
                "hedging": {"after": "50ms"},
            },
        })
    }

    #[test]
    fn what_is_left_out_has_the_defaults() {
        let mut sent = policy();
        sent["spec"] = json!({
            "targetRefs": [{"kind": "Service", "name": "price"}],
            "retry": {"budget": {}}, "circuitBreaker": {}, "concurrency": {}, "rateLimits": [{"requests": 5}],
        });
        let decoded = decode::value(&MESH_POLICY.gvk(), &sent).unwrap();
        assert_eq!(decoded.faults, [""; 0]);
        let mut value = decoded.value;
        decode::fill(&MESH_POLICY.gvk(), &mut value);
        let expected = json!({
            "targetRefs": [{"group": "", "kind": "Service", "name": "price"}],
            "retry": {"attempts": 2, "backoff": "25ms", "budget": {"percent": 20, "interval": "10s", "minPerSecond": 10}},
            "circuitBreaker": {
                "consecutiveFailures": 7, "successPercent": 80, "minRequests": 5, "interval": "10s",
                "ejection": "1s", "maxEjection": "60s", "maxEjectedPercent": 10,
            },
            "concurrency": {"min": 20, "max": 1000, "queue": 100},
            "rateLimits": [{"by": "ServiceAccount", "across": "Node", "requests": 5, "per": "1s"}],
        });
        assert_eq!(value["spec"], expected);
    }

    #[test]
    fn each_fault_is_told_at_its_field() {
        told::check(
            &MESH_POLICY,
            &policy(),
            &[
                (
                    "/spec/targetRefs/0/kind",
                    json!("Gateway"),
                    &[
                        "spec.targetRefs[0].kind: Unsupported value: \"Gateway\": supported values: \"Service\", \"HTTPRoute\", \"GRPCRoute\"",
                    ],
                ),
                (
                    "/spec/targetRefs/0/sectionName",
                    json!("rule"),
                    &[
                        "spec.targetRefs[0].sectionName: Forbidden: a Service is a target as a whole",
                    ],
                ),
                (
                    "/spec/targetRefs/0",
                    json!({"group": "gateway.networking.k8s.io", "kind": "Service", "name": "price"}),
                    &[
                        "spec.targetRefs[0].group: Invalid value: \"gateway.networking.k8s.io\": must be \"\" for kind Service",
                    ],
                ),
                (
                    "/spec/targetRefs/0",
                    json!({"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": "price", "sectionName": "buy"}),
                    &[
                        "spec.circuitBreaker: Forbidden: may not be set where targetRefs names a route: it is of a Service",
                        "spec.concurrency: Forbidden: may not be set where targetRefs names a route: it is of a Service",
                        "spec.rateLimits: Forbidden: may not be set where targetRefs names a route: it is of a Service",
                        "spec.retry.budget: Forbidden: may not be set where targetRefs names a route: it is of a Service",
                    ],
                ),
                (
                    "/spec/retry/grpcCodes",
                    json!(["OK"]),
                    &[
                        "spec.retry.grpcCodes[0]: Unsupported value: \"OK\": supported values: \"CANCELLED\", \"UNKNOWN\", \"INVALID_ARGUMENT\", \"DEADLINE_EXCEEDED\", \"NOT_FOUND\", \"ALREADY_EXISTS\", \"PERMISSION_DENIED\", \"RESOURCE_EXHAUSTED\", \"FAILED_PRECONDITION\", \"ABORTED\", \"OUT_OF_RANGE\", \"UNIMPLEMENTED\", \"INTERNAL\", \"UNAVAILABLE\", \"DATA_LOSS\", \"UNAUTHENTICATED\"",
                    ],
                ),
                (
                    "/spec/retry/backoff",
                    json!("soon"),
                    &[
                        "spec.retry.backoff: Invalid value: \"soon\": spec.retry.backoff in body should match '^([0-9]{1,5}(h|m|s|ms)){1,4}$'",
                    ],
                ),
                (
                    "/spec/retry/budget/interval",
                    json!("2h"),
                    &[
                        "spec.retry.budget.interval: Invalid value: \"2h\": must be between 1s and 1h, inclusive",
                    ],
                ),
                (
                    "/spec/circuitBreaker/maxEjection",
                    json!("500ms"),
                    &[
                        "spec.circuitBreaker.maxEjection: Invalid value: \"500ms\": must not be less than ejection",
                    ],
                ),
                (
                    "/spec/concurrency/max",
                    json!(4),
                    &["spec.concurrency.max: Invalid value: 4: must not be less than min"],
                ),
                (
                    "/spec/rateLimits/0/by",
                    json!("Everybody"),
                    &[
                        "spec.rateLimits[0].by: Unsupported value: \"Everybody\": supported values: \"ServiceAccount\", \"Namespace\", \"Everyone\"",
                    ],
                ),
                (
                    "/spec/hedging/after",
                    json!("0s"),
                    &[
                        "spec.hedging.after: Invalid value: \"0s\": must be between 1ms and 1h, inclusive",
                    ],
                ),
            ],
        );
    }
}
