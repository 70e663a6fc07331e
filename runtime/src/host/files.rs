//! `weft:files/attributes`: modes, owners and kinds of file systems. See `wit/files/attributes.wit`.
//!
//! A path leads to the directory lent to the guest with the longest name that it begins with, and is walked there as the guest's user may
//! ([`Walk`]), on a thread that may block. What is made here is held to the volume's account, as what `wasi:filesystem` makes.

use std::io;
use std::path::{Component, Path};

use rustix::fs::FileType;
use wasmtime::StoreContextMut;
use wasmtime::component::{ComponentType, Lift, Linker, Lower};

use super::filesystem::Maker;
use crate::host::HostState;
use crate::ownership::{Attributes, Identity, Walk};
use crate::volume::{Access, Lent, blocking};

const SET_GROUP: u32 = 0o2000;
/// Beyond this, no path is one.
const PATH_BYTES_MAX: usize = 4096;

#[derive(ComponentType, Lift, Lower, Clone, Copy)]
#[component(enum)]
#[repr(u8)]
enum Kind {
    #[component(name = "file")]
    File,
    #[component(name = "directory")]
    Directory,
    #[component(name = "link")]
    Link,
    #[component(name = "fifo")]
    Fifo,
    #[component(name = "socket")]
    Socket,
    #[component(name = "block-device")]
    BlockDevice,
    #[component(name = "character-device")]
    CharacterDevice,
}

#[derive(ComponentType, Lift, Lower)]
#[component(record)]
struct Told {
    kind: Kind,
    mode: u32,
    user: u32,
    group: u32,
    links: u64,
    size: u64,
    blocks: u64,
    device: u64,
    inode: u64,
}

#[derive(ComponentType, Lift, Lower, Clone, Copy, Debug, PartialEq, Eq)]
#[component(enum)]
#[repr(u8)]
enum Error {
    #[component(name = "access")]
    Access,
    #[component(name = "exist")]
    Exist,
    #[component(name = "invalid")]
    Invalid,
    #[component(name = "io")]
    Io,
    #[component(name = "loop")]
    Loop,
    #[component(name = "name-too-long")]
    NameTooLong,
    #[component(name = "no-entry")]
    NoEntry,
    #[component(name = "not-directory")]
    NotDirectory,
    #[component(name = "not-permitted")]
    NotPermitted,
    #[component(name = "quota")]
    Quota,
    #[component(name = "read-only")]
    ReadOnly,
    #[component(name = "unsupported")]
    Unsupported,
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Error {
        match error.raw_os_error() {
            Some(libc::EACCES) => Error::Access,
            Some(libc::EEXIST) => Error::Exist,
            Some(libc::EINVAL) => Error::Invalid,
            Some(libc::ELOOP) => Error::Loop,
            Some(libc::ENAMETOOLONG) => Error::NameTooLong,
            Some(libc::ENOENT) => Error::NoEntry,
            Some(libc::ENOTDIR) => Error::NotDirectory,
            Some(libc::EPERM) => Error::NotPermitted,
            Some(libc::EDQUOT | libc::ENOSPC) => Error::Quota,
            Some(libc::EROFS) => Error::ReadOnly,
            Some(libc::ENOTSUP) => Error::Unsupported,
            _ => Error::Io,
        }
    }
}

#[derive(ComponentType, Lift, Lower)]
#[component(record)]
struct Who {
    user: u32,
    group: u32,
    groups: Vec<u32>,
}

#[derive(ComponentType, Lift, Lower)]
#[component(record)]
struct Mount {
    path: String,
    kind: String,
    #[component(name = "read-only")]
    read_only: bool,
    bytes: Option<u64>,
    #[component(name = "bytes-used")]
    bytes_used: u64,
    inodes: Option<u64>,
    #[component(name = "inodes-used")]
    inodes_used: u64,
}

type Said<T> = wasmtime::Result<(Result<T, Error>,)>;

