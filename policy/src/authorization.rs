//! One AuthorizationPolicy, and what comes of all those that concern a call: DENY over ALLOW, ALLOW over silence.
//!
//! ```text
//! 1 one of DENY is met                 ─► denied
//! 2 there is none of ALLOW             ─► allowed
//! 3 one of ALLOW is met                ─► allowed
//! 4 otherwise                          ─► denied
//! ```
//! CUSTOM asks somebody else, whom there is not here: what it is about is denied, which its status tells. AUDIT changes nothing; that it was
//! met is told beside. A policy with the annotation `istio.io/dry-run: "true"` is judged apart: it changes nothing, and what would have come
//! of it is told.
//!
//! Invariants: a policy without rules is met by nothing, which for an ALLOW means that nobody is let in; the first in order of namespace and
//! name is the one that is named.

use std::fmt;
use std::sync::Arc;

use serde_json::Value;
use weft_api::selector::LabelSelector;

use crate::attributes::Attributes;
use crate::pattern::Template;
use crate::policies::PolicyName;
use crate::rule::{Meaning, Rule, range};
use crate::spec::{AuthorizationSpec, Condition, Operation, Place, RuleSpec, Source, Target};

/// Whoever writes this annotation `true` wants to know what would come of a policy.
pub(crate) const DRY_RUN: &str = "istio.io/dry-run";

/// What becomes of a call that meets a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Allow,
    Deny,
    Audit,
    /// Denied: there is nobody to ask.
    Custom,
}

/// An AuthorizationPolicy, compiled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authorization {
    pub name: PolicyName,
    pub action: Action,
    pub(crate) selector: LabelSelector,
    pub(crate) targets: Vec<Target>,
    pub(crate) is_dry_run: bool,
    /// Each for requests, and for what is no HTTP.
    rules: Vec<[Option<Rule>; 2]>,
}

impl Authorization {
    /// A policy of a namespace, and what is wrong with it.
    ///
    /// # Errors
    /// When a field has another type than in the API.
    pub(crate) fn read(
        name: PolicyName,
        is_dry_run: bool,
        spec: &Value,
        trust_domain: &str,
    ) -> Result<(Self, Vec<String>), serde_json::Error> {
        let spec: Option<AuthorizationSpec> = serde_json::from_value(spec.clone())?;
        let spec = spec.unwrap_or_default();
        let mut faults = faults_of(&spec);
        let action = match &*spec.action {
            "" | "ALLOW" => Action::Allow,
            "DENY" => Action::Deny,
            "AUDIT" => Action::Audit,
            "CUSTOM" => Action::Custom,
            other => {
                faults.push(format!("unknown action {other}: it is taken for DENY"));
                Action::Deny
            }
        };
        let meaning = Meaning {
            namespace: &name.namespace,
            trust_domain,
            lets_in: action == Action::Allow,
        };
        let rules = spec.rules.iter().flatten();
        let rules = rules
            .map(|rule| [true, false].map(|is_http| Rule::compile(rule, meaning, is_http)))
            .collect();
        let read = Self {
            action,
            selector: selector_of(&spec.place),
            targets: spec.place.targets(),
            is_dry_run,
            rules,
            name,
        };
        Ok((read, faults))
    }

    /// One that lets nobody in.
    pub(crate) fn nobody(name: PolicyName, is_dry_run: bool) -> Self {
        Self {
            name,
            action: Action::Allow,
            selector: LabelSelector::everything(),
            targets: Vec::new(),
            is_dry_run,
            rules: Vec::new(),
        }
    }

    /// The rule that a call meets: its place among those of the policy.
    pub(crate) fn met_by(&self, call: &Attributes<'_>) -> Option<usize> {
        let form = usize::from(call.request.is_none());
        self.rules.iter().position(|rule| {
            let rule = rule.get(form).and_then(Option::as_ref);
            rule.is_some_and(|rule| rule.matches(call))
        })
    }

