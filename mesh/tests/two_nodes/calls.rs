//! Calls between workloads, on one node and across: who is reached, what is tried again, what is charged.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::StreamBody;
use tokio::sync::Notify;
use weft_mesh::{
    Body, BoxError, CallContext, CallerInfo, CancellationToken, Failure, FailureKind, Mesh,
    PodAddress, PodRange, Table, gateway_identity,
};

use super::world::*;

#[tokio::test]
async fn both_ways_give_the_callee_the_same_view() {
    let world = world();
    world.a.attach(pod(1), workload("local", describe));
    world.b.attach(pod(2), workload("voting", describe));
    world.publish(
        1,
        vec![
            service("local", vec![endpoint("local", 1, "a", world.b_address)]),
            service("voting", vec![endpoint("voting", 2, "b", world.b_address)]),
        ],
    );
    let call = |uri: &str| {
        let request = Request::post(uri)
            .header("x-weft-source", "admin")
            .header("connection", "close")
            .body(Body::full("hello"))
            .expect("a request");
        world.call(request)
    };
    let local = call("http://local/p?q").await.expect("an answer");
    let remote = call("http://voting.vote.svc/p?q").await.expect("an answer");
    let lines = [
        text(local).await.expect("text").1,
        text(remote).await.expect("text").1,
    ];
    insta::assert_snapshot!(lines.join("\n"), @r"
    POST http://local/p?q from spiffe://cluster.local/ns/vote/sa/web (web) by in-process, depth 1, attempt 0, weft headers 0
    POST http://voting.vote.svc/p?q from spiffe://cluster.local/ns/vote/sa/web (web) by mtls, depth 1, attempt 0, weft headers 0
    ");

    let (mut here, mut there) = (String::new(), String::new());
    world.a.render_metrics(&mut here);
    world.b.render_metrics(&mut there);
    let series = |text: &str, parts: &[&str]| {
        text.lines()
            .filter(|line| line.starts_with("istio_requests_total"))
            .any(|line| parts.iter().all(|part| line.contains(part)) && line.ends_with(" 1"))
    };
    let to_voting = "destination_service=\"voting.vote.svc.cluster.local\"";
    assert!(series(&here, &["reporter=\"source\"", to_voting]), "{here}");
    assert!(
        series(&here, &["reporter=\"destination\"", "in_process"]),
        "{here}"
    );
    let at_voting = [
        "reporter=\"destination\"",
        "source_workload=\"web\"",
        "mutual_tls",
        to_voting,
    ];
    assert!(series(&there, &at_voting), "{there}");
}

/// The mesh was charged with what a guest does between making a call and waiting for it, and the endpoint with its slowness.
#[tokio::test]
async fn what_a_caller_does_before_it_waits_is_not_the_meshs_time() {
    const ELSEWHERE: Duration = Duration::from_millis(500);
    let world = world();
    world.a.attach(pod(1), workload("local", describe));
    let endpoints = vec![endpoint("local", 1, "a", world.b_address)];
    world.publish(1, vec![service("local", endpoints)]);
    let request = Request::get("http://local/").body(Body::empty());
    let calling = world.outbound().call(request.expect("a request"));
    std::thread::sleep(ELSEWHERE);
    text(calling.await.expect("an answer")).await.expect("text");

    let mut metrics = String::new();
    world.a.render_metrics(&mut metrics);
    let sum = "weft_mesh_added_seconds_sum{from=\"workload\",transport=\"in-process\"} ";
    let sum = metrics.lines().find_map(|line| line.strip_prefix(sum));
    let seconds: f64 = sum.expect("the sum").parse().expect("a number");
    assert!(seconds > 0.0, "the layers have a cost");
    assert!(seconds < ELSEWHERE.as_secs_f64(), "{seconds} s were added");
}

#[tokio::test]
async fn bodies_stream_both_ways_with_trailers() {
    let world = world();
    world.b.attach(pod(2), workload("voting", echo));
    world.publish(
        1,
        vec![service(
            "voting",
            vec![endpoint("voting", 2, "b", world.b_address)],
        )],
    );
    let (sender, receiver) = futures::channel::mpsc::channel::<Result<Frame<Bytes>, BoxError>>(1);
    let body = Body::new(StreamBody::new(receiver));
    let request = Request::post("http://voting/")
        .body(body)
        .expect("a request");
    let response = world.call(request).await.expect("an answer");
    converse(sender, response.into_body()).await;
}

#[tokio::test]
async fn messages_of_grpc_are_counted_at_both_ends() {
    let world = world();
    world.b.attach(pod(2), workload("voting", echo));
    let endpoints = vec![endpoint("voting", 2, "b", world.b_address)];
    world.publish(1, vec![service("voting", endpoints)]);
    // Three messages, the second of them in two pieces.
    let pieces = [&b"\0\0\0\0\x01a\0\0\0"[..], b"\0\x02bc\0\0\0\0\0"];
    let pieces = pieces.map(|piece| Ok::<_, BoxError>(Frame::data(Bytes::from_static(piece))));
    let body = Body::new(StreamBody::new(futures::stream::iter(pieces)));
    let request = Request::post("http://voting/a.B/C")
        .header("content-type", "application/grpc")
        .body(body)
        .expect("a request");
    let response = world.call(request).await.expect("an answer");
    text(response).await.expect("its end");
    for (mesh, reporter) in [(&world.a, "source"), (&world.b, "destination")] {
        let mut metrics = String::new();
        mesh.render_metrics(&mut metrics);
        for name in ["request", "response"] {
            let start = format!("istio_{name}_messages_total{{reporter=\"{reporter}\"");
            let line = metrics.lines().find(|line| line.starts_with(&start));
            let line = line.unwrap_or_default();
            assert!(line.ends_with(" 3"), "{reporter} {name}: {line}");
        }
    }
}

#[tokio::test]
async fn an_endpoint_with_another_identity_is_not_reached() {
    let world = world();
    world.b.attach(pod(2), workload("voting", describe));
    world.b.attach(pod(3), workload("other", describe));
    // The node holds no certificate for `emoji`: the name is asked for and nothing is presented.
    let mut emoji = endpoint("emoji", 2, "b", world.b_address);
    emoji.pod = "voting-2".to_owned();
    // It holds one for `voting`, but the pod at that address is of another identity.
    let swapped = endpoint("voting", 3, "b", world.b_address);
    world.publish(
        1,
        vec![
            service("emoji", vec![emoji]),
            service("swapped", vec![swapped]),
        ],
    );
    for name in ["emoji", "swapped"] {
        let error = world.get(&format!("http://{name}/")).await.expect_err(name);
        assert!(
            error.kind == FailureKind::Unreachable && error.to_string().ends_with("in 3 attempts"),
            "{name}: {error:?}"
        );
    }
}

/// As in any cluster of Kubernetes: a pod is reached by its address, whether a service leads to it or not.
#[tokio::test]
async fn a_pod_that_no_service_leads_to_is_called_by_its_address() {
    let world = world();
    world.a.attach(pod(1), workload("local", describe));
    world.b.attach(pod(130), workload("voting", describe));
    let range = |range: &str, node: &str, node_address| PodRange {
        range: range.parse().expect("a range"),
        node: node.to_owned(),
        node_address,
    };
    let mut builder = Table::builder("a", 1);
    builder.set_pod_ranges(
        gateway_identity(DOMAIN),
        [
            range("10.42.0.0/25", "a", None),
            range("10.42.0.128/25", "b", Some(world.b_address)),
        ],
    );
    world.a.publish(builder.table(1));
    let (_, local) = world.get("http://10.42.0.1:8080/").await.expect("local");
    assert!(
        local.contains("from spiffe://cluster.local/ns/vote/sa/web"),
        "{local}"
    );
    // The node has to prove that it is one: with the identities of its pods alone it does not.
    let elsewhere = "http://10.42.0.130:8080/";
    let error = world.get(elsewhere).await.expect_err("no node");
    assert!(error.kind == FailureKind::Unreachable, "{error:?}");
    let gateway = gateway_identity(DOMAIN);
    let (chain, key) = world.authority.issue(&[&gateway.to_string()]);
    let given = world.b.identities().set(gateway, chain, key);
    given.expect("the gateway's certificate");
    let (_, there) = world.get(elsewhere).await.expect("there");
    assert!(
        there.contains("from spiffe://cluster.local/ns/vote/sa/web"),
        "{there}"
    );
    assert!(there.contains("by mtls"), "{there}");
    // Nobody is at these, and the last is no address of a pod.
    for (address, kind) in [
        ("10.42.0.2:8080", FailureKind::Unreachable),
        ("10.42.0.130:8081", FailureKind::Unreachable),
        ("10.43.0.1:80", FailureKind::NotGranted),
    ] {
        let error = world.get(&format!("http://{address}/")).await;
        assert_eq!(error.expect_err(address).kind, kind, "{address}");
    }
}

#[tokio::test]
async fn certificates_are_checked_on_both_ends() {
    let world = world();
    world.b.attach(pod(2), workload("voting", describe));
    world.publish(
        1,
        vec![service(
            "voting",
            vec![endpoint("voting", 2, "b", world.b_address)],
        )],
    );
    // A caller whose certificate another authority signed, and one that has none.
    let foreign = Authority::new();
    let (chain, key) = foreign.issue(&[&sa("foreign").to_string()]);
    world
        .a
        .identities()
        .set(sa("foreign"), chain, key)
        .expect("well-formed");
    for account in ["foreign", "nobody"] {
        let caller = CallerInfo {
            identity: sa(account),
            workload: named(account),
        };
        let request = Request::get("http://voting/")
            .body(Body::empty())
            .expect("a request");
        let error = world.a.outbound(caller).call(request).await;
        assert!(error.is_err(), "{account}: {error:?}");
    }
    // Setting a certificate checks it, too.
    let both = [sa("x").to_string(), sa("y").to_string()];
    let cases: [(&[&str], &str); 3] = [
        (&[], "no URI"),
        (&[&both[0], &both[1]], "more than one URI"),
        (&[&both[1]], "not for spiffe://cluster.local/ns/vote/sa/x"),
    ];
    for (uris, reason) in cases {
        let (chain, key) = world.authority.issue(uris);
        let error = world
            .a
            .identities()
            .set(sa("x"), chain, key)
            .expect_err(reason);
        assert!(error.to_string().contains(reason), "{error}");
    }
    // Roots replaced by others: the old connection takes no further request.
    world.get("http://voting/").await.expect("still trusted");
    world
        .a
        .identities()
        .set_roots(std::slice::from_ref(&foreign.root))
        .expect("a root");
    let error = world.get("http://voting/").await.expect_err("not trusted");
    assert!(error.kind == FailureKind::Unreachable, "{error:?}");
}

#[tokio::test]
async fn what_was_not_processed_is_tried_elsewhere() {
    let world = world();
    let (dead, dead_address) = listen();
    drop(dead);
    world.b.attach(pod(2), workload("voting", describe));
    world.publish(
        1,
        vec![
            service(
                "refused",
                vec![
                    endpoint("voting", 1, "dead", dead_address),
                    endpoint("voting", 2, "b", world.b_address),
                ],
            ),
            service(
                "left",
                vec![
                    endpoint("voting", 3, "b", world.b_address),
                    endpoint("voting", 2, "b", world.b_address),
                ],
            ),
        ],
    );
    for name in ["refused", "left"] {
        let mut retried = 0;
        for _ in 0..20 {
            let request = Request::post(format!("http://{name}/"))
                .body(Body::full("once"))
                .expect("a request");
            let response = world.call(request).await.expect(name);
            let (status, line) = text(response).await.expect("text");
            assert_eq!(status, 200);
            retried += u32::from(line.contains("attempt 1"));
        }
        assert!(retried <= 1, "{name}: ejected after the first failure");
    }
}

#[tokio::test]
async fn a_failure_that_may_have_been_processed_is_repeated_only_when_idempotent() {
    let world = world();
    let calls = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&calls);
    let trap = move |_request: Request<Body>| {
        let counted = Arc::clone(&counted);
        async move {
            counted.fetch_add(1, Ordering::SeqCst);
            Err::<Response<Body>, _>(Failure::new(FailureKind::Trap, "unreachable executed"))
        }
    };
    world.b.attach(pod(2), workload("voting", trap.clone()));
    world.a.attach(pod(1), workload("local", trap));
    world.publish(
        1,
        vec![
            service("voting", vec![endpoint("voting", 2, "b", world.b_address)]),
            service("local", vec![endpoint("local", 1, "a", world.b_address)]),
        ],
    );
    for name in ["voting", "local"] {
        let before = calls.load(Ordering::SeqCst);
        let error = world.get(&format!("http://{name}/")).await.expect_err(name);
        assert_eq!(
            error.to_string(),
            format!("{name}.vote failed before it answered: unreachable executed")
        );
        assert_eq!(calls.load(Ordering::SeqCst), before + 1);
    }
}

