//! How a call that a rule allows is sent: by TLS although it was asked for without, verified by other authorities than the platform's, and with
//! what proves who calls. The caller has none of it: its request goes through here, and the secret is added to the copy that leaves.
//!
//! Invariants: a secret is sent by TLS only, to the hosts of its rule, and in answer to no `TRACE`, which would show it; a secret that cannot be had
//! keeps the call from leaving; nothing here is ever shown (`Debug` says that there is something); connections that differ in what they
//! prove or whom they believe are never the same ([`Manner::key`]).
//! Left to others: where secrets are, and what becomes of them (`weft_agent`).

use std::{fmt, sync::Arc};

use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use rustls::ClientConfig;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::sync::OnceCell;

use super::{
    destination::{Destination, EgressScheme},
    tls::Roots,
};

/// Credentials of one rule.
const CREDENTIALS_MAX: usize = 8;

/// How calls that meet a rule are sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EgressManner {
    /// The port to which calls without TLS are sent by TLS.
    pub originate: Option<u16>,
    /// Authorities that hosts are verified by, in place of the platform's; these where there are none.
    pub authorities: Vec<CertificateDer<'static>>,
    pub credentials: Vec<EgressCredential>,
}

/// What proves who calls.
#[derive(PartialEq, Eq)]
pub enum EgressCredential {
    /// A line of the request, in place of what the caller says there.
    Line(HeaderName, HeaderValue),
    /// A certificate, leaf first, and its key.
    Certificate(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>),
    /// It cannot be had, and why: one clause, without anything of it.
    Missing(String),
}

impl Clone for EgressCredential {
    fn clone(&self) -> Self {
        match self {
            Self::Line(name, value) => Self::Line(name.clone(), value.clone()),
            Self::Certificate(chain, key) => Self::Certificate(chain.clone(), key.clone_key()),
            Self::Missing(why) => Self::Missing(why.clone()),
        }
    }
}

impl fmt::Debug for EgressCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(name, _) => write!(f, "Line({name}, …)"),
            Self::Certificate(chain, _) => {
                write!(f, "Certificate({} certificates, …)", chain.len())
            }
            Self::Missing(why) => write!(f, "Missing({why:?})"),
        }
    }
}

/// A way to prove oneself and to verify the other end that is not that of all calls.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct Proof {
    authorities: Vec<CertificateDer<'static>>,
    chain: Vec<CertificateDer<'static>>,
}

/// By which connections are told apart.
pub(crate) type Key = Option<Arc<Proof>>;

/// That, ready for calls.
#[derive(Default)]
pub(crate) struct Manner {
    originate: Option<u16>,
    lines: Vec<(HeaderName, HeaderValue)>,
    proof: Key,
    /// Of the chain that is shown, if one is.
    private_key: Option<PrivateKeyDer<'static>>,
    missing: Option<String>,
    tls: OnceCell<Arc<ClientConfig>>,
}

impl fmt::Debug for Manner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Manner")
            .field("originate", &self.originate)
            .field("lines", &self.lines.len())
            .finish_non_exhaustive()
    }
}

impl Manner {
    /// # Errors
    /// What is wrong with it, as half a sentence, and of which field.
    pub(crate) fn compile(
        manner: &EgressManner,
        scheme: EgressScheme,
    ) -> Result<Self, (&'static str, &'static str)> {
        let is_tls = scheme == EgressScheme::Https || manner.originate.is_some();
        if scheme == EgressScheme::Https && manner.originate.is_some() {
            return Err(("tls", "is for calls without TLS, and the scheme is HTTPS"));
        }
        if !is_tls && !manner.credentials.is_empty() {
            return Err(("credentials", "are never sent without TLS"));
        }
        if !is_tls && !manner.authorities.is_empty() {
            return Err(("tls", "verifies nobody without TLS"));
        }
        if manner.credentials.len() > CREDENTIALS_MAX {
            return Err(("credentials", "are more than one rule may have"));
        }
        let mut ready = Self {
            originate: manner.originate,
            ..Self::default()
        };
        let mut shown = Vec::new();
        for credential in &manner.credentials {
            match credential.clone() {
                EgressCredential::Line(name, _) if !may_be_added(&name) => {
                    return Err(("credentials", "would change what the request means"));
                }
                EgressCredential::Line(name, mut value) => {
                    // Neither compressed beside what the caller says, nor shown.
                    value.set_sensitive(true);
                    ready.lines.push((name, value));
                }
                EgressCredential::Certificate(chain, key) => {
                    shown = chain;
                    ready.private_key = Some(key);
                }
                EgressCredential::Missing(why) => ready.missing = Some(why),
            }
        }
        if !(shown.is_empty() && manner.authorities.is_empty()) {
            ready.proof = Some(Arc::new(Proof {
                authorities: manner.authorities.clone(),
                chain: shown,
            }));
        }
        Ok(ready)
    }

