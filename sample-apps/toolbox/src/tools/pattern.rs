//! Regular expressions as POSIX words them (basic, extended, fixed strings), for grep, sed, awk, expr and others.
//!
//! The text is parsed into a tree. A tree without back-references is handed to the `regex` crate, whose time is linear; where an
//! alternation or a repeated group makes its leftmost-first answer differ from POSIX' leftmost-longest, an anchored second search
//! finds the longest. Back-references need backtracking ([`super::backtrack`]), whose steps are counted and bounded.
//!
//! Bytes are matched, as in the C locale: `.` is one byte, classes are ASCII. Errors are worded as the C library words them.

use std::cell::RefCell;

use regex::bytes::{Regex, RegexBuilder};
use regex_automata::nfa::thompson::{self, pikevm};
use regex_automata::util::syntax;
use regex_automata::{Anchored, Input, MatchKind};

use super::backtrack;

/// What a compiled expression may take: enough for anything typed by hand, and little for a host that runs many.
const COMPILED_BYTES_MAX: usize = 8 << 20;
/// How deep groups may be nested.
const DEPTH_MAX: usize = 200;
/// The largest number in `{m,n}`, as the C library has it.
const REPEAT_MAX: u32 = 32767;

/// How a text is read as an expression.
#[derive(Clone, Copy, Default)]
pub struct Syntax {
    pub kind: Kind,
    pub ignore_case: bool,
    /// `^` and `$` also match at line ends inside the text (sed's `M`).
    pub lines: bool,
    /// The match must be a word (grep's `-w`).
    pub word: bool,
    /// The match must be all of the text (grep's `-x`).
    pub whole: bool,
}

#[derive(Clone, Copy, Default, PartialEq)]
pub enum Kind {
    #[default]
    Basic,
    Extended,
    Fixed,
}

/// A parsed expression.
#[derive(Clone, Debug)]
pub(super) enum Node {
    Byte(u8),
    Any,
    Class(Box<[bool; 256]>),
    At(Place),
    Group(usize, Box<Node>),
    All(Vec<Node>),
    OneOf(Vec<Node>),
    Repeat(Box<Node>, u32, Option<u32>),
    Back(usize),
}

/// A place between two bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Place {
    TextStart,
    TextEnd,
    LineStart,
    LineEnd,
    Boundary,
    NoBoundary,
    WordStart,
    WordEnd,
    NoWordBefore,
    NoWordAfter,
}

/// Where an expression and its groups matched; 0 is the whole.
pub type Spans = Vec<Option<(usize, usize)>>;

/// A compiled expression.
pub struct Pattern {
    engine: Engine,
    groups: usize,
}

enum Engine {
    Linear {
        regex: Regex,
        longest: Option<Box<(pikevm::PikeVM, RefCell<pikevm::Cache>)>>,
    },
    Backtracking {
        node: Node,
        ignore_case: bool,
    },
}

impl Pattern {
    /// Compiles one expression.
    pub fn new(text: &[u8], syntax: Syntax) -> Result<Pattern, String> {
        Pattern::any_of(&[text.to_vec()], syntax)
    }

