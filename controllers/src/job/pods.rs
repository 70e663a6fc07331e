//! New pods of a Job, which ones are missing, and which are too many.
//!
//! Names are a function of the Job's uid and the highest revision seen among it and its pods, so a repeated pass over the same
//! state asks for the same names; see the crate's notes on double creation.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};
use weft_api::{Object, names};
use weft_kinds::POD;
use weft_kinds::lens::{items_mut, member, put};

use super::indexes::Indexes;
use super::policy::Verdict;
use super::want::{Want, counted_failures, ignored_failures, index_of};
use super::{INDEX, INDEX_FAILURES, INDEX_FAILURES_IGNORED, TRACKING};
use crate::claim::controller_reference;
use crate::indexer::Cached;
use crate::metadata::Key;
use crate::pod::{Phase, Pod};
use crate::view::View;
use crate::write::{Note, Write, object};

/// Where the index of a pod stands in its environment.
const INDEX_VARIABLE: &str = "JOB_COMPLETION_INDEX";
/// Letters that a generated name ends with.
const SUFFIX: usize = 5;
/// Longest prefix of a generated name: a DNS label without the suffix.
const PREFIX_MAX: usize = 63 - SUFFIX;

/// A pod to be made.
pub struct New<'a> {
    /// Of an Indexed Job.
    pub index: Option<i64>,
    /// The pod of this index that failed last.
    pub replaced: Option<&'a Cached<Pod>>,
}

