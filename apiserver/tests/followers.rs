//! The verbs on a server that is behind the leader: whoever is acknowledged there got what he asked for, on the newest state.
//!
//! Three servers in one process, over a network that can hold back what a follower is to learn. What the follower is asked
//! meanwhile must come out as if it had known; so must what kube-rs' watcher tells, which nodes and operators follow a cluster with.

mod world;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt as _, Stream, StreamExt as _};
use http::{HeaderValue, Request, header};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{ListParams, VersionMatch, WatchParams};
use kube::runtime::{WatchStreamExt as _, reflector, watcher};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::watch;
use tower::ServiceExt as _;
use weft_api::object::Object;
use weft_api::status::StatusError;

use weft_apiserver::ca::Authority;
use weft_apiserver::caller::Caller;
use weft_apiserver::objects::{
    self, Binding, DATA_PREFIX, DeleteOptions, ListOptions, Objects, Operation, Page, Patch,
    WatchBounds, WatchEvent, WatchOptions, WriteOptions,
};
use weft_apiserver::request::{ObjectRef, RequestInfo};
use weft_kinds::Subresource;
use weft_kinds::patch::PatchKind;
use weft_store::{Config, Lane, Network, NetworkError, Peer, ServerId, Start, Store};

const LEADER: ServerId = 1;
const FOLLOWER: ServerId = 3;

/// All servers, as the network finds them.
type Servers = Arc<Mutex<BTreeMap<ServerId, Store>>>;

/// The way out of one server.
struct Wire {
    from: ServerId,
    servers: Servers,
    /// While true, nobody sends the follower entries of the log; all else flows.
    behind: watch::Receiver<bool>,
    /// While true, the first leader hears and says nothing, as a process that was stopped.
    stalled: watch::Receiver<bool>,
}

impl Network for Wire {
    fn call(
        &self,
        peer: Peer,
        lane: Lane,
        request: Bytes,
    ) -> BoxFuture<'static, Result<Bytes, NetworkError>> {
        let (from, servers) = (self.from, self.servers.clone());
        let (mut behind, mut stalled) = (self.behind.clone(), self.stalled.clone());
        async move {
            if from == LEADER || peer.server == LEADER {
                let _ = stalled.wait_for(|stalled| !stalled).await;
            }
            if peer.server == FOLLOWER && lane != Lane::Control {
                let _ = behind.wait_for(|behind| !behind).await;
            }
            let store = servers.lock().get(&peer.server).cloned();
            let gone = || NetworkError::Unreachable("it is not there".to_owned());
            Ok(store.ok_or_else(gone)?.answer(Some(from), request).await)
        }
        .boxed()
    }
}

struct Cluster {
    dirs: Vec<tempfile::TempDir>,
    behind: watch::Sender<bool>,
    stalled: watch::Sender<bool>,
    leader: Objects,
    follower: Objects,
}

impl Cluster {
    async fn start() -> Self {
        Self::remembering(WatchBounds::default()).await
    }

    /// One whose servers remember so much for watches.
    async fn remembering(watch: WatchBounds) -> Self {
        let servers = Servers::default();
        let (behind, held) = watch::channel(false);
        let (stalled, standing) = watch::channel(false);
        let mut dirs = Vec::new();
        for server in [LEADER, 2, FOLLOWER] {
            let dir = tempfile::tempdir().unwrap();
            let address = format!("server-{server}:1");
            let start = match server {
                LEADER => Start::Alone,
                _ => Start::Joining,
            };
            if server != LEADER {
                let first = servers.lock()[&LEADER].clone();
                assert_eq!(first.add_learner(address.clone()).await.unwrap(), server);
            }
            let wire = Wire {
                from: server,
                servers: servers.clone(),
                behind: held.clone(),
                stalled: standing.clone(),
            };
            let config = Config {
                server_id: server,
                address,
                start,
                ..Config::new(dir.path())
            };
            let store = Store::open_with(config, Arc::new(wire)).await.unwrap();
            servers.lock().insert(server, store.clone());
            if server == LEADER {
                let mut leadership = store.leadership();
                leadership.wait_for(Option::is_some).await.unwrap();
            } else {
                let first = servers.lock()[&LEADER].clone();
                first.promote(server).await.unwrap();
            }
            dirs.push(dir);
        }
        let objects = |server| {
            let config = objects::Config {
                watch,
                ..objects::Config::default()
            };
            Objects::new(servers.lock()[&server].clone(), config)
        };
        let (leader, follower) = (objects(LEADER), objects(FOLLOWER));
        leader.ensure_permanent_namespaces(&admin()).await.unwrap();
        Self {
            dirs,
            behind,
            stalled,
            leader,
            follower,
        }
    }

