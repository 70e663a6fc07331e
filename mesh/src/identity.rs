//! Certificates of the identities that run on this node, the roots they are checked against, and both TLS ends.
//!
//! A workload's key and certificate (SVID) are set by the agent and swapped while connections live: resolvers look
//! them up at each handshake. The server presents the certificate of the workload that the client names by SNI
//! (`<service-account>.<namespace>.sa.weft`); either side accepts a peer only if its chain leads to a current root
//! and its leaf carries exactly one URI, a SPIFFE id of this trust domain that was not revoked. The client also insists on the id it meant.
//!
//! Invariants: TLS 1.3 only; no resumption, so each connection proves identities afresh; keys never leave memory and
//! never reach a log. Left to others: asking for certificates and renewing them in time (`weft_agent`).

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, ServerConfig,
    SignatureScheme,
    client::{
        ResolvesClientCert, Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, aws_lc_rs},
    server::{
        ClientHello, NoServerSessionStorage, ResolvesServerCert,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::CertifiedKey,
};
use rustls_pki_types::{
    CertificateDer, PrivateKeyDer, ServerName, TrustAnchor, UnixTime, pem::PemObject,
};
use tokio::sync::watch;
use weft_api::identity::SpiffeId;

use weft_call::{Blame, Failure, FailureKind};

/// Protocol between nodes, as negotiated by ALPN.
pub(crate) const ALPN: &[u8] = b"weft-h2/1";

const SNI_SUFFIX: &str = ".sa.weft";

/// Why a certificate or a root is not taken.
#[derive(Debug, thiserror::Error)]
pub enum SvidError {
    #[error("not readable as PEM")]
    Pem(#[source] rustls_pki_types::pem::Error),
    #[error("the certificate chain is empty")]
    Empty,
    #[error("not a certificate that webpki accepts: {reason}")]
    Malformed { reason: String },
    #[error("the certificate is for {found}, not for {expected}")]
    WrongIdentity { expected: String, found: String },
    #[error("the key does not belong to the certificate")]
    Key(#[source] rustls::Error),
}

/// The certificates of one node. Shared by all its listeners and connections.
pub struct Identities {
    trust_domain: String,
    provider: Arc<CryptoProvider>,
    svids: ArcSwap<HashMap<SpiffeId, Arc<Svid>>>,
    roots: ArcSwap<Vec<TrustAnchor<'static>>>,
    /// Counts changes of the roots, and of who signs: a connection made before takes no new request.
    roots_generation: AtomicU64,
    /// Tells of them.
    roots_changed: watch::Sender<u64>,
    clients: Mutex<HashMap<SpiffeId, Arc<ClientConfig>>>,
    /// Who is believed no more, however long his certificates would be good.
    revoked: ArcSwap<BTreeSet<SpiffeId>>,
}

struct Svid {
    key: Arc<CertifiedKey>,
    not_after: SystemTime,
    /// The name of who signed it, in DER.
    issuer: Vec<u8>,
}

impl fmt::Debug for Identities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identities")
            .field("trust_domain", &self.trust_domain)
            .field("svids", &self.svids.load().len())
            .finish_non_exhaustive()
    }
}

impl Identities {
    pub(crate) fn new(trust_domain: String) -> Self {
        Self {
            trust_domain,
            provider: Arc::new(aws_lc_rs::default_provider()),
            svids: ArcSwap::default(),
            roots: ArcSwap::default(),
            roots_generation: AtomicU64::new(0),
            roots_changed: watch::Sender::new(0),
            clients: Mutex::new(HashMap::new()),
            revoked: ArcSwap::default(),
        }
    }

    /// Replaces whom nobody believes any more: no new connection of theirs is taken or made from now on, and those that are open end within half
    /// a minute.
    pub(crate) fn set_revoked(&self, revoked: BTreeSet<SpiffeId>) {
        self.revoked.store(Arc::new(revoked));
    }

    /// Whether there is anybody of whom that has to be asked.
    pub(crate) fn has_revoked(&self) -> bool {
        !self.revoked.load().is_empty()
    }

