//! Workload identity: `spiffe://<trust-domain>/ns/<namespace>/sa/<service-account>`.
//!
//! The shape is Istio's, so certificates and policies read the same. Parsing is exact: an id with any
//! other path is another party's and is refused.

use std::fmt;
use std::str::FromStr;

use crate::name;

/// The identity of a workload: its ServiceAccount in its namespace, in a trust domain.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpiffeId {
    pub trust_domain: String,
    pub namespace: String,
    pub service_account: String,
}

impl SpiffeId {
    pub fn new(trust_domain: &str, namespace: &str, service_account: &str) -> Self {
        Self {
            trust_domain: trust_domain.into(),
            namespace: namespace.into(),
            service_account: service_account.into(),
        }
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "spiffe://{}/ns/{}/sa/{}",
            self.trust_domain, self.namespace, self.service_account
        )
    }
}

/// Why a text is not a workload identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{text}\" is not of the form spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/SERVICE-ACCOUNT")]
pub struct SpiffeIdError {
    pub text: String,
}

impl FromStr for SpiffeId {
    type Err = SpiffeIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fail = || SpiffeIdError { text: text.into() };
        let rest = text.strip_prefix("spiffe://").ok_or_else(fail)?;
        let mut parts = rest.split('/');
        let id = match (
            parts.next(),
            parts.next(),
            parts.next(),
            parts.next(),
            parts.next(),
            parts.next(),
        ) {
            (Some(domain), Some("ns"), Some(namespace), Some("sa"), Some(account), None) => {
                Self::new(domain, namespace, account)
            }
            _ => return Err(fail()),
        };
        let sound = name::dns1123_subdomain(&id.trust_domain).is_ok()
            && name::dns1123_label(&id.namespace).is_ok()
            && name::dns1123_subdomain(&id.service_account).is_ok();
        if sound { Ok(id) } else { Err(fail()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_round_trip_and_foreign_shapes_are_refused() {
        let text = "spiffe://cluster.local/ns/vote/sa/web";
        assert_eq!(text.parse::<SpiffeId>().unwrap().to_string(), text);
        for bad in [
            "",
            "https://cluster.local/ns/a/sa/b",
            "spiffe://cluster.local/ns/a/sa/b/c",
            "spiffe://cluster.local/ns/a/sb/b",
            "spiffe://cluster.local/ns//sa/b",
            "spiffe:///ns/a/sa/b",
            "spiffe://cluster.local/ns/A/sa/b",
        ] {
            assert!(bad.parse::<SpiffeId>().is_err(), "{bad}");
        }
    }
}
