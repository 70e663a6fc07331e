//! Claims, templates, classes and slices, as tables.

use serde_json::{Value, json};

use super::*;
use crate::Subresource;
use crate::columns::tests::cells;
use crate::validate::told;

fn claim() -> Value {
    json!({"metadata": {"name": "c", "namespace": "n"}, "spec": {"devices": {"requests": [
        {"name": "gpu", "exactly": {"deviceClassName": "gpus"}},
    ]}}})
}

#[test]
fn claims_ask_for_devices_of_classes() {
    let mut defaulted = claim();
    RESOURCE_CLAIM.strategy.default(&mut defaulted);
    let exactly = &defaulted["spec"]["devices"]["requests"][0]["exactly"];
    assert_eq!(
        exactly,
        &json!({"deviceClassName": "gpus", "allocationMode": "ExactCount", "count": 1})
    );
    told::check(
        &RESOURCE_CLAIM,
        &claim(),
        &[
            (
                "/spec/devices/requests/0",
                json!({"name": "a"}),
                &[
                    "spec.devices.requests[0]: Required value: exactly one of `exactly` or `firstAvailable` is required",
                ],
            ),
            (
                "/spec/devices/requests/0/exactly",
                json!({"allocationMode": "All", "count": 2, "selectors": [{}]}),
                &[
                    "spec.devices.requests[0].exactly.deviceClassName: Required value",
                    "spec.devices.requests[0].exactly.selectors[0].cel: Required value",
                    "spec.devices.requests[0].exactly.count: Invalid value: 2: must not be specified when allocationMode is 'All'",
                ],
            ),
            (
                "/spec/devices/constraints",
                json!([{"requests": ["cpu"], "matchAttribute": "x.io/model"}, {}]),
                &[
                    "spec.devices.constraints[0].requests[0]: Invalid value: \"cpu\": must be the name of a request in the claim or the name of a request and a subrequest separated by '/'",
                    "spec.devices.constraints[1]: Required value: exactly one of \"matchAttribute\" or \"distinctAttribute\" is required, but multiple fields are set",
                ],
            ),
            (
                "/spec/devices/config",
                json!([{"requests": ["gpu"]}]),
                &["spec.devices.config[0].opaque: Required value"],
            ),
        ],
    );
    let other = told::with(
        &claim(),
        "/spec/devices/requests/0/exactly/deviceClassName",
        json!("x"),
    );
    assert_eq!(
        told::of_update(&RESOURCE_CLAIM, &other, &claim(), None),
        ["spec: Invalid value: null: field is immutable"]
    );
}

#[test]
fn a_claim_is_reserved_once_it_is_allocated() {
    let consumer = json!({"resource": "pods", "name": "p", "uid": "1"});
    let reserved = told::with(&claim(), "/status", json!({"reservedFor": [consumer]}));
    let part = Some(Subresource::Status);
    assert_eq!(
        told::of_update(&RESOURCE_CLAIM, &reserved, &claim(), part),
        ["status.reservedFor: Forbidden: may not be specified when `allocated` is not set"]
    );
    let allocated = told::with(&reserved, "/status/allocation", json!({"devices": {}}));
    assert_eq!(
        told::of_update(&RESOURCE_CLAIM, &allocated, &claim(), part),
        [""; 0]
    );
    for (claim, expected) in [(claim(), "pending"), (allocated, "allocated,reserved")] {
        assert_eq!(
            cells(&RESOURCE_CLAIM, &claim),
            json!(["c", expected, "<unknown>"])
        );
    }
}

#[test]
fn templates_and_classes_keep_the_same_rules() {
    let template =
        json!({"metadata": {"name": "t", "namespace": "n"}, "spec": {"spec": claim()["spec"]}});
    told::check(
        &RESOURCE_CLAIM_TEMPLATE,
        &template,
        &[(
            "/spec/spec/devices/requests/0/exactly/deviceClassName",
            Value::Null,
            &["spec.spec.devices.requests[0].exactly.deviceClassName: Required value"],
        )],
    );
    let class = json!({"metadata": {"name": "gpus"}, "spec": {}});
    told::check(
        &DEVICE_CLASS,
        &class,
        &[
            (
                "/spec/selectors",
                json!([{}]),
                &["spec.selectors[0].cel: Required value"],
            ),
            (
                "/spec/extendedResourceName",
                json!("abc"),
                &[
                    "spec.extendedResourceName: Invalid value: \"abc\": a name must be a domain-prefixed path, such as 'example.com/my-prop'",
                ],
            ),
        ],
    );
}

#[test]
fn slices_say_whose_devices_they_hold() {
    let slice = json!({"metadata": {"name": "s"}, "spec": {
        "driver": "gpu.example.com", "nodeName": "n", "pool": {"name": "n", "generation": 1, "resourceSliceCount": 1},
        "devices": [{"name": "gpu-0", "attributes": {"model": {"string": "x"}}}],
    }});
    told::check(
        &RESOURCE_SLICE,
        &slice,
        &[
            (
                "/spec",
                json!({}),
                &[
                    "spec.driver: Required value",
                    "spec.pool.name: Required value",
                    "spec.pool.resourceSliceCount: Invalid value: 0: must be greater than zero",
                    "spec: Required value: exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required",
                ],
            ),
            (
                "/spec/allNodes",
                json!(true),
                &[
                    "spec: Invalid value: \"{`nodeName`, `allNodes`}\": exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required, but multiple fields are set",
                ],
            ),
            (
                "/spec/devices/1",
                json!({"name": "gpu-0"}),
                &["spec.devices[1]: Duplicate value: \"gpu-0\""],
            ),
        ],
    );
    let other = told::with(&slice, "/spec/pool/name", json!("m"));
    assert_eq!(
        told::of_update(&RESOURCE_SLICE, &other, &slice, None),
        ["spec.pool.name: Invalid value: \"m\": field is immutable"]
    );
    assert_eq!(
        cells(&RESOURCE_SLICE, &slice),
        json!(["s", "n", "gpu.example.com", "n", "<unknown>"])
    );
}
