//! A cluster of manifests on one node: Gateways with addresses of their own, and Services whose workloads say what they were asked.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::{HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use serde_json::Value;
use weft_api::identity::SpiffeId;
use weft_api::view;
use weft_gateway::{NamespacedName, Object, Objects, api, compile};
use weft_mesh::{
    Body, CancellationToken, EndpointSpec, Failure, LocalWorkload, Mesh, PodAddress, Raw,
    ServicePortSpec, ServiceSpec, SpeaksH2, Table, WorkloadInfo, WorkloadService,
};

const DOMAIN: &str = "cluster.local";
/// What every cluster here has.
const OWN: &str = r"
- kind: GatewayClass
  metadata: {name: weft}
  spec: {controllerName: weft.dev/gateway-controller}
- kind: Node
  metadata: {name: a, annotations: {weft.dev/gateway-port: '8080', weft.dev/service-addresses: 192.0.2.0/24}}
  status: {addresses: [{type: InternalIP, address: 127.0.0.1}], conditions: [{type: Ready, status: 'True'}]}
- kind: Namespace
  metadata: {name: infra, labels: {team: infra}}
- kind: Namespace
  metadata: {name: web, labels: {team: web}}
- kind: Service
  metadata: {name: v1, namespace: infra}
  spec: {clusterIP: 10.43.0.1, ports: [{name: http, port: 8080}, {name: h2c, port: 8081, appProtocol: kubernetes.io/h2c}]}
- kind: Service
  metadata: {name: v2, namespace: infra}
  spec: {clusterIP: 10.43.0.2, ports: [{name: http, port: 8080}]}
- kind: Service
  metadata: {name: v3, namespace: infra}
  spec: {clusterIP: 10.43.0.3, ports: [{name: http, port: 8080}]}
- kind: Service
  metadata: {name: far, namespace: web}
  spec: {clusterIP: 10.43.0.4, ports: [{name: http, port: 8080}]}
- kind: Service
  metadata: {name: empty, namespace: infra}
  spec: {clusterIP: 10.43.0.5, ports: [{name: http, port: 8080}]}
- kind: Gateway
  metadata: {name: same, namespace: infra}
  spec:
    gatewayClassName: weft
    listeners: [{name: http, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: All}}}]
";

/// Who is asked, beside a raw call.
#[derive(Debug, Clone)]
pub struct Asked(pub String);

/// How workloads answer raw calls, if a test has any.
pub type OnRaw = Arc<dyn Fn(Request<Body>) -> Response<Body> + Send + Sync>;

pub struct World {
    /// What serves as long as it is held.
    _mesh: Mesh,
    /// By the Gateway's name and a listener's port: where it really is.
    places: BTreeMap<(String, u16), SocketAddr>,
    /// What each workload was asked: `name METHOD path`.
    pub heard: Arc<Mutex<Vec<String>>>,
    stop: CancellationToken,
}

