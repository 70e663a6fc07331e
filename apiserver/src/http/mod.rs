//! The HTTP face: who calls, what is asked, which verb answers.
//!
//! A request passes the [`front`]: what it asks is decoded ([`crate::request`]), who asks is found out, whether that is allowed is
//! decided, it takes a place ([`priority`]) and gets a [`deadline`]; only then is anything of its body read. Behind the
//! front is one of: health and version; OpenAPI; the OCI registry; weft's own paths; or [`resource`], which calls one
//! verb of [`Objects`].
//!
//! Invariants: every handler behind the front has an [`Authorized`], and no other proof of what it may do; every
//! refusal is a `metav1.Status`; requests in flight, their bodies and answers are bounded in number and time, bodies in size too,
//! and whoever has no credentials cannot take a place from those who have. Left to others: sockets and TLS
//! (`crate::server`), what depends on the object (`crate::objects`).

mod components;
mod deadline;
pub mod discovery;
mod drain;
mod encoding;
pub mod error;
mod health;
mod large;
mod list;
pub mod logs;
mod metrics;
pub mod negotiate;
pub mod openapi;
mod priority;
pub mod proxy;
pub mod registry;
pub mod resource;
mod reviews;
pub mod servers;
pub mod table;
mod usage;
mod watch;
pub(crate) mod websocket;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Extension, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use weft_api::status::StatusError;

use self::encoding::Encodings;
use self::error::ApiError;
use self::large::{Heavy, LargeBodies};
use self::priority::{Level, Places};
use crate::authn::{Authenticator, PeerAddress, PeerCertificates};
use crate::authz::{self, Authorized};
use crate::objects::{Objects, REWRAP_PATH};
use crate::request::{Asked, RequestInfo};
use crate::turns::Bulk;

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
    /// Answers on their way to slow readers.
    pub(crate) answers: TaskTracker,
    places: Arc<Places>,
    large_bodies: LargeBodies,
    documents: openapi::Documents,
    sockets: websocket::Sockets,
    metrics: metrics::Metrics,
    /// The gate of lists and of connections that write much.
    pub(crate) bulk: Bulk,
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
            answers: TaskTracker::new(),
            places: Arc::default(),
            large_bodies: LargeBodies::default(),
            documents: openapi::Documents::default(),
            sockets: websocket::Sockets::default(),
            metrics: metrics::Metrics::default(),
            bulk: Bulk::default(),
        }
    }
}

/// The whole face as one service.
pub fn router(state: AppState) -> Router {
    let inner = Router::new()
        .route("/version", get(version))
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/healthz/{*check}", get(healthz))
        .route("/livez", get(healthz))
        .route("/livez/{*check}", get(healthz))
        .route("/readyz", get(readyz))
        .route("/readyz/{*check}", get(readyz))
        .route(REWRAP_PATH, post(rewrap))
        .merge(openapi::routes())
        .merge(servers::routes())
        .method_not_allowed_fallback(not_allowed)
        // Refuses in the words of its own protocol.
        .merge(registry::routes())
        .fallback(resource::dispatch)
        .with_state(state.clone());
    // The outer router matches nothing, so that the front sees, and may rewrite, every path before routing.
    Router::new()
        .fallback_service(inner)
        .layer(middleware::from_fn_with_state(state, front))
}

