//! What reaches a guest that listens, as the mesh sees it: a service like that of any component.
//!
//! A raw call ([`Raw`]) is a connection: its two bodies are the two directions. Any other is made in HTTP on a connection of its own
//! ([`speak`]).
//!
//! Invariants: a connection is used for one call and ends with it; a call that no connection was made for was not seen by the guest.

use bytes::Bytes;
use futures::FutureExt;
use http::{Request, Response};
use hyper::body::{Frame, Incoming as Answer};
use hyper_util::rt::TokioIo;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};
use weft_mesh::{Body, BoxError, Driven, Failure, FailureKind, Raw, WorkloadService, speak};
use weft_runtime::Network;
use weft_runtime::network::{Incoming, Outgoing, Stream, Via};

/// From where calls come, as far as a guest sees: who calls is known by identity, and may have no address.
const CALLER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// The service of the guest that listens on `port`.
pub(super) fn service(network: Network, port: u16) -> WorkloadService {
    WorkloadService::from_fn(move |request: Request<Body>| {
        let connected = network.connect(CALLER, Via::Address, port);
        async move {
            let stream = connected.map_err(|_| Failure::from(FailureKind::Unreachable))?;
            if request.extensions().get::<Raw>().is_some() {
                return Ok(Response::new(Body::new(Tunnel::new(
                    stream,
                    request.into_body(),
                ))));
            }
            speak(stream, request).await
        }
    })
}

/// The body of a raw call's answer: what the guest sends. While it is read, what the caller sends is passed on.
struct Tunnel {
    incoming: Incoming,
    /// None once the caller has sent all, or nobody reads it.
    sent: Option<(Body, Outgoing)>,
}

impl Tunnel {
    fn new(stream: Stream, sent: Body) -> Self {
        let (incoming, outgoing) = stream.split();
        Self {
            incoming,
            sent: Some((sent, outgoing)),
        }
    }

    /// Passes on what there is.
    fn poll_sent(&mut self, cx: &mut Context<'_>) {
        while let Some((body, outgoing)) = &mut self.sent {
            match outgoing.poll_ready(cx) {
                Poll::Pending => return,
                Poll::Ready(Err(_)) => {
                    self.sent = None;
                    return;
                }
                Poll::Ready(Ok(())) => {}
            }
            let polled = hyper::body::Body::poll_frame(Pin::new(body), cx);
            let has_taken = match polled {
                Poll::Pending => return,
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(bytes) => outgoing.write(bytes).is_ok(),
                    // Trailers mean nothing here.
                    Err(_) => true,
                },
                Poll::Ready(None | Some(Err(_))) => false,
            };
            if !has_taken {
                self.sent = None;
            }
        }
    }
}

impl hyper::body::Body for Tunnel {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.poll_sent(cx);
        let polled = self.incoming.poll_next(cx);
        polled.map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }
}

/// The host's end of a raw call to a component: what is said there is HTTP, and each request is handed to `answer`. What is returned is the
/// answer to the raw call.
pub(crate) fn heard<F, R>(sent: Body, context: weft_call::CallContext, answer: F) -> Response<Body>
where
    F: Fn(Request<Body>) -> R + Send + Sync + 'static,
    R: Future<Output = Result<Response<Body>, Failure>> + Send + 'static,
{
    let (here, there) = weft_runtime::network::pair(CALLER, CALLER);
    let answer = std::sync::Arc::new(answer);
    let service = hyper::service::service_fn(move |request: Request<Answer>| {
        let mut request =
            request.map(|body| Body::new(http_body_util::BodyExt::map_err(body, Into::into)));
        request.extensions_mut().insert(context.clone());
        let answered = answer(request);
        async move {
            Ok::<_, std::convert::Infallible>(answered.await.unwrap_or_else(|failure| {
                let mut response = Response::new(Body::full(format!("{failure}\n")));
                *response.status_mut() = failure.status();
                response
            }))
        }
    });
    let mut http = hyper::server::conn::http1::Builder::new();
    let served = http
        .timer(hyper_util::rt::TokioTimer::new())
        // Who has said all still hears every answer.
        .half_close(true)
        .serve_connection(TokioIo::new(there), service);
    let driven = Driven::new(served.map(drop));
    Response::new(Body::new(Heard {
        driven,
        tunnel: Tunnel::new(here, sent),
    }))
}

/// As [`Tunnel`], with somebody at its other end who has to be driven, too.
struct Heard {
    driven: Driven,
    tunnel: Tunnel,
}

impl hyper::body::Body for Heard {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.tunnel.poll_sent(cx);
        self.driven.poll(cx);
        Pin::new(&mut self.tunnel).poll_frame(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    #[tokio::test]
    async fn a_component_hears_http_on_a_raw_call() {
        let asked = Body::full(
            "GET /a HTTP/1.1\r\nhost: web\r\n\r\nGET /b HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n",
        );
        let answer = |request: Request<Body>| async move {
            Ok(Response::new(Body::full(request.uri().path().to_owned())))
        };
        let response = heard(asked, weft_call::CallContext::default(), answer);
        let said = response.into_body().collect().await.expect("a body");
        let said = String::from_utf8(said.to_bytes().to_vec()).expect("text");
        let found: Vec<&str> = said.split("\r\n\r\n").collect();
        assert_eq!(found.len(), 3, "{said}");
        assert!(found[1].starts_with("/a") && found[2] == "/b", "{said}");
    }
}
