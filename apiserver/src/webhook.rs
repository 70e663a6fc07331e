//! Calls from the API server to webhooks: one JSON document there, one back, over HTTPS, in a bounded time.
//!
//! Admission and the conversion of custom objects ask the same way. Where a webhook is says its configuration ([`Target`]): a URL, or a
//! Service, whose endpoints [`endpoint`] finds in the state. Its certificate is checked against the configured bundle, and otherwise
//! against what the machine trusts, for the URL's host or for `NAME.NAMESPACE.svc`. A component that is one is reached through its node
//! (`crate::reach`), whose certificate is checked in the place of its own.
//!
//! Invariants: the time holds from the first wait to the last byte; an answer is bounded in bytes, and so are the calls to one webhook at
//! a time, so that one that hangs keeps nobody from another; connections are used again, and few are kept; no redirect is followed, no
//! credential is sent.
//! Left to others: what is asked and what the answer means (`weft_kinds::admission::webhook`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use parking_lot::Mutex;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;
use tokio_rustls::TlsConnector;
use weft_kinds::admission::webhook::{At, Target};

use crate::reach::tls::{self, Trust};
use crate::reach::{Line, Reach, State, Tls, Unanswered, Way};

/// Bytes of an answer: a patch of the largest object, as text in text.
const ANSWER_BYTES_MAX: usize = 16 << 20;
/// Calls to one webhook at a time; further ones wait, in the time that they have.
const CALLS_MAX: usize = 64;
/// Connections to one webhook that are kept.
const IDLE_MAX: usize = 8;
/// How long one is kept that nobody uses.
const IDLE_TIME: Duration = Duration::from_secs(30);
/// Webhooks that are remembered.
const PEERS_MAX: usize = 256;

/// Why a webhook gave no answer, in the words of Kubernetes' client.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    #[error("could not get REST client: {0}")]
    Configuration(String),
    #[error("failed to call webhook: Post {url:?}: {why}")]
    Call { url: String, why: String },
    #[error("failed to call webhook: {0}")]
    Answer(String),
}

impl WebhookError {
    /// The same without the words that name a call of admission: what the call itself came to.
    pub fn cause(&self) -> String {
        match self {
            Self::Configuration(why) | Self::Answer(why) => why.clone(),
            Self::Call { url, why } => format!("Post {url:?}: {why}"),
        }
    }
}

/// Where a call goes, once it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    way: Way,
    /// The name that the certificate must have.
    server_name: String,
    /// What is said in `Host`, and told in errors.
    host: String,
    path: String,
    ca_bundle: Option<Vec<u8>>,
}

impl Endpoint {
    /// # Errors
    /// For what is no `https` URL with a host.
    pub(crate) fn of_url(url: &str, ca_bundle: Option<Vec<u8>>) -> Result<Self, String> {
        let uri: Result<http::Uri, _> = url.parse();
        let uri = uri.map_err(|error| format!("parse {url:?}: {error}"))?;
        let host = uri.host().unwrap_or("");
        if uri.scheme_str() != Some("https") || host.is_empty() {
            return Err(format!("parse {url:?}: it is not https://host[/path]"));
        }
        let port = uri.port_u16().unwrap_or(443);
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        Ok(Self {
            way: Way::Address(format!("{host}:{port}")),
            server_name: bare.to_owned(),
            host: uri
                .authority()
                .map_or_else(String::new, ToString::to_string),
            path: uri.path().to_owned(),
            ca_bundle,
        })
    }
}

/// A document from elsewhere, on a connection of its own.
///
/// # Errors
/// Why it could not be had in time.
pub(crate) async fn fetch(endpoint: &Endpoint, timeout: Duration) -> Result<Bytes, String> {
    let answered = once(
        endpoint,
        Request::get(&endpoint.path),
        Body::empty(),
        timeout,
    )
    .await?;
    match answered {
        (StatusCode::OK, bytes) => Ok(bytes),
        (status, _) => Err(format!("{status}")),
    }
}

/// Sends a form elsewhere, on a connection of its own, and gives what comes back.
///
/// # Errors
/// Why nothing came in time.
pub(crate) async fn post_form(
    endpoint: &Endpoint,
    form: String,
    timeout: Duration,
) -> Result<(StatusCode, Bytes), String> {
    let media_type = HeaderValue::from_static("application/x-www-form-urlencoded");
    let request = Request::post(&endpoint.path).header(header::CONTENT_TYPE, media_type);
    once(endpoint, request, Body::from(form), timeout).await
}

