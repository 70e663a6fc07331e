//! The registry of several servers: what is pushed to one is copied to all, and what one lacks it takes from another.
//!
//! A push is answered after every server that can be reached has it. One that could not be asks the others when it is
//! asked, and passes their answer on. Components are found by digest in the end, so a copy is as good as the first.
//!
//! Invariant: a request from another server is never passed on again. Left to others: which servers there are.

use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use futures::future::join_all;
use http::header::{self, HeaderName, HeaderValue};
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, StatusCode, Uri};
use serde_json::Value;
use tokio_util::io::ReaderStream;

use super::{Digest, Registry, Resource, resource};
use crate::http::AppState;
use crate::http::servers;

/// Says that the request comes from another server.
const HOP: HeaderName = HeaderName::from_static("weft-registry-hop");

/// How long a push waits for the other servers. Whoever is slower takes what it lacks when it is asked for it.
const SPREAD_TIMEOUT: Duration = Duration::from_secs(30);

/// Bytes of a file that are read at once.
const CHUNK_BYTES: usize = 64 << 10;

/// What is needed of a request after it was answered.
pub(super) struct Asked {
    method: Method,
    path: String,
    uri: Uri,
    headers: HeaderMap,
}

impl Asked {
    /// `None` for a request that is this server's own business.
    pub fn of(request: &Request) -> Option<Self> {
        if request.headers().contains_key(HOP) {
            return None;
        }
        let path = request.uri().path();
        let shared = matches!(
            (resource(path)?, request.method()),
            (
                Resource::Manifest { .. },
                &Method::GET | &Method::HEAD | &Method::PUT
            ) | (Resource::Blob { .. }, &Method::GET)
        );
        let mut headers = HeaderMap::new();
        for name in [header::ACCEPT, header::RANGE] {
            if let Some(value) = request.headers().get(&name) {
                headers.insert(name, value.clone());
            }
        }
        shared.then(|| Self {
            method: request.method().clone(),
            path: path.to_owned(),
            uri: request.uri().clone(),
            headers,
        })
    }
}

/// Completes an answer of this server by the others.
pub(super) async fn complete(state: &AppState, asked: Asked, answer: Response) -> Response {
    let reads = asked.method != Method::PUT;
    let wanted = match reads {
        true => answer.status() == StatusCode::NOT_FOUND,
        false => answer.status().is_success(),
    };
    if !wanted {
        return answer;
    }
    let others = others(state).await;
    if others.is_empty() {
        return answer;
    }
    if reads {
        return fetch(state, &asked, &others).await.unwrap_or(answer);
    }
    let digest = answer
        .headers()
        .get(super::CONTENT_DIGEST)
        .and_then(|digest| Digest::parse(digest.to_str().ok()?));
    if let (Some(Resource::Manifest { name, reference }), Some(digest)) =
        (resource(&asked.path), digest)
    {
        spread(state, name, reference, &digest, &others).await;
    }
    answer
}

/// `HOST:PORT` of the other servers' APIs.
async fn others(state: &AppState) -> Vec<String> {
    // A cluster of one is asked nothing.
    if state.objects.store().members().len() < 2 {
        return Vec::new();
    }
    let own = state.servers.server_id;
    let known = match servers::status(&state.objects).await {
        Ok(known) => known,
        Err(error) => {
            tracing::warn!(%error, "the other servers' registries are not known now");
            return Vec::new();
        }
    };
    known
        .into_iter()
        .filter(|server| server.id != own)
        .filter_map(|server| {
            let uri: Uri = server.url?.parse().ok()?;
            Some(format!("{}:{}", uri.host()?, uri.port_u16().unwrap_or(443)))
        })
        .collect()
}

async fn fetch(state: &AppState, asked: &Asked, others: &[String]) -> Option<Response> {
    for server in others {
        let path = asked.uri.path_and_query()?.clone();
        let request = request(
            asked.method.clone(),
            path,
            asked.headers.clone(),
            Body::empty(),
        );
        match state.nodes.send_to(server, request).await {
            Ok(response) if response.status().is_success() => return Some(response),
            Ok(_) => {}
            Err(error) => {
                tracing::debug!(server, %error, "another server's registry gave no answer")
            }
        }
    }
    None
}

/// A request in origin form that is not passed on further.
fn request(method: Method, path: PathAndQuery, mut headers: HeaderMap, body: Body) -> Request {
    headers.insert(HOP, HeaderValue::from_static("1"));
    let mut request = Request::new(body);
    *request.method_mut() = method;
    *request.uri_mut() = Uri::from(path);
    *request.headers_mut() = headers;
    request
}

