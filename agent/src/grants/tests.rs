//! What is granted follows the grants: what a node does with what its watch tells, without a server.

use serde_json::json;
use weft_runtime::host::config::ConfigStore;
use weft_runtime::host::keyvalue::KeyValue;

use super::*;

fn object(name: &str, spec: serde_json::Value) -> DynamicObject {
    let object = json!({
        "apiVersion": "weft.dev/v1alpha1", "kind": "CapabilityGrant",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": spec,
    });
    serde_json::from_value(object).expect("an object")
}

fn stores(store: &str) -> serde_json::Value {
    json!({"serviceAccountNames": ["cart"], "keyValue": [{"identifier": "default", "store": store}]})
}

fn pod() -> k8s_openapi::api::core::v1::Pod {
    let pod = json!({"metadata": {"name": "cart-1", "namespace": "shop", "uid": "u-1"}});
    serde_json::from_value(pod).expect("a pod")
}

/// Grants whose server never answers: what is known comes from the tests.
fn grants() -> Grants {
    let service = tower::service_fn(|_: http::Request<kube::client::Body>| {
        std::future::pending::<Result<http::Response<kube::client::Body>, std::convert::Infallible>>(
        )
    });
    let client = kube::Client::new(service, "default");
    Grants::new(
        Link::of(client),
        Mesh::builder("a", "cluster.local").build(),
    )
}

fn cart() -> SpiffeId {
    SpiffeId::new("cluster.local", "shop", "cart")
}

fn opened(account: &Account) -> Option<String> {
    let granted = account.granted();
    granted
        .key_value
        .get("default")
        .map(|store| store.store.clone())
}

#[tokio::test(start_paused = true)]
async fn what_is_granted_follows_the_grants() {
    let grants = grants();
    let claim = grants.claim(&cart());
    let begun = tokio::time::Instant::now();
    assert_eq!(*claim.granted().await, Granted::default());
    assert_eq!(begun.elapsed(), KNOWN_MAX, "the server does not answer");

    let mut listed = BTreeMap::new();
    for event in [
        Event::Init,
        Event::InitApply(object("b", stores("carts"))),
        Event::InitApply(object("broken", json!({"serviceAccountNames": 7}))),
        Event::InitDone,
    ] {
        grants.take("shop", event, &mut listed);
    }
    assert_eq!(opened(claim.account()).as_deref(), Some("carts"));
    let mut seen = claim.account().granted.subscribe();
    grants.take(
        "shop",
        Event::Apply(object("a", stores("others"))),
        &mut listed,
    );
    assert_eq!(
        opened(claim.account()).as_deref(),
        Some("carts"),
        "the later name wins"
    );
    assert!(!seen.has_changed().expect("open"), "and so nothing is news");
    grants.take("shop", Event::Delete(object("b", json!({}))), &mut listed);
    assert_eq!(opened(claim.account()).as_deref(), Some("others"));
    assert!(seen.has_changed().expect("open"));
    seen.mark_unchanged();
    grants.take(
        "shop",
        Event::Apply(object("a", json!({"serviceAccountNames": "cart"}))),
        &mut listed,
    );
    assert_eq!(
        opened(claim.account()),
        None,
        "what cannot be read grants nothing"
    );
}

#[tokio::test(start_paused = true)]
async fn a_namespace_is_watched_while_somebody_has_a_claim_in_it() {
    let grants = grants();
    let (first, second) = (grants.claim(&cart()), grants.claim(&cart()));
    let other = grants.claim(&SpiffeId::new("cluster.local", "shop", "web"));
    assert!(Arc::ptr_eq(first.account(), second.account()));
    grants.take(
        "shop",
        Event::InitApply(object("a", stores("carts"))),
        &mut BTreeMap::new(),
    );
    grants.take(
        "shop",
        Event::Apply(object("a", stores("carts"))),
        &mut BTreeMap::new(),
    );
    drop(first);
    assert_eq!(opened(second.account()).as_deref(), Some("carts"));
    drop(second);
    assert_eq!(grants.inner.namespaces.lock()["shop"].accounts.len(), 1);
    let again = grants.claim(&cart());
    assert_eq!(
        opened(again.account()).as_deref(),
        Some("carts"),
        "what is known already"
    );
    drop((again, other));
    assert!(grants.inner.namespaces.lock().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_component_gets_what_it_imports_and_newer_values_of_it() {
    let grants = grants();
    let claim = grants.claim(&cart());
    let apply = |spec| {
        grants.take(
            "shop",
            Event::Apply(object("a", spec)),
            &mut BTreeMap::new(),
        )
    };
    apply(json!({
        "serviceAccountNames": ["cart"],
        "keyValue": [{"identifier": "default", "store": "carts"}, {"identifier": "", "store": "prices"}],
    }));
    // What changed has its configuration fetched, in a task of its own.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let imports = |import: &str| vec![import.to_owned()];
    let pod = pod();
    let given = |imports: &[String]| claim.give(imports, PodView(&pod)).expect("room");
    let nothing = given(&imports("wasi:http/types@0.2.12"));
    assert!(nothing.of::<ConfigStore>().is_none() && nothing.of::<KeyValue>().is_none());
    let stores = given(&imports("wasi:keyvalue/store@0.2.0-draft2"));
    assert!(stores.of::<ConfigStore>().is_none() && stores.of::<KeyValue>().is_some());

    let values = |value: &str| Arc::new(Values::from([("colour".to_owned(), value.to_owned())]));
    claim.account().values.send_replace(values("blue"));
    let settings = given(&imports("wasi:config/store@0.2.0-rc.1"));
    let config = settings.of::<ConfigStore>().expect("granted");
    assert_eq!(config.values(), values("blue"));
    claim.account().values.send_replace(values("red"));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(config.values(), values("red"));
    // What was withdrawn is empty: there is nothing to fetch.
    claim
        .account()
        .refresh(&grants.inner.link)
        .await
        .expect("nothing to fetch");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(config.values().is_empty());
    drop((settings, nothing, stores));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(
        claim.account().values.receiver_count(),
        0,
        "nobody has it any more"
    );
}

#[tokio::test(start_paused = true)]
async fn whatever_is_begun_ends_when_it_is_stopped_and_is_bounded_until_then() {
    let grants = grants();
    let claim = grants.claim(&cart());
    let pod = pod();
    let imports = vec!["wasi:config/store@0.2.0-rc.1".to_owned()];
    let given = claim.give(&imports, PodView(&pod)).expect("room");
    let tasks = || grants.inner.tasks.len();
    assert_eq!(tasks(), 2, "the watch, and what hands values on");
    // Each change is another list of sources, and the server never answers what is in them.
    for turn in 0..20 {
        let names: Vec<serde_json::Value> = (0..=turn)
            .map(|n| json!({"configMapRef": {"name": format!("m{n}")}}))
            .collect();
        let spec = json!({"serviceAccountNames": ["cart"], "config": names});
        grants.take(
            "shop",
            Event::Apply(object("a", spec)),
            &mut BTreeMap::new(),
        );
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert!(tasks() <= 4, "turn {turn}: {}", tasks());
    }
    assert_eq!(
        tasks(),
        3,
        "one waits for the refresh that is the watch's own"
    );
    let stopped = tokio::time::timeout(Duration::from_secs(1), grants.stop());
    stopped.await.expect("it ends at once");
    assert_eq!(tasks(), 0);
    assert!(given.of::<ConfigStore>().is_some());
}
