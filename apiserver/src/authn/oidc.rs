//! Tokens of other issuers (OpenID Connect): whose they are, by what the operator has configured of each.
//!
//! An issuer's keys are fetched when its first token comes, and again when a token names a key that is not among them: strangers send such
//! tokens, so no more often than every [`FETCH_EVERY`].
//!
//! Invariants: a token is judged by the keys of its own issuer alone; while an issuer cannot be reached, the keys of before are good. Left to
//! others: the configuration ([`config`]), what claims mean ([`mapping`]), signatures (`weft_jws`).

pub(crate) mod code_flow;
pub(super) mod config;
mod mapping;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use serde_json::Value;
use tokio::sync::Mutex;
use tokio::time::Instant;
use weft_jws::{Parsed, PublicKey};

use self::config::Compiled;
pub use self::config::{AuthenticationConfiguration, ConfigurationError};
use super::Outcome;
use crate::authn::Known;
use crate::webhook::{Endpoint, fetch};

/// The shortest time between two looks for the keys of an issuer.
const FETCH_EVERY: Duration = Duration::from_secs(10);
/// For a document of an issuer.
const FETCH_TIMEOUT: Duration = Duration::from_secs(10);
/// Keys of an issuer that are looked at.
const KEYS_MAX: usize = 64;

/// By their names.
type Keys = Vec<(String, PublicKey)>;

struct Issuer {
    compiled: Compiled,
    keys: RwLock<Arc<Keys>>,
    /// When they were last asked for. Whoever fetches holds it; others wait for what comes of that.
    fetched: Arc<Mutex<Option<Instant>>>,
    /// Where browsers are sent, once somebody asked.
    flow: code_flow::Known,
}

/// All other issuers. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Issuers {
    all: Arc<Vec<Arc<Issuer>>>,
    /// What becomes of those without a credential: nothing said, or at which paths they are served.
    anonymous: Option<Arc<Vec<String>>>,
}

impl Issuers {
    /// `own` is who issues tokens here.
    pub(super) fn new(
        configuration: &AuthenticationConfiguration,
        own: &str,
    ) -> Result<Self, ConfigurationError> {
        let all = configuration.compiled(own)?.into_iter();
        let all = all.map(|compiled| {
            Arc::new(Issuer {
                compiled,
                keys: RwLock::default(),
                fetched: Arc::default(),
                flow: code_flow::Known::default(),
            })
        });
        let anonymous = configuration.anonymous.as_ref();
        let anonymous = anonymous.and_then(|anonymous| match anonymous.enabled {
            true if anonymous.conditions.is_empty() => None,
            true => {
                let paths = anonymous.conditions.iter();
                Some(paths.map(|one| one.path.clone()).collect())
            }
            false => Some(Vec::new()),
        });
        Ok(Self {
            all: Arc::new(all.collect()),
            anonymous: anonymous.map(Arc::new),
        })
    }

    /// Whether somebody without a credential is served at a path.
    pub(super) fn serves_anonymous(&self, path: &str) -> bool {
        self.anonymous
            .as_ref()
            .is_none_or(|paths| paths.iter().any(|one| one == path))
    }

    /// Whose token this is, if it is of one of these.
    pub(super) async fn authenticate(
        &self,
        token: &str,
        own_audiences: Vec<String>,
        now: i64,
    ) -> Outcome {
        let Some(parsed) = Parsed::of(token) else {
            return Outcome::Another;
        };
        let of = |issuer: &&Arc<Issuer>| issuer.compiled.issuer.url == parsed.issuer();
        let Some(issuer) = self.all.iter().find(of) else {
            return Outcome::Another;
        };
        let claims = match issuer.verified(&parsed).await {
            Ok(claims) => claims,
            Err(why) => return Outcome::Refused(format!("oidc: verify token: {why}")),
        };
        match issuer.compiled.user(&claims, now) {
            Ok(caller) => Outcome::Known(Known {
                caller,
                audiences: own_audiences,
            }),
            Err(why) => Outcome::Refused(why),
        }
    }
}

impl Issuer {
    async fn verified(self: &Arc<Self>, parsed: &Parsed<'_>) -> Result<Value, String> {
        let known = || by_one_of(&Arc::clone(&self.keys.read()), parsed);
        if let Some(claims) = known() {
            return Ok(claims);
        }
        let mut fetched = Arc::clone(&self.fetched).lock_owned().await;
        // Somebody else may have got them meanwhile.
        if let Some(claims) = known() {
            return Ok(claims);
        }
        let failed =
            || "failed to verify signature: failed to verify id token signature".to_owned();
        if fetched.is_some_and(|at| at.elapsed() < FETCH_EVERY) {
            return Err(failed());
        }
        *fetched = Some(Instant::now());
        let issuer = Arc::clone(self);
        // It goes on when whoever asked goes away: he is a stranger, and others wait for the keys.
        let fetching = tokio::spawn(async move {
            let _held = fetched;
            match issuer.fetched().await {
                Ok(keys) => {
                    *issuer.keys.write() = Arc::new(keys);
                    Ok(())
                }
                Err(why) => {
                    let url = &issuer.compiled.issuer.url;
                    tracing::warn!(
                        issuer = url,
                        why,
                        "the keys of an issuer of tokens are not to be had"
                    );
                    Err(why)
                }
            }
        });
        let told = fetching.await.map_err(|error| error.to_string())?;
        told.map_err(|why| format!("fetching keys {why}"))?;
        known().ok_or_else(failed)
    }

    /// A place of the issuer's, met by the authority that is configured for it.
    fn endpoint(&self, url: &str) -> Result<Endpoint, String> {
        let authority = self.compiled.issuer.certificate_authority.as_bytes();
        Endpoint::of_url(url, (!authority.is_empty()).then(|| authority.to_vec()))
    }

    async fn document(&self, url: &str) -> Result<Value, String> {
        let bytes = fetch(&self.endpoint(url)?, FETCH_TIMEOUT).await?;
        serde_json::from_slice(&bytes).map_err(|error| error.to_string())
    }

    /// What the issuer says of itself.
    async fn configuration(&self) -> Result<Value, String> {
        let issuer = &self.compiled.issuer;
        let configuration = match issuer.discovery_url.as_str() {
            "" => {
                let url = issuer.url.trim_end_matches('/');
                format!("{url}/.well-known/openid-configuration")
            }
            url => url.to_owned(),
        };
        let told = self.document(&configuration).await?;
        // Where else it is told, it has to be of whom it says.
        if told["issuer"] != issuer.url.as_str() {
            return Err(format!(
                "oidc: issuer did not match the issuer returned by provider, expected {:?} got {}",
                issuer.url, told["issuer"]
            ));
        }
        Ok(told)
    }

    async fn fetched(&self) -> Result<Keys, String> {
        let told = self.configuration().await?;
        let keys = told["jwks_uri"].as_str().unwrap_or("");
        let keys = self.document(keys).await?;
        let keys = keys["keys"].as_array().into_iter().flatten().take(KEYS_MAX);
        let keys = keys.filter_map(|key| {
            let kid = key["kid"].as_str().unwrap_or("").to_owned();
            Some((kid, PublicKey::of(key)?))
        });
        Ok(keys.collect())
    }
}

/// The claims, if one of the keys signed them that may have.
fn by_one_of(keys: &Keys, parsed: &Parsed<'_>) -> Option<Value> {
    let kid = parsed.kid();
    let fitting = keys
        .iter()
        .filter(|(own, _)| kid.is_empty() || own.is_empty() || own == kid);
    fitting
        .filter_map(|(_, key)| parsed.verified_by(key))
        .next()
}
