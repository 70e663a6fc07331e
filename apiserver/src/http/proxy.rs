//! Calls from the API server to nodes: `nodes/NAME/proxy/PATH`, and the client that logs share.
//!
//! A node is reached at the address and port its status reports, over TLS, as `kube-apiserver` of `system:masters`. Its
//! certificate must be of the cluster CA, name that address and be that node's: neither a stolen Node object nor another
//! node can have a log redirected.
//!
//! Invariants: one connection a call, closed when either side goes; a node that is silent is asked by the kernel whether it is there, and is not after some
//! seconds; nothing is buffered; credentials of the caller never reach the node. Left to others: what the node serves there (`weft_agent`).

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use http::header::{self, HeaderName};
use http::{HeaderMap, Method, StatusCode, Uri};
use http_body_util::{BodyExt as _, Collected, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use rustls_pki_types::ServerName;
use serde_json::Value;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use weft_api::status::StatusError;
use weft_call::stream_frame;
use weft_kinds::lens::{integer, items, text};

use crate::authn::certificate_subject;
use crate::ca::{Authority, CaError, Made, SERVER_NAME};
use crate::caller::Caller;
use crate::http::AppState;

/// TCP and TLS to a node that is up take milliseconds; after this the node counts as unreachable.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Where nodes hand requests on to their pods.
pub(crate) const POD_PROXY: &str = "/podProxy/";
/// How long a node may think before its answer starts. What follows may stream for ever.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// A node that says nothing for so long is asked whether it is there, and how often it may leave that unanswered: one whose machine is gone is known to be
/// within five seconds.
const SILENCE: Duration = Duration::from_secs(1);
const SILENCES_MAX: u32 = 3;
/// How much of a node's refusal is read.
const REFUSAL_BYTES_MAX: usize = 4 << 10;

/// The client side of the API server's calls to nodes. Cloning is cheap.
#[derive(Clone)]
pub struct NodeClient {
    tls: Arc<Made<TlsConnector>>,
}

/// Why a node gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    #[error("the node has not reported an address and port to reach it at")]
    NoAddress,
    #[error("connecting to {address}")]
    Connect {
        address: String,
        #[source]
        source: std::io::Error,
    },
    #[error("who answers at {address} is not node {node:?}")]
    AnotherNode { address: String, node: String },
    #[error("{address} did not answer in {} s", timeout.as_secs())]
    Timeout { address: String, timeout: Duration },
    #[error("talking to {address}")]
    Http {
        address: String,
        #[source]
        source: hyper::Error,
    },
}

/// Why a connection to a node is no stream.
#[derive(Debug)]
pub(crate) enum StreamError {
    Node(NodeError),
    /// What the node said.
    Refused(StatusError),
}

/// A connection to a node that has become a stream.
pub(crate) type NodeStream = TokioIo<hyper::upgrade::Upgraded>;

impl NodeClient {
    /// # Errors
    /// When the server's client certificate is unusable.
    pub fn new(authority: &Authority) -> Result<Self, CaError> {
        Ok(Self {
            tls: Arc::new(Made::new(authority, |authority| {
                Ok(TlsConnector::from(authority.client_config()?))
            })?),
        })
    }

    /// Sends `request` (origin-form URI) to the node and gives the answer as soon as its head is here.
    ///
    /// # Errors
    /// [`NodeError`]; an answer with any status is no error.
    pub async fn send(&self, node: &Value, request: Request) -> Result<Response, NodeError> {
        let (host, port) = endpoint(node).ok_or(NodeError::NoAddress)?;
        let address = joined(host, port);
        let name = text(node, "/metadata/name");
        self.exchange(address, host, Some(name), request).await
    }

    /// Sends `request` to the API of another server at `address`, `HOST:PORT`.
    ///
    /// # Errors
    /// As [`NodeClient::send`].
    pub(crate) async fn send_to(
        &self,
        address: &str,
        request: Request,
    ) -> Result<Response, NodeError> {
        self.exchange(address.to_owned(), SERVER_NAME, None, request)
            .await
    }

    /// A connection to the node, and its address: for one exchange after the other.
    ///
    /// # Errors
    /// As [`NodeClient::send`].
    pub(crate) async fn open(
        &self,
        node: &Value,
    ) -> Result<(SendRequest<Body>, String), NodeError> {
        let (host, port) = endpoint(node).ok_or(NodeError::NoAddress)?;
        let address = joined(host, port);
        let name = text(node, "/metadata/name");
        let sender = self.connect(&address, host, Some(name)).await?;
        Ok((sender, address))
    }

