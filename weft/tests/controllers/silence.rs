//! Nodes that fall silent, one, some or all: who is taken for lost, and what happens to the pods.

use serde_json::json;
use weft_controllers::write::Propagation;
use weft_kinds::{DEPLOYMENT, KindRef, LEASE, NODE, POD};

use crate::manifests::{deployment, node_object, pod};
use crate::world::World;

/// So many nodes with leases of so many seconds, and a pod on each.
fn world_of(nodes: usize, lease_seconds: u64) -> World {
    let mut world = World::new(7);
    world.agents = false;
    for number in 0..nodes {
        let name = format!("n{number:03}");
        world.create(&NODE, node_object(&name));
        let lease = json!({
            "metadata": {"name": name, "namespace": "kube-node-lease"},
            "spec": {"leaseDurationSeconds": lease_seconds},
        });
        world.create(&LEASE, lease);
        let pod = json!({
            "metadata": {"name": format!("on-{name}"), "namespace": "default"},
            "spec": {"nodeName": name, "containers": [{"name": "main", "image": "x:1"}]},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
        });
        world.create(&POD, pod);
    }
    world.settle();
    world.tell();
    world
}

fn renew(world: &mut World, node: usize) {
    world.renew_lease(&format!("n{node:03}"));
}

/// What an agent says when it is back.
fn report_ready(world: &mut World, node: usize) {
    let conditions = json!([{"type": "Ready", "status": "True",
        "lastHeartbeatTime": world.now.to_string()}]);
    let name = format!("n{node:03}");
    world.patch(&NODE, &name, json!({"status": {"conditions": conditions}}));
}

/// Seconds pass, in each of which `alive` names the nodes that renew.
fn live(world: &mut World, seconds: usize, alive: impl Fn(usize) -> Vec<usize>) {
    for second in 0..seconds {
        world.pass_time(1);
        for node in alive(second) {
            renew(world, node);
        }
        world.settle();
    }
}

fn count(world: &World, kind: KindRef<'_>) -> usize {
    world.all(kind).len()
}

fn pods_left(world: &World) -> i64 {
    world.live_pods()
}

fn is_ready(world: &World, node: usize) -> bool {
    let conditions = &world.get(&NODE, &format!("n{node:03}"))["status"]["conditions"];
    conditions[0]["status"] == "True"
}

#[test]
fn while_all_nodes_are_silent_nothing_happens_to_pods_however_long() {
    for nodes in [1, 2, 5] {
        let mut world = world_of(nodes, 8);
        live(&mut world, 30, |_| (0..nodes).collect());
        assert_eq!(world.tell(), "");
        // A day.
        for _ in 0..24 {
            world.pass_time(3600);
            world.settle();
        }
        let story = world.tell();
        assert!(!story.contains("pods"), "{nodes} nodes: {story}");
        assert!(!is_ready(&world, 0), "that they are silent is told");
        assert_eq!(pods_left(&world), i64::try_from(nodes).unwrap());
        // The next leader knows no more.
        world.change_leader();
        for _ in 0..24 {
            world.pass_time(3600);
            world.settle();
        }
        assert!(!world.tell().contains("pods"));
        // They are heard again, one after the other, over the time a lease lasts.
        for back in 0..nodes {
            world.pass_time(1);
            (0..=back).for_each(|node| renew(&mut world, node));
            report_ready(&mut world, back);
            world.settle();
        }
        live(&mut world, 60, |_| (0..nodes).collect());
        assert!(!world.tell().contains("delete pods"));
        assert_eq!(pods_left(&world), i64::try_from(nodes).unwrap());
    }
}

#[test]
fn one_that_does_not_come_back_with_the_others_is_given_its_time_and_then_up() {
    let mut world = world_of(4, 8);
    world.pass_time(3600);
    world.settle();
    let back = vec![0, 1, 3];
    back.iter().for_each(|node| {
        renew(&mut world, *node);
        report_ready(&mut world, *node);
    });
    world.settle();
    live(&mut world, 7, |_| back.clone());
    assert_eq!(pods_left(&world), 4, "the others are heard for 7 s only");
    live(&mut world, 5, |_| back.clone());
    assert_eq!(pods_left(&world), 3);
    assert!(!world.get(&POD, "on-n002")["metadata"]["deletionTimestamp"].is_null());
}

