//! `ls`: one entry a line, or in columns on a terminal.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::calendar::{Date, zone};
use super::call::{Call, Ended, reason};
use super::filesystem::{self, About, Kind};
use super::flags::{Flags, Usage};
use super::identity::Names;

const USAGE: Usage = Usage::new(
    "ls [-1AaCdFhilnpRrSstu] [FILE]...",
    "1AaCcdFghHiLlnopQqRrSstuUvXxkw:N",
)
.long(&[
    ("all", 'a'),
    ("almost-all", 'A'),
    ("directory", 'd'),
    ("human-readable", 'h'),
    ("inode", 'i'),
    ("numeric-uid-gid", 'n'),
    ("recursive", 'R'),
    ("reverse", 'r'),
    ("size", 's'),
    ("classify", 'F'),
    ("color", COLOR),
    ("full-time", FULL_TIME),
]);
/// Colours are not printed; the option is taken because aliases give it.
const COLOR: char = '\u{1}';
const FULL_TIME: char = '\u{2}';
/// After this the year is shown instead of the time.
const RECENT_SECONDS: u64 = 15_811_200;
/// How deep `-R` goes.
const DEPTH_MAX: usize = 256;

struct Entry {
    name: String,
    path: PathBuf,
    about: About,
}

pub async fn ls(call: &mut Call) -> Ended {
    // An optional value of a long option is glued to it.
    let args: Vec<String> = call
        .args
        .iter()
        .filter(|arg| !arg.starts_with("--color"))
        .cloned()
        .collect();
    let flags = USAGE.sort(&call.name, &args)?;
    let names = match flags.rest.is_empty() {
        true => vec![".".to_owned()],
        false => flags.rest.clone(),
    };
    let (mut files, mut directories) = (Vec::new(), Vec::new());
    for name in names {
        let path = call.path(&name);
        // A link that is named is followed if it leads to a directory that will be opened.
        let follow = flags.has('L')
            || flags.has('H')
            || !(flags.has('l') || flags.has('d') || flags.has('F'));
        let found = match filesystem::about(&path, follow) {
            Err(_) if follow => filesystem::about(&path, false),
            found => found,
        };
        match found {
            Err(error) => call.fault(format!("{name}: {}", reason(&error))).await,
            Ok(about) if about.is_directory() && !flags.has('d') => {
                directories.push(Entry { name, path, about });
            }
            Ok(about) => files.push(Entry { name, path, about }),
        }
    }
    sort(&mut files, &flags);
    sort(&mut directories, &flags);
    let titled = flags.has('R') || !files.is_empty() || directories.len() > 1;
    let mut first = files.is_empty();
    print(call, &files, &flags, false).await?;
    let mut waiting: Vec<(Entry, usize)> = directories
        .into_iter()
        .rev()
        .map(|entry| (entry, 0))
        .collect();
    while let Some((directory, depth)) = waiting.pop() {
        let listed = match filesystem::entries(&directory.path) {
            Ok(listed) => listed,
            Err(error) => {
                call.fault(format!(
                    "can't open '{}': {}",
                    directory.name,
                    reason(&error)
                ))
                .await;
                continue;
            }
        };
        if titled {
            let gap = if first { "" } else { "\n" };
            call.out(format!("{gap}{}:\n", directory.name)).await?;
        }
        first = false;
        let mut entries = Vec::new();
        let dots = if flags.has('a') {
            vec![".".to_owned(), "..".to_owned()]
        } else {
            Vec::new()
        };
        for name in dots.into_iter().chain(listed) {
            if name.starts_with('.') && !flags.has('a') && !flags.has('A') {
                continue;
            }
            let path = directory.path.join(&name);
            // The parent of what is lent to this program cannot be looked at: it is shown as the directory itself.
            match filesystem::about(&path, flags.has('L')) {
                Ok(about) => entries.push(Entry { name, path, about }),
                Err(_) if name == ".." => {
                    entries.push(Entry {
                        name,
                        path,
                        about: directory.about.clone(),
                    });
                }
                Err(error) => {
                    let text = format!(
                        "{}/{name}: {}",
                        directory.name.trim_end_matches('/'),
                        reason(&error)
                    );
                    call.fault(text).await;
                }
            }
        }
        sort(&mut entries, &flags);
        print(call, &entries, &flags, true).await?;
        if flags.has('R') && depth < DEPTH_MAX {
            for entry in entries.into_iter().rev() {
                if entry.about.is_directory() && entry.name != "." && entry.name != ".." {
                    let name = format!("{}/{}", directory.name.trim_end_matches('/'), entry.name);
                    waiting.push((Entry { name, ..entry }, depth + 1));
                }
            }
        }
    }
    Ok(call.code)
}

fn sort(entries: &mut [Entry], flags: &Flags) {
    let time = |about: &About| shown_time(about, flags);
    match flags.last_of("StXvU") {
        Some('U') => {}
        Some('S') => {
            entries.sort_by(|a, b| b.about.size.cmp(&a.about.size).then(a.name.cmp(&b.name)))
        }
        Some('t') => entries.sort_by(|a, b| {
            time(&b.about)
                .cmp(&time(&a.about))
                .then(a.name.cmp(&b.name))
        }),
        Some('X') => {
            let ending = |name: &str| Path::new(name).extension().map(|ending| ending.to_owned());
            entries.sort_by(|a, b| {
                ending(&a.name)
                    .cmp(&ending(&b.name))
                    .then(a.name.cmp(&b.name))
            });
        }
        Some('v') => {
            entries.sort_by(|a, b| super::sort::version(a.name.as_bytes(), b.name.as_bytes()));
        }
        _ => entries.sort_by(|a, b| a.name.cmp(&b.name)),
    }
    if flags.has('r') {
        entries.reverse();
    }
}

