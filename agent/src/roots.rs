//! The writable root of each container: a folder on the node, made with a run of the container and kept until the next one.
//!
//! ```text
//! DATA/roots/UID/CONTAINER-RESTART          /     of the component, and of commands, probes and hooks in its container
//!                          ├─ etc           hosts, hostname, resolv.conf: made by the node
//!                          ├─ dev           null, the file for last words; a folder of its own where the root is read-only
//!                          ├─ tmp           anybody's
//!                          └─ …             a folder for each mount, so that whoever lists a folder sees where volumes are
//! DATA/roots/UID/CONTAINER-RESTART.N         what the node tells in files of a kernel's, lent to be read: cgroup2, proc
//! ```
//!
//! Invariants: a root never holds more than its limits (`weft_runtime::Volume`); what the node writes into one it writes before a guest
//! has it, and what it reads from one later follows no link; no root outlives its pod, nor the node's process.
//!
//! Left to others: what the files say (`root_files`), who gets a root (`prepare`).

use crate::file_work::blocking;
use crate::identity::Chain;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use weft_runtime::ownership::{self, Attributes};
use weft_runtime::{Access, Told, Volume, VolumeLimits, volume};

/// What a root may hold when the container has no limit of `ephemeral-storage`; as a volume without one.
pub(crate) const BYTES_DEFAULT: u64 = crate::volumes::empty_dir::BYTES_DEFAULT;
/// What `/dev` may hold beside a read-only root: last words, and little else.
const DEV_BYTES: u64 = 1 << 20;
const DEV_INODES: u64 = 256;

/// What is in a root from the start.
#[derive(Clone, Debug, Default)]
pub(crate) struct Contents {
    /// Absolute paths.
    pub(crate) folders: Vec<String>,
    pub(crate) files: Vec<(String, Vec<u8>)>,
    /// Which of them anybody may write to.
    pub(crate) last_words: Option<String>,
    pub(crate) limits: VolumeLimits,
    pub(crate) read_only: bool,
    /// Files of volumes, in the place of those above where the path is the same.
    pub(crate) placed: Vec<Placed>,
    /// Folders that only the node writes to.
    pub(crate) shown: Vec<Shown>,
}

/// A folder of files in which the node tells something, as a kernel's file system of that kind does.
#[derive(Clone, Debug)]
pub(crate) struct Shown {
    pub(crate) path: &'static str,
    pub(crate) file_system: &'static str,
    /// By their paths below it.
    pub(crate) files: Vec<(String, String)>,
}

/// A file of a volume that is mounted by itself: WASI lends folders only.
#[derive(Clone, Debug)]
pub(crate) struct Placed {
    pub(crate) path: String,
    pub(crate) file: Arc<File>,
    /// Whether what is written to it is written to the volume's: so it is the same file, where both are on one disk.
    pub(crate) is_shared: bool,
}

/// The root of one run. Clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Root {
    volume: Volume,
    /// `/dev`, where the rest is read-only.
    dev: Option<Volume>,
    /// What the node tells, and where.
    shown: Vec<(Volume, &'static str)>,
}

impl Root {
    /// What of it is lent, and where.
    pub(crate) fn lent(&self) -> Vec<(Volume, String, Access)> {
        let root = |access| (self.volume.clone(), "/".to_owned(), access);
        let mut lent = match &self.dev {
            None => vec![root(Access::ReadWrite)],
            Some(dev) => vec![
                root(Access::ReadOnly),
                (dev.clone(), "/dev".to_owned(), Access::ReadWrite),
            ],
        };
        let shown = self.shown.iter();
        lent.extend(shown.map(|(volume, at)| (volume.clone(), (*at).to_owned(), Access::ReadOnly)));
        lent
    }

    /// Tells other things in the files that are shown at `path`, one after the other: whoever reads one sees it as it was or as it is.
    ///
    /// # Errors
    /// What the file system says.
    pub(crate) async fn tell(&self, path: &str, files: Vec<(String, String)>) -> io::Result<()> {
        let Some((volume, _)) = self.shown.iter().find(|(_, at)| *at == path) else {
            return Ok(());
        };
        let dir = volume.dir().to_owned();
        blocking(move || tell(&dir, &files)).await
    }

