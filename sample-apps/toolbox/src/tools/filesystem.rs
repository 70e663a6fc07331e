//! What tools know of a file, on a Unix and in a component.
//!
//! WASI's files have a kind, a size, times and a number of links, and neither mode bits nor an owner nor a device. In a component a
//! mode is therefore shown as what can be done (0755 for directories, 0644 for files, without write bits where writing is refused),
//! the owner as 0, and the inode is a hash that is equal for the same file. Setting them is refused with the reason.

use std::fs::{self, Metadata};
use std::io;
use std::path::{Component, Path, PathBuf};
use std::time::SystemTime;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    File,
    Directory,
    Link,
    Fifo,
    #[cfg_attr(
        target_os = "wasi",
        expect(dead_code, reason = "no file of WASI is one")
    )]
    Socket,
    Block,
    Character,
}

impl Kind {
    /// Its letter in `ls -l` and `find -type`, where a plain file is `-` and `f`.
    pub fn letter(self) -> char {
        match self {
            Kind::File => '-',
            Kind::Directory => 'd',
            Kind::Link => 'l',
            Kind::Fifo => 'p',
            Kind::Socket => 's',
            Kind::Block => 'b',
            Kind::Character => 'c',
        }
    }
}

#[derive(Clone, Debug)]
pub struct About {
    pub kind: Kind,
    pub size: u64,
    /// The permission bits, with those for set-id and sticky.
    pub mode: u32,
    pub links: u64,
    pub user: u32,
    pub group: u32,
    pub device: u64,
    pub inode: u64,
    /// In units of 512 bytes.
    pub blocks: u64,
    pub accessed: SystemTime,
    pub modified: SystemTime,
    pub changed: SystemTime,
}

impl About {
    pub fn is_directory(&self) -> bool {
        self.kind == Kind::Directory
    }

    /// Whether both are the same file.
    pub fn is(&self, other: &About) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }

    /// `-rw-r--r--`
    pub fn mode_text(&self) -> String {
        let mut text = String::from(self.kind.letter());
        for (shift, special, letter) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
            let bits = self.mode >> shift;
            text.push(if bits & 4 != 0 { 'r' } else { '-' });
            text.push(if bits & 2 != 0 { 'w' } else { '-' });
            text.push(match (self.mode & special != 0, bits & 1 != 0) {
                (true, true) => letter,
                (true, false) => letter.to_ascii_uppercase(),
                (false, true) => 'x',
                (false, false) => '-',
            });
        }
        text
    }
}

/// Looks at a file; at what a link names with `follow`.
pub fn about(path: &Path, follow: bool) -> io::Result<About> {
    let metadata = match follow {
        true => fs::metadata(path)?,
        false => fs::symlink_metadata(path)?,
    };
    host::about(path, follow, &metadata)
}

/// Looks at a file that is there or not.
pub fn exists(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

/// Makes a symbolic link.
pub fn symlink(target: &str, link: &Path) -> io::Result<()> {
    host::symlink(target, link)
}

/// Sets permission bits.
pub fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    host::set_mode(path, mode)
}

/// Sets an owner; `None` leaves as it is.
pub fn set_owner(path: &Path, user: Option<u32>, group: Option<u32>) -> io::Result<()> {
    host::set_owner(path, user, group)
}

/// The user and group that this runs as.
pub fn identity() -> (u32, u32) {
    host::identity()
}

/// Entries of a directory, sorted.
pub fn entries(path: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(path)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort_unstable();
    Ok(names)
}

/// A path without `.`, `..` and doubled slashes, by its text alone.
pub fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                if !normal.pop() && !path.is_absolute() {
                    normal.push("..");
                }
            }
            part => normal.push(part),
        }
    }
    normal
}

fn kind(metadata: &Metadata) -> Kind {
    let kind = metadata.file_type();
    match (kind.is_dir(), kind.is_symlink()) {
        (true, _) => Kind::Directory,
        (_, true) => Kind::Link,
        _ => Kind::File,
    }
}

fn time(time: io::Result<SystemTime>) -> SystemTime {
    time.unwrap_or(SystemTime::UNIX_EPOCH)
}

#[cfg(unix)]
mod host {
    use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
    use std::time::Duration;

    use super::*;

    pub fn about(_path: &Path, _follow: bool, metadata: &Metadata) -> io::Result<About> {
        let kind = match metadata.file_type() {
            kind if kind.is_fifo() => Kind::Fifo,
            kind if kind.is_socket() => Kind::Socket,
            kind if kind.is_block_device() => Kind::Block,
            kind if kind.is_char_device() => Kind::Character,
            _ => super::kind(metadata),
        };
        let changed = u64::try_from(metadata.ctime()).unwrap_or_default();
        Ok(About {
            kind,
            size: metadata.len(),
            mode: metadata.mode() & 0o7777,
            links: metadata.nlink(),
            user: metadata.uid(),
            group: metadata.gid(),
            device: metadata.dev(),
            inode: metadata.ino(),
            blocks: metadata.blocks(),
            accessed: time(metadata.accessed()),
            modified: time(metadata.modified()),
            changed: SystemTime::UNIX_EPOCH + Duration::from_secs(changed),
        })
    }

