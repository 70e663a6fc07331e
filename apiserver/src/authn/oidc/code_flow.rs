//! How a browser gets a token of another issuer: OpenID Connect's authorization code with PKCE (RFC 7636), of a client without a secret.
//!
//! The client is the first audience that the configuration names, as `kubectl`'s plug-ins take it. What comes of it is an identity token, which is
//! judged as any other.
//!
//! Invariants: an issuer is asked where it is no more than every [`KNOWN_FOR`], whoever comes; what it says is bounded in bytes and time; a code and
//! what it is exchanged with are never logged. Left to others: cookies and redirections (`crate::http::dashboard`).

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::Value;
use tokio::time::Instant;

use super::{FETCH_TIMEOUT, Issuer, Issuers};
use crate::webhook::post_form;

/// How long what an issuer says of itself is not asked again.
const KNOWN_FOR: Duration = Duration::from_secs(60);

/// What an issuer last said of itself, or why nothing, and when.
pub(super) type Known = Mutex<Option<(Instant, Result<Arc<Places>, String>)>>;

/// Where an issuer has browsers and servers ask.
#[derive(Debug)]
pub(super) struct Places {
    authorization: String,
    token: String,
}

/// What a browser is sent to an issuer with.
pub(crate) struct Ask<'a> {
    pub(crate) redirect_uri: &'a str,
    pub(crate) state: &'a str,
    pub(crate) nonce: &'a str,
    /// SHA-256 of the verifier, in base64url.
    pub(crate) challenge: &'a str,
}

impl Issuers {
    /// Those that browsers can be sent to, by their numbers.
    pub(crate) fn code_flows(&self) -> impl Iterator<Item = (usize, &str)> {
        let all = self.all.iter().enumerate();
        all.filter(|(_, issuer)| issuer.client().is_some())
            .map(|(number, issuer)| (number, issuer.compiled.issuer.url.as_str()))
    }

    fn numbered(&self, number: usize) -> Result<&Arc<Issuer>, String> {
        let issuer = self.all.get(number);
        issuer.ok_or_else(|| "there is no such issuer".to_owned())
    }

    /// Where a browser is sent.
    ///
    /// # Errors
    /// Why the issuer cannot be asked.
    pub(crate) async fn authorization(
        &self,
        number: usize,
        ask: &Ask<'_>,
    ) -> Result<String, String> {
        let issuer = self.numbered(number)?;
        let places = issuer.places().await?;
        let mut query = form_urlencoded::Serializer::new(String::new());
        for (name, value) in [
            ("response_type", "code"),
            ("client_id", issuer.client().unwrap_or_default()),
            ("scope", "openid profile email groups"),
            ("redirect_uri", ask.redirect_uri),
            ("state", ask.state),
            ("nonce", ask.nonce),
            ("code_challenge", ask.challenge),
            ("code_challenge_method", "S256"),
        ] {
            query.append_pair(name, value);
        }
        let glue = if places.authorization.contains('?') {
            '&'
        } else {
            '?'
        };
        Ok(format!("{}{glue}{}", places.authorization, query.finish()))
    }

    /// The identity token that a code is worth.
    ///
    /// # Errors
    /// What the issuer says to it, or why it says nothing.
    pub(crate) async fn exchange(
        &self,
        number: usize,
        code: &str,
        verifier: &str,
        redirect_uri: &str,
    ) -> Result<String, String> {
        let issuer = self.numbered(number)?;
        let places = issuer.places().await?;
        let form = [
            ("grant_type", "authorization_code"),
            ("client_id", issuer.client().unwrap_or_default()),
            ("code", code),
            ("code_verifier", verifier),
            ("redirect_uri", redirect_uri),
        ];
        let form = form_urlencoded::Serializer::new(String::new())
            .extend_pairs(form)
            .finish();
        let endpoint = issuer.endpoint(&places.token)?;
        let (status, answer) = post_form(&endpoint, form, FETCH_TIMEOUT).await?;
        let answer: Value = serde_json::from_slice(&answer).unwrap_or_default();
        match answer["id_token"].as_str() {
            Some(token) if status.is_success() => Ok(token.to_owned()),
            _ => {
                let why = answer["error_description"].as_str();
                let why = why.or(answer["error"].as_str());
                Err(why.map_or_else(|| format!("it answered {status}"), str::to_owned))
            }
        }
    }
}

impl Issuer {
    /// Who asks for tokens there.
    fn client(&self) -> Option<&str> {
        self.compiled.issuer.audiences.first().map(String::as_str)
    }

    async fn places(&self) -> Result<Arc<Places>, String> {
        if let Some((at, known)) = &*self.flow.lock()
            && at.elapsed() < KNOWN_FOR
        {
            return known.clone();
        }
        let told = self.configuration().await;
        let places = told.and_then(|told| {
            let place = |name: &str| {
                let url = told[name].as_str().unwrap_or_default();
                match url.starts_with("https://") {
                    true => Ok(url.to_owned()),
                    false => Err(format!("the issuer names no {name}")),
                }
            };
            Ok(Arc::new(Places {
                authorization: place("authorization_endpoint")?,
                token: place("token_endpoint")?,
            }))
        });
        *self.flow.lock() = Some((Instant::now(), places.clone()));
        places
    }
}
