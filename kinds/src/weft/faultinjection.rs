//! FaultInjections: calls that are spoiled on purpose, for a time.
//!
//! Counts, types and enumerations are the schema's; here is how long it may last, and that something is to be done at all.

use std::sync::{Arc, LazyLock};

use serde_json::Value;

use super::meshpolicy::{accepted, account, target_refs, targets};
use super::period::judge;
use crate::columns::{Column, Row, or_none};
use crate::field::Field;
use crate::lens::{integer, text};
use crate::strategy::Strategy;
use crate::validate::Problems;
use crate::{Kind, Subresource};

pub static FAULT_INJECTION: LazyLock<Arc<Kind>> = LazyLock::new(|| {
    Arc::new(Kind {
        short_names: vec!["fault".into()],
        subresources: vec![Subresource::Status],
        columns: vec![
            Column::name(),
            Column::text("Targets", targets, "The Services whose calls are spoiled."),
            Column::text("Fault", shown, "What is done to how many of them."),
            Column::text("Duration", duration, "For how long."),
            Column::text("Accepted", accepted, "Whether all targets exist."),
            Column::text("Active", active, "Whether it is done now."),
            Column::age(),
        ],
        ..super::own("FaultInjection", "faultinjections", FaultInjections)
    })
});

struct FaultInjections;

impl Strategy for FaultInjections {
    fn allows_unconditional_update(&self) -> bool {
        false
    }

    fn validate(&self, new: &Value, problems: &mut Problems) {
        let root = Field::root(new);
        let spec = root.child("spec");
        target_refs(&spec, problems);
        judge(&spec.child("duration"), "1s"..="24h", problems);
        for caller in spec.items("callers") {
            account(&caller, problems);
        }
        let (delay, abort) = (spec.child("delay"), spec.child("abort"));
        if !delay.is_set() && !abort.is_set() {
            problems.invalid(
                &spec,
                "",
                "must specify at least one of: `delay` or `abort`",
            );
        }
        judge(&delay.child("duration"), "1ms"..="1h", problems);
    }
}

fn shown(row: &Row<'_>) -> Value {
    let percent = |part: &str| integer(row.object, &format!("/spec/{part}/percent"));
    let mut all = Vec::new();
    if let Some(percent) = percent("delay") {
        let duration = text(row.object, "/spec/delay/duration");
        all.push(format!("delay {duration} {percent}%"));
    }
    if let Some(percent) = percent("abort") {
        let status = integer(row.object, "/spec/abort/httpStatus").unwrap_or_default();
        all.push(format!("abort {status} {percent}%"));
    }
    or_none(all.join(", "))
}

fn duration(row: &Row<'_>) -> Value {
    text(row.object, "/spec/duration").into()
}

fn active(row: &Row<'_>) -> Value {
    row.condition("Active").unwrap_or("").into()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::validate::told;

    #[test]
    fn each_fault_is_told_at_its_field() {
        let base = json!({
            "apiVersion": "weft.dev/v1alpha1", "kind": "FaultInjection",
            "metadata": {"name": "slow", "namespace": "shop"},
            "spec": {
                "targetRefs": [{"group": "", "kind": "Service", "name": "price"}],
                "duration": "10m",
                "callers": [{"namespace": "shop", "serviceAccountName": "cart"}],
                "delay": {"duration": "200ms", "percent": 50},
                "abort": {"httpStatus": 503, "percent": 1},
            },
        });
        told::check(
            &FAULT_INJECTION,
            &base,
            &[
                (
                    "/spec/targetRefs",
                    json!([]),
                    &[
                        "spec.targetRefs: Invalid value: 0: spec.targetRefs in body should have at least 1 items",
                    ],
                ),
                (
                    "/spec/duration",
                    json!("48h"),
                    &[
                        "spec.duration: Invalid value: \"48h\": must be between 1s and 24h, inclusive",
                    ],
                ),
                (
                    "/spec",
                    json!({"targetRefs": [{"group": "", "kind": "Service", "name": "price"}], "duration": "10m"}),
                    &[
                        "spec: Invalid value: \"\": must specify at least one of: `delay` or `abort`",
                    ],
                ),
                (
                    "/spec/abort/httpStatus",
                    json!(100),
                    &[
                        "spec.abort.httpStatus: Invalid value: 100: spec.abort.httpStatus in body should be greater than or equal to 200",
                    ],
                ),
                (
                    "/spec/headers",
                    json!([{"name": "end user", "value": "x"}]),
                    &[
                        "spec.headers[0].name: Invalid value: \"end user\": spec.headers[0].name in body should match '^[A-Za-z0-9!#$%&'*+\\-.^_`|~]+$'",
                    ],
                ),
                (
                    "/spec/callers/0/serviceAccountName",
                    json!("Cart"),
                    &[
                        "spec.callers[0].serviceAccountName: Invalid value: \"Cart\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
                    ],
                ),
            ],
        );
    }
}
