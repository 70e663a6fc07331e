//! `rm`, `rmdir` and `unlink`.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;

use crate::executor;

use super::call::{Call, Ended, reason};
use super::copy::confirmed;
use super::filesystem;
use super::flags::Usage;

/// How deep a tree may be.
const DEPTH_MAX: usize = 512;

const RM: Usage = Usage::new("rm [-irf] FILE...", "irRfvd").long(&[
    ("recursive", 'r'),
    ("force", 'f'),
    ("interactive", 'i'),
    ("verbose", 'v'),
    ("dir", 'd'),
]);

/// `rm`
pub async fn rm(call: &mut Call) -> Ended {
    let flags = RM.parse(call)?;
    let (force, recursive) = (
        flags.last_of("fi") == Some('f'),
        flags.has('r') || flags.has('R'),
    );
    if flags.rest.is_empty() && !force {
        return Err(RM.wrong());
    }
    for name in &flags.rest {
        let last = name
            .trim_end_matches('/')
            .rsplit('/')
            .next()
            .unwrap_or_default();
        if last == "." || last == ".." {
            call.fault("can't remove '.' or '..'").await;
            continue;
        }
        let path = call.path(name);
        if recursive && filesystem::normal(&path) == Path::new("/") {
            call.fault("refusing to remove '/'").await;
            continue;
        }
        let about = match filesystem::about(&path, false) {
            Ok(about) => about,
            Err(error) if force && error.kind() == ErrorKind::NotFound => continue,
            Err(error) => {
                call.fault(format!("can't remove '{name}': {}", reason(&error)))
                    .await;
                continue;
            }
        };
        if about.is_directory() && !recursive && !flags.has('d') {
            call.fault(format!("'{name}' is a directory")).await;
            continue;
        }
        if flags.last_of("fi") == Some('i') && !confirmed(call, format!("remove '{name}'?")).await {
            continue;
        }
        let removed = match (about.is_directory(), recursive) {
            (false, _) => fs::remove_file(&path),
            (true, false) => fs::remove_dir(&path),
            (true, true) => tree(&path).await,
        };
        match removed {
            Ok(()) if flags.has('v') => call.out(format!("removed '{name}'\n")).await?,
            Ok(()) => {}
            Err(error) => {
                call.fault(format!("can't remove '{name}': {}", reason(&error)))
                    .await
            }
        }
    }
    Ok(call.code)
}

/// Removes a directory and all that is in it; other tasks run in between. Links are removed, not followed.
async fn tree(root: &Path) -> io::Result<()> {
    let mut waiting = vec![(root.to_owned(), false, 0)];
    while let Some((path, emptied, depth)) = waiting.pop() {
        if emptied {
            fs::remove_dir(&path)?;
            continue;
        }
        if depth > DEPTH_MAX {
            return Err(io::Error::other("too deep"));
        }
        waiting.push((path.clone(), true, depth));
        for entry in fs::read_dir(&path)? {
            let entry = entry?;
            match entry.file_type()?.is_dir() {
                true => waiting.push((entry.path(), false, depth + 1)),
                false => fs::remove_file(entry.path())?,
            }
        }
        executor::yield_now().await;
    }
    Ok(())
}

const RMDIR: Usage = Usage::new("rmdir [-p] DIRECTORY...", "pvi").long(&[
    ("parents", 'p'),
    ("verbose", 'v'),
    ("ignore-fail-on-non-empty", 'i'),
]);

/// `rmdir`
pub async fn rmdir(call: &mut Call) -> Ended {
    let flags = RMDIR.parse(call)?;
    if flags.rest.is_empty() {
        return Err(RMDIR.wrong());
    }
    for name in &flags.rest {
        let mut part = name.trim_end_matches('/');
        loop {
            match fs::remove_dir(call.path(part)) {
                Ok(()) => {}
                Err(error) if flags.has('i') && error.kind() == ErrorKind::DirectoryNotEmpty => {
                    break;
                }
                Err(error) => {
                    call.fault(format!("'{part}': {}", reason(&error))).await;
                    break;
                }
            }
            match part.rsplit_once('/') {
                Some((parent, _)) if flags.has('p') && !parent.is_empty() => part = parent,
                _ => break,
            }
        }
    }
    Ok(call.code)
}

/// `unlink FILE`
pub async fn unlink(call: &mut Call) -> Ended {
    let [name] = call.args.as_slice() else {
        return Err(super::call::Stop::Said(1, "Usage: unlink FILE\n".into()));
    };
    let name = name.clone();
    if let Err(error) = fs::remove_file(call.path(&name)) {
        call.fault(format!("can't remove file '{name}': {}", reason(&error)))
            .await;
    }
    Ok(call.code)
}
