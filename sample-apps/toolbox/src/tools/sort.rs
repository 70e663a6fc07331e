//! `sort`: lines in order, by all of them or by keys. It holds its input in memory, to a limit.

use std::cmp::Ordering;
use std::fs;

use super::call::{Call, Ended, HELD_BYTES_MAX, Stop, cannot_open, reason};
use super::flags::Usage;

const USAGE: Usage =
    Usage::new("sort [-nrugMcszbdfiohkt] [-o FILE] [-k START[.OFFSET][OPTS][,END[.OFFSET][OPTS]]] [-t CHAR] [FILE]...", "nrugMcCszbdfimho:k:t:VS:T:")
        .code(2)
        .long(&[
            ("numeric-sort", 'n'),
            ("general-numeric-sort", 'g'),
            ("human-numeric-sort", 'h'),
            ("month-sort", 'M'),
            ("version-sort", 'V'),
            ("reverse", 'r'),
            ("unique", 'u'),
            ("stable", 's'),
            ("check", 'c'),
            ("zero-terminated", 'z'),
            ("ignore-leading-blanks", 'b'),
            ("dictionary-order", 'd'),
            ("ignore-case", 'f'),
            ("ignore-nonprinting", 'i'),
            ("output", 'o'),
            ("key", 'k'),
            ("field-separator", 't'),
            ("merge", 'm'),
        ]);

/// How two keys are compared.
#[derive(Clone, Copy, Default)]
struct Order {
    numeric: Option<char>,
    reverse: bool,
    blanks: bool,
    dictionary: bool,
    fold: bool,
    printable: bool,
}

impl Order {
    fn add(&mut self, letter: char) -> bool {
        match letter {
            'n' | 'g' | 'h' | 'M' | 'V' => self.numeric = Some(letter),
            'r' => self.reverse = true,
            'b' => self.blanks = true,
            'd' => self.dictionary = true,
            'f' => self.fold = true,
            'i' => self.printable = true,
            _ => return false,
        }
        true
    }

    fn is_plain(&self) -> bool {
        self.numeric.is_none()
            && !(self.reverse || self.blanks || self.dictionary || self.fold || self.printable)
    }
}

/// Part of a line, in fields and characters from one; an end without a field is the line's.
struct Key {
    start: (usize, usize),
    end: Option<(usize, usize)>,
    order: Order,
}

pub async fn sort(call: &mut Call) -> Ended {
    let flags = USAGE.parse(call)?;
    let wrong = |text: String| Stop::Failed(2, text);
    let mut global = Order::default();
    flags.seen.iter().for_each(|(letter, _)| {
        global.add(*letter);
    });
    let separator = match flags.value('t') {
        None => None,
        Some("\\0") => Some(0),
        Some(text) if text.len() == 1 => text.bytes().next(),
        Some(_) => return Err(wrong("bad -t parameter".into())),
    };
    let mut keys = Vec::new();
    for text in flags.values('k') {
        let mut key = key(text).ok_or_else(|| wrong("bad field specification".into()))?;
        if key.order.is_plain() {
            key.order = global;
        }
        keys.push(key);
    }
    let compare_keys = |one: &[u8], other: &[u8]| -> Ordering {
        if keys.is_empty() {
            let order = compare(one, other, &global);
            return if global.reverse {
                order.reverse()
            } else {
                order
            };
        }
        for key in &keys {
            let part = |line| slice(line, key, separator);
            let order = compare(part(one), part(other), &key.order);
            let order = if key.order.reverse {
                order.reverse()
            } else {
                order
            };
            if order != Ordering::Equal {
                return order;
            }
        }
        Ordering::Equal
    };
    let (unique, stable) = (flags.has('u'), flags.has('s'));
    let full = |one: &[u8], other: &[u8]| {
        let order = compare_keys(one, other);
        if order != Ordering::Equal || unique || stable {
            return order;
        }
        let order = one.cmp(other);
        if global.reverse {
            order.reverse()
        } else {
            order
        }
    };
    let end = if flags.has('z') { 0 } else { b'\n' };
    let mut lines: Vec<Vec<u8>> = Vec::new();
    let mut held = 0;
    for name in flags.files() {
        let mut input = call
            .open(&name)
            .map_err(|error| wrong(cannot_open(&name, &error)))?;
        if end == 0 {
            let all = input.all(HELD_BYTES_MAX).await;
            let all = all.map_err(|error| wrong(format!("{name}: {}", reason(&error))))?;
            held += all.len();
            let all = all.strip_suffix(&[0]).unwrap_or(&all);
            lines.extend(all.split(|byte| *byte == 0).map(<[u8]>::to_vec));
        } else {
            loop {
                let line = input.line().await;
                let line = line.map_err(|error| wrong(format!("{name}: {}", reason(&error))))?;
                let Some(mut line) = line else { break };
                if line.last() == Some(&b'\n') {
                    line.pop();
                }
                held += line.len() + size_of::<Vec<u8>>();
                lines.push(line);
                if held > HELD_BYTES_MAX {
                    break;
                }
            }
        }
        if held > HELD_BYTES_MAX {
            let text = format!(
                "the input is larger than {HELD_BYTES_MAX} bytes, which must fit into memory; sort parts of it and merge them"
            );
            return Err(wrong(text));
        }
    }
    if flags.has('c') || flags.has('C') {
        for (index, pair) in lines.windows(2).enumerate() {
            let [one, other] = pair else { continue };
            let order = full(one, other);
            if order == Ordering::Greater || unique && order == Ordering::Equal {
                if flags.has('c') {
                    call.say(format!("Check line {}\n", index + 1)).await;
                }
                return Ok(1);
            }
        }
        return Ok(0);
    }
    lines.sort_by(|one, other| full(one, other));
    if unique {
        lines.dedup_by(|later, earlier| compare_keys(later, earlier) == Ordering::Equal);
    }
    if let Some(name) = flags.value('o') {
        let mut all = Vec::with_capacity(held);
        for line in lines {
            all.extend(line);
            all.push(end);
        }
        fs::write(call.path(name), all).map_err(|error| wrong(cannot_open(name, &error)))?;
        return Ok(call.code);
    }
    for mut line in lines {
        line.push(end);
        call.out(line).await?;
    }
    Ok(call.code)
}

