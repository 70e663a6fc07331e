//! Images: from a reference to the bytes of a component, fetched once, verified, cached by digest.
//!
//! An image without a registry host comes from the cluster's own registry, over the API server's address and this node's
//! certificate. With a host it comes from there, anonymously. `file:` images are read from disk where the node allows it.
//!
//! Invariants: bytes are used only after their SHA-256 is the digest the manifest names, also when they come from the cache;
//! of several containers that want one image at once, one fetches and the others wait; at most [`PULLS_AT_ONCE`] fetch, each
//! for at most [`PULL_MAX`].
//!
//! Left to others: compiling (`weft_runtime`), the words in a pod's status (`status`).

use crate::identity::Link;
use bytes::Bytes;
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use parking_lot::Mutex;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::AsyncReadExt as _;
use tokio::sync::Semaphore;
use weft_api::image::{ImageReference, RegistryReference};

/// Largest component accepted: the most that the engine compiles.
pub const COMPONENT_BYTES_MAX: u64 = 64 << 20;
/// Largest manifest accepted; the distribution specification's own bound.
const MANIFEST_BYTES_MAX: usize = 4 << 20;
/// Images fetched at once: enough to hide latency, few enough to leave the network to traffic.
const PULLS_AT_ONCE: usize = 4;
/// How long a registry elsewhere may take to be reached, to say anything, and for a whole image (64 MiB at 2 Mbit/s): who falls
/// silent would keep a place for ever, and [`PULLS_AT_ONCE`] of them every image of the node.
const FOREIGN_CONNECT_MAX: Duration = Duration::from_secs(10);
const FOREIGN_READ_MAX: Duration = Duration::from_secs(30);
const PULL_MAX: Duration = Duration::from_secs(300);
/// What the registry is asked for.
const MANIFEST_TYPES: &str = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.v2+json";
/// Media types of a layer that is a component: the Wasm OCI artefact's, and those that older tools still write (runwasi,
/// wasmCloud, Spin, `wasm-to-oci`).
const COMPONENT_TYPES: [&str; 7] = [
    "application/wasm",
    "application/vnd.wasm.content.layer.v1+wasm",
    "application/vnd.module.wasm.content.layer.v1+wasm",
    "application/vnd.wasm.component.layer.v0+wasm",
    "application/vnd.bytecodealliance.wasm.component.layer.v0+wasm",
    "application/vnd.wasmcloud.component.layer.v0+wasm",
    "application/vnd.fermyon.spin.wasm.v1+wasm",
];

/// Why an image cannot be had; the message of `ErrImagePull`.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ImageError {
    #[error("{0}")]
    Name(#[from] weft_api::image::ImageReferenceError),
    #[error("image \"{image}\" is a file, and this node was not started with --allow-file-images")]
    FilesForbidden { image: String },
    #[error("image \"{image}\" is not present on this node and its pull policy is Never")]
    Never { image: String },
    #[error(
        "the cluster's registry has no {image}: put a component there with `weft push FILE {image}`"
    )]
    NotPushed { image: String },
    #[error("the registry has no {image}")]
    NotFound { image: String },
    #[error("there is no file {path} on this node")]
    NoFile { path: String },
    #[error("{reason}")]
    Failed { reason: String },
    #[error("image \"{image}\" holds no WebAssembly component: {reason}")]
    NotWasm { image: String, reason: String },
    #[error(
        "image \"{image}\" has {bytes} bytes, more than the {COMPONENT_BYTES_MAX} a node accepts"
    )]
    TooLarge { image: String, bytes: u64 },
    #[error("image \"{image}\": content does not match its digest {digest}")]
    Digest { image: String, digest: String },
}

/// `imagePullPolicy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PullPolicy {
    Always,
    IfNotPresent,
    Never,
}

/// A component that is here.
#[derive(Clone, Debug)]
pub struct Image {
    /// As `imageID` shows it: `repository@sha256:…` of the manifest, or of the content for a file.
    pub id: String,
    pub bytes: Bytes,
    /// Whether it had to be fetched.
    pub fetched: bool,
}

/// The images of a node. Clones share them.
#[derive(Clone)]
pub struct Images {
    inner: Arc<Inner>,
}

type Pull = Shared<BoxFuture<'static, Result<Image, ImageError>>>;

