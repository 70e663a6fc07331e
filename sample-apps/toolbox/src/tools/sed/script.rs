//! A sed script: its text parsed into commands.
//!
//! Blocks are flat: a `{` knows where it ends and a branch where it goes. Errors are one sentence.

use crate::tools::pattern::{Kind, Pattern, Syntax};

/// How many commands a script may have.
const COMMANDS_MAX: usize = 100_000;

pub enum Address {
    Line(u64),
    Last,
    /// `None` is the expression that was used last.
    Matches(Option<Pattern>),
    /// `first~step`
    Every(u64, u64),
    /// The end of a range: so many lines on.
    Further(u64),
    /// The end of a range: the next line whose number is a multiple.
    Multiple(u64),
}

pub struct Command {
    pub from: Option<Address>,
    pub to: Option<Address>,
    pub negated: bool,
    pub action: Action,
}

pub enum Action {
    /// Where it ends.
    Block(usize),
    End,
    Substitute(Box<Substitution>),
    Translate(Box<[u8; 256]>),
    Append(Vec<u8>),
    Insert(Vec<u8>),
    Change(Vec<u8>),
    Branch(usize),
    BranchIf(usize),
    BranchUnless(usize),
    ReadFile(String),
    ReadLine(String),
    WriteFile(String),
    WriteFirstLine(String),
    Quit(i32, bool),
    List(Option<usize>),
    /// A command that is its letter and nothing more.
    Plain(u8),
}

pub struct Substitution {
    /// `None` is the expression that was used last.
    pub pattern: Option<Pattern>,
    pub replacement: Vec<Part>,
    pub all: bool,
    pub print: bool,
    /// The first match that is replaced, from one.
    pub number: u64,
    pub write: Option<String>,
}

pub enum Part {
    Text(Vec<u8>),
    Group(usize),
    Case(u8),
}

/// Parses a script.
pub fn parse(text: &[u8], extended: bool) -> Result<Vec<Command>, String> {
    let mut parser = Parser {
        text,
        at: 0,
        extended,
    };
    let mut commands: Vec<Command> = Vec::new();
    let mut open: Vec<usize> = Vec::new();
    let mut labels: Vec<(Vec<u8>, usize)> = Vec::new();
    let mut jumps: Vec<(usize, Vec<u8>)> = Vec::new();
    loop {
        parser.skip(b" \t\n;");
        if parser.peek().is_none() {
            break;
        }
        if commands.len() >= COMMANDS_MAX {
            return Err("the script has too many commands".into());
        }
        let from = parser.address()?;
        parser.skip(b" \t");
        let mut to = None;
        if from.is_some() && parser.peek() == Some(b',') {
            parser.at += 1;
            parser.skip(b" \t");
            to = Some(parser.end_address()?.ok_or("unexpected ','")?);
            parser.skip(b" \t");
        }
        if matches!(from, Some(Address::Line(0))) && !matches!(to, Some(Address::Matches(_))) {
            return Err("invalid usage of line address 0".into());
        }
        let mut negated = false;
        while parser.peek() == Some(b'!') {
            negated = true;
            parser.at += 1;
            parser.skip(b" \t");
        }
        let Some(letter) = parser.peek() else {
            return Err("missing command".into());
        };
        parser.at += 1;
        let index = commands.len();
        let action = match letter {
            b'#' if from.is_none() => {
                parser.rest_of_line();
                continue;
            }
            b':' if from.is_none() => {
                let label = parser.label();
                if label.is_empty() {
                    return Err("\":\" lacks a label".into());
                }
                labels.push((label, index));
                continue;
            }
            b':' => return Err(": doesn't want any addresses".into()),
            b'{' => {
                open.push(index);
                Action::Block(0)
            }
            b'}' => {
                let start = open.pop().ok_or("unexpected '}'")?;
                if let Some(Command {
                    action: Action::Block(end),
                    ..
                }) = commands.get_mut(start)
                {
                    *end = index;
                }
                parser.end()?;
                Action::End
            }
            b's' => {
                let substitution = parser.substitution()?;
                parser.end()?;
                Action::Substitute(Box::new(substitution))
            }
            b'y' => {
                let map = parser.translation()?;
                parser.end()?;
                Action::Translate(map)
            }
            b'a' => Action::Append(parser.inserted()?),
            b'i' => Action::Insert(parser.inserted()?),
            b'c' => Action::Change(parser.inserted()?),
            b'b' | b't' | b'T' => {
                jumps.push((index, parser.label()));
                match letter {
                    b'b' => Action::Branch(usize::MAX),
                    b't' => Action::BranchIf(usize::MAX),
                    _ => Action::BranchUnless(usize::MAX),
                }
            }
            b'r' => Action::ReadFile(parser.file()?),
            b'R' => Action::ReadLine(parser.file()?),
            b'w' => Action::WriteFile(parser.file()?),
            b'W' => Action::WriteFirstLine(parser.file()?),
            b'q' | b'Q' => {
                parser.skip(b" \t");
                let code = parser.number().unwrap_or(0);
                parser.end()?;
                Action::Quit((code & 255) as i32, letter == b'Q')
            }
            b'l' => {
                parser.skip(b" \t");
                let width = parser
                    .number()
                    .and_then(|width| usize::try_from(width).ok());
                parser.end()?;
                Action::List(width)
            }
            b'=' | b'd' | b'D' | b'g' | b'G' | b'h' | b'H' | b'n' | b'N' | b'p' | b'P' | b'x'
            | b'z' | b'F' => {
                parser.end()?;
                Action::Plain(letter)
            }
            other => return Err(format!("unsupported command {}", char::from(other))),
        };
        commands.push(Command {
            from,
            to,
            negated,
            action,
        });
    }
    if !open.is_empty() {
        return Err("unterminated {".into());
    }
    for (index, label) in jumps {
        // Without a label the branch goes to the end.
        let place = match label.is_empty() {
            true => commands.len(),
            false => labels
                .iter()
                .find(|(known, _)| *known == label)
                .map(|(_, place)| *place)
                .ok_or_else(|| {
                    format!(
                        "can't find label for jump to '{}'",
                        String::from_utf8_lossy(&label)
                    )
                })?,
        };
        if let Some(Action::Branch(to) | Action::BranchIf(to) | Action::BranchUnless(to)) =
            commands.get_mut(index).map(|command| &mut command.action)
        {
            *to = place;
        }
    }
    Ok(commands)
}

