//! Calls from the API server to webhooks: one JSON document there, one back, over HTTPS, in a bounded time.
//!
//! Admission and the conversion of custom objects ask the same way. Where a webhook is says its configuration ([`Target`]): a URL, or a
//! Service, whose endpoints [`endpoint`] finds in the state. Its certificate is checked against the configured bundle, and otherwise
//! against what the machine trusts, for the URL's host or for `NAME.NAMESPACE.svc`.
//!
//! Invariants: the time holds from the first wait to the last byte; an answer is bounded in bytes, and so are the calls to one webhook at
//! a time, so that one that hangs keeps nobody from another; connections are used again, and few are kept; no redirect is followed, no
//! credential is sent.
//! Left to others: what is asked and what the answer means (`weft_kinds::admission::webhook`).

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use rustls_platform_verifier::Verifier;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_rustls::TlsConnector;
use weft_kinds::admission::webhook::{At, Target};
use weft_kinds::lens::{items, text};
use weft_kinds::{ENDPOINT_SLICE, SERVICE};
use weft_store::Snapshot;

use crate::encryption::Vault;
use crate::stored::{self, Stored};

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

/// Where a call goes, once it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// `HOST:PORT` to connect to.
    address: String,
    /// The name that the certificate must have.
    server_name: String,
    /// What is said in `Host`, and told in errors.
    host: String,
    path: String,
    ca_bundle: Option<Vec<u8>>,
}

/// Whom a connection is to: connections are shared by those who would trust the same.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Peer {
    address: String,
    server_name: String,
    trust: [u8; 32],
}

struct Known {
    places: Arc<Semaphore>,
    tls: TlsConnector,
    idle: Vec<(Instant, SendRequest<Full<Bytes>>)>,
    used: Instant,
}

/// The client. Cheap to clone; clones share everything.
#[derive(Clone, Default)]
pub struct WebhookClient {
    peers: Arc<Mutex<BTreeMap<Peer, Known>>>,
}

impl WebhookClient {
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
            address: endpoint.address.clone(),
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
                .body(Full::new(body.clone()))
                .map_err(|error| Failure::Configuration(error.to_string()))
        };
        // One that was kept may have been closed at the other end meanwhile: then there is a new one.
        while let Some(mut kept) = self.take(&peer) {
            if kept.ready().await.is_err() {
                continue;
            }
            match answer(&mut kept, request()?).await {
                Ok(found) => {
                    self.keep(&peer, kept);
                    return Ok(found);
                }
                Err(Exchange::Lost(_)) => break,
                Err(Exchange::Failed(why)) => return Err(Failure::Call(why)),
            }
        }
        let mut sender = connect(endpoint, &tls).await?;
        match answer(&mut sender, request()?).await {
            Ok(found) => {
                self.keep(&peer, sender);
                Ok(found)
            }
            Err(Exchange::Lost(why) | Exchange::Failed(why)) => Err(Failure::Call(why)),
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
        let config = client_config(endpoint.ca_bundle.as_deref())?;
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

    fn take(&self, peer: &Peer) -> Option<SendRequest<Full<Bytes>>> {
        let mut peers = self.peers.lock();
        let known = peers.get_mut(peer)?;
        known
            .idle
            .retain(|(since, sender)| since.elapsed() < IDLE_TIME && !sender.is_closed());
        known.idle.pop().map(|(_, sender)| sender)
    }

    fn keep(&self, peer: &Peer, sender: SendRequest<Full<Bytes>>) {
        let mut peers = self.peers.lock();
        if let Some(known) = peers.get_mut(peer)
            && known.idle.len() < IDLE_MAX
            && !sender.is_closed()
        {
            known.idle.push((Instant::now(), sender));
        }
    }
}

enum Failure {
    Configuration(String),
    Call(String),
}

enum Exchange {
    /// The connection ended before there was an answer.
    Lost(String),
    Failed(String),
}

