//! Three servers in one process, over a network that can hold back what one of them is to learn.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::{HeaderValue, Request, header};
use k8s_openapi::api::core::v1::ConfigMap;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::watch;
use tower::ServiceExt as _;
use weft_api::object::Object;
use weft_api::status::StatusError;
use weft_apiserver::ca::Authority;
use weft_apiserver::caller::Caller;
use weft_apiserver::objects::{self, Objects, WatchBounds};
use weft_store::{Config, Lane, Network, NetworkError, Peer, ServerId, Start, Store};

use crate::world;

pub const LEADER: ServerId = 1;
pub const FOLLOWER: ServerId = 3;

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

pub struct Cluster {
    dirs: Vec<tempfile::TempDir>,
    pub behind: watch::Sender<bool>,
    pub stalled: watch::Sender<bool>,
    pub leader: Objects,
    /// One that nothing is held back from.
    pub other: Objects,
    pub follower: Objects,
}

impl Cluster {
    pub async fn start() -> Self {
        Self::remembering(WatchBounds::default()).await
    }

    /// One whose servers remember so much for watches.
    pub async fn remembering(watch: WatchBounds) -> Self {
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
        let (leader, other, follower) = (objects(LEADER), objects(2), objects(FOLLOWER));
        leader.ensure_permanent_namespaces(&admin()).await.unwrap();
        Self {
            dirs,
            behind,
            stalled,
            leader,
            other,
            follower,
        }
    }

    /// kube-rs' view of one kind on a server.
    pub fn kube(&self, objects: &Objects) -> kube::Api<ConfigMap> {
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
    pub async fn meanwhile<A, B>(
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

pub fn admin() -> Caller {
    Caller::client_certificate("root", vec!["system:masters".to_owned()])
}

pub fn object(value: Value) -> Object {
    Object::from_value(value).unwrap()
}

pub fn map(name: &str, k: &str) -> Object {
    object(json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "default"},
        "data": {"k": k},
    }))
}

pub fn pod(name: &str) -> Object {
    object(json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"},
        "spec": {"containers": [{"name": "c", "image": "vote/web:1"}]},
    }))
}

pub const NS: Option<&str> = Some("default");

/// Until an answer is one that a client takes: it repeats what was answered 429, 503 and 504, as client-go does.
pub async fn insisted<T, F>(mut ask: impl FnMut() -> F) -> T
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
