//! A client over TLS and HTTP/2, no more than the bench needs.

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject as _};
use rustls::{DigitallySignedStruct, SignatureScheme};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use weft_apiserver::ca::Authority;

use crate::{Error, TOKEN};

/// Window of a stream, as client-go's.
const WINDOW: u32 = 4 << 20;

/// Where clients come from.
#[derive(Clone)]
pub struct Pool {
    port: u16,
    tls: TlsConnector,
}

/// One connection.
#[derive(Clone)]
pub struct Client {
    sender: SendRequest<Full<Bytes>>,
    port: u16,
}

/// Takes every certificate: of a server on this machine, that is measured and not trusted.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

impl Pool {
    /// Clients of a server whose certificate `authority` has signed; without one, of another server, which made its own.
    pub fn new(port: u16, authority: Option<&Authority>) -> Result<Self, Error> {
        let builder = rustls::ClientConfig::builder();
        let mut config = match authority {
            Some(authority) => {
                let mut roots = rustls::RootCertStore::empty();
                roots.add(CertificateDer::from_pem_slice(
                    authority.ca_pem().as_bytes(),
                )?)?;
                builder.with_root_certificates(roots).with_no_client_auth()
            }
            None => {
                let anybody = Anybody(Arc::clone(builder.crypto_provider()));
                builder
                    .dangerous()
                    .with_custom_certificate_verifier(Arc::new(anybody))
                    .with_no_client_auth()
            }
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Self {
            port,
            tls: TlsConnector::from(Arc::new(config)),
        })
    }

    /// A connection that speaks HTTP/2, of which nothing was said yet.
    pub async fn stream(&self) -> Result<TlsStream<TcpStream>, Error> {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from("127.0.0.1")?;
        Ok(self.tls.connect(name, stream).await?)
    }

    /// What requests say that they are for.
    pub fn authority(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub async fn connect(&self) -> Result<Client, Error> {
        let stream = self.stream().await?;
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW * 4)
            .handshake(TokioIo::new(stream))
            .await?;
        tokio::spawn(connection);
        Ok(Client {
            sender,
            port: self.port,
        })
    }
}

impl Client {
    async fn send(
        &self,
        method: &str,
        path: &str,
        content_type: &str,
        body: String,
    ) -> Result<Response<Incoming>, Error> {
        let request = Request::builder()
            .method(method)
            .uri(format!("https://127.0.0.1:{}{path}", self.port))
            .header(header::AUTHORIZATION, format!("Bearer {TOKEN}"))
            .header(header::CONTENT_TYPE, content_type)
            .body(Full::from(body))?;
        let mut sender = self.sender.clone();
        let response = sender.send_request(request).await?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        let body = String::from_utf8_lossy(&body).into_owned();
        Err(format!("{method} {path}: {status} {body}").into())
    }

    pub async fn create(&self, path: &str, object: &Value) -> Result<(), Error> {
        let json = "application/json";
        let response = self.send("POST", path, json, object.to_string()).await?;
        response.into_body().collect().await?;
        Ok(())
    }

    pub async fn replace(&self, path: &str, object: &Value) -> Result<(), Error> {
        let json = "application/json";
        let response = self.send("PUT", path, json, object.to_string()).await?;
        response.into_body().collect().await?;
        Ok(())
    }

    pub async fn patch(&self, path: &str, patch: &Value) -> Result<(), Error> {
        let kind = "application/merge-patch+json";
        let response = self.send("PATCH", path, kind, patch.to_string()).await?;
        response.into_body().collect().await?;
        Ok(())
    }

    /// Server-side apply, taking over what others own.
    pub async fn apply(&self, path: &str, manager: &str, object: &Value) -> Result<(), Error> {
        let path = format!("{path}?fieldManager={manager}&force=true");
        let kind = "application/apply-patch+yaml";
        let response = self.send("PATCH", &path, kind, object.to_string()).await?;
        response.into_body().collect().await?;
        Ok(())
    }

    pub async fn get(&self, path: &str) -> Result<Value, Error> {
        let response = self.send("GET", path, "", String::new()).await?;
        let body = response.into_body().collect().await?.to_bytes();
        Ok(serde_json::from_slice(&body)?)
    }

    /// Reads an answer to its end and keeps nothing of it. Returns its length.
    pub async fn drain(&self, path: &str) -> Result<usize, Error> {
        let mut body = self.send("GET", path, "", String::new()).await?.into_body();
        let mut length = 0;
        while let Some(frame) = body.frame().await {
            length += frame?.data_ref().map_or(0, Bytes::len);
        }
        Ok(length)
    }
}
