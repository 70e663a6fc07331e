//! What was listed, on disk: so that a node that starts while no server can be reached serves what it knew.
//!
//! ```text
//! FOLDER/services/shop/web      an object as JSON      FOLDER/nodes/_/a      one of no namespace
//! ```
//! A file an object, and one task that writes them: what changes costs one file, and nothing is in memory twice. Writing is never waited
//! for: what does not fit into the queue is an object whose file goes, as of that nothing is known any more.
//!
//! Invariants: a file is replaced in one step; one that cannot be read is no object; what is here is of one cluster, told by its authority;
//! nothing is secret: neither Secrets nor ConfigMaps are kept, and listeners that need a certificate wait for a server.

use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::mpsc;
use weft_api::hash::fnv1a_64;
use weft_gateway::NamespacedName;

use super::cluster::name_of;

/// Changes that wait to be written.
const WAITING_MAX: usize = 1024;
/// Changes that are written before others are looked for.
const AT_ONCE: usize = 64;
/// The largest object that is read; the API takes smaller ones only.
const BYTES_MAX: u64 = 4 << 20;
/// Most objects of a kind that are read: as many as there may be Services and more.
const OBJECTS_MAX: usize = 200_000;
/// In the place of a namespace where there is none; no namespace is called that.
const NO_NAMESPACE: &str = "_";
/// What is being written; no kind is called that.
const UNFINISHED: &str = ".unfinished";