    pub(crate) fn asks_for_addresses(&self) -> bool {
        let mut rules = self.rules.iter().flatten().flatten();
        rules.any(Rule::asks_for_addresses)
    }
}

pub(crate) fn selector_of(place: &Place) -> LabelSelector {
    let labels = place.selector.iter().flat_map(|one| &one.match_labels);
    LabelSelector::from_labels(labels.map(|(key, value)| (key.as_str(), value.as_str())))
}

/// A policy that was met, by its rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Matched {
    pub policy: PolicyName,
    /// From 0, in the order in which they are written.
    pub rule: usize,
}

impl fmt::Display for Matched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PolicyName {
            namespace, name, ..
        } = &self.policy;
        write!(f, "ns[{namespace}]-policy[{name}]-rule[{}]", self.rule)
    }
}

/// What a verdict rests on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Because {
    /// Nothing lets anybody in by name, and nothing denies this call.
    Unrestricted,
    Met(Matched),
    /// There are policies that let others in.
    NobodyAllows,
}

impl fmt::Display for Because {
    /// As Envoy has it in logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Met(matched) => matched.fmt(f),
            Self::Unrestricted | Self::NobodyAllows => f.write_str("none"),
        }
    }
}

/// What comes of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    pub allowed: bool,
    pub because: Because,
    /// What policies say that are tried out only, where there are such.
    pub dry_run: Option<(bool, Because)>,
    /// Policies that want the call written down.
    pub audited: Vec<Matched>,
}

impl Verdict {
    pub(crate) fn unrestricted() -> Self {
        Self {
            allowed: true,
            because: Because::Unrestricted,
            dry_run: None,
            audited: Vec::new(),
        }
    }

    /// As a sentence.
    #[must_use]
    pub fn explained(&self) -> String {
        match (&self.because, self.allowed) {
            (Because::Unrestricted, _) => {
                "allowed: no DENY policy is met, and no ALLOW policy selects the workload"
                    .to_owned()
            }
            (Because::Met(by), true) => {
                format!("allowed by rule {} of {}", by.rule, by.policy)
            }
            (Because::Met(by), false) => format!("denied by rule {} of {}", by.rule, by.policy),
            (Because::NobodyAllows, _) => {
                "denied: ALLOW policies select the workload, and no rule of them is met".to_owned()
            }
        }
    }
}

/// Policies that concern a workload, in order of namespace and name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Judges {
    deny: Vec<Arc<Authorization>>,
    allow: Vec<Arc<Authorization>>,
    audit: Vec<Arc<Authorization>>,
}

impl Judges {
    pub(crate) fn add(&mut self, policy: &Arc<Authorization>) {
        let of = match policy.action {
            Action::Deny | Action::Custom => &mut self.deny,
            Action::Allow => &mut self.allow,
            Action::Audit => &mut self.audit,
        };
        of.push(Arc::clone(policy));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.deny.is_empty() && self.allow.is_empty() && self.audit.is_empty()
    }

    /// What they say; `concerns` tells which of those that are attached to something the call meets.
    pub(crate) fn judge(
        &self,
        call: &Attributes<'_>,
        concerns: impl Fn(&Authorization) -> bool,
    ) -> (bool, Because) {
        let met = |policies: &[Arc<Authorization>]| {
            let mut policies = policies.iter().filter(|policy| concerns(policy));
            policies.find_map(|policy| {
                let rule = policy.met_by(call)?;
                let policy = policy.name.clone();
                Some(Matched { policy, rule })
            })
        };
        if let Some(matched) = met(&self.deny) {
            return (false, Because::Met(matched));
        }
        if !self.allow.iter().any(|policy| concerns(policy)) {
            return (true, Because::Unrestricted);
        }
        match met(&self.allow) {
            Some(matched) => (true, Because::Met(matched)),
            None => (false, Because::NobodyAllows),
        }
    }

