//! Services and what they hold: addresses and ports.

use http::header;
use serde_json::{Value, json};
use weft_apiserver::caller::Caller;

use crate::world::*;

#[tokio::test]
async fn services_get_addresses_of_their_own() {
    let world = World::new().await;
    let service = |name: String| json!({"metadata": {"name": name}, "spec": {"ports": [{"port": 80}], "selector": {"a": "b"}}});
    let post = format!("POST {SERVICES}");
    let created = futures::future::join_all(
        (0..20).map(|index| world.ask(&post, service(format!("s{index}")))),
    )
    .await;
    let addresses: std::collections::BTreeSet<String> = created
        .iter()
        .map(|answer| {
            answer.body["spec"]["clusterIP"]
                .as_str()
                .unwrap()
                .to_owned()
        })
        .collect();
    assert_eq!(addresses.len(), 20);
    assert!(
        addresses
            .iter()
            .all(|address| address.starts_with("10.43."))
    );

    let taken = addresses.first().unwrap();
    let mut wanted = service("wanted".to_owned());
    wanted["spec"]["clusterIP"] = taken.as_str().into();
    let refused = world.ask(&post, wanted.clone()).await;
    assert_eq!(
        refused.line(),
        format!(
            r#"422 Invalid: Service "wanted" is invalid: spec.clusterIPs: Invalid value: ["{taken}"]: failed to allocate IP {taken}: provided IP is already allocated"#
        )
    );
    let holder = created
        .iter()
        .find(|answer| answer.body["spec"]["clusterIP"] == taken.as_str())
        .unwrap();
    let holder = holder.body["metadata"]["name"].as_str().unwrap();
    world
        .ask(&format!("DELETE {SERVICES}/{holder}"), Value::Null)
        .await;
    assert_eq!(world.ask(&post, wanted.clone()).await.status, 201);
    // An update that leaves the address out keeps it; one that changes it is refused.
    let kept = world
        .ask(
            &format!("PUT {SERVICES}/wanted"),
            service("wanted".to_owned()),
        )
        .await;
    assert_eq!(kept.body["spec"]["clusterIP"], taken.as_str());
    let moved = json!({"spec": {"clusterIP": "10.43.200.200"}});
    assert_eq!(
        world
            .patch(&format!("{SERVICES}/wanted"), "merge-patch", moved)
            .await
            .status,
        422
    );
    let mut node_port = service("np".to_owned());
    node_port["spec"]["type"] = "NodePort".into();
    let node_port = world.ask(&post, node_port).await;
    let number = node_port.body["spec"]["ports"][0]["nodePort"].clone();
    assert!(number.as_i64().unwrap() >= 30000);
    // A load balancer that wants none has those it names, if they are free.
    let mut balancer = service("lb".to_owned());
    balancer["spec"]["type"] = "LoadBalancer".into();
    balancer["spec"]["allocateLoadBalancerNodePorts"] = false.into();
    balancer["spec"]["ports"] =
        json!([{"name": "a", "port": 80}, {"name": "b", "port": 81, "nodePort": number}]);
    let refused = world.ask(&post, balancer.clone()).await;
    assert_eq!(
        refused.line(),
        format!(
            r#"422 Invalid: Service "lb" is invalid: spec.ports[1].nodePort: Invalid value: {number}: provided port is already allocated"#
        )
    );
    balancer["spec"]["ports"][1]["nodePort"] = 32767.into();
    let balancer = world.ask(&post, balancer).await;
    let ports = &balancer.body["spec"]["ports"];
    assert_eq!(
        (
            balancer.status,
            &ports[0]["nodePort"],
            &ports[1]["nodePort"]
        ),
        (201, &Value::Null, &json!(32767))
    );
}

