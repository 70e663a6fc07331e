//! `'%s has %d'.format([name, count])`: what a format says, and what it makes of values.
//!
//! Numbers with a point are written as in the English of the United States, as upstream does: `1,234.500000`, `1.234500×10⁰³`.
//!
//! Invariants: total; a text is as long as its [`Meter`] allows, and no number has more digits than [`PRECISION_MAX`].
//! Source: cel-go `ext/formatting.go`, `ext/strings.go` version 2.

use std::fmt;
use std::fmt::Write as _;

use super::Outcome;
use crate::cel::declaration::Type;
use crate::cel::eval::{Error, Meter};
use crate::cel::value::{List, Map, Value};

/// Most digits behind the point of a number. Upstream's version 2 has no bound; its version 5 has this one.
const PRECISION_MAX: usize = 100;

/// Digits behind the point where a format says nothing of them.
const PRECISION_DEFAULT: usize = 6;

/// A part of a format.
pub(in crate::cel) enum Piece<'f> {
    Text(&'f str),
    Clause(Result<Clause, Broken>),
}

/// What stands behind `%`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cel) struct Clause {
    pub verb: char,
    precision: Option<usize>,
}

/// Why a clause cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cel) enum Broken {
    /// The format ends behind `%`.
    Unfinished,
    Clause(String),
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unfinished => f.write_str("unexpected end of string"),
            Self::Clause(told) => write!(f, "could not parse formatting clause: {told}"),
        }
    }
}

/// The parts of a format in their order; nothing follows one that is broken.
pub(in crate::cel) fn pieces(format: &str) -> impl Iterator<Item = Piece<'_>> {
    let mut rest = Some(format);
    std::iter::from_fn(move || {
        let text = rest.filter(|text| !text.is_empty())?;
        let Some(after) = text.strip_prefix('%') else {
            let (plain, after) = text.split_at(text.find('%').unwrap_or(text.len()));
            rest = Some(after);
            return Some(Piece::Text(plain));
        };
        if let Some(after) = after.strip_prefix('%') {
            rest = Some(after);
            return Some(Piece::Text("%"));
        }
        Some(Piece::Clause(match clause(after) {
            Ok((clause, after)) => {
                rest = Some(after);
                Ok(clause)
            }
            Err(broken) => {
                rest = None;
                Err(broken)
            }
        }))
    })
}

fn clause(text: &str) -> Result<(Clause, &str), Broken> {
    if text.is_empty() {
        return Err(Broken::Unfinished);
    }
    let broken = |told: &str| Broken::Clause(format!("error while parsing precision: {told}"));
    let (mut precision, mut rest) = (None, text);
    if let Some(after) = text.strip_prefix('.') {
        let end = after
            .find(|c: char| !c.is_ascii_digit())
            .ok_or_else(|| broken("could not find end of precision specifier"))?;
        let (digits, after) = after.split_at(end);
        let number = digits.parse::<usize>().map_err(|_| {
            let why = if digits.is_empty() {
                "invalid syntax"
            } else {
                "value out of range"
            };
            broken(&format!(
                "error while converting precision to integer: strconv.Atoi: parsing {digits:?}: {why}"
            ))
        })?;
        if number > PRECISION_MAX {
            return Err(broken(&format!(
                "precision {number} exceeds maximum allowed precision {PRECISION_MAX}"
            )));
        }
        (precision, rest) = (Some(number), after);
    }
    match rest.chars().next() {
        Some(verb @ ('s' | 'd' | 'f' | 'e' | 'b' | 'x' | 'X' | 'o')) => {
            Ok((Clause { verb, precision }, &rest[1..]))
        }
        // Upstream looks at one byte.
        _ => {
            let verb = rest.bytes().next().map_or('%', char::from);
            let told = format!("unrecognized formatting clause \"{verb}\"");
            Err(Broken::Clause(told))
        }
    }
}