    /// The folder of all of it.
    pub(crate) fn volume(&self) -> &Volume {
        &self.volume
    }
}

/// All roots of this node. Clones share them.
#[derive(Clone)]
pub struct Roots {
    inner: Arc<Inner>,
}

struct Inner {
    dir: PathBuf,
    /// By the pod's uid and the container's name, with its folder.
    made: Mutex<BTreeMap<(String, String), (PathBuf, Root)>>,
}

impl Roots {
    /// Keeps roots below `dir`. Those of an earlier process, whose containers have ended with it, are removed in a thread.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn open(dir: &Path) -> io::Result<Self> {
        let stale = dir.with_extension("stale");
        if dir.exists() {
            fs::create_dir_all(&stale)?;
            fs::rename(dir, stale.join(format!("{:x}", rand::random::<u64>())))?;
        }
        if stale.exists() {
            let remove = move || {
                if let Err(error) = volume::remove_tree(&stale) {
                    tracing::warn!(%error, "roots of an earlier process were left behind");
                }
            };
            let named = std::thread::Builder::new().name("weft-roots".into());
            named.spawn(remove)?;
        }
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        Ok(Self {
            inner: Arc::new(Inner {
                dir: dir.to_owned(),
                made: Mutex::default(),
            }),
        })
    }

    /// A new root for run `restart` of a container; the one of the run before is removed.
    ///
    /// # Errors
    /// What the file system says.
    pub(crate) async fn make(
        &self,
        uid: &str,
        container: &str,
        restart: u32,
        contents: Contents,
    ) -> io::Result<Root> {
        let key = (uid.to_owned(), container.to_owned());
        let before = self.inner.made.lock().remove(&key);
        let mark: u32 = rand::random();
        let dir = self.inner.dir.join(uid);
        let dir = dir.join(format!("{container}-{restart}-{mark:x}"));
        let (at, root) = blocking(move || {
            if let Some((folder, root)) = before {
                remove(&folder);
                for (volume, _) in &root.shown {
                    remove(volume.dir());
                }
            }
            let root = build(&dir, &contents)?;
            Ok::<_, io::Error>((dir, root))
        })
        .await?;
        self.inner.made.lock().insert(key, (at, root.clone()));
        Ok(root)
    }

    /// The root that a container has now.
    pub(crate) fn of(&self, uid: &str, container: &str) -> Option<Root> {
        let key = (uid.to_owned(), container.to_owned());
        let made = self.inner.made.lock();
        made.get(&key).map(|(_, root)| root.clone())
    }

    /// Removes the roots of a pod that is gone and whose guests have ended.
    pub(crate) async fn remove_pod(&self, uid: &str) {
        if uid.is_empty() {
            return;
        }
        let had = {
            let mut made = self.inner.made.lock();
            let had = made.len();
            made.retain(|(of, _), _| of != uid);
            had != made.len()
        };
        if had {
            let dir = self.inner.dir.join(uid);
            blocking(move || remove(&dir)).await;
        }
    }
}

fn remove(dir: &Path) {
    if let Err(error) = volume::remove_tree(dir) {
        tracing::warn!(folder = %dir.display(), error = %Chain(&error), "a root was left behind");
    }
}

