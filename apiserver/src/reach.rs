//! How this server reaches what is behind a Service, or in a pod: webhooks, servers of further APIs, and whoever is proxied to.
//!
//! A Service leads to one of its ready endpoints ([`State::service`]). An endpoint that is an address is connected to. One that is a pod is
//! a component, which has no address outside of the mesh: its node is asked, over the mutual TLS by which nodes are asked for logs, as
//! `kube-apiserver` of `system:masters`, to hand the request to that pod's port (`/podProxy/NAMESPACE/POD/UID/PORT/PATH`), and does so through the
//! mesh's own door. So what is spoken to the component is plain HTTP, whatever scheme was asked for: that it is the component, and nobody on the way,
//! is proven by the certificates of server and node, and no bundle of a configuration is asked. A guest that listens by itself is connected to
//! through its node (`/podStream/NAMESPACE/POD/UID/PORT`) where TLS is asked for, and proves who it is as any server does.
//!
//! Invariants: a pod is the one that the endpoint means, by its uid; a node is believed for its own name and address only; a connection is made in
//! a bounded time. Left to others: what is sent (`crate::webhook`, `crate::aggregation`, `crate::http`), the node's side (`weft_agent`).

pub(crate) mod tls;

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::Body;
use http::{HeaderName, HeaderValue, Request, Response, StatusCode, Uri, header};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use weft_api::status::StatusError;
use weft_kinds::lens::{items, text};
use weft_kinds::{ENDPOINT_SLICE, KindRef, NODE, POD, SERVICE};
use weft_store::Snapshot;

use crate::encryption::Vault;
use crate::http::proxy::{NodeClient, NodeError, POD_PROXY};
use crate::stored::{self, Stored};

/// From the first packet to the end of TLS, as Go's client waits for the former.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// The ports that URLs mean when they name none.
const HTTP_PORT: u16 = 80;
const HTTPS_PORT: u16 = 443;
/// A node's endpoint for connections, and what a request to it goes on as.
const POD_STREAM: &str = "/podStream/";
const STREAM_PROTOCOL: &str = "weft-stream/1";
/// By which a node says that it has not handed a request on, and why. No component can: the mesh takes such headers off.
const NOT_REACHED: HeaderName = HeaderName::from_static("x-weft-not-reached");

/// Where something is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// `HOST:PORT` to connect to.
    Address(String),
    /// By way of the pod's node.
    Pod(Box<PodPort>),
}

/// A port of a component.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PodPort {
    namespace: String,
    pod: String,
    uid: String,
    port: u16,
    /// Its address in the mesh, for whoever is told of it.
    address: String,
    /// The node's object.
    node: Value,
}

impl Way {
    /// What is told of it: `HOST:PORT`.
    pub(crate) fn address(&self) -> &str {
        match self {
            Self::Address(address) => address,
            Self::Pod(pod) => &pod.address,
        }
    }

    /// What tells it from all others.
    pub(crate) fn key(&self) -> String {
        match self {
            Self::Address(address) => address.clone(),
            Self::Pod(pod) => pod.prefix(),
        }
    }
}

impl PodPort {
    /// What stands before a path for the node to know whom it is for.
    fn prefix(&self) -> String {
        let Self {
            namespace,
            pod,
            uid,
            port,
            ..
        } = self;
        format!("{POD_PROXY}{namespace}/{pod}/{uid}/{port}")
    }

    /// A connection to the guest that listens there itself, on one to its node; none where a component is served, or nobody is.
    async fn stream(&self, mut node: SendRequest<Body>) -> Option<TokioIo<Upgraded>> {
        let Self {
            namespace,
            pod,
            uid,
            port,
            ..
        } = self;
        let request = Request::get(format!("{POD_STREAM}{namespace}/{pod}/{uid}/{port}"))
            .header(header::HOST, "localhost")
            .header(header::CONNECTION, "Upgrade")
            .header(header::UPGRADE, STREAM_PROTOCOL)
            .body(Body::empty());
        let sending = node.send_request(request.ok()?);
        let answered = tokio::time::timeout(CONNECT_TIMEOUT, sending).await;
        let response = answered.ok()?.ok()?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return None;
        }
        hyper::upgrade::on(response).await.ok().map(TokioIo::new)
    }
}