#[tokio::test]
async fn a_replaced_pod_is_found_in_the_next_table() {
    let world = world();
    world.b.attach(pod(4), workload("voting", describe));
    let at = |last| {
        vec![service(
            "voting",
            vec![endpoint("voting", last, "b", world.b_address)],
        )]
    };
    world.publish(1, at(2));
    // The only endpoint known has left; its successor is published while the call waits.
    let (answer, ()) = tokio::join!(world.get("http://voting/"), async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        world.publish(2, at(4));
    });
    let (status, line) = answer.expect("the successor answers");
    assert_eq!(status, 200);
    assert!(line.contains("attempt 1"), "{line}");
}

#[tokio::test]
async fn deadlines_and_loops_end_calls() {
    let world = world();
    let slow = |_request: Request<Body>| std::future::pending();
    world.b.attach(pod(2), workload("voting", slow));
    world.b.attach(pod(5), workload("voting", describe));
    world.publish(
        1,
        vec![
            service("slow", vec![endpoint("voting", 2, "b", world.b_address)]),
            service("voting", vec![endpoint("voting", 5, "b", world.b_address)]),
        ],
    );
    let with = |uri: &str, context: CallContext| {
        Request::get(uri)
            .extension(context)
            .body(Body::empty())
            .expect("a request")
    };
    let soon = CallContext {
        deadline: Some(Instant::now() + Duration::from_millis(100)),
        ..CallContext::default()
    };
    let error = world.call(with("http://slow/", soon)).await;
    assert!(
        matches!(&error, Err(failure) if failure.kind == FailureKind::Deadline),
        "{error:?}"
    );
    let deep = CallContext {
        depth: 31,
        ..CallContext::default()
    };
    let error = world.call(with("http://voting/", deep)).await;
    assert!(
        matches!(&error, Err(failure) if failure.kind == FailureKind::LoopDetected),
        "{error:?}"
    );
}

