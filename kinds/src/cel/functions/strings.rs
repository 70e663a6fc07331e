//! Functions on texts, and those that find patterns in them.

use super::formatting::formatted;
use super::standard::regex;
use super::{Function, Outcome};
use crate::cel::eval::{Error, Meter};
use crate::cel::value::{List, Text, Value};

pub(super) const FUNCTIONS: &[Function] = &[
    Function {
        name: "charAt",
        overloads: &[("string_char_at_int", "string.(int) string")],
        run: |args, _| match args {
            [Value::String(text), Value::Int(index)] => {
                let position = usize::try_from(*index).map_err(|_| out_of_range(*index))?;
                match text.chars().nth(position) {
                    Some(c) => Ok(Some(Value::text(c))),
                    None if position == text.chars().count() => Ok(Some(Value::text(""))),
                    None => Err(out_of_range(*index)),
                }
            }
            _ => Ok(None),
        },
    },
    Function {
        name: "indexOf",
        overloads: &[
            ("string_index_of_string", "string.(string) int"),
            ("string_index_of_string_int", "string.(string, int) int"),
        ],
        run: |args, _| match args {
            [Value::String(text), Value::String(part)] => index_of(text, part, 0),
            [Value::String(text), Value::String(part), Value::Int(from)] => {
                index_of(text, part, *from)
            }
            _ => Ok(None),
        },
    },
    Function {
        name: "lastIndexOf",
        overloads: &[
            ("string_last_index_of_string", "string.(string) int"),
            (
                "string_last_index_of_string_int",
                "string.(string, int) int",
            ),
        ],
        run: |args, _| match args {
            [Value::String(text), Value::String(part)] => {
                let found = text.rfind(&**part).map(|at| chars_before(text, at));
                Ok(Some(Value::Int(found.unwrap_or(-1))))
            }
            [Value::String(text), Value::String(part), Value::Int(to)] => {
                last_index_of(text, part, *to)
            }
            _ => Ok(None),
        },
    },
    Function {
        name: "lowerAscii",
        overloads: &[("string_lower_ascii", "string.() string")],
        run: |args, meter| made(args, meter, str::to_ascii_lowercase),
    },
    Function {
        name: "upperAscii",
        overloads: &[("string_upper_ascii", "string.() string")],
        run: |args, meter| made(args, meter, str::to_ascii_uppercase),
    },
    Function {
        name: "trim",
        overloads: &[("string_trim", "string.() string")],
        run: |args, meter| made(args, meter, |text| text.trim().to_owned()),
    },
    Function {
        name: "replace",
        overloads: &[
            (
                "string_replace_string_string",
                "string.(string, string) string",
            ),
            (
                "string_replace_string_string_int",
                "string.(string, string, int) string",
            ),
        ],
        run: |args, meter| match args {
            [Value::String(text), Value::String(old), Value::String(new)] => {
                replace(text, old, new, None, meter)
            }
            [
                Value::String(text),
                Value::String(old),
                Value::String(new),
                Value::Int(count),
            ] => replace(text, old, new, usize::try_from(*count).ok(), meter),
            _ => Ok(None),
        },
    },
    Function {
        name: "split",
        overloads: &[
            ("string_split_string", "string.(string) list(string)"),
            (
                "string_split_string_int",
                "string.(string, int) list(string)",
            ),
        ],
        run: |args, meter| match args {
            [Value::String(text), Value::String(separator)] => split(text, separator, None, meter),
            [
                Value::String(text),
                Value::String(separator),
                Value::Int(count),
            ] => split(text, separator, usize::try_from(*count).ok(), meter),
            _ => Ok(None),
        },
    },
    Function {
        name: "join",
        overloads: &[
            ("list_join", "list(string).() string"),
            ("list_join_string", "list(string).(string) string"),
        ],
        run: |args, meter| match args {
            [Value::List(list)] => join(list, "", meter),
            [Value::List(list), Value::String(separator)] => join(list, separator, meter),
            _ => Ok(None),
        },
    },
    Function {
        name: "substring",
        overloads: &[
            ("string_substring_int", "string.(int) string"),
            ("string_substring_int_int", "string.(int, int) string"),
        ],
        run: |args, meter| match args {
            [Value::String(text), Value::Int(from)] => substring(text, *from, None, meter),
            [Value::String(text), Value::Int(from), Value::Int(to)] => {
                substring(text, *from, Some(*to), meter)
            }
            _ => Ok(None),
        },
    },
    Function {
        name: "strings.quote",
        overloads: &[("strings_quote", "(string) string")],
        run: |args, meter| made(args, meter, quote),
    },
    Function {
        name: "format",
        overloads: &[("string_format", "string.(list(dyn)) string")],
        run: |args, meter| match args {
            [Value::String(format), Value::List(values)] => formatted(format, values, meter),
            _ => Ok(None),
        },
    },
    Function {
        name: "find",
        overloads: &[("string_find_string", "string.(string) string")],
        run: |args, _| match args {
            [Value::String(text), Value::String(pattern)] => {
                let pattern = illegal(regex(pattern))?;
                let found = pattern.find(text).map_or("", |found| found.as_str());
                Ok(Some(Value::text(found)))
            }
            _ => Ok(None),
        },
    },
    Function {
        name: "findAll",
        overloads: &[
            ("string_find_all_string", "string.(string) list(string)"),
            (
                "string_find_all_string_int",
                "string.(string, int) list(string)",
            ),
        ],
        run: |args, meter| match args {
            [Value::String(text), Value::String(pattern)] => find_all(text, pattern, -1, meter),
            [
                Value::String(text),
                Value::String(pattern),
                Value::Int(count),
            ] => find_all(text, pattern, *count, meter),
            _ => Ok(None),
        },
    },
];

