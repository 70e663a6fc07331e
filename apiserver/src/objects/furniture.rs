//! Makes what every cluster has, and mends it.
//!
//! The leader does this when it begins to lead, and again and again while it does: objects that are gone come back, and those that
//! somebody changed are what they should be. What that is says [`weft_kinds::furniture`]; of roles and their bindings, [`rbac::defaults`].
//!
//! Invariants: what is well is not written; one piece that cannot be made does not keep the others from being made.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use futures::StreamExt as _;
use serde_json::Value;
use weft_api::object::Object;
use weft_api::selector::LabelSelector;
use weft_api::status::StatusError;
use weft_kinds::furniture::{self, API_SERVICE, Facts, MANAGED_BY, Piece, SERVING_SIGNER};
use weft_kinds::lens::text;
use weft_kinds::{
    CLUSTER_ROLE_BINDING, CLUSTER_TRUST_BUNDLE, ENDPOINT_SLICE, FLOW_SCHEMA, KindRef,
    PRIORITY_LEVEL_CONFIGURATION, ROLE_BINDING, Subresource, flowcontrol, rbac,
};

use super::{DeleteOptions, ListOptions, Objects, WriteOptions};
use crate::ca::Authority;
use crate::caller::Caller;

/// Roles and bindings that are made at the same time.
const ROLES_AT_ONCE: usize = 64;

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

    /// Makes the roles and bindings that every cluster has, and adds what is missing of them. For when a leader begins: what an administrator
    /// takes away after that stays away until the next one does.
    ///
    /// # Errors
    /// The first refusal, after everything was tried.
    pub async fn ensure_roles(&self, caller: &Caller) -> Result<(), StatusError> {
        let pieces = rbac::defaults::pieces().into_iter();
        let made = pieces.map(|piece| async move { self.ensure_role(caller, &piece).await });
        // In one go they are few writes of the log.
        let made: Vec<Result<(), StatusError>> = futures::stream::iter(made)
            .buffer_unordered(ROLES_AT_ONCE)
            .collect()
            .await;
        made.into_iter().collect()
    }

    /// Which role a binding is to nothing can change, so one that is to another is made anew.
    async fn ensure_role(&self, caller: &Caller, piece: &Piece) -> Result<(), StatusError> {
        match self.ensure(caller, piece).await {
            Err(error) if error.code == 422 && piece.object.get("roleRef").is_some() => {}
            done => return done,
        }
        let wanted = &piece.object;
        let namespace = text(wanted, "/metadata/namespace");
        let (kind, namespace) = match namespace {
            "" => (&*CLUSTER_ROLE_BINDING, None),
            namespace => (&*ROLE_BINDING, Some(namespace)),
        };
        let name = text(wanted, "/metadata/name");
        let options = DeleteOptions::default();
        let client = self.client(caller);
        client.delete(kind, namespace, name, &options).await?;
        self.ensure(caller, piece).await
    }

    /// Has what this server proves itself by to servers of further APIs among what those trust.
    ///
    /// # Errors
    /// Whatever kept it from that.
    pub async fn ensure_trust(&self, caller: &Caller) -> Result<(), StatusError> {
        match furniture::authentication(&self.facts(&BTreeSet::new())) {
            Some(piece) => self.ensure(caller, &piece).await,
            None => Ok(()),
        }
    }

    /// Has the Service that programs find the API by, which leads to `servers`. For when a server begins: whoever is told that it is ready
    /// finds it.
    ///
    /// # Errors
    /// The first refusal, after everything was tried.
    pub async fn ensure_api_service(
        &self,
        caller: &Caller,
        servers: &BTreeSet<SocketAddr>,
    ) -> Result<(), StatusError> {
        let mut outcome = Ok(());
        for piece in furniture::api_service(&self.facts(servers)) {
            let made = self.ensure(caller, &piece).await;
            outcome = outcome.and(made);
        }
        outcome
    }

    fn furniture(&self, servers: &BTreeSet<SocketAddr>) -> Vec<Piece> {
        furniture::pieces(&self.facts(servers))
    }

    fn facts(&self, servers: &BTreeSet<SocketAddr>) -> Facts {
        let config = &self.inner.config;
        let authority = config.authority.as_ref();
        let told = |pem: fn(&Authority) -> String| authority.map(pem).unwrap_or_default();
        Facts {
            servers: servers.clone(),
            service_range: config.service_range,
            now: self.now(),
            ca_pem: told(|authority| authority.ca_pem().to_string()),
            front_proxy_ca_pem: told(|authority| authority.front_proxy().ca_pem.clone()),
        }
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
                match client.create(kind, namespace, object, &options).await {
                    Ok(made) => {
                        tracing::info!(kind = %kind.kind, name, "created");
                        made.into_value()
                    }
                    Err(error) if error.is_already_exists() => return Ok(()),
                    Err(error) => return Err(error),
                }
            }
            Err(error) => return Err(error),
        };
        let (mended, part) = match (piece.mend)(&present, wanted) {
            Some(mended) => (mended, None),
            None => match (piece.report)(&present, wanted) {
                Some(reported) => (reported, Some(Subresource::Status)),
                None => return Ok(()),
            },
        };
        let mended = Object::from_value(mended).map_err(StatusError::internal)?;
        let updated = client.update_part(kind, namespace, part, mended, &options);
        match updated.await {
            Ok(_) => Ok(()),
            // Whoever changed it just now is looked at the next time.
            Err(error) if error.code == 409 => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Removes what an earlier release suggested of flow control and this one does not, and what clients verified servers by whose
    /// authority is another now.
    ///
    /// # Errors
    /// Whatever kept it from that.
    pub async fn remove_left_over(&self, caller: &Caller) -> Result<(), StatusError> {
        let pieces = self.furniture(&BTreeSet::new());
        let is_piece = |object: &Value| {
            pieces.iter().any(|piece| {
                piece.object["kind"] == object["kind"]
                    && piece.object["metadata"]["name"] == object["metadata"]["name"]
            })
        };
        let is_left_over = |object: &Value| match text(object, "/spec/signerName") {
            SERVING_SIGNER => !is_piece(object),
            _ => flowcontrol::is_left_over(object),
        };
        for kind in [
            &FLOW_SCHEMA,
            &PRIORITY_LEVEL_CONFIGURATION,
            &CLUSTER_TRUST_BUNDLE,
        ] {
            self.remove(caller, kind, None, ListOptions::default(), is_left_over)
                .await?;
        }
        Ok(())
    }

    /// Removes those of a list that are to go.
    async fn remove(
        &self,
        caller: &Caller,
        kind: KindRef<'_>,
        namespace: Option<&str>,
        options: ListOptions,
        is_to_go: impl Fn(&Value) -> bool,
    ) -> Result<(), StatusError> {
        let client = self.client(caller);
        let listed = client.list(kind, namespace, &options).await?;
        let found = listed.items.into_iter().map(|item| item.value());
        for object in found.filter(|object| is_to_go(object)) {
            let options = DeleteOptions {
                uid: Some(text(&object, "/metadata/uid").to_owned()),
                ..DeleteOptions::default()
            };
            let name = text(&object, "/metadata/name");
            match client.delete(kind, namespace, name, &options).await {
                Ok(_) => {}
                Err(error) if error.is_not_found() || error.code == 409 => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
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
        let is_to_go = |slice: &Value| {
            !pieces.iter().any(|piece| {
                piece.object["kind"] == "EndpointSlice"
                    && piece.object["metadata"]["name"] == slice["metadata"]["name"]
            })
        };
        let options = ListOptions::labelled(labels);
        self.remove(caller, &ENDPOINT_SLICE, Some(namespace), options, is_to_go)
            .await
    }
}
