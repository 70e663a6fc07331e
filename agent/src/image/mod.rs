//! Images: from a reference to the bytes of a component, fetched once, verified, cached by digest.
//!
//! ```text
//! get ──► under_way: a task a wish ──► places: an account a namespace ──► own | remote ──► manifest ──► kept
//!                                                                               └ registries, egress, token, keyring
//! ```
//!
//! An image without a registry host comes from the cluster's own registry, over the API server's address and this node's
//! certificate. With a host it comes from there or from a mirror of it, with the pod's credentials for it, else with the node's, else
//! anonymously. `file:` images are read from disk where the node allows it. The image [`TOOLBOX`] is on every node from its beginning: whoever
//! pushes one of that name to the cluster's registry has it pulled where the policy asks the registry, and the node's own stands for it otherwise.
//!
//! Invariants: bytes are used only after their SHA-256 is the digest the manifest names, also when they come from the cache; what is
//! fetched is on disk, a piece of it in memory; of several containers of a namespace that want one image at once, one fetches and the
//! others wait; a pull that nobody waits for any more ends at once, and its place is the next one's; every pull ends within
//! [`Limits::pull`].
//!
//! Left to others: compiling (`weft_runtime`), the words in a pod's status (`status`).

mod egress;
mod fault;
mod files;
mod kept;
mod keyring;
mod manifest;
mod own;
mod places;
mod registries;
mod remote;
#[cfg(test)]
mod tests;
mod token;

pub use self::fault::{ImageError, Others};
pub use self::keyring::{Credential, Keyring};
pub use self::registries::{Registries, RegistriesError};

use self::fault::Fault;
pub(crate) use self::files::{Held, unpack};
use self::kept::{Kept, Resolved};
use self::manifest::{Content, Document};
use self::own::Own;
use self::places::{Crowded, Places};
use self::registries::{Endpoint, Origin};
use self::remote::{Body, Kind, Remote};
use crate::identity::Link;
use bytes::Bytes;
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use tokio::io::AsyncReadExt as _;
use tokio::sync::oneshot;
use tokio_util::task::AbortOnDropHandle;
use weft_api::image::{ImageReference, RegistryReference};

/// Largest component accepted: the most that the engine compiles.
pub const COMPONENT_BYTES_MAX: u64 = 64 << 20;
/// Largest manifest accepted; the distribution specification's own bound.
const MANIFEST_BYTES_MAX: usize = 4 << 20;
/// What the name of the cluster's own registry is in messages.
const OWN_NAME: &str = "the cluster's registry";

/// The image of the component that every node has: a shell and its tools.
const TOOLBOX: &str = "toolbox";

/// How long each part of a pull may take.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// To resolve a name and to connect, TLS included.
    connect: Duration,
    /// Until an answer begins, and between two pieces of it.
    silent: Duration,
    /// A manifest, and a token, from asking to its last byte.
    document: Duration,
    /// A whole image, from all places that are asked for it: 64 MiB at 2 Mbit/s. Who sends a byte now and then holds a place so long.
    pull: Duration,
    /// For a place to pull in.
    wait: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            silent: Duration::from_secs(30),
            document: Duration::from_secs(45),
            pull: Duration::from_secs(300),
            wait: Duration::from_secs(600),
        }
    }
}

/// `imagePullPolicy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PullPolicy {
    Always,
    IfNotPresent,
    Never,
}

/// An image that a container wants.
#[derive(Clone, Debug)]
pub struct Wish {
    pub image: String,
    pub policy: PullPolicy,
    /// Whose account it is on.
    pub namespace: String,
    /// What the pod brings for its registry.
    pub keyring: Keyring,
    /// The node's own toolbox may stand for the image of that name.
    pub toolbox: bool,
}

