//! Functions that awk brings, and `getline`.

use std::rc::Rc;
use std::time::SystemTime;

use crate::tools::calendar::{self, Date};
use crate::tools::call::Stop;
use crate::tools::pattern::Spans;
use crate::tools::printf;

use super::interpreter::{self as run, Interpreter, Result};
use super::syntax_tree::{Expression, Source};
use super::value::Value;
use super::variables::cut;

pub fn arithmetic(sign: &str, a: f64, b: f64) -> Result<f64> {
    Ok(match sign {
        "+" => a + b,
        "-" => a - b,
        "*" => a * b,
        "/" | "%" if b == 0.0 => return Err(Stop::Failed(1, "Division by zero".into())),
        "/" => a / b,
        "%" => a % b,
        _ => a.powf(b),
    })
}

/// What a format makes of values: numbers for the conversions of numbers, text for the others.
pub fn formatted(format: &[u8], values: &[Value], conversions: &[u8]) -> Vec<u8> {
    let mut given = values.iter();
    let mut converted = Vec::with_capacity(values.len());
    let mut bytes = format.iter();
    while let Some(byte) = bytes.next() {
        if *byte != b'%' {
            continue;
        }
        let letter = loop {
            match bytes.next() {
                Some(b'*') => {
                    let number = given.next().map_or(0.0, Value::number);
                    converted.push(printf::Value::Number(number));
                }
                Some(byte) if b"-+ #.0123456789hlLqjzt".contains(byte) => {}
                other => break other,
            }
        };
        match letter {
            None => break,
            Some(b'%') => {}
            Some(letter) => {
                let Some(value) = given.next() else { continue };
                converted.push(match (letter, value) {
                    (b's', value) => printf::Value::Text(value.bytes(conversions).to_vec()),
                    (b'c', Value::Text(text)) => printf::Value::Text(text.to_vec()),
                    (_, value) => printf::Value::Number(value.number()),
                });
            }
        }
    }
    printf::format(format, &converted, false).bytes
}

/// `getline` in all its forms: 1 for a record, 0 at the end, -1 if it cannot be read.
pub async fn getline(
    run: &mut Interpreter<'_>,
    source: &Source,
    target: Option<&Expression>,
) -> Result<Value> {
    let separator = run.separator()?;
    let record = match source {
        Source::Main => Ok(run.read_main().await?),
        Source::File(name) => {
            let name = run.text(name).await?;
            let name = String::from_utf8_lossy(&name).into_owned();
            match run.streams.file(run.call, &name)? {
                None => return Ok(Value::Number(-1.0)),
                Some(records) => records.next(&separator).await,
            }
        }
        Source::Command(text) => {
            let text = run.text(text).await?;
            let text = String::from_utf8_lossy(&text).into_owned();
            match run.streams.command(run.call, &text).await? {
                None => return Ok(Value::Number(-1.0)),
                Some(records) => {
                    let record = records.next(&separator).await;
                    if matches!(record, Ok(Some(_))) {
                        let number = run.special(run::NR);
                        let number = Value::Text(number).number() + 1.0;
                        run.set_special(run::NR, Value::Number(number));
                    }
                    record
                }
            }
        }
    };
    match record {
        Err(_) => Ok(Value::Number(-1.0)),
        Ok(None) => Ok(Value::Number(0.0)),
        Ok(Some(record)) => {
            match target {
                Some(target) => run.assign(target, Value::input(record)).await?,
                None => run.set_record(record),
            }
            Ok(Value::Number(1.0))
        }
    }
}

