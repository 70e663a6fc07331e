//! `cp`, `mv` and `ln`.
//!
//! A move is a rename; between directories that the host keeps apart it is a copy and a removal. Contents are copied in pieces, and
//! other tasks run in between.

use std::fs::{self, File, FileTimes, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use crate::executor;

use super::call::{Call, Ended, Stop, reason};
use super::filesystem::{self, About, Kind};
use super::flags::{Flags, Usage};

/// How deep a tree may be.
const DEPTH_MAX: usize = 256;
/// After so much other tasks get their turn.
const PIECE_BYTES: usize = 256 << 10;

const CP: Usage = Usage::new("cp [-arPLHpfinlsTu] SOURCE... DEST", "arRPLHdpfinlsTuvt:").long(&[
    ("archive", 'a'),
    ("recursive", 'r'),
    ("force", 'f'),
    ("interactive", 'i'),
    ("no-clobber", 'n'),
    ("no-target-directory", 'T'),
    ("target-directory", 't'),
    ("update", 'u'),
    ("verbose", 'v'),
    ("dereference", 'L'),
    ("no-dereference", 'P'),
]);

/// The last part of a path, as it names an entry of another directory.
fn base(path: &str) -> &str {
    path.trim_end_matches('/')
        .rsplit('/')
        .next()
        .unwrap_or_default()
}

fn joined(directory: &str, name: &str) -> String {
    format!("{}/{}", directory.trim_end_matches('/'), base(name))
}

/// The sources and for each its destination.
fn pairs(call: &Call, flags: &Flags, usage: &Usage) -> Result<Vec<(String, String)>, Stop> {
    let mut names = flags.rest.clone();
    let target = match flags.value('t') {
        Some(directory) => directory.to_owned(),
        None => {
            if names.len() < 2 {
                return Err(usage.wrong());
            }
            names.pop().unwrap_or_default()
        }
    };
    let into = !flags.has('T')
        && filesystem::about(&call.path(&target), true).is_ok_and(|about| about.is_directory());
    if names.len() > 1 && !into {
        return Err(Stop::failed(
            match filesystem::exists(&call.path(&target)) {
                true => format!("target '{target}' is not a directory"),
                false => format!("can't stat '{target}': No such file or directory"),
            },
        ));
    }
    let pair = |name: String| match into {
        true => (name.clone(), joined(&target, &name)),
        false => (name, target.clone()),
    };
    Ok(names.into_iter().map(pair).collect())
}

/// Asks on standard error and reads the answer from standard input.
pub async fn confirmed(call: &mut Call, question: String) -> bool {
    let question = format!("{}: {question} ", call.name);
    call.say(question).await;
    let answer = call
        .io
        .stdin
        .line()
        .await
        .ok()
        .flatten()
        .unwrap_or_default();
    answer
        .trim_ascii_start()
        .first()
        .is_some_and(|byte| byte.eq_ignore_ascii_case(&b'y'))
}

/// `cp`
pub async fn cp(call: &mut Call) -> Ended {
    let flags = CP.parse(call)?;
    let recursive = flags.has('r') || flags.has('R') || flags.has('a');
    let follow = match flags.last_of("PdaLH") {
        Some('P' | 'd' | 'a') => false,
        Some(_) => true,
        None => !recursive,
    };
    for (source, target) in pairs(call, &flags, &CP)? {
        copy(
            call,
            &flags,
            source,
            target,
            recursive,
            follow || flags.has('H'),
        )
        .await?;
    }
    Ok(call.code)
}

/// Copies one file or tree. What fails is complained of and the rest goes on; directories get their times when all in them is there.
async fn copy(
    call: &mut Call,
    flags: &Flags,
    source: String,
    target: String,
    recursive: bool,
    follow_first: bool,
) -> Result<(), Stop> {
    let preserve = flags.has('a') || flags.has('p');
    let follow = flags.has('L');
    let mut waiting = vec![(source, target, 0)];
    let mut finished: Vec<(PathBuf, About)> = Vec::new();
    while let Some((source, target, depth)) = waiting.pop() {
        let (from, to) = (call.path(&source), call.path(&target));
        let about = match filesystem::about(&from, follow || depth == 0 && follow_first) {
            Ok(about) => about,
            Err(error) => {
                call.fault(format!("can't stat '{source}': {}", reason(&error)))
                    .await;
                continue;
            }
        };
        let there = filesystem::about(&to, false).ok();
        if let Some(there) = &there {
            if there.is(&about) && there.inode != 0 {
                call.fault(format!("'{source}' and '{target}' are the same file"))
                    .await;
                continue;
            }
            if !about.is_directory() {
                let newer = flags.has('u') && there.modified >= about.modified;
                if flags.has('n') || newer {
                    continue;
                }
                if flags.has('i') && !confirmed(call, format!("overwrite '{target}'?")).await {
                    continue;
                }
            }
        }
        if about.is_directory() {
            if !recursive {
                call.fault(format!("omitting directory '{source}'")).await;
                continue;
            }
            let inside = filesystem::normal(&to).starts_with(filesystem::normal(&from));
            if inside || depth > DEPTH_MAX {
                call.fault(format!("recursion detected, omitting directory '{source}'"))
                    .await;
                continue;
            }
            match there {
                Some(there)
                    if !there.is_directory()
                        && !filesystem::about(&to, true)
                            .is_ok_and(|about| about.is_directory()) =>
                {
                    call.fault(format!("target '{target}' is not a directory"))
                        .await;
                    continue;
                }
                Some(_) => {}
                None => {
                    if let Err(error) = fs::create_dir(&to) {
                        call.fault(format!(
                            "can't create directory '{target}': {}",
                            reason(&error)
                        ))
                        .await;
                        continue;
                    }
                }
            }
            match filesystem::entries(&from) {
                Ok(entries) => waiting.extend(
                    entries
                        .iter()
                        .rev()
                        .map(|entry| (joined(&source, entry), joined(&target, entry), depth + 1)),
                ),
                Err(error) => {
                    call.fault(format!("can't open '{source}': {}", reason(&error)))
                        .await
                }
            }
            if flags.has('v') {
                call.out(format!("'{source}' -> '{target}'\n")).await?;
            }
            finished.push((to, about));
            continue;
        }
        let outcome = match about.kind {
            _ if flags.has('l') => replace(&to).and_then(|()| fs::hard_link(&from, &to)),
            _ if flags.has('s') => replace(&to).and_then(|()| filesystem::symlink(&source, &to)),
            Kind::Link => fs::read_link(&from).and_then(|link| {
                replace(&to)?;
                filesystem::symlink(&link.to_string_lossy(), &to)
            }),
            _ => contents(&from, &to, flags.has('f')).await,
        };
        match outcome {
            Ok(()) => {
                if about.kind != Kind::Link && !flags.has('l') && !flags.has('s') {
                    like(&to, &about, preserve, there.is_none());
                }
                if flags.has('v') {
                    call.out(format!("'{source}' -> '{target}'\n")).await?;
                }
            }
            Err(error) => {
                call.fault(format!("can't create '{target}': {}", reason(&error)))
                    .await
            }
        }
    }
    for (path, about) in finished.into_iter().rev() {
        like(&path, &about, preserve, false);
    }
    Ok(())
}

fn replace(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Copies what is in a file.
async fn contents(from: &Path, to: &Path, force: bool) -> io::Result<()> {
    let mut source = File::open(from)?;
    let open = || {
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .open(to)
    };
    let mut target = match open() {
        Err(error) if force && error.kind() == ErrorKind::PermissionDenied => {
            replace(to)?;
            open()?
        }
        opened => opened?,
    };
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        match source.read(&mut piece)? {
            0 => return target.flush(),
            count => target.write_all(piece.get(..count).unwrap_or_default())?,
        }
        executor::yield_now().await;
    }
}

/// Gives a copy the mode of its original where there are modes, and with `preserve` its times and owner, as far as is allowed.
fn like(path: &Path, about: &About, preserve: bool, new: bool) {
    // Each of these can be refused without the copy being wrong; busybox says as little.
    if new || preserve {
        let _ = filesystem::set_mode(path, about.mode & if preserve { 0o7777 } else { 0o777 });
    }
    if preserve {
        let _ = filesystem::set_owner(path, Some(about.user), Some(about.group));
        let times = FileTimes::new()
            .set_accessed(about.accessed)
            .set_modified(about.modified);
        let file = OpenOptions::new()
            .write(true)
            .open(path)
            .or_else(|_| File::open(path));
        let _ = file.and_then(|file| file.set_times(times));
    }
}

const MV: Usage = Usage::new("mv [-finTuv] SOURCE... DEST", "finTuvt:").long(&[
    ("force", 'f'),
    ("interactive", 'i'),
    ("no-clobber", 'n'),
    ("no-target-directory", 'T'),
    ("target-directory", 't'),
    ("update", 'u'),
    ("verbose", 'v'),
]);

/// `mv`
pub async fn mv(call: &mut Call) -> Ended {
    let flags = MV.parse(call)?;
    for (source, target) in pairs(call, &flags, &MV)? {
        let (from, to) = (call.path(&source), call.path(&target));
        let about = match filesystem::about(&from, false) {
            Ok(about) => about,
            Err(error) => {
                call.fault(format!("can't rename '{source}': {}", reason(&error)))
                    .await;
                continue;
            }
        };
        if let Ok(there) = filesystem::about(&to, false) {
            let newer = flags.has('u') && there.modified >= about.modified;
            if flags.has('n') || newer {
                continue;
            }
            if there.is(&about) && there.inode != 0 {
                call.fault(format!("'{source}' and '{target}' are the same file"))
                    .await;
                continue;
            }
            if flags.has('i') && !confirmed(call, format!("overwrite '{target}'?")).await {
                continue;
            }
        }
        match fs::rename(&from, &to) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::CrossesDevices => {
                let before = call.code;
                call.code = 0;
                let archive = CP.sort("cp", &["-a".to_owned()])?;
                copy(call, &archive, source.clone(), target.clone(), true, false).await?;
                if call.code == 0 {
                    let removed = match about.is_directory() {
                        true => fs::remove_dir_all(&from),
                        false => fs::remove_file(&from),
                    };
                    if let Err(error) = removed {
                        call.fault(format!("can't remove '{source}': {}", reason(&error)))
                            .await;
                    }
                }
                call.code = call.code.max(before);
            }
            Err(error) => {
                call.fault(format!("can't rename '{source}': {}", reason(&error)))
                    .await;
                continue;
            }
        }
        if flags.has('v') {
            call.out(format!("'{source}' -> '{target}'\n")).await?;
        }
    }
    Ok(call.code)
}

