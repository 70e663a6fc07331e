//! What clients and guests say to the mesh: greetings of TLS, messages of DNS, datagrams in a stream, requests, and objects of the Gateway API.
//!
//! Whatever comes is understood in one way or refused: the same however it is cut up, and a request as the rule that took it understood it.

use std::sync::{Arc, LazyLock};

use http::{HeaderName, HeaderValue, Method, Request, Response, Uri};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use rustls_pki_types::ServerName;
use serde_json::{Value, json};
use weft_api::identity::SpiffeId;
use weft_api::view::ObjectMeta;
use weft_gateway::{Compiled, NamespacedName, Object, Objects, api, compile};
use weft_mesh::{
    Answering, Body, CallerInfo, EndpointSpec, Failure, Hello, LocalWorkload, Mesh, Over,
    PodAddress, ServicePortSpec, ServiceSpec, Table, Unframed, WorkloadInfo, WorkloadService,
};

pub(crate) const DOMAIN: &str = "cluster.local";

/// The name that a greeting asks for; nothing where there is none yet. The error: it is no greeting.
fn name_of(input: &[u8], cut: usize) -> Result<Option<String>, ()> {
    let mut hello = Hello::default();
    for piece in input.chunks(cut.max(1)) {
        match hello.take(piece) {
            Ok(None) => {}
            Ok(name) => return Ok(name),
            Err(_) => return Err(()),
        }
    }
    Ok(None)
}

pub fn client_hello(input: &[u8]) {
    let whole = name_of(input, input.len());
    if let Ok(Some(name)) = &whole {
        let is_plain = |letter: char| {
            letter.is_ascii_lowercase() || letter.is_ascii_digit() || "-._".contains(letter)
        };
        assert!(name.len() <= 254 && name.chars().all(is_plain), "{name:?}");
        // Bytes of a second message may be wrong, after which none is looked for where the first came apart.
        for cut in [1, 7, 512] {
            assert_eq!(name_of(input, cut).as_ref(), Ok(&Some(name.clone())));
        }
    }
}

pub fn client_hello_seeds() -> Vec<Vec<u8>> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut seeds = Vec::new();
    let old: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS12];
    for versions in [rustls::ALL_VERSIONS, old] {
        let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(versions)
            .expect("versions")
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        let config = Arc::new(config);
        for name in ["example.com", "a.b.example.com", "192.0.2.1"] {
            let name = ServerName::try_from(name).expect("a name");
            let mut client = ClientConnection::new(Arc::clone(&config), name).expect("a client");
            let mut greeting = Vec::new();
            client.write_tls(&mut greeting).expect("room");
            seeds.push(greeting);
        }
    }
    seeds
}

static NAMES: LazyLock<Mesh> = LazyLock::new(|| {
    let mesh = Mesh::builder("a", DOMAIN).build();
    let services = ["web", "api"].map(|name| service(name, 1));
    mesh.publish(Table::builder("a", 1).services(services).build());
    mesh
});

pub fn dns_message(input: &[u8]) {
    for (over, most) in [(Over::Udp, 1232), (Over::Tcp, usize::from(u16::MAX))] {
        let Answering::Now(answer) = NAMES.dns_answer(input, over) else {
            panic!("nobody else is asked");
        };
        let Some(answer) = answer else { continue };
        assert!(answer.len() <= most, "{} bytes", answer.len());
        assert_eq!(answer.get(..2), input.get(..2), "whose it is");
        let flags = answer.get(2).copied().unwrap_or_default();
        assert!(flags & 0x80 != 0, "it is an answer");
        let Answering::Now(again) = NAMES.dns_answer(&answer, over) else {
            panic!("nobody else is asked");
        };
        assert!(again.is_none(), "an answer is not answered");
    }
}

pub fn dns_message_seeds() -> Vec<Vec<u8>> {
    let names = [
        ("web.vote.svc.cluster.local", 1),
        ("_http._tcp.web.vote.svc.cluster.local", 33),
        ("1.0.42.10.in-addr.arpa", 12),
        ("example.com", 255),
        ("cluster.local", 6),
    ];
    let messages = names.map(|(name, kind)| {
        // One question, with what EDNS adds.
        let mut message = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1];
        for label in name.split('.') {
            message.push(u8::try_from(label.len()).unwrap_or_default());
            message.extend(label.as_bytes());
        }
        message.extend([0, 0, kind, 0, 1]);
        message.extend([0, 0, 41, 4, 0xd0, 0, 0, 0, 0, 0, 0]);
        message
    });
    messages.to_vec()
}

