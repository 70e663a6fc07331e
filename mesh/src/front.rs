//! Addresses and ports that Gateways have for themselves: which listeners are there, and what of TLS each of them shows and asks for.
//!
//! One socket has the listeners of one Gateway and port. A client's name for the server (SNI) tells whose certificate it is shown, as a
//! request's host tells whose routes it meets; where the two mean different listeners, the request is not for this connection (421).
//!
//! Invariants: a listener's certificate is shown for its hosts only; sessions are resumed at the listener that made them; what cannot be
//! made of a certificate closes its listener and no other.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::SocketAddr,
    sync::Arc,
};

use rustls::{
    DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::{CryptoProvider, aws_lc_rs},
    server::{
        ClientHello, ResolvesServerCert, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::CertifiedKey,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use weft_gateway::{ClientValidation, FrontTls, HostPattern};

use crate::route::Listeners;

const H2: &[u8] = b"h2";
const HTTP1: &[u8] = b"http/1.1";

/// All of a node, by place.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Fronts(HashMap<SocketAddr, Arc<Front>>);

/// One place.
#[derive(Debug)]
pub(crate) struct Front {
    pub(crate) listeners: Listeners,
    /// Of HTTPS, the most specific hostname first.
    tls: Vec<(HostPattern, Option<Arc<ServerConfig>>)>,
    is_tls: bool,
    made_of: weft_gateway::Front,
}

impl PartialEq for Front {
    fn eq(&self, other: &Self) -> bool {
        self.made_of == other.made_of
    }
}

impl Fronts {
    /// Of what is served; what is as it was `before` stays.
    pub(crate) fn of(served: &BTreeMap<SocketAddr, weft_gateway::Front>, before: &Self) -> Self {
        let fronts = served.iter().map(|(place, front)| {
            let known = before.0.get(place);
            let known = known.filter(|known| known.made_of == *front);
            let front = match known {
                Some(known) => Arc::clone(known),
                None => Arc::new(Front::of(front, before.0.get(place).map(|known| &**known))),
            };
            (*place, front)
        });
        Self(fronts.collect())
    }

    pub(crate) fn get(&self, place: SocketAddr) -> Option<&Arc<Front>> {
        self.0.get(&place)
    }

    pub(crate) fn places(&self) -> BTreeSet<SocketAddr> {
        self.0.keys().copied().collect()
    }
}

impl Front {
    fn of(served: &weft_gateway::Front, before: Option<&Self>) -> Self {
        let mut tls: Vec<(HostPattern, Option<Arc<ServerConfig>>)> = served
            .tls
            .iter()
            .map(|(pattern, tls)| {
                let known = before.and_then(|before| before.config_like(pattern, tls));
                (pattern.clone(), known.or_else(|| config(pattern, tls)))
            })
            .collect();
        tls.sort_by_key(|(pattern, _)| std::cmp::Reverse(pattern.specificity()));
        Self {
            listeners: Listeners::of(&served.listeners),
            tls,
            is_tls: !served.tls.is_empty(),
            made_of: served.clone(),
        }
    }

    /// The configuration of a listener that is as it was.
    fn config_like(&self, pattern: &HostPattern, tls: &FrontTls) -> Option<Arc<ServerConfig>> {
        let known = self.made_of.tls.get(pattern)?;
        if **known != *tls {
            return None;
        }
        let mut configs = self.tls.iter();
        let (_, config) = configs.find(|(of, _)| of == pattern)?;
        config.clone()
    }

    /// Whether clients have to speak TLS.
    pub(crate) fn is_tls(&self) -> bool {
        self.is_tls
    }

    /// What a client that asks for `name` is shown; nothing where no listener is for it.
    pub(crate) fn config(&self, name: &str) -> Option<Arc<ServerConfig>> {
        let mut configs = self.tls.iter();
        let (_, config) = configs.find(|(pattern, _)| match name {
            // Who names nobody may still be shown something: there is one listener, or one for all.
            "" => self.tls.len() == 1 || *pattern == HostPattern::Any,
            name => pattern.matches(name),
        })?;
        config.clone()
    }

    /// How specific the listener of HTTPS is that has a name.
    pub(crate) fn specificity(&self, name: &str) -> Option<(u8, usize)> {
        let mut patterns = self.tls.iter().map(|(pattern, _)| pattern);
        let found = patterns.find(|pattern| pattern.matches(name))?;
        Some(found.specificity())
    }

    /// Whether a request for `host` on a connection to `name` is at the listener that the connection was made to.
    pub(crate) fn is_at_home(&self, name: &str, host: &str) -> bool {
        self.listeners.are_of_one(name, host)
    }
}

fn config(pattern: &HostPattern, tls: &FrontTls) -> Option<Arc<ServerConfig>> {
    match made(tls) {
        Ok(config) => Some(Arc::new(config)),
        Err(error) => {
            tracing::warn!(listener = %pattern, %error, "a listener's TLS cannot be used, it is closed");
            None
        }
    }
}

/// The same for a listener of bytes: what is spoken inside is its clients' and its backends' to say.
pub(crate) fn stream_config(pattern: &HostPattern, tls: &FrontTls) -> Option<Arc<ServerConfig>> {
    let mut config = Arc::unwrap_or_clone(config(pattern, tls)?);
    config.alpn_protocols.clear();
    Some(Arc::new(config))
}

fn made(tls: &FrontTls) -> Result<ServerConfig, rustls::Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?;
    let builder = match &tls.clients {
        None => builder.with_no_client_auth(),
        Some(clients) => builder.with_client_cert_verifier(verifier(clients, &provider)?),
    };
    let mut keys = Vec::with_capacity(tls.certificates.len());
    for pair in &tls.certificates {
        let chain = pair.chain.iter();
        let chain = chain.map(|one| CertificateDer::from(one.clone())).collect();
        let key = provider.key_provider.load_private_key(pair.key())?;
        let certified = CertifiedKey::new(chain, key);
        certified.keys_match().or_else(|error| match error {
            // It cannot be told of every kind of key.
            rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown) => Ok(()),
            error => Err(error),
        })?;
        keys.push(Arc::new(certified));
    }
    let mut config = builder.with_cert_resolver(Arc::new(Keys(keys)));
    config.alpn_protocols = vec![H2.to_vec(), HTTP1.to_vec()];
    Ok(config)
}

