//! Those who ask as somebody else, or for more than is theirs. The numbers are those of `docs/attacks.md`; certificates of others are in
//! `tests/connections.rs`, because no request of theirs gets here.
//!
//! Nobody is answered with rights that were not given to them; what is refused changes nothing.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::header;
use jiff::Timestamp;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, SanType};
use serde_json::{Value, json};
use weft_apiserver::caller::Caller;

use crate::world::*;

const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
const BOOTSTRAP: &str = "/api/v1/namespaces/kube-system/secrets";

/// A request with a token, and the code of its answer.
async fn code(world: &World, line: &str, token: &str, body: &Value) -> u16 {
    answer(world, line, token, body).await.status
}

async fn answer(world: &World, line: &str, token: &str, body: &Value) -> Answer {
    let body = if body.is_null() {
        String::new()
    } else {
        body.to_string()
    };
    let mut request = world.request(line, &[], &body);
    let token = format!("Bearer {token}").parse().unwrap();
    request.headers_mut().insert(header::AUTHORIZATION, token);
    if line.starts_with("PATCH") {
        let kind = header::HeaderValue::from_static("application/merge-patch+json");
        request.headers_mut().insert(header::CONTENT_TYPE, kind);
    }
    world.send(request).await
}

/// A token with a head, claims and whatever follows them.
fn jwt(head: &Value, claims: &Value, signature: &[u8]) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!(
        "{}.{}.{}",
        part(head),
        part(claims),
        URL_SAFE_NO_PAD.encode(signature)
    )
}

#[tokio::test]
async fn attack_79_a_token_that_this_cluster_did_not_sign_is_nobodys() {
    let world = World::new().await;
    let now = Timestamp::now().as_second();
    let claims = json!({
        "iss": "https://kubernetes.default.svc.cluster.local", "aud": ["https://kubernetes.default.svc.cluster.local"],
        "sub": "system:serviceaccount:kube-system:default", "iat": now, "nbf": now, "exp": now + 3600,
        "kubernetes.io": {"namespace": "kube-system", "serviceaccount": {"name": "default", "uid": "u"}},
    });
    // What anybody may read of the cluster, taken for a shared secret.
    let authority = std::fs::read(world.dir.path().join("pki/ca.crt")).unwrap();
    let other = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let signed = rcgen::SigningKey::sign(&other, b"not what it says").unwrap();
    let large = json!({"sub": "x".repeat(1 << 20)});
    for (what, token) in [
        ("no algorithm", jwt(&json!({"alg": "none"}), &claims, b"")),
        ("its spelling", jwt(&json!({"alg": "nOnE"}), &claims, b"")),
        (
            "a public key as secret",
            jwt(&json!({"alg": "HS256"}), &claims, &authority[..32]),
        ),
        (
            "another's key",
            jwt(&json!({"alg": "ES256"}), &claims, &signed),
        ),
        (
            "a key that it brings along",
            jwt(
                &json!({"alg": "ES256", "jwk": {"kty": "EC"}, "x5c": ["a"]}),
                &claims,
                &signed,
            ),
        ),
        (
            "a key elsewhere",
            jwt(
                &json!({"alg": "RS256", "jku": "https://127.0.0.1/keys", "kid": "../../etc/passwd"}),
                &claims,
                &signed,
            ),
        ),
        ("no signature", jwt(&json!({"alg": "RS256"}), &claims, b"")),
        ("a megabyte", jwt(&json!({"alg": "RS256"}), &large, b"x")),
        ("parts of parts", "..".to_owned()),
        ("many parts", ".".repeat(5000)),
        ("no base64", "!.!.!".to_owned()),
        ("claims that are none", jwt(&json!([]), &json!("x"), b"x")),
    ] {
        for line in ["GET /api/v1/pods", "GET /version"] {
            let told = answer(&world, line, &token, &Value::Null).await;
            assert_eq!(told.status, 401, "{what}: {}", told.line());
            // Nothing of it comes back.
            assert!(told.body.to_string().len() < 500, "{what}");
        }
    }
}

