//! The arithmetic of budgets, over small views.

use serde_json::{Value, json};

use super::*;
use crate::Reads;
use crate::small::{Small, owned_by};

fn small() -> Small {
    Small::new([CONTROLLER.reads as fn(&mut Reads), STALE.reads])
}

/// The status that the budget gets, and the reasons of what is told.
fn status_of(small: &Small) -> (Value, Vec<&'static str>) {
    let writes = small.look(&CONTROLLER, "b").writes;
    let told = writes.iter().filter_map(|write| match write {
        Write::Event(note) => Some(note.reason),
        _ => None,
    });
    (small.status(&CONTROLLER, "b"), told.collect())
}

fn pod(name: &str, ready: bool, owners: Value) -> Value {
    json!({
        "metadata": {"name": name, "labels": {"app": "web"}, "ownerReferences": owners},
        "spec": {"containers": []},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": if ready {"True"} else {"False"},
            "lastTransitionTime": "2026-01-01T00:00:00Z"}]},
    })
}

fn budget(spec: Value) -> Value {
    let mut spec = spec;
    spec["selector"] = json!({"matchLabels": {"app": "web"}});
    json!({"metadata": {"name": "b"}, "spec": spec})
}

#[test]
fn what_a_budget_allows() {
    use weft_kinds::REPLICA_SET;
    // The scale of the set, its pods and those of them that are ready → expected, desired, current, allowed.
    for (spec, scale, ready, all, expected) in [
        (json!({"minAvailable": 2}), 3, 3, 3, [3, 2, 3, 1]),
        (json!({"minAvailable": 3}), 3, 3, 3, [3, 3, 3, 0]),
        (json!({"minAvailable": 5}), 3, 3, 3, [3, 5, 3, 0]),
        (json!({"minAvailable": 0}), 3, 2, 3, [3, 0, 2, 2]),
        // A share is one of what is asked for, not of what is there, and is rounded up.
        (json!({"minAvailable": "50%"}), 7, 5, 5, [7, 4, 5, 1]),
        (json!({"minAvailable": "0%"}), 4, 4, 4, [4, 0, 4, 4]),
        (json!({"minAvailable": "100%"}), 4, 4, 4, [4, 4, 4, 0]),
        (json!({"maxUnavailable": 1}), 4, 4, 4, [4, 3, 4, 1]),
        (json!({"maxUnavailable": 1}), 4, 3, 4, [4, 3, 3, 0]),
        (json!({"maxUnavailable": 9}), 4, 4, 4, [4, 0, 4, 4]),
        (json!({"maxUnavailable": "30%"}), 5, 5, 5, [5, 3, 5, 2]),
        (json!({}), 3, 3, 3, [0, 0, 3, 0]),
        // Nobody there yet: nobody may go.
        (json!({"minAvailable": 0}), 3, 0, 0, [0, 0, 0, 0]),
    ] {
        let mut small = small();
        let set = json!({"metadata": {"name": "s"}, "spec": {"replicas": scale}});
        small.put(&REPLICA_SET, set);
        for number in 0..all {
            let owners = owned_by(&REPLICA_SET, "s");
            small.put(&POD, pod(&format!("p{number}"), number < ready, owners));
        }
        small.put(&POD_DISRUPTION_BUDGET, budget(spec.clone()));
        let (status, _) = status_of(&small);
        let fields = [
            "expectedPods",
            "desiredHealthy",
            "currentHealthy",
            "disruptionsAllowed",
        ];
        assert_eq!(
            fields.map(|field| status[field].as_i64().unwrap()),
            expected,
            "{spec}"
        );
        let holds = if expected[3] > 0 { "True" } else { "False" };
        assert_eq!(status["conditions"][0]["status"], holds, "{spec}");
        assert_eq!(status["observedGeneration"], 1);
    }
}

#[test]
fn scales_are_those_of_the_topmost_controllers() {
    use weft_kinds::{DAEMON_SET, DEPLOYMENT, REPLICA_SET, REPLICATION_CONTROLLER};
    let mut small = small();
    small.put(
        &DEPLOYMENT,
        json!({"metadata": {"name": "web"}, "spec": {"replicas": 6}}),
    );
    for set in ["old", "new"] {
        let owners = owned_by(&DEPLOYMENT, "web");
        small.put(
            &REPLICA_SET,
            json!({"metadata": {"name": set, "ownerReferences": owners}, "spec": {"replicas": 2}}),
        );
        small.put(&POD, pod(set, true, owned_by(&REPLICA_SET, set)));
    }
    let rc = json!({"metadata": {"name": "rc"}, "spec": {"replicas": 4}});
    small.put(&REPLICATION_CONTROLLER, rc);
    small.put(
        &POD,
        pod("of-rc", true, owned_by(&REPLICATION_CONTROLLER, "rc")),
    );
    small.put(&POD, pod("alone", true, json!([])));
    small.put(&POD_DISRUPTION_BUDGET, budget(json!({"maxUnavailable": 1})));
    let (status, told) = status_of(&small);
    assert_eq!(
        status["expectedPods"], 10,
        "the Deployment once, and the other"
    );
    assert_eq!(told, ["UnmanagedPods"]);
    for (owners, why) in [
        (
            owned_by(&DAEMON_SET, "ds"),
            "daemonsets.apps does not implement the scale subresource",
        ),
        (
            owned_by(&REPLICA_SET, "gone"),
            "found no controllers for pod \"stray\"",
        ),
        (
            json!([{"apiVersion": "x.dev/v1", "kind": "Odd", "name": "o", "uid": "o", "controller": true}]),
            "no matches for kind \"Odd\" in version \"x.dev/v1\"",
        ),
    ] {
        small.put(&POD, pod("stray", true, owners));
        let (status, told) = status_of(&small);
        assert_eq!(status["disruptionsAllowed"], 0);
        assert_eq!(status["conditions"][0]["reason"], "SyncFailed");
        assert_eq!(status["conditions"][0]["message"], why);
        assert_eq!(told, ["CalculateExpectedPodCountFailed"]);
        small.forget(&POD, "stray");
    }
}

