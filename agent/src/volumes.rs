//! The volumes of this node's pods: a folder each, for as long as its pod is bound here.
//!
//! ```text
//! DATA/volumes/UID/NAME
//! ```
//!
//! What a kind of volume is, stands in a file of its own: [`empty_dir`] is the pod's to write, within limits; `host_path` is the node's, and
//! not made here; an image's are unpacked once for each pod, to be read; `config_map`, `secret`, `downward_api` and `projected` show files that the pod only reads, made anew as a whole (`atomic_dir`) where their
//! sources have changed, and tokens when they get old ([`credentials`]). A volume is made when the first container that mounts it gets ready, is shared by all containers of
//! the pod, and outlives their restarts and the node's. It goes with its pod; what a node left behind that was not there to
//! see the pod go is swept once the list of pods is known.
//!
//! Invariants: a volume never holds more than its limits (`weft_runtime::Volume`, `files`); there is one account for each
//! folder; what a volume of files shows is one state of its sources, never a mixture; while the server is away it stays.
//!
//! Left to others: volumes that are refused (`unsupported`).

mod atomic_dir;
mod certificates;
mod claim;
mod config_map;
mod credentials;
mod downward_api;
pub mod empty_dir;
mod files;
mod host_path;
mod projected;
mod secret;
mod trust_bundle;

pub use self::certificates::{CertificateWish, Credential};
use self::claim::Persistent;
pub(crate) use self::claim::look_up;
pub use self::claim::{Claim, Claimed};
use self::credentials::Credentials;
pub use self::credentials::TokenWish;
use self::files::{Files, Modes, config_map_named, secret_named};
use crate::config_error::ConfigError;
use crate::configuration::{Configuration, FetchError, References};
use crate::downward::Downward;
use crate::environment::Environment;
use crate::events::Recorder;
use crate::file_work::{blocking, elsewhere};
use crate::identity::{Chain, Link};
use crate::image::{self, Image};
use crate::kept_pod::KeptPod;
use crate::node_facts::NodeFacts;
use crate::pod_view::PodView;
use crate::user;
use k8s_openapi::api::core::v1::{
    ConfigMapVolumeSource, Container, DownwardAPIVolumeSource, EmptyDirVolumeSource,
    HostPathVolumeSource, PersistentVolumeClaimVolumeSource, ProjectedVolumeSource,
    SecretVolumeSource, Volume as Named, VolumeMount,
};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::fs::DirBuilder;
use std::net::IpAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, OnceCell};
use tokio_util::sync::CancellationToken;
use weft_runtime::{Access, Below, Told, Volume, VolumeError, VolumeLimits, ownership, volume};

/// How often volumes are counted, so that what was removed shows in metrics; the kubelet does it as often.
const COUNT_EVERY: Duration = Duration::from_secs(60);
/// How often the sources of files are looked at; with that, a change shows at least as soon as with a kubelet.
const REFRESH_EVERY: Duration = Duration::from_secs(30);
/// Where admission mounts the pod's token, and what it calls that volume.
const TOKEN_VOLUME: &str = "kube-api-access-";
const TOKEN_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Where a container finds a volume, and which.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    pub volume: String,
    pub path: String,
    pub access: Access,
    pub holds: Holds,
    /// What of it is mounted; all of it where it is empty.
    pub sub_path: String,
    /// Whether nobody asked for it: admission mounts the pod's token everywhere.
    pub automatic: bool,
}

/// What is in a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holds {
    /// What the pod writes, within limits.
    Own(VolumeLimits),
    /// The same, told as memory.
    Memory(VolumeLimits),
    /// Files that it only reads.
    Files,
    /// What the node has there.
    Host,
    /// What a claim is bound to.
    Claim,
    /// The files of an image, which it only reads.
    Image,
}

impl Holds {
    /// What the pod may fill it with.
    fn limits(self) -> Option<VolumeLimits> {
        match self {
            Self::Own(limits) | Self::Memory(limits) => Some(limits),
            Self::Files | Self::Host | Self::Claim | Self::Image => None,
        }
    }
}

/// What everybody may do with a volume's own folder.
const FOLDER_MODE: u32 = 0o777;

