//! Two ways to the same answer: a snapshot kept up change by change decides as one made of what is there, and a batch decides as
//! its pods one after the other.
//!
//! Cases are the same in every run; `WEFT_SEED=17` tries others, and a failure prints the seed and the smallest input.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use serde_json::json;

use super::{node, pod};
use crate::{NodeFacts, Plan, PodFacts, Snapshot};

/// Each is some milliseconds.
const CASES: u32 = 256;

fn config() -> ProptestConfig {
    let seed = std::env::var("WEFT_SEED").ok();
    let seed = seed.and_then(|seed| seed.parse().ok()).unwrap_or(1);
    println!("WEFT_SEED={seed}");
    ProptestConfig {
        cases: CASES,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(seed),
        ..ProptestConfig::default()
    }
}

const NODES: [&[&str]; 6] = [
    &["label=zone:a"],
    &["label=zone:b", "pods=3"],
    &["label=zone:b", "cpu=1"],
    &["label=zone:a", "taint=k:v:NoSchedule"],
    &["taint=k:v:PreferNoSchedule", "cpu=8"],
    &["unschedulable"],
];

const PODS: [&[&str]; 16] = [
    &[],
    &["cpu=1", "set=x"],
    &["cpu=2", "set=x"],
    &["memory=1Gi", "label=db:yes"],
    &["apart=app:web"],
    &["apart=db:yes:zone", "set=y"],
    &["near=db:yes:zone"],
    &["near=app:web:zone", "set=z"],
    &["skew=1", "set=y"],
    &["skew=2"],
    &["port=80", "tolerate=k"],
    &["cpu=9223372036854775807", "memory=8191Pi"],
    &["cpu=2", "priority=5", "set=x"],
    &["cpu=3", "priority=9", "label=db:yes"],
    &["pin=n1", "priority=-3"],
    &["apart=app:web:zone", "priority=7", "ending"],
];

