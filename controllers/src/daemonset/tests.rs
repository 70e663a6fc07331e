//! One look at a DaemonSet each: which nodes there are, which pods are on them, what is done about it.

use serde_json::{Value, json};

use super::*;
use crate::small::{Small, owned_by};
use crate::write::Write;

fn template() -> Value {
    json!({"metadata": {"labels": {"app": "log"}}, "spec": {"containers": [{"name": "c", "image": "x:2"}]}})
}

fn set(spec: &Value) -> Value {
    let mut set = json!({
        "metadata": {"name": "log"},
        "spec": {"selector": {"matchLabels": {"app": "log"}}, "template": template(),
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}}},
    });
    for (key, value) in spec.as_object().into_iter().flatten() {
        set["spec"][key] = value.clone();
    }
    set
}

fn node(name: &str, labels: Value, taints: Value) -> Value {
    json!({"metadata": {"name": name, "labels": labels}, "spec": {"taints": taints}})
}

/// A pod as `NAME@NODE[o][!|~|x|s|-]`: of the old revision; not ready; not placed yet; failed; succeeded; being deleted.
fn pod(told: &str) -> Value {
    let (name, place) = told.split_once('@').unwrap();
    let (node, state) = place.split_at(2);
    let is = |letter| state.contains(letter);
    let phase = match (is('x'), is('s')) {
        (true, _) => "Failed",
        (_, true) => "Succeeded",
        _ => "Running",
    };
    let ready = if phase == "Running" && !is('!') && !is('~') {
        "True"
    } else {
        "False"
    };
    let mut spec = json!({"nodeName": node, "containers": []});
    if is('~') {
        let terms = json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}]);
        spec = json!({"containers": [], "affinity": {"nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}});
    }
    let mut pod = json!({
        "metadata": {"name": name, "ownerReferences": owned_by(&DAEMON_SET, "log"),
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {"app": "log", "controller-revision-hash": if is('o') { "old" } else { "new" }}},
        "spec": spec,
        "status": {"phase": phase, "conditions": [
            {"type": "Ready", "status": ready, "lastTransitionTime": "2026-01-01T00:09:50Z"}]},
    });
    if is('-') {
        pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:10:30Z");
    }
    pod
}

fn revision(hash: &str, number: i64, image: &str) -> Value {
    let mut template = template();
    template["spec"]["containers"][0]["image"] = json!(image);
    template["$patch"] = json!("replace");
    json!({
        "metadata": {"name": format!("log-{hash}"), "labels": {"app": "log", "controller-revision-hash": hash},
            "ownerReferences": owned_by(&DAEMON_SET, "log")},
        "data": {"spec": {"template": template}}, "revision": number,
    })
}

fn world(spec: &Value, nodes: &[Value], pods: &str) -> Small {
    let mut small = Small::new([CONTROLLER.reads]);
    small.put(&DAEMON_SET, set(spec));
    small.put(&CONTROLLER_REVISION, revision("old", 1, "x:1"));
    small.put(&CONTROLLER_REVISION, revision("new", 2, "x:2"));
    for node in nodes {
        small.put(&NODE, node.clone());
    }
    for told in pods.split_whitespace() {
        small.put(&POD, pod(told));
    }
    small
}

fn three() -> [Value; 3] {
    ["n0", "n1", "n2"].map(|name| node(name, json!({}), json!([])))
}

/// Nodes that get a pod as `+n0`, pods that are removed as `-a`.
fn told(small: &Small) -> String {
    let writes = small.look(&CONTROLLER, "log").writes.into_iter();
    let told = writes.filter_map(|write| match write {
        Write::Create { kind, object, .. } if kind == *POD => {
            let value = object.into_value();
            let path = "/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms/0/matchFields/0/values/0";
            Some(format!("+{}", value.pointer(path).unwrap().as_str().unwrap()))
        }
        Write::Delete { kind, key, .. } if kind == *POD => Some(format!("-{}", key.name)),
        _ => None,
    });
    told.collect::<Vec<_>>().join(" ")
}

#[test]
fn each_node_has_one() {
    for (pods, expected) in [
        ("", "+n0 +n1 +n2"),
        ("a@n0 b@n1~", "+n2"),
        ("a@n0 b@n1 c@n2", ""),
        // While one goes, the node waits.
        ("a@n0- b@n1 c@n2", ""),
        ("a@n0 b@n1 c@n2 d@n2", "-d"),
        // A placed one comes before one that is not.
        ("a@n0~ b@n0 c@n1 d@n2", "-a"),
        ("a@n0x b@n1 c@n2", "-a"),
        ("a@n0s b@n1 c@n2", "-a"),
        ("a@n0x- b@n1 c@n2", "+n0"),
        // Meant for a node that is gone; one that was there is the node controller's.
        ("a@n0 b@n1 c@n2 d@n9~", "-d"),
        ("a@n0 b@n1 c@n2 d@n9", ""),
    ] {
        assert_eq!(told(&world(&json!({}), &three(), pods)), expected, "{pods}");
    }
}

#[test]
fn nodes_are_selected_and_taints_borne() {
    let taint = |key: &str, effect: &str| json!([{"key": key, "effect": effect, "value": "v"}]);
    let with = |spec: Value| {
        let mut all = template();
        for (key, value) in spec.as_object().unwrap() {
            all["spec"][key] = value.clone();
        }
        json!({ "template": all })
    };
    let zone = json!({"nodeSelector": {"zone": "a"}});
    let affinity = json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
        "nodeSelectorTerms": [{"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]}]}}}});
    let bearing = json!({"tolerations": [{"key": "k", "operator": "Exists"}]});
    // The template, the node's zone and taints → without a pod, and with one.
    for (spec, labels, taints, without, within) in [
        (json!({}), "a", json!([]), "+n0", ""),
        (zone.clone(), "a", json!([]), "+n0", ""),
        (zone.clone(), "b", json!([]), "", "-p"),
        (affinity.clone(), "a", json!([]), "+n0", ""),
        (affinity.clone(), "b", json!([]), "", "-p"),
        (json!({"nodeName": "n0"}), "a", json!([]), "+n0", ""),
        (json!({"nodeName": "n1"}), "a", json!([]), "", "-p"),
        // What keeps others from coming does not drive one off; what drives off does.
        (json!({}), "a", taint("k", "NoSchedule"), "", ""),
        (json!({}), "a", taint("k", "NoExecute"), "", "-p"),
        (json!({}), "a", taint("k", "PreferNoSchedule"), "+n0", ""),
        (bearing.clone(), "a", taint("k", "NoExecute"), "+n0", ""),
        (
            json!({}),
            "a",
            taint("node.kubernetes.io/not-ready", "NoExecute"),
            "+n0",
            "",
        ),
        (
            json!({}),
            "a",
            taint("node.kubernetes.io/unschedulable", "NoSchedule"),
            "+n0",
            "",
        ),
        (
            json!({}),
            "a",
            taint("node.kubernetes.io/network-unavailable", "NoSchedule"),
            "",
            "",
        ),
        (
            json!({"hostNetwork": true}),
            "a",
            taint("node.kubernetes.io/network-unavailable", "NoSchedule"),
            "+n0",
            "",
        ),
    ] {
        let nodes = [node("n0", json!({"zone": labels}), taints.clone())];
        let here = |pods: &str| {
            let small = world(&with(spec.clone()), &nodes, pods);
            told(&small)
        };
        assert_eq!(here(""), without, "{spec} {labels} {taints}");
        // Of whichever revision.
        let mut small = world(&with(spec.clone()), &nodes, "p@n0");
        let strategy = json!({"updateStrategy": {"type": "OnDelete"}, "template": with(spec.clone())["template"]});
        small.put(&DAEMON_SET, set(&strategy));
        assert_eq!(told(&small), within, "{spec} {labels} {taints} with a pod");
    }
}

#[test]
fn an_update_leaves_enough_available() {
    let rolling = |most: Value, surge: Value| json!({"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": most, "maxSurge": surge}}});
    for (spec, pods, expected) in [
        (rolling(json!(1), json!(0)), "a@n0o b@n1o c@n2o", "-a"),
        (rolling(json!(1), json!(0)), "a@n0 b@n1o c@n2o", "-b"),
        (rolling(json!(1), json!(0)), "a@n0! b@n1o c@n2o", ""),
        (rolling(json!(1), json!(0)), "a@n0- b@n1o c@n2o", ""),
        (rolling(json!(2), json!(0)), "a@n0o b@n1o c@n2o", "-a -b"),
        (
            rolling(json!("50%"), json!(0)),
            "a@n0o b@n1o c@n2o",
            "-a -b",
        ),
        (rolling(json!(0), json!(0)), "a@n0o b@n1o c@n2o", "-a"),
        // Old ones that serve nobody go at once, and count.
        (rolling(json!(1), json!(0)), "a@n0o b@n1o! c@n2o", "-b"),
        (
            json!({"updateStrategy": {"type": "OnDelete"}}),
            "a@n0o b@n1o c@n2o",
            "",
        ),
        // With a surge the new one comes first.
        (rolling(json!(0), json!(1)), "a@n0o b@n1o c@n2o", "+n0"),
        (rolling(json!(0), json!(2)), "a@n0o b@n1o c@n2o", "+n0 +n1"),
        (rolling(json!(0), json!(1)), "a@n0o d@n0! b@n1o c@n2o", ""),
        (rolling(json!(0), json!(1)), "a@n0o d@n0 b@n1o c@n2o", "-a"),
        (
            rolling(json!(0), json!(1)),
            "a@n0o! d@n0! b@n1o c@n2o",
            "-a",
        ),
        (rolling(json!(0), json!(1)), "a@n0o! b@n1o c@n2o", "+n0 +n1"),
        (rolling(json!(0), json!(1)), "a@n0- b@n1 c@n2", "+n0"),
        (rolling(json!(0), json!(1)), "a@n0 b@n1 c@n2", ""),
        (rolling(json!(0), json!(1)), "a@n0 d@n0 b@n1 c@n2", "-d"),
    ] {
        assert_eq!(
            told(&world(&spec, &three(), pods)),
            expected,
            "{spec} {pods}"
        );
    }
}

#[test]
fn a_surge_leaves_a_node_only_for_another() {
    let spec = json!({"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}});
    // It may stay on n0 and not be made anew there.
    let tainted = |other: &[&str]| {
        let taint = json!([{"key": "k", "effect": "NoSchedule"}]);
        let mut nodes = vec![node("n0", json!({}), taint)];
        nodes.extend(other.iter().map(|name| node(name, json!({}), json!([]))));
        nodes
    };
    for (nodes, pods, expected) in [
        (tainted(&["n1"]), "a@n0o b@n1!", ""),
        (tainted(&["n1"]), "a@n0o b@n1", "-a"),
        (tainted(&["n1"]), "a@n0o! b@n1!", "-a"),
    ] {
        assert_eq!(told(&world(&spec, &nodes, pods)), expected, "{pods}");
    }
}

#[test]
fn the_status_counts_nodes() {
    let nodes = [
        node("n0", json!({}), json!([])),
        node("n1", json!({}), json!([])),
        node(
            "n2",
            json!({}),
            json!([{"key": "k", "effect": "NoSchedule"}]),
        ),
    ];
    for (pods, expected) in [
        (
            "",
            json!({"desiredNumberScheduled": 2, "numberUnavailable": 2}),
        ),
        (
            "a@n0 b@n1! c@n2",
            json!({"desiredNumberScheduled": 2, "currentNumberScheduled": 2, "numberReady": 1,
            "numberAvailable": 1, "numberUnavailable": 1, "numberMisscheduled": 1, "updatedNumberScheduled": 2}),
        ),
        (
            "a@n0o b@n1",
            json!({"desiredNumberScheduled": 2, "currentNumberScheduled": 2, "numberReady": 2,
            "numberAvailable": 2, "updatedNumberScheduled": 1}),
        ),
    ] {
        let mut status = world(&json!({}), &nodes, pods).status(&CONTROLLER, "log");
        assert_eq!(
            status.as_object_mut().unwrap().remove("observedGeneration"),
            Some(json!(1))
        );
        assert_eq!(status, expected, "{pods}");
    }
    let small = world(&json!({"minReadySeconds": 20}), &nodes, "a@n0");
    assert_eq!(
        small.status(&CONTROLLER, "log")["numberAvailable"],
        Value::Null
    );
    let again = small.look(&CONTROLLER, "log").requeue_after;
    assert_eq!(again.map(|wait| wait.as_secs()), Some(10));
}

#[test]
fn a_pod_bears_what_its_node_goes_through() {
    let mut all = template();
    all["spec"]["tolerations"] = json!([{"key": "node.kubernetes.io/not-ready", "operator": "Exists",
        "effect": "NoExecute", "tolerationSeconds": 5}, {"key": "own", "operator": "Exists"}]);
    all["spec"]["affinity"] = json!({"podAntiAffinity": {}, "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
        "nodeSelectorTerms": [{"matchExpressions": [{"key": "zone", "operator": "DoesNotExist"}]}]}}});
    let small = world(&json!({"template": all}), &three()[..1], "");
    let writes = small.look(&CONTROLLER, "log").writes.into_iter();
    let mut made = writes.filter_map(|write| match write {
        Write::Create { kind, object, .. } if kind == *POD => Some(object.into_value()),
        _ => None,
    });
    let pod = made.next().unwrap();
    let borne = pod["spec"]["tolerations"].as_array().unwrap();
    let borne: Vec<&str> = borne
        .iter()
        .map(|one| one["key"].as_str().unwrap())
        .collect();
    assert_eq!(
        borne,
        [
            "node.kubernetes.io/not-ready",
            "own",
            "node.kubernetes.io/unreachable",
            "node.kubernetes.io/disk-pressure",
            "node.kubernetes.io/memory-pressure",
            "node.kubernetes.io/pid-pressure",
            "node.kubernetes.io/unschedulable",
        ]
    );
    assert_eq!(
        pod["spec"]["tolerations"][0]["tolerationSeconds"],
        Value::Null
    );
    assert!(
        pod["spec"]["affinity"]["podAntiAffinity"].is_object(),
        "the rest stays"
    );
    assert_eq!(pod["metadata"]["generateName"], "log-");
}

#[test]
fn a_pod_that_fails_again_and_again_waits() {
    let mut small = world(&json!({}), &three()[..1], "");
    for (round, expected) in [(0, "-a"), (1, "-a"), (2, "")] {
        small.put(&POD, pod("a@n0"));
        small.put(&POD, pod("a@n0x"));
        // The second comes with its pause over.
        if round == 1 {
            small.now = "2026-01-01T00:10:01Z".parse().unwrap();
        }
        assert_eq!(told(&small), expected, "{round}");
        small.forget(&POD, "a");
    }
}

#[test]
fn only_what_selects_wakes() {
    let mut small = world(&json!({}), &three(), "");
    let woken = |small: &mut Small, node: Value| {
        let mut value = node;
        let name = value["metadata"]["name"].as_str().unwrap().to_owned();
        value["metadata"]["uid"] = json!(format!("nodes-{name}"));
        value["metadata"]["resourceVersion"] = json!("1000000");
        let object = weft_api::object::Object::from_value(value).unwrap();
        let change = crate::Change::Upsert(Arc::clone(&NODE), object);
        let touched = small.view.apply(change, small.now).unwrap();
        keys(&small.view, &touched).len()
    };
    let mut report = node("n0", json!({}), json!([]));
    report["status"] = json!({"nodeInfo": {"kubeletVersion": "v1"}});
    assert_eq!(woken(&mut small, report), 0);
    assert_eq!(
        woken(&mut small, node("n1", json!({"zone": "b"}), json!([]))),
        1
    );
    let taints = json!([{"key": "k", "effect": "NoSchedule"}]);
    assert_eq!(woken(&mut small, node("n2", json!({}), taints)), 1);
}
