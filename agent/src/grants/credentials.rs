//! What the host adds to calls out of the cluster: of the Secrets and ConfigMaps that grants name, the rules as the mesh takes them. Pure.
//!
//! ```text
//! header              any key of a Secret, behind a prefix
//! bearer              `token`, or another key
//! basic               `username` and `password`, as kubernetes.io/basic-auth has them
//! clientCertificate   `tls.crt` and `tls.key`, as kubernetes.io/tls has them
//! caCertificates      `ca.crt`, or another key, of a ConfigMap or a Secret: in place of the platform's authorities
//! ```
//! Invariants: what cannot be had keeps the calls of its rule from leaving, and nothing else; no value ever reaches a message.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderName, HeaderValue, header};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde::Deserialize;
use weft_mesh::{EgressCredential, EgressManner, EgressRule};

use crate::configuration::{Configuration, References};

/// Bytes of a line's value; what servers take of a line.
const VALUE_BYTES_MAX: usize = 8 << 10;
/// Authorities of one rule.
const AUTHORITIES_MAX: usize = 64;
/// Certificates that are shown, with those between them and an authority.
const CHAIN_MAX: usize = 8;

/// `tls` of an entry of `outgoingHTTP`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TlsEntry {
    pub originate: bool,
    pub port: Option<u16>,
    pub ca_certificates: Option<AuthoritiesEntry>,
}

/// Where authorities are: one of the two is set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AuthoritiesEntry {
    pub config_map_ref: Option<KeyReference>,
    pub secret_ref: Option<KeyReference>,
}

/// An entry of `credentials`: one of them is set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CredentialEntry {
    pub header: Option<HeaderEntry>,
    pub bearer: Option<SecretEntry>,
    pub basic: Option<SecretEntry>,
    pub client_certificate: Option<SecretEntry>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HeaderEntry {
    pub name: String,
    pub prefix: String,
    pub secret_ref: KeyReference,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SecretEntry {
    pub secret_ref: KeyReference,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct KeyReference {
    pub name: String,
    pub key: String,
}

/// Calls that may leave, and how they are sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// What may be called; how is not in it yet.
    pub rule: EgressRule,
    pub tls: TlsEntry,
    pub credentials: Vec<CredentialEntry>,
}

impl CredentialEntry {
    /// The Secret that it is of.
    fn secret(&self) -> Option<&KeyReference> {
        let others = [&self.bearer, &self.basic, &self.client_certificate];
        let others = others.into_iter().flatten().map(|entry| &entry.secret_ref);
        let header = self.header.iter().map(|header| &header.secret_ref);
        header.chain(others).next()
    }
}

/// The objects that `outgoing` needs.
pub fn references(outgoing: &[Outgoing]) -> References {
    let mut found = References::default();
    for one in outgoing {
        let secrets = one.credentials.iter().filter_map(CredentialEntry::secret);
        let authorities = one.tls.ca_certificates.iter();
        let of_secrets = authorities
            .clone()
            .filter_map(|one| one.secret_ref.as_ref());
        let of_maps = authorities.filter_map(|one| one.config_map_ref.as_ref());
        let named = |reference: &KeyReference| {
            super::granted::is_name(&reference.name).then(|| reference.name.clone())
        };
        found
            .secrets
            .extend(secrets.chain(of_secrets).filter_map(named));
        found.config_maps.extend(of_maps.filter_map(named));
    }
    found
}

/// The rules, with what they need of `found`; that is none as long as nothing was fetched.
pub fn resolve(outgoing: &[Outgoing], found: Option<&Configuration>) -> Vec<EgressRule> {
    let rule = |one: &Outgoing| EgressRule {
        manner: manner(one, found),
        ..one.rule.clone()
    };
    outgoing.iter().map(rule).collect()
}

fn manner(one: &Outgoing, found: Option<&Configuration>) -> EgressManner {
    let mut credentials: Vec<EgressCredential> = Vec::new();
    let mut missing = |why: String| EgressCredential::Missing(why);
    for entry in &one.credentials {
        credentials.push(credential(entry, found).unwrap_or_else(&mut missing));
    }
    let authorities = match &one.tls.ca_certificates {
        None => Vec::new(),
        Some(entry) => match authorities(entry, found) {
            Ok(authorities) => authorities,
            Err(why) => {
                credentials.push(missing(why));
                Vec::new()
            }
        },
    };
    EgressManner {
        originate: one.tls.originate.then(|| one.tls.port.unwrap_or(443)),
        authorities,
        credentials,
    }
}

/// The bytes of a key, or why there are none.
fn value<'c>(
    reference: &KeyReference,
    key: &str,
    found: Option<&'c Configuration>,
) -> Result<&'c [u8], String> {
    let name = &reference.name;
    let found = found.ok_or_else(|| format!("Secret {name} is not known here yet"))?;
    let secret = found.secrets.get(name);
    let secret = secret.ok_or_else(|| format!("Secret {name} does not exist"))?;
    let data = secret.data.as_ref().and_then(|data| data.get(key));
    let data = data.ok_or_else(|| format!("Secret {name} has no key {key}"))?;
    Ok(&data.0)
}