    /// Compiles several, of which any may match.
    pub fn any_of(texts: &[Vec<u8>], syntax: Syntax) -> Result<Pattern, String> {
        let mut groups = 0;
        let mut options = Vec::new();
        let (mut back, mut several) = (false, texts.len() > 1);
        for text in texts {
            let mut parser = Parser {
                text,
                at: 0,
                depth: 0,
                groups,
                closed: Vec::new(),
                extended: syntax.kind == Kind::Extended,
                lines: syntax.lines,
                back: false,
                several: false,
            };
            options.push(match syntax.kind {
                Kind::Fixed => Node::All(text.iter().copied().map(Node::Byte).collect()),
                _ => parser.all()?,
            });
            groups = parser.groups;
            back |= parser.back;
            several |= parser.several;
        }
        let mut node = match options.len() {
            1 => options.remove(0),
            _ => Node::OneOf(options),
        };
        if syntax.whole {
            node = Node::All(vec![
                Node::At(Place::TextStart),
                node,
                Node::At(Place::TextEnd),
            ]);
        } else if syntax.word {
            node = Node::All(vec![
                Node::At(Place::NoWordBefore),
                node,
                Node::At(Place::NoWordAfter),
            ]);
        }
        if back {
            let engine = Engine::Backtracking {
                node,
                ignore_case: syntax.ignore_case,
            };
            return Ok(Pattern { engine, groups });
        }
        let mut source = String::new();
        node.emit(&mut source);
        let big = |_| "Regular expression too big".to_owned();
        let regex = RegexBuilder::new(&source)
            .unicode(false)
            .case_insensitive(syntax.ignore_case)
            .dot_matches_new_line(true)
            .nest_limit(2000)
            .size_limit(COMPILED_BYTES_MAX)
            .build()
            .map_err(big)?;
        let longest = match several && syntax.kind != Kind::Fixed {
            false => None,
            true => {
                let vm = pikevm::PikeVM::builder()
                    .configure(pikevm::Config::new().match_kind(MatchKind::All))
                    .syntax(
                        syntax::Config::new()
                            .unicode(false)
                            .utf8(false)
                            .case_insensitive(syntax.ignore_case)
                            .dot_matches_new_line(true)
                            .nest_limit(2000),
                    )
                    .thompson(
                        thompson::Config::new()
                            .utf8(false)
                            .nfa_size_limit(Some(COMPILED_BYTES_MAX)),
                    )
                    .build(&source)
                    .map_err(|_| "Regular expression too big".to_owned())?;
                let cache = RefCell::new(vm.create_cache());
                Some(Box::new((vm, cache)))
            }
        };
        Ok(Pattern {
            engine: Engine::Linear { regex, longest },
            groups,
        })
    }

    /// How many groups it has.
    pub fn groups(&self) -> usize {
        self.groups
    }

    pub fn is_match(&self, text: &[u8]) -> bool {
        match &self.engine {
            Engine::Linear { regex, .. } => regex.is_match(text),
            Engine::Backtracking { .. } => self.spans_at(text, 0).is_some(),
        }
    }

    /// The leftmost longest match that begins at `at` or later.
    pub fn find_at(&self, text: &[u8], at: usize) -> Option<(usize, usize)> {
        match &self.engine {
            Engine::Linear {
                regex,
                longest: None,
            } => regex
                .find_at(text, at)
                .map(|found| (found.start(), found.end())),
            _ => self.spans_at(text, at)?.first().copied().flatten(),
        }
    }

    /// As [`Pattern::find_at`], with the groups.
    pub fn spans_at(&self, text: &[u8], at: usize) -> Option<Spans> {
        if at > text.len() {
            return None;
        }
        match &self.engine {
            Engine::Linear {
                regex,
                longest: None,
            } => {
                let found = regex.captures_at(text, at)?;
                Some(
                    found
                        .iter()
                        .map(|group| group.map(|g| (g.start(), g.end())))
                        .collect(),
                )
            }
            Engine::Linear {
                regex,
                longest: Some(longest),
            } => {
                let start = regex.find_at(text, at)?.start();
                let (vm, cache) = &**longest;
                let mut found = vm.create_captures();
                let input = Input::new(text).range(start..).anchored(Anchored::Yes);
                vm.captures(&mut cache.borrow_mut(), input, &mut found);
                let spans = found
                    .iter()
                    .map(|group| group.map(|g| (g.start, g.end)))
                    .collect();
                found.is_match().then_some(spans)
            }
            Engine::Backtracking { node, ignore_case } => {
                backtrack::search(node, *ignore_case, self.groups, text, at)
            }
        }
    }
}

