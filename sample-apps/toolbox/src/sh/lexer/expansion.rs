//! What a `$` or a backtick begins inside of a word.

use std::rc::Rc;

use super::{Context, Lexer, Result, SyntaxError};
use crate::sh::syntax_tree::{Operation, Parameter, Part, Word};
use crate::sh::{escape, parser};

/// How often text may turn out to be no arithmetic and be read again: nested, each time doubles the work.
const RETRIES_MAX: u32 = 256;

impl Lexer {
    /// What follows a `$`; nothing where that is just a `$`.
    pub(super) fn dollar(&mut self, context: Context) -> Result<Option<Part>> {
        self.bump();
        self.skip_joins();
        let plain = |name: String| {
            Some(Part::Parameter(Box::new(Parameter {
                name,
                operation: Operation::Plain,
            })))
        };
        match self.current() {
            Some('(') if self.ahead(1) == Some('(') => {
                if let Some(part) = self.arithmetic()? {
                    return Ok(Some(part));
                }
                self.command_substitution().map(Some)
            }
            Some('(') => self.command_substitution().map(Some),
            Some('{') => {
                self.bump();
                self.braces(context).map(Some)
            }
            Some('\'') if context == Context::Bare => {
                self.bump();
                self.ansi_quotes().map(Some)
            }
            Some(character) if character == '_' || character.is_ascii_alphabetic() => {
                Ok(plain(self.name()))
            }
            Some(character) if character.is_ascii_digit() || "@*#?$!-".contains(character) => {
                self.bump();
                Ok(plain(character.into()))
            }
            _ => Ok(None),
        }
    }

    fn name(&mut self) -> String {
        let mut name = String::new();
        while let Some(character) = self
            .current()
            .filter(|character| *character == '_' || character.is_ascii_alphanumeric())
        {
            name.push(character);
            self.at += 1;
        }
        name
    }

    /// `$'…'`, which busybox and POSIX of 2024 have.
    fn ansi_quotes(&mut self) -> Result<Part> {
        let mut raw = String::new();
        loop {
            match self.bump() {
                None => return self.incomplete("unterminated quoted string"),
                Some('\'') => break,
                Some('\\') => {
                    raw.push('\\');
                    match self.bump() {
                        None => return self.incomplete("unterminated quoted string"),
                        Some(character) => raw.push(character),
                    }
                }
                Some(character) => raw.push(character),
            }
        }
        Ok(Part::Quoted(escape::ansi(&raw)))
    }

    /// `$((…))`, or nothing (and nothing taken) where that is a substitution that begins with a subshell.
    fn arithmetic(&mut self) -> Result<Option<Part>> {
        let (at, line, here) = (self.at, self.line, self.here.len());
        self.bump();
        self.bump();
        match self.word(Context::Arithmetic) {
            Ok(word) if self.current() == Some(')') && self.ahead(1) == Some(')') => {
                self.bump();
                self.bump();
                return Ok(Some(Part::Arithmetic(word)));
            }
            Ok(_) if self.ahead(1).is_none() => return self.incomplete("missing '))'"),
            Err(error @ SyntaxError::Incomplete { .. }) => return Err(error),
            Ok(_) | Err(SyntaxError::Wrong { .. }) => {}
        }
        self.retries += 1;
        if self.retries > RETRIES_MAX {
            return self.wrong("syntax error: nested too deeply");
        }
        (self.at, self.line) = (at, line);
        self.here.truncate(here);
        self.peeked = None;
        Ok(None)
    }

    fn command_substitution(&mut self) -> Result<Part> {
        self.bump();
        let outer = self.peeked.take();
        let token_at = self.token_at;
        let list = parser::substitution(self)?;
        self.peeked = outer;
        self.token_at = token_at;
        Ok(Part::Command(Rc::new(list)))
    }

    pub(super) fn backticks(&mut self, context: Context) -> Result<Part> {
        let line = self.line;
        self.bump();
        let mut inner = Vec::new();
        loop {
            match self.bump() {
                None => return self.incomplete("EOF in backquote substitution"),
                Some('`') => break,
                Some('\\') => match self.bump() {
                    None => return self.incomplete("EOF in backquote substitution"),
                    Some(next) => {
                        let in_quotes = matches!(context, Context::Double | Context::BraceDouble);
                        if !(matches!(next, '`' | '\\' | '$') || next == '"' && in_quotes) {
                            inner.push('\\');
                        }
                        inner.push(next);
                    }
                },
                Some(character) => inner.push(character),
            }
        }
        let mut lexer = Self::of_chars(inner, line, self.depth);
        lexer.retries = self.retries;
        lexer.is_last = true;
        let list = parser::whole(&mut lexer);
        self.retries = lexer.retries;
        let list = list.map_err(|error| match error {
            // More lines behind the backtick would not help.
            SyntaxError::Incomplete { message, .. } => SyntaxError::Wrong {
                line,
                message: format!("syntax error: {message}"),
            },
            wrong => wrong,
        })?;
        Ok(Part::Command(Rc::new(list)))
    }

