//! Tokens of ServiceAccounts: what one says, and for how long; and how others find the keys to check it with.
//!
//! A token names its account, and the object that it is bound to, each with a uid: whoever checks it looks whether those are still there
//! (`crate::authn`). That of a pod names the pod's node, too, as far as there is one.
//!
//! Invariants: pure but for the signature; times are whole seconds; what is told to others (`/.well-known/openid-configuration` and the
//! key set) holds nothing secret. Left to others: whether such a token may be had (`objects/token.rs`), keys (`crate::signing_keys`).
//! Source: kubernetes `pkg/serviceaccount`, 1.37; RFC 7519 and 7517.

use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, json};

use crate::caller::service_account_user;
use crate::signing_keys::SigningKey;

/// Where others find who issues tokens here.
pub const CONFIGURATION_PATH: &str = "/.well-known/openid-configuration";
/// Where they find the keys.
pub const KEYS_PATH: &str = "/openid/v1/jwks";
/// Who issued tokens that are kept in Secrets, as Kubernetes did before there was any other.
pub(crate) const LEGACY_ISSUER: &str = "kubernetes/serviceaccount";
/// Seconds by which clocks may differ.
const LEEWAY_SECONDS: i64 = 60;
/// What admission asks for tells such tokens from those that somebody asked for himself.
const AUTOMATIC_SECONDS: i64 = 60 * 60 + 7;
/// For how long one of those is good, whatever it says: a program that read its token once goes on.
const EXTENDED_SECONDS: i64 = 365 * 24 * 60 * 60;

/// Who issues tokens, and for whom.
#[derive(Clone, Debug)]
pub struct Issuer {
    /// An `https` URL. Tokens that say another are none of ours.
    pub url: String,
    /// Where the key set is found from outside.
    pub keys_url: String,
    /// Who this server is to those who ask for tokens.
    pub audiences: Vec<String>,
}

impl Default for Issuer {
    fn default() -> Self {
        Self::of("https://kubernetes.default.svc.cluster.local")
    }
}

impl Issuer {
    /// An issuer that is its own audience, and tells its keys itself.
    pub fn of(url: &str) -> Self {
        Self {
            url: url.to_owned(),
            keys_url: format!("{url}{KEYS_PATH}"),
            audiences: vec![url.to_owned()],
        }
    }

    /// The same, with its keys told at the server that `server` is the URL of. A server that only its own machine reaches is none that pods
    /// reach, to whom the loopback is their own: then they are told where the issuer is.
    #[must_use]
    pub fn told_at(self, server: &str) -> Self {
        if is_loopback(server) {
            return self;
        }
        Self {
            keys_url: format!("{server}{KEYS_PATH}"),
            ..self
        }
    }

    /// What is told of it, in the words of OpenID Connect.
    pub(crate) fn configuration(&self) -> Value {
        json!({
            "issuer": self.url,
            "jwks_uri": self.keys_url,
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": [weft_jws::ES256],
        })
    }
}

fn is_loopback(url: &str) -> bool {
    let url: Option<http::Uri> = url.parse().ok();
    let host = url.as_ref().and_then(|url| url.host()).unwrap_or_default();
    let ip: Result<IpAddr, _> = host.trim_matches(['[', ']']).parse();
    ip.map_or(host == "localhost", |ip| ip.to_canonical().is_loopback())
}

/// The public halves of keys, as a set.
pub(crate) fn key_set(keys: &[Arc<SigningKey>]) -> Value {
    let keys: Vec<Value> = keys.iter().map(|key| key.jwk()).collect();
    json!({"keys": keys})
}

/// An object that a token is bound to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Reference {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
}

/// What a token says of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Bound {
    #[serde(default)]
    pub namespace: String,
    #[serde(default)]
    pub serviceaccount: Reference,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<Reference>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<Reference>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<Reference>,
    /// From when on whoever still uses it should have had another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warnafter: Option<i64>,
}

