//! Request authentication: where a request has its token, whose tokens are taken, and what has to hold of one that was proven.
//!
//! A request without a token passes, and has no principal; one with a token that is not right is refused, whatever policies say. Whether the
//! token was signed by a key of its issuer is not seen here.
//!
//! Invariants: nothing longer than [`TOKEN_BYTES_MAX`] is looked at; a token is judged by the rule of its issuer, so that keys of one issuer
//! prove nothing of another; time is handed in.
//! Source of the sentences: what Envoy answers (`jwt_verify_lib`).

use http::HeaderMap;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::spec::{Place, or_default};

/// Longest token that is looked at, as longest credential of all.
pub const TOKEN_BYTES_MAX: usize = 8 << 10;
/// By how much clocks may differ.
const SKEW_SECONDS: i64 = 60;
/// Where a token is looked for if its rule says nothing.
const PARAMETER: &str = "access_token";
const BEARER: &str = "Bearer ";
/// Claims whose text is a list of words.
const WORDS: [&str; 2] = ["scope", "permission"];

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct RequestAuthenticationSpec {
    #[serde(flatten)]
    pub(crate) place: Place,
    #[serde(deserialize_with = "or_default")]
    pub(crate) jwt_rules: Vec<Issuer>,
}

/// Whose tokens are taken, and how.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Issuer {
    pub issuer: String,
    #[serde(deserialize_with = "or_default")]
    pub audiences: Vec<String>,
    /// Where its keys are.
    #[serde(alias = "jwks_uri")]
    pub jwks_uri: Option<String>,
    /// Its keys.
    pub jwks: Option<String>,
    #[serde(deserialize_with = "or_default")]
    pub from_headers: Vec<HeaderPlace>,
    #[serde(deserialize_with = "or_default")]
    pub from_params: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    pub from_cookies: Vec<String>,
    pub output_payload_to_header: Option<String>,
    #[serde(deserialize_with = "or_default")]
    pub forward_original_token: bool,
    #[serde(deserialize_with = "or_default")]
    pub output_claim_to_headers: Vec<ClaimHeader>,
    #[serde(deserialize_with = "or_default")]
    pub space_delimited_claims: Vec<String>,
}

/// A line that has a token.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct HeaderPlace {
    pub name: String,
    #[serde(deserialize_with = "or_default")]
    pub prefix: String,
}

/// A line that a workload is told a claim in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ClaimHeader {
    pub header: String,
    pub claim: String,
}

/// A token that a request has, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    pub token: String,
    /// The line that it is in, where it is in one: it goes no further unless its rule says so.
    pub line: Option<String>,
}

/// Why a token is not taken: Envoy's sentence for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenFault {
    Form,
    Header,
    Payload,
    Signature,
    Algorithm,
    Issuer,
    Audience,
    Expired,
    NotYet,
    NoKeys,
    NoKey,
    NotProven,
}

impl TokenFault {
    /// What the client is told.
    #[must_use]
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::Form => {
                "Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections"
            }
            Self::Header => "Jwt header is an invalid JSON",
            Self::Payload => "Jwt payload is an invalid JSON",
            Self::Signature => "Jwt signature is an invalid Base64url encoded",
            Self::Algorithm => "Jwt header [alg] is not supported",
            Self::Issuer => "Jwt issuer is not configured",
            Self::Audience => "Audiences in Jwt are not allowed",
            Self::Expired => "Jwt is expired",
            Self::NotYet => "Jwt not yet valid",
            Self::NoKeys => "Jwks remote fetch is failed",
            Self::NoKey => "Jwks doesn't have key to match kid or alg from Jwt",
            Self::NotProven => "Jwt verification fails",
        }
    }
}

/// What a token says, once it is proven.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Claims(Map<String, Value>);