/// A bootstrap token's Secret.
fn bootstrap(id: &str, secret: &str, more: &[(&str, &str)]) -> Value {
    let fields = [
        ("token-id", id),
        ("token-secret", secret),
        ("usage-bootstrap-authentication", "true"),
    ];
    let data: serde_json::Map<String, Value> = fields
        .iter()
        .chain(more)
        .map(|(name, value)| ((*name).to_owned(), STANDARD.encode(value).into()))
        .collect();
    json!({
        "metadata": {"name": format!("bootstrap-token-{id}")},
        "type": "bootstrap.kubernetes.io/token",
        "data": data,
    })
}

#[tokio::test]
async fn attacks_80_and_88_a_token_is_good_as_long_as_it_is_there_and_no_other_is() {
    let world = World::new().await;
    // Roles let everybody ask who he is.
    let system = Caller::system("tests", None);
    world.objects.ensure_roles(&system).await.unwrap();
    let secret = "0123456789abcdef";
    let past = Timestamp::from_second(Timestamp::now().as_second() - 1).unwrap();
    for (id, more) in [
        ("aaaaaa", vec![]),
        ("bbbbbb", vec![("expiration", past.to_string())]),
        (
            "cccccc",
            vec![("usage-bootstrap-authentication", "false".to_owned())],
        ),
        ("dddddd", vec![("expiration", "tomorrow".to_owned())]),
        (
            "eeeeee",
            vec![("auth-extra-groups", "system:masters".to_owned())],
        ),
    ] {
        let more: Vec<(&str, &str)> = more
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        let made = world
            .ask(&format!("POST {BOOTSTRAP}"), bootstrap(id, secret, &more))
            .await;
        assert_eq!(made.status, 201, "{id}: {}", made.line());
    }
    let who = "POST /apis/authentication.k8s.io/v1/selfsubjectreviews";
    let ask = json!({});
    for (token, expected) in [
        (format!("aaaaaa.{secret}"), 201),
        (format!("bbbbbb.{secret}"), 401),
        (format!("cccccc.{secret}"), 401),
        (format!("dddddd.{secret}"), 401),
        (format!("eeeeee.{secret}"), 201),
        ("aaaaaa.0123456789abcdeg".to_owned(), 401),
        ("aaaaaa.0123456789abcde".to_owned(), 401),
        ("aaaaaa.".to_owned(), 401),
        (format!("aaaaab.{secret}"), 401),
        (format!("AAAAAA.{secret}"), 401),
        (format!("aaaaaa.{secret}."), 401),
    ] {
        assert_eq!(code(&world, who, &token, &ask).await, expected, "{token}");
    }
    // It is one who may join, whatever else it says.
    let named = format!("eeeeee.{secret}");
    let read = code(&world, "GET /api/v1/secrets", &named, &Value::Null).await;
    assert_eq!(read, 403);
    // Guesses, many at once: none is right, and who knows the token is let in all the while.
    let guesses = (0..300).map(|number| {
        let token = format!("aaaaaa.{number:016}");
        let world = &world;
        async move { code(world, who, &token, &json!({})).await }
    });
    let told = futures::future::join_all(guesses).await;
    assert!(
        told.iter().all(|code| matches!(code, 401 | 429)),
        "{told:?}"
    );
    let token = format!("aaaaaa.{secret}");
    assert_eq!(code(&world, who, &token, &ask).await, 201);
    // What is taken back is gone for the very next request.
    let gone = format!("DELETE {BOOTSTRAP}/bootstrap-token-aaaaaa");
    assert_eq!(world.ask(&gone, Value::Null).await.status, 200);
    assert_eq!(code(&world, who, &token, &ask).await, 401);
}

