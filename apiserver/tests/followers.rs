//! The verbs on a server that is behind the leader: whoever is acknowledged there got what he asked for, on the newest state.
//!
//! Three servers in one process, over a network that can hold back what a follower is to learn. What the follower is asked
//! meanwhile must come out as if it had known.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::watch;
use weft_api::object::Object;
use weft_api::status::StatusError;
use weft_apiserver::caller::Caller;
use weft_apiserver::objects::{
    self, Binding, DeleteOptions, ListOptions, Objects, WatchEvent, WatchOptions, WriteOptions,
};
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
}

impl Network for Wire {
    fn call(
        &self,
        peer: Peer,
        lane: Lane,
        request: Bytes,
    ) -> BoxFuture<'static, Result<Bytes, NetworkError>> {
        let (from, servers, mut behind) = (self.from, self.servers.clone(), self.behind.clone());
        async move {
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
    _dirs: Vec<tempfile::TempDir>,
    behind: watch::Sender<bool>,
    leader: Objects,
    follower: Objects,
}

impl Cluster {
    async fn start() -> Self {
        let servers = Servers::default();
        let (behind, held) = watch::channel(false);
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
        let objects =
            |server| Objects::new(servers.lock()[&server].clone(), objects::Config::default());
        let (leader, follower) = (objects(LEADER), objects(FOLLOWER));
        leader.ensure_permanent_namespaces(&admin()).await.unwrap();
        Self {
            _dirs: dirs,
            behind,
            leader,
            follower,
        }
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

/// `kubectl scale --replicas=3` on a follower that had not heard of 5 yet was answered 200, and 5 stayed.
#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_finds_everything_as_it_wants_it_is_told_on_the_newest_state() {
    let cluster = Cluster::start().await;
    let (leader, follower) = (&cluster.leader, &cluster.follower);
    let (caller, options) = (admin(), WriteOptions::default());
    let maps = &weft_kinds::CONFIG_MAP;
    leader
        .create(&caller, maps, NS, map("m", "1"), &options)
        .await
        .unwrap();
    let apps = &weft_kinds::DEPLOYMENT;
    leader
        .create(&caller, apps, NS, deployment(3), &options)
        .await
        .unwrap();
    let replicas = async || {
        let found = leader.get(&caller, apps, NS, "web").await.unwrap();
        found.value()["spec"]["replicas"].clone()
    };
    let kept =
        async || leader.get(&caller, maps, NS, "m").await.unwrap().value()["data"]["k"].clone();

    cluster
        .meanwhile(
            leader.update_scale(&caller, apps, NS, "web", scale(5), &options),
            follower.update_scale(&caller, apps, NS, "web", scale(3), &options),
        )
        .await
        .unwrap();
    assert_eq!(replicas().await, 3);

    let to = |replicas: i64| json!({"spec": {"replicas": replicas}});
    let (five, three) = (to(5), to(3));
    cluster
        .meanwhile(
            leader.patch(
                &caller,
                apps,
                NS,
                "web",
                None,
                PatchKind::Merge,
                &five,
                &options,
            ),
            follower.patch(
                &caller,
                apps,
                NS,
                "web",
                None,
                PatchKind::Merge,
                &three,
                &options,
            ),
        )
        .await
        .unwrap();
    assert_eq!(replicas().await, 3);

    cluster
        .meanwhile(
            leader.update(&caller, maps, NS, "m", map("m", "2"), &options),
            follower.update(&caller, maps, NS, "m", map("m", "1"), &options),
        )
        .await
        .unwrap();
    assert_eq!(kept().await, "1");

    // What is gone by now cannot be as somebody wants it.
    let gone = cluster
        .meanwhile(
            leader.delete(&caller, maps, NS, "m", &DeleteOptions::default()),
            follower.update(&caller, maps, NS, "m", map("m", "1"), &options),
        )
        .await;
    assert_eq!(gone.unwrap_err().code, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_verb_answers_as_if_it_had_known() {
    let cluster = Cluster::start().await;
    let (leader, follower) = (&cluster.leader, &cluster.follower);
    let (caller, options) = (admin(), WriteOptions::default());
    let maps = &weft_kinds::CONFIG_MAP;
    let delete = DeleteOptions::default();

    // create: the name was taken, or came free, meanwhile.
    let taken = cluster
        .meanwhile(
            leader.create(&caller, maps, NS, map("m", "1"), &options),
            follower.create(&caller, maps, NS, map("m", "2"), &options),
        )
        .await;
    assert_eq!(taken.unwrap_err().reason, "AlreadyExists");
    cluster
        .meanwhile(
            leader.delete(&caller, maps, NS, "m", &delete),
            follower.create(&caller, maps, NS, map("m", "3"), &options),
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
        .create(
            &caller,
            namespaces,
            None,
            doomed(json!(["kubernetes"])),
            &options,
        )
        .await
        .unwrap();
    let ended = async {
        leader
            .delete(&caller, namespaces, None, "doomed", &delete)
            .await?;
        leader
            .finalize_namespace(&caller, "doomed", doomed(json!([])), &options)
            .await
    };
    let mut orphan = map("o", "1").into_value();
    orphan["metadata"]["namespace"] = "doomed".into();
    let refused = cluster
        .meanwhile(
            ended,
            follower.create(&caller, maps, Some("doomed"), object(orphan), &options),
        )
        .await;
    assert_eq!(refused.unwrap_err().code, 404);
    let left = leader
        .list(&caller, maps, Some("doomed"), &ListOptions::default())
        .await;
    assert_eq!(left.unwrap().items.len(), 0);

    // get, list and watch.
    let found = cluster
        .meanwhile(
            leader.update(&caller, maps, NS, "m", map("m", "4"), &options),
            follower.get(&caller, maps, NS, "m"),
        )
        .await;
    assert_eq!(found.unwrap().value()["data"]["k"], "4");
    let everything = ListOptions::default();
    let listed = cluster
        .meanwhile(
            leader.create(&caller, maps, NS, map("n", "1"), &options),
            follower.list(&caller, maps, NS, &everything),
        )
        .await
        .unwrap();
    let names: Vec<&str> = listed.items.iter().map(|item| item.name()).collect();
    assert_eq!(names, ["m", "n"]);
    let mut watching = cluster
        .meanwhile(
            leader.create(&caller, maps, NS, map("o", "1"), &options),
            follower.watch(&caller, maps, NS, WatchOptions::default()),
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
    let read = leader.get(&caller, maps, NS, "m").await.unwrap().object();
    let mut stale = read.clone().into_value();
    stale["data"]["k"] = "5".into();
    let refused = cluster
        .meanwhile(
            leader.update(&caller, maps, NS, "m", map("m", "6"), &options),
            follower.update(&caller, maps, NS, "m", object(stale), &options),
        )
        .await;
    assert_eq!(refused.unwrap_err().reason, "Conflict");

    // status and binding.
    let pods = &weft_kinds::POD;
    leader
        .create(&caller, pods, NS, pod("p"), &options)
        .await
        .unwrap();
    let phase = |phase: &str| {
        let mut value = pod("p").into_value();
        value["status"] = json!({"phase": phase});
        object(value)
    };
    cluster
        .meanwhile(
            leader.update_status(&caller, pods, NS, "p", phase("Running"), &options),
            follower.update_status(&caller, pods, NS, "p", phase("Pending"), &options),
        )
        .await
        .unwrap();
    let found = leader.get(&caller, pods, NS, "p").await.unwrap().value();
    assert_eq!(found["status"]["phase"], "Pending");
    let to = |node| Binding {
        node,
        uid: "",
        resource_version: "",
    };
    let bound = cluster
        .meanwhile(
            leader.bind(&caller, "default", "p", to("a"), &options),
            follower.bind(&caller, "default", "p", to("b"), &options),
        )
        .await;
    assert_eq!(bound.unwrap_err().code, 409);

    // delete: once marked it is marked, and another object of the name is another object.
    let uid = found["metadata"]["uid"].as_str().unwrap().to_owned();
    cluster
        .meanwhile(
            leader.delete(&caller, pods, NS, "p", &delete),
            follower.delete(&caller, pods, NS, "p", &delete),
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
        leader.delete(&caller, pods, NS, "p", &at_once).await?;
        leader.create(&caller, pods, NS, pod("p"), &options).await
    };
    let refused = cluster
        .meanwhile(
            replaced,
            follower.delete(&caller, pods, NS, "p", &of_the_first),
        )
        .await;
    assert_eq!(refused.unwrap_err().code, 409);
    let evicted = cluster
        .meanwhile(
            leader.delete(&caller, pods, NS, "p", &at_once),
            follower.evict(&caller, "default", "p", &delete),
        )
        .await;
    assert_eq!(evicted.unwrap_err().code, 404);

    // deletecollection takes what is there, not what was.
    cluster
        .meanwhile(
            leader.create(&caller, maps, NS, map("z", "1"), &options),
            follower.delete_collection(&caller, maps, NS, &everything, &delete),
        )
        .await
        .unwrap();
    let left = leader.list(&caller, maps, NS, &everything).await.unwrap();
    assert_eq!(left.items.len(), 0);
}
