//! The data of key-value stores, as users and nodes meet it: through the router, on a store in a temporary folder.

mod world;

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, HeaderName};
use serde_json::{Value, json};
use weft_apiserver::caller::Caller;
use weft_apiserver::encryption::KeyFile;
use weft_apiserver::objects::{self, DATA_PREFIX, Objects, Tended, UNWATCHED};
use weft_store::Store;
use world::{Answer, World, face};

const STORES: &str = "/apis/weft.dev/v1alpha1/namespaces/default/keyvaluestores";
const GRANTS: &str = "/apis/weft.dev/v1alpha1/namespaces/default/capabilitygrants";
const POD_HEADER: HeaderName = HeaderName::from_static("weft-pod");

fn store(name: &str, quota: &Value) -> Value {
    json!({
        "apiVersion": "weft.dev/v1alpha1", "kind": "KeyValueStore",
        "metadata": {"name": name}, "spec": {"quota": quota},
    })
}

fn grant(name: &str, account: &str, store: &str, access: &str) -> Value {
    json!({
        "apiVersion": "weft.dev/v1alpha1", "kind": "CapabilityGrant",
        "metadata": {"name": name},
        "spec": {
            "serviceAccountNames": [account],
            "keyValue": [{"identifier": "default", "store": store, "access": access}],
        },
    })
}

async fn created(world: &World, path: &str, object: Value) {
    let answer = world.ask(&format!("POST {path}"), object).await;
    assert_eq!(answer.status, 201, "{}", answer.line());
}

fn base64(value: impl AsRef<[u8]>) -> String {
    STANDARD.encode(value)
}

/// Asks as an administrator.
async fn data(world: &World, store: &str, operation: Value) -> Answer {
    let line = format!("POST {STORES}/{store}/data");
    world.ask(&line, operation).await
}

/// Asks as node `a`, for a pod.
async fn data_for(world: &World, store: &str, pod: &str, operation: Value) -> Answer {
    let line = format!("POST {STORES}/{store}/data");
    let named = [(POD_HEADER, pod)];
    let headers = if pod.is_empty() { &[] } else { &named[..] };
    let mut request = world.request(&line, headers, &operation.to_string());
    let node = "Bearer node".parse().unwrap();
    request.headers_mut().insert(AUTHORIZATION, node);
    world.send(request).await
}

/// The code, and the answer without its revisions, which tell nothing here.
fn shown(answer: &Answer) -> String {
    let mut body = answer.body.clone();
    if answer.status != 200 {
        return answer.line();
    }
    let took = body["revision"]
        .as_u64()
        .is_some_and(|revision| revision > 0);
    if took {
        body["revision"] = "N".into();
    }
    let values = body.get_mut("values").and_then(Value::as_array_mut);
    for value in values.into_iter().flatten() {
        if !value["revision"].is_null() {
            value["revision"] = "N".into();
        }
    }
    format!("{} {body}", answer.status)
}

async fn told(world: &World, store: &str, operations: &[Value]) -> String {
    let mut lines = Vec::new();
    for operation in operations {
        lines.push(shown(&data(world, store, operation.clone()).await));
    }
    lines.join("\n")
}