/// Where nodes tell who balances before them how many endpoints they have: a node port like any other, for as long as its policy.
#[tokio::test]
async fn the_port_of_health_checks_is_given_out_and_taken_back() {
    let world = World::new().await;
    let post = format!("POST {SERVICES}");
    let balancer = |name: &str, port: Value| {
        json!({"metadata": {"name": name}, "spec": {"type": "LoadBalancer", "externalTrafficPolicy": "Local",
            "allocateLoadBalancerNodePorts": false, "healthCheckNodePort": port, "ports": [{"port": 80}]}})
    };
    let made = world.ask(&post, balancer("a", Value::Null)).await;
    let number = made.body["spec"]["healthCheckNodePort"].clone();
    let given = number.as_i64().expect("a port");
    assert!((30000..32768).contains(&given), "{given}");
    let second = world.ask(&post, balancer("b", number.clone())).await;
    assert_eq!(
        second.line(),
        format!(
            "500 InternalError: Internal error occurred: failed to allocate requested HealthCheck NodePort {given}: provided port is already allocated"
        )
    );
    let a = format!("{SERVICES}/a");
    let labelled =
        json!({"metadata": {"labels": {"a": "b"}}, "spec": {"healthCheckNodePort": null}});
    let labelled = world.patch(&a, "merge-patch", labelled).await;
    assert_eq!(labelled.status, 200, "{}", labelled.line());
    assert_eq!(labelled.body["spec"]["healthCheckNodePort"], number);
    let other = json!({"spec": {"healthCheckNodePort": given + 1}});
    let other = world.patch(&a, "merge-patch", other).await;
    assert_eq!(
        other.line(),
        r#"422 Invalid: Service "a" is invalid: spec.healthCheckNodePort: Forbidden: field is immutable"#
    );
    let everywhere = json!({"spec": {"externalTrafficPolicy": "Cluster"}});
    let everywhere = world.patch(&a, "merge-patch", everywhere).await;
    assert_eq!(everywhere.status, 200, "{}", everywhere.line());
    assert_eq!(everywhere.body["spec"].get("healthCheckNodePort"), None);
    assert_eq!(world.ask(&post, balancer("b", number)).await.status, 201);
}

#[tokio::test]
async fn a_service_keeps_its_address_and_a_pod_its_tolerations() {
    let world = World::new().await;
    let service = json!({"metadata": {"name": "web"}, "spec": {"ports": [{"port": 80}]}});
    let created = world.ask(&format!("POST {SERVICES}"), service).await;
    let address = created.body["spec"]["clusterIP"].as_str().unwrap();
    let one = format!("{SERVICES}/web");
    for other in ["1.2.3.4", "10.43.0.77", "None"] {
        let refused = world
            .patch(&one, "merge-patch", json!({"spec": {"clusterIP": other}}))
            .await;
        let line = refused.line();
        assert!(
            line.starts_with("422") && line.ends_with("may not change once set"),
            "{line}"
        );
    }
    assert_eq!(world.get(&one).await.body["spec"]["clusterIP"], address);

    let mut patient = pod("p");
    patient["spec"]["tolerations"] = json!([{"key": "a", "operator": "Exists"}]);
    world.ask(&format!("POST {PODS}"), patient).await;
    let one = format!("{PODS}/p");
    let patience = |seconds: i64| json!([{"op": "replace", "path": "/spec/tolerations/1/tolerationSeconds", "value": seconds}]);
    let longer = world.patch(&one, "json-patch", patience(600)).await;
    assert_eq!(
        longer.body["spec"]["tolerations"][1]["tolerationSeconds"],
        600
    );
    let removed =
        |place: usize| json!([{"op": "remove", "path": format!("/spec/tolerations/{place}")}]);
    let refused = world.patch(&one, "json-patch", removed(0)).await;
    assert_eq!(refused.status, 422, "{}", refused.line());
    // Each pod has those of a lost node: taken away, they come back as they are given to a new one.
    let given = world.patch(&one, "json-patch", removed(1)).await;
    assert_eq!(given.status, 200, "{}", given.line());
    let seconds = |at: usize| &given.body["spec"]["tolerations"][at]["tolerationSeconds"];
    assert!(seconds(2).is_i64() && *seconds(2) != 600);
}

