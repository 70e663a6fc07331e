//! Functions on texts, and those that find patterns in them.

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
    Function {
        name: "jsonpatch.escapeKey",
        overloads: &[("string_jsonpatch_escapeKey_string", "(string) string")],
        run: |args, meter| {
            made(args, meter, |text| {
                text.replace('~', "~0").replace('/', "~1")
            })
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

/// Most digits behind the point of a number: those of a format are not the object's.
const PRECISION_MAX: usize = 100;

/// `%s`, `%d`, `%f`, `%e`, `%b`, `%o`, `%x`, `%X` and `%%`.
fn formatted<'a>(format: &str, values: &List<'a>, meter: &mut Meter) -> Outcome<'a> {
    let mut out = String::new();
    let mut chars = format.chars().peekable();
    let mut next = 0;
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        if chars.peek() == Some(&'%') {
            chars.next();
            out.push('%');
            continue;
        }
        let mut precision = None;
        if chars.peek() == Some(&'.') {
            chars.next();
            let mut digits = String::new();
            while let Some(digit) = chars.next_if(char::is_ascii_digit) {
                digits.push(digit);
            }
            let parsed = digits.parse::<usize>().ok();
            precision = Some(
                parsed
                    .filter(|digits| *digits <= PRECISION_MAX)
                    .ok_or_else(|| {
                        Error::new(format!("precision exceeds the limit of {PRECISION_MAX}"))
                    })?,
            );
        }
        let Some(verb) = chars.next() else {
            return Err(Error::new("unexpected end of string"));
        };
        let value = values
            .get(next)
            .ok_or_else(|| Error::new(format!("index {next} out of range")))??;
        next += 1;
        let text = clause(verb, precision, &value, 0)?;
        meter.allocate(text.len())?;
        out.push_str(&text);
    }
    meter.allocate(format.len())?;
    Ok(Some(Value::text(out)))
}

fn clause(
    verb: char,
    precision: Option<usize>,
    value: &Value<'_>,
    depth: usize,
) -> Result<String, Error> {
    let unfit = |needs: &str| {
        let name = value.type_name();
        Error::new(format!(
            "error during formatting: {needs} clause can only be used on {}, was given {name}",
            match needs {
                "decimal" => "integers",
                "octal" => "integers",
                "binary" => "integers and bools",
                "hex" => "integers, byte buffers, and strings",
                _ => "doubles",
            }
        ))
    };
    let number = || match value {
        Value::Int(number) => Some(i128::from(*number)),
        Value::Uint(number) => Some(i128::from(*number)),
        _ => None,
    };
    let radix = |digits: &dyn Fn(u128) -> String, number: i128| {
        let sign = if number < 0 { "-" } else { "" };
        format!("{sign}{}", digits(number.unsigned_abs()))
    };
    Ok(match verb {
        's' => shown(value, depth)?,
        'd' => match (number(), value) {
            (Some(number), _) => number.to_string(),
            (None, Value::Double(number)) if !number.is_finite() => special(*number),
            _ => return Err(unfit("decimal")),
        },
        'f' | 'e' => {
            let double = match value {
                Value::Double(number) => *number,
                value => match (number(), value) {
                    (Some(number), _) => number as f64,
                    _ => return Err(unfit("fixed-point")),
                },
            };
            let digits = precision.unwrap_or(6);
            match (verb, double.is_finite()) {
                (_, false) => special(double),
                ('f', _) => format!("{double:.digits$}"),
                _ => {
                    let text = format!("{double:.digits$e}");
                    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
                    let sign = if exponent.starts_with('-') { '-' } else { '+' };
                    let magnitude = exponent.trim_start_matches('-');
                    format!("{mantissa}e{sign}{magnitude:0>2}")
                }
            }
        }
        'b' => match (number(), value) {
            (_, Value::Bool(flag)) => u8::from(*flag).to_string(),
            (Some(number), _) => radix(&|number| format!("{number:b}"), number),
            _ => return Err(unfit("binary")),
        },
        'o' => match number() {
            Some(number) => radix(&|number| format!("{number:o}"), number),
            None => return Err(unfit("octal")),
        },
        'x' | 'X' => {
            let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            let text: String = match (number(), value) {
                (Some(number), _) => radix(&|number| format!("{number:x}"), number),
                (_, Value::String(text)) => hex(text.as_bytes()),
                (_, Value::Bytes(bytes)) => hex(bytes),
                _ => return Err(unfit("hex")),
            };
            if verb == 'X' {
                text.to_ascii_uppercase()
            } else {
                text
            }
        }
        other => {
            let sentence = format!(
                "could not parse formatting clause: unrecognized formatting clause \"{other}\""
            );
            return Err(Error::new(sentence));
        }
    })
}

fn special(number: f64) -> String {
    match (number.is_nan(), number > 0.0) {
        (true, _) => "NaN",
        (_, true) => "Infinity",
        _ => "-Infinity",
    }
    .to_owned()
}

/// As `%s` shows it; lists and maps with their elements.
fn shown(value: &Value<'_>, depth: usize) -> Result<String, Error> {
    /// Below what any object or expression holds.
    const DEPTH_MAX: usize = 200;
    if depth > DEPTH_MAX {
        return Err(Error::new("value is too deep to be formatted"));
    }
    Ok(match value {
        Value::Double(number) if !number.is_finite() => special(*number),
        Value::List(list) => {
            let mut parts = Vec::new();
            for item in list.iter() {
                parts.push(shown(&item?, depth + 1)?);
            }
            format!("[{}]", parts.join(", "))
        }
        Value::Map(map) => {
            let mut parts = Vec::new();
            for key in map.keys() {
                let Some(found) = key.key() else { continue };
                if let Some(value) = map.find(&found)? {
                    parts.push(format!(
                        "{}: {}",
                        shown(&key, depth + 1)?,
                        shown(&value, depth + 1)?
                    ));
                }
            }
            parts.sort();
            format!("{{{}}}", parts.join(", "))
        }
        value => value.to_string(),
    })
}
