//! An API server in a temporary folder, and the words its tests are written in.

// Each test program uses the part of it that it needs.
#![allow(dead_code)]

use std::path::Path;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::{HeaderMap, Request, header};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;
use weft_apiserver::audit::Audit;
use weft_apiserver::authn::{AuthenticationConfiguration, Authenticator, StaticToken};
use weft_apiserver::ca::Authority;
use weft_apiserver::caller::Caller;
use weft_apiserver::http::{
    AppState, proxy::NodeClient, registry::Registry, router, servers::Servers,
};
use weft_apiserver::objects::{self, Objects, WatchBounds};
use weft_store::Store;

pub const JSON: &str = "application/json";
pub const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

pub struct World {
    pub router: Router,
    pub objects: Objects,
    pub dir: TempDir,
}

pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Value,
}

impl Answer {
    /// One line: the code, and what a person would say about the body.
    pub fn line(&self) -> String {
        let body = &self.body;
        let text = |pointer: &str| body.pointer(pointer).and_then(Value::as_str).unwrap_or("");
        let told = match text("/kind") {
            "Status" if text("/status") == "Success" => {
                format!("Success {}", text("/details/name"))
                    .trim()
                    .to_owned()
            }
            "Status" => format!("{}: {}", text("/reason"), text("/message")),
            kind if kind.ends_with("List") => {
                let names: Vec<&str> = body["items"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(|item| item["metadata"]["name"].as_str())
                    .collect();
                format!("{kind} [{}]", names.join(" "))
            }
            "Table" => body["rows"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|row| row["cells"].to_string())
                .collect::<Vec<_>>()
                .join(" "),
            kind => format!("{kind} {}", text("/metadata/name")),
        };
        format!("{} {told}", self.status)
    }
}

/// What differs from one test's server to another's.
pub struct Setup {
    /// What watches and lists can go back to.
    pub watch: WatchBounds,
    /// Whether certificate requests are signed while they are created.
    pub signs: bool,
    /// What time it is.
    pub clock: fn() -> jiff::Timestamp,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            watch: WatchBounds::default(),
            signs: true,
            clock: jiff::Timestamp::now,
        }
    }
}

/// The HTTP face of `objects`, with a folder for its files.
pub fn face(objects: &Objects, authority: Authority, dir: &Path) -> Router {
    router(state(objects, authority, dir))
}

/// The HTTP face of a world, with requests written down.
pub fn face_audited(world: &World, audit: Audit) -> Router {
    let dir = world.dir.path();
    let authority = Authority::open_or_create(&dir.join("pki"), "cluster.local").unwrap();
    router(state(&world.objects, authority, dir).audited(Some(audit)))
}

/// The HTTP face of a world, and what has it order requests by the objects in the store, for as long as that is polled.
pub fn face_ordered(
    world: &World,
    closing: CancellationToken,
) -> (Router, impl Future<Output = ()> + use<>) {
    let dir = world.dir.path();
    let authority = Authority::open_or_create(&dir.join("pki"), "cluster.local").unwrap();
    let state = state(&world.objects, authority, dir);
    let follower = state.flow_control().follow(world.objects.clone(), closing);
    (router(state), follower)
}

/// The HTTP face of a world, and what has it ask nodes for the edges of their calls, for as long as that is polled.
pub fn face_counting(
    world: &World,
    closing: CancellationToken,
) -> (Router, impl Future<Output = ()> + use<>) {
    let dir = world.dir.path();
    let authority = Authority::open_or_create(&dir.join("pki"), "cluster.local").unwrap();
    let known = authenticator(&world.objects);
    let state = state_until(&world.objects, authority, dir, known, closing.clone());
    let collector = state.collect_edges(closing);
    (router(state), collector)
}

/// The HTTP face of a world, with tokens of others believed.
pub fn face_believing(world: &World, others: &AuthenticationConfiguration) -> Router {
    let dir = world.dir.path();
    let authority = Authority::open_or_create(&dir.join("pki"), "cluster.local").unwrap();
    let known = authenticator(&world.objects).believing(others).unwrap();
    router(state_with(&world.objects, authority, dir, known))
}

fn state(objects: &Objects, authority: Authority, dir: &Path) -> AppState {
    state_with(objects, authority, dir, authenticator(objects))
}

fn authenticator(objects: &Objects) -> Authenticator {
    let token = |secret: &str, user: &str, groups: &[&str]| {
        let groups = groups.iter().map(|&group| group.to_owned()).collect();
        StaticToken::new(secret, user, None, groups)
    };
    let tokens = vec![
        token("secret", "admin", &["system:masters"]),
        token("node", "system:node:a", &["system:nodes"]),
        token("user", "jo", &[]),
    ];
    Authenticator::new(objects.clone(), tokens)
}

fn state_with(
    objects: &Objects,
    authority: Authority,
    dir: &Path,
    known: Authenticator,
) -> AppState {
    state_until(objects, authority, dir, known, CancellationToken::new())
}

fn state_until(
    objects: &Objects,
    authority: Authority,
    dir: &Path,
    known: Authenticator,
    closing: CancellationToken,
) -> AppState {
    AppState::new(
        objects.clone(),
        known,
        Registry::open(&dir.join("registry"), objects.store().clone()).unwrap(),
        NodeClient::new(&authority).unwrap(),
        Servers {
            authority,
            cluster_id: "test".to_owned(),
            server_id: 1,
            peer_address: Some("10.0.0.1:6444".to_owned()),
            key_file: dir.join("none"),
            scratch_dir: dir.to_owned(),
        },
        closing,
    )
}