    /// A connection to the node that becomes a stream, for which it is asked at `path`.
    pub(crate) async fn stream(&self, node: &Value, path: &str) -> Result<NodeStream, StreamError> {
        let internal =
            |error: &dyn std::fmt::Display| StreamError::Refused(StatusError::internal(error));
        let (mut sender, address) = self.open(node).await.map_err(StreamError::Node)?;
        let request = http::Request::post(path)
            .header(header::HOST, &address)
            .header(header::CONNECTION, "Upgrade")
            .header(header::UPGRADE, stream_frame::PROTOCOL)
            .body(Body::empty())
            .map_err(|error| internal(&error))?;
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, sender.send_request(request)).await;
        let mut answer = answer
            .map_err(|_| NodeError::Timeout {
                address: address.clone(),
                timeout: ANSWER_TIMEOUT,
            })
            .and_then(|answer| answer.map_err(|source| NodeError::Http { address, source }))
            .map_err(StreamError::Node)?;
        if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
            let upgraded = hyper::upgrade::on(&mut answer).await;
            return Ok(TokioIo::new(upgraded.map_err(|error| internal(&error))?));
        }
        let code = answer.status().as_u16();
        let refusal = Limited::new(answer.into_body(), REFUSAL_BYTES_MAX)
            .collect()
            .await;
        let refusal = refusal.map(Collected::to_bytes).unwrap_or_default();
        // A node refuses as the API does.
        let refusal: Value = serde_json::from_slice(&refusal).unwrap_or_default();
        let message = refusal["message"].as_str().unwrap_or("it did not say why");
        Err(StreamError::Refused(StatusError::without_reason(
            code, message,
        )))
    }

    /// One connection and one exchange on it; the certificate at `address` must carry the name `host`, and be that of `node`.
    async fn exchange(
        &self,
        address: String,
        host: &str,
        node: Option<&str>,
        mut request: Request,
    ) -> Result<Response, NodeError> {
        let mut sender = self.connect(&address, host, node).await?;
        if let Ok(value) = http::HeaderValue::from_str(&address) {
            request.headers_mut().insert(header::HOST, value);
        }
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, sender.send_request(request)).await;
        let answer = answer
            .map_err(|_| NodeError::Timeout {
                address: address.clone(),
                timeout: ANSWER_TIMEOUT,
            })?
            .map_err(|source| NodeError::Http { address, source })?;
        Ok(answer.map(Body::new))
    }

    async fn connect(
        &self,
        address: &str,
        host: &str,
        node: Option<&str>,
    ) -> Result<SendRequest<Body>, NodeError> {
        let connect = |source| NodeError::Connect {
            address: address.to_owned(),
            source,
        };
        let invalid = |error| connect(std::io::Error::new(std::io::ErrorKind::InvalidInput, error));
        let name = match host.parse::<IpAddr>() {
            Ok(ip) => ServerName::IpAddress(ip.into()),
            Err(_) => ServerName::try_from(host.to_owned()).map_err(invalid)?,
        };
        let connected = tokio::time::timeout(CONNECT_TIMEOUT, async {
            let tcp = TcpStream::connect(address).await?;
            tcp.set_nodelay(true)?;
            let keepalive = TcpKeepalive::new()
                .with_time(SILENCE)
                .with_interval(SILENCE)
                .with_retries(SILENCES_MAX);
            SockRef::from(&tcp).set_tcp_keepalive(&keepalive)?;
            self.tls.now().connect(name, tcp).await
        });
        let stream = connected
            .await
            .map_err(|_| NodeError::Timeout {
                address: address.to_owned(),
                timeout: CONNECT_TIMEOUT,
            })?
            .map_err(connect)?;
        if let Some(node) = node {
            let shown = stream.get_ref().1.peer_certificates().unwrap_or_default();
            let shown = shown.first();
            let caller = shown.and_then(|shown| certificate_subject(shown, Timestamp::now()));
            if caller.as_ref().and_then(Caller::node_name) != Some(node) {
                return Err(NodeError::AnotherNode {
                    address: address.to_owned(),
                    node: node.to_owned(),
                });
            }
        }
        let shaken = http1::handshake(TokioIo::new(stream)).await;
        let (sender, connection) = shaken.map_err(|source| NodeError::Http {
            address: address.to_owned(),
            source,
        })?;
        // Ends with the exchange: the sender goes out of scope, and a dropped response body closes the rest.
        tokio::spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "connection to a node ended early");
            }
        });
        Ok(sender)
    }
}

