//! One look at a StatefulSet each: which pods are there, what is done about them.

use serde_json::{Value, json};

use super::*;
use crate::small::{Small, owned_by};
use crate::write::Write;

fn template(image: &str) -> Value {
    json!({"metadata": {"labels": {"app": "db"}}, "spec": {"containers": [{"name": "c", "image": image}]}})
}

fn set(changes: &Value) -> Value {
    let mut set = json!({
        "metadata": {"name": "db"},
        "spec": {
            "replicas": 3, "serviceName": "db", "podManagementPolicy": "OrderedReady",
            "selector": {"matchLabels": {"app": "db"}}, "template": template("x:2"),
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0, "maxUnavailable": 1}},
        },
        "status": {"replicas": 0, "currentRevision": "db-old"},
    });
    merge(&mut set, changes);
    set
}

fn merge(target: &mut Value, changes: &Value) {
    match changes {
        Value::Object(members) => {
            for (key, change) in members {
                merge(&mut target[key], change);
            }
        }
        other => *target = other.clone(),
    }
}

fn revision(name: &str, number: i64, image: &str) -> Value {
    let mut template = template(image);
    template["$patch"] = json!("replace");
    json!({
        "metadata": {"name": name, "labels": {"app": "db", "controller.kubernetes.io/hash": name},
            "ownerReferences": owned_by(&STATEFUL_SET, "db")},
        "data": {"spec": {"template": template}}, "revision": number,
    })
}

/// A pod as `ORDINAL[o][!|~|x|-]`: of the old revision; not ready; pending; failed; being deleted.
fn pod(told: &str) -> Value {
    let digits = told.find(|letter: char| !letter.is_ascii_digit());
    let (ordinal, state) = told.split_at(digits.unwrap_or(told.len()));
    let name = format!("db-{ordinal}");
    let is = |letter| state.contains(letter);
    let phase = match (is('x'), is('~')) {
        (true, _) => "Failed",
        (_, true) => "Pending",
        _ => "Running",
    };
    let ready = if phase == "Running" && !is('!') {
        "True"
    } else {
        "False"
    };
    let mut pod = json!({
        "metadata": {"name": name, "ownerReferences": owned_by(&STATEFUL_SET, "db"), "labels": {
            "app": "db", "statefulset.kubernetes.io/pod-name": name,
            "controller-revision-hash": if is('o') { "db-old" } else { "db-new" }}},
        "spec": {"nodeName": "n0", "containers": []},
        "status": {"phase": phase, "conditions": [
            {"type": "Ready", "status": ready, "lastTransitionTime": "2026-01-01T00:09:50Z"}]},
    });
    if is('-') {
        pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:10:30Z");
    }
    pod
}

fn world(changes: &Value, pods: &str) -> Small {
    let mut small = Small::new([CONTROLLER.reads]);
    small.put(&STATEFUL_SET, set(changes));
    small.put(&CONTROLLER_REVISION, revision("db-old", 1, "x:1"));
    small.put(&CONTROLLER_REVISION, revision("db-new", 2, "x:2"));
    for told in pods.split_whitespace() {
        small.put(&POD, pod(told));
    }
    small
}

fn told(small: &Small) -> String {
    let told = small.told(&CONTROLLER, "db").join(", ");
    told.replace("create pods db-", "+")
        .replace("delete pods db-", "-")
}

#[test]
fn pods_come_and_go_in_order() {
    let parallel = json!({"spec": {"podManagementPolicy": "Parallel"}});
    let ordered = json!({});
    for (changes, pods, expected) in [
        (&ordered, "", "+0"),
        (&ordered, "0", "+1"),
        (&ordered, "0! ", ""),
        (&ordered, "0~", ""),
        (&ordered, "0-", ""),
        // The first hole comes first, whatever is behind it.
        (&ordered, "0 2", "+1"),
        (&ordered, "1 2", "+0"),
        (&ordered, "0 1 2", ""),
        // What ended is removed, and made anew once it is gone.
        (&ordered, "0x 1 2", "-0"),
        (&ordered, "0x- 1 2", ""),
        // Shrinking: from the top, one at a time, when all before are available …
        (&ordered, "0 1 2 3 4", "-4"),
        (&ordered, "0 1 2 3 4-", ""),
        (&ordered, "0 1! 2 3 4", ""),
        // … but one that is not available itself does not keep itself.
        (&ordered, "0 1 2 3!", "-3"),
        (&ordered, "0 1 2 3! 4!", ""),
        (&ordered, "0 1 2 3 4!", "-4"),
        (&parallel, "", "+0, +1, +2"),
        (&parallel, "1!", "+0, +2"),
        (&parallel, "0- 1 2", ""),
        (&parallel, "0 1 2 3 4!", "-4, -3"),
        (&parallel, "0 2 4", "+1, -4"),
    ] {
        assert_eq!(told(&world(changes, pods)), expected, "{changes} {pods}");
    }
}

