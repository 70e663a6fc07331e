//! How a call goes that may leave.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use weft_mesh::{Body, CallContext, EgressScheme, FailureKind};

use crate::world::{Authority, HOST, Host, Speech, World, describe, get, post, rule, text, until};

#[tokio::test]
async fn a_call_speaks_what_the_host_speaks_and_says_nothing_of_the_cluster() {
    let world = World::new();
    world.names.add("api.test", &[&[HOST]]);
    let tls = |protocols: &[&str]| Speech::tls(&world.authority, "api.test", protocols);
    for (speech, scheme, version, host_line) in [
        (Speech::Plain, EgressScheme::Http, "HTTP/1.1", true),
        (tls(&["http/1.1"]), EgressScheme::Https, "HTTP/1.1", true),
        (tls(&[]), EgressScheme::Https, "HTTP/1.1", true),
        (
            tls(&["h2", "http/1.1"]),
            EgressScheme::Https,
            "HTTP/2.0",
            false,
        ),
    ] {
        let host = Host::start(HOST, speech, describe).await;
        let port = host.port();
        let caller = world.caller("cart", &[rule("api.test", scheme, port)]);
        let scheme = scheme.as_str().to_lowercase();
        let uri = format!("{scheme}://API.test.:{port}/a/../b?c=/../d");
        for number in 0..3 {
            let mut request = post(&uri, &format!("body {number}"));
            for (name, value) in [
                ("x-weft-source", "admin;;;;"),
                (
                    "traceparent",
                    "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
                ),
                ("connection", "x-mine"),
                ("x-mine", "1"),
                ("te", "trailers"),
                ("x-kept", "1"),
            ] {
                let name: HeaderName = name.parse().expect("a name");
                request
                    .headers_mut()
                    .insert(name, HeaderValue::from_static(value));
            }
            let answer = caller.call(request).await.expect("an answer");
            assert!(answer.headers().contains_key("x-theirs"));
            assert!(
                !answer.headers().contains_key("x-weft-error"),
                "who is outside is no node"
            );
            let told = text(Ok(answer)).await;
            let expected = if host_line {
                format!(
                    "{version} POST /b?c=/../d host api.test:{port} with [\"content-length\", \"host\", \"x-kept\"]: body {number}"
                )
            } else {
                format!(
                    "{version} POST https://api.test:{port}/b?c=/../d host - with [\"content-length\", \"te\", \"x-kept\"]: body {number}"
                )
            };
            assert_eq!(told, expected);
        }
        assert_eq!(
            host.seen.connections(),
            1,
            "one after the other need one connection"
        );
    }
}

#[tokio::test]
async fn a_host_that_does_not_prove_its_name_gets_no_request() {
    let world = World::new();
    world.names.add("api.test", &[&[HOST]]);
    for (speech, why) in [
        (
            Speech::tls(&world.authority, "other.test", &["h2"]),
            "not valid for name",
        ),
        (Speech::expired(&world.authority, "api.test"), "expired"),
        (
            Speech::tls(&Authority::new(), "api.test", &["h2"]),
            "BadSignature",
        ),
        (Speech::Plain, "corrupt message"),
    ] {
        let host = Host::start(HOST, speech, describe).await;
        let port = host.port();
        let caller = world.caller("cart", &[rule("api.test", EgressScheme::Https, port)]);
        let answered = caller.call(get(&format!("https://api.test:{port}/"))).await;
        let error = answered.expect_err("not proved");
        let detail = error.detail.as_deref().unwrap_or_default();
        assert!(detail.contains(why), "{error:?}");
        assert_eq!(host.seen.requests(), 0);
        assert_eq!(
            host.seen.connections(),
            1,
            "it would be no other the next time"
        );
    }
}

#[tokio::test]
async fn identities_have_connections_of_their_own() {
    let world = World::new();
    let host = Host::start(HOST, Speech::Plain, describe).await;
    let rules = [rule("127.0.0.2", EgressScheme::Http, host.port())];
    let (cart, web) = (world.caller("cart", &rules), world.caller("web", &rules));
    let uri = format!("http://127.0.0.2:{}/", host.port());
    for caller in [&cart, &web, &cart, &web] {
        assert!(text(caller.call(get(&uri)).await).await.starts_with("HTTP"));
    }
    assert_eq!(host.seen.connections(), 2);
}