pub(super) fn link(linker: &mut Linker<HostState>) -> wasmtime::Result<()> {
    let mut files = linker.instance("weft:files/attributes@0.1.0")?;
    files.func_wrap_async(
        "stat",
        |store: StoreContextMut<'_, HostState>, (path, follow): (String, bool)| {
            let place = Place::of(store.data(), &path);
            Box::new(async move { Ok((stat(place, follow).await,)) })
        },
    )?;
    files.func_wrap_async(
        "set-mode",
        |store: StoreContextMut<'_, HostState>, (path, mode): (String, u32)| {
            let place = Place::of(store.data(), &path);
            Box::new(async move { Ok((set_mode(place, mode).await,)) })
        },
    )?;
    files.func_wrap_async(
        "set-owner",
        |store: StoreContextMut<'_, HostState>,
         (path, user, group): (String, Option<u32>, Option<u32>)| {
            let place = Place::of(store.data(), &path);
            Box::new(async move { Ok((set_owner(place, user, group).await,)) })
        },
    )?;
    files.func_wrap_async(
        "create",
        |store: StoreContextMut<'_, HostState>, (path, is_dir, mode): (String, bool, u32)| {
            let place = Place::of(store.data(), &path);
            let maker = Maker::of(store.data(), Some(mode & 0o7777));
            Box::new(create(place, is_dir, maker))
        },
    )?;
    files.func_wrap(
        "set-mask",
        |mut store: StoreContextMut<'_, HostState>, (mask,): (u32,)| {
            let state = store.data_mut();
            Ok((std::mem::replace(&mut state.mask, mask & 0o777),))
        },
    )?;
    files.func_wrap("who", |store: StoreContextMut<'_, HostState>, (): ()| {
        let Identity {
            user,
            group,
            groups,
        } = store.data().workload.config().identity.clone();
        let who = Who {
            user,
            group,
            groups,
        };
        Ok((who,))
    })?;
    files.func_wrap_async("mounts", |store: StoreContextMut<'_, HostState>, (): ()| {
        let lent = store.data().workload.lent().to_vec();
        Box::new(async move {
            let mounts = blocking(move || lent.iter().map(mount).collect::<Vec<_>>());
            Ok((mounts.await,))
        })
    })
}

fn mount(lent: &Lent) -> Mount {
    let usage = lent.volume.as_ref().map(|volume| volume.usage());
    Mount {
        path: lent.guest_path.clone(),
        kind: lent.kind(),
        read_only: lent.access == Access::ReadOnly,
        bytes: usage.and_then(|usage| usage.limits.bytes),
        bytes_used: usage.map_or(0, |usage| usage.bytes),
        inodes: usage.and_then(|usage| usage.limits.inodes),
        inodes_used: usage.map_or(0, |usage| usage.inodes),
    }
}

/// A path of the guest's: the directory that it is in, and where there.
struct Place {
    lent: Lent,
    /// Among the directories that were lent.
    index: usize,
    path: String,
    who: Identity,
}

impl Place {
    fn of(state: &HostState, path: &str) -> Result<Place, Error> {
        if path.len() > PATH_BYTES_MAX {
            return Err(Error::NameTooLong);
        }
        if path.contains('\0') || !path.starts_with('/') {
            return Err(Error::Invalid);
        }
        let whole = normal(path);
        let parts: Vec<&str> = parts(&whole).collect();
        let all = state.workload.lent().iter().enumerate();
        let holding = all.filter_map(|(index, lent)| {
            let mut rest = parts.iter();
            let is_in =
                parts_of(&lent.guest_path).all(|part| rest.next().is_some_and(|own| *own == part));
            is_in.then(|| (rest.len(), index, lent))
        });
        // Of two with one name the first is the one that a guest's library finds.
        let (rest, index, lent) = holding
            .min_by_key(|(rest, index, _)| (*rest, *index))
            .ok_or(Error::NoEntry)?;
        let path = parts.get(parts.len() - rest..).unwrap_or_default();
        Ok(Place {
            lent: lent.clone(),
            index,
            path: match path {
                [] => ".".to_owned(),
                path => path.join("/"),
            },
            who: state.workload.config().identity.clone(),
        })
    }

    fn walk(&self, follow: bool) -> io::Result<Walk> {
        let Place {
            lent, path, who, ..
        } = self;
        Walk::to(lent.root(), path, follow, who, lent.ownership())
    }

    /// What may be changed.
    fn writable(self) -> Result<Place, Error> {
        match self.lent.access {
            Access::ReadOnly => Err(Error::ReadOnly),
            Access::ReadWrite => Ok(self),
        }
    }
}

