//! The HTTP client: one request on a connection of its own.
//!
//! Invariants: an answer's body is read to [`BODY_BYTES_MAX`]; everything ends by the time that is given.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::HOST;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

use crate::tcp::Stream;

/// The largest answer that is read.
const BODY_BYTES_MAX: usize = 16 << 20;

/// Where a URL leads.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Url {
    pub(crate) is_tls: bool,
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) target: String,
}

impl Url {
    /// None where the text is no URL of HTTP.
    pub(crate) fn of(text: &str) -> Option<Url> {
        let (is_tls, rest) = match text.strip_prefix("https://") {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix("http://")?),
        };
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at(end);
        let (host, port) = split(authority);
        let port = match port {
            Some(port) => port.parse().ok()?,
            None if is_tls => 443,
            None => 80,
        };
        let target = match target.strip_prefix('/') {
            Some(_) => target.to_owned(),
            None => format!("/{target}"),
        };
        (!host.is_empty()).then(|| Url {
            is_tls,
            host: host.to_owned(),
            port,
            target,
        })
    }

    /// `HOST:PORT`.
    pub(crate) fn authority(&self) -> String {
        join(&self.host, &self.port.to_string())
    }
}

/// Host and port of `HOST:PORT`, `[IPV6]:PORT` and each without a port.
pub(crate) fn split(authority: &str) -> (&str, Option<&str>) {
    if let Some(rest) = authority.strip_prefix('[')
        && let Some((host, after)) = rest.split_once(']')
    {
        return (host, after.strip_prefix(':'));
    }
    match authority.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') => (host, Some(port)),
        _ => (authority, None),
    }
}

/// As Go's `net.JoinHostPort`.
pub(crate) fn join(host: &str, port: &str) -> String {
    match host.contains(':') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    }
}

/// The addresses of `HOST:PORT`.
///
/// # Errors
/// In Go's words.
pub(crate) fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
    crate::resolver::addresses(host, port)
}

/// A request, and what comes of it.
///
/// # Errors
/// In Go's words, as far as it has some.
pub(crate) async fn send(
    url: &str,
    request: Request<Full<Bytes>>,
    tls: Option<Arc<ClientConfig>>,
    within: Duration,
) -> Result<Response<Bytes>, String> {
    let url = Url::of(url).ok_or_else(|| format!("unsupported protocol scheme in {url:?}"))?;
    let sending = exchange(&url, request, tls);
    let sent = tokio::time::timeout(within, sending).await;
    sent.unwrap_or_else(|_| {
        Err("context deadline exceeded (Client.Timeout exceeded while awaiting headers)".to_owned())
    })
}

async fn exchange(
    url: &Url,
    mut request: Request<Full<Bytes>>,
    tls: Option<Arc<ClientConfig>>,
) -> Result<Response<Bytes>, String> {
    *request.uri_mut() = url.target.parse().map_err(|error| format!("{error}"))?;
    if !request.headers().contains_key(HOST) {
        let host = url
            .authority()
            .parse()
            .map_err(|error| format!("{error}"))?;
        request.headers_mut().insert(HOST, host);
    }
    let stream = dial(&url.host, url.port).await?;
    match (url.is_tls, tls) {
        (false, _) => over(stream, request).await,
        (true, None) => Err("tls: no configuration".to_owned()),
        (true, Some(tls)) => {
            let name = ServerName::try_from(url.host.clone());
            let name = name.map_err(|error| error.to_string())?;
            let stream = TlsConnector::from(tls).connect(name, stream).await;
            let stream =
                stream.map_err(|error| format!("tls: failed to verify certificate: {error}"))?;
            over(stream, request).await
        }
    }
}

/// A connection to the first address that takes one.
///
/// # Errors
/// In Go's words.
pub(crate) async fn dial(host: &str, port: u16) -> Result<Stream, String> {
    let mut last = format!("dial tcp: lookup {host}: no such host");
    for address in resolve(host, port)? {
        match Stream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => {
                let why = match error.kind() {
                    std::io::ErrorKind::ConnectionRefused => "connect: connection refused".into(),
                    _ => error.to_string(),
                };
                last = format!("dial tcp {address}: {why}");
            }
        }
    }
    Err(last)
}

async fn over(
    stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
    request: Request<Full<Bytes>>,
) -> Result<Response<Bytes>, String> {
    let said = |error: hyper::Error| match error.is_incomplete_message() {
        true => "EOF".to_owned(),
        false => error.to_string(),
    };
    let shaken = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = shaken.map_err(said)?;
    let answering = async {
        let response = sender.send_request(request).await.map_err(said)?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, BODY_BYTES_MAX).collect().await;
        let body = body.map_err(|error| error.to_string())?.to_bytes();
        Ok(Response::from_parts(head, body))
    };
    let connection = async {
        // What fails is seen by who waits for the answer.
        let _ = connection.await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        biased;
        answered = answering => answered,
        () = connection => Err("EOF".to_owned()),
    }
}

/// A GET without anything to it, and the text that comes back, whatever its status.
///
/// # Errors
/// As [`send`], after Go's `Get "URL": `.
pub(crate) async fn get(url: &str, within: Duration) -> Result<String, String> {
    let request = Request::new(Full::default());
    let sent = send(url, request, None, within).await;
    let response = sent.map_err(|why| format!("Get {url:?}: {why}"))?;
    Ok(String::from_utf8_lossy(response.body()).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_leads_somewhere() {
        for (text, expected) in [
            ("http://web", Some((false, "web", 80, "/"))),
            (
                "http://web:8080/a?b=c",
                Some((false, "web", 8080, "/a?b=c")),
            ),
            ("https://[::1]/x", Some((true, "::1", 443, "/x"))),
            ("http://web?x", Some((false, "web", 80, "/?x"))),
            ("ftp://web", None),
            ("http://:80", None),
            ("http://web:x", None),
        ] {
            let found = Url::of(text);
            let found = found
                .as_ref()
                .map(|url| (url.is_tls, url.host.as_str(), url.port, url.target.as_str()));
            assert_eq!(found, expected, "{text}");
        }
    }
}