/// Datagrams, and whether what followed was refused.
fn datagrams_of(input: &[u8], cut: usize) -> (Vec<Vec<u8>>, bool) {
    let (mut unframed, mut found) = (Unframed::default(), Vec::new());
    for piece in input.chunks(cut.max(1)) {
        unframed.push(piece);
        loop {
            match unframed.take() {
                Ok(Some(datagram)) => found.push(datagram.to_vec()),
                Ok(None) => break,
                Err(_) => return (found, true),
            }
        }
    }
    (found, false)
}

pub fn datagrams(input: &[u8]) {
    let (found, refused) = datagrams_of(input, input.len());
    for cut in [1, 5, 100] {
        assert_eq!(datagrams_of(input, cut), (found.clone(), refused));
    }
}

pub fn datagram_seeds() -> Vec<Vec<u8>> {
    vec![b"\0\x05hello\0\0\0\x01a".to_vec(), b"\xff\xffx".to_vec()]
}

pub(crate) fn service(name: &str, last: u8) -> ServiceSpec {
    let endpoint = EndpointSpec {
        pod: format!("{name}-0"),
        ip: [10, 42, 0, last].into(),
        port: 8080,
        node: "a".to_owned(),
        node_address: None,
        identity: SpiffeId::new(DOMAIN, "vote", name),
        workload: named(name),
        ready: true,
        serving: true,
        assigned: true,
    };
    ServiceSpec {
        namespace: "vote".to_owned(),
        name: name.to_owned(),
        ports: vec![ServicePortSpec {
            name: Some("http".to_owned()),
            port: 80,
            endpoints: vec![endpoint],
            ..ServicePortSpec::default()
        }],
        ..ServiceSpec::default()
    }
}

pub(crate) fn named(name: &str) -> WorkloadInfo {
    WorkloadInfo {
        name: name.to_owned(),
        namespace: "vote".to_owned(),
        ..WorkloadInfo::default()
    }
}

