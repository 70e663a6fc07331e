//! The Secrets and ConfigMaps that Gateways and policies refer to, read by name as pods' are.
//!
//! Nodes do not watch Secrets: who may read all of them has all of them. Each that is referred to is read when that is new, and again from
//! time to time.
//!
//! Invariants: what is referred to no longer is forgotten; while the server is away, what was read stays.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::Api;
use weft_gateway::{Kind, NamespacedName, api};

use super::Topology;
use crate::identity::Link;

/// How often they are read again: a certificate that was renewed is shown within that time.
const AGAIN: Duration = Duration::from_secs(5);
/// References that come together are read together.
const GATHER: Duration = Duration::from_millis(20);
/// Where a ConfigMap has authorities.
const AUTHORITIES: &str = "ca.crt";

impl Topology {
    /// Reads what is referred to, for ever.
    pub(super) async fn certificates(&self, link: &Link) {
        loop {
            let is_referred = self.read_certificates(link).await;
            // Where nothing is referred to, nothing is asked for until something is.
            let again = async {
                match is_referred {
                    true => tokio::time::sleep(AGAIN).await,
                    false => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = self.referred.notified() => tokio::time::sleep(GATHER).await,
                () = again => {}
            }
        }
    }

    /// Whether anything is referred to.
    async fn read_certificates(&self, link: &Link) -> bool {
        let (wanted, gone) = {
            let seen = self.seen.lock();
            let wanted = seen.cluster.wanted();
            let gone = |kind, wanted: &std::collections::BTreeSet<NamespacedName>| {
                let mut known = seen.cluster.names(kind);
                known.retain(|name| !wanted.contains(name));
                known
            };
            let secrets = gone(Kind::Secret, &wanted.secrets);
            let maps = gone(Kind::ConfigMap, &wanted.config_maps);
            (wanted, (secrets, maps))
        };
        let mut is_news = false;
        {
            let mut seen = self.seen.lock();
            for name in &gone.0 {
                is_news |= seen.cluster.set_secret(name, None);
            }
            for name in &gone.1 {
                is_news |= seen.cluster.set_bundle(name, None);
            }
        }
        for name in &wanted.secrets {
            let all: Api<Secret> = Api::namespaced(link.client(), &name.namespace);
            let Some(found) = told(all.get_opt(&name.name).await) else {
                continue;
            };
            let secret = found.map(|secret| {
                let data = secret.data.unwrap_or_default().into_iter();
                let data: BTreeMap<String, Vec<u8>> =
                    data.map(|(name, bytes)| (name, bytes.0)).collect();
                api::Secret::read(&data, true)
            });
            is_news |= self.seen.lock().cluster.set_secret(name, secret);
        }
        for name in &wanted.config_maps {
            let all: Api<ConfigMap> = Api::namespaced(link.client(), &name.namespace);
            let Some(found) = told(all.get_opt(&name.name).await) else {
                continue;
            };
            let bundle = found.map(|map| {
                let data = map.data.unwrap_or_default();
                let pem = data.get(AUTHORITIES).map(String::as_bytes);
                api::Bundle::read(pem.unwrap_or_default())
            });
            is_news |= self.seen.lock().cluster.set_bundle(name, bundle);
        }
        if is_news {
            self.changed.notify_one();
        }
        !(wanted.secrets.is_empty() && wanted.config_maps.is_empty())
    }
}

/// What the server says; none while it says nothing. What may not be read is as good as not there.
fn told<K>(read: kube::Result<Option<K>>) -> Option<Option<K>> {
    match read {
        Ok(found) => Some(found),
        Err(kube::Error::Api(status)) if status.code == 403 => Some(None),
        Err(error) => {
            tracing::debug!(%error, "a certificate could not be read, it stays as it was");
            None
        }
    }
}
