//! Formatting as C's `printf` does it, for awk, seq, stat and find. (The shell has the command.)

/// The widest field and the most decimals: beyond them is a mistake, and memory.
const WIDTH_MAX: usize = 1 << 16;

/// What is formatted.
#[derive(Clone, Debug)]
pub enum Value {
    Text(Vec<u8>),
    Number(f64),
}

/// What came of one pass over a format.
pub struct Formatted {
    pub bytes: Vec<u8>,
    /// How many values it took.
    pub used: usize,
    pub faults: Vec<String>,
    /// `\c` was met: nothing more is to be written.
    pub stopped: bool,
}

/// Formats once through. With `escapes` the format's backslashes are read, as `printf` does and awk has done before.
pub fn format(format: &[u8], values: &[Value], escapes: bool) -> Formatted {
    let mut done = Formatted {
        bytes: Vec::new(),
        used: 0,
        faults: Vec::new(),
        stopped: false,
    };
    let mut at = 0;
    while let Some(byte) = format.get(at) {
        match byte {
            b'\\' if escapes => {
                let rest = format.get(at..).unwrap_or_default();
                match unescape(rest, false) {
                    Some((byte, used)) => {
                        done.bytes.extend(byte);
                        at += used;
                    }
                    None => {
                        done.stopped = true;
                        return done;
                    }
                }
            }
            b'%' if format.get(at + 1) == Some(&b'%') => {
                done.bytes.push(b'%');
                at += 2;
            }
            b'%' => at = done.conversion(format, at, values),
            byte => {
                done.bytes.push(*byte);
                at += 1;
            }
        }
        if done.stopped {
            return done;
        }
    }
    done
}

#[derive(Default)]
struct Spec {
    left: bool,
    zero: bool,
    plus: bool,
    space: bool,
    alternate: bool,
    width: usize,
    precision: Option<usize>,
}

