//! Kubernetes quantities: `100m`, `1Gi`, `1e3`, `0.5`.
//!
//! Exact: a quantity is held in billionths (`n`, the smallest suffix), as an `i128`. Finer text is rounded
//! away from zero, as Kubernetes does, and what has a binary suffix ends at 2^63-1. [`Quantity::canonical`] is the text
//! that Kubernetes keeps and answers with.
//!
//! Source: k8s.io/apimachinery `pkg/api/resource`; `tests/upstream/quantities.tsv` holds what it answers. Two differences
//! are kept: a text without any digit (`m`, `.`) is refused instead of read as zero, and an amount beyond `999E` keeps its
//! suffix instead of losing it.

use std::borrow::Cow;
use std::fmt;
use std::ops::{Add, AddAssign, Sub};
use std::str::FromStr;

/// Billionths in one.
const NANO: i128 = 1_000_000_000;

/// Largest amount with a binary suffix, in whole units: Kubernetes' own limit.
const BINARY_MAX: i128 = i64::MAX as i128;

/// Most digits before the decimal point of an amount in billionths: an `i128` holds any number of so many.
const DIGITS_MAX: usize = 38;

/// How a quantity prints: with decimal (`k`, `M`) or binary (`Ki`, `Mi`) suffixes, or an exponent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
enum Format {
    #[default]
    Decimal,
    Binary,
    Exponent,
}

/// An exact amount of a resource. Equality and order compare the amount, not the format.
#[derive(Debug, Clone, Copy, Default)]
pub struct Quantity {
    nano: i128,
    format: Format,
}

/// Why a text is not a quantity; the sentences Kubernetes gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    #[error(
        "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
    )]
    Form,
    /// Also an amount beyond what is counted here: 10^29.
    #[error("unable to parse numeric part of quantity")]
    Number,
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

/// A text taken apart: `-01.50Gi` is negative, `1`, `50`, `Gi`.
struct Parts<'a> {
    negative: bool,
    /// Without leading zeros.
    whole: &'a str,
    fraction: &'a str,
    suffix: &'a str,
}

impl<'a> Parts<'a> {
    fn split(text: &'a str) -> Result<Self, QuantityError> {
        let digits = |text: &'a str| {
            let end = text.bytes().position(|b| !b.is_ascii_digit());
            text.split_at(end.unwrap_or(text.len()))
        };
        let negative = text.starts_with('-');
        let (whole, rest) = digits(text.strip_prefix(['-', '+']).unwrap_or(text));
        let (fraction, suffix) = match rest.strip_prefix('.') {
            Some(rest) => digits(rest),
            None => ("", rest),
        };
        let letters = suffix.trim_start_matches(|c| "eEinumkKMGTP".contains(c));
        let exponent = letters.strip_prefix(['-', '+']).unwrap_or(letters);
        if !exponent.bytes().all(|b| b.is_ascii_digit()) {
            return Err(QuantityError::Form);
        }
        let number = Self {
            negative,
            whole: whole.trim_start_matches('0'),
            fraction,
            suffix,
        };
        match whole.is_empty() && fraction.is_empty() {
            // `--1`: a sign where a suffix belongs.
            true if suffix.starts_with(['-', '+']) => Err(QuantityError::Suffix),
            true => Err(QuantityError::Form),
            false => Ok(number),
        }
    }

    /// Whether Kubernetes keeps the text as it was written: it takes a short way for numbers of few digits, and spares
    /// itself the canonical form of those that are close enough to it (`+1Gi`, `1.500`, `1E3`).
    fn is_kept(&self, scale: &Scale) -> bool {
        let whole = if self.whole.is_empty() {
            "0"
        } else {
            self.whole
        };
        let digits = whole.len() + self.fraction.len();
        match *scale {
            Scale::Decimal(exponent, _) => {
                let exponent = exponent.saturating_sub(self.fraction.len() as i64);
                let last = if self.fraction.is_empty() {
                    whole
                } else {
                    self.fraction
                };
                let thousands = match last.len() {
                    0..3 => [whole, self.fraction].concat().ends_with("000"),
                    _ => last.ends_with("000"),
                };
                digits <= 18
                    && exponent >= -9
                    && exponent % 3 == 0
                    && !whole.starts_with('0')
                    && !thousands
            }
            Scale::Binary(shift) => {
                let room = 14_i64 - whole.len() as i64 - i64::from(shift) * 3 / 10;
                self.fraction.is_empty()
                    && room >= 0
                    && whole.parse::<u64>().is_ok_and(|whole| whole & 7 != 0)
            }
        }
    }

    /// The amount in billionths, its sign put aside, rounded up.
    fn nano(&self, scale: &Scale) -> Result<i128, QuantityError> {
        match *scale {
            Scale::Decimal(exponent, _) => self.decimal(exponent),
            Scale::Binary(shift) => Ok(self.binary(shift)),
        }
    }

    /// Moves the decimal point through the digits; nothing is computed that is then thrown away.
    fn decimal(&self, exponent: i64) -> Result<i128, QuantityError> {
        let digits = [self.whole, self.fraction].concat();
        let point = exponent
            .saturating_add(9)
            .saturating_add(self.whole.len() as i64);
        let kept = usize::try_from(point.max(0)).unwrap_or(usize::MAX);
        let (before, after) = digits.split_at(kept.min(digits.len()));
        let before = before.trim_start_matches('0');
        let zeros = if before.is_empty() {
            0
        } else {
            kept.saturating_sub(digits.len())
        };
        if before.len().saturating_add(zeros) > DIGITS_MAX {
            return Err(QuantityError::Number);
        }
        let mut amount: i128 = 0;
        for digit in before.bytes().chain(std::iter::repeat_n(b'0', zeros)) {
            amount = amount * 10 + i128::from(digit - b'0');
        }
        let rest = after.bytes().any(|digit| digit != b'0');
        Ok(amount + i128::from(rest))
    }

    /// `whole.fraction × 2^shift`, at most [`BINARY_MAX`].
    fn binary(&self, shift: u32) -> i128 {
        let whole = match self.whole.len() {
            0 => Some(0),
            1..20 => self.whole.parse::<i128>().ok(),
            _ => None,
        };
        // Eighteen digits and eighteen more: what follows them only decides whether there is a rest.
        let fraction = |from: usize| {
            let digits = self.fraction.bytes().chain(std::iter::repeat(b'0'));
            let digits = digits.skip(from).take(18);
            digits.fold(0_i128, |sum, digit| sum * 10 + i128::from(digit - b'0'))
        };
        const DIGITS: i128 = 1_000_000_000_000_000_000;
        let low = fraction(18) << shift;
        let high = (fraction(0) << shift) + low / DIGITS;
        let rest = low % DIGITS != 0 || self.fraction.bytes().skip(36).any(|digit| digit != b'0');
        let nano = high / NANO + i128::from(high % NANO != 0 || rest);
        whole
            .map(|whole| whole << shift)
            .filter(|whole| *whole <= BINARY_MAX)
            .map_or(BINARY_MAX * NANO, |whole| whole * NANO + nano)
            .min(BINARY_MAX * NANO)
    }
}