    /// kube-rs' view of one kind on a server.
    fn kube(&self, objects: &Objects) -> kube::Api<ConfigMap> {
        let dir = self.dirs[0].path();
        let authority = Authority::open_or_create(&dir.join("pki"), "cluster.local").unwrap();
        let router = world::face(objects, authority, dir);
        let service = tower::service_fn(move |mut request: Request<kube::client::Body>| {
            let bearer = HeaderValue::from_static("Bearer secret");
            request.headers_mut().insert(header::AUTHORIZATION, bearer);
            router.clone().oneshot(request.map(axum::body::Body::new))
        });
        kube::Api::namespaced(kube::Client::new(service, "default"), "default")
    }

    /// Brings both to one state, lets the leader go on alone by `first`, asks the follower `then`, and only after that
    /// lets it learn what happened.
    async fn meanwhile<A, B>(
        &self,
        first: impl Future<Output = Result<A, StatusError>>,
        then: impl Future<Output = Result<B, StatusError>>,
    ) -> Result<B, StatusError> {
        self.follower.store().read().await.unwrap();
        self.behind.send_replace(true);
        assert!(first.await.is_ok(), "the leader goes on");
        let mut then = std::pin::pin!(then);
        // Whoever answers without asking is done by now, and wrong.
        let early = tokio::time::timeout(Duration::from_millis(50), then.as_mut()).await;
        self.behind.send_replace(false);
        match early {
            Ok(answer) => answer,
            Err(_) => then.await,
        }
    }
}

fn admin() -> Caller {
    Caller::client_certificate("root", vec!["system:masters".to_owned()])
}

fn object(value: Value) -> Object {
    Object::from_value(value).unwrap()
}

fn map(name: &str, k: &str) -> Object {
    object(json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "default"},
        "data": {"k": k},
    }))
}

fn pod(name: &str) -> Object {
    object(json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"},
        "spec": {"containers": [{"name": "c", "image": "vote/web:1"}]},
    }))
}

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

const NS: Option<&str> = Some("default");
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

fn names(page: &Page) -> Vec<String> {
    page.items
        .iter()
        .map(|item| item.name().to_owned())
        .collect()
}

/// A load balancer sends each page of a list to another server.
#[tokio::test(flavor = "multi_thread")]
async fn a_list_begun_on_one_server_goes_on_on_another() {
    let cluster = Cluster::start().await;
    let (caller, options) = (admin(), WriteOptions::default());
    let leader = cluster.leader.client(&caller);
    let follower = cluster.follower.client(&caller);
    let maps = &weft_kinds::CONFIG_MAP;
    for name in ["a", "b", "c"] {
        let created = leader.create(maps, NS, map(name, "1"), &options);
        created.await.unwrap();
    }
    let page = |token: Option<String>| ListOptions {
        limit: Some(2),
        continue_token: token,
        ..ListOptions::default()
    };

    // Begun on the leader at a revision that the follower has not heard of: it waits for it.
    cluster.follower.store().read().await.unwrap();
    cluster.behind.send_replace(true);
    let created = leader.create(maps, NS, map("d", "1"), &options);
    created.await.unwrap();
    let first = leader.list(maps, NS, &page(None)).await.unwrap();
    assert_eq!(names(&first), ["a", "b"]);
    let next = page(first.next.clone());
    let mut rest = std::pin::pin!(follower.list(maps, NS, &next));
    let early = tokio::time::timeout(Duration::from_millis(50), rest.as_mut()).await;
    assert!(early.is_err(), "it cannot know yet");
    cluster.behind.send_replace(false);
    let rest = rest.await.unwrap();
    assert_eq!(names(&rest), ["c", "d"]);
    assert_eq!((rest.revision, rest.next), (first.revision, None));

    // Begun on the follower, continued on the leader after the rest was deleted there: the list shows one revision.
    let first = follower.list(maps, NS, &page(None)).await.unwrap();
    let now = DeleteOptions::default();
    for name in ["c", "d"] {
        leader.delete(maps, NS, name, &now).await.unwrap();
    }
    let rest = leader.list(maps, NS, &page(first.next.clone())).await;
    let rest = rest.unwrap();
    assert_eq!(names(&rest), ["c", "d"]);
    assert_eq!(rest.revision, first.revision);
    let anew = follower.list(maps, NS, &page(None)).await.unwrap();
    assert_eq!(names(&anew), ["a", "b"]);
}

