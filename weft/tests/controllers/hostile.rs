//! Objects that nobody should have written: the controllers live, and lose nothing over them.

use serde_json::{Value, json};
use weft_controllers::write::Propagation;
use weft_kinds::{CONFIG_MAP, DEPLOYMENT, EVENT, NAMESPACE, NODE, POD, REPLICA_SET, SECRET};

use crate::manifests::{deployment, namespace, node_object};
use crate::world::World;

#[test]
fn an_object_that_cannot_be_read_is_there_and_so_is_what_it_owns() {
    let mut world = World::new(4);
    world.create_nodes();
    world.create(&DEPLOYMENT, deployment("web", 3, "x:1"));
    world.settle();
    let before = (world.names(&REPLICA_SET), world.names(&POD));
    world.tell();
    for spec in [
        json!({"replicas": 3_000_000_000_i64}),
        json!({"replicas": 3, "strategy": {"rollingUpdate": {"maxSurge": 3_000_000_000_i64}}}),
        json!({"strategy": {"rollingUpdate": {"maxSurge": "25%"}}, "minReadySeconds": "soon"}),
    ] {
        world.corrupt(&DEPLOYMENT, "web", &json!({"spec": spec}));
        world.settle();
        world.change_leader();
        world.settle();
        let after = (world.names(&REPLICA_SET), world.names(&POD));
        assert_eq!(before, after, "{spec}");
        let story = world.tell();
        let told = "event Unreadable Deployment default/web cannot be read (the object does not have the shape of its kind: ";
        assert!(story.contains(told), "{story}");
        assert!(!story.contains("delete "), "{story}");
    }
    // Corrected, it is worked on again.
    let right = json!({"spec": {"replicas": 4, "minReadySeconds": 0}});
    world.patch(&DEPLOYMENT, "web", right);
    world.settle();
    assert_eq!(world.available_pods(), 4);
}

#[test]
fn a_set_or_pod_that_cannot_be_read_is_not_made_a_second_time() {
    let mut world = World::new(4);
    world.create_nodes();
    world.create(&DEPLOYMENT, deployment("web", 3, "x:1"));
    world.settle();
    let pod = world.names(&POD)[0].clone();
    world.corrupt(&POD, &pod, &json!({"spec": {"nodeName": 7}}));
    world.settle();
    world.change_leader();
    world.settle();
    assert_eq!(world.names(&POD).len(), 3, "the pod counts");
    let set = world.names(&REPLICA_SET)[0].clone();
    world.corrupt(&REPLICA_SET, &set, &json!({"spec": {"replicas": "three"}}));
    world.settle();
    world.change_leader();
    world.settle();
    assert_eq!(world.names(&REPLICA_SET), [set]);
    assert_eq!(world.names(&POD).len(), 3);
}

#[test]
fn a_node_that_cannot_be_read_keeps_its_pods_and_its_range() {
    let mut world = World::still();
    let mut node = node_object("n0");
    node["spec"] = json!({"podCIDR": "10.128.0.0/17", "podCIDRs": ["10.128.0.0/17"]});
    world.create(&NODE, node);
    let pod = json!({
        "metadata": {"name": "a", "namespace": "default"},
        "spec": {"nodeName": "n0", "containers": [{"name": "main", "image": "x:1"}]},
    });
    world.create(&POD, pod);
    world.settle();
    world.corrupt(&NODE, "n0", &json!({"spec": {"unschedulable": "yes"}}));
    world.settle();
    world.change_leader();
    world.settle();
    world.pass_time(600);
    world.settle();
    assert_eq!(world.names(&POD), ["a"]);
    world.create(&NODE, json!({"metadata": {"name": "n1"}}));
    world.settle();
    let range = &world.get(&NODE, "n1")["spec"]["podCIDR"];
    assert_eq!(range, "10.128.128.0/17");
}

#[test]
fn a_namespace_does_not_end_before_what_cannot_be_read_in_it() {
    let mut world = World::still();
    world.create(&NAMESPACE, namespace("shop"));
    let mut object = deployment("web", 1, "x:1");
    object["metadata"]["namespace"] = json!("shop");
    object["metadata"]["finalizers"] = json!(["example.com/hold"]);
    world.create(&DEPLOYMENT, object);
    world.corrupt(&DEPLOYMENT, "web", &json!({"spec": {"replicas": "one"}}));
    world.settle();
    world.delete(&NAMESPACE, "shop", Propagation::Background);
    world.settle();
    world.change_leader();
    world.settle();
    let conditions = &world.get(&NAMESPACE, "shop")["status"]["conditions"];
    assert_eq!(
        conditions[3]["message"],
        "Some resources are remaining: deployments.apps has 1 resource instances"
    );
    let right = json!({"metadata": {"finalizers": null}, "spec": {"replicas": 1}});
    world.patch(&DEPLOYMENT, "web", right);
    world.settle();
    assert_eq!(world.get(&NAMESPACE, "shop"), &Value::Null);
}

