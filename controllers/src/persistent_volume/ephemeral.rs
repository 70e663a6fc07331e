//! Claims that pods bring along (`ephemeral` volumes): made with the pod, named after it and the volume, and its: they go with it.
//!
//! Source: kubernetes `pkg/controller/volume/ephemeral`, 1.37.

use serde_json::{Value, json};
use weft_kinds::{PERSISTENT_VOLUME_CLAIM, POD};

use super::{Brought, PodVolumes, WITH_CLAIMS};
use crate::indexer::Cached;
use crate::metadata::{Key, PartialObject};
use crate::view::{Touched, View};
use crate::write::{Note, Write, object};
use crate::{Context, Controller, Outcome};

pub const CONTROLLER: Controller = Controller {
    name: "ephemeral_volume",
    reads: |reads| {
        reads.kind::<PodVolumes>().index(&WITH_CLAIMS);
    },
    keys,
    relieved: |_, _| Vec::new(),
    seeds: |view| {
        let pods = view.list::<PodVolumes>().filter(|pod| brings(pod));
        pods.map(|pod| pod.key.clone()).collect()
    },
    subject: |view, key| view.object_of(&POD, key).map(PartialObject::reference),
    reconcile,
};

fn brings(pod: &Cached<PodVolumes>) -> bool {
    let mut claims = pod.body.0.iter().flat_map(|uses| &uses.claims);
    claims.any(|(_, brought)| *brought != Brought::No)
}

fn keys(view: &View, touched: &Touched) -> Vec<Key> {
    if touched.is_of(&POD) {
        let is_new = touched.before::<PodVolumes>().is_none();
        let pod = touched.after::<PodVolumes>();
        let pod = pod.filter(|pod| is_new && brings(pod));
        return pod.map(|pod| pod.key.clone()).into_iter().collect();
    }
    // A claim that went while its pod waits for it.
    if touched.is_of(&PERSISTENT_VOLUME_CLAIM) && !touched.is_there {
        let pods = view.list_by(&WITH_CLAIMS, &touched.key.namespace);
        let named = pods.filter(|pod| {
            let mut claims = pod.body.0.iter().flat_map(|uses| &uses.claims);
            claims.any(|(name, brought)| *brought != Brought::No && **name == *touched.key.name)
        });
        return named.map(|pod| pod.key.clone()).collect();
    }
    Vec::new()
}

fn reconcile(view: &View, key: &Key, _: &Context<'_>) -> Outcome {
    let Some(pod) = view.get::<PodVolumes>(key) else {
        return Outcome::default();
    };
    if pod.meta.is_deleting() {
        return Outcome::default();
    }
    let uses = pod.body.0.iter().flat_map(|uses| &uses.claims);
    let writes = uses.filter_map(|(name, brought)| {
        let Brought::Along(template) = brought else {
            return None;
        };
        let claim = pod.key.sibling(name);
        match view.object_of(&PERSISTENT_VOLUME_CLAIM, &claim) {
            None => Some(made(pod, &claim, template)),
            Some(there) => {
                let owner = there.meta.controller();
                let is_own = owner.is_some_and(|owner| owner.uid == *pod.meta.uid);
                (!is_own).then(|| {
                    let message =
                        format!("PVC {claim} was not created for pod {key} (pod is not owner)");
                    Write::Event(Note::warning(pod.reference(), "FailedCreate", message))
                })
            }
        }
    });
    Outcome::from_writes(writes.collect())
}

fn made(pod: &Cached<PodVolumes>, key: &Key, template: &Value) -> Write {
    let mut metadata = json!({
        "name": &*key.name,
        "namespace": &*key.namespace,
        "ownerReferences": [{
            "apiVersion": "v1", "kind": "Pod", "name": &*pod.key.name, "uid": &*pod.meta.uid,
            "controller": true, "blockOwnerDeletion": true,
        }],
    });
    for member in ["labels", "annotations"] {
        if !template["metadata"][member].is_null() {
            metadata[member] = template["metadata"][member].clone();
        }
    }
    let claim = json!({
        "apiVersion": "v1", "kind": PERSISTENT_VOLUME_CLAIM.kind,
        "metadata": metadata, "spec": template["spec"],
    });
    let told = Note::normal(
        pod.reference(),
        "SuccessfulCreate",
        format!("Created PVC {key}"),
    );
    Write::create(&PERSISTENT_VOLUME_CLAIM, object(claim)).telling(told.or_refused("FailedCreate"))
}
