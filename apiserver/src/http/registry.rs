//! The cluster's own image registry under `/v2/`: the OCI distribution API, as far as pushing and pulling need it.
//!
//! `weft push`, `oras`, `crane` and any OCI client can push a component here, and nodes pull it, with the credentials they
//! have for the API; `Basic` with a token as password works, since OCI clients know little else.
//!
//! On disk: `blobs/sha256/HEX` (shared by all repositories), `uploads/UUID` (unfinished), and for each repository
//! `repositories/NAME/_manifests/tags/TAG` (a digest) and `…/revisions/HEX` (a media type). A blob is renamed into place
//! only after its digest was verified and its bytes are on the disk.
//!
//! Invariants: what is served under a digest has that digest; every blob a manifest names was there when it was pushed; a
//! layer of type `application/wasm` is a component; nothing larger than its limit is ever kept, and no body is held in
//! memory but a manifest's. Left to others: deleting what no tag needs, replication to other servers.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Query, Request, State};
use axum::response::Response;
use axum::routing::any;
use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Method, StatusCode};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::fs;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _, AsyncWriteExt as _};
use tokio_util::io::ReaderStream;
use uuid::Uuid;

use crate::authz::authorize_registry;
use crate::caller::Caller;
use crate::http::AppState;

/// Largest layer. A component with an embedded language runtime has about 40 MiB.
const BLOB_BYTES_MAX: u64 = 256 << 20;

/// Largest manifest, as the distribution specification suggests.
const MANIFEST_BYTES_MAX: usize = 4 << 20;

/// Blobs that one manifest may name; each costs a look at the disk.
const REFERENCES_MAX: usize = 1024;

/// Unfinished uploads at a time; they hold disk space until they end.
const UPLOADS_MAX: usize = 128;

/// After this long without a byte an upload counts as abandoned. Slow links send something every few seconds.
const UPLOAD_SILENCE_MAX: Duration = Duration::from_secs(3600);

/// Longest repository name, as in the reference implementation.
const NAME_BYTES_MAX: usize = 255;

const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");
const UPLOAD_ID: HeaderName = HeaderName::from_static("docker-upload-uuid");

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFESTS: &[&str] = &[
    MANIFEST,
    "application/vnd.docker.distribution.manifest.v2+json",
];
const INDEXES: &[&str] = &[
    INDEX,
    "application/vnd.docker.distribution.manifest.list.v2+json",
];

/// Layers that hold one Wasm binary: ours, and the older forms nodes still read.
const WASM_LAYERS: &[&str] = &[
    "application/wasm",
    "application/vnd.module.wasm.content.layer.v1+wasm",
];

/// The registry's storage. Cloning shares it.
#[derive(Clone)]
pub struct Registry {
    root: Arc<Path>,
}

impl Registry {
    /// Opens the registry kept in `dir`, creating it if need be; uploads that a previous process left are dropped.
    ///
    /// # Errors
    /// When the folders cannot be made.
    pub fn open(dir: &Path) -> io::Result<Self> {
        let uploads = dir.join("uploads");
        match std::fs::remove_dir_all(&uploads) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        std::fs::create_dir_all(&uploads)?;
        std::fs::create_dir_all(dir.join("blobs/sha256"))?;
        std::fs::create_dir_all(dir.join("repositories"))?;
        Ok(Self { root: dir.into() })
    }

    /// The digest that a tag of a repository stands for now, as `sha256:…`.
    pub async fn resolve(&self, repository: &str, tag: &str) -> Option<String> {
        if !is_name(repository) || !is_tag(tag) {
            return None;
        }
        let digest = fs::read_to_string(self.tag(repository, tag)).await.ok()?;
        Digest::parse(digest.trim()).map(|digest| digest.to_string())
    }

    fn blob(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs/sha256").join(&digest.0)
    }

    fn upload(&self, id: Uuid) -> PathBuf {
        self.root.join("uploads").join(id.to_string())
    }

    fn manifests(&self, repository: &str) -> PathBuf {
        self.root
            .join("repositories")
            .join(repository)
            .join("_manifests")
    }