async fn answer(
    sender: &mut SendRequest<Full<Bytes>>,
    request: Request<Full<Bytes>>,
) -> Result<(StatusCode, Bytes), Exchange> {
    let response = sender.send_request(request).await.map_err(|error| {
        let lost = error.is_canceled() || error.is_closed() || error.is_incomplete_message();
        match lost {
            true => Exchange::Lost("EOF".to_owned()),
            false => Exchange::Failed(error.to_string()),
        }
    })?;
    let status = response.status();
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX);
    let bytes = body.collect().await.map_err(|error| {
        Exchange::Failed(match error.is::<LengthLimitError>() {
            true => format!("the answer is larger than {ANSWER_BYTES_MAX} bytes"),
            false => format!("unexpected end of the answer: {error}"),
        })
    })?;
    Ok((status, bytes.to_bytes()))
}

async fn connect(
    endpoint: &Endpoint,
    tls: &TlsConnector,
) -> Result<SendRequest<Full<Bytes>>, Failure> {
    let address = &endpoint.address;
    let name = ServerName::try_from(endpoint.server_name.clone())
        .map_err(|error| Failure::Configuration(error.to_string()))?;
    let tcp = TcpStream::connect(address).await.map_err(|error| {
        let why = match error.kind() {
            io::ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
            _ => error.to_string(),
        };
        Failure::Call(format!("dial tcp {address}: {why}"))
    })?;
    // Small questions must not wait for the acknowledgement of the one before.
    let _ = tcp.set_nodelay(true);
    let stream = tls
        .connect(name, tcp)
        .await
        .map_err(|error| Failure::Call(format!("tls: failed to verify certificate: {error}")))?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| Failure::Call(error.to_string()))?;
    // Ends with its sender, which is dropped with its call or with the client.
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection to a webhook ended early");
        }
    });
    Ok(sender)
}

