//! `wasi:filesystem` in a [`Volume`] with limits: the functions that can make a directory larger, and those that would have a
//! count of it go wrong (directories that move or go while it is walked). They work with the volume's account locked, and
//! everything else is wasmtime's as it is.
//!
//! Which volume a descriptor belongs to is written in the descriptor itself: in bits of its open mode that wasmtime, which
//! asks for two others, carries along. The directories lent to the guest have the mark from the start, and what is opened
//! below them gets it. So a descriptor elsewhere costs one look at it.
//!
//! What a guest's user may not, is refused here as well (`ownership`): before something is opened, made, moved or removed, its path is
//! walked under the same lock. Looking at a file's size and times asks nobody. User 0 costs nothing of that; what he makes is his,
//! which is what a file says of whom nobody wrote anything down.
//!
//! Where wasmtime does the work, it does it on descriptors of the same files in a table of the volume's own, in a task that
//! ends after it: an instance that goes away does not leave something behind that was made and not counted.
//!
//! What would change a directory that may only be read is refused as on a file system that is mounted so, which wasmtime calls not permitted.

pub(super) mod p2;
pub(super) mod p3;

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Instant;

use wasmtime::StoreContextMut;
use wasmtime::component::Resource;
use wasmtime_wasi::filesystem::{
    Descriptor, Dir, WasiFilesystemCtx, WasiFilesystemCtxView, WasiFilesystemView,
};
use wasmtime_wasi::p2::FsResult;
use wasmtime_wasi::p2::bindings::filesystem::preopens::Host as Preopens;
use wasmtime_wasi::p2::bindings::filesystem::types::{
    DescriptorFlags, ErrorCode, HostDescriptor, OpenFlags, PathFlags,
};
use wasmtime_wasi::{FsPerms, OpenMode, ResourceTable};

use crate::host::HostState;
use crate::ownership::{DIR_MODE, FILE_MODE, Identity, MASK, Ownership, READ, WRITE, Walk};
use crate::volume::{self, Access, Lent, Made, NoRoom, Volume};
use crate::workload::Inner;

/// The largest part of a stream that is written at once.
const CHUNK_BYTES: usize = 64 << 10;
/// Where in a descriptor's open mode its place among the workload's directories is, counted from one.
const MARK_SHIFT: u32 = 16;

fn mark_of(descriptor: &Descriptor) -> usize {
    let mode = match descriptor {
        Descriptor::File(file) => file.open_mode,
        Descriptor::Dir(dir) => dir.open_mode,
    };
    mode.bits() >> MARK_SHIFT
}

fn set_mark(descriptor: &mut Descriptor, mark: usize) {
    let mode = match descriptor {
        Descriptor::File(file) => &mut file.open_mode,
        Descriptor::Dir(dir) => &mut dir.open_mode,
    };
    *mode |= OpenMode::from_bits_retain(mark << MARK_SHIFT);
}

fn handle(descriptor: &Descriptor) -> &Arc<File> {
    match descriptor {
        Descriptor::File(file) => &file.file,
        Descriptor::Dir(dir) => &dir.dir,
    }
}

fn is_read_only(descriptor: &Descriptor) -> bool {
    match descriptor {
        Descriptor::File(file) => file.perms.write_not_permitted(),
        Descriptor::Dir(dir) => dir.perms.write_not_permitted(),
    }
}

/// Who makes something.
#[derive(Clone)]
pub(super) struct Maker {
    workload: Arc<Inner>,
    mask: u32,
    /// None where WASI says nothing of it.
    mode: Option<u32>,
}

impl Maker {
    pub(super) fn of(state: &HostState, mode: Option<u32>) -> Maker {
        Maker {
            workload: state.workload.clone(),
            mask: state.mask,
            mode,
        }
    }

    fn who(&self) -> &Identity {
        &self.workload.config().identity
    }

    /// The mode of what it makes.
    fn mode(&self, is_dir: bool) -> u32 {
        let least = if is_dir { 0o777 } else { 0o666 };
        self.mode.unwrap_or(least) & !self.mask
    }