    fn tag(&self, repository: &str, tag: &str) -> PathBuf {
        self.manifests(repository).join("tags").join(tag)
    }

    fn revision(&self, repository: &str, digest: &Digest) -> PathBuf {
        self.manifests(repository).join("revisions").join(&digest.0)
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

/// The routes of this module.
pub fn routes() -> Router<AppState> {
    Router::new()
        .route("/v2", any(serve))
        .route("/v2/", any(serve))
        .route("/v2/{*path}", any(serve))
}

async fn serve(State(state): State<AppState>, request: Request) -> Response {
    let caller = request
        .extensions()
        .get::<Caller>()
        .cloned()
        .unwrap_or_else(Caller::anonymous);
    answer(&state.registry, &caller, request).await
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
#[derive(Clone, Debug, PartialEq, Eq)]
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

async fn start_upload(
    registry: &Registry,
    name: &str,
    query: &HashMap<String, String>,
    request: Request,
) -> Result<Response, RegistryError> {
    // Blobs are shared by all repositories, so a mount only asks whether the blob is here.
    if let Some(digest) = query.get("mount").and_then(|digest| Digest::parse(digest))
        && fs::try_exists(registry.blob(&digest)).await?
    {
        return Ok(created_blob(name, &digest));
    }
    if unfinished_uploads(registry).await? >= UPLOADS_MAX {
        return Err(RegistryError::TooManyUploads);
    }
    let digest = query
        .get("digest")
        .map(|digest| parse_digest(digest))
        .transpose()?;
    let id = Uuid::new_v4();
    fs::File::create_new(registry.upload(id)).await?;
    match digest {
        // The whole blob in one request.
        Some(digest) => {
            append(registry, id, request).await?;
            finish(registry, name, id, &digest).await
        }
        None => Ok(upload_reply(StatusCode::ACCEPTED, name, id, 0)),
    }
}

/// Counts the unfinished uploads and drops those whose client has been silent for too long.
async fn unfinished_uploads(registry: &Registry) -> io::Result<usize> {
    let mut unfinished = 0;
    let mut entries = fs::read_dir(registry.root.join("uploads")).await?;
    while let Some(entry) = entries.next_entry().await? {
        // An entry may be finished between the listing and the look at it.
        let Ok(metadata) = entry.metadata().await else {
            continue;
        };
        let silent = metadata.modified()?.elapsed().unwrap_or_default();
        if silent > UPLOAD_SILENCE_MAX {
            match fs::remove_file(entry.path()).await {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => continue,
            }
        }
        unfinished += 1;
    }
    Ok(unfinished)
}

fn upload_reply(status: StatusCode, name: &str, id: Uuid, held: u64) -> Response {
    let mut response = reply(status, Body::empty(), "");
    set(
        &mut response,
        header::LOCATION,
        &format!("/v2/{name}/blobs/uploads/{id}"),
    );
    set(
        &mut response,
        header::RANGE,
        &format!("0-{}", held.saturating_sub(1)),
    );
    set(&mut response, UPLOAD_ID, &id.to_string());
    response
}

fn created_blob(name: &str, digest: &Digest) -> Response {
    let mut response = reply(StatusCode::CREATED, Body::empty(), "");
    set(
        &mut response,
        header::LOCATION,
        &format!("/v2/{name}/blobs/{digest}"),
    );
    set(&mut response, CONTENT_DIGEST, &digest.to_string());
    response
}

async fn held_bytes(registry: &Registry, id: Uuid) -> Result<u64, RegistryError> {
    match fs::metadata(registry.upload(id)).await {
        Ok(metadata) => Ok(metadata.len()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(RegistryError::UploadUnknown(id.to_string()))
        }
        Err(error) => Err(error.into()),
    }
}

/// Streams the body to the end of the upload's file; gives the bytes held then. Too large an upload is dropped.
async fn append(registry: &Registry, id: Uuid, request: Request) -> Result<u64, RegistryError> {
    let mut held = held_bytes(registry, id).await?;
    let too_large = || RegistryError::TooLarge {
        what: "the blob",
        max: BLOB_BYTES_MAX,
    };
    if let Some(start) = content_range_start(request.headers())?
        && start != held
    {
        return Err(RegistryError::Range { asked: start, held });
    }
    let announced = request
        .headers()
        .get(header::CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    let path = registry.upload(id);
    if held + announced.unwrap_or(0) > BLOB_BYTES_MAX {
        fs::remove_file(&path).await?;
        return Err(too_large());
    }
    let mut file = fs::OpenOptions::new().append(true).open(&path).await?;
    let mut body = request.into_body();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(RegistryError::Incomplete)?.into_data() else {
            continue;
        };
        held += data.len() as u64;
        if held > BLOB_BYTES_MAX {
            drop(file);
            fs::remove_file(&path).await?;
            return Err(too_large());
        }
        file.write_all(&data).await?;
    }
    file.flush().await?;
    Ok(held)
}

/// The start of `Content-Range: START-END`, the form of the distribution API.
fn content_range_start(headers: &HeaderMap) -> Result<Option<u64>, RegistryError> {
    let Some(range) = headers.get(header::CONTENT_RANGE) else {
        return Ok(None);
    };
    let start = range.to_str().ok().and_then(|range| {
        let range = range.strip_prefix("bytes ").unwrap_or(range);
        range.split('-').next()?.trim().parse().ok()
    });
    start
        .map(Some)
        .ok_or_else(|| RegistryError::UploadInvalid("Content-Range is not START-END".to_owned()))
}

/// Verifies the upload's digest and moves it into place.
async fn finish(
    registry: &Registry,
    name: &str,
    id: Uuid,
    digest: &Digest,
) -> Result<Response, RegistryError> {
    let path = registry.upload(id);
    let hashed = {
        let path = path.clone();
        // Hundreds of megabytes of hashing would hold up the requests that share this thread.
        tokio::task::spawn_blocking(move || -> io::Result<Digest> {
            let mut file = std::fs::File::open(&path)?;
            let mut hasher = Sha256::new();
            io::copy(&mut file, &mut hasher)?;
            file.sync_all()?;
            Ok(Digest::from_hash(&hasher.finalize()))
        })
        .await
        .map_err(io::Error::other)??
    };
    if hashed != *digest {
        fs::remove_file(&path).await?;
        return Err(RegistryError::DigestInvalid(format!(
            "the content has the digest {hashed}, not {digest}"
        )));
    }
    rename_durably(&path, &registry.blob(digest)).await?;
    Ok(created_blob(name, digest))
}

async fn get_blob(
    registry: &Registry,
    digest: &str,
    method: &Method,
    headers: &HeaderMap,
) -> Result<Response, RegistryError> {
    let digest = parse_digest(digest)?;
    let mut file = match fs::File::open(registry.blob(&digest)).await {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(RegistryError::BlobUnknown(digest.to_string()));
        }
        Err(error) => return Err(error.into()),
    };
    let size = file.metadata().await?.len();
    let range = headers
        .get(header::RANGE)
        .and_then(|range| byte_range(range.to_str().ok()?, size));
    let (status, start, length) = match range {
        Some((start, end)) => (StatusCode::PARTIAL_CONTENT, start, end - start + 1),
        None => (StatusCode::OK, 0, size),
    };
    let body = match *method == Method::HEAD {
        true => Body::empty(),
        false => {
            file.seek(io::SeekFrom::Start(start)).await?;
            Body::from_stream(ReaderStream::with_capacity(file.take(length), 64 << 10))
        }
    };
    let mut response = reply(status, body, "application/octet-stream");
    set(&mut response, header::CONTENT_LENGTH, &length.to_string());
    set(&mut response, CONTENT_DIGEST, &digest.to_string());
    set(&mut response, header::ACCEPT_RANGES, "bytes");
    set(&mut response, header::ETAG, &format!("\"{digest}\""));
    if status == StatusCode::PARTIAL_CONTENT {
        set(
            &mut response,
            header::CONTENT_RANGE,
            &format!("bytes {start}-{}/{size}", start + length - 1),
        );
    }
    Ok(response)
}

/// First and last byte of `bytes=A-B`, `bytes=A-` or `bytes=-N`; anything else is answered whole.
fn byte_range(range: &str, size: u64) -> Option<(u64, u64)> {
    let (start, end) = range.strip_prefix("bytes=")?.split_once('-')?;
    let last = size.checked_sub(1)?;
    let (start, end) = match (start.parse::<u64>().ok(), end.parse::<u64>().ok()) {
        (Some(start), Some(end)) => (start, end.min(last)),
        (Some(start), None) if end.is_empty() => (start, last),
        (None, Some(length)) if start.is_empty() => (size.saturating_sub(length), last),
        _ => return None,
    };
    (start <= end).then_some((start, end))
}

async fn get_manifest(
    registry: &Registry,
    name: &str,
    reference: &str,
) -> Result<Response, RegistryError> {
    let unknown = || RegistryError::ManifestUnknown(format!("{name}:{reference}"));
    let digest = if reference.contains(':') {
        Digest::parse(reference)
            .ok_or_else(|| RegistryError::ReferenceInvalid(reference.to_owned()))?
    } else if is_tag(reference) {
        let digest = registry
            .resolve(name, reference)
            .await
            .ok_or_else(unknown)?;
        Digest::parse(&digest).ok_or_else(unknown)?
    } else {
        return Err(RegistryError::ReferenceInvalid(reference.to_owned()));
    };
    let read = |path: PathBuf| async move {
        match fs::read(path).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(unknown()),
            other => other.map_err(RegistryError::from),
        }
    };
    let media_type = read(registry.revision(name, &digest)).await?;
    let content = read(registry.blob(&digest)).await?;
    let length = content.len();
    // hyper leaves the body of an answer to HEAD out and keeps its length.
    let mut response = reply(StatusCode::OK, Body::from(content), "");
    set(
        &mut response,
        header::CONTENT_TYPE,
        &String::from_utf8_lossy(&media_type),
    );
    set(&mut response, header::CONTENT_LENGTH, &length.to_string());
    set(&mut response, CONTENT_DIGEST, &digest.to_string());
    set(&mut response, header::ETAG, &format!("\"{digest}\""));
    Ok(response)
}

async fn put_manifest(
    registry: &Registry,
    name: &str,
    reference: &str,
    request: Request,
) -> Result<Response, RegistryError> {
    let by_digest = reference.contains(':');
    if !by_digest && !is_tag(reference) {
        return Err(RegistryError::ReferenceInvalid(reference.to_owned()));
    }
    let content_type = request
        .headers()
        .get(header::CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok());
    let content_type = content_type
        .unwrap_or("")
        .split(';')
        .next()
        .unwrap_or("")
        .trim()
        .to_owned();
    let body = Limited::new(request.into_body(), MANIFEST_BYTES_MAX)
        .collect()
        .await;
    let content = body
        .map_err(|error| match error.downcast::<LengthLimitError>() {
            Ok(_) => RegistryError::TooLarge {
                what: "the manifest",
                max: MANIFEST_BYTES_MAX as u64,
            },
            Err(error) => RegistryError::Incomplete(axum::Error::new(error)),
        })?
        .to_bytes();
    let digest = Digest::of(&content);
    if by_digest && Digest::parse(reference).as_ref() != Some(&digest) {
        return Err(RegistryError::DigestInvalid(format!(
            "the manifest has the digest {digest}, not {reference}"
        )));
    }
    let manifest: Value = serde_json::from_slice(&content).map_err(|error| {
        RegistryError::ManifestInvalid(format!("the manifest is not JSON: {error}"))
    })?;
    let checked =
        check_manifest(&manifest, &content_type).map_err(RegistryError::ManifestInvalid)?;
    for reference in &checked.references {
        if !fs::try_exists(registry.blob(reference)).await? {
            return Err(RegistryError::ManifestBlobUnknown(reference.to_string()));
        }
    }
    for layer in &checked.components {
        let mut head = Vec::with_capacity(8);
        fs::File::open(registry.blob(layer))
            .await?
            .take(8)
            .read_to_end(&mut head)
            .await?;
        if let Err(what) = is_component(&head) {
            return Err(RegistryError::ManifestInvalid(format!(
                "layer {layer} {what}"
            )));
        }
    }
    registry
        .write(registry.blob(&digest), content.to_vec())
        .await?;
    registry
        .write(
            registry.revision(name, &digest),
            checked.media_type.into_bytes(),
        )
        .await?;
    if !by_digest {
        registry
            .write(
                registry.tag(name, reference),
                digest.to_string().into_bytes(),
            )
            .await?;
    }
    tracing::info!(repository = name, reference, %digest, "pushed");
    let mut response = reply(StatusCode::CREATED, Body::empty(), "");
    set(
        &mut response,
        header::LOCATION,
        &format!("/v2/{name}/manifests/{digest}"),
    );
    set(&mut response, CONTENT_DIGEST, &digest.to_string());
    Ok(response)
}

/// What a manifest needs from the store.
#[derive(Debug)]
struct Checked {
    media_type: String,
    references: Vec<Digest>,
    /// Layers that must be components.
    components: Vec<Digest>,
}

fn check_manifest(manifest: &Value, content_type: &str) -> Result<Checked, String> {
    let media_type = manifest["mediaType"].as_str().unwrap_or(content_type);
    if !content_type.is_empty() && media_type != content_type {
        return Err(format!(
            "the manifest says it is {media_type}, the request says {content_type}"
        ));
    }
    let (lists, singles): (&[&str], &[&str]) = if MANIFESTS.contains(&media_type) {
        (&["layers"], &["config"])
    } else if INDEXES.contains(&media_type) {
        (&["manifests"], &[])
    } else {
        return Err(format!(
            "manifests of type {media_type:?} are not kept here; push an OCI image manifest ({MANIFEST})"
        ));
    };
    let mut checked = Checked {
        media_type: media_type.to_owned(),
        references: Vec::new(),
        components: Vec::new(),
    };
    let missing = |field: &str| format!("the manifest has no {field}");
    let mut descriptors: Vec<&Value> = Vec::new();
    for field in singles {
        descriptors.push(manifest.get(*field).ok_or_else(|| missing(field))?);
    }
    for field in lists {
        descriptors.extend(manifest[*field].as_array().ok_or_else(|| missing(field))?);
    }
    if descriptors.len() > REFERENCES_MAX {
        return Err(format!(
            "the manifest names more than {REFERENCES_MAX} blobs"
        ));
    }
    for descriptor in descriptors {
        let text = descriptor["digest"].as_str().unwrap_or("");
        let digest = Digest::parse(text)
            .ok_or_else(|| format!("{text:?} in the manifest is not a sha256 digest"))?;
        if descriptor["mediaType"]
            .as_str()
            .is_some_and(|kind| WASM_LAYERS.contains(&kind))
        {
            checked.components.push(digest.clone());
        }
        checked.references.push(digest);
    }
    Ok(checked)
}

/// Looks at the first eight bytes of a layer; the error completes a sentence that starts with the layer.
fn is_component(head: &[u8]) -> Result<(), &'static str> {
    match head {
        [0, b'a', b's', b'm', 0x0d, 0, 1, 0] => Ok(()),
        [0, b'a', b's', b'm', 1, 0, 0, 0] => Err(
            "is a core module, not a component; build it for wasm32-wasip2, or wrap it with `wasm-tools component new`",
        ),
        [0, b'a', b's', b'm', ..] => Err("is WebAssembly of a version that is not supported here"),
        _ => Err("is not WebAssembly"),
    }
}

