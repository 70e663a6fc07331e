//! What `s` makes of a line, and how `l` shows one.

use crate::tools::pattern::Pattern;

use super::script::{Part, Substitution};

/// The line with matches replaced; `None` if there is none to replace.
pub fn substitute(line: &[u8], pattern: &Pattern, how: &Substitution) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(line.len());
    let (mut at, mut copied, mut count, mut last_end) = (0, 0, 0u64, None);
    let mut replaced = false;
    while at <= line.len() {
        let Some(spans) = pattern.spans_at(line, at) else {
            break;
        };
        let Some((from, to)) = spans.first().copied().flatten() else {
            break;
        };
        if from == to && last_end == Some(from) {
            // Nothing is matched again where a match has just ended.
            at = to + 1;
            continue;
        }
        count += 1;
        last_end = Some(to);
        if count >= how.number {
            out.extend_from_slice(line.get(copied..from).unwrap_or_default());
            replace(line, &spans, &how.replacement, &mut out);
            copied = to;
            replaced = true;
            if !how.all {
                break;
            }
        }
        at = if to > from { to } else { to + 1 };
    }
    out.extend_from_slice(line.get(copied..).unwrap_or_default());
    replaced.then_some(out)
}

fn replace(line: &[u8], spans: &[Option<(usize, usize)>], parts: &[Part], out: &mut Vec<u8>) {
    let (mut case, mut once) = (b'E', None);
    for part in parts {
        let text: &[u8] = match part {
            Part::Text(text) => text,
            Part::Group(number) => {
                let span = spans.get(*number).copied().flatten();
                span.and_then(|(from, to)| line.get(from..to))
                    .unwrap_or_default()
            }
            Part::Case(letter @ (b'u' | b'l')) => {
                once = Some(*letter);
                continue;
            }
            Part::Case(letter) => {
                (case, once) = (*letter, None);
                continue;
            }
        };
        for byte in text {
            out.push(match once.take().unwrap_or(case) {
                b'U' | b'u' => byte.to_ascii_uppercase(),
                b'L' | b'l' => byte.to_ascii_lowercase(),
                _ => *byte,
            });
        }
    }
}

/// A line as `l` shows it, folded.
pub fn listed(line: &[u8], width: usize) -> Vec<u8> {
    let mut out = Vec::new();
    let mut column = 0;
    for byte in line {
        let text = match byte {
            b'\\' => "\\\\".to_owned(),
            7 => "\\a".into(),
            8 => "\\b".into(),
            12 => "\\f".into(),
            b'\n' => "\\n".into(),
            b'\r' => "\\r".into(),
            b'\t' => "\\t".into(),
            11 => "\\v".into(),
            32..127 => char::from(*byte).to_string(),
            byte => format!("\\{byte:03o}"),
        };
        if width > 1 && column + text.len() > width - 1 {
            out.extend_from_slice(b"\\\n");
            column = 0;
        }
        column += text.len();
        out.extend_from_slice(text.as_bytes());
    }
    out.push(b'$');
    out
}
