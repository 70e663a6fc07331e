//! What is served after any changes, one by one, is what all objects are compiled to at once.
//!
//! Cases are the same in every run; `WEFT_SEED=17` tries others, and a failure prints the seed and the smallest input.

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use serde_json::{Value, json};
use weft_api::{annotation, view::ObjectMeta};
use weft_gateway::{Compiler, Kind, NamespacedName, Object, Objects, api, compile};

fn config() -> ProptestConfig {
    let seed = std::env::var("WEFT_SEED").ok();
    let seed = seed.and_then(|seed| seed.parse().ok()).unwrap_or(1);
    println!("WEFT_SEED={seed}");
    ProptestConfig {
        cases: 300,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(seed),
        ..ProptestConfig::default()
    }
}

/// One change.
#[derive(Debug, Clone)]
enum Step {
    Route(&'static str, &'static str, &'static str, Value),
    RouteGone(&'static str, &'static str, &'static str),
    Service(&'static str, Vec<u16>),
    ServiceGone(&'static str),
    Gateway(&'static str, Value),
    Policy(Value),
}

fn any_of<T: Clone + std::fmt::Debug + 'static>(all: &[T]) -> impl Strategy<Value = T> + use<T> {
    proptest::sample::select(all.to_vec())
}

const KINDS: [&str; 4] = ["HTTPRoute", "GRPCRoute", "TLSRoute", "TCPRoute"];
const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];
const SERVICES: [&str; 3] = ["web", "api", "gone"];

fn parent() -> impl Strategy<Value = Value> {
    prop_oneof![
        any_of(&["shared", "older", "apart", "nobody"])
            .prop_map(|name| json!({"name": name, "namespace": "shop"})),
        (any_of(&SERVICES), any_of(&[None, Some(80), Some(81)])).prop_map(|(name, port)| {
            json!({"group": "", "kind": "Service", "name": name, "namespace": "shop", "port": port})
        }),
    ]
}

fn route() -> impl Strategy<Value = Value> {
    let hosts = [
        "a.test", "b.test", "*.test", "x.b.test", "*.b.test", "A.test",
    ];
    let backend = (any_of(&SERVICES), 80_u16..82);
    let backend = backend.prop_map(|(name, port)| json!({"name": name, "port": port}));
    let parts = (
        proptest::collection::vec(parent(), 1..3),
        proptest::collection::vec(any_of(&hosts), 0..3),
        proptest::collection::vec(backend, 1..3),
    );
    parts.prop_map(|(parents, hosts, backends)| {
        json!({"parentRefs": parents, "hostnames": hosts, "rules": [{"name": "one", "backendRefs": backends}]})
    })
}

fn step() -> impl Strategy<Value = Step> {
    let namespaces = ["shop", "cart"];
    prop_oneof![
        8 => (any_of(&KINDS), any_of(&namespaces), any_of(&NAMES), route())
            .prop_map(|(kind, namespace, name, spec)| Step::Route(kind, namespace, name, spec)),
        3 => (any_of(&KINDS), any_of(&namespaces), any_of(&NAMES))
            .prop_map(|(kind, namespace, name)| Step::RouteGone(kind, namespace, name)),
        2 => (any_of(&SERVICES), any_of(&[vec![80], vec![80, 81], vec![81]]))
            .prop_map(|(name, ports)| Step::Service(name, ports)),
        1 => any_of(&SERVICES).prop_map(Step::ServiceGone),
        1 => any_of(&["a.test", "*.test", "*"]).prop_map(|host| Step::Gateway("older", listeners(&[host]))),
        1 => any_of(&["Service", "HTTPRoute"]).prop_map(|kind| {
            let group = if kind == "Service" { "" } else { api::GROUP };
            let name = if kind == "Service" { "web" } else { "a" };
            Step::Policy(json!({
                "targetRefs": [{"group": group, "kind": kind, "name": name}], "timeouts": {"request": "2s"},
            }))
        }),
    ]
}

fn listeners(hosts: &[&str]) -> Value {
    let http = hosts.iter().enumerate().map(|(number, host)| {
        json!({
            "name": format!("http-{number}"), "port": 80, "protocol": "HTTP", "hostname": host,
            "allowedRoutes": {"namespaces": {"from": "All"}},
        })
    });
    let bytes = json!({
        "name": "tls", "port": 443, "protocol": "TLS", "tls": {"mode": "Passthrough"},
        "allowedRoutes": {"namespaces": {"from": "All"}},
    });
    json!({"gatewayClassName": "weft", "listeners": http.chain([bytes]).collect::<Vec<_>>()})
}

fn metadata(namespace: &str, name: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: (!namespace.is_empty()).then(|| namespace.to_owned()),
        ..ObjectMeta::default()
    }
}

fn gateway(name: &str, spec: &Value) -> Object {
    let read = api::Object::read(&metadata("shop", name), spec);
    Object::Gateway(Box::new(read.expect("a gateway")))
}

fn service(name: &str, ports: &[u16]) -> Object {
    let service = api::Service {
        ports: ports.iter().map(|port| (None, *port)).collect(),
        protocols: ports.iter().map(|port| (*port, "TCP".to_owned())).collect(),
        ..api::Service::default()
    };
    Object::Service(NamespacedName::new("shop", name), service)
}

fn cluster(with_addresses: bool) -> Objects {
    let mut objects = Objects::default();
    let class = json!({"controllerName": api::CONTROLLER_NAME});
    let class = api::Object::read(&metadata("", "weft"), &class);
    objects.apply(Object::GatewayClass(class.expect("a class")));
    let annotations = [
        (annotation::GATEWAY_PORT, "80"),
        (annotation::SERVICE_ADDRESSES, "127.1.0.0/16"),
    ];
    let annotations = annotations
        .into_iter()
        .take(1 + usize::from(with_addresses));
    let annotations = annotations.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let status = json!({
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "conditions": [{"type": "Ready", "status": "True"}],
    });
    let status = serde_json::from_value(status).expect("a status");
    let node = api::Node::read(Some(&status), &annotations.collect());
    objects.apply(Object::Node("n".to_owned(), node));
    objects.apply(gateway("shared", &listeners(&["*.test", "a.test"])));
    objects.apply(gateway("apart", &listeners(&["*"])));
    objects.apply(service("web", &[80]));
    objects
}

fn kind_of(name: &str) -> Kind {
    match name {
        "HTTPRoute" => Kind::HttpRoute,
        "GRPCRoute" => Kind::GrpcRoute,
        "TLSRoute" => Kind::TlsRoute,
        _ => Kind::TcpRoute,
    }
}

fn apply(objects: &mut Objects, step: Step) {
    match step {
        Step::Route(kind, namespace, name, spec) => {
            let metadata = metadata(namespace, name);
            let stream = || api::Object::read(&metadata, &spec).expect("a route");
            objects.apply(match kind_of(kind) {
                Kind::HttpRoute => {
                    Object::HttpRoute(api::Object::read(&metadata, &spec).expect("a route"))
                }
                Kind::GrpcRoute => {
                    Object::GrpcRoute(api::Object::read(&metadata, &spec).expect("a route"))
                }
                Kind::TlsRoute => Object::TlsRoute(stream()),
                _ => Object::TcpRoute(stream()),
            });
        }
        Step::RouteGone(kind, namespace, name) => {
            objects.delete(kind_of(kind), &NamespacedName::new(namespace, name));
        }
        Step::Service(name, ports) => {
            objects.apply(service(name, &ports));
        }
        Step::ServiceGone(name) => {
            objects.delete(Kind::Service, &NamespacedName::new("shop", name));
        }
        Step::Gateway(name, spec) => {
            objects.apply(gateway(name, &spec));
        }
        Step::Policy(spec) => {
            let policy = api::Object::read(&metadata("shop", "policy"), &spec);
            objects.apply(Object::MeshPolicy(Box::new(policy.expect("a policy"))));
        }
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn one_by_one_or_all_at_once(
        with_addresses in any::<bool>(),
        steps in proptest::collection::vec(proptest::collection::vec(step(), 1..3), 1..20),
    ) {
        let mut objects = cluster(with_addresses);
        let mut compiler = Compiler::default();
        for together in steps {
            for step in together {
                apply(&mut objects, step);
            }
            prop_assert_eq!(compiler.served(&objects), &compile(&objects).served);
        }
    }
}
