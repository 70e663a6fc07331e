//! Whole controllers in a world without clock or network: writes go back into the view until nothing is left to do.
//!
//! The informer's stream lags behind the writes by a random amount; only the answers of the controllers' own writes
//! are in the view at once. A failure prints its seed; `WEFT_SEED=17` replays one world.

use serde_json::json;
use weft_kinds::{DEPLOYMENT, POD, REPLICA_SET};

use crate::manifests::deployment;
use crate::world::World;

fn seeds(count: u64) -> Vec<u64> {
    match std::env::var("WEFT_SEED") {
        Ok(seed) => vec![seed.parse().expect("WEFT_SEED is a number")],
        Err(_) => (0..count).collect(),
    }
}

/// `(replicas, maxSurge, maxUnavailable)` and what they come to: pods at most, pods available at least.
fn fences(seed: u64) -> (i64, serde_json::Value, serde_json::Value, i64, i64) {
    match seed % 5 {
        0 => (3, json!("25%"), json!("25%"), 4, 3),
        1 => (10, json!("25%"), json!("25%"), 13, 8),
        2 => (5, json!(0), json!(1), 5, 4),
        3 => (4, json!("100%"), json!(0), 8, 4),
        _ => (7, json!(2), json!("50%"), 9, 4),
    }
}

#[test]
fn a_rolling_update_keeps_its_fences() {
    for seed in seeds(100) {
        let (replicas, surge, unavailable, most, fewest) = fences(seed);
        let mut world = World::new(seed);
        let mut object = deployment("web", replicas, "x:1");
        object["spec"]["strategy"]["rollingUpdate"] =
            json!({"maxSurge": surge, "maxUnavailable": unavailable});
        world.create(&DEPLOYMENT, object);
        world.settle();
        assert_eq!(world.available_pods(), replicas, "WEFT_SEED={seed}");

        let check = |world: &World| {
            let sizes = world.sum(&REPLICA_SET, "/spec/replicas");
            assert!(
                sizes <= most,
                "WEFT_SEED={seed}: sets of {sizes}, at most {most}"
            );
            let available = world.available_pods();
            assert!(
                available >= fewest,
                "WEFT_SEED={seed}: {available} available, at least {fewest}"
            );
        };
        world.patch(
            &DEPLOYMENT,
            "web",
            json!({"spec": {"template": {"spec":
            {"containers": [{"name": "main", "image": "x:2"}]}}}}),
        );
        // Half of the worlds change their mind in the middle.
        let turns = if seed % 2 == 0 { 40 } else { 10_000 };
        world.run(turns, check);
        if seed % 2 == 0 {
            world.patch(
                &DEPLOYMENT,
                "web",
                json!({"spec": {"template": {"spec":
                {"containers": [{"name": "main", "image": "x:3"}]}}}}),
            );
            world.run(10_000, check);
        }
        let image = if seed % 2 == 0 { "x:3" } else { "x:2" };
        let status = world.get(&DEPLOYMENT, "web")["status"].clone();
        assert_eq!(
            status["updatedReplicas"], replicas,
            "WEFT_SEED={seed} {status}"
        );
        assert_eq!(status["availableReplicas"], replicas, "WEFT_SEED={seed}");
        for pod in world.all(&POD) {
            assert_eq!(
                pod["spec"]["containers"][0]["image"], image,
                "WEFT_SEED={seed}"
            );
        }
        let progressing = &status["conditions"][1];
        assert_eq!(progressing["type"], "Progressing", "WEFT_SEED={seed}");
        assert_eq!(
            progressing["reason"], "NewReplicaSetAvailable",
            "WEFT_SEED={seed}"
        );
    }
}

#[test]
fn no_pod_is_created_twice_however_late_the_news() {
    for seed in seeds(100) {
        let mut world = World::new(seed);
        world.create(&DEPLOYMENT, deployment("web", 20, "x:1"));
        world.run(10_000, |world| {
            let pods = world.all(&POD).len();
            assert!(pods <= 20, "WEFT_SEED={seed}: {pods} pods");
        });
        world.patch(&DEPLOYMENT, "web", json!({"spec": {"replicas": 4}}));
        world.run(10_000, |world| {
            let left = world.live_pods();
            assert!(left >= 4, "WEFT_SEED={seed}: {left} pods");
        });
        assert_eq!(world.live_pods(), 4, "WEFT_SEED={seed}");
    }
}

