//! Directories of the host that guests share and cannot fill beyond what they may.
//!
//! A [`Volume`] is a directory with an account, made once and lent to any number of workloads. Every function of
//! `wasi:filesystem` that can make the directory larger first gets room on the account, on any file system and without
//! privileges; what does not fit is answered `quota`. `host::filesystem` says which functions these are.
//!
//! The account counts a file as its size in whole blocks of 4 KiB, holes included, because a later write into a hole must not
//! need room; directories and links as one block; and each name as one inode, hard links as well. It counts up as things
//! grow. Of what shrinks it learns by counting the directory anew, which it does when something does not fit: on a thread
//! that may block, and for at most a quarter of the time, so that who fills a volume does not have the disk searched all day.
//!
//! Whose the files in it are, guests may be told by `weft:files`; what that is and what it is worth stands in `ownership`.
//!
//! Invariants: the directory, with the files in it that are unlinked and still open, never holds more than its limits,
//! unless it did from the start or somebody else writes to it; one thing at a time happens on an account, and is finished
//! though its guest be gone. Not counted: what a directory takes for its names, which the limit of inodes bounds.

mod lent;

use std::collections::HashSet;
use std::ffi::{CStr, CString};
use std::fs::{File, Permissions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use crate::ownership::{Attributes, DIR_MODE, FILE_MODE, Identity, Ownership, Walk};
use bytes::Bytes;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};
use tokio::sync::{Mutex, OwnedMutexGuard};

pub(crate) use lent::{Lent, Preopen, lend};

/// What files are counted in, as most file systems keep them.
pub const BLOCK_BYTES: u64 = 4096;
/// Of the time, at most one part in this many goes into counting. Who gets no room waits for its turn, so not for too long.
const COUNT_SHARE: u32 = 4;

/// What a guest may do in a directory that it was lent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read files, list directories, look at metadata.
    ReadOnly,
    /// All of that, and create, change, rename, link and remove.
    ReadWrite,
}

/// What file systems in memory are called.
pub const MEMORY: &str = "tmpfs";

/// What guests are told of a volume by `weft:files`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// The kind of its file system; the host's own where it is not said.
    pub file_system: Option<&'static str>,
    /// Whose word counts about modes and owners.
    pub ownership: Ownership,
}

/// What is at a path in a volume.
#[derive(Debug)]
pub enum Below {
    /// The volume from there on, with the account of the whole.
    Folder(Volume),
    /// A file, to be read, or to be linked elsewhere by `/proc/self/fd`.
    File(File),
}

/// How much a volume may hold. `None` is as much as the file system has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VolumeLimits {
    /// Bytes, in whole blocks of 4 KiB.
    pub bytes: Option<u64>,
    /// Names: of files, directories and links.
    pub inodes: Option<u64>,
}

impl VolumeLimits {
    pub(crate) fn any(&self) -> bool {
        self.bytes.is_some() || self.inodes.is_some()
    }
}

/// What a volume holds, and what it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VolumeUsage {
    pub bytes: u64,
    pub inodes: u64,
    pub limits: VolumeLimits,
}

/// Which of its limits a volume has met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    Bytes,
    Inodes,
}

/// Why a directory cannot be a volume.
#[derive(Debug, thiserror::Error)]
#[error("the directory {dir} cannot be used as a volume")]
pub struct VolumeError {
    pub dir: PathBuf,
    #[source]
    pub source: io::Error,
}

/// A directory of the host and its account. Cheap to clone; clones are the same volume.
///
/// Lend it with [`WorkloadBuilder::volume`](crate::WorkloadBuilder::volume), to as many workloads as share it. Two `Volume`s of
/// one directory know nothing of each other, and their guests can fill it twice.
#[derive(Clone)]
pub struct Volume {
    shared: Arc<Shared>,
    /// Where it begins for whoever has it, if not at the root: see [`Volume::below`].
    from: Option<Arc<File>>,
}

struct Shared {
    dir: PathBuf,
    root: Arc<File>,
    told: Told,
    /// Whether there may be folders in it whose files are of their group.
    gives_groups: AtomicBool,
    /// Bytes that it may hold; all there are for none.
    bytes_max: AtomicU64,
    inodes_max: Option<u64>,
    account: Arc<Mutex<Account>>,
    /// What the account says, for those who only look.
    bytes: AtomicU64,
    inodes: AtomicU64,
    hear: OnceLock<Box<dyn Fn(Full) + Send + Sync>>,
}