fn out_of_range(index: i64) -> Error {
    Error::new(format!("index out of range: {index}"))
}

fn illegal<T>(compiled: Result<T, Error>) -> Result<T, Error> {
    compiled.map_err(|error| Error::new(format!("Illegal regex: {}", error.message)))
}

fn chars_before(text: &str, at: usize) -> i64 {
    i64::try_from(text[..at].chars().count()).unwrap_or(i64::MAX)
}

/// A text made of one, never more than six times as long.
fn made<'a>(args: &[Value<'a>], meter: &mut Meter, make: impl Fn(&str) -> String) -> Outcome<'a> {
    match args {
        [Value::String(text)] => {
            meter.allocate(text.len())?;
            Ok(Some(Value::text(make(text))))
        }
        _ => Ok(None),
    }
}

/// The byte that a character starts at; the length for the one behind the last.
fn byte_of(text: &str, index: i64) -> Option<usize> {
    let index = usize::try_from(index).ok()?;
    text.char_indices()
        .map(|(at, _)| at)
        .chain([text.len()])
        .nth(index)
}

fn index_of<'a>(text: &str, part: &str, from: i64) -> Outcome<'a> {
    if from < 0 {
        return Err(out_of_range(from));
    }
    let start = byte_of(text, from);
    if part.is_empty() {
        let found = if start.is_some() {
            from
        } else {
            chars_before(text, text.len())
        };
        return Ok(Some(Value::Int(found)));
    }
    let found = start.and_then(|start| Some(start + text[start..].find(part)?));
    Ok(Some(Value::Int(
        found.map_or(-1, |at| chars_before(text, at)),
    )))
}

/// The last place at or before `to`.
fn last_index_of<'a>(text: &str, part: &str, to: i64) -> Outcome<'a> {
    if to < 0 {
        return Err(out_of_range(to));
    }
    let start = byte_of(text, to);
    if part.is_empty() {
        let found = if start.is_some() {
            to
        } else {
            chars_before(text, text.len())
        };
        return Ok(Some(Value::Int(found)));
    }
    let found = start.filter(|start| *start < text.len()).and_then(|start| {
        let end = (start + part.len()).min(text.len());
        // The end may lie inside a character, which cannot be part of a match then.
        let end = (end..=text.len()).find(|end| text.is_char_boundary(*end))?;
        let found = text[..end].rfind(part)?;
        (found <= start).then_some(found)
    });
    Ok(Some(Value::Int(
        found.map_or(-1, |at| chars_before(text, at)),
    )))
}

