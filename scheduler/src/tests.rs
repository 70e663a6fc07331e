//! Transcripts: a small cluster in, what happens to each pod out.
//!
//! `node NAME [cpu=N] [memory=M] [pods=N] [cidr=RANGE] [label=K:V] [taint=K:V:EFFECT] [unschedulable]`
//! `pod NAME [cpu=N] [memory=M] [init-cpu=N] [select=K:V] [tolerate=K] [set=UID] [on=NODE] [skew=N] [port=N]
//! [label=K:V] [near=K:V[:TOPOLOGY[:NAMESPACE]]] [apart=…]`

use std::sync::Arc;

use serde_json::{Value, json};

use super::*;

mod model;
mod rules;
mod simulation;
mod victims;

fn node(name: &str, words: &[&str]) -> NodeFacts {
    let mut value = json!({
        "metadata": {"name": name, "labels": {}},
        "spec": {"taints": []},
        "status": {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "110"}},
    });
    for word in words {
        let (key, text) = word.split_once('=').unwrap_or((word, ""));
        let parts: Vec<&str> = text.split(':').collect();
        match key {
            "label" => value["metadata"]["labels"][parts[0]] = json!(parts[1]),
            "taint" => {
                let taint = json!({"key": parts[0], "value": parts[1], "effect": parts[2]});
                value["spec"]["taints"].as_array_mut().unwrap().push(taint);
            }
            "cidr" => value["spec"]["podCIDR"] = json!(text),
            "unschedulable" => value["spec"]["unschedulable"] = json!(true),
            resource => value["status"]["allocatable"][resource] = json!(text),
        }
    }
    NodeFacts::of(&serde_json::from_value(value).unwrap())
}

fn pod(name: &str, words: &[&str]) -> PodFacts {
    let mut value = json!({
        "metadata": {"name": name, "namespace": "default", "uid": name, "labels": {"app": "web"}},
        "spec": {
            "containers": [{"name": "main", "resources": {"requests": {}}, "ports": []}],
            "tolerations": [],
            "nodeSelector": {},
        },
    });
    let spec = "spec";
    for word in words {
        let (key, text) = word.split_once('=').unwrap_or((word, ""));
        let parts: Vec<&str> = text.split(':').collect();
        match key {
            "init-cpu" => {
                let resources = json!({"requests": {"cpu": text}});
                value[spec]["initContainers"] = json!([{"name": "i", "resources": resources}]);
            }
            "select" => value[spec]["nodeSelector"][parts[0]] = json!(parts[1]),
            "tolerate" => {
                value[spec]["tolerations"] = json!([{"key": text, "operator": "Exists"}]);
            }
            "ns" => value["metadata"]["namespace"] = json!(text),
            "priority" => value[spec]["priority"] = json!(text.parse::<i64>().unwrap()),
            "never" => value[spec]["preemptionPolicy"] = json!("Never"),
            "ending" => value["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z"),
            "started" => value["status"]["startTime"] = json!(format!("2026-01-01T00:00:{text}Z")),
            "nominated" => value["status"]["nominatedNodeName"] = json!(text),
            "image" => value[spec]["containers"][0]["image"] = json!(text),
            "pin" => {
                value[spec]["affinity"] = json!({"nodeAffinity": {
                    "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                        {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [text]}]}]}}});
            }
            "set" => {
                value["metadata"]["ownerReferences"] = json!([{"apiVersion": "apps/v1",
                    "kind": "ReplicaSet", "name": text, "uid": text, "controller": true}]);
            }
            "on" => value[spec]["nodeName"] = json!(text),
            "skew" => {
                value[spec]["topologySpreadConstraints"] = json!([{
                    "maxSkew": text.parse::<i64>().unwrap(),
                    "topologyKey": "kubernetes.io/hostname",
                    "whenUnsatisfiable": "DoNotSchedule",
                    "labelSelector": {"matchLabels": {"app": "web"}},
                }]);
            }
            "port" => {
                let port = json!({"containerPort": 80, "hostPort": text.parse::<i64>().unwrap()});
                value[spec]["containers"][0]["ports"] = json!([port]);
            }
            "affinity" => {
                value[spec]["affinity"] = json!({"nodeAffinity": {
                    "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                        {"matchExpressions": [{"key": parts[0], "operator": "In",
                            "values": [parts[1]]}]}]}}});
            }
            "label" => value["metadata"]["labels"][parts[0]] = json!(parts[1]),
            "near" | "apart" => {
                let kind = if key == "near" {
                    "podAffinity"
                } else {
                    "podAntiAffinity"
                };
                let mut term = json!({
                    "labelSelector": {"matchLabels": {parts[0]: parts[1]}},
                    "topologyKey": parts.get(2).unwrap_or(&"kubernetes.io/hostname"),
                });
                if let Some(namespace) = parts.get(3) {
                    term["namespaceSelector"] = json!({"matchLabels": {
                        "kubernetes.io/metadata.name": namespace}});
                }
                value[spec]["affinity"][kind] =
                    json!({"requiredDuringSchedulingIgnoredDuringExecution": [term]});
            }
            "prefer" => {
                value[spec]["affinity"] = json!({"nodeAffinity": {
                    "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100,
                        "preference": {"matchExpressions": [{"key": parts[0], "operator": "In",
                            "values": [parts[1]]}]}}]}});
            }
            resource => {
                value[spec]["containers"][0]["resources"]["requests"][resource] = json!(text);
            }
        }
    }
    let value: Value = value;
    PodFacts::of(&serde_json::from_value(value).unwrap())
}

