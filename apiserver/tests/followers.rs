//! The verbs on a server that is behind the leader: whoever is acknowledged there got what he asked for, on the newest state.
//!
//! Three servers in one process, over a network that can hold back what a follower is to learn. What the follower is asked
//! meanwhile must come out as if it had known; so must what kube-rs' watcher tells, which nodes and operators follow a cluster with.

#[path = "followers/bindings.rs"]
mod bindings;
#[path = "followers/cluster.rs"]
mod cluster;
#[path = "followers/watches.rs"]
mod watches;
mod world;

use std::time::Duration;

use http::{Request, header};
use serde_json::{Value, json};
use tower::ServiceExt as _;
use weft_api::object::Object;
use weft_api::status::StatusError;
use weft_apiserver::ca::Authority;
use weft_apiserver::objects::{
    self, Binding, DATA_PREFIX, DeleteOptions, ListOptions, Objects, Operation, Patch, WatchEvent,
    WatchOptions, WriteOptions,
};
use weft_apiserver::request::{ObjectRef, RequestInfo};
use weft_kinds::Subresource;
use weft_kinds::patch::PatchKind;

use cluster::{Cluster, LEADER, NS, admin, insisted, map, object, pod};

fn deployment(replicas: i64) -> Object {
    object(json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "c", "image": "vote/web:1"}]},
            },
        },
    }))
}

fn scale(replicas: i64) -> Object {
    object(json!({
        "apiVersion": "autoscaling/v1", "kind": "Scale",
        "metadata": {"name": "web", "namespace": "default"}, "spec": {"replicas": replicas},
    }))
}

const STATUS: Option<Subresource> = Some(Subresource::Status);
const SCALE: Option<Subresource> = Some(Subresource::Scale);
const FINALIZE: Option<Subresource> = Some(Subresource::Finalize);

