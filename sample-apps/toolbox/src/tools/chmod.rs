//! `chmod`, `chown` and `chgrp`.

use super::call::{Call, Ended, Stop, reason};
use super::filesystem::{self, Kind};
use super::flags::{Flags, Usage};
use super::identity::Names;

const CHMOD: Usage = Usage::new("chmod [-Rcvf] MODE[,MODE]... FILE...", "Rcvf").long(&[
    ("recursive", 'R'),
    ("verbose", 'v'),
    ("changes", 'c'),
    ("silent", 'f'),
    ("quiet", 'f'),
]);
/// How deep `-R` goes.
const DEPTH_MAX: usize = 256;

/// `chmod`
pub async fn chmod(call: &mut Call) -> Ended {
    // `-x` and `-w` are modes, not options.
    let is_mode = |arg: &str| {
        arg.strip_prefix('-')
            .is_some_and(|rest| rest.starts_with(['r', 'w', 'x', 'X', 's', 't']))
    };
    let mut args = call.args.clone();
    if let Some(at) = args.iter().position(|arg| is_mode(arg)) {
        args.insert(at, "--".to_owned());
    }
    let flags = CHMOD.sort(&call.name, &args)?;
    let [mode, files @ ..] = flags.rest.as_slice() else {
        return Err(CHMOD.wrong());
    };
    if files.is_empty() {
        return Err(CHMOD.wrong());
    }
    if change(mode, 0, false).is_none() {
        return Err(Stop::failed(format!("invalid mode '{mode}'")));
    }
    for name in all(call, files, &flags) {
        let path = call.path(&name);
        let outcome = filesystem::about(&path, false).and_then(|about| {
            // A link has no mode; what it names is changed if it was named itself.
            if about.kind == Kind::Link && !files.contains(&name) {
                return Ok(());
            }
            let about = filesystem::about(&path, true)?;
            let new = change(mode, about.mode, about.is_directory()).unwrap_or(about.mode);
            filesystem::set_mode(&path, new)
        });
        match outcome {
            Err(error) if !flags.has('f') => {
                call.fault(format!("{name}: {}", reason(&error))).await
            }
            Err(_) => call.code = 1,
            Ok(()) if flags.has('v') => {
                let mode = filesystem::about(&path, true)
                    .map(|about| about.mode)
                    .unwrap_or(0);
                call.out(format!("mode of '{name}' changed to {mode:04o}\n"))
                    .await?;
            }
            Ok(()) => {}
        }
    }
    Ok(call.code)
}

/// A mode after a change such as `u+x,go=r` or `644`.
fn change(text: &str, old: u32, directory: bool) -> Option<u32> {
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        return u32::from_str_radix(text, 8)
            .ok()
            .filter(|mode| *mode <= 0o7777);
    }
    let mut mode = old;
    for clause in text.split(',') {
        let who_end = clause.find(['+', '-', '='])?;
        let (who, mut rest) = clause.split_at(who_end);
        if !who.chars().all(|c| "ugoa".contains(c)) {
            return None;
        }
        let everybody = who.is_empty() || who.contains('a');
        let mut mask = 0;
        for (letter, bits) in [('u', 0o4700), ('g', 0o2070), ('o', 0o1007)] {
            if everybody || who.contains(letter) {
                mask |= bits;
            }
        }
        while let Some(operator) = rest.chars().next() {
            rest = rest.get(1..)?;
            let end = rest.find(['+', '-', '=']).unwrap_or(rest.len());
            let (letters, next) = rest.split_at(end);
            rest = next;
            let mut bits = 0;
            for letter in letters.chars() {
                bits |= match letter {
                    'r' => 0o444,
                    'w' => 0o222,
                    'x' => 0o111,
                    'X' if directory || mode & 0o111 != 0 => 0o111,
                    'X' => 0,
                    's' => 0o6000,
                    't' => 0o1000,
                    'u' => (mode >> 6 & 7) * 0o111,
                    'g' => (mode >> 3 & 7) * 0o111,
                    'o' => (mode & 7) * 0o111,
                    _ => return None,
                };
            }
            // Nobody named: the umask, which is 022 here, keeps its bits.
            let bits = if who.is_empty() {
                bits & mask & !0o022
            } else {
                bits & mask
            };
            match operator {
                '+' => mode |= bits,
                '-' => mode &= !bits,
                _ => mode = mode & !(mask & 0o777) | bits,
            }
        }
    }
    Some(mode)
}

/// The named files, and with `-R` what is below them.
fn all(call: &Call, files: &[String], flags: &Flags) -> Vec<String> {
    let mut found = Vec::new();
    let mut waiting: Vec<(String, usize)> =
        files.iter().rev().map(|name| (name.clone(), 0)).collect();
    while let Some((name, depth)) = waiting.pop() {
        let path = call.path(&name);
        let directory = filesystem::about(&path, false).is_ok_and(|about| about.is_directory());
        if flags.has('R') && directory && depth < DEPTH_MAX {
            let below = filesystem::entries(&path).unwrap_or_default();
            let name = name.trim_end_matches('/');
            waiting.extend(
                below
                    .into_iter()
                    .rev()
                    .map(|entry| (format!("{name}/{entry}"), depth + 1)),
            );
        }
        found.push(name);
    }
    found
}

const CHOWN: Usage = Usage::new("chown [-Rhcvf] USER[:[GROUP]] FILE...", "Rhcvf").long(&[
    ("recursive", 'R'),
    ("no-dereference", 'h'),
    ("verbose", 'v'),
]);

/// `chown` and `chgrp`
pub async fn chown(call: &mut Call) -> Ended {
    let flags = CHOWN.parse(call)?;
    let [owner, files @ ..] = flags.rest.as_slice() else {
        return Err(CHOWN.wrong());
    };
    if files.is_empty() {
        return Err(CHOWN.wrong());
    }
    let names = Names::of(call);
    let (user, group) = match (call.name.as_str(), owner.split_once([':', '.'])) {
        ("chgrp", _) => ("", owner.as_str()),
        (_, Some((user, group))) => (user, group),
        (_, None) => (owner.as_str(), ""),
    };
    let unknown = |what: &str, name: &str| Stop::failed(format!("unknown {what} {name}"));
    let user = match user {
        "" => None,
        name => Some(
            names
                .user_number(name)
                .ok_or_else(|| unknown("user", name))?,
        ),
    };
    let group = match group {
        "" => None,
        name => Some(
            names
                .group_number(name)
                .ok_or_else(|| unknown("group", name))?,
        ),
    };
    for name in all(call, files, &flags) {
        if let Err(error) = filesystem::set_owner(&call.path(&name), user, group) {
            if flags.has('f') {
                call.code = 1;
            } else {
                call.fault(format!("{name}: {}", reason(&error))).await;
            }
        }
    }
    Ok(call.code)
}