/// A component that is here.
#[derive(Clone, Debug)]
pub struct Image {
    /// As `imageID` shows it: `repository@sha256:…` of the manifest, or of the content for a file.
    pub id: String,
    /// Empty where its files are wished for.
    pub bytes: Bytes,
    /// Where its files are, if those are wished for, the lowest layer first.
    pub(crate) layers: Arc<[Held]>,
    /// Whether it had to be fetched.
    pub fetched: bool,
}

/// What is wished for of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Want {
    Component,
    Files,
}

impl Want {
    /// Under which name is remembered where an image led to. No reference has a space.
    fn remembered(self, image: &str) -> Cow<'_, str> {
        match self {
            Self::Component => Cow::Borrowed(image),
            Self::Files => Cow::Owned(format!("{image} files")),
        }
    }
}

/// The images of a node. Clones share them.
#[derive(Clone)]
pub struct Images {
    inner: Arc<Inner>,
}

/// What makes two wishes one pull. Namespaces do not share: who waits for another's pull would wait in that one's account.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    image: String,
    want: Want,
    policy: PullPolicy,
    namespace: String,
    credentials: Vec<String>,
}

/// A pull that somebody waits for. When the last one goes, it ends.
struct Pull {
    result: Shared<BoxFuture<'static, Result<Image, ImageError>>>,
    _task: AbortOnDropHandle<()>,
}

#[derive(Default)]
struct UnderWay {
    pulls: HashMap<Key, (u64, Weak<Pull>)>,
    /// Of the next pull: what an earlier one leaves behind is told apart by it.
    number: u64,
}

/// Takes a pull out of those under way, however its task ends.
struct Listed {
    inner: Arc<Inner>,
    key: Key,
    number: u64,
}

impl Drop for Listed {
    fn drop(&mut self) {
        let mut under_way = self.inner.under_way.lock();
        let listed = under_way.pulls.get(&self.key);
        if listed.is_some_and(|(number, _)| *number == self.number) {
            under_way.pulls.remove(&self.key);
        }
    }
}

struct Inner {
    files_allowed: bool,
    limits: Limits,
    kept: Kept,
    own: Own,
    remote: Remote,
    /// What the node has for [`TOOLBOX`], and its digest; none in a program without one.
    toolbox: Option<(String, Bytes)>,
    places: Places,
    under_way: Mutex<UnderWay>,
}

/// A place that may have an image.
enum Source<'a> {
    Own(&'a Own, &'a RegistryReference),
    Remote(&'a Remote, &'a Endpoint, Option<&'a Credential>),
}

/// What a pull led to.
struct Pulled {
    manifest: String,
    layer: String,
    bytes: Bytes,
    layers: Vec<Held>,
    fetched: bool,
}

impl Pulled {
    fn of(self, reference: &RegistryReference) -> Image {
        Image {
            id: image_id(reference, &self.manifest),
            bytes: self.bytes,
            layers: self.layers.into(),
            fetched: self.fetched,
        }
    }
}

impl Images {
    /// The images kept in `folder`, and `toolbox`, which is empty where there is none.
    ///
    /// # Errors
    /// When the folder cannot be made or read.
    pub fn open(
        link: Link,
        folder: &Path,
        files_allowed: bool,
        registries: Registries,
        toolbox: Bytes,
    ) -> io::Result<Self> {
        let limits = Limits::default();
        Self::open_limited(link, folder, files_allowed, registries, toolbox, limits)
    }

