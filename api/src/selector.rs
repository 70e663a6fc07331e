//! Label and field selectors, from a query string or from an object.
//!
//! Source of the grammar and of every sentence: k8s.io/apimachinery `pkg/labels`, `pkg/fields` and
//! `apis/meta/v1/validation`; `tests/upstream/{labels,fields}.tsv` hold what they answer.
//!
//! Left to others: which fields of a kind can be selected.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::Value;

use crate::name;
use crate::status::Cause;

/// A conjunction of requirements on labels. The empty selector matches everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LabelSelector {
    requirements: Vec<LabelRequirement>,
    /// Set for the null selector of an object, which matches nothing.
    nothing: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelRequirement {
    pub key: String,
    pub operator: LabelOperator,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LabelOperator {
    Equals(String),
    NotEquals(String),
    In(BTreeSet<String>),
    NotIn(BTreeSet<String>),
    Exists,
    DoesNotExist,
    GreaterThan(i64),
    LessThan(i64),
}

/// Why a selector cannot be read: the whole sentence that Kubernetes gives.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SelectorError(String);

fn fail<T>(sentence: impl Into<String>) -> Result<T, SelectorError> {
    Err(SelectorError(sentence.into()))
}

/// Most requirements one selector may have: far above real use, low enough to keep a list cheap.
const REQUIREMENTS_MAX: usize = 1000;

impl LabelSelector {
    pub fn everything() -> Self {
        Self::default()
    }

    pub fn nothing() -> Self {
        Self {
            requirements: Vec::new(),
            nothing: true,
        }
    }

    pub fn is_everything(&self) -> bool {
        self.requirements.is_empty() && !self.nothing
    }

    pub fn requirements(&self) -> &[LabelRequirement] {
        &self.requirements
    }

    /// Parses `a=b,c!=d,e in (f,g),h notin (i),j,!k,l>1`.
    ///
    /// # Errors
    /// [`SelectorError`] naming what was found instead of what was expected.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut requirements = Parser {
            tokens: Tokens(text),
            next: None,
        }
        .selector()?;
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(Self {
            requirements,
            nothing: false,
        })
    }

    /// From plain `key: value` pairs, as a Service's `spec.selector`.
    pub fn from_labels<'a>(labels: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let requirements = labels
            .into_iter()
            .map(|(key, value)| LabelRequirement {
                key: key.into(),
                operator: LabelOperator::Equals(value.to_owned()),
            })
            .collect();
        Self {
            requirements,
            nothing: false,
        }
    }

    /// From a `metav1.LabelSelector`: `{matchLabels, matchExpressions}`. `null` matches nothing, `{}` everything.
    ///
    /// # Errors
    /// [`SelectorError`] with the first of what [`LabelSelector::causes`] lists.
    pub fn from_object(selector: &Value) -> Result<Self, SelectorError> {
        if selector.is_null() {
            return Ok(Self::nothing());
        }
        if let Some(cause) = Self::causes(selector, "").first() {
            return fail(format!("{}: {}", cause.field, cause.message));
        }
        let labels = selector["matchLabels"].as_object().into_iter().flatten();
        let mut built =
            Self::from_labels(labels.filter_map(|(k, v)| Some((k.as_str(), v.as_str()?))));
        let expressions = selector["matchExpressions"].as_array();
        for expression in expressions.into_iter().flatten() {
            let values = values_of(expression).map(str::to_owned).collect();
            built.requirements.push(LabelRequirement {
                key: expression["key"].as_str().unwrap_or_default().to_owned(),
                operator: match expression["operator"].as_str().unwrap_or_default() {
                    "In" => LabelOperator::In(values),
                    "NotIn" => LabelOperator::NotIn(values),
                    "Exists" => LabelOperator::Exists,
                    // `causes` lets no other through.
                    _ => LabelOperator::DoesNotExist,
                },
            });
        }
        built.requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(built)
    }

    /// What is wrong with a `metav1.LabelSelector` that stands in `field`: everything, in Kubernetes' order.
    pub fn causes(selector: &Value, field: &str) -> Vec<Cause> {
        let member = |name: &str| match field {
            "" => name.to_owned(),
            field => format!("{field}.{name}"),
        };
        let mut causes = Vec::new();
        let labels = selector["matchLabels"].as_object();
        let field_of_labels = member("matchLabels");
        for (key, value) in labels.into_iter().flatten() {
            for sentence in name::qualified_name_faults(key) {
                causes.push(Cause::invalid(
                    &field_of_labels,
                    &key.as_str().into(),
                    &sentence,
                ));
            }
            for sentence in name::label_value_faults(value.as_str().unwrap_or_default()) {
                causes.push(Cause::invalid(&field_of_labels, value, &sentence));
            }
        }
        let expressions = selector["matchExpressions"].as_array();
        for (index, expression) in expressions.into_iter().flatten().enumerate() {
            let field = member(&format!("matchExpressions[{index}]"));
            let has_values = values_of(expression).next().is_some();
            let operator = &expression["operator"];
            match operator.as_str().unwrap_or_default() {
                "In" | "NotIn" if !has_values => causes.push(Cause::required(
                    &format!("{field}.values"),
                    "must be specified when `operator` is 'In' or 'NotIn'",
                )),
                "Exists" | "DoesNotExist" if has_values => causes.push(Cause::forbidden(
                    &format!("{field}.values"),
                    "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
                )),
                "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
                other => causes.push(Cause::invalid(
                    &format!("{field}.operator"),
                    &other.into(),
                    "not a valid selector operator",
                )),
            }
            let key = expression["key"].as_str().unwrap_or_default();
            for sentence in name::qualified_name_faults(key) {
                causes.push(Cause::invalid(
                    &format!("{field}.key"),
                    &key.into(),
                    &sentence,
                ));
            }
            for (index, value) in values_of(expression).enumerate() {
                for sentence in name::label_value_faults(value) {
                    let field = format!("{field}.values[{index}]");
                    causes.push(Cause::invalid(&field, &value.into(), &sentence));
                }
            }
        }
        causes
    }

    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.matches_with(|key| labels.get(key).map(String::as_str))
    }

    /// Matches against any lookup of a label's value. Cost: one lookup a requirement.
    pub fn matches_with<'a>(&self, get: impl Fn(&str) -> Option<&'a str>) -> bool {
        !self.nothing
            && self
                .requirements
                .iter()
                .all(|requirement| requirement.operator.matches(get(&requirement.key)))
    }
}

