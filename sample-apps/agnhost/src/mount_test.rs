//! `mounttest`: what the files of a volume are like, and whether they can be written.
//!
//! The order of its steps is the tests': the kind of file system, new files, modes, owners, contents.

use std::fs::{self, Metadata};
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
            println!("perms of file {path:?}: -{}", letters(mode_bits(found)))
        })
    }));
    step(path("file_owner").map(|path| {
        looked(path, |found| {
            let (user, group) = owner(found);
            println!("owner UID of {path:?}: {user}");
            println!("owner GID of {path:?}: {group}");
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
    let written = fs::write(path, CONTENT).and_then(|()| set_mode(path, mode));
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

fn looked(path: &str, say: impl FnOnce(&Metadata)) -> bool {
    match fs::symlink_metadata(path) {
        Ok(found) => {
            // What a link leads to is what is meant.
            say(&fs::metadata(path).unwrap_or(found));
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

/// The kind of a mount is not among what WASI's files tell; natively Linux does.
fn kind_of_file_system(path: &str) -> bool {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    match mounted(&mounts, path) {
        Some(kind) => {
            println!("mount type of {path:?}: {kind}");
            true
        }
        None if Path::new(path).exists() => {
            println!("mount type of {path:?}: unknown");
            true
        }
        None => {
            println!("error from statfs({path:?}): no such file or directory");
            false
        }
    }
}

/// The kind of the longest mount that holds a path.
fn mounted<'m>(mounts: &'m str, path: &str) -> Option<&'m str> {
    let lines = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        Some((fields.next()?, fields.next()?))
    });
    let holding = lines.filter(|(at, _)| Path::new(path).starts_with(at));
    let found = holding.max_by_key(|(at, _)| at.len());
    found.map(|(_, kind)| kind)
}

/// As `ls -l` and Go's `FileMode` show it: the kind, and who may.
fn mode_text(found: &Metadata) -> String {
    let kind = match (found.is_dir(), found.is_symlink()) {
        (true, _) => "d",
        (_, true) => "L",
        _ => "-",
    };
    let bits = mode_bits(found);
    // Go puts these before the kind of a plain file.
    let mut special = String::new();
    for (bit, letter) in [(0o4000, 'u'), (0o2000, 'g'), (0o1000, 't')] {
        if bits & bit != 0 {
            special.push(letter);
        }
    }
    let kind = match (kind, special.is_empty()) {
        ("-", false) => "",
        (kind, _) => kind,
    };
    format!("{kind}{special}{}", letters(bits))
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
fn mode_bits(found: &Metadata) -> u32 {
    std::os::unix::fs::MetadataExt::mode(found) & 0o7777
}

/// WASI's files have none: what a file may be used for is what is seen.
#[cfg(not(unix))]
fn mode_bits(found: &Metadata) -> u32 {
    match (found.is_dir(), found.permissions().readonly()) {
        (true, _) => 0o777,
        (false, true) => 0o444,
        (false, false) => 0o644,
    }
}

#[cfg(unix)]
fn set_mode(path: &str, mode: u32) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

#[cfg(not(unix))]
fn set_mode(_path: &str, _mode: u32) -> io::Result<()> {
    Ok(())
}

#[cfg(unix)]
fn owner(found: &Metadata) -> (u32, u32) {
    use std::os::unix::fs::MetadataExt as _;
    (found.uid(), found.gid())
}

/// Nobody's in particular.
#[cfg(not(unix))]
fn owner(_: &Metadata) -> (u32, u32) {
    (0, 0)
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
        let mounts = "overlay / overlay rw 0 0\ntmpfs /data tmpfs rw 0 0\nproc /proc proc rw 0 0\n";
        for (path, kind) in [
            ("/data/a", "tmpfs"),
            ("/datax", "overlay"),
            ("/proc", "proc"),
        ] {
            assert_eq!(mounted(mounts, path), Some(kind), "{path}");
        }
    }
}