/// A client that listed on one server watches on another, which is behind what it was told.
#[tokio::test(flavor = "multi_thread")]
async fn a_watch_from_a_revision_that_is_still_to_come_begins_there() {
    let cluster = Cluster::start().await;
    let (caller, options) = (admin(), WriteOptions::default());
    let leader = cluster.leader.client(&caller);
    let follower = cluster.follower.client(&caller);
    let maps = &weft_kinds::CONFIG_MAP;
    // The follower has a cache of the kind, which is behind as well.
    follower
        .list(maps, NS, &ListOptions::default())
        .await
        .unwrap();
    let listing = async {
        leader.create(maps, NS, map("a", "1"), &options).await?;
        leader.list(maps, NS, &ListOptions::default()).await
    };
    cluster.follower.store().read().await.unwrap();
    cluster.behind.send_replace(true);
    let listed = listing.await.unwrap();
    assert!(listed.revision > cluster.follower.store().snapshot().revision());
    let from = WatchOptions {
        resource_version: Some(listed.revision),
        ..WatchOptions::default()
    };
    let mut watching = std::pin::pin!(follower.watch(maps, NS, from));
    let early = tokio::time::timeout(Duration::from_millis(50), watching.as_mut()).await;
    assert!(early.is_err(), "it cannot know yet");
    cluster.behind.send_replace(false);
    let mut watching = watching.await.unwrap();
    let created = leader.create(maps, NS, map("b", "1"), &options);
    created.await.unwrap();
    // What the list showed is not told again, and nothing is left out.
    match watching.next().await {
        Some(WatchEvent::Added(object)) => assert_eq!(object.name(), "b"),
        _ => panic!("an event of another type"),
    }
}

