//! Pods that nobody removes otherwise: ended ones beyond [`ENDED_MAX`], so that what ran once does not fill the store, and pods that are
//! being deleted before they had a node.
//!
//! Of ended pods those that were evicted go first, then the oldest. One without a node has nobody who could say how it ended: it failed,
//! and what still holds it is its finalizers.
//!
//! Invariants: no pod that runs, or may yet run, is touched; ended pods that are on their way out do not count.
//! Left to others: pods of nodes that are gone, silent or out of service (`node`), those that a Job lets go (`job`).
//!
//! Source: kubernetes `pkg/controller/podgc`, 1.37.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use weft_kinds::POD;
use weft_kinds::lens::text;

use crate::indexer::Cached;
use crate::metadata::Key;
use crate::node::remove;
use crate::pod::Pod;
use crate::view::{Touched, Track, View};
use crate::write::Write;
use crate::{Context, Controller, Outcome};

pub const CONTROLLER: Controller = Controller {
    name: "pod-garbage-collector-controller",
    reads: |reads| {
        reads.kind::<Pod>().track::<Ended>();
    },
    keys,
    relieved: |_, _| Vec::new(),
    seeds: |view| {
        let nowhere = view.list::<Pod>().filter(|pod| is_nowhere(pod));
        let nowhere = nowhere.map(|pod| pod.key.clone());
        nowhere.chain([sweep()]).collect()
    },
    subject: |view, key| Some(view.object_of(&POD, key)?.reference()),
    reconcile,
};

/// Kubernetes' `--terminated-pod-gc-threshold`.
const ENDED_MAX: usize = 12_500;
/// Removed in one pass. What is left wakes the controller again as the first ones go.
const BATCH: usize = 500;

/// The key that stands for all ended pods.
fn sweep() -> Key {
    Key::cluster("ended")
}

/// Evicted or not, when it was made, and which it is: in the order in which they go.
type Place = (bool, Option<Timestamp>, Key);

/// The pods that ended and that nobody deletes yet.
#[derive(Debug, Default)]
struct Ended {
    places: BTreeMap<Arc<str>, Place>,
    in_order: BTreeSet<Place>,
}

impl Track for Ended {
    fn notice(&mut self, touched: &Touched, _: bool, _: Timestamp) {
        if !touched.is_of(&POD) {
            return;
        }
        if let Some(place) = self.places.remove(&touched.uid) {
            self.in_order.remove(&place);
        }
        let ended = touched
            .after::<Pod>()
            .filter(|pod| pod.body.is_finished() && !pod.meta.is_deleting());
        if let Some(pod) = ended {
            let stayed = text(touched.object.as_value(), "/status/reason") != "Evicted";
            let place = (stayed, pod.meta.creation_timestamp, pod.key.clone());
            self.in_order.insert(place.clone());
            self.places.insert(Arc::clone(&touched.uid), place);
        }
    }
}

/// It is being deleted, never had a node, and has not ended.
fn is_nowhere(pod: &Cached<Pod>) -> bool {
    pod.meta.is_deleting() && pod.body.node.is_empty() && !pod.body.is_finished()
}

fn keys(view: &View, touched: &Touched) -> Vec<Key> {
    if !touched.is_of(&POD) {
        return Vec::new();
    }
    let nowhere = touched
        .after::<Pod>()
        .filter(|pod| is_nowhere(pod))
        .map(|pod| pod.key.clone());
    let too_many = view.tracked::<Ended>().in_order.len() > ENDED_MAX;
    nowhere.into_iter().chain(too_many.then(sweep)).collect()
}

fn reconcile(view: &View, key: &Key, cx: &Context<'_>) -> Outcome {
    if *key == sweep() {
        let ended = &view.tracked::<Ended>().in_order;
        return Outcome::from_writes(
            ended
                .iter()
                .take(ended.len().saturating_sub(ENDED_MAX).min(BATCH))
                .filter_map(|(.., key)| view.get::<Pod>(key))
                .map(|pod| Write::delete(pod).forced())
                .collect(),
        );
    }
    let nowhere = view.get::<Pod>(key).filter(|pod| is_nowhere(pod));
    Outcome::from_writes(nowhere.map_or_else(Vec::new, |pod| remove(pod, None, cx)))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::small::Small;

    fn pod(name: &str, born: u32, phase: &str, reason: &str) -> Value {
        let born = format!(
            "2026-01-01T{:02}:{:02}:{:02}Z",
            born / 3600,
            born / 60 % 60,
            born % 60
        );
        json!({"metadata": {"name": name, "creationTimestamp": born}, "spec": {"nodeName": "a", "containers": []},
            "status": {"phase": phase, "reason": reason}})
    }

    #[test]
    fn of_too_many_ended_pods_the_evicted_go_first_and_then_the_oldest() {
        let mut small = Small::new([CONTROLLER.reads]);
        small.put(&POD, pod("runs", 0, "Running", ""));
        let told = |small: &Small| -> Vec<String> {
            let writes = (CONTROLLER.reconcile)(
                &small.view,
                &sweep(),
                &crate::Context {
                    now: small.now,
                    cluster: &crate::Cluster {
                        ca_pem: String::new(),
                    },
                    kinds: &weft_kinds::Registry::builtin(),
                    last_failure: None,
                    usage: None,
                    calls: None,
                    past: &crate::Past::default(),
                },
            )
            .writes;
            let name = |write| match write {
                Write::Delete {
                    key,
                    grace_seconds: Some(0),
                    ..
                } => key.name.to_string(),
                other => format!("{other:?}"),
            };
            writes.into_iter().map(name).collect()
        };
        for number in 1..=ENDED_MAX as u32 {
            let phase = if number % 2 == 0 {
                "Succeeded"
            } else {
                "Failed"
            };
            small.put(&POD, pod(&format!("p{number}"), number, phase, ""));
        }
        assert_eq!(told(&small), [""; 0], "so many may stay");
        small.put(&POD, pod("young", 20_000, "Failed", "Evicted"));
        assert_eq!(told(&small), ["young"]);
        small.put(&POD, pod("old", 0, "Failed", ""));
        small.put(&POD, pod("older-by-name", 0, "Failed", ""));
        assert_eq!(told(&small), ["young", "old", "older-by-name"]);
        let mut going = pod("old", 0, "Failed", "");
        going["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        small.put(&POD, going);
        small.forget(&POD, "young");
        assert_eq!(told(&small), ["older-by-name"]);
    }

    #[test]
    fn a_pod_that_goes_before_it_had_a_node_failed() {
        let mut small = Small::new([CONTROLLER.reads]);
        for (node, phase, is_deleted, expected) in [
            ("", "Pending", true, vec!["delete pods p"]),
            ("", "Pending", false, vec![]),
            ("a", "Pending", true, vec![]),
            ("", "Failed", true, vec![]),
        ] {
            let mut pod = pod("p", 0, phase, "");
            pod["spec"]["nodeName"] = json!(node);
            if is_deleted {
                pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
                pod["metadata"]["finalizers"] = json!(["x/y"]);
            }
            small.put(&POD, pod);
            let told = small.told(&CONTROLLER, "p");
            assert_eq!(told, expected, "{node:?} {phase} {is_deleted}");
            let status = small.status(&CONTROLLER, "p");
            let failed = !expected.is_empty();
            assert_eq!(status["phase"] == "Failed", failed, "{status}");
        }
    }
}
