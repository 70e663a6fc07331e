//! Deployments: roll a ReplicaSet for the current pod template up and the older ones down.
//!
//! The arithmetic is Kubernetes': `maxSurge` rounds up, `maxUnavailable` down, both zero means one unavailable; unhealthy
//! pods of old sets go first; scaling in the middle of a rollout is shared out in proportion. Annotations and conditions
//! carry what `kubectl rollout status|history|undo` read.
//!
//! Numbers of pods are `i64` here: each is an `i32` that somebody wrote, so sums and products of them stay far below, and
//! what is written is cut to an `i32` again ([`crate::amount::pods`]). An owner of a ReplicaSet that cannot be read does nothing: it would
//! count wrong.
//!
//! What is asked for is [`want::Want`]; a pass ([`pass::Pass`]) works on copies of the replica sets' desired sizes and
//! annotations ([`sets::Set`]) and turns what changed into patches at the end, so every rule is plain arithmetic. Conditions
//! and counts are `status`, revisions `history`, a size that changes in the middle of a rollout `proportion`.
//!
//! Invariants: the sets' sizes never sum up to more than `replicas + maxSurge` by our doing; old sets shrink only by what
//! is available above `replicas - maxUnavailable`, or was not available anyway.
//! Left to others: pods (`replicaset`), collecting the sets of a deleted deployment (`garbage`).

mod history;
mod pass;
mod proportion;
pub(crate) mod sets;
mod status;
mod want;

#[cfg(test)]
mod tests;

use weft_kinds::{DEPLOYMENT, POD, REPLICA_SET};

use self::pass::Pass;
use self::want::Want;
use crate::claim::{claim_objects, controller_or_namespace};
use crate::indexer::Index;
use crate::lens::{Deployment, ReplicaSet};
use crate::metadata::Key;
use crate::pod;
use crate::view::{Touched, View};
use crate::{Context, Controller, Outcome};

pub const CONTROLLER: Controller = Controller {
    name: "deployment-controller",
    reads: |reads| {
        reads
            .kind::<Deployment>()
            .index(&BY_CONTROLLER)
            .index(&pod::BY_CONTROLLER);
    },
    keys,
    relieved: |_, _| Vec::new(),
    seeds: |view| {
        view.list::<Deployment>()
            .map(|row| row.key.clone())
            .collect()
    },
    subject: |view, key| Some(view.object_of(&DEPLOYMENT, key)?.reference()),
    reconcile,
};

/// ReplicaSets by their controller, see [`controller_or_namespace`].
pub(crate) static BY_CONTROLLER: Index<ReplicaSet> = Index {
    name: "controller",
    of: controller_or_namespace,
};

const REVISION: &str = weft_api::annotation::DEPLOYMENT_REVISION;
const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
const DESIRED_REPLICAS: &str = "deployment.kubernetes.io/desired-replicas";
const MAX_REPLICAS: &str = "deployment.kubernetes.io/max-replicas";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
pub(crate) const HASH_LABEL: &str = weft_api::annotation::POD_TEMPLATE_HASH;
/// Annotations of a Deployment that do not describe its ReplicaSets.
pub(crate) const NOT_COPIED: &[&str] = &[
    LAST_APPLIED,
    REVISION,
    REVISION_HISTORY,
    DESIRED_REPLICAS,
    MAX_REPLICAS,
];

fn keys(view: &View, touched: &Touched) -> Vec<Key> {
    if touched.is_of(&DEPLOYMENT) {
        return vec![touched.key.clone()];
    }
    let deployment_of = |uid: &str| {
        let owner = view.object(uid)?;
        (*owner.kind == **DEPLOYMENT).then(|| owner.key().clone())
    };
    if touched.is_of(&REPLICA_SET) {
        let owners = touched.owners.iter();
        let mut keys: Vec<Key> = owners.filter_map(|uid| deployment_of(uid)).collect();
        if let Some(set) = touched.after::<ReplicaSet>()
            && set.meta.controller().is_none()
        {
            let deployments = view.list_in::<Deployment>(&set.key.namespace);
            let matching = deployments.filter(|deployment| {
                let selector = deployment.body.selector.as_ref();
                selector.is_some_and(|selector| selector.matches(&set.meta.labels))
            });
            keys.extend(matching.map(|deployment| deployment.key.clone()));
        }
        return keys;
    }
    // Recreate waits for the last pod of the old sets.
    if touched.is_of(&POD) && !touched.is_there {
        let sets = touched.owners.iter().filter_map(|uid| view.object(uid));
        let owners = sets.flat_map(|set| set.meta.owner_references.iter());
        return owners
            .filter_map(|owner| deployment_of(&owner.uid))
            .collect();
    }
    Vec::new()
}

fn reconcile(view: &View, key: &Key, cx: &Context<'_>) -> Outcome {
    let Some(row) = view.get::<Deployment>(key) else {
        return Outcome::default();
    };
    let (Some(want), Some(selector)) = (Want::of(row), &row.body.selector) else {
        return Outcome::default();
    };
    let mut unreadable = view.unreadable_of(&REPLICA_SET, &row.meta.uid);
    if unreadable.next().is_some() {
        return Outcome::default();
    }
    let claims = claim_objects(view, &BY_CONTROLLER, row, selector);
    if !claims.writes.is_empty() {
        // Ownership first: the next pass counts the adopted sets.
        return Outcome::from_writes(claims.writes);
    }
    let mut pass = Pass::new(want, claims.owned, cx.now);
    pass.run(view);
    pass.finish()
}