/// A state of the cluster, to look for ways in.
#[derive(Clone, Copy)]
pub(crate) struct State<'a> {
    pub snapshot: &'a Snapshot,
    pub vault: &'a Vault,
}

/// Endpoints of one Service are asked in turn.
pub(crate) fn turn() -> usize {
    static TURN: AtomicUsize = AtomicUsize::new(0);
    TURN.fetch_add(1, Ordering::Relaxed)
}

impl State<'_> {
    pub(crate) fn object(
        &self,
        kind: KindRef<'_>,
        namespace: Option<&str>,
        name: &str,
    ) -> Option<Value> {
        let found = self.snapshot.get(&stored::key(kind, namespace, name))?;
        Some(Stored::new(self.vault, kind, found).value())
    }

    /// The slices of a Service.
    pub(crate) fn slices(&self, namespace: &str, service: &str) -> Vec<Value> {
        let prefix = stored::prefix(&ENDPOINT_SLICE, Some(namespace));
        let entries = self.snapshot.range(&prefix, None);
        let slices = entries.map(|entry| Stored::new(self.vault, &ENDPOINT_SLICE, entry).value());
        let label = "/metadata/labels/kubernetes.io~1service-name";
        slices
            .filter(|slice| text(slice, label) == service)
            .collect()
    }

    /// The way to a port of a Service; of its endpoints `pick` chooses one.
    ///
    /// # Errors
    /// Why there is none.
    pub(crate) fn service(
        &self,
        namespace: &str,
        name: &str,
        port: u16,
        pick: usize,
    ) -> Result<Way, String> {
        let Some(service) = self.object(&SERVICE, Some(namespace), name) else {
            return Err(format!("service {name:?} not found"));
        };
        if text(&service, "/spec/type") == "ExternalName" {
            let host = text(&service, "/spec/externalName");
            return Ok(Way::Address(format!("{host}:{port}")));
        }
        let mut ports = items(&service, "/spec/ports").iter();
        let Some(known) = ports.find(|known| known["port"] == port) else {
            return Err(format!("no service port {port} found for service {name:?}"));
        };
        let mut ways = self.ways(namespace, name, text(known, "/name"), false);
        match ways.len() {
            0 => Err(format!("no endpoints available for service {name:?}")),
            count => Ok(ways.swap_remove(pick % count)),
        }
    }

    /// The way that `services/NAME:PORT/proxy` takes: to pods only, by number or name of the port.
    ///
    /// # Errors
    /// 404 and 503 in Kubernetes' words.
    pub(crate) fn proxied_service(
        &self,
        namespace: &str,
        name: &str,
        port: &str,
        pick: usize,
    ) -> Result<Way, StatusError> {
        let mut port_name = port.to_owned();
        if let Ok(number) = port.parse::<i64>() {
            let service = self.object(&SERVICE, Some(namespace), name);
            let service = service.ok_or_else(|| StatusError::not_found("services", "", name))?;
            let mut ports = items(&service, "/spec/ports").iter();
            let known = ports.find(|known| known["port"] == number);
            let known = known.ok_or_else(|| {
                let told = format!("no service port {number} found for service {name:?}");
                StatusError::unavailable(told)
            })?;
            port_name = text(known, "/name").to_owned();
        }
        let mut ways = self.ways(namespace, name, &port_name, true);
        match ways.len() {
            0 => Err(StatusError::unavailable(format!(
                "no endpoints available for service {name:?}"
            ))),
            count => Ok(ways.swap_remove(pick % count)),
        }
    }

    /// The way that `pods/NAME:PORT/proxy` takes: without a port, to the first that its containers name.
    ///
    /// # Errors
    /// 400, 404 and 503 in Kubernetes' words.
    pub(crate) fn proxied_pod(
        &self,
        namespace: &str,
        name: &str,
        port: &str,
        secure: bool,
    ) -> Result<Way, StatusError> {
        let pod = self.object(&POD, Some(namespace), name);
        let pod = pod.ok_or_else(|| StatusError::not_found("pods", "", name))?;
        let ip = text(&pod, "/status/podIP");
        if ip.parse::<std::net::IpAddr>().is_err() {
            return Err(StatusError::bad_request("address not allowed"));
        }
        let first = || {
            let mut containers = items(&pod, "/spec/containers").iter();
            let first = containers.find_map(|container| items(container, "/ports").first());
            let number = first.and_then(|port| port["containerPort"].as_u64());
            number.and_then(|number| u16::try_from(number).ok())
        };
        let port = match port {
            "" => first().unwrap_or(if secure { HTTPS_PORT } else { HTTP_PORT }),
            port => port
                .parse()
                .map_err(|_| unreachable(&format!("dial tcp: lookup tcp/{port}: unknown port")))?,
        };
        let way = self.pod(&pod, port);
        way.ok_or_else(|| {
            unreachable(&format!(
                "dial tcp {}: connect: no route to host",
                joined(ip, port)
            ))
        })
    }

    /// All ways to a port of a Service, by the name that it has there.
    fn ways(&self, namespace: &str, service: &str, port: &str, pods_only: bool) -> Vec<Way> {
        let mut found = Vec::new();
        for slice in self.slices(namespace, service) {
            let mut ports = items(&slice, "/ports").iter();
            let number = ports
                .find(|known| text(known, "/name") == port)
                .and_then(|known| known["port"].as_u64())
                .and_then(|number| u16::try_from(number).ok());
            let Some(number) = number else {
                continue;
            };
            for endpoint in items(&slice, "/endpoints") {
                if endpoint["conditions"]["ready"] == Value::Bool(false) {
                    continue;
                }
                if text(endpoint, "/targetRef/kind") == "Pod" {
                    found.extend(self.endpoint_pod(namespace, endpoint, number));
                } else if !pods_only {
                    let addresses = items(endpoint, "/addresses").iter();
                    let addresses = addresses.filter_map(Value::as_str);
                    found.extend(addresses.map(|address| Way::Address(joined(address, number))));
                }
            }
        }
        found
    }

    /// The pod that an endpoint means, where it is one of its namespace and still there.
    fn endpoint_pod(&self, namespace: &str, endpoint: &Value, port: u16) -> Option<Way> {
        let named = text(endpoint, "/targetRef/namespace");
        let pod = text(endpoint, "/targetRef/name");
        if !named.is_empty() && named != namespace {
            return None;
        }
        let pod = self.object(&POD, Some(namespace), pod)?;
        let uid = text(endpoint, "/targetRef/uid");
        let same = uid.is_empty() || uid == text(&pod, "/metadata/uid");
        same.then(|| self.pod(&pod, port)).flatten()
    }

    fn pod(&self, pod: &Value, port: u16) -> Option<Way> {
        let node = self.object(&NODE, None, text(pod, "/spec/nodeName"))?;
        let name = |pointer| text(pod, pointer).to_owned();
        Some(Way::Pod(Box::new(PodPort {
            namespace: name("/metadata/namespace"),
            pod: name("/metadata/name"),
            uid: name("/metadata/uid"),
            port,
            address: joined(text(pod, "/status/podIP"), port),
            node,
        })))
    }
}