struct Parser<'t> {
    text: &'t [u8],
    at: usize,
    extended: bool,
}

impl Parser<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn skip(&mut self, set: &[u8]) {
        while self.peek().is_some_and(|byte| set.contains(&byte)) {
            self.at += 1;
        }
    }

    fn number(&mut self) -> Option<u64> {
        let start = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        std::str::from_utf8(self.text.get(start..self.at)?)
            .ok()?
            .parse()
            .ok()
    }

    fn rest_of_line(&mut self) -> Vec<u8> {
        let start = self.at;
        while self.peek().is_some_and(|byte| byte != b'\n') {
            self.at += 1;
        }
        self.text.get(start..self.at).unwrap_or_default().to_vec()
    }

    fn label(&mut self) -> Vec<u8> {
        self.skip(b" \t");
        let start = self.at;
        while self
            .peek()
            .is_some_and(|byte| byte != b'\n' && byte != b';' && byte != b'}')
        {
            self.at += 1;
        }
        self.text
            .get(start..self.at)
            .unwrap_or_default()
            .trim_ascii_end()
            .to_vec()
    }

    fn file(&mut self) -> Result<String, String> {
        self.skip(b" \t");
        let name = self.rest_of_line();
        match name.is_empty() {
            true => Err("missing filename in r/R/w/W commands".into()),
            false => Ok(String::from_utf8_lossy(&name).into_owned()),
        }
    }

    /// What may follow a command.
    fn end(&mut self) -> Result<(), String> {
        self.skip(b" \t");
        match self.peek() {
            None | Some(b'\n' | b';' | b'}' | b'#') => Ok(()),
            Some(_) => Err("extra characters after command".into()),
        }
    }

    fn address(&mut self) -> Result<Option<Address>, String> {
        match self.peek() {
            Some(b'$') => {
                self.at += 1;
                Ok(Some(Address::Last))
            }
            Some(b'0'..=b'9') => {
                let first = self.number().ok_or("invalid line number")?;
                if self.peek() != Some(b'~') {
                    return Ok(Some(Address::Line(first)));
                }
                self.at += 1;
                Ok(Some(Address::Every(first, self.number().unwrap_or(0))))
            }
            Some(b'/') => {
                self.at += 1;
                self.expression(b'/').map(Some)
            }
            Some(b'\\') => {
                self.at += 1;
                let delimiter = self.peek().ok_or("unexpected end of script")?;
                self.at += 1;
                self.expression(delimiter).map(Some)
            }
            _ => Ok(None),
        }
    }

    fn end_address(&mut self) -> Result<Option<Address>, String> {
        match self.peek() {
            Some(mark @ (b'+' | b'~')) => {
                self.at += 1;
                let number = self.number().ok_or("expected a number")?;
                Ok(Some(if mark == b'+' {
                    Address::Further(number)
                } else {
                    Address::Multiple(number)
                }))
            }
            _ => self.address(),
        }
    }

    fn expression(&mut self, delimiter: u8) -> Result<Address, String> {
        let text = self
            .until(delimiter, true)
            .ok_or("unterminated address regex")?;
        let (mut ignore_case, mut lines) = (false, false);
        loop {
            match self.peek() {
                Some(b'I') => ignore_case = true,
                Some(b'M') => lines = true,
                _ => break,
            }
            self.at += 1;
        }
        Ok(Address::Matches(self.compile(&text, ignore_case, lines)?))
    }

    fn compile(
        &self,
        text: &[u8],
        ignore_case: bool,
        lines: bool,
    ) -> Result<Option<Pattern>, String> {
        if text.is_empty() {
            return Ok(None);
        }
        let kind = if self.extended {
            Kind::Extended
        } else {
            Kind::Basic
        };
        let syntax = Syntax {
            kind,
            ignore_case,
            lines,
            ..Syntax::default()
        };
        let pattern = Pattern::new(text, syntax);
        pattern
            .map(Some)
            .map_err(|error| format!("bad regex '{}': {error}", String::from_utf8_lossy(text)))
    }

    /// The text to a delimiter, which is passed. In an expression a bracket may hold the delimiter, and `\n` is a line end.
    fn until(&mut self, delimiter: u8, expression: bool) -> Option<Vec<u8>> {
        let mut text = Vec::new();
        let mut bracket: Option<usize> = None;
        loop {
            let byte = self.peek()?;
            self.at += 1;
            match (byte, bracket) {
                (b'\\', _) => {
                    let next = self.peek()?;
                    match (next, expression) {
                        (next, true) if next == delimiter && bracket.is_none() => {
                            // An escaped delimiter is the character itself.
                            text.push(next);
                        }
                        (b'n', true) => text.push(b'\n'),
                        (b't', true) => text.push(b'\t'),
                        (next, false) if next == delimiter && next != b'&' => text.push(next),
                        (_, true) if bracket.is_some() => {
                            text.push(b'\\');
                            continue;
                        }
                        (next, _) => text.extend_from_slice(&[b'\\', next]),
                    }
                    self.at += 1;
                    continue;
                }
                (b'[', None) if expression => {
                    // A `]` that is first, or first behind `^`, belongs to the set.
                    let negated = usize::from(self.peek() == Some(b'^'));
                    bracket = Some(self.at + negated);
                }
                (b']', Some(first)) if self.at - 1 != first => bracket = None,
                (byte, None) if byte == delimiter => return Some(text),
                _ => {}
            }
            text.push(byte);
        }
    }

    fn substitution(&mut self) -> Result<Substitution, String> {
        let delimiter = self.peek().ok_or("unterminated s command")?;
        if delimiter == b'\n' || delimiter == b'\\' {
            return Err("bad delimiter of s command".into());
        }
        self.at += 1;
        let expression = self
            .until(delimiter, true)
            .ok_or("unterminated s command")?;
        let replacement = self
            .until(delimiter, false)
            .ok_or("unterminated s command")?;
        let (mut all, mut print, mut number, mut write) = (false, false, 1, None);
        let (mut ignore_case, mut lines) = (false, false);
        loop {
            match self.peek() {
                Some(b'g') => all = true,
                Some(b'p') => print = true,
                Some(b'i' | b'I') => ignore_case = true,
                Some(b'm' | b'M') => lines = true,
                Some(b'1'..=b'9') => {
                    number = self.number().ok_or("invalid number in s command")?;
                    continue;
                }
                Some(b'w') => {
                    self.at += 1;
                    write = Some(self.file()?);
                    break;
                }
                None | Some(b'\n' | b';' | b'}' | b'#' | b' ' | b'\t') => break,
                Some(_) => return Err("unknown option to s command".into()),
            }
            self.at += 1;
        }
        let pattern = self.compile(&expression, ignore_case, lines)?;
        let replacement = parts(&replacement);
        let groups = pattern.as_ref().map_or(9, Pattern::groups);
        for part in &replacement {
            if let Part::Group(number) = part
                && *number > groups
            {
                return Err(format!("invalid reference \\{number} on s command's RHS"));
            }
        }
        Ok(Substitution {
            pattern,
            replacement,
            all,
            print,
            number,
            write,
        })
    }

    fn translation(&mut self) -> Result<Box<[u8; 256]>, String> {
        let delimiter = self.peek().ok_or("unterminated y command")?;
        self.at += 1;
        let mut read = || -> Result<Vec<u8>, String> {
            let text = self
                .until(delimiter, false)
                .ok_or("unterminated y command")?;
            let mut out = Vec::new();
            let mut bytes = text.into_iter();
            while let Some(byte) = bytes.next() {
                out.push(match byte {
                    b'\\' => match bytes.next() {
                        Some(b'n') => b'\n',
                        Some(b't') => b'\t',
                        Some(other) => other,
                        None => b'\\',
                    },
                    byte => byte,
                });
            }
            Ok(out)
        };
        let (from, to) = (read()?, read()?);
        if from.len() != to.len() {
            return Err("strings for y command are different lengths".into());
        }
        let mut map: [u8; 256] = std::array::from_fn(|byte| byte as u8);
        for (from, to) in from.into_iter().zip(to) {
            map[usize::from(from)] = to;
        }
        Ok(Box::new(map))
    }

    /// The text of `a`, `i` and `c`: to the end of the line, further where a backslash ends it.
    fn inserted(&mut self) -> Result<Vec<u8>, String> {
        self.skip(b" \t");
        if self.peek() == Some(b'\\') {
            let start = self.at;
            self.at += 1;
            self.skip(b" \t");
            if self.peek() == Some(b'\n') {
                self.at += 1;
            } else {
                // `a\text`: what follows the backslash is kept, blanks too.
                self.at = start + 1;
            }
        }
        if self.peek().is_none() {
            return Err("expected \\ after a, c or i".into());
        }
        let mut text = Vec::new();
        while let Some(byte) = self.peek() {
            self.at += 1;
            match byte {
                b'\n' => break,
                b'\\' => match self.peek() {
                    None => break,
                    Some(b't') => {
                        text.push(b'\t');
                        self.at += 1;
                    }
                    Some(next) => {
                        text.push(next);
                        self.at += 1;
                    }
                },
                byte => text.push(byte),
            }
        }
        text.push(b'\n');
        Ok(text)
    }
}

