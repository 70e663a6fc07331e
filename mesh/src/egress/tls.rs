//! TLS to hosts outside of the cluster: verified as the machine's own programs do it.
//!
//! The roots are the platform's; where it has none, as in an empty container image, Mozilla's as they were when weft was built. The node's
//! owner may add others. A rule may name authorities of its own, which count alone, and a certificate to show (`manner.rs`). They are loaded at the first call that needs them, and again when the node starts.
//!
//! Invariants: a certificate has to lead to a root, be valid now and be for the host of the URL; there is no way to do without. Sessions
//! are resumed only by the identity that made them.

use std::sync::Arc;

use rustls::{
    ClientConfig, RootCertStore,
    client::{Resumption, WebPkiServerVerifier, danger::ServerCertVerifier},
    crypto::aws_lc_rs,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use rustls_platform_verifier::Verifier;
use tokio::sync::OnceCell;

pub(crate) const H2: &[u8] = b"h2";
const HTTP1: &[u8] = b"http/1.1";

/// Hosts whose sessions one identity may resume.
const SESSIONS_MAX: usize = 64;

/// Who verifies hosts outside, loaded when it is first needed.
pub(crate) struct Roots {
    extra: Vec<CertificateDer<'static>>,
    verifier: OnceCell<Arc<dyn ServerCertVerifier>>,
}

impl Roots {
    pub(crate) fn new(extra: Vec<CertificateDer<'static>>) -> Self {
        Self {
            extra,
            verifier: OnceCell::new(),
        }
    }

    /// A configuration with a memory of sessions of its own. It believes `authorities`, or the platform's where there are none, and shows
    /// `certificate` to whoever asks for one.
    pub(crate) async fn client(
        &self,
        authorities: &[CertificateDer<'static>],
        certificate: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
    ) -> Result<Arc<ClientConfig>, rustls::Error> {
        let verifier = match authorities {
            [] => self.verifier().await?,
            only => only_by(only)?,
        };
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let mut config = match certificate {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => builder.with_client_auth_cert(chain, key)?,
        };
        config.alpn_protocols = vec![H2.to_vec(), HTTP1.to_vec()];
        config.resumption = Resumption::in_memory_sessions(SESSIONS_MAX);
        Ok(Arc::new(config))
    }

    async fn verifier(&self) -> Result<Arc<dyn ServerCertVerifier>, rustls::Error> {
        let load = || async {
            let extra = self.extra.clone();
            // A bundle of some hundred kilobytes is read and parsed.
            let loaded = tokio::task::spawn_blocking(move || outside_verifier(extra)).await;
            loaded.map_err(|error| rustls::Error::General(error.to_string()))?
        };
        Ok(Arc::clone(self.verifier.get_or_try_init(load).await?))
    }
}

/// Believes these authorities and nobody else.
fn only_by(
    authorities: &[CertificateDer<'static>],
) -> Result<Arc<dyn ServerCertVerifier>, rustls::Error> {
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(authority.clone())?;
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let built = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build();
    let built = built.map_err(|error| rustls::Error::General(error.to_string()))?;
    Ok(built)
}

/// Who verifies hosts outside of the cluster: by the platform's roots, or those that weft brings where it has none, and by `extra`. It
/// reads and parses some hundred kilobytes.
///
/// # Errors
/// When a root of `extra` is none.
pub fn outside_verifier(
    extra: Vec<CertificateDer<'static>>,
) -> Result<Arc<dyn ServerCertVerifier>, rustls::Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    // Asked without the others first: with them, a platform without roots would not be noticed.
    let bundled = match Verifier::new(Arc::clone(&provider)) {
        Ok(platforms) if extra.is_empty() => return Ok(Arc::new(platforms)),
        Ok(_) => &[],
        Err(error) => {
            tracing::info!(%error, "hosts outside are verified with the roots that weft brings");
            webpki_root_certs::TLS_SERVER_ROOT_CERTS
        }
    };
    let roots = extra.into_iter().chain(bundled.iter().cloned());
    Ok(Arc::new(Verifier::new_with_extra_roots(roots, provider)?))
}