fn joined(host: &str, port: u16) -> String {
    match host.contains(':') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    }
}

/// What whoever is proxied for is told of an end that cannot be reached.
pub(crate) fn unreachable(why: &str) -> StatusError {
    StatusError::unavailable(format!("error trying to reach service: {why}"))
}

/// How an address, or a guest that listens, is met with TLS; a component is not.
pub(crate) struct Tls<'a> {
    pub connector: &'a TlsConnector,
    pub server_name: &'a str,
}

/// The connecting end. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Reach {
    nodes: Option<NodeClient>,
}

/// A connection to somebody, for one exchange after the other.
pub(crate) struct Line {
    sender: SendRequest<Body>,
    prefix: String,
}

impl Reach {
    pub(crate) fn new(nodes: Option<NodeClient>) -> Self {
        Self { nodes }
    }

    /// A new connection.
    ///
    /// # Errors
    /// Why there is none, in the words of Go's client.
    pub(crate) async fn open(&self, way: &Way, tls: Option<Tls<'_>>) -> Result<Line, String> {
        match way {
            Way::Address(address) => {
                let opening = open_address(address, tls);
                let opened = tokio::time::timeout(CONNECT_TIMEOUT, opening).await;
                opened.unwrap_or_else(|_| Err(format!("dial tcp {address}: i/o timeout")))
            }
            Way::Pod(pod) => {
                let address = &pod.address;
                let Some(nodes) = &self.nodes else {
                    return Err(format!("dial tcp {address}: connect: no route to host"));
                };
                let open = async || {
                    let opened = nodes.open(&pod.node).await;
                    opened.map(|(sender, _)| sender).map_err(|error| {
                        let why = match error {
                            NodeError::Timeout { .. } => "i/o timeout",
                            _ => "connect: no route to host",
                        };
                        // Where nodes are, is not for everybody to know.
                        tracing::debug!(%error, address, "a pod's node is out of reach");
                        format!("dial tcp {address}: {why}")
                    })
                };
                if let Some(tls) = tls
                    && let Some(stream) = pod.stream(open().await?).await
                {
                    return secured(stream, tls).await;
                }
                Ok(Line {
                    sender: open().await?,
                    prefix: pod.prefix(),
                })
            }
        }
    }
}