async fn tags(
    registry: &Registry,
    name: &str,
    query: &HashMap<String, String>,
) -> Result<Response, RegistryError> {
    let folder = registry.manifests(name).join("tags");
    let mut tags = match names_in(&folder).await {
        Ok(tags) => tags,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(RegistryError::NameUnknown(name.to_owned()));
        }
        Err(error) => return Err(error.into()),
    };
    page(&mut tags, query);
    let body = json!({ "name": name, "tags": tags }).to_string();
    Ok(reply(StatusCode::OK, Body::from(body), "application/json"))
}

async fn catalog(
    registry: &Registry,
    query: &HashMap<String, String>,
) -> Result<Response, RegistryError> {
    let root = registry.root.join("repositories");
    let mut names = Vec::new();
    let mut wanted = vec![root.clone()];
    while let Some(folder) = wanted.pop() {
        for name in names_in(&folder).await? {
            let path = folder.join(&name);
            if name == "_manifests" {
                names.extend(
                    folder
                        .strip_prefix(&root)
                        .ok()
                        .and_then(Path::to_str)
                        .map(str::to_owned),
                );
            } else {
                wanted.push(path);
            }
        }
    }
    names.sort_unstable();
    page(&mut names, query);
    let body = json!({ "repositories": names }).to_string();
    Ok(reply(StatusCode::OK, Body::from(body), "application/json"))
}

