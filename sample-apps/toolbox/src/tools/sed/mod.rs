//! `sed`: a script run over lines.
//!
//! `script` is what was written, this is its run. A line that lacks its end at the end of the input lacks it in the output. Files
//! changed in place are written beside and renamed.

mod script;
mod substitution;

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write;

use crate::applet::Input;
use crate::executor;

use self::script::{Action, Address, Command};
use self::substitution::{listed, substitute};
use super::call::{Call, Ended, HELD_BYTES_MAX, Stop, cannot_open, reason};
use super::filesystem;
use super::flags::Usage;
use super::pattern::Pattern;

/// Branches between two turns of other tasks.
const JUMPS_PER_TURN: u32 = 1000;

const USAGE: Usage = Usage::new(
    "sed [-i[SFX]] [-nrE] [-f FILE]... [-e CMD]... [FILE]...",
    "nrEsue:f:i::",
)
.long(&[
    ("quiet", 'n'),
    ("silent", 'n'),
    ("regexp-extended", 'E'),
    ("expression", 'e'),
    ("file", 'f'),
    ("in-place", 'i'),
    ("separate", 's'),
    ("unbuffered", 'u'),
]);

pub async fn sed(call: &mut Call) -> Ended {
    let mut flags = USAGE.parse(call)?;
    let mut text: Vec<u8> = Vec::new();
    let mut given = false;
    for (letter, value) in &flags.seen {
        let piece = match letter {
            'e' => value.as_bytes().to_vec(),
            'f' => call.whole(value).await?,
            _ => continue,
        };
        if given {
            text.push(b'\n');
        }
        given = true;
        text.extend(
            piece
                .strip_suffix(b"\n")
                .filter(|_| *letter == 'f')
                .unwrap_or(&piece),
        );
    }
    if !given {
        if flags.rest.is_empty() {
            return Err(USAGE.wrong());
        }
        text = flags.rest.remove(0).into_bytes();
    }
    let mut quiet = flags.has('n');
    if text.starts_with(b"#n\n") || text == b"#n" {
        quiet = true;
    }
    let commands = script::parse(&text, flags.has('E') || flags.has('r')).map_err(Stop::failed)?;
    let in_place = flags.has('i');
    let mut run = Run {
        ranges: commands.iter().map(|_| Range::Outside).collect(),
        quiet,
        separate: flags.has('s') || in_place,
        in_place: flags.value('i').map(str::to_owned),
        files: flags.files().into_iter(),
        input: None,
        next: None,
        line: Vec::new(),
        ended: true,
        hold: Vec::new(),
        number: 0,
        appended: Vec::new(),
        writers: BTreeMap::new(),
        readers: BTreeMap::new(),
        replaced: false,
        target: None,
        owes_newline: false,
        last_pattern: None,
        jumps: 0,
    };
    run.open_writers(call, &commands)?;
    let code = run.all(call, &commands).await?;
    Ok(call.code.max(code))
}

#[derive(Clone, Copy)]
enum Range {
    Outside,
    /// Until its end is met.
    Inside,
    /// Until this line.
    To(u64),
}

enum Appended {
    Text(Vec<u8>),
    File(String),
}

/// What follows a command.
enum Next {
    Go(usize),
    /// The cycle ends, with or without printing.
    Cycle(bool),
    /// As a cycle's start, without reading.
    Restart,
    Quit(i32, bool),
}

/// A file that is changed in place.
struct Target {
    name: String,
    temporary: String,
    file: File,
}

struct Run {
    ranges: Vec<Range>,
    quiet: bool,
    separate: bool,
    in_place: Option<String>,
    files: std::vec::IntoIter<String>,
    input: Option<(Input, String)>,
    /// The line after this one, by which the last is known.
    next: Option<(Vec<u8>, bool)>,
    line: Vec<u8>,
    /// Whether the line had its end.
    ended: bool,
    hold: Vec<u8>,
    number: u64,
    appended: Vec<Appended>,
    writers: BTreeMap<String, File>,
    readers: BTreeMap<String, Option<Input>>,
    replaced: bool,
    target: Option<Target>,
    owes_newline: bool,
    /// The command whose expression was used last, and which of its own.
    last_pattern: Option<(usize, u8)>,
    jumps: u32,
}

