//! Probes of a guest that listens by `wasi:sockets`: a connection of the node to the pod's address, as a kubelet makes one.
//!
//! Over TLS whoever answers is taken, as a kubelet does: a probe asks whether somebody serves, not who. A health check of gRPC is the same
//! question to a component that is asked in memory.
//!
//! Invariant: a probe opens nothing of this machine.

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use weft_call::{Body, Failure, FailureKind};
use weft_runtime::Network;
use weft_runtime::network::{Stream, Via};

use crate::sockets::NODE;
use weft_mesh::speak;

/// An answer to a health check is a few bytes.
const HEALTH_BYTES_MAX: usize = 16 << 10;

/// Asks the guest that listens on `port`.
pub(crate) async fn ask(
    network: Network,
    port: u16,
    is_tls: bool,
    request: Request<Body>,
) -> Result<Response<Body>, Failure> {
    let address = SocketAddr::new(network.ip(), port);
    let stream = network.connect(NODE, Via::Address, port).map_err(|_| {
        let told = format!("dial tcp {address}: connect: connection refused");
        Failure::new(FailureKind::Unreachable, told)
    })?;
    if !is_tls {
        return speak(stream, request).await;
    }
    let stream = over_tls(stream, ServerName::from(address.ip())).await;
    let stream = stream.map_err(|error| {
        let told = format!("remote error: tls: {error}");
        Failure::new(FailureKind::Unreachable, told)
    })?;
    speak(stream, request).await
}

/// The same stream with TLS, whoever is at its other end.
///
/// # Errors
/// What the other end said wrong; see [`speaks_no_tls`].
pub(crate) async fn over_tls(
    stream: Stream,
    name: ServerName<'static>,
) -> io::Result<TlsStream<Stream>> {
    let settings = anybody().map_err(io::Error::other)?;
    let connector = TlsConnector::from(Arc::new(settings));
    connector.connect(name, stream).await
}

/// Whether what came back was of another protocol.
pub(crate) fn speaks_no_tls(error: &io::Error) -> bool {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref());
    matches!(cause, Some(rustls::Error::InvalidMessage(_)))
}

/// The question whether `service` is served (`grpc.health.v1.Health/Check`).
pub(crate) fn health_check(authority: &str, service: &str) -> Result<Request<Body>, String> {
    let request = Request::post(format!("http://{authority}/grpc.health.v1.Health/Check"))
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .header(header::USER_AGENT, "kube-probe/1.37");
    let request = request.body(Body::full(framed(service)));
    request.map_err(|error| error.to_string())
}

/// `HealthCheckRequest { service }` in one frame of gRPC.
fn framed(service: &str) -> Bytes {
    // A name of 127 bytes or less has its length in one.
    let name = service.as_bytes();
    let name = name.get(..127).unwrap_or(name);
    let mut message = BytesMut::new();
    if !name.is_empty() {
        message.put_u8(0x0a);
        message.put_u8(name.len() as u8);
        message.put_slice(name);
    }
    let mut frame = BytesMut::with_capacity(5 + message.len());
    frame.put_u8(0);
    frame.put_u32(message.len() as u32);
    frame.put_slice(&message);
    frame.freeze()
}

/// What an answer to it means.
///
/// # Errors
/// The words of a kubelet.
pub(crate) async fn health(response: Response<Body>) -> Result<(), String> {
    let status = response.status();
    if status != StatusCode::OK {
        return Err(format!(
            "error: health rpc probe failed: unexpected HTTP status code received from server: {}",
            status.as_u16()
        ));
    }
    let mut code = response.headers().get("grpc-status").cloned();
    let body = Limited::new(response.into_body(), HEALTH_BYTES_MAX)
        .collect()
        .await
        .map_err(|error| format!("error: health rpc probe failed: {error}"))?;
    if let Some(trailers) = body.trailers() {
        code = trailers.get("grpc-status").cloned().or(code);
    }
    let code = code.as_ref().map(HeaderValue::as_bytes);
    match code {
        Some(b"0") => {}
        Some(b"12") => {
            return Err("error: this server does not implement the grpc health protocol (grpc.health.v1.Health)".to_owned());
        }
        code => {
            let code = String::from_utf8_lossy(code.unwrap_or(b"none")).into_owned();
            return Err(format!("error: health rpc probe failed: code {code}"));
        }
    }
    match served(&body.to_bytes()) {
        1 => Ok(()),
        other => {
            let names = ["UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"];
            let name = names.get(usize::from(other)).copied().unwrap_or("UNKNOWN");
            Err(format!("service unhealthy (responded with {name:?})"))
        }
    }
}

