//! All policies of a cluster, kept up to date one by one, and what of them concerns a pod.
//!
//! Invariants: what is here depends on the objects, not on the order in which they came; a copy costs little and does not change with what it
//! was copied from; an object that says what it said before is no news.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde_json::Value;
use weft_api::selector::LabelSelector;

use crate::authorization::{Authorization, DRY_RUN, selector_of};
use crate::guard::Guard;
use crate::network::{self, Direction, Flow, Isolated, Namespaces, NetworkPolicy, Pod};
use crate::spec::Target;
use crate::token::{Issuer, RequestAuthenticationSpec};

/// Policies of these namespaces are about all namespaces.
pub const ROOT_NAMESPACES: [&str; 2] = ["istio-system", "weft-system"];

/// Kinds of policies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PolicyKind {
    Authorization,
    RequestAuthentication,
    Network,
}

impl PolicyKind {
    const fn word(self) -> &'static str {
        match self {
            Self::Authorization => "AuthorizationPolicy",
            Self::RequestAuthentication => "RequestAuthentication",
            Self::Network => "NetworkPolicy",
        }
    }
}

/// Which object a policy is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyName {
    pub namespace: String,
    pub name: String,
    pub kind: PolicyKind,
}

impl fmt::Display for PolicyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.kind.word(), self.namespace, self.name)
    }
}

/// An object as the API has it.
#[derive(Debug, Clone, Copy)]
pub struct Object<'a> {
    pub kind: PolicyKind,
    pub namespace: &'a str,
    pub name: &'a str,
    pub annotations: Option<&'a BTreeMap<String, String>>,
    pub spec: &'a Value,
}

impl Object<'_> {
    fn policy_name(&self) -> PolicyName {
        PolicyName {
            namespace: self.namespace.to_owned(),
            name: self.name.to_owned(),
            kind: self.kind,
        }
    }
}

/// Whose tokens are taken where.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Tokens {
    selector: LabelSelector,
    targets: Vec<Target>,
    issuers: Vec<Arc<Issuer>>,
}

impl Tokens {
    fn read(spec: &Value) -> Result<(Self, Vec<String>), serde_json::Error> {
        let spec: Option<RequestAuthenticationSpec> = serde_json::from_value(spec.clone())?;
        let spec = spec.unwrap_or_default();
        let mut faults = spec.place.faults();
        faults.extend(spec.jwt_rules.iter().flat_map(Issuer::faults));
        let read = Self {
            selector: selector_of(&spec.place),
            targets: spec.place.targets(),
            issuers: spec.jwt_rules.into_iter().map(Arc::new).collect(),
        };
        Ok((read, faults))
    }
}

/// See the module's promise.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policies {
    trust_domain: String,
    authorizations: BTreeMap<PolicyName, Arc<Authorization>>,
    tokens: BTreeMap<PolicyName, Arc<Tokens>>,
    /// By namespace, in order of their names.
    networks: BTreeMap<String, Vec<Arc<NetworkPolicy>>>,
    /// Labels, by name.
    namespaces: BTreeMap<String, Arc<BTreeMap<String, String>>>,
}

impl Policies {
    /// None of a trust domain yet.
    #[must_use]
    pub fn new(trust_domain: &str) -> Self {
        Self {
            trust_domain: trust_domain.to_owned(),
            ..Self::default()
        }
    }

    /// Takes an object in, in place of what it was; returns whether anything could come of it, and what is wrong with it. Of a policy that
    /// cannot be read it is as if it denied everything where it is: an ALLOW without rules.
    pub fn apply(&mut self, object: &Object<'_>) -> (bool, Vec<String>) {
        let name = object.policy_name();
        match object.kind {
            PolicyKind::Authorization => {
                let (policy, faults) = self.authorization(object);
                (put(&mut self.authorizations, name, policy), faults)
            }
            PolicyKind::RequestAuthentication => match Tokens::read(object.spec) {
                Ok((tokens, faults)) => (put(&mut self.tokens, name, tokens), faults),
                Err(error) => (self.delete(&name), vec![unreadable(&error)]),
            },
            PolicyKind::Network => match NetworkPolicy::read(name.clone(), object.spec) {
                Ok(policy) => (self.put_network(policy), Vec::new()),
                Err(error) => (self.delete(&name), vec![unreadable(&error)]),
            },
        }
    }

