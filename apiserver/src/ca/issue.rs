//! Certificates for others' requests, byte for byte as DER demands them (RFC 5280): subject and key as they were asked for, and nothing
//! else of the request but names that were picked.
//!
//! Our own certificates are made by a library; it keeps one organisation of a subject and knows few kinds of keys, and those who ask here
//! have several groups and whatever key their tools make.
//!
//! Invariants: nobody becomes an authority by this; no certificate outlives the authority's.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::SigningKey as _;
use time::{Duration, OffsetDateTime};

use super::{Authority, CaError};

/// Certificates of less than this are not dated back at their end.
const SHORT: Duration = Duration::hours(8);
/// How far in the past a certificate starts, for clocks that run behind ours.
const BACKDATE: Duration = Duration::minutes(5);
/// Bytes of a serial number.
const SERIAL_BYTES: usize = 16;
/// Characters of base64 on one line of PEM.
const PEM_LINE: usize = 64;

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const OCTETS: u8 = 0x04;
const BITS: u8 = 0x03;
const BOOLEAN: u8 = 0x01;
const OBJECT: u8 = 0x06;
const UTC_TIME: u8 = 0x17;
const LONG_TIME: u8 = 0x18;

/// ECDSA with SHA-256: what the authority signs with.
const ECDSA_SHA256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
const KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x0f];
const ALTERNATIVE_NAMES: &[u8] = &[0x55, 0x1d, 0x11];
const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 0x13];
const AUTHORITY_KEY: &[u8] = &[0x55, 0x1d, 0x23];
const EXTENDED_USAGE: &[u8] = &[0x55, 0x1d, 0x25];

/// A name beside the subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum AlternativeName {
    Dns(String),
    Email(String),
    Uri(String),
    /// Four or sixteen octets.
    Address(Vec<u8>),
}

/// What a certificate is to say.
pub(crate) struct Wanted<'a> {
    /// The subject in DER, as the request has it.
    pub subject: &'a [u8],
    /// The public key in DER, as the request has it.
    pub key: &'a [u8],
    pub names: &'a [AlternativeName],
    /// What it is for, as Kubernetes names it.
    pub usages: &'a [&'a str],
    pub life: Duration,
}

/// A value with its tag and length.
fn tagged(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    let length = content.len();
    match u8::try_from(length) {
        Ok(short) if short < 0x80 => out.push(short),
        _ => {
            let bytes = length.to_be_bytes();
            let bytes: Vec<u8> = bytes.into_iter().skip_while(|byte| *byte == 0).collect();
            // Eight at most.
            out.push(0x80 | bytes.len() as u8);
            out.extend(bytes);
        }
    }
    out.extend_from_slice(content);
    out
}

fn sequence(parts: &[Vec<u8>]) -> Vec<u8> {
    tagged(SEQUENCE, &parts.concat())
}

fn extension(name: &[u8], critical: bool, value: &[u8]) -> Vec<u8> {
    let mut parts = vec![tagged(OBJECT, name)];
    if critical {
        parts.push(tagged(BOOLEAN, &[0xff]));
    }
    parts.push(tagged(OCTETS, value));
    sequence(&parts)
}

fn time(at: OffsetDateTime) -> Vec<u8> {
    let at = at.to_offset(time::UtcOffset::UTC);
    let mut text = String::new();
    let (year, month, day) = at.to_calendar_date();
    let (hour, minute, second) = at.to_hms();
    let short = (1950..2050).contains(&year);
    let shown = match short {
        true => write!(text, "{:02}", year % 100),
        false => write!(text, "{year:04}"),
    };
    let rest = write!(
        text,
        "{:02}{day:02}{hour:02}{minute:02}{second:02}Z",
        u8::from(month)
    );
    // Writing to a text cannot fail.
    debug_assert!(shown.is_ok() && rest.is_ok());
    tagged(if short { UTC_TIME } else { LONG_TIME }, text.as_bytes())
}

/// The bit of a usage of the key itself.
fn key_bit(usage: &str) -> Option<u32> {
    Some(match usage {
        "signing" | "digital signature" => 0,
        "content commitment" => 1,
        "key encipherment" => 2,
        "data encipherment" => 3,
        "key agreement" => 4,
        "cert sign" => 5,
        "crl sign" => 6,
        "encipher only" => 7,
        "decipher only" => 8,
        _ => return None,
    })
}

