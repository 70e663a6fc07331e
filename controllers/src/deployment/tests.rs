//! One look at a Deployment each: which sets and pods are there, which sets grow and shrink.

use serde_json::{Value, json};

use super::*;
use crate::small::{Small, owned_by};
use crate::write::Write;

fn template(image: &str, hash: Option<&str>) -> Value {
    let mut template = json!({
        "metadata": {"labels": {"app": "web"}},
        "spec": {"containers": [{"name": "c", "image": image}]},
    });
    if let Some(hash) = hash {
        template["metadata"]["labels"][HASH_LABEL] = json!(hash);
    }
    template
}

/// So many replicas, and how they are updated.
fn deployment(replicas: i64, strategy: &Value) -> Value {
    json!({
        "metadata": {"name": "web"},
        "spec": {"replicas": replicas, "strategy": strategy, "template": template("x:2", None),
            "selector": {"matchLabels": {"app": "web"}}},
    })
}

/// A set as `NAME:SIZE/AVAILABLE`, as it reports it, and `/PODS` where other than those are there.
fn put(small: &mut Small, replicas: i64, told: &str) {
    let (name, numbers) = told.split_once(':').unwrap();
    let mut numbers = numbers
        .split('/')
        .map(|number| number.parse::<i64>().unwrap());
    let size = numbers.next().unwrap();
    let available = numbers.next().unwrap();
    let pods = numbers.next().unwrap_or(available);
    let image = if name == "new" { "x:2" } else { "x:1" };
    let labels = json!({"app": "web", HASH_LABEL: name});
    small.put(
        &REPLICA_SET,
        json!({
            "metadata": {"name": name, "labels": labels, "ownerReferences": owned_by(&DEPLOYMENT, "web"),
                "annotations": {DESIRED_REPLICAS: replicas.to_string(), REVISION: "1"}},
            "spec": {"replicas": size, "selector": {"matchLabels": labels},
                "template": template(image, Some(name))},
            "status": {"replicas": size, "readyReplicas": available, "availableReplicas": available,
                "observedGeneration": 1},
        }),
    );
    for number in 0..pods {
        small.put(
            &POD,
            json!({
                "metadata": {"name": format!("{name}-{number}"), "labels": labels,
                    "ownerReferences": owned_by(&REPLICA_SET, name)},
                "spec": {"nodeName": "n0", "containers": []},
                "status": {"phase": "Running", "conditions": [
                    {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:09:50Z"}]},
            }),
        );
    }
}

/// Sets that are made, as `+SIZE`, and the new sizes of others.
fn told(replicas: i64, strategy: &Value, paused: bool, sets: &str) -> String {
    let mut small = Small::new([CONTROLLER.reads]);
    let mut object = deployment(replicas, strategy);
    object["spec"]["paused"] = json!(paused);
    small.put(&DEPLOYMENT, object);
    for set in sets.split_whitespace() {
        put(&mut small, replicas, set);
    }
    let writes = small.look(&CONTROLLER, "web").writes;
    let told = writes.iter().filter_map(|write| match write {
        Write::Create { object, .. } => Some(format!("+{}", object.as_value()["spec"]["replicas"])),
        Write::Patch { key, patch, .. } => {
            let size = patch["spec"]["replicas"].as_i64()?;
            Some(format!("{}={size}", key.name))
        }
        _ => None,
    });
    told.collect::<Vec<_>>().join(" ")
}

#[test]
fn sets_grow_and_shrink_between_the_fences() {
    for (replicas, surge, unavailable, sets, expected) in [
        // A new set gets what the surge leaves, also nothing.
        (10, 3, 2, "old:10/10", "+3"),
        (5, 0, 1, "old:5/5", "+0"),
        (3, 0, 0, "", "+3"),
        // First up, as far as there is room …
        (10, 3, 2, "old:8/8 new:3/0", "new=5"),
        (10, 3, 2, "old:1/1 new:3/0", "new=10"),
        // … then down: what is beyond the floor, less what is new and not there yet.
        (10, 3, 2, "old:10/10 new:3/0", "old=8"),
        (10, 3, 2, "old:8/8 new:5/0", ""),
        (10, 3, 2, "old:8/8 new:5/2", "old=6"),
        (10, 3, 2, "old:8/8 new:5/5", "old=3"),
        (5, 0, 1, "old:5/5 new:0/0", "old=4"),
        // Both zero: one may be missing, or nothing would ever move.
        (5, 0, 0, "old:5/5 new:0/0", "old=4"),
        // What serves nobody goes first, the oldest of those that do afterwards.
        (10, 3, 2, "old:10/7 new:3/0", "old=8"),
        (10, 3, 2, "a:4/4 b:4/1 new:5/5", "a=2 b=1"),
        (4, 1, 0, "a:2/2 b:2/2 new:1/1", "a=1"),
        // More than is asked for.
        (3, 1, 0, "new:5/5", "new=3"),
        (3, 1, 0, "new:3/3", ""),
        // A pod of the new set has just been taken, and the set has not reported it yet: it is not there for the floor.
        (7, 2, 1, "old:4/4 new:5/5/4", "old=2"),
        (7, 2, 1, "old:4/4 new:5/5", "old=1"),
        (7, 2, 1, "old:4/4/3 new:5/5/3", ""),
    ] {
        let strategy = json!({"type": "RollingUpdate",
            "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}});
        let story = format!("{replicas} +{surge} -{unavailable}: {sets}");
        assert_eq!(told(replicas, &strategy, false, sets), expected, "{story}");
    }
}

#[test]
fn a_paused_deployment_follows_its_size_and_nothing_else() {
    let strategy = json!({"type": "RollingUpdate"});
    for (replicas, sets, expected) in [
        (10, "", ""),
        (10, "old:10/10", ""),
        (12, "old:10/10", "old=12"),
        (2, "old:0/0 new:3/3", "new=2"),
    ] {
        assert_eq!(told(replicas, &strategy, true, sets), expected, "{sets}");
    }
}

#[test]
fn recreated_pods_wait_for_the_last_of_the_old_ones() {
    let strategy = json!({"type": "Recreate"});
    for (sets, expected) in [
        ("", "+3"),
        ("old:3/3", "old=0"),
        ("old:0/0/1", ""),
        ("old:0/0", "+3"),
        ("old:0/0 new:0/0", "new=3"),
        ("old:2/2 new:0/0", "old=0"),
    ] {
        assert_eq!(told(3, &strategy, false, sets), expected, "{sets}");
    }
}
