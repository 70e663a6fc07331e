//! The HTTP face: who calls, what is asked, which verb answers.
//!
//! A request passes the front (audit id, limits, authentication), then one of: health, version and discovery;
//! OpenAPI; the OCI registry; or a resource path, which [`resource`] decodes from the table of kinds into one
//! verb of [`Objects`].
//!
//! Invariants: every handler behind the front has a [`Caller`]; every refusal is a `metav1.Status`; bodies and
//! requests in flight are bounded. Left to others: sockets and TLS (`crate::server`).

pub mod discovery;
mod drain;
pub mod error;
pub mod logs;
pub mod negotiate;
pub mod openapi;
pub mod proxy;
pub mod registry;
pub mod resource;
mod reviews;
pub mod servers;
pub mod table;
mod usage;
mod watch;

use std::fmt::Write as _;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Extension, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use weft_api::status::StatusError;

use self::error::ApiError;
use crate::authn::{Authenticator, PeerCertificates};
use crate::authz;
use crate::caller::Caller;
use crate::objects::{Objects, REWRAP_PATH};

/// Reads in flight, as Kubernetes' `--max-requests-inflight`.
const READS_MAX: usize = 400;
/// Writes in flight, as Kubernetes' `--max-mutating-requests-inflight`.
const WRITES_MAX: usize = 200;
const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");
/// Longest audit id taken over from a client.
const AUDIT_ID_BYTES_MAX: usize = 64;

/// What handlers work with. Cheap to clone.
#[derive(Clone)]
pub struct AppState {
    pub(crate) objects: Objects,
    pub(crate) authenticator: Authenticator,
    pub(crate) registry: registry::Registry,
    pub(crate) nodes: proxy::NodeClient,
    pub(crate) meter: Arc<usage::Meter>,
    pub(crate) servers: servers::Servers,
    /// Cancelled when the server begins to close: watches end then.
    pub(crate) closing: CancellationToken,
    limits: Arc<Limits>,
}

struct Limits {
    reads: Semaphore,
    writes: Semaphore,
}

impl AppState {
    pub fn new(
        objects: Objects,
        authenticator: Authenticator,
        registry: registry::Registry,
        nodes: proxy::NodeClient,
        servers: servers::Servers,
        closing: CancellationToken,
    ) -> Self {
        Self {
            objects,
            authenticator,
            registry,
            nodes,
            meter: Arc::default(),
            servers,
            closing,
            limits: Arc::new(Limits {
                reads: Semaphore::new(READS_MAX),
                writes: Semaphore::new(WRITES_MAX),
            }),
        }
    }
}

/// The whole face as one service.
pub fn router(state: AppState) -> Router {
    let inner = Router::new()
        .route("/version", get(version))
        .route("/healthz", get(healthz))
        .route("/healthz/{*check}", get(healthz))
        .route("/livez", get(healthz))
        .route("/livez/{*check}", get(healthz))
        .route("/readyz", get(readyz))
        .route("/readyz/{*check}", get(readyz))
        .route(REWRAP_PATH, post(rewrap))
        .merge(openapi::routes())
        .merge(registry::routes())
        .merge(servers::routes())
        .fallback(resource::dispatch)
        .with_state(state.clone());
    // The outer router matches nothing, so that the front sees, and may rewrite, every path before routing.
    Router::new()
        .fallback_service(inner)
        .layer(middleware::from_fn_with_state(state, front))
}

/// What every request passes first.
async fn front(State(state): State<AppState>, mut request: Request, next: Next) -> Response {
    let audit_id = audit_id(request.headers());
    strip_trailing_slash(&mut request);
    // A proxied body flows while its answer does; every other handler is done with it when it answers.
    let proxied = is_proxied(request.uri().path());
    let (mut request, rest) = if proxied {
        (request, None)
    } else {
        let (parts, body) = request.into_parts();
        let (body, rest) = drain::split(body);
        (Request::from_parts(parts, body), Some(rest))
    };
    let mut response = match admit(&state, &mut request).await {
        Ok(_permit) => {
            let method = request.method().clone();
            let path = request.uri().path().to_owned();
            let response = next.run(request).await;
            tracing::debug!(%method, path, status = response.status().as_u16(), "answered");
            response
        }
        Err(error) => ApiError(error).into_response(),
    };
    if let Some(rest) = rest {
        rest.drain().await;
    }
    let headers = response.headers_mut();
    headers.insert(AUDIT_ID, audit_id);
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-cache, private"));
    response
}