#[test]
fn an_owner_that_cannot_be_read_keeps_what_it_owns_and_the_others_go_on() {
    let mut world = World::new(6);
    let map = |name: &str, owner: &Value| {
        json!({"metadata": {"name": name, "namespace": "default", "ownerReferences": [
            {"apiVersion": owner["apiVersion"], "kind": owner["kind"],
             "name": owner["metadata"]["name"], "uid": owner["metadata"]["uid"]}]}})
    };
    let secret = json!({"metadata": {"name": "key", "namespace": "default"}});
    let secret = world.create(&SECRET, secret);
    world.create(&CONFIG_MAP, map("of-secret", &secret));
    let set = world.create(&DEPLOYMENT, deployment("web", 2, "x:1"));
    world.create(&CONFIG_MAP, map("of-web", &set));
    world.settle();
    // One lost its shape, the other all that it was, its uid among it.
    world.corrupt(
        &DEPLOYMENT,
        "web",
        &json!({"spec": {"selector": "app", "template": []}}),
    );
    world.corrupt(
        &SECRET,
        "key",
        &json!({"metadata": {"uid": null}, "data": null}),
    );
    world.settle();
    world.change_leader();
    world.tell();
    world.settle();
    let story = world.tell();
    assert!(!story.contains("delete "), "{story}");
    assert_eq!(
        world
            .names(&CONFIG_MAP)
            .iter()
            .filter(|name| name.starts_with("of-"))
            .count(),
        2
    );
    assert_eq!(world.live_pods(), 2);
    let told: Vec<&str> = story
        .lines()
        .filter(|line| line.contains("Unreadable"))
        .collect();
    assert_eq!(told.len(), 2, "{story}");
    // Whoever comes now is served.
    world.create(&DEPLOYMENT, deployment("other", 3, "x:1"));
    world.settle();
    assert_eq!(world.available_pods(), 5);
}

#[test]
fn numbers_that_no_cluster_holds_cost_a_bounded_number_of_pods() {
    let largest = i32::MAX;
    for (replicas, surge) in [
        (largest, json!("25%")),
        (largest, json!(largest)),
        (3, json!(largest)),
        (3, json!("99999999999%")),
        (largest, json!("99999999999%")),
    ] {
        let mut world = World::still();
        let mut object = deployment("web", i64::from(replicas), "x:1");
        object["spec"]["strategy"]["rollingUpdate"]["maxSurge"] = surge.clone();
        world.create(&DEPLOYMENT, object);
        // The world ends each settling after so many turns; the sets ask for no more than this.
        world.settle();
        let pods = world.all(&POD).len();
        let most = if replicas == 3 { 3 } else { 2000 };
        assert_eq!(pods, most, "{replicas} and {surge}");
        // A new template beside the old one, and a change of size in the middle of it.
        let image = json!([{"name": "main", "image": "x:2"}]);
        let template = json!({"spec": {"template": {"spec": {"containers": image}}}});
        world.patch(&DEPLOYMENT, "web", template);
        world.settle();
        world.patch(
            &DEPLOYMENT,
            "web",
            json!({"spec": {"replicas": largest - 1}}),
        );
        world.settle();
        assert!(world.all(&POD).len() <= 4000, "{replicas} and {surge}");
        for set in world.all(&REPLICA_SET) {
            let size = set["spec"]["replicas"].as_i64().unwrap();
            assert!((0..=i64::from(largest)).contains(&size), "{size}");
        }
    }
}

#[test]
fn numbers_in_annotations_and_status_are_what_somebody_wrote() {
    let mut world = World::new(3);
    world.create(&DEPLOYMENT, deployment("web", 2, "x:1"));
    world.settle();
    let set = world.names(&REPLICA_SET)[0].clone();
    world.corrupt(
        &REPLICA_SET,
        &set,
        &json!({
            "metadata": {"annotations": {
                "deployment.kubernetes.io/revision": i64::MAX.to_string(),
                "deployment.kubernetes.io/desired-replicas": "-2147483648",
                "deployment.kubernetes.io/max-replicas": "2147483647",
            }},
            "status": {"replicas": i32::MAX, "availableReplicas": i32::MIN, "readyReplicas": i32::MAX,
                "terminatingReplicas": i32::MAX},
        }),
    );
    let image = json!([{"name": "main", "image": "x:2"}]);
    world.corrupt(
        &DEPLOYMENT,
        "web",
        &json!({"spec": {"template": {"spec": {"containers": image}}},
            "status": {"collisionCount": i32::MAX, "replicas": i32::MIN, "updatedReplicas": i32::MAX}}),
    );
    world.settle();
    assert_eq!(world.available_pods(), 2);
    assert_eq!(
        world.get(&DEPLOYMENT, "web")["status"]["updatedReplicas"],
        2
    );
}