/// Runs one cluster line and renders what is decided of each pod, in order; of those that are refused, with each node's reasons.
fn transcript(cluster: &str, seed: u64) -> String {
    let mut snapshot = Snapshot::new(seed);
    let mut pending = Vec::new();
    for clause in cluster.split('|') {
        let words: Vec<&str> = clause.split_whitespace().collect();
        match words.as_slice() {
            ["node", name, rest @ ..] => {
                snapshot.put_node(node(name, rest));
            }
            ["pod", name, rest @ ..] => {
                let facts = pod(name, rest);
                match facts.node {
                    Some(_) => snapshot.put_pod(facts),
                    None => pending.push(facts),
                }
            }
            ["budget", name, selects, allowed] => {
                let (key, value) = selects.split_once(':').unwrap();
                let budget = Budget {
                    selector: Some(weft_api::selector::LabelSelector::from_labels([(
                        key, value,
                    )])),
                    allowed: allowed.parse().unwrap(),
                    ..Budget::default()
                };
                snapshot.put_budget("default", name, budget);
            }
            other => panic!("{other:?}"),
        }
    }
    let mut lines: Vec<String> = Vec::new();
    for pod in &pending {
        let plan = snapshot.plan([pod]);
        for placement in &plan.placements {
            lines.push(format!("{} -> {}", placement.name, placement.node));
        }
        for refusal in &plan.refusals {
            lines.push(format!("{}: {refusal}", refusal.name));
        }
        for preemption in &plan.preemptions {
            let names: Vec<&str> = preemption
                .victims
                .iter()
                .map(|victim| &*victim.name)
                .collect();
            let names = names.join(" ");
            lines.push(format!(
                "  {} instead of {names}, {} protected",
                preemption.node, preemption.violations
            ));
        }
        if plan.preemptions.is_empty() && !plan.refusals.is_empty() {
            for (node, reasons) in snapshot.explain(pod) {
                let reasons: Vec<String> = reasons.iter().map(Reason::in_detail).collect();
                lines.push(format!("  {node}: {}", reasons.join(", ")));
            }
        }
    }
    lines.join("\n")
}

