//! The HTTP face: who calls, what is asked, which verb answers.
//!
//! A request passes the [`front`]: what it asks is decoded ([`crate::request`]), who asks is found out, whether that is allowed is
//! decided, it takes seats of its level ([`crate::flow_control`]) and gets a [`deadline`]; only then is anything of its body read. Behind the
//! front is one of: health and version; OpenAPI; the OCI registry; weft's own paths; or [`resource`], which calls one
//! verb of [`Objects`].
//!
//! Beside the front is the [`dashboard`], which is no part of the API.
//!
//! Invariants: every handler behind the front has an [`Authorized`], and no other proof of what it may do; every
//! refusal is a `metav1.Status`; requests in flight, their bodies and answers are bounded in number and time, bodies in size too,
//! and whoever has no credentials cannot take a place from those who have. Left to others: sockets and TLS
//! (`crate::server`), what depends on the object (`crate::objects`).

mod activations;
mod aggregated;
pub mod calls;
mod components;
mod dashboard;
mod deadline;
pub mod discovery;
mod drain;
mod edges;
mod encoding;
pub mod error;
mod forward;
pub mod health;
mod large;
mod links;
mod list;
pub mod logs;
mod metrics;
pub mod negotiate;
pub mod openapi;
mod openid;
pub(crate) mod origin;
mod proxied;
pub mod proxy;
pub mod registry;
pub mod resource;
mod reviews;
mod roots;
pub mod servers;
mod streams;
pub mod table;
pub mod usage;
mod watch;
pub(crate) mod websocket;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Extension, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header};
use http_body_util::BodyExt as _;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use weft_api::status::StatusError;

use self::encoding::{Answer, Encodings, GATHERED_BYTES_MAX};
use self::error::ApiError;
use self::large::{Heavy, LargeBodies};
use crate::aggregation::Registered;
use crate::audit::policy::Stage;
use crate::audit::{self, Audit, Open, Trail};
use crate::authn::{Authenticator, PeerAddress, PeerCertificates};
use crate::authz::Authorized;
use crate::caller::GROUP_MASTERS;
use crate::flow_control::{self, Ask, FlowControl};
use crate::impersonation;
use crate::objects::{Objects, REWRAP_PATH};
use crate::request::{Asked, RequestInfo};
use crate::turns::Bulk;

pub use self::openid::SIGNING_KEYS_PATH;

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
    pub(crate) calls: Arc<calls::CallMeter>,
    pub(crate) graph: Arc<edges::Graph>,
    pub(crate) servers: servers::Servers,
    /// Cancelled when the server begins to close: watches end then.
    pub(crate) closing: CancellationToken,
    /// Answers on their way to slow readers.
    pub(crate) answers: TaskTracker,
    pub(crate) audit: Option<Audit>,
    pub(crate) flow_control: FlowControl,
    pub(crate) started: health::Started,
    large_bodies: LargeBodies,
    documents: openapi::Documents,
    sockets: websocket::Sockets,
    upgrades: forward::Upgrades,
    sessions: streams::Sessions,
    metrics: metrics::Metrics,
    sign_ins: dashboard::SignIns,
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
            calls: Arc::default(),
            graph: Arc::default(),
            servers,
            closing,
            answers: TaskTracker::new(),
            audit: None,
            flow_control: FlowControl::default(),
            started: health::Started::default(),
            large_bodies: LargeBodies::default(),
            documents: openapi::Documents::default(),
            sockets: websocket::Sockets::default(),
            upgrades: forward::Upgrades::default(),
            sessions: streams::Sessions::default(),
            metrics: metrics::Metrics::default(),
            sign_ins: dashboard::SignIns::default(),
            bulk: Bulk::default(),
        }
    }

    /// The same, which is not ready before somebody says so.
    #[must_use]
    pub fn starting(self) -> Self {
        let started = health::Started::not_yet();
        Self { started, ..self }
    }

    /// To say that what has to be there first is there.
    pub fn started(&self) -> health::Started {
        self.started.clone()
    }

    /// The same, with requests written down.
    #[must_use]
    pub fn audited(self, audit: Option<Audit>) -> Self {
        Self { audit, ..self }
    }

    /// Asks nodes for the edges of their calls, and for what is used and for traces while somebody looks at those, until `stop`.
    pub fn collect_edges(&self, stop: CancellationToken) -> impl Future<Output = ()> + use<> {
        let (graph, objects) = (self.graph.clone(), self.objects.clone());
        let edges = edges::collect::run(graph, objects, self.nodes.clone(), stop.clone());
        let usage = edges::collect::usage(self.clone(), stop.clone());
        let traces = edges::traces::run(self.clone(), stop);
        async move {
            tokio::join!(edges, usage, traces);
        }
    }

    /// What orders requests here; it follows the store where somebody has it do so ([`FlowControl::follow`]).
    pub fn flow_control(&self) -> FlowControl {
        self.flow_control.clone()
    }
}

