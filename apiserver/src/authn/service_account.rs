//! Tokens of ServiceAccounts: whose they are, and whether what they are bound to is still there.
//!
//! A token that our keys did not sign costs no look at the store. One that they did is good only while its account, and the pod, Secret
//! or node that it is bound to, are the ones of that uid and were not deleted a minute ago or longer. That is seen on what this server has;
//! where that says no, the newest state is asked before anybody is told: the object may have been made on another server just now.
//!
//! Invariants: a token without a key's name is tried with every key, one with a name with that key alone; a refusal is told to those who review
//! tokens, in Kubernetes' words, and to nobody else; reads that strangers cause are bounded. Left to others: claims (`crate::issuer`).

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Value, json};
use subtle::ConstantTimeEq as _;
use tokio::sync::Semaphore;
use weft_api::status::StatusError;
use weft_jws::Parsed;
use weft_kinds::KindRef;
use weft_kinds::lens::{text, time};
use weft_store::Revision;

use super::{Known, Outcome};
use crate::caller::{CREDENTIAL_ID, Caller, Extra, service_account_of};
use crate::issuer::{Bound, Claims, LEGACY_ISSUER, LegacyClaims, Reference, gone_before};
use crate::objects::{Objects, Patch, WriteOptions};
use crate::request::ObjectRef;
use crate::signing_keys::SigningKey;

/// Tokens signed with keys that this server does not know, for which the newest state is asked at the same time: strangers send those.
const UNKNOWN_KEYS_AT_ONCE: usize = 4;
/// Tokens of ours that are not good by what this server has, for which the newest state is asked at the same time.
const CONFIRMATIONS_AT_ONCE: usize = 64;
/// Seconds after which one for whom nobody asked is worth another try.
const RETRY_AFTER_SECONDS: u32 = 1;
/// What a read asks for that takes whatever this server has.
const WHATEVER_IS_HERE: Option<Revision> = Some(0);
/// Where a Secret tells that its token should not be used any more.
const INVALID_SINCE: &str = "kubernetes.io/legacy-token-invalid-since";
/// Where a Secret tells on which day its token was used last.
const LAST_USED: &str = "kubernetes.io/legacy-token-last-used";
/// Where a Secret has its token.
const TOKEN_KEY: &str = "token";

/// Turns tokens of ServiceAccounts into callers. Cloning shares the bounds.
#[derive(Clone)]
pub(super) struct ServiceAccounts {
    objects: Objects,
    unknown_keys: Arc<Semaphore>,
    confirmations: Arc<Semaphore>,
}

/// Why a token is not good.
enum Refusal {
    /// In Kubernetes' words.
    Told(String),
    /// Nobody can tell now.
    Failed(StatusError),
}

impl From<String> for Refusal {
    fn from(told: String) -> Self {
        Self::Told(told)
    }
}

fn told(sentence: &str) -> Refusal {
    Refusal::Told(sentence.to_owned())
}

fn busy() -> StatusError {
    StatusError::too_many_requests(
        "too many unknown tokens, please try again later",
        RETRY_AFTER_SECONDS,
    )
}

impl ServiceAccounts {
    pub(super) fn new(objects: Objects) -> Self {
        Self {
            objects,
            unknown_keys: Arc::new(Semaphore::new(UNKNOWN_KEYS_AT_ONCE)),
            confirmations: Arc::new(Semaphore::new(CONFIRMATIONS_AT_ONCE)),
        }
    }

    /// Whose token this is, if it is one of ours, for one of these audiences.
    ///
    /// # Errors
    /// 429 when too many are asked about that are not good here; 503 without a majority.
    pub(super) async fn authenticate(
        &self,
        token: &str,
        audiences: &[String],
    ) -> Result<Outcome, StatusError> {
        let issuer = self.objects.issuer();
        let Some(parsed) = Parsed::of(token) else {
            return Ok(Outcome::Another);
        };
        let known = if parsed.issuer() == issuer.url {
            let keys = self.keys_for(&parsed).await?;
            self.bound(&parsed, &keys, audiences).await
        } else if parsed.issuer() == LEGACY_ISSUER {
            let keys = self.keys_for(&parsed).await?;
            self.kept(token, &parsed, &keys, audiences).await
        } else {
            return Ok(Outcome::Another);
        };
        match known {
            Ok(known) => Ok(Outcome::Known(known)),
            Err(Refusal::Told(told)) => Ok(Outcome::Refused(told)),
            Err(Refusal::Failed(error)) => Err(error),
        }
    }

