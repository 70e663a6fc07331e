//! `echo` and `printf`.

use crate::sh::escape::{self, Dialect};
use crate::sh::shell::{Outcome, Shell};
use crate::text;

/// What one field may be padded to, and how many digits a number may have behind its point.
const WIDTH_MAX: usize = 1 << 20;

pub async fn echo(shell: &mut Shell, arguments: Vec<String>) -> Outcome {
    let mut newline = true;
    let mut escapes = false;
    let mut words = arguments.iter().skip(1).peekable();
    while let Some(letters) = words.peek().and_then(|word| word.strip_prefix('-')) {
        if letters.is_empty()
            || !letters
                .chars()
                .all(|letter| matches!(letter, 'n' | 'e' | 'E'))
        {
            break;
        }
        for letter in letters.chars() {
            match letter {
                'n' => newline = false,
                'e' => escapes = true,
                _ => escapes = false,
            }
        }
        words.next();
    }
    let words: Vec<_> = words.map(String::as_str).collect();
    let bytes = text::to_bytes(&words.join(" "));
    let mut output = Vec::with_capacity(bytes.len() + 1);
    match escapes {
        true => newline &= escape::replace(&bytes, Dialect::Echo, &mut output),
        false => output = bytes,
    }
    if newline {
        output.push(b'\n');
    }
    shell.print_bytes(&output).await
}

pub async fn printf(shell: &mut Shell, arguments: Vec<String>) -> Outcome {
    let mut operands = arguments.get(1..).unwrap_or_default();
    if operands.first().is_some_and(|first| first == "--") {
        operands = operands.get(1..).unwrap_or_default();
    }
    let Some(format) = operands.first() else {
        return shell.refuse("usage: printf FORMAT [ARGUMENT...]", 1).await;
    };
    let mut printer = Printer {
        operands: operands.get(1..).unwrap_or_default(),
        output: Vec::new(),
        complaints: Vec::new(),
        conversions: 0,
    };
    let format = text::to_bytes(format);
    let mut going = printer.format(&format);
    while going && !printer.operands.is_empty() && printer.conversions > 0 {
        // A format as long as its output is repeated in pieces.
        if printer.output.len() > 1 << 16 {
            let output = std::mem::take(&mut printer.output);
            shell.print_bytes(&output).await?;
        }
        going = printer.format(&format);
    }
    let Printer {
        output, complaints, ..
    } = printer;
    let status = shell.print_bytes(&output).await?;
    for complaint in &complaints {
        shell.complain(complaint).await;
    }
    Ok(if complaints.is_empty() { status } else { 1 })
}

struct Printer<'a> {
    operands: &'a [String],
    output: Vec<u8>,
    complaints: Vec<String>,
    /// How many directives took an operand, or would have.
    conversions: usize,
}

/// Flags, width and precision of a directive.
#[derive(Default)]
struct Shape {
    left: bool,
    plus: bool,
    space: bool,
    alternative: bool,
    zero: bool,
    width: usize,
    precision: Option<usize>,
}

