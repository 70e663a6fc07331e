//! Signing in by another issuer: the browser goes there, and comes back with a code.
//!
//! ```text
//! GET /dashboard/oidc/N          303 to the issuer, with a state, a nonce and the digest of a verifier; all three are in a cookie of ten minutes
//! GET /dashboard/oidc/callback   the code for a token, that for a session; 303 to the page, or to its place for what went wrong
//! ```
//! Invariants: a code counts only in the browser that was sent for it, and once; the token has to have its nonce. Left to others: the issuer
//! (`crate::authn::oidc::code_flow`).

use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderValue, StatusCode, header};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use weft_api::status::StatusError;

use super::{Answered, Asked, moved, new_session};
use crate::authn::oidc::code_flow::Ask;
use crate::authn::sessions::{By, Credential};
use crate::http::AppState;

/// Before the number of an issuer.
pub(super) const PATH: &str = "oidc/";
const CALLBACK: &str = "oidc/callback";
/// Holds what the way there and back has to agree on. The way back begins elsewhere, so it is not as strict as a session's.
const COOKIE: &str = "__Host-weft-oidc";
const ATTRIBUTES: &str = "Path=/; Secure; HttpOnly; SameSite=Lax";
const WAY_SECONDS: u32 = 600;

/// Whether a name below `/dashboard/` is served here.
pub(super) fn serves(name: &str) -> bool {
    name.starts_with(PATH)
}

pub(super) async fn answer(state: &AppState, asked: &Asked, name: &str) -> Answered {
    if name != CALLBACK {
        let number = name
            .strip_prefix(PATH)
            .and_then(|number| number.parse().ok());
        let number = number.ok_or_else(StatusError::unknown_path)?;
        return Ok((None, leave(state, asked, number).await?));
    }
    let mut answered = match come_back(state, asked).await {
        Ok((caller, mut response)) => {
            *response.status_mut() = StatusCode::SEE_OTHER;
            let page = HeaderValue::from_static("/dashboard/");
            response.headers_mut().insert(header::LOCATION, page);
            (caller, response)
        }
        // A person looks at it: the page tells it.
        Err(why) => {
            let why: String = form_urlencoded::byte_serialize(why.as_bytes()).collect();
            let place = format!("/dashboard/#signin={why}");
            (None, moved(&place, StatusCode::SEE_OTHER)?)
        }
    };
    let gone = HeaderValue::from_str(&format!("{COOKIE}=; Max-Age=0; {ATTRIBUTES}"));
    let gone = gone.map_err(StatusError::internal)?;
    answered.1.headers_mut().append(header::SET_COOKIE, gone);
    Ok(answered)
}

/// Where the issuer has the browser come back to.
fn redirect_uri(asked: &Asked) -> Option<String> {
    let host = asked.headers().get(header::HOST);
    let host = host.and_then(|host| host.to_str().ok());
    let authority = asked
        .head
        .uri
        .authority()
        .map(|authority| authority.as_str());
    let host = authority.or(host)?;
    Some(format!("https://{host}/dashboard/{CALLBACK}"))
}

fn digest(text: &str) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(text))
}

async fn leave(state: &AppState, asked: &Asked, number: usize) -> Result<Response, StatusError> {
    let random = || URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>());
    let (token, verifier) = (random(), random());
    let back = redirect_uri(asked)
        .ok_or_else(|| StatusError::bad_request("the request says of no host that it is for"))?;
    let ask = Ask {
        redirect_uri: &back,
        state: &token,
        nonce: &digest(&token),
        challenge: &digest(&verifier),
    };
    let issuers = state.authenticator.issuers();
    let place = issuers.authorization(number, &ask).await.map_err(|why| {
        StatusError::unavailable(format!("the issuer of tokens cannot be asked: {why}"))
    })?;
    let mut response = moved(&place, StatusCode::SEE_OTHER)?;
    let held = format!("{COOKIE}={number}.{token}.{verifier}; Max-Age={WAY_SECONDS}; {ATTRIBUTES}");
    let mut held = HeaderValue::from_str(&held).map_err(StatusError::internal)?;
    held.set_sensitive(true);
    response.headers_mut().append(header::SET_COOKIE, held);
    Ok(response)
}

async fn come_back(
    state: &AppState,
    asked: &Asked,
) -> Result<(Option<crate::caller::Caller>, Response), String> {
    let query = asked.head.uri.query().unwrap_or_default();
    let said = |wanted: &str| {
        let mut pairs = form_urlencoded::parse(query.as_bytes());
        let pair = pairs.find(|(name, _)| name == wanted);
        pair.map(|(_, value)| value.into_owned())
    };
    let lines = asked.headers().get_all(header::COOKIE).iter();
    let mut pairs = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b';'));
    let held = pairs.find_map(|pair| {
        let pair = std::str::from_utf8(pair).ok()?;
        pair.trim().strip_prefix(COOKIE)?.strip_prefix('=')
    });
    let mut held = held.unwrap_or_default().splitn(3, '.');
    let number = held.next().and_then(|number| number.parse().ok());
    let (Some(number), Some(token), Some(verifier)) = (number, held.next(), held.next()) else {
        return Err(
            "this browser was not sent there, or ten minutes ago: sign in again".to_owned(),
        );
    };
    let told = said("state").unwrap_or_default();
    if !bool::from(told.as_bytes().ct_eq(token.as_bytes())) {
        return Err("what the issuer sent is of another attempt: sign in again".to_owned());
    }
    let Some(code) = said("code") else {
        let why = said("error_description").or_else(|| said("error"));
        return Err(why.unwrap_or_else(|| "the issuer sent no code".to_owned()));
    };
    let back = redirect_uri(asked).unwrap_or_default();
    let issuers = state.authenticator.issuers();
    let identity = issuers.exchange(number, &code, verifier, &back).await;
    let identity = identity.map_err(|why| format!("the issuer gave no token: {why}"))?;
    let nonce = digest(token);
    if claim(&identity, "nonce").as_deref() != Some(nonce.as_str()) {
        return Err("the token is of another attempt: sign in again".to_owned());
    }
    // Whether it is signed, and by whom, is judged there.
    let begun = new_session(state, asked, By::Oidc, Credential::Token(identity), None).await;
    begun.map_err(|error| error.message)
}

/// What a token claims, be it signed or not.
fn claim(token: &str, name: &str) -> Option<String> {
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    let claims: Value = serde_json::from_slice(&claims).ok()?;
    claims[name].as_str().map(str::to_owned)
}