fn key(text: &str) -> Option<Key> {
    let (start, end) = match text.split_once(',') {
        Some((start, end)) => (start, Some(end)),
        None => (text, None),
    };
    let mut order = Order::default();
    let mut place = |text: &str, default: usize| -> Option<(usize, usize)> {
        let letters = text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
        if !letters.chars().all(|letter| order.add(letter)) {
            return None;
        }
        let numbers = text.strip_suffix(letters)?;
        match numbers.split_once('.') {
            Some((field, character)) => Some((field.parse().ok()?, character.parse().ok()?)),
            None => Some((numbers.parse().ok()?, default)),
        }
    };
    let start = place(start, 1)?;
    let end = match end {
        Some(end) => Some(place(end, 0)?),
        None => None,
    };
    (start.0 > 0 && end.is_none_or(|end| end.0 > 0)).then_some(Key { start, end, order })
}

/// The part of a line that a key names.
fn slice<'l>(line: &'l [u8], key: &Key, separator: Option<u8>) -> &'l [u8] {
    let blank = |byte: u8| byte == b' ' || byte == b'\t';
    // Where a field begins and ends; without a separator the blanks before a field belong to it.
    let field = |wanted: usize| -> (usize, usize) {
        let mut at = 0;
        let mut number = 1;
        loop {
            let begin = at;
            match separator {
                Some(separator) => {
                    while line.get(at).is_some_and(|byte| *byte != separator) {
                        at += 1;
                    }
                }
                None => {
                    while line.get(at).is_some_and(|byte| blank(*byte)) {
                        at += 1;
                    }
                    while line.get(at).is_some_and(|byte| !blank(*byte)) {
                        at += 1;
                    }
                }
            }
            if number == wanted || at >= line.len() {
                return if number == wanted {
                    (begin, at)
                } else {
                    (line.len(), line.len())
                };
            }
            number += 1;
            at += usize::from(separator.is_some());
        }
    };
    let skip_blanks = |mut at: usize| {
        while key.order.blanks && line.get(at).is_some_and(|byte| blank(*byte)) {
            at += 1;
        }
        at
    };
    let from = skip_blanks(field(key.start.0).0) + key.start.1.saturating_sub(1);
    let to = match key.end {
        None => line.len(),
        Some((number, 0)) => field(number).1,
        Some((number, character)) => (skip_blanks(field(number).0) + character).min(line.len()),
    };
    line.get(from.min(line.len())..to.max(from.min(line.len())))
        .unwrap_or_default()
}