impl Clause {
    /// Whether values of a type can be meant.
    pub(in crate::cel) fn takes(self, of: &Type) -> bool {
        match (self.verb, of) {
            (_, Type::Dyn) => true,
            ('d' | 'o', Type::Int | Type::Uint) => true,
            // `NaN` and the infinities are written as texts, too.
            ('f' | 'e', Type::Double | Type::String) => true,
            ('b', Type::Int | Type::Uint | Type::Bool) => true,
            ('x' | 'X', Type::Int | Type::Uint | Type::String | Type::Bytes) => true,
            _ => false,
        }
    }

    /// What is told of a value of another type.
    pub(in crate::cel) fn refusal(self, type_name: &str) -> String {
        let told = match self.verb {
            'd' => "decimal clause can only be used on integers",
            'f' => "fixed-point clause can only be used on doubles",
            'e' => "scientific clause can only be used on doubles",
            'b' => "only integers and bools can be formatted as binary",
            'x' | 'X' => "only integers, byte buffers, and strings can be formatted as hex",
            'o' => "octal clause can only be used on integers",
            _ => {
                "string clause can only be used on strings, bools, bytes, ints, doubles, maps, lists, types, durations, and timestamps"
            }
        };
        format!("error during formatting: {told}, was given {type_name}")
    }

    fn text(self, value: &Value<'_>) -> Result<String, Error> {
        let refused = || Error::new(self.refusal(value.type_name()));
        let number = match value {
            Value::Int(number) => Some(i128::from(*number)),
            Value::Uint(number) => Some(i128::from(*number)),
            _ => None,
        };
        let sign = if number.is_some_and(|number| number < 0) {
            "-"
        } else {
            ""
        };
        let magnitude = number.map(i128::unsigned_abs);
        Ok(match (self.verb, magnitude, value) {
            ('s', ..) => {
                return shown(value, 0)
                    .map_err(|error| Error::new(format!("error during formatting: {error}")));
            }
            ('d', Some(magnitude), _) => format!("{sign}{magnitude}"),
            ('b', _, Value::Bool(flag)) => u8::from(*flag).to_string(),
            ('b', Some(magnitude), _) => format!("{sign}{magnitude:b}"),
            ('o', Some(magnitude), _) => format!("{sign}{magnitude:o}"),
            ('x', Some(magnitude), _) => format!("{sign}{magnitude:x}"),
            ('X', Some(magnitude), _) => format!("{sign}{magnitude:X}"),
            ('x' | 'X', _, Value::String(text)) => hex(text.as_bytes(), self.verb),
            ('x' | 'X', _, Value::Bytes(bytes)) => hex(bytes, self.verb),
            ('f' | 'e', ..) => {
                let double = match value {
                    Value::Double(double) => *double,
                    Value::String(text) => match &**text {
                        "NaN" => f64::NAN,
                        "Infinity" => f64::INFINITY,
                        "-Infinity" => f64::NEG_INFINITY,
                        _ => return Err(refused()),
                    },
                    _ => return Err(refused()),
                };
                let digits = self.precision.unwrap_or(PRECISION_DEFAULT);
                match self.verb {
                    _ if double.is_nan() => "NaN".to_owned(),
                    _ if double.is_infinite() => if double > 0.0 { "∞" } else { "-∞" }.to_owned(),
                    'f' => fixed(double, digits),
                    _ => scientific(double, digits),
                }
            }
            _ => return Err(refused()),
        })
    }
}

fn hex(bytes: &[u8], verb: char) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a String cannot fail.
        let _ = match verb {
            'X' => write!(text, "{byte:02X}"),
            _ => write!(text, "{byte:02x}"),
        };
    }
    text
}

/// With a comma between thousands.
fn fixed(number: f64, digits: usize) -> String {
    let plain = format!("{number:.digits$}");
    let (whole, fraction) = match plain.find('.') {
        Some(point) => plain.split_at(point),
        None => (plain.as_str(), ""),
    };
    let (sign, whole) = match whole.strip_prefix('-') {
        Some(whole) => ("-", whole),
        None => ("", whole),
    };
    let mut text = sign.to_owned();
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text.push_str(fraction);
    text
}

