//! Words of an expression.
//!
//! Invariants: any text gives words and faults, in time linear in its length; strings come with their escapes resolved.

use std::iter::Peekable;
use std::str::CharIndices;

use super::{Fault, Faults};

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    Ident(String),
    /// The name of a field between backticks, which may hold what identifiers do not.
    Escaped(String),
    /// The digits, to be read with their sign: the smallest integer has no positive counterpart.
    Int(String),
    Uint(String),
    Double(String),
    String(String),
    Bytes(Vec<u8>),
    Sign(&'static str),
    End,
}

#[derive(Clone, Debug)]
pub(super) struct Word {
    pub at: usize,
    pub token: Token,
}

/// Longer ones first.
const SIGNS: &[&str] = &[
    "<=", ">=", "==", "!=", "&&", "||", "<", ">", "!", "-", "+", "*", "/", "%", "?", ":", ",", ".",
    "(", ")", "[", "]", "{", "}",
];

/// The words of a source, of which the last is its end, and what is none.
pub(super) fn words(source: &str) -> (Vec<Word>, Faults) {
    let mut lexer = Lexer {
        source,
        chars: source.char_indices().peekable(),
        faults: Faults::default(),
    };
    let mut words = Vec::new();
    loop {
        match lexer.next() {
            Ok(word) => {
                let end = word.token == Token::End;
                words.push(word);
                if end {
                    return (words, lexer.faults);
                }
            }
            // It goes on behind what was read of it.
            Err(fault) => lexer.faults.push(fault),
        }
    }
}

/// What is told of a text that is no word, with the character that shows it.
fn unrecognized(source: &str, from: usize, to: usize) -> Fault {
    let text = source.get(from..to).unwrap_or("");
    Fault::syntax(from, format!("token recognition error at: '{text}'"))
}

struct Lexer<'a> {
    source: &'a str,
    chars: Peekable<CharIndices<'a>>,
    /// Of words that are there, and of what is none.
    faults: Faults,
}

