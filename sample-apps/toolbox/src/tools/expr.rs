//! `expr`: an expression over numbers and strings; 0 if its value is neither empty nor zero, else 1; 2 if it is none.

use super::call::{Call, Ended, Stop};
use super::pattern::{Pattern, Syntax};

/// How deep parentheses go.
const DEPTH_MAX: usize = 200;

/// `expr EXPRESSION`
pub async fn expr(call: &mut Call) -> Ended {
    let mut args = call.args.as_slice();
    if let [dashes, rest @ ..] = args
        && dashes == "--"
    {
        args = rest;
    }
    if args.is_empty() {
        return Err(Stop::Said(2, "Usage: expr EXPRESSION\n".into()));
    }
    let mut parser = Parser {
        args,
        at: 0,
        depth: 0,
    };
    let value = parser.binary(0)?;
    if parser.at < args.len() {
        return Err(syntax());
    }
    let null = value.is_empty()
        || value
            .trim_start_matches('-')
            .bytes()
            .all(|byte| byte == b'0')
            && value != "-";
    call.out(format!("{value}\n")).await?;
    Ok(i32::from(null))
}

fn syntax() -> Stop {
    Stop::Failed(2, "syntax error".into())
}

struct Parser<'a> {
    args: &'a [String],
    at: usize,
    depth: usize,
}

/// Operators, the loosest first.
const LEVELS: [&[&str]; 6] = [
    &["|"],
    &["&"],
    &["<", "<=", "=", "==", "!=", ">=", ">"],
    &["+", "-"],
    &["*", "/", "%"],
    &[":"],
];

impl Parser<'_> {
    fn binary(&mut self, level: usize) -> Result<String, Stop> {
        let Some(operators) = LEVELS.get(level) else {
            return self.primary();
        };
        let mut left = self.binary(level + 1)?;
        while let Some(operator) = self
            .args
            .get(self.at)
            .filter(|word| operators.contains(&word.as_str()))
        {
            self.at += 1;
            let right = self.binary(level + 1)?;
            left = apply(&left, operator, &right)?;
        }
        Ok(left)
    }

    fn primary(&mut self) -> Result<String, Stop> {
        let word = self.args.get(self.at).ok_or_else(syntax)?;
        self.at += 1;
        let mut next = || {
            let word = self.args.get(self.at).cloned();
            self.at += 1;
            word.ok_or_else(syntax)
        };
        Ok(match word.as_str() {
            "(" => {
                self.depth += 1;
                if self.depth > DEPTH_MAX {
                    return Err(syntax());
                }
                let value = self.binary(0)?;
                self.depth -= 1;
                if self.args.get(self.at).map(String::as_str) != Some(")") {
                    return Err(syntax());
                }
                self.at += 1;
                value
            }
            "quote" => next()?,
            "length" => next()?.len().to_string(),
            "match" => {
                let (text, pattern) = (next()?, next()?);
                matched(&text, &pattern)?
            }
            "index" => {
                let (text, set) = (next()?, next()?);
                let found = text.bytes().position(|byte| set.as_bytes().contains(&byte));
                found.map_or(0, |at| at + 1).to_string()
            }
            "substr" => {
                let (text, from, length) = (next()?, next()?, next()?);
                let (from, length) = (number(&from)?, number(&length)?);
                let start = usize::try_from(from.max(1) - 1)
                    .unwrap_or(usize::MAX)
                    .min(text.len());
                let length = usize::try_from(length).unwrap_or(0);
                let end = start.saturating_add(length).min(text.len());
                match from < 1 {
                    true => String::new(),
                    false => {
                        String::from_utf8_lossy(text.as_bytes().get(start..end).unwrap_or_default())
                            .into_owned()
                    }
                }
            }
            word => word.to_owned(),
        })
    }
}

fn number(text: &str) -> Result<i64, Stop> {
    text.parse()
        .map_err(|_| Stop::Failed(2, "non-numeric argument".into()))
}

fn null(text: &str) -> bool {
    text.is_empty() || text.parse() == Ok(0i64)
}

fn apply(left: &str, operator: &str, right: &str) -> Result<String, Stop> {
    let too_large = || Stop::Failed(2, "result is out of range".into());
    let truth = |value: bool| i64::from(value).to_string();
    Ok(match operator {
        "|" if !null(left) => left.to_owned(),
        "|" if !null(right) => right.to_owned(),
        "|" => "0".to_owned(),
        "&" if null(left) || null(right) => "0".to_owned(),
        "&" => left.to_owned(),
        ":" => matched(left, right)?,
        "<" | "<=" | "=" | "==" | "!=" | ">=" | ">" => {
            let order = match (left.parse::<i64>(), right.parse::<i64>()) {
                (Ok(left), Ok(right)) => left.cmp(&right),
                _ => left.cmp(right),
            };
            truth(match operator {
                "<" => order.is_lt(),
                "<=" => order.is_le(),
                "!=" => order.is_ne(),
                ">=" => order.is_ge(),
                ">" => order.is_gt(),
                _ => order.is_eq(),
            })
        }
        _ => {
            let (left, right) = (number(left)?, number(right)?);
            if right == 0 && matches!(operator, "/" | "%") {
                return Err(Stop::Failed(2, "division by zero".into()));
            }
            let value = match operator {
                "+" => left.checked_add(right),
                "-" => left.checked_sub(right),
                "*" => left.checked_mul(right),
                "/" => left.checked_div(right),
                _ => left.checked_rem(right),
            };
            value.ok_or_else(too_large)?.to_string()
        }
    })
}

/// The first group of a match at the start, or how long the match is.
fn matched(text: &str, pattern: &str) -> Result<String, Stop> {
    let anchored = format!("^{pattern}");
    let compiled = Pattern::new(anchored.as_bytes(), Syntax::default());
    let compiled =
        compiled.map_err(|error| Stop::Failed(2, format!("bad regex '{pattern}': {error}")))?;
    let spans = compiled.spans_at(text.as_bytes(), 0);
    if compiled.groups() > 0 {
        let group = spans.and_then(|spans| spans.get(1).copied().flatten());
        let group = group
            .and_then(|(from, to)| text.as_bytes().get(from..to))
            .unwrap_or_default();
        return Ok(String::from_utf8_lossy(group).into_owned());
    }
    let whole = spans.and_then(|spans| spans.first().copied().flatten());
    Ok(whole.map_or(0, |(from, to)| to - from).to_string())
}