    pub(crate) fn audited(
        &self,
        call: &Attributes<'_>,
        concerns: impl Fn(&Authorization) -> bool,
    ) -> Vec<Matched> {
        let policies = self.audit.iter().filter(|policy| concerns(policy));
        let met = policies.filter_map(|policy| {
            let rule = policy.met_by(call)?;
            let policy = policy.name.clone();
            Some(Matched { policy, rule })
        });
        met.collect()
    }
}

// === What is wrong with one ===

fn faults_of(spec: &AuthorizationSpec) -> Vec<String> {
    let mut faults = spec.place.faults();
    match (&*spec.action, &spec.rules) {
        ("CUSTOM", _) => faults.push(
            "action CUSTOM is not served: there is no provider to ask, and what meets its rules is denied"
                .to_owned(),
        ),
        ("DENY", None) => faults.push(
            "DENY action without `rules` is meaningless as it will never be triggered, add an empty rule `{}` if you want it be triggered for every request"
                .to_owned(),
        ),
        _ => {}
    }
    if spec.provider.is_some() && spec.action != "CUSTOM" {
        let action = match &*spec.action {
            "" => "ALLOW",
            action => action,
        };
        faults.push(format!(
            "`provider` must not be with non CUSTOM action, found {action}"
        ));
    }
    for (at, rule) in spec.rules.iter().flatten().enumerate() {
        faults_of_rule(at, rule, &mut faults);
    }
    faults
}

fn faults_of_rule(at: usize, rule: &RuleSpec, faults: &mut Vec<String>) {
    if rule.from.as_ref().is_some_and(Vec::is_empty) {
        faults.push(format!("`from` must not be empty, found at rule {at}"));
    }
    for from in rule.from.iter().flatten() {
        match &from.source {
            None => faults.push(format!("`from.source` must not be nil, found at rule {at}")),
            Some(source) => faults_of_source(at, source, faults),
        }
    }
    if rule.to.as_ref().is_some_and(Vec::is_empty) {
        faults.push(format!("`to` must not be empty, found at rule {at}"));
    }
    for to in rule.to.iter().flatten() {
        match &to.operation {
            None => faults.push(format!(
                "`to.operation` must not be nil, found at rule {at}"
            )),
            Some(operation) => faults_of_operation(at, operation, faults),
        }
    }
    for condition in &rule.when {
        faults_of_condition(condition, faults);
    }
}

fn faults_of_source(at: usize, source: &Source, faults: &mut Vec<String>) {
    let names = [
        &source.principals,
        &source.not_principals,
        &source.namespaces,
        &source.not_namespaces,
    ];
    let accounts = [&source.service_accounts, &source.not_service_accounts];
    if names.iter().any(|all| !all.is_empty()) && accounts.iter().any(|all| !all.is_empty()) {
        faults.push(format!(
            "cannot set serviceAccounts with namespaces or principals, found at rule {at}"
        ));
    }
    if source.is_empty() {
        faults.push(format!(
            "`from.source` must not be empty, found at rule {at}"
        ));
    }
    for all in accounts {
        for account in all.iter().filter(|account| account.contains('*')) {
            faults.push(format!(
                "wildcard is not allowed in serviceAccounts: {account}"
            ));
        }
    }
    for all in [
        &source.ip_blocks,
        &source.not_ip_blocks,
        &source.remote_ip_blocks,
        &source.not_remote_ip_blocks,
    ] {
        faults_of_ranges(all, faults);
    }
    for (name, all) in [
        ("Principals", &source.principals),
        ("RequestPrincipals", &source.request_principals),
        ("Namespaces", &source.namespaces),
        ("ServiceAccounts", &source.service_accounts),
        ("TrustDomains", &source.trust_domains),
        ("NotPrincipals", &source.not_principals),
        ("NotRequestPrincipals", &source.not_request_principals),
        ("NotNamespaces", &source.not_namespaces),
        ("NotServiceAccounts", &source.not_service_accounts),
        ("NotTrustDomains", &source.not_trust_domains),
    ] {
        fault_of_empty(name, all, faults);
    }
}