fn shown_time(about: &About, flags: &Flags) -> SystemTime {
    match flags.last_of("cu") {
        Some('c') => about.changed,
        Some('u') => about.accessed,
        _ => about.modified,
    }
}

/// A size in the largest unit that leaves a digit before the point.
pub fn human(size: u64) -> String {
    if size < 1024 {
        return size.to_string();
    }
    let mut value = size as f64;
    for unit in ["K", "M", "G", "T", "P", "E"] {
        value /= 1024.0;
        if value < 1023.95 || unit == "E" {
            return format!("{value:.1}{unit}");
        }
    }
    String::new()
}

async fn print(
    call: &mut Call,
    entries: &[Entry],
    flags: &Flags,
    in_directory: bool,
) -> Result<(), super::call::Stop> {
    let long = flags.has('l')
        || flags.has('n')
        || flags.has('g')
        || flags.has('o')
        || flags.has(FULL_TIME);
    let human_sizes = flags.has('h');
    if in_directory && (long || flags.has('s')) {
        let blocks: u64 = entries.iter().map(|entry| entry.about.blocks).sum();
        let total = if human_sizes {
            human(blocks * 512)
        } else {
            (blocks / 2).to_string()
        };
        call.out(format!("total {total}\n")).await?;
    }
    let names = Names::of(call);
    let zone = zone(call.variable("TZ"));
    let now = SystemTime::now();
    let mut cells = Vec::with_capacity(entries.len());
    for entry in entries {
        let about = &entry.about;
        let mut row = String::new();
        if flags.has('i') {
            row += &format!("{:7} ", about.inode);
        }
        if flags.has('s') {
            row += &match human_sizes {
                true => format!("{:>6} ", human(about.blocks * 512)),
                false => format!("{:6} ", about.blocks / 2),
            };
        }
        if long {
            row += &format!("{:<10} {:4} ", about.mode_text(), about.links);
            let (user, group) = match flags.has('n') {
                true => (about.user.to_string(), about.group.to_string()),
                false => (names.user(about.user), names.group(about.group)),
            };
            if !flags.has('g') {
                row += &format!("{user:<8} ");
            }
            if !flags.has('o') {
                row += &format!("{group:<8} ");
            }
            row += &match human_sizes {
                true => format!("{:>7} ", human(about.size)),
                false => format!("{:9} ", about.size),
            };
            let time = shown_time(about, flags);
            let age = now.duration_since(time);
            let recent = age.as_ref().is_ok_and(|age| age.as_secs() < RECENT_SECONDS)
                || age.is_err_and(|ahead| ahead.duration().as_secs() < RECENT_SECONDS);
            let format = match (flags.has(FULL_TIME), recent) {
                (true, _) => "%Y-%m-%d %H:%M:%S %z",
                (_, true) => "%b %e %H:%M",
                (_, false) => "%b %e  %Y",
            };
            row += &Date::of_time(time, zone.clone()).format(format);
            row.push(' ');
        }
        row += &entry.name;
        if flags.has('F') || flags.has('p') {
            row += match about.kind {
                Kind::Directory => "/",
                _ if !flags.has('F') => "",
                Kind::Link if !long => "@",
                Kind::Fifo => "|",
                Kind::Socket => "=",
                Kind::File if about.mode & 0o111 != 0 => "*",
                _ => "",
            };
        }
        if long && about.kind == Kind::Link {
            let target = std::fs::read_link(&entry.path).unwrap_or_default();
            row += &format!(" -> {}", target.display());
        }
        cells.push(row);
    }
    let columns = !long
        && !flags.has('1')
        && (flags.has('C') || flags.has('x') || call.io.stdout.is_terminal());
    if !columns {
        for cell in cells {
            call.out(format!("{cell}\n")).await?;
        }
        return Ok(());
    }
    let wide = cells
        .iter()
        .map(|cell| cell.chars().count())
        .max()
        .unwrap_or(0)
        + 2;
    let screen: usize = flags
        .value('w')
        .or(call.variable("COLUMNS"))
        .and_then(|text| text.parse().ok())
        .unwrap_or(80);
    let across = (screen / wide.max(1)).max(1);
    let down = cells.len().div_ceil(across);
    for row in 0..down {
        let mut line = String::new();
        let picked: Vec<&String> = (0..across)
            .filter_map(|column| match flags.has('x') {
                true => cells
                    .get(row * across + column)
                    .filter(|_| row * across + column < (row + 1) * across),
                false => cells.get(column * down + row),
            })
            .collect();
        for (index, cell) in picked.iter().enumerate() {
            line += cell;
            if index + 1 < picked.len() {
                line += &" ".repeat(wide - cell.chars().count());
            }
        }
        line.push('\n');
        call.out(line).await?;
    }
    Ok(())
}
