//! From words to an expression.
//!
//! Invariants: no input recurses deeper than a named bound, whatever its length; chains of `&&` and `||` become one call of
//! all their terms. Left to others: macros (`super::macros`), types (`super::check`).
//!
//! Source: the grammar of cel-spec, `doc/langdef.md`.

use super::ast::{BINARY, Entry, Expr, HEIGHT_MAX, Item, Kind, Literal, operator};
use super::lexer::{Token, Word, words};
use super::{Fault, Faults};

/// Longest source; upstream's limit.
pub const SOURCE_CHARS_MAX: usize = 100_000;

/// Words that are kept for languages that CEL is translated to.
pub(super) const RESERVED: &[&str] = &[
    "as",
    "break",
    "const",
    "continue",
    "else",
    "false",
    "for",
    "function",
    "if",
    "import",
    "in",
    "let",
    "loop",
    "package",
    "namespace",
    "null",
    "return",
    "true",
    "var",
    "void",
    "while",
];

/// Reads one expression.
///
/// # Errors
/// The first mistake, with its place.
pub fn parse(source: &str) -> Result<Expr, Fault> {
    parse_all(source).map_err(|faults| {
        let first = faults.first().cloned();
        first.unwrap_or_else(|| Fault::new(0, String::new()))
    })
}

/// # Errors
/// Everything that is no word, and the first mistake in their order: what upstream's parser tells of the words that follow, after it has
/// guessed what was meant, is not told.
pub(super) fn parse_all(source: &str) -> Result<Expr, Faults> {
    let length = source.chars().count();
    if length > SOURCE_CHARS_MAX {
        let sentence = format!(
            "expression code point size exceeds limit: size: {length}, limit {SOURCE_CHARS_MAX}"
        );
        return Err(Fault::new(0, sentence).into());
    }
    let (words, mut faults) = words(source);
    let mut parser = Parser {
        source,
        words,
        next: 0,
        depth: 0,
        open: Vec::new(),
        faults: Faults::default(),
    };
    let read = parser.expression().and_then(|expr| match parser.peek() {
        Token::End => Ok(expr),
        _ => Err(parser.misplaced("<EOF>")),
    });
    for fault in parser.faults.into_kept() {
        faults.push(fault);
    }
    match read {
        Ok(expr) if faults.len() == 0 => Ok(expr),
        Ok(_) => Err(faults),
        Err(fault) => {
            faults.push(fault);
            Err(faults)
        }
    }
}

/// What an operand can start with.
const OPERAND: &str = "{'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}";
/// The same where a list may end, and where a map may.
const ITEM: &str = "{'[', ']', '{', '(', '.', ',', '-', '!', '?', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}";
const ENTRY: &str = "{'[', '{', '}', '(', '.', ',', '-', '!', '?', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}";

struct Parser<'s> {
    source: &'s str,
    words: Vec<Word>,
    next: usize,
    /// Expressions that are being read inside one another.
    depth: u16,
    /// What closes the brackets that are open, the innermost last.
    open: Vec<&'static str>,
    /// Of literals and names, which do not keep the rest from being read.
    faults: Faults,
}

