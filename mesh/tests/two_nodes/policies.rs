//! Policies at the node of the callee, whichever way a call came: from here, from another node, through the gateway, as bytes.

use std::sync::Arc;

use http::{Request, StatusCode};
use serde_json::{Value, json};
use weft_mesh::{Body, CallerInfo, FailureKind, Mesh, Pod, Policies};
use weft_policy::{Object, PolicyKind};

use super::world::*;

const DENIED: &str = "RBAC: access denied";

pub fn policies(objects: &[(PolicyKind, Value)]) -> Arc<Policies> {
    let mut policies = Policies::new(DOMAIN);
    for (at, (kind, spec)) in objects.iter().enumerate() {
        let (_, faults) = policies.apply(&Object {
            kind: *kind,
            namespace: "vote",
            name: &format!("p{at}"),
            annotations: None,
            spec,
        });
        assert_eq!(faults, [""; 0]);
    }
    Arc::new(policies)
}

fn put(mesh: &Mesh, last: u8, app: &str) {
    let facts = Pod {
        namespace: "vote".to_owned(),
        name: format!("{app}-0"),
        labels: [("app".to_owned(), app.to_owned())].into(),
        ..Pod::default()
    };
    mesh.set_pod(pod(last).ip, Some(facts));
}

/// `local` on the caller's node, `voting` on another, and the caller, a pod labelled `app: web`.
fn peopled() -> World {
    let world = world();
    world.a.attach(pod(1), workload("local", describe));
    world.b.attach(pod(2), workload("voting", describe));
    world.publish(
        1,
        vec![
            service("local", vec![endpoint("local", 1, "a", world.b_address)]),
            service("voting", vec![endpoint("voting", 2, "b", world.b_address)]),
        ],
    );
    put(&world.a, 1, "local");
    put(&world.a, 9, "web");
    put(&world.b, 2, "voting");
    world
}

impl World {
    fn judge_by(&self, policies: &Arc<Policies>) {
        self.a.set_policies(Arc::clone(policies));
        self.b.set_policies(Arc::clone(policies));
    }

    /// From the pod labelled `app: web`.
    async fn ask(&self, method: &str, uri: &str) -> String {
        let caller = CallerInfo {
            identity: sa("web"),
            workload: named("web"),
        };
        let outbound = self.a.outbound_of_pod(caller, pod(9).ip);
        let request = Request::builder().method(method).uri(uri);
        let request = request.body(Body::empty()).expect("a request");
        match outbound.call(request).await {
            Err(failure) => format!("{}", failure.kind),
            Ok(response) => {
                let (status, said) = text(response).await.expect("text");
                match status {
                    StatusCode::OK => "200".to_owned(),
                    status => format!("{} {said}", status.as_u16()),
                }
            }
        }
    }
}

#[tokio::test]
async fn a_call_is_judged_where_it_is_answered() {
    let world = peopled();
    let rule = json!({ "rules": [{
        "from": [{ "source": { "principals": ["cluster.local/ns/vote/sa/web"] } }],
        "to": [{ "operation": { "methods": ["GET"], "paths": ["/open/*"], "ports": ["8080"] } }],
    }] });
    world.judge_by(&policies(&[(PolicyKind::Authorization, rule)]));
    let denied = format!("403 {DENIED}");
    let mut refusals = 0;
    for (method, path, expected) in [
        ("GET", "/open/a", "200"),
        // One form of a path, whoever writes it.
        ("GET", "/closed/../open/a", "200"),
        ("GET", "//open//%61", "200"),
        ("GET", "/open/../closed", &*denied),
        ("GET", "/open/%2e%2e/closed", &*denied),
        ("GET", "/open\\..\\closed", &*denied),
        ("GET", "/open%2fa", &*denied),
        ("POST", "/open/a", &*denied),
    ] {
        for host in ["local", "voting"] {
            // What is no URI at all never gets that far.
            let Ok(uri) = format!("http://{host}{path}").parse::<http::Uri>() else {
                continue;
            };
            let found = world.ask(method, &uri.to_string()).await;
            assert_eq!(found, expected, "{method} {host}{path}");
            refusals += u32::from(found == denied && host == "voting");
        }
    }
    // Bytes have no path.
    let refused = world.outbound().connect("voting:80", Body::empty()).await;
    let refused = refused.expect_err("refused");
    assert_eq!(refused.kind, FailureKind::Unreachable);
    // Nothing is held against who was asked: it is there for the next one.
    assert_eq!(world.ask("GET", "http://voting/open/b").await, "200");
    let mut told = String::new();
    world.b.render_metrics(&mut told);
    let denied = format!(
        "weft_mesh_policy_verdicts_total{{verdict=\"denied\"}} {}",
        refusals + 1
    );
    assert!(told.contains(&denied), "{told}");
}