    /// The keys that may have signed a token.
    async fn keys_for(&self, parsed: &Parsed<'_>) -> Result<Vec<Arc<SigningKey>>, StatusError> {
        let fitting = |keys: Vec<Arc<SigningKey>>| -> Vec<_> {
            let kid = parsed.kid();
            keys.into_iter()
                .filter(|key| kid.is_empty() || key.kid() == kid)
                .collect()
        };
        let signing = self.objects.signing_keys();
        let here = fitting(signing.all(&self.objects.store().snapshot()));
        if !here.is_empty() {
            return Ok(here);
        }
        let _place = self.unknown_keys.try_acquire().map_err(|_| busy())?;
        let newest = self.objects.newest_snapshot().await?;
        Ok(fitting(signing.all(&newest)))
    }

    /// A token that is bound to its account, and perhaps to an object.
    async fn bound(
        &self,
        parsed: &Parsed<'_>,
        keys: &[Arc<SigningKey>],
        audiences: &[String],
    ) -> Result<Known, Refusal> {
        let claims: Claims = verified(parsed, keys)?;
        let own = &self.objects.issuer().audiences;
        let for_us = match claims.aud.is_empty() {
            true => own,
            false => &claims.aud,
        };
        let audiences = common(for_us, audiences)?;
        claims.check_times(self.objects.now()).map_err(told)?;
        let bound = &claims.bound;
        if self.judge(bound, WHATEVER_IS_HERE).await.is_err() {
            let place = self.confirmations.try_acquire();
            let _place = place.map_err(|_| Refusal::Failed(busy()))?;
            self.judge(bound, None).await?;
        }
        self.note_stale(&claims);
        let account = &bound.serviceaccount;
        let uid = Some(account.uid.clone());
        let caller = Caller::service_account(&bound.namespace, &account.name, uid);
        Ok(Known {
            caller: caller.with_extra(extra(&claims)),
            audiences,
        })
    }

    /// Whoever still uses a token that should have been replaced is seen in the log.
    fn note_stale(&self, claims: &Claims) {
        let now = self.objects.now().as_second();
        let late = claims.bound.warnafter.filter(|after| now > *after);
        if let Some(after) = late {
            tracing::debug!(
                target: "weft_apiserver::audit",
                subject = claims.sub,
                seconds = now - after,
                "authentication.k8s.io/stale-token"
            );
        }
    }

    async fn object(
        &self,
        kind: KindRef<'_>,
        namespace: Option<&str>,
        name: &str,
        version: Option<Revision>,
    ) -> Result<Value, StatusError> {
        let reader = Caller::system("apiserver", None);
        let client = self.objects.client(&reader);
        let found = client.get_at(kind, namespace, name, version).await?;
        Ok(found.value())
    }

    /// Whether what a token is bound to is there, as of a state that is not older than `version`.
    async fn judge(&self, bound: &Bound, version: Option<Revision>) -> Result<(), Refusal> {
        let gone_before = gone_before(self.objects.now());
        let namespace = Some(bound.namespace.as_str());
        let account = &bound.serviceaccount;
        let kind = &weft_kinds::SERVICE_ACCOUNT;
        let found = self.object(kind, namespace, &account.name, version).await;
        let found = found.map_err(|error| match error.is_not_found() {
            true => Refusal::Told(error.message),
            false => Refusal::Failed(error),
        })?;
        let uid = text(&found, "/metadata/uid");
        if uid != account.uid {
            let claimed = &account.uid;
            return Err(
                format!("service account UID ({uid}) does not match claim ({claimed})").into(),
            );
        }
        if was_deleted(&found, gone_before) {
            let Reference { name, .. } = account;
            let namespace = &bound.namespace;
            return Err(format!("service account {namespace}/{name} has been deleted").into());
        }
        // A pod's node is told, not asked about: the pod is what the token goes with.
        let node = bound.node.as_ref().filter(|_| bound.pod.is_none());
        for (kind, called, namespace, reference) in [
            (
                &*weft_kinds::SECRET,
                "secret",
                namespace,
                &bound.secret.as_ref(),
            ),
            (&*weft_kinds::POD, "pod", namespace, &bound.pod.as_ref()),
            (&*weft_kinds::NODE, "node", None, &node),
        ] {
            let Some(Reference { name, uid }) = reference else {
                continue;
            };
            let invalid = || told("service account token has been invalidated");
            let found = self.object(kind, namespace, name, version).await;
            let found = found.map_err(|error| match error.is_not_found() {
                true => invalid(),
                false => Refusal::Failed(error),
            })?;
            let is = text(&found, "/metadata/uid");
            if is != uid {
                return Err(format!(
                    "{called} UID ({is}) does not match service account {called} ref claim ({uid})"
                )
                .into());
            }
            if was_deleted(&found, gone_before) {
                return Err(invalid());
            }
        }
        Ok(())
    }

