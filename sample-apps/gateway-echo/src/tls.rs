//! TLS of a server, and what was agreed with a client, in the words of Go's standard library.

use std::io;
use std::sync::Arc;

use agnhost::tls;
use rustls::server::WebPkiClientVerifier;
use rustls::{ProtocolVersion, ServerConfig};
use rustls_pki_types::CertificateDer;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// Letters of a line of PEM.
const LINE: usize = 64;

/// Takes TLS connections.
#[derive(Clone)]
pub(crate) struct Acceptor(TlsAcceptor);

impl Acceptor {
    /// Shows the certificate of these files. `clients`, if not empty, is a file of authorities: a client may show a certificate, which then has
    /// to be of one of them.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub(crate) fn of(
        certificate: &str,
        key: &str,
        clients: &str,
        protocols: &[&str],
    ) -> Result<Self, String> {
        let (chain, key) = tls::pair(certificate, key)?;
        let builder = ServerConfig::builder_with_provider(tls::provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        let builder = if clients.is_empty() {
            builder.with_no_client_auth()
        } else {
            let pem = std::fs::read(clients).map_err(|error| format!("open {clients}: {error}"))?;
            let roots = Arc::new(tls::roots(&pem)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, tls::provider())
                .allow_unauthenticated()
                .build()
                .map_err(|error| error.to_string())?;
            builder.with_client_cert_verifier(verifier)
        };
        let mut config = builder
            .with_single_cert(chain, key)
            .map_err(|error| format!("tls: {error}"))?;
        config.alpn_protocols = protocols
            .iter()
            .map(|name| name.as_bytes().to_vec())
            .collect();
        Ok(Self(TlsAcceptor::from(Arc::new(config))))
    }

    pub(crate) async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
    ) -> io::Result<(TlsStream<S>, Agreed)> {
        let stream = self.0.accept(stream).await?;
        let (_, connection) = stream.get_ref();
        let version = match connection.protocol_version() {
            Some(ProtocolVersion::TLSv1_3) => "1.3",
            _ => "1.2",
        };
        let suite = connection.negotiated_cipher_suite();
        let suite = suite.map_or(String::new(), |suite| format!("{:?}", suite.suite()));
        let group = connection.negotiated_key_exchange_group();
        let protocol = connection.alpn_protocol().unwrap_or_default();
        let shown = connection.peer_certificates().unwrap_or_default();
        let agreed = Agreed {
            version,
            server_name: connection.server_name().unwrap_or_default().to_owned(),
            protocol: String::from_utf8_lossy(protocol).into_owned(),
            suite: suite.replace("TLS13_", "TLS_"),
            group: group.map_or(String::new(), |group| format!("{:?}", group.name())),
            certificates: shown.iter().map(pem).collect(),
        };
        Ok((stream, agreed))
    }
}

/// What was agreed with a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Agreed {
    /// `1.2` or `1.3`.
    pub(crate) version: &'static str,
    pub(crate) server_name: String,
    pub(crate) protocol: String,
    pub(crate) suite: String,
    pub(crate) group: String,
    /// As PEM.
    pub(crate) certificates: Vec<String>,
}

impl Agreed {
    pub(crate) fn json(&self) -> Value {
        let mut told = json!({
            "version": format!("TLSv{}", self.version),
            "serverName": self.server_name,
            "cipherSuite": self.suite,
        });
        if !self.protocol.is_empty() {
            told["negotiatedProtocol"] = json!(self.protocol);
        }
        if !self.certificates.is_empty() {
            told["peerCertificates"] = json!(self.certificates);
        }
        told
    }
}

/// A certificate as Go's `encoding/pem` writes it.
fn pem(certificate: &CertificateDer<'_>) -> String {
    let text = base64(certificate);
    let mut lines = String::from("-----BEGIN CERTIFICATE-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, more) = rest.split_at(rest.len().min(LINE));
        lines.push_str(line);
        lines.push('\n');
        rest = more;
    }
    lines.push_str("-----END CERTIFICATE-----\n");
    lines
}

/// RFC 4648 §4.
pub(crate) fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let at = |index: usize| u32::from(three.get(index).copied().unwrap_or(0));
        let group = at(0) << 16 | at(1) << 8 | at(2);
        for letter in 0..4 {
            let is_there = letter <= three.len();
            let index = (group >> (18 - 6 * letter)) as usize & 63;
            text.push(if is_there {
                char::from(LETTERS[index])
            } else {
                '='
            });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_written_as_the_standard_has_it() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }
}