impl Node {
    /// Writes the expression in the syntax of the `regex` crate.
    fn emit(&self, to: &mut String) {
        use std::fmt::Write;
        match self {
            Node::Byte(byte) if byte.is_ascii_alphanumeric() => to.push(char::from(*byte)),
            Node::Byte(byte) => {
                let _ = write!(to, "\\x{byte:02X}");
            }
            Node::Any => to.push('.'),
            Node::Class(set) => {
                // An empty class cannot be written; nothing is neither word nor not.
                if !set.contains(&true) {
                    return to.push_str("[^\\x00-\\xFF]");
                }
                to.push('[');
                let mut byte = 0;
                while byte < 256 {
                    if !set.get(byte).is_some_and(|on| *on) {
                        byte += 1;
                        continue;
                    }
                    let first = byte;
                    while set.get(byte + 1).is_some_and(|on| *on) {
                        byte += 1;
                    }
                    let _ = write!(to, "\\x{first:02X}-\\x{byte:02X}");
                    byte += 1;
                }
                to.push(']');
            }
            Node::At(place) => to.push_str(match place {
                Place::TextStart => "\\A",
                Place::TextEnd => "\\z",
                Place::LineStart => "(?m:^)",
                Place::LineEnd => "(?m:$)",
                Place::Boundary => "\\b",
                Place::NoBoundary => "\\B",
                Place::WordStart => "\\b{start}",
                Place::WordEnd => "\\b{end}",
                Place::NoWordBefore => "\\b{start-half}",
                Place::NoWordAfter => "\\b{end-half}",
            }),
            Node::Group(_, inner) => {
                to.push('(');
                inner.emit(to);
                to.push(')');
            }
            Node::All(nodes) => nodes.iter().for_each(|node| {
                if matches!(node, Node::OneOf(_)) {
                    to.push_str("(?:");
                    node.emit(to);
                    to.push(')');
                } else {
                    node.emit(to);
                }
            }),
            Node::OneOf(options) => {
                for (index, option) in options.iter().enumerate() {
                    if index > 0 {
                        to.push('|');
                    }
                    option.emit(to);
                }
            }
            Node::Repeat(inner, least, most) => {
                to.push_str("(?:");
                inner.emit(to);
                to.push(')');
                let _ = match (least, most) {
                    (0, None) => write!(to, "*"),
                    (1, None) => write!(to, "+"),
                    (0, Some(1)) => write!(to, "?"),
                    (least, None) => write!(to, "{{{least},}}"),
                    (least, Some(most)) => write!(to, "{{{least},{most}}}"),
                };
            }
            // Trees with one are never handed over.
            Node::Back(_) => {}
        }
    }
}

struct Parser<'t> {
    text: &'t [u8],
    at: usize,
    depth: usize,
    groups: usize,
    closed: Vec<usize>,
    extended: bool,
    lines: bool,
    back: bool,
    several: bool,
}

