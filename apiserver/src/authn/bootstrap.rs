//! Bootstrap tokens `id.secret`: what lets a node or a server ask for its first certificate.
//!
//! Kept as Secrets `kube-system/bootstrap-token-ID`. A token that is good by what this server has costs one look at the newest
//! state, for it may have been taken back: whoever causes that holds a secret of the cluster. One that is not good here may
//! have been made on another server a moment ago, so that is looked up, too, but by [`CONFIRMATIONS_AT_ONCE`] at a time and
//! nobody waits for one: strangers come here before they have a place among the requests in flight, and before anything
//! is known of them.
//!
//! Invariants: an answer, yes or no, is that of the newest state; secrets are compared in constant time; reads that strangers
//! cause are bounded, whatever they send.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::Value;
use subtle::{Choice, ConstantTimeEq as _};
use tokio::sync::Semaphore;
use weft_api::status::StatusError;
use weft_kinds::lens::text;
use weft_store::Revision;

use crate::caller::Caller;
use crate::objects::Objects;

/// Where bootstrap tokens live, as `bootstrap-token-ID`.
const TOKEN_NAMESPACE: &str = "kube-system";
const TOKEN_TYPE: &str = "bootstrap.kubernetes.io/token";
/// Tokens that are not good by what this server has, for which the newest state is asked at the same time. A follower is some
/// milliseconds behind, so few honest ones meet here.
const CONFIRMATIONS_AT_ONCE: usize = 4;
/// Seconds after which one for whom nobody asked is worth another try.
const RETRY_AFTER_SECONDS: u32 = 1;
/// What a read asks for that takes whatever this server has.
const WHATEVER_IS_HERE: Option<Revision> = Some(0);

/// Turns bootstrap tokens into callers. Cloning shares the bounds.
#[derive(Clone)]
pub(super) struct BootstrapTokens {
    objects: Objects,
    confirmations: Arc<Semaphore>,
}

impl BootstrapTokens {
    pub(super) fn new(objects: Objects) -> Self {
        Self {
            objects,
            confirmations: Arc::new(Semaphore::new(CONFIRMATIONS_AT_ONCE)),
        }
    }

    /// Whose token this is.
    ///
    /// # Errors
    /// 401 for one that is not good; 429 when too many such are asked about; 503 without a majority.
    pub(super) async fn authenticate(&self, token: &str) -> Result<Caller, StatusError> {
        let (id, secret) = split_bootstrap(token).ok_or_else(StatusError::unauthorized)?;
        let good_here = self.holder(id, secret, WHATEVER_IS_HERE).await?.is_some();
        let _place = match good_here {
            true => None,
            false => Some(self.confirmations.try_acquire().map_err(|_| {
                StatusError::too_many_requests(
                    "too many unknown tokens, please try again later",
                    RETRY_AFTER_SECONDS,
                )
            })?),
        };
        let holder = self.holder(id, secret, None).await?;
        holder.ok_or_else(StatusError::unauthorized)
    }

    /// Whose token this is by the state at `version`, if anybody's.
    async fn holder(
        &self,
        id: &str,
        secret: &str,
        version: Option<Revision>,
    ) -> Result<Option<Caller>, StatusError> {
        let reader = Caller::system("apiserver", None);
        let reader = self.objects.client(&reader);
        let name = format!("bootstrap-token-{id}");
        let kind = &weft_kinds::SECRET;
        let found = reader.get_at(kind, Some(TOKEN_NAMESPACE), &name, version);
        let stored = match found.await {
            Ok(stored) => stored.value(),
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(error),
        };
        let good = bootstrap_token_is_valid(&stored, id, secret, Timestamp::now());
        Ok(good.then(|| Caller::bootstrap_token(id, extra_groups(&stored))))
    }
}

/// `abcdef.0123456789abcdef`: six and at least sixteen characters of `a-z0-9`.
fn split_bootstrap(token: &str) -> Option<(&str, &str)> {
    let (id, secret) = token.split_once('.')?;
    let plain = |text: &str| {
        text.bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    };
    (id.len() == 6 && (16..=64).contains(&secret.len()) && plain(id) && plain(secret))
        .then_some((id, secret))
}

/// A field of a Secret's data, decoded.
fn secret_field(object: &Value, key: &str) -> Option<String> {
    let encoded = object
        .pointer(&format!("/data/{key}"))
        .and_then(Value::as_str)?;
    String::from_utf8(STANDARD.decode(encoded).ok()?).ok()
}

/// The further groups of a bootstrap token. As in Kubernetes, it can give none outside of `system:bootstrappers:`.
fn extra_groups(object: &Value) -> Vec<String> {
    let groups = secret_field(object, "auth-extra-groups").unwrap_or_default();
    let groups = groups.split(',').map(str::trim);
    groups
        .filter(|group| group.starts_with("system:bootstrappers:"))
        .map(str::to_owned)
        .collect()
}

/// Whether the Secret `object` is the bootstrap token `id.secret`, for authentication, and not expired.
fn bootstrap_token_is_valid(object: &Value, id: &str, secret: &str, now: Timestamp) -> bool {
    let field = |key: &str| secret_field(object, key);
    let stored = field("token-secret").unwrap_or_default();
    let matches: Choice = stored.as_bytes().ct_eq(secret.as_bytes());
    let alive = match field("expiration") {
        None => true,
        // A time that cannot be read is no promise that the token is still good.
        Some(expiration) => expiration
            .trim()
            .parse::<Timestamp>()
            .is_ok_and(|expiration| now < expiration),
    };
    bool::from(matches)
        && !stored.is_empty()
        && alive
        && text(object, "/type") == TOKEN_TYPE
        && field("token-id").as_deref() == Some(id)
        && field("usage-bootstrap-authentication").as_deref() == Some("true")
        && object.pointer("/metadata/deletionTimestamp").is_none()
}

