//! The cluster's authorities, for nodes that trust them and for administrators who let one follow the other:
//!
//! ```text
//! GET    /weft/v1/roots               all that are trusted, the one that signs first
//! POST   /weft/v1/roots               another follows, and signs from now on
//! DELETE /weft/v1/roots/ID            an older one is forgotten; ?force=true: whoever proves himself by it still
//! ```
//! A node says in an annotation of its Node which authority all of its certificates are of. As long as one that is known says another, the older
//! authorities are not forgotten, unless that is insisted on.
//!
//! Left to others: who may ask (`crate::authz`), the authorities (`crate::roots`).

use axum::Router;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get};
use serde::Deserialize;
use serde_json::json;
use weft_api::annotation;
use weft_api::status::StatusError;
use weft_kinds::NODE;
use weft_kinds::lens::text;

use super::AppState;
use super::error::ApiError;
use crate::authz::ROOTS_PATH;
use crate::caller::Caller;
use crate::objects::ListOptions;
use crate::roots::{RootError, Roots};

/// Nodes that are named in a refusal.
const TOLD_MAX: usize = 5;

#[derive(Deserialize)]
struct Options {
    #[serde(default)]
    force: bool,
}

pub(super) fn routes() -> Router<AppState> {
    Router::new()
        .route(ROOTS_PATH, get(listed).post(rotate))
        .route("/weft/v1/roots/{id}", delete(remove))
}

fn failed(error: RootError) -> ApiError {
    ApiError(match error {
        RootError::TooMany | RootError::Signs | RootError::Raced => {
            StatusError::conflict_message(error.to_string())
        }
        error => StatusError::internal(error),
    })
}

fn roots(state: &AppState) -> Result<Roots, ApiError> {
    let roots = state.objects.roots();
    roots.ok_or_else(|| ApiError(StatusError::unknown_path()))
}

fn shown(roots: &Roots) -> Response {
    axum::Json(json!({"roots": roots.authority().named()})).into_response()
}

async fn listed(State(state): State<AppState>) -> Result<Response, ApiError> {
    Ok(shown(&roots(&state)?))
}

async fn rotate(State(state): State<AppState>) -> Result<Response, ApiError> {
    let roots = roots(&state)?;
    roots.rotate().await.map_err(failed)?;
    Ok(shown(&roots))
}

async fn remove(
    State(state): State<AppState>,
    Path(id): Path<String>,
    Query(options): Query<Options>,
) -> Result<Response, ApiError> {
    let roots = roots(&state)?;
    if !options.force {
        let named = roots.authority().named();
        let signs = named.iter().find(|root| root.signs);
        let behind = behind(&state, signs.map_or("", |root| root.id.as_str())).await?;
        if !behind.is_empty() {
            let told = behind.get(..TOLD_MAX).unwrap_or(&behind).join(", ");
            let why = format!(
                "{} of the nodes prove themselves by an older authority still ({told}): wait a minute, or insist with --force, \
                 after which these have to join anew",
                behind.len()
            );
            return Err(ApiError(StatusError::conflict_message(why)));
        }
    }
    if !roots.remove(&id).await.map_err(failed)? {
        return Err(ApiError(StatusError::unknown_path()));
    }
    Ok(shown(&roots))
}

/// The nodes some of whose certificates are of another authority than `signs`, as far as they say so.
async fn behind(state: &AppState, signs: &str) -> Result<Vec<String>, ApiError> {
    let caller = Caller::system("apiserver", None);
    let client = state.objects.client(&caller);
    let listed = client.list(&NODE, None, &ListOptions::default()).await;
    let nodes = listed.map_err(ApiError)?.items.into_iter();
    let behind = nodes.map(|node| node.value()).filter(|node| {
        let annotations = &node["metadata"]["annotations"];
        // Others that are told as nodes have no certificates of this authority.
        annotations[annotation::MESH_ADDRESS].is_string()
            && annotations[annotation::ROOT].as_str() != Some(signs)
    });
    Ok(behind
        .map(|node| text(&node, "/metadata/name").to_owned())
        .collect())
}