    pub fn symlink(target: &str, link: &Path) -> io::Result<()> {
        std::os::unix::fs::symlink(target, link)
    }

    pub fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
        fs::set_permissions(path, fs::Permissions::from_mode(mode))
    }

    pub fn set_owner(path: &Path, user: Option<u32>, group: Option<u32>) -> io::Result<()> {
        std::os::unix::fs::chown(path, user, group)
    }

    pub fn identity() -> (u32, u32) {
        fs::metadata("/proc/self")
            .map(|about| (about.uid(), about.gid()))
            .unwrap_or((0, 0))
    }
}

#[cfg(target_os = "wasi")]
mod host {
    use wasip2::filesystem::preopens::get_directories;
    use wasip2::filesystem::types::{Descriptor, DescriptorFlags, ErrorCode, PathFlags};

    use super::*;

    const NO_MODES: &str = "WASI's file systems have no mode bits";
    const NO_OWNERS: &str = "WASI's file systems have no owners";

    /// The directory lent to this program that holds a path, and the path in it.
    fn place(path: &Path) -> Option<(Descriptor, String)> {
        let path = normal(path);
        let mut best: Option<(usize, Descriptor, String)> = None;
        for (directory, name) in get_directories() {
            let Ok(rest) = path.strip_prefix(&name) else {
                continue;
            };
            let rest = match rest.to_str() {
                Some("") => ".".to_owned(),
                Some(rest) => rest.to_owned(),
                None => continue,
            };
            if best
                .as_ref()
                .is_none_or(|(length, ..)| name.len() > *length)
            {
                best = Some((name.len(), directory, rest));
            }
        }
        best.map(|(_, directory, rest)| (directory, rest))
    }

    pub fn about(path: &Path, follow: bool, metadata: &Metadata) -> io::Result<About> {
        let kind = super::kind(metadata);
        let (mut links, mut inode, mut changed) = (1, 0, time(metadata.modified()));
        let mut writable = false;
        if let Some((directory, rest)) = place(path) {
            // All that there is of permissions: whether the directory was lent for writing.
            writable = directory
                .get_flags()
                .is_ok_and(|flags| flags.contains(DescriptorFlags::MUTATE_DIRECTORY));
            let flags = if follow {
                PathFlags::SYMLINK_FOLLOW
            } else {
                PathFlags::empty()
            };
            if let Ok(stat) = directory.stat_at(flags, &rest) {
                links = stat.link_count.max(1);
                if let Some(at) = stat.status_change_timestamp {
                    changed = SystemTime::UNIX_EPOCH
                        + std::time::Duration::new(at.seconds, at.nanoseconds.min(999_999_999));
                }
            }
            if let Ok(hash) = directory.metadata_hash_at(flags, &rest) {
                inode = hash.lower;
            }
        }
        let readable = if kind == Kind::Directory {
            0o755
        } else {
            0o644
        };
        let readable = if kind == Kind::Link { 0o777 } else { readable };
        Ok(About {
            kind,
            size: metadata.len(),
            mode: if writable {
                readable
            } else {
                readable & !0o222
            },
            links,
            user: 0,
            group: 0,
            device: 0,
            inode,
            blocks: metadata.len().div_ceil(4096) * 8,
            accessed: time(metadata.accessed()),
            modified: time(metadata.modified()),
            changed,
        })
    }

    pub fn symlink(target: &str, link: &Path) -> io::Result<()> {
        let (directory, rest) = place(link).ok_or(io::ErrorKind::NotFound)?;
        directory.symlink_at(target, &rest).map_err(|error| {
            let kind = match error {
                ErrorCode::Exist => io::ErrorKind::AlreadyExists,
                ErrorCode::NoEntry => io::ErrorKind::NotFound,
                ErrorCode::ReadOnly => io::ErrorKind::ReadOnlyFilesystem,
                ErrorCode::InsufficientSpace => io::ErrorKind::StorageFull,
                ErrorCode::NotDirectory => io::ErrorKind::NotADirectory,
                ErrorCode::NotPermitted => {
                    return io::Error::other("Operation not permitted");
                }
                _ => io::ErrorKind::PermissionDenied,
            };
            io::Error::from(kind)
        })
    }

    pub fn set_mode(path: &Path, _mode: u32) -> io::Result<()> {
        fs::symlink_metadata(path)?;
        Err(io::Error::other(NO_MODES))
    }

    pub fn set_owner(path: &Path, _user: Option<u32>, _group: Option<u32>) -> io::Result<()> {
        fs::symlink_metadata(path)?;
        Err(io::Error::other(NO_OWNERS))
    }

    pub fn identity() -> (u32, u32) {
        (0, 0)
    }
}