#[test]
fn undo_gives_the_old_set_the_newest_revision() {
    let mut world = World::new(1);
    world.create(&DEPLOYMENT, deployment("web", 2, "x:1"));
    world.settle();
    for image in ["x:2", "x:1"] {
        world.patch(
            &DEPLOYMENT,
            "web",
            json!({"spec": {"template": {"spec":
            {"containers": [{"name": "main", "image": image}]}}}}),
        );
        world.settle();
    }
    let mut sets: Vec<String> = world
        .all(&REPLICA_SET)
        .iter()
        .map(|set| {
            let annotations = &set["metadata"]["annotations"];
            format!(
                "{} revision {} history {} size {}",
                set["spec"]["template"]["spec"]["containers"][0]["image"],
                annotations["deployment.kubernetes.io/revision"],
                annotations["deployment.kubernetes.io/revision-history"],
                set["spec"]["replicas"],
            )
        })
        .collect();
    sets.sort();
    let revision = &world.get(&DEPLOYMENT, "web")["metadata"]["annotations"]["deployment.kubernetes.io/revision"];
    insta::assert_snapshot!(format!("{}\ndeployment {revision}", sets.join("\n")), @r#"
    "x:1" revision "3" history "1" size 2
    "x:2" revision "2" history null size 0
    deployment "3"
    "#);
}

#[test]
fn scaling_in_the_middle_is_shared_out_and_recreate_leaves_no_overlap() {
    for seed in seeds(40) {
        let mut world = World::new(seed);
        world.create(&DEPLOYMENT, deployment("web", 10, "x:1"));
        world.settle();
        world.patch(
            &DEPLOYMENT,
            "web",
            json!({"spec": {"template": {"spec":
            {"containers": [{"name": "main", "image": "x:2"}]}}}}),
        );
        world.run(25, |_| {});
        world.patch(&DEPLOYMENT, "web", json!({"spec": {"replicas": 20}}));
        world.settle();
        assert_eq!(world.available_pods(), 20, "WEFT_SEED={seed}");

        world.patch(
            &DEPLOYMENT,
            "web",
            json!({"spec": {
            "strategy": {"type": "Recreate", "rollingUpdate": null}, "replicas": 3}}),
        );
        world.settle();
        world.patch(
            &DEPLOYMENT,
            "web",
            json!({"spec": {"template": {"spec":
            {"containers": [{"name": "main", "image": "x:3"}]}}}}),
        );
        world.run(10_000, |world| {
            let mut images: Vec<String> = world
                .all(&POD)
                .iter()
                .map(|pod| pod["spec"]["containers"][0]["image"].to_string())
                .collect();
            images.sort();
            images.dedup();
            assert!(images.len() <= 1, "WEFT_SEED={seed}: {images:?} at once");
        });
        assert_eq!(world.available_pods(), 3, "WEFT_SEED={seed}");
    }
}

#[test]
fn a_rollout_that_hangs_says_so() {
    let mut world = World::new(3);
    world.create_nodes();
    world.create(&DEPLOYMENT, deployment("web", 2, "x:1"));
    world.settle();
    world.agents = false;
    world.patch(
        &DEPLOYMENT,
        "web",
        json!({"spec": {"progressDeadlineSeconds": 60, "template":
        {"spec": {"containers": [{"name": "main", "image": "x:2"}]}}}}),
    );
    world.settle();
    world.live(62, &["n0", "n1", "n2"]);
    let conditions = world.get(&DEPLOYMENT, "web")["status"]["conditions"].clone();
    let progressing = conditions
        .as_array()
        .and_then(|all| all.iter().find(|c| c["type"] == "Progressing"))
        .cloned()
        .unwrap_or_default();
    assert_eq!(
        progressing["reason"], "ProgressDeadlineExceeded",
        "{conditions}"
    );
    assert_eq!(progressing["status"], "False");
    assert_eq!(world.available_pods(), 2, "the old pods go on serving");
}
