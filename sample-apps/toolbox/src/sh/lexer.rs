//! The lexer: text to tokens, with the quotes, expansions and here-documents inside of words.
//!
//! Works on text that is all there; text that ends inside of something is [`SyntaxError::Incomplete`], so that whoever
//! has more can add a line and begin anew. How deep things nest is limited, which also limits the tree.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use super::syntax_tree::{Operation, Parameter, Part, Word};

/// How deep commands and expansions may nest.
pub const DEPTH_MAX: u32 = 120;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SyntaxError {
    /// The text ends too early.
    Incomplete {
        /// What would have to come.
        message: String,
        /// Inside of a here-document: its last line, and whether leading tabs go.
        here: Option<(String, bool)>,
    },
    Wrong {
        line: u32,
        message: String,
    },
}

#[derive(Clone, Debug)]
pub enum Token {
    Word(Word),
    /// An operator, or a newline as `"\n"`.
    Operator(&'static str),
    /// Digits right before `<` or `>`.
    Descriptor(u32),
    End,
}

/// Longest first.
const OPERATORS: [&str; 21] = [
    "<<-", "<<<", "&&", "||", ";;", ";&", "<<", ">>", "<&", ">&", "<>", ">|", "&>", "&", "|", ";",
    "<", ">", "(", ")", "\n",
];

struct PendingHere {
    delimiter: String,
    /// Part of the delimiter was quoted: nothing is expanded.
    quoted: bool,
    tabs: bool,
    body: Rc<RefCell<Word>>,
}

pub struct Lexer {
    text: Vec<char>,
    at: usize,
    pub line: u32,
    peeked: Option<Token>,
    /// Where the peeked token begins.
    token_at: usize,
    depth: u32,
    here: Vec<PendingHere>,
    /// No more text can come: a here-document ends where the text does.
    is_last: bool,
    /// Aliases whose text ends there and was not passed yet.
    expanding: Vec<(String, usize)>,
}

/// Where in a word text stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Context {
    Bare,
    /// In double quotes.
    Double,
    /// The word in `${x:-word}`, outside and inside of double quotes.
    Brace,
    BraceDouble,
    /// The body of a here-document.
    Here,
    /// In `$(( ))`.
    Arithmetic,
}

type Result<T> = std::result::Result<T, SyntaxError>;

impl Lexer {
    pub fn new(text: &str, line: u32) -> Self {
        Self::of_chars(text.chars().collect(), line, 0)
    }

    /// The same where no more text can come.
    pub fn last(text: &str, line: u32) -> Self {
        Self {
            is_last: true,
            ..Self::new(text, line)
        }
    }

    fn of_chars(text: Vec<char>, line: u32, depth: u32) -> Self {
        Self {
            text,
            at: 0,
            line,
            peeked: None,
            token_at: 0,
            depth,
            here: Vec::new(),
            is_last: false,
            expanding: Vec::new(),
        }
    }

    /// Where the next token begins, for [`Lexer::text_since`].
    pub fn position(&self) -> (usize, u32) {
        let at = if self.peeked.is_some() {
            self.token_at
        } else {
            self.at
        };
        (at, self.line)
    }

    /// Text up to here, from a position on.
    pub fn text_since(&self, (at, _): (usize, u32)) -> String {
        let end = if self.peeked.is_some() {
            self.token_at
        } else {
            self.at
        };
        self.text.get(at..end).unwrap_or_default().iter().collect()
    }

    pub fn wrong<T>(&self, message: impl Into<String>) -> Result<T> {
        Err(SyntaxError::Wrong {
            line: self.line,
            message: message.into(),
        })
    }

    fn incomplete<T>(&self, message: impl Into<String>) -> Result<T> {
        Err(SyntaxError::Incomplete {
            message: message.into(),
            here: None,
        })
    }

    /// Goes one level down, if there is one.
    pub fn nested_begin(&mut self) -> Result<()> {
        if self.depth >= DEPTH_MAX {
            return self.wrong("syntax error: nested too deeply");
        }
        self.depth += 1;
        Ok(())
    }

    pub fn nested_end(&mut self) {
        self.depth = self.depth.saturating_sub(1);
    }

    fn nested<T>(&mut self, inner: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        self.nested_begin()?;
        let result = inner(self);
        self.nested_end();
        result
    }

    fn current(&self) -> Option<char> {
        self.text.get(self.at).copied()
    }

    fn ahead(&self, count: usize) -> Option<char> {
        self.text.get(self.at + count).copied()
    }

