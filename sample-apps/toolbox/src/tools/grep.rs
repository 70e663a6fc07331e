//! `grep`, `egrep` and `fgrep`: lines that match. 0 if there are some, 1 if none, 2 if something went wrong.

use std::collections::VecDeque;

use crate::applet::Input;

use super::call::{Call, Ended, HELD_BYTES_MAX, Stop, cannot_open, reason};
use super::filesystem;
use super::flags::{self, Flags, Usage};
use super::glob;
use super::pattern::{Kind, Pattern, Syntax};

/// How deep `-r` goes.
const DEPTH_MAX: usize = 256;
const INCLUDE: char = '\u{1}';
const EXCLUDE: char = '\u{2}';
const EXCLUDE_DIR: char = '\u{3}';
const COLOR: char = '\u{4}';

const USAGE: Usage = Usage::new(
    "grep [-HhnlLoqvsrRiwFE] [-m N] [-A|B|C N] {PATTERN | -e PATTERN... | -f FILE...} [FILE]...",
    "EFGivncloLqsrRwxhHabzA:B:C:e:f:m:\u{1}:\u{2}:\u{3}:\u{4}::",
)
.code(2)
.long(&[
    ("extended-regexp", 'E'),
    ("fixed-strings", 'F'),
    ("basic-regexp", 'G'),
    ("ignore-case", 'i'),
    ("invert-match", 'v'),
    ("line-number", 'n'),
    ("count", 'c'),
    ("files-with-matches", 'l'),
    ("files-without-match", 'L'),
    ("only-matching", 'o'),
    ("quiet", 'q'),
    ("silent", 'q'),
    ("no-messages", 's'),
    ("recursive", 'r'),
    ("word-regexp", 'w'),
    ("line-regexp", 'x'),
    ("no-filename", 'h'),
    ("with-filename", 'H'),
    ("text", 'a'),
    ("byte-offset", 'b'),
    ("null-data", 'z'),
    ("after-context", 'A'),
    ("before-context", 'B'),
    ("context", 'C'),
    ("regexp", 'e'),
    ("file", 'f'),
    ("max-count", 'm'),
    ("include", INCLUDE),
    ("exclude", EXCLUDE),
    ("exclude-dir", EXCLUDE_DIR),
    ("color", COLOR),
    ("colour", COLOR),
]);

struct Search {
    pattern: Pattern,
    flags: Flags,
    named: bool,
    before: usize,
    after: usize,
    most: u64,
    matched: bool,
    failed: bool,
}

