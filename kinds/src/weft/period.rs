//! Lengths of time as weft's own kinds write them, and what may be wrong with one.
//!
//! They are those of the Gateway API (GEP-2257): one to four numbers of up to five digits, each with `h`, `m`, `s` or `ms`. The schema's
//! pattern says what is one; here is how long it may be.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::field::Field;
use crate::validate::Problems;

/// The length that a text says; `None` where it is none.
pub(super) fn parse(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut sum = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, behind) = rest.split_at_checked(digits)?;
        let number: u64 = number.parse().ok()?;
        let units = [("ms", 1), ("h", 3_600_000), ("m", 60_000), ("s", 1000)];
        let mut units = units.into_iter();
        let (millis, behind) =
            units.find_map(|(name, millis)| Some((millis, behind.strip_prefix(name)?)))?;
        sum = sum.checked_add(Duration::from_millis(number.checked_mul(millis)?))?;
        rest = behind;
    }
    (!text.is_empty()).then_some(sum)
}

/// Tells of a length that is not among `allowed`, which are shown as they are written here.
pub(super) fn judge(field: &Field<'_, '_>, allowed: RangeInclusive<&str>, problems: &mut Problems) {
    let Some(found) = parse(field.text()) else {
        // The schema tells what is no length.
        return;
    };
    let (least, most) = allowed.into_inner();
    let bound = |text: &str| parse(text).unwrap_or_default();
    if found < bound(least) || found > bound(most) {
        let sentence = format!("must be between {least} and {most}, inclusive");
        problems.invalid(field, field.text(), &sentence);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_read_as_they_are_written() {
        for (text, millis) in [
            ("0s", Some(0)),
            ("25ms", Some(25)),
            ("1h2m3s4ms", Some(3_723_004)),
            ("90m", Some(5_400_000)),
            ("", None),
            ("1", None),
            ("s", None),
            ("1d", None),
            ("1.5s", None),
        ] {
            assert_eq!(parse(text), millis.map(Duration::from_millis), "{text:?}");
        }
    }
}