    /// Whether what it makes in `volume` is what any file is of which nothing was written down.
    fn leaves_no_trace(&self, volume: &Volume) -> bool {
        let who = self.who();
        (who.user, who.group) == (0, 0)
            && self.mode.is_none()
            && self.mask == MASK
            && !volume.may_give_groups()
    }
}

/// A descriptor in a volume with limits.
struct Here {
    volume: Volume,
    descriptor: Descriptor,
    maker: Maker,
}

impl Here {
    async fn set_size(&self, size: u64) -> Result<(), ErrorCode> {
        let set = self.volume.set_len(self.file()?, size).await;
        set.map_err(|error| code(&error))
    }

    /// Its file, if it is one that may be written.
    fn file(&self) -> Result<&Arc<File>, ErrorCode> {
        match &self.descriptor {
            Descriptor::File(file) if file.perms.write_not_permitted() => {
                Err(ErrorCode::NotPermitted)
            }
            Descriptor::File(file) => Ok(&file.file),
            Descriptor::Dir(_) => Err(ErrorCode::BadDescriptor),
        }
    }
}

impl HostState {
    fn volume_of(&self, descriptor: &Descriptor) -> Option<&Volume> {
        let index = mark_of(descriptor).checked_sub(1)?;
        self.workload.lent().get(index)?.held()
    }

    fn here(&self, descriptor: &Resource<Descriptor>) -> wasmtime::Result<Option<Here>> {
        let descriptor = self.table.get(descriptor)?;
        Ok(self.volume_of(descriptor).map(|volume| Here {
            volume: volume.clone(),
            descriptor: descriptor.clone(),
            maker: Maker::of(self, None),
        }))
    }

    /// Whether what is at or below it may only be read.
    fn is_read_only(&self, descriptor: &Resource<Descriptor>) -> wasmtime::Result<bool> {
        Ok(is_read_only(self.table.get(descriptor)?))
    }

    /// Both ends of a move, if a volume with limits is one of them and wasmtime would not refuse it anyway.
    fn ends(
        &self,
        from: &Resource<Descriptor>,
        to: &Resource<Descriptor>,
    ) -> wasmtime::Result<Option<Ends>> {
        let (from, to) = (self.table.get(from)?, self.table.get(to)?);
        if is_read_only(from) || is_read_only(to) {
            return Ok(None);
        }
        Ok(match (self.volume_of(from), self.volume_of(to)) {
            (None, None) => None,
            (Some(here), Some(there)) if here.is(there) => Some(Ends::Same(
                Here {
                    volume: here.clone(),
                    descriptor: from.clone(),
                    maker: Maker::of(self, None),
                },
                to.clone(),
            )),
            // As between two file systems: a file that two accounts hold, or that changes accounts, would be on neither.
            _ => Some(Ends::Apart),
        })
    }

    /// Marks the directories that the guest was just given.
    fn mark(&mut self, lent: &[(Resource<Descriptor>, String)]) -> wasmtime::Result<()> {
        for (index, (directory, _)) in lent.iter().enumerate() {
            let lent = self.workload.lent().get(index);
            if lent.is_some_and(|lent| lent.held().is_some()) {
                set_mark(self.table.get_mut(directory)?, index + 1);
            }
        }
        Ok(())
    }
}

/// Makes an empty file, or a folder, at `path` in a directory that was lent as the `index`th.
pub(super) async fn create(
    lent: &Lent,
    index: usize,
    path: String,
    is_dir: bool,
    maker: Maker,
) -> FsResult<()> {
    let perms = match lent.access {
        Access::ReadOnly => FsPerms::ReadOnly,
        Access::ReadWrite => FsPerms::ReadWrite,
    };
    let root = lent.file().try_clone()?;
    let mode = OpenMode::READ | OpenMode::WRITE;
    let mut descriptor = Descriptor::Dir(Dir::new(root, perms, mode, false));
    let change = match is_dir {
        true => Change::CreateDirectory(path),
        false => Change::Open {
            path_flags: PathFlags::empty(),
            path,
            open: OpenFlags::CREATE | OpenFlags::EXCLUSIVE,
            flags: DescriptorFlags::WRITE,
        },
    };
    let Some(volume) = lent.held() else {
        change.make(&descriptor).await?;
        let dir = handle(&descriptor).clone();
        return Ok(change.record(dir, lent.ownership(), maker).await?);
    };
    set_mark(&mut descriptor, index + 1);
    let here = Here {
        volume: volume.clone(),
        descriptor,
        maker,
    };
    here.change(change).await.map(drop)
}

