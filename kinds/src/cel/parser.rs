//! From words to an expression.
//!
//! Invariants: no input recurses deeper than a named bound, whatever its length; chains of `&&` and `||` become one call of
//! all their terms. Left to others: macros (`super::macros`), types (`super::check`).
//!
//! Source: the grammar of cel-spec, `doc/langdef.md`.

use super::Fault;
use super::ast::{BINARY, Entry, Expr, HEIGHT_MAX, Item, Kind, Literal, operator};
use super::lexer::{Token, Word, words};

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
    let length = source.chars().count();
    if length > SOURCE_CHARS_MAX {
        let sentence = format!(
            "expression code point size exceeds limit: size: {length}, limit {SOURCE_CHARS_MAX}"
        );
        return Err(Fault::new(0, sentence));
    }
    let mut parser = Parser {
        words: words(source)?,
        next: 0,
        depth: 0,
    };
    let expr = parser.expression()?;
    match parser.peek() {
        Token::End => Ok(expr),
        _ => Err(parser.unexpected()),
    }
}

struct Parser {
    words: Vec<Word>,
    next: usize,
    /// Expressions that are being read inside one another.
    depth: u16,
}

impl Parser {
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

    fn expect(&mut self, sign: &str) -> Result<(), Fault> {
        match self.takes(sign) {
            true => Ok(()),
            false => Err(self.unexpected()),
        }
    }

    fn unexpected(&self) -> Fault {
        let shown = match self.peek() {
            Token::Ident(text) | Token::Int(text) | Token::Uint(text) | Token::Double(text) => {
                text.clone()
            }
            Token::String(text) => format!("{text:?}"),
            Token::Bytes(_) => "b\"…\"".to_owned(),
            Token::Sign(sign) => (*sign).to_owned(),
            Token::End => "<EOF>".to_owned(),
        };
        Fault::syntax(self.at(), format!("mismatched input '{shown}'"))
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
            let mut count = 0;
            while matches!(self.peek(), Token::Sign(next) if *next == sign) {
                // The last sign before a number is the number's.
                let number = matches!(
                    self.words.get(self.next + 1).map(|word| &word.token),
                    Some(Token::Int(_) | Token::Double(_))
                );
                if sign == "-" && number {
                    break;
                }
                self.next += 1;
                count += 1;
            }
            if count > 0 {
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
                let Token::Ident(name) = self.peek().clone() else {
                    return Err(self.unexpected());
                };
                if matches!(name.as_str(), "true" | "false" | "null") {
                    return Err(self.unexpected());
                }
                self.next += 1;
                let open = self.at();
                operand = match !optional && self.takes("(") {
                    true => {
                        let args = self.arguments(")")?;
                        self.node(open, Expr::member(open, operand, &name, args).kind)?
                    }
                    false => self.node(at, Expr::select(at, operand, &name, optional).kind)?,
                };
            } else if self.takes("[") {
                let function = match self.takes("?") {
                    true => operator::OPTIONAL_INDEX,
                    false => operator::INDEX,
                };
                let index = self.expression()?;
                self.expect("]")?;
                operand = self.call(at, function, vec![operand, index])?;
            } else {
                return Ok(operand);
            }
        }
    }

    fn arguments(&mut self, end: &str) -> Result<Vec<Expr>, Fault> {
        let mut args = Vec::new();
        if self.takes(end) {
            return Ok(args);
        }
        loop {
            args.push(self.expression()?);
            if !self.takes(",") {
                self.expect(end)?;
                return Ok(args);
            }
        }
    }

    fn primary(&mut self) -> Result<Expr, Fault> {
        let at = self.at();
        if self.takes("(") {
            let expr = self.expression()?;
            self.expect(")")?;
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
            _ if rooted => return Err(self.unexpected()),
            Token::Int(digits) => Literal::Int(integer(at, &digits, negative)?),
            Token::Double(digits) => {
                let number: f64 = digits
                    .parse()
                    .map_err(|_| Fault::syntax(at, "invalid double literal".to_owned()))?;
                if number.is_infinite() {
                    return Err(Fault::syntax(at, "invalid double literal".to_owned()));
                }
                Literal::Double(if negative { -number } else { number })
            }
            _ if negative => return Err(self.unexpected()),
            Token::Uint(digits) => Literal::Uint(
                unsigned(&digits)
                    .ok_or_else(|| Fault::syntax(at, "invalid uint literal".to_owned()))?,
            ),
            Token::String(text) => Literal::String(text),
            Token::Bytes(bytes) => Literal::Bytes(bytes),
            _ => return Err(self.unexpected()),
        };
        self.advance();
        self.node(at, Kind::Literal(literal))
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
            return Err(Fault::syntax(at, format!("reserved identifier: {name}")));
        }
        let open = self.at();
        if self.takes("(") {
            let args = self.arguments(")")?;
            return self.call(open, name, args);
        }
        self.node(at, Kind::Ident(name.to_owned()))
    }

    fn list(&mut self, at: usize) -> Result<Expr, Fault> {
        let mut items = Vec::new();
        while !self.takes("]") {
            let optional = self.takes("?");
            let value = self.expression()?;
            items.push(Item { value, optional });
            if !self.takes(",") {
                self.expect("]")?;
                break;
            }
        }
        self.node(at, Kind::List(items))
    }

    fn map(&mut self, at: usize) -> Result<Expr, Fault> {
        let mut entries = Vec::new();
        while !self.takes("}") {
            let optional = self.takes("?");
            let key = self.expression()?;
            self.expect(":")?;
            let value = self.expression()?;
            entries.push(Entry {
                key,
                value,
                optional,
            });
            if !self.takes(",") {
                self.expect("}")?;
                break;
            }
        }
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

fn integer(at: usize, digits: &str, negative: bool) -> Result<i64, Fault> {
    let magnitude = unsigned(digits).map(i128::from);
    let number = magnitude.map(|number| if negative { -number } else { number });
    number
        .and_then(|number| i64::try_from(number).ok())
        .ok_or_else(|| Fault::syntax(at, "invalid int literal".to_owned()))
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
            ("--1", "-(-1)"),
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
                "ERROR: <input>:1:4: Syntax error: mismatched input '<EOF>'\n | 1 +\n | ...^",
            ),
            (
                "a b",
                "ERROR: <input>:1:3: Syntax error: mismatched input 'b'\n | a b\n | ..^",
            ),
            (
                "'a",
                "ERROR: <input>:1:1: Syntax error: token recognition error at: '''\n | 'a\n | ^",
            ),
            (
                "a &&\n  namespace",
                "ERROR: <input>:2:3: Syntax error: reserved identifier: namespace\n |   namespace\n | ..^",
            ),
            (
                "9223372036854775808",
                "ERROR: <input>:1:1: Syntax error: invalid int literal\n | 9223372036854775808\n | ^",
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
