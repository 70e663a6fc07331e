//! HTTP for `curl` and `wget`.
//!
//! In a component every request, of `http` too, goes through `wasi:http/outgoing-handler`: the host resolves names, opens
//! connections, verifies TLS and applies the rules of the pod's mesh. Natively there is a plain HTTP/1.1 client without TLS, for tests.
//! Bodies come in pieces.

#[cfg(not(target_os = "wasi"))]
mod native;
pub mod url;
#[cfg(target_os = "wasi")]
mod wasi;

use std::time::Duration;

#[cfg(not(target_os = "wasi"))]
use native as backend;
pub use url::{Url, UrlError};
#[cfg(target_os = "wasi")]
use wasi as backend;

use super::call::Call;

pub struct Request {
    pub method: String,
    pub url: Url,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub connect_timeout: Option<Duration>,
}

pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    body: backend::Body,
}

/// Why there is no response, or not all of it.
#[derive(Debug)]
#[cfg_attr(
    not(target_os = "wasi"),
    expect(dead_code, reason = "some are only a component's host's")
)]
pub enum Failure {
    /// The name of the host is unknown.
    Name,
    Connect(String),
    Timeout,
    Tls(String),
    /// The host does not let this through.
    Denied(String),
    /// The connection ended before the answer did, or without one.
    Ended {
        empty: bool,
    },
    /// A header that only the host sets.
    Header(String),
    Other(String),
}

/// Sends a request and waits for the head of the answer.
pub async fn send(call: &Call, request: Request) -> Result<Response, Failure> {
    backend::send(call, request).await
}

impl Response {
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self
            .headers
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// The next piece of the body; `None` at its end.
    pub async fn chunk(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        self.body.chunk().await
    }

    /// The status line and the headers as they are printed.
    pub fn head(&self) -> String {
        let mut head = format!("HTTP/1.1 {} {}\r\n", self.status, status_text(self.status));
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        head + "\r\n"
    }
}

pub fn status_text(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        101 => "Switching Protocols",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        206 => "Partial Content",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Payload Too Large",
        415 => "Unsupported Media Type",
        422 => "Unprocessable Entity",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "",
    }
}

/// Where a status and a `Location` lead, if they lead on.
pub fn redirect(response: &Response, from: &Url) -> Option<Result<Url, UrlError>> {
    if !matches!(response.status, 301 | 302 | 303 | 307 | 308) {
        return None;
    }
    response
        .header("location")
        .map(|location| from.join(location))
}
