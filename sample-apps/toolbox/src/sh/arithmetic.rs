//! Arithmetic of `$(( ))` and `let`: C's operators on 64 bits, which wrap.
//!
//! A number that is too large is the largest. A variable's value is itself an expression, to a limited depth.

use super::variables::Variables;

/// How deep parentheses, unary operators and variables of variables may nest.
const DEPTH_MAX: u32 = 100;

/// How many variables' values may be read as expressions, since each may name several others.
const EXPRESSIONS_MAX: u32 = 10_000;

const LOOP: &str = "expression recursion loop detected";
const SYNTAX: &str = "arithmetic syntax error";

/// The value of an expression; an empty one is 0. Errors are the shell's words.
pub fn evaluate(text: &str, variables: &mut Variables) -> Result<i64, String> {
    evaluate_at(text, variables, 0, &mut EXPRESSIONS_MAX.clone())
}

fn evaluate_at(
    text: &str,
    variables: &mut Variables,
    depth: u32,
    left: &mut u32,
) -> Result<i64, String> {
    let mut parser = Parser {
        text: text.as_bytes(),
        at: 0,
        variables,
        depth,
        left,
        skipping: false,
    };
    if parser.peek().is_none() {
        return Ok(0);
    }
    let value = parser.comma()?;
    match parser.peek() {
        None => Ok(value),
        Some(_) => Err(SYNTAX.to_owned()),
    }
}

struct Parser<'a> {
    text: &'a [u8],
    at: usize,
    variables: &'a mut Variables,
    depth: u32,
    left: &'a mut u32,
    /// On the side that `&&`, `||` and `?:` do not take: nothing is assigned, nothing divided.
    skipping: bool,
}

/// Binary operators from the weakest; longer ones that begin alike are told apart by [`Parser::operator`].
const LEVELS: [&[&str]; 8] = [
    &["|"],
    &["^"],
    &["&"],
    &["==", "!="],
    &["<=", ">=", "<", ">"],
    &["<<", ">>"],
    &["+", "-"],
    &["*", "/", "%"],
];

const ASSIGNMENTS: [&str; 11] = [
    "<<=", ">>=", "+=", "-=", "*=", "/=", "%=", "&=", "^=", "|=", "=",
];

type Result64 = Result<i64, String>;