struct Inner {
    link: Link,
    folder: PathBuf,
    files_allowed: bool,
    slots: Semaphore,
    under_way: Mutex<HashMap<(String, PullPolicy), Pull>>,
    /// Which manifest and which layer a reference led to; what `IfNotPresent` goes by.
    known: Mutex<HashMap<String, Resolved>>,
}

#[derive(Clone, Debug)]
struct Resolved {
    manifest: String,
    layer: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Manifest {
    #[serde(default)]
    layers: Vec<Descriptor>,
    /// An index instead of a manifest.
    #[serde(default)]
    manifests: Vec<Descriptor>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    media_type: String,
    digest: String,
    #[serde(default)]
    size: u64,
    #[serde(default)]
    platform: Option<Platform>,
}

#[derive(Clone, Debug, Deserialize)]
struct Platform {
    #[serde(default)]
    architecture: String,
}

impl Images {
    /// The images kept in `folder`.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn open(link: Link, folder: &Path, files_allowed: bool) -> io::Result<Self> {
        std::fs::create_dir_all(folder.join("sha256"))?;
        let inner = Inner {
            link,
            folder: folder.to_owned(),
            files_allowed,
            slots: Semaphore::new(PULLS_AT_ONCE),
            under_way: Mutex::default(),
            known: Mutex::default(),
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// Whether `image` has been resolved before, so that it need not be fetched under `IfNotPresent`.
    pub fn knows(&self, image: &str) -> bool {
        self.inner.known.lock().contains_key(image)
    }

    /// Id and content digest of an image that was resolved before: enough for one that runs already, whose bytes need not be
    /// read again for every further pod.
    pub fn resolved(&self, image: &str) -> Option<(String, String)> {
        let resolved = self.inner.known.lock().get(image).cloned()?;
        match image.parse::<ImageReference>().ok()? {
            ImageReference::Registry(reference) => {
                Some((image_id(&reference, &resolved.manifest), resolved.layer))
            }
            ImageReference::File(_) => None,
        }
    }

    /// Gets an image.
    ///
    /// # Errors
    /// [`ImageError`], the message of the container's status.
    pub async fn get(&self, image: &str, policy: PullPolicy) -> Result<Image, ImageError> {
        let key = (image.to_owned(), policy);
        let pull = {
            let mut under_way = self.inner.under_way.lock();
            under_way
                .entry(key.clone())
                .or_insert_with(|| {
                    let (inner, image) = (self.inner.clone(), image.to_owned());
                    async move { inner.get(&image, policy).await }
                        .boxed()
                        .shared()
                })
                .clone()
        };
        let result = pull.clone().await;
        let mut under_way = self.inner.under_way.lock();
        if under_way
            .get(&key)
            .is_some_and(|current| current.ptr_eq(&pull))
        {
            under_way.remove(&key);
        }
        result
    }
}

impl Inner {
    async fn get(&self, image: &str, policy: PullPolicy) -> Result<Image, ImageError> {
        let reference = match image.parse::<ImageReference>()? {
            ImageReference::File(path) => return self.file(image, PathBuf::from(path)).await,
            ImageReference::Registry(reference) => reference,
        };
        let known = self.known.lock().get(image).cloned();
        if policy != PullPolicy::Always
            && let Some(resolved) = known
            && let Some(bytes) = self.cached(&resolved.layer).await
        {
            return Ok(Image {
                id: image_id(&reference, &resolved.manifest),
                bytes,
                fetched: false,
            });
        }
        if policy == PullPolicy::Never {
            return Err(ImageError::Never {
                image: image.into(),
            });
        }
        let _slot = self.slots.acquire().await;
        let pull = async {
            let (manifest, layer) = self.resolve(image, &reference).await?;
            let (bytes, fetched) = match self.cached(&layer.digest).await {
                Some(bytes) => (bytes, false),
                None => (self.fetch(image, &reference, &layer).await?, true),
            };
            Ok::<_, ImageError>((manifest, layer, bytes, fetched))
        };
        let (manifest, layer, bytes, fetched) = tokio::time::timeout(PULL_MAX, pull)
            .await
            .map_err(|_| ImageError::Failed {
                reason: format!("it is not here after {} s", PULL_MAX.as_secs()),
            })??;
        self.known.lock().insert(
            image.to_owned(),
            Resolved {
                manifest: manifest.clone(),
                layer: layer.digest,
            },
        );
        Ok(Image {
            id: image_id(&reference, &manifest),
            bytes,
            fetched,
        })
    }