/// What every request passes first, in this order: decode, authenticate, authorise, place, deadline.
async fn front(State(state): State<AppState>, mut request: Request, next: Next) -> Response {
    let began = Instant::now();
    let audit_id = audit_id(request.headers());
    let encodings = Encodings::of(request.headers());
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let info = Arc::new(info_of(&state, method, uri).await);
    let encodings = match info.params() {
        Ok(params) => encodings.with(params),
        Err(_) => encodings,
    };
    strip_trailing_slash(&info, &mut request);
    // A proxied body flows while its answer does; every other handler is done with it when it answers.
    let (request, rest) = if info.proxied() {
        (request, None)
    } else {
        let (parts, body) = request.into_parts();
        let (body, rest) = drain::split(body);
        (Request::from_parts(parts, body), Some(rest))
    };
    let mut response = match judge_and_serve(&state, &info, &encodings, request, next).await {
        Ok(response) => response,
        Err(error) => encodings.recode(ApiError(error).into_response()).await,
    };
    let took = (!info.long_running()).then(|| began.elapsed());
    state.metrics.count(&info, response.status(), took);
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

/// What a request asks. One that may name a kind of a user's that this server has not heard of yet, is decoded by the newest state there is.
async fn info_of(state: &AppState, method: Method, uri: Uri) -> RequestInfo {
    let decode = |registry: &weft_kinds::Registry| RequestInfo::of(registry, &method, &uri);
    let info = decode(&state.objects.registry());
    if !info.may_name_a_new_kind() {
        return info;
    }
    match state.objects.newest_registry().await {
        Ok(registry) => decode(&registry),
        // It is answered by what is known here.
        Err(_) => info,
    }
}

/// Everything that is judged by the head of a request, and the handler once all of it was passed.
async fn judge_and_serve(
    state: &AppState,
    info: &Arc<RequestInfo>,
    encodings: &Encodings,
    mut request: Request,
    next: Next,
) -> Result<Response, StatusError> {
    let began = Instant::now();
    refuse_impersonation(request.headers())?;
    let peer = request
        .extensions()
        .get::<PeerCertificates>()
        .cloned()
        .unwrap_or_else(PeerCertificates::none);
    let address = request.extensions().get::<PeerAddress>();
    let address = address.map(|PeerAddress(address)| *address);
    let caller = state
        .authenticator
        .authenticate(request.headers(), &peer)
        .await?
        .at_address(address);
    let asked = authz::authorize(caller, Arc::clone(info))?;
    let user = asked.caller().user().to_owned();
    let level = Level::of(asked.caller(), info);
    request.extensions_mut().insert(asked);
    let heavy = Heavy::default();
    request.extensions_mut().insert(heavy.clone());
    if info.long_running() {
        let response = encodings.recode(next.run(request).await).await;
        return Ok(trace_answer(info, &user, response));
    }
    let end = began + deadline::of(info.params()?)?;
    let answer = async {
        let place = state.places.take(level, &user, info.writes()).await?;
        let response = heavy.run(next.run(request)).await;
        Ok((encodings.recode(response).await, place))
    };
    let (response, place) = tokio::time::timeout_at(end, answer).await.map_err(|_| {
        StatusError::timeout("Timeout: request did not complete within the allotted timeout")
    })??;
    let response = trace_answer(info, &user, response);
    Ok(deadline::hold(response, place, end, &state.answers))
}

fn trace_answer(info: &RequestInfo, user: &str, response: Response) -> Response {
    let status = response.status().as_u16();
    tracing::debug!(verb = info.verb, asked = ?info.asked, user, status, "answered");
    response
}

/// Ignoring these headers would answer with the rights of whoever asks, not of whom they name.
fn refuse_impersonation(headers: &HeaderMap) -> Result<(), StatusError> {
    let impersonates = headers
        .keys()
        .any(|name| name.as_str().starts_with("impersonate-"));
    if impersonates {
        return Err(StatusError::bad_request(
            "impersonation is not served: send the request without Impersonate-* headers",
        ));
    }
    Ok(())
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
fn strip_trailing_slash(info: &RequestInfo, request: &mut Request) {
    let path = request.uri().path();
    if path.len() < 2
        || !path.ends_with('/')
        || info.proxied()
        || matches!(info.asked, Asked::Registry)
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

async fn metrics(State(state): State<AppState>) -> Response {
    state.metrics.respond()
}

async fn not_allowed() -> ApiError {
    ApiError(StatusError::method_not_allowed())
}

async fn version() -> Response {
    axum::Json(discovery::version()).into_response()
}

/// All Secrets under a new key. Answers when they are.
async fn rewrap(
    State(state): State<AppState>,
    Extension(asked): Extension<Authorized>,
) -> Result<Response, ApiError> {
    Ok(axum::Json(state.objects.rewrap(&asked).await?).into_response())
}

async fn healthz(uri: Uri) -> Response {
    health::answer(&uri, &[("ping", true)])
}

async fn readyz(State(state): State<AppState>, uri: Uri) -> Response {
    let led = state.objects.store().leader().borrow().is_some();
    let open = !state.closing.is_cancelled();
    let checks = [("ping", true), ("store", led), ("shutdown", open)];
    health::answer(&uri, &checks)
}