pub async fn grep(call: &mut Call) -> Ended {
    // `-5` is `-C 5`.
    let args: Vec<String> = call
        .args
        .iter()
        .map(|arg| match arg.strip_prefix('-') {
            Some(digits)
                if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) =>
            {
                format!("-C{digits}")
            }
            _ => arg.clone(),
        })
        .collect();
    let mut flags = USAGE.sort(&call.name, &args)?;
    let mut texts: Vec<Vec<u8>> = Vec::new();
    for (letter, value) in &flags.seen {
        match letter {
            'e' => texts.extend(value.split('\n').map(|text| text.as_bytes().to_vec())),
            'f' => {
                let mut input = call
                    .open(value)
                    .map_err(|error| Stop::Failed(2, cannot_open(value, &error)))?;
                let all = input.all(HELD_BYTES_MAX).await;
                let all =
                    all.map_err(|error| Stop::Failed(2, format!("{value}: {}", reason(&error))))?;
                let all = all.strip_suffix(b"\n").unwrap_or(&all);
                texts.extend(all.split(|byte| *byte == b'\n').map(<[u8]>::to_vec));
            }
            _ => {}
        }
    }
    if !flags.has('e') && !flags.has('f') {
        if flags.rest.is_empty() {
            return Err(USAGE.wrong());
        }
        texts.extend(
            flags
                .rest
                .remove(0)
                .split('\n')
                .map(|text| text.as_bytes().to_vec()),
        );
    }
    let kind = match (flags.last_of("EFG"), call.name.as_str()) {
        (Some('E'), _) | (None, "egrep") => Kind::Extended,
        (Some('F'), _) | (None, "fgrep") => Kind::Fixed,
        _ => Kind::Basic,
    };
    let syntax = Syntax {
        kind,
        ignore_case: flags.has('i'),
        word: flags.has('w'),
        whole: flags.has('x'),
        lines: false,
    };
    let bad = |error: String| {
        let text =
            String::from_utf8_lossy(texts.first().map_or(&[][..], Vec::as_slice)).into_owned();
        Stop::Failed(2, format!("bad regex '{text}': {error}"))
    };
    let pattern = Pattern::any_of(&texts, syntax).map_err(bad)?;
    let count = |letter: char| -> Result<Option<usize>, Stop> {
        let value = flags.value(letter).map(flags::size).transpose()?;
        Ok(value.map(|value| usize::try_from(value).unwrap_or(usize::MAX)))
    };
    let around = count('C')?.unwrap_or(0);
    let (before, after) = (count('B')?.unwrap_or(around), count('A')?.unwrap_or(around));
    let most = flags.value('m').map_or(Ok(u64::MAX), flags::size)?;
    let recursive = flags.has('r') || flags.has('R');
    let roots = match (flags.rest.is_empty(), recursive) {
        (true, true) => vec![".".to_owned()],
        _ => flags.files(),
    };
    let named = (roots.len() > 1 || recursive || flags.has('H')) && !flags.has('h');
    let mut search = Search {
        pattern,
        named,
        before,
        after,
        most,
        flags,
        matched: false,
        failed: false,
    };
    let bare = search.flags.rest.is_empty() && recursive;
    for root in roots {
        let mut waiting = vec![(root, 0)];
        while let Some((name, depth)) = waiting.pop() {
            let path = call.path(&name);
            let directory = name != "-"
                && filesystem::about(&path, depth == 0 || search.flags.has('R'))
                    .is_ok_and(|about| about.is_directory());
            let base = name.rsplit('/').next().unwrap_or_default().as_bytes();
            let any = |letter: char| {
                search
                    .flags
                    .values(letter)
                    .any(|glob| glob::matches(glob.as_bytes(), base))
            };
            if directory && recursive {
                if depth > 0 && any(EXCLUDE_DIR) || depth > DEPTH_MAX {
                    continue;
                }
                match filesystem::entries(&path) {
                    Ok(entries) => waiting.extend(entries.into_iter().rev().map(|entry| {
                        match bare && name == "." {
                            true => (entry, depth + 1),
                            false => (format!("{}/{entry}", name.trim_end_matches('/')), depth + 1),
                        }
                    })),
                    Err(error) => {
                        search
                            .fault(call, format!("{name}: {}", reason(&error)))
                            .await
                    }
                }
                continue;
            }
            if any(EXCLUDE) || search.flags.has(INCLUDE) && !any(INCLUDE) && depth > 0 {
                continue;
            }
            if directory {
                search.fault(call, format!("{name}: Is a directory")).await;
                continue;
            }
            match call.open(&name) {
                Ok(mut input) => {
                    search.file(call, &mut input, &name).await?;
                    if search.matched && search.flags.has('q') {
                        return Ok(0);
                    }
                }
                Err(error) => {
                    search
                        .fault(call, format!("{name}: {}", reason(&error)))
                        .await
                }
            }
        }
    }
    Ok(match (search.failed || call.code != 0, search.matched) {
        (true, _) => 2,
        (false, true) => 0,
        (false, false) => 1,
    })
}

impl Search {
    async fn fault(&mut self, call: &mut Call, text: String) {
        self.failed = true;
        if !self.flags.has('s') {
            call.fault(text).await;
        }
    }

