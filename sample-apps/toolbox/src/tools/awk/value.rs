//! Values of awk: text, numbers, and text that looks like a number.

use std::cmp::Ordering;
use std::rc::Rc;

use crate::tools::printf::float;

#[derive(Clone, Debug, Default)]
pub enum Value {
    #[default]
    Unset,
    Number(f64),
    Text(Rc<Vec<u8>>),
    /// Input that looks like this number.
    Numeric(Rc<Vec<u8>>, f64),
}

impl Value {
    pub fn text(bytes: impl Into<Vec<u8>>) -> Value {
        Value::Text(Rc::new(bytes.into()))
    }

    /// Text from outside, which is a number if it looks like one.
    pub fn input(bytes: impl Into<Vec<u8>>) -> Value {
        let bytes = bytes.into();
        match whole_number(&bytes) {
            Some(number) => Value::Numeric(Rc::new(bytes), number),
            None => Value::Text(Rc::new(bytes)),
        }
    }

    pub fn truth(value: bool) -> Value {
        Value::Number(f64::from(u8::from(value)))
    }

    pub fn number(&self) -> f64 {
        match self {
            Value::Unset => 0.0,
            Value::Number(number) | Value::Numeric(_, number) => *number,
            Value::Text(text) => crate::tools::sort::leading_float(text).unwrap_or(0.0),
        }
    }

    pub fn is_true(&self) -> bool {
        match self {
            Value::Unset => false,
            Value::Number(number) | Value::Numeric(_, number) => *number != 0.0,
            Value::Text(text) => !text.is_empty(),
        }
    }

    /// As text; numbers that are not whole as `format` says.
    pub fn bytes(&self, format: &[u8]) -> Rc<Vec<u8>> {
        match self {
            Value::Unset => Rc::default(),
            Value::Text(text) | Value::Numeric(text, _) => Rc::clone(text),
            Value::Number(number) => Rc::new(number_text(*number, format)),
        }
    }

    pub fn compare(&self, other: &Value, format: &[u8]) -> Ordering {
        if let (false, false) = (
            matches!(self, Value::Text(_)),
            matches!(other, Value::Text(_)),
        ) {
            return self
                .number()
                .partial_cmp(&other.number())
                .unwrap_or(Ordering::Greater);
        }
        self.bytes(format).cmp(&other.bytes(format))
    }
}

/// A number as text.
pub fn number_text(number: f64, format: &[u8]) -> Vec<u8> {
    if number.fract() == 0.0 && number.abs() < 1e16 {
        return format!("{}", number as i64).into_bytes();
    }
    if !number.is_finite() {
        return float(number, b'f', 0, false).into_bytes();
    }
    if format == b"%.6g" {
        return float(number, b'g', 6, false).into_bytes();
    }
    let value = [crate::tools::printf::Value::Number(number)];
    crate::tools::printf::format(format, &value, false).bytes
}

/// The number that all of a text is, blanks around it apart.
fn whole_number(text: &[u8]) -> Option<f64> {
    let text = text.trim_ascii();
    let first = *text.first()?;
    if !(first.is_ascii_digit() || matches!(first, b'-' | b'+' | b'.')) {
        return None;
    }
    if !text
        .iter()
        .all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(byte))
    {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}
