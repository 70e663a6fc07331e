//! The `emptyDir` volumes of this node's pods: a folder each, with limits, for as long as its pod is bound here.
//!
//! ```text
//! DATA/volumes/UID/NAME
//! ```
//!
//! A volume is made when the first container that mounts it gets ready, is shared by all containers of the pod, and outlives
//! their restarts and the node's. It goes with its pod; what a node left behind that was not there to see the pod go is
//! swept once the list of pods is known.
//!
//! Invariants: a volume never holds more than its limits (`weft_runtime::Volume`); there is one account for each folder.
//!
//! Left to others: volumes that are refused (`unsupported`).

use crate::events::{Recorder, Severity};
use crate::identity::Chain;
use crate::translate::{self, ConfigError};
use k8s_openapi::api::core::v1::{Container, EmptyDirVolumeSource, Pod, Volume as Named};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;
use tokio::sync::{Notify, OnceCell};
use tokio_util::sync::CancellationToken;
use weft_api::{Quantity, annotation};
use weft_runtime::{Access, Full, Volume, VolumeError, VolumeLimits, volume};

/// What a volume without `sizeLimit` may hold: plenty for a cache, and a node has room for many. The kubelet has no limit, and
/// evicts whoever fills the disk; here nobody can.
pub const BYTES_DEFAULT: u64 = 1 << 30;
/// Files, folders and links of a volume, unless the pod says otherwise. Counting them takes about a tenth of a second.
pub const INODES_DEFAULT: u64 = 65_536;
/// The most that a pod can ask for: counting so many takes a second or two.
pub const INODES_MAX: u64 = 1_000_000;
/// How often volumes are counted, so that what was removed shows in metrics; the kubelet does it as often.
const COUNT_EVERY: Duration = Duration::from_secs(60);

/// Where a container finds a volume, and which.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    pub volume: String,
    pub path: String,
    pub access: Access,
    pub limits: VolumeLimits,
}

/// The volumes that `container` mounts, without those that are of no use to a component. Pure.
///
/// # Errors
/// [`ConfigError`] when a limit is none.
pub fn mounts(pod: &Pod, container: &Container) -> Result<Vec<Mount>, ConfigError> {
    let mounts = container.volume_mounts.iter().flatten();
    let mounts = mounts.filter_map(|mount| {
        let source = empty_dir(pod, &mount.name)?;
        Some((mount, source))
    });
    mounts
        .map(|(mount, source)| {
            let path = match mount.mount_path.starts_with('/') {
                true => mount.mount_path.clone(),
                false => format!("/{}", mount.mount_path),
            };
            Ok(Mount {
                volume: mount.name.clone(),
                path,
                access: match mount.read_only {
                    Some(true) => Access::ReadOnly,
                    _ => Access::ReadWrite,
                },
                limits: VolumeLimits {
                    bytes: Some(bytes(&mount.name, source)?),
                    inodes: Some(inodes(pod)?),
                },
            })
        })
        .collect()
}

/// The volume of that name, if it is an `emptyDir`.
pub(crate) fn empty_dir<'a>(pod: &'a Pod, name: &str) -> Option<&'a EmptyDirVolumeSource> {
    let mut volumes = named(pod).filter_map(|volume| Some((volume, volume.empty_dir.as_ref()?)));
    volumes
        .find(|(volume, _)| volume.name == name)
        .map(|(_, source)| source)
}

fn named(pod: &Pod) -> impl Iterator<Item = &Named> {
    let spec = pod.spec.iter();
    spec.flat_map(|spec| spec.volumes.iter().flatten())
}

fn bytes(name: &str, source: &EmptyDirVolumeSource) -> Result<u64, ConfigError> {
    let Some(limit) = &source.size_limit else {
        return Ok(BYTES_DEFAULT);
    };
    let bytes = Quantity::parse(&limit.0).ok().map(Quantity::value);
    match bytes.map(u64::try_from) {
        // As in Kubernetes, nothing and zero are the same.
        Some(Ok(0)) => Ok(BYTES_DEFAULT),
        Some(Ok(bytes)) => Ok(bytes),
        Some(Err(_)) | None => Err(ConfigError::Quantity {
            field: format!("volume {name}: emptyDir.sizeLimit"),
            value: limit.0.clone(),
        }),
    }
}

fn inodes(pod: &Pod) -> Result<u64, ConfigError> {
    let Some(text) = translate::pod_annotation(pod, annotation::MAX_VOLUME_INODES) else {
        return Ok(INODES_DEFAULT);
    };
    let number = text.parse().ok();
    number
        .filter(|number| (1..=INODES_MAX).contains(number))
        .ok_or(ConfigError::Annotation {
            name: annotation::MAX_VOLUME_INODES,
            value: text.into(),
            why: "is not a number from 1 to 1000000",
        })
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
    made: Mutex<BTreeMap<Key, Arc<OnceCell<Volume>>>>,
    /// Folders of pods that are gone, for [`Volumes::tend`] to remove.
    swept: Mutex<Vec<PathBuf>>,
    sweeping: Notify,
}