#[tokio::test]
async fn each_operation_does_what_its_name_says() {
    let world = World::new().await;
    created(&world, STORES, store("carts", &json!({}))).await;
    let told = told(
        &world,
        "carts",
        &[
            json!({"op": "get", "key": "k"}),
            json!({"op": "exists", "key": "k"}),
            json!({"op": "set", "key": "k", "value": base64("hi")}),
            json!({"op": "get", "key": "k"}),
            json!({"op": "exists", "key": "k"}),
            json!({"op": "setMany", "entries": [{"key": "a", "value": base64("1")}, {"key": "b/c", "value": ""}]}),
            json!({"op": "getMany", "keys": ["b/c", "none", "a"]}),
            json!({"op": "listKeys"}),
            json!({"op": "increment", "key": "a", "delta": 41}),
            json!({"op": "increment", "key": "new", "delta": -3}),
            json!({"op": "increment", "key": "k", "delta": 1}),
            json!({"op": "delete", "key": "k"}),
            json!({"op": "delete", "key": "k"}),
            json!({"op": "deleteMany", "keys": ["a", "none", "b/c"]}),
            json!({"op": "listKeys"}),
            json!({"op": "compareAndSet", "key": "c", "revision": 7, "value": base64("x")}),
            json!({"op": "compareAndSet", "key": "c", "revision": 0, "value": base64("x")}),
            json!({"op": "compareAndSet", "key": "c", "revision": 0, "value": base64("y")}),
        ],
    )
    .await;
    insta::assert_snapshot!(told, @r#"
    200 {}
    200 {"exists":false}
    200 {"revision":"N"}
    200 {"revision":"N","value":"aGk="}
    200 {"exists":true}
    200 {"revision":"N"}
    200 {"values":[{"key":"b/c","revision":"N","value":""},{"key":"none"},{"key":"a","revision":"N","value":"MQ=="}]}
    200 {"keys":["a","b/c","k"]}
    200 {"number":42,"revision":"N","value":"NDI="}
    200 {"number":-3,"revision":"N","value":"LTM="}
    422 Invalid: KeyValueStore.weft.dev "" is invalid: key: Invalid value: "k": has no number of 64 bits in decimal digits as its value; set it to one first
    200 {"revision":"N"}
    200 {"revision":"N"}
    200 {"revision":"N"}
    200 {"keys":["new"]}
    200 {"revision":0,"swapped":false}
    200 {"revision":"N","swapped":true}
    200 {"revision":"N","swapped":false,"value":"eA=="}
    "#);
    let missing = data(&world, "nothing", json!({"op": "get", "key": "k"})).await;
    assert_eq!(
        missing.line(),
        "404 NotFound: keyvaluestores.weft.dev \"nothing\" not found"
    );
    let line = format!("GET {STORES}/carts/data");
    assert_eq!(world.ask(&line, Value::Null).await.status, 405);
}

#[tokio::test]
async fn revisions_say_what_was_seen() {
    let world = World::new().await;
    created(&world, STORES, store("carts", &json!({}))).await;
    let set = data(
        &world,
        "carts",
        json!({"op": "set", "key": "k", "value": base64("1")}),
    )
    .await;
    let seen = data(&world, "carts", json!({"op": "get", "key": "k"})).await;
    assert_eq!(seen.body["revision"], set.body["revision"]);
    let swap = |revision: &Value, value: &str| json!({"op": "compareAndSet", "key": "k", "revision": revision, "value": base64(value)});
    let swapped = data(&world, "carts", swap(&seen.body["revision"], "2")).await;
    assert_eq!(swapped.body["swapped"], true);
    let late = data(&world, "carts", swap(&seen.body["revision"], "3")).await;
    let expected =
        json!({"swapped": false, "value": base64("2"), "revision": swapped.body["revision"]});
    assert_eq!(late.body, expected);
    // Of several that are set together, and of several that are written together, each has its own.
    let many =
        json!({"op": "setMany", "entries": [{"key": "x", "value": ""}, {"key": "y", "value": ""}]});
    let many = data(&world, "carts", many).await;
    let last = data(
        &world,
        "carts",
        json!({"op": "getMany", "keys": ["y", "x"]}),
    )
    .await;
    assert_eq!(last.body["values"][0]["revision"], many.body["revision"]);
    let sets = (0..40).map(|number| {
        let world = &world;
        async move {
            let key = format!("n{number}");
            let set = json!({"op": "set", "key": key, "value": base64(number.to_string())});
            let set = data(world, "carts", set).await;
            let get = data(world, "carts", json!({"op": "get", "key": key})).await;
            assert_eq!(get.body["revision"], set.body["revision"], "{key}");
            assert_eq!(get.body["value"], base64(number.to_string()), "{key}");
        }
    });
    futures::future::join_all(sets).await;
}

#[tokio::test]
async fn increments_at_once_are_all_counted() {
    let world = World::new().await;
    created(&world, STORES, store("counts", &json!({}))).await;
    let increments = (0..100).map(|_| {
        let world = &world;
        async move {
            let answer = data(
                world,
                "counts",
                json!({"op": "increment", "key": "n", "delta": 2}),
            )
            .await;
            assert_eq!(answer.status, 200, "{}", answer.line());
            answer.body["number"].as_i64().unwrap()
        }
    });
    let mut numbers = futures::future::join_all(increments).await;
    numbers.sort_unstable();
    let expected: Vec<i64> = (1..=100).map(|number| 2 * number).collect();
    assert_eq!(numbers, expected);
    let top = json!({"op": "set", "key": "n", "value": base64(i64::MAX.to_string())});
    data(&world, "counts", top).await;
    let over = data(
        &world,
        "counts",
        json!({"op": "increment", "key": "n", "delta": 1}),
    )
    .await;
    assert_eq!(over.status, 422, "{}", over.line());
    assert!(
        over.line().contains("leave the range of 64 bits"),
        "{}",
        over.line()
    );
    let same = data(
        &world,
        "counts",
        json!({"op": "increment", "key": "n", "delta": 0}),
    )
    .await;
    assert_eq!(same.body["number"], i64::MAX);
}

#[tokio::test]
async fn a_quota_holds_whoever_writes_at_once() {
    let world = World::new().await;
    created(
        &world,
        STORES,
        store("small", &json!({"bytes": "1Ki", "keys": 10})),
    )
    .await;
    let sets = (0..50).map(|number| {
        let world = &world;
        async move {
            let key = format!("k{number:02}");
            data(
                world,
                "small",
                json!({"op": "set", "key": key, "value": base64("v")}),
            )
            .await
        }
    });
    let answers = futures::future::join_all(sets).await;
    let taken = answers.iter().filter(|answer| answer.status == 200).count();
    assert_eq!(taken, 10);
    let refused = answers.iter().find(|answer| answer.status != 200).unwrap();
    assert_eq!(
        refused.line(),
        "507 QuotaExceeded: KeyValueStore default/small would hold 44 bytes in 11 keys, and its quota is 1024 bytes in 10 keys: delete keys, or raise spec.quota"
    );
    let keys = data(&world, "small", json!({"op": "listKeys"})).await;
    let keys: Vec<Value> = keys.body["keys"].as_array().unwrap().clone();
    assert_eq!(keys.len(), 10);
    // What grows a value counts as well, what shrinks one does not, and all of several or none of them is written.
    let first = keys[0].as_str().unwrap();
    let large = json!({"op": "set", "key": first, "value": base64(vec![0; 1000])});
    assert_eq!(data(&world, "small", large).await.status, 507);
    let many = json!({"op": "setMany", "entries": [{"key": first, "value": base64("changed")}, {"key": "more", "value": ""}]});
    assert_eq!(data(&world, "small", many).await.status, 507);
    let kept = data(&world, "small", json!({"op": "get", "key": first})).await;
    assert_eq!(kept.body["value"], base64("v"));
    // A quota that shrinks takes nothing away, and lets nothing grow.
    let smaller = json!({"spec": {"quota": {"keys": 3}}});
    let path = format!("{STORES}/small");
    assert_eq!(world.patch(&path, "merge-patch", smaller).await.status, 200);
    let same = json!({"op": "set", "key": first, "value": base64("w")});
    assert_eq!(data(&world, "small", same).await.status, 200);
    assert_eq!(
        data(&world, "small", json!({"op": "delete", "key": first}))
            .await
            .status,
        200
    );
    let again = json!({"op": "set", "key": first, "value": ""});
    assert_eq!(data(&world, "small", again).await.status, 507);
}

#[tokio::test]
async fn pages_of_keys_follow_one_another() {
    let world = World::new().await;
    created(&world, STORES, store("many", &json!({}))).await;
    for part in 0..3 {
        let entries: Vec<Value> = (0..834)
            .map(|number| json!({"key": format!("{part}/{number:04}"), "value": ""}))
            .collect();
        let set = data(&world, "many", json!({"op": "setMany", "entries": entries})).await;
        assert_eq!(set.status, 200, "{}", set.line());
    }
    let mut seen = Vec::new();
    let mut cursor = Value::Null;
    loop {
        let page = data(&world, "many", json!({"op": "listKeys", "cursor": cursor})).await;
        seen.push(page.body["keys"].as_array().unwrap().len());
        cursor = page.body["cursor"].clone();
        if cursor.is_null() {
            break;
        }
    }
    assert_eq!(seen, [1000, 1000, 502]);
    let keys: Vec<String> = (0..834).map(|number| format!("1/{number:04}")).collect();
    let deleted = data(&world, "many", json!({"op": "deleteMany", "keys": keys})).await;
    assert_eq!(deleted.status, 200, "{}", deleted.line());
    let rest = data(&world, "many", json!({"op": "listKeys"})).await;
    assert_eq!(rest.body["keys"][834], "2/0000");
}

#[tokio::test]
async fn tenants_do_not_meet() {
    let world = World::new().await;
    for name in ["one", "two"] {
        created(
            &world,
            "/api/v1/namespaces",
            json!({"metadata": {"name": name}}),
        )
        .await;
        let path = format!("/apis/weft.dev/v1alpha1/namespaces/{name}/keyvaluestores");
        created(&world, &path, store("same", &json!({}))).await;
    }
    let ask = |namespace: &str, operation: Value| {
        let line =
            format!("POST /apis/weft.dev/v1alpha1/namespaces/{namespace}/keyvaluestores/same/data");
        let world = &world;
        async move { world.ask(&line, operation).await }
    };
    ask(
        "one",
        json!({"op": "set", "key": "k", "value": base64("mine")}),
    )
    .await;
    assert_eq!(
        ask("two", json!({"op": "get", "key": "k"})).await.body,
        json!({})
    );
    assert_eq!(
        ask("two", json!({"op": "listKeys"})).await.body,
        json!({"keys": []})
    );
    // Nobody without rights gets at it, by whatever path.
    for (bearer, status) in [("Bearer user", 403), ("Bearer nobody", 401)] {
        let mut request = world.request(
            "POST /apis/weft.dev/v1alpha1/namespaces/one/keyvaluestores/same/data",
            &[],
            r#"{"op":"get","key":"k"}"#,
        );
        request
            .headers_mut()
            .insert(AUTHORIZATION, bearer.parse().unwrap());
        assert_eq!(world.send(request).await.status, status, "{bearer}");
    }
}

/// A pod that is bound to a node, and its uid.
async fn bound(world: &World, name: &str, account: &str, node: &str) -> String {
    let path = "/api/v1/namespaces/default";
    let account_object = json!({"metadata": {"name": account}});
    world
        .ask(&format!("POST {path}/serviceaccounts"), account_object)
        .await;
    let mut pod = world::pod(name);
    pod["spec"]["serviceAccountName"] = account.into();
    pod["spec"]["nodeName"] = node.into();
    let answer = world.ask(&format!("POST {path}/pods"), pod).await;
    assert_eq!(answer.status, 201, "{}", answer.line());
    let uid = answer.body["metadata"]["uid"].as_str().unwrap();
    format!("default/{name}/{uid}")
}

#[tokio::test]
async fn a_node_asks_for_pods_that_run_there_and_are_granted_the_store() {
    let world = World::new().await;
    created(&world, STORES, store("carts", &json!({}))).await;
    created(&world, STORES, store("other", &json!({}))).await;
    created(
        &world,
        GRANTS,
        grant("writes", "cart", "carts", "ReadWrite"),
    )
    .await;
    created(
        &world,
        GRANTS,
        grant("reads", "reader", "carts", "ReadOnly"),
    )
    .await;
    let cart = bound(&world, "cart", "cart", "a").await;
    let reader = bound(&world, "reader", "reader", "a").await;
    let stranger = bound(&world, "stranger", "stranger", "a").await;
    let elsewhere = bound(&world, "elsewhere", "cart", "b").await;
    let get = || json!({"op": "get", "key": "k"});
    let set = || json!({"op": "set", "key": "k", "value": base64("v")});
    let renamed = cart.replace("default/cart/", "default/cart/0");
    let moved = cart.replace("default/", "kube-system/");
    let prefix = "Forbidden: keyvaluestores.weft.dev \"carts\" is forbidden: User \"system:node:a\" cannot create resource \"keyvaluestores/data\" in API group \"weft.dev\" in the namespace \"default\": ";
    for (store, pod, operation, status, rule) in [
        ("carts", &cart, set(), 200, ""),
        ("carts", &cart, get(), 200, ""),
        ("carts", &reader, get(), 200, ""),
        (
            "carts",
            &reader,
            set(),
            403,
            "no CapabilityGrant of namespace default gives ServiceAccount reader ReadWrite access to KeyValueStore carts; add one: \
             {apiVersion: weft.dev/v1alpha1, kind: CapabilityGrant, metadata: {name: reader, namespace: default}, \
             spec: {serviceAccountNames: [reader], keyValue: [{identifier: default, store: carts, access: ReadWrite}]}}",
        ),
        (
            "carts",
            &reader,
            json!({"op": "increment", "key": "k", "delta": 0}),
            403,
            "no CapabilityGrant",
        ),
        ("carts", &stranger, get(), 403, "no CapabilityGrant"),
        ("other", &cart, get(), 403, ""),
        (
            "carts",
            &elsewhere,
            get(),
            403,
            "the pod does not run on this node",
        ),
        (
            "carts",
            &elsewhere,
            set(),
            403,
            "the pod does not run on this node",
        ),
        (
            "carts",
            &renamed,
            get(),
            403,
            "the pod does not run on this node",
        ),
        (
            "carts",
            &"default/nobody/1".to_owned(),
            get(),
            403,
            "the pod does not run on this node",
        ),
        (
            "carts",
            &moved,
            get(),
            403,
            "the pod is in another namespace",
        ),
        (
            "carts",
            &String::new(),
            get(),
            403,
            "a node must name the pod that it asks for, in the header weft-pod",
        ),
        ("carts", &"cart".to_owned(), get(), 400, ""),
    ] {
        let answer = data_for(&world, store, pod, operation.clone()).await;
        let line = answer.line();
        assert_eq!(answer.status, status, "{store} {pod} {operation}: {line}");
        if !rule.is_empty() {
            let told = format!("403 {prefix}{rule}");
            assert!(line.starts_with(&told), "{line}\nfor\n{told}");
        }
    }
    // A pod that ended asks for nothing any more, and a grant that goes takes with it what it gave.
    let ended = json!({"status": {"phase": "Succeeded"}});
    let status = "/api/v1/namespaces/default/pods/reader/status";
    assert_eq!(world.patch(status, "merge-patch", ended).await.status, 200);
    assert_eq!(data_for(&world, "carts", &reader, get()).await.status, 403);
    world
        .ask(&format!("DELETE {GRANTS}/writes"), Value::Null)
        .await;
    assert_eq!(data_for(&world, "carts", &cart, set()).await.status, 403);
    // Nor does it get at the data's keys, or at the objects, in another way.
    let mut request = world.request(&format!("DELETE {STORES}/carts"), &[], "");
    request
        .headers_mut()
        .insert(AUTHORIZATION, "Bearer node".parse().unwrap());
    assert_eq!(world.send(request).await.status, 403);
}

#[tokio::test]
async fn what_is_sent_once_more_takes_effect_once() {
    let world = World::new().await;
    created(&world, STORES, store("counts", &json!({}))).await;
    let increment = |id: &str| json!({"op": "increment", "key": "n", "delta": 1, "id": id});
    let first = data(&world, "counts", increment("a")).await;
    assert_eq!(
        data(&world, "counts", increment("a")).await.body,
        first.body
    );
    assert_eq!(
        data(&world, "counts", increment("b")).await.body["number"],
        2
    );
    let swap =
        json!({"op": "compareAndSet", "key": "c", "revision": 0, "value": base64("x"), "id": "s"});
    let swapped = data(&world, "counts", swap.clone()).await;
    assert_eq!(swapped.body["swapped"], true);
    assert_eq!(data(&world, "counts", swap).await.body, swapped.body);
    let other =
        json!({"op": "compareAndSet", "key": "c", "revision": 0, "value": base64("x"), "id": "t"});
    assert_eq!(data(&world, "counts", other).await.body["swapped"], false);
}

/// How many keys the cluster's store has for data.
fn kept(objects: &Objects) -> usize {
    objects.store().snapshot().len_of(DATA_PREFIX.as_bytes())
}

async fn tend(world: &World, tended: &mut Tended) {
    let term = *world.objects.store().leadership().borrow();
    let caller = Caller::system("keyvaluestore-controller", term);
    world.objects.tend_data_once(&caller, tended).await;
}

#[tokio::test]
async fn a_store_tells_what_it_holds_and_begins_empty_when_it_is_made_again() {
    let world = World::new().await;
    let mut tended = Tended::default();
    created(&world, STORES, store("carts", &json!({}))).await;
    created(&world, STORES, store("rest", &json!({}))).await;
    let entries: Vec<Value> = (0..700)
        .map(|number| json!({"key": format!("k{number:03}"), "value": base64("abc")}))
        .collect();
    data(
        &world,
        "carts",
        json!({"op": "setMany", "entries": entries}),
    )
    .await;
    data(
        &world,
        "rest",
        json!({"op": "set", "key": "k", "value": ""}),
    )
    .await;
    tend(&world, &mut tended).await;
    let path = format!("{STORES}/carts");
    let status = |answer: Answer| answer.body["status"].clone();
    let expected = json!({"bytes": 700 * 7, "keys": 700});
    assert_eq!(status(world.get(&path).await), expected);
    // Not with each write.
    data(&world, "carts", json!({"op": "delete", "key": "k000"})).await;
    tend(&world, &mut tended).await;
    assert_eq!(status(world.get(&path).await), expected);
    // A server that leads from now on knows nothing of when that was.
    tend(&world, &mut Tended::default()).await;
    assert_eq!(
        status(world.get(&path).await),
        json!({"bytes": 699 * 7, "keys": 699})
    );
    let table = world.table(&path).await;
    assert!(
        table.line().contains(r#"["carts",4893,"16Mi",699,10000"#),
        "{}",
        table.line()
    );

    assert_eq!(
        world
            .ask(&format!("DELETE {path}"), Value::Null)
            .await
            .status,
        200
    );
    let gone = data(&world, "carts", json!({"op": "get", "key": "k001"})).await;
    assert_eq!(gone.status, 404);
    created(&world, STORES, store("carts", &json!({}))).await;
    let listed = data(&world, "carts", json!({"op": "listKeys"})).await;
    assert_eq!(listed.body, json!({"keys": []}));
    data(
        &world,
        "carts",
        json!({"op": "set", "key": "new", "value": ""}),
    )
    .await;
    assert_eq!(kept(&world.objects), 701);
    tend(&world, &mut tended).await;
    assert_eq!(
        kept(&world.objects),
        2,
        "only that of stores that are there"
    );
    let listed = data(&world, "carts", json!({"op": "listKeys"})).await;
    assert_eq!(listed.body, json!({"keys": ["new"]}));
    // The quota counts what the new one holds.
    tend(&world, &mut Tended::default()).await;
    assert_eq!(
        status(world.get(&path).await),
        json!({"bytes": 3, "keys": 1})
    );
}

#[tokio::test]
async fn nothing_is_left_of_a_namespace() {
    let world = World::new().await;
    created(
        &world,
        "/api/v1/namespaces",
        json!({"metadata": {"name": "team"}}),
    )
    .await;
    let stores = "/apis/weft.dev/v1alpha1/namespaces/team/keyvaluestores";
    created(&world, stores, store("carts", &json!({}))).await;
    let set = json!({"op": "set", "key": "k", "value": base64("v")});
    let line = format!("POST {stores}/carts/data");
    assert_eq!(world.ask(&line, set.clone()).await.status, 200);
    world
        .ask("DELETE /api/v1/namespaces/team", Value::Null)
        .await;
    // What the namespace's controller does for every kind that is registered.
    world.ask(&format!("DELETE {stores}"), Value::Null).await;
    assert_eq!(world.ask(&line, set).await.status, 404);
    tend(&world, &mut Tended::default()).await;
    assert_eq!(kept(&world.objects), 0);
    let usage = world.objects.store().snapshot();
    assert_eq!(usage.len_of(b"/weft.dev/keyvalueusage/"), 0);
}

async fn open(dir: &std::path::Path) -> Store {
    let config = weft_store::Config {
        unwatched: UNWATCHED.map(Into::into).to_vec(),
        ..weft_store::Config::new(dir.join("store"))
    };
    let store = Store::open(config).await.unwrap();
    let mut leadership = store.leadership();
    leadership.wait_for(Option::is_some).await.unwrap();
    store
}

fn holds(dir: &std::path::Path, bytes: &[u8]) -> bool {
    std::fs::read_dir(dir).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        if path.is_dir() {
            return holds(&path, bytes);
        }
        let content = std::fs::read(&path).unwrap();
        content.windows(bytes.len()).any(|window| window == bytes)
    })
}