/// Authenticates the request and takes its place among those in flight.
async fn admit<'a>(
    state: &'a AppState,
    request: &mut Request,
) -> Result<Option<tokio::sync::SemaphorePermit<'a>>, StatusError> {
    // Ignoring these would answer with the rights of whoever asks, not of whom they name.
    let impersonates = request
        .headers()
        .keys()
        .any(|name| name.as_str().starts_with("impersonate-"));
    if impersonates {
        return Err(StatusError::bad_request(
            "impersonation is not served: send the request without Impersonate-* headers",
        ));
    }
    let limits = match *request.method() {
        Method::GET | Method::HEAD | Method::OPTIONS => &state.limits.reads,
        _ => &state.limits.writes,
    };
    let permit = if is_long_running(request) {
        None
    } else {
        Some(limits.try_acquire().map_err(|_| {
            StatusError::too_many_requests("too many requests, please try again later", 1)
        })?)
    };
    let peer = request
        .extensions()
        .get::<PeerCertificates>()
        .cloned()
        .unwrap_or_else(PeerCertificates::none);
    let caller = state
        .authenticator
        .authenticate(request.headers(), &peer)
        .await?;
    request.extensions_mut().insert(caller);
    Ok(permit)
}

/// Streams that stay open for as long as the client likes do not count as in flight.
fn is_long_running(request: &Request) -> bool {
    let path = request.uri().path();
    let watches = request
        .uri()
        .query()
        .is_some_and(|query| query.contains("watch=") || query.contains("follow="));
    watches || path.starts_with("/v2/") || is_proxied(path)
}

fn is_proxied(path: &str) -> bool {
    path.contains("/proxy/") || path.ends_with("/proxy")
}

fn audit_id(headers: &HeaderMap) -> HeaderValue {
    headers
        .get(&AUDIT_ID)
        .filter(|given| given.len() <= AUDIT_ID_BYTES_MAX)
        .cloned()
        .or_else(|| HeaderValue::from_str(&uuid::Uuid::new_v4().to_string()).ok())
        .unwrap_or(HeaderValue::from_static("unknown"))
}

/// Some clients end paths with a slash (`/api/`); the registry's and proxied paths are not ours to change.
fn strip_trailing_slash(request: &mut Request) {
    let path = request.uri().path();
    if path.len() < 2 || !path.ends_with('/') || path.starts_with("/v2") || path.contains("/proxy/")
    {
        return;
    }
    let mut rewritten = path.trim_end_matches('/').to_owned();
    if let Some(query) = request.uri().query() {
        rewritten.push('?');
        rewritten.push_str(query);
    }
    let mut parts = request.uri().clone().into_parts();
    parts.path_and_query = PathAndQuery::try_from(rewritten).ok();
    if let Ok(uri) = Uri::from_parts(parts) {
        *request.uri_mut() = uri;
    }
}

async fn version(Extension(caller): Extension<Caller>) -> Result<Response, ApiError> {
    authz::authorize_path(&caller, "get", "/version")?;
    Ok(axum::Json(discovery::version()).into_response())
}

/// All Secrets under a new key. Answers when they are.
async fn rewrap(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
) -> Result<Response, ApiError> {
    Ok(axum::Json(state.objects.rewrap(&caller).await?).into_response())
}

async fn healthz(Extension(caller): Extension<Caller>, uri: Uri) -> Result<Response, ApiError> {
    authz::authorize_path(&caller, "get", uri.path())?;
    Ok(health(&uri, &[("ping", true)]))
}

async fn readyz(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    uri: Uri,
) -> Result<Response, ApiError> {
    authz::authorize_path(&caller, "get", uri.path())?;
    let led = state.objects.store().leader().borrow().is_some();
    let open = !state.closing.is_cancelled();
    let checks = [("ping", true), ("store", led), ("shutdown", open)];
    Ok(health(&uri, &checks))
}

/// `ok`, or which check failed; `?verbose` lists all of them.
fn health(uri: &Uri, checks: &[(&str, bool)]) -> Response {
    let mut parts = uri.path().trim_matches('/').splitn(2, '/');
    let endpoint = parts.next().unwrap_or("");
    let one = parts.next();
    let chosen: Vec<_> = checks
        .iter()
        .filter(|(name, _)| one.is_none_or(|one| one == *name))
        .collect();
    if chosen.is_empty() {
        return ApiError(StatusError::unknown_path()).into_response();
    }
    let healthy = chosen.iter().all(|(_, good)| *good);
    let verbose = uri.query().is_some_and(|query| query.contains("verbose"));
    let mut text = String::new();
    if verbose || !healthy {
        for (name, good) in chosen {
            // Writing to a String cannot fail.
            let _ = if *good {
                writeln!(text, "[+]{name} ok")
            } else {
                writeln!(text, "[-]{name} failed")
            };
        }
        let outcome = if healthy { "passed" } else { "failed" };
        let _ = writeln!(text, "{endpoint} check {outcome}");
    } else {
        text.push_str("ok");
    }
    let mut response = Response::new(Body::from(text));
    if !healthy {
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    }
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    response
}