/// `kubectl scale --replicas=3` on a follower that had not heard of 5 yet was answered 200, and 5 stayed.
#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_finds_everything_as_it_wants_it_is_told_on_the_newest_state() {
    let cluster = Cluster::start().await;
    let (caller, options) = (admin(), WriteOptions::default());
    let leader = cluster.leader.client(&caller);
    let follower = cluster.follower.client(&caller);
    let maps = &weft_kinds::CONFIG_MAP;
    leader
        .create(maps, NS, map("m", "1"), &options)
        .await
        .unwrap();
    let apps = &weft_kinds::DEPLOYMENT;
    leader
        .create(apps, NS, deployment(3), &options)
        .await
        .unwrap();
    let replicas = async || {
        let found = leader.get(apps, NS, "web").await.unwrap();
        found.value()["spec"]["replicas"].clone()
    };
    let kept = async || leader.get(maps, NS, "m").await.unwrap().value()["data"]["k"].clone();

    cluster
        .meanwhile(
            leader.update_part(apps, NS, SCALE, scale(5), &options),
            follower.update_part(apps, NS, SCALE, scale(3), &options),
        )
        .await
        .unwrap();
    assert_eq!(replicas().await, 3);

    let web = ObjectRef::new(apps, NS, "web");
    let to = |replicas: i64| json!({"spec": {"replicas": replicas}});
    let (five, three) = (to(5), to(3));
    cluster
        .meanwhile(
            leader.patch(web, None, Patch::merge(&five), &options),
            follower.patch(web, None, Patch::merge(&three), &options),
        )
        .await
        .unwrap();
    assert_eq!(replicas().await, 3);

    cluster
        .meanwhile(
            leader.update(maps, NS, map("m", "2"), &options),
            follower.update(maps, NS, map("m", "1"), &options),
        )
        .await
        .unwrap();
    assert_eq!(kept().await, "1");

    // What is gone by now cannot be as somebody wants it.
    let gone = cluster
        .meanwhile(
            leader.delete(maps, NS, "m", &DeleteOptions::default()),
            follower.update(maps, NS, map("m", "1"), &options),
        )
        .await;
    assert_eq!(gone.unwrap_err().code, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_verb_answers_as_if_it_had_known() {
    let cluster = Cluster::start().await;
    let (caller, options) = (admin(), WriteOptions::default());
    let leader = cluster.leader.client(&caller);
    let follower = cluster.follower.client(&caller);
    let maps = &weft_kinds::CONFIG_MAP;
    let delete = DeleteOptions::default();

    // create: the name was taken, or came free, meanwhile.
    let taken = cluster
        .meanwhile(
            leader.create(maps, NS, map("m", "1"), &options),
            follower.create(maps, NS, map("m", "2"), &options),
        )
        .await;
    assert_eq!(taken.unwrap_err().reason, "AlreadyExists");
    cluster
        .meanwhile(
            leader.delete(maps, NS, "m", &delete),
            follower.create(maps, NS, map("m", "3"), &options),
        )
        .await
        .unwrap();

    // A namespace that came to its end meanwhile takes nothing any more: the object would be in none.
    let namespaces = &weft_kinds::NAMESPACE;
    let doomed = |finalizers: Value| {
        object(json!({
            "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "doomed"},
            "spec": {"finalizers": finalizers},
        }))
    };
    leader
        .create(namespaces, None, doomed(json!(["kubernetes"])), &options)
        .await
        .unwrap();
    let ended = async {
        leader.delete(namespaces, None, "doomed", &delete).await?;
        leader
            .update_part(namespaces, None, FINALIZE, doomed(json!([])), &options)
            .await
    };
    let mut orphan = map("o", "1").into_value();
    orphan["metadata"]["namespace"] = "doomed".into();
    let refused = cluster
        .meanwhile(
            ended,
            follower.create(maps, Some("doomed"), object(orphan), &options),
        )
        .await;
    assert_eq!(refused.unwrap_err().code, 404);
    let left = leader
        .list(maps, Some("doomed"), &ListOptions::default())
        .await;
    assert_eq!(left.unwrap().items.len(), 0);

    // get, list and watch.
    let found = cluster
        .meanwhile(
            leader.update(maps, NS, map("m", "4"), &options),
            follower.get(maps, NS, "m"),
        )
        .await;
    assert_eq!(found.unwrap().value()["data"]["k"], "4");
    let everything = ListOptions::default();
    let listed = cluster
        .meanwhile(
            leader.create(maps, NS, map("n", "1"), &options),
            follower.list(maps, NS, &everything),
        )
        .await
        .unwrap();
    let names: Vec<&str> = listed.items.iter().map(|item| item.name()).collect();
    assert_eq!(names, ["m", "n"]);
    let mut watching = cluster
        .meanwhile(
            leader.create(maps, NS, map("o", "1"), &options),
            follower.watch(maps, NS, WatchOptions::default()),
        )
        .await
        .unwrap();
    let mut seen = Vec::new();
    while seen.len() < 3 {
        match watching.next().await {
            Some(WatchEvent::Added(object)) => seen.push(object.name().to_owned()),
            _ => panic!("an event of another type"),
        }
    }
    assert_eq!(seen, ["m", "n", "o"]);

    // update: conditional on what was read before.
    let read = leader.get(maps, NS, "m").await.unwrap().object();
    let mut stale = read.clone().into_value();
    stale["data"]["k"] = "5".into();
    let refused = cluster
        .meanwhile(
            leader.update(maps, NS, map("m", "6"), &options),
            follower.update(maps, NS, object(stale), &options),
        )
        .await;
    assert_eq!(refused.unwrap_err().reason, "Conflict");

    // scale, and patches of each sort: of what is there, not of what was.
    let apps = &weft_kinds::DEPLOYMENT;
    leader
        .create(apps, NS, deployment(1), &options)
        .await
        .unwrap();
    let shown = cluster
        .meanwhile(
            leader.update_part(apps, NS, SCALE, scale(4), &options),
            follower.scale(apps, NS, "web"),
        )
        .await
        .unwrap();
    assert_eq!(shown.as_value()["spec"]["replicas"], 4);
    let web = ObjectRef::new(apps, NS, "web");
    let expects_four = json!([
        {"op": "test", "path": "/spec/replicas", "value": 4},
        {"op": "replace", "path": "/spec/replicas", "value": 6},
    ]);
    let conditional = Patch {
        kind: PatchKind::Json,
        body: &expects_four,
    };
    let refused = cluster
        .meanwhile(
            leader.update_part(apps, NS, SCALE, scale(5), &options),
            follower.patch(web, None, conditional, &options),
        )
        .await;
    assert_eq!(refused.unwrap_err().code, 422);
    let two = json!({"spec": {"replicas": 2}});
    let labelled = json!({"metadata": {"labels": {"a": "b"}}});
    cluster
        .meanwhile(
            leader.patch(web, None, Patch::merge(&labelled), &options),
            follower.patch(web, SCALE, Patch::merge(&two), &options),
        )
        .await
        .unwrap();
    let found = leader.get(apps, NS, "web").await.unwrap().value();
    assert_eq!(
        (
            &found["spec"]["replicas"],
            &found["metadata"]["labels"]["a"]
        ),
        (&json!(2), &json!("b"))
    );

    // status and binding.
    let pods = &weft_kinds::POD;
    leader.create(pods, NS, pod("p"), &options).await.unwrap();
    let phase = |phase: &str| {
        let mut value = pod("p").into_value();
        value["status"] = json!({"phase": phase});
        object(value)
    };
    cluster
        .meanwhile(
            leader.update_part(pods, NS, STATUS, phase("Running"), &options),
            follower.update_part(pods, NS, STATUS, phase("Pending"), &options),
        )
        .await
        .unwrap();
    let found = leader.get(pods, NS, "p").await.unwrap().value();
    assert_eq!(found["status"]["phase"], "Pending");
    let to = |node| Binding {
        pod: "p",
        node,
        uid: "",
        resource_version: "",
    };
    let bound = cluster
        .meanwhile(
            leader.bind("default", to("a"), &options),
            follower.bind("default", to("b"), &options),
        )
        .await;
    assert_eq!(bound.unwrap_err().code, 409);

    // delete: once marked it is marked, and another object of the name is another object.
    let uid = found["metadata"]["uid"].as_str().unwrap().to_owned();
    cluster
        .meanwhile(
            leader.delete(pods, NS, "p", &delete),
            follower.delete(pods, NS, "p", &delete),
        )
        .await
        .unwrap();
    let at_once = DeleteOptions {
        grace_period_seconds: Some(0),
        ..DeleteOptions::default()
    };
    let of_the_first = DeleteOptions {
        uid: Some(uid),
        ..DeleteOptions::default()
    };
    let replaced = async {
        leader.delete(pods, NS, "p", &at_once).await?;
        leader.create(pods, NS, pod("p"), &options).await
    };
    let refused = cluster
        .meanwhile(replaced, follower.delete(pods, NS, "p", &of_the_first))
        .await;
    assert_eq!(refused.unwrap_err().code, 409);
    let evicted = cluster
        .meanwhile(
            leader.delete(pods, NS, "p", &at_once),
            follower.evict("default", "p", &delete),
        )
        .await;
    assert_eq!(evicted.unwrap_err().code, 404);

    // deletecollection takes what is there, not what was.
    cluster
        .meanwhile(
            leader.create(maps, NS, map("z", "1"), &options),
            follower.delete_collection(maps, NS, &everything, &delete),
        )
        .await
        .unwrap();
    let left = leader.list(maps, NS, &everything).await.unwrap();
    assert_eq!(left.items.len(), 0);
}

fn key_value_store(keys: u64) -> Object {
    object(json!({
        "apiVersion": "weft.dev/v1alpha1", "kind": "KeyValueStore",
        "metadata": {"name": "carts", "namespace": "default"},
        "spec": {"quota": {"bytes": "1Mi", "keys": keys}},
    }))
}

/// One operation on its data, by an administrator.
async fn data(objects: &Objects, operation: Value) -> Result<Value, StatusError> {
    let store = ObjectRef::new(&weft_kinds::KEY_VALUE_STORE, NS, "carts");
    let request = RequestInfo::of_object("create", store, Some(Subresource::Data));
    let asked = objects.authorizer().authorize(admin(), request)?;
    let operation = Operation::parse(operation.to_string().as_bytes())?;
    objects.data(&asked, None, operation).await
}

#[tokio::test(flavor = "multi_thread")]
async fn key_values_are_those_that_anyone_was_acknowledged() {
    let cluster = Cluster::start().await;
    let (caller, options) = (admin(), WriteOptions::default());
    let kind = &weft_kinds::KEY_VALUE_STORE;
    let leader = cluster.leader.client(&caller);
    leader
        .create(kind, NS, key_value_store(1), &options)
        .await
        .unwrap();
    let set = |key: &str, value: &str| json!({"op": "set", "key": key, "value": value});
    let get = || json!({"op": "get", "key": "k"});
    let (here, there) = (&cluster.leader, &cluster.follower);

    let seen = cluster
        .meanwhile(data(here, set("k", "MQ==")), data(there, get()))
        .await
        .unwrap();
    assert_eq!(seen["value"], "MQ==");
    let increment = || json!({"op": "increment", "key": "k", "delta": 1});
    let counted = cluster
        .meanwhile(data(here, increment()), data(there, increment()))
        .await
        .unwrap();
    assert_eq!(counted["number"], 3);
    let swap = json!({"op": "compareAndSet", "key": "k", "revision": counted["revision"], "value": "OQ=="});
    let lost = cluster
        .meanwhile(data(here, set("k", "NQ==")), data(there, swap))
        .await
        .unwrap();
    assert_eq!(
        (&lost["swapped"], &lost["value"]),
        (&json!(false), &json!("NQ=="))
    );
    // What was full has room by now, and what had room is full.
    let delete = || json!({"op": "delete", "key": "k"});
    cluster
        .meanwhile(data(here, delete()), data(there, set("other", "")))
        .await
        .unwrap();
    let free = json!({"op": "delete", "key": "other"});
    data(there, free).await.unwrap();
    let full = cluster
        .meanwhile(data(here, set("k", "")), data(there, set("more", "")))
        .await;
    assert_eq!(full.unwrap_err().reason, "QuotaExceeded");
    // Nothing is written to a store that is gone.
    let gone = cluster
        .meanwhile(
            leader.delete(kind, NS, "carts", &DeleteOptions::default()),
            data(there, set("k", "MQ==")),
        )
        .await;
    assert_eq!(gone.unwrap_err().code, 404);
    assert_eq!(
        here.store().snapshot().len_of(DATA_PREFIX.as_bytes()),
        1,
        "what there was"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_holds_on_all_servers_together() {
    let cluster = Cluster::start().await;
    let (caller, options) = (admin(), WriteOptions::default());
    let kind = &weft_kinds::KEY_VALUE_STORE;
    let leader = cluster.leader.client(&caller);
    leader
        .create(kind, NS, key_value_store(20), &options)
        .await
        .unwrap();
    cluster.follower.store().read().await.unwrap();
    let writes = (0..60).map(|number| {
        let objects = match number % 2 {
            0 => &cluster.leader,
            _ => &cluster.follower,
        };
        async move {
            let set = json!({"op": "set", "key": format!("k{number}"), "value": ""});
            match data(objects, set).await {
                Ok(_) => true,
                Err(error) => {
                    assert_eq!(error.reason, "QuotaExceeded", "{}", error.message);
                    false
                }
            }
        }
    });
    let taken = futures::future::join_all(writes).await;
    assert_eq!(taken.into_iter().filter(|taken| *taken).count(), 20);
    let keys = data(&cluster.follower, json!({"op": "listKeys"}))
        .await
        .unwrap();
    assert_eq!(keys["keys"].as_array().unwrap().len(), 20);
    // Increments of one key on both are all counted.
    data(&cluster.leader, json!({"op": "delete", "key": "k0"}))
        .await
        .unwrap();
    data(&cluster.leader, json!({"op": "delete", "key": "k1"}))
        .await
        .unwrap();
    let increments = (0..40).map(|number| {
        let objects = match number % 2 {
            0 => &cluster.leader,
            _ => &cluster.follower,
        };
        data(objects, json!({"op": "increment", "key": "n", "delta": 1}))
    });
    for counted in futures::future::join_all(increments).await {
        counted.unwrap();
    }
    let last = data(
        &cluster.follower,
        json!({"op": "increment", "key": "n", "delta": 0}),
    )
    .await;
    assert_eq!(last.unwrap()["number"], 40);
}

/// Each writer has a key of its own, and sends what was not answered once more under the same id.
#[tokio::test(flavor = "multi_thread")]
async fn increments_are_counted_once_whoever_leads() {
    let cluster = Cluster::start().await;
    let (caller, options) = (admin(), WriteOptions::default());
    let kind = &weft_kinds::KEY_VALUE_STORE;
    let leader = cluster.leader.client(&caller);
    leader
        .create(kind, NS, key_value_store(100), &options)
        .await
        .unwrap();
    cluster.follower.store().read().await.unwrap();
    let writers = (0..8).map(|writer| {
        let objects = match writer % 2 {
            0 => &cluster.leader,
            _ => &cluster.follower,
        };
        async move {
            for turn in 1..=5 {
                let id = format!("{writer}/{turn}");
                let key = format!("k{writer}");
                let increment = json!({"op": "increment", "key": key, "delta": 1, "id": id});
                let counted = insisted(|| data(objects, increment.clone())).await;
                assert_eq!(counted["number"], turn, "{writer}");
            }
        }
    });
    let overthrow = async {
        cluster.stalled.send_replace(true);
        let mut leads = cluster.follower.store().leader();
        let other = leads.wait_for(|leader| leader.is_some_and(|leader| leader != LEADER));
        other.await.unwrap();
        cluster.stalled.send_replace(false);
    };
    futures::join!(futures::future::join_all(writers), overthrow);
}

fn widgets() -> Object {
    object(json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced", "names": {"plural": "widgets", "kind": "Widget"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
                "type": "object", "properties": {"spec": {"type": "object", "properties": {"size": {"type": "integer"}}}},
            }}}],
        },
    }))
}