    /// Sets or renews the certificate of `identity`: leaf first, DER. New connections use it at once; where another authority signed it than before,
    /// those that are open take no new request, so that nothing rests on the older one any more when it is forgotten.
    ///
    /// # Errors
    /// When the leaf is not for exactly that identity, or the key does not fit.
    pub fn set(
        &self,
        identity: SpiffeId,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<(), SvidError> {
        let leaf = chain.first().ok_or(SvidError::Empty)?;
        let found = spiffe_id(leaf).map_err(|reason| SvidError::Malformed { reason })?;
        if found != identity {
            return Err(SvidError::WrongIdentity {
                expected: identity.to_string(),
                found: found.to_string(),
            });
        }
        let (not_after, issuer) = (not_after(leaf)?, issuer(leaf)?);
        let key = CertifiedKey::from_der(chain, key, &self.provider).map_err(SvidError::Key)?;
        let svid = Arc::new(Svid {
            key: Arc::new(key),
            not_after,
            issuer,
        });
        let before = self.svids.load().get(&identity).cloned();
        self.svids.rcu(|svids| {
            let mut svids = HashMap::clone(svids);
            svids.insert(identity.clone(), Arc::clone(&svid));
            svids
        });
        if before.is_some_and(|before| before.issuer != svid.issuer) {
            self.connect_anew();
        }
        Ok(())
    }

    /// As [`Identities::set`], from PEM.
    ///
    /// # Errors
    /// As there, and when the text is not PEM.
    pub fn set_pem(&self, identity: SpiffeId, chain: &[u8], key: &[u8]) -> Result<(), SvidError> {
        let chain = CertificateDer::pem_slice_iter(chain)
            .collect::<Result<Vec<_>, _>>()
            .map_err(SvidError::Pem)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(SvidError::Pem)?;
        self.set(identity, chain, key)
    }

    /// Forgets the certificate of an identity that no longer runs here.
    pub fn remove(&self, identity: &SpiffeId) {
        self.svids.rcu(|svids| {
            let mut svids = HashMap::clone(svids);
            svids.remove(identity);
            svids
        });
        self.clients.lock().remove(identity);
    }

    /// Until when the certificate of `identity` is valid, if there is one.
    #[must_use]
    pub fn expires(&self, identity: &SpiffeId) -> Option<SystemTime> {
        self.svids.load().get(identity).map(|svid| svid.not_after)
    }

    /// Every identity held, with its expiry.
    #[must_use]
    pub fn all(&self) -> Vec<(SpiffeId, SystemTime)> {
        let svids = self.svids.load();
        let mut all: Vec<_> = svids
            .iter()
            .map(|(identity, svid)| (identity.clone(), svid.not_after))
            .collect();
        all.sort();
        all
    }

    /// Replaces the roots that peers are checked against. When they differ, connections to other nodes finish their requests and take
    /// no new ones; those from other nodes go on if their callers' certificates lead to a new root, and are ended otherwise.
    ///
    /// # Errors
    /// When one of them is not a certificate; then nothing changes.
    pub fn set_roots(&self, roots: &[CertificateDer<'_>]) -> Result<(), SvidError> {
        let anchors = roots
            .iter()
            .map(|root| {
                webpki::anchor_from_trusted_cert(root)
                    .map(|anchor| anchor.to_owned())
                    .map_err(|error| SvidError::Malformed {
                        reason: error.to_string(),
                    })
            })
            .collect::<Result<Vec<_>, _>>()?;
        if **self.roots.load() == anchors {
            return Ok(());
        }
        self.roots.store(Arc::new(anchors));
        self.connect_anew();
        Ok(())
    }

    /// Has connections that are open take no new request.
    fn connect_anew(&self) {
        let generation = self.roots_generation.fetch_add(1, Ordering::Release) + 1;
        self.roots_changed.send_replace(generation);
    }

    /// As [`Identities::set_roots`], from a PEM bundle.
    ///
    /// # Errors
    /// As there, and when the text is not PEM.
    pub fn set_roots_pem(&self, bundle: &[u8]) -> Result<(), SvidError> {
        let roots = CertificateDer::pem_slice_iter(bundle)
            .collect::<Result<Vec<_>, _>>()
            .map_err(SvidError::Pem)?;
        self.set_roots(&roots)
    }

    pub(crate) fn roots_generation(&self) -> u64 {
        self.roots_generation.load(Ordering::Acquire)
    }

    /// Sees each change of the roots from now on.
    pub(crate) fn watch_roots(&self) -> watch::Receiver<u64> {
        self.roots_changed.subscribe()
    }

    /// Whether a caller with this chain, leaf first, would be accepted now.
    pub(crate) fn trusts_client(&self, chain: &[CertificateDer<'_>]) -> bool {
        let Some((leaf, intermediates)) = chain.split_first() else {
            return false;
        };
        let usage = webpki::KeyUsage::client_auth();
        self.verify(leaf, intermediates, UnixTime::now(), usage)
            .is_ok()
    }

    /// TLS of the listener for other nodes. Follows changes of certificates and roots by itself.
    pub(crate) fn server_config(self: &Arc<Self>) -> Result<ServerConfig, rustls::Error> {
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(Arc::new(Verifier(Arc::clone(self))))
            .with_cert_resolver(Arc::new(PresentNamed(Arc::clone(self))));
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(config)
    }

    /// TLS of a connection on behalf of `source`.
    pub(crate) fn client_config(
        self: &Arc<Self>,
        source: &SpiffeId,
    ) -> Result<Arc<ClientConfig>, Failure> {
        let missing = || {
            let message = format!("this node holds no certificate for {source}");
            Failure::new(FailureKind::Unreachable, message).with_blame(Blame::Caller)
        };
        if !self.svids.load().contains_key(source) {
            return Err(missing());
        }
        let mut clients = self.clients.lock();
        if let Some(config) = clients.get(source) {
            return Ok(Arc::clone(config));
        }
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|_| missing())?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Verifier(Arc::clone(self))))
            .with_client_cert_resolver(Arc::new(PresentOne {
                identities: Arc::clone(self),
                identity: source.clone(),
            }));
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.resumption = Resumption::disabled();
        let config = Arc::new(config);
        clients.insert(source.clone(), Arc::clone(&config));
        Ok(config)
    }

