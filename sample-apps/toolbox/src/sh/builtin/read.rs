//! `read`: a line to variables.

use std::time::Duration;

use crate::clock;
use crate::executor::{self, Either};
use crate::sh::shell::{Outcome, Shell};
use crate::sh::syntax_tree::is_name;
use crate::text;

/// A line may be this long.
const LINE_BYTES_MAX: usize = 64 << 20;

struct Request {
    raw: bool,
    delimiter: u8,
    /// No more than so many characters.
    count: Option<usize>,
}

pub async fn read(shell: &mut Shell, arguments: Vec<String>) -> Outcome {
    let mut request = Request {
        raw: false,
        delimiter: b'\n',
        count: None,
    };
    let mut timeout = None;
    let mut prompt = None;
    let mut descriptor = 0;
    let mut silent = false;
    let mut at = 1;
    'options: while let Some(letters) = arguments
        .get(at)
        .and_then(|argument| argument.strip_prefix('-'))
    {
        if letters.is_empty() {
            break;
        }
        at += 1;
        if letters == "-" {
            break;
        }
        for (place, letter) in letters.char_indices() {
            match letter {
                'r' => request.raw = true,
                's' => silent = true,
                'p' | 't' | 'n' | 'd' | 'u' => {
                    let rest = letters.get(place + 1..).unwrap_or_default();
                    let value = match rest {
                        "" => {
                            at += 1;
                            arguments.get(at - 1).cloned()
                        }
                        rest => Some(rest.to_owned()),
                    };
                    let Some(value) = value else {
                        return shell
                            .fail(&format!("option requires an argument -- {letter}"))
                            .await;
                    };
                    match letter {
                        'p' => prompt = Some(value),
                        'd' => request.delimiter = value.bytes().next().unwrap_or(0),
                        't' => match value
                            .parse::<f64>()
                            .ok()
                            .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
                        {
                            Some(time) => timeout = Some(time),
                            None => return shell.fail("invalid timeout").await,
                        },
                        'n' => match value.parse::<usize>() {
                            Ok(count) => request.count = Some(count),
                            Err(_) => return shell.fail("invalid count").await,
                        },
                        _ => match value.parse() {
                            Ok(number) => descriptor = number,
                            Err(_) => return shell.fail("invalid file descriptor").await,
                        },
                    }
                    continue 'options;
                }
                _ => return shell.fail(&format!("illegal option -{letter}")).await,
            }
        }
    }
    let names = arguments.get(at..).unwrap_or_default();
    if let Some(bad) = names.iter().find(|name| !is_name(name)) {
        let message = format!("'{bad}': bad variable name");
        return shell.refuse(&message, 1).await;
    }
    let stream = shell.descriptor(descriptor);
    let is_terminal = stream.is_terminal();
    if let Some(prompt) = prompt.filter(|_| is_terminal) {
        let stderr = shell.descriptor(2);
        // Nobody is left to tell.
        let _ = stderr.write_all(prompt.as_bytes()).await;
    }
    shell.flush().await;
    let raw_keys = is_terminal && (request.count.is_some() || silent);
    stream.set_raw(raw_keys);
    let got = {
        let line = line(&stream, &request, raw_keys);
        let timed = async {
            match timeout {
                Some(time) => match executor::either(line, clock::sleep(time)).await {
                    Either::First(line) => Some(line),
                    Either::Second(()) => None,
                },
                None => Some(line.await),
            }
        };
        shell.guard(timed).await
    };
    stream.set_raw(false);
    let Some(got) = got? else { return Ok(1) };
    let (characters, ended) = match got {
        Ok(got) => got,
        Err(error) => {
            let words = crate::sh::words(&error);
            return shell.fail(&format!("read error: {words}")).await;
        }
    };
    store(shell, names, &characters).await?;
    Ok(i32::from(!ended))
}

/// The line's bytes, with whether a backslash stood before each, and whether the line's end came.
async fn line(
    stream: &crate::stream::Stream,
    request: &Request,
    raw_keys: bool,
) -> std::io::Result<(Vec<(u8, bool)>, bool)> {
    let mut bytes: Vec<(u8, bool)> = Vec::new();
    let mut byte = [0];
    let mut escaped = false;
    loop {
        if request.count.is_some_and(|count| count <= bytes.len()) {
            return Ok((bytes, true));
        }
        if stream.read(&mut byte).await? == 0 {
            return Ok((bytes, false));
        }
        let [mut byte] = byte;
        if raw_keys && byte == b'\r' {
            byte = b'\n';
        }
        if escaped {
            escaped = false;
            if byte != b'\n' {
                bytes.push((byte, true));
            }
        } else if byte == b'\\' && !request.raw {
            escaped = true;
        } else if byte == request.delimiter {
            return Ok((bytes, true));
        } else if byte != 0 {
            bytes.push((byte, false));
        }
        if bytes.len() > LINE_BYTES_MAX {
            return Err(std::io::Error::other("line too long"));
        }
    }
}

/// Splits by `IFS`: the last variable gets the rest.
async fn store(shell: &mut Shell, names: &[String], bytes: &[(u8, bool)]) -> Outcome<()> {
    let plain: Vec<u8> = bytes.iter().map(|(byte, _)| *byte).collect();
    if names.is_empty() {
        return shell.assign("REPLY", text::from_bytes(&plain)).await;
    }
    let ifs = text::to_bytes(shell.variables.get("IFS").unwrap_or(" \t\n"));
    let separates = |place: usize| {
        bytes
            .get(place)
            .is_some_and(|(byte, escaped)| !escaped && ifs.contains(byte))
    };
    let blank = |place: usize| {
        separates(place)
            && bytes
                .get(place)
                .is_some_and(|(byte, _)| matches!(byte, b' ' | b'\t' | b'\n'))
    };
    let piece = |from: usize, to: usize| text::from_bytes(plain.get(from..to).unwrap_or_default());
    let mut at = 0;
    while blank(at) {
        at += 1;
    }
    for (place, name) in names.iter().enumerate() {
        if place + 1 == names.len() {
            let mut end = plain.len();
            while end > at && blank(end - 1) {
                end -= 1;
            }
            // One separator at the end of a single field belongs to it.
            let inner = (at..end).filter(|place| separates(*place)).count();
            if end > at && inner == 1 && separates(end - 1) && !blank(end - 1) {
                end -= 1;
                while end > at && blank(end - 1) {
                    end -= 1;
                }
            }
            return shell.assign(name, piece(at, end)).await;
        }
        let start = at;
        while at < plain.len() && !separates(at) {
            at += 1;
        }
        shell.assign(name, piece(start, at)).await?;
        while blank(at) {
            at += 1;
        }
        if separates(at) {
            at += 1;
            while blank(at) {
                at += 1;
            }
        }
    }
    Ok(())
}
