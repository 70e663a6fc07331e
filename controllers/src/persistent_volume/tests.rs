//! Claims and volumes as tables: what is there, and what one look does about it.

use serde_json::{Value, json};
use weft_kinds::{Kind, NODE, PERSISTENT_VOLUME, PERSISTENT_VOLUME_CLAIM, POD, STORAGE_CLASS};

use super::*;
use crate::small::{NAMESPACE, Small, uid};
use crate::{Cluster, Past, Write};
use weft_kinds::Registry;

struct World(Small);

impl World {
    fn new() -> Self {
        let mut small = Small::new([CONTROLLER.reads, ephemeral::CONTROLLER.reads]);
        for (name, waits, provisioner) in [
            ("now", "Immediate", FOLDER_DRIVER),
            ("later", "WaitForFirstConsumer", FOLDER_DRIVER),
            ("theirs", "Immediate", "csi.example"),
            (
                "none",
                "WaitForFirstConsumer",
                "kubernetes.io/no-provisioner",
            ),
        ] {
            small.put(
                &STORAGE_CLASS,
                json!({"metadata": {"name": name}, "provisioner": provisioner,
                    "volumeBindingMode": waits, "reclaimPolicy": "Delete", "allowVolumeExpansion": name == "now"}),
            );
        }
        for name in ["a", "b"] {
            small.put(
                &NODE,
                json!({"metadata": {"name": name, "labels": {HOST_NAME: format!("host-{name}")}}, "spec": {},
                    "status": {"conditions": [{"type": "Ready", "status": "True"}]}}),
            );
        }
        Self(small)
    }

