//! What a call hears of policies: which status, which words, and what of its token the workload gets.

use std::net::SocketAddr;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tower::service_fn;
use weft_api::identity::SpiffeId;
use weft_call::Transport;
use weft_policy::{Object, PolicyKind};

use super::*;
use crate::{
    LocalWorkload, WorkloadInfo, WorkloadService,
    deliver::{self, Attachments, Delivered},
};

const POD: [u8; 4] = [10, 42, 0, 1];

fn policies(objects: &[(PolicyKind, &str, Value)]) -> Arc<Policies> {
    let mut policies = Policies::new("cluster.local");
    for (at, (kind, namespace, spec)) in objects.iter().enumerate() {
        let (_, faults) = policies.apply(&Object {
            kind: *kind,
            namespace,
            name: &format!("p{at}"),
            annotations: None,
            spec,
        });
        assert_eq!(faults, [""; 0]);
    }
    Arc::new(policies)
}

/// Answers with the lines that it is told.
fn attached(policies: Arc<Policies>) -> (Attachments, Arc<Attached>) {
    let attachments = Attachments::default();
    attachments.guards().set_policies(policies);
    let pod = Pod {
        namespace: "shop".to_owned(),
        name: "cart-0".to_owned(),
        labels: [("app".to_owned(), "cart".to_owned())].into(),
        ..Pod::default()
    };
    attachments.guards().set_pod(POD.into(), Some(pod));
    let address: SocketAddr = (POD, 80).into();
    let answer = |request: Request<Body>| async move {
        let mut response = Response::new(Body::empty());
        *response.headers_mut() = request.headers().clone();
        Ok(response)
    };
    let workload = LocalWorkload {
        identity: SpiffeId::new("cluster.local", "shop", "cart"),
        workload: WorkloadInfo::default(),
        service: WorkloadService::new(service_fn(answer)),
        in_flight_max: 1,
    };
    attachments.insert([address], workload);
    let attached = attachments.get(address).expect("attached");
    (attachments, attached)
}

fn context(namespace: &str, account: &str) -> CallContext {
    CallContext {
        peer: Some(Arc::new(Peer {
            spiffe_id: format!("spiffe://cluster.local/ns/{namespace}/sa/{account}").into(),
            namespace: namespace.into(),
            service_account: account.into(),
            workload: "w".into(),
            transport: Transport::InProcess,
        })),
        port: Some(80),
        ..CallContext::default()
    }
}

fn request(method: &str, path: &str) -> Request<Body> {
    let request = Request::builder().method(method);
    let request = request.uri(format!("http://cart.shop{path}"));
    request.body(Body::empty()).expect("a request")
}

/// What comes of it at an address of which the table says nothing.
async fn deliver(
    to: &Attached,
    request: Request<Body>,
    context: CallContext,
) -> Result<Delivered, Failure> {
    let mesh = crate::Mesh::builder("a", "cluster.local").build();
    deliver::deliver(&mesh.inner, None, to, request, context).await
}

/// Status and text.
async fn heard(to: &Attached, request: Request<Body>, context: CallContext) -> String {
    match deliver(to, request, context).await {
        Err(failure) => format!("{}: {failure}", failure.kind),
        Ok(delivered) => {
            let status = delivered.response.status().as_u16();
            let body = delivered.response.into_body().collect().await;
            let body = body.expect("a body").to_bytes();
            format!("{status} {}", String::from_utf8_lossy(&body))
        }
    }
}