const LN: Usage = Usage::new("ln [-sfnbtvT] TARGET... LINK|DIR", "sfnivTt:rL").long(&[
    ("symbolic", 's'),
    ("force", 'f'),
    ("no-dereference", 'n'),
    ("verbose", 'v'),
    ("no-target-directory", 'T'),
    ("target-directory", 't'),
]);

/// `ln`
pub async fn ln(call: &mut Call) -> Ended {
    let mut flags = LN.parse(call)?;
    if flags.rest.len() == 1 && !flags.has('t') {
        flags.rest.push(".".into());
    }
    if flags.has('n')
        && flags.rest.len() == 2
        && flags.rest.get(1).is_some_and(|link| {
            filesystem::about(&call.path(link), false).is_ok_and(|about| about.kind == Kind::Link)
        })
    {
        flags.seen.push(('T', String::new()));
    }
    for (source, link) in pairs(call, &flags, &LN)? {
        let to = call.path(&link);
        if flags.has('f')
            && let Err(error) = replace(&to)
        {
            call.fault(format!("{link}: {}", reason(&error))).await;
            continue;
        }
        let made = match flags.has('s') {
            true => filesystem::symlink(&source, &to),
            false => fs::hard_link(call.path(&source), &to),
        };
        match made {
            Ok(()) if flags.has('v') => call.out(format!("'{link}' -> '{source}'\n")).await?,
            Ok(()) => {}
            Err(error) => call.fault(format!("{link}: {}", reason(&error))).await,
        }
    }
    Ok(call.code)
}
