//! ResourceQuotas: what the objects of a namespace use together, counted anew.
//!
//! Admission adds what a write uses, in the step of the write; nobody takes away what goes. This controller counts all whenever something
//! went or came to its end, when a quota asks for something else, and every five minutes: what comes before a quota says for the first
//! time what it counts is charged to nobody, and may be told after that.
//!
//! Invariants: what is written is bound to the revision of the quota that was looked at. An object and what it was charged are stored in
//! one step, the object first: whoever has not seen an object yet has not seen its charge either, and is refused.
//! Left to others: what an object uses (`weft_kinds::admission::quota`).

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use weft_api::object::{Object, ObjectError};
use weft_kinds::admission::quota::{self, Counted};
use weft_kinds::lens::{items, text};
use weft_kinds::{Kind, POD, RESOURCE_QUOTA, SERVICE};

use crate::indexer::{Cached, Lens};
use crate::metadata::{Key, PartialObject};
use crate::view::{Touched, View};
use crate::write::Write;
use crate::{Context, Controller, Outcome, until};

/// A quota that nothing happened to is counted this often, as in Kubernetes.
const RECOUNT: Duration = Duration::from_mins(5);

pub const CONTROLLER: Controller = Controller {
    name: "resourcequota-controller",
    reads: |reads| {
        reads.kind::<Quota>().kind::<PodUse>().kind::<ServiceUse>();
    },
    keys,
    relieved: |_, _| Vec::new(),
    seeds: |view| view.list::<Quota>().map(|row| row.key.clone()).collect(),
    subject: |view, key| {
        let quota = view.object_of(&RESOURCE_QUOTA, key);
        quota.map(PartialObject::reference)
    },
    reconcile,
};

/// A quota as far as it is counted by.
#[derive(Debug)]
struct Quota {
    spec: Value,
    status: Value,
}

impl Lens for Quota {
    fn kind() -> &'static Arc<Kind> {
        &RESOURCE_QUOTA
    }

    fn read(object: &Object) -> Result<Self, ObjectError> {
        let value = object.as_value();
        Ok(Self {
            spec: value["spec"].clone(),
            status: value["status"].clone(),
        })
    }
}

/// What a pod is counted by. Those of one template share it.
#[derive(Debug)]
struct PodUse(Arc<Value>);

impl Lens for PodUse {
    fn kind() -> &'static Arc<Kind> {
        &POD
    }

    fn read(object: &Object) -> Result<Self, ObjectError> {
        let pod = object.as_value();
        let mut kept = json!({"spec": {}});
        for list in ["containers", "initContainers"] {
            let containers = items(pod, &format!("/spec/{list}")).iter();
            let containers: Vec<Value> = containers
                .filter(|container| container.get("resources").is_some())
                .map(|container| {
                    json!({
                        "resources": container["resources"],
                        "restartPolicy": container["restartPolicy"],
                    })
                })
                .collect();
            kept["spec"][list] = containers.into();
        }
        for field in [
            "resources",
            "overhead",
            "activeDeadlineSeconds",
            "priorityClassName",
            "affinity",
        ] {
            if let Some(value) = pod["spec"].get(field) {
                kept["spec"][field] = value.clone();
            }
        }
        let phase = text(pod, "/status/phase");
        if matches!(phase, "Succeeded" | "Failed") {
            kept["status"] = json!({"phase": phase});
        }
        if let Some(deleted) = pod["metadata"].get("deletionTimestamp") {
            kept["metadata"] = json!({
                "deletionTimestamp": deleted,
                "deletionGracePeriodSeconds": pod["metadata"]["deletionGracePeriodSeconds"],
            });
        }
        Ok(Self(Arc::new(kept)))
    }

    fn share(&mut self, like: &Self) {
        if self.0 == like.0 {
            self.0 = Arc::clone(&like.0);
        }
    }
}

/// What a Service is counted by.
#[derive(Debug)]
struct ServiceUse(Value);

