//! Which nodes lack a pod, and which pods are too many.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use super::Row;
use super::failures::Failures;
use super::want::Want;
use crate::pod::Phase;
use crate::revision::REVISION_LABEL;
use crate::until;
use crate::view::View;
use crate::write::{Note, Write};

/// What a node is to a DaemonSet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fit {
    /// It is to have a pod.
    pub takes_new: bool,
    /// A pod that is there may stay.
    pub keeps_old: bool,
}

/// What is to be made and removed.
#[derive(Debug, Default)]
pub struct Verdict<'a> {
    /// Nodes that need a pod.
    pub missing: Vec<&'a str>,
    /// Pods to remove.
    pub excess: Vec<&'a Row>,
    pub notes: Vec<Write>,
    pub again_after: Option<Duration>,
}

pub fn judge<'a>(
    view: &View,
    want: &Want<'_>,
    by_node: &BTreeMap<&'a str, Vec<&'a Row>>,
    fits: &BTreeMap<&'a str, Fit>,
    now: Timestamp,
) -> Verdict<'a> {
    let mut verdict = Verdict::default();
    for (node, fit) in fits {
        match by_node.get(node) {
            None if fit.takes_new => verdict.missing.push(node),
            None => {}
            Some(pods) if fit.keeps_old => {
                let running = living(view, want, node, pods, now, &mut verdict);
                if !want.surges() {
                    // All but the oldest.
                    verdict.excess.extend(running.iter().skip(1));
                } else if running.is_empty() && fit.takes_new {
                    verdict.missing.push(node);
                } else if running.len() > 1 {
                    verdict.excess.extend(surplus(want, &running));
                }
            }
            Some(pods) => {
                let staying = pods.iter().filter(|pod| !pod.meta.is_deleting());
                verdict.excess.extend(staying);
            }
        }
    }
    // Such a pod is never placed, and no node's end removes it.
    let lost = by_node.iter().filter(|(node, _)| !fits.contains_key(*node));
    let lost = lost.flat_map(|(_, pods)| pods);
    let lost = lost.filter(|pod| pod.body.node.is_empty() && !pod.meta.is_deleting());
    verdict.excess.extend(lost);
    verdict
}

/// The pods of a node that are not going; those that ended are to be removed.
fn living<'a>(
    view: &View,
    want: &Want<'_>,
    node: &str,
    pods: &[&'a Row],
    now: Timestamp,
    verdict: &mut Verdict<'a>,
) -> Vec<&'a Row> {
    let mut running = Vec::new();
    for pod in pods.iter().filter(|pod| !pod.meta.is_deleting()) {
        let (key, set) = (&pod.key, want.set);
        match pod.body.phase {
            Phase::Failed => {
                let due = view.tracked::<Failures>().due(&set.meta.uid, node);
                if due > now {
                    let wait = until(due, now);
                    let sooner = verdict.again_after.is_none_or(|old| wait < old);
                    verdict.again_after = if sooner {
                        Some(wait)
                    } else {
                        verdict.again_after
                    };
                    continue;
                }
                let message =
                    format!("Found failed daemon pod {key} on node {node}, will try to kill it");
                let told = Note::warning(set.reference(), "FailedDaemonPod", message);
                verdict.notes.push(Write::Event(told));
                verdict.excess.push(pod);
            }
            Phase::Succeeded => {
                let message = format!(
                    "Found succeeded daemon pod {key} on node {node}, will try to delete it"
                );
                let told = Note::normal(set.reference(), "SucceededDaemonPod", message);
                verdict.notes.push(Write::Event(told));
                verdict.excess.push(pod);
            }
            Phase::Pending | Phase::Running | Phase::Unknown => running.push(*pod),
        }
    }
    running
}

/// Of several pods of a node, oldest first, those that go: at most one old and one new stay, and the old one only while it
/// serves and the new one does not yet.
fn surplus<'a>(want: &Want<'_>, running: &[&'a Row]) -> Vec<&'a Row> {
    let (mut new, mut old): (Option<&Row>, Option<&Row>) = (None, None);
    let mut going = Vec::new();
    for pod in running {
        let hash = pod.meta.labels.get(REVISION_LABEL);
        let place = match hash.is_some_and(|hash| *hash == want.hash) {
            true => &mut new,
            false => &mut old,
        };
        match place {
            Some(_) => going.push(*pod),
            None => *place = Some(pod),
        }
    }
    if let (Some(new), Some(old)) = (new, old)
        && (!old.body.is_ready || want.is_available(new))
    {
        going.push(old);
    }
    going
}