/// The status of a `HealthCheckResponse` in a frame; 0 where there is none.
fn served(frame: &[u8]) -> u8 {
    match frame.get(5..) {
        Some([0x08, status, ..]) => *status,
        _ => 0,
    }
}

/// The settings of a connection that takes whoever answers. They are one for all probes, which resume what was agreed the last time: a guest
/// signs once, and not each second.
fn anybody() -> Result<ClientConfig, rustls::Error> {
    static KEPT: OnceLock<ClientConfig> = OnceLock::new();
    if let Some(kept) = KEPT.get() {
        return Ok(kept.clone());
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?;
    let made = builder
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
        .with_no_client_auth();
    Ok(KEPT.get_or_init(|| made).clone())
}

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
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_health_check_is_one_frame() {
        assert_eq!(&framed("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(&framed("ab")[..], [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
    }

    #[tokio::test]
    async fn an_answer_is_healthy_where_it_says_that_it_serves() {
        for (status, code, body, expected) in [
            (200, "0", &[0, 0, 0, 0, 2, 8, 1][..], Ok(())),
            (
                200,
                "0",
                &[0, 0, 0, 0, 2, 8, 2],
                Err("service unhealthy (responded with \"NOT_SERVING\")"),
            ),
            (
                200,
                "0",
                &[0, 0, 0, 0, 0],
                Err("service unhealthy (responded with \"UNKNOWN\")"),
            ),
            (
                200,
                "12",
                &[],
                Err(
                    "error: this server does not implement the grpc health protocol (grpc.health.v1.Health)",
                ),
            ),
            (
                404,
                "0",
                &[],
                Err(
                    "error: health rpc probe failed: unexpected HTTP status code received from server: 404",
                ),
            ),
        ] {
            let response = Response::builder()
                .status(status)
                .header("grpc-status", code)
                .body(Body::full(Bytes::from_static(body)))
                .expect("a response");
            let found = health(response).await;
            assert_eq!(found, expected.map_err(str::to_owned), "{status} {code}");
        }
    }

    #[tokio::test]
    async fn what_one_probe_agreed_the_next_resumes() {
        use rustls::HandshakeKind;
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let name = "192.0.2.77";
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a key");
        let params = rcgen::CertificateParams::new([name.to_owned()]).expect("a name");
        let certificate = params.self_signed(&key).expect("a certificate");
        let key = rustls_pki_types::PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let server = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .expect("a server");
        let server = tokio_rustls::TlsAcceptor::from(Arc::new(server));
        let mut kinds = Vec::new();
        for _ in 0..2 {
            let (near, far) = tokio::io::duplex(64 << 10);
            let connector = TlsConnector::from(Arc::new(anybody().expect("settings")));
            let name = ServerName::try_from(name).expect("a name");
            let both = tokio::join!(server.accept(far), connector.connect(name, near));
            let (mut served, mut stream) = (both.0.expect("accepted"), both.1.expect("connected"));
            // What a connection is resumed with comes behind the handshake, before anything else.
            served.write_all(b"x").await.expect("written");
            served.flush().await.expect("sent");
            stream.read_u8().await.expect("read");
            kinds.push(stream.get_ref().1.handshake_kind());
        }
        assert_eq!(
            kinds,
            [Some(HandshakeKind::Full), Some(HandshakeKind::Resumed)]
        );
    }
}
