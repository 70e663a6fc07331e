//! What stands behind Services, in the form before EndpointSlices and in the slices of what is made by hand.

use serde_json::{Value, json};
use weft_controllers::write::Propagation;
use weft_kinds::{ENDPOINT_SLICE, ENDPOINTS, NODE, POD, SERVICE};

use crate::manifests::node_object;
use crate::world::World;

fn service(spec: Value) -> Value {
    let mut spec = spec;
    spec["clusterIP"] = json!("10.43.0.9");
    json!({"metadata": {"name": "web", "namespace": "default", "labels": {"team": "a"}}, "spec": spec})
}

fn pod(name: &str, address: &str, ready: bool) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "default", "labels": {"app": "web"}},
        "spec": {"nodeName": "n0", "containers": [
            {"name": "main", "image": "x:1", "ports": [{"name": "http", "containerPort": 8080}]}]},
        "status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}], "conditions": [
            {"type": "Ready", "status": if ready { "True" } else { "False" }, "lastTransitionTime": "2025-12-31T23:00:00Z"}]},
    })
}

/// A world with one node, which does nothing by itself.
fn still() -> World {
    let mut world = World::still();
    world.create(&NODE, node_object("n0"));
    world
}

/// Addresses that are ready and those that are not, with the ports of each subset.
fn subsets(world: &World) -> Vec<String> {
    let subsets = world.get(&ENDPOINTS, "web")["subsets"].as_array().cloned();
    let list = |subset: &Value, field: &str, member: &str| {
        let all = subset[field].as_array().into_iter().flatten();
        all.map(|one| one[member].to_string().replace('"', ""))
            .collect::<Vec<_>>()
            .join(",")
    };
    let shown = subsets.unwrap_or_default().into_iter().map(|subset| {
        format!(
            "{}|{} @ {}",
            list(&subset, "addresses", "ip"),
            list(&subset, "notReadyAddresses", "ip"),
            list(&subset, "ports", "port")
        )
    });
    shown.collect()
}

/// Mirrored slices as `family ports: addresses`.
fn mirrored(world: &World) -> Vec<String> {
    let slices = world.all(&ENDPOINT_SLICE).into_iter().filter(|slice| {
        slice["metadata"]["labels"]["endpointslice.kubernetes.io/managed-by"]
            == "endpointslicemirroring-controller.k8s.io"
    });
    let mut shown: Vec<String> = slices
        .map(|slice| {
            let ports = slice["ports"].as_array().into_iter().flatten();
            let ports: Vec<String> = ports.map(|port| port["port"].to_string()).collect();
            let endpoints = slice["endpoints"].as_array().into_iter().flatten();
            let endpoints: Vec<String> = endpoints
                .map(|one| {
                    let ready = &one["conditions"]["ready"];
                    format!("{} {ready}", one["addresses"][0].as_str().unwrap())
                })
                .collect();
            let family = slice["addressType"].as_str().unwrap();
            format!("{family} {}: {}", ports.join(","), endpoints.join(", "))
        })
        .collect();
    shown.sort();
    shown
}

#[test]
fn endpoints_follow_pods() {
    let mut world = still();
    let ports =
        json!([{"name": "http", "port": 80, "targetPort": "http"}, {"name": "raw", "port": 81}]);
    world.create(
        &SERVICE,
        service(json!({"selector": {"app": "web"}, "ports": ports})),
    );
    world.settle();
    let empty = world.get(&ENDPOINTS, "web");
    assert_eq!(
        empty["metadata"]["labels"],
        json!({"team": "a", "endpoints.kubernetes.io/managed-by": "endpoint-controller"})
    );
    assert_eq!(subsets(&world), [""; 0], "there, and without anybody");
    world.create(&POD, pod("b", "10.42.0.2", true));
    world.create(&POD, pod("a", "10.42.0.10", true));
    world.create(&POD, pod("c", "10.42.0.3", false));
    world.settle();
    assert_eq!(
        subsets(&world),
        ["10.42.0.10,10.42.0.2|10.42.0.3 @ 8080,81"]
    );
    let address = &world.get(&ENDPOINTS, "web")["subsets"][0]["addresses"][0];
    assert_eq!(address["targetRef"]["name"], "a");
    assert_eq!(address["nodeName"], "n0");
    world.delete(&POD, "a", Propagation::Background);
    world.settle();
    assert_eq!(subsets(&world), ["10.42.0.2|10.42.0.3 @ 8080,81"]);
    world.patch(
        &SERVICE,
        "web",
        json!({"spec": {"publishNotReadyAddresses": true}, "metadata": {"labels": {"team": "b"}}}),
    );
    world.settle();
    assert_eq!(
        subsets(&world),
        ["10.42.0.10,10.42.0.2,10.42.0.3| @ 8080,81"]
    );
    assert_eq!(
        world.get(&ENDPOINTS, "web")["metadata"]["labels"]["team"],
        "b"
    );
    // Whoever takes them away, they come back, and go with the Service.
    world.delete(&ENDPOINTS, "web", Propagation::Background);
    world.settle();
    assert_eq!(subsets(&world).len(), 1);
    assert_eq!(
        mirrored(&world),
        [""; 0],
        "made slices are nobody's to mirror"
    );
    world.delete(&SERVICE, "web", Propagation::Background);
    world.settle();
    assert!(world.get(&ENDPOINTS, "web").is_null());
    let web = world
        .all(&ENDPOINT_SLICE)
        .into_iter()
        .filter(|slice| slice["metadata"]["labels"]["kubernetes.io/service-name"] == "web");
    assert_eq!(web.count(), 0);
}

