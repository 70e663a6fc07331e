//! Paths into objects as printer columns and `-o jsonpath` write them: `.status.conditions[?(@.type=="Ready")].status`.
//!
//! Invariants: total; what a path costs is linear in the value that it looks at, as often as it is repeated in itself.
//! Source: k8s.io/client-go `util/jsonpath`.

use serde_json::Value;

/// Characters of a path that is understood; published ones have some hundred.
const CHARS_MAX: usize = 4096;
/// Paths in one another: filters in filters.
const NESTED_MAX: usize = 8;
/// Values that one path may find on its way.
const FOUND_MAX: usize = 10_000;

/// A path that was understood.
#[derive(Clone, Debug, PartialEq)]
pub struct JsonPath(Vec<Step>);

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Field(String),
    /// `[start:end:step]`; an index is a slice of one.
    Slice {
        start: Option<i64>,
        end: Option<i64>,
        /// Whether the end is that of an index.
        derived: bool,
        step: Option<i64>,
    },
    /// Every element of a list, every value of an object.
    Every,
    Descend,
    Union(Vec<JsonPath>),
    Filter {
        left: JsonPath,
        /// None where it is enough that the left one is there.
        right: Option<(Comparison, JsonPath)>,
    },
    Literal(Value),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// What cannot be evaluated, and so shows nothing.
#[derive(Debug, PartialEq)]
pub struct Unfit;

impl JsonPath {
    /// None for what is no path.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::nested(text, NESTED_MAX)
    }

    fn nested(text: &str, levels: usize) -> Option<Self> {
        if text.len() > CHARS_MAX || levels == 0 {
            return None;
        }
        let mut steps = Vec::new();
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            if let Some(after) = rest.strip_prefix("[?(") {
                let (filter, after) = filter(after, levels)?;
                steps.push(filter);
                rest = after;
            } else if let Some(after) = rest.strip_prefix("..") {
                if steps.last() == Some(&Step::Descend) {
                    return None;
                }
                steps.push(Step::Descend);
                rest = after;
                if rest.starts_with(|c: char| c.is_alphanumeric() || c == '_') {
                    let (name, after) = name(rest);
                    steps.push(field(name));
                    rest = after;
                }
            } else if let Some(after) = rest.strip_prefix('[') {
                let end = after.find(']')?;
                steps.push(bracketed(&after[..end], levels)?);
                rest = &after[end + 1..];
            } else if let Some(after) = rest.strip_prefix('.') {
                let (name, after) = name(after);
                // A point alone is the object itself.
                if !name.is_empty() {
                    steps.push(field(name));
                }
                rest = after;
            } else if matches!(first, ' ' | '@' | '$') {
                rest = &rest[1..];
            } else if matches!(first, '"' | '\'') {
                let (text, after) = quoted(&rest[1..], first)?;
                steps.push(Step::Literal(text.into()));
                rest = after;
            } else if matches!(first, '+' | '-') || first.is_ascii_digit() {
                let end = rest[1..].find(|c: char| c != '.' && !c.is_ascii_digit());
                let (number, after) = rest.split_at(end.map_or(rest.len(), |end| end + 1));
                let number = number.strip_prefix('+').unwrap_or(number);
                let whole = number.parse::<i64>().map(Value::from).ok();
                let value = whole.or_else(|| Some(number.parse::<f64>().ok()?.into()))?;
                steps.push(Step::Literal(value));
                rest = after;
            } else {
                let (word, after) = name(rest);
                let value = word.parse::<bool>().ok()?;
                steps.push(Step::Literal(value.into()));
                rest = after;
            }
        }
        Some(Self(steps))
    }

    /// What it finds, in order.
    ///
    /// # Errors
    /// For a value that does not have the shape which the path expects.
    pub fn find<'v>(&'v self, value: &'v Value) -> Result<Vec<&'v Value>, Unfit> {
        let mut found = vec![value];
        for step in &self.0 {
            let mut next = Vec::new();
            match step {
                Step::Literal(literal) => next.push(literal),
                _ => {
                    for value in found {
                        step.apply(value, &mut next)?;
                        if next.len() > FOUND_MAX {
                            return Err(Unfit);
                        }
                    }
                }
            }
            found = next;
        }
        Ok(found)
    }
}