/// Copies a manifest and what it names to the others.
async fn spread(state: &AppState, name: &str, reference: &str, digest: &Digest, others: &[String]) {
    let copies = others.iter().map(|server| async move {
        let copied = copy(state, name, reference, digest, server);
        let why = match tokio::time::timeout(SPREAD_TIMEOUT, copied).await {
            Ok(Ok(())) => return,
            Ok(Err(why)) => why,
            Err(_) => "it took too long".to_owned(),
        };
        tracing::warn!(
            server,
            repository = name,
            reference,
            why,
            "an image was not copied; the server will ask for it"
        );
    });
    join_all(copies).await;
}

async fn copy(
    state: &AppState,
    name: &str,
    reference: &str,
    digest: &Digest,
    server: &str,
) -> Result<(), String> {
    let registry = &state.registry;
    let text = |error: std::io::Error| error.to_string();
    let manifest = tokio::fs::read(registry.blob(digest)).await.map_err(text)?;
    let kind = tokio::fs::read(registry.revision(name, digest))
        .await
        .map_err(text)?;
    let parsed: Value = serde_json::from_slice(&manifest).map_err(|error| error.to_string())?;
    for blob in named(&parsed) {
        copy_blob(state, registry, name, &blob, server).await?;
    }
    let mut headers = HeaderMap::new();
    let kind = HeaderValue::from_bytes(&kind).map_err(|error| error.to_string())?;
    headers.insert(header::CONTENT_TYPE, kind);
    let path = path(&format!("/v2/{name}/manifests/{reference}"))?;
    let put = request(Method::PUT, path, headers, Body::from(manifest));
    expect(state, server, put).await
}

/// The blobs that a manifest names.
fn named(manifest: &Value) -> Vec<Digest> {
    let lists = ["layers", "manifests"].into_iter();
    let listed = lists.flat_map(|field| manifest[field].as_array().into_iter().flatten());
    let all = listed.chain(manifest.get("config"));
    all.filter_map(|descriptor| Digest::parse(descriptor["digest"].as_str()?))
        .collect()
}

async fn copy_blob(
    state: &AppState,
    registry: &Registry,
    name: &str,
    blob: &Digest,
    server: &str,
) -> Result<(), String> {
    let there = path(&format!("/v2/{name}/blobs/{blob}"))?;
    let head = request(Method::HEAD, there, HeaderMap::new(), Body::empty());
    if expect(state, server, head).await.is_ok() {
        return Ok(());
    }
    let file = tokio::fs::File::open(registry.blob(blob)).await;
    let file = file.map_err(|error| error.to_string())?;
    let length = file.metadata().await.map_err(|error| error.to_string())?;
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length.len()));
    let body = Body::from_stream(ReaderStream::with_capacity(file, CHUNK_BYTES));
    let path = path(&format!("/v2/{name}/blobs/uploads/?digest={blob}"))?;
    let post = request(Method::POST, path, headers, body);
    expect(state, server, post).await
}

fn path(text: &str) -> Result<PathAndQuery, String> {
    text.parse()
        .map_err(|error: http::uri::InvalidUri| error.to_string())
}

async fn expect(state: &AppState, server: &str, request: Request) -> Result<(), String> {
    let answer = state.nodes.send_to(server, request).await;
    let answer = answer.map_err(|error| error.to_string())?;
    match answer.status() {
        status if status.is_success() => Ok(()),
        status => Err(status.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_may_be_elsewhere_is_asked_elsewhere() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let blob = format!("/v2/a/b/blobs/{digest}");
        for (method, path, shared) in [
            (Method::GET, "/v2/a/b/manifests/1", true),
            (Method::HEAD, "/v2/a/b/manifests/1", true),
            (Method::PUT, "/v2/a/b/manifests/1", true),
            (Method::GET, blob.as_str(), true),
            // A client that asks whether it has to upload wants to know of this server.
            (Method::HEAD, blob.as_str(), false),
            (Method::POST, "/v2/a/b/blobs/uploads/", false),
            (Method::GET, "/v2/", false),
        ] {
            let ask = |hop: bool| {
                let mut request = Request::new(Body::empty());
                *request.method_mut() = method.clone();
                *request.uri_mut() = path.parse().unwrap();
                if hop {
                    request.headers_mut().insert(HOP, "1".parse().unwrap());
                }
                Asked::of(&request).is_some()
            };
            assert_eq!(ask(false), shared, "{method} {path}");
            assert!(!ask(true), "{method} {path} is not passed on twice");
        }
    }

    #[test]
    fn a_manifest_names_its_blobs() {
        let digest = |letter: &str| format!("sha256:{}", letter.repeat(64));
        let manifest = json!({
            "config": {"digest": digest("a")},
            "layers": [{"digest": digest("b")}, {"digest": "nonsense"}],
        });
        let blobs: Vec<String> = named(&manifest).iter().map(Digest::to_string).collect();
        assert_eq!(blobs, [digest("b"), digest("a")]);
        let index = json!({"manifests": [{"digest": digest("c")}]});
        assert_eq!(named(&index).len(), 1);
    }
}
