//! The objects as users write them: the fields that are read, and what is wrong with them in Istio's own words.
//!
//! Invariants: what is absent and what is `null` is the same; a field of another type makes the object unreadable, never one that means
//! something else.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// `null` is what is absent.
pub(crate) fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Where a policy applies within its namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Place {
    pub(crate) selector: Option<WorkloadSelector>,
    pub(crate) target_ref: Option<Target>,
    #[serde(deserialize_with = "or_default")]
    pub(crate) target_refs: Vec<Target>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct WorkloadSelector {
    #[serde(deserialize_with = "or_default")]
    pub(crate) match_labels: BTreeMap<String, String>,
}

/// What a policy is attached to.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Target {
    #[serde(deserialize_with = "or_default")]
    pub group: String,
    pub kind: String,
    pub name: String,
}

impl Target {
    /// Whether policies may be attached to its kind.
    fn is_known(&self) -> bool {
        matches!(
            (&*self.group, &*self.kind),
            ("" | "core", "Service")
                | ("gateway.networking.k8s.io", "Gateway" | "GatewayClass")
                | ("networking.istio.io", "ServiceEntry")
        )
    }
}

impl Place {
    /// What it is attached to; nothing where labels say where it applies.
    pub(crate) fn targets(&self) -> Vec<Target> {
        let all = self.target_ref.iter().chain(&self.target_refs);
        all.cloned().collect()
    }

    pub(crate) fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let ways = [
            self.selector.is_some(),
            self.target_ref.is_some(),
            !self.target_refs.is_empty(),
        ];
        if ways.iter().filter(|way| **way).count() > 1 {
            faults.push("only one of targetRefs or selector can be set".to_owned());
        }
        for target in self.targets() {
            let Target { group, kind, .. } = &target;
            if !target.is_known() {
                faults.push(format!(
                    "targetRef: no policy is attached to objects of kind {kind} in group {group:?}"
                ));
            } else if !matches!(&**kind, "Service" | "Gateway") {
                faults.push(format!(
                    "targetRef: a policy that is attached to a {kind} is met by no call: attach it to Services or Gateways, or select their workloads"
                ));
            } else if target.name.is_empty() {
                faults.push("targetRef name must be set".to_owned());
            }
        }
        let labels = self.selector.iter().flat_map(|one| &one.match_labels);
        for (key, value) in labels {
            if key.is_empty() {
                faults.push("empty key is not supported in selector".to_owned());
            }
            if key.contains('*') || value.contains('*') {
                faults.push("wildcard is not supported in selector".to_owned());
            }
        }
        faults
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct AuthorizationSpec {
    #[serde(flatten)]
    pub(crate) place: Place,
    /// None and empty are told apart: only who writes `rules` is told that there are none.
    pub(crate) rules: Option<Vec<RuleSpec>>,
    #[serde(deserialize_with = "or_default")]
    pub(crate) action: String,
    pub(crate) provider: Option<Value>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct RuleSpec {
    pub(crate) from: Option<Vec<FromSpec>>,
    pub(crate) to: Option<Vec<ToSpec>>,
    #[serde(deserialize_with = "or_default")]
    pub(crate) when: Vec<Condition>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct FromSpec {
    pub(crate) source: Option<Source>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct ToSpec {
    pub(crate) operation: Option<Operation>,
}

/// Values of a field, and those that it must not have.
macro_rules! lists {
    ($(#[$doc:meta])* $name:ident { $($field:ident),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
        #[serde(rename_all = "camelCase", default)]
        pub(crate) struct $name {
            $(#[serde(deserialize_with = "or_default")] pub(crate) $field: Vec<String>,)*
        }

        impl $name {
            pub(crate) fn is_empty(&self) -> bool {
                true $(&& self.$field.is_empty())*
            }
        }
    };
}

lists! {
    /// Who calls. All that is said has to hold.
    Source {
        principals, not_principals, request_principals, not_request_principals, namespaces, not_namespaces, service_accounts,
        not_service_accounts, ip_blocks, not_ip_blocks, remote_ip_blocks, not_remote_ip_blocks, trust_domains, not_trust_domains,
    }
}

lists! {
    /// What is called. All that is said has to hold.
    Operation { hosts, not_hosts, ports, not_ports, methods, not_methods, paths, not_paths }
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Condition {
    pub(crate) key: String,
    #[serde(deserialize_with = "or_default")]
    pub(crate) values: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    pub(crate) not_values: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PeerAuthenticationSpec {
    mtls: Option<MutualTls>,
    #[serde(deserialize_with = "or_default")]
    port_level_mtls: BTreeMap<String, MutualTls>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct MutualTls {
    #[serde(deserialize_with = "or_default")]
    mode: String,
}

/// What of a PeerAuthentication does not hold here, where callers always prove themselves by mutual TLS.
#[must_use]
pub fn peer_authentication_faults(spec: &Value) -> Vec<String> {
    let read = serde_json::from_value::<Option<PeerAuthenticationSpec>>(spec.clone());
    let spec = match read {
        Ok(spec) => spec.unwrap_or_default(),
        Err(error) => return vec![format!("it cannot be read: {error}")],
    };
    let of_ports = spec.port_level_mtls.iter();
    let of_ports = of_ports.map(|(port, mtls)| (format!("portLevelMtls of {port}"), mtls));
    let all = spec.mtls.iter().map(|mtls| ("mtls".to_owned(), mtls));
    let disabled = all
        .chain(of_ports)
        .filter(|(_, mtls)| mtls.mode == "DISABLE");
    disabled
        .map(|(what, _)| {
            format!(
                "{what}: mode DISABLE is not served: calls between nodes are by mutual TLS, always"
            )
        })
        .collect()
}