impl Shared {
    fn limits(&self) -> VolumeLimits {
        let bytes = self.bytes_max.load(Relaxed);
        VolumeLimits {
            bytes: (bytes < u64::MAX).then_some(bytes),
            inodes: self.inodes_max,
        }
    }
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
struct Amount {
    bytes: u64,
    inodes: u64,
}

struct Account {
    used: Amount,
    /// What guests have open: it takes room for as long, though it has no name any more.
    open: Vec<Weak<File>>,
    /// How many may be in `open` before those that were closed are swept out.
    sweep_at: usize,
    /// When the last count began.
    counted_at: Instant,
    count_took: Duration,
}

impl Volume {
    /// Makes a volume of `dir`, which must exist. What is in it already counts.
    ///
    /// Blocks while it looks at each file once: about a microsecond for each that the kernel knows, more on a cold disk.
    ///
    /// # Errors
    /// When the directory, or one in it, cannot be read.
    pub fn open(dir: impl Into<PathBuf>, limits: VolumeLimits) -> Result<Volume, VolumeError> {
        Volume::open_as(dir, limits, Told::default())
    }

    /// The same, told to guests in another way.
    ///
    /// # Errors
    /// As [`Volume::open`].
    pub fn open_as(
        dir: impl Into<PathBuf>,
        limits: VolumeLimits,
        told: Told,
    ) -> Result<Volume, VolumeError> {
        let dir = dir.into();
        let failed = |source| VolumeError {
            dir: dir.clone(),
            source,
        };
        let root = open_dir(rustix::fs::CWD, &dir, OFlags::empty()).map_err(failed)?;
        let counted_at = Instant::now();
        // Of a directory of others', which has no limits, nobody asks how full it is.
        let used = match told.ownership {
            Ownership::Host if !limits.any() => Amount::default(),
            Ownership::Host | Ownership::Guests => count(root.as_fd(), &[]).map_err(failed)?,
        };
        let gives_groups = used.inodes > 0 || gives_groups(root.as_fd(), told.ownership);
        let account = Account {
            used,
            open: Vec::new(),
            sweep_at: 64,
            counted_at,
            count_took: counted_at.elapsed(),
        };
        Ok(Volume {
            shared: Arc::new(Shared {
                dir,
                root: Arc::new(root.into()),
                told,
                gives_groups: AtomicBool::new(gives_groups),
                bytes_max: AtomicU64::new(limits.bytes.unwrap_or(u64::MAX)),
                inodes_max: limits.inodes,
                account: Arc::new(Mutex::new(account)),
                bytes: AtomicU64::new(used.bytes),
                inodes: AtomicU64::new(used.inodes),
                hear: OnceLock::new(),
            }),
            from: None,
        })
    }

