//! Kubernetes quantities: `100m`, `1Gi`, `1e3`, `0.5`.
//!
//! Exact: a quantity is held in billionths (`n`, the smallest suffix), as an `i128`. Finer text is rounded
//! up, as Kubernetes does. Source: k8s.io/apimachinery `pkg/api/resource`.

use std::fmt;
use std::ops::{Add, AddAssign, Sub};
use std::str::FromStr;

/// Billionths in one.
const NANO: i128 = 1_000_000_000;

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

/// Why a text is not a quantity; the sentence Kubernetes gives.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
)]
pub struct QuantityError;

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
        let (negative, rest) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        let digits_end = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let (number, suffix) = rest.split_at(digits_end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return Err(QuantityError);
        }
        // More digits than any machine has bytes: refused before any arithmetic.
        if whole.len() > 20 || fraction.len() > 30 || suffix.len() > 4 {
            return Err(QuantityError);
        }
        let (scale, format) = Scale::parse(suffix)?;
        let digits: String = [whole, fraction].concat();
        let mantissa: i128 = if digits.is_empty() {
            0
        } else {
            digits.parse().map_err(|_| QuantityError)?
        };
        let nano = scale
            .nano_rounded_up(mantissa, fraction.len() as u32)
            .ok_or(QuantityError)?;
        Ok(Self {
            nano: if negative { -nano } else { nano },
            format,
        })
    }

    /// In thousandths, rounded up: what CPU is counted in.
    pub fn milli(self) -> i128 {
        ceil_div(self.nano, NANO / 1000)
    }

    /// In whole units, rounded up: bytes of memory, pods.
    pub fn value(self) -> i128 {
        ceil_div(self.nano, NANO)
    }

    pub fn is_negative(self) -> bool {
        self.nano < 0
    }

    pub fn is_zero(self) -> bool {
        self.nano == 0
    }
}

/// A suffix as `2^binary × 10^decimal`.
struct Scale {
    binary: u32,
    decimal: i32,
}

impl Scale {
    fn parse(suffix: &str) -> Result<(Self, Format), QuantityError> {
        let decimal = |decimal| Ok((Self { binary: 0, decimal }, Format::Decimal));
        let binary = |binary| Ok((Self { binary, decimal: 0 }, Format::Binary));
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
            "Ki" => binary(10),
            "Mi" => binary(20),
            "Gi" => binary(30),
            "Ti" => binary(40),
            "Pi" => binary(50),
            "Ei" => binary(60),
            _ => {
                let exponent = suffix
                    .strip_prefix(['e', 'E'])
                    .and_then(|digits| digits.parse::<i32>().ok())
                    .filter(|exponent| (-9..=18).contains(exponent))
                    .ok_or(QuantityError)?;
                Ok((
                    Self {
                        binary: 0,
                        decimal: exponent,
                    },
                    Format::Exponent,
                ))
            }
        }
    }

    /// `mantissa × 10^-fraction_digits × scale`, in billionths, rounded away from zero; `None` on overflow.
    fn nano_rounded_up(&self, mantissa: i128, fraction_digits: u32) -> Option<i128> {
        let exponent = self.decimal + 9 - i32::try_from(fraction_digits).ok()?;
        let scaled = mantissa.checked_mul(1_i128 << self.binary)?;
        if exponent >= 0 {
            scaled.checked_mul(10_i128.checked_pow(exponent.unsigned_abs())?)
        } else {
            Some(ceil_div(
                scaled,
                10_i128.checked_pow(exponent.unsigned_abs())?,
            ))
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
        if self.format == Format::Binary && self.nano % NANO == 0 {
            let value = self.nano / NANO;
            for (suffix, shift) in [
                ("Ei", 60),
                ("Pi", 50),
                ("Ti", 40),
                ("Gi", 30),
                ("Mi", 20),
                ("Ki", 10),
            ] {
                if value % (1_i128 << shift) == 0 {
                    return write!(f, "{}{suffix}", value >> shift);
                }
            }
            return write!(f, "{value}");
        }
        let mut scale = 10_i128.pow(27);
        for (suffix, exponent) in [
            ("E", 18),
            ("P", 15),
            ("T", 12),
            ("G", 9),
            ("M", 6),
            ("k", 3),
            ("", 0),
            ("m", -3),
            ("u", -6),
            ("n", -9),
        ] {
            if self.nano % scale == 0 {
                return match self.format {
                    Format::Exponent if exponent != 0 => {
                        write!(f, "{}e{exponent}", self.nano / scale)
                    }
                    _ => write!(f, "{}{suffix}", self.nano / scale),
                };
            }
            scale /= 1000;
        }
        Ok(())
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
            "99999999999999999999999",
            "1Kii",
        ] {
            assert!(Quantity::parse(bad).is_err(), "{bad}");
        }
    }
}
