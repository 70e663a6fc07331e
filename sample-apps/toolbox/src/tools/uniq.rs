//! `uniq`: neighbouring lines that are equal, once.

use std::fs::File;

use crate::applet::Output;

use super::call::{Call, Ended, Stop, cannot_open};
use super::flags::{self, Usage};

const USAGE: Usage = Usage::new("uniq [-cdui] [-f,s,w N] [FILE [OUTFILE]]", "cduif:s:w:").long(&[
    ("count", 'c'),
    ("repeated", 'd'),
    ("unique", 'u'),
    ("ignore-case", 'i'),
    ("skip-fields", 'f'),
    ("skip-chars", 's'),
    ("check-chars", 'w'),
]);

pub async fn uniq(call: &mut Call) -> Ended {
    let flags = USAGE.parse(call)?;
    let number = |letter, default: u64| flags.value(letter).map_or(Ok(default), flags::size);
    let (fields, skip, width) = (number('f', 0)?, number('s', 0)?, number('w', u64::MAX)?);
    let name = flags.rest.first().map_or("-", String::as_str);
    let mut input = call
        .open(name)
        .map_err(|error| Stop::failed(cannot_open(name, &error)))?;
    if let Some(to) = flags.rest.get(1).filter(|to| *to != "-") {
        let file = File::create(call.path(to));
        let file = file.map_err(|error| Stop::failed(cannot_open(to, &error)))?;
        call.io.stdout = Output::file(file);
    }
    let key = |line: &[u8]| -> Vec<u8> {
        let mut rest = line.strip_suffix(b"\n").unwrap_or(line);
        for _ in 0..fields {
            let blanks = rest.iter().take_while(|byte| b" \t".contains(byte)).count();
            rest = rest.get(blanks..).unwrap_or_default();
            let field = rest
                .iter()
                .take_while(|byte| !b" \t".contains(byte))
                .count();
            rest = rest.get(field..).unwrap_or_default();
            if rest.is_empty() {
                break;
            }
        }
        let skip = usize::try_from(skip).unwrap_or(usize::MAX).min(rest.len());
        let rest = rest.get(skip..).unwrap_or_default();
        let rest = rest
            .get(..usize::try_from(width).unwrap_or(usize::MAX))
            .unwrap_or(rest);
        if flags.has('i') {
            rest.to_ascii_lowercase()
        } else {
            rest.to_vec()
        }
    };
    let mut current: Option<(Vec<u8>, Vec<u8>, u64)> = None;
    loop {
        let next = call.line(&mut input, name).await;
        let next_key = next.as_ref().map(|line| key(line));
        if let (Some((_, current_key, count)), Some(next_key)) = (&mut current, &next_key)
            && current_key == next_key
        {
            *count += 1;
            continue;
        }
        if let Some((mut line, _, count)) = current.take() {
            let hidden = flags.has('d') && count == 1 || flags.has('u') && count > 1;
            if !hidden {
                if line.last() != Some(&b'\n') {
                    line.push(b'\n');
                }
                if flags.has('c') {
                    call.out(format!("{count:7} ")).await?;
                }
                call.out(line).await?;
            }
        }
        match (next, next_key) {
            (Some(line), Some(key)) => current = Some((line, key, 1)),
            _ => return Ok(call.code),
        }
    }
}
