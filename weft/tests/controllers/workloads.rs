//! ReplicationControllers, StatefulSets and DaemonSets on the real server, from their first pod to their last.

use serde_json::{Value, json};
use weft_controllers::write::Propagation;
use weft_kinds::{
    CONTROLLER_REVISION, DAEMON_SET, KindRef, NAMESPACE, NODE, PERSISTENT_VOLUME,
    PERSISTENT_VOLUME_CLAIM, POD, REPLICATION_CONTROLLER, RESOURCE_QUOTA, STATEFUL_SET,
    STORAGE_CLASS,
};

use crate::manifests::{namespace, node_object};
use crate::world::{PINNED, World};

fn template(image: &str) -> Value {
    json!({
        "metadata": {"labels": {"app": "a"}},
        "spec": {"containers": [{"name": "main", "image": image}]},
    })
}

fn replication_controller(replicas: i64) -> Value {
    json!({
        "metadata": {"name": "rc", "namespace": "default"},
        "spec": {"replicas": replicas, "selector": {"app": "a"}, "template": template("x:1")},
    })
}

fn stateful_set(replicas: i64) -> Value {
    json!({
        "metadata": {"name": "db", "namespace": "default"},
        "spec": {"replicas": replicas, "serviceName": "db",
            "selector": {"matchLabels": {"app": "a"}}, "template": template("x:1")},
    })
}

fn daemon_set() -> Value {
    json!({
        "metadata": {"name": "log", "namespace": "default"},
        "spec": {"selector": {"matchLabels": {"app": "a"}}, "template": template("x:1")},
    })
}

fn image_of(pod: &Value) -> &str {
    pod["spec"]["containers"][0]["image"].as_str().unwrap()
}

/// How many pods are of each image.
fn images(world: &World, image: &str) -> usize {
    let pods = world.all(&POD).into_iter();
    pods.filter(|pod| image_of(pod) == image).count()
}

fn status<'a>(world: &'a World, kind: KindRef<'_>, name: &str) -> &'a Value {
    &world.get(kind, name)["status"]
}

#[test]
fn a_replication_controller_has_as_many_pods_as_asked_for() {
    for seed in 0..4 {
        let mut world = World::new(seed);
        world.create(&REPLICATION_CONTROLLER, replication_controller(3));
        world.settle();
        assert_eq!(world.available_pods(), 3, "seed {seed}");
        let told = status(&world, &REPLICATION_CONTROLLER, "rc");
        assert_eq!(
            *told,
            json!({"replicas": 3, "fullyLabeledReplicas": 3, "readyReplicas": 3, "availableReplicas": 3,
                "observedGeneration": 1}),
        );
        let pod = world.all(&POD)[0];
        let owner = &pod["metadata"]["ownerReferences"][0];
        assert_eq!(owner["apiVersion"], "v1");
        assert_eq!(owner["kind"], "ReplicationController");
        assert_eq!(pod["metadata"]["generateName"], "rc-");
        world.patch(
            &REPLICATION_CONTROLLER,
            "rc",
            json!({"spec": {"replicas": 1}}),
        );
        world.settle();
        assert_eq!(world.names(&POD).len(), 1);
        world.delete(&REPLICATION_CONTROLLER, "rc", Propagation::Background);
        world.settle();
        assert_eq!(world.names(&POD).len(), 0);
    }
}