#[tokio::test]
async fn callers_that_come_together_share_a_connection_where_the_host_can() {
    let world = World::new();
    world.names.add("api.test", &[&[HOST]]);
    let speech = Speech::tls(&world.authority, "api.test", &["h2"]);
    let host = Host::start(HOST, speech, describe).await;
    let caller = world.caller(
        "cart",
        &[rule("api.test", EgressScheme::Https, host.port())],
    );
    let uri = format!("https://api.test:{}/", host.port());
    let calls = (0..50).map(|_| async { text(caller.call(get(&uri)).await).await });
    for told in futures::future::join_all(calls).await {
        assert!(told.starts_with("HTTP/2.0 GET"), "{told}");
    }
    assert_eq!(host.seen.connections(), 1);
}

#[tokio::test]
async fn connections_to_one_host_are_bounded_and_further_calls_wait() {
    let world = World::new();
    let host = Host::start(HOST, Speech::Plain, |request| async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        describe(request).await
    })
    .await;
    let caller = world.caller(
        "cart",
        &[rule("127.0.0.2", EgressScheme::Http, host.port())],
    );
    let uri = format!("http://127.0.0.2:{}/", host.port());
    let calls = (0..300).map(|_| async { text(caller.call(get(&uri)).await).await });
    for told in futures::future::join_all(calls).await {
        assert!(told.starts_with("HTTP"), "{told}");
    }
    assert_eq!(host.seen.requests(), 300);
    let most = host.seen.most_open.load(Ordering::Relaxed);
    assert!(most <= 128 + 16, "{most}");
}

#[tokio::test]
async fn a_host_that_is_slow_ends_with_the_callers_deadline() {
    let world = World::new();
    let host = Host::start(HOST, Speech::Plain, |_| std::future::pending()).await;
    let caller = world.caller(
        "cart",
        &[rule("127.0.0.2", EgressScheme::Http, host.port())],
    );
    let uri = format!("http://127.0.0.2:{}/", host.port());
    let mut request = get(&uri);
    let begun = Instant::now();
    request.extensions_mut().insert(CallContext {
        deadline: Some(begun + Duration::from_millis(100)),
        ..CallContext::default()
    });
    let error = caller.call(request).await.expect_err("too slow");
    assert_eq!(error.kind, FailureKind::Deadline, "{error}");
    assert!(begun.elapsed() < Duration::from_secs(5));
    until("its connection is closed", || {
        host.seen.open.load(Ordering::Relaxed) == 0
    })
    .await;

    // A caller that goes away leaves nothing behind either.
    let calling = caller.call(get(&uri));
    let given_up = tokio::time::timeout(Duration::from_millis(100), calling).await;
    assert!(given_up.is_err());
    until("its connection is closed", || {
        host.seen.open.load(Ordering::Relaxed) == 0
    })
    .await;
    let mut metrics = String::new();
    world.mesh.render_metrics(&mut metrics);
    assert!(
        metrics.contains("response_code=\"504\",grpc_response_status=\"\",response_flags=\"UT\"}"),
        "{metrics}"
    );
    assert!(
        metrics.contains("response_code=\"0\",grpc_response_status=\"\",response_flags=\"DC\"}"),
        "{metrics}"
    );
}

