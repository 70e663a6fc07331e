//! Whose a file is, and who may do what with it: what a guest of WASI has no word for, and Unix programs ask about.
//!
//! A guest has an [`Identity`], a user and groups that exist for its files alone: on the host all of them are the user that this
//! process runs as. What a file is to guests, its [`Attributes`], is therefore no business of the host's permissions. Where it is not
//! what any file has from its making (0644, folders and programs 0755, owner 0), it stands in the extended attribute [`NAME`] of the file
//! and goes with it through renames and links. On a file system without those, modes are the host's own as far as it can have them, and
//! owners are not kept.
//!
//! What user 0 may is not looked at. For any other user a path is walked before something is done with it ([`Walk`]), and
//! each folder on it, the folder that is changed and the file that is opened are asked, as a kernel would.
//!
//! Invariants: no bit of a guest's ever makes a file of the host set-id; a walk never leaves its directory; it follows 40 links at most.
//! Blocks.
//!
//! Source: POSIX `chmod`, `chown`, `open`; Linux path_resolution(7).

use std::collections::VecDeque;
use std::ffi::{CStr, OsStr, OsString};
use std::fs::{File, Permissions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Component, Path};

use rustix::fs::{FileType, Mode, OFlags, Stat, XattrFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::volume;

/// The extended attribute: mode in octal, user and group in decimal, with a space between.
const NAME: &str = "user.weft.attributes";
/// As many links as Linux follows in one path.
const LINKS_MAX: usize = 40;
/// What files and folders are made with; WASI has no way to say.
pub(crate) const FILE_MODE: u32 = 0o644;
pub(crate) const DIR_MODE: u32 = 0o755;
/// The mask that a guest begins with, as most programs do.
pub(crate) const MASK: u32 = 0o022;

const SET_GROUP: u32 = 0o2000;
const STICKY: u32 = 0o1000;

/// Who a guest is to its files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pub user: u32,
    pub group: u32,
    /// Beside `group`.
    pub groups: Vec<u32>,
}

impl Identity {
    pub(crate) fn is_root(&self) -> bool {
        self.user == 0
    }

    pub(crate) fn is_in(&self, group: u32) -> bool {
        self.group == group || self.groups.contains(&group)
    }

    /// Whether it may do `what` (bits of `rwx`) with a file of these attributes.
    pub(crate) fn may(&self, what: u32, file: Attributes) -> bool {
        if self.is_root() {
            return true;
        }
        let shift = match (file.user == self.user, self.is_in(file.group)) {
            (true, _) => 6,
            (false, true) => 3,
            (false, false) => 0,
        };
        (file.mode >> shift) & what == what
    }
}

pub(crate) const READ: u32 = 4;
pub(crate) const WRITE: u32 = 2;
pub(crate) const SEARCH: u32 = 1;

/// Mode and owner of a file, as guests are told them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes {
    /// The twelve bits of `chmod`.
    pub mode: u32,
    pub user: u32,
    pub group: u32,
}

impl Attributes {
    /// What something has that `who` makes with `mode` in a folder of these attributes.
    pub(crate) fn of_new(self, who: &Identity, mode: u32, is_dir: bool) -> Attributes {
        let inherits = self.mode & SET_GROUP != 0;
        Attributes {
            mode: mode
                | match inherits && is_dir {
                    true => SET_GROUP,
                    false => 0,
                },
            user: who.user,
            group: match inherits {
                true => self.group,
                false => who.group,
            },
        }
    }

    fn parse(text: &[u8]) -> Option<Attributes> {
        let mut words = std::str::from_utf8(text).ok()?.split(' ');
        Some(Attributes {
            mode: u32::from_str_radix(words.next()?, 8).ok()? & 0o7777,
            user: words.next()?.parse().ok()?,
            group: words.next()?.parse().ok()?,
        })
    }
}

/// Whose word about a directory's files counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ownership {
    /// What is written in this module.
    #[default]
    Guests,
    /// The host's: the directory is used by others, too.
    Host,
}

