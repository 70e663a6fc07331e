//! `mounttest`: what the files of a volume are like, and whether they can be written.
//!
//! The order of its steps is the tests': the kind of file system, new files, modes, owners, contents.

use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::Code;
use crate::flags::{Flags, Known};

const FLAGS: [Known; 12] = [
    ("fs_type", None, ""),
    ("file_mode", None, ""),
    ("file_perm", None, ""),
    ("file_owner", None, ""),
    ("new_file_0644", None, ""),
    ("new_file_0666", None, ""),
    ("new_file_0660", None, ""),
    ("new_file_0777", None, ""),
    ("file_content", None, ""),
    ("file_content_in_loop", None, ""),
    ("retry_time", None, "180"),
    ("break_on_expected_content", None, "true"),
];
const CONTENT: &str = "mount-tester new file\n";
const PAUSE: Duration = Duration::from_secs(2);

pub(crate) fn run(arguments: &[String]) -> Result<Code, String> {
    let flags = Flags::read(&FLAGS, arguments)?;
    host::clear_mask();
    let seconds = u64::try_from(flags.number("retry_time")?).unwrap_or(0);
    let ends_early = flags.switch("break_on_expected_content")?;
    let path = |name: &str| Some(flags.text(name)).filter(|path| !path.is_empty());
    let mut all = true;
    let mut step = |done: Option<bool>| all &= done.unwrap_or(true);
    step(path("fs_type").map(kind_of_file_system));
    for (name, mode) in [
        ("new_file_0644", 0o644),
        ("new_file_0666", 0o666),
        ("new_file_0660", 0o660),
        ("new_file_0777", 0o777),
    ] {
        step(path(name).map(|path| write(path, mode)));
    }
    step(path("file_mode").map(|path| {
        looked(path, |found| {
            println!("mode of file {path:?}: {}", mode_text(found))
        })
    }));
    step(path("file_perm").map(|path| {
        looked(path, |found| {
            println!("perms of file {path:?}: -{}", letters(found.mode))
        })
    }));
    step(path("file_owner").map(|path| {
        looked(path, |found| {
            println!("owner UID of {path:?}: {}", found.user);
            println!("owner GID of {path:?}: {}", found.group);
        })
    }));
    step(path("file_content").map(content));
    step(
        path("file_content_in_loop")
            .map(|path| repeated(path, Duration::from_secs(seconds), ends_early)),
    );
    Ok(i32::from(!all))
}

/// Go's words for an error of a path.
fn said(operation: &str, path: &str, error: &io::Error) -> String {
    let why = match error.kind() {
        io::ErrorKind::NotFound => "no such file or directory".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        io::ErrorKind::IsADirectory => "is a directory".to_owned(),
        io::ErrorKind::NotADirectory => "not a directory".to_owned(),
        io::ErrorKind::ReadOnlyFilesystem => "read-only file system".to_owned(),
        _ => error.to_string(),
    };
    format!("{operation} {path}: {why}")
}

fn content(path: &str) -> bool {
    match fs::read(path) {
        Ok(bytes) => {
            println!(
                "content of file {path:?}: {}",
                String::from_utf8_lossy(&bytes)
            );
            true
        }
        Err(error) => {
            println!(
                "error reading file content for {path:?}: {}",
                said("open", path, &error)
            );
            false
        }
    }
}

fn write(path: &str, mode: u32) -> bool {
    let written = host::create(path, mode).and_then(|()| fs::write(path, CONTENT));
    match written {
        Ok(()) => content(path),
        Err(error) => {
            println!(
                "error writing new file {path:?}: {}",
                said("open", path, &error)
            );
            false
        }
    }
}

fn looked(path: &str, say: impl FnOnce(&About)) -> bool {
    match host::about(path) {
        Ok(found) => {
            say(&found);
            true
        }
        Err(error) => {
            println!("error from Stat({path:?}): {}", said("stat", path, &error));
            false
        }
    }
}

fn repeated(path: &str, within: Duration, ends_early: bool) -> bool {
    let begun = Instant::now();
    let mut is_read = true;
    while begun.elapsed() < within {
        match fs::read(path) {
            Err(error) => {
                println!(
                    "Error reading file {path}: {}, retrying",
                    said("open", path, &error)
                );
                is_read = false;
            }
            Ok(bytes) => {
                is_read = true;
                println!(
                    "content of file {path:?}: {}",
                    String::from_utf8_lossy(&bytes)
                );
                if ends_early {
                    if bytes == CONTENT.as_bytes() {
                        break;
                    }
                    println!("Unexpected content. Expected: {CONTENT}. Retrying");
                }
            }
        }
        std::thread::sleep(PAUSE);
    }
    is_read
}