fn widget(name: &str) -> Object {
    object(json!({
        "apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": name, "namespace": "default"}, "spec": {"size": 1},
    }))
}

/// Whoever was told by the leader that a kind is established, asks a follower that has not heard of its definition.
#[tokio::test(flavor = "multi_thread")]
async fn a_follower_serves_a_kind_that_it_has_not_heard_of_yet() {
    let cluster = Cluster::start().await;
    let (caller, options) = (admin(), WriteOptions::default());
    let leader = cluster.leader.client(&caller);
    let follower = cluster.follower.client(&caller);
    let definitions = &weft_kinds::CUSTOM_RESOURCE_DEFINITION;
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::open_or_create(&dir.path().join("pki"), "cluster.local").unwrap();
    let router = world::face(&cluster.follower, authority, dir.path());
    let listed = async || {
        let request = Request::get("/apis/example.com/v1/namespaces/default/widgets")
            .header(header::AUTHORIZATION, "Bearer secret")
            .body(axum::body::Body::empty());
        let response = router.clone().oneshot(request.unwrap()).await.unwrap();
        response.status().as_u16()
    };
    assert_eq!(listed().await, 404);
    let mut informer = cluster.follower.informer(|_| true);

    let code = cluster
        .meanwhile(
            async {
                let made = leader.create(definitions, None, widgets(), &options);
                made.await?;
                cluster.leader.tend_definitions_once(&caller).await;
                Ok(())
            },
            async { Ok(listed().await) },
        )
        .await
        .unwrap();
    assert_eq!(code, 200);

    // The stream of all objects tells of those of a kind that came while it ran.
    let registry = cluster.leader.registry();
    let kind = registry
        .by_resource("example.com", "v1", "widgets")
        .unwrap();
    leader
        .create(kind, NS, widget("a"), &options)
        .await
        .unwrap();
    let told = async {
        loop {
            match informer.next().await.expect("a change") {
                objects::Change::Upsert { kind, object } if kind.kind == "Widget" => {
                    return object.name().to_owned();
                }
                _ => {}
            }
        }
    };
    let told = tokio::time::timeout(Duration::from_secs(20), told).await;
    assert_eq!(told.unwrap(), "a");

    // Nothing new is stored once the definition is on its way out, whoever has not heard of that.
    let delete = DeleteOptions::default();
    let late = cluster
        .meanwhile(
            leader.delete(definitions, None, "widgets.example.com", &delete),
            follower.create(kind, NS, widget("late"), &options),
        )
        .await;
    assert_eq!(late.unwrap_err().code, 403);
    while cluster.leader.tend_definitions_once(&caller).await {}
    let gone = leader.get(definitions, None, "widgets.example.com").await;
    assert_eq!(gone.err().map(|error| error.code), Some(404));
    cluster.follower.store().read().await.unwrap();
    let prefix = b"/example.com/";
    assert_eq!(cluster.follower.store().snapshot().len_of(prefix), 0);
}