/// A request for a certificate, as an object.
fn wanted(
    name: &str,
    signer: &str,
    subject: &[(DnType, &str)],
    names: &[SanType],
    is_ca: bool,
) -> Value {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    for (kind, value) in subject {
        params.distinguished_name.push(kind.clone(), *value);
    }
    params.subject_alt_names = names.to_vec();
    if is_ca {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    }
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let pem = params.serialize_request(&key).unwrap().pem().unwrap();
    let usages = match signer {
        "weft.dev/node-serving" => vec!["digital signature", "server auth"],
        "weft.dev/workload" => vec!["digital signature", "server auth", "client auth"],
        _ => vec!["digital signature", "client auth"],
    };
    json!({
        "metadata": {"name": name},
        "spec": {"signerName": signer, "usages": usages, "request": STANDARD.encode(pem)},
    })
}

#[tokio::test]
async fn attack_81_nobody_gets_a_certificate_of_somebody_else() {
    let world = World::new().await;
    let client = "kubernetes.io/kube-apiserver-client-kubelet";
    let nodes = |name| {
        [
            (DnType::OrganizationName, "system:nodes"),
            (DnType::CommonName, name),
        ]
    };
    let masters = [
        (DnType::OrganizationName, "system:masters"),
        (DnType::CommonName, "system:node:a"),
    ];
    let both = [
        (DnType::OrganizationName, "system:nodes"),
        (DnType::OrganizationName, "system:masters"),
        (DnType::CommonName, "system:node:a"),
    ];
    let host = [SanType::DnsName(
        "kubernetes.default.svc".try_into().unwrap(),
    )];
    let identity = [SanType::URI(
        "spiffe://cluster.local/ns/kube-system/sa/admin"
            .try_into()
            .unwrap(),
    )];
    let (none, own) = ([], nodes("system:node:a"));
    for (name, request, expected) in [
        ("own", wanted("own", client, &own, &none, false), 201),
        (
            "another",
            wanted("another", client, &nodes("system:node:b"), &none, false),
            403,
        ),
        (
            "masters",
            wanted("masters", client, &masters, &none, false),
            403,
        ),
        ("both", wanted("both", client, &both, &none, false), 403),
        ("names", wanted("names", client, &own, &host, false), 403),
        ("ca", wanted("ca", client, &own, &none, true), 400),
        (
            "serving",
            wanted("serving", "weft.dev/node-serving", &own, &host, false),
            403,
        ),
        (
            "workload",
            wanted("workload", "weft.dev/workload", &[], &identity, false),
            403,
        ),
    ] {
        let line = format!("POST {REQUESTS}");
        let told = answer(&world, &line, "node", &request).await;
        assert_eq!(told.status, expected, "{name}: {}", told.line());
        let stored = world.get(&format!("{REQUESTS}/{name}")).await;
        assert_eq!(
            stored.status,
            if expected == 201 { 200 } else { 404 },
            "{name}"
        );
    }
    // Whom it is for is what the server knows, not what the request says; and no one else signs it by its status.
    let mut posing = wanted("posing", "example.com/other", &own, &none, false);
    posing["spec"]["username"] = "system:admin".into();
    posing["spec"]["groups"] = json!(["system:masters"]);
    posing["status"] = json!({"certificate": STANDARD.encode("x")});
    let told = answer(&world, &format!("POST {REQUESTS}"), "node", &posing).await;
    assert_eq!(told.status, 201, "{}", told.line());
    assert_eq!(told.body["spec"]["username"], "system:node:a");
    assert!(!told.body["spec"]["groups"].to_string().contains("masters"));
    assert_eq!(told.body["status"], json!({}));
    let approve = json!({"status": {"conditions": [{"type": "Approved", "status": "True"}]}});
    for below in ["approval", "status"] {
        let line = format!("PATCH {REQUESTS}/posing/{below}");
        assert_eq!(code(&world, &line, "node", &approve).await, 403, "{below}");
    }
}

