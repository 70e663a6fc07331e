//! The text of an awk program as tokens. Whether a slash begins an expression or divides is told by the token before it.

#[derive(Clone, Debug, PartialEq)]
pub enum Token {
    Number(f64),
    Text(Vec<u8>),
    Regex(Vec<u8>),
    /// A name that is not followed by a parenthesis.
    Name(String),
    /// A name with its parenthesis right behind it.
    Call(String),
    Builtin(&'static str),
    Word(&'static str),
    Sign(&'static str),
    Newline,
    End,
}

const WORDS: [&str; 19] = [
    "BEGIN", "END", "function", "func", "if", "else", "while", "for", "do", "break", "continue",
    "next", "nextfile", "exit", "return", "delete", "in", "getline", "print",
];

pub const BUILTINS: [&str; 32] = [
    "length", "substr", "index", "split", "sub", "gsub", "gensub", "match", "sprintf", "sin",
    "cos", "atan2", "exp", "log", "sqrt", "int", "rand", "srand", "tolower", "toupper", "system",
    "close", "fflush", "systime", "strftime", "mktime", "and", "or", "xor", "compl", "lshift",
    "rshift",
];

/// The longest first.
const SIGNS: [&str; 44] = [
    "**=", "&&", "||", "++", "--", "+=", "-=", "*=", "/=", "%=", "^=", "**", "==", "<=", ">=",
    "!=", "!~", ">>", "{", "}", "(", ")", "[", "]", ";", ",", "+", "-", "*", "/", "%", "^", "!",
    ">", "<", "|", "?", ":", "~", "$", "=", "&", "@", "\\",
];

/// Reads all tokens, each with the line that it is on.
pub fn tokens(text: &[u8]) -> Result<Vec<(Token, u32)>, String> {
    let mut list: Vec<(Token, u32)> = Vec::new();
    let (mut at, mut line) = (0, 1u32);
    while let Some(byte) = text.get(at).copied() {
        let rest = text.get(at..).unwrap_or_default();
        match byte {
            b' ' | b'\t' | b'\r' => at += 1,
            b'\n' => {
                list.push((Token::Newline, line));
                line += 1;
                at += 1;
            }
            b'\\' if rest.starts_with(b"\\\n") || rest.starts_with(b"\\\r\n") => {
                line += 1;
                at += rest.iter().position(|byte| *byte == b'\n').unwrap_or(0) + 1;
            }
            b'#' => {
                at += rest
                    .iter()
                    .position(|byte| *byte == b'\n')
                    .unwrap_or(rest.len())
            }
            b'"' => {
                let (value, used) =
                    string(rest).ok_or_else(|| error(line, "unterminated string"))?;
                list.push((Token::Text(value), line));
                at += used;
            }
            b'/' if !divides(list.last().map(|(token, _)| token)) => {
                let (value, used) = regex(rest).ok_or_else(|| error(line, "unterminated regex"))?;
                list.push((Token::Regex(value), line));
                at += used;
            }
            b'0'..=b'9' | b'.' if byte != b'.' || rest.get(1).is_some_and(u8::is_ascii_digit) => {
                let (value, used) = number(rest);
                list.push((Token::Number(value), line));
                at += used;
            }
            byte if byte.is_ascii_alphabetic() || byte == b'_' => {
                let length = rest
                    .iter()
                    .take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'_')
                    .count();
                let name =
                    String::from_utf8_lossy(rest.get(..length).unwrap_or_default()).into_owned();
                at += length;
                let word = WORDS
                    .iter()
                    .chain(["printf"].iter())
                    .find(|word| **word == name);
                let builtin = BUILTINS.iter().find(|builtin| **builtin == name);
                list.push((
                    match (word, builtin) {
                        (Some(word), _) => Token::Word(word),
                        (None, Some(builtin)) => Token::Builtin(builtin),
                        _ if text.get(at) == Some(&b'(') => Token::Call(name),
                        _ => Token::Name(name),
                    },
                    line,
                ));
            }
            _ => {
                let sign = SIGNS.iter().find(|sign| rest.starts_with(sign.as_bytes()));
                let sign = sign.ok_or_else(|| {
                    error(
                        line,
                        &format!("unexpected character '{}'", char::from(byte)),
                    )
                })?;
                at += sign.len();
                let sign = match *sign {
                    "**" => "^",
                    "**=" => "^=",
                    sign => sign,
                };
                list.push((Token::Sign(sign), line));
            }
        }
    }
    list.push((Token::Newline, line));
    list.push((Token::End, line));
    Ok(list)
}

pub fn error(line: u32, text: &str) -> String {
    format!("cmd. line:{line}: {text}")
}

fn divides(before: Option<&Token>) -> bool {
    match before {
        Some(
            Token::Number(_)
            | Token::Text(_)
            | Token::Name(_)
            | Token::Regex(_)
            | Token::Builtin(_),
        ) => true,
        Some(Token::Sign(sign)) => matches!(*sign, ")" | "]" | "$" | "++" | "--"),
        _ => false,
    }
}

fn number(text: &[u8]) -> (f64, usize) {
    if text.starts_with(b"0x") || text.starts_with(b"0X") {
        let digits = text
            .iter()
            .skip(2)
            .take_while(|byte| byte.is_ascii_hexdigit())
            .count();
        if digits > 0 {
            let value = text.iter().skip(2).take(digits).fold(0.0, |value, byte| {
                value * 16.0 + f64::from(char::from(*byte).to_digit(16).unwrap_or(0))
            });
            return (value, digits + 2);
        }
    }
    let mut end = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if text.get(end) == Some(&b'.') {
        end += 1;
        end += text
            .iter()
            .skip(end)
            .take_while(|byte| byte.is_ascii_digit())
            .count();
    }
    if matches!(text.get(end), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(text.get(end + 1), Some(b'+' | b'-')));
        let digits = text
            .iter()
            .skip(end + 1 + sign)
            .take_while(|byte| byte.is_ascii_digit())
            .count();
        if digits > 0 {
            end += 1 + sign + digits;
        }
    }
    let written = std::str::from_utf8(text.get(..end).unwrap_or_default()).unwrap_or_default();
    (written.parse().unwrap_or(0.0), end.max(1))
}

/// A string that begins with its quote, and the length of its writing.
fn string(text: &[u8]) -> Option<(Vec<u8>, usize)> {
    let mut at = 1;
    let start = at;
    while *text.get(at)? != b'"' {
        if *text.get(at)? == b'\n' {
            return None;
        }
        at += if *text.get(at)? == b'\\' { 2 } else { 1 };
    }
    Some((unescape(text.get(start..at)?), at + 1))
}

/// A string with its escapes read. An escape that is none keeps its backslash, as expressions in strings need.
pub fn unescape(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        if *byte != b'\\' {
            out.push(*byte);
            at += 1;
            continue;
        }
        match text.get(at + 1) {
            Some(b'/') => {
                out.push(b'/');
                at += 2;
            }
            Some(b'\n') => at += 2,
            Some(b'c' | b'e') => {
                out.extend_from_slice(text.get(at..at + 2).unwrap_or_default());
                at += 2;
            }
            _ => {
                let rest = text.get(at..).unwrap_or_default();
                match crate::tools::printf::unescape(rest, false) {
                    Some((bytes, used)) => {
                        out.extend(bytes);
                        at += used;
                    }
                    None => at += 2,
                }
            }
        }
    }
    out
}

