//! The cluster's certificate authority and the server's own certificates.
//!
//! [`Authority::open_or_create`] makes a CA on the first start and loads it ever after; the same call keeps the two client
//! certificates the server hands out to itself: one for calls to nodes, one for the administrator's kubeconfig.
//! [`Authority::server_config`] gives the TLS side of the API listener.
//!
//! Servers that requests are passed on to know this one by an authority of its own ([`Authority::front_proxy`]), which signs nothing else: whoever
//! they believe what a caller is called must not be anybody whom the cluster's authority signed for.
//!
//! Everything is ECDSA P-256 and lives in one folder: `ca`, `apiserver`, `apiserver-client`, `admin`, `front-proxy-ca` and `front-proxy-client`, each
//! as `.crt` and `.key`. Leaf certificates are replaced at start when less than a third of their life is left, when another CA
//! signed them, or when they lack a name that is now asked for.
//!
//! The authority may be followed by another ([`Authority::follow`], by `crate::roots`): from then on that one signs, its predecessors are trusted for
//! as long as they are named, and what was made of the authority ([`Made`]) is made anew. They lie beside it as `ca-former.crt`, and `ca-cross.crt`
//! has the certificates by which whoever knows only a predecessor believes the successor's: each leaf comes with them.
//!
//! Invariant: private keys are never logged; how they are written is told in `pair`.
//! Left to others: who gets a certificate (`crate::certificates`, `crate::signers`), writing the kubeconfig (`weft`), when the authority is followed
//! by another (`crate::roots`).

mod issue;
mod kubeconfig;
pub(crate) mod lapsed;
mod leaf;
mod made;
mod pair;
mod succession;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData, SanType,
};
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use time::{Duration, OffsetDateTime};
use tokio::sync::watch;
use weft_kinds::furniture::FRONT_PROXY;

pub(crate) use self::issue::{AlternativeName, Wanted};
pub(crate) use self::leaf::{Leaf, address, end};
use self::leaf::{has_third_left, keep_leaf, san};
pub(crate) use self::made::Made;
pub use self::pair::Credentials;
use self::pair::{create_folder, key_pair, read_pair, write_pair};
pub(crate) use self::succession::Root;

/// The CA outlives every cluster we know; replacing it needs an overlap of two.
const CA_LIFE: Duration = Duration::days(3650);

/// The server's own leaves are renewed at start, so a year covers any plausible uptime.
const LEAF_LIFE: Duration = Duration::days(365);

/// How far in the past a certificate starts, for clocks that run behind ours: ten minutes are told and keep nobody from anything.
const CLOCK_SKEW: Duration = Duration::minutes(15);

/// A name that every API server's certificate carries, and no other: whoever is called by an address that anything may lie
/// behind has to prove it.
pub const SERVER_NAME: &str = "kubernetes.default.svc";

/// Names every client in the cluster may use for the API server.
const SERVER_NAMES: &[&str] = &[
    "localhost",
    "127.0.0.1",
    "::1",
    "kubernetes",
    "kubernetes.default",
    SERVER_NAME,
    "kubernetes.default.svc.cluster.local",
];