pub async fn call(
    run: &mut Interpreter<'_>,
    name: &str,
    arguments: &[Expression],
) -> Result<Value> {
    let (least, most) = match name {
        "length" => (0, 1),
        "srand" | "close" | "fflush" | "systime" | "strftime" | "rand" => (0, 3),
        "atan2" | "index" | "and" | "or" | "xor" | "lshift" | "rshift" => (2, 8),
        "substr" | "sub" | "gsub" | "split" | "match" => (2, 4),
        "gensub" => (3, 4),
        "sprintf" => (1, usize::MAX),
        _ => (1, 1),
    };
    if !(least..=most).contains(&arguments.len()) {
        return Err(Stop::Failed(
            1,
            format!("Too few or too many arguments of {name}"),
        ));
    }
    match name {
        "length" => return length(run, arguments.first()).await,
        "split" => return split(run, arguments).await,
        "sub" | "gsub" => return substitute(run, name == "gsub", arguments).await,
        "gensub" => return gensub(run, arguments).await,
        "match" => return matched(run, arguments).await,
        "sprintf" => return Ok(Value::text(run.formatted(arguments).await?)),
        _ => {}
    }
    let mut values = Vec::with_capacity(arguments.len());
    for argument in arguments {
        values.push(run.value(argument).await?);
    }
    let conversions = run.special(run::CONVFMT);
    let number = |index: usize| values.get(index).map_or(0.0, Value::number);
    let text = |index: usize| {
        values
            .get(index)
            .map_or_else(Rc::default, |value| value.bytes(&conversions))
    };
    let bits = |index: usize| number(index).clamp(0.0, u64::MAX as f64) as u64;
    let spoken = |index: usize| String::from_utf8_lossy(&text(index)).into_owned();
    Ok(Value::Number(match name {
        "substr" => {
            let text = text(0);
            // Rounded as POSIX says; what lies outside of the text is no part of it.
            let from = number(1).round_ties_even();
            let to = if values.len() > 2 {
                from + number(2).round_ties_even()
            } else {
                f64::INFINITY
            };
            let clamp = |place: f64| {
                if place.is_nan() {
                    0
                } else {
                    (place - 1.0).clamp(0.0, text.len() as f64) as usize
                }
            };
            let (from, to) = (clamp(from), clamp(to));
            return Ok(Value::text(
                text.get(from..to.max(from)).unwrap_or_default(),
            ));
        }
        "index" => {
            let (text, part) = (text(0), text(1));
            match part.is_empty() {
                true => 0.0,
                false => text
                    .windows(part.len())
                    .position(|window| window == part.as_slice())
                    .map_or(0.0, |at| at as f64 + 1.0),
            }
        }
        "tolower" => return Ok(Value::text(text(0).to_ascii_lowercase())),
        "toupper" => return Ok(Value::text(text(0).to_ascii_uppercase())),
        "sin" => number(0).sin(),
        "cos" => number(0).cos(),
        "atan2" => number(0).atan2(number(1)),
        "exp" => number(0).exp(),
        "log" => number(0).ln(),
        "sqrt" => number(0).sqrt(),
        "int" => number(0).trunc(),
        "rand" => {
            run.seed = run
                .seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (run.seed >> 11) as f64 / (1u64 << 53) as f64
        }
        "srand" => {
            let seed = match values.is_empty() {
                false => number(0),
                true => calendar::since_epoch(SystemTime::now()).0 as f64,
            };
            run.seed = seed.to_bits() ^ 0x9e37_79b9_7f4a_7c15;
            std::mem::replace(&mut run.last_seed, seed)
        }
        "and" => (bits(0) & bits(1)) as f64,
        "or" => (bits(0) | bits(1)) as f64,
        "xor" => (bits(0) ^ bits(1)) as f64,
        "compl" => (!bits(0) & ((1 << 53) - 1)) as f64,
        "lshift" => bits(0).checked_shl(bits(1).min(64) as u32).unwrap_or(0) as f64,
        "rshift" => bits(0).checked_shr(bits(1).min(64) as u32).unwrap_or(0) as f64,
        "systime" => calendar::since_epoch(SystemTime::now()).0 as f64,
        "strftime" => {
            let format = match values.is_empty() {
                true => "%a %b %e %H:%M:%S %Z %Y".to_owned(),
                false => spoken(0),
            };
            let seconds = match values.len() > 1 {
                true => number(1) as i64,
                false => calendar::since_epoch(SystemTime::now()).0,
            };
            let zone = calendar::zone(run.call.variable("TZ"));
            return Ok(Value::text(Date::of(seconds, 0, zone).format(&format)));
        }
        "mktime" => {
            let spec = spoken(0);
            let parts: Vec<i64> = spec
                .split_whitespace()
                .filter_map(|part| part.parse().ok())
                .collect();
            match parts.as_slice() {
                [year, month, day, hour, minute, second, ..] => {
                    let text =
                        format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}");
                    let zone = calendar::zone(run.call.variable("TZ"));
                    calendar::parse(&text, SystemTime::now(), zone)
                        .map_or(-1.0, |(seconds, _)| seconds as f64)
                }
                _ => -1.0,
            }
        }
        "system" => {
            let command = spoken(0);
            f64::from(run.streams.system(run.call, &command).await?)
        }
        "close" => {
            let name = spoken(0);
            f64::from(run.streams.close(&name).await)
        }
        "fflush" => {
            run.streams.flush(run.call).await?;
            0.0
        }
        other => return Err(Stop::Failed(1, format!("no function '{other}'"))),
    }))
}