/// Creates of these pods.
pub fn create(
    want: &Want<'_>,
    view: &View,
    pods: &[Arc<Cached<Pod>>],
    new: &[New<'_>],
) -> Vec<Write> {
    let raw = want.row.object.as_ref().map(|job| &job.as_value()["spec"]);
    let Some(template) = raw.map(|spec| &spec["template"]) else {
        return Vec::new();
    };
    let revisions = pods.iter().filter_map(|pod| pod.meta.resource_version);
    let epoch = revisions.chain(want.row.meta.resource_version).max();
    let epoch = epoch.unwrap_or(0).to_be_bytes();
    let mut attempt = 0_u64;
    let mut name_of = |base: &str| loop {
        let parts: [&[u8]; 3] = [want.row.meta.uid.as_bytes(), &epoch, &attempt.to_be_bytes()];
        attempt += 1;
        let name = names::generated(base, &names::suffix(names::hash(&parts), SUFFIX));
        if view.object_of(&POD, &want.row.key.sibling(&name)).is_none() {
            return name;
        }
    };
    new.iter()
        .map(|new| {
            let base = base_of(&want.row.key, new.index);
            let name = name_of(&base);
            let told = Note::normal(
                want.row.reference(),
                "SuccessfulCreate",
                format!("Created pod: {name}"),
            );
            let pod = pod_from(template, want, new, &base, &name);
            Write::create(&POD, pod).telling(told.or_refused("FailedCreate"))
        })
        .collect()
}

/// What the name begins with, without the dash at its end. An index stays, however long the Job's name is.
fn base_of(job: &Key, index: Option<i64>) -> String {
    let Some(index) = index else {
        return job.name.to_string();
    };
    let end = format!("-{index}");
    let room = PREFIX_MAX.saturating_sub(end.len() + 1);
    let start = &job.name[..job.name.floor_char_boundary(room)];
    format!("{start}{end}")
}

fn pod_from(template: &Value, want: &Want<'_>, new: &New<'_>, base: &str, name: &str) -> Object {
    let row = want.row;
    let mut metadata = json!({
        "name": name,
        "generateName": names::generate_prefix(base),
        "namespace": &*row.key.namespace,
        "ownerReferences": [controller_reference(row)],
    });
    for field in ["labels", "annotations", "finalizers"] {
        if let Some(value) = template["metadata"]
            .get(field)
            .filter(|value| !value.is_null())
        {
            metadata[field] = value.clone();
        }
    }
    let mut finalizers = metadata["finalizers"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    if !finalizers.iter().any(|finalizer| finalizer == TRACKING) {
        finalizers.push(TRACKING.into());
    }
    metadata["finalizers"] = finalizers.into();
    let mut spec = template["spec"].clone();
    if let Some(index) = new.index {
        let text = Value::from(index.to_string());
        put(member(&mut metadata, "labels"), INDEX, Some(text.clone()));
        put(member(&mut metadata, "annotations"), INDEX, Some(text));
        let hostname = format!("{}-{index}", row.key.name);
        put(&mut spec, "hostname", Some(hostname.into()));
        for list in ["/containers", "/initContainers"] {
            items_mut(&mut spec, list).for_each(tell_index);
        }
        if want.retries_of_index.is_some() {
            count_failures(member(&mut metadata, "annotations"), want, new.replaced);
        }
    }
    object(json!({
        "apiVersion": POD.api_version(),
        "kind": POD.kind,
        "metadata": metadata,
        "spec": spec,
    }))
}

/// Puts the index into the environment of a container, unless that says something of its own there.
fn tell_index(container: &mut Value) {
    let mut variables = container["env"].as_array().cloned().unwrap_or_default();
    if variables
        .iter()
        .any(|variable| variable["name"] == INDEX_VARIABLE)
    {
        return;
    }
    let path = format!("metadata.labels['{INDEX}']");
    variables.push(json!({
        "name": INDEX_VARIABLE,
        "valueFrom": {"fieldRef": {"fieldPath": path}},
    }));
    put(container, "env", Some(variables.into()));
}

/// A pod knows how many of its index failed before it.
fn count_failures(annotations: &mut Value, want: &Want<'_>, replaced: Option<&Cached<Pod>>) {
    let (counted, ignored) = replaced.map_or((0, 0), |pod| {
        let is_ignored = want.verdict(pod) == Verdict::Ignore;
        (
            counted_failures(pod) + i64::from(!is_ignored),
            ignored_failures(pod) + i64::from(is_ignored),
        )
    });
    put(
        annotations,
        INDEX_FAILURES,
        Some(counted.to_string().into()),
    );
    if ignored > 0 {
        put(
            annotations,
            INDEX_FAILURES_IGNORED,
            Some(ignored.to_string().into()),
        );
    }
}

/// Deletes of pods that are too many. What becomes of them does not count.
pub fn remove(want: &Want<'_>, pods: &[Arc<Cached<Pod>>]) -> Vec<Write> {
    let tracked = pods.iter().filter(|pod| super::want::is_tracked(pod));
    let mut writes: Vec<Write> = tracked.map(|pod| super::orphans::let_go(pod)).collect();
    writes.extend(pods.iter().map(|pod| delete(want, pod)));
    writes
}

/// A delete that is told.
pub fn delete(want: &Want<'_>, pod: &Cached<Pod>) -> Write {
    let told = Note::normal(
        want.row.reference(),
        "SuccessfulDelete",
        format!("Deleted pod: {}", pod.key.name),
    );
    Write::delete(pod).telling(told.or_refused("FailedDelete"))
}

/// The indexes of these pods.
pub fn indexes_of<'a>(pods: impl IntoIterator<Item = &'a Arc<Cached<Pod>>>) -> Indexes {
    let pods = pods.into_iter();
    pods.filter_map(|pod| index_of(pod)).collect()
}

/// Pods that are too many: at least `count` of them, the least useful first. Of an Indexed Job all that have no wanted index,
/// and all but the most useful of those that have the same, whatever the count.
pub fn surplus(
    want: &Want<'_>,
    active: &[Arc<Cached<Pod>>],
    count: usize,
    now: Timestamp,
) -> Vec<Arc<Cached<Pod>>> {
    let mut left = active.to_vec();
    left.sort_by(|a, b| usefulness(a, b, now));
    let mut surplus = Vec::new();
    if want.is_indexed {
        let mut best: BTreeMap<i64, usize> = BTreeMap::new();
        for (place, pod) in left.iter().enumerate() {
            if let Some(index) = want.index_of(pod) {
                best.insert(index, place);
            }
        }
        let kept: Vec<bool> = left
            .iter()
            .enumerate()
            .map(|(place, pod)| {
                let index = want.index_of(pod);
                index.is_some_and(|index| best.get(&index) == Some(&place))
            })
            .collect();
        let mut kept_of = kept.iter();
        left.retain(|pod| {
            let is_kept = kept_of.next().copied().unwrap_or(false);
            if !is_kept {
                surplus.push(Arc::clone(pod));
            }
            is_kept
        });
    }
    let more = count.saturating_sub(surplus.len());
    surplus.extend(left.into_iter().take(more));
    surplus
}

/// `Less` goes first. The order of Kubernetes' `ActivePods`.
fn usefulness(a: &Cached<Pod>, b: &Cached<Pod>, now: Timestamp) -> Ordering {
    let assigned = |pod: &Cached<Pod>| !pod.body.node.is_empty();
    let phase = |pod: &Cached<Pod>| match pod.body.phase {
        Phase::Pending => 0,
        Phase::Unknown => 1,
        Phase::Running | Phase::Succeeded | Phase::Failed => 2,
    };
    // An unknown time is that of the youngest.
    let ready = |pod: &Cached<Pod>| pod.body.ready_since().unwrap_or(now);
    let born = |pod: &Cached<Pod>| pod.meta.creation_timestamp.unwrap_or(now);
    assigned(a)
        .cmp(&assigned(b))
        .then_with(|| phase(a).cmp(&phase(b)))
        .then_with(|| a.body.is_ready.cmp(&b.body.is_ready))
        .then_with(|| ready(b).cmp(&ready(a)))
        .then_with(|| b.body.restarts.cmp(&a.body.restarts))
        .then_with(|| born(b).cmp(&born(a)))
        .then_with(|| a.meta.uid.cmp(&b.meta.uid))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_stays_in_a_name_however_long_its_job_is_called() {
        let long = "a".repeat(63);
        for (job, index, expected) in [
            ("job", None, "job".to_owned()),
            ("job", Some(7), "job-7".to_owned()),
            (&long, Some(12), format!("{}-12", "a".repeat(54))),
        ] {
            let base = base_of(&Key::new("default", job), index);
            assert_eq!(base, expected);
            let name = names::generated(&base, "bcdfg");
            assert!(name.len() <= 63, "{name}");
            if index.is_some() {
                assert!(name.starts_with(&format!("{base}-")), "{name}");
            }
        }
    }
}
