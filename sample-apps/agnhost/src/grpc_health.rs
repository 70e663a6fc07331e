//! `grpc-health-checking`: answers health checks of gRPC, and serves a switch over HTTP.
//!
//! One method, three fields: the frames of `grpc.health.v1` are read and written here.

use std::cell::Cell;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::{Body, Frame, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::TokioIo;

use crate::flags::{Flags, Known};
use crate::server::{not_found, text};
use crate::{Code, log, server, tls};

const FLAGS: [Known; 6] = [
    ("port", None, "5000"),
    ("http-port", None, "8080"),
    ("delay-unhealthy-sec", None, "-1"),
    ("service", None, ""),
    ("tls-cert-file", None, ""),
    ("tls-private-key-file", None, ""),
];
const MESSAGE_BYTES_MAX: usize = 4 << 10;
const SERVING: u8 = 1;
const NOT_SERVING: u8 = 2;
/// Of gRPC.
const NOT_FOUND: u8 = 5;
const UNIMPLEMENTED: u8 = 12;

struct State {
    started: Instant,
    /// From when on it is unwell.
    unwell_after: Option<Duration>,
    service: String,
    forced: Cell<Option<bool>>,
}

pub(crate) async fn run(arguments: &[String]) -> Result<Code, String> {
    let flags = Flags::read(&FLAGS, arguments)?;
    let (port, http_port) = (
        flags.port("port")?.unwrap_or(5000),
        flags.port("http-port")?.unwrap_or(8080),
    );
    let delay = u64::try_from(flags.number("delay-unhealthy-sec")?).ok();
    let (certificate, key) = (
        flags.text("tls-cert-file"),
        flags.text("tls-private-key-file"),
    );
    if certificate.is_empty() != key.is_empty() {
        return Err("Both --tls-cert-file and --tls-private-key-file must be set".to_owned());
    }
    let acceptor = match certificate.is_empty() {
        true => None,
        false => Some(tls::acceptor(certificate, key)?),
    };
    let state = Rc::new(State {
        started: Instant::now(),
        unwell_after: delay.map(Duration::from_secs),
        service: flags.text("service").to_owned(),
        forced: Cell::new(None),
    });
    log::print(format_args!(
        "Http server starting to listen on :{http_port}"
    ));
    let listener = server::listen(http_port)
        .await
        .map_err(|error| error.to_string())?;
    let switched = state.clone();
    let handler = server::handler(move |request| {
        let state = switched.clone();
        async move {
            let is_well = match request.path.as_str() {
                "/make-serving" => true,
                "/make-not-serving" => false,
                _ => return not_found(),
            };
            let word = if is_well { "healthy" } else { "unhealthy" };
            log::print(format_args!("Mark as {word}"));
            state.forced.set(Some(is_well));
            text(format!("{:?}", state.started.elapsed()))
        }
    });
    tokio::task::spawn_local(server::serve(listener, None, handler));
    let listener = server::listen(port)
        .await
        .map_err(|error| format!("Error while starting the listening service {error}"))?;
    log::print(format_args!("gRPC server starting to listen on :{port}"));
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        let (state, acceptor) = (state.clone(), acceptor.clone());
        tokio::task::spawn_local(async move {
            match acceptor {
                None => speak(stream, state).await,
                Some(acceptor) => {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        speak(stream, state).await;
                    }
                }
            }
        });
    }
}

/// Where HTTP/2 puts what it does on the side: this thread.
#[derive(Clone)]
struct Here;

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for Here {
    fn execute(&self, work: F) {
        tokio::task::spawn_local(work);
    }
}

async fn speak(
    stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + 'static,
    state: Rc<State>,
) {
    let service = service_fn(move |request: Request<Incoming>| {
        let state = state.clone();
        async move {
            let path = request.uri().path().to_owned();
            let body = Limited::new(request.into_body(), MESSAGE_BYTES_MAX)
                .collect()
                .await;
            let asked = body.map(|body| body.to_bytes()).unwrap_or_default();
            Ok::<_, Infallible>(answered(&state, &path, &asked))
        }
    });
    let http = hyper::server::conn::http2::Builder::new(Here);
    // Whoever breaks off is not waited for.
    let _ = http.serve_connection(TokioIo::new(stream), service).await;
}

fn answered(state: &State, path: &str, asked: &[u8]) -> Response<Reply> {
    let lived = state.started.elapsed();
    let (code, message) = match path {
        "/grpc.health.v1.Health/Check" => {
            log::print("Serving the Check request for health check");
            check(state, lived, asked)
        }
        _ => (UNIMPLEMENTED, None),
    };
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from(u16::from(code)));
    let told = match code {
        NOT_FOUND => Some("unknown service"),
        UNIMPLEMENTED => Some("unimplemented"),
        _ => None,
    };
    if let Some(told) = told {
        trailers.insert("grpc-message", HeaderValue::from_static(told));
    }
    let mut response = Response::new(Reply {
        message: message.map(Bytes::from),
        trailers: Some(trailers),
    });
    let kind = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

fn check(state: &State, lived: Duration, asked: &[u8]) -> (u8, Option<Vec<u8>>) {
    if asked_for(asked) != state.service.as_bytes() {
        return (NOT_FOUND, None);
    }
    let is_late = state.unwell_after.is_some_and(|after| lived >= after);
    // As upstream has it: a switch to "serving" does not undo the delay.
    let is_unwell = state.forced.get() == Some(false) || is_late;
    let status = if is_unwell { NOT_SERVING } else { SERVING };
    (0, Some(vec![0, 0, 0, 0, 2, 0x08, status]))
}

/// The service of a `HealthCheckRequest` in its frame; empty where it names none.
fn asked_for(frame: &[u8]) -> &[u8] {
    match frame.get(5..) {
        Some([0x0a, length, rest @ ..]) => rest.get(..usize::from(*length)).unwrap_or_default(),
        _ => &[],
    }
}

/// A message and its trailers.
struct Reply {
    message: Option<Bytes>,
    trailers: Option<HeaderMap>,
}

impl Body for Reply {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(message) = self.message.take() {
            return Poll::Ready(Some(Ok(Frame::data(message))));
        }
        let trailers = self.trailers.take();
        Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health_is_a_matter_of_time_and_of_the_switch() {
        let frame = |service: &[u8]| {
            let mut frame = vec![
                0,
                0,
                0,
                0,
                service.len() as u8 + 2,
                0x0a,
                service.len() as u8,
            ];
            frame.extend_from_slice(service);
            frame
        };
        for (after, forced, seconds, service, expected) in [
            (None, None, 100, &b"x"[..], Ok(SERVING)),
            (Some(10), None, 5, b"x", Ok(SERVING)),
            (Some(10), None, 10, b"x", Ok(NOT_SERVING)),
            (None, Some(false), 0, b"x", Ok(NOT_SERVING)),
            (None, Some(true), 0, b"x", Ok(SERVING)),
            (None, None, 0, b"y", Err(NOT_FOUND)),
        ] {
            let state = State {
                started: Instant::now(),
                unwell_after: after.map(Duration::from_secs),
                service: "x".to_owned(),
                forced: Cell::new(forced),
            };
            let found = check(&state, Duration::from_secs(seconds), &frame(service));
            let found = match found {
                (0, Some(message)) => Ok(message[6]),
                (code, _) => Err(code),
            };
            assert_eq!(found, expected, "{after:?} {forced:?} {seconds}");
        }
    }
}
