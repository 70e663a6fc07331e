//! What the mesh itself costs and promises, without guests: two meshes in one process whose workloads answer at once, in memory and over mutual
//! TLS, with no policy, the usual ones and all of them; tables of thousands of endpoints; and services that are down, slow or failing.
//!
//! `cargo run --release -p weft-mesh --example paths -- [--quick]` prints one JSON document (with `--way here-none` it makes calls of
//! that kind alone, for a profiler, and prints what they take); `cargo xtask bench mesh` shows it. Cases take
//! turns in rounds, so that a machine that slows down slows all of them; a figure is the median of the rounds', a ratio that of theirs.

use std::{
    collections::BTreeMap,
    net::{SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use http::{Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType,
};
use rustls_pki_types::PrivateKeyDer;
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};
use weft_api::identity::SpiffeId;
use weft_call::CallContext;
use weft_gateway::{
    Across, Breaker, Compiler, Concurrency, LimitedBy, NamespacedName, Object, Objects, RateLimit,
    Resilience, Retry, Served,
};
use weft_mesh::{
    Body, CallerInfo, CancellationToken, EndpointSpec, Failure, LocalWorkload, Mesh, Outbound,
    PodAddress, ServicePortSpec, ServiceSpec, Table, WorkloadInfo, WorkloadService,
};

const DOMAIN: &str = "cluster.local";
const NAMESPACE: &str = "bench";
/// Calls of one round that are not looked at.
const WARMUP: usize = 200;

struct Effort {
    rounds: usize,
    calls: usize,
    down_calls: u32,
}

fn main() {
    let mut arguments = std::env::args().skip_while(|argument| argument != "--way");
    if let Some(way) = arguments.nth(1) {
        return again_and_again(&way);
    }
    let quick = std::env::args().any(|argument| argument == "--quick");
    let effort = match quick {
        true => Effort {
            rounds: 3,
            calls: 2_000,
            down_calls: 1_000,
        },
        false => Effort {
            rounds: 15,
            calls: 10_000,
            down_calls: 5_000,
        },
    };
    let document = json!({
        "paths": paths(&effort),
        "throughput": throughput(&effort),
        "edges": edges(),
        "tables": tables(&effort),
        "down": down(&effort),
        "one_of_ten": one_of_ten(&effort),
        "removed": removed(),
    });
    println!("{document}");
}

/// The mean of the best of ten rounds.
fn again_and_again(way: &str) {
    const CALLS: usize = 100_000;
    let world = World::new();
    let outbound = caller(&world.a);
    let uri = format!("http://{way}/");
    let rounds = (0..10).map(|_| {
        let took = world.runtime.block_on(timed(&outbound, &uri, CALLS));
        took.iter().sum::<f64>() / CALLS as f64
    });
    let best = rounds.min_by(f64::total_cmp).unwrap_or_default();
    println!("{}", json!({"way": way, "mean_us": best}));
}

fn account(name: &str) -> SpiffeId {
    SpiffeId::new(DOMAIN, NAMESPACE, name)
}

fn workload_info(name: &str) -> WorkloadInfo {
    WorkloadInfo {
        name: name.to_owned(),
        namespace: NAMESPACE.to_owned(),
        ..WorkloadInfo::default()
    }
}

fn pod(last: u8) -> PodAddress {
    PodAddress {
        ip: [10, 42, 0, last].into(),
        port: 8080,
    }
}

fn workload<F>(answer: impl Fn(Request<Body>) -> F + Clone + Send + Sync + 'static) -> LocalWorkload
where
    F: Future<Output = Result<Response<Body>, Failure>> + Send + 'static,
{
    LocalWorkload {
        identity: account("callee"),
        workload: workload_info("callee"),
        service: WorkloadService::new(tower::service_fn(answer)),
        in_flight_max: 10_000,
    }
}

async fn hello(_: Request<Body>) -> Result<Response<Body>, Failure> {
    Ok(Response::new(Body::full("hello")))
}

fn endpoint(last: u8, node: &str, node_address: SocketAddr) -> EndpointSpec {
    EndpointSpec {
        pod: format!("callee-{last}"),
        ip: pod(last).ip,
        port: 8080,
        node: node.to_owned(),
        node_address: Some(node_address),
        identity: account("callee"),
        workload: workload_info("callee"),
        ready: true,
        serving: true,
        assigned: true,
    }
}

fn service(name: &str, endpoints: Vec<EndpointSpec>) -> ServiceSpec {
    ServiceSpec {
        namespace: NAMESPACE.to_owned(),
        name: name.to_owned(),
        ports: vec![ServicePortSpec {
            port: 80,
            endpoints,
            ..ServicePortSpec::default()
        }],
        ..ServiceSpec::default()
    }
}

fn caller(mesh: &Mesh) -> Outbound {
    mesh.outbound(CallerInfo {
        identity: account("caller"),
        workload: workload_info("caller"),
    })
}

fn get(uri: &str) -> Request<Body> {
    let request = Request::get(uri).body(Body::empty());
    request.expect("a request")
}

// === Policies ===

fn again(codes: &[u16], attempts: u32) -> Option<Retry> {
    let codes = codes.iter().map(|code| StatusCode::from_u16(*code));
    Some(Retry {
        codes: codes.map(|code| code.expect("a status")).collect(),
        grpc: Vec::new(),
        attempts,
        backoff: Some(Duration::from_millis(1)),
    })
}

/// Times, further tries and a breaker: what most services have.
fn usual() -> Resilience {
    Resilience {
        retry: again(&[502, 503, 504], 2),
        request_timeout: Some(Duration::from_secs(10)),
        attempt_timeout: Some(Duration::from_secs(2)),
        breaker: Some(Breaker::default()),
        ..Resilience::default()
    }
}

/// All that there is, so large that it stops nobody.
fn everything() -> Resilience {
    let limit = |by| RateLimit {
        by,
        requests: 1_000_000,
        per: Duration::from_secs(1),
        burst: 1_000_000,
        across: Across::Node,
    };
    Resilience {
        hedge_after: Some(Duration::from_secs(1)),
        concurrency: Some(Concurrency::default()),
        rate_limits: vec![limit(LimitedBy::ServiceAccount), limit(LimitedBy::Everyone)],
        ..usual()
    }
}

fn asked(all: impl IntoIterator<Item = (String, Resilience)>) -> Served {
    let all = all.into_iter();
    let all = all.map(|(name, asked)| (NamespacedName::new(NAMESPACE, name), Arc::new(asked)));
    Served {
        resilience: all.collect(),
        ..Served::default()
    }
}

/// Services of one set of endpoints, one a case.
const CASES: [&str; 3] = ["none", "usual", "all"];

fn cases() -> Served {
    let policies = [Resilience::default(), usual(), everything()];
    let cases = CASES.iter().zip(policies);
    let both = cases.flat_map(|(case, policy)| {
        ["here", "there"].map(|way| (format!("{way}-{case}"), policy.clone()))
    });
    asked(both)
}

// === Two nodes ===

struct World {
    runtime: Runtime,
    a: Mesh,
}

impl World {
    /// The second node has a thread of its own, as another process has, which ends with this one.
    fn new() -> Self {
        let (a, b) = (
            Mesh::builder("a", DOMAIN).build(),
            Mesh::builder("b", DOMAIN).build(),
        );
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = params.self_signed(&key).expect("a root").der().clone();
        let issuer = Issuer::new(params, key);
        for (mesh, name) in [(&a, "caller"), (&b, "callee")] {
            let key = KeyPair::generate().expect("a key");
            let mut params = CertificateParams::default();
            let uri = account(name).to_string();
            let uri = uri.as_str().try_into().expect("ASCII");
            params.subject_alt_names = vec![SanType::URI(uri)];
            params.extended_key_usages = vec![
                ExtendedKeyUsagePurpose::ClientAuth,
                ExtendedKeyUsagePurpose::ServerAuth,
            ];
            let certificate = params.signed_by(&key, &issuer).expect("signed");
            let key = PrivateKeyDer::try_from(key.serialize_der()).expect("PKCS 8");
            let chain = vec![certificate.der().clone()];
            let identities = mesh.identities();
            identities
                .set(account(name), chain, key)
                .expect("a certificate");
            identities
                .set_roots(std::slice::from_ref(&root))
                .expect("a root");
        }
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("its address");
        // A pod a case: policies are asked for at the pod, whatever the Service is called by which it was called.
        let pods = (1..).step_by(2).zip(CASES);
        for (last, _) in pods.clone() {
            a.attach(pod(last), workload(hello));
            b.attach(pod(last + 1), workload(hello));
        }
        for mesh in [&a, &b] {
            let services = pods.clone().flat_map(|(last, case)| {
                let (here, there) = (
                    endpoint(last, "a", address),
                    endpoint(last + 1, "b", address),
                );
                [
                    service(&format!("here-{case}"), vec![here]),
                    service(&format!("there-{case}"), vec![there]),
                ]
            });
            let table = Table::builder(mesh.node(), 1).services(services);
            mesh.publish(table.routes(&cases()).build());
        }
        std::thread::spawn(move || {
            let runtime = current_thread();
            let served = runtime.block_on(b.serve_inbound(listener, CancellationToken::new()));
            served.expect("a listener");
        });
        Self {
            runtime: current_thread(),
            a,
        }
    }
}

fn current_thread() -> Runtime {
    let runtime = Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime")
}

/// How long each of so many calls took, in microseconds and in order.
async fn timed(outbound: &Outbound, uri: &str, calls: usize) -> Vec<f64> {
    let mut took = Vec::with_capacity(calls);
    for number in 0..calls + WARMUP {
        let begun = Instant::now();
        let response = outbound.call(get(uri)).await.expect("an answer");
        assert_eq!(response.status(), 200);
        let body = response.into_body().collect().await.expect("a body");
        drop(body);
        if number >= WARMUP {
            took.push(begun.elapsed().as_secs_f64() * 1e6);
        }
    }
    took.sort_by(f64::total_cmp);
    took
}

fn quantile(sorted: &[f64], share: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    sorted[(last as f64 * share).round() as usize]
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    quantile(&values, 0.5)
}

/// Times of calls by way and policies, and how much longer policies make them.
fn paths(effort: &Effort) -> Value {
    let world = World::new();
    let outbound = caller(&world.a);
    let mut figures: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
    for _ in 0..effort.rounds {
        for way in ["here", "there"] {
            for case in CASES {
                let uri = format!("http://{way}-{case}/");
                let took = world.runtime.block_on(timed(&outbound, &uri, effort.calls));
                let both = (quantile(&took, 0.5), quantile(&took, 0.99));
                figures
                    .entry(format!("{way}-{case}"))
                    .or_default()
                    .push(both);
            }
        }
    }
    let of = |way: &str| {
        let all = |case: &str| &figures[&format!("{way}-{case}")];
        let shown = |case: &str| {
            let (p50, p99) = all(case).iter().copied().unzip();
            json!({"p50_us": median(p50), "p99_us": median(p99)})
        };
        let ratio = |case: &str| {
            let rounds = all(case).iter().zip(all("none"));
            median(rounds.map(|(with, without)| with.0 / without.0).collect())
        };
        json!({
            "none": shown("none"), "usual": shown("usual"), "all": shown("all"),
            "usual_ratio": ratio("usual"), "all_ratio": ratio("all"),
        })
    };
    // What the parts of a machine take, to compare with.
    let tcp = world.runtime.block_on(loopback(effort.calls));
    json!({"same_node": of("here"), "other_node": of("there"), "loopback_tcp": {
        "p50_us": quantile(&tcp, 0.5), "p99_us": quantile(&tcp, 0.99),
    }})
}

/// There and back between two threads by TCP alone: what a call between nodes takes that no mesh can do without.
async fn loopback(calls: usize) -> Vec<f64> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    let echo = std::thread::spawn(move || {
        current_thread().block_on(async move {
            listener.set_nonblocking(true).expect("a listener");
            let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
            let (mut stream, _) = listener.accept().await.expect("a connection");
            stream.set_nodelay(true).expect("an option");
            let mut bytes = [0; 256];
            while let Ok(read @ 1..) = stream.read(&mut bytes).await {
                stream.write_all(&bytes[..read]).await.expect("sent");
            }
        });
    });
    let stream = tokio::net::TcpStream::connect(address).await;
    let mut stream = stream.expect("a connection");
    stream.set_nodelay(true).expect("an option");
    let mut took = Vec::with_capacity(calls);
    let mut bytes = [0; 256];
    for _ in 0..calls {
        let begun = Instant::now();
        stream.write_all(&bytes[..128]).await.expect("sent");
        let mut read = 0;
        while read < 128 {
            read += stream.read(&mut bytes).await.expect("an answer");
        }
        took.push(begun.elapsed().as_secs_f64() * 1e6);
    }
    drop(stream);
    echo.join().expect("no panic");
    took.sort_by(f64::total_cmp);
    took
}

/// Seconds of processor time that this process has used.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default();
    let mut fields = fields.split_whitespace().skip(11);
    let mut next = || -> f64 {
        fields
            .next()
            .and_then(|text| text.parse().ok())
            .unwrap_or(0.0)
    };
    (next() + next()) / 100.0
}

