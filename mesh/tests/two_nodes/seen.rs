//! What whoever watches is told of calls: both ends of one, on two nodes, as spans below each other; tries that came to nothing; calls that
//! found nobody; what a guest is told to pass on of its trace.

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

/// What a guest is told to pass on, however its call came: here, from another node, or by `localhost`. Malformed parents are those of the
/// W3C's own suite; all of them are read in `weft_call`.
#[tokio::test]
async fn a_guest_can_pass_its_trace_on_whether_it_is_recorded_or_not() {
    let told = |request: Request<Body>| async move {
        let context = request.extensions().get::<CallContext>();
        let trace = context.and_then(|context| context.trace.clone());
        let lines = |name: &str| {
            let lines = request.headers().get_all(name).iter();
            let lines: Vec<_> = lines.map(|line| line.to_str().expect("text")).collect();
            lines.join(" | ")
        };
        let trace = trace.expect("a trace");
        assert_eq!(lines("traceparent"), trace.to_string());
        let trace_id = match format!("{:032x}", trace.trace_id) {
            id if PARENT.contains(&id) => "theirs",
            _ => "new",
        };
        let is_new_span = !PARENT.contains(&format!("{:016x}", trace.span_id));
        let said = format!(
            "{trace_id} {} {is_new_span} [{}] [{}]",
            trace.flags,
            lines("tracestate"),
            lines("baggage")
        );
        Ok(Response::new(Body::full(said)))
    };
    let world = world();
    world.a.attach(pod(1), workload("local", told));
    world.b.attach(pod(2), workload("voting", told));
    world.publish(
        1,
        vec![
            service("local", vec![endpoint("local", 1, "a", world.b_address)]),
            service("voting", vec![endpoint("voting", 2, "b", world.b_address)]),
        ],
    );
    let unrecorded = PARENT.replace("-01", "-00");
    let random = PARENT.replace("-01", "-02");
    let unknown = PARENT.replace("-01", "-fe");
    let later = PARENT.replace("00-4bf", "cc-4bf") + "-what-will-be";
    let short = PARENT.replace("4bf9", "4bf");
    let upper = PARENT.to_uppercase();
    let long = format!("long={}", "x".repeat(512));
    let much = "x".repeat(8193);
    for (lines, expected) in [
        (&[("traceparent", PARENT)][..], "theirs 1 true [] []"),
        (&[("traceparent", &unrecorded)], "theirs 0 true [] []"),
        (
            &[
                ("traceparent", &unrecorded),
                ("tracestate", "a=1"),
                ("tracestate", "b=2"),
                ("baggage", "user=7"),
            ],
            "theirs 0 true [a=1,b=2] [user=7]",
        ),
        (&[("traceparent", &random)], "theirs 2 true [] []"),
        (&[("traceparent", &unknown)], "theirs 2 true [] []"),
        (&[("traceparent", &later)], "theirs 1 true [] []"),
        (
            &[("traceparent", &unrecorded), ("tracestate", "a=1,a=2")],
            "theirs 0 true [] []",
        ),
        (
            &[("traceparent", &unrecorded), ("tracestate", &long)],
            "theirs 0 true [] []",
        ),
        // Of what is none, nothing is passed on.
        (&[], "new 0 true [] []"),
        (&[("tracestate", "a=1")], "new 0 true [] []"),
        (
            &[("traceparent", &short), ("tracestate", "a=1")],
            "new 0 true [] []",
        ),
        (
            &[("traceparent", &upper), ("tracestate", "a=1")],
            "new 0 true [] []",
        ),
        (
            &[
                ("traceparent", PARENT),
                ("traceparent", PARENT),
                ("tracestate", "a=1"),
            ],
            "new 0 true [] []",
        ),
        // Baggage needs no trace.
        (
            &[("baggage", "a=1"), ("baggage", "b=2;p")],
            "new 0 true [] [a=1,b=2;p]",
        ),
        (&[("baggage", &much)], "new 0 true [] []"),
    ] {
        for way in ["http://local/", "http://voting/", "localhost"] {
            let uri = way.replace("localhost", "http://localhost:8080/");
            let mut request = Request::get(uri).body(Body::empty()).expect("a request");
            for (name, value) in lines {
                let value = value.parse().expect("a value");
                request.headers_mut().append(*name, value);
            }
            let answer = match way {
                "localhost" => world.outbound().call_attached(pod(1), request).await,
                _ => world.call(request).await,
            };
            let answer = text(answer.expect("an answer")).await.expect("text").1;
            assert_eq!(answer, expected, "{way} {lines:?}");
        }
    }
    // What is said of the call that a guest serves goes on to those that it makes, and it says nothing.
    for way in ["http://local/", "http://voting/", "localhost"] {
        let uri = way.replace("localhost", "http://localhost:8080/");
        let served = CallContext {
            trace: weft_call::TraceContext::parse(&unrecorded),
            baggage: "user=7".parse().ok(),
            ..CallContext::default()
        };
        let request = Request::get(uri).extension(served).body(Body::empty());
        let request = request.expect("a request");
        let answer = match way {
            "localhost" => world.outbound().call_attached(pod(1), request).await,
            _ => world.call(request).await,
        };
        let answer = text(answer.expect("an answer")).await.expect("text").1;
        assert_eq!(answer, "theirs 0 true [] [user=7]", "{way}");
    }
}