    /// Checks chain, validity and the one identity of a peer's certificate.
    fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        usage: webpki::KeyUsage,
    ) -> Result<SpiffeId, rustls::Error> {
        let bad = |error: CertificateError| rustls::Error::InvalidCertificate(error);
        let certificate = webpki::EndEntityCert::try_from(leaf)
            .map_err(|_| bad(CertificateError::BadEncoding))?;
        certificate
            .verify_for_usage(
                self.provider.signature_verification_algorithms.all,
                &self.roots.load(),
                intermediates,
                now,
                usage,
                None,
                None,
            )
            .map_err(|error| {
                bad(match error {
                    webpki::Error::CertExpired { .. } => CertificateError::Expired,
                    webpki::Error::CertNotValidYet { .. } => CertificateError::NotValidYet,
                    webpki::Error::UnknownIssuer => CertificateError::UnknownIssuer,
                    other => CertificateError::Other(rustls::OtherError(Arc::new(other))),
                })
            })?;
        let identity =
            spiffe_id(leaf).map_err(|_| bad(CertificateError::ApplicationVerificationFailure))?;
        if identity.trust_domain != self.trust_domain {
            return Err(bad(CertificateError::ApplicationVerificationFailure));
        }
        if self.revoked.load().contains(&identity) {
            return Err(bad(CertificateError::Revoked));
        }
        Ok(identity)
    }

    fn verify_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            certificate,
            signed,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// The name by which a client asks for the certificate of `identity`.
///
/// # Errors
/// When the names are too long for a DNS name.
pub fn server_name(identity: &SpiffeId) -> Result<ServerName<'static>, Failure> {
    let name = format!(
        "{}.{}{SNI_SUFFIX}",
        identity.service_account, identity.namespace
    );
    ServerName::try_from(name).map_err(|_| {
        let message = format!("{identity} cannot be expressed as a TLS server name");
        Failure::new(FailureKind::Unreachable, message).with_blame(Blame::Caller)
    })
}

