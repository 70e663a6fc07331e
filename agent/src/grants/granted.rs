//! What the CapabilityGrants of a namespace give to one of its ServiceAccounts. Pure.
//!
//! Grants are merged in the order of their names, and within one in the order in which it is written. Of configuration, later values win
//! over earlier ones, key by key; so does a later key-value store over an earlier one under the same identifier. Calls out of the cluster
//! add up.
//!
//! Invariants: what no grant names is not granted; what is granted is bounded, whatever is written.

use std::collections::BTreeMap;

use serde::Deserialize;
use weft_mesh::{EGRESS_RULES_MAX, EgressManner, EgressRule, EgressScheme};

use super::credentials::{CredentialEntry, Outgoing, TlsEntry};
use crate::configuration::References;

/// Sources of configuration that one ServiceAccount may have; further ones are left out.
pub const CONFIG_SOURCES_MAX: usize = 64;
/// Key-value stores that one ServiceAccount may open; further ones are left out.
pub const STORES_MAX: usize = 64;

/// What of a CapabilityGrant's `spec` a node reads.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GrantSpec {
    pub service_account_names: Vec<String>,
    pub config: Vec<ConfigEntry>,
    pub key_value: Vec<KeyValueEntry>,
    #[serde(rename = "outgoingHTTP")]
    pub outgoing_http: Vec<OutgoingEntry>,
}

/// An entry of `config`: one of the two references is set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConfigEntry {
    pub config_map_ref: Option<Reference>,
    pub secret_ref: Option<Reference>,
    pub prefix: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Reference {
    pub name: String,
    pub optional: bool,
}

/// An entry of `keyValue`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct KeyValueEntry {
    pub identifier: String,
    pub store: String,
    pub access: Access,
}

/// What may be done with a store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum Access {
    #[default]
    ReadWrite,
    ReadOnly,
}

/// An entry of `outgoingHTTP`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct OutgoingEntry {
    pub hosts: Vec<String>,
    pub ports: Vec<u16>,
    pub scheme: Scheme,
    pub paths: Vec<String>,
    pub methods: Vec<String>,
    pub addresses: Vec<String>,
    pub tls: TlsEntry,
    pub credentials: Vec<CredentialEntry>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum Scheme {
    #[default]
    #[serde(rename = "HTTPS")]
    Https,
    #[serde(rename = "HTTP")]
    Http,
}

/// A ConfigMap or Secret whose values are configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigSource {
    pub kind: SourceKind,
    pub name: String,
    pub optional: bool,
    /// Before each of its keys.
    pub prefix: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceKind {
    ConfigMap,
    Secret,
}

/// A key-value store that may be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreGrant {
    pub store: String,
    pub access: Access,
    /// The grant that gives it, for messages.
    pub grant: String,
}

/// All that one ServiceAccount is granted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Granted {
    /// Later ones win.
    pub config: Vec<ConfigSource>,
    /// By what guests open them as.
    pub key_value: BTreeMap<String, StoreGrant>,
    pub outgoing: Vec<Outgoing>,
}

impl Granted {
    /// The objects that configuration comes from.
    pub fn references(&self) -> References {
        let mut found = References::default();
        for source in &self.config {
            match source.kind {
                SourceKind::ConfigMap => found.config_maps.insert(source.name.clone()),
                SourceKind::Secret => found.secrets.insert(source.name.clone()),
            };
        }
        found
    }
}