    async fn file(&self, image: &str, path: PathBuf) -> Result<Image, ImageError> {
        if !self.files_allowed {
            return Err(ImageError::FilesForbidden {
                image: image.into(),
            });
        }
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound => ImageError::NoFile {
                path: path.display().to_string(),
            },
            _ => ImageError::Failed {
                reason: error.to_string(),
            },
        };
        let found = tokio::fs::metadata(&path).await.map_err(failed)?;
        // A device or a pipe has no size and no end.
        if !found.is_file() {
            return Err(ImageError::Failed {
                reason: format!("{} is no regular file", path.display()),
            });
        }
        let mut bytes = Vec::with_capacity(found.len().min(COMPONENT_BYTES_MAX + 1) as usize);
        let file = tokio::fs::File::open(&path).await.map_err(failed)?;
        let mut file = file.take(COMPONENT_BYTES_MAX + 1);
        file.read_to_end(&mut bytes).await.map_err(failed)?;
        if bytes.len() as u64 > COMPONENT_BYTES_MAX {
            return Err(ImageError::TooLarge {
                image: image.into(),
                bytes: found.len().max(bytes.len() as u64),
            });
        }
        let (digest, bytes) = digest(Bytes::from(bytes)).await;
        Ok(Image {
            id: format!("file@{digest}"),
            bytes,
            fetched: true,
        })
    }

    /// From a tag or digest to the manifest's digest and the layer that is the component.
    async fn resolve(
        &self,
        image: &str,
        reference: &RegistryReference,
    ) -> Result<(String, Descriptor), ImageError> {
        let (mut digest, mut manifest) = self
            .manifest(image, reference, reference.reference().to_owned())
            .await?;
        if let Some(chosen) = manifest.of_index() {
            let chosen = chosen.map_err(|reason| ImageError::Failed { reason })?;
            (digest, manifest) = self.manifest(image, reference, chosen).await?;
        }
        let layer = manifest.component().map_err(|reason| ImageError::NotWasm {
            image: image.into(),
            reason,
        })?;
        if layer.size > COMPONENT_BYTES_MAX {
            return Err(ImageError::TooLarge {
                image: image.into(),
                bytes: layer.size,
            });
        }
        Ok((digest, layer.clone()))
    }

    async fn manifest(
        &self,
        image: &str,
        reference: &RegistryReference,
        which: String,
    ) -> Result<(String, Manifest), ImageError> {
        let bytes = match &reference.host {
            None => {
                self.own_registry(
                    image,
                    &format!("/v2/{}/manifests/{which}", reference.repository),
                    MANIFEST_TYPES,
                    MANIFEST_BYTES_MAX,
                )
                .await?
            }
            Some(host) => {
                let client = foreign_client();
                let named = foreign(host, &reference.repository, &which)?;
                let types: Vec<&str> = MANIFEST_TYPES.split(", ").collect();
                let (bytes, _) = client
                    .pull_manifest_raw(
                        &named,
                        &oci_client::secrets::RegistryAuth::Anonymous,
                        &types,
                    )
                    .await
                    .map_err(|error| foreign_error(image, &error))?;
                Bytes::from(bytes.to_vec())
            }
        };
        let (actual, bytes) = digest(bytes).await;
        if which.starts_with("sha256:") && which != actual {
            return Err(ImageError::Digest {
                image: image.into(),
                digest: which,
            });
        }
        let manifest = Manifest::read(&bytes).map_err(|error| ImageError::Failed {
            reason: format!("its manifest is malformed: {error}"),
        })?;
        Ok((actual, manifest))
    }

