//! Claims, templates, classes and slices, as tables.

use serde_json::{Value, json};

use super::*;
use crate::Subresource;
use crate::columns::cells;
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
            json!(cells(&RESOURCE_CLAIM, &claim)),
            json!(["c", expected, "10s"])
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
            (
                "/spec/devices/0/attributes",
                json!({"1a": {"int": 1}, "a/b/c": {"int": 1}, "both": {"int": 1, "bool": true}, "none": {}}),
                &[
                    "spec.devices[0].attributes: Invalid value: \"1a\": a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric characters or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName', regex used for validation is '[A-Za-z_][A-Za-z0-9_]*')",
                    "spec.devices[0].attributes[both]: Invalid value: \"{int, bool}\": must specify exactly one of: `int`, `bool`, `string`, `version`, `ints`, `bools`, `strings`, `versions`",
                    "spec.devices[0].attributes[none]: Invalid value: \"\": must specify one of: `int`, `bool`, `string`, `version`, `ints`, `bools`, `strings`, `versions`",
                ],
            ),
            (
                "/spec/devices/0/capacity",
                json!({"m": {"value": "1", "requestPolicy": {"default": "1"}}}),
                &[
                    "spec.devices[0].capacity[m].requestPolicy: Forbidden: allowMultipleAllocations must be true",
                ],
            ),
            (
                "/spec/devices/0/bindingConditions",
                json!(["a"]),
                &[
                    "spec.devices[0].bindingFailureConditions: Invalid value: null: bindingFailureConditions are required to use bindingConditions",
                ],
            ),
        ],
    );
    for (version, is_one) in [
        ("1.2.3", true),
        ("0.0.0-0a.1+01.b-c", true),
        ("99999999999999999999.1.1", true),
        ("1.2", false),
        ("01.2.3", false),
        ("v1.2.3", false),
        ("1.2.3.4", false),
        ("1.2.3-", false),
        ("1.2.3-01", false),
        ("1.2.3-a..b", false),
        ("1.2.3+", false),
        ("1.2.3-\u{e4}", false),
        (" 1.2.3", false),
        ("", false),
    ] {
        let attributes = json!({"v": {"version": version}});
        let versioned = told::with(&slice, "/spec/devices/0/attributes", attributes);
        let found = told::of_new(&RESOURCE_SLICE, &versioned);
        assert_eq!(found.is_empty(), is_one, "{version}: {found:?}");
    }
    let mut listed = told::with(
        &slice,
        "/spec/devices/0/attributes",
        json!({"v": {"ints": [1]}}),
    );
    RESOURCE_SLICE.strategy.drop_unserved(&mut listed);
    assert_eq!(listed["spec"]["devices"][0]["attributes"], json!({"v": {}}));
    let other = told::with(&slice, "/spec/pool/name", json!("m"));
    assert_eq!(
        told::of_update(&RESOURCE_SLICE, &other, &slice, None),
        ["spec.pool.name: Invalid value: \"m\": field is immutable"]
    );
    assert_eq!(
        json!(cells(&RESOURCE_SLICE, &slice)),
        json!(["s", "n", "gpu.example.com", "n", "10s"])
    );
}

#[test]
fn taints_are_put_on_devices_by_rules() {
    let rule = json!({
        "metadata": {"name": "r"},
        "spec": {
            "deviceSelector": {"driver": "gpu.example.com", "pool": "a/b", "device": "d"},
            "taint": {"key": "example.com/broken", "value": "yes", "effect": "NoExecute"},
        },
    });
    told::check(
        &DEVICE_TAINT_RULE,
        &rule,
        &[
            ("/spec/deviceSelector", Value::Null, &[]),
            (
                "/spec/deviceSelector/pool",
                json!(""),
                &["spec.deviceSelector.pool: Required value"],
            ),
            (
                "/spec/taint/effect",
                Value::Null,
                &["spec.taint.effect: Required value"],
            ),
            (
                "/spec/taint/effect",
                json!("Away"),
                &[
                    "spec.taint.effect: Unsupported value: \"Away\": supported values: \"NoExecute\", \"NoSchedule\", \"None\"",
                ],
            ),
        ],
    );
    let around = crate::strategy::small::Cluster::default();
    let time = |new: &Value, old: Option<&Value>| {
        let mut new = new.clone();
        let strategy = &DEVICE_TAINT_RULE.strategy;
        strategy.allocate(&mut new, old, &around).unwrap();
        new["spec"]["taint"]["timeAdded"].take()
    };
    let now = "1970-01-01T00:00:00Z";
    assert_eq!(time(&rule, None), now);
    let mut old = rule.clone();
    old["spec"]["taint"]["timeAdded"] = "2026-01-01T00:00:00Z".into();
    assert_eq!(time(&old, Some(&old)), "2026-01-01T00:00:00Z");
    let mut other = old.clone();
    other["spec"]["taint"]["effect"] = "None".into();
    assert_eq!(time(&other, Some(&old)), now, "a new effect begins now");
    other["spec"]["taint"]["timeAdded"] = "2026-01-02T00:00:00Z".into();
    assert_eq!(time(&other, Some(&old)), "2026-01-02T00:00:00Z");
    let shown = cells(&DEVICE_TAINT_RULE, &old);
    for (place, text) in ["r", "example.com/broken", "yes", "NoExecute"]
        .iter()
        .enumerate()
    {
        assert_eq!(shown[place], *text);
    }
}

#[test]
fn what_is_said_of_a_device_goes_with_it() {
    let held = |devices: &[&str]| -> Vec<Value> {
        let device = |name| json!({"driver": "d", "pool": "p", "device": name});
        devices.iter().map(device).collect()
    };
    let of = |allocated: &[&str], told: &[&str]| {
        let mut claim = claim();
        claim["status"] = json!({
            "allocation": {"devices": {"results": held(allocated)}}, "devices": held(told),
        });
        claim
    };
    let (kind, part) = (&RESOURCE_CLAIM, Some(Subresource::Status));
    let old = of(&["a", "b"], &["a", "b"]);
    let next = of(&["b"], &["a", "b", "c"]);
    let next = kind.strategy.prepare_for_update(kind, part, next, &old);
    assert_eq!(next["status"]["devices"], json!(held(&["b", "c"])));
}