/// Calls a second with 64 at once from one thread, and the processor time of a thousand.
fn throughput(effort: &Effort) -> Value {
    const AT_ONCE: usize = 64;
    let world = World::new();
    let outbound = caller(&world.a);
    let measured = |way: &str| {
        let uri = format!("http://{way}/");
        let mut rates = Vec::new();
        let mut cpu = Vec::new();
        for _ in 0..effort.rounds {
            let (begun, used) = (Instant::now(), cpu_seconds());
            let each = effort.calls / 16;
            world.runtime.block_on(async {
                let local = tokio::task::LocalSet::new();
                for _ in 0..AT_ONCE {
                    let (outbound, uri) = (outbound.clone(), uri.clone());
                    local.spawn_local(async move {
                        for _ in 0..each {
                            let response = outbound.call(get(&uri)).await.expect("an answer");
                            drop(response.into_body().collect().await.expect("a body"));
                        }
                    });
                }
                local.await;
            });
            let calls = (AT_ONCE * each) as f64;
            rates.push(calls / begun.elapsed().as_secs_f64());
            cpu.push((cpu_seconds() - used) / calls * 1000.0);
        }
        json!({"calls_per_second": median(rates), "cpu_seconds_per_1000": median(cpu)})
    };
    let all: BTreeMap<&str, Value> = ["here-none", "here-all", "there-none", "there-all"]
        .into_iter()
        .map(|way| (way, measured(way)))
        .collect();
    json!(all)
}