async fn length(run: &mut Interpreter<'_>, argument: Option<&Expression>) -> Result<Value> {
    let length = match argument {
        None => run.record().len(),
        Some(Expression::Variable(place)) if run.is_array(*place) => {
            run.array(*place)?.borrow().len()
        }
        Some(argument) => run.text(argument).await?.len(),
    };
    Ok(Value::Number(length as f64))
}

async fn split(run: &mut Interpreter<'_>, arguments: &[Expression]) -> Result<Value> {
    let [text, Expression::Variable(place), rest @ ..] = arguments else {
        return Err(Stop::Failed(1, "split needs an array".into()));
    };
    let text = run.text(text).await?;
    let parts = match rest.first() {
        Some(Expression::Regex(pattern)) if !text.is_empty() => cut(&text, pattern),
        Some(Expression::Regex(_)) => Vec::new(),
        Some(separator) => {
            let separator = run.text(separator).await?;
            run.parts(&text, &separator)?
        }
        None => {
            let separator = run.special(run::FS);
            run.parts(&text, &separator)?
        }
    };
    let array = run.array(*place)?;
    let mut array = array.borrow_mut();
    array.clear();
    let count = parts.len();
    for (index, part) in parts.into_iter().enumerate() {
        array.insert((index + 1).to_string().into_bytes(), Value::input(part));
    }
    Ok(Value::Number(count as f64))
}

async fn matched(run: &mut Interpreter<'_>, arguments: &[Expression]) -> Result<Value> {
    let [text, pattern, rest @ ..] = arguments else {
        return Ok(Value::Unset);
    };
    let text = run.text(text).await?;
    let pattern = run.matcher(pattern).await?;
    let spans = pattern.spans_at(&text, 0);
    let whole = spans
        .as_ref()
        .and_then(|spans| spans.first().copied().flatten());
    let (start, length) = whole.map_or((0.0, -1.0), |(from, to)| {
        (from as f64 + 1.0, (to - from) as f64)
    });
    run.set_special(run::RSTART, Value::Number(start));
    run.set_special(run::RLENGTH, Value::Number(length));
    if let Some(Expression::Variable(place)) = rest.first() {
        let array = run.array(*place)?;
        let mut array = array.borrow_mut();
        array.clear();
        for (index, span) in spans.unwrap_or_default().into_iter().enumerate() {
            if let Some((from, to)) = span {
                let part = text.get(from..to).unwrap_or_default();
                array.insert(index.to_string().into_bytes(), Value::input(part));
            }
        }
    }
    Ok(Value::Number(start))
}

