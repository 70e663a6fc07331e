//! Label and field selectors, from a query string or from an object.
//!
//! Source of the grammar: k8s.io/apimachinery `pkg/labels` and `pkg/fields`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::Value;

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
    In(BTreeSet<String>),
    NotIn(BTreeSet<String>),
    Exists,
    DoesNotExist,
}

/// Why a selector cannot be read, as one sentence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unable to parse requirement: {reason}")]
pub struct SelectorError {
    pub reason: String,
}

fn fail<T>(reason: impl Into<String>) -> Result<T, SelectorError> {
    Err(SelectorError {
        reason: reason.into(),
    })
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

    /// Parses `a=b,c!=d,e in (f,g),h notin (i),j,!k`.
    ///
    /// # Errors
    /// [`SelectorError`] naming what was found instead of what was expected.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut requirements = Vec::new();
        for part in split_outside_parentheses(text)? {
            if requirements.len() == REQUIREMENTS_MAX {
                return fail(format!("more than {REQUIREMENTS_MAX} requirements"));
            }
            requirements.push(LabelRequirement::parse(part)?);
        }
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
                operator: LabelOperator::In([value.to_owned()].into()),
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
    /// [`SelectorError`] for an unknown operator or an empty value list.
    pub fn from_object(selector: &Value) -> Result<Self, SelectorError> {
        if selector.is_null() {
            return Ok(Self::nothing());
        }
        let labels = selector["matchLabels"].as_object().into_iter().flatten();
        let mut built =
            Self::from_labels(labels.filter_map(|(k, v)| Some((k.as_str(), v.as_str()?))));
        for expression in selector["matchExpressions"]
            .as_array()
            .into_iter()
            .flatten()
        {
            let key = expression["key"].as_str().unwrap_or_default().to_owned();
            let values: BTreeSet<String> = expression["values"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|v| v.as_str().map(str::to_owned))
                .collect();
            let operator = match expression["operator"].as_str().unwrap_or_default() {
                "In" | "NotIn" if values.is_empty() => {
                    return fail("values: for 'in', 'notin' operators, values set can't be empty");
                }
                "In" => LabelOperator::In(values),
                "NotIn" => LabelOperator::NotIn(values),
                "Exists" => LabelOperator::Exists,
                "DoesNotExist" => LabelOperator::DoesNotExist,
                other => return fail(format!("{other:?} is not a valid label selector operator")),
            };
            built.requirements.push(LabelRequirement { key, operator });
        }
        Ok(built)
    }

    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.matches_with(|key| labels.get(key).map(String::as_str))
    }

    /// Matches against any lookup of a label's value. Cost: one lookup a requirement.
    pub fn matches_with<'a>(&self, get: impl Fn(&str) -> Option<&'a str>) -> bool {
        !self.nothing
            && self.requirements.iter().all(|requirement| {
                let value = get(&requirement.key);
                match &requirement.operator {
                    LabelOperator::In(values) => value.is_some_and(|v| values.contains(v)),
                    LabelOperator::NotIn(values) => value.is_none_or(|v| !values.contains(v)),
                    LabelOperator::Exists => value.is_some(),
                    LabelOperator::DoesNotExist => value.is_none(),
                }
            })
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, requirement) in self.requirements.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            let key = &requirement.key;
            let list =
                |values: &BTreeSet<String>| values.iter().cloned().collect::<Vec<_>>().join(",");
            match &requirement.operator {
                LabelOperator::In(values) if values.len() == 1 => {
                    write!(f, "{key}={}", list(values))?;
                }
                LabelOperator::In(values) => write!(f, "{key} in ({})", list(values))?,
                LabelOperator::NotIn(values) if values.len() == 1 => {
                    write!(f, "{key}!={}", list(values))?;
                }
                LabelOperator::NotIn(values) => write!(f, "{key} notin ({})", list(values))?,
                LabelOperator::Exists => f.write_str(key)?,
                LabelOperator::DoesNotExist => write!(f, "!{key}")?,
            }
        }
        Ok(())
    }
}

