//! One authority after the other: a successor that its predecessors signed for, and the step from one to the next on disk and in memory.
//!
//! A successor signs from the beginning. Nobody has to hear of it first, because each of its predecessors signed for it: whoever trusts one of
//! those finds the way from a new leaf by the certificate beside it. Once everybody trusts the successor itself, its predecessors are forgotten.
//!
//! ```text
//! leaf ◄── successor                         for those who know it
//! leaf ◄── successor ◄── predecessor         for those who know only that one
//! ```
//! Invariants: a crash between two files leaves what the next start finishes (`ca-next.pem`); an authority and its key never come apart.
//! Left to others: what the servers agreed on (`crate::roots`).

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use jiff::Timestamp;
use rcgen::{Issuer, KeyPair};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;

use super::pair::{write, write_pair};
use super::{Authority, CaError, Credentials, Signing, as_authority, named_for, open_or_create_ca};

/// Those before the authority that are trusted still.
pub(super) const FORMER: &str = "ca-former.crt";
/// The authority as they signed for it.
const CROSS: &str = "ca-cross.crt";
/// An authority that is about to take the place of `ca`.
const NEXT: &str = "ca-next.pem";
/// Where the key begins in it.
const KEY: &str = "-----BEGIN PRIVATE KEY-----";
/// Of a digest, as much as names an authority.
const DIGEST_BYTES: usize = 12;

/// An authority with its key, as servers share it.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Root {
    /// PEM.
    pub certificate: String,
    key: String,
    pub created: Timestamp,
    /// It, as each of its predecessors signed for it, by the predecessor's digest; PEM.
    #[serde(default)]
    cross: BTreeMap<String, String>,
}

/// An authority as everybody may see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Named {
    pub id: String,
    /// PEM.
    pub certificate: String,
    /// Whether it is the one that signs.
    pub signs: bool,
}

/// Names a certificate: the start of its SHA-256, in hexadecimal digits.
fn digest(certificate: &CertificateDer<'_>) -> String {
    let digest = Sha256::digest(certificate);
    let digest = digest.iter().take(DIGEST_BYTES);
    digest.map(|byte| format!("{byte:02x}")).collect()
}

impl Root {
    pub(crate) fn id(&self) -> Option<String> {
        let certificate = CertificateDer::from_pem_slice(self.certificate.as_bytes()).ok()?;
        Some(digest(&certificate))
    }
}

impl Authority {
    /// All that are trusted, the one that signs first.
    pub(crate) fn named(&self) -> Vec<Named> {
        let signing = self.signing();
        let all = std::iter::once(&signing.der).chain(&signing.former);
        let all = all.zip(std::iter::once(true).chain(std::iter::repeat(false)));
        let named = all.map(|(certificate, signs)| Named {
            id: digest(certificate),
            certificate: super::issue::pem(certificate),
            signs,
        });
        named.collect()
    }

