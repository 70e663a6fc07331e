//! How a registry wants to be shown who asks: the challenge of a 401 (RFC 9110, 11.3), and the tokens that came of earlier ones.
//!
//! Invariants: pure but for the map; no more than [`TOKENS_MAX`] tokens are kept, none beyond its time; a token is used only by who
//! brought the credentials that it was given for, at the origin that it was given for.

use super::registries::Origin;
use http::header::{HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use http_auth::ParamValue;
use parking_lot::Mutex;
use reqwest::Url;
use serde::Deserialize;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Tokens of a node.
const TOKENS_MAX: usize = 256;
/// How long a token is good where its registry does not say, by the specification, and the longest that is believed.
const LIFETIME_DEFAULT: Duration = Duration::from_secs(60);
const LIFETIME_MAX: Duration = Duration::from_secs(3600);
/// What is left of a token's time when a new one is asked for instead.
const RENEWED_BEFORE: Duration = Duration::from_secs(5);

/// What a registry asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    Basic,
    Bearer {
        realm: String,
        service: Option<String>,
        scope: Option<String>,
    },
}

impl Challenge {
    /// The strongest challenge of an answer.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let mut basic = None;
        for value in headers.get_all(WWW_AUTHENTICATE) {
            let Ok(challenges) = http_auth::parse_challenges(value.to_str().unwrap_or_default())
            else {
                continue;
            };
            for challenge in challenges {
                let parameter = |name: &str| {
                    let found = challenge.params.iter();
                    let mut found = found.filter(|(known, _)| known.eq_ignore_ascii_case(name));
                    found
                        .next()
                        .map(|(_, value): &(_, ParamValue<'_>)| value.to_unescaped())
                };
                if challenge.scheme.eq_ignore_ascii_case("bearer")
                    && let Some(realm) = parameter("realm")
                {
                    return Some(Self::Bearer {
                        realm,
                        service: parameter("service"),
                        scope: parameter("scope"),
                    });
                }
                if challenge.scheme.eq_ignore_ascii_case("basic") {
                    basic = Some(Self::Basic);
                }
            }
        }
        basic
    }
}

/// A token service's answer.
#[derive(Deserialize)]
pub(super) struct Granted {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

impl Granted {
    /// The token and how long it is good.
    pub(super) fn read(bytes: &[u8]) -> Option<(String, Duration)> {
        let granted: Self = serde_json::from_slice(bytes).ok()?;
        let token = granted.token.filter(|token| !token.is_empty());
        let lifetime = granted
            .expires_in
            .map_or(LIFETIME_DEFAULT, Duration::from_secs);
        Some((token.or(granted.access_token)?, lifetime.min(LIFETIME_MAX)))
    }
}

/// What a token was given for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Grant {
    pub(super) origin: Origin,
    pub(super) repository: String,
    /// The credential's fingerprint; nothing for what anybody gets.
    pub(super) holder: Option<String>,
}

/// The tokens that are still good.
#[derive(Default)]
pub(super) struct Tokens {
    kept: Mutex<HashMap<Grant, (HeaderValue, Instant)>>,
}

impl Tokens {
    pub(super) fn get(&self, grant: &Grant, now: Instant) -> Option<HeaderValue> {
        let kept = self.kept.lock();
        let (token, until) = kept.get(grant)?;
        (*until > now + RENEWED_BEFORE).then(|| token.clone())
    }

    pub(super) fn keep(&self, grant: Grant, token: HeaderValue, lifetime: Duration, now: Instant) {
        let mut kept = self.kept.lock();
        if kept.len() >= TOKENS_MAX {
            kept.retain(|_, (_, until)| *until > now);
        }
        if kept.len() >= TOKENS_MAX {
            let first = kept.iter().min_by_key(|(_, (_, until))| *until);
            if let Some(first) = first.map(|(grant, _)| grant.clone()) {
                kept.remove(&first);
            }
        }
        kept.insert(grant, (token, now + lifetime));
    }
}

/// The URL of a token service, with what is asked of it.
pub(super) fn token_url(mut realm: Url, service: Option<&str>, scope: &str) -> Url {
    let mut query = realm.query_pairs_mut();
    if let Some(service) = service {
        query.append_pair("service", service);
    }
    query.append_pair("scope", scope);
    drop(query);
    realm
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read_as_registries_write_them() {
        let of = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(WWW_AUTHENTICATE, value.parse().expect("a header"));
            }
            Challenge::of(&headers)
        };
        let bearer = |realm: &str, service: Option<&str>, scope: Option<&str>| Challenge::Bearer {
            realm: realm.to_owned(),
            service: service.map(str::to_owned),
            scope: scope.map(str::to_owned),
        };
        assert_eq!(
            of(&[
                r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull""#
            ]),
            Some(bearer(
                "https://auth.docker.io/token",
                Some("registry.docker.io"),
                Some("repository:a/b:pull")
            ))
        );
        assert_eq!(
            of(&["Basic realm=\"x\"", "bearer Realm=\"https://a\""]),
            Some(bearer("https://a", None, None))
        );
        assert_eq!(of(&["Basic realm=\"x\""]), Some(Challenge::Basic));
        assert_eq!(of(&["Negotiate", "Bearer scope=\"x\""]), None);
        assert_eq!(of(&["\"\\", "="]), None);
        assert_eq!(of(&[]), None);
    }

    #[test]
    fn a_token_is_good_for_its_time_and_no_more_are_kept_than_fit() {
        let tokens = Tokens::default();
        let now = Instant::now();
        let grant = |n: usize| Grant {
            origin: Origin::of(&Url::parse("https://a.example").expect("a URL")),
            repository: format!("x/{n}"),
            holder: None,
        };
        let token = HeaderValue::from_static("Bearer t");
        for n in 0..TOKENS_MAX {
            let lifetime = Duration::from_secs(60 + n as u64);
            tokens.keep(grant(n), token.clone(), lifetime, now);
        }
        assert!(
            tokens
                .get(&grant(0), now + Duration::from_secs(50))
                .is_some()
        );
        assert!(
            tokens
                .get(&grant(0), now + Duration::from_secs(59))
                .is_none()
        );
        let holder = Grant {
            holder: Some("ann".into()),
            ..grant(1)
        };
        assert!(tokens.get(&holder, now).is_none());
        // The one that ends first makes room.
        tokens.keep(grant(999), token, Duration::from_secs(600), now);
        assert_eq!(tokens.kept.lock().len(), TOKENS_MAX);
        assert!(tokens.get(&grant(0), now).is_none() && tokens.get(&grant(999), now).is_some());
    }

    #[test]
    fn a_grant_is_read_in_both_spellings() {
        let read = |text: &str| Granted::read(text.as_bytes());
        let seconds = Duration::from_secs;
        assert_eq!(
            read(r#"{"token": "a", "expires_in": 300}"#),
            Some(("a".into(), seconds(300)))
        );
        assert_eq!(
            read(r#"{"access_token": "b"}"#),
            Some(("b".into(), LIFETIME_DEFAULT))
        );
        assert_eq!(
            read(r#"{"token": "c", "expires_in": 18446744073709551615}"#),
            Some(("c".into(), LIFETIME_MAX))
        );
        assert_eq!(read("{}"), None);
        assert_eq!(read("<html>"), None);
    }
}
