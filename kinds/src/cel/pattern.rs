//! Patterns in RE2's syntax, run by the `regex` crate.
//!
//! The two differ in what is written the same: Perl's classes are ASCII in RE2, inside brackets it knows neither nested classes nor
//! operators on them, and it refuses what the crate takes (`a**`, `\<`). A pattern is read here as Go reads it, told of as Go tells of
//! it, and spelled out for the crate.
//!
//! Invariants: reading is linear in the pattern, and matching in the text; a pattern that would take more than a named amount of memory
//! is refused.
//! Source: Go 1.26 `regexp/syntax/parse.go`.

use std::fmt::Write as _;

/// Memory of one compiled pattern; those of published kinds take some ten KiB.
const BYTES_MAX: usize = 1 << 20;

/// Bytes of a pattern. What is longer hardly fits into [`BYTES_MAX`] once it is compiled, and a megabyte of Unicode classes would take
/// gigabytes before that is seen.
const LENGTH_MAX: usize = 16 << 10;

/// What one repetition, or several in one another, may count up to.
const REPEAT_MAX: u64 = 1000;

/// # Errors
/// Go's sentence, for what is no pattern or too large.
pub(crate) fn compile(pattern: &str) -> Result<regex::Regex, String> {
    let told = |Fault(what, text): Fault<'_>| format!("error parsing regexp: {what}: `{text}`");
    if pattern.len() > LENGTH_MAX {
        return Err(told(Fault("expression too large", pattern)));
    }
    let translated = translated(pattern).map_err(told)?;
    regex::RegexBuilder::new(&translated)
        .size_limit(BYTES_MAX)
        .dfa_size_limit(BYTES_MAX)
        .build()
        .map_err(|error| match error {
            regex::Error::CompiledTooBig(_) => told(Fault("expression too large", pattern)),
            // What Go knows and the crate does not: a class by name, or more than 250 groups in one another.
            other => {
                let text = other.to_string();
                let last = text.lines().last().unwrap_or_default();
                format!("error parsing regexp: {}", last.trim())
            }
        })
}

/// What is wrong, and with which part of the pattern.
struct Fault<'p>(&'static str, &'p str);

/// An open group.
#[derive(Default)]
struct Group {
    /// Whether something stands before the next sign that can be repeated.
    operand: bool,
    /// How often, at most, what was read last is repeated within itself, and anything in the group.
    last: u64,
    most: u64,
}

impl Group {
    fn push(&mut self, repeated: u64) {
        self.operand = true;
        self.last = repeated;
        self.most = self.most.max(repeated);
    }
}

struct Reader<'p> {
    whole: &'p str,
    rest: &'p str,
    out: String,
    /// The innermost last; the first is the pattern itself.
    groups: Vec<Group>,
    /// What was left before a repetition that has just been read.
    repetition: Option<&'p str>,
}

fn translated(pattern: &str) -> Result<String, Fault<'_>> {
    let mut reader = Reader {
        whole: pattern,
        rest: pattern,
        out: String::with_capacity(pattern.len() * 2),
        groups: vec![Group::default()],
        repetition: None,
    };
    while !reader.rest.is_empty() {
        let before = reader.repetition.take();
        reader.step(before)?;
    }
    match reader.groups.len() {
        1 => Ok(reader.out),
        _ => Err(Fault("missing closing )", pattern)),
    }
}

impl<'p> Reader<'p> {
    fn group(&mut self) -> &mut Group {
        if self.groups.is_empty() {
            self.groups.push(Group::default());
        }
        let last = self.groups.len() - 1;
        &mut self.groups[last]
    }

