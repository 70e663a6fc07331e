//! Who asks: what callers learn of themselves, and how the refused are answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::body::Body;
use http::{Request, header};
use serde_json::json;
use weft_apiserver::caller::Caller;

use crate::world::*;

#[tokio::test]
async fn what_is_refused_is_still_read() {
    use futures::StreamExt as _;
    let world = World::new().await;
    for (line, token, status) in [
        (format!("POST {MAPS}"), "Bearer wrong", 401),
        (format!("PATCH {MAPS}"), "Bearer secret", 405),
        ("POST /api/v1/nothing".to_owned(), "Bearer secret", 404),
    ] {
        let read = Arc::new(AtomicBool::new(false));
        let noted = read.clone();
        let last = futures::stream::once(async move {
            noted.store(true, Ordering::Relaxed);
            Ok::<_, std::io::Error>(axum::body::Bytes::from_static(b"}"))
        });
        let first = futures::stream::iter([Ok(axum::body::Bytes::from_static(b"{"))]);
        let mut request = world.request(&line, &[], "");
        let token = header::HeaderValue::from_static(token);
        request.headers_mut().insert(header::AUTHORIZATION, token);
        *request.body_mut() = Body::from_stream(first.chain(last));
        assert_eq!(world.send(request).await.status, status, "{line}");
        assert!(read.load(Ordering::Relaxed), "{line}");
    }
}

#[tokio::test]
async fn callers_learn_who_they_are_and_strangers_little() {
    let world = World::new().await;
    let system = Caller::system("apiserver", None);
    world.objects.ensure_roles(&system).await.unwrap();
    let who = world
        .ask(
            "POST /apis/authentication.k8s.io/v1/selfsubjectreviews",
            json!({}),
        )
        .await;
    assert_eq!(who.body["status"]["userInfo"]["username"], "admin");
    let ask = json!({"spec": {"resourceAttributes": {"verb": "list", "resource": "pods"}}});
    let may = world
        .ask(
            "POST /apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
            ask,
        )
        .await;
    assert_eq!(
        (may.status, &may.body["status"]["allowed"]),
        (201, &json!(true))
    );
    let rules = world
        .ask(
            "POST /apis/authorization.k8s.io/v1/selfsubjectrulesreviews",
            json!({"spec": {"namespace": "default"}}),
        )
        .await;
    assert_eq!(
        rules.body["status"]["resourceRules"][0],
        json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]})
    );
    let mut told = Vec::new();
    for (path, token) in [
        ("/version", None),
        (PODS, None),
        (PODS, Some("Bearer wrong")),
    ] {
        let mut request = Request::builder().uri(path);
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, token);
        }
        let request = request.body(Body::empty()).unwrap();
        told.push(world.send(request).await.status.to_string());
    }
    assert_eq!(told.join(" "), "200 403 401");
    let posing = header::HeaderName::from_static("impersonate-user");
    let request = world.request(&format!("GET {PODS}"), &[(posing, "bob")], "");
    assert_eq!(world.send(request).await.status, 403);
}