fn values_of(expression: &Value) -> impl Iterator<Item = &str> {
    let values = expression["values"].as_array().into_iter().flatten();
    values.map(|value| value.as_str().unwrap_or_default())
}

impl LabelOperator {
    fn matches(&self, value: Option<&str>) -> bool {
        let number = || value.and_then(|value| value.parse::<i64>().ok());
        match self {
            Self::Equals(wanted) => value == Some(wanted),
            Self::NotEquals(unwanted) => value != Some(unwanted),
            Self::In(wanted) => value.is_some_and(|value| wanted.contains(value)),
            Self::NotIn(unwanted) => value.is_none_or(|value| !unwanted.contains(value)),
            Self::Exists => value.is_some(),
            Self::DoesNotExist => value.is_none(),
            Self::GreaterThan(bound) => number().is_some_and(|value| value > *bound),
            Self::LessThan(bound) => number().is_some_and(|value| value < *bound),
        }
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, LabelRequirement { key, operator }) in self.requirements.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            let list =
                |values: &BTreeSet<String>| values.iter().cloned().collect::<Vec<_>>().join(",");
            match operator {
                LabelOperator::Equals(value) => write!(f, "{key}={value}")?,
                LabelOperator::NotEquals(value) => write!(f, "{key}!={value}")?,
                LabelOperator::In(values) => write!(f, "{key} in ({})", list(values))?,
                LabelOperator::NotIn(values) => write!(f, "{key} notin ({})", list(values))?,
                LabelOperator::Exists => f.write_str(key)?,
                LabelOperator::DoesNotExist => write!(f, "!{key}")?,
                LabelOperator::GreaterThan(bound) => write!(f, "{key}>{bound}")?,
                LabelOperator::LessThan(bound) => write!(f, "{key}<{bound}")?,
            }
        }
        Ok(())
    }
}

/// What a selector's text is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token<'a> {
    /// A key, a value, or `in` and `notin`, which are either, by where they stand.
    Word(&'a str),
    /// `=`, `==`, `!=`, `!`, `<`, `>`, `(`, `)` or `,`.
    Symbol(&'a str),
    End,
}

impl<'a> Token<'a> {
    fn text(self) -> &'a str {
        match self {
            Token::Word(text) | Token::Symbol(text) => text,
            Token::End => "",
        }
    }
}

struct Tokens<'a>(&'a str);