/// What may become of the cluster, by small numbers: of the object, and of what it looks like.
#[derive(Debug, Clone, Copy)]
enum Step {
    Node(u8, usize),
    NodeGone(u8),
    /// Bound to a node, which need not be there; or to none any more.
    Pod(u8, usize, Option<u8>),
    PodGone(u8),
    Service(u8, usize),
    ServiceGone(u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let (name, looks) = (0_u8..5, any::<prop::sample::Index>());
    let step = prop_oneof![
        3 => (name.clone(), looks.clone()).prop_map(|(n, l)| Step::Node(n, l.index(NODES.len()))),
        1 => name.clone().prop_map(Step::NodeGone),
        8 => (0_u8..12, looks.clone(), prop::option::weighted(0.9, name.clone()))
            .prop_map(|(p, l, n)| Step::Pod(p, l.index(PODS.len()), n)),
        3 => (0_u8..12).prop_map(Step::PodGone),
        1 => (0_u8..2, looks.clone()).prop_map(|(s, l)| Step::Service(s, l.index(3))),
        1 => (0_u8..2).prop_map(Step::ServiceGone),
    ];
    prop::collection::vec(step, 0..60)
}

fn pending() -> impl Strategy<Value = Vec<PodFacts>> {
    let looks = prop::collection::vec(0..PODS.len(), 1..12);
    looks.prop_map(|looks| {
        let pods = looks.into_iter().enumerate();
        pods.map(|(number, looks)| pod(&format!("new-{number}"), PODS[looks]))
            .collect()
    })
}

/// What is there, and nothing else.
#[derive(Default)]
struct There {
    nodes: BTreeMap<String, NodeFacts>,
    pods: BTreeMap<String, PodFacts>,
    services: BTreeMap<String, &'static str>,
}

fn put_service(snapshot: &mut Snapshot, name: &str, selects: &str) {
    let service = json!({"metadata": {"name": name, "namespace": "default"}, "spec": {"selector": {selects: "web"}}});
    snapshot.put_service(&serde_json::from_value(service).unwrap());
}

fn take(step: Step, snapshot: &mut Snapshot, there: &mut There) {
    let node_name = |number: u8| format!("n{number}");
    let pod_name = |number: u8| format!("p{number}");
    match step {
        Step::Node(number, looks) => {
            let facts = node(&node_name(number), NODES[looks]);
            there.nodes.insert(node_name(number), facts.clone());
            snapshot.put_node(facts);
        }
        Step::NodeGone(number) => {
            there.nodes.remove(&node_name(number));
            snapshot.remove_node(&node_name(number));
        }
        Step::Pod(number, looks, on) => {
            let mut facts = pod(&pod_name(number), PODS[looks]);
            facts.node = on.map(|on| node_name(on).into());
            there.pods.remove(&pod_name(number));
            if facts.node.is_some() {
                there.pods.insert(pod_name(number), facts.clone());
            }
            snapshot.put_pod(facts);
        }
        Step::PodGone(number) => {
            let known = there.pods.remove(&pod_name(number));
            let forgotten = snapshot.remove_pod(&pod_name(number));
            assert_eq!(known.is_some(), forgotten);
        }
        Step::Service(number, selects) => {
            let (name, selects) = (format!("s{number}"), ["app", "db", "none"][selects]);
            put_service(snapshot, &name, selects);
            there.services.insert(name, selects);
        }
        Step::ServiceGone(number) => {
            let name = format!("s{number}");
            snapshot.remove_service("default", &name);
            there.services.remove(&name);
        }
    }
}

fn rebuilt(there: &There, seed: u64) -> Snapshot {
    let mut snapshot = Snapshot::new(seed);
    for facts in there.pods.values().rev() {
        snapshot.put_pod(facts.clone());
    }
    for (name, selects) in &there.services {
        put_service(&mut snapshot, name, selects);
    }
    for facts in there.nodes.values() {
        snapshot.put_node(facts.clone());
    }
    snapshot
}

/// Each pod placed on what the ones before have left, by a snapshot that was made of nothing but what is there.
fn one_by_one(there: &There, pending: &[PodFacts], seed: u64) -> Plan {
    let mut whole = Plan::default();
    let mut placed: Vec<PodFacts> = Vec::new();
    let mut claims: Vec<(PodFacts, std::sync::Arc<str>)> = Vec::new();
    for pod in pending {
        let mut snapshot = rebuilt(there, seed);
        for pod in &placed {
            snapshot.put_pod(pod.clone());
        }
        for (pod, node) in &claims {
            snapshot.nominate(pod, node);
        }
        let part = snapshot.plan([pod]);
        for placement in &part.placements {
            placed.push(PodFacts {
                node: Some(placement.node.clone()),
                ..pod.clone()
            });
        }
        for preemption in &part.preemptions {
            claims.retain(|(pod, _)| !preemption.displaced.contains(&pod.uid));
            claims.push((pod.clone(), preemption.node.clone()));
        }
        whole.placements.extend(part.placements);
        whole.refusals.extend(part.refusals);
        whole.preemptions.extend(part.preemptions);
    }
    whole
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_snapshot_kept_up_is_one_made_of_what_is_there(
        steps in steps(), pending in pending(), seed in any::<u64>()
    ) {
        let (mut snapshot, mut there) = (Snapshot::new(seed), There::default());
        for (number, step) in steps.into_iter().enumerate() {
            take(step, &mut snapshot, &mut there);
            // Looking at pods in between must leave nothing behind.
            if number % 7 == 3 {
                for pod in &pending {
                    snapshot.explain(pod);
                }
            }
        }
        let mut rebuilt = rebuilt(&there, seed);
        prop_assert_eq!(snapshot.counted(), rebuilt.counted());
        let plan = snapshot.plan(&pending);
        prop_assert_eq!(&plan, &rebuilt.plan(&pending));
        prop_assert_eq!(snapshot.counted(), rebuilt.counted());
        // What is counted again from the pods is what was counted.
        rebuilt.recount();
        prop_assert_eq!(snapshot.counted(), rebuilt.counted());
        // And nothing is left of what goes.
        let placed = plan.placements.iter().map(|placement| placement.uid.to_string());
        for name in there.pods.keys().cloned().chain(placed) {
            snapshot.remove_pod(&name);
        }
        for preemption in &plan.preemptions {
            snapshot.denominate(&preemption.uid);
        }
        for name in there.nodes.keys() {
            snapshot.remove_node(name);
        }
        prop_assert!(snapshot.is_empty() && snapshot.pods.is_empty());
        prop_assert!(snapshot.nodes.iter().all(|node| node.name.is_empty()));
        prop_assert!(snapshot.counters.iter().all(|counter| counter.total == 0));
    }

    #[test]
    fn a_batch_is_its_pods_one_after_the_other(
        steps in steps(), pending in pending(), seed in any::<u64>()
    ) {
        let (mut snapshot, mut there) = (Snapshot::new(seed), There::default());
        for step in steps {
            take(step, &mut snapshot, &mut there);
        }
        let batch = snapshot.plan(&pending);
        prop_assert_eq!(batch, one_by_one(&there, &pending, seed));
    }
}