/// What the grants of `namespace`, by name, give to `account`.
pub fn evaluate(namespace: &str, account: &str, grants: &BTreeMap<String, GrantSpec>) -> Granted {
    let mut granted = Granted::default();
    let to_it = |grant: &&GrantSpec| {
        let mut names = grant.service_account_names.iter();
        names.any(|name| name == account)
    };
    for (name, grant) in grants.iter().filter(|(_, grant)| to_it(grant)) {
        let called = format!("CapabilityGrant {namespace}/{name}");
        let sources = grant.config.iter().filter_map(source);
        let room = CONFIG_SOURCES_MAX.saturating_sub(granted.config.len());
        granted.config.extend(sources.take(room));
        for entry in grant.key_value.iter().filter(|entry| is_name(&entry.store)) {
            let is_known = granted.key_value.contains_key(&entry.identifier);
            if is_known || granted.key_value.len() < STORES_MAX {
                let store = StoreGrant {
                    store: entry.store.clone(),
                    access: entry.access,
                    grant: called.clone(),
                };
                granted.key_value.insert(entry.identifier.clone(), store);
            }
        }
        let rules = grant.outgoing_http.iter().map(|entry| Outgoing {
            rule: rule(&called, entry),
            tls: entry.tls.clone(),
            credentials: entry.credentials.clone(),
        });
        let room = EGRESS_RULES_MAX.saturating_sub(granted.outgoing.len());
        granted.outgoing.extend(rules.take(room));
    }
    granted
}

/// Whether it is the name of an object: others would be another path of the API. Admission refuses them as well.
pub(super) fn is_name(name: &str) -> bool {
    weft_api::name::dns1123_subdomain_faults(name).is_empty()
}

fn source(entry: &ConfigEntry) -> Option<ConfigSource> {
    let (kind, reference) = match (&entry.config_map_ref, &entry.secret_ref) {
        (Some(reference), None) => (SourceKind::ConfigMap, reference),
        (None, Some(reference)) => (SourceKind::Secret, reference),
        // Admission refuses both; guessing which is meant would show one that is not.
        (None, None) | (Some(_), Some(_)) => return None,
    };
    is_name(&reference.name).then(|| ConfigSource {
        kind,
        name: reference.name.clone(),
        optional: reference.optional,
        prefix: entry.prefix.clone(),
    })
}

fn rule(grant: &str, entry: &OutgoingEntry) -> EgressRule {
    let (scheme, port) = match entry.scheme {
        Scheme::Https => (EgressScheme::Https, 443),
        Scheme::Http => (EgressScheme::Http, 80),
    };
    EgressRule {
        grant: grant.to_owned(),
        hosts: entry.hosts.clone(),
        ports: if entry.ports.is_empty() {
            vec![port]
        } else {
            entry.ports.clone()
        },
        scheme,
        paths: entry.paths.clone(),
        methods: entry.methods.clone(),
        addresses: entry.addresses.clone(),
        manner: EgressManner::default(),
    }
}

/// The capability of which an import needs a grant, and what of a CapabilityGrant gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capability {
    Config,
    KeyValue,
}

impl Capability {
    fn of(import: &str) -> Option<Self> {
        match import.split(['/', '@']).next()? {
            "wasi:config" => Some(Self::Config),
            "wasi:keyvalue" => Some(Self::KeyValue),
            _ => None,
        }
    }

    fn entry(self) -> &'static str {
        match self {
            Self::Config => "config: [{configMapRef: {name: …}}]",
            Self::KeyValue => "keyValue: [{identifier: default, store: …}]",
        }
    }
}

/// An interface that a component imports and its ServiceAccount is not granted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the component imports {import}, and no CapabilityGrant gives it to ServiceAccount {namespace}/{account}; \
     add one with serviceAccountNames: [{account}], {}", .capability.entry()
)]
pub struct NotGranted {
    import: String,
    namespace: String,
    account: String,
    capability: Capability,
}

/// Whether everything that a component imports is granted, as far as it has to be.
///
/// # Errors
/// [`NotGranted`] for the first import that is not.
pub fn check(
    imports: &[String],
    namespace: &str,
    account: &str,
    granted: &Granted,
) -> Result<(), NotGranted> {
    for import in imports {
        let is_granted = match Capability::of(import) {
            None => continue,
            Some(Capability::Config) => !granted.config.is_empty(),
            Some(Capability::KeyValue) => !granted.key_value.is_empty(),
        };
        if let (false, Some(capability)) = (is_granted, Capability::of(import)) {
            return Err(NotGranted {
                import: import.clone(),
                namespace: namespace.to_owned(),
                account: account.to_owned(),
                capability,
            });
        }
    }
    Ok(())
}