/// `key`, or what is usual.
fn key_of<'r>(reference: &'r KeyReference, usual: &'r str) -> &'r str {
    match reference.key.as_str() {
        "" => usual,
        key => key,
    }
}

fn credential(
    entry: &CredentialEntry,
    found: Option<&Configuration>,
) -> Result<EgressCredential, String> {
    match entry {
        CredentialEntry {
            header: Some(header),
            bearer: None,
            basic: None,
            client_certificate: None,
        } => {
            let name = HeaderName::from_bytes(header.name.as_bytes());
            let name = name.map_err(|_| "its header is none".to_owned())?;
            let reference = &header.secret_ref;
            let value = value(reference, key_of(reference, "token"), found)?;
            line(name, reference, &[header.prefix.as_bytes(), trimmed(value)])
        }
        CredentialEntry {
            header: None,
            bearer: Some(entry),
            basic: None,
            client_certificate: None,
        } => {
            let reference = &entry.secret_ref;
            let token = value(reference, key_of(reference, "token"), found)?;
            line(
                header::AUTHORIZATION,
                reference,
                &[b"Bearer ", trimmed(token)],
            )
        }
        CredentialEntry {
            header: None,
            bearer: None,
            basic: Some(entry),
            client_certificate: None,
        } => {
            let reference = &entry.secret_ref;
            let user = value(reference, "username", found)?;
            let password = value(reference, "password", found)?;
            if user.contains(&b':') {
                return Err(format!(
                    "the username in Secret {} has a colon",
                    reference.name
                ));
            }
            let pair = STANDARD.encode([user, b":", password].concat());
            line(
                header::AUTHORIZATION,
                reference,
                &[b"Basic ", pair.as_bytes()],
            )
        }
        CredentialEntry {
            header: None,
            bearer: None,
            basic: None,
            client_certificate: Some(entry),
        } => certificate(&entry.secret_ref, found),
        _ => Err("one of its credentials is none, or several".to_owned()),
    }
}

/// Files that are made into Secrets often end in a line break, and no token does.
fn trimmed(value: &[u8]) -> &[u8] {
    value.trim_ascii_end()
}

fn line(
    name: HeaderName,
    reference: &KeyReference,
    parts: &[&[u8]],
) -> Result<EgressCredential, String> {
    let value = parts.concat();
    let fits =
        value.len() <= VALUE_BYTES_MAX && value.iter().all(|byte| (0x20..0x7f).contains(byte));
    let value = HeaderValue::from_bytes(&value).ok().filter(|_| fits);
    let value = value.ok_or_else(|| {
        let name = &reference.name;
        format!("what Secret {name} holds is no line of a request: it has to be ASCII, and of 8 KiB at most")
    })?;
    Ok(EgressCredential::Line(name, value))
}

