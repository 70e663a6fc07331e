//! TLS with a provider that is Rust throughout: what a component can be built with.
//!
//! Invariant: a file that cannot be read and a certificate without its key are errors in Go's words.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig,
    SignatureScheme,
};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use tokio_rustls::TlsAcceptor;

use crate::machine;

pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls_rustcrypto::provider())
}

/// The certificates and the key of PEM files, which may be one.
pub fn pair(
    certificates: &str,
    key: &str,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), String> {
    let read = |path: &str| machine::read(path).map_err(|error| format!("open {path}: {error}"));
    let (chain, secret) = (read(certificates)?, read(key)?);
    let chain = CertificateDer::pem_slice_iter(&chain)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| format!("tls: failed to parse certificate: {error}"))?;
    if chain.is_empty() {
        return Err("tls: failed to find any PEM data in certificate input".to_owned());
    }
    let secret = PrivateKeyDer::from_pem_slice(&secret)
        .map_err(|_| "tls: failed to find any PEM data in key input".to_owned())?;
    Ok((chain, secret))
}

/// A server that shows what is in these files.
///
/// # Errors
/// In Go's words.
pub fn acceptor(certificate: &str, key: &str) -> Result<TlsAcceptor, String> {
    let (chain, key) = pair(certificate, key)?;
    let config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| format!("tls: {error}"))?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// The same, which asks clients for certificates and takes any, or none: whoever serves looks at them.
///
/// # Errors
/// In Go's words.
pub(crate) fn asking_acceptor(certificate: &str, key: &str) -> Result<TlsAcceptor, String> {
    let (chain, key) = pair(certificate, key)?;
    let config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_client_cert_verifier(Arc::new(Anybody(provider())))
        .with_single_cert(chain, key)
        .map_err(|error| format!("tls: {error}"))?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Whom a PEM file trusts.
///
/// # Errors
/// When there is none in it.
pub fn roots(pem: &[u8]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(pem).flatten() {
        // What is no certificate of an authority is left out, as Go does.
        let _ = roots.add(root);
    }
    match roots.is_empty() {
        true => Err("failed to append certs from PEM".to_owned()),
        false => Ok(roots),
    }
}

/// A client that trusts `roots`, and shows what is in the bundle of a file.
///
/// # Errors
/// In Go's words.
pub(crate) fn client(
    roots: RootCertStore,
    bundle: Option<&str>,
) -> Result<Arc<ClientConfig>, String> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider());
    let verifier = verifier.build().map_err(|error| error.to_string())?;
    let builder = builder.with_webpki_verifier(verifier);
    let config = match bundle {
        None => builder.with_no_client_auth(),
        Some(file) => {
            let (chain, key) = pair(file, file)?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|error| error.to_string())?
        }
    };
    Ok(Arc::new(config))
}

/// Whether the certificates lead to one of `roots` today.
///
/// # Errors
/// Why not.
pub fn verify(roots: RootCertStore, shown: &[CertificateDer<'static>]) -> Result<(), String> {
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
    let verifier = verifier.build().map_err(|error| error.to_string())?;
    let (leaf, rest) = shown.split_first().ok_or("there is none")?;
    let verified = verifier.verify_client_cert(leaf, rest, UnixTime::now());
    verified.map(drop).map_err(|error| error.to_string())
}

#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ClientCertVerifier for Anybody {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
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

/// The URIs among a certificate's names (SPIFFE). Source: RFC 5280, 4.2.1.6.
pub(crate) fn uris(certificate: &[u8]) -> Vec<String> {
    /// `subjectAltName`, with its tag and length.
    const NAMES: [u8; 5] = [0x06, 0x03, 0x55, 0x1d, 0x11];
    /// Of a `uniformResourceIdentifier`.
    const URI: u8 = 0x86;
    let Some(at) = certificate.windows(5).position(|window| window == NAMES) else {
        return Vec::new();
    };
    let mut rest = certificate.get(at + NAMES.len()..).unwrap_or_default();
    // Whether it is critical may stand before it.
    let mut found = element(&mut rest);
    if found.is_some_and(|(tag, _)| tag == 0x01) {
        found = element(&mut rest);
    }
    let Some((0x04, mut names)) = found else {
        return Vec::new();
    };
    let Some((0x30, mut names)) = element(&mut names) else {
        return Vec::new();
    };
    let mut uris = Vec::new();
    while let Some((tag, value)) = element(&mut names) {
        if tag == URI {
            uris.push(String::from_utf8_lossy(value).into_owned());
        }
    }
    uris
}

/// Takes the next element of DER: its tag and what is in it.
fn element<'d>(der: &mut &'d [u8]) -> Option<(u8, &'d [u8])> {
    let (tag, rest) = der.split_first()?;
    let (first, mut rest) = rest.split_first()?;
    let length = match *first {
        short @ ..0x80 => usize::from(short),
        long => {
            let (digits, after) = rest.split_at_checked(usize::from(long & 0x7f))?;
            rest = after;
            let value = digits.iter().try_fold(0_usize, |value, digit| {
                value.checked_mul(256)?.checked_add(usize::from(*digit))
            });
            value?
        }
    };
    let (value, after) = rest.split_at_checked(length)?;
    *der = after;
    Some((*tag, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_images_certificate_serves_and_is_its_own_authority() {
        let key = machine::LOCALHOST_KEY.as_bytes();
        let chain = CertificateDer::pem_slice_iter(machine::LOCALHOST_CRT.as_bytes());
        let chain: Vec<_> = chain.map(|it| it.expect("a certificate")).collect();
        let key = PrivateKeyDer::from_pem_slice(key).expect("a key");
        let config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(chain.clone(), key);
        assert!(config.is_ok(), "{config:?}");
        assert!(uris(&chain[0]).is_empty());
    }

    #[test]
    fn uris_are_read_among_other_names() {
        // SEQUENCE { OID subjectAltName, BOOLEAN TRUE, OCTET STRING { SEQUENCE { [2] "a", [6] "spiffe://x" } } }
        let mut der = vec![
            0x30, 0x1a, 0x06, 0x03, 0x55, 0x1d, 0x11, 0x01, 0x01, 0xff, 0x04, 0x11, 0x30, 0x0f,
            0x82, 0x01, b'a', 0x86, 0x0a,
        ];
        der.extend_from_slice(b"spiffe://x");
        assert_eq!(uris(&der), ["spiffe://x"]);
        for cut in 0..der.len() {
            // Whatever is cut off, nothing is read beyond the end.
            let _ = uris(&der[..cut]);
        }
    }
}