/// Blocks.
fn build(dir: &Path, contents: &Contents) -> io::Result<Root> {
    let folder = |path: &Path| DirBuilder::new().recursive(true).mode(0o755).create(path);
    for name in ["dev", "etc", "tmp"] {
        folder(&dir.join(name))?;
    }
    let below = |path: &str| below(path).map(|path| dir.join(path));
    for path in contents.folders.iter().filter_map(|path| below(path)) {
        folder(&path)?;
    }
    for Placed {
        path,
        file,
        is_shared,
    } in &contents.placed
    {
        let Some(path) = below(path) else { continue };
        if let Some(parent) = path.parent() {
            folder(parent)?;
        }
        if !path.exists() {
            volume::place_file(file, &path, *is_shared)?;
        }
    }
    for (path, text) in &contents.files {
        let Some(path) = below(path) else { continue };
        if let Some(parent) = path.parent() {
            folder(parent)?;
        }
        let mut options = File::options();
        match options.write(true).create_new(true).mode(0o644).open(path) {
            Ok(mut file) => file.write_all(text)?,
            // Last words may go to a file that the node makes anyway.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    volume::make_null(&dir.join("dev/null"))?;
    let everybodys = |name: &Path, mode| {
        let attributes = Attributes {
            mode,
            user: 0,
            group: 0,
        };
        ownership::set_attributes(name, attributes)
    };
    everybodys(&dir.join("tmp"), 0o1777)?;
    if let Some(last_words) = contents.last_words.as_deref().and_then(below) {
        everybodys(&last_words, 0o666)?;
    }
    let open = |dir: &Path, limits| {
        Volume::open(dir, limits).map_err(|error: weft_runtime::VolumeError| error.source)
    };
    let dev_limits = VolumeLimits {
        bytes: Some(DEV_BYTES),
        inodes: Some(DEV_INODES),
    };
    let dev = contents
        .read_only
        .then(|| open(&dir.join("dev"), dev_limits));
    let mut shown = Vec::new();
    for (number, told) in contents.shown.iter().enumerate() {
        let mut at = dir.as_os_str().to_owned();
        at.push(format!(".{number}"));
        let at = PathBuf::from(at);
        folder(&at)?;
        tell(&at, &told.files)?;
        if let Some(path) = below(told.path) {
            folder(&path)?;
        }
        let kind = Told {
            file_system: Some(told.file_system),
            ..Told::default()
        };
        let volume = Volume::open_as(at, VolumeLimits::default(), kind);
        shown.push((volume.map_err(|error| error.source)?, told.path));
    }
    Ok(Root {
        volume: open(dir, contents.limits)?,
        dev: dev.transpose()?,
        shown,
    })
}

/// Blocks.
fn tell(dir: &Path, files: &[(String, String)]) -> io::Result<()> {
    const NEXT: &str = ".next";
    for (name, text) in files {
        let at = dir.join(name);
        if let Some(parent) = at.parent() {
            DirBuilder::new()
                .recursive(true)
                .mode(0o755)
                .create(parent)?;
        }
        let next = dir.join(NEXT);
        let mut options = File::options();
        options.write(true).create(true).truncate(true).mode(0o444);
        options.open(&next)?.write_all(text.as_bytes())?;
        fs::rename(&next, &at)?;
    }
    Ok(())
}

/// An absolute path as one below the root; none for the root itself, and for what would lead out of it.
fn below(path: &str) -> Option<PathBuf> {
    let mut found = PathBuf::new();
    for part in Path::new(path).components() {
        match part {
            Component::RootDir | Component::CurDir => {}
            Component::Normal(name) => found.push(name),
            Component::ParentDir | Component::Prefix(_) => return None,
        }
    }
    (!found.as_os_str().is_empty()).then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn contents(read_only: bool) -> Contents {
        Contents {
            folders: vec!["/data/deep".into(), "/".into(), "../../out".into()],
            files: vec![
                ("/etc/hostname".into(), b"web-1\n".to_vec()),
                ("/dev/termination-log".into(), Vec::new()),
            ],
            limits: VolumeLimits {
                bytes: Some(1 << 20),
                inodes: Some(100),
            },
            last_words: Some("/dev/termination-log".into()),
            read_only,
            placed: Vec::new(),
            shown: vec![Shown {
                path: "/sys/fs/cgroup",
                file_system: "cgroup2",
                files: vec![("cpu.max".into(), "max 100000\n".into())],
            }],
        }
    }

    #[tokio::test]
    async fn a_root_is_made_with_a_run_and_goes_with_the_next() {
        let folder = tempfile::tempdir().expect("a folder");
        let dir = folder.path().join("roots");
        let roots = Roots::open(&dir).expect("opens");
        let first = roots.make("u", "web", 0, contents(false)).await;
        let first = first.expect("made");
        let at = first.volume.dir().to_owned();
        assert!(at.join("data/deep").is_dir() && at.join("tmp").is_dir());
        assert!(!folder.path().join("out").exists() && !dir.join("out").exists());
        let host = first
            .volume
            .read_end(Path::new("/etc/hostname"), 100)
            .expect("readable");
        assert_eq!(host, b"web-1\n");
        assert!(first.dev.is_none() && roots.of("u", "web").is_some());

        let (told, path, access) = first.lent().pop().expect("something is told");
        assert_eq!(
            (path.as_str(), access),
            ("/sys/fs/cgroup", Access::ReadOnly)
        );
        let told_at = told.dir().to_owned();
        assert!(!told_at.starts_with(&at), "nobody gets there by the root");
        let read = || fs::read_to_string(told_at.join("cpu.max")).expect("a file");
        assert_eq!(read(), "max 100000\n");
        let other = vec![("cpu.max".to_owned(), "5 100000\n".to_owned())];
        first.tell("/sys/fs/cgroup", other).await.expect("told");
        assert_eq!(read(), "5 100000\n");

        let next = roots.make("u", "web", 1, contents(true)).await;
        assert!(next.expect("made").dev.is_some());
        assert!(!at.exists() && !told_at.exists(), "the run before is over");
        roots.remove_pod("u").await;
        assert!(!dir.join("u").exists() && roots.of("u", "web").is_none());

        // A node that died leaves roots, and finds none.
        roots
            .make("v", "web", 0, contents(false))
            .await
            .expect("made");
        drop(roots);
        Roots::open(&dir).expect("opens");
        assert_eq!(fs::read_dir(&dir).expect("a folder").count(), 0);
    }

    #[tokio::test]
    async fn a_file_of_a_volume_takes_its_place_and_is_shared_where_it_may_be_written() {
        let folder = tempfile::tempdir().expect("a folder");
        let source = folder.path().join("source");
        fs::write(&source, "of the volume").expect("written");
        let roots = Roots::open(&folder.path().join("roots")).expect("opens");
        let placed = |path: &str, is_shared| Placed {
            path: path.to_owned(),
            file: Arc::new(File::open(&source).expect("opens")),
            is_shared,
        };
        let mut contents = contents(false);
        contents.placed = vec![placed("/etc/hostname", false), placed("/data/one", true)];
        let root = roots.make("u", "web", 0, contents).await.expect("made");
        let at = root.volume.dir();
        let read = |name: &str| fs::read_to_string(at.join(name)).expect("a file");
        assert_eq!(read("etc/hostname"), "of the volume");
        fs::write(at.join("etc/hostname"), "the container's own").expect("written");
        assert_eq!(fs::read_to_string(&source).expect("read"), "of the volume");
        fs::write(at.join("data/one"), "of both").expect("written");
        assert_eq!(fs::read_to_string(&source).expect("read"), "of both");
    }

    #[tokio::test]
    async fn last_words_are_no_way_out_of_a_root() {
        let folder = tempfile::tempdir().expect("a folder");
        let secret = folder.path().join("secret");
        fs::write(&secret, "of the node").expect("written");
        let roots = Roots::open(&folder.path().join("roots")).expect("opens");
        let root = roots.make("u", "web", 0, contents(false)).await;
        let root = root.expect("made");
        let at = root.volume.dir();
        symlink(&secret, at.join("dev/link")).expect("a link");
        symlink(folder.path(), at.join("tmp/up")).expect("a link");
        fs::write(at.join("dev/termination-log"), "0123456789").expect("written");
        let end = |path: &str| root.volume.read_end(Path::new(path), 4);
        assert_eq!(end("/dev/termination-log").expect("read"), b"6789");
        for path in [
            "/dev/link",
            "/tmp/up/secret",
            "/../../secret",
            "/dev",
            "/dev/none",
            "",
        ] {
            assert!(end(path).is_err(), "{path}");
        }
    }
}