fn joined(host: &str, port: u16) -> String {
    match host.contains(':') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    }
}

/// Host and port of the node's HTTPS endpoint, from its status.
fn endpoint(node: &Value) -> Option<(&str, u16)> {
    let addresses = items(node, "/status/addresses");
    let of_type = |kind: &str| {
        addresses
            .iter()
            .find(|address| text(address, "/type") == kind)
    };
    let host = of_type("InternalIP")
        .or_else(|| of_type("Hostname"))
        .map(|address| text(address, "/address"))?;
    let port = u16::try_from(integer(
        node,
        "/status/daemonEndpoints/kubeletEndpoint/Port",
    )?)
    .ok()?;
    (!host.is_empty() && port != 0).then_some((host, port))
}

/// Reads the Node object with the server's own rights: the caller was authorised for the subresource.
pub(crate) async fn find_node(state: &AppState, name: &str) -> Result<Arc<Value>, StatusError> {
    let reader = Caller::system("apiserver", None);
    let reader = state.objects.client(&reader);
    let stored = reader.get(&weft_kinds::NODE, None, name).await?;
    Ok(Arc::new(stored.object().as_value().clone()))
}

/// Answers `GET /api/v1/nodes/NODE/proxy/PATH`: passes the request on and streams the answer back.
///
/// # Errors
/// 404 for unknown nodes, 405 for other methods, 503 when the node is out of reach.
pub async fn serve(
    state: &AppState,
    node: &str,
    rest_of_path: &str,
    request: Request,
) -> Result<Response, StatusError> {
    if request.method() != Method::GET {
        return Err(StatusError::method_not_allowed());
    }
    let object = find_node(state, node).await?;
    let path = format!("/{}", rest_of_path.trim_start_matches('/'));
    // Who may look at a node may not speak to its pods in the server's name.
    if path.starts_with(POD_PROXY) {
        return Err(StatusError::unknown_path());
    }
    let target = match request.uri().query() {
        Some(query) => format!("{path}?{query}"),
        None => path,
    };
    let target: Uri = target.parse().map_err(|error: http::uri::InvalidUri| {
        StatusError::bad_request(format!("the path to proxy: {error}"))
    })?;
    let mut outgoing = Request::new(Body::empty());
    *outgoing.uri_mut() = target;
    *outgoing.headers_mut() = forwarded(request.headers());

    let answer = state
        .nodes
        .send(&object, outgoing)
        .await
        .map_err(|error| unreachable(node, &error))?;
    let (mut head, body) = answer.into_parts();
    head.headers = forwarded(&head.headers);
    Ok(Response::from_parts(head, body))
}

/// The answer when a node cannot be reached, for the eyes of whoever asked.
pub(crate) fn unreachable(node: &str, error: &NodeError) -> StatusError {
    let mut message = format!("node {node:?} is out of reach: {error}");
    if let Some(cause) = std::error::Error::source(error) {
        message.push_str(": ");
        message.push_str(&cause.to_string());
    }
    StatusError::unavailable(message)
}