fn kind_of_file_system(path: &str) -> bool {
    if !Path::new(path).exists() {
        println!("error from statfs({path:?}): no such file or directory");
        return false;
    }
    let mounts = host::mounts();
    let mounts = mounts.iter().map(|(at, kind)| (at.as_str(), kind.as_str()));
    let kind = mounted(mounts, path).unwrap_or("unknown");
    println!("mount type of {path:?}: {kind}");
    true
}

/// The kind of the longest mount that holds a path.
fn mounted<'m>(mounts: impl Iterator<Item = (&'m str, &'m str)>, path: &str) -> Option<&'m str> {
    let holding = mounts.filter(|(at, _)| Path::new(path).starts_with(at));
    let found = holding.max_by_key(|(at, _)| at.len());
    found.map(|(_, kind)| kind)
}

/// What a file is.
struct About {
    /// Go's letter for it; `-` for a plain file.
    kind: char,
    /// The twelve bits of `chmod`.
    mode: u32,
    user: u32,
    group: u32,
}

/// As `ls -l` and Go's `FileMode` show it: the kind, and who may.
fn mode_text(found: &About) -> String {
    // Go puts these before the kind of a plain file.
    let mut special = String::new();
    for (bit, letter) in [(0o4000, 'u'), (0o2000, 'g'), (0o1000, 't')] {
        if found.mode & bit != 0 {
            special.push(letter);
        }
    }
    let kind = match (found.kind, special.is_empty()) {
        ('-', false) => String::new(),
        (kind, _) => kind.to_string(),
    };
    format!("{kind}{special}{}", letters(found.mode))
}

fn letters(bits: u32) -> String {
    let all = "rwxrwxrwx".chars().enumerate();
    all.map(|(place, letter)| match bits & (0o400 >> place) {
        0 => '-',
        _ => letter,
    })
    .collect()
}

#[cfg(unix)]
mod host {
    use std::fs::{self, File};
    use std::io;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    use super::About;

    pub(super) fn about(path: &str) -> io::Result<About> {
        let found = fs::metadata(path)?;
        Ok(About {
            kind: if found.is_dir() { 'd' } else { '-' },
            mode: found.mode() & 0o7777,
            user: found.uid(),
            group: found.gid(),
        })
    }

    /// The mask is the process's, and no safe function sets it.
    pub(super) fn clear_mask() {}

    pub(super) fn create(path: &str, mode: u32) -> io::Result<()> {
        match File::create_new(path) {
            Ok(_) => fs::set_permissions(path, fs::Permissions::from_mode(mode)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(error) => Err(error),
        }
    }

    pub(super) fn mounts() -> Vec<(String, String)> {
        let text = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let lines = text.lines().filter_map(|line| {
            let mut fields = line.split(' ').skip(1).map(str::to_owned);
            Some((fields.next()?, fields.next()?))
        });
        lines.collect()
    }
}

#[cfg(target_os = "wasi")]
mod host {
    use std::io;

    use files::Kind;

    use super::About;

    pub(super) fn about(path: &str) -> io::Result<About> {
        let found = files::stat(path, true).map_err(files::said)?;
        Ok(About {
            kind: match found.kind {
                Kind::Directory => 'd',
                Kind::Link => 'L',
                _ => '-',
            },
            mode: found.mode,
            user: found.user,
            group: found.group,
        })
    }

    pub(super) fn clear_mask() {
        files::set_mask(0);
    }

    pub(super) fn create(path: &str, mode: u32) -> io::Result<()> {
        match files::create(path, false, mode) {
            Ok(()) | Err(files::Error::Exist) => Ok(()),
            Err(error) => Err(files::said(error)),
        }
    }

    pub(super) fn mounts() -> Vec<(String, String)> {
        let mounts = files::mounts().into_iter();
        mounts.map(|mount| (mount.path, mount.kind)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_written_as_go_writes_them() {
        for (bits, expected) in [
            (0o644, "rw-r--r--"),
            (0o777, "rwxrwxrwx"),
            (0o400, "r--------"),
        ] {
            assert_eq!(letters(bits), expected);
        }
    }

    #[test]
    fn a_path_is_on_the_innermost_mount() {
        let mounts = [("/", "overlay"), ("/data", "tmpfs"), ("/proc", "proc")];
        for (path, kind) in [
            ("/data/a", "tmpfs"),
            ("/datax", "overlay"),
            ("/proc", "proc"),
        ] {
            assert_eq!(mounted(mounts.into_iter(), path), Some(kind), "{path}");
        }
    }
}