async fn once(
    endpoint: &Endpoint,
    request: http::request::Builder,
    body: Body,
    timeout: Duration,
) -> Result<(StatusCode, Bytes), String> {
    let exchange = async {
        let bundle = endpoint.ca_bundle.as_deref();
        let config = tls::client_config(bundle.map_or(Trust::Machine, Trust::Bundle), None)?;
        let tls = Tls {
            connector: &TlsConnector::from(config),
            server_name: &endpoint.server_name,
        };
        // A URL is an address: no node has to be asked.
        let mut line = Reach::new(None).open(&endpoint.way, Some(tls)).await?;
        let request = request
            .header(header::HOST, &endpoint.host)
            .header(header::ACCEPT, HeaderValue::from_static("application/json"))
            .body(body)
            .map_err(|error| error.to_string())?;
        let answered = answer(&mut line, request).await;
        answered.map_err(|unanswered| unanswered.why())
    };
    let answered = tokio::time::timeout(timeout, exchange).await;
    answered.unwrap_or_else(|_| Err("context deadline exceeded".to_owned()))
}

/// Whom a connection is to: connections are shared by those who would trust the same.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Peer {
    way: String,
    server_name: String,
    trust: [u8; 32],
}

struct Known {
    places: Arc<Semaphore>,
    tls: TlsConnector,
    idle: Vec<(Instant, Line)>,
    used: Instant,
}

/// The client. Cheap to clone; clones share everything.
#[derive(Clone)]
pub struct WebhookClient {
    reach: Reach,
    peers: Arc<Mutex<BTreeMap<Peer, Known>>>,
}

impl WebhookClient {
    pub(crate) fn new(reach: Reach) -> Self {
        Self {
            reach,
            peers: Arc::default(),
        }
    }

    /// Sends `body` and gives what came back, which may be anything that is JSON.
    ///
    /// # Errors
    /// [`WebhookError`] for whatever is not an answer with status 200 within `timeout`.
    pub async fn call(
        &self,
        endpoint: &Endpoint,
        body: &Value,
        timeout: Duration,
    ) -> Result<Value, WebhookError> {
        let seconds = timeout.as_secs().max(1);
        let url = format!(
            "https://{}{}?timeout={seconds}s",
            endpoint.host, endpoint.path
        );
        let failed = |why: String| WebhookError::Call {
            url: url.clone(),
            why,
        };
        let bytes = Bytes::from(body.to_string());
        let exchange = self.exchange(endpoint, bytes, seconds);
        let (status, bytes) = tokio::time::timeout(timeout, exchange)
            .await
            .map_err(|_| failed("context deadline exceeded".to_owned()))?
            .map_err(|error| match error {
                Failure::Configuration(why) => WebhookError::Configuration(why),
                Failure::Call(why) => failed(why),
            })?;
        if status != StatusCode::OK {
            return Err(WebhookError::Answer(refused(status, &bytes)));
        }
        // What nests deeper than objects may is none.
        serde_json::from_slice(&bytes).map_err(|error| {
            WebhookError::Answer(format!(
                "couldn't get version/kind; json parse error: {error}"
            ))
        })
    }

    async fn exchange(
        &self,
        endpoint: &Endpoint,
        body: Bytes,
        seconds: u64,
    ) -> Result<(StatusCode, Bytes), Failure> {
        let trust = endpoint.ca_bundle.as_deref().unwrap_or_default();
        let peer = Peer {
            way: endpoint.way.key(),
            server_name: endpoint.server_name.clone(),
            trust: Sha256::digest(trust).into(),
        };
        let (places, tls) = self.known(&peer, endpoint)?;
        let _place = places.acquire_owned().await;
        let request = || {
            Request::post(format!("{}?timeout={seconds}s", endpoint.path))
                .header(header::HOST, &endpoint.host)
                .header(
                    header::CONTENT_TYPE,
                    HeaderValue::from_static("application/json"),
                )
                .header(
                    header::ACCEPT,
                    HeaderValue::from_static("application/json, */*"),
                )
                .header(
                    header::USER_AGENT,
                    HeaderValue::from_static("kube-apiserver-admission"),
                )
                .body(Body::from(body.clone()))
                .map_err(|error| Failure::Configuration(error.to_string()))
        };
        // One that was kept may have been closed at the other end meanwhile: then there is a new one.
        while let Some(mut kept) = self.take(&peer) {
            if !kept.is_ready().await {
                continue;
            }
            match answer(&mut kept, request()?).await {
                Ok(found) => {
                    self.keep(&peer, kept);
                    return Ok(found);
                }
                Err(Unanswered::Lost(_)) => break,
                Err(Unanswered::Failed(why)) => return Err(Failure::Call(why)),
            }
        }
        let tls = Tls {
            connector: &tls,
            server_name: &endpoint.server_name,
        };
        let opened = self.reach.open(&endpoint.way, Some(tls)).await;
        let mut line = opened.map_err(Failure::Call)?;
        match answer(&mut line, request()?).await {
            Ok(found) => {
                self.keep(&peer, line);
                Ok(found)
            }
            Err(unanswered) => Err(Failure::Call(unanswered.why())),
        }
    }