/// Whether a path is below a prefix, by elements.
fn is_below(path: &str, prefix: &str) -> bool {
    let rest = path.strip_prefix(prefix);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// What a workload says of a request that should not have reached it so.
const WRONG: &str = "wrong";

/// What is wrong with a request that reached a workload: `/closed` is `closed`'s alone, `/two` is `two`'s for those who say so, paths are as
/// rules understood them, and nothing in it says what only the mesh may say.
pub(crate) fn wrong(name: &str, request: &Request<Body>) -> Option<String> {
    let path = request.uri().path();
    let mut elements = path.split('/');
    let is_relative = elements.next() != Some("");
    if is_relative || elements.any(|element| matches!(element, "." | "..")) {
        return Some(format!("the path {path:?}"));
    }
    // Lines of one name are one list.
    let said = request.headers().get_all("version").iter();
    let said: Vec<&[u8]> = said.map(HeaderValue::as_bytes).collect();
    let says_two = said.join(&b","[..]) == b"two";
    let expected = match path {
        path if is_below(path, "/closed") => "closed",
        path if is_below(path, "/two") && says_two => "two",
        _ => "one",
    };
    if name != expected {
        return Some(format!("{path:?} is not for {name}"));
    }
    let mut lines = request.headers().keys();
    let line = lines.find(|line| {
        let hops = ["connection", "keep-alive", "transfer-encoding", "upgrade"];
        line.as_str().starts_with("x-weft-") || hops.contains(&line.as_str())
    });
    line.map(|line| format!("the line {line}"))
}

fn routes() -> Compiled {
    let parent = json!({"group": "", "kind": "Service", "name": "one"});
    compile(&with_routes(parent))
}

/// The services, and a route at `parent` to them.
pub(crate) fn with_routes(parent: Value) -> Objects {
    let mut objects = Objects::default();
    for name in ["one", "two", "closed"] {
        let service = api::Service {
            ports: vec![(None, 80)],
            protocols: vec![(80, "TCP".to_owned())],
            ..api::Service::default()
        };
        objects.apply(Object::Service(NamespacedName::new("vote", name), service));
    }
    let to = |name: &str| json!([{"name": name, "port": 80}]);
    let below = |path: &str| json!({"type": "PathPrefix", "value": path});
    let says_two = json!([{"name": "version", "value": "two"}]);
    let route = json!({
        "parentRefs": [parent],
        "rules": [
            {"backendRefs": to("one")},
            {"matches": [{"path": below("/closed")}], "backendRefs": to("closed")},
            {"matches": [{"path": below("/two"), "headers": says_two}], "backendRefs": to("two")},
        ],
    });
    let metadata = ObjectMeta {
        name: Some("route".to_owned()),
        namespace: Some("vote".to_owned()),
        ..ObjectMeta::default()
    };
    let route = api::Object::read(&metadata, &route).expect("a route");
    objects.apply(Object::HttpRoute(route));
    objects
}

static ROUTED: LazyLock<Mesh> = LazyLock::new(|| {
    let mesh = Mesh::builder("a", DOMAIN).build();
    let mut services = Vec::new();
    for (name, last) in [("one", 1), ("two", 2), ("closed", 3)] {
        services.push(service(name, last));
        let answer = move |request: Request<Body>| async move {
            let mut response = Response::new(Body::empty());
            if let Some(wrong) = wrong(name, &request) {
                let wrong = HeaderValue::from_str(&wrong);
                let wrong = wrong.unwrap_or(HeaderValue::from_static("what cannot be said"));
                response.headers_mut().insert(WRONG, wrong);
            }
            Ok::<_, Failure>(response)
        };
        let workload = LocalWorkload {
            identity: SpiffeId::new(DOMAIN, "vote", name),
            workload: named(name),
            service: WorkloadService::new(tower::service_fn(answer)),
            in_flight_max: 100,
        };
        let address = PodAddress {
            ip: [10, 42, 0, last].into(),
            port: 8080,
        };
        mesh.attach(address, workload);
    }
    let builder = Table::builder("a", 1).services(services);
    mesh.publish(builder.routes(&routes().served).build());
    mesh
});

/// `METHOD path`, then a line of a header each, as a guest may make it.
pub(crate) fn request(input: &[u8]) -> Option<Request<Body>> {
    let mut lines = input.split(|byte| *byte == b'\n');
    let first = std::str::from_utf8(lines.next()?).ok()?;
    let (method, path) = first.split_once(' ')?;
    let uri = Uri::try_from(format!("http://one{path}")).ok()?;
    let method = Method::from_bytes(method.as_bytes()).ok()?;
    let mut request = Request::builder().method(method).uri(uri);
    for line in lines {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let (name, value) = (line.get(..colon)?, line.get(colon + 1..)?);
        let name = HeaderName::from_bytes(name).ok()?;
        request = request.header(name, HeaderValue::from_bytes(value).ok()?);
    }
    request.body(Body::empty()).ok()
}

pub fn routed(input: &[u8]) {
    let Some(request) = request(input) else {
        return;
    };
    // Upgrades and tunnels are no requests.
    if *request.method() == Method::CONNECT {
        return;
    }
    let outbound = ROUTED.outbound(CallerInfo {
        identity: SpiffeId::new(DOMAIN, "vote", "caller"),
        workload: named("caller"),
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    // Whatever is answered: what a workload saw of it was judged there.
    if let Ok(response) = runtime.block_on(async { outbound.call(request).await }) {
        let wrong = response.headers().get(WRONG);
        assert!(wrong.is_none(), "{wrong:?}");
    }
}

pub fn routed_seeds() -> Vec<Vec<u8>> {
    let seeds: [&[u8]; 8] = [
        b"GET /",
        b"GET /two/x?a=b\nversion:two",
        b"GET /two/x\nversion:one\nversion:two",
        b"POST /closed/%2e%2e/one",
        b"GET /a/../closed/./x\nx-weft-source:spiffe://cluster.local/ns/vote/sa/one",
        b"GET //closed\nconnection:version\nversion:two",
        b"GET /%63losed\nupgrade:websocket\nte:trailers",
        b"GET /closed%2fx;a\nx-forwarded-for:127.0.0.1",
    ];
    seeds.map(<[u8]>::to_vec).to_vec()
}

/// Objects in a list, taken in from the first to the last and from the last to the first.
pub fn gateway_objects(input: &[u8]) {
    let Ok(Value::Array(values)) = serde_json::from_slice(input) else {
        return;
    };
    let all: Vec<(String, Object)> = values.iter().filter_map(object).collect();
    // Of two of one name the last counts, whichever that is.
    let mut names: Vec<&String> = all.iter().map(|(name, _)| name).collect();
    names.sort();
    names.dedup();
    let taken = |all: &mut dyn Iterator<Item = &(String, Object)>| {
        let mut objects = Objects::default();
        for (_, object) in all {
            objects.apply(object.clone());
        }
        compile(&objects)
    };
    let forth = taken(&mut all.iter());
    if names.len() == all.len() {
        assert_eq!(forth, taken(&mut all.iter().rev()));
    }
    for front in forth.served.streams.values() {
        for (pattern, listener) in &front.listeners {
            for host in listener.hosts.keys() {
                assert_eq!(pattern.intersect(host).as_ref(), Some(host));
            }
        }
    }
}

/// Who it is, and it.
fn object(value: &Value) -> Option<(String, Object)> {
    fn of<S>(metadata: &ObjectMeta, value: &Value) -> Option<api::Object<S>>
    where
        S: serde::de::DeserializeOwned + Default,
    {
        api::Object::read(metadata, &value["spec"]).ok()
    }
    let kind = value["kind"].as_str()?;
    let metadata: ObjectMeta = serde_json::from_value(value["metadata"].clone()).ok()?;
    let name = metadata.name.clone().unwrap_or_default();
    let namespace = metadata.namespace.clone().unwrap_or_default();
    let mut key = format!("{kind} {namespace:?} {name}");
    let object = match kind {
        "GatewayClass" => Object::GatewayClass(of(&metadata, value)?),
        "Gateway" => Object::Gateway(Box::new(of(&metadata, value)?)),
        "HTTPRoute" => Object::HttpRoute(of(&metadata, value)?),
        "GRPCRoute" => Object::GrpcRoute(of(&metadata, value)?),
        "TLSRoute" => Object::TlsRoute(of(&metadata, value)?),
        "TCPRoute" => Object::TcpRoute(of(&metadata, value)?),
        "UDPRoute" => Object::UdpRoute(of(&metadata, value)?),
        "ListenerSet" => Object::ListenerSet(of(&metadata, value)?),
        "BackendTLSPolicy" => Object::BackendTlsPolicy(of(&metadata, value)?),
        "ReferenceGrant" => Object::ReferenceGrant(of(&metadata, value)?),
        "Node" => {
            let status = serde_json::from_value(value["status"].clone()).ok()?;
            let annotations = metadata.annotations.unwrap_or_default();
            key = format!("Node {name}");
            Object::Node(name, api::Node::read(Some(&status), &annotations))
        }
        "Service" => {
            let service: weft_api::view::Service = serde_json::from_value(value.clone()).ok()?;
            Object::Service(NamespacedName::new(namespace, name), (&service).into())
        }
        _ => return None,
    };
    Some((key, object))
}

pub fn gateway_object_seeds() -> Vec<Vec<u8>> {
    let meta = |name: &str| json!({"name": name, "namespace": "shop"});
    let route = |kind: &str, name: &str, hosts: Value, section: &str| {
        json!({"kind": kind, "metadata": meta(name), "spec": {
            "parentRefs": [{"name": "public", "sectionName": section}], "hostnames": hosts,
            "rules": [{"backendRefs": [{"name": "web", "port": 80, "weight": 3}, {"name": "far", "namespace": "other", "port": 80}]}],
        }})
    };
    let listener = |name: &str, port: u16, protocol: &str, host: &str, mode: &str| json!({"name": name, "port": port, "protocol": protocol, "hostname": host, "tls": {"mode": mode}, "allowedRoutes": {"namespaces": {"from": "All"}}});
    let objects = json!([
        {"kind": "GatewayClass", "metadata": {"name": "weft"}, "spec": {"controllerName": api::CONTROLLER_NAME}},
        {"kind": "Node", "metadata": {"name": "a", "annotations": {"weft.dev/gateway-port": "9080", "weft.dev/service-addresses": "192.0.2.0/24"}},
         "status": {"addresses": [{"type": "InternalIP", "address": "127.0.0.1"}], "conditions": [{"type": "Ready", "status": "True"}]}},
        {"kind": "Service", "metadata": meta("web"), "spec": {"clusterIP": "10.43.0.1", "ports": [{"port": 80}, {"port": 53, "protocol": "UDP"}]}},
        {"kind": "Gateway", "metadata": meta("public"), "spec": {"gatewayClassName": "weft", "allowedListeners": {"namespaces": {"from": "Same"}}, "listeners": [
            listener("http", 80, "HTTP", "*.shop.test", ""), listener("tls", 443, "TLS", "*.shop.test", "Passthrough"),
            listener("https", 443, "HTTPS", "a.shop.test", "Terminate"), listener("tcp", 81, "TCP", "", ""), listener("udp", 53, "UDP", "", ""),
        ]}},
        {"kind": "ListenerSet", "metadata": meta("more"), "spec": {"parentRef": {"name": "public"}, "listeners": [listener("x", 82, "TCP", "", "")]}},
        {"kind": "ReferenceGrant", "metadata": {"name": "g", "namespace": "other"}, "spec": {"from": [{"group": api::GROUP, "kind": "TCPRoute", "namespace": "shop"}], "to": [{"group": "", "kind": "Service"}]}},
        route("HTTPRoute", "h", json!(["a.shop.test", "*.test"]), "http"),
        route("TLSRoute", "t", json!(["*.test", "b.shop.test"]), "tls"),
        route("TLSRoute", "s", json!(["b.shop.test"]), "tls"),
        route("TCPRoute", "c", json!([]), "tcp"),
        route("UDPRoute", "u", json!([]), "udp"),
    ]);
    vec![objects.to_string().into_bytes()]
}
