//! The certificates and authorities that Gateways, ListenerSets and policies refer to: which there are, and which may be used. Pure.
//!
//! Invariants: what is of another namespace is used only where a ReferenceGrant there says so; a reference that does not hold is told
//! with its reason, and never taken for one that asks for nothing.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::api::{FrontendValidation, GROUP, KeyPair, ListenerTls, ObjectReference, PolicyTarget};
use crate::name::NamespacedName;
use crate::objects::{Kind, Objects};
use crate::status::Refusal;

/// Who refers to something.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Referrer<'o> {
    /// `Gateway` or `ListenerSet`.
    pub(crate) kind: &'static str,
    pub(crate) namespace: &'o str,
}

/// Objects that hold certificates and authorities, as they are referred to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    pub secrets: BTreeSet<NamespacedName>,
    pub config_maps: BTreeSet<NamespacedName>,
}

impl Wanted {
    /// All that objects of ours refer to and may.
    #[must_use]
    pub fn of(objects: &Objects) -> Self {
        let mut wanted = Self::default();
        for gateway in objects.gateways.values() {
            let from = Referrer {
                kind: "Gateway",
                namespace: &gateway.metadata.name.namespace,
            };
            for listener in &gateway.spec.listeners {
                wanted.take_secrets(from, listener.tls.as_ref(), objects);
            }
            let tls = gateway.spec.tls.iter();
            for reference in tls.clone().filter_map(|tls| {
                let backend = tls.backend.as_ref()?;
                backend.client_certificate_ref.as_ref()
            }) {
                wanted.take(Kind::Secret, from, reference, objects);
            }
            let frontends = tls.filter_map(|tls| tls.frontend.as_ref());
            let configs = frontends.flat_map(|frontend| {
                let ports = frontend
                    .per_port
                    .iter()
                    .filter_map(|port| port.tls.as_ref());
                frontend.default.iter().chain(ports)
            });
            let references = configs
                .filter_map(|config| config.validation.as_ref())
                .flat_map(|validation| &validation.ca_certificate_refs);
            for reference in references {
                wanted.take(Kind::ConfigMap, from, reference, objects);
            }
        }
        for set in objects.listener_sets.values() {
            let from = Referrer {
                kind: "ListenerSet",
                namespace: &set.metadata.name.namespace,
            };
            for listener in &set.spec.listeners {
                wanted.take_secrets(from, listener.tls.as_ref(), objects);
            }
        }
        for policy in objects.policies.values() {
            let namespace = &policy.metadata.name.namespace;
            let references = policy.spec.validation.ca_certificate_refs.iter();
            let maps = references.filter(|to| to.group.is_empty() && to.kind == "ConfigMap");
            let names = maps.map(|to| NamespacedName::new(namespace.as_str(), to.name.as_str()));
            wanted.config_maps.extend(names);
        }
        wanted
    }

    fn take_secrets(&mut self, from: Referrer<'_>, tls: Option<&ListenerTls>, objects: &Objects) {
        for reference in tls.iter().flat_map(|tls| &tls.certificate_refs) {
            self.take(Kind::Secret, from, reference, objects);
        }
    }

    fn take(
        &mut self,
        kind: Kind,
        from: Referrer<'_>,
        reference: &ObjectReference,
        objects: &Objects,
    ) {
        let (list, what) = match kind {
            Kind::ConfigMap => (&mut self.config_maps, "ConfigMap"),
            _ => (&mut self.secrets, "Secret"),
        };
        let name = name_of(reference, from.namespace);
        if is_of(reference, what, "Secret") && may(from, what, &name, objects) {
            list.insert(name);
        }
    }
}

/// `usual` is the kind that is meant where none is given.
fn is_of(reference: &ObjectReference, kind: &str, usual: &str) -> bool {
    matches!(reference.group.as_deref().unwrap_or_default(), "" | "core")
        && reference.kind.as_deref().unwrap_or(usual) == kind
}

fn name_of(reference: &ObjectReference, own: &str) -> NamespacedName {
    let namespace = reference.namespace.as_deref().unwrap_or(own);
    NamespacedName::new(namespace, reference.name.as_str())
}