    fn bump(&mut self) -> Option<char> {
        let character = self.current()?;
        self.at += 1;
        if character == '\n' {
            self.line += 1;
        }
        Some(character)
    }

    /// Backslash and newline join lines.
    fn skip_joins(&mut self) {
        while self.current() == Some('\\') && self.ahead(1) == Some('\n') {
            self.at += 2;
            self.line += 1;
        }
    }

    pub fn peek(&mut self) -> Result<&Token> {
        if self.peeked.is_none() {
            let token = self.token()?;
            self.peeked = Some(token);
        }
        Ok(self.peeked.as_ref().unwrap_or(&Token::End))
    }

    pub fn next(&mut self) -> Result<Token> {
        self.peek()?;
        Ok(self.peeked.take().unwrap_or(Token::End))
    }

    /// Whether `(` follows at once, as after a function's name.
    pub fn follows_parenthesis(&self) -> bool {
        let blanks = |character: &&char| matches!(character, ' ' | '\t');
        let rest = self.text.get(self.at..).unwrap_or_default();
        rest.iter().find(|character| !blanks(character)) == Some(&'(')
    }

    /// Puts an alias' text in the place of the peeked word; false if the word came out of that alias.
    pub fn expand_alias(&mut self, name: &str, aliases: &BTreeMap<String, String>) -> bool {
        self.expanding.retain(|(_, end)| self.token_at < *end);
        if self
            .expanding
            .iter()
            .any(|(expanding, _)| expanding == name)
        {
            return false;
        }
        let Some(value) = aliases.get(name) else {
            return false;
        };
        let (from, to) = (self.token_at, self.at);
        let length = value.chars().count();
        self.text.splice(from..to, value.chars());
        for (_, end) in &mut self.expanding {
            *end = (*end + length + from).saturating_sub(to);
        }
        // One more: with an alias at the end of the text, the word that follows is not yet its own.
        self.expanding.push((name.to_owned(), from + length + 1));
        self.at = from;
        self.peeked = None;
        true
    }

    fn token(&mut self) -> Result<Token> {
        loop {
            self.skip_joins();
            match self.current() {
                Some(' ' | '\t' | '\r') => self.at += 1,
                Some('#') => {
                    while self.current().is_some_and(|character| character != '\n') {
                        self.at += 1;
                    }
                }
                _ => break,
            }
        }
        self.token_at = self.at;
        let Some(first) = self.current() else {
            self.read_here_documents()?;
            return Ok(Token::End);
        };
        if let Some(operator) = self.operator() {
            if operator == "\n" {
                self.read_here_documents()?;
            }
            return Ok(Token::Operator(operator));
        }
        if first.is_ascii_digit() {
            let digits = self.digits();
            if matches!(self.text.get(self.at + digits.len()), Some('<' | '>')) && digits.len() < 6
            {
                self.at += digits.len();
                return Ok(Token::Descriptor(digits.parse().unwrap_or_default()));
            }
        }
        let word = self.word(Context::Bare)?;
        Ok(Token::Word(word))
    }

    fn digits(&self) -> String {
        let rest = self.text.get(self.at..).unwrap_or_default();
        rest.iter()
            .take_while(|character| character.is_ascii_digit())
            .collect()
    }