impl Run {
    fn open_writers(&mut self, call: &Call, commands: &[Command]) -> Result<(), Stop> {
        for command in commands {
            let name = match &command.action {
                Action::WriteFile(name) | Action::WriteFirstLine(name) => Some(name),
                Action::Substitute(substitution) => substitution.write.as_ref(),
                _ => None,
            };
            let Some(name) = name.filter(|name| !name.starts_with("/dev/std")) else {
                continue;
            };
            let file = File::create(call.path(name));
            let file = file.map_err(|error| Stop::failed(cannot_open(name, &error)))?;
            self.writers.insert(name.clone(), file);
        }
        Ok(())
    }

    async fn all(&mut self, call: &mut Call, commands: &[Command]) -> Ended {
        while self.advance(call).await? {
            loop {
                let next = self.cycle(call, commands).await?;
                let (print, quit) = match &next {
                    Next::Cycle(print) => (*print, None),
                    Next::Quit(code, print) => (*print, Some(*code)),
                    Next::Restart | Next::Go(_) => (false, None),
                };
                if print && !self.quiet {
                    let line = std::mem::take(&mut self.line);
                    self.put(call, &line, self.ended).await?;
                }
                self.append(call).await?;
                if let Some(code) = quit {
                    // What is left of a file that is changed in place stays as it is.
                    while self.target.is_some() && self.advance_in_file(call).await? {
                        let line = std::mem::take(&mut self.line);
                        self.put(call, &line, self.ended).await?;
                    }
                    self.finish(call)?;
                    return Ok(code);
                }
                if !matches!(next, Next::Restart) {
                    break;
                }
            }
        }
        self.finish(call)?;
        Ok(0)
    }

    /// Reads on, into `next` of the file or those after it.
    async fn fill(&mut self, call: &mut Call, other_files: bool) -> Result<(), Stop> {
        while self.next.is_none() {
            if self.input.is_none() {
                if !other_files {
                    return Ok(());
                }
                let Some(name) = self.files.next() else {
                    return Ok(());
                };
                self.finish(call)?;
                if name != "-"
                    && filesystem::about(&call.path(&name), true)
                        .is_ok_and(|about| about.is_directory())
                {
                    call.fault(format!("couldn't edit {name}: not a regular file"))
                        .await;
                    continue;
                }
                match call.open(&name) {
                    Err(error) => {
                        call.fault(format!("{name}: {}", reason(&error))).await;
                        continue;
                    }
                    Ok(input) => {
                        if self.in_place.is_some() && name != "-" {
                            let temporary = format!("{name}.{}", super::make::random_letters(6));
                            let file = OpenOptions::new()
                                .write(true)
                                .create_new(true)
                                .open(call.path(&temporary));
                            let file = file
                                .map_err(|error| Stop::failed(cannot_open(&temporary, &error)))?;
                            self.target = Some(Target {
                                name: name.clone(),
                                temporary,
                                file,
                            });
                        }
                        if self.separate {
                            self.number = 0;
                        }
                        self.input = Some((input, name));
                    }
                }
            }
            let Some((input, name)) = &mut self.input else {
                return Ok(());
            };
            match call.line(input, name).await {
                None => self.input = None,
                Some(mut line) => {
                    let ended = line.last() == Some(&b'\n');
                    if ended {
                        line.pop();
                    }
                    self.next = Some((line, ended));
                }
            }
        }
        Ok(())
    }

    /// Makes the next line the pattern space; false at the end.
    async fn advance(&mut self, call: &mut Call) -> Result<bool, Stop> {
        self.fill(call, true).await?;
        self.take(call).await
    }

    async fn advance_in_file(&mut self, call: &mut Call) -> Result<bool, Stop> {
        self.fill(call, false).await?;
        self.take(call).await
    }

    async fn take(&mut self, call: &mut Call) -> Result<bool, Stop> {
        let Some((line, ended)) = self.next.take() else {
            return Ok(false);
        };
        (self.line, self.ended) = (line, ended);
        self.number += 1;
        // The end of this file is known only by reading on; another file's lines wait until this one is finished.
        self.fill(call, !self.separate).await?;
        Ok(true)
    }

    /// Whether no line comes after this one. A file to come that is empty is not looked into when files are separate.
    fn is_last(&self) -> bool {
        self.next.is_none()
    }

