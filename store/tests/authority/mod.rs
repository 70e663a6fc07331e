//! A certificate authority for servers of a store on one machine.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use weft_store::ServerId;
use weft_store::transport::LinkTls;

fn name(server: ServerId) -> String {
    format!("server-{server}.store.test")
}

/// The cluster's certificates: an authority, and one certificate a server.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().expect("key");
        Authority(CertifiedIssuer::self_signed(params, key).expect("authority"))
    }

    pub fn tls(&self, server: ServerId) -> LinkTls {
        let key = KeyPair::generate().expect("key");
        let params = CertificateParams::new(vec![name(server)]).expect("name");
        let certificate = params.signed_by(&key, &self.0).expect("signed");
        let chain = vec![certificate.der().clone()];
        let key = || PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).expect("root");
        let roots = Arc::new(roots);
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let client = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("versions")
            .with_root_certificates(Arc::clone(&roots))
            .with_client_auth_cert(chain.clone(), key())
            .expect("client");
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider))
            .build()
            .expect("verifier");
        let server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("versions")
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key())
            .expect("server");
        let (client, server) = (Arc::new(client), Arc::new(server));
        LinkTls {
            client: Arc::new(move || Arc::clone(&client)),
            server: Arc::new(move || Arc::clone(&server)),
            name_of: Arc::new(name),
            // The name is in the certificate as it was written: enough for a test's own authority.
            identify: Arc::new(|certificate| {
                let mut servers = 1..=9;
                servers.find(|server| {
                    let name = name(*server);
                    let mut windows = certificate.windows(name.len());
                    windows.any(|window| window == name.as_bytes())
                })
            }),
        }
    }
}
