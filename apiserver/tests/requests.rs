//! Requests before they are answered: who gets a seat, how long a body may take, what a slow reader holds.

mod world;

use axum::body::{Body, Bytes};
use futures::StreamExt as _;
use http::{Request, header};
use serde_json::json;
use tower::ServiceExt as _;

use self::world::*;

const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";

/// A body that begins and never ends.
fn unfinished() -> Body {
    let begun = futures::stream::iter([Ok::<_, std::io::Error>(Bytes::from_static(b"{"))]);
    Body::from_stream(begun.chain(futures::stream::pending()))
}

fn request(line: &str, token: Option<&str>, body: Body) -> Request<Body> {
    let (method, path) = line.split_once(' ').unwrap();
    let mut request = Request::builder().method(method).uri(path);
    if let Some(token) = token {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    request.body(body).unwrap()
}

/// What a node says to count as alive.
async fn lease(world: &World, renewed: &str) -> u16 {
    let lease = json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "a"},
        "spec": {"holderIdentity": "a", "leaseDurationSeconds": 8, "renewTime": renewed},
    });
    let first = world.send(request(
        &format!("POST {LEASES}"),
        Some("node"),
        lease.to_string().into(),
    ));
    match first.await.status {
        409 => {
            let line = format!("GET {LEASES}/a");
            let held = world
                .send(request(&line, Some("node"), Body::empty()))
                .await;
            let mut lease = lease;
            lease["metadata"]["resourceVersion"] = held.body["metadata"]["resourceVersion"].clone();
            let line = format!("PUT {LEASES}/a");
            let again = world.send(request(&line, Some("node"), lease.to_string().into()));
            again.await.status
        }
        status => status,
    }
}

/// Seen once: 220 connections that each sent a body slowly had all leases refused, and 18 s later every pod was evicted.
#[tokio::test]
async fn whoever_sends_slowly_takes_no_seat_from_nodes() {
    let world = World::new().await;
    assert_eq!(lease(&world, "2026-01-01T00:00:00.000000Z").await, 201);
    // Without credentials, and with credentials that allow nothing: refused before anything of the body is read, and
    // read no longer than it takes to make sure that the refusal arrives.
    for (token, status) in [(None, 403), (Some("user"), 403), (Some("wrong"), 401)] {
        let slow = (0..300).map(|_| {
            let line = format!("POST {PODS}");
            world.send(request(&line, token, unfinished()))
        });
        let refused = futures::future::join_all(slow);
        let renewed = lease(&world, "2026-01-01T00:00:02.000000Z");
        let (refused, renewed) = tokio::join!(refused, renewed);
        assert!(
            refused.iter().all(|answer| answer.status == status),
            "{token:?}"
        );
        assert_eq!(renewed, 200);
    }
    // Administrators may write, so they hold seats: theirs, not the nodes'. Words in the query buy no more.
    let mut held = tokio::task::JoinSet::new();
    for index in 0..2600 {
        let line = format!("POST {PODS}?{}", ["", "x=watch=", "watch=true"][index % 3]);
        let request = request(&line, Some("secret"), unfinished());
        held.spawn(world.router.clone().oneshot(request));
    }
    for second in 4..8 {
        let renewed = format!("2026-01-01T00:00:{second:02}.000000Z");
        assert_eq!(lease(&world, &renewed).await, 200);
        tokio::task::yield_now().await;
    }
    // The others of their kind wait for a seat, and those for whom there is no room to wait are told to come back: nobody is answered by silence.
    let mut told = 0;
    while let Some(Ok(Ok(answer))) = held.join_next().await {
        assert_eq!(answer.status(), 429);
        assert_eq!(answer.headers()[header::RETRY_AFTER], "1");
        told += 1;
        if told == 100 {
            break;
        }
    }
    assert_eq!(told, 100);
}

#[tokio::test]
async fn a_client_may_ask_for_less_time_and_not_for_more() {
    let world = World::new().await;
    let line = format!("POST {MAPS}?timeout=50ms");
    let late = world
        .send(request(&line, Some("secret"), unfinished()))
        .await;
    assert_eq!(
        late.line(),
        "504 Timeout: Timeout: request did not complete within the allotted timeout"
    );
    let map = config_map("m", "1").to_string();
    for (timeout, status) in [
        ("1h", 201),
        ("0s", 409),
        ("32s", 409),
        ("soon", 400),
        // Over before it began: as good as none.
        ("-1s", 409),
    ] {
        let line = format!("POST {MAPS}?timeout={timeout}");
        let answer = world
            .send(request(&line, Some("secret"), map.clone().into()))
            .await;
        assert_eq!(answer.status, status, "{timeout}");
    }
}

/// Answers of any size arrive whole, whoever reads them at what pace.
#[tokio::test]
async fn large_answers_arrive_whole() {
    let world = World::new().await;
    let filler = "x".repeat(300_000);
    for index in 0..5 {
        let mut map = config_map(&format!("m{index}"), "1");
        map["data"]["filler"] = filler.as_str().into();
        assert_eq!(world.ask(&format!("POST {MAPS}"), map).await.status, 201);
    }
    let slowly = async |path: &str| {
        let request = request(&format!("GET {path}"), Some("secret"), Body::empty());
        let answer = world.router.clone().oneshot(request).await.unwrap();
        let length = answer.headers().get(header::CONTENT_LENGTH).cloned();
        let mut body = answer.into_body().into_data_stream();
        let mut bytes = Vec::new();
        while let Some(chunk) = body.next().await {
            bytes.extend_from_slice(&chunk.unwrap());
            tokio::task::yield_now().await;
        }
        (length, bytes)
    };
    let (length, bytes) = slowly(&format!("{MAPS}/m0")).await;
    let length: usize = length.unwrap().to_str().unwrap().parse().unwrap();
    assert_eq!(bytes.len(), length);
    let map: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(map["data"]["filler"], filler.as_str());
    let (_, bytes) = slowly(MAPS).await;
    let list: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(list["items"].as_array().unwrap().len(), 5);
}
