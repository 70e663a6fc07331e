//! `/podProxy/NAMESPACE/POD/UID/PORT/PATH`: a request of the API server to a component of this node.
//!
//! Servers are not in the mesh, and pods have no address outside of it. So a server asks the pod's node, over the mutual TLS of the node's port, and the
//! node makes the call in the server's name: to the workload that is attached at that port, through the mesh's own door, admitted, limited and measured
//! as any other. To the component its caller is `kube-apiserver` of `kube-system`, whoever has asked that; what it may read of whom that was stands in
//! headers of the server's (`X-Remote-User` and its kin, for servers of further APIs).
//!
//! Invariants: the pod is the one that was meant, by its uid; guests run on cores, and the call ends when the server lets go of it; a request that no
//! component has seen is answered with [`NOT_REACHED`], which no component can say. Left to others: who may (`crate::http`, `weft_apiserver`).

use crate::http::{Body, full, refusal};
use crate::node::Node;
use bytes::Bytes;
use futures::Stream;
use http::header::HeaderName;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::sync::{mpsc, oneshot};
use tokio_util::task::AbortOnDropHandle;
use weft_api::StatusError;
use weft_api::identity::SpiffeId;
use weft_mesh::{CallerInfo, Failure, FailureKind, PodAddress, WorkloadInfo};

/// By which the server is told that nobody has seen the request, and why.
const NOT_REACHED: HeaderName = HeaderName::from_static("x-weft-not-reached");
/// Parts of an answer on their way from a core to the connection.
const PARTS_MAX: usize = 4;
/// What paths of this kind begin with.
const ROOT: &str = "/podProxy/";

/// The server as a caller in the mesh.
pub(crate) fn api_server(trust_domain: &str) -> CallerInfo {
    const NAME: &str = "kube-apiserver";
    const NAMESPACE: &str = "kube-system";
    CallerInfo {
        identity: SpiffeId::new(trust_domain, NAMESPACE, NAME),
        workload: WorkloadInfo {
            name: NAME.to_owned(),
            namespace: NAMESPACE.to_owned(),
            app: NAME.to_owned(),
            version: String::new(),
            canonical_service: NAME.to_owned(),
            canonical_revision: "latest".to_owned(),
        },
    }
}

/// Whom a request is for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Target {
    namespace: String,
    pod: String,
    uid: String,
    port: u16,
    /// As it is for the component.
    path: PathAndQuery,
}

impl Target {
    /// None where the path is of another kind.
    pub(crate) fn of(uri: &Uri) -> Option<Self> {
        let rest = uri.path().strip_prefix(ROOT)?;
        let mut parts = rest.splitn(5, '/');
        let mut next = || parts.next().filter(|part| !part.is_empty());
        let (namespace, pod, uid) = (next()?, next()?, next()?);
        let port = next()?.parse().ok()?;
        let path = parts.next().unwrap_or("");
        let query = uri.query().map(|query| format!("?{query}"));
        let path = format!("/{path}{}", query.unwrap_or_default());
        Some(Self {
            namespace: namespace.to_owned(),
            pod: pod.to_owned(),
            uid: uid.to_owned(),
            port,
            path: path.parse().ok()?,
        })
    }
}

/// Has the component answer.
pub(crate) async fn serve(
    node: &Arc<Node>,
    target: Target,
    request: Request<Incoming>,
) -> Response<Body> {
    let Target {
        namespace,
        pod,
        uid,
        port,
        path,
    } = target;
    let record = node.registry.get(&namespace, &pod);
    let record = record.filter(|record| record.uid == uid);
    let Some(ip) = record.and_then(|record| record.ip) else {
        return not_reached("connect: no route to host");
    };
    let to = PodAddress { ip, port };
    let request = match towards(to, path, request) {
        Ok(request) => request,
        Err(error) => return refusal(&error),
    };
    match call(node, to, request).await {
        Ok(response) => response,
        Err(Some(failure)) => failed(&failure, to.into()),
        Err(None) => not_reached("the node shuts down"),
    }
}

