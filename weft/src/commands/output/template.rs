//! Templates of `-o jsonpath=`: text with paths in braces, and ranges over what a path finds.
//!
//! `{.metadata.name}`, `{range .items[*]}…{end}`, `{"\n"}`. Several values of one path are separated by a space; objects and lists are
//! shown as JSON. Invariants: total; a template has a bound in its length (that of its paths) and in ranges in ranges.
//! Source: Kubernetes' "JSONPath Support".

use std::str::FromStr;

use serde_json::Value;
use weft_kinds::apiextensions::json_path::JsonPath;

use crate::exit::Failure;

/// Ranges in one another.
const NESTED_MAX: usize = 8;
/// Bytes of what a template may print.
const PRINTED_MAX: usize = 1 << 30;

/// A template that was understood.
#[derive(Clone, Debug, PartialEq)]
pub struct Template(Vec<Part>);

#[derive(Clone, Debug, PartialEq)]
enum Part {
    Text(String),
    Path(JsonPath),
    Range(JsonPath, Vec<Part>),
}

impl FromStr for Template {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // A path alone is meant as one.
        let text = match text.contains('{') {
            true => text.to_owned(),
            false => format!("{{{text}}}"),
        };
        let mut open: Vec<(JsonPath, Vec<Part>)> = Vec::new();
        let mut parts = Vec::new();
        let mut rest = text.as_str();
        while !rest.is_empty() {
            let Some(inside) = rest.strip_prefix('{') else {
                let (plain, after) = rest.split_at(rest.find('{').unwrap_or(rest.len()));
                parts.push(Part::Text(plain.to_owned()));
                rest = after;
                continue;
            };
            let (action, after) =
                action(inside).ok_or_else(|| format!("a brace is not closed: {rest}"))?;
            rest = after;
            let action = action.trim();
            let path =
                |text: &str| JsonPath::parse(text).ok_or_else(|| format!("{text:?} is no path"));
            if action == "end" {
                let (over, outer) = open.pop().ok_or("{end} without a {range}")?;
                let body = std::mem::replace(&mut parts, outer);
                parts.push(Part::Range(over, body));
            } else if let Some(over) = action.strip_prefix("range ") {
                if open.len() == NESTED_MAX {
                    return Err(format!("ranges are {NESTED_MAX} deep at most"));
                }
                open.push((path(over)?, std::mem::take(&mut parts)));
            } else if action.starts_with(['"', '\'']) {
                parts.push(Part::Text(
                    quoted(action).ok_or_else(|| format!("{action} is no text"))?,
                ));
            } else {
                parts.push(Part::Path(path(action)?));
            }
        }
        match open.is_empty() {
            true => Ok(Self(parts)),
            false => Err("a {range} has no {end}".to_owned()),
        }
    }
}

/// What stands before the brace that closes it, and what follows: braces in quotes close nothing.
fn action(text: &str) -> Option<(&str, &str)> {
    let mut quote = None;
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match (quote, c) {
            _ if escaped => {}
            (None, '"' | '\'') => quote = Some(c),
            (Some(open), c) if open == c => quote = None,
            (None, '}') => return Some((&text[..at], &text[at + 1..])),
            _ => {}
        }
        escaped = c == '\\' && !escaped;
    }
    None
}

/// The text in quotes, with the escapes that Go has for white space.
fn quoted(text: &str) -> Option<String> {
    let quote = text.chars().next()?;
    let inside = text.strip_prefix(quote)?.strip_suffix(quote)?;
    let mut out = String::new();
    let mut chars = inside.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next()? {
                'n' => out.push('\n'),
                't' => out.push('\t'),
                'r' => out.push('\r'),
                other => out.push(other),
            },
            c if c == quote => return None,
            c => out.push(c),
        }
    }
    Some(out)
}

impl Template {
    /// What the template makes of a value.
    ///
    /// # Errors
    /// A [`Failure`] where a path expects another shape than is there.
    pub fn render(&self, value: &Value) -> Result<String, Failure> {
        let mut out = String::new();
        print(&self.0, value, &mut out)?;
        Ok(out)
    }
}

fn print(parts: &[Part], value: &Value, out: &mut String) -> Result<(), Failure> {
    let find = |path: &'_ JsonPath| -> Result<Vec<Value>, Failure> {
        let found = path.find(value).map_err(|_| {
            Failure::new(
                "cannot print by this template",
                "a path expects another shape than the object has: an index beyond a list, or a filter of what is no list",
                "look at the object with -o json",
            )
        })?;
        Ok(found.into_iter().cloned().collect())
    };
    for part in parts {
        if out.len() > PRINTED_MAX {
            let why = format!("it prints more than {PRINTED_MAX} bytes");
            return Err(Failure::new(
                "cannot print by this template",
                why,
                "choose fewer objects",
            ));
        }
        match part {
            Part::Text(text) => out.push_str(text),
            Part::Path(path) => {
                let shown: Vec<String> = find(path)?.iter().map(shown).collect();
                out.push_str(&shown.join(" "));
            }
            Part::Range(path, body) => {
                for each in find(path)? {
                    print(body, &each, out)?;
                }
            }
        }
    }
    Ok(())
}

/// A value as a template shows it.
pub(super) fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "<nil>".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn templates_print_as_kubectls_do() {
        let list = json!({"kind": "List", "items": [
            {"metadata": {"name": "a", "labels": {"app": "web", "x.y/z": "1"}}, "spec": {"n": 1, "on": true, "list": [1, 2]}},
            {"metadata": {"name": "b"}, "spec": {"n": 2.5, "nothing": null}},
        ]});
        for (template, printed) in [
            ("{.kind}", "List"),
            (".kind", "List"),
            ("kind is {.kind}\n", "kind is List\n"),
            ("{.items[*].metadata.name}", "a b"),
            ("{.items[*]['metadata.name','spec.n']}", ""),
            (
                "{range .items[*]}{.metadata.name}{\"\\t\"}{.spec.n}{\"\\n\"}{end}",
                "a\t1\nb\t2.5\n",
            ),
            (
                "{range .items[*]}[{range .spec.list[*]}({@}){end}]{end}",
                "[(1)(2)][]",
            ),
            ("{.items[0].spec}", "{\"list\":[1,2],\"n\":1,\"on\":true}"),
            ("{.items[0].spec.on} {.items[0].spec.list}", "true [1,2]"),
            ("{.items[?(@.metadata.name==\"b\")].spec.n}", "2.5"),
            ("{.items[0].metadata.labels.x\\.y/z}", "1"),
            ("{.items[1].spec.nothing}{.items[1].none}", "<nil>"),
            ("{'}'}", "}"),
        ] {
            let read: Template = template.parse().expect(template);
            assert_eq!(read.render(&list).unwrap(), printed, "{template}");
        }
        for template in ["{.a", "{range .a}", "{end}", "{\"a}", "{.a[}", "{foo}"] {
            assert!(template.parse::<Template>().is_err(), "{template}");
        }
        let deep = format!("{}{}", "{range .a}".repeat(9), "{end}".repeat(9));
        assert!(deep.parse::<Template>().is_err());
        assert!(
            "{.items[9]}"
                .parse::<Template>()
                .unwrap()
                .render(&list)
                .is_err()
        );
    }
}
