//! Calls to a service that has nobody at the moment: held until it has, asked for once, bounded by namespace.

use std::time::Duration;

use bytes::Bytes;
use futures::future::{join_all, poll_immediate};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use weft_mesh::{Body, CallContext, DEPTH_MAX, FailureKind, Mesh, ServiceSpec, Wanted};

use super::world::*;

/// As the limits in `hold.rs`.
const HELD_MAX: usize = 1000;
const HELD_TIME: Duration = Duration::from_secs(30);

fn sleeping(name: &str) -> ServiceSpec {
    ServiceSpec {
        wakes: true,
        ..service(name, Vec::new())
    }
}

fn awake(world: &World, last: u8) -> ServiceSpec {
    ServiceSpec {
        wakes: true,
        ..service(
            "voting",
            vec![endpoint("voting", last, "b", world.b_address)],
        )
    }
}

/// A service of a namespace, without endpoints.
fn of(namespace: &str, name: &str) -> ServiceSpec {
    ServiceSpec {
        namespace: namespace.to_owned(),
        ..sleeping(name)
    }
}

async fn wanted(mesh: &Mesh) -> Wanted {
    let wanted = tokio::time::timeout(Duration::from_secs(5), mesh.next_wanted());
    wanted.await.expect("somebody waits")
}

/// Lets everything run that can.
async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

async fn nobody_is_wanted(mesh: &Mesh) -> bool {
    settle().await;
    let wanted = tokio::time::timeout(Duration::from_millis(1), mesh.next_wanted());
    wanted.await.is_err() && !mesh.is_holding()
}

#[tokio::test]
async fn calls_wait_for_an_endpoint_and_are_asked_for_once() {
    let world = world();
    world.publish(1, vec![sleeping("voting")]);
    let (listener, address) = listen();
    let serving = (world.a.clone(), world.stop.clone());
    tokio::spawn(async move { serving.0.serve_gateway(listener, serving.1).await });
    let from_outside = tokio::spawn(async move { through_gateway(address).await });
    let inside = join_all((0..20).map(|_| world.get("http://voting/")));
    let waking = async {
        let wanted = wanted(&world.a).await;
        assert_eq!((wanted.namespace(), wanted.name()), ("vote", "voting"));
        settle().await;
        let again = tokio::time::timeout(Duration::from_millis(20), world.a.next_wanted());
        assert!(again.await.is_err(), "one ask for all of them");
        // A table that says something else wakes nobody and changes nothing.
        world.publish(2, vec![sleeping("voting"), service("other", Vec::new())]);
        settle().await;
        assert!(world.a.is_holding());
        world.b.attach(pod(2), workload("voting", describe));
        world.publish(3, vec![awake(&world, 2)]);
        wanted.is_over().await;
    };
    let (answers, ()) = tokio::join!(inside, waking);
    for answer in answers {
        assert_eq!(answer.expect("an answer").0, StatusCode::OK);
    }
    assert_eq!(from_outside.await.expect("no panic").0, StatusCode::OK);
    assert!(nobody_is_wanted(&world.a).await);
    let services = world.a.counted_services();
    let voting = services.iter().find(|one| one.name == "voting");
    let voting = &voting.expect("it was called").calls;
    assert_eq!(voting.begun, 21);
    assert_eq!(voting.answers.values().sum::<u64>(), 21);
    assert!(voting.busy_micros >= 20_000, "the time that they waited");
    let reached = &world.b.counted_pods()[&pod(2).ip];
    assert_eq!(
        (reached.begun, reached.answers.values().sum::<u64>()),
        (21, 21)
    );
}

async fn through_gateway(address: std::net::SocketAddr) -> (StatusCode, Option<String>, String) {
    let stream = tokio::net::TcpStream::connect(address).await.expect("open");
    let io = hyper_util::rt::TokioIo::new(stream);
    let handshake = hyper::client::conn::http1::handshake(io);
    let (mut client, connection) = handshake.await.expect("a connection");
    tokio::spawn(connection);
    let request = Request::get("/")
        .header("host", "voting.vote.localhost")
        .body(Empty::<Bytes>::new())
        .expect("a request");
    let response = client.send_request(request).await.expect("an answer");
    let status = response.status();
    let after = response.headers().get("retry-after");
    let after = after
        .and_then(|after| after.to_str().ok())
        .map(str::to_owned);
    let body = response.into_body().collect().await.expect("a body");
    let body = String::from_utf8_lossy(&body.to_bytes()).into_owned();
    (status, after, body)
}

