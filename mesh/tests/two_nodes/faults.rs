//! Who bears what went wrong: a fault of a caller is held against nobody else.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU32, Ordering},
};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use weft_mesh::{Body, BoxError, CallContext, CallerInfo, Failure, FailureKind};

use super::world::*;

/// Reads the request to its end, and fails if that does not come.
async fn read_all(request: Request<Body>) -> Result<Response<Body>, Failure> {
    match request.into_body().collect().await {
        Ok(body) => Ok(Response::new(Body::full(body.to_bytes().len().to_string()))),
        Err(error) => Err(Failure::new(FailureKind::Failed, error.to_string())),
    }
}

fn broken_body() -> Body {
    let frames = [
        Ok(Frame::data(Bytes::from_static(b"begun"))),
        Err::<_, BoxError>("the sender gave up".into()),
    ];
    Body::new(StreamBody::new(futures::stream::iter(frames)))
}

#[tokio::test]
async fn a_request_that_breaks_off_ejects_nobody() {
    let world = world();
    world.b.attach(pod(2), workload("voting", read_all));
    world.publish(
        1,
        vec![service(
            "voting",
            vec![endpoint("voting", 2, "b", world.b_address)],
        )],
    );
    let short = || Body::full("five!");
    let send = |declared: Option<u32>, body: Body| {
        let mut request = Request::post("http://voting/");
        if let Some(declared) = declared {
            request = request.header("content-length", declared);
        }
        world.call(request.body(body).expect("a request"))
    };
    let mut lines = Vec::new();
    for (name, declared, body) in [
        ("whole", Some(5), short()),
        ("breaks off", None, broken_body()),
        ("too short", Some(6), short()),
        ("too long", Some(4), short()),
    ] {
        let said = match send(declared, body).await {
            Ok(response) => text(response).await.expect("text").1,
            Err(error) => error.to_string(),
        };
        let ejected = gauge(&world.a, "weft_mesh_endpoints_ejected");
        lines.push(format!("{name}: {said}; {ejected} ejected"));
    }
    insta::assert_snapshot!(lines.join("\n"), @r"
    whole: 5; 0 ejected
    breaks off: the request is not acceptable: its body broke off, or is not as long as its content-length says; 0 ejected
    too short: the request is not acceptable: its body broke off, or is not as long as its content-length says; 0 ejected
    too long: the request is not acceptable: its body broke off, or is not as long as its content-length says; 0 ejected
    ");
    insta::assert_snapshot!(counted(&world.a), @r"
    source voting 200 - x1
    source voting 400 DPE x3
    ");
    // Somebody who is not there is left alone, on the other hand.
    let (gone, gone_address) = listen();
    drop(gone);
    let dead = endpoint("voting", 9, "gone", gone_address);
    world.publish(2, vec![service("dead", vec![dead])]);
    world.get("http://dead/").await.expect_err("nobody listens");
    assert_eq!(gauge(&world.a, "weft_mesh_endpoints_ejected"), 1);
}

#[tokio::test]
async fn a_callers_own_limits_eject_nobody() {
    let world = world();
    world.b.attach(pod(2), workload("voting", describe));
    world.publish(
        1,
        vec![service(
            "voting",
            vec![endpoint("voting", 2, "b", world.b_address)],
        )],
    );
    let deep = CallContext {
        depth: 31,
        ..CallContext::default()
    };
    let request = Request::get("http://voting/")
        .extension(deep)
        .body(Body::empty());
    let error = world.call(request.expect("a request")).await;
    assert!(
        matches!(&error, Err(failure) if failure.kind == FailureKind::LoopDetected),
        "{error:?}"
    );
    let mut request = Request::get("http://voting/");
    for number in 0..250 {
        request = request.header(format!("x-{number}"), "1");
    }
    let request = request.body(Body::empty()).expect("a request");
    let error = world.call(request).await;
    assert!(
        matches!(&error, Err(failure) if failure.kind == FailureKind::HeadTooLarge),
        "{error:?}"
    );
    assert_eq!(gauge(&world.a, "weft_mesh_endpoints_ejected"), 0);
    world.get("http://voting/").await.expect("it is there");
}

#[tokio::test]
async fn who_fails_is_left_alone_and_asked_where_there_is_nobody_else() {
    let world = world();
    let is_well = Arc::new(AtomicBool::new(false));
    let fails = {
        let is_well = Arc::clone(&is_well);
        move |_request: Request<Body>| {
            let answer = match is_well.load(Ordering::SeqCst) {
                true => Ok(Response::new(Body::full("well"))),
                false => Err(FailureKind::Trap.into()),
            };
            async move { answer }
        }
    };
    world.a.attach(pod(1), workload("web", fails));
    world.a.attach(pod(2), workload("web", describe));
    let at = |last| endpoint("web", last, "a", world.b_address);
    world.publish(
        1,
        vec![
            service("both", vec![at(1), at(2)]),
            service("alone", vec![at(1)]),
        ],
    );
    let mut failed = 0;
    for _ in 0..500 {
        failed += u32::from(world.get("http://both/").await.is_err());
    }
    // Half of the calls, and more for being so fast, if nothing were made of it. Thirteen trials take a minute.
    assert!((1..20).contains(&failed), "{failed}");
    // Nobody is turned away because it failed before.
    for _ in 0..5 {
        let error = world.get("http://alone/").await.expect_err("a trap");
        assert!(error.kind == FailureKind::Trap, "{error:?}");
    }
    is_well.store(true, Ordering::SeqCst);
    world.get("http://alone/").await.expect("well again");
    assert_eq!(gauge(&world.a, "weft_mesh_endpoints_ejected"), 0);
}

#[tokio::test]
async fn who_is_full_is_not_asked_again_where_there_is_nobody_else() {
    let world = world();
    let asked = Arc::new(AtomicU32::new(0));
    let counting = {
        let asked = Arc::clone(&asked);
        move |_request: Request<Body>| {
            asked.fetch_add(1, Ordering::SeqCst);
            async { Err::<Response<Body>, _>(FailureKind::Overloaded.into()) }
        }
    };
    world.b.attach(pod(2), workload("voting", counting.clone()));
    world.b.attach(pod(3), workload("voting", counting));
    let at = |last| endpoint("voting", last, "b", world.b_address);
    world.publish(
        1,
        vec![
            service("one", vec![at(2)]),
            service("two", vec![at(2), at(3)]),
        ],
    );
    for (name, times) in [("one", 1), ("two", 2)] {
        asked.store(0, Ordering::SeqCst);
        let error = world.get(&format!("http://{name}/")).await.expect_err(name);
        assert!(error.kind == FailureKind::Overloaded, "{error:?}");
        assert_eq!(asked.load(Ordering::SeqCst), times, "{name}");
    }
}

#[tokio::test]
async fn retries_of_a_service_have_a_budget() {
    let world = world();
    let asked = Arc::new(AtomicU32::new(0));
    let full = {
        let asked = Arc::clone(&asked);
        move |_request: Request<Body>| {
            asked.fetch_add(1, Ordering::SeqCst);
            async { Err::<Response<Body>, _>(FailureKind::Overloaded.into()) }
        }
    };
    for last in [1, 2, 3] {
        world.a.attach(pod(last), workload("web", full.clone()));
    }
    let at = |last| endpoint("web", last, "a", world.b_address);
    world.publish(1, vec![service("full", vec![at(1), at(2), at(3)])]);
    let calls = 3000;
    for _ in 0..calls {
        world.get("http://full/").await.expect_err("full");
    }
    let retries = asked.load(Ordering::SeqCst) - calls;
    // A fifth of the calls, and what goes to an endpoint whose backoff is over; three tries a call would be 6,000.
    assert!((1..=700).contains(&retries), "{retries}");
}

#[tokio::test]
async fn a_head_has_no_body_on_any_way() {
    let world = world();
    let answer = |_request: Request<Body>| async {
        let frames = [Ok::<_, BoxError>(Frame::data(Bytes::from_static(b"hello")))];
        Ok(Response::new(Body::new(StreamBody::new(
            futures::stream::iter(frames),
        ))))
    };
    world.a.attach(pod(1), workload("web", answer));
    world.b.attach(pod(2), workload("voting", answer));
    world.publish(
        1,
        vec![
            service("near", vec![endpoint("web", 1, "a", world.b_address)]),
            service("far", vec![endpoint("voting", 2, "b", world.b_address)]),
        ],
    );
    for (method, name, expected) in [
        ("HEAD", "near", ""),
        ("HEAD", "far", ""),
        ("GET", "near", "hello"),
        ("GET", "far", "hello"),
    ] {
        let request = Request::builder()
            .method(method)
            .uri(format!("http://{name}/"))
            .body(Body::empty())
            .expect("a request");
        let response = world.call(request).await.expect("an answer");
        let (status, body) = text(response).await.expect("a body without an error");
        assert_eq!(
            (status.as_u16(), body.as_str()),
            (200, expected),
            "{method} {name}"
        );
    }
    insta::assert_snapshot!(counted(&world.a), @r"
    destination near 200 - x2
    source far 200 - x2
    source near 200 - x2
    ");
}

#[tokio::test]
async fn the_pods_own_containers_are_called_through_the_same_door() {
    let world = world();
    let mut full = workload("web", describe);
    full.in_flight_max = 0;
    world.a.attach(pod(1), workload("web", describe));
    world.a.attach(pod(2), full);
    let caller = world.a.outbound(CallerInfo {
        identity: sa("web"),
        workload: named("web"),
    });
    let mut lines = Vec::new();
    for last in [1, 2, 3] {
        let request = Request::get("http://localhost:8080/a/../p")
            .header("x-weft-source", "admin")
            .header("x-forwarded-client-cert", "URI=spiffe://x")
            .body(Body::empty())
            .expect("a request");
        lines.push(match caller.call_attached(pod(last), request).await {
            Ok(response) => text(response).await.expect("text").1,
            Err(error) => error.to_string(),
        });
    }
    let deep = CallContext {
        depth: 31,
        ..CallContext::default()
    };
    let request = Request::get("http://localhost/").extension(deep);
    let request = request.body(Body::empty()).expect("a request");
    let error = caller.call_attached(pod(1), request).await;
    lines.push(error.expect_err("a loop").to_string());
    insta::assert_snapshot!(lines.join("\n"), @r"
    GET http://localhost:8080/p from spiffe://cluster.local/ns/vote/sa/web (web) by in-process, depth 1, attempt 0, weft headers 0
    10.42.0.2:8080 takes no more calls at the moment
    no endpoint of 10.42.0.3:8080 could be reached in 1 attempts
    the call is nested deeper than 32 workloads
    ");
    insta::assert_snapshot!(counted(&world.a), @r"
    destination unknown 200 - x1
    destination unknown 503 UO x1
    destination unknown 508 DPE x1
    source BlackHoleCluster 503 UF x1
    source unknown 200 - x1
    source unknown 503 UO x1
    source unknown 508 DPE x1
    ");
}

#[tokio::test]
async fn a_connection_is_closed_when_its_caller_is_not_trusted_any_more() {
    let world = world();
    world.b.attach(pod(2), workload("voting", describe));
    world.publish(
        1,
        vec![service(
            "voting",
            vec![endpoint("voting", 2, "b", world.b_address)],
        )],
    );
    world.get("http://voting/").await.expect("trusted");
    // One more root takes nobody's trust away.
    let other = Authority::new();
    let roots = [world.authority.root.clone(), other.root.clone()];
    world.b.identities().set_roots(&roots).expect("roots");
    world.get("http://voting/").await.expect("still trusted");
    assert_eq!(gauge(&world.b, "weft_mesh_connections_accepted_total"), 1);
    // Another in its place does, on the connection that was opened before as well.
    world
        .b
        .identities()
        .set_roots(std::slice::from_ref(&other.root))
        .expect("a root");
    let refused = async {
        while world.get("http://voting/").await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), refused)
        .await
        .expect("the connection is closed");
}
