//! Groups that other servers serve, as clients meet them: real HTTPS servers behind APIServices, and what becomes of the whole where one of them fails.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;
use weft_apiserver::caller::Caller;

use crate::world::{Answer, JSON, World};

const SERVICES_PATH: &str = "/apis/apiregistration.k8s.io/v1/apiservices";
const DISCOVERY: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
/// For what comes about by itself: on a machine at rest, milliseconds.
const SOON: Duration = Duration::from_secs(30);

/// What a server does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// It tells everything in today's form.
    New,
    /// It knows discovery of old, and OpenAPI of version 2.
    Old,
    /// It answers nothing but the question whether it is there.
    Hangs,
    /// What it answers is no JSON.
    Nonsense,
    /// Its answers have 100 MiB.
    Huge,
}

/// A request as the server saw it.
#[derive(Clone, Debug)]
struct Seen {
    line: String,
    headers: HeaderMap,
    body: Bytes,
    /// Whom its client's certificate names.
    client: String,
}

/// A server of `GROUP/v1`, whose kind is Flunder.
struct Wardle {
    group: String,
    port: u16,
    ca: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Wardle {
    /// It believes whom `kube-system/extension-apiserver-authentication` says to.
    async fn start(world: &World, group: &str, way: Way) -> Self {
        let map = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication";
        let map = world.get(map).await.body;
        let authority = map["data"]["requestheader-client-ca-file"].as_str();
        let mut roots = rustls::RootCertStore::empty();
        for root in CertificateDer::pem_slice_iter(authority.unwrap().as_bytes()) {
            roots.add(root.unwrap()).unwrap();
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
                .build()
                .unwrap();
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let names = vec!["api.shop.svc".to_owned()];
        let certificate = rcgen::CertificateParams::new(names).unwrap();
        let certificate = certificate.self_signed(&key).unwrap();
        let chain = vec![CertificateDer::from(certificate.der().to_vec())];
        let private = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, private)
            .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let wardle = Self {
            group: group.to_owned(),
            port: listener.local_addr().unwrap().port(),
            ca: STANDARD.encode(certificate.pem()),
            seen: Arc::default(),
        };
        let flunders: Arc<Mutex<Vec<Value>>> = Arc::default();
        let (seen, group) = (wardle.seen.clone(), wardle.group.clone());
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let (acceptor, seen) = (acceptor.clone(), seen.clone());
                let (group, flunders) = (group.clone(), flunders.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(tcp).await else {
                        return;
                    };
                    let shown = stream.get_ref().1.peer_certificates().unwrap_or_default();
                    let client = shown.first().map(subject).unwrap_or_default();
                    let service = hyper::service::service_fn(move |request| {
                        let (seen, group) = (seen.clone(), group.clone());
                        let (flunders, client) = (flunders.clone(), client.clone());
                        async move {
                            let answer = answer(way, &group, &flunders, &seen, client, request);
                            Ok::<_, hyper::Error>(answer.await)
                        }
                    });
                    let server = hyper::server::conn::http1::Builder::new();
                    let serving = server.serve_connection(TokioIo::new(stream), service);
                    let _ = serving.with_upgrades().await;
                });
            }
        });
        wardle
    }

    fn name(&self) -> String {
        format!("v1.{}", self.group)
    }

    fn api_service(&self) -> Value {
        json!({
            "metadata": {"name": self.name()},
            "spec": {
                "group": self.group, "version": "v1", "groupPriorityMinimum": 2000, "versionPriority": 200,
                "caBundle": self.ca,
                "service": {"namespace": "shop", "name": "api", "port": self.port},
            },
        })
    }

    fn path(&self) -> String {
        format!("/apis/{}/v1", self.group)
    }

    /// What clients asked, without what the API server asks by itself.
    fn asked(&self) -> Vec<Seen> {
        let seen = self.seen.lock();
        let own = |seen: &&Seen| {
            let user = seen.headers.get("x-remote-user");
            user.is_none_or(|user| user != "system:kube-aggregator")
        };
        seen.iter().filter(own).cloned().collect()
    }
}

