//! How calls of gRPC end decides about further tries and about endpoints, wherever it is said.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, header};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use weft_gateway::{Breaker, NamespacedName, Resilience, Retry, Served};
use weft_mesh::{Body, BoxError, Failure, Table};

use super::world::*;

/// Where a status is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Said {
    /// In a head that is all there is.
    InHead,
    /// In trailers right after the head.
    Alone,
    /// In trailers after a message.
    AfterMessage,
}

fn line(status: u16) -> HeaderMap {
    let mut lines = HeaderMap::new();
    lines.insert("grpc-status", HeaderValue::from(status));
    lines
}

/// Ends its calls with a status, after a while.
fn ends(
    status: u16,
    said: Said,
    takes: Duration,
    calls: &Arc<AtomicU32>,
) -> impl Fn(Request<Body>) -> weft_call::Calling<Body> + Clone + Send + Sync + 'static {
    let calls = Arc::clone(calls);
    move |request: Request<Body>| -> weft_call::Calling<Body> {
        let calls = Arc::clone(&calls);
        Box::pin(async move {
            let sent = request.into_body().collect().await;
            let sent = sent.map_err(|_| Failure::from(weft_mesh::FailureKind::BodyBroken))?;
            assert_eq!(sent.to_bytes(), "question", "at every try");
            calls.fetch_add(1, Ordering::SeqCst);
            tokio::time::sleep(takes).await;
            let message = Ok::<_, BoxError>(Frame::data(Bytes::from_static(b"message")));
            let trailers = Ok(Frame::trailers(line(status)));
            let mut response = match said {
                Said::InHead => Response::new(Body::empty()),
                Said::Alone => Response::new(Body::new(StreamBody::new(futures::stream::iter([
                    trailers,
                ])))),
                Said::AfterMessage => {
                    Response::new(Body::new(StreamBody::new(futures::stream::iter([
                        message, trailers,
                    ]))))
                }
            };
            let lines = response.headers_mut();
            if said == Said::InHead {
                lines.extend(line(status));
            }
            let kind = HeaderValue::from_static("application/grpc");
            lines.insert(header::CONTENT_TYPE, kind);
            Ok(response)
        })
    }
}

/// Makes a call; its status and how many bytes came before it.
async fn called(world: &World, uri: &str) -> (Option<String>, usize) {
    let request = Request::post(uri)
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .body(Body::full("question"))
        .expect("a request");
    let response = world.call(request).await.expect("an answer");
    let told = |lines: &HeaderMap| {
        let told = lines.get("grpc-status")?.to_str().ok()?;
        Some(told.to_owned())
    };
    let in_head = told(response.headers());
    let body = response.into_body().collect().await.expect("a body");
    let status = body.trailers().and_then(told).or(in_head);
    (status, body.to_bytes().len())
}

fn publish(world: &World, generation: u64, lasts: &[(u8, &str)], policy: Resilience) {
    let endpoints = lasts.iter().map(|(last, node)| {
        let account = if *node == "a" { "web" } else { "voting" };
        endpoint(account, *last, node, world.b_address)
    });
    let name = NamespacedName::new("vote", "calls");
    let served = Served {
        resilience: std::iter::once((name, Arc::new(policy))).collect(),
        ..Served::default()
    };
    let table = Table::builder("a", generation).service(service("calls", endpoints.collect()));
    world.a.publish(table.routes(&served).build());
}

fn again(grpc: &[u16]) -> Option<Retry> {
    Some(Retry {
        grpc: grpc.to_vec(),
        attempts: 2,
        backoff: Some(Duration::from_millis(1)),
        ..Retry::default()
    })
}

#[tokio::test]
async fn a_status_that_is_listed_is_asked_for_again_where_nothing_was_passed_on() {
    let world = world();
    let calls = Arc::new(AtomicU32::new(0));
    let mut generation = 0;
    for (node, last) in [("a", 1), ("b", 2)] {
        for (said, status, listed, tries, bytes) in [
            (Said::InHead, 14, &[14][..], 3, 0),
            (Said::Alone, 14, &[14], 3, 0),
            (Said::Alone, 14, &[13], 1, 0),
            (Said::Alone, 14, &[], 1, 0),
            (Said::Alone, 0, &[14], 1, 0),
            (Said::AfterMessage, 14, &[14], 1, 7),
        ] {
            let answers = ends(status, said, Duration::ZERO, &calls);
            match node {
                "a" => world.a.attach(pod(last), workload("web", answers)),
                _ => world.b.attach(pod(last), workload("voting", answers)),
            };
            generation += 1;
            let policy = Resilience {
                retry: again(listed),
                ..Resilience::default()
            };
            publish(&world, generation, &[(last, node)], policy);
            calls.store(0, Ordering::SeqCst);
            let told = called(&world, "http://calls/vote.Service/Method").await;
            let case = format!("{node} {said:?} {status} {listed:?}");
            assert_eq!(told, (Some(status.to_string()), bytes), "{case}");
            assert_eq!(calls.load(Ordering::SeqCst), tries, "{case}");
        }
    }
}

#[tokio::test]
async fn an_endpoint_is_left_alone_for_statuses_wherever_they_are_said() {
    for said in [Said::InHead, Said::Alone, Said::AfterMessage] {
        let world = world();
        let (bad, good) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        // Both are on the other node, so that neither goes before the other; who fails is the faster one, and so the first to be asked.
        let failing = workload("voting", ends(14, said, Duration::ZERO, &bad));
        world.b.attach(pod(1), failing);
        let slower = Duration::from_millis(20);
        let well = workload("voting", ends(0, said, slower, &good));
        world.b.attach(pod(2), well);
        let policy = Resilience {
            breaker: Some(Breaker {
                consecutive_failures: 1,
                success_percent: 0,
                ejection: Duration::from_secs(3600),
                ejection_max: Duration::from_secs(3600),
                ..Breaker::default()
            }),
            ..Resilience::default()
        };
        publish(&world, 1, &[(1, "b"), (2, "b")], policy);
        for _ in 0..20 {
            called(&world, "http://calls/vote.Service/Method").await;
        }
        assert_eq!(bad.load(Ordering::SeqCst), 1, "{said:?}");
        assert_eq!(good.load(Ordering::SeqCst), 19, "{said:?}");
    }
}
