//! Webhooks of tests: real HTTPS servers that answer as they are told, and remember what they were asked.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};

/// What a webhook does with a question.
pub enum Reply {
    /// `response`, with the question's uid.
    Says(Value),
    Raw(u16, Vec<u8>),
    /// Sends whoever asks to a URL.
    Moved(u16, String),
    Never,
}

pub type Asked = Arc<Mutex<Vec<Value>>>;

/// An HTTPS server that answers with what `reply` makes of each question; of a request without a body, of its path.
pub struct Hook {
    pub port: u16,
    pub ca: String,
    pub asked: Asked,
    pub connections: Arc<Mutex<usize>>,
}

impl Hook {
    pub async fn start(
        names: &[&str],
        reply: impl Fn(&Value) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let certificate = rcgen::CertificateParams::new(names).unwrap();
        let certificate = certificate.self_signed(&key).unwrap();
        let chain = vec![CertificateDer::from(certificate.der().to_vec())];
        let private = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, private)
            .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let hook = Self {
            port,
            ca: STANDARD.encode(certificate.pem()),
            asked: Asked::default(),
            connections: Arc::default(),
        };
        let (asked, connections) = (hook.asked.clone(), hook.connections.clone());
        let reply = Arc::new(reply);
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                *connections.lock() += 1;
                let (acceptor, asked, reply) = (acceptor.clone(), asked.clone(), reply.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(tcp).await else {
                        return;
                    };
                    let service = hyper::service::service_fn(
                        move |request: http::Request<hyper::body::Incoming>| {
                            let (asked, reply) = (asked.clone(), reply.clone());
                            async move {
                                let path = request.uri().path().to_owned();
                                let body = request.into_body().collect().await?.to_bytes();
                                let review: Value =
                                    serde_json::from_slice(&body).unwrap_or(path.into());
                                asked.lock().push(review.clone());
                                let mut location = None;
                                let (status, bytes) = match reply(&review) {
                                    Reply::Says(mut response) => {
                                        if response.get("uid").is_none() {
                                            response["uid"] = review["request"]["uid"].clone();
                                        }
                                        let answer = json!({
                                            "apiVersion": review["apiVersion"],
                                            "kind": review["kind"],
                                            "response": response,
                                        });
                                        (200, answer.to_string().into_bytes())
                                    }
                                    Reply::Raw(status, bytes) => (status, bytes),
                                    Reply::Moved(status, to) => {
                                        location = to.parse().ok();
                                        (status, Vec::new())
                                    }
                                    Reply::Never => std::future::pending().await,
                                };
                                let mut response =
                                    http::Response::new(Full::new(Bytes::from(bytes)));
                                *response.status_mut() =
                                    http::StatusCode::from_u16(status).unwrap();
                                if let Some(location) = location {
                                    let headers = response.headers_mut();
                                    headers.insert(http::header::LOCATION, location);
                                }
                                Ok::<_, hyper::Error>(response)
                            }
                        },
                    );
                    let server = hyper::server::conn::http1::Builder::new();
                    let _ = server.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        hook
    }

    pub fn client_config(&self) -> Value {
        json!({"url": format!("https://127.0.0.1:{}/ask", self.port), "caBundle": self.ca})
    }

    pub fn count(&self) -> usize {
        self.asked.lock().len()
    }
}
