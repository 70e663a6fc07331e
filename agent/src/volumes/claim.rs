//! Volumes that outlive pods: what a PersistentVolumeClaim is bound to, as this node has it.
//!
//! ```text
//! DATA/persistent/NAME      a folder of the driver folder.weft.dev, by the name of its PersistentVolume
//! ```
//!
//! A folder is made when the first pod mounts it, holds what its volume says at most, has one account whoever mounts it, and is removed once its
//! PersistentVolume is gone. `hostPath` and `local` volumes are what the node has there, if it lends that.

use super::{FOLDER_MODE, blocking, make_dir};
use crate::configuration::FetchError;
use k8s_openapi::api::core::v1::{HostPathVolumeSource, PersistentVolume, PersistentVolumeClaim};
use kube::api::Api;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::OnceCell;
use weft_api::Quantity;
use weft_api::annotation::FOLDER_DRIVER;
use weft_runtime::{Told, Volume, VolumeError, VolumeLimits, ownership, volume};

use super::empty_dir::{BYTES_DEFAULT, INODES_MAX};

/// What a claim is bound to.
#[derive(Clone, Debug)]
pub enum Claimed {
    Folder {
        name: String,
        bytes: u64,
    },
    OfNode(HostPathVolumeSource),
    /// A sentence: it is not bound, or to something that no node mounts.
    Nothing(String),
}

/// A claim as a pod finds it.
#[derive(Clone, Debug)]
pub struct Claim {
    pub bound: Claimed,
    /// Only one pod at a time may use it (`ReadWriteOncePod`).
    pub is_for_one: bool,
}

/// The claim of that name; none if there is none.
///
/// # Errors
/// [`FetchError`] when it cannot be read.
pub(crate) async fn look_up(
    client: &kube::Client,
    namespace: &str,
    name: &str,
) -> Result<Option<Claim>, FetchError> {
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), namespace);
    let failed = |error| FetchError::of_claim(name, error);
    let Some(claim) = claims.get_opt(name).await.map_err(failed)? else {
        return Ok(None);
    };
    let phase = claim
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    let modes = claim.spec.as_ref();
    let modes = modes.and_then(|spec| spec.access_modes.as_deref());
    let is_for_one = modes.is_some_and(|modes| modes.iter().any(|mode| mode == FOR_ONE));
    let as_bound = |bound| Ok(Some(Claim { bound, is_for_one }));
    let volume = claim.spec.and_then(|spec| spec.volume_name);
    let Some(volume) = volume.filter(|_| phase == Some("Bound")) else {
        let why = format!("persistentvolumeclaim \"{name}\" is not bound");
        return as_bound(Claimed::Nothing(why));
    };
    let volumes: Api<PersistentVolume> = Api::all(client.clone());
    let found = volumes.get_opt(&volume).await.map_err(failed)?;
    as_bound(match found {
        Some(found) => claimed(&volume, &found),
        None => Claimed::Nothing(format!("persistentvolume \"{volume}\" not found")),
    })
}

/// Of a claim that only one pod at a time may use.
const FOR_ONE: &str = "ReadWriteOncePod";

/// Pure.
fn claimed(name: &str, volume: &PersistentVolume) -> Claimed {
    let spec = volume.spec.as_ref();
    if let Some(source) = spec.and_then(|spec| spec.host_path.clone()) {
        return Claimed::OfNode(source);
    }
    if let Some(local) = spec.and_then(|spec| spec.local.as_ref()) {
        return Claimed::OfNode(HostPathVolumeSource {
            path: local.path.clone(),
            type_: Some("Directory".to_owned()),
        });
    }
    let driver = spec.and_then(|spec| spec.csi.as_ref());
    if driver.is_some_and(|csi| csi.driver == FOLDER_DRIVER) {
        let capacity = spec.and_then(|spec| spec.capacity.as_ref()?.get("storage"));
        let bytes = capacity.and_then(|text| Quantity::parse(&text.0).ok());
        let bytes = bytes.and_then(|bytes| u64::try_from(bytes.value()).ok());
        return Claimed::Folder {
            name: name.to_owned(),
            bytes: bytes.unwrap_or(BYTES_DEFAULT),
        };
    }
    Claimed::Nothing(format!(
        "persistentvolume \"{name}\" is none that nodes mount: they have folders (driver {FOLDER_DRIVER}), hostPath and local volumes"
    ))
}