#[tokio::test]
async fn who_is_not_let_in_hears_it_as_from_envoy_and_takes_no_place() {
    let allow = json!({
        "selector": { "matchLabels": { "app": "cart" } },
        "rules": [{
            "from": [{ "source": { "serviceAccounts": ["web"] } }],
            "to": [{ "operation": { "methods": ["GET"], "paths": ["/items/{*}"] } }],
        }],
    });
    let (attachments, to) = attached(policies(&[(PolicyKind::Authorization, "shop", allow)]));
    let denied = "403 RBAC: access denied";
    for (who, method, path, expected) in [
        ("web", "GET", "/items/7", "200 "),
        ("web", "GET", "/items/7?x=y", "200 "),
        ("web", "GET", "/items/7/8", denied),
        ("web", "POST", "/items/7", denied),
        ("web", "HEAD", "/items/7", "403 "),
        ("other", "GET", "/items/7", denied),
    ] {
        let found = heard(&to, request(method, path), context("shop", who)).await;
        assert_eq!(found, expected, "{who} {method} {path}");
    }
    // Bytes say nothing of a path.
    let mut raw = request("POST", "/");
    raw.extensions_mut().insert(Raw);
    let found = heard(&to, raw, context("shop", "web")).await;
    assert_eq!(found, "unreachable: RBAC: access denied");
    let mut grpc = request("POST", "/a.B/C");
    let lines = grpc.headers_mut();
    lines.insert("content-type", HeaderValue::from_static("application/grpc"));
    let answered = deliver(&to, grpc, context("shop", "web")).await;
    let answered = answered.expect("an answer").response;
    assert_eq!(answered.status(), 200);
    assert_eq!(answered.headers()["grpc-status"], "7");
    let denied = attachments.guards().counted.denied.load(Ordering::Relaxed);
    assert_eq!(denied, 6);
    // The next policies hold at once.
    attachments.guards().set_policies(Arc::default());
    let found = heard(&to, request("POST", "/x"), context("shop", "other")).await;
    assert_eq!(found, "200 ");
}

#[tokio::test]
async fn who_was_revoked_is_refused_whatever_policies_say() {
    let (attachments, to) = attached(Arc::default());
    let call = |who| heard(&to, request("GET", "/"), context("shop", who));
    assert_eq!(call("web").await, "200 ");
    let gone = ["spiffe://cluster.local/ns/shop/sa/web".to_owned()];
    attachments.guards().set_revoked(gone.into());
    assert_eq!(
        call("web").await,
        "unreachable: the ServiceAccount of its caller is gone"
    );
    assert_eq!(call("other").await, "200 ");
    attachments.guards().set_revoked(BTreeSet::new());
    assert_eq!(call("web").await, "200 ");
}

#[tokio::test]
async fn a_pod_is_judged_by_the_labels_that_it_has_now() {
    let deny = json!({
        "action": "DENY", "selector": { "matchLabels": { "app": "cart" } }, "rules": [{}],
    });
    let (attachments, to) = attached(policies(&[(PolicyKind::Authorization, "shop", deny)]));
    let call = || heard(&to, request("GET", "/"), context("shop", "web"));
    assert_eq!(call().await, "403 RBAC: access denied");
    let other = Pod {
        namespace: "shop".to_owned(),
        ..Pod::default()
    };
    attachments.guards().set_pod(POD.into(), Some(other));
    assert_eq!(call().await, "200 ");
}

#[tokio::test]
async fn isolated_pods_are_as_if_nobody_were_there() {
    let network = json!({
        "podSelector": {},
        "ingress": [{ "from": [{ "podSelector": { "matchLabels": { "app": "web" } } }], "ports": [{ "port": 80 }] }],
    });
    let (_attachments, to) = attached(policies(&[(PolicyKind::Network, "shop", network)]));
    let isolated = "unreachable: network policy does not let the two speak with each other";
    let from = |line: &'static str| {
        let source = Source::read(&HeaderValue::from_static(line), "shop");
        Introduced {
            source: source.expect("a source"),
            service: HeaderValue::from_static("."),
        }
    };
    for (line, namespace, expected) in [
        ("10.42.1.1;app=web", "shop", "200 "),
        ("10.42.1.1;app=other", "shop", isolated),
        ("10.42.1.1", "shop", isolated),
        // The labels are told by a node, the namespace by a certificate.
        ("10.42.1.1;app=web", "other", isolated),
        // Itself.
        ("10.42.0.1;app=cart", "shop", "200 "),
    ] {
        let mut request = request("GET", "/");
        from(line).mark(request.extensions_mut());
        let found = heard(&to, request, context(namespace, "w")).await;
        assert_eq!(found, expected, "{line} {namespace}");
    }
    let nobody = heard(&to, request("GET", "/"), context("shop", "w")).await;
    assert_eq!(nobody, isolated);
}

#[test]
fn where_a_caller_is_survives_the_way_between_nodes() {
    let pod = |labels: &[(&str, &str)]| {
        Some(Arc::new(Pod {
            namespace: "shop".to_owned(),
            labels: labels
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
            ..Pod::default()
        }))
    };
    for pod in [
        None,
        pod(&[]),
        pod(&[("app.kubernetes.io/name", "web"), ("empty", "")]),
    ] {
        let source = Source {
            ip: Some([10, 42, 1, 7].into()),
            pod,
        };
        let read = Source::read(&source.line().expect("a line"), "shop").expect("a source");
        assert_eq!((read.ip, read.pod), (source.ip, source.pod));
    }
}

