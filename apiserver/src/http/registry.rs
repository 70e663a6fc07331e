//! The cluster's own image registry under `/v2/`: the OCI distribution API, as far as pushing and pulling need it.
//!
//! `weft push`, `oras`, `crane` and any OCI client can push a component here, and nodes pull it, with the credentials they
//! have for the API; `Basic` with a token as password works, since OCI clients know little else.
//!
//! On disk: `blobs/sha256/HEX` (shared by all repositories), `uploads/UUID` (unfinished), and for each repository
//! `repositories/NAME/_manifests/revisions/HEX` (a media type). A blob is renamed into place only after its digest was
//! verified and its bytes are on the disk. What a tag stands for is in the store ([`tags`]).
//!
//! Invariants: what is served under a digest has that digest; every blob a manifest names was there when it was pushed; a
//! layer of type `application/wasm` is a component; nothing larger than its limit is ever kept, and no body is held in
//! memory but a manifest's. Copies on other servers: [`replicas`]. Left to others: deleting what no tag needs.

mod blobs;
mod imports;
mod manifests;
pub(crate) mod replicas;
mod tags;

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Query, Request, State};
use axum::response::Response;
use axum::routing::any;
use http::header::{self, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tokio::fs;
use tokio::io::AsyncWriteExt as _;
use uuid::Uuid;
use weft_store::{Store, WriteError};

use self::blobs::{append, finish, get_blob, held_bytes, start_upload, upload_reply};
use self::manifests::{INDEX, delete_tag, get_manifest, put_manifest};
use self::tags::Tags;
use crate::authz::{Authorized, authorize_registry};
use crate::caller::Caller;
use crate::http::AppState;

/// Unfinished uploads at a time; they hold disk space until they end.
const UPLOADS_MAX: usize = 128;

/// Longest repository name, as in the reference implementation.
const NAME_BYTES_MAX: usize = 255;

const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");

/// The registry's storage. Cloning shares it.
#[derive(Clone)]
pub struct Registry {
    root: Arc<Path>,
    tags: Tags,
    known: imports::Known,
}

impl Registry {
    /// Opens the registry kept in `dir`, creating it if need be; uploads that a previous process left are dropped. Tags are
    /// in `store`.
    ///
    /// # Errors
    /// When the folders cannot be made.
    pub fn open(dir: &Path, store: Store) -> io::Result<Self> {
        let uploads = dir.join("uploads");
        match std::fs::remove_dir_all(&uploads) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        std::fs::create_dir_all(&uploads)?;
        std::fs::create_dir_all(dir.join("blobs/sha256"))?;
        std::fs::create_dir_all(dir.join("repositories"))?;
        Ok(Self {
            root: dir.into(),
            tags: Tags(store),
            known: imports::Known::default(),
        })
    }

    fn blob(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs/sha256").join(&digest.0)
    }

    fn upload(&self, id: Uuid) -> PathBuf {
        self.root.join("uploads").join(id.to_string())
    }

    fn revision(&self, repository: &str, digest: &Digest) -> PathBuf {
        self.root
            .join("repositories")
            .join(repository)
            .join("_manifests/revisions")
            .join(&digest.0)
    }

    /// Writes a small file whole: beside, synced, renamed.
    async fn write(&self, path: PathBuf, content: Vec<u8>) -> io::Result<()> {
        let beside = self.upload(Uuid::new_v4());
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).await?;
        }
        let mut file = fs::File::create(&beside).await?;
        file.write_all(&content).await?;
        file.sync_all().await?;
        rename_durably(&beside, &path).await
    }
}

/// Renames and syncs the folder, so that a crash cannot undo what was acknowledged.
async fn rename_durably(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to).await?;
    match to.parent() {
        Some(folder) => fs::File::open(folder).await?.sync_all().await,
        None => Ok(()),
    }
}

