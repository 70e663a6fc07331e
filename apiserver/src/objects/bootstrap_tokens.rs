//! Bootstrap tokens on the leader: those that are over are removed, and the others sign what tells machines about this cluster before they are let in.
//!
//! Who has a token and nothing else can read `kube-public/cluster-info` without any credential, and believe it by the signature that the
//! ConfigMap has under the token's name: HMAC with SHA-256 over the kubeconfig in it, as a JSON Web Signature without its content.
//!
//! Invariants: every write is fenced by the leader's term; a signature is there exactly for the tokens that sign and are good. Left to others:
//! letting somebody in by a token (`crate::authn`), making the ConfigMap. After Kubernetes' bootstrapsigner and tokencleaner.

use std::collections::BTreeMap;
use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use weft_api::object::Object;
use weft_api::status::StatusError;
use weft_kinds::lens::{member, text};
use weft_kinds::{CONFIG_MAP, SECRET};

use super::{DeleteOptions, Objects, WriteOptions};
use crate::caller::Caller;
use crate::stored::{self, Stored};

const TYPE: &str = "bootstrap.kubernetes.io/token";
const NAMESPACE: &str = "kube-system";
/// What tells about the cluster.
const INFO: (&str, &str) = ("kube-public", "cluster-info");
const SIGNATURE: &str = "jws-kubeconfig-";
/// How often is looked at all of them: a token is over at a time that nobody announces.
const EVERY: Duration = Duration::from_secs(10);

fn field(secret: &Value, key: &str) -> String {
    let bytes = STANDARD.decode(secret["data"][key].as_str().unwrap_or(""));
    String::from_utf8(bytes.unwrap_or_default()).unwrap_or_default()
}

/// Whether a token is over. One whose end cannot be read is nobody's to remove.
fn is_over(secret: &Value, now: Timestamp) -> bool {
    let end = field(secret, "expiration");
    end.trim().parse::<Timestamp>().is_ok_and(|end| end <= now)
}

/// Id and secret of a token that signs.
fn signer(secret: &Value) -> Option<(String, String)> {
    let (id, key) = (field(secret, "token-id"), field(secret, "token-secret"));
    let named = text(secret, "/metadata/name") == format!("bootstrap-token-{id}");
    let signs = field(secret, "usage-bootstrap-signing") == "true";
    (signs && named && !key.is_empty()).then_some((id, key))
}

/// The signature of a token over content that is told elsewhere.
fn detached(id: &str, key: &str, content: &str) -> String {
    let header = format!("{{\"alg\":\"HS256\",\"kid\":{}}}", Value::from(id));
    let header = URL_SAFE_NO_PAD.encode(header);
    let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(content));
    let key = hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes());
    let signature = hmac::sign(&key, signed.as_bytes());
    format!("{header}..{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
}

impl Objects {
    /// Cleans and signs while this server leads, until the token is cancelled.
    pub async fn tend_bootstrap_tokens(self, closing: CancellationToken) {
        let leadership = self.store().leadership();
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = closing.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let term = *leadership.borrow();
            if term.is_some() {
                let caller = Caller::system("bootstrap-token-controller", term);
                if let Err(error) = self.tend_bootstrap_tokens_once(&caller).await {
                    tracing::debug!(%error, "bootstrap tokens are looked at again");
                }
            }
        }
    }

    /// Removes the tokens that are over, and has the others sign.
    ///
    /// # Errors
    /// Whatever kept the store from taking it.
    pub async fn tend_bootstrap_tokens_once(&self, caller: &Caller) -> Result<(), StatusError> {
        let snapshot = self.store().snapshot();
        let client = self.client(caller);
        let now = self.now();
        let mut signers = BTreeMap::new();
        for entry in snapshot.range(&stored::prefix(&SECRET, Some(NAMESPACE)), None) {
            let secret = Stored::new(&self.inner.vault, &SECRET, entry);
            if secret.field("type").is_none_or(|is| is != TYPE) {
                continue;
            }
            let secret = secret.value();
            if !is_over(&secret, now) {
                signers.extend(signer(&secret));
                continue;
            }
            let options = DeleteOptions {
                uid: Some(text(&secret, "/metadata/uid").to_owned()),
                ..DeleteOptions::default()
            };
            let name = text(&secret, "/metadata/name");
            let deleted = client.delete(&SECRET, Some(NAMESPACE), name, &options);
            match deleted.await {
                Err(error) if !error.is_not_found() && error.code != 409 => return Err(error),
                _ => {}
            }
        }
        let (namespace, name) = INFO;
        let info = match client
            .get_at(&CONFIG_MAP, Some(namespace), name, Some(0))
            .await
        {
            Ok(info) => info.value(),
            Err(error) if error.is_not_found() => return Ok(()),
            Err(error) => return Err(error),
        };
        let signed = with_signatures(&info, &signers);
        if signed == info {
            return Ok(());
        }
        let signed = Object::from_value(signed).map_err(StatusError::internal)?;
        let options = WriteOptions::default();
        let updated = client.update(&CONFIG_MAP, Some(namespace), signed, &options);
        match updated.await {
            // Whoever changed it just now is looked at the next time.
            Err(error) if error.is_not_found() || error.code == 409 => Ok(()),
            done => done.map(drop),
        }
    }
}

