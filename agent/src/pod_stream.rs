//! `/podStream/NAMESPACE/POD/UID/PORT`: a connection of the API server to a guest of this node that listens by `wasi:sockets`.
//!
//! What a server says to a component is HTTP, and goes by `pod_proxy`. A guest that listens speaks what it will, TLS in most cases: a webhook
//! proves by its own certificate that it is the one, and the server asks it to. The request is upgraded, and is the connection from then on.
//!
//! Invariants: the pod is the one that was meant, by its uid; where nobody listens the answer is 404, and the server may ask by `pod_proxy`.
//! Left to others: who may (`crate::http`, `weft_apiserver`).

use crate::http::{Body, full, refusal};
use crate::node::Node;
use crate::sockets::NODE;
use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, Uri, header};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use std::sync::Arc;
use weft_api::StatusError;
use weft_runtime::network::Via;

/// What paths of this kind begin with.
const ROOT: &str = "/podStream/";
/// What the request asks to go on as.
const PROTOCOL: HeaderValue = HeaderValue::from_static("weft-stream/1");

/// Whom a connection is for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Target {
    namespace: String,
    pod: String,
    uid: String,
    port: u16,
}

impl Target {
    /// None where the path is of another kind.
    pub(crate) fn of(uri: &Uri) -> Option<Self> {
        let rest = uri.path().strip_prefix(ROOT)?;
        let parts: Vec<&str> = rest.split('/').collect();
        let [namespace, pod, uid, port] = parts[..] else {
            return None;
        };
        if [namespace, pod, uid].contains(&"") {
            return None;
        }
        Some(Self {
            namespace: namespace.to_owned(),
            pod: pod.to_owned(),
            uid: uid.to_owned(),
            port: port.parse().ok()?,
        })
    }
}

/// Connects, and goes on as the connection.
pub(crate) fn serve(
    node: &Arc<Node>,
    target: &Target,
    request: Request<Incoming>,
) -> Response<Body> {
    if request.headers().get(header::UPGRADE) != Some(&PROTOCOL) {
        let told = "a connection is asked for by Upgrade: weft-stream/1";
        return refusal(&StatusError::bad_request(told));
    }
    let record = node.registry.get(&target.namespace, &target.pod);
    let is_meant = record.is_some_and(|record| record.uid == target.uid);
    let network = node.sockets().network(&target.uid).filter(|_| is_meant);
    let connected =
        network.and_then(|network| network.connect(NODE, Via::Address, target.port).ok());
    let Some(mut stream) = connected else {
        return refusal(&StatusError::unknown_path());
    };
    let upgrading = hyper::upgrade::on(request);
    node.sockets().tasks().spawn(async move {
        let passed = async {
            let upgraded = upgrading.await.map_err(std::io::Error::other)?;
            tokio::io::copy_bidirectional(&mut TokioIo::new(upgraded), &mut stream).await
        };
        if let Err(error) = passed.await {
            tracing::debug!(%error, "a server's connection to a pod ended");
        }
    });
    let mut response = full(StatusCode::SWITCHING_PROTOCOLS, "", Bytes::new());
    let headers = response.headers_mut();
    headers.remove(header::CONTENT_TYPE);
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, PROTOCOL);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_says_whom_it_is_for() {
        for (uri, expected) in [
            ("/podStream/shop/web-1/u-1/8443", Some(8443)),
            ("/podStream/shop/web-1/u-1/8443/", None),
            ("/podStream/shop/web-1/u-1/70000", None),
            ("/podStream/shop//u-1/80", None),
            ("/podStream/shop/web-1/80", None),
            ("/podProxy/shop/web-1/u-1/80", None),
        ] {
            let target = Target::of(&uri.parse().expect("a uri"));
            assert_eq!(target.map(|target| target.port), expected, "{uri}");
        }
    }
}