impl Printer<'_> {
    fn operand(&mut self) -> Option<String> {
        self.conversions += 1;
        let (first, rest) = self.operands.split_first()?;
        self.operands = rest;
        Some(first.clone())
    }

    /// Goes through the format once; false where the output ends.
    fn format(&mut self, format: &[u8]) -> bool {
        let mut at = 0;
        while let Some(byte) = format.get(at) {
            at += 1;
            match byte {
                b'\\' => {
                    // Up to the next directive, all at once.
                    let rest = format.get(at - 1..).unwrap_or_default();
                    let end = rest
                        .iter()
                        .position(|byte| *byte == b'%')
                        .unwrap_or(rest.len());
                    let piece = rest.get(..end).unwrap_or_default();
                    if let Some(stop) = piece.windows(2).position(|pair| pair == b"\\c") {
                        escape::replace(
                            piece.get(..stop).unwrap_or_default(),
                            Dialect::Format,
                            &mut self.output,
                        );
                        return false;
                    }
                    escape::replace(piece, Dialect::Format, &mut self.output);
                    at += end - 1;
                }
                b'%' if format.get(at) == Some(&b'%') => {
                    self.output.push(b'%');
                    at += 1;
                }
                b'%' => match self.directive(format, &mut at) {
                    Some(true) => {}
                    _ => return false,
                },
                byte => self.output.push(*byte),
            }
        }
        true
    }

    /// A directive from behind its `%`; false where the output ends.
    fn directive(&mut self, format: &[u8], at: &mut usize) -> Option<bool> {
        let start = *at;
        let mut shape = Shape::default();
        loop {
            match format.get(*at) {
                Some(b'-') => shape.left = true,
                Some(b'+') => shape.plus = true,
                Some(b' ') => shape.space = true,
                Some(b'#') => shape.alternative = true,
                Some(b'0') => shape.zero = true,
                _ => break,
            }
            *at += 1;
        }
        let width = self.size(format, at);
        shape.left |= width < 0;
        shape.width = usize::try_from(width.unsigned_abs())
            .unwrap_or(WIDTH_MAX)
            .min(WIDTH_MAX);
        if format.get(*at) == Some(&b'.') {
            *at += 1;
            let precision = self.size(format, at);
            shape.precision = usize::try_from(precision)
                .ok()
                .map(|precision| precision.min(WIDTH_MAX));
        }
        while matches!(
            format.get(*at),
            Some(b'l' | b'h' | b'j' | b'z' | b't' | b'L')
        ) {
            *at += 1;
        }
        let Some(conversion) = format.get(*at).copied() else {
            self.invalid(format.get(start - 1..).unwrap_or_default());
            return None;
        };
        *at += 1;
        match conversion {
            b's' | b'b' | b'c' => {
                let operand = self.operand().unwrap_or_default();
                let mut bytes = text::to_bytes(&operand);
                let mut going = true;
                if conversion == b'b' {
                    let mut plain = Vec::new();
                    going = escape::replace(&bytes, Dialect::Echo, &mut plain);
                    bytes = plain;
                }
                if conversion == b'c' {
                    let count = operand.chars().next().map_or(0, char::len_utf8);
                    bytes.truncate(count);
                } else if let Some(precision) = shape.precision {
                    bytes.truncate(precision);
                }
                self.pad(&shape, &bytes);
                Some(going)
            }
            b'd' | b'i' => {
                let operand = self.operand().unwrap_or_default();
                let value = self.integer(&operand);
                self.signed(&shape, value);
                Some(true)
            }
            b'u' | b'o' | b'x' | b'X' => {
                let operand = self.operand().unwrap_or_default();
                let value = self.integer(&operand) as u64;
                self.unsigned(&shape, value, conversion);
                Some(true)
            }
            b'e' | b'E' | b'f' | b'F' | b'g' | b'G' | b'a' | b'A' => {
                let operand = self.operand().unwrap_or_default();
                let value = self.float(&operand);
                self.real(&shape, value, conversion);
                Some(true)
            }
            _ => {
                self.invalid(format.get(start - 1..*at).unwrap_or_default());
                None
            }
        }
    }

    fn invalid(&mut self, directive: &[u8]) {
        self.complaints.push(format!(
            "{}: invalid format",
            String::from_utf8_lossy(directive)
        ));
    }

    /// A width or precision: digits, or `*` for an operand.
    fn size(&mut self, format: &[u8], at: &mut usize) -> i64 {
        if format.get(*at) == Some(&b'*') {
            *at += 1;
            let operand = self.operand().unwrap_or_default();
            return self.integer(&operand);
        }
        let mut value = 0_i64;
        while let Some(digit) = format.get(*at).filter(|byte| byte.is_ascii_digit()) {
            value = value
                .saturating_mul(10)
                .saturating_add(i64::from(digit - b'0'));
            *at += 1;
        }
        value
    }

    /// A number as C writes them, or the value of the character behind a quote. Something behind it is an error.
    fn integer(&mut self, text: &str) -> i64 {
        if let Some(character) = quoted(text) {
            return i64::from(character);
        }
        let trimmed = text.trim_start();
        let (negative, digits) = match trimmed.strip_prefix('-') {
            Some(digits) => (true, digits),
            None => (false, trimmed.strip_prefix('+').unwrap_or(trimmed)),
        };
        let (base, digits) = match digits
            .strip_prefix("0x")
            .or_else(|| digits.strip_prefix("0X"))
        {
            Some(digits) => (16, digits),
            None if digits.len() > 1 && digits.starts_with('0') => {
                (8, digits.get(1..).unwrap_or_default())
            }
            None => (10, digits),
        };
        if text.is_empty() {
            return 0;
        }
        let count = digits
            .chars()
            .take_while(|digit| digit.is_digit(base))
            .count();
        let number = digits.get(..count).unwrap_or_default();
        let value = u64::from_str_radix(number, base).ok();
        let is_zero = base == 8 && digits.is_empty();
        if !is_zero && (count < digits.len() || value.is_none()) {
            self.complaints.push(format!("invalid number '{text}'"));
        }
        // As far as it is a number; too large is the largest.
        match value {
            Some(value) if negative => (value as i64).wrapping_neg(),
            Some(value) => value as i64,
            None if count > 0 => i64::MAX,
            None => 0,
        }
    }

    fn float(&mut self, text: &str) -> f64 {
        if let Some(character) = quoted(text) {
            return f64::from(character);
        }
        if text.is_empty() {
            return 0.0;
        }
        text.trim().parse().unwrap_or_else(|_| {
            self.complaints.push(format!("invalid number '{text}'"));
            0.0
        })
    }

    fn signed(&mut self, shape: &Shape, value: i64) {
        let sign = match value {
            ..0 => "-",
            _ if shape.plus => "+",
            _ if shape.space => " ",
            _ => "",
        };
        self.digits(shape, sign, &value.unsigned_abs().to_string());
    }

    fn unsigned(&mut self, shape: &Shape, value: u64, conversion: u8) {
        let (prefix, digits) = match conversion {
            b'o' => ("0", format!("{value:o}")),
            b'x' => ("0x", format!("{value:x}")),
            b'X' => ("0X", format!("{value:X}")),
            _ => ("", value.to_string()),
        };
        let prefix = if shape.alternative && value != 0 {
            prefix
        } else {
            ""
        };
        self.digits(shape, prefix, &digits);
    }

    fn digits(&mut self, shape: &Shape, prefix: &str, digits: &str) {
        let least = shape.precision.unwrap_or(1);
        let digits = match (digits, shape.precision) {
            ("0", Some(0)) => "",
            _ => digits,
        };
        let mut number = "0".repeat(least.saturating_sub(digits.len())) + digits;
        if shape.zero && !shape.left && shape.precision.is_none() {
            let room = shape.width.saturating_sub(prefix.len() + number.len());
            number = "0".repeat(room) + &number;
        }
        self.pad(shape, format!("{prefix}{number}").as_bytes());
    }

    fn real(&mut self, shape: &Shape, value: f64, conversion: u8) {
        let magnitude = value.abs();
        let precision = shape.precision.unwrap_or(6).min(1000);
        let mut digits = if !magnitude.is_finite() {
            if magnitude.is_nan() {
                "nan".to_owned()
            } else {
                "inf".to_owned()
            }
        } else {
            match conversion.to_ascii_lowercase() {
                b'f' => format!("{magnitude:.precision$}"),
                b'e' => scientific(magnitude, precision),
                _ => general(magnitude, precision.max(1), shape.alternative),
            }
        };
        if conversion.is_ascii_uppercase() {
            digits = digits.to_uppercase();
        }
        let sign = match value.is_sign_negative() {
            true => "-",
            false if shape.plus => "+",
            false if shape.space => " ",
            false => "",
        };
        if shape.zero && !shape.left && magnitude.is_finite() {
            let room = shape.width.saturating_sub(sign.len() + digits.len());
            digits = "0".repeat(room) + &digits;
        }
        self.pad(shape, format!("{sign}{digits}").as_bytes());
    }

    fn pad(&mut self, shape: &Shape, bytes: &[u8]) {
        let count = String::from_utf8_lossy(bytes).chars().count();
        let room = shape.width.saturating_sub(count);
        let filling = std::iter::repeat_n(b' ', room);
        if !shape.left {
            self.output.extend(filling.clone());
        }
        self.output.extend_from_slice(bytes);
        if shape.left {
            self.output.extend(filling);
        }
    }
}

/// The character behind a quote at the front.
fn quoted(text: &str) -> Option<u32> {
    let rest = text.strip_prefix(['\'', '"'])?;
    rest.chars().next().map(u32::from)
}

/// `%e`: C writes the exponent with a sign and two digits.
fn scientific(value: f64, precision: usize) -> String {
    let text = format!("{value:.precision$e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.unsigned_abs())
}

/// `%g`: the shorter of both forms, without zeroes at the end.
fn general(value: f64, precision: usize, keep: bool) -> String {
    let text = scientific(value, precision - 1);
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "+00"));
    let power: i64 = exponent.parse().unwrap_or(0);
    let trim = |digits: &str| match digits.contains('.') && !keep {
        true => digits
            .trim_end_matches('0')
            .trim_end_matches('.')
            .to_owned(),
        false => digits.to_owned(),
    };
    let least = i64::try_from(precision).unwrap_or(i64::MAX);
    if power < -4 || power >= least {
        return format!("{}e{exponent}", trim(digits));
    }
    let places = usize::try_from(least - 1 - power).unwrap_or(0);
    trim(&format!("{value:.places$}"))
}