struct Signer {
    pair: EcdsaKeyPair,
}

impl Signer {
    fn new() -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING);
        Self {
            pair: pair.expect("a key"),
        }
    }

    fn set(&self) -> String {
        let point = self.pair.public_key().as_ref();
        let of = |bytes: &[u8]| {
            use base64::Engine as _;
            base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
        };
        json!({ "keys": [{
            "kty": "EC", "crv": "P-256", "kid": "k", "x": of(&point[1..33]), "y": of(&point[33..]),
        }] })
        .to_string()
    }

    fn token(&self, claims: Value) -> String {
        weft_jws::sign(&self.pair, "k", &claims).expect("signed")
    }
}

#[tokio::test]
async fn a_token_is_right_or_the_request_is_refused() {
    let signer = Signer::new();
    let stranger = Signer::new();
    let rules = json!({ "jwtRules": [{
        "issuer": "https://issuer.example", "audiences": ["shop"], "jwks": signer.set(),
        "outputClaimToHeaders": [{ "header": "x-who", "claim": "sub" }],
    }] });
    let allow = json!({ "rules": [{
        "from": [{ "source": { "requestPrincipals": ["https://issuer.example/*"] } }],
        "when": [{ "key": "request.auth.claims[scope]", "values": ["read"] }],
    }] });
    let (_attachments, to) = attached(policies(&[
        (PolicyKind::RequestAuthentication, "shop", rules),
        (PolicyKind::Authorization, "shop", allow),
    ]));
    let claims = |more: Value| {
        let mut claims = json!({
            "iss": "https://issuer.example", "sub": "ann", "aud": ["shop"], "scope": "write read", "exp": 4_000_000_000_i64,
        });
        for (name, value) in more.as_object().expect("claims") {
            claims[name] = value.clone();
        }
        claims
    };
    let good = signer.token(claims(json!({})));
    let unsigned = format!("{}.", good.rsplit_once('.').expect("parts").0);
    for (what, token, expected) in [
        ("none", None, "403 RBAC: access denied"),
        ("good", Some(good.clone()), "200 "),
        (
            "of another scope",
            Some(signer.token(claims(json!({ "scope": "write" })))),
            "403 RBAC: access denied",
        ),
        (
            "of another audience",
            Some(signer.token(claims(json!({ "aud": "else" })))),
            "401 Audiences in Jwt are not allowed",
        ),
        (
            "of another issuer",
            Some(signer.token(claims(json!({ "iss": "https://else.example" })))),
            "401 Jwt issuer is not configured",
        ),
        (
            "old",
            Some(signer.token(claims(json!({ "exp": 1_000_000_000 })))),
            "401 Jwt is expired",
        ),
        (
            "of tomorrow",
            Some(signer.token(claims(json!({ "nbf": 4_000_000_000_i64 })))),
            "401 Jwt not yet valid",
        ),
        (
            "signed by somebody else",
            Some(stranger.token(claims(json!({})))),
            "401 Jwt verification fails",
        ),
        ("unsigned", Some(unsigned), "401 Jwt verification fails"),
        (
            "no token",
            Some("abc".to_owned()),
            "401 Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections",
        ),
        (
            "a megabyte",
            Some(format!("{good}{}", "a".repeat(1 << 20))),
            "401 Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections",
        ),
    ] {
        let mut request = request("GET", "/");
        if let Some(token) = token {
            let line = HeaderValue::from_str(&format!("Bearer {token}")).expect("a line");
            request.headers_mut().insert("authorization", line);
        }
        let found = heard(&to, request, context("shop", "w")).await;
        assert_eq!(found, expected, "{what}");
    }

    // The workload hears the claim and not the token; who says it himself is not believed.
    let mut signed = request("GET", "/");
    let line = HeaderValue::from_str(&format!("Bearer {good}")).expect("a line");
    signed.headers_mut().insert("authorization", line);
    let forged = HeaderValue::from_static("root");
    signed.headers_mut().insert("x-who", forged);
    let answered = deliver(&to, signed, context("shop", "w")).await;
    let lines = answered.expect("an answer").response.into_parts().0.headers;
    assert_eq!(lines.get_all("x-who").iter().collect::<Vec<_>>(), ["ann"]);
    assert!(!lines.contains_key("authorization"), "{lines:?}");

    // Neither is a browser that asks beforehand, nor bytes in which anything may stand.
    let mut preflight = request("OPTIONS", "/");
    for (name, value) in [
        ("origin", "https://a.example"),
        ("access-control-request-method", "GET"),
        ("x-who", "root"),
    ] {
        let value = HeaderValue::from_static(value);
        preflight.headers_mut().insert(name, value);
    }
    let found = heard(&to, preflight, context("shop", "w")).await;
    assert_eq!(found, "403 RBAC: access denied");
    let mut raw = request("POST", "/");
    raw.extensions_mut().insert(Raw);
    let found = heard(&to, raw, context("shop", "w")).await;
    assert!(
        found.starts_with("unreachable: its requests are asked"),
        "{found}"
    );
}