/// An expression that begins with its slash. Brackets may hold slashes.
fn regex(text: &[u8]) -> Option<(Vec<u8>, usize)> {
    let mut at = 1;
    let mut out = Vec::new();
    let mut bracket: Option<usize> = None;
    loop {
        match (*text.get(at)?, bracket) {
            (b'\n', _) => return None,
            (b'/', None) => return Some((out, at + 1)),
            (b'\\', _) => {
                let next = *text.get(at + 1)?;
                match next {
                    b'/' => out.push(b'/'),
                    // In brackets a backslash escapes here, unlike elsewhere.
                    b'n' => out.push(b'\n'),
                    b't' => out.push(b'\t'),
                    b'"' => out.push(b'"'),
                    next if bracket.is_some() => match next {
                        b']' => out.extend_from_slice(b"[.].]"),
                        b'-' => out.extend_from_slice(b"[.-.]"),
                        b'\\' => out.extend_from_slice(b"\\"),
                        next => out.push(next),
                    },
                    next => out.extend_from_slice(&[b'\\', next]),
                }
                at += 2;
                continue;
            }
            (b'[', None) => {
                let negated = usize::from(text.get(at + 1) == Some(&b'^'));
                bracket = Some(at + 1 + negated);
            }
            (b'[', Some(_)) if text.get(at + 1) == Some(&b':') => {
                let rest = text.get(at..)?;
                if let Some(length) = rest.windows(2).position(|pair| pair == b":]") {
                    out.extend_from_slice(rest.get(..length + 2)?);
                    at += length + 2;
                    continue;
                }
            }
            (b']', Some(first)) if at != first => bracket = None,
            _ => {}
        }
        out.push(*text.get(at)?);
        at += 1;
    }
}
