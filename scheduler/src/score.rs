//! Which of the nodes that can take a pod should.
//!
//! Kubernetes' scores and weights: untainted (3), preferred affinity (2), spreading (2), least allocated (1), balanced (1),
//! each from 0 to 100. Equally good nodes are told apart by a hash of seed, pod and node, so a replay chooses the same.

use weft_api::hash::fnv1a_64_seeded;
use weft_api::node_selector::term_holds;
use weft_api::toleration::tolerates;

use crate::reserve::{Domains, Working};
use crate::snapshot::PodFacts;

const MAX: i64 = 100;
const WEIGHT_TAINTS: i64 = 3;
const WEIGHT_AFFINITY: i64 = 2;
const WEIGHT_SPREAD: i64 = 2;
/// What scores look at; other resources only have to fit.
const SCORED: [&str; 2] = ["cpu", "memory"];

/// The best of `fitting`; `None` if it is empty.
pub(crate) fn best_node(
    pod: &PodFacts,
    working: &Working<'_>,
    fitting: &[usize],
    constraints: &[Domains],
    default_counts: &[u32],
    seed: u64,
) -> Option<usize> {
    let column = |of: &dyn Fn(usize) -> i64| -> Vec<i64> {
        fitting.iter().map(|index| of(*index)).collect()
    };
    let mut totals = vec![0_i64; fitting.len()];
    let mut add = |scores: Vec<i64>, weight: i64| {
        for (total, score) in totals.iter_mut().zip(scores) {
            *total += score * weight;
        }
    };
    add(
        fewer_is_better(column(&|i| soft_taints(pod, working, i))),
        WEIGHT_TAINTS,
    );
    add(
        more_is_better(column(&|i| preference(pod, working, i))),
        WEIGHT_AFFINITY,
    );
    let soft = constraints.iter().any(|domains| !domains.hard);
    if soft {
        add(
            fewer_is_better(column(&|i| crowd(constraints, working, i))),
            WEIGHT_SPREAD,
        );
    } else if !default_counts.is_empty() {
        add(
            fewer_is_better(column(&|i| i64::from(default_counts[i]))),
            WEIGHT_SPREAD,
        );
    }
    add(column(&|i| least_allocated(pod, working, i)), 1);
    add(column(&|i| balanced(pod, working, i)), 1);
    let scored = fitting.iter().zip(&totals);
    scored
        .max_by_key(|(index, total)| {
            let name = &working.node(**index).name;
            (**total, tie(seed, &pod.uid, name))
        })
        .map(|(index, _)| *index)
}

/// Scales to 0..=100 with the fewest at 100; all equal are all at 100.
fn fewer_is_better(counts: Vec<i64>) -> Vec<i64> {
    let most = counts.iter().copied().max().unwrap_or(0);
    let fewest = counts.iter().copied().min().unwrap_or(0);
    if most == fewest {
        return vec![MAX; counts.len()];
    }
    let scores = counts.into_iter();
    scores
        .map(|count| MAX * (most - count) / (most - fewest))
        .collect()
}

fn more_is_better(counts: Vec<i64>) -> Vec<i64> {
    let most = counts.iter().copied().max().unwrap_or(0);
    if most <= 0 {
        return vec![0; counts.len()];
    }
    counts.into_iter().map(|count| MAX * count / most).collect()
}

fn soft_taints(pod: &PodFacts, working: &Working<'_>, index: usize) -> i64 {
    let taints = working.node(index).taints.iter();
    let soft = taints.filter(|taint| taint.effect == "PreferNoSchedule");
    let untolerated = soft.filter(|taint| !pod.tolerations.iter().any(|t| tolerates(t, taint)));
    i64::try_from(untolerated.count()).unwrap_or(i64::MAX)
}

fn preference(pod: &PodFacts, working: &Working<'_>, index: usize) -> i64 {
    let node = working.node(index);
    let terms = pod.preferred.iter();
    let held = terms.filter(|term| {
        let preference = &term.preference;
        // An empty preference matches every node.
        let empty = preference.match_expressions.is_none() && preference.match_fields.is_none();
        empty || term_holds(preference, &node.name, &node.labels)
    });
    held.map(|term| i64::from(term.weight)).sum()
}

/// Matching pods in the node's domains, over the soft constraints.
fn crowd(constraints: &[Domains], working: &Working<'_>, index: usize) -> i64 {
    let soft = constraints.iter().filter(|domains| !domains.hard);
    soft.map(|domains| {
        let value = working.node(index).labels.get(&domains.key);
        let count = value.and_then(|value| domains.counts.get(value));
        // A node outside the topology is as bad as the fullest domain.
        let fullest = domains.counts.values().copied().max().unwrap_or(0);
        count.copied().unwrap_or(fullest + 1)
    })
    .sum()
}

/// Free share in percent with the pod on it, per scored resource.
fn shares(pod: &PodFacts, working: &Working<'_>, index: usize) -> impl Iterator<Item = i64> {
    let node = working.node(index);
    let weight = working.weight(index);
    SCORED.into_iter().filter_map(move |resource| {
        let total = node.allocatable.get(resource);
        let taken = weight.get(resource) + pod.weight.get(resource);
        let share = (total - taken).max(0) * i128::from(MAX) / total.max(1);
        (total > 0).then(|| i64::try_from(share).unwrap_or(MAX).min(MAX))
    })
}

fn least_allocated(pod: &PodFacts, working: &Working<'_>, index: usize) -> i64 {
    let (sum, count) = shares(pod, working, index).fold((0, 0), |(s, n), x| (s + x, n + 1));
    if count == 0 { 0 } else { sum / count }
}

/// 100 less the standard deviation of the shares; of two numbers that is half their distance.
fn balanced(pod: &PodFacts, working: &Working<'_>, index: usize) -> i64 {
    let shares: Vec<i64> = shares(pod, working, index).collect();
    match shares.as_slice() {
        [one, other] => MAX - (one - other).abs() / 2,
        _ => MAX,
    }
}

/// FNV-1a over seed, pod and node, mixed: spreads ties evenly and repeats exactly.
fn tie(seed: u64, pod: &str, node: &str) -> u64 {
    let bytes = pod.bytes().chain([0]).chain(node.bytes());
    let state = fnv1a_64_seeded(seed, bytes);
    let state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    state ^ (state >> 31)
}