fn certificate(
    reference: &KeyReference,
    found: Option<&Configuration>,
) -> Result<EgressCredential, String> {
    let name = &reference.name;
    let chain = certificates(value(reference, "tls.crt", found)?, CHAIN_MAX);
    let chain = chain.ok_or_else(|| format!("tls.crt of Secret {name} holds no certificates"))?;
    let key = PrivateKeyDer::from_pem_slice(value(reference, "tls.key", found)?);
    let key = key.map_err(|_| format!("tls.key of Secret {name} holds no private key"))?;
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let fits = rustls::sign::CertifiedKey::from_der(chain.clone(), key.clone_key(), &provider);
    match fits {
        Ok(_) => Ok(EgressCredential::Certificate(chain, key)),
        Err(_) => Err(format!(
            "tls.key of Secret {name} does not belong to its tls.crt"
        )),
    }
}

fn authorities(
    entry: &AuthoritiesEntry,
    found: Option<&Configuration>,
) -> Result<Vec<CertificateDer<'static>>, String> {
    let (told, pem) = match (&entry.config_map_ref, &entry.secret_ref) {
        (Some(reference), None) => {
            let (name, key) = (&reference.name, key_of(reference, "ca.crt"));
            let found = found.ok_or_else(|| format!("ConfigMap {name} is not known here yet"))?;
            let map = found.config_maps.get(name);
            let map = map.ok_or_else(|| format!("ConfigMap {name} does not exist"))?;
            let text = map.data.as_ref().and_then(|data| data.get(key));
            let text = text.ok_or_else(|| format!("ConfigMap {name} has no key {key}"))?;
            (format!("{key} of ConfigMap {name}"), text.as_bytes())
        }
        (None, Some(reference)) => {
            let key = key_of(reference, "ca.crt");
            let told = format!("{key} of Secret {}", reference.name);
            (told, value(reference, key, found)?)
        }
        _ => return Err("its caCertificates are none, or two".to_owned()),
    };
    certificates(pem, AUTHORITIES_MAX).ok_or_else(|| format!("{told} holds no certificates"))
}