impl Lens for ServiceUse {
    fn kind() -> &'static Arc<Kind> {
        &SERVICE
    }

    fn read(object: &Object) -> Result<Self, ObjectError> {
        let service = object.as_value();
        let ports = items(service, "/spec/ports").iter();
        let ports: Vec<Value> = ports
            .map(|port| json!({"nodePort": port["nodePort"]}))
            .collect();
        Ok(Self(json!({"spec": {
            "type": service["spec"]["type"],
            "ports": ports,
            "allocateLoadBalancerNodePorts": service["spec"]["allocateLoadBalancerNodePorts"],
        }})))
    }
}

fn keys(view: &View, touched: &Touched) -> Vec<Key> {
    if touched.is_of(&RESOURCE_QUOTA) {
        let (before, after) = (touched.before::<Quota>(), touched.after::<Quota>());
        // What admission adds to it needs no counting.
        let same = matches!((before, after), (Some(before), Some(after)) if before.body.spec == after.body.spec
            && after.body.status["hard"] == after.body.spec["hard"]);
        let own = (!same).then(|| touched.key.clone());
        return match touched.was_there == touched.is_there {
            true => own.into_iter().collect(),
            // Quotas are counted, too.
            false => of_namespace(view, &touched.key.namespace, own),
        };
    }
    if touched.key.namespace.is_empty() {
        return Vec::new();
    }
    let gone = touched.was_there && !touched.is_there;
    let pods = (touched.before::<PodUse>(), touched.after::<PodUse>());
    let pod = matches!(pods, (Some(before), Some(after)) if before.body.0 != after.body.0);
    let services = (
        touched.before::<ServiceUse>(),
        touched.after::<ServiceUse>(),
    );
    let service = matches!(services, (Some(before), Some(after)) if before.body.0 != after.body.0);
    match gone || pod || service {
        true => of_namespace(view, &touched.key.namespace, None),
        false => Vec::new(),
    }
}

fn of_namespace(view: &View, namespace: &str, own: Option<Key>) -> Vec<Key> {
    let rows = view.list_in::<Quota>(namespace);
    let mut keys: Vec<Key> = rows.map(|row| row.key.clone()).collect();
    keys.extend(
        own.filter(|own| !keys.contains(own))
            .into_iter()
            .collect::<Vec<_>>(),
    );
    keys
}

fn reconcile(view: &View, key: &Key, cx: &Context<'_>) -> Outcome {
    let Some(quota) = view.get::<Quota>(key) else {
        return Outcome::default();
    };
    if quota.meta.is_deleting() {
        return Outcome::default();
    }
    let mut outcome = Outcome::default();
    outcome.again_after(RECOUNT);
    let counted = counted(view, quota, cx, &mut outcome);
    let write = Write::status(quota, &quota.body.status, &counted);
    outcome.writes.extend(write);
    outcome
}