impl Ownership {
    /// Of an open file or directory; one that was opened as a path only has none of its own.
    pub(crate) fn read(self, file: BorrowedFd<'_>, stat: &Stat) -> Attributes {
        let mode = stat.st_mode & 0o7777;
        if self == Ownership::Host {
            return Attributes {
                mode,
                user: stat.st_uid,
                group: stat.st_gid,
            };
        }
        let mut text = [0; 64];
        let kept = rustix::fs::fgetxattr(file, NAME, &mut text);
        let made = match kept {
            // Nobody wrote anything down, and what the host's mode is says how private this process is, not how the file was made.
            Err(Errno::NODATA) => made_with(stat),
            // `volume::make_null` marks what it makes with a bit that is none of a guest's.
            _ => mode & 0o777,
        };
        let kept = kept.ok().and_then(|length| text.get(..length));
        kept.and_then(Attributes::parse).unwrap_or(Attributes {
            mode: made,
            user: 0,
            group: 0,
        })
    }

    /// # Errors
    /// EPERM for an owner that cannot be kept; whatever the file system says.
    pub(crate) fn write(self, file: BorrowedFd<'_>, attributes: Attributes) -> io::Result<()> {
        let stat = rustix::fs::fstat(file)?;
        let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        // The process itself is to get at it whatever guests make of it.
        let least = if is_dir { 0o700 } else { 0o600 };
        let on_host = |mode: u32| {
            let mark = stat.st_mode & if is_dir { 0 } else { STICKY };
            let mode = Mode::from_raw_mode(mode & 0o777 | mark);
            rustix::fs::fchmod(file, mode).map_err(io::Error::from)
        };
        if self == Ownership::Host {
            if (attributes.user, attributes.group) != (stat.st_uid, stat.st_gid) {
                return Err(Errno::PERM.into());
            }
            return on_host(attributes.mode);
        }
        let Attributes { mode, user, group } = attributes;
        let text = format!("{mode:o} {user} {group}");
        match rustix::fs::fsetxattr(file, NAME, text.as_bytes(), XattrFlags::empty()) {
            Err(Errno::NOTSUP) if (user, group) == (0, 0) => on_host(mode | least),
            Err(Errno::NOTSUP) => Err(Errno::PERM.into()),
            written => Ok(written?),
        }
    }
}

/// What a file or directory has from its making.
fn made_with(stat: &Stat) -> u32 {
    let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
    let may_run = stat.st_mode & 0o100 != 0;
    if is_dir || may_run {
        DIR_MODE
    } else {
        FILE_MODE
    }
}

/// Sets what guests are told of the file or directory at `path`, which is the host's own path. Blocks.
///
/// # Errors
/// What the file system says.
pub fn set_attributes(path: &Path, attributes: Attributes) -> io::Result<()> {
    let file = File::open(path)?;
    Ownership::Guests.write(file.as_fd(), attributes)
}

/// What guests are told of the file or directory at `path`, which is the host's own path. Blocks.
///
/// # Errors
/// What the file system says.
pub fn attributes(path: &Path) -> io::Result<Attributes> {
    let file = File::open(path)?;
    let stat = rustix::fs::fstat(&file)?;
    Ok(Ownership::Guests.read(file.as_fd(), &stat))
}

/// Has all that is in `dir` belong to `group`, whose members and owners may read and write it: what Kubernetes calls `fsGroup`. New files in
/// its folders are the group's, too. Blocks.
///
/// # Errors
/// What the file system says.
pub fn give_to_group(dir: &Path, group: u32) -> io::Result<()> {
    let give = |file: OwnedFd, is_dir: bool| {
        let stat = rustix::fs::fstat(&file)?;
        let before = Ownership::Guests.read(file.as_fd(), &stat);
        let more = if is_dir { 0o770 | SET_GROUP } else { 0o660 };
        let after = Attributes {
            mode: before.mode | more,
            group,
            ..before
        };
        match after == before {
            true => Ok(()),
            false => Ownership::Guests.write(file.as_fd(), after),
        }
    };
    let root: OwnedFd = File::open(dir)?.into();
    let give_one = |parent: BorrowedFd<'_>, name: &CStr, stat: &Stat| {
        let is_dir = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => true,
            FileType::RegularFile => false,
            _ => return Ok(()),
        };
        // Guests may be at work in it: what is a link by now is not followed.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        match rustix::fs::openat(parent, name, flags, Mode::empty()) {
            Ok(file) => give(file, is_dir),
            Err(Errno::NOENT | Errno::LOOP) => Ok(()),
            Err(error) => Err(error.into()),
        }
    };
    volume::walk(root.as_fd(), give_one, |_, _| Ok(()))?;
    give(root, true)
}

