//! Endpoints: which pods are behind a Service, how they are cut into slices, and which workloads they are of.

use serde_json::{Value, json};
use weft_controllers::write::Propagation;
use weft_kinds::{DEPLOYMENT, ENDPOINT_SLICE, NODE, POD, SERVICE};

use crate::manifests::{deployment, node_object, pod, service};
use crate::world::World;

fn endpoints(world: &World) -> String {
    let slices = world.all(&ENDPOINT_SLICE).into_iter().map(|slice| {
        let ports = slice["ports"].as_array().cloned().unwrap_or_default();
        let ports: Vec<String> = ports.iter().map(|p| p["port"].to_string()).collect();
        let endpoints = slice["endpoints"].as_array().cloned().unwrap_or_default();
        let endpoints: Vec<String> = endpoints
            .iter()
            .map(|endpoint| {
                let c = &endpoint["conditions"];
                format!(
                    "{} ready={} serving={} terminating={}",
                    endpoint["targetRef"]["name"], c["ready"], c["serving"], c["terminating"]
                )
            })
            .collect();
        format!("ports {}: {}", ports.join(","), endpoints.join("; "))
    });
    let mut slices: Vec<String> = slices.collect();
    slices.sort();
    slices.join("\n")
}

#[test]
fn endpoints_follow_pods_and_named_ports() {
    let mut world = World::still();
    world.create(&NODE, node_object("n0"));
    world.create(
        &SERVICE,
        service(
            "web",
            json!([{"name": "http", "port": 80, "targetPort": "http"}]),
        ),
    );
    world.settle();
    assert_eq!(endpoints(&world), "ports : ", "one empty slice");
    world.create(&POD, pod("a", "n0", true, 80));
    world.create(&POD, pod("b", "n0", false, 80));
    world.create(&POD, pod("c", "n0", true, 81));
    world.settle();
    insta::assert_snapshot!(endpoints(&world), @r#"
    ports 80: "a" ready=true serving=true terminating=false; "b" ready=false serving=false terminating=false
    ports 81: "c" ready=true serving=true terminating=false
    "#);
    world.delete(&POD, "a", Propagation::Background);
    world.patch(&POD, "c", json!({"status": {"phase": "Succeeded"}}));
    world.settle();
    insta::assert_snapshot!(endpoints(&world), @r#"ports 80: "a" ready=false serving=true terminating=true; "b" ready=false serving=false terminating=false"#);
}

#[test]
fn long_names_are_cut_and_their_workloads_told_apart() {
    let mut world = World::new(6);
    let long = "a".repeat(240);
    for end in ["-x", "-y"] {
        let mut object = deployment(&format!("{long}{end}"), 1, "x:1");
        let labels = json!({"app": "web"});
        object["spec"]["selector"]["matchLabels"] = labels.clone();
        object["spec"]["template"]["metadata"]["labels"] = labels;
        world.create(&DEPLOYMENT, object);
    }
    world.create(&DEPLOYMENT, deployment("short", 1, "x:1"));
    world.create(&SERVICE, service("web", json!([{"port": 80}])));
    world.create(&SERVICE, service("short", json!([{"port": 80}])));
    world.settle();
    let names: Vec<&str> = world
        .all(&POD)
        .into_iter()
        .map(|pod| pod["metadata"]["name"].as_str().unwrap())
        .collect();
    assert_eq!(names.len(), 3);
    assert!(names.iter().all(|name| name.len() <= 63), "{names:?}");
    for slice in world.all(&ENDPOINT_SLICE) {
        let told = &slice["metadata"]["annotations"]["weft.dev/workloads"];
        if slice["metadata"]["labels"]["kubernetes.io/service-name"] == "short" {
            assert_eq!(*told, Value::Null, "its pod's name tells it");
            continue;
        }
        let told: std::collections::BTreeMap<String, String> =
            serde_json::from_str(told.as_str().unwrap()).unwrap();
        let mut workloads: Vec<&String> = told.values().collect();
        workloads.sort();
        assert_eq!(workloads, [&format!("{long}-x"), &format!("{long}-y")]);
    }
}

#[test]
fn slices_hold_a_hundred_and_change_alone() {
    let mut world = World::still();
    world.create(&NODE, node_object("n0"));
    world.create(&SERVICE, service("web", json!([{"port": 80}])));
    for number in 0..250 {
        let mut pod = pod(&format!("p{number}"), "n0", true, 80);
        let address = format!("10.42.{}.{}", number / 200, number % 200 + 1);
        pod["status"]["podIP"] = json!(address);
        pod["status"]["podIPs"] = json!([{"ip": address}]);
        world.create(&POD, pod);
    }
    world.settle();
    let sizes = |world: &World| -> Vec<usize> {
        let slices = world.all(&ENDPOINT_SLICE).into_iter();
        let mut sizes: Vec<usize> = slices
            .map(|s| s["endpoints"].as_array().map_or(0, Vec::len))
            .collect();
        sizes.sort_unstable();
        sizes
    };
    assert_eq!(sizes(&world).iter().sum::<usize>(), 250);
    assert!(sizes(&world).iter().all(|size| *size <= 100));
    world.tell();
    world.delete(&POD, "p17", Propagation::Background);
    world.settle();
    let story = world.tell();
    let slices = story
        .lines()
        .filter(|line| line.contains(" endpointslices "));
    assert_eq!(slices.count(), 1, "one slice is written: {story}");
}