    fn open_limited(
        link: Link,
        folder: &Path,
        files_allowed: bool,
        registries: Registries,
        toolbox: Bytes,
        limits: Limits,
    ) -> io::Result<Self> {
        let toolbox = (!toolbox.is_empty()).then(|| (digest_of(&toolbox), toolbox));
        let inner = Inner {
            files_allowed,
            limits,
            kept: Kept::open(folder)?,
            own: Own { link, limits },
            remote: Remote::new(registries, limits),
            toolbox,
            places: Places::new(),
            under_way: Mutex::default(),
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// Id and content digest of an image that was resolved before, if this pod may use it without asking its registry: enough for
    /// one that runs already, whose bytes need not be read again for every further pod.
    pub fn resolved(&self, wish: &Wish) -> Option<(String, String)> {
        let reference = match wish.image.parse::<ImageReference>().ok()? {
            ImageReference::Registry(reference) => reference,
            ImageReference::File(_) => return None,
        };
        let Some(resolved) = self.inner.kept.resolved(&wish.image) else {
            let toolbox = self.inner.toolbox(wish, &reference)?;
            return Some((image_id(&reference, &toolbox.manifest), toolbox.layer));
        };
        let is_open = resolved.is_open_to(&credentials(wish, &reference));
        is_open.then(|| (image_id(&reference, &resolved.manifest), resolved.layer))
    }

    /// Gets an image. Dropped, it leaves the pull to others who wait for it, or ends it.
    ///
    /// # Errors
    /// [`ImageError`], the message of the container's status.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub async fn get(&self, wish: Wish) -> Result<Image, ImageError> {
        self.pulled(wish, Want::Component).await
    }

    /// The same of the files of an image: [`unpack`] writes them.
    ///
    /// # Errors
    /// As [`Images::get`], and [`ImageError::NoFiles`].
    pub(crate) async fn files(&self, wish: Wish) -> Result<Image, ImageError> {
        self.pulled(wish, Want::Files).await
    }

    /// Takes away what was found to be damaged of an image's files, so that it is fetched again.
    pub(crate) async fn discard(&self, image: &Image) {
        for held in image.layers.iter() {
            self.inner.kept.discard(&held.layer.digest).await;
        }
    }

    async fn pulled(&self, wish: Wish, want: Want) -> Result<Image, ImageError> {
        let reference = wish.image.parse::<ImageReference>()?;
        let pull = Inner::pull(&self.inner, wish, reference, want);
        pull.result.clone().await
    }
}

/// Whether it is the image that every node has.
pub(crate) fn is_toolbox(image: &str) -> bool {
    matches!(image.parse(), Ok(ImageReference::Registry(reference)) if names_toolbox(&reference))
}

fn names_toolbox(reference: &RegistryReference) -> bool {
    let is_own = reference.host.is_none() && reference.digest.is_none();
    is_own && reference.repository == TOOLBOX && reference.reference() == "latest"
}

/// What a pod brings for an image.
fn credentials(wish: &Wish, reference: &RegistryReference) -> Vec<Credential> {
    let host = reference.host.as_deref();
    host.map_or_else(Vec::new, |host| {
        wish.keyring.matching(host, &reference.repository)
    })
}

impl Inner {
    /// Joins the pull of an image, or begins it.
    fn pull(inner: &Arc<Self>, wish: Wish, reference: ImageReference, want: Want) -> Arc<Pull> {
        let credentials = match &reference {
            ImageReference::Registry(reference) => credentials(&wish, reference),
            ImageReference::File(_) => Vec::new(),
        };
        let key = Key {
            image: wish.image.clone(),
            want,
            policy: wish.policy,
            namespace: wish.namespace.clone(),
            credentials: credentials.iter().map(Credential::fingerprint).collect(),
        };
        let mut under_way = inner.under_way.lock();
        let joined = under_way.pulls.get(&key);
        if let Some(pull) = joined.and_then(|(_, pull)| pull.upgrade()) {
            return pull;
        }
        under_way.number += 1;
        let listed = Listed {
            inner: inner.clone(),
            key: key.clone(),
            number: under_way.number,
        };
        let (told, result) = oneshot::channel();
        // Its own task: nobody has to poll it, so that whoever goes leaves no place taken and no queue waiting.
        let task = tokio::spawn(async move {
            let result = listed.inner.get(&wish, reference, &credentials, want);
            let result = result.await;
            // From here on, the same wish is a new pull.
            drop(listed);
            // Nobody may be left to be told.
            let _ = told.send(result);
        });
        let result = async move {
            let unfinished = |_| Err(ImageError::failed("the pull ended without a result"));
            result.await.unwrap_or_else(unfinished)
        };
        let pull = Arc::new(Pull {
            result: result.boxed().shared(),
            _task: AbortOnDropHandle::new(task),
        });
        let entry = (under_way.number, Arc::downgrade(&pull));
        under_way.pulls.insert(key, entry);
        pull
    }