impl Parser<'_> {
    fn peek(&self, ahead: usize) -> Option<u8> {
        self.text.get(self.at + ahead).copied()
    }

    fn rest(&self) -> &[u8] {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn all(&mut self) -> Result<Node, String> {
        let node = self.options()?;
        match self.at < self.text.len() {
            true => Err("Unmatched ) or \\)".into()),
            false => Ok(node),
        }
    }

    fn options(&mut self) -> Result<Node, String> {
        let mut options = vec![self.sequence()?];
        let bar: &[u8] = if self.extended { b"|" } else { b"\\|" };
        while self.rest().starts_with(bar) {
            self.at += bar.len();
            options.push(self.sequence()?);
        }
        self.several |= options.len() > 1;
        Ok(match options.len() {
            1 => options.remove(0),
            _ => Node::OneOf(options),
        })
    }

    fn sequence(&mut self) -> Result<Node, String> {
        let mut nodes: Vec<Node> = Vec::new();
        while let Some(byte) = self.peek(0) {
            let (open, close, bar): (&[u8], &[u8], &[u8]) = match self.extended {
                true => (b"(", b")", b"|"),
                false => (b"\\(", b"\\)", b"\\|"),
            };
            if self.rest().starts_with(bar) || (self.rest().starts_with(close) && self.depth > 0) {
                break;
            }
            if self.rest().starts_with(close) {
                // An extended `)` that closes nothing is an error here, as in the C library.
                return Err("Unmatched ) or \\)".into());
            }
            if self.rest().starts_with(open) {
                self.at += open.len();
                let group = self.group(close)?;
                nodes.push(group);
                continue;
            }
            let only_anchors = nodes.iter().all(|node| matches!(node, Node::At(_)));
            if let Some((least, most, length)) = self.repeat(byte)? {
                match nodes.pop() {
                    Some(last) if !(only_anchors && matches!(last, Node::At(_))) => {
                        self.at += length;
                        self.several |= matches!(last, Node::Group(..) | Node::Back(_));
                        nodes.push(Node::Repeat(Box::new(last), least, most));
                        continue;
                    }
                    other => nodes.extend(other),
                }
                if byte == b'\\' || byte == b'{' {
                    return Err("Invalid preceding regular expression".into());
                }
                // A star that repeats nothing stands for itself.
                self.at += 1;
                if byte == b'*' || !self.extended {
                    nodes.push(Node::Byte(byte));
                }
                continue;
            }
            self.at += 1;
            let node = match byte {
                b'.' => Node::Any,
                b'[' => self.class()?,
                b'^' if self.extended || only_anchors => Node::At(self.line_start()),
                b'$' if self.extended || self.at_end_of_branch() => Node::At(match self.lines {
                    true => Place::LineEnd,
                    false => Place::TextEnd,
                }),
                b'\\' => self.escape()?,
                byte => Node::Byte(byte),
            };
            nodes.push(node);
        }
        Ok(match nodes.len() {
            1 => nodes.remove(0),
            _ => Node::All(nodes),
        })
    }

    fn line_start(&self) -> Place {
        if self.lines {
            Place::LineStart
        } else {
            Place::TextStart
        }
    }

    fn at_end_of_branch(&self) -> bool {
        self.rest().is_empty() || self.rest().starts_with(b"\\)") || self.rest().starts_with(b"\\|")
    }

    fn group(&mut self, close: &[u8]) -> Result<Node, String> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err("Regular expression too big".into());
        }
        self.groups += 1;
        let number = self.groups;
        let inner = self.options()?;
        if !self.rest().starts_with(close) {
            return Err("Unmatched ( or \\(".into());
        }
        self.at += close.len();
        self.depth -= 1;
        self.closed.push(number);
        Ok(Node::Group(number, Box::new(inner)))
    }

    /// The repetition that begins here, with its length.
    fn repeat(&self, byte: u8) -> Result<Option<(u32, Option<u32>, usize)>, String> {
        let plain = |least, most, length| Ok(Some((least, most, length)));
        match (byte, self.extended) {
            (b'*', _) => plain(0, None, 1),
            (b'+', true) => plain(1, None, 1),
            (b'?', true) => plain(0, Some(1), 1),
            (b'\\', false) => match self.peek(1) {
                Some(b'+') => plain(1, None, 2),
                Some(b'?') => plain(0, Some(1), 2),
                Some(b'{') => self.interval(2, b"\\}"),
                _ => Ok(None),
            },
            // A brace that is no interval stands for itself.
            (b'{', true) => Ok(self.interval(1, b"}").unwrap_or(None)),
            _ => Ok(None),
        }
    }

    fn interval(
        &self,
        open: usize,
        close: &[u8],
    ) -> Result<Option<(u32, Option<u32>, usize)>, String> {
        let rest = self.rest().get(open..).unwrap_or_default();
        let Some(length) = rest.windows(close.len()).position(|window| window == close) else {
            return Err("Unmatched \\{".into());
        };
        let invalid = || "Invalid content of \\{\\}".to_owned();
        let inner =
            std::str::from_utf8(rest.get(..length).unwrap_or_default()).map_err(|_| invalid())?;
        let number = |text: &str| match text.parse::<u32>() {
            Ok(number) if number <= REPEAT_MAX => Ok(number),
            Ok(_) => Err("Regular expression too big".to_owned()),
            Err(_) => Err(invalid()),
        };
        let (least, most) = match inner.split_once(',') {
            None => (number(inner)?, Some(number(inner)?)),
            Some(("", most)) => (0, Some(number(most)?)),
            Some((least, "")) => (number(least)?, None),
            Some((least, most)) => (number(least)?, Some(number(most)?)),
        };
        if most.is_some_and(|most| most < least) {
            return Err(invalid());
        }
        Ok(Some((least, most, open + length + close.len())))
    }

    /// What follows a backslash.
    fn escape(&mut self) -> Result<Node, String> {
        let Some(byte) = self.peek(0) else {
            return Err("Trailing backslash".into());
        };
        self.at += 1;
        Ok(match byte {
            b'w' => class(|byte| byte.is_ascii_alphanumeric() || byte == b'_'),
            b'W' => class(|byte| !(byte.is_ascii_alphanumeric() || byte == b'_')),
            b's' => class(is_space),
            b'S' => class(|byte| !is_space(byte)),
            b'b' => Node::At(Place::Boundary),
            b'B' => Node::At(Place::NoBoundary),
            b'<' => Node::At(Place::WordStart),
            b'>' => Node::At(Place::WordEnd),
            b'`' => Node::At(Place::TextStart),
            b'\'' => Node::At(Place::TextEnd),
            b'n' => Node::Byte(b'\n'),
            b't' => Node::Byte(b'\t'),
            b'r' => Node::Byte(b'\r'),
            b'f' => Node::Byte(0x0c),
            b'v' => Node::Byte(0x0b),
            b'a' => Node::Byte(0x07),
            b'1'..=b'9' => {
                let number = usize::from(byte - b'0');
                if !self.closed.contains(&number) {
                    return Err("Invalid back reference".into());
                }
                self.back = true;
                Node::Back(number)
            }
            byte => Node::Byte(byte),
        })
    }

    /// What follows an opening bracket.
    fn class(&mut self) -> Result<Node, String> {
        let unmatched = || "Unmatched [, [^, [:, [., or [=".to_owned();
        let mut set = Box::new([false; 256]);
        let negated = self.peek(0) == Some(b'^');
        self.at += usize::from(negated);
        let mut first = true;
        loop {
            let byte = self.peek(0).ok_or_else(unmatched)?;
            self.at += 1;
            if byte == b']' && !first {
                break;
            }
            first = false;
            if byte == b'[' && self.peek(0) == Some(b':') {
                let rest = self.rest().get(1..).unwrap_or_default();
                let length = rest
                    .windows(2)
                    .position(|window| window == b":]")
                    .ok_or_else(unmatched)?;
                let name = rest.get(..length).unwrap_or_default().to_vec();
                let holds = named_class(&name).ok_or("Invalid character class name")?;
                (0..=255u8)
                    .filter(|byte| holds(*byte))
                    .for_each(|byte| set[usize::from(byte)] = true);
                self.at += length + 3;
                continue;
            }
            let low = self.bracketed(byte).ok_or_else(unmatched)?;
            let range = self.peek(0) == Some(b'-') && self.peek(1).is_some_and(|next| next != b']');
            if !range {
                set[usize::from(low)] = true;
                continue;
            }
            self.at += 1;
            let byte = self.peek(0).ok_or_else(unmatched)?;
            self.at += 1;
            let high = self.bracketed(byte).ok_or_else(unmatched)?;
            if high < low {
                return Err("Invalid range end".into());
            }
            (low..=high).for_each(|byte| set[usize::from(byte)] = true);
        }
        if negated {
            set.iter_mut().for_each(|on| *on = !*on);
        }
        Ok(Node::Class(set))
    }

    /// One byte of a class, which may be written `[.x.]` or `[=x=]`.
    fn bracketed(&mut self, byte: u8) -> Option<u8> {
        match (byte, self.peek(0)) {
            (b'[', Some(mark @ (b'.' | b'='))) => {
                let byte = self.peek(1)?;
                if (self.peek(2)?, self.peek(3)?) != (mark, b']') {
                    return None;
                }
                self.at += 4;
                Some(byte)
            }
            _ => Some(byte),
        }
    }
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}

fn class(holds: impl Fn(u8) -> bool) -> Node {
    let mut set = Box::new([false; 256]);
    (0..=255u8)
        .filter(|byte| holds(*byte))
        .for_each(|byte| set[usize::from(byte)] = true);
    Node::Class(set)
}

/// The bytes of `[:NAME:]`.
pub fn named_class(name: &[u8]) -> Option<fn(u8) -> bool> {
    Some(match name {
        b"alpha" => |byte| byte.is_ascii_alphabetic(),
        b"digit" => |byte| byte.is_ascii_digit(),
        b"alnum" => |byte| byte.is_ascii_alphanumeric(),
        b"upper" => |byte| byte.is_ascii_uppercase(),
        b"lower" => |byte| byte.is_ascii_lowercase(),
        b"space" => is_space,
        b"blank" => |byte| byte == b' ' || byte == b'\t',
        b"punct" => |byte| byte.is_ascii_punctuation(),
        b"print" => |byte| (0x20..0x7f).contains(&byte),
        b"graph" => |byte| (0x21..0x7f).contains(&byte),
        b"cntrl" => |byte| byte.is_ascii_control(),
        b"xdigit" => |byte| byte.is_ascii_hexdigit(),
        _ => return None,
    })
}