/// With a raised exponent of two digits at least.
fn scientific(number: f64, digits: usize) -> String {
    let plain = format!("{number:.digits$e}");
    let (mantissa, exponent) = plain.split_once('e').unwrap_or((&plain, "0"));
    let (sign, exponent) = match exponent.strip_prefix('-') {
        Some(exponent) => ("⁻", exponent),
        None => ("", exponent),
    };
    const RAISED: [char; 10] = ['⁰', '¹', '²', '³', '⁴', '⁵', '⁶', '⁷', '⁸', '⁹'];
    let raised: String = format!("{exponent:0>2}")
        .bytes()
        .filter_map(|digit| RAISED.get(usize::from(digit.wrapping_sub(b'0'))))
        .collect();
    format!("{mantissa}×10{sign}{raised}")
}

/// Values by a format.
pub(super) fn formatted<'a>(format: &str, values: &List<'a>, meter: &mut Meter) -> Outcome<'a> {
    let mut out = String::new();
    let mut next = 0;
    for piece in pieces(format) {
        let clause = match piece {
            Piece::Text(text) => {
                meter.allocate(text.len())?;
                out.push_str(text);
                continue;
            }
            Piece::Clause(clause) => clause,
        };
        let value = values
            .get(next)
            .ok_or_else(|| Error::new(format!("index {next} out of range")))??;
        next += 1;
        let clause = clause.map_err(|broken| Error::new(broken.to_string()))?;
        let text = clause.text(&value)?;
        meter.allocate(text.len())?;
        out.push_str(&text);
    }
    Ok(Some(Value::text(out)))
}

/// Below what any object or expression holds.
const DEPTH_MAX: usize = 200;

/// As `%s` shows it; lists and maps with their elements, as they would be written.
fn shown(value: &Value<'_>, depth: usize) -> Result<String, String> {
    if depth > DEPTH_MAX {
        return Err("value is too deep to be formatted".to_owned());
    }
    Ok(match value {
        Value::List(list) => {
            let mut parts = Vec::with_capacity(list.len());
            for item in list.iter() {
                let item = item.map_err(|error| error.message)?;
                parts.push(written(&item, depth + 1)?);
            }
            format!("[{}]", parts.join(", "))
        }
        Value::Map(map) => entries(map, depth)?,
        Value::Bytes(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => text.to_owned(),
            Err(_) => {
                return Err(
                    "could not convert argument \"invalid UTF-8 in bytes, cannot convert to string\" to string"
                        .to_owned(),
                );
            }
        },
        Value::Null
        | Value::Bool(_)
        | Value::Int(_)
        | Value::Uint(_)
        | Value::Double(_)
        | Value::String(_)
        | Value::Duration(_)
        | Value::Timestamp(_)
        | Value::Type(_) => value.to_string(),
        other => {
            return Err(format!(
                "string clause can only be used on strings, bools, bytes, ints, doubles, maps, lists, types, durations, and timestamps, was given {}",
                other.type_name()
            ));
        }
    })
}

/// An element as it would be written.
fn written(value: &Value<'_>, depth: usize) -> Result<String, String> {
    Ok(match value {
        Value::String(text) => quoted(text),
        Value::Bytes(_) => format!("b{}", quoted(&shown(value, depth)?)),
        Value::Timestamp(_) => format!("timestamp({})", quoted(&value.to_string())),
        Value::Duration(_) => format!("duration({})", quoted(&value.to_string())),
        Value::Double(number) if number.is_finite() => format!("{number:.PRECISION_DEFAULT$}"),
        Value::Double(_) => quoted(&value.to_string()),
        Value::Optional(_)
        | Value::Quantity(_)
        | Value::Ip(_)
        | Value::Cidr(..)
        | Value::Url(_)
        | Value::Semver(_)
        | Value::Format(_)
        | Value::Authority(_)
        | Value::Message(_) => {
            return Err(format!("no formatting function for {}", value.type_name()));
        }
        value => shown(value, depth)?,
    })
}