    /// Whether calls are sent as their callers say, and nothing else.
    pub(crate) fn is_plain(&self) -> bool {
        self.originate.is_none()
            && self.lines.is_empty()
            && self.proof.is_none()
            && self.missing.is_none()
    }

    /// Whether a call of this method would show what is added.
    pub(crate) fn would_show(&self, method: &Method) -> bool {
        *method == Method::TRACE && !(self.lines.is_empty() && self.missing.is_none())
    }

    /// Which connections may carry it.
    pub(crate) fn key(&self) -> Key {
        self.proof.clone()
    }

    /// Why it cannot be sent now.
    pub(crate) fn missing(&self) -> Option<&str> {
        self.missing.as_deref()
    }

    /// Where a call is sent.
    pub(crate) fn leads(&self, to: &Destination) -> Destination {
        match self.originate {
            None => to.clone(),
            Some(port) => Destination {
                host: to.host.clone(),
                port,
                scheme: EgressScheme::Https,
            },
        }
    }

    /// Adds the lines, in place of those that the caller wrote.
    pub(crate) fn dress(&self, request: &mut HeaderMap) {
        for (name, value) in &self.lines {
            request.insert(name.clone(), value.clone());
        }
    }

    /// The TLS of its connections; none where it is that of all calls of the identity.
    pub(crate) async fn tls(
        &self,
        roots: &Roots,
    ) -> Option<Result<Arc<ClientConfig>, rustls::Error>> {
        let proof = self.proof.as_ref()?;
        let made = self.tls.get_or_try_init(|| {
            let key = self.private_key.as_ref().map(PrivateKeyDer::clone_key);
            let certificate = key.map(|key| (proof.chain.clone(), key));
            roots.client(&proof.authorities, certificate)
        });
        Some(made.await.cloned())
    }
}

/// Whether a line may be added: not one by which others tell where a request ends and to whom it goes, nor one of the mesh's own.
fn may_be_added(name: &HeaderName) -> bool {
    let framing = [
        header::HOST,
        header::CONNECTION,
        header::CONTENT_LENGTH,
        header::TRANSFER_ENCODING,
        header::TE,
        header::TRAILER,
        header::UPGRADE,
        header::EXPECT,
    ];
    let inside = [
        weft_call::headers::TRACEPARENT,
        weft_call::headers::TRACESTATE,
    ];
    let text = name.as_str();
    !framing.contains(name)
        && inside.iter().all(|inside| text != inside.as_str())
        && !text.starts_with("x-weft-")
        && text != "x-forwarded-client-cert"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(name: &'static str, value: &'static str) -> EgressCredential {
        EgressCredential::Line(
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        )
    }

    fn manner(originate: Option<u16>, credentials: Vec<EgressCredential>) -> EgressManner {
        EgressManner {
            originate,
            authorities: Vec::new(),
            credentials,
        }
    }

    #[test]
    fn secrets_need_tls_and_lines_of_their_own() {
        use EgressScheme::{Http, Https};
        let token = || line("authorization", "Bearer hunter2");
        for (manner, scheme, fault) in [
            (manner(None, vec![token()]), Https, None),
            (manner(Some(443), vec![token()]), Http, None),
            (manner(None, vec![token()]), Http, Some("credentials")),
            (manner(Some(443), vec![]), Https, Some("tls")),
            (
                manner(None, vec![line("host", "x")]),
                Https,
                Some("credentials"),
            ),
            (
                manner(None, vec![line("x-weft-source", "x")]),
                Https,
                Some("credentials"),
            ),
            (manner(None, vec![token(); 9]), Https, Some("credentials")),
        ] {
            let found = Manner::compile(&manner, scheme);
            let shown = format!("{manner:?} {found:?}");
            assert!(!shown.contains("hunter2"), "{shown}");
            assert_eq!(found.err().map(|(field, _)| field), fault, "{manner:?}");
        }
    }

    #[test]
    fn what_is_added_stands_in_place_of_what_the_caller_wrote() {
        let manner = manner(None, vec![line("x-key", "right")]);
        let manner = Manner::compile(&manner, EgressScheme::Https).expect("a manner");
        let mut lines = HeaderMap::new();
        for mine in ["wrong", "worse"] {
            lines.append("x-key", HeaderValue::from_static(mine));
        }
        manner.dress(&mut lines);
        let said: Vec<_> = lines.get_all("x-key").iter().collect();
        assert_eq!(said, ["right"]);
        assert!(lines["x-key"].is_sensitive());
        assert!(manner.would_show(&Method::TRACE) && !manner.would_show(&Method::GET));
        assert!(!manner.is_plain() && Manner::default().is_plain());
        assert_eq!(manner.key(), None, "lines need no connection of their own");
    }
}
