//! What a caller asks for of single calls, and what a workload tells of itself beside its answer, between two nodes.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};
use std::time::Duration;

use http::{Method, Request, Response, StatusCode};
use weft_call::{CallOptions, Failure};
use weft_gateway::{NamespacedName, Resilience, Retry, Served};
use weft_mesh::{Body, CallContext, Interest, Mesh, QUEUE_USUAL, Reporter, ServiceSpec, Table};

use super::world::*;

fn publish(mesh: &Mesh, service: ServiceSpec, asked: Option<Resilience>) {
    let name = NamespacedName::new("vote", service.name.as_str());
    let served = Served {
        resilience: asked
            .map(|asked| (name, Arc::new(asked)))
            .into_iter()
            .collect(),
        ..Served::default()
    };
    let table = Table::builder(mesh.node(), 1).services(vec![service]);
    mesh.publish(table.routes(&served).build());
}

/// What a workload does with a call before it answers.
fn workload_that(
    account: &str,
    status: u16,
    calls: &Arc<AtomicU32>,
    does: fn(&CallContext),
) -> weft_mesh::LocalWorkload {
    let calls = Arc::clone(calls);
    workload(account, move |request: Request<Body>| {
        calls.fetch_add(1, Ordering::SeqCst);
        does(request.extensions().get().expect("the context"));
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::from_u16(status).expect("a status");
        std::future::ready(Ok::<_, Failure>(response))
    })
}

fn request(method: &Method, options: CallOptions) -> Request<Body> {
    let request = Request::builder().method(method).uri("http://voting/");
    let request = request.extension(options).body(Body::empty());
    request.expect("a request")
}

#[tokio::test]
async fn a_call_is_made_twice_or_never_twice_as_its_caller_says() {
    let world = world();
    let calls = Arc::new(AtomicU32::new(0));
    world
        .b
        .attach(pod(2), workload_that("voting", 503, &calls, |_| ()));
    let again = Resilience {
        retry: Some(Retry {
            codes: vec![StatusCode::SERVICE_UNAVAILABLE],
            attempts: 2,
            backoff: Some(Duration::from_millis(1)),
            ..Retry::default()
        }),
        ..Resilience::default()
    };
    let there = service("voting", vec![endpoint("voting", 2, "b", world.b_address)]);
    publish(&world.a, there, Some(again));
    let usual = CallOptions::default();
    let twice = CallOptions {
        idempotent: true,
        ..usual
    };
    let once = CallOptions {
        once: true,
        ..usual
    };
    for (method, options, tries) in [
        (Method::GET, usual, 3),
        (Method::GET, once, 1),
        (Method::POST, usual, 1),
        (Method::POST, twice, 3),
        (
            Method::POST,
            CallOptions {
                once: true,
                ..twice
            },
            1,
        ),
    ] {
        calls.store(0, Ordering::SeqCst);
        let answer = world.call(request(&method, options)).await;
        assert_eq!(answer.expect("an answer").status(), 503);
        assert_eq!(calls.load(Ordering::SeqCst), tries, "{method} {options:?}");
    }
}

#[tokio::test]
async fn calls_with_a_key_go_where_it_leads() {
    let world = world();
    let counts = [2, 3].map(|last| {
        let calls = Arc::new(AtomicU32::new(0));
        world
            .b
            .attach(pod(last), workload_that("voting", 200, &calls, |_| ()));
        calls
    });
    let both = [2, 3].map(|last| endpoint("voting", last, "b", world.b_address));
    publish(&world.a, service("voting", both.to_vec()), None);
    let mut led = [0, 0];
    for key in 0..40_u64 {
        let before = counts.each_ref().map(|calls| calls.load(Ordering::SeqCst));
        for _ in 0..3 {
            let options = CallOptions {
                key: Some(CallOptions::key_of(&key.to_be_bytes())),
                ..CallOptions::default()
            };
            let answer = world.call(request(&Method::GET, options)).await;
            assert_eq!(answer.expect("an answer").status(), 200);
        }
        let after = counts.each_ref().map(|calls| calls.load(Ordering::SeqCst));
        let taken = [after[0] - before[0], after[1] - before[1]];
        assert!(taken == [3, 0] || taken == [0, 3], "{taken:?}");
        led[usize::from(taken[1] == 3)] += 1;
    }
    assert!(led.iter().all(|keys| *keys >= 8), "{led:?}");
}

#[tokio::test]
async fn who_wants_to_rest_is_left_alone_though_it_answers_well() {
    let world = world();
    let [tired, other] = [AtomicU32::new(0), AtomicU32::new(0)].map(Arc::new);
    let rests = |context: &CallContext| {
        let told = context.spent.as_ref().expect("somebody asks");
        told.rest(Duration::from_secs(60));
    };
    world
        .b
        .attach(pod(2), workload_that("voting", 200, &tired, rests));
    world
        .b
        .attach(pod(3), workload_that("voting", 200, &other, |_| ()));
    let both = [2, 3].map(|last| endpoint("voting", last, "b", world.b_address));
    publish(&world.a, service("voting", both.to_vec()), None);
    for _ in 0..200 {
        let answer = world
            .call(request(&Method::GET, CallOptions::default()))
            .await;
        let answer = answer.expect("an answer");
        assert_eq!(answer.status(), 200);
        let lines = answer.headers().keys();
        assert_eq!(
            lines
                .filter(|name| name.as_str().starts_with("x-weft"))
                .count(),
            0
        );
    }
    // Each time it is left alone for longer; otherwise each would have had about half.
    let (tired, other) = (tired.load(Ordering::SeqCst), other.load(Ordering::SeqCst));
    assert!((1..40).contains(&tired), "{tired} and {other}");
}

#[tokio::test]
async fn what_a_workload_says_of_a_call_is_told_at_its_end_alone() {
    let world = world();
    let calls = Arc::new(AtomicU32::new(0));
    let says = |context: &CallContext| {
        let told = context.spent.as_ref().expect("somebody asks");
        told.set("user.tier", "gold").expect("room");
    };
    world
        .b
        .attach(pod(2), workload_that("voting", 200, &calls, says));
    let there = service("voting", vec![endpoint("voting", 2, "b", world.b_address)]);
    publish(&world.a, there, None);
    let mut here = world
        .a
        .watch_calls(Interest::default(), QUEUE_USUAL)
        .expect("room");
    let mut there = world
        .b
        .watch_calls(Interest::default(), QUEUE_USUAL)
        .expect("room");
    let answer = world
        .call(request(&Method::GET, CallOptions::default()))
        .await;
    assert_eq!(answer.expect("an answer").status(), 200);
    let client = here.next().await;
    assert_eq!(
        (client.reporter(), client.attributes()),
        (Reporter::Source, &[][..])
    );
    let server = there.next().await;
    assert_eq!(server.reporter(), Reporter::Destination);
    assert_eq!(server.attributes(), [("user.tier".into(), "gold".into())]);
}
