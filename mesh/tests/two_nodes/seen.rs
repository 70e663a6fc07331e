//! What whoever watches is told of calls: both ends of one, on two nodes, as spans below each other; tries that came to nothing; calls that
//! found nobody.

use http::{Request, Response};
use weft_mesh::{Body, CallContext, Interest, QUEUE_USUAL, Sighting, Sightings};

use super::world::*;

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

async fn told(sightings: &mut Sightings) -> std::sync::Arc<Sighting> {
    let patience = std::time::Duration::from_secs(20);
    tokio::time::timeout(patience, sightings.next())
        .await
        .expect("a call is told")
}

fn shown(seen: &Sighting) -> String {
    format!(
        "{:?} {} -> {} {} {} {} {} {}",
        seen.reporter(),
        seen.source().name,
        seen.destination().name,
        seen.method(),
        seen.path(),
        seen.code,
        seen.flag,
        seen.security()
    )
}

#[tokio::test]
async fn both_ends_of_a_call_are_spans_below_each_other_and_baggage_goes_on() {
    let world = world();
    world.b.attach(
        pod(2),
        workload("voting", |request: Request<Body>| async move {
            let context = request.extensions().get::<CallContext>();
            let trace = context.and_then(|context| context.trace.clone());
            let line = |name: &str| {
                let line = request.headers().get(name);
                line.map_or("none", |line| line.to_str().expect("text"))
                    .to_owned()
            };
            let told = format!(
                "{} {} {}",
                trace.expect("a trace"),
                line("traceparent"),
                line("baggage")
            );
            Ok(Response::new(Body::full(told)))
        }),
    );
    world.publish(
        1,
        vec![service(
            "voting",
            vec![endpoint("voting", 2, "b", world.b_address)],
        )],
    );
    let recorded = || Interest {
        recorded: true,
        ..Interest::default()
    };
    let mut here = world.a.watch_calls(recorded(), QUEUE_USUAL).expect("room");
    let mut there = world.b.watch_calls(recorded(), QUEUE_USUAL).expect("room");

    // What the caller serves has baggage; its own call says nothing of it.
    let served = CallContext {
        baggage: "user=7".parse().ok(),
        ..CallContext::default()
    };
    let request = Request::get("http://voting/p?secret=1")
        .header("traceparent", PARENT)
        .extension(served)
        .body(Body::empty());
    let answer = world.call(request.expect("a request")).await;
    let answer = text(answer.expect("an answer")).await.expect("text").1;

    let (client, server) = (told(&mut here).await, told(&mut there).await);
    insta::assert_snapshot!(format!("{}\n{}", shown(&client), shown(&server)), @r"
    Source web -> voting GET /p 200 - mutual_tls
    Destination web -> voting GET /p 200 - mutual_tls
    ");
    let (call, above) = client.span().expect("a span");
    let (served, below) = server.span().expect("a span");
    assert_eq!(above, Some(0x00f0_67aa_0ba9_02b7));
    assert_eq!(below, Some(call.span_id));
    assert_eq!(served.trace_id, 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736);
    // What it is told is its own part of the call, so that what it calls is below that.
    assert_eq!(answer, format!("{served} {served} user=7"));

    // Nobody records this one.
    let quiet = Request::get("http://voting/quiet").body(Body::empty());
    world
        .call(quiet.expect("a request"))
        .await
        .expect("an answer");
    assert!(here.try_next().is_none() && there.try_next().is_none());
}

#[tokio::test]
async fn a_call_that_finds_nobody_is_told_to_who_watches_its_caller() {
    let world = world();
    world.publish(1, vec![service("voting", vec![])]);
    let of = |namespace: &str| Interest {
        namespace: Some(namespace.to_owned()),
        ..Interest::default()
    };
    let mut own = world.a.watch_calls(of("vote"), QUEUE_USUAL).expect("room");
    let mut other = world.a.watch_calls(of("shop"), QUEUE_USUAL).expect("room");
    for uri in ["http://voting/a", "http://gone.vote.svc.cluster.local/b"] {
        assert!(world.get(uri).await.is_err());
    }
    let told = [told(&mut own).await, told(&mut own).await];
    let told: Vec<String> = told.iter().map(|seen| shown(seen)).collect();
    insta::assert_snapshot!(told.join("\n"), @r"
    Source web ->  GET /a 503 UH none
    Source web ->  GET /b 404 NR none
    ");
    assert!(other.try_next().is_none());
}