/// Headers that go through a proxy: not those of one hop, and no credentials.
fn forwarded(headers: &HeaderMap) -> HeaderMap {
    const DROPPED: &[HeaderName] = &[
        header::AUTHORIZATION,
        header::CONNECTION,
        header::COOKIE,
        header::HOST,
        header::CONTENT_LENGTH,
        header::PROXY_AUTHORIZATION,
        header::TE,
        header::TRAILER,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
        header::SET_COOKIE,
    ];
    let kept = headers.iter().filter(|(name, _)| {
        !DROPPED.contains(name)
            && !name.as_str().starts_with("impersonate-")
            && name.as_str() != "keep-alive"
    });
    kept.map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

/// Nodes for tests.
#[cfg(test)]
pub(crate) mod fake {
    use super::*;
    use http::{Request, Response};
    use hyper::body::Incoming;
    use rustls_pki_types::pem::PemObject as _;
    use rustls_pki_types::{CertificateDer, PrivateKeyDer};
    use serde_json::json;

    /// A node `a` that answers two connections, one after the other, whose certificate names `san`, and that asks for a client certificate of the cluster CA; with whoever
    /// may call it.
    pub(crate) async fn node(
        san: &str,
        answer: fn(&Request<Incoming>) -> Response<String>,
    ) -> (NodeClient, Value) {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::open_or_create(dir.path(), "cluster.local").unwrap();
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let leaf = crate::ca::Leaf {
            common_name: Some("system:node:a"),
            organisation: Some("system:nodes"),
            names: vec![rcgen::SanType::IpAddress(san.parse().unwrap())],
            server: true,
            client: false,
            life: time::Duration::hours(1),
        };
        let pem = authority
            .sign(&leaf, &key, time::OffsetDateTime::now_utc())
            .unwrap();
        let chain = vec![CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(
            Arc::new(authority.roots().unwrap()),
            Arc::clone(&provider),
        )
        .build()
        .unwrap();
        let tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)
            .unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
            for _ in 0..2 {
                let (tcp, _) = listener.accept().await.unwrap();
                let Ok(stream) = acceptor.accept(tcp).await else {
                    return;
                };
                let service = hyper::service::service_fn(move |request| async move {
                    Ok::<_, std::convert::Infallible>(answer(&request))
                });
                let server = hyper::server::conn::http1::Builder::new();
                let _ = server.serve_connection(TokioIo::new(stream), service).await;
            }
        });
        let node = json!({ "metadata": { "name": "a" }, "status": {
            "addresses": [{ "type": "InternalIP", "address": "127.0.0.1" }],
            "daemonEndpoints": { "kubeletEndpoint": { "Port": port } },
        } });
        (NodeClient::new(&authority).unwrap(), node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn nodes_are_reached_where_their_status_says() {
        let node = |addresses: Value, port: Value| json!({ "status": { "addresses": addresses, "daemonEndpoints": { "kubeletEndpoint": { "Port": port } } } });
        let ip = json!([{ "type": "Hostname", "address": "a" }, { "type": "InternalIP", "address": "10.0.0.1" }]);
        assert_eq!(
            endpoint(&node(ip.clone(), json!(10250))),
            Some(("10.0.0.1", 10250))
        );
        assert_eq!(
            endpoint(&node(
                json!([{ "type": "Hostname", "address": "a" }]),
                json!(1)
            )),
            Some(("a", 1))
        );
        for port in [json!(0), json!(70000), json!("1"), Value::Null] {
            assert_eq!(endpoint(&node(ip.clone(), port)), None);
        }
        assert_eq!(endpoint(&json!({})), None);
    }

    #[test]
    fn credentials_stay_behind() {
        let mut headers = HeaderMap::new();
        for name in ["authorization", "impersonate-user", "connection", "accept"] {
            headers.insert(
                HeaderName::from_static(name),
                http::HeaderValue::from_static("x"),
            );
        }
        assert_eq!(
            forwarded(&headers)
                .keys()
                .map(HeaderName::as_str)
                .collect::<Vec<_>>(),
            ["accept"]
        );
    }

    /// One exchange with node `name`, where node `a` answers, whose certificate names `san`.
    async fn exchange(san: &str, name: &str) -> Result<(u16, String), NodeError> {
        let (client, mut node) = fake::node(san, |request| {
            http::Response::new(request.uri().to_string())
        })
        .await;
        node["metadata"]["name"] = name.into();
        let mut request = Request::new(Body::empty());
        *request.uri_mut() = Uri::from_static("/metrics?x=1");
        let (head, body) = client.send(&node, request).await?.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Ok((
            head.status.as_u16(),
            String::from_utf8_lossy(&body).into_owned(),
        ))
    }

    #[tokio::test]
    async fn a_node_is_believed_for_its_own_name_and_address_only() {
        assert_eq!(
            exchange("127.0.0.1", "a").await.unwrap(),
            (200, "/metrics?x=1".to_owned())
        );
        assert!(matches!(
            exchange("127.0.0.2", "a").await,
            Err(NodeError::Connect { .. })
        ));
        assert!(matches!(
            exchange("127.0.0.1", "b").await,
            Err(NodeError::AnotherNode { .. })
        ));
    }
}
