//! `stat`: all that is known of a file, or as `-c` asks.

use super::calendar::{Date, since_epoch, zone};
use super::call::{Call, Ended, reason};
use super::filesystem::{self, About, Kind};
use super::flags::Usage;
use super::identity::Names;

const USAGE: Usage = Usage::new("stat [-Lt] [-c FMT] FILE...", "c:Lt").long(&[
    ("format", 'c'),
    ("dereference", 'L'),
    ("terse", 't'),
]);
const TERSE: &str = "%n %s %b %f %u %g %D %i %h 0 0 %X %Y %Z %o";

pub async fn stat(call: &mut Call) -> Ended {
    let flags = USAGE.parse(call)?;
    if flags.rest.is_empty() {
        return Err(USAGE.wrong());
    }
    let names = Names::of(call);
    for name in &flags.rest {
        let path = call.path(name);
        let about = match filesystem::about(&path, flags.has('L')) {
            Ok(about) => about,
            Err(error) => {
                call.fault(format!("can't stat '{name}': {}", reason(&error)))
                    .await;
                continue;
            }
        };
        let target = match about.kind {
            Kind::Link => std::fs::read_link(&path)
                .ok()
                .map(|to| to.display().to_string()),
            _ => None,
        };
        let zone = zone(call.variable("TZ"));
        let shown = Shown {
            name,
            target,
            about: &about,
            names: &names,
            zone: &zone,
        };
        let text = match flags.value('c') {
            Some(format) => format!("{}\n", shown.format(format)),
            None if flags.has('t') => format!("{}\n", shown.format(TERSE)),
            None => shown.all(),
        };
        call.out(text).await?;
    }
    Ok(call.code)
}

struct Shown<'s> {
    name: &'s str,
    target: Option<String>,
    about: &'s About,
    names: &'s Names,
    zone: &'s (String, i64),
}

impl Shown<'_> {
    fn kind(&self) -> &'static str {
        match self.about.kind {
            Kind::File if self.about.size == 0 => "regular empty file",
            Kind::File => "regular file",
            Kind::Directory => "directory",
            Kind::Link => "symbolic link",
            Kind::Fifo => "fifo",
            Kind::Socket => "socket",
            Kind::Block => "block special file",
            Kind::Character => "character special file",
        }
    }

    fn raw_mode(&self) -> u32 {
        let kind = match self.about.kind {
            Kind::File => 0o100_000,
            Kind::Directory => 0o040_000,
            Kind::Link => 0o120_000,
            Kind::Fifo => 0o010_000,
            Kind::Socket => 0o140_000,
            Kind::Block => 0o060_000,
            Kind::Character => 0o020_000,
        };
        kind | self.about.mode
    }

    fn date(&self, time: std::time::SystemTime) -> String {
        Date::of_time(time, self.zone.clone()).format("%Y-%m-%d %H:%M:%S.%N %z")
    }

    fn format(&self, format: &str) -> String {
        let about = self.about;
        let mut out = String::new();
        let mut chars = format.chars();
        while let Some(c) = chars.next() {
            if c != '%' {
                out.push(c);
                continue;
            }
            let mut spec = String::new();
            let letter = loop {
                match chars.next() {
                    Some(c) if c.is_ascii_digit() || "-.#+ ".contains(c) => spec.push(c),
                    other => break other,
                }
            };
            let seconds = |time| since_epoch(time).0.to_string();
            let text = match letter {
                Some('n') => self.name.to_owned(),
                Some('N') => match &self.target {
                    Some(target) => format!("'{}' -> '{target}'", self.name),
                    None => format!("'{}'", self.name),
                },
                Some('s') => about.size.to_string(),
                Some('b') => about.blocks.to_string(),
                Some('B') => "512".into(),
                Some('o') => "4096".into(),
                Some('a') => format!("{:o}", about.mode),
                Some('A') => about.mode_text(),
                Some('f') => format!("{:x}", self.raw_mode()),
                Some('F') => self.kind().into(),
                Some('u') => about.user.to_string(),
                Some('U') => self.names.user(about.user),
                Some('g') => about.group.to_string(),
                Some('G') => self.names.group(about.group),
                Some('h') => about.links.to_string(),
                Some('i') => about.inode.to_string(),
                Some('d') => about.device.to_string(),
                Some('D') => format!("{:x}", about.device),
                Some('t' | 'T') => "0".into(),
                Some('m') => "/".into(),
                Some('x') => self.date(about.accessed),
                Some('X') => seconds(about.accessed),
                Some('y') => self.date(about.modified),
                Some('Y') => seconds(about.modified),
                Some('z') => self.date(about.changed),
                Some('Z') => seconds(about.changed),
                Some('w') => "-".into(),
                Some('W') => "0".into(),
                Some('C') => "?".into(),
                Some('%') => "%".into(),
                Some(_) => "?".into(),
                None => "%".into(),
            };
            let value = [super::printf::Value::Text(text.into_bytes())];
            let padded = super::printf::format(format!("%{spec}s").as_bytes(), &value, false);
            out += &String::from_utf8_lossy(&padded.bytes);
        }
        out
    }

    fn all(&self) -> String {
        let about = self.about;
        let target = self
            .target
            .as_ref()
            .map(|to| format!(" -> '{to}'"))
            .unwrap_or_default();
        let name = match target.is_empty() {
            true => self.name.to_owned(),
            false => format!("'{}'", self.name),
        };
        format!(
            "  File: {name}{target}\n  Size: {:<10}\tBlocks: {:<10} IO Block: 4096   {}\nDevice: {:x}h/{}d\tInode: {:<10}  Links: {}\nAccess: ({:04o}/{})  Uid: ({:5}/{:>8})   Gid: ({:5}/{:>8})\nAccess: {}\nModify: {}\nChange: {}\n",
            about.size,
            about.blocks,
            self.kind(),
            about.device,
            about.device,
            about.inode,
            about.links,
            about.mode,
            about.mode_text(),
            about.user,
            self.names.user(about.user),
            about.group,
            self.names.group(about.group),
            self.date(about.accessed),
            self.date(about.modified),
            self.date(about.changed),
        )
    }
}
