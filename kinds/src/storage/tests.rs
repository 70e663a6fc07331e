//! Classes, attachments, drivers and capacities, as tables.

use serde_json::{Value, json};

use super::*;
use crate::columns::cells;
use crate::core::PERSISTENT_VOLUME_CLAIM;
use crate::default_class::tests::Classes;
use crate::validate::told;

const UNSOUND: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";

#[test]
fn classes_say_who_makes_volumes_and_keep_saying_it() {
    let class = json!({"metadata": {"name": "s", "annotations": {IS_DEFAULT[0]: "true"}},
        "provisioner": "example.com/disk", "parameters": {"a": "b"}});
    told::check(
        &STORAGE_CLASS,
        &class,
        &[
            ("/provisioner", json!(""), &["provisioner: Required value"]),
            (
                "/reclaimPolicy",
                json!("Recycle"),
                &[
                    "reclaimPolicy: Unsupported value: \"Recycle\": supported values: \"Delete\", \"Retain\"",
                ],
            ),
            (
                "/volumeBindingMode",
                json!("x"),
                &[
                    "volumeBindingMode: Unsupported value: \"x\": supported values: \"Immediate\", \"WaitForFirstConsumer\"",
                ],
            ),
            (
                "/parameters",
                json!({"": "x"}),
                &["parameters: Invalid value: \"\": field can not be empty."],
            ),
            (
                "/allowedTopologies",
                json!([
                    {"matchLabelExpressions": [{"key": "zone", "values": ["a", "a"]}, {"key": "zone", "values": []}]},
                    {"matchLabelExpressions": [{"key": "zone", "values": []}]},
                ]),
                &[
                    "allowedTopologies[0].matchLabelExpressions[0].values[1]: Duplicate value: \"a\"",
                    "allowedTopologies[0].matchLabelExpressions[1].values: Required value",
                    "allowedTopologies[0].matchLabelExpressions[1].key: Duplicate value: \"zone\"",
                    "allowedTopologies[1].matchLabelExpressions[0].values: Required value",
                    "allowedTopologies[1].matchLabelExpressions: Duplicate value: \"\"",
                ],
            ),
        ],
    );
    let other = json!({"metadata": {"name": "s"}, "provisioner": "other", "reclaimPolicy": "Retain",
        "volumeBindingMode": "WaitForFirstConsumer", "allowVolumeExpansion": true});
    let immutable = |field: &str| format!("{field}: Invalid value: null: field is immutable");
    assert_eq!(
        told::of_update(&STORAGE_CLASS, &other, &class, None),
        [
            "provisioner",
            "parameters",
            "reclaimPolicy",
            "volumeBindingMode"
        ]
        .map(immutable)
    );
    let mut shown = class;
    STORAGE_CLASS.strategy.default(&mut shown);
    assert_eq!(
        json!(cells(&STORAGE_CLASS, &shown)),
        json!([
            "s (default)",
            "example.com/disk",
            "Delete",
            "Immediate",
            false,
            "10s"
        ])
    );
}

#[test]
fn claims_without_a_class_have_the_newest_default_one() {
    let class = |name: &str, created: &str| {
        json!({"metadata": {"name": name, "creationTimestamp": created,
            "annotations": {IS_DEFAULT[1]: "true"}}})
    };
    let classes = Classes(vec![
        class("new", "2026-01-02T00:00:00Z"),
        class("old", "2026-01-01T00:00:00Z"),
    ]);
    for (claim, expected) in [
        (json!({"spec": {}}), json!("new")),
        // None is asked for.
        (json!({"spec": {"storageClassName": ""}}), json!("")),
        (
            json!({"metadata": {"annotations": {"volume.beta.kubernetes.io/storage-class": "x"}}, "spec": {}}),
            Value::Null,
        ),
    ] {
        let mut new = claim.clone();
        PERSISTENT_VOLUME_CLAIM
            .strategy
            .admit(&mut new, &classes)
            .unwrap();
        assert_eq!(new["spec"]["storageClassName"], expected, "{claim}");
    }
}