/// The folders of this node that outlive pods.
pub(super) struct Persistent {
    root: PathBuf,
    open: Mutex<BTreeMap<String, Arc<OnceCell<Volume>>>>,
}

impl Persistent {
    pub(super) fn open(root: PathBuf) -> io::Result<Self> {
        make_dir(&root)?;
        Ok(Self {
            root,
            open: Mutex::default(),
        })
    }

    /// The folder of that name, for at most `bytes`, of `group` if there is one.
    ///
    /// # Errors
    /// What the file system says.
    pub(super) async fn folder(
        &self,
        name: &str,
        bytes: u64,
        group: Option<u32>,
    ) -> Result<Volume, VolumeError> {
        let dir = self.root.join(name);
        let cell = self.open.lock().entry(name.to_owned()).or_default().clone();
        let limits = VolumeLimits {
            bytes: Some(bytes),
            inodes: Some(INODES_MAX),
        };
        let made = cell.get_or_try_init(|| {
            let dir = dir.clone();
            blocking(move || {
                let made = make(&dir);
                made.map_err(|source| VolumeError {
                    dir: dir.clone(),
                    source,
                })?;
                Volume::open_as(dir, limits, Told::default())
            })
        });
        let made = made.await?.clone();
        made.hold_at_most(bytes);
        if let Some(group) = group {
            let given = blocking(move || ownership::give_to_group(&dir, group)).await;
            given.map_err(|source| VolumeError {
                dir: made.dir().to_owned(),
                source,
            })?;
        }
        Ok(made)
    }

    /// Removes the folders whose PersistentVolume is gone. One that cannot be asked about stays.
    pub(super) async fn sweep(&self, client: &kube::Client) {
        let volumes: Api<PersistentVolume> = Api::all(client.clone());
        for name in names(&self.root) {
            if !matches!(volumes.get_opt(&name).await, Ok(None)) {
                continue;
            }
            self.open.lock().remove(&name);
            let dir = self.root.join(&name);
            let removed = blocking(move || volume::remove_tree(&dir)).await;
            if let Err(error) = removed {
                tracing::warn!(volume = name, %error, "a folder was left behind, and is removed later");
            }
        }
    }
}

fn make(dir: &Path) -> io::Result<()> {
    let is_new = !dir.exists();
    make_dir(dir)?;
    match is_new {
        true => ownership::open_to_guests(dir, FOLDER_MODE),
        false => Ok(()),
    }
}

fn names(root: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(root).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn a_claim_is_what_its_volume_says() {
        let of = |spec: Value| {
            let volume = serde_json::from_value(json!({"metadata": {"name": "v"}, "spec": spec}));
            match claimed("v", &volume.expect("a volume")) {
                Claimed::Folder { name, bytes } => format!("{name} {bytes}"),
                Claimed::OfNode(source) => format!("{} {:?}", source.path, source.type_),
                Claimed::Nothing(why) => why,
            }
        };
        for (spec, expected) in [
            (
                json!({"capacity": {"storage": "2Ki"}, "csi": {"driver": FOLDER_DRIVER, "volumeHandle": "v"}}),
                "v 2048",
            ),
            (json!({"hostPath": {"path": "/x"}}), "/x None"),
            (json!({"local": {"path": "/y"}}), "/y Some(\"Directory\")"),
            (
                json!({"csi": {"driver": "other", "volumeHandle": "v"}}),
                "persistentvolume \"v\" is none that nodes mount: they have folders (driver folder.weft.dev), hostPath and local volumes",
            ),
        ] {
            assert_eq!(of(spec), expected);
        }
    }

    #[tokio::test]
    async fn a_folder_stays_has_one_account_and_grows() {
        let root = tempfile::tempdir().expect("a folder");
        let at = root.path().join("persistent");
        let folders = Persistent::open(at.clone()).expect("opens");
        let first = folders.folder("v", 8192, None).await.expect("made");
        std::fs::write(at.join("v/file"), "x").expect("written");
        first.count().await.expect("counted");
        let second = folders.folder("v", 16384, Some(7)).await.expect("there");
        assert_eq!(second.usage().inodes, 1, "one account");
        assert_eq!(first.usage().limits.bytes, Some(16384), "it has grown");
        let found = ownership::attributes(&at.join("v")).expect("attributes");
        assert_eq!((found.mode, found.group), (0o2777, 7));
        let again = Persistent::open(at).expect("opens");
        let volume = again.folder("v", 8192, None).await.expect("there");
        assert_eq!(volume.usage().inodes, 1, "after a restart of the node");
    }
}
