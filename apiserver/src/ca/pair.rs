//! Certificates with their keys, as the files of a folder: `NAME.crt` and `NAME.key`.
//!
//! Invariants: a private key is written with mode 0600; a reader sees a file's old content or its new; the key is written first, so that a crash
//! in between leaves a pair that does not match, which is replaced like one that is missing.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use rcgen::KeyPair;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::CaError;

/// A certificate chain and its private key, in PEM.
#[derive(Clone)]
pub struct Credentials {
    pub certificate_pem: String,
    pub key_pem: String,
}

impl Credentials {
    pub(super) fn parse(
        &self,
        dir: &Path,
        name: &str,
    ) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), CaError> {
        let chain: Result<Vec<_>, _> =
            CertificateDer::pem_slice_iter(self.certificate_pem.as_bytes()).collect();
        let chain = chain.map_err(|_| CaError::Unusable {
            what: "certificate",
            path: dir.join(format!("{name}.crt")),
        })?;
        let key = PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes()).map_err(|_| {
            CaError::Unusable {
                what: "private key",
                path: dir.join(format!("{name}.key")),
            }
        })?;
        Ok((chain, key))
    }
}

pub(super) fn create_folder(dir: &Path) -> Result<(), CaError> {
    let mut folder = fs::DirBuilder::new();
    let created = folder.recursive(true).mode(0o700).create(dir);
    created.map_err(|source| CaError::File {
        action: "creating",
        path: dir.to_owned(),
        source,
    })
}

pub(super) fn read_pair(dir: &Path, name: &str) -> Result<Option<Credentials>, CaError> {
    let read = |suffix: &str| {
        let path = dir.join(format!("{name}.{suffix}"));
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(CaError::File {
                action: "reading",
                path,
                source,
            }),
        }
    };
    match (read("crt")?, read("key")?) {
        (Some(certificate_pem), Some(key_pem)) => Ok(Some(Credentials {
            certificate_pem,
            key_pem,
        })),
        // A CA without its key, or the reverse, is a half-restored backup: making a new one would orphan the cluster.
        (Some(_), None) if name == "ca" => Err(CaError::Unusable {
            what: "private key",
            path: dir.join("ca.key"),
        }),
        // Key first, certificate last: a lone key was never used.
        _ => Ok(None),
    }
}

pub(super) fn write_pair(dir: &Path, name: &str, pair: &Credentials) -> Result<(), CaError> {
    write(&dir.join(format!("{name}.key")), &pair.key_pem, 0o600)?;
    write(
        &dir.join(format!("{name}.crt")),
        &pair.certificate_pem,
        0o644,
    )?;
    fs::File::open(dir)
        .and_then(|folder| folder.sync_all())
        .map_err(|source| CaError::File {
            action: "syncing",
            path: dir.to_owned(),
            source,
        })
}

/// Writes beside and renames, so that a reader sees the old content or the new.
pub(super) fn write(path: &Path, text: &str, mode: u32) -> Result<(), CaError> {
    let beside = path.with_extension("tmp");
    let attempt = || {
        match fs::remove_file(&beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&beside)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&beside, path)
    };
    attempt().map_err(|source| CaError::File {
        action: "writing",
        path: path.to_owned(),
        source,
    })
}

pub(super) fn key_pair(pem: &str, dir: &Path, name: &str) -> Result<KeyPair, CaError> {
    KeyPair::from_pem(pem).map_err(|_| CaError::Unusable {
        what: "private key",
        path: dir.join(format!("{name}.key")),
    })
}