/// Until an answer is one that a client takes: it repeats what was answered 429, 503 and 504, as client-go does.
async fn insisted<T, F>(mut ask: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<T, StatusError>>,
{
    loop {
        match ask().await {
            Ok(answer) => return answer,
            Err(error) if matches!(error.code, 429 | 503 | 504) => tokio::task::yield_now().await,
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_stood_still_tells_nothing_that_was_overtaken() {
    let cluster = Cluster::start().await;
    let (caller, options) = (admin(), WriteOptions::default());
    let leader = cluster.leader.client(&caller);
    let follower = cluster.follower.client(&caller);
    let maps = &weft_kinds::CONFIG_MAP;
    let created = leader.create(maps, NS, map("m", "1"), &options);
    created.await.unwrap();
    let term = *cluster.leader.store().leadership().borrow();

    cluster.stalled.send_replace(true);
    // What comes to the others is taken by the leader that they choose.
    insisted(|| follower.update(maps, NS, map("m", "2"), &options)).await;
    let found = insisted(|| follower.get(maps, NS, "m")).await;
    assert_eq!(found.value()["data"]["k"], "2");

    // What was asked of the one that stands still, before it hears of that.
    let mut reading = std::pin::pin!(leader.get(maps, NS, "m"));
    let early = tokio::time::timeout(Duration::from_millis(50), reading.as_mut()).await;
    if let Ok(Ok(found)) = early {
        panic!("it told {} of its own", found.value());
    }
    cluster.stalled.send_replace(false);
    let found = insisted(|| leader.get(maps, NS, "m")).await;
    assert_eq!(found.value()["data"]["k"], "2");
    // A controller that acts for a leadership that is over writes nothing more.
    let deposed = Caller::system("deployment", term);
    let deposed = cluster.leader.client(&deposed);
    let written = deposed.update(maps, NS, map("m", "3"), &options).await;
    assert_eq!(written.unwrap_err().code, 503);
    insisted(|| leader.update(maps, NS, map("m", "4"), &options)).await;
    let found = insisted(|| follower.get(maps, NS, "m")).await;
    assert_eq!(found.value()["data"]["k"], "4");
}

/// How long anything may take that is sure to come.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a watcher of kube-rs tells next. Errors are its own to mend.
async fn told(
    events: &mut (impl Stream<Item = watcher::Result<watcher::Event<ConfigMap>>> + Unpin),
) -> String {
    let text = |map: ConfigMap| {
        let value = map.data.unwrap_or_default().remove("k");
        let name = map.metadata.name.unwrap_or_default();
        format!("{name}={}", value.unwrap_or_default())
    };
    loop {
        let next = tokio::time::timeout(PATIENCE, events.next());
        match next.await.expect("an event in time") {
            Some(Ok(watcher::Event::Init) | Err(_)) => {}
            Some(Ok(watcher::Event::InitApply(map))) => return format!("listed {}", text(map)),
            Some(Ok(watcher::Event::InitDone)) => return "whole".to_owned(),
            Some(Ok(watcher::Event::Apply(map))) => return format!("applied {}", text(map)),
            Some(Ok(watcher::Event::Delete(map))) => return format!("deleted {}", text(map)),
            None => panic!("a watcher never ends"),
        }
    }
}

/// Up to the end of a list.
async fn listed(
    events: &mut (impl Stream<Item = watcher::Result<watcher::Event<ConfigMap>>> + Unpin),
) -> Vec<String> {
    let mut seen = Vec::new();
    loop {
        match told(events).await {
            end if end == "whole" => return seen,
            other => seen.push(other),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reflector_on_a_follower_is_told_each_change_once_however_late() {
    let cluster = Cluster::start().await;
    let (caller, options) = (admin(), WriteOptions::default());
    let leader = cluster.leader.client(&caller);
    let maps = &weft_kinds::CONFIG_MAP;
    for name in ["a", "b"] {
        let created = leader.create(maps, NS, map(name, "1"), &options);
        created.await.unwrap();
    }
    let (reflected, writer) = reflector::store();
    let events = watcher(cluster.kube(&cluster.follower), watcher::Config::default());
    let mut events = std::pin::pin!(events.default_backoff().reflect(writer));
    assert_eq!(listed(&mut events).await, ["listed a=1", "listed b=1"]);

    cluster.behind.send_replace(true);
    let created = leader.create(maps, NS, map("c", "1"), &options);
    created.await.unwrap();
    let updated = leader.update(maps, NS, map("a", "2"), &options);
    updated.await.unwrap();
    let deleted = DeleteOptions::default();
    leader.delete(maps, NS, "b", &deleted).await.unwrap();
    let early = tokio::time::timeout(Duration::from_millis(50), told(&mut events)).await;
    assert!(early.is_err(), "it cannot know yet");
    // One that begins now lists what others were told, not what is here.
    let late = watcher(cluster.kube(&cluster.follower), watcher::Config::default());
    let mut late = std::pin::pin!(late.default_backoff());
    let early = tokio::time::timeout(Duration::from_millis(50), told(&mut late)).await;
    assert!(early.is_err(), "it cannot know yet");

    cluster.behind.send_replace(false);
    assert_eq!(listed(&mut late).await, ["listed a=2", "listed c=1"]);
    let mut seen = Vec::new();
    for _ in 0..3 {
        seen.push(told(&mut events).await);
    }
    assert_eq!(seen, ["applied c=1", "applied a=2", "deleted b=1"]);
    let state = reflected.state();
    let mut names: Vec<_> = state.iter().map(|map| map.metadata.name.clone()).collect();
    names.sort();
    assert_eq!(names, [Some("a".to_owned()), Some("c".to_owned())]);
}

/// A load balancer gives a client another server for its watch than for its list.
#[tokio::test(flavor = "multi_thread")]
async fn revisions_of_another_server_are_waited_for_and_forgotten_ones_told_in_the_stream() {
    let cluster = Cluster::remembering(WatchBounds {
        history_changes_max: 4,
        queue_changes_max: 4,
        ..WatchBounds::default()
    })
    .await;
    let (caller, options) = (admin(), WriteOptions::default());
    let leader = cluster.leader.client(&caller);
    let maps = &weft_kinds::CONFIG_MAP;
    let created = leader.create(maps, NS, map("a", "1"), &options);
    created.await.unwrap();
    let (here, there) = (
        cluster.kube(&cluster.leader),
        cluster.kube(&cluster.follower),
    );
    let slept = watcher(there.clone(), watcher::Config::default());
    let mut slept = std::pin::pin!(slept.default_backoff());
    assert_eq!(listed(&mut slept).await, ["listed a=1"]);

    // Ahead of the follower: it begins, or answers, as soon as it is there.
    cluster.behind.send_replace(true);
    let created = leader.create(maps, NS, map("b", "1"), &options);
    created.await.unwrap();
    let listed_here = here.list(&ListParams::default()).await.unwrap();
    let revision = listed_here.metadata.resource_version.unwrap();
    let params = WatchParams::default();
    let mut watching = std::pin::pin!(there.watch(&params, &revision));
    let at = ListParams::default()
        .at(&revision)
        .matching(VersionMatch::NotOlderThan);
    let mut listing = std::pin::pin!(there.list(&at));
    let early = tokio::time::timeout(Duration::from_millis(50), watching.as_mut()).await;
    assert!(early.is_err(), "it cannot know yet");
    let early = tokio::time::timeout(Duration::from_millis(50), listing.as_mut()).await;
    assert!(early.is_err(), "it cannot know yet");
    cluster.behind.send_replace(false);
    assert_eq!(listing.await.unwrap().items.len(), 2);
    let mut watching = std::pin::pin!(watching.await.unwrap());
    let created = leader.create(maps, NS, map("c", "1"), &options);
    created.await.unwrap();
    // What the list showed is not told again, and nothing is left out.
    match watching.next().await {
        Some(Ok(kube::api::WatchEvent::Added(map))) => {
            assert_eq!(map.metadata.name.as_deref(), Some("c"));
        }
        other => panic!("{other:?}"),
    }

    // Behind all that the follower remembers: the answer is 200, and the stream says it.
    for value in 0..9 {
        let updated = leader.update(maps, NS, map("a", &format!("{value}x")), &options);
        updated.await.unwrap();
    }
    cluster.follower.store().read().await.unwrap();
    let anew = there.watch(&params, &revision).await;
    let mut anew = std::pin::pin!(anew.unwrap());
    match anew.next().await {
        Some(Ok(kube::api::WatchEvent::Error(status))) => {
            assert_eq!((status.code, status.reason.as_str()), (410, "Expired"));
        }
        other => panic!("{other:?}"),
    }
    // And a watcher that slept over it lists again, once, by itself.
    let mut seen = vec![told(&mut slept).await];
    while !seen.last().unwrap().starts_with("listed ") {
        seen.push(told(&mut slept).await);
    }
    let mut again = seen.split_off(seen.len() - 1);
    again.extend(listed(&mut slept).await);
    assert_eq!(again, ["listed a=8x", "listed b=1", "listed c=1"]);
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

/// What is bound or taken back anywhere, counts on each server as soon as it has heard of it, and that is at its next word with the leader.
#[tokio::test(flavor = "multi_thread")]
async fn a_binding_holds_and_ends_on_every_server() {
    let cluster = Cluster::start().await;
    let (caller, options) = (admin(), WriteOptions::default());
    let jo = Caller::client_certificate("jo", vec![]);
    let list = || RequestInfo::of_collection("list", &weft_kinds::CONFIG_MAP, NS, None);
    let allowed = async |objects: &Objects| {
        objects.store().read().await.unwrap();
        objects.authorizer().settle().await;
        objects.authorizer().authorize(jo.clone(), list()).is_ok()
    };
    let group = "rbac.authorization.k8s.io";
    let role = object(json!({
        "apiVersion": format!("{group}/v1"), "kind": "Role",
        "metadata": {"name": "reader", "namespace": "default"},
        "rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["list"]}],
    }));
    let binding = |user: &str| {
        object(json!({
            "apiVersion": format!("{group}/v1"), "kind": "RoleBinding",
            "metadata": {"name": "reader", "namespace": "default"},
            "roleRef": {"apiGroup": group, "kind": "Role", "name": "reader"},
            "subjects": [{"apiGroup": group, "kind": "User", "name": user}],
        }))
    };
    let kind = &weft_kinds::ROLE_BINDING;
    let leader = cluster.leader.client(&caller);
    let follower = cluster.follower.client(&caller);
    leader
        .create(&weft_kinds::ROLE, NS, role, &options)
        .await
        .unwrap();
    for round in 0..5 {
        for objects in [&cluster.leader, &cluster.follower] {
            assert!(!allowed(objects).await, "round {round}");
        }
        leader
            .create(kind, NS, binding("jo"), &options)
            .await
            .unwrap();
        for objects in [&cluster.follower, &cluster.leader] {
            assert!(allowed(objects).await, "round {round}");
        }
        // It is somebody else's now, and then nobody's; whichever server was asked for that.
        let other = follower.update(kind, NS, binding("ko"), &options).await;
        other.unwrap();
        for objects in [&cluster.leader, &cluster.follower] {
            assert!(!allowed(objects).await, "round {round}");
        }
        let options = DeleteOptions::default();
        follower.delete(kind, NS, "reader", &options).await.unwrap();
    }
}