#[test]
fn ordinals_start_where_they_are_told_to() {
    let from = |start: i64| json!({"spec": {"replicas": 2, "ordinals": {"start": start}}});
    for (start, pods, expected) in [
        (5, "", "+5"),
        (5, "5 6", ""),
        (1, "0 1 2", "-0"),
        (1, "0 1", "+2"),
    ] {
        assert_eq!(told(&world(&from(start), pods)), expected, "{start} {pods}");
    }
}

#[test]
fn updates_go_down_from_the_top() {
    let with = |policy: &str, partition: i64, most: Value| {
        json!({"spec": {"podManagementPolicy": policy, "updateStrategy": {
            "rollingUpdate": {"partition": partition, "maxUnavailable": most}}}})
    };
    let ordered = |partition, most| with("OrderedReady", partition, most);
    let parallel = |partition, most| with("Parallel", partition, most);
    for (changes, pods, expected) in [
        (ordered(0, json!(1)), "0o 1o 2o", "-2"),
        (ordered(0, json!(1)), "0o 1o 2-", ""),
        (ordered(0, json!(1)), "0o 1o 2!", ""),
        (ordered(0, json!(1)), "0o 1o 2", "-1"),
        (ordered(0, json!(1)), "0 1 2", ""),
        (ordered(2, json!(1)), "0o 1o 2", ""),
        (ordered(2, json!(1)), "0o 1o 2o", "-2"),
        (ordered(3, json!(1)), "0o 1o 2o", ""),
        (ordered(0, json!(2)), "0o 1o 2o", "-2, -1"),
        (ordered(0, json!("50%")), "0o 1o 2o", "-2"),
        // A share that comes to none is one.
        (ordered(0, json!("10%")), "0o 1o 2o", "-2"),
        (parallel(0, json!(1)), "0o 1o 2o", "-2"),
        (parallel(0, json!(2)), "0o 1o 2o", "-2, -1"),
        (parallel(0, json!(1)), "0o 1o 2!", ""),
        // Old ones that serve nobody cost nothing.
        (parallel(0, json!(1)), "0o! 1o 2o", "-0"),
        (parallel(0, json!(2)), "0o! 1o 2o", "-0, -2"),
        (parallel(1, json!(1)), "0o! 1o 2o", ""),
        (
            json!({"spec": {"updateStrategy": {"type": "OnDelete", "rollingUpdate": null}}}),
            "0o 1o 2o",
            "",
        ),
    ] {
        assert_eq!(told(&world(&changes, pods)), expected, "{changes} {pods}");
    }
}

/// What a look creates, the only one.
fn created(small: &Small) -> Value {
    let writes = small.look(&CONTROLLER, "db").writes.into_iter();
    let mut made = writes.filter_map(|write| match write {
        Write::Create { object, .. } => Some(object.into_value()),
        _ => None,
    });
    made.next().unwrap()
}

#[test]
fn a_pod_is_its_ordinal() {
    let claims = json!([{"metadata": {"name": "data", "labels": {"tier": "a"}}, "spec": {"accessModes": ["ReadWriteOnce"]}}]);
    let mut small = world(&json!({"spec": {"volumeClaimTemplates": claims}}), "");
    let claim = created(&small);
    assert_eq!(claim["metadata"]["name"], "data-db-0");
    assert_eq!(
        claim["metadata"]["labels"],
        json!({"tier": "a", "app": "db"})
    );
    assert_eq!(told(&small), "create persistentvolumeclaims data-db-0, +0");
    small.put(
        &PERSISTENT_VOLUME_CLAIM,
        json!({"metadata": {"name": "data-db-0"}}),
    );
    let pod = created(&small);
    assert_eq!(
        pod["metadata"]["labels"],
        json!({"app": "db", "statefulset.kubernetes.io/pod-name": "db-0", "apps.kubernetes.io/pod-index": "0",
            "controller-revision-hash": "db-new"})
    );
    assert_eq!(pod["spec"]["hostname"], "db-0");
    assert_eq!(pod["spec"]["subdomain"], "db");
    assert_eq!(
        pod["spec"]["volumes"],
        json!([{"name": "data", "persistentVolumeClaim": {"claimName": "data-db-0"}}])
    );
    // A claim that is going holds the pod back.
    small.put(
        &PERSISTENT_VOLUME_CLAIM,
        json!({"metadata": {"name": "data-db-0", "deletionTimestamp": "2026-01-01T00:10:30Z"}}),
    );
    assert_eq!(told(&small), "");
    // Below the partition pods come back as they were.
    let small = world(
        &json!({"spec": {"updateStrategy": {"rollingUpdate": {"partition": 1}}}}),
        "1 2",
    );
    let pod = created(&small);
    assert_eq!(
        pod["metadata"]["labels"]["controller-revision-hash"],
        "db-old"
    );
    assert_eq!(pod["spec"]["containers"][0]["image"], "x:1");
}