    async fn file(&mut self, call: &mut Call, input: &mut Input, name: &str) -> Result<(), Stop> {
        let has = |letter| self.flags.has(letter);
        let (listing, missing) = (has('l'), has('L'));
        let silent = has('q') || has('c') || listing || missing;
        let shown = if name == "-" {
            "(standard input)"
        } else {
            name
        };
        let (mut number, mut offset, mut count) = (0u64, 0u64, 0u64);
        let mut held: VecDeque<(u64, u64, Vec<u8>)> = VecDeque::new();
        let (mut follow, mut last_printed) = (0, 0u64);
        let null = if has('z') {
            Some(call.whole(name).await?)
        } else {
            None
        };
        let mut records = null.as_ref().map(|all| {
            all.strip_suffix(&[0])
                .unwrap_or(all)
                .split(|byte| *byte == 0)
        });
        loop {
            let record = match &mut records {
                Some(records) => records.next().map(<[u8]>::to_vec),
                None => call.line(input, name).await,
            };
            let Some(mut line) = record else { break };
            let length = line.len() as u64;
            if line.last() == Some(&b'\n') && records.is_none() {
                line.pop();
            }
            number += 1;
            let hit = self.pattern.is_match(&line) != has('v');
            if hit {
                self.matched = true;
                count += 1;
                if has('q') || listing || missing {
                    break;
                }
                if !silent {
                    let first_shown = number - held.len() as u64;
                    if last_printed > 0
                        && first_shown > last_printed + 1
                        && (self.before > 0 || self.after > 0)
                    {
                        call.out("--\n").await?;
                    }
                    for (number, offset, line) in held.drain(..) {
                        if !has('o') {
                            self.print(call, shown, number, offset, &line, '-').await?;
                        }
                    }
                    if has('o') {
                        if !has('v') {
                            self.print_matches(call, shown, number, offset, &line)
                                .await?;
                        }
                    } else {
                        self.print(call, shown, number, offset, &line, ':').await?;
                    }
                    (follow, last_printed) = (self.after, number);
                }
                if count >= self.most && follow == 0 {
                    break;
                }
            } else if follow > 0 && !silent {
                follow -= 1;
                last_printed = number;
                if !has('o') {
                    self.print(call, shown, number, offset, &line, '-').await?;
                }
                if count >= self.most && follow == 0 {
                    break;
                }
            } else if self.before > 0 && !silent {
                held.push_back((number, offset, line));
                if held.len() > self.before {
                    held.pop_front();
                }
            }
            offset += length;
        }
        let prefix = if self.named {
            format!("{shown}:")
        } else {
            String::new()
        };
        let has = |letter| self.flags.has(letter);
        if has('q') {
            return Ok(());
        }
        if listing && count > 0 || missing && count == 0 {
            call.out(format!("{shown}\n")).await?;
        } else if has('c') && !listing && !missing {
            call.out(format!("{prefix}{count}\n")).await?;
        }
        Ok(())
    }

    fn head(&self, name: &str, number: u64, offset: u64, mark: char) -> String {
        let mut head = String::new();
        if self.named {
            head += &format!("{name}{mark}");
        }
        if self.flags.has('n') {
            head += &format!("{number}{mark}");
        }
        if self.flags.has('b') {
            head += &format!("{offset}{mark}");
        }
        head
    }

    async fn print(
        &self,
        call: &mut Call,
        name: &str,
        number: u64,
        offset: u64,
        line: &[u8],
        mark: char,
    ) -> Result<(), Stop> {
        let mut text = self.head(name, number, offset, mark).into_bytes();
        text.extend_from_slice(line);
        text.push(if self.flags.has('z') { 0 } else { b'\n' });
        call.out(text).await
    }

    async fn print_matches(
        &self,
        call: &mut Call,
        name: &str,
        number: u64,
        offset: u64,
        line: &[u8],
    ) -> Result<(), Stop> {
        let mut at = 0;
        while let Some((from, to)) = self.pattern.find_at(line, at) {
            if to > from {
                let part = line.get(from..to).unwrap_or_default();
                self.print(call, name, number, offset + from as u64, part, ':')
                    .await?;
            }
            at = if to > from { to } else { to + 1 };
            if at > line.len() {
                break;
            }
        }
        Ok(())
    }
}