    /// A token that a Secret holds, and that is good for as long as it does.
    async fn kept(
        &self,
        token: &str,
        parsed: &Parsed<'_>,
        keys: &[Arc<SigningKey>],
        audiences: &[String],
    ) -> Result<Known, Refusal> {
        let claims: LegacyClaims = verified(parsed, keys)?;
        let audiences = common(&self.objects.issuer().audiences, audiences)?;
        for (claim, called) in [
            (&claims.sub, "sub"),
            (&claims.namespace, "namespace"),
            (&claims.secret, "secretName"),
            (&claims.account, "serviceAccountName"),
            (&claims.account_uid, "serviceAccountUID"),
        ] {
            if claim.is_empty() {
                return Err(format!("{called} claim is missing").into());
            }
        }
        let subject = service_account_of(&claims.sub);
        if subject != Some((claims.namespace.as_str(), claims.account.as_str())) {
            return Err(told("sub claim is invalid"));
        }
        let here = self.judge_kept(token, &claims, WHATEVER_IS_HERE).await;
        let secret = match here {
            Ok(secret) => secret,
            Err(_) => {
                let place = self.confirmations.try_acquire();
                let _place = place.map_err(|_| Refusal::Failed(busy()))?;
                self.judge_kept(token, &claims, None).await?
            }
        };
        self.note_use(&secret).await;
        if let Some(refusal) = invalidated(&claims, &secret) {
            return Err(refusal);
        }
        let uid = Some(claims.account_uid.clone());
        Ok(Known {
            caller: Caller::service_account(&claims.namespace, &claims.account, uid),
            audiences,
        })
    }

    /// The Secret of a token, if it and the account are what they were.
    async fn judge_kept(
        &self,
        token: &str,
        claims: &LegacyClaims,
        version: Option<Revision>,
    ) -> Result<Value, Refusal> {
        let namespace = Some(claims.namespace.as_str());
        let invalid = || told("Token has been invalidated");
        let kind = &weft_kinds::SECRET;
        let secret = self.object(kind, namespace, &claims.secret, version).await;
        let secret = secret.map_err(|error| match error.is_not_found() {
            true => invalid(),
            false => Refusal::Failed(error),
        })?;
        if !text(&secret, "/metadata/deletionTimestamp").is_empty() {
            return Err(invalid());
        }
        let held = STANDARD
            .decode(text(&secret["data"], &format!("/{TOKEN_KEY}")))
            .unwrap_or_default();
        if !bool::from(held.ct_eq(token.as_bytes())) {
            return Err(told("Token does not match server's copy"));
        }
        let kind = &weft_kinds::SERVICE_ACCOUNT;
        let account = self.object(kind, namespace, &claims.account, version).await;
        let account = account.map_err(|error| match error.is_not_found() {
            true => Refusal::Told(error.message),
            false => Refusal::Failed(error),
        })?;
        if !text(&account, "/metadata/deletionTimestamp").is_empty() {
            let LegacyClaims {
                namespace, account, ..
            } = claims;
            return Err(format!("ServiceAccount {namespace}/{account} has been deleted").into());
        }
        let uid = text(&account, "/metadata/uid");
        if uid != claims.account_uid {
            let claimed = &claims.account_uid;
            return Err(
                format!("ServiceAccount UID ({uid}) does not match claim ({claimed})").into(),
            );
        }
        Ok(secret)
    }

