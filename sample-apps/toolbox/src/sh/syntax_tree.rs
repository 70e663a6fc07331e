//! The shell's syntax tree, as POSIX' grammar names its parts.
//!
//! A tree is never deeper than the parser's limit, so that walking and dropping it needs a bounded stack. Bodies are
//! shared, so that a function or a subshell takes its commands without copying them.

use std::cell::RefCell;
use std::rc::Rc;

/// Commands one after the other.
#[derive(Debug, Default)]
pub struct List(pub Vec<Item>);

/// One element of a list.
#[derive(Clone, Debug)]
pub struct Item {
    pub and_or: Rc<AndOr>,
    /// Ended by `&`: the command's text, to be told of the job.
    pub background: Option<Rc<str>>,
}

#[derive(Debug)]
pub struct AndOr {
    pub first: Pipeline,
    pub rest: Vec<(Connector, Pipeline)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connector {
    And,
    Or,
}

#[derive(Debug)]
pub struct Pipeline {
    /// Begins with `!`.
    pub negated: bool,
    pub commands: Vec<Rc<Command>>,
}

#[derive(Debug)]
pub struct Command {
    pub kind: Kind,
    pub redirects: Vec<Redirect>,
    pub line: u32,
}

#[derive(Debug)]
pub enum Kind {
    Simple {
        assignments: Vec<Assignment>,
        words: Vec<Word>,
    },
    Group(List),
    Subshell(Rc<List>),
    If {
        /// Conditions and what follows their `then`.
        branches: Vec<(List, List)>,
        otherwise: Option<List>,
    },
    Loop {
        condition: List,
        /// `until` instead of `while`.
        until: bool,
        body: List,
    },
    For {
        name: String,
        /// Without `in`, the positional parameters.
        words: Option<Vec<Word>>,
        body: List,
    },
    Case {
        word: Word,
        arms: Vec<Arm>,
    },
    Function {
        name: String,
        body: Rc<Command>,
    },
}

#[derive(Debug)]
pub struct Arm {
    pub patterns: Vec<Word>,
    pub body: List,
    /// Ended by `;&`.
    pub falls_through: bool,
}

#[derive(Debug)]
pub struct Assignment {
    pub name: String,
    pub value: Word,
    /// `name+=value`.
    pub append: bool,
}

#[derive(Debug)]
pub struct Redirect {
    pub descriptor: u32,
    pub kind: RedirectKind,
}

#[derive(Debug)]
pub enum RedirectKind {
    /// `<`
    Read(Word),
    /// `>`
    Write(Word),
    /// `>|`
    Overwrite(Word),
    /// `>>`
    Append(Word),
    /// `<>`
    ReadWrite(Word),
    /// `<&` and `>&`
    Duplicate(Word),
    /// `&>` of output and errors.
    Both(Word),
    /// `<<` and `<<-`; the body is read after the line.
    Here(Rc<RefCell<Word>>),
    /// `<<<`
    HereText(Word),
}

/// A word before expansion.
#[derive(Clone, Debug, Default)]
pub struct Word(pub Vec<Part>);

#[derive(Clone, Debug)]
pub enum Part {
    /// Unquoted text.
    Text(String),
    /// Text in single quotes or behind a backslash.
    Quoted(String),
    /// What is in double quotes.
    Double(Word),
    Parameter(Box<Parameter>),
    /// `$( )` and backticks.
    Command(Rc<List>),
    /// `$(( ))`
    Arithmetic(Word),
    /// `~` and a name.
    Tilde(String),
}

#[derive(Clone, Debug)]
pub struct Parameter {
    pub name: String,
    pub operation: Operation,
}

#[derive(Clone, Debug)]
pub enum Operation {
    /// `$x`
    Plain,
    /// `${#x}`
    Length,
    /// `${x:-w}`, `${x-w}`; `null` says that empty counts as unset.
    Default { null: bool, word: Word },
    /// `${x:=w}`
    Assign { null: bool, word: Word },
    /// `${x:?w}`
    Require { null: bool, word: Word },
    /// `${x:+w}`
    Alternative { null: bool, word: Word },
    /// `${x#w}`, `${x##w}`
    RemovePrefix { longest: bool, pattern: Word },
    /// `${x%w}`, `${x%%w}`
    RemoveSuffix { longest: bool, pattern: Word },
    /// `${x/p/r}`, `${x//p/r}`
    Replace {
        all: bool,
        pattern: Word,
        with: Word,
    },
    /// `${x:o:l}`
    Slice { offset: Word, length: Option<Word> },
    /// What is in the braces makes no sense, which is an error only when it is expanded.
    Bad,
}

impl Word {
    /// The text of a word that is one piece of unquoted text: what keywords, names and aliases are.
    pub fn as_text(&self) -> Option<&str> {
        match self.0.as_slice() {
            [Part::Text(text)] => Some(text),
            _ => None,
        }
    }
}

/// Whether this can name a variable.
pub fn is_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes
        .next()
        .is_some_and(|byte| byte == b'_' || byte.is_ascii_alphabetic())
        && bytes.all(|byte| byte == b'_' || byte.is_ascii_alphanumeric())
}
