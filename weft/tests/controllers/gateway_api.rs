//! The Gateway API: what routes, Gateways and classes are told, and what becomes of them with their definitions.

use std::sync::Arc;

use serde_json::json;
use weft_controllers::write::Propagation;
use weft_kinds::{
    CUSTOM_RESOURCE_DEFINITION, GATEWAY, GATEWAY_CLASS, HTTP_ROUTE, Kind, NODE, SERVICE, TCP_ROUTE,
    TLS_ROUTE, UDP_ROUTE, X_MESH,
};

use crate::manifests::{node_object, service};
use crate::world::World;

#[test]
fn routes_say_what_became_of_them() {
    let mut world = World::still();
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
    let mut world = World::still();
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
    let mut world = World::still();
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
    let mut world = World::still();
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
