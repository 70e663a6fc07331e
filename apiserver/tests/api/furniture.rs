//! What every cluster has from its beginning, and keeps.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use serde_json::{Value, json};
use weft_apiserver::caller::Caller;
use weft_apiserver::http::servers;

use crate::world::*;

const SERVICE: &str = "/api/v1/namespaces/default/services/kubernetes";
const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";

async fn ensure(world: &World, servers: &[&str]) {
    let servers: BTreeSet<SocketAddr> = servers
        .iter()
        .map(|server| server.parse().unwrap())
        .collect();
    let caller = Caller::system("apiserver", None);
    let objects = &world.objects;
    objects.ensure_furniture(&caller, &servers).await.unwrap();
    objects.remove_old_slices(&caller, &servers).await.unwrap();
}

#[tokio::test]
async fn programs_in_the_cluster_find_the_api() {
    let world = World::new().await;
    ensure(&world, &[]).await;
    assert_eq!(world.get(SERVICE).await.status, 404, "nobody knows where");
    ensure(&world, &["10.0.0.1:6443", "10.0.0.2:6443"]).await;
    let service = world.get(SERVICE).await.body;
    assert_eq!(service["spec"]["clusterIP"], "10.43.0.1");
    assert_eq!(
        service["spec"]["ports"],
        json!([{"name": "https", "protocol": "TCP", "port": 443, "targetPort": 6443}])
    );
    let slice = world.get(&format!("{SLICES}/kubernetes")).await.body;
    let addresses = |slice: &Value| {
        let endpoints = slice["endpoints"].as_array().unwrap().iter();
        let addresses = endpoints.map(|one| one["addresses"][0].as_str().unwrap().to_owned());
        addresses.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(addresses(&slice), "10.0.0.1 10.0.0.2");
    let label = &slice["metadata"]["labels"]["kubernetes.io/service-name"];
    assert_eq!(label, "kubernetes");

    // What is well is not written.
    let revision = || async { world.get(MAPS).await.body["metadata"]["resourceVersion"].clone() };
    let before = revision().await;
    ensure(&world, &["10.0.0.1:6443", "10.0.0.2:6443"]).await;
    assert_eq!(revision().await, before);

    // Servers come and go; what somebody takes away or changes comes back.
    ensure(&world, &["10.0.0.2:6443", "10.0.0.3:7443"]).await;
    let listed = world.get(SLICES).await;
    assert_eq!(
        listed.line(),
        "200 EndpointSliceList [kubernetes kubernetes-ipv4-7443]"
    );
    assert_eq!(addresses(&listed.body["items"][0]), "10.0.0.2");
    assert_eq!(addresses(&listed.body["items"][1]), "10.0.0.3");
    ensure(&world, &["10.0.0.2:6443"]).await;
    assert_eq!(
        world.get(SLICES).await.line(),
        "200 EndpointSliceList [kubernetes]"
    );
    world.ask(&format!("DELETE {SERVICE}"), Value::Null).await;
    let none = json!({"endpoints": []});
    world
        .patch(&format!("{SLICES}/kubernetes"), "merge-patch", none)
        .await;
    ensure(&world, &["10.0.0.2:6443"]).await;
    let again = world.get(SERVICE).await.body;
    assert_ne!(again["metadata"]["uid"], service["metadata"]["uid"]);
    assert_eq!(again["spec"]["clusterIP"], "10.43.0.1");
    let slice = world.get(&format!("{SLICES}/kubernetes")).await.body;
    assert_eq!(addresses(&slice), "10.0.0.2");
}

#[tokio::test]
async fn servers_are_where_they_say_as_long_as_they_are_servers() {
    let world = World::new().await;
    let known = async || servers::addresses(&world.objects).await.unwrap();
    assert!(known().await.is_empty(), "none has said it");
    let urls = json!({
        "metadata": {"name": "weft-servers"},
        "data": {"2": "https://10.0.0.2:6443"},
    });
    let maps = "/api/v1/namespaces/kube-system/configmaps";
    world.ask(&format!("POST {maps}"), urls).await;
    assert!(known().await.is_empty(), "2 is no server");
    for (url, told) in [
        ("https://10.0.0.1:6443", "10.0.0.1:6443"),
        ("https://[fd00::1]:6443", "[fd00::1]:6443"),
        ("https://weft.example.com:6443", ""),
        ("nonsense", ""),
    ] {
        let patch = json!({"data": {"1": url}});
        world
            .patch(&format!("{maps}/weft-servers"), "merge-patch", patch)
            .await;
        let known = known().await.into_iter().map(|address| address.to_string());
        assert_eq!(known.collect::<String>(), told, "{url}");
    }
}

#[tokio::test]
async fn a_cluster_on_one_machine_has_its_api_on_loopback() {
    let world = World::new().await;
    ensure(&world, &["127.0.0.1:6443"]).await;
    let slice = world.get(&format!("{SLICES}/kubernetes")).await.body;
    assert_eq!(slice["endpoints"][0]["addresses"], json!(["127.0.0.1"]));
    let own = json!({
        "metadata": {"name": "own"}, "addressType": "IPv4",
        "endpoints": [{"addresses": ["127.0.0.1"]}], "ports": [],
    });
    assert_eq!(world.ask(&format!("POST {SLICES}"), own).await.status, 422);
}

#[tokio::test]
async fn extension_servers_are_told_whom_to_trust() {
    let world = World::new().await;
    ensure(&world, &[]).await;
    let path = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication";
    let told = world.get(path).await.body;
    let pem = told["data"]["client-ca-file"].as_str().unwrap();
    assert!(pem.starts_with("-----BEGIN CERTIFICATE-----"), "{pem}");
    let patch = json!({"data": {"client-ca-file": "x", "requestheader-client-ca-file": "y"}});
    world.patch(path, "merge-patch", patch).await;
    ensure(&world, &[]).await;
    let mended = world.get(path).await.body;
    assert_eq!(mended["data"]["client-ca-file"], pem);
    // What other servers prove themselves by stays beside this one's.
    let trusted = &mended["data"]["requestheader-client-ca-file"];
    let trusted = trusted.as_str().unwrap();
    assert!(trusted.starts_with("y\n-----BEGIN"), "{trusted}");
    for (name, value) in [
        ("requestheader-allowed-names", "front-proxy-client"),
        ("requestheader-extra-headers-prefix", "X-Remote-Extra-"),
        ("requestheader-group-headers", "X-Remote-Group"),
        ("requestheader-uid-headers", "X-Remote-Uid"),
        ("requestheader-username-headers", "X-Remote-User"),
    ] {
        assert_eq!(mended["data"][name], format!("[{value:?}]"), "{name}");
    }
    for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
        let namespace = world.get(&format!("/api/v1/namespaces/{name}")).await;
        assert_eq!(namespace.status, 200, "{name}");
    }
}

#[tokio::test]
async fn the_range_of_addresses_is_told_and_ready() {
    let world = World::new().await;
    let path = "/apis/networking.k8s.io/v1/servicecidrs/kubernetes";
    ensure(&world, &[]).await;
    let made = world.get(path).await.body;
    assert_eq!(made["spec"]["cidrs"], json!(["10.43.0.0/16"]));
    let condition = &made["status"]["conditions"][0];
    assert_eq!(
        (&condition["type"], &condition["status"]),
        (&json!("Ready"), &json!("True"))
    );
    ensure(&world, &[]).await;
    let version = &made["metadata"]["resourceVersion"];
    assert_eq!(
        &world.get(path).await.body["metadata"]["resourceVersion"],
        version
    );
    world.ask(&format!("DELETE {path}"), Value::Null).await;
    ensure(&world, &[]).await;
    assert_eq!(world.get(path).await.body["spec"], made["spec"]);
}