/// What came of a request.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: http::HeaderMap,
    pub body: Value,
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl World {
    pub async fn of(manifests: &str) -> Self {
        Self::with_raw(manifests, None).await
    }

    pub async fn with_raw(manifests: &str, on_raw: Option<OnRaw>) -> Self {
        let mut objects = Objects::default();
        let mut services = Vec::new();
        for text in [OWN, manifests] {
            let values: Vec<Value> =
                serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{error}:\n{text}"));
            for value in values {
                if value["kind"] == "Service" {
                    services.push(value.clone());
                }
                objects.apply(read(&value));
            }
        }
        let compiled = compile(&objects);
        let mesh = Mesh::builder("a", DOMAIN).build();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let mut specs = Vec::new();
        for (value, number) in services.iter().zip(1_u8..) {
            let name = value["metadata"]["name"].as_str().expect("a name");
            let namespace = value["metadata"]["namespace"].as_str().expect("one");
            specs.push(spec(value, namespace, name, number));
            mesh.attach(
                PodAddress {
                    ip: pod(number),
                    port: 8080,
                },
                workload(namespace, name, Arc::clone(&heard), on_raw.clone()),
            );
        }
        let table = Table::builder("a", 1)
            .services(specs)
            .routes(&compiled.served)
            .build();
        mesh.publish(table);
        let stop = CancellationToken::new();
        let mut places = BTreeMap::new();
        for (name, status) in &compiled.gateways {
            let own: IpAddr = status.addresses[0].parse().expect("an address");
            let served = &compiled.served;
            let streams = served.streams.keys().map(|(_, place)| place);
            let all: BTreeSet<&SocketAddr> = served.fronts.keys().chain(streams).collect();
            for place in all.into_iter().filter(|place| place.ip() == own) {
                let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
                let real = listener.local_addr().expect("its address");
                let (mesh, place, stop) = (mesh.clone(), *place, stop.clone());
                tokio::spawn(async move { mesh.serve_place(place, listener, stop).await });
                places.insert((name.name.clone(), place.port()), real);
            }
        }
        Self {
            _mesh: mesh,
            places,
            heard,
            stop,
        }
    }

    /// Where a listener really is.
    pub fn place(&self, gateway: &str, port: u16) -> SocketAddr {
        let found = self.places.get(&(gateway.to_owned(), port));
        *found.unwrap_or_else(|| panic!("nothing listens for {gateway} at {port}"))
    }

    /// `METHOD URL [name:value]…`, at a Gateway's listener; the URL's host is whom the request is for.
    pub async fn ask(&self, gateway: &str, port: u16, line: &str) -> Answer {
        let mut words = line.split_whitespace();
        let (method, url) = (
            words.next().expect("a method"),
            words.next().expect("a URL"),
        );
        let (host, path) = url.split_at(url.find('/').expect("a path"));
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", host);
        for word in words {
            let (name, value) = word.split_once(':').expect("a line");
            request = request.header(name, value.replace('~', " "));
        }
        let request = request.body(Body::empty()).expect("a request");
        let stream = tokio::net::TcpStream::connect(self.place(gateway, port));
        let stream = stream.await.expect("a connection");
        let shaken = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = shaken.expect("HTTP");
        tokio::spawn(connection);
        let asked = tokio::time::timeout(Duration::from_secs(10), sender.send_request(request));
        answer(asked.await.expect("in time").expect("an answer")).await
    }
}

pub async fn answer(response: Response<hyper::body::Incoming>) -> Answer {
    let (head, body) = response.into_parts();
    let body = body.collect().await.expect("a body").to_bytes();
    Answer {
        status: head.status,
        headers: head.headers,
        body: serde_json::from_slice(&body).unwrap_or(Value::Null),
    }
}

fn pod(number: u8) -> IpAddr {
    Ipv4Addr::new(10, 42, 0, number).into()
}

fn spec(value: &Value, namespace: &str, name: &str, number: u8) -> ServiceSpec {
    let endpoint = EndpointSpec {
        pod: format!("{name}-0"),
        ip: pod(number),
        port: 8080,
        node: "a".to_owned(),
        node_address: None,
        identity: SpiffeId::new(DOMAIN, namespace, name),
        workload: info(namespace, name),
        ready: true,
        serving: true,
        assigned: true,
    };
    let ports = value["spec"]["ports"].as_array().expect("ports").iter();
    let ports = ports.map(|port| ServicePortSpec {
        speaks_h2: port["appProtocol"] == "kubernetes.io/h2c",
        name: port["name"].as_str().map(str::to_owned),
        port: port["port"]
            .as_u64()
            .and_then(|port| port.try_into().ok())
            .expect("a port"),
        endpoints: match name {
            "empty" => Vec::new(),
            _ => vec![endpoint.clone()],
        },
        ..ServicePortSpec::default()
    });
    ServiceSpec {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        ports: ports.collect(),
        ..ServiceSpec::default()
    }
}

fn info(namespace: &str, name: &str) -> WorkloadInfo {
    WorkloadInfo {
        name: name.to_owned(),
        namespace: namespace.to_owned(),
        ..WorkloadInfo::default()
    }
}