fn subject(certificate: &CertificateDer<'_>) -> String {
    // The one name that is in it stands there as it is.
    let bytes = String::from_utf8_lossy(certificate);
    let known = bytes.contains("front-proxy-client");
    if known {
        "front-proxy-client"
    } else {
        "somebody"
    }
    .to_owned()
}

fn json_of(status: u16, kind: &str, body: &Value) -> Response<Body> {
    Response::builder()
        .status(status)
        .header(header::CONTENT_TYPE, kind)
        .body(Body::from(body.to_string()))
        .unwrap()
}

async fn answer(
    way: Way,
    group: &str,
    flunders: &Mutex<Vec<Value>>,
    seen: &Mutex<Vec<Seen>>,
    client: String,
    mut request: Request<hyper::body::Incoming>,
) -> Response<Body> {
    let line = format!("{} {}", request.method(), request.uri());
    let upgrade = hyper::upgrade::on(&mut request);
    let (head, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    seen.lock().push(Seen {
        line,
        headers: head.headers.clone(),
        body: body.clone(),
        client,
    });
    let path = head.uri.path();
    let root = format!("/apis/{group}/v1");
    let group_version = format!("{group}/v1");
    let flunder = json!({"group": group, "version": "v1", "kind": "Flunder"});
    let resources = json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version,
        "resources": [{
            "name": "flunders", "singularName": "flunder", "namespaced": true, "kind": "Flunder",
            "verbs": ["create", "delete", "get", "list", "watch"],
        }],
    });
    if path == root {
        // So that it counts as available whatever it does else.
        return json_of(200, JSON, &resources);
    }
    let none = || json_of(404, "text/plain", &json!("404 page not found"));
    match way {
        Way::Hangs => return std::future::pending().await,
        Way::Nonsense => {
            let mut response = Response::new(Body::from("<html>}{"));
            let kind = header::HeaderValue::from_static(DISCOVERY);
            response.headers_mut().insert(header::CONTENT_TYPE, kind);
            return response;
        }
        Way::Huge => {
            let chunk = Bytes::from(vec![b' '; 1 << 20]);
            let chunks = (0..100).map(move |_| Ok::<_, std::io::Error>(Frame::data(chunk.clone())));
            let body = StreamBody::new(futures::stream::iter(chunks));
            let mut response = Response::new(Body::new(body));
            let kind = header::HeaderValue::from_static(DISCOVERY);
            response.headers_mut().insert(header::CONTENT_TYPE, kind);
            return response;
        }
        Way::Old if path == "/apis" || path.starts_with("/openapi/v3") => return none(),
        Way::Old | Way::New => {}
    }
    match (&head.method, path) {
        (_, "/apis") => {
            let resource = json!({
                "resource": "flunders", "responseKind": flunder, "scope": "Namespaced", "singularResource": "flunder",
                "verbs": ["create", "delete", "get", "list", "watch"],
            });
            let list = json!({
                "kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {},
                "items": [{
                    "metadata": {"name": group, "creationTimestamp": null},
                    "versions": [{"version": "v1", "resources": [resource], "freshness": "Current"}],
                }],
            });
            json_of(200, DISCOVERY, &list)
        }
        (_, "/openapi/v3") => {
            let url = format!("/openapi/v3/apis/{group}/v1?hash=1");
            let path = format!("apis/{group}/v1");
            json_of(
                200,
                JSON,
                &json!({"paths": {path: {"serverRelativeURL": url}}}),
            )
        }
        (_, path) if path == format!("/openapi/v3/apis/{group}/v1") => {
            json_of(200, JSON, &json!({"openapi": "3.0.0", "of": group}))
        }
        (_, "/openapi/v2") => {
            let reference = json!({"$ref": "#/definitions/com.example.Flunder"});
            let get = json!({"get": {"responses": {"200": {"schema": reference}}}});
            let document = json!({
                "swagger": "2.0", "paths": {format!("{root}/flunders"): get, "/api/v1/pods": {"get": {"forged": true}}},
                "definitions": {"com.example.Flunder": {"type": "object"}, "com.example.Other": {}},
            });
            json_of(200, JSON, &document)
        }
        (&Method::GET, path) if path.ends_with("/flunders") => {
            if head
                .uri
                .query()
                .is_some_and(|query| query.contains("watch=true"))
            {
                let events: Vec<_> = flunders
                    .lock()
                    .iter()
                    .map(|object| format!("{}\n", json!({"type": "ADDED", "object": object})))
                    .map(|line| Ok::<_, std::io::Error>(Frame::data(Bytes::from(line))))
                    .collect();
                // It does not end by itself.
                let stream = futures::stream::iter(events);
                let stream = futures::StreamExt::chain(stream, futures::stream::pending());
                return Response::new(Body::new(StreamBody::new(stream)));
            }
            let items = flunders.lock().clone();
            let list = json!({"kind": "FlunderList", "apiVersion": group_version, "metadata": {"resourceVersion": "7"}, "items": items});
            json_of(200, JSON, &list)
        }
        (&Method::POST, path) if path.ends_with("/flunders") => {
            let object: Value = serde_json::from_slice(&body).unwrap();
            flunders.lock().push(object.clone());
            let mut response = json_of(201, JSON, &object);
            let headers = response.headers_mut();
            headers.insert(header::CONNECTION, "x-hop".parse().unwrap());
            headers.insert("x-hop", "1".parse().unwrap());
            headers.insert("x-own", "2".parse().unwrap());
            response
        }
        (&Method::DELETE, _) => {
            flunders.lock().clear();
            json_of(200, JSON, &json!({"kind": "Status", "status": "Success"}))
        }
        (_, path) if path.ends_with("/talk") => {
            tokio::spawn(async move {
                let mut stream = TokioIo::new(upgrade.await.unwrap());
                let mut heard = [0; 4];
                stream.read_exact(&mut heard).await.unwrap();
                stream.write_all(b"heard ").await.unwrap();
                stream.write_all(&heard).await.unwrap();
                stream.shutdown().await.unwrap();
            });
            Response::builder()
                .status(StatusCode::SWITCHING_PROTOCOLS)
                .header(header::CONNECTION, "Upgrade")
                .header(header::UPGRADE, "talk/1")
                .body(Body::empty())
                .unwrap()
        }
        _ => none(),
    }
}