#[test]
fn readiness_is_one_thing_and_being_told_another() {
    let mut world = still();
    let spec = json!({"selector": {"app": "web"}, "ports": [{"port": 80}], "publishNotReadyAddresses": true,
        "trafficDistribution": "PreferSameZone"});
    world.patch(
        &NODE,
        "n0",
        json!({"metadata": {"labels": {"topology.kubernetes.io/zone": "z1"}}}),
    );
    world.create(&SERVICE, service(spec));
    world.create(&POD, pod("a", "10.42.0.2", false));
    world.settle();
    let slice = |world: &World| {
        let mut slices = world.all(&ENDPOINT_SLICE).into_iter();
        let found = slices.find(|slice| slice["metadata"]["generateName"] == "web-");
        found.unwrap()["endpoints"][0].clone()
    };
    let endpoint = slice(&world);
    assert_eq!(
        endpoint["conditions"],
        json!({"ready": true, "serving": false, "terminating": false})
    );
    assert_eq!(endpoint["zone"], "z1");
    assert_eq!(endpoint["hints"], json!({"forZones": [{"name": "z1"}]}));
    world.delete(&POD, "a", Propagation::Background);
    world.patch(
        &SERVICE,
        "web",
        json!({"spec": {"publishNotReadyAddresses": false, "trafficDistribution": null}}),
    );
    world.settle();
    let endpoint = slice(&world);
    assert_eq!(
        endpoint["conditions"],
        json!({"ready": false, "serving": false, "terminating": true})
    );
    assert_eq!(endpoint["hints"], Value::Null);
}

#[test]
fn endpoints_made_by_hand_are_mirrored() {
    let mut world = still();
    let subset = |ips: &[&str], port: i64| {
        let ips: Vec<Value> = ips.iter().map(|ip| json!({"ip": ip})).collect();
        json!({"addresses": ips, "ports": [{"name": "p", "port": port}]})
    };
    world.create(
        &ENDPOINTS,
        json!({"metadata": {"name": "web", "namespace": "default", "labels": {"own": "x"}},
            "subsets": [subset(&["10.1.2.3"], 80)]}),
    );
    world.settle();
    assert_eq!(mirrored(&world), [""; 0], "of no Service");
    world.create(&SERVICE, service(json!({"ports": [{"port": 80}]})));
    world.settle();
    assert_eq!(mirrored(&world), ["IPv4 80: 10.1.2.3 true"]);
    let slices = world.all(&ENDPOINT_SLICE).into_iter();
    let name = slices
        .filter_map(|slice| slice["metadata"]["name"].as_str())
        .find(|name| name.starts_with("web-"))
        .unwrap()
        .to_owned();
    let slice = world.get(&ENDPOINT_SLICE, &name);
    assert_eq!(slice["metadata"]["labels"]["own"], "x");
    assert_eq!(slice["metadata"]["ownerReferences"][0]["kind"], "Endpoints");
    // The same slice, with what it should hold now; another family is another slice.
    world.patch(
        &ENDPOINTS,
        "web",
        json!({"subsets": [subset(&["10.1.2.4", "fd00::1"], 90)]}),
    );
    world.settle();
    assert_eq!(
        mirrored(&world),
        ["IPv4 90: 10.1.2.4 true", "IPv6 90: fd00::1 true"]
    );
    assert!(!world.get(&ENDPOINT_SLICE, &name).is_null());
    let skip = |text: Value| json!({"metadata": {"labels": {"endpointslice.kubernetes.io/skip-mirror": text}}});
    world.patch(&ENDPOINTS, "web", skip(json!("true")));
    world.settle();
    assert_eq!(mirrored(&world), [""; 0]);
    world.patch(&ENDPOINTS, "web", skip(Value::Null));
    world.settle();
    assert_eq!(mirrored(&world).len(), 2);
    world.delete(&ENDPOINTS, "web", Propagation::Background);
    world.settle();
    assert_eq!(mirrored(&world), [""; 0]);
}