impl Parser<'_> {
    fn word(&self) -> &Word {
        // The last word is `End`, and is never passed.
        &self.words[self.next.min(self.words.len() - 1)]
    }

    fn peek(&self) -> &Token {
        &self.word().token
    }

    fn at(&self) -> usize {
        self.word().at
    }

    fn advance(&mut self) -> Token {
        let token = self.peek().clone();
        self.next += 1;
        token
    }

    /// Passes a sign if it is the next word.
    fn takes(&mut self, sign: &str) -> bool {
        let found = matches!(self.peek(), Token::Sign(next) if *next == sign);
        self.next += usize::from(found);
        found
    }

    /// Passes the sign that has to follow.
    fn expect(&mut self, sign: &'static str) -> Result<(), Fault> {
        match self.takes(sign) {
            true => Ok(()),
            false => Err(self.absent(sign)),
        }
    }

    /// Passes what closes the innermost bracket.
    fn close(&mut self, sign: &'static str) -> Result<(), Fault> {
        self.open.pop();
        self.expect(sign)
    }

    fn shown(&self, index: usize) -> &str {
        let Some(word) = self.words.get(index) else {
            return "<EOF>";
        };
        let end = self
            .words
            .get(index + 1)
            .map_or(self.source.len(), |next| next.at);
        let text = self.source.get(word.at..end).unwrap_or("");
        match &word.token {
            Token::Sign(sign) => sign,
            // What follows a word up to the next one is blank, or a comment.
            Token::String(_) | Token::Bytes(_) => text.trim_end(),
            Token::Escaped(name) => text.get(..name.len() + 2).unwrap_or(text),
            Token::Uint(digits) => text.get(..=digits.len()).unwrap_or(text),
            Token::Ident(text) | Token::Int(text) | Token::Double(text) => text,
            Token::End => "<EOF>",
        }
    }

    fn is_operand(&self, index: usize) -> bool {
        match self.words.get(index).map(|word| &word.token) {
            None | Some(Token::End | Token::Escaped(_)) => false,
            Some(Token::Sign(sign)) => matches!(*sign, "[" | "{" | "(" | "." | "-" | "!"),
            Some(_) => true,
        }
    }

    /// The next word does not belong where it stands, and another is expected; where the one behind it would do, it is one too many.
    fn misplaced(&self, expected: &str) -> Fault {
        let follows = match expected {
            OPERAND | ITEM | ENTRY => self.is_operand(self.next + 1),
            "<EOF>" => {
                let after = self.words.get(self.next + 1);
                after.is_some_and(|word| word.token == Token::End)
            }
            _ => false,
        };
        let shown = self.shown(self.next);
        let found = match follows && self.peek() != &Token::End {
            true => "extraneous",
            false => "mismatched",
        };
        Fault::syntax(
            self.at(),
            format!("{found} input '{shown}' expecting {expected}"),
        )
    }

    /// A sign is not there: the next word takes its place, or is one too many, or what follows is in order without it.
    fn absent(&self, sign: &'static str) -> Fault {
        let shown = self.shown(self.next);
        let is = |index: usize, wanted: &str| {
            let token = self.words.get(index).map(|word| &word.token);
            matches!(token, Some(Token::Sign(found)) if *found == wanted)
        };
        let told = if is(self.next + 1, sign) {
            format!("extraneous input '{shown}' expecting '{sign}'")
        } else if self.follows(sign) {
            format!("missing '{sign}' at '{shown}'")
        } else {
            format!("mismatched input '{shown}' expecting '{sign}'")
        };
        Fault::syntax(self.at(), told)
    }

    /// Whether the next word can follow a sign.
    fn follows(&self, sign: &str) -> bool {
        match (sign, self.peek()) {
            (":", _) => self.is_operand(self.next),
            (_, Token::Sign(next)) => {
                BINARY.iter().any(|(_, operator, _)| operator == next)
                    || matches!(*next, "." | "[" | "?")
                    || self.open.last() == Some(next)
            }
            (_, Token::End) => self.open.is_empty(),
            _ => false,
        }
    }

    /// Makes a node, unless the tree gets too high by it.
    fn node(&self, at: usize, kind: Kind) -> Result<Expr, Fault> {
        let expr = Expr::new(at, kind);
        match expr.height() > HEIGHT_MAX {
            true => Err(too_deep(at)),
            false => Ok(expr),
        }
    }

    fn call(&self, at: usize, function: &str, args: Vec<Expr>) -> Result<Expr, Fault> {
        self.node(at, Expr::call(at, function, args).kind)
    }

    fn expression(&mut self) -> Result<Expr, Fault> {
        if self.depth >= HEIGHT_MAX {
            return Err(too_deep(self.at()));
        }
        self.depth += 1;
        let read = self.conditional();
        self.depth -= 1;
        read
    }

    fn conditional(&mut self) -> Result<Expr, Fault> {
        let condition = self.binary(2)?;
        let at = self.at();
        if !self.takes("?") {
            return Ok(condition);
        }
        let yes = self.binary(2)?;
        self.expect(":")?;
        let no = self.expression()?;
        self.call(at, operator::CONDITIONAL, vec![condition, yes, no])
    }

    /// Operators that bind at least as tightly as `least`.
    fn binary(&mut self, least: u8) -> Result<Expr, Fault> {
        let mut left = self.unary()?;
        // The highest precedence that may still follow: what is looser ends the operands on the right.
        loop {
            let Token::Sign(sign) = *self.peek() else {
                return Ok(left);
            };
            let Some((function, _, precedence)) =
                BINARY.iter().find(|(_, operator, _)| *operator == sign)
            else {
                return Ok(left);
            };
            if *precedence < least {
                return Ok(left);
            }
            let at = self.at();
            let mut terms = vec![left];
            let flat = matches!(sign, "&&" | "||");
            while self.takes(sign) {
                terms.push(self.binary(precedence + 1)?);
                if !flat {
                    break;
                }
            }
            left = self.call(at, function, terms)?;
        }
    }

    fn unary(&mut self) -> Result<Expr, Fault> {
        let at = self.at();
        for (sign, function) in [("!", operator::NOT), ("-", operator::NEGATE)] {
            let signs = self.words.get(self.next..).unwrap_or_default().iter();
            let count = signs
                .take_while(|word| matches!(word.token, Token::Sign(next) if next == sign))
                .count();
            let number = matches!(
                self.words.get(self.next + count).map(|word| &word.token),
                Some(Token::Int(_) | Token::Double(_))
            );
            // The only sign before a number is the number's.
            if count > 0 && !(sign == "-" && count == 1 && number) {
                self.next += count;
                let operand = self.member()?;
                return match count % 2 {
                    0 => Ok(operand),
                    _ => self.call(at, function, vec![operand]),
                };
            }
        }
        self.member()
    }

    fn member(&mut self) -> Result<Expr, Fault> {
        let mut operand = self.primary()?;
        loop {
            let at = self.at();
            if self.takes(".") {
                let optional = self.takes("?");
                let (name, escaped) = match self.peek().clone() {
                    Token::Ident(name) if matches!(name.as_str(), "true" | "false" | "null") => {
                        return Err(self.misplaced("IDENTIFIER"));
                    }
                    Token::Ident(name) => (name, false),
                    Token::Escaped(name) => (name, true),
                    _ => {
                        let shown = self.shown(self.next);
                        let told = format!("no viable alternative at input '.{shown}'");
                        return Err(Fault::syntax(self.at(), told));
                    }
                };
                self.next += 1;
                let open = self.at();
                operand = match !optional && !escaped && self.takes("(") {
                    true => {
                        let args = self.arguments()?;
                        self.node(open, Expr::member(open, operand, &name, args).kind)?
                    }
                    false => {
                        let select = Expr::select(at, operand, &name, optional).kind;
                        let select = self.node(at, select)?;
                        self.made(select)?
                    }
                };
            } else if self.takes("[") {
                let function = match self.takes("?") {
                    true => operator::OPTIONAL_INDEX,
                    false => operator::INDEX,
                };
                self.open.push("]");
                let index = self.expression()?;
                self.close("]")?;
                operand = self.call(at, function, vec![operand, index])?;
            } else {
                return Ok(operand);
            }
        }
    }

    /// Up to the parenthesis that closes them.
    fn arguments(&mut self) -> Result<Vec<Expr>, Fault> {
        let mut args = Vec::new();
        if self.takes(")") {
            return Ok(args);
        }
        self.open.push(")");
        loop {
            args.push(self.expression()?);
            if !self.takes(",") {
                self.close(")")?;
                return Ok(args);
            }
        }
    }

    fn primary(&mut self) -> Result<Expr, Fault> {
        let at = self.at();
        if self.takes("(") {
            self.open.push(")");
            let expr = self.expression()?;
            self.close(")")?;
            return Ok(expr);
        }
        if self.takes("[") {
            return self.list(at);
        }
        if self.takes("{") {
            return self.map(at);
        }
        let negative = self.takes("-");
        let rooted = !negative && self.takes(".");
        let token = self.peek().clone();
        let literal = match token {
            Token::Ident(name) if !negative => {
                self.next += 1;
                return self.named(at, &name, rooted);
            }
            _ if rooted => return Err(self.misplaced("IDENTIFIER")),
            Token::Int(digits) => {
                let number = integer(&digits, negative);
                Literal::Int(self.literal(at, "int", number))
            }
            Token::Double(digits) => {
                let number: Option<f64> = digits.parse().ok();
                let number = number.filter(|number| number.is_finite());
                let number = self.literal(at, "double", number);
                Literal::Double(if negative { -number } else { number })
            }
            _ if negative => return Err(self.misplaced(OPERAND)),
            Token::Uint(digits) => {
                let number = unsigned(&digits);
                Literal::Uint(self.literal(at, "uint", number))
            }
            Token::String(text) => Literal::String(text),
            Token::Bytes(bytes) => Literal::Bytes(bytes),
            _ => return Err(self.misplaced(OPERAND)),
        };
        self.advance();
        self.node(at, Kind::Literal(literal))
    }

    /// The value of a literal; one that has none is told, and what follows it is read.
    fn literal<T: Default>(&mut self, at: usize, of: &str, value: Option<T>) -> T {
        if value.is_none() {
            let told = format!("invalid {of} literal");
            self.faults.push(Fault::new(at, told));
        }
        value.unwrap_or_default()
    }

    fn named(&mut self, at: usize, name: &str, rooted: bool) -> Result<Expr, Fault> {
        let literal = match name {
            "true" => Some(Literal::Bool(true)),
            "false" => Some(Literal::Bool(false)),
            "null" => Some(Literal::Null),
            _ => None,
        };
        if let Some(literal) = literal.filter(|_| !rooted) {
            return self.node(at, Kind::Literal(literal));
        }
        if RESERVED.contains(&name) {
            let told = format!("reserved identifier: {name}");
            self.faults.push(Fault::new(at, told));
        }
        let open = self.at();
        if self.takes("(") {
            let args = self.arguments()?;
            return self.call(open, name, args);
        }
        let ident = self.node(at, Kind::Ident(name.to_owned()))?;
        self.made(ident)
    }

    /// `Name{field: value}`, where what was read so far is a name.
    fn made(&mut self, name: Expr) -> Result<Expr, Fault> {
        let at = self.at();
        let Some(qualified) = name.qualified_name() else {
            return Ok(name);
        };
        if !self.takes("{") {
            return Ok(name);
        }
        let mut entries = Vec::new();
        self.open.push("}");
        while !matches!(self.peek(), Token::Sign("}")) {
            let optional = self.takes("?");
            let (Token::Ident(field) | Token::Escaped(field)) = self.peek().clone() else {
                return Err(self.misplaced("IDENTIFIER"));
            };
            self.next += 1;
            // A field is told of by its colon.
            let key = self.node(self.at(), Kind::Literal(Literal::String(field)))?;
            self.expect(":")?;
            let value = self.expression()?;
            entries.push(Entry {
                key,
                value,
                optional,
            });
            if !self.takes(",") {
                break;
            }
        }
        self.close("}")?;
        let fields = self.node(at, Kind::Map(entries))?;
        let name = self.node(name.at, Kind::Literal(Literal::String(qualified)))?;
        self.call(at, operator::NEW, vec![name, fields])
    }

    fn list(&mut self, at: usize) -> Result<Expr, Fault> {
        let mut items = Vec::new();
        self.open.push("]");
        while !matches!(self.peek(), Token::Sign("]")) {
            // A comma may stand alone.
            if items.is_empty() && self.takes(",") {
                break;
            }
            let optional = self.takes("?");
            if items.is_empty() && !optional && !self.is_operand(self.next) {
                return Err(self.misplaced(ITEM));
            }
            let value = self.expression()?;
            items.push(Item { value, optional });
            if !self.takes(",") {
                break;
            }
        }
        self.close("]")?;
        self.node(at, Kind::List(items))
    }

    fn map(&mut self, at: usize) -> Result<Expr, Fault> {
        let mut entries = Vec::new();
        self.open.push("}");
        while !matches!(self.peek(), Token::Sign("}")) {
            // A comma may stand alone.
            if entries.is_empty() && self.takes(",") {
                break;
            }
            let optional = self.takes("?");
            if entries.is_empty() && !optional && !self.is_operand(self.next) {
                return Err(self.misplaced(ENTRY));
            }
            let key = self.expression()?;
            self.expect(":")?;
            let value = self.expression()?;
            entries.push(Entry {
                key,
                value,
                optional,
            });
            if !self.takes(",") {
                break;
            }
        }
        self.close("}")?;
        self.node(at, Kind::Map(entries))
    }
}