impl Formatted {
    fn next<'v>(&mut self, values: &'v [Value]) -> Option<&'v Value> {
        let value = values.get(self.used)?;
        self.used += 1;
        Some(value)
    }

    /// Writes what the `%` at `start` asks for and gives the place behind it.
    fn conversion(&mut self, format: &[u8], start: usize, values: &[Value]) -> usize {
        let mut at = start + 1;
        let mut spec = Spec::default();
        loop {
            match format.get(at) {
                Some(b'-') => spec.left = true,
                Some(b'0') => spec.zero = true,
                Some(b'+') => spec.plus = true,
                Some(b' ') => spec.space = true,
                Some(b'#') => spec.alternate = true,
                _ => break,
            }
            at += 1;
        }
        let mut number = |done: &mut Formatted| -> Option<i64> {
            if format.get(at) == Some(&b'*') {
                at += 1;
                return done
                    .next(values)
                    .map(|value| integer(value, &mut done.faults) as i64);
            }
            let mut value = None;
            while let Some(digit) = format.get(at).filter(|byte| byte.is_ascii_digit()) {
                value = Some((value.unwrap_or(0i64) * 10 + i64::from(digit - b'0')).min(1 << 30));
                at += 1;
            }
            value
        };
        if let Some(width) = number(self) {
            spec.left |= width < 0;
            spec.width = usize::try_from(width.unsigned_abs())
                .unwrap_or(0)
                .min(WIDTH_MAX);
        }
        let dotted = format.get(at) == Some(&b'.');
        if dotted {
            at += 1;
            let mut number = |done: &mut Formatted| -> i64 {
                if format.get(at) == Some(&b'*') {
                    at += 1;
                    return done
                        .next(values)
                        .map_or(0, |value| integer(value, &mut done.faults) as i64);
                }
                let mut value = 0i64;
                while let Some(digit) = format.get(at).filter(|byte| byte.is_ascii_digit()) {
                    value = (value * 10 + i64::from(digit - b'0')).min(1 << 30);
                    at += 1;
                }
                value
            };
            let precision = number(self);
            spec.precision = usize::try_from(precision)
                .ok()
                .map(|precision| precision.min(WIDTH_MAX));
        }
        while format.get(at).is_some_and(|byte| b"hlLqjzt".contains(byte)) {
            at += 1;
        }
        let Some(letter) = format.get(at).copied() else {
            self.bytes
                .extend_from_slice(format.get(start..).unwrap_or_default());
            return format.len();
        };
        match letter {
            b's' | b'b' => {
                let mut text = match self.next(values) {
                    None => Vec::new(),
                    Some(Value::Text(text)) => text.clone(),
                    Some(Value::Number(number)) => plain(*number).into_bytes(),
                };
                if letter == b'b' {
                    (text, self.stopped) = unescape_all(&text);
                }
                if let Some(precision) = spec.precision {
                    text.truncate(precision);
                }
                self.pad(&text, &spec);
            }
            b'c' => {
                let text = match self.next(values) {
                    None => Vec::new(),
                    Some(Value::Text(text)) => text.iter().take(1).copied().collect(),
                    Some(Value::Number(number)) => match *number as i64 {
                        byte @ 0..256 => vec![byte as u8],
                        code => u32::try_from(code)
                            .ok()
                            .and_then(char::from_u32)
                            .map_or_else(Vec::new, |c| c.to_string().into_bytes()),
                    },
                };
                self.pad(&text, &spec);
            }
            b'd' | b'i' | b'o' | b'u' | b'x' | b'X' => {
                let value = self.next(values);
                let value = value.map_or(0, |value| integer(value, &mut self.faults));
                let signed = matches!(letter, b'd' | b'i');
                let magnitude = if signed {
                    value.unsigned_abs()
                } else {
                    value as u64 as u128
                };
                let mut digits = match letter {
                    b'o' => format!("{magnitude:o}"),
                    b'x' => format!("{magnitude:x}"),
                    b'X' => format!("{magnitude:X}"),
                    _ => magnitude.to_string(),
                };
                if let Some(precision) = spec.precision {
                    if precision == 0 && magnitude == 0 {
                        digits.clear();
                    }
                    digits = format!("{digits:0>precision$}");
                }
                let prefix = match letter {
                    _ if signed && value < 0 => "-",
                    _ if signed && spec.plus => "+",
                    _ if signed && spec.space => " ",
                    b'o' if spec.alternate && !digits.starts_with('0') => "0",
                    b'x' if spec.alternate && magnitude != 0 => "0x",
                    b'X' if spec.alternate && magnitude != 0 => "0X",
                    _ => "",
                };
                let zeros = spec.zero && !spec.left && spec.precision.is_none();
                self.number(prefix, &digits, &spec, zeros);
            }
            b'f' | b'F' | b'e' | b'E' | b'g' | b'G' | b'a' | b'A' => {
                let value = match self.next(values) {
                    None => 0.0,
                    Some(Value::Number(number)) => *number,
                    Some(Value::Text(text)) => float_of(text, &mut self.faults),
                };
                let digits = float(
                    value.abs(),
                    letter,
                    spec.precision.unwrap_or(6),
                    spec.alternate,
                );
                let prefix = match () {
                    _ if value.is_sign_negative() && !value.is_nan() => "-",
                    _ if spec.plus => "+",
                    _ if spec.space => " ",
                    _ => "",
                };
                let zeros = spec.zero && !spec.left && value.is_finite();
                self.number(prefix, &digits, &spec, zeros);
            }
            _ => {
                let text = format.get(start..=at).unwrap_or_default();
                self.faults
                    .push(format!("{}: invalid format", String::from_utf8_lossy(text)));
                self.stopped = true;
            }
        }
        at + 1
    }

    fn number(&mut self, prefix: &str, digits: &str, spec: &Spec, zeros: bool) {
        if zeros {
            let width = spec.width.saturating_sub(prefix.len());
            let text = format!("{prefix}{digits:0>width$}");
            return self.bytes.extend_from_slice(text.as_bytes());
        }
        self.pad(format!("{prefix}{digits}").as_bytes(), spec);
    }

    fn pad(&mut self, text: &[u8], spec: &Spec) {
        let missing = spec.width.saturating_sub(text.len());
        let fill = std::iter::repeat_n(b' ', missing);
        if spec.left {
            self.bytes.extend_from_slice(text);
            self.bytes.extend(fill);
        } else {
            self.bytes.extend(fill);
            self.bytes.extend_from_slice(text);
        }
    }
}

/// A number as text, whole numbers without a fraction.
fn plain(number: f64) -> String {
    match number.fract() == 0.0 && number.abs() < 1e18 {
        true => format!("{}", number as i64),
        false => float(number, b'g', 6, false),
    }
}

fn integer(value: &Value, faults: &mut Vec<String>) -> i128 {
    let text = match value {
        Value::Number(number) => return number.clamp(i64::MIN as f64, u64::MAX as f64) as i128,
        Value::Text(text) => text,
    };
    if let [b'\'' | b'"', byte, ..] = text.as_slice() {
        return i128::from(*byte);
    }
    let text = String::from_utf8_lossy(text);
    let trimmed = text.trim_start();
    if trimmed.is_empty() {
        return 0;
    }
    let (negative, digits) = match trimmed.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, trimmed.strip_prefix('+').unwrap_or(trimmed)),
    };
    let (radix, digits) = match (
        digits.strip_prefix("0x").or(digits.strip_prefix("0X")),
        digits,
    ) {
        (Some(hex), _) => (16, hex),
        (None, octal) if octal.len() > 1 && octal.starts_with('0') => (8, octal),
        (None, decimal) => (10, decimal),
    };
    let valid: String = digits.chars().take_while(|c| c.is_digit(radix)).collect();
    if valid.len() < digits.len() || valid.is_empty() {
        faults.push(format!("invalid number '{text}'"));
    }
    let value =
        i128::from_str_radix(&valid, radix).unwrap_or(if valid.is_empty() { 0 } else { i128::MAX });
    let value = value.min(i128::from(u64::MAX));
    if negative {
        (-value).max(i128::from(i64::MIN))
    } else {
        value
    }
}