/// What is trusted: the certificates of a bundle alone, or what the machine trusts.
fn client_config(bundle: Option<&[u8]>) -> Result<Arc<ClientConfig>, Failure> {
    let unfit = Failure::Configuration;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| unfit(error.to_string()))?;
    let mut config = match bundle {
        Some(pem) => {
            let mut roots = RootCertStore::empty();
            for certificate in CertificateDer::pem_slice_iter(pem) {
                let certificate = certificate
                    .map_err(|error| unfit(format!("unable to load root certificates: {error}")))?;
                roots
                    .add(certificate)
                    .map_err(|error| unfit(format!("unable to load root certificates: {error}")))?;
            }
            if roots.is_empty() {
                let told = "unable to load root certificates: unable to parse bytes as PEM block";
                return Err(unfit(told.to_owned()));
            }
            builder.with_root_certificates(roots).with_no_client_auth()
        }
        None => {
            let verifier = Verifier::new(Arc::clone(&provider)).or_else(|_| {
                let roots = webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().cloned();
                Verifier::new_with_extra_roots(roots, provider)
            });
            let verifier = verifier.map_err(|error| unfit(error.to_string()))?;
            builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(verifier))
                .with_no_client_auth()
        }
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// What an answer with another status than 200 says, as client-go reads it.
fn refused(status: StatusCode, body: &[u8]) -> String {
    const SHOWN_BYTES_MAX: usize = 2048;
    let shown = body.get(..SHOWN_BYTES_MAX).unwrap_or(body);
    let shown = String::from_utf8_lossy(shown);
    let shown = shown.trim();
    match status.as_u16() {
        404 => "the server could not find the requested resource".to_owned(),
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
    snapshot: &Snapshot,
    vault: &Vault,
    target: &Target,
    pick: usize,
) -> Result<Endpoint, WebhookError> {
    let unfit = WebhookError::Configuration;
    let ca_bundle = target.ca_bundle.clone();
    match &target.at {
        At::Url(url) => {
            let uri: http::Uri = url
                .parse()
                .map_err(|error: http::uri::InvalidUri| unfit(format!("parse {url:?}: {error}")))?;
            let host = uri.host().unwrap_or("");
            if uri.scheme_str() != Some("https") || host.is_empty() {
                return Err(unfit(format!(
                    "parse {url:?}: it is not https://host[/path]"
                )));
            }
            let port = uri.port_u16().unwrap_or(443);
            let bare = host.trim_start_matches('[').trim_end_matches(']');
            Ok(Endpoint {
                address: format!("{host}:{port}"),
                server_name: bare.to_owned(),
                host: uri
                    .authority()
                    .map_or_else(String::new, ToString::to_string),
                path: uri.path().to_owned(),
                ca_bundle,
            })
        }
        At::Service {
            namespace,
            name,
            port,
            path,
        } => {
            let key = stored::key(&SERVICE, Some(namespace), name);
            let Some(found) = snapshot.get(&key) else {
                return Err(unfit(format!("service {name:?} not found")));
            };
            let service = Stored::new(vault, &SERVICE, found).value();
            let address = if text(&service, "/spec/type") == "ExternalName" {
                format!("{}:{port}", text(&service, "/spec/externalName"))
            } else {
                let slices = slices(snapshot, vault, namespace, name);
                address_of(&service, &slices, *port, pick).map_err(unfit)?
            };
            let server_name = format!("{name}.{namespace}.svc");
            Ok(Endpoint {
                address,
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

/// Endpoints of one Service are asked in turn.
pub(crate) fn turn() -> usize {
    static TURN: AtomicUsize = AtomicUsize::new(0);
    TURN.fetch_add(1, Ordering::Relaxed)
}

fn slices(snapshot: &Snapshot, vault: &Vault, namespace: &str, service: &str) -> Vec<Value> {
    let prefix = stored::prefix(&ENDPOINT_SLICE, Some(namespace));
    let entries = snapshot.range(&prefix, None);
    let slices = entries.map(|entry| Stored::new(vault, &ENDPOINT_SLICE, entry).value());
    let label = "/metadata/labels/kubernetes.io~1service-name";
    slices
        .filter(|slice| text(slice, label) == service)
        .collect()
}

/// One of the addresses that a port of a Service leads to.
fn address_of(service: &Value, slices: &[Value], port: u16, pick: usize) -> Result<String, String> {
    let name = text(service, "/metadata/name");
    let mut ports = items(service, "/spec/ports").iter();
    let Some(known) = ports.find(|known| known["port"] == port) else {
        return Err(format!("no service port {port} found for service {name:?}"));
    };
    let mut found = Vec::new();
    let mut components = 0;
    for slice in slices {
        let mut ports = items(slice, "/ports").iter();
        let Some(number) = ports
            .find(|port| text(port, "/name") == text(known, "/name"))
            .and_then(|port| port["port"].as_u64())
        else {
            continue;
        };
        for endpoint in items(slice, "/endpoints") {
            if endpoint["conditions"]["ready"] == Value::Bool(false) {
                continue;
            }
            // Components are reached in the mesh, where servers are not.
            if text(endpoint, "/targetRef/kind") == "Pod" {
                components += 1;
                continue;
            }
            let addresses = items(endpoint, "/addresses").iter();
            found.extend(addresses.filter_map(Value::as_str).map(|address| {
                match address.contains(':') {
                    true => format!("[{address}]:{number}"),
                    false => format!("{address}:{number}"),
                }
            }));
        }
    }
    match found.len() {
        0 if components > 0 => Err(format!(
            "service {name:?} is served by components, which this server cannot reach: give the webhook a url, or the service endpoints outside of the mesh"
        )),
        0 => Err(format!("no endpoints available for service {name:?}")),
        count => Ok(found.swap_remove(pick % count)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_service_leads_to_its_ready_endpoints() {
        let service =
            json!({"metadata": {"name": "s"}, "spec": {"ports": [{"name": "https", "port": 443}]}});
        let slice = |endpoints: Value| {
            vec![json!({"ports": [{"name": "https", "port": 8443}], "endpoints": endpoints})]
        };
        for (endpoints, port, expected) in [
            (
                json!([{"addresses": ["10.0.0.1"]}, {"addresses": ["10.0.0.2"]}]),
                443,
                Ok("10.0.0.2:8443".to_owned()),
            ),
            (
                json!([{"addresses": ["10.0.0.1"], "conditions": {"ready": false}}]),
                443,
                Err("no endpoints available for service \"s\"".to_owned()),
            ),
            (
                json!([{"addresses": ["fd00::1"]}]),
                443,
                Ok("[fd00::1]:8443".to_owned()),
            ),
            (
                json!([]),
                80,
                Err("no service port 80 found for service \"s\"".to_owned()),
            ),
            (
                json!([{"addresses": ["10.42.0.3"], "targetRef": {"kind": "Pod"}}]),
                443,
                Err("service \"s\" is served by components, which this server cannot reach: give the webhook a url, or the service endpoints outside of the mesh".to_owned()),
            ),
        ] {
            assert_eq!(address_of(&service, &slice(endpoints), port, 1), expected);
        }
    }

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