    fn volume(&mut self, name: &str, more: Value) {
        let mut spec = json!({"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"},
            "hostPath": {"path": "/x"}, "persistentVolumeReclaimPolicy": "Retain", "volumeMode": "Filesystem"});
        merge(&mut spec, &more["spec"]);
        let mut metadata = json!({"name": name});
        merge(&mut metadata, &more["metadata"]);
        let phase = more["phase"].as_str().unwrap_or("Available");
        self.0.put(
            &PERSISTENT_VOLUME,
            json!({"metadata": metadata, "spec": spec, "status": {"phase": phase}}),
        );
    }

    fn claim(&mut self, more: Value) {
        let mut spec = json!({"accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}}, "storageClassName": ""});
        merge(&mut spec, &more["spec"]);
        let mut metadata = json!({"name": "c"});
        merge(&mut metadata, &more["metadata"]);
        let mut status = json!({"phase": "Pending"});
        merge(&mut status, &more["status"]);
        let claim = json!({"metadata": metadata, "spec": spec, "status": status});
        self.0.put(&PERSISTENT_VOLUME_CLAIM, claim);
    }

    fn pod(&mut self, name: &str, node: &str, phase: &str) {
        self.0.put(
            &POD,
            json!({"metadata": {"name": name}, "spec": {"nodeName": node, "volumes": [
                {"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]}, "status": {"phase": phase}}),
        );
    }

    /// What a look does, a line each.
    fn look(&self, key: &Key) -> Vec<String> {
        let cx = Context {
            now: self.0.now,
            cluster: &Cluster {
                ca_pem: String::new(),
            },
            kinds: &Registry::builtin(),
            last_failure: None,
            usage: None,
            calls: None,
            past: &Past::default(),
        };
        let writes = (CONTROLLER.reconcile)(&self.0.view, key, &cx).writes;
        writes.into_iter().map(line).collect()
    }

    fn of_claim(&self) -> Vec<String> {
        self.look(&Key::new(NAMESPACE, "c"))
    }

    fn of_volume(&self, name: &str) -> Vec<String> {
        self.look(&Key::new("", name))
    }
}

fn merge(into: &mut Value, more: &Value) {
    for (name, value) in more.as_object().into_iter().flatten() {
        into[name] = value.clone();
    }
}

fn line(write: Write) -> String {
    match write {
        Write::Create { object, .. } => {
            let spec = &object.as_value()["spec"];
            format!(
                "make {} of {} on {}",
                object.name(),
                text(spec, "/capacity/storage"),
                text(
                    spec,
                    "/nodeAffinity/required/nodeSelectorTerms/0/matchExpressions/0/values/0"
                )
            )
        }
        Write::Patch {
            kind,
            key,
            patch,
            subresource,
            ..
        } => {
            let of = |kind: &Kind| kind.resource.trim_end_matches('s').to_owned();
            let name = &key.name;
            let what = match (patch.pointer("/spec/claimRef"), subresource) {
                (Some(Value::Null), _) => "nobody's".to_owned(),
                (Some(reference), _) => format!("for {}", text(reference, "/name")),
                (_, Some(_)) => text(&patch, "/status/phase").to_owned(),
                _ => match (&patch["spec"], &patch["metadata"]) {
                    (Value::Object(spec), _) if spec.contains_key("volumeName") => {
                        format!("names {}", text(&patch, "/spec/volumeName"))
                    }
                    (Value::Object(spec), _) if spec.contains_key("storageClassName") => {
                        format!("is of {}", text(&patch, "/spec/storageClassName"))
                    }
                    (Value::Object(_), _) => {
                        format!("has {}", text(&patch, "/spec/capacity/storage"))
                    }
                    (_, metadata) if !metadata["finalizers"].is_null() => {
                        format!("keeps {}", metadata["finalizers"])
                    }
                    (_, metadata) => match metadata["annotations"].get(SELECTED_NODE) {
                        Some(node) => format!("goes to {}", node.as_str().unwrap_or_default()),
                        None => "is noted".to_owned(),
                    },
                },
            };
            format!("{} {name} {what}", of(&kind))
        }
        Write::Delete { key, .. } => format!("remove {}", key.name),
        Write::Event(note) => format!("{}: {}", note.reason, note.message),
        Write::ConfirmGone { .. } => "confirm".to_owned(),
    }
}

fn claimed(uid_of: &str) -> Value {
    json!({"claimRef": {"name": "c", "namespace": NAMESPACE, "uid": uid_of}})
}

fn own() -> String {
    uid(&PERSISTENT_VOLUME_CLAIM, "c")
}

#[test]
fn a_claim_finds_the_smallest_volume_that_fits() {
    let big = json!({"spec": {"capacity": {"storage": "10Gi"}}});
    let none =
        "FailedBinding: no persistent volumes available for this claim and no storage class is set";
    for (volumes, claim, expected) in [
        (vec![], json!({}), none),
        (vec![json!({})], json!({}), "persistentvolume v0 for c"),
        (
            vec![big.clone(), json!({})],
            json!({}),
            "persistentvolume v1 for c",
        ),
        (
            vec![json!({}), big.clone()],
            json!({"spec": {"resources": {"requests": {"storage": "2Gi"}}}}),
            "persistentvolume v1 for c",
        ),
        (
            vec![json!({})],
            json!({"spec": {"resources": {"requests": {"storage": "2Gi"}}}}),
            none,
        ),
        (
            vec![json!({"spec": {"storageClassName": "x"}})],
            json!({}),
            none,
        ),
        (
            vec![json!({"spec": {"volumeMode": "Block"}})],
            json!({}),
            none,
        ),
        (
            vec![json!({})],
            json!({"spec": {"accessModes": ["ReadWriteMany"]}}),
            none,
        ),
        (
            vec![json!({"spec": {"accessModes": ["ReadWriteMany", "ReadWriteOnce"]}})],
            json!({"spec": {"accessModes": ["ReadWriteMany"]}}),
            "persistentvolume v0 for c",
        ),
        (vec![json!({"phase": "Released"})], json!({}), none),
        (vec![json!({"spec": claimed("other")})], json!({}), none),
        // Set aside for it by name: before any other, whatever its size.
        (
            vec![
                json!({}),
                json!({"spec": {"capacity": {"storage": "9Gi"}, "claimRef": {"name": "c", "namespace": NAMESPACE}}}),
            ],
            json!({}),
            "persistentvolume v1 for c",
        ),
        // Of whichever class it is, but not of another mode or size.
        (
            vec![
                json!({"spec": {"storageClassName": "x", "claimRef": {"name": "c", "namespace": NAMESPACE}}}),
            ],
            json!({}),
            "persistentvolume v0 for c",
        ),
        (
            vec![
                json!({"spec": {"volumeMode": "Block", "claimRef": {"name": "c", "namespace": NAMESPACE}}}),
            ],
            json!({}),
            none,
        ),
        // One that can do no more than what is asked for comes before a smaller one that can.
        (
            vec![
                json!({"spec": {"accessModes": ["ReadWriteOnce", "ReadOnlyMany"]}}),
                big.clone(),
            ],
            json!({}),
            "persistentvolume v1 for c",
        ),
        (
            vec![json!({"spec": {"volumeAttributesClassName": "gold"}})],
            json!({}),
            none,
        ),
        (
            vec![json!({}), json!({"metadata": {"labels": {"disk": "fast"}}})],
            json!({"spec": {"selector": {"matchLabels": {"disk": "fast"}}}}),
            "persistentvolume v1 for c",
        ),
    ] {
        let mut world = World::new();
        for (number, volume) in volumes.iter().enumerate() {
            world.volume(&format!("v{number}"), volume.clone());
        }
        world.claim(claim.clone());
        assert_eq!(world.of_claim(), [expected], "{volumes:?} {claim}");
    }
}

#[test]
fn binding_goes_step_by_step_and_ends() {
    let mut world = World::new();
    world.volume("v", json!({"spec": claimed(&own())}));
    world.claim(json!({}));
    assert_eq!(world.of_claim(), ["persistentvolumeclaim c names v"]);
    let bound =
        json!({"metadata": {"annotations": {BIND_COMPLETED: "yes"}}, "spec": {"volumeName": "v"}});
    world.claim(bound.clone());
    assert_eq!(world.of_claim(), ["persistentvolumeclaim c Bound"]);
    assert_eq!(world.of_volume("v"), ["persistentvolume v Bound"]);
    let mut done = bound;
    done["status"] =
        json!({"phase": "Bound", "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}});
    world.claim(done.clone());
    world.volume("v", json!({"spec": claimed(&own()), "phase": "Bound"}));
    assert_eq!(world.of_claim(), [""; 0]);
    assert_eq!(world.of_volume("v"), [""; 0]);

    world.0.forget(&PERSISTENT_VOLUME, "v");
    assert_eq!(
        world.of_claim(),
        [
            "persistentvolumeclaim c Lost",
            "ClaimLost: Bound claim has lost its PersistentVolume. Data on the volume is lost!"
        ]
    );
    world.volume("v", json!({"spec": claimed("other"), "phase": "Bound"}));
    assert_eq!(
        world.of_claim(),
        [
            "persistentvolumeclaim c Lost",
            "ClaimMisbound: Two claims are bound to the same volume, this one is bound incorrectly"
        ]
    );
}

#[test]
fn a_claim_that_names_a_volume_gets_that_or_waits() {
    let named = json!({"spec": {"volumeName": "v", "resources": {"requests": {"storage": "2Gi"}}}});
    let mut world = World::new();
    world.claim(named);
    assert_eq!(world.of_claim(), [""; 0]);
    world.volume("v", json!({}));
    assert_eq!(
        world.of_claim(),
        ["VolumeMismatch: Cannot bind to requested volume \"v\": requested PV is too small"]
    );
    world.volume("v", json!({"spec": {"capacity": {"storage": "2Gi"}}}));
    assert_eq!(world.of_claim(), ["persistentvolume v for c"]);
    world.volume("v", json!({"spec": claimed("other")}));
    assert_eq!(
        world.of_claim(),
        ["FailedBinding: volume \"v\" already bound to a different claim."]
    );
    world.volume(
        "v",
        json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}),
    );
    assert_eq!(
        world.of_claim(),
        [
            "VolumeMismatch: Cannot bind to requested volume \"v\": the volume is marked for deletion \"v\""
        ]
    );
    world.volume(
        "v",
        json!({"spec": {"capacity": {"storage": "2Gi"}, "volumeAttributesClassName": "gold"}}),
    );
    assert_eq!(
        world.of_claim(),
        [
            "VolumeMismatch: Cannot bind to requested volume \"v\": volumeAttributesClassName does not match"
        ]
    );
    // Whoever set a volume aside for it meant it, whatever else they say.
    world.volume("v", json!({"spec": claimed("")}));
    assert_eq!(world.of_claim(), ["persistentvolume v for c"]);
}

#[test]
fn volumes_are_made_where_their_class_says() {
    let of = |class: &str| json!({"spec": {"storageClassName": class}});
    let mut world = World::new();
    world.claim(of("now"));
    assert_eq!(world.of_claim(), ["persistentvolumeclaim c goes to a"]);
    let chosen = |class: &str, node: &str| json!({"metadata": {"annotations": {SELECTED_NODE: node}}, "spec": {"storageClassName": class}});
    world.claim(chosen("now", "b"));
    let made = format!("make pvc-{} of 1Gi on host-b", own());
    assert_eq!(world.of_claim(), [made.as_str()]);

    world.claim(of("later"));
    let waits = "WaitForFirstConsumer: waiting for first consumer to be created before binding";
    assert_eq!(world.of_claim(), [waits]);
    world.pod("p", "", "Pending");
    let waits = "WaitForPodScheduled: waiting for pod p to be scheduled";
    assert_eq!(world.of_claim(), [waits], "it has no node yet");
    world.pod("o", "", "Pending");
    world.pod("n", "", "Failed");
    let waits = "WaitForPodScheduled: waiting for pods o,p to be scheduled";
    assert_eq!(world.of_claim(), [waits]);
    world.pod("p", "b", "Pending");
    assert_eq!(world.of_claim(), ["persistentvolumeclaim c goes to b"]);

    world.claim(of("theirs"));
    assert_eq!(world.of_claim(), ["persistentvolumeclaim c is noted"]);
    world.claim(of("gone"));
    assert_eq!(
        world.of_claim(),
        ["ProvisioningFailed: storageclass.storage.k8s.io \"gone\" not found"]
    );
    world.claim(json!({"spec": {"storageClassName": "now", "volumeMode": "Block"}}));
    assert_eq!(
        world.of_claim(),
        [
            "ProvisioningFailed: failed to provision volume with StorageClass \"now\": a folder is no block device"
        ]
    );
}

#[test]
fn a_claim_without_a_class_is_given_the_newest_default() {
    let mut world = World::new();
    for (name, born, default) in [
        ("older", "2026-01-01T00:00:00Z", "true"),
        ("b-newer", "2026-01-01T00:01:00Z", "true"),
        ("a-newer", "2026-01-01T00:01:00Z", "true"),
        ("newest", "2026-01-01T00:02:00Z", "false"),
    ] {
        world.0.put(
            &STORAGE_CLASS,
            json!({"metadata": {"name": name, "creationTimestamp": born,
                "annotations": {"storageclass.kubernetes.io/is-default-class": default}}, "provisioner": FOLDER_DRIVER}),
        );
    }
    let none =
        "FailedBinding: no persistent volumes available for this claim and no storage class is set";
    world.claim(json!({}));
    assert_eq!(world.of_claim(), [none], "it says that it is of none");
    world.claim(json!({"spec": {"storageClassName": null}}));
    assert_eq!(world.of_claim(), ["persistentvolumeclaim c is of a-newer"]);
    world.volume("v", json!({}));
    assert_eq!(world.of_claim(), ["persistentvolume v for c"]);
}

#[test]
fn a_volume_that_was_set_aside_for_a_claim_of_another_mode_is_told_of() {
    let mut world = World::new();
    let mut spec = claimed(&own());
    spec["volumeMode"] = json!("Block");
    world.volume("v", json!({ "spec": spec }));
    world.claim(json!({}));
    assert_eq!(
        world.of_volume("v"),
        [
            "VolumeMismatch: Cannot bind PersistentVolume to requested PersistentVolumeClaim \"c\" due to incompatible volumeMode.",
            "VolumeMismatch: Cannot bind PersistentVolume \"v\" to requested PersistentVolumeClaim due to incompatible volumeMode.",
        ]
    );
}

#[test]
fn a_claim_that_waited_takes_a_volume_of_the_node_of_its_pod() {
    let on = |host: &str| {
        json!({"spec": {"storageClassName": "none", "nodeAffinity": {"required": {"nodeSelectorTerms": [
            {"matchExpressions": [{"key": HOST_NAME, "operator": "In", "values": [host]}]}]}}}})
    };
    let mut world = World::new();
    world.volume("va", on("host-a"));
    world.volume("vb", on("host-b"));
    world.claim(json!({"spec": {"storageClassName": "none"}}));
    let waits = "WaitForFirstConsumer: waiting for first consumer to be created before binding";
    assert_eq!(world.of_claim(), [waits]);
    world.pod("p", "b", "Pending");
    assert_eq!(world.of_claim(), ["persistentvolume vb for c"]);
}

#[test]
fn what_becomes_of_a_volume_whose_claim_is_gone_is_its_policy() {
    let folder = json!({"driver": FOLDER_DRIVER, "volumeHandle": "v"});
    for (csi, policy, phase, expected) in [
        (
            Value::Null,
            "Retain",
            "Bound",
            vec!["persistentvolume v Released"],
        ),
        (Value::Null, "Retain", "Released", vec![]),
        (
            folder.clone(),
            "Delete",
            "Bound",
            vec!["persistentvolume v Released"],
        ),
        (folder.clone(), "Delete", "Released", vec!["remove v"]),
        (folder, "Retain", "Released", vec![]),
        (
            json!({"driver": "csi.example", "volumeHandle": "v"}),
            "Delete",
            "Released",
            vec![],
        ),
        (
            Value::Null,
            "Recycle",
            "Released",
            vec![
                "persistentvolume v Failed",
                "VolumeFailedRecycle: No recycler plugin found for the volume!",
            ],
        ),
    ] {
        let mut world = World::new();
        let mut spec = claimed("gone");
        spec["csi"] = csi;
        spec["persistentVolumeReclaimPolicy"] = json!(policy);
        world.volume("v", json!({"spec": spec, "phase": phase}));
        assert_eq!(world.of_volume("v"), expected, "{policy} {phase}");
    }
    let mut world = World::new();
    world.volume("v", json!({"phase": "Pending"}));
    assert_eq!(world.of_volume("v"), ["persistentvolume v Available"]);
}

#[test]
fn claims_in_use_and_volumes_that_are_bound_stay() {
    let going = |finalizer: &str| json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["x/y", finalizer]}});
    let mut world = World::new();
    world.claim(going(CLAIM_PROTECTION));
    let released = ["persistentvolumeclaim c keeps [\"x/y\"]"];
    assert_eq!(world.of_claim(), released);
    for (node, phase, stays) in [
        ("", "Pending", false),
        ("a", "Running", true),
        ("a", "Pending", true),
        ("a", "Succeeded", false),
    ] {
        world.pod("p", node, phase);
        assert_eq!(world.of_claim().is_empty(), stays, "{node} {phase}");
    }

    let mut bound = going(VOLUME_PROTECTION);
    bound["spec"] = claimed(&own());
    world.volume("v", bound);
    assert_eq!(world.of_volume("v"), [""; 0], "its claim is there");
    world.0.forget(&PERSISTENT_VOLUME_CLAIM, "c");
    assert_eq!(world.of_volume("v"), ["persistentvolume v keeps [\"x/y\"]"]);
}

#[test]
fn a_folder_grows_where_its_class_lets_it() {
    for (class, grows) in [("now", true), ("later", false)] {
        let mut world = World::new();
        let mut spec = claimed(&own());
        spec["csi"] = json!({"driver": FOLDER_DRIVER, "volumeHandle": "v"});
        spec["storageClassName"] = json!(class);
        world.volume("v", json!({"spec": spec, "phase": "Bound"}));
        world.claim(json!({
            "metadata": {"annotations": {BIND_COMPLETED: "yes"}},
            "spec": {"volumeName": "v", "storageClassName": class, "resources": {"requests": {"storage": "3Gi"}}},
            "status": {"phase": "Bound", "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}},
        }));
        let expected: &[&str] = match grows {
            true => &["persistentvolume v has 3Gi"],
            false => &[],
        };
        assert_eq!(world.of_claim(), expected, "{class}");
    }
}

#[test]
fn a_pod_brings_its_claims_along_once() {
    let mut small = Small::new([CONTROLLER.reads, ephemeral::CONTROLLER.reads]);
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"resources": {"requests": {"storage": "1Gi"}}}});
    small.put(
        &POD,
        json!({"metadata": {"name": "p"}, "spec": {"volumes": [
            {"name": "scratch", "ephemeral": {"volumeClaimTemplate": template}}]}, "status": {}}),
    );
    let told = small.told(&ephemeral::CONTROLLER, "p");
    assert_eq!(told, ["create persistentvolumeclaims p-scratch"]);
    let owners = crate::small::owned_by(&POD, "p");
    small.put(
        &PERSISTENT_VOLUME_CLAIM,
        json!({"metadata": {"name": "p-scratch", "ownerReferences": owners}, "spec": {}, "status": {}}),
    );
    assert_eq!(small.look(&ephemeral::CONTROLLER, "p").writes, []);
    small.put(
        &PERSISTENT_VOLUME_CLAIM,
        json!({"metadata": {"name": "p-scratch"}, "spec": {}, "status": {}}),
    );
    let writes = small.look(&ephemeral::CONTROLLER, "p").writes;
    let lines: Vec<String> = writes.into_iter().map(line).collect();
    assert_eq!(
        lines,
        ["FailedCreate: PVC d/p-scratch was not created for pod d/p (pod is not owner)"]
    );
}
