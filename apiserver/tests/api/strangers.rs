//! A fresh cluster is closed: every path that there is, asked without a credential, and by somebody who has been given nothing.
//!
//! The table is made of the kinds themselves, so that a new one is in it: each collection, object and part, by each method. Attacks 79 to 84
//! of `docs/attacks.md` are about those who show something.

use std::collections::BTreeSet;

use http::header;
use weft_apiserver::caller::Caller;
use weft_kinds::Registry;

use crate::world::*;

const METHODS: [&str; 5] = ["GET", "POST", "PUT", "PATCH", "DELETE"];
/// What everybody may know.
const OPEN: [&str; 6] = [
    "/healthz",
    "/livez",
    "/readyz",
    "/readyz/store",
    "/version",
    "/version/",
];
/// What those may know beside that who are known.
const KNOWN: [&str; 10] = [
    "/api",
    "/api/v1",
    "/apis",
    "/apis/apps",
    "/apis/apps/v1",
    "/openapi/v2",
    "/openapi/v3",
    "/openapi/v3/api/v1",
    "/openapi/v3/apis/apps/v1",
    "/api/",
];
/// What is for administrators, nodes and servers.
const CLOSED: [&str; 22] = [
    "/",
    "/livez/",
    "/healthz/ping",
    "/livez/ping",
    "/metrics",
    "/metrics/",
    "/debug/pprof",
    "/debug/api_priority_and_fairness/dump_priority_levels",
    "/debug/api_priority_and_fairness/dump_queues",
    "/logs",
    "/weft/v1/servers",
    "/weft/v1/servers/1",
    "/weft/v1/leader",
    "/weft/v1/backup",
    "/weft/v1/encryption/rewrap",
    "/weft/v1/signing-keys",
    "/weft/v1/signing-keys/x",
    "/openid/v1/jwks",
    "/.well-known/openid-configuration",
    "/swagger.json",
    "//api/v1/secrets",
    "/healthz/../metrics",
];
const REGISTRY: [&str; 5] = [
    "/v2/",
    "/v2/a/tags/list",
    "/v2/a/manifests/1",
    "/v2/a/blobs/uploads/",
    "/v2/_catalog",
];

/// Every collection, object and part of an object.
fn resources() -> BTreeSet<String> {
    let mut paths = BTreeSet::new();
    for kind in Registry::builtin().all() {
        let root = match &*kind.group {
            "" => format!("/api/{}", kind.version),
            group => format!("/apis/{group}/{}", kind.version),
        };
        let resource = &kind.resource;
        let own = match kind.namespaced {
            true => format!("{root}/namespaces/default/{resource}"),
            false => format!("{root}/{resource}"),
        };
        paths.insert(format!("{root}/{resource}"));
        paths.insert(format!("{root}/watch/{resource}"));
        paths.insert(own.clone());
        paths.insert(format!("{own}?watch=1"));
        paths.insert(format!("{own}/x"));
        for part in &kind.subresources {
            paths.insert(format!("{own}/x/{}", part.name()));
            paths.insert(format!("{own}/x/{}/more", part.name()));
        }
    }
    // Parts that have no kind of their own.
    for part in ["exec", "attach", "portforward", "ephemeralcontainers"] {
        paths.insert(format!("{PODS}/x/{part}"));
    }
    paths.insert("/api/v1/namespaces/default/bindings".to_owned());
    paths
}

async fn code(world: &World, method: &str, path: &str, token: Option<&str>) -> u16 {
    let mut request = world.request(&format!("{method} {path}"), &[], "");
    match token {
        Some(token) => {
            let token = format!("Bearer {token}").parse().unwrap();
            request.headers_mut().insert(header::AUTHORIZATION, token);
        }
        None => drop(request.headers_mut().remove(header::AUTHORIZATION)),
    }
    let answer = world.send(request).await;
    let said = answer.body.to_string();
    assert!(!said.contains("sesame"), "{method} {path}: {said}");
    answer.status
}

#[tokio::test]
async fn who_shows_nothing_sees_health_and_version_and_nothing_else() {
    let world = World::new().await;
    let system = Caller::system("apiserver", None);
    world.objects.ensure_roles(&system).await.unwrap();
    let secret =
        serde_json::json!({"metadata": {"name": "x"}, "stringData": {"password": "sesame"}});
    let secrets = "POST /api/v1/namespaces/default/secrets";
    assert_eq!(world.ask(secrets, secret).await.status, 201);
    assert_eq!(
        world.ask(&format!("POST {PODS}"), pod("x")).await.status,
        201
    );

    let mut wrong = Vec::new();
    let mut check = |line: String, found: u16, expected: &[u16]| {
        if !expected.contains(&found) {
            wrong.push(format!("{line}: {found}, not {expected:?}"));
        }
    };
    for path in OPEN {
        for (who, token) in [("nobody", None), ("jo", Some("user"))] {
            let found = code(&world, "GET", path, token).await;
            check(format!("{who} GET {path}"), found, &[200]);
            let found = code(&world, "POST", path, token).await;
            check(format!("{who} POST {path}"), found, &[403]);
        }
    }
    for path in KNOWN {
        let found = code(&world, "GET", path, None).await;
        check(format!("nobody GET {path}"), found, &[403]);
        let found = code(&world, "GET", path, Some("user")).await;
        check(format!("jo GET {path}"), found, &[200]);
        let found = code(&world, "POST", path, Some("user")).await;
        check(format!("jo POST {path}"), found, &[403]);
    }
    for path in CLOSED {
        for method in METHODS {
            for (who, token) in [("nobody", None), ("jo", Some("user"))] {
                let found = code(&world, method, path, token).await;
                check(format!("{who} {method} {path}"), found, &[403]);
            }
        }
    }
    for path in REGISTRY {
        for method in METHODS {
            let found = code(&world, method, path, None).await;
            check(format!("nobody {method} {path}"), found, &[401]);
            let found = code(&world, method, path, Some("user")).await;
            check(format!("jo {method} {path}"), found, &[403]);
        }
    }
    // What everybody who is known may ask is about himself.
    let about_oneself = |method: &str, path: &str| {
        method == "POST"
            && [
                "selfsubjectaccessreviews",
                "selfsubjectrulesreviews",
                "selfsubjectreviews",
            ]
            .iter()
            .any(|resource| path.contains(resource))
    };
    for path in resources() {
        for method in METHODS {
            let found = code(&world, method, &path, None).await;
            check(format!("nobody {method} {path}"), found, &[403]);
            if !about_oneself(method, &path) {
                let found = code(&world, method, &path, Some("user")).await;
                check(format!("jo {method} {path}"), found, &[403]);
            }
            // A credential that is none is told so everywhere.
            let found = code(&world, method, &path, Some("wrong")).await;
            check(format!("a wrong token {method} {path}"), found, &[401]);
        }
    }
    assert!(wrong.is_empty(), "{}:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!(world.get(&format!("{PODS}/x")).await.status, 200);
}