fn faults_of_operation(at: usize, operation: &Operation, faults: &mut Vec<String>) {
    if operation.is_empty() {
        faults.push(format!(
            "`to.operation` must not be empty, found at rule {at}"
        ));
    }
    for all in [&operation.ports, &operation.not_ports] {
        faults_of_ports(all, faults);
    }
    for (name, all) in [
        ("Methods", &operation.methods),
        ("Paths", &operation.paths),
        ("Hosts", &operation.hosts),
        ("NotMethods", &operation.not_methods),
        ("NotPaths", &operation.not_paths),
        ("NotHosts", &operation.not_hosts),
    ] {
        fault_of_empty(name, all, faults);
    }
    for (name, all) in [
        ("Paths", &operation.paths),
        ("NotPaths", &operation.not_paths),
    ] {
        let mut templates = all.iter().filter(|path| Template::is_meant(path));
        if templates.any(|path| Template::parse(path).is_none()) {
            faults.push(format!(
                "invalid or unsupported path template, found in {name}"
            ));
        }
    }
}

fn fault_of_empty(name: &str, all: &[String], faults: &mut Vec<String>) {
    if all.iter().any(String::is_empty) {
        faults.push(format!("empty value not allowed, found in {name}"));
    }
}

fn faults_of_ranges(all: &[String], faults: &mut Vec<String>) {
    for text in all.iter().filter(|text| range(text).is_none()) {
        faults.push(match text.contains('/') {
            true => format!("bad CIDR range ({text})"),
            false => format!("bad IP address ({text})"),
        });
    }
}

fn faults_of_ports(all: &[String], faults: &mut Vec<String>) {
    for text in all.iter().filter(|text| text.parse::<u16>().is_err()) {
        faults.push(format!("bad port ({text})"));
    }
}

fn faults_of_condition(condition: &Condition, faults: &mut Vec<String>) {
    let Condition {
        key,
        values,
        not_values,
    } = condition;
    if key.is_empty() {
        faults.push("`key` must not be empty".to_owned());
        return;
    }
    if values.is_empty() && not_values.is_empty() {
        faults.push(format!(
            "at least one of `values` or `notValues` must be set for key {key}"
        ));
    }
    let mut found = Vec::new();
    let is_in_brackets = || {
        let open = key.find('[').unwrap_or_default();
        key.ends_with(']') && open > 0 && open + 2 < key.len()
    };
    match key.as_str() {
        "source.ip" | "remote.ip" | "destination.ip" => {
            faults_of_ranges(values, &mut found);
            faults_of_ranges(not_values, &mut found);
        }
        "destination.port" => {
            faults_of_ports(values, &mut found);
            faults_of_ports(not_values, &mut found);
        }
        "source.principal"
        | "source.namespace"
        | "source.serviceAccount"
        | "source.trustDomain"
        | "connection.sni"
        | "request.auth.principal"
        | "request.auth.audiences"
        | "request.auth.presenter" => {}
        "destination.namespace" => {
            found.push(format!(
                "attribute {key} is replaced by the metadata.namespace"
            ));
        }
        key if key.starts_with("destination.labels") => {
            found.push(format!(
                "attribute {key} is replaced by the workload selector"
            ));
        }
        key if key.starts_with("request.headers") || key.starts_with("request.auth.claims") => {
            if !is_in_brackets() {
                found.push(format!("bad key ({key}): should have format a[b]"));
            }
        }
        key if key.starts_with("experimental.envoy.filters.") => {
            found.push(format!("attribute {key} is not served: there is no Envoy"));
        }
        key => found.push(format!("unknown attribute: {key}")),
    }
    fault_of_empty(key, values, &mut found);
    fault_of_empty(key, not_values, &mut found);
    let told = found.into_iter();
    faults.extend(told.map(|fault| format!("invalid `value` for `key` {key}: {fault}")));
}
