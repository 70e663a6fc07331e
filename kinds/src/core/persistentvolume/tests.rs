//! Volumes, as tables.

use serde_json::{Value, json};

use super::*;
use crate::columns::cells;
use crate::validate::told;

fn volume() -> Value {
    json!({"metadata": {"name": "v"}, "spec": {
        "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/data"},
    }})
}

#[test]
fn a_volume_has_a_size_a_way_to_mount_it_and_one_source() {
    told::check(
        &PERSISTENT_VOLUME,
        &volume(),
        &[
            (
                "/spec",
                json!({}),
                &[
                    "spec.accessModes: Required value",
                    "spec.capacity: Required value",
                    "spec.capacity: Unsupported value: null: supported values: \"storage\"",
                    "spec: Required value: must specify a volume type",
                ],
            ),
            (
                "/spec/accessModes",
                json!(["ReadWriteOncePod", "ReadWriteMany", "x"]),
                &[
                    "spec.accessModes: Unsupported value: \"x\": supported values: \"ReadOnlyMany\", \"ReadWriteMany\", \"ReadWriteOnce\", \"ReadWriteOncePod\"",
                    "spec.accessModes: Forbidden: may not use ReadWriteOncePod with other access modes",
                ],
            ),
            (
                "/spec/capacity/storage",
                json!("-1"),
                &[
                    "spec.capacity[storage]: Invalid value: -1: must be a valid resource quantity",
                    "spec.capacity[storage]: Invalid value: \"-1\": must be greater than zero",
                ],
            ),
            (
                "/spec/nfs",
                json!({"server": "s", "path": "p"}),
                &["spec.nfs: Forbidden: may not specify more than 1 volume type"],
            ),
            (
                "/spec/hostPath/path",
                json!("/a/../b"),
                &["spec.hostPath.path: Invalid value: \"/a/../b\": must not contain '..'"],
            ),
            (
                "/spec/volumeAttributesClassName",
                json!(""),
                &[
                    "spec.volumeAttributesClassName: Required value: an empty string is disallowed",
                    "spec.csi: Required value: has to be specified when using volumeAttributesClassName",
                ],
            ),
        ],
    );
    let recycled = told::with(&volume(), "/spec/hostPath/path", json!("/./"));
    let recycled = told::with(
        &recycled,
        "/spec/persistentVolumeReclaimPolicy",
        json!("Recycle"),
    );
    assert_eq!(
        told::of_new(&PERSISTENT_VOLUME, &recycled),
        [
            "spec.persistentVolumeReclaimPolicy: Forbidden: may not be 'recycle' for a hostPath mount of '/'"
        ]
    );
}

#[test]
fn sources_say_what_they_cannot_do_without() {
    let base = told::with(&volume(), "/spec/hostPath", Value::Null);
    for (source, value, expected) in [
        (
            "csi",
            json!({"nodePublishSecretRef": {}}),
            "csi.driver: Required value|csi.volumeHandle: Required value|csi.nodePublishSecretRef.name: Required value|csi.nodePublishSecretRef.namespace: Required value",
        ),
        (
            "local",
            json!({"path": "/a"}),
            "nodeAffinity: Required value: Local volume requires node affinity",
        ),
        (
            "gcePersistentDisk",
            json!({"pdName": "", "partition": 256}),
            "persistentDisk.pdName: Required value|persistentDisk.partition: Invalid value: 256: must be between 1 and 255, inclusive",
        ),
        (
            "iscsi",
            json!({"targetPortal": "p", "iqn": "iqn.x", "lun": 0}),
            "iscsi.iqn: Invalid value: \"iqn.x\": must be valid format",
        ),
        (
            "iscsi",
            json!({"targetPortal": "p", "iqn": "iqn.2001-04.com.example:disk", "lun": 0}),
            "",
        ),
        (
            "rbd",
            json!({}),
            "rbd.monitors: Required value|rbd.image: Required value",
        ),
        (
            "flexVolume",
            json!({"driver": "d", "options": {"x.k8s.io/a": "b"}}),
            "flexVolume.options[x.k8s.io/a]: Invalid value: \"x.k8s.io/a\": kubernetes.io and k8s.io namespaces are reserved",
        ),
        (
            "azureDisk",
            json!({"diskName": "d", "diskURI": "u"}),
            "azureDisk.diskURI: Unsupported value: \"u\": supported values: \"https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd\"",
        ),
    ] {
        let new = told::with(&base, &format!("/spec/{source}"), value);
        let found: Vec<String> = told::of_new(&PERSISTENT_VOLUME, &new)
            .iter()
            .map(|line| line.replacen("spec.", "", 1))
            .collect();
        assert_eq!(found.join("|"), expected, "{source}");
    }
}

#[test]
fn source_and_mode_stay() {
    let old = volume();
    let moved = told::with(&old, "/spec/hostPath/path", json!("/other"));
    let moved = told::with(&moved, "/spec/volumeMode", json!("Block"));
    assert_eq!(
        told::of_update(&PERSISTENT_VOLUME, &moved, &old, None),
        [
            "spec.persistentvolumesource: Forbidden: spec.persistentvolumesource is immutable after creation",
            "volumeMode: Invalid value: \"Block\": field is immutable",
        ]
    );
}

/// A new volume is pending since it was made; what is said of a phase later does not lose when it began.
#[test]
fn a_phase_has_a_beginning() {
    let mut new = told::with(
        &volume(),
        "/metadata/creationTimestamp",
        json!("2026-01-02T03:04:05Z"),
    );
    let strategy = &PERSISTENT_VOLUME.strategy;
    strategy.default(&mut new);
    let status = json!({"phase": "Pending", "lastPhaseTransitionTime": "2026-01-02T03:04:05Z"});
    assert_eq!(new["status"], status);
    let mut proposed = new.clone();
    proposed["status"] = json!({"phase": "Pending"});
    let part = Some(Subresource::Status);
    let kept = strategy.prepare_for_update(&PERSISTENT_VOLUME, part, proposed, &new);
    assert_eq!(kept["status"], status);
}

#[test]
fn cells_are_those_of_kubernetes() {
    let mut volume = volume();
    PERSISTENT_VOLUME.strategy.default(&mut volume);
    volume["spec"]["claimRef"] = json!({"namespace": "n", "name": "c"});
    volume["spec"]["accessModes"] = json!(["ReadWriteMany", "ReadWriteOnce", "ReadWriteOnce"]);
    assert_eq!(
        json!(cells(&PERSISTENT_VOLUME, &volume)),
        json!([
            "v",
            "1Gi",
            "RWO,RWX",
            "Retain",
            "Pending",
            "n/c",
            "",
            "<unset>",
            "",
            "10s",
            "Filesystem"
        ])
    );
}