/// Says what it was asked. `/status/503?until=N` fails N times; `/slow` is never answered.
fn workload(
    namespace: &str,
    name: &str,
    heard: Arc<Mutex<Vec<String>>>,
    on_raw: Option<OnRaw>,
) -> LocalWorkload {
    let (name_here, tried) = (name.to_owned(), Arc::new(AtomicUsize::new(0)));
    let service = WorkloadService::new(tower::service_fn(move |request: Request<Body>| {
        let (name, tried, heard) = (name_here.clone(), Arc::clone(&tried), Arc::clone(&heard));
        let on_raw = on_raw.clone();
        async move {
            if request.extensions().get::<Raw>().is_some() {
                let on_raw = on_raw.expect("no raw call is expected");
                let mut request = request;
                request.extensions_mut().insert(Asked(name));
                return Ok::<_, Failure>(on_raw(request));
            }
            let uri = request.uri().clone();
            heard
                .lock()
                .push(format!("{name} {} {}", request.method(), uri.path()));
            if uri.path() == "/slow" {
                std::future::pending::<()>().await;
            }
            let until = uri.query().and_then(|query| query.strip_prefix("until="));
            let until: usize = until.map_or(0, |until| until.parse().expect("a number"));
            let status = uri.path().strip_prefix("/status/");
            let is_bad = tried.fetch_add(1, Ordering::Relaxed) < until;
            let status = status.filter(|_| is_bad).map_or("200", |status| status);
            let lines = request.headers().iter();
            let lines: BTreeMap<String, String> = lines
                .map(|(name, value)| (name.to_string(), text(value)))
                .collect();
            let told = serde_json::json!({
                "name": name, "host": uri.authority().map(|host| host.as_str()), "path": uri.path(), "query": uri.query(),
                "headers": lines, "h2": request.extensions().get::<SpeaksH2>().is_some(),
            });
            let mut response = Response::new(Body::full(told.to_string()));
            *response.status_mut() = status.parse().expect("a status");
            if let Some(set) = request.headers().get("x-echo-set-header") {
                for pair in text(set).split(',') {
                    let (name, value) = pair.split_once('=').expect("a line");
                    let name: HeaderName = name.parse().expect("a name");
                    response
                        .headers_mut()
                        .insert(name, value.parse().expect("a value"));
                }
            }
            Ok(response)
        }
    }));
    LocalWorkload {
        identity: SpiffeId::new(DOMAIN, namespace, name),
        workload: info(namespace, name),
        service,
        in_flight_max: 1000,
    }
}

fn text(value: &HeaderValue) -> String {
    value.to_str().expect("text").to_owned()
}

fn read(value: &Value) -> Object {
    fn of<S: serde::de::DeserializeOwned + Default>(value: &Value) -> api::Object<S> {
        let metadata: view::ObjectMeta =
            serde_json::from_value(value["metadata"].clone()).expect("metadata");
        api::Object::read(&metadata, &value["spec"]).expect("an object")
    }
    let metadata: view::ObjectMeta =
        serde_json::from_value(value["metadata"].clone()).expect("metadata");
    let name = metadata.name.clone().unwrap_or_default();
    let full = NamespacedName::new(
        metadata.namespace.clone().unwrap_or_default(),
        name.as_str(),
    );
    match value["kind"].as_str() {
        Some("GatewayClass") => Object::GatewayClass(of(value)),
        Some("Gateway") => Object::Gateway(Box::new(of(value))),
        Some("HTTPRoute") => Object::HttpRoute(of(value)),
        Some("GRPCRoute") => Object::GrpcRoute(of(value)),
        Some("TLSRoute") => Object::TlsRoute(of(value)),
        Some("TCPRoute") => Object::TcpRoute(of(value)),
        Some("UDPRoute") => Object::UdpRoute(of(value)),
        Some("ListenerSet") => Object::ListenerSet(of(value)),
        Some("BackendTLSPolicy") => Object::BackendTlsPolicy(of(value)),
        Some("ReferenceGrant") => Object::ReferenceGrant(of(value)),
        Some("Service") => {
            let service: view::Service = serde_json::from_value(value.clone()).expect("one");
            Object::Service(full, (&service).into())
        }
        Some("Secret") => {
            let data = value["stringData"].as_object().into_iter().flatten();
            let data = data.map(|(name, text)| {
                let text = text.as_str().unwrap_or_default();
                (name.clone(), text.as_bytes().to_vec())
            });
            Object::Secret(full, api::Secret::read(&data.collect(), true))
        }
        Some("ConfigMap") => {
            let pem = value["data"]["ca.crt"].as_str().unwrap_or_default();
            Object::ConfigMap(full, api::Bundle::read(pem.as_bytes()))
        }
        Some("Namespace") => Object::Namespace(name, metadata.labels.unwrap_or_default()),
        Some("Node") => {
            let status: view::NodeStatus =
                serde_json::from_value(value["status"].clone()).expect("a status");
            let annotations = metadata.annotations.unwrap_or_default();
            Object::Node(name, api::Node::read(Some(&status), &annotations))
        }
        other => panic!("{other:?} is no kind of these tests"),
    }
}
