//! The parser: tokens to the syntax tree, by POSIX' grammar and with busybox' messages.
//!
//! Reads one complete command at a time, since what it does (aliases, `exit`) may change how the next one reads.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::lexer::{Lexer, SyntaxError, Token};
use super::syntax_tree::{
    AndOr, Arm, Assignment, Command, Connector, Item, Kind, List, Part, Pipeline, Redirect,
    RedirectKind, Word, is_name,
};

type Result<T> = std::result::Result<T, SyntaxError>;

pub type Aliases = BTreeMap<String, String>;

/// What ends a list or begins a compound command.
const RESERVED: [&str; 16] = [
    "!", "{", "}", "case", "do", "done", "elif", "else", "esac", "fi", "for", "if", "in", "then",
    "until", "while",
];

/// Words of [`RESERVED`] that cannot begin a command.
const CLOSING: [&str; 8] = ["}", "do", "done", "elif", "else", "esac", "fi", "then"];

pub fn is_reserved(word: &str) -> bool {
    RESERVED.contains(&word)
}

/// The next line's commands, through to its end; nothing at the end of the text.
pub fn next_line(lexer: &mut Lexer, aliases: &Aliases) -> Result<Option<List>> {
    let mut parser = Parser {
        lexer,
        aliases,
        alias_goes_on: false,
    };
    parser.skip_newlines()?;
    if matches!(parser.lexer.peek()?, Token::End) {
        return Ok(None);
    }
    let list = parser.list(true)?;
    match parser.lexer.next()? {
        Token::Operator("\n") | Token::End => Ok(Some(list)),
        token => parser.unexpected(&token, None),
    }
}

/// The text's commands, all of them.
pub fn whole(lexer: &mut Lexer) -> Result<List> {
    let mut parser = Parser {
        lexer,
        aliases: &Aliases::new(),
        alias_goes_on: false,
    };
    let list = parser.list(false)?;
    match parser.lexer.next()? {
        Token::End => Ok(list),
        token => parser.unexpected(&token, None),
    }
}

/// What is between `$(` and `)`, and takes the latter.
pub fn substitution(lexer: &mut Lexer) -> Result<List> {
    let mut parser = Parser {
        lexer,
        aliases: &Aliases::new(),
        alias_goes_on: false,
    };
    let list = parser.list(false)?;
    match parser.lexer.next()? {
        Token::Operator(")") => Ok(list),
        token => parser.unexpected(&token, Some(")")),
    }
}

struct Parser<'a> {
    lexer: &'a mut Lexer,
    aliases: &'a Aliases,
    /// The alias in front of the command that comes ended in a blank.
    alias_goes_on: bool,
}