impl<'a> Tokens<'a> {
    fn next_token(&mut self) -> Token<'a> {
        self.0 = self.0.trim_start_matches([' ', '\t', '\r', '\n']);
        let is_symbol = |c: char| "=!(),<>".contains(c);
        let length = if self.0.starts_with("==") || self.0.starts_with("!=") {
            2
        } else if self.0.starts_with(is_symbol) {
            1
        } else {
            let is_end = |c: char| is_symbol(c) || matches!(c, ' ' | '\t' | '\r' | '\n');
            let length = self.0.find(is_end).unwrap_or(self.0.len());
            let (word, rest) = self.0.split_at(length);
            self.0 = rest;
            return if word.is_empty() {
                Token::End
            } else {
                Token::Word(word)
            };
        };
        let (symbol, rest) = self.0.split_at(length);
        self.0 = rest;
        Token::Symbol(symbol)
    }
}

struct Parser<'a> {
    tokens: Tokens<'a>,
    next: Option<Token<'a>>,
}

impl<'a> Parser<'a> {
    fn peek(&mut self) -> Token<'a> {
        *self.next.get_or_insert_with(|| self.tokens.next_token())
    }

    fn next_token(&mut self) -> Token<'a> {
        self.next.take().unwrap_or_else(|| self.tokens.next_token())
    }

    fn selector(&mut self) -> Result<Vec<LabelRequirement>, SelectorError> {
        let mut requirements = Vec::new();
        match self.peek() {
            Token::End => return Ok(requirements),
            Token::Word(_) | Token::Symbol("!") => {}
            other => {
                return fail(format!(
                    "found '{}', expected: !, identifier, or 'end of string'",
                    other.text()
                ));
            }
        }
        loop {
            if requirements.len() == REQUIREMENTS_MAX {
                return fail(format!("more than {REQUIREMENTS_MAX} requirements"));
            }
            requirements.push(self.requirement().map_err(|reason| {
                SelectorError(format!("unable to parse requirement: {reason}"))
            })?);
            match self.next_token() {
                Token::End => return Ok(requirements),
                Token::Symbol(",") => match self.peek() {
                    Token::Word(_) | Token::Symbol("!") => {}
                    other => {
                        return fail(format!(
                            "found '{}', expected: identifier after ','",
                            other.text()
                        ));
                    }
                },
                other => {
                    return fail(format!(
                        "found '{}', expected: ',' or 'end of string'",
                        other.text()
                    ));
                }
            }
        }
    }

    fn requirement(&mut self) -> Result<LabelRequirement, String> {
        let negated = self.peek() == Token::Symbol("!");
        if negated {
            self.next_token();
        }
        let key = match self.next_token() {
            Token::Word(key) => key,
            other => return Err(format!("found '{}', expected: identifier", other.text())),
        };
        let faults = name::qualified_name_faults(key);
        if !faults.is_empty() {
            return Err(invalid("<nil>", key, &faults.join("; ")));
        }
        let operator = match (negated, self.peek()) {
            (false, Token::End | Token::Symbol(",")) => LabelOperator::Exists,
            // What follows `!key` is looked at by whoever expects a comma.
            (true, _) => LabelOperator::DoesNotExist,
            (false, _) => self.operator(key)?,
        };
        Ok(LabelRequirement {
            key: key.to_owned(),
            operator,
        })
    }

    fn operator(&mut self, key: &str) -> Result<LabelOperator, String> {
        let token = self.next_token();
        Ok(match token {
            Token::Word("in") => LabelOperator::In(self.values(key)?),
            Token::Word("notin") => LabelOperator::NotIn(self.values(key)?),
            Token::Symbol("=" | "==") => LabelOperator::Equals(self.value(key)?),
            Token::Symbol("!=") => LabelOperator::NotEquals(self.value(key)?),
            Token::Symbol(">") => LabelOperator::GreaterThan(self.bound(key)?),
            Token::Symbol("<") => LabelOperator::LessThan(self.bound(key)?),
            other => {
                return Err(format!(
                    "found '{}', expected: in, notin, =, ==, !=, gt, lt",
                    other.text()
                ));
            }
        })
    }

    /// What stands behind `=` and its like; nothing at all is the empty value.
    fn word(&mut self) -> Result<&'a str, String> {
        match self.peek() {
            Token::End | Token::Symbol(",") => Ok(""),
            _ => match self.next_token() {
                Token::Word(value) => Ok(value),
                other => Err(format!("found '{}', expected: identifier", other.text())),
            },
        }
    }

    fn value(&mut self, key: &str) -> Result<String, String> {
        let value = self.word()?;
        check_values(key, [value].into_iter(), Vec::new())?;
        Ok(value.to_owned())
    }

    fn bound(&mut self, key: &str) -> Result<i64, String> {
        let value = self.word()?;
        let bound = value.parse::<i64>().map_err(|_| {
            let sentence = "for 'Gt', 'Lt' operators, the value must be an integer";
            invalid("values[0]", value, sentence)
        });
        check_values(
            key,
            [value].into_iter(),
            bound.as_ref().err().cloned().into_iter().collect(),
        )?;
        bound
    }

    fn values(&mut self, key: &str) -> Result<BTreeSet<String>, String> {
        match self.next_token() {
            Token::Symbol("(") => {}
            other => return Err(format!("found '{}' expected: '('", other.text())),
        }
        let mut values = BTreeSet::new();
        match self.peek() {
            Token::Symbol(")") => {
                values.insert(String::new());
            }
            Token::Word(_) | Token::Symbol(",") => self.value_list(&mut values)?,
            other => {
                let found = other.text();
                return Err(format!("found '{found}', expected: ',', ')' or identifier"));
            }
        }
        // `list` ends before the parenthesis.
        self.next_token();
        check_values(key, values.iter().map(String::as_str), Vec::new())?;
        Ok(values)
    }

    /// Words with commas between them, where any word may be missing.
    fn value_list(&mut self, values: &mut BTreeSet<String>) -> Result<(), String> {
        loop {
            match self.next_token() {
                Token::Word(value) => {
                    values.insert(value.to_owned());
                    match self.peek() {
                        Token::Symbol(")") => return Ok(()),
                        Token::Symbol(",") => {}
                        other => {
                            let found = other.text();
                            return Err(format!("found '{found}', expected: ',' or ')'"));
                        }
                    }
                }
                Token::Symbol(",") => {
                    let next = self.peek();
                    if values.is_empty() || matches!(next, Token::Symbol(")" | ",")) {
                        values.insert(String::new());
                    }
                    if next == Token::Symbol(")") {
                        return Ok(());
                    }
                }
                other => {
                    let found = other.text();
                    return Err(format!("found '{found}', expected: ',', or identifier"));
                }
            }
        }
    }
}

