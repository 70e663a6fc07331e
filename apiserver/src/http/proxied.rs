//! `pods/[SCHEME:]NAME[:PORT]/proxy/PATH` and `services/[SCHEME:]NAME[:PORT]/proxy/PATH`: a request to a pod by way of this server.
//!
//! A Service leads to one of its ready pods. What the pod answers is passed back as it is, but for its links, which lead through this server too
//! (`super::links`). A component is asked in HTTP whatever the scheme says: its node is met with TLS (`crate::reach`).
//!
//! Invariants: as `super::forward`; who asks is not told to the pod. Left to others: who may (`crate::authz`).

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use http::header::{self, HeaderName};
use http::{HeaderValue, Method, StatusCode, Uri};
use weft_api::status::StatusError;
use weft_kinds::SERVICE;

use super::forward::{self, Failed};
use super::{AppState, links};
use crate::reach::tls::{self, Trust};
use crate::reach::{self, State, Tls};
use crate::request::ObjectRef;
use tokio_rustls::TlsConnector;

const FORWARDED_URI: HeaderName = HeaderName::from_static("x-forwarded-uri");

/// Passes a request on to a pod; `rest` is what follows `proxy/`, as it came.
///
/// # Errors
/// 400, 404, 405 and 503 in Kubernetes' words.
pub(super) async fn serve(
    state: &AppState,
    object: ObjectRef<'_>,
    rest: &str,
    request: Request,
) -> Result<Response, StatusError> {
    let known = [
        Method::GET,
        Method::POST,
        Method::PUT,
        Method::PATCH,
        Method::DELETE,
        Method::HEAD,
        Method::OPTIONS,
    ];
    if !known.contains(request.method()) {
        return Err(StatusError::method_not_allowed());
    }
    let of_service = *object.kind == *SERVICE;
    let Some((scheme, name, port)) = split(object.name) else {
        let what = if of_service { "service" } else { "pod" };
        let name = object.name;
        return Err(StatusError::bad_request(format!(
            "invalid {what} request {name:?}"
        )));
    };
    let namespace = object.namespace.unwrap_or_default();
    let way = {
        let snapshot = state.objects.newest_snapshot().await?;
        let around = State {
            snapshot: &snapshot,
            vault: state.objects.vault(),
        };
        match of_service {
            true => around.proxied_service(namespace, name, port, reach::turn())?,
            false => around.proxied_pod(namespace, name, port, scheme == "https")?,
        }
    };
    let path = request.uri().path().to_owned();
    let query = request.uri().query().map(|query| format!("?{query}"));
    let query = query.unwrap_or_default();
    // A page at a path without its slash would have its links lead elsewhere.
    let looks = matches!(*request.method(), Method::GET | Method::HEAD);
    if rest.is_empty() && !path.ends_with('/') && looks {
        return moved(&format!("{path}/{query}"));
    }
    let target: Uri =
        format!("/{rest}{query}")
            .parse()
            .map_err(|error: http::uri::InvalidUri| {
                StatusError::bad_request(format!("the path to proxy: {error}"))
            })?;
    // Whoever answers is taken, as Kubernetes' proxy takes it.
    let connector = match scheme {
        "https" => {
            let config = tls::client_config(Trust::Anybody, None);
            Some(TlsConnector::from(config.map_err(StatusError::internal)?))
        }
        _ => None,
    };
    let tls = connector.as_ref().map(|connector| Tls {
        connector,
        server_name: "localhost",
    });
    let opened = state.objects.reach().open(&way, tls).await;
    let line = opened.map_err(|why| reach::unreachable(&why))?;
    let host = request.headers().get(header::HOST).cloned();
    let mut forwarded = forward::request(request, target);
    let headers = forwarded.request.headers_mut();
    // Links are found in what is not compressed.
    headers.remove(header::ACCEPT_ENCODING);
    if let Ok(uri) = HeaderValue::from_str(&path) {
        headers.insert(FORWARDED_URI, uri);
    }
    let exchanged = forward::exchange(state, line, forwarded).await;
    let response = exchanged.map_err(|failed| match failed {
        Failed::Unreached(why) => reach::unreachable(&why),
        Failed::Upgrade(message) => StatusError {
            message,
            ..StatusError::internal("")
        },
    })?;
    let host = host.as_ref().and_then(|host| host.to_str().ok());
    let place = links::Place {
        above: path
            .strip_suffix(rest)
            .unwrap_or(&path)
            .trim_end_matches('/'),
        hosts: [way.address(), host.unwrap_or("")],
    };
    Ok(links::rewritten(response, &place).await)
}

/// Scheme, name and port of `NAME`, `NAME:PORT` or `SCHEME:NAME:PORT`.
fn split(id: &str) -> Option<(&str, &str, &str)> {
    let parts: Vec<&str> = id.split(':').collect();
    let (scheme, name, port) = match parts.as_slice() {
        [name] => ("", *name, ""),
        [name, port] => ("", *name, *port),
        [scheme, name, port] => (*scheme, *name, *port),
        _ => return None,
    };
    let known = matches!(scheme, "" | "http" | "https") && !name.is_empty();
    known.then_some((scheme, name, port))
}

fn moved(location: &str) -> Result<Response, StatusError> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
    let location = HeaderValue::from_str(location).map_err(StatusError::internal)?;
    response.headers_mut().insert(header::LOCATION, location);
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_say_scheme_and_port() {
        for (id, expected) in [
            ("web", Some(("", "web", ""))),
            ("web:80", Some(("", "web", "80"))),
            ("https:web:", Some(("https", "web", ""))),
            ("https:web:tls", Some(("https", "web", "tls"))),
            ("ftp:web:21", None),
            (":80", None),
            ("a:b:c:d", None),
        ] {
            assert_eq!(split(id), expected, "{id}");
        }
    }
}
