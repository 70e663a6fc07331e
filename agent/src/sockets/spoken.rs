//! What reaches a guest that listens, as the mesh sees it: a service like that of any component.
//!
//! A raw call ([`Raw`]) is a connection: its two bodies are the two directions. Any other is made in HTTP on a connection of its own:
//! HTTP/1.1, or HTTP/2 where it is gRPC, which has no other. Nothing is spawned but what HTTP/2's codec asks for, which ends with the answer.
//!
//! Invariants: a connection is used for one call and ends with it; a call that no connection was made for was not seen by the guest.

use bytes::Bytes;
use futures::FutureExt;
use http::uri::PathAndQuery;
use http::{HeaderValue, Request, Response, Uri, header};
use hyper::body::{Frame, Incoming as Answer, SizeHint};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::TokioIo;
use std::future::poll_fn;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio_util::task::TaskTracker;
use weft_mesh::{Body, BoxError, Failure, FailureKind, Raw, WorkloadService};
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
            spoken(stream, request).await
        }
    })
}

/// Makes a call in HTTP over `stream`.
pub(crate) async fn spoken(
    stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
    mut request: Request<Body>,
) -> Result<Response<Body>, Failure> {
    let failed = |error: hyper::Error| {
        let told = format!("the connection to the workload failed: {error}");
        Failure::new(FailureKind::Interrupted, told)
    };
    let is_grpc = request
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
    if is_grpc {
        *request.version_mut() = http::Version::HTTP_2;
        let tasks = TaskTracker::new();
        let shaken = http2::handshake(Tasks(tasks), TokioIo::new(stream)).await;
        let (mut sender, connection) = shaken.map_err(failed)?;
        let mut driven = Driven::new(connection.map(drop));
        let answered = driven.until(sender.send_request(request)).await;
        return Ok(driven.answering(answered.map_err(failed)?));
    }
    *request.version_mut() = http::Version::HTTP_11;
    origin_form(&mut request)?;
    let shaken = http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = shaken.map_err(failed)?;
    let mut driven = Driven::new(connection.map(drop));
    let answered = driven.until(sender.send_request(request)).await;
    Ok(driven.answering(answered.map_err(failed)?))
}

/// HTTP/1.1 names the host in a line and the path in the first.
fn origin_form(request: &mut Request<Body>) -> Result<(), Failure> {
    let uri = request.uri();
    let host = uri
        .authority()
        .map(|authority| authority.as_str().to_owned());
    let path = uri.path_and_query().cloned();
    *request.uri_mut() = Uri::from(path.unwrap_or(PathAndQuery::from_static("/")));
    if let Some(host) = host
        && !request.headers().contains_key(header::HOST)
    {
        let bad = |_| Failure::new(FailureKind::BadRequest, "its host is not valid");
        let host = HeaderValue::from_str(&host).map_err(bad)?;
        request.headers_mut().insert(header::HOST, host);
    }
    Ok(())
}

/// Where HTTP/2's codec spawns what it needs; it ends with the connection.
#[derive(Clone)]
struct Tasks(TaskTracker);

impl<F> hyper::rt::Executor<F> for Tasks
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, work: F) {
        self.0.spawn(work);
    }
}

/// A connection's codec, which makes progress while what it carries is waited for.
struct Driven(Option<Pin<Box<dyn Future<Output = ()> + Send>>>);

impl Driven {
    fn new(connection: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(Some(Box::pin(connection)))
    }

    fn poll(&mut self, cx: &mut Context<'_>) {
        if let Some(connection) = &mut self.0
            && connection.as_mut().poll(cx).is_ready()
        {
            self.0 = None;
        }
    }

    async fn until<T>(&mut self, waited: impl Future<Output = T>) -> T {
        let mut waited = std::pin::pin!(waited);
        poll_fn(|cx| {
            self.poll(cx);
            waited.as_mut().poll(cx)
        })
        .await
    }

    fn answering(self, response: Response<Answer>) -> Response<Body> {
        response.map(|body| Body::new(Answering { driven: self, body }))
    }
}

/// The body of an answer, and the connection that it comes on.
struct Answering {
    driven: Driven,
    body: Answer,
}

impl hyper::body::Body for Answering {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.driven.poll(cx);
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        polled.map(|frame| frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
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
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    fn ends() -> (Stream, Stream) {
        weft_runtime::network::pair(CALLER, CALLER)
    }

    #[tokio::test]
    async fn a_request_is_spoken_and_its_answer_read_to_the_end() {
        let (here, mut there) = ends();
        let request = Request::post("http://web.shop:8080/cart?x=1")
            .body(Body::full("two apples"))
            .expect("a request");
        let listening = async {
            let mut heard = Vec::new();
            while !heard.ends_with(b"two apples") {
                let mut buffer = [0; 1024];
                let read = there.read(&mut buffer).await.expect("bytes");
                assert!(read > 0, "it ended early");
                heard.extend_from_slice(&buffer[..read]);
            }
            let answer =
                b"HTTP/1.1 201 Created\r\ntransfer-encoding: chunked\r\n\r\n3\r\nok!\r\n0\r\n\r\n";
            there.write_all(answer).await.expect("it is read");
            String::from_utf8(heard).expect("text")
        };
        let speaking = async {
            let response = spoken(here, request).await.expect("an answer");
            let status = response.status();
            let body = response.into_body().collect().await.expect("a body");
            (status.as_u16(), body.to_bytes())
        };
        let (heard, answered) = tokio::join!(listening, speaking);
        assert_eq!(answered, (201, Bytes::from_static(b"ok!")));
        assert!(heard.starts_with("POST /cart?x=1 HTTP/1.1\r\n"), "{heard}");
        assert!(heard.contains("\r\nhost: web.shop:8080\r\n"), "{heard}");
    }

    #[tokio::test]
    async fn a_guest_that_says_nothing_and_leaves_is_an_interruption() {
        let (here, there) = ends();
        drop(there);
        let request = Request::get("http://web/")
            .body(Body::empty())
            .expect("a request");
        let failure = spoken(here, request).await.expect_err("a failure");
        assert_eq!(failure.kind, FailureKind::Interrupted);
    }

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