#[tokio::test]
async fn whoever_comes_by_the_gateway_is_the_gateway() {
    let world = peopled();
    let rule = json!({ "rules": [{
        "from": [{ "source": { "serviceAccounts": ["weft-system/gateway"], "ipBlocks": ["127.0.0.0/8"] } }],
        "to": [{ "operation": { "hosts": ["voting.vote.localhost*"] } }],
    }] });
    world.judge_by(&policies(&[(PolicyKind::Authorization, rule)]));
    let (listener, address) = listen();
    let serving = (world.a.clone(), world.stop.clone());
    tokio::spawn(async move { serving.0.serve_gateway(listener, serving.1).await });
    let ask = async |host: &str| {
        let stream = tokio::net::TcpStream::connect(address).await.expect("open");
        let io = hyper_util::rt::TokioIo::new(stream);
        let (mut client, connection) = hyper::client::conn::http1::handshake(io)
            .await
            .expect("a connection");
        tokio::spawn(connection);
        let request = Request::get("/").header("host", host);
        let request = request.body(Body::empty()).expect("a request");
        let response = client.send_request(request).await.expect("an answer");
        let status = response.status().as_u16();
        let body = http_body_util::BodyExt::collect(response.into_body()).await;
        let body = body.expect("a body").to_bytes();
        (status, String::from_utf8_lossy(&body).into_owned())
    };
    assert_eq!(ask("voting.vote.localhost").await.0, 200);
    assert_eq!(
        ask("local.vote.localhost").await,
        (403, DENIED.to_owned()),
        "as it was said, without a line of ours"
    );
    // A pod is not the gateway.
    let denied = format!("403 {DENIED}");
    assert_eq!(world.ask("GET", "http://voting/").await, denied);
}

/// With connections that are open and without.
#[tokio::test]
async fn an_identity_that_was_revoked_is_refused_at_once() {
    let world = peopled();
    let uri = "http://voting/";
    assert_eq!(world.ask("GET", uri).await, "200");
    world.b.set_revoked([sa("web")].into());
    assert_eq!(
        world.ask("GET", uri).await,
        "unreachable",
        "on what is open"
    );
    world.b.set_revoked([sa("other")].into());
    assert_eq!(world.ask("GET", uri).await, "200");

    let fresh = peopled();
    fresh.b.set_revoked([sa("web")].into());
    // A client of TLS 1.3 may have sent its first request before it hears that its certificate is refused.
    let on_a_new_one = fresh.ask("GET", uri).await;
    assert!(
        ["unreachable", "interrupted"].contains(&on_a_new_one.as_str()),
        "on a new one: {on_a_new_one}"
    );
    fresh.b.set_revoked(std::collections::BTreeSet::new());
    fresh.a.set_revoked([sa("voting")].into());
    assert_eq!(fresh.ask("GET", uri).await, "unreachable", "of a callee");
}

#[tokio::test]
async fn labels_of_a_caller_reach_the_node_that_judges() {
    let world = peopled();
    let ingress = |app: &str| {
        json!({ "podSelector": { "matchLabels": { "app": "voting" } }, "ingress": [{
            "from": [{ "podSelector": { "matchLabels": { "app": app } } }], "ports": [{ "port": 8080 }],
        }] })
    };
    let uri = "http://voting/";
    world.judge_by(&policies(&[(PolicyKind::Network, ingress("web"))]));
    assert_eq!(world.ask("GET", uri).await, "200");
    assert_eq!(
        world.ask("GET", "http://local/").await,
        "200",
        "not isolated"
    );
    let nobody = world.get(uri).await.expect_err("of no pod that is known");
    assert_eq!(nobody.kind, FailureKind::Unreachable);
    world.judge_by(&policies(&[(PolicyKind::Network, ingress("admin"))]));
    assert_eq!(world.ask("GET", uri).await, "unreachable");
    put(&world.a, 9, "admin");
    assert_eq!(world.ask("GET", uri).await, "200", "by its labels of now");

    // The other direction, which the node of the callee judges as well.
    let egress = json!({
        "podSelector": { "matchLabels": { "app": "admin" } }, "policyTypes": ["Egress"],
        "egress": [{ "to": [{ "podSelector": { "matchLabels": { "app": "local" } } }] }],
    });
    world.judge_by(&policies(&[(PolicyKind::Network, egress)]));
    assert_eq!(world.ask("GET", "http://local/").await, "200");
    assert_eq!(world.ask("GET", uri).await, "unreachable");
    put(&world.a, 9, "web");
    assert_eq!(world.ask("GET", uri).await, "200");
}