fn verifier(
    clients: &ClientValidation,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, rustls::Error> {
    if clients.falls_back {
        return Ok(Arc::new(Anybody(Arc::clone(provider))));
    }
    let mut roots = RootCertStore::empty();
    let given = clients.roots.iter();
    roots.add_parsable_certificates(given.map(|root| CertificateDer::from(root.clone())));
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    let verifier = verifier.build();
    let verifier = verifier.map_err(|error| rustls::Error::General(error.to_string()))?;
    Ok(verifier)
}

/// A listener's certificates: the first that is for the name that is asked for, else the first.
#[derive(Debug)]
struct Keys(Vec<Arc<CertifiedKey>>);

impl ResolvesServerCert for Keys {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name();
        let name = name.and_then(|name| ServerName::try_from(name).ok());
        let is_for = |key: &&Arc<CertifiedKey>| {
            let (Some(name), Some(leaf)) = (&name, key.cert.first()) else {
                return false;
            };
            let parsed = webpki::EndEntityCert::try_from(leaf);
            parsed.is_ok_and(|parsed| parsed.verify_is_valid_for_subject_name(name).is_ok())
        };
        let found = match self.0.as_slice() {
            [only] => Some(only),
            all => all.iter().find(is_for).or(all.first()),
        };
        found.cloned()
    }
}

/// Clients that may prove nothing, and whose proof means nothing.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ClientCertVerifier for Anybody {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