async fn open_address(address: &str, tls: Option<Tls<'_>>) -> Result<Line, String> {
    let tcp = TcpStream::connect(address).await.map_err(|error| {
        let why = match error.kind() {
            io::ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
            _ => error.to_string(),
        };
        format!("dial tcp {address}: {why}")
    })?;
    // Small questions must not wait for the acknowledgement of the one before.
    let _ = tcp.set_nodelay(true);
    match tls {
        Some(tls) => secured(tcp, tls).await,
        None => shake_hands(tcp).await,
    }
}

async fn secured(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    Tls {
        connector,
        server_name,
    }: Tls<'_>,
) -> Result<Line, String> {
    let name = ServerName::try_from(server_name.to_owned()).map_err(|error| error.to_string())?;
    let stream = connector.connect(name, stream).await;
    let stream = stream.map_err(|error| format!("tls: failed to verify certificate: {error}"))?;
    shake_hands(stream).await
}

async fn shake_hands(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> Result<Line, String> {
    let shaken = http1::handshake(TokioIo::new(stream)).await;
    let (sender, connection) = shaken.map_err(|error| error.to_string())?;
    // Ends with its sender and the last body, which are dropped with their exchange or with who keeps the connection.
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "a connection to a service ended early");
        }
    });
    Ok(Line {
        sender,
        prefix: String::new(),
    })
}

/// Why there is no answer.
pub(crate) enum Unanswered {
    /// The connection ended before there was one: where it had been idle, another may be tried.
    Lost(String),
    Failed(String),
}

impl Unanswered {
    pub(crate) fn why(self) -> String {
        match self {
            Self::Lost(why) | Self::Failed(why) => why,
        }
    }
}

