//! The HTTP server that all subcommands share: a listener, TLS where it is asked for, a function from a request to an answer.
//!
//! Invariants: a body is read to [`BODY_BYTES_MAX`] before its handler is called; a connection that speaks no HTTP is answered 400 and
//! closed; a handler that waits for ever keeps its own connection only.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{HeaderMap, Method, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rustls_pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;

use crate::tcp::Listener;

/// The largest body that is read: an AdmissionReview is a few hundred kilobytes.
const BODY_BYTES_MAX: usize = 16 << 20;

/// A request, read whole.
pub(crate) struct Request {
    pub(crate) method: Method,
    /// As it came.
    pub(crate) path: String,
    pub(crate) query: Vec<(String, String)>,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) remote: SocketAddr,
    /// Certificates that the client has shown.
    pub(crate) shown: Vec<CertificateDer<'static>>,
}

impl Request {
    /// The first value of a parameter; empty where there is none. A form's body counts, as Go's `FormValue` has it.
    pub(crate) fn value(&self, name: &str) -> &str {
        let mut found = self.query.iter();
        let found = found.find(|(known, _)| known == name);
        found.map_or("", |(_, value)| value.as_str())
    }

    /// The first line of a header; empty where there is none.
    pub(crate) fn header(&self, name: &str) -> &str {
        let found = self.headers.get(name);
        found.and_then(|value| value.to_str().ok()).unwrap_or("")
    }
}

/// An answer.
pub(crate) type Answer = Response<Full<Bytes>>;
/// What answers.
pub(crate) type Handler = Rc<dyn Fn(Request) -> Pin<Box<dyn Future<Output = Answer>>>>;

/// A handler from an async function.
pub(crate) fn handler<F, R>(function: F) -> Handler
where
    F: Fn(Request) -> R + 'static,
    R: Future<Output = Answer> + 'static,
{
    Rc::new(move |request| Box::pin(function(request)))
}

/// 200 with a text, whose kind is guessed as Go does.
pub(crate) fn text(body: impl Into<String>) -> Answer {
    let body = body.into();
    let kind = sniffed(body.as_bytes());
    answer(StatusCode::OK, kind, body)
}

/// As Go's `http.Error`.
pub(crate) fn refused(status: StatusCode, why: impl std::fmt::Display) -> Answer {
    answer(status, "text/plain; charset=utf-8", format!("{why}\n"))
}

pub(crate) fn answer(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// The answer to what nobody serves.
pub(crate) fn not_found() -> Answer {
    refused(StatusCode::NOT_FOUND, "404 page not found")
}

/// What bytes look like.
fn sniffed(body: &[u8]) -> &'static str {
    let start = body.trim_ascii_start();
    let is_html = [&b"<!DOCTYPE HTML"[..], b"<html", b"<a", b"<pre"];
    let starts = |with: &[u8]| {
        let start = start.get(..with.len());
        start.is_some_and(|start| start.eq_ignore_ascii_case(with))
    };
    match is_html.into_iter().any(starts) {
        true => "text/html; charset=utf-8",
        false => "text/plain; charset=utf-8",
    }
}

/// Listens on every address of the machine.
///
/// # Errors
/// When the port is taken or may not be.
pub(crate) async fn listen(port: u16) -> io::Result<Listener> {
    Listener::bind(SocketAddr::from(([0, 0, 0, 0], port)))
}

/// Serves until the process ends. To be called on a `LocalSet`.
pub(crate) async fn serve(listener: Listener, tls: Option<TlsAcceptor>, handler: Handler) {
    loop {
        let (stream, remote) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                crate::log::print(format_args!("http: Accept error: {error}; retrying"));
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
                continue;
            }
        };
        let (tls, handler) = (tls.clone(), handler.clone());
        tokio::task::spawn_local(async move {
            let Some(tls) = tls else {
                return speak(stream, remote, Vec::new(), handler).await;
            };
            match tls.accept(stream).await {
                Ok(stream) => {
                    let shown = stream.get_ref().1.peer_certificates();
                    let shown = shown.unwrap_or_default();
                    let shown = shown.iter().map(|shown| shown.clone().into_owned());
                    let shown = shown.collect();
                    speak(stream, remote, shown, handler).await;
                }
                Err(error) => {
                    let said = format_args!("http: TLS handshake error from {remote}: {error}");
                    crate::log::print(said);
                }
            }
        });
    }
}

async fn speak(
    stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
    remote: SocketAddr,
    shown: Vec<CertificateDer<'static>>,
    handler: Handler,
) {
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let (handler, shown) = (handler.clone(), shown.clone());
        async move {
            let answered = match whole(request, remote, shown).await {
                Ok(request) => (handler)(request).await,
                Err(answer) => answer,
            };
            Ok::<_, Infallible>(answered)
        }
    });
    let mut http = hyper::server::conn::http1::Builder::new();
    // A connection that a client breaks off is nobody's failure.
    let _ = http
        .half_close(true)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn whole(
    request: hyper::Request<Incoming>,
    remote: SocketAddr,
    shown: Vec<CertificateDer<'static>>,
) -> Result<Request, Answer> {
    let (head, body) = request.into_parts();
    let body = Limited::new(body, BODY_BYTES_MAX).collect().await;
    let body = body
        .map_err(|error| refused(StatusCode::BAD_REQUEST, error))?
        .to_bytes();
    let mut query = pairs(head.uri.query().unwrap_or(""));
    let is_form = head.headers.get(CONTENT_TYPE).is_some_and(|kind| {
        kind.as_bytes()
            .starts_with(b"application/x-www-form-urlencoded")
    });
    if is_form {
        query.extend(pairs(&String::from_utf8_lossy(&body)));
    }
    Ok(Request {
        method: head.method,
        path: head.uri.path().to_owned(),
        query,
        headers: head.headers,
        body,
        remote,
        shown,
    })
}

/// `a=1&b=2`, unescaped.
pub(crate) fn pairs(query: &str) -> Vec<(String, String)> {
    let parts = query.split('&').filter(|part| !part.is_empty());
    parts
        .map(|part| {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            (unescaped(name, true), unescaped(value, true))
        })
        .collect()
}

/// `%20` and, in a query, `+`.
pub(crate) fn unescaped(text: &str, is_query: bool) -> String {
    let mut bytes = text.bytes();
    let mut found = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        match byte {
            b'+' if is_query => found.push(b' '),
            b'%' => {
                let mut rest = bytes.clone();
                let digits = [rest.next(), rest.next()];
                let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
                match (digit(digits[0]), digit(digits[1])) {
                    (Some(high), Some(low)) => {
                        found.push((high * 16 + low) as u8);
                        bytes = rest;
                    }
                    _ => found.push(byte),
                }
            }
            _ => found.push(byte),
        }
    }
    String::from_utf8_lossy(&found).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_read_as_forms_are() {
        for (query, expected) in [
            ("a=1&b=x%20y+z", "a=1 b=x y z"),
            ("a&b=", "a= b="),
            ("a=%zz%4", "a=%zz%4"),
            ("", ""),
            (
                "request=hostName&host=%5B%3A%3A1%5D",
                "request=hostName host=[::1]",
            ),
        ] {
            let found = pairs(query);
            let found: Vec<String> = found.iter().map(|(a, b)| format!("{a}={b}")).collect();
            assert_eq!(found.join(" "), expected, "{query}");
        }
    }
}