async fn names_in(folder: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    let mut entries = fs::read_dir(folder).await?;
    while let Some(entry) = entries.next_entry().await? {
        names.extend(entry.file_name().into_string());
    }
    names.sort_unstable();
    Ok(names)
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
mod tests {
    use super::*;

    const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0rest";
    const MODULE: &[u8] = b"\0asm\x01\0\0\0rest";
    const CONFIG: &[u8] = b"{\"architecture\":\"wasm\"}";

    struct World {
        registry: Registry,
        _dir: tempfile::TempDir,
    }

    fn world() -> World {
        let dir = tempfile::tempdir().unwrap();
        World {
            registry: Registry::open(&dir.path().join("registry")).unwrap(),
            _dir: dir,
        }
    }

    fn master() -> Caller {
        Caller::client_certificate("jo", vec!["system:masters".to_owned()])
    }

    impl World {
        async fn call(
            &self,
            caller: &Caller,
            method: &str,
            path: &str,
            headers: &[(&str, &str)],
            body: &[u8],
        ) -> (u16, HeaderMap, Vec<u8>) {
            let mut request = http::Request::builder().method(method).uri(path);
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            let request = request.body(Body::from(body.to_vec())).unwrap();
            let (head, body) = answer(&self.registry, caller, request).await.into_parts();
            (
                head.status.as_u16(),
                head.headers,
                body.collect().await.unwrap().to_bytes().to_vec(),
            )
        }

        async fn push_blob(&self, content: &[u8]) -> Digest {
            let digest = Digest::of(content);
            let path = format!("/v2/vote/web/blobs/uploads/?digest={digest}");
            assert_eq!(
                self.call(&master(), "POST", &path, &[], content).await.0,
                201
            );
            digest
        }

        async fn push_manifest(&self, tag: &str, layer: &Digest, kind: &str) -> (u16, String) {
            let config = self.push_blob(CONFIG).await;
            let manifest = json!({
                "schemaVersion": 2, "mediaType": MANIFEST,
                "config": { "mediaType": "application/vnd.wasm.config.v0+json", "digest": config.to_string(), "size": CONFIG.len() },
                "layers": [{ "mediaType": kind, "digest": layer.to_string(), "size": 1 }],
            });
            let path = format!("/v2/vote/web/manifests/{tag}");
            let (status, _, body) = self
                .call(
                    &master(),
                    "PUT",
                    &path,
                    &[("content-type", MANIFEST)],
                    manifest.to_string().as_bytes(),
                )
                .await;
            let body: Value = serde_json::from_slice(&body).unwrap_or_default();
            (
                status,
                body["errors"][0]["message"]
                    .as_str()
                    .unwrap_or("")
                    .to_owned(),
            )
        }
    }

    #[tokio::test]
    async fn what_is_pushed_can_be_pulled() {
        let world = world();
        let node = Caller::client_certificate("system:node:a", vec!["system:nodes".to_owned()]);
        // In chunks, as docker and crane send it.
        let (status, headers, _) = world
            .call(&master(), "POST", "/v2/vote/web/blobs/uploads/", &[], b"")
            .await;
        let location = headers["location"].to_str().unwrap().to_owned();
        assert_eq!(status, 202);
        let (status, headers, _) = world
            .call(
                &master(),
                "PATCH",
                &location,
                &[("content-range", "0-7")],
                &COMPONENT[..8],
            )
            .await;
        assert_eq!((status, headers["range"].to_str().unwrap()), (202, "0-7"));
        assert_eq!(
            world
                .call(
                    &master(),
                    "PATCH",
                    &location,
                    &[("content-range", "4-9")],
                    b"x"
                )
                .await
                .0,
            416
        );
        let layer = Digest::of(COMPONENT);
        let (status, headers, _) = world
            .call(
                &master(),
                "PUT",
                &format!("{location}?digest=sha256%3A{}", layer.0),
                &[],
                &COMPONENT[8..],
            )
            .await;
        assert_eq!(
            (status, headers["docker-content-digest"].to_str().unwrap()),
            (201, layer.to_string().as_str())
        );

        assert_eq!(
            world.push_manifest("1", &layer, "application/wasm").await,
            (201, String::new())
        );
        let (status, headers, body) = world
            .call(&node, "GET", "/v2/vote/web/manifests/1", &[], b"")
            .await;
        assert_eq!(
            (status, headers["content-type"].to_str().unwrap()),
            (200, MANIFEST)
        );
        let digest = headers["docker-content-digest"]
            .to_str()
            .unwrap()
            .to_owned();
        assert_eq!(
            world.registry.resolve("vote/web", "1").await,
            Some(digest.clone())
        );
        assert_eq!(
            world
                .call(
                    &node,
                    "GET",
                    &format!("/v2/vote/web/manifests/{digest}"),
                    &[],
                    b""
                )
                .await
                .2,
            body
        );
        let blob = format!("/v2/vote/web/blobs/{layer}");
        assert_eq!(world.call(&node, "GET", &blob, &[], b"").await.2, COMPONENT);
        let (status, headers, body) = world
            .call(&node, "GET", &blob, &[("range", "bytes=8-")], b"")
            .await;
        assert_eq!(
            (
                status,
                headers["content-range"].to_str().unwrap(),
                body.as_slice()
            ),
            (206, "bytes 8-11/12", &b"rest"[..])
        );
        let (status, headers, body) = world.call(&node, "HEAD", &blob, &[], b"").await;
        assert_eq!(
            (
                status,
                headers["content-length"].to_str().unwrap(),
                body.len()
            ),
            (200, "12", 0)
        );
        let (_, _, tags) = world
            .call(&node, "GET", "/v2/vote/web/tags/list", &[], b"")
            .await;
        assert_eq!(tags, br#"{"name":"vote/web","tags":["1"]}"#);
        let (_, _, catalog) = world.call(&node, "GET", "/v2/_catalog", &[], b"").await;
        assert_eq!(catalog, br#"{"repositories":["vote/web"]}"#);
    }

    #[tokio::test]
    async fn refusals() {
        let world = world();
        let node = Caller::client_certificate("system:node:a", vec!["system:nodes".to_owned()]);
        let user = Caller::client_certificate("jo", vec![]);
        let unknown = format!("/v2/vote/web/blobs/sha256:{}", "0".repeat(64));
        let wrong = format!(
            "/v2/vote/web/blobs/uploads/?digest=sha256:{}",
            "0".repeat(64)
        );
        for (caller, method, path, headers, status, code) in [
            (
                &Caller::anonymous(),
                "GET",
                "/v2/",
                &[][..],
                401,
                "UNAUTHORIZED",
            ),
            (&user, "GET", "/v2/", &[], 403, "DENIED"),
            (
                &node,
                "POST",
                "/v2/vote/web/blobs/uploads/",
                &[],
                403,
                "DENIED",
            ),
            (&node, "GET", unknown.as_str(), &[], 404, "BLOB_UNKNOWN"),
            (
                &node,
                "GET",
                "/v2/vote/web/blobs/sha256:xyz",
                &[],
                400,
                "DIGEST_INVALID",
            ),
            (
                &node,
                "GET",
                "/v2/vote/web/manifests/1",
                &[],
                404,
                "MANIFEST_UNKNOWN",
            ),
            (
                &node,
                "GET",
                "/v2/vote/../etc/manifests/1",
                &[],
                400,
                "NAME_INVALID",
            ),
            (
                &node,
                "GET",
                "/v2/Vote/manifests/1",
                &[],
                400,
                "NAME_INVALID",
            ),
            (
                &node,
                "GET",
                "/v2/vote/web/tags/list",
                &[],
                404,
                "NAME_UNKNOWN",
            ),
            (&master(), "POST", &wrong, &[], 400, "DIGEST_INVALID"),
            (
                &master(),
                "PATCH",
                "/v2/vote/web/blobs/uploads/no",
                &[],
                404,
                "BLOB_UPLOAD_UNKNOWN",
            ),
            (&master(), "DELETE", &unknown, &[], 405, "UNSUPPORTED"),
        ] {
            let (got, _, body) = world.call(caller, method, path, headers, b"").await;
            let body: Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(
                (got, body["errors"][0]["code"].as_str().unwrap()),
                (status, code),
                "{method} {path}"
            );
        }
        let (_, headers, _) = world
            .call(&master(), "POST", "/v2/a/blobs/uploads/", &[], b"")
            .await;
        let location = headers["location"].to_str().unwrap().to_owned();
        let huge = (BLOB_BYTES_MAX + 1).to_string();
        assert_eq!(
            world
                .call(
                    &master(),
                    "PATCH",
                    &location,
                    &[("content-length", &huge)],
                    b""
                )
                .await
                .0,
            413
        );
        let large = vec![b' '; MANIFEST_BYTES_MAX + 1];
        assert_eq!(
            world
                .call(
                    &master(),
                    "PUT",
                    "/v2/a/manifests/1",
                    &[("content-type", MANIFEST)],
                    &large
                )
                .await
                .0,
            413
        );
    }

    #[tokio::test]
    async fn only_components_are_taken_as_wasm_layers() {
        let world = world();
        let module = world.push_blob(MODULE).await;
        let text = world.push_blob(b"hello").await;
        let absent = Digest::of(b"absent");
        for (layer, kind, status, ending) in [
            (
                &module,
                "application/wasm",
                400,
                "is a core module, not a component; build it for wasm32-wasip2, or wrap it with `wasm-tools component new`",
            ),
            (&text, "application/wasm", 400, "is not WebAssembly"),
            (
                &absent,
                "application/wasm",
                404,
                "which has not been uploaded",
            ),
            (&text, "text/plain", 201, ""),
        ] {
            let (got, message) = world.push_manifest("2", layer, kind).await;
            assert_eq!(got, status, "{message}");
            assert!(message.ends_with(ending), "{message}");
        }
    }

    #[test]
    fn names_and_paths() {
        for name in ["a", "vote/web", "a.b_c__d-e--f/0"] {
            assert!(is_name(name), "{name}");
        }
        for name in [
            "",
            "/a",
            "a/",
            "a//b",
            "..",
            ".a",
            "a..b",
            "a___b",
            "_manifests",
            "A",
            "a b",
        ] {
            assert!(!is_name(name), "{name}");
        }
        assert!(
            is_tag("v1.0-rc_1")
                && !is_tag("")
                && !is_tag("-a")
                && !is_tag("a/b")
                && !is_tag(&"a".repeat(129))
        );
        assert_eq!(resource("/v2"), Some(Resource::Ping));
        assert_eq!(
            resource("/v2/a/b/blobs/uploads/"),
            Some(Resource::Uploads { name: "a/b" })
        );
        assert_eq!(
            resource("/v2/a/b/blobs/uploads/x"),
            Some(Resource::Upload {
                name: "a/b",
                id: "x"
            })
        );
        assert_eq!(
            resource("/v2/a/b/manifests/1"),
            Some(Resource::Manifest {
                name: "a/b",
                reference: "1"
            })
        );
        assert_eq!(
            resource("/v2/a/tags/manifests/tags/list"),
            Some(Resource::Tags {
                name: "a/tags/manifests"
            })
        );
        assert_eq!(resource("/v2/a"), None);
    }

    #[test]
    fn byte_ranges() {
        for (range, expected) in [
            ("bytes=0-3", Some((0, 3))),
            ("bytes=5-", Some((5, 9))),
            ("bytes=-4", Some((6, 9))),
            ("bytes=2-99", Some((2, 9))),
            ("bytes=10-", None),
            ("bytes=3-2", None),
            ("bytes=a-b", None),
            ("lines=0-1", None),
        ] {
            assert_eq!(byte_range(range, 10), expected, "{range}");
        }
    }
}
