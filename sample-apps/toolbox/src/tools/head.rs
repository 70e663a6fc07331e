//! `head`: the first lines or bytes. What it does not print it leaves to the next reader of the stream.

use std::collections::VecDeque;

use super::call::{Call, Ended, HELD_BYTES_MAX, Stop, reason};
use super::flags::{self, Usage};

const USAGE: Usage = Usage::new("head [OPTIONS] [FILE]...", "n:c:qv").long(&[
    ("lines", 'n'),
    ("bytes", 'c'),
    ("quiet", 'q'),
    ("silent", 'q'),
    ("verbose", 'v'),
]);

pub async fn head(call: &mut Call) -> Ended {
    let args: Vec<String> = spread(&call.args, old_style);
    let flags = USAGE.sort(&call.name, &args)?;
    let bytes = flags.last_of("nc") == Some('c');
    let text = flags.value(if bytes { 'c' } else { 'n' }).unwrap_or("10");
    let but_last = text.starts_with('-');
    let count = flags::size(text.trim_start_matches(['-', '+']))?;
    let files = flags.files();
    let titled = (files.len() > 1 || flags.has('v')) && !flags.has('q');
    for (index, name) in files.iter().enumerate() {
        let mut input = match call.open(name) {
            Ok(input) => input,
            Err(error) => {
                call.fault(format!("{name}: {}", reason(&error))).await;
                continue;
            }
        };
        if titled {
            let shown = if name == "-" { "standard input" } else { name };
            call.out(format!(
                "{}==> {shown} <==\n",
                if index > 0 { "\n" } else { "" }
            ))
            .await?;
        }
        match (bytes, but_last) {
            (false, false) => {
                for _ in 0..count {
                    let Some(line) = call.line(&mut input, name).await else {
                        break;
                    };
                    call.out(line).await?;
                }
            }
            (true, false) => {
                let mut left = usize::try_from(count).unwrap_or(usize::MAX);
                while left > 0 {
                    let mut buf = vec![0; left.min(super::call::CHUNK_BYTES)];
                    match input.read(&mut buf).await {
                        Ok(0) => break,
                        Ok(read) => {
                            left -= read;
                            call.out(buf.get(..read).unwrap_or_default()).await?;
                        }
                        Err(error) => {
                            call.fault(format!("{name}: {}", reason(&error))).await;
                            break;
                        }
                    }
                }
            }
            (false, true) => {
                let (mut held, mut size) = (VecDeque::new(), 0);
                while let Some(line) = call.line(&mut input, name).await {
                    size += line.len();
                    held.push_back(line);
                    if held.len() as u64 > count
                        && let Some(line) = held.pop_front()
                    {
                        size -= line.len();
                        call.out(line).await?;
                    }
                    if size > HELD_BYTES_MAX {
                        return Err(Stop::failed(too_much(count)));
                    }
                }
            }
            (true, true) => {
                let mut held = VecDeque::new();
                let count = usize::try_from(count).unwrap_or(usize::MAX);
                while let Some(bytes) = call.chunk(&mut input, name).await {
                    held.extend(bytes);
                    let ready = held.len().saturating_sub(count);
                    let ready: Vec<u8> = held.drain(..ready).collect();
                    call.out(ready).await?;
                    if held.len() > HELD_BYTES_MAX {
                        return Err(Stop::failed(too_much(count as u64)));
                    }
                }
            }
        }
    }
    Ok(call.code)
}

pub fn too_much(count: u64) -> String {
    format!("the last {count} are more than {HELD_BYTES_MAX} bytes; ask for fewer")
}

/// Arguments with those of old rewritten, but not what is the value of an option.
pub fn spread(args: &[String], rewrite: fn(&str) -> String) -> Vec<String> {
    let mut before = "";
    let mut list = Vec::with_capacity(args.len());
    for arg in args {
        let value = matches!(before, "-n" | "-c" | "-s" | "--lines" | "--bytes" | "--");
        list.push(if value { arg.clone() } else { rewrite(arg) });
        before = arg;
    }
    list
}

/// `-5` is `-n5`.
fn old_style(arg: &str) -> String {
    match arg.strip_prefix('-') {
        Some(digits) if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            format!("-n{digits}")
        }
        _ => arg.to_owned(),
    }
}