/// A kind of volume that nodes mount.
#[derive(Clone, Copy)]
pub(crate) enum Source<'a> {
    EmptyDir(&'a EmptyDirVolumeSource),
    ConfigMap(&'a ConfigMapVolumeSource),
    Secret(&'a SecretVolumeSource),
    DownwardApi(&'a DownwardAPIVolumeSource),
    HostPath(&'a HostPathVolumeSource),
    Image,
    /// Of that name, or of the pod and the volume.
    Claim(Option<&'a PersistentVolumeClaimVolumeSource>),
    Projected(&'a ProjectedVolumeSource),
}

/// What `volume` is, if nodes mount it.
pub(crate) fn source(volume: &Named) -> Option<Source<'_>> {
    let empty_dir = volume.empty_dir.as_ref().map(Source::EmptyDir);
    let config_map = || volume.config_map.as_ref().map(Source::ConfigMap);
    let secret = || volume.secret.as_ref().map(Source::Secret);
    let downward = || volume.downward_api.as_ref().map(Source::DownwardApi);
    let projected = || volume.projected.as_ref().map(Source::Projected);
    let host_path = || volume.host_path.as_ref().map(Source::HostPath);
    let image = || volume.image.as_ref().map(|_| Source::Image);
    let found = empty_dir.or_else(config_map).or_else(secret);
    let claim = || {
        let named = volume.persistent_volume_claim.as_ref();
        let brought = || volume.ephemeral.as_ref().map(|_| Source::Claim(None));
        named
            .map(|claim| Source::Claim(Some(claim)))
            .or_else(brought)
    };
    let found = found.or_else(downward).or_else(projected);
    found.or_else(host_path).or_else(claim).or_else(image)
}

/// Whether a mount is the one that admission adds to every container: where a component has no files, it is left out, and anything else that
/// is mounted was asked for by a person.
pub(crate) fn is_automatic(pod: PodView<'_>, mount: &VolumeMount) -> bool {
    let volume = pod.volume(&mount.name);
    mount.mount_path == TOKEN_PATH
        && mount.name.starts_with(TOKEN_VOLUME)
        && volume.is_some_and(|volume| volume.projected.is_some())
}

/// The mounts of `container` that nodes make, with what is mounted.
fn mounted<'a>(
    pod: PodView<'a>,
    container: &'a Container,
) -> impl Iterator<Item = (&'a VolumeMount, Source<'a>)> {
    let mounts = container.volume_mounts.iter().flatten();
    mounts.filter_map(move |mount| Some((mount, source(pod.volume(&mount.name)?)?)))
}

/// The volumes that `container` mounts, whose environment is `env`. Pure.
///
/// # Errors
/// [`ConfigError`] when a limit is none, or a `subPathExpr` leads nowhere.
pub(crate) fn mounts(
    at: Downward<'_>,
    env: &Environment,
    container: &Container,
) -> Result<Vec<Mount>, ConfigError> {
    let pod = at.pod;
    let mounts = mounted(pod, container).map(|(mount, source)| {
        let path = match mount.mount_path.starts_with('/') {
            true => mount.mount_path.clone(),
            false => format!("/{}", mount.mount_path),
        };
        let holds = match source {
            Source::EmptyDir(source) => {
                let limits = empty_dir::limits(at, &mount.name, source)?;
                match empty_dir::in_memory(source) {
                    true => Holds::Memory(limits),
                    false => Holds::Own(limits),
                }
            }
            Source::HostPath(_) => Holds::Host,
            Source::Claim(_) => Holds::Claim,
            Source::Image => Holds::Image,
            Source::ConfigMap(_)
            | Source::Secret(_)
            | Source::DownwardApi(_)
            | Source::Projected(_) => Holds::Files,
        };
        let claim_is_read_only =
            matches!(source, Source::Claim(Some(claim)) if claim.read_only == Some(true));
        let read_only = mount.read_only == Some(true)
            || matches!(holds, Holds::Files | Holds::Image)
            || claim_is_read_only;
        Ok(Mount {
            volume: mount.name.clone(),
            path,
            access: match read_only {
                true => Access::ReadOnly,
                false => Access::ReadWrite,
            },
            holds,
            sub_path: sub_path(env, mount)?,
            automatic: is_automatic(pod, mount),
        })
    });
    mounts.collect()
}

/// What of its volume `mount` names.
fn sub_path(env: &Environment, mount: &VolumeMount) -> Result<String, ConfigError> {
    let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let path = match given(&mount.sub_path_expr) {
        Some(text) => env.sub_path(&text)?,
        None => given(&mount.sub_path).unwrap_or_default(),
    };
    if path.starts_with('/') {
        return Err(ConfigError::SubPath(format!(
            "error SubPath `{path}` must not be an absolute path"
        )));
    }
    if path.split('/').any(|part| part == "..") {
        return Err(ConfigError::SubPath(format!(
            "unable to provision SubPath `{path}`: must not contain '..'"
        )));
    }
    Ok(path)
}

/// Which ConfigMaps, Secrets and tokens the volumes name that `container` mounts, with or without the one that admission adds.
pub fn references(pod: PodView<'_>, container: &Container, automatic: bool) -> References {
    let mut found = References::default();
    for (mount, source) in mounted(pod, container) {
        if automatic || !is_automatic(pod, mount) {
            found.extend(named_by(pod, &mount.name, source));
        }
    }
    found
}

fn named_by(pod: PodView<'_>, volume: &str, source: Source<'_>) -> References {
    match source {
        Source::EmptyDir(_) | Source::HostPath(_) | Source::DownwardApi(_) | Source::Image => {
            References::default()
        }
        Source::Claim(claim) => References {
            claims: [claim_name(pod, volume, claim)].into(),
            ..References::default()
        },
        Source::ConfigMap(map) => config_map_named(&map.name),
        Source::Secret(secret) => secret
            .secret_name
            .as_deref()
            .map_or_else(References::default, secret_named),
        Source::Projected(source) => projected::references(pod, volume, source),
    }
}

/// The claim that a volume names, or that its pod brings along for it.
fn claim_name(
    pod: PodView<'_>,
    volume: &str,
    claim: Option<&PersistentVolumeClaimVolumeSource>,
) -> String {
    match claim {
        Some(claim) => claim.claim_name.clone(),
        None => format!("{}-{volume}", pod.name()),
    }
}

/// What the volume of that name shows. Pure.
fn shown(
    at: Downward<'_>,
    name: &str,
    configuration: &Configuration,
) -> Result<Files, ConfigError> {
    let mut files = Files::default();
    let source = at.pod.volume(name).and_then(source);
    let all = &mut files;
    let done = match source {
        None
        | Some(Source::EmptyDir(_) | Source::HostPath(_) | Source::Claim(_) | Source::Image) => {
            Ok(())
        }
        Some(Source::ConfigMap(map)) => {
            let (items, modes) = (map.items.as_deref(), Modes::new(map.default_mode));
            config_map::show(&map.name, items, map.optional, modes, configuration, all)
        }
        Some(Source::Secret(secret)) => {
            let (items, name) = (secret.items.as_deref(), secret.secret_name.as_deref());
            let (name, modes) = (name.unwrap_or_default(), Modes::new(secret.default_mode));
            secret::show(name, items, secret.optional, modes, configuration, all)
        }
        Some(Source::DownwardApi(source)) => {
            let (items, modes) = (source.items.as_deref(), Modes::new(source.default_mode));
            downward_api::show(items.unwrap_or_default(), modes, at, all)
        }
        Some(Source::Projected(source)) => projected::show(name, source, at, configuration, all),
    };
    done.map_err(|why| ConfigError::Volume {
        volume: name.to_owned(),
        why,
    })?;
    if let Some(group) = user::fs_group(at.pod) {
        files.give_to(group);
    }
    Ok(files)
}

/// What volumes are made from.
#[derive(Clone, Copy)]
pub(crate) struct Given<'a> {
    pub(crate) configuration: &'a Configuration,
    /// Of a volume of an image that is not made yet.
    pub(crate) image: Option<&'a Image>,
    pub(crate) recorder: &'a Recorder,
}

/// Why a volume cannot be mounted.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// What it is to show is not there, or cannot be.
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("volume \"{volume}\"")]
    Volume {
        volume: String,
        #[source]
        source: VolumeError,
    },
}

/// Uid of the pod, name of the volume.
type Key = (String, String);

/// All volumes of this node. Clones share them.
#[derive(Clone)]
pub struct Volumes {
    inner: Arc<Inner>,
}

struct Inner {
    root: PathBuf,
    made: Mutex<BTreeMap<Key, Arc<OnceCell<Made>>>>,
    /// Folders of the node that `hostPath` may name, with what is below them.
    host_paths: Vec<PathBuf>,
    persistent: Persistent,
    /// Whose the claims are that only one pod may use, by namespace and name.
    alone: Mutex<BTreeMap<(String, String), String>>,
    credentials: Credentials,
    /// Folders of pods that are gone, for [`Volumes::tend`] to remove.
    swept: Mutex<Vec<PathBuf>>,
    sweeping: Notify,
}

/// A volume that is there.
struct Made {
    volume: Volume,
    /// Of a volume of files, what it shows.
    shows: Option<Shows>,
    /// Whether the pod writes to it.
    is_own: bool,
}

struct Shows {
    /// The pod as it is now: its labels and annotations are sources, and files that show them follow at the next look.
    pod: KeptPod,
    pod_ip: IpAddr,
    /// Of the files that are shown; whoever holds it may show others.
    digest: tokio::sync::Mutex<Option<[u8; 32]>>,
}

impl Volumes {
    /// Keeps volumes below `root`, which is made if it is not there. What is below `host_paths` is lent to pods that ask for it.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn open(root: &Path, host_paths: Vec<PathBuf>) -> std::io::Result<Self> {
        make_dir(root)?;
        Ok(Self {
            inner: Arc::new(Inner {
                root: root.to_owned(),
                made: Mutex::default(),
                host_paths,
                persistent: Persistent::open(root.with_file_name("persistent"))?,
                alone: Mutex::default(),
                credentials: Credentials::default(),
                swept: Mutex::default(),
                sweeping: Notify::new(),
            }),
        })
    }

    /// What of `references` exists in `namespace`, tokens included.
    ///
    /// # Errors
    /// [`FetchError`] for the first that cannot be had; an object that does not exist is left out.
    pub(crate) async fn fetch(
        &self,
        client: kube::Client,
        namespace: &str,
        references: References,
    ) -> Result<Configuration, FetchError> {
        let credentials = &self.inner.credentials;
        credentials
            .fetch(client, namespace, references, false)
            .await
    }

    /// Whether a volume of a pod is there already.
    pub(crate) fn is_made(&self, uid: &str, name: &str) -> bool {
        let key = (uid.to_owned(), name.to_owned());
        let made = self.inner.made.lock();
        made.get(&key).is_some_and(|cell| cell.initialized())
    }

    /// What `mount` names of its volume, which is made if this is the first time, of `image` where it is one; one of files shows what
    /// `configuration` says now.
    ///
    /// # Errors
    /// When what it shows is missing, or its folder cannot be made or read.
    pub(crate) async fn find(
        &self,
        pod: &KeptPod,
        container: &str,
        mount: &Mount,
        at: Downward<'_>,
        given: Given<'_>,
    ) -> Result<Below, MountError> {
        let configuration = given.configuration;
        let found = match at.pod.volume(&mount.volume).and_then(source) {
            Some(Source::HostPath(source)) => self.of_node(mount, source.clone()).await?,
            Some(Source::Claim(claim)) => {
                let name = claim_name(at.pod, &mount.volume, claim);
                let found = configuration.claims.get(&name);
                if found.is_some_and(|claim| claim.is_for_one) {
                    self.take_alone(at.pod, &mount.volume, &name)?;
                }
                match found.map(|claim| &claim.bound) {
                    Some(Claimed::Folder { name, bytes }) => {
                        let group = user::fs_group(at.pod);
                        let folder = self.inner.persistent.folder(name, *bytes, group).await;
                        let volume = folder.map_err(|source| MountError::Volume {
                            volume: mount.volume.clone(),
                            source,
                        })?;
                        Below::Folder(volume)
                    }
                    Some(Claimed::OfNode(source)) => self.of_node(mount, source.clone()).await?,
                    Some(Claimed::Nothing(why)) => {
                        return Err(MountError::Config(ConfigError::Volume {
                            volume: mount.volume.clone(),
                            why: why.clone(),
                        }));
                    }
                    None => {
                        return Err(MountError::Config(ConfigError::Missing {
                            kind: "persistentvolumeclaim",
                            name,
                        }));
                    }
                }
            }
            _ => {
                let volume = self.volume(pod, mount, at, given);
                Below::Folder(volume.await?)
            }
        };
        let whole = match found {
            Below::Folder(whole) => whole,
            file @ Below::File(_) => return Ok(file),
        };
        if mount.sub_path.is_empty() {
            return Ok(Below::Folder(whole));
        }
        let makes = !matches!(mount.holds, Holds::Files | Holds::Image);
        let path = mount.sub_path.clone();
        let found = elsewhere(move || whole.below(&path, makes)).await;
        found.map_err(|error| {
            let did = match makes {
                true => "create subPath directory",
                false => "prepare subPath",
            };
            let why = format!(
                "failed to {did} for volumeMount \"{}\" of container \"{container}\"",
                mount.volume
            );
            tracing::debug!(pod = at.pod.name(), %error, "{why}");
            MountError::Config(ConfigError::SubPath(why))
        })
    }

    /// Keeps a claim that is for one pod alone from the others of this node.
    fn take_alone(&self, pod: PodView<'_>, volume: &str, claim: &str) -> Result<(), MountError> {
        let mut alone = self.inner.alone.lock();
        let key = (pod.namespace().to_owned(), claim.to_owned());
        let holder = alone.entry(key).or_insert_with(|| pod.uid().to_owned());
        if holder == pod.uid() {
            return Ok(());
        }
        Err(MountError::Config(ConfigError::Volume {
            volume: volume.to_owned(),
            why:
                "volume uses the ReadWriteOncePod access mode and is already in use by another pod"
                    .to_owned(),
        }))
    }

    /// Nothing of the pod runs any more: claims that it had for itself may be others'.
    pub(crate) fn let_go(&self, uid: &str) {
        self.inner.alone.lock().retain(|_, holder| holder != uid);
    }

    /// What the node has at `source`, if it lends that.
    async fn of_node(
        &self,
        mount: &Mount,
        source: HostPathVolumeSource,
    ) -> Result<Below, MountError> {
        let allowed = self.inner.host_paths.clone();
        let found = elsewhere(move || host_path::open(&source, &allowed)).await;
        let failed = |why| ConfigError::Volume {
            volume: mount.volume.clone(),
            why,
        };
        Ok(found.map_err(failed)?)
    }

    /// The volume that `mount` names, made if this is the first time; one of files shows what `configuration` says now.
    ///
    /// # Errors
    /// When what it shows is missing, or its folder cannot be made or read.
    async fn volume(
        &self,
        pod: &KeptPod,
        mount: &Mount,
        at: Downward<'_>,
        given: Given<'_>,
    ) -> Result<Volume, MountError> {
        let files = match mount.holds {
            Holds::Own(_) | Holds::Memory(_) | Holds::Host | Holds::Claim | Holds::Image => None,
            Holds::Files => Some(shown(at, &mount.volume, given.configuration)?),
        };
        let image = given.image.filter(|_| mount.holds == Holds::Image).cloned();
        let failed = |source| MountError::Volume {
            volume: mount.volume.clone(),
            source,
        };
        let key = (at.pod.uid().to_owned(), mount.volume.clone());
        let dir = self.inner.root.join(&key.0).join(&key.1);
        let cell = self.inner.made.lock().entry(key).or_default().clone();
        let limits = mount.holds.limits();
        let told = Told {
            file_system: matches!(mount.holds, Holds::Memory(_)).then_some(volume::MEMORY),
            ..Told::default()
        };
        let group = user::fs_group(at.pod);
        let make = async {
            let made = blocking(move || {
                let made = match &image {
                    Some(image) => make_of_image(&dir, image),
                    None => make_volume(&dir, group),
                };
                made.map_err(|source| VolumeError {
                    dir: dir.clone(),
                    source,
                })?;
                Volume::open_as(dir, limits.unwrap_or_default(), told)
            });
            let volume = made.await?;
            if limits.is_some() {
                empty_dir::tell_when_full(&volume, at.pod, &mount.volume, given.recorder);
            }
            let shows = files.is_some().then(|| Shows {
                pod: pod.clone(),
                pod_ip: at.pod_ip,
                digest: tokio::sync::Mutex::default(),
            });
            Ok::<_, VolumeError>(Made {
                volume,
                shows,
                is_own: limits.is_some(),
            })
        };
        let made = cell.get_or_try_init(|| make).await.map_err(failed)?;
        if let (Some(files), Some(shows)) = (files, &made.shows) {
            shows.show(&made.volume, files).await.map_err(failed)?;
        }
        Ok(made.volume.clone())
    }

    /// The volumes that a pod writes to, by name.
    pub fn of_pod(&self, uid: &str) -> Vec<(String, Volume)> {
        let made = self.cells(uid).into_iter();
        made.filter_map(|(name, cell)| {
            let made = cell.get().filter(|made| made.is_own)?;
            Some((name, made.volume.clone()))
        })
        .collect()
    }

    fn cells(&self, uid: &str) -> Vec<(String, Arc<OnceCell<Made>>)> {
        let made = self.inner.made.lock();
        let from = (uid.to_owned(), String::new());
        made.range(from..)
            .take_while(|((of, _), _)| of == uid)
            .map(|((_, name), cell)| (name.clone(), cell.clone()))
            .collect()
    }

    /// Removes the volumes of a pod that is gone and whose guests have ended.
    pub async fn remove_pod(&self, pod: PodView<'_>) {
        let uid = pod.uid();
        self.inner.credentials.forget(uid);
        if uid.is_empty() || !pod.volumes().any(|volume| source(volume).is_some()) {
            return;
        }
        for (name, cell) in self.cells(uid) {
            let Some(made) = cell.get() else { continue };
            if let Err(error) = made.volume.remove().await {
                tracing::warn!(pod = pod.name(), volume = name, error = %Chain(&error), "a volume was left behind");
            }
        }
        self.inner.made.lock().retain(|(of, _), _| of != uid);
        remove(vec![self.inner.root.join(uid)]).await;
    }

    /// Has the volumes removed of pods that are gone: those whose uid `lives` does not know.
    pub fn sweep(&self, lives: impl Fn(&str) -> bool) {
        let Ok(entries) = std::fs::read_dir(&self.inner.root) else {
            return;
        };
        let gone: Vec<PathBuf> = entries
            .flatten()
            .filter(|entry| entry.file_name().to_str().is_some_and(|uid| !lives(uid)))
            .map(|entry| entry.path())
            .collect();
        *self.inner.swept.lock() = gone;
        self.inner.sweeping.notify_one();
    }

    /// Removes what was swept, and counts all volumes every so often, until `stop`.
    pub async fn tend(self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(COUNT_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = self.inner.sweeping.notified() => {
                    let gone = std::mem::take(&mut *self.inner.swept.lock());
                    remove(gone).await;
                    continue;
                }
                _ = ticks.tick() => {}
            }
            for cell in self.all() {
                let Some(made) = cell.get().filter(|made| made.is_own) else {
                    continue;
                };
                if let Err(error) = made.volume.count().await {
                    // It may have gone with its pod just now.
                    tracing::debug!(error = %Chain(&error), "a volume could not be counted");
                }
            }
        }
    }

    fn all(&self) -> Vec<Arc<OnceCell<Made>>> {
        self.inner.made.lock().values().cloned().collect()
    }

    /// Has volumes of files follow their sources until `stop`. Each source is fetched once a look, however many show it.
    pub async fn keep_fresh(self, link: Link, node: NodeFacts, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(REFRESH_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            self.inner.persistent.sweep(&link.client()).await;
            let mut wanted: BTreeMap<String, References> = BTreeMap::new();
            for (pod, name) in self.showing() {
                let pod = pod.read();
                let view = PodView(&pod);
                if let Some(source) = view.volume(&name).and_then(source) {
                    let references = wanted.entry(view.namespace().to_owned()).or_default();
                    references.extend(named_by(view, &name, source));
                }
            }
            let credentials = &self.inner.credentials;
            credentials.keep_roots_of(|namespace| wanted.contains_key(namespace));
            for (namespace, references) in wanted {
                match credentials
                    .fetch(link.client(), &namespace, references, true)
                    .await
                {
                    Ok(configuration) => self.refresh(&namespace, &configuration, &node).await,
                    Err(error) => {
                        tracing::debug!(namespace, error = %Chain(&error), "files of volumes stay as they are for now");
                    }
                }
            }
        }
    }

    /// The pods whose volumes show files, with the names of these.
    fn showing(&self) -> Vec<(KeptPod, String)> {
        let made = self.inner.made.lock();
        made.iter()
            .filter_map(|((_, name), cell)| {
                let shows = cell.get()?.shows.as_ref()?;
                Some((shows.pod.clone(), name.clone()))
            })
            .collect()
    }

    /// Shows what `configuration` says in all volumes of `namespace`. One whose source went away stays as it is.
    async fn refresh(&self, namespace: &str, configuration: &Configuration, node: &NodeFacts) {
        let all: Vec<(Key, Arc<OnceCell<Made>>)> = {
            let made = self.inner.made.lock();
            made.iter()
                .map(|(key, cell)| (key.clone(), cell.clone()))
                .collect()
        };
        for ((_, name), cell) in all {
            let Some(made) = cell.get() else { continue };
            let Some(shows) = &made.shows else { continue };
            let pod = shows.pod.read();
            let at = Downward {
                pod: PodView(&pod),
                pod_ip: shows.pod_ip,
                node,
            };
            if at.pod.namespace() != namespace {
                continue;
            }
            let shown = match shown(at, &name, configuration) {
                Ok(files) => shows.show(&made.volume, files).await,
                Err(error) => {
                    tracing::debug!(pod = at.pod.name(), %error, "the files of a volume stay as they are");
                    continue;
                }
            };
            if let Err(error) = shown {
                // It may have gone with its pod just now.
                tracing::debug!(pod = at.pod.name(), volume = name, error = %Chain(&error), "the files of a volume were not made anew");
            }
        }
    }
}