/// A world with the tasks of a server that leads, and the namespace and Service that APIServices name.
async fn world() -> (World, CancellationToken) {
    let world = World::new().await;
    let caller = Caller::system("apiserver", None);
    world.objects.ensure_trust(&caller).await.unwrap();
    let closing = CancellationToken::new();
    let objects = &world.objects;
    tokio::spawn(objects.clone().follow_definitions(closing.clone()));
    tokio::spawn(objects.clone().tend_definitions(closing.clone()));
    tokio::spawn(objects.clone().follow_api_services(closing.clone()));
    tokio::spawn(objects.clone().tend_api_services(closing.clone()));
    made(
        &world,
        "/api/v1/namespaces",
        json!({"metadata": {"name": "shop"}}),
    )
    .await;
    let service = json!({
        "metadata": {"name": "api"}, "spec": {"type": "ExternalName", "externalName": "localhost"},
    });
    made(&world, "/api/v1/namespaces/shop/services", service).await;
    (world, closing)
}

async fn made(world: &World, path: &str, body: Value) -> Value {
    let answer = world.ask(&format!("POST {path}"), body).await;
    assert_eq!(answer.status, 201, "{}", answer.line());
    answer.body
}

/// Asks until the answer is as it should be.
async fn until(
    world: &World,
    path: &str,
    accept: &str,
    is_well: impl Fn(&Answer) -> bool,
) -> Answer {
    let asking = async {
        loop {
            let request = world.request(&format!("GET {path}"), &[(header::ACCEPT, accept)], "");
            let answer = world.send(request).await;
            if is_well(&answer) {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let found = tokio::time::timeout(SOON, asking).await;
    match found {
        Ok(found) => found,
        Err(_) => panic!("{path} is {}", world.get(path).await.body),
    }
}

/// `STATUS REASON: MESSAGE` of the condition.
fn condition(service: &Value) -> String {
    let condition = &service["status"]["conditions"][0];
    let text = |name: &str| condition[name].as_str().unwrap_or("-").to_owned();
    format!("{} {}: {}", text("status"), text("reason"), text("message"))
}

async fn available(world: &World, wardle: &Wardle) -> Value {
    made(world, SERVICES_PATH, wardle.api_service()).await;
    let path = format!("{SERVICES_PATH}/{}", wardle.name());
    let passed = |answer: &Answer| condition(&answer.body) == "True Passed: all checks passed";
    let service = until(world, &path, JSON, passed).await.body;
    // This server has heard of that, too.
    let served = |answer: &Answer| answer.status == 200;
    until(world, &wardle.path(), JSON, served).await;
    service
}

/// The entry of a group in aggregated discovery.
fn group<'a>(discovery: &'a Value, name: &str) -> &'a Value {
    let mut groups = discovery["items"].as_array().unwrap().iter();
    groups
        .find(|group| group["metadata"]["name"] == name)
        .unwrap_or(&Value::Null)
}

fn is_fresh(answer: &Answer, name: &str) -> bool {
    group(&answer.body, name)["versions"][0]["freshness"] == "Current"
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_of_another_server_is_one_like_any_other() {
    let (world, closing) = world().await;
    let wardle = Wardle::start(&world, "wardle.example.com", Way::New).await;
    let service = available(&world, &wardle).await;
    assert_eq!(service["status"]["conditions"][0]["type"], "Available");

    // Objects: made, listed, watched, deleted.
    let flunders = format!("{}/namespaces/default/flunders", wardle.path());
    let body = json!({"apiVersion": "wardle.example.com/v1", "kind": "Flunder", "metadata": {"name": "f"}});
    let forged = [
        (header::AUTHORIZATION, "Bearer secret"),
        (header::HeaderName::from_static("x-remote-user"), "root"),
        (
            header::HeaderName::from_static("x-remote-extra-scopes"),
            "all",
        ),
        (header::CONNECTION, "x-mine"),
        (header::HeaderName::from_static("x-mine"), "1"),
    ];
    let request = Request::post(format!("{flunders}?fieldManager=me"));
    let mut request = request.body(Body::from(body.to_string())).unwrap();
    for (name, value) in forged {
        request.headers_mut().insert(name, value.parse().unwrap());
    }
    let created = world.send(request).await;
    assert_eq!((created.status, &created.body), (201, &body));
    assert_eq!(created.headers["x-own"], "2");
    assert!(
        !created.headers.contains_key("x-hop"),
        "{:?}",
        created.headers
    );
    assert!(created.headers.contains_key("audit-id"));
    let asked = wardle.asked();
    let seen = asked.iter().find(|seen| seen.line.starts_with("POST"));
    let seen = seen.unwrap();
    assert_eq!(seen.line, format!("POST {flunders}?fieldManager=me"));
    assert_eq!(seen.client, "front-proxy-client");
    assert_eq!(seen.body, body.to_string().as_bytes());
    let said = |name: &str| -> Vec<&str> {
        let values = seen.headers.get_all(name).iter();
        values.map(|value| value.to_str().unwrap()).collect()
    };
    assert_eq!(said("x-remote-user"), ["admin"]);
    assert_eq!(
        said("x-remote-group"),
        ["system:masters", "system:authenticated"]
    );
    assert_eq!(said("x-forwarded-proto"), ["https"]);
    assert_eq!(said("x-forwarded-uri"), [flunders.as_str()]);
    for secret in ["authorization", "x-remote-extra-scopes", "x-mine"] {
        assert_eq!(said(secret), [""; 0], "{secret}");
    }
    assert_eq!(world.get(&flunders).await.line(), "200 FlunderList [f]");
    let mut watch = world.watch(&format!("{flunders}?watch=true")).await;
    assert_eq!(watch.told(1).await, "ADDED f");
    drop(watch);
    let deleted = world
        .ask(&format!("DELETE {flunders}/f"), Value::Null)
        .await;
    assert_eq!(deleted.line(), "200 Success");

    world.define_gateway_api().await;
    // Discovery, all at once and group by group; the most wanted group stands before users' own.
    let fresh = |answer: &Answer| is_fresh(answer, "wardle.example.com");
    let discovery = until(&world, "/apis", DISCOVERY, fresh).await.body;
    let told = &group(&discovery, "wardle.example.com")["versions"][0];
    assert_eq!(told["resources"][0]["resource"], "flunders");
    let names = |list: &Value, pointer: &str| -> Vec<String> {
        let groups = list[pointer].as_array().unwrap().iter();
        groups
            .map(|group| group.get("name").unwrap_or(&group["metadata"]["name"]))
            .map(|name| name.as_str().unwrap().to_owned())
            .collect()
    };
    let legacy = world.get("/apis").await.body;
    let legacy = names(&legacy, "groups");
    assert_eq!(legacy, names(&discovery, "items"));
    assert_eq!(legacy[0], "apiregistration.k8s.io");
    let place = |name: &str| legacy.iter().position(|group| group == name).unwrap();
    assert!(place("flowcontrol.apiserver.k8s.io") < place("wardle.example.com"));
    assert!(place("wardle.example.com") < place("gateway.networking.k8s.io"));
    let own = world.get("/apis/wardle.example.com").await.body;
    assert_eq!(
        own["preferredVersion"]["groupVersion"],
        "wardle.example.com/v1"
    );

    // OpenAPI, in both versions.
    let path = "apis/wardle.example.com/v1";
    let told = |answer: &Answer| answer.body["paths"].get(path).is_some();
    let root = until(&world, "/openapi/v3", JSON, told).await.body;
    let url = root["paths"][path]["serverRelativeURL"].as_str().unwrap();
    assert_eq!(world.get(url).await.body["of"], "wardle.example.com");
    let told = |answer: &Answer| {
        let paths = &answer.body["paths"];
        paths.get("/apis/wardle.example.com/v1/flunders").is_some()
    };
    let merged = until(&world, "/openapi/v2", JSON, told).await.body;
    assert!(merged["definitions"].get("com.example.Flunder").is_some());
    assert!(merged["definitions"].get("com.example.Other").is_none());
    assert!(!merged["paths"].to_string().contains("forged"));

    let table = world.table(SERVICES_PATH).await.line();
    assert!(
        table.contains(r#"["v1.wardle.example.com","shop/api","True","#),
        "{table}"
    );
    assert!(table.contains(r#"["v1.apps","Local","True","#), "{table}");

    // It goes as it came.
    let path = format!("DELETE {SERVICES_PATH}/v1.wardle.example.com");
    assert_eq!(world.ask(&path, Value::Null).await.status, 200);
    until(&world, &flunders, JSON, |answer| answer.status == 404).await;
    let gone = |answer: &Answer| group(&answer.body, "wardle.example.com").is_null();
    until(&world, "/apis", DISCOVERY, gone).await;
    let gone = |answer: &Answer| !answer.body.to_string().contains("com.example.Flunder");
    until(&world, "/openapi/v2", JSON, gone).await;
    closing.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_is_refused_before_anybody_else_is_asked() {
    let (world, closing) = world().await;
    let wardle = Wardle::start(&world, "wardle.example.com", Way::New).await;
    available(&world, &wardle).await;
    let before = wardle.asked().len();
    let as_user = |line: &str| {
        let (method, path) = line.split_once(' ').unwrap();
        let request = Request::builder().method(method).uri(path);
        let request = request.header(header::AUTHORIZATION, "Bearer user");
        request.body(Body::empty()).unwrap()
    };
    let flunders = format!("{}/namespaces/default/flunders", wardle.path());
    let root = wardle.path();
    for (line, expected) in [
        (
            format!("GET {flunders}/f"),
            "403 Forbidden: flunders.wardle.example.com \"f\" is forbidden: User \"jo\" cannot get resource \"flunders\" in API group \"wardle.example.com\" in the namespace \"default\"",
        ),
        (
            format!("GET {flunders}?watch=true"),
            "403 Forbidden: flunders.wardle.example.com is forbidden: User \"jo\" cannot watch resource \"flunders\" in API group \"wardle.example.com\" in the namespace \"default\"",
        ),
        (
            format!("POST {flunders}/f/exec"),
            "403 Forbidden: flunders.wardle.example.com \"f\" is forbidden: User \"jo\" cannot create resource \"flunders/exec\" in API group \"wardle.example.com\" in the namespace \"default\"",
        ),
        (
            format!("DELETE {root}/flunders"),
            "403 Forbidden: flunders.wardle.example.com is forbidden: User \"jo\" cannot deletecollection resource \"flunders\" in API group \"wardle.example.com\" at the cluster scope",
        ),
        // A path that could be read in two ways is nobody's.
        (
            format!("GET /{root}/namespaces/default/flunders"),
            "403 Forbidden: forbidden: User \"jo\" cannot get path \"//apis/wardle.example.com/v1/namespaces/default/flunders\"",
        ),
        (
            format!("GET {root}/namespaces/default/flunders/f/proxy/../../../../../secrets"),
            "403 Forbidden: flunders.wardle.example.com \"f\" is forbidden: User \"jo\" cannot get resource \"flunders/proxy\" in API group \"wardle.example.com\" in the namespace \"default\"",
        ),
        (
            format!("GET {root}/namespaces/default/flunders/%2e%2e/x"),
            "403 Forbidden: flunders.wardle.example.com \"%2e%2e\" is forbidden: User \"jo\" cannot get resource \"flunders/x\" in API group \"wardle.example.com\" in the namespace \"default\"",
        ),
    ] {
        assert_eq!(world.send(as_user(&line)).await.line(), expected, "{line}");
    }
    assert_eq!(wardle.asked().len(), before);
    // What there is, everybody who is known may see: the roles of every cluster say so.
    let system = Caller::system("tests", None);
    world.objects.ensure_roles(&system).await.unwrap();
    world.objects.authorizer().settle().await;
    assert_eq!(
        world.send(as_user(&format!("GET {root}"))).await.status,
        200
    );
    assert_eq!(wardle.asked().len(), before + 1);
    closing.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_asked_is_told_and_keeps_nobody_else_from_anything() {
    let (world, closing) = world().await;
    let good = Wardle::start(&world, "good.example.com", Way::Old).await;
    available(&world, &good).await;
    let ways = [
        ("hangs.example.com", Way::Hangs),
        ("nonsense.example.com", Way::Nonsense),
        ("huge.example.com", Way::Huge),
    ];
    let mut others = Vec::new();
    for (group, way) in ways {
        let wardle = Wardle::start(&world, group, way).await;
        available(&world, &wardle).await;
        others.push(wardle);
    }
    // Discovery of old is told in today's form, and that of the others as what it is.
    let fresh = |answer: &Answer| is_fresh(answer, "good.example.com");
    let discovery = until(&world, "/apis", DISCOVERY, fresh).await.body;
    let told = &group(&discovery, "good.example.com")["versions"][0];
    assert_eq!(told["resources"][0]["responseKind"]["kind"], "Flunder");
    for wardle in &others {
        let stale = json!([{"version": "v1", "freshness": "Stale"}]);
        assert_eq!(group(&discovery, &wardle.group)["versions"], stale);
        // The path itself is passed on, whatever its server does with others.
        assert_eq!(world.get(&wardle.path()).await.status, 200);
    }
    let flunders = format!("{}/namespaces/default/flunders", good.path());
    assert_eq!(world.get(&flunders).await.line(), "200 FlunderList []");
    // So is OpenAPI of old.
    let path = "apis/good.example.com/v1";
    let told = |answer: &Answer| answer.body["paths"].get(path).is_some();
    let root = until(&world, "/openapi/v3", JSON, told).await.body;
    let url = root["paths"][path]["serverRelativeURL"].as_str().unwrap();
    let document = world.get(url).await.body;
    let flunder = json!({"$ref": "#/components/schemas/com.example.Flunder"});
    let get = &document["paths"]["/apis/good.example.com/v1/flunders"]["get"];
    assert_eq!(
        get["responses"]["200"]["content"]["application/json"]["schema"],
        flunder
    );

    // Who is not there, or not whom the bundle names.
    let nobody = json!({
        "metadata": {"name": "v1.nobody.example.com"},
        "spec": {
            "group": "nobody.example.com", "version": "v1", "groupPriorityMinimum": 2000, "versionPriority": 200,
            "service": {"namespace": "shop", "name": "nobody"},
        },
    });
    made(&world, SERVICES_PATH, nobody).await;
    let there = Wardle::start(&world, "other.example.com", Way::New).await;
    let mut other = there.api_service();
    other["spec"]["caBundle"] = others[0].ca.clone().into();
    made(&world, SERVICES_PATH, other).await;
    for (name, expected) in [
        (
            "v1.nobody.example.com",
            "False ServiceNotFound: service/nobody in \"shop\" is not present",
        ),
        (
            "v1.other.example.com",
            "False FailedDiscoveryCheck: failing or missing response from https://localhost:",
        ),
    ] {
        let path = format!("{SERVICES_PATH}/{name}");
        let told = |answer: &Answer| condition(&answer.body).starts_with(expected);
        until(&world, &path, JSON, told).await;
    }
    let refused = world.get("/apis/other.example.com/v1/flunders").await;
    assert_eq!(
        (refused.status, refused.body),
        (503, json!("service unavailable\n"))
    );
    assert_eq!(
        refused.headers[header::CONTENT_TYPE],
        "text/plain; charset=utf-8"
    );
    let both = ["nobody.example.com", "other.example.com"];
    let told = |answer: &Answer| both.iter().all(|name| !group(&answer.body, name).is_null());
    until(&world, "/apis", DISCOVERY, told).await;

    // Nobody has to be believed where the owner says so; the same server is there then.
    let patch = json!({"spec": {"caBundle": null, "insecureSkipTLSVerify": true}});
    let path = format!("{SERVICES_PATH}/v1.other.example.com");
    assert_eq!(world.patch(&path, "merge-patch", patch).await.status, 200);
    let passed = |answer: &Answer| condition(&answer.body) == "True Passed: all checks passed";
    until(&world, &path, JSON, passed).await;

    // Whoever watches this server is told of all of it, and that one was lost.
    let broken = json!({"spec": {"caBundle": others[0].ca, "insecureSkipTLSVerify": false}});
    assert_eq!(world.patch(&path, "merge-patch", broken).await.status, 200);
    for line in [
        r#"aggregator_unavailable_apiservice{name="v1.good.example.com"} 0"#,
        r#"aggregator_unavailable_apiservice{name="v1.nobody.example.com"} 1"#,
        r#"aggregator_unavailable_apiservice{name="v1.other.example.com"} 1"#,
        r#"aggregator_unavailable_apiservice_total{name="v1.other.example.com",reason="FailedDiscoveryCheck"} 1"#,
    ] {
        let told = |answer: &Answer| {
            let text = answer.body.as_str().unwrap_or_default();
            text.lines().any(|found| found == line)
        };
        until(&world, "/metrics", "*/*", told).await;
    }
    closing.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_becomes_something_else_is_passed_on() {
    let (world, closing) = world().await;
    let wardle = Wardle::start(&world, "wardle.example.com", Way::New).await;
    available(&world, &wardle).await;
    // A client with a connection of its own: what it becomes is seen on no other.
    let (here, there) = tokio::io::duplex(4096);
    let router = world.router.clone();
    tokio::spawn(async move {
        let service = hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
            router.clone().oneshot(request.map(Body::new))
        });
        let server = hyper::server::conn::http1::Builder::new();
        let serving = server.serve_connection(TokioIo::new(there), service);
        serving.with_upgrades().await
    });
    let talk = |path: &str| {
        Request::get(path)
            .header(header::HOST, "localhost")
            .header(header::AUTHORIZATION, "Bearer secret")
            .header(header::CONNECTION, "Upgrade")
            .header(header::UPGRADE, "talk/1")
            .body(Body::empty())
            .unwrap()
    };
    let shaken = hyper::client::conn::http1::handshake(TokioIo::new(here)).await;
    let (mut sender, connection) = shaken.unwrap();
    tokio::spawn(connection.with_upgrades());
    let path = format!("{}/namespaces/default/flunders/f/talk", wardle.path());
    let mut response = sender.send_request(talk(&path)).await.unwrap();
    assert_eq!(response.status(), 101);
    assert_eq!(response.headers()[header::UPGRADE], "talk/1");
    let mut stream = TokioIo::new(hyper::upgrade::on(&mut response).await.unwrap());
    stream.write_all(b"ping").await.unwrap();
    let mut heard = String::new();
    stream.read_to_string(&mut heard).await.unwrap();
    assert_eq!(heard, "heard ping");
    // Whoever answers as if nothing had been asked is not taken for one who agreed.
    let list = format!("{}/namespaces/default/flunders", wardle.path());
    let refused = world.send(talk(&list)).await;
    assert_eq!(
        (refused.status, refused.body),
        (503, json!("invalid upgrade response: status code 200\n"))
    );
    closing.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_served_here_has_an_api_service_each() {
    let (world, closing) = world().await;
    let local = |answer: &Answer| {
        condition(&answer.body) == "True Local: Local APIServices are always available"
    };
    let apps = until(&world, &format!("{SERVICES_PATH}/v1.apps"), JSON, local)
        .await
        .body;
    assert_eq!(
        (&apps["spec"], &apps["metadata"]["labels"]),
        (
            &json!({"group": "apps", "version": "v1", "groupPriorityMinimum": 17800, "versionPriority": 15}),
            &json!({"kube-aggregator.kubernetes.io/automanaged": "onstart"}),
        )
    );
    for name in ["v1.", "v2.autoscaling", "v1beta1.metrics.k8s.io"] {
        until(&world, &format!("{SERVICES_PATH}/{name}"), JSON, local).await;
    }
    // Users' groups come and go with their definitions.
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced", "names": {"plural": "widgets", "kind": "Widget"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}}}],
        },
    });
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    made(&world, definitions, definition).await;
    let path = format!("{SERVICES_PATH}/v1.example.com");
    let service = until(&world, &path, JSON, local).await.body;
    assert_eq!(
        service["metadata"]["labels"]["kube-aggregator.kubernetes.io/automanaged"],
        "true"
    );
    assert_eq!(
        (
            &service["spec"]["groupPriorityMinimum"],
            &service["spec"]["versionPriority"]
        ),
        (&json!(1000), &json!(100))
    );
    // What stands for what is served comes back; what was made on start stays as its owner wants it.
    assert_eq!(
        world
            .ask(&format!("DELETE {path}"), Value::Null)
            .await
            .status,
        200
    );
    until(&world, &path, JSON, local).await;
    let batch = format!("{SERVICES_PATH}/v1.batch");
    assert_eq!(
        world
            .ask(&format!("DELETE {batch}"), Value::Null)
            .await
            .status,
        200
    );
    let name = format!("DELETE {definitions}/widgets.example.com");
    assert_eq!(world.ask(&name, Value::Null).await.status, 200);
    until(&world, &path, JSON, |answer| answer.status == 404).await;
    assert_eq!(world.get(&batch).await.status, 404);
    assert_eq!(
        world
            .get("/apis/batch/v1/namespaces/default/jobs")
            .await
            .status,
        200
    );
    closing.cancel();
}

#[tokio::test]
async fn who_replaces_an_api_service_has_read_it() {
    let world = World::new().await;
    let service = json!({
        "metadata": {"name": "v1.wardle.example.com"},
        "spec": {"group": "wardle.example.com", "version": "v1", "groupPriorityMinimum": 2000, "versionPriority": 200},
    });
    let made = made(&world, SERVICES_PATH, service.clone()).await;
    // One that names no server is this server's own, and available at once.
    assert_eq!(
        condition(&made),
        "True Local: Local APIServices are always available"
    );
    let path = format!("{SERVICES_PATH}/v1.wardle.example.com");
    assert_eq!(
        world.ask(&format!("PUT {path}"), service).await.line(),
        "422 Invalid: apiservices.apiregistration.k8s.io \"v1.wardle.example.com\" is invalid: metadata.resourceVersion: Invalid value: 0: must be specified for an update"
    );
    let status = json!({"status": {"conditions": [{"type": "Available", "status": "Perhaps"}]}});
    assert_eq!(
        world
            .patch(&format!("{path}/status"), "merge-patch", status)
            .await
            .line(),
        "422 Invalid: APIService.apiregistration.k8s.io \"v1.wardle.example.com\" is invalid: status.conditions[0].status: Unsupported value: \"Perhaps\": supported values: \"True\", \"False\", \"Unknown\""
    );
}
