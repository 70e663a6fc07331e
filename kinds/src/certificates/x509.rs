//! What rules ask of keys, requests and certificates, read out of their DER.
//!
//! Pure: bytes in, facts out; no chain is verified. What Go's `crypto/x509` does not read is not read here either, as far as rules
//! tell of it. Bounds on what is read are the callers'.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA384_ASN1, ECDSA_P384_SHA256_ASN1, ECDSA_P384_SHA384_ASN1,
    ECDSA_P521_SHA256_ASN1, ECDSA_P521_SHA512_ASN1, ED25519, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, UnparsedPublicKey,
    VerificationAlgorithm,
};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::public_key::PublicKey as Parsed;
use x509_parser::x509::SubjectPublicKeyInfo;

/// What sort of key it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sort {
    Ed25519,
    /// By the name of its curve.
    Elliptic(&'static str),
    /// By the bits of its modulus.
    Rsa(usize),
    Other,
}

/// A public key.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct PublicKey {
    pub sort: Sort,
    bytes: Vec<u8>,
}

/// A request for a certificate (PKCS #10).
pub(super) struct Request {
    pub key: PublicKey,
    pub organisations: Vec<String>,
    /// Whether its own key signed it.
    pub is_signed: bool,
}

/// A certificate.
pub(super) struct Certificate {
    pub key: PublicKey,
    pub is_authority: bool,
    /// Seconds since 1970.
    pub not_before: i64,
    pub not_after: i64,
    pub dns_names: Vec<String>,
    pub email_addresses: Vec<String>,
}

const CURVES: &[(&str, &str)] = &[
    ("1.3.132.0.33", "P-224"),
    ("1.2.840.10045.3.1.7", "P-256"),
    ("1.3.132.0.34", "P-384"),
    ("1.3.132.0.35", "P-521"),
];

impl PublicKey {
    fn of(info: &SubjectPublicKeyInfo<'_>) -> Option<Self> {
        let algorithm = &info.algorithm;
        let sort = match algorithm.algorithm.to_id_string().as_str() {
            "1.3.101.112" => Sort::Ed25519,
            "1.2.840.10045.2.1" => {
                let curve = algorithm.parameters.as_ref()?.as_oid().ok()?;
                let curve = curve.to_id_string();
                let mut curves = CURVES.iter();
                let (_, name) = curves.find(|(oid, _)| *oid == curve)?;
                Sort::Elliptic(name)
            }
            "1.2.840.113549.1.1.1" => match info.parsed().ok()? {
                Parsed::RSA(key) => {
                    let leading = key.modulus.iter().take_while(|byte| **byte == 0).count();
                    Sort::Rsa((key.modulus.len() - leading) * 8)
                }
                _ => return None,
            },
            _ => Sort::Other,
        };
        Some(Self {
            sort,
            bytes: info.subject_public_key.data.to_vec(),
        })
    }

    fn verifies(
        &self,
        algorithm: &'static dyn VerificationAlgorithm,
        text: &[u8],
        signature: &[u8],
    ) -> bool {
        let key = UnparsedPublicKey::new(algorithm, &self.bytes);
        key.verify(text, signature).is_ok()
    }

    /// Whether it made a signature by an algorithm of this name.
    fn made(&self, algorithm: &str, text: &[u8], signature: &[u8]) -> bool {
        let algorithm: &'static dyn VerificationAlgorithm = match (algorithm, self.sort) {
            ("1.3.101.112", Sort::Ed25519) => &ED25519,
            ("1.2.840.10045.4.3.2", Sort::Elliptic("P-256")) => &ECDSA_P256_SHA256_ASN1,
            ("1.2.840.10045.4.3.3", Sort::Elliptic("P-256")) => &ECDSA_P256_SHA384_ASN1,
            ("1.2.840.10045.4.3.2", Sort::Elliptic("P-384")) => &ECDSA_P384_SHA256_ASN1,
            ("1.2.840.10045.4.3.3", Sort::Elliptic("P-384")) => &ECDSA_P384_SHA384_ASN1,
            ("1.2.840.10045.4.3.2", Sort::Elliptic("P-521")) => &ECDSA_P521_SHA256_ASN1,
            ("1.2.840.10045.4.3.4", Sort::Elliptic("P-521")) => &ECDSA_P521_SHA512_ASN1,
            ("1.2.840.113549.1.1.11", Sort::Rsa(_)) => &RSA_PKCS1_2048_8192_SHA256,
            ("1.2.840.113549.1.1.12", Sort::Rsa(_)) => &RSA_PKCS1_2048_8192_SHA384,
            ("1.2.840.113549.1.1.13", Sort::Rsa(_)) => &RSA_PKCS1_2048_8192_SHA512,
            _ => return false,
        };
        self.verifies(algorithm, text, signature)
    }
}

/// Reads a request.
pub(super) fn request(der: &[u8]) -> Option<Request> {
    let (rest, request) = X509CertificationRequest::from_der(der).ok()?;
    let info = &request.certification_request_info;
    let key = PublicKey::of(&info.subject_pki)?;
    let algorithm = request.signature_algorithm.algorithm.to_id_string();
    let is_signed = key.made(&algorithm, info.raw, &request.signature_value.data);
    let organisations = info.subject.iter_organization();
    rest.is_empty().then(|| Request {
        key,
        organisations: organisations
            .filter_map(|one| Some(one.as_str().ok()?.to_owned()))
            .collect(),
        is_signed,
    })
}

/// Reads a certificate.
pub(super) fn certificate(der: &[u8]) -> Option<Certificate> {
    let (rest, certificate) = X509Certificate::from_der(der).ok()?;
    let key = PublicKey::of(certificate.public_key())?;
    let names = certificate.subject_alternative_name().ok()?;
    let names = names.map_or(&[][..], |names| names.value.general_names.as_slice());
    let of = |pick: fn(&GeneralName<'_>) -> Option<String>| names.iter().filter_map(pick).collect();
    let validity = certificate.validity();
    rest.is_empty().then(|| Certificate {
        key,
        is_authority: certificate.is_ca(),
        not_before: validity.not_before.timestamp(),
        not_after: validity.not_after.timestamp(),
        dns_names: of(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            _ => None,
        }),
        email_addresses: of(|name| match name {
            GeneralName::RFC822Name(name) => Some((*name).to_owned()),
            _ => None,
        }),
    })
}