/// Bytes that this process has in memory.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split_whitespace().nth(1);
    pages
        .and_then(|pages| pages.parse::<u64>().ok())
        .unwrap_or(0)
        * 4096
}

/// What who calls whom takes in memory: callers, services and the figures of each pair.
fn edges() -> Value {
    const CALLERS: usize = 100;
    const SERVICES: usize = 20;
    let world = World::new();
    let address = SocketAddr::from(([127, 0, 0, 1], 1));
    let services =
        (0..SERVICES).map(|number| service(&format!("s{number}"), vec![endpoint(1, "a", address)]));
    let table = Table::builder("a", 2).services(services).build();
    world.a.publish(table);
    let outbounds: Vec<Outbound> = (0..CALLERS)
        .map(|number| {
            let name = format!("caller-{number}");
            world.a.outbound(CallerInfo {
                identity: account(&name),
                workload: workload_info(&name),
            })
        })
        .collect();
    let before = resident();
    world.runtime.block_on(async {
        for outbound in &outbounds {
            for number in 0..SERVICES {
                let uri = format!("http://s{number}/");
                let response = outbound.call(get(&uri)).await.expect("an answer");
                drop(response);
            }
        }
    });
    // Each pair has two accounts, one a side.
    let pairs = (CALLERS * SERVICES) as f64;
    json!({"pairs": pairs, "bytes_per_pair": resident().saturating_sub(before) as f64 / pairs})
}