#[tokio::test]
async fn what_is_attached_to_a_gateway_is_asked_before_its_routes_do_anything() {
    use weft_mesh::{
        AttachedRoute, Backend, BackendTarget, HostPattern, NamespacedName, Rule, Served, Table,
    };
    let world = peopled();
    let rule = Rule {
        route: "vote/shop".to_owned(),
        backends: vec![Backend::new(BackendTarget::Service {
            namespace: "vote".to_owned(),
            name: "voting".to_owned(),
            port: 80,
        })],
        ..Rule::default()
    };
    let route = |gateway: &str| AttachedRoute {
        route: rule.route.clone(),
        rules: [Arc::new(rule.clone())].into(),
        gateways: vec![NamespacedName::new("vote", gateway)],
        ..AttachedRoute::default()
    };
    let hosts = [
        (HostPattern::parse("shop.example"), vec![route("shop")]),
        (HostPattern::parse("open.example"), vec![route("open")]),
    ];
    let served = Served {
        listeners: [(HostPattern::Any, hosts.into())].into(),
        ..Served::default()
    };
    let table = Table::builder("a", 2)
        .services([service(
            "voting",
            vec![endpoint("voting", 2, "b", world.b_address)],
        )])
        .routes(&served)
        .build();
    world.a.publish(table);
    let (listener, address) = listen();
    let serving = (world.a.clone(), world.stop.clone());
    tokio::spawn(async move { serving.0.serve_gateway(listener, serving.1).await });
    let ask = async |host: &str, path: &str| {
        let stream = tokio::net::TcpStream::connect(address).await.expect("open");
        let io = hyper_util::rt::TokioIo::new(stream);
        let shaken = hyper::client::conn::http1::handshake(io).await;
        let (mut sender, connection) = shaken.expect("a connection");
        tokio::spawn(connection);
        let request = Request::get(path).header("host", host).body(Body::empty());
        let answered = sender.send_request(request.expect("a request")).await;
        answered.expect("an answer").status().as_u16()
    };
    let allow = json!([{"to": [{"operation": {"paths": ["/open"]}}]}]);
    let attached = json!({"targetRefs": [{"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "shop"}], "rules": allow});
    let selected = json!({
        "selector": {"matchLabels": {"gateway.networking.k8s.io/gateway-name": "shop"}},
        "action": "DENY", "rules": [{"to": [{"operation": {"paths": ["/shut"]}}]}],
    });
    let near = json!({"action": "DENY", "rules": [{"from": [{"source": {"ipBlocks": ["127.0.0.1/32"]}}]}],
        "targetRefs": [{"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "open"}]});
    let authorization = |spec: &Value| (PolicyKind::Authorization, spec.clone());
    for (specs, expected) in [
        (vec![], [200, 200, 200, 200]),
        // Of another Gateway nothing is said.
        (vec![&attached], [403, 200, 403, 200]),
        (vec![&selected], [200, 200, 403, 200]),
        (vec![&attached, &selected], [403, 200, 403, 200]),
        (vec![&near], [200, 200, 200, 403]),
    ] {
        let all: Vec<_> = specs.into_iter().map(authorization).collect();
        world.judge_by(&policies(&all));
        let mut found = Vec::new();
        for (host, path) in [
            ("shop.example", "/"),
            ("shop.example", "/shut/../open"),
            ("shop.example", "/%73hut"),
            ("open.example", "/"),
        ] {
            found.push(ask(host, path).await);
        }
        assert_eq!(found, expected, "{all:?}");
    }
    world.stop.cancel();
}
