//! Nodes that were away for longer than their certificates are good: how they prove themselves, once more, by one that is over.
//!
//! A node's certificate lives for a day, and one that was switched off for longer has nothing else but its key. For [`LAPSED_MAX`] a handshake takes
//! what is over from a node, and from nobody else. Whoever asks by it is not that node but [`crate::caller::Caller::lapsed_node`], who may ask for a
//! new certificate of the same name, and for nothing besides (`crate::authz`); it is signed if the Node is still there (`crate::certificates`).
//!
//! Invariants: of what is over everything but the time is verified as of anything else, by the authorities that are trusted now; what a handshake
//! let in is judged again by the time of each request.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, UnixTime};
use x509_parser::certificate::X509Certificate;

/// For how long a node is known by what is over: holidays, and a machine that is repaired.
pub(crate) const LAPSED_MAX: SignedDuration = SignedDuration::from_hours(30 * 24);

/// A node whose certificate is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lapsed {
    pub node: String,
    /// When it was.
    pub ended: Timestamp,
}

/// What a certificate says of somebody, by its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It is not over.
    Good,
    /// It is, and a node's, and was not for too long.
    Lapsed(Lapsed),
    Over,
}

/// How a certificate of this cluster stands at `now`. That it is one was verified, but for its time.
pub(crate) fn standing(certificate: &X509Certificate<'_>, now: Timestamp) -> Standing {
    let ended = Timestamp::from_second(certificate.validity().not_after.timestamp());
    let Ok(ended) = ended else {
        return Standing::Over;
    };
    if now <= ended {
        return Standing::Good;
    }
    match node_of(certificate) {
        Some(node) if now.duration_since(ended) <= LAPSED_MAX => {
            let node = node.to_owned();
            Standing::Lapsed(Lapsed { node, ended })
        }
        _ => Standing::Over,
    }
}

/// The node that a certificate is of: its only group is that of nodes.
fn node_of<'c>(certificate: &'c X509Certificate<'_>) -> Option<&'c str> {
    let subject = certificate.subject();
    let mut groups = subject.iter_organization();
    let mut names = subject.iter_common_name();
    let (group, name) = (groups.next()?, names.next()?);
    let is_one = groups.next().is_none() && names.next().is_none();
    (is_one && group.as_str() == Ok("system:nodes"))
        .then(|| name.as_str().ok()?.strip_prefix("system:node:"))
        .flatten()
        .filter(|name| !name.is_empty())
}

/// The verifier of a listener, which takes from nodes what is over besides.
pub(super) fn tolerant(verifier: Arc<dyn ClientCertVerifier>) -> Arc<dyn ClientCertVerifier> {
    Arc::new(Tolerant(verifier))
}

#[derive(Debug)]
struct Tolerant(Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for Tolerant {
    fn offer_client_auth(&self) -> bool {
        self.0.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.0.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.0.verify_client_cert(leaf, intermediates, now);
        let Err(Error::InvalidCertificate(
            CertificateError::Expired | CertificateError::ExpiredContext { .. },
        )) = &verified
        else {
            return verified;
        };
        match last_good(leaf, now) {
            Some(then) => self.0.verify_client_cert(leaf, intermediates, then),
            None => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, leaf, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, leaf, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// The last moment of a node's certificate that is over at `now`; none of others, and of one that was for too long.
fn last_good(leaf: &CertificateDer<'_>, now: UnixTime) -> Option<UnixTime> {
    let (_, parsed) = x509_parser::parse_x509_certificate(leaf).ok()?;
    let now = Timestamp::from_second(i64::try_from(now.as_secs()).ok()?).ok()?;
    let Standing::Lapsed(Lapsed { ended, .. }) = standing(&parsed, now) else {
        return None;
    };
    let seconds = u64::try_from(ended.as_second()).ok()?;
    let seconds = std::time::Duration::from_secs(seconds);
    Some(UnixTime::since_unix_epoch(seconds))
}

#[cfg(test)]
mod tests {
    use rcgen::KeyPair;
    use rustls::server::WebPkiClientVerifier;
    use rustls_pki_types::pem::PemObject as _;
    use time::{Duration, OffsetDateTime};

    use super::*;
    use crate::ca::{Authority, Leaf};

    /// A month of a cluster's time: whose certificate of a day is taken at which hour after it was made.
    #[test]
    fn nodes_alone_are_known_by_what_is_over_and_not_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::open_or_create(&dir.path().join("a"), "cluster.local").unwrap();
        let other = Authority::open_or_create(&dir.path().join("b"), "cluster.local").unwrap();
        let made = OffsetDateTime::now_utc();
        let of_node = Leaf {
            common_name: Some("system:node:a"),
            organisation: Some("system:nodes"),
            names: Vec::new(),
            server: false,
            client: true,
            life: Duration::hours(24),
        };
        let served = Leaf {
            server: true,
            client: false,
            names: Vec::new(),
            ..of_node
        };
        let of_user = Leaf {
            common_name: Some("jo"),
            names: Vec::new(),
            ..of_node
        };
        let of_master = Leaf {
            organisation: Some("system:masters"),
            names: Vec::new(),
            ..of_node
        };
        let of_workload = Leaf {
            common_name: None,
            organisation: None,
            names: Vec::new(),
            ..of_node
        };
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let roots = Arc::new(authority.roots().unwrap());
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
        let verifier = tolerant(verifier.build().unwrap());
        let minutes = |hours: i64| hours * 60;
        let last = minutes(24 + 30 * 24);
        for (who, authority, leaf, taken_until) in [
            ("a node", &authority, &of_node, last),
            ("a node's server", &authority, &served, i64::MIN),
            ("a user", &authority, &of_user, minutes(24)),
            ("an administrator", &authority, &of_master, minutes(24)),
            ("a workload", &authority, &of_workload, minutes(24)),
            ("a node of others", &other, &of_node, i64::MIN),
        ] {
            let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
            let pem = authority.sign(leaf, &key, made).unwrap();
            let signed = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
            // Ten minutes of clocks that differ are nothing, in either direction.
            for at in [
                -10,
                0,
                minutes(24) - 1,
                minutes(24) + 1,
                minutes(240),
                last - 1,
                last + 1,
                minutes(9000),
            ] {
                let now = made.unix_timestamp() + 60 * at;
                let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(
                    now.try_into().unwrap(),
                ));
                let found = verifier.verify_client_cert(&signed, &[], now);
                assert_eq!(
                    found.is_ok(),
                    at <= taken_until,
                    "{who}, {at} minutes on: {found:?}"
                );
            }
        }
    }

    #[test]
    fn only_who_is_nothing_but_a_node_is_one() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::open_or_create(dir.path(), "cluster.local").unwrap();
        let made = OffsetDateTime::now_utc();
        for (organisation, common_name, expected) in [
            (Some("system:nodes"), Some("system:node:a"), Some("a")),
            (Some("system:nodes"), Some("system:node:"), None),
            (Some("system:nodes"), Some("a"), None),
            (Some("system:nodes"), None, None),
            (Some("system:masters"), Some("system:node:a"), None),
            (None, Some("system:node:a"), None),
        ] {
            let leaf = Leaf {
                common_name,
                organisation,
                names: Vec::new(),
                server: false,
                client: true,
                life: Duration::hours(1),
            };
            let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
            let pem = authority.sign(&leaf, &key, made).unwrap();
            let signed = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
            let (_, parsed) = x509_parser::parse_x509_certificate(&signed).unwrap();
            assert_eq!(
                node_of(&parsed),
                expected,
                "{organisation:?} {common_name:?}"
            );
        }
    }
}