const SERVICES: usize = 1000;

/// A thousand services of ten endpoints and a thousand routes: all of them, and one of them. From objects to a table that can be published.
fn tables(effort: &Effort) -> Value {
    let spec = |number: usize, pods: u8| {
        let endpoints = (0..pods).map(|pod| {
            let node = pod % 4;
            let address = SocketAddr::from(([10, 0, 0, node], 15443));
            let ip = [10, 42, (number / 20) as u8, (number % 20) as u8 * 12 + pod];
            EndpointSpec {
                pod: format!("s{number}-{pod}"),
                ip: ip.into(),
                node: format!("node-{node}"),
                ..endpoint(0, "", address)
            }
        });
        service(&format!("s{number}"), endpoints.collect())
    };
    let millis = |begun: Instant| begun.elapsed().as_secs_f64() * 1e3;
    let measured = |at_gateway: bool| {
        let (mut whole, mut one_service, mut one_route) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..effort.rounds {
            let specs: Vec<_> = (0..SERVICES).map(|number| spec(number, 10)).collect();
            let mut objects = objects(at_gateway);
            let begun = Instant::now();
            let mut compiler = Compiler::default();
            let mut builder = Table::builder("node-0", 1).services(specs);
            builder.set_routes(compiler.served(&objects));
            let table = builder.table(1);
            whole.push(millis(begun));
            let fewer = spec(round, 9);
            let begun = Instant::now();
            builder.set_service(fewer);
            let next = builder.table(2);
            one_service.push(millis(begun));
            let begun = Instant::now();
            objects.apply(route(round, at_gateway, "/v2"));
            builder.set_routes(compiler.served(&objects));
            let last = builder.table(3);
            one_route.push(millis(begun));
            drop((table, next, last));
        }
        json!({
            "whole_ms": median(whole), "one_service_ms": median(one_service),
            "one_route_ms": median(one_route),
        })
    };
    json!({"services": measured(false), "gateway": measured(true)})
}