/// A host that reads requests and hangs up.
async fn hangs_up(answers_first: usize) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind((HOST, 0)).await.expect("a free port");
    let port = listener.local_addr().expect("an address").port();
    let accepted = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&accepted);
    tokio::spawn(async move {
        while let Ok((mut tcp, _)) = listener.accept().await {
            let number = counted.fetch_add(1, Ordering::Relaxed);
            let mut head = [0; 4096];
            let read = tcp.read(&mut head).await;
            if read.is_ok() && number < answers_first {
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
                let written = tcp.write_all(answer).await;
                drop(written);
                // It says nothing of closing, and closes.
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    });
    (port, accepted)
}

#[tokio::test]
async fn what_may_have_been_processed_is_sent_again_only_if_it_is_idempotent() {
    let world = World::new();
    let (port, accepted) = hangs_up(0).await;
    let caller = world.caller("cart", &[rule("127.0.0.2", EgressScheme::Http, port)]);
    let uri = format!("http://127.0.0.2:{port}/");
    let error = caller.call(post(&uri, "pay")).await.expect_err("no answer");
    assert_eq!(error.kind, FailureKind::Interrupted, "{error}");
    assert_eq!(accepted.load(Ordering::Relaxed), 1);
    let error = caller.call(get(&uri)).await.expect_err("no answer");
    assert_eq!(error.kind, FailureKind::Interrupted, "{error}");
    assert_eq!(accepted.load(Ordering::Relaxed), 1 + 3);
}

#[tokio::test]
async fn what_never_left_is_sent_again_whatever_it_is() {
    let world = World::new();
    // Nobody listens: the port was free a moment ago.
    let free = std::net::TcpListener::bind((HOST, 0)).expect("a free port");
    let port = free.local_addr().expect("an address").port();
    drop(free);
    let caller = world.caller("cart", &[rule("127.0.0.2", EgressScheme::Http, port)]);
    let uri = format!("http://127.0.0.2:{port}/");
    let error = caller
        .call(post(&uri, "pay"))
        .await
        .expect_err("nobody listens");
    assert_eq!(error.kind, FailureKind::Unreachable, "{error:?}");
    assert!(error.message.ends_with("in 3 attempts"), "{error:?}");

    // A connection that its host closed while it idled.
    let (port, accepted) = hangs_up(2).await;
    let caller = world.caller("cart", &[rule("127.0.0.2", EgressScheme::Http, port)]);
    let uri = format!("http://127.0.0.2:{port}/");
    assert_eq!(text(caller.call(post(&uri, "pay")).await).await, "ok");
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(text(caller.call(post(&uri, "pay")).await).await, "ok");
    assert_eq!(accepted.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn a_body_comes_no_faster_than_it_is_read() {
    let world = World::new();
    world.names.add("api.test", &[&[HOST]]);
    for protocol in ["http/1.1", "h2"] {
        let sent = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&sent);
        let speech = Speech::tls(&world.authority, "api.test", &[protocol]);
        let host = Host::start(HOST, speech, move |_| {
            let counted = Arc::clone(&counted);
            async move {
                let chunks = futures::stream::repeat_with(move || {
                    counted.fetch_add(64 << 10, Ordering::Relaxed);
                    Ok::<_, weft_mesh::BoxError>(Frame::data(Bytes::from(vec![0; 64 << 10])))
                });
                Response::new(Body::new(StreamBody::new(chunks)))
            }
        })
        .await;
        let caller = world.caller(
            "cart",
            &[rule("api.test", EgressScheme::Https, host.port())],
        );
        let uri = format!("https://api.test:{}/", host.port());
        let mut body = caller.call(get(&uri)).await.expect("an answer").into_body();
        body.frame().await.expect("a frame").expect("data");
        tokio::time::sleep(Duration::from_millis(300)).await;
        let ahead = sent.load(Ordering::Relaxed);
        // What the kernel holds of a connection on one machine is the most of it.
        assert!(ahead < 24 << 20, "{protocol}: {ahead} bytes");
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(sent.load(Ordering::Relaxed), ahead, "{protocol}");
        drop(body);
        if protocol == "http/1.1" {
            until("its connection is closed", || {
                host.seen.open.load(Ordering::Relaxed) == 0
            })
            .await;
        }
    }
}

#[tokio::test]
async fn a_response_that_nobody_reads_ends_and_so_does_one_that_does_not_come() {
    let world = World::new();
    world.names.add("api.test", &[&[HOST]]);
    let mut open = Vec::new();
    for (protocol, account) in [("http/1.1", "cart"), ("h2", "web")] {
        let speech = Speech::tls(&world.authority, "api.test", &[protocol]);
        let host = Host::start(HOST, speech, |_| async {
            let first = Frame::data(Bytes::from_static(b"first"));
            let frames = futures::stream::iter([Ok::<_, weft_mesh::BoxError>(first)]);
            let frames = futures::StreamExt::chain(frames, futures::stream::pending());
            Response::new(Body::new(StreamBody::new(frames)))
        })
        .await;
        let caller = world.caller(
            account,
            &[rule("api.test", EgressScheme::Https, host.port())],
        );
        let uri = format!("https://api.test:{}/", host.port());
        let unread = caller.call(get(&uri)).await.expect("an answer").into_body();
        let mut waits = caller.call(get(&uri)).await.expect("an answer").into_body();
        waits.frame().await.expect("a frame").expect("data");
        let waiting = tokio::spawn(async move { waits.frame().await });
        open.push((protocol, host, unread, waiting));
    }
    tokio::task::yield_now().await;
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(299)).await;
    for (protocol, _, _, waiting) in &open {
        assert!(!waiting.is_finished(), "{protocol}");
    }
    tokio::time::advance(Duration::from_secs(2)).await;
    tokio::time::resume();
    for (protocol, host, mut unread, waiting) in open {
        let ended = [waiting.await.expect("no panic"), unread.frame().await];
        let told = ended.map(|frame| frame.expect("an end").expect_err("too late").to_string());
        let expected = [
            "nothing came from the host for 300 seconds",
            "nothing of the response was read for 300 seconds",
        ];
        assert_eq!(told, expected, "{protocol}");
        assert!(unread.frame().await.is_none(), "it is told once");
        if protocol == "http/1.1" {
            until(
                "its connections are closed, though the body is held",
                || host.seen.open.load(Ordering::Relaxed) == 0,
            )
            .await;
        }
    }
}

#[tokio::test]
async fn heads_that_are_too_large_are_not_passed_on() {
    let world = World::new();
    let host = Host::start(HOST, Speech::Plain, |_| async {
        let mut response = Response::new(Body::empty());
        for number in 0..50 {
            let name: HeaderName = format!("x-{number}").parse().expect("a name");
            let value = HeaderValue::from_str(&"v".repeat(2000)).expect("a value");
            response.headers_mut().insert(name, value);
        }
        response
    })
    .await;
    let caller = world.caller(
        "cart",
        &[rule("127.0.0.2", EgressScheme::Http, host.port())],
    );
    let answered = caller
        .call(get(&format!("http://127.0.0.2:{}/", host.port())))
        .await;
    assert!(answered.is_err());
    assert_eq!(
        host.seen.requests(),
        1,
        "it would be no smaller the next time"
    );
}

#[tokio::test]
async fn calls_are_counted_under_the_rule_and_not_under_what_callers_make_up() {
    let world = World::new();
    let host = Host::start(HOST, Speech::Plain, describe).await;
    let port = host.port();
    let caller = world.caller("cart", &[rule("*.api.test", EgressScheme::Http, port)]);
    for number in 0..20 {
        let name = format!("tenant-{number}.api.test");
        world.names.add(&name, &[&[HOST]]);
        let told = text(caller.call(get(&format!("http://{name}:{port}/"))).await).await;
        assert!(told.contains(&name), "{told}");
    }
    let mut metrics = String::new();
    world.mesh.render_metrics(&mut metrics);
    let counted: Vec<_> = metrics
        .lines()
        .filter(|line| {
            line.starts_with("istio_requests_total{reporter=\"source\",source_workload=\"cart\"")
        })
        .collect();
    assert_eq!(counted.len(), 1, "{counted:?}");
    let expected = "destination_service=\"*.api.test\",destination_service_name=\"*.api.test\",\
                    destination_service_namespace=\"unknown\",connection_security_policy=\"unknown\"";
    assert!(counted[0].contains(expected), "{}", counted[0]);
    assert!(counted[0].ends_with("} 20"), "{}", counted[0]);
}
