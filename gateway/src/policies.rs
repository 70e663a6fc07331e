//! BackendTLSPolicies: which of them holds for a port of a Service, and what is said of each. Pure.
//!
//! Of several for one target the oldest holds, then the first by name; one that names a port goes before one that does not. A policy
//! that cannot be done closes its targets: nobody is called without the proof that it asks for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::api::{BackendTlsPolicy, Service};
use crate::certificates::{bundle, is_service};
use crate::name::NamespacedName;
use crate::objects::Objects;
use crate::rule::{BackendTls, CertificateName};
use crate::status::{AncestorStatus, Condition, Refusal};

/// Ancestors that a status may have.
const ANCESTORS_MAX: usize = 16;

/// A Service, and a port's name.
type Target = (NamespacedName, Option<String>);

/// All policies, judged.
#[derive(Debug, Default)]
pub(crate) struct Policies<'o> {
    all: BTreeMap<&'o NamespacedName, Judged<'o>>,
    /// Whose policy a target has.
    holder: BTreeMap<Target, &'o NamespacedName>,
}

#[derive(Debug)]
struct Judged<'o> {
    targets: Vec<Target>,
    /// The older policy that has one of its targets.
    rival: Option<&'o NamespacedName>,
    tls: Result<Arc<BackendTls>, Refusal>,
    /// Of a reference, though others may do.
    fault: Option<Refusal>,
}

impl<'o> Policies<'o> {
    pub(crate) fn of(objects: &'o Objects) -> Self {
        let mut policies = Self::default();
        let mut by_age: Vec<&'o Arc<BackendTlsPolicy>> = objects.policies.values().collect();
        by_age.sort_by_key(|policy| (policy.metadata.created, &policy.metadata.name));
        for policy in by_age {
            let name = &policy.metadata.name;
            let targets = policy.spec.target_refs.iter();
            let targets = targets.filter(|target| is_service(target)).map(|target| {
                let service = NamespacedName::new(name.namespace.as_str(), target.name.as_str());
                (service, target.section_name.clone())
            });
            let targets: Vec<Target> = targets.collect();
            let mut rival = None;
            for target in &targets {
                let holder = *policies.holder.entry(target.clone()).or_insert(name);
                if holder != name {
                    rival = Some(holder);
                }
            }
            let (tls, fault) = read(policy, objects);
            let judged = Judged {
                targets,
                rival,
                tls,
                fault,
            };
            policies.all.insert(name, judged);
        }
        policies
    }

    /// How a port of a Service is called over TLS, if a policy says so. The error is the reason to answer 500.
    pub(crate) fn of_port(
        &self,
        name: &NamespacedName,
        service: &Service,
        port: u16,
    ) -> Option<Result<Arc<BackendTls>, String>> {
        let port_name = service.port_name(port).map(str::to_owned);
        let by_name = port_name.and_then(|port| self.holder.get(&(name.clone(), Some(port))));
        let holder = by_name.or_else(|| self.holder.get(&(name.clone(), None)))?;
        let judged = self.all.get(*holder)?;
        Some(match &judged.tls {
            Ok(tls) => Ok(Arc::clone(tls)),
            Err(refusal) => {
                let why = refusal.message.trim_end_matches('.');
                Err(format!("BackendTLSPolicy {holder} does not hold: {why}"))
            }
        })
    }

    /// What is said of each policy at the Gateways from which its Services are reached.
    pub(crate) fn statuses(
        &self,
        reached: &BTreeMap<NamespacedName, BTreeSet<&NamespacedName>>,
    ) -> BTreeMap<NamespacedName, Vec<AncestorStatus>> {
        let all = self.all.iter().map(|(name, judged)| {
            let services = judged.targets.iter().map(|(service, _)| service);
            let gateways: BTreeSet<&NamespacedName> = services
                .filter_map(|service| reached.get(service))
                .flatten()
                .copied()
                .collect();
            let conditions = judged.conditions();
            let ancestors = gateways.into_iter().take(ANCESTORS_MAX);
            let ancestors = ancestors.map(|gateway| AncestorStatus {
                gateway: gateway.clone(),
                conditions: conditions.clone(),
            });
            ((*name).clone(), ancestors.collect())
        });
        all.collect()
    }
}

impl Judged<'_> {
    fn conditions(&self) -> Vec<Condition> {
        let accepted = match (&self.tls, self.rival) {
            (Err(refusal), _) => {
                Condition::fails("Accepted", "NoValidCACertificate", refusal.message.clone())
            }
            (Ok(_), Some(rival)) => Condition::fails(
                "Accepted",
                "Conflicted",
                format!("BackendTLSPolicy {rival} is older and has the same target."),
            ),
            (Ok(_), None) => Condition::holds("Accepted", "Accepted", "The policy is accepted."),
        };
        let resolved = match &self.fault {
            Some(refusal) => refusal.fails("ResolvedRefs"),
            None => Condition::holds("ResolvedRefs", "ResolvedRefs", "All references hold."),
        };
        vec![accepted, resolved]
    }
}

fn read(
    policy: &BackendTlsPolicy,
    objects: &Objects,
) -> (Result<Arc<BackendTls>, Refusal>, Option<Refusal>) {
    let validation = &policy.spec.validation;
    let names = validation.subject_alt_names.iter();
    let names = names.filter_map(|name| match name.kind.as_str() {
        "URI" => name.uri.clone().map(CertificateName::Uri),
        _ => name.hostname.clone().map(CertificateName::Host),
    });
    let tls = BackendTls {
        hostname: validation.hostname.clone(),
        names: names.collect(),
        roots: None,
        client: None,
    };
    if validation.ca_certificate_refs.is_empty() {
        let known = validation.well_known_ca_certificates.as_deref();
        return match known {
            Some("System") => (Ok(Arc::new(tls)), None),
            other => {
                let other = other.unwrap_or("none");
                let message =
                    format!("No authority is named; of those that are known, {other} is not.");
                let refusal = Refusal::new("InvalidCACertificateRef", message);
                (Err(refusal.clone()), Some(refusal))
            }
        };
    }
    let (mut roots, mut fault) = (Vec::new(), None);
    for reference in &validation.ca_certificate_refs {
        let name = NamespacedName::new(
            policy.metadata.name.namespace.as_str(),
            reference.name.as_str(),
        );
        let found = match (reference.group.as_str(), reference.kind.as_str()) {
            ("" | "core", "ConfigMap") => bundle(&name, objects),
            (_, kind) => {
                let message = format!("Authorities are in ConfigMaps, not in a {kind} as {name}.");
                Err(Refusal::new("InvalidKind", message))
            }
        };
        match found {
            Ok(found) => roots.extend(found),
            Err(refusal) => {
                fault.get_or_insert(refusal);
            }
        }
    }
    let tls = match (&fault, roots.is_empty()) {
        (Some(refusal), true) => Err(refusal.clone()),
        _ => Ok(Arc::new(BackendTls {
            roots: Some(Arc::new(roots)),
            ..tls
        })),
    };
    (tls, fault)
}