/// Makes a folder's host permissions such that this process alone gets in, and what guests see of it `mode`.
///
/// # Errors
/// What the file system says.
pub fn open_to_guests(dir: &Path, mode: u32) -> io::Result<()> {
    let metadata = std::fs::metadata(dir)?;
    if metadata.mode() & 0o777 != 0o700 {
        std::fs::set_permissions(dir, Permissions::from_mode(0o700))?;
    }
    set_attributes(
        dir,
        Attributes {
            mode,
            user: 0,
            group: 0,
        },
    )
}

/// A path, walked as somebody may.
pub(crate) struct Walk {
    /// The folder that the last name is in.
    pub(crate) parent: OwnedFd,
    /// None where the path ends at a folder that it went through: `.`, `..`, the root.
    pub(crate) name: Option<OsString>,
    /// What is there, opened as a path only.
    pub(crate) found: Option<(OwnedFd, Stat)>,
    ownership: Ownership,
}

impl Walk {
    /// Walks `path` below `root`; a link at its end is followed with `follow`.
    ///
    /// # Errors
    /// EACCES where `who` may not go through a folder, EPERM where the path leads out, ELOOP; whatever the file system says.
    pub(crate) fn to(
        root: BorrowedFd<'_>,
        path: &str,
        follow: bool,
        who: &Identity,
        ownership: Ownership,
    ) -> io::Result<Walk> {
        let mut rest: VecDeque<OsString> = VecDeque::new();
        let add = |rest: &mut VecDeque<OsString>, path: &OsStr| {
            let parts: Vec<Component<'_>> = Path::new(path).components().collect();
            for part in parts.into_iter().rev() {
                match part {
                    Component::Prefix(_) | Component::RootDir => return Err(Errno::PERM),
                    Component::CurDir => {}
                    Component::ParentDir => rest.push_front("..".into()),
                    Component::Normal(name) => rest.push_front(name.to_owned()),
                }
            }
            Ok(())
        };
        add(&mut rest, OsStr::new(path))?;
        let only_folder = path.ends_with('/');
        let mut stack = vec![open_dir(root, OsStr::new("."))?];
        let mut links = 0;
        while let Some(name) = rest.pop_front() {
            let Some(here) = stack.last() else {
                return Err(Errno::PERM.into());
            };
            if !who.is_root() && !who.may(SEARCH, of_dir(here.as_fd(), ownership)?) {
                return Err(Errno::ACCESS.into());
            }
            if name == ".." {
                if stack.len() == 1 {
                    return Err(Errno::PERM.into());
                }
                stack.pop();
                continue;
            }
            let is_last = rest.is_empty();
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let at = match rustix::fs::openat(here, &*name, flags, Mode::empty()) {
                Ok(at) => at,
                Err(Errno::NOENT) if is_last => {
                    return Ok(Walk {
                        parent: stack.pop().ok_or(Errno::PERM)?,
                        name: Some(name),
                        found: None,
                        ownership,
                    });
                }
                Err(error) => return Err(error.into()),
            };
            let stat = rustix::fs::fstat(&at)?;
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Symlink if !is_last || follow || only_folder => {
                    links += 1;
                    if links > LINKS_MAX {
                        return Err(Errno::LOOP.into());
                    }
                    let target = rustix::fs::readlinkat(here, &*name, Vec::new())?;
                    add(&mut rest, OsStr::from_bytes(target.as_bytes()))?;
                }
                FileType::Directory if !is_last => {
                    stack.push(open_dir(here.as_fd(), &name)?);
                }
                _ if !is_last => return Err(Errno::NOTDIR.into()),
                _ => {
                    return Ok(Walk {
                        parent: stack.pop().ok_or(Errno::PERM)?,
                        name: Some(name),
                        found: Some((at, stat)),
                        ownership,
                    });
                }
            }
        }
        let parent = stack.pop().ok_or(Errno::PERM)?;
        let stat = rustix::fs::fstat(&parent)?;
        let at = parent.try_clone()?;
        Ok(Walk {
            parent,
            name: None,
            found: Some((at, stat)),
            ownership,
        })
    }

    /// What the path leads to, opened so that its attributes can be read and written; none for a link, and what is no file or folder.
    pub(crate) fn open(&self) -> io::Result<Option<OwnedFd>> {
        let Some((at, stat)) = &self.found else {
            return Err(Errno::NOENT.into());
        };
        let kind = FileType::from_raw_mode(stat.st_mode);
        let Some(name) = &self.name else {
            return Ok(Some(at.try_clone()?));
        };
        if kind != FileType::Directory && kind != FileType::RegularFile {
            return Ok(None);
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        match rustix::fs::openat(&self.parent, &**name, flags, Mode::empty()) {
            Ok(file) => Ok(Some(file)),
            // Of a directory of the host.
            Err(Errno::ACCESS) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Of what the path leads to.
    ///
    /// # Errors
    /// ENOENT where there is nothing; whatever the file system says.
    pub(crate) fn attributes(&self) -> io::Result<Attributes> {
        let Some((_, stat)) = &self.found else {
            return Err(Errno::NOENT.into());
        };
        match self.open()? {
            Some(file) => Ok(self.ownership.read(file.as_fd(), stat)),
            None if self.ownership == Ownership::Guests => Ok(Attributes {
                mode: stat.st_mode & 0o777,
                user: 0,
                group: 0,
            }),
            None => Ok(Attributes {
                mode: stat.st_mode & 0o7777,
                user: stat.st_uid,
                group: stat.st_gid,
            }),
        }
    }

    /// Of the folder that its last name is in.
    pub(crate) fn folder(&self) -> io::Result<Attributes> {
        of_dir(self.parent.as_fd(), self.ownership)
    }

    /// Whether `who` may make, remove or rename what is at the end of the path.
    ///
    /// # Errors
    /// EACCES; EPERM for another's file in a sticky folder; whatever the file system says.
    pub(crate) fn may_change(&self, who: &Identity) -> io::Result<()> {
        if who.is_root() {
            return Ok(());
        }
        let folder = self.folder()?;
        if !who.may(WRITE | SEARCH, folder) {
            return Err(Errno::ACCESS.into());
        }
        if folder.mode & STICKY != 0
            && self.found.is_some()
            && folder.user != who.user
            && self.attributes()?.user != who.user
        {
            return Err(Errno::PERM.into());
        }
        Ok(())
    }

    /// Writes what guests are told of what the path leads to.
    ///
    /// # Errors
    /// EPERM for what has no attributes; whatever the file system says.
    pub(crate) fn set(&self, attributes: Attributes) -> io::Result<()> {
        let file = self.open()?.ok_or(Errno::PERM)?;
        self.ownership.write(file.as_fd(), attributes)
    }
}

fn of_dir(dir: BorrowedFd<'_>, ownership: Ownership) -> io::Result<Attributes> {
    let stat = rustix::fs::fstat(dir)?;
    Ok(ownership.read(dir, &stat))
}

fn open_dir(at: BorrowedFd<'_>, name: &OsStr) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(at, name, flags, Mode::empty())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn who(user: u32, group: u32, groups: &[u32]) -> Identity {
        Identity {
            user,
            group,
            groups: groups.to_vec(),
        }
    }

    #[test]
    fn the_first_class_that_fits_says_what_somebody_may() {
        let file = |mode| Attributes {
            mode,
            user: 7,
            group: 9,
        };
        for (who, mode, what, may) in [
            (who(0, 0, &[]), 0o000, READ | WRITE | SEARCH, true),
            (who(7, 1, &[]), 0o400, READ, true),
            // An owner has no more than that, though the others may.
            (who(7, 9, &[]), 0o077, READ, false),
            (who(8, 9, &[]), 0o040, READ, true),
            (who(8, 1, &[9]), 0o040, READ, true),
            (who(8, 1, &[9]), 0o704, READ, false),
            (who(8, 1, &[2]), 0o774, WRITE, false),
            (who(8, 1, &[]), 0o776, READ | WRITE, true),
        ] {
            assert_eq!(who.may(what, file(mode)), may, "{who:?} {mode:o} {what}");
        }
    }

    #[test]
    fn what_is_made_is_its_makers_and_its_folders_group_where_that_says_so() {
        let folder = |mode| Attributes {
            mode,
            user: 0,
            group: 123,
        };
        for (folder, is_dir, expected) in [
            (folder(0o777), false, (0o644, 5, 6)),
            (folder(0o2777), false, (0o644, 5, 123)),
            (folder(0o2777), true, (0o2644, 5, 123)),
        ] {
            let made = folder.of_new(&who(5, 6, &[]), 0o644, is_dir);
            assert_eq!((made.mode, made.user, made.group), expected);
        }
    }

    #[test]
    fn a_walk_asks_each_folder_and_never_leaves() {
        let dir = tempfile::tempdir().expect("a folder");
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir_all(at("open/deep")).expect("made");
        std::fs::create_dir_all(at("shut/deep")).expect("made");
        std::fs::write(at("shut/deep/file"), "x").expect("written");
        std::fs::write(at("open/file"), "x").expect("written");
        symlink("../shut/deep/file", at("open/through")).expect("a link");
        symlink("/etc/passwd", at("open/away")).expect("a link");
        symlink("../../..", at("open/up")).expect("a link");
        symlink("round", at("open/round")).expect("a link");
        set_attributes(
            &at("shut"),
            Attributes {
                mode: 0o700,
                user: 5,
                group: 5,
            },
        )
        .expect("kept");
        open_to_guests(dir.path(), 0o755).expect("kept");
        let root = File::open(dir.path()).expect("opens");
        let walk = |path: &str, follow, user| {
            let walked = Walk::to(
                root.as_fd(),
                path,
                follow,
                &who(user, user, &[]),
                Ownership::Guests,
            );
            let walked = walked.and_then(|walk| walk.attributes());
            walked.map_err(|error| Errno::from_io_error(&error).expect("the system's"))
        };
        let plain = Ok(Attributes {
            mode: 0o644,
            user: 0,
            group: 0,
        });
        for (path, follow, user, expected) in [
            ("open/file", true, 6, plain),
            ("open/deep/../file", true, 6, plain),
            ("shut/deep/file", true, 0, plain),
            ("shut/deep/file", true, 5, plain),
            ("shut/deep/file", true, 6, Err(Errno::ACCESS)),
            ("open/through", true, 5, plain),
            ("open/through", true, 6, Err(Errno::ACCESS)),
            ("open/away", true, 0, Err(Errno::PERM)),
            ("open/up/etc", true, 0, Err(Errno::PERM)),
            ("../x", true, 0, Err(Errno::PERM)),
            ("open/round", true, 0, Err(Errno::LOOP)),
            ("open/file/x", true, 0, Err(Errno::NOTDIR)),
            ("open/none", true, 0, Err(Errno::NOENT)),
            ("open/none/x", true, 0, Err(Errno::NOENT)),
        ] {
            let found = walk(path, follow, user).map(|found| Attributes {
                mode: found.mode & 0o644,
                ..found
            });
            assert_eq!(found, expected, "{path} by {user}");
        }
        let link = walk("open/away", false, 6).expect("the link itself");
        assert_eq!(link.mode, 0o777);
    }

    #[test]
    fn what_nobody_wrote_down_is_as_it_was_made_however_private_the_host_is() {
        let dir = tempfile::tempdir().expect("a folder");
        for (name, host, told) in [
            ("file", 0o600, FILE_MODE),
            ("program", 0o700, DIR_MODE),
            ("folder", 0o700, DIR_MODE),
        ] {
            let path = dir.path().join(name);
            match name {
                "folder" => std::fs::create_dir(&path),
                _ => std::fs::write(&path, ""),
            }
            .expect("made");
            std::fs::set_permissions(&path, Permissions::from_mode(host)).expect("private");
            let found = attributes(&path).expect("read");
            assert_eq!(
                (found.mode, found.user, found.group),
                (told, 0, 0),
                "{name}"
            );
        }
    }

    #[test]
    fn a_group_gets_what_it_is_given_with_all_that_is_in_it() {
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(dir.path().join("a")).expect("made");
        std::fs::write(dir.path().join("a/b"), "x").expect("written");
        open_to_guests(dir.path(), 0o777).expect("kept");
        give_to_group(dir.path(), 123).expect("given");
        let root = File::open(dir.path()).expect("opens");
        for (path, mode) in [(".", 0o2777), ("a", 0o2775), ("a/b", 0o664)] {
            let walk = Walk::to(
                root.as_fd(),
                path,
                true,
                &Identity::default(),
                Ownership::Guests,
            );
            let found = walk.expect("walked").attributes().expect("read");
            assert_eq!((found.mode, found.group), (mode, 123), "{path}");
        }
        // The host's own bits say nothing of it.
        let host = std::fs::metadata(dir.path()).expect("there");
        assert_eq!(host.mode() & 0o7777, 0o700);
    }
}
