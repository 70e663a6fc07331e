//! `pods/NAME/exec`, `…/attach` and `…/portforward`: a request whose connection becomes several streams between its client and a container.
//!
//! ```text
//! client ══ WebSocket (channels) ═╗                              ╔═ frames of weft_call::stream_frame ══ node: a command, a look at one
//! client ══ SPDY/3.1 ═════════════╬══ options ─ admission ─ pod ═╣
//! client ══ SPDY in WebSocket ════╝                              ╚═ bytes, a connection each ══════════ node: a port
//! ```
//!
//! What can be refused is refused before the connection is promised. A client of the newest form is told by its channel of errors what becomes of the node,
//! all others by the answer: so they are in Kubernetes.
//!
//! Invariants: sessions are bounded in number ([`SESSIONS_MAX`]), and each in memory; a session ends with its client, its node or this server, and after
//! [`idle::IDLE_MAX`] without a word; who may only read may not open one. Left to others: who may read (`crate::authz`), what runs (`weft_agent`).

mod channels;
mod idle;
mod node;
mod options;
mod ports;
mod remote;
mod tunnel;
mod wire;

use std::sync::Arc;

use axum::body::Body;
use axum::extract::FromRequestParts as _;
use axum::extract::Request;
use axum::extract::ws::{WebSocket, WebSocketUpgrade};
use axum::response::{IntoResponse as _, Response};
use http::{HeaderValue, Method, StatusCode, header};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::task::task_tracker::TaskTrackerToken;
use weft_api::status::StatusError;
use weft_kinds::lens::text;
use weft_kinds::{POD, Subresource};

use self::options::Wanted;
use self::ports::Pod;
use self::wire::{Refusal, Version, Wire};
use super::AppState;
use super::error::ApiError;
use super::proxy::{NodeClient, NodeStream, find_node};
use crate::audit::Open;
use crate::authz::{Access, Authorized};
use crate::caller::Caller;
use crate::request::ObjectRef;

pub(crate) use self::options::container as choose_container;

/// Sessions at one time; each has two connections, some tasks and at most a megabyte.
const SESSIONS_MAX: usize = 2048;
/// Longest message of a client: what a server of Kubernetes takes.
const MESSAGE_BYTES_MAX: usize = 32 << 20;

/// Places for sessions.
#[derive(Clone)]
pub struct Sessions(Arc<Semaphore>);

impl Default for Sessions {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(SESSIONS_MAX)))
    }
}

/// What of a request's record is written once its session is over: it goes with the answer, to be filled ([`Lasts::keep`]), and with the session.
#[derive(Clone, Default)]
pub(super) struct Lasts(Arc<Mutex<Option<Open>>>);

impl Lasts {
    /// Has the record end with the session.
    pub(super) fn keep(self, open: Open) {
        *self.0.lock() = Some(open);
    }
}

/// A command, or a look at one, that a node is asked for.
struct Session {
    wanted: Wanted,
    nodes: NodeClient,
    object: Arc<Value>,
    /// The node's name.
    node: String,
    path: String,
    /// What is told to have failed when the node goes.
    doing: &'static str,
}

impl Session {
    async fn open(&self) -> Result<NodeStream, StatusError> {
        let opened = self.nodes.stream(&self.object, &self.path).await;
        opened.map_err(|error| node::undialled(&self.node, &error))
    }
}

/// What goes with a session to its end, and is let go of there.
struct Held {
    _place: OwnedSemaphorePermit,
    _task: TaskTrackerToken,
    _record: Lasts,
}

/// Answers a request for streams.
///
/// # Errors
/// 400, 403, 404, 405 in Kubernetes' words; 429 where there are too many; 500 for a node that is out of reach.
pub(super) async fn serve(
    state: &AppState,
    asked: &Authorized,
    object: ObjectRef<'_>,
    subresource: Subresource,
    request: Request,
) -> Result<Response, StatusError> {
    if !matches!(*request.method(), Method::GET | Method::POST) {
        return Err(StatusError::method_not_allowed());
    }
    let params = asked.request().params()?;
    if !params.dry_run().is_ok_and(|tries| !tries) {
        return Err(StatusError::bad_request("dryRun is not supported"));
    }
    let options = options::of_query(subresource, params)?;
    let kind = text(&options, "/kind").to_owned();
    let options = state
        .objects
        .admit_connect(asked, object, &kind, options)
        .await?;
    let options = options::admitted(options);
    may_create(state, asked)?;
    let reader = Caller::system("apiserver", None);
    let reader = state.objects.client(&reader);
    let pod = reader.get(&POD, object.namespace, object.name).await?;
    let pod = pod.object();
    let pod = pod.as_value();
    let container = text(&options, "/container");
    let container = match subresource {
        Subresource::PortForward => "",
        _ => options::container(pod, container)?,
    };
    let node = options::node(pod)?.to_owned();
    let object = find_node(state, &node).await?;
    let wire = match subresource {
        Subresource::PortForward => Wire::of_ports(request.headers()),
        _ => Wire::of_command(request.headers()),
    };
    let wire = match wire {
        Ok(wire) => wire,
        Err(refusal) => return Ok(refused(refusal)),
    };
    let place = Arc::clone(&state.sessions.0).try_acquire_owned();
    let place = place.map_err(|_| {
        StatusError::too_many_requests("too many sessions are open, please try again later", 5)
    })?;
    let record = Lasts::default();
    let held = Held {
        _place: place,
        _task: state.answers.token(),
        _record: record.clone(),
    };
    let nodes = state.nodes.clone();
    let mut response = if subresource == Subresource::PortForward {
        let name = |pointer: &str| text(pod, pointer).to_owned();
        let pod = Pod {
            nodes,
            node: object,
            node_name: node,
            namespace: name("/metadata/namespace"),
            name: name("/metadata/name"),
            uid: name("/metadata/uid"),
        };
        forward(state, wire, pod, &options, request, held).await?
    } else {
        let wanted = Wanted::of(&options)?;
        let session = Session {
            wanted,
            nodes,
            object,
            node,
            path: options::node_path(subresource, pod, container, &options, wanted),
            doing: match subresource {
                Subresource::Exec => "error executing command in container",
                _ => "error attaching to container",
            },
        };
        command(state, wire, session, request, held).await?
    };
    response.extensions_mut().insert(record);
    Ok(response)
}