impl Parser<'_> {
    fn peek(&mut self) -> Option<u8> {
        while self.text.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
        self.text.get(self.at).copied()
    }

    fn rest(&mut self) -> &[u8] {
        self.peek();
        self.text.get(self.at..).unwrap_or_default()
    }

    fn take(&mut self, text: &str) -> bool {
        let found = self.rest().starts_with(text.as_bytes());
        self.at += if found { text.len() } else { 0 };
        found
    }

    /// Takes one of these operators, if it is not the beginning of another one.
    fn operator(&mut self, operators: &[&'static str]) -> Option<&'static str> {
        let rest = self.rest();
        let found = *operators
            .iter()
            .find(|operator| rest.starts_with(operator.as_bytes()))?;
        let next = rest.get(found.len()).copied();
        let longer = match found {
            "|" => matches!(next, Some(b'|' | b'=')),
            "&" => matches!(next, Some(b'&' | b'=')),
            "<" | ">" => next == Some(found.as_bytes()[0]),
            "*" => matches!(next, Some(b'*' | b'=')),
            "^" | "/" | "%" | "<<" | ">>" | "+" | "-" => next == Some(b'='),
            _ => false,
        };
        if longer {
            return None;
        }
        self.at += found.len();
        Some(found)
    }

    fn deeper(&mut self, inner: impl FnOnce(&mut Self) -> Result64) -> Result64 {
        if self.depth >= DEPTH_MAX {
            return Err(LOOP.to_owned());
        }
        self.depth += 1;
        let value = inner(self);
        self.depth -= 1;
        value
    }

    fn comma(&mut self) -> Result64 {
        let mut value = self.assignment()?;
        while self.take(",") {
            value = self.assignment()?;
        }
        Ok(value)
    }

    fn assignment(&mut self) -> Result64 {
        let before = self.at;
        if let Some(name) = self.name() {
            let rest = self.rest();
            let operator = ASSIGNMENTS
                .iter()
                .find(|operator| rest.starts_with(operator.as_bytes()));
            if let Some(operator) =
                operator.filter(|operator| **operator != "=" || rest.get(1) != Some(&b'='))
            {
                self.at += operator.len();
                let right = self.deeper(Self::assignment)?;
                let value = match operator.strip_suffix('=').unwrap_or_default() {
                    "" => right,
                    operator => {
                        let left = self.value_of(&name)?;
                        self.apply(operator, left, right)?
                    }
                };
                self.assign(&name, value)?;
                return Ok(value);
            }
        }
        self.at = before;
        self.conditional()
    }

    fn assign(&mut self, name: &str, value: i64) -> Result<(), String> {
        match self.skipping {
            true => Ok(()),
            false => self.variables.set(name, value.to_string()),
        }
    }

    fn skip_unless(&mut self, wanted: bool, inner: impl FnOnce(&mut Self) -> Result64) -> Result64 {
        let before = self.skipping;
        self.skipping |= !wanted;
        let value = inner(self);
        self.skipping = before;
        value
    }

    fn conditional(&mut self) -> Result64 {
        let condition = self.or()?;
        if !self.take("?") {
            return Ok(condition);
        }
        let yes = self.skip_unless(condition != 0, |parser| parser.deeper(Self::comma))?;
        if !self.take(":") {
            return Err("malformed ?: operator".to_owned());
        }
        let no = self.skip_unless(condition == 0, |parser| parser.deeper(Self::assignment))?;
        Ok(if condition != 0 { yes } else { no })
    }

    fn or(&mut self) -> Result64 {
        let mut value = self.and()?;
        while self.take("||") {
            let right = self.skip_unless(value == 0, Self::and)?;
            value = i64::from(value != 0 || right != 0);
        }
        Ok(value)
    }

    fn and(&mut self) -> Result64 {
        let mut value = self.binary(0)?;
        while self.take("&&") {
            let right = self.skip_unless(value != 0, |parser| parser.binary(0))?;
            value = i64::from(value != 0 && right != 0);
        }
        Ok(value)
    }

    fn binary(&mut self, level: usize) -> Result64 {
        let Some(operators) = LEVELS.get(level) else {
            return self.power();
        };
        let mut value = self.binary(level + 1)?;
        while let Some(operator) = self.operator(operators) {
            let right = self.binary(level + 1)?;
            value = self.apply(operator, value, right)?;
        }
        Ok(value)
    }

    fn apply(&self, operator: &str, left: i64, right: i64) -> Result64 {
        Ok(match operator {
            "|" => left | right,
            "^" => left ^ right,
            "&" => left & right,
            "==" => i64::from(left == right),
            "!=" => i64::from(left != right),
            "<=" => i64::from(left <= right),
            ">=" => i64::from(left >= right),
            "<" => i64::from(left < right),
            ">" => i64::from(left > right),
            "<<" => left.wrapping_shl(right as u32),
            ">>" => left.wrapping_shr(right as u32),
            "+" => left.wrapping_add(right),
            "-" => left.wrapping_sub(right),
            "*" => left.wrapping_mul(right),
            _ if right == 0 && self.skipping => 0,
            _ if right == 0 => return Err("divide by zero".to_owned()),
            "/" => left.wrapping_div(right),
            _ => left.wrapping_rem(right),
        })
    }

    fn power(&mut self) -> Result64 {
        let base = self.unary()?;
        if !self.take("**") {
            return Ok(base);
        }
        let exponent = self.deeper(Self::power)?;
        if exponent < 0 {
            return Err("exponent less than 0".to_owned());
        }
        let mut value = 1_i64;
        let (mut square, mut rest) = (base, exponent);
        while rest > 0 {
            if rest & 1 == 1 {
                value = value.wrapping_mul(square);
            }
            square = square.wrapping_mul(square);
            rest >>= 1;
        }
        Ok(value)
    }

    fn unary(&mut self) -> Result64 {
        for (operator, step) in [("++", 1), ("--", -1)] {
            let before = self.at;
            if self.take(operator) {
                if let Some(name) = self.name() {
                    let value = self.value_of(&name)?.wrapping_add(step);
                    self.assign(&name, value)?;
                    return Ok(value);
                }
                // Two signs.
                self.at = before;
            }
        }
        match self.peek() {
            Some(b'+') => {
                self.at += 1;
                self.deeper(Self::unary)
            }
            Some(b'-') => {
                self.at += 1;
                // So that the smallest number can be written.
                if self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
                    let digits = self.word();
                    let value = format!("-{digits}").parse();
                    if let (Ok(value), false) = (value, digits.starts_with('0')) {
                        return Ok(value);
                    }
                    return Ok(number(&digits).ok_or(SYNTAX)?.wrapping_neg());
                }
                Ok(self.deeper(Self::unary)?.wrapping_neg())
            }
            Some(b'!') => {
                self.at += 1;
                Ok(i64::from(self.deeper(Self::unary)? == 0))
            }
            Some(b'~') => {
                self.at += 1;
                Ok(!self.deeper(Self::unary)?)
            }
            _ => self.primary(),
        }
    }

    fn primary(&mut self) -> Result64 {
        match self.peek() {
            Some(b'(') => {
                self.at += 1;
                let value = self.deeper(Self::comma)?;
                match self.take(")") {
                    true => Ok(value),
                    false => Err(SYNTAX.to_owned()),
                }
            }
            Some(byte) if byte.is_ascii_digit() => {
                let digits = self.word();
                number(&digits).ok_or_else(|| SYNTAX.to_owned())
            }
            _ => {
                let name = self.name().ok_or(SYNTAX)?;
                let value = self.value_of(&name)?;
                for (operator, step) in [("++", 1), ("--", -1)] {
                    if self.take(operator) {
                        self.assign(&name, value.wrapping_add(step))?;
                    }
                }
                Ok(value)
            }
        }
    }

    fn word(&mut self) -> String {
        let rest = self.rest();
        let count = rest
            .iter()
            .take_while(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'#'))
            .count();
        let word = String::from_utf8_lossy(rest.get(..count).unwrap_or_default()).into_owned();
        self.at += count;
        word
    }

    fn name(&mut self) -> Option<String> {
        let first = self.peek()?;
        if first != b'_' && !first.is_ascii_alphabetic() {
            return None;
        }
        let rest = self.rest();
        let count = rest
            .iter()
            .take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'_')
            .count();
        let name = String::from_utf8_lossy(rest.get(..count).unwrap_or_default()).into_owned();
        self.at += count;
        Some(name)
    }

    fn value_of(&mut self, name: &str) -> Result64 {
        let value = self.variables.read(name).unwrap_or_default();
        let trimmed = value.trim();
        if let Some(value) = number(trimmed) {
            return Ok(value);
        }
        if self.depth >= DEPTH_MAX || *self.left == 0 {
            return Err(LOOP.to_owned());
        }
        *self.left -= 1;
        evaluate_at(trimmed, self.variables, self.depth + 1, self.left)
    }
}