#[test]
fn kinds_of_users_say_their_scale_where_their_definition_says_it() {
    let version = json!({"name": "v1", "served": true, "storage": true,
        "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}},
        "subresources": {"scale": {"specReplicasPath": ".spec.size", "statusReplicasPath": ".status.size"}}});
    let names =
        json!({"plural": "herds", "singular": "herd", "kind": "Herd", "listKind": "HerdList"});
    let definition = json!({"metadata": {"name": "herds.x.dev"}, "spec": {"group": "x.dev", "scope": "Namespaced",
        "names": names, "versions": [version]}, "status": {"acceptedNames": names}});
    let kinds = weft_kinds::apiextensions::custom::Definition::kinds(&definition).unwrap();
    let herd = &kinds[0];
    for (spec, expected) in [
        (json!({"size": 5}), Ok(5)),
        (
            json!({}),
            Err("Internal error occurred: the spec replicas field \".spec.size\" does not exist"),
        ),
    ] {
        let mut small = small();
        small.serve(herd);
        small.put(herd, json!({"metadata": {"name": "h"}, "spec": spec}));
        small.put(&POD, pod("p", true, owned_by(herd, "h")));
        small.put(&POD_DISRUPTION_BUDGET, budget(json!({"maxUnavailable": 1})));
        let (status, _) = status_of(&small);
        match expected {
            Ok(pods) => assert_eq!(status["expectedPods"], pods),
            Err(why) => assert_eq!(status["conditions"][0]["message"], why),
        }
    }
}

#[test]
fn an_eviction_counts_until_it_is_seen_or_too_old() {
    for (since, deleting, healthy, kept, told) in [
        // Just evicted: not healthy any more, and still awaited.
        ("2026-01-01T00:09:30Z", false, 1, true, vec![]),
        // Too long ago: it stays after all.
        ("2026-01-01T00:07:00Z", false, 2, false, vec!["NotDeleted"]),
        // It goes: that is what was waited for.
        ("2026-01-01T00:09:30Z", true, 1, false, vec![]),
    ] {
        let mut small = small();
        let mut going = pod("a", true, json!([]));
        if deleting {
            going["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:10:30Z");
        }
        small.put(&POD, going);
        small.put(&POD, pod("b", true, json!([])));
        let mut budget = budget(json!({"minAvailable": 1}));
        budget["status"] = json!({"disruptedPods": {"a": since, "long-gone": since}, "currentHealthy": 9,
            "desiredHealthy": 1, "expectedPods": 2, "disruptionsAllowed": 0});
        small.put(&POD_DISRUPTION_BUDGET, budget);
        let outcome = small.look(&CONTROLLER, "b");
        let (status, notes) = status_of(&small);
        assert_eq!(status["currentHealthy"], healthy, "{since} {deleting}");
        let gone = if kept {
            json!({"long-gone": null})
        } else {
            Value::Null
        };
        assert_eq!(status["disruptedPods"], gone, "{since} {deleting}");
        assert_eq!(outcome.requeue_after.is_some(), kept);
        assert_eq!(notes, told);
    }
}

#[test]
fn a_disruption_that_did_not_come_is_taken_back() {
    for (since, reason, expected) in [
        ("2026-01-01T00:09:00Z", "EvictionByEvictionAPI", "later"),
        (
            "2026-01-01T00:08:00Z",
            "EvictionByEvictionAPI",
            "taken back",
        ),
        ("2026-01-01T00:00:00Z", "TerminationByKubelet", "nothing"),
    ] {
        let mut small = small();
        let mut doomed = pod("a", true, json!([]));
        doomed["status"]["conditions"] = json!([{"type": "DisruptionTarget", "status": "True",
            "reason": reason, "lastTransitionTime": since}]);
        small.put(&POD, doomed);
        let outcome = small.look(&STALE, "a");
        let done = match (outcome.writes.len(), outcome.requeue_after) {
            (0, None) => "nothing",
            (0, Some(_)) => "later",
            _ => "taken back",
        };
        assert_eq!(done, expected, "{since} {reason}");
    }
}