/// The name of an extended usage.
fn extended(usage: &str) -> Option<&'static [u8]> {
    Some(match usage {
        "any" => &[0x55, 0x1d, 0x25, 0x00],
        "server auth" => &[0x2b, 6, 1, 5, 5, 7, 3, 1],
        "client auth" => &[0x2b, 6, 1, 5, 5, 7, 3, 2],
        "code signing" => &[0x2b, 6, 1, 5, 5, 7, 3, 3],
        "email protection" | "s/mime" => &[0x2b, 6, 1, 5, 5, 7, 3, 4],
        "ipsec end system" => &[0x2b, 6, 1, 5, 5, 7, 3, 5],
        "ipsec tunnel" => &[0x2b, 6, 1, 5, 5, 7, 3, 6],
        "ipsec user" => &[0x2b, 6, 1, 5, 5, 7, 3, 7],
        "timestamping" => &[0x2b, 6, 1, 5, 5, 7, 3, 8],
        "ocsp signing" => &[0x2b, 6, 1, 5, 5, 7, 3, 9],
        "microsoft sgc" => &[0x2b, 6, 1, 4, 1, 0x82, 0x37, 10, 3, 3],
        "netscape sgc" => &[0x60, 0x86, 0x48, 1, 0x86, 0xf8, 0x42, 4, 1],
        _ => return None,
    })
}

fn key_usage(usages: &[&str]) -> Option<Vec<u8>> {
    let mut bits = 0_u16;
    for bit in usages.iter().filter_map(|usage| key_bit(usage)) {
        bits |= 0x8000 >> bit;
    }
    let bytes = match bits.to_be_bytes() {
        [0, 0] => return None,
        [first, 0] => vec![first],
        both => both.to_vec(),
    };
    let unused = bytes.last().map_or(0, |last| last.trailing_zeros());
    // Seven at most.
    let content = [vec![unused as u8], bytes].concat();
    Some(extension(KEY_USAGE, true, &tagged(BITS, &content)))
}

fn extended_usages(usages: &[&str]) -> Option<Vec<u8>> {
    let mut names: Vec<&[u8]> = usages.iter().filter_map(|usage| extended(usage)).collect();
    names.sort_unstable();
    names.dedup();
    let names: Vec<Vec<u8>> = names.into_iter().map(|name| tagged(OBJECT, name)).collect();
    (!names.is_empty()).then(|| extension(EXTENDED_USAGE, false, &sequence(&names)))
}

fn alternative_names(names: &[AlternativeName], critical: bool) -> Option<Vec<u8>> {
    let encoded = names.iter().map(|name| match name {
        AlternativeName::Email(text) => tagged(0x81, text.as_bytes()),
        AlternativeName::Dns(text) => tagged(0x82, text.as_bytes()),
        AlternativeName::Uri(text) => tagged(0x86, text.as_bytes()),
        AlternativeName::Address(octets) => tagged(0x87, octets),
    });
    let encoded: Vec<Vec<u8>> = encoded.collect();
    (!encoded.is_empty()).then(|| extension(ALTERNATIVE_NAMES, critical, &sequence(&encoded)))
}