#[test]
fn a_full_node_is_refused_with_its_reason() {
    insta::assert_snapshot!(transcript("node a cpu=1 | node b cpu=4 | pod web cpu=2 | pod big cpu=3", 0), @r"
    web -> b
    big: 0/2 nodes are available: 2 Insufficient cpu. preemption: 0/2 nodes are available: 1 No preemption victims found for incoming pod, 1 Preemption is not helpful for scheduling.
      a: Insufficient cpu: 3000m requested, 1000m of 1000m free
      b: Insufficient cpu: 3000m requested, 2000m of 4000m free
    ");
}

#[test]
fn a_node_takes_no_more_pods_than_its_range_has_addresses() {
    insta::assert_snapshot!(transcript(
        "node a cidr=10.224.0.0/30 | node b cidr=10.224.1.0/29 pods=2 | pod here on=a | pod one on=b | pod two | pod three",
        0), @r"
    two -> b
    three: 0/2 nodes are available: 2 Too many pods. preemption: 0/2 nodes are available: 2 No preemption victims found for incoming pod.
      a: Too many pods
      b: Too many pods
    ");
}

#[test]
fn pods_that_are_alike_share_what_they_need() {
    let mut snapshot = Snapshot::default();
    for name in ["a", "b", "c"] {
        snapshot.put_pod(pod(name, &["set=s", "on=n", "cpu=1"]));
    }
    let class = |snapshot: &Snapshot, uid: &str| snapshot.nodes[snapshot.pods[uid]].pods[uid].class;
    assert_eq!(class(&snapshot, "a"), class(&snapshot, "b"));
    let mut alike = pod("d", &["set=s", "cpu=1"]);
    snapshot.share_needs(&mut alike);
    let kept = Arc::clone(&snapshot.class(class(&snapshot, "a")).needs);
    assert!(Arc::ptr_eq(&alike.needs, &kept));
    // One differs, and takes what it takes.
    snapshot.put_pod(pod("c", &["set=s", "on=n", "cpu=2"]));
    assert_ne!(class(&snapshot, "a"), class(&snapshot, "c"));
    assert_eq!(snapshot.nodes[snapshot.pods["a"]].used.cpu, 4000);
    for name in ["a", "b", "c"] {
        assert!(snapshot.remove_pod(name));
    }
    assert!(!snapshot.remove_pod("a"));
    assert!(snapshot.nodes.iter().all(|node| node.name.is_empty()));
}

#[test]
fn pods_that_keep_apart_never_meet() {
    // Two fit on two nodes, the third nowhere; a fourth without wishes of its own is kept away by the others.
    insta::assert_snapshot!(transcript(
        "node a | node b | pod one label=db:yes apart=db:yes | pod two label=db:yes apart=db:yes \
         | pod three label=db:yes apart=db:yes | pod four label=db:yes | pod five",
        0), @r"
    one -> b
    two -> a
    three: 0/2 nodes are available: 2 node(s) didn't match pod anti-affinity rules. preemption: 0/2 nodes are available: 2 No preemption victims found for incoming pod.
      a: node(s) didn't match pod anti-affinity rules
      b: node(s) didn't match pod anti-affinity rules
    four: 0/2 nodes are available: 2 node(s) didn't satisfy existing pods anti-affinity rules. preemption: 0/2 nodes are available: 2 No preemption victims found for incoming pod.
      a: node(s) didn't satisfy existing pods anti-affinity rules
      b: node(s) didn't satisfy existing pods anti-affinity rules
    five -> b
    ");
}

#[test]
fn pods_that_belong_together_meet() {
    // The first of its kind may stand anywhere that has the label; the rest follow it into its zone.
    insta::assert_snapshot!(transcript(
        "node a label=zone:x cpu=1 | node b label=zone:x | node c label=zone:y | node d \
         | pod cache on=b label=tier:cache | pod one near=tier:cache:zone cpu=1 | pod two near=tier:cache:zone cpu=4 \
         | pod far near=tier:none | pod other near=tier:cache:zone:elsewhere \
         | pod first label=ring:1 near=ring:1:zone select=zone:y | pod second label=ring:1 near=ring:1:zone",
        0), @r"
    one -> b
    two: 0/4 nodes are available: 2 Insufficient cpu, 2 node(s) didn't match pod affinity rules. preemption: 0/4 nodes are available: 1 No preemption victims found for incoming pod, 3 Preemption is not helpful for scheduling.
      a: Insufficient cpu: 4000m requested, 1000m of 1000m free
      b: Insufficient cpu: 4000m requested, 3000m of 4000m free
      c: node(s) didn't match pod affinity rules
      d: node(s) didn't match pod affinity rules
    far: 0/4 nodes are available: 4 node(s) didn't match pod affinity rules. preemption: 0/4 nodes are available: 4 Preemption is not helpful for scheduling.
      a: node(s) didn't match pod affinity rules
      b: node(s) didn't match pod affinity rules
      c: node(s) didn't match pod affinity rules
      d: node(s) didn't match pod affinity rules
    other: 0/4 nodes are available: 4 node(s) didn't match pod affinity rules. preemption: 0/4 nodes are available: 4 Preemption is not helpful for scheduling.
      a: node(s) didn't match pod affinity rules
      b: node(s) didn't match pod affinity rules
      c: node(s) didn't match pod affinity rules
      d: node(s) didn't match pod affinity rules
    first -> c
    second -> c
    ");
}

#[test]
fn reasons_are_counted_as_kubernetes_counts_them() {
    insta::assert_snapshot!(transcript(
        "node a cpu=1 memory=1Gi | node b cpu=1 | node c taint=gpu:yes:NoSchedule | node d unschedulable \
         | node e label=disk:hdd | pod web cpu=2 memory=2Gi select=disk:ssd | pod two cpu=5 memory=2Gi",
        0), @r"
    web: 0/5 nodes are available: 1 node(s) had untolerated taint(s), 1 node(s) were unschedulable, 3 node(s) didn't match Pod's node affinity/selector. preemption: 0/5 nodes are available: 5 Preemption is not helpful for scheduling.
      a: node(s) didn't match Pod's node affinity/selector
      b: node(s) didn't match Pod's node affinity/selector
      c: node(s) had untolerated taint(s): gpu=yes:NoSchedule
      d: node(s) were unschedulable
      e: node(s) didn't match Pod's node affinity/selector
    two: 0/5 nodes are available: 1 Insufficient memory, 1 node(s) had untolerated taint(s), 1 node(s) were unschedulable, 3 Insufficient cpu. preemption: 0/5 nodes are available: 5 Preemption is not helpful for scheduling.
      a: Insufficient cpu: 5000m requested, 1000m of 1000m free, Insufficient memory: 2147483648 requested, 1073741824 of 1073741824 free
      b: Insufficient cpu: 5000m requested, 1000m of 1000m free
      c: node(s) had untolerated taint(s): gpu=yes:NoSchedule
      d: node(s) were unschedulable
      e: Insufficient cpu: 5000m requested, 4000m of 4000m free
    ");
}

#[test]
fn pods_that_are_refused_for_the_same_share_their_reasons() {
    let mut snapshot = Snapshot::default();
    for name in ["a", "b"] {
        snapshot.put_node(node(name, &["cpu=1"]));
    }
    let pods = [
        pod("one", &["cpu=2", "set=s"]),
        pod("two", &["cpu=2", "set=s"]),
        pod("fits", &["cpu=1"]),
        pod("three", &["cpu=2", "set=s"]),
        pod("other", &["cpu=3"]),
    ];
    let refusals = snapshot.plan(&pods).refusals;
    let shared = |a: usize, b: usize| Arc::ptr_eq(&refusals[a].why, &refusals[b].why);
    assert!(shared(0, 1));
    // What was placed meanwhile may matter.
    assert!(!shared(1, 2) && !shared(2, 3));
    assert_eq!(refusals[0].why, refusals[2].why);
}

#[test]
fn no_nodes_is_its_own_sentence() {
    insta::assert_snapshot!(transcript("pod web", 0), @"web: no nodes available to schedule pods");
}

#[test]
fn pods_of_one_set_spread_over_nodes() {
    for seed in 0..32 {
        let text = transcript(
            "node a | node b | node c | pod 1 set=s | pod 2 set=s | pod 3 set=s | pod 4 set=s | pod 5 set=s | pod 6 set=s",
            seed,
        );
        for node in ["a", "b", "c"] {
            let here = text
                .lines()
                .filter(|line| line.ends_with(&format!("-> {node}")));
            assert_eq!(here.count(), 2, "WEFT_SEED={seed}\n{text}");
        }
    }
}

#[test]
fn a_hard_constraint_refuses_what_would_skew() {
    insta::assert_snapshot!(transcript(
        "node a cpu=1 | node b | pod old on=b | pod 1 skew=1 cpu=2", 0), @r"
    1: 0/2 nodes are available: 1 Insufficient cpu, 1 node(s) didn't match pod topology spread constraints. preemption: 0/2 nodes are available: 1 No preemption victims found for incoming pod, 1 Preemption is not helpful for scheduling.
      a: Insufficient cpu: 2000m requested, 1000m of 1000m free
      b: node(s) didn't match pod topology spread constraints
    ");
}

#[test]
fn wishes_are_followed() {
    insta::assert_snapshot!(transcript(
        "node a label=disk:ssd | node b label=disk:hdd taint=gpu:yes:NoSchedule | node c taint=old:yes:PreferNoSchedule label=disk:tape \
         | pod tolerant select=disk:hdd tolerate=gpu | pod required affinity=disk:ssd | pod preferred prefer=disk:tape tolerate=old | pod avoids cpu=3",
        0), @r"
    tolerant -> b
    required -> a
    preferred -> c
    avoids -> a
    ");
}

#[test]
fn init_containers_count_by_their_maximum_and_ports_are_exclusive() {
    insta::assert_snapshot!(transcript(
        "node a cpu=2 pods=2 | pod heavy-start cpu=1 init-cpu=3 | pod 1 port=80 | pod 2 port=80 | pod 3 | pod 4", 0), @r"
    heavy-start: 0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling.
      a: Insufficient cpu: 3000m requested, 2000m of 2000m free
    1 -> a
    2: 0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports. preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod.
      a: node(s) didn't have free ports for the requested pod ports
    3 -> a
    4: 0/1 nodes are available: 1 Too many pods. preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod.
      a: Too many pods
    ");
}

#[test]
fn a_plan_never_over_commits_and_repeats_exactly() {
    for seed in 0..64_u64 {
        let pods: Vec<String> = (0..40)
            .map(|n| {
                format!(
                    "pod p{n} cpu={}m set=s{}",
                    100 + (seed * 31 + n * 97) % 900,
                    n % 3
                )
            })
            .collect();
        let cluster = format!(
            "node a cpu=4 | node b cpu=3 | node c cpu=2 | {}",
            pods.join(" | ")
        );
        let text = transcript(&cluster, seed);
        assert_eq!(text, transcript(&cluster, seed), "WEFT_SEED={seed}");
        for (name, room) in [("a", 4000), ("b", 3000), ("c", 2000)] {
            let placed = text.lines().filter_map(|line| line.split_once(" -> "));
            let used: u64 = placed
                .filter(|(_, node)| *node == name)
                .map(|(pod, _)| {
                    let n: u64 = pod.trim_start_matches('p').parse().unwrap();
                    100 + (seed * 31 + n * 97) % 900
                })
                .sum();
            assert!(used <= room, "WEFT_SEED={seed} {name} {used}");
        }
    }
}

#[test]
fn pods_that_leave_free_their_room() {
    let mut snapshot = Snapshot::default();
    snapshot.put_node(node("a", &["cpu=1"]));
    snapshot.put_pod(pod("old", &["cpu=1", "on=a"]));
    let waiting = pod("new", &["cpu=1"]);
    assert!(snapshot.plan([&waiting]).placements.is_empty());
    snapshot.remove_pod("old");
    assert_eq!(snapshot.plan([&waiting]).placements.len(), 1);
    // It is counted from then on, and taken back by whoever cannot bind it.
    assert_eq!(snapshot.node_of("new"), Some("a"));
    snapshot.remove_pod("new");
    snapshot.remove_node("a");
    assert_eq!(snapshot.plan([&waiting]).refusals[0].why.nodes, 0);
}

#[test]
fn what_a_pod_took_is_free_again_however_much_it_was() {
    let mut snapshot = Snapshot::default();
    snapshot.put_node(node("a", &["cpu=4", "memory=8Gi"]));
    snapshot.put_pod(pod("small", &["on=a", "memory=6Gi"]));
    for name in ["huge", "vast"] {
        snapshot.put_pod(pod(
            name,
            &["on=a", "memory=8191Pi", "cpu=9000000000000000"],
        ));
    }
    for name in ["huge", "vast"] {
        snapshot.remove_pod(name);
    }
    let more = pod("more", &["memory=3Gi"]);
    let decided = snapshot.plan([&more]);
    assert_eq!(decided.refusals.len(), 1, "6 of 8 Gi are taken");
    let fits = pod("fits", &["memory=2Gi"]);
    assert_eq!(snapshot.plan([&fits]).placements.len(), 1);
}
