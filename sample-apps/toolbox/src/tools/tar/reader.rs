//! Archives listed and unpacked.

use std::fs::{self, File, FileTimes, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use std::collections::BTreeMap;

use crate::applet::Input;
use crate::tools::calendar::{Date, time_at, zone};
use crate::tools::call::{CHUNK_BYTES, Call, Ended, Stop, cannot_open, reason};
use crate::tools::filesystem::{self, About, Kind};
use crate::tools::flags::Flags;
use crate::tools::glob;
use crate::tools::gzip::Unpacker;

use super::header::{BLOCK, number, padding, pax_records};
use super::{EXCLUDE, STRIP, excluded_by, lines_of};

/// A name, a link or a pax header may be this long.
const NAME_BYTES_MAX: u64 = 1 << 20;

pub struct Reader {
    input: Input,
    unpacker: Option<Unpacker>,
    held: Vec<u8>,
    at: usize,
    begun: bool,
    asked_gzip: bool,
}

struct Entry {
    name: String,
    link: String,
    kind: u8,
    size: u64,
    mode: u32,
    user: u32,
    group: u32,
    user_name: String,
    group_name: String,
    modified: i64,
}

impl Reader {
    pub fn open(call: &Call, flags: &Flags, archive: &str) -> Result<Reader, Stop> {
        let input = call
            .open(archive)
            .map_err(|error| Stop::failed(cannot_open(archive, &error)))?;
        Ok(Reader {
            input,
            unpacker: None,
            held: Vec::new(),
            at: 0,
            begun: false,
            asked_gzip: flags.has('z'),
        })
    }

    /// Some of what comes next; empty at the end.
    async fn some(&mut self, most: u64) -> Result<Vec<u8>, Stop> {
        while self.at >= self.held.len() {
            let mut buf = vec![0; CHUNK_BYTES];
            let read = self.input.read(&mut buf).await;
            let read =
                read.map_err(|error| Stop::failed(format!("read error: {}", reason(&error))))?;
            buf.truncate(read);
            if !self.begun {
                self.begun = true;
                // Gzip is known by its first bytes.
                if self.asked_gzip || buf.starts_with(&[0x1f, 0x8b]) {
                    self.unpacker = Some(Unpacker::new());
                }
            }
            (self.held, self.at) = match &mut self.unpacker {
                None => (buf, 0),
                Some(unpacker) if read == 0 => {
                    unpacker.finish().map_err(Stop::failed)?;
                    (Vec::new(), 0)
                }
                Some(unpacker) => (unpacker.unpack(&buf).map_err(Stop::failed)?, 0),
            };
            if read == 0 {
                return Ok(Vec::new());
            }
        }
        let rest = self.held.get(self.at..).unwrap_or_default();
        let count = rest.len().min(usize::try_from(most).unwrap_or(usize::MAX));
        let part = rest.get(..count).unwrap_or_default().to_vec();
        self.at += count;
        Ok(part)
    }

    async fn exactly(&mut self, count: usize) -> Result<Option<Vec<u8>>, Stop> {
        let mut all = Vec::with_capacity(count);
        while all.len() < count {
            let part = self.some((count - all.len()) as u64).await?;
            if part.is_empty() {
                return match all.is_empty() {
                    true => Ok(None),
                    false => Err(Stop::failed("short read")),
                };
            }
            all.extend(part);
        }
        Ok(Some(all))
    }

    async fn text(&mut self, size: u64) -> Result<Vec<u8>, Stop> {
        if size > NAME_BYTES_MAX {
            return Err(Stop::failed(format!(
                "a name is longer than {NAME_BYTES_MAX} bytes"
            )));
        }
        let size = size as usize;
        let text = self.exactly(size + padding(size as u64)).await?;
        let mut text = text.ok_or_else(|| Stop::failed("short read"))?;
        text.truncate(size);
        Ok(text)
    }

    async fn skip(&mut self, mut count: u64) -> Result<(), Stop> {
        while count > 0 {
            let part = self.some(count).await?;
            if part.is_empty() {
                return Err(Stop::failed("short read"));
            }
            count -= part.len() as u64;
        }
        Ok(())
    }

    /// The next entry, with what long names and pax headers before it say.
    async fn next(&mut self) -> Result<Option<Entry>, Stop> {
        let (mut long_name, mut long_link, mut pax) = (None, None, BTreeMap::new());
        loop {
            let Some(block) = self.exactly(BLOCK).await? else {
                return Ok(None);
            };
            if block.iter().all(|byte| *byte == 0) {
                return Ok(None);
            }
            let sum: u64 = block
                .iter()
                .enumerate()
                .map(|(at, byte)| {
                    if (148..156).contains(&at) {
                        32
                    } else {
                        u64::from(*byte)
                    }
                })
                .sum();
            if number(&block, 148, 8) != Some(sum) {
                return Err(Stop::failed("invalid tar magic"));
            }
            let invalid = || Stop::failed("invalid tar header");
            let mut size = number(&block, 124, 12).ok_or_else(invalid)?;
            let kind = block.get(156).copied().unwrap_or(0);
            let string = |bytes: Vec<u8>| {
                let end = bytes
                    .iter()
                    .position(|byte| *byte == 0)
                    .unwrap_or(bytes.len());
                String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).into_owned()
            };
            match kind {
                b'L' => long_name = Some(string(self.text(size).await?)),
                b'K' => long_link = Some(string(self.text(size).await?)),
                b'x' => pax = pax_records(&self.text(size).await?),
                b'g' => self.skip(size + padding(size) as u64).await?,
                kind => {
                    let part = |at: usize, width: usize| {
                        string(block.get(at..at + width).unwrap_or_default().to_vec())
                    };
                    let ustar = block.get(257..263) == Some(b"ustar\0");
                    let prefix = if ustar { part(345, 155) } else { String::new() };
                    let mut name = match prefix.is_empty() {
                        true => part(0, 100),
                        false => format!("{prefix}/{}", part(0, 100)),
                    };
                    let mut link = part(157, 100);
                    if let Some(path) = pax.remove("path").or(long_name) {
                        name = path;
                    }
                    if let Some(path) = pax.remove("linkpath").or(long_link) {
                        link = path;
                    }
                    if let Some(text) = pax.get("size") {
                        size = text.parse().map_err(|_| invalid())?;
                    }
                    let modified = match pax.get("mtime") {
                        Some(text) => text
                            .split('.')
                            .next()
                            .and_then(|text| text.parse().ok())
                            .unwrap_or(0),
                        None => i64::try_from(number(&block, 136, 12).unwrap_or(0)).unwrap_or(0),
                    };
                    let word = |at| {
                        number(&block, at, 8)
                            .and_then(|value| u32::try_from(value).ok())
                            .unwrap_or(0)
                    };
                    return Ok(Some(Entry {
                        kind: if kind == 0 && name.ends_with('/') {
                            b'5'
                        } else {
                            kind
                        },
                        name,
                        link,
                        size: if matches!(kind, 0 | b'0' | b'7' | b'S') || !kind.is_ascii_digit() {
                            size
                        } else {
                            0
                        },
                        mode: word(100) & 0o7777,
                        user: word(108),
                        group: word(116),
                        user_name: part(265, 32),
                        group_name: part(297, 32),
                        modified,
                    }));
                }
            }
        }
    }

    /// Lists or unpacks all entries, or those that are named.
    pub async fn unpack(mut self, call: &mut Call, flags: &Flags, list: bool) -> Ended {
        let base = match flags.value('C') {
            None => call.io.cwd.clone(),
            Some(directory) => call.path(directory),
        };
        if !list && !base.is_dir() {
            let directory = flags.value('C').unwrap_or_default();
            return Err(Stop::failed(format!(
                "can't change directory to '{directory}': No such file or directory"
            )));
        }
        let strip = match flags.value(STRIP) {
            None => 0,
            Some(text) => text
                .parse::<usize>()
                .map_err(|_| Stop::failed(format!("invalid number '{text}'")))?,
        };
        let mut wanted = flags.rest.clone();
        if let Some(file) = flags.value('T') {
            wanted.extend(lines_of(call, file).await?);
        }
        let mut excluded: Vec<String> = flags.values(EXCLUDE).map(str::to_owned).collect();
        for file in flags.values('X').map(str::to_owned).collect::<Vec<_>>() {
            excluded.extend(lines_of(call, &file).await?);
        }
        let mut found = vec![false; wanted.len()];
        let mut any = false;
        // Directories get their times when all in them is there.
        let mut directories: Vec<(PathBuf, i64, u32)> = Vec::new();
        while let Some(entry) = self.next().await? {
            any = true;
            let trimmed = entry.name.trim_end_matches('/').to_owned();
            let mut chosen = wanted.is_empty();
            for (name, found) in wanted.iter().zip(&mut found) {
                let name = name.trim_end_matches('/');
                let below = trimmed
                    .strip_prefix(name)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
                if below || glob::matches(name.as_bytes(), trimmed.as_bytes()) {
                    (chosen, *found) = (true, true);
                }
            }
            if excluded_by(&excluded, &entry.name) {
                chosen = false;
            }
            let rest = entry.size + padding(entry.size) as u64;
            if !chosen {
                self.skip(rest).await?;
                continue;
            }
            if list || flags.has('v') {
                let line = match flags.has('v') && list || flags.count('v') > 1 {
                    true => long_line(call, &entry),
                    false => format!("{}\n", entry.name),
                };
                // The archive may be what goes to standard output.
                if flags.has('O') {
                    call.say(line).await
                } else {
                    call.out(line).await?
                }
            }
            if list {
                self.skip(rest).await?;
                continue;
            }
            if flags.has('O') {
                let mut left = entry.size;
                while left > 0 {
                    let part = self.some(left).await?;
                    if part.is_empty() {
                        return Err(Stop::failed("short read"));
                    }
                    left -= part.len() as u64;
                    call.out(part).await?;
                }
                self.skip(padding(entry.size) as u64).await?;
                continue;
            }
            self.entry(call, flags, &base, strip, &entry, &mut directories)
                .await?;
        }
        if !any && self.begun && self.held.is_empty() {
            return Err(Stop::failed("short read"));
        }
        for (path, modified, mode) in directories.into_iter().rev() {
            // Best effort, as for files.
            let _ = filesystem::set_mode(&path, mode);
            if !flags.has('m') {
                set_time(&path, modified);
            }
        }
        for (name, found) in wanted.iter().zip(found) {
            if !found {
                call.fault(format!("{name}: not found in archive")).await;
            }
        }
        // What follows the end is read, so that whoever writes it is not cut off.
        while !self.some(u64::MAX).await?.is_empty() {}
        Ok(call.code)
    }

    async fn entry(
        &mut self,
        call: &mut Call,
        flags: &Flags,
        base: &Path,
        strip: usize,
        entry: &Entry,
        directories: &mut Vec<(PathBuf, i64, u32)>,
    ) -> Result<(), Stop> {
        let rest = entry.size + padding(entry.size) as u64;
        let Some(path) = inside(base, &entry.name, strip) else {
            if entry.name.split('/').any(|part| part == "..") {
                call.fault(format!("name with '..' in it: '{}'", entry.name))
                    .await;
            }
            return self.skip(rest).await;
        };
        let failed =
            |error: &std::io::Error| format!("can't create '{}': {}", entry.name, reason(error));
        if let Err(error) = make_parents(base, &path) {
            call.fault(failed(&error)).await;
            return self.skip(rest).await;
        }
        let there = filesystem::about(&path, false).ok();
        if entry.kind == b'5' {
            if !there.as_ref().is_some_and(About::is_directory) {
                if there.is_some() {
                    // Something else is in the way; if it stays, what follows says so.
                    let _ = fs::remove_file(&path);
                }
                if let Err(error) = fs::create_dir(&path) {
                    let text = format!("can't make dir {}: {}", entry.name, reason(&error));
                    call.fault(text).await;
                }
            }
            directories.push((path, entry.modified, entry.mode));
            return self.skip(rest).await;
        }
        if let Some(there) = &there {
            if flags.has('k') {
                call.fault(format!("can't open '{}': File exists", entry.name))
                    .await;
                return self.skip(rest).await;
            }
            if !there.is_directory() {
                // A new file, so that no link in the way is written through.
                let _ = fs::remove_file(&path);
            }
        }
        match entry.kind {
            0 | b'0' | b'7' | b'S' => self.file(call, flags, entry, &path).await,
            b'1' => {
                let made = match inside(base, &entry.link, strip) {
                    Some(target) if !leads_out(base, &target) => fs::hard_link(target, &path),
                    _ => Err(std::io::ErrorKind::NotFound.into()),
                };
                if let Err(error) = made {
                    let text = format!(
                        "can't create hardlink '{}' to '{}': {}",
                        entry.name,
                        entry.link,
                        reason(&error)
                    );
                    call.fault(text).await;
                }
                self.skip(rest).await
            }
            b'2' => {
                if let Err(error) = filesystem::symlink(&entry.link, &path) {
                    let text = format!(
                        "can't create symlink '{}' to '{}': {}",
                        entry.name,
                        entry.link,
                        reason(&error)
                    );
                    call.fault(text).await;
                }
                self.skip(rest).await
            }
            _ => {
                call.fault(format!(
                    "{}: a component makes no devices; skipping",
                    entry.name
                ))
                .await;
                self.skip(rest).await
            }
        }
    }

    async fn file(
        &mut self,
        call: &mut Call,
        flags: &Flags,
        entry: &Entry,
        path: &Path,
    ) -> Result<(), Stop> {
        let opened = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .open(path);
        let mut file = match opened {
            Ok(file) => Some(file),
            Err(error) => {
                call.fault(format!("can't open '{}': {}", entry.name, reason(&error)))
                    .await;
                None
            }
        };
        let mut left = entry.size;
        while left > 0 {
            let part = self.some(left).await?;
            if part.is_empty() {
                return Err(Stop::failed("short read"));
            }
            left -= part.len() as u64;
            if let Some(open) = &mut file
                && let Err(error) = open.write_all(&part)
            {
                call.fault(format!("{}: write error: {}", entry.name, reason(&error)))
                    .await;
                file = None;
            }
        }
        self.skip(padding(entry.size) as u64).await?;
        drop(file);
        // A file system without modes, or an owner who may not, keeps what it has.
        let mode = if flags.has('p') {
            entry.mode
        } else {
            entry.mode & !0o022
        };
        let _ = filesystem::set_mode(path, mode);
        if !flags.has('m') {
            set_time(path, entry.modified);
        }
        Ok(())
    }
}

