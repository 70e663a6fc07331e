//! A client over TLS and HTTP/2, no more than the bench needs.

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
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

/// The lines of a watch.
pub struct Lines {
    body: Incoming,
    rest: Vec<u8>,
}

impl Pool {
    pub fn new(port: u16, authority: &Authority) -> Result<Self, Error> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(
            authority.ca_pem().as_bytes(),
        )?)?;
        let mut config = rustls::ClientConfig::builder()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Self {
            port,
            tls: TlsConnector::from(Arc::new(config)),
        })
    }

    pub async fn connect(&self) -> Result<Client, Error> {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from("127.0.0.1")?;
        let stream = self.tls.connect(name, stream).await?;
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

    pub async fn patch(&self, path: &str, patch: &Value) -> Result<(), Error> {
        let kind = "application/merge-patch+json";
        let response = self.send("PATCH", path, kind, patch.to_string()).await?;
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

    pub async fn watch(&self, path: &str) -> Result<Lines, Error> {
        let response = self.send("GET", path, "", String::new()).await?;
        Ok(Lines {
            body: response.into_body(),
            rest: Vec::new(),
        })
    }
}

impl Lines {
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, Error> {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                return Ok(Some(self.rest.drain(..=end).collect()));
            }
            match self.body.frame().await {
                Some(frame) => {
                    if let Some(data) = frame?.data_ref() {
                        self.rest.extend_from_slice(data);
                    }
                }
                None => return Ok(None),
            }
        }
    }
}
