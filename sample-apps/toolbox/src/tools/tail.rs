//! `tail`: the last lines or bytes, or those from a place on; with `-f` what is added afterwards, until it is stopped.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::time::Duration;

use crate::applet::Input;
use crate::clock;

use super::call::{CHUNK_BYTES, Call, Ended, HELD_BYTES_MAX, Stop, cannot_open, reason};
use super::flags::{self, Usage};
use super::head::{spread, too_much};

const USAGE: Usage = Usage::new("tail [OPTIONS] [FILE]...", "n:c:fFs:qv").long(&[
    ("lines", 'n'),
    ("bytes", 'c'),
    ("follow", 'f'),
    ("retry", 'F'),
    ("sleep-interval", 's'),
    ("quiet", 'q'),
    ("silent", 'q'),
    ("verbose", 'v'),
]);

/// One file that is followed.
struct Followed {
    name: String,
    file: Option<File>,
    at: u64,
}

pub async fn tail(call: &mut Call) -> Ended {
    let args: Vec<String> = spread(&call.args, old_style);
    let flags = USAGE.sort(&call.name, &args)?;
    let bytes = flags.last_of("nc") == Some('c');
    let text = flags.value(if bytes { 'c' } else { 'n' }).unwrap_or("10");
    let from_start = text.starts_with('+');
    let count = flags::size(text.trim_start_matches(['-', '+']))?;
    let follow = flags.has('f') || flags.has('F');
    let pause = match flags.value('s') {
        None => Duration::from_secs(1),
        Some(text) => super::sleep::span(text)
            .ok_or_else(|| Stop::failed(format!("invalid number '{text}'")))?,
    };
    let files = flags.files();
    let titled = (files.len() > 1 || flags.has('v')) && !flags.has('q');
    let mut followed: Vec<Followed> = Vec::new();
    let mut first = true;
    for name in &files {
        let mut input = match call.open(name) {
            Ok(input) => input,
            Err(error) => {
                call.fault(cannot_open(name, &error)).await;
                if flags.has('F') {
                    followed.push(Followed {
                        name: name.clone(),
                        file: None,
                        at: 0,
                    });
                }
                continue;
            }
        };
        if titled {
            let shown = if name == "-" { "standard input" } else { name };
            call.out(format!(
                "{}==> {shown} <==\n",
                if first { "" } else { "\n" }
            ))
            .await?;
        }
        first = false;
        // Where following goes on: what is added while this reads is read by it, so it counts what it reads.
        let mut read = 0u64;
        if from_start {
            print_from(call, &mut input, name, bytes, count, &mut read).await?;
        } else {
            print_last(call, &mut input, name, bytes, count, &mut read).await?;
        }
        if follow && name != "-" {
            let file = File::open(call.path(name)).ok();
            followed.push(Followed {
                name: name.clone(),
                file,
                at: read,
            });
        }
    }
    if first && followed.is_empty() {
        return Err(Stop::failed("no files"));
    }
    if follow && !followed.is_empty() {
        return follow_all(call, followed, pause, flags.has('F'), titled).await;
    }
    Ok(call.code)
}

async fn print_from(
    call: &mut Call,
    input: &mut Input,
    name: &str,
    bytes: bool,
    count: u64,
    read: &mut u64,
) -> Result<(), Stop> {
    let mut skip = count.saturating_sub(1);
    if !bytes {
        while skip > 0 {
            let Some(line) = call.line(input, name).await else {
                return Ok(());
            };
            *read += line.len() as u64;
            skip -= 1;
        }
    }
    while let Some(chunk) = call.chunk(input, name).await {
        *read += chunk.len() as u64;
        let from = usize::try_from(skip).unwrap_or(usize::MAX).min(chunk.len());
        skip -= from as u64;
        call.out(chunk.get(from..).unwrap_or_default()).await?;
    }
    Ok(())
}

async fn print_last(
    call: &mut Call,
    input: &mut Input,
    name: &str,
    bytes: bool,
    count: u64,
    read: &mut u64,
) -> Result<(), Stop> {
    if bytes {
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        let mut held: VecDeque<u8> = VecDeque::new();
        while let Some(chunk) = call.chunk(input, name).await {
            *read += chunk.len() as u64;
            held.extend(chunk);
            let over = held.len().saturating_sub(count);
            held.drain(..over);
            if held.len() > HELD_BYTES_MAX {
                return Err(Stop::failed(too_much(count as u64)));
            }
        }
        return call.out(held.make_contiguous()).await;
    }
    let (mut held, mut size): (VecDeque<Vec<u8>>, usize) = (VecDeque::new(), 0);
    while let Some(line) = call.line(input, name).await {
        *read += line.len() as u64;
        size += line.len();
        held.push_back(line);
        if held.len() as u64 > count
            && let Some(line) = held.pop_front()
        {
            size -= line.len();
        }
        if size > HELD_BYTES_MAX {
            return Err(Stop::failed(too_much(count)));
        }
    }
    for line in held {
        call.out(line).await?;
    }
    Ok(())
}

/// Prints what is added, for ever. A file that became shorter is read from its start; with `by_name` one that was replaced or came is
/// opened again.
async fn follow_all(
    call: &mut Call,
    mut followed: Vec<Followed>,
    pause: Duration,
    by_name: bool,
    titled: bool,
) -> Ended {
    let mut last_shown = followed.len() - 1;
    let mut buf = vec![0; CHUNK_BYTES];
    loop {
        call.io.stdout.flush().await.map_err(Stop::Output)?;
        clock::sleep(pause).await;
        for index in 0..followed.len() {
            let Some(one) = followed.get_mut(index) else {
                continue;
            };
            if by_name {
                // What a path names can have changed; one open a second is what it costs to see.
                one.file = File::open(call.path(&one.name)).ok();
            }
            let Some(file) = &mut one.file else { continue };
            let length = file.metadata().map(|about| about.len()).unwrap_or(one.at);
            if length < one.at {
                let text = format!("{}: {}: file truncated\n", call.name, one.name);
                call.say(text).await;
                one.at = 0;
            }
            if file.seek(SeekFrom::Start(one.at)).is_err() {
                continue;
            }
            loop {
                match file.read(&mut buf) {
                    Ok(0) => break,
                    Ok(read) => {
                        one.at += read as u64;
                        if titled && last_shown != index {
                            call.out(format!("\n==> {} <==\n", one.name)).await?;
                        }
                        last_shown = index;
                        call.out(buf.get(..read).unwrap_or_default()).await?;
                    }
                    Err(error) => {
                        let text = format!("{}: {}", one.name, reason(&error));
                        return Err(Stop::failed(text));
                    }
                }
            }
        }
    }
}

/// `-5` is `-n5`, `+5` is `-n+5`.
fn old_style(arg: &str) -> String {
    let digits = |text: &str| {
        let digits = text.trim_end_matches('f');
        (!digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())).then(|| {
            let follow = if digits.len() < text.len() {
                "-fn"
            } else {
                "-n"
            };
            (follow, digits.to_owned())
        })
    };
    match arg.chars().next() {
        Some('-') => match arg.get(1..).and_then(digits) {
            Some((flag, digits)) => format!("{flag}{digits}"),
            None => arg.to_owned(),
        },
        Some('+') => match arg.get(1..).and_then(digits) {
            Some((flag, digits)) => format!("{flag}+{digits}"),
            None => arg.to_owned(),
        },
        _ => arg.to_owned(),
    }
}