impl Quantity {
    pub const ZERO: Self = Self {
        nano: 0,
        format: Format::Decimal,
    };

    pub fn from_milli(milli: i128) -> Self {
        Self {
            nano: milli.saturating_mul(NANO / 1000),
            format: Format::Decimal,
        }
    }

    /// A plain count, printed with decimal suffixes.
    pub fn from_value(value: i128) -> Self {
        Self {
            nano: value.saturating_mul(NANO),
            format: Format::Decimal,
        }
    }

    /// A number of bytes, printed with binary suffixes.
    pub fn from_bytes(bytes: u64) -> Self {
        Self {
            nano: i128::from(bytes) * NANO,
            format: Format::Binary,
        }
    }

    /// # Errors
    /// [`QuantityError`] for anything Kubernetes would refuse.
    pub fn parse(text: &str) -> Result<Self, QuantityError> {
        Self::parsed(text).map(|(quantity, _)| quantity)
    }

    /// The text that Kubernetes stores for this one: `.5` is `500m`, `1024Mi` is `1Gi`, `+1` stays. Canonical text is its
    /// own canonical form.
    ///
    /// # Errors
    /// [`QuantityError`] for anything Kubernetes would refuse.
    pub fn canonical(text: &str) -> Result<Cow<'_, str>, QuantityError> {
        Ok(match Self::parsed(text)? {
            (_, true) => Cow::Borrowed(text),
            (quantity, false) => match quantity.to_string() {
                same if same == text => Cow::Borrowed(text),
                changed => Cow::Owned(changed),
            },
        })
    }

    /// The quantity, and whether its text stays as it is.
    fn parsed(text: &str) -> Result<(Self, bool), QuantityError> {
        let parts = Parts::split(text)?;
        let scale = Scale::parse(parts.suffix)?;
        let nano = parts.nano(&scale)?;
        let format = match scale {
            Scale::Decimal(_, format) => format,
            Scale::Binary(_) if (1..NANO).contains(&nano) => Format::Decimal,
            Scale::Binary(_) => Format::Binary,
        };
        let quantity = Self {
            nano: if parts.negative { -nano } else { nano },
            format,
        };
        Ok((quantity, nano != 0 && parts.is_kept(&scale)))
    }

    /// In thousandths, rounded up: what CPU is counted in.
    pub fn milli(self) -> i128 {
        ceil_div(self.nano, NANO / 1000)
    }

    /// In whole units, rounded up: bytes of memory, pods.
    pub fn value(self) -> i128 {
        ceil_div(self.nano, NANO)
    }

    /// As nearly as a floating-point number has it: for ratios.
    pub fn as_f64(self) -> f64 {
        self.nano as f64 / NANO as f64
    }

    pub fn is_negative(self) -> bool {
        self.nano < 0
    }

    pub fn is_zero(self) -> bool {
        self.nano == 0
    }
}