    fn operator(&mut self) -> Option<&'static str> {
        let operator = *OPERATORS.iter().find(|operator| {
            operator
                .chars()
                .enumerate()
                .all(|(place, character)| self.ahead(place) == Some(character))
        })?;
        for _ in operator.chars() {
            self.bump();
        }
        Some(operator)
    }

    /// Promises a here-document; its body is there once the line's end was taken.
    pub fn here_document(&mut self, delimiter: &Word, tabs: bool) -> Rc<RefCell<Word>> {
        let mut quoted = false;
        let mut text = String::new();
        plain(delimiter, &mut text, &mut quoted);
        let body = Rc::default();
        self.here.push(PendingHere {
            delimiter: text,
            quoted,
            tabs,
            body: Rc::clone(&body),
        });
        body
    }

    fn here_is_missing<T>(&self, pending: &PendingHere) -> Result<T> {
        Err(SyntaxError::Incomplete {
            message: format!(
                "unterminated here-document (wanted \"{}\")",
                pending.delimiter
            ),
            here: Some((pending.delimiter.clone(), pending.tabs)),
        })
    }

    fn read_here_documents(&mut self) -> Result<()> {
        while !self.here.is_empty() {
            let pending = self.here.remove(0);
            let line = self.line;
            let mut body = String::new();
            loop {
                if self.at >= self.text.len() {
                    match self.is_last {
                        true => break,
                        false => return self.here_is_missing(&pending),
                    }
                }
                let rest = self.text.get(self.at..).unwrap_or_default();
                let end = rest.iter().position(|character| *character == '\n');
                let whole = rest.get(..end.unwrap_or(rest.len())).unwrap_or_default();
                let tabs = match pending.tabs {
                    true => whole
                        .iter()
                        .take_while(|character| **character == '\t')
                        .count(),
                    false => 0,
                };
                let text: String = whole.iter().skip(tabs).collect();
                let taken = whole.len() + usize::from(end.is_some());
                if text == pending.delimiter {
                    self.at += taken;
                    self.line += u32::from(end.is_some());
                    break;
                }
                if end.is_none() && !self.is_last {
                    return self.here_is_missing(&pending);
                }
                self.at += taken;
                self.line += 1;
                body.push_str(&text);
                body.extend(end.map(|_| '\n'));
            }
            let word = match pending.quoted {
                true => Word(vec![Part::Quoted(body)]),
                false => {
                    let mut inner = Self::of_chars(body.chars().collect(), line, self.depth);
                    inner.word(Context::Here).map_err(|error| match error {
                        // More lines behind the document would not help.
                        SyntaxError::Incomplete { message, .. } => {
                            SyntaxError::Wrong { line, message }
                        }
                        wrong => wrong,
                    })?
                }
            };
            *pending.body.borrow_mut() = word;
        }
        Ok(())
    }

    /// All of the text as a prompt: like a here-document.
    pub fn prompt(&mut self) -> Result<Word> {
        self.word(Context::Here)
    }

    fn word(&mut self, context: Context) -> Result<Word> {
        let mut parts = Parts::default();
        // In arithmetic: how many parentheses are open.
        let mut open = 0_u32;
        let start = self.at;
        loop {
            let Some(character) = self.current() else {
                match context {
                    Context::Bare | Context::Here => break,
                    Context::Double => return self.incomplete("unterminated quoted string"),
                    Context::Brace | Context::BraceDouble => {
                        return self.incomplete("missing '}'");
                    }
                    Context::Arithmetic => return self.incomplete("missing '))'"),
                }
            };
            match (character, context) {
                (' ' | '\t' | '\n' | ';' | '&' | '|' | '<' | '>' | '(' | ')', Context::Bare) => {
                    break;
                }
                ('"', Context::Double) => break,
                ('}', Context::Brace | Context::BraceDouble) => break,
                ('(', Context::Arithmetic) => {
                    open += 1;
                    parts.push(character);
                    self.bump();
                }
                (')', Context::Arithmetic) if open == 0 => break,
                (')', Context::Arithmetic) => {
                    open -= 1;
                    parts.push(character);
                    self.bump();
                }
                ('\\', _) => self.backslash(context, &mut parts)?,
                ('\'', Context::Bare | Context::Brace) => {
                    self.bump();
                    let mut text = String::new();
                    loop {
                        match self.bump() {
                            None => return self.incomplete("unterminated quoted string"),
                            Some('\'') => break,
                            Some(character) => text.push(character),
                        }
                    }
                    parts.part(Part::Quoted(text));
                }
                (
                    '"',
                    Context::Bare | Context::Brace | Context::BraceDouble | Context::Arithmetic,
                ) => {
                    self.bump();
                    // Quotes inside of `"${x-"y"}"` end and begin again the quotes around.
                    let inner = self.nested(|lexer| lexer.word(Context::Double))?;
                    self.bump();
                    parts.part(Part::Double(inner));
                }
                ('$', _) => {
                    let part = self.nested(|lexer| lexer.dollar(context))?;
                    match part {
                        Some(part) => parts.part(part),
                        None => parts.push('$'),
                    }
                }
                ('`', _) => {
                    let part = self.nested(|lexer| lexer.backticks(context))?;
                    parts.part(part);
                }
                ('~', Context::Bare | Context::Brace)
                    if self.at == start || parts.ends_like_assignment() =>
                {
                    self.bump();
                    let mut name = String::new();
                    while let Some(character) = self.current().filter(|character| {
                        character.is_ascii_alphanumeric() || matches!(character, '_' | '-' | '.')
                    }) {
                        name.push(character);
                        self.bump();
                    }
                    match self.current() {
                        None
                        | Some(
                            ' ' | '\t' | '\n' | ';' | '&' | '|' | '<' | '>' | ')' | '/' | ':' | '}',
                        ) => {
                            parts.part(Part::Tilde(name));
                        }
                        Some(_) => parts.extend(&format!("~{name}")),
                    }
                }
                _ => {
                    parts.push(character);
                    self.bump();
                }
            }
        }
        Ok(parts.into_word())
    }

    fn backslash(&mut self, context: Context, parts: &mut Parts) -> Result<()> {
        self.bump();
        let Some(next) = self.current() else {
            parts.push('\\');
            return Ok(());
        };
        let special = match context {
            Context::Bare | Context::Brace => true,
            Context::Double => matches!(next, '$' | '`' | '"' | '\\' | '\n'),
            Context::BraceDouble => matches!(next, '$' | '`' | '"' | '\\' | '\n' | '}'),
            Context::Here | Context::Arithmetic => matches!(next, '$' | '`' | '\\' | '\n'),
        };
        self.bump();
        match (special, next) {
            (true, '\n') => {}
            (true, next) => parts.part(Part::Quoted(next.into())),
            (false, next) if context == Context::Arithmetic => {
                parts.push('\\');
                parts.push(next);
            }
            (false, next) => parts.part(Part::Quoted(format!("\\{next}"))),
        }
        Ok(())
    }

    /// What follows a `$`; nothing where that is just a `$`.
    fn dollar(&mut self, context: Context) -> Result<Option<Part>> {
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
        Ok(Part::Quoted(super::escape::ansi(&raw)))
    }

    /// `$((…))`, or nothing (and nothing taken) where that is a substitution that begins with a subshell.
    fn arithmetic(&mut self) -> Result<Option<Part>> {
        let before = self.position();
        self.bump();
        self.bump();
        let word = match self.word(Context::Arithmetic) {
            Ok(word) => word,
            Err(error @ SyntaxError::Incomplete { .. }) => return Err(error),
            Err(SyntaxError::Wrong { .. }) => {
                (self.at, self.line) = before;
                return Ok(None);
            }
        };
        if self.current() == Some(')') && self.ahead(1) == Some(')') {
            self.bump();
            self.bump();
            return Ok(Some(Part::Arithmetic(word)));
        }
        if self.current() == Some(')') && self.ahead(1).is_none() {
            return self.incomplete("missing '))'");
        }
        (self.at, self.line) = before;
        Ok(None)
    }

    fn command_substitution(&mut self) -> Result<Part> {
        self.bump();
        let outer = self.peeked.take();
        let token_at = self.token_at;
        let list = super::parser::substitution(self)?;
        self.peeked = outer;
        self.token_at = token_at;
        Ok(Part::Command(Rc::new(list)))
    }

    fn backticks(&mut self, context: Context) -> Result<Part> {
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
        let list = super::parser::whole(&mut lexer).map_err(|error| match error {
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

/// Parts of a word, with neighbouring text joined.
#[derive(Default)]
struct Parts(Vec<Part>);

impl Parts {
    fn push(&mut self, character: char) {
        match self.0.last_mut() {
            Some(Part::Text(text)) => text.push(character),
            _ => self.0.push(Part::Text(character.into())),
        }
    }

    fn extend(&mut self, text: &str) {
        text.chars().for_each(|character| self.push(character));
    }

    fn part(&mut self, part: Part) {
        match (self.0.last_mut(), part) {
            (Some(Part::Quoted(text)), Part::Quoted(more)) => text.push_str(&more),
            (_, part) => self.0.push(part),
        }
    }

    /// Whether a tilde may follow: after the `=` of an assignment or a `:` behind that.
    fn ends_like_assignment(&self) -> bool {
        let Some(Part::Text(last)) = self.0.last() else {
            return false;
        };
        let Some(Part::Text(first)) = self.0.first() else {
            return false;
        };
        let Some((name, _)) = first.split_once('=') else {
            return false;
        };
        super::syntax_tree::is_name(name.trim_end_matches('+'))
            && (last.ends_with('=') && self.0.len() == 1 || last.ends_with(':'))
    }

    fn into_word(self) -> Word {
        Word(self.0)
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

/// A here-document's delimiter: the word's text without quotes, and without expansion.
fn plain(word: &Word, text: &mut String, quoted: &mut bool) {
    for part in &word.0 {
        match part {
            Part::Text(piece) => text.push_str(piece),
            Part::Quoted(piece) => {
                *quoted = true;
                text.push_str(piece);
            }
            Part::Double(inner) => {
                *quoted = true;
                plain(inner, text, quoted);
            }
            Part::Tilde(name) => {
                text.push('~');
                text.push_str(name);
            }
            Part::Parameter(parameter) => {
                text.push('$');
                text.push_str(&parameter.name);
            }
            Part::Command(_) | Part::Arithmetic(_) => {}
        }
    }
}
