//! The update of a DaemonSet's pods, once each node has as many as it should.
//!
//! Without a surge, an old pod goes when that leaves enough available; one that is not available goes at once. With one, a new pod comes beside
//! an old one that serves, on so many nodes at a time, and nothing goes that is not replaced.

use std::collections::BTreeMap;

use super::Row;
use super::node_pods::{Fit, Verdict};
use super::want::Want;

/// The pods of a node that are not going. `None`: more than one of a sort, which is settled first.
struct Pair<'a> {
    new: Option<&'a Row>,
    old: Option<&'a Row>,
}

fn pair<'a>(want: &Want<'_>, pods: &[&'a Row]) -> Option<Pair<'a>> {
    let mut pair = Pair {
        new: None,
        old: None,
    };
    for pod in pods.iter().filter(|pod| !pod.meta.is_deleting()) {
        let place = match want.is_updated(pod) {
            true => &mut pair.new,
            false => &mut pair.old,
        };
        if place.replace(pod).is_some() {
            return None;
        }
    }
    Some(pair)
}

pub fn judge<'a>(
    want: &Want<'_>,
    by_node: &BTreeMap<&'a str, Vec<&'a Row>>,
    fits: &BTreeMap<&'a str, Fit>,
    mut verdict: Verdict<'a>,
) -> Verdict<'a> {
    let wanted = fits.iter().filter(|(_, fit)| fit.takes_new);
    let desired = i64::try_from(wanted.clone().count()).unwrap_or(i64::MAX);
    let (surge, unavailable) = want.fences(desired);
    // Nodes that have none yet count as well.
    let mut nodes = by_node.clone();
    for (node, _) in wanted {
        nodes.entry(*node).or_default();
    }
    if surge == 0 {
        replace(want, &nodes, unavailable, &mut verdict);
    } else {
        double(want, &nodes, fits, surge, desired, &mut verdict);
    }
    verdict
}

fn replace<'a>(
    want: &Want<'_>,
    nodes: &BTreeMap<&'a str, Vec<&'a Row>>,
    most: i64,
    verdict: &mut Verdict<'a>,
) {
    let mut missing = 0;
    let mut serving = Vec::new();
    for pods in nodes.values() {
        match pair(want, pods) {
            Some(Pair {
                new: None,
                old: Some(old),
            }) => {
                if want.is_available(old) {
                    serving.push(old);
                } else {
                    verdict.excess.push(old);
                    missing += 1;
                }
            }
            Some(Pair {
                new: Some(new),
                old: None,
            }) => missing += i64::from(!want.is_available(new)),
            // None at all, or two: each is something that is not over.
            _ => missing += 1,
        }
    }
    let room = usize::try_from(most - missing).unwrap_or(0);
    verdict.excess.extend(serving.into_iter().take(room));
}

fn double<'a>(
    want: &Want<'_>,
    nodes: &BTreeMap<&'a str, Vec<&'a Row>>,
    fits: &BTreeMap<&'a str, Fit>,
    most: i64,
    desired: i64,
    verdict: &mut Verdict<'a>,
) {
    let [mut surging, mut available] = [0_i64; 2];
    let mut candidates = Vec::new();
    let mut leaving = Vec::new();
    for (node, pods) in nodes {
        let Some(pair) = pair(want, pods) else {
            surging += 1;
            continue;
        };
        let serves = pair.old.or(pair.new);
        available += i64::from(serves.is_some_and(|pod| want.is_available(pod)));
        let Some(old) = pair.old else { continue };
        let takes_new = fits.get(node).is_some_and(|fit| fit.takes_new);
        match pair.new {
            Some(new) if want.is_available(new) => verdict.excess.push(old),
            Some(_) => surging += 1,
            None if !want.is_available(old) && takes_new => verdict.missing.push(node),
            None if !want.is_available(old) => verdict.excess.push(old),
            None if takes_new => candidates.push(*node),
            None => leaving.push(old),
        }
    }
    // Nothing leaves a node that it may not be on any more before another serves in its place.
    let spare = usize::try_from(available - desired).unwrap_or(0);
    verdict.excess.extend(leaving.into_iter().take(spare));
    let room = usize::try_from(most - surging).unwrap_or(0);
    verdict.missing.extend(candidates.into_iter().take(room));
}