#[tokio::test]
async fn what_a_service_asks_for_in_vain_is_told_to_who_writes_it() {
    let world = World::new().await;
    let told = |answer: &Answer| -> Vec<String> {
        let values = answer.headers.get_all("warning").iter();
        values
            .map(|value| value.to_str().unwrap().to_owned())
            .collect()
    };
    let spec = |spec: Value| json!({"metadata": {"name": "s"}, "spec": spec});
    let plain = json!({"ports": [{"port": 80}], "selector": {"a": "b"}});
    let created = world
        .ask(&format!("POST {SERVICES}"), spec(plain.clone()))
        .await;
    assert_eq!((created.status, told(&created)), (201, Vec::new()));
    let path = format!("{SERVICES}/s");
    for (patch, expected) in [
        (json!({"spec": {"type": "NodePort"}}), None),
        (json!({"spec": {"type": "LoadBalancer"}}), None),
        (
            json!({"spec": {"type": "ClusterIP", "externalIPs": ["192.0.2.7"]}}),
            Some(
                "spec.externalIPs: no node listens there, since whoever writes a Service could take any address; a Service of type LoadBalancer gets an address of its own",
            ),
        ),
        (
            json!({"spec": {"externalIPs": null, "externalTrafficPolicy": null, "ports": [{"name": "d", "port": 53, "protocol": "UDP"}]}}),
            None,
        ),
        (
            json!({"spec": {"ports": [{"name": "d", "port": 53, "protocol": "SCTP"}]}}),
            Some("spec.ports: ports of SCTP lead nowhere; TCP and UDP are served"),
        ),
    ] {
        let patched = world.patch(&path, "merge-patch", patch).await;
        assert_eq!(patched.line(), "200 Service s");
        let expected = expected.map(|text| format!("299 - \"{text}\""));
        assert_eq!(told(&patched), expected.into_iter().collect::<Vec<_>>());
    }
    for (name, number) in [
        ("api.example.com", 1),
        ("web.shop.svc.cluster.local", 0),
        ("web.shop.svc", 0),
    ] {
        let alias = json!({"metadata": {"generateName": "a-"}, "spec": {"type": "ExternalName", "externalName": name}});
        let created = world.ask(&format!("POST {SERVICES}"), alias).await;
        assert_eq!(
            (created.status, told(&created).len()),
            (201, number),
            "{name}"
        );
    }
    // Nobody here gives it an address.
    let balanced = json!({"metadata": {"name": "l"}, "spec": {"type": "LoadBalancer", "ports": [{"port": 80}]}});
    world.ask(&format!("POST {SERVICES}"), balanced).await;
    let accept = "application/json;as=Table;v=v1;g=meta.k8s.io";
    let table = world.request(
        &format!("GET {SERVICES}/l"),
        &[(header::ACCEPT, accept)],
        "",
    );
    let table = world.send(table).await;
    assert_eq!(table.body["rows"][0]["cells"][3], "<none>");
}

const ADDRESSES: &str = "/apis/networking.k8s.io/v1/ipaddresses";