#[tokio::test]
async fn attack_82_a_node_reaches_its_own_and_nothing_else() {
    let world = World::new().await;
    for node in ["a", "b"] {
        let taints = json!([{"key": "k", "effect": "NoSchedule"}]);
        let body = json!({"metadata": {"name": node}, "spec": {"taints": taints}});
        assert_eq!(world.ask("POST /api/v1/nodes", body).await.status, 201);
        let secret = json!({"metadata": {"name": format!("of-{node}")}, "data": {"k": "dg=="}});
        let secrets = "POST /api/v1/namespaces/default/secrets";
        assert_eq!(world.ask(secrets, secret).await.status, 201);
        let mut made = pod(&format!("on-{node}"));
        made["spec"]["nodeName"] = node.into();
        made["spec"]["volumes"] =
            json!([{"name": "v", "secret": {"secretName": format!("of-{node}")}}]);
        let answer = world.ask(&format!("POST {PODS}"), made).await;
        assert_eq!(answer.status, 201, "{}", answer.line());
    }
    let label = json!({"metadata": {"labels": {"a": "b"}}});
    let owners = json!([{"apiVersion": "v1", "kind": "Pod", "name": "x", "uid": "u"}]);
    let phase = json!({"status": {"phase": "Failed"}});
    let secrets = "/api/v1/namespaces/default/secrets";
    for (line, body, expected) in [
        (format!("GET {secrets}/of-a"), json!(null), 200),
        (format!("GET {secrets}/of-b"), json!(null), 403),
        (format!("GET {secrets}"), json!(null), 403),
        ("GET /api/v1/secrets".to_owned(), json!(null), 403),
        (
            format!("GET {secrets}?fieldSelector=metadata.name%3Dof-b"),
            json!(null),
            403,
        ),
        (format!("GET {PODS}/on-b"), json!(null), 403),
        ("GET /api/v1/pods".to_owned(), json!(null), 403),
        (
            "GET /api/v1/pods?fieldSelector=spec.nodeName%3Db".to_owned(),
            json!(null),
            403,
        ),
        (
            "GET /api/v1/pods?fieldSelector=spec.nodeName!%3Da".to_owned(),
            json!(null),
            403,
        ),
        (format!("PATCH {PODS}/on-b/status"), phase.clone(), 403),
        (format!("DELETE {PODS}/on-b"), json!(null), 403),
        (format!("POST {PODS}"), pod("p"), 403),
        (format!("PATCH {PODS}/on-a"), label.clone(), 403),
        ("PATCH /api/v1/nodes/a".to_owned(), label.clone(), 200),
        ("PATCH /api/v1/nodes/b".to_owned(), label.clone(), 403),
        (
            "PATCH /api/v1/nodes/b/status".to_owned(),
            phase.clone(),
            403,
        ),
        ("DELETE /api/v1/nodes/a".to_owned(), json!(null), 403),
        (
            "PATCH /api/v1/nodes/a".to_owned(),
            json!({"spec": {"taints": null}}),
            403,
        ),
        (
            "PATCH /api/v1/nodes/a".to_owned(),
            json!({"metadata": {"ownerReferences": owners}}),
            403,
        ),
        (
            "PATCH /api/v1/nodes/a".to_owned(),
            json!({"metadata": {"labels": {"node-restriction.kubernetes.io/x": "y"}}}),
            403,
        ),
        (
            "POST /api/v1/nodes".to_owned(),
            json!({"metadata": {"name": "c"}}),
            403,
        ),
        (
            format!("POST {secrets}"),
            json!({"metadata": {"name": "n"}}),
            403,
        ),
    ] {
        let told = answer(&world, &line, "node", &body).await;
        assert_eq!(told.status, expected, "{line}: {}", told.line());
    }
    let node = world.get("/api/v1/nodes/a").await.body;
    assert_eq!(node["spec"]["taints"][0]["key"], "k");
    assert_eq!(node["metadata"]["ownerReferences"], Value::Null);
}

