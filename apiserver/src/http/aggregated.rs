//! Requests for what another server serves, passed on to it, and its documents of OpenAPI.
//!
//! Who asks is said in headers, which that server believes because this one shows a certificate of the authority that
//! `kube-system/extension-apiserver-authentication` names; whether it may was decided here before, and is decided there again. What cannot be passed on
//! is told in Kubernetes' words, as plain text.
//!
//! Invariants: as `super::forward`; discovery has a bounded time. Left to others: which requests these are (`crate::request`), the way
//! (`crate::aggregation`).

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use http::header::{self, HeaderName};
use http::{HeaderValue, StatusCode, Uri};

use super::AppState;
use super::forward::{self, Failed};
use crate::aggregation::{ApiService, Asking, DISCOVERY_TIMEOUT, Unasked, vouch_for};
use crate::authz::Authorized;
use crate::reach;
use crate::request::Aggregated;

const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_URI: HeaderName = HeaderName::from_static("x-forwarded-uri");

/// Passes a request on.
pub(super) async fn serve(
    state: &AppState,
    asked: &Authorized,
    aggregated: &Aggregated,
    request: Request,
) -> Response {
    let passing = pass_on(state, asked, &aggregated.service, request);
    if aggregated.resource.is_some() {
        return passing.await;
    }
    // Clients learn of everything by asking everybody: one that is slow must not hold all of them up.
    let passed = tokio::time::timeout(DISCOVERY_TIMEOUT, passing).await;
    passed.unwrap_or_else(|_| out_of_reach("context deadline exceeded"))
}

/// The same for a request that is not below the version's own path: its documents.
pub(super) async fn pass_on(
    state: &AppState,
    asked: &Authorized,
    service: &ApiService,
    request: Request,
) -> Response {
    if !service.available {
        return plain(StatusCode::SERVICE_UNAVAILABLE, "service unavailable");
    }
    let path = request.uri().path_and_query();
    let path = path.map_or("/", http::uri::PathAndQuery::as_str);
    let Ok(target) = path.parse::<Uri>() else {
        return plain(StatusCode::BAD_REQUEST, "the path cannot be passed on");
    };
    let Asking { line, host } = match state.objects.open_api_service(service).await {
        Ok(asking) => asking,
        Err(Unasked::Nowhere(why)) => {
            tracing::info!(name = service.name, why, "a request was not passed on");
            return plain(StatusCode::SERVICE_UNAVAILABLE, "service unavailable");
        }
        Err(Unasked::Unfit(why)) => return plain(StatusCode::INTERNAL_SERVER_ERROR, &why),
        Err(Unasked::Failed(why)) if forward::asks_to_upgrade(request.headers()) => {
            let told = format!("error dialing backend: {why}");
            return plain(StatusCode::SERVICE_UNAVAILABLE, &told);
        }
        Err(Unasked::Failed(why)) => return out_of_reach(&why),
    };
    let mut forwarded = forward::request(request, target);
    let uri = HeaderValue::from_str(forwarded.request.uri().path());
    let headers = forwarded.request.headers_mut();
    vouch_for(asked.caller(), headers);
    let host = HeaderValue::from_str(&host);
    let proto = Ok(HeaderValue::from_static("https"));
    for (name, value) in [
        (FORWARDED_HOST, host),
        (FORWARDED_PROTO, proto),
        (FORWARDED_URI, uri),
    ] {
        if let Ok(value) = value {
            headers.insert(name, value);
        }
    }
    match forward::exchange(state, line, forwarded).await {
        Ok(response) => response,
        Err(Failed::Unreached(why)) => out_of_reach(&why),
        Err(Failed::Upgrade(why)) => plain(StatusCode::SERVICE_UNAVAILABLE, &why),
    }
}

fn out_of_reach(why: &str) -> Response {
    plain(
        StatusCode::SERVICE_UNAVAILABLE,
        &reach::unreachable(why).message,
    )
}

/// A refusal in the form of Go's `http.Error`.
fn plain(status: StatusCode, text: &str) -> Response {
    let mut response = Response::new(Body::from(format!("{text}\n")));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    headers.insert(header::CONTENT_TYPE, plain);
    let as_told = HeaderValue::from_static("nosniff");
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, as_told);
    response
}
