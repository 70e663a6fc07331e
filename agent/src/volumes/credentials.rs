//! What volumes show of credentials: tokens of the pods' ServiceAccounts, and the certificate by which the API server is known.
//!
//! A token is asked for when the first container that mounts it gets ready, and again once a fifth of its life is left, or it is a day old. While
//! the server is away the one of before is shown for as long as it is good; so is the certificate, which every namespace has in a ConfigMap from
//! moments after its birth.
//!
//! Invariants: a token is bound to its pod and kept no longer than that; none is ever in a message. Left to others: which files show what
//! (`super::projected`), what a token is good for (the API server).
//! Source: kubernetes `pkg/kubelet/token`, 1.37.

use super::certificates::Certificates;
use crate::configuration::{self, Configuration, FetchError, References};
use crate::pod_view::PodView;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{ConfigMap, ServiceAccount, ServiceAccountTokenProjection};
use kube::api::{Api, PostParams};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// The ConfigMap with the certificate of the API server's authority.
const ROOTS: &str = "kube-root-ca.crt";
/// How often it is looked for in a namespace that has just been made.
const ROOTS_TRIES: usize = 20;
const ROOTS_PAUSE: Duration = Duration::from_millis(100);
/// Seconds that a token is good for where the volume does not say.
const SECONDS: i64 = 60 * 60;
/// A token is not kept for longer, however long it is good.
const AGE_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// A token that a volume shows.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TokenWish {
    /// Uid of the pod, so that all of a pod's lie together.
    uid: String,
    pod: String,
    account: String,
    /// Empty for the API server.
    audience: String,
    seconds: i64,
}

impl TokenWish {
    pub(super) fn of(pod: PodView<'_>, source: &ServiceAccountTokenProjection) -> Self {
        Self {
            uid: pod.uid().to_owned(),
            pod: pod.name().to_owned(),
            account: pod.service_account().to_owned(),
            audience: source.audience.clone().unwrap_or_default(),
            seconds: source.expiration_seconds.unwrap_or(SECONDS),
        }
    }

    fn request(&self) -> TokenRequest {
        let audience = Some(self.audience.clone()).filter(|audience| !audience.is_empty());
        TokenRequest {
            spec: Some(TokenRequestSpec {
                audiences: audience.map(|audience| vec![audience]),
                expiration_seconds: Some(self.seconds),
                bound_object_ref: Some(BoundObjectReference {
                    api_version: Some("v1".to_owned()),
                    kind: Some("Pod".to_owned()),
                    name: Some(self.pod.clone()),
                    uid: Some(self.uid.clone()),
                }),
                ..TokenRequestSpec::default()
            }),
            ..TokenRequest::default()
        }
    }
}

/// A token that was given.
#[derive(Clone)]
struct Kept {
    token: String,
    since: Instant,
    life: Duration,
}

impl Kept {
    fn is_good(&self, now: Instant) -> bool {
        now.duration_since(self.since) < self.life
    }

    /// Whether another one should be asked for.
    fn is_old(&self, now: Instant) -> bool {
        let age = now.duration_since(self.since);
        age >= self.life.mul_f64(0.8) || age >= AGE_MAX
    }
}

/// All credentials of this node's pods.
#[derive(Default)]
pub(super) struct Credentials {
    tokens: Mutex<BTreeMap<TokenWish, Kept>>,
    certificates: Certificates,
    /// By namespace.
    roots: Mutex<BTreeMap<String, ConfigMap>>,
}

impl Credentials {
    /// What of `references` exists in `namespace`. With `anew`, what is known of certificates is looked up again.
    ///
    /// # Errors
    /// [`FetchError`] for the first that cannot be had; an object that does not exist is left out.
    pub(super) async fn fetch(
        &self,
        client: kube::Client,
        namespace: &str,
        mut references: References,
        anew: bool,
    ) -> Result<Configuration, FetchError> {
        let wishes = std::mem::take(&mut references.tokens);
        let wanted = std::mem::take(&mut references.certificates);
        let wants_roots = references.config_maps.remove(ROOTS);
        let certificates = async {
            let mut certificates = BTreeMap::new();
            for wish in wanted {
                let found = self
                    .certificates
                    .get(&client, namespace, &wish, !anew)
                    .await;
                let found = found.map_err(|error| FetchError::of_certificate(wish.pod(), error))?;
                certificates.insert(wish, found);
            }
            Ok(certificates)
        };
        let tokens = async {
            let mut tokens = BTreeMap::new();
            for wish in wishes {
                let token = self.token(&client, namespace, &wish).await;
                let token = token.map_err(|source| FetchError::of_token(&wish.account, source))?;
                tokens.insert(wish, token);
            }
            Ok(tokens)
        };
        let roots = async {
            match wants_roots {
                true => self.roots(&client, namespace, anew).await,
                false => Ok(None),
            }
        };
        let rest = configuration::fetch(client.clone(), namespace, references);
        let (tokens, certificates, roots, mut found) =
            futures::try_join!(tokens, certificates, roots, rest)?;
        found.tokens = tokens;
        found.certificates = certificates;
        let roots = roots.map(|map| (ROOTS.to_owned(), map));
        found.config_maps.extend(roots);
        Ok(found)
    }