#[test]
fn attachments_name_a_volume_a_node_and_who_attaches_it() {
    let attachment = json!({"metadata": {"name": "a"}, "spec": {
        "attacher": "disk.example.com", "nodeName": "n", "source": {"persistentVolumeName": "v"},
    }});
    told::check(
        &VOLUME_ATTACHMENT,
        &attachment,
        &[
            (
                "/spec",
                json!({}),
                &[
                    "spec.source: Required value: must specify exactly one of inlineVolumeSpec and persistentVolumeName",
                    &format!("spec.nodeName: Invalid value: \"\": {UNSOUND}"),
                    "spec.attacher: Required value",
                ],
            ),
            (
                "/spec/source",
                json!({"inlineVolumeSpec": {"accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/a"}, "capacity": {"storage": "1"}}}),
                &[
                    "spec.source.inlineVolumeSpec.capacity: Forbidden: may not be specified in the context of inline volumes",
                    "spec.source.inlineVolumeSpec.csi: Required value: has to be specified in the context of inline volumes",
                ],
            ),
        ],
    );
    let other = told::with(&attachment, "/spec/nodeName", json!("m"));
    assert_eq!(
        told::of_update(&VOLUME_ATTACHMENT, &other, &attachment, None),
        ["spec: Invalid value: null: field is immutable"]
    );
    assert_eq!(
        json!(cells(&VOLUME_ATTACHMENT, &attachment)),
        json!(["a", "disk.example.com", "v", "n", false, "10s"])
    );
}

#[test]
fn drivers_say_what_they_ask_of_nodes() {
    let driver = json!({"metadata": {"name": "disk.example.com"}});
    let mut defaulted = driver.clone();
    CSI_DRIVER.strategy.default(&mut defaulted);
    assert_eq!(
        defaulted["spec"],
        json!({
            "attachRequired": true, "podInfoOnMount": false, "storageCapacity": false, "requiresRepublish": false,
            "seLinuxMount": false, "preventPodSchedulingIfMissing": false,
            "fsGroupPolicy": "ReadWriteOnceWithFSType", "volumeLifecycleModes": ["Persistent"],
        })
    );
    told::check(
        &CSI_DRIVER,
        &driver,
        &[
            (
                "/spec/fsGroupPolicy",
                json!("x"),
                &[
                    "spec.fsGroupPolicy: Unsupported value: \"x\": supported values: \"File\", \"None\", \"ReadWriteOnceWithFSType\"",
                ],
            ),
            (
                "/spec/tokenRequests",
                json!([{"audience": "a", "expirationSeconds": 1}, {"audience": "a"}]),
                &[
                    "spec.tokenRequests[0].expirationSeconds: Invalid value: 1: may not specify a duration less than 10 minutes",
                    "spec.tokenRequests[1].audience: Duplicate value: \"a\"",
                ],
            ),
            (
                "/spec/serviceAccountTokenInSecrets",
                json!(true),
                &[
                    "spec.serviceAccountTokenInSecrets: Invalid value: true: serviceAccountTokenInSecrets is set but no tokenRequests are specified",
                ],
            ),
        ],
    );
    let other = told::with(&defaulted, "/spec/attachRequired", json!(false));
    let other = told::with(&other, "/spec/volumeLifecycleModes/0", json!("Ephemeral"));
    assert_eq!(
        told::of_update(&CSI_DRIVER, &other, &defaulted, None),
        [
            "spec.attachedRequired: Invalid value: false: field is immutable",
            "spec.volumeLifecycleModes: Invalid value: [\"Ephemeral\"]: field is immutable",
        ]
    );
    assert_eq!(
        json!(cells(&CSI_DRIVER, &defaulted)),
        json!([
            "disk.example.com",
            true,
            false,
            false,
            "<unset>",
            false,
            "Persistent",
            "10s"
        ])
    );
}

