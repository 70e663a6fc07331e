//! Calls to named hosts outside of the cluster.
//!
//! Nothing leaves the cluster by itself. What an identity may call, and how, its rules say; the agent makes them of CapabilityGrants and
//! hands them in ([`crate::Mesh::set_egress_rules`]). A call to what is no Service comes from `outbound.rs` to [`call::send`].
//!
//! ```text
//! destination.rs  where to, read in one way     rule.rs     whether that is allowed, and what is missing
//! names.rs        its addresses                 address.rs  whether each may be connected to
//! pool.rs         how many, and connections     connect.rs, tls.rs  a new one     call.rs  all of it, in order
//! manner.rs       by which TLS, and with what that proves who calls
//! body.rs         the response, until it was read
//! ```
//!
//! Invariants: no rule, no call; a call that was not allowed opens no connection and asks no name server; what one identity has is used by
//! no other.
//! Left to others: who an identity is, and which grants it has (`weft_agent`).

pub(crate) mod address;
mod body;
pub(crate) mod call;
mod connect;
pub(crate) mod destination;
mod manner;
mod names;
mod pool;
mod rule;
mod tls;

use std::{collections::HashMap, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use rustls_pki_types::CertificateDer;
use weft_api::identity::SpiffeId;

pub use address::{OwnAddresses, SpecialAddress};
pub use destination::EgressScheme;
pub use manner::{EgressCredential, EgressManner};
pub use names::{Resolve, Resolving};
pub use rule::{EGRESS_RULES_MAX, EgressRule, EgressRuleError, NotGranted};
pub use tls::outside_verifier;

use names::Names;
use pool::{Account, Pool};
use rule::{Rule, Rules};
use tls::Roots;

/// How calls leave the cluster, for [`crate::Builder::egress`].
#[derive(Clone)]
pub struct EgressConfig {
    /// Authorities that are trusted beside the platform's, in DER.
    pub extra_roots: Vec<CertificateDer<'static>>,
    /// What finds the addresses of names; the machine's resolver when not given.
    pub resolver: Option<Arc<dyn Resolve>>,
    /// How long the addresses of a name are believed, 10 s by default. A resolver does not say for how long they are meant, and services
    /// that move by DNS count on tens of seconds.
    pub addresses_fresh: Duration,
}

impl Default for EgressConfig {
    fn default() -> Self {
        Self {
            extra_roots: Vec::new(),
            resolver: None,
            addresses_fresh: Duration::from_secs(10),
        }
    }
}

/// What one identity may call, and its connections.
#[derive(Default)]
pub(crate) struct Identity {
    rules: ArcSwap<Rules>,
    account: Account,
}

/// The way out of one node.
pub(crate) struct Egress {
    identities: ArcSwap<HashMap<SpiffeId, Arc<Identity>>>,
    /// Who has no rules.
    nobody: Arc<Identity>,
    own: ArcSwap<OwnAddresses>,
    names: Names,
    pool: Pool,
    roots: Roots,
}

impl Egress {
    pub(crate) fn new(config: EgressConfig) -> Self {
        let system = || Arc::new(names::System::default()) as Arc<dyn Resolve>;
        Self {
            identities: ArcSwap::default(),
            nobody: Arc::default(),
            own: ArcSwap::default(),
            names: Names::new(
                config.resolver.unwrap_or_else(system),
                config.addresses_fresh,
            ),
            pool: Pool::default(),
            roots: Roots::new(config.extra_roots),
        }
    }

    /// Replaces the rules of an identity; rules that say nothing are left out and returned.
    pub(crate) fn set_rules(
        &self,
        identity: &SpiffeId,
        rules: &[EgressRule],
    ) -> Vec<EgressRuleError> {
        let (mut compiled, mut wrong) = (Vec::new(), Vec::new());
        for rule in rules.iter().take(EGRESS_RULES_MAX) {
            match Rule::compile(rule) {
                Ok(rule) => compiled.push(rule),
                Err(error) => wrong.push(error),
            }
        }
        let is_empty = compiled.is_empty();
        let known = self.identities.load().get(identity).cloned();
        match known {
            None if is_empty => return wrong,
            None => {
                let fresh = Arc::new(Identity {
                    rules: ArcSwap::default(),
                    account: self.pool.account(&identity.namespace),
                });
                fresh.rules.store(Arc::new(Rules::new(compiled)));
                self.identities.rcu(|identities| {
                    let mut identities = HashMap::clone(identities);
                    identities.insert(identity.clone(), Arc::clone(&fresh));
                    identities
                });
            }
            Some(known) => {
                // First of all for calls that found the identity and have not asked its rules yet.
                known.rules.store(Arc::new(Rules::new(compiled)));
                if is_empty {
                    self.identities.rcu(|identities| {
                        let mut identities = HashMap::clone(identities);
                        identities.remove(identity);
                        identities
                    });
                }
            }
        }
        wrong
    }

    pub(crate) fn set_own(&self, own: OwnAddresses) {
        self.own.store(Arc::new(own));
    }

    /// Whether a rule of the identity names the host of `uri`.
    pub(crate) fn names(&self, identity: &SpiffeId, uri: &http::Uri) -> bool {
        let identities = self.identities.load();
        let Some(identity) = identities.get(identity) else {
            return false;
        };
        let to = destination::Destination::of(uri);
        to.is_ok_and(|to| identity.rules.load().name(&to.host))
    }

    fn identity(&self, identity: &SpiffeId) -> Arc<Identity> {
        let identities = self.identities.load();
        Arc::clone(identities.get(identity).unwrap_or(&self.nobody))
    }
}