impl World {
    pub async fn new() -> Self {
        Self::with(Setup::default()).await
    }

    pub async fn with(setup: Setup) -> Self {
        let Setup {
            watch,
            signs,
            clock,
        } = setup;
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(weft_store::Config::new(dir.path().join("store")))
            .await
            .unwrap();
        let mut leadership = store.leadership();
        leadership.wait_for(Option::is_some).await.unwrap();
        let authority =
            Authority::open_or_create(&dir.path().join("pki"), "cluster.local").unwrap();
        let images = Registry::open(&dir.path().join("registry"), store.clone()).unwrap();
        let objects = Objects::new(
            store,
            objects::Config {
                authority: signs.then(|| authority.clone()),
                images: Some(images),
                watch,
                clock,
                ..objects::Config::default()
            },
        );
        objects
            .ensure_permanent_namespaces(&Caller::system("apiserver", None))
            .await
            .unwrap();
        Self {
            router: face(&objects, authority, dir.path()),
            objects,
            dir,
        }
    }

    /// As a cluster has them from its beginning: the kinds of the Gateway API.
    pub async fn define_gateway_api(&self) {
        let caller = Caller::system("apiserver", None);
        self.objects.ensure_gateway_api(&caller).await.unwrap();
    }

    pub fn request(
        &self,
        line: &str,
        headers: &[(header::HeaderName, &str)],
        body: &str,
    ) -> Request<Body> {
        let (method, path) = line.split_once(' ').unwrap();
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::AUTHORIZATION, "Bearer secret");
        for (name, value) in headers {
            request = request.header(name, *value);
        }
        request.body(Body::from(body.to_owned())).unwrap()
    }

    /// The code, and the body as it came.
    pub async fn send_for_bytes(&self, request: Request<Body>) -> (u16, Vec<u8>) {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        (parts.status.as_u16(), bytes.to_vec())
    }

    pub async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let body = serde_json::from_slice(&bytes)
            .unwrap_or_else(|_| String::from_utf8_lossy(&bytes).into_owned().into());
        Answer {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body,
        }
    }

    pub async fn ask(&self, line: &str, body: Value) -> Answer {
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        self.send(self.request(line, &[], &body)).await
    }

    /// The same, asked by whoever has another token.
    pub async fn ask_as(&self, token: &str, line: &str, body: Value) -> Answer {
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let mut request = self.request(line, &[], &body);
        let bearer = header::HeaderValue::from_str(&format!("Bearer {token}")).unwrap();
        request.headers_mut().insert(header::AUTHORIZATION, bearer);
        self.send(request).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.ask(&format!("GET {path}"), Value::Null).await
    }

    pub async fn patch(&self, path: &str, kind: &str, body: Value) -> Answer {
        let kind = format!("application/{kind}+json");
        let request = self.request(
            &format!("PATCH {path}"),
            &[(header::CONTENT_TYPE, &kind)],
            &body.to_string(),
        );
        self.send(request).await
    }

    pub async fn table(&self, path: &str) -> Answer {
        self.send(self.request(&format!("GET {path}"), &[(header::ACCEPT, TABLE)], ""))
            .await
    }

    /// Asks each line and writes down what came back.
    pub async fn transcript(&self, requests: &[(&str, Value)]) -> String {
        let mut lines = Vec::new();
        for (line, body) in requests {
            lines.push(self.ask(line, body.clone()).await.line());
        }
        lines.join("\n")
    }

    /// Opens a watch and returns its lines as they come.
    pub async fn watch(&self, path: &str) -> Lines {
        let request = self.request(&format!("GET {path}"), &[(header::ACCEPT, JSON)], "");
        let response = self.router.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), 200);
        Lines {
            body: response.into_body(),
            rest: Vec::new(),
        }
    }
}

pub struct Lines {
    pub body: Body,
    pub rest: Vec<u8>,
}

impl Lines {
    pub async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            let frame = tokio::time::timeout(Duration::from_secs(20), self.body.frame())
                .await
                .expect("a line in time")?;
            self.rest
                .extend_from_slice(&frame.unwrap().into_data().unwrap());
        }
    }

    /// `TYPE name value-of-label-v` of the next events.
    pub async fn told(&mut self, count: usize) -> String {
        let mut told = Vec::new();
        for _ in 0..count {
            let event = self.next().await.expect("an event");
            let object = &event["object"];
            told.push(
                format!(
                    "{} {} {}",
                    event["type"].as_str().unwrap(),
                    object["metadata"]["name"].as_str().unwrap_or("-"),
                    object["metadata"]["labels"]["v"].as_str().unwrap_or(""),
                )
                .trim()
                .to_owned(),
            );
        }
        told.join(", ")
    }
}

pub fn pod(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": "web"}},
        "spec": {"containers": [{"name": "c", "image": "vote/web:1"}]},
    })
}

pub fn config_map(name: &str, v: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name, "labels": {"v": v}},
        "data": {"k": v},
    })
}

pub fn deployment(replicas: i64) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "c", "image": "vote/web:1"}]},
            },
        },
    })
}

pub const PODS: &str = "/api/v1/namespaces/default/pods";
pub const MAPS: &str = "/api/v1/namespaces/default/configmaps";
pub const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
pub const SERVICES: &str = "/api/v1/namespaces/default/services";
