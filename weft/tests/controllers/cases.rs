//! One small situation each: what is there, what is written.

use std::sync::Arc;

use serde_json::{Value, json};
use weft_controllers::write::Propagation;
use weft_kinds::{
    AUTHORIZATION_POLICY, CAPABILITY_GRANT, CLUSTER_ROLE, CONFIG_MAP, CUSTOM_RESOURCE_DEFINITION,
    DEPLOYMENT, ENDPOINT_SLICE, EVENT, GATEWAY, GATEWAY_CLASS, HTTP_ROUTE, KEY_VALUE_STORE, Kind,
    LEASE, NAMESPACE, NODE, PEER_AUTHENTICATION, POD, REPLICA_SET, Registry, SECRET, SERVICE,
    SERVICE_ACCOUNT, TCP_ROUTE, TLS_ROUTE, UDP_ROUTE, X_MESH,
};

use crate::world::{World, deployment, namespace, node_object};

fn service(name: &str, ports: Value) -> Value {
    let address = if name == "web" {
        "10.43.0.9"
    } else {
        "10.43.0.10"
    };
    json!({
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"selector": {"app": name}, "ports": ports, "clusterIP": address},
    })
}

fn pod(name: &str, node: &str, ready: bool, port: i64) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "default", "labels": {"app": "web"}},
        "spec": {"nodeName": node, "containers": [
            {"name": "main", "image": "x:1", "ports": [{"name": "http", "containerPort": port}]}]},
        "status": {"phase": "Running", "podIP": format!("10.42.0.{port}"),
            "podIPs": [{"ip": format!("10.42.0.{port}")}], "conditions": [
            {"type": "Ready", "status": if ready { "True" } else { "False" },
             "lastTransitionTime": "2025-12-31T23:00:00Z"}]},
    })
}

/// A world whose nodes do nothing by themselves.
fn still() -> World {
    let mut world = World::new(1);
    world.agents = false;
    world
}

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
    let mut world = still();
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
    let mut world = still();
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