#[tokio::test]
async fn who_brings_a_wrong_token_is_told_for_what() {
    let signer = Signer::new();
    let rules =
        json!({ "jwtRules": [{ "issuer": "https://issuer.example", "jwks": signer.set() }] });
    let (_attachments, to) = attached(policies(&[(
        PolicyKind::RequestAuthentication,
        "shop",
        rules,
    )]));
    let mut wrong = request("GET", "/a");
    let line = HeaderValue::from_static("Bearer a.b.c");
    wrong.headers_mut().insert("authorization", line);
    let answered = deliver(&to, wrong, context("shop", "w")).await;
    let lines = answered.expect("an answer").response.into_parts().0.headers;
    assert_eq!(
        lines["www-authenticate"],
        "Bearer realm=\"http://cart.shop/a\", error=\"invalid_token\""
    );
    // Without any it passes, and nobody knows whose request it is.
    let found = heard(&to, request("GET", "/"), context("shop", "w")).await;
    assert_eq!(found, "200 ");
}

/// Whatever a client writes behind the host's name, a port is the one that it came to.
#[test]
fn at_a_gateway_a_port_is_the_listeners_and_a_name_the_handshakes() {
    let about = |when: Value| {
        json!({
            "targetRefs": [{ "group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "edge" }],
            "action": "DENY", "rules": [when],
        })
    };
    let ports = about(json!({ "to": [{ "operation": { "ports": ["443"] } }] }));
    let sni = about(json!({ "when": [{ "key": "connection.sni", "values": ["a.example"] }] }));
    let place = about(json!({ "when": [{ "key": "destination.ip", "values": ["192.0.2.7"] }] }));
    let gateway = NamespacedName::new("shop", "edge");
    for (spec, at, name, uri, is_refused) in [
        (
            &ports,
            Some("192.0.2.7:443"),
            Some("a.example"),
            "https://a.example/",
            true,
        ),
        (
            &ports,
            Some("192.0.2.7:443"),
            Some("a.example"),
            "https://a.example:80/",
            true,
        ),
        (
            &ports,
            Some("192.0.2.7:80"),
            None,
            "http://a.example:443/",
            false,
        ),
        (&ports, None, None, "https://a.example/", true),
        (
            &sni,
            Some("192.0.2.7:443"),
            Some("a.example"),
            "https://b.example/",
            true,
        ),
        (
            &sni,
            Some("192.0.2.7:443"),
            Some("b.example"),
            "https://a.example/",
            false,
        ),
        (
            &sni,
            Some("192.0.2.7:443"),
            Some(""),
            "https://a.example/",
            false,
        ),
        (&sni, Some("192.0.2.7:80"), None, "http://a.example/", false),
        (
            &place,
            Some("192.0.2.7:80"),
            None,
            "http://a.example/",
            true,
        ),
        (
            &place,
            Some("[::ffff:192.0.2.7]:80"),
            None,
            "http://a.example/",
            true,
        ),
        (&place, None, None, "http://a.example/", false),
    ] {
        let guards = Guards::default();
        guards.set_policies(policies(&[(
            PolicyKind::Authorization,
            "shop",
            spec.clone(),
        )]));
        let entered = Entered {
            client: [198, 51, 100, 1].into(),
            at: at.map(|at| at.parse().expect("an address")),
            sni: name,
        };
        let mut request = Request::get(uri).body(Body::empty()).expect("a request");
        let refused =
            guards.judge_at_gateways(std::slice::from_ref(&gateway), entered, &mut request);
        assert_eq!(refused.is_some(), is_refused, "{uri} at {at:?}: {spec}");
    }
}
