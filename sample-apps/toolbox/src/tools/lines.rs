//! `rev`, `tac` and `nl`: lines turned round, in reverse order, and numbered.

use super::call::{Call, Ended, HELD_BYTES_MAX, Stop};
use super::flags::{self, Usage};
use super::pattern::{Pattern, Syntax};

const REV: Usage = Usage::new("rev [FILE]...", "");

/// `rev`: characters of each line turned round; what is no UTF-8 is turned byte by byte.
pub async fn rev(call: &mut Call) -> Ended {
    let flags = REV.parse(call)?;
    for name in flags.files() {
        let Some(mut input) = call.open_or_fault(&name).await else {
            continue;
        };
        while let Some(mut line) = call.line(&mut input, &name).await {
            let ended = line.last() == Some(&b'\n');
            if ended {
                line.pop();
            }
            let mut turned: Vec<u8> = match std::str::from_utf8(&line) {
                Ok(text) => text.chars().rev().collect::<String>().into_bytes(),
                Err(_) => line.iter().rev().copied().collect(),
            };
            if ended {
                turned.push(b'\n');
            }
            call.out(turned).await?;
        }
    }
    Ok(call.code)
}

const TAC: Usage = Usage::new("tac [FILE]...", "");

/// `tac`: holds its input, to a limit.
pub async fn tac(call: &mut Call) -> Ended {
    let flags = TAC.parse(call)?;
    for name in flags.files() {
        let Some(mut input) = call.open_or_fault(&name).await else {
            continue;
        };
        let (mut lines, mut held) = (Vec::new(), 0);
        while let Some(line) = call.line(&mut input, &name).await {
            held += line.len();
            lines.push(line);
            if held > HELD_BYTES_MAX {
                let text = format!(
                    "{name}: more than {HELD_BYTES_MAX} bytes, which must fit into memory; split it first"
                );
                return Err(Stop::failed(text));
            }
        }
        for line in lines.into_iter().rev() {
            call.out(line).await?;
        }
    }
    Ok(call.code)
}

const NL: Usage = Usage::new(
    "nl [-b STYLE] [-i N] [-s STRING] [-v N] [-w N] [-n FMT] [FILE]...",
    "b:i:s:v:w:n:",
)
.long(&[
    ("body-numbering", 'b'),
    ("line-increment", 'i'),
    ("number-separator", 's'),
    ("starting-line-number", 'v'),
    ("number-width", 'w'),
    ("number-format", 'n'),
]);

/// `nl`.
pub async fn nl(call: &mut Call) -> Ended {
    let flags = NL.parse(call)?;
    let signed = |letter, default: i64| match flags.value(letter) {
        None => Ok(default),
        Some(text) => text
            .parse()
            .map_err(|_| Stop::failed(format!("invalid number '{text}'"))),
    };
    let (step, start) = (signed('i', 1)?, signed('v', 1)?);
    let width = usize::try_from(flags::size(flags.value('w').unwrap_or("6"))?)
        .unwrap_or(6)
        .min(256);
    let separator = flags.value('s').unwrap_or("\t").to_owned();
    let style = flags.value('b').unwrap_or("t");
    let pattern = match style.strip_prefix('p') {
        None => None,
        Some(text) => Some(Pattern::new(text.as_bytes(), Syntax::default()).map_err(Stop::failed)?),
    };
    let mut number = start;
    for name in flags.files() {
        let Some(mut input) = call.open_or_fault(&name).await else {
            continue;
        };
        while let Some(line) = call.line(&mut input, &name).await {
            let text = line.strip_suffix(b"\n").unwrap_or(&line);
            let numbered = match (&pattern, style) {
                (Some(pattern), _) => pattern.is_match(text),
                (None, "a") => true,
                (None, "n") => false,
                (None, _) => !text.is_empty(),
            };
            let head = match (numbered, flags.value('n')) {
                (false, _) => " ".repeat(width + separator.len()),
                (true, Some("ln")) => format!("{number:<width$}{separator}"),
                (true, Some("rz")) => format!("{number:0width$}{separator}"),
                (true, _) => format!("{number:width$}{separator}"),
            };
            number += if numbered { step } else { 0 };
            call.out(head).await?;
            call.out(text).await?;
            call.out("\n").await?;
        }
    }
    Ok(call.code)
}