impl Shows {
    /// Shows `files`, if that is news.
    async fn show(&self, volume: &Volume, files: Files) -> Result<(), VolumeError> {
        let digest = files.digest();
        let mut shown = self.digest.lock().await;
        if *shown == Some(digest) {
            return Ok(());
        }
        let dir = volume.dir().to_owned();
        blocking(move || {
            atomic_dir::show(&dir, &files).map_err(|source| VolumeError { dir, source })
        })
        .await?;
        *shown = Some(digest);
        Ok(())
    }
}

/// Makes the folder of a volume of an image's files, unless it is there as a whole.
fn make_of_image(dir: &Path, image: &Image) -> std::io::Result<()> {
    if dir.exists() {
        return Ok(());
    }
    let parent = dir.parent().unwrap_or(dir);
    make_dir(parent)?;
    // Beside it, so that what a node that died had begun is never taken for it; swept with its pod.
    let beside = parent.join(format!("..{:016x}", rand::random::<u64>()));
    image::unpack(image.layers.iter(), &beside).map_err(std::io::Error::other)?;
    std::fs::rename(beside, dir)
}

/// Makes the folder of a volume, unless it is there: everybody's, and of the group if there is one.
fn make_volume(dir: &Path, group: Option<u32>) -> std::io::Result<()> {
    let is_new = !dir.exists();
    make_dir(dir)?;
    if is_new {
        ownership::open_to_guests(dir, FOLDER_MODE)?;
    }
    match group {
        Some(group) => ownership::give_to_group(dir, group),
        None => Ok(()),
    }
}

fn make_dir(dir: &Path) -> std::io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

async fn remove(folders: Vec<PathBuf>) {
    blocking(move || {
        for folder in folders {
            if let Err(error) = volume::remove_tree(&folder) {
                tracing::warn!(folder = %folder.display(), %error, "volumes of a pod were left behind, and are removed when the node starts again");
            }
        }
    })
    .await;
}

#[cfg(test)]
mod tests;