/// Whether a path is the registry's.
pub(crate) fn serves(path: &str) -> bool {
    path.strip_prefix("/v2")
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The routes of this module.
pub fn routes() -> Router<AppState> {
    Router::new()
        .route("/v2", any(serve))
        .route("/v2/", any(serve))
        .route("/v2/{*path}", any(serve))
}

async fn serve(State(state): State<AppState>, request: Request) -> Response {
    let asked_by = request.extensions().get::<Authorized>();
    let caller = asked_by.map_or_else(Caller::anonymous, |asked| asked.caller().clone());
    let asked = replicas::Asked::of(&request);
    let answer = answer(&state.registry, &caller, request).await;
    match asked {
        Some(asked) => replicas::complete(&state, asked, answer).await,
        None => answer,
    }
}

/// Answers one request of the distribution API.
pub(crate) async fn answer(registry: &Registry, caller: &Caller, request: Request) -> Response {
    match dispatch(registry, caller, request).await {
        Ok(response) => response,
        Err(error) => error.into_response(),
    }
}

/// An error in the registry's own form; each variant is one code of the specification.
#[derive(Debug, thiserror::Error)]
enum RegistryError {
    #[error("authentication required")]
    Unauthorized,
    #[error("{0}")]
    Denied(String),
    #[error("{0:?} is not a repository name: lower-case words joined by one of . _ __ - and /")]
    NameInvalid(String),
    #[error("repository {0:?} is not known")]
    NameUnknown(String),
    #[error("{0:?} is not a tag or a sha256 digest")]
    ReferenceInvalid(String),
    #[error("manifest {0:?} is not known")]
    ManifestUnknown(String),
    #[error("{0}")]
    ManifestInvalid(String),
    #[error("the manifest names {0}, which has not been uploaded")]
    ManifestBlobUnknown(String),
    #[error("blob {0} is not known")]
    BlobUnknown(String),
    #[error("{0}")]
    DigestInvalid(String),
    #[error("upload {0:?} is not known")]
    UploadUnknown(String),
    #[error("{0}")]
    UploadInvalid(String),
    #[error("the range starts at {asked}, {held} bytes are here")]
    Range { asked: u64, held: u64 },
    #[error("{what} is larger than {max} bytes")]
    TooLarge { what: &'static str, max: u64 },
    #[error("{UPLOADS_MAX} uploads are unfinished; try again later")]
    TooManyUploads,
    #[error("the operation is not supported")]
    Unsupported,
    #[error("the request ended early")]
    Incomplete(#[source] axum::Error),
    #[error("the registry's storage failed")]
    Storage(#[from] io::Error),
    #[error("the tag was not stored: {0}")]
    Tag(#[from] WriteError),
}

impl RegistryError {
    fn code(&self) -> (StatusCode, &'static str) {
        match self {
            Self::Unauthorized => (StatusCode::UNAUTHORIZED, "UNAUTHORIZED"),
            Self::Denied(_) => (StatusCode::FORBIDDEN, "DENIED"),
            Self::NameInvalid(_) => (StatusCode::BAD_REQUEST, "NAME_INVALID"),
            Self::NameUnknown(_) => (StatusCode::NOT_FOUND, "NAME_UNKNOWN"),
            Self::ReferenceInvalid(_) => (StatusCode::BAD_REQUEST, "MANIFEST_INVALID"),
            Self::ManifestUnknown(_) => (StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN"),
            Self::ManifestInvalid(_) => (StatusCode::BAD_REQUEST, "MANIFEST_INVALID"),
            Self::ManifestBlobUnknown(_) => (StatusCode::NOT_FOUND, "MANIFEST_BLOB_UNKNOWN"),
            Self::BlobUnknown(_) => (StatusCode::NOT_FOUND, "BLOB_UNKNOWN"),
            Self::DigestInvalid(_) => (StatusCode::BAD_REQUEST, "DIGEST_INVALID"),
            Self::UploadUnknown(_) => (StatusCode::NOT_FOUND, "BLOB_UPLOAD_UNKNOWN"),
            Self::UploadInvalid(_) => (StatusCode::BAD_REQUEST, "BLOB_UPLOAD_INVALID"),
            Self::Range { .. } => (StatusCode::RANGE_NOT_SATISFIABLE, "BLOB_UPLOAD_INVALID"),
            Self::TooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "SIZE_INVALID"),
            Self::TooManyUploads => (StatusCode::TOO_MANY_REQUESTS, "TOOMANYREQUESTS"),
            Self::Unsupported => (StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED"),
            Self::Incomplete(_) => (StatusCode::BAD_REQUEST, "BLOB_UPLOAD_INVALID"),
            Self::Tag(WriteError::DiskFull) => (StatusCode::INSUFFICIENT_STORAGE, "UNKNOWN"),
            Self::Tag(_) => (StatusCode::SERVICE_UNAVAILABLE, "UNKNOWN"),
            Self::Storage(error) if error.kind() == io::ErrorKind::StorageFull => {
                (StatusCode::INSUFFICIENT_STORAGE, "UNKNOWN")
            }
            Self::Storage(_) => (StatusCode::INTERNAL_SERVER_ERROR, "UNKNOWN"),
        }
    }

    fn into_response(self) -> Response {
        if let Self::Storage(error) = &self {
            tracing::error!(%error, "registry storage");
        }
        let (status, code) = self.code();
        let body = json!({ "errors": [{ "code": code, "message": self.to_string() }] }).to_string();
        let mut response = reply(status, Body::from(body), "application/json");
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static("Basic realm=\"weft\""),
            );
        }
        response
    }
}

/// A verified-by-shape `sha256:` digest; the field is the 64 hexadecimal digits, safe as a file name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Digest(String);

impl Digest {
    fn parse(text: &str) -> Option<Self> {
        let hex = text.strip_prefix("sha256:")?;
        let plain = hex
            .bytes()
            .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        (hex.len() == 64 && plain).then(|| Self(hex.to_owned()))
    }

    fn of(bytes: &[u8]) -> Self {
        Self::from_hash(&Sha256::digest(bytes))
    }

    fn from_hash(hash: &[u8]) -> Self {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let digits = hash
            .iter()
            .flat_map(|byte| [HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
        Self(digits.map(char::from).collect())
    }
}

impl std::fmt::Display for Digest {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "sha256:{}", self.0)
    }
}

/// What a path under `/v2/` names.
#[derive(Debug, PartialEq, Eq)]
enum Resource<'a> {
    Ping,
    Catalog,
    Tags { name: &'a str },
    Manifest { name: &'a str, reference: &'a str },
    Blob { name: &'a str, digest: &'a str },
    Uploads { name: &'a str },
    Upload { name: &'a str, id: &'a str },
    Referrers { name: &'a str },
}

/// Reads a path from its end: repository names hold slashes.
fn resource(path: &str) -> Option<Resource<'_>> {
    let path = path.strip_prefix("/v2")?;
    let path = path.strip_prefix('/').unwrap_or(path);
    if path.is_empty() {
        return Some(Resource::Ping);
    }
    if path == "_catalog" {
        return Some(Resource::Catalog);
    }
    if let Some(name) = path.strip_suffix("/tags/list") {
        return Some(Resource::Tags { name });
    }
    if let Some(name) = path
        .strip_suffix("/blobs/uploads/")
        .or_else(|| path.strip_suffix("/blobs/uploads"))
    {
        return Some(Resource::Uploads { name });
    }
    let (rest, last) = path.rsplit_once('/')?;
    if let Some(name) = rest.strip_suffix("/blobs/uploads") {
        return Some(Resource::Upload { name, id: last });
    }
    let (name, what) = rest.rsplit_once('/')?;
    match what {
        "manifests" => Some(Resource::Manifest {
            name,
            reference: last,
        }),
        "blobs" => Some(Resource::Blob { name, digest: last }),
        "referrers" => Some(Resource::Referrers { name }),
        _ => None,
    }
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*` joined by slashes: never a dot file, `..` or our own `_manifests`.
fn is_name(name: &str) -> bool {
    let component = |component: &str| {
        let word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let bytes = component.as_bytes();
        let ends =
            bytes.first().is_some_and(|b| word(*b)) && bytes.last().is_some_and(|b| word(*b));
        let separators = component.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
        ends && separators.into_iter().all(|separator| {
            matches!(separator, "" | "." | "_" | "__") || separator.bytes().all(|byte| byte == b'-')
        })
    };
    !name.is_empty() && name.len() <= NAME_BYTES_MAX && name.split('/').all(component)
}

fn is_tag(tag: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let mut bytes = tag.bytes();
    bytes.next().is_some_and(word)
        && bytes.all(|byte| word(byte) || byte == b'.' || byte == b'-')
        && tag.len() <= 128
}

async fn dispatch(
    registry: &Registry,
    caller: &Caller,
    request: Request,
) -> Result<Response, RegistryError> {
    let path = request.uri().path().to_owned();
    let resource = resource(&path).ok_or(RegistryError::Unsupported)?;
    let method = request.method().clone();
    let reads = method == Method::GET || method == Method::HEAD;
    authorize_registry(caller, !reads).map_err(|error| match error.code {
        401 => RegistryError::Unauthorized,
        _ => RegistryError::Denied(error.message),
    })?;
    match &resource {
        Resource::Ping | Resource::Catalog => {}
        Resource::Tags { name }
        | Resource::Manifest { name, .. }
        | Resource::Blob { name, .. }
        | Resource::Uploads { name }
        | Resource::Upload { name, .. }
        | Resource::Referrers { name } => {
            if !is_name(name) {
                return Err(RegistryError::NameInvalid((*name).to_owned()));
            }
        }
    }
    let query = Query::<HashMap<String, String>>::try_from_uri(request.uri());
    let query = query.map(|Query(pairs)| pairs).unwrap_or_default();

    match (resource, method) {
        (Resource::Ping, Method::GET | Method::HEAD) => {
            Ok(reply(StatusCode::OK, Body::from("{}"), "application/json"))
        }
        (Resource::Catalog, Method::GET) => catalog(registry, &query).await,
        (Resource::Tags { name }, Method::GET) => tags(registry, name, &query).await,
        (Resource::Referrers { .. }, Method::GET) => {
            let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [] });
            Ok(reply(StatusCode::OK, Body::from(index.to_string()), INDEX))
        }
        (Resource::Manifest { name, reference }, Method::GET | Method::HEAD) => {
            get_manifest(registry, name, reference).await
        }
        (Resource::Manifest { name, reference }, Method::PUT) => {
            put_manifest(registry, name, reference, request).await
        }
        (Resource::Manifest { name, reference }, Method::DELETE) => {
            delete_tag(registry, name, reference).await
        }
        (Resource::Blob { digest, .. }, method @ (Method::GET | Method::HEAD)) => {
            get_blob(registry, digest, &method, request.headers()).await
        }
        (Resource::Uploads { name }, Method::POST) => {
            start_upload(registry, name, &query, request).await
        }
        (Resource::Upload { name, id }, method) => {
            let id =
                Uuid::parse_str(id).map_err(|_| RegistryError::UploadUnknown(id.to_owned()))?;
            match method {
                Method::GET | Method::HEAD => {
                    let held = held_bytes(registry, id).await?;
                    Ok(upload_reply(StatusCode::NO_CONTENT, name, id, held))
                }
                Method::PATCH => {
                    let held = append(registry, id, request).await?;
                    Ok(upload_reply(StatusCode::ACCEPTED, name, id, held))
                }
                Method::PUT => {
                    let digest = query.get("digest").map(String::as_str).unwrap_or_default();
                    let digest = parse_digest(digest)?;
                    append(registry, id, request).await?;
                    finish(registry, name, id, &digest).await
                }
                Method::DELETE => {
                    held_bytes(registry, id).await?;
                    fs::remove_file(registry.upload(id)).await?;
                    Ok(reply(StatusCode::NO_CONTENT, Body::empty(), ""))
                }
                _ => Err(RegistryError::Unsupported),
            }
        }
        _ => Err(RegistryError::Unsupported),
    }
}

fn reply(status: StatusCode, body: Body, content_type: &'static str) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(API_VERSION, HeaderValue::from_static("registry/2.0"));
    if !content_type.is_empty() {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    }
    response
}

/// Sets a header whose value is made of checked parts (names, digests, numbers).
fn set(response: &mut Response, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

fn parse_digest(text: &str) -> Result<Digest, RegistryError> {
    Digest::parse(text)
        .ok_or_else(|| RegistryError::DigestInvalid(format!("{text:?} is not a sha256 digest")))
}

async fn tags(
    registry: &Registry,
    name: &str,
    query: &HashMap<String, String>,
) -> Result<Response, RegistryError> {
    let mut tags = registry.tags.of(name).await;
    if tags.is_empty() {
        return Err(RegistryError::NameUnknown(name.to_owned()));
    }
    page(&mut tags, query);
    let body = json!({ "name": name, "tags": tags }).to_string();
    Ok(reply(StatusCode::OK, Body::from(body), "application/json"))
}

async fn catalog(
    registry: &Registry,
    query: &HashMap<String, String>,
) -> Result<Response, RegistryError> {
    let mut names = registry.tags.repositories().await;
    page(&mut names, query);
    let body = json!({ "repositories": names }).to_string();
    Ok(reply(StatusCode::OK, Body::from(body), "application/json"))
}

/// `n` and `last`: at most so many, after that one.
fn page(names: &mut Vec<String>, query: &HashMap<String, String>) {
    if let Some(last) = query.get("last") {
        names.retain(|name| name > last);
    }
    if let Some(n) = query.get("n").and_then(|n| n.parse().ok()) {
        names.truncate(n);
    }
}

#[cfg(test)]
mod tests;