impl Line {
    /// Waits until it takes a request; whether it does.
    pub(crate) async fn is_ready(&mut self) -> bool {
        self.sender.ready().await.is_ok()
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Sends a request, whose URI has path and query, and which names its host.
    ///
    /// # Errors
    /// [`Unanswered`]; an answer with any status is none.
    pub(crate) async fn send(
        &mut self,
        mut request: Request<Body>,
    ) -> Result<Response<Incoming>, Unanswered> {
        if !self.prefix.is_empty() {
            let target = request.uri().path_and_query();
            let target = target.map_or("/", http::uri::PathAndQuery::as_str);
            let target: Result<Uri, _> = format!("{}{target}", self.prefix).parse();
            *request.uri_mut() = target.map_err(|error| Unanswered::Failed(error.to_string()))?;
        }
        if !request.headers().contains_key(header::HOST) {
            let host = HeaderValue::from_static("localhost");
            request.headers_mut().insert(header::HOST, host);
        }
        let sent = self.sender.send_request(request).await;
        let mut response = sent.map_err(|error| {
            let lost = error.is_canceled() || error.is_closed() || error.is_incomplete_message();
            match lost {
                true => Unanswered::Lost("EOF".to_owned()),
                false => Unanswered::Failed(error.to_string()),
            }
        })?;
        if self.prefix.is_empty() {
            return Ok(response);
        }
        match response.headers_mut().remove(NOT_REACHED) {
            Some(why) => {
                let why = why.to_str().unwrap_or("connect: connection refused");
                Err(Unanswered::Failed(why.to_owned()))
            }
            None => Ok(response),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use weft_store::{Mutation, Precondition, Store};

    use super::*;
    use crate::encryption::Vault;

    /// What a state with these objects knows.
    async fn with(objects: &[Value], judge: impl Fn(State<'_>)) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(weft_store::Config::new(dir.path()))
            .await
            .unwrap();
        let mut leadership = store.leadership();
        leadership.wait_for(Option::is_some).await.unwrap();
        for object in objects {
            let kind = match text(object, "/kind") {
                "Service" => &SERVICE,
                "EndpointSlice" => &ENDPOINT_SLICE,
                "Pod" => &POD,
                _ => &NODE,
            };
            let namespace = kind.namespaced.then_some("shop");
            let key = stored::key(kind, namespace, text(object, "/metadata/name"));
            let value = stored::encode(object).unwrap();
            let put = Mutation::put(key, Precondition::None, value);
            store.write(vec![put], None).await.unwrap();
        }
        let vault = Vault::new(store.clone(), None);
        let snapshot = store.snapshot();
        judge(State {
            snapshot: &snapshot,
            vault: &vault,
        });
        store.shutdown().await;
    }

    fn service(kind: &str) -> Value {
        json!({
            "kind": "Service", "metadata": {"name": "s", "namespace": "shop"},
            "spec": {"type": kind, "externalName": "a.example", "ports": [{"name": "https", "port": 443}]},
        })
    }

    fn slice(endpoints: Value) -> Value {
        json!({
            "kind": "EndpointSlice",
            "metadata": {"name": "s-1", "namespace": "shop", "labels": {"kubernetes.io/service-name": "s"}},
            "ports": [{"name": "https", "port": 8443}], "endpoints": endpoints,
        })
    }

    fn pod() -> [Value; 2] {
        [
            json!({
                "kind": "Pod", "metadata": {"name": "p", "namespace": "shop", "uid": "u"},
                "spec": {"nodeName": "a", "containers": [{}, {"ports": [{"containerPort": 8080}]}]},
                "status": {"podIP": "10.42.0.3"},
            }),
            json!({"kind": "Node", "metadata": {"name": "a"}}),
        ]
    }

    #[tokio::test]
    async fn a_service_leads_to_its_ready_endpoints() {
        let of_pod = |uid: &str| json!([{"addresses": ["10.42.0.3"], "targetRef": {"kind": "Pod", "namespace": "shop", "name": "p", "uid": uid}}]);
        for (objects, port, expected) in [
            (
                vec![
                    service("ClusterIP"),
                    slice(json!([{"addresses": ["10.0.0.1"]}, {"addresses": ["10.0.0.2"]}])),
                ],
                443,
                "10.0.0.2:8443",
            ),
            (
                vec![
                    service("ClusterIP"),
                    slice(json!([{"addresses": ["10.0.0.1"], "conditions": {"ready": false}}])),
                ],
                443,
                "no endpoints available for service \"s\"",
            ),
            (
                vec![
                    service("ClusterIP"),
                    slice(json!([{"addresses": ["fd00::1"]}])),
                ],
                443,
                "[fd00::1]:8443",
            ),
            (
                vec![service("ClusterIP")],
                80,
                "no service port 80 found for service \"s\"",
            ),
            (vec![service("ExternalName")], 8, "a.example:8"),
            (vec![], 443, "service \"s\" not found"),
            (
                [
                    vec![service("ClusterIP"), slice(of_pod("u"))],
                    pod().to_vec(),
                ]
                .concat(),
                443,
                "/podProxy/shop/p/u/8443",
            ),
            // Another pod of that name.
            (
                [
                    vec![service("ClusterIP"), slice(of_pod("old"))],
                    pod().to_vec(),
                ]
                .concat(),
                443,
                "no endpoints available for service \"s\"",
            ),
        ] {
            with(&objects, |state| {
                let found = state.service("shop", "s", port, 1);
                let found = found.map_or_else(|why| why, |way| way.key());
                assert_eq!(found, expected);
            })
            .await;
        }
    }

    #[tokio::test]
    async fn what_is_proxied_to_is_a_pod_at_a_port() {
        let endpoints = json!([
            {"addresses": ["10.0.0.1"]},
            {"addresses": ["10.42.0.3"], "targetRef": {"kind": "Pod", "namespace": "shop", "name": "p"}},
        ]);
        let objects = [vec![service("ClusterIP"), slice(endpoints)], pod().to_vec()].concat();
        with(&objects, |state| {
            let told = |found: Result<Way, StatusError>| match found {
                Ok(way) => way.key(),
                Err(error) => format!("{} {}", error.code, error.message),
            };
            for (name, port, expected) in [
                ("s", "443", "/podProxy/shop/p/u/8443"),
                ("s", "https", "/podProxy/shop/p/u/8443"),
                ("s", "", "503 no endpoints available for service \"s\""),
                ("s", "80", "503 no service port 80 found for service \"s\""),
                ("t", "80", "404 services \"t\" not found"),
                ("t", "x", "503 no endpoints available for service \"t\""),
            ] {
                for pick in 0..2 {
                    let found = state.proxied_service("shop", name, port, pick);
                    assert_eq!(told(found), expected, "{name}:{port}");
                }
            }
            for (name, port, expected) in [
                ("p", "", "/podProxy/shop/p/u/8080"),
                ("p", "9", "/podProxy/shop/p/u/9"),
                (
                    "p",
                    "web",
                    "503 error trying to reach service: dial tcp: lookup tcp/web: unknown port",
                ),
                ("q", "9", "404 pods \"q\" not found"),
            ] {
                assert_eq!(told(state.proxied_pod("shop", name, port, false)), expected);
            }
        })
        .await;
    }

    fn port(node: Value) -> Way {
        Way::Pod(Box::new(PodPort {
            namespace: "shop".to_owned(),
            pod: "p".to_owned(),
            uid: "u".to_owned(),
            port: 8080,
            address: "10.42.0.3:8080".to_owned(),
            node,
        }))
    }

    #[tokio::test]
    async fn a_component_is_reached_through_its_node_and_no_other() {
        let answer = |request: &Request<Incoming>| {
            let host = request.headers()[header::HOST].to_str().unwrap();
            let mut response = Response::new(format!("{} at {host}", request.uri()));
            // Nobody listens by himself: it is a component.
            if request.uri().path().starts_with(POD_STREAM) {
                *response.status_mut() = StatusCode::NOT_FOUND;
            }
            if request.uri().path().ends_with("/gone") {
                let why = HeaderValue::from_static("connect: connection refused");
                response.headers_mut().insert(NOT_REACHED, why);
            }
            response
        };
        let connector = tls::client_config(tls::Trust::Anybody, None).unwrap();
        let connector = TlsConnector::from(connector);
        let ask = async |name: &str, path: &str, is_tls: bool| {
            let (client, mut node) = crate::http::proxy::fake::node("127.0.0.1", answer).await;
            node["metadata"]["name"] = name.into();
            let reach = Reach::new(Some(client));
            let tls = is_tls.then_some(Tls {
                connector: &connector,
                server_name: "hook.shop.svc",
            });
            let mut line = reach.open(&port(node), tls).await?;
            let request = Request::get(path).header(header::HOST, "hook.shop.svc:443");
            let sent = line.send(request.body(Body::empty()).unwrap()).await;
            let body = sent.map_err(Unanswered::why)?.into_body();
            let body = http_body_util::BodyExt::collect(body).await.unwrap();
            Ok::<_, String>(String::from_utf8_lossy(&body.to_bytes()).into_owned())
        };
        for (name, path, expected) in [
            (
                "a",
                "/ask?timeout=1s",
                Ok("/podProxy/shop/p/u/8080/ask?timeout=1s at hook.shop.svc:443"),
            ),
            ("a", "/gone", Err("connect: connection refused")),
            // Whoever else answers at the node's address is not asked.
            (
                "b",
                "/ask",
                Err("dial tcp 10.42.0.3:8080: connect: no route to host"),
            ),
        ] {
            for is_tls in [false, true] {
                let found = ask(name, path, is_tls).await;
                let found = found.as_ref().map(String::as_str).map_err(String::as_str);
                assert_eq!(found, expected, "{name} {path} {is_tls}");
            }
        }
        let nobody = Reach::default().open(&port(json!({})), None).await;
        assert!(nobody.is_err());
    }
}