#[test]
fn revisions_are_made_found_again_and_forgotten() {
    // A template that nobody had before.
    let mut small = Small::new([CONTROLLER.reads]);
    small.put(&STATEFUL_SET, set(&json!({"spec": {"replicas": 0}})));
    let made = created(&small);
    assert_eq!(made["revision"], 1);
    assert_eq!(made["data"]["spec"]["template"]["$patch"], "replace");
    let status = small.status(&CONTROLLER, "db");
    assert_eq!(status["updateRevision"], made["metadata"]["name"]);
    assert_eq!(status["currentRevision"], made["metadata"]["name"]);
    assert_eq!(status["collisionCount"], 0);
    // Somebody else has its name.
    let name = made["metadata"]["name"].as_str().unwrap();
    small.put(
        &CONTROLLER_REVISION,
        json!({"metadata": {"name": name}, "data": {}, "revision": 1}),
    );
    assert_ne!(created(&small)["metadata"]["name"], name);
    assert_eq!(small.status(&CONTROLLER, "db")["collisionCount"], 1);
    // Back to the first template: its revision becomes the newest.
    let small = world(&json!({"spec": {"template": template("x:1")}}), "0 1 2");
    assert_eq!(told(&small), "patch controllerrevisions db-old, -2");
    // Beyond the limit the oldest go; those of pods stay.
    let mut small = world(
        &json!({"spec": {"revisionHistoryLimit": 1}, "status": {"currentRevision": "db-new"}}),
        "0 1 2",
    );
    for (name, number) in [("db-a", -3), ("db-b", -2), ("db-c", -1)] {
        small.put(&CONTROLLER_REVISION, revision(name, number, name));
    }
    assert_eq!(
        told(&small),
        "delete controllerrevisions db-a, delete controllerrevisions db-b, delete controllerrevisions db-c"
    );
    small.put(&POD, pod("2o"));
    assert!(!told(&small).contains("db-old"));
}

#[test]
fn the_status_counts_by_revision() {
    for (pods, expected) in [
        (
            "0 1 2",
            json!({"replicas": 3, "readyReplicas": 3, "availableReplicas": 3, "currentReplicas": 3,
            "updatedReplicas": 3, "currentRevision": "db-new", "updateRevision": "db-new"}),
        ),
        (
            "0o 1o 2!",
            json!({"replicas": 3, "readyReplicas": 2, "availableReplicas": 2, "currentReplicas": 2,
            "updatedReplicas": 1, "updateRevision": "db-new"}),
        ),
        // What is taken away in the same look is not counted among the current ones.
        (
            "0o 1o 2o",
            json!({"replicas": 3, "readyReplicas": 3, "availableReplicas": 3, "currentReplicas": 2,
            "updateRevision": "db-new"}),
        ),
        (
            "0o 1-",
            json!({"replicas": 2, "readyReplicas": 2, "availableReplicas": 2, "currentReplicas": 1,
            "updateRevision": "db-new"}),
        ),
    ] {
        let mut status = world(&json!({}), pods).status(&CONTROLLER, "db");
        for common in ["observedGeneration", "collisionCount"] {
            assert!(status.as_object_mut().unwrap().remove(common).is_some());
        }
        assert_eq!(status, expected, "{pods}");
    }
    // Ready for ten seconds; twenty are asked for.
    let small = world(&json!({"spec": {"minReadySeconds": 20}}), "0");
    assert_eq!(told(&small), "");
    assert_eq!(small.status(&CONTROLLER, "db")["availableReplicas"], 0);
    let again = small.look(&CONTROLLER, "db").requeue_after;
    assert_eq!(again.map(|wait| wait.as_secs()), Some(10));
}