    /// Writes down, once a day, that a Secret's token is in use: who cleans up looks at that.
    async fn note_use(&self, secret: &Value) {
        let label = |name: &str| secret.pointer("/metadata/labels").map(|all| &all[name]);
        let now = self.objects.now();
        let today = now.strftime("%Y-%m-%d").to_string();
        let tomorrow = now + jiff::SignedDuration::from_hours(24);
        let tomorrow = tomorrow.strftime("%Y-%m-%d").to_string();
        let known = label(LAST_USED).and_then(Value::as_str).unwrap_or("");
        if known == today || known == tomorrow {
            return;
        }
        let patch = json!({"metadata": {
            "uid": secret["metadata"]["uid"], "labels": {LAST_USED: today},
        }});
        let writer = Caller::system("apiserver", None);
        let (name, namespace) = (
            text(secret, "/metadata/name"),
            text(secret, "/metadata/namespace"),
        );
        let object = ObjectRef::new(&weft_kinds::SECRET, Some(namespace), name);
        let client = self.objects.client(&writer);
        let (patch, options) = (Patch::merge(&patch), WriteOptions::default());
        if let Err(error) = client.patch(object, None, patch, &options).await {
            tracing::debug!(namespace, name, %error, "the last use of a token was not written down");
        }
    }
}

/// Why the token of a Secret is not taken although it is the Secret's, if so.
fn invalidated(claims: &LegacyClaims, secret: &Value) -> Option<Refusal> {
    let labels = secret.pointer("/metadata/labels")?;
    let since = labels.get(INVALID_SINCE)?.as_str()?;
    let LegacyClaims {
        namespace,
        secret,
        account,
        ..
    } = claims;
    (!since.is_empty()).then(|| {
        Refusal::Told(format!(
            "the token in secret {namespace}/{secret} for service account {namespace}/{account} has been marked invalid. Use tokens from the TokenRequest API or manually created secret-based tokens, or remove the '{INVALID_SINCE}' label from the secret to temporarily allow use of this token"
        ))
    })
}

/// The claims of a token that one of the keys signed.
fn verified<T: serde::de::DeserializeOwned>(
    parsed: &Parsed<'_>,
    keys: &[Arc<SigningKey>],
) -> Result<T, Refusal> {
    if keys.is_empty() {
        return Err(told("invalid signature, no keys found"));
    }
    let mut found = keys.iter().filter_map(|key| parsed.verified(key.point()));
    let wrong = || told("go-jose/go-jose: error in cryptographic primitive");
    found.next().ok_or_else(wrong)
}

/// The audiences that a token is for and that it is shown to.
fn common(of_token: &[String], asked: &[String]) -> Result<Vec<String>, Refusal> {
    let shared = of_token.iter().filter(|one| asked.contains(one));
    let shared: Vec<String> = shared.cloned().collect();
    let listed = |all: &[String]| {
        let all: Vec<String> = all.iter().map(|one| format!("{one:?}")).collect();
        format!("[{}]", all.join(" "))
    };
    match shared.is_empty() {
        true => Err(Refusal::Told(format!(
            "token audiences {} is invalid for the target audiences {}",
            listed(of_token),
            listed(asked)
        ))),
        false => Ok(shared),
    }
}

fn was_deleted(object: &Value, gone_before: Timestamp) -> bool {
    time(object, "/metadata/deletionTimestamp").is_some_and(|deleted| deleted < gone_before)
}

/// What a token tells beside whose it is.
fn extra(claims: &Claims) -> Extra {
    let mut extra = Extra::new();
    let mut tell = |field: &str, value: &str| {
        if !value.is_empty() {
            let key = format!("authentication.kubernetes.io/{field}");
            extra.insert(key, vec![value.to_owned()]);
        }
    };
    if let Some(pod) = &claims.bound.pod {
        tell("pod-name", &pod.name);
        tell("pod-uid", &pod.uid);
    }
    if let Some(node) = claims
        .bound
        .node
        .as_ref()
        .filter(|node| !node.name.is_empty())
    {
        tell("node-name", &node.name);
        tell("node-uid", &node.uid);
    }
    if !claims.jti.is_empty() {
        extra.insert(
            CREDENTIAL_ID.to_owned(),
            vec![format!("JTI={}", claims.jti)],
        );
    }
    extra
}