#[tokio::test]
async fn an_address_that_is_given_out_is_an_object() {
    let world = World::new().await;
    let service = |name: &str, address: &str| {
        json!({
            "metadata": {"name": name},
            "spec": {"clusterIP": address, "ports": [{"port": 80}]},
        })
    };
    let post = format!("POST {SERVICES}");
    let own = json!({
        "metadata": {"name": "10.43.0.9"},
        "spec": {"parentRef": {"resource": "things", "name": "t"}},
    });
    let one = format!("{SERVICES}/one");
    let told = world
        .transcript(&[
            (&post, service("one", "10.43.0.7")),
            (&post, service("none", "None")),
            (&format!("GET {ADDRESSES}"), Value::Null),
            (&format!("POST {ADDRESSES}"), own.clone()),
            (&post, service("other", "10.43.0.9")),
            (&format!("DELETE {one}"), Value::Null),
            (&format!("GET {ADDRESSES}"), Value::Null),
            (&post, service("one", "10.43.0.7")),
            (
                &format!("PUT {one}?dryRun=All"),
                json!({
                    "metadata": {"name": "one"},
                    "spec": {"type": "ExternalName", "externalName": "a.example"},
                }),
            ),
            (&format!("GET {ADDRESSES}"), Value::Null),
            (
                &format!("PUT {one}"),
                json!({
                    "metadata": {"name": "one"},
                    "spec": {"type": "ExternalName", "externalName": "a.example"},
                }),
            ),
            (&format!("GET {ADDRESSES}"), Value::Null),
        ])
        .await;
    insta::assert_snapshot!(told, @r#"
    201 Service one
    201 Service none
    200 IPAddressList [10.43.0.7]
    201 IPAddress 10.43.0.9
    422 Invalid: Service "other" is invalid: spec.clusterIPs: Invalid value: ["10.43.0.9"]: failed to allocate IP 10.43.0.9: provided IP is already allocated
    200 Service one
    200 IPAddressList [10.43.0.9]
    201 Service one
    200 Service one
    200 IPAddressList [10.43.0.7 10.43.0.9]
    200 Service one
    200 IPAddressList [10.43.0.9]
    "#);
}

#[tokio::test]
async fn addresses_and_their_objects_are_brought_together() {
    let world = World::new().await;
    let service = json!({"metadata": {"name": "s"}, "spec": {"clusterIP": "10.43.0.7", "ports": [{"port": 80}]}});
    world.ask(&format!("POST {SERVICES}"), service).await;
    let made = world.get(&format!("{ADDRESSES}/10.43.0.7")).await.body;
    assert_eq!(made["metadata"]["managedFields"][0]["operation"], "Update");
    // Somebody takes it away, and makes one that nobody holds.
    world
        .ask(&format!("DELETE {ADDRESSES}/10.43.0.7"), Value::Null)
        .await;
    let mut lost = made.clone();
    for member in [
        "uid",
        "resourceVersion",
        "creationTimestamp",
        "managedFields",
    ] {
        lost["metadata"].as_object_mut().unwrap().remove(member);
    }
    lost["metadata"]["name"] = "10.43.0.8".into();
    world.ask(&format!("POST {ADDRESSES}"), lost.clone()).await;
    lost["metadata"]["name"] = "10.43.0.9".into();
    lost["metadata"]["labels"] = json!({});
    world.ask(&format!("POST {ADDRESSES}"), lost).await;
    let caller = Caller::system("apiserver", None);
    world.objects.repair_addresses(&caller).await.unwrap();
    let listed = world.get(ADDRESSES).await;
    assert_eq!(listed.line(), "200 IPAddressList [10.43.0.7 10.43.0.9]");
    let again = &listed.body["items"][0];
    assert_eq!(again["spec"], made["spec"]);
    assert_eq!(again["metadata"]["labels"], made["metadata"]["labels"]);
}

#[tokio::test]
async fn what_cannot_be_proxied_is_told_as_kubernetes_tells_it() {
    let world = World::new().await;
    let service = json!({
        "metadata": {"name": "web"},
        "spec": {"selector": {"app": "web"}, "ports": [{"name": "http", "port": 80}]},
    });
    let told = world
        .transcript(&[
            (&format!("POST {SERVICES}"), service),
            (&format!("POST {PODS}"), pod("web")),
            (&format!("GET {PODS}/none/proxy/"), Value::Null),
            (&format!("GET {PODS}/web:80/proxy/"), Value::Null),
            (&format!("GET {PODS}/ftp:web:21/proxy/"), Value::Null),
            (&format!("TRACE {PODS}/web/proxy/"), Value::Null),
            (&format!("GET {SERVICES}/none:80/proxy/"), Value::Null),
            (&format!("GET {SERVICES}/web:http/proxy/x"), Value::Null),
            (&format!("POST {SERVICES}/web:81/proxy/x"), json!({})),
            (&format!("GET {SERVICES}/a:b:c:d/proxy/"), Value::Null),
            (&format!("GET {SERVICES}/web/proxy/../../x"), Value::Null),
        ])
        .await;
    insta::assert_snapshot!(told, @r#"
    201 Service web
    201 Pod web
    404 NotFound: pods "none" not found
    400 BadRequest: address not allowed
    400 BadRequest: invalid pod request "ftp:web:21"
    405 MethodNotAllowed: the server does not allow this method on the requested resource
    404 NotFound: services "none" not found
    503 ServiceUnavailable: no endpoints available for service "web"
    503 ServiceUnavailable: no service port 81 found for service "web"
    400 BadRequest: invalid service request "a:b:c:d"
    404 NotFound: the server could not find the requested resource
    "#);
    let as_user = http::Request::get(format!("{PODS}/web:80/proxy/"));
    let as_user = as_user.header(header::AUTHORIZATION, "Bearer user");
    let refused = world
        .send(as_user.body(axum::body::Body::empty()).unwrap())
        .await;
    assert_eq!(
        refused.line(),
        "403 Forbidden: pods \"web:80\" is forbidden: User \"jo\" cannot get resource \"pods/proxy\" in API group \"\" in the namespace \"default\""
    );
}
