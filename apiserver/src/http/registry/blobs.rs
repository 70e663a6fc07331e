//! Blobs: bytes under their digest, and the uploads that become them.
//!
//! An upload grows in a file of its own and becomes a blob by a rename, after its digest was verified and its bytes are on
//! the disk. Invariants: nothing but whole, verified blobs is ever served; unfinished uploads are bounded in number, size
//! and silence.

use std::collections::HashMap;
use std::io;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use http::header::{self, HeaderName};
use http::{HeaderMap, Method, StatusCode};
use http_body_util::BodyExt as _;
use sha2::{Digest as _, Sha256};
use tokio::fs;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _, AsyncWriteExt as _};
use tokio_util::io::ReaderStream;
use uuid::Uuid;

use super::{
    CONTENT_DIGEST, Digest, Registry, RegistryError, UPLOADS_MAX, parse_digest, rename_durably,
    reply, set,
};

/// Largest layer. A component with an embedded language runtime has about 40 MiB.
pub(super) const BLOB_BYTES_MAX: u64 = 256 << 20;

/// After this long without a byte an upload counts as abandoned. Slow links send something every few seconds.
const UPLOAD_SILENCE_MAX: Duration = Duration::from_secs(3600);

const UPLOAD_ID: HeaderName = HeaderName::from_static("docker-upload-uuid");

pub(super) async fn start_upload(
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

pub(super) fn upload_reply(status: StatusCode, name: &str, id: Uuid, held: u64) -> Response {
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

pub(super) async fn held_bytes(registry: &Registry, id: Uuid) -> Result<u64, RegistryError> {
    match fs::metadata(registry.upload(id)).await {
        Ok(metadata) => Ok(metadata.len()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(RegistryError::UploadUnknown(id.to_string()))
        }
        Err(error) => Err(error.into()),
    }
}

/// Streams the body to the end of the upload's file; gives the bytes held then. Too large an upload is dropped.
pub(super) async fn append(
    registry: &Registry,
    id: Uuid,
    request: Request,
) -> Result<u64, RegistryError> {
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
pub(super) async fn finish(
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

pub(super) async fn get_blob(
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

#[cfg(test)]
mod tests {
    use super::*;

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