/// Whether opening something in this way would change it, or its directory.
fn writes(open: OpenFlags, flags: DescriptorFlags) -> bool {
    open.intersects(OpenFlags::CREATE | OpenFlags::TRUNCATE)
        || flags.intersects(DescriptorFlags::WRITE | DescriptorFlags::MUTATE_DIRECTORY)
}

enum Ends {
    Same(Here, Descriptor),
    Apart,
}

/// What wasmtime is to do in a volume.
#[derive(Clone)]
enum Change {
    Open {
        path_flags: PathFlags,
        path: String,
        open: OpenFlags,
        flags: DescriptorFlags,
    },
    CreateDirectory(String),
    RemoveDirectory(String),
    RemoveFile(String),
    Symlink {
        target: String,
        path: String,
    },
    Link {
        path_flags: PathFlags,
        path: String,
        to: Descriptor,
        new_path: String,
    },
    Rename {
        path: String,
        to: Descriptor,
        new_path: String,
    },
}

impl Change {
    /// What it makes if it comes off.
    fn makes(&self) -> Made {
        match self {
            Change::Open { open, .. } if open.contains(OpenFlags::CREATE) => Made::Name,
            Change::Link { .. } => Made::Name,
            Change::CreateDirectory(_) | Change::Symlink { .. } => Made::Block,
            Change::Open { .. }
            | Change::RemoveDirectory(_)
            | Change::RemoveFile(_)
            | Change::Rename { .. } => Made::Nothing,
        }
    }

    /// The same as far as it makes nothing, for what creates a file only if there is none.
    fn of_existing(&self) -> Option<Change> {
        let Change::Open {
            path_flags,
            path,
            open,
            flags,
        } = self
        else {
            return None;
        };
        if !open.contains(OpenFlags::CREATE) || open.contains(OpenFlags::EXCLUSIVE) {
            return None;
        }
        let truncate = open.contains(OpenFlags::TRUNCATE);
        // A file that may be created is opened to be written, whatever else the guest wants of it.
        let more = match flags.contains(DescriptorFlags::WRITE) {
            true => DescriptorFlags::empty(),
            false => DescriptorFlags::READ | DescriptorFlags::WRITE,
        };
        Some(Change::Open {
            path_flags: *path_flags,
            path: path.clone(),
            open: match truncate {
                true => OpenFlags::TRUNCATE,
                false => OpenFlags::empty(),
            },
            flags: *flags | more,
        })
    }

    /// Whether it is for more than reading what is there.
    fn writes(&self) -> bool {
        let Change::Open { open, flags, .. } = self else {
            return true;
        };
        open.contains(OpenFlags::CREATE)
            || open.contains(OpenFlags::TRUNCATE)
            || flags.contains(DescriptorFlags::WRITE)
    }