fn set_time(path: &Path, modified: i64) {
    let Some(time) = time_at(modified, 0) else {
        return;
    };
    let file = OpenOptions::new()
        .write(true)
        .open(path)
        .or_else(|_| File::open(path));
    // Times are a nicety; what was unpacked is right without them.
    let _ = file.and_then(|file| {
        file.set_times(
            FileTimes::new()
                .set_modified(time)
                .set_accessed(SystemTime::now()),
        )
    });
}

/// Where an entry goes: below `base`, however it is named. `None` if nothing is left of its name, or it climbs out.
fn inside(base: &Path, name: &str, strip: usize) -> Option<PathBuf> {
    let parts: Vec<&str> = name
        .split('/')
        .filter(|part| !part.is_empty() && *part != ".")
        .collect();
    if parts.contains(&"..") {
        return None;
    }
    let kept = parts.get(strip..)?;
    if kept.is_empty() {
        // The directory itself, as in `./`.
        return (strip == 0 && parts.is_empty() && !name.is_empty()).then(|| base.to_owned());
    }
    Some(
        kept.iter()
            .fold(base.to_owned(), |path, part| path.join(part)),
    )
}

/// Whether a directory above a path is a link.
fn leads_out(base: &Path, path: &Path) -> bool {
    path.ancestors()
        .skip(1)
        .take_while(|above| *above != base)
        .any(|above| filesystem::about(above, false).is_ok_and(|about| about.kind == Kind::Link))
}