type Name = (&'static str, NamespacedName);

enum Note {
    /// All of a kind.
    All(&'static str, Vec<(NamespacedName, Vec<u8>)>),
    /// One object; none where it is gone.
    One(Name, Option<Vec<u8>>),
    /// There are some that did not fit.
    Lost,
}

/// Where objects are handed in. Clones share it.
#[derive(Clone)]
pub(super) struct Kept {
    notes: mpsc::Sender<Note>,
    lost: Arc<Mutex<BTreeSet<Name>>>,
}

/// Writes what is handed in.
pub(super) struct Keeper {
    folder: PathBuf,
    notes: mpsc::Receiver<Note>,
    lost: Arc<Mutex<BTreeSet<Name>>>,
}

/// The folder below `folder` for the cluster of this authority; those of others go.
pub(super) fn folder(folder: &Path, authority: &[u8]) -> PathBuf {
    let own = format!("{:016x}", fnv1a_64(authority.iter().copied()));
    for other in entries(folder) {
        if other.file_name() != Some(own.as_ref())
            && let Err(error) = fs::remove_dir_all(&other)
        {
            tracing::debug!(%error, folder = %other.display(), "what was known of another cluster stays");
        }
    }
    folder.join(own)
}

/// Both ends.
pub(super) fn kept(folder: PathBuf) -> (Kept, Keeper) {
    let (sender, notes) = mpsc::channel(WAITING_MAX);
    let lost = Arc::new(Mutex::default());
    let kept = Kept {
        notes: sender,
        lost: Arc::clone(&lost),
    };
    let keeper = Keeper {
        folder,
        notes,
        lost,
    };
    (kept, keeper)
}

impl Kept {
    /// These are all that there are of a kind.
    pub(super) fn all<K: kube::Resource + Serialize>(&self, list: &'static str, objects: &[K]) {
        let written = objects
            .iter()
            .filter_map(|object| Some((name_of(object), written(object)?)));
        let note = Note::All(list, written.collect());
        if self.notes.try_send(note).is_err() {
            self.lose(objects.iter().map(|object| (list, name_of(object))));
        }
    }

    /// An object is so now.
    pub(super) fn one<K: kube::Resource + Serialize>(&self, list: &'static str, object: &K) {
        self.note((list, name_of(object)), written(object));
    }

    /// An object is gone.
    pub(super) fn gone(&self, list: &'static str, name: &NamespacedName) {
        self.note((list, name.clone()), None);
    }

    fn note(&self, name: Name, bytes: Option<Vec<u8>>) {
        if self.notes.try_send(Note::One(name.clone(), bytes)).is_err() {
            self.lose(std::iter::once(name));
        }
    }

    fn lose(&self, names: impl Iterator<Item = Name>) {
        self.lost.lock().extend(names);
        // Where there is no room yet, whoever writes comes by anyhow.
        let _ = self.notes.try_send(Note::Lost);
    }
}

/// An object without what nobody here reads.
fn written<K: Serialize>(object: &K) -> Option<Vec<u8>> {
    let mut value = serde_json::to_value(object).ok()?;
    let metadata = value.get_mut("metadata");
    if let Some(metadata) = metadata.and_then(|metadata| metadata.as_object_mut()) {
        metadata.remove("managedFields");
    }
    serde_json::to_vec(&value).ok()
}

impl Keeper {
    /// Writes until nobody hands anything in any more.
    pub(super) async fn run(mut self) {
        let mut failed = false;
        loop {
            let mut notes = Vec::new();
            let count = self.notes.recv_many(&mut notes, AT_ONCE).await;
            // What was told before they were lost comes first.
            let lost = match self.notes.is_empty() {
                true => std::mem::take(&mut *self.lost.lock()),
                false => BTreeSet::new(),
            };
            if count == 0 && lost.is_empty() {
                return;
            }
            let folder = self.folder.clone();
            let writing = tokio::task::spawn_blocking(move || {
                let lost = lost.into_iter().map(|name| Note::One(name, None));
                let mut notes = notes.into_iter().chain(lost);
                notes.try_for_each(|note| write(&folder, note))
            });
            match writing.await {
                Ok(Ok(())) => failed = false,
                Ok(Err(error)) if !failed => {
                    failed = true;
                    tracing::warn!(%error, folder = %self.folder.display(), "what is known of the cluster is not kept");
                }
                _ => {}
            }
        }
    }
}

fn write(folder: &Path, note: Note) -> io::Result<()> {
    match note {
        Note::Lost => Ok(()),
        Note::One(name, bytes) => write_one(folder, &name, bytes.as_deref()),
        Note::All(list, objects) => {
            let names: BTreeSet<&NamespacedName> = objects.iter().map(|(name, _)| name).collect();
            let listed = |path: &Path| {
                let name = read_name(path);
                name.is_some_and(|name| names.contains(&name))
            };
            for path in files(&folder.join(list)).filter(|path| !listed(path)) {
                remove(&path)?;
            }
            objects
                .iter()
                .try_for_each(|(name, bytes)| write_one(folder, &(list, name.clone()), Some(bytes)))
        }
    }
}

fn write_one(folder: &Path, name: &Name, bytes: Option<&[u8]>) -> io::Result<()> {
    let Some(path) = path_of(folder, name) else {
        return Ok(());
    };
    let Some(bytes) = bytes else {
        return remove(&path);
    };
    let unfinished = folder.join(UNFINISHED);
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    // What a crash of the machine takes is known again from the first server that answers.
    fs::write(&unfinished, bytes)?;
    fs::rename(&unfinished, &path)
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Where an object is; nowhere where its name is no name of a file.
fn path_of(folder: &Path, (list, name): &Name) -> Option<PathBuf> {
    let is_file =
        |name: &str| !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\0']);
    let namespace = match name.namespace.as_str() {
        "" => NO_NAMESPACE,
        namespace => namespace,
    };
    let is_written = is_file(namespace) && is_file(&name.name);
    is_written.then(|| folder.join(list).join(namespace).join(&name.name))
}

/// What [`path_of`] makes a path of.
fn read_name(path: &Path) -> Option<NamespacedName> {
    let text = |part: Option<&std::ffi::OsStr>| part.map(OsString::from)?.into_string().ok();
    let name = text(path.file_name())?;
    let namespace = text(path.parent()?.file_name())?;
    Some(match namespace.as_str() {
        NO_NAMESPACE => NamespacedName::cluster(name),
        namespace => NamespacedName::new(namespace, name),
    })
}

fn entries(folder: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path())
}

fn files(list: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    entries(list).flat_map(|namespace| entries(&namespace))
}

/// Hands over what was kept of a kind.
pub(super) fn each<K: DeserializeOwned>(folder: &Path, list: &str, mut take: impl FnMut(K)) {
    for path in files(&folder.join(list)).take(OBJECTS_MAX) {
        let is_small = fs::metadata(&path).is_ok_and(|file| file.len() <= BYTES_MAX);
        let bytes = is_small.then(|| fs::read(&path).ok());
        match bytes
            .flatten()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        {
            Some(object) => take(object),
            None => tracing::debug!(path = %path.display(), "what was kept cannot be read"),
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{Node, Service};
    use serde_json::json;

    use super::*;

    fn service(name: &str, port: u16) -> Service {
        serde_json::from_value(json!({
            "metadata": {"namespace": "shop", "name": name, "managedFields": [{"manager": "me"}]},
            "spec": {"ports": [{"port": port}]},
        }))
        .expect("a service")
    }

    fn told(folder: &Path) -> Vec<String> {
        let mut told = Vec::new();
        each(folder, "services", |service: Service| {
            assert_eq!(service.metadata.managed_fields, None);
            let spec = service.spec.expect("a spec");
            let port = spec.ports.expect("ports")[0].port;
            told.push(format!("{}:{port}", service.metadata.name.expect("a name")));
        });
        told.sort();
        told
    }

    #[tokio::test]
    async fn what_is_kept_is_what_was_told_last() {
        let dir = tempfile::tempdir().expect("a folder");
        let own = folder(dir.path(), b"one");
        let node: Node = serde_json::from_value(json!({"metadata": {"name": "a"}})).expect("one");
        let (kept, keeper) = kept(own.clone());
        kept.one("services", &service("before", 1));
        kept.all("services", &[service("web", 80), service("api", 81)]);
        kept.all("nodes", &[node]);
        kept.one("services", &service("api", 8081));
        kept.one("services", &service("gone", 1));
        kept.gone("services", &NamespacedName::new("shop", "gone"));
        // A name that leads elsewhere is no name of an object.
        kept.one("services", &service("../../stray", 1));
        drop(kept);
        keeper.run().await;
        assert_eq!(told(&own), ["api:8081", "web:80"]);
        let mut nodes = Vec::new();
        each(&own, "nodes", |node: Node| nodes.extend(node.metadata.name));
        assert_eq!(nodes, ["a"]);
        assert!(!dir.path().join("stray").exists());
        // What cannot be read is left out, and another cluster begins with nothing.
        fs::write(own.join("services/shop/web"), "{").expect("room");
        assert_eq!(told(&own), ["api:8081"]);
        let other = folder(dir.path(), b"two");
        assert_eq!(told(&other), [""; 0]);
        assert!(!own.exists());
    }

    #[tokio::test]
    async fn what_does_not_fit_is_not_taken_for_known() {
        let dir = tempfile::tempdir().expect("a folder");
        let own = folder(dir.path(), b"one");
        let (kept, keeper) = kept(own.clone());
        kept.one("services", &service("web", 80));
        for _ in 0..WAITING_MAX {
            kept.one("services", &service("busy", 1));
        }
        // The last of these finds no room: nobody knows what it is.
        kept.one("services", &service("busy", 2));
        drop(kept);
        keeper.run().await;
        assert_eq!(told(&own), ["web:80"]);
    }
}