fn invalid(field: &str, value: &str, sentence: &str) -> String {
    let cause = Cause::invalid(field, &value.into(), sentence);
    format!("{field}: {}", cause.message)
}

/// The values of a requirement are values of labels. What is wrong with several is one text, in brackets.
fn check_values<'a>(
    key: &str,
    values: impl Iterator<Item = &'a str>,
    mut found: Vec<String>,
) -> Result<(), String> {
    for (index, value) in values.enumerate() {
        let faults = name::label_value_faults(value);
        if !faults.is_empty() {
            found.push(invalid(
                &format!("values[{index}][{key}]"),
                value,
                &faults.join("; "),
            ));
        }
    }
    match found.as_slice() {
        [] => Ok(()),
        [one] => Err(one.clone()),
        several => Err(format!("[{}]", several.join(", "))),
    }
}

/// A conjunction of `field=value` and `field!=value`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FieldSelector {
    requirements: Vec<FieldRequirement>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldRequirement {
    pub field: String,
    pub equal: bool,
    pub value: String,
}

impl FieldSelector {
    /// Selects the objects with this value in a field.
    pub fn equal(field: impl Into<String>, value: impl Into<String>) -> Self {
        Self {
            requirements: vec![FieldRequirement {
                field: field.into(),
                equal: true,
                value: value.into(),
            }],
        }
    }