#[test]
fn a_node_is_alive_as_long_as_its_lease_says() {
    // 500 nodes that renew every ten seconds, as those of KWOK do.
    let mut world = world_of(500, 40);
    live(&mut world, 90, |second| {
        (0..500).filter(|node| node % 10 == second % 10).collect()
    });
    assert_eq!(world.tell(), "", "nobody is taken for lost");
    // One stops after its renewal in second 3.
    let alive = |second: usize| -> Vec<usize> {
        (0..500)
            .filter(|node| node % 10 == second % 10 && *node != 3)
            .collect()
    };
    live(&mut world, 33, alive);
    assert!(is_ready(&world, 3), "the last sign of life is 39 s ago");
    live(&mut world, 8, |second| alive(second + 3));
    assert!(!is_ready(&world, 3));
    assert_eq!(pods_left(&world), 499);
}

#[test]
fn a_lease_that_is_shortened_has_a_dead_node_replaced_within_seconds_and_no_living_one() {
    let mut world = world_of(3, 8);
    live(&mut world, 10, |_| vec![0, 1, 2]);
    world.tell();
    // The server that two of them were connected to saw these connections end; one of them had only moved to another server.
    for node in ["n000", "n001"] {
        let shorter = json!({"spec": {"leaseDurationSeconds": 2}});
        world.patch(&LEASE, node, shorter);
    }
    world.settle();
    let mut seconds = 0;
    while pods_left(&world) == 3 {
        live(&mut world, 1, |_| vec![0, 2]);
        seconds += 1;
        assert!(seconds <= 4, "{}", world.tell());
    }
    assert!(!world.get(&POD, "on-n001")["metadata"]["deletionTimestamp"].is_null());
    live(&mut world, 30, |_| vec![0, 2]);
    assert!(is_ready(&world, 0) && !is_ready(&world, 1));
    assert_eq!(pods_left(&world), 2, "{}", world.tell());
}

#[test]
fn shortened_leases_change_nothing_while_all_nodes_are_silent() {
    let mut world = world_of(3, 8);
    live(&mut world, 10, |_| vec![0, 1, 2]);
    for node in ["n000", "n001", "n002"] {
        let shorter = json!({"spec": {"leaseDurationSeconds": 2}});
        world.patch(&LEASE, node, shorter);
    }
    live(&mut world, 60, |_| Vec::new());
    assert_eq!(pods_left(&world), 3, "{}", world.tell());
    // The next leader knows nothing of connections, and gives everybody the usual time to be heard.
    world.change_leader();
    for _ in 0..7 {
        live(&mut world, 1, |_| vec![0, 1]);
        assert_eq!(pods_left(&world), 3, "{}", world.tell());
    }
}

#[test]
fn what_others_write_into_a_lease_is_no_sign_of_life() {
    let mut world = world_of(3, 8);
    live(&mut world, 10, |_| vec![0, 1, 2]);
    for second in 0..12 {
        let label = json!({"metadata": {"labels": {"seen": second.to_string()}}});
        world.patch(&LEASE, "n001", label);
        live(&mut world, 1, |_| vec![0, 2]);
    }
    assert!(!is_ready(&world, 1));
}

#[test]
fn a_lease_that_somebody_deletes_is_no_silence() {
    let mut world = world_of(3, 8);
    world.pass_time(3600);
    (0..3).for_each(|node| renew(&mut world, node));
    world.settle();
    (0..3).for_each(|node| report_ready(&mut world, node));
    live(&mut world, 20, |_| vec![0, 1, 2]);
    world.tell();
    world.delete(&LEASE, "n001", Propagation::Background);
    live(&mut world, 7, |_| vec![0, 2]);
    assert_eq!(world.tell(), "");
    let lease = json!({
        "metadata": {"name": "n001", "namespace": "kube-node-lease"},
        "spec": {"leaseDurationSeconds": 8},
    });
    world.create(&LEASE, lease);
    live(&mut world, 20, |_| vec![0, 1, 2]);
    assert_eq!(world.tell(), "");
    // Without it for good, a node that reports its state is alive all the same …
    world.delete(&LEASE, "n001", Propagation::Background);
    for _ in 0..20 {
        report_ready(&mut world, 1);
        live(&mut world, 1, |_| vec![0, 2]);
    }
    assert!(is_ready(&world, 1));
    // … and one that does neither is not.
    live(&mut world, 12, |_| vec![0, 2]);
    assert!(!is_ready(&world, 1));
    assert_eq!(pods_left(&world), 2);
}