fn too_deep(at: usize) -> Fault {
    Fault::new(
        at,
        "expression recursion limit exceeded: ".to_owned() + &HEIGHT_MAX.to_string(),
    )
}

fn unsigned(digits: &str) -> Option<u64> {
    match digits.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => digits.parse().ok(),
    }
}

fn integer(digits: &str, negative: bool) -> Option<i64> {
    let magnitude = unsigned(digits).map(i128::from);
    let number = magnitude.map(|number| if negative { -number } else { number });
    i64::try_from(number?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(source: &str) -> String {
        match parse(source) {
            Ok(expr) => expr.to_string(),
            Err(fault) => fault.describe(source),
        }
    }

    #[test]
    fn operators_bind_as_the_grammar_says() {
        for (source, printed) in [
            ("1+2*3", "1 + 2 * 3"),
            ("(1+2)*3", "(1 + 2) * 3"),
            ("1-2-3", "1 - 2 - 3"),
            ("1-(2-3)", "1 - (2 - 3)"),
            ("a&&b||c&&d", "a && b || c && d"),
            ("a?b:c?d:e", "a ? b : c ? d : e"),
            ("(a?b:c)?d:e", "(a ? b : c) ? d : e"),
            ("!!a", "a"),
            ("!!!a.b", "!a.b"),
            ("--1", "1"),
            ("-9223372036854775808", "-9223372036854775808"),
            ("-(1)", "-(1)"),
            ("a - -1", "a - -1"),
            ("(-1).x()", "(-1).x()"),
            ("a.b['c'][0].d(e, f)", "a.b[\"c\"][0].d(e, f)"),
            ("a.?b[?c]", "a.?b[?c]"),
            ("[1, ?x, 3u,]", "[1, ?x, 3u]"),
            ("{'a': 1, ?b: 2.5}", "{\"a\": 1, ?b: 2.5}"),
            ("x in [1] == true", "x in [1] == true"),
            ("has(a.b)", "has(a.b)"),
            (
                r#"r'\d' + '\u00e9\x41\101' + """a"b""""#,
                r#""\\d" + "éAA" + "a\"b""#,
            ),
            ("b'\\xff' // rest", "b\"\\xff\""),
            ("self.namespace", "self.namespace"),
            ("a.`b-c/d`.`e`", "a.`b-c/d`.e"),
            ("has(a.`in`)", "has(a.`in`)"),
            ("0x1F + 1e3 + .5", "31 + 1000.0 + 0.5"),
        ] {
            assert_eq!(read(source), printed, "{source}");
            assert_eq!(parse(&read(source)).unwrap(), parse(source).unwrap());
        }
    }

    #[test]
    fn mistakes_are_told_with_their_place() {
        for (source, told) in [
            (
                "1 +",
                "ERROR: <input>:1:4: Syntax error: mismatched input '<EOF>' expecting {'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}\n | 1 +\n | ...^",
            ),
            (
                "a b",
                "ERROR: <input>:1:3: Syntax error: extraneous input 'b' expecting <EOF>\n | a b\n | ..^",
            ),
            (
                "x.k! == '1'",
                "ERROR: <input>:1:4: Syntax error: mismatched input '!' expecting <EOF>\n | x.k! == '1'\n | ...^",
            ),
            (
                "self.true == 1",
                "ERROR: <input>:1:6: Syntax error: mismatched input 'true' expecting IDENTIFIER\n | self.true == 1\n | .....^",
            ),
            (
                "{'a': 1}.\"a\"",
                "ERROR: <input>:1:10: Syntax error: no viable alternative at input '.\"a\"'\n | {'a': 1}.\"a\"\n | .........^",
            ),
            (
                "{a}",
                "ERROR: <input>:1:3: Syntax error: mismatched input '}' expecting ':'\n | {a}\n | ..^",
            ),
            (
                "(1 + 2",
                "ERROR: <input>:1:7: Syntax error: missing ')' at '<EOF>'\n | (1 + 2\n | ......^",
            ),
            (
                "a | b",
                "ERROR: <input>:1:3: Syntax error: token recognition error at: '| '\n | a | b\n | ..^",
            ),
            (
                "'😁' in ['😁', 1 2]",
                "ERROR: <input>:1:16: Syntax error: extraneous input '2' expecting ']'\n | '😁' in ['😁', 1 2]\n | .．.......．.....^",
            ),
            (
                "'a",
                "ERROR: <input>:1:1: Syntax error: token recognition error at: ''a'\n | 'a\n | ^",
            ),
            (
                "a &&\n  namespace",
                "ERROR: <input>:2:3: reserved identifier: namespace\n |   namespace\n | ..^",
            ),
            (
                "9223372036854775808",
                "ERROR: <input>:1:1: invalid int literal\n | 9223372036854775808\n | ^",
            ),
        ] {
            assert_eq!(read(source), told, "{source}");
        }
    }

    #[test]
    fn nothing_recurses_without_end() {
        let many = 90_000;
        for source in [
            "(".repeat(many),
            "[".repeat(many),
            "-".repeat(many) + "x",
            "!".repeat(many) + "x",
            "a".to_owned() + &".b".repeat(many / 2),
            "a".to_owned() + &"[0]".repeat(many / 3),
            "1".to_owned() + &"+1".repeat(many / 2),
            "a".to_owned() + &"?b:c".repeat(many / 4),
            "a?".repeat(many / 2),
            "f(".repeat(many / 2),
            "{1:".repeat(many / 3),
        ] {
            let fault = parse(&source);
            let shown = fault.as_ref().err().map(|fault| fault.message.clone());
            let even = source.starts_with(['-', '!']);
            assert!(even || fault.is_err(), "{:?}: {shown:?}", &source[..10]);
        }
        // Terms of one operator stand beside one another.
        let wide = vec!["a"; 20_000].join("||");
        assert!(parse(&wide).is_ok());
        assert!(parse(&"a".repeat(SOURCE_CHARS_MAX + 1)).is_err());
    }
}
