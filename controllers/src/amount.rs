//! Numbers of pods, as the API has them: perhaps absent, perhaps a percentage.
//!
//! Invariant: none is negative, whatever was stored, and a sum of some fits what it is counted in.

use weft_api::view::IntOrString;

/// A number of pods as somebody wrote it: absent or negative counts as none.
pub fn count(number: Option<i32>) -> i64 {
    i64::from(number.unwrap_or(0).max(0))
}

/// A number of pods as the API carries it.
pub fn pods(number: i64) -> i32 {
    i32::try_from(number.max(0)).unwrap_or(i32::MAX)
}

/// A number, or a percentage of `total`. Validation refuses other strings; such a one counts as zero here.
pub fn pods_of(value: &IntOrString, total: i64, round_up: bool) -> i64 {
    match value {
        IntOrString::Int(number) => count(Some(*number)),
        IntOrString::String(text) => {
            let percent: i64 = text
                .strip_suffix('%')
                .and_then(|number| number.parse().ok())
                .unwrap_or(0);
            let product = percent.max(0).saturating_mul(total);
            let pods = if round_up {
                product.saturating_add(99) / 100
            } else {
                product / 100
            };
            pods.min(i64::from(i32::MAX))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_are_rounded_as_asked() {
        let percent = |text: &str| IntOrString::String(text.into());
        for (value, total, down, up) in [
            (percent("50%"), 7, 3, 4),
            (percent("0%"), 7, 0, 0),
            (percent("100%"), 7, 7, 7),
            (percent("1%"), 7, 0, 1),
            (percent("200%"), 7, 14, 14),
            (percent("much"), 7, 0, 0),
            (IntOrString::Int(-3), 7, 0, 0),
            (IntOrString::Int(9), 7, 9, 9),
        ] {
            assert_eq!(pods_of(&value, total, false), down, "{value:?} down");
            assert_eq!(pods_of(&value, total, true), up, "{value:?} up");
        }
    }
}
