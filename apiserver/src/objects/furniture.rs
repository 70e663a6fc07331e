//! Makes what every cluster has, and mends it.
//!
//! The leader does this when it begins to lead, and again and again while it does: objects that are gone come back, and those that
//! somebody changed are what they should be. What that is says [`weft_kinds::furniture`].
//!
//! Invariants: what is well is not written; one piece that cannot be made does not keep the others from being made.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use weft_api::object::Object;
use weft_api::selector::LabelSelector;
use weft_api::status::StatusError;
use weft_kinds::ENDPOINT_SLICE;
use weft_kinds::furniture::{self, API_SERVICE, Facts, MANAGED_BY, Piece};
use weft_kinds::lens::text;

use super::{DeleteOptions, ListOptions, Objects, WriteOptions};
use crate::caller::Caller;

impl Objects {
    /// Makes what is missing and mends what is not as it should be. `servers` is where the API is served, as far as that is known.
    ///
    /// # Errors
    /// The first refusal, after everything was tried.
    pub async fn ensure_furniture(
        &self,
        caller: &Caller,
        servers: &BTreeSet<SocketAddr>,
    ) -> Result<(), StatusError> {
        let mut outcome = Ok(());
        for piece in self.furniture(servers) {
            let made = self.ensure(caller, &piece).await;
            outcome = outcome.and(made);
        }
        outcome
    }

    fn furniture(&self, servers: &BTreeSet<SocketAddr>) -> Vec<Piece> {
        let config = &self.inner.config;
        let authority = config.authority.as_ref();
        furniture::pieces(&Facts {
            servers: servers.clone(),
            service_range: config.service_range,
            ca_pem: authority
                .map(|authority| authority.ca_pem().to_owned())
                .unwrap_or_default(),
        })
    }

    async fn ensure(&self, caller: &Caller, piece: &Piece) -> Result<(), StatusError> {
        let wanted = &piece.object;
        let name = text(wanted, "/metadata/name");
        let namespace = text(wanted, "/metadata/namespace");
        let namespace = Some(namespace).filter(|namespace| !namespace.is_empty());
        let (group, version) = match text(wanted, "/apiVersion").split_once('/') {
            Some((group, version)) => (group, version),
            None => ("", text(wanted, "/apiVersion")),
        };
        let registry = self.registry();
        let Some(kind) = registry.by_kind(group, version, text(wanted, "/kind")) else {
            // Not served yet: what it would tell is told by others.
            return Ok(());
        };
        let (client, options) = (self.client(caller), WriteOptions::default());
        // The leader's own state is good enough: a write is judged by the newest.
        let present = match client.get_at(kind, namespace, name, Some(0)).await {
            Ok(present) => present.value(),
            Err(error) if error.is_not_found() => {
                let object = Object::from_value(wanted.clone()).map_err(StatusError::internal)?;
                return match client.create(kind, namespace, object, &options).await {
                    Ok(_) => {
                        tracing::info!(kind = %kind.kind, name, "created");
                        Ok(())
                    }
                    Err(error) if error.is_already_exists() => Ok(()),
                    Err(error) => Err(error),
                };
            }
            Err(error) => return Err(error),
        };
        let Some(mended) = (piece.mend)(&present, wanted) else {
            return Ok(());
        };
        let mended = Object::from_value(mended).map_err(StatusError::internal)?;
        match client.update(kind, namespace, mended, &options).await {
            Ok(_) => Ok(()),
            // Whoever changed it just now is looked at the next time.
            Err(error) if error.code == 409 => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Removes slices of ports that no server has any more. Asks for a list: for when servers came or went.
    ///
    /// # Errors
    /// Whatever kept it from that.
    pub async fn remove_old_slices(
        &self,
        caller: &Caller,
        servers: &BTreeSet<SocketAddr>,
    ) -> Result<(), StatusError> {
        let pieces = self.furniture(servers);
        let (namespace, _) = API_SERVICE;
        let labels = LabelSelector::parse(&format!("{}={}", MANAGED_BY.0, MANAGED_BY.1))
            .map_err(StatusError::internal)?;
        let client = self.client(caller);
        let listed = client
            .list(
                &ENDPOINT_SLICE,
                Some(namespace),
                &ListOptions::labelled(labels),
            )
            .await?;
        for slice in listed.items {
            let slice = slice.value();
            let name = text(&slice, "/metadata/name");
            let is_wanted = |piece: &Piece| {
                piece.object["kind"] == "EndpointSlice"
                    && text(&piece.object, "/metadata/name") == name
            };
            if pieces.iter().any(is_wanted) {
                continue;
            }
            let options = DeleteOptions {
                uid: Some(text(&slice, "/metadata/uid").to_owned()),
                ..DeleteOptions::default()
            };
            match client
                .delete(&ENDPOINT_SLICE, Some(namespace), name, &options)
                .await
            {
                Ok(_) => {}
                Err(error) if error.is_not_found() || error.code == 409 => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