    async fn fetch(
        &self,
        image: &str,
        reference: &RegistryReference,
        layer: &Descriptor,
    ) -> Result<Bytes, ImageError> {
        let most = usize::try_from(COMPONENT_BYTES_MAX).unwrap_or(usize::MAX);
        let bytes = match &reference.host {
            None => {
                self.own_registry(
                    image,
                    &format!("/v2/{}/blobs/{}", reference.repository, layer.digest),
                    "*/*",
                    most,
                )
                .await?
            }
            Some(host) => {
                let named = foreign(host, &reference.repository, reference.reference())?;
                let descriptor = oci_client::manifest::OciDescriptor {
                    media_type: layer.media_type.clone(),
                    digest: layer.digest.clone(),
                    size: i64::try_from(layer.size).unwrap_or(i64::MAX),
                    ..oci_client::manifest::OciDescriptor::default()
                };
                let mut blob = Bounded {
                    bytes: Vec::new(),
                    most,
                };
                foreign_client()
                    .pull_blob(&named, &descriptor, &mut blob)
                    .await
                    .map_err(|error| foreign_error(image, &error))?;
                Bytes::from(blob.bytes)
            }
        };
        let (actual, bytes) = digest(bytes).await;
        if actual != layer.digest {
            return Err(ImageError::Digest {
                image: image.into(),
                digest: layer.digest.clone(),
            });
        }
        if let Err(error) = self.keep(&actual, &bytes).await {
            // The image is here all the same; only the next start pays again.
            tracing::warn!(image, %error, "image not cached");
        }
        Ok(bytes)
    }

    /// A GET on the cluster's registry, which answers on the API server's address under this node's certificate.
    async fn own_registry(
        &self,
        image: &str,
        path: &str,
        accept: &str,
        most: usize,
    ) -> Result<Bytes, ImageError> {
        let failed = |reason: String| ImageError::Failed { reason };
        let request = http::Request::get(path)
            .header(http::header::ACCEPT, accept)
            .body(kube::client::Body::empty())
            .map_err(|error| failed(error.to_string()))?;
        let response = self
            .link
            .client()
            .send(request)
            .await
            .map_err(|error| failed(crate::identity::Chain(&error).to_string()))?;
        match response.status() {
            status if status.is_success() => {}
            http::StatusCode::NOT_FOUND => {
                return Err(ImageError::NotPushed {
                    image: image.into(),
                });
            }
            status => return Err(failed(format!("the registry answered {status}"))),
        }
        match Limited::new(response.into_body(), most).collect().await {
            Ok(collected) => Ok(collected.to_bytes()),
            Err(error) if error.is::<LengthLimitError>() => Err(ImageError::TooLarge {
                image: image.into(),
                bytes: most as u64 + 1,
            }),
            Err(error) => Err(failed(error.to_string())),
        }
    }

    fn path(&self, digest: &str) -> PathBuf {
        self.folder.join(digest.replacen(':', "/", 1))
    }

    /// The content of a digest, if it is on disk and sound.
    async fn cached(&self, wanted: &str) -> Option<Bytes> {
        if !weft_api::image::is_digest(wanted) {
            return None;
        }
        let path = self.path(wanted);
        let bytes = Bytes::from(tokio::fs::read(&path).await.ok()?);
        let (actual, bytes) = digest(bytes).await;
        if actual == wanted {
            return Some(bytes);
        }
        tracing::warn!(path = %path.display(), "a cached image was damaged and is fetched again");
        let _ = tokio::fs::remove_file(&path).await;
        None
    }

    async fn keep(&self, digest: &str, bytes: &Bytes) -> io::Result<()> {
        let path = self.path(digest);
        let temporary = path.with_extension(format!("{:08x}", rand::random::<u32>()));
        tokio::fs::write(&temporary, bytes).await?;
        tokio::fs::rename(&temporary, &path).await
    }
}

/// Media types that a message names, and bytes of each: a manifest may have thousands.
const TOLD_MAX: usize = 4;
const TOLD_BYTES_MAX: usize = 100;

impl Manifest {
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes)
    }

    /// Of an index, the digest of the manifest to take: the one for Wasm, or the first. Nothing but a digest: it becomes a part
    /// of a path, and what it leads to is checked against it.
    pub(crate) fn of_index(&self) -> Option<Result<String, String>> {
        if !self.layers.is_empty() {
            return None;
        }
        let is_wasm = |descriptor: &&Descriptor| {
            let platform = descriptor.platform.as_ref();
            platform.is_some_and(|platform| platform.architecture == "wasm")
        };
        let mut all = self.manifests.iter();
        let chosen = all.find(is_wasm).or(self.manifests.first())?;
        Some(chosen.digest().map(str::to_owned))
    }

    /// The layer that is the component: the only one with a Wasm media type, or the first of them.
    pub(crate) fn component(&self) -> Result<&Descriptor, String> {
        let is_component =
            |layer: &&Descriptor| COMPONENT_TYPES.contains(&layer.media_type.as_str());
        if let Some(layer) = self.layers.iter().find(is_component) {
            return layer.digest().map(|_| layer);
        }
        let mut found: Vec<&str> = self.layers.iter().map(|l| l.media_type.as_str()).collect();
        found.dedup();
        if found.is_empty() {
            return Err("it has no layers".to_owned());
        }
        let named = found.iter().take(TOLD_MAX).map(|text| start_of(text));
        let more = if found.len() > TOLD_MAX { ", …" } else { "" };
        let named: Vec<&str> = named.collect();
        Err(format!("its layers are {}{more}", named.join(", ")))
    }
}

