//! Certificates for the links between servers, from the cluster's own authority.
//!
//! A server's certificate has the subject O=weft:servers, CN=weft:server:NUMBER, and one name under a zone that no node can
//! get a certificate for. Both directions are checked: the dialled server must have its name, and the caller's subject
//! says which server's messages it may send.
//!
//! Invariants: TLS 1.3 only; a certificate of a node, a workload or an administrator is no server's.
//! Left to others: cluster and server numbers within the messages (`weft_store`).

use std::sync::Arc;

use rcgen::SanType;
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, ServerConfig};
use rustls_pki_types::CertificateDer;
use time::Duration;
use weft_store::ServerId;
use weft_store::transport::LinkTls;

use crate::ca::{Authority, CaError, Leaf, Made};

/// Only a server gets a certificate with it: every server holds the authority's key.
pub(crate) const ORGANISATION: &str = "weft:servers";
const USER: &str = "weft:server:";

/// Renewed at start, like the API's own.
const LIFE: Duration = Duration::days(365);

/// The zone of the servers' names; the node signer refuses names in it.
pub(crate) fn zone(trust_domain: &str) -> String {
    format!("servers.{trust_domain}")
}

fn name(server: ServerId, trust_domain: &str) -> String {
    format!("server-{server}.{}", zone(trust_domain))
}

/// The server that a verified certificate belongs to.
fn identify(certificate: &CertificateDer<'_>) -> Option<ServerId> {
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let subject = certificate.subject();
    let mut organisations = subject.iter_organization();
    let organisation = organisations.next()?.as_str().ok()?;
    if organisation != ORGANISATION || organisations.next().is_some() {
        return None;
    }
    let user = subject.iter_common_name().next()?.as_str().ok()?;
    user.strip_prefix(USER)?.parse().ok()
}

/// TLS for `server`'s links to the others, made anew when another authority follows; its certificate is kept beside the authority's.
///
/// # Errors
/// When the certificate cannot be read, made or written.
pub fn link_tls(authority: &Authority, server: ServerId) -> Result<LinkTls, CaError> {
    let trust_domain = authority.trust_domain().to_owned();
    let user = format!("{USER}{server}");
    let own = name(server, &trust_domain);
    let made = Made::new(authority, move |authority| {
        configs(authority, server, &user, &own)
    })?;
    let made = Arc::new(made);
    let other = Arc::clone(&made);
    Ok(LinkTls {
        client: Arc::new(move || made.now().0),
        server: Arc::new(move || other.now().1),
        name_of: Arc::new(move |server| name(server, &trust_domain)),
        identify: Arc::new(identify),
    })
}

/// Both ends, as the authority is now.
fn configs(
    authority: &Authority,
    server: ServerId,
    user: &str,
    own: &str,
) -> Result<(Arc<ClientConfig>, Arc<ServerConfig>), CaError> {
    let leaf = Leaf {
        common_name: Some(user),
        organisation: Some(ORGANISATION),
        names: vec![SanType::DnsName(own.try_into()?)],
        server: true,
        client: true,
        life: LIFE,
    };
    let (chain, key) = authority.keep(&format!("server-{server}"), &leaf)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let versions = &[&rustls::version::TLS13];
    let roots = Arc::new(authority.roots()?);
    let client = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions)?
        .with_root_certificates(Arc::clone(&roots))
        .with_client_auth_cert(chain.clone(), key.clone_key())?;
    let verifier =
        WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider)).build()?;
    let server = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)?;
    Ok((Arc::new(client), Arc::new(server)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls_pki_types::pem::PemObject as _;

    #[test]
    fn attack_86_only_a_servers_certificate_is_a_servers() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::open_or_create(dir.path(), "cluster.local").unwrap();
        link_tls(&authority, 7).unwrap();
        let read = |name: &str| {
            let pem = std::fs::read(dir.path().join(name)).unwrap();
            CertificateDer::from_pem_slice(&pem).unwrap()
        };
        for (file, server) in [
            ("server-7.crt", Some(7)),
            ("admin.crt", None),
            ("apiserver-client.crt", None),
            ("ca.crt", None),
        ] {
            assert_eq!(identify(&read(file)), server, "{file}");
        }
    }
}