    /// Whether `who` may. Blocks.
    fn check(&self, dir: &File, who: &Identity, ownership: Ownership) -> io::Result<()> {
        let walk = |path: &str, follow: bool| Walk::to(dir.as_fd(), path, follow, who, ownership);
        match self {
            Change::Open {
                path_flags,
                path,
                open,
                flags,
            } => {
                let follow = path_flags.contains(PathFlags::SYMLINK_FOLLOW);
                let walk = walk(path, follow)?;
                if walk.found.is_none() {
                    return match open.contains(OpenFlags::CREATE) {
                        true => walk.may_change(who),
                        false => Ok(()),
                    };
                }
                let mut what = 0;
                if flags.contains(DescriptorFlags::READ) {
                    what |= READ;
                }
                if flags.contains(DescriptorFlags::WRITE) || open.contains(OpenFlags::TRUNCATE) {
                    what |= WRITE;
                }
                match what == 0 || who.may(what, walk.attributes()?) {
                    true => Ok(()),
                    false => Err(io::Error::from_raw_os_error(libc::EACCES)),
                }
            }
            Change::CreateDirectory(path)
            | Change::RemoveDirectory(path)
            | Change::RemoveFile(path)
            | Change::Symlink { path, .. } => walk(path, false)?.may_change(who),
            Change::Link {
                path_flags,
                path,
                to,
                new_path,
            } => {
                walk(path, path_flags.contains(PathFlags::SYMLINK_FOLLOW))?;
                Walk::to(handle(to).as_fd(), new_path, false, who, ownership)?.may_change(who)
            }
            Change::Rename { path, to, new_path } => {
                walk(path, false)?.may_change(who)?;
                Walk::to(handle(to).as_fd(), new_path, false, who, ownership)?.may_change(who)
            }
        }
    }

    /// Writes down whose it is that was made below `dir`, where that is not what any file has.
    async fn record(&self, dir: Arc<File>, ownership: Ownership, maker: Maker) -> io::Result<()> {
        let (path, is_dir) = match self {
            Change::Open { path, .. } => (path.clone(), false),
            Change::CreateDirectory(path) => (path.clone(), true),
            _ => return Ok(()),
        };
        volume::blocking(move || {
            let nobody = Identity::default();
            let walk = Walk::to(dir.as_fd(), &path, true, &nobody, ownership)?;
            let mode = maker.mode(is_dir);
            let plain = if is_dir { DIR_MODE } else { FILE_MODE };
            let mut made = walk.folder()?.of_new(maker.who(), mode, is_dir);
            if ownership == Ownership::Host {
                // It is whose it is.
                let own = walk.attributes()?;
                (made.user, made.group) = (own.user, own.group);
            } else if (made.user, made.group, made.mode) == (0, 0, plain) {
                return Ok(());
            }
            walk.set(made)
        })
        .await
    }

    /// Does it in `dir`. What was opened, if it was to open something.
    async fn make(&self, dir: &Descriptor) -> FsResult<Option<Descriptor>> {
        let (mut table, mut ctx) = (ResourceTable::new(), WasiFilesystemCtx::default());
        let dir = table.push(dir.clone())?.rep();
        let dir = || Resource::new_borrow(dir);
        let mut view = WasiFilesystemCtxView {
            ctx: &mut ctx,
            table: &mut table,
        };
        match self {
            Change::Open {
                path_flags,
                path,
                open,
                flags,
            } => {
                let (flags, path) = (*flags, path.clone());
                let opened =
                    HostDescriptor::open_at(&mut view, dir(), *path_flags, path, *open, flags)
                        .await?;
                return Ok(Some(table.delete(opened)?));
            }
            Change::CreateDirectory(path) => {
                HostDescriptor::create_directory_at(&mut view, dir(), path.clone()).await?;
            }
            Change::RemoveDirectory(path) => {
                HostDescriptor::remove_directory_at(&mut view, dir(), path.clone()).await?;
            }
            Change::RemoveFile(path) => {
                HostDescriptor::unlink_file_at(&mut view, dir(), path.clone()).await?;
            }
            Change::Symlink { target, path } => {
                let (target, path) = (target.clone(), path.clone());
                HostDescriptor::symlink_at(&mut view, dir(), target, path).await?;
            }
            Change::Link {
                path_flags,
                path,
                to,
                new_path,
            } => {
                let to = view.table.push(to.clone())?;
                let (path, new_path) = (path.clone(), new_path.clone());
                HostDescriptor::link_at(&mut view, dir(), *path_flags, path, to, new_path).await?;
            }
            Change::Rename { path, to, new_path } => {
                let to = view.table.push(to.clone())?;
                let (path, new_path) = (path.clone(), new_path.clone());
                HostDescriptor::rename_at(&mut view, dir(), path, to, new_path).await?;
            }
        }
        Ok(None)
    }
}