    fn braces(&mut self, context: Context) -> Result<Part> {
        let quoted = matches!(
            context,
            Context::Double | Context::BraceDouble | Context::Here
        );
        let value = match quoted {
            true => Context::BraceDouble,
            false => Context::Brace,
        };
        self.skip_joins();
        // `${#}`, `${#-w}`, `${##}` (the length of `$#`), and `${#x}`.
        let length = self.current() == Some('#')
            && match self.ahead(1) {
                Some('}') | None => false,
                Some('-' | '?' | '#' | ':' | '+' | '=' | '%') => self.ahead(2) == Some('}'),
                Some(_) => true,
            };
        if length {
            self.bump();
        }
        let name = match self.current() {
            Some(character) if character == '_' || character.is_ascii_alphabetic() => self.name(),
            Some(character) if character.is_ascii_digit() => {
                let digits = self.digits();
                self.at += digits.len();
                digits
            }
            Some(character) if "@*#?$!-".contains(character) => {
                self.bump();
                character.into()
            }
            None => return self.incomplete("missing '}'"),
            Some(_) => return self.bad_braces(),
        };
        let operation = if length {
            Operation::Length
        } else {
            match self.operation(value)? {
                Some(operation) => operation,
                None => return self.bad_braces(),
            }
        };
        match self.current() {
            Some('}') => {
                self.bump();
                Ok(Part::Parameter(Box::new(Parameter { name, operation })))
            }
            None => self.incomplete("missing '}'"),
            Some(_) => self.bad_braces(),
        }
    }

    fn operation(&mut self, value: Context) -> Result<Option<Operation>> {
        let null = self.current() == Some(':');
        let second = if null { self.ahead(1) } else { self.current() };
        let operation = match second {
            Some(character @ ('-' | '=' | '?' | '+')) => {
                self.at += usize::from(null) + 1;
                let word = self.nested(|lexer| lexer.word(value))?;
                match character {
                    '-' => Operation::Default { null, word },
                    '=' => Operation::Assign { null, word },
                    '?' => Operation::Require { null, word },
                    _ => Operation::Alternative { null, word },
                }
            }
            Some('}') if !null => Operation::Plain,
            Some(character @ ('#' | '%')) if !null => {
                self.bump();
                let longest = self.current() == Some(character);
                if longest {
                    self.bump();
                }
                // Quotes are quotes in a pattern, also inside of double quotes.
                let pattern = self.nested(|lexer| lexer.word(Context::Brace))?;
                match character {
                    '#' => Operation::RemovePrefix { longest, pattern },
                    _ => Operation::RemoveSuffix { longest, pattern },
                }
            }
            Some('/') if !null => {
                self.bump();
                let all = self.current() == Some('/');
                if all {
                    self.bump();
                }
                let word = self.nested(|lexer| lexer.word(Context::Brace))?;
                let (pattern, with) = split(word, '/');
                Operation::Replace {
                    all,
                    pattern,
                    with: with.unwrap_or_default(),
                }
            }
            _ if null => {
                self.bump();
                let word = self.nested(|lexer| lexer.word(Context::Brace))?;
                let (offset, length) = split(word, ':');
                Operation::Slice { offset, length }
            }
            None => return self.incomplete("missing '}'"),
            Some(_) => return Ok(None),
        };
        Ok(Some(operation))
    }

    /// Takes all up to the brace; the error comes when it is expanded.
    fn bad_braces(&mut self) -> Result<Part> {
        let mut open = 1;
        while open > 0 {
            match self.bump() {
                None => return self.incomplete("missing '}'"),
                Some('{') => open += 1,
                Some('}') => open -= 1,
                Some(_) => {}
            }
        }
        Ok(Part::Parameter(Box::new(Parameter {
            name: String::new(),
            operation: Operation::Bad,
        })))
    }
}

/// Cuts a word at the first unquoted separator.
fn split(word: Word, separator: char) -> (Word, Option<Word>) {
    let mut before = Vec::new();
    let mut parts = word.0.into_iter();
    while let Some(part) = parts.next() {
        match part {
            Part::Text(text) => match text.split_once(separator) {
                Some((left, right)) => {
                    before.push(Part::Text(left.to_owned()));
                    let mut after = vec![Part::Text(right.to_owned())];
                    after.extend(parts);
                    return (Word(before), Some(Word(after)));
                }
                None => before.push(Part::Text(text)),
            },
            part => before.push(part),
        }
    }
    (Word(before), None)
}