    async fn get(
        &self,
        wish: &Wish,
        reference: ImageReference,
        credentials: &[Credential],
        want: Want,
    ) -> Result<Image, ImageError> {
        let (image, policy) = (wish.image.as_str(), wish.policy);
        let reference = match reference {
            ImageReference::File(_) if want == Want::Files => {
                return Err(ImageError::NoFiles {
                    image: image.to_owned(),
                    reason: "it is one file, a component".to_owned(),
                });
            }
            ImageReference::File(path) => return self.file(image, PathBuf::from(path)).await,
            ImageReference::Registry(reference) => reference,
        };
        let known = self.kept.resolved(&want.remembered(image));
        let is_known = known.is_some();
        let open = known.filter(|known| known.is_open_to(credentials));
        let is_closed = open.is_none() && is_known;
        if policy != PullPolicy::Always
            && let Some(known) = open
            && let Some(here) = self.here(known, want).await
        {
            return Ok(here.of(&reference));
        }
        let mut toolbox = self
            .toolbox(wish, &reference)
            .filter(|_| want == Want::Component);
        if policy != PullPolicy::Always
            && let Some(toolbox) = toolbox.take()
        {
            return Ok(toolbox.of(&reference));
        }
        if policy == PullPolicy::Never {
            let image = image.to_owned();
            return Err(match is_closed {
                true => ImageError::NeverWithout { image },
                false => ImageError::Never { image },
            });
        }
        let wait = self.limits.wait;
        let place = tokio::time::timeout(wait, self.places.take(&wish.namespace));
        let _place = place
            .await
            .map_err(|_| ImageError::Waited {
                seconds: wait.as_secs(),
            })?
            .map_err(|Crowded { waiting }| ImageError::Crowded { waiting })?;
        let pulled = match &reference.host {
            None => self.pull_own(image, &reference, toolbox, want).await?,
            Some(host) => {
                self.pull_remote(image, host, &reference, credentials, want)
                    .await?
            }
        };
        Ok(pulled.of(&reference))
    }

    /// What an image led to before, if it is on this node's disk.
    async fn here(&self, known: Resolved, want: Want) -> Option<Pulled> {
        let (mut bytes, mut layers) = (Bytes::new(), Vec::new());
        match want {
            Want::Component => bytes = self.kept.content(&known.layer).await?,
            Want::Files => {
                for layer in known.files {
                    let file = self.kept.open_content(&layer.digest, layer.size).await?;
                    layers.push(Held { layer, file });
                }
            }
        }
        Some(Pulled {
            manifest: known.manifest,
            layer: known.layer,
            bytes,
            layers,
            fetched: false,
        })
    }

    /// The node's own toolbox, where it is what is wished for and the wish may have it.
    fn toolbox(&self, wish: &Wish, reference: &RegistryReference) -> Option<Pulled> {
        let toolbox = self.toolbox.as_ref();
        let (digest, bytes) = toolbox.filter(|_| wish.toolbox && names_toolbox(reference))?;
        Some(Pulled {
            manifest: digest.clone(),
            layer: digest.clone(),
            bytes: bytes.clone(),
            layers: Vec::new(),
            fetched: false,
        })
    }