fn compare(one: &[u8], other: &[u8], order: &Order) -> Ordering {
    match order.numeric {
        Some('n') => decimal(one, other),
        Some('g') => {
            let number = |text| leading_float(text).unwrap_or(f64::NEG_INFINITY);
            number(one).total_cmp(&number(other))
        }
        Some('h') => {
            let scale = |text: &[u8]| {
                let text = text.trim_ascii_start();
                let after = text
                    .iter()
                    .find(|byte| !(byte.is_ascii_digit() || b".-".contains(byte)));
                let unit = after.and_then(|byte| {
                    b"KMGTPEZY"
                        .iter()
                        .position(|unit| unit == &byte.to_ascii_uppercase())
                });
                (
                    unit.map_or(0, |unit| unit + 1),
                    leading_float(text).unwrap_or(0.0),
                )
            };
            let (one, other) = (scale(one), scale(other));
            let (one, other) = match (one.1 < 0.0, other.1 < 0.0) {
                (true, true) => return other.0.cmp(&one.0).then(one.1.total_cmp(&other.1)),
                (true, false) => return Ordering::Less,
                (false, true) => return Ordering::Greater,
                (false, false) => (one, other),
            };
            one.0.cmp(&other.0).then(one.1.total_cmp(&other.1))
        }
        Some('M') => {
            let month = |text: &[u8]| {
                let name: Vec<u8> = text
                    .trim_ascii_start()
                    .iter()
                    .take(3)
                    .map(u8::to_ascii_lowercase)
                    .collect();
                let names: [&[u8]; 12] = [
                    b"jan", b"feb", b"mar", b"apr", b"may", b"jun", b"jul", b"aug", b"sep", b"oct",
                    b"nov", b"dec",
                ];
                names
                    .iter()
                    .position(|month| *month == name)
                    .map_or(0, |index| index + 1)
            };
            month(one).cmp(&month(other))
        }
        Some(_) => version(one, other),
        None => {
            if !(order.blanks || order.dictionary || order.fold || order.printable) {
                return one.cmp(other);
            }
            let kept = |text: &[u8]| -> Vec<u8> {
                let text = if order.blanks {
                    text.trim_ascii_start()
                } else {
                    text
                };
                let kept = text.iter().filter(|byte| {
                    (!order.dictionary || byte.is_ascii_alphanumeric() || b" \t".contains(byte))
                        && (!order.printable || (32..127).contains(*byte))
                });
                kept.map(|byte| {
                    if order.fold {
                        byte.to_ascii_uppercase()
                    } else {
                        *byte
                    }
                })
                .collect()
            };
            kept(one).cmp(&kept(other))
        }
    }
}

/// Compares decimal numbers of any length exactly.
fn decimal(one: &[u8], other: &[u8]) -> Ordering {
    fn parts(text: &[u8]) -> (bool, &[u8], &[u8]) {
        let text = text.trim_ascii_start();
        let (negative, text) = match text.strip_prefix(b"-") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let digits = |text: &[u8]| text.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (whole, rest) = text.split_at(digits(text));
        let fraction = match rest.strip_prefix(b".") {
            Some(rest) => rest.split_at(digits(rest)).0,
            None => &[],
        };
        let whole = whole
            .get(whole.iter().take_while(|byte| **byte == b'0').count()..)
            .unwrap_or_default();
        let ended = fraction
            .iter()
            .rposition(|byte| *byte != b'0')
            .map_or(0, |last| last + 1);
        let fraction = fraction.get(..ended).unwrap_or_default();
        (
            negative && !(whole.is_empty() && fraction.is_empty()),
            whole,
            fraction,
        )
    }
    let (one, other) = (parts(one), parts(other));
    let size = one
        .1
        .len()
        .cmp(&other.1.len())
        .then(one.1.cmp(other.1))
        .then(one.2.cmp(other.2));
    match (one.0, other.0) {
        (false, false) => size,
        (true, true) => size.reverse(),
        (true, false) => Ordering::Less,
        (false, true) => Ordering::Greater,
    }
}

/// The number that a text begins with.
pub fn leading_float(text: &[u8]) -> Option<f64> {
    let text = text.trim_ascii_start();
    let mut end = usize::from(matches!(text.first(), Some(b'-' | b'+')));
    let digits = |from: usize| {
        text.get(from..)
            .unwrap_or_default()
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .count()
    };
    let whole = digits(end);
    end += whole;
    let mut fraction = 0;
    if text.get(end) == Some(&b'.') {
        fraction = digits(end + 1);
        end += 1 + fraction;
    }
    if whole + fraction == 0 {
        return None;
    }
    if matches!(text.get(end), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(text.get(end + 1), Some(b'-' | b'+')));
        let exponent = digits(end + 1 + sign);
        if exponent > 0 {
            end += 1 + sign + exponent;
        }
    }
    std::str::from_utf8(text.get(..end)?).ok()?.parse().ok()
}

/// Compares runs of digits as numbers and the rest as text.
pub fn version(mut one: &[u8], mut other: &[u8]) -> Ordering {
    let whole = (one, other);
    loop {
        let text = |text: &[u8]| {
            text.iter()
                .take_while(|byte| !byte.is_ascii_digit())
                .count()
        };
        let (a, rest_a) = one.split_at(text(one));
        let (b, rest_b) = other.split_at(text(other));
        let order = a.cmp(b);
        if order != Ordering::Equal {
            return order;
        }
        let number = |text: &[u8]| text.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (a, after_a) = rest_a.split_at(number(rest_a));
        let (b, after_b) = rest_b.split_at(number(rest_b));
        let order = decimal(a, b);
        if order != Ordering::Equal || (after_a.is_empty() && after_b.is_empty()) {
            return order.then(whole.0.cmp(whole.1));
        }
        (one, other) = (after_a, after_b);
    }
}
