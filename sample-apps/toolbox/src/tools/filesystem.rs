//! What tools know of a file, on a Unix and in a component.
//!
//! WASI's files have a kind, a size, times and a number of links, and neither mode bits nor an owner nor a device: of those a
//! component is told by `weft:files`.

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

/// Which bits new files do not get from now on.
pub fn set_mask(mask: u32) {
    host::set_mask(mask);
}

/// Groups beside that of [`identity`].
pub fn groups() -> Vec<u32> {
    host::groups()
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

#[cfg(unix)]
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

    pub fn groups() -> Vec<u32> {
        let text = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("Groups:"));
        let words = line.unwrap_or_default().split_whitespace();
        words.filter_map(|word| word.parse().ok()).collect()
    }

    /// Natively the mask is the process's, and no safe function sets it.
    pub fn set_mask(_mask: u32) {}
}

#[cfg(target_os = "wasi")]
mod host {
    use wasip2::filesystem::preopens::get_directories;
    use wasip2::filesystem::types::{Descriptor, ErrorCode};

    use super::*;

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

    /// A path from the root on.
    fn whole(path: &Path) -> String {
        match path.is_absolute() {
            true => path.to_string_lossy().into_owned(),
            false => format!("/{}", path.to_string_lossy()),
        }
    }

    pub fn about(path: &Path, follow: bool, metadata: &Metadata) -> io::Result<About> {
        let told = files::stat(&whole(path), follow).map_err(files::said)?;
        let modified = time(metadata.modified());
        Ok(About {
            kind: match told.kind {
                files::Kind::File => Kind::File,
                files::Kind::Directory => Kind::Directory,
                files::Kind::Link => Kind::Link,
                files::Kind::Fifo => Kind::Fifo,
                files::Kind::Socket => Kind::Socket,
                files::Kind::BlockDevice => Kind::Block,
                files::Kind::CharacterDevice => Kind::Character,
            },
            size: told.size,
            mode: told.mode,
            links: told.links,
            user: told.user,
            group: told.group,
            device: told.device,
            inode: told.inode,
            blocks: told.blocks,
            accessed: time(metadata.accessed()),
            modified,
            changed: changed(path, follow).unwrap_or(modified),
        })
    }

    fn changed(path: &Path, follow: bool) -> Option<SystemTime> {
        use wasip2::filesystem::types::PathFlags;
        let (directory, rest) = place(path)?;
        let flags = match follow {
            true => PathFlags::SYMLINK_FOLLOW,
            false => PathFlags::empty(),
        };
        let stat = directory.stat_at(flags, &rest).ok()?;
        let at = stat.status_change_timestamp?;
        let since = std::time::Duration::new(at.seconds, at.nanoseconds.min(999_999_999));
        Some(SystemTime::UNIX_EPOCH + since)
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

    pub fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
        files::set_mode(&whole(path), mode).map_err(files::said)
    }

    pub fn set_owner(path: &Path, user: Option<u32>, group: Option<u32>) -> io::Result<()> {
        files::set_owner(&whole(path), user, group).map_err(files::said)
    }

    pub fn identity() -> (u32, u32) {
        let who = files::who();
        (who.user, who.group)
    }

    pub fn groups() -> Vec<u32> {
        files::who().groups
    }

    pub fn set_mask(mask: u32) {
        files::set_mask(mask);
    }
}