/// What a token says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Claims {
    #[serde(default, deserialize_with = "one_or_many")]
    pub aud: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exp: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iat: Option<i64>,
    #[serde(default)]
    pub iss: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub jti: String,
    #[serde(rename = "kubernetes.io", default)]
    pub bound: Bound,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nbf: Option<i64>,
    #[serde(default)]
    pub sub: String,
}

/// What a token says that is kept in a Secret, and never expires.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LegacyClaims {
    #[serde(default)]
    pub iss: String,
    #[serde(rename = "kubernetes.io/serviceaccount/namespace", default)]
    pub namespace: String,
    #[serde(rename = "kubernetes.io/serviceaccount/secret.name", default)]
    pub secret: String,
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.name", default)]
    pub account: String,
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.uid", default)]
    pub account_uid: String,
    #[serde(default)]
    pub sub: String,
}

impl LegacyClaims {
    pub(crate) fn new(namespace: &str, secret: &str, account: &Reference) -> Self {
        Self {
            iss: LEGACY_ISSUER.to_owned(),
            namespace: namespace.to_owned(),
            secret: secret.to_owned(),
            account: account.name.clone(),
            account_uid: account.uid.clone(),
            sub: service_account_user(namespace, &account.name),
        }
    }
}

/// An audience, or a list of them.
fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Audience {
        One(String),
        Many(Vec<String>),
    }
    Ok(match Audience::deserialize(deserializer)? {
        Audience::One(one) => vec![one],
        Audience::Many(many) => many,
    })
}

impl Issuer {
    /// The claims of a token for `audiences` that was asked for `seconds`, at `now`.
    pub(crate) fn claims(
        &self,
        bound: Bound,
        audiences: Vec<String>,
        seconds: i64,
        jti: String,
        now: Timestamp,
    ) -> Claims {
        let now = now.as_second();
        // Tokens that programs got without asking are good for longer, and say from when on that is noted.
        let automatic = bound.pod.is_some()
            && seconds == AUTOMATIC_SECONDS
            && !audiences.is_empty()
            && audiences.iter().all(|one| self.audiences.contains(one));
        let (life, warnafter) = match automatic {
            true => (EXTENDED_SECONDS, Some(now.saturating_add(seconds))),
            false => (seconds, None),
        };
        Claims {
            aud: audiences,
            exp: Some(now.saturating_add(life)),
            iat: Some(now),
            iss: self.url.clone(),
            jti,
            sub: service_account_user(&bound.namespace, &bound.serviceaccount.name),
            nbf: Some(now),
            bound: Bound { warnafter, ..bound },
        }
    }
}

impl Claims {
    /// Whether the token is good at `now`, by what it says itself.
    ///
    /// # Errors
    /// Kubernetes' sentence.
    pub(crate) fn check_times(&self, now: Timestamp) -> Result<(), &'static str> {
        let now = now.as_second();
        if self.nbf.is_some_and(|from| now + LEEWAY_SECONDS < from) {
            return Err("service account token is not valid yet");
        }
        if self.exp.is_some_and(|end| now - LEEWAY_SECONDS > end) {
            return Err("service account token has expired");
        }
        if self.iat.is_some_and(|at| now + LEEWAY_SECONDS < at) {
            return Err("service account token is issued in the future");
        }
        Ok(())
    }
}