impl Claims {
    #[must_use]
    pub fn new(payload: Map<String, Value>) -> Self {
        Self(payload)
    }

    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.as_str()
    }

    /// Who the request says it is made for: `ISSUER/SUBJECT`.
    #[must_use]
    pub fn principal(&self) -> Option<String> {
        Some(format!("{}/{}", self.text("iss")?, self.text("sub")?))
    }

    pub(crate) fn at(&self, path: &[String]) -> Option<&Value> {
        let (first, rest) = path.split_first()?;
        let mut found = self.0.get(first)?;
        for name in rest {
            found = found.as_object()?.get(name)?;
        }
        Some(found)
    }
}

impl Issuer {
    /// The token that the request has for this rule.
    #[must_use]
    pub fn find(&self, headers: &HeaderMap, query: Option<&str>) -> Option<Taken> {
        let says_where = !(self.from_headers.is_empty()
            && self.from_params.is_empty()
            && self.from_cookies.is_empty());
        if !says_where {
            return in_line(headers, "authorization", BEARER)
                .or_else(|| in_query(query, PARAMETER));
        }
        let mut lines = self.from_headers.iter();
        lines
            .find_map(|place| in_line(headers, &place.name, &place.prefix))
            .or_else(|| {
                self.from_params
                    .iter()
                    .find_map(|name| in_query(query, name))
            })
            .or_else(|| {
                self.from_cookies
                    .iter()
                    .find_map(|name| in_cookie(headers, name))
            })
    }

    /// What has to hold of the claims of a token of this issuer, at a time in seconds since the epoch.
    ///
    /// # Errors
    /// The first of it that does not.
    pub fn check(&self, payload: Map<String, Value>, now: i64) -> Result<Claims, TokenFault> {
        let time = |name: &str| match payload.get(name) {
            None => Ok(None),
            Some(value) => match value
                .as_i64()
                .or_else(|| value.as_f64().map(|it| it as i64))
            {
                Some(seconds) => Ok(Some(seconds)),
                None => Err(TokenFault::Payload),
            },
        };
        let (not_before, expires) = (time("nbf")?, time("exp")?);
        if payload.get("iss").and_then(Value::as_str) != Some(&*self.issuer) {
            return Err(TokenFault::Issuer);
        }
        if not_before.is_some_and(|from| now.saturating_add(SKEW_SECONDS) < from) {
            return Err(TokenFault::NotYet);
        }
        if expires.is_some_and(|until| now > until.saturating_add(SKEW_SECONDS)) {
            return Err(TokenFault::Expired);
        }
        if !self.audiences.is_empty() {
            let found = payload.get("aud").map(texts).unwrap_or_default();
            if !found.iter().any(|one| self.is_audience(one)) {
                return Err(TokenFault::Audience);
            }
        }
        Ok(self.normalised(payload))
    }

    /// A scheme and a slash at the end make no other audience.
    fn is_audience(&self, found: &str) -> bool {
        let plain = |text: &str| {
            let text = text
                .strip_prefix("https://")
                .or(text.strip_prefix("http://"))
                .unwrap_or(text);
            text.strip_suffix('/').unwrap_or(text).to_owned()
        };
        let mut wanted = self.audiences.iter();
        wanted.any(|wanted| plain(wanted) == plain(found))
    }

    /// Texts that are lists of words become lists.
    fn normalised(&self, mut payload: Map<String, Value>) -> Claims {
        let more = self.space_delimited_claims.iter().map(String::as_str);
        for claim in WORDS.into_iter().chain(more) {
            let mut at = Some(&mut payload);
            let mut path = claim.split('.').peekable();
            while let (Some(here), Some(name)) = (at.take(), path.next()) {
                if path.peek().is_some() {
                    at = here.get_mut(name).and_then(Value::as_object_mut);
                } else if let Some(Value::String(text)) = here.get(name) {
                    let words = text.split(' ').map(|word| Value::String(word.to_owned()));
                    let words: Vec<Value> = words.collect();
                    here.insert(name.to_owned(), Value::Array(words));
                }
            }
        }
        Claims(payload)
    }