impl Volumes {
    /// Keeps volumes below `root`, which is made if it is not there.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn open(root: &Path) -> std::io::Result<Self> {
        make_dir(root)?;
        Ok(Self {
            inner: Arc::new(Inner {
                root: root.to_owned(),
                made: Mutex::default(),
                swept: Mutex::default(),
                sweeping: Notify::new(),
            }),
        })
    }

    /// The volume that `mount` names, made if this is the first time.
    ///
    /// # Errors
    /// When its folder cannot be made or read.
    pub async fn volume(
        &self,
        pod: &Pod,
        mount: &Mount,
        recorder: &Recorder,
    ) -> Result<Volume, VolumeError> {
        let key = (translate::uid(pod).to_owned(), mount.volume.clone());
        let dir = self.inner.root.join(&key.0).join(&key.1);
        let cell = self.inner.made.lock().entry(key).or_default().clone();
        let make = async {
            let limits = mount.limits;
            let made = tokio::task::spawn_blocking(move || {
                make_dir(&dir).map_err(|source| VolumeError {
                    dir: dir.clone(),
                    source,
                })?;
                Volume::open(dir, limits)
            });
            let volume = match made.await {
                Ok(made) => made?,
                Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                // Only while the node's runtime is being taken down.
                Err(_) => std::future::pending().await,
            };
            tell_when_full(&volume, pod, &mount.volume, recorder);
            Ok(volume)
        };
        cell.get_or_try_init(|| make).await.cloned()
    }

    /// The volumes of a pod that were made, by name.
    pub fn of_pod(&self, uid: &str) -> Vec<(String, Volume)> {
        let made = self.inner.made.lock();
        let from = (uid.to_owned(), String::new());
        made.range(from..)
            .take_while(|((of, _), _)| of == uid)
            .filter_map(|((_, name), cell)| Some((name.clone(), cell.get()?.clone())))
            .collect()
    }

    /// Removes the volumes of a pod that is gone and whose guests have ended.
    pub async fn remove_pod(&self, pod: &Pod) {
        let uid = translate::uid(pod);
        if uid.is_empty() || !named(pod).any(|volume| volume.empty_dir.is_some()) {
            return;
        }
        for (name, volume) in self.of_pod(uid) {
            if let Err(error) = volume.remove().await {
                tracing::warn!(pod = translate::pod_name(pod), volume = name, error = %Chain(&error), "a volume was left behind");
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
            let made: Vec<Volume> = {
                let made = self.inner.made.lock();
                made.values()
                    .filter_map(|cell| cell.get().cloned())
                    .collect()
            };
            for volume in made {
                if let Err(error) = volume.count().await {
                    // It may have gone with its pod just now.
                    tracing::debug!(error = %Chain(&error), "a volume could not be counted");
                }
            }
        }
    }
}

fn make_dir(dir: &Path) -> std::io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

async fn remove(folders: Vec<PathBuf>) {
    let removed = tokio::task::spawn_blocking(move || {
        for folder in folders {
            if let Err(error) = volume::remove_tree(&folder) {
                tracing::warn!(folder = %folder.display(), %error, "volumes of a pod were left behind, and are removed when the node starts again");
            }
        }
    });
    if let Err(error) = removed.await {
        tracing::error!(%error, "removing volumes failed");
    }
}

/// Notes an event the first time that a guest gets no room, for each limit.
fn tell_when_full(volume: &Volume, pod: &Pod, name: &str, recorder: &Recorder) {
    let about = crate::events::about(pod, None);
    let (recorder, limits, name) = (recorder.clone(), volume.limits(), name.to_owned());
    let told = [AtomicBool::new(false), AtomicBool::new(false)];
    volume.on_full(move |full| {
        if told[full as usize].swap(true, Relaxed) {
            return;
        }
        let message = full_message(&name, full, limits);
        recorder.record(about.clone(), Severity::Warning, "VolumeFull", message);
    });
}