impl Step {
    fn apply<'v>(&'v self, value: &'v Value, next: &mut Vec<&'v Value>) -> Result<(), Unfit> {
        match self {
            Self::Literal(literal) => next.push(literal),
            Self::Field(name) => match value {
                Value::Object(map) => next.extend(map.get(name)),
                Value::Null => {}
                // A field of what has none is not there.
                _ => {}
            },
            Self::Every => match value {
                Value::Object(map) => next.extend(map.values()),
                Value::Array(items) => next.extend(items),
                _ => {}
            },
            Self::Descend => descend(value, next),
            Self::Union(paths) => {
                for path in paths {
                    next.extend(path.find(value)?);
                }
            }
            Self::Slice {
                start,
                end,
                derived,
                step,
            } => match value {
                Value::Null => {}
                Value::Array(items) => {
                    let length = i64::try_from(items.len()).map_err(|_| Unfit)?;
                    let mut from = start.unwrap_or(0);
                    if from < 0 {
                        from += length;
                    }
                    let mut to = end.unwrap_or(length);
                    if to < 0 || (to == 0 && *derived) {
                        to += length;
                    }
                    if from == to {
                        return Ok(());
                    }
                    let sound = (0..length).contains(&from) && (from..=length).contains(&to);
                    let by = step.unwrap_or(1);
                    if !sound || by <= 0 {
                        return Err(Unfit);
                    }
                    let position = |at: i64| usize::try_from(at).map_err(|_| Unfit);
                    let part = items
                        .get(position(from)?..position(to)?)
                        .unwrap_or_default();
                    next.extend(part.iter().step_by(position(by)?));
                }
                _ => return Err(Unfit),
            },
            Self::Filter { left, right } => {
                let items = value.as_array().ok_or(Unfit)?;
                for item in items {
                    let passes = match right {
                        None => left.find(item).is_ok_and(|found| !found.is_empty()),
                        Some((comparison, right)) => {
                            match (left.find(item)?.as_slice(), right.find(item)?.as_slice()) {
                                ([], _) | (_, []) => false,
                                ([left], [right]) => comparison.holds(left, right)?,
                                _ => return Err(Unfit),
                            }
                        }
                    };
                    if passes {
                        next.push(item);
                    }
                }
            }
        }
        Ok(())
    }
}

impl Comparison {
    fn holds(self, left: &Value, right: &Value) -> Result<bool, Unfit> {
        use std::cmp::Ordering;
        let order = match (left, right) {
            (Value::String(left), Value::String(right)) => left.cmp(right),
            (Value::Number(left), Value::Number(right)) => {
                let (left, right) = (left.as_f64(), right.as_f64());
                left.zip(right)
                    .and_then(|(left, right)| left.partial_cmp(&right))
                    .ok_or(Unfit)?
            }
            (Value::Bool(left), Value::Bool(right)) => match self {
                Self::Equal => return Ok(left == right),
                Self::NotEqual => return Ok(left != right),
                _ => return Err(Unfit),
            },
            _ => return Err(Unfit),
        };
        Ok(match self {
            Self::Equal => order == Ordering::Equal,
            Self::NotEqual => order != Ordering::Equal,
            Self::Less => order == Ordering::Less,
            Self::LessOrEqual => order != Ordering::Greater,
            Self::Greater => order == Ordering::Greater,
            Self::GreaterOrEqual => order != Ordering::Less,
        })
    }
}

fn descend<'v>(value: &'v Value, next: &mut Vec<&'v Value>) {
    if next.len() > FOUND_MAX {
        return;
    }
    next.push(value);
    match value {
        Value::Object(map) => map.values().for_each(|value| descend(value, next)),
        Value::Array(items) => items.iter().for_each(|value| descend(value, next)),
        _ => {}
    }
}

/// The characters up to the next sign of the language, of which a backslash takes the meaning away.
fn name(text: &str) -> (String, &str) {
    let mut name = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => name.extend(chars.next().map(|(_, c)| c)),
            '.' | ',' | '[' | ']' | '$' | '@' | '{' | '}' | ' ' => return (name, &text[at..]),
            c => name.push(c),
        }
    }
    (name, "")
}

fn field(name: String) -> Step {
    match name.as_str() {
        "*" => Step::Every,
        _ => Step::Field(name),
    }
}

/// The text up to the same quote, and what follows it.
fn quoted(text: &str, quote: char) -> Option<(String, &str)> {
    let mut out = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => out.push(chars.next()?.1),
            c if c == quote => return Some((out, &text[at + c.len_utf8()..])),
            c => out.push(c),
        }
    }
    None
}

fn bracketed(text: &str, levels: usize) -> Option<Step> {
    if text.contains(',') {
        let parts = text.split(',');
        let paths = parts.map(|part| JsonPath::nested(&format!("[{}]", part.trim()), levels - 1));
        return Some(Step::Union(paths.collect::<Option<_>>()?));
    }
    if let Some(key) = text.strip_prefix('\'') {
        let key = key.strip_suffix('\'').filter(|key| !key.contains('\''))?;
        return Some(Step::Field(key.replace('\\', "")));
    }
    let parts: Vec<&str> = match text {
        "*" => vec!["", ""],
        text => text.split(':').collect(),
    };
    let number = |text: &str| match text {
        "" => Some(None),
        text => text.parse::<i64>().ok().map(Some),
    };
    match parts.as_slice() {
        [index] => {
            let index = index.parse::<i64>().ok()?;
            Some(Step::Slice {
                start: Some(index),
                end: index.checked_add(1),
                derived: true,
                step: None,
            })
        }
        [start, end] => Some(Step::Slice {
            start: number(start)?,
            end: number(end)?,
            derived: false,
            step: None,
        }),
        [start, end, step] => Some(Step::Slice {
            start: number(start)?,
            end: number(end)?,
            derived: false,
            step: number(step)?,
        }),
        _ => None,
    }
}

