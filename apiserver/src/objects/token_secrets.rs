//! Secrets that hold a token of a ServiceAccount (`kubernetes.io/service-account-token`): filled by the leader, and removed with their account.
//!
//! Somebody makes an empty one and names the account in an annotation; the leader puts the token in it, what the token is good for and with, and
//! the account's uid. It does so while it follows what changes of Secrets and accounts, and once over all that are there when it begins.
//!
//! Invariants: a token that is there stays; every write is fenced by the leader's term and bound to the state that it was decided on; a Secret
//! whose account is not there goes. Left to others: whether such a token is good (`crate::authn`). After Kubernetes' tokens controller.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use weft_api::object::Object;
use weft_api::status::StatusError;
use weft_kinds::lens::{items, member, object, text};
use weft_kinds::{SECRET, SERVICE_ACCOUNT};
use weft_store::{Entry, Event, EventKind};

use super::{DeleteOptions, Objects, WriteOptions};
use crate::caller::Caller;
use crate::issuer::{LegacyClaims, Reference};
use crate::stored::{self, Stored};

const TYPE: &str = "kubernetes.io/service-account-token";
/// Whose token it is.
const ACCOUNT_NAME: &str = "kubernetes.io/service-account.name";
const ACCOUNT_UID: &str = "kubernetes.io/service-account.uid";
/// How soon is looked again at what could not be written.
const AGAIN: Duration = Duration::from_secs(1);

/// Namespace and name.
type Place = (String, String);

fn annotation<'a>(value: &'a Value, name: &str) -> &'a str {
    let annotations = object(value, "/metadata/annotations");
    let found = annotations.and_then(|all| all.get(name));
    found.and_then(Value::as_str).unwrap_or("")
}

fn place_of(value: &Value) -> Place {
    let of = |field| text(value, field).to_owned();
    (of("/metadata/namespace"), of("/metadata/name"))
}