/// The text with matches replaced: the `number`th, or all from there on. Gives how many were.
fn replaced(
    text: &[u8],
    pattern: &crate::tools::pattern::Pattern,
    number: u64,
    all: bool,
    mut write: impl FnMut(&Spans, &mut Vec<u8>),
) -> (Vec<u8>, u64) {
    let (mut out, mut at, mut copied, mut count, mut done) = (Vec::new(), 0, 0, 0, 0);
    let mut last_end = None;
    while let Some(spans) = pattern.spans_at(text, at) {
        let Some((from, to)) = spans.first().copied().flatten() else {
            break;
        };
        if from == to && last_end == Some(from) {
            at = to + 1;
            continue;
        }
        last_end = Some(to);
        count += 1;
        if count >= number {
            out.extend_from_slice(text.get(copied..from).unwrap_or_default());
            write(&spans, &mut out);
            (copied, done) = (to, done + 1);
            if !all {
                break;
            }
        }
        at = if to > from { to } else { to + 1 };
        if at > text.len() {
            break;
        }
    }
    out.extend_from_slice(text.get(copied..).unwrap_or_default());
    (out, done)
}

async fn substitute(
    run: &mut Interpreter<'_>,
    all: bool,
    arguments: &[Expression],
) -> Result<Value> {
    let [pattern, replacement, rest @ ..] = arguments else {
        return Ok(Value::Unset);
    };
    let pattern = run.matcher(pattern).await?;
    let replacement = run.text(replacement).await?;
    let record = Expression::Field(Box::new(Expression::Constant(Value::Number(0.0))));
    let target = rest.first().unwrap_or(&record);
    let text = run.text(target).await?;
    let (new, count) = replaced(&text, &pattern, 1, all, |spans, out| {
        let span = spans.first().copied().flatten().unwrap_or_default();
        let found = text.get(span.0..span.1).unwrap_or_default();
        let mut bytes = replacement.iter().peekable();
        while let Some(byte) = bytes.next() {
            match byte {
                b'&' => out.extend_from_slice(found),
                b'\\' => match bytes.next_if(|next| matches!(next, b'&' | b'\\')) {
                    Some(next) => out.push(*next),
                    None => out.push(b'\\'),
                },
                byte => out.push(*byte),
            }
        }
    });
    if count > 0 && is_place(target) {
        run.assign(target, Value::text(new)).await?;
    }
    Ok(Value::Number(count as f64))
}

fn is_place(expression: &Expression) -> bool {
    match expression {
        Expression::Variable(_) | Expression::Field(_) | Expression::Element(..) => true,
        Expression::Grouped(inner) => is_place(inner),
        _ => false,
    }
}

async fn gensub(run: &mut Interpreter<'_>, arguments: &[Expression]) -> Result<Value> {
    let [pattern, replacement, how, rest @ ..] = arguments else {
        return Ok(Value::Unset);
    };
    let pattern = run.matcher(pattern).await?;
    let replacement = run.text(replacement).await?;
    let how = run.value(how).await?;
    let text = match rest.first() {
        Some(target) => run.text(target).await?,
        None => run.record(),
    };
    let all = matches!(how.bytes(b"%.6g").first(), Some(b'g' | b'G'));
    let number = if all { 1 } else { how.number().max(1.0) as u64 };
    let (new, _) = replaced(&text, &pattern, number, all, |spans, out| {
        let group = |number: usize| {
            let span = spans.get(number).copied().flatten();
            span.and_then(|(from, to)| text.get(from..to))
                .unwrap_or_default()
        };
        let mut bytes = replacement.iter();
        while let Some(byte) = bytes.next() {
            match byte {
                b'&' => out.extend_from_slice(group(0)),
                b'\\' => match bytes.next() {
                    Some(digit @ b'0'..=b'9') => {
                        out.extend_from_slice(group(usize::from(digit - b'0')))
                    }
                    Some(other) => out.push(*other),
                    None => out.push(b'\\'),
                },
                byte => out.push(*byte),
            }
        }
    });
    Ok(Value::text(new))
}
