//! What concerns calls to one pod: whose tokens are taken, and who is let in.
//!
//! Policies that are attached to a Service hold for calls that came by it; all others hold for every call. What concerns requests to a Gateway is
//! a guard of its own, all of which holds.
//!
//! Invariant: of a pod that nothing concerns, the guard is empty, and costs one look.

use std::sync::Arc;

use crate::attributes::Attributes;
use crate::authorization::{Authorization, Because, Judges, Verdict};
use crate::spec::Target;
use crate::token::Issuer;

/// See the module's promise.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Guard {
    judges: Judges,
    /// Those that are tried out only.
    tried: Judges,
    /// With the namespace of the policy, and what it is attached to.
    tokens: Vec<(String, Vec<Target>, Arc<Issuer>)>,
}

impl Guard {
    pub(crate) fn add(&mut self, policy: &Arc<Authorization>) {
        match policy.is_dry_run {
            true => self.tried.add(policy),
            false => self.judges.add(policy),
        }
    }

    pub(crate) fn take_tokens(
        &mut self,
        namespace: &str,
        targets: &[Target],
        issuers: &[Arc<Issuer>],
    ) {
        let all = issuers.iter().map(Arc::clone);
        self.tokens
            .extend(all.map(|issuer| (namespace.to_owned(), targets.to_vec(), issuer)));
    }

    /// Whether nothing is asked of anybody.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.judges.is_empty() && self.tried.is_empty() && self.tokens.is_empty()
    }

    /// Whose tokens are taken of a call that came by `service`, a namespace and a name.
    pub fn issuers<'g>(
        &'g self,
        service: Option<(&'g str, &'g str)>,
    ) -> impl Iterator<Item = &'g Arc<Issuer>> {
        let all = self.tokens.iter();
        all.filter(move |(namespace, targets, _)| is_by(targets, namespace, service))
            .map(|(_, _, issuer)| issuer)
    }

    /// Whose tokens are taken of requests to the Gateway that this is the guard of.
    pub fn issuers_of_gateway(&self) -> impl Iterator<Item = &Arc<Issuer>> {
        self.tokens.iter().map(|(_, _, issuer)| issuer)
    }

    /// What comes of a request to the Gateway that this is the guard of.
    #[must_use]
    pub fn judge_at_gateway(&self, call: &Attributes<'_>) -> Verdict {
        self.judged(call, |_| true)
    }

    /// What comes of a call that came by `service`, a namespace and a name; none where it came by none.
    #[must_use]
    pub fn judge(&self, call: &Attributes<'_>, service: Option<(&str, &str)>) -> Verdict {
        self.judged(call, |policy| {
            is_by(&policy.targets, &policy.name.namespace, service)
        })
    }

    fn judged(
        &self,
        call: &Attributes<'_>,
        concerns: impl Fn(&Authorization) -> bool + Copy,
    ) -> Verdict {
        if self.judges.is_empty() && self.tried.is_empty() {
            return Verdict::unrestricted();
        }
        let (allowed, because) = match self.judges.is_empty() {
            true => (true, Because::Unrestricted),
            false => self.judges.judge(call, concerns),
        };
        Verdict {
            allowed,
            because,
            dry_run: (!self.tried.is_empty()).then(|| self.tried.judge(call, concerns)),
            audited: self.judges.audited(call, concerns),
        }
    }
}

/// Whether a policy holds for calls that came by `service`.
fn is_by(targets: &[Target], namespace: &str, service: Option<(&str, &str)>) -> bool {
    targets.is_empty()
        || targets.iter().any(|target| {
            target.kind == "Service" && service == Some((namespace, target.name.as_str()))
        })
}
