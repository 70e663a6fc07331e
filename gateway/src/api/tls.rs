//! What listeners, Gateways and policies say of TLS, typed; and the objects that hold certificates, read.
//!
//! Invariant: a key is in no text that is made of these values.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde::Deserialize;

use super::or_default;

/// Names an object, of another namespace too.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ObjectReference {
    pub group: Option<String>,
    pub kind: Option<String>,
    pub name: String,
    pub namespace: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ListenerTls {
    /// `Terminate` when not given, or `Passthrough`.
    pub mode: Option<String>,
    #[serde(deserialize_with = "or_default")]
    pub certificate_refs: Vec<ObjectReference>,
}

/// TLS of a Gateway: towards clients and towards backends.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GatewayTls {
    pub backend: Option<GatewayBackendTls>,
    pub frontend: Option<FrontendTls>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GatewayBackendTls {
    pub client_certificate_ref: Option<ObjectReference>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FrontendTls {
    pub default: Option<FrontendConfig>,
    #[serde(deserialize_with = "or_default")]
    pub per_port: Vec<PortConfig>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PortConfig {
    pub port: u16,
    pub tls: Option<FrontendConfig>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FrontendConfig {
    pub validation: Option<FrontendValidation>,
}

/// Which clients are let in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FrontendValidation {
    #[serde(deserialize_with = "or_default")]
    pub ca_certificate_refs: Vec<ObjectReference>,
    /// `AllowValidOnly` when not given, or `AllowInsecureFallback`.
    pub mode: Option<String>,
}

impl GatewayTls {
    /// What clients of a port have to prove, if anything.
    #[must_use]
    pub fn validation(&self, port: u16) -> Option<&FrontendValidation> {
        let frontend = self.frontend.as_ref()?;
        let mut ports = frontend.per_port.iter();
        let config = match ports.find(|config| config.port == port) {
            Some(config) => config.tls.as_ref(),
            None => frontend.default.as_ref(),
        };
        config?.validation.as_ref()
    }

    /// Whether clients of any port may prove nothing although there is something to prove.
    #[must_use]
    pub fn falls_back(&self) -> bool {
        let frontend = self.frontend.iter();
        let mut configs = frontend.flat_map(|frontend| {
            let ports = frontend
                .per_port
                .iter()
                .filter_map(|port| port.tls.as_ref());
            frontend.default.iter().chain(ports)
        });
        configs.any(|config| {
            let validation = config.validation.as_ref();
            validation.is_some_and(FrontendValidation::falls_back)
        })
    }
}

impl FrontendValidation {
    #[must_use]
    pub fn falls_back(&self) -> bool {
        self.mode.as_deref() == Some("AllowInsecureFallback")
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BackendTlsPolicySpec {
    #[serde(deserialize_with = "or_default")]
    pub target_refs: Vec<PolicyTarget>,
    pub validation: BackendValidation,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PolicyTarget {
    pub group: String,
    pub kind: String,
    pub name: String,
    /// The name of a port; all when not given.
    pub section_name: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BackendValidation {
    #[serde(deserialize_with = "or_default")]
    pub ca_certificate_refs: Vec<AuthorityRef>,
    pub well_known_ca_certificates: Option<String>,
    pub hostname: String,
    #[serde(deserialize_with = "or_default")]
    pub subject_alt_names: Vec<SubjectAltName>,
}

/// Names an object of the same namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AuthorityRef {
    pub group: String,
    pub kind: String,
    pub name: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SubjectAltName {
    /// `Hostname` or `URI`.
    #[serde(rename = "type")]
    pub kind: String,
    pub hostname: Option<String>,
    pub uri: Option<String>,
}

/// A certificate with those that lead to its root, and its key.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyPair {
    /// DER, the leaf first.
    pub chain: Vec<Vec<u8>>,
    /// DER, with its kind; empty where it was withheld.
    key: Vec<u8>,
    is_pkcs8: bool,
    is_pkcs1: bool,
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let chain = self.chain.len();
        write!(f, "KeyPair({chain} certificates)")
    }
}

impl KeyPair {
    /// The key, as TLS takes it.
    #[must_use]
    pub fn key(&self) -> PrivateKeyDer<'static> {
        let key = self.key.clone();
        match (self.is_pkcs8, self.is_pkcs1) {
            (true, _) => PrivateKeyDer::Pkcs8(key.into()),
            (false, true) => PrivateKeyDer::Pkcs1(key.into()),
            (false, false) => PrivateKeyDer::Sec1(key.into()),
        }
    }

    fn read(chain: &[u8], key: &[u8], keeps_key: bool) -> Result<Self, String> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain).collect();
        let chain = chain.map_err(|_| "its tls.crt is not PEM".to_owned())?;
        let leaf = chain.first().ok_or("its tls.crt has no certificate")?;
        let parsed = x509_parser::parse_x509_certificate(leaf);
        parsed.map_err(|_| "its tls.crt has a certificate that cannot be read".to_owned())?;
        let key = PrivateKeyDer::from_pem_slice(key);
        let key = key.map_err(|_| "its tls.key has no key".to_owned())?;
        Ok(Self {
            chain: chain.iter().map(|one| one.to_vec()).collect(),
            key: match keeps_key {
                true => key.secret_der().to_vec(),
                false => Vec::new(),
            },
            is_pkcs8: matches!(key, PrivateKeyDer::Pkcs8(_)),
            is_pkcs1: matches!(key, PrivateKeyDer::Pkcs1(_)),
        })
    }
}

/// A Secret, as far as TLS goes. The error says in half a sentence why it cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Secret(pub Result<Arc<KeyPair>, String>);

impl Secret {
    /// From the data of an object. Who only judges has no use for the key.
    #[must_use]
    pub fn read(data: &BTreeMap<String, Vec<u8>>, keeps_key: bool) -> Self {
        let part = |name: &str| data.get(name).map(Vec::as_slice).unwrap_or_default();
        Self(KeyPair::read(part("tls.crt"), part("tls.key"), keeps_key).map(Arc::new))
    }
}

/// The authorities that a ConfigMap holds as `ca.crt`, in DER. None where it has none that can be read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bundle(pub Arc<Vec<Vec<u8>>>);

impl Bundle {
    /// From what is behind `ca.crt`.
    #[must_use]
    pub fn read(pem: &[u8]) -> Self {
        let all = CertificateDer::pem_slice_iter(pem).flatten();
        let good = all.filter(|one| x509_parser::parse_x509_certificate(one).is_ok());
        Self(Arc::new(good.map(|one| one.to_vec()).collect()))
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
