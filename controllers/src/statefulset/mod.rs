//! StatefulSets: pods with a number each, in order.
//!
//! A pod is its ordinal: name, host name, labels and volume claims follow from it, so nothing has to be remembered. `OrderedReady` has
//! one pod come after the other, each when those before it are available, and go in the reverse order; `Parallel` waits for
//! none of that. An update takes away pods from the highest ordinal down, at most so many at a time, down to the partition, and they come
//! back by the new template. Pods below the partition come back as they were: that template is in the revision that the
//! status names.
//!
//! Flow of a pass ([`pass::Pass`]): replicas from the first ordinal up → those beyond the last one → update → status → history.
//!
//! Invariants: two pods of one ordinal never exist, as they have one name; an ordinal whose pod is still going is not filled; `OrderedReady` has at most
//! one pod under way for a reason of scale.
//!
//! Left to others: volumes behind claims, stopping pods (`weft_agent`).

mod pass;
mod volume_claim;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use weft_kinds::{
    CAPABILITY_GRANT, CONTROLLER_REVISION, PERSISTENT_VOLUME_CLAIM, POD, STATEFUL_SET,
};

use self::pass::Pass;
use crate::claim::claim_fitting;
use crate::indexer::Cached;
use crate::lens::StatefulSet;
use crate::metadata::Key;
use crate::pod::{self, Pod};
use crate::revision::{self, History};
use crate::view::{Touched, View};
use crate::{Context, Controller, Outcome};

pub const CONTROLLER: Controller = Controller {
    name: "statefulset-controller",
    reads: |reads| {
        reads
            .kind::<StatefulSet>()
            .index(&pod::BY_CONTROLLER)
            .index(&revision::BY_CONTROLLER);
    },
    keys,
    relieved,
    seeds: |view| {
        let sets = view.list::<StatefulSet>();
        sets.map(|row| row.key.clone()).collect()
    },
    subject: |view, key| Some(view.object_of(&STATEFUL_SET, key)?.reference()),
    reconcile,
};

/// A label of revisions.
const HASH_LABEL: &str = "controller.kubernetes.io/hash";

fn keys(view: &View, touched: &Touched) -> Vec<Key> {
    if touched.is_of(&STATEFUL_SET) {
        return vec![touched.key.clone()];
    }
    if touched.is_of(&PERSISTENT_VOLUME_CLAIM) {
        // One that is gone is made anew, or was what a pod waited for.
        if touched.is_there {
            return Vec::new();
        }
        let sets = view.list_in::<StatefulSet>(&touched.key.namespace);
        let claiming = sets.filter(|set| volume_claim::is_named_for(set, &touched.key.name));
        return claiming.map(|set| set.key.clone()).collect();
    }
    if !touched.is_of(&POD) && !touched.is_of(&CONTROLLER_REVISION) {
        return Vec::new();
    }
    let owners = touched.owners.iter().filter_map(|uid| view.object(uid));
    let sets = owners.filter(|owner| *owner.kind == **STATEFUL_SET);
    let mut keys: BTreeSet<Key> = sets.map(|set| set.key().clone()).collect();
    if let Some(stray) = touched.after::<Pod>()
        && stray.meta.controller().is_none()
        && let Some((name, _)) = ordinal_of(&stray.key.name)
    {
        let set = view.get::<StatefulSet>(&stray.key.sibling(name));
        let matching = set.filter(|set| {
            let selector = set.body.selector.as_ref();
            selector.is_some_and(|selector| selector.matches(&stray.meta.labels))
        });
        keys.extend(matching.map(|set| set.key.clone()));
    }
    // Whosever it was, the name is free now.
    if touched.is_of(&POD)
        && !touched.is_there
        && let Some((name, _)) = ordinal_of(&touched.key.name)
    {
        let set = view.get::<StatefulSet>(&touched.key.sibling(name));
        keys.extend(set.map(|set| set.key.clone()));
    }
    keys.into_iter().collect()
}

/// A pod that was refused for want of a grant is not refused once there is one.
fn relieved(view: &View, touched: &Touched) -> Vec<Key> {
    if !touched.is_of(&CAPABILITY_GRANT) || !touched.is_there {
        return Vec::new();
    }
    let sets = view.list_in::<StatefulSet>(&touched.key.namespace);
    sets.map(|set| set.key.clone()).collect()
}

fn reconcile(view: &View, key: &Key, cx: &Context<'_>) -> Outcome {
    let Some(set) = view.get::<StatefulSet>(key) else {
        return Outcome::default();
    };
    let (Some(selector), Some(object)) = (&set.body.selector, &set.object) else {
        return Outcome::default();
    };
    let history = History::of(view, set, selector, HASH_LABEL);
    let claims = claim_fitting(view, &pod::BY_CONTROLLER, set, selector, |pod| {
        is_member(set, pod)
    });
    let adoptions: Vec<_> = history
        .writes
        .iter()
        .chain(&claims.writes)
        .cloned()
        .collect();
    if !adoptions.is_empty() {
        // Ownership first: what is adopted is counted, and not made a second time.
        return Outcome::from_writes(adoptions);
    }
    let template = &object.as_value()["spec"]["template"];
    Pass::new(view, set, &history, &claims.owned, template, cx).run()
}

/// By its name it is a pod of this set.
fn is_member(set: &Cached<StatefulSet>, pod: &Cached<Pod>) -> bool {
    ordinal_of(&pod.key.name).is_some_and(|(name, _)| *name == *set.key.name)
}

/// The set and the ordinal that a pod's name says.
fn ordinal_of(pod: &str) -> Option<(&str, i64)> {
    let (set, digits) = pod.rsplit_once('-')?;
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let ordinal: i32 = is_number.then(|| digits.parse().ok())??;
    Some((set, i64::from(ordinal)))
}