#[test]
fn a_replication_controller_adopts_releases_and_says_what_it_was_refused() {
    let mut world = World::new(3);
    let mut stray = template("x:1");
    stray["metadata"]["name"] = json!("stray");
    stray["metadata"]["namespace"] = json!("default");
    world.create(&POD, stray);
    world.create(&REPLICATION_CONTROLLER, replication_controller(1));
    world.settle();
    assert_eq!(world.names(&POD), ["stray"]);
    assert_eq!(
        world.get(&POD, "stray")["metadata"]["ownerReferences"][0]["name"],
        "rc"
    );
    world.patch(&POD, "stray", json!({"metadata": {"labels": {"app": "b"}}}));
    world.settle();
    assert!(world.get(&POD, "stray")["metadata"]["ownerReferences"].is_null());
    assert_eq!(world.names(&POD).len(), 2);
    // No more than two pods in all: the third is refused, and that is told until it is not wanted any more.
    let quota =
        json!({"metadata": {"name": "q", "namespace": "default"}, "spec": {"hard": {"pods": "2"}}});
    world.create(&RESOURCE_QUOTA, quota);
    world.settle();
    world.patch(
        &REPLICATION_CONTROLLER,
        "rc",
        json!({"spec": {"replicas": 2}}),
    );
    world.live(3, &[]);
    let conditions = &status(&world, &REPLICATION_CONTROLLER, "rc")["conditions"];
    assert_eq!(conditions[0]["type"], "ReplicaFailure");
    assert_eq!(conditions[0]["reason"], "FailedCreate");
    world.patch(
        &REPLICATION_CONTROLLER,
        "rc",
        json!({"spec": {"replicas": 1}}),
    );
    world.live(40, &[]);
    let conditions = &status(&world, &REPLICATION_CONTROLLER, "rc")["conditions"];
    assert_eq!(*conditions, Value::Null);
}

#[test]
fn the_pods_that_are_missed_least_go_first() {
    let mut world = World::new(11);
    world.agents = false;
    // Name, node, phase, seconds since it is ready, restarts, what its deletion costs; in the order in which they go.
    let pods = [
        ("unplaced", "", "Pending", None, 0, "9"),
        ("pending", "n0", "Pending", None, 0, "9"),
        ("unready", "n0", "Running", None, 0, "9"),
        ("cheap", "n0", "Running", Some(4_000), 0, "-5"),
        ("doubled", "n1", "Running", Some(500), 0, "0"),
        ("fresh", "n2", "Running", Some(20), 0, "0"),
        ("restarted", "n3", "Running", Some(4_000), 3, "0"),
        ("young", "n4", "Running", Some(4_000), 0, "0"),
        ("old", "n1", "Running", Some(4_000), 0, "0"),
        ("dear", "n5", "Running", Some(20), 9, "7"),
    ];
    for node in 0..6 {
        world.create(&NODE, node_object(&format!("n{node}")));
    }
    for (name, node, ..) in pods {
        if name == "young" {
            continue;
        }
        world.create(&POD, stray(name, node, &pods));
    }
    world.pass_time(8_000);
    world.create(&POD, stray("young", "n4", &pods));
    world.pass_time(5_000);
    for (name, _, phase, ready, restarts, _) in pods {
        let mut status = json!({"phase": phase, "containerStatuses": [{"name": "main", "image": "x:1", "imageID": "",
            "ready": ready.is_some(), "restartCount": restarts, "state": {"running": {}}}]});
        if let Some(seconds) = ready {
            let since = world.now.as_second() - seconds;
            let since = jiff::Timestamp::from_second(since).unwrap().to_string();
            status["conditions"] =
                json!([{"type": "Ready", "status": "True", "lastTransitionTime": since}]);
        }
        world.patch(&POD, name, json!({"status": status}));
    }
    world.create(&REPLICATION_CONTROLLER, replication_controller(10));
    world.settle();
    let live = |world: &World| -> Vec<String> {
        let pods = world.all(&POD).into_iter();
        pods.filter(|pod| pod["metadata"]["deletionTimestamp"].is_null())
            .map(|pod| pod["metadata"]["name"].as_str().unwrap().to_owned())
            .collect()
    };
    let mut before = live(&world);
    let mut gone = Vec::new();
    for left in (0..10).rev() {
        let fewer = json!({"spec": {"replicas": left}});
        world.patch(&REPLICATION_CONTROLLER, "rc", fewer);
        world.settle();
        let after = live(&world);
        gone.extend(before.into_iter().filter(|name| !after.contains(name)));
        before = after;
    }
    assert_eq!(gone, pods.map(|(name, ..)| name));
}

/// Name, node, phase, when it became ready, restarts and `pod-deletion-cost`.
type StrayPod<'p> = (&'p str, &'p str, &'p str, Option<i64>, i32, &'p str);