/// Whether a component can read configuration at all.
pub fn imports_config(imports: &[String]) -> bool {
    imports_any(imports, Capability::Config)
}

/// Whether a component can open key-value stores at all.
pub fn imports_key_value(imports: &[String]) -> bool {
    imports_any(imports, Capability::KeyValue)
}

/// Whether a component counts anything itself. That is granted to all: it costs its own node a bounded amount, and shows to those who may
/// read the node's metrics.
pub fn imports_metrics(imports: &[String]) -> bool {
    let mut imports = imports.iter();
    imports.any(|import| import.split('@').next() == Some("weft:mesh/metrics"))
}

fn imports_any(imports: &[String], capability: Capability) -> bool {
    let mut imports = imports.iter();
    imports.any(|import| Capability::of(import) == Some(capability))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn grants(grants: &[(&str, Value)]) -> BTreeMap<String, GrantSpec> {
        let read = |spec: &Value| serde_json::from_value(spec.clone()).expect("a grant");
        let grants = grants.iter();
        grants
            .map(|(name, spec)| ((*name).to_owned(), read(spec)))
            .collect()
    }

    /// A short transcript.
    fn told(granted: &Granted) -> String {
        let mut out = String::new();
        for source in &granted.config {
            let ConfigSource {
                kind,
                name,
                optional,
                prefix,
            } = source;
            let optional = if *optional { " optional" } else { "" };
            out += &format!("config {kind:?} {name} {prefix:?}{optional}\n");
        }
        for (
            identifier,
            StoreGrant {
                store,
                access,
                grant,
            },
        ) in &granted.key_value
        {
            out += &format!("store {identifier:?} is {store} {access:?} by {grant}\n");
        }
        for Outgoing { rule, .. } in &granted.outgoing {
            let EgressRule {
                grant,
                hosts,
                ports,
                scheme,
                paths,
                methods,
                addresses,
                manner: _,
            } = rule;
            out += &format!(
                "{scheme:?} {hosts:?} {ports:?} {paths:?} {methods:?} {addresses:?} by {grant}\n"
            );
        }
        out
    }

    #[test]
    fn grants_are_merged_in_the_order_of_their_names() {
        let written = grants(&[
            (
                "b",
                json!({
                    "serviceAccountNames": ["cart", "web"],
                    "config": [
                        {"configMapRef": {"name": "settings"}, "prefix": "app."},
                        {"secretRef": {"name": "key", "optional": true}},
                        {"secretRef": {"name": "../key"}},
                        {"secretRef": {"name": "key"}, "configMapRef": {"name": "settings"}},
                        {},
                    ],
                    "keyValue": [{"identifier": "default", "store": "carts"}],
                    "outgoingHTTP": [
                        {"hosts": ["api.example.com"]},
                        {"hosts": ["10.0.0.7"], "scheme": "HTTP", "addresses": ["10.0.0.7/32"]},
                    ],
                }),
            ),
            (
                "a",
                json!({
                    "serviceAccountNames": ["cart"],
                    "config": [{"configMapRef": {"name": "base"}}],
                    "keyValue": [
                        {"identifier": "default", "store": "others", "access": "ReadOnly"},
                        {"identifier": "evil", "store": "carts/../../secrets"},
                        {"store": "prices", "access": "ReadOnly"},
                    ],
                    "outgoingHTTP": [{
                        "hosts": ["*.example.org"], "ports": [8443], "scheme": "HTTPS", "paths": ["/v1/"], "methods": ["GET"],
                    }],
                }),
            ),
            (
                "c",
                json!({"serviceAccountNames": ["other"], "keyValue": [{"identifier": "x", "store": "y"}]}),
            ),
            (
                "d",
                json!({"keyValue": [{"identifier": "x", "store": "y"}]}),
            ),
        ]);
        let cart = evaluate("shop", "cart", &written);
        assert_eq!(
            told(&cart),
            "config ConfigMap base \"\"\n\
             config ConfigMap settings \"app.\"\n\
             config Secret key \"\" optional\n\
             store \"\" is prices ReadOnly by CapabilityGrant shop/a\n\
             store \"default\" is carts ReadWrite by CapabilityGrant shop/b\n\
             Https [\"*.example.org\"] [8443] [\"/v1/\"] [\"GET\"] [] by CapabilityGrant shop/a\n\
             Https [\"api.example.com\"] [443] [] [] [] by CapabilityGrant shop/b\n\
             Http [\"10.0.0.7\"] [80] [] [] [\"10.0.0.7/32\"] by CapabilityGrant shop/b\n"
        );
        let references = cart.references();
        assert_eq!(
            references.config_maps.into_iter().collect::<Vec<_>>(),
            ["base", "settings"]
        );
        assert_eq!(references.secrets.into_iter().collect::<Vec<_>>(), ["key"]);
        assert_eq!(evaluate("shop", "nobody", &written), Granted::default());
        assert_eq!(evaluate("shop", "", &written), Granted::default());
    }

    #[test]
    fn what_is_granted_is_bounded() {
        let many = |count: usize, entry: Value| vec![entry; count];
        let stores: Vec<Value> = (0..200)
            .map(|n| json!({"identifier": format!("{n}"), "store": "s"}))
            .collect();
        let written = grants(&[(
            "a",
            json!({
                "serviceAccountNames": ["cart"],
                "config": many(200, json!({"configMapRef": {"name": "m"}})),
                "keyValue": stores,
                "outgoingHTTP": many(1000, json!({"hosts": ["a.example"]})),
            }),
        )]);
        let granted = evaluate("shop", "cart", &written);
        assert_eq!(granted.config.len(), CONFIG_SOURCES_MAX);
        assert_eq!(granted.key_value.len(), STORES_MAX);
        assert_eq!(granted.outgoing.len(), EGRESS_RULES_MAX);
    }

    #[test]
    fn an_import_without_a_grant_is_told_with_the_grant_to_add() {
        let none = Granted::default();
        let both = evaluate(
            "shop",
            "cart",
            &grants(&[(
                "a",
                json!({
                    "serviceAccountNames": ["cart"],
                    "config": [{"configMapRef": {"name": "m"}}],
                    "keyValue": [{"store": "s"}],
                }),
            )]),
        );
        let imports = |imports: &[&str]| {
            imports
                .iter()
                .map(|import| (*import).to_owned())
                .collect::<Vec<_>>()
        };
        let config = imports(&["wasi:http/types@0.2.12", "wasi:config/store@0.2.0-rc.1"]);
        let stores = imports(&["wasi:keyvalue/atomics@0.2.0-draft2"]);
        let others = imports(&[
            "wasi:http/types@0.2.12",
            "wasi:configuration/store",
            "wasi:keyvalued/x",
        ]);
        for (imports, granted, expected) in [
            (&others, &none, None),
            (&config, &both, None),
            (&stores, &both, None),
            (
                &config,
                &none,
                Some(
                    "the component imports wasi:config/store@0.2.0-rc.1, and no CapabilityGrant gives it to ServiceAccount \
                     shop/cart; add one with serviceAccountNames: [cart], config: [{configMapRef: {name: …}}]",
                ),
            ),
            (
                &stores,
                &none,
                Some(
                    "the component imports wasi:keyvalue/atomics@0.2.0-draft2, and no CapabilityGrant gives it to \
                     ServiceAccount shop/cart; add one with serviceAccountNames: [cart], keyValue: [{identifier: default, store: …}]",
                ),
            ),
        ] {
            let found = check(imports, "shop", "cart", granted).err();
            assert_eq!(found.map(|error| error.to_string()).as_deref(), expected);
        }
        assert!(imports_config(&config) && !imports_config(&stores));
    }
}
