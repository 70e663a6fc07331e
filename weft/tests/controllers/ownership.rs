//! What becomes of objects whose owners go, and of what is in a namespace that goes.

use std::sync::Arc;

use serde_json::{Value, json};
use weft_controllers::write::Propagation;
use weft_kinds::{
    CONFIG_MAP, DEPLOYMENT, Kind, NAMESPACE, NODE, POD, REPLICA_SET, REPLICATION_CONTROLLER,
    Registry,
};

use crate::manifests::{deployment, namespace, node_object, pod};
use crate::world::World;

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
    let mut world = World::still();
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
    let mut world = World::still();
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

#[test]
fn a_namespace_is_furnished_and_ends_pods_first() {
    let mut world = World::still();
    world.create(&NAMESPACE, namespace("shop"));
    world.settle();
    world.create(&NODE, node_object("n0"));
    let mut web = pod("web", "n0", true, 80);
    web["metadata"]["namespace"] = json!("shop");
    world.create(&POD, web);
    world.create(
        &CONFIG_MAP,
        json!({"metadata": {"name": "mine", "namespace": "shop"}}),
    );
    world.settle();
    world.delete(&NAMESPACE, "shop", Propagation::Background);
    world.settle();
    world.agents = true;
    world.settle();
    let story: Vec<String> = world
        .tell()
        .lines()
        // A node is there before its status is: how often that is tried in vain is chance.
        .filter(|line| !line.contains("/status") && !line.starts_with("patch nodes "))
        .map(str::to_owned)
        .collect();
    assert_eq!(world.get(&NAMESPACE, "shop"), &Value::Null);
    insta::assert_snapshot!(story.join("\n"), @r#"
    create serviceaccounts shop/default
    create configmaps shop/kube-root-ca.crt
    delete pods shop/web
    delete serviceaccounts shop/default
    delete configmaps shop/kube-root-ca.crt
    delete configmaps shop/mine
    patch namespaces/finalize shop {"spec":{"finalizers":[]}}
    "#);
}

#[test]
fn an_object_with_a_living_owner_only_loses_the_dead_one() {
    let mut world = World::still();
    let owner = |name: &str, uid: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "name": name, "uid": uid});
    let map = |name: &str, owners: Value| json!({"metadata": {"name": name, "namespace": "default", "ownerReferences": owners}});
    let alive = world.create(&CONFIG_MAP, map("alive", json!([])));
    let uid = alive["metadata"]["uid"].as_str().unwrap();
    let both = json!([owner("alive", uid), owner("dead", "dead")]);
    world.create(&CONFIG_MAP, map("both", both));
    world.create(&CONFIG_MAP, map("lost", json!([owner("dead", "dead")])));
    let foreign =
        json!([{"apiVersion": "example.com/v1", "kind": "Thing", "name": "x", "uid": "x"}]);
    world.create(&CONFIG_MAP, map("foreign", foreign));
    world.settle();
    insta::assert_snapshot!(world.tell().replace(uid, "UID"), @r#"
    patch configmaps default/both {"metadata":{"ownerReferences":[{"apiVersion":"v1","kind":"ConfigMap","name":"alive","uid":"UID"}]}}
    delete configmaps default/lost
    "#);
}

/// A kind as a definition of custom resources makes one.
fn widget() -> Arc<Kind> {
    Arc::new(Kind::new(
        "example.com".to_owned(),
        "v1".to_owned(),
        "Widget",
        "widgets",
    ))
}

#[test]
fn a_kind_that_is_registered_at_run_time_is_collected_and_keeps_its_namespace() {
    let mut world = World::new(2);
    let kind = widget();
    let own = |owner: &Value| {
        json!([{"apiVersion": owner["apiVersion"], "kind": owner["kind"],
            "name": owner["metadata"]["name"], "uid": owner["metadata"]["uid"]}])
    };
    let object = |name: &str, owners: Value| json!({"metadata": {"name": name, "namespace": "shop", "ownerReferences": owners}});
    world.create(&NAMESPACE, namespace("shop"));
    world.settle();
    // Nobody can look for an owner of a kind that is not served.
    let unknown =
        json!([{"apiVersion": "example.com/v1", "kind": "Widget", "name": "w", "uid": "w"}]);
    world.create(&CONFIG_MAP, object("early", unknown.clone()));
    world.settle();
    assert_ne!(world.get(&CONFIG_MAP, "early"), &Value::Null);

    let mut kinds = world.registries.current().all().to_vec();
    kinds.push(Arc::clone(&kind));
    world.registries.replace(Arc::new(Registry::new(kinds)));
    let widget = world.create(&kind, object("owner", json!([])));
    world.create(&kind, object("part", own(&widget)));
    world.create(&CONFIG_MAP, object("config", own(&widget)));
    world.create(&CONFIG_MAP, object("late", unknown));
    let map = world.create(&CONFIG_MAP, object("base", json!([])));
    world.create(&kind, object("on-base", own(&map)));
    world.settle();
    assert_eq!(world.names(&kind), ["on-base", "owner", "part"]);
    assert_eq!(
        world.get(&CONFIG_MAP, "late"),
        &Value::Null,
        "its owner is not there"
    );

    world.delete(&kind, "owner", Propagation::Foreground);
    world.delete(&CONFIG_MAP, "base", Propagation::Background);
    world.settle();
    assert_eq!(world.names(&kind), Vec::<String>::new());
    assert_eq!(world.get(&CONFIG_MAP, "config"), &Value::Null);

    let mut held = object("held", json!([]));
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    world.create(&kind, held);
    world.create(&kind, object("free", json!([])));
    world.settle();
    world.delete(&NAMESPACE, "shop", Propagation::Background);
    world.settle();
    // So it is for the next leader.
    world.change_leader();
    world.settle();
    assert_eq!(world.names(&kind), ["held"]);
    let conditions = &world.get(&NAMESPACE, "shop")["status"]["conditions"];
    // All five, as whoever waits for one of them expects, in Kubernetes' order.
    let told = conditions.as_array().unwrap().iter();
    let told = told.map(|one| format!("{} {}", one["type"], one["status"]).replace('"', ""));
    assert_eq!(
        told.collect::<Vec<_>>(),
        [
            "NamespaceDeletionDiscoveryFailure False",
            "NamespaceDeletionGroupVersionParsingFailure False",
            "NamespaceDeletionContentFailure False",
            "NamespaceContentRemaining True",
            "NamespaceFinalizersRemaining True",
        ]
    );
    assert_eq!(
        conditions[3]["message"],
        "Some resources are remaining: widgets.example.com has 1 resource instances"
    );
    world.patch(&kind, "held", json!({"metadata": {"finalizers": null}}));
    world.settle();
    assert_eq!(world.get(&NAMESPACE, "shop"), &Value::Null);
}