#[test]
fn most_of_a_zone_gone_stops_small_clusters_and_slows_large_ones() {
    // Three of five.
    let mut world = world_of(5, 8);
    live(&mut world, 20, |_| (0..5).collect());
    live(&mut world, 300, |_| vec![0, 1]);
    assert_eq!(pods_left(&world), 5, "a small cluster stops");
    let ready = |world: &World| (0..5).filter(|node| is_ready(world, *node)).count();
    assert_eq!(ready(&world), 2);

    // 36 of 60: one each 100 s.
    let mut world = world_of(60, 8);
    live(&mut world, 20, |_| (0..60).collect());
    live(&mut world, 10, |_| (36..60).collect());
    let first = pods_left(&world);
    assert!(first >= 59, "{first}: all fell silent at once");
    live(&mut world, 400, |_| (36..60).collect());
    let gone = first - pods_left(&world);
    assert!((4..=5).contains(&gone), "{gone} in 400 s");

    // 10 of 60: one after the other.
    let mut world = world_of(60, 8);
    live(&mut world, 20, |_| (0..60).collect());
    live(&mut world, 20, |_| (10..60).collect());
    let left = pods_left(&world);
    assert!((53..=56).contains(&left), "{left}: a node each two seconds");
    live(&mut world, 20, |_| (10..60).collect());
    assert_eq!(pods_left(&world), 50);
    assert_eq!(count(&world, &NODE), 60);
}

