//! What the planner alone costs: pods a second on clusters of several sizes, for pods with several sorts of rules.
//!
//! `cargo run --release --example planner [NODES…]`. Facts are made beforehand, as the loop has them when it plans; batches are as the
//! loop's. Prints microseconds of one processor for each pod, and how much dearer it is than with the fewest nodes.

use std::time::Duration;

use serde_json::{Value, json};
use weft_scheduler::{NodeFacts, PodFacts, Snapshot};

const SIZES: [usize; 4] = [100, 1_000, 5_000, 10_000];
/// As the control loop's.
const BATCH: usize = 256;
const PODS_A_NODE: usize = 2;
const LEAST_PODS: usize = 20_000;

fn node(number: usize) -> NodeFacts {
    let node = json!({
        "metadata": {"name": format!("node-{number}"), "labels": {
            "topology.kubernetes.io/zone": format!("zone-{}", number % 3),
            "rack": format!("rack-{}", number / 20),
        }},
        "status": {"allocatable": {"cpu": "4", "memory": "32Gi", "pods": "110"}},
    });
    let node = serde_json::from_value(node).expect("a node");
    NodeFacts::of(&node)
}

fn pod(number: usize, labels: &Value, extra: &Value) -> PodFacts {
    let mut spec = json!({"containers": [{"name": "pause", "image": "pause:1",
        "resources": {"requests": {"cpu": "100m", "memory": "500Mi"}}}]});
    for (key, value) in extra.as_object().into_iter().flatten() {
        spec[key] = value.clone();
    }
    let name = format!("pod-{number}");
    let pod = json!({"metadata": {"name": name, "uid": name, "namespace": "bench", "labels": labels}, "spec": spec});
    let pod = serde_json::from_value(pod).expect("a pod");
    PodFacts::of(&pod)
}

/// Sorts of pods, by name, with what stands in their specs.
fn sorts() -> Vec<(&'static str, Value)> {
    let term = |key: &str| json!({"topologyKey": key, "labelSelector": {"matchLabels": {"color": "green"}}});
    let spread = |key: &str, hard: bool| {
        json!({"topologySpreadConstraints": [{"maxSkew": 5, "topologyKey": key,
            "whenUnsatisfiable": if hard { "DoNotSchedule" } else { "ScheduleAnyway" },
            "labelSelector": {"matchLabels": {"color": "green"}}}]})
    };
    let affinity = |sign: &str, rule: Value| json!({"affinity": {sign: rule}});
    let required = "requiredDuringSchedulingIgnoredDuringExecution";
    let preferred = "preferredDuringSchedulingIgnoredDuringExecution";
    let zone = "topology.kubernetes.io/zone";
    let host = "kubernetes.io/hostname";
    vec![
        ("plain", json!({})),
        ("spread over zones", spread(zone, true)),
        ("spread over nodes", spread(host, true)),
        ("softly over nodes", spread(host, false)),
        (
            "apart by node",
            affinity("podAntiAffinity", json!({required: [term(host)]})),
        ),
        (
            "near by zone",
            affinity("podAffinity", json!({required: [term(zone)]})),
        ),
        (
            "rather near by node",
            affinity(
                "podAffinity",
                json!({preferred: [{"weight": 1, "podAffinityTerm": term(host)}]}),
            ),
        ),
        (
            "rather apart by rack",
            affinity(
                "podAntiAffinity",
                json!({preferred: [{"weight": 1, "podAffinityTerm": term("rack")}]}),
            ),
        ),
    ]
}

/// What this thread has computed so far: others on the machine do not count.
fn processor_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux tells it");
    let nanoseconds = text
        .split_whitespace()
        .next()
        .and_then(|text| text.parse().ok());
    Duration::from_nanos(nanoseconds.expect("a number"))
}

/// Every pod is of a kind of its own.
fn distinct(count: usize) -> Vec<PodFacts> {
    let pods =
        (0..count).map(|number| pod(number, &json!({"index": number.to_string()}), &json!({})));
    pods.collect()
}

