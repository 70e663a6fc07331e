//! TLS with backends that a policy asks to prove themselves.
//!
//! The configuration of a backend is made once and kept with what it was made of; one that cannot be made is an error of each call.
//!
//! Invariants: without a proof by one of the given authorities, for one of the given names, nothing is sent; names are compared on
//! certificates that were verified.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_name,
    },
    crypto::aws_lc_rs,
    server::ParsedCertificate,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::{TlsConnector, client::TlsStream};
use weft_call::{Failure, FailureKind};
use weft_gateway::{BackendTls, CertificateName};

use crate::dial::Dialed;

const H2: &[u8] = b"h2";
const HTTP1: &[u8] = b"http/1.1";
/// Backends whose configuration is kept; beyond them all are forgotten.
const KEPT_MAX: usize = 1024;

/// What was made for which: no other has its place in memory while this is kept.
type Kept = (Arc<BackendTls>, Arc<ClientConfig>);

/// What is made for backends. Shared by all calls of a node.
#[derive(Default)]
pub(crate) struct Backends {
    kept: Mutex<HashMap<usize, Kept>>,
}

impl Backends {
    /// Proves who is at the other end of `stream`, and whom it may show itself as.
    ///
    /// # Errors
    /// [`FailureKind::Unreachable`] when it cannot prove itself: nobody was reached to whom the call could go.
    pub(crate) async fn connect(
        &self,
        tls: &Arc<BackendTls>,
        stream: Dialed,
        wants_h2: bool,
    ) -> Result<TlsStream<Dialed>, Failure> {
        let spoken = if wants_h2 { H2 } else { HTTP1 };
        self.connected(tls, stream, vec![spoken.to_vec()]).await
    }

    /// As [`Backends::connect`], where what is spoken is nobody's here to say.
    ///
    /// # Errors
    /// As [`Backends::connect`].
    pub(crate) async fn connect_bytes(
        &self,
        tls: &Arc<BackendTls>,
        stream: Dialed,
    ) -> Result<TlsStream<Dialed>, Failure> {
        self.connected(tls, stream, Vec::new()).await
    }

    async fn connected(
        &self,
        tls: &Arc<BackendTls>,
        stream: Dialed,
        spoken: Vec<Vec<u8>>,
    ) -> Result<TlsStream<Dialed>, Failure> {
        let wrong = |why: String| {
            let told = format!("{} did not prove itself", tls.hostname);
            Failure::new(FailureKind::Unreachable, told).with_detail(why)
        };
        let mut config = self.config(tls).map_err(|error| wrong(error.to_string()))?;
        if config.alpn_protocols != spoken {
            let mut other = ClientConfig::clone(&config);
            other.alpn_protocols = spoken;
            config = Arc::new(other);
        }
        let name = ServerName::try_from(tls.hostname.clone());
        let name = name.map_err(|error| wrong(error.to_string()))?;
        let connected = TlsConnector::from(config).connect(name, stream).await;
        connected.map_err(|error| wrong(error.to_string()))
    }

    fn config(&self, tls: &Arc<BackendTls>) -> Result<Arc<ClientConfig>, rustls::Error> {
        let place = Arc::as_ptr(tls) as usize;
        if let Some((_, config)) = self.kept.lock().get(&place) {
            return Ok(Arc::clone(config));
        }
        let config = Arc::new(config(tls)?);
        let mut kept = self.kept.lock();
        if kept.len() >= KEPT_MAX {
            kept.clear();
        }
        // What it was made of is kept along: its place is nobody else's meanwhile.
        kept.insert(place, (Arc::clone(tls), Arc::clone(&config)));
        Ok(config)
    }
}

fn config(tls: &BackendTls) -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    match &tls.roots {
        Some(given) => {
            let given = given.iter().map(|root| CertificateDer::from(root.clone()));
            roots.add_parsable_certificates(given);
        }
        None => {
            let known = webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().cloned();
            roots.add_parsable_certificates(known);
        }
    }
    let chain = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    let chain = chain
        .build()
        .map_err(|error| rustls::Error::General(error.to_string()))?;
    let verifier = Named {
        chain,
        names: tls.names.clone(),
        provider: Arc::clone(&provider),
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match &tls.client {
        None => builder.with_no_client_auth(),
        Some(pair) => {
            let chain = pair.chain.iter();
            let chain = chain.map(|one| CertificateDer::from(one.clone())).collect();
            builder.with_client_auth_cert(chain, pair.key())?
        }
    };
    config.alpn_protocols = vec![HTTP1.to_vec()];
    Ok(config)
}

/// A chain to one of the authorities, and a certificate for one of the names.
#[derive(Debug)]
struct Named {
    chain: Arc<WebPkiServerVerifier>,
    /// None: for the name that is asked for.
    names: Vec<CertificateName>,
    provider: Arc<rustls::crypto::CryptoProvider>,
}

impl Named {
    fn has_a_name(&self, leaf: &CertificateDer<'_>) -> Result<(), rustls::Error> {
        let parsed = ParsedCertificate::try_from(leaf)?;
        let is_for = |name: &CertificateName| match name {
            CertificateName::Host(host) => ServerName::try_from(host.as_str())
                .is_ok_and(|host| verify_server_name(&parsed, &host).is_ok()),
            CertificateName::Uri(uri) => uris(leaf).iter().any(|known| known == uri),
        };
        match self.names.iter().any(is_for) {
            true => Ok(()),
            false => Err(rustls::Error::InvalidCertificate(
                rustls::CertificateError::NotValidForName,
            )),
        }
    }
}

/// The URIs among a certificate's names.
fn uris(leaf: &CertificateDer<'_>) -> Vec<String> {
    let Ok((_, parsed)) = x509_parser::parse_x509_certificate(leaf) else {
        return Vec::new();
    };
    let Ok(Some(names)) = parsed.subject_alternative_name() else {
        return Vec::new();
    };
    let names = names.value.general_names.iter();
    names
        .filter_map(|name| match name {
            x509_parser::extensions::GeneralName::URI(uri) => Some((*uri).to_owned()),
            _ => None,
        })
        .collect()
}

impl ServerCertVerifier for Named {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        stapled: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verified = self
            .chain
            .verify_server_cert(leaf, others, name, stapled, now);
        if self.names.is_empty() {
            return verified;
        }
        // The verifier looks at the chain first: what is left is the name, for which others were given.
        match verified {
            Ok(_)
            | Err(rustls::Error::InvalidCertificate(
                rustls::CertificateError::NotValidForName
                | rustls::CertificateError::NotValidForNameContext { .. },
            )) => {}
            Err(error) => return Err(error),
        }
        self.has_a_name(leaf)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let known = &self.provider.signature_verification_algorithms;
        known.supported_schemes()
    }
}
