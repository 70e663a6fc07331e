//! Leaf certificates: what one says, and the ones that are kept beside the authority.

use std::net::IpAddr;
use std::path::Path;
use std::time::SystemTime;

use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData as _, SanType,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use time::{Duration, OffsetDateTime};

use super::pair::{Credentials, read_pair, write_pair};
use super::{CLOCK_SKEW, CaError};

/// What a leaf certificate says. The subject is always written by us, never copied from a request.
pub(crate) struct Leaf<'a> {
    pub common_name: Option<&'a str>,
    pub organisation: Option<&'a str>,
    pub names: Vec<SanType>,
    pub server: bool,
    pub client: bool,
    pub life: Duration,
}

impl Leaf<'_> {
    pub(super) fn params(&self, now: OffsetDateTime) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        if let Some(organisation) = self.organisation {
            params
                .distinguished_name
                .push(DnType::OrganizationName, organisation);
        }
        if let Some(common_name) = self.common_name {
            params
                .distinguished_name
                .push(DnType::CommonName, common_name);
        }
        params.subject_alt_names = self.names.clone();
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        if self.server {
            params
                .extended_key_usages
                .push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        if self.client {
            params
                .extended_key_usages
                .push(ExtendedKeyUsagePurpose::ClientAuth);
        }
        params.use_authority_key_identifier_extension = true;
        params.not_before = now - CLOCK_SKEW;
        params.not_after = now + self.life;
        params
    }
}

/// Gives the kept certificate if it still serves, else makes and keeps a new one, with `cross` behind it.
pub(super) fn keep_leaf(
    dir: &Path,
    name: &str,
    leaf: &Leaf<'_>,
    issuer: &Issuer<'static, KeyPair>,
    ca: &CertificateDer<'_>,
    cross: &str,
    now: OffsetDateTime,
) -> Result<Credentials, CaError> {
    if let Some(pair) = read_pair(dir, name)?
        && still_serves(&pair, leaf, ca, now)
    {
        return Ok(pair);
    }
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
    let certificate = leaf.params(now).signed_by(&key, issuer)?;
    let pair = Credentials {
        certificate_pem: certificate.pem() + cross,
        key_pem: key.serialize_pem(),
    };
    write_pair(dir, name, &pair)?;
    tracing::info!(certificate = name, "issued");
    Ok(pair)
}

fn still_serves(
    pair: &Credentials,
    leaf: &Leaf<'_>,
    ca: &CertificateDer<'_>,
    now: OffsetDateTime,
) -> bool {
    let Ok(der) = CertificateDer::from_pem_slice(pair.certificate_pem.as_bytes()) else {
        return false;
    };
    let Ok(key) = KeyPair::from_pem(&pair.key_pem) else {
        return false;
    };
    let (Ok((_, certificate)), Ok((_, ca))) = (
        x509_parser::parse_x509_certificate(&der),
        x509_parser::parse_x509_certificate(ca),
    ) else {
        return false;
    };
    let mut names: Vec<SanType> = Vec::new();
    if let Ok(Some(extension)) = certificate.subject_alternative_name() {
        for name in &extension.value.general_names {
            use x509_parser::extensions::GeneralName;
            let text = match name {
                GeneralName::DNSName(name) => (*name).to_owned(),
                GeneralName::IPAddress(octets) => match address(octets) {
                    Some(address) => address.to_string(),
                    None => continue,
                },
                _ => continue,
            };
            names.extend(san(&text));
        }
    }
    certificate.public_key().subject_public_key.data.as_ref() == key.der_bytes()
        && certificate.verify_signature(Some(ca.public_key())).is_ok()
        && leaf.names.iter().all(|name| names.contains(name))
        && has_third_left(&certificate, now)
}

pub(super) fn has_third_left(
    certificate: &x509_parser::certificate::X509Certificate<'_>,
    now: OffsetDateTime,
) -> bool {
    let (start, end) = (
        certificate.validity().not_before.timestamp(),
        certificate.validity().not_after.timestamp(),
    );
    end - now.unix_timestamp() > (end - start) / 3
}

/// When a certificate is over.
pub(crate) fn end(certificate: &CertificateDer<'_>) -> Option<SystemTime> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let seconds = u64::try_from(parsed.validity().not_after.timestamp()).ok()?;
    Some(SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds))
}

/// The address in an IP subject alternative name: four or sixteen octets.
pub(crate) fn address(octets: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(octets) {
        return Some(v4.into());
    }
    <[u8; 16]>::try_from(octets).ok().map(IpAddr::from)
}

pub(super) fn san(name: &str) -> Result<SanType, CaError> {
    if let Ok(address) = name.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(address));
    }
    let bad = || CaError::Name {
        name: name.to_owned(),
    };
    weft_api::name::dns1123_subdomain(&name.to_ascii_lowercase()).map_err(|_| bad())?;
    Ok(SanType::DnsName(name.try_into().map_err(|_| bad())?))
}