/// A pod that nobody owns, on its node.
fn stray(name: &str, node: &str, pods: &[StrayPod<'_>]) -> Value {
    let mut pod = template("x:1");
    pod["metadata"]["name"] = json!(name);
    pod["metadata"]["namespace"] = json!("default");
    let cost = pods.iter().find(|pod| pod.0 == name).map(|pod| pod.5);
    pod["metadata"]["annotations"] = json!({"controller.kubernetes.io/pod-deletion-cost": cost});
    if !node.is_empty() {
        pod["spec"]["nodeName"] = json!(node);
    }
    pod
}

#[test]
fn a_stateful_set_grows_shrinks_and_goes_on_after_a_change_of_leader() {
    for seed in 0..4 {
        let mut world = World::new(seed);
        world.create(&STATEFUL_SET, stateful_set(3));
        // At no time is a pod there before those below it are available.
        world.run(20_000, |world| {
            let ready = |name: &str| {
                let conditions = &world.get(&POD, name)["status"]["conditions"];
                let mut conditions = conditions.as_array().into_iter().flatten();
                conditions.any(|one| one["type"] == "Ready" && one["status"] == "True")
            };
            for (pod, before) in [("db-1", "db-0"), ("db-2", "db-1")] {
                assert!(
                    world.get(&POD, pod).is_null() || ready(before),
                    "seed {seed}"
                );
            }
        });
        world.settle();
        assert_eq!(world.names(&POD), ["db-0", "db-1", "db-2"]);
        let told = status(&world, &STATEFUL_SET, "db").clone();
        assert_eq!(told["readyReplicas"], 3);
        assert_eq!(told["currentRevision"], told["updateRevision"]);
        assert_eq!(world.names(&CONTROLLER_REVISION).len(), 1);
        let pod = world.get(&POD, "db-1");
        assert_eq!(pod["spec"]["hostname"], "db-1");
        assert_eq!(
            pod["metadata"]["labels"]["apps.kubernetes.io/pod-index"],
            "1"
        );
        world.tell();
        world.change_leader();
        world.settle();
        assert_eq!(world.tell(), "", "seed {seed}: nothing is left to do");
        world.patch(&STATEFUL_SET, "db", json!({"spec": {"replicas": 1}}));
        world.settle();
        assert_eq!(world.names(&POD), ["db-0"]);
        // One that is taken away comes back as itself.
        world.delete(&POD, "db-0", Propagation::Background);
        world.settle();
        assert_eq!(world.names(&POD), ["db-0"]);
    }
}

#[test]
fn a_stateful_set_goes_on_when_anothers_pod_of_its_name_is_gone() {
    let mut world = World::new(3);
    let mut other = template("x:1");
    other["metadata"] = json!({"name": "db-1", "namespace": "default", "labels": {"app": "other"}});
    world.create(&POD, other);
    world.create(&STATEFUL_SET, stateful_set(3));
    world.settle();
    assert_eq!(world.names(&POD), ["db-0", "db-1"]);
    world.delete(&POD, "db-1", Propagation::Background);
    world.settle();
    assert_eq!(world.names(&POD), ["db-0", "db-1", "db-2"]);
}

#[test]
fn a_stateful_set_is_updated_in_parts_and_goes_back() {
    let mut world = World::new(5);
    let mut set = stateful_set(3);
    set["spec"]["updateStrategy"] =
        json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 2}});
    world.create(&STATEFUL_SET, set);
    world.settle();
    let first = status(&world, &STATEFUL_SET, "db")["currentRevision"].clone();
    let image = |image: &str| json!({"spec": {"template": template(image)}});
    world.patch(&STATEFUL_SET, "db", image("x:2"));
    world.settle();
    assert_eq!(images(&world, "x:2"), 1);
    assert_eq!(image_of(world.get(&POD, "db-2")), "x:2");
    let told = status(&world, &STATEFUL_SET, "db");
    assert_eq!(told["currentRevision"], first);
    assert_eq!(
        (
            told["currentReplicas"].clone(),
            told["updatedReplicas"].clone()
        ),
        (json!(2), json!(1))
    );
    // Below the partition a pod comes back as it was.
    world.delete(&POD, "db-0", Propagation::Background);
    world.settle();
    assert_eq!(image_of(world.get(&POD, "db-0")), "x:1");
    let partition = json!({"spec": {"updateStrategy": {"rollingUpdate": {"partition": 0}}}});
    world.patch(&STATEFUL_SET, "db", partition);
    world.settle();
    assert_eq!(images(&world, "x:2"), 3);
    let told = status(&world, &STATEFUL_SET, "db");
    assert_eq!(told["currentRevision"], told["updateRevision"]);
    assert_ne!(told["currentRevision"], first);
    world.patch(&STATEFUL_SET, "db", image("x:1"));
    world.settle();
    assert_eq!(images(&world, "x:1"), 3);
    assert_eq!(
        status(&world, &STATEFUL_SET, "db")["currentRevision"],
        first
    );
    assert_eq!(world.names(&CONTROLLER_REVISION).len(), 2);
    assert_eq!(
        world.get(&CONTROLLER_REVISION, first.as_str().unwrap())["revision"],
        3
    );
}