fn object<S: serde::de::DeserializeOwned + Default>(
    name: &str,
    spec: &Value,
) -> weft_gateway::api::Object<S> {
    let metadata = weft_api::view::ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some(NAMESPACE.to_owned()),
        ..weft_api::view::ObjectMeta::default()
    };
    weft_gateway::api::Object::read(&metadata, spec).expect("an object")
}

/// A route of a Service, or of a host of a Gateway.
fn route(number: usize, at_gateway: bool, path: &str) -> Object {
    let service = format!("s{number}");
    let parent = match at_gateway {
        true => json!({"name": "public"}),
        false => json!({"group": "", "kind": "Service", "name": service, "port": 80}),
    };
    let hosts = at_gateway.then(|| format!("s{number}.test"));
    let spec = json!({
        "parentRefs": [parent], "hostnames": hosts.into_iter().collect::<Vec<_>>(),
        "rules": [{
            "matches": [{"path": {"type": "PathPrefix", "value": path}}],
            "backendRefs": [{"name": service, "port": 80}],
        }],
    });
    Object::HttpRoute(object(&format!("r{number}"), &spec))
}

/// The Services, the routes, and a policy for each of the Services.
fn objects(at_gateway: bool) -> Objects {
    let mut objects = Objects::default();
    let class = json!({"controllerName": weft_gateway::api::CONTROLLER_NAME});
    let mut class: weft_gateway::api::GatewayClass = object("weft", &class);
    class.metadata.name = NamespacedName::cluster("weft");
    objects.apply(Object::GatewayClass(class));
    let listener = json!({"name": "http", "port": 80, "protocol": "HTTP"});
    let gateway = json!({"gatewayClassName": "weft", "listeners": [listener]});
    objects.apply(Object::Gateway(Box::new(object("public", &gateway))));
    let node = weft_gateway::api::Node {
        ready_address: Some("127.0.0.1".to_owned()),
        gateway_port: Some(80),
        ranges: Vec::new(),
    };
    objects.apply(Object::Node("node-0".to_owned(), node));
    for number in 0..SERVICES {
        let name = format!("s{number}");
        let policy = json!({
            "targetRefs": [{"kind": "Service", "name": name}], "retry": {}, "circuitBreaker": {},
        });
        objects.apply(Object::MeshPolicy(Box::new(object(&name, &policy))));
        let service = weft_gateway::api::Service {
            ports: vec![(None, 80)],
            protocols: vec![(80, "TCP".to_owned())],
            ..weft_gateway::api::Service::default()
        };
        objects.apply(Object::Service(
            NamespacedName::new(NAMESPACE, name),
            service,
        ));
        objects.apply(route(number, at_gateway, "/v1"));
    }
    objects
}