impl Parser<'_> {
    fn unexpected<T>(&self, token: &Token, expected: Option<&str>) -> Result<T> {
        let what = match token {
            Token::End => "end of file".to_owned(),
            Token::Operator("\n") => "newline".to_owned(),
            Token::Operator(operator) if operator.contains(['<', '>']) => "redirection".to_owned(),
            Token::Descriptor(_) => "redirection".to_owned(),
            Token::Operator(operator) => format!("\"{operator}\""),
            Token::Word(word) => match word.as_text().filter(|text| is_reserved(text)) {
                Some(text) => format!("\"{text}\""),
                None => "word".to_owned(),
            },
        };
        let mut message = format!("syntax error: unexpected {what}");
        if let Some(expected) = expected {
            message.push_str(&format!(" (expecting \"{expected}\")"));
        }
        match token {
            Token::End => Err(SyntaxError::Incomplete {
                message,
                here: None,
            }),
            _ => self.lexer.wrong(message),
        }
    }

    fn skip_newlines(&mut self) -> Result<()> {
        while matches!(self.lexer.peek()?, Token::Operator("\n")) {
            self.lexer.next()?;
        }
        Ok(())
    }

    /// Takes the operator if it is next.
    fn take(&mut self, operator: &str) -> Result<bool> {
        let found = matches!(self.lexer.peek()?, Token::Operator(found) if *found == operator);
        if found {
            self.lexer.next()?;
        }
        Ok(found)
    }

    /// The reserved word that is next, if one is.
    fn reserved(&mut self) -> Result<Option<&'static str>> {
        let Token::Word(word) = self.lexer.peek()? else {
            return Ok(None);
        };
        let text = word.as_text();
        Ok(text.and_then(|text| RESERVED.iter().find(|reserved| **reserved == text).copied()))
    }

    fn take_reserved(&mut self, wanted: &str) -> Result<bool> {
        let found = self.reserved()? == Some(wanted);
        if found {
            self.lexer.next()?;
        }
        Ok(found)
    }

    fn expect_reserved(&mut self, wanted: &'static str) -> Result<()> {
        if self.take_reserved(wanted)? {
            return Ok(());
        }
        let token = self.lexer.next()?;
        self.unexpected(&token, Some(wanted))
    }

    /// Replaces aliases where a command's name may stand. Says whether the last one wants the next word looked at too.
    fn expand_aliases(&mut self) -> Result<bool> {
        let mut goes_on = false;
        loop {
            let Token::Word(word) = self.lexer.peek()? else {
                return Ok(goes_on);
            };
            let Some(name) = word.as_text().map(str::to_owned) else {
                return Ok(goes_on);
            };
            if self.aliases.is_empty()
                || is_reserved(&name)
                || !self.lexer.expand_alias(&name, self.aliases)
            {
                return Ok(goes_on);
            }
            goes_on = self
                .aliases
                .get(&name)
                .is_some_and(|value| value.ends_with([' ', '\t']));
        }
    }

    /// Commands up to something that cannot go on; with `line`, up to the end of the line.
    fn list(&mut self, line: bool) -> Result<List> {
        self.lexer.nested_begin()?;
        let list = self.list_inside(line);
        self.lexer.nested_end();
        list
    }

    fn list_inside(&mut self, line: bool) -> Result<List> {
        let mut items = Vec::new();
        loop {
            if !line {
                self.skip_newlines()?;
            }
            self.alias_goes_on = self.expand_aliases()?;
            match self.lexer.peek()? {
                Token::End | Token::Operator("\n" | ")" | ";;" | ";&") => break,
                _ => {}
            }
            if self.reserved()?.is_some_and(|word| CLOSING.contains(&word)) {
                break;
            }
            let start = self.lexer.position();
            let and_or = Rc::new(self.and_or()?);
            let background = match matches!(self.lexer.peek()?, Token::Operator("&")) {
                true => Some(Rc::from(self.lexer.text_since(start).trim())),
                false => None,
            };
            let ended = self.take("&")? || self.take(";")?;
            items.push(Item { and_or, background });
            if !ended && (line || !matches!(self.lexer.peek()?, Token::Operator("\n"))) {
                break;
            }
        }
        Ok(List(items))
    }

    /// A list that may not be empty, as the inside of a compound command.
    fn body(&mut self, end: &str) -> Result<List> {
        let list = self.list(false)?;
        if list.0.is_empty() {
            let token = self.lexer.next()?;
            let expected = matches!(token, Token::End).then_some(end);
            return self.unexpected(&token, expected);
        }
        Ok(list)
    }

    fn and_or(&mut self) -> Result<AndOr> {
        let first = self.pipeline()?;
        let mut rest = Vec::new();
        loop {
            let connector = if self.take("&&")? {
                Connector::And
            } else if self.take("||")? {
                Connector::Or
            } else {
                return Ok(AndOr { first, rest });
            };
            self.skip_newlines()?;
            rest.push((connector, self.pipeline()?));
        }
    }

    fn pipeline(&mut self) -> Result<Pipeline> {
        let mut negated = false;
        self.alias_goes_on |= self.expand_aliases()?;
        while self.take_reserved("!")? {
            negated = !negated;
            self.alias_goes_on = self.expand_aliases()?;
        }
        let mut commands = vec![Rc::new(self.command()?)];
        while self.take("|")? {
            self.skip_newlines()?;
            commands.push(Rc::new(self.command()?));
        }
        Ok(Pipeline { negated, commands })
    }

    fn command(&mut self) -> Result<Command> {
        self.alias_goes_on |= self.expand_aliases()?;
        let token = self.lexer.peek()?.clone();
        let line = self.lexer.line;
        let kind = match &token {
            Token::Operator("(") => {
                self.lexer.next()?;
                let list = self.body(")")?;
                let token = self.lexer.next()?;
                if !matches!(token, Token::Operator(")")) {
                    return self.unexpected(&token, Some(")"));
                }
                Kind::Subshell(Rc::new(list))
            }
            Token::Word(word) => match self.reserved()? {
                Some("{") => {
                    self.lexer.next()?;
                    let list = self.body("}")?;
                    self.expect_reserved("}")?;
                    Kind::Group(list)
                }
                Some("if") => self.if_command()?,
                Some(word @ ("while" | "until")) => {
                    self.lexer.next()?;
                    let condition = self.body("do")?;
                    let body = self.do_group()?;
                    Kind::Loop {
                        condition,
                        until: word == "until",
                        body,
                    }
                }
                Some("for") => self.for_command()?,
                Some("case") => self.case_command()?,
                Some("in") | None => {
                    let name = word.as_text().map(str::to_owned);
                    match name {
                        Some(name) if self.lexer.follows_parenthesis() => {
                            return self.function(name, line);
                        }
                        _ => return self.simple(line),
                    }
                }
                Some(_) => return self.unexpected(&token, None),
            },
            Token::Descriptor(_) => return self.simple(line),
            Token::Operator(operator) if operator.contains(['<', '>']) => return self.simple(line),
            token => return self.unexpected(token, None),
        };
        let mut redirects = Vec::new();
        while let Some(redirect) = self.redirect()? {
            redirects.push(redirect);
        }
        Ok(Command {
            kind,
            redirects,
            line,
        })
    }

    fn do_group(&mut self) -> Result<List> {
        self.take(";")?;
        self.skip_newlines()?;
        self.expect_reserved("do")?;
        let body = self.body("done")?;
        self.expect_reserved("done")?;
        Ok(body)
    }

    fn if_command(&mut self) -> Result<Kind> {
        self.lexer.next()?;
        let mut branches = Vec::new();
        let mut otherwise = None;
        loop {
            let condition = self.body("then")?;
            self.expect_reserved("then")?;
            branches.push((condition, self.body("fi")?));
            if self.take_reserved("elif")? {
                continue;
            }
            if self.take_reserved("else")? {
                otherwise = Some(self.body("fi")?);
            }
            self.expect_reserved("fi")?;
            return Ok(Kind::If {
                branches,
                otherwise,
            });
        }
    }

    fn for_command(&mut self) -> Result<Kind> {
        self.lexer.next()?;
        let name = match self.lexer.next()? {
            Token::Word(word) => match word.as_text() {
                Some(name) if is_name(name) => name.to_owned(),
                _ => return self.lexer.wrong("syntax error: bad for loop variable"),
            },
            token @ Token::End => return self.unexpected(&token, None),
            _ => return self.lexer.wrong("syntax error: bad for loop variable"),
        };
        self.skip_newlines()?;
        let mut words = None;
        if self.take_reserved("in")? {
            let list = words.insert(Vec::new());
            while let Token::Word(_) = self.lexer.peek()? {
                if let Token::Word(word) = self.lexer.next()? {
                    list.push(word);
                }
            }
            let token = self.lexer.peek()?.clone();
            if !matches!(token, Token::Operator(";" | "\n")) {
                return self.unexpected(&token, None);
            }
        }
        let body = self.do_group()?;
        Ok(Kind::For { name, words, body })
    }

    fn case_command(&mut self) -> Result<Kind> {
        self.lexer.next()?;
        let word = match self.lexer.next()? {
            Token::Word(word) => word,
            token => return self.unexpected(&token, None),
        };
        self.skip_newlines()?;
        self.expect_reserved("in")?;
        let mut arms = Vec::new();
        loop {
            self.skip_newlines()?;
            if self.take_reserved("esac")? {
                return Ok(Kind::Case { word, arms });
            }
            let bracket = self.take("(")?;
            let mut patterns = Vec::new();
            loop {
                match self.lexer.next()? {
                    Token::Word(word) => patterns.push(word),
                    token if bracket => return self.unexpected(&token, None),
                    token => {
                        return self.unexpected(
                            &token,
                            Some("esac").filter(|_| matches!(token, Token::End)),
                        );
                    }
                }
                if !self.take("|")? {
                    break;
                }
            }
            let token = self.lexer.next()?;
            if !matches!(token, Token::Operator(")")) {
                return self.unexpected(&token, Some(")"));
            }
            let body = self.list(false)?;
            let falls_through = self.take(";&")?;
            arms.push(Arm {
                patterns,
                body,
                falls_through,
            });
            if !falls_through && !self.take(";;")? {
                self.skip_newlines()?;
                if !self.take_reserved("esac")? {
                    let token = self.lexer.next()?;
                    return self.unexpected(&token, Some(";;"));
                }
                return Ok(Kind::Case { word, arms });
            }
        }
    }

    fn function(&mut self, name: String, line: u32) -> Result<Command> {
        self.lexer.next()?;
        self.lexer.next()?;
        let token = self.lexer.next()?;
        if !matches!(token, Token::Operator(")")) {
            return self.unexpected(&token, Some(")"));
        }
        if name.contains(['/', '=']) {
            return self.lexer.wrong("syntax error: bad function name");
        }
        self.skip_newlines()?;
        self.lexer.nested_begin()?;
        let body = self.command();
        self.lexer.nested_end();
        Ok(Command {
            kind: Kind::Function {
                name,
                body: Rc::new(body?),
            },
            redirects: Vec::new(),
            line,
        })
    }

    fn simple(&mut self, line: u32) -> Result<Command> {
        let mut assignments = Vec::new();
        let mut words: Vec<Word> = Vec::new();
        let mut redirects = Vec::new();
        let mut goes_on = std::mem::take(&mut self.alias_goes_on);
        loop {
            if let Some(redirect) = self.redirect()? {
                redirects.push(redirect);
                continue;
            }
            if words.is_empty() || goes_on {
                goes_on = self.expand_aliases()? || goes_on && words.is_empty();
            }
            if !matches!(self.lexer.peek()?, Token::Word(_)) {
                break;
            }
            let Token::Word(word) = self.lexer.next()? else {
                break;
            };
            match words.is_empty().then(|| assignment(&word)).flatten() {
                Some(assignment) => assignments.push(assignment),
                None => words.push(word),
            }
        }
        if let Token::Operator("(") = self.lexer.peek()? {
            let token = self.lexer.next()?;
            return self.unexpected(&token, None);
        }
        Ok(Command {
            kind: Kind::Simple { assignments, words },
            redirects,
            line,
        })
    }

    fn redirect(&mut self) -> Result<Option<Redirect>> {
        let descriptor = match self.lexer.peek()? {
            Token::Descriptor(descriptor) => {
                let descriptor = *descriptor;
                self.lexer.next()?;
                Some(descriptor)
            }
            _ => None,
        };
        let operator = match self.lexer.peek()? {
            Token::Operator(operator) if operator.contains(['<', '>']) => *operator,
            _ => return Ok(None),
        };
        self.lexer.next()?;
        let target = match self.lexer.next()? {
            Token::Word(word) => word,
            token => return self.unexpected(&token, None),
        };
        let default = u32::from(operator.starts_with(['>', '&']));
        let kind = match operator {
            "<" => RedirectKind::Read(target),
            ">" => RedirectKind::Write(target),
            ">|" => RedirectKind::Overwrite(target),
            ">>" => RedirectKind::Append(target),
            "<>" => RedirectKind::ReadWrite(target),
            "&>" => RedirectKind::Both(target),
            "<<<" => RedirectKind::HereText(target),
            "<<" | "<<-" => {
                RedirectKind::Here(self.lexer.here_document(&target, operator == "<<-"))
            }
            _ => RedirectKind::Duplicate(target),
        };
        Ok(Some(Redirect {
            descriptor: descriptor.unwrap_or(default),
            kind,
        }))
    }
}

/// The assignment that a word is.
pub fn assignment(word: &Word) -> Option<Assignment> {
    let Some(Part::Text(first)) = word.0.first() else {
        return None;
    };
    let (name, value) = first.split_once('=')?;
    let (name, append) = match name.strip_suffix('+') {
        Some(name) => (name, true),
        None => (name, false),
    };
    if !is_name(name) {
        return None;
    }
    let mut parts = Vec::with_capacity(word.0.len());
    if !value.is_empty() {
        parts.push(Part::Text(value.to_owned()));
    }
    parts.extend(word.0.iter().skip(1).cloned());
    Some(Assignment {
        name: name.to_owned(),
        value: Word(parts),
        append,
    })
}