#[test]
fn what_others_say_of_a_silent_node_stays() {
    let mut world = world_of(2, 8);
    let conditions = json!([
        {"type": "Ready", "status": "True"},
        {"type": "DiskPressure", "status": "False"},
        {"type": "NetworkUnavailable", "status": "False"},
        {"type": "example.com/Cooled", "status": "True", "reason": "FansTurn"},
    ]);
    world.patch(&NODE, "n000", json!({"status": {"conditions": conditions}}));
    world.settle();
    live(&mut world, 9, |_| vec![1]);
    let told: Vec<String> = world.get(&NODE, "n000")["status"]["conditions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| format!("{} {} {}", c["type"], c["status"], c["reason"]))
        .collect();
    insta::assert_snapshot!(told.join("\n"), @r#"
    "Ready" "Unknown" "NodeStatusUnknown"
    "DiskPressure" "Unknown" "NodeStatusUnknown"
    "NetworkUnavailable" "False" null
    "example.com/Cooled" "True" "FansTurn"
    "#);
}

#[test]
fn what_a_silent_node_has_stopped_is_removed_and_what_may_run_there_is_not() {
    for (asks, promises, is_shortened, left) in [
        (true, true, false, 2),
        // Its connections ended, but nobody knows whether it did: it has the time that it says.
        (true, true, true, 2),
        (false, true, false, 3),
        (true, false, false, 3),
    ] {
        let mut world = world_of(3, 8);
        if asks {
            let fenced = json!({"metadata": {"annotations": {"weft.dev/fenced": "true"}}});
            world.patch(&POD, "on-n001", fenced);
        }
        if promises {
            let within = json!({"metadata": {"annotations": {"weft.dev/fences-within": "12"}}});
            world.patch(&LEASE, "n001", within);
        }
        live(&mut world, 10, |_| vec![0, 1, 2]);
        if is_shortened {
            let shorter = json!({"spec": {"leaseDurationSeconds": 2}});
            world.patch(&LEASE, "n001", shorter);
        }
        let story = format!("{asks} {promises} {is_shortened}");
        live(&mut world, 11, |_| vec![0, 2]);
        assert_eq!(count(&world, &POD), 3, "{story}: it may still run");
        let going = &world.get(&POD, "on-n001")["metadata"]["deletionTimestamp"];
        assert!(!going.is_null(), "{story}");
        live(&mut world, 2, |_| vec![0, 2]);
        assert_eq!(count(&world, &POD), left, "{story}");
        live(&mut world, 300, |_| vec![0, 2]);
        assert_eq!(count(&world, &POD), left, "{story}");
    }
}

/// Its pods are no ReplicaSet's, so nobody else may say that they run no more.
#[test]
fn whoever_taints_a_silent_node_as_out_of_service_lets_its_pods_go() {
    let mut world = world_of(3, 8);
    let others = |_| vec![0, 2];
    live(&mut world, 30, others);
    assert_eq!(pods_left(&world), 2);
    assert_eq!(count(&world, &POD), 3, "it may still run there");
    let mut taints = world.get(&NODE, "n001")["spec"]["taints"].clone();
    taints.as_array_mut().unwrap().push(json!({
        "key": "node.kubernetes.io/out-of-service", "value": "nodeshutdown", "effect": "NoExecute",
    }));
    world.patch(&NODE, "n001", json!({"spec": {"taints": taints}}));
    world.settle();
    assert_eq!(count(&world, &POD), 2);
    // Of one that is well, the taint drives pods off, and it is for the node to end them.
    let taints = json!([taints[taints.as_array().unwrap().len() - 1]]);
    world.patch(&NODE, "n000", json!({"spec": {"taints": taints}}));
    live(&mut world, 2, others);
    assert_eq!((pods_left(&world), count(&world, &POD)), (1, 2));
}

#[test]
fn pods_of_a_silent_node_are_replaced_within_ten_seconds() {
    let mut world = World::new(5);
    world.create_nodes();
    world.create(&DEPLOYMENT, deployment("web", 6, "x:1"));
    world.settle();
    let on = |world: &World, node: &str| {
        let pods = world.all(&POD).into_iter();
        pods.filter(|p| {
            p["spec"]["nodeName"] == node && p["metadata"]["deletionTimestamp"].is_null()
        })
        .count()
    };
    assert!(on(&world, "n0") > 0);
    // Nothing of n0 moves any more: no agent, no lease. The others renew.
    world.agents = false;
    let mut replaced_at = None;
    for second in 1..=12_i64 {
        world.live(1, &["n1", "n2"]);
        if replaced_at.is_none() && on(&world, "n0") == 0 {
            replaced_at = Some(second);
        }
    }
    assert_eq!(replaced_at, Some(10));
    assert_eq!(world.live_pods(), 6, "the set made new ones");
    let taints = &world.get(&NODE, "n0")["spec"]["taints"];
    assert_eq!(
        taints[0]["key"], "node.kubernetes.io/unreachable",
        "{taints}"
    );
    assert_eq!(taints[1]["effect"], "NoExecute", "{taints}");
    assert!(world.tell().contains("Node n0 status is now: NodeNotReady"));
}

#[test]
fn a_pod_stays_as_long_as_it_asked_to() {
    let mut world = World::still();
    let mut node = node_object("n0");
    node["spec"]["taints"] = json!([{"key": "node.kubernetes.io/unreachable", "effect": "NoExecute",
        "timeAdded": "2026-01-01T00:00:00Z"}]);
    node["status"]["conditions"][0]["status"] = json!("Unknown");
    world.create(&NODE, node);
    // Another one is heard, so the silence is n0's own.
    world.create(&NODE, node_object("n1"));
    let lease = json!({"metadata": {"name": "n1", "namespace": "kube-node-lease"}});
    world.create(&LEASE, lease);
    let mut patient = pod("patient", "n0", false, 80);
    patient["spec"]["tolerations"] = json!([{"key": "node.kubernetes.io/unreachable",
        "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 60}]);
    world.create(&POD, patient);
    let mut rock = pod("rock", "n0", false, 80);
    rock["spec"]["tolerations"] = json!([{"operator": "Exists"}]);
    world.create(&POD, rock);
    world.create(&POD, pod("plain", "n0", false, 81));
    let deleted = |world: &mut World| -> String {
        let story = world.tell();
        let lines = story.lines().filter(|line| line.starts_with("delete"));
        lines.collect::<Vec<_>>().join("\n")
    };
    world.settle();
    assert_eq!(deleted(&mut world), "");
    world.live(12, &["n1"]);
    assert_eq!(deleted(&mut world), "delete pods default/plain");
    world.live(60, &["n1"]);
    assert_eq!(deleted(&mut world), "delete pods default/patient");
}

#[test]
fn losing_most_nodes_at_once_holds_evictions_back() {
    let mut world = World::new(8);
    for node in ["n0", "n1", "n2"] {
        world.create(&NODE, node_object(node));
    }
    world.create(&DEPLOYMENT, deployment("web", 6, "x:1"));
    world.settle();
    world.agents = false;
    let before: Vec<String> = world
        .all(&POD)
        .iter()
        .map(|p| p["metadata"]["name"].to_string())
        .collect();
    for _ in 0..20 {
        world.pass_time(1);
        world.settle();
    }
    let now: Vec<String> = world
        .all(&POD)
        .iter()
        .map(|p| p["metadata"]["name"].to_string())
        .collect();
    assert_eq!(before, now, "all three are silent: nothing is evicted yet");
}

#[test]
fn pods_of_a_node_that_is_gone_go_at_once() {
    let mut world = World::still();
    world.create(&NODE, node_object("n0"));
    world.create(&POD, pod("a", "n0", true, 80));
    world.settle();
    world.delete(&NODE, "n0", Propagation::Background);
    world.settle();
    world.pass_time(9);
    world.settle();
    let story = world.tell();
    let lines: Vec<&str> = story
        .lines()
        .map(|line| line.split_once(" {").map_or(line, |(what, _)| what))
        .collect();
    // The node cannot say any more how its pod ended.
    let expected = ["patch pods/status default/a", "delete pods default/a now"];
    assert_eq!(lines, expected, "{story}");
    for word in ["\"phase\":\"Failed\"", "PodGC: node no longer exists"] {
        assert!(story.contains(word), "{story}");
    }
}
