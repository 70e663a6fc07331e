//! Two ways to the same answer: a snapshot kept up change by change decides as one made of what is there, and a batch decides as
//! its pods one after the other.
//!
//! Cases are the same in every run; `WEFT_SEED=17` tries others, and a failure prints the seed and the smallest input.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use serde_json::json;

use super::{node, pod};
use crate::{NodeFacts, Plan, PodFacts, Snapshot, plan};

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

const PODS: [&[&str]; 12] = [
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
            assert_eq!(known.is_some(), forgotten.is_some());
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

fn rebuilt(there: &There) -> Snapshot {
    let mut snapshot = Snapshot::default();
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

/// All that a snapshot counts. An amount of nothing is as good as none.
fn counted(snapshot: &Snapshot) -> Vec<String> {
    let amounts = |resources: &crate::Resources| {
        let all = resources.0.iter().filter(|(_, amount)| **amount != 0);
        all.map(|(name, amount)| format!("{name}={amount}"))
            .collect::<Vec<_>>()
    };
    let nodes = snapshot.nodes.iter().map(|(name, state)| {
        let mut ports: Vec<String> = state
            .host_ports
            .iter()
            .map(|port| format!("{port:?}"))
            .collect();
        ports.sort();
        let (used, weight) = (amounts(&state.used), amounts(&state.weight));
        let (facts, pods) = (&state.facts, &state.pods);
        format!("{name}: {facts:?} {used:?} {weight:?} {pods:?} {ports:?}")
    });
    let indexes = format!(
        "{:?} {:?} {:?}",
        snapshot.apart, snapshot.namespaces, snapshot.services
    );
    nodes.chain([indexes]).collect()
}

/// Each pod placed on what the ones before have left.
fn one_by_one(mut snapshot: Snapshot, pending: &[PodFacts], seed: u64) -> Plan {
    let mut whole = Plan::default();
    for pod in pending {
        let part = plan(&snapshot, [pod], seed);
        for placement in &part.placements {
            snapshot.put_pod(PodFacts {
                node: Some(placement.node.clone()),
                ..pod.clone()
            });
        }
        whole.placements.extend(part.placements);
        whole.refusals.extend(part.refusals);
    }
    whole
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_snapshot_kept_up_is_one_made_of_what_is_there(
        steps in steps(), pending in pending(), seed in any::<u64>()
    ) {
        let (mut snapshot, mut there) = (Snapshot::default(), There::default());
        for step in steps {
            take(step, &mut snapshot, &mut there);
        }
        let rebuilt = rebuilt(&there);
        prop_assert_eq!(counted(&snapshot), counted(&rebuilt));
        prop_assert_eq!(plan(&snapshot, &pending, seed), plan(&rebuilt, &pending, seed));
        // And nothing is left of what goes.
        for name in there.pods.keys() {
            snapshot.remove_pod(name);
        }
        for name in there.nodes.keys() {
            snapshot.remove_node(name);
        }
        prop_assert!(snapshot.nodes.is_empty() && snapshot.pods.is_empty());
        prop_assert!(snapshot.namespaces.is_empty() && snapshot.apart.is_empty());
        prop_assert!(snapshot.shares_nothing());
    }

    #[test]
    fn a_batch_is_its_pods_one_after_the_other(
        steps in steps(), pending in pending(), seed in any::<u64>()
    ) {
        let (mut snapshot, mut there) = (Snapshot::default(), There::default());
        for step in steps {
            take(step, &mut snapshot, &mut there);
        }
        let batch = plan(&snapshot, &pending, seed);
        prop_assert_eq!(batch, one_by_one(snapshot, &pending, seed));
    }
}