    /// Ends a file that was changed in place.
    fn finish(&mut self, call: &Call) -> Result<(), Stop> {
        let Some(target) = self.target.take() else {
            return Ok(());
        };
        self.owes_newline = false;
        let path = call.path(&target.name);
        let failed =
            |error: std::io::Error| Stop::failed(format!("{}: {}", target.name, reason(&error)));
        if let Ok(about) = filesystem::about(&path, true) {
            // A file system without modes has none to keep.
            let _ = filesystem::set_mode(&call.path(&target.temporary), about.mode);
        }
        drop(target.file);
        if let Some(suffix) = self.in_place.as_ref().filter(|suffix| !suffix.is_empty()) {
            let backup = match suffix.contains('*') {
                true => suffix.replace('*', &target.name),
                false => format!("{}{suffix}", target.name),
            };
            fs::rename(&path, call.path(&backup)).map_err(failed)?;
        }
        fs::rename(call.path(&target.temporary), &path).map_err(failed)
    }

    /// Writes to standard output or the file that is changed.
    async fn write(&mut self, call: &mut Call, bytes: &[u8]) -> Result<(), Stop> {
        match &mut self.target {
            Some(target) => target.file.write_all(bytes).map_err(Stop::Output),
            None => call.out(bytes).await,
        }
    }

    async fn put(&mut self, call: &mut Call, line: &[u8], ended: bool) -> Result<(), Stop> {
        let mut text = Vec::with_capacity(line.len() + 2);
        if std::mem::take(&mut self.owes_newline) {
            text.push(b'\n');
        }
        text.extend_from_slice(line);
        if ended {
            text.push(b'\n');
        }
        self.owes_newline = !ended;
        self.write(call, &text).await
    }

    async fn append(&mut self, call: &mut Call) -> Result<(), Stop> {
        for appended in std::mem::take(&mut self.appended) {
            match appended {
                Appended::Text(text) => {
                    self.put(call, text.strip_suffix(b"\n").unwrap_or(&text), true)
                        .await?;
                }
                // A file that is not there is no error.
                Appended::File(name) => {
                    let Ok(mut input) = call.open(&name) else {
                        continue;
                    };
                    while let Ok(Some(line)) = input.line().await {
                        self.put(call, line.strip_suffix(b"\n").unwrap_or(&line), true)
                            .await?;
                    }
                }
            }
        }
        Ok(())
    }

    async fn write_file(&mut self, call: &mut Call, name: &str, line: &[u8]) -> Result<(), Stop> {
        let mut text = line.to_vec();
        text.push(b'\n');
        match name {
            "/dev/stdout" => self.put(call, line, true).await,
            "/dev/stderr" => {
                call.say(String::from_utf8_lossy(&text)).await;
                Ok(())
            }
            name => match self.writers.get_mut(name) {
                Some(file) => file
                    .write_all(&text)
                    .map_err(|error| Stop::failed(format!("{name}: {}", reason(&error)))),
                None => Ok(()),
            },
        }
    }