/// A stolen credential of a node, tried on everything that leads to another's Secret, token or container.
#[tokio::test]
async fn attack_82_a_stolen_node_reads_nothing_of_others_by_no_way() {
    let world = World::new().await;
    let system = Caller::system("tests", None);
    world.objects.ensure_roles(&system).await.unwrap();
    for node in ["a", "b"] {
        let body = json!({"metadata": {"name": node}});
        assert_eq!(world.ask("POST /api/v1/nodes", body).await.status, 201);
        for kind in ["secrets", "configmaps"] {
            let object = json!({"metadata": {"name": format!("of-{node}")}, "data": {"k": "dg=="}});
            let line = format!("POST /api/v1/namespaces/default/{kind}");
            assert_eq!(world.ask(&line, object).await.status, 201);
        }
        let mut made = pod(&format!("on-{node}"));
        made["spec"]["nodeName"] = node.into();
        made["spec"]["volumes"] = json!([
            {"name": "s", "secret": {"secretName": format!("of-{node}")}},
            {"name": "c", "configMap": {"name": format!("of-{node}")}},
        ]);
        let answer = world.ask(&format!("POST {PODS}"), made).await;
        assert_eq!(answer.status, 201, "{}", answer.line());
    }
    let secrets = "/api/v1/namespaces/default/secrets";
    let uid = world.get(&format!("{PODS}/on-b")).await.body["metadata"]["uid"].clone();
    let bound = json!({"apiVersion": "v1", "kind": "Pod", "name": "on-b", "uid": uid});
    let token = json!({"spec": {"audiences": [], "boundObjectRef": bound}});
    let own_own = json!({"spec": {"volumes": [{"name": "s", "secret": {"secretName": "of-b"}}]}});
    let lease = json!({"metadata": {"name": "b"}});
    let nothing = Value::Null;
    for (line, body) in [
        // Other spellings of the path.
        (format!("GET {secrets}/of-a/../of-b"), &nothing),
        (format!("GET {secrets}/of-a%2f..%2fof-b"), &nothing),
        (format!("GET {secrets}/%2e%2e/secrets/of-b"), &nothing),
        (format!("GET /{secrets}/of-b"), &nothing),
        (format!("GET {secrets}//of-b"), &nothing),
        (format!("GET {secrets}/of-b/"), &nothing),
        (format!("GET {secrets}/of-b%00"), &nothing),
        (format!("GET {secrets}/of%2Db"), &nothing),
        (format!("GET {secrets}/of-b/status"), &nothing),
        (
            "GET /api/v1/watch/namespaces/default/secrets/of-b".to_owned(),
            &nothing,
        ),
        (
            format!("GET {secrets}?watch=1&fieldSelector=metadata.name%3Dof-b"),
            &nothing,
        ),
        (
            format!("GET {secrets}?fieldSelector=metadata.name%3Dof-a"),
            &nothing,
        ),
        // What a pod of its own could be made to refer to.
        (format!("PATCH {PODS}/on-a"), &own_own),
        (format!("PATCH {PODS}/on-a/ephemeralcontainers"), &own_own),
        (format!("PATCH {PODS}/on-a/resize"), &own_own),
        // Containers, by whichever stream, and the ways through nodes and pods.
        (format!("POST {PODS}/on-b/exec?command=env"), &nothing),
        (format!("GET {PODS}/on-b/exec?command=env"), &nothing),
        (format!("POST {PODS}/on-a/exec?command=env"), &nothing),
        (format!("POST {PODS}/on-b/attach"), &nothing),
        (format!("GET {PODS}/on-b/portforward"), &nothing),
        (format!("GET {PODS}/on-b/log"), &nothing),
        (format!("GET {PODS}/on-b/proxy/"), &nothing),
        (
            "GET /api/v1/nodes/b/proxy/containerLogs/default/on-b/c".to_owned(),
            &nothing,
        ),
        ("GET /api/v1/nodes/a/proxy/metrics".to_owned(), &nothing),
        (
            "POST /api/v1/nodes/b/proxy/exec/default/on-b/c?command=env".to_owned(),
            &nothing,
        ),
        (
            "GET /api/v1/namespaces/default/services/x/proxy/".to_owned(),
            &nothing,
        ),
        // Tokens of its pods' accounts alone, and of nothing else.
        (
            "POST /api/v1/namespaces/default/serviceaccounts/default/token".to_owned(),
            &token,
        ),
        (
            "POST /api/v1/namespaces/default/serviceaccounts/default/token".to_owned(),
            &json!({"spec": {"audiences": []}}),
        ),
        (
            "GET /api/v1/namespaces/default/configmaps/of-b".to_owned(),
            &nothing,
        ),
        (
            "GET /api/v1/namespaces/default/configmaps".to_owned(),
            &nothing,
        ),
        (
            "POST /apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases".to_owned(),
            &lease,
        ),
        (
            format!("POST {PODS}/on-b/eviction"),
            &json!({"metadata": {"name": "on-b"}}),
        ),
        (
            format!("POST {PODS}/on-a/binding"),
            &json!({"metadata": {"name": "on-a"}, "target": {"kind": "Node", "name": "b"}}),
        ),
    ] {
        let told = answer(&world, &line, "node", body).await;
        assert!(
            matches!(told.status, 400 | 403 | 404),
            "{line}: {}",
            told.line()
        );
        let said = told.body.to_string();
        assert!(!said.contains("dg=="), "{line}: {said}");
    }
    // A status says nothing of what a pod mounts.
    let line = format!("PATCH {PODS}/on-a/status");
    let told = answer(&world, &line, "node", &own_own).await;
    assert!(matches!(told.status, 200 | 403 | 422), "{}", told.line());
    let mounted = world.get(&format!("{PODS}/on-a")).await.body["spec"]["volumes"].to_string();
    assert!(!mounted.contains("of-b"), "{mounted}");
    let read = code(&world, &format!("GET {secrets}/of-b"), "node", &nothing).await;
    assert_eq!(read, 403);
    assert_eq!(
        code(&world, &format!("GET {secrets}/of-a"), "node", &nothing).await,
        200
    );
}

