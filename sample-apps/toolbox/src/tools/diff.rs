//! `diff`: what differs between files or directories, as a unified patch. 0 if nothing, 1 if something, 2 if it cannot be told.
//!
//! The shortest script is searched for (Myers), to [`EDITS_MAX`] edits; files further apart are one change from where they begin to
//! differ to where they are equal again, which is as right and longer.

use std::collections::{BTreeMap, BTreeSet};

use super::call::{Call, Ended, HELD_BYTES_MAX, Stop, reason};
use super::filesystem;
use super::flags::{Flags, Usage};

/// The trace of the search takes twice the square of it, in words of four bytes.
const EDITS_MAX: usize = 2000;
/// How deep `-r` goes.
const DEPTH_MAX: usize = 256;
const STRIP: char = '\u{1}';

const USAGE: Usage = Usage::new(
    "diff [-abBdiNqrTstw] [-L LABEL] [-S FILE] [-U LINES] FILE1 FILE2",
    "abBdiNqrTstwuL:S:U:\u{1}",
)
.code(2)
.long(&[
    ("unified", 'u'),
    ("brief", 'q'),
    ("recursive", 'r'),
    ("new-file", 'N'),
    ("ignore-case", 'i'),
    ("ignore-space-change", 'b'),
    ("ignore-all-space", 'w'),
    ("ignore-blank-lines", 'B'),
    ("report-identical-files", 's'),
    ("text", 'a'),
    ("label", 'L'),
    ("strip-trailing-cr", STRIP),
]);

pub async fn diff(call: &mut Call) -> Ended {
    let flags = USAGE.parse(call)?;
    let [one, other] = flags.rest.as_slice() else {
        return Err(USAGE.wrong());
    };
    let directory = |call: &Call, name: &str| -> Result<bool, Stop> {
        if name == "-" {
            return Ok(false);
        }
        match filesystem::about(&call.path(name), true) {
            Ok(about) => Ok(about.is_directory()),
            Err(_) if flags.has('N') => Ok(false),
            Err(error) => Err(Stop::Failed(
                2,
                format!("can't stat '{name}': {}", reason(&error)),
            )),
        }
    };
    let inside = |directory: &str, file: &str| {
        format!(
            "{}/{}",
            directory.trim_end_matches('/'),
            file.rsplit('/').next().unwrap_or_default()
        )
    };
    let differs = match (directory(call, one)?, directory(call, other)?) {
        (false, false) => files(call, &flags, one, other).await?,
        (true, false) => files(call, &flags, &inside(one, other), other).await?,
        (false, true) => files(call, &flags, one, &inside(other, one)).await?,
        (true, true) => directories(call, &flags, one, other).await?,
    };
    Ok(call.code.max(i32::from(differs)))
}

async fn directories(call: &mut Call, flags: &Flags, one: &str, other: &str) -> Result<bool, Stop> {
    let mut differs = false;
    let mut waiting = vec![(String::new(), 0)];
    while let Some((below, depth)) = waiting.pop() {
        let at = |root: &str, name: &str| format!("{}{below}/{name}", root.trim_end_matches('/'));
        let list = |root: &str| -> BTreeSet<String> {
            filesystem::entries(&call.path(&format!("{}{below}", root.trim_end_matches('/'))))
                .unwrap_or_default()
                .into_iter()
                .collect()
        };
        let (left, right) = (list(one), list(other));
        let mut directories = Vec::new();
        for name in left.union(&right) {
            let (a, b) = (at(one, name), at(other, name));
            let only = match (left.contains(name), right.contains(name)) {
                (true, true) => None,
                (true, false) => Some(one),
                _ => Some(other),
            };
            let is_directory = |name: &str| {
                filesystem::about(&call.path(name), true).is_ok_and(|about| about.is_directory())
            };
            let (a_directory, b_directory) = (is_directory(&a), is_directory(&b));
            if let Some(root) = only.filter(|_| !flags.has('N') || a_directory || b_directory) {
                differs = true;
                call.out(format!(
                    "Only in {}{below}: {name}\n",
                    root.trim_end_matches('/')
                ))
                .await?;
                continue;
            }
            match (a_directory, b_directory) {
                (true, true) if flags.has('r') && depth < DEPTH_MAX => {
                    directories.push((format!("{below}/{name}"), depth + 1))
                }
                (true, true) => {
                    call.out(format!("Common subdirectories: {a} and {b}\n"))
                        .await?
                }
                (false, false) => differs |= files(call, flags, &a, &b).await?,
                _ => {
                    differs = true;
                    let word = |directory| {
                        if directory {
                            "directory"
                        } else {
                            "regular file"
                        }
                    };
                    let text = format!(
                        "File {a} is a {} while file {b} is a {}\n",
                        word(a_directory),
                        word(b_directory)
                    );
                    call.out(text).await?;
                }
            }
        }
        waiting.extend(directories.into_iter().rev());
    }
    Ok(differs)
}

