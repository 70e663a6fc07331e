//! `split`: a stream cut into files of so many lines or bytes.

use std::fs::File;
use std::io::Write;

use super::call::{Call, Ended, Stop, cannot_open};
use super::flags::{self, Usage};

const USAGE: Usage = Usage::new(
    "split [-l N] [-b N[k|m]] [-a N] [-d] [INPUT [PREFIX]]",
    "l:b:a:d",
)
.long(&[
    ("lines", 'l'),
    ("bytes", 'b'),
    ("suffix-length", 'a'),
    ("numeric-suffixes", 'd'),
]);

pub async fn split(call: &mut Call) -> Ended {
    let flags = USAGE.parse(call)?;
    let by_bytes = flags.has('b');
    let most = flags::size(
        flags
            .value(if by_bytes { 'b' } else { 'l' })
            .unwrap_or("1000"),
    )?;
    if most == 0 {
        return Err(Stop::failed("invalid number '0'"));
    }
    let length = usize::try_from(flags::size(flags.value('a').unwrap_or("2"))?)
        .unwrap_or(2)
        .clamp(1, 32);
    let name = flags.rest.first().map_or("-", String::as_str);
    let prefix = flags.rest.get(1).map_or("x", String::as_str);
    let mut input = call
        .open(name)
        .map_err(|error| Stop::failed(cannot_open(name, &error)))?;
    let (mut file, mut number, mut left): (Option<File>, u64, u64) = (None, 0, 0);
    loop {
        let bytes = match by_bytes {
            true => call.chunk(&mut input, name).await,
            false => call.line(&mut input, name).await,
        };
        let Some(bytes) = bytes else {
            return Ok(call.code);
        };
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            if file.is_none() {
                let suffix = suffix(number, length, flags.has('d'))
                    .ok_or_else(|| Stop::failed("suffixes exhausted"))?;
                let path = format!("{prefix}{suffix}");
                let created = File::create(call.path(&path));
                file = Some(created.map_err(|error| Stop::failed(cannot_open(&path, &error)))?);
                (number, left) = (number + 1, most);
            }
            let count = match by_bytes {
                true => rest.len().min(usize::try_from(left).unwrap_or(usize::MAX)),
                false => rest.len(),
            };
            let (part, more) = rest.split_at(count);
            if let Some(file) = &mut file {
                file.write_all(part).map_err(Stop::Output)?;
            }
            rest = more;
            left -= if by_bytes { count as u64 } else { 1 };
            if left == 0 {
                file = None;
            }
        }
    }
}

fn suffix(mut number: u64, length: usize, digits: bool) -> Option<String> {
    let base = if digits { 10 } else { 26 };
    let mut letters = vec![if digits { b'0' } else { b'a' }; length];
    for letter in letters.iter_mut().rev() {
        *letter += (number % base) as u8;
        number /= base;
    }
    (number == 0).then(|| String::from_utf8_lossy(&letters).into_owned())
}
