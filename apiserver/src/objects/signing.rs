//! Signatures for certificate requests, on facts that only the store has.

use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value;
use weft_api::status::StatusError;
use weft_kinds::lens::{items, object, text, time};
use weft_store::Snapshot;

use super::Objects;
use crate::caller::Caller;
use crate::stored::Stored;
use crate::{certificates, stored};

/// Namespace and name of the ConfigMap that tells where each server serves its API.
pub(crate) const SERVER_ADDRESSES: (&str, &str) = ("kube-system", "weft-servers");

impl Objects {
    /// Signs a request for a certificate, if this server signs; `pods_of_caller` are those on the node that asks.
    pub(super) fn sign(
        &self,
        caller: &Caller,
        request: &mut Value,
        snapshot: &Snapshot,
        pods_of_caller: &[Arc<Value>],
    ) -> Result<(), StatusError> {
        let Some(authority) = &self.inner.config.authority else {
            return Ok(());
        };
        let facts = certificates::Facts {
            pods_of_caller,
            holder: &|node, name| self.holder_of_name(snapshot, node, name),
            joined: &|node| self.joined(snapshot, node),
        };
        certificates::sign(authority, caller, request, &facts)
    }

    /// Since when there is a Node of that name.
    fn joined(&self, snapshot: &Snapshot, node: &str) -> Option<Timestamp> {
        let key = stored::key(&weft_kinds::NODE, None, node);
        let entry = snapshot.get(&key)?;
        let node = Stored::new(&self.inner.vault, &weft_kinds::NODE, entry).stored_value();
        time(&node, "/metadata/creationTimestamp")
    }

    /// Whose a host name or an address is; see [`certificates::Facts`].
    fn holder_of_name(&self, snapshot: &Snapshot, node: &str, name: &str) -> Option<String> {
        let of_server = "a server of the API".to_owned();
        if self.inner.config.server_names.iter().any(|own| own == name) {
            return Some(of_server);
        }
        let vault = &self.inner.vault;
        let (namespace, map) = SERVER_ADDRESSES;
        let key = stored::key(&weft_kinds::CONFIG_MAP, Some(namespace), map);
        let told = snapshot
            .get(&key)
            .map(|entry| Stored::new(vault, &weft_kinds::CONFIG_MAP, entry).stored_value());
        let urls = told.as_ref().and_then(|map| object(map, "/data"));
        let mut urls = urls.into_iter().flatten().filter_map(|(_, url)| {
            let url: http::Uri = url.as_str()?.parse().ok()?;
            Some(url.host()?.trim_matches(['[', ']']).to_owned())
        });
        if urls.any(|host| host == name) {
            return Some(of_server);
        }
        name.parse::<IpAddr>().ok()?;
        let prefix = stored::prefix(&weft_kinds::NODE, None);
        let nodes = snapshot
            .range(&prefix, None)
            .map(|entry| Stored::new(vault, &weft_kinds::NODE, entry));
        nodes
            .filter(|other| other.name() != node)
            .find(|other| {
                let addresses = other.stored_value();
                items(&addresses, "/status/addresses")
                    .iter()
                    .any(|address| text(address, "/address") == name)
            })
            .map(|other| format!("node {:?}", other.name()))
    }
}
