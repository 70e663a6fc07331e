//! How many endpoints of a Service are on this node, for who balances before the nodes (`healthCheckNodePort`): 200 where there is one that is
//! ready, else 503, whatever is asked, in the words of kube-proxy. Nodes that share an address answer for all of theirs.
//!
//! Source: kube-proxy 1.37 `pkg/proxy/healthcheck/service_health.go`.

use std::time::Duration;

use http::{HeaderName, HeaderValue, Request, Response, StatusCode, header};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::At;
use crate::{Body, Outbound, accept::accept_loop, table::Table};

/// Who asks at a time: a few machines, now and then.
const CONNECTIONS_MAX: usize = 64;
/// How long one of them may take to say what it wants.
const HEAD_MAX: Duration = Duration::from_secs(10);
const WEIGHT: HeaderName = HeaderName::from_static("x-load-balancing-endpoint-weight");

pub(super) async fn serve(
    outbound: Outbound,
    listener: std::net::TcpListener,
    at: At,
    stop: CancellationToken,
) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::warn!(at = %at.place, %error, "nobody is told whether a Service has endpoints here");
            return;
        }
    };
    accept_loop(
        listener,
        stop,
        CONNECTIONS_MAX,
        move |stream, client, stop| {
            let outbound = outbound.clone();
            async move {
                let answering = service_fn(move |_: Request<Incoming>| {
                    let told = told(&outbound.table(), at);
                    std::future::ready(Ok::<_, std::convert::Infallible>(told))
                });
                let mut builder = http1::Builder::new();
                builder
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEAD_MAX);
                let connection = builder.serve_connection(TokioIo::new(stream), answering);
                let mut connection = std::pin::pin!(connection);
                let ended = tokio::select! {
                    biased;
                    ended = &mut connection => ended,
                    () = stop.cancelled() => {
                        connection.as_mut().graceful_shutdown();
                        connection.await
                    }
                };
                if let Err(error) = ended {
                    tracing::trace!(%client, %error, "who asked for a Service's endpoints is gone");
                }
            }
        },
    )
    .await;
}

fn told(table: &Table, at: At) -> Response<Body> {
    let Some(service) = table.checked(at.place.port()) else {
        return Response::new(Body::empty());
    };
    let ready = &service.outside().ready;
    let count = match table.is_shared(at.node) {
        true => ready.all,
        false => ready.here,
    };
    let labels = service.labels();
    let (namespace, name) = (&labels.namespace, &labels.name);
    let mut response = Response::new(Body::full(format!(
        "{{\n\t\"service\": {{\n\t\t\"namespace\": \"{namespace}\",\n\t\t\"name\": \"{name}\"\n\t}},\n\t\"localEndpoints\": {count},\n\t\"serviceProxyHealthy\": true\n}}"
    )));
    if count == 0 {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    let lines = response.headers_mut();
    let json = HeaderValue::from_static("application/json");
    lines.insert(header::CONTENT_TYPE, json);
    let as_said = HeaderValue::from_static("nosniff");
    lines.insert(header::X_CONTENT_TYPE_OPTIONS, as_said);
    lines.insert(WEIGHT, HeaderValue::from(count));
    response
}
