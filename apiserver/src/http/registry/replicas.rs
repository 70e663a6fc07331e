//! The registry of several servers: what is pushed to one is copied to all, and what one lacks it takes from another.
//!
//! A push is answered after every server that can be reached has it. One that could not be asks the others when it is
//! asked, and passes their answer on; and it fetches what it lacks when it is back ([`follow`]), so that it can answer alone.
//! Components are found by digest in the end, so a copy is as good as the first.
//!
//! Invariants: a request from another server is never passed on again; what is fetched is checked as what is pushed is.
//! Left to others: which servers there are; what a tag stands for ([`super::tags`]).

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use futures::future::join_all;
use http::header::{self, HeaderName, HeaderValue};
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, StatusCode, Uri};
use http_body_util::{BodyExt as _, Limited};
use serde_json::Value;
use tokio_util::io::ReaderStream;

use super::blobs::start_upload;
use super::manifests::{INDEXES, MANIFEST_BYTES_MAX, put_manifest};
use super::{Digest, Registry, Resource, resource};
use crate::http::AppState;
use crate::http::servers;

/// Says that the request comes from another server.
const HOP: HeaderName = HeaderName::from_static("weft-registry-hop");

/// How long a push waits for the other servers. Whoever is slower takes what it lacks when it is asked for it.
const SPREAD_TIMEOUT: Duration = Duration::from_secs(30);

/// How often it is looked for images that this server lacks. The first look is at the start; later, an image is left to
/// whoever pushes it for one more look.
const LOOK_EVERY: Duration = Duration::from_secs(10);

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
    if let (Some(Resource::Manifest { name, .. }), Some(digest)) = (resource(&asked.path), digest) {
        spread(state, name, &digest, &others).await;
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
async fn spread(state: &AppState, name: &str, digest: &Digest, others: &[String]) {
    let copies = others.iter().map(|server| async move {
        let copied = copy(state, name, digest, server);
        let why = match tokio::time::timeout(SPREAD_TIMEOUT, copied).await {
            Ok(Ok(())) => return,
            Ok(Err(why)) => why,
            Err(_) => "it took too long".to_owned(),
        };
        tracing::warn!(
            server,
            repository = name,
            %digest,
            why,
            "an image was not copied; the server will ask for it"
        );
    });
    join_all(copies).await;
}

async fn copy(state: &AppState, name: &str, digest: &Digest, server: &str) -> Result<(), String> {
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
    let path = path(&format!("/v2/{name}/manifests/{digest}"))?;
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

/// Fetches the images that this server lacks, those that a tag stands for, from the servers that have them, until it is
/// dropped.
pub(crate) async fn follow(state: AppState) {
    // Who was away first learns what was pushed meanwhile.
    let _ = state.objects.store().read().await;
    // Nothing is ever deleted, so what is here stays.
    let mut here = BTreeSet::new();
    let mut fresh = BTreeSet::new();
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for look in 0_u64.. {
        ticks.tick().await;
        let mut lacking = Vec::new();
        for (name, digest) in state.registry.tags.images() {
            if here.contains(&(name.clone(), digest.clone())) {
                continue;
            }
            match is_whole(&state.registry, &name, &digest).await {
                true => drop(here.insert((name, digest))),
                false => lacking.push((name, digest)),
            }
        }
        if lacking.is_empty() {
            fresh.clear();
            continue;
        }
        let others = others(&state).await;
        for (name, digest) in &lacking {
            let image = (name.clone(), digest.clone());
            if look > 0 && !fresh.contains(&image) {
                continue;
            }
            match fetch_image(&state, name, digest, &others).await {
                Ok(()) => tracing::info!(repository = name, %digest, "an image was fetched"),
                Err(why) => {
                    tracing::info!(repository = name, %digest, why, "an image is lacking and will be asked for again")
                }
            }
        }
        fresh = lacking.into_iter().collect();
    }
}

/// Whether a manifest is here with everything that it names.
async fn is_whole(registry: &Registry, name: &str, digest: &Digest) -> bool {
    let here = async |path| tokio::fs::try_exists(path).await.unwrap_or(false);
    let Ok(kind) = tokio::fs::read_to_string(registry.revision(name, digest)).await else {
        return false;
    };
    let Ok(manifest) = tokio::fs::read(registry.blob(digest)).await else {
        return false;
    };
    let manifest: Value = serde_json::from_slice(&manifest).unwrap_or_default();
    for part in named(&manifest) {
        let whole = match INDEXES.contains(&kind.as_str()) {
            true => Box::pin(is_whole(registry, name, &part)).await,
            false => here(registry.blob(&part)).await,
        };
        if !whole {
            return false;
        }
    }
    true
}

/// Fetches a manifest and what it names from the first server that has all of it.
async fn fetch_image(
    state: &AppState,
    name: &str,
    digest: &Digest,
    others: &[String],
) -> Result<(), String> {
    let mut why = "no other server is known".to_owned();
    for server in others {
        match fetch_from(state, name, digest, server).await {
            Ok(()) => return Ok(()),
            Err(error) => why = format!("{server}: {error}"),
        }
    }
    Err(why)
}

async fn fetch_from(
    state: &AppState,
    name: &str,
    digest: &Digest,
    server: &str,
) -> Result<(), String> {
    let registry = &state.registry;
    let get = async |what: &str, digest: &Digest| {
        let path = path(&format!("/v2/{name}/{what}/{digest}"))?;
        let get = request(Method::GET, path, HeaderMap::new(), Body::empty());
        let answer = state.nodes.send_to(server, get).await;
        let answer = answer.map_err(|error| error.to_string())?;
        match answer.status() {
            status if status.is_success() => Ok(answer),
            status => Err(status.to_string()),
        }
    };
    let (head, body) = get("manifests", digest).await?.into_parts();
    let kind = head.headers.get(header::CONTENT_TYPE).cloned();
    let kind = kind.ok_or("the manifest has no type")?;
    let body = Limited::new(body, MANIFEST_BYTES_MAX).collect().await;
    let body = body.map_err(|error| error.to_string())?.to_bytes();
    let manifest: Value = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
    let is_index = INDEXES.iter().any(|index| kind == *index);
    for part in named(&manifest) {
        if is_index {
            Box::pin(fetch_from(state, name, &part, server)).await?;
        } else if !tokio::fs::try_exists(registry.blob(&part))
            .await
            .unwrap_or(false)
        {
            let blob = get("blobs", &part).await?;
            let upload = Request::new(blob.into_body());
            let query = HashMap::from([("digest".to_owned(), part.to_string())]);
            let taken = start_upload(registry, name, &query, upload).await;
            taken.map_err(|error| error.to_string())?;
        }
    }
    let mut put = Request::new(Body::from(body));
    put.headers_mut().insert(header::CONTENT_TYPE, kind);
    let taken = put_manifest(registry, name, &digest.to_string(), put).await;
    taken.map(drop).map_err(|error| error.to_string())
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
