//! Tokens that requests bring: found, proven by a key of their issuer, and judged by its rule ([`weft_policy::Issuer`]).
//!
//! Invariants: claims come of a signature that holds; nothing longer than [`weft_policy::TOKEN_BYTES_MAX`] is decoded; a token that was proven
//! goes no further unless its rule says so; lines that only a proven token writes are taken off every request.

use std::{collections::BTreeMap, sync::Arc};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderName, HeaderValue, Request};
use serde_json::{Map, Value};
use weft_jws::{Parsed, PublicKey};
use weft_policy::{Claims, Issuer, TOKEN_BYTES_MAX, Taken, TokenFault};

use crate::Body;

/// Keys of a set that are looked at.
const KEYS_MAX: usize = 64;

/// The keys of an issuer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Keys(Vec<(Option<String>, PublicKey)>);

impl Keys {
    /// From a JSON Web Key Set (RFC 7517 §5). Keys that sign nothing here are left out, and so are those beyond 64. None where it is no such set.
    #[must_use]
    pub fn read(set: &str) -> Option<Self> {
        let set: Value = serde_json::from_str(set).ok()?;
        let keys = set["keys"].as_array()?.iter().take(KEYS_MAX);
        let keys = keys.filter_map(|key| {
            let name = key["kid"].as_str().map(str::to_owned);
            Some((name, PublicKey::of(key)?))
        });
        Some(Self(keys.collect()))
    }

    /// The payload, if one of them signed it: that of its name where it names one.
    fn prove(&self, parsed: &Parsed<'_>) -> Result<Map<String, Value>, TokenFault> {
        let kid = parsed.kid();
        let named = self.0.iter().filter(|(name, _)| match name {
            Some(name) => kid.is_empty() || name == kid,
            None => true,
        });
        let mut fault = TokenFault::NoKey;
        for (_, key) in named {
            if let Some(payload) = parsed.verified_by(key) {
                return Ok(payload);
            }
            fault = TokenFault::NotProven;
        }
        Err(fault)
    }
}

/// Keys by how policies tell of them.
pub(super) struct Known<'k> {
    pub(super) written: &'k BTreeMap<String, Arc<Keys>>,
    pub(super) fetched: &'k BTreeMap<String, Arc<Keys>>,
}

impl Known<'_> {
    fn of(&self, issuer: &Issuer) -> Option<&Arc<Keys>> {
        let (set, place) = (issuer.jwks.as_deref(), issuer.jwks_uri.as_deref());
        match set.filter(|set| !set.is_empty()) {
            Some(set) => self.written.get(set),
            None => self.fetched.get(place?),
        }
    }
}

/// Takes lines off that only a proven token writes; returns whether there are any such.
pub(super) fn strip<'g>(
    issuers: impl Iterator<Item = &'g Arc<Issuer>>,
    request: &mut Request<Body>,
) -> bool {
    let mut is_told = false;
    for name in issuers.flat_map(|issuer| issuer.lines()) {
        is_told = true;
        request.headers_mut().remove(name);
    }
    is_told
}

/// The claims of the token that a request has for one of the issuers; none where it has no token. The request, which was [stripped](strip), is
/// left as the workload is to have it.
pub(super) fn proven<'g>(
    issuers: impl Iterator<Item = &'g Arc<Issuer>>,
    keys: &Known<'_>,
    request: &mut Request<Body>,
    now: u64,
) -> Result<Option<Claims>, TokenFault> {
    let mut fault = None;
    for issuer in issuers {
        let Some(taken) = issuer.find(request.headers(), request.uri().query()) else {
            continue;
        };
        match prove(issuer, keys, &taken, now) {
            Ok(claims) => {
                tell(issuer, &claims, &taken, request);
                return Ok(Some(claims));
            }
            // Of several that look at the same place, the one whose token it is says what is wrong with it.
            Err(TokenFault::Issuer) if fault.is_some() => {}
            Err(found) => fault = Some(found),
        }
    }
    match fault {
        Some(fault) => Err(fault),
        None => Ok(None),
    }
}

fn prove(issuer: &Issuer, keys: &Known<'_>, taken: &Taken, now: u64) -> Result<Claims, TokenFault> {
    let token = &*taken.token;
    let parts = token.split('.').count();
    if parts != 3 || token.len() > TOKEN_BYTES_MAX {
        return Err(TokenFault::Form);
    }
    let parsed = Parsed::of(token).ok_or(TokenFault::Payload)?;
    if parsed.issuer() != issuer.issuer {
        return Err(TokenFault::Issuer);
    }
    if !weft_jws::is_known_algorithm(parsed.algorithm()) {
        return Err(TokenFault::Algorithm);
    }
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    // Times first, as Envoy has it: a client with an old token hears that it is old.
    let unproven: Map<String, Value> = parsed.unproven().ok_or(TokenFault::Payload)?;
    issuer.check(unproven, now)?;
    let keys = keys.of(issuer).ok_or(TokenFault::NoKeys)?;
    issuer.check(keys.prove(&parsed)?, now)
}

/// What the workload hears of a token that was proven.
fn tell(issuer: &Issuer, claims: &Claims, taken: &Taken, request: &mut Request<Body>) {
    let lines = request.headers_mut();
    if let Some(line) = &taken.line
        && !issuer.forward_original_token
    {
        lines.remove(line.as_str());
    }
    for (name, value) in issuer.told(claims) {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::from_str(&value)) {
            lines.append(name, value);
        }
    }
    if let Some(name) = &issuer.output_payload_to_header {
        let payload = taken.token.split('.').nth(1).unwrap_or_default();
        // As it was signed, in the form in which it is in the token.
        let is_sound = URL_SAFE_NO_PAD.decode(payload).is_ok();
        if let (Ok(name), Ok(value), true) = (
            HeaderName::try_from(name.to_ascii_lowercase()),
            HeaderValue::from_str(payload),
            is_sound,
        ) {
            lines.insert(name, value);
        }
    }
}