#[test]
fn drivers_of_a_node_stay_but_for_how_much_they_take() {
    let node = json!({"metadata": {"name": "n"}, "spec": {"drivers": [
        {"name": "d.example.com", "nodeID": "1", "topologyKeys": ["zone"], "allocatable": {"count": 3}},
    ]}});
    told::check(
        &CSI_NODE,
        &node,
        &[
            (
                "/spec/drivers/0",
                json!({}),
                &[
                    "spec.drivers[0].name: Required value",
                    "spec.drivers[0].nodeID: Required value",
                ],
            ),
            (
                "/spec/drivers/1",
                json!({"name": "d.example.com", "nodeID": "2", "topologyKeys": ["a", "a"], "allocatable": {"count": -1}}),
                &[
                    "spec.drivers[1].allocatable.count: Invalid value: -1: must be greater than or equal to 0",
                    "spec.drivers[1].name: Duplicate value: \"d.example.com\"",
                    "spec.drivers[1]: Duplicate value: \"a\"",
                ],
            ),
        ],
    );
    let more = told::with(&node, "/spec/drivers/0/allocatable/count", json!(4));
    assert_eq!(told::of_update(&CSI_NODE, &more, &node, None), [""; 0]);
    let other = told::with(&node, "/spec/drivers/0/nodeID", json!("2"));
    let found = told::of_update(&CSI_NODE, &other, &node, None);
    assert!(
        found.len() == 1 && found[0].ends_with("field is immutable"),
        "{found:?}"
    );
    assert_eq!(json!(cells(&CSI_NODE, &node)), json!(["n", 1, "10s"]));
}

#[test]
fn capacities_are_of_one_class_and_place() {
    let capacity = json!({"metadata": {"name": "c", "namespace": "n"}, "storageClassName": "s", "capacity": "1024Mi",
        "nodeTopology": {"matchLabels": {"zone": "a"}}});
    told::check(
        &CSI_STORAGE_CAPACITY,
        &capacity,
        &[
            (
                "/storageClassName",
                json!("S"),
                &[&format!(
                    "storageClassName: Invalid value: \"S\": {UNSOUND}"
                )],
            ),
            (
                "/capacity",
                json!("-1"),
                &["capacity: Invalid value: \"-1\": must be greater than or equal to 0"],
            ),
        ],
    );
    let other = told::with(&capacity, "/storageClassName", json!("t"));
    let other = told::with(&other, "/nodeTopology", Value::Null);
    assert_eq!(
        told::of_update(&CSI_STORAGE_CAPACITY, &other, &capacity, None),
        [
            "nodeTopology: Invalid value: null: field is immutable",
            "storageClassName: Invalid value: \"t\": field is immutable",
        ]
    );
    assert_eq!(
        json!(cells(&CSI_STORAGE_CAPACITY, &capacity)),
        json!(["c", "2026-01-01T00:00:00Z"])
    );
}

#[test]
fn attributes_of_a_class_never_change() {
    let class = json!({"metadata": {"name": "v"}, "driverName": "d.example.com", "parameters": {"iops": "9"}});
    told::check(
        &VOLUME_ATTRIBUTES_CLASS,
        &class,
        &[
            ("/driverName", json!(""), &["driverName: Required value"]),
            (
                "/parameters",
                Value::Null,
                &["parameters: Required value: must contain at least one key/value pair"],
            ),
        ],
    );
    let other = json!({"metadata": {"name": "v"}, "driverName": "e", "parameters": {"iops": "10"}});
    assert_eq!(
        told::of_update(&VOLUME_ATTRIBUTES_CLASS, &other, &class, None),
        [
            "driverName: Forbidden: updates to driverName are forbidden.",
            "parameters: Forbidden: updates to parameters are forbidden.",
        ]
    );
    assert_eq!(
        json!(cells(&VOLUME_ATTRIBUTES_CLASS, &class)),
        json!(["v", "d.example.com", "10s"])
    );
}