#[test]
fn a_namespace_is_furnished_and_ends_pods_first() {
    let mut world = still();
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
fn pods_that_are_refused_show_in_the_conditions_until_they_are_not() {
    let mut world = still();
    let mut object = deployment("web", 2, "x:1");
    object["spec"]["template"]["spec"]["serviceAccountName"] = json!("web");
    world.create(&DEPLOYMENT, object);
    world.settle();
    // The first refusal ends the list before the status; the next look, a second later, tells first.
    world.pass_time(1);
    world.settle();
    let failure = |world: &World, kind, name: &str| {
        let conditions = world.get(kind, name)["status"]["conditions"].clone();
        let conditions = conditions.as_array().cloned().unwrap_or_default();
        let found = conditions
            .into_iter()
            .find(|c| c["type"] == "ReplicaFailure");
        found.map(|c| format!("{} {} {}", c["status"], c["reason"], c["message"]))
    };
    let set = world.names(&REPLICA_SET)[0].clone();
    let told = failure(&world, &REPLICA_SET, &set).unwrap();
    assert!(
        told.starts_with(r#""True" "FailedCreate" "pods "#),
        "{told}"
    );
    let why = r#"is forbidden: error looking up service account default/web: serviceaccount \"web\" not found"#;
    assert!(told.contains(why), "{told}");
    assert_eq!(failure(&world, &DEPLOYMENT, "web"), Some(told));
    assert!(
        world
            .tell()
            .contains("event FailedCreate Error creating: pods ")
    );
    let status = &world.get(&REPLICA_SET, &set)["status"];
    assert_eq!(status["observedGeneration"], 1);

    let account = json!({"metadata": {"name": "web", "namespace": "default"}});
    world.create(&SERVICE_ACCOUNT, account);
    world.pass_time(1);
    world.settle();
    assert_eq!(world.live_pods(), 2);
    assert_eq!(failure(&world, &REPLICA_SET, &set), None);
    assert_eq!(failure(&world, &DEPLOYMENT, "web"), None);
}

#[test]
fn an_object_with_a_living_owner_only_loses_the_dead_one() {
    let mut world = still();
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

#[test]
fn pods_of_a_silent_node_are_replaced_within_ten_seconds() {
    let mut world = World::new(5);
    world.create_nodes();
    world.create(&DEPLOYMENT, deployment("web", 6, "x:1"));
    world.settle();
    let on = |world: &World, node: &str| {
        let pods = world.all(&POD).into_iter();
        pods.filter(|p| {
            p["spec"]["nodeName"] == node && p["metadata"]["deletionTimestamp"].is_null()
        })
        .count()
    };
    assert!(on(&world, "n0") > 0);
    // Nothing of n0 moves any more: no agent, no lease. The others renew.
    world.agents = false;
    let mut replaced_at = None;
    for second in 1..=12_i64 {
        world.live(1, &["n1", "n2"]);
        if replaced_at.is_none() && on(&world, "n0") == 0 {
            replaced_at = Some(second);
        }
    }
    assert_eq!(replaced_at, Some(10));
    assert_eq!(world.live_pods(), 6, "the set made new ones");
    let taints = &world.get(&NODE, "n0")["spec"]["taints"];
    assert_eq!(
        taints[0]["key"], "node.kubernetes.io/unreachable",
        "{taints}"
    );
    assert_eq!(taints[1]["effect"], "NoExecute", "{taints}");
    assert!(world.tell().contains("Node n0 status is now: NodeNotReady"));
}

#[test]
fn a_pod_stays_as_long_as_it_asked_to() {
    let mut world = still();
    let mut node = node_object("n0");
    node["spec"]["taints"] = json!([{"key": "node.kubernetes.io/unreachable", "effect": "NoExecute",
        "timeAdded": "2026-01-01T00:00:00Z"}]);
    node["status"]["conditions"][0]["status"] = json!("Unknown");
    world.create(&NODE, node);
    // Another one is heard, so the silence is n0's own.
    world.create(&NODE, node_object("n1"));
    let lease = json!({"metadata": {"name": "n1", "namespace": "kube-node-lease"}});
    world.create(&LEASE, lease);
    let mut patient = pod("patient", "n0", false, 80);
    patient["spec"]["tolerations"] = json!([{"key": "node.kubernetes.io/unreachable",
        "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 60}]);
    world.create(&POD, patient);
    let mut rock = pod("rock", "n0", false, 80);
    rock["spec"]["tolerations"] = json!([{"operator": "Exists"}]);
    world.create(&POD, rock);
    world.create(&POD, pod("plain", "n0", false, 81));
    let deleted = |world: &mut World| -> String {
        let story = world.tell();
        let lines = story.lines().filter(|line| line.starts_with("delete"));
        lines.collect::<Vec<_>>().join("\n")
    };
    world.settle();
    assert_eq!(deleted(&mut world), "");
    world.live(12, &["n1"]);
    assert_eq!(deleted(&mut world), "delete pods default/plain");
    world.live(60, &["n1"]);
    assert_eq!(deleted(&mut world), "delete pods default/patient");
}

#[test]
fn losing_most_nodes_at_once_holds_evictions_back() {
    let mut world = World::new(8);
    for node in ["n0", "n1", "n2"] {
        world.create(&NODE, node_object(node));
    }
    world.create(&DEPLOYMENT, deployment("web", 6, "x:1"));
    world.settle();
    world.agents = false;
    let before: Vec<String> = world
        .all(&POD)
        .iter()
        .map(|p| p["metadata"]["name"].to_string())
        .collect();
    for _ in 0..20 {
        world.pass_time(1);
        world.settle();
    }
    let now: Vec<String> = world
        .all(&POD)
        .iter()
        .map(|p| p["metadata"]["name"].to_string())
        .collect();
    assert_eq!(before, now, "all three are silent: nothing is evicted yet");
}

#[test]
fn pods_of_a_node_that_is_gone_go_at_once() {
    let mut world = still();
    world.create(&NODE, node_object("n0"));
    world.create(&POD, pod("a", "n0", true, 80));
    world.settle();
    world.delete(&NODE, "n0", Propagation::Background);
    world.settle();
    world.pass_time(9);
    world.settle();
    let story = world.tell();
    let lines: Vec<&str> = story
        .lines()
        .map(|line| line.split_once(" {").map_or(line, |(what, _)| what))
        .collect();
    // The node cannot say any more how its pod ended.
    let expected = ["patch pods/status default/a", "delete pods default/a now"];
    assert_eq!(lines, expected, "{story}");
    for word in ["\"phase\":\"Failed\"", "PodGC: node no longer exists"] {
        assert!(story.contains(word), "{story}");
    }
}

#[test]
fn nodes_get_distinct_ranges() {
    let mut world = still();
    let range = |cidr: &str| json!({"podCIDR": cidr, "podCIDRs": [cidr]});
    for name in ["a", "b", "c", "d"] {
        let mut node = node_object(name);
        node["spec"] = match name {
            // From a version that gave each node 253 addresses: it stays as it is.
            "b" => range("10.42.0.0/24"),
            // Asked for with --pod-cidr, inside of what would be the second range.
            "c" => range("10.128.200.0/22"),
            _ => json!({}),
        };
        world.create(&NODE, node);
    }
    world.settle();
    let ranges: Vec<&Value> = world
        .all(&NODE)
        .into_iter()
        .map(|n| &n["spec"]["podCIDR"])
        .collect();
    assert_eq!(
        ranges,
        [
            "10.128.0.0/17",
            "10.42.0.0/24",
            "10.128.200.0/22",
            "10.129.0.0/17"
        ]
    );
}

#[test]
fn routes_say_what_became_of_them() {
    let mut world = still();
    world.define_gateway_api();
    world.seed_controllers();
    world.create(&NODE, node_object("n0"));
    world.create(&SERVICE, service("web", json!([{"port": 80}])));
    world.create(
        &GATEWAY,
        json!({
            "metadata": {"name": "public", "namespace": "default"},
            "spec": {"gatewayClassName": "weft", "listeners": [
                {"name": "http", "port": 80, "protocol": "HTTP", "hostname": "*.example.com"},
                {"name": "tls", "port": 443, "protocol": "HTTPS"}]},
        }),
    );
    for (name, host, backend, section) in [
        ("good", "a.example.com", "web", "http"),
        ("lost", "a.example.com", "nobody", "http"),
        ("stranger", "other.org", "web", "http"),
        ("nowhere", "a.example.com", "web", "grpc"),
    ] {
        world.create(&HTTP_ROUTE, json!({
            "metadata": {"name": name, "namespace": "default"},
            "spec": {"hostnames": [host], "parentRefs": [{"name": "public", "sectionName": section}],
                "rules": [{"backendRefs": [{"name": backend, "port": 80}]}]},
        }));
    }
    world.settle();
    let told = world.all(&HTTP_ROUTE).into_iter().map(|route| {
        let conditions = route["status"]["parents"][0]["conditions"]
            .as_array()
            .cloned();
        let conditions: Vec<String> = conditions
            .unwrap_or_default()
            .iter()
            .map(|c| format!("{}={} {}", c["type"], c["status"], c["reason"]))
            .collect();
        format!("{}: {}", route["metadata"]["name"], conditions.join(", "))
    });
    insta::assert_snapshot!(told.collect::<Vec<_>>().join("\n").replace('"', ""), @r"
    good: Accepted=True Accepted, ResolvedRefs=True ResolvedRefs
    lost: Accepted=True Accepted, ResolvedRefs=False BackendNotFound
    nowhere: Accepted=False NoMatchingParent, ResolvedRefs=True ResolvedRefs
    stranger: Accepted=False NoMatchingListenerHostname, ResolvedRefs=True ResolvedRefs
    ");
    let gateway = &world.get(&GATEWAY, "public")["status"];
    let listener = &gateway["listeners"][0];
    assert_eq!(listener["attachedRoutes"], 2, "{gateway}");
    assert_eq!(
        gateway["listeners"][1]["conditions"][0]["reason"],
        "UnsupportedProtocol"
    );
    assert_eq!(gateway["addresses"][0]["value"], "127.0.0.1");
    assert_eq!(gateway["conditions"][1]["status"], "True", "{gateway}");
}

/// The kinds of the Gateway API are custom kinds: users take their definitions away, and others of other versions take their place.
#[test]
fn what_a_definition_takes_with_it_comes_back_with_the_next() {
    let mut world = still();
    world.define_gateway_api();
    world.seed_controllers();
    world.create(
        &GATEWAY,
        json!({
            "metadata": {"name": "web", "namespace": "default"},
            "spec": {
                "gatewayClassName": "weft", "listeners": [{"name": "http", "port": 80, "protocol": "HTTP"}],
                "infrastructure": {"labels": {"team": "shop"}, "annotations": {"note": "x"}},
            },
        }),
    );
    world.settle();
    let service = world.get(&SERVICE, "web-weft");
    let metadata = &service["metadata"];
    assert_eq!(
        metadata["labels"],
        json!({"team": "shop", "gateway.networking.k8s.io/gateway-name": "web"})
    );
    assert_eq!(metadata["annotations"], json!({"note": "x"}));
    assert_eq!(metadata["ownerReferences"][0]["name"], "web");
    assert_eq!(service["spec"]["ports"][0]["port"], 80);
    let told = |world: &World, kind: &Arc<Kind>, name: &str| {
        let conditions = world.get(kind, name)["status"]["conditions"].clone();
        let conditions = conditions.as_array().cloned().unwrap_or_default();
        let told = conditions.iter().map(|c| {
            let (kind, status) = (c["type"].as_str(), c["status"].as_str());
            format!("{}={}", kind.unwrap_or(""), status.unwrap_or(""))
        });
        told.collect::<Vec<_>>().join(" ")
    };
    let class = |world: &World| told(world, &GATEWAY_CLASS, "weft");
    assert_eq!(class(&world), "Accepted=True SupportedVersion=True");
    let features = world.get(&GATEWAY_CLASS, "weft")["status"]["supportedFeatures"].clone();
    let features: Vec<&str> = features
        .as_array()
        .unwrap()
        .iter()
        .map(|feature| feature["name"].as_str().unwrap())
        .collect();
    assert!(features.contains(&"HTTPRouteMethodMatching"));
    assert!(features.is_sorted(), "{features:?}");
    let mesh = world.get(&X_MESH, "weft");
    let features: Vec<&str> = mesh["status"]["supportedFeatures"]
        .as_array()
        .unwrap()
        .iter()
        .map(|feature| feature["name"].as_str().unwrap())
        .collect();
    assert!(features.contains(&"MeshConsumerRoute"));
    assert!(features.is_sorted(), "{features:?}");
    assert_eq!(told(&world, &X_MESH, "weft"), "Accepted=True");
    // Another's is not judged, and ours comes back.
    world.create(
        &X_MESH,
        json!({"metadata": {"name": "other"}, "spec": {"controllerName": "other.dev/mesh"}}),
    );
    world.delete(&X_MESH, "weft", Propagation::Background);
    world.settle();
    assert_eq!(told(&world, &X_MESH, "other"), "Accepted=Unknown");
    assert_eq!(told(&world, &X_MESH, "weft"), "Accepted=True");
    let accepted = told(&world, &GATEWAY, "web");
    assert!(accepted.starts_with("Accepted=True"), "{accepted}");

    let definition = "gatewayclasses.gateway.networking.k8s.io";
    world.delete(
        &CUSTOM_RESOURCE_DEFINITION,
        definition,
        Propagation::Background,
    );
    world.settle();
    world.tend_definitions();
    world.settle();
    assert_eq!(world.names(&GATEWAY_CLASS), [""; 0]);
    assert_eq!(
        *world.get(&CUSTOM_RESOURCE_DEFINITION, definition),
        json!(null)
    );

    let mut newer = weft_kinds::gateway_api::definitions()
        .into_iter()
        .find(|one| one["metadata"]["name"] == definition)
        .unwrap();
    let annotations = &mut newer["metadata"]["annotations"];
    annotations["gateway.networking.k8s.io/bundle-version"] = "v1.9.0".into();
    world.create(&CUSTOM_RESOURCE_DEFINITION, newer);
    world.tend_definitions();
    world.settle();
    assert_eq!(class(&world), "Accepted=True SupportedVersion=False");
    assert_eq!(told(&world, &GATEWAY, "web"), accepted);
}

/// Routes of bytes have statuses as those of requests have, and take them back with what they led to.
#[test]
fn routes_of_bytes_are_told_as_others_are() {
    let mut world = still();
    world.define_gateway_api();
    world.seed_controllers();
    let mut node = node_object("n0");
    node["metadata"]["annotations"] = json!({"weft.dev/service-addresses": "192.0.2.0/24"});
    world.create(&NODE, node);
    let ports =
        json!([{"name": "tcp", "port": 80}, {"name": "udp", "port": 53, "protocol": "UDP"}]);
    world.create(&SERVICE, service("web", ports));
    let passthrough = json!({"mode": "Passthrough"});
    world.create(
        &GATEWAY,
        json!({
            "metadata": {"name": "bytes", "namespace": "default"},
            "spec": {"gatewayClassName": "weft", "listeners": [
                {"name": "tls", "port": 443, "protocol": "TLS", "tls": passthrough},
                {"name": "tcp", "port": 81, "protocol": "TCP"},
                {"name": "udp", "port": 81, "protocol": "UDP"},
            ]},
        }),
    );
    let route = |port: u16| {
        json!({
            "metadata": {"name": "r", "namespace": "default"},
            "spec": {"parentRefs": [{"name": "bytes"}], "rules": [{"backendRefs": [{"name": "web", "port": port}]}]},
        })
    };
    let mut tls = route(80);
    tls["spec"]["hostnames"] = json!(["web.test"]);
    world.create(&TLS_ROUTE, tls);
    world.create(&TCP_ROUTE, route(80));
    world.create(&UDP_ROUTE, route(53));
    world.settle();
    let told = |world: &World| {
        let kinds: [&Arc<Kind>; 3] = [&TLS_ROUTE, &TCP_ROUTE, &UDP_ROUTE];
        kinds.map(|kind| {
            let parents = &world.get(kind, "r")["status"]["parents"];
            let conditions = parents[0]["conditions"].as_array().cloned();
            let conditions = conditions.unwrap_or_default();
            let reasons = conditions.iter().filter_map(|c| c["reason"].as_str());
            reasons.collect::<Vec<_>>().join(" ")
        })
    };
    assert_eq!(told(&world), ["Accepted ResolvedRefs"; 3]);
    let listeners = &world.get(&GATEWAY, "bytes")["status"]["listeners"];
    for (at, kind) in ["TLSRoute", "TCPRoute", "UDPRoute"].iter().enumerate() {
        assert_eq!(listeners[at]["attachedRoutes"], 1, "{kind}");
        assert_eq!(listeners[at]["supportedKinds"][0]["kind"], *kind);
    }
    world.delete(&SERVICE, "web", Propagation::Background);
    world.settle();
    assert_eq!(told(&world), ["Accepted BackendNotFound"; 3]);
}

/// Whoever waits for a route to a Service waits for its status, and a Gateway that is not there is told of by an event.
#[test]
fn every_parent_of_a_route_is_told_and_told_anew_when_it_changes() {
    let mut world = still();
    world.define_gateway_api();
    world.seed_controllers();
    world.create(&NODE, node_object("n0"));
    world.create(&SERVICE, service("web", json!([{"port": 80}])));
    world.create(
        &HTTP_ROUTE,
        json!({
            "metadata": {"name": "r", "namespace": "default"},
            "spec": {
                "parentRefs": [{"group": "", "kind": "Service", "name": "web"}, {"name": "later"}],
                "rules": [{"backendRefs": [{"name": "web", "port": 8080}]}],
            },
        }),
    );
    world.settle();
    let told = |world: &World| {
        let parents = world.get(&HTTP_ROUTE, "r")["status"]["parents"].clone();
        let parents = parents.as_array().cloned().unwrap_or_default();
        let told = parents.iter().map(|parent| {
            let conditions = parent["conditions"].as_array().cloned().unwrap_or_default();
            let conditions = conditions
                .iter()
                .map(|c| format!("{}={} {}", c["type"], c["status"], c["message"]));
            format!(
                "{}: {}",
                parent["parentRef"]["name"],
                conditions.collect::<Vec<_>>().join(", ")
            )
        });
        told.collect::<Vec<_>>().join("\n").replace('"', "")
    };
    insta::assert_snapshot!(told(&world), @"web: Accepted=True The route is accepted., ResolvedRefs=False Service default/web has no port 8080; it has 80.");
    assert!(world.tell().contains(
        "event GatewayNotFound parentRefs names Gateway default/later, which does not exist"
    ));
    world.create(
        &GATEWAY,
        json!({
            "metadata": {"name": "later", "namespace": "default"},
            "spec": {"gatewayClassName": "weft", "listeners": [{"name": "http", "port": 80, "protocol": "HTTP"}]},
        }),
    );
    world.patch(
        &SERVICE,
        "web",
        json!({"spec": {"ports": [{"port": 8080}]}}),
    );
    world.patch(
        &NODE,
        "n0",
        json!({"metadata": {"annotations": {"weft.dev/gateway-port": "9080"}}}),
    );
    world.settle();
    insta::assert_snapshot!(told(&world), @r"
    web: Accepted=True The route is accepted., ResolvedRefs=True All references hold.
    later: Accepted=True The route is accepted., ResolvedRefs=True All references hold.
    ");
    let gateway = &world.get(&GATEWAY, "later")["status"];
    assert_eq!(
        gateway["conditions"][1]["message"],
        "1 node answers at port 9080."
    );
    let listener = &gateway["listeners"][0]["conditions"][3];
    let message = listener["message"].as_str().unwrap_or_default();
    assert!(
        message.starts_with("The nodes answer for it at port 9080, not at 80"),
        "{listener}"
    );
    // Nothing is said twice.
    world.tell();
    world.seed_controllers();
    world.settle();
    assert_eq!(world.tell(), "");
}

#[test]
fn events_end_an_hour_after_they_were_written() {
    let mut world = still();
    let event = |name: &str, time: &str| {
        json!({
            "metadata": {"name": name, "namespace": "default"},
            "involvedObject": {"namespace": "default"}, "lastTimestamp": time,
        })
    };
    // Clocks of those who tell may be wrong.
    world.create(&EVENT, event("a", "2000-01-01T00:00:00Z"));
    world.create(&EVENT, event("b", "2099-01-01T00:00:00Z"));
    world.seed_controllers();
    world.settle();
    let mut left = Vec::new();
    let mut after = |world: &mut World, minutes: i64| {
        world.pass_time(minutes * 60);
        world.settle();
        left.push(world.all(&EVENT).len());
    };
    after(&mut world, 31);
    world.patch(&EVENT, "b", json!({"count": 2}));
    world.settle();
    after(&mut world, 30);
    // It was told again half an hour ago.
    after(&mut world, 29);
    after(&mut world, 2);
    world.create(&EVENT, event("c", "2099-01-01T00:00:00Z"));
    after(&mut world, 50);
    // A leader that finds one there knows what it says, and no more.
    world.change_leader();
    after(&mut world, 1);
    after(&mut world, 60);
    assert_eq!(left, [2, 1, 1, 0, 1, 1, 0]);
}

/// What a grant refers to may come and go after it.
#[test]
fn a_grant_tells_what_it_refers_to_and_is_not_there() {
    let mut world = still();
    world.seed_controllers();
    let named = |name: &str| json!({"metadata": {"name": name, "namespace": "default"}});
    world.create(
        &CAPABILITY_GRANT,
        json!({
            "metadata": {"name": "cart", "namespace": "default"},
            "spec": {
                "serviceAccountNames": ["default", "cart"],
                "config": [
                    {"configMapRef": {"name": "settings"}},
                    {"secretRef": {"name": "key"}},
                    {"secretRef": {"name": "spare", "optional": true}},
                ],
                "keyValue": [{"store": "carts"}],
            },
        }),
    );
    let told = |world: &World| {
        let grant = world.get(&CAPABILITY_GRANT, "cart");
        let condition = &grant["status"]["conditions"][0];
        let text = |field: &str| condition[field].as_str().unwrap_or_default().to_owned();
        let missing = text("message").replace(". ", ".\n").replace("} ", "}\n");
        let missing = missing.lines().map(|line| {
            let (what, _) = line.split_once(" does not").unwrap_or((line, ""));
            what.to_owned()
        });
        let missing = missing.collect::<Vec<_>>().join(", ");
        let [kind, status, reason, since] =
            ["type", "status", "reason", "lastTransitionTime"].map(text);
        format!("{kind}={status} {reason} since {since}: {missing}")
    };
    world.settle();
    insta::assert_snapshot!(told(&world), @"ResolvedRefs=False RefNotFound since 2026-01-01T00:00:00Z: ServiceAccount cart, ConfigMap settings, Secret key, KeyValueStore carts");
    world.pass_time(60);
    for (kind, object) in [
        (&SERVICE_ACCOUNT, named("cart")),
        (&CONFIG_MAP, named("settings")),
        (&KEY_VALUE_STORE, named("carts")),
        (&CONFIG_MAP, named("other")),
    ] {
        world.create(kind, object);
    }
    world.settle();
    insta::assert_snapshot!(told(&world), @"ResolvedRefs=False RefNotFound since 2026-01-01T00:00:00Z: Secret key");
    world.create(&SECRET, named("key"));
    world.settle();
    insta::assert_snapshot!(told(&world), @"ResolvedRefs=True ResolvedRefs since 2026-01-01T00:01:00Z: All references hold.");
    world.pass_time(60);
    world.delete(&KEY_VALUE_STORE, "carts", Propagation::Background);
    world.settle();
    insta::assert_snapshot!(told(&world), @"ResolvedRefs=False RefNotFound since 2026-01-01T00:02:00Z: KeyValueStore carts");
    // What it does not refer to any more, it does not miss.
    world.patch(
        &CAPABILITY_GRANT,
        "cart",
        json!({"spec": {"keyValue": null}}),
    );
    world.settle();
    let grant = world.get(&CAPABILITY_GRANT, "cart");
    assert_eq!(
        grant["status"]["conditions"][0]["observedGeneration"],
        grant["metadata"]["generation"]
    );
    insta::assert_snapshot!(told(&world), @"ResolvedRefs=True ResolvedRefs since 2026-01-01T00:02:00Z: All references hold.");
    // Others' conditions stay, and nothing is said twice.
    let other = json!({
        "type": "Reviewed", "status": "True", "reason": "Reviewed", "message": "",
        "lastTransitionTime": "2025-12-31T23:00:00Z",
    });
    let ours = grant["status"]["conditions"][0].clone();
    world.patch(
        &CAPABILITY_GRANT,
        "cart",
        json!({"status": {"conditions": [ours, other]}}),
    );
    world.settle();
    world.delete(&SECRET, "key", Propagation::Background);
    world.settle();
    let conditions = world.get(&CAPABILITY_GRANT, "cart")["status"]["conditions"].clone();
    let kinds: Vec<&Value> = conditions
        .as_array()
        .unwrap()
        .iter()
        .map(|c| &c["type"])
        .collect();
    assert_eq!(kinds, ["Reviewed", "ResolvedRefs"]);
    world.tell();
    world.seed_controllers();
    world.settle();
    assert_eq!(world.tell(), "");
}

#[test]
fn roles_gather_the_rules_of_others() {
    let mut world = still();
    world.seed_controllers();
    let role = |name: &str, label: &str, resources: &[&str]| {
        let rules = resources
            .iter()
            .map(|resource| json!({"apiGroups": [""], "resources": [resource], "verbs": ["get"]}));
        let rules: Vec<Value> = rules.collect();
        json!({"metadata": {"name": name, "labels": {label: "true"}}, "rules": rules})
    };
    let mut all = role("all", "top", &[]);
    all["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": {"to-all": "true"}}]});
    world.create(&CLUSTER_ROLE, role("b", "to-all", &["pods", "secrets"]));
    world.create(&CLUSTER_ROLE, all);
    world.create(&CLUSTER_ROLE, role("a", "to-all", &["services", "pods"]));
    world.create(&CLUSTER_ROLE, role("c", "other", &["nodes"]));
    let gathered = |world: &World| {
        let role = world.get(&CLUSTER_ROLE, "all");
        let rules = role["rules"].as_array().cloned().unwrap_or_default();
        let resources = rules
            .iter()
            .map(|rule| rule["resources"][0].as_str().unwrap().to_owned());
        resources.collect::<Vec<_>>().join(" ")
    };
    world.settle();
    assert_eq!(gathered(&world), "services pods secrets");
    // Whatever is written into it goes, and what its parts say follows.
    world.patch(&CLUSTER_ROLE, "all", json!({"rules": []}));
    world.patch(
        &CLUSTER_ROLE,
        "c",
        json!({"metadata": {"labels": {"to-all": "true"}}}),
    );
    world.settle();
    assert_eq!(gathered(&world), "services pods secrets nodes");
    world.delete(&CLUSTER_ROLE, "a", Propagation::Background);
    world.settle();
    assert_eq!(gathered(&world), "pods secrets nodes");
}

#[test]
fn a_policy_tells_what_of_it_is_not_understood() {
    let mut world = still();
    world.define_gateway_api();
    let policy = |spec: Value| {
        json!({
            "metadata": {"name": "cart", "namespace": "default"},
            "spec": spec,
        })
    };
    let told = |world: &World, kind: &Arc<Kind>| {
        let condition = &world.get(kind, "cart")["status"]["conditions"][0];
        let text = |field: &str| condition[field].as_str().unwrap_or_default().to_owned();
        let [kind, status, reason, message] = ["type", "status", "reason", "message"].map(text);
        format!("{kind}={status} {reason}: {message}")
    };
    world.create(
        &AUTHORIZATION_POLICY,
        policy(json!({"action": "CUSTOM", "provider": {"name": "opa"}, "rules": [{"from": [{"source": {"ipBlocks": ["10.0.0"]}}]}]})),
    );
    world.create(
        &PEER_AUTHENTICATION,
        policy(json!({"mtls": {"mode": "DISABLE"}})),
    );
    world.settle();
    insta::assert_snapshot!(told(&world, &AUTHORIZATION_POLICY), @"Accepted=False Invalid: action CUSTOM is not served: there is no provider to ask, and what meets its rules is denied; bad IP address (10.0.0)");
    insta::assert_snapshot!(told(&world, &PEER_AUTHENTICATION), @"Accepted=False Invalid: mtls: mode DISABLE is not served: calls between nodes are by mutual TLS, always");
    world.patch(
        &AUTHORIZATION_POLICY,
        "cart",
        json!({"spec": {"action": "ALLOW", "provider": null, "rules": [{"from": [{"source": {"ipBlocks": ["10.0.0.0/8"]}}]}]}}),
    );
    world.settle();
    insta::assert_snapshot!(told(&world, &AUTHORIZATION_POLICY), @"Accepted=True Accepted: All of it is in force.");
}