    /// The places for calls to a peer, and how it is met.
    fn known(
        &self,
        peer: &Peer,
        endpoint: &Endpoint,
    ) -> Result<(Arc<Semaphore>, TlsConnector), Failure> {
        let now = Instant::now();
        let mut peers = self.peers.lock();
        if let Some(known) = peers.get_mut(peer) {
            known.used = now;
            return Ok((Arc::clone(&known.places), known.tls.clone()));
        }
        if peers.len() >= PEERS_MAX
            && let Some(oldest) = peers
                .iter()
                .min_by_key(|(_, known)| known.used)
                .map(|(peer, _)| peer.clone())
        {
            peers.remove(&oldest);
        }
        let bundle = endpoint.ca_bundle.as_deref();
        let trust = bundle.map_or(Trust::Machine, Trust::Bundle);
        let config = tls::client_config(trust, None).map_err(Failure::Configuration)?;
        let known = Known {
            places: Arc::new(Semaphore::new(CALLS_MAX)),
            tls: TlsConnector::from(config),
            idle: Vec::new(),
            used: now,
        };
        let found = (Arc::clone(&known.places), known.tls.clone());
        peers.insert(peer.clone(), known);
        Ok(found)
    }

    fn take(&self, peer: &Peer) -> Option<Line> {
        let mut peers = self.peers.lock();
        let known = peers.get_mut(peer)?;
        known
            .idle
            .retain(|(since, line)| since.elapsed() < IDLE_TIME && !line.is_closed());
        known.idle.pop().map(|(_, line)| line)
    }

    fn keep(&self, peer: &Peer, line: Line) {
        let mut peers = self.peers.lock();
        if let Some(known) = peers.get_mut(peer)
            && known.idle.len() < IDLE_MAX
            && !line.is_closed()
        {
            known.idle.push((Instant::now(), line));
        }
    }
}

enum Failure {
    Configuration(String),
    Call(String),
}

async fn answer(
    line: &mut Line,
    request: Request<Body>,
) -> Result<(StatusCode, Bytes), Unanswered> {
    let response = line.send(request).await?;
    let status = response.status();
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX);
    let bytes = body.collect().await.map_err(|error| {
        Unanswered::Failed(match error.is::<LengthLimitError>() {
            true => format!("the answer is larger than {ANSWER_BYTES_MAX} bytes"),
            false => format!("unexpected end of the answer: {error}"),
        })
    })?;
    Ok((status, bytes.to_bytes()))
}

/// What an answer with another status than 200 says, as client-go reads it.
fn refused(status: StatusCode, body: &[u8]) -> String {
    const SHOWN_BYTES_MAX: usize = 2048;
    let shown = body.get(..SHOWN_BYTES_MAX).unwrap_or(body);
    let shown = String::from_utf8_lossy(shown);
    let shown = shown.trim();
    match status.as_u16() {
        400 => "the server rejected our request for an unknown reason".to_owned(),
        401 => "the server has asked for the client to provide credentials".to_owned(),
        403 | 406 | 415 if !shown.is_empty() => shown.to_owned(),
        403 | 415 => "unknown".to_owned(),
        404 => "the server could not find the requested resource".to_owned(),
        405 => "the server does not allow this method on the requested resource".to_owned(),
        406 => "the server was unable to respond with a content type that the client supports"
            .to_owned(),
        409 => "the server reported a conflict".to_owned(),
        422 => "the server rejected our request due to an error in our request".to_owned(),
        429 => "the server has received too many requests and has asked us to try again later"
            .to_owned(),
        503 => "the server is currently unable to handle the request".to_owned(),
        504 => "the server was unable to return a response in the time allotted, but may still be processing the request".to_owned(),
        500..=599 => format!(
            "an error on the server ({:?}) has prevented the request from succeeding",
            if shown.is_empty() { "unknown" } else { shown }
        ),
        code => format!(
            "the server responded with the status code {code} but did not return more information"
        ),
    }
}

/// Where a target is in a state of the cluster. Of the endpoints of a Service, `pick` chooses one.
///
/// # Errors
/// Why it is nowhere.
pub(crate) fn endpoint(
    state: State<'_>,
    target: &Target,
    pick: usize,
) -> Result<Endpoint, WebhookError> {
    let unfit = WebhookError::Configuration;
    let ca_bundle = target.ca_bundle.clone();
    match &target.at {
        At::Url(url) => Endpoint::of_url(url, ca_bundle).map_err(unfit),
        At::Service {
            namespace,
            name,
            port,
            path,
        } => {
            let way = state.service(namespace, name, *port, pick).map_err(unfit)?;
            let server_name = format!("{name}.{namespace}.svc");
            Ok(Endpoint {
                way,
                host: format!("{server_name}:{port}"),
                server_name,
                path: match path.as_str() {
                    "" => "/".to_owned(),
                    path if path.starts_with('/') => path.to_owned(),
                    path => format!("/{path}"),
                },
                ca_bundle,
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_told_as_clients_tell_them() {
        assert_eq!(
            refused(StatusCode::INTERNAL_SERVER_ERROR, b"oops\n"),
            "an error on the server (\"oops\") has prevented the request from succeeding"
        );
        assert_eq!(
            refused(StatusCode::FOUND, b""),
            "the server responded with the status code 302 but did not return more information"
        );
    }
}