    fn authorization(&self, object: &Object<'_>) -> (Authorization, Vec<String>) {
        let annotation = object.annotations.and_then(|all| all.get(DRY_RUN));
        let is_dry_run = annotation.is_some_and(|value| value == "true");
        match Authorization::read(
            object.policy_name(),
            is_dry_run,
            object.spec,
            &self.trust_domain,
        ) {
            Ok(read) => read,
            Err(error) => (
                Authorization::nobody(object.policy_name(), is_dry_run),
                vec![unreadable(&error)],
            ),
        }
    }

    fn put_network(&mut self, policy: NetworkPolicy) -> bool {
        let all = self
            .networks
            .entry(policy.name.namespace.clone())
            .or_default();
        match all.binary_search_by(|known| known.name.cmp(&policy.name)) {
            Ok(at) => match all.get_mut(at) {
                Some(known) if **known == policy => false,
                Some(known) => {
                    *known = Arc::new(policy);
                    true
                }
                None => false,
            },
            Err(at) => {
                all.insert(at, Arc::new(policy));
                true
            }
        }
    }

    /// Forgets an object; returns whether it was there.
    pub fn delete(&mut self, name: &PolicyName) -> bool {
        match name.kind {
            PolicyKind::Authorization => self.authorizations.remove(name).is_some(),
            PolicyKind::RequestAuthentication => self.tokens.remove(name).is_some(),
            PolicyKind::Network => {
                let Some(all) = self.networks.get_mut(&name.namespace) else {
                    return false;
                };
                let before = all.len();
                all.retain(|policy| policy.name != *name);
                let is_news = all.len() != before;
                if all.is_empty() {
                    self.networks.remove(&name.namespace);
                }
                is_news
            }
        }
    }

    /// Names of the objects of a kind, in order.
    #[must_use]
    pub fn names(&self, kind: PolicyKind) -> Vec<PolicyName> {
        let authorizations = self.authorizations.keys();
        let networks = self.networks.values().flatten();
        authorizations
            .chain(self.tokens.keys())
            .chain(networks.map(|policy| &policy.name))
            .filter(|name| name.kind == kind)
            .cloned()
            .collect()
    }

    /// Labels of a namespace as they are now; none where it is gone. Returns whether anything could come of it.
    pub fn set_namespace(&mut self, name: &str, labels: Option<&BTreeMap<String, String>>) -> bool {
        match labels {
            Some(labels) => {
                let known = self.namespaces.get(name);
                if known.is_some_and(|known| **known == *labels) {
                    return false;
                }
                self.namespaces
                    .insert(name.to_owned(), Arc::new(labels.clone()));
            }
            None => {
                if self.namespaces.remove(name).is_none() {
                    return false;
                }
            }
        }
        // Only they look at it.
        !self.networks.is_empty()
    }