impl Objects {
    /// Fills Secrets with tokens while this server leads, until the token is cancelled.
    pub async fn tend_token_secrets(self, closing: CancellationToken) {
        let mut leadership = self.store().leadership();
        loop {
            let term = *leadership.borrow_and_update();
            let led = async {
                if term.is_some() {
                    let caller = Caller::system("tokens-controller", term);
                    self.follow_token_secrets(&caller).await;
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
                // It did not keep up with the changes, or the store is closing.
                () = led => tokio::time::sleep(AGAIN).await,
            }
        }
    }

    async fn follow_token_secrets(&self, caller: &Caller) {
        let snapshot = self.store().snapshot();
        let watch = |prefix| self.store().watch(prefix, snapshot.revision());
        let secrets = watch(stored::prefix(&SECRET, None));
        let accounts = watch(stored::prefix(&SERVICE_ACCOUNT, None));
        let (Ok(mut secrets), Ok(mut accounts)) = (secrets, accounts) else {
            return;
        };
        let mut due: BTreeSet<Place> = BTreeSet::new();
        for entry in snapshot.range(&stored::prefix(&SECRET, None), None) {
            due.extend(self.token_secret(&entry).map(|secret| place_of(&secret)));
        }
        loop {
            for place in std::mem::take(&mut due) {
                let (namespace, name) = &place;
                if let Err(error) = self.tend_token_secret(caller, namespace, name).await {
                    tracing::debug!(namespace, name, %error, "a token is looked at again");
                    due.insert(place);
                }
            }
            let pause = async {
                match due.is_empty() {
                    true => std::future::pending().await,
                    false => tokio::time::sleep(AGAIN).await,
                }
            };
            tokio::select! {
                event = secrets.next() => match event {
                    Some(Ok(event)) => self.secret_changed(caller, &event, &mut due).await,
                    _ => return,
                },
                event = accounts.next() => match event {
                    Some(Ok(event)) => self.account_changed(&event, &mut due),
                    _ => return,
                },
                () = pause => {}
            }
        }
    }

    /// A Secret, if it is one for a token.
    fn token_secret(&self, entry: &Arc<Entry>) -> Option<Value> {
        let secret = Stored::new(&self.inner.vault, &SECRET, Arc::clone(entry));
        let is_token = secret.field("type").is_some_and(|is| is == TYPE);
        is_token.then(|| secret.value())
    }

    async fn secret_changed(&self, caller: &Caller, event: &Event, due: &mut BTreeSet<Place>) {
        let Some(secret) = self.token_secret(&event.entry) else {
            return;
        };
        match event.kind {
            EventKind::Put => drop(due.insert(place_of(&secret))),
            EventKind::Delete => {
                let forgotten = self.forget_secret(caller, &secret).await;
                if let Err(error) = forgotten {
                    tracing::debug!(%error, "an account still names a Secret that is gone");
                }
            }
        }
    }

    /// What becomes of the tokens of an account that is gone.
    fn account_changed(&self, event: &Event, due: &mut BTreeSet<Place>) {
        if event.kind != EventKind::Delete {
            return;
        }
        let (namespace, name) = stored::split_key(&event.entry.key);
        let snapshot = self.store().snapshot();
        for entry in snapshot.range(&stored::prefix(&SECRET, namespace), None) {
            let secret = self.token_secret(&entry);
            let secret = secret.filter(|secret| annotation(secret, ACCOUNT_NAME) == name);
            due.extend(secret.map(|secret| place_of(&secret)));
        }
    }

    /// Fills one Secret, or removes it where there is no such account.
    ///
    /// # Errors
    /// Whatever kept the store from taking it.
    pub async fn tend_token_secret(
        &self,
        caller: &Caller,
        namespace: &str,
        name: &str,
    ) -> Result<(), StatusError> {
        let client = self.client(caller);
        let place = Some(namespace);
        let secret = match client.get(&SECRET, place, name).await {
            Ok(secret) => secret.value(),
            Err(error) if error.is_not_found() => return Ok(()),
            Err(error) => return Err(error),
        };
        let account = annotation(&secret, ACCOUNT_NAME);
        if text(&secret, "/type") != TYPE || account.is_empty() {
            return Ok(());
        }
        let found = match client.get(&SERVICE_ACCOUNT, place, account).await {
            Ok(found) => Some(found.value()),
            Err(error) if error.is_not_found() => None,
            Err(error) => return Err(error),
        };
        let known = annotation(&secret, ACCOUNT_UID);
        let same = |found: &Value| known.is_empty() || text(found, "/metadata/uid") == known;
        let Some(found) = found.filter(same) else {
            let options = DeleteOptions {
                uid: Some(text(&secret, "/metadata/uid").to_owned()),
                ..DeleteOptions::default()
            };
            return settled(
                client
                    .delete(&SECRET, place, name, &options)
                    .await
                    .map(drop),
            );
        };
        let Some(filled) = self.filled(&secret, &found).await? else {
            return Ok(());
        };
        let filled = Object::from_value(filled).map_err(StatusError::internal)?;
        let options = WriteOptions::default();
        settled(
            client
                .update(&SECRET, place, filled, &options)
                .await
                .map(drop),
        )
    }

    /// A Secret with everything that it should hold; none where it does.
    async fn filled(&self, secret: &Value, account: &Value) -> Result<Option<Value>, StatusError> {
        let authority = self.inner.config.authority.as_ref();
        let ca = authority.map(|authority| STANDARD.encode(&*authority.ca_pem()));
        let (namespace, name) = place_of(secret);
        let held = |key: &str| secret["data"][key].as_str().unwrap_or("");
        let mut next = secret.clone();
        let data = member(&mut next, "data");
        if let Some(ca) = ca.filter(|ca| held("ca.crt") != ca) {
            data["ca.crt"] = ca.into();
        }
        if held("namespace").is_empty() {
            data["namespace"] = STANDARD.encode(&namespace).into();
        }
        if held("token").is_empty() {
            let account = Reference {
                name: text(account, "/metadata/name").to_owned(),
                uid: text(account, "/metadata/uid").to_owned(),
            };
            let claims = LegacyClaims::new(&namespace, &name, &account);
            let key = self.inner.signing_keys.signer(self.now()).await;
            let token = key.map_err(StatusError::internal)?.sign(&claims);
            data["token"] = STANDARD
                .encode(token.map_err(StatusError::internal)?)
                .into();
        }
        if next == *secret {
            return Ok(None);
        }
        let annotations = member(member(&mut next, "metadata"), "annotations");
        annotations[ACCOUNT_NAME] = account["metadata"]["name"].clone();
        annotations[ACCOUNT_UID] = account["metadata"]["uid"].clone();
        Ok(Some(next))
    }

    /// Has an account forget a Secret that is gone.
    async fn forget_secret(&self, caller: &Caller, secret: &Value) -> Result<(), StatusError> {
        let (namespace, name) = place_of(secret);
        let client = self.client(caller);
        let account = annotation(secret, ACCOUNT_NAME);
        let found = match client
            .get(&SERVICE_ACCOUNT, Some(&namespace), account)
            .await
        {
            Ok(found) => found.value(),
            Err(error) if error.is_not_found() => return Ok(()),
            Err(error) => return Err(error),
        };
        let known = annotation(secret, ACCOUNT_UID);
        let named = items(&found, "/secrets");
        let left: Vec<Value> = named
            .iter()
            .filter(|named| text(named, "/name") != name)
            .cloned()
            .collect();
        let is_other = !known.is_empty() && text(&found, "/metadata/uid") != known;
        if is_other || left.len() == named.len() {
            return Ok(());
        }
        let mut next = found;
        next["secrets"] = left.into();
        let next = Object::from_value(next).map_err(StatusError::internal)?;
        let options = WriteOptions::default();
        let updated = client.update(&SERVICE_ACCOUNT, Some(&namespace), next, &options);
        settled(updated.await.map(drop))
    }
}

/// Whoever changed or removed it meanwhile has it looked at again.
fn settled(done: Result<(), StatusError>) -> Result<(), StatusError> {
    match done {
        Err(error) if error.is_not_found() || error.code == 409 => Ok(()),
        done => done,
    }
}