/// Tries of calls to a chain of services whose last one is down.
fn down(effort: &Effort) -> Value {
    let runtime = current_thread();
    let mut all = BTreeMap::new();
    for depth in [1_u8, 3, 5] {
        for (why, status) in [("answers 503", Some(503)), ("is not there", None)] {
            let mesh = Mesh::builder("a", DOMAIN).build();
            let tries = Arc::new(AtomicU64::new(0));
            let address = SocketAddr::from(([127, 0, 0, 1], 1));
            let mut services = Vec::new();
            for level in 1..=depth {
                let tries = Arc::clone(&tries);
                let outbound = caller(&mesh);
                let is_last = level == depth;
                let next = format!("http://level-{}/", level + 1);
                let answer = move |request: Request<Body>| {
                    if is_last {
                        tries.fetch_add(1, Ordering::Relaxed);
                    }
                    let context = request.extensions().get::<CallContext>().cloned();
                    let mut onward = get(&next);
                    onward.extensions_mut().insert(context.unwrap_or_default());
                    let calling = (!is_last).then(|| outbound.call(onward));
                    async move {
                        let status = match (calling, status) {
                            (Some(calling), _) => match calling.await {
                                Ok(answer) => answer.status(),
                                Err(failure) => failure.status(),
                            },
                            (None, Some(status)) => StatusCode::from_u16(status).expect("one"),
                            (None, None) => return Err(weft_mesh::FailureKind::NotHere.into()),
                        };
                        let mut response = Response::new(Body::empty());
                        *response.status_mut() = status;
                        Ok::<_, Failure>(response)
                    }
                };
                mesh.attach(pod(level), workload(answer));
                let at = endpoint(level, "a", address);
                services.push(service(&format!("level-{level}"), vec![at]));
            }
            let policy = Resilience {
                retry: again(&[500, 502, 503, 504, 421], 3),
                ..usual()
            };
            let names = (1..=depth).map(|level| (format!("level-{level}"), policy.clone()));
            let table = Table::builder("a", 1).services(services);
            mesh.publish(table.routes(&asked(names)).build());
            let outbound = caller(&mesh);
            let calls = effort.down_calls;
            runtime.block_on(async {
                let mut set = tokio::task::JoinSet::new();
                for _ in 0..calls {
                    set.spawn(outbound.call(get("http://level-1/")));
                    while set.len() >= 50 {
                        let _ = set.join_next().await;
                    }
                }
                while set.join_next().await.is_some() {}
            });
            let ratio = tries.load(Ordering::Relaxed) as f64 / f64::from(calls);
            all.insert(format!("{why}, depth {depth}"), ratio);
        }
    }
    json!(all)
}