    /// The expression of a command, which is from now on the last one used; an empty one is that which was used last.
    fn pattern<'p>(
        &mut self,
        commands: &'p [Command],
        place: (usize, u8),
        own: Option<&'p Pattern>,
    ) -> Result<&'p Pattern, Stop> {
        if let Some(own) = own {
            self.last_pattern = Some(place);
            return Ok(own);
        }
        let last = self.last_pattern.and_then(|(index, which)| {
            let command = commands.get(index)?;
            match (which, &command.from, &command.to, &command.action) {
                (0, Some(Address::Matches(pattern)), ..)
                | (1, _, Some(Address::Matches(pattern)), _) => pattern.as_ref(),
                (2, _, _, Action::Substitute(substitution)) => substitution.pattern.as_ref(),
                _ => None,
            }
        });
        last.ok_or_else(|| Stop::failed("no previous regexp"))
    }

    fn meets(
        &mut self,
        commands: &[Command],
        index: usize,
        which: u8,
        address: &Address,
    ) -> Result<bool, Stop> {
        Ok(match address {
            Address::Line(number) => self.number == *number,
            Address::Last => self.is_last(),
            Address::Matches(pattern) => self
                .pattern(commands, (index, which), pattern.as_ref())?
                .is_match(&self.line),
            Address::Every(first, 0) => self.number == *first,
            Address::Every(first, step) => {
                self.number >= *first && (self.number - first).is_multiple_of(*step)
            }
            Address::Further(_) | Address::Multiple(_) => false,
        })
    }

    /// Whether a command applies, and whether a range ends here.
    fn applies(
        &mut self,
        commands: &[Command],
        index: usize,
        command: &Command,
    ) -> Result<(bool, bool), Stop> {
        let Some(from) = &command.from else {
            return Ok((true, true));
        };
        let Some(to) = &command.to else {
            return Ok((self.meets(commands, index, 0, from)?, true));
        };
        let mut range = self.ranges.get(index).copied().unwrap_or(Range::Outside);
        let mut end = true;
        let inside = match range {
            Range::Outside => {
                // With `0,/re/` the range is open before the first line.
                let zero = matches!(from, Address::Line(0)) && self.number == 1;
                if zero || self.meets(commands, index, 0, from)? {
                    range = match to {
                        Address::Line(last) if *last > self.number => Range::To(*last),
                        Address::Line(_) => Range::Outside,
                        Address::Further(0) | Address::Multiple(0) => Range::Outside,
                        Address::Further(count) => Range::To(self.number.saturating_add(*count)),
                        Address::Multiple(of) if self.number.is_multiple_of(*of) => Range::Outside,
                        Address::Multiple(of) => Range::To(self.number.div_ceil(*of) * of),
                        Address::Matches(_) if zero => match self.meets(commands, index, 1, to)? {
                            true => Range::Outside,
                            false => Range::Inside,
                        },
                        Address::Last if self.is_last() => Range::Outside,
                        _ => Range::Inside,
                    };
                    end = matches!(range, Range::Outside);
                    true
                } else {
                    false
                }
            }
            Range::To(last) => {
                end = self.number >= last;
                if end {
                    range = Range::Outside;
                }
                // A line number that has passed by ends the range before it.
                self.number <= last || self.meets(commands, index, 0, from)?
            }
            Range::Inside => {
                end = self.meets(commands, index, 1, to)?;
                if end {
                    range = Range::Outside;
                }
                true
            }
        };
        if let Some(slot) = self.ranges.get_mut(index) {
            *slot = range;
        }
        Ok((inside, end))
    }

    async fn cycle(&mut self, call: &mut Call, commands: &[Command]) -> Result<Next, Stop> {
        self.replaced = false;
        let mut index = 0;
        while let Some(command) = commands.get(index) {
            let (applies, range_ends) = self.applies(commands, index, command)?;
            if applies == command.negated {
                index = match command.action {
                    Action::Block(end) => end + 1,
                    _ => index + 1,
                };
                continue;
            }
            match self.act(call, commands, index, command, range_ends).await? {
                Next::Go(to) => {
                    if to <= index {
                        self.jumps += 1;
                        if self.jumps.is_multiple_of(JUMPS_PER_TURN) {
                            executor::yield_now().await;
                        }
                    }
                    index = to;
                }
                next => return Ok(next),
            }
            if self.line.len() + self.hold.len() > HELD_BYTES_MAX {
                return Err(Stop::failed(format!(
                    "the pattern and hold spaces are larger than {HELD_BYTES_MAX} bytes"
                )));
            }
        }
        Ok(Next::Cycle(true))
    }

    async fn act(
        &mut self,
        call: &mut Call,
        commands: &[Command],
        index: usize,
        command: &Command,
        range_ends: bool,
    ) -> Result<Next, Stop> {
        let next = index + 1;
        match &command.action {
            Action::Block(_) | Action::End => {}
            Action::Substitute(substitution) => {
                let pattern = self.pattern(commands, (index, 2), substitution.pattern.as_ref())?;
                if let Some(line) = substitute(&self.line, pattern, substitution) {
                    self.line = line;
                    self.replaced = true;
                    if substitution.print {
                        let line = self.line.clone();
                        self.put(call, &line, true).await?;
                    }
                    if let Some(name) = &substitution.write {
                        let line = self.line.clone();
                        self.write_file(call, name, &line).await?;
                    }
                }
            }
            Action::Translate(map) => {
                self.line
                    .iter_mut()
                    .for_each(|byte| *byte = map[usize::from(*byte)]);
            }
            Action::Append(text) => self.appended.push(Appended::Text(text.clone())),
            Action::Insert(text) => {
                self.put(call, text.strip_suffix(b"\n").unwrap_or(text), true)
                    .await?;
            }
            Action::Change(text) => {
                if command.to.is_none() || command.negated || range_ends {
                    self.put(call, text.strip_suffix(b"\n").unwrap_or(text), true)
                        .await?;
                }
                return Ok(Next::Cycle(false));
            }
            Action::Branch(to) => return Ok(Next::Go(*to)),
            Action::BranchIf(to) => {
                if std::mem::take(&mut self.replaced) {
                    return Ok(Next::Go(*to));
                }
            }
            Action::BranchUnless(to) => {
                if !std::mem::take(&mut self.replaced) {
                    return Ok(Next::Go(*to));
                }
            }
            Action::ReadFile(name) => self.appended.push(Appended::File(name.clone())),
            Action::ReadLine(name) => {
                let opened = || call.open(name).ok();
                let input = self.readers.entry(name.clone()).or_insert_with(opened);
                if let Some(input) = input
                    && let Ok(Some(line)) = input.line().await
                {
                    self.appended.push(Appended::Text(line));
                }
            }
            Action::WriteFile(name) => {
                let line = self.line.clone();
                self.write_file(call, name, &line).await?;
            }
            Action::WriteFirstLine(name) => {
                let line = self
                    .line
                    .split(|byte| *byte == b'\n')
                    .next()
                    .unwrap_or_default()
                    .to_vec();
                self.write_file(call, name, &line).await?;
            }
            Action::Quit(code, quietly) => return Ok(Next::Quit(*code, !quietly)),
            Action::List(width) => {
                let text = listed(&self.line, width.unwrap_or(70));
                self.put(call, &text, true).await?;
            }
            Action::Plain(letter) => return self.plain(call, *letter, next).await,
        }
        Ok(Next::Go(next))
    }

    async fn plain(&mut self, call: &mut Call, letter: u8, next: usize) -> Result<Next, Stop> {
        match letter {
            b'=' => {
                let text = self.number.to_string();
                self.put(call, text.as_bytes(), true).await?;
            }
            b'F' => {
                let name = self.input.as_ref().map_or("-", |(_, name)| name).to_owned();
                self.put(call, name.as_bytes(), true).await?;
            }
            b'd' => return Ok(Next::Cycle(false)),
            b'D' => {
                return Ok(match self.line.iter().position(|byte| *byte == b'\n') {
                    None => Next::Cycle(false),
                    Some(at) => {
                        self.line.drain(..=at);
                        Next::Restart
                    }
                });
            }
            b'g' => self.line.clone_from(&self.hold),
            b'G' => {
                self.line.push(b'\n');
                self.line.extend_from_slice(&self.hold);
            }
            b'h' => self.hold.clone_from(&self.line),
            b'H' => {
                self.hold.push(b'\n');
                self.hold.extend_from_slice(&self.line);
            }
            b'x' => std::mem::swap(&mut self.line, &mut self.hold),
            b'z' => self.line.clear(),
            b'p' => {
                let line = self.line.clone();
                self.put(call, &line, true).await?;
            }
            b'P' => {
                let line = self
                    .line
                    .split(|byte| *byte == b'\n')
                    .next()
                    .unwrap_or_default()
                    .to_vec();
                self.put(call, &line, true).await?;
            }
            b'n' => {
                if self.is_last() {
                    return Ok(Next::Quit(0, true));
                }
                if !self.quiet {
                    let line = std::mem::take(&mut self.line);
                    self.put(call, &line, self.ended).await?;
                }
                self.append(call).await?;
                self.advance(call).await?;
            }
            // `N`: at the end what is there is printed.
            _ => {
                if self.is_last() {
                    return Ok(Next::Quit(0, true));
                }
                self.append(call).await?;
                let mut before = std::mem::take(&mut self.line);
                self.advance(call).await?;
                before.push(b'\n');
                before.append(&mut self.line);
                self.line = before;
            }
        }
        Ok(Next::Go(next))
    }
}