/// When something must have been deleted for what is bound to it to be worth nothing at `now`.
pub(crate) fn gone_before(now: Timestamp) -> Timestamp {
    let leeway = jiff::SignedDuration::from_secs(LEEWAY_SECONDS);
    now.saturating_sub(leeway).unwrap_or(Timestamp::MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn keys_are_told_where_pods_reach_them() {
        let own = "https://kubernetes.default.svc.cluster.local/openid/v1/jwks";
        for (server, expected) in [
            (
                "https://10.1.2.3:6443",
                "https://10.1.2.3:6443/openid/v1/jwks",
            ),
            ("https://api.example", "https://api.example/openid/v1/jwks"),
            (
                "https://[fd00::1]:6443",
                "https://[fd00::1]:6443/openid/v1/jwks",
            ),
            ("https://127.0.0.1:34093", own),
            ("https://[::1]:6443", own),
            ("https://localhost:6443", own),
        ] {
            assert_eq!(Issuer::default().told_at(server).keys_url, expected);
        }
    }

    fn bound(pod: bool) -> Bound {
        let reference = |name: &str| Reference {
            name: name.to_owned(),
            uid: format!("uid-{name}"),
        };
        Bound {
            namespace: "n".to_owned(),
            serviceaccount: reference("web"),
            pod: pod.then(|| reference("p")),
            node: pod.then(|| reference("a")),
            ..Bound::default()
        }
    }

    #[test]
    fn claims_are_those_of_kubernetes() {
        let issuer = Issuer::of("https://i.example");
        let claims = issuer.claims(
            bound(true),
            vec!["x".to_owned()],
            600,
            "id".to_owned(),
            at(1000),
        );
        assert_eq!(
            serde_json::to_value(&claims).unwrap(),
            json!({
                "aud": ["x"], "exp": 1600, "iat": 1000, "nbf": 1000, "jti": "id",
                "iss": "https://i.example", "sub": "system:serviceaccount:n:web",
                "kubernetes.io": {
                    "namespace": "n",
                    "serviceaccount": {"name": "web", "uid": "uid-web"},
                    "pod": {"name": "p", "uid": "uid-p"},
                    "node": {"name": "a", "uid": "uid-a"},
                },
            })
        );
    }

    #[test]
    fn tokens_that_nobody_asked_for_are_good_for_longer() {
        let issuer = Issuer::of("https://i.example");
        let own = || issuer.audiences.clone();
        for (pod, audiences, seconds, longer) in [
            (true, own(), 3607, true),
            (false, own(), 3607, false),
            (true, own(), 3600, false),
            (true, vec!["x".to_owned()], 3607, false),
        ] {
            let claims = issuer.claims(bound(pod), audiences, seconds, String::new(), at(0));
            let (end, warned) = match longer {
                true => (EXTENDED_SECONDS, Some(3607)),
                false => (seconds, None),
            };
            assert_eq!((claims.exp, claims.bound.warnafter), (Some(end), warned));
        }
    }

    #[test]
    fn times_are_held_to_a_minute() {
        let claims = Claims {
            nbf: Some(1000),
            iat: Some(1000),
            exp: Some(2000),
            ..Claims::default()
        };
        for (now, expected) in [
            (939, Err("service account token is not valid yet")),
            (940, Ok(())),
            (2060, Ok(())),
            (2061, Err("service account token has expired")),
        ] {
            assert_eq!(claims.check_times(at(now)), expected, "{now}");
        }
        let ahead = Claims {
            iat: Some(1000),
            ..Claims::default()
        };
        assert!(ahead.check_times(at(0)).is_err());
        let one: Claims = serde_json::from_value(json!({"aud": "x"})).unwrap();
        assert_eq!(one.aud, ["x"]);
        assert!(serde_json::from_value::<Claims>(json!({"aud": 7})).is_err());
    }

    #[test]
    fn tokens_in_secrets_are_those_of_kubernetes() {
        let account = bound(false).serviceaccount;
        let claims = LegacyClaims::new("n", "s", &account);
        assert_eq!(
            serde_json::to_value(claims).unwrap(),
            json!({
                "iss": "kubernetes/serviceaccount", "sub": "system:serviceaccount:n:web",
                "kubernetes.io/serviceaccount/namespace": "n",
                "kubernetes.io/serviceaccount/secret.name": "s",
                "kubernetes.io/serviceaccount/service-account.name": "web",
                "kubernetes.io/serviceaccount/service-account.uid": "uid-web",
            })
        );
    }
}