    async fn token(
        &self,
        client: &kube::Client,
        namespace: &str,
        wish: &TokenWish,
    ) -> Result<String, kube::Error> {
        let kept = self.tokens.lock().get(wish).cloned();
        if let Some(kept) = kept.as_ref().filter(|kept| !kept.is_old(Instant::now())) {
            return Ok(kept.token.clone());
        }
        let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
        let since = Instant::now();
        let asked = accounts
            .create_token_request(&wish.account, &PostParams::default(), &wish.request())
            .await;
        match (asked, kept.filter(|kept| kept.is_good(since))) {
            (Ok(given), _) => {
                let seconds = given.spec.and_then(|spec| spec.expiration_seconds);
                let seconds = seconds.unwrap_or(wish.seconds);
                let token = given.status.and_then(|status| status.token);
                let token = token.unwrap_or_default();
                let kept = Kept {
                    token: token.clone(),
                    since,
                    life: Duration::from_secs(u64::try_from(seconds).unwrap_or(0)),
                };
                self.tokens.lock().insert(wish.clone(), kept);
                Ok(token)
            }
            (Err(error), Some(kept)) => {
                tracing::warn!(pod = wish.pod, %error, "a token was not renewed, and is shown for as long as it is good");
                Ok(kept.token)
            }
            (Err(error), None) => Err(error),
        }
    }

    /// The certificates of a namespace, which it has moments after its birth.
    async fn roots(
        &self,
        client: &kube::Client,
        namespace: &str,
        anew: bool,
    ) -> Result<Option<ConfigMap>, FetchError> {
        let known = self.roots.lock().get(namespace).cloned();
        if known.is_some() && !anew {
            return Ok(known);
        }
        let wanted = || References {
            config_maps: [ROOTS.to_owned()].into(),
            ..References::default()
        };
        for again in 0..ROOTS_TRIES {
            if again > 0 {
                tokio::time::sleep(ROOTS_PAUSE).await;
            }
            let mut found = configuration::fetch(client.clone(), namespace, wanted()).await?;
            if let Some(map) = found.config_maps.remove(ROOTS) {
                let mut roots = self.roots.lock();
                roots.insert(namespace.to_owned(), map.clone());
                return Ok(Some(map));
            }
            if known.is_some() {
                // It is about to be made anew.
                return Ok(known);
            }
        }
        Ok(None)
    }

    /// Forgets the tokens of a pod that is gone.
    pub(super) fn forget(&self, uid: &str) {
        self.tokens.lock().retain(|wish, _| wish.uid != uid);
        self.certificates.forget(uid);
    }

    /// Forgets the certificates of namespaces that no pod here is in.
    pub(super) fn keep_roots_of(&self, lives: impl Fn(&str) -> bool) {
        self.roots.lock().retain(|namespace, _| lives(namespace));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_renewed_when_a_fifth_of_its_life_is_left_or_it_is_a_day_old() {
        let since = Instant::now();
        let hour = 60 * 60;
        for (life, age, old, good) in [
            (hour, hour * 79 / 100, false, true),
            (hour, hour * 80 / 100, true, true),
            (hour, hour, true, false),
            (365 * 24 * hour, 24 * hour - 1, false, true),
            (365 * 24 * hour, 24 * hour, true, true),
        ] {
            let kept = Kept {
                token: String::new(),
                since,
                life: Duration::from_secs(life),
            };
            let now = since + Duration::from_secs(age);
            assert_eq!((kept.is_old(now), kept.is_good(now)), (old, good), "{age}");
        }
    }

    #[test]
    fn a_request_is_bound_to_its_pod() {
        let wish = TokenWish {
            uid: "u".to_owned(),
            pod: "p".to_owned(),
            account: "web".to_owned(),
            audience: String::new(),
            seconds: 3607,
        };
        let request = serde_json::to_value(wish.request()).unwrap();
        assert_eq!(
            request["spec"],
            serde_json::json!({
                "expirationSeconds": 3607,
                "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u"},
            })
        );
    }
}