/// A filter behind its `[?(`, and what follows it.
fn filter(text: &str, levels: usize) -> Option<(Step, &str)> {
    let mut quote = None;
    let mut escaped = false;
    let end = text.char_indices().find_map(|(at, c)| {
        match (quote, c) {
            _ if escaped => {}
            (None, '"' | '\'') => quote = Some(c),
            (Some(open), c) if open == c => quote = None,
            (None, ')') => return Some(at),
            _ => {}
        }
        escaped = c == '\\' && !escaped;
        None
    })?;
    let (inside, after) = text.split_at(end);
    let after = after.strip_prefix(")]")?;
    let signs = ['!', '<', '>', '='];
    let at = inside.find(signs).filter(|at| *at > 0);
    let Some(at) = at else {
        let left = JsonPath::nested(inside, levels - 1)?;
        return Some((Step::Filter { left, right: None }, after));
    };
    let (left, rest) = inside.split_at(at);
    let length = rest.find(|c| !signs.contains(&c))?;
    let (sign, right) = rest.split_at(length);
    let comparison = match sign {
        "==" => Comparison::Equal,
        "!=" => Comparison::NotEqual,
        "<" => Comparison::Less,
        "<=" => Comparison::LessOrEqual,
        ">" => Comparison::Greater,
        ">=" => Comparison::GreaterOrEqual,
        _ => return None,
    };
    let left = JsonPath::nested(left.trim(), levels - 1)?;
    let right = JsonPath::nested(right.trim(), levels - 1)?;
    let right = Some((comparison, right));
    Some((Step::Filter { left, right }, after))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_find_what_columns_show() {
        let value = json!({
            "metadata": { "labels": { "app.kubernetes.io/name": "web" } },
            "spec": { "hosts": ["a", "b", "c"], "size": 3, "on": true },
            "status": { "conditions": [
                { "type": "Ready", "status": "True", "age": 3 },
                { "type": "Synced", "status": "False" },
            ] },
        });
        for (path, expected) in [
            (".spec.size", json!([3])),
            (".spec.hosts", json!([["a", "b", "c"]])),
            (".spec.hosts[0]", json!(["a"])),
            (".spec.hosts[-1]", json!(["c"])),
            (".spec.hosts[*]", json!(["a", "b", "c"])),
            (".spec.hosts[0:2]", json!(["a", "b"])),
            (".spec.hosts[::2]", json!(["a", "c"])),
            (".spec.hosts[0,2]", json!(["a", "c"])),
            (".spec['size']", json!([3])),
            (
                ".metadata.labels.app\\.kubernetes\\.io/name",
                json!(["web"]),
            ),
            (
                ".metadata.labels['app\\.kubernetes\\.io/name']",
                json!(["web"]),
            ),
            (
                ".status.conditions[?(@.type==\"Ready\")].status",
                json!(["True"]),
            ),
            (
                ".status.conditions[?(@.type=='Synced')].status",
                json!(["False"]),
            ),
            (
                ".status.conditions[?(@.type != 'Ready')].type",
                json!(["Synced"]),
            ),
            (".status.conditions[?(@.age > 2)].type", json!(["Ready"])),
            (".status.conditions[?(@.age)].type", json!(["Ready"])),
            ("..age", json!([3])),
            (".spec.*", json!([["a", "b", "c"], true, 3])),
            (".spec.nothing.below", json!([])),
            (".", json!([value])),
        ] {
            let parsed = JsonPath::parse(path).expect(path);
            let found = parsed.find(&value);
            assert_eq!(json!(found.unwrap()), expected, "{path}");
        }
        for (path, value) in [
            (".spec.hosts[9]", &value),
            (".spec.size[0]", &value),
            (".spec[?(@.a==1)]", &value),
        ] {
            assert_eq!(JsonPath::parse(path).unwrap().find(value), Err(Unfit));
        }
        for path in [
            ".a[",
            ".a[?(@.b==1)",
            ".a[x]",
            "....",
            ".a[?(@.b=1)]",
            "foo",
            ".a['b]",
            "[?([?([?([?([?([?([?([?([?(a)])])])])])])])])]",
        ] {
            assert_eq!(JsonPath::parse(path), None, "{path}");
        }
        let long = ".a".repeat(CHARS_MAX);
        assert_eq!(JsonPath::parse(&long), None);
    }
}
