//! One call in HTTP on a connection of its own: HTTP/1.1, or HTTP/2 where it is gRPC or that is asked for.
//!
//! Nothing is spawned but what HTTP/2's codec asks for, which ends with the answer.
//!
//! Invariant: a connection is used for one call and ends with it, but for one that both ends agreed to make another of (an upgrade).

use std::{
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures::FutureExt as _;
use http::{HeaderValue, Request, Response, StatusCode, Uri, header, uri::PathAndQuery};
use hyper::{
    body::{Frame, Incoming, SizeHint},
    client::conn::{http1, http2},
};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::task::TaskTracker;
use weft_call::{Failure, FailureKind};

use crate::{Body, BoxError, headers, measure};

/// Of a request whose callee speaks HTTP/2 and nothing else. An extension, which no guest and no client can set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpeaksH2;

fn failed(error: hyper::Error) -> Failure {
    let told = format!("the connection to the workload failed: {error}");
    Failure::new(FailureKind::Interrupted, told)
}

/// Makes a call in HTTP over `stream`.
///
/// # Errors
/// [`FailureKind::Interrupted`] when the other end breaks off, or speaks something else.
pub async fn speak(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    mut request: Request<Body>,
) -> Result<Response<Body>, Failure> {
    let is_h2 = request.extensions().get::<SpeaksH2>().is_some();
    if is_h2 || measure::is_grpc(request.headers()) {
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
    let response = answered.map_err(failed)?;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let told = "the workload agreed to another protocol, which nobody asked for";
        return Err(Failure::new(FailureKind::BadResponse, told));
    }
    Ok(driven.answering(response))
}

/// What came of asking for another protocol.
pub(crate) enum Upgraded {
    /// The other end agreed, and speaks it from now on.
    Agreed(Response<()>, hyper::upgrade::Upgraded),
    /// It answered, as to any call.
    Answered(Response<Body>),
}

/// Makes a call that asks for another protocol, by HTTP/1.1.
///
/// # Errors
/// As [`speak`].
pub(crate) async fn upgrade(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    mut request: Request<Body>,
) -> Result<Upgraded, Failure> {
    *request.version_mut() = http::Version::HTTP_11;
    origin_form(&mut request)?;
    let shaken = http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = shaken.map_err(failed)?;
    let mut driven = Driven::new(connection.with_upgrades().map(drop));
    let answered = driven.until(sender.send_request(request)).await;
    let mut response = answered.map_err(failed)?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Ok(Upgraded::Answered(driven.answering(response)));
    }
    if !headers::lists(response.headers(), &header::UPGRADE, "websocket") {
        let told = "the workload agreed to another protocol than was asked for";
        return Err(Failure::new(FailureKind::BadResponse, told));
    }
    let upgrading = hyper::upgrade::on(&mut response);
    let upgraded = driven.until(upgrading).await.map_err(failed)?;
    Ok(Upgraded::Agreed(response.map(drop), upgraded))
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
pub struct Driven(Option<Pin<Box<dyn Future<Output = ()> + Send>>>);

impl Driven {
    pub fn new(connection: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(Some(Box::pin(connection)))
    }

    /// Lets it go on.
    pub fn poll(&mut self, cx: &mut Context<'_>) {
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

    fn answering(self, response: Response<Incoming>) -> Response<Body> {
        response.map(|body| Body::new(Answering { driven: self, body }))
    }
}

/// The body of an answer, and the connection that it comes on.
struct Answering {
    driven: Driven,
    body: Incoming,
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

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    async fn heard_to(there: &mut (impl AsyncRead + Unpin), end: &[u8]) -> String {
        let mut heard = Vec::new();
        while !heard.ends_with(end) {
            let mut buffer = [0; 1024];
            let read = there.read(&mut buffer).await.expect("bytes");
            assert!(read > 0, "it ended early");
            heard.extend_from_slice(&buffer[..read]);
        }
        String::from_utf8(heard).expect("text")
    }

    #[tokio::test]
    async fn a_request_is_spoken_and_its_answer_read_to_the_end() {
        let (here, mut there) = tokio::io::duplex(4096);
        let request = Request::post("http://web.shop:8080/cart?x=1")
            .body(Body::full("two apples"))
            .expect("a request");
        let listening = async {
            let heard = heard_to(&mut there, b"two apples").await;
            let answer =
                b"HTTP/1.1 201 Created\r\ntransfer-encoding: chunked\r\n\r\n3\r\nok!\r\n0\r\n\r\n";
            there.write_all(answer).await.expect("it is read");
            heard
        };
        let speaking = async {
            let response = speak(here, request).await.expect("an answer");
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
    async fn who_says_nothing_and_leaves_is_an_interruption() {
        let (here, there) = tokio::io::duplex(4096);
        drop(there);
        let request = Request::get("http://web/")
            .body(Body::empty())
            .expect("a request");
        let failure = speak(here, request).await.expect_err("a failure");
        assert_eq!(failure.kind, FailureKind::Interrupted);
    }

    #[tokio::test]
    async fn what_speaks_http_2_only_hears_its_preface() {
        let (here, mut there) = tokio::io::duplex(4096);
        let mut request = Request::get("http://web/")
            .body(Body::empty())
            .expect("a request");
        request.extensions_mut().insert(SpeaksH2);
        let listening = async {
            let mut preface = [0; 24];
            there.read_exact(&mut preface).await.expect("a preface");
            preface
        };
        tokio::select! {
            _ = speak(here, request) => panic!("nobody answers"),
            heard = listening => assert_eq!(&heard, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        }
    }

    #[tokio::test]
    async fn who_agrees_to_an_upgrade_is_spoken_to_otherwise_from_then_on() {
        let (here, mut there) = tokio::io::duplex(4096);
        let request = Request::get("http://web/ws")
            .header("connection", "upgrade")
            .header("upgrade", "websocket")
            .body(Body::empty())
            .expect("a request");
        let listening = async {
            let heard = heard_to(&mut there, b"\r\n\r\n").await;
            let agreed = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nhi";
            there.write_all(agreed).await.expect("it is read");
            heard
        };
        let asking = async {
            match upgrade(here, request).await {
                Ok(Upgraded::Agreed(response, upgraded)) => {
                    let mut said = [0; 2];
                    let mut upgraded = TokioIo::new(upgraded);
                    upgraded.read_exact(&mut said).await.expect("bytes");
                    (response.status().as_u16(), said)
                }
                _ => panic!("it agreed"),
            }
        };
        let (heard, said) = tokio::join!(listening, asking);
        assert_eq!(said, (101, *b"hi"));
        assert!(heard.contains("upgrade: websocket"), "{heard}");
    }
}