fn may(from: Referrer<'_>, what: &str, name: &NamespacedName, objects: &Objects) -> bool {
    name.namespace == from.namespace || objects.grants(from.kind, from.namespace, what, name)
}

fn not_permitted(from: Referrer<'_>, what: &str, name: &NamespacedName) -> Refusal {
    let (kind, own) = (from.kind, from.namespace);
    let message = format!(
        "No ReferenceGrant in {} lets {kind}s of {own} refer to {what} {name}.",
        name.namespace
    );
    Refusal::new("RefNotPermitted", message)
}

/// The certificate and key that a reference means. `wrong` is the reason where it means none.
pub(crate) fn key_pair(
    from: Referrer<'_>,
    reference: &ObjectReference,
    wrong: &'static str,
    objects: &Objects,
) -> Result<Arc<KeyPair>, Refusal> {
    let name = name_of(reference, from.namespace);
    if !is_of(reference, "Secret", "Secret") {
        let kind = reference.kind.as_deref().unwrap_or("Secret");
        let message = format!("Certificates are in Secrets, not in a {kind} as {name}.");
        return Err(Refusal::new(wrong, message));
    }
    if !may(from, "Secret", &name, objects) {
        return Err(not_permitted(from, "Secret", &name));
    }
    match objects.secrets.get(&name).map(|secret| &secret.0) {
        Some(Ok(pair)) => Ok(Arc::clone(pair)),
        Some(Err(why)) => Err(Refusal::new(
            wrong,
            format!("Secret {name} cannot be used: {why}."),
        )),
        None => Err(Refusal::new(wrong, format!("There is no Secret {name}."))),
    }
}

/// The authorities that clients have to be of, and what of the references does not hold.
pub(crate) fn client_roots(
    from: Referrer<'_>,
    validation: &FrontendValidation,
    objects: &Objects,
) -> (Vec<Vec<u8>>, Option<Refusal>) {
    let mut roots = Vec::new();
    let mut wrong = None;
    for reference in &validation.ca_certificate_refs {
        match client_bundle(from, reference, objects) {
            Ok(bundle) => roots.extend(bundle),
            Err(refusal) => {
                wrong.get_or_insert(refusal);
            }
        }
    }
    (roots, wrong)
}

fn client_bundle(
    from: Referrer<'_>,
    reference: &ObjectReference,
    objects: &Objects,
) -> Result<Vec<Vec<u8>>, Refusal> {
    let name = name_of(reference, from.namespace);
    if !is_of(reference, "ConfigMap", "ConfigMap") {
        let kind = reference.kind.as_deref().unwrap_or_default();
        let message = format!("Authorities are in ConfigMaps, not in a {kind} as {name}.");
        return Err(Refusal::new("InvalidCACertificateKind", message));
    }
    if !may(from, "ConfigMap", &name, objects) {
        return Err(not_permitted(from, "ConfigMap", &name));
    }
    bundle(&name, objects)
}

/// The authorities of a ConfigMap.
pub(crate) fn bundle(name: &NamespacedName, objects: &Objects) -> Result<Vec<Vec<u8>>, Refusal> {
    const WRONG: &str = "InvalidCACertificateRef";
    let found = objects.bundles.get(name);
    let missing = || Refusal::new(WRONG, format!("There is no ConfigMap {name}."));
    let bundle = found.ok_or_else(missing)?;
    if bundle.is_empty() {
        let message = format!("ConfigMap {name} has no certificate as ca.crt.");
        return Err(Refusal::new(WRONG, message));
    }
    Ok(bundle.0.to_vec())
}

/// Whether a policy's target is a Service.
pub(crate) fn is_service(target: &PolicyTarget) -> bool {
    matches!(target.group.as_str(), "" | "core") && target.kind == "Service"
}

/// Whether a name is of the Gateway API's own group.
pub(crate) fn is_own_group(group: Option<&str>) -> bool {
    group.unwrap_or(GROUP) == GROUP
}