/// Makes the directories above a path. A link among them is taken away: it could lead out.
fn make_parents(base: &Path, path: &Path) -> std::io::Result<()> {
    let Some(below) = path
        .parent()
        .and_then(|parent| parent.strip_prefix(base).ok())
    else {
        return Ok(());
    };
    let mut at = base.to_owned();
    for part in below.components() {
        at.push(part);
        match filesystem::about(&at, false) {
            Ok(about) if about.is_directory() => {}
            Ok(_) => {
                fs::remove_file(&at)?;
                fs::create_dir(&at)?;
            }
            Err(_) => fs::create_dir(&at)?,
        }
    }
    Ok(())
}

fn long_line(call: &Call, entry: &Entry) -> String {
    let kind = match entry.kind {
        b'5' => Kind::Directory,
        b'2' => Kind::Link,
        b'3' => Kind::Character,
        b'4' => Kind::Block,
        b'6' => Kind::Fifo,
        _ => Kind::File,
    };
    let about = About {
        kind,
        size: entry.size,
        mode: entry.mode,
        links: 1,
        user: entry.user,
        group: entry.group,
        device: 0,
        inode: 0,
        blocks: 0,
        accessed: SystemTime::UNIX_EPOCH,
        modified: SystemTime::UNIX_EPOCH,
        changed: SystemTime::UNIX_EPOCH,
    };
    let named = |name: &str, number: u32| {
        if name.is_empty() {
            number.to_string()
        } else {
            name.to_owned()
        }
    };
    let owner = format!(
        "{}/{}",
        named(&entry.user_name, entry.user),
        named(&entry.group_name, entry.group)
    );
    let date = Date::of(entry.modified, 0, zone(call.variable("TZ"))).format("%Y-%m-%d %H:%M:%S");
    let link = match entry.kind {
        b'2' => format!(" -> {}", entry.link),
        b'1' => format!(" link to {}", entry.link),
        _ => String::new(),
    };
    format!(
        "{} {owner} {:9} {date} {}{link}\n",
        about.mode_text(),
        entry.size,
        entry.name
    )
}
