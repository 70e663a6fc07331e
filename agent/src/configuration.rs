//! The ConfigMaps and Secrets that containers and volumes name, and how they are fetched. Tokens that volumes show are among what is named;
//! `crate::volumes` has them.
//!
//! Invariants: what was asked for and is absent does not exist; whether that is an error, readers decide. Values of Secrets
//! never reach a message.

use crate::volumes::{self, CertificateWish, Claim, Credential, TokenWish};
use k8s_openapi::api::certificates::v1::ClusterTrustBundle;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{Api, ListParams};
use std::collections::{BTreeMap, BTreeSet};

/// Objects by name, of one namespace.
#[derive(Clone, Debug, Default)]
pub struct Configuration {
    pub config_maps: BTreeMap<String, ConfigMap>,
    pub secrets: BTreeMap<String, Secret>,
    pub tokens: BTreeMap<TokenWish, String>,
    pub certificates: BTreeMap<CertificateWish, Credential>,
    /// By the name of the PersistentVolumeClaim.
    pub claims: BTreeMap<String, Claim>,
    /// All of the cluster's, where somebody names one.
    pub trust_bundles: Vec<ClusterTrustBundle>,
}

/// Names of objects, each once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct References {
    pub config_maps: BTreeSet<String>,
    pub secrets: BTreeSet<String>,
    pub tokens: BTreeSet<TokenWish>,
    pub certificates: BTreeSet<CertificateWish>,
    pub claims: BTreeSet<String>,
    /// Whether a ClusterTrustBundle is named, or a signer of some.
    pub trust_bundles: bool,
}

impl References {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    pub fn extend(&mut self, other: Self) {
        self.config_maps.extend(other.config_maps);
        self.secrets.extend(other.secrets);
        self.tokens.extend(other.tokens);
        self.certificates.extend(other.certificates);
        self.claims.extend(other.claims);
        self.trust_bundles |= other.trust_bundles;
    }
}

/// An object that may be there and could not be read.
#[derive(Debug, thiserror::Error)]
#[error("{kind} \"{name}\" could not be read")]
pub struct FetchError {
    kind: &'static str,
    name: String,
    source: Box<dyn std::error::Error + Send + Sync>,
}

impl FetchError {
    /// A certificate of this pod could not be had.
    pub(crate) fn of_certificate(
        pod: &str,
        source: impl std::error::Error + Send + Sync + 'static,
    ) -> Self {
        Self {
            kind: "certificate of pod",
            name: pod.to_owned(),
            source: source.into(),
        }
    }

    /// A claim, or its volume, could not be had.
    pub(crate) fn of_claim(claim: &str, source: kube::Error) -> Self {
        Self {
            kind: "persistentvolumeclaim",
            name: claim.to_owned(),
            source: source.into(),
        }
    }

    /// A token of this account could not be had.
    pub(crate) fn of_token(account: &str, source: kube::Error) -> Self {
        Self {
            kind: "token of serviceaccount",
            name: account.to_owned(),
            source: source.into(),
        }
    }
}

/// What of `references` exists in `namespace`, of ConfigMaps and Secrets, and the cluster's trust bundles.
///
/// # Errors
/// [`FetchError`] for the first that cannot be read; one that does not exist is left out.
pub async fn fetch(
    client: kube::Client,
    namespace: &str,
    references: References,
) -> Result<Configuration, FetchError> {
    let mut configuration = Configuration::default();
    let config_maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    for name in references.config_maps {
        match config_maps.get_opt(&name).await {
            Ok(Some(map)) => {
                configuration.config_maps.insert(name, map);
            }
            Ok(None) => {}
            Err(source) => {
                let (kind, source) = ("configmap", source.into());
                return Err(FetchError { kind, name, source });
            }
        }
    }
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    for name in references.secrets {
        match secrets.get_opt(&name).await {
            Ok(Some(secret)) => {
                configuration.secrets.insert(name, secret);
            }
            Ok(None) => {}
            Err(source) => {
                let (kind, source) = ("secret", source.into());
                return Err(FetchError { kind, name, source });
            }
        }
    }
    for name in references.claims {
        if let Some(found) = volumes::look_up(&client, namespace, &name).await? {
            configuration.claims.insert(name, found);
        }
    }
    if references.trust_bundles {
        let bundles: Api<ClusterTrustBundle> = Api::all(client);
        let found = bundles.list(&ListParams::default()).await;
        let found = found.map_err(|source| FetchError {
            kind: "clustertrustbundles",
            name: "all".to_owned(),
            source: source.into(),
        });
        configuration.trust_bundles = found?.items;
    }
    Ok(configuration)
}
