//! What becomes of objects whose owners go.

use serde_json::{Value, json};
use weft_controllers::write::Propagation;
use weft_kinds::{CONFIG_MAP, DEPLOYMENT, NAMESPACE, POD, REPLICA_SET, REPLICATION_CONTROLLER};

use crate::world::{World, deployment, namespace};

#[test]
fn dependents_follow_their_owner_in_the_asked_way() {
    for (propagation, left) in [
        (Propagation::Background, (0, 0)),
        (Propagation::Foreground, (0, 0)),
        (Propagation::Orphan, (1, 3)),
    ] {
        let mut world = World::new(9);
        world.create(&DEPLOYMENT, deployment("web", 3, "x:1"));
        world.settle();
        world.delete(&DEPLOYMENT, "web", propagation);
        world.settle();
        let counts = (world.all(&REPLICA_SET).len(), world.all(&POD).len());
        assert_eq!(counts, left, "{propagation:?}");
        assert_eq!(
            world.get(&DEPLOYMENT, "web"),
            &Value::Null,
            "{propagation:?}"
        );
    }
}

/// As upstream's suite asks: what is owned by a controller that is ending, and by one that stays, stays with that one.
#[test]
fn whoever_has_another_owner_outlives_a_foreground_deletion() {
    for seed in 0..8 {
        let mut world = World::new(seed);
        let controller = |name: &str, replicas: i64| {
            json!({
                "metadata": {"name": name, "namespace": "default"},
                "spec": {"replicas": replicas, "selector": {"app": name}, "template": {
                    "metadata": {"labels": {"app": name}},
                    "spec": {"containers": [{"name": "main", "image": "x:1"}]},
                }},
            })
        };
        world.create(&REPLICATION_CONTROLLER, controller("going", 4));
        let staying = world.create(&REPLICATION_CONTROLLER, controller("staying", 0));
        world.settle();
        let pods = world.names(&POD);
        let second = json!({
            "apiVersion": "v1", "kind": "ReplicationController", "name": "staying", "uid": staying["metadata"]["uid"],
        });
        for name in pods.iter().take(2) {
            let mut owners = world.get(&POD, name)["metadata"]["ownerReferences"].clone();
            owners.as_array_mut().unwrap().push(second.clone());
            world.patch(&POD, name, json!({"metadata": {"ownerReferences": owners}}));
        }
        world.delete(&REPLICATION_CONTROLLER, "going", Propagation::Foreground);
        world.settle();
        assert_eq!(
            world.get(&REPLICATION_CONTROLLER, "going"),
            &Value::Null,
            "seed {seed}"
        );
        let left = world.all(&POD);
        assert_eq!(left.len(), 2, "seed {seed}");
        for pod in left {
            let metadata = &pod["metadata"];
            assert!(
                metadata["deletionTimestamp"].is_null(),
                "seed {seed}: {metadata}"
            );
            assert_eq!(metadata["ownerReferences"], json!([second]), "seed {seed}");
        }
    }
}

#[test]
fn an_owner_that_joined_unseen_keeps_what_lost_its_last() {
    let mut world = World::new(1);
    world.agents = false;
    let map = |name: &str, owners: &[Value]| json!({"metadata": {"name": name, "namespace": "default", "ownerReferences": owners}});
    let reference = |owner: &Value| {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "name": owner["metadata"]["name"],
            "uid": owner["metadata"]["uid"]})
    };
    let first = world.create(&CONFIG_MAP, map("first", &[]));
    let second = world.create(&CONFIG_MAP, map("second", &[]));
    for owned in ["kept", "lost"] {
        world.create(&CONFIG_MAP, map(owned, &[reference(&first)]));
    }
    world.settle();
    world.delete(&CONFIG_MAP, "first", Propagation::Background);
    let owners = json!([reference(&first), reference(&second)]);
    let joined = json!({"metadata": {"ownerReferences": owners}});
    world.patch_unseen(&CONFIG_MAP, "kept", joined);
    for _ in 0..3 {
        world.run(200, |_| {});
        world.pass_time(2);
        world.settle();
    }
    assert_ne!(world.get(&CONFIG_MAP, "kept"), &Value::Null);
    assert_eq!(world.get(&CONFIG_MAP, "lost"), &Value::Null);
}

#[test]
fn nobody_owns_what_is_in_another_namespace() {
    let mut world = World::new(1);
    world.agents = false;
    world.create(&DEPLOYMENT, deployment("web", 2, "x:1"));
    world.settle();
    let set = world.all(&REPLICA_SET)[0].clone();
    let labels = set["spec"]["template"]["metadata"]["labels"].clone();
    world.create(&NAMESPACE, namespace("other"));
    world.settle();
    world.tell();
    let stranger = json!({
        "metadata": {"name": "stranger", "namespace": "other", "labels": labels, "ownerReferences": [
            {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": set["metadata"]["name"],
             "uid": set["metadata"]["uid"], "controller": true}]},
        "spec": {"containers": [{"name": "main", "image": "x:1"}]},
    });
    world.create(&POD, stranger);
    world.settle();
    // It does not count among the set's pods; its owner is not in its namespace, so it is collected.
    let story = world.tell();
    assert!(story.contains("delete pods other/stranger"), "{story}");
    assert!(!story.contains("delete pods default"), "{story}");
    assert_eq!(world.live_pods(), 2);
}