    /// From the cluster's registry; `instead` is what the node has itself where nothing was pushed.
    async fn pull_own(
        &self,
        image: &str,
        reference: &RegistryReference,
        instead: Option<Pulled>,
        want: Want,
    ) -> Result<Pulled, ImageError> {
        let source = Source::Own(&self.own, reference);
        match self
            .pull_within(self.limits.pull, image, reference, &source, want)
            .await
        {
            Ok(pulled) => {
                self.remember(image, &pulled, None, want).await;
                Ok(pulled)
            }
            Err(Fault::NotFound) => match instead {
                Some(toolbox) => Ok(toolbox),
                None => Err(ImageError::NotPushed {
                    image: image.to_owned(),
                    kind: own::kind_of(reference),
                    instead: self.own.instead(reference).await,
                }),
            },
            Err(fault) => Err(fault.of(image, OWN_NAME, Vec::new())),
        }
    }

    /// Asks each endpoint in turn, with each credential, until one has the image and gives it out.
    async fn pull_remote(
        &self,
        image: &str,
        host: &str,
        reference: &RegistryReference,
        credentials: &[Credential],
        want: Want,
    ) -> Result<Pulled, ImageError> {
        let endpoints = self
            .remote
            .registries()
            .endpoints(host, &reference.repository);
        let endpoints = endpoints.map_err(ImageError::failed)?;
        let ends = Instant::now() + self.limits.pull;
        let mut asked: Vec<(String, Fault)> = Vec::new();
        for (at, endpoint) in endpoints.iter().enumerate() {
            // A mirror that crawls leaves the others their part of the time.
            let left = ends.saturating_duration_since(Instant::now());
            let share = left / u32::try_from(endpoints.len() - at).unwrap_or(u32::MAX);
            let ends = Instant::now() + share;
            let place = match &endpoint.mirror_of {
                Some(_) => Origin::of(&endpoint.base).to_string(),
                None => host.to_owned(),
            };
            let mut last = Fault::NotFound;
            for (credential, of_pod) in shown(endpoint, credentials) {
                let left = ends.saturating_duration_since(Instant::now());
                let source = Source::Remote(&self.remote, endpoint, credential);
                let pulling = self.pull_within(left, image, reference, &source, want);
                match pulling.await {
                    Ok(pulled) => {
                        // What the node's owner pays for is for all pods, as with a kubelet.
                        let by = credential.filter(|_| of_pod);
                        self.remember(image, &pulled, by, want).await;
                        return Ok(pulled);
                    }
                    Err(fault) if fault.is_final() => return Err(fault.of(image, &place, asked)),
                    Err(fault) => last = fault,
                }
                // Another credential helps only against a refusal; some registries hide what they refuse.
                if !matches!(last, Fault::Denied { .. } | Fault::NotFound) {
                    break;
                }
            }
            asked.push((place, last));
        }
        // The registry itself was asked last, and knows best.
        match asked.pop() {
            Some((place, fault)) => Err(fault.of(image, &place, asked)),
            None => Err(ImageError::failed(format!("{host} is nowhere to be asked"))),
        }
    }

    async fn remember(&self, image: &str, pulled: &Pulled, by: Option<&Credential>, want: Want) {
        let mut resolved = Resolved::new(pulled.manifest.clone(), pulled.layer.clone(), by);
        let files = pulled.layers.iter().map(|held| held.layer.clone());
        resolved.files.extend(files);
        self.kept.remember(&want.remembered(image), resolved).await;
    }

    async fn pull_within(
        &self,
        most: Duration,
        image: &str,
        reference: &RegistryReference,
        source: &Source<'_>,
        want: Want,
    ) -> Result<Pulled, Fault> {
        let pulled = self.pull_from(image, reference, source, want);
        let pulled = tokio::time::timeout(most, pulled);
        pulled
            .await
            .unwrap_or_else(|_| Err(remote::late("the image", most)))
    }