impl Here {
    /// Has wasmtime do `change` here, with the account locked, and to its end though nobody wait for it.
    async fn change(self, change: Change) -> FsResult<Option<Descriptor>> {
        match tokio::spawn(self.changed(change)).await {
            Ok(changed) => changed,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            // Only while the runtime of this thread is being taken down.
            Err(_) => std::future::pending().await,
        }
    }

    async fn changed(self, change: Change) -> FsResult<Option<Descriptor>> {
        let asked = Instant::now();
        let made = match is_read_only(&self.descriptor) {
            // That is refused, and as what it is.
            true => Made::Nothing,
            false => change.makes(),
        };
        loop {
            let mut locked = self.volume.lock().await;
            let ownership = self.volume.ownership();
            let dir = handle(&self.descriptor).clone();
            // What is lent to be read is not written, whoever asks: wasmtime says so.
            let refused = is_read_only(&self.descriptor) && change.writes();
            let change = if self.maker.who().is_root() || refused {
                change.clone()
            } else {
                let (change, maker, dir) = (change.clone(), self.maker.clone(), dir.clone());
                let checked = volume::blocking(move || {
                    let checked = change.check(&dir, maker.who(), ownership);
                    checked.map(|()| change)
                });
                match checked.await {
                    Ok(checked) => checked,
                    Err(error) => match error.raw_os_error() {
                        Some(libc::EACCES) => return Err(ErrorCode::Access.into()),
                        _ => return Err(code(&error).into()),
                    },
                }
            };
            if let Some(existing) = change.of_existing() {
                let opened = existing.make(&self.descriptor).await;
                let missing = opened
                    .as_ref()
                    .is_err_and(|error| matches!(error.downcast_ref(), Some(ErrorCode::NoEntry)));
                if !missing {
                    if let Ok(Some(opened)) = &opened {
                        locked.opened(handle(opened));
                    }
                    return opened;
                }
            }
            locked = match locked.room_for(made, asked).await {
                Ok(locked) => locked,
                Err(NoRoom::Later(at)) => {
                    tokio::time::sleep_until(at.into()).await;
                    continue;
                }
                Err(NoRoom::Full(_)) => return Err(ErrorCode::Quota.into()),
                Err(NoRoom::Failed(error)) => return Err(error.into()),
            };
            let changed = change.make(&self.descriptor).await;
            if let Ok(opened) = &changed {
                if made != Made::Nothing && !self.maker.leaves_no_trace(&self.volume) {
                    let recorded = change.record(dir, ownership, self.maker.clone()).await;
                    if let Err(error) = recorded {
                        tracing::warn!(%error, "whose a new file is was not written down");
                    }
                }
                locked.add(made);
                if let Some(opened) = opened {
                    locked.opened(handle(opened));
                }
            }
            return changed;
        }
    }

    /// Opens something here, with the mark of where it is.
    async fn open(self, change: Change) -> FsResult<Descriptor> {
        let mark = mark_of(&self.descriptor);
        match self.change(change).await? {
            Some(Descriptor::File(mut file)) if volume::is_null(&file.file) => {
                file.file = volume::null(file.file);
                Ok(Descriptor::File(file))
            }
            Some(mut opened) => {
                set_mark(&mut opened, mark);
                Ok(opened)
            }
            None => Err(ErrorCode::Io.into()),
        }
    }
}

fn code(error: &io::Error) -> ErrorCode {
    match error.raw_os_error() {
        Some(libc::EDQUOT) => ErrorCode::Quota,
        _ => ErrorCode::from(error),
    }
}

type Directories = Vec<(Resource<Descriptor>, String)>;

fn get_directories(
    mut store: StoreContextMut<'_, HostState>,
    (): (),
) -> wasmtime::Result<(Directories,)> {
    let state = store.data_mut();
    let lent = Preopens::get_directories(&mut state.filesystem())?;
    state.mark(&lent)?;
    Ok((lent,))
}
