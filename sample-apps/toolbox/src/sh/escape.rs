//! Backslashes as `echo`, `printf` and `$'…'` read them.

use crate::text;

/// What a backslash begins.
enum Escape {
    Byte(u8),
    Char(char),
    /// `\c`: no more output.
    Stop,
    /// Nothing known: the backslash stands for itself.
    None,
}

/// Which escapes there are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// `echo` and `%b`: octal numbers begin with a 0, `\c` ends the output.
    Echo,
    /// The format of `printf`: octal numbers do not need a 0.
    Format,
    /// `$'…'`: quotes too.
    Ansi,
}

/// Reads the escape behind a backslash and says how much it took.
fn escape(rest: &[u8], dialect: Dialect) -> (Escape, usize) {
    let Some(first) = rest.first() else {
        return (Escape::None, 0);
    };
    let number = |from: usize, max: usize, base: u32| {
        let digits = rest.get(from..).unwrap_or_default();
        let count = digits
            .iter()
            .take(max)
            .take_while(|digit| char::from(**digit).is_digit(base))
            .count();
        let value = digits.iter().take(count).fold(0_u32, |value, digit| {
            value * base + char::from(*digit).to_digit(base).unwrap_or(0)
        });
        (value, count)
    };
    let byte = match first {
        b'a' => 0x07,
        b'b' => 0x08,
        b'e' if dialect != Dialect::Format => 0x1B,
        b'f' => 0x0C,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'v' => 0x0B,
        b'\\' => b'\\',
        b'\'' | b'"' if dialect == Dialect::Ansi => *first,
        b'"' if dialect == Dialect::Format => b'"',
        b'c' if dialect == Dialect::Echo => return (Escape::Stop, 1),
        b'x' => {
            let (value, count) = number(1, 2, 16);
            return match count {
                0 => (Escape::None, 0),
                _ => (Escape::Byte(value as u8), 1 + count),
            };
        }
        b'u' | b'U' if dialect == Dialect::Ansi => {
            let (value, count) = number(1, if *first == b'u' { 4 } else { 8 }, 16);
            return match char::from_u32(value).filter(|_| count > 0) {
                Some(character) => (Escape::Char(character), 1 + count),
                None => (Escape::None, 0),
            };
        }
        b'0' if dialect == Dialect::Echo => {
            let (value, count) = number(1, 3, 8);
            return (Escape::Byte(value as u8), 1 + count);
        }
        b'0'..=b'7' if dialect != Dialect::Echo => {
            let (value, count) = number(0, 3, 8);
            return (Escape::Byte(value as u8), count);
        }
        _ => return (Escape::None, 0),
    };
    (Escape::Byte(byte), 1)
}

/// Replaces all escapes; false where `\c` ended the text.
pub fn replace(bytes: &[u8], dialect: Dialect, into: &mut Vec<u8>) -> bool {
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        at += 1;
        if *byte != b'\\' {
            into.push(*byte);
            continue;
        }
        let (escape, taken) = escape(bytes.get(at..).unwrap_or_default(), dialect);
        at += taken;
        match escape {
            Escape::Byte(byte) => into.push(byte),
            Escape::Char(character) => {
                let mut room = [0; 4];
                into.extend_from_slice(character.encode_utf8(&mut room).as_bytes());
            }
            Escape::Stop => return false,
            Escape::None => into.push(b'\\'),
        }
    }
    true
}

/// The text of `$'…'`.
pub fn ansi(raw: &str) -> String {
    let mut bytes = Vec::new();
    replace(&text::to_bytes(raw), Dialect::Ansi, &mut bytes);
    // As in the languages where this comes from, a NUL ends the text.
    let end = bytes
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(bytes.len());
    text::from_bytes(bytes.get(..end).unwrap_or_default())
}