    /// From a tag or digest to the manifest, and from there to the layer that is the component.
    async fn pull_from(
        &self,
        image: &str,
        reference: &RegistryReference,
        source: &Source<'_>,
        want: Want,
    ) -> Result<Pulled, Fault> {
        let not_wasm = |reason| Fault::NotWasm { reason };
        let asked = Asked::of(reference);
        let (mut digest, document) = self.document(source, &asked).await?;
        let manifest = match document {
            Document::Manifest(manifest) => manifest,
            Document::Index(index) => {
                let child = manifest::of_index(&index).map_err(not_wasm)?;
                // Not held while the next is read.
                drop(index);
                let (of_child, document) = self.document(source, &Asked::Content(child)).await?;
                digest = of_child;
                match document {
                    Document::Manifest(manifest) => manifest,
                    Document::Index(_) => {
                        return Err(not_wasm("its index leads to another index".to_owned()));
                    }
                }
            }
        };
        if want == Want::Files {
            let layers = files::layers(&manifest);
            let layers = layers.map_err(|reason| Fault::NoFiles { reason })?;
            drop(manifest);
            return self.files_from(image, source, digest, layers).await;
        }
        let layer = manifest::component(&manifest).map_err(not_wasm)?;
        drop(manifest);
        if layer.size > COMPONENT_BYTES_MAX {
            return Err(Fault::TooLarge { bytes: layer.size });
        }
        let fetched = match self.kept.content(&layer.digest).await {
            Some(bytes) => Some((bytes, false)),
            None => {
                self.fetch(source, &layer).await?;
                let bytes = self.kept.content(&layer.digest).await;
                bytes.map(|bytes| (bytes, true))
            }
        };
        let (bytes, fetched) = fetched.ok_or_else(|| gone(image))?;
        Ok(Pulled {
            manifest: digest,
            layer: layer.digest,
            bytes,
            layers: Vec::new(),
            fetched,
        })
    }

    /// Brings the layers of a manifest that have files onto this node's disk, one after the other.
    async fn files_from(
        &self,
        image: &str,
        source: &Source<'_>,
        manifest: String,
        layers: Vec<files::Layer>,
    ) -> Result<Pulled, Fault> {
        let (mut held, mut fetched) = (Vec::new(), false);
        for layer in layers {
            let open = || self.kept.open_content(&layer.digest, layer.size);
            let mut file = open().await;
            if file.is_none() {
                let content = Content {
                    digest: layer.digest.clone(),
                    size: layer.size,
                };
                self.fetch(source, &content).await?;
                fetched = true;
                file = open().await;
            }
            let file = file.ok_or_else(|| gone(image))?;
            held.push(Held { layer, file });
        }
        Ok(Pulled {
            layer: manifest.clone(),
            manifest,
            bytes: Bytes::new(),
            layers: held,
            fetched,
        })
    }

    /// A manifest or an index, and its digest.
    async fn document(
        &self,
        source: &Source<'_>,
        asked: &Asked,
    ) -> Result<(String, Document), Fault> {
        let reading = async {
            let mut body = source
                .open("manifests", asked.name(), manifest::ACCEPT)
                .await?;
            body.read(MANIFEST_BYTES_MAX).await
        };
        let bytes = tokio::time::timeout(self.limits.document, reading)
            .await
            .map_err(|_| remote::late("its manifest", self.limits.document))??;
        let (actual, bytes) = digest(bytes).await;
        let is_as_asked = match asked {
            Asked::Tag(_) => true,
            Asked::Digest(digest) => *digest == actual,
            Asked::Content(content) => {
                content.digest == actual && content.size == bytes.len() as u64
            }
        };
        if !is_as_asked {
            return Err(Fault::Digest {
                digest: asked.name().to_owned(),
            });
        }
        let document = Document::read(&bytes).map_err(Fault::Failed)?;
        Ok((actual, document))
    }