#[tokio::test]
async fn nothing_leaves_the_cluster() {
    let world = world();
    let mut legacy = endpoint("legacy", 7, "", world.b_address);
    legacy.ip = [192, 0, 2, 10].into();
    legacy.node_address = None;
    world.publish(
        1,
        vec![
            service("voting", Vec::new()),
            service("legacy", vec![legacy]),
        ],
    );
    for (uri, expected) in [
        // A slice that somebody made for what is not in the cluster.
        (
            "http://legacy/",
            "192.0.2.10:8080, the endpoint of legacy.vote, is outside the cluster and no policy allows it",
        ),
        (
            "http://example.com/",
            "example.com:80 is outside the cluster, and no CapabilityGrant lets ServiceAccount vote/web call it; add to one of its own \
             outgoingHTTP: hosts [example.com], ports [80], scheme HTTP",
        ),
        ("http://nowhere/", "there is no service nowhere.vote"),
        (
            "http://voting/",
            "service voting.vote has no ready endpoint",
        ),
        (
            "https://voting/",
            "service voting.vote has no port 443; it has 80",
        ),
    ] {
        let error = world.get(uri).await.expect_err(uri);
        assert_eq!(error.to_string(), expected, "{uri}");
    }
}

#[tokio::test]
async fn every_call_is_charged_once_whatever_becomes_of_it() {
    let world = world();
    let arrived = Arc::new(Notify::new());
    let slow = {
        let arrived = Arc::clone(&arrived);
        move |_request: Request<Body>| {
            arrived.notify_one();
            std::future::pending()
        }
    };
    world.a.attach(pod(3), workload("web", slow.clone()));
    world.b.attach(pod(2), workload("voting", slow));
    world.publish(
        1,
        vec![
            service("near", vec![endpoint("web", 3, "a", world.b_address)]),
            service("far", vec![endpoint("voting", 2, "b", world.b_address)]),
            service("nobody", Vec::new()),
        ],
    );
    for uri in [
        "http://nowhere/",
        "https://near/",
        "http://example.com/",
        "http://nobody/",
    ] {
        world.get(uri).await.expect_err(uri);
    }
    // A guest that has a timeout of its own lets go of the call that is being served.
    for uri in ["http://near/", "http://far/"] {
        tokio::select! {
            answer = world.get(uri) => panic!("{uri} answered {answer:?}"),
            () = arrived.notified() => {}
        }
    }
    let soon = CallContext {
        deadline: Some(Instant::now() + Duration::from_millis(100)),
        ..CallContext::default()
    };
    let request = Request::get("http://near/")
        .extension(soon)
        .body(Body::empty());
    let error = world.call(request.expect("a request")).await;
    assert!(
        matches!(&error, Err(failure) if failure.kind == FailureKind::Deadline),
        "{error:?}"
    );
    insta::assert_snapshot!(counted(&world.a), @r"
    destination near 0 DC x2
    source BlackHoleCluster 403 UAEX x1
    source BlackHoleCluster 404 NR x2
    source far 0 DC x1
    source near 0 DC x1
    source near 504 UT x1
    source nobody 503 UH x1
    ");
    // The other end hears of it when the stream is reset.
    let expected = "destination far 0 DC x1";
    for _ in 0..500 {
        if counted(&world.b) == expected {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(counted(&world.b), expected);
}

#[tokio::test]
async fn detaching_waits_for_calls_in_flight() {
    let world = world();
    let (release, gate) = tokio::sync::watch::channel(false);
    let gated = move |_request: Request<Body>| {
        let mut gate = gate.clone();
        async move {
            gate.wait_for(|open| *open).await.expect("the gate");
            Ok(Response::new(Body::full("done")))
        }
    };
    world.b.attach(pod(2), workload("voting", gated));
    world.publish(
        1,
        vec![service(
            "voting",
            vec![endpoint("voting", 2, "b", world.b_address)],
        )],
    );
    let drain = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let detached = world.b.detach(pod(2));
        assert_eq!(detached.in_flight(), 1);
        release.send(true).expect("a receiver");
        detached.drained().await;
    };
    let (answer, ()) = tokio::join!(world.get("http://voting/"), drain);
    assert_eq!(answer.expect("in flight goes on").1, "done");
    assert_eq!(world.b.detach(pod(2)).in_flight(), 0);
}

#[tokio::test]
async fn a_node_that_dies_fails_no_idempotent_call() {
    let world = world();
    world.b.attach(pod(2), workload("voting", describe));
    let (got, mut taken) = tokio::sync::mpsc::unbounded_channel();
    let hang = move |_request: Request<Body>| {
        got.send(()).expect("the test waits");
        std::future::pending()
    };
    for (generation, method, survives) in [(1, "GET", true), (3, "POST", false)] {
        // A node that takes the call and is gone before it answers.
        let node = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let c = Mesh::builder("c", DOMAIN).build();
        world.authority.give(&c, "voting");
        c.attach(pod(6), workload("voting", hang.clone()));
        let (listener, c_address) = listen();
        node.spawn(async move { c.serve_inbound(listener, CancellationToken::new()).await });
        let at = |last, node: &str, address| {
            vec![service(
                "dying",
                vec![endpoint("voting", last, node, address)],
            )]
        };
        world.publish(generation, at(6, "c", c_address));
        let request = Request::builder()
            .method(method)
            .uri("http://dying/")
            .body(Body::empty())
            .expect("a request");
        let (answer, ()) = tokio::join!(world.call(request), async {
            taken.recv().await.expect("the call arrived");
            world.publish(generation + 1, at(2, "b", world.b_address));
            node.shutdown_background();
        });
        match answer {
            Ok(response) => assert!(survives && response.status() == 200),
            Err(failure) if failure.kind == FailureKind::Interrupted => assert!(!survives),
            Err(error) => panic!("{method}: {error:?}"),
        }
    }
}

/// A component with several ports has one body of code for all of them.
#[tokio::test]
async fn a_workload_is_told_at_which_of_its_ports_it_is_called() {
    let world = world();
    let told = |request: Request<Body>| async move {
        let context = request
            .extensions()
            .get::<CallContext>()
            .expect("the context");
        Ok::<_, Failure>(Response::new(Body::full(format!("{:?}", context.port))))
    };
    let ports = [8080, 9090];
    let at = |last: u8| ports.map(|port| PodAddress { port, ..pod(last) });
    world.a.attach_at(&at(1), workload("local", told));
    world.b.attach_at(&at(2), workload("voting", told));
    let two = |name: &str, last, node| {
        let mut service = service(name, vec![endpoint(name, last, node, world.b_address)]);
        let mut other = service.ports[0].clone();
        other.port = 81;
        other.endpoints[0].port = 9090;
        service.ports.push(other);
        service
    };
    world.publish(1, vec![two("local", 1, "a"), two("voting", 2, "b")]);
    for (uri, expected) in [
        ("http://local/", "Some(8080)"),
        ("http://local:81/", "Some(9090)"),
        ("http://voting/", "Some(8080)"),
        ("http://voting:81/", "Some(9090)"),
    ] {
        let (_, text) = world.get(uri).await.expect("an answer");
        assert_eq!(text, expected, "{uri}");
    }
    let request = Request::get("http://10.42.0.1:9090/");
    let request = request.body(Body::empty()).expect("a request");
    let attached = world.outbound().call_attached(at(1)[1], request).await;
    let (_, text) = text(attached.expect("an answer")).await.expect("text");
    assert_eq!(text, "Some(9090)");
}