    /// [`Authority::vouches_for`], at this time.
    pub(crate) fn trusts_client(&self, chain: &[CertificateDer<'_>]) -> bool {
        self.vouches_for(chain, rustls_pki_types::UnixTime::now())
    }

    /// This authority with its key, as servers share it.
    ///
    /// # Errors
    /// When its files cannot be read.
    pub(crate) fn shared(&self) -> Result<Root, CaError> {
        let Credentials {
            certificate_pem,
            key_pem,
        } = self.credentials()?;
        Ok(Root {
            certificate: certificate_pem,
            key: key_pem,
            created: Timestamp::now(),
            cross: BTreeMap::new(),
        })
    }

    /// Makes one that follows `predecessors`.
    ///
    /// # Errors
    /// When one of these is unusable.
    pub(crate) fn successor(&self, predecessors: &[Root]) -> Result<Root, CaError> {
        let now = OffsetDateTime::now_utc();
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let mut params = named_for(&self.0.trust_domain, now)?;
        let name = format!("{} {}", uuid::Uuid::new_v4(), now.unix_timestamp());
        // Two of one second are two all the same.
        params
            .distinguished_name
            .push(rcgen::DnType::OrganizationalUnitName, name);
        as_authority(&mut params, now);
        let certificate = params.self_signed(&key)?.pem();
        let mut cross = BTreeMap::new();
        for predecessor in predecessors {
            let unusable = || CaError::Unusable {
                what: "CA certificate",
                path: self.0.dir.clone(),
            };
            let der = CertificateDer::from_pem_slice(predecessor.certificate.as_bytes())
                .map_err(|_| unusable())?;
            let issuer = KeyPair::from_pem(&predecessor.key).map_err(|_| unusable())?;
            let issuer = Issuer::from_ca_cert_der(&der, issuer)?;
            cross.insert(digest(&der), params.signed_by(&key, &issuer)?.pem());
        }
        Ok(Root {
            certificate,
            key: key.serialize_pem(),
            created: Timestamp::now(),
            cross,
        })
    }

    /// Has the last of `roots` sign from now on, and the others be trusted beside it. Whether that is news.
    ///
    /// # Errors
    /// When a file cannot be written, or a root is unusable; then all is as before.
    pub(crate) fn follow(&self, roots: &[Root]) -> Result<bool, CaError> {
        let Some((newest, former)) = roots.split_last() else {
            return Ok(false);
        };
        let joined = |mut all: String, one: &str| {
            all.push_str(one.trim_end());
            all.push('\n');
            all
        };
        let newer_first = former.iter().rev();
        let cross = newer_first
            .clone()
            .filter_map(|one| newest.cross.get(&one.id()?));
        let cross = cross.fold(String::new(), |all, one| joined(all, one));
        let former = newer_first.fold(String::new(), |all, one| joined(all, &one.certificate));
        let before = self.signing();
        let wanted = joined(String::new(), &newest.certificate) + &former;
        if *before.bundle == wanted && before.cross == cross {
            return Ok(false);
        }
        let dir = &self.0.dir;
        write(&dir.join(FORMER), &former, 0o644)?;
        write(&dir.join(CROSS), &cross, 0o644)?;
        let next = joined(String::new(), &newest.certificate) + &newest.key;
        write(&dir.join(NEXT), &next, 0o600)?;
        finish(dir)?;
        let now = OffsetDateTime::now_utc();
        let ca = open_or_create_ca(dir, "ca", now, || named_for(&self.0.trust_domain, now))?;
        let signing = Signing::new(dir, ca, former, cross, now)?;
        tracing::info!(
            signs = digest(&signing.der),
            trusted = signing.former.len() + 1,
            "the cluster's authority is another"
        );
        let bundle = Arc::clone(&signing.bundle);
        *self.0.now.write() = Arc::new(signing);
        self.0.generation.fetch_add(1, Ordering::Release);
        self.0.trusted.send_replace(bundle);
        Ok(true)
    }
}

/// Ends a succession that was begun.
pub(super) fn finish(dir: &Path) -> Result<(), CaError> {
    let path = dir.join(NEXT);
    let next = read(&path)?;
    let Some((certificate, _)) = next.split_once(KEY) else {
        // None was begun.
        return Ok(());
    };
    let pair = Credentials {
        certificate_pem: certificate.to_owned(),
        key_pem: next.get(certificate.len()..).unwrap_or_default().to_owned(),
    };
    write_pair(dir, "ca", &pair)?;
    fs::remove_file(&path).map_err(|source| CaError::File {
        action: "removing",
        path,
        source,
    })
}

/// Who is trusted beside the authority, and what leads from them to it; both PEM, and empty where nobody is.
pub(super) fn kept(dir: &Path) -> Result<(String, String), CaError> {
    Ok((read(&dir.join(FORMER))?, read(&dir.join(CROSS))?))
}

fn read(path: &Path) -> Result<String, CaError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(source) => Err(CaError::File {
            action: "reading",
            path: path.to_owned(),
            source,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ca::Leaf;

    fn chain(authority: &Authority, name: &str) -> Vec<CertificateDer<'static>> {
        let leaf = Leaf {
            common_name: Some(name),
            organisation: None,
            names: Vec::new(),
            server: false,
            client: true,
            life: time::Duration::days(1),
        };
        authority.keep(name, &leaf).unwrap().0
    }

    /// What a server knows that was told nothing of successions yet.
    fn only(dir: &Path, root: &Root) -> Authority {
        let pair = Credentials {
            certificate_pem: root.certificate.clone(),
            key_pem: root.key.clone(),
        };
        Authority::install(dir, &pair).unwrap();
        Authority::open_or_create(dir, "cluster.local").unwrap()
    }

    #[test]
    fn whoever_trusts_a_predecessor_believes_the_successor_until_it_is_forgotten() {
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let authority = Authority::open_or_create(dir.path(), "cluster.local").unwrap();
        let first = authority.shared().unwrap();
        let knows_first = only(other.path(), &first);
        let of_first = chain(&authority, "a");
        assert_eq!(of_first.len(), 1);

        let second = authority.successor(std::slice::from_ref(&first)).unwrap();
        let changes = authority.trusted();
        assert!(authority.follow(&[first.clone(), second.clone()]).unwrap());
        assert!(!authority.follow(&[first.clone(), second.clone()]).unwrap());
        assert!(changes.has_changed().unwrap());
        let of_second = chain(&authority, "a");
        assert_eq!(of_second.len(), 2, "with the way from the first");
        for (chain, who) in [(&of_first, "first"), (&of_second, "second")] {
            assert!(authority.trusts_client(chain), "{who}");
            assert!(knows_first.trusts_client(chain), "{who} by its predecessor");
        }

        // A third, before the first was forgotten: it has ways from both.
        let both = [first.clone(), second.clone()];
        let third = authority.successor(&both).unwrap();
        let all = [first, second.clone(), third.clone()];
        assert!(authority.follow(&all).unwrap());
        let of_third = chain(&authority, "a");
        assert_eq!(of_third.len(), 3);
        assert!(knows_first.trusts_client(&of_third));
        assert!(authority.trusts_client(&of_first));

        // The next start knows the same.
        let again = Authority::open_or_create(dir.path(), "cluster.local").unwrap();
        assert_eq!(again.named(), authority.named());
        assert_eq!(again.named().len(), 3);
        assert!(again.trusts_client(&of_first) && again.trusts_client(&of_third));

        assert!(authority.follow(&[third]).unwrap());
        assert!(!authority.trusts_client(&of_first) && !authority.trusts_client(&of_second[..1]));
        assert!(authority.trusts_client(&of_third));
        assert_eq!(authority.named().len(), 1);
    }

    #[test]
    fn a_succession_that_broke_off_is_finished_at_the_next_start() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::open_or_create(dir.path(), "cluster.local").unwrap();
        let first = authority.shared().unwrap();
        let second = authority.successor(&[first]).unwrap();
        let next = format!("{}{}", second.certificate, second.key);
        write(&dir.path().join(NEXT), &next, 0o600).unwrap();
        // It got as far as the key.
        write(&dir.path().join("ca.key"), &second.key, 0o600).unwrap();
        let again = Authority::open_or_create(dir.path(), "cluster.local").unwrap();
        assert_eq!(Some(again.named()[0].id.clone()), second.id());
        assert!(!dir.path().join(NEXT).exists());
    }
}