    /// What is at `path` in it, which may lead over links that stay in it. With `make`, folders that are missing are made, as the volume's own
    /// folder is. Blocks.
    ///
    /// # Errors
    /// Where there is nothing, or the path leads out; whatever the file system says.
    pub fn below(&self, path: &str, make: bool) -> io::Result<Below> {
        let (root, ownership) = (self.root().as_fd(), self.shared.told.ownership);
        let nobody = Identity::default();
        let parts = Path::new(path).components();
        if !parts
            .clone()
            .all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
        {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut at = String::new();
        for part in parts {
            let name = part
                .as_os_str()
                .to_str()
                .ok_or(io::ErrorKind::InvalidInput)?;
            at = match at.is_empty() {
                true => name.to_owned(),
                false => format!("{at}/{name}"),
            };
            let walk = Walk::to(root, &at, true, &nobody, ownership)?;
            let (None, Some(name)) = (&walk.found, &walk.name) else {
                continue;
            };
            if !make {
                return Err(io::ErrorKind::NotFound.into());
            }
            let mode = self.of_root()?.mode;
            rustix::fs::mkdirat(&walk.parent, &**name, Mode::from_raw_mode(DIR_MODE))?;
            let made = Walk::to(root, &at, true, &nobody, ownership)?;
            let attributes = made.folder()?.of_new(&nobody, mode, true);
            made.set(attributes)?;
            if let Ok(mut account) = self.shared.account.try_lock() {
                account.used.bytes = account.used.bytes.saturating_add(BLOCK_BYTES);
                account.used.inodes = account.used.inodes.saturating_add(1);
            }
        }
        let walk = Walk::to(
            root,
            if at.is_empty() { "." } else { &at },
            true,
            &nobody,
            ownership,
        )?;
        let stat = walk.found.as_ref().map(|(_, stat)| kind(stat));
        let opened = walk.open()?;
        match (stat, opened) {
            (Some(FileType::Directory), Some(dir)) => Ok(Below::Folder(Volume {
                shared: self.shared.clone(),
                from: Some(Arc::new(dir.into())),
            })),
            (Some(FileType::RegularFile), Some(file)) => Ok(Below::File(file.into())),
            _ => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    /// Makes an empty file at `path` in it, whose folder is there. Blocks.
    ///
    /// # Errors
    /// What the file system says.
    pub fn make_file(&self, path: &str) -> io::Result<()> {
        let nobody = Identity::default();
        let walk = Walk::to(self.root().as_fd(), path, true, &nobody, self.ownership())?;
        let (None, Some(name)) = (&walk.found, &walk.name) else {
            return Err(io::ErrorKind::AlreadyExists.into());
        };
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(FILE_MODE);
        rustix::fs::openat(&walk.parent, &**name, flags, mode)?;
        Ok(())
    }

    /// What guests are told of the volume's own folder.
    fn of_root(&self) -> io::Result<Attributes> {
        let root = &*self.shared.root;
        let stat = rustix::fs::fstat(root)?;
        Ok(self.shared.told.ownership.read(root.as_fd(), &stat))
    }

    fn root(&self) -> &Arc<File> {
        self.from.as_ref().unwrap_or(&self.shared.root)
    }

    pub(crate) fn ownership(&self) -> Ownership {
        self.shared.told.ownership
    }

    /// From now on there may be folders in it whose files are of their group.
    pub(crate) fn gives_groups(&self) {
        self.shared.gives_groups.store(true, Relaxed);
    }

    pub(crate) fn may_give_groups(&self) -> bool {
        self.shared.gives_groups.load(Relaxed)
    }

    /// The directory, as it was named.
    pub fn dir(&self) -> &Path {
        &self.shared.dir
    }

    pub fn limits(&self) -> VolumeLimits {
        self.shared.limits()
    }

    /// Whether guests are told that it is in memory.
    pub fn is_memory(&self) -> bool {
        self.shared.told.file_system == Some(MEMORY)
    }

    /// Has it hold at most `bytes` from now on, also where there is more in it.
    pub fn hold_at_most(&self, bytes: u64) {
        self.shared.bytes_max.store(bytes, Relaxed);
    }

    /// What the account says: never less than the directory holds, and more by what was removed since the last count.
    /// Without limits it is what the last count said. Costs two reads of memory.
    pub fn usage(&self) -> VolumeUsage {
        VolumeUsage {
            bytes: self.shared.bytes.load(Relaxed),
            inodes: self.shared.inodes.load(Relaxed),
            limits: self.shared.limits(),
        }
    }

    /// Counts the directory anew. Whoever wants to write waits for it.
    ///
    /// # Errors
    /// When the directory, or one in it, cannot be read; the account stays as it was.
    pub async fn count(&self) -> Result<VolumeUsage, VolumeError> {
        let mut locked = self.lock().await;
        blocking(move || locked.count())
            .await
            .map_err(|source| VolumeError {
                dir: self.shared.dir.clone(),
                source,
            })?;
        Ok(self.usage())
    }

    /// Removes the directory with all that is in it, once what guests have begun is done. They can make nothing in it any more.
    ///
    /// # Errors
    /// What the file system says, but for things that are gone already.
    pub async fn remove(&self) -> Result<(), VolumeError> {
        let locked = self.lock().await;
        blocking(move || remove_tree(&locked.shared.dir))
            .await
            .map_err(|source| VolumeError {
                dir: self.shared.dir.clone(),
                source,
            })
    }

    /// Calls `hear` each time a guest does not get room, on the thread where that happened. It must not block. The first
    /// `hear` that a volume gets is the one it keeps.
    pub fn on_full(&self, hear: impl Fn(Full) + Send + Sync + 'static) {
        // Said above.
        let _ = self.shared.hear.set(Box::new(hear));
    }

    /// The end of the file at `path` below the directory, of at most `most` bytes: what a guest may have left there, so no link on the
    /// way is followed. Blocks.
    ///
    /// # Errors
    /// When there is no such file, or it is no plain one.
    pub fn read_end(&self, path: &Path, most: u64) -> io::Result<Vec<u8>> {
        let mut at: Option<OwnedFd> = None;
        let mut names = path.components().peekable();
        while let Some(name) = names.next() {
            let Component::Normal(name) = name else {
                if name == Component::RootDir && at.is_none() {
                    continue;
                }
                return Err(io::ErrorKind::InvalidInput.into());
            };
            let dir = at.as_ref().map_or(self.root().as_fd(), AsFd::as_fd);
            if names.peek().is_some() {
                at = Some(open_dir(dir, name, OFlags::NOFOLLOW)?);
                continue;
            }
            let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
            let file = File::from(rustix::fs::openat(dir, name, flags, Mode::empty())?);
            let metadata = file.metadata()?;
            if !metadata.is_file() {
                return Err(io::ErrorKind::InvalidInput.into());
            }
            let from = metadata.size().saturating_sub(most);
            let mut end = Vec::new();
            let mut file = file;
            file.seek(SeekFrom::Start(from))?;
            file.take(most).read_to_end(&mut end)?;
            return Ok(end);
        }
        Err(io::ErrorKind::InvalidInput.into())
    }

    pub(crate) fn is(&self, other: &Volume) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    /// From now on nobody else changes the directory by way of its account.
    pub(crate) async fn lock(&self) -> Locked {
        Locked {
            shared: self.shared.clone(),
            account: self.shared.account.clone().lock_owned().await,
        }
    }

    /// Writes at `offset`, or at the end, as much of `data` as there is room for.
    ///
    /// # Errors
    /// EDQUOT when not one byte fits; whatever the file system says.
    pub(crate) async fn write(
        &self,
        file: &Arc<File>,
        offset: Option<u64>,
        data: Bytes,
    ) -> io::Result<usize> {
        self.act(file, move |locked, file, asked| {
            let size = file.metadata()?.size();
            let offset = offset.unwrap_or(size);
            let end = offset.saturating_add(data.len() as u64);
            let have = in_blocks(size);
            let need = Amount {
                bytes: in_blocks(end).saturating_sub(have),
                inodes: 0,
            };
            let fitting = match locked.room(need, asked) {
                Ok(()) => data.len(),
                Err(NoRoom::Full(full)) => {
                    let free = locked.free().bytes / BLOCK_BYTES * BLOCK_BYTES;
                    let room = have.saturating_add(free).saturating_sub(offset);
                    match usize::try_from(room) {
                        Ok(0) => return Err(locked.refuse(full)),
                        Ok(room) => room.min(data.len()),
                        Err(_) => data.len(),
                    }
                }
                Err(later) => return Err(later),
            };
            let written = file.write_at(&data[..fitting], offset);
            locked.resized(size, file.metadata()?.size());
            Ok(written?)
        })
        .await
    }

    /// The same for all of `data`, in parts while there is room.
    pub(crate) async fn write_all(
        &self,
        file: &Arc<File>,
        mut offset: Option<u64>,
        mut data: Bytes,
    ) -> io::Result<()> {
        while !data.is_empty() {
            let written = self.write(file, offset, data.clone()).await?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            offset = offset.map(|offset| offset.saturating_add(written as u64));
            data = data.split_off(written);
        }
        Ok(())
    }

    /// # Errors
    /// EDQUOT when there is no room for a file of that size; whatever the file system says.
    pub(crate) async fn set_len(&self, file: &Arc<File>, len: u64) -> io::Result<()> {
        self.act(file, move |locked, file, asked| {
            let size = file.metadata()?.size();
            let need = Amount {
                bytes: in_blocks(len).saturating_sub(in_blocks(size)),
                inodes: 0,
            };
            locked.room(need, asked).map_err(|no| locked.refused(no))?;
            let set = file.set_len(len);
            locked.resized(size, file.metadata()?.size());
            Ok(set?)
        })
        .await
    }

    /// Has `act` work on `file`, again when it is to ask again, on a thread that may block.
    async fn act<T, F>(&self, file: &Arc<File>, act: F) -> io::Result<T>
    where
        T: Send + 'static,
        F: Fn(&mut Locked, &File, Instant) -> Result<T, NoRoom> + Send + Sync + 'static,
    {
        let asked = Instant::now();
        let act = Arc::new(act);
        loop {
            let mut locked = self.lock().await;
            let (act, file) = (act.clone(), file.clone());
            match blocking(move || act(&mut locked, &file, asked)).await {
                Ok(done) => return Ok(done),
                Err(NoRoom::Full(_)) => return Err(quota()),
                Err(NoRoom::Failed(error)) => return Err(error),
                Err(NoRoom::Later(at)) => tokio::time::sleep_until(at.into()).await,
            }
        }
    }
}

impl std::fmt::Debug for Volume {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Volume").field(&self.shared.dir).finish()
    }
}

/// Whether what is made in a folder is of its group.
fn gives_groups(dir: BorrowedFd<'_>, ownership: Ownership) -> bool {
    let stat = rustix::fs::fstat(dir);
    stat.is_ok_and(|stat| ownership.read(dir, &stat).mode & 0o2000 != 0)
}

/// Makes the file `path`, which guests that open it in a volume with limits find to be `/dev/null`. Making a device takes privileges;
/// a plain file with this mode no guest can make. Blocks.
///
/// # Errors
/// What the file system says; one that is there is an error.
pub fn make_null(path: &Path) -> io::Result<()> {
    let file = File::options().write(true).create_new(true).open(path)?;
    file.set_permissions(Permissions::from_mode(NULL_MODE))
}

/// See [`make_null`]: the sticky bit on a plain file means nothing to Linux.
const NULL_MODE: u32 = 0o1666;

/// Whether it is what [`make_null`] makes.
pub(crate) fn is_null(file: &File) -> bool {
    let metadata = file.metadata();
    metadata.is_ok_and(|metadata| metadata.is_file() && metadata.mode() & 0o1000 != 0)
}

/// The host's `/dev/null`; what stands for it in a process that has none.
pub(crate) fn null(stand_in: Arc<File>) -> Arc<File> {
    static NULL: OnceLock<Option<Arc<File>>> = OnceLock::new();
    let open = || File::options().read(true).write(true).open("/dev/null");
    let null = NULL.get_or_init(|| open().ok().map(Arc::new));
    null.clone().unwrap_or(stand_in)
}

/// Puts `file` at `path`: as another name of it where it is to be written and both are on one file system, else as a copy. Blocks.
///
/// # Errors
/// What the file system says.
pub fn place_file(file: &File, path: &Path, shared: bool) -> io::Result<()> {
    if shared {
        let from = format!("/proc/self/fd/{}", file.as_raw_fd());
        let follow = AtFlags::SYMLINK_FOLLOW;
        let at = rustix::fs::CWD;
        if rustix::fs::linkat(at, &from, at, path, follow).is_ok() {
            return Ok(());
        }
    }
    let stat = rustix::fs::fstat(file)?;
    let attributes = Ownership::Guests.read(file.as_fd(), &stat);
    let mut from = File::open(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    let mut to = File::options().write(true).create_new(true).open(path)?;
    io::copy(&mut from, &mut to)?;
    Ownership::Guests.write(to.as_fd(), attributes)
}

/// What a guest is told that got no room.
pub(crate) fn quota() -> io::Error {
    io::Error::from_raw_os_error(libc::EDQUOT)
}

/// What making something takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Made {
    Nothing,
    /// An empty file, or another name of one.
    Name,
    /// A directory or a symbolic link.
    Block,
}

impl From<Made> for Amount {
    fn from(made: Made) -> Amount {
        let (bytes, inodes) = match made {
            Made::Nothing => (0, 0),
            Made::Name => (0, 1),
            Made::Block => (BLOCK_BYTES, 1),
        };
        Amount { bytes, inodes }
    }
}

/// Why something was not done.
pub(crate) enum NoRoom {
    Full(Full),
    /// Ask again then: it may be that something was removed, and it is too early to count again.
    Later(Instant),
    Failed(io::Error),
}

impl From<io::Error> for NoRoom {
    fn from(error: io::Error) -> NoRoom {
        NoRoom::Failed(error)
    }
}

/// A volume whose account nobody else uses.
pub(crate) struct Locked {
    shared: Arc<Shared>,
    account: OwnedMutexGuard<Account>,
}

impl Locked {
    /// Whether there is room for `made`, counting anew if need be.
    pub(crate) async fn room_for(mut self, made: Made, asked: Instant) -> Result<Locked, NoRoom> {
        if self.lacks(made.into()).is_none() {
            return Ok(self);
        }
        blocking(move || match self.room(made.into(), asked) {
            Ok(()) => Ok(self),
            Err(no) => Err(self.refused(no)),
        })
        .await
    }

    /// Something was made.
    pub(crate) fn add(&mut self, made: Made) {
        let Amount { bytes, inodes } = made.into();
        self.account.used.bytes = self.account.used.bytes.saturating_add(bytes);
        self.account.used.inodes = self.account.used.inodes.saturating_add(inodes);
        self.publish();
    }

    /// A guest has opened something.
    pub(crate) fn opened(&mut self, file: &Arc<File>) {
        let account = &mut *self.account;
        if account.open.len() >= account.sweep_at {
            account.open.retain(|open| open.strong_count() > 0);
            account.sweep_at = (account.open.len() * 2).max(64);
        }
        account.open.push(Arc::downgrade(file));
    }

    /// Makes sure that there is room, if it has to by counting; blocks meanwhile.
    fn room(&mut self, need: Amount, asked: Instant) -> Result<(), NoRoom> {
        if self.lacks(need).is_none() {
            return Ok(());
        }
        // A count that began after the guest asked tells it all there is to know.
        if self.account.counted_at < asked {
            let pause = self.account.count_took * COUNT_SHARE;
            let due = self.account.counted_at + pause;
            if Instant::now() < due {
                return Err(NoRoom::Later(due));
            }
            if let Err(error) = self.count() {
                tracing::warn!(dir = %self.shared.dir.display(), %error, "a volume could not be counted");
            }
        }
        self.lacks(need)
            .map_or(Ok(()), |full| Err(NoRoom::Full(full)))
    }

    fn lacks(&self, need: Amount) -> Option<Full> {
        let free = self.free();
        if need.bytes > free.bytes {
            return Some(Full::Bytes);
        }
        (need.inodes > free.inodes).then_some(Full::Inodes)
    }

    fn free(&self) -> Amount {
        let (used, limits) = (self.account.used, self.shared.limits());
        let left =
            |limit: Option<u64>, used| limit.map_or(u64::MAX, |limit| limit.saturating_sub(used));
        Amount {
            bytes: left(limits.bytes, used.bytes),
            inodes: left(limits.inodes, used.inodes),
        }
    }

    /// A file has another size.
    fn resized(&mut self, from: u64, to: u64) {
        let used = &mut self.account.used.bytes;
        *used = used
            .saturating_add(in_blocks(to))
            .saturating_sub(in_blocks(from));
        self.publish();
    }

    fn count(&mut self) -> io::Result<()> {
        let begun = Instant::now();
        let counted = count(self.shared.root.as_fd(), &self.account.open);
        self.account.counted_at = begun;
        self.account.count_took = begun.elapsed();
        self.account.used = counted?;
        self.publish();
        Ok(())
    }

    fn publish(&self) {
        self.shared.bytes.store(self.account.used.bytes, Relaxed);
        self.shared.inodes.store(self.account.used.inodes, Relaxed);
    }

    fn refuse(&self, full: Full) -> NoRoom {
        if let Some(hear) = self.shared.hear.get() {
            hear(full);
        }
        NoRoom::Full(full)
    }

    /// Tells of `no` if it is for want of room.
    fn refused(&self, no: NoRoom) -> NoRoom {
        match no {
            NoRoom::Full(full) => self.refuse(full),
            other => other,
        }
    }
}

/// Runs `work` where it may block, and to its end, whoever stops to wait for it.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        // Only while the runtime of this thread is being taken down.
        Err(_) => std::future::pending().await,
    }
}

fn in_blocks(bytes: u64) -> u64 {
    bytes.div_ceil(BLOCK_BYTES).saturating_mul(BLOCK_BYTES)
}

/// What is below `root`, and what has no name any more but is `open`.
fn count(root: BorrowedFd<'_>, open: &[Weak<File>]) -> io::Result<Amount> {
    let mut used = Amount::default();
    let mut linked = HashSet::new();
    walk(
        root,
        |_, _, stat| {
            used.inodes += 1;
            let first = stat.st_nlink < 2 || linked.insert((stat.st_dev, stat.st_ino));
            used.bytes = used.bytes.saturating_add(match kind(stat) {
                FileType::RegularFile if first => in_blocks(size(stat)),
                FileType::RegularFile => 0,
                _ => BLOCK_BYTES,
            });
            Ok(())
        },
        |_, _| Ok(()),
    )?;
    // After the walk: what loses its name in between is counted twice then, and not never.
    let mut nameless = HashSet::new();
    for file in open.iter().filter_map(Weak::upgrade) {
        let stat = rustix::fs::fstat(&*file)?;
        if stat.st_nlink == 0 && nameless.insert((stat.st_dev, stat.st_ino)) {
            used.inodes += 1;
            used.bytes = used.bytes.saturating_add(match kind(&stat) {
                FileType::RegularFile => in_blocks(size(&stat)),
                _ => BLOCK_BYTES,
            });
        }
    }
    Ok(used)
}

/// Removes `dir` and everything in it, however deep it is: guests make directories that are deeper than a path is long, and
/// than a process may have files open. Blocks.
///
/// # Errors
/// What the file system says, but for things that are gone already.
pub fn remove_tree(dir: &Path) -> io::Result<()> {
    let gone = |removed: rustix::io::Result<()>| match removed {
        Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
        Err(error) => Err(io::Error::from(error)),
    };
    let root = match open_dir(rustix::fs::CWD, dir, OFlags::NOFOLLOW) {
        Ok(root) => root,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    walk(
        root.as_fd(),
        |parent, name, stat| match kind(stat) {
            FileType::Directory => Ok(()),
            _ => gone(rustix::fs::unlinkat(parent, name, AtFlags::empty())),
        },
        |parent, name| gone(rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR)),
    )?;
    gone(rustix::fs::rmdir(dir))
}

/// Shows `each` what is below `root`, and `left` each directory after all that is in it, both with the directory they are in.
///
/// Has two directories open at a time, however deep it is; nobody may move or remove directories meanwhile.
pub(crate) fn walk(
    root: BorrowedFd<'_>,
    mut each: impl FnMut(BorrowedFd<'_>, &CStr, &Stat) -> io::Result<()>,
    mut left: impl FnMut(BorrowedFd<'_>, &CStr) -> io::Result<()>,
) -> io::Result<()> {
    struct Level {
        name: CString,
        identity: (u64, u64),
        /// Directories in it that are still to be seen.
        below: Vec<CString>,
    }
    let mut enter = |at: BorrowedFd<'_>, name: CString| {
        let stat = rustix::fs::fstat(at)?;
        let mut below = Vec::new();
        for entry in Dir::read_from(at)? {
            let entry = entry?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            let stat = match rustix::fs::statat(at, name, AtFlags::SYMLINK_NOFOLLOW) {
                Err(rustix::io::Errno::NOENT) => continue,
                stat => stat?,
            };
            each(at, name, &stat)?;
            if kind(&stat) == FileType::Directory {
                below.push(name.to_owned());
            }
        }
        io::Result::Ok(Level {
            name,
            identity: (stat.st_dev, stat.st_ino),
            below,
        })
    };
    let mut at = open_dir(root, c".", OFlags::empty())?;
    let mut levels = vec![enter(at.as_fd(), CString::default())?];
    while let Some(level) = levels.last_mut() {
        if let Some(name) = level.below.pop() {
            at = open_dir(at.as_fd(), name.as_c_str(), OFlags::NOFOLLOW)?;
            levels.push(enter(at.as_fd(), name)?);
            continue;
        }
        let Some(done) = levels.pop() else { break };
        let Some(parent) = levels.last() else { break };
        at = open_dir(at.as_fd(), c"..", OFlags::empty())?;
        let stat = rustix::fs::fstat(&at)?;
        if (stat.st_dev, stat.st_ino) != parent.identity {
            return Err(io::Error::other("a directory was moved meanwhile"));
        }
        left(at.as_fd(), &done.name)?;
    }
    Ok(())
}

fn open_dir(at: BorrowedFd<'_>, path: impl rustix::path::Arg, more: OFlags) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | more;
    Ok(rustix::fs::openat(at, path, flags, Mode::empty())?)
}

fn kind(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

fn size(stat: &Stat) -> u64 {
    u64::try_from(stat.st_size).unwrap_or_default()
}