/// The ConfigMap with the signatures that it should have.
fn with_signatures(info: &Value, signers: &BTreeMap<String, String>) -> Value {
    let mut next = info.clone();
    let content = text(info, "/data/kubeconfig");
    if let Some(data) = member(&mut next, "data").as_object_mut() {
        data.retain(|key, _| !key.starts_with(SIGNATURE));
    }
    if !content.is_empty() {
        for (id, key) in signers {
            let signature = detached(id, key, content);
            next["data"][format!("{SIGNATURE}{id}")] = json!(signature);
        }
    }
    if info.get("data").is_none() && next["data"] == json!({}) {
        return info.clone();
    }
    next
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(fields: &[(&str, &str)]) -> Value {
        let mut secret = json!({"metadata": {"name": "bootstrap-token-abcdef"}, "data": {}});
        for (key, value) in fields {
            secret["data"][*key] = STANDARD.encode(value).into();
        }
        secret
    }

    #[test]
    fn tokens_sign_as_long_as_they_are_good() {
        let token = [("token-id", "abcdef"), ("token-secret", "0123456789abcdef")];
        let signing = [&token[..], &[("usage-bootstrap-signing", "true")]].concat();
        assert_eq!(signer(&secret(&token)), None);
        let found = signer(&secret(&signing)).unwrap();
        assert_eq!(found, ("abcdef".to_owned(), "0123456789abcdef".to_owned()));
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        for (end, over) in [
            ("2026-01-01T00:00:00Z", true),
            ("2026-01-01T00:00:01Z", false),
            ("soon", false),
        ] {
            assert_eq!(is_over(&secret(&[("expiration", end)]), now), over, "{end}");
        }
        assert!(!is_over(&secret(&[]), now));
    }

    #[test]
    fn the_signatures_are_those_of_the_tokens() {
        // What kubeadm makes of these.
        let content = "Hello from the other side. I must have called a thousand times.";
        assert_eq!(
            detached("joshua", "my voice is my passcode", content),
            "eyJhbGciOiJIUzI1NiIsImtpZCI6Impvc2h1YSJ9..VShe2taLd-YTrmWuRkcL_8QTNDHYxQIEBsAYYiIj1_8"
        );
        let info =
            json!({"data": {"kubeconfig": "foo", "jws-kubeconfig-gone": "x", "own": "kept"}});
        let signers = BTreeMap::from([("tokenid".to_owned(), "tokensecret".to_owned())]);
        let signed = with_signatures(&info, &signers);
        let signature = signed["data"]["jws-kubeconfig-tokenid"].as_str().unwrap();
        let (header, rest) = signature.split_once("..").unwrap();
        let decoded = URL_SAFE_NO_PAD.decode(header).unwrap();
        assert_eq!(decoded, br#"{"alg":"HS256","kid":"tokenid"}"#);
        let text = format!("{header}.{}", URL_SAFE_NO_PAD.encode("foo"));
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"tokensecret");
        let tag = URL_SAFE_NO_PAD.decode(rest).unwrap();
        hmac::verify(&key, text.as_bytes(), &tag).unwrap();
        assert_eq!(signed["data"].get("jws-kubeconfig-gone"), None);
        assert_eq!(signed["data"]["own"], "kept");
        assert_eq!(with_signatures(&signed, &signers), signed);
        let empty = json!({"metadata": {"name": "cluster-info"}});
        assert_eq!(with_signatures(&empty, &signers), empty);
    }
}