async fn read(call: &mut Call, flags: &Flags, name: &str) -> Result<Vec<u8>, Stop> {
    match call.open(name) {
        Ok(mut input) => {
            let all = input.all(HELD_BYTES_MAX).await;
            all.map_err(|error| Stop::Failed(2, format!("{name}: {}", reason(&error))))
        }
        Err(error) if flags.has('N') && error.kind() == std::io::ErrorKind::NotFound => {
            Ok(Vec::new())
        }
        Err(error) => Err(Stop::Failed(
            2,
            format!("can't stat '{name}': {}", reason(&error)),
        )),
    }
}

async fn files(call: &mut Call, flags: &Flags, one: &str, other: &str) -> Result<bool, Stop> {
    let (left, right) = (
        read(call, flags, one).await?,
        read(call, flags, other).await?,
    );
    if left == right {
        if flags.has('s') {
            call.out(format!("Files {one} and {other} are identical\n"))
                .await?;
        }
        return Ok(false);
    }
    let binary = |bytes: &[u8]| bytes.iter().take(1024).any(|byte| *byte == 0);
    let (old, new) = (lines(&left), lines(&right));
    let binary = !flags.has('a') && (binary(&left) || binary(&right));
    let edits = if binary {
        Vec::new()
    } else {
        compare(&old, &new, flags)
    };
    if !binary && edits.is_empty() {
        return Ok(false);
    }
    if flags.has('q') || binary {
        let word = if binary && !flags.has('q') {
            "Binary files"
        } else {
            "Files"
        };
        call.out(format!("{word} {one} and {other} differ\n"))
            .await?;
        return Ok(true);
    }
    let context = match flags.value('U') {
        None => 3,
        Some(text) => text
            .parse()
            .map_err(|_| Stop::Failed(2, format!("invalid number '{text}'")))?,
    };
    let mut labels = flags.values('L');
    let (from, to) = (labels.next().unwrap_or(one), labels.next().unwrap_or(other));
    call.out(format!("--- {from}\n+++ {to}\n")).await?;
    let mut rest = edits.as_slice();
    while !rest.is_empty() {
        // Changes whose context touches are one hunk.
        let count = 1 + rest
            .windows(2)
            .take_while(|pair| match pair {
                [a, b] => b.old.0 - a.old.1 <= 2 * context,
                _ => false,
            })
            .count();
        let (hunk, more) = rest.split_at(count);
        rest = more;
        let text = unified(hunk, &old, &new, context);
        call.out(text).await?;
    }
    Ok(true)
}

/// Lines with their ends.
fn lines(bytes: &[u8]) -> Vec<&[u8]> {
    bytes.split_inclusive(|byte| *byte == b'\n').collect()
}

/// Lines of the old file that become lines of the new one; both from, to.
#[derive(Debug)]
struct Edit {
    old: (usize, usize),
    new: (usize, usize),
}

fn compare(old: &[&[u8]], new: &[&[u8]], flags: &Flags) -> Vec<Edit> {
    let key = |line: &[u8]| -> Vec<u8> {
        let mut line = line.to_vec();
        if flags.has(STRIP) && line.ends_with(b"\r\n") {
            line.truncate(line.len() - 2);
            line.push(b'\n');
        }
        if flags.has('w') {
            line.retain(|byte| !byte.is_ascii_whitespace());
        } else if flags.has('b') {
            let mut shrunk = Vec::with_capacity(line.len());
            for byte in line.trim_ascii_end() {
                let blank = byte.is_ascii_whitespace();
                if !blank {
                    shrunk.push(*byte);
                } else if shrunk.last() != Some(&b' ') {
                    shrunk.push(b' ');
                }
            }
            line = shrunk;
        }
        if flags.has('i') {
            line.to_ascii_lowercase()
        } else {
            line
        }
    };
    let mut numbers: BTreeMap<Vec<u8>, u32> = BTreeMap::new();
    let mut number = |line: &&[u8]| {
        let next = numbers.len() as u32;
        *numbers.entry(key(line)).or_insert(next)
    };
    let a: Vec<u32> = old.iter().map(&mut number).collect();
    let b: Vec<u32> = new.iter().map(&mut number).collect();
    let head = a.iter().zip(&b).take_while(|(a, b)| a == b).count();
    let (a_rest, b_rest) = (
        a.get(head..).unwrap_or_default(),
        b.get(head..).unwrap_or_default(),
    );
    let tail = a_rest
        .iter()
        .rev()
        .zip(b_rest.iter().rev())
        .take_while(|(a, b)| a == b)
        .count();
    let a_middle = a_rest.get(..a_rest.len() - tail).unwrap_or_default();
    let b_middle = b_rest.get(..b_rest.len() - tail).unwrap_or_default();
    let mut edits = shortest(a_middle, b_middle);
    for edit in &mut edits {
        edit.old = (edit.old.0 + head, edit.old.1 + head);
        edit.new = (edit.new.0 + head, edit.new.1 + head);
    }
    if flags.has('B') {
        let blank = |lines: &[&[u8]], span: (usize, usize)| {
            lines
                .get(span.0..span.1)
                .unwrap_or_default()
                .iter()
                .all(|line| line.trim_ascii().is_empty())
        };
        edits.retain(|edit| !(blank(old, edit.old) && blank(new, edit.new)));
    }
    edits
}