    /// Lines with claims that the workload is told, of those that are texts, numbers or truth.
    #[must_use]
    pub fn told(&self, claims: &Claims) -> Vec<(String, String)> {
        let told = self.output_claim_to_headers.iter().filter_map(|told| {
            let path: Vec<String> = told.claim.split('.').map(str::to_owned).collect();
            let text = match claims.at(&path)? {
                Value::String(text) => text.clone(),
                Value::Bool(_) | Value::Number(_) => claims.at(&path)?.to_string(),
                _ => return None,
            };
            Some((told.header.to_ascii_lowercase(), text))
        });
        told.collect()
    }

    /// Lines that only a proven token writes: what a request brings of them is taken off.
    pub fn lines(&self) -> impl Iterator<Item = &str> {
        let claims = self.output_claim_to_headers.iter();
        let claims = claims.map(|told| told.header.as_str());
        claims.chain(self.output_payload_to_header.as_deref())
    }

    pub(crate) fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let mut fault = |is: bool, sentence: &str| {
            if is {
                faults.push(sentence.to_owned());
            }
        };
        let uri = self.jwks_uri.as_deref().unwrap_or_default();
        let keys = self.jwks.as_deref().unwrap_or_default();
        fault(self.issuer.is_empty(), "issuer must be non-empty string");
        fault(
            self.audiences.iter().any(String::is_empty),
            "audience must be non-empty string",
        );
        fault(
            !uri.is_empty() && !keys.is_empty(),
            "only one of jwks or jwksUri can be set",
        );
        fault(
            uri.is_empty() && keys.is_empty(),
            "one of jwks or jwksUri must be set: keys are not looked for at the issuer",
        );
        fault(
            !uri.is_empty() && !uri.starts_with("https://") && !uri.starts_with("http://"),
            "jwksUri must have scheme http:// or https://",
        );
        let set = serde_json::from_str::<Value>(keys);
        let is_set = set.is_ok_and(|set| set["keys"].is_array());
        fault(
            !keys.is_empty() && !is_set,
            "jwks parse error: it is no JSON Web Key Set",
        );
        fault(
            self.from_headers.iter().any(|place| place.name.is_empty()),
            "location header name must be non-empty string",
        );
        fault(
            self.from_params.iter().any(String::is_empty),
            "location query must be non-empty string",
        );
        fault(
            self.from_cookies.iter().any(String::is_empty),
            "cookie name must be non-empty string",
        );
        let mut told = self.output_claim_to_headers.iter();
        fault(
            told.any(|told| told.header.is_empty() || told.claim.is_empty()),
            "outputClaimToHeaders header and claim value must be non-empty string",
        );
        faults
    }
}

fn texts(value: &Value) -> Vec<&str> {
    match value {
        Value::String(text) => vec![text],
        Value::Array(all) => all.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

/// The token in a line, behind a prefix, up to what cannot be of one.
fn in_line(headers: &HeaderMap, name: &str, prefix: &str) -> Option<Taken> {
    let lines = headers.get_all(name).iter();
    let mut lines = lines.filter_map(|line| line.to_str().ok());
    let token = lines.find_map(|line| {
        let at = line.find(prefix)?;
        let rest = line.get(at + prefix.len()..)?.trim();
        let end = rest.find(|one: char| !(one.is_ascii_alphanumeric() || "-_.=+/".contains(one)));
        let token = rest.get(..end.unwrap_or(rest.len()))?;
        (!token.is_empty()).then(|| token.to_owned())
    })?;
    Some(Taken {
        token,
        line: Some(name.to_ascii_lowercase()),
    })
}

fn in_query(query: Option<&str>, name: &str) -> Option<Taken> {
    let mut pairs = query?.split('&').filter_map(|pair| pair.split_once('='));
    let (_, token) = pairs.find(|(found, token)| *found == name && !token.is_empty())?;
    Some(Taken {
        token: token.to_owned(),
        line: None,
    })
}

fn in_cookie(headers: &HeaderMap, name: &str) -> Option<Taken> {
    let lines = headers.get_all("cookie").iter();
    let lines = lines.filter_map(|line| line.to_str().ok());
    let mut pairs = lines
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='));
    let (_, token) = pairs.find(|(found, token)| *found == name && !token.is_empty())?;
    Some(Taken {
        token: token.trim_matches('"').to_owned(),
        line: None,
    })
}
