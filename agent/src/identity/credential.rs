//! A certificate with its key, and the file in which it outlives the process.
//!
//! Invariants: the file is its owner's alone to read (mode 0600), and is replaced in one step, so that certificate and key always belong together.

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use super::IdentityError;

/// Part of the half-life by which a renewal may come early: ten percent.
const JITTER: f64 = 0.1;
/// A stored certificate with less than this left is not worth connecting with.
const LEFT_MIN: Duration = Duration::from_secs(60);
/// Of the node itself.
pub(super) const CERTIFICATE_FILE: &str = "node-client.pem";
/// Of the gateway's identity.
pub(super) const GATEWAY_FILE: &str = "gateway.pem";

/// A certificate with its key.
pub struct Credential {
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKeyDer<'static>,
    pub(super) chain_pem: String,
    pub(super) key_pem: String,
    pub(super) renew_at: Timestamp,
    pub(super) expires_at: Timestamp,
}

impl Credential {
    pub(super) fn from_pem(chain_pem: String, key_pem: String) -> Result<Self, IdentityError> {
        let bad = |reason: String| IdentityError::BadCertificate { reason };
        let chain: Vec<_> = CertificateDer::pem_slice_iter(chain_pem.as_bytes())
            .filter_map(Result::ok)
            .collect();
        let leaf = chain.first().ok_or_else(|| bad("it is empty".into()))?;
        let (_, parsed) =
            x509_parser::parse_x509_certificate(leaf).map_err(|error| bad(error.to_string()))?;
        let seconds = |time: x509_parser::time::ASN1Time| {
            Timestamp::from_second(time.timestamp()).map_err(|error| bad(error.to_string()))
        };
        let (begin, expires_at) = (
            seconds(parsed.validity().not_before)?,
            seconds(parsed.validity().not_after)?,
        );
        // `not_before` is set back by some authorities; what counts is the life from now.
        let begin = begin.max(Timestamp::now());
        let half =
            Duration::try_from(expires_at.duration_since(begin)).unwrap_or(Duration::ZERO) / 2;
        let early = half.mul_f64(JITTER * rand::random::<f64>());
        let key = PrivatePkcs8KeyDer::from_pem_slice(key_pem.as_bytes())
            .map_err(|_| bad("its key is not PKCS#8 PEM".into()))?;
        Ok(Self {
            renew_at: crate::pod_state::later(begin, half - early),
            expires_at,
            key: PrivateKeyDer::Pkcs8(key),
            chain,
            chain_pem,
            key_pem,
        })
    }

    /// Whether it is worth connecting with.
    pub(super) fn is_good(&self) -> bool {
        crate::pod_state::later(Timestamp::now(), LEFT_MIN) < self.expires_at
    }
}

/// Whether it is a node's of that name.
pub(super) fn belongs_to(chain: &[CertificateDer<'static>], node: &str) -> bool {
    let Some(leaf) = chain.first() else {
        return false;
    };
    let Ok((_, parsed)) = x509_parser::parse_x509_certificate(leaf) else {
        return false;
    };
    let wanted = format!("system:node:{node}");
    parsed
        .subject()
        .iter_common_name()
        .any(|name| name.as_str() == Ok(wanted.as_str()))
}

/// The stored certificate, if there is one; it may be over.
pub(super) fn load(folder: &Path, file: &str) -> Option<Credential> {
    let text = std::fs::read_to_string(folder.join(file)).ok()?;
    let at = text.find("-----BEGIN PRIVATE KEY-----")?;
    let (chain, key) = text.split_at(at);
    Credential::from_pem(chain.to_owned(), key.to_owned()).ok()
}

/// Keeps certificate and key.
///
/// # Errors
/// When the file cannot be written.
pub(super) fn store(
    folder: &Path,
    file: &str,
    credential: &Credential,
) -> Result<(), IdentityError> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let path = folder.join(file);
    let temporary = folder.join(format!("{file}.new"));
    let write = || -> std::io::Result<()> {
        std::fs::create_dir_all(folder)?;
        // An old temporary file may have other permissions.
        match std::fs::remove_file(&temporary) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(credential.chain_pem.as_bytes())?;
        if !credential.chain_pem.ends_with('\n') {
            file.write_all(b"\n")?;
        }
        file.write_all(credential.key_pem.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&temporary, &path)
    };
    write().map_err(|source| IdentityError::File {
        path: path.clone(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn self_signed(node: &str) -> Credential {
        let mut parameters =
            rcgen::CertificateParams::new(Vec::<String>::new()).expect("parameters");
        parameters
            .distinguished_name
            .push(rcgen::DnType::CommonName, format!("system:node:{node}"));
        let key = rcgen::KeyPair::generate().expect("a key");
        let certificate = parameters.self_signed(&key).expect("a certificate");
        Credential::from_pem(certificate.pem(), key.serialize_pem()).expect("a credential")
    }

    #[test]
    fn the_node_certificate_survives_a_restart_and_only_its_owner_reads_it() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().expect("a folder");
        store(folder.path(), CERTIFICATE_FILE, &self_signed("node-0")).expect("stored");
        let mode = std::fs::metadata(folder.path().join(CERTIFICATE_FILE))
            .expect("a file")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        let loaded = load(folder.path(), CERTIFICATE_FILE).expect("loads");
        assert!(belongs_to(&loaded.chain, "node-0"));
        assert!(!belongs_to(&loaded.chain, "node-1"));
        assert!(loaded.renew_at > Timestamp::now() && loaded.renew_at < loaded.expires_at);
    }

    #[test]
    fn a_torn_certificate_file_is_no_certificate() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join(CERTIFICATE_FILE), "-----BEGIN CERT").expect("written");
        assert!(load(folder.path(), CERTIFICATE_FILE).is_none());
    }
}