/// Why the authority cannot work.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// Permissions or a full disk: the operator must act.
    #[error("{action} {}", path.display())]
    File {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The file is not what it should be. It is never overwritten: it may be the only copy of a CA.
    #[error("{} does not hold a usable {what}; restore it from a backup, or move the folder away to start anew", path.display())]
    Unusable { what: &'static str, path: PathBuf },
    /// The folder belongs to another cluster.
    #[error("{} is the authority of another cluster", path.display())]
    Another { path: PathBuf },
    #[error("{name:?} is neither a DNS name nor an IP address")]
    Name { name: String },
    #[error("making a certificate")]
    Make(#[from] rcgen::Error),
    #[error("setting up TLS")]
    Tls(#[from] rustls::Error),
    #[error("setting up the check of client certificates")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

/// The cluster's CA with its key. Cloning shares it.
#[derive(Clone)]
pub struct Authority(Arc<Inner>);

struct Inner {
    dir: PathBuf,
    trust_domain: String,
    now: RwLock<Arc<Signing>>,
    /// Counts successions.
    generation: AtomicU64,
    /// The certificates that are trusted; tells of successions.
    trusted: watch::Sender<Arc<str>>,
    front_proxy: FrontProxy,
}

/// Who signs, and who is trusted beside.
struct Signing {
    issuer: Issuer<'static, KeyPair>,
    der: CertificateDer<'static>,
    /// Those before it that are trusted still.
    former: Vec<CertificateDer<'static>>,
    /// All that are trusted, the one that signs first.
    bundle: Arc<str>,
    /// It, as each of its predecessors signed for it; goes with each leaf.
    cross: String,
    client: Credentials,
    admin: Credentials,
}

/// What this server proves itself by to those that it passes requests on to. Each server has its own.
#[derive(Clone)]
pub struct FrontProxy {
    pub ca_pem: String,
    pub client: Credentials,
}

impl Authority {
    /// Opens the authority kept in `dir`, creating folder, CA and client certificates where they are missing.
    ///
    /// # Errors
    /// When a file cannot be read or written, or is not what it should be; nothing that exists is overwritten then.
    pub fn open_or_create(dir: &Path, trust_domain: &str) -> Result<Self, CaError> {
        create_folder(dir)?;
        succession::finish(dir)?;
        let now = OffsetDateTime::now_utc();
        let ca = open_or_create_ca(dir, "ca", now, || named_for(trust_domain, now))?;
        let (former, cross) = succession::kept(dir)?;
        let signing = Signing::new(dir, ca, former, cross, now)?;
        let front_proxy = front_proxy(dir, now)?;
        Ok(Self(Arc::new(Inner {
            dir: dir.to_owned(),
            trust_domain: trust_domain.to_owned(),
            generation: AtomicU64::new(0),
            trusted: watch::Sender::new(Arc::clone(&signing.bundle)),
            now: RwLock::new(Arc::new(signing)),
            front_proxy,
        })))
    }

    fn signing(&self) -> Arc<Signing> {
        Arc::clone(&self.0.now.read())
    }

    /// Counts the successions since this server started.
    pub(crate) fn generation(&self) -> u64 {
        self.0.generation.load(Ordering::Acquire)
    }

    /// [`Authority::ca_pem`], and each change of it: a succession, or its end.
    pub fn trusted(&self) -> watch::Receiver<Arc<str>> {
        self.0.trusted.subscribe()
    }

    /// What this server shows whoever it passes requests on to.
    pub fn front_proxy(&self) -> &FrontProxy {
        &self.0.front_proxy
    }

    /// That, for TLS.
    ///
    /// # Errors
    /// When it is unusable.
    pub(crate) fn front_proxy_client(
        &self,
    ) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), CaError> {
        let client = &self.0.front_proxy.client;
        client.parse(&self.0.dir, "front-proxy-client")
    }

    /// The certificates that clients are to trust, the one that signs first.
    pub fn ca_pem(&self) -> Arc<str> {
        Arc::clone(&self.signing().bundle)
    }

    /// The trust domain of the workload identities this authority signs.
    pub fn trust_domain(&self) -> &str {
        &self.0.trust_domain
    }

    /// The administrator's client certificate: user `weft-admin` in `system:masters`.
    pub fn admin(&self) -> Credentials {
        self.signing().admin.clone()
    }

    /// TLS for the API listener: a certificate for the well-known names, this machine's name and `names`, clients
    /// verified against the cluster CA if they show a certificate (of a node, one that is over: `lapsed.rs`), HTTP/2 and HTTP/1.1.
    ///
    /// # Errors
    /// When the serving certificate cannot be read, made or written, or a name is none.
    pub fn server_config(&self, names: &[String]) -> Result<Arc<rustls::ServerConfig>, CaError> {
        let mut sans = Vec::new();
        let hostname = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let hostname = hostname.trim();
        for name in SERVER_NAMES
            .iter()
            .copied()
            .chain(names.iter().map(String::as_str))
        {
            let san = san(name)?;
            if !sans.contains(&san) {
                sans.push(san);
            }
        }
        // A machine's name may be one that no certificate can hold; that is no reason not to start.
        if let Ok(san) = san(hostname)
            && !hostname.is_empty()
            && !sans.contains(&san)
        {
            sans.push(san);
        }
        let leaf = Leaf {
            common_name: Some("kube-apiserver"),
            organisation: None,
            names: sans,
            server: true,
            client: false,
            life: LEAF_LIFE,
        };
        let (chain, key) = self.keep("apiserver", &leaf)?;

        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(
            Arc::new(self.roots()?),
            Arc::clone(&provider),
        )
        .allow_unauthenticated()
        .build()?;
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(lapsed::tolerant(verifier))
            .with_single_cert(chain, key)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    /// Whether a chain of a client, leaf first, leads to one of the authorities that are trusted, and is good at `now`.
    pub(crate) fn vouches_for(&self, chain: &[CertificateDer<'_>], now: UnixTime) -> bool {
        let Some((leaf, intermediates)) = chain.split_first() else {
            return false;
        };
        let Ok(roots) = self.roots() else {
            return false;
        };
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        verifier.build().is_ok_and(|verifier| {
            let verified = verifier.verify_client_cert(leaf, intermediates, now);
            verified.is_ok()
        })
    }

    /// TLS for calls to nodes: trusts the cluster CA only and shows the server's own client certificate.
    ///
    /// # Errors
    /// When the client certificate on disk is unusable.
    pub fn client_config(&self) -> Result<Arc<rustls::ClientConfig>, CaError> {
        let signing = self.signing();
        let (chain, key) = signing.client.parse(&self.0.dir, "apiserver-client")?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(self.roots()?)
            .with_client_auth_cert(chain, key)?;
        Ok(Arc::new(config))
    }

    /// The leaf kept as `name`, made anew where it no longer serves.
    pub(crate) fn keep(
        &self,
        name: &str,
        leaf: &Leaf<'_>,
    ) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), CaError> {
        let (dir, now) = (&self.0.dir, OffsetDateTime::now_utc());
        self.signing().keep(dir, name, leaf, now)?.parse(dir, name)
    }

    /// The authority itself with its key, for a server that joins; it is as good as the whole cluster.
    ///
    /// # Errors
    /// When its files cannot be read.
    pub fn credentials(&self) -> Result<Credentials, CaError> {
        read_pair(&self.0.dir, "ca")?.ok_or_else(|| CaError::Unusable {
            what: "CA certificate",
            path: self.0.dir.join("ca.crt"),
        })
    }

    /// Puts an authority that was handed over into `dir`, which has none yet.
    ///
    /// # Errors
    /// When another one is there, or the files cannot be written.
    pub fn install(dir: &Path, authority: &Credentials) -> Result<(), CaError> {
        create_folder(dir)?;
        match read_pair(dir, "ca")? {
            Some(there) if there.certificate_pem == authority.certificate_pem => Ok(()),
            Some(_) => Err(CaError::Another {
                path: dir.join("ca.crt"),
            }),
            None => write_pair(dir, "ca", authority),
        }
    }

    pub(crate) fn roots(&self) -> Result<RootCertStore, CaError> {
        let signing = self.signing();
        let mut roots = RootCertStore::empty();
        roots.add(signing.der.clone())?;
        for former in &signing.former {
            roots.add(former.clone())?;
        }
        Ok(roots)
    }

    /// Signs a certificate for a key that is not ours; PEM of the leaf, and of what leads to it from the authority's predecessors.
    pub(crate) fn sign(
        &self,
        leaf: &Leaf<'_>,
        key: &impl PublicKeyData,
        now: OffsetDateTime,
    ) -> Result<String, CaError> {
        let signing = self.signing();
        let signed = leaf.params(now).signed_by(key, &signing.issuer)?;
        Ok(signed.pem() + &signing.cross)
    }
}

impl Signing {
    /// `former` and `cross` as PEM.
    fn new(
        dir: &Path,
        ca: Ca,
        former: String,
        cross: String,
        now: OffsetDateTime,
    ) -> Result<Self, CaError> {
        let Ca { pem, der, issuer } = ca;
        let others: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(former.as_bytes()).collect();
        let others = others.map_err(|_| CaError::Unusable {
            what: "certificate",
            path: dir.join(succession::FORMER),
        })?;
        let unsigned = Credentials {
            certificate_pem: String::new(),
            key_pem: String::new(),
        };
        let mut signing = Self {
            issuer,
            der,
            former: others,
            bundle: format!("{}\n{former}", pem.trim_end()).into(),
            cross,
            client: unsigned.clone(),
            admin: unsigned,
        };
        let client = Leaf {
            common_name: Some("kube-apiserver"),
            organisation: Some("system:masters"),
            names: Vec::new(),
            server: false,
            client: true,
            life: LEAF_LIFE,
        };
        let admin = Leaf {
            common_name: Some("weft-admin"),
            names: Vec::new(),
            ..client
        };
        signing.client = signing.keep(dir, "apiserver-client", &client, now)?;
        signing.admin = signing.keep(dir, "admin", &admin, now)?;
        Ok(signing)
    }

    fn keep(
        &self,
        dir: &Path,
        name: &str,
        leaf: &Leaf<'_>,
        now: OffsetDateTime,
    ) -> Result<Credentials, CaError> {
        let Self {
            issuer, der, cross, ..
        } = self;
        keep_leaf(dir, name, leaf, issuer, der, cross, now)
    }
}

/// An authority that is open.
struct Ca {
    pem: String,
    der: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

/// The authority kept as `name`; where there is none, one of these names is made.
fn open_or_create_ca(
    dir: &Path,
    name: &str,
    now: OffsetDateTime,
    names: impl FnOnce() -> Result<CertificateParams, CaError>,
) -> Result<Ca, CaError> {
    let (pem, key) = match read_pair(dir, name)? {
        Some(pair) => (pair.certificate_pem, key_pair(&pair.key_pem, dir, name)?),
        None => create_ca(dir, name, names()?, now)?,
    };
    let path = dir.join(format!("{name}.crt"));
    let unusable = || CaError::Unusable {
        what: "CA certificate",
        path: path.clone(),
    };
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| unusable())?;
    {
        let (_, certificate) = x509_parser::parse_x509_certificate(&der).map_err(|_| unusable())?;
        let ours = certificate.public_key().subject_public_key.data.as_ref() == key.der_bytes();
        if !certificate.is_ca() || !ours {
            return Err(unusable());
        }
        if !has_third_left(&certificate, now) {
            tracing::warn!(path = %path.display(), "an authority of the cluster nears its end; plan its replacement");
        }
    }
    let issuer = Issuer::from_ca_cert_der(&der, key)?;
    Ok(Ca { pem, der, issuer })
}

/// What the cluster's authority is called.
fn named_for(trust_domain: &str, now: OffsetDateTime) -> Result<CertificateParams, CaError> {
    // The date tells two clusters' authorities apart where both are installed.
    let mut params = called(format!("weft {trust_domain} {}", now.unix_timestamp()));
    // A SPIFFE bundle's authority names its trust domain.
    params.subject_alt_names = vec![SanType::URI(
        format!("spiffe://{trust_domain}").as_str().try_into()?,
    )];
    Ok(params)
}

fn called(name: String) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

fn create_ca(
    dir: &Path,
    name: &str,
    mut params: CertificateParams,
    now: OffsetDateTime,
) -> Result<(String, KeyPair), CaError> {
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
    as_authority(&mut params, now);
    let certificate = params.self_signed(&key)?;
    let pair = Credentials {
        certificate_pem: certificate.pem(),
        key_pem: key.serialize_pem(),
    };
    write_pair(dir, name, &pair)?;
    Ok((pair.certificate_pem, key))
}

/// What every authority says of itself. One may stand between it and a leaf: its successor, for those who know only it.
fn as_authority(params: &mut CertificateParams, now: OffsetDateTime) {
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
    params.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::CrlSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    params.not_before = now - CLOCK_SKEW;
    params.not_after = now + CA_LIFE;
}

fn front_proxy(dir: &Path, now: OffsetDateTime) -> Result<FrontProxy, CaError> {
    // Servers' authorities lie in one bundle, and have to differ.
    let name = format!("front-proxy-ca {}", uuid::Uuid::new_v4());
    let ca = open_or_create_ca(dir, "front-proxy-ca", now, || Ok(called(name)))?;
    let leaf = Leaf {
        common_name: Some(FRONT_PROXY),
        organisation: None,
        names: Vec::new(),
        server: false,
        client: true,
        life: LEAF_LIFE,
    };
    let (issuer, der) = (&ca.issuer, &ca.der);
    let client = keep_leaf(dir, "front-proxy-client", &leaf, issuer, der, "", now)?;
    Ok(FrontProxy {
        ca_pem: ca.pem,
        client,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn the_second_start_loads_what_the_first_made() {
        let dir = tempfile::tempdir().unwrap();
        let pki = dir.path().join("pki");
        let first = Authority::open_or_create(&pki, "cluster.local").unwrap();
        first.server_config(&["weft.example".to_owned()]).unwrap();
        let served = fs::read_to_string(pki.join("apiserver.crt")).unwrap();
        let again = Authority::open_or_create(&pki, "cluster.local").unwrap();
        again.server_config(&["weft.example".to_owned()]).unwrap();
        assert_eq!(first.ca_pem(), again.ca_pem());
        assert_eq!(first.admin().key_pem, again.admin().key_pem);
        assert_eq!(
            served,
            fs::read_to_string(pki.join("apiserver.crt")).unwrap()
        );
        for name in ["ca", "apiserver", "apiserver-client", "admin"] {
            let mode = fs::metadata(pki.join(format!("{name}.key")))
                .unwrap()
                .permissions()
                .mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }

        // A new name needs a new certificate, and a lost key is not replaced behind the operator's back.
        again
            .server_config(&["other.example".to_owned(), "10.0.0.7".to_owned()])
            .unwrap();
        assert_ne!(
            served,
            fs::read_to_string(pki.join("apiserver.crt")).unwrap()
        );
        assert!(matches!(
            again.server_config(&["no name".to_owned()]),
            Err(CaError::Name { .. })
        ));
        fs::remove_file(pki.join("ca.key")).unwrap();
        assert!(matches!(
            Authority::open_or_create(&pki, "cluster.local"),
            Err(CaError::Unusable { .. })
        ));
    }

    #[test]
    fn leaves_are_renewed_in_their_last_third() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::open_or_create(dir.path(), "cluster.local").unwrap();
        let leaf = Leaf {
            common_name: Some("x"),
            organisation: None,
            names: vec![],
            server: true,
            client: false,
            life: Duration::days(90),
        };
        let (signing, now) = (authority.signing(), OffsetDateTime::now_utc());
        let at = |days| {
            let now = now + Duration::days(days);
            signing.keep(dir.path(), "x", &leaf, now).unwrap()
        };
        let (first, kept, renewed) = (at(0), at(59), at(61));
        assert_eq!(first.certificate_pem, kept.certificate_pem);
        assert_ne!(first.certificate_pem, renewed.certificate_pem);
    }
}