pub(super) fn pem(der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut pem = "-----BEGIN CERTIFICATE-----\n".to_owned();
    for line in text.as_bytes().chunks(PEM_LINE) {
        pem.push_str(&String::from_utf8_lossy(line));
        pem.push('\n');
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}

impl Authority {
    /// Makes a certificate; PEM.
    ///
    /// # Errors
    /// When the authority's own certificate is over, or does not sign.
    pub(crate) fn issue(
        &self,
        wanted: &Wanted<'_>,
        now: OffsetDateTime,
    ) -> Result<String, CaError> {
        let unusable = || CaError::Unusable {
            what: "CA certificate",
            path: self.0.dir.join("ca.crt"),
        };
        let signing = self.signing();
        let (_, own) = x509_parser::parse_x509_certificate(&signing.der).map_err(|_| unusable())?;
        let own_end = own.validity().not_after.to_datetime();
        if now >= own_end {
            return Err(unusable());
        }
        let end = match wanted.life < SHORT {
            true => now + wanted.life,
            false => now + wanted.life - BACKDATE,
        };
        let mut serial: [u8; SERIAL_BYTES] = rand::random();
        // Positive, and none that begins with nothing.
        serial[0] = (serial[0] & 0x7f) | 0x40;
        let algorithm = sequence(&[tagged(OBJECT, ECDSA_SHA256)]);
        let constraints = extension(BASIC_CONSTRAINTS, true, &sequence(&[]));
        let mut extensions: Vec<Vec<u8>> = Vec::new();
        extensions.extend(key_usage(wanted.usages));
        extensions.extend(extended_usages(wanted.usages));
        extensions.push(constraints);
        let identifier =
            own.iter_extensions()
                .find_map(|extension| match extension.parsed_extension() {
                    x509_parser::extensions::ParsedExtension::SubjectKeyIdentifier(key) => {
                        Some(key.0)
                    }
                    _ => None,
                });
        extensions.extend(identifier.map(|key| {
            let value = sequence(&[tagged(0x80, key)]);
            extension(AUTHORITY_KEY, false, &value)
        }));
        let nameless = wanted.subject == sequence(&[]).as_slice();
        extensions.extend(alternative_names(wanted.names, nameless));
        let told = sequence(&[
            tagged(0xa0, &tagged(INTEGER, &[2])),
            tagged(INTEGER, &serial),
            algorithm.clone(),
            own.subject().as_raw().to_vec(),
            sequence(&[time(now - BACKDATE), time(end.min(own_end))]),
            wanted.subject.to_vec(),
            wanted.key.to_vec(),
            tagged(0xa3, &sequence(&extensions)),
        ]);
        let signature = signing.issuer.key().sign(&told)?;
        let signature = tagged(BITS, &[vec![0], signature].concat());
        Ok(pem(&sequence(&[told, algorithm, signature])))
    }
}

#[cfg(test)]
mod tests {
    use rustls_pki_types::CertificateDer;
    use rustls_pki_types::pem::PemObject as _;

    use super::*;

    #[test]
    fn lengths_and_times_are_those_of_der() {
        assert_eq!(tagged(OCTETS, &[7]), [4, 1, 7]);
        assert_eq!(tagged(OCTETS, &[7; 0x80])[..3], [4, 0x81, 0x80]);
        assert_eq!(tagged(OCTETS, &[7; 0x1234])[..4], [4, 0x82, 0x12, 0x34]);
        let at = |seconds| OffsetDateTime::from_unix_timestamp(seconds).unwrap();
        assert_eq!(&time(at(0))[2..], b"700101000000Z");
        assert_eq!(&time(at(2_524_608_000))[2..], b"20500101000000Z");
    }

    #[test]
    fn a_certificate_says_what_was_asked_and_no_more() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::open_or_create(dir.path(), "cluster.local").unwrap();
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, "jo");
        let request = params.serialize_request(&key).unwrap();
        let (_, parsed) = {
            use x509_parser::prelude::FromDer as _;
            x509_parser::certification_request::X509CertificationRequest::from_der(request.der())
                .unwrap()
        };
        let info = &parsed.certification_request_info;
        let names = [
            AlternativeName::Dns("a.example".to_owned()),
            AlternativeName::Address(vec![10, 0, 0, 7]),
        ];
        let wanted = |life| Wanted {
            subject: info.subject.as_raw(),
            key: info.subject_pki.raw,
            names: &names,
            usages: &["client auth", "digital signature", "key encipherment"],
            life,
        };
        let now = OffsetDateTime::now_utc().replace_nanosecond(0).unwrap();
        for (life, end) in [
            (Duration::hours(1), Duration::hours(1)),
            (Duration::days(1), Duration::days(1) - BACKDATE),
        ] {
            let pem = authority.issue(&wanted(life), now).unwrap();
            let der = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
            let (rest, made) = x509_parser::parse_x509_certificate(&der).unwrap();
            assert!(rest.is_empty());
            assert_eq!(made.subject().to_string(), "CN=jo");
            assert!(!made.is_ca());
            assert_eq!(made.validity().not_after.to_datetime(), now + end);
            assert_eq!(made.validity().not_before.to_datetime(), now - BACKDATE);
            let usage = made.key_usage().unwrap().unwrap().value;
            assert!(usage.digital_signature() && usage.key_encipherment());
            assert!(!usage.key_cert_sign());
            let extended = made.extended_key_usage().unwrap().unwrap().value;
            assert!(extended.client_auth && !extended.server_auth && !extended.any);
            let names = made.subject_alternative_name().unwrap().unwrap().value;
            assert_eq!(names.general_names.len(), 2);
            let ca = CertificateDer::from_pem_slice(authority.ca_pem().as_bytes()).unwrap();
            let (_, ca) = x509_parser::parse_x509_certificate(&ca).unwrap();
            made.verify_signature(Some(ca.public_key())).unwrap();
            assert_eq!(made.issuer().as_raw(), ca.subject().as_raw());
        }
        let ages = authority
            .issue(&wanted(Duration::days(36500)), now)
            .unwrap();
        let der = CertificateDer::from_pem_slice(ages.as_bytes()).unwrap();
        let (_, made) = x509_parser::parse_x509_certificate(&der).unwrap();
        let ca = CertificateDer::from_pem_slice(authority.ca_pem().as_bytes()).unwrap();
        let (_, ca) = x509_parser::parse_x509_certificate(&ca).unwrap();
        assert_eq!(made.validity().not_after, ca.validity().not_after);
    }
}
