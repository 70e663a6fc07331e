//! Paths as text and as links: `basename`, `dirname`, `readlink`, `realpath`.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use super::call::{Call, Ended, Stop, reason};
use super::filesystem::{self, Kind};
use super::flags::Usage;

/// After so many links there is a loop.
const LINKS_MAX: usize = 40;

const BASENAME: Usage = Usage::new(
    "basename FILE [SUFFIX] | -a FILE... | -s SUFFIX FILE...",
    "+as:",
)
.long(&[("multiple", 'a'), ("suffix", 's')]);

/// `basename`
pub async fn basename(call: &mut Call) -> Ended {
    let flags = BASENAME.parse(call)?;
    let several = flags.has('a') || flags.has('s');
    let (files, suffix) = match (flags.rest.as_slice(), several) {
        ([], _) => return Err(BASENAME.wrong()),
        (files, true) => (files, flags.value('s').unwrap_or_default()),
        ([file], false) => (std::slice::from_ref(file), ""),
        ([file, suffix], false) => (std::slice::from_ref(file), suffix.as_str()),
        _ => return Err(BASENAME.wrong()),
    };
    for file in files {
        let trimmed = file.trim_end_matches('/');
        let name = match (trimmed.is_empty(), file.is_empty()) {
            (true, false) => "/",
            _ => trimmed.rsplit('/').next().unwrap_or_default(),
        };
        let name = match name.strip_suffix(suffix) {
            Some(stem) if !stem.is_empty() => stem,
            _ => name,
        };
        call.out(format!("{name}\n")).await?;
    }
    Ok(0)
}

/// `dirname FILE...`
pub async fn dirname(call: &mut Call) -> Ended {
    if call.args.first().is_some_and(|arg| arg == "--") {
        call.args.remove(0);
    }
    if call.args.is_empty() {
        return Err(Stop::Said(1, "Usage: dirname FILENAME\n".into()));
    }
    for file in std::mem::take(&mut call.args) {
        let trimmed = file.trim_end_matches('/');
        let parent = match trimmed.rsplit_once('/') {
            _ if trimmed.is_empty() && !file.is_empty() => "/",
            None => ".",
            Some((parent, _)) => match parent.trim_end_matches('/') {
                "" => "/",
                parent => parent,
            },
        };
        call.out(format!("{parent}\n")).await?;
    }
    Ok(0)
}

#[derive(Clone, Copy, PartialEq)]
enum Missing {
    Never,
    Last,
    Any,
}

/// A path without links. Each part is looked at, since no call of WASI does it.
fn resolve(path: &Path, missing: Missing) -> io::Result<PathBuf> {
    let mut rest: Vec<PathBuf> = Vec::new();
    let push_all = |rest: &mut Vec<PathBuf>, path: &Path| {
        rest.extend(
            path.components()
                .rev()
                .map(|part| PathBuf::from(part.as_os_str())),
        );
    };
    push_all(&mut rest, path);
    let mut resolved = PathBuf::from("/");
    let mut links = 0;
    while let Some(part) = rest.pop() {
        match part.to_str() {
            Some("/") => {
                resolved = PathBuf::from("/");
                continue;
            }
            Some(".") => continue,
            Some("..") => {
                resolved.pop();
                continue;
            }
            _ => {}
        }
        let next = resolved.join(&part);
        match filesystem::about(&next, false) {
            Ok(about) if about.kind == Kind::Link => {
                links += 1;
                if links > LINKS_MAX {
                    return Err(io::Error::other("Too many levels of symbolic links"));
                }
                let target = std::fs::read_link(&next)?;
                push_all(&mut rest, &target);
            }
            Ok(about) => {
                if !about.is_directory() && !rest.is_empty() {
                    return Err(ErrorKind::NotADirectory.into());
                }
                resolved = next;
            }
            // What is above a directory lent to this program cannot be looked at, and is there all the same.
            Err(_) if missing != Missing::Never && (missing == Missing::Any || rest.is_empty()) => {
                resolved = next
            }
            Err(_)
                if !rest.is_empty()
                    && filesystem::exists(
                        &rest
                            .iter()
                            .rev()
                            .fold(next.clone(), |path, part| path.join(part)),
                    ) =>
            {
                resolved = next;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(resolved)
}

const READLINK: Usage = Usage::new("readlink [-fnv] FILE", "fenmvqs").long(&[
    ("canonicalize", 'f'),
    ("canonicalize-existing", 'e'),
    ("canonicalize-missing", 'm'),
    ("no-newline", 'n'),
]);

/// `readlink`
pub async fn readlink(call: &mut Call) -> Ended {
    let flags = READLINK.parse(call)?;
    if flags.rest.is_empty() {
        return Err(READLINK.wrong());
    }
    for name in &flags.rest {
        let path = call.path(name);
        let found = match flags.last_of("fem") {
            Some('f') => resolve(&path, Missing::Last),
            Some('e') => resolve(&path, Missing::Never),
            Some(_) => resolve(&path, Missing::Any),
            None => std::fs::read_link(&path),
        };
        match found {
            Ok(found) => {
                let end = if flags.has('n') { "" } else { "\n" };
                call.out(format!("{}{end}", found.display())).await?;
            }
            Err(error) => {
                call.code = 1;
                if flags.has('v') {
                    call.fault(format!("{name}: {}", reason(&error))).await;
                }
            }
        }
    }
    Ok(call.code)
}

const REALPATH: Usage = Usage::new("realpath [-ems] FILE...", "emsq");

/// `realpath`
pub async fn realpath(call: &mut Call) -> Ended {
    let flags = REALPATH.parse(call)?;
    if flags.rest.is_empty() {
        return Err(REALPATH.wrong());
    }
    for name in &flags.rest {
        let path = call.path(name);
        let found = match flags.last_of("ems") {
            Some('m') => resolve(&path, Missing::Any),
            Some('s') => Ok(filesystem::normal(&path)),
            _ if name.is_empty() => Err(ErrorKind::NotFound.into()),
            Some(_) => resolve(&path, Missing::Never),
            None => resolve(&path, Missing::Last),
        };
        match found {
            Ok(found) => call.out(format!("{}\n", found.display())).await?,
            Err(error) => call.fault(format!("{name}: {}", reason(&error))).await,
        }
    }
    Ok(call.code)
}