#[cfg(test)]
mod tests {
    use std::task::Poll;

    use serde_json::json;
    use weft_api::object::Object;
    use weft_store::Store;

    use super::*;
    use crate::objects::{self, WriteOptions};

    #[test]
    fn bootstrap_tokens_have_one_shape() {
        assert_eq!(
            split_bootstrap("abcdef.0123456789abcdef"),
            Some(("abcdef", "0123456789abcdef"))
        );
        for bad in [
            "abcdef",
            "abcde.0123456789abcdef",
            "abcdef.short",
            "abcdef.0123456789ABCDEF",
            "ab/../.0123456789abcdef",
        ] {
            assert_eq!(split_bootstrap(bad), None, "{bad}");
        }
    }

    #[test]
    fn bootstrap_secrets_are_checked_in_every_part() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let secret = |change: fn(&mut Value)| {
            let encode = |text: &str| STANDARD.encode(text);
            let mut object = json!({
                "type": TOKEN_TYPE,
                "data": {
                    "token-id": encode("abcdef"), "token-secret": encode("0123456789abcdef"),
                    "expiration": encode("2026-01-01T00:00:01Z"), "usage-bootstrap-authentication": encode("true"),
                },
            });
            change(&mut object);
            bootstrap_token_is_valid(&object, "abcdef", "0123456789abcdef", now)
        };
        assert!(secret(|_| {}));
        assert!(secret(|object| drop(
            object["data"].as_object_mut().unwrap().remove("expiration")
        )));
        let broken: [fn(&mut Value); 7] = [
            |object| object["type"] = json!("Opaque"),
            |object| object["data"]["token-secret"] = json!(STANDARD.encode("0123456789abcdee")),
            |object| object["data"]["token-id"] = json!(STANDARD.encode("fedcba")),
            |object| object["data"]["expiration"] = json!(STANDARD.encode("2026-01-01T00:00:00Z")),
            |object| object["data"]["expiration"] = json!(STANDARD.encode("soon")),
            |object| {
                object["data"]["usage-bootstrap-authentication"] = json!(STANDARD.encode("false"))
            },
            |object| object["metadata"] = json!({ "deletionTimestamp": "2026-01-01T00:00:00Z" }),
        ];
        for (index, change) in broken.into_iter().enumerate() {
            assert!(!secret(change), "case {index}");
        }
    }

    #[test]
    fn a_bootstrap_token_gives_no_group_but_its_kind() {
        let groups = "system:bootstrappers:weft:servers, system:masters,system:nodes";
        let object = json!({"data": {"auth-extra-groups": STANDARD.encode(groups)}});
        assert_eq!(extra_groups(&object), [crate::caller::GROUP_SERVERS]);
        assert!(extra_groups(&json!({})).is_empty());
    }

    #[tokio::test]
    async fn strangers_make_the_store_work_for_few_at_a_time_and_keep_nobody_waiting() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(weft_store::Config::new(dir.path())).await;
        let store = store.unwrap();
        let mut leadership = store.leadership();
        leadership.wait_for(Option::is_some).await.unwrap();
        let objects = Objects::new(store, objects::Config::default());
        let system = Caller::system("test", None);
        objects.ensure_permanent_namespaces(&system).await.unwrap();
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "type": TOKEN_TYPE,
            "metadata": {"name": "bootstrap-token-abcdef", "namespace": TOKEN_NAMESPACE},
            "stringData": {
                "token-id": "abcdef", "token-secret": "0123456789abcdef",
                "usage-bootstrap-authentication": "true",
            },
        });
        let client = objects.client(&system);
        let (kind, options) = (&weft_kinds::SECRET, WriteOptions::default());
        let secret = Object::from_value(secret).unwrap();
        let created = client.create(kind, Some(TOKEN_NAMESPACE), secret, &options);
        created.await.unwrap();

        let tokens = BootstrapTokens::new(objects.clone());
        // Unknown ids, and the known one with a wrong secret.
        let wrong: Vec<String> = (0..64)
            .map(|number| match number % 2 {
                0 => format!("x{number:05}.0123456789abcdef"),
                _ => format!("abcdef.{number:016}"),
            })
            .collect();
        let asking = wrong.iter().map(|token| tokens.authenticate(token));
        let mut asking: Vec<_> = asking.map(Box::pin).collect();
        let mut waiting = 0;
        for asked in &mut asking {
            match futures::poll!(asked) {
                Poll::Pending => waiting += 1,
                Poll::Ready(answer) => assert_eq!(answer.unwrap_err().code, 429),
            }
        }
        assert_eq!(waiting, CONFIRMATIONS_AT_ONCE);
        // Who holds a token of the cluster does not stand in their line.
        let good = tokens.authenticate("abcdef.0123456789abcdef").await;
        assert_eq!(good.unwrap().user(), "system:bootstrap:abcdef");
        for asked in asking.drain(..CONFIRMATIONS_AT_ONCE) {
            assert_eq!(asked.await.unwrap_err().code, 401);
        }
        let late = tokens.authenticate("abcdef.fedcba9876543210").await;
        assert_eq!(late.unwrap_err().code, 401);

        // What was taken back is not good any more, although it was a moment ago.
        let name = "bootstrap-token-abcdef";
        let now = objects::DeleteOptions::default();
        let deleted = client.delete(kind, Some(TOKEN_NAMESPACE), name, &now);
        deleted.await.unwrap();
        let gone = tokens.authenticate("abcdef.0123456789abcdef").await;
        assert_eq!(gone.unwrap_err().code, 401);
    }
}
