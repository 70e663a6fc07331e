//! Byte streams between workloads: on one node and across, in both directions at once, and what nobody else can make.

use bytes::Bytes;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio::sync::mpsc;
use weft_mesh::{Body, BoxError, Failure, FailureKind, Raw};

use super::world::*;

/// Says each part again in capitals as it comes, to who connects; to a call of HTTP, that it is one.
async fn shout(request: Request<Body>) -> Result<Response<Body>, Failure> {
    if request.extensions().get::<Raw>().is_none() {
        return Ok(Response::new(Body::full("a call")));
    }
    let parts = futures::stream::unfold(request.into_body(), |mut body| async move {
        let part = body.frame().await?.ok()?.into_data().ok()?;
        let part = Frame::data(Bytes::from(part.to_ascii_uppercase()));
        Some((Ok::<_, BoxError>(part), body))
    });
    Ok(Response::new(Body::new(StreamBody::new(parts))))
}

/// A body to be written as it is read.
fn written() -> (mpsc::Sender<&'static str>, Body) {
    let (sender, receiver) = mpsc::channel(1);
    let parts = futures::stream::unfold(receiver, |mut receiver| async move {
        let text: &str = receiver.recv().await?;
        let part = Frame::data(Bytes::from_static(text.as_bytes()));
        Some((Ok::<_, BoxError>(part), receiver))
    });
    (sender, Body::new(StreamBody::new(parts)))
}

#[tokio::test]
async fn a_stream_goes_both_ways_at_once_here_and_there() {
    let world = world();
    world.a.attach(pod(1), workload("local", shout));
    world.b.attach(pod(2), workload("voting", shout));
    world.publish(
        1,
        vec![
            service("local", vec![endpoint("local", 1, "a", world.b_address)]),
            service("voting", vec![endpoint("voting", 2, "b", world.b_address)]),
        ],
    );
    for to in ["local:80", "voting:80", "10.42.0.2:8080"] {
        let (sender, sent) = written();
        let mut received = world.outbound().connect(to, sent).await.expect("a stream");
        for (said, heard) in [("hello", "HELLO"), ("world", "WORLD")] {
            sender.send(said).await.expect("it is read");
            let frame = received.frame().await.expect("a part").expect("a part");
            assert_eq!(frame.into_data().expect("bytes"), heard, "{to}");
        }
        drop(sender);
        let rest = received.collect().await.expect("an end").to_bytes();
        assert!(rest.is_empty(), "{to}: {rest:?}");
    }
    let (_, sent) = written();
    let attached = world.outbound().connect_attached(pod(1), sent).await;
    assert!(attached.is_ok());
}

#[tokio::test]
async fn nothing_that_a_guest_says_makes_a_stream() {
    let world = world();
    world.a.attach(pod(1), workload("local", shout));
    world.b.attach(pod(2), workload("voting", shout));
    world.publish(
        1,
        vec![
            service("local", vec![endpoint("local", 1, "a", world.b_address)]),
            service("voting", vec![endpoint("voting", 2, "b", world.b_address)]),
        ],
    );
    for host in ["local", "voting"] {
        let request = Request::post(format!("http://{host}/")).header("x-weft-raw", "1");
        let request = request.body(Body::full("x")).expect("a request");
        let (_, body) = text(world.call(request).await.expect("an answer"))
            .await
            .expect("text");
        assert_eq!(body, "a call", "{host}");
    }
}

#[tokio::test]
async fn a_stream_to_nobody_says_why() {
    let world = world();
    let nobody = vec![service(
        "local",
        vec![endpoint("local", 1, "a", world.b_address)],
    )];
    world.publish(1, nobody);
    for (to, kind) in [
        // Its pod has left its address; nobody else is behind it.
        ("local:80", FailureKind::Unreachable),
        ("local:81", FailureKind::UnknownPort),
        ("nobody:80", FailureKind::UnknownService),
        ("192.0.2.1:80", FailureKind::Denied),
    ] {
        let connected = world.outbound().connect(to, Body::empty()).await;
        let failure = connected.expect_err("a failure");
        assert_eq!(failure.kind, kind, "{to}: {failure}");
    }
    let outbound = world.outbound();
    let connected = outbound.connect_attached(pod(9), Body::empty());
    let failure = connected.await.expect_err("a failure");
    assert_eq!(failure.kind, FailureKind::Unreachable);
}