#[test]
fn an_owner_owns_within_its_reach() {
    let mut world = World::still();
    for name in ["t", "u"] {
        world.create(&NAMESPACE, namespace(name));
    }
    world.settle();
    let map = |namespace: &str, name: &str, owners: Value| json!({"metadata": {"name": name, "namespace": namespace, "ownerReferences": owners}});
    let own = world.create(&CONFIG_MAP, map("t", "own", json!([])));
    let uid = own["metadata"]["uid"].as_str().unwrap().to_owned();
    let owner = |kind: &str, api_version: &str| {
        json!({"apiVersion": api_version, "kind": kind, "name": "own", "uid": uid,
            "blockOwnerDeletion": true})
    };
    let own = owner("ConfigMap", "v1");
    world.create(
        &NAMESPACE,
        json!({"metadata": {"name": "victim", "ownerReferences": [own]}}),
    );
    world.settle();
    let pod = json!({
        "metadata": {"name": "inside", "namespace": "victim"},
        "spec": {"containers": [{"name": "main", "image": "x:1"}]},
    });
    world.create(&POD, pod);
    world.tell();
    world.create(&CONFIG_MAP, map("u", "elsewhere", json!([own])));
    let secret = owner("Secret", "v1");
    world.create(&CONFIG_MAP, map("t", "other-kind", json!([secret])));
    let thing = owner("Thing", "example.com/v1");
    world.create(&CONFIG_MAP, map("t", "not-served", json!([thing])));
    let gone = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "gone", "uid": "gone"});
    world.create(&CONFIG_MAP, map("t", "two", json!([own, gone])));
    world.settle();
    let told = |world: &mut World| {
        let story = world.tell().replace(&uid, "UID");
        let ours = story.lines().filter(|line| {
            line.contains("OwnerRef") || line.contains(" t/") || line.contains(" u/")
        });
        // How often is the recorder's business.
        let lines: std::collections::BTreeSet<&str> = ours.collect();
        lines.into_iter().collect::<Vec<_>>().join("\n")
    };
    insta::assert_snapshot!(told(&mut world), @r#"
    delete configmaps t/other-kind
    delete configmaps u/elsewhere
    event OwnerRefInvalidNamespace ownerRef [v1/ConfigMap, namespace: u, name: own, uid: UID] does not exist in namespace "u"
    patch configmaps t/two {"metadata":{"ownerReferences":[{"apiVersion":"v1","blockOwnerDeletion":true,"kind":"ConfigMap","name":"own","uid":"UID"}]}}
    "#);
    world.change_leader();
    world.settle();
    insta::assert_snapshot!(told(&mut world), @r#"event OwnerRefInvalidNamespace ownerRef [v1/ConfigMap, namespace: , name: own, uid: UID] does not exist in namespace """#);
    // Not even when the owner goes, and asks its dependents to go before.
    world.delete(&CONFIG_MAP, "own", Propagation::Foreground);
    world.settle();
    insta::assert_snapshot!(told(&mut world), @r#"
    delete configmaps t/two
    event OwnerRefInvalidNamespace ownerRef [v1/ConfigMap, namespace: , name: own, uid: UID] does not exist in namespace ""
    patch configmaps t/own {"metadata":{"finalizers":[]}}
    "#);
    assert_eq!(world.get(&CONFIG_MAP, "own"), &Value::Null);
    assert_ne!(world.get(&POD, "inside"), &Value::Null);
    assert_ne!(world.get(&CONFIG_MAP, "not-served"), &Value::Null);
}

#[test]
fn nothing_goes_for_an_owner_that_is_there_after_all() {
    let mut world = World::still();
    // It is stored, and the informer has not told of it.
    let secret = json!({"metadata": {"name": "own", "namespace": "default"}});
    let secret = world.create_unseen(&SECRET, secret);
    let own = json!([{"apiVersion": "v1", "kind": "Secret", "name": "own",
        "uid": secret["metadata"]["uid"]}]);
    let owned =
        json!({"metadata": {"name": "owned", "namespace": "default", "ownerReferences": own}});
    world.create(&CONFIG_MAP, owned);
    for _ in 0..3 {
        world.run(50, |_| {});
    }
    assert_ne!(world.get(&CONFIG_MAP, "owned"), &Value::Null);
    assert_eq!(world.tell(), "");
}

#[test]
fn events_go_as_fast_as_they_are_due() {
    let mut world = World::still();
    for number in 0..1201 {
        world.create(
            &EVENT,
            json!({
                "metadata": {"name": format!("e{number}"), "namespace": "default"},
                "involvedObject": {"namespace": "default"}, "lastTimestamp": "2025-12-31T22:59:00Z",
            }),
        );
    }
    world.pass_time(3601);
    world.change_leader();
    // 500 a pass, and no time in between.
    for left in [701, 201, 0] {
        world.settle();
        assert_eq!(world.all(&EVENT).len(), left);
    }
}