/// Values are ciphertext at rest, outlive restarts and new keys, and nobody is told of their changes.
#[tokio::test(flavor = "multi_thread")]
async fn data_is_sealed_and_outlives_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let key_file = dir.path().join("encryption.key");
    let authority =
        weft_apiserver::ca::Authority::open_or_create(&dir.path().join("pki"), "cluster.local")
            .unwrap();
    let secret = "swordfish-in-the-cart";
    for round in 0..3 {
        let store_handle = open(dir.path()).await;
        let config = objects::Config {
            keys: Some(Arc::new(KeyFile::load_or_create(&key_file).unwrap())),
            ..objects::Config::default()
        };
        let objects = Objects::new(store_handle.clone(), config);
        let system = Caller::system("apiserver", None);
        objects.ensure_permanent_namespaces(&system).await.unwrap();
        let world = World {
            router: face(&objects, authority.clone(), dir.path()),
            objects,
            dir: tempfile::tempdir().unwrap(),
        };
        if round == 0 {
            created(&world, STORES, store("carts", &json!({}))).await;
            let first = json!({"op": "set", "key": "first", "value": base64(secret)});
            assert_eq!(data(&world, "carts", first).await.status, 200);
            let mut watch = store_handle
                .watch("/", store_handle.snapshot().revision())
                .unwrap();
            let set = json!({"op": "set", "key": "k", "value": base64(secret)});
            assert_eq!(data(&world, "carts", set).await.status, 200);
            // A change of something else is the next that is told.
            created(&world, world::MAPS, world::config_map("m", "1")).await;
            let event = watch.next().await.unwrap().unwrap();
            assert_eq!(event.entry.key.to_string(), "/core/configmaps/default/m");
        }
        let got = data(&world, "carts", json!({"op": "get", "key": "k"})).await;
        assert_eq!(got.body["value"], base64(secret), "round {round}");
        let many = data(
            &world,
            "carts",
            json!({"op": "getMany", "keys": vec!["k"; 20]}),
        )
        .await;
        assert_eq!(many.body["values"].as_array().unwrap().len(), 20);
        if round == 1 {
            let rewrapped = world
                .ask("POST /weft/v1/encryption/rewrap", Value::Null)
                .await;
            assert_eq!(rewrapped.body["values"], 2, "{}", rewrapped.body);
        }
        world.objects.shutdown().await;
        drop(world);
        store_handle.shutdown().await;
    }
    assert!(!holds(&dir.path().join("store"), secret.as_bytes()));
    assert!(!holds(&dir.path().join("store"), base64(secret).as_bytes()));
}