fn float_of(text: &[u8], faults: &mut Vec<String>) -> f64 {
    if let [b'\'' | b'"', byte, ..] = text {
        return f64::from(*byte);
    }
    let trimmed = text.trim_ascii_start();
    if trimmed.is_empty() {
        return 0.0;
    }
    let whole = std::str::from_utf8(trimmed)
        .ok()
        .and_then(|text| text.parse().ok());
    whole.unwrap_or_else(|| {
        faults.push(format!(
            "invalid number '{}'",
            String::from_utf8_lossy(text)
        ));
        super::sort::leading_float(trimmed).unwrap_or(0.0)
    })
}

/// A float as C writes it. `value` is written with its sign.
pub fn float(value: f64, letter: u8, precision: usize, alternate: bool) -> String {
    let upper = letter.is_ascii_uppercase();
    let cased = |text: String| if upper { text.to_uppercase() } else { text };
    if value.is_nan() {
        return cased("nan".into());
    }
    if value.is_infinite() {
        return cased(if value < 0.0 { "-inf" } else { "inf" }.into());
    }
    let exponential = |precision: usize| {
        let text = format!("{value:.precision$e}");
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let exponent: i32 = exponent.parse().unwrap_or(0);
        (digits.to_owned(), exponent)
    };
    let written = |digits: &str, exponent: i32| {
        let sign = if exponent < 0 { '-' } else { '+' };
        format!("{digits}e{sign}{:02}", exponent.abs())
    };
    match letter.to_ascii_lowercase() {
        b'f' => format!("{value:.precision$}"),
        b'g' => {
            let precision = precision.max(1);
            let (digits, exponent) = exponential(precision - 1);
            let strip = |text: String| match text.contains('.') && !alternate {
                true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
                false => text,
            };
            if exponent < -4 || exponent >= precision as i32 {
                return cased(written(&strip(digits), exponent));
            }
            let decimals = usize::try_from(precision as i32 - 1 - exponent).unwrap_or(0);
            strip(format!("{value:.decimals$}"))
        }
        _ => {
            let (digits, exponent) = exponential(precision);
            cased(written(&digits, exponent))
        }
    }
}

/// What the backslash at the start of a text stands for, and how long its writing is; `None` for `\c`. With `leading_zero` an octal
/// number may begin with a 0 that does not count.
pub fn unescape(text: &[u8], leading_zero: bool) -> Option<(Vec<u8>, usize)> {
    let one = |byte: u8| Some((vec![byte], 2));
    match text.get(1) {
        None => Some((vec![b'\\'], 1)),
        Some(b'a') => one(7),
        Some(b'b') => one(8),
        Some(b'c') => None,
        Some(b'e') => one(27),
        Some(b'f') => one(12),
        Some(b'n') => one(b'\n'),
        Some(b'r') => one(b'\r'),
        Some(b't') => one(b'\t'),
        Some(b'v') => one(11),
        Some(byte @ (b'\\' | b'"' | b'\'')) => one(*byte),
        Some(b'x') => {
            let digits: Vec<u8> = text
                .iter()
                .skip(2)
                .take(2)
                .copied()
                .take_while(u8::is_ascii_hexdigit)
                .collect();
            if digits.is_empty() {
                return Some((b"\\x".to_vec(), 2));
            }
            let digits_text = String::from_utf8_lossy(&digits).into_owned();
            Some((
                vec![u8::from_str_radix(&digits_text, 16).unwrap_or(0)],
                2 + digits.len(),
            ))
        }
        Some(b'0'..=b'7') => {
            let most = if leading_zero && text.get(1) == Some(&b'0') {
                4
            } else {
                3
            };
            let digits = text
                .iter()
                .skip(1)
                .take(most)
                .take_while(|byte| (b'0'..=b'7').contains(*byte));
            let (value, count) = digits.fold((0u32, 0), |(value, count), digit| {
                (value * 8 + u32::from(digit - b'0'), count + 1)
            });
            Some((vec![value as u8], 1 + count))
        }
        Some(other) => Some((vec![b'\\', *other], 2)),
    }
}

/// A text with its escapes read, and whether a `\c` ended it.
pub fn unescape_all(text: &[u8]) -> (Vec<u8>, bool) {
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        if *byte != b'\\' {
            out.push(*byte);
            at += 1;
            continue;
        }
        match unescape(text.get(at..).unwrap_or_default(), true) {
            Some((bytes, used)) => {
                out.extend(bytes);
                at += used;
            }
            None => return (out, true),
        }
    }
    (out, false)
}
