//! How others find who issues tokens of ServiceAccounts here, and the keys to check them with: OpenID Connect, as far as programs need it
//! that take such tokens. Both may be kept for an hour. And how administrators change those keys:
//!
//! ```text
//! GET    /weft/v1/signing-keys        all of them, and which one signs
//! POST   /weft/v1/signing-keys        a further one, which signs in an hour
//! DELETE /weft/v1/signing-keys/KEY    no token that it signed is good any more
//! ```
//!
//! Left to others: who may ask (`crate::authz`), what is told (`crate::issuer`), the keys (`crate::signing_keys`).

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get};
use http::{HeaderValue, header};
use serde_json::{Value, json};
use weft_api::status::StatusError;

use super::AppState;
use super::error::ApiError;
use crate::issuer::{CONFIGURATION_PATH, KEYS_PATH, key_set};
use crate::signing_keys::{SigningKey, SigningKeyError};

/// Where administrators see and change the keys of tokens.
pub const SIGNING_KEYS_PATH: &str = "/weft/v1/signing-keys";

pub(super) fn routes() -> Router<AppState> {
    Router::new()
        .route(CONFIGURATION_PATH, get(configuration))
        .route(KEYS_PATH, get(public_keys))
        .route(SIGNING_KEYS_PATH, get(listed).post(rotate))
        .route("/weft/v1/signing-keys/{kid}", delete(remove))
}

/// As long as a key is told before it signs.
const CACHE_CONTROL: HeaderValue = HeaderValue::from_static("public, max-age=3600");

fn answer(value: &Value, media_type: &'static str) -> Response {
    let mut response = value.to_string().into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(header::CACHE_CONTROL, CACHE_CONTROL);
    response
}

fn failed(error: SigningKeyError) -> ApiError {
    ApiError(match error {
        SigningKeyError::TooMany | SigningKeyError::InUse => {
            StatusError::conflict_message(error.to_string())
        }
        error => StatusError::internal(error),
    })
}

async fn configuration(State(state): State<AppState>) -> Response {
    let issuer = state.objects.issuer();
    answer(&issuer.configuration(), "application/json")
}

async fn public_keys(State(state): State<AppState>) -> Result<Response, ApiError> {
    let keys = state.objects.signing_keys().present().await;
    Ok(answer(
        &key_set(&keys.map_err(failed)?),
        "application/jwk-set+json",
    ))
}

/// The keys as administrators see them.
async fn shown(state: &AppState, keys: &[Arc<SigningKey>]) -> Result<Response, ApiError> {
    let signing = state.objects.signing_keys();
    let signer = signing.signer(state.objects.now()).await.map_err(failed)?;
    let shown = keys.iter().map(|key| {
        json!({
            "kid": key.kid(), "created": key.created().to_string(), "signs": key.kid() == signer.kid(),
        })
    });
    let shown: Vec<Value> = shown.collect();
    Ok(axum::Json(json!({"keys": shown})).into_response())
}

async fn listed(State(state): State<AppState>) -> Result<Response, ApiError> {
    let keys = state.objects.signing_keys().present().await;
    shown(&state, &keys.map_err(failed)?).await
}

async fn rotate(State(state): State<AppState>) -> Result<Response, ApiError> {
    let keys = state.objects.signing_keys().rotate().await;
    shown(&state, &keys.map_err(failed)?).await
}

async fn remove(
    State(state): State<AppState>,
    Path(kid): Path<String>,
) -> Result<Response, ApiError> {
    let signing = state.objects.signing_keys();
    let now = state.objects.now();
    if !signing.remove(&kid, now).await.map_err(failed)? {
        return Err(ApiError(StatusError::unknown_path()));
    }
    let left = signing.all(&state.objects.store().snapshot());
    shown(&state, &left).await
}
