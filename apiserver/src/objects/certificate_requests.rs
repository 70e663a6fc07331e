//! Requests for certificates that somebody approved: signed by the leader, as soon as they are; and old ones removed.
//!
//! Invariants: every write is fenced by the leader's term and bound to the state that it was decided on; without an authority nothing is signed.
//! Left to others: what each signer checks (`crate::signers`), what is signed at once (`crate::certificates`).

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use weft_api::status::StatusError;
use weft_kinds::lens::text;
use weft_kinds::{CERTIFICATE_SIGNING_REQUEST, Subresource};
use weft_store::{Entry, EventKind};

use super::{DeleteOptions, Objects, Patch, WriteOptions};
use crate::caller::Caller;
use crate::request::ObjectRef;
use crate::signers;
use crate::stored::{self, Stored};

/// How often is looked for old ones.
const CLEAN_EVERY: Duration = Duration::from_secs(60 * 60);
/// How soon the requests are followed again, where the changes came too fast.
const AGAIN: Duration = Duration::from_secs(1);

impl Objects {
    /// Signs and cleans while this server leads, until the token is cancelled.
    pub async fn tend_certificate_requests(self, closing: CancellationToken) {
        let mut leadership = self.store().leadership();
        loop {
            let term = *leadership.borrow_and_update();
            let led = async {
                if term.is_some() {
                    let caller = Caller::system("certificate-controller", term);
                    self.follow_certificate_requests(&caller).await;
                } else {
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                biased;
                () = closing.cancelled() => return,
                changed = leadership.changed() => if changed.is_err() {
                    return closing.cancelled().await;
                },
                () = led => tokio::time::sleep(AGAIN).await,
            }
        }
    }

    async fn follow_certificate_requests(&self, caller: &Caller) {
        let prefix = stored::prefix(&CERTIFICATE_SIGNING_REQUEST, None);
        let snapshot = self.store().snapshot();
        let Ok(mut watch) = self.store().watch(prefix.clone(), snapshot.revision()) else {
            return;
        };
        for entry in snapshot.range(&prefix, None) {
            self.tend_certificate_request(caller, &entry).await;
        }
        let mut clean = tokio::time::interval(CLEAN_EVERY);
        loop {
            tokio::select! {
                event = watch.next() => match event {
                    Some(Ok(event)) if event.kind == EventKind::Put => {
                        self.tend_certificate_request(caller, &event.entry).await;
                    }
                    Some(Ok(_)) => {}
                    _ => return,
                },
                _ = clean.tick() => self.clean_certificate_requests(caller).await,
            }
        }
    }

    /// Signs one request, if it waits for that.
    pub(super) async fn tend_certificate_request(&self, caller: &Caller, entry: &Arc<Entry>) {
        let kind = &CERTIFICATE_SIGNING_REQUEST;
        let request = Stored::new(&self.inner.vault, kind, Arc::clone(entry)).value();
        if let Err(error) = self.sign_approved(caller, &request).await {
            let name = text(&request, "/metadata/name");
            tracing::warn!(name, %error, "a certificate was not issued");
        }
    }

    /// Signs a request that was approved, and waits.
    ///
    /// # Errors
    /// 500 for one that cannot be read or signed; whatever kept the store from taking it.
    pub async fn sign_approved(&self, caller: &Caller, request: &Value) -> Result<(), StatusError> {
        let Some(authority) = &self.inner.config.authority else {
            return Ok(());
        };
        let signed = signers::signed(authority, request, self.now());
        let Some(status) = signed.map_err(StatusError::internal)? else {
            return Ok(());
        };
        let name = text(request, "/metadata/name");
        let object = ObjectRef::new(&CERTIFICATE_SIGNING_REQUEST, None, name);
        let version = request["metadata"]["resourceVersion"].clone();
        let body = json!({"metadata": {"resourceVersion": version}, "status": status});
        let (part, options) = (Some(Subresource::Status), WriteOptions::default());
        let client = self.client(caller);
        let patched = client.patch(object, part, Patch::merge(&body), &options);
        match patched.await {
            // Whoever changed it meanwhile has it looked at again.
            Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
            done => done.map(drop),
        }
    }

    async fn clean_certificate_requests(&self, caller: &Caller) {
        let kind = &CERTIFICATE_SIGNING_REQUEST;
        let client = self.client(caller);
        let snapshot = self.store().snapshot();
        for entry in snapshot.range(&stored::prefix(kind, None), None) {
            let request = Stored::new(&self.inner.vault, kind, entry).value();
            if !signers::is_old(&request, self.now()) {
                continue;
            }
            let name = text(&request, "/metadata/name");
            let options = DeleteOptions {
                uid: Some(text(&request, "/metadata/uid").to_owned()),
                ..DeleteOptions::default()
            };
            if let Err(error) = client.delete(kind, None, name, &options).await {
                tracing::debug!(name, %error, "an old request for a certificate stays for now");
            }
        }
    }
}