fn replace<'a>(
    text: &str,
    old: &str,
    new: &str,
    count: Option<usize>,
    meter: &mut Meter,
) -> Outcome<'a> {
    let occurrences = match old {
        "" => text.chars().count() + 1,
        old => text.matches(old).count(),
    };
    let occurrences = count.map_or(occurrences, |count| count.min(occurrences));
    meter.allocate(text.len() + occurrences.saturating_mul(new.len()))?;
    Ok(Some(Value::text(text.replacen(old, new, occurrences))))
}

fn split<'a>(text: &str, separator: &str, count: Option<usize>, meter: &mut Meter) -> Outcome<'a> {
    if count == Some(0) {
        return Ok(Some(Value::list(Vec::new())));
    }
    let parts: Vec<&str> = match separator {
        // Each character is a part, as Go has it; the last one is what is left.
        "" => {
            let most = count.unwrap_or(usize::MAX);
            let mut parts = Vec::new();
            let mut rest = text;
            while let Some(c) = rest.chars().next() {
                if parts.len() + 1 == most {
                    break;
                }
                let (part, after) = rest.split_at(c.len_utf8());
                parts.push(part);
                rest = after;
            }
            if !rest.is_empty() {
                parts.push(rest);
            }
            parts
        }
        separator => text
            .splitn(count.unwrap_or(usize::MAX), separator)
            .collect(),
    };
    meter.allocate_values(parts.len())?;
    meter.allocate(text.len())?;
    Ok(Some(Value::list(
        parts.into_iter().map(Value::text).collect(),
    )))
}

fn join<'a>(list: &List<'a>, separator: &str, meter: &mut Meter) -> Outcome<'a> {
    let mut joined = String::new();
    for (index, item) in list.iter().enumerate() {
        if index > 0 {
            meter.allocate(separator.len())?;
            joined.push_str(separator);
        }
        match item? {
            Value::String(text) => {
                meter.allocate(text.len())?;
                joined.push_str(&text);
            }
            other => return Err(Error::new(format!("join: invalid input: {other}"))),
        }
    }
    Ok(Some(Value::text(joined)))
}

fn substring<'a>(text: &Text<'a>, from: i64, to: Option<i64>, meter: &mut Meter) -> Outcome<'a> {
    if let Some(to) = to.filter(|to| from > *to) {
        let sentence = format!("invalid substring range. start: {from}, end: {to}");
        return Err(Error::new(sentence));
    }
    let start = byte_of(text, from).ok_or_else(|| out_of_range(from))?;
    let end = match to {
        Some(to) => byte_of(text, to).ok_or_else(|| out_of_range(to))?,
        None => text.len(),
    };
    if let Text::Borrowed(text) = text {
        return Ok(Some(Value::String(Text::Borrowed(&text[start..end]))));
    }
    meter.allocate(end - start)?;
    Ok(Some(Value::text(&text[start..end])))
}

fn quote(text: &str) -> String {
    let mut quoted = String::from('"');
    for c in text.chars() {
        match c {
            '\x07' => quoted.push_str("\\a"),
            '\x08' => quoted.push_str("\\b"),
            '\x0c' => quoted.push_str("\\f"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\x0b' => quoted.push_str("\\v"),
            '\\' => quoted.push_str("\\\\"),
            '"' => quoted.push_str("\\\""),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

fn find_all<'a>(text: &str, pattern: &str, count: i64, meter: &mut Meter) -> Outcome<'a> {
    let pattern = illegal(regex(pattern))?;
    let most = usize::try_from(count).unwrap_or(usize::MAX);
    let mut found = Vec::new();
    for part in pattern.find_iter(text).take(most) {
        meter.allocate_values(1)?;
        meter.allocate(part.len())?;
        found.push(Value::text(part.as_str()));
    }
    Ok(Some(Value::list(found)))
}