/// The identity that a server name asks for. Namespaces have no dots; ServiceAccounts may.
pub(crate) fn named_identity(server_name: &str, trust_domain: &str) -> Option<SpiffeId> {
    let (account, namespace) = server_name.strip_suffix(SNI_SUFFIX)?.rsplit_once('.')?;
    Some(SpiffeId::new(trust_domain, namespace, account))
}

/// The identity in a certificate, which must have exactly one URI name. The chain is not checked here.
pub(crate) fn spiffe_id(certificate: &CertificateDer<'_>) -> Result<SpiffeId, String> {
    let certificate =
        webpki::EndEntityCert::try_from(certificate).map_err(|error| error.to_string())?;
    let mut uris = certificate.valid_uri_names();
    match (uris.next(), uris.next()) {
        (Some(only), None) => only
            .parse()
            .map_err(|error: weft_api::identity::SpiffeIdError| error.to_string()),
        (None, _) => Err("it has no URI name".to_owned()),
        (Some(_), Some(_)) => Err("it has more than one URI name".to_owned()),
    }
}

/// The name of who signed a certificate, in DER.
fn issuer(certificate: &CertificateDer<'_>) -> Result<Vec<u8>, SvidError> {
    let (_, parsed) =
        x509_parser::parse_x509_certificate(certificate).map_err(|error| SvidError::Malformed {
            reason: error.to_string(),
        })?;
    Ok(parsed.issuer().as_raw().to_vec())
}

pub(crate) fn not_after(certificate: &CertificateDer<'_>) -> Result<SystemTime, SvidError> {
    let (_, parsed) =
        x509_parser::parse_x509_certificate(certificate).map_err(|error| SvidError::Malformed {
            reason: error.to_string(),
        })?;
    let seconds = u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or(0);
    Ok(UNIX_EPOCH + Duration::from_secs(seconds))
}

/// Verifies peers of either side.
#[derive(Debug)]
struct Verifier(Arc<Identities>);

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let found = self
            .0
            .verify(leaf, intermediates, now, webpki::KeyUsage::server_auth())?;
        let meant = match server_name {
            ServerName::DnsName(name) => named_identity(name.as_ref(), &self.0.trust_domain),
            _ => None,
        };
        if meant.as_ref() == Some(&found) {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName,
            ))
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General(
            "TLS 1.2 is not spoken here".to_owned(),
        ))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.schemes()
    }
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.0
            .verify(leaf, intermediates, now, webpki::KeyUsage::client_auth())
            .map(|_| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General(
            "TLS 1.2 is not spoken here".to_owned(),
        ))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.schemes()
    }
}

/// Presents the certificate that the client asks for by name.
#[derive(Debug)]
struct PresentNamed(Arc<Identities>);

impl ResolvesServerCert for PresentNamed {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let identity = named_identity(hello.server_name()?, &self.0.trust_domain)?;
        let svids = self.0.svids.load();
        svids.get(&identity).map(|svid| Arc::clone(&svid.key))
    }
}

/// Presents the certificate of one workload.
#[derive(Debug)]
struct PresentOne {
    identities: Arc<Identities>,
    identity: SpiffeId,
}

impl ResolvesClientCert for PresentOne {
    fn resolve(
        &self,
        _root_hint_subjects: &[&[u8]],
        _schemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        let svids = self.identities.svids.load();
        svids.get(&self.identity).map(|svid| Arc::clone(&svid.key))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_names_stand_for_identities() {
        for (account, namespace, text) in [
            ("web", "vote", "web.vote.sa.weft"),
            ("my.robot", "vote", "my.robot.vote.sa.weft"),
        ] {
            let identity = SpiffeId::new("cluster.local", namespace, account);
            let name = server_name(&identity).expect("short enough");
            assert_eq!(name.to_str(), text);
            assert_eq!(named_identity(text, "cluster.local"), Some(identity));
        }
        for text in ["web.vote", "web.sa.weft", "example.com"] {
            assert_eq!(named_identity(text, "cluster.local"), None, "{text}");
        }
        let long = SpiffeId::new("cluster.local", "ns", &"a".repeat(100));
        assert!(server_name(&long).is_err());
    }
}