/// Has the workload that is attached at `to` answer in a core's time; the call ends when nobody reads the answer any more.
///
/// # Errors
/// The mesh's failure; `None` when the node shuts down.
pub(crate) async fn call(
    node: &Arc<Node>,
    to: PodAddress,
    request: Request<weft_mesh::Body>,
) -> Result<Response<Body>, Option<Failure>> {
    let caller = node.api_server.clone();
    let (head, answered) = oneshot::channel();
    let (parts, received) = mpsc::channel(PARTS_MAX);
    let core = node.next_core.fetch_add(1, Ordering::Relaxed);
    // What comes of the call stays on its core; here is only waited for it.
    let calling = node.cores.spawn_on(core, async move {
        match caller.call_attached(to, request).await {
            Ok(response) => {
                let (told, mut body) = response.into_parts();
                if head.send(Ok(told)).is_err() {
                    return;
                }
                while let Some(frame) = body.frame().await {
                    let frame = frame.map_err(std::io::Error::other);
                    let failed = frame.is_err();
                    if parts.send(frame).await.is_err() || failed {
                        return;
                    }
                }
            }
            // Nobody may wait for it any more.
            Err(failure) => drop(head.send(Err(failure))),
        }
    });
    // Ends the call with the answer that nobody reads to its end.
    let calling = AbortOnDropHandle::new(calling);
    match answered.await {
        Ok(Ok(told)) => {
            let body = StreamBody::new(frames(received, calling)).boxed_unsync();
            Ok(Response::from_parts(told, body))
        }
        Ok(Err(failure)) => Err(Some(failure)),
        Err(_) => Err(None),
    }
}

/// The request as the mesh takes it.
pub(crate) fn towards(
    to: PodAddress,
    path: PathAndQuery,
    request: Request<Incoming>,
) -> Result<Request<weft_mesh::Body>, StatusError> {
    let (mut head, body) = request.into_parts();
    let host = head.headers.remove(header::HOST);
    let host = host.and_then(|host| host.to_str().ok()?.parse::<Authority>().ok());
    // HTTP/2 names it in the URI alone.
    let host = match host.or_else(|| head.uri.authority().cloned()) {
        Some(host) => host,
        None => SocketAddr::from(to)
            .to_string()
            .parse()
            .map_err(StatusError::internal)?,
    };
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(Scheme::HTTP);
    parts.authority = Some(host);
    parts.path_and_query = Some(path);
    let uri = Uri::from_parts(parts).map_err(StatusError::internal)?;
    let mut request = Request::new(weft_mesh::Body::new(body.map_err(Into::into)));
    *request.method_mut() = head.method;
    *request.uri_mut() = uri;
    *request.headers_mut() = head.headers;
    Ok(request)
}

fn frames(
    received: mpsc::Receiver<Result<Frame<Bytes>, std::io::Error>>,
    calling: AbortOnDropHandle<()>,
) -> impl Stream<Item = Result<Frame<Bytes>, std::io::Error>> + Send {
    futures::stream::unfold((received, calling), |(mut received, calling)| async move {
        let frame = received.recv().await?;
        Some((frame, (received, calling)))
    })
}

/// What the server makes of a call that came to nothing: nobody was there, or somebody failed.
fn failed(failure: &Failure, address: SocketAddr) -> Response<Body> {
    match failure.kind {
        FailureKind::NotHere | FailureKind::Unreachable => {
            not_reached(&format!("dial tcp {address}: connect: connection refused"))
        }
        _ => full(
            failure.status(),
            "text/plain; charset=utf-8",
            format!("{failure}\n"),
        ),
    }
}

fn not_reached(why: &str) -> Response<Body> {
    let mut response = full(StatusCode::BAD_GATEWAY, "text/plain", Bytes::new());
    let why = HeaderValue::from_str(why);
    let why = why.unwrap_or(HeaderValue::from_static("connect: no route to host"));
    response.headers_mut().insert(NOT_REACHED, why);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_says_whom_it_is_for() {
        for (uri, expected) in [
            (
                "/podProxy/shop/web-1/u-1/8080/a%2Fb//c/?x=1",
                Some((8080, "/a%2Fb//c/?x=1")),
            ),
            ("/podProxy/shop/web-1/u-1/80/", Some((80, "/"))),
            ("/podProxy/shop/web-1/u-1/80", Some((80, "/"))),
            ("/podProxy/shop/web-1/u-1/x/", None),
            ("/podProxy/shop/web-1/u-1/70000/", None),
            ("/podProxy/shop//u-1/80/", None),
            ("/podProxy/shop", None),
            ("/metrics", None),
        ] {
            let target = Target::of(&uri.parse().expect("a uri"));
            let found = target
                .as_ref()
                .map(|target| (target.port, target.path.as_str()));
            assert_eq!(found, expected, "{uri}");
        }
    }
}