impl LabelRequirement {
    fn parse(part: &str) -> Result<Self, SelectorError> {
        let part = part.trim();
        if let Some(key) = part.strip_prefix('!') {
            return Self::new(key, LabelOperator::DoesNotExist);
        }
        if let Some((key, value)) = part.split_once("!=") {
            return Self::new(key, LabelOperator::NotIn([one_value(value)?].into()));
        }
        if let Some((key, value)) = part.split_once('=') {
            let value = value.strip_prefix('=').unwrap_or(value);
            return Self::new(key, LabelOperator::In([one_value(value)?].into()));
        }
        let mut words = part.splitn(2, char::is_whitespace);
        let key = words.next().unwrap_or_default();
        let Some(rest) = words.next().map(str::trim) else {
            return match key.split_once('(') {
                Some(_) => fail(format!("found '(' in {part:?}, expected an operator")),
                None => Self::new(key, LabelOperator::Exists),
            };
        };
        let (negated, list) = match (rest.strip_prefix("notin"), rest.strip_prefix("in")) {
            (Some(list), _) => (true, list),
            (None, Some(list)) => (false, list),
            (None, None) => {
                return fail(format!(
                    "found '{rest}', expected: in, notin, =, ==, !=, gt, lt"
                ));
            }
        };
        let values = list
            .trim()
            .strip_prefix('(')
            .and_then(|list| list.strip_suffix(')'))
            .ok_or_else(|| SelectorError {
                reason: format!("found '{}', expected: '('", list.trim()),
            })?;
        let values = values
            .split(',')
            .map(one_value)
            .collect::<Result<BTreeSet<_>, _>>()?;
        let operator = if negated {
            LabelOperator::NotIn(values)
        } else {
            LabelOperator::In(values)
        };
        Self::new(key, operator)
    }

    fn new(key: &str, operator: LabelOperator) -> Result<Self, SelectorError> {
        let key = key.trim();
        match crate::name::qualified_name(key) {
            Ok(()) => Ok(Self {
                key: key.into(),
                operator,
            }),
            Err(reason) => fail(format!("<nil>: Invalid value: {key:?}: {reason}")),
        }
    }
}

fn one_value(text: &str) -> Result<String, SelectorError> {
    let text = text.trim();
    match crate::name::label_value(text) {
        Ok(()) => Ok(text.into()),
        Err(reason) => fail(format!("values[0]: Invalid value: {text:?}: {reason}")),
    }
}

fn split_outside_parentheses(text: &str) -> Result<Vec<&str>, SelectorError> {
    let mut parts = Vec::new();
    let (mut depth, mut start) = (0_u32, 0);
    for (i, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' if depth == 0 => return fail("found ')' without '('"),
            ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&text[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    if depth > 0 {
        return fail("found '(' without ')'");
    }
    parts.push(&text[start..]);
    // A trailing or lone comma reads as nothing, as Kubernetes reads it.
    parts.retain(|part| !part.trim().is_empty());
    Ok(parts)
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
    /// # Errors
    /// [`SelectorError`] when a term has no `=`, `==` or `!=`.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut requirements = Vec::new();
        for part in split_unescaped(text) {
            if part.is_empty() {
                continue;
            }
            if requirements.len() == REQUIREMENTS_MAX {
                return fail(format!("more than {REQUIREMENTS_MAX} requirements"));
            }
            let (field, equal, value) = if let Some((field, value)) = part.split_once("!=") {
                (field, false, value)
            } else if let Some((field, value)) = part.split_once("==") {
                (field, true, value)
            } else if let Some((field, value)) = part.split_once('=') {
                (field, true, value)
            } else {
                return fail(format!(
                    "invalid field selector: {part:?}; can't understand '{part}'"
                ));
            };
            requirements.push(FieldRequirement {
                field: field.trim().into(),
                equal,
                value: unescape(value.trim()),
            });
        }
        Ok(Self { requirements })
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

fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => out.extend(chars.next()),
            c => out.push(c),
        }
    }
    out
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