    /// Whether there is nothing to judge by.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.authorizations.is_empty() && self.tokens.is_empty() && self.networks.is_empty()
    }

    /// Whether somebody asks where callers are, or which pods they are.
    #[must_use]
    pub fn asks_for_callers(&self) -> bool {
        let mut authorizations = self.authorizations.values();
        !self.networks.is_empty() || authorizations.any(|policy| policy.asks_for_addresses())
    }

    /// Where keys are that somebody's tokens are proven by.
    #[must_use]
    pub fn key_places(&self) -> Vec<&str> {
        let issuers = self.tokens.values().flat_map(|tokens| &tokens.issuers);
        let mut places: Vec<&str> = issuers
            .filter_map(|issuer| issuer.jwks_uri.as_deref())
            .filter(|place| !place.is_empty())
            .collect();
        places.sort_unstable();
        places.dedup();
        places
    }

    /// Keys that policies have in them, each as the text of a JSON Web Key Set.
    #[must_use]
    pub fn key_sets(&self) -> Vec<&str> {
        let issuers = self.tokens.values().flat_map(|tokens| &tokens.issuers);
        let sets = issuers.filter_map(|issuer| issuer.jwks.as_deref());
        sets.filter(|set| !set.is_empty()).collect()
    }

    /// What concerns calls to a pod.
    #[must_use]
    pub fn guard(&self, pod: &Pod) -> Guard {
        let mut guard = Guard::default();
        let applies = |namespace: &str, selector: &LabelSelector| {
            (namespace == pod.namespace || ROOT_NAMESPACES.contains(&namespace))
                && selector.matches(&pod.labels)
        };
        for (name, policy) in &self.authorizations {
            if applies(&name.namespace, &policy.selector) {
                guard.add(policy);
            }
        }
        for (name, tokens) in &self.tokens {
            if applies(&name.namespace, &tokens.selector) {
                guard.take_tokens(&name.namespace, &tokens.targets, &tokens.issuers);
            }
        }
        guard
    }

    /// What concerns requests to a Gateway: what is attached to it, and what selects it by labels, of which it has that of its name beside its own.
    /// What is said of all workloads of a namespace is asked where requests go, and not here as well.
    #[must_use]
    pub fn guard_of_gateway(&self, gateway: &Pod) -> Guard {
        let mut guard = Guard::default();
        let applies = |namespace: &str, targets: &[Target], selector: &LabelSelector| {
            let is_near = namespace == gateway.namespace || ROOT_NAMESPACES.contains(&namespace);
            let is_meant = |target: &Target| {
                target.kind == "Gateway"
                    && namespace == gateway.namespace
                    && target.name == gateway.name
            };
            match targets.is_empty() {
                true => is_near && !selector.is_everything() && selector.matches(&gateway.labels),
                false => targets.iter().any(is_meant),
            }
        };
        for (name, policy) in &self.authorizations {
            if applies(&name.namespace, &policy.targets, &policy.selector) {
                guard.add(policy);
            }
        }
        for (name, tokens) in &self.tokens {
            if applies(&name.namespace, &tokens.targets, &tokens.selector) {
                guard.take_tokens(&name.namespace, &tokens.targets, &tokens.issuers);
            }
        }
        guard
    }

    /// What NetworkPolicies say of a flow: both that its caller may speak out, and that its callee may be spoken to. Of an end that is no pod,
    /// nothing is asked.
    ///
    /// # Errors
    /// The pod that is isolated from the other, and by what.
    pub fn admits(&self, flow: &Flow<'_>) -> Result<(), Isolated> {
        self.admits_one(flow, Direction::Egress)?;
        self.admits_one(flow, Direction::Ingress)
    }

    fn admits_one(&self, flow: &Flow<'_>, direction: Direction) -> Result<(), Isolated> {
        let here = match direction {
            Direction::Egress => flow.from.pod,
            Direction::Ingress => flow.to.pod,
        };
        let policies = here.and_then(|pod| self.networks.get(&pod.namespace));
        match policies {
            Some(policies) => network::judge(policies, direction, flow, self),
            None => Ok(()),
        }
    }

    /// Whether any NetworkPolicy is there.
    #[must_use]
    pub fn has_networks(&self) -> bool {
        !self.networks.is_empty()
    }
}

impl Namespaces for Policies {
    /// One that has no object has the label that each has by its name.
    fn matches(&self, namespace: &str, selector: &LabelSelector) -> bool {
        const NAME: &str = "kubernetes.io/metadata.name";
        match self.namespaces.get(namespace) {
            Some(labels) => selector.matches(labels),
            None => selector.matches_with(|key| (key == NAME).then_some(namespace)),
        }
    }
}

/// What is wrong with an object, without taking it in.
#[must_use]
pub fn faults(object: &Object<'_>) -> Vec<String> {
    Policies::default().apply(object).1
}

fn unreadable(error: &serde_json::Error) -> String {
    format!("it cannot be read: {error}")
}

fn put<T: PartialEq>(map: &mut BTreeMap<PolicyName, Arc<T>>, name: PolicyName, new: T) -> bool {
    if map.get(&name).is_some_and(|known| **known == new) {
        return false;
    }
    map.insert(name, Arc::new(new));
    true
}