impl Lexer<'_> {
    fn at(&mut self) -> usize {
        self.chars.peek().map_or(self.source.len(), |(at, _)| *at)
    }

    fn rest(&mut self) -> &str {
        let at = self.at();
        &self.source[at..]
    }

    fn skip(&mut self, count: usize) {
        for _ in 0..count {
            self.chars.next();
        }
    }

    fn next(&mut self) -> Result<Word, Fault> {
        self.blanks();
        let at = self.at();
        let token = self.token()?;
        Ok(Word { at, token })
    }

    fn blanks(&mut self) {
        loop {
            while self.rest().starts_with([' ', '\t', '\n', '\r', '\x0c']) {
                self.skip(1);
            }
            if !self.rest().starts_with("//") {
                return;
            }
            while !matches!(self.chars.next(), None | Some((_, '\n'))) {}
        }
    }

    fn token(&mut self) -> Result<Token, Fault> {
        let at = self.at();
        let rest = &self.source[at..];
        let Some(first) = rest.chars().next() else {
            return Ok(Token::End);
        };
        let digit_follows = rest[first.len_utf8()..].starts_with(|c: char| c.is_ascii_digit());
        if first.is_ascii_digit() || first == '.' && digit_follows {
            return Ok(self.number());
        }
        if let Some((raw, bytes, prefix)) = string_prefix(rest) {
            self.skip(prefix);
            return self.quoted(raw, bytes, at);
        }
        if first == '`' {
            return self.escaped(at);
        }
        if first.is_ascii_alphabetic() || first == '_' {
            let end = rest
                .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                .unwrap_or(rest.len());
            self.skip(end);
            return Ok(match &rest[..end] {
                "in" => Token::Sign("in"),
                name => Token::Ident(name.to_owned()),
            });
        }
        match SIGNS.iter().find(|sign| rest.starts_with(**sign)) {
            Some(sign) => {
                self.skip(sign.len());
                Ok(Token::Sign(sign))
            }
            None => {
                self.skip(1);
                // Half of a sign takes what follows it along.
                if matches!(first, '&' | '|' | '=') {
                    self.skip(1);
                }
                let end = self.at();
                Err(unrecognized(self.source, at, end))
            }
        }
    }

    /// "`a-b`".
    fn escaped(&mut self, at: usize) -> Result<Token, Fault> {
        self.skip(1);
        let rest = self.rest();
        let length = rest
            .find(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, '_' | '.' | '-' | '/' | ' '))
            .unwrap_or(rest.len());
        let name = rest[..length].to_owned();
        let closed = rest[length..].starts_with('`') && length > 0;
        self.skip(length + 1);
        match closed {
            true => Ok(Token::Escaped(name)),
            false => {
                let end = self.at();
                Err(unrecognized(self.source, at, end))
            }
        }
    }

    fn number(&mut self) -> Token {
        let at = self.at();
        let rest = &self.source[at..];
        let bytes = rest.as_bytes();
        let digits = |from: usize| {
            bytes[from..]
                .iter()
                .take_while(|byte| byte.is_ascii_digit())
                .count()
        };
        if rest.starts_with("0x") {
            let hex = bytes[2..]
                .iter()
                .take_while(|byte| byte.is_ascii_hexdigit())
                .count();
            if hex > 0 {
                let text = rest[..2 + hex].to_owned();
                self.skip(2 + hex);
                return self.integer(text);
            }
        }
        let mut end = digits(0);
        let mut double = false;
        if bytes.get(end) == Some(&b'.') {
            let fraction = digits(end + 1);
            if fraction > 0 {
                end += 1 + fraction;
                double = true;
            }
        }
        if matches!(bytes.get(end), Some(b'e' | b'E')) {
            let sign = usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
            let exponent = digits((end + 1 + sign).min(bytes.len()));
            if exponent > 0 {
                end += 1 + sign + exponent;
                double = true;
            }
        }
        let text = rest[..end].to_owned();
        self.skip(end);
        match double {
            true => Token::Double(text),
            false => self.integer(text),
        }
    }

    fn integer(&mut self, text: String) -> Token {
        if self.rest().starts_with(['u', 'U']) {
            self.skip(1);
            return Token::Uint(text);
        }
        Token::Int(text)
    }

    fn quoted(&mut self, raw: bool, bytes: bool, at: usize) -> Result<Token, Fault> {
        let quote = &self.rest()[..1];
        let quote = if quote == "'" { '\'' } else { '"' };
        let tripled = String::from_iter([quote, quote, quote]);
        let long = self.rest().starts_with(&tripled);
        self.skip(if long { 3 } else { 1 });
        let mut out = Vec::new();
        loop {
            if long && self.rest().starts_with(&tripled) {
                self.skip(3);
                break;
            }
            let Some((position, c)) = self.chars.next() else {
                return Err(unrecognized(self.source, at, self.source.len()));
            };
            match c {
                c if c == quote && !long => break,
                '\n' | '\r' if !long => {
                    return Err(unrecognized(self.source, at, position + 1));
                }
                '\\' if !raw => self.escape(at, bytes, &mut out)?,
                // However a line ends, what it ends with is one newline.
                '\r' => {
                    self.chars.next_if(|(_, next)| *next == '\n');
                    out.push(b'\n');
                }
                c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        Ok(match bytes {
            true => Token::Bytes(out),
            // Escapes of strings are of characters.
            false => Token::String(String::from_utf8_lossy(&out).into_owned()),
        })
    }

    /// What an escape in a string that starts `at` stands for.
    fn escape(&mut self, at: usize, bytes: bool, out: &mut Vec<u8>) -> Result<(), Fault> {
        let c = self.escaped_char(at, |_| true)?;
        let plain = match c {
            'a' => 7,
            'b' => 8,
            'f' => 12,
            'n' => 10,
            'r' => 13,
            't' => 9,
            'v' => 11,
            '\\' | '\'' | '"' | '`' | '?' => c as u8,
            _ => 0,
        };
        if plain > 0 {
            out.push(plain);
            return Ok(());
        }
        let (radix, digits, first) = match c {
            'x' | 'X' => (16, 2, None),
            'u' => (16, 4, None),
            'U' => (16, 8, None),
            '0'..='3' => (8, 2, c.to_digit(8)),
            _ => {
                let end = self.at();
                return Err(unrecognized(self.source, at, end));
            }
        };
        let mut code = first.unwrap_or(0);
        for _ in 0..digits {
            let c = self.escaped_char(at, |c| c.is_digit(radix))?;
            code = code.wrapping_mul(radix) + c.to_digit(radix).unwrap_or(0);
        }
        let byte = u8::try_from(code).ok().filter(|_| digits == 2);
        match (bytes, byte, char::from_u32(code)) {
            (true, Some(byte), _) => out.push(byte),
            (false, _, Some(c)) => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            // A word all the same, whose value nobody can tell.
            (true, ..) => {
                let told = "unable to unescape string";
                self.faults.push(Fault::new(at, told.to_owned()));
            }
            (false, ..) => {
                let told = "invalid unicode code point";
                self.faults.push(Fault::new(at, told.to_owned()));
            }
        }
        Ok(())
    }

    /// The next character of an escape.
    fn escaped_char(&mut self, at: usize, fits: impl Fn(char) -> bool) -> Result<char, Fault> {
        match self.chars.next().map(|(_, c)| c) {
            Some(c) if fits(c) => Ok(c),
            _ => {
                let end = self.at();
                Err(unrecognized(self.source, at, end))
            }
        }
    }
}

/// Whether a string starts here: raw, bytes, and how long its prefix is.
fn string_prefix(rest: &str) -> Option<(bool, bool, usize)> {
    let (mut raw, mut bytes) = (false, false);
    for (length, c) in rest.chars().take(3).enumerate() {
        match c {
            'r' | 'R' if !raw => raw = true,
            'b' | 'B' if length == 0 => bytes = true,
            '"' | '\'' => return Some((raw, bytes, length)),
            _ => return None,
        }
    }
    None
}