/// The shortest script, as Myers finds it.
fn shortest(a: &[u32], b: &[u32]) -> Vec<Edit> {
    if a.is_empty() && b.is_empty() {
        return Vec::new();
    }
    let whole = || {
        vec![Edit {
            old: (0, a.len()),
            new: (0, b.len()),
        }]
    };
    let most = (a.len() + b.len()).min(EDITS_MAX);
    let width = 2 * most + 3;
    let middle = (most + 1) as isize;
    let mut reach = vec![0isize; width];
    let mut trace: Vec<Vec<isize>> = Vec::new();
    let place = |k: isize| (middle + k) as usize;
    let get = |reach: &[isize], k: isize| reach.get(place(k)).copied().unwrap_or(-1);
    let mut found = None;
    'search: for edits in 0..=most as isize {
        // Only what this round reads is kept for the way back.
        trace.push((-edits - 1..=edits + 1).map(|k| get(&reach, k)).collect());
        for k in (-edits..=edits).step_by(2) {
            let down = k == -edits || k != edits && get(&reach, k - 1) < get(&reach, k + 1);
            let mut x = if down {
                get(&reach, k + 1)
            } else {
                get(&reach, k - 1) + 1
            };
            let mut y = x - k;
            while x >= 0
                && y >= 0
                && (x as usize) < a.len()
                && (y as usize) < b.len()
                && a.get(x as usize) == b.get(y as usize)
            {
                x += 1;
                y += 1;
            }
            if let Some(slot) = reach.get_mut(place(k)) {
                *slot = x;
            }
            if x as usize >= a.len() && y as usize >= b.len() {
                found = Some(edits);
                break 'search;
            }
        }
    }
    let Some(found) = found else { return whole() };
    // Back from the end: each step is one line taken away or put in, and the equal lines before it.
    let (mut x, mut y) = (a.len() as isize, b.len() as isize);
    let mut steps = Vec::new();
    for edits in (1..=found).rev() {
        let Some(round) = trace.get(edits as usize) else {
            return whole();
        };
        let at = |k: isize| {
            usize::try_from(k + edits + 1)
                .ok()
                .and_then(|place| round.get(place))
                .copied()
                .unwrap_or(-1)
        };
        let k = x - y;
        let down = k == -edits || k != edits && at(k - 1) < at(k + 1);
        let before = if down { k + 1 } else { k - 1 };
        let (from_x, from_y) = (at(before), at(before) - before);
        steps.push(match down {
            true => (from_x, from_x, from_y, from_y + 1),
            false => (from_x, from_x + 1, from_y, from_y),
        });
        (x, y) = (from_x, from_y);
    }
    let mut edits: Vec<Edit> = Vec::new();
    for (old_from, old_to, new_from, new_to) in steps.into_iter().rev() {
        let (old, new) = (
            (old_from as usize, old_to as usize),
            (new_from as usize, new_to as usize),
        );
        match edits.last_mut() {
            Some(last) if last.old.1 == old.0 && last.new.1 == new.0 => {
                last.old.1 = old.1;
                last.new.1 = new.1;
            }
            _ => edits.push(Edit { old, new }),
        }
    }
    edits
}

fn unified(hunk: &[Edit], old: &[&[u8]], new: &[&[u8]], context: usize) -> Vec<u8> {
    let (Some(first), Some(last)) = (hunk.first(), hunk.last()) else {
        return Vec::new();
    };
    let lead = first.old.0.min(context);
    let from = (first.old.0 - lead, first.new.0 - lead);
    let end = (last.old.1 + context).min(old.len());
    let trail = end - last.old.1;
    let to = (end, last.new.1 + trail);
    let range = |from: usize, to: usize| match to - from {
        0 => format!("{from},0"),
        1 => format!("{}", from + 1),
        count => format!("{},{count}", from + 1),
    };
    let mut out = format!("@@ -{} +{} @@\n", range(from.0, to.0), range(from.1, to.1)).into_bytes();
    let mut put = |mark: u8, lines: &[&[u8]]| {
        for line in lines {
            out.push(mark);
            out.extend_from_slice(line);
            if line.last() != Some(&b'\n') {
                out.extend_from_slice(b"\n\\ No newline at end of file\n");
            }
        }
    };
    let mut at = from.0;
    for edit in hunk {
        put(b' ', old.get(at..edit.old.0).unwrap_or_default());
        put(b'-', old.get(edit.old.0..edit.old.1).unwrap_or_default());
        put(b'+', new.get(edit.new.0..edit.new.1).unwrap_or_default());
        at = edit.old.1;
    }
    put(b' ', old.get(at..to.0).unwrap_or_default());
    out
}
