//! `xargs`: arguments read from standard input, given to a command in portions.

use crate::applet::{self, Input};

use super::call::{Call, Ended, Stop, reason};
use super::flags::{self, Usage};

/// The arguments of one command, unless `-s` says less.
const BATCH_BYTES: u64 = 128 << 10;

const USAGE: Usage = Usage::new(
    "xargs [-0rt] [-n N] [-s N] [-I STR] [-L N] [-E STR] [-P N] [-a FILE] [PROG ARGS]",
    "+0rtxe::E:n:s:I:i::L:l::P:a:d:",
)
.long(&[
    ("null", '0'),
    ("no-run-if-empty", 'r'),
    ("verbose", 't'),
    ("max-args", 'n'),
    ("max-chars", 's'),
    ("replace", 'i'),
    ("max-lines", 'L'),
    ("max-procs", 'P'),
    ("arg-file", 'a'),
    ("delimiter", 'd'),
]);

pub async fn xargs(call: &mut Call) -> Ended {
    let flags = USAGE.parse(call)?;
    let number = |letter: char| flags.value(letter).map(flags::size).transpose();
    let replace = flags
        .value('I')
        .map(str::to_owned)
        .or(flags.value('i').map(|text| match text {
            "" => "{}".to_owned(),
            text => text.to_owned(),
        }));
    let most = number('n')?.unwrap_or(u64::MAX);
    let most_bytes = number('s')?.unwrap_or(BATCH_BYTES).min(BATCH_BYTES);
    let most_lines = number('L')?.unwrap_or(u64::MAX);
    let end = flags
        .value('E')
        .or(flags.value('e'))
        .filter(|text| !text.is_empty());
    let command = match flags.rest.is_empty() {
        true => vec!["echo".to_owned()],
        false => flags.rest.clone(),
    };
    let mut words = Words {
        input: call
            .open(flags.value('a').unwrap_or("-"))
            .map_err(|error| {
                Stop::failed(super::call::cannot_open(
                    flags.value('a').unwrap_or("-"),
                    &error,
                ))
            })?,
        separator: match (flags.has('0'), flags.value('d')) {
            (true, _) => Some(0),
            (false, Some(text)) => super::printf::unescape_all(text.as_bytes())
                .0
                .first()
                .copied(),
            (false, None) => None,
        },
        whole_lines: replace.is_some(),
        pending: Vec::new(),
        at: 0,
        ended: false,
    };
    let fixed: u64 = command.iter().map(|word| word.len() as u64 + 1).sum();
    let (mut batch, mut bytes, mut lines): (Vec<String>, u64, u64) = (Vec::new(), fixed, 0);
    let mut ran = false;
    loop {
        let word = words.next().await?;
        let word = word.filter(|(word, _)| end.is_none_or(|end| end != word));
        let full = match &word {
            None => true,
            Some((word, _)) => {
                batch.len() as u64 >= most
                    || lines >= most_lines
                    || bytes + word.len() as u64 + 1 > most_bytes
                    || replace.is_some()
            }
        };
        if full
            && (!batch.is_empty() || word.is_none() && !ran && !flags.has('r') && replace.is_none())
        {
            let argv: Vec<String> = match &replace {
                Some(mark) => {
                    let value = batch.join(" ");
                    command
                        .iter()
                        .map(|part| part.replace(mark.as_str(), &value))
                        .collect()
                }
                None => command.iter().cloned().chain(batch.drain(..)).collect(),
            };
            batch.clear();
            (bytes, lines, ran) = (fixed, 0, true);
            run(call, argv, flags.has('t')).await?;
        }
        let Some((word, line_ended)) = word else {
            return Ok(call.code);
        };
        bytes += word.len() as u64 + 1;
        lines += u64::from(line_ended);
        batch.push(word);
    }
}

async fn run(call: &mut Call, argv: Vec<String>, traced: bool) -> Result<(), Stop> {
    if traced {
        call.say(format!("{}\n", argv.join(" "))).await;
    }
    let mut io = call.io.clone();
    // The list is xargs' own; a command that read it would take words away.
    io.stdin = Input::empty();
    match applet::run(argv, io).await {
        0 => Ok(()),
        code @ (126 | 127) => Err(Stop::Code(code)),
        255 => Err(Stop::Code(124)),
        _ => {
            call.code = 123;
            Ok(())
        }
    }
}

struct Words {
    input: Input,
    separator: Option<u8>,
    whole_lines: bool,
    pending: Vec<u8>,
    at: usize,
    ended: bool,
}

impl Words {
    async fn byte(&mut self) -> Result<Option<u8>, Stop> {
        if self.at >= self.pending.len() && !self.ended {
            let mut buf = vec![0; super::call::CHUNK_BYTES];
            let read = self.input.read(&mut buf).await;
            let read =
                read.map_err(|error| Stop::failed(format!("read error: {}", reason(&error))))?;
            buf.truncate(read);
            self.ended = read == 0;
            (self.pending, self.at) = (buf, 0);
        }
        let byte = self.pending.get(self.at).copied();
        self.at += 1;
        Ok(byte)
    }

    /// The next argument, and whether it ends a line.
    async fn next(&mut self) -> Result<Option<(String, bool)>, Stop> {
        let mut word = Vec::new();
        let mut begun = false;
        let mut quote = None;
        loop {
            let Some(byte) = self.byte().await? else {
                if let Some(quote) = quote {
                    let name = if quote == b'\'' { "single" } else { "double" };
                    return Err(Stop::failed(format!("unmatched {name} quote")));
                }
                return Ok(begun.then(|| (text(word), true)));
            };
            if word.len() as u64 > BATCH_BYTES {
                return Err(Stop::failed("argument line too long"));
            }
            match (self.separator, quote) {
                (Some(separator), _) => {
                    if byte == separator {
                        return Ok(Some((text(word), true)));
                    }
                    begun = true;
                    word.push(byte);
                }
                (None, Some(mark)) => match byte {
                    byte if byte == mark => quote = None,
                    b'\n' => {
                        let name = if mark == b'\'' { "single" } else { "double" };
                        return Err(Stop::failed(format!("unmatched {name} quote")));
                    }
                    byte => word.push(byte),
                },
                (None, None) => match byte {
                    b'\n' if begun => return Ok(Some((text(word), true))),
                    b' ' | b'\t' if begun && !self.whole_lines => {
                        return Ok(Some((text(word), false)));
                    }
                    b'\n' => {}
                    b' ' | b'\t' if !begun => {}
                    b'\'' | b'"' => (quote, begun) = (Some(byte), true),
                    b'\\' => {
                        begun = true;
                        word.extend(self.byte().await?);
                    }
                    byte => {
                        begun = true;
                        word.push(byte);
                    }
                },
            }
        }
    }
}

fn text(word: Vec<u8>) -> String {
    String::from_utf8_lossy(&word).into_owned()
}