/// A GET is allowed by `get`, and opens what only `create` gives.
fn may_create(state: &AppState, asked: &Authorized) -> Result<(), StatusError> {
    let Some(access) = asked.access().filter(|access| access.verb != "create") else {
        return Ok(());
    };
    let creates = Access {
        verb: "create",
        ..access
    };
    let decision = state.objects.authorizer().decide(asked.caller(), &creates);
    match decision.allowed {
        true => Ok(()),
        false => Err(StatusError::forbidden(
            access.resource,
            access.group,
            access.name.unwrap_or(""),
            &decision.reason,
        )),
    }
}

fn refused(refusal: Refusal) -> Response {
    let mut response = ApiError(refusal.status).into_response();
    for accepted in refusal.accepted {
        let accepted = HeaderValue::from_static(accepted);
        response
            .headers_mut()
            .append(wire::ACCEPTED_VERSIONS, accepted);
    }
    response
}

async fn command(
    state: &AppState,
    wire: Wire,
    session: Session,
    request: Request,
    held: Held,
) -> Result<Response, StatusError> {
    match wire {
        Wire::Channels {
            protocol,
            is_base64,
            version,
        } => {
            // Those before it are told by the answer that there is no node.
            let node = match version {
                Version::V5 => None,
                _ => Some(session.open().await?),
            };
            let form = channels::Form { is_base64, version };
            socket(state, request, protocol, held, move |socket| {
                channels::serve(socket, form, session, node)
            })
            .await
        }
        Wire::Spdy { protocol, version } => {
            let node = session.open().await?;
            spdy(state, request, protocol, held, move |io| {
                remote::serve(io, version, session, node)
            })
        }
        Wire::Tunnel { .. } => Err(StatusError::bad_request("Upgrade request required")),
    }
}

async fn forward(
    state: &AppState,
    wire: Wire,
    pod: Pod,
    options: &Value,
    request: Request,
    held: Held,
) -> Result<Response, StatusError> {
    // A node that is not there is told at once, and not at the first connection.
    let opened = pod.nodes.open(&pod.node).await;
    drop(opened.map_err(|error| node::unreached(&pod.node_name, &error))?);
    let pod = Arc::new(pod);
    match wire {
        Wire::Spdy { protocol, .. } => spdy(state, request, protocol, held, move |io| {
            ports::spdy(io, pod)
        }),
        Wire::Tunnel { protocol } => {
            let serve = move |socket| ports::spdy(tunnel::Tunnel::new(socket), pod);
            socket(state, request, Some(protocol), held, serve).await
        }
        Wire::Channels {
            protocol,
            is_base64,
            ..
        } => {
            let ports = options::ports(options)?;
            let serve = move |socket| ports::channels(socket, is_base64, ports, pod);
            socket(state, request, protocol, held, serve).await
        }
    }
}

/// Agrees to SPDY.
fn spdy<F: Future<Output = ()> + Send + 'static>(
    state: &AppState,
    mut request: Request,
    protocol: &'static str,
    held: Held,
    serve: impl FnOnce(TokioIo<hyper::upgrade::Upgraded>) -> F + Send + 'static,
) -> Result<Response, StatusError> {
    let upgrade = hyper::upgrade::on(&mut request);
    let closing = state.closing.clone();
    let serving = async move {
        match upgrade.await {
            Ok(upgraded) => serve(TokioIo::new(upgraded)).await,
            Err(error) => tracing::debug!(%error, "a connection did not become what it should"),
        }
    };
    state.answers.spawn(async move {
        closing.run_until_cancelled(serving).await;
        drop(held);
    });
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("SPDY/3.1"));
    headers.insert(wire::PROTOCOL_VERSION, HeaderValue::from_static(protocol));
    Ok(response)
}

/// Agrees to a WebSocket.
async fn socket<F: Future<Output = ()> + Send + 'static>(
    state: &AppState,
    request: Request,
    protocol: Option<String>,
    held: Held,
    serve: impl FnOnce(WebSocket) -> F + Send + 'static,
) -> Result<Response, StatusError> {
    let (mut parts, _) = request.into_parts();
    let upgrade = WebSocketUpgrade::from_request_parts(&mut parts, &()).await;
    let upgrade = upgrade.map_err(|refused| StatusError::bad_request(refused.body_text()))?;
    let closing = state.closing.clone();
    Ok(upgrade
        .protocols(protocol)
        .max_message_size(MESSAGE_BYTES_MAX)
        .max_frame_size(MESSAGE_BYTES_MAX)
        .on_upgrade(move |socket| async move {
            closing.run_until_cancelled(serve(socket)).await;
            drop(held);
        }))
}

/// How a session ended, for those who are not told by a Status; none where it ended well.
fn told_in_words(status: &Value) -> Option<String> {
    match text(status, "/status") {
        "Success" => None,
        _ => Some(text(status, "/message").to_owned()),
    }
}
