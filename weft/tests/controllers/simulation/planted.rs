//! Bugs that can be planted between what is decided and what is stored, one at a time, to prove that each invariant can be broken
//! and that it is seen. They stand at the seams that the simulation drives, so no program of ours contains them.

use std::sync::Arc;

use serde_json::json;
use weft_controllers::pod::Pod;
use weft_controllers::{Key, View, Write};
use weft_kinds::patch::PatchKind;
use weft_kinds::{DAEMON_SET, NAMESPACE, POD, STATEFUL_SET, Subresource};

use super::chance::Chance;
use super::record;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// A leader of before writes as if it still led.
    FenceIgnored,
    /// A Deployment's newest set gets one pod more than there is room for.
    SurgeForgotten,
    /// A Deployment's old sets end at once.
    FloorForgotten,
    /// A set makes a pod more than it has to.
    OnePodTooMany,
    /// A StatefulSet's pod on a node that is silent is taken for gone.
    SilentIsGone,
    /// Who empties a node deletes pods, and asks no budget.
    BudgetNotAsked,
    /// A pod that has a node is given another one.
    BoundTwice,
    /// Placement does not hear of pods that have a node.
    RoomGivenTwice,
    /// Of several owners one is gone, and the object goes.
    OneOwnerGone,
    /// A namespace ends with whatever is left in it.
    NamespaceEndsEarly,
    /// A Job starts one pod more than may run at a time.
    JobInAHurry,
    /// A DaemonSet is updated on all nodes at once.
    DaemonsAllAtOnce,
    /// A StatefulSet is updated all at once.
    OrderForgotten,
    /// A StatefulSet makes a pod beyond its size.
    OrdinalBeyond,
    /// Now and then the leader does not hear of a change.
    NewsLost,
    /// A write that was not answered in time is taken for refused, and decided on.
    DoubtForgotten,
    /// The leader waits to be told of its own writes.
    AnswersForgotten,
    /// A node that is cut off stops nothing, though its lease says so.
    PromiseBroken,
}

pub const ALL: &[Bug] = &[
    Bug::FenceIgnored,
    Bug::SurgeForgotten,
    Bug::FloorForgotten,
    Bug::OnePodTooMany,
    Bug::SilentIsGone,
    Bug::BudgetNotAsked,
    Bug::BoundTwice,
    Bug::RoomGivenTwice,
    Bug::OneOwnerGone,
    Bug::NamespaceEndsEarly,
    Bug::JobInAHurry,
    Bug::DaemonsAllAtOnce,
    Bug::OrderForgotten,
    Bug::OrdinalBeyond,
    Bug::NewsLost,
    Bug::DoubtForgotten,
    Bug::AnswersForgotten,
    Bug::PromiseBroken,
];

/// Makes of what a controller decided what it would have decided with this bug.
pub fn plant(
    bug: Bug,
    controller: &str,
    view: &View,
    key: &Key,
    writes: &mut Vec<Write>,
    chance: &mut Chance,
) {
    match (bug, controller) {
        (Bug::SurgeForgotten | Bug::FloorForgotten, "deployment-controller") => {
            for write in writes {
                let Write::Patch {
                    kind,
                    patch,
                    note: Some(note),
                    ..
                } = write
                else {
                    continue;
                };
                let size = patch["spec"]["replicas"].as_i64();
                let Some(size) = size.filter(|_| **kind == **weft_kinds::REPLICA_SET) else {
                    continue;
                };
                let up = note.message.contains("Scaled up");
                match bug {
                    Bug::SurgeForgotten if up => patch["spec"]["replicas"] = json!(size + 2),
                    Bug::FloorForgotten if !up => patch["spec"]["replicas"] = json!(0),
                    _ => {}
                }
            }
        }
        (Bug::OnePodTooMany, "replicaset-controller") | (Bug::JobInAHurry, "job-controller") => {
            let made = writes.iter().find_map(|write| match write {
                Write::Create { kind, object, .. } if **kind == **POD => Some(object.clone()),
                _ => None,
            });
            if let Some(made) = made.filter(|_| chance.is(30)) {
                let mut pod = made.into_value();
                let name = format!("{}x", record::name_of(&pod));
                pod["metadata"]["name"] = json!(name);
                let pod = weft_controllers::write::object(pod);
                writes.insert(0, Write::create(&POD, pod));
            }
        }
        (Bug::SilentIsGone, "node-controller") => {
            for write in writes {
                if let Write::Delete { grace_seconds, .. } = write {
                    *grace_seconds = Some(0);
                }
            }
        }
        (Bug::OrdinalBeyond, "statefulset-controller") => {
            let made = writes.iter().find_map(|write| match write {
                Write::Create { kind, object, .. } if **kind == **POD => Some(object.clone()),
                _ => None,
            });
            if let Some(made) = made {
                let mut pod = made.into_value();
                pod["metadata"]["name"] = json!(format!("{}-77", key.name));
                let pod = weft_controllers::write::object(pod);
                writes.insert(0, Write::create(&POD, pod));
            }
        }
        (Bug::DaemonsAllAtOnce, "daemonset-controller")
        | (Bug::OrderForgotten, "statefulset-controller") => {
            let kind = match bug {
                Bug::DaemonsAllAtOnce => &DAEMON_SET,
                _ => &STATEFUL_SET,
            };
            let Some(set) = view.object_of(kind, key) else {
                return;
            };
            let takes =
                |write: &Write| matches!(write, Write::Delete { kind, .. } if **kind == **POD);
            if writes.iter().any(takes) {
                let pods = view.list::<Pod>().filter(|pod| {
                    let owner = pod.meta.controller();
                    owner.is_some_and(|owner| *owner.uid == *set.meta.uid)
                });
                let mut all: Vec<Write> = pods.map(|pod| Write::delete(&**pod)).collect();
                all.append(writes);
                *writes = all;
            }
        }
        (Bug::NamespaceEndsEarly, "namespace-controller")
            if writes
                .iter()
                .any(|write| matches!(write, Write::Delete { .. })) =>
        {
            let early = Write::Patch {
                kind: Arc::clone(&NAMESPACE),
                key: key.clone(),
                subresource: Some(Subresource::Finalize),
                patch_kind: PatchKind::Merge,
                patch: json!({"spec": {"finalizers": []}}),
                uid: None,
                resource_version: None,
                note: None,
            };
            writes.insert(0, early);
        }
        (Bug::OneOwnerGone, "garbage-collector") => {
            for write in writes {
                let Write::Patch {
                    kind,
                    key,
                    patch,
                    uid: Some(uid),
                    ..
                } = write
                else {
                    continue;
                };
                let owners = &patch["metadata"]["ownerReferences"];
                if owners.as_array().is_some_and(|owners| !owners.is_empty()) {
                    *write = Write::Delete {
                        kind: Arc::clone(kind),
                        key: key.clone(),
                        uid: Arc::clone(uid),
                        resource_version: None,
                        grace_seconds: None,
                        propagation: weft_controllers::write::Propagation::Background,
                        note: None,
                    };
                }
            }
        }
        _ => {}
    }
}
