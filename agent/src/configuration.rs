//! The ConfigMaps and Secrets that containers and volumes name, and how they are fetched. Tokens that volumes show are among what is named;
//! `crate::volumes` has them.
//!
//! Invariants: what was asked for and is absent does not exist; whether that is an error, readers decide. Values of Secrets
//! never reach a message.

use crate::volumes::TokenWish;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::Api;
use std::collections::{BTreeMap, BTreeSet};

/// Objects by name, of one namespace.
#[derive(Clone, Debug, Default)]
pub struct Configuration {
    pub config_maps: BTreeMap<String, ConfigMap>,
    pub secrets: BTreeMap<String, Secret>,
    pub tokens: BTreeMap<TokenWish, String>,
}

/// Names of objects, each once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct References {
    pub config_maps: BTreeSet<String>,
    pub secrets: BTreeSet<String>,
    pub tokens: BTreeSet<TokenWish>,
}

impl References {
    pub fn is_empty(&self) -> bool {
        self.config_maps.is_empty() && self.secrets.is_empty() && self.tokens.is_empty()
    }

    pub fn extend(&mut self, other: Self) {
        self.config_maps.extend(other.config_maps);
        self.secrets.extend(other.secrets);
        self.tokens.extend(other.tokens);
    }
}

/// An object that may be there and could not be read.
#[derive(Debug, thiserror::Error)]
#[error("{kind} \"{name}\" could not be read")]
pub struct FetchError {
    kind: &'static str,
    name: String,
    source: kube::Error,
}

impl FetchError {
    /// A token of this account could not be had.
    pub(crate) fn of_token(account: &str, source: kube::Error) -> Self {
        Self {
            kind: "token of serviceaccount",
            name: account.to_owned(),
            source,
        }
    }
}

/// What of `references` exists in `namespace`, of ConfigMaps and Secrets.
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
                let kind = "configmap";
                return Err(FetchError { kind, name, source });
            }
        }
    }
    let secrets: Api<Secret> = Api::namespaced(client, namespace);
    for name in references.secrets {
        match secrets.get_opt(&name).await {
            Ok(Some(secret)) => {
                configuration.secrets.insert(name, secret);
            }
            Ok(None) => {}
            Err(source) => {
                let kind = "secret";
                return Err(FetchError { kind, name, source });
            }
        }
    }
    Ok(configuration)
}