/// Of several runs, where one is too short for the kernel's count.
fn measure(nodes: usize, pods: &[PodFacts]) -> Duration {
    let runs = u32::try_from(LEAST_PODS.div_ceil(pods.len())).unwrap_or(1);
    let all: Duration = (0..runs).map(|_| measure_once(nodes, pods)).sum();
    all / runs
}

fn measure_once(nodes: usize, pods: &[PodFacts]) -> Duration {
    let mut snapshot = Snapshot::new(1);
    for number in 0..nodes {
        snapshot.put_node(node(number));
    }
    let begun = processor_time();
    let mut placed = 0;
    for batch in pods.chunks(BATCH) {
        placed += snapshot.plan(batch).placements.len();
    }
    let took = processor_time().saturating_sub(begun);
    assert!(placed * 2 >= pods.len(), "{placed} of {}", pods.len());
    took
}

/// Full nodes, and pods for which one of two has to go.
fn measure_preemption(nodes: usize) -> (Duration, usize) {
    let mut snapshot = Snapshot::new(1);
    for number in 0..nodes {
        snapshot.put_node(node(number));
    }
    let requests = |cpu: &str| json!({"containers": [{"name": "pause", "resources": {"requests": {"cpu": cpu}}}]});
    let low: Vec<PodFacts> = (0..nodes * 4)
        .map(|n| pod(n, &json!({}), &requests("900m")))
        .collect();
    snapshot.plan(&low);
    let mut spec = requests("3");
    spec["priority"] = json!(10);
    let count = nodes.min(500);
    let high: Vec<PodFacts> = (0..count)
        .map(|n| pod(1_000_000 + n, &json!({}), &spec))
        .collect();
    let begun = processor_time();
    let preempted = snapshot.plan(&high).preemptions.len();
    let took = processor_time().saturating_sub(begun);
    assert_eq!(preempted, count);
    (took, count)
}

fn main() {
    let asked: Vec<usize> = std::env::args()
        .skip(1)
        .filter_map(|size| size.parse().ok())
        .collect();
    let sizes = if asked.is_empty() {
        SIZES.to_vec()
    } else {
        asked
    };
    let line = |name: &str, costs: &[f64]| {
        let cells: Vec<String> = costs.iter().map(|cost| format!("{cost:>10.2}")).collect();
        let growth = costs.last().unwrap_or(&0.0) / costs.first().unwrap_or(&1.0);
        let rate = 1e6 / costs.last().unwrap_or(&1.0);
        println!("{name:<22}{}{growth:>8.2}x{rate:>12.0}", cells.concat());
    };
    let heads: Vec<String> = sizes.iter().map(|size| format!("{size:>10}")).collect();
    println!(
        "{:<22}{}{:>9}{:>12}",
        "µs a pod, at nodes",
        heads.concat(),
        "growth",
        "last: 1/s"
    );
    let labels = json!({"color": "green"});
    #[allow(clippy::cast_precision_loss)]
    let cost = |took: Duration, pods: usize| took.as_secs_f64() * 1e6 / pods as f64;
    for (name, extra) in sorts() {
        let costs = sizes.iter().map(|nodes| {
            // Apart by node, no more pods fit than there are nodes.
            let count = if name.starts_with("apart") {
                *nodes
            } else {
                nodes * PODS_A_NODE
            };
            let pods: Vec<PodFacts> = (0..count)
                .map(|number| pod(number, &labels, &extra))
                .collect();
            cost(measure(*nodes, &pods), count)
        });
        let costs: Vec<f64> = costs.collect();
        line(name, &costs);
    }
    let costs = sizes.iter().map(|nodes| {
        cost(
            measure(*nodes, &distinct(nodes * PODS_A_NODE)),
            nodes * PODS_A_NODE,
        )
    });
    line("each of its own kind", &costs.collect::<Vec<f64>>());
    let costs = sizes.iter().map(|nodes| {
        let (took, count) = measure_preemption(*nodes);
        cost(took, count)
    });
    line("preemption", &costs.collect::<Vec<f64>>());
}