/// What a suffix multiplies by.
enum Scale {
    /// A power of ten, and how such a quantity prints.
    Decimal(i64, Format),
    /// A power of two.
    Binary(u32),
}

impl Scale {
    fn parse(suffix: &str) -> Result<Self, QuantityError> {
        let decimal = |exponent| Ok(Self::Decimal(exponent, Format::Decimal));
        match suffix {
            "n" => decimal(-9),
            "u" => decimal(-6),
            "m" => decimal(-3),
            "" => decimal(0),
            "k" => decimal(3),
            "M" => decimal(6),
            "G" => decimal(9),
            "T" => decimal(12),
            "P" => decimal(15),
            "E" => decimal(18),
            "Ki" => Ok(Self::Binary(10)),
            "Mi" => Ok(Self::Binary(20)),
            "Gi" => Ok(Self::Binary(30)),
            "Ti" => Ok(Self::Binary(40)),
            "Pi" => Ok(Self::Binary(50)),
            "Ei" => Ok(Self::Binary(60)),
            _ => suffix
                .strip_prefix(['e', 'E'])
                .and_then(|exponent| exponent.parse().ok())
                .map(|exponent| Self::Decimal(exponent, Format::Exponent))
                .ok_or(QuantityError::Suffix),
        }
    }
}

fn ceil_div(value: i128, by: i128) -> i128 {
    let quotient = value / by;
    if value % by > 0 {
        quotient + 1
    } else {
        quotient
    }
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl fmt::Display for Quantity {
    /// Canonical form: the largest suffix that leaves a whole number.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nano == 0 {
            return f.write_str("0");
        }
        let whole = self.nano / NANO;
        // Below 1024, and where it would round, a decimal suffix says it better.
        if self.format == Format::Binary && self.nano % NANO == 0 && whole.abs() >= 1024 {
            let powers = (whole.trailing_zeros() / 10).min(6);
            let suffix = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"][powers as usize];
            return write!(f, "{}{suffix}", whole >> (10 * powers));
        }
        let (mut number, mut exponent) = (self.nano, -9);
        let exponent_max = if self.format == Format::Exponent {
            i32::MAX
        } else {
            18
        };
        while exponent < exponent_max && number % 1000 == 0 {
            number /= 1000;
            exponent += 3;
        }
        write!(f, "{number}")?;
        match self.format {
            Format::Exponent if exponent != 0 => write!(f, "e{exponent}"),
            Format::Exponent => Ok(()),
            Format::Decimal | Format::Binary => {
                let suffixes = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];
                f.write_str(usize::try_from(exponent / 3 + 3).map_or("", |place| suffixes[place]))
            }
        }
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nano == other.nano
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.nano.cmp(&other.nano)
    }
}

impl Add for Quantity {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            nano: self.nano.saturating_add(other.nano),
            format: if self.nano == 0 {
                other.format
            } else {
                self.format
            },
        }
    }
}

impl AddAssign for Quantity {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sub for Quantity {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self {
            nano: self.nano.saturating_sub(other.nano),
            format: self.format,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_exact_and_print_canonically() {
        for (text, milli, shown) in [
            ("100m", 100, "100m"),
            ("0.1", 100, "100m"),
            ("1", 1000, "1"),
            ("1.5", 1500, "1500m"),
            ("1k", 1_000_000, "1k"),
            ("1e3", 1_000_000, "1e3"),
            ("1Ki", 1_024_000, "1Ki"),
            ("64Mi", 67_108_864_000, "64Mi"),
            ("1.5Gi", 1_610_612_736_000, "1536Mi"),
            ("1024Mi", 1_073_741_824_000, "1Gi"),
            ("0", 0, "0"),
            ("-2", -2000, "-2"),
            ("1n", 1, "1n"),
            ("20k", 20_000_000, "20k"),
            ("1E", 1_000_000_000_000_000_000_000, "1E"),
        ] {
            let quantity = Quantity::parse(text).unwrap();
            assert_eq!(quantity.milli(), milli, "{text}");
            assert_eq!(quantity.to_string(), shown, "{text}");
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for bad in [
            "",
            "m",
            ".",
            "1x",
            "1 Gi",
            "1..2",
            "1e99",
            "0x10",
            "1mi",
            "--1",
            "999999999999999999999999999999",
            "1Kii",
        ] {
            assert!(Quantity::parse(bad).is_err(), "{bad}");
        }
    }
}
