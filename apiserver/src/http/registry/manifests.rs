//! Manifests: which blobs make an image, by tag and by digest.
//!
//! Invariants: every blob a manifest names was there when it was pushed; a layer of type `application/wasm` is a component;
//! a manifest is served as the bytes that were pushed.

use std::io;
use std::path::PathBuf;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use http::{StatusCode, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde_json::Value;
use tokio::fs;
use tokio::io::AsyncReadExt as _;

use super::{CONTENT_DIGEST, Digest, Registry, RegistryError, is_tag, reply, set};

/// Largest manifest, as the distribution specification suggests.
pub(super) const MANIFEST_BYTES_MAX: usize = 4 << 20;

/// Blobs that one manifest may name; each costs a look at the disk.
const REFERENCES_MAX: usize = 1024;

pub(super) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(super) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFESTS: &[&str] = &[
    MANIFEST,
    "application/vnd.docker.distribution.manifest.v2+json",
];
pub(super) const INDEXES: &[&str] = &[
    INDEX,
    "application/vnd.docker.distribution.manifest.list.v2+json",
];

/// Layers that hold one Wasm binary: ours, and the older forms nodes still read.
pub(super) const WASM_LAYERS: &[&str] = &[
    "application/wasm",
    "application/vnd.module.wasm.content.layer.v1+wasm",
];

pub(super) async fn get_manifest(
    registry: &Registry,
    name: &str,
    reference: &str,
) -> Result<Response, RegistryError> {
    let unknown = || RegistryError::ManifestUnknown(format!("{name}:{reference}"));
    let digest = if reference.contains(':') {
        Digest::parse(reference)
            .ok_or_else(|| RegistryError::ReferenceInvalid(reference.to_owned()))?
    } else if is_tag(reference) {
        registry
            .tags
            .get(name, reference)
            .await
            .ok_or_else(unknown)?
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

/// Lets a tag stand for nothing. What it stood for stays under its digest, for who names that: manifests are files of each server,
/// and only tags are the same on all of them.
pub(super) async fn delete_tag(
    registry: &Registry,
    name: &str,
    reference: &str,
) -> Result<Response, RegistryError> {
    if reference.contains(':') {
        return Err(RegistryError::Unsupported);
    }
    if !is_tag(reference) {
        return Err(RegistryError::ReferenceInvalid(reference.to_owned()));
    }
    if registry.tags.get(name, reference).await.is_none() {
        return Err(RegistryError::ManifestUnknown(format!(
            "{name}:{reference}"
        )));
    }
    registry.tags.delete(name, reference).await?;
    tracing::info!(repository = name, reference, "tag removed");
    Ok(reply(StatusCode::ACCEPTED, Body::empty(), ""))
}

pub(super) async fn put_manifest(
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
        registry.tags.set(name, reference, &digest).await?;
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