#[tokio::test]
async fn attacks_83_and_84_nobody_gives_themselves_more() {
    let world = World::new().await;
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    let role = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"});
    let subjects = json!([{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "jo"}]);
    let binding = json!({"metadata": {"name": "mine"}, "roleRef": role, "subjects": subjects});
    let everything = json!([{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]);
    let rules = json!({"metadata": {"name": "mine"}, "rules": everything});
    for (path, body) in [
        (format!("{rbac}/clusterrolebindings"), &binding),
        (format!("{rbac}/namespaces/default/rolebindings"), &binding),
        (format!("{rbac}/clusterroles"), &rules),
        (format!("{rbac}/namespaces/default/roles"), &rules),
    ] {
        for token in ["user", "node"] {
            let told = answer(&world, &format!("POST {path}"), token, body).await;
            assert_eq!(told.status, 403, "{path} {token}: {}", told.line());
        }
        assert_eq!(world.get(&format!("{path}/mine")).await.status, 404);
    }
    for (name, value) in [
        ("impersonate-user", "admin"),
        ("impersonate-group", "system:masters"),
        ("impersonate-uid", "1"),
        ("impersonate-extra-scopes", "all"),
        (
            "Impersonate-User",
            "system:serviceaccount:kube-system:default",
        ),
    ] {
        for token in ["user", "node"] {
            let mut request = world.request("GET /api/v1/secrets", &[], "");
            let headers = request.headers_mut();
            let token = format!("Bearer {token}").parse().unwrap();
            headers.insert(header::AUTHORIZATION, token);
            let name: header::HeaderName = name.parse().unwrap();
            headers.insert(name.clone(), value.parse().unwrap());
            if name != "impersonate-user" {
                headers.insert("impersonate-user", "admin".parse().unwrap());
            }
            let told = world.send(request).await;
            assert!(matches!(told.status, 400 | 403), "{name}: {}", told.line());
        }
    }
}