/// A link that two browsers show to two servers at the same moment signs one of them in, and that one is known everywhere at once.
#[tokio::test(flavor = "multi_thread")]
async fn attack_131_a_link_begins_one_session_whichever_servers_are_shown_it() {
    let cluster = Cluster::start().await;
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let face = |objects: &Objects, dir: &tempfile::TempDir| {
        let authority = Authority::open_or_create(&dir.path().join("pki"), "cluster.local");
        world::face(objects, authority.unwrap(), dir.path())
    };
    let one = face(&cluster.leader, &dirs[0]);
    let other = face(&cluster.follower, &dirs[1]);
    let ask = async |router: &axum::Router, line: &str, headers: &[(&str, &str)], body: Value| {
        let (method, path) = line.split_once(' ').unwrap();
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "h:6443")
            .header(header::ORIGIN, "https://h:6443")
            .header("weft-session", "1")
            .header(header::CONTENT_TYPE, "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(axum::body::Body::from(body.to_string()));
        let response = router.clone().oneshot(request.unwrap()).await.unwrap();
        let cookie = response.headers().get(header::SET_COOKIE);
        let cookie =
            cookie.map(|line| line.to_str().unwrap().split(';').next().unwrap().to_owned());
        let status = response.status().as_u16();
        let body = axum::body::to_bytes(response.into_body(), 1 << 20).await;
        let body: Value = serde_json::from_slice(&body.unwrap()).unwrap_or_default();
        (status, cookie, body)
    };
    for _ in 0..8 {
        let bearer = [("authorization", "Bearer user")];
        let (status, _, made) = ask(&one, "POST /dashboard/links", &bearer, Value::Null).await;
        assert_eq!(status, 201, "{made}");
        let by = json!({"link": made["link"]});
        let begin = "POST /dashboard/session";
        let (a, b) = tokio::join!(
            ask(&one, begin, &[], by.clone()),
            ask(&other, begin, &[], by.clone())
        );
        let mut statuses = [a.0, b.0];
        statuses.sort_unstable();
        assert_eq!(statuses, [201, 401], "{} {}", a.2, b.2);
        let cookie = a.1.or(b.1).unwrap();
        let held = [("cookie", cookie.as_str())];
        for router in [&one, &other] {
            let told = ask(router, "GET /dashboard/session", &held, Value::Null).await;
            assert_eq!(told.2["user"]["name"], "jo", "{}", told.2);
        }
        let out = ask(&other, "DELETE /dashboard/session", &held, Value::Null).await;
        assert_eq!(out.0, 204);
    }
}