fn counted(view: &View, quota: &Cached<Quota>, cx: &Context<'_>, outcome: &mut Outcome) -> Value {
    let namespace = &*quota.key.namespace;
    let whole = json!({"spec": quota.body.spec});
    let nothing = json!({});
    let mut objects: Vec<(Counted<'_>, &Value)> = Vec::new();
    for row in view.list_in::<PodUse>(namespace) {
        let of = Counted {
            group: "",
            resource: "pods",
        };
        let pod = &*row.body.0;
        if let Some(end) = quota::ends_at(pod).filter(|end| *end >= cx.now) {
            // A moment later, it is over.
            outcome.again_after(until(end, cx.now) + Duration::from_secs(1));
        }
        objects.push((of, pod));
    }
    for row in view.list_in::<ServiceUse>(namespace) {
        let of = Counted {
            group: "",
            resource: "services",
        };
        objects.push((of, &row.body.0));
    }
    // Of all others, how many there are is all that is known here.
    let others = view.contents(namespace).filter(|object| {
        let own_row = *object.kind == **POD || *object.kind == **SERVICE;
        !own_row || object.unreadable.is_some()
    });
    let kinds: Vec<Arc<Kind>> = others.map(|object| Arc::clone(&object.kind)).collect();
    objects.extend(kinds.iter().map(|kind| {
        let of = Counted {
            group: &kind.group,
            resource: &kind.resource,
        };
        (of, &nothing)
    }));
    quota::status(&whole, objects, cx.now)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use weft_kinds::{CONFIG_MAP, Registry};

    use super::*;
    use crate::Cluster;
    use crate::view::Change;

    /// A view with what was told so far, and which quotas each change wakes.
    struct World {
        view: View,
        revision: u64,
    }

    impl World {
        fn new() -> Self {
            let mut view = View::new([CONTROLLER.reads]);
            view.set_synced(0);
            Self { view, revision: 0 }
        }

        fn object(&mut self, name: &str, more: &Value) -> Object {
            self.revision += 1;
            let mut value = json!({"metadata": {
                "name": name, "namespace": "n", "uid": name, "resourceVersion": self.revision.to_string(),
            }});
            for (key, part) in more.as_object().into_iter().flatten() {
                match key.as_str() {
                    "metadata" => {
                        for (key, part) in part.as_object().into_iter().flatten() {
                            value["metadata"][key] = part.clone();
                        }
                    }
                    _ => value[key] = part.clone(),
                }
            }
            Object::from_value(value).unwrap()
        }

        fn tell(&mut self, kind: &Arc<Kind>, name: &str, more: Value) -> Vec<String> {
            let object = self.object(name, &more);
            self.change(Change::Upsert(Arc::clone(kind), object))
        }

        fn gone(&mut self, kind: &Arc<Kind>, name: &str) -> Vec<String> {
            let object = self.object(name, &json!({}));
            self.change(Change::Delete(Arc::clone(kind), object))
        }

        fn change(&mut self, change: Change) -> Vec<String> {
            let touched = self.view.apply(change, Timestamp::UNIX_EPOCH).unwrap();
            let keys = (CONTROLLER.keys)(&self.view, &touched);
            keys.iter().map(|key| key.name.to_string()).collect()
        }

        fn patch(&self) -> Value {
            let cluster = Cluster {
                ca_pem: String::new(),
            };
            let kinds = Registry::builtin();
            let cx = Context {
                now: Timestamp::UNIX_EPOCH,
                cluster: &cluster,
                kinds: &kinds,
                last_failure: None,
                usage: None,
                calls: None,
                past: &crate::Past::default(),
            };
            let outcome = (CONTROLLER.reconcile)(&self.view, &Key::new("n", "q"), &cx);
            match outcome.writes.as_slice() {
                [] => Value::Null,
                [
                    Write::Patch {
                        patch,
                        resource_version,
                        ..
                    },
                ] => {
                    assert!(resource_version.is_some());
                    patch["status"].clone()
                }
                other => panic!("{other:?}"),
            }
        }
    }

    fn quota(status: &Value) -> Value {
        json!({"spec": {"hard": {"pods": "3", "requests.cpu": "2", "count/configmaps": "2"}}, "status": status})
    }

    #[test]
    fn what_goes_is_not_counted_any_more() {
        let mut world = World::new();
        let pod = json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "250m"}}}]}});
        assert_eq!(world.tell(&RESOURCE_QUOTA, "q", quota(&json!({}))), ["q"]);
        // Admission has counted what came.
        for name in ["a", "b"] {
            assert!(world.tell(&POD, name, pod.clone()).is_empty());
        }
        assert!(world.tell(&CONFIG_MAP, "m", json!({})).is_empty());
        let hard = json!({"pods": "3", "requests.cpu": "2", "count/configmaps": "2"});
        let used = json!({"pods": "2", "requests.cpu": "500m", "count/configmaps": "1"});
        assert_eq!(world.patch(), json!({"hard": hard, "used": used}));
        let status = json!({"hard": hard, "used": used});
        // Neither its own word nor a charge wakes it.
        assert!(world.tell(&RESOURCE_QUOTA, "q", quota(&status)).is_empty());
        assert_eq!(world.patch(), Value::Null);

        let mut ended = pod.clone();
        ended["status"] = json!({"phase": "Succeeded"});
        assert_eq!(world.tell(&POD, "a", ended), ["q"]);
        assert_eq!(world.gone(&CONFIG_MAP, "m"), ["q"]);
        assert_eq!(
            world.patch(),
            json!({"used": {"pods": "1", "requests.cpu": "250m", "count/configmaps": "0"}})
        );
    }
}