/// The whole face as one service.
pub fn router(state: AppState) -> Router {
    let inner = Router::new()
        .route("/version", get(version))
        .route("/metrics", get(metrics))
        .route(flow_control::LEVELS_PATH, get(flow_levels))
        .route(flow_control::QUEUES_PATH, get(flow_queues))
        .route("/healthz", get(healthz))
        .route("/healthz/{*check}", get(healthz))
        .route("/livez", get(healthz))
        .route("/livez/{*check}", get(healthz))
        .route("/readyz", get(readyz))
        .route("/readyz/{*check}", get(readyz))
        .route(REWRAP_PATH, post(rewrap))
        .merge(openapi::routes())
        .merge(openid::routes())
        .merge(roots::routes())
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

/// What every request but those of the dashboard passes first, in this order: decode, authenticate, write down, act for another, authorise, seats, deadline.
async fn front(State(state): State<AppState>, mut request: Request, next: Next) -> Response {
    // It is for those, too, who have yet to say who they are.
    if dashboard::serves(request.uri().path()) {
        return dashboard::answer(&state, request).await;
    }
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
    let mut open = Open::default();
    let mut ask = None;
    let found = (&audit_id, &mut open, &mut ask);
    let served = judge_and_serve(&state, &info, &encodings, request, next, found);
    let mut response = match served.await {
        Ok(response) => response,
        Err(error) => {
            let refused = noted(open.trail(), ApiError(error).into_response()).await;
            encodings.recode(refused).await
        }
    };
    response = ended(open, &info, response).await;
    let took = (!info.long_running()).then(|| began.elapsed());
    state.metrics.count(&info, response.status(), took);
    if let Some(rest) = rest {
        rest.drain().await;
    }
    let headers = response.headers_mut();
    if let Some(ask) = ask {
        ask.mark(headers);
    }
    headers.insert(AUDIT_ID, audit_id);
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-cache, private"));
    response
}

/// What a request asks. One that may name a kind of a user's, or a group of another server's, that this server has not heard of yet, is decoded by
/// the newest state there is.
async fn info_of(state: &AppState, method: Method, uri: Uri) -> RequestInfo {
    let objects = &state.objects;
    // What others serve is theirs, even where this server could.
    let aggregated = |services: &Registered| RequestInfo::of_aggregated(services, &method, &uri);
    if let Some(info) = aggregated(&objects.api_services()) {
        return info;
    }
    let decode = |registry: &weft_kinds::Registry| RequestInfo::of(registry, &method, &uri);
    let info = decode(&objects.registry());
    if !info.may_name_a_new_kind() {
        return info;
    }
    match objects.newest_registry().await {
        Ok(registry) => aggregated(&objects.api_services()).unwrap_or_else(|| decode(&registry)),
        // It is answered by what is known here.
        Err(_) => info,
    }
}

/// Everything that is judged by the head of a request, and the handler once all of it was passed. What it is found to be is noted: what is
/// written down of it, and by which FlowSchema it was served.
async fn judge_and_serve(
    state: &AppState,
    info: &Arc<RequestInfo>,
    encodings: &Encodings,
    mut request: Request,
    next: Next,
    (audit_id, open, ask): (&HeaderValue, &mut Open, &mut Option<Ask>),
) -> Result<Response, StatusError> {
    let began = Instant::now();
    let peer = request
        .extensions()
        .get::<PeerCertificates>()
        .cloned()
        .unwrap_or_else(PeerCertificates::none);
    let address = request.extensions().get::<PeerAddress>();
    let address = address.map(|PeerAddress(address)| *address);
    let head = (request.method(), request.uri(), request.headers());
    let authenticated = state.authenticator.authenticate(head, &peer);
    let authenticated = authenticated.await.map(|caller| caller.at_address(address));
    if let Some(audit) = &state.audit {
        let (uri, headers) = (request.uri().to_string(), request.headers());
        let caller = authenticated.as_ref().ok();
        let id = audit_id.to_str().unwrap_or("");
        *open = Open::new(audit.begin(caller, info, &uri, headers, id).await);
    }
    let trail = open.trail();
    let caller = authenticated?;
    let authorizer = state.objects.authorizer();
    if !caller.in_group(GROUP_MASTERS) || impersonation::is_asked(request.headers()) {
        authorizer.settle().await;
    }
    let poses = impersonation::is_asked(request.headers());
    let caller = impersonation::acting(authorizer, caller, info, request.headers())?;
    if let Some(trail) = trail.filter(|_| poses) {
        trail.acts_for(&caller);
    }
    let asked = authorizer.authorize(caller, Arc::clone(info));
    if let Some(trail) = trail {
        match &asked {
            Ok(asked) => trail.decided(true, asked.reason()),
            Err(error) => trail.decided(false, &error.message),
        }
        request.extensions_mut().insert(trail.clone());
    }
    let asked = asked?;
    let user = asked.caller().user().to_owned();
    // A watch needs its seats while it begins, and nothing else that stays open does.
    if !info.long_running() || info.verb == "watch" {
        let stored = || state.objects.known_count(info);
        *ask = state.flow_control.classify(asked.caller(), info, stored);
    }
    let seat = async {
        match ask.as_ref() {
            Some(ask) => state.flow_control.seat(ask).await.map(Some),
            None => Ok(None),
        }
    };
    request.extensions_mut().insert(asked);
    let heavy = Heavy::default();
    request.extensions_mut().insert(heavy.clone());
    if info.long_running() {
        let _seat = seat.await?;
        let served = audit::serving(trail.cloned(), next.run(request));
        let response = noted(trail, served.await).await;
        let response = encodings.recode(response).await;
        return Ok(trace_answer(info, &user, response));
    }
    let end = began + deadline::of(info.params()?)?;
    let answer = async {
        let seat = seat.await?;
        let served = audit::serving(trail.cloned(), next.run(request));
        let response = noted(trail, heavy.run(served).await).await;
        Ok((encodings.recode(response).await, seat))
    };
    let (response, seat) = tokio::time::timeout_at(end, answer).await.map_err(|_| {
        StatusError::timeout("Timeout: request did not complete within the allotted timeout")
    })??;
    let response = trace_answer(info, &user, response);
    Ok(deadline::hold(response, seat, end, &state.answers))
}

/// Notes an answer for the audit log: its code, a refusal's words, and the whole where that is asked for.
async fn noted(trail: Option<&Trail>, response: Response) -> Response {
    let Some(trail) = trail else {
        return response;
    };
    let status = response.status();
    trail.answered(status.as_u16());
    let whole = matches!(response.extensions().get(), Some(Answer::Whole));
    let failed = status.is_client_error() || status.is_server_error();
    if !whole || !(failed || trail.wants_answer()) {
        return response;
    }
    let (parts, body) = response.into_parts();
    match axum::body::to_bytes(body, GATHERED_BYTES_MAX).await {
        Ok(bytes) => {
            trail.answer(&bytes);
            Response::from_parts(parts, Body::from(bytes))
        }
        Err(error) => {
            tracing::debug!(%error, "an answer was too large to be written down");
            ApiError(StatusError::internal("the answer is too large")).into_response()
        }
    }
}

/// Writes down that a request was answered; of one that may stay open, that it began to be, and then that it is over.
async fn ended(open: Open, info: &RequestInfo, mut response: Response) -> Response {
    let Some(trail) = open.trail() else {
        return response;
    };
    if !info.long_running() {
        open.close().await;
        return response;
    }
    trail.write(Stage::ResponseStarted).await;
    if let Some(lasts) = response.extensions_mut().remove::<streams::Lasts>() {
        lasts.keep(open);
        return response;
    }
    response.map(|body| {
        Body::new(body.map_frame(move |frame| {
            // It goes with the body, when that is sent or given up.
            let _open = &open;
            frame
        }))
    })
}

fn trace_answer(info: &RequestInfo, user: &str, response: Response) -> Response {
    let status = response.status().as_u16();
    tracing::debug!(verb = info.verb, asked = ?info.asked, user, status, "answered");
    response
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
    let mut others = state.objects.aggregation().metrics();
    others.push_str(&state.flow_control.metrics());
    others.push_str(&state.graph.metrics());
    if let Some(audit) = &state.audit {
        others.push_str(&audit.metrics());
    }
    state.metrics.respond(&others)
}

async fn flow_levels(State(state): State<AppState>) -> String {
    state.flow_control.dump_levels()
}

async fn flow_queues(State(state): State<AppState>) -> String {
    state.flow_control.dump_queues()
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
    let checks = [
        ("ping", true),
        ("store", led),
        (
            "poststarthook/bootstrap-controller",
            state.started.is_told(),
        ),
        ("shutdown", open),
    ];
    health::answer(&uri, &checks)
}