fn parts(text: &[u8]) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut literal = Vec::new();
    let mut bytes = text.iter().copied();
    let put = |parts: &mut Vec<Part>, literal: &mut Vec<u8>, part: Part| {
        if !literal.is_empty() {
            parts.push(Part::Text(std::mem::take(literal)));
        }
        parts.push(part);
    };
    while let Some(byte) = bytes.next() {
        match byte {
            b'&' => put(&mut parts, &mut literal, Part::Group(0)),
            b'\\' => match bytes.next() {
                Some(digit @ b'0'..=b'9') => put(
                    &mut parts,
                    &mut literal,
                    Part::Group(usize::from(digit - b'0')),
                ),
                Some(letter @ (b'U' | b'L' | b'u' | b'l' | b'E')) => {
                    put(&mut parts, &mut literal, Part::Case(letter))
                }
                Some(b'n') => literal.push(b'\n'),
                Some(b't') => literal.push(b'\t'),
                Some(b'r') => literal.push(b'\r'),
                Some(b'f') => literal.push(12),
                Some(b'v') => literal.push(11),
                Some(b'a') => literal.push(7),
                Some(other) => literal.push(other),
                None => literal.push(b'\\'),
            },
            byte => literal.push(byte),
        }
    }
    if !literal.is_empty() {
        parts.push(Part::Text(literal));
    }
    parts
}