fn entries(map: &Map<'_>, depth: usize) -> Result<String, String> {
    let mut parts = Vec::with_capacity(map.len());
    for key in map.keys() {
        let Some(found) = key.key() else { continue };
        let value = map.find(&found).map_err(|error| error.message)?;
        if let Some(value) = value {
            parts.push((written(&key, depth + 1)?, written(&value, depth + 1)?));
        }
    }
    parts.sort_by(|a, b| a.0.cmp(&b.0));
    let parts: Vec<String> = parts
        .into_iter()
        .map(|(key, value)| format!("{key}:{value}"))
        .collect();
    Ok(format!("{{{}}}", parts.join(", ")))
}

/// Between quotes, as Go's `%q` writes it.
pub(in crate::cel) fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        let simple = match c {
            '"' => "\\\"",
            '\\' => "\\\\",
            '\x07' => "\\a",
            '\x08' => "\\b",
            '\x0c' => "\\f",
            '\n' => "\\n",
            '\r' => "\\r",
            '\t' => "\\t",
            '\x0b' => "\\v",
            _ => "",
        };
        if !simple.is_empty() {
            out.push_str(simple);
            continue;
        }
        // What Rust writes as a number is what cannot be printed.
        let printed = !c.escape_debug().to_string().starts_with("\\u{");
        // Writing to a String cannot fail.
        let _ = match u32::from(c) {
            _ if printed => out.write_char(c),
            code @ ..0x80 => write!(out, "\\x{code:02x}"),
            code @ ..0x10000 => write!(out, "\\u{code:04x}"),
            code => write!(out, "\\U{code:08x}"),
        };
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(format: &str, values: Vec<Value<'static>>) -> Result<String, String> {
        let Value::List(list) = Value::list(values) else {
            return Err("not a list".to_owned());
        };
        match formatted(format, &list, &mut Meter::per_call()) {
            Ok(Some(value)) => Ok(value.to_string()),
            Ok(None) => Err("nothing".to_owned()),
            Err(error) => Err(error.message),
        }
    }

    #[test]
    fn values_are_written_as_upstream_writes_them() {
        for (format, value, written) in [
            ("%s%%", Value::text("a"), "a%"),
            ("%d", Value::Int(-5), "-5"),
            ("%x", Value::text("hi"), "6869"),
            ("%X", Value::Int(-255), "-FF"),
            ("%b", Value::Bool(true), "1"),
            ("%.2f", Value::Double(1_234_567.125), "1,234,567.12"),
            ("%f", Value::Double(-0.5), "-0.500000"),
            ("%f", Value::text("-Infinity"), "-∞"),
            ("%.3e", Value::Double(1052.032911), "1.052×10⁰³"),
            ("%e", Value::Double(0.5), "5.000000×10⁻⁰¹"),
            ("%s", Value::Double(1e6), "1e+06"),
            ("%s", Value::Duration(90_000_000_000), "90s"),
            (
                "%s",
                Value::list(vec![
                    Value::text("a\n"),
                    Value::Double(1.0),
                    Value::Duration(0),
                ]),
                r#"["a\n", 1.000000, duration("0s")]"#,
            ),
        ] {
            assert_eq!(
                text(format, vec![value]),
                Ok(written.to_owned()),
                "{format}"
            );
        }
    }

    #[test]
    fn mistakes_in_formats_are_told() {
        for (format, told) in [
            ("%", "unexpected end of string"),
            ("%s %s", "index 1 out of range"),
            (
                "%q",
                "could not parse formatting clause: unrecognized formatting clause \"q\"",
            ),
            (
                "%.101f",
                "could not parse formatting clause: error while parsing precision: precision 101 exceeds maximum allowed precision 100",
            ),
            (
                "%.",
                "could not parse formatting clause: error while parsing precision: could not find end of precision specifier",
            ),
            (
                "%.f",
                "could not parse formatting clause: error while parsing precision: error while converting precision to integer: strconv.Atoi: parsing \"\": invalid syntax",
            ),
            (
                "%d",
                "error during formatting: decimal clause can only be used on integers, was given string",
            ),
            (
                "%ä",
                "could not parse formatting clause: unrecognized formatting clause \"Ã\"",
            ),
        ] {
            assert_eq!(text(format, vec![Value::text("a")]), Err(told.to_owned()));
        }
    }
}