#[test]
fn claims_belong_to_who_takes_them_away() {
    let claims = json!([{"metadata": {"name": "data"}, "spec": {}}]);
    let of_set = owned_by(&STATEFUL_SET, "db");
    let of_pod = |name: &str| owned_by(&POD, name);
    let none = Value::Null;
    let stranger = owned_by(&POD, "stranger");
    let mut gone = owned_by(&STATEFUL_SET, "db");
    gone[0]["uid"] = json!("another");
    // (when deleted, when scaled), the claim's ordinal, its owners → those that it gets, if others.
    for (policy, ordinal, before, after) in [
        (("Retain", "Retain"), 0, &none, None),
        (("Retain", "Retain"), 0, &of_set, Some(none.clone())),
        (("Delete", "Retain"), 0, &none, Some(of_set.clone())),
        (("Delete", "Retain"), 0, &of_set, None),
        (("Delete", "Retain"), 1, &none, Some(of_set.clone())),
        (("Retain", "Delete"), 0, &none, None),
        (("Retain", "Delete"), 1, &none, Some(of_pod("db-1"))),
        (("Retain", "Delete"), 0, &of_pod("db-0"), Some(none.clone())),
        (("Delete", "Delete"), 0, &none, Some(of_set.clone())),
        (("Delete", "Delete"), 1, &of_set, Some(of_pod("db-1"))),
        (("Delete", "Delete"), 1, &of_pod("db-1"), None),
        // A namesake of the set that is gone: garbage collection has it.
        (("Delete", "Retain"), 0, &gone, None),
        // Somebody else's stays somebody else's.
        (("Delete", "Retain"), 0, &stranger, None),
    ] {
        let mut small = world(
            &json!({"spec": {"replicas": 1, "volumeClaimTemplates": claims,
                "persistentVolumeClaimRetentionPolicy": {"whenDeleted": policy.0, "whenScaled": policy.1}}}),
            "0 1",
        );
        let name = format!("data-db-{ordinal}");
        let claim = json!({"metadata": {"name": name, "ownerReferences": before}});
        small.put(&PERSISTENT_VOLUME_CLAIM, claim);
        let mut writes = small.look(&CONTROLLER, "db").writes.into_iter();
        let patched = writes.find_map(|write| match write {
            Write::Patch {
                kind, key, patch, ..
            } if kind == *PERSISTENT_VOLUME_CLAIM && *key.name == *name => {
                Some(patch["metadata"]["ownerReferences"].clone())
            }
            _ => None,
        });
        assert_eq!(patched, after, "{policy:?} {ordinal} {before}");
    }
}

#[test]
fn a_stale_claim_is_waited_for() {
    let claims = json!([{"metadata": {"name": "data"}, "spec": {}}]);
    let changes = json!({"spec": {"volumeClaimTemplates": claims,
        "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Retain", "whenScaled": "Delete"}}});
    let mut small = world(&changes, "");
    let owners = owned_by(&POD, "db-0");
    small.put(
        &PERSISTENT_VOLUME_CLAIM,
        json!({"metadata": {"name": "data-db-0", "ownerReferences": owners}}),
    );
    assert_eq!(
        told(&small),
        "",
        "it goes with the pod that it was given to"
    );
    small.forget(&PERSISTENT_VOLUME_CLAIM, "data-db-0");
    assert_eq!(told(&small), "create persistentvolumeclaims data-db-0, +0");
}

#[test]
fn pods_of_this_name_are_adopted_and_no_others() {
    let mut small = world(&json!({}), "1 2");
    let mut stray = pod("0");
    stray["metadata"]["ownerReferences"] = Value::Null;
    small.put(&POD, stray);
    let mut other = pod("0");
    other["metadata"]["ownerReferences"] = Value::Null;
    other["metadata"]["name"] = json!("web-0");
    small.put(&POD, other);
    assert_eq!(told(&small), "patch pods db-0");
}

#[test]
fn names_say_the_ordinal() {
    for (name, expected) in [
        ("db-0", Some(("db", 0))),
        ("my-db-12", Some(("my-db", 12))),
        ("db", None),
        ("db-", None),
        ("db-x", None),
        ("db-+1", None),
        ("db-99999999999", None),
    ] {
        assert_eq!(ordinal_of(name), expected, "{name}");
    }
}

#[test]
fn a_number_that_no_cluster_holds_costs_a_burst() {
    let changes = json!({"spec": {"replicas": i32::MAX, "podManagementPolicy": "Parallel"}});
    let mut small = world(&changes, "");
    assert_eq!(small.told(&CONTROLLER, "db").len(), 500);
    small.put(&POD, pod("2147483646"));
    assert_eq!(small.told(&CONTROLLER, "db").len(), 500);
}

#[test]
fn a_set_that_goes_makes_no_revision() {
    let other =
        json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "x:3"}]}}}});
    let made = |changes: &Value| {
        let made = told(&world(changes, "0 1 2"));
        made.contains("create controllerrevisions")
    };
    assert!(made(&other));
    let mut going = other;
    going["metadata"] = json!({
        "deletionTimestamp": "2026-01-01T00:09:00Z", "finalizers": ["foregroundDeletion"],
    });
    assert!(!made(&going), "it would be collected, and made again");
}
