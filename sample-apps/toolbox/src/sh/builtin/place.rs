//! Builtins for where the shell is and how it makes files.

use std::path::{Component, Path, PathBuf};

use crate::sh::builtin::letters;
use crate::sh::shell::{Outcome, Shell};

pub async fn cd(shell: &mut Shell, arguments: Vec<String>) -> Outcome {
    let (options, operands) = match letters(&arguments, "LP") {
        Ok(found) => found,
        Err(letter) => return shell.fail(&format!("illegal option -{letter}")).await,
    };
    let mut tell = false;
    let target = match arguments.get(operands).map(String::as_str) {
        None => match shell.variables.get("HOME") {
            Some(home) => home.to_owned(),
            None => "/".to_owned(),
        },
        Some("-") => {
            tell = true;
            let old = shell.variables.get("OLDPWD");
            old.map_or_else(|| shell.cwd.to_string_lossy().into_owned(), str::to_owned)
        }
        Some(target) => target.to_owned(),
    };
    let mut candidates = Vec::new();
    if !target.starts_with(['/', '.']) {
        let folders = shell
            .variables
            .get("CDPATH")
            .unwrap_or_default()
            .split(':')
            .filter(|folder| !folder.is_empty());
        candidates.extend(folders.map(|folder| (shell.cwd.join(folder).join(&target), true)));
    }
    candidates.push((shell.cwd.join(&target), false));
    let mut failure = None;
    for (candidate, found_elsewhere) in candidates {
        let path = match options.last() {
            Some('P') => std::fs::canonicalize(&candidate).unwrap_or(candidate),
            _ => clean(&candidate),
        };
        match std::fs::metadata(&path) {
            Ok(metadata) if metadata.is_dir() => {
                let old = shell.cwd.to_string_lossy().into_owned();
                let new = path.to_string_lossy().into_owned();
                shell.cwd = path;
                shell.assign("OLDPWD", old).await?;
                shell.assign("PWD", new.clone()).await?;
                if tell || found_elsewhere {
                    return shell.print(&format!("{new}\n")).await;
                }
                return Ok(0);
            }
            Ok(_) => failure = Some("Not a directory".to_owned()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                failure = Some("No such file or directory".to_owned())
            }
            Err(error) => failure = Some(crate::sh::words(&error)),
        }
    }
    let reason = failure.unwrap_or_default();
    shell
        .refuse(&format!("can't cd to {target}: {reason}"), 2)
        .await
}

/// A path without `.` and `..`.
fn clean(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => drop(clean.pop()),
            component => clean.push(component),
        }
    }
    clean
}

pub async fn pwd(shell: &mut Shell, arguments: Vec<String>) -> Outcome {
    let path = match arguments.get(1).map(String::as_str) {
        Some("-P") => std::fs::canonicalize(&shell.cwd).unwrap_or_else(|_| shell.cwd.clone()),
        _ => shell.cwd.clone(),
    };
    shell.print(&format!("{}\n", path.display())).await
}

/// Shows and keeps the mask of what is made from now on.
pub async fn umask(shell: &mut Shell, arguments: Vec<String>) -> Outcome {
    match arguments.get(1).map(String::as_str) {
        None => shell.print(&format!("{:04o}\n", shell.umask)).await,
        Some("-S") if arguments.len() == 2 => {
            let allowed = |shift: u32| -> String {
                let bits = !shell.umask >> shift;
                [(4, 'r'), (2, 'w'), (1, 'x')]
                    .iter()
                    .filter(|(bit, _)| bits & bit != 0)
                    .map(|(_, letter)| letter)
                    .collect()
            };
            let line = format!("u={},g={},o={}\n", allowed(6), allowed(3), allowed(0));
            shell.print(&line).await
        }
        Some(text) => match mask(shell.umask, text) {
            Some(mask) => {
                shell.umask = mask;
                crate::tools::set_mask(mask);
                Ok(0)
            }
            None => shell.fail(&format!("illegal mode: {text}")).await,
        },
    }
}

/// A mask in octal or as `u=rwx,go-w`.
fn mask(current: u32, text: &str) -> Option<u32> {
    if text.starts_with(|first: char| first.is_ascii_digit()) {
        return u32::from_str_radix(text, 8)
            .ok()
            .filter(|mask| *mask <= 0o777);
    }
    let mut allowed = !current & 0o777;
    for clause in text.split(',') {
        let at = clause.find(['=', '+', '-'])?;
        let (who, rest) = clause.split_at(at);
        let mut bits = 0;
        for letter in rest.chars().skip(1) {
            bits |= match letter {
                'r' => 4,
                'w' => 2,
                'x' => 1,
                _ => return None,
            };
        }
        let who = if who.is_empty() { "a" } else { who };
        for letter in who.chars() {
            let places: &[u32] = match letter {
                'u' => &[6],
                'g' => &[3],
                'o' => &[0],
                'a' => &[6, 3, 0],
                _ => return None,
            };
            for place in places {
                match rest.chars().next() {
                    Some('=') => allowed = allowed & !(7 << place) | bits << place,
                    Some('+') => allowed |= bits << place,
                    _ => allowed &= !(bits << place),
                }
            }
        }
    }
    Some(!allowed & 0o777)
}