    /// # Errors
    /// [`SelectorError`] when a term has no `=`, `==` or `!=`, or its value is not escaped as it must be.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut terms = split_unescaped(text);
        terms.retain(|term| !term.is_empty());
        if terms.len() > REQUIREMENTS_MAX {
            return fail(format!("more than {REQUIREMENTS_MAX} requirements"));
        }
        terms.sort_unstable();
        let requirement = |term: &str| {
            // The first operator counts, whatever stands behind it.
            let at = term.find('=').map(|at| match term[..at].strip_suffix('!') {
                Some(field) => (field, false, &term[at + 1..]),
                None => {
                    let value = &term[at + 1..];
                    (&term[..at], true, value.strip_prefix('=').unwrap_or(value))
                }
            });
            match at {
                Some((field, equal, value)) => Ok(FieldRequirement {
                    field: field.to_owned(),
                    equal,
                    value: unescape(value)?,
                }),
                None => fail(format!(
                    "invalid selector: '{text}'; can't understand '{term}'"
                )),
            }
        };
        Ok(Self {
            requirements: terms
                .into_iter()
                .map(requirement)
                .collect::<Result<_, _>>()?,
        })
    }

    pub fn is_everything(&self) -> bool {
        self.requirements.is_empty()
    }

    pub fn requirements(&self) -> &[FieldRequirement] {
        &self.requirements
    }

    /// The value that `field` must have, if the selector says so: lets a list go straight to one object.
    pub fn exact(&self, field: &str) -> Option<&str> {
        self.requirements
            .iter()
            .find(|r| r.equal && r.field == field)
            .map(|r| r.value.as_str())
    }

    /// What it asks of the fields that `asks` names.
    pub fn about(&self, asks: impl Fn(&str) -> bool) -> Self {
        let requirements = self.requirements.iter();
        Self {
            requirements: requirements
                .filter(|requirement| asks(&requirement.field))
                .cloned()
                .collect(),
        }
    }

    /// Matches against a lookup; an absent field reads as empty text.
    pub fn matches<'a>(&self, get: impl Fn(&str) -> Option<std::borrow::Cow<'a, str>>) -> bool {
        self.requirements.iter().all(|requirement| {
            let value = get(&requirement.field).unwrap_or_default();
            (value == requirement.value) == requirement.equal
        })
    }
}

fn split_unescaped(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut start, mut escaped) = (0, false);
    for (i, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                parts.push(&text[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn unescape(text: &str) -> Result<String, SelectorError> {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(c @ ('\\' | ',' | '=')) => out.push(c),
                other => {
                    let sequence: String = std::iter::once('\\').chain(other).collect();
                    return fail(format!(
                        "invalid field selector: invalid escape sequence: {sequence}"
                    ));
                }
            },
            ',' | '=' => {
                // The number of the character, as Kubernetes prints it.
                let code = u32::from(c);
                return fail(format!(
                    "invalid field selector: unescaped character in value: {code}"
                ));
            }
            c => out.push(c),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(text: &str) -> BTreeMap<String, String> {
        text.split(',')
            .filter_map(|pair| pair.split_once('='))
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .collect()
    }

    #[test]
    fn label_selectors_match_as_kubernetes_reads_them() {
        for (selector, on, expected) in [
            ("", "a=1", true),
            ("a=1", "a=1", true),
            ("a==1", "a=2", false),
            ("a!=1", "b=1", true),
            ("a in (1,2),b", "a=2,b=x", true),
            ("a in (1, 2),b", "a=2", false),
            ("a notin (1)", "", true),
            ("!a", "a=1", false),
            ("weft.dev/x=", "weft.dev/x=", true),
        ] {
            let parsed = LabelSelector::parse(selector).unwrap();
            assert_eq!(parsed.matches(&labels(on)), expected, "{selector} on {on}");
            assert_eq!(
                LabelSelector::parse(&parsed.to_string()).unwrap(),
                parsed,
                "{selector}"
            );
        }
        for bad in [
            "a in 1",
            "a in (1",
            "a)",
            "a foo (b)",
            "-a",
            "a=b c",
            "a(b)",
        ] {
            assert!(LabelSelector::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn null_selects_nothing_and_empty_everything() {
        let any = labels("a=1");
        assert!(
            !LabelSelector::from_object(&Value::Null)
                .unwrap()
                .matches(&any)
        );
        assert!(
            LabelSelector::from_object(&serde_json::json!({}))
                .unwrap()
                .matches(&any)
        );
        let expression = serde_json::json!({"matchLabels": {"a": "1"}, "matchExpressions": [{"key": "b", "operator": "DoesNotExist"}]});
        assert!(
            LabelSelector::from_object(&expression)
                .unwrap()
                .matches(&any)
        );
    }

    #[test]
    fn field_selectors_compare_text() {
        let selector =
            FieldSelector::parse("metadata.name=a,status.phase!=Running,spec.nodeName==").unwrap();
        let get = |field: &str| {
            Some(match field {
                "metadata.name" => "a".into(),
                "status.phase" => "Pending".into(),
                _ => return None,
            })
        };
        assert!(selector.matches(get));
        assert_eq!(selector.exact("metadata.name"), Some("a"));
        assert!(FieldSelector::parse("nonsense").is_err());
        assert_eq!(
            FieldSelector::parse(r"a=x\,y").unwrap().exact("a"),
            Some("x,y")
        );
    }
}