/// Without `.`, `..` and doubled slashes, by its text alone: a directory that was lent is found by its name.
fn normal(path: &str) -> String {
    let mut found: Vec<&str> = Vec::new();
    for part in Path::new(path).components() {
        match part {
            Component::ParentDir => {
                found.pop();
            }
            Component::Normal(name) => found.extend(name.to_str()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    found.join("/")
}

fn parts(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|part| !part.is_empty())
}

fn parts_of(path: &str) -> impl Iterator<Item = &str> {
    parts(path).filter(|part| *part != ".")
}

async fn stat(place: Result<Place, Error>, follow: bool) -> Result<Told, Error> {
    let place = place?;
    blocking(move || {
        let walk = place.walk(follow)?;
        let Attributes { mode, user, group } = walk.attributes()?;
        let Some((_, stat)) = &walk.found else {
            return Err(Error::NoEntry);
        };
        let number = |number: i64| u64::try_from(number).unwrap_or_default();
        Ok(Told {
            kind: match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => Kind::Directory,
                FileType::Symlink => Kind::Link,
                FileType::Fifo => Kind::Fifo,
                FileType::Socket => Kind::Socket,
                FileType::BlockDevice => Kind::BlockDevice,
                FileType::CharacterDevice => Kind::CharacterDevice,
                FileType::RegularFile | FileType::Unknown => Kind::File,
            },
            mode,
            user,
            group,
            links: stat.st_nlink,
            size: number(stat.st_size),
            blocks: number(stat.st_blocks),
            device: stat.st_dev,
            inode: stat.st_ino,
        })
    })
    .await
}

async fn set_mode(place: Result<Place, Error>, mode: u32) -> Result<(), Error> {
    let place = place?.writable()?;
    blocking(move || {
        let walk = place.walk(true)?;
        let before = walk.attributes()?;
        let who = &place.who;
        if !who.is_root() && before.user != who.user {
            return Err(Error::NotPermitted);
        }
        // As Linux: who is not in the group does not run as it.
        let kept = match who.is_root() || who.is_in(before.group) {
            true => 0o7777,
            false => 0o7777 & !SET_GROUP,
        };
        let mode = mode & kept;
        if mode & SET_GROUP != 0
            && let Some(volume) = &place.lent.volume
        {
            volume.gives_groups();
        }
        Ok(walk.set(Attributes { mode, ..before })?)
    })
    .await
}

async fn set_owner(
    place: Result<Place, Error>,
    user: Option<u32>,
    group: Option<u32>,
) -> Result<(), Error> {
    let place = place?.writable()?;
    blocking(move || {
        let walk = place.walk(true)?;
        let before = walk.attributes()?;
        let after = Attributes {
            user: user.unwrap_or(before.user),
            group: group.unwrap_or(before.group),
            // Whoever had a program run as its owner does not give that away with it.
            mode: before.mode & 0o1777,
        };
        let who = &place.who;
        let is_own = before.user == who.user
            && after.user == before.user
            && (after.group == before.group || who.is_in(after.group));
        if !who.is_root() && !is_own {
            return Err(Error::NotPermitted);
        }
        Ok(walk.set(after)?)
    })
    .await
}

async fn create(place: Result<Place, Error>, is_dir: bool, maker: Maker) -> Said<()> {
    let place = match place.and_then(Place::writable) {
        Ok(place) => place,
        Err(error) => return Ok((Err(error),)),
    };
    let Place {
        lent, index, path, ..
    } = place;
    let made = super::filesystem::create(&lent, index, path, is_dir, maker).await;
    Ok((match made {
        Ok(()) => Ok(()),
        Err(error) => Err(from_wasi(error.downcast()?)),
    },))
}

fn from_wasi(code: wasmtime_wasi::p2::bindings::filesystem::types::ErrorCode) -> Error {
    use wasmtime_wasi::p2::bindings::filesystem::types::ErrorCode;
    match code {
        ErrorCode::Access => Error::Access,
        ErrorCode::Exist => Error::Exist,
        ErrorCode::Invalid => Error::Invalid,
        ErrorCode::Loop => Error::Loop,
        ErrorCode::NameTooLong => Error::NameTooLong,
        ErrorCode::NoEntry => Error::NoEntry,
        ErrorCode::NotDirectory => Error::NotDirectory,
        ErrorCode::NotPermitted => Error::NotPermitted,
        ErrorCode::Quota | ErrorCode::InsufficientSpace => Error::Quota,
        ErrorCode::ReadOnly => Error::ReadOnly,
        ErrorCode::Unsupported => Error::Unsupported,
        _ => Error::Io,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_known_by_their_text() {
        for (path, expected) in [
            ("/", ""),
            ("/data//a/./b", "data/a/b"),
            ("/data/../etc/hosts", "etc/hosts"),
            ("/../..", ""),
        ] {
            assert_eq!(normal(path), expected);
        }
    }
}
