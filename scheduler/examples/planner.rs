//! What the planner alone costs: pods a second on clusters of several sizes, for pods with several sorts of rules.
//!
//! `cargo run --release --example planner -- [--json] [--case NAME]… [NODES…]`. Facts are made beforehand, as the loop has them when it
//! plans; batches are as the loop's. Prints microseconds of one processor for each pod, how much dearer it is than with the fewest nodes,
//! and pods a second with the most. Each figure is the least of several runs: what else the machine does only ever adds.

use std::time::Duration;

use serde_json::{Value, json};
use weft_scheduler::{NodeFacts, PodFacts, Snapshot};

const SIZES: [usize; 4] = [100, 1_000, 5_000, 10_000];
/// As the control loop's.
const BATCH: usize = 256;
const PODS_A_NODE: usize = 2;
const LEAST_PODS: usize = 20_000;
const RUNS: usize = 3;
/// More preemptions are not measured in one run.
const PREEMPTIONS_MAX: usize = 5_000;

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

/// The least of several runs.
fn least(run: impl Fn() -> Duration) -> Duration {
    let runs = (0..RUNS).map(|_| run());
    runs.min().unwrap_or_default()
}

/// Of several runs together, where one is too short for the kernel's count.
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

/// Full nodes, and pods for which some have to go: one for each node.
fn measure_preemption(nodes: usize, count: usize) -> Duration {
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
    let high: Vec<PodFacts> = (0..count)
        .map(|n| pod(1_000_000 + n, &json!({}), &spec))
        .collect();
    let begun = processor_time();
    let plans = high.chunks(BATCH).map(|batch| snapshot.plan(batch));
    let preempted: usize = plans.map(|plan| plan.preemptions.len()).sum();
    let took = processor_time().saturating_sub(begun);
    assert_eq!(preempted, count);
    took
}

/// Microseconds a pod.
#[allow(clippy::cast_precision_loss)]
fn cost(took: Duration, pods: usize) -> f64 {
    took.as_secs_f64() * 1e6 / pods as f64
}

/// What pods of a sort cost on so many nodes.
fn sort_cost(name: &str, extra: &Value, nodes: usize) -> f64 {
    // Apart by node, no more pods fit than there are nodes.
    let count = if name.starts_with("apart") {
        nodes
    } else {
        nodes * PODS_A_NODE
    };
    let labels = json!({"color": "green"});
    let pods: Vec<PodFacts> = (0..count)
        .map(|number| pod(number, &labels, extra))
        .collect();
    cost(least(|| measure(nodes, &pods)), count)
}

fn distinct_cost(nodes: usize) -> f64 {
    let pods = distinct(nodes * PODS_A_NODE);
    cost(least(|| measure(nodes, &pods)), pods.len())
}

fn preemption_cost(nodes: usize) -> f64 {
    let count = nodes.min(PREEMPTIONS_MAX);
    // A short one is measured often.
    let runs = u32::try_from(PREEMPTIONS_MAX / count).unwrap_or(1);
    let once = || {
        (0..runs)
            .map(|_| measure_preemption(nodes, count))
            .sum::<Duration>()
            / runs
    };
    cost(least(once), count)
}

struct Args {
    sizes: Vec<usize>,
    /// Names of cases; empty: all.
    cases: Vec<String>,
    is_json: bool,
}

impl Args {
    fn read() -> Self {
        let mut read = Self {
            sizes: Vec::new(),
            cases: Vec::new(),
            is_json: false,
        };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            match word.as_str() {
                "--json" => read.is_json = true,
                "--case" => read.cases.extend(words.next()),
                size => read.sizes.push(size.parse().expect("a number of nodes")),
            }
        }
        if read.sizes.is_empty() {
            read.sizes = SIZES.to_vec();
        }
        read
    }
}

fn main() {
    let args = Args::read();
    type Cost = Box<dyn Fn(usize) -> f64>;
    let mut cases: Vec<(&str, Cost)> = Vec::new();
    for (name, extra) in sorts() {
        cases.push((name, Box::new(move |nodes| sort_cost(name, &extra, nodes))));
    }
    cases.push(("each of its own kind", Box::new(distinct_cost)));
    cases.push(("preemption", Box::new(preemption_cost)));
    if !args.is_json {
        let heads: Vec<String> = args
            .sizes
            .iter()
            .map(|size| format!("{size:>10}"))
            .collect();
        println!(
            "{:<22}{}{:>9}{:>12}",
            "µs a pod, at nodes",
            heads.concat(),
            "growth",
            "last: 1/s"
        );
    }
    let is_asked = |name: &str| args.cases.is_empty() || args.cases.iter().any(|one| one == name);
    for (name, cost) in cases.into_iter().filter(|(name, _)| is_asked(name)) {
        let costs: Vec<f64> = args.sizes.iter().map(|nodes| cost(*nodes)).collect();
        if args.is_json {
            let row = json!({"case": name, "nodes": args.sizes, "microseconds_a_pod": costs});
            println!("{row}");
            continue;
        }
        let cells: Vec<String> = costs.iter().map(|cost| format!("{cost:>10.2}")).collect();
        let growth = costs.last().unwrap_or(&0.0) / costs.first().unwrap_or(&1.0);
        let rate = 1e6 / costs.last().unwrap_or(&1.0);
        println!("{name:<22}{}{growth:>8.2}x{rate:>12.0}", cells.concat());
    }
}