#[test]
fn claims_come_before_their_pods_and_go_with_them_where_that_is_asked_for() {
    let mut world = World::new(6);
    let mut set = stateful_set(2);
    set["spec"]["volumeClaimTemplates"] = json!([{"metadata": {"name": "data"}, "spec": {
        "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}]);
    set["spec"]["persistentVolumeClaimRetentionPolicy"] =
        json!({"whenDeleted": "Delete", "whenScaled": "Delete"});
    world.create(&STATEFUL_SET, set);
    world.settle();
    assert_eq!(
        world.names(&PERSISTENT_VOLUME_CLAIM),
        ["data-db-0", "data-db-1"]
    );
    let claim = world.get(&PERSISTENT_VOLUME_CLAIM, "data-db-1");
    assert_eq!(
        claim["metadata"]["ownerReferences"][0]["kind"],
        "StatefulSet"
    );
    let volume = &world.get(&POD, "db-1")["spec"]["volumes"][0];
    assert_eq!(volume["persistentVolumeClaim"]["claimName"], "data-db-1");
    world.patch(&STATEFUL_SET, "db", json!({"spec": {"replicas": 1}}));
    world.settle();
    assert_eq!(world.names(&PERSISTENT_VOLUME_CLAIM), ["data-db-0"]);
    world.delete(&STATEFUL_SET, "db", Propagation::Background);
    world.settle();
    assert_eq!(world.names(&PERSISTENT_VOLUME_CLAIM).len(), 0);
    assert_eq!(world.names(&POD).len(), 0);
    assert_eq!(world.names(&CONTROLLER_REVISION).len(), 0);
}

#[test]
fn a_claim_gets_a_folder_that_goes_with_it() {
    for seed in 0..4 {
        let mut world = World::new(seed);
        world.create_nodes();
        world.create(
            &STORAGE_CLASS,
            json!({"metadata": {"name": "now"}, "provisioner": "folder.weft.dev", "allowVolumeExpansion": true}),
        );
        world.create(
            &PERSISTENT_VOLUME_CLAIM,
            json!({"metadata": {"name": "data", "namespace": "default"}, "spec": {"storageClassName": "now",
                "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}),
        );
        world.settle();
        let told = status(&world, &PERSISTENT_VOLUME_CLAIM, "data").clone();
        assert_eq!(
            told,
            json!({"phase": "Bound", "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}}),
            "seed {seed}: {}",
            world.tell()
        );
        let names = world.names(&PERSISTENT_VOLUME);
        let [name] = names.as_slice() else {
            panic!("{names:?}");
        };
        let name = name.clone();
        assert_eq!(status(&world, &PERSISTENT_VOLUME, &name)["phase"], "Bound");
        let larger = json!({"spec": {"resources": {"requests": {"storage": "2Gi"}}}});
        world.patch(&PERSISTENT_VOLUME_CLAIM, "data", larger);
        world.settle();
        let told = status(&world, &PERSISTENT_VOLUME_CLAIM, "data");
        assert_eq!(told["capacity"]["storage"], "2Gi");
        world.delete(&PERSISTENT_VOLUME_CLAIM, "data", Propagation::Background);
        world.settle();
        assert_eq!(world.names(&PERSISTENT_VOLUME_CLAIM).len(), 0);
        assert_eq!(world.names(&PERSISTENT_VOLUME).len(), 0);
    }
}

/// Nodes that pods of a DaemonSet are meant for; nobody places them here.
fn meant_for(world: &World) -> Vec<&str> {
    let pods = world.all(&POD).into_iter();
    let nodes = pods.map(|pod| pod.pointer(PINNED).unwrap().as_str().unwrap());
    let mut nodes: Vec<&str> = nodes.collect();
    nodes.sort_unstable();
    nodes
}

#[test]
fn a_daemon_set_follows_the_nodes() {
    let mut world = World::new(7);
    world.agents = false;
    for node in ["n0", "n1"] {
        world.create(&NODE, node_object(node));
    }
    world.create(&DAEMON_SET, daemon_set());
    world.settle();
    assert_eq!(meant_for(&world), ["n0", "n1"]);
    let told = status(&world, &DAEMON_SET, "log");
    assert_eq!(told["desiredNumberScheduled"], 2);
    assert_eq!(told["currentNumberScheduled"], 2);
    assert_eq!(told["numberUnavailable"], 2);
    let pod = world.all(&POD)[0];
    let tolerations = pod["spec"]["tolerations"].as_array().unwrap();
    assert_eq!(
        tolerations.len(),
        6,
        "and none for a while only: {tolerations:?}"
    );
    assert_eq!(pod["metadata"]["labels"]["pod-template-generation"], "1");
    world.create(&NODE, node_object("n2"));
    world.settle();
    assert_eq!(meant_for(&world), ["n0", "n1", "n2"]);
    let taint = json!({"spec": {"taints": [{"key": "k", "effect": "NoExecute"}]}});
    world.patch(&NODE, "n1", taint);
    world.settle();
    assert_eq!(meant_for(&world), ["n0", "n2"]);
    let selector = json!({"spec": {"template": {"spec": {"nodeSelector": {"role": "log"}}}}});
    world.patch(&DAEMON_SET, "log", selector);
    world.settle();
    assert_eq!(meant_for(&world), [""; 0]);
    world.patch(
        &NODE,
        "n2",
        json!({"metadata": {"labels": {"role": "log"}}}),
    );
    world.settle();
    assert_eq!(meant_for(&world), ["n2"]);
    let revisions = world.all(&CONTROLLER_REVISION);
    assert_eq!(revisions.len(), 2);
    let hash = &world.all(&POD)[0]["metadata"]["labels"]["controller-revision-hash"];
    let current = revisions.iter().find(|one| one["revision"] == 2).unwrap();
    assert_eq!(
        current["metadata"]["labels"]["controller-revision-hash"],
        *hash
    );
    world.delete(&DAEMON_SET, "log", Propagation::Background);
    world.settle();
    assert_eq!(world.names(&POD).len(), 0);
}

#[test]
fn a_daemon_set_is_updated_node_by_node() {
    for seed in 0..4 {
        let mut world = World::new(seed);
        world.create_nodes();
        world.create(&DAEMON_SET, daemon_set());
        world.settle();
        let told = status(&world, &DAEMON_SET, "log");
        assert_eq!(told["numberAvailable"], 3, "seed {seed}");
        assert_eq!(told["numberUnavailable"], Value::Null);
        let image = json!({"spec": {"template": template("x:2")}});
        world.patch(&DAEMON_SET, "log", image);
        world.run(20_000, |world| {
            assert!(world.available_pods() >= 2, "seed {seed}: one at a time");
        });
        world.settle();
        assert_eq!(
            (images(&world, "x:2"), images(&world, "x:1")),
            (3, 0),
            "seed {seed}"
        );
        assert_eq!(
            status(&world, &DAEMON_SET, "log")["updatedNumberScheduled"],
            3
        );
        // One that fails is made anew.
        let name = world.names(&POD)[0].clone();
        world.patch(&POD, &name, json!({"status": {"phase": "Failed"}}));
        world.settle();
        assert!(world.get(&POD, &name).is_null());
        assert_eq!(world.available_pods(), 3);
    }
}

#[test]
fn a_namespace_with_workloads_ends() {
    let mut world = World::new(8);
    world.create(&NODE, node_object("n0"));
    world.create(&NAMESPACE, namespace("shop"));
    for (kind, mut object) in [
        (&STATEFUL_SET, stateful_set(2)),
        (&DAEMON_SET, daemon_set()),
    ] {
        object["metadata"]["namespace"] = json!("shop");
        world.create(kind, object);
    }
    world.run(2_000, |_| {});
    world.delete(&NAMESPACE, "shop", Propagation::Background);
    world.live(120, &[]);
    assert!(world.get(&NAMESPACE, "shop").is_null());
}