/// One of ten endpoints fails, or takes twenty times as long: what clients see of it.
fn one_of_ten(effort: &Effort) -> Value {
    let runtime = current_thread();
    let measured = |bad: &'static str| {
        let mesh = Mesh::builder("a", DOMAIN).build();
        for last in 1..=10_u8 {
            let answer = move |_: Request<Body>| async move {
                let is_bad = last == 1;
                let takes = if is_bad && bad == "slow" { 40 } else { 2 };
                tokio::time::sleep(Duration::from_millis(takes)).await;
                let mut response = Response::new(Body::empty());
                if is_bad && bad == "failing" {
                    *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
                }
                Ok::<_, Failure>(response)
            };
            mesh.attach(pod(last), workload(answer));
        }
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        let all = (1..=10).map(|last| endpoint(last, "a", address)).collect();
        let policy = Resilience {
            retry: again(&[500, 502, 503, 504], 2),
            ..usual()
        };
        let served = asked([("ten".to_owned(), policy)]);
        let table = Table::builder("a", 1).service(service("ten", all));
        mesh.publish(table.routes(&served).build());
        let outbound = caller(&mesh);
        let calls = effort.down_calls as usize * 2;
        let mut took = Vec::with_capacity(calls);
        let mut failed = 0;
        runtime.block_on(async {
            let mut set = tokio::task::JoinSet::new();
            for _ in 0..calls {
                let outbound = outbound.clone();
                set.spawn(async move {
                    let begun = Instant::now();
                    let answer = outbound.call(get("http://ten/")).await;
                    let is_good = answer.is_ok_and(|answer| answer.status() == 200);
                    (is_good, begun.elapsed().as_secs_f64() * 1e3)
                });
                while set.len() >= 20 {
                    if let Some(Ok((is_good, millis))) = set.join_next().await {
                        failed += usize::from(!is_good);
                        took.push(millis);
                    }
                }
            }
        });
        took.sort_by(f64::total_cmp);
        (failed as f64 / calls as f64, quantile(&took, 0.99))
    };
    let (_, well) = measured("none");
    let mut all = BTreeMap::new();
    for bad in ["failing", "slow"] {
        let (errors, p99) = measured(bad);
        all.insert(
            bad,
            json!({"errors": errors, "p99_ms": p99, "p99_ratio": p99 / well}),
        );
    }
    json!(all)
}

/// How long an endpoint is called after a table without it is published, while many calls are made.
fn removed() -> Value {
    let runtime = current_thread();
    let mesh = Mesh::builder("a", DOMAIN).build();
    let last_call = Arc::new(AtomicU64::new(0));
    let started = Instant::now();
    let address = SocketAddr::from(([127, 0, 0, 1], 1));
    for last in [1_u8, 2] {
        let last_call = Arc::clone(&last_call);
        let answer = move |_: Request<Body>| {
            if last == 1 {
                let now = started.elapsed().as_micros();
                last_call.store(u64::try_from(now).unwrap_or(u64::MAX), Ordering::Relaxed);
            }
            hello(Request::new(Body::empty()))
        };
        mesh.attach(pod(last), workload(answer));
    }
    let both = |lasts: &[u8]| {
        let endpoints = lasts.iter().map(|last| endpoint(*last, "a", address));
        service("two", endpoints.collect())
    };
    let mut builder = Table::builder("a", 1).service(both(&[1, 2]));
    mesh.publish(builder.table(1));
    let outbound = caller(&mesh);
    let at = runtime.block_on(async {
        for _ in 0..2000 {
            outbound.call(get("http://two/")).await.expect("an answer");
        }
        builder.set_service(both(&[2]));
        mesh.publish(builder.table(2));
        let at = started.elapsed().as_micros();
        for _ in 0..2000 {
            outbound.call(get("http://two/")).await.expect("an answer");
        }
        u64::try_from(at).unwrap_or(u64::MAX)
    });
    let after = last_call.load(Ordering::Relaxed).saturating_sub(at);
    json!({"last_call_us_after": after})
}