impl Descriptor {
    fn digest(&self) -> Result<&str, String> {
        if weft_api::image::is_digest(&self.digest) {
            return Ok(&self.digest);
        }
        let told = start_of(&self.digest);
        Err(format!(
            "its manifest names the unsupported digest {told:?}"
        ))
    }
}

fn start_of(text: &str) -> &str {
    &text[..text.floor_char_boundary(TOLD_BYTES_MAX)]
}

fn image_id(reference: &RegistryReference, manifest: &str) -> String {
    match &reference.host {
        Some(host) => format!("{host}/{}@{manifest}", reference.repository),
        None => format!("{}@{manifest}", reference.repository),
    }
}

/// What a registry sends, which may be more than it announced.
struct Bounded {
    bytes: Vec<u8>,
    most: usize,
}

impl tokio::io::AsyncWrite for Bounded {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        more: &[u8],
    ) -> Poll<io::Result<usize>> {
        if more.len() > self.most - self.bytes.len() {
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!("the registry sends more than {} bytes", self.most),
            )));
        }
        self.bytes.extend_from_slice(more);
        Poll::Ready(Ok(more.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// `sha256:…` of `bytes`, computed off the async threads.
async fn digest(bytes: Bytes) -> (String, Bytes) {
    let hash = |bytes: &[u8]| format!("sha256:{:x}", Sha256::digest(bytes));
    let moved = bytes.clone();
    match tokio::task::spawn_blocking(move || hash(&moved)).await {
        Ok(digest) => (digest, bytes),
        // The pool is shutting down with the process; the answer is still owed.
        Err(_) => (hash(&bytes), bytes),
    }
}

fn foreign_client() -> oci_client::Client {
    oci_client::Client::new(oci_client::client::ClientConfig {
        connect_timeout: Some(FOREIGN_CONNECT_MAX),
        read_timeout: Some(FOREIGN_READ_MAX),
        ..oci_client::client::ClientConfig::default()
    })
}

fn foreign(host: &str, repository: &str, which: &str) -> Result<oci_client::Reference, ImageError> {
    let separator = if which.starts_with("sha256:") {
        '@'
    } else {
        ':'
    };
    format!("{host}/{repository}{separator}{which}")
        .parse()
        .map_err(|error: oci_client::ParseError| ImageError::Failed {
            reason: error.to_string(),
        })
}

fn foreign_error(image: &str, error: &oci_client::errors::OciDistributionError) -> ImageError {
    use oci_client::errors::OciDistributionError as Error;
    match error {
        Error::ImageManifestNotFoundError(_) => ImageError::NotFound {
            image: image.into(),
        },
        other => ImageError::Failed {
            reason: crate::identity::Chain(other).to_string(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    const DIGEST: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

    fn manifest(value: &Value) -> Manifest {
        Manifest::read(value.to_string().as_bytes()).expect("a manifest")
    }

    #[test]
    fn the_component_is_found_among_other_layers() {
        let of = |types: &[&str]| {
            let layers = types
                .iter()
                .map(|media_type| json!({"mediaType": media_type, "digest": DIGEST}));
            let manifest = manifest(&json!({"layers": layers.collect::<Vec<_>>()}));
            manifest.component().map(|layer| layer.media_type.clone())
        };
        let found = |media_type: &str| Ok(media_type.to_owned());
        let tar = "application/vnd.oci.image.layer.v1.tar";
        let wasm = "application/vnd.wasm.content.layer.v1+wasm";
        assert_eq!(of(&["application/wasm"]), found("application/wasm"));
        assert_eq!(of(&[tar, wasm]), found(wasm));
        assert_eq!(of(&[tar]), Err(format!("its layers are {tar}")));
        assert_eq!(of(&[]), Err("it has no layers".to_owned()));
        let many: Vec<String> = (0..9000)
            .map(|n| format!("{n}{}", "é".repeat(200)))
            .collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert!(of(&many).expect_err("none is a component").len() < 500);
    }

    /// What an index names becomes a part of a path on the API server's address, asked for with this node's certificate.
    #[test]
    fn an_index_leads_to_a_digest_or_nowhere() {
        let of = |manifests: Value| manifest(&json!({"manifests": manifests})).of_index();
        let other = format!("sha256:{}", "b".repeat(64));
        let amd64 =
            json!({"mediaType": "m", "digest": DIGEST, "platform": {"architecture": "amd64"}});
        let wasm = json!({"mediaType": "m", "digest": other, "platform": {"architecture": "wasm"}});
        assert_eq!(of(json!([amd64, wasm])), Some(Ok(other)));
        assert_eq!(of(json!([amd64])), Some(Ok(DIGEST.to_owned())));
        assert_eq!(of(json!([])), None);
        for elsewhere in ["latest", "../../../../api/v1/secrets", "sha256:12", ""] {
            let told = of(json!([{"mediaType": "m", "digest": elsewhere}])).expect("an index");
            assert_eq!(
                told,
                Err(format!(
                    "its manifest names the unsupported digest {elsewhere:?}"
                ))
            );
        }
    }

    proptest! {
        #![proptest_config(crate::properties::config())]

        #[test]
        fn whatever_a_registry_sends_leads_to_a_digest_or_to_a_sentence(
            bytes in proptest::collection::vec(any::<u8>(), 0..60),
            entries in proptest::collection::vec((
                proptest::sample::select(vec!["application/wasm", "x", ""]),
                prop_oneof![Just(DIGEST.to_owned()), any::<String>(), "(sha256:)?[0-9a-f]{62,66}"],
                prop_oneof![Just(json!(1)), any::<u64>().prop_map(Value::from), any::<i64>().prop_map(Value::from), Just(Value::Null)],
                proptest::option::of("wasm|amd64|.{0,3}"),
            ), 0..4),
            is_index in any::<bool>(),
        ) {
            let _ = Manifest::read(&bytes);
            let entries = entries.into_iter().map(|(media_type, digest, size, architecture)| {
                json!({"mediaType": media_type, "digest": digest, "size": size, "platform": {"architecture": architecture.unwrap_or_default()}})
            });
            let entries: Vec<Value> = entries.collect();
            let text = json!({if is_index { "manifests" } else { "layers" }: entries}).to_string();
            let Ok(manifest) = Manifest::read(text.as_bytes()) else { return Ok(()) };
            if let Some(Ok(digest)) = manifest.of_index() {
                prop_assert!(weft_api::image::is_digest(&digest) && is_index);
            }
            match manifest.component() {
                Ok(layer) => prop_assert!(weft_api::image::is_digest(&layer.digest)),
                Err(told) => prop_assert!(told.len() < 1000),
            }
        }
    }

    #[test]
    fn an_image_id_is_the_repository_and_the_manifest() {
        let Ok(ImageReference::Registry(reference)) = "vote/web:1".parse() else {
            panic!("a registry reference")
        };
        assert_eq!(image_id(&reference, "sha256:ab"), "vote/web@sha256:ab");
    }

    #[tokio::test]
    async fn attack_14_a_registry_that_sends_without_end_is_cut_off() {
        use tokio::io::AsyncWriteExt as _;
        let mut blob = Bounded {
            bytes: Vec::new(),
            most: 10,
        };
        blob.write_all(b"0123456789").await.expect("it fits");
        let error = blob.write_all(b"!").await.expect_err("one too many");
        assert_eq!(error.to_string(), "the registry sends more than 10 bytes");
        assert_eq!(blob.bytes, b"0123456789");
    }
}
