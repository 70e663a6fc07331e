//! File names that a pattern matches, sorted by their bytes.

use std::path::Path;

use super::pattern::{Pattern, Quotable};
use crate::text;

/// More names than this are not looked at.
const NAMES_MAX: usize = 1 << 18;

/// All paths that match, relative where the pattern is; none if nothing does.
pub fn expand(cwd: &Path, pattern: &Quotable) -> Vec<String> {
    let mut found = vec![String::new()];
    let parts: Vec<_> = pattern.0.split(|character| character.0 == '/').collect();
    for (place, part) in parts.iter().enumerate() {
        let last = place + 1 == parts.len();
        let part = Quotable(part.to_vec());
        let pattern = Pattern::new(&part);
        let mut next = Vec::new();
        for prefix in &found {
            if next.len() > NAMES_MAX {
                break;
            }
            if !pattern.is_special() {
                let path = format!("{prefix}{}", literal(&part));
                if !last {
                    next.push(format!("{path}/"));
                } else if part.0.is_empty() || exists(cwd, &path) {
                    next.push(path);
                }
                continue;
            }
            for name in names(cwd, prefix, &pattern) {
                let path = format!("{prefix}{name}");
                if last {
                    next.push(path);
                } else if cwd.join(&path).is_dir() {
                    next.push(format!("{path}/"));
                }
            }
        }
        found = next;
    }
    // With a slash at the end, only what is there.
    found.retain(|path| !path.is_empty() && (!path.ends_with('/') || exists(cwd, path)));
    found.sort_by_cached_key(|path| text::to_bytes(path));
    found
}

/// A part's text where nothing in it is special: a backslash quotes here too.
fn literal(part: &Quotable) -> String {
    let mut literal = String::new();
    let mut characters = part.0.iter();
    while let Some((character, quoted)) = characters.next() {
        match (character, quoted) {
            ('\\', false) => literal.extend(characters.next().map(|(next, _)| next)),
            (character, _) => literal.push(*character),
        }
    }
    literal
}

fn exists(cwd: &Path, path: &str) -> bool {
    std::fs::symlink_metadata(cwd.join(path)).is_ok()
}

fn names(cwd: &Path, folder: &str, pattern: &Pattern) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(cwd.join(folder)) else {
        return Vec::new();
    };
    let mut names: Vec<_> = entries
        .flatten()
        .take(NAMES_MAX)
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    if pattern.begins_with_dot() {
        names.extend([".".to_owned(), "..".to_owned()]);
    }
    names.retain(|name| {
        (!name.starts_with('.') || pattern.begins_with_dot()) && pattern.matches(name)
    });
    names
}