#[tokio::test]
async fn of_no_use_to_wait_is_a_503_that_says_why() {
    let world = world();
    world.publish(1, vec![sleeping("voting")]);
    let (listener, address) = listen();
    let serving = (world.a.clone(), world.stop.clone());
    tokio::spawn(async move { serving.0.serve_gateway(listener, serving.1).await });
    let call = tokio::spawn(through_gateway(address));
    let asked = wanted(&world.a).await;
    asked.refuse("pods \"web-1\" is forbidden: exceeded quota: small");
    let (status, after, body) = call.await.expect("no panic");
    assert_eq!(
        (status, after.as_deref()),
        (StatusCode::SERVICE_UNAVAILABLE, Some("2"))
    );
    assert_eq!(
        body,
        "service voting.vote has no ready endpoint: pods \"web-1\" is forbidden: exceeded quota: small\n"
    );
    // Whoever comes after that is asked for anew.
    let (call, ()) = tokio::join!(world.get("http://voting/"), async {
        wanted(&world.a).await.refuse("still");
    });
    let failure = call.expect_err("nobody");
    assert_eq!(failure.kind, FailureKind::NoEndpoints);
    assert!(failure.never_processed() && failure.retry_after.is_some());
}

#[tokio::test(start_paused = true)]
async fn no_call_is_held_for_ever() {
    let world = world();
    world.publish(1, vec![sleeping("voting")]);
    let begun = tokio::time::Instant::now();
    let (call, ()) = tokio::join!(world.get("http://voting/"), async {
        wanted(&world.a).await.tell(Some("0/1 nodes are available"));
    });
    let failure = call.expect_err("nobody came");
    assert_eq!(
        failure.to_string(),
        "service voting.vote has no ready endpoint: 0/1 nodes are available"
    );
    assert!(begun.elapsed() >= HELD_TIME && begun.elapsed() < HELD_TIME * 2);
    assert!(nobody_is_wanted(&world.a).await);
}

/// What is not there, would be refused, or has no autoscaler wakes nobody.
#[tokio::test]
async fn what_is_denied_wakes_nobody() {
    let world = world();
    world.publish(1, vec![sleeping("voting"), service("still", Vec::new())]);
    for uri in [
        "http://still/",
        "http://nothing/",
        "http://voting:81/",
        "http://example.com/",
    ] {
        let failure = world.get(uri).await.expect_err("nobody");
        assert_ne!(failure.kind, FailureKind::Deadline, "{uri}: {failure}");
    }
    let mut circle = Request::get("http://voting/")
        .body(Body::empty())
        .expect("a request");
    circle.extensions_mut().insert(CallContext {
        depth: DEPTH_MAX,
        ..CallContext::default()
    });
    let refused = world.call(circle).await;
    refused.map(drop).expect_err("it has no end");
    assert!(nobody_is_wanted(&world.a).await);
}

/// One that was to answer goes before it does, and another comes.
#[tokio::test]
async fn a_pod_that_dies_is_waited_for_again() {
    let world = world();
    world.publish(1, vec![sleeping("voting")]);
    let (call, ()) = tokio::join!(world.get("http://voting/"), async {
        let asked = wanted(&world.a).await;
        // It is in the table, and on no node.
        world.publish(2, vec![awake(&world, 3)]);
        asked.is_over().await;
        world.publish(3, vec![sleeping("voting")]);
        let again = wanted(&world.a).await;
        world.b.attach(pod(2), workload("voting", describe));
        world.publish(4, vec![awake(&world, 2)]);
        again.is_over().await;
    });
    assert_eq!(call.expect("an answer").0, StatusCode::OK);
}

#[tokio::test]
async fn what_one_namespace_has_held_takes_nothing_from_another() {
    let world = world();
    world.publish(1, vec![of("vote", "voting"), of("shop", "cart")]);
    let outbound = world.outbound();
    let call = |uri: &str, body: Body| {
        let request = Request::post(uri).body(body).expect("a request");
        outbound.call(request)
    };
    let mut held = Vec::new();
    for _ in 0..HELD_MAX {
        let mut calling = call("http://voting/", Body::empty());
        assert!(poll_immediate(&mut calling).await.is_none());
        held.push(calling);
    }
    let refused = call("http://voting/", Body::empty()).await;
    let refused = refused.map(drop).expect_err("there is no place");
    assert_eq!(refused.kind, FailureKind::NoEndpoints);
    assert_eq!(
        refused.to_string(),
        "service voting.vote has no ready endpoint yet, and 1000 calls wait for those of its namespace already"
    );
    let mut other = call("http://cart.shop/", Body::empty());
    assert!(poll_immediate(&mut other).await.is_none(), "it has its own");
    // Who lets go makes room.
    held.pop();
    let mut next = call("http://voting/", Body::empty());
    assert!(poll_immediate(&mut next).await.is_none());
    drop((held, next, other));
    assert!(nobody_is_wanted(&world.a).await);

    // So do bytes: a few large requests are as much as many small ones.
    let large = || Body::full(Bytes::from(vec![0; 20 << 20]));
    let mut first = call("http://voting/", large());
    assert!(poll_immediate(&mut first).await.is_none());
    let refused = call("http://voting/", large()).await;
    refused.map(drop).expect_err("too many bytes");
    let mut other = call("http://cart.shop/", large());
    assert!(poll_immediate(&mut other).await.is_none());
}