    /// The part of the pattern from `start`, which is what was left then, to here.
    fn since(&self, start: &'p str) -> &'p str {
        &start[..start.len() - self.rest.len()]
    }

    fn next(&mut self) -> Option<char> {
        let c = self.rest.chars().next()?;
        self.rest = &self.rest[c.len_utf8()..];
        Some(c)
    }

    fn takes(&mut self, text: &str) -> bool {
        match self.rest.strip_prefix(text) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn atom(&mut self, text: &str) {
        self.out.push_str(text);
        self.group().push(1);
    }

    fn literal(&mut self, code: u32) {
        push_char(&mut self.out, code);
        self.group().push(1);
    }

    fn step(&mut self, before: Option<&'p str>) -> Result<(), Fault<'p>> {
        let start = self.rest;
        let Some(c) = self.next() else { return Ok(()) };
        match c {
            '(' if self.rest.starts_with('?') => self.perl_group(start)?,
            '(' => {
                self.out.push('(');
                self.groups.push(Group::default());
            }
            '|' => {
                self.out.push('|');
                self.group().operand = false;
            }
            ')' => {
                let closed = self.groups.pop().unwrap_or_default();
                if self.groups.is_empty() {
                    return Err(Fault("unexpected )", self.whole));
                }
                self.out.push(')');
                self.group().push(closed.most.max(1));
            }
            '^' | '$' | '.' => self.atom(c.encode_utf8(&mut [0; 4])),
            '[' => self.class(start)?,
            '*' | '+' | '?' => {
                let mut sign = [0; 4];
                let sign = c.encode_utf8(&mut sign);
                self.repeat(start, before, sign, None)?;
            }
            '{' => match counts(start) {
                None => self.literal('{'.into()),
                Some((least, most, after)) => {
                    self.rest = after;
                    let text = self.since(start);
                    let beyond = |count: u64| count > REPEAT_MAX;
                    if beyond(least) || most.is_some_and(|most| beyond(most) || least > most) {
                        return Err(Fault("invalid repeat count", text));
                    }
                    self.repeat(start, before, text, Some((least, most)))?;
                }
            },
            '\\' => self.escape(start)?,
            c => self.literal(c.into()),
        }
        Ok(())
    }

    /// A repetition of what stands before it, `start` being what was left in front of the sign.
    fn repeat(
        &mut self,
        start: &'p str,
        before: Option<&'p str>,
        sign: &str,
        counts: Option<(u64, Option<u64>)>,
    ) -> Result<(), Fault<'p>> {
        let lazy = self.takes("?");
        if let Some(before) = before {
            let text = self.since(before);
            return Err(Fault("invalid nested repetition operator", text));
        }
        let text = self.since(start);
        if !self.group().operand {
            return Err(Fault("missing argument to repetition operator", text));
        }
        self.out.push_str(sign);
        self.out.push_str(if lazy { "?" } else { "" });
        if let Some((least, most)) = counts {
            let inner = self.group().last.max(1);
            let repeated = match most.unwrap_or(least) {
                // Nothing of it is left.
                0 => 1,
                count => count.saturating_mul(inner),
            };
            let counted = least >= 2 || most.is_some_and(|most| most >= 2);
            if counted && repeated > REPEAT_MAX {
                return Err(Fault("invalid repeat count", text));
            }
            self.group().push(repeated);
        }
        self.repetition = Some(start);
        Ok(())
    }

    /// `(?P<name>`, `(?i)`, `(?i-s:`; the parenthesis is behind us.
    fn perl_group(&mut self, start: &'p str) -> Result<(), Fault<'p>> {
        self.takes("?");
        if self.takes("P<") || self.takes("<") {
            let Some(end) = self.rest.find('>') else {
                return Err(Fault("invalid named capture", start));
            };
            let name = &self.rest[..end];
            self.rest = &self.rest[end + 1..];
            let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
            if name.is_empty() || !name.chars().all(word) {
                return Err(Fault("invalid named capture", self.since(start)));
            }
            // Nobody asks for a group by its name, and names differ in what they may be.
            self.out.push('(');
            self.groups.push(Group::default());
            return Ok(());
        }
        let (mut on, mut off) = (String::new(), String::new());
        let (mut negative, mut seen) = (false, false);
        while let Some(c) = self.next() {
            match c {
                'i' | 'm' | 's' | 'U' => {
                    on.retain(|other| other != c);
                    off.retain(|other| other != c);
                    match negative {
                        true => off.push(c),
                        false => on.push(c),
                    }
                    seen = true;
                }
                '-' if !negative => (negative, seen) = (true, false),
                ':' | ')' if !negative || seen => {
                    if !off.is_empty() {
                        on.push('-');
                        on.push_str(&off);
                    }
                    if c == ':' {
                        self.groups.push(Group::default());
                    }
                    // No flags are no group to the crate.
                    if c == ':' || !on.is_empty() {
                        self.out.push_str("(?");
                        self.out.push_str(&on);
                        self.out.push(c);
                    }
                    return Ok(());
                }
                _ => break,
            }
        }
        let text = self.since(start);
        Err(Fault("invalid or unsupported Perl syntax", text))
    }

    /// What a backslash outside of brackets starts; it is behind us.
    fn escape(&mut self, start: &'p str) -> Result<(), Fault<'p>> {
        let plain = match self.rest.chars().next() {
            Some('A') => "\\A",
            Some('z') => "\\z",
            // Words are ASCII.
            Some('b') => "(?-u:\\b)",
            Some('B') => "\\B",
            Some('C') => {
                self.next();
                return Err(Fault("invalid escape sequence", self.since(start)));
            }
            Some('Q') => {
                let after = &self.rest[1..];
                let (text, rest) = after.split_once("\\E").unwrap_or((after, ""));
                self.rest = rest;
                for c in text.chars() {
                    self.literal(c.into());
                }
                return Ok(());
            }
            _ => "",
        };
        if !plain.is_empty() {
            self.next();
            self.atom(plain);
            return Ok(());
        }
        let mut class = String::new();
        if self.named_class(start, &mut class)? {
            self.atom(&class);
            return Ok(());
        }
        let code = self.escaped(start)?;
        self.literal(code);
        Ok(())
    }

    /// `\pL`, `\p{Greek}`, `\d` and their opposites, as they are written for the crate; the backslash is behind us.
    fn named_class(&mut self, start: &'p str, out: &mut String) -> Result<bool, Fault<'p>> {
        let Some(c) = self.rest.chars().next() else {
            return Ok(false);
        };
        match c {
            'd' | 'w' | 's' => {
                out.extend(["[", members(c), "]"]);
                self.next();
            }
            'D' | 'W' | 'S' => {
                out.extend(["[^", members(c.to_ascii_lowercase()), "]"]);
                self.next();
            }
            'p' | 'P' => {
                self.next();
                let name = match self.next() {
                    None => return Err(Fault("invalid character class range", start)),
                    Some('{') => {
                        let Some(end) = self.rest.find('}') else {
                            return Err(Fault("invalid character class range", start));
                        };
                        let name = &self.rest[..end];
                        self.rest = &self.rest[end + 1..];
                        name
                    }
                    Some(letter) => {
                        let seq = self.since(start);
                        &seq[seq.len() - letter.len_utf8()..]
                    }
                };
                let (name, inverse) = match name.strip_prefix('^') {
                    Some(name) => (name, true),
                    None => (name, false),
                };
                let known = !name.is_empty()
                    && name
                        .chars()
                        .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | ' '))
                    && regex_class(name);
                if !known {
                    let text = self.since(start);
                    return Err(Fault("invalid character class range", text));
                }
                let sign = if (c == 'P') == inverse { 'p' } else { 'P' };
                // Writing to a String cannot fail.
                let _ = write!(out, "\\{sign}{{{name}}}");
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// The character that an escape stands for; the backslash is behind us.
    fn escaped(&mut self, start: &'p str) -> Result<u32, Fault<'p>> {
        let Some(c) = self.next() else {
            return Err(Fault("trailing backslash at end of expression", ""));
        };
        let octal = |c: &char| ('0'..='7').contains(c);
        match c {
            'a' => return Ok(7),
            'f' => return Ok(12),
            'n' => return Ok(10),
            'r' => return Ok(13),
            't' => return Ok(9),
            'v' => return Ok(11),
            // A single digit would be a reference to a group.
            '0'..='7' if c == '0' || self.rest.starts_with(|c: char| octal(&c)) => {
                let mut code = c.to_digit(8).unwrap_or(0);
                for _ in 0..2 {
                    let Some(digit) = self.rest.chars().next().filter(octal) else {
                        break;
                    };
                    self.next();
                    code = code * 8 + digit.to_digit(8).unwrap_or(0);
                }
                return Ok(code);
            }
            'x' => {
                if let Some(code) = self.hexadecimal() {
                    return Ok(code);
                }
            }
            c if c.is_ascii() && !c.is_ascii_alphanumeric() => return Ok(c.into()),
            _ => {}
        }
        let text = self.since(start);
        Err(Fault("invalid escape sequence", text))
    }

    fn hexadecimal(&mut self) -> Option<u32> {
        let first = self.next()?;
        if first != '{' {
            let second = self.next()?;
            return Some(first.to_digit(16)? * 16 + second.to_digit(16)?);
        }
        let mut code = 0_u32;
        let mut count = 0;
        loop {
            match self.next()? {
                '}' => return (count > 0).then_some(code),
                c => {
                    code = code * 16 + c.to_digit(16)?;
                    if code > u32::from(char::MAX) {
                        return None;
                    }
                    count += 1;
                }
            }
        }
    }

    /// What brackets hold; the first is behind us.
    fn class(&mut self, start: &'p str) -> Result<(), Fault<'p>> {
        let mut out = String::from("[");
        if self.takes("^") {
            out.push('^');
        }
        let mut first = true;
        while first || !self.rest.starts_with(']') {
            first = false;
            if self.rest.starts_with("[:")
                && let Some(length) = self.rest[2..].find(":]")
            {
                let (name, after) = self.rest.split_at(length + 4);
                self.rest = after;
                let plain = name[2..name.len() - 2].trim_start_matches('^');
                if !POSIX.contains(&plain) || name.starts_with("[:^^") {
                    return Err(Fault("invalid character class range", name));
                }
                out.push_str(name);
                continue;
            }
            let part = self.rest;
            if self.takes("\\") && self.named_class(part, &mut out)? {
                continue;
            }
            self.rest = part;
            let low = self.class_char(start)?;
            let mut high = low;
            if self.rest.starts_with('-') && self.rest.len() > 1 && !self.rest.starts_with("-]") {
                self.takes("-");
                high = self.class_char(start)?;
                if high < low {
                    let text = self.since(part);
                    return Err(Fault("invalid character class range", text));
                }
            }
            push_range(&mut out, low, high);
        }
        self.takes("]");
        out.push(']');
        self.atom(&out);
        Ok(())
    }

    fn class_char(&mut self, whole: &'p str) -> Result<u32, Fault<'p>> {
        let part = self.rest;
        match self.next() {
            None => Err(Fault("missing closing ]", whole)),
            Some('\\') => self.escaped(part),
            Some(c) => Ok(c.into()),
        }
    }
}

/// Classes by name, inside brackets.
const POSIX: &[&str] = &[
    "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct",
    "space", "upper", "word", "xdigit",
];

/// Whether the crate has tables for a class.
fn regex_class(name: &str) -> bool {
    regex::Regex::new(&format!("\\p{{{name}}}")).is_ok()
}

/// `{2}`, `{2,}` and `{2,5}` at the start of a text, and what follows; anything else is no count.
fn counts(text: &str) -> Option<(u64, Option<u64>, &str)> {
    fn number(text: &str) -> Option<(u64, &str)> {
        let end = text
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(text.len());
        let (digits, rest) = text.split_at(end);
        if digits.is_empty() || digits.len() > 1 && digits.starts_with('0') {
            return None;
        }
        Some((digits.parse().unwrap_or(u64::MAX), rest))
    }
    let (least, rest) = number(text.strip_prefix('{')?)?;
    let (most, rest) = match rest.strip_prefix(',') {
        None => (Some(least), rest),
        Some(rest) if rest.starts_with('}') => (None, rest),
        Some(rest) => {
            let (most, rest) = number(rest)?;
            (Some(most), rest)
        }
    };
    Some((least, most, rest.strip_prefix('}')?))
}

/// A character as itself.
fn push_char(out: &mut String, code: u32) {
    match char::from_u32(code) {
        Some(c) if c.is_alphanumeric() || c == '_' || !c.is_ascii() && !c.is_control() => {
            out.push(c)
        }
        Some(_) => {
            // Writing to a String cannot fail.
            let _ = write!(out, "\\x{{{code:x}}}");
        }
        // Half of a pair, which no text holds.
        None => out.push_str("[^\\x{0}-\\x{10ffff}]"),
    }
}

/// Characters in brackets, without the halves of pairs, which no text holds.
fn push_range(out: &mut String, low: u32, high: u32) {
    let low = if (0xd800..0xe000).contains(&low) {
        0xe000
    } else {
        low
    };
    let high = if (0xd800..0xe000).contains(&high) {
        0xd7ff
    } else {
        high
    };
    // Writing to a String cannot fail.
    let _ = match low <= high {
        true if low == high => write!(out, "\\x{{{low:x}}}"),
        true => write!(out, "\\x{{{low:x}}}-\\x{{{high:x}}}"),
        false => write!(out, "[^\\x{{0}}-\\x{{10ffff}}]"),
    };
}

/// What RE2 has in a class of Perl's.
fn members(class: char) -> &'static str {
    match class {
        'd' => "0-9",
        'w' => "0-9A-Za-z_",
        _ => "\\t\\n\\x0c\\r ",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_take_gigabytes_is_not_read() {
        for pattern in [r"\pL".repeat(1 << 20), "a".repeat(LENGTH_MAX + 1)] {
            let told = compile(&pattern).map(drop).unwrap_err();
            assert!(told.starts_with("error parsing regexp: expression too large"));
        }
        assert!(compile(&"a".repeat(LENGTH_MAX / 4)).is_ok());
    }

    #[test]
    fn classes_are_those_of_re2() {
        for (pattern, text, matches) in [
            (r"^\d+$", "42", true),
            (r"^\d+$", "٤٢", false),
            (r"^[\d.]+$", "4.2", true),
            (r"^[\D]+$", "٤٢", true),
            (r"^\w+$", "ä", false),
            (r"^\W+$", "ä", true),
            (r"^[[]$", "[", true),
            (r"^[]a]$", "]", true),
            (r"^[^]a]$", "b", true),
            (r"^[a&&b]+$", "&a", true),
            (r"^[[:alpha:]]+$", "abc", true),
            (r"^[[:^alpha:]]+$", "abc", false),
            (r"^[a-]+$", "-a", true),
            (r"^[\]\-\\]+$", r"\-]", true),
            (r"\bä", "ä", false),
            (r"^\s$", "\u{a0}", false),
            (r"^(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?$", "*.a-b", true),
            (r"^\Qa.b\E+$", "a.bb", true),
            (r"^\x41\x{e4}\101\_$", "AäA_", true),
            (r"^(?i:Ä)(?P<1>b)$", "äb", true),
            (r"^(?i)(?)a{2,}?$", "AAA", true),
            (r"^a{,2}$", "a{,2}", true),
            (r"^(|a)\z", "a", true),
            (r"^\p{Greek}\pL\P{^L}$", "αβγ", true),
            ("^ #a\n$", " #a\n", true),
            (r"^[\x{d800}-\x{dfff}]?$", "", true),
        ] {
            let found = compile(pattern).map(|compiled| compiled.is_match(text));
            assert_eq!(found, Ok(matches), "{pattern} {text}");
        }
    }

    #[test]
    fn mistakes_are_told_as_go_tells_them() {
        for (pattern, told) in [
            (")", "unexpected ): `)`"),
            ("a(b", "missing closing ): `a(b`"),
            ("[a", "missing closing ]: `[a`"),
            ("[z-a]", "invalid character class range: `z-a`"),
            ("[[:nope:]]", "invalid character class range: `[:nope:]`"),
            (r"\p", r"invalid character class range: `\p`"),
            (r"\p{Nope}", r"invalid character class range: `\p{Nope}`"),
            ("x++", "invalid nested repetition operator: `++`"),
            ("a**?", "invalid nested repetition operator: `**?`"),
            ("*", "missing argument to repetition operator: `*`"),
            ("(|*)", "missing argument to repetition operator: `*`"),
            ("a{1001}", "invalid repeat count: `{1001}`"),
            ("a{2,1}", "invalid repeat count: `{2,1}`"),
            ("((a{100}){100}){2}", "invalid repeat count: `{100}`"),
            (r"\8", r"invalid escape sequence: `\8`"),
            (r"\1", r"invalid escape sequence: `\1`"),
            (r"a\C", r"invalid escape sequence: `\C`"),
            (r"\x{110000}", r"invalid escape sequence: `\x{110000`"),
            (r"a\", "trailing backslash at end of expression: ``"),
            ("(?<a-b>c)", "invalid named capture: `(?<a-b>`"),
            ("(?P=a)", "invalid or unsupported Perl syntax: `(?P`"),
            ("(?=a)", "invalid or unsupported Perl syntax: `(?=`"),
            ("(?i-)", "invalid or unsupported Perl syntax: `(?i-)`"),
            (
                "((a{1000}b{1000}c{1000}d{1000}e{1000})(f{1000}g{1000}h{1000}\\pL{1000}))",
                "expression too large: `((a{1000}b{1000}c{1000}d{1000}e{1000})(f{1000}g{1000}h{1000}\\pL{1000}))`",
            ),
        ] {
            let found = compile(pattern).map(|_| ());
            assert_eq!(
                found,
                Err(format!("error parsing regexp: {told}")),
                "{pattern}"
            );
        }
    }
}