/// A literal: decimal, octal, hexadecimal or `base#digits`; one that is too large is the largest number.
fn number(digits: &str) -> Option<i64> {
    let parse = |digits: &str, base: u32| {
        if digits.is_empty() || !digits.chars().all(|digit| digit.is_digit(base)) {
            return None;
        }
        Some(i64::from_str_radix(digits, base).unwrap_or(i64::MAX))
    };
    if let Some((base, digits)) = digits.split_once('#') {
        let base = base.parse().ok().filter(|base| (2..=36).contains(base))?;
        return parse(digits, base);
    }
    if let Some(digits) = digits
        .strip_prefix("0x")
        .or_else(|| digits.strip_prefix("0X"))
    {
        return parse(digits, 16);
    }
    match digits.strip_prefix('0') {
        Some("") => Some(0),
        Some(digits) => parse(digits, 8),
        None => parse(digits, 10),
    }
}

#[cfg(test)]
mod tests {
    use super::{Variables, evaluate};

    #[test]
    fn expressions_have_their_values() {
        let mut variables = Variables::default();
        variables.set("x", "5".to_owned()).unwrap();
        for (text, value) in [
            ("1 + 2 * 3", "7"),
            ("(1 + 2) * 3", "9"),
            ("1 << 3 | 1", "9"),
            ("-7 / 2, -7 % 2", "-1"),
            ("2 ** 10", "1024"),
            ("0x1F + 010", "39"),
            ("x = x + 1, x", "6"),
            ("x++ + ++x", "14"),
            ("1 ? 2 : 3", "2"),
            ("0 && (y = 1)", "0"),
            ("!0 + ~0", "0"),
            ("9223372036854775807 + 1", "-9223372036854775808"),
            ("99999999999999999999", "9223372036854775807"),
            ("-9223372036854775808 / -1", "-9223372036854775808"),
            ("a == b", "1"),
            ("1 / 0", "divide by zero"),
            ("0 && 1 / 0", "0"),
            ("1 +", "arithmetic syntax error"),
            ("08", "arithmetic syntax error"),
            ("", "0"),
        ] {
            let found = evaluate(text, &mut variables)
                .map_or_else(|error| error, |value| value.to_string());
            assert_eq!(found, value, "{text}");
        }
        let deep = "(".repeat(100_000);
        assert!(evaluate(&deep, &mut variables).is_err());
        assert_eq!(variables.get("y"), None);
    }

    #[test]
    fn variables_of_variables_end() {
        let mut variables = Variables::default();
        variables.set("a", "b".to_owned()).unwrap();
        variables.set("b", "a".to_owned()).unwrap();
        assert_eq!(
            evaluate("a", &mut variables),
            Err("expression recursion loop detected".to_owned())
        );
    }
}