/// All of a text in PEM, unless one is none or there are too many.
fn certificates(pem: &[u8], most: usize) -> Option<Vec<CertificateDer<'static>>> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).take(most + 1).collect();
    read.ok()
        .filter(|read| !read.is_empty() && read.len() <= most)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;
    use k8s_openapi::api::core::v1::{ConfigMap, Secret};
    use serde_json::{Value, json};
    use weft_mesh::EgressScheme;

    use super::*;

    fn outgoing(tls: Value, credentials: Value) -> Outgoing {
        Outgoing {
            rule: EgressRule {
                grant: "CapabilityGrant shop/a".to_owned(),
                hosts: vec!["a.example".to_owned()],
                ports: vec![443],
                scheme: EgressScheme::Https,
                paths: Vec::new(),
                methods: Vec::new(),
                addresses: Vec::new(),
                manner: EgressManner::default(),
            },
            tls: serde_json::from_value(tls).expect("tls"),
            credentials: serde_json::from_value(credentials).expect("credentials"),
        }
    }

    fn secrets() -> Configuration {
        let made = rcgen::generate_simple_self_signed(["c".to_owned()]).expect("a certificate");
        let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        let other = rcgen::KeyPair::generate().expect("a key").serialize_pem();
        let secret = |pairs: &[(&str, &str)]| Secret {
            data: Some(
                pairs
                    .iter()
                    .map(|(key, value)| ((*key).to_owned(), ByteString(value.as_bytes().to_vec())))
                    .collect(),
            ),
            ..Secret::default()
        };
        let mut all = Configuration::default();
        for (name, pairs) in [
            (
                "key",
                vec![("token", "hunter2\n"), ("bad", "hunter2\nx: y")],
            ),
            ("login", vec![("username", "me"), ("password", "hunter2")]),
            ("pair", vec![("tls.crt", &*chain), ("tls.key", &*key)]),
            ("mixed", vec![("tls.crt", &*chain), ("tls.key", &*other)]),
        ] {
            all.secrets.insert(name.to_owned(), secret(&pairs));
        }
        let data = [
            ("ca.crt".to_owned(), chain),
            ("bad".to_owned(), "x".to_owned()),
        ];
        all.config_maps.insert(
            "roots".to_owned(),
            ConfigMap {
                data: Some(data.into()),
                ..ConfigMap::default()
            },
        );
        all
    }

    /// What is added, or what is missing.
    fn told(manner: &EgressManner) -> String {
        let told = manner
            .credentials
            .iter()
            .map(|credential| match credential {
                EgressCredential::Line(name, value) => {
                    format!("{name}: {}", value.to_str().expect("text"))
                }
                EgressCredential::Certificate(chain, _) => format!("{} certificates", chain.len()),
                EgressCredential::Missing(why) => why.clone(),
            });
        let mut told: Vec<String> = told.collect();
        if !manner.authorities.is_empty() {
            told.push(format!("by {}", manner.authorities.len()));
        }
        told.extend(manner.originate.map(|port| format!("to {port}")));
        told.join("; ")
    }

    #[test]
    fn what_is_added_comes_of_secrets_and_what_is_missing_is_told_without_them() {
        let all = secrets();
        for (tls, credentials, expected) in [
            (json!({}), json!([]), ""),
            (json!({"originate": true}), json!([]), "to 443"),
            (
                json!({"originate": true, "port": 8443}),
                json!([{"bearer": {"secretRef": {"name": "key"}}}]),
                "authorization: Bearer hunter2; to 8443",
            ),
            (
                json!({}),
                json!([{"header": {"name": "X-Key", "prefix": "v1 ", "secretRef": {"name": "key", "key": "token"}}}]),
                "x-key: v1 hunter2",
            ),
            (
                json!({}),
                json!([{"basic": {"secretRef": {"name": "login"}}}]),
                "authorization: Basic bWU6aHVudGVyMg==",
            ),
            (
                json!({"caCertificates": {"configMapRef": {"name": "roots"}}}),
                json!([{"clientCertificate": {"secretRef": {"name": "pair"}}}]),
                "1 certificates; by 1",
            ),
            (
                json!({}),
                json!([{"clientCertificate": {"secretRef": {"name": "mixed"}}}]),
                "tls.key of Secret mixed does not belong to its tls.crt",
            ),
            (
                json!({}),
                json!([{"bearer": {"secretRef": {"name": "absent"}}}]),
                "Secret absent does not exist",
            ),
            (
                json!({}),
                json!([{"bearer": {"secretRef": {"name": "key", "key": "absent"}}}]),
                "Secret key has no key absent",
            ),
            (
                json!({}),
                json!([{"bearer": {"secretRef": {"name": "key", "key": "bad"}}}]),
                "what Secret key holds is no line of a request: it has to be ASCII, and of 8 KiB at most",
            ),
            (
                json!({}),
                json!([{"bearer": {"secretRef": {"name": "key"}}, "basic": {"secretRef": {"name": "login"}}}]),
                "one of its credentials is none, or several",
            ),
            (
                json!({"caCertificates": {"configMapRef": {"name": "roots", "key": "bad"}}}),
                json!([]),
                "bad of ConfigMap roots holds no certificates",
            ),
        ] {
            let one = outgoing(tls, credentials);
            let rules = resolve(std::slice::from_ref(&one), Some(&all));
            assert_eq!(told(&rules[0].manner), expected);
            let unknown = resolve(std::slice::from_ref(&one), None);
            let shown = format!("{rules:?} {unknown:?}");
            assert!(
                !shown.contains("hunter2") && !shown.contains("bWU6"),
                "{shown}"
            );
        }
    }

    #[test]
    fn what_is_needed_is_asked_for_and_nothing_before_it_is_there() {
        let all = [outgoing(
            json!({"caCertificates": {"secretRef": {"name": "own"}}}),
            json!([
                {"bearer": {"secretRef": {"name": "key"}}},
                {"clientCertificate": {"secretRef": {"name": "pair"}}},
                {"basic": {"secretRef": {"name": "../x"}}},
            ]),
        )];
        let found = references(&all);
        let names: Vec<_> = found.secrets.iter().map(String::as_str).collect();
        assert_eq!(names, ["key", "own", "pair"]);
        assert!(found.config_maps.is_empty());
        let rules = resolve(&all, None);
        assert!(
            rules[0]
                .manner
                .credentials
                .iter()
                .all(|one| matches!(one, EgressCredential::Missing(_)))
        );
    }
}