    /// Brings content onto this node's disk.
    async fn fetch(&self, source: &Source<'_>, content: &Content) -> Result<(), Fault> {
        let here = |error: io::Error| {
            Fault::Here(format!(
                "this node cannot keep an image on its disk: {error}"
            ))
        };
        let mut body = source.open("blobs", &content.digest, "*/*").await?;
        let mut partial = self.kept.begin().await.map_err(here)?;
        while let Some(piece) = body.piece().await? {
            if piece.len() as u64 > content.size - partial.length() {
                return Err(Fault::Failed(format!(
                    "it sends more than the {} bytes that its manifest says",
                    content.size
                )));
            }
            partial.write(&piece).await.map_err(here)?;
        }
        if partial.length() != content.size || partial.digest() != content.digest {
            return Err(Fault::Digest {
                digest: content.digest.clone(),
            });
        }
        self.kept.finish(partial).await.map_err(here)
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
            _ => ImageError::failed(error.to_string()),
        };
        let found = tokio::fs::metadata(&path).await.map_err(failed)?;
        // A device or a pipe has no size and no end.
        if !found.is_file() {
            return Err(ImageError::failed(format!(
                "{} is no regular file",
                path.display()
            )));
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
            layers: Arc::new([]),
            fetched: true,
        })
    }
}

fn gone(image: &str) -> Fault {
    Fault::Here(format!(
        "image \"{image}\" was on this node's disk, and is gone again"
    ))
}

/// What a manifest is asked for by.
enum Asked {
    Tag(String),
    Digest(String),
    /// What an index led to.
    Content(Content),
}

impl Asked {
    fn of(reference: &RegistryReference) -> Self {
        match &reference.digest {
            Some(digest) => Self::Digest(digest.clone()),
            None => Self::Tag(reference.reference().to_owned()),
        }
    }

    fn name(&self) -> &str {
        match self {
            Self::Tag(name) | Self::Digest(name) => name,
            Self::Content(content) => &content.digest,
        }
    }
}

impl Source<'_> {
    async fn open(&self, what: &str, name: &str, accept: &'static str) -> Result<Body, Fault> {
        match self {
            Self::Own(own, reference) => {
                let path = format!("{}/{what}/{name}", reference.repository);
                own.open(&path, accept).await
            }
            Self::Remote(remote, endpoint, credential) => {
                let what = format!("{what}/{name}");
                let answer = remote.open(endpoint, *credential, &what, accept).await?;
                Ok(Body {
                    kind: Kind::Remote(answer),
                    silent: remote.limits().silent,
                })
            }
        }
    }
}

/// What to show an endpoint, in this order, and whether it is the pod's: what the pod brings for the registry, what the node's owner
/// gave for it, nothing. A mirror is shown nothing of the pod's.
fn shown<'a>(
    endpoint: &'a Endpoint,
    of_pod: &'a [Credential],
) -> Vec<(Option<&'a Credential>, bool)> {
    let of_pod = match endpoint.mirror_of {
        Some(_) => &[],
        None => of_pod,
    };
    let of_pod = of_pod.iter().map(|credential| (Some(credential), true));
    let of_node = endpoint.credential.iter();
    let of_node = of_node.map(|credential| (Some(credential), false));
    let mut shown: Vec<_> = of_pod.chain(of_node).collect();
    // Who has a name is not asked without it: the answer would hide why the name was refused.
    if shown.is_empty() {
        shown.push((None, false));
    }
    shown
}

fn image_id(reference: &RegistryReference, manifest: &str) -> String {
    match &reference.host {
        Some(host) => format!("{host}/{}@{manifest}", reference.repository),
        None => format!("{}@{manifest}", reference.repository),
    }
}

/// `sha256:…` of `bytes`, computed off the async threads.
async fn digest(bytes: Bytes) -> (String, Bytes) {
    let moved = bytes.clone();
    match tokio::task::spawn_blocking(move || digest_of(&moved)).await {
        Ok(digest) => (digest, bytes),
        // The pool is shutting down with the process; the answer is still owed.
        Err(_) => (digest_of(&bytes), bytes),
    }
}

fn digest_of(bytes: &[u8]) -> String {
    format!("sha256:{:x}", Sha256::digest(bytes))
}
