//! What it costs to compile 1,000 Services and 1,000 routes, and one of the routes when it changed: at Services, and at hosts of a Gateway.
//!
//! `cargo run --release -p weft-gateway --example compiling` prints medians of rounds in milliseconds.

use std::time::Instant;

use serde_json::{Value, json};
use weft_api::{annotation, view::ObjectMeta};
use weft_gateway::{Compiler, NamespacedName, Object, Objects, api, compile};

const ROUTES: usize = 1000;
const ROUNDS: usize = 21;

fn metadata(namespace: &str, name: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: (!namespace.is_empty()).then(|| namespace.to_owned()),
        ..ObjectMeta::default()
    }
}

fn route(number: usize, at_gateway: bool, path: &str) -> Object {
    let service = format!("s{number}");
    let parent = match at_gateway {
        true => json!({"name": "public"}),
        false => json!({"group": "", "kind": "Service", "name": service, "port": 80}),
    };
    let hosts: Vec<String> = at_gateway
        .then(|| format!("s{number}.test"))
        .into_iter()
        .collect();
    let spec = json!({
        "parentRefs": [parent], "hostnames": hosts,
        "rules": [{
            "matches": [{"path": {"type": "PathPrefix", "value": path}}],
            "backendRefs": [{"name": service, "port": 80}],
        }],
    });
    let route = api::Object::read(&metadata("bench", &format!("r{number}")), &spec);
    Object::HttpRoute(route.expect("a route"))
}

fn cluster(at_gateway: bool, with_policies: bool) -> Objects {
    let mut objects = Objects::default();
    let class = json!({"controllerName": api::CONTROLLER_NAME});
    let class = api::Object::read(&metadata("", "weft"), &class);
    objects.apply(Object::GatewayClass(class.expect("a class")));
    let annotations = [
        (annotation::GATEWAY_PORT, "80"),
        (annotation::SERVICE_ADDRESSES, "127.1.0.0/16"),
    ];
    let annotations = annotations.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let status = json!({
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "conditions": [{"type": "Ready", "status": "True"}],
    });
    let status = serde_json::from_value(status).expect("a status");
    let node = api::Node::read(Some(&status), &annotations.into());
    objects.apply(Object::Node("n".to_owned(), node));
    let listener = json!({"name": "http", "port": 80, "protocol": "HTTP"});
    let gateway = json!({"gatewayClassName": "weft", "listeners": [listener]});
    let gateway = api::Object::read(&metadata("bench", "public"), &gateway);
    objects.apply(Object::Gateway(Box::new(gateway.expect("a gateway"))));
    for number in 0..ROUTES {
        let name = format!("s{number}");
        let service = api::Service {
            ports: vec![(None, 80)],
            protocols: vec![(80, "TCP".to_owned())],
            ..api::Service::default()
        };
        objects.apply(Object::Service(
            NamespacedName::new("bench", &*name),
            service,
        ));
        objects.apply(route(number, at_gateway, "/v1"));
        if with_policies {
            let spec: Value = json!({
                "targetRefs": [{"kind": "Service", "name": name}], "retry": {}, "circuitBreaker": {},
            });
            let policy = api::Object::read(&metadata("bench", &name), &spec);
            objects.apply(Object::MeshPolicy(Box::new(policy.expect("a policy"))));
        }
    }
    objects
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

fn main() {
    let millis = |begun: Instant| begun.elapsed().as_secs_f64() * 1e3;
    for (at_gateway, with_policies) in [(false, false), (false, true), (true, false), (true, true)]
    {
        let (mut whole, mut one) = (Vec::new(), Vec::new());
        let mut objects = cluster(at_gateway, with_policies);
        let mut compiler = Compiler::default();
        compiler.served(&objects);
        for round in 0..ROUNDS {
            let begun = Instant::now();
            let compiled = compile(&objects);
            whole.push(millis(begun));
            drop(compiled);
            let changed = route(round, at_gateway, "/v2");
            let begun = Instant::now();
            objects.apply(changed);
            compiler.served(&objects);
            one.push(millis(begun));
        }
        let place = if at_gateway {
            "hosts of a Gateway"
        } else {
            "Services"
        };
        let policies = if with_policies {
            "1,000 policies"
        } else {
            "no policies"
        };
        println!(
            "{ROUTES} routes at {place}, {policies}: {:.2} ms; one of them: {:.3} ms",
            median(whole),
            median(one),
        );
    }
}