fn full_message(name: &str, full: Full, limits: VolumeLimits) -> String {
    match full {
        Full::Bytes => format!(
            "volume \"{name}\" is full: it may hold {} bytes; emptyDir.sizeLimit says how many",
            limits.bytes.unwrap_or_default()
        ),
        Full::Inodes => format!(
            "volume \"{name}\" is full: it may hold {} files, folders and links; the annotation {} says how many",
            limits.inodes.unwrap_or_default(),
            annotation::MAX_VOLUME_INODES
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(annotations: Value, volumes: Value, mounts: Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u", "annotations": annotations},
            "spec": {"volumes": volumes, "containers": [{"name": "c", "volumeMounts": mounts}]},
        }))
        .expect("a pod")
    }

    fn asked(pod: &Pod) -> Result<Vec<Mount>, ConfigError> {
        mounts(pod, &pod.spec.as_ref().expect("a spec").containers[0])
    }

    #[test]
    fn mounts_are_translated_with_their_limits() {
        let mounts = json!([
            {"name": "data", "mountPath": "/data"},
            {"name": "data", "mountPath": "same", "readOnly": true},
            {"name": "cache", "mountPath": "/cache"},
            {"name": "token", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"},
        ]);
        let volumes = json!([
            {"name": "data", "emptyDir": {"sizeLimit": "10Mi"}},
            {"name": "cache", "emptyDir": {"sizeLimit": "0"}},
            {"name": "token", "projected": {"sources": []}},
        ]);
        let shown = |annotations| {
            let asked = asked(&pod(annotations, volumes.clone(), mounts.clone())).expect("mounts");
            let lines: Vec<String> = asked
                .iter()
                .map(|mount| {
                    let VolumeLimits { bytes, inodes } = mount.limits;
                    format!(
                        "{} at {} {:?} {} {}",
                        mount.volume,
                        mount.path,
                        mount.access,
                        bytes.unwrap_or_default(),
                        inodes.unwrap_or_default()
                    )
                })
                .collect();
            lines.join("\n")
        };
        insta::assert_snapshot!(shown(json!({})), @r"
        data at /data ReadWrite 10485760 65536
        data at /same ReadOnly 10485760 65536
        cache at /cache ReadWrite 1073741824 65536
        ");
        insta::assert_snapshot!(shown(json!({"weft.dev/max-volume-inodes": "100"})), @r"
        data at /data ReadWrite 10485760 100
        data at /same ReadOnly 10485760 100
        cache at /cache ReadWrite 1073741824 100
        ");
    }

    #[test]
    fn limits_that_are_none_are_refused() {
        let mounts = json!([{"name": "data", "mountPath": "/data"}]);
        let refused = |annotations, limit| {
            let volumes = json!([{"name": "data", "emptyDir": {"sizeLimit": limit}}]);
            let asked = asked(&pod(annotations, volumes, mounts.clone()));
            asked.expect_err("refused").to_string()
        };
        let inodes = |text| refused(json!({"weft.dev/max-volume-inodes": text}), "1Mi");
        let lines = [
            refused(json!({}), "much"),
            refused(json!({}), "-1"),
            inodes("0"),
            inodes("1000001"),
            inodes("1k"),
        ];
        insta::assert_snapshot!(lines.join("\n"), @r#"
        volume data: emptyDir.sizeLimit: "much" is not a quantity
        volume data: emptyDir.sizeLimit: "-1" is not a quantity
        annotation weft.dev/max-volume-inodes: "0" is not a number from 1 to 1000000
        annotation weft.dev/max-volume-inodes: "1000001" is not a number from 1 to 1000000
        annotation weft.dev/max-volume-inodes: "1k" is not a number from 1 to 1000000
        "#);
    }

    #[tokio::test]
    async fn a_volume_is_shared_and_goes_with_its_pod() {
        let root = tempfile::tempdir().expect("a folder");
        let root = root.path().join("volumes");
        let volumes = Volumes::open(&root).expect("volumes");
        let (recorder, _writing) = Recorder::new("node");
        let both = json!([{"name": "a", "mountPath": "/a"}, {"name": "b", "mountPath": "/b"}]);
        let pod = pod(
            json!({}),
            json!([{"name": "a", "emptyDir": {}}, {"name": "b", "emptyDir": {}}]),
            both,
        );
        let asked = asked(&pod).expect("mounts");
        assert!(volumes.of_pod("u").is_empty());
        for mount in [&asked[0], &asked[1], &asked[0]] {
            let made = volumes.volume(&pod, mount, &recorder).await;
            made.expect("a volume");
        }
        let names: Vec<String> = volumes
            .of_pod("u")
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        assert_eq!(names, ["a", "b"]);
        std::fs::write(root.join("u/a/file"), "kept").expect("written");

        // The node starts again: what is there is counted, and stays while the pod does.
        let volumes = Volumes::open(&root).expect("volumes");
        volumes.sweep(|uid| uid == "u");
        let made = volumes.volume(&pod, &asked[0], &recorder).await;
        assert_eq!(made.expect("a volume").usage().inodes, 1);
        volumes.remove_pod(&pod).await;
        assert!(!root.join("u").exists());
        assert!(volumes.of_pod("u").is_empty());
    }
}
